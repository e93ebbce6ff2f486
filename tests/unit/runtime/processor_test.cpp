// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/processor.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <thread>

#include "gemel/sync.hpp"
#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

using test::RealRuntime;

Task<int> hop_between(Processor* a, Processor* b, int hops) {
    int done = 0;
    for (int i = 0; i < hops; ++i) {
        co_await resume_on(i % 2 == 0 ? *b : *a);
        CHECK((i % 2 == 0 ? *b : *a).is_current());
        ++done;
    }
    co_await resume_on(*a);
    co_return done;
}

TEST(Processor, TwoProcessorsHammerEachOtherAndNothingIsLost) {
    RealRuntime runtime;
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 64; ++i) {
        tasks.push_back(hop_between(&runtime.io(0), &runtime.io(1), 501));
    }
    for (const int done : runtime.run(when_all(std::move(tasks)))) {
        EXPECT_EQ(done, 501);
    }
}

struct Counter : Work {
    std::atomic<int>* count = nullptr;
    std::atomic<bool> posted{false};
    Counter() {
        run = [](Work& w) noexcept {
            auto& self = static_cast<Counter&>(w);
            self.posted.store(false);
            self.count->fetch_add(1);
        };
    }
};

TEST(Processor, WorkPostedByManyThreadsRunsExactlyOnceEach) {
    RealRuntime runtime(1);
    constexpr int kThreads = 4;
    constexpr int kEach = 5000;
    std::atomic<int> count{0};
    std::vector<std::vector<Counter>> work(kThreads);
    for (auto& list : work) {
        list = std::vector<Counter>(kEach);
    }
    std::vector<std::thread> threads;
    for (auto& list : work) {
        threads.emplace_back([&list, &count, &runtime] {
            for (Counter& c : list) {
                c.count = &count;
                runtime.io(0).post(c);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    runtime.run([]() -> Task<void> { co_return; }());
    EXPECT_EQ(count, kThreads * kEach);
}

Task<void> wake_by_itself(Clock* clock, const std::atomic<bool>* done) {
    while (!done->load()) {
        co_await sleep_for(*clock, std::chrono::microseconds(20));
    }
}

// A poster may be held up between claiming a wake-up and posting it while the processor wakes by itself, sleeps again
// and is claimed by another: two posts are then on their way. TSan and the handler memory's check see a shared slot.
TEST(Processor, WakeUpsFromManyThreadsMeetOnesOfItsOwnTimers) {
    RealRuntime runtime(1);
    constexpr int kThreads = 6;
    constexpr int kEach = 1500;
    std::atomic<int> count{0};
    std::atomic<bool> done{false};
    std::vector<std::vector<Counter>> work(kThreads);
    std::vector<std::thread> threads;
    for (auto& list : work) {
        list = std::vector<Counter>(kEach);
        threads.emplace_back([&list, &count, &runtime] {
            for (Counter& c : list) {
                c.count = &count;
                runtime.io(0).post(c);
                std::this_thread::yield();
            }
        });
    }
    std::thread waker([&] { runtime.run(wake_by_itself(&runtime.environment().clock, &done)); });
    for (auto& thread : threads) {
        thread.join();
    }
    done.store(true);
    waker.join();
    runtime.run([]() -> Task<void> { co_return; }());
    EXPECT_EQ(count, kThreads * kEach);
}

TEST(Processor, ABatchOfPostsWritesOneWakeUp) {
    RealRuntime runtime(2);
    // While processor 1 is blocked it is not asleep: whatever is posted to it costs no wake-up.
    std::atomic<int> count{0};
    std::vector<Counter> work(1000);
    std::promise<void> blocked;
    std::promise<void> release;
    struct Blocker : Work {
        std::promise<void>* blocked;
        std::future<void> release;
    } blocker;
    blocker.blocked = &blocked;
    blocker.release = release.get_future();
    blocker.run = [](Work& w) noexcept {
        static_cast<Blocker&>(w).blocked->set_value();
        static_cast<Blocker&>(w).release.wait();
    };
    runtime.io(1).post(blocker);
    blocked.get_future().wait();
    const std::uint64_t before = runtime.io(1).wake_ups();
    for (Counter& c : work) {
        c.count = &count;
        runtime.io(1).post(c);
    }
    EXPECT_EQ(runtime.io(1).wake_ups(), before);
    release.set_value();
    runtime.run([]() -> Task<void> { co_return; }(), 1);
    EXPECT_EQ(count, 1000);
}

TEST(Processor, WorkPostedFromItsOwnThreadRunsLaterInOrder) {
    RealRuntime runtime(1);
    const std::string order = runtime.run([]() -> Task<std::string> {
        std::string log;
        Gate gate;
        for (char c = 'a'; c < 'e'; ++c) {
            gate.spawn([](std::string& out, char letter) -> Task<void> {
                co_await yield();
                out += letter;
            }(log, c));
            log += '.';
        }
        co_await gate.close();
        co_return log;
    }());
    EXPECT_EQ(order, "....abcd");
}

TEST(Processor, SleepEndsNotBeforeItsTimeAndOnItsProcessor) {
    RealRuntime runtime;
    Environment env = runtime.environment();
    for (const int ms : {1, 7, 20}) {
        const Duration slept = runtime.run([](Clock* clock, int n) -> Task<Duration> {
            const Processor& here = Processor::current();
            const TimePoint from = clock->now();
            co_await sleep_for(*clock, std::chrono::milliseconds(n));
            CHECK(here.is_current());
            co_return clock->now() - from;
        }(&env.clock, ms));
        EXPECT_GE(slept, std::chrono::milliseconds(ms));
        EXPECT_LT(slept, std::chrono::seconds(5));
    }
}

TEST(Processor, ACancelledTimerDoesNotFireAndAnEarlierOneArmedLaterComesFirst) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const bool good = runtime.run([](Clock* clock) -> Task<bool> {
        Event never;
        const TimePoint from = clock->now();
        Timer far;
        far.run = [](Work&) noexcept { FAIL() << "a cancelled timer fired"; };
        clock->arm(far, from + std::chrono::milliseconds(30));
        const bool set = co_await never.wait_until(*clock, from + std::chrono::milliseconds(5));
        const bool cancelled = clock->cancel(far);
        co_await sleep_for(*clock, std::chrono::milliseconds(50));
        co_return !set && cancelled;
    }(&env.clock));
    EXPECT_TRUE(good);
}

TEST(Processor, HandlersPostedToItsAsioContextRunOnIt) {
    RealRuntime runtime(1);
    std::promise<bool> ran;
    boost::asio::post(runtime.io(0).io_context(), [&] { ran.set_value(runtime.io(0).is_current()); });
    EXPECT_TRUE(ran.get_future().get());
}

TEST(Processor, AnIdleProcessorUsesNoProcessorTime) {
    RealRuntime runtime(2);
    // Busy first, so that the spin has been learnt and must be unlearnt.
    std::vector<Task<int>> tasks;
    tasks.push_back(hop_between(&runtime.io(0), &runtime.io(1), 2001));
    runtime.run(when_all(std::move(tasks)));
    const auto used = [] {
        rusage usage{};
        ::getrusage(RUSAGE_SELF, &usage);
        return std::chrono::seconds(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               std::chrono::microseconds(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    };
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto before = used();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_LT(used() - before, std::chrono::milliseconds(5));
}

TEST(Processor, RandomNumbersOfTwoThreadsDiffer) {
    RealRuntime runtime(2);
    Environment env = runtime.environment();
    const auto draw = [](Random* random) -> Task<std::uint64_t> { co_return random->next(); };
    const std::uint64_t a = runtime.run(draw(&env.random), 0);
    const std::uint64_t b = runtime.run(draw(&env.random), 1);
    EXPECT_NE(a, b);
    EXPECT_NE(a, 0U);
    EXPECT_FALSE(env.boot_id.is_nil());
}

}  // namespace
}  // namespace gemel
