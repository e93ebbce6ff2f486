// SPDX-License-Identifier: Apache-2.0
// A stamped sector says by itself what it is: which volume, which address, whose write, the how-manieth.
// Layout (512 bytes, little-endian): 0 magic u64, 8 volume tag u64, 16 lba u64 (sectors), 24 sequence u64,
// 32 writer u32, 36 CRC32C u32 over the sector with this field zero, 40 filler derived from all of the above.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "gemel/bytes.hpp"
#include "gemel/units.hpp"

namespace gemel::loadgen {

inline constexpr std::uint64_t kStampMagic = 0x3170'6d74'536c'6d47;  ///< "GmlStmp1" as little-endian text

struct Stamp {
    std::uint64_t volume_tag = 0;
    std::uint64_t lba = 0;
    std::uint64_t sequence = 0;
    std::uint32_t writer = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
};

enum class StampState : unsigned char {
    kValid,     ///< magic and checksum are right
    kUnmarked,  ///< no magic: never stamped, or overwritten by something else
    kDamaged,   ///< magic, but the checksum is wrong: torn or corrupted
};

struct StampReading {
    StampState state = StampState::kUnmarked;
    Stamp stamp;
};

/// Fills `sector`. REQUIRES: sector.size() == 512.
void write_stamp(MutableBytes sector, const Stamp& stamp);

/// Reads a sector back. REQUIRES: sector.size() == 512. The stamp is meaningful only when kValid.
StampReading read_stamp(ConstBytes sector);

}  // namespace gemel::loadgen
