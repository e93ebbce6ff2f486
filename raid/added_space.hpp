// SPDX-License-Identifier: Apache-2.0
// AddedSpace: where a member has the data that it got when its array grew. Pure functions.
//
//   | data: split sectors | areas | map | data: unit | map | data: unit | ... | map | data: up to unit |
//   0                             base
//
// Nothing is ever moved: what was there before stays where it is, and what is added lies in units behind it, each with
// the room that the checksum map needs for it. So the number of growths is not limited: only the end moves.
//
// Invariants:
//   AS1 split, base, unit and map never change once they are set. So a superblock from before a growth is as right for
//       the data that it knows as one from after it.
//   AS2 split and unit are whole strips, base and map whole blocks of 4 KiB: no strip lies in two pieces, and an
//   address
//       keeps its place in its block.
// Threads: any; `split` is set last.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "gemel/units.hpp"

namespace gemel::raid {

/// A number that is raised while others look at it. What was written before is seen by those who see the new one.
class GrowingSize {
  public:
    // NOLINTNEXTLINE(google-explicit-constructor): it is a number
    constexpr GrowingSize(std::uint64_t value = 0) : value_(value) {}
    constexpr GrowingSize(const GrowingSize& other) : value_(other.get()) {}
    constexpr GrowingSize& operator=(const GrowingSize& other) {
        set(other.get());
        return *this;
    }
    constexpr ~GrowingSize() = default;
    // NOLINTNEXTLINE(google-explicit-constructor)
    constexpr operator std::uint64_t() const { return get(); }
    [[nodiscard]] constexpr std::uint64_t get() const {
        if consteval {
            return value_;
        } else {
            return __atomic_load_n(&value_, __ATOMIC_ACQUIRE);
        }
    }
    constexpr void set(std::uint64_t value) {
        if consteval {
            value_ = value;
        } else {
            __atomic_store_n(&value_, value, __ATOMIC_RELEASE);
        }
    }

  private:
    std::uint64_t value_;
};

struct AddedSpace {
    GrowingSize split = 0;   ///< sectors of data before the first growth; 0: there was none
    std::uint64_t base = 0;  ///< sector of the device where the first unit begins
    std::uint64_t unit = 0;  ///< sectors of data in a unit; in the last one what there is
    std::uint64_t map = 0;   ///< sectors for the checksum map in front of the data of a unit

    friend constexpr bool operator==(const AddedSpace& a, const AddedSpace& b) {
        return a.split.get() == b.split.get() && a.base == b.base && a.unit == b.unit && a.map == b.map;
    }

    [[nodiscard]] constexpr bool any() const { return split != 0; }
    /// The sector of the device that has sector `at` of the data.
    [[nodiscard]] constexpr std::uint64_t sector_of(std::uint64_t at) const {
        const std::uint64_t first = split;
        if (first == 0 || at < first) {
            return at;
        }
        return base + ((at - first) / unit + 1) * map + (at - first);
    }
    /// The inverse; nothing where an area, the map, or the room behind the data is. `sectors`: of data.
    [[nodiscard]] constexpr std::optional<std::uint64_t> data_at(std::uint64_t sector, std::uint64_t sectors) const {
        const std::uint64_t first = any() ? split.get() : sectors;
        if (sector < first) {
            return sector;
        }
        if (!any() || sector < base || (sector - base) % (map + unit) < map) {
            return std::nullopt;
        }
        const std::uint64_t at = first + (sector - base) / (map + unit) * unit + (sector - base) % (map + unit) - map;
        return at < sectors ? std::optional(at) : std::nullopt;
    }
    /// Sectors of data from `at` on that lie side by side on the device, if there is so much.
    [[nodiscard]] constexpr std::uint64_t run_at(std::uint64_t at) const {
        const std::uint64_t first = split;
        if (first == 0) {
            return ~std::uint64_t{0};
        }
        return at < first ? first - at : unit - (at - first) % unit;
    }
    /// Units that hold some of `sectors` of data.
    [[nodiscard]] constexpr std::uint64_t units(std::uint64_t sectors) const {
        return any() && sectors > split ? (sectors - split - 1) / unit + 1 : 0;
    }
    /// The first sector of the device behind `sectors` of data. REQUIRES: any().
    [[nodiscard]] constexpr std::uint64_t end(std::uint64_t sectors) const {
        return base + units(sectors) * map + (std::max(sectors, split.get()) - split);
    }
    /// The most sectors of data, in whole strips, that end at `limit`, or what there was first. REQUIRES: any().
    [[nodiscard]] constexpr std::uint64_t fit(std::uint64_t limit, std::uint64_t strip) const {
        const std::uint64_t room = limit > base ? limit - base : 0;
        const std::uint64_t rest = room % (map + unit);
        return split + room / (map + unit) * unit + (rest > map ? (rest - map) / strip * strip : 0);
    }
    /// Where page `index` of those that have no room in the area of the map lies. REQUIRES: any(), map > 0.
    [[nodiscard]] constexpr Lba map_page(std::uint64_t index) const {
        const std::uint64_t in_unit = map / kSectorsPerBlock;
        return Lba(base + index / in_unit * (map + unit) + index % in_unit * kSectorsPerBlock);
    }
};

}  // namespace gemel::raid
