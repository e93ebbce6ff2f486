// SPDX-License-Identifier: Apache-2.0
#include "raid/level_table.hpp"

#include <algorithm>
#include <bit>

#include "raid/levels/levels.hpp"

namespace gemel::raid {

namespace {
std::uint32_t none(std::uint32_t /*members*/) {
    return 0;
}
std::uint32_t one(std::uint32_t /*members*/) {
    return 1;
}
std::uint32_t two(std::uint32_t /*members*/) {
    return 2;
}
std::uint32_t all_but_one(std::uint32_t members) {
    return members - 1;
}
/// Which ones does not matter.
template <std::uint32_t (*kCount)(std::uint32_t)>
bool any(std::uint32_t lost, std::uint32_t members) {
    return static_cast<std::uint32_t>(std::popcount(lost)) <= kCount(members);
}
/// Of members 0 and 1, 2 and 3, ... not both.
bool no_pair(std::uint32_t lost, std::uint32_t /*members*/) {
    return (lost & lost >> 1U & 0x55555555U) == 0;
}
}  // namespace

constinit const std::array<LevelRow, 7> kLevelTable{
    LevelRow{7, "single", "single", 1, 1, 1, Layout::kLinear, false, none, any<none>, levels::plain_read,
             levels::plain_write, levels::mirrored_sync, nullptr, levels::mirrored_scrub},
    LevelRow{6, "linear", "linear", 1, kMaxMembers, 1, Layout::kLinear, false, none, any<none>, levels::plain_read,
             levels::plain_write, levels::mirrored_sync, nullptr, levels::mirrored_scrub},
    LevelRow{1, "0", "raid0", 1, kMaxMembers, 1, Layout::kStriped, false, none, any<none>, levels::plain_read,
             levels::plain_write, levels::mirrored_sync, nullptr, levels::mirrored_scrub},
    LevelRow{2, "1", "raid1", 2, kMaxMembers, 1, Layout::kMirrored, true, all_but_one, any<all_but_one>,
             levels::mirrored_read, levels::mirrored_write, levels::mirrored_sync, levels::mirrored_rebuild,
             levels::mirrored_scrub},
    LevelRow{3, "5", "raid5", 3, kMaxMembers, 1, Layout::kParity, true, one, any<one>, levels::parity_read,
             levels::parity_write, levels::parity_sync, levels::parity_rebuild, levels::parity_scrub},
    LevelRow{4, "6", "raid6", 4, kMaxMembers, 1, Layout::kDoubleParity, true, two, any<two>, levels::parity_read,
             levels::parity_write, levels::parity_sync, levels::parity_rebuild, levels::parity_scrub},
    LevelRow{5, "10", "raid10", 4, kMaxMembers, 2, Layout::kStripedMirrors, true, one, no_pair, levels::mirrored_read,
             levels::mirrored_write, levels::mirrored_sync, levels::mirrored_rebuild, levels::mirrored_scrub},
};

const LevelRow* find_level(std::uint16_t id) {
    const auto* at = std::ranges::find(kLevelTable, id, &LevelRow::id);
    return at == kLevelTable.end() ? nullptr : at;
}

const LevelRow* find_level(std::string_view name) {
    const auto* at = std::ranges::find_if(
        kLevelTable, [&](const LevelRow& row) { return row.name == name || row.long_name == name; });
    return at == kLevelTable.end() ? nullptr : at;
}

std::string member_counts(const LevelRow& level) {
    if (level.min_members == level.max_members) {
        return std::to_string(level.min_members);
    }
    return std::to_string(level.min_members) + " to " + std::to_string(level.max_members) +
           (level.step == 2 ? ", an even number" : "");
}

}  // namespace gemel::raid
