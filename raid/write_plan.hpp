// SPDX-License-Identifier: Apache-2.0
// The choice between the ways to write a part of a stripe, by counted member I/Os. Pure.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>

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
    kDataOnly,     ///< the parity member is missing
    kWhole,        ///< read everything over the hull, make up what is missing, write anew
};

struct WritePlan {
    WriteKind kind = WriteKind::kWhole;
    std::uint32_t reads = 0;
    std::uint32_t writes = 0;
    friend constexpr bool operator==(const WritePlan&, const WritePlan&) = default;
};

/// `missing`: data strip whose member is missing. `parity_missing`: the parity member is. At most one of them.
/// `trusted`: the parity over the hull may be used.
constexpr WritePlan plan_write(const StripeWrite& w, std::optional<std::uint32_t> missing, bool parity_missing,
                               bool trusted) {
    const std::uint32_t touched = w.strips();
    const bool lost_is_touched = missing && w.touches(*missing);
    const std::uint32_t data_writes = touched - (lost_is_touched ? 1 : 0);
    if (parity_missing) {
        return {WriteKind::kDataOnly, 0, data_writes};
    }
    std::uint32_t partial = 0;  // touched strips that do not cover the hull: one read each
    for (std::uint32_t s = w.first; s <= w.last; ++s) {
        partial += w.covers_hull(s) ? 0 : 1;
    }
    const std::uint32_t reconstruct = w.data_members - touched + partial;
    if (reconstruct == 0) {
        return {WriteKind::kFullStripe, 0, data_writes + 1};
    }
    const WritePlan whole{WriteKind::kWhole, w.data_members + 1 - (missing ? 1 : 0), data_writes + 1};
    if (!trusted) {
        return whole;
    }
    const std::uint32_t modify = touched + 1;
    if (lost_is_touched) {
        // Its old data cannot be read: only parity from all data works, if nothing of it is needed.
        return w.covers_hull(*missing) ? WritePlan{WriteKind::kReconstruct, reconstruct, data_writes + 1} : whole;
    }
    if (missing || modify < reconstruct) {
        return {WriteKind::kModify, modify, data_writes + 1};
    }
    return {WriteKind::kReconstruct, reconstruct, data_writes + 1};
}

}  // namespace gemel::raid
