// SPDX-License-Identifier: Apache-2.0
// Any bytes as a record of the redo log, or of partial parity: decode never reads outside and accepts only what encode
// can have made; its parts lie in their stripe. An input is a byte (bit 7: partial parity; the low three bits: magic,
// version and checksum are made right, or not), then the record.
#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/redo_record.hpp"

namespace {

using namespace gemel;
using namespace gemel::raid;

constexpr Geometry kGeometry{Layout::kParity, 4, 32, 32 * 16};

void check_partial(ConstBytes bytes) {
    const auto record = decode_partial_record(bytes, kGeometry);
    if (!record) {
        return;
    }
    CHECK(is_partial_record(bytes) && !decode_redo_record(bytes, kGeometry));
    CHECK(std::ranges::equal(encode(*record), bytes));
    for (const PartialRun& run : record->runs) {
        CHECK(run.blocks > 0 && run.first + run.blocks <= 4);
        CHECK(run.written != 0 && run.written < 8);
        CHECK(run.parity.size() == (run.written == 7 ? 0 : run.blocks * kBlockBytes));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr std::size_t kCrcAt = 16;
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    const auto choice = r.get<std::uint8_t>();
    const bool partial = (choice & 0x80U) != 0;
    const bool forged = choice % 8 != 0;
    const ConstBytes from = r.take(r.remaining());
    std::vector<std::byte> bytes(from.begin(), from.end());
    if (forged && bytes.size() >= kRedoHeaderBytes) {
        store_le(bytes.data(), std::uint32_t{partial ? 0x31505047U : 0x31445247U});
        store_le(bytes.data() + 4, partial ? kPartialVersion : kRedoVersion);
        store_le(bytes.data() + kCrcAt, std::uint32_t{0});
        store_le(bytes.data() + kCrcAt, crc32c(bytes));
    }
    check_partial(bytes);
    if (const auto record = decode_redo_record(bytes, kGeometry)) {
        CHECK(!why_invalid(*record, kGeometry));
        CHECK(encode(*record) == bytes);
        for (const RedoPart& p : record->parts) {
            CHECK(p.lba.value / 32 == record->stripe.value);
        }
    }
    return 0;
}
