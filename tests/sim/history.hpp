// SPDX-License-Identifier: Apache-2.0
// What every world of the simulator takes and gives: one history is one seed.
// Threads: the simulator's one.
#pragma once

#include <cstdint>
#include <cstdio>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/cuts.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::sim {

struct HistoryOptions {
    std::uint64_t seed = 0;
    bool trace = false;  ///< tell on stderr what happens
    Cuts cuts{};
};

struct HistoryResult {
    std::uint64_t faults = 0;
    std::uint64_t writes = 0;  ///< acknowledged host writes
    std::uint64_t reads = 0;
    std::uint64_t sectors_checked = 0;
    std::uint64_t trace = 0;  ///< the scheduler's: every choice folded
    std::uint64_t steps = 0;
    std::uint64_t rounds = 0;
    std::uint64_t commands = 0;    ///< of hosts, also those left out
    std::uint64_t choices = 0;     ///< of faults, also those left out
    std::set<std::string> states;  ///< remarkable states that were reached
    std::vector<std::string> violations;
};

/// What a world has seen so far, and its running commentary.
class Chronicle {
  public:
    Chronicle(const SimScheduler& scheduler, const HistoryOptions& options)
        : scheduler_(scheduler), trace_(options.trace), cuts_(options.cuts) {}

    /// Each is asked in order, and all that it may start was drawn: false if it is left out.
    [[nodiscard]] bool next_round() { return result.rounds++ < cuts_.rounds; }
    [[nodiscard]] bool next_command() { return goes(cuts_.commands, result.commands++); }
    [[nodiscard]] bool next_fault() { return goes(cuts_.faults, result.choices++); }
    /// A class of Area::classes.
    [[nodiscard]] bool without(std::string_view name) const { return cuts_.without(name); }

    void say(std::string_view what) const {
        if (trace_) {
            std::fprintf(stderr, "%12.6f %.*s\n",
                         std::chrono::duration<double>(scheduler_.now().time_since_epoch()).count(),
                         static_cast<int>(what.size()), what.data());
        }
    }
    void reached(const std::string& state) {
        if (result.states.insert(state).second) {
            say("-- reached: " + state);
        }
    }
    void fault(const std::string& what) {
        ++result.faults;
        say("fault: " + what);
    }
    void violation(const std::string& what) {
        say("VIOLATION: " + what);
        if (result.violations.size() < 20) {
            result.violations.push_back(what);
        }
    }

    HistoryResult result;

  private:
    [[nodiscard]] static bool goes(const raid::IntervalSet& skipped, std::uint64_t n) {
        return skipped.empty() || !skipped.intersects(n, n + 1);
    }

    const SimScheduler& scheduler_;
    bool trace_;
    Cuts cuts_;
};

/// An area of the simulator: a row here and a world.
struct Area {
    std::string_view name;
    HistoryResult (*run)(const HistoryOptions&);
    std::span<const std::string_view> required;  ///< states that a long run must reach
    std::span<const std::string_view> classes;   ///< of faults and commands that can be left out
};

std::span<const Area> areas();

}  // namespace gemel::sim
