// SPDX-License-Identifier: Apache-2.0
// The ring of events: numbers without gaps, a bound, the log, waking of followers, emitting from many threads.
#include "target/admin/event_ring.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/sim_scheduler.hpp"

namespace gemel::admin {
namespace {

std::int64_t fixed_time() {
    return 1'795'186'800'123'000'000;
}

std::vector<StoredEvent> logged;
void remember(const StoredEvent& event) {
    logged.push_back(event);
}

EventRecord record(std::string cause) {
    return {Severity::kWarning, "test-event", "volume v", std::move(cause), "do something"};
}

TEST(EventRing, EventsAreNumberedWithoutGapsAndTheOldestAreDroppedAtTheBound) {
    EventRing ring(3, fixed_time, nullptr);
    for (int i = 1; i <= 5; ++i) {
        ring.emit(record("cause " + std::to_string(i)));
    }
    EXPECT_EQ(ring.last(), 5U);
    const auto kept = ring.since(0, 100);
    ASSERT_EQ(kept.size(), 3U);
    EXPECT_EQ(kept[0].sequence, 3U);
    EXPECT_EQ(kept[2].cause, "cause 5");
    EXPECT_EQ(ring.since(5, 100).size(), 1U);
    EXPECT_EQ(ring.since(6, 100).size(), 0U);
    EXPECT_EQ(ring.since(0, 2).size(), 2U);
}

TEST(EventRing, TextsFromOutsideAreCutAndMadePrintable) {
    EventRing ring(3, fixed_time, nullptr);
    ring.emit({Severity::kInfo, "id", "na\nme\x1b[31m\xff", std::string(5000, 'x'), ""});
    const auto kept = ring.since(0, 1);
    EXPECT_EQ(kept[0].subject, "na?me?[31m?");
    EXPECT_EQ(kept[0].cause.size(), EventRing::kMaxText);
}

TEST(EventRing, TimesAreWrittenInUtcWithMilliseconds) {
    EXPECT_EQ(format_time(fixed_time()), "2026-11-20T15:00:00.123Z");
}

TEST(EventRing, EventsAreLoggedInOrderBeforeWhileAndAfterItIsAttached) {
    logged.clear();
    sim::SimScheduler scheduler(1);
    sim::SimExecutor& home = scheduler.add_executor("home");
    EventRing ring(16, fixed_time, remember);
    ring.emit(record("1"));
    EXPECT_EQ(logged.size(), 1U);
    ring.attach(home);
    ring.emit(record("2"));
    ring.emit(record("3"));
    EXPECT_EQ(logged.size(), 1U);  // ER2: emit itself does not log
    scheduler.run_for(std::chrono::milliseconds(1));
    ASSERT_EQ(logged.size(), 3U);
    ring.emit(record("4"));
    scheduler.run(home, ring.detach());
    ring.emit(record("5"));
    ASSERT_EQ(logged.size(), 5U);
    for (std::size_t i = 0; i < logged.size(); ++i) {
        EXPECT_EQ(logged[i].sequence, i + 1);
    }
}

TEST(EventRing, AFollowerIsWokenByAnEvent) {
    sim::SimScheduler scheduler(2);
    sim::SimExecutor& home = scheduler.add_executor("home");
    EventRing ring(16, fixed_time, nullptr);
    ring.attach(home);
    bool woken = false;
    scheduler.start(home, [](EventRing& r, bool& flag) -> Task<void> {
        co_await r.changed();
        flag = true;
    }(ring, woken));
    scheduler.run_for(std::chrono::milliseconds(1));
    EXPECT_FALSE(woken);
    ring.emit(record("now"));
    scheduler.run_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(woken);
    scheduler.run(home, ring.detach());
}

TEST(EventRing, ThreadsMayEmitAtOnce) {
    EventRing ring(10'000, fixed_time, nullptr);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&ring] {
            for (int i = 0; i < 500; ++i) {
                ring.emit(record("x"));
            }
        });
    }
    for (std::thread& t : threads) {
        t.join();
    }
    const auto kept = ring.since(0, 10'000);
    ASSERT_EQ(kept.size(), 2000U);
    for (std::size_t i = 0; i < kept.size(); ++i) {
        ASSERT_EQ(kept[i].sequence, i + 1);
    }
}

}  // namespace
}  // namespace gemel::admin
