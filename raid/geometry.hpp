// SPDX-License-Identifier: Apache-2.0
// Geometry: where the sectors of an array lie on its members. Pure functions, no state.
//
// A strip is strip_sectors of one member; the strips at the same address of all members are a stripe. A column is the
// unit of trust and of resync progress: with parity a sector address on the members (0 .. member_sectors), else a
// sector of the array's data, so that one mirror, or the only copy on one member, can be right and its neighbour not.
// Columns are counted without a gap; where a member has them on its device says device_lba() (added_space.hpp).
// Threads: any. member_sectors, ends and added grow while others look at them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "gemel/units.hpp"
#include "raid/added_space.hpp"

namespace gemel::raid {

inline constexpr std::uint32_t kMaxMembers = 32;
inline constexpr std::uint64_t kGroupStripes = 64;  ///< stripes that share a shard

/// How a level spreads data.
enum class Layout : std::uint8_t {
    kLinear,          ///< one member after another
    kStriped,         ///< strips in turn
    kMirrored,        ///< the same on every member
    kStripedMirrors,  ///< strips in turn over pairs of members: 0 and 1, 2 and 3, ...
    kParity,          ///< strips with one rotating parity strip, P
    kDoubleParity,    ///< strips with two rotating parity strips, P and Q
};

/// Parity strips in each stripe.
constexpr std::uint32_t parities_of(Layout layout) {
    return layout == Layout::kParity ? 1 : layout == Layout::kDoubleParity ? 2 : 0;
}

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
    GrowingSize member_sectors = 0;               ///< data on each member, whole strips; if linear: on the smallest
    std::array<GrowingSize, kMaxMembers> ends{};  ///< if linear: data on members 0 to this one together
    AddedSpace added;                             ///< of all members; if linear: of the last one

    [[nodiscard]] constexpr std::uint32_t parities() const { return parities_of(layout); }
    [[nodiscard]] constexpr std::uint32_t data_members() const {
        switch (layout) {
            case Layout::kStriped:
                return members;
            case Layout::kLinear:
            case Layout::kMirrored:
                return 1;
            case Layout::kStripedMirrors:
                return members / 2;
            case Layout::kParity:
            case Layout::kDoubleParity:
                return members - parities();
        }
        return 0;
    }
    [[nodiscard]] constexpr std::uint64_t stripes() const {
        return (layout == Layout::kLinear ? ends[members - 1] : member_sectors) / strip_sectors;
    }
    /// Sectors of data in one stripe.
    [[nodiscard]] constexpr std::uint64_t row_sectors() const { return strip_sectors * data_members(); }
    [[nodiscard]] constexpr SectorCount sectors() const {
        return SectorCount(layout == Layout::kLinear ? ends[members - 1].get() : stripes() * row_sectors());
    }
    /// Sectors of data in one group of stripes.
    [[nodiscard]] constexpr std::uint64_t group_sectors() const { return kGroupStripes * row_sectors(); }
    [[nodiscard]] constexpr std::uint64_t columns() const {
        return parities() > 0 ? member_sectors.get() : sectors().value;
    }
    [[nodiscard]] constexpr std::uint64_t group_columns() const {
        return parities() > 0 ? kGroupStripes * strip_sectors : group_sectors();
    }

    [[nodiscard]] constexpr StripeIndex stripe_of(Lba lba) const { return StripeIndex(lba.value / row_sectors()); }
    [[nodiscard]] constexpr Lba stripe_lba(StripeIndex stripe) const { return Lba(stripe.value * strip_sectors); }

    /// The member of parity strip `which`, 0 = P, 1 = Q: left-symmetric, P from the last member downwards, Q on the one
    /// after P. REQUIRES: which < parities().
    [[nodiscard]] constexpr std::uint32_t parity_member(StripeIndex stripe, std::uint32_t which = 0) const {
        return (members - 1 - static_cast<std::uint32_t>(stripe.value % members) + which) % members;
    }
    /// The member of data strip `data_index`, the first leg of it if mirrored. With parity: from the one after the
    /// parity strips on, so that consecutive strips are on consecutive members. REQUIRES: not linear.
    [[nodiscard]] constexpr std::uint32_t data_member(StripeIndex stripe, std::uint32_t data_index) const {
        switch (layout) {
            case Layout::kLinear:
            case Layout::kMirrored:
                return 0;
            case Layout::kStriped:
                return data_index;
            case Layout::kStripedMirrors:
                return 2 * data_index;
            case Layout::kParity:
            case Layout::kDoubleParity:
                return (parity_member(stripe) + parities() + data_index) % members;
        }
        return 0;
    }
    /// The inverse of data_member; nothing where parity is. REQUIRES: member < members.
    [[nodiscard]] constexpr std::optional<std::uint32_t> data_index(StripeIndex stripe, std::uint32_t member) const {
        switch (layout) {
            case Layout::kLinear:
            case Layout::kMirrored:
                return 0;
            case Layout::kStriped:
                return member;
            case Layout::kStripedMirrors:
                return member / 2;
            case Layout::kParity:
            case Layout::kDoubleParity:
                break;
        }
        const std::uint32_t after_p = (member + members - parity_member(stripe)) % members;
        if (after_p < parities()) {
            return std::nullopt;
        }
        return after_p - parities();
    }
    /// Where data sector `lba` is (on the first leg, if mirrored). REQUIRES: lba < sectors().
    [[nodiscard]] constexpr Place locate(Lba lba) const {
        if (layout == Layout::kLinear) {
            const std::uint32_t m = linear_member(lba);
            const Lba at(lba.value - linear_begin(m));
            return {m, at, StripeIndex(at.value / strip_sectors), 0, at.value % strip_sectors};
        }
        const StripeIndex stripe = stripe_of(lba);
        const std::uint64_t in_row = lba.value % row_sectors();
        const auto index = static_cast<std::uint32_t>(in_row / strip_sectors);
        const std::uint64_t offset = in_row % strip_sectors;
        return {data_member(stripe, index), stripe_lba(stripe) + offset, stripe, index, offset};
    }
    /// The data sector at `member_lba` of `member`; nothing where parity is. REQUIRES: it is data or parity.
    [[nodiscard]] constexpr std::optional<Lba> lba_of(std::uint32_t member, Lba member_lba) const {
        if (layout == Layout::kLinear) {
            return Lba(linear_begin(member) + member_lba.value);
        }
        const StripeIndex stripe(member_lba.value / strip_sectors);
        const auto index = data_index(stripe, member);
        if (!index) {
            return std::nullopt;
        }
        return Lba(stripe.value * row_sectors() + *index * strip_sectors + member_lba.value % strip_sectors);
    }
    /// The members that hold data sector `lba`, as bits.
    [[nodiscard]] constexpr std::uint32_t legs(Lba lba) const {
        switch (layout) {
            case Layout::kMirrored:
                return members == kMaxMembers ? ~0U : (1U << members) - 1;
            case Layout::kStripedMirrors:
                return 3U << locate(lba).member;
            default:
                return 1U << locate(lba).member;
        }
    }
    /// Sectors from `lba` to the end of its strip (of its member or the array where strips are not divided).
    [[nodiscard]] constexpr std::uint64_t run_at(Lba lba) const {
        if (layout == Layout::kLinear) {
            const std::uint32_t m = linear_member(lba);
            const std::uint64_t run = ends[m] - lba.value;
            return grows(m) ? std::min(run, added.run_at(lba.value - linear_begin(m))) : run;
        }
        if (layout == Layout::kMirrored || members == 1) {
            return std::min(sectors().value - lba.value, added.run_at(lba.value));
        }
        return strip_sectors - lba.value % strip_sectors;
    }

    /// Sectors of data on a member.
    [[nodiscard]] constexpr std::uint64_t data_of(std::uint32_t member) const {
        return layout == Layout::kLinear ? ends[member] - linear_begin(member) : member_sectors.get();
    }
    /// `added` is of this member, too. If linear a member can grow at the end of the array only.
    [[nodiscard]] constexpr bool grows(std::uint32_t member) const {
        return layout != Layout::kLinear || member + 1 == members;
    }
    /// Where a member's device has what is at `member_lba` of its data; what follows there, up to the end of a strip or
    /// of run_at(), follows on the device, too.
    [[nodiscard]] constexpr Lba device_lba(std::uint32_t member, Lba member_lba) const {
        return grows(member) ? Lba(added.sector_of(member_lba.value)) : member_lba;
    }

  private:
    [[nodiscard]] constexpr std::uint32_t linear_member(Lba lba) const {
        const auto* end = std::upper_bound(ends.begin(), ends.begin() + members - 1, lba.value);
        return static_cast<std::uint32_t>(end - ends.begin());
    }
    [[nodiscard]] constexpr std::uint64_t linear_begin(std::uint32_t member) const {
        return member == 0 ? 0 : ends[member - 1].get();
    }
};

}  // namespace gemel::raid
