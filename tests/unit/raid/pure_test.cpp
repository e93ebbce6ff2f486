// SPDX-License-Identifier: Apache-2.0
// The pure parts: interval sets, parity, the choice of a write plan, the volume table, the level table.
#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "raid/assembly.hpp"
#include "raid/interval_set.hpp"
#include "raid/level_table.hpp"
#include "raid/parity.hpp"
#include "raid/volume_table.hpp"
#include "raid/write_plan.hpp"
#include "tests/support/heap_pool.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::raid {
namespace {

TEST(IntervalSet, behaves_like_a_set_of_numbers) {
    sim::SeededRandom random(3);
    for (int round = 0; round < 50; ++round) {
        IntervalSet set;
        std::set<std::uint64_t> model;
        for (int i = 0; i < 60; ++i) {
            const std::uint64_t first = random.below(64);
            const std::uint64_t end = first + random.below(12);
            const bool add = random.one_in(2);
            add ? set.add(first, end) : set.remove(first, end);
            for (std::uint64_t n = first; n < end; ++n) {
                add ? static_cast<void>(model.insert(n)) : static_cast<void>(model.erase(n));
            }
            ASSERT_EQ(set.total(), model.size());
            for (std::uint64_t n = 0; n < 80; ++n) {
                ASSERT_EQ(set.intersects(n, n + 1), model.contains(n)) << n;
                const auto next = set.next(n);
                const auto at = model.lower_bound(n);
                ASSERT_EQ(next.has_value(), at != model.end());
                if (next) {
                    ASSERT_EQ(next->first, *at);
                    ASSERT_FALSE(model.contains(next->second));
                }
            }
        }
    }
}

TEST(Parity, equals_a_plain_loop_for_any_alignment_and_length) {
    sim::SeededRandom random(4);
    sim::HeapPool pool;
    for (int round = 0; round < 300; ++round) {
        const std::size_t count = random.below(9);
        const std::size_t bytes = random.one_in(2) ? 4096 : 1 + random.below(5000);
        std::vector<Buffer> buffers;
        std::vector<const std::byte*> sources;
        for (std::size_t i = 0; i < count; ++i) {
            buffers.push_back(*pool.allocate(8192));
            random.fill(buffers.back().memory());
            sources.push_back(buffers.back().memory().data() + (random.one_in(3) ? random.below(64) : 0));
        }
        Buffer to = *pool.allocate(8192);
        random.fill(to.memory());
        std::vector<std::byte> expected(bytes);
        for (const std::byte* s : sources) {
            for (std::size_t i = 0; i < bytes; ++i) {
                expected[i] ^= s[i];
            }
        }
        const std::byte behind = to.memory()[bytes];
        xor_into(to.memory().first(bytes), sources);
        ASSERT_TRUE(std::ranges::equal(to.memory().first(bytes), expected));
        ASSERT_EQ(to.memory()[bytes], behind);
    }
}

struct PlanCase {
    const char* what;
    std::uint64_t offset;
    std::uint64_t sectors;
    std::optional<std::uint32_t> missing;
    bool parity_missing;
    bool trusted;
    WritePlan expected;
};

TEST(WritePlan, takes_the_fewest_member_ios) {
    // Five members: four data strips of 8 sectors.
    constexpr Geometry g{Layout::kParity, 5, 8, 80};
    const std::vector<PlanCase> cases{
        {"one sector", 3, 1, {}, false, true, {WriteKind::kModify, 2, 2}},
        {"a whole strip", 8, 8, {}, false, true, {WriteKind::kModify, 2, 2}},
        {"two strips: a tie goes to modify only when it is less",
         0,
         16,
         {},
         false,
         true,
         {WriteKind::kReconstruct, 2, 3}},
        {"three strips", 0, 24, {}, false, true, {WriteKind::kReconstruct, 1, 4}},
        {"the stripe", 0, 32, {}, false, true, {WriteKind::kFullStripe, 0, 5}},
        {"the stripe but a sector", 1, 31, {}, false, true, {WriteKind::kReconstruct, 1, 5}},
        {"the stripe, nothing trusted", 0, 32, {}, false, false, {WriteKind::kFullStripe, 0, 5}},
        {"a part, nothing trusted", 3, 1, {}, false, false, {WriteKind::kWhole, 5, 2}},
        {"another strip is missing", 0, 24, 3U, false, true, {WriteKind::kModify, 4, 4}},
        {"the strip written is missing", 8, 8, 1U, false, true, {WriteKind::kReconstruct, 3, 1}},
        {"a part of two, one of them missing", 4, 8, 0U, false, true, {WriteKind::kWhole, 4, 2}},
        {"parity is missing", 4, 8, {}, true, true, {WriteKind::kDataOnly, 0, 2}},
        {"the stripe without one member", 0, 32, 2U, false, true, {WriteKind::kFullStripe, 0, 4}},
    };
    for (const PlanCase& c : cases) {
        const StripeWrite w = StripeWrite::at(g, c.offset, c.sectors);
        const WritePlan plan = plan_write(w, c.missing, c.parity_missing, c.trusted);
        EXPECT_EQ(plan, c.expected) << c.what << ": kind " << static_cast<int>(plan.kind) << " reads " << plan.reads
                                    << " writes " << plan.writes;
    }
}

TEST(LevelTable, names_and_numbers_find_their_row) {
    for (const LevelRow& row : kLevelTable) {
        EXPECT_EQ(find_level(row.name), &row);
        EXPECT_EQ(find_level(row.long_name), &row);
        EXPECT_EQ(find_level(row.id), &row);
        EXPECT_LT(row.tolerated(row.min_members), row.min_members);
        EXPECT_EQ(row.redundant, row.sync_stripe != nullptr);
        EXPECT_TRUE(row.fits(row.min_members));
        EXPECT_FALSE(row.fits(row.min_members - 1));
        EXPECT_FALSE(row.fits(row.max_members + 1));
    }
    EXPECT_EQ(find_level("7"), nullptr);
}

TEST(LevelTable, a_level_tolerates_any_set_up_to_its_number_and_every_part_of_a_set_that_it_tolerates) {
    for (const LevelRow& row : kLevelTable) {
        for (std::uint32_t members = row.min_members; members <= 9; ++members) {
            if (!row.fits(members)) {
                continue;
            }
            const std::uint32_t all = (1U << members) - 1;
            EXPECT_FALSE(row.tolerates(all, members)) << row.name;
            for (std::uint32_t lost = 0; lost <= all; ++lost) {
                const bool tolerated = row.tolerates(lost, members);
                EXPECT_TRUE(tolerated || static_cast<std::uint32_t>(std::popcount(lost)) > row.tolerated(members))
                    << row.name;
                for (std::uint32_t m = 0; tolerated && m < members; ++m) {
                    EXPECT_TRUE(row.tolerates(lost & ~(1U << m), members)) << row.name;
                }
            }
        }
    }
}

class VolumeTable : public ::testing::Test {
  protected:
    VolumeTable() {
        ArrayConfig config;
        config.name = "a";
        config.level = "0";
        config.members.resize(1);
        sb = *plan_format(config, *find_level("0"), std::array{sectors_of(512 * kMiB).value}, random);
        total = SectorCount(sb.member_sectors);
    }
    VolumeRecord& at(std::size_t i) { return sb.volumes[i]; }
    sim::SeededRandom random{9};
    Superblock sb;
    SectorCount total;
};

TEST_F(VolumeTable, grows_over_a_neighbour_in_another_extent_and_gives_back_what_it_shrinks) {
    ASSERT_TRUE(add_volume(sb, {"a", 10 * kMiB}, total, random));
    ASSERT_TRUE(add_volume(sb, {"b", 10 * kMiB}, total, random));
    const SectorCount free = free_sectors(sb.volumes, total);
    ASSERT_TRUE(resize_volume(sb, at(0), sectors_of(30 * kMiB), total));
    EXPECT_EQ(at(0).extents.size(), 2U);
    EXPECT_FALSE(why_invalid(sb));
    EXPECT_EQ(free_sectors(sb.volumes, total), free - sectors_of(20 * kMiB).value);
    ASSERT_TRUE(resize_volume(sb, at(0), sectors_of(5 * kMiB), total));
    EXPECT_EQ(at(0).extents.size(), 1U);
    EXPECT_EQ(free_sectors(sb.volumes, total), free + sectors_of(5 * kMiB).value);
    EXPECT_FALSE(why_invalid(sb));
}

TEST_F(VolumeTable, random_changes_keep_it_valid) {
    for (int i = 0; i < 400; ++i) {
        const std::string name = "v" + std::to_string(random.below(12));
        const auto at_name = std::ranges::find(sb.volumes, name, &VolumeRecord::name);
        const std::uint64_t bytes = (1 + random.below(20000)) * kBlockBytes;
        const Superblock before = sb;
        const Result<void> r = at_name == sb.volumes.end() ? add_volume(sb, {name, bytes}, total, random)
                                                           : resize_volume(sb, *at_name, sectors_of(bytes), total);
        ASSERT_FALSE(why_invalid(sb)) << *why_invalid(sb);
        if (!r) {
            ASSERT_EQ(sb, before) << "a refused change changed something";
            ASSERT_EQ(r.error().code, Errc::kNoSpace);
        }
    }
}

TEST_F(VolumeTable, refuses_what_cannot_be) {
    ASSERT_TRUE(add_volume(sb, {"a", 10 * kMiB}, total, random));
    EXPECT_EQ(add_volume(sb, {"a", kMiB}, total, random).error().code, Errc::kAlreadyExists);
    EXPECT_EQ(add_volume(sb, {"", kMiB}, total, random).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(add_volume(sb, {"big", 1ULL << 60U}, total, random).error().code, Errc::kNoSpace);
    EXPECT_EQ(resize_volume(sb, at(0), SectorCount(0), total).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(resize_volume(sb, at(0), SectorCount(9), total).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(resize_volume(sb, at(0), SectorCount(1ULL << 60U), total).error().code, Errc::kNoSpace);
    ASSERT_TRUE(add_volume(sb, {"rest", 0}, total, random));
    EXPECT_EQ(free_sectors(sb.volumes, total), SectorCount(0));
    EXPECT_EQ(add_volume(sb, {"none", 0}, total, random).error().code, Errc::kNoSpace);
}

}  // namespace
}  // namespace gemel::raid
