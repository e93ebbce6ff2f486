// SPDX-License-Identifier: Apache-2.0
// Shrink: cuts away from a failing history what it does not need to fail in the same way.
//
// Invariants:
//   SK1 What it gives fails with a violation of the same kind as the history that it began with (kind_of).
//   SK2 It is deterministic, and runs at most kMostRuns histories, each with a limit of time.
// Threads: the simulator's one.
#pragma once

#include "tests/sim/history.hpp"

namespace gemel::sim {

struct Shrunk {
    Cuts cuts;
    HistoryResult before;
    HistoryResult after;
    std::uint64_t runs = 0;
};

/// A violation without its numbers and details: what, but not where.
std::string kind_of(std::string_view violation);

/// Without violations in `before` the history did not fail. `options.cuts` are kept.
Shrunk shrink(const Area& area, const HistoryOptions& options);

}  // namespace gemel::sim
