// SPDX-License-Identifier: Apache-2.0
// Block checksums of levels without redundancy: what lies on a member and is not what was written is an error with an
// event, never data; also across restarts, crashes and growth.
#include <gtest/gtest.h>

#include <set>

#include "raid/repair_report.hpp"
#include "tests/unit/raid/checksum_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::Bytes;
using testing::FixtureOptions;
using testing::Full;
using testing::newest_superblock;
using testing::options_of;
using Shape = testing::ChecksumShape;

constexpr std::array kSingles{Shape{"single", 1, 1, kMiB}, Shape{"single", 1, 4, 8 * kKiB}, Shape{"0", 1, 1, kMiB},
                              Shape{"0", 2, 4, 8 * kKiB},  Shape{"0", 4, 1, 16 * kKiB},     Shape{"linear", 1, 1, kMiB},
                              Shape{"linear", 2, 1, kMiB}, Shape{"linear", 3, 4, 16 * kKiB}};

FixtureOptions single_options(const Shape& shape, std::uint64_t seed = 1) {
    FixtureOptions o = options_of(shape, seed);
    o.more_bytes = std::string_view(shape.level) == "linear" ? 112 * kKiB : 0;
    return o;
}

using Blocks = std::set<std::uint64_t>;  ///< of the array

struct Single : Full {
    explicit Single(const FixtureOptions& options) : Full(options) {}
    [[nodiscard]] std::uint64_t blocks() const { return sectors / kSectorsPerBlock; }
    [[nodiscard]] Geometry geometry() const { return geometry_of(newest_superblock(*f.disks[0])); }
    [[nodiscard]] Place place(std::uint64_t block) const { return geometry().locate(Lba(block * kSectorsPerBlock)); }
    void rot(std::uint64_t block) {
        const Place at = place(block);
        flip(at.member, geometry().device_lba(at.member, at.member_lba).value / kSectorsPerBlock);
    }
    /// Every block but those reads as it was written; those are unreadable.
    void expect_all_but(const Blocks& bad, const std::string& what) {
        for (std::uint64_t at = 0; at < sectors; at += kChunk) {
            const std::uint64_t count = std::min(kChunk, sectors - at);
            const auto r = f.read(at, count);
            bool any = false;
            for (std::uint64_t b = 0; b < r.status.size(); ++b) {
                const std::uint64_t block = at / kSectorsPerBlock + b;
                any = any || bad.contains(block);
                ASSERT_EQ(r.status[b] == BlockStatus::kUnreadable, bad.contains(block)) << what << ", block " << block;
                const auto from = static_cast<std::ptrdiff_t>(b * kBlockBytes);
                ASSERT_TRUE(bad.contains(block) ||
                            std::equal(r.data.begin() + from, r.data.begin() + from + kBlockBytes,
                                       model.begin() + static_cast<std::ptrdiff_t>(block * kBlockBytes)))
                    << what << ", block " << block;
            }
            ASSERT_EQ(!any, r.result.has_value()) << what << " near sector " << at;
            ASSERT_TRUE(r.result || r.result.error().code == Errc::kMediumError) << r.result.error().message;
        }
    }
};

class EverySingle : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(SingleChecksums, EverySingle, ::testing::ValuesIn(kSingles), [](const auto& param) {
    return std::string(param.param.level) + "_of_" + std::to_string(param.param.members) + "_shards_" +
           std::to_string(param.param.shards);
});

TEST_P(EverySingle, ABlockThatRotsIsAnErrorUntilAllOfItIsWritten) {
    Single a(single_options(GetParam()));
    ASSERT_TRUE(a.f.array->status().checksums.on);
    Blocks bad;
    for (std::uint64_t block = 3; block < a.blocks(); block += 41) {
        bad.insert(block);
        a.rot(block);
    }
    a.f.environment.events().clear();
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but(bad, "rotten"));
    a.f.scheduler.run_for(2 * RepairReport::kTellEvery);
    EXPECT_TRUE(a.f.environment.events().has("block-mismatched"));
    EXPECT_LE(a.f.environment.events().count("block-mismatched"), 3 * std::size_t{GetParam().members});
    EXPECT_EQ(a.f.array->status().checksums.found, bad.size());
    EXPECT_EQ(a.f.array->status().state, ArrayState::kOptimal);
    for (const std::uint64_t count : {1U, 9U}) {  // a part of the block could not be read back
        const Result<void> part = a.f.write(3 * kSectorsPerBlock + 2, a.f.pattern(count));
        ASSERT_FALSE(part);
        EXPECT_EQ(part.error().code, Errc::kMediumError) << part.error().message;
    }
    for (const std::uint64_t block : bad) {
        a.rewrite(block * kSectorsPerBlock, kSectorsPerBlock);
        a.rewrite(block * kSectorsPerBlock + 1, 3);
    }
    a.expect_all_right("after all of them were written");
}

TEST_P(EverySingle, WhatIsKnownSurvivesACleanStopAndACrash) {
    Single a(single_options(GetParam()));
    ASSERT_TRUE(a.f.stop());
    ASSERT_TRUE(a.f.reopen());
    a.rot(9);
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but({9}, "after a clean stop"));
    for (const bool power : {true, false}) {
        a.write_all();
        a.rewrite(40, 24);
        a.rest();
        a.rot(30);
        a.rewrite(400, 8);  // listed alone
        a.f.crash(power);
        ASSERT_TRUE(a.f.reopen());
        EXPECT_GT(a.f.array->status().journal.named_stripes + a.f.array->status().journal.recovered_stripes, 0U);
        a.f.settle();
        EXPECT_FALSE(a.f.environment.events().has("journal-damaged"));
        const auto r = a.f.read(0, 320);
        EXPECT_EQ(r.status[30], BlockStatus::kUnreadable) << "power " << power;
        const auto lost = a.f.read(400, 8);
        ASSERT_TRUE(lost.result) << "what was written last is old or new: " << lost.result.error().message;
        std::ranges::copy(lost.data, a.model.begin() + 400 * kSectorBytes);
        ASSERT_NO_FATAL_FAILURE(a.expect_all_but({30}, "after a crash"));
    }
}

/// 10,000 in all: 8 shapes, 25 rounds, 50 blocks. All are found, and nothing else.
TEST_P(EverySingle, SilentCorruptionOfEveryKindIsNeverReturned) {
    Single a(single_options(GetParam(), 7));
    auto& random = a.f.scheduler.random();
    std::uint64_t changed = 0;
    for (int round = 0; round < 25; ++round) {
        std::vector<Bytes> old;
        for (const auto& disk : a.f.disks) {
            old.push_back(disk->snapshot());
        }
        a.rewrite(random.below(a.sectors - 256), 256);   // what is older than this is stale
        a.f.scheduler.run_for(std::chrono::seconds(5));  // it says that it is clean, then it is at rest
        ASSERT_TRUE(a.f.flush());
        std::vector<Bytes> now;
        for (const auto& disk : a.f.disks) {
            now.push_back(disk->snapshot());
        }
        std::vector<Bytes> all = now;
        Blocks bad;
        for (int i = 0; i < 50; ++i) {
            const std::uint64_t victim = random.below(a.blocks());
            const Place to = a.place(victim);
            const Place from = a.place(random.below(a.blocks()));
            const std::size_t at = byte_offset(to.member_lba);
            const MutableBytes block(all[to.member].data() + at, kBlockBytes);
            switch (random.below(4)) {
                case 0:
                    block[random.below(kBlockBytes)] ^= std::byte{1} << static_cast<int>(random.below(8));
                    break;
                case 1:  // misplaced
                    std::ranges::copy(ConstBytes(now[from.member]).subspan(byte_offset(from.member_lba), kBlockBytes),
                                      block.begin());
                    break;
                case 2:  // stale: the write was lost
                    std::ranges::copy(ConstBytes(old[to.member]).subspan(at, kBlockBytes), block.begin());
                    break;
                default:
                    std::ranges::fill(block, std::byte{0});
            }
            if (std::ranges::equal(block, ConstBytes(now[to.member]).subspan(at, kBlockBytes))) {
                bad.erase(victim);
            } else {
                bad.insert(victim);
            }
        }
        for (std::size_t m = 0; m < a.f.disks.size(); ++m) {
            a.f.disks[m]->load(ConstBytes(all[m]));
        }
        ASSERT_NO_FATAL_FAILURE(a.expect_all_but(bad, "round " + std::to_string(round)));
        changed += bad.size();
        for (const std::uint64_t block : bad) {
            a.write(block * kSectorsPerBlock, kSectorsPerBlock);
        }
    }
    EXPECT_GT(changed, 700U);
    EXPECT_GE(a.f.array->status().checksums.found, changed);
    EXPECT_FALSE(a.f.environment.events().has("checksum-page-lost"));
    EXPECT_FALSE(a.f.environment.events().has("checksum-renewed"));
}

TEST_P(EverySingle, WritesOfPartsOfBlocksKeepTheirChecksums) {
    Single a(single_options(GetParam(), 3));
    for (const std::uint64_t at : {3U, 21U, 64U, 130U, 517U}) {
        a.rewrite(at, at == 64 ? 8 : 13);
        a.rewrite(at + 20, 1);
    }
    for (std::uint64_t at = 1; at < 600; at += 37) {
        const auto r = a.f.read(at, 5);
        ASSERT_TRUE(r.result);
        EXPECT_TRUE(
            std::equal(r.data.begin(), r.data.end(), a.model.begin() + static_cast<std::ptrdiff_t>(at * kSectorBytes)));
    }
    EXPECT_EQ(a.f.array->status().checksums.found, 0U);
    a.rest();
    a.rot(2);
    const auto r = a.f.read(23, 1);
    EXPECT_EQ(r.result.error().code, Errc::kMediumError);
}

/// The only copy: its blocks are not known to be wrong, so they can be read, and the event says that nothing vouches
/// for them; what is written anew is compared again.
TEST_P(EverySingle, BlocksOfALostPageOfTheMapCountAsTheyLieUntilTheyAreWritten) {
    Single a(single_options(GetParam()));
    a.rot(5);
    ASSERT_TRUE(a.f.stop());
    const Superblock sb = newest_superblock(*a.f.disks[0]);
    const ChecksumLayout layout = ChecksumLayout::of(geometry_of(sb));
    const ChecksumLayout::Place at = layout.place(layout.page_of(5), 0);
    const Lba page = sb.area(AreaKind::kChecksums).lba + (sb.area_shift(at.member) + at.index * kSectorsPerBlock);
    a.f.disks[at.member]->damage(page, SectorCount(1));  // the entries of the first 118 blocks
    ASSERT_TRUE(a.f.reopen());
    const auto r = a.f.read(0, 80);
    ASSERT_TRUE(r.result) << r.result.error().message;
    EXPECT_TRUE(a.f.environment.events().has("checksum-page-lost"));
    EXPECT_FALSE(a.f.environment.events().has("block-mismatched"));
    a.rewrite(0, 80);
    a.rest();
    EXPECT_EQ(a.f.disks[at.member]->damaged_sectors(), 0U) << "the page was not written anew";
    a.rot(5);
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but({5}, "after they were written"));
    ASSERT_TRUE(a.f.stop());
    ASSERT_TRUE(a.f.reopen());
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but({5}, "after a restart"));
}

TEST_P(EverySingle, AScrubFindsWhatRotsAndItsAddressAndChangesNothing) {
    Single a(single_options(GetParam()));
    const Blocks bad{4, 5, 70};
    for (const std::uint64_t block : bad) {
        a.rot(block);
    }
    for (const ScrubMode mode : {ScrubMode::kCheck, ScrubMode::kRepair}) {
        a.f.environment.events().clear();
        ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->scrub(mode)));
        ASSERT_TRUE(a.f.scheduler.run_until([&] { return !a.f.array->status().scrub; }));
        const ScrubReport report = *a.f.array->status().scrub_report;
        EXPECT_EQ(report.counts.checked, a.geometry().sectors().value / kSectorsPerBlock);
        EXPECT_EQ(report.counts.mismatched, bad.size());
        EXPECT_EQ(report.counts.unreadable, bad.size());
        EXPECT_EQ(report.counts.repaired + report.counts.rewritten + report.counts.unchecked, 0U);
        std::uint64_t named = 0;
        for (const ScrubFault& fault : report.faults) {
            for (std::uint64_t s = 0; s < fault.sectors.value; s += kSectorsPerBlock, ++named) {
                ASSERT_TRUE(fault.lba && fault.member);
                EXPECT_TRUE(bad.contains((*fault.lba + s).value / kSectorsPerBlock));
                EXPECT_EQ(a.geometry().locate(*fault.lba + s).member, *fault.member);
                EXPECT_EQ(a.geometry().locate(*fault.lba + s).member_lba, fault.member_lba + s);
            }
        }
        EXPECT_EQ(named, bad.size());
        EXPECT_TRUE(a.f.environment.events().has("scrub-mismatch"));
    }
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but(bad, "after the scrubs"));
    for (const std::uint64_t block : bad) {
        a.rewrite(block * kSectorsPerBlock, kSectorsPerBlock);
    }
    ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->scrub(ScrubMode::kCheck)));
    ASSERT_TRUE(a.f.scheduler.run_until([&] { return !a.f.array->status().scrub; }));
    EXPECT_EQ(a.f.array->status().scrub_report->counts.mismatched, 0U);
}

TEST_P(EverySingle, WhatAnArrayGrowsByIsKnown) {
    Single a(single_options(GetParam()));
    for (int round = 0; round < 3; ++round) {
        for (const auto& disk : a.f.disks) {
            disk->extend(SectorCount(disk->limits().sectors.value + 2600));
        }
        const Result<void> grown = a.f.scheduler.run(*a.f.caller, a.f.array->grow());
        ASSERT_TRUE(grown) << grown.error().message;
        const SectorCount more(a.f.volume().limits().sectors.value + a.f.array->status().free.value);
        ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->resize("vol", more)));
        const Bytes added = a.f.pattern(more.value - a.sectors);
        const std::uint64_t first_new = a.sectors;
        a.model.insert(a.model.end(), added.begin(), added.end());
        a.sectors = more.value;
        for (std::uint64_t at = first_new; at < a.sectors; at += Full::kChunk) {
            a.write(at, std::min(Full::kChunk, a.sectors - at));
        }
        a.rest();
        const Blocks bad{7, first_new / kSectorsPerBlock + 1, a.blocks() - 1};
        for (const std::uint64_t block : bad) {
            a.rot(block);
        }
        ASSERT_NO_FATAL_FAILURE(a.expect_all_but(bad, "grown " + std::to_string(round)));
        ASSERT_TRUE(a.f.stop());
        ASSERT_TRUE(a.f.reopen());
        EXPECT_EQ(a.f.array->status().resync_done, a.f.array->status().resync_total);
        ASSERT_NO_FATAL_FAILURE(a.expect_all_but(bad, "after a restart " + std::to_string(round)));
        for (const std::uint64_t block : bad) {
            a.rewrite(block * kSectorsPerBlock, kSectorsPerBlock);
        }
    }
    EXPECT_FALSE(a.f.environment.events().has("checksum-page-lost"));
}

/// The policy `resync`: after a crash everything counts as it lies once, and is entered in the background.
TEST_P(EverySingle, WithoutTheJournalACrashIsFollowedByAWalkThroughEverything) {
    FixtureOptions options = single_options(GetParam());
    options.policy = RecoveryPolicy::kResync;
    Single a(options);
    EXPECT_EQ(a.f.array->status().journal.policy, RecoveryPolicy::kResync);
    a.rewrite(0, 64);
    ASSERT_TRUE(a.f.flush());
    a.f.crash(/*power=*/true);
    ASSERT_TRUE(a.f.reopen());
    EXPECT_TRUE(a.f.array->status().resyncing);
    a.f.settle();
    EXPECT_EQ(a.f.array->status().resync_done, a.f.array->status().resync_total);
    a.expect_all_right("after the walk");
    a.rest();
    a.rot(3);
    a.rot(a.blocks() - 2);
    ASSERT_NO_FATAL_FAILURE(a.expect_all_but({3, a.blocks() - 2}, "what the walk has entered"));
}

TEST(SingleChecksums, ASingleCopyIsNotComparedWhereTheConfigSaysSoOrThereIsNoRoom) {
    for (const Shape& shape : kSingles) {
        FixtureOptions options = single_options(shape);
        options.checksums = false;
        Single a(options);
        EXPECT_FALSE(a.f.array->status().checksums.on);
        EXPECT_FALSE(a.f.environment.events().has("checksums-off"));
        EXPECT_EQ(a.f.array->status().resync_total.value, 0U);
        EXPECT_EQ(a.f.scheduler.run(*a.f.caller, a.f.array->scrub(ScrubMode::kCheck)).error().code,
                  Errc::kInvalidArgument);
        a.rot(3);
        EXPECT_TRUE(a.f.read(0, 64).result);
        ASSERT_TRUE(a.f.stop());
        a.f.options.checksums = true;  // what was there counts as it lies
        ASSERT_TRUE(a.f.reopen());
        EXPECT_TRUE(a.f.array->status().checksums.on);
        EXPECT_TRUE(a.f.read(0, 64).result);
        a.rewrite(0, 64);
        a.rest();
        a.rot(3);
        EXPECT_EQ(a.f.read(0, 64).result.error().code, Errc::kMediumError);
        ASSERT_TRUE(a.f.stop());
        a.f.options.checksums = false;
        ASSERT_TRUE(a.f.reopen());
        EXPECT_TRUE(a.f.read(0, 64).result);

        ArrayFixture small(single_options(shape));
        ArrayConfig config = small.config();
        config.create = ArrayConfig::Create::kIfBlank;
        config.areas.checksum_bytes = kBlockBytes;
        ASSERT_TRUE(small.open(config));
        EXPECT_FALSE(small.array->status().checksums.on);
        EXPECT_TRUE(small.environment.events().has("checksums-off"));
    }
}

TEST(SingleChecksums, MembersOfTooDifferentSizesHaveNoMap) {
    ArrayFixture f({.level = "linear", .members = 2, .strip_bytes = 4096, .more_bytes = 64 * kMiB});
    ASSERT_TRUE(f.create());
    EXPECT_FALSE(f.array->status().checksums.on);
    EXPECT_TRUE(f.environment.events().has("checksums-off"));
    EXPECT_GT(f.array->status().sectors.value, sectors_of(64 * kMiB).value);
}

}  // namespace
}  // namespace gemel::raid
