// SPDX-License-Identifier: Apache-2.0
#include "raid/level_table.hpp"

#include <algorithm>

#include "raid/levels/levels.hpp"

namespace gemel::raid {

namespace {
std::uint32_t none(std::uint32_t /*members*/) {
    return 0;
}
std::uint32_t one(std::uint32_t /*members*/) {
    return 1;
}
std::uint32_t all_but_one(std::uint32_t members) {
    return members - 1;
}
}  // namespace

constinit const std::array<LevelRow, 3> kLevelTable{
    LevelRow{1, "0", "raid0", 1, Layout::kStriped, false, none, levels::striped_read, levels::striped_write, nullptr},
    LevelRow{2, "1", "raid1", 2, Layout::kMirrored, true, all_but_one, levels::mirrored_read, levels::mirrored_write,
             levels::mirrored_sync},
    LevelRow{3, "5", "raid5", 3, Layout::kParity, true, one, levels::parity_read, levels::parity_write,
             levels::parity_sync},
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

}  // namespace gemel::raid
