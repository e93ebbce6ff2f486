// SPDX-License-Identifier: Apache-2.0
// Header and data digests (RFC 7143 §13.1): CRC32C, stored least significant byte first.
// Threads: pure functions.
#pragma once

#include "gemel/crc32c.hpp"
#include "target/iscsi/pdu.hpp"

namespace gemel::iscsi {

/// The digest as it stands in the PDU; REQUIRES: 4 bytes at `to`.
inline void store_digest(std::byte* to, std::uint32_t crc) {
    store_le(to, crc);
}
/// REQUIRES: 4 bytes at `from`.
inline bool digest_matches(const std::byte* from, std::uint32_t crc) {
    return load_le<std::uint32_t>(from) == crc;
}

/// CRC32C of a data segment and its zero padding. The padding of a received segment need not be zero: pass it.
inline std::uint32_t data_digest(ConstBytes data) {
    constexpr std::array<std::byte, 3> kZeros{};
    return crc32c(ConstBytes(kZeros).first(padding_of(data.size())), crc32c(data));
}

}  // namespace gemel::iscsi
