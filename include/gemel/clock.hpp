// SPDX-License-Identifier: Apache-2.0
// Clock: monotonic time and timers. No decision depends on the wall clock; it only stamps events.
// Threads: a timer fires on the executor on which it was armed, and is cancelled from there.
#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>

#include "gemel/executor.hpp"

namespace gemel {

using Duration = std::chrono::nanoseconds;
struct MonotonicTag {
    using duration = Duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<MonotonicTag>;
};
using TimePoint = MonotonicTag::time_point;

/// Intrusive timer: `run` is called once when it is due, unless cancelled. The owner keeps it alive until then.
struct Timer : Work {
    TimePoint due{};
    Executor* home = nullptr;  ///< set by Clock::arm
    std::uint64_t id = 0;      ///< set by Clock::arm: orders equal deadlines
    bool armed = false;
};

class Clock {
  public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual TimePoint now() const = 0;
    /// Seconds since 1970 in nanoseconds, for stamps only.
    [[nodiscard]] virtual std::int64_t unix_ns() const = 0;
    /// REQUIRES: the timer is not armed.
    virtual void arm(Timer& timer, TimePoint due) = 0;
    /// Returns true if the timer was armed and will not fire. A timer that is due but not yet run is still cancelled.
    virtual bool cancel(Timer& timer) = 0;
};

/// co_await sleep_until(clock, due)
class sleep_until {
  public:
    sleep_until(Clock& clock, TimePoint due) : clock_(clock), due_(due) {}
    [[nodiscard]] bool await_ready() const noexcept { return due_ <= clock_.now(); }
    void await_suspend(std::coroutine_handle<> h) {
        timer_.handle = h;
        timer_.run = [](Work& w) noexcept { static_cast<SleepTimer&>(w).handle.resume(); };
        clock_.arm(timer_, due_);
    }
    void await_resume() const noexcept {}

  private:
    struct SleepTimer : Timer {
        std::coroutine_handle<> handle;
    };
    Clock& clock_;
    TimePoint due_;
    SleepTimer timer_;
};

inline sleep_until sleep_for(Clock& clock, Duration d) {
    return {clock, clock.now() + d};
}

}  // namespace gemel
