// SPDX-License-Identifier: Apache-2.0
// The pure parts: interval sets, joined I/Os, parity, the choice of a write plan, the volume table, the level table.
#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "raid/assembly.hpp"
#include "raid/interval_set.hpp"
#include "raid/level_table.hpp"
#include "raid/member_fan.hpp"
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
    std::uint32_t missing;   ///< data strips, as bits
    std::uint32_t parities;  ///< that are there
    bool trusted;
    WritePlan expected;
};

TEST(WritePlan, takes_the_fewest_member_ios) {
    // Five members: four data strips of 8 sectors.
    constexpr Geometry g{Layout::kParity, 5, 8, 80};
    const std::vector<PlanCase> cases{
        {"one sector", 3, 1, 0, 1, true, {WriteKind::kModify, 2, 2}},
        {"a whole strip", 8, 8, 0, 1, true, {WriteKind::kModify, 2, 2}},
        {"two strips: a tie goes to reconstruct", 0, 16, 0, 1, true, {WriteKind::kReconstruct, 2, 3}},
        {"three strips", 0, 24, 0, 1, true, {WriteKind::kReconstruct, 1, 4}},
        {"the stripe", 0, 32, 0, 1, true, {WriteKind::kFullStripe, 0, 5}},
        {"the stripe but a sector", 1, 31, 0, 1, true, {WriteKind::kReconstruct, 1, 5}},
        {"the stripe, nothing trusted", 0, 32, 0, 1, false, {WriteKind::kFullStripe, 0, 5}},
        {"a part, nothing trusted", 3, 1, 0, 1, false, {WriteKind::kWhole, 5, 2}},
        {"another strip is missing", 0, 24, 8, 1, true, {WriteKind::kModify, 4, 4}},
        {"the strip written is missing", 8, 8, 2, 1, true, {WriteKind::kReconstruct, 3, 1}},
        {"a part of two, one of them missing", 4, 8, 1, 1, true, {WriteKind::kWhole, 4, 2}},
        {"parity is missing", 4, 8, 0, 0, true, {WriteKind::kDataOnly, 0, 2}},
        {"the stripe without one member", 0, 32, 4, 1, true, {WriteKind::kFullStripe, 0, 4}},
    };
    for (const PlanCase& c : cases) {
        const StripeWrite w = StripeWrite::at(g, c.offset, c.sectors);
        const WritePlan plan = plan_write(w, c.missing, c.parities, c.trusted);
        EXPECT_EQ(plan, c.expected) << c.what << ": kind " << static_cast<int>(plan.kind) << " reads " << plan.reads
                                    << " writes " << plan.writes;
    }
}

TEST(WritePlan, counts_both_parity_strips) {
    // Eight members: six data strips of 8 sectors, P and Q.
    constexpr Geometry g{Layout::kDoubleParity, 8, 8, 80};
    const std::vector<PlanCase> cases{
        {"one sector", 3, 1, 0, 2, true, {WriteKind::kModify, 3, 3}},
        {"two strips: a tie goes to reconstruct", 0, 16, 0, 2, true, {WriteKind::kReconstruct, 4, 4}},
        {"three strips", 0, 24, 0, 2, true, {WriteKind::kReconstruct, 3, 5}},
        {"the stripe", 0, 48, 0, 2, true, {WriteKind::kFullStripe, 0, 8}},
        {"one sector without Q", 3, 1, 0, 1, true, {WriteKind::kModify, 2, 2}},
        {"three strips without Q: modify costs more", 0, 24, 0, 1, true, {WriteKind::kReconstruct, 3, 4}},
        {"without parity", 3, 1, 0, 0, true, {WriteKind::kDataOnly, 0, 1}},
        {"two other strips are missing", 0, 24, 48, 2, true, {WriteKind::kModify, 5, 5}},
        {"two strips written are missing", 0, 16, 3, 2, true, {WriteKind::kReconstruct, 4, 2}},
        {"one written, one other missing", 0, 16, 9, 2, true, {WriteKind::kWhole, 6, 3}},
        {"one written in part is missing", 1, 7, 1, 2, true, {WriteKind::kReconstruct, 5, 2}},
        {"another and P are missing", 0, 8, 2, 1, true, {WriteKind::kModify, 2, 2}},
        {"nothing is trusted", 0, 8, 2, 1, false, {WriteKind::kWhole, 6, 2}},
        {"the stripe without two", 0, 48, 3, 2, true, {WriteKind::kFullStripe, 0, 6}},
    };
    for (const PlanCase& c : cases) {
        const StripeWrite w = StripeWrite::at(g, c.offset, c.sectors);
        const WritePlan plan = plan_write(w, c.missing, c.parities, c.trusted);
        EXPECT_EQ(plan, c.expected) << c.what << ": kind " << static_cast<int>(plan.kind) << " reads " << plan.reads
                                    << " writes " << plan.writes;
    }
}

/// Multiplication as school teaches it: shift, add, reduce by 0x11d.
std::uint8_t slow_product(std::uint8_t a, std::uint8_t b) {
    std::uint32_t product = 0;
    for (unsigned bit = 0; bit < 8; ++bit) {
        product ^= (b >> bit & 1U) != 0 ? static_cast<std::uint32_t>(a) << bit : 0;
    }
    for (unsigned bit = 15; bit >= 8; --bit) {
        product ^= (product >> bit & 1U) != 0 ? 0x11dU << (bit - 8) : 0;
    }
    return static_cast<std::uint8_t>(product);
}

TEST(Parity, the_field_is_the_field) {
    for (std::uint32_t a = 0; a < 256; ++a) {
        for (std::uint32_t b = 0; b < 256; ++b) {
            const auto x = static_cast<std::uint8_t>(a);
            const auto y = static_cast<std::uint8_t>(b);
            ASSERT_EQ(gf_multiply(x, y), slow_product(x, y)) << a << " " << b;
        }
        if (a != 0) {
            const auto x = static_cast<std::uint8_t>(a);
            ASSERT_EQ(slow_product(x, gf_inverse(x)), 1) << a;
        }
    }
}

/// Strips of a stripe with P and Q as a plain loop makes them.
std::vector<std::vector<std::byte>> stripe_by_loop(sim::SeededRandom& random, std::size_t data, std::size_t bytes) {
    std::vector<std::vector<std::byte>> strips(data + 2, std::vector<std::byte>(bytes));
    for (std::size_t d = 0; d < data; ++d) {
        random.fill(strips[d]);
        for (std::size_t i = 0; i < bytes; ++i) {
            std::uint8_t weight = 1;
            for (std::size_t n = 0; n < d; ++n) {
                weight = slow_product(weight, 2);
            }
            strips[data][i] ^= strips[d][i];
            strips[data + 1][i] ^= std::byte{slow_product(weight, static_cast<std::uint8_t>(strips[d][i]))};
        }
    }
    return strips;
}

TEST(Parity, p_and_q_equal_a_plain_loop_for_any_alignment_and_length) {
    sim::SeededRandom random(5);
    sim::HeapPool pool;
    for (int round = 0; round < 120; ++round) {
        const std::size_t data = 1 + random.below(30);
        const std::size_t bytes = random.one_in(2) ? 512 * (1 + random.below(4)) : 1 + random.below(700);
        const auto strips = stripe_by_loop(random, data, bytes);
        std::vector<Buffer> buffers;
        std::vector<const std::byte*> sources;
        for (std::size_t d = 0; d < data; ++d) {
            buffers.push_back(*pool.allocate(8192));
            std::byte* at = buffers.back().memory().data() + (random.one_in(8) ? random.below(64) : 0);
            std::ranges::copy(strips[d], at);
            sources.push_back(at);
        }
        const Buffer p = *pool.allocate(8192);
        const Buffer q = *pool.allocate(8192);
        const std::size_t skip = random.one_in(4) ? random.below(64) : 0;
        const bool with_p = !random.one_in(4);
        const bool with_q = !with_p || !random.one_in(4);
        const std::byte behind = q.memory()[skip + bytes];
        parity_into(with_p ? p.memory().subspan(skip, bytes) : MutableBytes{},
                    with_q ? q.memory().subspan(skip, bytes) : MutableBytes{}, sources);
        ASSERT_TRUE(!with_p || std::ranges::equal(p.memory().subspan(skip, bytes), strips[data]));
        ASSERT_TRUE(!with_q || std::ranges::equal(q.memory().subspan(skip, bytes), strips[data + 1]));
        ASSERT_EQ(q.memory()[skip + bytes], behind);
    }
}

TEST(Parity, any_two_strips_are_made_up_from_the_others) {
    sim::SeededRandom random(6);
    for (const std::size_t data : {2U, 3U, 9U, 30U}) {
        const auto strips = stripe_by_loop(random, data, 96);
        for (std::uint32_t a = 0; a < data; ++a) {
            for (std::uint32_t b = 0; b < data + 2; ++b) {
                const SlotFactors factors = recovery_factors(static_cast<std::uint32_t>(data), a, 1U << a | 1U << b);
                EXPECT_EQ(factors[a], 0);
                EXPECT_EQ(factors[b], 0);
                std::vector<const std::byte*> sources;
                for (const auto& strip : strips) {
                    sources.push_back(strip.data());
                }
                std::vector<std::byte> made(96);
                weighted_sum_into(made, sources, std::span(factors).first(sources.size()));
                ASSERT_EQ(made, strips[a]) << "strips " << a << " and " << b << " of " << data;
            }
        }
    }
}

TEST(LevelTable, names_and_numbers_find_their_row) {
    for (const LevelRow& row : kLevelTable) {
        EXPECT_EQ(find_level(row.name), &row);
        EXPECT_EQ(find_level(row.long_name), &row);
        EXPECT_EQ(find_level(row.id), &row);
        EXPECT_LT(row.tolerated(row.min_members), row.min_members);
        EXPECT_EQ(row.redundant, row.rebuild_stripe != nullptr);
        EXPECT_EQ(row.redundant, row.tolerated(row.min_members) > 0);
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

/// An I/O that ends when its handle is resumed.
struct Held {
    std::coroutine_handle<> handle;
    [[nodiscard]] static bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) noexcept { handle = h; }
    static void await_resume() noexcept {}
};

Task<Result<void>> end_when(Held& held) {
    co_await held;
    co_return Result<void>{};
}

Task<Result<void>> end_now() {
    co_return Result<void>{};
}

Task<void> use_twice(Held& held, std::vector<int>& steps) {
    MemberFan fan;
    fan.start(0, end_when(held));
    co_await fan.all();
    steps.push_back(1);
    fan.reset();
    fan.start(0, end_now());
    steps.push_back(2);
    co_await fan.all();
    steps.push_back(3);
}

TEST(MemberFan, an_io_that_ends_at_once_resumes_nobody_who_waited_for_those_before) {
    Held held;
    std::vector<int> steps;
    start_detached(use_twice(held, steps));
    EXPECT_TRUE(steps.empty());
    held.handle.resume();
    EXPECT_EQ(steps, (std::vector{1, 2, 3}));
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
