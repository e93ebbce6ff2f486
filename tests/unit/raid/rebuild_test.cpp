// SPDX-License-Identifier: Apache-2.0
// Rebuild: onto a blank device and onto the member's own, with writes, restarts, crashes and failures in the middle.
#include <gtest/gtest.h>

#include "raid/checksum_page.hpp"
#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::Degraded;
using testing::FixtureOptions;
using testing::kSectors;
using testing::kShapes;
using testing::newest_superblock;
using testing::options_of;
using testing::Shape;

Task<void> write_later(ArrayFixture& f, std::uint64_t lba, std::optional<Result<void>>& out) {
    const Buffer buffer = *f.environment.pool().allocate(40 * kSectorBytes);
    const Slice slice = buffer.slice(40 * kSectorBytes, Lba(lba));
    std::ranges::fill(slice.data(), static_cast<std::byte>(lba));
    slice.seal();
    out.emplace(co_await f.volume().write(Lba(lba), slice, {}));
}

TEST(Rebuild, a_blank_device_takes_the_place_of_a_lost_member) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Degraded d(options_of(shape));
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        EXPECT_EQ(d.state(), MemberState::kRebuilding);
        EXPECT_EQ(d.f.array->status().state, ArrayState::kDegraded);
        d.finish();
        EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
        EXPECT_TRUE(d.f.environment.events().has("rebuild-ended"));
        d.expect_model("after the rebuild");
        d.expect_redundant(shape.members);
    }
}

TEST(Rebuild, a_stale_member_is_rebuilt_onto_itself) {
    for (const Shape& shape : kShapes) {
        FixtureOptions options = options_of(shape);
        options.policy = RecoveryPolicy::kResync;  // what it missed is not known
        Degraded d(options, 0);
        d.f.disks[0]->revive();
        ASSERT_TRUE(d.f.stop());
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.state(), MemberState::kStale);
        const auto r = d.rebuild(nullptr);
        ASSERT_TRUE(r) << r.error().message;
        d.finish();
        d.expect_redundant(0);
    }
}

TEST(Rebuild, writes_meanwhile_are_on_the_new_member) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Degraded d(options_of(shape, 8 * kMiB));
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        auto& random = d.f.scheduler.random();
        int writes = 0;
        while (!d.ended() && writes < 400) {
            const std::uint64_t sectors = 1 + random.below(random.one_in(4) ? 500 : 30);
            d.rewrite(random.below(kSectors - sectors), sectors);
            ++writes;
            if (random.one_in(5)) {
                d.expect_model("in the middle");
            }
        }
        EXPECT_GT(writes, 5);
        d.finish();
        d.expect_model("after the rebuild");
        d.expect_redundant(shape.members);
    }
}

TEST(Rebuild, goes_on_after_a_stop_and_after_a_crash) {
    for (const Shape& shape : kShapes) {
        for (const int how : {0, 1, 2}) {
            SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members) + " " + std::to_string(how));
            Degraded d(options_of(shape, 32 * kMiB));
            d.f.scheduler.run_for(std::chrono::seconds(10));  // clean: a parity level starts degraded
            ASSERT_TRUE(d.rebuild(&d.add_disk()));
            d.until_percent(50);
            if (how == 0) {
                ASSERT_TRUE(d.f.stop());
            } else {
                d.f.crash(/*power=*/how == 2);
            }
            ArrayConfig c = d.f.config();
            c.spares = {{d.f.disks.back().get(), ""}};
            d.f.environment.events().clear();
            const auto r = d.f.open(c);
            ASSERT_TRUE(r) << r.error().message;
            EXPECT_EQ(d.state(), MemberState::kRebuilding);
            const auto job = d.f.array->status().rebuild;
            ASSERT_TRUE(job);
            EXPECT_GT(job->done_bytes * 100, job->total_bytes * 25) << "it began again";
            d.expect_model("in the middle");
            d.finish();
            d.expect_redundant(shape.members);
        }
    }
}

TEST(Rebuild, what_a_crash_left_half_written_below_the_cursor_is_made_right_afterwards) {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
        FixtureOptions options = options_of({"5", 4, 1}, 16 * kMiB);
        options.seed = seed;
        Degraded d(options);
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.until_percent(60);
        std::vector<std::optional<Result<void>>> ends(12);
        for (std::size_t i = 0; i < ends.size(); ++i) {
            d.f.scheduler.start(*d.f.caller, write_later(d.f, i * 96 + 8, ends[i]));
        }
        d.f.scheduler.run_for(std::chrono::microseconds(400));
        d.f.crash(/*power=*/false);
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return std::ranges::all_of(ends, [](auto& e) { return !!e; }); }));
        ArrayConfig c = d.f.config();
        c.members[1].device = d.f.disks.back().get();
        c.force = true;
        ASSERT_TRUE(d.f.open(c));
        d.finish();
        d.f.settle();
        d.model = d.f.read(0, kSectors).data;
        d.expect_redundant(4);
    }
}

TEST(Rebuild, a_forced_start_begins_it_anew_so_that_its_device_can_still_be_lost) {
    for (const Shape& shape : {Shape{"5", 4, 1}, Shape{"6", 5, 4}}) {
        SCOPED_TRACE(shape.level);
        FixtureOptions options = options_of(shape, 16 * kMiB);
        options.policy = RecoveryPolicy::kResync;
        Degraded d(options);
        sim::SimDisk& device = d.add_disk();
        ASSERT_TRUE(d.rebuild(&device));
        d.until_percent(60);
        d.rewrite(0, 40);  // unclean
        d.f.crash(/*power=*/false);
        ArrayConfig c = d.f.config();
        c.members[d.place].device = &device;
        c.force = true;
        ASSERT_TRUE(d.f.open(c));
        const auto job = d.f.array->status().rebuild;
        ASSERT_TRUE(job);
        EXPECT_LT(job->done_bytes * 100, job->total_bytes * 25);
        device.die();
        d.rewrite(8, 4);
        d.finish();
        d.expect_model("without the device");
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.finish();
        d.f.settle();
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 0U);
        d.expect_redundant(shape.members + 1);
    }
}

/// Two members are lost, and one of them rebuilt, before the other one comes back.
TEST(Rebuild, a_member_that_comes_back_after_another_was_rebuilt_is_stale_and_not_taken_for_a_side_of_its_own) {
    for (const bool written : {false, true}) {
        SCOPED_TRACE(written);
        Degraded d(options_of(Shape{"6", 5, 1}), 3);
        const auto restart_without_1 = [&] {
            ASSERT_TRUE(d.f.stop());
            ArrayConfig c = d.f.config();
            c.members[1].device = nullptr;
            const auto r = d.f.open(c);
            ASSERT_TRUE(r) << r.error().message;
        };
        restart_without_1();
        if (written) {
            d.rewrite(0, 8);
        }
        restart_without_1();
        d.rewrite(8, 8);
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.finish();
        ASSERT_TRUE(d.f.stop());
        std::swap(d.f.disks[3], d.f.disks[5]);
        const auto r = d.f.reopen();
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(d.f.array->status().members[1].state, MemberState::kStale);
        d.expect_model("with it back");
    }
}

TEST(Rebuild, one_that_was_cancelled_leaves_what_is_known_of_the_member_that_had_the_place) {
    Degraded d(options_of(Shape{"1", 3, 1}), 1);
    const MemberRecord before = newest_superblock(*d.f.disks[0]).members[1];
    ASSERT_TRUE(before.failed);
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.reopen());
    ASSERT_TRUE(d.rebuild(&d.add_disk()));
    d.f.array->job(JobKind::kRebuild)->cancel();
    d.finish();
    EXPECT_EQ(d.state(), MemberState::kFailed);
    EXPECT_EQ(newest_superblock(*d.f.disks[0]).members[1], before);
}

TEST(Rebuild, a_device_that_missed_writes_is_stale_and_one_that_was_only_away_goes_on) {
    for (const bool written : {false, true}) {
        Degraded d(options_of(Shape{"5", 5, 4}, 16 * kMiB));
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.until_percent(30);
        ASSERT_TRUE(d.f.stop());
        ASSERT_TRUE(d.f.open(d.f.config()));
        EXPECT_NE(d.state(), MemberState::kRebuilding);
        if (written) {
            d.rewrite(0, 64);
        }
        ASSERT_TRUE(d.f.stop());
        ArrayConfig c = d.f.config();
        c.members[d.place].device = d.f.disks.back().get();
        ASSERT_TRUE(d.f.open(c));
        EXPECT_EQ(d.state(), written ? MemberState::kStale : MemberState::kRebuilding);
        d.finish();
        d.expect_model("after it");
    }
}

TEST(Rebuild, a_target_that_fails_leaves_the_array_degraded_and_another_can_be_tried) {
    for (const Shape& shape : kShapes) {
        Degraded d(options_of(shape, 32 * kMiB));
        sim::SimDisk& bad = d.add_disk();
        ASSERT_TRUE(d.rebuild(&bad));
        d.until_percent(20);
        bad.die();
        d.rewrite(0, 2000);
        d.finish();
        EXPECT_EQ(d.state(), MemberState::kFailed);
        EXPECT_TRUE(d.f.environment.events().has("rebuild-failed"));
        d.expect_model("after the failure");
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.finish();
        d.expect_redundant(shape.members + 1);
    }
}

TEST(Rebuild, a_second_failure_counts_the_rebuilding_member_as_lost) {
    struct Case {
        Shape shape;
        std::uint32_t second;
        bool survives;
    };
    for (const Case& c : {Case{{"5", 4, 1}, 2, false}, Case{{"1", 2, 1}, 0, false}, Case{{"1", 3, 1}, 0, true},
                          Case{{"6", 5, 1}, 3, true}, Case{{"10", 4, 1}, 0, false}, Case{{"10", 4, 1}, 2, true}}) {
        Degraded d(options_of(c.shape, 16 * kMiB));
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.until_percent(20);
        d.f.array->job(JobKind::kRebuild)->pause(true);  // so that no superblock meets the failure
        d.f.scheduler.run_for(std::chrono::milliseconds(100));
        d.f.disks[c.second]->fail_next_writes(1);
        const Result<void> r = d.f.write(0, d.f.pattern(kSectors));
        d.f.array->job(JobKind::kRebuild)->pause(false);
        EXPECT_EQ(r.has_value(), c.survives) << c.shape.level << " " << c.shape.members << " " << c.second;
        d.finish();
        const ArrayStatus status = d.f.array->status();
        EXPECT_EQ(status.state, c.survives ? ArrayState::kDegraded : ArrayState::kReadOnly);
        EXPECT_EQ(status.members[c.second].state, c.survives ? MemberState::kFailed : MemberState::kInSync);
        EXPECT_EQ(d.state(), c.survives ? MemberState::kInSync : MemberState::kRebuilding);
    }
}

TEST(Rebuild, a_block_that_cannot_be_made_up_is_unreadable_for_ever_until_it_is_written) {
    for (const Shape& shape : {Shape{"1", 2, 1}, Shape{"5", 4, 4}, Shape{"10", 4, 1}}) {
        SCOPED_TRACE(shape.level);
        Degraded d(options_of(shape), 1);
        d.f.disks[0]->damage(Lba(72), SectorCount(8));
        sim::SimDisk& fresh = d.add_disk();
        ASSERT_TRUE(d.rebuild(&fresh));
        d.finish();
        EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 1U);
        d.f.disks[0]->heal();
        d.f.disks[0]->damage(Lba(72), SectorCount(8));
        ASSERT_TRUE(d.f.stop());
        std::swap(d.f.disks[1], d.f.disks.back());
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 1U) << "the list is durable";
        const auto got = d.f.read(0, kSectors);
        ASSERT_FALSE(got.result);
        EXPECT_EQ(got.result.error().code, Errc::kMediumError);
        d.expect_nothing_wrong(got);
        d.rewrite(0, kSectors);
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 0U);
        if (shape.level == std::string_view("1")) {
            const std::vector<std::byte> media = d.f.disks[1]->durable_snapshot();
            EXPECT_TRUE(std::ranges::equal(ConstBytes(media).subspan(72 * kSectorBytes, kBlockBytes),
                                           ConstBytes(d.model).subspan(72 * kSectorBytes, kBlockBytes)))
                << "it is durable before it is off the list (MD2)";
        }
        d.f.crash(/*power=*/true);
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 0U) << "a write takes it off the list, durably";
    }
}

TEST(Rebuild, the_durable_log_is_whole_on_the_new_member) {
    for (const Shape& shape : {Shape{"1", 2, 1}, Shape{"5", 3, 1}}) {
        Degraded d(options_of(shape), 1);
        const LogClientId client = kLogClientPair | 1U;
        for (int i = 0; i < 5; ++i) {
            ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->log().append(client, d.f.pattern(1))));
        }
        ASSERT_TRUE(d.rebuild(&d.add_disk()));
        d.finish();
        ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->log().append(client, d.f.pattern(1))));
        ASSERT_TRUE(d.f.stop());
        std::swap(d.f.disks[1], d.f.disks.back());
        for (const std::uint32_t gone : {0U, 1U}) {
            ArrayConfig c = d.f.config();
            c.members[gone].device = nullptr;
            ASSERT_TRUE(d.f.open(c));
            const auto records = d.f.array->log().recovered(client);
            ASSERT_TRUE(records) << records.error().message;
            EXPECT_EQ(records->size(), 6U);
            ASSERT_TRUE(d.f.stop());
        }
    }
}

TEST(Rebuild, pauses_keeps_to_its_limit_and_can_be_cancelled) {
    Degraded d(options_of(Shape{"5", 5, 4}, 16 * kMiB));
    d.f.array->job(JobKind::kRebuild)->set_limit(kMiB);
    const TimePoint began = d.f.scheduler.now();
    ASSERT_TRUE(d.rebuild(&d.add_disk()));
    d.until_percent(25);
    const Duration took = d.f.scheduler.now() - began;
    EXPECT_GE(took, std::chrono::milliseconds(2500)) << "4 MiB at 1 MiB/s";
    EXPECT_LT(took, std::chrono::seconds(8));
    const auto running = d.f.array->status().rebuild;
    ASSERT_TRUE(running && running->seconds_left);
    EXPECT_NEAR(static_cast<double>(running->rate), 1.0 * kMiB, 0.4 * kMiB);
    d.f.array->job(JobKind::kRebuild)->pause(true);
    d.f.scheduler.run_for(std::chrono::seconds(5));
    const auto paused = d.f.array->status().rebuild;
    d.f.scheduler.run_for(std::chrono::seconds(60));
    EXPECT_EQ(d.f.array->status().rebuild->done_bytes, paused->done_bytes);
    d.rewrite(0, 3000);
    d.f.array->job(JobKind::kRebuild)->pause(false);
    d.until_percent(60);
    d.f.array->job(JobKind::kRebuild)->cancel();
    d.finish();
    EXPECT_EQ(d.state(), MemberState::kFailed);
    d.expect_model("after it was cancelled");
}

TEST(Spares, a_member_that_fails_is_replaced_at_once_also_a_second_one_and_also_after_a_restart) {
    ArrayFixture f({.level = "5", .members = 4, .shards = 4, .member_bytes = 4 * kMiB});
    ArrayConfig c = f.config();
    c.create = ArrayConfig::Create::kIfBlank;
    sim::SimDisk& dirty = f.add_disk(4 * kMiB);
    auto buffer = f.environment.pool().allocate(512);
    std::ranges::fill(buffer->memory(), std::byte{7});
    ASSERT_TRUE(f.scheduler.run(*f.caller, dirty.write(Lba(0), buffer->slice(512, Lba(0)), {})));
    const auto before = dirty.snapshot();
    for (auto* disk : {&dirty, &f.add_disk(4 * kMiB), &f.add_disk(4 * kMiB)}) {
        c.spares.push_back({disk, ""});
    }
    ASSERT_TRUE(f.open(c));
    f.settle();
    const auto data = f.pattern(kSectors);
    for (const std::uint32_t lost : {1U, 2U}) {
        ASSERT_TRUE(f.write(0, data));
        f.disks[lost]->die();
        constexpr std::size_t kStripe =
            3 * 16 * kKiB;  // longer ones are logged from the failure on, and it comes first
        ASSERT_TRUE(f.write(0, std::vector(data.begin(), data.begin() + kStripe)));
        EXPECT_NE(f.array->status().members[lost].state, MemberState::kInSync);
        ASSERT_TRUE(f.write(0, data));
        ASSERT_TRUE(f.scheduler.run_until([&] { return f.array->status().state == ArrayState::kOptimal; },
                                          std::chrono::seconds(100)));
        EXPECT_EQ(f.read(0, kSectors).data, data);
    }
    EXPECT_EQ(f.environment.events().count("spare-used"), 2U);
    EXPECT_EQ(f.environment.events().count("spare-refused"), 1U);
    EXPECT_TRUE(f.array->status().spares.empty());
    EXPECT_EQ(dirty.snapshot(), before) << "a device that holds something was changed";
    ASSERT_TRUE(f.stop());
    c.create = ArrayConfig::Create::kNo;
    ASSERT_TRUE(f.open(c));
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "found among the spares";
    EXPECT_EQ(f.read(0, kSectors).data, data);
}

TEST(Spares, a_member_that_fails_while_the_array_starts_gets_one_rebuild) {
    ArrayFixture f({.level = "1", .members = 3});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(64)));
    ASSERT_TRUE(f.stop());
    const std::uint64_t generation = newest_superblock(*f.disks[0]).log_generation;
    ArrayConfig c = f.config();
    c.spares = {{&f.add_disk(f.options.member_bytes), ""}};
    f.disks[2]->fail_next_writes(1);
    f.disks[0]->set_slowness(200);  // the spare is there before the start has ended
    f.disks[1]->set_slowness(200);
    ASSERT_TRUE(f.open(c));
    f.disks[0]->set_slowness(1);
    f.disks[1]->set_slowness(1);
    ASSERT_TRUE(f.scheduler.run_until([&] { return f.array->status().state == ArrayState::kOptimal; },
                                      std::chrono::seconds(100)));
    EXPECT_EQ(f.environment.events().count("spare-used"), 1U);
    EXPECT_EQ(f.environment.events().count("rebuild-started"), 1U);
    const Superblock now = newest_superblock(*f.disks[0]);
    EXPECT_EQ(now.log_generation, generation + 1) << "the rebuild undid the start";
    EXPECT_NE(now.members[2].uuid, Uuid{}) << "the start undid the rebuild";
}

TEST(Spares, a_member_that_is_only_missing_at_a_start_is_not_replaced_until_something_is_written) {
    ArrayFixture f({.level = "1", .members = 2});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    ArrayConfig c = f.config();
    c.members[1].device = nullptr;
    c.spares = {{&f.add_disk(f.options.member_bytes), ""}};
    ASSERT_TRUE(f.open(c));
    f.scheduler.run_for(std::chrono::seconds(5));
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kMissing);
    EXPECT_EQ(f.array->status().spares.size(), 1U);
    ASSERT_TRUE(f.array->status().state == ArrayState::kDegraded);
}

TEST(Rebuild, an_operator_fails_a_member_that_can_be_spared_and_no_other) {
    ArrayFixture f({.level = "5", .members = 3});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto fails = [&](std::uint32_t m) {
        return f.scheduler.run(*f.caller, f.array->fail_member(m, /*force=*/false));
    };
    EXPECT_EQ(fails(3).error().code, Errc::kInvalidArgument);
    ASSERT_TRUE(fails(1));
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kFailed);
    EXPECT_EQ(fails(1).error().code, Errc::kRefused);
    EXPECT_EQ(fails(0).error().code, Errc::kRefused);
    EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
}

TEST(Rebuild, an_operator_needs_force_to_fail_a_member_while_parity_is_not_right) {
    ArrayFixture f({.level = "5", .members = 3});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(64);
    ASSERT_TRUE(f.write(0, data));
    f.crash(/*power=*/false);
    ASSERT_TRUE(f.reopen());
    const auto fails = [&](bool force) { return f.scheduler.run(*f.caller, f.array->fail_member(1, force)); };
    ASSERT_TRUE(f.array->status().resyncing);
    EXPECT_EQ(fails(false).error().code, Errc::kNeedsForce);
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kInSync);
    f.settle();
    EXPECT_TRUE(fails(false));
    const auto back = f.read(0, 64);
    EXPECT_TRUE(back.result && back.data == data);
}

TEST(Rebuild, what_cannot_be_is_refused_and_nothing_changes) {
    Degraded d(options_of({"5", 4, 1}));
    const auto expect = [&](std::uint32_t place, BlockDevice* device, Errc code, const std::string& text) {
        std::vector<std::vector<std::byte>> before;
        for (const auto& disk : d.f.disks) {
            before.push_back(disk->snapshot());
        }
        const auto r = d.f.scheduler.run(*d.f.caller, d.f.array->rebuild(place, {device, ""}));
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code, code) << r.error().message;
        EXPECT_NE(r.error().message.find(text), std::string::npos) << r.error().message;
        for (std::size_t i = 0; i < before.size(); ++i) {
            EXPECT_EQ(d.f.disks[i]->snapshot(), before[i]);
        }
    };
    sim::SimDisk& small = d.f.add_disk(kMiB);
    sim::SimDisk& used = d.add_disk();
    auto buffer = d.f.environment.pool().allocate(512);
    std::ranges::fill(buffer->memory(), std::byte{7});
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, used.write(Lba(0), buffer->slice(512, Lba(0)), {})));
    expect(4, &d.add_disk(), Errc::kInvalidArgument, "members 0 to 3");
    expect(0, &d.add_disk(), Errc::kRefused, "in sync");
    expect(1, &small, Errc::kNoSpace, "needs");
    expect(1, &used, Errc::kRefused, "not blank");
    expect(1, d.f.disks[2].get(), Errc::kBusy, "is member 2");
    expect(1, nullptr, Errc::kDeviceGone, "");
    ASSERT_TRUE(d.rebuild(&d.add_disk()));
    expect(1, &d.add_disk(), Errc::kBusy, "rebuilding");
    ArrayFixture plain({.level = "0", .members = 2});
    ASSERT_TRUE(plain.create());
    EXPECT_EQ(plain.scheduler.run(*plain.caller, plain.array->rebuild(0, {})).error().code, Errc::kInvalidArgument);
}

/// The pages of the checksum map are a part of the job: they can be paused, and the job cancelled meanwhile.
TEST(Rebuild, CopiesTheMapAsAPartOfTheJob) {
    for (const Shape& shape : kShapes) {
        Degraded d(options_of(shape));
        d.f.scheduler.run_for(std::chrono::seconds(8));  // nothing is listed
        sim::SimDisk& fresh = d.add_disk();
        ASSERT_TRUE(d.rebuild(&fresh));
        const Superblock sb = newest_superblock(*d.f.disks[0]);
        const std::uint64_t data = bytes_of(sb.members[1].sectors);
        const std::uint64_t map = ChecksumLayout::of(geometry_of(sb)).pages_on(1) * kChecksumPageBytes;
        ASSERT_GT(map, 0U);
        const auto copied = [&] {
            const auto job = d.f.array->status().rebuild;
            return job && job->done_bytes >= data;
        };
        ASSERT_TRUE(d.f.scheduler.run_until(copied, std::chrono::hours(1)));
        EXPECT_EQ(d.f.array->status().rebuild->total_bytes, data + map) << shape.level;
        d.f.array->job(JobKind::kRebuild)->pause(true);
        d.f.scheduler.run_for(std::chrono::minutes(1));
        ASSERT_FALSE(d.ended()) << shape.level;
        EXPECT_EQ(d.state(), MemberState::kRebuilding);
        d.f.array->job(JobKind::kRebuild)->cancel();
        d.finish();
        EXPECT_EQ(d.state(), MemberState::kFailed);
        EXPECT_TRUE(d.f.environment.events().has("rebuild-failed"));
        ASSERT_TRUE(d.rebuild(&fresh));
        d.finish();
        EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
        d.expect_redundant(d.f.disks.size() - 1);
    }
}

}  // namespace
}  // namespace gemel::raid
