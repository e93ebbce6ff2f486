// SPDX-License-Identifier: Apache-2.0
// Any bytes as a redo record: decode never reads outside and accepts only what encode can have made; its parts lie in
// their stripe. An input is a byte (the checksum is made right, or not), then the record.
#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/redo_record.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace gemel;
    using namespace gemel::raid;
    constexpr std::size_t kCrcAt = 16;
    constexpr Geometry kGeometry{Layout::kParity, 4, 32, 32 * 16};
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    const bool forged = r.get<std::uint8_t>() % 8 != 0;
    const ConstBytes from = r.take(r.remaining());
    std::vector<std::byte> bytes(from.begin(), from.end());
    if (forged && bytes.size() >= kRedoHeaderBytes) {
        store_le(bytes.data(), std::uint32_t{0x31445247U});
        store_le(bytes.data() + 4, kRedoVersion);
        store_le(bytes.data() + kCrcAt, std::uint32_t{0});
        store_le(bytes.data() + kCrcAt, crc32c(bytes));
    }
    if (const auto record = decode_redo_record(bytes, kGeometry)) {
        CHECK(!why_invalid(*record, kGeometry));
        CHECK(encode(*record) == bytes);
        for (const RedoPart& p : record->parts) {
            CHECK(p.lba.value / 32 == record->stripe.value);
        }
    }
    return 0;
}
