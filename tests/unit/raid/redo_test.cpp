// SPDX-License-Identifier: Apache-2.0
// The redo log: its record, and what a parity array does with it while it lacks a member and after a crash.
#include <gtest/gtest.h>

#include "gemel/crc32c.hpp"
#include "raid/redo_record.hpp"
#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;
using testing::Writers;

// ---- the record

constexpr Geometry kFour{Layout::kParity, 4, 32, 32 * 128};

TEST(RedoRecord, comes_back_as_it_was_and_nothing_else_is_taken_for_one) {
    const std::vector<std::byte> data(3 * kSectorBytes, std::byte{7});
    const RedoRecord record{
        StripeIndex(5), {{1, 11, Lba(162), data}, {3, 13, Lba(160), ConstBytes(data).first(512)}}, 9, {}};
    const std::vector<std::byte> bytes = encode(record);
    EXPECT_EQ(bytes.size(), kRedoHeaderBytes + 2 * kRedoPartBytes + data.size() + 512);
    const auto back = decode_redo_record(bytes, kFour);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->parts.size(), 2U);
    EXPECT_EQ(back->stripe, record.stripe);
    EXPECT_EQ(back->parts[0].member, 1U);
    EXPECT_EQ(back->parts[1].tag, 13U);
    EXPECT_FALSE(std::ranges::equal(ConstBytes(bytes).last(512), ConstBytes(data).first(512))) << "mixed, RR4";
    EXPECT_EQ(back->parts[1].lba, Lba(160));
    EXPECT_TRUE(std::ranges::equal(back->parts[0].bytes, data));
    for (std::size_t i = 0; i < bytes.size(); i += 7) {
        std::vector<std::byte> damaged = bytes;
        damaged[i] ^= std::byte{4};
        EXPECT_FALSE(decode_redo_record(damaged, kFour)) << i;
        EXPECT_FALSE(decode_redo_record(ConstBytes(bytes).first(i), kFour)) << i;
    }
}

TEST(RedoRecord, outside_the_array_is_refused) {
    const std::vector<std::byte> data(kSectorBytes * 32, std::byte{7});
    const auto refused = [&](StripeIndex stripe, RedoPart part) {
        return !decode_redo_record(encode({stripe, {part}, 0, {}}), kFour);
    };
    EXPECT_FALSE(refused(StripeIndex(5), {0, 0, Lba(160), data}));
    EXPECT_TRUE(refused(StripeIndex(5), {0, 0, Lba(161), data})) << "into the next stripe";
    EXPECT_TRUE(refused(StripeIndex(5), {0, 0, Lba(128), data}));
    EXPECT_TRUE(refused(StripeIndex(5), {4, 0, Lba(160), data})) << "no such member";
    EXPECT_TRUE(refused(StripeIndex(5), {0, 0, Lba(160), {}}));
    EXPECT_TRUE(refused(StripeIndex(128), {0, 0, Lba(128ULL * 32), data}));
}

// ---- on an array

/// Members that failed before; a model of what was written.
struct Logged {
    explicit Logged(const FixtureOptions& options, std::vector<std::uint32_t> lost = {0}) : f(options) {
        CHECK(f.create());
        f.settle();
        model = f.pattern(kSectors);
        CHECK(f.write(0, model));
        for (const std::uint32_t m : lost) {
            f.disks[m]->die();
        }
        rewrite(0, 96);
        CHECK(f.scheduler.run_until([&] { return status().named_stripes == 0; }));
    }
    void rewrite(std::uint64_t lba, std::uint64_t sectors) {
        const auto data = f.pattern(sectors);
        const auto r = f.write(lba, data);
        ASSERT_TRUE(r) << r.error().message;
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
    }
    void power_cut() {
        std::vector<sim::SimDisk*> alive;
        for (auto& d : f.disks) {
            if (!d->dead()) {
                alive.push_back(d.get());
            }
            d->power_cut(sim::CachePolicy::kDropAll);
        }
        f.stop_anyhow();
        for (sim::SimDisk* d : alive) {
            d->revive();
        }
    }
    void expect_model(const std::string& when) {
        const auto got = f.read(0, kSectors);
        ASSERT_TRUE(got.result) << when << ": " << got.result.error().message;
        EXPECT_TRUE(got.data == model) << when;
    }
    [[nodiscard]] JournalStatus status() const { return f.array->status().journal; }
    Result<void> rebuild(std::uint32_t place, sim::SimDisk& onto) {
        return f.scheduler.run(*f.caller, f.array->rebuild(place, {&onto, ""}));
    }
    [[nodiscard]] bool rebuilt_to(std::uint64_t percent) {
        return f.scheduler.run_until(
            [&] {
                const auto job = f.array->status().rebuild;
                return !job || job->done_bytes * 100 >= job->total_bytes * percent;
            },
            std::chrono::hours(1));
    }

    static constexpr std::uint64_t kSectors = 2048;
    ArrayFixture f;
    std::vector<std::byte> model;
};

TEST(Redo, a_degraded_array_does_again_what_a_power_cut_took_and_loses_nothing) {
    for (const char* level : {"5", "6"}) {
        for (const std::uint32_t shards : {1U, 4U}) {
            SCOPED_TRACE(std::string(level) + " on " + std::to_string(shards));
            Logged d({.level = level, .members = 5, .shards = shards, .member_bytes = 4 * kMiB});
            EXPECT_TRUE(d.status().redo);
            ASSERT_TRUE(d.f.flush());
            const std::uint64_t records = d.status().redo_records;
            d.rewrite(40, 300);
            d.rewrite(200, 9);
            EXPECT_GT(d.status().redo_records, records);
            EXPECT_EQ(d.status().listed_stripes, 0U) << "logged writes are not listed";
            d.power_cut();
            const auto r = d.f.reopen();
            ASSERT_TRUE(r) << r.error().message;
            EXPECT_GT(d.status().replayed_records, 0U);
            EXPECT_EQ(d.f.environment.events().count("redo-replayed"), 1U);
            d.expect_model("after the power cut");
            ASSERT_TRUE(d.f.stop());
            ASSERT_TRUE(d.f.reopen());
            EXPECT_EQ(d.status().replayed_records, 0U) << "they are void since";
            d.expect_model("after another start");
        }
    }
}

TEST(Redo, a_clean_stop_leaves_nothing_to_do_again) {
    Logged d({.level = "5", .members = 4, .member_bytes = 4 * kMiB});
    d.rewrite(8, 100);
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.reopen());
    EXPECT_EQ(d.status().replayed_records, 0U);
    d.expect_model("after a stop");
}

TEST(Redo, it_ends_with_the_rebuild_and_its_records_undo_nothing_that_comes_later) {
    Logged d({.level = "5", .members = 4, .shards = 4, .member_bytes = 4 * kMiB});
    d.rewrite(0, 600);
    sim::SimDisk& fresh = d.f.add_disk(4 * kMiB);
    ASSERT_TRUE(d.rebuild(0, fresh));
    ASSERT_TRUE(d.rebuilt_to(101));
    EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return !d.status().redo; }));
    d.f.scheduler.run_for(std::chrono::milliseconds(100));
    const std::uint64_t records = d.status().redo_records;
    d.rewrite(0, 600);
    EXPECT_EQ(d.status().redo_records, records);
    EXPECT_GT(d.status().listed_stripes, 0U);
    ASSERT_TRUE(d.f.flush());
    d.power_cut();
    std::swap(d.f.disks[0], d.f.disks.back());
    const auto r = d.f.reopen();
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_EQ(d.status().replayed_records, 0U);
    d.expect_model("after the power cut");
}

/// Stops the array while hosts write; what they had begun ends well.
void stop_under_writes(Logged& d, Writers& writers) {
    std::optional<Result<void>> stopped;
    const auto body = [](Task<Result<void>> task, std::optional<Result<void>>& out) -> Task<void> {
        out.emplace(co_await std::move(task));
    };
    d.f.scheduler.start(*d.f.caller, body(d.f.array->stop(), stopped));
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return stopped.has_value(); }, std::chrono::minutes(1)));
    EXPECT_TRUE(*stopped) << stopped->error().message;
    writers.end();
    EXPECT_TRUE(std::ranges::all_of(writers.errors, [](Errc code) { return code == Errc::kClosed; }));
    d.f.array.reset();
}

TEST(Redo, a_stop_meets_writes_that_are_logged_and_waits_for_them) {
    for (std::uint64_t i = 0; i < 10; ++i) {
        SCOPED_TRACE(i);
        Logged d({.seed = 1 + i, .level = "5", .members = 4, .shards = i % 2 == 0 ? 1U : 4U, .member_bytes = 4 * kMiB});
        Writers writers(d.f, d.model);
        for (std::uint64_t w = 0; w < 4; ++w) {
            writers.begin(w * 500, 500);
        }
        d.f.scheduler.run_for(std::chrono::microseconds(100 * i));
        stop_under_writes(d, writers);
        ASSERT_TRUE(d.f.reopen());
        d.expect_model("after the stop");
    }
}

TEST(Redo, a_stop_while_it_is_being_turned_off_leaves_no_write_behind) {
    for (std::uint64_t i = 0; i < 10; ++i) {
        SCOPED_TRACE(i);
        Logged d({.seed = 1 + i, .level = "5", .members = 4, .member_bytes = 4 * kMiB});
        Writers writers(d.f, d.model);
        for (std::uint64_t w = 0; w < 4; ++w) {
            writers.begin(w * 500, 500);
        }
        sim::SimDisk& fresh = d.f.add_disk(4 * kMiB);
        ASSERT_TRUE(d.rebuild(0, fresh));
        ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.f.environment.events().has("rebuild-ended"); },
                                            std::chrono::minutes(5)));
        d.f.scheduler.run_for(std::chrono::microseconds(300 * i));
        stop_under_writes(d, writers);
        std::swap(d.f.disks[0], d.f.disks.back());
        ASSERT_TRUE(d.f.reopen());
        d.expect_model("after the stop");
    }
}

TEST(Redo, a_record_is_for_the_device_that_had_the_place) {
    Logged d({.level = "5", .members = 4, .member_bytes = 4 * kMiB});
    sim::SimDisk& first = d.f.add_disk(4 * kMiB);
    ASSERT_TRUE(d.rebuild(0, first));
    ASSERT_TRUE(d.rebuilt_to(30));
    d.f.array->job(JobKind::kRebuild)->pause(true);
    d.rewrite(0, 8);  // of the place, which is on the device by now
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->fail_member(0, /*force=*/false)));
    d.rewrite(0, 8);  // in parity only
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return !d.f.array->status().rebuild; }, std::chrono::hours(1)));
    sim::SimDisk& second = d.f.add_disk(4 * kMiB);
    d.f.array->job(JobKind::kRebuild)->pause(false);
    ASSERT_TRUE(d.rebuild(0, second));
    ASSERT_TRUE(d.rebuilt_to(60));
    ASSERT_TRUE(d.f.array->status().rebuild) << "it still runs";
    d.power_cut();
    std::swap(d.f.disks[0], d.f.disks.back());
    const auto r = d.f.reopen();
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_GT(d.status().replayed_records, 0U);
    d.expect_model("on the second device");
    ASSERT_TRUE(d.rebuilt_to(101));
    d.expect_model("after the rebuild");
}

TEST(Redo, what_was_logged_before_a_member_was_replaced_is_on_its_successor) {
    for (const std::uint32_t shards : {1U, 4U}) {
        SCOPED_TRACE(shards);
        Logged d({.level = "5", .members = 4, .shards = shards, .member_bytes = 4 * kMiB}, {});
        ASSERT_TRUE(d.f.stop());
        ArrayConfig c = d.f.config();
        c.policy = RecoveryPolicy::kRedo;
        ASSERT_TRUE(d.f.open(c));
        sim::SimDisk& successor = d.f.add_disk(4 * kMiB);
        ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->replace(1, {&successor, ""})));
        auto& random = d.f.scheduler.random();
        while (d.f.array->status().rebuild) {  // the last of them end right before the place is given over
            const std::uint64_t sectors = 1 + random.below(30);
            d.rewrite(random.below(Logged::kSectors - sectors), sectors);
        }
        d.rewrite(100, 20);
        d.power_cut();
        c = d.f.config();
        c.policy = RecoveryPolicy::kRedo;
        c.members[1].device = &successor;
        ASSERT_TRUE(d.f.open(c));
        d.expect_model("after the crash");
        for (const std::uint32_t gone : {0U, 1U, 2U, 3U}) {
            SCOPED_TRACE(gone);
            ASSERT_TRUE(d.f.stop());
            ArrayConfig without = c;
            without.members[gone].device = nullptr;
            ASSERT_TRUE(d.f.open(without));
            d.expect_model("without a member");
        }
    }
}

TEST(Redo, a_member_that_was_away_at_a_start_gets_them_when_it_is_back) {
    Logged d({.level = "6", .members = 5, .member_bytes = 4 * kMiB}, {0});
    ASSERT_TRUE(d.f.flush());
    d.rewrite(0, 500);
    d.power_cut();
    ArrayConfig without = d.f.config();
    without.members[2].device = nullptr;
    const auto r = d.f.open(without);
    ASSERT_TRUE(r) << r.error().message;
    d.expect_model("without it");
    ASSERT_TRUE(d.f.stop());
    ASSERT_TRUE(d.f.reopen());
    EXPECT_GT(d.status().replayed_records, 0U) << "it has not had them";
    EXPECT_EQ(d.f.array->status().members[2].state, MemberState::kInSync);
    d.expect_model("with it");
}

TEST(Redo, the_policy_logs_always_and_a_write_of_many_blocks_is_there_in_whole) {
    FixtureOptions options{.level = "5", .members = 4, .member_bytes = 16 * kMiB};
    options.policy = RecoveryPolicy::kRedo;
    Logged d(options, {});
    EXPECT_EQ(d.status().policy, RecoveryPolicy::kRedo);
    EXPECT_EQ(d.f.array->status().state, ArrayState::kOptimal);
    ASSERT_TRUE(d.f.flush());
    d.rewrite(10, 80);
    d.power_cut();
    ASSERT_TRUE(d.f.reopen());
    EXPECT_GT(d.status().replayed_records, 0U);
    EXPECT_EQ(d.f.array->status().resync_done, d.f.array->status().resync_total) << "nothing is doubtful";
    d.expect_model("after the power cut");
    d.f.options.policy = RecoveryPolicy::kResync;
    d.rewrite(10, 80);
    d.power_cut();
    ASSERT_TRUE(d.f.reopen());
    EXPECT_GT(d.status().replayed_records, 0U) << "whatever the policy is now";
    EXPECT_FALSE(d.status().redo);
    d.expect_model("under another policy");
}

TEST(Redo, writes_longer_than_the_log_wait_and_do_not_fail) {
    FixtureOptions options{.level = "5", .members = 4, .strip_bytes = 64 * 1024, .shards = 4, .member_bytes = 4 * kMiB};
    Logged d(options);
    for (int i = 0; i < 12; ++i) {
        d.rewrite(static_cast<std::uint64_t>(i) * 16, 1700);
    }
    EXPECT_GT(d.status().redo_bytes, 12 * 1700 * kSectorBytes) << "more than the ring holds, many times";
    d.expect_model("after that");
    d.power_cut();
    ASSERT_TRUE(d.f.reopen());
    d.expect_model("after the power cut");
}

}  // namespace
}  // namespace gemel::raid
