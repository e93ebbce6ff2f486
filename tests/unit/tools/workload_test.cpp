// SPDX-License-Identifier: Apache-2.0
// The choice of commands: bounds, mix, no overlap in flight, and a check that visits everything owed once.
#include "tools/loadgen/workload.hpp"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace gemel::loadgen {
namespace {

TEST(Workload, StaysWithinItsSpanAndKeepsItsMix) {
    Options options;
    options.block_bytes = 8192;
    options.read_percent = 30;
    options.first_byte = 1 << 20;
    options.span_bytes = 2 << 20;
    Workload workload(options, 100'000, nullptr);
    int reads = 0;
    for (int i = 0; i < 10'000; ++i) {
        const auto operation = workload.next(0);
        ASSERT_TRUE(operation.has_value());
        ASSERT_GE(operation->lba, 2048U);
        ASSERT_LE(operation->lba + operation->sectors, 2048U + 4096U);
        ASSERT_EQ(operation->lba % 16, 0U);
        reads += operation->read ? 1 : 0;
    }
    EXPECT_NEAR(reads, 3000, 200);
}

TEST(Workload, NeverHasTwoCommandsOnOneUnitWhileChecking) {
    Options options;
    options.depth = 30;
    Ledger ledger(1, 32 * 8);
    Workload workload(options, 32 * 8, &ledger);
    ASSERT_EQ(workload.why_unusable(), "");
    std::vector<Operation> flying;
    for (int round = 0; round < 1000; ++round) {
        while (flying.size() < 30) {
            const auto operation = workload.next(0);
            ASSERT_TRUE(operation.has_value());
            for (const Operation& other : flying) {
                ASSERT_NE(other.lba, operation->lba);
            }
            flying.push_back(*operation);
        }
        const std::size_t ended = static_cast<std::size_t>(round) % flying.size();
        workload.release(flying[ended]);
        flying.erase(flying.begin() + static_cast<std::ptrdiff_t>(ended));
    }
}

TEST(Workload, SequentialSessionsStartApartAndWrapAround) {
    Options options;
    options.sequential = true;
    options.sessions = 2;
    Workload workload(options, 8 * 8, nullptr);
    const std::uint64_t expected[] = {0, 8, 16, 24, 32, 40, 48, 56, 0};
    for (const std::uint64_t lba : expected) {
        EXPECT_EQ(workload.next(0)->lba, lba);
    }
    EXPECT_EQ(workload.next(1)->lba, 32U);
}

TEST(Workload, EndsAfterTheCountAsked) {
    Options options;
    options.operations = 3;
    Workload workload(options, 800, nullptr);
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(workload.next(0).has_value());
    }
    EXPECT_FALSE(workload.next(0).has_value());
}

TEST(Workload, ACheckVisitsEverythingOwedOnceAndNothingElse) {
    Options options;
    options.check = true;
    options.block_bytes = 4096;
    Ledger ledger(1, 100);
    ledger.acknowledged(3, 1, 1);
    ledger.acknowledged(40, 20, 2);
    ledger.acknowledged(99, 1, 3);
    Workload workload(options, 100, &ledger);
    std::set<std::uint64_t> visited;
    while (const auto operation = workload.next(0)) {
        EXPECT_TRUE(operation->read);
        EXPECT_LE(operation->lba + operation->sectors, 100U);
        EXPECT_TRUE(visited.insert(operation->lba).second);
    }
    EXPECT_EQ(visited, (std::set<std::uint64_t>{0, 40, 48, 56, 96}));
}

TEST(Workload, SaysWhenTheSpanIsTooSmall) {
    Options options;
    options.depth = 5;
    Ledger ledger(1, 32);
    EXPECT_NE(Workload(options, 32, &ledger).why_unusable(), "");
    EXPECT_EQ(Workload(options, 40, &ledger).why_unusable(), "");
    EXPECT_NE(Workload(options, 0, nullptr).why_unusable(), "");
}

}  // namespace
}  // namespace gemel::loadgen
