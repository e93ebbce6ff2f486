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
//   MD4 The device of a place is exchanged only while nothing is sent there: the member is not in sync; or by
//       exchange(), for one that holds the same. What is in flight stays with the device that it was sent to, which
//       outlives the array.
//   MD5 With checksums, data that is read is compared with the map, and what is written is entered there first (CS1,
//       CS3); so writes of data come from the shard.
//   MD6 While there is a target every write and flush goes to it, too, and ends when both have ended; reads never go
//       there. A write or flush that one of the two missed succeeds only when the superblock that says so is durable.
//       Whoever misses what came before the exchange is no member any more, which harms nobody.
//   MD7 Addresses are of the member's data, without a gap; only here they become sectors of the device. An I/O lies in
//       one piece there. What is no data goes through areas(), by sectors of the device.
//   MD8 Space is given back, where a write allows it and the device does it, of what is zeros and of nothing else: what
//       is read afterwards, its redundancy and its entries are those of the same write without it.
// Threads: I/O on any executor; put(), set_target(), exchange() and the list's changes on home, add_unreadable() on a
// shard.
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
    MemberDevice(ArrayBody& array, std::uint32_t index) : array_(array), index_(index), areas_(*this) {}

    /// The same device with target and all, but by its own sectors: for the log and the checksum map.
    [[nodiscard]] BlockDevice& areas() { return areas_; }

    /// nullptr when there is none: then all I/O fails with kDeviceGone.
    [[nodiscard]] BlockDevice* device() const { return device_.load(std::memory_order_acquire); }
    [[nodiscard]] bool present() const { return device() != nullptr; }
    /// MD4. The list is empty afterwards, and there is no target.
    void put(BlockDevice* device);
    /// The device that is to replace the one that is there (MD6); nullptr: none any more.
    void set_target(BlockDevice* target) { target_.store(target, std::memory_order_release); }
    [[nodiscard]] BlockDevice* target() const { return target_.load(std::memory_order_acquire); }
    /// The target is the device of the place. REQUIRES: it holds what the other one holds.
    void exchange();
    /// Writes what the place holds to the target alone; to both if blocks leave the list by it. Error: it is no target
    /// any more.
    Task<Result<void>> write_target(Lba lba, Slice from, WriteOptions options);
    /// The same of what is no data, by sectors of the device.
    Task<Result<void>> write_target_area(Lba lba, Slice from, WriteOptions options);

    /// Blocks of 4 KiB. False when the list is full.
    bool add_unreadable(std::uint64_t first, std::uint64_t count);
    void remove_unreadable(std::uint64_t first, std::uint64_t count);
    [[nodiscard]] IntervalSet unreadable() const;

    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options = {}) override;
    /// Without comparing it with the map: for those that judge a whole stripe, or all legs.
    Task<Result<void>> read_unverified(Lba lba, Slice to, ReadOptions options = {});
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options = {}) override;
    /// The same for a part of a stripe that is written together with its parity (KC2).
    Task<Result<void>> write_in_step(Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    [[nodiscard]] std::string name() const override;

  private:
    enum class Door : std::uint8_t { kData, kAreas };
    class Areas : public BlockDevice {
      public:
        explicit Areas(MemberDevice& member) : member_(member) {}
        [[nodiscard]] DeviceLimits limits() const override { return member_.limits(); }
        Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override {
            return member_.read_present(Door::kAreas, lba, to, options);
        }
        Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override {
            return member_.present() ? member_.write_through(Door::kAreas, lba, from, options) : member_.missing();
        }
        Task<Result<void>> flush() override { return member_.flush(); }
        Task<Result<void>> discard(Lba lba, SectorCount count) override {
            return member_.discard_through(Door::kAreas, lba, count);
        }
        [[nodiscard]] std::string name() const override { return member_.name(); }

      private:
        MemberDevice& member_;
    };

    Task<Result<void>> write_data(Lba lba, Slice from, WriteOptions options);
    [[nodiscard]] bool has_entries() const;
    [[nodiscard]] Task<Result<void>> missing() const;
    /// MD7. REQUIRES: the I/O lies in one piece.
    [[nodiscard]] Lba device_lba(Door door, Lba lba, SectorCount sectors) const;
    Task<Result<void>> read_present(Door door, Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> read_verified(Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> write_entered(Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> write_device(Lba lba, Slice from, WriteOptions options);
    [[nodiscard]] bool listed(Lba lba, SectorCount sectors) const;
    Task<Result<void>> read_from(Door door, BlockDevice& device, Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> read_around(BlockDevice& device, Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> read_beside_target(Door door, BlockDevice& device, Lba lba, Slice to, ReadOptions options);
    Task<Result<void>> write_and_clear(Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> write_target_at(Door door, Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> write_through(Door door, Lba lba, Slice from, WriteOptions options);
    Task<Result<void>> discard_through(Door door, Lba lba, SectorCount count);
    Task<Result<void>> both(BlockDevice& device, BlockDevice& target, Task<Result<void>> own, Task<Result<void>> other);

    ArrayBody& array_;
    std::uint32_t index_;
    Areas areas_;
    std::atomic<BlockDevice*> device_{nullptr};
    /// A writer loads it before `device_`, exchange() stores it after: nobody sees neither of old device and target.
    std::atomic<BlockDevice*> target_{nullptr};
    std::atomic<bool> any_{false};  ///< the list is not empty
    mutable std::mutex mutex_;      ///< guards the list; never held over an I/O
    IntervalSet unreadable_;        ///< in blocks
};

}  // namespace gemel::raid::detail
