// SPDX-License-Identifier: Apache-2.0
// Checksums: what an array knows of the content of its blocks apart from them: the map, as the data path
// uses it.
//
// Invariants:
//   CS1 Every read of a member's data is compared with the map, in whole blocks; a block that contradicts it is treated
//       like one that the device cannot read, so that every level reads around it and writes it anew.
//   CS2 The entries of columns that are not trusted say nothing: after a crash what the journal names counts as it
//       lies. Whoever makes such a column right sets the entries of all its blocks before it is trusted.
//   CS3 A write enters what it writes before it is sent, also for members that are missing: what is made up for them is
//       compared, too.
//   CS4 A read without the stripe's lock may meet a write and find data and entry of different age. So it only says
//       that something may be wrong; what reads around it does so under the lock, and that counts.
//   CS5 Where a block contradicts the map but all blocks of its column agree with the redundancy, the map is what is
//       wrong.
//   CS6 A part of a block is written together with the rest of it. Where nobody knows the rest, the write is refused
//       before anything changes: acknowledged, it could not be read. In a column that is not trusted it is written as
//       it is, and nothing is known of the block; and so it is where a start does again what was logged in parts, while
//       there was no map.
// Threads: verify() on any executor; what is said to be the shard's there; the rest on home.
#pragma once

#include <memory>
#include <vector>

#include "raid/array_body.hpp"
#include "raid/checksum_map.hpp"
#include "raid/shard.hpp"

namespace gemel::raid::detail {

class Checksums {
  public:
    /// `start`: the superblock's epoch. `cache_bytes`: of the pages kept in memory, over all shards.
    Checksums(ArrayBody& array, ChecksumOrigin origin, std::uint64_t start, const AreaRecord& area,
              std::uint64_t cache_bytes);
    /// The map is of all columns that the array has now. Home. REQUIRES: there is room for it.
    void grow() { layout_.columns.set(ChecksumLayout::of(array_.geometry).columns); }

    [[nodiscard]] const ChecksumLayout& layout() const { return layout_; }
    /// Which of the entries of a block is that of `member`.
    [[nodiscard]] std::uint32_t slot(std::uint32_t member) const { return layout_.slots == 1 ? 0 : member; }
    /// The block of columns at an address of a member's data.
    [[nodiscard]] std::uint64_t column_block(std::uint32_t member, Lba member_lba) const;
    [[nodiscard]] Shard& shard(std::uint64_t column_block) const;
    [[nodiscard]] ChecksumMap& map(std::uint64_t column_block) const { return *maps_[shard(column_block).index]; }
    [[nodiscard]] static bool trusted(const Shard& shard, std::uint64_t column_block) {
        const std::uint64_t column = column_block * kSectorsPerBlock;
        return shard.trusted(column, column + kSectorsPerBlock);
    }

    /// CS1, CS4. Whole blocks that were read from `member`: those that contradict the map become unreadable.
    /// Errors: kMediumError: there are some; kIo, kResources: the map cannot be read now.
    Task<Result<void>> verify(std::uint32_t member, Lba member_lba, Slice to) {
        return compare(member, member_lba, to, member);
    }
    /// The same, by all copies of the map, one of which may be old: for those that hold the lock (CS4).
    Task<Result<void>> judge(std::uint32_t member, Lba member_lba, Slice to) {
        return compare(member, member_lba, to, ChecksumMap::kAllCopies);
    }
    /// On the shard: the pages of blocks [first, end) of columns are there. Errors: as ChecksumMap::load.
    Task<Result<void>> prepare(std::uint64_t first, std::uint64_t end);
    /// CS3, on the shard. False if a page is not there: then note().
    bool note_now(std::uint32_t member, Lba member_lba, Slice from);
    Task<Result<void>> note(std::uint32_t member, Lba member_lba, Slice from);
    /// On the shard: nothing is known of these blocks of the member any more.
    Task<Result<void>> forget(std::uint32_t member, Lba member_lba, SectorCount sectors);

    /// CM2 for all shards. Home, without `control`. Errors: as ChecksumMap::write_back; kReadOnly: a member that missed
    /// a page cannot be spared.
    Task<Result<void>> write_back();
    struct Copied {
        std::uint64_t next = 0;   ///< page
        std::uint64_t pages = 0;  ///< that were written
    };
    /// On the shard: the next few of its pages from `page` on that have a copy on `place` are written, for a device
    /// that is to hold them. Errors: as ChecksumMap::load and write_back; kReadOnly as write_back().
    Task<Result<Copied>> copy_pages(Shard& owner, std::uint32_t place, std::uint64_t page);

    /// A block was found to be wrong, under the lock.
    void count_found(std::uint64_t blocks) { found_.fetch_add(blocks, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t found() const { return found_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t cached_bytes() const;

  private:
    static constexpr std::size_t kAtOnce = 64;  ///< blocks compared at a time
    using Entries = std::array<std::uint32_t, kAtOnce>;

    [[nodiscard]] std::size_t together(std::uint64_t block, std::size_t blocks) const;
    /// `reader`: as of ChecksumMap::peek().
    Task<Result<void>> compare(std::uint32_t member, Lba member_lba, Slice to, std::uint32_t reader);
    Task<Result<void>> fetch(std::uint32_t member, std::uint64_t block, std::span<std::uint32_t> expected,
                             std::uint32_t reader);
    Task<std::uint64_t> keep_trusted(std::uint64_t block, std::uint64_t wrong);
    void enter(std::uint32_t member, std::uint64_t block, Slice from, std::size_t index);

    ArrayBody& array_;
    ChecksumLayout layout_;
    std::vector<std::unique_ptr<ChecksumMap>> maps_;  ///< one per shard
    std::atomic<std::uint64_t> found_{0};
};

/// `to` is a part of the blocks `whole`, `skip` bytes into the first one.
void copy_part(Slice whole, std::size_t skip, Slice to);

/// A read that begins or ends inside a block: read(lba, slice) reads all of its blocks. Errors: as that, kResources;
/// but kIo for kTimedOut, since no device holds `to`.
template <class Read>
Task<Result<void>> read_whole(ArrayBody& array, Lba lba, Slice to, Read read) {
    const std::uint64_t first = round_down(lba.value, kSectorsPerBlock);
    const std::uint64_t end = round_up(lba.value + to.sectors().value, kSectorsPerBlock);
    CO_TRY(const Buffer buffer, co_await array.allocate((end - first) * kSectorBytes));
    const Slice whole = buffer.slice((end - first) * kSectorBytes, Lba(first));
    whole.clear_infos();
    Result<void> r = co_await read(Lba(first), whole);
    if (!r && r.error().code == Errc::kTimedOut) {
        co_return fail(Errc::kIo, r.error().message);
    }
    if (r || r.error().code == Errc::kMediumError) {
        copy_part(whole, (lba.value - first) * kSectorBytes, to);
    }
    co_return r;
}

}  // namespace gemel::raid::detail
