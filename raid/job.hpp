// SPDX-License-Identifier: Apache-2.0
// Job: what the background work of an array has in common: pause, limit, cancel, progress.
// Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

#include "gemel/clock.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "gemel/units.hpp"

namespace gemel::raid {

enum class JobKind : std::uint8_t { kRebuild, kScrub, kReplace };
inline constexpr std::array kJobKinds{JobKind::kRebuild, JobKind::kScrub, JobKind::kReplace};
[[nodiscard]] std::string_view job_kind_name(JobKind kind);

/// How work that walks over an array goes on beside the I/O of hosts.
namespace job_pace {
inline constexpr Duration kRest = std::chrono::milliseconds(5);  ///< at least, after a batch beside which hosts did I/O
inline constexpr Duration kPausePoll = std::chrono::milliseconds(100);
inline constexpr Duration kRetryAfter = std::chrono::milliseconds(250);  ///< of what cannot be read now
inline constexpr std::uint32_t kRetries = 20;
inline constexpr std::uint64_t kBatchBytes = kMiB;  ///< of each member
}  // namespace job_pace

struct JobStatus {
    JobKind kind = JobKind::kRebuild;
    std::uint32_t member = 0;  ///< of a rebuild or a replace: which place
    bool paused = false;
    bool waiting = false;  ///< for other work of the array, or for its members
    std::uint64_t done_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t rate = 0;   ///< bytes per second, of late
    std::uint64_t limit = 0;  ///< bytes per second; 0: none
    std::optional<std::uint64_t> seconds_left;
};

class Job {
  public:
    Job(Clock& clock, JobKind kind) : clock_(clock), kind_(kind) {}

    /// A new run, which is neither paused nor cancelled. The limit stays. `total`: units, each of `unit_bytes` bytes.
    void begin(std::uint32_t member, std::uint64_t total, std::uint64_t done, double unit_bytes);
    /// Of the runs to come.
    void set_kind(JobKind kind) {
        const std::scoped_lock lock(mutex_);
        kind_ = kind;
    }
    void end() { running_.store(false); }
    [[nodiscard]] bool running() const { return running_.load(); }

    void pause(bool on) { paused_.store(on); }
    void set_waiting(bool on) { waiting_.store(on); }
    void cancel() { cancelled_.store(true); }
    void set_limit(std::uint64_t bytes_per_second) { limit_.store(bytes_per_second); }
    [[nodiscard]] bool limited() const { return limit_.load() != 0; }
    [[nodiscard]] bool paused() const { return paused_.load(); }
    [[nodiscard]] bool cancelled() const { return cancelled_.load(); }

    /// So many units more are done. Returns when the limit lets the next ones begin.
    TimePoint advance(std::uint64_t units);
    [[nodiscard]] std::optional<JobStatus> status() const;

  private:
    [[nodiscard]] std::uint64_t bytes(std::uint64_t units) const {
        return static_cast<std::uint64_t>(static_cast<double>(units) * unit_bytes_);
    }

    Clock& clock_;
    std::atomic<bool> running_{false};
    std::atomic<bool> paused_{false};
    std::atomic<bool> waiting_{false};
    std::atomic<bool> cancelled_{false};
    std::atomic<std::uint64_t> limit_{0};

    mutable std::mutex mutex_;  ///< guards what follows; never held over an I/O
    JobKind kind_;
    std::uint32_t member_ = 0;
    std::uint64_t done_ = 0;
    std::uint64_t total_ = 0;
    double unit_bytes_ = 0;
    TimePoint due_{};           ///< by the limit, for the next units
    TimePoint sampled_{};       ///< when the rate was taken
    std::uint64_t sample_ = 0;  ///< done_ then
    std::uint64_t rate_ = 0;
};

}  // namespace gemel::raid
