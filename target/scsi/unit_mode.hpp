// SPDX-License-Identifier: Apache-2.0
// UnitMode: what MODE SELECT changes of a unit. One set for all initiators (SPC-4 7.5.1, shared mode pages), forgotten
// by a reset and at a restart: nothing is saved.
// Threads: any; a change of several values shows as one.
#pragma once

#include <atomic>
#include <cstdint>

namespace gemel::scsi {

class UnitMode {
  public:
    enum Flag : std::uint8_t {
        kWriteProtect = 1,     ///< SWP, control mode page
        kDescriptorSense = 2,  ///< D_SENSE, control mode page
        kNoWriteCache = 4,     ///< WCE = 0, caching mode page
    };
    explicit UnitMode(std::uint8_t defaults) : defaults_(defaults), flags_(defaults) {}

    [[nodiscard]] std::uint8_t flags() const { return flags_.load(std::memory_order_acquire); }
    [[nodiscard]] bool write_protected() const { return (flags() & kWriteProtect) != 0; }
    [[nodiscard]] bool descriptor_sense() const { return (flags() & kDescriptorSense) != 0; }
    [[nodiscard]] bool write_cache_off() const { return (flags() & kNoWriteCache) != 0; }
    [[nodiscard]] std::uint8_t defaults() const { return defaults_; }

    /// True if that changes something.
    bool set(std::uint8_t flags) { return flags_.exchange(flags, std::memory_order_acq_rel) != flags; }
    void reset() { set(defaults_); }

  private:
    const std::uint8_t defaults_;
    std::atomic<std::uint8_t> flags_;
};

}  // namespace gemel::scsi
