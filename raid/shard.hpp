// SPDX-License-Identifier: Apache-2.0
// Shard: the part of an array that one executor owns: its locks and its knowledge of which redundancy to trust.
//
// Invariants:
//   SH1 Group g of 64 stripes belongs to shard g mod shards. Level 0 has one copy of every sector, which its device
//   puts
//       in order: its writes run on the shard of their caller, and the lock orders those of one shard.
//   SH2 A column in `untrusted` has redundancy that may be wrong; it is never used to make up data (A3).
//   SH3 `writable` is true only while the superblock says unclean, durably.
// Threads: everything on its executor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "gemel/clock.hpp"
#include "gemel/interval_lock.hpp"
#include "raid/geometry.hpp"
#include "raid/interval_set.hpp"
#include "raid/stripe_cache.hpp"
#include "raid/stripe_plug.hpp"

namespace gemel::raid::detail {

struct Shard {
    Executor* executor = nullptr;
    std::uint32_t index = 0;
    std::uint32_t shards = 1;
    std::uint64_t group_columns = 0;  ///< columns of one group

    IntervalLock lock;  ///< by stripe for parity levels, by data sector for the others
    StripePlug plug;    ///< of parity levels
    std::unique_ptr<StripeCache> cache;

    /// Untrusted columns of this shard's groups, as local addresses: its groups side by side.
    IntervalSet untrusted;

    /// Columns of the device that is rebuilt which are not on it yet, as local addresses.
    IntervalSet unbuilt;
    /// Local address: the resync has seen all that is untrusted below it.
    std::uint64_t walked = 0;

    bool writable = false;
    std::uint32_t writes_in_flight = 0;
    TimePoint last_write{};
    std::atomic<std::uint64_t> host_ios{0};  ///< that came here; read by the walks of all shards

    void count_host_io() { host_ios.store(host_ios.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
    /// REQUIRES: the column's group belongs to this shard.
    [[nodiscard]] std::uint64_t local(std::uint64_t column) const {
        return column / group_columns / shards * group_columns + column % group_columns;
    }
    [[nodiscard]] std::uint64_t global(std::uint64_t local_column) const {
        return (local_column / group_columns * shards + index) * group_columns + local_column % group_columns;
    }
    /// The first local address that is not below `column`.
    [[nodiscard]] std::uint64_t local_from(std::uint64_t column) const {
        const std::uint64_t group = column / group_columns;
        if (group % shards == index) {
            return local(column);
        }
        return (group + shards - 1 - index) / shards * group_columns;
    }
    /// REQUIRES: [first, end) lies in one group of this shard, unless there is one shard.
    [[nodiscard]] bool trusted(std::uint64_t first, std::uint64_t end) const {
        if (untrusted.empty() || first >= end) {
            return true;
        }
        const std::uint64_t from = local(first);
        return !untrusted.intersects(from, from + (end - first));
    }
};

}  // namespace gemel::raid::detail
