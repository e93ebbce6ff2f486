// SPDX-License-Identifier: Apache-2.0
// IntervalSet: a set of addresses kept as maximal ranges.
// Invariant:  V1  Ranges are not empty, do not touch one another, and are in ascending order.
// Threads: one executor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

namespace gemel::raid {

class IntervalSet {
  public:
    [[nodiscard]] bool empty() const { return ranges_.empty(); }
    [[nodiscard]] std::size_t pieces() const { return ranges_.size(); }
    /// Addresses in the set.
    [[nodiscard]] std::uint64_t total() const { return total_; }

    /// Puts [first, end) into the set.
    void add(std::uint64_t first, std::uint64_t end) {
        if (first >= end) {
            return;
        }
        auto at = ranges_.upper_bound(first);
        if (at != ranges_.begin() && std::prev(at)->second >= first) {
            --at;
        }
        while (at != ranges_.end() && at->first <= end) {
            first = std::min(first, at->first);
            end = std::max(end, at->second);
            total_ -= at->second - at->first;
            at = ranges_.erase(at);
        }
        ranges_.emplace_hint(at, first, end);
        total_ += end - first;
    }
    /// Takes [first, end) out of the set.
    void remove(std::uint64_t first, std::uint64_t end) {
        if (first >= end) {
            return;
        }
        auto at = ranges_.upper_bound(first);
        if (at != ranges_.begin() && std::prev(at)->second > first) {
            --at;
        }
        while (at != ranges_.end() && at->first < end) {
            const auto [from, to] = *at;
            total_ -= to - from;
            at = ranges_.erase(at);
            if (from < first) {
                ranges_.emplace(from, first);
                total_ += first - from;
            }
            if (to > end) {
                at = ranges_.emplace(end, to).first;
                total_ += to - end;
            }
        }
    }
    [[nodiscard]] bool intersects(std::uint64_t first, std::uint64_t end) const {
        const auto hit = next(first);
        return hit && first < end && hit->first < end;
    }
    /// The first range that ends beyond `from`, cut to begin at `from` at the earliest.
    [[nodiscard]] std::optional<std::pair<std::uint64_t, std::uint64_t>> next(std::uint64_t from) const {
        auto at = ranges_.upper_bound(from);
        if (at != ranges_.begin() && std::prev(at)->second > from) {
            --at;
        }
        if (at == ranges_.end()) {
            return std::nullopt;
        }
        return std::pair(std::max(from, at->first), at->second);
    }

  private:
    std::map<std::uint64_t, std::uint64_t> ranges_;  ///< first -> end
    std::uint64_t total_ = 0;
};

}  // namespace gemel::raid
