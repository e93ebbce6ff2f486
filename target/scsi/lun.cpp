// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/lun.hpp"

namespace gemel::scsi {

std::optional<std::uint64_t> decode_lun(std::uint64_t field) {
    const std::uint64_t first = field >> 48U;
    if ((field & 0xffff'ffff'ffffULL) != 0) {
        return std::nullopt;
    }
    switch (first >> 14U) {
        case 0:  // peripheral device: bus 0 only
            return first < 256 ? std::optional(first) : std::nullopt;
        case 1:  // flat space
            return first & 0x3fffU;
        default:
            return std::nullopt;
    }
}

std::uint64_t encode_lun(std::uint64_t number) {
    CHECK(number < 16384);
    return (number < 256 ? number : number | 0x4000U) << 48U;
}

}  // namespace gemel::scsi
