// SPDX-License-Identifier: Apache-2.0
// Scrub: looks at every stripe of an array with redundancy, gives members back what they cannot read, and compares the
// rest with its redundancy; in the mode `repair` it makes what differs right. Without redundancy it compares blocks
// with their checksums, and makes nothing right.
//
// Invariants:
//   SC1 A stripe is read, judged and written under its lock: no write of a host is under way in it, and none is lost.
//   SC2 Untrusted columns are neither judged nor used: what is wrong there is known, and the resync's (A3). So what
//       scrub calls a mismatch is none of a crash.
//   SC3 A block that cannot be read, or contradicts its checksum, is written anew from redundancy that is trusted, by
//   the way of any read; where what
//       is left contradicts itself, only in the mode `repair`.
//   SC4 Repair makes redundancy agree with what a read returns: parity from data, legs from the lowest one. Only where
//       exactly one member's block explains everything that differs (level 6 with all its members, a mirror with three
//       legs or more) that block is wrong, and what it holds is made from the others.
//   SC5 A repair cut short leaves a mismatch, as before it: each block written brings the stripe nearer to the same
//       end, and the next scrub comes to that end from any of the states between. With P written and Q not, Q alone
//       is wrong; with a part of one data block written, the same member explains the rest. The columns stay trusted
//       as they were, and stood for no more: so a repair needs no record of the journal (J1).
//   SC6 The superblock says from where on stripes were not looked at; those below were, and what was written to them
//       then is durable: read the cursor, flush the members, write the cursor. Stripes at or beyond it may be looked at
//       twice.
//   SC7 A scrub goes on at the next start unless it has ended or was cancelled; both are durable when its job is gone.
//   SC8 Where something was found, the 16 stripes on either side go first, each once; also when a host's I/O found it.
//   SC9 It waits while a resync runs, which makes the same right, and while so many members are missing that nothing
//       can be compared.
// Threads: walk, batch, hit on the shard; start, report any; the rest on home.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "gemel/sync.hpp"
#include "raid/interval_set.hpp"
#include "raid/job.hpp"
#include "raid/level_table.hpp"
#include "raid/scrub_report.hpp"

namespace gemel::raid::detail {

class Scrub {
  public:
    explicit Scrub(ArrayBody& array);

    /// Success: durably begun. Errors: kInvalidArgument (nothing to compare with), kReadOnly, kBusy (a scrub or a
    /// resync runs), kRefused (nothing could be compared), kClosed.
    Task<Result<void>> start(ScrubMode mode);
    /// At a start: goes on with what the superblock says.
    void resume();
    /// The walk ends, its cursor durable. REQUIRES: the array is stopping.
    Task<void> stop();
    /// SC8: something was found in the stripe at `column`. On the shard.
    void hit(const Shard& shard, std::uint64_t column);
    /// Of the last run since the array was opened.
    [[nodiscard]] std::optional<ScrubReport> report() const;

    Job job;

  private:
    /// Of one shard, in its local columns.
    struct Side {
        IntervalSet left;   ///< not looked at
        IntervalSet first;  ///< to be looked at before the rest, if left
    };
    using Columns = std::vector<std::uint64_t>;

    [[nodiscard]] bool comparable() const;
    [[nodiscard]] bool goes_on() const;
    [[nodiscard]] bool held() const;
    Result<void> may_start() const;
    Task<Result<void>> begin(ScrubMode mode);
    Task<void> prepare_sides(std::uint64_t cursor);
    void add_neighbours(const Shard& shard, std::uint64_t column);
    Task<void> run(bool resumed);
    Task<bool> walk(Shard& shard);
    Task<void> rest(TimePoint due);
    Task<bool> batch(Shard& shard, bool give_up);
    [[nodiscard]] static Columns choose(Side& side, std::uint64_t strip, std::size_t most);
    Task<void> spread_hit(Shard& shard, std::uint64_t column);
    void note(const StripeFindings& found);
    void tell(const StripeFindings& found);
    [[nodiscard]] std::string yardstick() const;
    [[nodiscard]] std::string advice() const;
    [[nodiscard]] std::string place_of(const ScrubFault& fault) const;
    Task<std::uint64_t> seen_below();
    Task<Result<void>> flush_written();
    Task<Result<void>> checkpoint();
    Task<void> finish(bool complete);
    void report_end(ScrubReport::End end);

    ArrayBody& array_;
    std::vector<Side> sides_;             ///< by shard, each on its executor
    ScrubMode mode_ = ScrubMode::kCheck;  ///< of this run, set before its walks
    Gate gate_;
    Mutex begins_;
    TimePoint last_checkpoint_{};
    std::atomic<bool> unflushed_{false};  ///< something was written since the last flush began
    Mutex flushes_;                       ///< a cursor waits for the flush that another checkpoint has begun (SC6)

    mutable std::mutex mutex_;  ///< guards what follows; never held over an I/O
    std::optional<ScrubReport> report_;
    std::uint32_t events_ = 0;  ///< of mismatches, in this run
};

}  // namespace gemel::raid::detail
