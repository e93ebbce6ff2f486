// SPDX-License-Identifier: Apache-2.0
// What only one level does: the pairs of level 10, the sizes of linear, two lost blocks and force at level 6.
#include <gtest/gtest.h>

#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;

TEST(Level10, striped_mirrors_lose_one_of_every_pair_and_not_both_of_one) {
    ArrayFixture f({.level = "10", .members = 6});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(1000);
    ASSERT_TRUE(f.write(0, data));
    for (const std::size_t gone : {1U, 2U, 5U}) {
        f.disks[gone]->die();
        ASSERT_TRUE(f.write(500, f.pattern(200)));
        ASSERT_TRUE(f.write(500, {data.begin() + 500 * 512, data.begin() + 700 * 512}));
        EXPECT_EQ(f.array->status().members[gone].state, MemberState::kFailed);
    }
    EXPECT_EQ(f.read(0, 1000).data, data);
    EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
    f.disks[3]->die();
    EXPECT_FALSE(f.write(0, data));
    EXPECT_EQ(f.array->status().state, ArrayState::kReadOnly);
    EXPECT_EQ(f.array->status().members[3].state, MemberState::kInSync) << "nothing is marked failed";
}

TEST(Level10, striped_mirrors_take_an_even_number_of_members) {
    ArrayFixture f({.level = "10", .members = 5});
    const auto r = f.create();
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("an even number"), std::string::npos) << r.error().message;
}

TEST(LevelLinear, single_takes_one_member_and_linear_all_of_each) {
    ArrayFixture two({.level = "single", .members = 2});
    EXPECT_EQ(two.create().error().code, Errc::kInvalidArgument);
    ArrayFixture linear({.level = "linear", .members = 3, .more_bytes = 2 * kMiB});
    ASSERT_TRUE(linear.create());
    EXPECT_GT(bytes_of(linear.array->status().sectors), (2 + 4 + 6) * kMiB - 3 * 512 * kKiB);
}

TEST(LevelTable, an_array_wants_what_the_strictest_of_its_members_wants) {
    for (const char* level : {"linear", "0", "1", "5", "6", "10"}) {
        ArrayFixture f({.level = level, .members = 4});
        f.options.alignment_sectors = 8;
        f.add_disk(f.options.member_bytes);
        std::swap(f.disks[2], f.disks[4]);
        ASSERT_TRUE(f.create());
        EXPECT_EQ(f.volume().limits().alignment_sectors, 8U) << level;
        const auto data = f.pattern(200);
        ASSERT_TRUE(f.write(8, data));
        EXPECT_EQ(f.read(8, 200).data, data) << level;
    }
}

TEST(Level6, two_bad_blocks_of_a_stripe_are_made_up_from_p_and_q) {
    // Of five members two hold parity; which ones differs from stripe to stripe.
    for (std::uint32_t a = 0; a < 5; ++a) {
        for (std::uint32_t b = a + 1; b < 5; ++b) {
            ArrayFixture f({.seed = 40 + 5 * a + b, .level = "6", .members = 5});
            ASSERT_TRUE(f.create());
            f.settle();
            const auto data = f.pattern(480);  // five stripes
            ASSERT_TRUE(f.write(0, data));
            for (std::uint64_t stripe = 0; stripe < 5; ++stripe) {
                f.disks[a]->damage(Lba(stripe * 32 + 9), SectorCount(2));
                f.disks[b]->damage(Lba(stripe * 32 + 10), SectorCount(12));
            }
            const auto got = f.read(0, 480);
            ASSERT_TRUE(got.result) << got.result.error().message;
            EXPECT_EQ(got.data, data) << a << " " << b;
            // Parity alone may still be bad; a part of a stripe is written over it.
            const auto more = f.pattern(3);
            ASSERT_TRUE(f.write(11, more));
            EXPECT_EQ(f.read(11, 3).data, more);
            ASSERT_TRUE(f.write(0, data));
            EXPECT_EQ(f.disks[a]->damaged_sectors() + f.disks[b]->damaged_sectors(), 0U);
            EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
            f.disks[a]->die();
            f.disks[b]->die();
            EXPECT_EQ(f.read(0, 480).data, data);
        }
    }
}

TEST(Level6, a_third_bad_block_is_unreadable_and_the_others_stay_right) {
    ArrayFixture f({.level = "6", .members = 5});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(96);
    ASSERT_TRUE(f.write(0, data));
    for (const std::size_t m : {1U, 2U, 3U}) {  // the data members of the first stripe
        f.disks[m]->damage(Lba(8), SectorCount(8));
    }
    const auto got = f.read(0, 96);
    EXPECT_EQ(got.result.error().code, Errc::kMediumError);
    EXPECT_EQ(std::ranges::count(got.status, BlockStatus::kUnreadable), 3);
    const auto one = f.pattern(8);
    ASSERT_TRUE(f.write(8, one)) << "the bad block of member 1, whole";
    EXPECT_EQ(f.read(8, 8).data, one);
    EXPECT_FALSE(f.read(40, 8).result) << "what was lost stays unreadable";
}

Task<void> write_and_forget(ArrayFixture& f, std::uint64_t lba, std::uint64_t sectors) {
    const Buffer buffer = *f.environment.pool().allocate(sectors * kSectorBytes);
    const Slice slice = buffer.slice(sectors * kSectorBytes, Lba(lba));
    f.scheduler.random().fill(slice.data());
    slice.clear_infos();
    const Result<void> ignored = co_await f.volume().write(Lba(lba), slice, {});
}

/// A level 6 array without member 0 whose writes in flight were cut short, started again by force.
void force_without_member_0(ArrayFixture& f) {
    ASSERT_TRUE(f.create());
    f.settle();
    const std::uint64_t sectors = f.volume().limits().sectors.value;
    ASSERT_TRUE(f.write(0, f.pattern(sectors)));
    ASSERT_TRUE(f.flush());
    f.disks[0]->die();
    ASSERT_TRUE(f.write(0, f.pattern(8)));
    for (std::uint64_t lba = 3; lba + 40 < sectors; lba += 70) {
        f.scheduler.start(*f.caller, write_and_forget(f, lba, 1 + f.scheduler.random().below(40)));
    }
    f.scheduler.run_for(std::chrono::microseconds(400));
    f.crash(/*power=*/true);
    f.disks[0]->die();
    EXPECT_EQ(f.reopen().error().code, Errc::kNeedsForce);
    ASSERT_TRUE(f.reopen(/*force=*/true));
    EXPECT_TRUE(f.array->status().resyncing);
}

TEST(Level6, by_force_without_a_member_p_and_q_agree_again_before_another_is_lost) {
    for (std::uint32_t second = 1; second < 5; ++second) {
        for (const bool restart : {false, true}) {
            ArrayFixture f({.seed = 50 + second,
                            .level = "6",
                            .members = 5,
                            .shards = second % 2 == 0 ? 1U : 4U,
                            .policy = RecoveryPolicy::kResync});
            force_without_member_0(f);
            const auto early = f.read(0, 2000);
            ASSERT_TRUE(early.result) << early.result.error().message;
            if (restart) {
                ASSERT_TRUE(f.stop());
                ASSERT_TRUE(f.reopen()) << "force once given holds";
            }
            auto expected = f.pattern(300);
            ASSERT_TRUE(f.write(100, expected));
            f.settle();
            EXPECT_TRUE(f.environment.events().has("resync-ended"));
            const auto before = f.read(0, f.volume().limits().sectors.value);
            ASSERT_TRUE(before.result) << before.result.error().message;
            EXPECT_TRUE(std::ranges::equal(std::span(before.data).first(100 * kSectorBytes),
                                           std::span(early.data).first(100 * kSectorBytes)));
            EXPECT_TRUE(
                std::ranges::equal(std::span(before.data).subspan(100 * kSectorBytes, expected.size()), expected));
            f.disks[second]->die();
            const auto after = f.read(0, f.volume().limits().sectors.value);
            ASSERT_TRUE(after.result) << after.result.error().message;
            EXPECT_EQ(after.data, before.data) << second;
        }
    }
}

TEST(Level6, a_member_lost_during_that_resync_costs_only_what_is_not_resynced) {
    ArrayFixture f({.level = "6", .members = 5, .member_bytes = 8 * kMiB, .policy = RecoveryPolicy::kResync});
    force_without_member_0(f);
    const std::uint64_t sectors = f.volume().limits().sectors.value;
    const auto before = f.read(0, sectors);
    ASSERT_TRUE(before.result) << before.result.error().message;
    ASSERT_TRUE(f.array->status().resyncing);
    f.disks[2]->die();
    const auto after = f.read(0, sectors);
    EXPECT_EQ(after.result.error().code, Errc::kMediumError);
    std::size_t good = 0;
    for (std::size_t b = 0; b < after.status.size(); ++b) {
        const auto at = [b](const auto& all) { return ConstBytes(all).subspan(b * kBlockBytes, kBlockBytes); };
        if (after.status[b] != BlockStatus::kUnreadable) {
            ++good;
            ASSERT_TRUE(std::ranges::equal(at(after.data), at(before.data))) << "block " << b;
        }
    }
    EXPECT_GT(good, after.status.size() / 3);
}

/// Parity that a member missed is not right with what lies on it.
TEST(Level6, a_member_that_was_away_while_parity_was_made_right_is_stale) {
    ArrayFixture f({.level = "6", .members = 5});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(96)));
    for (const std::size_t m :
         {1U, 2U, 3U}) {  // the data members of the first stripe: nothing tells their second block
        f.disks[m]->damage(Lba(8), SectorCount(8));
    }
    ASSERT_TRUE(f.write(8, f.pattern(8)));
    for (auto& disk : f.disks) {
        disk->heal();
    }
    ASSERT_TRUE(f.stop());
    ArrayConfig without_p = f.config();
    without_p.members[4].device = nullptr;
    ASSERT_TRUE(f.open(without_p));
    f.settle();
    EXPECT_EQ(f.array->status().resync_done, f.array->status().resync_total);
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().members[4].state, MemberState::kStale);
    const auto before = f.read(0, 96);
    ASSERT_TRUE(before.result);
    f.disks[2]->die();
    EXPECT_EQ(f.read(0, 96).data, before.data);
}

}  // namespace
}  // namespace gemel::raid
