// SPDX-License-Identifier: Apache-2.0
// SeveredCopy: the volume of a severed secondary as a device of its own, for a backup (NS-10). It can be read, and does
// not change, from sever to re-establish; at any other time it answers kRefused.
// Threads: as its mirror's.
#pragma once

#include <atomic>

#include "gemel/block_device.hpp"

namespace gemel::replication {

class Mirror;

class SeveredCopy : public BlockDevice {
  public:
    explicit SeveredCopy(Mirror& mirror) : mirror_(mirror) {}

    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override;
    /// Errors: kReadOnly, always.
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    Task<Result<void>> flush() override;
    void observe(DeviceObserver* observer) override { observer_.store(observer); }
    /// The volume has another size.
    void announce(SectorCount sectors);
    /// Not that of the volume: hosts must never take it for a path to the volume itself.
    [[nodiscard]] Uuid identity() const override;
    [[nodiscard]] std::string name() const override;

  private:
    Mirror& mirror_;
    std::atomic<DeviceObserver*> observer_{nullptr};
};

}  // namespace gemel::replication
