// SPDX-License-Identifier: Apache-2.0
// Properties of every row of the level table: whatever is written is read, with any tolerated set of members removed,
// and parity is the exclusive or of the data.
#include <gtest/gtest.h>

#include "raid/geometry.hpp"
#include "raid/level_table.hpp"
#include "raid/superblock.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;

struct Case {
    std::string level;
    std::uint32_t members;
    std::uint32_t strip_bytes;
    std::uint32_t shards;
    std::uint32_t alignment;
};

std::vector<Case> cases() {
    std::vector<Case> out;
    for (const LevelRow& row : kLevelTable) {
        for (const std::uint32_t extra : {0U, 1U, 3U}) {
            for (const std::uint32_t strip : {4096U, 16384U, 65536U}) {
                for (const std::uint32_t shards : {1U, 4U}) {
                    out.push_back(
                        {std::string(row.name), row.min_members + extra, strip, shards, strip == 16384U ? 8U : 1U});
                }
            }
        }
    }
    return out;
}

class LevelProperty : public ::testing::TestWithParam<Case> {};

FixtureOptions options_of(const Case& c, std::uint64_t seed) {
    FixtureOptions o;
    o.seed = seed;
    o.level = c.level;
    o.members = c.members;
    o.strip_bytes = c.strip_bytes;
    o.shards = c.shards;
    o.alignment_sectors = c.alignment;
    o.member_bytes = kMiB;
    return o;
}

/// A random range of the volume, odd offsets and lengths unless the members are 4Kn.
std::pair<std::uint64_t, std::uint64_t> random_range(ArrayFixture& f, std::uint64_t sectors, std::uint64_t unit) {
    auto& random = f.scheduler.random();
    const std::uint64_t most = random.one_in(4) ? 512 : 40;
    const std::uint64_t count = std::min(sectors / unit, 1 + random.below(most / unit)) * unit;
    const std::uint64_t lba = random.below((sectors - count) / unit + 1) * unit;
    return {lba, count};
}

void write_random(ArrayFixture& f, std::vector<std::byte>& model, int writes, std::uint64_t unit) {
    const std::uint64_t sectors = model.size() / kSectorBytes;
    for (int i = 0; i < writes; ++i) {
        const auto [lba, count] = random_range(f, sectors, unit);
        const auto data = f.pattern(count);
        const auto r = f.write(lba, data);
        ASSERT_TRUE(r) << r.error().message;
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
    }
}

void expect_model(ArrayFixture& f, const std::vector<std::byte>& model, const std::string& what) {
    const std::uint64_t sectors = model.size() / kSectorBytes;
    for (std::uint64_t lba = 0; lba < sectors; lba += 256) {
        const std::uint64_t count = std::min<std::uint64_t>(256, sectors - lba);
        const auto got = f.read(lba, count);
        ASSERT_TRUE(got.result) << what << ": " << got.result.error().message;
        const auto first = model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes);
        ASSERT_TRUE(std::equal(got.data.begin(), got.data.end(), first)) << what << " at sector " << lba;
    }
}

TEST_P(LevelProperty, what_is_written_is_read_with_any_tolerated_member_removed) {
    const Case c = GetParam();
    ArrayFixture f(options_of(c, 7));
    ASSERT_TRUE(f.create());
    std::vector<std::byte> model(bytes_of(f.volume().limits().sectors));
    write_random(f, model, 40, c.alignment);
    expect_model(f, model, "during the first resync");
    f.settle();
    write_random(f, model, 60, c.alignment);
    expect_model(f, model, "optimal");
    ASSERT_TRUE(f.stop());
    const LevelRow* row = find_level(c.level);
    const std::uint32_t removals = row->tolerated(c.members) > 0 ? c.members : 0;
    for (std::uint32_t gone = 0; gone < removals; ++gone) {
        ArrayConfig config = f.config();
        config.members[gone].device = nullptr;
        const auto r = f.open(std::move(config));
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
        expect_model(f, model, "without member " + std::to_string(gone));
        ASSERT_TRUE(f.stop());
    }
}

TEST_P(LevelProperty, writes_of_a_degraded_array_are_read_back) {
    const Case c = GetParam();
    const LevelRow* row = find_level(c.level);
    if (row->tolerated(c.members) == 0) {
        return;  // nothing can be degraded
    }
    for (std::uint32_t gone = 0; gone < c.members; ++gone) {
        ArrayFixture f(options_of(c, 20 + gone));
        ASSERT_TRUE(f.create());
        std::vector<std::byte> model(bytes_of(f.volume().limits().sectors));
        write_random(f, model, 20, c.alignment);
        f.settle();
        f.disks[gone]->die();
        write_random(f, model, 60, c.alignment);
        EXPECT_EQ(f.array->status().members[gone].state, MemberState::kFailed);
        expect_model(f, model, "member " + std::to_string(gone) + " died");
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
        expect_model(f, model, "after a restart");
    }
}

TEST_P(LevelProperty, redundancy_is_a_function_of_the_data_after_a_crash_and_resync) {
    const Case c = GetParam();
    for (const bool power : {false, true}) {
        ArrayFixture f(options_of(c, power ? 31 : 32));
        ASSERT_TRUE(f.create());
        std::vector<std::byte> model(bytes_of(f.volume().limits().sectors));
        write_random(f, model, 30, c.alignment);
        ASSERT_TRUE(f.flush());
        f.crash(power);
        ASSERT_TRUE(f.reopen());
        f.settle();
        expect_model(f, model, "after the crash");
        ASSERT_TRUE(f.stop());
        const LevelRow* row = find_level(c.level);
        std::vector<std::vector<std::byte>> images;
        for (auto& disk : f.disks) {
            images.push_back(disk->snapshot());
        }
        // The data area ends before the areas; compare what the geometry calls data.
        const std::size_t bytes = model.size() / Geometry{row->layout, c.members, 8, 8}.data_members() / 2;
        for (std::size_t at = 0; at + 8 <= bytes; at += 8) {
            std::uint64_t sum = 0;
            for (const auto& image : images) {
                const auto word = load_le<std::uint64_t>(image.data() + at);
                sum ^= word;
                if (row->layout == Layout::kMirrored) {
                    ASSERT_EQ(word, load_le<std::uint64_t>(images[0].data() + at)) << "legs differ at " << at;
                }
            }
            if (row->layout == Layout::kParity) {
                ASSERT_EQ(sum, 0U) << "parity is wrong at " << at;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(AllLevels, LevelProperty, ::testing::ValuesIn(cases()), [](const auto& info) {
    const Case& c = info.param;
    return "raid" + c.level + "_m" + std::to_string(c.members) + "_strip" + std::to_string(c.strip_bytes) + "_s" +
           std::to_string(c.shards);
});

TEST(Geometry, every_sector_has_one_place_and_the_place_has_that_sector) {
    for (const LevelRow& row : kLevelTable) {
        for (std::uint32_t members = row.min_members; members <= 9; ++members) {
            const Geometry g{row.layout, members, 8, 8 * 3 * 9};
            std::vector<bool> used(members * g.member_sectors, false);
            for (std::uint64_t lba = 0; lba < g.sectors().value; ++lba) {
                const Place p = g.locate(Lba(lba));
                ASSERT_LT(p.member, members);
                ASSERT_LT(p.member_lba.value, g.member_sectors);
                const std::size_t at = p.member * g.member_sectors + p.member_lba.value;
                ASSERT_FALSE(used[at]);
                used[at] = true;
                ASSERT_EQ(g.lba_of(p.member, p.member_lba), Lba(lba));
                ASSERT_EQ(g.data_index(p.stripe, p.member), p.data_index);
            }
        }
    }
}

TEST(Geometry, raid5_is_left_symmetric) {
    // The table of md's default layout for four members, parity as P.
    constexpr Geometry g{Layout::kParity, 4, 1, 8};
    constexpr std::array<std::array<int, 4>, 4> expected{
        {{0, 1, 2, -1}, {4, 5, -1, 3}, {8, -1, 6, 7}, {-1, 9, 10, 11}}};
    for (std::uint64_t row = 0; row < 4; ++row) {
        for (std::uint32_t m = 0; m < 4; ++m) {
            const auto lba = g.lba_of(m, Lba(row));
            EXPECT_EQ(lba ? static_cast<int>(lba->value) : -1, expected[row][m]) << row << " " << m;
        }
    }
}

}  // namespace
}  // namespace gemel::raid
