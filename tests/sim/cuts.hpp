// SPDX-License-Identifier: Apache-2.0
// Cuts: what is left out of a history, so that a failing one gets short enough to read. A part of the command that
// replays it.
//
// Invariants:
//   CU1 Without cuts a history is what its seed says. A cut leaves something out and makes up nothing: every choice is
//       still drawn.
//   CU2 text() gives what parse() takes: options without spaces between name and value, one space between options.
// Threads: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "raid/interval_set.hpp"

namespace gemel::sim {

struct Cuts {
    static constexpr std::uint64_t kAllRounds = ~std::uint64_t{0};

    std::uint64_t rounds = kAllRounds;   ///< most of them; then everything heals and is read, as always
    raid::IntervalSet commands;          ///< of hosts, counted in order of their issue
    raid::IntervalSet faults;            ///< counted as they are chosen
    std::vector<std::string> classes{};  ///< of faults and commands, by name (Area::classes)

    [[nodiscard]] bool without(std::string_view name) const {
        return std::ranges::find(classes, name) != classes.end();
    }
    /// As options of `sim`; empty without cuts.
    [[nodiscard]] std::string text() const;
};

/// "3-17,20": [3, 18) and [20, 21). Nothing if it is no such list.
std::optional<raid::IntervalSet> parse_numbers(std::string_view text);

/// Of the numbers below `n` so many are not in `skipped`.
std::uint64_t left(const raid::IntervalSet& skipped, std::uint64_t n);

}  // namespace gemel::sim
