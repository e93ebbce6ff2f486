// SPDX-License-Identifier: Apache-2.0
// SimScheduler: the simulator's executors and clock. One thread, virtual time, the next piece of work picked at random
// from a seed: the same seed gives the same run.
//
// Invariants:
//   SS1 Time moves only when no executor has work, and then to the next timer.
//   SS2 Nothing depends on addresses or hash order; trace() folds every choice into one number.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <memory_resource>
#include <optional>
#include <string>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/executor.hpp"
#include "gemel/random.hpp"
#include "gemel/task.hpp"

namespace gemel::sim {

/// xoshiro256** seeded by splitmix64: fast, and the same on every machine.
class SeededRandom : public Random {
  public:
    explicit SeededRandom(std::uint64_t seed);
    std::uint64_t next() override;
    /// True once in `n` calls on average. REQUIRES: n > 0.
    bool one_in(std::uint64_t n) { return below(n) == 0; }

  private:
    std::array<std::uint64_t, 4> state_{};
};

class SimScheduler;

class SimExecutor : public Executor {
  public:
    SimExecutor(SimScheduler& scheduler, std::string name) : scheduler_(scheduler), name_(std::move(name)) {}
    void post(Work& work) noexcept override;
    [[nodiscard]] const std::string& name() const { return name_; }

  private:
    friend class SimScheduler;
    SimScheduler& scheduler_;
    std::string name_;
    std::vector<Work*> ready_;
};

class SimScheduler : public Clock {
  public:
    explicit SimScheduler(std::uint64_t seed) : random_(seed) {}

    SimExecutor& add_executor(std::string name);

    [[nodiscard]] TimePoint now() const override { return now_; }
    [[nodiscard]] std::int64_t unix_ns() const override { return now_.time_since_epoch().count(); }
    void arm(Timer& timer, TimePoint due) override;
    bool cancel(Timer& timer) override;

    /// Runs one piece of work, or moves time to the next timer. False when nothing is left to do.
    bool step();
    /// Steps until `done` says so. False if nothing was left to do, or `limit` of virtual time passed, before that.
    bool run_until(const std::function<bool()>& done, Duration limit = std::chrono::hours(24));
    /// Lets `d` of virtual time pass.
    void run_for(Duration d);

    /// Runs `task` on `executor` to its end and returns its result. Aborts with the virtual time when it never ends.
    template <class T>
    T run(SimExecutor& executor, Task<T> task) {
        std::optional<T> out;
        start(executor, store(std::move(task), out));
        CHECK(run_until([&] { return out.has_value(); }));
        return *std::move(out);
    }
    void run(SimExecutor& executor, Task<void> task) {
        bool done = false;
        start(executor, note(std::move(task), done));
        CHECK(run_until([&] { return done; }));
    }
    /// Starts `task` on `executor`; it runs in later steps.
    void start(SimExecutor& executor, Task<void> task);

    SeededRandom& random() { return random_; }
    [[nodiscard]] std::uint64_t trace() const { return trace_; }
    /// Folds something that happened into the trace.
    void note_event(std::uint64_t what) { trace_ = (trace_ ^ what) * 0x100000001b3ULL; }
    [[nodiscard]] std::uint64_t steps() const { return steps_; }

  private:
    friend class SimExecutor;
    template <class T>
    static Task<void> store(Task<T> task, std::optional<T>& out) {
        out.emplace(co_await std::move(task));
    }
    static Task<void> note(Task<void> task, bool& done);

    SeededRandom random_;
    TimePoint now_{std::chrono::seconds(1)};
    std::vector<std::unique_ptr<SimExecutor>> executors_;
    std::pmr::unsynchronized_pool_resource timer_memory_;
    std::pmr::map<std::pair<TimePoint, std::uint64_t>, Timer*> timers_{&timer_memory_};
    std::size_t ready_total_ = 0;
    std::uint64_t next_timer_ = 0;
    std::uint64_t trace_ = 0xcbf29ce484222325ULL;
    std::uint64_t steps_ = 0;
};

}  // namespace gemel::sim
