// SPDX-License-Identifier: Apache-2.0
// Strong types for addresses and counts, so that sectors, bytes and stripes cannot be mixed up.
// Below the front end every address and count is in sectors of 512 bytes, whatever block size a LUN shows its hosts.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace gemel {

/// A number with a meaning. Adding two of a kind, or a plain number, keeps the kind.
template <class Tag>
struct Quantity {
    std::uint64_t value = 0;

    constexpr Quantity() = default;
    constexpr explicit Quantity(std::uint64_t v) : value(v) {}
    friend constexpr auto operator<=>(Quantity, Quantity) = default;
    constexpr Quantity& operator+=(std::uint64_t n) {
        value += n;
        return *this;
    }
    friend constexpr Quantity operator+(Quantity a, std::uint64_t n) { return Quantity(a.value + n); }
    friend constexpr Quantity operator-(Quantity a, std::uint64_t n) { return Quantity(a.value - n); }
};

using Lba = Quantity<struct LbaTag>;                  ///< sector address on one device
using SectorCount = Quantity<struct SectorCountTag>;  ///< number of sectors
using StripeIndex = Quantity<struct StripeTag>;       ///< row of strips across the members of an array
using Sequence = Quantity<struct SequenceTag>;        ///< position in a replication stream

inline constexpr std::uint32_t kSectorBytes = 512;
inline constexpr std::uint32_t kBlockBytes = 4096;  ///< unit of checksums and of block status
inline constexpr std::uint32_t kSectorsPerBlock = kBlockBytes / kSectorBytes;
inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

constexpr std::uint64_t bytes_of(SectorCount n) {
    return n.value * kSectorBytes;
}
constexpr std::uint64_t byte_offset(Lba lba) {
    return lba.value * kSectorBytes;
}
/// REQUIRES: bytes is a multiple of 512.
constexpr SectorCount sectors_of(std::uint64_t bytes) {
    return SectorCount(bytes / kSectorBytes);
}
constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t unit) {
    return (n + unit - 1) / unit * unit;
}
constexpr std::uint64_t round_down(std::uint64_t n, std::uint64_t unit) {
    return n / unit * unit;
}

}  // namespace gemel
