// SPDX-License-Identifier: Apache-2.0
// Replace: a member that works is exchanged, with writes, restarts, crashes and failures of both devices in the middle.
#include <gtest/gtest.h>

#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using namespace std::chrono_literals;
using testing::ArrayFixture;
using testing::Degraded;
using testing::find_superblock;
using testing::FixtureOptions;
using testing::kSectors;
using testing::kShapes;
using testing::newest_superblock;
using testing::options_of;
using testing::Shape;
using testing::Written;

/// An array in which everything is right, and a disk for the place of member 1.
struct Replaced : Written {
    explicit Replaced(const Shape& shape, std::uint64_t bytes = 16 * kMiB, std::uint64_t seed = 1)
        : Written(seeded(options_of(shape, bytes), seed)), spare(add_disk()), spare_index(f.disks.size() - 1) {}
    static FixtureOptions seeded(FixtureOptions options, std::uint64_t seed) {
        options.seed = seed;
        return options;
    }
    Result<void> replace(BlockDevice* device) {
        return f.scheduler.run(*f.caller, f.array->replace(place, {device, ""}));
    }
    void begin() {
        const auto r = replace(&spare);
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(state(), MemberState::kInSync);
        EXPECT_EQ(f.array->status().members[place].replaced_with, spare.name());
    }
    ArrayConfig config() {
        ArrayConfig c = f.config();
        c.member_timeout = 2s;
        c.spares = {{&spare, ""}};
        return c;
    }
    void restart_with_timeout() {
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.open(config()));
    }
    [[nodiscard]] std::string holder() const { return f.array->status().members[place].name; }
    /// The place is the old member's, as if nothing had been.
    void expect_as_before() {
        EXPECT_TRUE(ended());
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
        EXPECT_EQ(holder(), f.disks[place]->name());
        EXPECT_TRUE(f.array->status().members[place].replaced_with.empty());
        EXPECT_FALSE(newest_superblock(*f.disks[0]).rebuild.active);
        expect_model("as before");
    }
    void expect_exchanged() {
        f.settle();
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
        EXPECT_EQ(holder(), spare.name());
        expect_model("after the exchange");
        expect_redundant(spare_index);
    }

    sim::SimDisk& spare;
    std::size_t spare_index;
};

std::string text_of(const Shape& shape) {
    return std::string(shape.level) + "/" + std::to_string(shape.members);
}

TEST(Replace, a_member_that_works_is_exchanged_while_the_array_stays_whole) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(text_of(shape));
        Replaced d(shape);
        d.begin();
        const std::uint64_t reads = d.spare.counters().reads;
        while (!d.ended()) {
            ASSERT_EQ(d.f.array->status().state, ArrayState::kOptimal);
            ASSERT_EQ(d.f.array->status().rebuild->kind, JobKind::kReplace);
            d.f.scheduler.run_for(1ms);
        }
        EXPECT_EQ(d.spare.counters().reads, reads) << "the target was read before the place was its";
        EXPECT_TRUE(d.f.environment.events().has("replace-ended"));
        EXPECT_FALSE(find_superblock(*d.f.disks[d.place])) << "the old member's superblocks are wiped";
        EXPECT_EQ(newest_superblock(d.spare).epoch, newest_superblock(*d.f.disks[0]).epoch);
        d.expect_exchanged();
    }
}

TEST(Replace, writes_meanwhile_are_on_the_new_member) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(text_of(shape));
        Replaced d(shape, 8 * kMiB);
        d.begin();
        auto& random = d.f.scheduler.random();
        int writes = 0;
        for (; !d.ended() && writes < 400; ++writes) {
            const std::uint64_t sectors = 1 + random.below(random.one_in(4) ? 500 : 30);
            d.rewrite(random.below(kSectors - sectors), sectors);
            if (random.one_in(5)) {
                d.expect_model("in the middle");
            }
        }
        EXPECT_GT(writes, 5);
        d.finish();
        d.expect_exchanged();
    }
}

TEST(Replace, goes_on_after_a_stop_and_after_a_crash) {
    for (const Shape& shape : kShapes) {
        for (const int how : {0, 1, 2}) {
            SCOPED_TRACE(text_of(shape) + " " + std::to_string(how));
            Replaced d(shape, 32 * kMiB);
            d.f.scheduler.run_for(10s);
            d.begin();
            d.until_percent(50);
            if (how == 0) {
                ASSERT_TRUE(d.f.stop());
            } else {
                d.f.crash(/*power=*/how == 2);
            }
            const auto r = d.f.open(d.config());
            ASSERT_TRUE(r) << r.error().message;
            EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
            const auto job = d.f.array->status().rebuild;
            ASSERT_TRUE(job);
            EXPECT_GT(job->done_bytes * 100, job->total_bytes * 25) << "it began again";
            d.finish();
            d.expect_exchanged();
        }
    }
}

Task<void> write_one(ArrayFixture& f, std::uint64_t lba, std::uint64_t sectors, std::byte value, bool& done) {
    const Buffer buffer = *f.environment.pool().allocate(sectors * kSectorBytes);
    const Slice slice = buffer.slice(sectors * kSectorBytes, Lba(lba));
    std::ranges::fill(slice.data(), value);
    slice.seal();
    const Result<void> written = co_await f.volume().write(Lba(lba), slice, {});
    static_cast<void>(written);
    done = true;
}

/// Writes are cut short in columns that were copied: the two devices may differ there.
TEST(Replace, what_a_crash_left_different_is_copied_again) {
    for (const Shape& shape : {Shape{"5", 4, 1}, Shape{"1", 2, 1}, Shape{"6", 5, 4}, Shape{"10", 4, 1}}) {
        for (std::uint64_t seed = 1; seed <= 6; ++seed) {
            SCOPED_TRACE(text_of(shape) + " seed " + std::to_string(seed));
            Replaced d(shape, 16 * kMiB, seed);
            d.begin();
            d.until_percent(60);
            std::array<bool, 12> done{};
            for (std::size_t i = 0; i < done.size(); ++i) {
                d.f.scheduler.start(*d.f.caller, write_one(d.f, i * 200, 40, static_cast<std::byte>(seed), done[i]));
            }
            d.f.scheduler.run_for(std::chrono::microseconds(100 * seed));
            d.f.crash(/*power=*/seed % 2 == 0);
            ASSERT_TRUE(d.f.scheduler.run_until([&] { return std::ranges::count(done, false) == 0; }));
            ASSERT_TRUE(d.f.open(d.config()));
            d.f.settle();
            if (seed % 3 == 0) {  // what the first start found must not be forgotten by the next
                d.f.crash(/*power=*/true);
                ASSERT_TRUE(d.f.open(d.config()));
            }
            d.finish();
            d.f.settle();
            d.model = d.f.read(0, kSectors).data;
            d.expect_exchanged();
        }
    }
}

TEST(Replace, at_every_crash_point_of_its_end_the_place_is_the_ones_or_the_others) {
    std::uint32_t exchanged = 0;
    std::uint32_t kept = 0;
    for (const Shape& shape : {Shape{"5", 3, 1}, Shape{"1", 2, 1}}) {
        Duration length{};
        {
            Replaced d(shape, 4 * kMiB);
            ASSERT_TRUE(d.f.flush());
            const TimePoint began = d.f.scheduler.now();
            d.begin();
            d.finish();
            length = d.f.scheduler.now() - began;
        }
        for (int i = 0; i < 40; ++i) {
            SCOPED_TRACE(text_of(shape) + " point " + std::to_string(i));
            Replaced d(shape, 4 * kMiB);
            ASSERT_TRUE(d.f.flush());
            const TimePoint began = d.f.scheduler.now();
            d.begin();
            d.f.scheduler.run_for(began + length - 6ms + i * std::chrono::microseconds(165) - d.f.scheduler.now());
            d.f.crash(/*power=*/i % 2 == 0);
            ArrayConfig c = d.config();
            if (i % 3 == 0) {
                std::swap(c.members[d.place], c.spares[0]);
            }
            const auto r = d.f.open(c);
            ASSERT_TRUE(r) << r.error().message;
            EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
            (d.holder() == d.spare.name() ? exchanged : kept) += 1;
            d.expect_model("after the crash");
            d.finish();
            d.expect_exchanged();
        }
    }
    EXPECT_GT(exchanged, 5U);
    EXPECT_GT(kept, 5U);
}

TEST(Replace, a_target_that_fails_ends_it_and_the_array_is_as_before) {
    for (const Shape& shape : kShapes) {
        for (const int how : {0, 1, 2, 3}) {
            SCOPED_TRACE(text_of(shape) + " " + std::to_string(how));
            Replaced d(shape);
            d.restart_with_timeout();
            d.begin();
            d.until_percent(20);
            const TimePoint then = d.f.scheduler.now();
            switch (how) {
                case 0:
                    d.spare.die();
                    break;
                case 1:
                    d.spare.fail_next_writes(1);
                    break;
                case 2:
                    d.spare.fail_next_flushes(1);
                    break;
                default:
                    d.spare.hang();
                    break;
            }
            d.rewrite(0, 2000);
            EXPECT_LT(d.f.scheduler.now() - then, 3s) << "a write waits no longer than a member has";
            ASSERT_TRUE(d.f.flush());
            d.finish();
            EXPECT_TRUE(d.f.environment.events().has("replace-failed"));
            EXPECT_FALSE(d.f.environment.events().has("member-failed"));
            d.expect_as_before();
            d.spare.kill_process();
            d.f.scheduler.run_for(1s);
        }
    }
}

/// The target missed a write that was acknowledged: no start may take it again.
TEST(Replace, a_target_that_missed_a_write_is_none_after_a_crash) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(text_of(shape));
        Replaced d(shape, 32 * kMiB);
        d.begin();
        d.until_percent(70);
        d.spare.fail_next_writes(1000);
        d.rewrite(0, 64);
        d.f.crash(/*power=*/false);
        d.spare.fail_next_writes(0);
        ASSERT_TRUE(d.f.open(d.config()));
        d.f.settle();
        d.expect_as_before();
    }
}

TEST(Replace, when_the_old_member_fails_its_place_is_rebuilt_onto_the_target) {
    for (const Shape& shape : kShapes) {
        for (const int how : {0, 1, 2, 3}) {
            SCOPED_TRACE(text_of(shape) + " " + std::to_string(how));
            Replaced d(shape);
            d.restart_with_timeout();
            d.begin();
            d.until_percent(40);
            sim::SimDisk& old = *d.f.disks[d.place];
            switch (how) {
                case 0:
                    old.die();
                    break;
                case 1:
                    old.fail_next_writes(1);
                    break;
                case 2:
                    old.hang();
                    break;
                default:
                    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->fail_member(d.place, /*force=*/false)));
                    break;
            }
            d.rewrite(0, 2000);
            ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() != MemberState::kInSync || d.ended(); }, 1h));
            d.expect_model("in the rebuild");
            ASSERT_TRUE(d.f.scheduler.run_until(
                [&] { return d.ended() && d.f.array->status().state == ArrayState::kOptimal; }, 1h));
            EXPECT_FALSE(d.f.environment.events().has("replace-ended"));
            EXPECT_TRUE(d.f.environment.events().has("rebuild-ended"));
            old.kill_process();
            old.answer();
            d.f.scheduler.run_for(1s);
            d.expect_exchanged();
        }
    }
}

TEST(Replace, an_old_member_that_failed_before_a_crash_is_rebuilt_onto_the_target_by_the_next_start) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(text_of(shape));
        Replaced d(shape);
        d.f.scheduler.run_for(10s);  // the journal lists nothing
        d.begin();
        d.until_percent(40);
        d.f.disks[d.place]->fail_next_writes(1);
        d.rewrite(0, 1000);
        d.f.crash(/*power=*/false);
        ASSERT_TRUE(d.f.open(d.config()));
        EXPECT_EQ(d.state(), MemberState::kRebuilding);
        EXPECT_EQ(d.holder(), d.spare.name());
        d.finish();
        d.f.settle();
        const auto rest = d.f.read(1200, kSectors - 1200);
        ASSERT_TRUE(rest.result) << rest.result.error().message;
        d.rewrite(0, 1200);  // of what was being written when the member failed the journal cannot tell all
        d.expect_exchanged();
    }
}

TEST(Replace, an_old_member_that_is_missing_at_a_start_leaves_the_target_as_its_spare) {
    for (const bool written : {false, true}) {
        Replaced d(Shape{"5", 4, 1});
        d.begin();
        d.until_percent(40);
        ASSERT_TRUE(d.f.stop());
        ArrayConfig c = d.config();
        c.members[d.place].device = nullptr;
        ASSERT_TRUE(d.f.open(c));
        EXPECT_EQ(d.state(), MemberState::kMissing);
        EXPECT_TRUE(d.f.environment.events().has("replace-failed"));
        if (!written) {  // it was only late
            ASSERT_TRUE(d.f.stop());
            ASSERT_TRUE(d.f.open(d.config()));
            d.expect_as_before();
            continue;
        }
        d.rewrite(0, 100);
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.f.array->status().state == ArrayState::kOptimal; }, 1h));
        d.expect_exchanged();
    }
}

/// A resync may make columns right that it does not get: also without a write of a host.
TEST(Replace, a_target_that_was_away_for_one_start_is_not_taken_again) {
    Replaced d(Shape{"5", 4, 1});
    d.begin();
    d.until_percent(40);
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.open(d.f.config()));
    d.expect_as_before();
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.open(d.config()));
    d.expect_as_before();
}

TEST(Replace, one_that_is_cancelled_lets_the_target_go_and_it_can_be_tried_again) {
    for (const Shape& shape : kShapes) {
        Replaced d(shape);
        d.begin();
        d.until_percent(30);
        d.f.array->job(JobKind::kReplace)->pause(true);
        d.f.scheduler.run_for(1s);
        const auto paused = d.f.array->status().rebuild;
        d.f.scheduler.run_for(60s);
        ASSERT_EQ(d.f.array->status().rebuild->done_bytes, paused->done_bytes);
        d.f.array->job(JobKind::kReplace)->cancel();
        d.finish();
        const std::uint64_t writes = d.spare.counters().writes;
        d.rewrite(0, 2000);
        d.expect_as_before();
        EXPECT_EQ(d.spare.counters().writes, writes) << "it is written although it was let go";
        d.begin();
        d.finish();
        d.expect_exchanged();
    }
}

TEST(Replace, what_the_old_member_cannot_read_comes_from_the_others_and_the_rest_is_listed) {
    for (const Shape& shape : {Shape{"1", 2, 1}, Shape{"5", 4, 4}, Shape{"10", 4, 1}, Shape{"6", 5, 1}}) {
        SCOPED_TRACE(text_of(shape));
        Replaced d(shape, 4 * kMiB);
        d.f.disks[1]->damage(Lba(72), SectorCount(8));
        d.f.disks[1]->damage(Lba(200), SectorCount(8));
        d.f.disks[0]->damage(Lba(200), SectorCount(8));
        if (std::string_view(shape.level) == "6") {
            d.f.disks[2]->damage(Lba(200), SectorCount(8));
        }
        d.begin();
        d.finish();
        EXPECT_EQ(d.holder(), d.spare.name());
        EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 1U);
        for (auto& disk : d.f.disks) {
            disk->heal();
        }
        d.f.disks[0]->damage(Lba(200), SectorCount(8));
        const auto got = d.f.read(0, kSectors);
        ASSERT_EQ(got.result.has_value(), std::string_view(shape.level) == "6");
        d.expect_nothing_wrong(got);
        d.rewrite(0, kSectors);
        EXPECT_EQ(d.f.array->status().unreadable_blocks, 0U);
        d.expect_exchanged();
    }
}

TEST(Replace, the_durable_log_is_whole_on_the_new_member) {
    for (const Shape& shape : {Shape{"1", 2, 1}, Shape{"5", 3, 1}}) {
        Replaced d(shape, 4 * kMiB);
        const LogClientId client = kLogClientPair | 1U;
        const auto append = [&] {
            ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->log().append(client, d.f.pattern(1))));
        };
        for (int i = 0; i < 5; ++i) {
            append();
        }
        d.begin();
        for (int i = 0; i < 8; ++i) {
            append();
            d.f.scheduler.run_for(8ms);
        }
        ASSERT_FALSE(d.ended());
        d.finish();
        append();
        ASSERT_TRUE(d.f.stop());
        std::swap(d.f.disks[1], d.f.disks[d.spare_index]);
        std::optional<std::size_t> all;
        for (std::uint32_t gone = 0; gone < shape.members; ++gone) {
            ArrayConfig c = d.f.config();
            c.members[gone].device = nullptr;
            ASSERT_TRUE(d.f.open(c));
            const auto records = d.f.array->log().recovered(client);
            ASSERT_TRUE(records) << records.error().message;
            EXPECT_GT(records->size(), 6U);
            EXPECT_EQ(all.value_or(records->size()), records->size());
            all = records->size();
            ASSERT_TRUE(d.f.stop());
        }
    }
}

TEST(Replace, the_old_member_is_not_taken_back) {
    Replaced d(Shape{"1", 2, 1}, 4 * kMiB);
    const std::vector<std::byte> before = d.f.disks[1]->snapshot();
    d.begin();
    d.finish();
    d.rewrite(0, 100);
    ASSERT_TRUE(d.f.stop());
    ArrayConfig alone = d.f.config();
    alone.members[0].device = nullptr;
    const auto r = d.f.open(alone);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kNotFound) << r.error().message;
    d.f.disks[1]->load(before);  // its superblocks could not be wiped
    ASSERT_TRUE(d.f.open(d.f.config()));
    EXPECT_EQ(d.state(), MemberState::kStale);
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.open(d.config()));
    EXPECT_EQ(d.holder(), d.spare.name());
    d.expect_exchanged();
}

TEST(Replace, the_first_spare_is_taken_when_none_is_named) {
    Replaced d(Shape{"5", 4, 1}, 4 * kMiB);
    d.restart_with_timeout();
    ASSERT_EQ(d.f.array->status().spares.size(), 1U);
    ASSERT_TRUE(d.replace(nullptr));
    EXPECT_TRUE(d.f.array->status().spares.empty());
    d.finish();
    d.expect_exchanged();
}

TEST(Replace, says_why_it_cannot_be_and_changes_nothing) {
    Replaced d(Shape{"5", 4, 1}, 4 * kMiB);
    sim::SimDisk& small = d.f.add_disk(kMiB);
    const auto code = [&](BlockDevice* device, std::uint32_t place) {
        const auto r = d.f.scheduler.run(*d.f.caller, d.f.array->replace(place, {device, ""}));
        return r ? Errc{} : r.error().code;
    };
    EXPECT_EQ(code(nullptr, 1), Errc::kInvalidArgument) << "no spare";
    EXPECT_EQ(code(&d.spare, 9), Errc::kInvalidArgument) << "no such place";
    EXPECT_EQ(code(d.f.disks[1].get(), 1), Errc::kBusy) << "the member itself";
    EXPECT_EQ(code(d.f.disks[2].get(), 1), Errc::kBusy) << "another member";
    EXPECT_EQ(code(&small, 1), Errc::kNoSpace);
    EXPECT_TRUE(d.ended());
    d.begin();
    EXPECT_EQ(code(&d.f.add_disk(4 * kMiB), 2), Errc::kBusy) << "one at a time";
    d.finish();
    d.f.disks[2]->die();
    d.rewrite(0, 2000);
    EXPECT_EQ(code(&d.f.add_disk(4 * kMiB), 2), Errc::kRefused) << "not in sync";
    ArrayFixture plain({.level = "0", .members = 2});
    ASSERT_TRUE(plain.create());
    const auto r = plain.scheduler.run(*plain.caller, plain.array->replace(0, {&plain.add_disk(2 * kMiB), ""}));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kInvalidArgument);
}

}  // namespace
}  // namespace gemel::raid
