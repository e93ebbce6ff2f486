// SPDX-License-Identifier: Apache-2.0
// Partial parity, the policy `ppl` of level 5: a record in the redo log, durable before a write changes members, says
// of each block of columns which strips it may find half written, and what the exclusive or of all others is. A crash
// that takes one member with it then costs nothing of what nobody was writing.
//
// Invariants (S: the data strips of a block of columns that were written since a flush of members and checksum map):
//   PP1 While no member is missing, a write of a host changes members only when a record is durable that names all of S
//       and what it writes itself as `written`, and holds the exclusive or of the other data strips, which are durable
//       and stay as they are. So the newest record of a block is right whatever a crash has left of the strips that it
//       names, and of parity. A write whose blocks nobody knows all of, in columns that are not trusted, says that all
//       are written: that tells nothing.
//   PP2 S is never too small: what is in it leaves it only after a flush that began when its writes had ended. A
//       record is dropped by the same rule (RD4), so columns without one are in step.
//   PP3 Such writes are listed in the journal, too, with a mark. What is listed with it, and not as untrusted, is
//       untrusted after a crash only if its newest record says so: with one member missing, if that holds the parity,
//       or is among several that are written. Where it is not written at all parity is made from the record and what is
//       there of the written strips; where it is the only one, parity tells old or new, and the member is durably
//       failed before anybody sees that, since it may hold the other.
//   PP4 With no member missing all that is listed is untrusted, and resynced, as under the policy `journal`.
//   PP5 A write is logged (RD1) onto columns whose S is not empty only after a flush.
//   PP6 What a start could not tell is named as untrusted in the journal, durably, before its record is void or another
//       of the same block is made: so before the first write, and before records are void (`untrusted_named`).
//   PP7 Columns whose parity a write leaves wrong are named so before it changes a member.
// Threads: UnflushedStrips: the shard's.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <vector>

#include "gemel/buffer.hpp"
#include "raid/parity.hpp"

namespace gemel::raid::detail {

/// What the record of a write says of the blocks of columns from `first` on.
struct PartialParity {
    std::uint64_t first = 0;
    std::vector<std::uint32_t> written;  ///< by block: data strips, as bits; 0: it says nothing of the block
    Buffer bytes;                        ///< by block; empty: nothing is told of any

    /// Of block `b`: the exclusive or of `start`, if that is anything, and of these data strips as at(strip) has them.
    template <class At>
    void fold(std::size_t b, const std::byte* start, std::uint32_t strips, At at) const {
        std::array<const std::byte*, kMaxMembers> sources{start};
        std::size_t n = start != nullptr ? 1 : 0;
        for (; strips != 0; strips &= strips - 1) {
            sources[n++] = at(static_cast<std::uint32_t>(std::countr_zero(strips)));
        }
        xor_into(bytes.memory().subspan(b * kBlockBytes, kBlockBytes), std::span(sources).first(n));
    }
};

/// PP2: the set S of the blocks of one shard.
class UnflushedStrips {
  public:
    /// `flushed`: the newest flush that succeeded.
    [[nodiscard]] std::uint32_t of(std::uint64_t block, std::uint64_t flushed) const;
    /// A write of these strips begins.
    void begin(std::uint64_t block, std::uint32_t strips, std::uint64_t flushed);
    /// Writes of blocks [first, end) have ended, when so many flushes had begun.
    void end(std::uint64_t first, std::uint64_t end, std::uint64_t flushes, std::uint64_t flushed);

  private:
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};
    struct Block {
        std::uint32_t strips = 0;
        std::uint64_t done = kNever;  ///< flushes that had begun when its last write ended
    };
    struct Ended {
        std::uint64_t first;
        std::uint64_t end;
        std::uint64_t done;
    };
    std::map<std::uint64_t, Block> blocks_;
    std::deque<Ended> ended_;  ///< what to look at when flushes succeed
};

}  // namespace gemel::raid::detail
