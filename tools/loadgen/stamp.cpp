// SPDX-License-Identifier: Apache-2.0
// Stamped sectors; see stamp.hpp.
#include "tools/loadgen/stamp.hpp"

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"

namespace gemel::loadgen {
namespace {

constexpr std::size_t kCrcOffset = 36;
constexpr std::size_t kFillerOffset = 40;

std::uint32_t sector_crc(ConstBytes sector) {
    constexpr std::array<std::byte, 4> zero{};
    const std::uint32_t head = crc32c(sector.first(kCrcOffset));
    return crc32c(sector.subspan(kFillerOffset), crc32c(zero, head));
}

}  // namespace

void write_stamp(MutableBytes sector, const Stamp& stamp) {
    CHECK(sector.size() == kSectorBytes);
    LeWriter out(sector);
    out.put(kStampMagic);
    out.put(stamp.volume_tag);
    out.put(stamp.lba);
    out.put(stamp.sequence);
    out.put(stamp.writer);
    out.put(std::uint32_t{0});
    // A Weyl sequence: cheap, never constant, different for neighbouring addresses and sequences.
    std::uint64_t word = stamp.lba * 0x9e3779b97f4a7c15U ^ stamp.sequence * 0xbf58476d1ce4e5b9U;
    for (std::size_t at = kFillerOffset; at < kSectorBytes; at += sizeof word) {
        word += 0x9e3779b97f4a7c15U;
        store_le(sector.data() + at, word);
    }
    store_le(sector.data() + kCrcOffset, sector_crc(sector));
}

StampReading read_stamp(ConstBytes sector) {
    CHECK(sector.size() == kSectorBytes);
    LeReader in(sector);
    if (in.get<std::uint64_t>() != kStampMagic) {
        return {.state = StampState::kUnmarked, .stamp = {}};
    }
    Stamp stamp;
    stamp.volume_tag = in.get<std::uint64_t>();
    stamp.lba = in.get<std::uint64_t>();
    stamp.sequence = in.get<std::uint64_t>();
    stamp.writer = in.get<std::uint32_t>();
    const bool whole = in.get<std::uint32_t>() == sector_crc(sector);
    return {.state = whole ? StampState::kValid : StampState::kDamaged, .stamp = stamp};
}

}  // namespace gemel::loadgen
