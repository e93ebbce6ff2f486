// SPDX-License-Identifier: Apache-2.0
// The checker must tell every kind of wrong content from right content, and its file must survive or refuse damage.
#include "tools/loadgen/ledger.hpp"

#include <gtest/gtest.h>

#include <array>

#include "gemel/units.hpp"
#include "tools/loadgen/stamp.hpp"

namespace gemel::loadgen {
namespace {

constexpr std::uint64_t kTag = 77;
using Sector = std::array<std::byte, kSectorBytes>;

Sector stamped(std::uint64_t lba, std::uint64_t sequence, std::uint64_t tag = kTag) {
    Sector sector{};
    write_stamp(sector, {.volume_tag = tag, .lba = lba, .sequence = sequence, .writer = 3});
    return sector;
}

TEST(Stamp, ReadsBackWhatWasWritten) {
    const StampReading found = read_stamp(stamped(9, 5));
    EXPECT_EQ(found.state, StampState::kValid);
    EXPECT_EQ(found.stamp, (Stamp{.volume_tag = kTag, .lba = 9, .sequence = 5, .writer = 3}));
}

TEST(Stamp, EveryFlippedBitIsSeen) {
    const Sector good = stamped(9, 5);
    for (std::size_t bit = 0; bit < kSectorBytes * 8; ++bit) {
        Sector bad = good;
        bad[bit / 8] ^= std::byte{1} << (bit % 8);
        ASSERT_NE(read_stamp(bad).state, StampState::kValid) << bit;
    }
}

TEST(Stamp, TwoHalvesOfDifferentWritesAreTorn) {
    Sector torn = stamped(9, 5);
    const Sector newer = stamped(9, 6);
    std::copy_n(newer.begin(), kSectorBytes / 2, torn.begin());
    EXPECT_EQ(read_stamp(torn).state, StampState::kDamaged);
}

struct WrongCase {
    const char* what;
    Sector content;
    const char* words;
};

TEST(Ledger, TellsEveryKindOfWrongContent) {
    Sector damaged = stamped(10, 5);
    damaged[300] ^= std::byte{1};
    const WrongCase cases[] = {
        {"lost or stale", stamped(10, 4), "is stale"},  {"from nowhere", stamped(10, 6), "unknown write 6"},
        {"misplaced", stamped(11, 5), "written to 11"}, {"foreign", stamped(10, 5, kTag + 1), "another volume"},
        {"corrupted", damaged, "torn or corrupted"},    {"zeroed", Sector{}, "no stamp"},
    };
    for (const WrongCase& c : cases) {
        Ledger ledger(kTag, 100);
        ledger.acknowledged(10, 1, 5);
        EXPECT_NE(ledger.check(10, c.content).find(c.words), std::string::npos) << c.what;
        EXPECT_EQ(ledger.check(10, stamped(10, 5)), "") << c.what;
    }
}

TEST(Ledger, OwesNothingForSectorsNeverAcknowledged) {
    Ledger ledger(kTag, 100);
    EXPECT_FALSE(ledger.owes(0, 100));
    EXPECT_EQ(ledger.check(10, Sector{}), "");
    ledger.acknowledged(10, 1, 5);
    EXPECT_TRUE(ledger.owes(0, 11));
    EXPECT_FALSE(ledger.owes(11, 89));
}

TEST(Ledger, AnUnansweredWriteMayHaveHappenedUntilAReadDecides) {
    for (const std::uint64_t seen : {5U, 6U}) {
        Ledger ledger(kTag, 100);
        ledger.acknowledged(10, 1, 5);
        ledger.possible(10, 1, 6);
        EXPECT_EQ(ledger.check(10, stamped(10, seen)), "");
        EXPECT_EQ(ledger.possible_writes(), 0U);
        EXPECT_NE(ledger.check(10, stamped(10, 11 - seen)), "") << "the other one must not come back";
    }
}

TEST(Ledger, ALaterAcknowledgedWriteSettlesAnUnansweredOne) {
    Ledger ledger(kTag, 100);
    ledger.acknowledged(10, 1, 5);
    ledger.possible(10, 1, 6);
    ledger.acknowledged(10, 1, 7);
    EXPECT_NE(ledger.check(10, stamped(10, 6)), "");
    EXPECT_EQ(ledger.check(10, stamped(10, 7)), "");
}

TEST(Ledger, ItsFileKeepsEverythingAndRefusesAnyDamage) {
    Ledger ledger(kTag, 8);
    for (int i = 0; i < 9; ++i) {
        ledger.next_sequence();
    }
    ledger.acknowledged(1, 3, 4);
    ledger.possible(2, 1, 9);
    const std::vector<std::byte> file = ledger.encode();
    auto again = Ledger::decode(file);
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->volume_tag(), kTag);
    EXPECT_EQ(again->sectors(), 8U);
    EXPECT_EQ(again->next_sequence(), 10U);
    EXPECT_NE(again->check(1, stamped(1, 9)), "");
    EXPECT_EQ(again->check(2, stamped(2, 9)), "");
    for (std::size_t i = 0; i < file.size(); ++i) {
        auto damaged = file;
        damaged[i] ^= std::byte{0x10};
        EXPECT_FALSE(Ledger::decode(damaged).has_value()) << i;
        EXPECT_FALSE(Ledger::decode(ConstBytes(file).first(i)).has_value()) << i;
    }
}

TEST(Ledger, GrowsWithTheVolumeAndNeverShrinks) {
    Ledger ledger(kTag, 8);
    ledger.acknowledged(7, 1, 4);
    ledger.grow(16);
    EXPECT_EQ(ledger.sectors(), 16U);
    EXPECT_EQ(ledger.check(7, stamped(7, 4)), "");
    ledger.grow(4);
    EXPECT_EQ(ledger.sectors(), 16U);
}

}  // namespace
}  // namespace gemel::loadgen
