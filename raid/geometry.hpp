// SPDX-License-Identifier: Apache-2.0
// Geometry: where the sectors of an array lie on its members. Pure functions, no state.
//
// A strip is strip_sectors of one member; the strips at the same address of all members are a stripe. A column is a
// sector address on the members (0 .. member_sectors): the unit of trust and of resync progress.
// Threads: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "gemel/units.hpp"

namespace gemel::raid {

inline constexpr std::uint32_t kMaxMembers = 32;
inline constexpr std::uint64_t kGroupStripes = 64;  ///< stripes that share a shard

/// How a level spreads data: strips in turn, the same on every member, or strips with one rotating parity strip.
enum class Layout : std::uint8_t { kStriped, kMirrored, kParity };

/// Where one sector of data is.
struct Place {
    std::uint32_t member = 0;
    Lba member_lba;
    StripeIndex stripe;
    std::uint32_t data_index = 0;  ///< which data strip of its stripe
    std::uint64_t offset = 0;      ///< sectors from the start of the strip
    friend constexpr bool operator==(const Place&, const Place&) = default;
};

struct Geometry {
    Layout layout = Layout::kStriped;
    std::uint32_t members = 1;
    std::uint64_t strip_sectors = 128;
    std::uint64_t member_sectors = 0;  ///< data on each member, whole strips

    [[nodiscard]] constexpr std::uint32_t data_members() const {
        switch (layout) {
            case Layout::kStriped:
                return members;
            case Layout::kMirrored:
                return 1;
            case Layout::kParity:
                return members - 1;
        }
        return 0;
    }
    [[nodiscard]] constexpr std::uint64_t stripes() const { return member_sectors / strip_sectors; }
    /// Sectors of data in one stripe.
    [[nodiscard]] constexpr std::uint64_t row_sectors() const { return strip_sectors * data_members(); }
    [[nodiscard]] constexpr SectorCount sectors() const { return SectorCount(stripes() * row_sectors()); }
    /// Sectors of data in one group of stripes.
    [[nodiscard]] constexpr std::uint64_t group_sectors() const { return kGroupStripes * row_sectors(); }

    [[nodiscard]] constexpr StripeIndex stripe_of(Lba lba) const { return StripeIndex(lba.value / row_sectors()); }
    [[nodiscard]] constexpr Lba stripe_lba(StripeIndex stripe) const { return Lba(stripe.value * strip_sectors); }

    /// The parity strip's member: left-symmetric, from the last member downwards. REQUIRES: layout is kParity.
    [[nodiscard]] constexpr std::uint32_t parity_member(StripeIndex stripe) const {
        return members - 1 - static_cast<std::uint32_t>(stripe.value % members);
    }
    /// The member of data strip `data_index`: left-symmetric, from the one after parity on, so that consecutive strips
    /// of data are on consecutive members also from one stripe to the next.
    [[nodiscard]] constexpr std::uint32_t data_member(StripeIndex stripe, std::uint32_t data_index) const {
        switch (layout) {
            case Layout::kStriped:
                return data_index;
            case Layout::kMirrored:
                return 0;
            case Layout::kParity:
                return (parity_member(stripe) + 1 + data_index) % members;
        }
        return 0;
    }
    /// The inverse of data_member; nothing for the parity member. REQUIRES: member < members.
    [[nodiscard]] constexpr std::optional<std::uint32_t> data_index(StripeIndex stripe, std::uint32_t member) const {
        switch (layout) {
            case Layout::kStriped:
                return member;
            case Layout::kMirrored:
                return 0;
            case Layout::kParity:
                break;
        }
        const std::uint32_t parity = parity_member(stripe);
        if (member == parity) {
            return std::nullopt;
        }
        return (member + members - parity - 1) % members;
    }
    /// Where data sector `lba` is (on the first leg, if mirrored). REQUIRES: lba < sectors().
    [[nodiscard]] constexpr Place locate(Lba lba) const {
        const StripeIndex stripe = stripe_of(lba);
        const std::uint64_t in_row = lba.value % row_sectors();
        const auto index = static_cast<std::uint32_t>(in_row / strip_sectors);
        const std::uint64_t offset = in_row % strip_sectors;
        return {data_member(stripe, index), stripe_lba(stripe) + offset, stripe, index, offset};
    }
    /// The data sector at `member_lba` of `member`; nothing where parity is.
    [[nodiscard]] constexpr std::optional<Lba> lba_of(std::uint32_t member, Lba member_lba) const {
        const StripeIndex stripe(member_lba.value / strip_sectors);
        const auto index = data_index(stripe, member);
        if (!index) {
            return std::nullopt;
        }
        return Lba(stripe.value * row_sectors() + *index * strip_sectors + member_lba.value % strip_sectors);
    }
    /// Sectors from `lba` to the end of its strip (to the end of the array where strips are not divided).
    [[nodiscard]] constexpr std::uint64_t run_at(Lba lba) const {
        if (layout == Layout::kMirrored || members == 1) {
            return sectors().value - lba.value;
        }
        return strip_sectors - lba.value % strip_sectors;
    }
};

}  // namespace gemel::raid
