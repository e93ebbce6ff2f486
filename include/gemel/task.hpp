// SPDX-License-Identifier: Apache-2.0
// Task<T>: a coroutine that starts when awaited and resumes its awaiter when done.
//
// Invariants:
//   T1  A task is awaited at most once; dropping it unstarted destroys its frame.
//   T2  A task never throws: an exception that reaches it is a mistake of ours and ends the program.
//   T3  The awaiter goes on wherever the task ended; a task that hops to another executor hops back before co_return
//       unless its contract says otherwise.
// Threads: whatever its body does.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "gemel/check.hpp"
#include "gemel/executor.hpp"
#include "gemel/frame_memory.hpp"

namespace gemel {

namespace detail {

struct TaskPromiseBase {
    std::coroutine_handle<> continuation = nullptr;

    struct FinalAwaiter {
        [[nodiscard]] bool await_ready() const noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h) noexcept {
            return h.promise().continuation;
        }
        void await_resume() const noexcept {}
    };

    static void* operator new(std::size_t size) { return frame_allocate(size); }
    static void operator delete(void* p, std::size_t size) noexcept { frame_free(p, size); }

    std::suspend_always initial_suspend() noexcept { return {}; }
    FinalAwaiter final_suspend() noexcept { return {}; }
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
};

template <class T>
struct TaskPromise : TaskPromiseBase {
    std::optional<T> value;
    std::coroutine_handle<TaskPromise> get_return_object() noexcept {
        return std::coroutine_handle<TaskPromise>::from_promise(*this);
    }
    template <class U>
    void return_value(U&& v) {
        value.emplace(std::forward<U>(v));
    }
    T take() { return *std::move(value); }
};

template <>
struct TaskPromise<void> : TaskPromiseBase {
    std::coroutine_handle<TaskPromise> get_return_object() noexcept {
        return std::coroutine_handle<TaskPromise>::from_promise(*this);
    }
    void return_void() noexcept {}
    void take() noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
  public:
    using promise_type = detail::TaskPromise<T>;
    using value_type = T;

    Task(std::coroutine_handle<promise_type> h) noexcept : handle_(h) {}  // NOLINT(google-explicit-constructor)
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task& operator=(Task&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;
    ~Task() {
        if (handle_) {
            handle_.destroy();
        }
    }

    auto operator co_await() && noexcept {
        struct Awaiter {
            std::coroutine_handle<promise_type> handle;
            [[nodiscard]] bool await_ready() const noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
                handle.promise().continuation = awaiting;
                return handle;
            }
            T await_resume() { return handle.promise().take(); }
        };
        return Awaiter{handle_};
    }

  private:
    std::coroutine_handle<promise_type> handle_;
};

namespace detail {

/// A coroutine that nobody awaits: starts at once, frees itself.
struct Detached {
    struct promise_type {
        static void* operator new(std::size_t size) { return frame_allocate(size); }
        static void operator delete(void* p, std::size_t size) noexcept { frame_free(p, size); }
        Detached get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
    };
};

}  // namespace detail

/// Starts `task` now, on this thread. Whatever it refers to must outlive it: use Gate::spawn unless that is certain.
inline detail::Detached start_detached(Task<void> task) {
    co_await std::move(task);
}

namespace detail {

struct JoinState {
    std::size_t left;
    std::coroutine_handle<> waiter = nullptr;
    void done() {
        if (--left == 0 && waiter) {
            waiter.resume();
        }
    }
};

template <class T>
Detached run_into(Task<T> task, std::optional<T>& slot, JoinState& join) {
    slot.emplace(co_await std::move(task));
    join.done();
}

struct JoinAwaiter {
    JoinState& join;
    [[nodiscard]] bool await_ready() const noexcept { return join.left == 0; }
    void await_suspend(std::coroutine_handle<> h) noexcept { join.waiter = h; }
    void await_resume() const noexcept {}
};

}  // namespace detail

/// Runs all tasks at once and returns their results in order.
/// REQUIRES: every task ends on the executor on which when_all was called (T3).
template <class T>
Task<std::vector<T>> when_all(std::vector<Task<T>> tasks) {
    std::vector<std::optional<T>> slots(tasks.size());
    detail::JoinState join{tasks.size()};
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        detail::run_into(std::move(tasks[i]), slots[i], join);
    }
    co_await detail::JoinAwaiter{join};
    std::vector<T> results;
    results.reserve(slots.size());
    for (auto& slot : slots) {
        results.push_back(*std::move(slot));
    }
    co_return results;
}

/// Runs two tasks at once. REQUIRES: as when_all.
template <class A, class B>
Task<std::pair<A, B>> when_both(Task<A> first, Task<B> second) {
    std::optional<A> a;
    std::optional<B> b;
    detail::JoinState join{2};
    detail::run_into(std::move(first), a, join);
    detail::run_into(std::move(second), b, join);
    co_await detail::JoinAwaiter{join};
    co_return std::pair<A, B>(*std::move(a), *std::move(b));
}

}  // namespace gemel
