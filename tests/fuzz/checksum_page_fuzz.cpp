// SPDX-License-Identifier: Apache-2.0
// Bytes as a page of the checksum map: what decodes encodes to the same sector, what does not changes nothing.
#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/checksum_page.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace gemel;
    using namespace gemel::raid;
    constexpr std::uint64_t kPage = 5;
    const ChecksumOrigin origin{{}, 3};
    std::array<std::byte, kChecksumPageBytes> page{};
    encode_checksum_page(origin, kPage, {7, 9}, ChecksumEntries{}, page);
    // Every second input keeps the fixed fields of each sector and only the rest is the input's.
    const std::size_t keep = size % 2 == 0 ? 24 : 0;
    for (std::size_t i = 0; i < std::min(size, page.size()); ++i) {
        if (i % kChecksumUnitBytes >= keep) {
            page[i] = static_cast<std::byte>(data[i]);
        }
    }
    for (std::size_t unit = 0; keep > 0 && unit < kChecksumUnits; ++unit) {
        const MutableBytes bytes = std::span(page).subspan(unit * kChecksumUnitBytes, kChecksumUnitBytes);
        store_le(bytes.data() + 4, crc32c(bytes.subspan(8), crc32c(bytes.first(4))));
    }
    for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
        ChecksumEntries entries{};
        const auto stamp = decode_checksum_unit(origin, kPage, unit, page, entries);
        CHECK(stamp || std::ranges::count(entries, 0U) == std::ssize(entries));
        CHECK(stamp || keep == 0);
        if (stamp) {
            std::array<std::byte, kChecksumPageBytes> again{};
            encode_checksum_page(origin, kPage, *stamp, entries, again);
            CHECK(std::ranges::equal(std::span(again).subspan(unit * kChecksumUnitBytes, kChecksumUnitBytes),
                                     std::span(page).subspan(unit * kChecksumUnitBytes, kChecksumUnitBytes)));
        }
    }
    return 0;
}
