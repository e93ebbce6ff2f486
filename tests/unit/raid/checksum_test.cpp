// SPDX-License-Identifier: Apache-2.0
// Block checksums of an array: what lies on a member and is not what was written is found, never returned, and put
// right where there is redundancy; also across restarts and crashes.
#include <gtest/gtest.h>

#include "raid/level_table.hpp"
#include "raid/repair_report.hpp"
#include "tests/unit/raid/checksum_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::Bytes;
using testing::Full;
using testing::newest_superblock;
using testing::options_of;
using Shape = testing::ChecksumShape;

/// A cache of a few pages, too: pages come and go.
constexpr std::array kShapes{Shape{"5", 3, 1, kMiB},  Shape{"5", 5, 4, 16 * kKiB}, Shape{"6", 4, 1, 16 * kKiB},
                             Shape{"6", 6, 4, kMiB},  Shape{"1", 2, 1, kMiB},      Shape{"1", 3, 4, 8 * kKiB},
                             Shape{"10", 4, 1, kMiB}, Shape{"10", 6, 4, 8 * kKiB}};

class EveryShape : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Checksums, EveryShape, ::testing::ValuesIn(kShapes), [](const auto& param) {
    return "level" + std::string(param.param.level) + "_of_" + std::to_string(param.param.members);
});

TEST_P(EveryShape, ABlockThatRotsOnAnyMemberIsFoundAndWrittenAnew) {
    Full a(options_of(GetParam()));
    for (std::uint32_t m = 0; m < GetParam().members; ++m) {
        const Bytes before = a.f.disks[m]->snapshot();
        const std::uint64_t block = 3 + m * 7;
        a.flip(m, block);
        a.f.environment.events().clear();
        a.expect_all_right("member " + std::to_string(m));
        // Parity is not read by hosts: a write beside it meets it.
        a.rewrite(block % 5 * 16, 8);
        const Bytes after = a.f.disks[m]->snapshot();
        const bool mended = std::equal(before.begin() + static_cast<std::ptrdiff_t>(block * kBlockBytes),
                                       before.begin() + static_cast<std::ptrdiff_t>((block + 1) * kBlockBytes),
                                       after.begin() + static_cast<std::ptrdiff_t>(block * kBlockBytes));
        a.f.scheduler.run_for(2 * RepairReport::kTellEvery);
        EXPECT_EQ(mended, a.f.environment.events().has("block-repaired")) << "member " << m;
    }
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
    EXPECT_EQ(a.f.array->status().state, ArrayState::kOptimal);
}

TEST_P(EveryShape, WhatIsFoundSurvivesACleanStopAndACrash) {
    Full a(options_of(GetParam()));
    ASSERT_TRUE(a.f.stop());
    ASSERT_TRUE(a.f.reopen());
    for (std::uint64_t block = 8; block < a.data_blocks; block += 9) {
        a.flip(1, block);
    }
    a.expect_all_right("after a clean stop");
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
    a.write_all();
    a.rewrite(40, 24);
    a.rest();
    a.f.crash(/*power=*/true);
    ASSERT_TRUE(a.f.reopen());
    a.f.settle();
    for (std::uint64_t block = 8; block < a.data_blocks; block += 9) {
        a.flip(0, block);
    }
    a.expect_all_right("after a crash");
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
}

/// 10,000 in all: 8 shapes, 25 rounds, 50 blocks.
TEST_P(EveryShape, SilentCorruptionOfEveryKindIsNeverReturned) {
    Full a(options_of(GetParam(), 7));
    auto& random = a.f.scheduler.random();
    std::uint64_t changed = 0;
    for (int round = 0; round < 25; ++round) {
        const auto victim = static_cast<std::uint32_t>(random.below(GetParam().members));
        const Bytes old = a.f.disks[victim]->snapshot();
        a.rewrite(random.below(a.sectors - 256), 256);  // what is older than this is stale
        a.edit(victim, [&](Bytes& all) {
            const Bytes now = all;
            for (int i = 0; i < 50; ++i) {
                const std::size_t at = random.below(a.data_blocks) * kBlockBytes;
                const std::size_t other = random.below(a.data_blocks) * kBlockBytes;
                const MutableBytes block(all.data() + at, kBlockBytes);
                switch (random.below(4)) {
                    case 0:
                        block[random.below(kBlockBytes)] ^= std::byte{1} << static_cast<int>(random.below(8));
                        break;
                    case 1:  // misplaced
                        std::ranges::copy(ConstBytes(now).subspan(other, kBlockBytes), block.begin());
                        break;
                    case 2:  // stale: the write was lost
                        std::ranges::copy(ConstBytes(old).subspan(at, kBlockBytes), block.begin());
                        break;
                    default:
                        std::ranges::fill(block, std::byte{0});
                }
                changed += std::ranges::equal(block, ConstBytes(now).subspan(at, kBlockBytes)) ? 0 : 1;
            }
        });
        ASSERT_NO_FATAL_FAILURE(a.expect_all_right("round " + std::to_string(round)));
        a.write_all();  // what no read has met is not left for the next round
    }
    EXPECT_GT(changed, 700U);
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
    EXPECT_FALSE(a.f.environment.events().has("blocks-unreadable"));
    EXPECT_FALSE(a.f.environment.events().has("checksum-page-lost"));
}

TEST_P(EveryShape, WritesOfPartsOfBlocksKeepTheirChecksums) {
    Full a(options_of(GetParam(), 3));
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
    for (std::uint64_t block = 0; block < 60; block += 4) {
        a.flip(0, block);
    }
    a.expect_all_right("after parts were written");
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
}

TEST_P(EveryShape, ALostCopyOfAPageOfTheMapIsMadeUpForByTheOthers) {
    Full a(options_of(GetParam()));
    ASSERT_TRUE(a.f.stop());
    const Superblock sb = newest_superblock(*a.f.disks[1]);
    const std::size_t area = byte_offset(sb.area(AreaKind::kChecksums).lba);
    Bytes all = a.f.disks[1]->snapshot();
    std::ranges::fill(std::span(all).subspan(area, 4 * kChecksumPageBytes), std::byte{0x5a});
    a.f.disks[1]->load(ConstBytes(all));
    ASSERT_TRUE(a.f.reopen());
    for (std::uint64_t block = 0; block < 40; block += 3) {
        a.flip(0, block);
    }
    a.expect_all_right("with damaged pages of the map");
    EXPECT_FALSE(a.f.environment.events().has("checksum-page-lost"));
    EXPECT_GT(a.f.array->status().checksums.found, 0U);
}

TEST_P(EveryShape, DataAndRedundancyThatAgreeAreRightAndTheMapIsNot) {
    Full a(options_of(GetParam()));
    ASSERT_TRUE(a.f.stop());
    const Superblock sb = newest_superblock(*a.f.disks[0]);
    const ChecksumLayout layout = ChecksumLayout::of(geometry_of(sb));
    const ChecksumOrigin origin{sb.array_uuid, sb.map_epoch};
    for (std::uint32_t copy = 0; copy < layout.copies; ++copy) {  // an entry of page 0, on all copies
        const ChecksumLayout::Place place = layout.place(0, copy);
        Bytes all = a.f.disks[place.member]->snapshot();
        const std::size_t at = byte_offset(sb.area(AreaKind::kChecksums).lba) + place.index * kChecksumPageBytes;
        const auto page = std::span(all).subspan(at).first<kChecksumPageBytes>();
        ChecksumEntries entries{};
        ChecksumStamp stamp;
        for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
            const auto found = decode_checksum_unit(origin, 0, unit, page, entries);
            ASSERT_TRUE(found) << found.error().message;
            stamp = *found;
        }
        for (std::uint32_t slot = 0; slot < layout.slots; ++slot) {
            entries[layout.entry(2, slot)] ^= 0x100U;
        }
        encode_checksum_page(origin, 0, stamp, entries, page);
        a.f.disks[place.member]->load(ConstBytes(all));
    }
    ASSERT_TRUE(a.f.reopen());
    a.expect_all_right("with a wrong map");
    EXPECT_TRUE(a.f.environment.events().has("checksum-renewed"));
    EXPECT_FALSE(a.f.environment.events().has("blocks-unreadable"));
}

TEST_P(EveryShape, ARebuiltMemberHasItsPagesOfTheMap) {
    Full a(options_of(GetParam()));
    a.f.disks[1]->die();
    a.rewrite(8, 64);
    sim::SimDisk& fresh = a.f.add_disk(2 * kMiB);
    ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->rebuild(1, {&fresh, ""})));
    ASSERT_TRUE(a.f.scheduler.run_until([&] { return !a.f.array->status().rebuild; }));
    ASSERT_EQ(a.f.array->status().state, ArrayState::kOptimal);
    std::swap(a.f.disks[1], a.f.disks.back());
    a.rest();
    ASSERT_TRUE(a.f.stop());
    // The others' copies of the pages that it shares with them are gone: only its own are left.
    const Superblock sb = newest_superblock(*a.f.disks[0]);
    const ChecksumLayout layout = ChecksumLayout::of(geometry_of(sb));
    const ChecksumOrigin origin{sb.array_uuid, sb.map_epoch};
    const Bytes all = a.f.disks[1]->snapshot();
    std::uint64_t pages = 0;
    for (std::uint64_t page = 0; page < layout.pages(); ++page) {
        for (std::uint32_t copy = 0; copy < layout.copies; ++copy) {
            const ChecksumLayout::Place place = layout.place(page, copy);
            ChecksumEntries entries{};
            const std::size_t at = byte_offset(sb.area(AreaKind::kChecksums).lba) + place.index * kChecksumPageBytes;
            if (place.member == 1) {
                const auto from = std::span(all).subspan(at).first<kChecksumPageBytes>();
                EXPECT_TRUE(decode_checksum_unit(origin, page, 0, from, entries)) << "page " << page;
                ++pages;
            }
        }
    }
    EXPECT_GT(pages, 0U);
    ASSERT_TRUE(a.f.reopen());
    a.expect_all_right("after a rebuild");
}

TEST(Checksums, ParityIsNotPollutedByACorruptBlock) {
    Full a({.members = 4, .strip_bytes = 8 * 1024});
    const Geometry g = geometry_of(newest_superblock(*a.f.disks[0]));
    const Place victim = g.locate(Lba(0));
    a.flip(victim.member, victim.member_lba.value / kSectorsPerBlock);
    a.rewrite(16, 8);  // another strip of the stripe: its parity is changed by old and new data, or made anew
    a.rewrite(3, 2);   // and a part of the corrupt block itself
    a.expect_all_right("after writes beside it");
    EXPECT_FALSE(a.f.environment.events().has("blocks-unreadable"));
}

TEST(Checksums, WithoutRedundancyACorruptBlockIsAnErrorNotWrongData) {
    for (const Shape& shape : kShapes) {
        Full a(options_of(shape));
        const Geometry g = geometry_of(newest_superblock(*a.f.disks[0]));
        const Place at = g.locate(Lba(0));
        const std::uint32_t leg = std::string_view(shape.level).starts_with('1') ? at.member ^ 1U : (at.member + 1) % 3;
        std::uint32_t lost = 1U << leg;
        for (std::uint32_t m = 0; m < shape.members; ++m) {  // as many as the level can lose
            if (m != at.member && (lost >> m & 1U) == 0 &&
                find_level(shape.level)->tolerates(lost | 1U << m, shape.members)) {
                lost |= 1U << m;
            }
        }
        for (std::uint32_t m = 0; m < shape.members; ++m) {
            if ((lost >> m & 1U) != 0) {
                a.f.disks[m]->die();
            }
        }
        a.rewrite(64, 64);
        a.flip(at.member, at.member_lba.value / kSectorsPerBlock);
        const auto r = a.f.read(0, 8);
        ASSERT_FALSE(r.result) << shape.level;
        EXPECT_EQ(r.result.error().code, Errc::kMediumError);
        EXPECT_EQ(r.status[0], BlockStatus::kUnreadable);
        // A part of the block could not be read back: it is refused, with what goes on behind the block.
        for (const std::uint64_t count : {1U, 9U}) {
            const Result<void> part = a.f.write(3, a.f.pattern(count));
            ASSERT_FALSE(part) << shape.level;
            EXPECT_EQ(part.error().code, Errc::kMediumError) << part.error().message;
        }
        const auto behind = a.f.read(8, 8);
        ASSERT_TRUE(behind.result);
        EXPECT_TRUE(std::equal(behind.data.begin(), behind.data.end(), a.model.begin() + 8 * kSectorBytes));
        const Buffer buffer = *a.f.environment.pool().allocate(kBlockBytes);
        const Slice right = buffer.slice(kBlockBytes, Lba(0));
        std::ranges::fill(right.data(), std::byte{9});
        right.seal();
        const Result<void> repaired = a.f.scheduler.run(*a.f.caller, a.f.volume().repair_write(Lba(0), right));
        ASSERT_TRUE(repaired) << shape.level << ": " << repaired.error().message;
        EXPECT_EQ(a.f.read(0, 8).data, Bytes(8 * kSectorBytes, std::byte{9}));
        const Bytes two = a.f.pattern(2);
        ASSERT_TRUE(a.f.write(3, two));
        EXPECT_EQ(a.f.read(3, 2).data, two);
    }
}

/// Also while the first resync runs: a write makes its columns right, and from then on they are compared.
TEST_P(EveryShape, WhatIsWrittenBeforeTheFirstResyncHasPassedIsChecked) {
    ArrayFixture f(options_of(GetParam()));
    ASSERT_TRUE(f.create());
    const std::uint64_t at = round_down(f.volume().limits().sectors.value - 64, 64);
    const Bytes data = f.pattern(8);
    ASSERT_TRUE(f.write(at, data));
    const Place place = geometry_of(newest_superblock(*f.disks[0])).locate(Lba(at));
    for (auto& disk : f.disks) {
        disk->set_slowness(2000);
    }
    ASSERT_TRUE(f.flush());
    f.disks[place.member]->rot(place.member_lba);
    const auto r = f.read(at, 8);
    EXPECT_TRUE(f.array->status().resyncing);
    ASSERT_TRUE(r.result) << r.result.error().message;
    EXPECT_EQ(r.data, data);
    EXPECT_GE(f.array->status().checksums.found, 1U);
    for (auto& disk : f.disks) {
        disk->set_slowness(1);
    }
}

/// One bad member of a mirror: it has lost the write of a block and that of the page of the map that knows of it. All
/// copies of the page together tell, and under the lock no other question is asked.
TEST(Checksums, AnOldBlockBesideAnOldCopyOfItsPageIsMended) {
    constexpr std::uint64_t kBlocks = 16;  // of stripes that a scrub looks at together: the first one brings the page
    for (const Shape& shape : {Shape{"1", 2, 1, kMiB}, Shape{"1", 3, 4, 8 * kKiB}, Shape{"10", 4, 1, kMiB}}) {
        for (std::uint32_t liar = 0; liar < 2; ++liar) {
            Full a(options_of(shape));
            const Bytes old = a.f.disks[liar]->snapshot();
            a.rewrite(0, 256);
            a.rest();
            ASSERT_TRUE(a.f.stop());
            const AreaRecord area = newest_superblock(*a.f.disks[liar]).area(AreaKind::kChecksums);
            a.f.disks[liar]->load(ConstBytes(old).first(kBlocks * kBlockBytes));
            Bytes all = a.f.disks[liar]->snapshot();
            const auto pages = static_cast<std::ptrdiff_t>(byte_offset(area.lba));
            const auto end = pages + static_cast<std::ptrdiff_t>(bytes_of(area.sectors));
            std::copy(old.begin() + pages, old.begin() + end, all.begin() + pages);
            a.f.disks[liar]->load(ConstBytes(all));
            ASSERT_TRUE(a.f.reopen());
            ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->scrub(ScrubMode::kCheck)));
            ASSERT_TRUE(a.f.scheduler.run_until([&] { return !a.f.array->status().scrub; }));
            EXPECT_EQ(a.f.array->status().scrub_report->counts.unreadable, 0U) << shape.level << " liar " << liar;
            EXPECT_EQ(a.f.array->status().repaired_blocks, kBlocks);
            EXPECT_EQ(a.f.array->status().checksums.found, kBlocks);
            EXPECT_FALSE(a.f.environment.events().has("checksum-renewed"));
            a.expect_all_right("after the scrub");
        }
    }
}

TEST_P(EveryShape, ManyRepairsAreFewEventsAndAllAreCounted) {
    Full a(options_of(GetParam()));
    std::uint64_t flipped = 0;
    a.edit(1, [&](Bytes& all) {
        for (std::uint64_t block = 0; block < a.data_blocks; block += 3, ++flipped) {
            all[block * kBlockBytes + 9] ^= std::byte{1};
        }
    });
    a.f.environment.events().clear();
    ASSERT_TRUE(a.f.scheduler.run(*a.f.caller, a.f.array->scrub(ScrubMode::kCheck)));
    ASSERT_TRUE(a.f.scheduler.run_until([&] { return !a.f.array->status().scrub; }));
    a.f.scheduler.run_for(std::chrono::seconds(3));
    EXPECT_GT(flipped, 40U);
    EXPECT_EQ(a.f.array->status().repaired_blocks, flipped);
    EXPECT_LE(a.f.environment.events().count("block-repaired"), 3U);
    std::uint64_t told = 0;
    for (const auto& e : a.f.environment.events().all()) {
        if (e.id == "block-repaired") {
            EXPECT_NE(e.subject.find("member 1"), std::string::npos) << e.subject;
            EXPECT_NE(e.cause.find("did not match"), std::string::npos) << e.cause;
            told += std::stoull(e.cause);
        }
    }
    EXPECT_EQ(told, flipped);
}

/// Of a degraded array whose map thrashes in a tiny cache and cannot be read for some time, at any moment of a write. A
/// long write is logged in pieces (RD7), so every block is as it was or as it was to be.
TEST(Checksums, AWriteThatFailsForTheMapLeavesEveryBlockOldOrNew) {
    ArrayFixture f({.level = "5",
                    .members = 16,
                    .strip_bytes = static_cast<std::uint32_t>(kMiB),
                    .member_bytes = 6 * kMiB,
                    .checksum_cache = 8 * kKiB});
    ASSERT_TRUE(f.create());
    f.settle();
    const std::uint64_t strip = kMiB / kSectorBytes;
    Bytes model = f.pattern(strip);
    ASSERT_TRUE(f.write(0, model));
    f.disks[geometry_of(newest_superblock(*f.disks[0])).locate(Lba(0)).member]->die();
    ASSERT_TRUE(f.write(0, model));
    std::uint64_t failed = 0;
    for (std::uint64_t steps = 0; steps < 260; steps += 5) {
        const Bytes data = f.pattern(strip);
        const Buffer buffer = *f.environment.pool().allocate(data.size());
        const Slice slice = buffer.slice(data.size(), Lba(0));
        std::ranges::copy(data, slice.data().begin());
        slice.seal();
        std::optional<Result<void>> done;
        const auto run = [](Task<Result<void>> write, std::optional<Result<void>>& out) -> Task<void> {
            out.emplace(co_await std::move(write));
        };
        f.scheduler.start(*f.caller, run(f.volume().write(Lba(0), slice, {}), done));
        for (std::uint64_t i = 0; i < steps && !done; ++i) {
            f.scheduler.step();
        }
        for (auto& disk : f.disks) {
            disk->set_fault_rates(/*read=*/1, 0, 0);
        }
        f.scheduler.run_for(std::chrono::milliseconds(300));
        for (auto& disk : f.disks) {
            disk->set_fault_rates(0, 0, 0);
        }
        ASSERT_TRUE(f.scheduler.run_until([&] { return done.has_value(); }));
        failed += *done ? 0 : 1;
        const auto r = f.read(0, strip);
        ASSERT_TRUE(r.result) << steps << ": " << r.result.error().message;
        for (std::size_t at = 0; at < data.size(); at += kBlockBytes) {
            const auto is = [&](const Bytes& what) {
                return std::equal(what.begin() + static_cast<std::ptrdiff_t>(at),
                                  what.begin() + static_cast<std::ptrdiff_t>(at + kBlockBytes),
                                  r.data.begin() + static_cast<std::ptrdiff_t>(at));
            };
            ASSERT_TRUE(is(data) || (!*done && is(model))) << steps << ", byte " << at;
        }
        model = r.data;
    }
    EXPECT_GT(failed, 5U);
}

TEST(Checksums, AMapThatWasNotKeptForAWhileSaysNothing) {
    Full a({.members = 4, .strip_bytes = 8 * 1024});
    ASSERT_TRUE(a.f.stop());
    a.f.options.checksums = false;
    ASSERT_TRUE(a.f.reopen());
    EXPECT_FALSE(a.f.array->status().checksums.on);
    a.rewrite(0, 200);
    ASSERT_TRUE(a.f.stop());
    a.f.options.checksums = true;
    ASSERT_TRUE(a.f.reopen());
    EXPECT_TRUE(a.f.array->status().checksums.on);
    a.expect_all_right("after a time without checksums");
    EXPECT_EQ(a.f.array->status().checksums.found, 0U);
    a.rewrite(0, 200);
    a.rest();
    a.flip(geometry_of(newest_superblock(*a.f.disks[0])).locate(Lba(0)).member, 0);
    a.expect_all_right("what was written since is known again");
    EXPECT_EQ(a.f.array->status().checksums.found, 1U);
}

}  // namespace
}  // namespace gemel::raid
