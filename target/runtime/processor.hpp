// SPDX-License-Identifier: Apache-2.0
// Processor: one thread with a run loop for coroutines, sockets (Asio), timers and disks (io_uring). ProcessorPool: the
// main processor and the I/O processors.
//
// Invariants:
//   P1  Work posted from the processor's own thread goes to a plain list; from elsewhere to a lock-free inbox. Only the
//       first poster that finds the processor asleep wakes it: one wake-up per batch.
//   P2  The loop sleeps only after it has said so (asleep_) and then found inbox and completions empty; a poster looks
//       at asleep_ after it has added its work. Both are sequentially consistent: no wake-up is lost.
//   P3  An idle processor sleeps in the kernel. With max_spin it spins before that, but only while its last sleeps were
//       shorter than max_spin, and at most that long.
//   P4  Work that is posted while a batch runs runs in the next batch, so sockets, disks and timers get their turn.
// Threads: post(), stop() and forget_file() from any thread; everything else on the processor's own.
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/executor.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "target/runtime/disk_queue.hpp"

namespace boost::asio {
class io_context;
}

namespace gemel {

class TimerHeap;

struct ProcessorOptions {
    std::string name = "main";    ///< of the thread, at most 15 characters are shown by the system
    unsigned index = 0;           ///< 0: main; 1..n: I/O processors
    std::optional<unsigned> cpu;  ///< pins the thread
    Duration max_spin{0};         ///< before sleeping, at most 50 us make sense; see README
    DiskQueueOptions disks;
};

class Processor final : public Executor {
  public:
    explicit Processor(ProcessorOptions options);
    ~Processor() override;
    Processor(const Processor&) = delete;
    Processor& operator=(const Processor&) = delete;

    void post(Work& work) noexcept override;

    /// Runs on this thread until stop(). `ready` is called once, with the result of the set-up of the disk queue,
    /// before any work runs; after a failure run() returns.
    void run(const std::function<void(Result<void>)>& ready);
    /// The loop ends when no posted work and no disk request is left. Timers and waits for sockets are given up: stop
    /// the objects that own them first.
    void stop() noexcept;

    /// The processor whose thread this is; nullptr elsewhere.
    static Processor* current_or_null();
    /// REQUIRES: called on a processor's thread.
    static Processor& current();

    /// Drops `file` from the tables of this processor's disk queue, soon. Threads: any, also after the loop has ended.
    void forget_file(const DiskFile& file);

    [[nodiscard]] unsigned index() const;
    [[nodiscard]] const std::string& name() const;
    boost::asio::io_context& io_context();
    TimerHeap& timers();
    DiskQueue& disks();
    /// Counts the turns of the loop, so that a stream can tell how much it took of one.
    [[nodiscard]] std::uint64_t turn() const;
    /// Wake-ups written by other threads so far; for tests and status.
    [[nodiscard]] std::uint64_t wake_ups() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

struct PoolOptions {
    unsigned io_processors = 0;  ///< 0: as many as the machine has cores
    bool pin = false;            ///< I/O processor i to core i - 1
    Duration max_spin{0};        ///< before sleeping, at most 50 us make sense; see README
    DiskQueueOptions disks;
};

class ProcessorPool {
  public:
    static constexpr unsigned kMostIoProcessors = 256;  ///< a machine with more cores uses so many

    explicit ProcessorPool(const PoolOptions& options);
    /// Stops and joins what still runs.
    ~ProcessorPool();
    ProcessorPool(const ProcessorPool&) = delete;
    ProcessorPool& operator=(const ProcessorPool&) = delete;

    /// Starts the threads of the I/O processors. Errors: kResources if a thread or its disk queue cannot be set up.
    Result<void> start();
    /// Runs the main processor on this thread until stop_main().
    Result<void> run_main();
    void stop_main() noexcept { main().stop(); }
    /// Stops the I/O processors and waits for their threads. REQUIRES: not called on one of them. Idempotent.
    void stop_and_join();

    Processor& main() { return *processors_.front(); }
    [[nodiscard]] std::size_t io_count() const { return processors_.size() - 1; }
    /// REQUIRES: i < io_count().
    Processor& io(std::size_t i) { return *processors_[i + 1]; }
    /// Main first.
    [[nodiscard]] std::span<const std::unique_ptr<Processor>> all() const { return processors_; }

  private:
    struct Thread;
    std::vector<std::unique_ptr<Processor>> processors_;
    std::vector<std::unique_ptr<Thread>> threads_;
};

namespace detail {

/// Carries a task to its executor and its result back to a waiting thread.
template <class T>
struct BlockingCall : Work {
    Task<T> task;
    std::promise<T> promise;
    explicit BlockingCall(Task<T> t) : task(std::move(t)) {
        run = [](Work& w) noexcept {
            start_detached(finish(std::unique_ptr<BlockingCall>(&static_cast<BlockingCall&>(w))));
        };
    }
    static Task<void> finish(std::unique_ptr<BlockingCall> self) {
        if constexpr (std::is_void_v<T>) {
            co_await std::move(self->task);
            self->promise.set_value();
        } else {
            self->promise.set_value(co_await std::move(self->task));
        }
    }
};

}  // namespace detail

/// Runs `task` on `executor` and blocks this thread until it has ended. REQUIRES: not called on a processor.
template <class T>
T run_blocking(Executor& executor, Task<T> task) {
    CHECK(!Executor::has_current());
    auto call = std::make_unique<detail::BlockingCall<T>>(std::move(task));
    std::future<T> result = call->promise.get_future();
    executor.post(*call.release());
    return result.get();
}

/// Starts `task` on `executor` and returns at once. Whatever it refers to must outlive it.
void start_on(Executor& executor, Task<void> task);

}  // namespace gemel
