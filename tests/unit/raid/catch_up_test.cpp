// SPDX-License-Identifier: Apache-2.0
// Catching up: members that come back get what they missed and nothing else; who is not known is rebuilt whole.
#include <gtest/gtest.h>

#include "raid/missed_record.hpp"
#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::Degraded;
using testing::FixtureOptions;
using testing::kSectors;
using testing::kShapes;
using testing::options_of;
using testing::Shape;
using testing::Writers;
using testing::Written;

constexpr std::uint64_t kLarge = 32 * kMiB;

std::string trace(const Shape& shape) {
    return std::string(shape.level) + "/" + std::to_string(shape.members) + "/" + std::to_string(shape.shards);
}

bool caught_up(ArrayFixture& f) {
    return std::ranges::any_of(f.environment.events().all(), [](const auto& e) {
        return e.id == "rebuild-started" && e.cause.contains("it came back");
    });
}

void optimal(Written& d) {
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.f.array->status().state == ArrayState::kOptimal && d.ended(); },
                                        std::chrono::hours(1)));
}

TEST(CatchUp, a_member_that_comes_back_at_a_start_gets_what_it_missed) {
    for (const Shape& shape : kShapes) {
        for (const bool crash : {false, true}) {
            SCOPED_TRACE(trace(shape) + (crash ? " crash" : ""));
            Degraded d(options_of(shape, kLarge));
            d.f.scheduler.run_for(std::chrono::milliseconds(100));
            const auto missed = d.f.array->status().members[1].missed_bytes;
            ASSERT_TRUE(missed);
            EXPECT_GT(*missed, 0U);
            EXPECT_LT(*missed, kLarge / 4);
            if (crash) {
                ASSERT_TRUE(d.f.flush());
                d.f.scheduler.run_for(std::chrono::seconds(10));
                d.f.crash(/*power=*/true);
            } else {
                ASSERT_TRUE(d.f.stop());
                d.f.disks[1]->revive();
            }
            const std::uint64_t before = d.f.disks[1]->counters().sectors_written;
            ASSERT_TRUE(d.f.reopen());
            optimal(d);
            EXPECT_TRUE(caught_up(d.f));
            const std::uint64_t written = d.f.disks[1]->counters().sectors_written - before;
            EXPECT_GE(written * kSectorBytes, 700 / 3 * kSectorBytes);
            EXPECT_LT(written * kSectorBytes, kLarge / 4);
            EXPECT_FALSE(d.f.array->status().members[1].missed_bytes);
            d.expect_model("after it came back");
            d.expect_redundant(1);
        }
    }
}

TEST(CatchUp, a_member_that_comes_back_to_a_running_array_gets_what_it_missed) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Degraded d(options_of(shape, kLarge));
        d.f.disks[1]->revive();
        ASSERT_TRUE(d.rebuild(nullptr));
        EXPECT_EQ(d.state(), MemberState::kRebuilding);
        EXPECT_LT(d.f.array->status().rebuild->total_bytes, kLarge / 4);
        auto& random = d.f.scheduler.random();
        for (int i = 0; i < 40; ++i) {
            const std::uint64_t sectors = 1 + random.below(90);
            d.rewrite(random.below(kSectors - sectors), sectors);
        }
        optimal(d);
        d.expect_model("after it came back");
        d.expect_redundant(1);
    }
}

/// Every moment of a return, and of an absence, may be the last of the process.
TEST(CatchUp, goes_on_after_a_crash_at_any_time) {
    for (std::uint64_t seed = 1; seed <= 24; ++seed) {
        SCOPED_TRACE(seed);
        FixtureOptions options = options_of(kShapes[seed % kShapes.size()], 8 * kMiB);
        options.seed = seed;
        Degraded d(options);
        auto& random = d.f.scheduler.random();
        ASSERT_TRUE(d.f.flush());
        d.f.scheduler.run_for(std::chrono::seconds(10));  // clean: a parity level starts degraded
        d.f.disks[1]->revive();
        for (int crash = 0; crash < 4; ++crash) {
            if (d.state() != MemberState::kInSync && !d.f.array->status().rebuild) {
                const Result<void> began = d.rebuild(nullptr);
                static_cast<void>(began);  // it may begin by itself
            }
            d.f.scheduler.run_for(Duration(random.below(6'000'000)));
            d.f.crash(/*power=*/random.one_in(2));
            const auto r = d.f.reopen();
            ASSERT_TRUE(r) << r.error().message;
            d.expect_model("after a crash");
        }
        optimal(d);
        d.expect_model("in the end");
        d.expect_redundant(1);
    }
}

TEST(CatchUp, a_member_that_is_lost_in_its_return_comes_back_again) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Degraded d(options_of(shape, kLarge));
        d.f.disks[1]->revive();
        ASSERT_TRUE(d.rebuild(nullptr));
        d.f.scheduler.run_for(std::chrono::milliseconds(2));
        d.f.disks[1]->power_cut(sim::CachePolicy::kDropAll);
        d.rewrite(2000, 300);
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kFailed && d.ended(); }));
        ASSERT_TRUE(d.f.stop());
        d.f.disks[1]->revive();
        d.f.environment.events().clear();
        ASSERT_TRUE(d.f.reopen());
        optimal(d);
        EXPECT_TRUE(caught_up(d.f));
        d.expect_redundant(1);
    }
}

TEST(CatchUp, what_was_not_flushed_when_the_member_was_lost_is_missed_too) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Written d(options_of(shape, kLarge));
        ASSERT_TRUE(d.f.flush());
        d.f.scheduler.run_for(std::chrono::seconds(10));
        d.rewrite(1500, 200);
        d.f.disks[1]->power_cut(sim::CachePolicy::kDropAll);
        d.rewrite(0, 64);
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kFailed; }) ||
                    d.state() == MemberState::kInSync);
        ASSERT_TRUE(d.f.stop());
        d.f.disks[1]->revive();
        ASSERT_TRUE(d.f.reopen());
        optimal(d);
        d.expect_model("after it came back");
        d.expect_redundant(1);
    }
}

TEST(CatchUp, a_member_missing_at_a_start_comes_back) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Written d(options_of(shape, kLarge));
        ASSERT_TRUE(d.f.stop());
        ArrayConfig c = d.f.config();
        c.members[1].device = nullptr;
        ASSERT_TRUE(d.f.open(c));
        d.rewrite(400, 40);
        ASSERT_TRUE(d.f.stop());
        ASSERT_TRUE(d.f.reopen());
        optimal(d);
        EXPECT_TRUE(caught_up(d.f));
        d.expect_redundant(1);
    }
}

TEST(CatchUp, two_members_lost_one_after_the_other_come_back) {
    for (const Shape& shape : {Shape{"6", 5, 4}, Shape{"1", 3, 1}}) {
        SCOPED_TRACE(trace(shape));
        Degraded d(options_of(shape, kLarge));
        d.f.disks[2]->die();
        d.rewrite(1200, 50);
        ASSERT_EQ(d.f.array->status().members[2].state, MemberState::kFailed);
        ASSERT_TRUE(d.f.stop());
        d.f.disks[1]->revive();
        d.f.disks[2]->revive();
        ASSERT_TRUE(d.f.reopen());
        d.rewrite(2200, 50);
        optimal(d);
        EXPECT_EQ(d.f.environment.events().count("rebuild-ended"), 2U);
        d.expect_model("after both came back");
        d.expect_redundant(1);
    }
}

/// Its superblock is of a time when the other one was lost: that makes no two sides.
TEST(CatchUp, a_member_that_was_lost_in_its_return_is_no_other_side_when_another_one_is_back) {
    Degraded d(options_of({"6", 5, 1}, kLarge));
    d.f.disks[2]->die();
    d.rewrite(1200, 50);
    d.f.disks[1]->revive();
    ASSERT_TRUE(d.rebuild(nullptr));
    d.f.disks[1]->die();
    d.rewrite(2000, 50);
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kFailed && d.ended(); }));
    ASSERT_TRUE(d.f.stop());
    d.f.disks[2]->revive();
    ASSERT_TRUE(d.f.reopen());
    ASSERT_TRUE(d.f.scheduler.run_until(
        [&] { return d.ended() && d.f.array->status().members[2].state == MemberState::kInSync; },
        std::chrono::hours(1)));
    d.rewrite(10, 50);
    ASSERT_TRUE(d.f.stop());
    d.f.disks[1]->revive();
    const auto r = d.f.reopen();
    ASSERT_TRUE(r) << r.error().message;
    optimal(d);
    d.expect_model("after both came back");
    d.expect_redundant(1);
}

/// Of the same uuid, but not as the array lost it.
TEST(CatchUp, an_older_copy_is_not_taken_and_not_changed_and_can_be_rebuilt_whole) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Written d(options_of(shape, 8 * kMiB));
        ASSERT_TRUE(d.f.stop());
        const auto copy = d.f.disks[1]->durable_snapshot();
        ASSERT_TRUE(d.f.reopen());
        d.rewrite(0, 900);
        d.f.disks[1]->die();
        d.rewrite(1000, 100);
        ASSERT_TRUE(d.f.stop());
        d.f.disks[1]->power_cut(sim::CachePolicy::kDropAll);
        d.f.disks[1]->revive();
        d.f.disks[1]->load(copy);
        ASSERT_TRUE(d.f.reopen());
        d.f.scheduler.run_for(std::chrono::seconds(2));
        EXPECT_EQ(d.state(), MemberState::kStale);
        EXPECT_TRUE(d.f.environment.events().has("catch-up-refused"));
        EXPECT_TRUE(d.f.disks[1]->snapshot() == copy) << "it was changed";
        ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->rebuild(1, {nullptr, ""})));
        EXPECT_GT(d.f.array->status().rebuild->total_bytes, 4 * kMiB);
        optimal(d);
        d.expect_redundant(1);
    }
}

TEST(CatchUp, a_member_that_was_started_elsewhere_meanwhile_is_not_taken) {
    Degraded d(options_of({"1", 2, 1}, 8 * kMiB));
    for (int i = 0; i < 2; ++i) {  // the array's superblock stays the newest
        ASSERT_TRUE(d.f.stop());
        ASSERT_TRUE(d.f.reopen());
    }
    ASSERT_TRUE(d.f.stop());
    d.f.disks[1]->revive();
    ArrayConfig elsewhere = d.f.config();
    elsewhere.members[0].device = nullptr;
    elsewhere.force = true;
    ASSERT_TRUE(d.f.open(elsewhere));  // only looked at: the two do not contradict each other
    ASSERT_TRUE(d.f.stop());
    d.f.environment.events().clear();
    ASSERT_TRUE(d.f.reopen(/*force=*/true));
    d.f.scheduler.run_for(std::chrono::seconds(2));
    EXPECT_NE(d.state(), MemberState::kInSync);
    EXPECT_FALSE(caught_up(d.f));
}

/// What is written while another device is built in its place is recorded by nobody.
TEST(CatchUp, ends_where_another_device_was_built_in_the_place) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(trace(shape));
        Degraded d(options_of(shape, 8 * kMiB));
        sim::SimDisk& other = d.add_disk();
        ASSERT_TRUE(d.rebuild(&other));
        d.rewrite(1500, 100);
        d.f.array->job(JobKind::kRebuild)->cancel();
        d.finish();
        d.rewrite(2500, 100);
        EXPECT_FALSE(d.f.array->status().members[1].missed_bytes);
        ASSERT_TRUE(d.f.stop());
        d.f.disks[1]->revive();
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.state(), MemberState::kStale);
        ASSERT_TRUE(d.rebuild(nullptr));
        EXPECT_GT(d.f.array->status().rebuild->total_bytes, 4 * kMiB);
        optimal(d);
        d.expect_redundant(1);
    }
}

Task<void> fill_log(DurableLog& log, std::optional<Errc>& out) {
    while (!out) {
        const Result<std::uint64_t> r = co_await log.append(kLogClientPair + 1, std::vector<std::byte>(3000));
        out = r ? std::nullopt : std::optional(r.error().code);
    }
}

/// The policy `redo` lists nothing, so what was not flushed when the member was lost is not known.
TEST(CatchUp, a_member_of_an_array_that_always_logs_is_rebuilt_whole) {
    for (const Shape& shape : kShapes) {
        if (shape.level != std::string_view("5") && shape.level != std::string_view("6")) {
            continue;
        }
        SCOPED_TRACE(trace(shape));
        FixtureOptions options = options_of(shape, kLarge);
        options.policy = RecoveryPolicy::kRedo;
        Degraded d(options);
        ASSERT_TRUE(d.f.array->status().journal.redo);
        EXPECT_FALSE(d.f.array->status().members[1].missed_bytes);
        d.f.disks[1]->revive();
        ASSERT_TRUE(d.rebuild(nullptr));
        EXPECT_FALSE(caught_up(d.f));
        EXPECT_GT(d.f.array->status().rebuild->total_bytes, kLarge / 2);
        optimal(d);
        d.expect_model("after it was rebuilt");
        d.expect_redundant(1);
    }
}

/// Writes that began while a member was away are named by its set only, which its return empties (ME4).
TEST(CatchUp, what_was_under_way_when_a_member_came_back_is_missed_by_the_next_one) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        SCOPED_TRACE(seed);
        FixtureOptions options = options_of({"5", 4, seed % 2 == 0 ? 1U : 4U}, 8 * kMiB);
        options.seed = seed;
        options.checksums = false;
        options.strip_bytes = 4096;  // a write has more stripes than it begins with at once
        Degraded d(options);
        d.f.disks[1]->revive();
        Writers writers(d.f, d.model);
        writers.begin(0, 1536);
        writers.begin(1536, 1464);
        ASSERT_TRUE(d.rebuild(nullptr));
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.f.environment.events().has("rebuild-ended"); },
                                            std::chrono::minutes(5)));
        writers.end();
        ASSERT_TRUE(writers.errors.empty());
        d.f.scheduler.run_for(Duration(d.f.scheduler.random().below(1'500'000)));
        d.f.disks[2]->power_cut(sim::CachePolicy::kDropAll);
        [[maybe_unused]] const Result<void> noticed =
            d.f.scheduler.run(*d.f.caller, d.f.array->fail_member(2, /*force=*/false));
        ASSERT_EQ(d.f.array->status().members[2].state, MemberState::kFailed);
        ASSERT_TRUE(d.f.stop());
        d.f.disks[2]->revive();
        d.f.environment.events().clear();
        ASSERT_TRUE(d.f.reopen());
        optimal(d);
        EXPECT_TRUE(caught_up(d.f));
        d.expect_model("after the second one came back");
        d.expect_redundant(1);
    }
}

TEST(CatchUp, a_full_log_costs_a_rebuild_of_all_and_no_write) {
    FixtureOptions options = options_of({"1", 3, 1}, 8 * kMiB);
    options.policy = RecoveryPolicy::kResync;  // a journal would have made room, or waited
    Written d(options);
    ASSERT_TRUE(d.f.stop());
    ArrayConfig c = d.f.config();
    c.members[1].device = nullptr;
    ASSERT_TRUE(d.f.open(c));
    std::optional<Errc> full;
    d.f.scheduler.start(*d.f.executors[0], fill_log(d.f.array->log(), full));
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return full.has_value(); }, std::chrono::seconds(60)));
    ASSERT_EQ(*full, Errc::kNoSpace);
    d.rewrite(0, 100);
    d.rewrite(2000, 100);
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.reopen());
    d.f.scheduler.run_for(std::chrono::seconds(20));
    if (d.state() == MemberState::kStale) {
        EXPECT_TRUE(d.f.environment.events().has("missed-extents-lost"));
        ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->rebuild(1, {nullptr, ""})));
    }
    optimal(d);
    d.expect_model("whatever became of the record");
    d.expect_redundant(1);
}

TEST(MissedRecord, comes_back_as_it_was_and_damage_is_found) {
    MissedRecord base{MissedKind::kBase, 77, {100'000, 128}, {}, RegionSet(782), {}};
    base.set.add(0);
    base.set.add(781);
    base.members.push_back({3, {}, {5, {}}, {6, {}}});
    const MissedRecord more{MissedKind::kAdd, 77, {100'000, 128}, {}, {}, {1, 4, 780}};
    for (const MissedRecord& record : {base, more}) {
        std::vector<std::byte> bytes = encode(record);
        const Result<MissedRecord> again = decode_missed_record(bytes);
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_TRUE(*again == record);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] ^= std::byte{1};
            EXPECT_FALSE(decode_missed_record(bytes)) << "byte " << i;
            bytes[i] ^= std::byte{1};
        }
        bytes.pop_back();
        EXPECT_FALSE(decode_missed_record(bytes));
    }
    const std::vector<LogRecord> log{{9, encode(base)}, {10, encode(more)}};
    const auto state = recover_missed(log, 77, base.shape);
    ASSERT_TRUE(state && *state);
    EXPECT_EQ((*state)->set.count(), 5U);
    EXPECT_EQ((*state)->base, 9U);
    EXPECT_FALSE(*recover_missed(log, 78, base.shape)) << "of another absence";
    EXPECT_FALSE(recover_missed(log, 77, {200'000, 128}));
    EXPECT_FALSE(*recover_missed({log[1]}, 77, base.shape)) << "without a base";
}

TEST(MissedRecord, a_log_that_is_too_small_for_its_members_has_one_region) {
    const Geometry g{Layout::kDoubleParity, 32, 8, 1'000'000};
    EXPECT_EQ(MissedShape::of(g, 2000).regions(), 1U);
    EXPECT_EQ(MissedShape::of(g, kMissedHeaderBytes + 32 * kMissedMemberBytes).regions(), 1U);
    EXPECT_GT(MissedShape::of(g, 64 * kKiB).regions(), 900U);
}

TEST(MissedRecord, a_member_is_known_by_its_newest_superblock) {
    const Uuid mine{{std::byte{1}}};
    const Uuid then{{std::byte{2}}};
    const Uuid now{{std::byte{3}}};
    const LostMember m{0, mine, {10, then}, {12, now}};
    EXPECT_TRUE(m.is(mine, {10, then}));
    EXPECT_TRUE(m.is(mine, {11, now}));
    EXPECT_TRUE(m.is(mine, {12, now}));
    EXPECT_FALSE(m.is(mine, {11, then}));
    EXPECT_FALSE(m.is(mine, {13, now}));
    EXPECT_FALSE(m.is(mine, {9, then}));
    EXPECT_FALSE(m.is(then, {10, then}));
}

}  // namespace
}  // namespace gemel::raid
