// SPDX-License-Identifier: Apache-2.0
#include "raid/superblock.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/checksum_page.hpp"
#include "raid/level_table.hpp"
#include "raid/log_page.hpp"

namespace gemel::raid {

namespace {

constexpr std::uint64_t kMagic = 0x315242534c454d47ULL;  // "GMELSBR1"
constexpr std::size_t kHeaderBytes = 256;
constexpr std::size_t kScrubAt = 232;
constexpr std::size_t kScrubBytes = 18;
constexpr std::size_t kRedoFromAt = 16256;
constexpr std::size_t kMemberBytes = 40;
constexpr unsigned kMemberFlagBits = 16;  ///< below the size in blocks
constexpr std::size_t kAreaBytes = 32;
constexpr std::size_t kVolumeBytes = 216;
constexpr std::size_t kExtentBytes = 16;
constexpr std::size_t kMembersAt = kHeaderBytes;
constexpr std::size_t kAreasAt = kMembersAt + kMaxMembers * kMemberBytes;
constexpr std::size_t kVolumesAt = kAreasAt + kMaxAreas * kAreaBytes;
constexpr std::size_t kUntrustedAt = kVolumesAt + kMaxVolumes * kVolumeBytes;
constexpr std::size_t kRangeBytes = 16;
constexpr std::size_t kMissedAt = 16288;
constexpr std::size_t kMissedBytes = 12;
constexpr std::size_t kAddedAt = 16320;
constexpr std::size_t kAddedBytes = 32;
constexpr std::size_t kTakenAt = 16352;
constexpr std::size_t kUnreadableAt = 16384;
constexpr std::size_t kUsedBytes = kUnreadableAt + kMaxUnreadable * kRangeBytes;
constexpr std::size_t kCrcAt = kSuperblockBytes - 4;
static_assert(kScrubAt + kScrubBytes <= kHeaderBytes);
static_assert(kMembersAt == 256 && kAreasAt == 1536 && kVolumesAt == 1792 && kUntrustedAt == 15616);
static_assert(kUntrustedAt + kMaxUntrusted * kRangeBytes <= kRedoFromAt && kRedoFromAt + 8 <= kMissedAt);
static_assert(kMissedAt + kMissedBytes <= kAddedAt && kAddedAt + kAddedBytes <= kTakenAt &&
              kTakenAt + 8 <= kUnreadableAt);
static_assert(kUsedBytes <= kCrcAt);
static_assert(kVolumeBytes == kVolumeNameBytes + 16 + 2 + 2 + 12 + 8 + kMaxExtents * kExtentBytes);

constexpr std::uint64_t kMaxSectors = 1ULL << 50U;  ///< keeps every sum of addresses far from overflow
constexpr std::uint64_t kMaxEpoch = 1ULL << 56U;    ///< beyond what any array reaches; counting goes on from there
constexpr std::uint16_t kLogAreaVersion = 1;

void put_header(LeWriter& w, const Superblock& sb) {
    w.put(kMagic);
    w.put(kSuperblockVersion);
    w.put(std::uint32_t{kSuperblockBytes});
    w.put(ConstBytes(sb.array_uuid.bytes));
    w.text(sb.array_name, kArrayNameBytes);
    w.put(sb.level);
    w.put(sb.member_index);
    w.put(sb.strip_bytes);
    w.put(static_cast<std::uint16_t>(sb.members.size()));
    w.put(static_cast<std::uint16_t>(sb.areas.size()));
    w.put(static_cast<std::uint16_t>(sb.volumes.size()));
    w.put(sb.next_volume_number);
    w.put(sb.epoch);
    w.put(ConstBytes(sb.incarnation.bytes));
    w.put(ConstBytes(sb.previous_incarnation.bytes));
    w.put(std::uint64_t{(sb.clean ? 1U : 0U) | (sb.accepted ? 2U : 0U)});
    w.put(sb.member_sectors);
    w.put(sb.resync_cursor);
    w.put(sb.log_generation);
    w.put(static_cast<std::uint16_t>(sb.untrusted.size()));
    w.put(static_cast<std::uint16_t>(sb.unreadable.size()));
    w.put(static_cast<std::uint16_t>(sb.rebuild.active ? sb.rebuild.place + 1 : 0));
    w.put(static_cast<std::uint16_t>(sb.target ? 1 : 0));
    w.put(sb.rebuild.cursor);
    w.put(ConstBytes(sb.rebuild.uuid.bytes));
    w.put(static_cast<std::uint16_t>(sb.policy));
    w.put(std::uint16_t{0});
    w.put(std::uint32_t{0});
    w.put(sb.map_epoch);
}

void put_scrub(LeWriter w, const ScrubRecord& scrub) {
    w.put(scrub.cursor);
    w.put(scrub.mismatched);
    w.put(static_cast<std::uint16_t>((scrub.active ? 1U : 0U) | (scrub.repair ? 2U : 0U)));
}

ScrubRecord get_scrub(LeReader r) {
    ScrubRecord scrub;
    scrub.cursor = r.get<std::uint64_t>();
    scrub.mismatched = r.get<std::uint64_t>();
    const auto flags = r.get<std::uint16_t>();
    scrub.active = (flags & 1U) != 0;
    scrub.repair = (flags & 2U) != 0;
    return scrub;
}

void put_missed(LeWriter w, const MissedMarker& missed) {
    w.put(missed.episode);
    w.put(missed.members);
}

MissedMarker get_missed(LeReader r) {
    const auto episode = r.get<std::uint64_t>();
    return {episode, r.get<std::uint32_t>()};
}

void put_added(LeWriter w, const AddedSpace& added) {
    w.put(added.split.get());
    w.put(added.base);
    w.put(added.unit);
    w.put(added.map);
}

AddedSpace get_added(LeReader r) {
    AddedSpace added;
    added.split = r.get<std::uint64_t>();
    added.base = r.get<std::uint64_t>();
    added.unit = r.get<std::uint64_t>();
    added.map = r.get<std::uint64_t>();
    return added;
}

Uuid get_uuid(LeReader& r) {
    Uuid u;
    std::ranges::copy(r.take(u.bytes.size()), u.bytes.begin());
    return u;
}

struct Counts {
    std::uint16_t members = 0;
    std::uint16_t areas = 0;
    std::uint16_t volumes = 0;
    std::uint16_t untrusted = 0;
    std::uint16_t unreadable = 0;
};

Counts get_header(LeReader& r, Superblock& sb) {
    Counts n;
    r.take(16);  // magic, version, length: checked before
    sb.array_uuid = get_uuid(r);
    sb.array_name = r.text(kArrayNameBytes);
    sb.level = r.get<std::uint16_t>();
    sb.member_index = r.get<std::uint16_t>();
    sb.strip_bytes = r.get<std::uint32_t>();
    n.members = r.get<std::uint16_t>();
    n.areas = r.get<std::uint16_t>();
    n.volumes = r.get<std::uint16_t>();
    sb.next_volume_number = r.get<std::uint16_t>();
    sb.epoch = r.get<std::uint64_t>();
    sb.incarnation = get_uuid(r);
    sb.previous_incarnation = get_uuid(r);
    const auto flags = r.get<std::uint64_t>();
    sb.clean = (flags & 1U) != 0;
    sb.accepted = (flags & 2U) != 0;
    sb.member_sectors = r.get<std::uint64_t>();
    sb.resync_cursor = r.get<std::uint64_t>();
    sb.log_generation = r.get<std::uint64_t>();
    n.untrusted = r.get<std::uint16_t>();
    n.unreadable = r.get<std::uint16_t>();
    const auto place = r.get<std::uint16_t>();
    sb.rebuild.active = place != 0;
    sb.rebuild.place = static_cast<std::uint16_t>(place == 0 ? 0 : place - 1);
    sb.target = (r.get<std::uint16_t>() & 1U) != 0;
    sb.rebuild.cursor = r.get<std::uint64_t>();
    sb.rebuild.uuid = get_uuid(r);
    sb.policy = static_cast<RecoveryPolicy>(r.get<std::uint16_t>());
    r.take(6);
    sb.map_epoch = r.get<std::uint64_t>();
    return n;
}

VolumeRecord get_volume(LeReader r, std::uint16_t& extents) {
    VolumeRecord v;
    v.name = r.text(kVolumeNameBytes);
    v.uuid = get_uuid(r);
    v.number = r.get<std::uint16_t>();
    extents = r.get<std::uint16_t>();
    r.take(12);
    v.sectors = SectorCount(r.get<std::uint64_t>());
    for (std::size_t i = 0; i < std::min<std::size_t>(extents, kMaxExtents); ++i) {
        const Lba lba(r.get<std::uint64_t>());
        v.extents.push_back({lba, SectorCount(r.get<std::uint64_t>())});
    }
    return v;
}

AreaRecord get_area(LeReader r) {
    AreaRecord a;
    a.kind = static_cast<AreaKind>(r.get<std::uint16_t>());
    a.version = r.get<std::uint16_t>();
    r.take(4);
    a.lba = Lba(r.get<std::uint64_t>());
    a.sectors = SectorCount(r.get<std::uint64_t>());
    return a;
}

UnreadableRange get_unreadable(LeReader& r) {
    UnreadableRange u;
    u.first = r.get<std::uint64_t>();
    u.count = r.get<std::uint32_t>();
    u.member = r.get<std::uint16_t>();
    r.take(2);
    return u;
}

std::optional<std::string> why_areas_invalid(const Superblock& sb) {
    std::uint64_t end = sb.member_sectors;
    for (std::size_t m = 0; m < sb.members.size(); ++m) {
        end = std::min(end, sb.first_data(m));
    }
    for (const AreaRecord& a : sb.areas) {
        const auto kind = static_cast<std::uint16_t>(a.kind);
        if (kind < 1 || kind > static_cast<std::uint16_t>(AreaKind::kMigration)) {
            return "area of unknown kind " + std::to_string(kind);
        }
        if (a.lba.value < end || a.lba.value > kMaxSectors || a.sectors.value > kMaxSectors ||
            a.lba.value % kSectorsPerBlock != 0 || a.sectors.value % kSectorsPerBlock != 0) {
            return "area " + std::to_string(kind) + " overlaps another or is not on 4 KiB addresses";
        }
        const std::uint64_t pages = a.sectors.value / kSectorsPerBlock;
        if (a.kind == AreaKind::kLog && (pages < kMinLogPages || pages > kMaxLogPages)) {
            return "log area of " + std::to_string(pages) + " pages, not " + std::to_string(kMinLogPages) + " to " +
                   std::to_string(kMaxLogPages);
        }
        end = a.lba.value + a.sectors.value;
    }
    for (std::uint16_t kind = 1; kind <= static_cast<std::uint16_t>(AreaKind::kMigration); ++kind) {
        if (std::ranges::count(sb.areas, static_cast<AreaKind>(kind), &AreaRecord::kind) != 1) {
            return "not exactly one area of kind " + std::to_string(kind);
        }
    }
    return std::nullopt;
}

std::optional<std::string> why_member_sizes_invalid(const Superblock& sb, const LevelRow& level) {
    const std::uint64_t strip = sb.strip_bytes / kSectorBytes;
    const bool linear = level.layout == Layout::kLinear;
    std::uint64_t smallest = kMaxSectors;
    for (std::size_t i = 0; i < sb.members.size(); ++i) {
        const std::uint64_t sectors = sb.members[i].sectors.value;
        if (sectors % strip != 0 || sectors > kMaxSectors || (!linear && sectors != sb.member_sectors)) {
            return "data sizes of the members that the level cannot have";
        }
        smallest = std::min(smallest, linear ? sb.first_data(i) : sectors);
    }
    if (sb.member_sectors == 0 || sb.member_sectors != smallest) {
        return "data size of a member is not whole strips";
    }
    return std::nullopt;
}

/// REQUIRES: the sizes of the members and the areas are right.
std::optional<std::string> why_added_invalid(const Superblock& sb) {
    const AddedSpace& a = sb.added;
    if (!a.any()) {
        return a == AddedSpace{} ? std::nullopt : std::optional<std::string>("details of a growth that was none");
    }
    const std::uint64_t strip = sb.strip_bytes / kSectorBytes;
    const std::size_t last = sb.members.size() - 1;
    if (a.split % strip != 0 || a.unit == 0 || a.unit % strip != 0 || a.unit > kMaxSectors || a.map > a.unit ||
        a.map % kSectorsPerBlock != 0 || a.base % kSectorsPerBlock != 0 || a.base > kMaxSectors ||
        sb.members[last].sectors.value <= a.split) {
        return "added space that is none, or not on whole strips and blocks";
    }
    const AreaRecord& end = sb.areas.back();
    if (a.base < end.lba.value + end.sectors.value + sb.area_shift(last)) {
        return "added space in an area";
    }
    return std::nullopt;
}

std::optional<std::string> why_rebuild_invalid(const Superblock& sb, const Geometry& g) {
    const RebuildRecord& r = sb.rebuild;
    if (!r.active && (sb.target || !(r == RebuildRecord{}))) {
        return "details of a rebuild that is none";
    }
    if (r.active && (r.place >= sb.members.size() || r.cursor > g.columns())) {
        return "rebuild of a place that is none, or beyond the end";
    }
    if (sb.target && r.place != sb.member_index) {
        return "superblock of a rebuild at another place";
    }
    const UnreadableRange* before = nullptr;
    for (const UnreadableRange& u : sb.unreadable) {
        if (u.member >= sb.members.size() || u.count == 0 || u.first > kMaxSectors ||
            (u.first + u.count) * kSectorsPerBlock > sb.members[u.member].sectors.value) {
            return "unreadable blocks outside a member";
        }
        if (before != nullptr &&
            (u.member < before->member || (u.member == before->member && u.first <= before->first + before->count))) {
            return "unreadable blocks out of order";
        }
        before = &u;
    }
    return std::nullopt;
}

std::optional<std::string> why_identity_invalid(const Superblock& sb) {
    if (sb.member_index >= sb.members.size()) {
        return "member index " + std::to_string(sb.member_index) + " beyond the last member";
    }
    if (sb.array_name.empty() || sb.array_name.size() > kArrayNameBytes || sb.array_name.contains('\0')) {
        return "array name of a wrong length";
    }
    if (sb.taken_by_all > sb.epoch) {
        return "an epoch that all members have taken, which is beyond its own";
    }
    return std::nullopt;
}

std::optional<std::string> why_scrub_invalid(const Superblock& sb, const LevelRow& level, const Geometry& g) {
    if (!sb.scrub.active && !(sb.scrub == ScrubRecord{})) {
        return "details of a scrub that is none";
    }
    const bool comparable = level.redundant || (sb.map_epoch != 0 && has_map_room(sb));
    if (sb.scrub.active && (!comparable || sb.scrub.cursor > g.columns())) {
        return "scrub of what cannot be compared with anything, or beyond the end";
    }
    return std::nullopt;
}

std::optional<std::string> why_missed_invalid(const Superblock& sb, const LevelRow& level) {
    const bool some = sb.missed.members != 0;
    if (some != (sb.missed.episode != 0) || (some && !level.redundant) ||
        std::bit_width(sb.missed.members) > sb.members.size()) {
        return "missed extents of no absence, or of members that the array does not have";
    }
    return std::nullopt;
}

std::optional<std::string> why_volumes_invalid(const Superblock& sb, std::uint64_t data_sectors) {
    std::vector<VolumeExtent> all;
    for (const VolumeRecord& v : sb.volumes) {
        if (v.name.empty() || v.name.size() > kVolumeNameBytes || v.name.contains('\0')) {
            return "volume name of a wrong length";
        }
        if (v.extents.empty() || v.extents.size() > kMaxExtents) {
            return "volume '" + v.name + "' has " + std::to_string(v.extents.size()) + " extents";
        }
        const auto same = [&](const VolumeRecord& o) { return o.name == v.name || o.number == v.number; };
        if (v.number == 0 || std::ranges::count_if(sb.volumes, same) != 1) {
            return "two volumes with the name or number of '" + v.name + "'";
        }
        if (v.number >= sb.next_volume_number) {
            return "volume '" + v.name + "' has a number that was not given out yet";
        }
        std::uint64_t held = 0;
        for (const VolumeExtent& e : v.extents) {
            if (e.sectors.value == 0 || e.sectors.value > data_sectors ||
                e.lba.value > data_sectors - e.sectors.value || e.lba.value % kSectorsPerBlock != 0 ||
                e.sectors.value % kSectorsPerBlock != 0) {
                return "volume '" + v.name + "' has an extent outside the array";
            }
            held += e.sectors.value;
            all.push_back(e);
        }
        if (v.sectors.value == 0 || v.sectors.value > held || v.sectors.value % kSectorsPerBlock != 0) {
            return "volume '" + v.name + "' is empty, larger than its extents, or not whole 4 KiB blocks";
        }
    }
    std::ranges::sort(all, {}, [](const VolumeExtent& e) { return e.lba; });
    for (std::size_t i = 1; i < all.size(); ++i) {
        if (all[i - 1].lba.value + all[i - 1].sectors.value > all[i].lba.value) {
            return "two volumes overlap";
        }
    }
    return std::nullopt;
}

}  // namespace

const AreaRecord& Superblock::area(AreaKind kind) const {
    const auto at = std::ranges::find(areas, kind, &AreaRecord::kind);
    CHECK(at != areas.end());
    return *at;
}

namespace {
bool is_linear(const Superblock& sb) {
    const LevelRow* level = find_level(sb.level);
    return level != nullptr && level->layout == Layout::kLinear;
}
}  // namespace

std::uint64_t Superblock::first_data(std::size_t member) const {
    const bool grown = added.any() && (member + 1 == members.size() || !is_linear(*this));
    return grown ? added.split.get() : members[member].sectors.value;
}

std::uint64_t Superblock::area_shift(std::size_t member) const {
    return is_linear(*this) ? first_data(member) - member_sectors : 0;
}

std::uint64_t Superblock::device_end(std::size_t member) const {
    const bool grown = added.any() && (member + 1 == members.size() || !is_linear(*this));
    const AreaRecord& last = areas.back();
    return grown ? added.end(members[member].sectors.value) : last.lba.value + last.sectors.value + area_shift(member);
}

std::uint64_t map_pages(const Superblock& sb) {
    const std::uint64_t added = sb.added.units(sb.members.back().sectors.value) * sb.added.map;
    return (sb.area(AreaKind::kChecksums).sectors.value + added) / kSectorsPerBlock;
}

std::uint64_t unit_map_pages(const Superblock& sb, std::uint64_t unit) {
    Geometry g = geometry_of(sb);
    g.added = {};
    g.member_sectors = unit;
    if (g.layout == Layout::kLinear) {
        g.members = 1;  // the last one grows alone
        g.ends[0] = unit;
    }
    return ChecksumLayout::of(g).area_pages();
}

bool has_map_room(const Superblock& sb) {
    const ChecksumLayout layout = ChecksumLayout::of(geometry_of(sb));
    if (!is_linear(sb)) {
        return map_pages(sb) >= layout.area_pages();
    }
    return sb.area(AreaKind::kChecksums).sectors.value / kSectorsPerBlock >= layout.area_pages() &&
           (!sb.added.any() || sb.added.map / kSectorsPerBlock >= unit_map_pages(sb, sb.added.unit));
}

Geometry geometry_of(const Superblock& sb) {
    const LevelRow* level = find_level(sb.level);
    CHECK(level != nullptr && sb.members.size() <= kMaxMembers);
    Geometry g{level->layout, static_cast<std::uint32_t>(sb.members.size()), sb.strip_bytes / kSectorBytes,
               sb.member_sectors};
    g.added = sb.added;
    if (level->layout == Layout::kLinear) {
        std::uint64_t end = 0;
        for (std::size_t m = 0; m < sb.members.size(); ++m) {
            end += sb.members[m].sectors.value;
            g.ends[m] = end;
        }
    }
    return g;
}

std::optional<std::string> why_invalid(const Superblock& sb) {
    const LevelRow* level = find_level(sb.level);
    if (level == nullptr) {
        return "unknown level number " + std::to_string(sb.level);
    }
    if (!level->fits(sb.members.size())) {
        return std::to_string(sb.members.size()) + " members do not fit level " + std::string(level->name);
    }
    if (auto why = why_identity_invalid(sb)) {
        return why;
    }
    if (!std::has_single_bit(sb.strip_bytes) || sb.strip_bytes < kBlockBytes || sb.strip_bytes > kMiB) {
        return "strip size " + std::to_string(sb.strip_bytes) + " is not a power of two from 4 KiB to 1 MiB";
    }
    if (auto why = why_member_sizes_invalid(sb, *level)) {
        return why;
    }
    if (!is_recorded_policy(sb.policy)) {
        return "unknown recovery policy " + std::to_string(static_cast<std::uint16_t>(sb.policy));
    }
    const Geometry g = geometry_of(sb);
    if (sb.resync_cursor > g.columns()) {
        return "resync position beyond the end";
    }
    if (sb.accepted && level->parities() < 2) {
        return "parity accepted by force at a level that cannot have that";
    }
    std::uint64_t below = 0;
    for (const ColumnRange& r : sb.untrusted) {
        if (r.first < below || r.first >= r.end || r.end > sb.resync_cursor) {
            return "untrusted columns out of order or beyond the resync position";
        }
        below = r.end;
    }
    if (sb.areas.size() > kMaxAreas || sb.volumes.size() > kMaxVolumes || sb.untrusted.size() > kMaxUntrusted ||
        sb.unreadable.size() > kMaxUnreadable) {
        return "more areas, volumes, untrusted columns or unreadable blocks than there is room for";
    }
    for (auto& why : {why_rebuild_invalid(sb, g), why_missed_invalid(sb, *level)}) {
        if (why) {
            return why;
        }
    }
    if (auto why = why_areas_invalid(sb)) {
        return why;
    }
    if (auto why = why_added_invalid(sb)) {
        return why;
    }
    if (auto why = why_scrub_invalid(sb, *level, g)) {
        return why;
    }
    if (sb.area(AreaKind::kChecksums).version != 0 && (sb.map_epoch == 0 || !has_map_room(sb))) {
        return "a checksum map that the array cannot have";
    }
    return why_volumes_invalid(sb, g.sectors().value);
}

void encode(const Superblock& sb, std::span<std::byte, kSuperblockBytes> to) {
    CHECK(!why_invalid(sb));
    std::memset(to.data(), 0, to.size());
    LeWriter header(to.first(kHeaderBytes));
    put_header(header, sb);
    put_scrub(LeWriter(to.subspan(kScrubAt, kScrubBytes)), sb.scrub);
    LeWriter(to.subspan(kRedoFromAt, sizeof(sb.redo_from))).put(sb.redo_from);
    put_missed(LeWriter(to.subspan(kMissedAt, kMissedBytes)), sb.missed);
    for (std::size_t i = 0; i < sb.members.size(); ++i) {
        LeWriter w(to.subspan(kMembersAt + i * kMemberBytes, kMemberBytes));
        w.put(ConstBytes(sb.members[i].uuid.bytes));
        w.put(ConstBytes(sb.members[i].last_incarnation.bytes));
        const std::uint64_t blocks = sb.members[i].sectors.value / kSectorsPerBlock;
        w.put(blocks << kMemberFlagBits | (sb.members[i].failed ? 1U : 0U));
    }
    for (std::size_t i = 0; i < sb.areas.size(); ++i) {
        LeWriter w(to.subspan(kAreasAt + i * kAreaBytes, kAreaBytes));
        w.put(static_cast<std::uint16_t>(sb.areas[i].kind));
        w.put(sb.areas[i].version);
        w.put(std::uint32_t{0});
        w.put(sb.areas[i].lba.value);
        w.put(sb.areas[i].sectors.value);
    }
    for (std::size_t i = 0; i < sb.volumes.size(); ++i) {
        const VolumeRecord& v = sb.volumes[i];
        LeWriter w(to.subspan(kVolumesAt + i * kVolumeBytes, kVolumeBytes));
        w.text(v.name, kVolumeNameBytes);
        w.put(ConstBytes(v.uuid.bytes));
        w.put(v.number);
        w.put(static_cast<std::uint16_t>(v.extents.size()));
        w.text({}, 12);
        w.put(v.sectors.value);
        for (const VolumeExtent& e : v.extents) {
            w.put(e.lba.value);
            w.put(e.sectors.value);
        }
    }
    put_added(LeWriter(to.subspan(kAddedAt, kAddedBytes)), sb.added);
    store_le(to.data() + kTakenAt, sb.taken_by_all);
    LeWriter ranges(to.subspan(kUntrustedAt, kMaxUntrusted * kRangeBytes));
    for (const ColumnRange& r : sb.untrusted) {
        ranges.put(r.first);
        ranges.put(r.end);
    }
    LeWriter blocks(to.subspan(kUnreadableAt, kMaxUnreadable * kRangeBytes));
    for (const UnreadableRange& u : sb.unreadable) {
        blocks.put(u.first);
        blocks.put(u.count);
        blocks.put(u.member);
        blocks.put(std::uint16_t{0});
    }
    store_le(to.data() + kCrcAt, crc32c(to.first(kCrcAt)));
}

namespace {

/// What encode() never makes of what this program knows: numbers that no array reaches, bytes that no field explains.
Result<void> refuse_foreign(const Superblock& sb, std::span<const std::byte, kSuperblockBytes> from) {
    for (const AreaRecord& a : sb.areas) {
        const bool known = a.kind == AreaKind::kLog         ? a.version == kLogAreaVersion
                           : a.kind == AreaKind::kChecksums ? a.version <= kChecksumVersion
                                                            : a.version == 0;
        if (!known) {
            return fail(Errc::kUnsupported, "area " + std::to_string(static_cast<std::uint16_t>(a.kind)) +
                                                " is of version " + std::to_string(a.version) +
                                                ", which this program does not know");
        }
    }
    if (sb.epoch > kMaxEpoch || sb.log_generation > kMaxLogGeneration || sb.redo_from > kMaxLogPosition) {
        return fail(Errc::kCorrupt, "superblock with an epoch or a place in the log that no array reaches");
    }
    std::array<std::byte, kSuperblockBytes> again;
    encode(sb, again);
    if (std::memcmp(again.data(), from.data(), again.size()) != 0) {
        return fail(Errc::kCorrupt, "superblock holds bytes that no field explains");  // SB3
    }
    return {};
}

}  // namespace

Result<Superblock> decode_superblock(std::span<const std::byte, kSuperblockBytes> from) {
    if (load_le<std::uint64_t>(from.data()) != kMagic) {
        return fail(Errc::kNotFound, "no Gemel superblock");
    }
    const auto version = load_le<std::uint32_t>(from.data() + 8);
    if (load_le<std::uint32_t>(from.data() + kCrcAt) != crc32c(from.first(kCrcAt))) {
        return fail(Errc::kCorrupt, "superblock does not match its checksum");
    }
    if (version != kSuperblockVersion) {
        return fail(Errc::kUnsupported, "superblock of format version " + std::to_string(version) +
                                            "; this program knows version " + std::to_string(kSuperblockVersion));
    }
    Superblock sb;
    LeReader header(from.first(kHeaderBytes));
    const Counts n = get_header(header, sb);
    sb.scrub = get_scrub(LeReader(from.subspan(kScrubAt, kScrubBytes)));
    sb.redo_from = load_le<std::uint64_t>(from.data() + kRedoFromAt);
    sb.missed = get_missed(LeReader(from.subspan(kMissedAt, kMissedBytes)));
    sb.added = get_added(LeReader(from.subspan(kAddedAt, kAddedBytes)));
    sb.taken_by_all = load_le<std::uint64_t>(from.data() + kTakenAt);
    if (n.members > kMaxMembers || n.areas > kMaxAreas || n.volumes > kMaxVolumes || n.untrusted > kMaxUntrusted ||
        n.unreadable > kMaxUnreadable) {
        return fail(Errc::kCorrupt, "superblock counts more of something than it has room for");
    }
    for (std::size_t i = 0; i < n.members; ++i) {
        LeReader r(from.subspan(kMembersAt + i * kMemberBytes, kMemberBytes));
        MemberRecord m;
        m.uuid = get_uuid(r);
        m.last_incarnation = get_uuid(r);
        const auto word = r.get<std::uint64_t>();
        m.failed = (word & 1U) != 0;
        m.sectors = SectorCount((word >> kMemberFlagBits) * kSectorsPerBlock);
        sb.members.push_back(m);
    }
    for (std::size_t i = 0; i < n.areas; ++i) {
        sb.areas.push_back(get_area(LeReader(from.subspan(kAreasAt + i * kAreaBytes, kAreaBytes))));
    }
    for (std::size_t i = 0; i < n.volumes; ++i) {
        std::uint16_t extents = 0;
        sb.volumes.push_back(get_volume(LeReader(from.subspan(kVolumesAt + i * kVolumeBytes, kVolumeBytes)), extents));
        if (extents > kMaxExtents) {
            return fail(Errc::kCorrupt, "superblock: a volume has more extents than there is room for");
        }
    }
    LeReader ranges(from.subspan(kUntrustedAt, kMaxUntrusted * kRangeBytes));
    for (std::size_t i = 0; i < n.untrusted; ++i) {
        const auto first = ranges.get<std::uint64_t>();
        sb.untrusted.push_back({first, ranges.get<std::uint64_t>()});
    }
    LeReader blocks(from.subspan(kUnreadableAt, kMaxUnreadable * kRangeBytes));
    for (std::size_t i = 0; i < n.unreadable; ++i) {
        sb.unreadable.push_back(get_unreadable(blocks));
    }
    if (auto why = why_invalid(sb)) {
        return fail(Errc::kCorrupt, "superblock contradicts itself: " + *why);
    }
    TRY_VOID(refuse_foreign(sb, from));
    return sb;
}

}  // namespace gemel::raid
