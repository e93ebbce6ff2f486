// SPDX-License-Identifier: Apache-2.0
// Formatting a new array: layout of its members, the check that they are blank, and the first state of log and
// superblocks.
// Threads: any executor.
#include <algorithm>
#include <cstring>

#include "raid/assembly.hpp"
#include "raid/checksum_page.hpp"
#include "raid/durable_log.hpp"
#include "raid/member_fan.hpp"
#include "raid/redo_record.hpp"
#include "raid/volume_table.hpp"

namespace gemel::raid {

namespace {

using Kind = MemberReading::Kind;

/// The default share of a member that an area takes.
struct AreaShare {
    AreaKind kind;
    std::uint64_t ReservedAreas::* configured;
    std::uint64_t divisor;
    std::uint64_t least;
    std::uint64_t most;
};
constexpr std::array kAreaShares{
    AreaShare{AreaKind::kLog, &ReservedAreas::log_bytes, 64, 128 * kKiB, 64 * kMiB},
    AreaShare{AreaKind::kJournal, &ReservedAreas::journal_bytes, 256, 32 * kKiB, 16 * kMiB},
    AreaShare{AreaKind::kRedo, &ReservedAreas::redo_bytes, 128, 32 * kKiB, 64 * kMiB},
    AreaShare{AreaKind::kChecksums, &ReservedAreas::checksum_bytes, 900, 8 * kKiB, 1ULL << 50U},
    AreaShare{AreaKind::kMirror, &ReservedAreas::mirror_bytes, 1024, 16 * kKiB, 64 * kMiB},
    AreaShare{AreaKind::kMigration, &ReservedAreas::migration_bytes, 64, 32 * kKiB, 64 * kMiB},
};

/// RedoLog::fits().
std::uint64_t least_log_bytes(const LevelRow& level, std::size_t members) {
    return level.parities() == 0 ? 0 : RingLog::bytes_for_records_of(redo_record_bytes(members, kBlockBytes));
}

/// Members of such different sizes that the map of the largest, which may lie on the smallest, would take more of that
/// than this part, have none.
constexpr std::uint64_t kLeastMapShare = 8;

/// What the checksum map of an array needs on each of members of these sizes; their data is less than that. 0: too
/// much.
std::uint64_t map_bytes(const LevelRow& level, std::uint64_t strip, std::span<const std::uint64_t> device_sectors) {
    const std::uint64_t smallest = round_down(*std::ranges::min_element(device_sectors), kSectorsPerBlock);
    Geometry g;
    g.layout = level.layout;
    g.members = static_cast<std::uint32_t>(device_sectors.size());
    g.strip_sectors = strip;
    g.member_sectors = round_up(smallest, strip);
    if (level.layout != Layout::kLinear) {
        return ChecksumLayout::of(g).area_pages() * kChecksumPageBytes;
    }
    std::uint64_t end = 0;
    for (std::uint32_t m = 0; m < g.members; ++m) {
        end += round_up(round_down(device_sectors[m], kSectorsPerBlock), strip);
        g.ends[m] = end;
    }
    const ChecksumLayout map = ChecksumLayout::of(g);
    // Where a member begins, and so how many pages begin on it, is not known yet.
    const std::uint64_t more = g.members == 1 ? 0 : 2 * map.pages_per_group();
    const std::uint64_t bytes = (map.area_pages() + more) * kChecksumPageBytes;
    return bytes <= smallest * kSectorBytes / kLeastMapShare ? bytes : 0;
}

/// What areas must hold, whatever their share of the member is.
struct AreaNeeds {
    std::uint64_t log = 0;
    std::uint64_t map = 0;  ///< exactly; 0: nothing
};

std::uint64_t area_sectors(const AreaShare& share, const ReservedAreas& areas, std::uint64_t member_bytes,
                           const AreaNeeds& needs) {
    const std::uint64_t configured = areas.*share.configured;
    const std::uint64_t least = share.kind == AreaKind::kLog ? std::max(share.least, needs.log) : share.least;
    const std::uint64_t by_share = share.kind == AreaKind::kChecksums && needs.map != 0
                                       ? needs.map
                                       : std::clamp(member_bytes / share.divisor, least, share.most);
    return round_up(configured != 0 ? configured : by_share, kBlockBytes) / kSectorBytes;
}

constexpr std::size_t kBlankCheckBytes = kMiB;
constexpr std::size_t kBlankCheckStep = 64 * kKiB;

Task<Result<bool>> reads_zero(BufferPool& buffers, BlockDevice& device, std::uint64_t first, std::uint64_t end) {
    CO_TRY(const Buffer buffer, buffers.allocate(kBlankCheckStep));
    while (first < end) {
        const std::uint64_t part = std::min<std::uint64_t>(end - first, kBlankCheckStep / kSectorBytes);
        const Slice slice = buffer.slice(part * kSectorBytes, Lba(first));
        CO_TRY_VOID(co_await device.read(Lba(first), slice, {}));
        if (!all_zero(slice.data())) {
            co_return false;
        }
        first += part;
    }
    co_return true;
}

}  // namespace

Task<Result<void>> require_blank(Environment& env, MemberSpec spec, MemberReading reading) {
    const std::string advice = "; it is not formatted. Wipe it if its data is not needed";
    switch (reading.kind) {
        case Kind::kAbsent:
        case Kind::kUnread:
            co_return fail(Errc::kDeviceGone, "member " + spec.name + " cannot be formatted: " + reading.why);
        case Kind::kFound:
            co_return fail(Errc::kRefused, "member " + spec.name + " already belongs to array '" +
                                               reading.superblock.array_name + "'. Start without create to use it" +
                                               advice);
        case Kind::kDamaged:
        case Kind::kUnsupported:
            co_return fail(Errc::kRefused, "member " + spec.name + " is not blank: " + reading.why + advice);
        case Kind::kBlank:
            break;
    }
    const std::uint64_t sectors = round_down(reading.sectors, kSectorsPerBlock);
    const std::uint64_t edge = std::min<std::uint64_t>(kBlankCheckBytes / kSectorBytes, sectors);
    CO_TRY(const bool head, co_await reads_zero(env.buffers, *spec.device, 0, edge));
    CO_TRY(const bool tail, co_await reads_zero(env.buffers, *spec.device, sectors - edge, sectors));
    if (!head || !tail) {
        co_return fail(Errc::kRefused, "member " + spec.name + " is not blank: its " + (head ? "last" : "first") +
                                           " MiB holds data" + advice);
    }
    co_return Result<void>{};
}

Result<Superblock> plan_format(const ArrayConfig& config, const LevelRow& level,
                               std::span<const std::uint64_t> device_sectors, Random& random) {
    CHECK(device_sectors.size() == config.members.size());
    Superblock sb;
    sb.array_uuid = random.uuid();
    sb.array_name = config.name;
    sb.level = level.id;
    sb.strip_bytes = config.strip_bytes;
    sb.incarnation = random.uuid();
    sb.epoch = 1;
    sb.log_generation = 1;
    sb.policy = level.redundant ? recorded_policy(config.policy) : RecoveryPolicy::kResync;
    for (std::size_t i = 0; i < config.members.size(); ++i) {
        sb.members.push_back({random.uuid(), false, sb.incarnation, {}});
    }
    const std::uint64_t smallest = *std::ranges::min_element(device_sectors);
    const std::uint64_t usable = round_down(smallest, kSectorsPerBlock);
    const std::uint64_t strip = config.strip_bytes / kSectorBytes;
    const AreaNeeds needs{least_log_bytes(level, config.members.size()), map_bytes(level, strip, device_sectors)};
    std::uint64_t reserved = 2 * kSuperblockSectors;
    for (const AreaShare& share : kAreaShares) {
        reserved += area_sectors(share, config.areas, usable * kSectorBytes, needs);
    }
    sb.member_sectors = usable > reserved ? round_down(usable - reserved, strip) : 0;
    for (std::size_t i = 0; i < sb.members.size() && sb.member_sectors > 0; ++i) {
        const std::uint64_t own = round_down(round_down(device_sectors[i], kSectorsPerBlock) - reserved, strip);
        sb.members[i].sectors = SectorCount(level.layout == Layout::kLinear ? own : sb.member_sectors);
    }
    const Geometry g = geometry_of(sb);
    if (sb.member_sectors == 0 || g.sectors().value < allocation_unit(g.sectors())) {
        return fail(Errc::kNoSpace, "array " + config.name + ": members are too small: the smallest has " +
                                        std::to_string(smallest * kSectorBytes) + " bytes, of which " +
                                        std::to_string(reserved * kSectorBytes) +
                                        " are reserved; at least one strip and 64 KiB of data must fit");
    }
    Lba at(sb.member_sectors);
    for (const AreaShare& share : kAreaShares) {
        const std::uint64_t sectors = area_sectors(share, config.areas, usable * kSectorBytes, needs);
        const std::uint16_t version = share.kind == AreaKind::kLog ? 1 : 0;
        sb.areas.push_back({share.kind, version, at, SectorCount(sectors)});
        at += sectors;
    }
    const std::uint64_t log_pages = sb.area(AreaKind::kLog).sectors.value / kSectorsPerBlock;
    if (log_pages < kMinLogPages || log_pages > kMaxLogPages) {
        return fail(Errc::kInvalidArgument, "array " + config.name + ": the log area must have " +
                                                std::to_string(kMinLogPages * kBlockBytes) + " to " +
                                                std::to_string(kMaxLogPages * kBlockBytes) + " bytes");
    }
    // Only the edges of the members are known to be zero: redundancy is made right once, in the background. A parity
    // strip is written only where it differs, so that sparse members stay sparse.
    sb.resync_cursor = level.redundant ? 0 : g.columns();
    if (auto why = why_invalid(sb)) {  // a device that claims more than addresses can say, a name with a zero byte
        return fail(Errc::kInvalidArgument, "array " + config.name + " cannot be formatted: " + *why);
    }
    for (const VolumeSpec& spec : config.volumes) {
        TRY_VOID(add_volume(sb, spec, g.sectors(), random));
    }
    return sb;
}

namespace {

constexpr std::uint64_t kFirstSlot = 0;
constexpr std::uint64_t kGivenBackAtOnce = 256 * kMiB / kSectorBytes;

Task<Result<void>> write_first_superblock(Environment& env, BlockDevice* device, Superblock sb) {
    CO_TRY(const Buffer buffer, env.buffers.allocate(kSuperblockBytes));
    const Lba lba = SlotPlace{kFirstSlot, device->limits().sectors}.lba();
    const Slice slice = buffer.slice(kSuperblockBytes, lba);
    encode(sb, slice.data().first<kSuperblockBytes>());
    slice.clear_infos();
    co_return co_await device->write(lba, slice, {.fua = true});
}

/// In pieces, each of which a member has its time for. One that turns out to give nothing back writes zeros: no more.
Task<Result<void>> give_back(BlockDevice& device, std::uint64_t sectors) {
    for (std::uint64_t at = 0; at < sectors && device.limits().gives_back; at += kGivenBackAtOnce) {
        CO_TRY_VOID(co_await device.discard(Lba(at), SectorCount(std::min(sectors - at, kGivenBackAtOnce))));
    }
    co_return Result<void>{};
}

/// What is no area gives its space back; it need not read as anything, since redundancy is made right later. So nothing
/// depends on it, but that it has ended: later it would take what is written by then.
Task<Result<void>> give_back_data(const ArrayConfig& config, const Superblock& sb, std::vector<Finding>& findings) {
    MemberFan fan;
    for (std::size_t i = 0; i < config.members.size(); ++i) {
        fan.start(i, give_back(*config.members[i].device, sb.members[i].sectors.value));
    }
    co_await fan.all();
    for (std::size_t i = 0; i < config.members.size(); ++i) {
        const std::optional<Errc> code = fan.failure(i);
        const std::string& member = config.members[i].name;
        if (code == Errc::kTimedOut) {
            co_return fail(Errc::kTimedOut, "member " + member + " cannot be formatted: it does not end a discard; " +
                                                "set thin = false, or a longer member_timeout");
        }
        if (code) {
            findings.push_back({Severity::kWarning, "space-kept", "array " + config.name + " member " + member,
                                "a discard of its data failed: " + std::string(errc_name(*code)),
                                "nothing, unless its space is needed: discard its data from a host"});
        }
    }
    co_return Result<void>{};
}

}  // namespace

Task<Result<Assembly>> format(Environment& env, const ArrayConfig& config, const LevelRow& level,
                              std::vector<MemberReading> readings) {
    std::vector<std::uint64_t> sizes;
    for (std::size_t i = 0; i < readings.size(); ++i) {
        CO_TRY_VOID(co_await require_blank(env, config.members[i], readings[i]));
        sizes.push_back(readings[i].sectors);
    }
    CO_TRY(Superblock sb, plan_format(config, level, sizes, env.random));
    Assembly out;
    if (config.thin) {
        CO_TRY_VOID(co_await give_back_data(config, sb, out.findings));
    }
    MemberFan fan;
    for (std::uint16_t i = 0; i < config.members.size(); ++i) {
        sb.member_index = i;
        fan.start(i, RingLog::format(env, *config.members[i].device, sb));
    }
    co_await fan.all();
    if (fan.failed()) {
        co_return std::unexpected(fan.first_error());
    }
    for (std::uint16_t i = 0; i < config.members.size(); ++i) {
        sb.member_index = i;
        fan.start(i, write_first_superblock(env, config.members[i].device, sb));
    }
    co_await fan.all();
    if (fan.failed()) {
        co_return std::unexpected(fan.first_error());
    }
    sb.member_index = 0;
    out.winner = sb;
    out.states.assign(config.members.size(), MemberState::kInSync);
    for (const std::uint64_t sectors : sizes) {
        out.slots.push_back({kFirstSlot, SectorCount(sectors)});
    }
    out.stamps.assign(config.members.size(), sb.stamp());
    out.formatted = true;
    co_return out;
}

}  // namespace gemel::raid
