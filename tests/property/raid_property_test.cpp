// SPDX-License-Identifier: Apache-2.0
// Properties of every row of the level table: whatever is written is read, with any tolerated set of members removed,
// and redundancy is what a plain loop makes of the data.
#include <gtest/gtest.h>

#include <bit>
#include <set>

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
                    const std::uint32_t members = row.min_members + extra * row.step;
                    if (row.fits(members)) {
                        out.push_back({std::string(row.name), members, strip, shards, strip == 16384U ? 8U : 1U});
                    }
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
    o.more_bytes = find_level(c.level)->layout == Layout::kLinear ? 112 * kKiB + 512 * c.alignment : 0;
    return o;
}

/// Sets of members that may be gone: each single one, and the most that the level tolerates in some orders.
std::vector<std::uint32_t> removable(const Case& c) {
    const LevelRow& row = *find_level(c.level);
    std::set<std::uint32_t> out;
    for (std::uint32_t first = 0; first < c.members; ++first) {
        for (const std::uint32_t stride : {1U, c.members - 1, c.members / 2 + 1}) {
            std::uint32_t lost = 0;
            for (std::uint32_t i = 0; i < c.members; ++i) {
                const std::uint32_t with = lost | 1U << (first + i * stride) % c.members;
                lost = row.tolerates(with, c.members) ? with : lost;
                out.insert(lost);
            }
        }
    }
    out.erase(0);
    return {out.begin(), out.end()};
}

std::string text_of(std::uint32_t set) {
    std::string out;
    for (std::uint32_t m = 0; m < kMaxMembers; ++m) {
        out += (set >> m & 1U) != 0 ? " " + std::to_string(m) : "";
    }
    return out;
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
    for (const std::uint32_t gone : removable(c)) {
        ArrayConfig config = f.config();
        for (std::uint32_t m = 0; m < c.members; ++m) {
            config.members[m].device = (gone >> m & 1U) != 0 ? nullptr : config.members[m].device;
        }
        const auto r = f.open(std::move(config));
        ASSERT_TRUE(r) << r.error().message;
        EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
        expect_model(f, model, "without members" + text_of(gone));
        ASSERT_TRUE(f.stop());
    }
}

TEST_P(LevelProperty, writes_of_a_degraded_array_are_read_back) {
    const Case c = GetParam();
    const std::vector<std::uint32_t> sets = removable(c);
    for (std::size_t i = 0; i < sets.size(); i += 1 + sets.size() / 8) {
        const std::uint32_t gone = sets[i];
        ArrayFixture f(options_of(c, 20 + gone));
        ASSERT_TRUE(f.create());
        std::vector<std::byte> model(bytes_of(f.volume().limits().sectors));
        write_random(f, model, 20, c.alignment);
        f.settle();
        for (std::uint32_t m = 0; m < c.members; ++m) {
            if ((gone >> m & 1U) != 0) {
                f.disks[m]->die();
                write_random(f, model, 20, c.alignment);
            }
        }
        write_random(f, model, 40, c.alignment);
        const ArrayStatus status = f.array->status();
        for (std::uint32_t m = 0; m < c.members; ++m) {
            EXPECT_EQ(status.members[m].state == MemberState::kInSync, (gone >> m & 1U) == 0) << text_of(gone);
        }
        expect_model(f, model, "members" + text_of(gone) + " died");
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
        expect_model(f, model, "after a restart");
    }
}

/// 2 x in the field of 256 elements with the polynomial 0x11d.
std::uint8_t doubled(std::uint8_t x) {
    return static_cast<std::uint8_t>(x << 1U ^ (x >> 7U) * 0x1d);
}

/// Legs are equal, P is the sum of the data, Q the sum of 2^i times strip i.
void expect_redundancy(const Geometry& g, const std::vector<std::vector<std::byte>>& images, std::uint64_t stripe) {
    const auto at = [&](std::uint32_t member, std::size_t i) {
        return static_cast<std::uint8_t>(images[member][stripe * g.strip_sectors * kSectorBytes + i]);
    };
    for (std::size_t i = 0; i < g.strip_sectors * kSectorBytes; ++i) {
        if (g.parities() == 0) {
            for (std::uint32_t m = 0; m < g.members; ++m) {
                const std::uint32_t first = g.data_member(StripeIndex(stripe), *g.data_index(StripeIndex(stripe), m));
                ASSERT_EQ(at(m, i), at(first, i)) << "legs differ in stripe " << stripe << " at " << i;
            }
            continue;
        }
        std::uint8_t p = 0;
        std::uint8_t q = 0;
        for (std::uint32_t d = g.data_members(); d-- > 0;) {
            const std::uint8_t data = at(g.data_member(StripeIndex(stripe), d), i);
            p = static_cast<std::uint8_t>(p ^ data);
            q = static_cast<std::uint8_t>(doubled(q) ^ data);
        }
        ASSERT_EQ(at(g.parity_member(StripeIndex(stripe), 0), i), p) << "stripe " << stripe << " at " << i;
        if (g.parities() == 2) {
            ASSERT_EQ(at(g.parity_member(StripeIndex(stripe), 1), i), q) << "stripe " << stripe << " at " << i;
        }
    }
}

TEST_P(LevelProperty, redundancy_is_a_function_of_the_data_after_a_crash_and_resync) {
    const Case c = GetParam();
    const LevelRow& row = *find_level(c.level);
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
        if (!row.redundant) {
            continue;
        }
        std::vector<std::vector<std::byte>> images;
        for (auto& disk : f.disks) {
            images.push_back(disk->snapshot());
        }
        const Geometry g{row.layout, c.members, c.strip_bytes / kSectorBytes, 8};
        for (std::uint64_t stripe = 0; stripe < model.size() / kSectorBytes / g.row_sectors(); ++stripe) {
            expect_redundancy(g, images, stripe);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(AllLevels, LevelProperty, ::testing::ValuesIn(cases()), [](const auto& info) {
    const Case& c = info.param;
    return std::string(find_level(c.level)->long_name) + "_m" + std::to_string(c.members) + "_strip" +
           std::to_string(c.strip_bytes) + "_s" + std::to_string(c.shards);
});

TEST(Geometry, every_sector_has_one_place_and_the_place_has_that_sector) {
    for (const LevelRow& row : kLevelTable) {
        for (std::uint32_t members = row.min_members; members <= 10; ++members) {
            if (!row.fits(members)) {
                continue;
            }
            Geometry g{row.layout, members, 8, 8 * 3 * 9};
            std::uint64_t most = g.member_sectors;
            for (std::uint64_t end = 0, m = 0; row.layout == Layout::kLinear && m < members; ++m) {
                most = g.member_sectors + m * 16;
                end += most;
                g.ends[m] = end;
            }
            std::vector<bool> used(members * most, false);
            std::uint64_t run = 0;
            for (std::uint64_t lba = 0; lba < g.sectors().value; ++lba) {
                const Place p = g.locate(Lba(lba));
                ASSERT_LT(p.member, members);
                ASSERT_LT(p.member_lba.value, most);
                ASSERT_TRUE(run <= 1 || g.run_at(Lba(lba)) == run - 1) << "a run ends early";
                run = g.run_at(Lba(lba));
                ASSERT_EQ(g.data_index(p.stripe, p.member), row.layout == Layout::kLinear ? 0 : p.data_index);
                const std::uint32_t legs = g.legs(Lba(lba));
                ASSERT_EQ(static_cast<std::uint32_t>(std::countr_zero(legs)), p.member);
                ASSERT_EQ(row.tolerates(legs, members), row.parities() > 0) << "all copies gone";
                for (std::uint32_t m = 0; m < members; ++m) {
                    if ((legs >> m & 1U) != 0) {
                        const std::size_t at = m * most + p.member_lba.value;
                        ASSERT_FALSE(used[at]);
                        used[at] = true;
                        ASSERT_EQ(g.lba_of(m, p.member_lba), Lba(lba));
                    }
                }
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

TEST(Geometry, raid6_is_left_symmetric_with_q_after_p) {
    // The table of md's default layout for five members, P as -1 and Q as -2.
    constexpr Geometry g{Layout::kDoubleParity, 5, 1, 10};
    constexpr std::array<std::array<int, 5>, 5> expected{
        {{-2, 0, 1, 2, -1}, {3, 4, 5, -1, -2}, {7, 8, -1, -2, 6}, {11, -1, -2, 9, 10}, {-1, -2, 12, 13, 14}}};
    for (std::uint64_t row = 0; row < 5; ++row) {
        for (std::uint32_t m = 0; m < 5; ++m) {
            const auto lba = g.lba_of(m, Lba(row));
            const int parity = g.parity_member(StripeIndex(row)) == m ? -1 : -2;
            EXPECT_EQ(lba ? static_cast<int>(lba->value) : parity, expected[row][m]) << row << " " << m;
        }
    }
}

}  // namespace
}  // namespace gemel::raid
