// SPDX-License-Identifier: Apache-2.0
// Growth over all levels: where data and the checksum map lie on the devices of an array that has grown several times,
// against the inverse and against what was there before.
#include <gtest/gtest.h>

#include <set>

#include "raid/assembly.hpp"
#include "raid/checksum_page.hpp"
#include "raid/growth.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::raid {
namespace {

struct Grown {
    const LevelRow* row = nullptr;
    std::uint32_t members = 0;
    std::vector<std::uint64_t> sizes;
    std::vector<Superblock> steps;  ///< as made, then after each growth
};

Grown grow_at_random(const LevelRow& row, std::uint32_t members, std::uint32_t strip, sim::SeededRandom& random) {
    Grown out{&row, members, {}, {}};
    ArrayConfig config;
    config.name = "array";
    config.level = std::string(row.name);
    config.strip_bytes = strip;
    config.members.resize(members);
    std::vector<std::string> names;
    for (std::uint32_t m = 0; m < members; ++m) {
        out.sizes.push_back(2048 + strip / 64 + random.below(512));
        names.push_back("member " + std::to_string(m));
    }
    auto sb = plan_format(config, row, out.sizes, random);
    CHECK(sb.has_value());
    out.steps.push_back(*std::move(sb));
    for (int i = 0; i < 3; ++i) {
        for (std::uint64_t& size : out.sizes) {
            size += 700 + strip / 128 + random.below(3000);
        }
        auto next = plan_growth(out.steps.back(), out.sizes, names);
        CHECK(next.has_value());
        out.steps.push_back(*std::move(next));
    }
    return out;
}

/// Every sector of the device has one use at most, and the inverse finds it.
void expect_one_use(const Grown& grown, const Superblock& sb, std::uint32_t m) {
    const Geometry g = geometry_of(sb);
    std::vector<bool> used(superblock_slot(SectorCount(grown.sizes[m]), 0).value, false);
    const auto use = [&used](std::uint64_t sector) {
        ASSERT_LT(sector, used.size()) << "in the superblocks, or beyond";
        ASSERT_FALSE(used[sector]) << sector;
        used[sector] = true;
    };
    for (std::uint64_t at = 0; at < g.data_of(m); ++at) {
        const Lba lba = g.device_lba(m, Lba(at));
        use(lba.value);
        ASSERT_EQ(lba.value % kSectorsPerBlock, at % kSectorsPerBlock) << "AS2";
        ASSERT_TRUE(at % g.strip_sectors == 0 || lba == g.device_lba(m, Lba(at - 1)) + 1) << "a strip is in two pieces";
        if (g.grows(m)) {
            ASSERT_EQ(g.added.data_at(lba.value, g.data_of(m)), at);
        }
    }
    for (const AreaRecord& area : sb.areas) {
        for (std::uint64_t s = 0; s < area.sectors.value; ++s) {
            use(area.lba.value + sb.area_shift(m) + s);
            if (g.grows(m)) {
                ASSERT_FALSE(g.added.data_at(area.lba.value + sb.area_shift(m) + s, g.data_of(m)));
            }
        }
    }
    const std::uint64_t in_area = sb.area(AreaKind::kChecksums).sectors.value / kSectorsPerBlock;
    for (std::uint64_t page = in_area; grown.row->redundant && page < map_pages(sb); ++page) {
        for (std::uint64_t s = 0; s < kSectorsPerBlock; ++s) {
            use(g.added.map_page(page - in_area).value + s);
        }
    }
    EXPECT_LE(sb.device_end(m), used.size());
}

/// What a host has written stays where it is.
void expect_kept(const Geometry& before, const Geometry& after) {
    ASSERT_GT(after.sectors(), before.sectors());
    for (std::uint64_t lba = 0; lba < before.sectors().value; ++lba) {
        const Place then = before.locate(Lba(lba));
        const Place now = after.locate(Lba(lba));
        ASSERT_EQ(then, now);
        ASSERT_EQ(before.device_lba(then.member, then.member_lba), after.device_lba(now.member, now.member_lba));
        ASSERT_EQ(before.legs(Lba(lba)), after.legs(Lba(lba)));
    }
}

/// A run lies in one piece on its member's device, and the map has room for its checksums.
void expect_runs_and_map(const Grown& grown, const Superblock& sb) {
    const Geometry g = geometry_of(sb);
    for (std::uint64_t lba = 0; lba < g.sectors().value; lba += 1 + lba % 7) {
        const Place first = g.locate(Lba(lba));
        const std::uint64_t run = g.run_at(Lba(lba));
        ASSERT_GT(run, 0U);
        ASSERT_LE(lba + run, g.sectors().value);
        const Place last = g.locate(Lba(lba + run - 1));
        ASSERT_EQ(first.member, last.member);
        ASSERT_EQ(g.device_lba(first.member, first.member_lba) + (run - 1), g.device_lba(last.member, last.member_lba));
    }
    if (grown.row->redundant) {
        EXPECT_GE(map_pages(sb), ChecksumLayout::of(g).area_pages());
        const ChecksumLayout map = ChecksumLayout::of(g);
        for (std::uint64_t page = 0; page < map.pages(); ++page) {
            for (std::uint32_t c = 0; c < map.copies; ++c) {
                ASSERT_LT(map.place(page, c).index, map_pages(sb));
            }
        }
    }
}

TEST(Growth, over_all_levels_nothing_moves_and_nothing_overlaps) {
    sim::SeededRandom random(41);
    for (const LevelRow& row : kLevelTable) {
        for (std::uint32_t members = row.min_members; members <= 8; ++members) {
            if (!row.fits(members)) {
                continue;
            }
            const std::uint32_t strip = 4096U << random.below(5);
            SCOPED_TRACE(std::string(row.name) + ", " + std::to_string(members) + " members, strip " +
                         std::to_string(strip));
            const Grown grown = grow_at_random(row, members, strip, random);
            for (std::size_t i = 1; i < grown.steps.size(); ++i) {
                std::array<std::byte, kSuperblockBytes> bytes{};
                encode(grown.steps[i], bytes);
                ASSERT_EQ(decode_superblock(bytes), grown.steps[i]);
                expect_kept(geometry_of(grown.steps[i - 1]), geometry_of(grown.steps[i]));
                expect_runs_and_map(grown, grown.steps[i]);
            }
            for (std::uint32_t m = 0; m < members; ++m) {
                expect_one_use(grown, grown.steps.back(), m);
            }
        }
    }
}

TEST(SlotPlace, the_next_superblock_never_touches_the_newest) {
    for (std::uint64_t size = 4096; size < 4096 + 24; ++size) {
        for (const std::uint64_t slot : {0U, 1U}) {
            for (std::uint64_t more = 0; more < 400; ++more) {
                SlotPlace newest{slot, SectorCount(size)};
                const SectorCount now(size + more);
                for (int i = 0; i < 3; ++i) {
                    const SlotPlace next = next_place(newest, now);
                    const std::uint64_t a = newest.lba().value;
                    const std::uint64_t b = next.lba().value;
                    ASSERT_TRUE(a + kSuperblockSectors <= b || b + kSuperblockSectors <= a);
                    ASSERT_LE(b + kSuperblockSectors, now.value);
                    newest = next;
                }
                ASSERT_TRUE(newest.at_end_of(now)) << size << " + " << more;
            }
        }
    }
}

}  // namespace
}  // namespace gemel::raid
