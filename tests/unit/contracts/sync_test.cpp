// SPDX-License-Identifier: Apache-2.0
// Tasks, events, gates and interval locks, run in the simulator's scheduler under several seeds.
#include "gemel/sync.hpp"

#include <gtest/gtest.h>

#include "gemel/interval_lock.hpp"
#include "gemel/result.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel {
namespace {

using namespace std::chrono_literals;
using sim::SimExecutor;
using sim::SimScheduler;

Task<int> later(Clock& clock, Duration d, int value) {
    co_await sleep_for(clock, d);
    co_return value;
}

TEST(Task, when_all_keeps_order_whatever_ends_first) {
    SimScheduler s(1);
    SimExecutor& e = s.add_executor("a");
    auto body = [](Clock& clock) -> Task<std::vector<int>> {
        std::vector<Task<int>> tasks;
        tasks.push_back(later(clock, 30ms, 1));
        tasks.push_back(later(clock, 10ms, 2));
        tasks.push_back(later(clock, 0ms, 3));
        co_return co_await when_all(std::move(tasks));
    };
    EXPECT_EQ(s.run(e, body(s)), (std::vector{1, 2, 3}));
    EXPECT_EQ(s.now(), TimePoint(1s + 30ms));
}

TEST(Task, resume_on_changes_the_executor_and_back) {
    SimScheduler s(2);
    SimExecutor& a = s.add_executor("a");
    SimExecutor& b = s.add_executor("b");
    auto body = [](SimExecutor& home, SimExecutor& other) -> Task<bool> {
        co_await resume_on(other);
        const bool there = other.is_current();
        co_await resume_on(home);
        co_return there&& home.is_current();
    };
    EXPECT_TRUE(s.run(a, body(a, b)));
}

TEST(Event, wait_until_tells_set_from_late) {
    SimScheduler s(3);
    SimExecutor& e = s.add_executor("a");
    Event event;
    auto waiter = [](Event& ev, Clock& c, Duration d) -> Task<bool> {
        co_return co_await ev.wait_until(c, c.now() + d);
    };
    EXPECT_FALSE(s.run(e, waiter(event, s, 5ms)));
    auto setter = [](Event& ev, Clock& c) -> Task<void> {
        co_await sleep_for(c, 2ms);
        ev.set();
    };
    s.start(e, setter(event, s));
    EXPECT_TRUE(s.run(e, waiter(event, s, 5ms)));
}

TEST(Gate, close_waits_for_those_inside_and_refuses_others) {
    SimScheduler s(4);
    SimExecutor& e = s.add_executor("a");
    Gate gate;
    int ended = 0;
    auto inside = [](Clock& c, int& n) -> Task<void> {
        co_await sleep_for(c, 7ms);
        ++n;
    };
    auto body = [](Gate& g, Task<void> one, Task<void> two, Task<void> refused) -> Task<bool> {
        g.spawn(std::move(one));
        g.spawn(std::move(two));
        co_await g.close();
        co_return g.spawn(std::move(refused));
    };
    EXPECT_FALSE(s.run(e, body(gate, inside(s, ended), inside(s, ended), inside(s, ended))));
    EXPECT_EQ(ended, 2);
}

TEST(IntervalLock, overlapping_ranges_run_in_the_order_of_asking) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        SimScheduler s(seed);
        SimExecutor& e = s.add_executor("a");
        IntervalLock lock;
        std::vector<int> granted(40, -1);
        std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
        int clock_tick = 0;
        int held = 0;
        std::vector<int> active(64, 0);
        auto user = [](IntervalLock& l, std::uint64_t first, std::uint64_t last, int& tick, int& at, Clock& c,
                       std::vector<int>& busy, int& ended) -> Task<void> {
            auto guard = co_await l.acquire(first, last);
            at = tick++;
            for (std::uint64_t i = first; i <= last; ++i) {
                CHECK(busy[i]++ == 0);
            }
            co_await sleep_for(c, 1ms);
            for (std::uint64_t i = first; i <= last; ++i) {
                --busy[i];
            }
            ++ended;
        };
        auto start_all = [&]() -> Task<void> {
            for (int& at : granted) {
                const std::uint64_t first = s.random().below(56);
                ranges.emplace_back(first, first + s.random().below(8));
                start_detached(user(lock, ranges.back().first, ranges.back().second, clock_tick, at, s, active, held));
            }
            co_return;
        };
        s.run(e, start_all());
        ASSERT_TRUE(s.run_until([&] { return held == 40; }));
        EXPECT_TRUE(lock.idle());
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            for (std::size_t j = i + 1; j < ranges.size(); ++j) {
                if (ranges[i].first <= ranges[j].second && ranges[j].first <= ranges[i].second) {
                    ASSERT_LT(granted[i], granted[j]) << "seed " << seed;
                }
            }
        }
    }
}

TEST(SimScheduler, same_seed_same_trace) {
    auto trace = [](std::uint64_t seed) {
        SimScheduler s(seed);
        SimExecutor& e = s.add_executor("a");
        auto sleeper = [](SimScheduler& c) -> Task<void> {
            for (int i = 0; i < 50; ++i) {
                co_await sleep_for(c, Duration(c.random().below(1000)));
                co_await yield();
            }
        };
        for (int i = 0; i < 4; ++i) {
            s.start(e, sleeper(s));
        }
        s.run_for(1s);
        return s.trace();
    };
    EXPECT_EQ(trace(7), trace(7));
    EXPECT_NE(trace(7), trace(8));
}

}  // namespace
}  // namespace gemel
