// SPDX-License-Identifier: Apache-2.0
#include "raid/redo_record.hpp"

#include <algorithm>

#include "gemel/crc32c.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint32_t kMagic = 0x31445247U;  // "GRD1"
constexpr std::size_t kCrcAt = 16;
static_assert(kCrcAt == 4 + 2 + 2 + 8 && kRedoHeaderBytes == kCrcAt + 4 + 4);
static_assert(kRedoPartBytes == 2 + 2 + 4 + 8 + 8);

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
    w.put(kMagic);
    w.put(kRedoVersion);
    w.put(static_cast<std::uint16_t>(record.parts.size()));
    w.put(record.stripe.value);
    w.put(std::uint32_t{0});
    w.put(record.seed);
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
    mix(MutableBytes(out).subspan(kRedoHeaderBytes + record.parts.size() * kRedoPartBytes), record.seed);
    store_le(out.data() + kCrcAt, record_crc(out));
    return out;
}

Result<RedoRecord> decode_redo_record(ConstBytes bytes, const Geometry& geometry) {
    LeReader r(bytes);
    if (bytes.size() < kRedoHeaderBytes || r.get<std::uint32_t>() != kMagic) {
        return fail(Errc::kCorrupt, "no redo record");
    }
    if (load_le<std::uint32_t>(bytes.data() + kCrcAt) != record_crc(bytes)) {
        return fail(Errc::kCorrupt, "redo record does not match its checksum");
    }
    if (const auto version = r.get<std::uint16_t>(); version != kRedoVersion) {
        return fail(Errc::kUnsupported, "redo record of format version " + std::to_string(version));
    }
    RedoRecord out;
    const auto count = r.get<std::uint16_t>();
    out.stripe = StripeIndex(r.get<std::uint64_t>());
    r.take(4);
    out.seed = r.get<std::uint32_t>();
    if (r.remaining() / kRedoPartBytes < count) {
        return fail(Errc::kCorrupt, "redo record counts more parts than it holds");
    }
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
    const ConstBytes mixed = r.take(r.remaining());
    out.content.assign(mixed.begin(), mixed.end());
    mix(out.content, out.seed);
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

}  // namespace gemel::raid
