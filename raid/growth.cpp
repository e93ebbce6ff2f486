// SPDX-License-Identifier: Apache-2.0
#include "raid/growth.hpp"

#include <algorithm>

#include "raid/level_table.hpp"

namespace gemel::raid {

namespace {

constexpr std::uint64_t kMostUnit = kGiB / kSectorBytes;

std::string bytes_text(std::uint64_t sectors) {
    return std::to_string(sectors * kSectorBytes) + " bytes";
}

/// Where what is added will lie, when the array grows for the first time. A unit is as large as the data was, whole
/// groups of stripes and up to 1 GiB: so the map's part of it is small, and a small array wastes little.
AddedSpace first_growth(const Superblock& now, const LevelRow& level) {
    const std::size_t last = now.members.size() - 1;
    AddedSpace out;
    out.split = now.members[last].sectors.value;
    out.base = now.device_end(last);
    const std::uint64_t group = kGroupStripes * (now.strip_bytes / kSectorBytes);
    out.unit = round_up(std::min(out.split.get(), kMostUnit), group);
    out.map = level.redundant || has_map_room(now) ? unit_map_pages(now, out.unit) * kSectorsPerBlock : 0;
    return out;
}

Result<void> refuse_smaller(const Superblock& now, std::span<const std::uint64_t> device_sectors,
                            std::span<const std::string> members) {
    for (std::size_t m = 0; m < members.size(); ++m) {
        const std::uint64_t needed = now.device_end(m) + 2 * kSuperblockSectors;
        if (round_down(device_sectors[m], kSectorsPerBlock) < needed) {
            return fail(Errc::kRefused, members[m] + " has " + bytes_text(device_sectors[m]) +
                                            " now, but the array needs " + bytes_text(needed) +
                                            " of it: members cannot shrink. Give the device its size back");
        }
    }
    return {};
}

}  // namespace

Result<Superblock> plan_growth(const Superblock& now, std::span<const std::uint64_t> device_sectors,
                               std::span<const std::string> members) {
    CHECK(device_sectors.size() == now.members.size() && members.size() == now.members.size());
    TRY_VOID(refuse_smaller(now, device_sectors, members));
    const LevelRow& level = *find_level(now.level);
    const Geometry g = geometry_of(now);
    Superblock next = now;
    next.added = now.added.any() ? now.added : first_growth(now, level);
    const std::uint64_t strip = g.strip_sectors;
    const std::uint64_t had = now.members.back().sectors.value;
    // The least that a device must have for one strip more.
    const std::uint64_t wanted = next.added.end(had + strip) + 2 * kSuperblockSectors;
    std::uint64_t data = ~std::uint64_t{0};
    std::string full;
    for (std::uint32_t m = 0; m < g.members; ++m) {
        if (!g.grows(m)) {
            continue;
        }
        const std::uint64_t fits = next.added.fit(superblock_slot(SectorCount(device_sectors[m]), 0).value, strip);
        data = std::min(data, fits);
        if (fits <= had) {
            full += (full.empty() ? "" : "; ") + members[m] + " has " + bytes_text(device_sectors[m]);
        }
    }
    if (!full.empty()) {
        const std::uint64_t largest = *std::ranges::max_element(device_sectors);
        return fail(
            Errc::kNoSpace,
            full + ", but at least " + bytes_text(wanted) + " are needed to grow (the largest member has " +
                bytes_text(largest) + "). Extend that device, or replace it with a larger one, and grow again" +
                (level.layout == Layout::kLinear && g.members > 1 ? "; level linear grows at its last member only"
                                                                  : ""));
    }
    next.members.back().sectors = SectorCount(data);
    if (level.layout != Layout::kLinear) {
        next.member_sectors = data;
        for (MemberRecord& m : next.members) {
            m.sectors = SectorCount(data);
        }
    }
    if (!level.redundant && now.resync_cursor == g.columns()) {
        next.resync_cursor = geometry_of(next).columns();
    }
    if (auto why = why_invalid(next)) {
        return fail(Errc::kInvalidArgument, "array " + now.array_name + " cannot grow: " + *why);
    }
    return next;
}

}  // namespace gemel::raid
