// SPDX-License-Identifier: Apache-2.0
// The checksum map on the members: one entry for each 4 KiB block of a member's data, parity included, in pages of
// 4 KiB. Layout and format; pure.
//
// Invariants:
//   CP1 A page holds the entries of consecutive blocks of columns inside one group of stripes, of all members: one
//       write of a part of a stripe changes one page, and every page belongs to one shard. Mirrors have one entry for
//       all legs of a block.
//   CP2 A page lies on so many members that the level cannot lose them all, at an address that follows from its
//       number. So one member at least that is not the data's own has the entry of any block (mirrors of two legs: the
//       other leg).
//   CP3 A page of another array, epoch or number says nothing, like one that was never written. The epoch is the
//       superblock's; a new one voids the whole map.
//   CP4 Each sector of a page stands for itself: of several copies of it the one with the highest stamp counts. A crash
//       that tears all copies of a page so leaves every entry old or new. Stamps are never used twice for a page.
// Threads: any.
#pragma once

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
    std::uint32_t slots = 1;        ///< entries for each block of columns
    std::uint32_t copies = 1;       ///< of each page
    std::uint64_t columns = 0;      ///< blocks of columns in all
    std::uint64_t group = 1;        ///< blocks of columns in a group
    std::uint64_t page_blocks = 1;  ///< blocks of columns in a page, less at the end of a group
    std::uint64_t pages_per_group = 1;
    std::uint32_t members = 1;
    Layout layout = Layout::kParity;

    /// REQUIRES: the level has redundancy.
    static constexpr ChecksumLayout of(const Geometry& g) {
        ChecksumLayout out;
        out.layout = g.layout;
        out.members = g.members;
        out.slots = g.parities() > 0 ? g.members : 1;
        out.copies = g.parities() > 0 ? g.parities() + 1 : g.layout == Layout::kStripedMirrors ? 2 : g.members;
        out.columns = g.columns() / kSectorsPerBlock;
        out.group = g.group_columns() / kSectorsPerBlock;
        const std::uint64_t most = kChecksumEntries / out.slots;
        out.pages_per_group = (out.group + most - 1) / most;
        out.page_blocks = (out.group + out.pages_per_group - 1) / out.pages_per_group;
        return out;
    }
    [[nodiscard]] constexpr std::uint64_t pages() const { return (columns + group - 1) / group * pages_per_group; }
    [[nodiscard]] constexpr std::uint64_t page_of(std::uint64_t block) const {
        return block / group * pages_per_group + block % group / page_blocks;
    }
    [[nodiscard]] constexpr std::uint64_t first_block(std::uint64_t page) const {
        return page / pages_per_group * group + page % pages_per_group * page_blocks;
    }
    [[nodiscard]] constexpr std::uint64_t end_block(std::uint64_t page) const {
        const std::uint64_t group_end = (page / pages_per_group + 1) * group;
        return std::min({first_block(page) + page_blocks, group_end, columns});
    }
    [[nodiscard]] constexpr std::size_t entry(std::uint64_t block, std::uint32_t slot) const {
        return static_cast<std::size_t>((block - first_block(page_of(block))) * slots + slot);
    }

    /// Where copy `copy` of a page lies: the member, and the number of the page's place in that member's area.
    struct Place {
        std::uint32_t member = 0;
        std::uint64_t index = 0;
        friend constexpr bool operator==(const Place&, const Place&) = default;
    };
    /// REQUIRES: copy < copies.
    [[nodiscard]] constexpr Place place(std::uint64_t page, std::uint32_t copy) const {
        if (layout == Layout::kMirrored) {
            return {copy, page};
        }
        if (layout == Layout::kStripedMirrors) {
            const std::uint64_t pairs = members / 2;
            return {static_cast<std::uint32_t>(page % pairs * 2 + copy), page / pairs};
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
    /// Pages that have a copy on the member.
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
    /// Places for pages that every member needs.
    [[nodiscard]] constexpr std::uint64_t area_pages() const {
        switch (layout) {
            case Layout::kMirrored:
                return pages();
            case Layout::kStripedMirrors:
                return (pages() + members / 2 - 1) / (members / 2);
            default:
                return (pages() + members - 1) / members * copies;
        }
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
