// SPDX-License-Identifier: Apache-2.0
// StripeCache (raid/stripe_cache.hpp, KC1 to KC5): writing a hot stripe needs no reads, and nothing stale is used.
#include "raid/stripe_cache.hpp"

#include <gtest/gtest.h>

#include "raid/geometry.hpp"
#include "raid/write_plan.hpp"
#include "tests/support/heap_pool.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using detail::StripeCache;
using testing::ArrayFixture;
using testing::FixtureOptions;
using namespace std::chrono_literals;

constexpr std::uint64_t kBlock = kSectorsPerBlock;
constexpr std::uint64_t kStrip = 32;  // sectors

/// Four data strips of 16 KiB, written once, with checksums or not.
struct Hot : ArrayFixture {
    explicit Hot(FixtureOptions o = {.members = 5}) : ArrayFixture(std::move(o)) {
        CHECK(create());
        settle();
        model = pattern(20 * 4 * kStrip);
        CHECK(write(0, model));
        scheduler.run_for(10s);
    }
    /// Member reads that this write took.
    std::uint64_t rewrite(std::uint64_t lba, std::uint64_t sectors) {
        const auto data = pattern(sectors);
        const std::uint64_t before = reads();
        const Result<void> r = write(lba, data);
        EXPECT_TRUE(r) << r.error().message;
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
        return reads() - before;
    }
    [[nodiscard]] std::uint64_t reads() const {
        std::uint64_t sum = 0;
        for (const auto& disk : disks) {
            sum += disk->counters().reads;
        }
        return sum;
    }
    /// Everything is there, and parity tells what any one member holds.
    void expect_model(const std::string& when) {
        EXPECT_TRUE(read(0, model.size() / kSectorBytes).data == model) << when;
        for (std::uint32_t m = 0; m < options.members; ++m) {
            disks[m]->damage(Lba(0), SectorCount(20 * kStrip));
            EXPECT_TRUE(read(0, model.size() / kSectorBytes).data == model) << when << ", without member " << m;
            disks[m]->heal();
        }
    }
    void scrub(ScrubMode mode) {
        CHECK(scheduler.run(*caller, array->scrub(mode)));
        CHECK(scheduler.run_until([this] { return !array->status().scrub; }, 1h));
    }

    std::vector<std::byte> model;
};

TEST(StripeCache, the_third_write_of_a_block_needs_no_reads) {
    for (const bool checksums : {true, false}) {
        for (const std::string level : {"5", "6"}) {
            SCOPED_TRACE(level + (checksums ? " with checksums" : ""));
            Hot f({.level = level, .members = level == "6" ? 6U : 5U, .checksums = checksums});
            const std::uint64_t strips = level == "6" ? 3 : 2;
            EXPECT_EQ(f.rewrite(3 * kBlock, kBlock), strips);
            EXPECT_EQ(f.rewrite(3 * kBlock, kBlock), strips);
            EXPECT_EQ(f.rewrite(3 * kBlock, kBlock), 0U);
            EXPECT_EQ(f.rewrite(3 * kBlock, kBlock), 0U);
            EXPECT_EQ(f.array->status().stripe_cache.hits, 2 * strips);
            // With two parities the sum of all data is made anew: then every member's block is kept.
            EXPECT_EQ(f.array->status().stripe_cache.bytes, (level == "6" ? 6 : strips) * kBlockBytes);
            f.expect_model("after that");
        }
    }
}

TEST(StripeCache, parity_serves_the_other_strips_and_several_blocks_are_one) {
    Hot f;
    f.rewrite(0, kStrip / 2);
    f.rewrite(0, kStrip / 2);
    EXPECT_EQ(f.rewrite(kStrip, kStrip / 2), 1U) << "the old data only";
    EXPECT_EQ(f.rewrite(kStrip, kStrip / 2), 0U);
    EXPECT_EQ(f.rewrite(0, kStrip / 2), 0U);
    f.rewrite(2 * kStrip, kStrip / 2);
    // Three of four strips are known: the sum of all is cheaper than the old parity.
    EXPECT_EQ(f.rewrite(3 * kStrip, kStrip / 2), 0U);
    f.expect_model("after that");
}

TEST(StripeCache, a_part_of_a_block_takes_the_rest_from_it) {
    Hot f;
    f.rewrite(0, kBlock);
    f.rewrite(0, kBlock);
    EXPECT_EQ(f.rewrite(3, 2), 0U);
    EXPECT_EQ(f.rewrite(4, 1), 0U);
    f.expect_model("after that");
}

TEST(StripeCache, nothing_is_kept_without_memory_for_it) {
    Hot f({.members = 5, .stripe_cache = 0});
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(f.rewrite(0, kBlock), 2U);
    }
    EXPECT_EQ(f.array->status().stripe_cache.bytes, 0U);
}

TEST(StripeCache, whole_stripes_and_parts_of_blocks_take_away_what_they_overwrite) {
    for (const std::uint64_t sectors : {4 * kStrip, kBlock - 3}) {
        Hot f({.members = 5, .checksums = false});
        f.rewrite(0, kBlock);
        f.rewrite(0, kBlock);
        f.rewrite(0, sectors);
        f.rewrite(0, kBlock);
        f.rewrite(0, kBlock);
        f.expect_model(std::to_string(sectors) + " sectors");
    }
}

TEST(StripeCache, a_repair_takes_away_all_blocks_of_its_columns) {
    Hot f({.members = 5, .checksums = false});
    f.rewrite(0, kBlock);
    f.rewrite(0, kBlock);
    // The data rots, and a repair without checksums makes parity agree with it: what the cache has contradicts both.
    const Geometry g{Layout::kParity, 5, kStrip, 1000 * kStrip};
    f.disks[g.data_member(StripeIndex(0), 0)]->rot(Lba(3));
    f.scrub(ScrubMode::kRepair);
    EXPECT_EQ(f.array->status().scrub_report->counts.mismatched, 1U);
    f.rewrite(0, kBlock);
    f.expect_model("after the repair");
}

TEST(StripeCache, a_member_that_was_away_is_asked_again) {
    Hot f;
    f.rewrite(0, kBlock);
    f.rewrite(0, kBlock);
    const Geometry g{Layout::kParity, 5, kStrip, 1000 * kStrip};
    const std::uint32_t m = g.data_member(StripeIndex(0), 0);
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->fail_member(m, /*force=*/false)));
    f.rewrite(0, kBlock);  // parity only
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->rebuild(m, {})));
    ASSERT_TRUE(f.scheduler.run_until([&] { return !f.array->status().rebuild; }, 1h));
    f.rewrite(0, kBlock);
    f.expect_model("after the rebuild");
}

struct Cache {
    explicit Cache(std::size_t blocks) : cache(blocks, doubts) {}
    void put(std::uint32_t member, std::uint64_t block) {
        cache.put(member, block, *pool.allocate(kBlockBytes), cache.doubts());
    }
    sim::HeapPool pool;
    std::atomic<std::uint64_t> doubts{0};
    StripeCache cache;
};

TEST(StripeCache, keeps_the_newest_blocks_within_its_bound) {
    Cache c(4);
    for (std::uint64_t b = 0; b < 4; ++b) {
        c.put(1, b);
    }
    std::vector<std::byte> out(kBlockBytes);
    ASSERT_TRUE(c.cache.has(1, 0, 4));
    c.cache.copy(1, 0, out);  // used: 1 is the oldest now
    c.put(2, 0);
    EXPECT_TRUE(c.cache.has(1, 0, 1) && c.cache.has(2, 0, 1));
    EXPECT_FALSE(c.cache.has(1, 1, 2));
    EXPECT_EQ(c.cache.bytes(), 4 * kBlockBytes);
    EXPECT_EQ(c.pool.outstanding_bytes(), 4 * kBlockBytes);
}

TEST(StripeCache, a_doubt_empties_it) {
    Cache c(4);
    c.put(0, 7);
    ++c.doubts;
    EXPECT_FALSE(c.cache.has(0, 7, 8));
    EXPECT_EQ(c.pool.outstanding_bytes(), 0U);
}

TEST(StripeCache, columns_written_once_are_not_worth_keeping) {
    Cache c(64);
    EXPECT_FALSE(c.cache.note_write(5, 6, 5));
    EXPECT_TRUE(c.cache.note_write(5, 6, 5));
    EXPECT_FALSE(c.cache.note_write(6, 7, 5));
    EXPECT_FALSE(c.cache.note_write(5, 15, 5)) << "too much for it";
}

TEST(WritePlan, what_is_cached_costs_no_read) {
    constexpr Geometry g{Layout::kParity, 5, 8, 80};
    const StripeWrite one = StripeWrite::at(g, 8, 8);
    EXPECT_EQ(plan_write(one, 0, 1, true, {.modify = 0b10010}), (WritePlan{WriteKind::kModify, 0, 2}));
    EXPECT_EQ(plan_write(one, 0, 1, true, {.modify = 0b10000}), (WritePlan{WriteKind::kModify, 1, 2}));
    EXPECT_EQ(plan_write(one, 0, 1, true, {.reconstruct = 0b1101}), (WritePlan{WriteKind::kReconstruct, 0, 2}));
    EXPECT_EQ(plan_write(one, 0, 1, true, {.modify = 0b10010, .reconstruct = 0b1101}),
              (WritePlan{WriteKind::kModify, 0, 2}));
}

}  // namespace
}  // namespace gemel::raid
