// SPDX-License-Identifier: Apache-2.0
#include "tests/support/sim_scheduler.hpp"

#include <bit>

namespace gemel::sim {

SeededRandom::SeededRandom(std::uint64_t seed) {
    for (std::uint64_t& word : state_) {
        seed += 0x9e3779b97f4a7c15ULL;
        std::uint64_t z = seed;
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
        word = z ^ (z >> 31U);
    }
}

std::uint64_t SeededRandom::next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t t = state_[1] << 17U;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
}

void SimExecutor::post(Work& work) noexcept {
    ready_.push_back(&work);
    ++scheduler_.ready_total_;
}

SimExecutor& SimScheduler::add_executor(std::string name) {
    executors_.push_back(std::make_unique<SimExecutor>(*this, std::move(name)));
    return *executors_.back();
}

void SimScheduler::arm(Timer& timer, TimePoint due) {
    CHECK(!timer.armed);
    timer.due = due;
    timer.id = next_timer_++;
    timer.home = &Executor::current();
    timer.armed = true;
    timers_.emplace(std::pair(due, timer.id), &timer);
}

bool SimScheduler::cancel(Timer& timer) {
    if (!timer.armed) {
        return false;
    }
    timers_.erase({timer.due, timer.id});
    timer.armed = false;
    return true;
}

bool SimScheduler::step() {
    ++steps_;
    if (ready_total_ > 0) {
        std::uint64_t pick = random_.below(ready_total_);
        note_event(pick);
        for (const auto& executor : executors_) {
            if (pick >= executor->ready_.size()) {
                pick -= executor->ready_.size();
                continue;
            }
            Work* work = executor->ready_[pick];
            executor->ready_[pick] = executor->ready_.back();
            executor->ready_.pop_back();
            --ready_total_;
            const Executor::Scope scope(*executor);
            work->run(*work);
            return true;
        }
    }
    if (timers_.empty()) {
        return false;
    }
    Timer* timer = timers_.begin()->second;
    timers_.erase(timers_.begin());
    timer->armed = false;
    now_ = std::max(now_, timer->due);
    note_event(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
    const Executor::Scope scope(*timer->home);
    timer->run(*timer);
    return true;
}

bool SimScheduler::run_until(const std::function<bool()>& done, Duration limit) {
    const TimePoint end = now_ + limit;
    while (!done()) {
        if (now_ > end || !step()) {
            return done();
        }
    }
    return true;
}

void SimScheduler::run_for(Duration d) {
    const TimePoint end = now_ + d;
    while (ready_total_ > 0 || (!timers_.empty() && timers_.begin()->first.first <= end)) {
        step();
    }
    now_ = std::max(now_, end);
}

Task<void> SimScheduler::note(Task<void> task, bool& done) {
    co_await std::move(task);
    done = true;
}

namespace {

/// Holds the task until its first step on its executor.
struct Starter : Work {
    explicit Starter(Task<void> t) : task(std::move(t)) {
        run = [](Work& w) noexcept {
            const std::unique_ptr<Starter> self(static_cast<Starter*>(&w));
            start_detached(std::move(self->task));
        };
    }
    Task<void> task;
};

}  // namespace

void SimScheduler::start(SimExecutor& executor, Task<void> task) {
    executor.post(*new Starter(std::move(task)));
}

}  // namespace gemel::sim
