// SPDX-License-Identifier: Apache-2.0
// Scrub (raid/scrub.hpp, SC1 to SC9): what is found, whose it is, what becomes of it, and a walk that is cut short.
#include <gtest/gtest.h>

#include "raid/array.hpp"
#include "raid/level_table.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;
using testing::newest_superblock;
using End = ScrubReport::End;
using namespace std::chrono_literals;

constexpr std::uint64_t kSectors = 3000;

/// An array without a write under way, all of whose redundancy is right.
struct Scrubbed {
    explicit Scrubbed(const FixtureOptions& options) : f(options) {
        CHECK(f.create());
        f.settle();
        model = f.pattern(kSectors);
        CHECK(f.write(0, model));
        f.scheduler.run_for(10s);
        f.environment.events().clear();
    }
    Result<void> begin(ScrubMode mode) { return f.scheduler.run(*f.caller, f.array->scrub(mode)); }
    [[nodiscard]] bool running() const { return f.array->status().scrub.has_value(); }
    [[nodiscard]] ScrubReport report() const { return *f.array->status().scrub_report; }
    [[nodiscard]] Job& job() const { return *f.array->job(JobKind::kScrub); }
    ScrubReport finish() {
        CHECK(f.scheduler.run_until([this] { return !running(); }, 1h));
        return report();
    }
    ScrubReport scrub(ScrubMode mode) {
        const auto r = begin(mode);
        EXPECT_TRUE(r) << r.error().message;
        const ScrubReport out = finish();
        EXPECT_EQ(out.end, End::kFinished);
        return out;
    }
    void until_percent(std::uint64_t percent) {
        ASSERT_TRUE(f.scheduler.run_until(
            [&] {
                const auto now = f.array->status().scrub;
                return !now || now->done_bytes * 100 >= now->total_bytes * percent;
            },
            1h));
        ASSERT_TRUE(running());
    }
    void expect_model(const std::string& when) {
        const auto got = f.read(0, kSectors);
        ASSERT_TRUE(got.result) << when << ": " << got.result.error().message;
        EXPECT_TRUE(got.data == model) << when;
    }
    [[nodiscard]] Geometry geometry() const {
        Geometry g{find_level(f.options.level)->layout, f.options.members, f.options.strip_bytes / kSectorBytes, 0};
        g.member_sectors = f.array->status().sectors.value / g.data_members();
        return g;
    }
    /// One bit of the block of `member` in the first block of a stripe.
    void rot(std::uint32_t member, std::uint64_t stripe) {
        f.disks[member]->rot(geometry().stripe_lba(StripeIndex(stripe)) + 3);
    }
    void damage(std::uint32_t member, std::uint64_t stripe) {
        f.disks[member]->damage(geometry().stripe_lba(StripeIndex(stripe)), SectorCount(kSectorsPerBlock));
    }

    ArrayFixture f;
    std::vector<std::byte> model;
};

struct Shape {
    const char* level;
    std::uint32_t members;
    std::uint32_t shards;
};
constexpr std::array kShapes{Shape{"1", 2, 1}, Shape{"1", 3, 4}, Shape{"5", 3, 1},  Shape{"5", 5, 4},
                             Shape{"6", 4, 1}, Shape{"6", 6, 4}, Shape{"10", 4, 1}, Shape{"10", 6, 4}};

/// Without checksums, but where said: they tell of every block whose it is.
FixtureOptions options_of(const Shape& shape, std::uint64_t bytes = 4 * kMiB) {
    return {.level = shape.level,
            .members = shape.members,
            .shards = shape.shards,
            .member_bytes = bytes,
            .checksums = false};
}

TEST(Scrub, an_array_that_is_right_has_no_mismatch_and_every_block_is_compared) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Scrubbed s(options_of(shape));
        const ScrubReport found = s.scrub(ScrubMode::kCheck);
        const Geometry g = s.geometry();
        EXPECT_EQ(found.counts.checked, g.columns() / kSectorsPerBlock);
        EXPECT_EQ(found.counts.mismatched + found.counts.rewritten + found.counts.unreadable, 0U);
        EXPECT_EQ(found.counts.untrusted + found.counts.unchecked, 0U);
        EXPECT_TRUE(s.f.environment.events().has("scrub-started"));
        EXPECT_TRUE(s.f.environment.events().has("scrub-finished"));
        EXPECT_FALSE(s.f.environment.events().has("scrub-mismatch"));
    }
}

TEST(Scrub, a_mismatch_is_found_at_its_address_and_changed_by_repair_only) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Scrubbed s(options_of(shape));
        const Geometry g = s.geometry();
        const StripeIndex stripe(70);
        const std::uint32_t data = g.data_member(stripe, 0);
        const std::uint32_t rotten = g.parities() > 0 ? g.parity_member(stripe) : data + 1;
        s.rot(rotten, stripe.value);
        const auto before = s.f.disks[rotten]->snapshot();
        const std::size_t data_bytes = g.member_sectors * kSectorBytes;
        ScrubReport found = s.scrub(ScrubMode::kCheck);
        EXPECT_EQ(found.counts.mismatched, 1U);
        EXPECT_EQ(found.counts.repaired, 0U);
        const auto after = s.f.disks[rotten]->snapshot();
        EXPECT_TRUE(std::ranges::equal(std::span(before).first(data_bytes), std::span(after).first(data_bytes)));
        ASSERT_EQ(found.faults.size(), 1U);
        const bool known = g.parities() == 2 || (g.layout == Layout::kMirrored && shape.members > 2);
        EXPECT_EQ(found.faults[0].member, known ? std::optional(rotten) : std::nullopt);
        EXPECT_EQ(found.faults[0].member_lba, g.stripe_lba(stripe));
        EXPECT_EQ(found.faults[0].sectors.value, kSectorsPerBlock);
        EXPECT_EQ(found.faults[0].lba,
                  g.parities() == 2 ? std::nullopt : std::optional(Lba(stripe.value * g.row_sectors())));
        EXPECT_EQ(found.wrong_blocks[rotten], known ? 1U : 0U);
        EXPECT_TRUE(s.f.environment.events().has("scrub-mismatch"));
        found = s.scrub(ScrubMode::kRepair);
        EXPECT_EQ(found.counts.mismatched, 1U);
        EXPECT_EQ(found.counts.repaired, 1U);
        EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
        s.expect_model("after the repair");
        s.f.disks[data]->die();
        s.expect_model("without a member");
    }
}

/// Also by a check: it is not as a block that cannot be read.
TEST(Scrub, checksums_tell_of_every_level_whose_block_is_wrong_and_it_is_made_right) {
    for (const Shape& shape : kShapes) {
        for (const ScrubMode mode : {ScrubMode::kCheck, ScrubMode::kRepair}) {
            SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
            FixtureOptions options = options_of(shape);
            options.checksums = true;
            Scrubbed s(options);
            const Geometry g = s.geometry();
            for (std::uint32_t m = 0; m < shape.members; ++m) {
                s.rot(m, 60 + 2 * m);
            }
            s.damage(0, 90);
            const ScrubReport found = s.scrub(mode);
            EXPECT_EQ(found.counts.mismatched, shape.members);
            EXPECT_EQ(found.counts.repaired, shape.members);
            EXPECT_EQ(found.counts.rewritten, 1U);
            ASSERT_EQ(found.faults.size(), shape.members);
            for (const ScrubFault& fault : found.faults) {
                ASSERT_TRUE(fault.member);
                EXPECT_EQ(fault.member_lba, g.stripe_lba(StripeIndex(60 + 2 * *fault.member)));
                EXPECT_EQ(fault.lba, g.lba_of(*fault.member, fault.member_lba));
                EXPECT_EQ(found.wrong_blocks[*fault.member], 1U);
            }
            const ScrubReport clean = s.scrub(ScrubMode::kCheck);
            EXPECT_EQ(clean.counts.mismatched + clean.counts.rewritten, 0U);
            s.f.disks[1]->die();
            s.expect_model("without a member");
        }
    }
}

TEST(Scrub, level_6_tells_whose_block_is_wrong_and_gives_it_back) {
    for (const std::uint32_t shards : {1U, 4U}) {
        Scrubbed s(options_of({"6", 5, shards}));
        const Geometry g = s.geometry();
        for (std::uint32_t m = 0; m < 5; ++m) {
            s.rot(m, 7 + m);
        }
        const ScrubReport found = s.scrub(ScrubMode::kRepair);
        EXPECT_EQ(found.counts.mismatched, 5U);
        EXPECT_EQ(found.counts.repaired, 5U);
        ASSERT_EQ(found.faults.size(), 5U);
        for (const ScrubFault& fault : found.faults) {
            const StripeIndex stripe(fault.member_lba.value / g.strip_sectors);
            const auto m = static_cast<std::uint32_t>(stripe.value - 7);
            EXPECT_EQ(fault.member, m);
            EXPECT_EQ(fault.lba, g.lba_of(m, g.stripe_lba(stripe)));
            EXPECT_EQ(found.wrong_blocks[m], 1U);
        }
        s.expect_model("after the repair");
        s.f.disks[0]->die();
        s.f.disks[3]->die();
        s.expect_model("without two members");
    }
}

TEST(Scrub, two_wrong_blocks_in_a_stripe_of_level_6_are_nobodys_and_made_to_agree_with_what_is_read) {
    Scrubbed s(options_of({"6", 6, 1}));
    const Geometry g = s.geometry();
    s.rot(g.data_member(StripeIndex(9), 0), 9);
    s.f.disks[g.data_member(StripeIndex(9), 2)]->rot(g.stripe_lba(StripeIndex(9)) + 5);
    const ScrubReport found = s.scrub(ScrubMode::kRepair);
    ASSERT_EQ(found.faults.size(), 1U);
    EXPECT_EQ(found.faults[0].member, std::nullopt);
    const auto seen = s.f.read(0, kSectors).data;
    EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
    s.f.disks[1]->die();
    EXPECT_TRUE(s.f.read(0, kSectors).data == seen);
}

TEST(Scrub, of_three_legs_the_one_that_differs_alone_is_wrong_also_the_lowest) {
    Scrubbed s(options_of({"1", 3, 1}));
    s.rot(0, 3);
    s.rot(2, 5);
    const ScrubReport found = s.scrub(ScrubMode::kRepair);
    EXPECT_EQ(found.wrong_blocks[0], 1U);
    EXPECT_EQ(found.wrong_blocks[2], 1U);
    EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
    s.expect_model("after the repair");
}

TEST(Scrub, blocks_that_cannot_be_read_are_written_anew_also_by_a_check) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Scrubbed s(options_of(shape));
        s.damage(0, 3);
        s.damage(1, 66);
        s.damage(0, 67);
        const ScrubReport found = s.scrub(ScrubMode::kCheck);
        EXPECT_EQ(found.counts.rewritten, 3U);
        EXPECT_EQ(found.counts.mismatched, 0U);
        EXPECT_EQ(s.f.disks[0]->damaged_sectors() + s.f.disks[1]->damaged_sectors(), 0U);
        EXPECT_TRUE(s.f.environment.events().has("block-repaired"));
        const bool spare =
            s.geometry().parities() == 2 || (s.geometry().layout == Layout::kMirrored && shape.members > 2);
        EXPECT_EQ(found.counts.unchecked, spare ? 0U : 3U)
            << "what is left is compared if there is more than one needs";
        s.expect_model("after it");
        EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.rewritten, 0U);
    }
}

TEST(Scrub, what_nobody_can_make_up_is_counted_and_reported) {
    for (const Shape& shape : {Shape{"1", 2, 1}, Shape{"5", 4, 4}, Shape{"6", 5, 1}}) {
        SCOPED_TRACE(shape.level);
        Scrubbed s(options_of(shape));
        for (std::uint32_t m = 0; m <= find_level(shape.level)->tolerated(shape.members); ++m) {
            s.damage(m, 4);
        }
        const ScrubReport found = s.scrub(ScrubMode::kRepair);
        EXPECT_EQ(found.counts.unreadable, 1U);
        EXPECT_EQ(found.counts.rewritten, 0U);
        EXPECT_TRUE(s.f.environment.events().has("blocks-unreadable"));
    }
}

/// SC3.
TEST(Scrub, a_block_is_not_made_up_by_a_check_from_what_contradicts_itself) {
    Scrubbed s(options_of({"6", 5, 1}));
    const Geometry g = s.geometry();
    const StripeIndex stripe(11);
    s.damage(g.data_member(stripe, 1), stripe.value);
    s.rot(g.parity_member(stripe, 1), stripe.value);
    ScrubReport found = s.scrub(ScrubMode::kCheck);
    EXPECT_EQ(found.counts.mismatched, 1U);
    EXPECT_EQ(found.counts.rewritten, 0U);
    EXPECT_EQ(found.faults.at(0).member, std::nullopt);
    EXPECT_GT(s.f.disks[g.data_member(stripe, 1)]->damaged_sectors(), 0U);
    found = s.scrub(ScrubMode::kRepair);
    EXPECT_EQ(found.counts.repaired, 1U);
    EXPECT_EQ(found.counts.rewritten, 1U);
    const ScrubReport clean = s.scrub(ScrubMode::kCheck);
    EXPECT_EQ(clean.counts.mismatched + clean.counts.rewritten, 0U);
    s.expect_model("P was right");
}

TEST(Scrub, a_degraded_array_is_compared_as_far_as_it_can_be) {
    Scrubbed s(options_of({"6", 5, 4}));
    s.f.disks[2]->die();
    const auto data = s.f.pattern(8);
    ASSERT_TRUE(s.f.write(0, data));
    std::ranges::copy(data, s.model.begin());
    const Geometry g = s.geometry();
    const auto stripe = [&] {
        std::uint64_t i = 20;
        while (g.parity_member(StripeIndex(i), 1) != 4) {
            ++i;
        }
        return i;
    }();
    s.rot(4, stripe);
    const ScrubReport found = s.scrub(ScrubMode::kRepair);
    EXPECT_EQ(found.counts.checked, g.columns() / kSectorsPerBlock);
    EXPECT_EQ(found.counts.mismatched, 1U);
    EXPECT_EQ(found.faults.at(0).member, std::nullopt);
    EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
    s.expect_model("Q was made right");
}

TEST(Scrub, hosts_write_beside_a_repair_and_nothing_is_lost) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        FixtureOptions options = options_of(shape);
        options.checksums = shape.shards == 4;
        Scrubbed s(options);
        ASSERT_TRUE(s.begin(ScrubMode::kRepair));
        auto& random = s.f.scheduler.random();
        int writes = 0;
        for (; s.running() && writes < 300; ++writes) {
            const std::uint64_t sectors = 1 + random.below(random.one_in(4) ? 500 : 30);
            const std::uint64_t lba = random.below(kSectors - sectors);
            const auto data = s.f.pattern(sectors);
            ASSERT_TRUE(s.f.write(lba, data));
            std::ranges::copy(data, s.model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
        }
        EXPECT_GT(writes, 5);
        EXPECT_EQ(s.finish().counts.mismatched, 0U) << "a write was seen half done";
        s.expect_model("after it");
        EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
    }
}

/// SC8: where a host's read finds a bad block the scrub looks next.
TEST(Scrub, neighbours_of_a_bad_block_go_first) {
    for (const Shape& shape : {Shape{"5", 4, 1}, Shape{"1", 2, 1}, Shape{"5", 4, 4}}) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.shards));
        Scrubbed s(options_of(shape, 16 * kMiB));
        const Geometry g = s.geometry();
        const std::uint64_t far = 660;  // in group 10
        s.job().set_limit(2 * kMiB);
        ASSERT_TRUE(s.begin(ScrubMode::kCheck));
        s.until_percent(5);
        const std::uint32_t member = g.data_member(StripeIndex(far), 0);
        s.damage(member, far);
        s.damage(0, far - 30);  // in group 9, beside the next
        s.damage(0, far - 16);
        s.damage(0, far + 10);
        s.damage(0, far + 18);
        s.damage(0, far + 40);
        const Lba lba = *g.lba_of(member, g.stripe_lba(StripeIndex(far)));
        ASSERT_TRUE(s.f.read(lba.value, kSectorsPerBlock).result);
        ASSERT_EQ(s.f.disks[member]->damaged_sectors(), (member == 0 ? 5U : 0U) * kSectorsPerBlock)
            << "the read met the bad block";
        s.until_percent(30);
        EXPECT_EQ(s.report().counts.rewritten, 4U);
        EXPECT_EQ(s.f.disks[0]->damaged_sectors(), kSectorsPerBlock) << "that which is no neighbour waits";
        s.job().set_limit(0);
        s.finish();
        EXPECT_EQ(s.f.disks[0]->damaged_sectors(), 0U);
    }
}

/// SC6, SC7.
TEST(Scrub, goes_on_after_a_stop_and_after_a_crash) {
    for (const Shape& shape : kShapes) {
        for (const int how : {0, 1, 2}) {
            SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members) + " " + std::to_string(how));
            Scrubbed s(options_of(shape, 8 * kMiB));
            s.rot(1, 2);
            s.job().set_limit(bytes_of(s.geometry().sectors()) / 60);
            ASSERT_TRUE(s.begin(ScrubMode::kRepair));
            s.until_percent(65);  // of two groups of each shard: the first is done
            if (how == 0) {
                ASSERT_TRUE(s.f.stop());
            } else {
                s.f.crash(/*power=*/how == 2);
            }
            s.f.environment.events().clear();
            ASSERT_TRUE(s.f.reopen());
            ASSERT_TRUE(s.running());
            EXPECT_EQ(s.report().mode, ScrubMode::kRepair);
            EXPECT_GT(s.f.array->status().scrub->done_bytes * 100, s.f.array->status().scrub->total_bytes * 30);
            EXPECT_EQ(s.report().mismatched_earlier, 1U);
            const ScrubReport found = s.finish();
            EXPECT_EQ(found.end, End::kFinished);
            EXPECT_EQ(found.counts.mismatched, 0U) << "what was repaired below the cursor was durable";
            EXPECT_LT(found.counts.checked * 100, s.geometry().columns() / kSectorsPerBlock * 80);
            ASSERT_TRUE(s.f.stop());
            ASSERT_TRUE(s.f.reopen());
            EXPECT_FALSE(s.f.array->status().scrub_report) << "it has ended";
        }
    }
}

/// SC5.
TEST(Scrub, a_repair_cut_short_anywhere_is_completed_by_the_next_one) {
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        FixtureOptions options = options_of(seed % 3 == 0 ? Shape{"1", 3, 1} : Shape{"6", 6, seed % 2 == 0 ? 1U : 4U});
        options.seed = seed;
        options.checksums = seed % 4 == 0;
        Scrubbed s(options);
        for (std::uint64_t stripe = 0; stripe < 40; ++stripe) {
            const auto m = static_cast<std::uint32_t>(s.f.scheduler.random().below(options.members));
            s.rot(m, stripe);
            s.f.disks[m]->rot(s.geometry().stripe_lba(StripeIndex(stripe)));
        }
        ASSERT_TRUE(s.begin(ScrubMode::kRepair));
        s.f.scheduler.run_for(std::chrono::microseconds(300 * seed));
        s.f.crash(/*power=*/true);
        ASSERT_TRUE(s.f.reopen());
        const ScrubReport found = s.finish();
        EXPECT_EQ(found.end, End::kFinished);
        EXPECT_GT(found.counts.repaired, 0U) << "the crash came too late";
        EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
        s.expect_model("after the second part");
        s.f.disks[0]->die();
        s.expect_model("without a member");
    }
}

TEST(Scrub, what_a_finished_repair_wrote_outlives_a_power_cut) {
    Scrubbed s(options_of({"6", 5, 1}));
    s.rot(3, 5);
    s.scrub(ScrubMode::kRepair);
    for (auto& disk : s.f.disks) {
        disk->power_cut(sim::CachePolicy::kDropAll);
    }
    s.f.stop_anyhow();
    for (auto& disk : s.f.disks) {
        disk->revive();
    }
    ASSERT_TRUE(s.f.reopen());
    s.f.settle();
    EXPECT_EQ(s.scrub(ScrubMode::kCheck).counts.mismatched, 0U);
}

TEST(Scrub, pauses_keeps_to_its_limit_and_can_be_cancelled_for_good) {
    Scrubbed s(options_of({"5", 5, 4}, 16 * kMiB));
    const std::uint64_t all = bytes_of(s.geometry().sectors());
    s.job().set_limit(all / 40);
    const TimePoint began = s.f.scheduler.now();
    ASSERT_TRUE(s.begin(ScrubMode::kCheck));
    s.until_percent(25);
    const Duration took = s.f.scheduler.now() - began;
    EXPECT_GE(took, 8s);
    EXPECT_LT(took, 14s);
    s.job().pause(true);
    s.f.scheduler.run_for(5s);
    const auto paused = s.f.array->status().scrub;
    ASSERT_TRUE(paused && paused->paused);
    s.f.scheduler.run_for(60s);
    EXPECT_EQ(s.f.array->status().scrub->done_bytes, paused->done_bytes);
    s.job().pause(false);
    s.until_percent(60);
    s.job().cancel();
    EXPECT_EQ(s.finish().end, End::kCancelled);
    EXPECT_TRUE(s.f.environment.events().has("scrub-cancelled"));
    s.f.crash(/*power=*/true);
    ASSERT_TRUE(s.f.reopen());
    EXPECT_FALSE(s.running());
    EXPECT_FALSE(s.f.array->status().scrub_report);
}

TEST(Scrub, few_superblocks_are_written_for_its_cursor) {
    Scrubbed s(options_of({"5", 4, 4}, 16 * kMiB));
    const std::uint64_t before = s.f.array->status().epoch;
    s.scrub(ScrubMode::kCheck);
    EXPECT_LE(s.f.array->status().epoch - before, 2U * 2) << "it took less than a few seconds";
    s.job().set_limit(bytes_of(s.geometry().sectors()) / 600);
    const std::uint64_t slow = s.f.array->status().epoch;
    ASSERT_TRUE(s.begin(ScrubMode::kCheck));
    s.finish();
    EXPECT_GE(s.f.array->status().epoch - slow, 30U);
    EXPECT_LE(s.f.array->status().epoch - slow, 4 * 64 + 3U);
}

/// SC9.
TEST(Scrub, waits_for_a_member_that_it_needs_and_goes_on_when_it_is_rebuilt) {
    Scrubbed s(options_of({"5", 4, 4}, 16 * kMiB));
    s.job().set_limit(bytes_of(s.geometry().sectors()) / 20);
    ASSERT_TRUE(s.begin(ScrubMode::kCheck));
    s.until_percent(20);
    ASSERT_TRUE(s.f.scheduler.run(*s.f.caller, s.f.array->fail_member(2, /*force=*/false)));
    s.f.scheduler.run_for(5s);
    const auto waiting = s.f.array->status().scrub;
    ASSERT_TRUE(waiting && waiting->waiting);
    s.f.scheduler.run_for(30s);
    EXPECT_EQ(s.f.array->status().scrub->done_bytes, waiting->done_bytes);
    ASSERT_TRUE(s.f.scheduler.run(*s.f.caller, s.f.array->rebuild(2, {})));
    const ScrubReport found = s.finish();
    EXPECT_EQ(found.end, End::kFinished);
    EXPECT_EQ(found.counts.mismatched, 0U);
    EXPECT_EQ(found.counts.checked, s.geometry().columns() / kSectorsPerBlock);
}

/// SC2.
TEST(Scrub, untrusted_columns_are_the_resyncs_and_not_judged) {
    Scrubbed s(options_of({"5", 4, 1}));
    const StripeIndex stripe(7);
    const Geometry g = s.geometry();
    ASSERT_EQ(g.parity_member(stripe), 0U);
    s.damage(0, stripe.value);
    s.damage(1, stripe.value);
    // Parity cannot be made right by a write of another strip, as long as member 1's block is not known.
    const auto data = s.f.pattern(kSectorsPerBlock);
    ASSERT_TRUE(s.f.write(g.lba_of(2, g.stripe_lba(stripe))->value, data));
    s.f.disks[0]->heal();
    s.f.disks[1]->heal();
    const ScrubReport found = s.scrub(ScrubMode::kRepair);
    EXPECT_EQ(found.counts.untrusted, 1U);
    EXPECT_EQ(found.counts.mismatched + found.counts.rewritten + found.counts.unreadable, 0U);
}

TEST(Scrub, many_mismatches_are_counted_and_few_are_told) {
    Scrubbed s(options_of({"5", 4, 4}, 8 * kMiB));
    for (std::uint64_t stripe = 0; stripe < 200; ++stripe) {
        s.rot(1, stripe);
    }
    const ScrubReport found = s.scrub(ScrubMode::kCheck);
    EXPECT_EQ(found.counts.mismatched, 200U);
    EXPECT_EQ(found.faults.size(), kMostFaults);
    EXPECT_EQ(s.f.environment.events().count("scrub-mismatch"), 65U);
}

TEST(Scrub, what_cannot_be_is_refused) {
    const auto expect = [](ArrayFixture& f, Errc code, const std::string& text) {
        const std::uint64_t epoch = f.array->status().epoch;
        const auto r = f.scheduler.run(*f.caller, f.array->scrub(ScrubMode::kCheck));
        ASSERT_FALSE(r) << text;
        EXPECT_EQ(r.error().code, code) << r.error().message;
        EXPECT_NE(r.error().message.find(text), std::string::npos) << r.error().message;
        EXPECT_EQ(f.array->status().epoch, epoch);
        EXPECT_FALSE(f.array->status().scrub_report && f.array->status().scrub_report->end != End::kRunning);
    };
    ArrayFixture plain({.level = "0", .members = 2, .checksums = false});
    ASSERT_TRUE(plain.create());
    expect(plain, Errc::kInvalidArgument, "neither redundancy nor checksums");
    ArrayFixture fresh({.level = "5", .members = 4});
    ASSERT_TRUE(fresh.create());
    ASSERT_TRUE(fresh.array->status().resyncing);
    expect(fresh, Errc::kBusy, "resynced");
    Scrubbed s(options_of({"5", 4, 1}, 16 * kMiB));
    ASSERT_TRUE(s.begin(ScrubMode::kCheck));
    expect(s.f, Errc::kBusy, "being scrubbed");
    s.finish();
    for (const Shape& shape : {Shape{"5", 4, 1}, Shape{"1", 2, 1}}) {
        Scrubbed less(options_of(shape));
        ASSERT_TRUE(less.f.scheduler.run(*less.f.caller, less.f.array->fail_member(0, /*force=*/false)));
        expect(less.f, Errc::kRefused, "rebuild them first");
        less.f.disks[1]->die();
        ASSERT_FALSE(less.f.write(0, less.f.pattern(64)));
        expect(less.f, Errc::kReadOnly, "read-only");
    }
}

/// A device whose flushes take a while before they begin.
class SlowFlush : public BlockDevice {
  public:
    SlowFlush(sim::SimScheduler& scheduler, BlockDevice& below) : scheduler_(scheduler), below_(below) {}
    [[nodiscard]] DeviceLimits limits() const override { return below_.limits(); }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions o) override { return below_.read(lba, to, o); }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions o) override { return below_.write(lba, from, o); }
    Task<Result<void>> flush() override {
        co_await sleep_for(scheduler_, delay);
        co_return co_await below_.flush();
    }
    Task<Result<void>> discard(Lba lba, SectorCount count) override { return below_.discard(lba, count); }
    [[nodiscard]] std::string name() const override { return below_.name(); }

    Duration delay{};

  private:
    sim::SimScheduler& scheduler_;
    BlockDevice& below_;
};

/// SC6, where the shards' checkpoints overlap: the second finds nothing to flush, but what the first has begun to
/// flush.
TEST(Scrub, a_cursor_waits_for_the_flush_of_what_was_repaired_below_it) {
    Scrubbed s(options_of({"1", 2, 4}));
    ASSERT_TRUE(s.f.stop());
    SlowFlush slow(s.f.scheduler, *s.f.disks[1]);
    ArrayConfig c = s.f.config();
    c.members[1].device = &slow;
    ASSERT_TRUE(s.f.open(c));
    s.rot(1, 0);
    slow.delay = 15s;
    ASSERT_TRUE(s.begin(ScrubMode::kRepair));
    s.job().set_limit(50 * kKiB);
    std::uint64_t cursor = 0;
    for (int i = 0; i < 500 && cursor == 0 && s.running(); ++i) {
        s.f.scheduler.run_for(200ms);
        cursor = newest_superblock(*s.f.disks[0]).scrub.cursor;
    }
    ASSERT_GT(cursor, 0U);
    EXPECT_EQ(s.report().counts.repaired, 1U);
    const auto mine = s.f.disks[0]->durable_snapshot();
    const auto other = s.f.disks[1]->durable_snapshot();
    EXPECT_TRUE(std::equal(mine.begin(), mine.begin() + kBlockBytes, other.begin()));
    slow.delay = {};
    s.job().set_limit(0);
    s.finish();
    ASSERT_TRUE(s.f.stop());
}

}  // namespace
}  // namespace gemel::raid
