// SPDX-License-Identifier: Apache-2.0
// MemberDevice: a place of the array as a device: the device that is there now, less its blocks that hold nothing
// known.
//
// Invariants:
//   MD1 A listed block reads as unreadable, like one that the device cannot read, so that every level treats it so.
//   MD2 A block leaves the list when a write of all of it is durable on the device; the list without it is durable
//       before that write is acknowledged. A crash so brings back no garbage that looks known, and loses no
//       acknowledged write.
//   MD3 A block enters the list under its stripe's lock, while the member is not in sync: no unlocked read of it is
//       under way. It is durable with the first rebuild cursor that is beyond it.
//   MD4 The device of a place is exchanged only while nothing is sent there: the member is not in sync. What is in
//       flight stays with the device that it was sent to, which outlives the array.
//   MD5 With checksums, data that is read is compared with the map, and what is written is entered there first (CS1,
//       CS3); so writes of data come from the shard.
// Threads: I/O on any executor; put() and the list's changes on home, add_unreadable() on a shard.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "gemel/block_device.hpp"
#include "raid/interval_set.hpp"

namespace gemel::raid::detail {

class ArrayBody;

class MemberDevice : public BlockDevice {
  public:
    MemberDevice(ArrayBody& array, std::uint32_t index) : array_(array), index_(index) {}

    /// nullptr when there is none: then all I/O fails with kDeviceGone.
    [[nodiscard]] BlockDevice* device() const { return device_.load(std::memory_order_acquire); }
    [[nodiscard]] bool present() const { return device() != nullptr; }
    /// MD4. The list is empty afterwards.
    void put(BlockDevice* device);

    /// Blocks of 4 KiB. False when the list is full.
    bool add_unreadable(std::uint64_t first, std::uint64_t count);
    void remove_unreadable(std::uint64_t first, std::uint64_t count);
    [[nodiscard]] IntervalSet unreadable() const;

    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options = {}) override;
    /// Without comparing it with the map: for those that judge a whole stripe, or all legs.
    Task<Result<void>> read_unverified(Lba lba, Slice to, ReadOptions options = {});
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options = {}) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    [[nodiscard]] std::string name() const override;

  private:
    [[nodiscard]] bool has_entries(Lba lba) const;
    Task<Result<void>> read_verified(Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> write_entered(Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> write_device(Lba lba, Slice from, WriteOptions options);
    [[nodiscard]] bool listed(Lba lba, SectorCount sectors) const;
    Task<Result<void>> read_around(BlockDevice& device, Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> write_and_clear(BlockDevice& device, Lba lba, Slice from, WriteOptions options);

    ArrayBody& array_;
    std::uint32_t index_;
    std::atomic<BlockDevice*> device_{nullptr};
    std::atomic<bool> any_{false};  ///< the list is not empty
    mutable std::mutex mutex_;      ///< guards the list; never held over an I/O
    IntervalSet unreadable_;        ///< in blocks
};

}  // namespace gemel::raid::detail
