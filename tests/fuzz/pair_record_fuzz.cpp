// SPDX-License-Identifier: Apache-2.0
// A pair record as the log gives it back: whatever decodes must encode to the same changes.
#include "replication/pair_metadata.hpp"

using namespace gemel;
using namespace gemel::replication;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<std::byte> record(size);
    std::ranges::copy(ConstBytes(reinterpret_cast<const std::byte*>(data), size), record.begin());
    if (size >= 16) {  // a random input would never pass length and checksum: set them right
        store_le(record.data(), std::uint32_t{0x50524d47});
        record[4] = std::byte{1};
        store_le(record.data() + 8, static_cast<std::uint32_t>(size));
        const ConstBytes all = record;
        store_le(record.data() + 12, crc32c(all.subspan(16), crc32c(all.first(12))));
    }
    const auto decoded = decode_record(record);
    CHECK(decoded.has_value() == why_record_invalid(record).empty());
    if (decoded) {
        const auto again = decode_record(encode_record(*decoded));
        CHECK(again.has_value() && *again == *decoded);
    }
    return 0;
}
