// SPDX-License-Identifier: Apache-2.0
// The level table: one row per RAID level. A new level is one file in levels/ and one row.
// Threads: any; the functions of a row say where they run.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "gemel/block_device.hpp"
#include "raid/geometry.hpp"
#include "raid/scrub_report.hpp"

namespace gemel::raid {

namespace detail {
class ArrayBody;
struct Shard;
}  // namespace detail

/// Any number of members from min_members on in steps, up to max_members.
struct LevelRow {
    std::uint16_t id;            ///< on disk: never changed
    std::string_view name;       ///< "5"
    std::string_view long_name;  ///< "raid5"
    std::uint32_t min_members;
    std::uint32_t max_members;
    std::uint32_t step;
    Layout layout;
    bool redundant;
    std::uint32_t (*tolerated)(std::uint32_t members);  ///< any so many failures lose no data; some sets of more may
    /// The members whose bits are set in `lost` may all be gone, and every sector is still known. A part of such a set
    /// is one, too.
    bool (*tolerates)(std::uint32_t lost, std::uint32_t members);

    /// Reads array data. Runs on the caller's executor, and ends there; sets the status of every block.
    Task<Result<void>> (*read)(detail::ArrayBody&, Lba, Slice, ReadOptions);
    /// Writes array data, inside one group if the array tracks trust. Runs on the shard; takes the locks.
    Task<Result<void>> (*write)(detail::ArrayBody&, detail::Shard&, Lba, Slice, WriteOptions);
    /// Makes the redundancy, or without it the checksums, of one strip's length of columns right from the data, from
    /// column index x strip on. Runs on the shard; takes the locks. What cannot be made right stays untrusted.
    Task<Result<void>> (*sync_stripe)(detail::ArrayBody&, detail::Shard&, StripeIndex index);
    /// Puts what `member`, which is being rebuilt, must hold of these columns onto it (RB3). As sync_stripe. Null where
    /// there is no redundancy.
    Task<Result<void>> (*rebuild_stripe)(detail::ArrayBody&, detail::Shard&, StripeIndex index, std::uint32_t member);
    /// Compares these columns with their redundancy, and by the mode makes them right (SC1 to SC5). As sync_stripe; the
    /// findings count only when it succeeds. Errors: it cannot be read for now.
    Task<Result<void>> (*scrub_stripe)(detail::ArrayBody&, detail::Shard&, StripeIndex index, ScrubMode mode,
                                       StripeFindings& out);

    [[nodiscard]] constexpr std::uint32_t parities() const { return parities_of(layout); }
    [[nodiscard]] constexpr bool fits(std::size_t members) const {
        return members >= min_members && members <= max_members && (members - min_members) % step == 0;
    }
};

extern const std::array<LevelRow, 7> kLevelTable;

const LevelRow* find_level(std::uint16_t id);
/// By name or long name; nullptr if there is none.
const LevelRow* find_level(std::string_view name);
/// "2 to 32", "4 to 32, an even number", "1": the numbers of members that a level takes, for messages.
std::string member_counts(const LevelRow& level);

}  // namespace gemel::raid
