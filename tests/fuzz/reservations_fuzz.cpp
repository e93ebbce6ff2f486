// SPDX-License-Identifier: Apache-2.0
// A record of persistent reservations as the log gives it back: whatever decodes encodes to the same state.
#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "target/scsi/reservations.hpp"

using namespace gemel;
using namespace gemel::scsi;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<std::byte> record(size);
    std::ranges::copy(ConstBytes(reinterpret_cast<const std::byte*>(data), size), record.begin());
    if (size >= 24) {  // a random input would never pass the magic and the checksum: set them right
        store_le(record.data(), std::uint32_t{0x31525047});
        store_le(&record[4], std::uint16_t{1});
        store_le(&record[20], std::uint32_t{0});
        store_le(&record[20], crc32c(record));
    }
    const Result<Reservations> decoded = Reservations::decode(record);
    if (decoded) {
        const Result<Reservations> again = Reservations::decode(decoded->encode());
        CHECK(again.has_value() && *again == *decoded);
    }
    return 0;
}
