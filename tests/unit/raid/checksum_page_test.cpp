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
    std::uint64_t end = 0;
    for (std::uint32_t m = 0; level.layout == Layout::kLinear && m < members; ++m) {
        end += g.member_sectors + strip * (m % 3 * 7);
        g.ends[m] = end;
    }
    return g;
}

/// Every level, in some sizes, with a last group that is not whole.
template <class Check>
void for_each_layout(Check check) {
    for (const LevelRow& level : kLevelTable) {
        for (std::uint32_t members = level.min_members; members <= kMaxMembers; members += 5) {
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
        for (std::uint32_t m = 0; level.redundant && m < g.members; ++m) {
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
        std::vector<std::vector<bool>> taken(layout.pages(), std::vector<bool>(kChecksumEntries));
        ASSERT_EQ(layout.columns, g.columns() / kSectorsPerBlock);
        for (std::uint64_t block = 0; block < layout.columns;) {
            const std::uint64_t page = layout.page_of(block);
            const std::uint64_t end = layout.run_end(block);
            ASSERT_GT(end, block);
            ASSERT_LT(page, layout.pages()) << level.name;
            ASSERT_LE(layout.first_block(page), block);
            ASSERT_EQ(layout.page_of(layout.first_block(page)), page);
            ASSERT_EQ(page / layout.pages_per_group(), block / layout.group);
            ASSERT_EQ(block / layout.group, (end - 1) / layout.group);
            const std::size_t first = layout.entry(block, 0);
            for (const std::uint64_t begin = block; block < end; ++block) {
                ASSERT_EQ(layout.page_of(block), page);
                for (std::uint32_t slot = 0; slot < layout.slots; ++slot) {
                    const std::size_t entry = layout.entry(block, slot);
                    ASSERT_EQ(entry, first + (block - begin) * layout.slots + slot);
                    ASSERT_LT(entry, kChecksumEntries);
                    ASSERT_FALSE(taken[page][entry]) << level.name << " block " << block;
                    taken[page][entry] = true;
                }
            }
        }
    });
}

/// CP2. Of a member that loses writes another one knows.
TEST(ChecksumLayout, AnotherMemberThanTheDatasHasTheEntry) {
    for_each_layout([](const LevelRow& level, const Geometry& g) {
        const ChecksumLayout layout = ChecksumLayout::of(g);
        std::uint64_t own = 0;
        for (std::uint64_t block = 0; g.parities() == 0 && block < layout.columns; ++block) {
            const std::uint32_t member = g.locate(Lba(block * kSectorsPerBlock)).member;
            std::uint32_t holders = 0;
            for (std::uint32_t c = 0; c < layout.copies; ++c) {
                holders |= 1U << layout.place(layout.page_of(block), c).member;
            }
            own += (holders & ~(1U << member)) == 0 ? 1 : 0;
        }
        const std::uint64_t ends = level.layout == Layout::kLinear ? (g.members - 1) * layout.page_blocks : 0;
        EXPECT_TRUE(g.members == 1 || own <= ends) << level.name << " of " << g.members << ": " << own;
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
