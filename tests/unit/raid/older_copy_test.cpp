// SPDX-License-Identifier: Apache-2.0
// Older copies of members, put in their places while the array is not open (assembly.hpp, R10): never used, whenever
// they were taken; and what only looks like one is a member as before.
#include <gtest/gtest.h>

#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using namespace std::chrono_literals;
using testing::ArrayFixture;
using testing::contents;
using testing::expect_refused;
using testing::FixtureOptions;
using testing::kSectors;
using testing::newest_superblock;
using testing::Written;

constexpr std::array kLevels{"1", "5", "6", "10"};

/// Without checksums, which would find what is old.
FixtureOptions plain(const char* level, std::uint32_t members = 4) {
    return {.level = level, .members = members, .member_bytes = 4 * kMiB, .checksums = false};
}

void put_back(sim::SimDisk& disk, const std::vector<std::byte>& content) {
    disk.power_cut(sim::CachePolicy::kDropAll);
    disk.load(content);
    disk.revive();
}

struct Copied : Written {
    explicit Copied(const FixtureOptions& options) : Written(options) {}
    [[nodiscard]] std::vector<std::byte> copy() const { return f.disks[place]->snapshot(); }
    void restart() {
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
    }
    /// The copy is on the disk of the place, and the array goes on without it.
    void expect_stale(const std::vector<std::byte>& content) {
        put_back(*f.disks[place], content);
        const auto r = f.reopen();
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(state(), MemberState::kStale);
        EXPECT_TRUE(f.environment.events().has("member-stale"));
        expect_model("beside an older copy");
        EXPECT_EQ(f.disks[place]->snapshot(), content) << "it was changed";
    }
    /// Every block of the copy's time is old by now.
    void write_anew() { rewrite(0, kSectors); }
};

TEST(OlderCopy, of_an_earlier_clean_stop_is_not_used_after_a_clean_stop) {
    for (const char* level : kLevels) {
        SCOPED_TRACE(level);
        Copied d(plain(level));
        ASSERT_TRUE(d.f.stop());
        const auto old = d.copy();
        ASSERT_TRUE(d.f.reopen());
        d.write_anew();
        ASSERT_TRUE(d.f.stop());
        d.expect_stale(old);
    }
}

TEST(OlderCopy, of_an_earlier_clean_stop_is_not_used_after_a_crash) {
    for (const char* level : kLevels) {
        for (const bool power : {false, true}) {
            SCOPED_TRACE(level);
            Copied d(plain(level));
            ASSERT_TRUE(d.f.stop());
            const auto old = d.copy();
            ASSERT_TRUE(d.f.reopen());
            d.write_anew();
            ASSERT_TRUE(d.f.flush());
            d.f.scheduler.run_for(1s);  // what is listed for a missing member is unreadable
            d.f.crash(power);
            put_back(*d.f.disks[d.place], old);
            ArrayConfig c = d.f.config();
            c.force = level == kLevels[0];  // the missing leg may know more
            ASSERT_TRUE(d.f.open(c));
            EXPECT_EQ(d.state(), MemberState::kStale);
            d.expect_nothing_wrong(d.f.read(0, kSectors));
        }
    }
}

TEST(OlderCopy, of_a_running_array_is_not_used_after_a_clean_stop) {
    for (const char* level : kLevels) {
        SCOPED_TRACE(level);
        Copied d(plain(level));
        d.rewrite(0, 64);
        const auto old = d.copy();
        d.write_anew();
        ASSERT_TRUE(d.f.stop());
        d.expect_stale(old);
    }
}

/// Also one that was taken while nothing was written for a while, and the daemon was killed right after the next write.
TEST(OlderCopy, of_an_idle_array_is_not_used_after_a_crash) {
    for (const char* level : {"5", "6", "10"}) {
        SCOPED_TRACE(level);
        Copied d(plain(level));
        d.f.scheduler.run_for(6s);
        ASSERT_TRUE(newest_superblock(*d.f.disks[0]).clean);
        const auto old = d.copy();
        d.write_anew();
        d.f.crash(/*power=*/false);
        put_back(*d.f.disks[d.place], old);
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.state(), MemberState::kStale);
        d.expect_nothing_wrong(d.f.read(0, kSectors));
    }
}

TEST(OlderCopy, of_a_level_without_redundancy_is_refused) {
    for (const char* level : {"0", "linear"}) {
        for (const bool running : {false, true}) {
            SCOPED_TRACE(level);
            Copied d(plain(level));
            if (!running) {
                ASSERT_TRUE(d.f.stop());
            }
            const auto old = d.copy();
            if (!running) {
                ASSERT_TRUE(d.f.reopen());
            }
            d.write_anew();
            ASSERT_TRUE(d.f.stop());
            put_back(*d.f.disks[d.place], old);
            expect_refused(d.f, d.f.config(), Errc::kDeviceGone, "too many members are missing: 1");
            ArrayConfig c = d.f.config();
            c.force = true;
            expect_refused(d.f, c, Errc::kDeviceGone, "too many members are missing: 1");
        }
    }
}

TEST(OlderCopy, of_all_members_takes_the_array_back) {
    for (const char* level : {"0", "1", "5", "6", "10"}) {
        SCOPED_TRACE(level);
        Copied d(plain(level));
        ASSERT_TRUE(d.f.stop());
        const auto old = contents(d.f);
        const auto model = d.model;
        ASSERT_TRUE(d.f.reopen());
        d.write_anew();
        ASSERT_TRUE(d.f.stop());
        for (std::size_t i = 0; i < old.size(); ++i) {
            put_back(*d.f.disks[i], old[i]);
        }
        d.model = model;
        ASSERT_TRUE(d.f.reopen());
        EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
        d.expect_model("of that time");
    }
}

TEST(OlderCopy, of_more_members_than_the_level_spares_is_refused_by_force_too) {
    Copied d(plain("5"));
    ASSERT_TRUE(d.f.stop());
    const auto old = contents(d.f);
    ASSERT_TRUE(d.f.reopen());
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    put_back(*d.f.disks[0], old[0]);
    put_back(*d.f.disks[2], old[2]);
    expect_refused(d.f, d.f.config(), Errc::kDeviceGone, "too many members are missing: 0");
    ArrayConfig c = d.f.config();
    c.force = true;
    expect_refused(d.f, c, Errc::kDeviceGone, "member 2: an older copy of itself");
}

TEST(OlderCopy, is_made_anew_and_gets_no_part_of_what_was_missed) {
    Copied d(plain("5"));
    ASSERT_TRUE(d.f.stop());
    const auto old = d.copy();
    ASSERT_TRUE(d.f.reopen());
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    d.expect_stale(old);
    d.rewrite(0, 64);  // the place is failed, and what it misses from now on is kept
    d.restart();
    d.f.scheduler.run_for(1s);
    EXPECT_EQ(d.state(), MemberState::kStale) << "it has caught up";
    EXPECT_TRUE(d.f.environment.events().has("catch-up-refused"));
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->rebuild(d.place, {})));
    d.finish();
    EXPECT_EQ(d.state(), MemberState::kInSync);
    d.expect_redundant(d.place);
}

TEST(OlderCopy, that_makes_room_for_the_member_again_has_done_no_harm) {
    for (const bool written : {false, true}) {
        Copied d(plain("5"));
        ASSERT_TRUE(d.f.stop());
        const auto old = d.copy();
        ASSERT_TRUE(d.f.reopen());
        d.write_anew();
        ASSERT_TRUE(d.f.stop());
        const auto own = d.copy();
        d.expect_stale(old);
        if (written) {
            d.rewrite(500, 64);
        }
        ASSERT_TRUE(d.f.stop());
        put_back(*d.f.disks[d.place], own);
        ASSERT_TRUE(d.f.reopen());
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 60s)) << written;
        EXPECT_EQ(d.f.environment.events().has("rebuild-started"), written) << "it catches up, if it missed anything";
        d.expect_redundant(d.place);
    }
}

/// A spare is taken when the failure of the place is durable, as for any member that is missing.
TEST(OlderCopy, is_replaced_by_a_spare_when_something_is_written) {
    Copied d(plain("6"));
    ASSERT_TRUE(d.f.stop());
    const auto old = d.copy();
    ASSERT_TRUE(d.f.reopen());
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    put_back(*d.f.disks[d.place], old);
    ArrayConfig c = d.f.config();
    c.spares = {{&d.add_disk(), ""}};
    ASSERT_TRUE(d.f.open(c));
    EXPECT_EQ(d.state(), MemberState::kStale);
    d.rewrite(0, 8);
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 60s));
    d.expect_redundant(d.f.disks.size() - 1);
}

TEST(OlderCopy, that_went_on_elsewhere_is_refused_without_force) {
    Copied d(plain("1", 2));
    ASSERT_TRUE(d.f.stop());
    const auto old = d.copy();
    ASSERT_TRUE(d.f.reopen());
    for (int i = 0; i < 8; ++i) {
        d.rewrite(0, 64);
        d.restart();
    }
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    put_back(*d.f.disks[d.place], old);
    ArrayConfig alone = d.f.config();
    alone.members[0].device = nullptr;
    ASSERT_TRUE(d.f.open(alone));
    ASSERT_TRUE(d.f.write(0, d.f.pattern(64)));
    ASSERT_TRUE(d.f.stop());
    ASSERT_LT(newest_superblock(*d.f.disks[1]).epoch, newest_superblock(*d.f.disks[0]).taken_by_all);
    expect_refused(d.f, d.f.config(), Errc::kRefused, "both have changes");
    ASSERT_TRUE(d.f.reopen(/*force=*/true));
    d.expect_model("of the newest superblock's side");
}

Task<void> begin_rebuild(ArrayFixture* f, std::uint32_t place, BlockDevice* onto) {
    const Result<void> r = co_await f->array->rebuild(place, {onto, ""});
    static_cast<void>(r);
}

/// Its superblock is newer than the array's, which begins a rebuild onto it and loses power in that.
TEST(OlderCopy, that_went_on_elsewhere_counts_no_more_once_it_is_rebuilt) {
    for (std::uint64_t writes = 1; writes < 8; ++writes) {
        SCOPED_TRACE("after " + std::to_string(writes) + " writes");
        Copied d(plain("1", 2));
        sim::SimDisk& former = *d.f.disks[d.place];
        former.die();
        d.write_anew();
        ASSERT_TRUE(d.f.stop());
        former.revive();
        ArrayConfig elsewhere = d.f.config();
        elsewhere.members[0].device = nullptr;
        elsewhere.force = true;
        while (newest_superblock(former).epoch < newest_superblock(*d.f.disks[0]).epoch + 20) {
            ASSERT_TRUE(d.f.open(elsewhere));
            ASSERT_TRUE(d.f.write(0, d.f.pattern(64)));
            ASSERT_TRUE(d.f.stop());
        }
        ArrayConfig alone = d.f.config();
        alone.members[d.place].device = nullptr;
        ASSERT_TRUE(d.f.open(alone));
        const std::uint64_t before = former.counters().writes;
        d.f.scheduler.start(*d.f.caller, begin_rebuild(&d.f, d.place, &former));
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return former.counters().writes == before + writes; }));
        d.f.crash(/*power=*/true);
        const auto r = d.f.reopen();
        if (writes == 1) {  // one slot is empty: it is the other side as before
            ASSERT_FALSE(r);
            EXPECT_EQ(r.error().code, Errc::kRefused);
            continue;
        }
        ASSERT_TRUE(r) << r.error().message;
        d.expect_model("of the array that rebuilds it");
    }
}

/// It calls another member failed, which is in sync now, by the same uuid.
TEST(OlderCopy, of_a_time_in_which_another_member_caught_up_is_not_taken_for_one_that_went_on_elsewhere) {
    Copied d(plain("10"));  // member 1 is on its way back, 2 is copied
    d.f.disks[1]->die();
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    d.f.disks[1]->revive();
    ASSERT_TRUE(d.f.reopen());
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return newest_superblock(*d.f.disks[2]).catches_up(); }, 60s));
    const auto old = d.f.disks[2]->snapshot();
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    d.rewrite(0, 64);
    ASSERT_TRUE(d.f.stop());
    put_back(*d.f.disks[2], old);
    const auto r = d.f.reopen();
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_EQ(d.f.array->status().members[2].state, MemberState::kStale);
    d.expect_model("beside an older copy");
}

TEST(OlderCopy, of_a_device_that_is_rebuilt_is_not_believed_its_cursor) {
    Copied d(plain("5"));
    d.f.disks[d.place]->die();
    d.rewrite(0, 64);
    sim::SimDisk& fresh = d.add_disk();
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->rebuild(d.place, {&fresh, ""})));
    d.until_percent(10);
    const auto old = fresh.snapshot();
    d.until_percent(60);
    ASSERT_TRUE(d.f.stop());
    EXPECT_GT(newest_superblock(*d.f.disks[0]).rebuild.cursor, 0U);
    put_back(fresh, old);
    ArrayConfig c = d.f.config();
    c.members[d.place].device = &fresh;
    ASSERT_TRUE(d.f.open(c));
    EXPECT_EQ(d.state(), MemberState::kStale);
    d.expect_model("beside an older copy of its target");
    EXPECT_EQ(fresh.snapshot(), old);
    d.rewrite(0, 64);
    EXPECT_FALSE(newest_superblock(*d.f.disks[0]).rebuild.active);
}

TEST(OlderCopy, of_the_target_of_a_replace_ends_it) {
    Copied d(plain("5"));
    sim::SimDisk& target = d.add_disk();
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->replace(d.place, {&target, ""})));
    d.until_percent(10);
    const auto old = target.snapshot();
    d.until_percent(60);
    ASSERT_TRUE(d.f.stop());
    EXPECT_TRUE(newest_superblock(target).target);
    ArrayConfig c = d.f.config();
    c.spares = {{&target, ""}};
    ASSERT_TRUE(d.f.open(c));
    EXPECT_EQ(d.f.array->status().members[d.place].replaced_with, target.name()) << "the true one goes on";
    ASSERT_TRUE(d.f.stop());
    put_back(target, old);
    ASSERT_TRUE(d.f.open(c));
    EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
    EXPECT_TRUE(d.f.array->status().members[d.place].replaced_with.empty());
    EXPECT_TRUE(d.f.environment.events().has("replace-failed"));
    d.expect_model("beside an older copy of its target");
}

Task<void> write_once(ArrayFixture* f, Slice from, bool* done) {
    const Result<void> r = co_await f->volume().write(Lba(0), from, {});
    static_cast<void>(r);
    *done = true;
}

/// The change is one of opening for writes; whatever of it is on the members.
TEST(OlderCopy, is_no_member_that_a_crash_kept_from_a_change) {
    std::uint64_t behind = 0;
    for (std::uint64_t seed = 1; seed <= 80; ++seed) {
        FixtureOptions options = plain(kLevels[seed % kLevels.size()]);
        options.seed = seed;
        ArrayFixture f(options);
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
        const auto buffer = f.environment.pool().allocate(kBlockBytes);
        const Slice slice = buffer->slice(kBlockBytes, Lba(0));
        slice.seal();
        bool done = false;
        f.scheduler.start(*f.caller, write_once(&f, slice, &done));
        const std::uint64_t until = f.scheduler.steps() + 1 + f.scheduler.random().below(60);
        f.scheduler.run_until([&] { return f.scheduler.steps() >= until; });
        f.crash(/*power=*/true);
        ASSERT_TRUE(done);
        const std::uint64_t epoch = newest_superblock(*f.disks[0]).epoch;
        for (const auto& disk : f.disks) {
            behind += newest_superblock(*disk).epoch == epoch ? 0 : 1;
        }
        const auto r = f.reopen();
        ASSERT_TRUE(r) << "seed " << seed << ": " << r.error().message;
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "seed " << seed;
    }
    EXPECT_GT(behind, 10U) << "no crash came into a change";
}

Task<void> open_into(Environment* env, ArrayConfig config, std::unique_ptr<Array>* out, bool* done) {
    auto r = co_await Array::open(*env, std::move(config));
    if (r) {
        *out = *std::move(r);
    }
    *done = true;
}

/// Of a device that was extended by a slot's length the last but one superblock seems to be at the new end, where the
/// first one of the next start was torn.
TEST(OlderCopy, is_no_member_that_was_extended_and_crashed_in_its_next_start) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        FixtureOptions options = plain(kLevels[seed % kLevels.size()]);
        options.seed = seed;
        ArrayFixture f(options);
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(f.stop());
        ArrayConfig c = f.config();
        c.former_sizes = {f.disks[0]->limits().sectors};
        for (const auto& disk : f.disks) {
            disk->extend(disk->limits().sectors + kSuperblockSectors);
        }
        bool done = false;
        f.scheduler.start(*f.caller, open_into(&f.environment.get(), c, &f.array, &done));
        const std::uint64_t until = f.scheduler.steps() + 40 + f.scheduler.random().below(80);
        f.scheduler.run_until([&] { return done || f.scheduler.steps() >= until; });
        for (const auto& disk : f.disks) {
            disk->power_cut();
        }
        ASSERT_TRUE(f.scheduler.run_until([&] { return done; }));
        if (f.array) {
            f.stop_anyhow();
        }
        for (const auto& disk : f.disks) {
            disk->revive();
        }
        const auto r = f.open(c);
        ASSERT_TRUE(r) << "seed " << seed << ": " << r.error().message;
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "seed " << seed;
    }
}

/// Of the earlier version: nothing is said of who took what.
TEST(OlderCopy, is_known_of_arrays_of_an_earlier_version_from_their_first_start_on) {
    Copied d(plain("5"));
    ASSERT_TRUE(d.f.stop());
    for (const auto& disk : d.f.disks) {
        auto all = disk->snapshot();
        for (std::uint64_t i = 0; i < 2; ++i) {
            const std::size_t at = byte_offset(superblock_slot(disk->limits().sectors, i));
            const auto to = MutableBytes(all).subspan(at).first<kSuperblockBytes>();
            Superblock sb = *decode_superblock(to);
            sb.taken_by_all = 0;
            encode(sb, to);
        }
        put_back(*disk, all);
    }
    const auto old = d.copy();
    ASSERT_TRUE(d.f.reopen());
    EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
    d.write_anew();
    ASSERT_TRUE(d.f.stop());
    d.expect_stale(old);
}

}  // namespace
}  // namespace gemel::raid
