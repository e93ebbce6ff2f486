// SPDX-License-Identifier: Apache-2.0
// The choice between the ways to write a part of a stripe, by counted member I/Os. Pure.
// Threads: any.
#pragma once

#include <bit>
#include <cstdint>

#include "raid/geometry.hpp"

namespace gemel::raid {

/// A host write's part of one stripe: data strips first..last, of which the first may begin and the last may end inside
/// its strip. The hull is the range of columns that any of them touches.
struct StripeWrite {
    std::uint64_t strip_sectors = 0;
    std::uint32_t data_members = 0;
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::uint64_t begin = 0;  ///< column in strip `first`
    std::uint64_t end = 0;    ///< column in strip `last`, exclusive

    /// REQUIRES: offset and sectors, in sectors from the start of the stripe's data, lie in one stripe.
    static constexpr StripeWrite at(const Geometry& g, std::uint64_t offset, std::uint64_t sectors) {
        const std::uint64_t last_sector = offset + sectors - 1;
        return {g.strip_sectors,
                g.data_members(),
                static_cast<std::uint32_t>(offset / g.strip_sectors),
                static_cast<std::uint32_t>(last_sector / g.strip_sectors),
                offset % g.strip_sectors,
                last_sector % g.strip_sectors + 1};
    }
    [[nodiscard]] constexpr std::uint32_t strips() const { return last - first + 1; }
    [[nodiscard]] constexpr bool touches(std::uint32_t strip) const { return strip >= first && strip <= last; }
    /// The columns that the write covers of a strip that it touches.
    [[nodiscard]] constexpr std::uint64_t begin_of(std::uint32_t strip) const { return strip == first ? begin : 0; }
    [[nodiscard]] constexpr std::uint64_t end_of(std::uint32_t strip) const {
        return strip == last ? end : strip_sectors;
    }
    [[nodiscard]] constexpr std::uint64_t hull_begin() const { return first == last ? begin : 0; }
    [[nodiscard]] constexpr std::uint64_t hull_end() const { return first == last ? end : strip_sectors; }
    [[nodiscard]] constexpr bool covers_hull(std::uint32_t strip) const {
        return touches(strip) && begin_of(strip) == hull_begin() && end_of(strip) == hull_end();
    }
};

enum class WriteKind : std::uint8_t {
    kFullStripe,   ///< every data strip is covered over the hull: no reads
    kReconstruct,  ///< read what is not written, parity from all data
    kModify,       ///< read old data and old parity, parity from the differences
    kDataOnly,     ///< the parity members are missing
    kWhole,        ///< read everything over the hull, make up what is missing, write anew
};

struct WritePlan {
    WriteKind kind = WriteKind::kWhole;
    std::uint32_t reads = 0;
    std::uint32_t writes = 0;
    friend constexpr bool operator==(const WritePlan&, const WritePlan&) = default;
};

/// Strips, data and behind them parity, as bits, of which all that a kind of write reads is in memory.
struct CachedStrips {
    std::uint32_t modify = 0;
    std::uint32_t reconstruct = 0;
};

/// `missing`: the data strips whose members are missing, as bits. `parities`: parity strips whose members are not.
/// `trusted`: the parity over the hull may be used. REQUIRES: no more is missing than the stripe has parity strips.
constexpr WritePlan plan_write(const StripeWrite& w, std::uint32_t missing, std::uint32_t parities, bool trusted,
                               CachedStrips cached = {}) {
    std::uint32_t data_writes = w.strips();
    std::uint32_t partial = 0;     // touched strips that do not cover the hull: one read each
    bool all_new_or_there = true;  // what is not written anew can be read
    bool old_there = true;         // what is overwritten can be read
    for (std::uint32_t s = 0; s < w.data_members; ++s) {
        partial += w.touches(s) && !w.covers_hull(s) ? 1 : 0;
        if ((missing >> s & 1U) != 0) {
            data_writes -= w.touches(s) ? 1 : 0;
            old_there = old_there && !w.touches(s);
            all_new_or_there = all_new_or_there && w.covers_hull(s);
        }
    }
    if (parities == 0) {
        return {WriteKind::kDataOnly, 0, data_writes};
    }
    const std::uint32_t reconstruct = w.data_members - w.strips() + partial;
    const std::uint32_t modify = w.strips() + parities;
    if (reconstruct == 0) {
        return {WriteKind::kFullStripe, 0, data_writes + parities};
    }
    const std::uint32_t modify_reads = modify - static_cast<std::uint32_t>(std::popcount(cached.modify));
    const std::uint32_t reconstruct_reads = reconstruct - static_cast<std::uint32_t>(std::popcount(cached.reconstruct));
    const bool modify_first =
        modify_reads < reconstruct_reads || (modify_reads == reconstruct_reads && modify < reconstruct);
    if (trusted && old_there && (modify_first || !all_new_or_there)) {
        return {WriteKind::kModify, modify_reads, data_writes + parities};
    }
    if (trusted && all_new_or_there) {
        return {WriteKind::kReconstruct, reconstruct_reads, data_writes + parities};
    }
    const auto gone = static_cast<std::uint32_t>(std::popcount(missing));
    return {WriteKind::kWhole, w.data_members + parities - gone, data_writes + parities};
}

}  // namespace gemel::raid
