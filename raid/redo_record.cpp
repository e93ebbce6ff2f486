// SPDX-License-Identifier: Apache-2.0
#include "raid/redo_record.hpp"

#include <algorithm>

#include "gemel/crc32c.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint32_t kMagic = 0x31445247U;         // "GRD1"
constexpr std::uint32_t kPartialMagic = 0x31505047U;  // "GPP1"
constexpr std::size_t kCrcAt = 16;
static_assert(kCrcAt == 4 + 2 + 2 + 8 && kRedoHeaderBytes == kCrcAt + 4 + 4);
static_assert(kRedoPartBytes == 2 + 2 + 4 + 8 + 8);
static_assert(kPartialRunBytes == 2 + 2 + 4);

std::uint32_t record_crc(ConstBytes bytes) {
    constexpr std::array<std::byte, 4> zero{};
    return crc32c(bytes.subspan(kCrcAt + 4), crc32c(zero, crc32c(bytes.first(kCrcAt))));
}
/// RR4. Twice is the same as not at all. REQUIRES: whole words.
void mix(MutableBytes bytes, std::uint32_t seed) {
    std::uint64_t state = seed + 0x9e3779b97f4a7c15ULL;
    for (std::size_t at = 0; at + sizeof(state) <= bytes.size(); at += sizeof(state)) {
        state ^= state << 13U;
        state ^= state >> 7U;
        state ^= state << 17U;
        store_le(bytes.data() + at, load_le<std::uint64_t>(bytes.data() + at) ^ state);
    }
}

/// The header that both kinds have.
struct Head {
    std::uint32_t magic = 0;
    std::uint16_t version = 0;
    std::uint16_t count = 0;
    StripeIndex stripe;
    std::uint32_t seed = 0;
};
void put(LeWriter& w, const Head& head) {
    w.put(head.magic);
    w.put(head.version);
    w.put(head.count);
    w.put(head.stripe.value);
    w.put(std::uint32_t{0});
    w.put(head.seed);
}
/// What follows the heads of the parts is mixed, and the checksum set.
void finish(std::vector<std::byte>& record, std::size_t heads, std::uint32_t seed) {
    mix(MutableBytes(record).subspan(heads), seed);
    store_le(record.data() + kCrcAt, record_crc(record));
}
/// What all records begin with; gives the number of parts. Errors: kUnsupported: another version than that of
/// `wanted`. kCorrupt.
template <class Record>
Result<std::uint16_t> take_head(LeReader& r, ConstBytes bytes, const Head& wanted, std::size_t part_bytes,
                                Record& out) {
    if (bytes.size() < kRedoHeaderBytes || r.get<std::uint32_t>() != wanted.magic) {
        return fail(Errc::kCorrupt, "no redo record");
    }
    if (load_le<std::uint32_t>(bytes.data() + kCrcAt) != record_crc(bytes)) {
        return fail(Errc::kCorrupt, "redo record does not match its checksum");
    }
    if (const auto version = r.get<std::uint16_t>(); version != wanted.version) {
        return fail(Errc::kUnsupported, "redo record of format version " + std::to_string(version));
    }
    const auto count = r.get<std::uint16_t>();
    out.stripe = StripeIndex(r.get<std::uint64_t>());
    r.take(4);
    out.seed = r.get<std::uint32_t>();
    if (r.remaining() / part_bytes < count) {
        return fail(Errc::kCorrupt, "redo record counts more parts than it holds");
    }
    return count;
}
std::vector<std::byte> take_content(LeReader& r, std::uint32_t seed) {
    const ConstBytes mixed = r.take(r.remaining());
    std::vector<std::byte> out(mixed.begin(), mixed.end());
    mix(out, seed);
    return out;
}
}  // namespace

std::optional<std::string> why_invalid(const RedoRecord& record, const Geometry& geometry) {
    if (record.stripe.value >= geometry.stripes()) {
        return "stripe " + std::to_string(record.stripe.value) + " of " + std::to_string(geometry.stripes());
    }
    const Lba first = geometry.stripe_lba(record.stripe);
    for (const RedoPart& p : record.parts) {
        const std::uint64_t sectors = p.bytes.size() / kSectorBytes;
        if (p.member >= geometry.members || p.bytes.empty() || p.bytes.size() % kSectorBytes != 0) {
            return "a part of no member, or not of whole sectors";
        }
        const std::uint64_t strip = geometry.strip_sectors;
        if (sectors > strip || p.lba < first || p.lba.value - first.value > strip - sectors) {
            return "a part outside stripe " + std::to_string(record.stripe.value);
        }
    }
    return std::nullopt;
}

std::vector<std::byte> encode(const RedoRecord& record) {
    std::size_t size = kRedoHeaderBytes + record.parts.size() * kRedoPartBytes;
    for (const RedoPart& p : record.parts) {
        size += p.bytes.size();
    }
    std::vector<std::byte> out(size);
    LeWriter w(out);
    put(w, {kMagic, kRedoVersion, static_cast<std::uint16_t>(record.parts.size()), record.stripe, record.seed});
    for (const RedoPart& p : record.parts) {
        w.put(static_cast<std::uint16_t>(p.member));
        w.put(std::uint16_t{0});
        w.put(static_cast<std::uint32_t>(p.bytes.size()));
        w.put(p.lba.value);
        w.put(p.tag);
    }
    for (const RedoPart& p : record.parts) {
        w.put(p.bytes);
    }
    finish(out, kRedoHeaderBytes + record.parts.size() * kRedoPartBytes, record.seed);
    return out;
}

Result<RedoRecord> decode_redo_record(ConstBytes bytes, const Geometry& geometry) {
    LeReader r(bytes);
    RedoRecord out;
    TRY(const auto count, take_head(r, bytes, {.magic = kMagic, .version = kRedoVersion}, kRedoPartBytes, out));
    std::vector<std::uint32_t> sizes;
    for (std::uint16_t i = 0; i < count; ++i) {
        RedoPart p;
        p.member = r.get<std::uint16_t>();
        const auto zero = r.get<std::uint16_t>();
        sizes.push_back(r.get<std::uint32_t>());
        p.lba = Lba(r.get<std::uint64_t>());
        p.tag = r.get<std::uint64_t>();
        if (zero != 0) {
            return fail(Errc::kCorrupt, "redo record with bytes that no field explains");
        }
        out.parts.push_back(p);
    }
    out.content = take_content(r, out.seed);
    LeReader content(out.content);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i] > content.remaining()) {
            return fail(Errc::kCorrupt, "redo record is shorter than its parts");
        }
        out.parts[i].bytes = content.take(sizes[i]);
    }
    if (content.remaining() != 0) {
        return fail(Errc::kCorrupt, "redo record is longer than its parts");
    }
    if (auto why = why_invalid(out, geometry)) {
        return fail(Errc::kCorrupt, "redo record contradicts the array: " + *why);
    }
    return out;
}

bool is_partial_record(ConstBytes bytes) {
    return bytes.size() >= kRedoHeaderBytes && load_le<std::uint32_t>(bytes.data()) == kPartialMagic;
}

std::optional<std::string> why_invalid(const PartialRecord& record, const Geometry& geometry) {
    if (record.stripe.value >= geometry.stripes() || geometry.parities() != 1) {
        return "stripe " + std::to_string(record.stripe.value) + " of " + std::to_string(geometry.stripes());
    }
    const std::uint64_t strip = geometry.strip_sectors / kSectorsPerBlock;
    std::uint64_t before = 0;
    for (const PartialRun& run : record.runs) {
        if (run.first < before || run.blocks == 0 || run.first + run.blocks > strip) {
            return "blocks outside stripe " + std::to_string(record.stripe.value) + ", or not ascending";
        }
        before = run.first + run.blocks;
        if (run.written == 0 || (run.written & ~all_data_strips(geometry)) != 0 ||
            run.parity.size() != (run.written == all_data_strips(geometry) ? 0 : run.blocks * kBlockBytes)) {
            return "blocks of no strip, or without their parity";
        }
    }
    return std::nullopt;
}

std::vector<std::byte> encode(const PartialRecord& record) {
    const std::size_t heads = kRedoHeaderBytes + record.runs.size() * kPartialRunBytes;
    std::size_t size = heads;
    for (const PartialRun& run : record.runs) {
        size += run.parity.size();
    }
    std::vector<std::byte> out(size);
    LeWriter w(out);
    put(w,
        {kPartialMagic, kPartialVersion, static_cast<std::uint16_t>(record.runs.size()), record.stripe, record.seed});
    for (const PartialRun& run : record.runs) {
        w.put(static_cast<std::uint16_t>(run.first));
        w.put(static_cast<std::uint16_t>(run.blocks));
        w.put(run.written);
    }
    for (const PartialRun& run : record.runs) {
        w.put(run.parity);
    }
    finish(out, heads, record.seed);
    return out;
}

Result<PartialRecord> decode_partial_record(ConstBytes bytes, const Geometry& geometry) {
    LeReader r(bytes);
    PartialRecord out;
    TRY(const auto count,
        take_head(r, bytes, {.magic = kPartialMagic, .version = kPartialVersion}, kPartialRunBytes, out));
    for (std::uint16_t i = 0; i < count; ++i) {
        PartialRun run;
        run.first = r.get<std::uint16_t>();
        run.blocks = r.get<std::uint16_t>();
        run.written = r.get<std::uint32_t>();
        out.runs.push_back(run);
    }
    out.content = take_content(r, out.seed);
    LeReader content(out.content);
    for (PartialRun& run : out.runs) {
        const std::size_t size = run.written == all_data_strips(geometry) ? 0 : run.blocks * kBlockBytes;
        if (size > content.remaining()) {
            return fail(Errc::kCorrupt, "partial record is shorter than its runs");
        }
        run.parity = content.take(size);
    }
    if (content.remaining() != 0) {
        return fail(Errc::kCorrupt, "partial record is longer than its runs");
    }
    if (auto why = why_invalid(out, geometry)) {
        return fail(Errc::kCorrupt, "partial record contradicts the array: " + *why);
    }
    return out;
}

}  // namespace gemel::raid
