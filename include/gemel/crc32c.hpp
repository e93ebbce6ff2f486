// SPDX-License-Identifier: Apache-2.0
// CRC32C (Castagnoli) as RFC 7143 §13.1 defines it, by ISA-L.
#pragma once

#include <isa-l/crc.h>

#include <cstdint>

#include "gemel/bytes.hpp"

namespace gemel {

/// CRC32C of `bytes`; pass the result of the part before as `previous` to go on with it.
inline std::uint32_t crc32c(ConstBytes bytes, std::uint32_t previous = 0) {
    std::uint32_t state = ~previous;
    while (!bytes.empty()) {
        // ISA-L takes a signed length and a non-const pointer that it only reads.
        const ConstBytes part = bytes.first(std::min<std::size_t>(bytes.size(), 1U << 30U));
        auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(part.data()));
        state = crc32_iscsi(p, static_cast<int>(part.size()), state);
        bytes = bytes.subspan(part.size());
    }
    return ~state;
}

}  // namespace gemel
