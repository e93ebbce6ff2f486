// SPDX-License-Identifier: Apache-2.0
// SimDisk does what a real disk may do, and never what it may not.
#include "tests/support/sim_disk.hpp"

#include <gtest/gtest.h>

#include "tests/support/heap_pool.hpp"

namespace gemel::sim {
namespace {

using namespace std::chrono_literals;

struct Bench {
    explicit Bench(std::uint64_t seed, SimDiskOptions options = {})
        : scheduler(seed), executor(scheduler.add_executor("a")), disk(scheduler, seed, std::move(options)) {}

    Buffer filled(std::uint64_t sectors, int value) {
        Buffer b = *pool.allocate(sectors * kSectorBytes);
        std::ranges::fill(b.memory(), static_cast<std::byte>(value));
        return b;
    }
    static Slice all(const Buffer& b, Lba lba, std::uint64_t sectors) { return b.slice(sectors * kSectorBytes, lba); }
    Result<void> write(Lba lba, std::uint64_t sectors, int value, WriteOptions o = {}) {
        const Buffer b = filled(sectors, value);
        return scheduler.run(executor, disk.write(lba, all(b, lba, sectors), o));
    }
    /// The first byte of each sector.
    std::vector<int> read(Lba lba, std::uint64_t sectors) {
        const Buffer b = filled(sectors, 0xee);
        last = scheduler.run(executor, disk.read(lba, all(b, lba, sectors)));
        statuses.clear();
        for (const BlockInfo& info : all(b, lba, sectors).blocks()) {
            statuses.push_back(info.status);
        }
        std::vector<int> out;
        for (std::uint64_t i = 0; i < sectors; ++i) {
            out.push_back(std::to_integer<int>(b.memory()[i * kSectorBytes]));
        }
        return out;
    }
    Result<void> flush() { return scheduler.run(executor, disk.flush()); }

    HeapPool pool;
    SimScheduler scheduler;
    SimExecutor& executor;
    SimDisk disk;
    Result<void> last;
    std::vector<BlockStatus> statuses;
};

Task<void> write_later(SimDisk& disk, Lba lba, Slice from, bool& done, bool fua = false) {
    const Result<void> ignored = co_await disk.write(lba, from, {.fua = fua});
    done = true;
}

TEST(SimDisk, reads_what_was_written_and_zeros_elsewhere) {
    Bench b(1);
    ASSERT_TRUE(b.write(Lba(3), 2, 7));
    EXPECT_EQ(b.read(Lba(2), 4), (std::vector{0, 7, 7, 0}));
    ASSERT_TRUE(b.scheduler.run(b.executor, b.disk.discard(Lba(3), SectorCount(1))));
    EXPECT_EQ(b.read(Lba(2), 4), (std::vector{0, 0, 7, 0}));
}

TEST(SimDisk, a_power_cut_may_keep_any_version_of_an_unflushed_sector_and_only_those) {
    std::set<int> seen;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        Bench b(seed);
        for (const int value : {1, 2}) {
            ASSERT_TRUE(b.write(Lba(0), 1, value));
        }
        ASSERT_TRUE(b.flush());
        for (const int value : {3, 4}) {
            ASSERT_TRUE(b.write(Lba(0), 1, value));
        }
        b.disk.power_cut();
        b.disk.revive();
        seen.insert(b.read(Lba(0), 1)[0]);
    }
    EXPECT_EQ(seen, (std::set{2, 3, 4}));
}

TEST(SimDisk, fua_and_a_disk_without_cache_lose_nothing) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        for (const bool fua : {false, true}) {
            Bench b(seed, {.volatile_cache = fua});
            ASSERT_TRUE(b.write(Lba(5), 3, 1));
            ASSERT_TRUE(b.write(Lba(5), 3, 2, {.fua = fua}));
            b.disk.power_cut(CachePolicy::kRandom);
            b.disk.revive();
            EXPECT_EQ(b.read(Lba(5), 3), (std::vector{2, 2, 2}));
        }
    }
}

TEST(SimDisk, the_death_of_the_process_loses_no_completed_write) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Bench b(seed);
        ASSERT_TRUE(b.write(Lba(5), 3, 1));
        b.disk.kill_process();
        EXPECT_EQ(b.write(Lba(5), 1, 9).error().code, Errc::kDeviceGone);
        EXPECT_EQ(b.flush().error().code, Errc::kDeviceGone);
        b.disk.revive();
        EXPECT_EQ(b.read(Lba(5), 3), (std::vector{1, 1, 1}));
    }
}

TEST(SimDisk, a_write_in_flight_tears_at_sectors_in_a_crash) {
    std::set<std::vector<int>> seen;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        Bench b(seed);
        ASSERT_TRUE(b.write(Lba(0), 2, 1, {.fua = true}));
        const Buffer data = b.filled(2, 2);
        bool done = false;
        b.scheduler.start(b.executor, write_later(b.disk, Lba(0), Bench::all(data, Lba(0), 2), done));
        b.scheduler.step();
        ASSERT_EQ(b.disk.in_flight(), 1U);
        b.disk.power_cut(CachePolicy::kKeepAll);
        ASSERT_TRUE(b.scheduler.run_until([&] { return done; }));
        b.disk.revive();
        seen.insert(b.read(Lba(0), 2));
    }
    EXPECT_EQ(seen.size(), 4U) << "old old, old new, new old, new new";
}

TEST(SimDisk, a_flush_does_not_cover_a_write_that_completed_after_its_submission) {
    bool lost = false;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
        Bench b(seed, {.tail_one_in = 2});
        const Buffer data = b.filled(1, 1);
        bool written = false;
        bool flushed = false;
        auto flusher = [](SimDisk& disk, bool& flag) -> Task<void> { flag = (co_await disk.flush()).has_value(); };
        b.scheduler.start(b.executor, flusher(b.disk, flushed));
        b.scheduler.step();
        b.scheduler.start(b.executor, write_later(b.disk, Lba(0), Bench::all(data, Lba(0), 1), written));
        ASSERT_TRUE(b.scheduler.run_until([&] { return written && flushed; }));
        b.disk.power_cut(CachePolicy::kDropAll);
        b.disk.revive();
        lost = lost || b.read(Lba(0), 1)[0] == 0;
    }
    EXPECT_TRUE(lost);
}

TEST(SimDisk, completions_come_in_random_order) {
    std::set<std::vector<int>> orders;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        Bench b(seed);
        const Buffer data = b.filled(1, 1);
        std::vector<int> order;
        auto writer = [](SimDisk& disk, Slice from, Lba lba, int id, std::vector<int>& out) -> Task<void> {
            if (co_await disk.write(lba, from)) {
                out.push_back(id);
            }
        };
        for (int i = 0; i < 3; ++i) {
            const Lba lba(static_cast<std::uint64_t>(i) * 8);
            b.scheduler.start(b.executor, writer(b.disk, Bench::all(data, lba, 1), lba, i, order));
        }
        ASSERT_TRUE(b.scheduler.run_until([&] { return order.size() == 3; }));
        orders.insert(order);
    }
    EXPECT_EQ(orders.size(), 6U);
}

TEST(SimDisk, a_latent_error_marks_its_block_and_goes_with_a_write) {
    Bench b(4);
    ASSERT_TRUE(b.write(Lba(0), 24, 5));
    b.disk.damage(Lba(9), SectorCount(1));
    EXPECT_EQ(b.read(Lba(0), 24)[0], 5);
    EXPECT_EQ(b.last.error().code, Errc::kMediumError);
    EXPECT_EQ(b.statuses, (std::vector{BlockStatus::kOk, BlockStatus::kUnreadable, BlockStatus::kOk}));
    EXPECT_EQ(b.read(Lba(16), 1), std::vector{5});
    EXPECT_TRUE(b.last);
    ASSERT_TRUE(b.write(Lba(9), 1, 6));
    EXPECT_EQ(b.read(Lba(8), 2), (std::vector{5, 6}));
    EXPECT_TRUE(b.last);
}

TEST(SimDisk, planned_faults_fail_once_with_their_own_error) {
    Bench b(5);
    ASSERT_TRUE(b.write(Lba(0), 1, 1));
    b.disk.fail_next_writes(1);
    EXPECT_EQ(b.write(Lba(8), 1, 2).error().code, Errc::kIo);
    b.disk.fail_next_flushes(1);
    EXPECT_EQ(b.flush().error().code, Errc::kIo);
    EXPECT_EQ(b.disk.durable_snapshot()[0], std::byte{0}) << "a failed flush makes nothing durable";
    b.disk.fail_next_reads(1);
    b.read(Lba(0), 1);
    EXPECT_EQ(b.last.error().code, Errc::kIo);
    b.disk.set_full(true);
    EXPECT_EQ(b.write(Lba(0), 1, 3).error().code, Errc::kNoSpace);
    b.disk.set_full(false);
    EXPECT_EQ(b.read(Lba(0), 1), std::vector{1});
    EXPECT_TRUE(b.flush());
    EXPECT_EQ(b.disk.durable_snapshot()[0], std::byte{1});
}

TEST(SimDisk, silent_faults_damage_without_an_error) {
    Bench lost(6, {.lost_write_one_in = 1});
    ASSERT_TRUE(lost.write(Lba(0), 1, 1));
    EXPECT_EQ(lost.read(Lba(0), 1), std::vector{0});
    Bench misplaced(7, {.misplaced_write_one_in = 1});
    ASSERT_TRUE(misplaced.write(Lba(0), 1, 1));
    EXPECT_EQ(misplaced.read(Lba(0), 1), std::vector{0});
    EXPECT_EQ(std::ranges::count(misplaced.disk.snapshot(), std::byte{1}), 512);
    Bench rotten(8);
    ASSERT_TRUE(rotten.write(Lba(0), 1, 1));
    rotten.disk.rot(Lba(0));
    EXPECT_EQ(std::ranges::count(rotten.disk.snapshot(), std::byte{1}), 511);
}

TEST(SimDisk, a_changed_borrowed_buffer_is_a_complaint) {
    Bench b(9);
    const Buffer data = b.filled(1, 1);
    bool done = false;
    b.scheduler.start(b.executor, write_later(b.disk, Lba(0), Bench::all(data, Lba(0), 1), done));
    b.scheduler.step();
    data.memory()[3] = std::byte{9};
    ASSERT_TRUE(b.scheduler.run_until([&] { return done; }));
    EXPECT_EQ(b.disk.complaints().size(), 1U);
}

TEST(SimDisk, a_stalled_disk_answers_after_the_stall_and_a_dead_one_at_once) {
    Bench b(10);
    b.disk.stall(5s);
    const TimePoint before = b.scheduler.now();
    ASSERT_TRUE(b.write(Lba(0), 1, 1));
    EXPECT_GE(b.scheduler.now() - before, 5s);
    b.disk.die();
    const TimePoint dead = b.scheduler.now();
    EXPECT_FALSE(b.write(Lba(0), 1, 1));
    EXPECT_LT(b.scheduler.now() - dead, 1ms);
}

TEST(SimDisk, a_write_of_an_earlier_life_has_no_effect_after_a_revive) {
    Bench b(11);
    const Buffer data = b.filled(1, 1);
    bool done = false;
    b.disk.stall(1s);
    b.scheduler.start(b.executor, write_later(b.disk, Lba(0), Bench::all(data, Lba(0), 1), done));
    b.scheduler.step();
    b.disk.power_cut(CachePolicy::kDropAll);
    b.disk.revive();
    ASSERT_TRUE(b.write(Lba(0), 1, 2));
    ASSERT_TRUE(b.scheduler.run_until([&] { return done; }));
    EXPECT_EQ(b.read(Lba(0), 1), std::vector{2});
}

}  // namespace
}  // namespace gemel::sim
