// SPDX-License-Identifier: Apache-2.0
// WriteGate: alone is alone, everybody gets in, on simulated executors and on threads; COMPARE AND WRITE as a lock.
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/real_runtime.hpp"
#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

struct Log {
    int passing = 0;
    int alone = 0;
    int most_passing = 0;
    int ended = 0;
};

Task<void> pass(WriteGate& gate, sim::SimScheduler& scheduler, Log& log, int rounds) {
    for (int i = 0; i < rounds; ++i) {
        WriteGate::Pass held = gate.try_pass();
        if (!held) {
            held = co_await gate.pass();
        }
        log.most_passing = std::max(log.most_passing, ++log.passing);
        EXPECT_EQ(log.alone, 0);
        co_await sleep_for(scheduler, std::chrono::microseconds(3));
        EXPECT_EQ(log.alone, 0);
        --log.passing;
    }
    ++log.ended;
}

Task<void> be_alone(WriteGate& gate, sim::SimScheduler& scheduler, Log& log, int rounds) {
    for (int i = 0; i < rounds; ++i) {
        const WriteGate::Alone held = co_await gate.alone();
        EXPECT_EQ(++log.alone, 1);
        EXPECT_EQ(log.passing, 0);
        co_await sleep_for(scheduler, std::chrono::microseconds(2));
        EXPECT_EQ(log.passing, 0);
        --log.alone;
    }
    ++log.ended;
}

TEST(WriteGate, alone_is_alone_and_everybody_gets_in_whatever_the_order) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        sim::SimScheduler scheduler(seed);
        std::array<sim::SimExecutor*, 3> executors{};
        for (auto& e : executors) {
            e = &scheduler.add_executor("p");
        }
        WriteGate gate;
        Log log;
        for (std::size_t i = 0; i < 8; ++i) {
            scheduler.start(*executors[i % 3], pass(gate, scheduler, log, 20));
        }
        for (std::size_t i = 0; i < 3; ++i) {
            scheduler.start(*executors[i], be_alone(gate, scheduler, log, 20));
        }
        ASSERT_TRUE(scheduler.run_until([&] { return log.ended == 11; })) << seed;
        EXPECT_GT(log.most_passing, 1) << seed;
    }
}

/// What is counted alone needs no atomic; a lost count, or what ThreadSanitizer says, is a gate that lets two in.
struct Counted {
    std::uint64_t alone = 0;
    std::atomic<std::uint64_t> passing{0};
    std::atomic<std::uint64_t> together{0};
};

Task<bool> count(WriteGate& gate, Counted& counted, int rounds) {
    bool right = true;
    for (int i = 0; i < rounds; ++i) {
        if (i % 8 == 0) {
            const WriteGate::Alone held = co_await gate.alone();
            right = right && counted.passing.load() == 0;
            ++counted.alone;
            continue;
        }
        WriteGate::Pass held = gate.try_pass();
        if (!held) {
            held = co_await gate.pass();
        }
        counted.passing.fetch_add(1);
        co_await yield();
        counted.passing.fetch_sub(1);
        counted.together.fetch_add(1);
    }
    co_return right;
}

TEST(WriteGate, holds_between_processors) {
    constexpr int kTasks = 6;
    constexpr int kRounds = 4000;
    test::RealRuntime runtime(2);
    WriteGate gate;
    Counted counted;
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (std::size_t i = 0; i < kTasks; ++i) {
        threads.emplace_back([&, i] { right += runtime.run(count(gate, counted, kRounds), i % 2) ? 1 : 0; });
    }
    for (std::thread& t : threads) {
        t.join();
    }
    EXPECT_EQ(right, kTasks);
    EXPECT_EQ(counted.alone, kTasks * kRounds / 8U);
    EXPECT_EQ(counted.together, kTasks * kRounds / 8U * 7);
}

}  // namespace
}  // namespace gemel::scsi
