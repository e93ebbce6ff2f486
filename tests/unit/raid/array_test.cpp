// SPDX-License-Identifier: Apache-2.0
// An array as a whole: opening (and every way to be refused), failing members, bad blocks, volumes, stopping.
#include "raid/array.hpp"

#include <gtest/gtest.h>

#include "raid/superblock.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::contents;
using testing::expect_refused;
using testing::FixtureOptions;

ArrayConfig creating(ArrayFixture& f) {
    ArrayConfig c = f.config();
    c.create = ArrayConfig::Create::kIfBlank;
    return c;
}

TEST(ArrayOpen, wrong_configs_are_refused) {
    ArrayFixture f;
    ArrayConfig c = creating(f);
    c.level = "7";
    expect_refused(f, c, Errc::kInvalidArgument, "unknown level '7'");
    c = creating(f);
    c.strip_bytes = 3000;
    expect_refused(f, c, Errc::kInvalidArgument, "power of two");
    c = creating(f);
    c.members.resize(2);
    expect_refused(f, c, Errc::kInvalidArgument, "needs 3");
    c = creating(f);
    c.members[2] = c.members[0];
    expect_refused(f, c, Errc::kInvalidArgument, "same device");
    c = creating(f);
    c.name = std::string("r\0d", 3);
    expect_refused(f, c, Errc::kInvalidArgument, "array name");
    c = creating(f);
    c.volumes = {{std::string("v\0l", 3), 0}};
    expect_refused(f, c, Errc::kInvalidArgument, "volume name");
    c = creating(f);
    c.volumes = {{"a", 1ULL << 40U}};
    expect_refused(f, c, Errc::kNoSpace, "free");
    expect_refused(f, f.config(), Errc::kNotFound, "create = true");
}

TEST(ArrayOpen, members_too_small_are_refused) {
    ArrayFixture f({.member_bytes = 128 * kKiB});
    expect_refused(f, creating(f), Errc::kNoSpace, "too small");
}

TEST(ArrayOpen, the_smallest_member_counts) {
    ArrayFixture f({.level = "1", .members = 2});
    f.disks[0] = nullptr;
    f.add_disk(8 * kMiB);
    std::swap(f.disks[0], f.disks[2]);
    f.disks.pop_back();
    ASSERT_TRUE(f.create());
    EXPECT_LT(bytes_of(f.array->status().sectors), 2 * kMiB);
}

TEST(ArrayOpen, nothing_is_formatted_unless_every_member_is_blank) {
    ArrayFixture f;
    auto buffer = f.environment.pool().allocate(512);
    for (const std::uint64_t lba : {std::uint64_t{3}, f.options.member_bytes / kSectorBytes - 1}) {
        std::ranges::fill(buffer->memory(), std::byte{1});
        ASSERT_TRUE(f.scheduler.run(*f.caller, f.disks[2]->write(Lba(lba), buffer->slice(512, Lba(lba)), {})));
        expect_refused(f, creating(f), Errc::kRefused, "not blank");
        std::ranges::fill(buffer->memory(), std::byte{0});
        ASSERT_TRUE(f.scheduler.run(*f.caller, f.disks[2]->write(Lba(lba), buffer->slice(512, Lba(lba)), {})));
    }
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.stop());
    expect_refused(f, creating(f), Errc::kRefused, "already belongs to array 'r'");
    ArrayConfig c = creating(f);
    c.members[1].device = nullptr;
    expect_refused(f, c, Errc::kRefused, "already belongs");
}

TEST(ArrayOpen, foreign_swapped_and_doubled_members_are_refused) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.stop());
    ArrayFixture other({.seed = 2});
    ASSERT_TRUE(other.create());
    ASSERT_TRUE(other.stop());
    ArrayConfig c = f.config();
    std::swap(c.members[0], c.members[1]);
    expect_refused(f, c, Errc::kRefused, "is member 1");
    c = f.config();
    c.name = "another";
    expect_refused(f, c, Errc::kRefused, "belongs to array 'r'");
    f.disks[2]->load(*other.disks[2]);
    expect_refused(f, f.config(), Errc::kRefused, "another array of the same name");
    f.disks[2]->load(*f.disks[1]);
    expect_refused(f, f.config(), Errc::kInvalidArgument, "same device");
    c = f.config();
    c.members.pop_back();
    expect_refused(f, c, Errc::kInvalidArgument, "names 3");
}

TEST(ArrayOpen, a_member_that_was_away_unwritten_comes_back_and_one_that_missed_writes_is_stale) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    ArrayConfig c = f.config();
    c.members[2].device = nullptr;
    ASSERT_TRUE(f.open(c));
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "nothing was written without it";
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.open(c));
    const auto data = f.pattern(64);
    ASSERT_TRUE(f.write(0, data));
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_NE(f.array->status().members[2].state, MemberState::kInSync);
    EXPECT_TRUE(f.environment.events().has("member-stale"));
    EXPECT_EQ(f.read(0, 64).data, data);
}

TEST(ArrayOpen, legs_that_both_went_on_alone_are_refused_without_force) {
    ArrayFixture f({.level = "1", .members = 2});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    for (const std::uint32_t alone : {0U, 1U}) {
        ArrayConfig c = f.config();
        c.members[1 - alone].device = nullptr;
        ASSERT_TRUE(f.open(c));
        ASSERT_TRUE(f.write(0, f.pattern(8)));
        ASSERT_TRUE(f.stop());
    }
    expect_refused(f, f.config(), Errc::kRefused, "both have changes");
    ASSERT_TRUE(f.reopen(/*force=*/true));
    EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
}

TEST(ArrayOpen, a_leg_that_was_started_alone_without_writes_does_not_win_over_one_that_was_written) {
    ArrayFixture f({.level = "1", .members = 2});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    ArrayConfig c = f.config();
    c.members[1].device = nullptr;
    ASSERT_TRUE(f.open(c));
    const auto data = f.pattern(8);
    ASSERT_TRUE(f.write(0, data));
    ASSERT_TRUE(f.stop());
    c = f.config();
    c.members[0].device = nullptr;
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(f.open(c));
        ASSERT_TRUE(f.stop());
    }
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kStale);
    EXPECT_EQ(f.read(0, 8).data, data);
}

TEST(ArrayOpen, a_degraded_start_after_an_unclean_stop_needs_force_without_a_journal) {
    ArrayFixture f({.policy = RecoveryPolicy::kResync});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(64)));
    f.crash(/*power=*/true);
    ArrayConfig c = f.config();
    c.members[0].device = nullptr;
    expect_refused(f, c, Errc::kNeedsForce, "--force");
    ArrayConfig two = c;
    two.members[1].device = nullptr;
    expect_refused(f, two, Errc::kDeviceGone, "too many members");
    c.force = true;
    ASSERT_TRUE(f.open(c));
    EXPECT_FALSE(f.array->status().clean_start);
    EXPECT_TRUE(f.environment.events().has("array-forced"));
}

/// Whatever a write that was cut short left on it: the others' parity was taken as right without it.
TEST(ArrayOpen, a_member_that_a_forced_start_did_without_is_stale_also_if_nothing_was_written) {
    for (const char* level : {"5", "6", "1"}) {
        SCOPED_TRACE(level);
        ArrayFixture f({.level = level, .policy = RecoveryPolicy::kResync});
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(f.write(0, f.pattern(64)));
        f.crash(/*power=*/true);
        ArrayConfig c = f.config();
        c.members[0].device = nullptr;
        c.force = true;
        ASSERT_TRUE(f.open(c));
        f.settle();
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(f.array->status().members[0].state, MemberState::kStale);
    }
}

TEST(ArrayOpen, an_idle_array_is_clean_after_a_kill) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(64)));
    f.scheduler.run_for(std::chrono::seconds(6));
    f.crash(/*power=*/true);
    ArrayConfig c = f.config();
    c.members[0].device = nullptr;
    const auto r = f.open(c);
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_TRUE(f.array->status().clean_start);
}

Task<void> open_into(Environment* env, ArrayConfig config, std::unique_ptr<Array>* out, bool* done) {
    auto r = co_await Array::open(*env, std::move(config));
    if (r) {
        *out = *std::move(r);
    }
    *done = true;
}

TEST(ArrayOpen, crashes_while_opening_never_cost_a_member_its_superblock) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        ArrayFixture f({.seed = seed + 1});
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(f.stop());
        for (int round = 0; round < 4; ++round) {
            bool done = false;
            f.scheduler.start(*f.caller, open_into(&f.environment.get(), f.config(), &f.array, &done));
            const std::uint64_t until = f.scheduler.steps() + 20 + f.scheduler.random().below(120);
            f.scheduler.run_until([&] { return done || f.scheduler.steps() >= until; });
            for (auto& disk : f.disks) {
                disk->power_cut();
            }
            ASSERT_TRUE(f.scheduler.run_until([&] { return done; }));
            if (f.array) {
                f.stop_anyhow();
            }
            for (auto& disk : f.disks) {
                disk->revive();
            }
        }
        const auto r = f.reopen();
        ASSERT_TRUE(r) << "seed " << seed << ": " << r.error().message;
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "seed " << seed;
    }
}

TEST(ArrayOpen, a_config_that_differs_is_an_event_and_the_table_holds) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.stop());
    ArrayConfig c = f.config();
    c.strip_bytes = 8192;
    c.level = "0";
    c.volumes = {{"vol", kMiB}, {"more", 0}};
    ASSERT_TRUE(f.open(c));
    EXPECT_EQ(f.environment.events().count("config-differs"), 4U);
    EXPECT_EQ(f.array->status().strip_bytes, f.options.strip_bytes);
    EXPECT_EQ(f.array->volumes().size(), 1U);
}

TEST(ArrayFailure, a_write_error_fails_the_member_and_the_last_one_turns_the_array_read_only) {
    for (const std::string level : {"1", "5", "10"}) {
        ArrayFixture f({.level = level, .members = level == "1" ? 2U : 4U});
        ASSERT_TRUE(f.create());
        f.settle();
        const auto data = f.pattern(256);
        f.disks[0]->fail_next_writes(1);
        ASSERT_TRUE(f.write(0, data));
        ASSERT_TRUE(f.write(512, data));
        EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
        EXPECT_EQ(f.array->status().members[0].state, MemberState::kFailed);
        EXPECT_EQ(f.read(0, 256).data, data);
        f.disks[1]->die();
        EXPECT_FALSE(f.write(0, f.pattern(256)));
        EXPECT_EQ(f.write(0, f.pattern(256)).error().code, Errc::kReadOnly);
        EXPECT_EQ(f.array->status().state, ArrayState::kReadOnly);
        EXPECT_EQ(f.array->status().members[1].state, MemberState::kInSync) << "nothing is marked failed";
        EXPECT_TRUE(f.environment.events().has("array-read-only"));
        EXPECT_FALSE(f.stop());
    }
}

TEST(ArrayFailure, a_failed_flush_fails_the_member) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(64)));
    f.disks[3]->fail_next_flushes(1);
    ASSERT_TRUE(f.flush());
    EXPECT_EQ(f.array->status().members[3].state, MemberState::kFailed);
}

/// A member whose superblock is not written as long as `held`.
class HoldsSuperblock : public BlockDevice {
  public:
    HoldsSuperblock(BlockDevice& below, Clock& clock) : below_(below), clock_(clock) {}
    [[nodiscard]] DeviceLimits limits() const override { return below_.limits(); }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions o) override { return below_.read(lba, to, o); }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions o) override {
        while (held && lba >= superblock_slot(limits().sectors, 0)) {
            co_await sleep_for(clock_, std::chrono::milliseconds(1));
        }
        co_return co_await below_.write(lba, from, o);
    }
    Task<Result<void>> flush() override { return below_.flush(); }
    Task<Result<void>> discard(Lba lba, SectorCount count) override { return below_.discard(lba, count); }
    [[nodiscard]] std::string name() const override { return below_.name(); }
    bool held = false;

  private:
    BlockDevice& below_;
    Clock& clock_;
};

Task<void> store_result(Task<Result<void>> task, std::optional<Result<void>>& out) {
    out.emplace(co_await std::move(task));
}

Task<Result<void>> write_zeros(ArrayFixture& f, std::uint64_t lba, std::string_view volume) {
    auto buffer = f.environment.pool().allocate(kBlockBytes);
    const Slice slice = buffer->slice(kBlockBytes, Lba(lba));
    std::ranges::fill(slice.data(), std::byte{0});
    slice.seal();
    co_return co_await f.volume(volume).write(Lba(lba), slice, {});
}

TEST(ArrayFailure, what_leaves_out_a_failed_member_is_acknowledged_only_when_the_failure_is_durable) {
    for (const char* level : {"1", "5"}) {
        ArrayFixture f({.level = level, .members = level[0] == '1' ? 2U : 3U});
        std::vector<std::unique_ptr<HoldsSuperblock>> members;
        ArrayConfig c = creating(f);
        for (auto& m : c.members) {
            members.push_back(std::make_unique<HoldsSuperblock>(*m.device, f.scheduler));
            m.device = members.back().get();
        }
        ASSERT_TRUE(f.open(c));
        f.settle();
        ASSERT_TRUE(f.write(0, f.pattern(256)));
        for (auto& m : members) {
            m->held = true;
        }
        f.disks[0]->fail_next_writes(1);
        std::optional<Result<void>> first;
        std::optional<Result<void>> second;
        std::optional<Result<void>> flushed;
        f.scheduler.start(*f.caller, store_result(write_zeros(f, 0, "vol"), first));
        ASSERT_TRUE(f.scheduler.run_until([&] { return f.array->status().members[0].state == MemberState::kFailed; }));
        f.scheduler.start(*f.caller, store_result(write_zeros(f, 512, "vol"), second));
        f.scheduler.start(*f.caller, store_result(f.volume().flush(), flushed));
        f.scheduler.run_for(std::chrono::seconds(1));
        EXPECT_FALSE(first || second || flushed) << "a crash now brings the member back, without these writes";
        for (auto& m : members) {
            m->held = false;
        }
        ASSERT_TRUE(f.scheduler.run_until([&] { return first && second && flushed; }));
        EXPECT_TRUE(*first && *second && *flushed);
        ASSERT_TRUE(f.stop());
    }
}

TEST(ArrayFailure, everything_ends_when_all_members_die) {
    for (const char* level : {"0", "linear", "1", "5", "6", "10"}) {
        ArrayFixture f({.level = level, .members = 4, .shards = 4});
        ASSERT_TRUE(f.create());
        for (auto& disk : f.disks) {
            disk->die();
        }
        EXPECT_FALSE(f.write(0, f.pattern(300)));
        EXPECT_FALSE(f.read(0, 300).result);
        EXPECT_FALSE(f.stop());
    }
}

class Heard : public DeviceObserver {
  public:
    void unreadable(Extent e) override { extents.push_back(e); }
    void capacity_changed(SectorCount n) override { capacity = n; }
    void degraded(const std::string&) override { ++degradations; }
    std::vector<Extent> extents;
    SectorCount capacity;
    int degradations = 0;
};

TEST(ArrayMedia, a_bad_block_is_made_up_and_written_anew) {
    for (const char* level : {"1", "5", "6", "10"}) {
        ArrayFixture f({.level = level, .members = 4});
        ASSERT_TRUE(f.create());
        f.settle();
        const auto data = f.pattern(96);
        ASSERT_TRUE(f.write(0, data));
        for (auto& disk : f.disks) {
            disk->damage(Lba(9), SectorCount(2));
            const auto got = f.read(0, 96);
            ASSERT_TRUE(got.result) << got.result.error().message;
            EXPECT_EQ(got.data, data);
            // On the disk that holds parity there, or a leg that was not asked, a write makes it good.
            ASSERT_TRUE(f.write(0, data));
        }
        for (const auto& disk : f.disks) {
            EXPECT_EQ(disk->damaged_sectors(), 0U) << level;
        }
        EXPECT_TRUE(f.environment.events().has("block-repaired"));
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal) << "a read error fails no member";
    }
}

TEST(ArrayMedia, what_cannot_be_made_up_is_unreadable_zeros_and_reported_until_repaired) {
    ArrayFixture f({.members = 4});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(96);
    ASSERT_TRUE(f.write(0, data));
    Heard heard;
    f.volume().observe(&heard);
    f.disks[0]->damage(Lba(8), SectorCount(8));
    f.disks[1]->damage(Lba(8), SectorCount(8));
    const auto got = f.read(0, 96);
    ASSERT_FALSE(got.result);
    EXPECT_EQ(got.result.error().code, Errc::kMediumError);
    int unreadable = 0;
    for (std::size_t b = 0; b < got.status.size(); ++b) {
        const auto part = ConstBytes(got.data).subspan(b * kBlockBytes, kBlockBytes);
        if (got.status[b] == BlockStatus::kUnreadable) {
            ++unreadable;
            EXPECT_TRUE(std::ranges::all_of(part, [](std::byte x) { return x == std::byte{0}; }));
        } else {
            EXPECT_TRUE(std::ranges::equal(part, ConstBytes(data).subspan(b * kBlockBytes, kBlockBytes)));
        }
    }
    EXPECT_EQ(unreadable, 2);
    ASSERT_EQ(heard.extents.size(), 2U);
    for (const Extent& e : heard.extents) {
        auto buffer = f.environment.pool().allocate(bytes_of(e.sectors));
        const Slice slice = buffer->slice(bytes_of(e.sectors), e.lba);
        std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(byte_offset(e.lba)), slice.size(), slice.data().begin());
        slice.seal();
        const auto r = f.scheduler.run(*f.caller, f.volume().repair_write(e.lba, slice));
        ASSERT_TRUE(r) << r.error().message;
    }
    EXPECT_EQ(f.read(0, 96).data, data);
    for (auto& disk : f.disks) {
        disk->damage(Lba(8), SectorCount(8));
        EXPECT_EQ(f.read(0, 96).data, data) << "the repaired stripe has its redundancy back";
        ASSERT_TRUE(f.write(0, data));
    }
    f.volume().observe(nullptr);
}

TEST(ArrayMedia, data_that_no_longer_matches_its_checksum_is_not_written) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    const auto before = contents(f);
    auto buffer = f.environment.pool().allocate(8192);
    const Slice slice = buffer->slice(8192, Lba(0));
    slice.seal();
    slice.data()[5000] ^= std::byte{1};
    EXPECT_EQ(f.scheduler.run(*f.caller, f.volume().write(Lba(0), slice, {})).error().code, Errc::kChecksum);
    EXPECT_EQ(contents(f), before);
}

TEST(ArrayResync, an_unresynced_stripe_gives_no_garbage_when_a_member_dies) {
    ArrayFixture f({.member_bytes = 4 * kMiB, .policy = RecoveryPolicy::kResync});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(96);
    ASSERT_TRUE(f.write(0, data));
    ASSERT_TRUE(f.write(9000, data));
    f.crash(/*power=*/false);
    ASSERT_TRUE(f.reopen());
    const auto fresh = f.pattern(96);
    ASSERT_TRUE(f.write(9000, fresh));
    f.disks[1]->die();
    const auto after_death = f.pattern(96);
    ASSERT_TRUE(f.write(12000, after_death));
    EXPECT_EQ(f.read(9000, 96).data, fresh) << "its stripe was made right by the write";
    EXPECT_EQ(f.read(12000, 96).data, after_death) << "written without the member";
    const auto all = f.read(0, 12600);
    EXPECT_EQ(all.result.error().code, Errc::kMediumError);
    f.scheduler.run_for(std::chrono::seconds(1));
    EXPECT_FALSE(f.array->status().resyncing);
    EXPECT_LT(f.array->status().resync_done, f.array->status().resync_total);
}

TEST(ArrayResync, a_block_that_is_lost_for_good_is_remembered_and_costs_only_itself) {
    for (const std::uint32_t shards : {1U, 4U}) {
        ArrayFixture f({.shards = shards, .member_bytes = 4 * kMiB});
        ASSERT_TRUE(f.create());
        f.settle();
        const auto data = f.pattern(2000);
        ASSERT_TRUE(f.write(0, data));
        ASSERT_TRUE(f.flush());
        f.disks[0]->damage(Lba(40), SectorCount(8));
        f.crash(/*power=*/false);
        ASSERT_TRUE(f.reopen());
        f.settle();
        EXPECT_TRUE(f.environment.events().has("blocks-unreadable"));
        ASSERT_TRUE(f.stop());
        ArrayConfig c = f.config();
        c.members[0].device = nullptr;
        const auto r = f.open(c);
        ASSERT_TRUE(r) << r.error().message;
        const auto got = f.read(0, 2000);
        EXPECT_EQ(got.result.error().code, Errc::kMediumError);
        EXPECT_EQ(std::ranges::count(got.status, BlockStatus::kUnreadable), 1);
        for (std::size_t b = 0; b < got.status.size(); ++b) {
            const auto part = ConstBytes(got.data).subspan(b * kBlockBytes, kBlockBytes);
            EXPECT_TRUE(got.status[b] == BlockStatus::kUnreadable ||
                        std::ranges::equal(part, ConstBytes(data).subspan(b * kBlockBytes, kBlockBytes)));
        }
    }
}

TEST(ArrayResync, goes_on_where_a_clean_stop_left_it) {
    ArrayFixture f({.member_bytes = 16 * kMiB});
    ASSERT_TRUE(f.create());
    f.scheduler.run_until([&] { return f.array->status().resync_done.value > 4096; });
    ASSERT_TRUE(f.array->status().resyncing);
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    const auto status = f.array->status();
    EXPECT_GE(status.resync_done.value, 4096U);
    EXPECT_LT(status.resync_done, status.resync_total);
    f.settle();
    EXPECT_EQ(f.array->status().resync_done, status.resync_total);
    EXPECT_TRUE(f.environment.events().has("resync-ended"));
}

TEST(ArrayResync, one_that_is_not_over_keeps_the_array_from_starting_degraded) {
    for (const std::uint32_t shards : {1U, 4U}) {
        ArrayFixture f({.shards = shards, .member_bytes = 16 * kMiB, .policy = RecoveryPolicy::kResync});
        ASSERT_TRUE(f.create());
        f.scheduler.run_until([&] { return f.array->status().resync_done.value > 8192; });
        ASSERT_TRUE(f.array->status().resyncing);
        ASSERT_TRUE(f.stop());
        ArrayConfig c = f.config();
        c.members[0].device = nullptr;
        expect_refused(f, c, Errc::kNeedsForce, "not fully resynced");
        ASSERT_TRUE(f.reopen());
    }
}

TEST(ArrayVolumes, keep_apart_grow_shrink_and_stay_after_a_restart) {
    ArrayFixture f({.member_bytes = 4 * kMiB, .volumes = {{"a", kMiB}, {"b", kMiB}}});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto on_a = f.pattern(2048);
    const auto on_b = f.pattern(2048);
    ASSERT_TRUE(f.write(0, on_a, {}, "a"));
    ASSERT_TRUE(f.write(0, on_b, {}, "b"));
    Heard heard;
    f.volume("a").observe(&heard);
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("a", sectors_of(2 * kMiB))));
    f.volume("a").observe(nullptr);
    EXPECT_EQ(heard.capacity, sectors_of(2 * kMiB));
    const auto grown = f.pattern(600);
    ASSERT_TRUE(f.write(1800, grown, {}, "a"));
    EXPECT_EQ(f.read(1800, 600, "a").data, grown) << "across two extents";
    EXPECT_EQ(f.read(0, 2048, "b").data, on_b);
    EXPECT_EQ(f.read(0, 8, "b").status.size(), 1U);
    EXPECT_EQ(f.write(4090, f.pattern(8), {}, "a").error().code, Errc::kOutOfRange);
    const Uuid id = f.volume("a").identity();
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.volume("a").identity(), id);
    EXPECT_EQ(f.read(1800, 600, "a").data, grown);
    const SectorCount free = f.array->free_sectors();
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("a", sectors_of(512 * kKiB))));
    EXPECT_EQ(f.array->free_sectors(), free + sectors_of(1536 * kKiB).value);
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->resize("none", SectorCount(8))).error().code, Errc::kNotFound);
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->resize("b", SectorCount(1U << 30U))).error().code, Errc::kNoSpace);
}

TEST(ArrayVolumes, a_shrink_waits_for_a_write_that_fails_a_member) {
    ArrayFixture f({.member_bytes = 4 * kMiB, .volumes = {{"a", 2 * kMiB}}});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(8), {}, "a"));
    for (auto& disk : f.disks) {
        disk->stall(std::chrono::milliseconds(100));
    }
    f.disks[0]->fail_next_writes(1);
    std::optional<Result<void>> written;
    std::optional<Result<void>> shrunk;
    f.scheduler.start(*f.caller, store_result(write_zeros(f, 0, "a"), written));
    f.scheduler.run_for(std::chrono::milliseconds(1));
    f.scheduler.start(*f.caller, store_result(f.array->resize("a", sectors_of(kMiB)), shrunk));
    ASSERT_TRUE(f.scheduler.run_until([&] { return written && shrunk; }, std::chrono::seconds(60)));
    EXPECT_TRUE(*written && *shrunk);
    EXPECT_EQ(f.array->status().members[0].state, MemberState::kFailed);
    EXPECT_EQ(f.volume("a").limits().sectors, sectors_of(kMiB));
}

TEST(ArrayVolumes, a_discard_reads_as_zeros) {
    for (const char* level : {"0", "linear", "1", "5", "6", "10"}) {
        ArrayFixture f({.level = level, .members = 4, .shards = 4, .member_bytes = 4 * kMiB});
        ASSERT_TRUE(f.create());
        const auto data = f.pattern(2500);
        ASSERT_TRUE(f.write(3, data));
        ASSERT_TRUE(f.scheduler.run(*f.caller, f.volume().discard(Lba(13), SectorCount(2001))));
        auto expected = data;
        std::fill_n(expected.begin() + 10 * 512, 2001 * 512, std::byte{0});
        EXPECT_EQ(f.read(3, 2500).data, expected);
    }
}

TEST(ArrayStop, refuses_what_operators_order_meanwhile) {
    ArrayFixture f({.volumes = {{"a", kMiB}}});
    ASSERT_TRUE(f.create());
    std::optional<Result<void>> stopped;
    f.scheduler.start(*f.caller, store_result(f.array->stop(), stopped));
    for (int i = 0; i < 4; ++i) {
        f.scheduler.step();
    }
    ASSERT_FALSE(stopped);
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->resize("a", sectors_of(2 * kMiB))).error().code, Errc::kClosed);
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->fail_member(1, /*force=*/false)).error().code, Errc::kClosed);
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->grow()).error().code, Errc::kClosed);
    ASSERT_TRUE(f.scheduler.run_until([&] { return stopped.has_value(); }));
    EXPECT_TRUE(*stopped);
}

TEST(ArrayStop, refuses_new_io_and_is_clean) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(8)));
    BlockDevice& volume = f.volume();
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->stop()));
    EXPECT_EQ(f.scheduler.run(*f.caller, volume.flush()).error().code, Errc::kClosed);
    f.array.reset();
    for (auto& disk : f.disks) {
        EXPECT_EQ(disk->unflushed_sectors(), 0U);
    }
    ASSERT_TRUE(f.reopen());
    EXPECT_TRUE(f.array->status().clean_start);
}

}  // namespace
}  // namespace gemel::raid
