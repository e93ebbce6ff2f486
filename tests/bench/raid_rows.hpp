// SPDX-License-Identifier: Apache-2.0
// The rows of raid_bench: what is measured against what, and what it must reach.
// Threads: the benchmark's own.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/raid_lab.hpp"

namespace gemel::bench {

struct Finding {
    std::string name;
    double value = 0;
    std::string unit;
    std::string against;
    double ratio = 0;
    std::optional<double> goal;  ///< at least; nothing: printed only
    std::string note;

    [[nodiscard]] bool met() const { return !goal || ratio >= *goal; }
};
using Findings = std::vector<Finding>;

struct Row {
    std::string_view id;  ///< for --only
    std::string_view meaning;
    Findings (*measure)(RaidLab& lab);
};

std::span<const Row> raid_rows();

/// Four data strips of 64 KiB.
Shape parity_shape(const std::string& level, const std::string& kind, unsigned shards = 1);
std::string number(double value, int digits = 0);

// raid_job_rows.cpp
Findings journal_rows(RaidLab& lab);
Findings rebuild_rows(RaidLab& lab);
// raid_checksum_rows.cpp
Findings checksum_rows(RaidLab& lab);
Findings single_checksum_rows(RaidLab& lab);

}  // namespace gemel::bench
