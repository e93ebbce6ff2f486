// SPDX-License-Identifier: Apache-2.0
#include "raid/checksum_page.hpp"

#include <isa-l/crc64.h>

#include "gemel/crc32c.hpp"

namespace gemel::raid {

namespace {

constexpr std::uint32_t kMagic = 0x31434d47U;  // "GMC1"
constexpr std::size_t kCrcAt = 4;
static_assert(kChecksumUnitHeaderBytes == 4 + 4 + 8 + 8 + 8 + 8);
static_assert(kChecksumUnitHeaderBytes + kChecksumUnitEntries * 4 == kChecksumUnitBytes);

std::uint32_t unit_crc(ConstBytes unit) {
    return crc32c(unit.subspan(kCrcAt + 4), crc32c(unit.first(kCrcAt)));
}

/// Which map a page belongs to, in 64 bits.
std::uint64_t tag_of(const ChecksumOrigin& origin) {
    std::uint64_t tag = load_le<std::uint64_t>(origin.array_uuid.bytes.data());
    tag = (tag ^ tag >> 31U) * 0xbf58476d1ce4e5b9ULL + load_le<std::uint64_t>(origin.array_uuid.bytes.data() + 8);
    return (tag ^ tag >> 29U) * 0x94d049bb133111ebULL + origin.epoch;
}

}  // namespace

std::uint32_t block_sum(ConstBytes data) {
    const std::uint64_t crc =
        crc64_jones_refl(~std::uint64_t{0}, reinterpret_cast<const unsigned char*>(data.data()), data.size());
    return static_cast<std::uint32_t>(crc ^ crc >> 32U);
}

void encode_checksum_page(const ChecksumOrigin& origin, std::uint64_t page, ChecksumStamp stamp,
                          const ChecksumEntries& entries, std::span<std::byte, kChecksumPageBytes> to) {
    for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
        const MutableBytes bytes = to.subspan(unit * kChecksumUnitBytes, kChecksumUnitBytes);
        LeWriter w(bytes);
        w.put(kMagic);
        w.put(std::uint32_t{0});
        w.put(tag_of(origin));
        w.put(page * kChecksumUnits + unit);
        w.put(stamp.start);
        w.put(stamp.number);
        for (std::size_t i = 0; i < kChecksumUnitEntries; ++i) {
            w.put(entries[unit * kChecksumUnitEntries + i]);
        }
        store_le(bytes.data() + kCrcAt, unit_crc(bytes));
    }
}

Result<ChecksumStamp> decode_checksum_unit(const ChecksumOrigin& origin, std::uint64_t page, std::size_t unit,
                                           std::span<const std::byte, kChecksumPageBytes> from,
                                           ChecksumEntries& entries) {
    const ConstBytes bytes = from.subspan(unit * kChecksumUnitBytes, kChecksumUnitBytes);
    LeReader r(bytes);
    if (r.get<std::uint32_t>() != kMagic) {
        return fail(Errc::kNotFound, "no page of a checksum map");
    }
    if (r.get<std::uint32_t>() != unit_crc(bytes)) {
        return fail(Errc::kCorrupt, "page of the checksum map does not match its own checksum");
    }
    if (r.get<std::uint64_t>() != tag_of(origin)) {
        return fail(Errc::kNotFound, "page of another checksum map");
    }
    if (r.get<std::uint64_t>() != page * kChecksumUnits + unit) {
        return fail(Errc::kCorrupt, "page of the checksum map that belongs elsewhere");
    }
    ChecksumStamp stamp;
    stamp.start = r.get<std::uint64_t>();
    stamp.number = r.get<std::uint64_t>();
    for (std::size_t i = 0; i < kChecksumUnitEntries; ++i) {
        entries[unit * kChecksumUnitEntries + i] = r.get<std::uint32_t>();
    }
    return stamp;
}

}  // namespace gemel::raid
