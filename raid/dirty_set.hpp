// SPDX-License-Identifier: Apache-2.0
// DirtySet: the stripes of one shard that the journal lists, and which of them writes are using. Pure: no I/O, no time.
//
// Invariants:
//   DS1 A stripe's box holds every block that a write which uses it touches, and only grows while it is listed.
//   DS2 A stripe that a write uses is never dropped.
//   DS3 `durable` is true only when a record with the stripe's whole box is durable: a record is matched by its ticket,
//       and every growth takes a new one.
// Threads: one executor.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "raid/write_plan.hpp"

namespace gemel::raid {

/// Blocks of 4 KiB of one stripe: columns [first, end) of the data strips first_strip..last_strip, and of parity.
struct BlockBox {
    std::uint16_t first = 0;
    std::uint16_t end = 0;
    std::uint8_t first_strip = 0;
    std::uint8_t last_strip = 0;
    friend constexpr bool operator==(const BlockBox&, const BlockBox&) = default;

    [[nodiscard]] constexpr bool covers(const BlockBox& o) const {
        return first <= o.first && o.end <= end && first_strip <= o.first_strip && o.last_strip <= last_strip;
    }
    [[nodiscard]] constexpr BlockBox joined(const BlockBox& o) const {
        return {std::min(first, o.first), std::max(end, o.end), std::min(first_strip, o.first_strip),
                std::max(last_strip, o.last_strip)};
    }
    [[nodiscard]] constexpr std::uint32_t columns() const { return end - first; }
};

struct DirtyEntry {
    std::uint64_t stripe = 0;
    BlockBox box;
    /// Listed because its redundancy is known to be wrong, not because of a write.
    bool untrusted = false;
    /// Its writes are all recorded with their partial parity (partial_parity.hpp).
    bool partial = false;
    friend constexpr bool operator==(const DirtyEntry&, const DirtyEntry&) = default;
};

/// What a write of the array's sectors [lba, lba + sectors) touches, stripe by stripe.
class TouchedBlocks {
  public:
    /// REQUIRES: sectors > 0.
    constexpr TouchedBlocks(const Geometry& g, Lba lba, SectorCount sectors)
        : geometry_(&g), lba_(lba), end_(lba + sectors.value), first_(g.stripe_of(lba)), last_(g.stripe_of(end_ - 1)) {}

    [[nodiscard]] constexpr std::uint64_t first() const { return first_.value; }
    [[nodiscard]] constexpr std::uint64_t last() const { return last_.value; }
    [[nodiscard]] constexpr std::uint64_t count() const { return last() - first() + 1; }
    [[nodiscard]] constexpr BlockBox box(std::uint64_t stripe) const {
        const std::uint64_t row = geometry_->row_sectors();
        const std::uint64_t from = std::max(lba_.value, stripe * row);
        const std::uint64_t to = std::min(end_.value, (stripe + 1) * row);
        const StripeWrite w = StripeWrite::at(*geometry_, from - stripe * row, to - from);
        return {static_cast<std::uint16_t>(w.hull_begin() / kSectorsPerBlock),
                static_cast<std::uint16_t>(round_up(w.hull_end(), kSectorsPerBlock) / kSectorsPerBlock),
                static_cast<std::uint8_t>(w.first), static_cast<std::uint8_t>(w.last)};
    }

  private:
    const Geometry* geometry_;
    Lba lba_;
    Lba end_;
    StripeIndex first_;
    StripeIndex last_;
};

enum class Sweep : std::uint8_t {
    kNothing,
    kOlderHalf,  ///< what was used longest ago, until half is left
    kAllUnused,
};

class DirtySet {
  public:
    /// How much more than what is written is listed with it.
    struct Reach {
        BlockBox whole;             ///< of a stripe
        std::uint64_t ahead = 0;    ///< stripes listed beyond a sequential write
        std::uint64_t group = 64;   ///< ahead ends with a group of so many stripes
        std::uint64_t stripes = 0;  ///< of the array
        bool exact = false;         ///< only what is written
    };

    [[nodiscard]] std::size_t size() const { return stripes_.size(); }
    /// Columns of 4 KiB in all boxes.
    [[nodiscard]] std::uint64_t columns() const { return columns_; }

    /// Takes the stripes into use if all of them are listed durably with what the write touches; else does nothing.
    bool hold_if_listed(const TouchedBlocks& write);
    /// Stripes of the write that are not in the set.
    [[nodiscard]] std::size_t missing(const TouchedBlocks& write) const;
    /// Takes the stripes into use. What must be recorded for that is added to `out`, and is durable when
    /// recorded(out, the ticket returned) was called; 0: nothing.
    std::uint64_t hold(const TouchedBlocks& write, const Reach& reach, std::vector<DirtyEntry>& out);
    void recorded(std::span<const DirtyEntry> entries, std::uint64_t ticket);
    /// Every stripe of the write is listed durably. REQUIRES: they are held.
    [[nodiscard]] bool listed(std::uint64_t first, std::uint64_t last) const;
    void release(const TouchedBlocks& write);

    /// Drops stripes that no write uses (DS2) and adds the boxes of all others to `kept`.
    void sweep(Sweep how, std::vector<DirtyEntry>& kept);

  private:
    struct Stripe {
        std::uint64_t index = 0;
        BlockBox box;
        std::uint32_t users = 0;
        bool durable = false;
        std::uint64_t ticket = 0;  ///< of its newest record
        std::uint64_t used = 0;    ///< when it was last taken into use
        Stripe* older = nullptr;
        Stripe* newer = nullptr;
    };

    [[nodiscard]] const Stripe* find(std::uint64_t stripe) const;
    Stripe& insert(std::uint64_t stripe);
    void grow(Stripe& stripe, const BlockBox& box, std::uint64_t ticket, std::vector<DirtyEntry>& out);
    void use(Stripe& stripe);
    void unlink(Stripe& stripe);
    void push_newest(Stripe& stripe);
    [[nodiscard]] bool continues(const TouchedBlocks& write) const;

    std::map<std::uint64_t, Stripe> stripes_;
    Stripe* oldest_ = nullptr;
    Stripe* newest_ = nullptr;
    std::uint64_t columns_ = 0;
    std::uint64_t uses_ = 0;
    std::uint64_t tickets_ = 0;
};

}  // namespace gemel::raid
