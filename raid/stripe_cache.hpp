// SPDX-License-Identifier: Apache-2.0
// StripeCache: blocks of members that were written a short while ago, so that writing their stripe again needs no
// reads.
//
// Invariants:
//   KC1 A block is here only while its member holds just that, and parity agrees with it as on the members: it is put
//       here when all writes of its stripe have succeeded, and goes before its member is written.
//   KC2 Whatever writes a member otherwise than by a part of a stripe with its parity (repair, resync, rebuild, scrub,
//       whole stripes) takes away all blocks of those columns: it may have made parity agree with other data.
//   KC3 Whatever casts doubt on a member or on redundancy (a member fails, its device is exchanged or rebuilt, blocks
//       are listed as unreadable, columns become untrusted) counts as a doubt: the next use finds the cache empty, and
//       what was under way then is not put here.
//   KC4 It is asked under the lock of the stripe only, for old data and parity that a write of a part needs. Hosts'
//       reads, scrubs, resyncs and rebuilds ask the members.
//   KC5 No more than its bound of memory; none is kept for columns that are written once: a column comes here with the
//       second write.
// Threads: the shard's; hits(), bytes(): any.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "gemel/buffer.hpp"

namespace gemel::raid::detail {

class StripeCache {
  public:
    /// `blocks`: of 4 KiB, at most; 0: nothing is ever kept. `doubts` only grows (KC3).
    StripeCache(std::size_t blocks, const std::atomic<std::uint64_t>& doubts);
    StripeCache(const StripeCache&) = delete;
    StripeCache& operator=(const StripeCache&) = delete;

    /// A write of columns [first, end), in blocks, of so many members begins. True: its blocks are worth keeping.
    bool note_write(std::uint64_t first, std::uint64_t end, std::size_t members);
    /// Blocks [first, end) of the member are all here.
    [[nodiscard]] bool has(std::uint32_t member, std::uint64_t first, std::uint64_t end);
    /// Takes a block out. REQUIRES: has(), and nothing was waited for since.
    Buffer take(std::uint32_t member, std::uint64_t block);
    /// Copies a block. REQUIRES: as take().
    void copy(std::uint32_t member, std::uint64_t block, MutableBytes to);
    /// `memory` holds the block, and lets go of the one that was here; without effect if there was a doubt since
    /// doubts() was `since`. REQUIRES: KC1.
    void put(std::uint32_t member, std::uint64_t block, Buffer memory, std::uint64_t since);
    /// How many doubts there were: what began then is put here only while that is so.
    [[nodiscard]] std::uint64_t doubts() const { return doubts_.load(std::memory_order_acquire); }

    void forget(std::uint32_t member, std::uint64_t first, std::uint64_t end);
    /// Of all members below `members`.
    void forget_columns(std::uint32_t members, std::uint64_t first, std::uint64_t end);
    /// Gives all memory back.
    void clear();

    /// Reads of members that were not needed, in blocks.
    [[nodiscard]] std::uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t bytes() const { return held_.load(std::memory_order_relaxed) * kBlockBytes; }

  private:
    struct Entry {
        std::uint64_t key = 0;
        Buffer memory;
        Entry* chain = nullptr;  ///< in its bucket, or among the unused
        Entry* older = nullptr;
        Entry* newer = nullptr;
    };
    static std::uint64_t key_of(std::uint32_t member, std::uint64_t block);
    [[nodiscard]] Entry*& bucket(std::uint64_t key);
    [[nodiscard]] Entry* find(std::uint64_t key);
    void heed_doubts();
    void link_newest(Entry& entry);
    void unlink(Entry& entry);
    void drop(Entry& entry);
    void count_hit();

    std::size_t most_;
    const std::atomic<std::uint64_t>& doubts_;
    std::uint64_t heeded_ = 0;
    std::vector<Entry*> buckets_;
    std::deque<Entry> entries_;  ///< as many as there ever were at once
    Entry* unused_ = nullptr;
    Entry* oldest_ = nullptr;
    Entry* newest_ = nullptr;
    std::vector<std::uint32_t> written_;  ///< KC5: marks of columns, by their hash
    std::atomic<std::uint64_t> held_{0};
    std::atomic<std::uint64_t> hits_{0};
};

}  // namespace gemel::raid::detail
