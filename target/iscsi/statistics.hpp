// SPDX-License-Identifier: Apache-2.0
// What is counted of the SCSI commands of sessions, and how long they took.
//
// Invariants:
//   ST1 A counter has one writer, the session's processor, so counting takes no lock and no atomic addition.
//   ST2 A command counts once: under its kind when its answer is queued, or as aborted when it is dropped.
//   ST3 A session that ends leaves its figures to its target's (ServerStatistics): sums never go back.
// Threads: counting on the session's processor, reading anywhere.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/units.hpp"

namespace gemel::iscsi {

enum class CommandKind : std::uint8_t { kRead, kWrite, kOther };
inline constexpr std::array<std::string_view, 3> kCommandKindNames{"reads", "writes", "other"};

/// Bucket i counts what took less than 2^i microseconds and is not in one before it, the last one all the rest.
inline constexpr std::size_t kLatencyBuckets = 25;
[[nodiscard]] constexpr std::size_t latency_bucket(Duration took) {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
    const std::uint64_t from_zero = us < 0 ? 0 : static_cast<std::uint64_t>(us);
    return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(from_zero)), kLatencyBuckets - 1);
}

/// Of commands of one kind. `Count`: an atomic where it is counted, a plain number in a sum.
template <class Count>
struct CommandFigures {
    Count operations{};                            ///< answered, whatever the status
    Count bytes{};                                 ///< of data that was moved
    Count failed{};                                ///< answered with another status than GOOD
    std::array<Count, kLatencyBuckets> latency{};  ///< from the command's PDU to its answer
};

/// Of commands for one LUN.
template <class Count>
struct LunFigures {
    std::array<CommandFigures<Count>, kCommandKindNames.size()> kinds{};
    Count aborted{};         ///< by task management, or with the connection
    Count in_flight{};       ///< not yet answered
    Count most_in_flight{};  ///< of one session, at any moment
};
using LunCounters = LunFigures<std::atomic<std::uint64_t>>;
using LunTotals = LunFigures<std::uint64_t>;

void add(LunTotals& sum, const LunTotals& part);

/// Adds to a counter that has one writer.
inline void count(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

/// A LUN of one session. The counters are made by its first command: an idle session has none.
class LunStatistics {
  public:
    LunStatistics() = default;
    ~LunStatistics() { delete counters_.load(std::memory_order_relaxed); }
    LunStatistics(const LunStatistics&) = delete;
    LunStatistics& operator=(const LunStatistics&) = delete;

    std::uint64_t number = 0;  ///< set before the session is shared
    /// A command has come. Returns where the rest of it is counted.
    LunCounters& arrived();
    static void answered(LunCounters& counters, CommandKind kind, bool good, std::uint64_t bytes, Duration took);
    static void aborted(LunCounters& counters);
    [[nodiscard]] LunTotals totals() const;

  private:
    std::atomic<LunCounters*> counters_{nullptr};
};

struct LunReport {
    std::uint64_t number = 0;
    std::string volume;
    LunTotals totals;
};

struct SessionReport {
    std::string initiator;
    std::string target;
    std::string isid;  ///< 12 hexadecimal digits
    std::uint16_t tsih = 0;
    std::string peer_address;
    std::uint64_t digest_errors = 0;
    std::uint64_t ignored = 0;   ///< requests with a CmdSN outside the window
    std::uint64_t rejected = 0;  ///< PDUs answered by Reject
    std::vector<LunReport> luns;
};

struct TargetReport {
    std::string iqn;
    std::uint64_t sessions = 0;   ///< now
    std::vector<LunReport> luns;  ///< of all sessions since the start
};

struct ServerStatistics {
    std::vector<TargetReport> targets;
    std::vector<SessionReport> sessions;  ///< normal ones
};

}  // namespace gemel::iscsi
