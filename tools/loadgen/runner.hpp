// SPDX-License-Identifier: Apache-2.0
// Runs a workload over all sessions from one poll loop, measures it and checks what comes back.
//
// Invariants:
// N1  the ledger hears of a write when its status is GOOD, and of one without a status as "possible" at the end.
// N2  the run ends: by time, by count, by a failure, or --give-up seconds after the last answer.
// Threads: one.
#pragma once

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "tools/loadgen/histogram.hpp"
#include "tools/loadgen/ledger.hpp"
#include "tools/loadgen/session.hpp"

namespace gemel::loadgen {

struct DirectionResult {
    Histogram latency;  ///< ns from first sending to GOOD status
    std::uint64_t bytes = 0;
};

struct RunResult {
    DirectionResult reads;
    DirectionResult writes;
    double seconds = 0;        ///< measured, without the warm-up
    double longest_stall = 0;  ///< longest time in which commands waited and none ended, s
    double longest_wait = 0;   ///< longest time of one command, retries and unanswered ones included, s
    std::uint64_t reconnects = 0;
    std::uint64_t retries = 0;
    std::uint64_t sectors_checked = 0;
    std::uint64_t wrong_sectors = 0;
    std::uint64_t unanswered = 0;  ///< commands still without a status at the end
    std::uint64_t capacity_bytes = 0;
    std::vector<std::string> problems;  ///< the first few, in words
    ExitCode exit_code = ExitCode::kGood;
};

class Runner final : public SessionOwner {
  public:
    /// `ledger` may be null; with --verify FILE it is set up when the capacity is known.
    Runner(const Options& options, TargetAddress target, Ledger* ledger, const volatile std::sig_atomic_t& stop);
    RunResult run();

    void on_ready(Session& session) override;
    void on_done(Slot& slot, Outcome outcome, const std::string& why) override;
    void on_lost(Session& session, const std::string& why) override;

  private:
    void turn();
    void maintain(Session& session, TimePoint now);
    void wait_for_events();
    void refill(Slot& slot);
    void finish(Slot& slot);
    void verify(const Slot& slot);
    void settle_at_end();
    void problem(ExitCode code, std::string text);
    [[nodiscard]] bool idle() const;
    bool begin_workload(const Session& session);

    Options options_;
    TargetAddress target_;
    Ledger* ledger_;
    const volatile std::sig_atomic_t& stop_requested_;
    std::unique_ptr<Workload> workload_;
    std::vector<std::unique_ptr<Session>> sessions_;
    std::vector<std::optional<TimePoint>> down_since_;  ///< per session: since when it is not ready
    RunResult result_;
    TimePoint started_;   ///< first command
    TimePoint last_end_;  ///< last time a command ended or one began with none waiting
    TimePoint last_counted_;
    bool ending_ = false;   ///< no new commands
    bool abandon_ = false;  ///< do not wait for those in flight either
    bool waiting_retries_ = false;
    std::size_t waiting_ = 0;  ///< slots with an operation
};

}  // namespace gemel::loadgen
