// SPDX-License-Identifier: Apache-2.0
// The latency histogram against sorted values.
#include "tools/loadgen/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace gemel::loadgen {
namespace {

TEST(Histogram, BucketsTileTheNumbersWithoutGapOrOverlap) {
    std::uint64_t previous_end = 0;
    for (std::size_t i = 0; i < 64 * 40; ++i) {
        const std::uint64_t end = Histogram::upper_bound_of(i);
        ASSERT_EQ(Histogram::index_of(end), i);
        ASSERT_EQ(Histogram::index_of(end + 1), i + 1);
        ASSERT_TRUE(i == 0 || end > previous_end);
        previous_end = end;
    }
}

TEST(Histogram, QuantilesAreWithinTwoPercentOfTheTrueOnes) {
    std::mt19937_64 random(7);
    std::vector<std::uint64_t> values;
    Histogram histogram;
    for (int i = 0; i < 100'000; ++i) {
        const std::uint64_t value = 1000 + (random() >> (44 + random() % 12));
        values.push_back(value);
        histogram.add(value);
    }
    std::ranges::sort(values);
    for (const double q : {0.5, 0.9, 0.99, 0.999}) {
        const auto truth = static_cast<double>(values[static_cast<std::size_t>(q * 100'000) - 1]);
        EXPECT_NEAR(static_cast<double>(histogram.quantile(q)), truth, truth * 0.02) << q;
    }
    EXPECT_EQ(histogram.max(), values.back());
    EXPECT_EQ(histogram.quantile(1.0), values.back());
}

TEST(Histogram, AnEmptyOneIsAllZero) {
    const Histogram histogram;
    EXPECT_EQ(histogram.quantile(0.99), 0U);
    EXPECT_EQ(histogram.mean(), 0U);
}

}  // namespace
}  // namespace gemel::loadgen
