// SPDX-License-Identifier: Apache-2.0
// The checksum map on the members: one entry for each 4 KiB block of a member's data, parity included, in pages of
// 4 KiB. Layout and format; pure.
//
// Invariants:
//   CP1 A page holds the entries of consecutive blocks of columns inside one group of stripes, of all members: one
//       write of a part of a stripe changes one page, and every page belongs to one shard. Mirrors have one entry for
//       all legs of a block. Of a striped level without redundancy a page has the blocks of one member.
//   CP2 A page lies on so many members that the level cannot lose them all, at an address that follows from its
//       number. So one member at least that is not the data's own has the entry of any block (mirrors of two legs: the
//       other leg). Without redundancy that is one copy, on the member after the data's own; on that itself where there
//       is no other, where a page of level linear reaches into the next member, and for what that has grown by.
//   CP3 A page of another array, epoch or number says nothing, like one that was never written. The epoch is the
//       superblock's; a new one voids the whole map.
//   CP4 Each sector of a page stands for itself: of several copies of it the one with the highest stamp counts. A crash
//       that tears all copies of a page so leaves every entry old or new. Stamps are never used twice for a page.
// Threads: any.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <span>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"
#include "gemel/units.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

inline constexpr std::size_t kChecksumPageBytes = kBlockBytes;
inline constexpr std::size_t kChecksumUnitBytes = kSectorBytes;
inline constexpr std::size_t kChecksumUnits = kChecksumPageBytes / kChecksumUnitBytes;
inline constexpr std::size_t kChecksumUnitHeaderBytes = 40;
inline constexpr std::size_t kChecksumUnitEntries = (kChecksumUnitBytes - kChecksumUnitHeaderBytes) / 4;
inline constexpr std::size_t kChecksumEntries = kChecksumUnits * kChecksumUnitEntries;
inline constexpr std::uint16_t kChecksumVersion = 1;  ///< of the area

/// Entries with a meaning of their own; no data has them.
inline constexpr std::uint32_t kChecksumUnknown = 0;  ///< nothing is known of the block: it counts as it lies
inline constexpr std::uint32_t kChecksumBad = 1;      ///< contradicts whatever lies there

/// The checksum of a block's data: a CRC of 64 bits (Jones), folded. Not CRC32C, which hosts put into their own blocks
/// and sectors: where it ends what it is about, the CRC32C of all is the same for any content, so that an older version
/// of the block would match.
std::uint32_t block_sum(ConstBytes data);

/// The entry of a block whose data has this checksum. The block's address is in it, so that the right data at a wrong
/// place does not match. `slot`: the member, or 0 for mirrors.
constexpr std::uint32_t checksum_entry(std::uint32_t sum, std::uint64_t column_block, std::uint32_t slot) {
    std::uint64_t mixed = (column_block + 1) * 0x9e3779b97f4a7c15ULL + slot * 0xc2b2ae3d27d4eb4fULL;
    mixed = (mixed ^ mixed >> 29U) * 0xbf58476d1ce4e5b9ULL;
    const std::uint32_t entry = sum ^ static_cast<std::uint32_t>(mixed >> 32U);
    return entry <= kChecksumBad ? entry + 2 : entry;
}

struct ChecksumLayout {
    std::uint32_t slots = 1;   ///< entries for each block of columns
    std::uint32_t copies = 1;  ///< of each page
    GrowingSize columns = 0;   ///< blocks of columns in all
    std::uint64_t group = 1;   ///< blocks of columns in a group
    /// A group consists of so many parts with pages of their own: the members' if striped, else there is one.
    std::uint32_t parts = 1;
    std::uint64_t strip_blocks = 1;
    std::uint64_t page_blocks = 1;     ///< blocks of columns in a page, less at the end of a part
    std::uint64_t pages_per_part = 1;  ///< of a group
    std::uint32_t members = 1;
    Layout layout = Layout::kParity;
    /// If linear: the first page that begins on each member, and the first that was added by a growth.
    std::array<std::uint64_t, kMaxMembers> first_pages{};
    std::uint64_t first_added = 0;

    static constexpr ChecksumLayout of(const Geometry& g) {
        ChecksumLayout out;
        out.layout = g.layout;
        out.members = g.members;
        out.slots = g.parities() > 0 ? g.members : 1;
        out.copies = copies_of(g);
        out.columns = g.columns() / kSectorsPerBlock;
        out.group = g.group_columns() / kSectorsPerBlock;
        out.parts = g.layout == Layout::kStriped ? g.members : 1;
        out.strip_blocks = g.strip_sectors / kSectorsPerBlock;
        const std::uint64_t most = kChecksumEntries / out.slots;
        const std::uint64_t part = out.group / out.parts;
        out.pages_per_part = (part + most - 1) / most;
        out.page_blocks = (part + out.pages_per_part - 1) / out.pages_per_part;
        if (g.layout == Layout::kLinear) {
            out.divide(g);
        }
        return out;
    }
    [[nodiscard]] constexpr std::uint64_t pages() const { return pages_of(columns); }
    [[nodiscard]] constexpr std::uint64_t pages_per_group() const { return parts * pages_per_part; }
    [[nodiscard]] constexpr std::uint64_t page_of(std::uint64_t block) const { return find(block).page; }
    /// The lowest block of a page.
    [[nodiscard]] constexpr std::uint64_t first_block(std::uint64_t page) const {
        const std::uint64_t in_part = page % pages_per_part * page_blocks;
        const std::uint64_t base = page / pages_per_group() * group;
        if (parts == 1) {
            return base + in_part;
        }
        const std::uint64_t part = page / pages_per_part % parts;
        return base + (in_part / strip_blocks * parts + part) * strip_blocks + in_part % strip_blocks;
    }
    /// The first block behind `block` whose entries do not follow in the same page.
    [[nodiscard]] constexpr std::uint64_t run_end(std::uint64_t block) const {
        const std::uint64_t in_group = block % group;
        const std::uint64_t whole = parts == 1 ? group - in_group : strip_blocks - in_group % strip_blocks;
        return std::min(block + std::min(whole, page_blocks - find(block).index), columns.get());
    }
    [[nodiscard]] constexpr std::size_t entry(std::uint64_t block, std::uint32_t slot) const {
        return static_cast<std::size_t>(find(block).index * slots + slot);
    }

    /// Where copy `copy` of a page lies: the member, and the number of the page's place in that member's area.
    struct Place {
        std::uint32_t member = 0;
        std::uint64_t index = 0;
        bool added = false;  ///< counted from the first place in front of added data instead
        friend constexpr bool operator==(const Place&, const Place&) = default;
    };
    /// REQUIRES: copy < copies.
    [[nodiscard]] constexpr Place place(std::uint64_t page, std::uint32_t copy) const {
        switch (layout) {
            case Layout::kLinear: {
                if (page >= first_added) {
                    return {members - 1, page - first_added, true};
                }
                const auto* behind = std::upper_bound(first_pages.begin() + 1, first_pages.begin() + members, page);
                const auto member = static_cast<std::uint32_t>(behind - first_pages.begin() - 1);
                return {(member + 1) % members, page - first_pages[member]};
            }
            case Layout::kStriped: {
                const auto member = static_cast<std::uint32_t>(page / pages_per_part % parts);
                return {(member + 1) % members, page / pages_per_group() * pages_per_part + page % pages_per_part};
            }
            case Layout::kMirrored:
                return {copy, page};
            case Layout::kStripedMirrors: {
                const std::uint64_t pairs = members / 2;
                return {static_cast<std::uint32_t>(page % pairs * 2 + copy), page / pairs};
            }
            case Layout::kParity:
            case Layout::kDoubleParity:
                break;
        }
        return {static_cast<std::uint32_t>((page + copy) % members), page / members * copies + copy};
    }
    [[nodiscard]] constexpr bool lies_on(std::uint64_t page, std::uint32_t member) const {
        for (std::uint32_t c = 0; c < copies; ++c) {
            if (place(page, c).member == member) {
                return true;
            }
        }
        return false;
    }
    /// Pages that have a copy on the member. REQUIRES: the level has redundancy.
    [[nodiscard]] constexpr std::uint64_t pages_on(std::uint32_t member) const {
        const std::uint64_t all = pages();  // each run of `members` pages has as many there as the next one
        std::uint64_t run = 0;
        std::uint64_t rest = 0;
        for (std::uint64_t page = 0; page < members; ++page) {
            const bool there = lies_on(page, member);
            run += there ? 1 : 0;
            rest += there && page < all % members ? 1 : 0;
        }
        return all / members * run + rest;
    }
    /// Places for pages that every member needs; if linear, in its area.
    [[nodiscard]] constexpr std::uint64_t area_pages() const {
        switch (layout) {
            case Layout::kLinear: {
                std::uint64_t most = 0;
                for (std::uint32_t m = 0; m < members; ++m) {
                    const std::uint64_t end = m + 1 == members ? first_added : first_pages[m + 1];
                    most = std::max(most, end - first_pages[m]);
                }
                return most;
            }
            case Layout::kStriped:
                return pages() / parts;
            case Layout::kMirrored:
                return pages();
            case Layout::kStripedMirrors:
                return (pages() + members / 2 - 1) / (members / 2);
            default:
                return (pages() + members - 1) / members * copies;
        }
    }

  private:
    /// An entry's page, and its number in it, in blocks.
    struct Found {
        std::uint64_t page = 0;
        std::uint64_t index = 0;
    };
    [[nodiscard]] constexpr Found find(std::uint64_t block) const {
        std::uint64_t in_part = block % group;
        std::uint64_t page = block / group * pages_per_group();
        if (parts > 1) {
            page += in_part / strip_blocks % parts * pages_per_part;
            in_part = in_part / (strip_blocks * parts) * strip_blocks + in_part % strip_blocks;
        }
        return {page + in_part / page_blocks, in_part % page_blocks};
    }
    [[nodiscard]] constexpr std::uint64_t pages_of(std::uint64_t blocks) const {
        return (blocks + group - 1) / group * pages_per_group();
    }
    static constexpr std::uint32_t copies_of(const Geometry& g) {
        switch (g.layout) {
            case Layout::kLinear:
            case Layout::kStriped:
                return 1;
            case Layout::kMirrored:
                return g.members;
            case Layout::kStripedMirrors:
                return 2;
            default:
                return g.parities() + 1;
        }
    }
    /// REQUIRES: linear.
    constexpr void divide(const Geometry& g) {
        for (std::uint32_t m = 1; m < members; ++m) {
            const std::uint64_t begin = g.ends[m - 1] / kSectorsPerBlock;
            first_pages[m] = page_of(begin) + (find(begin).index == 0 ? 0 : 1);
        }
        const std::uint64_t before = members == 1 ? 0 : g.ends[members - 2].get();
        const std::uint64_t end = g.added.any() ? before + g.added.split : g.ends[members - 1].get();
        first_added = pages_of(end / kSectorsPerBlock);
    }
};

/// Which map a page belongs to.
struct ChecksumOrigin {
    Uuid array_uuid;
    std::uint64_t epoch = 0;
};

/// When a page was written: the superblock's epoch at that start of the array, and a number of that start.
struct ChecksumStamp {
    std::uint64_t start = 0;
    std::uint64_t number = 0;
    friend constexpr auto operator<=>(const ChecksumStamp&, const ChecksumStamp&) = default;
};

using ChecksumEntries = std::array<std::uint32_t, kChecksumEntries>;

void encode_checksum_page(const ChecksumOrigin& origin, std::uint64_t page, ChecksumStamp stamp,
                          const ChecksumEntries& entries, std::span<std::byte, kChecksumPageBytes> to);

/// Gives the stamp of one sector of a page and fills its part of `entries`. REQUIRES: unit < kChecksumUnits.
/// Errors: kNotFound (CP3); kCorrupt: damaged, or written to the wrong place; `entries` is unchanged then.
Result<ChecksumStamp> decode_checksum_unit(const ChecksumOrigin& origin, std::uint64_t page, std::size_t unit,
                                           std::span<const std::byte, kChecksumPageBytes> from,
                                           ChecksumEntries& entries);

}  // namespace gemel::raid
