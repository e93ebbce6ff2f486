// SPDX-License-Identifier: Apache-2.0
// Volume: a volume of an array as a BlockDevice.
//
// Invariants:
//   VO1 Every I/O counts itself in the map that it uses; sectors that a shrink took away are free only when the last
//       I/O through an older map has ended.
//   VO2 A host write is verified against its checksums once, here, before anything is written (B1 of buffer.hpp).
//   VO3 A discard is a write of zeros, cut at stripes, so that those which it covers are written whole: then their
//       parity is zeros, too, and may be given back with them; and at blocks, since a block that is written in part is
//       stored with what else is in it.
// Threads: any executor; set_map on the array's home.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "gemel/block_device.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid::detail {

class ArrayBody;

class Volume : public BlockDevice {
  public:
    Volume(ArrayBody& array, const VolumeRecord& record);

    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override;
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    /// A write that trusts nothing that is there: with parity, all of the range's stripes are made right again.
    Task<Result<void>> repair_write(Lba lba, Slice from) override;
    void observe(DeviceObserver* observer) override { observer_.store(observer); }
    [[nodiscard]] Uuid identity() const override { return uuid_; }
    [[nodiscard]] std::string name() const override;

    [[nodiscard]] const std::string& volume_name() const { return volume_name_; }
    /// Puts a new size and new extents in force for I/O that starts from now on.
    void set_map(const VolumeRecord& record);
    /// I/O through any map but the present one has ended. `all`: through that one too.
    [[nodiscard]] bool quiet(bool all) const;
    [[nodiscard]] DeviceObserver* observer() const { return observer_.load(); }
    /// Tells the observer which of its sectors lie in `extent` of the array.
    void unreadable(Extent extent);

  private:
    struct Map {
        SectorCount sectors;
        std::vector<VolumeExtent> extents;
        std::atomic<std::uint64_t> users{0};
    };
    /// Counts an I/O in the present map (VO1).
    class Use {
      public:
        explicit Use(Volume& volume);
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        ~Use() { map_->users.fetch_sub(1); }
        [[nodiscard]] const Map& map() const { return *map_; }

      private:
        Map* map_;
    };
    [[nodiscard]] Result<void> admit(const Map& map, Lba lba, SectorCount sectors) const;
    /// The run of `lba` in the array: its address there and how far it goes.
    static VolumeExtent locate(const Map& map, Lba lba);
    void report(Lba lba, Slice part);
    [[nodiscard]] std::uint64_t discard_unit() const;
    [[nodiscard]] std::uint64_t discard_piece(Lba lba, std::uint64_t left, std::uint64_t most) const;
    Task<Result<void>> write_verified(Lba lba, Slice from, WriteOptions options, bool repair);

    ArrayBody& array_;
    std::string volume_name_;
    Uuid uuid_;
    std::atomic<DeviceObserver*> observer_{nullptr};
    std::atomic<Map*> map_{nullptr};
    std::vector<std::unique_ptr<Map>> maps_;  ///< every map ever, a few words per resize; home only
};

}  // namespace gemel::raid::detail
