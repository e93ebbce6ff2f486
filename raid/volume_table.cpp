// SPDX-License-Identifier: Apache-2.0
#include "raid/volume_table.hpp"

#include <algorithm>

#include "raid/interval_set.hpp"

namespace gemel::raid {

std::uint64_t allocation_unit(SectorCount array_sectors) {
    return (bytes_of(array_sectors) < 64 * kMiB ? 64 * kKiB : kMiB) / kSectorBytes;
}

std::vector<VolumeExtent> free_extents(const std::vector<VolumeRecord>& volumes, SectorCount array_sectors) {
    const std::uint64_t unit = allocation_unit(array_sectors);
    IntervalSet free;
    free.add(0, round_down(array_sectors.value, unit));
    for (const VolumeRecord& v : volumes) {
        for (const VolumeExtent& e : v.extents) {
            free.remove(e.lba.value, e.lba.value + e.sectors.value);
        }
    }
    std::vector<VolumeExtent> out;
    std::uint64_t from = 0;
    while (const auto range = free.next(from)) {
        out.push_back({Lba(range->first), SectorCount(range->second - range->first)});
        from = range->second;
    }
    return out;
}

SectorCount free_sectors(const std::vector<VolumeRecord>& volumes, SectorCount array_sectors) {
    SectorCount total;
    for (const VolumeExtent& e : free_extents(volumes, array_sectors)) {
        total += e.sectors.value;
    }
    return total;
}

namespace {

std::unexpected<Error> no_space(const std::string& volume, std::uint64_t wanted, std::uint64_t free) {
    return fail(Errc::kNoSpace, "volume '" + volume + "' needs " + std::to_string(wanted * kSectorBytes) +
                                    " bytes more, but the array has " + std::to_string(free * kSectorBytes) +
                                    " free in pieces that it can use");
}

/// Takes `wanted` sectors for `extents`: behind the last one first, then the largest pieces.
bool take(std::vector<VolumeExtent>& extents, std::vector<VolumeExtent> free, std::uint64_t wanted) {
    if (!extents.empty()) {
        const std::uint64_t end = extents.back().lba.value + extents.back().sectors.value;
        const auto next = std::ranges::find(free, Lba(end), &VolumeExtent::lba);
        if (next != free.end()) {
            const std::uint64_t part = std::min(wanted, next->sectors.value);
            extents.back().sectors += part;
            wanted -= part;
            free.erase(next);
        }
    }
    std::ranges::sort(free, [](const VolumeExtent& a, const VolumeExtent& b) {
        return a.sectors != b.sectors ? a.sectors > b.sectors : a.lba < b.lba;
    });
    for (const VolumeExtent& piece : free) {
        if (wanted == 0 || extents.size() == kMaxExtents) {
            break;
        }
        const std::uint64_t part = std::min(wanted, piece.sectors.value);
        extents.push_back({piece.lba, SectorCount(part)});
        wanted -= part;
    }
    return wanted == 0;
}

std::uint64_t held_by(const std::vector<VolumeExtent>& extents) {
    std::uint64_t held = 0;
    for (const VolumeExtent& e : extents) {
        held += e.sectors.value;
    }
    return held;
}

}  // namespace

Result<void> add_volume(Superblock& sb, const VolumeSpec& spec, SectorCount array_sectors, Random& random) {
    if (spec.name.empty() || spec.name.size() > kVolumeNameBytes || spec.name.contains('\0')) {
        return fail(Errc::kInvalidArgument,
                    "volume name '" + spec.name + "' must have 1 to " + std::to_string(kVolumeNameBytes) + " bytes");
    }
    if (std::ranges::count(sb.volumes, spec.name, &VolumeRecord::name) > 0) {
        return fail(Errc::kAlreadyExists, "volume '" + spec.name + "' exists already");
    }
    if (sb.volumes.size() == kMaxVolumes) {
        return fail(Errc::kNoSpace,
                    "the array has " + std::to_string(kMaxVolumes) + " volumes; there is no room for more");
    }
    const std::uint64_t free = free_sectors(sb.volumes, array_sectors).value;
    VolumeRecord v;
    v.name = spec.name;
    v.uuid = random.uuid();
    v.number = sb.next_volume_number;
    if (spec.bytes > bytes_of(SectorCount(free))) {
        return no_space(spec.name, spec.bytes / kSectorBytes, free);
    }
    v.sectors = SectorCount(spec.bytes == 0 ? free : round_up(spec.bytes, kBlockBytes) / kSectorBytes);
    const std::uint64_t wanted = round_up(v.sectors.value, allocation_unit(array_sectors));
    if (wanted == 0) {
        return fail(Errc::kNoSpace, "the array has no space left for volume '" + spec.name + "'");
    }
    if (!take(v.extents, free_extents(sb.volumes, array_sectors), wanted)) {
        return no_space(spec.name, wanted, free);
    }
    ++sb.next_volume_number;
    sb.volumes.push_back(std::move(v));
    return {};
}

Result<void> resize_volume(Superblock& sb, VolumeRecord& volume, SectorCount sectors, SectorCount array_sectors) {
    if (sectors.value == 0 || sectors.value % kSectorsPerBlock != 0) {
        return fail(Errc::kInvalidArgument,
                    "size of volume '" + volume.name + "' must be a multiple of 4096 bytes and not zero");
    }
    const std::uint64_t free = free_sectors(sb.volumes, array_sectors).value;
    std::uint64_t held = held_by(volume.extents);
    if (sectors.value > array_sectors.value) {
        return no_space(volume.name, sectors.value - std::min(sectors.value, volume.sectors.value), free);
    }
    const std::uint64_t wanted = round_up(sectors.value, allocation_unit(array_sectors));
    if (wanted > held) {
        std::vector<VolumeExtent> extents = volume.extents;
        if (!take(extents, free_extents(sb.volumes, array_sectors), wanted - held)) {
            return no_space(volume.name, wanted - held, free);
        }
        volume.extents = std::move(extents);
    }
    while (held > wanted) {
        VolumeExtent& last = volume.extents.back();
        const std::uint64_t part = std::min(held - wanted, last.sectors.value);
        last.sectors = last.sectors - part;
        held -= part;
        if (last.sectors.value == 0) {
            volume.extents.pop_back();
        }
    }
    volume.sectors = sectors;
    return {};
}

}  // namespace gemel::raid
