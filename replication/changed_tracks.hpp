// SPDX-License-Identifier: Apache-2.0
// Bitmap: which units of a volume are marked. Two of them belong to a pair: changed tracks (64 KiB each: the other copy
// lacks a write) and regions (1 MiB each: the copies may differ after a crash).
//
// Threads: one executor.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "gemel/check.hpp"
#include "gemel/units.hpp"

namespace gemel::replication {

inline constexpr std::uint64_t kTrackSectors = 64 * kKiB / kSectorBytes;
inline constexpr std::uint64_t kRegionSectors = kMiB / kSectorBytes;
inline constexpr std::uint64_t kTracksPerRegion = kRegionSectors / kTrackSectors;

/// Units [first, first + count).
struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    friend bool operator==(const Run&, const Run&) = default;
};

/// The units of `unit_sectors` that a range of sectors touches. REQUIRES: count > 0.
constexpr Run units_of(Lba lba, SectorCount count, std::uint64_t unit_sectors) {
    const std::uint64_t first = lba.value / unit_sectors;
    return {first, (lba.value + count.value - 1) / unit_sectors - first + 1};
}

class Bitmap {
  public:
    [[nodiscard]] std::uint64_t size() const { return size_; }
    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] bool any() const { return count_ > 0; }

    /// New units are clear; units beyond a smaller size are forgotten.
    void resize(std::uint64_t units) {
        if (units < size_) {
            clear({units, size_ - units});
        }
        words_.resize((units + 63) / 64);
        size_ = units;
    }
    [[nodiscard]] bool test(std::uint64_t unit) const {
        return unit < size_ && ((words_[unit / 64] >> (unit % 64)) & 1U) != 0;
    }
    [[nodiscard]] bool all(Run run) const {
        for (std::uint64_t i = run.first; i < run.first + run.count; ++i) {
            if (!test(i)) {
                return false;
            }
        }
        return true;
    }
    /// Units beyond the size are ignored.
    void set(Run run) {
        for (std::uint64_t i = run.first; i < std::min(size_, run.first + run.count); ++i) {
            count_ += test(i) ? 0 : 1;
            words_[i / 64] |= std::uint64_t{1} << (i % 64);
        }
    }
    void clear(Run run) {
        for (std::uint64_t i = run.first; i < std::min(size_, run.first + run.count); ++i) {
            count_ -= test(i) ? 1 : 0;
            words_[i / 64] &= ~(std::uint64_t{1} << (i % 64));
        }
    }
    void clear_all() { clear({0, size_}); }
    void merge(const Bitmap& other) {
        for (const Run& run : other.runs()) {
            set(run);
        }
    }
    /// First marked unit at or after `from`; size() when there is none.
    [[nodiscard]] std::uint64_t next(std::uint64_t from) const {
        for (std::uint64_t w = from / 64; w < words_.size(); ++w) {
            std::uint64_t word = words_[w];
            if (w == from / 64) {
                word &= ~std::uint64_t{0} << (from % 64);
            }
            if (word != 0) {
                return w * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
            }
        }
        return size_;
    }
    /// All marked units, ascending.
    [[nodiscard]] std::vector<Run> runs() const {
        std::vector<Run> out;
        for (std::uint64_t i = next(0); i < size_; i = next(i + 1)) {
            if (!out.empty() && out.back().first + out.back().count == i) {
                ++out.back().count;
            } else {
                out.push_back({i, 1});
            }
        }
        return out;
    }

  private:
    std::vector<std::uint64_t> words_;
    std::uint64_t size_ = 0;
    std::uint64_t count_ = 0;
};

/// At most `limit` runs that mark at least what `runs` marks: the smallest gaps are marked too, which costs copying but
/// never loses a change.
[[nodiscard]] inline std::vector<Run> coarsened(std::vector<Run> runs, std::size_t limit) {
    CHECK(limit > 0);
    for (std::uint64_t gap = 1; runs.size() > limit; gap *= 2) {
        std::vector<Run> merged;
        for (const Run& run : runs) {
            if (!merged.empty() && run.first - (merged.back().first + merged.back().count) <= gap) {
                merged.back().count = run.first + run.count - merged.back().first;
            } else {
                merged.push_back(run);
            }
        }
        runs = std::move(merged);
    }
    return runs;
}

}  // namespace gemel::replication
