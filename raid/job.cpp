// SPDX-License-Identifier: Apache-2.0
#include "raid/job.hpp"

#include <algorithm>

namespace gemel::raid {

namespace {
constexpr Duration kSampleTime = std::chrono::seconds(2);

double seconds(Duration d) {
    return std::chrono::duration<double>(d).count();
}
}  // namespace

std::string_view job_kind_name(JobKind kind) {
    constexpr std::array<std::string_view, kJobKinds.size()> names{"rebuild", "scrub", "replace"};
    return names[static_cast<std::size_t>(kind)];
}

void Job::begin(std::uint32_t member, std::uint64_t total, std::uint64_t done, double unit_bytes) {
    const std::scoped_lock lock(mutex_);
    member_ = member;
    total_ = total;
    done_ = done;
    unit_bytes_ = unit_bytes;
    due_ = sampled_ = clock_.now();
    sample_ = done;
    rate_ = 0;
    paused_.store(false);
    waiting_.store(false);
    cancelled_.store(false);
    running_.store(true);
}

TimePoint Job::advance(std::uint64_t units) {
    const std::scoped_lock lock(mutex_);
    const TimePoint now = clock_.now();
    done_ = std::min(total_, done_ + units);
    if (now - sampled_ >= kSampleTime || rate_ == 0) {
        const double passed = std::max(seconds(now - sampled_), 1e-6);
        rate_ = static_cast<std::uint64_t>(static_cast<double>(bytes(done_ - sample_)) / passed);
        if (now - sampled_ >= kSampleTime) {
            sampled_ = now;
            sample_ = done_;
        }
    }
    const std::uint64_t limit = limit_.load();
    if (limit == 0) {
        due_ = now;
    } else {
        const auto cost = std::chrono::duration<double>(static_cast<double>(bytes(units)) / static_cast<double>(limit));
        due_ = std::max(due_, now) + std::chrono::duration_cast<Duration>(cost);
    }
    return due_;
}

std::optional<JobStatus> Job::status() const {
    if (!running()) {
        return std::nullopt;
    }
    const std::scoped_lock lock(mutex_);
    JobStatus out;
    out.kind = kind_;
    out.member = member_;
    out.paused = paused();
    out.limit = limit_.load();
    out.done_bytes = bytes(done_);
    out.total_bytes = bytes(total_);
    out.waiting = waiting_.load();
    out.rate = out.paused || out.waiting ? 0 : rate_;
    if (out.rate > 0) {
        out.seconds_left = (out.total_bytes - out.done_bytes) / out.rate;
    }
    return out;
}

}  // namespace gemel::raid
