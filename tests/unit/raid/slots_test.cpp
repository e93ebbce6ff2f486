// SPDX-License-Identifier: Apache-2.0
// Superblock slots that are damaged or cannot be read, and what a start makes of them (R6).
#include <gtest/gtest.h>

#include "raid/array.hpp"
#include "raid/superblock.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::expect_refused;

void damage_superblock(sim::SimDisk& disk, bool both) {
    const auto sectors = disk.limits().sectors;
    const auto image = disk.snapshot();
    for (const std::uint64_t slot : {0U, 1U}) {
        const Lba lba = superblock_slot(sectors, slot);
        const auto sb = decode_superblock(std::span(image).subspan(byte_offset(lba)).first<kSuperblockBytes>());
        if (both || (sb && sb->epoch % 2 == slot)) {
            disk.rot(lba + 3);
        }
        if (!both) {
            break;
        }
    }
}

TEST(ArrayOpen, one_damaged_slot_does_no_harm_and_two_make_a_missing_member) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    damage_superblock(*f.disks[1], /*both=*/false);
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
    ASSERT_TRUE(f.stop());
    damage_superblock(*f.disks[1], /*both=*/true);
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().state, ArrayState::kDegraded);
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kMissing);
    EXPECT_TRUE(f.environment.events().has("member-superblock-damaged"));
}

/// The slot of the newest superblock on the disk, and its epoch.
std::pair<std::uint64_t, std::uint64_t> newest_slot(const sim::SimDisk& disk) {
    std::pair<std::uint64_t, std::uint64_t> out{0, 0};
    const auto image = disk.snapshot();
    for (std::uint64_t slot = 0; slot < 2; ++slot) {
        const Lba lba = superblock_slot(disk.limits().sectors, slot);
        const auto sb = decode_superblock(std::span(image).subspan(byte_offset(lba)).first<kSuperblockBytes>());
        out = sb && sb->epoch > out.second ? std::pair(slot, sb->epoch) : out;
    }
    return out;
}

enum class SlotFault : std::uint8_t { kIo, kMedium };

void hide_newest_slot(sim::SimDisk& disk, SlotFault fault) {
    const std::uint64_t slot = newest_slot(disk).first;
    if (fault == SlotFault::kIo) {
        disk.fail_next_reads(2, static_cast<std::uint32_t>(slot));
    } else {
        disk.damage(superblock_slot(disk.limits().sectors, slot), SectorCount(1));
    }
}

TEST(ArrayOpen, a_read_of_a_superblock_that_fails_once_is_tried_again) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.stop());
    f.disks[0]->fail_next_reads(1);
    f.disks[1]->fail_next_reads(1, 1);
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
}

TEST(ArrayOpen, a_member_whose_newest_superblock_cannot_be_read_is_missing_until_it_can) {
    for (const SlotFault fault : {SlotFault::kIo, SlotFault::kMedium}) {
        // Three legs: the one that is found could be the one that failed since.
        ArrayFixture f({.level = "1", .members = 3});
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(f.stop());
        const auto newest = newest_slot(*f.disks[1]);
        ArrayConfig c = f.config();
        c.members[1].device = nullptr;
        ASSERT_TRUE(f.open(c));
        ASSERT_TRUE(f.stop());
        ASSERT_EQ(newest_slot(*f.disks[1]), newest) << "what the others wrote is newer";
        hide_newest_slot(*f.disks[1], fault);
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(f.array->status().members[1].state, MemberState::kMissing);
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(f.array->status().state, fault == SlotFault::kIo ? ArrayState::kOptimal : ArrayState::kDegraded);
    }
}

TEST(ArrayOpen, a_bad_sector_in_a_superblock_does_no_harm_where_the_others_cannot_have_missed_anything) {
    struct Row {
        const char* level;
        std::uint32_t members;
        std::optional<std::uint32_t> failed;
    };
    for (const Row& row : {Row{"0", 2, {}}, Row{"0", 5, {}}, Row{"5", 3, {}}, Row{"5", 3, 0}, Row{"10", 4, 0}}) {
        for (const bool newest : {true, false}) {
            ArrayFixture f({.level = row.level, .members = row.members});
            ASSERT_TRUE(f.create());
            f.settle();
            const auto data = f.pattern(64);
            if (row.failed) {
                f.disks[*row.failed]->die();
            }
            ASSERT_TRUE(f.write(0, data));
            ASSERT_TRUE(f.stop());
            sim::SimDisk& disk = *f.disks[1];
            const std::uint64_t slot = newest_slot(disk).first ^ (newest ? 0U : 1U);
            disk.damage(superblock_slot(disk.limits().sectors, slot), SectorCount(1));
            ArrayConfig c = f.config();
            if (row.failed) {
                c.members[*row.failed].device = nullptr;
            }
            for (int start = 0; start < 2; ++start) {
                const auto opened = f.open(c);
                ASSERT_TRUE(opened) << row.level << " " << newest << ": " << opened.error().message;
                EXPECT_EQ(f.array->status().members[1].state, MemberState::kInSync);
                EXPECT_EQ(f.read(0, 64).data, data);
                EXPECT_EQ(f.environment.events().has("member-superblock-damaged"), true);
                ASSERT_TRUE(f.stop());
            }
        }
    }
}

TEST(ArrayOpen, a_start_without_enough_members_names_what_each_lacks) {
    ArrayFixture f({.level = "0", .members = 2});
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.stop());
    hide_newest_slot(*f.disks[1], SlotFault::kIo);
    expect_refused(f, f.config(), Errc::kDeviceGone, "cannot be read");
    ArrayConfig c = f.config();
    c.members[0].device = nullptr;
    expect_refused(f, c, Errc::kDeviceGone, "member 0: the device could not be opened. Bring the devices back");
}

TEST(ArrayOpen, a_leg_that_missed_writes_does_not_win_while_the_other_superblock_cannot_be_read) {
    for (const SlotFault fault : {SlotFault::kIo, SlotFault::kMedium}) {
        for (const bool clean : {false, true}) {
            ArrayFixture f({.level = "1", .members = 2});
            ASSERT_TRUE(f.create());
            f.settle();
            ASSERT_TRUE(clean || f.write(0, f.pattern(8)));
            f.disks[0]->die();
            if (clean) {
                ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->log().append(kLogClientPair | 1U, f.pattern(1))));
            } else {
                ASSERT_TRUE(f.write(0, f.pattern(8)));
            }
            f.crash(/*power=*/false);
            hide_newest_slot(*f.disks[1], fault);
            expect_refused(f, f.config(), Errc::kNeedsForce, "disk1");
        }
    }
}

TEST(ArrayOpen, the_only_member_is_not_taken_as_it_was_before) {
    for (const SlotFault fault : {SlotFault::kIo, SlotFault::kMedium}) {
        ArrayFixture f({.level = "0", .members = 1, .volumes = {{"vol", 256 * kKiB}}});
        ASSERT_TRUE(f.create());
        ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("vol", sectors_of(512 * kKiB))));
        ASSERT_TRUE(f.stop());
        hide_newest_slot(*f.disks[0], fault);
        expect_refused(f, f.config(), Errc::kIo, "newest superblock");
        if (fault == SlotFault::kIo) {
            ASSERT_TRUE(f.reopen());
            EXPECT_EQ(f.volume().limits().sectors, sectors_of(512 * kKiB));
        }
    }
}

TEST(ArrayOpen, a_superblock_of_a_newer_program_does_not_yield_to_the_one_before) {
    ArrayFixture f({.level = "0", .members = 1});
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.stop());
    sim::SimDisk& disk = *f.disks[0];
    const Lba lba = superblock_slot(disk.limits().sectors, newest_slot(disk).first);
    const Buffer buffer = *f.environment.pool().allocate(kSuperblockBytes);
    const Slice slice = buffer.slice(kSuperblockBytes, lba);
    ASSERT_TRUE(f.scheduler.run(*f.caller, disk.read(lba, slice)));
    store_le<std::uint32_t>(slice.data().data() + 8, kSuperblockVersion + 1);
    store_le(slice.data().data() + kSuperblockBytes - 4, crc32c(slice.data().first(kSuperblockBytes - 4)));
    ASSERT_TRUE(f.scheduler.run(*f.caller, disk.write(lba, slice, {.fua = true})));
    expect_refused(f, f.config(), Errc::kUnsupported, "version 2");
}

}  // namespace
}  // namespace gemel::raid
