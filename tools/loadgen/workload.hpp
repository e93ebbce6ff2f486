// SPDX-License-Identifier: Apache-2.0
// Decides what the next command is. The LUN's span is cut into units of one command; no two commands in flight ever
// touch the same unit when a ledger is kept, because the order of overlapping writes would be unknown.
//
// Invariants:
// W1  a unit is claimed from next() until release().
// W2  a check visits every unit of the ledger that owes something exactly once.
// Threads: one.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "tools/loadgen/ledger.hpp"
#include "tools/loadgen/options.hpp"

namespace gemel::loadgen {

struct Operation {
    bool read = true;
    bool fua = false;
    std::uint64_t lba = 0;       ///< in 512-byte sectors
    std::uint64_t sectors = 0;   ///< length
    std::uint64_t sequence = 0;  ///< of a stamped write
};

class Workload {
  public:
    /// `capacity`: sectors of the LUN. `ledger` may be null. REQUIRES: *ledger outlives this.
    Workload(const Options& options, std::uint64_t capacity, Ledger* ledger);

    /// Why this span cannot be used; empty when it can.
    [[nodiscard]] std::string why_unusable() const;
    /// The next command of a session; nothing when the work is done.
    std::optional<Operation> next(std::uint32_t session);
    void release(const Operation& operation);

  private:
    std::optional<Operation> next_check();
    std::optional<std::uint64_t> claim_near(std::uint64_t unit);

    const Options& options_;
    Ledger* ledger_;
    std::uint64_t first_;         ///< first sector of the span
    std::uint64_t unit_sectors_;  ///< sectors per command
    std::uint64_t units_;
    std::uint64_t issued_ = 0;
    std::uint64_t check_unit_ = 0;
    std::vector<std::uint64_t> cursors_;  ///< next unit per session, for sequential runs
    std::vector<bool> claimed_;           ///< per unit, only with a ledger
    std::mt19937_64 random_;
};

}  // namespace gemel::loadgen
