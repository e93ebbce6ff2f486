// SPDX-License-Identifier: Apache-2.0
// Partial parity (raid/partial_parity.hpp): its record, what is not flushed, and what an array of level 5 knows after a
// crash that takes one member with it.
#include <gtest/gtest.h>

#include "raid/partial_parity.hpp"
#include "raid/redo_record.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;

// ---- pure

/// Four members, strips of 32 sectors.
constexpr Geometry kFour{Layout::kParity, 4, 32, 128ULL * 32};

TEST(PartialRecord, comes_back_as_it_went_and_any_damage_shows) {
    std::vector<std::byte> sum(2 * kBlockBytes);
    sim::SeededRandom(7).fill(sum);
    const PartialRecord record{StripeIndex(5), {{0, 2, 0b010, sum}, {2, 1, 0b111, {}}}, 99, {}};
    const std::vector<std::byte> bytes = encode(record);
    ASSERT_TRUE(is_partial_record(bytes));
    const auto back = decode_partial_record(bytes, kFour);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->stripe, StripeIndex(5));
    ASSERT_EQ(back->runs.size(), 2U);
    EXPECT_EQ(back->runs[0].written, 0b010U);
    EXPECT_TRUE(std::ranges::equal(back->runs[0].parity, sum));
    EXPECT_FALSE(std::ranges::equal(ConstBytes(bytes).last(512), ConstBytes(sum).last(512))) << "mixed, RR4";
    EXPECT_EQ(back->runs[1].first, 2U);
    EXPECT_TRUE(back->runs[1].parity.empty());
    EXPECT_FALSE(decode_redo_record(bytes, kFour)) << "it is no redo record";
    for (std::size_t i = 0; i < bytes.size(); i += 7) {
        std::vector<std::byte> damaged = bytes;
        damaged[i] ^= std::byte{4};
        EXPECT_FALSE(decode_partial_record(damaged, kFour)) << i;
        EXPECT_FALSE(decode_partial_record(ConstBytes(bytes).first(i), kFour)) << i;
    }
}

TEST(PartialRecord, outside_the_array_is_refused) {
    const std::vector<std::byte> sum(kBlockBytes);
    const auto refused = [&](StripeIndex stripe, std::vector<PartialRun> runs) {
        return !decode_partial_record(encode(PartialRecord{stripe, std::move(runs), 0, {}}), kFour);
    };
    EXPECT_FALSE(refused(StripeIndex(5), {{3, 1, 1, sum}}));
    EXPECT_TRUE(refused(StripeIndex(5), {{4, 1, 1, sum}})) << "strips have four blocks";
    EXPECT_TRUE(refused(StripeIndex(128), {{0, 1, 1, sum}}));
    EXPECT_TRUE(refused(StripeIndex(5), {{0, 1, 8, sum}})) << "no such strip";
    EXPECT_TRUE(refused(StripeIndex(5), {{0, 1, 0, sum}})) << "nothing is written";
    EXPECT_TRUE(refused(StripeIndex(5), {{0, 1, 7, sum}})) << "all are written, and there is a sum";
    EXPECT_TRUE(refused(StripeIndex(5), {{0, 1, 1, {}}}));
    EXPECT_TRUE(refused(StripeIndex(5), {{1, 1, 1, sum}, {1, 1, 2, sum}})) << "one block twice";
}

TEST(UnflushedStrips, are_known_until_a_flush_that_began_after_the_write) {
    detail::UnflushedStrips set;
    EXPECT_EQ(set.of(9, 0), 0U);
    set.begin(9, 0b01, 0);
    EXPECT_EQ(set.of(9, 100), 0b01U) << "under way";
    set.end(9, 10, /*flushes=*/3, 0);
    EXPECT_EQ(set.of(9, 3), 0b01U) << "that one had begun before";
    set.begin(9, 0b10, 3);
    EXPECT_EQ(set.of(9, 3), 0b11U);
    set.end(9, 10, 3, 3);
    EXPECT_EQ(set.of(9, 4), 0U);
    set.begin(9, 0b100, 4);
    EXPECT_EQ(set.of(9, 4), 0b100U) << "the others are flushed";
    set.begin(8, 1, 4);
    set.end(8, 9, 5, 4);
    set.begin(7, 1, 6);
    set.end(7, 8, 6, 6);
    EXPECT_EQ(set.of(8, 6), 0U);
    EXPECT_EQ(set.of(9, 6), 0b100U) << "that write has not ended";
}

// ---- on an array: three data strips of 16 KiB in a stripe, four where it has five members

struct Partial {
    explicit Partial(FixtureOptions options = {}) : f(with_policy(std::move(options))) {
        CHECK(f.create());
        f.settle();
        model = f.pattern(kSectors);
        CHECK(f.write(0, model));
        CHECK(f.flush());
        CHECK(f.scheduler.run_until([&] { return f.array->status().journal.listed_stripes == 0; }));
        older = model;
    }
    static FixtureOptions with_policy(FixtureOptions options) {
        options.member_bytes = 4 * kMiB;
        options.policy = RecoveryPolicy::kPartial;
        return options;
    }
    void rewrite(std::uint64_t lba, std::uint64_t sectors) {
        const auto data = f.pattern(sectors);
        const auto r = f.write(lba, data);
        ASSERT_TRUE(r) << r.error().message;
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
    }
    /// `lost`: that member goes with it.
    void power_cut(std::uint32_t lost, sim::CachePolicy policy) {
        for (auto& d : f.disks) {
            d->power_cut(policy);
        }
        f.stop_anyhow();
        for (std::uint32_t i = 0; i < f.disks.size(); ++i) {
            if (i != lost) {
                f.disks[i]->revive();
            }
        }
    }
    /// Every sector is what was written last, or before; returns the first sectors of blocks that cannot be read.
    std::vector<std::uint64_t> check(const std::string& when) {
        const auto got = f.read(0, kSectors);
        std::vector<std::uint64_t> out;
        for (std::uint64_t b = 0; b < kSectors / kSectorsPerBlock; ++b) {
            if (got.status[b] == BlockStatus::kUnreadable) {
                out.push_back(b * kSectorsPerBlock);
                continue;
            }
            for (std::uint64_t s = b * kSectorsPerBlock; s < (b + 1) * kSectorsPerBlock; ++s) {
                const auto is = [&](const std::vector<std::byte>& all) {
                    return std::ranges::equal(ConstBytes(all).subspan(s * kSectorBytes, kSectorBytes),
                                              ConstBytes(got.data).subspan(s * kSectorBytes, kSectorBytes));
                };
                EXPECT_TRUE(is(model) || is(older)) << when << ": sector " << s;
            }
        }
        return out;
    }
    [[nodiscard]] JournalStatus status() const { return f.array->status().journal; }

    static constexpr std::uint64_t kSectors = 1920;
    static constexpr std::uint64_t kRow = 96;
    static constexpr std::uint64_t kStrip = 32;
    ArrayFixture f;
    std::vector<std::byte> model;
    std::vector<std::byte> older;  ///< when it was last flushed
};

constexpr std::array kCuts{sim::CachePolicy::kDropAll, sim::CachePolicy::kKeepAll, sim::CachePolicy::kRandom};

TEST(Ppl, a_crash_that_takes_a_member_costs_nothing_where_single_strips_were_written) {
    for (const std::uint32_t shards : {1U, 4U}) {
        for (const sim::CachePolicy cut : kCuts) {
            for (std::uint32_t lost = 0; lost < 4; ++lost) {
                SCOPED_TRACE(std::to_string(shards) + " shards, without " + std::to_string(lost));
                Partial p({.shards = shards});
                for (std::uint64_t row = 0; row < 9; ++row) {  // another strip in each, parity on each member
                    p.rewrite(row * Partial::kRow + row % 3 * Partial::kStrip + row % 2 * 8, 8 + row);
                }
                EXPECT_TRUE(p.status().partial);
                EXPECT_GE(p.status().partial_records, 9U);
                p.power_cut(lost, cut);
                const auto r = p.f.reopen();
                ASSERT_TRUE(r) << r.error().message;
                EXPECT_GT(p.status().partial_blocks, 0U);
                EXPECT_TRUE(p.check("after the power cut").empty());
                p.rewrite(3, 500);
                EXPECT_TRUE(p.check("after more writes").empty());
            }
        }
    }
}

TEST(Ppl, writes_that_begin_and_end_inside_blocks_of_two_strips_are_known) {
    constexpr std::uint64_t kWideRow = 4 * Partial::kStrip;
    for (const sim::CachePolicy cut : kCuts) {
        for (std::uint32_t lost = 0; lost < 5; ++lost) {
            SCOPED_TRACE("without " + std::to_string(lost));
            Partial p({.members = 5, .checksums = false});
            for (std::uint64_t row = 0; row < 5; ++row) {  // parity on each member
                p.rewrite(row * kWideRow + row % 3 * Partial::kStrip + 27, 10);
            }
            p.power_cut(lost, cut);
            ASSERT_TRUE(p.f.reopen());
            EXPECT_TRUE(p.check("after the power cut").empty());
        }
    }
}

TEST(Ppl, of_strips_written_together_only_those_are_unknown) {
    for (const sim::CachePolicy cut : kCuts) {
        for (std::uint32_t lost = 0; lost < 4; ++lost) {
            SCOPED_TRACE("without " + std::to_string(lost));
            Partial p;
            const std::uint64_t at = 5 * Partial::kRow;
            p.rewrite(at + 8, 8);  // one after the other, into the same columns
            p.rewrite(at + Partial::kStrip + 8, 8);
            p.power_cut(lost, cut);
            ASSERT_TRUE(p.f.reopen());
            for (const std::uint64_t lba : p.check("after the power cut")) {
                EXPECT_TRUE(lba == at + 8 || lba == at + Partial::kStrip + 8) << lba;
            }
            p.rewrite(at, Partial::kRow);
            EXPECT_TRUE(p.check("written anew").empty());
        }
    }
}

TEST(Ppl, a_flush_between_two_strips_leaves_both_known) {
    for (std::uint32_t lost = 0; lost < 4; ++lost) {
        SCOPED_TRACE("without " + std::to_string(lost));
        Partial p;
        const std::uint64_t at = 5 * Partial::kRow;
        p.rewrite(at + 8, 8);
        ASSERT_TRUE(p.f.stop());  // with the checksum map
        ASSERT_TRUE(p.f.reopen());
        p.older = p.model;
        p.rewrite(at + Partial::kStrip + 8, 8);
        p.power_cut(lost, sim::CachePolicy::kDropAll);
        ASSERT_TRUE(p.f.reopen());
        EXPECT_TRUE(p.check("after the power cut").empty());
    }
}

TEST(Ppl, the_flush_of_each_second_between_two_strips_leaves_both_known) {
    for (std::uint32_t lost = 0; lost < 4; ++lost) {
        SCOPED_TRACE("without " + std::to_string(lost));
        Partial p;
        const std::uint64_t at = 5 * Partial::kRow;
        p.rewrite(at + 8, 8);
        p.f.scheduler.run_for(std::chrono::seconds(3));
        p.older = p.model;
        p.rewrite(at + Partial::kStrip + 8, 8);
        p.power_cut(lost, sim::CachePolicy::kDropAll);
        ASSERT_TRUE(p.f.reopen());
        EXPECT_TRUE(p.check("after the power cut").empty());
    }
}

TEST(Ppl, what_parity_told_stays_when_the_member_is_back) {
    for (std::uint32_t lost = 0; lost < 4; ++lost) {
        SCOPED_TRACE("without " + std::to_string(lost));
        Partial p;
        for (std::uint64_t row = 0; row < 8; ++row) {
            p.rewrite(row * Partial::kRow + row % 3 * Partial::kStrip, 8);
        }
        p.power_cut(lost, sim::CachePolicy::kRandom);
        ASSERT_TRUE(p.f.reopen());
        const auto told = p.f.read(0, Partial::kSectors);
        ASSERT_TRUE(told.result);
        ASSERT_TRUE(p.f.stop());
        p.f.disks[lost]->revive();
        ASSERT_TRUE(p.f.reopen());
        ASSERT_TRUE(p.f.scheduler.run_until(
            [&] { return p.f.array->status().state == ArrayState::kOptimal && !p.f.array->status().rebuild; },
            std::chrono::hours(1)));
        EXPECT_TRUE(p.f.read(0, Partial::kSectors).data == told.data);
        for (std::uint32_t gone = 0; gone < 4; ++gone) {
            ASSERT_TRUE(p.f.stop());
            ArrayConfig without = p.f.config();
            without.members[gone].device = nullptr;
            ASSERT_TRUE(p.f.open(without));
            EXPECT_TRUE(p.f.read(0, Partial::kSectors).data == told.data) << "then without " << gone;
        }
    }
}

TEST(Ppl, a_member_lost_before_the_crash_is_no_different) {
    for (std::uint32_t lost = 0; lost < 4; ++lost) {
        SCOPED_TRACE("without " + std::to_string(lost));
        Partial p;
        p.rewrite(2 * Partial::kRow, 8);
        p.f.disks[lost]->die();
        p.rewrite(2 * Partial::kRow + Partial::kStrip, 8);  // logged, onto columns that are not flushed
        p.rewrite(7 * Partial::kRow + 3, 20);
        p.power_cut(lost, sim::CachePolicy::kDropAll);
        ASSERT_TRUE(p.f.reopen());
        EXPECT_TRUE(p.check("after the power cut").empty());
    }
}

TEST(Ppl, what_a_start_told_stays_known_after_another_power_cut) {
    for (std::uint64_t rows = 4; rows < 12; ++rows) {  // of some the log is more than half full
        for (std::uint32_t lost = 0; lost < 4; ++lost) {
            SCOPED_TRACE(std::to_string(rows) + " rows, without " + std::to_string(lost));
            Partial p;
            for (std::uint64_t row = 0; row < rows; ++row) {
                p.rewrite(row * Partial::kRow + row % 3 * Partial::kStrip, 8);
            }
            p.f.disks[lost]->die();
            p.rewrite(18 * Partial::kRow, 8);
            p.power_cut(lost, sim::CachePolicy::kDropAll);
            ASSERT_TRUE(p.f.reopen());
            EXPECT_TRUE(p.check("after the power cut").empty());
            p.power_cut(lost, sim::CachePolicy::kDropAll);
            ASSERT_TRUE(p.f.reopen());
            EXPECT_TRUE(p.check("after another one").empty());
        }
    }
}

/// PP6. What two strips left torn stays unknown when a third one is written and another crash follows.
TEST(Ppl, what_a_start_could_not_tell_no_later_start_tells) {
    const std::uint64_t at = 5 * Partial::kRow;
    const std::uint32_t lost = kFour.data_member(StripeIndex(5), 0);
    std::size_t unknown = 0;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        SCOPED_TRACE(seed);
        Partial p({.seed = seed, .checksums = seed % 2 == 0});
        p.rewrite(at + 8, 8);
        p.rewrite(at + Partial::kStrip + 8, 8);
        p.power_cut(lost, sim::CachePolicy::kRandom);
        ASSERT_TRUE(p.f.reopen());
        unknown += p.check("after the first power cut").size();
        p.rewrite(at + 2 * Partial::kStrip + 8, 8);
        p.power_cut(lost, sim::CachePolicy::kKeepAll);
        ASSERT_TRUE(p.f.reopen());
        for (const std::uint64_t lba : p.check("after the second power cut")) {
            EXPECT_EQ(lba, at + 8);
        }
    }
    EXPECT_GT(unknown, 0U);
}

Task<void> write_to(ArrayFixture& f, std::uint64_t lba, std::vector<std::byte> data) {
    const Buffer buffer = *f.environment.pool().allocate(data.size());
    const Slice slice = buffer.slice(data.size(), Lba(lba));
    std::ranges::copy(data, slice.data().begin());
    slice.seal();
    [[maybe_unused]] const Result<void> r = co_await f.volume().write(Lba(lba), slice, {});  // the crash may end it
}

/// PP5. A member dies while a strip is written; the next strip of the row is logged whole.
TEST(Ppl, a_member_that_is_lost_between_two_strips_is_no_different) {
    const std::uint64_t at = 5 * Partial::kRow;
    const std::uint32_t lost = kFour.data_member(StripeIndex(5), 2);
    for (std::uint64_t seed = 1; seed <= 130; ++seed) {
        SCOPED_TRACE(seed);
        Partial p({.seed = seed, .checksums = seed % 2 == 0});
        auto& random = p.f.scheduler.random();
        const auto write = [&](std::uint64_t strip) {
            const std::uint64_t lba = at + strip * Partial::kStrip + 8;
            const auto data = p.f.pattern(8);
            std::ranges::copy(data, p.model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
            p.f.scheduler.start(*p.f.caller, write_to(p.f, lba, data));
        };
        ASSERT_TRUE(p.f.scheduler.run_until([&] { return p.status().named_stripes == 0; }));  // durably
        write(0);
        p.f.scheduler.run_for(Duration(2'000'000 + random.below(3'000'000)));
        p.f.disks[lost]->die();
        write(1);
        p.f.scheduler.run_for(Duration(2'000'000 + random.below(3'000'000)));
        p.power_cut(lost, sim::CachePolicy::kDropAll);
        ASSERT_TRUE(p.f.reopen());
        EXPECT_TRUE(p.check("after the power cut").empty());
    }
}

TEST(Ppl, with_all_members_it_is_the_journal) {
    Partial p;
    p.rewrite(40, 300);
    p.power_cut(4, sim::CachePolicy::kRandom);
    ASSERT_TRUE(p.f.reopen());
    EXPECT_GT(p.status().recovered_stripes, 0U);
    EXPECT_EQ(p.status().partial_blocks, 0U);
    p.f.settle();
    EXPECT_TRUE(p.check("after the power cut").empty());
}

TEST(Ppl, is_for_level_5) {
    ArrayFixture f({.level = "6", .members = 5, .policy = RecoveryPolicy::kPartial});
    ArrayConfig c = f.config();
    c.create = ArrayConfig::Create::kIfBlank;
    const auto r = f.open(c);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kInvalidArgument);
    EXPECT_NE(r.error().message.find("level 5"), std::string::npos) << r.error().message;
}

}  // namespace
}  // namespace gemel::raid
