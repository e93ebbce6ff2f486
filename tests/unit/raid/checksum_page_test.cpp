// SPDX-License-Identifier: Apache-2.0
// Format and layout of the checksum map: pure.
#include "raid/checksum_page.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "gemel/crc32c.hpp"
#include "raid/level_table.hpp"

namespace gemel::raid {
namespace {

Geometry geometry(const LevelRow& level, std::uint32_t members, std::uint64_t strip, std::uint64_t stripes) {
    Geometry g;
    g.layout = level.layout;
    g.members = members;
    g.strip_sectors = strip;
    g.member_sectors = strip * stripes;
    return g;
}

/// Every level with redundancy, in some sizes, with a last group that is not whole.
template <class Check>
void for_each_layout(Check check) {
    for (const LevelRow& level : kLevelTable) {
        for (std::uint32_t members = level.min_members; level.redundant && members <= kMaxMembers; members += 5) {
            for (const std::uint64_t strip : {8U, 128U, 2048U}) {
                if (level.fits(members)) {
                    check(level, geometry(level, members, strip, 150));
                }
            }
        }
    }
}

TEST(ChecksumLayout, PagesOfAMemberAreCounted) {
    for_each_layout([](const LevelRow& level, const Geometry& g) {
        const ChecksumLayout layout = ChecksumLayout::of(g);
        for (std::uint32_t m = 0; m < g.members; ++m) {
            std::uint64_t pages = 0;
            for (std::uint64_t page = 0; page < layout.pages(); ++page) {
                pages += layout.lies_on(page, m) ? 1 : 0;
            }
            EXPECT_EQ(layout.pages_on(m), pages) << level.name << " of " << g.members;
        }
    });
}

TEST(ChecksumLayout, EveryBlockOfColumnsHasOneEntryForEachSlotInAPageOfItsGroup) {
    for_each_layout([](const LevelRow& level, const Geometry& g) {
        const ChecksumLayout layout = ChecksumLayout::of(g);
        std::uint64_t expected_first = 0;
        for (std::uint64_t page = 0; page < layout.pages(); ++page) {
            const std::uint64_t first = layout.first_block(page);
            const std::uint64_t end = layout.end_block(page);
            if (first >= layout.columns) {
                continue;  // the last group is not whole
            }
            ASSERT_EQ(first, expected_first) << level.name;
            ASSERT_EQ(first / layout.group, (end - 1) / layout.group);
            ASSERT_EQ(layout.page_of(first), page);
            ASSERT_EQ(layout.page_of(end - 1), page);
            ASSERT_EQ(layout.entry(first, 0), 0U);
            ASSERT_LT(layout.entry(end - 1, layout.slots - 1), kChecksumEntries);
            expected_first = end;
        }
        EXPECT_EQ(expected_first, g.columns() / kSectorsPerBlock) << level.name;
    });
}

TEST(ChecksumLayout, CopiesLieOnDifferentMembersAndNoTwoPagesInOnePlace) {
    for_each_layout([](const LevelRow& level, const Geometry& g) {
        const ChecksumLayout layout = ChecksumLayout::of(g);
        std::set<std::pair<std::uint32_t, std::uint64_t>> taken;
        for (std::uint64_t page = 0; page < layout.pages(); ++page) {
            std::uint32_t members = 0;
            for (std::uint32_t copy = 0; copy < layout.copies; ++copy) {
                const ChecksumLayout::Place place = layout.place(page, copy);
                ASSERT_LT(place.member, g.members);
                ASSERT_LT(place.index, layout.area_pages()) << level.name << " of " << g.members;
                ASSERT_TRUE(taken.insert({place.member, place.index}).second);
                members |= 1U << place.member;
            }
            ASSERT_EQ(std::popcount(members), static_cast<int>(layout.copies));
            ASSERT_FALSE(level.tolerates(members, g.members))
                << "a page could be lost with members that are not missed";
        }
    });
}

TEST(ChecksumEntry, SameDataElsewhereAndReservedValuesDiffer) {
    std::set<std::uint32_t> seen;
    for (std::uint64_t block = 0; block < 1000; ++block) {
        for (std::uint32_t slot = 0; slot < 5; ++slot) {
            const std::uint32_t entry = checksum_entry(0x12345678, block, slot);
            EXPECT_GT(entry, kChecksumBad);
            EXPECT_TRUE(seen.insert(entry).second) << block << " " << slot;
        }
    }
    const std::uint32_t mask = checksum_entry(0, 7, 3);
    EXPECT_GT(checksum_entry(mask, 7, 3), kChecksumBad);
    EXPECT_GT(checksum_entry(mask ^ 1U, 7, 3), kChecksumBad);
}

TEST(ChecksumEntry, ContentThatEndsWithItsOwnCrc32cIsToldFromOtherSuchContent) {
    std::set<std::uint32_t> sums;
    for (std::uint8_t version = 0; version < 50; ++version) {
        std::array<std::byte, kBlockBytes> block{};
        for (std::size_t sector = 0; sector < kBlockBytes; sector += kSectorBytes) {
            const auto bytes = std::span(block).subspan(sector, kSectorBytes);
            std::ranges::fill(bytes, std::byte{version});
            store_le(bytes.data() + kSectorBytes - 4, crc32c(bytes.first(kSectorBytes - 4)));
        }
        EXPECT_TRUE(sums.insert(block_sum(block)).second) << int{version};
    }
}

struct PageFixture : ::testing::Test {
    PageFixture() {
        origin.array_uuid.bytes.fill(std::byte{7});
        for (std::size_t i = 0; i < entries.size(); ++i) {
            entries[i] = static_cast<std::uint32_t>(i * 2654435761U);
        }
        encode_checksum_page(origin, 42, stamp, entries, page);
    }
    Result<ChecksumStamp> decode(std::size_t unit) { return decode_checksum_unit(origin, 42, unit, page, found); }
    void expect_all(Errc code) {
        for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
            EXPECT_EQ(decode(unit).error().code, code) << unit;
        }
    }

    ChecksumOrigin origin{{}, 9};
    ChecksumStamp stamp{3, 11};
    ChecksumEntries entries{};
    ChecksumEntries found{};
    std::array<std::byte, kChecksumPageBytes> page{};
};

TEST_F(PageFixture, APageIsReadAsItWasWritten) {
    for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
        const auto r = decode(unit);
        ASSERT_TRUE(r);
        EXPECT_EQ(*r, stamp);
    }
    EXPECT_EQ(found, entries);
}

TEST_F(PageFixture, AnyFlippedByteIsFoundInItsSectorOnly) {
    for (std::size_t i = 0; i < page.size(); ++i) {
        page[i] ^= std::byte{0x10};
        EXPECT_FALSE(decode(i / kSectorBytes)) << i;
        EXPECT_TRUE(decode((i / kSectorBytes + 1) % kChecksumUnits)) << i;
        page[i] ^= std::byte{0x10};
    }
}

TEST_F(PageFixture, OtherPagesSayNothingOrThatSomethingIsWrong) {
    origin.epoch = 10;
    expect_all(Errc::kNotFound);
    origin.epoch = 9;
    origin.array_uuid.bytes[3] = std::byte{1};
    expect_all(Errc::kNotFound);
    origin.array_uuid.bytes[3] = std::byte{7};
    encode_checksum_page(origin, 43, stamp, entries, page);
    expect_all(Errc::kCorrupt);  // written to the wrong place
    page.fill(std::byte{0});
    expect_all(Errc::kNotFound);
}

}  // namespace
}  // namespace gemel::raid
