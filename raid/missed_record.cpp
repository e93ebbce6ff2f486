// SPDX-License-Identifier: Apache-2.0
#include "raid/missed_record.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint32_t kMagic = 0x3158'4d47U;  // "GMX1"
constexpr std::size_t kCrcAt = kMissedHeaderBytes - 4;
static_assert(kCrcAt == 4 + 2 + 2 + 8 + 8 + 4 + 2 + 2 + 4);
static_assert(kMissedMemberBytes == 2 + 6 + 16 + 2 * (8 + 16));
constexpr std::uint64_t kMaxColumns = 1ULL << 50U;  ///< beyond what any array reaches
constexpr std::uint64_t kLeastRegionBytes = kMiB;   ///< of a large array: each region costs a record at most
constexpr std::uint64_t kLeastRegions = 1024;       ///< of a small one
constexpr std::uint64_t kMostRegion = 1ULL << 31U;  ///< columns; a larger set takes more of a record than it should

std::uint32_t record_crc(ConstBytes bytes) {
    constexpr std::array<std::byte, 4> zero{};
    return crc32c(bytes.subspan(kCrcAt + 4), crc32c(zero, crc32c(bytes.first(kCrcAt))));
}

std::size_t bitmap_bytes(std::uint64_t regions) {
    return (regions + 7) / 8;
}

std::size_t body_bytes(const MissedRecord& record) {
    return record.kind == MissedKind::kBase ? bitmap_bytes(record.set.regions())
                                            : record.regions.size() * sizeof(std::uint32_t);
}

Uuid get_uuid(LeReader& r) {
    Uuid u;
    std::ranges::copy(r.take(u.bytes.size()), u.bytes.begin());
    return u;
}

SuperblockStamp get_stamp(LeReader& r) {
    const auto epoch = r.get<std::uint64_t>();
    return {epoch, get_uuid(r)};
}

void put_stamp(LeWriter& w, const SuperblockStamp& stamp) {
    w.put(stamp.epoch);
    w.put(ConstBytes(stamp.incarnation.bytes));
}

/// Errors: kCorrupt: it counts other things than it holds.
Result<void> get_body(LeReader& r, std::uint16_t members, std::uint32_t count, MissedRecord& out) {
    const bool base = out.kind == MissedKind::kBase;
    const std::size_t body = base ? bitmap_bytes(count) : std::size_t{count} * sizeof(std::uint32_t);
    if (members > kMaxMembers || count > kMaxMissedRegions || r.remaining() != members * kMissedMemberBytes + body) {
        return fail(Errc::kCorrupt, "record of missed extents counts other things than it holds");
    }
    for (std::uint16_t i = 0; i < members; ++i) {
        LostMember m;
        m.place = r.get<std::uint16_t>();
        r.take(6);
        m.uuid = get_uuid(r);
        m.taken = get_stamp(r);
        m.offered = get_stamp(r);
        out.members.push_back(m);
    }
    out.set = RegionSet(base ? count : 0);
    for (std::size_t byte = 0; base && byte < body; ++byte) {
        const auto bits = r.get<std::uint8_t>();
        for (std::uint64_t bit = 0; bit < 8; ++bit) {
            const std::uint64_t region = byte * 8 + bit;
            if ((bits >> bit & 1U) != 0 && region >= count) {
                return fail(Errc::kCorrupt, "record of missed extents names a region beyond the last");
            }
            if ((bits >> bit & 1U) != 0) {
                out.set.add(region);
            }
        }
    }
    for (std::uint32_t i = 0; !base && i < count; ++i) {
        out.regions.push_back(r.get<std::uint32_t>());
    }
    return {};
}
}  // namespace

bool LostMember::is(const Uuid& device, const SuperblockStamp& newest) const {
    const bool between =
        newest.epoch > taken.epoch && newest.epoch <= offered.epoch && newest.incarnation == offered.incarnation;
    return device == uuid && (newest == taken || between);
}

MissedShape MissedShape::of(const Geometry& geometry, std::size_t record_bytes) {
    const std::uint64_t columns = geometry.columns();
    std::uint64_t region = std::min(kLeastRegionBytes / kSectorBytes, std::bit_ceil(columns / kLeastRegions + 1));
    region = std::max(region, geometry.strip_sectors);
    const std::size_t rest = kMissedHeaderBytes + geometry.members * kMissedMemberBytes;
    const std::uint64_t room = record_bytes > rest ? (record_bytes - rest) * 8 : 1;
    const std::uint64_t most = std::min<std::uint64_t>(kMaxMissedRegions, room);
    while ((columns + region - 1) / region > most && region < kMostRegion) {
        region *= 2;
    }
    return {columns, static_cast<std::uint32_t>(region)};
}

std::uint64_t RegionSet::count() const {
    return std::accumulate(words_.begin(), words_.end(), std::uint64_t{0},
                           [](std::uint64_t n, std::uint64_t w) { return n + std::uint64_t(std::popcount(w)); });
}

void RegionSet::add(const RegionSet& other) {
    CHECK(regions_ == other.regions_);
    for (std::size_t i = 0; i < words_.size(); ++i) {
        words_[i] |= other.words_[i];
    }
}

void RegionSet::clear() {
    std::ranges::fill(words_, 0);
}

std::optional<std::string> why_invalid(const MissedRecord& record) {
    if (record.kind != MissedKind::kAdd && record.kind != MissedKind::kBase) {
        return "unknown kind " + std::to_string(static_cast<std::uint16_t>(record.kind));
    }
    const bool base = record.kind == MissedKind::kBase;
    if (record.episode == 0 || record.shape.region == 0 || record.shape.regions() > kMaxMissedRegions ||
        record.shape.columns > kMaxColumns) {
        return "no episode, or regions that no array has";
    }
    if (base != (record.set.regions() == record.shape.regions()) ||
        (base ? !record.regions.empty() : !record.members.empty())) {
        return "a set of another size, or in a record that has none";
    }
    if (std::ranges::any_of(record.regions, [&](std::uint32_t r) { return r >= record.shape.regions(); }) ||
        std::ranges::adjacent_find(record.regions, std::ranges::greater_equal{}) != record.regions.end()) {
        return "regions beyond the last or out of order";
    }
    std::uint32_t places = 0;
    for (const LostMember& m : record.members) {
        if (m.place >= kMaxMembers || (places >> m.place & 1U) != 0 || m.taken.epoch > m.offered.epoch) {
            return "members that no array has";
        }
        places |= 1U << m.place;
    }
    return std::nullopt;
}

std::vector<std::byte> encode(const MissedRecord& record) {
    CHECK(!why_invalid(record));
    const bool base = record.kind == MissedKind::kBase;
    std::vector<std::byte> out(kMissedHeaderBytes + record.members.size() * kMissedMemberBytes + body_bytes(record));
    LeWriter w(out);
    w.put(kMagic);
    w.put(kMissedVersion);
    w.put(static_cast<std::uint16_t>(record.kind));
    w.put(record.episode);
    w.put(record.shape.columns);
    w.put(record.shape.region);
    w.put(static_cast<std::uint16_t>(record.members.size()));
    w.put(std::uint16_t{0});
    w.put(static_cast<std::uint32_t>(base ? record.set.regions() : record.regions.size()));
    w.put(std::uint32_t{0});
    for (const LostMember& m : record.members) {
        w.put(m.place);
        w.text({}, 6);
        w.put(ConstBytes(m.uuid.bytes));
        put_stamp(w, m.taken);
        put_stamp(w, m.offered);
    }
    for (std::uint64_t at = 0; base && at < record.set.regions(); at += 8) {
        std::uint8_t bits = 0;
        for (std::uint64_t bit = 0; bit < 8 && at + bit < record.set.regions(); ++bit) {
            bits = static_cast<std::uint8_t>(bits | (record.set.contains(at + bit) ? 1U << bit : 0U));
        }
        w.put(bits);
    }
    for (const std::uint32_t r : record.regions) {
        w.put(r);
    }
    store_le(out.data() + kCrcAt, record_crc(out));
    return out;
}

Result<MissedRecord> decode_missed_record(ConstBytes bytes) {
    LeReader r(bytes);
    if (bytes.size() < kMissedHeaderBytes || r.get<std::uint32_t>() != kMagic) {
        return fail(Errc::kCorrupt, "no record of missed extents");
    }
    if (load_le<std::uint32_t>(bytes.data() + kCrcAt) != record_crc(bytes)) {
        return fail(Errc::kCorrupt, "record of missed extents does not match its checksum");
    }
    if (const auto version = r.get<std::uint16_t>(); version != kMissedVersion) {
        return fail(Errc::kUnsupported, "record of missed extents of format version " + std::to_string(version));
    }
    MissedRecord out;
    out.kind = static_cast<MissedKind>(r.get<std::uint16_t>());
    out.episode = r.get<std::uint64_t>();
    out.shape.columns = r.get<std::uint64_t>();
    out.shape.region = r.get<std::uint32_t>();
    const auto members = r.get<std::uint16_t>();
    r.take(2);
    const auto count = r.get<std::uint32_t>();
    r.take(4);
    TRY_VOID(get_body(r, members, count, out));
    if (auto why = why_invalid(out)) {
        return fail(Errc::kCorrupt, "record of missed extents contradicts itself: " + *why);
    }
    if (!std::ranges::equal(encode(out), bytes)) {
        return fail(Errc::kCorrupt, "record of missed extents holds bytes that no field explains");
    }
    return out;
}

Result<std::optional<MissedState>> recover_missed(const std::vector<LogRecord>& records, std::uint64_t episode,
                                                  const MissedShape& shape) {
    std::optional<MissedState> out;
    for (const LogRecord& r : records) {
        TRY(const MissedRecord record, decode_missed_record(r.bytes));
        if (record.episode != episode) {
            continue;
        }
        if (record.shape != shape) {
            return fail(Errc::kCorrupt, "missed extents of an array of another size");
        }
        if (record.kind == MissedKind::kBase) {
            out = MissedState{r.position, record.members, record.set};
        }
        for (const std::uint32_t region : record.regions) {
            if (out) {
                out->set.add(region);
            }
        }
    }
    return out;
}

}  // namespace gemel::raid
