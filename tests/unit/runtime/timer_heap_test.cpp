// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/timer_heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace gemel {
namespace {

TimePoint at(std::int64_t ns) {
    return TimePoint(Duration(ns));
}

TEST(TimerHeap, TimersComeOutByDeadlineAndEqualOnesInOrderOfArming) {
    TimerHeap heap;
    std::vector<Timer> timers(100);
    for (std::size_t i = 0; i < timers.size(); ++i) {
        heap.arm(timers[i], at(static_cast<std::int64_t>(i * 37 % 10)));
    }
    const Timer* last = nullptr;
    for (std::size_t i = 0; i < timers.size(); ++i) {
        const Timer* t = heap.take_due(at(1000));
        ASSERT_NE(t, nullptr);
        if (last != nullptr) {
            EXPECT_TRUE(last->due < t->due || (last->due == t->due && last < t));
        }
        last = t;
    }
    EXPECT_TRUE(heap.empty());
}

TEST(TimerHeap, NothingIsTakenBeforeItsTime) {
    TimerHeap heap;
    Timer timer;
    heap.arm(timer, at(100));
    EXPECT_EQ(heap.take_due(at(99)), nullptr);
    EXPECT_TRUE(timer.armed);
    EXPECT_EQ(heap.take_due(at(100)), &timer);
    EXPECT_FALSE(timer.armed);
    EXPECT_FALSE(heap.cancel(timer));
}

TEST(TimerHeap, AgreesWithASortedListUnderRandomArmingAndCancelling) {
    std::mt19937_64 random(1);
    TimerHeap heap;
    std::vector<Timer> timers(500);
    std::int64_t now = 0;
    for (int step = 0; step < 20000; ++step) {
        Timer& timer = timers[random() % timers.size()];
        if (timer.armed && random() % 2 == 0) {
            EXPECT_TRUE(heap.cancel(timer));
        } else if (!timer.armed) {
            heap.arm(timer, at(now + static_cast<std::int64_t>(random() % 1000)));
        }
        if (step % 10 == 0) {
            now += static_cast<std::int64_t>(random() % 50);
            while (const Timer* due = heap.take_due(at(now))) {
                EXPECT_LE(due->due, at(now));
            }
            const bool any_due =
                std::ranges::any_of(timers, [&](const Timer& t) { return t.armed && t.due <= at(now); });
            EXPECT_FALSE(any_due);
        }
    }
}

}  // namespace
}  // namespace gemel
