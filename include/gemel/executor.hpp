// SPDX-License-Identifier: Apache-2.0
// Executor: where work runs. In the daemon one I/O processor (a thread) each; in the simulator a queue that picks the
// next piece of work at random.
//
// Invariants:
//   E1  Work posted to an executor runs on that executor only, once, and never inside post().
//   E2  A Work node is in at most one queue; it lives in its waiter, so a queue needs no memory and its length is
//       bounded by the number of waiters.
// Threads: post() from any thread; everything else on the executor's own.
#pragma once

#include <coroutine>

#include "gemel/check.hpp"

namespace gemel {

/// An intrusive node of work. The owner keeps it alive until run() is called.
struct Work {
    Work* next = nullptr;
    void (*run)(Work&) noexcept = nullptr;
};

/// Work that resumes a coroutine.
struct ResumeWork : Work {
    std::coroutine_handle<> handle;

    ResumeWork() {
        run = [](Work& w) noexcept { static_cast<ResumeWork&>(w).handle.resume(); };
    }
};

class Executor {
  public:
    virtual ~Executor() = default;
    virtual void post(Work& work) noexcept = 0;

    /// The executor whose work is running on this thread. REQUIRES: there is one.
    static Executor& current() {
        CHECK(current_ != nullptr);
        return *current_;
    }
    static bool has_current() { return current_ != nullptr; }
    [[nodiscard]] bool is_current() const { return current_ == this; }

    /// Marks `executor` as the current one of this thread for a scope; used by run loops only.
    class Scope {
      public:
        explicit Scope(Executor& executor) : previous_(current_) { current_ = &executor; }
        ~Scope() { current_ = previous_; }
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

      private:
        Executor* previous_;
    };

  private:
    static inline thread_local Executor* current_ = nullptr;
};

/// co_await resume_on(executor): go on there; returns at once when already there.
class resume_on {
  public:
    explicit resume_on(Executor& executor) : executor_(executor) {}
    [[nodiscard]] bool await_ready() const noexcept { return executor_.is_current(); }
    void await_suspend(std::coroutine_handle<> h) noexcept {
        work_.handle = h;
        executor_.post(work_);
    }
    void await_resume() const noexcept {}

  private:
    Executor& executor_;
    ResumeWork work_;
};

/// co_await yield(): let other work of this executor run first.
class yield {
  public:
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) noexcept {
        work_.handle = h;
        Executor::current().post(work_);
    }
    void await_resume() const noexcept {}

  private:
    ResumeWork work_;
};

}  // namespace gemel
