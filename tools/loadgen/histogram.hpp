// SPDX-License-Identifier: Apache-2.0
// Latency histogram: logarithmic buckets, each cut into 64 equal parts, so a percentile is right to 1.6 % from
// nanoseconds to hours in 30 KiB.
// Threads: one.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace gemel::loadgen {

class Histogram {
  public:
    void add(std::uint64_t nanoseconds) {
        ++counts_[index_of(nanoseconds)];
        ++total_;
        sum_ += nanoseconds;
        max_ = std::max(max_, nanoseconds);
    }
    [[nodiscard]] std::uint64_t count() const { return total_; }
    [[nodiscard]] std::uint64_t max() const { return max_; }
    [[nodiscard]] std::uint64_t mean() const { return total_ == 0 ? 0 : sum_ / total_; }

    /// The smallest bucket bound (ns) that at least `fraction` (0..1) of the values do not exceed; 0 when empty.
    [[nodiscard]] std::uint64_t quantile(double fraction) const {
        const auto wanted = static_cast<std::uint64_t>(fraction * static_cast<double>(total_) + 0.5);
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen >= wanted && seen > 0) {
                return std::min(upper_bound_of(i), max_);
            }
        }
        return max_;
    }

    /// Bucket of a value: exact below 64, then 64 buckets per power of two.
    static constexpr std::size_t index_of(std::uint64_t value) {
        if (value < kParts) {
            return static_cast<std::size_t>(value);
        }
        const unsigned exponent = static_cast<unsigned>(std::bit_width(value)) - kPartBits - 1;
        return (std::size_t{exponent} + 1) * kParts + static_cast<std::size_t>((value >> exponent) - kParts);
    }
    /// Largest value of a bucket.
    static constexpr std::uint64_t upper_bound_of(std::size_t index) {
        if (index < kParts) {
            return index;
        }
        const std::size_t exponent = index / kParts - 1;
        return ((std::uint64_t{index % kParts} + kParts + 1) << exponent) - 1;
    }

  private:
    static constexpr unsigned kPartBits = 6;
    static constexpr std::size_t kParts = std::size_t{1} << kPartBits;
    std::array<std::uint64_t, kParts * (64 - kPartBits + 1)> counts_{};
    std::uint64_t total_ = 0;
    std::uint64_t sum_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace gemel::loadgen
