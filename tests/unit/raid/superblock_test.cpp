// SPDX-License-Identifier: Apache-2.0
// The superblock on disk: round trip, damage, and fields that contradict one another.
#include "raid/superblock.hpp"

#include <gtest/gtest.h>

#include "gemel/crc32c.hpp"
#include "raid/assembly.hpp"
#include "raid/log_page.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::raid {
namespace {

Superblock sample() {
    sim::SeededRandom random(5);
    ArrayConfig config;
    config.name = "array";
    config.level = "5";
    config.members.resize(5);
    config.volumes = {{"one", kMiB}, {"two", 0}};
    const std::vector sizes(5, sectors_of(64 * kMiB).value);
    auto sb = plan_format(config, *find_level("5"), sizes, random);
    CHECK(sb.has_value());
    sb->members[3].failed = true;
    sb->previous_incarnation = random.uuid();
    sb->epoch = 77;
    sb->taken_by_all = 76;
    sb->resync_cursor = 256;
    sb->untrusted = {{0, 8}, {64, 72}};
    sb->clean = false;
    sb->rebuild = {true, 3, 128, random.uuid()};
    sb->unreadable = {{1, 4, 2}, {1, 7, 1}, {3, 0, 9}};
    sb->scrub = {true, true, 512, 9};
    sb->member_index = 3;
    sb->target = true;
    return *sb;
}

std::array<std::byte, kSuperblockBytes> encoded(const Superblock& sb) {
    std::array<std::byte, kSuperblockBytes> bytes{};
    encode(sb, bytes);
    return bytes;
}

TEST(Superblock, comes_back_as_it_was_written) {
    const Superblock sb = sample();
    const auto out = decode_superblock(encoded(sb));
    ASSERT_TRUE(out) << out.error().message;
    EXPECT_EQ(*out, sb);
    Superblock six = sb;
    six.level = find_level("6")->id;
    six.volumes.clear();
    six.accepted = true;
    EXPECT_EQ(decode_superblock(encoded(six)), six);
}

TEST(Superblock, every_flipped_bit_is_noticed) {
    const auto good = encoded(sample());
    for (std::size_t bit = 0; bit < good.size() * 8; bit += 61) {
        auto bad = good;
        bad[bit / 8] ^= std::byte{1} << (bit % 8);
        EXPECT_FALSE(decode_superblock(bad)) << "bit " << bit;
    }
}

TEST(Superblock, blank_damaged_and_newer_are_told_apart) {
    std::array<std::byte, kSuperblockBytes> bytes{};
    EXPECT_EQ(decode_superblock(bytes).error().code, Errc::kNotFound);
    bytes = encoded(sample());
    bytes[100] ^= std::byte{1};
    EXPECT_EQ(decode_superblock(bytes).error().code, Errc::kCorrupt);
    bytes = encoded(sample());
    store_le<std::uint32_t>(bytes.data() + 8, kSuperblockVersion + 1);
    store_le(bytes.data() + kSuperblockBytes - 4, crc32c(std::span(bytes).first(kSuperblockBytes - 4)));
    EXPECT_EQ(decode_superblock(bytes).error().code, Errc::kUnsupported);
}

struct Wrong {
    const char* what;
    void (*change)(Superblock&);
};

TEST(Superblock, fields_that_contradict_one_another_are_named) {
    const std::vector<Wrong> wrongs{
        {"level", [](Superblock& s) { s.level = 99; }},
        {"too few members", [](Superblock& s) { s.members.resize(2); }},
        {"taken by all before it was made", [](Superblock& s) { s.taken_by_all = 78; }},
        {"index", [](Superblock& s) { s.member_index = 5; }},
        {"details of a scrub that is none", [](Superblock& s) { s.scrub = {false, false, 0, 1}; }},
        {"scrub beyond the end", [](Superblock& s) { s.scrub.cursor = s.member_sectors + 8; }},
        {"accepted parity of level 5", [](Superblock& s) { s.accepted = true; }},
        {"strip", [](Superblock& s) { s.strip_bytes = 5000; }},
        {"strip of 2 MiB", [](Superblock& s) { s.strip_bytes = 2U << 20U; }},
        {"part of a strip", [](Superblock& s) { s.member_sectors -= 8; }},
        {"a larger member", [](Superblock& s) { s.members[1].sectors += s.strip_bytes / kSectorBytes; }},
        {"a smaller member", [](Superblock& s) { s.members[1].sectors = SectorCount(0); }},
        {"untrusted out of order", [](Superblock& s) { std::swap(s.untrusted[0], s.untrusted[1]); }},
        {"untrusted beyond the cursor", [](Superblock& s) { s.untrusted[1].end = 257; }},
        {"cursor", [](Superblock& s) { s.resync_cursor = s.member_sectors + 1; }},
        {"a rebuild that is none", [](Superblock& s) { s.rebuild.active = false; }},
        {"a rebuild beyond the end", [](Superblock& s) { s.rebuild.cursor = s.member_sectors + 1; }},
        {"a rebuild of no place", [](Superblock& s) { s.rebuild.place = 5; }},
        {"a target at another place", [](Superblock& s) { s.member_index = 2; }},
        {"unreadable blocks out of order", [](Superblock& s) { std::swap(s.unreadable[0], s.unreadable[1]); }},
        {"unreadable blocks that touch", [](Superblock& s) { s.unreadable[1].first = 6; }},
        {"unreadable blocks beyond the data",
         [](Superblock& s) { s.unreadable[2].first = s.member_sectors / kSectorsPerBlock; }},
        {"unreadable blocks of no member", [](Superblock& s) { s.unreadable[2].member = 5; }},
        {"no unreadable blocks", [](Superblock& s) { s.unreadable[0].count = 0; }},
        {"name", [](Superblock& s) { s.array_name.clear(); }},
        {"area missing", [](Superblock& s) { s.areas.pop_back(); }},
        {"area twice", [](Superblock& s) { s.areas[1].kind = s.areas[0].kind; }},
        {"area in the data", [](Superblock& s) { s.areas[0].lba = Lba(0); }},
        {"volume beyond the end", [](Superblock& s) { s.volumes[1].extents[0].sectors += 1U << 30U; }},
        {"volumes overlap", [](Superblock& s) { s.volumes[1].extents[0].lba = Lba(0); }},
        {"same number", [](Superblock& s) { s.volumes[1].number = s.volumes[0].number; }},
        {"same name", [](Superblock& s) { s.volumes[1].name = s.volumes[0].name; }},
        {"larger than its extents", [](Superblock& s) { s.volumes[0].sectors += 1U << 20U; }},
        {"no extents", [](Superblock& s) { s.volumes[0].extents.clear(); }},
        {"no sectors", [](Superblock& s) { s.volumes[0].sectors = SectorCount(0); }},
        {"half a block", [](Superblock& s) { s.volumes[0].sectors = SectorCount(12); }},
        {"number not given out", [](Superblock& s) { s.next_volume_number = 2; }},
        {"no log", [](Superblock& s) { s.areas[0].sectors = SectorCount(0); }},
        {"log too small", [](Superblock& s) { s.areas[0].sectors = SectorCount(15 * kSectorsPerBlock); }},
        {"log too large",
         [](Superblock& s) {
             s.areas.push_back(s.areas.front());
             s.areas.erase(s.areas.begin());
             s.areas.back().lba = Lba(1ULL << 40U);
             s.areas.back().sectors = SectorCount((kMaxLogPages + 1) * kSectorsPerBlock);
         }},
    };
    for (const Wrong& w : wrongs) {
        Superblock sb = sample();
        EXPECT_FALSE(why_invalid(sb)) << w.what;
        w.change(sb);
        EXPECT_TRUE(why_invalid(sb)) << w.what;
    }
}

TEST(Superblock, what_this_program_cannot_have_written_is_refused) {
    struct Forged {
        const char* what;
        void (*change)(Superblock&);
        Errc code;
    };
    const std::array forged{
        Forged{"log of version 2", [](Superblock& s) { s.areas[0].version = 2; }, Errc::kUnsupported},
        Forged{"a journal", [](Superblock& s) { s.areas[1].version = 1; }, Errc::kUnsupported},
        Forged{"epoch", [](Superblock& s) { s.epoch = ~std::uint64_t{0}; }, Errc::kCorrupt},
        Forged{"generation", [](Superblock& s) { s.log_generation = ~std::uint64_t{0}; }, Errc::kCorrupt},
    };
    for (const Forged& f : forged) {
        Superblock sb = sample();
        f.change(sb);
        EXPECT_EQ(decode_superblock(encoded(sb)).error().code, f.code) << f.what;
    }
    for (const std::size_t unused : {12U, 152U, 190U, 255U, 1700U, 16300U, 16379U}) {
        auto bytes = encoded(sample());
        bytes[unused] ^= std::byte{0x80};
        store_le(bytes.data() + kSuperblockBytes - 4, crc32c(std::span(bytes).first(kSuperblockBytes - 4)));
        EXPECT_EQ(decode_superblock(bytes).error().code, Errc::kCorrupt) << "byte " << unused;
    }
}

TEST(Superblock, slots_lie_at_the_end_on_4_kib_addresses) {
    EXPECT_EQ(superblock_slot(SectorCount(4096 + 3), 0), Lba(4096 - 128));
    EXPECT_EQ(superblock_slot(SectorCount(4096 + 3), 1), Lba(4096 - 64));
}

TEST(PlanFormat, areas_are_there_and_data_comes_first) {
    const Superblock sb = sample();
    EXPECT_EQ(sb.areas.size(), 6U);
    EXPECT_EQ(sb.areas.front().lba.value, sb.member_sectors);
    const AreaRecord& last = sb.areas.back();
    EXPECT_LE(last.lba.value + last.sectors.value, superblock_slot(sectors_of(64 * kMiB), 0).value);
}

TEST(PlanFormat, linear_takes_each_member_whole_and_its_areas_follow_its_data) {
    sim::SeededRandom random(5);
    ArrayConfig config;
    config.name = "array";
    config.level = "linear";
    config.members.resize(3);
    config.volumes = {{"all", 0}};
    const std::vector<std::uint64_t> sizes{sectors_of(4 * kMiB).value + 3, sectors_of(2 * kMiB).value,
                                           sectors_of(8 * kMiB).value};
    const auto sb = plan_format(config, *find_level("linear"), sizes, random);
    ASSERT_TRUE(sb) << sb.error().message;
    ASSERT_FALSE(why_invalid(*sb));
    EXPECT_EQ(decode_superblock(encoded(*sb)), *sb);
    EXPECT_EQ(sb->members[1].sectors.value, sb->member_sectors);
    EXPECT_EQ(sb->members[2].sectors.value - sb->members[1].sectors.value, sectors_of(6 * kMiB).value);
    std::uint64_t sum = 0;
    for (std::size_t m = 0; m < sizes.size(); ++m) {
        const AreaRecord& last = sb->areas.back();
        sum += sb->members[m].sectors.value;
        EXPECT_EQ(sb->areas.front().lba.value + sb->area_shift(m), sb->members[m].sectors.value);
        EXPECT_LE(last.lba.value + last.sectors.value + sb->area_shift(m),
                  superblock_slot(SectorCount(sizes[m]), 0).value);
    }
    EXPECT_EQ(geometry_of(*sb).sectors().value, sum);
}

TEST(PlanFormat, members_too_small_are_refused_with_the_sizes) {
    sim::SeededRandom random(5);
    ArrayConfig config;
    config.name = "array";
    config.members.resize(3);
    const auto r = plan_format(config, *find_level("5"), std::vector(3, sectors_of(256 * kKiB).value), random);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kNoSpace);
    EXPECT_NE(r.error().message.find("262144"), std::string::npos) << r.error().message;
}

TEST(PlanFormat, members_larger_than_addresses_can_say_are_refused) {
    sim::SeededRandom random(5);
    for (const char* level : {"5", "linear"}) {
        ArrayConfig config;
        config.name = "array";
        config.members.resize(3);
        config.volumes = {{"all", 0}};
        const std::vector<std::uint64_t> sizes{sectors_of(4 * kMiB).value, 1ULL << 54U, 1ULL << 54U};
        const bool fits = std::string_view(level) == "5";  // the smallest counts
        const auto r = plan_format(config, *find_level(level), sizes, random);
        ASSERT_EQ(r.has_value(), fits) << level;
        if (!fits) {
            EXPECT_EQ(r.error().code, Errc::kInvalidArgument);
        }
    }
}

}  // namespace
}  // namespace gemel::raid
