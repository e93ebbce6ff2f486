// SPDX-License-Identifier: Apache-2.0
// RepairReport: blocks of members that were written anew, or could not be, counted, and told of in few events.
//
// Invariants:
//   RR1 Every block counts once in blocks(), and is in one event.
//   RR2 The first is told of at once; what follows within kTellEvery is told of together, by member.
// Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "gemel/clock.hpp"
#include "gemel/units.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

/// What was found of one member since it was last told of.
struct Repairs {
    std::uint64_t blocks = 0;
    std::uint64_t mismatched = 0;  ///< of these: contradicted their checksums; the rest could not be read
    std::uint64_t first = 0;       ///< sectors of the member: all blocks are in [first, end)
    std::uint64_t end = 0;

    /// `end`: "written anew from the other members", for "3 blocks in sectors 8 to 64 could not be read and were
    /// written anew from the other members".
    [[nodiscard]] std::string text(std::string_view end) const;
};

class RepairReport {
  public:
    static constexpr Duration kTellEvery = std::chrono::seconds(1);
    using ByMember = std::array<Repairs, kMaxMembers>;

    /// True: the caller tells of it, with take(), until that gives nothing any more. False: somebody does already.
    bool add(std::uint32_t member, Lba member_lba, std::uint64_t blocks, bool mismatched);
    /// What was not told of. False if there is nothing: from now on nobody tells.
    bool take(ByMember& out);
    [[nodiscard]] std::uint64_t blocks() const { return total_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> total_{0};
    std::mutex mutex_;  ///< guards what follows; never held over an I/O
    ByMember untold_{};
    bool any_ = false;
    bool telling_ = false;
};

}  // namespace gemel::raid
