// SPDX-License-Identifier: Apache-2.0
// The level table: one row per RAID level. A new level is one file in levels/ and one row.
// Threads: any; the functions of a row say where they run.
#pragma once

#include <array>
#include <string_view>

#include "gemel/block_device.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

namespace detail {
class ArrayBody;
struct Shard;
}  // namespace detail

struct LevelRow {
    std::uint16_t id;            ///< on disk: never changed
    std::string_view name;       ///< "5"
    std::string_view long_name;  ///< "raid5"
    std::uint32_t min_members;
    Layout layout;
    bool redundant;                                     ///< there is something to resync
    std::uint32_t (*tolerated)(std::uint32_t members);  ///< failures that lose no data

    /// Reads array data. Runs on the caller's executor, and ends there; sets the status of every block.
    Task<Result<void>> (*read)(detail::ArrayBody&, Lba, Slice, ReadOptions);
    /// Writes array data inside one group. Runs on the shard; takes the locks.
    Task<Result<void>> (*write)(detail::ArrayBody&, detail::Shard&, Lba, Slice, WriteOptions);
    /// Makes the redundancy of one stripe right from its data. Runs on the shard; takes the locks. What cannot be made
    /// right stays untrusted. Null where there is none.
    Task<Result<void>> (*sync_stripe)(detail::ArrayBody&, detail::Shard&, StripeIndex);
};

extern const std::array<LevelRow, 3> kLevelTable;

const LevelRow* find_level(std::uint16_t id);
/// By name or long name; nullptr if there is none.
const LevelRow* find_level(std::string_view name);

}  // namespace gemel::raid
