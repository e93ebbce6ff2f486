// SPDX-License-Identifier: Apache-2.0
// Operations on one stripe of a parity array, under its lock: reading around what is lost, and writing.
//
// Invariants:
//   ST1 The stripe's lock is held from the first read to the last write (J11).
//   ST2 Parity of an untrusted column is never used to make up data that anyone sees (A3). It may be carried along: a
//       write that leaves a lost strip alone keeps the sums of the stripe, P's and Q's, as they were.
//   ST3 A write changes members only when all that it needs was read and all memory was had.
//   ST4 With checksums every block of a trusted column is compared when it is read, and what is made up, too: what
//       contradicts the map is unknown. A column that becomes trusted has all its entries set first (CS2).
// Threads: the stripe's shard.
#pragma once

#include <array>
#include <bit>
#include <bitset>
#include <span>

#include "raid/array_body.hpp"
#include "raid/write_plan.hpp"

namespace gemel::raid::detail {

class ChecksumMap;

/// The columns [begin, end) of a stripe, of all members, in memory; whole 4 KiB blocks.
class StripeImage {
  public:
    StripeImage(ArrayBody& array, StripeIndex stripe, std::uint64_t begin, std::uint64_t end);

    /// Reads all members that hold the stripe; blocks of others, and those that fail or contradict the checksum map,
    /// are unreadable. Errors: kResources, kIo: the map cannot be read.
    Task<Result<void>> load();

    [[nodiscard]] std::size_t blocks() const { return bytes_ / kBlockBytes; }
    [[nodiscard]] std::uint64_t begin() const { return begin_; }
    /// Absolute column of block `i`.
    [[nodiscard]] std::uint64_t column(std::size_t block) const { return lba_.value + block * kSectorsPerBlock; }
    [[nodiscard]] const Slice& of(std::uint32_t member) const { return slices_[member]; }
    [[nodiscard]] bool known(std::uint32_t member, std::size_t block) const {
        return slices_[member].blocks()[block].status != BlockStatus::kUnreadable;
    }
    /// The members whose block is unreadable, as bits.
    [[nodiscard]] std::uint32_t unknown(std::size_t block) const;
    /// Those of them, as bits, whose block contradicted the checksum map.
    [[nodiscard]] std::uint32_t mismatched(std::size_t block) const { return mismatch_[block]; }
    /// The members in `unknown` can be made up from all others, which is right where the column is trusted.
    [[nodiscard]] bool can_make_up(std::uint32_t unknown, std::size_t block) const {
        return static_cast<std::uint32_t>(std::popcount(unknown)) <= array_.geometry.parities() && !doubtful_[block];
    }
    /// Before the columns of blocks [first, end) become trusted: the map says what the image says; of what is not
    /// known, or not to be trusted as a whole, nothing.
    Task<Result<void>> enter(std::size_t first, std::size_t end);
    Task<Result<void>> forget(std::size_t block);
    /// B5: the members to make up, as bits, when P tells the block of a missing member although it is untrusted; or 0.
    [[nodiscard]] std::uint32_t accepted(std::size_t block) const;
    /// Makes up the blocks of the members in `unknown`, as bits, from those of all others.
    /// REQUIRES: all others are known; as many are unknown as the stripe has parity strips, at most.
    void make_up(std::uint32_t unknown, std::size_t block);
    /// Parity from data over `bytes` bytes of the image from `at` on.
    void make_parity(std::size_t at, std::size_t bytes);
    /// Writes blocks of a member that were derived back to it, all unknown for the same reason; fails the member if
    /// that fails.
    Task<void> repair(std::uint32_t member, std::size_t first_block, std::size_t count);
    /// A member in sync failed to read for another reason than bad blocks: it may know them another time.
    [[nodiscard]] bool failed_otherwise() const { return failed_otherwise_; }
    /// The members that hold parity, as bits.
    [[nodiscard]] std::uint32_t parity_set() const { return parity_set_; }

  private:
    using Strips = std::array<const std::byte*, kMaxMembers>;
    /// What is `at` bytes into the image's strips: data in their order, then parity.
    [[nodiscard]] Strips strips_at(std::size_t at) const;
    /// The member of a slot: a data strip, or behind them a parity strip.
    [[nodiscard]] std::uint32_t member_of(std::uint32_t slot) const;
    void derive(std::uint32_t slot, std::uint32_t unknown_slots, std::size_t block, MutableBytes to) const;
    [[nodiscard]] std::uint32_t slots_of(std::uint32_t members) const;
    Task<Result<void>> compare();
    void compare_block(ChecksumMap& map, std::size_t block);
    [[nodiscard]] bool agrees(std::size_t block) const;
    [[nodiscard]] std::uint64_t column_block(std::size_t block) const { return column(block) / kSectorsPerBlock; }

    ArrayBody& array_;
    StripeIndex stripe_;
    std::uint64_t begin_;
    Lba lba_;
    std::size_t bytes_;
    std::uint32_t parity_set_ = 0;
    bool failed_otherwise_ = false;
    std::bitset<kMiB / kBlockBytes> doubtful_;  ///< what would be made up contradicts the map
    /// Members, as bits, whose block contradicted it.
    std::array<std::uint32_t, kMiB / kBlockBytes> mismatch_{};
    std::array<Buffer, kMaxMembers> buffers_;
    std::array<Slice, kMaxMembers> slices_;
};

/// Reads of one member's part of a stripe, or makes it up. REQUIRES: the stripe's lock is held.
Task<Result<void>> read_locked(ArrayBody& array, Shard& shard, Lba lba, Slice to);

/// Fills `to`, one member's part of a stripe that could not be read. Any executor.
Task<Result<void>> recover_strip(ArrayBody& array, Lba lba, Slice to);

/// A part of one stripe: the data strips' parts one after another in `whole`, or each by itself in `strips`.
struct StripeData {
    SectorCount sectors;
    Slice whole;
    std::span<const Slice> strips;
};

/// Writes a part of one stripe, together with what others write of it at the same time (stripe_plug.hpp).
Task<Result<void>> write_stripe(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options);

/// Writes a part of one stripe. REQUIRES: the stripe's lock is held.
Task<Result<void>> write_locked(ArrayBody& array, Shard& shard, Lba lba, StripeData data, WriteOptions options);

/// Writes inside one group, distrusting all parity that is there.
Task<Result<void>> parity_repair(ArrayBody& array, Shard& shard, Lba lba, Slice from);

/// A read that is tried once more when it failed for another reason than bad blocks or a dead device. Of a member it is
/// not compared with the checksum map.
Task<Result<void>> read_twice(BlockDevice& device, Lba lba, Slice to);
Task<Result<void>> read_twice(MemberDevice& device, Lba lba, Slice to);

/// CS6. That a part of a block which nobody can read is not written. Errors: kMediumError: its column is trusted.
Result<void> may_write_part(const ArrayBody& array, Lba block);

/// A host's write with the rest of the blocks in which it begins and ends: whole blocks, for checksums. Where the rest
/// of a block cannot be known in a column that is not trusted, that end stays as it is.
class WholeBlocks {
  public:
    WholeBlocks(Lba lba, Slice from) : lba_(lba), from_(from), first_(lba), end_(lba + from.sectors().value) {}
    [[nodiscard]] Lba lba() const { return first_; }
    [[nodiscard]] const Slice& slice() const { return slice_; }
    /// read(lba, slice) gives a block as it is. Errors: its own, kMediumError only as may_write_part(); kResources.
    template <class Read>
    Task<Result<void>> fill(ArrayBody& array, Read read) {
        const Lba first(round_down(first_.value, kSectorsPerBlock));
        const Lba last(round_down(end_.value - 1, kSectorsPerBlock));
        CO_TRY(Buffer head, co_await array.allocate(kBlockBytes));
        CO_TRY(Buffer tail, co_await array.allocate(kBlockBytes));
        bool head_known = false;
        bool tail_known = false;
        if (first != first_) {
            CO_TRY(head_known, co_await read_end(array, read, first, head));
        }
        if (last + kSectorsPerBlock != end_ && (last != first || first == first_)) {
            CO_TRY(tail_known, co_await read_end(array, read, last, tail));
        }
        const bool one = first == last && (head_known || tail_known);
        first_ = head_known || one ? first : first_;
        end_ = tail_known || one ? last + kSectorsPerBlock : end_;
        co_return co_await join(array, head_known ? &head : one ? &tail : nullptr, tail_known ? &tail : nullptr);
    }

  private:
    /// False if the block is not known.
    template <class Read>
    static Task<Result<bool>> read_end(ArrayBody& array, Read& read, Lba lba, Buffer& to) {
        Result<void> r = co_await read(lba, to.slice(kBlockBytes, lba));
        while (!r && r.error().code == Errc::kTimedOut) {  // into other memory, without the member that was silent
            CO_TRY(to, co_await array.allocate(kBlockBytes));
            r = co_await read(lba, to.slice(kBlockBytes, lba));
        }
        if (!r && r.error().code != Errc::kMediumError) {
            co_return std::unexpected(std::move(r).error());
        }
        if (!r) {
            CO_TRY_VOID(may_write_part(array, lba));
        }
        co_return r.has_value();
    }
    Task<Result<void>> join(ArrayBody& array, const Buffer* head, const Buffer* tail);

    Lba lba_;
    Slice from_;
    Lba first_;
    Lba end_;
    Buffer buffer_;
    Slice slice_;
};

/// A read that failed with `code` and said nothing about its blocks leaves all of them unreadable (B2).
void settle_read(Slice part, std::optional<Errc> code);

}  // namespace gemel::raid::detail
