// SPDX-License-Identifier: Apache-2.0
// TestLog: a durable log in memory that outlives its clients, with faults that a test sets.
// Threads: one.
#pragma once

#include <map>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/durable_log.hpp"

namespace gemel::sim {

class TestLog : public DurableLog {
  public:
    explicit TestLog(Clock& clock) : clock_(clock) {}
    Task<Result<std::uint64_t>> append(LogClientId client, std::vector<std::byte> record) override {
        CHECK(record.size() <= max_record_bytes());
        const bool durably = failing_durably || fail_next > 0;
        fail_next -= fail_next > 0 ? 1 : 0;
        co_await sleep_for(clock_, delay);
        if (durably && !failing) {
            records_[client].push_back({++position_, std::move(record)});
            co_return fail(Errc::kReadOnly, "the record is written, but nobody knows");
        }
        if (failing) {
            co_return fail(Errc::kDeviceGone, "the log's disks are gone");
        }
        records_[client].push_back({++position_, std::move(record)});
        co_return position_;
    }
    void drop_before(LogClientId client, std::uint64_t position) override {
        std::erase_if(records_[client], [&](const LogRecord& r) { return r.position < position; });
    }
    Result<std::vector<LogRecord>> recovered(LogClientId client) override {
        if (corrupt) {
            return fail(Errc::kCorrupt, "a page of the log is damaged");
        }
        return records_[client];
    }
    void set_checkpoint(LogClientId client, Executor& /*executor*/, Checkpoint checkpoint) override {
        checkpoints[client] = std::move(checkpoint);
    }
    void remove_client(LogClientId client) override { checkpoints.erase(client); }
    std::size_t max_record_bytes() const override { return 4000; }
    std::size_t records(LogClientId client) { return records_[client].size(); }

    Duration delay = std::chrono::microseconds(50);
    bool failing = false;
    bool failing_durably = false;  ///< D2: it may be there all the same
    unsigned fail_next = 0;        ///< so many fail like that
    bool corrupt = false;
    std::map<LogClientId, Checkpoint> checkpoints;

  private:
    Clock& clock_;
    std::map<LogClientId, std::vector<LogRecord>> records_;
    std::uint64_t position_ = 0;
};

}  // namespace gemel::sim
