// SPDX-License-Identifier: Apache-2.0
#include "raid/checksum_page.hpp"

#include "gemel/crc32c.hpp"

namespace gemel::raid {

namespace {

constexpr std::uint64_t kMagic = 0x3150414d4c454d47ULL;  // "GMELMAP1"
constexpr std::size_t kCrcAt = 12;
static_assert(kChecksumHeaderBytes == 8 + 4 + 4 + 16 + 8 + 8 + 8 + 8);
static_assert(kChecksumHeaderBytes + kChecksumEntries * 4 == kChecksumPageBytes);

std::uint32_t page_crc(std::span<const std::byte, kChecksumPageBytes> page) {
    return crc32c(page.subspan(kCrcAt + 4), crc32c(page.first(kCrcAt)));
}

}  // namespace

void encode_checksum_page(const ChecksumOrigin& origin, std::uint64_t page, ChecksumStamp stamp,
                          const ChecksumEntries& entries, std::span<std::byte, kChecksumPageBytes> to) {
    LeWriter w(to);
    w.put(kMagic);
    w.put(kChecksumVersion);
    w.put(std::uint32_t{0});
    w.put(ConstBytes(origin.array_uuid.bytes));
    w.put(origin.epoch);
    w.put(page);
    w.put(stamp.start);
    w.put(stamp.number);
    for (const std::uint32_t entry : entries) {
        w.put(entry);
    }
    store_le(to.data() + kCrcAt, page_crc(to));
}

Result<ChecksumStamp> decode_checksum_page(const ChecksumOrigin& origin, std::uint64_t page,
                                           std::span<const std::byte, kChecksumPageBytes> from,
                                           ChecksumEntries& entries) {
    LeReader r(from);
    if (r.get<std::uint64_t>() != kMagic) {
        return fail(Errc::kNotFound, "no page of a checksum map");
    }
    const auto version = r.get<std::uint32_t>();
    if (r.get<std::uint32_t>() != page_crc(from)) {
        return fail(Errc::kCorrupt, "page of the checksum map does not match its own checksum");
    }
    if (version != kChecksumVersion) {
        return fail(Errc::kUnsupported, "page of the checksum map of format version " + std::to_string(version));
    }
    Uuid uuid;
    std::ranges::copy(r.take(uuid.bytes.size()), uuid.bytes.begin());
    if (uuid != origin.array_uuid || r.get<std::uint64_t>() != origin.epoch) {
        return fail(Errc::kNotFound, "page of another checksum map");
    }
    if (r.get<std::uint64_t>() != page) {
        return fail(Errc::kCorrupt, "page of the checksum map that belongs elsewhere");
    }
    ChecksumStamp stamp;
    stamp.start = r.get<std::uint64_t>();
    stamp.number = r.get<std::uint64_t>();
    for (std::uint32_t& entry : entries) {
        entry = r.get<std::uint32_t>();
    }
    return stamp;
}

}  // namespace gemel::raid
