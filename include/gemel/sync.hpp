// SPDX-License-Identifier: Apache-2.0
// Waiting for one another on one executor: Event, Semaphore, Mutex, Gate.
//
// Invariants:
//   S1  A waiter is resumed by a posted piece of work, never inside set(), release() or close(): the caller's state
//       does not change under its hands.
//   S2  Waiters are served first come, first served; a released permit goes to the first waiter, not to a newcomer.
//   S3  An object of this file outlives its waiters.
// Threads: all calls on one executor.
#pragma once

#include <cstddef>
#include <utility>

#include "gemel/check.hpp"
#include "gemel/clock.hpp"
#include "gemel/executor.hpp"
#include "gemel/task.hpp"

namespace gemel {

namespace detail {

/// A first-in-first-out list of waiting coroutines, linked through their awaiters.
struct Waiter : ResumeWork {
    Waiter* after = nullptr;
    Waiter* before = nullptr;
    bool queued = false;
    bool timed_out = false;
};

class WaitList {
  public:
    [[nodiscard]] bool empty() const { return head_ == nullptr; }
    void push(Waiter& w) {
        w.queued = true;
        w.before = tail_;
        w.after = nullptr;
        (tail_ != nullptr ? tail_->after : head_) = &w;
        tail_ = &w;
    }
    void remove(Waiter& w) {
        CHECK(w.queued);
        w.queued = false;
        (w.before != nullptr ? w.before->after : head_) = w.after;
        (w.after != nullptr ? w.after->before : tail_) = w.before;
    }
    bool wake_one() {
        if (head_ == nullptr) {
            return false;
        }
        Waiter& w = *head_;
        remove(w);
        Executor::current().post(w);
        return true;
    }
    void wake_all() {
        while (wake_one()) {
        }
    }

  private:
    Waiter* head_ = nullptr;
    Waiter* tail_ = nullptr;
};

}  // namespace detail

/// A flag to wait for. Stays set until reset().
class Event {
  public:
    [[nodiscard]] bool is_set() const { return set_; }
    void set() {
        set_ = true;
        waiters_.wake_all();
    }
    void reset() { set_ = false; }

    auto wait() {
        struct Awaiter : detail::Waiter {
            Event& event;
            explicit Awaiter(Event& e) : event(e) {}
            [[nodiscard]] bool await_ready() const noexcept { return event.set_; }
            void await_suspend(std::coroutine_handle<> h) noexcept {
                handle = h;
                event.waiters_.push(*this);
            }
            void await_resume() const noexcept {}
        };
        return Awaiter(*this);
    }

    /// co_await event.wait_until(clock, due): true if set, false if the time came first.
    auto wait_until(Clock& clock, TimePoint due) {
        struct Awaiter : detail::Waiter {
            struct Deadline : Timer {
                Awaiter* owner = nullptr;
            };
            Event& event;
            Clock& clock;
            TimePoint due;
            Deadline deadline;
            Awaiter(Event& e, Clock& c, TimePoint d) : event(e), clock(c), due(d) {}
            [[nodiscard]] bool await_ready() const noexcept { return event.set_; }
            void await_suspend(std::coroutine_handle<> h) noexcept {
                handle = h;
                event.waiters_.push(*this);
                deadline.owner = this;
                deadline.run = [](Work& w) noexcept {
                    Awaiter& a = *static_cast<Deadline&>(w).owner;
                    if (a.queued) {
                        a.event.waiters_.remove(a);
                        a.timed_out = true;
                        a.handle.resume();
                    }
                };
                clock.arm(deadline, due);
            }
            bool await_resume() noexcept {
                if (!timed_out) {
                    clock.cancel(deadline);
                }
                return !timed_out;
            }
        };
        return Awaiter(*this, clock, due);
    }

  private:
    bool set_ = false;
    detail::WaitList waiters_;
};

/// Counts permits; acquire waits for one.
class Semaphore {
  public:
    explicit Semaphore(std::size_t permits) : free_(permits) {}
    [[nodiscard]] std::size_t available() const { return free_; }

    auto acquire() {
        struct Awaiter : detail::Waiter {
            Semaphore& semaphore;
            explicit Awaiter(Semaphore& s) : semaphore(s) {}
            [[nodiscard]] bool await_ready() const noexcept {
                if (semaphore.free_ > 0 && semaphore.waiters_.empty()) {
                    --semaphore.free_;
                    return true;
                }
                return false;
            }
            void await_suspend(std::coroutine_handle<> h) noexcept {
                handle = h;
                semaphore.waiters_.push(*this);
            }
            void await_resume() const noexcept {}
        };
        return Awaiter(*this);
    }
    void release() {
        if (!waiters_.wake_one()) {
            ++free_;
        }
    }

  private:
    std::size_t free_;
    detail::WaitList waiters_;
};

/// co_await mutex.lock() gives a guard that unlocks when it goes.
class Mutex {
  public:
    class Guard {
      public:
        explicit Guard(Mutex& m) : mutex_(&m) {}
        Guard(Guard&& o) noexcept : mutex_(std::exchange(o.mutex_, nullptr)) {}
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        Guard& operator=(Guard&&) = delete;
        ~Guard() {
            if (mutex_ != nullptr) {
                mutex_->permit_.release();
            }
        }

      private:
        Mutex* mutex_;
    };
    Task<Guard> lock() {
        co_await permit_.acquire();
        co_return Guard(*this);
    }

  private:
    Semaphore permit_{1};
};

/// Bounds the life of background coroutines: close() refuses new ones and waits for those inside.
class Gate {
  public:
    [[nodiscard]] bool closed() const { return closed_; }
    [[nodiscard]] std::size_t inside() const { return inside_; }
    /// False if the gate is closed; otherwise leave() must follow.
    [[nodiscard]] bool enter() {
        if (closed_) {
            return false;
        }
        ++inside_;
        return true;
    }
    void leave() {
        CHECK(inside_ > 0);
        if (--inside_ == 0 && closed_) {
            empty_.set();
        }
    }
    /// Starts `task` now; false, and the task is dropped, when the gate is closed.
    bool spawn(Task<void> task) {
        if (!enter()) {
            return false;
        }
        run(std::move(task));
        return true;
    }
    Task<void> close() {
        closed_ = true;
        if (inside_ > 0) {
            co_await empty_.wait();
        }
    }

  private:
    // The task's frame is gone before leave(), so that whatever it refers to may go once the gate is empty.
    detail::Detached run(Task<void> task) {
        {
            Task<void> mine = std::move(task);
            co_await std::move(mine);
        }
        leave();
    }

    std::size_t inside_ = 0;
    bool closed_ = false;
    Event empty_;
};

}  // namespace gemel
