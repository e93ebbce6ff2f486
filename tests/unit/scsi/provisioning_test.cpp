// SPDX-License-Identifier: Apache-2.0
// UNMAP, WRITE SAME, COMPARE AND WRITE, ORWRITE, GET LBA STATUS: what they change, and what they refuse before that.
#include <gtest/gtest.h>

#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kRange{SenseKey::kIllegalRequest, 0x21, 0x00};
constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};
constexpr SenseCode kParameter{SenseKey::kIllegalRequest, 0x26, 0x00};
constexpr SenseCode kLength{SenseKey::kIllegalRequest, 0x1a, 0x00};
constexpr SenseCode kMismatch{SenseKey::kMiscompare, 0x1d, 0x00};
constexpr SenseCode kProtected{SenseKey::kDataProtect, 0x27, 0x00};

struct Unmapped {
    std::uint64_t lba;
    std::uint32_t blocks;
};

std::vector<std::byte> unmap_list(const std::vector<Unmapped>& extents) {
    std::vector<std::byte> list(8 + 16 * extents.size());
    store_be(list.data(), static_cast<std::uint16_t>(list.size() - 2));
    store_be(list.data() + 2, static_cast<std::uint16_t>(16 * extents.size()));
    for (std::size_t i = 0; i < extents.size(); ++i) {
        store_be(list.data() + 8 + 16 * i, extents[i].lba);
        store_be(list.data() + 16 + 16 * i, extents[i].blocks);
    }
    return list;
}

Answer unmap(ScsiBench& bench, std::vector<std::byte> list) {
    Cdb cdb = cdb_of({0x42});
    store_be(&cdb[7], static_cast<std::uint16_t>(list.size()));
    return bench.send(cdb, {.data_out = std::move(list)});
}

Cdb same_cdb(unsigned flags, std::uint64_t lba, std::uint32_t blocks) {
    Cdb cdb = cdb_of({0x93, flags});
    store_be(&cdb[2], lba);
    store_be(&cdb[10], blocks);
    return cdb;
}

bool all_are(ConstBytes bytes, std::byte value) {
    return std::ranges::all_of(bytes, [value](std::byte b) { return b == value; });
}

void fill_all(ScsiBench& bench) {
    std::ranges::fill(bench.device.area(Lba(0), 4096 * 512), std::byte{0x5a});
}

TEST(Unmap, makes_every_extent_zeros_and_nothing_else) {
    for (const std::uint32_t block : {512U, 4096U}) {
        ScsiBench bench({.block_bytes = block, .thin = true});
        fill_all(bench);
        EXPECT_EQ(unmap(bench, unmap_list({{3, 5}, {20, 0}, {100, 2}})).status, Status::kGood);
        EXPECT_EQ(bench.device.discards, 2);
        const ConstBytes now = bench.device.area(Lba(0), 4096 * 512);
        for (std::size_t i = 0; i < now.size() / block; ++i) {
            const bool unmapped = (i >= 3 && i < 8) || i == 100 || i == 101;
            ASSERT_TRUE(all_are(now.subspan(i * block, block), unmapped ? std::byte{0} : std::byte{0x5a})) << i;
        }
    }
}

TEST(Unmap, a_list_with_anything_wrong_changes_nothing) {
    ScsiBench bench({.thin = true});
    fill_all(bench);
    EXPECT_EQ(unmap(bench, unmap_list({{0, 1}, {4095, 2}})).sense, kRange);
    EXPECT_EQ(unmap(bench, unmap_list({{0, 1}, {~std::uint64_t{0}, 2}})).sense, kRange);
    EXPECT_EQ(unmap(bench, std::vector<std::byte>(7)).sense, kLength);
    EXPECT_EQ(unmap(bench, unmap_list(std::vector<Unmapped>(257, {0, 1}))).sense, kParameter);
    ScsiBench huge({.thin = true}, {.sectors = 8U << 20U});
    EXPECT_EQ(unmap(huge, unmap_list({{0, 1U << 20U}, {1U << 20U, 1}})).sense, kParameter);
    EXPECT_EQ(bench.device.discards + huge.device.discards, 0);
    EXPECT_TRUE(all_are(bench.device.area(Lba(0), 4096 * 512), std::byte{0x5a}));
    EXPECT_EQ(bench.send({0x42, 1}).sense, kField) << "ANCHOR";
}

TEST(Unmap, less_data_than_its_list_says_unmaps_what_is_there) {
    ScsiBench bench({.thin = true});
    fill_all(bench);
    std::vector<std::byte> list = unmap_list({{0, 1}, {1, 1}});
    list.resize(list.size() - 8);  // half of the second descriptor
    EXPECT_EQ(unmap(bench, list).status, Status::kGood);
    EXPECT_EQ(bench.device.discards, 1);
}

TEST(Unmap, is_durable_where_every_write_is) {
    ScsiBench bench({.thin = true, .write_cache = WriteCache::kNone});
    EXPECT_EQ(unmap(bench, unmap_list({{0, 8}})).status, Status::kGood);
    EXPECT_EQ(bench.device.flushes, 1);
    bench.device.error = Errc::kIo;
    EXPECT_EQ(unmap(bench, unmap_list({{0, 8}})).sense, kInternalTargetFailure);
}

TEST(WriteSame, repeats_its_block_over_the_whole_range) {
    for (const std::uint32_t block : {512U, 4096U}) {
        ScsiBench bench({.block_bytes = block}, {.sectors = 16384});
        const std::vector<std::byte> data = pattern(block, 7);
        const std::uint32_t blocks = (1U << 20U) / block + 3;  // more than it writes at once
        EXPECT_EQ(bench.send(same_cdb(0, 5, blocks), {.data_out = data}).status, Status::kGood);
        const ConstBytes now = bench.device.area(Lba(0), std::size_t{16384} * 512);
        EXPECT_TRUE(all_are(now.first(std::size_t{5} * block), std::byte{0}));
        for (std::size_t i = 0; i < blocks; ++i) {
            ASSERT_TRUE(std::ranges::equal(now.subspan((5 + i) * block, block), data)) << i;
        }
        EXPECT_TRUE(all_are(now.subspan((5 + std::size_t{blocks}) * block), std::byte{0}));
    }
}

TEST(WriteSame, of_zeros_and_without_data_is_a_discard) {
    ScsiBench bench({.thin = true});
    fill_all(bench);
    EXPECT_EQ(bench.send(same_cdb(0x08, 0, 4), {.data_out = std::vector<std::byte>(512)}).status, Status::kGood);
    EXPECT_EQ(bench.send(same_cdb(0x09, 4, 4)).status, Status::kGood);
    EXPECT_EQ(bench.device.discards, 2);
    EXPECT_EQ(bench.device.writes, 0);
    EXPECT_TRUE(all_are(bench.device.area(Lba(0), 8 * 512), std::byte{0}));
    EXPECT_TRUE(all_are(bench.device.area(Lba(8), 512), std::byte{0x5a}));
    // UNMAP with a block that is not zeros: the blocks must read as it says.
    EXPECT_EQ(bench.send(same_cdb(0x08, 0, 2), {.data_out = pattern(512, 1)}).status, Status::kGood);
    EXPECT_TRUE(std::ranges::equal(bench.device.area(Lba(1), 512), pattern(512, 1)));
}

TEST(WriteSame, of_zeros_without_unmap_keeps_the_space_where_a_discard_would_give_it_back) {
    for (const std::uint32_t block : {512U, 4096U}) {
        ScsiBench bench({.block_bytes = block, .thin = true}, {.gives_back = true});
        fill_all(bench);
        EXPECT_EQ(bench.send(same_cdb(0, 0, 4), {.data_out = std::vector<std::byte>(block)}).status, Status::kGood);
        EXPECT_EQ(bench.send(same_cdb(0x01, 4, 4)).status, Status::kGood) << "NDOB";
        EXPECT_EQ(bench.device.discards, 0);
        EXPECT_TRUE(all_are(bench.device.area(Lba(0), 8 * block), std::byte{0}));
        EXPECT_EQ(bench.send(same_cdb(0x08, 8, 4), {.data_out = std::vector<std::byte>(block)}).status, Status::kGood);
        EXPECT_EQ(bench.device.discards, 1);
        EXPECT_TRUE(all_are(bench.device.area(Lba(0), 12 * block), std::byte{0}));
    }
}

TEST(Unmap, goes_down_in_pieces_that_end_where_the_device_s_stripes_do) {
    constexpr std::uint32_t kUnit = 384;  // as of three strips of 64 KiB
    ScsiBench bench({.thin = true},
                    {.sectors = 32768, .gives_back = true, .discard_unit = kUnit, .discard_first = 128});
    EXPECT_EQ(unmap(bench, unmap_list({{100, 20000}})).status, Status::kGood);
    std::uint64_t at = 100;
    for (const Extent& piece : bench.device.discarded) {
        EXPECT_EQ(piece.lba.value, at);
        EXPECT_LE(piece.sectors.value, 8192U);
        at += piece.sectors.value;
        EXPECT_TRUE(at == 20100 || at % kUnit == 128) << at;
    }
    EXPECT_EQ(at, 20100U);
    EXPECT_EQ(bench.device.discards, 3);
    // Stripes larger than a piece are not cut.
    ScsiBench wide({.thin = true}, {.sectors = 65536, .discard_unit = 16384});
    EXPECT_EQ(unmap(wide, unmap_list({{10, 40000}})).status, Status::kGood);
    EXPECT_EQ(wide.device.discarded[1], (Extent{Lba(16384), SectorCount(16384)}));
}

TEST(Unmap, limits_are_those_of_the_device) {
    for (const std::uint32_t block : {512U, 4096U}) {
        ScsiBench bench({.block_bytes = block, .thin = true},
                        {.gives_back = true, .discard_unit = 384, .discard_first = 128});
        const Answer limits = bench.send({0x12, 1, 0xb0, 0, 255});
        EXPECT_EQ(limits.number(28, 4), 384U * 512 / block);
        EXPECT_EQ(limits.number(32, 4), 0x8000'0000U | 128U * 512 / block);
        EXPECT_EQ(bench.send({0x12, 1, 0xb2, 0, 255}).at(6), 2U) << "thin provisioned";
    }
    ScsiBench bench({.thin = true});
    EXPECT_EQ(bench.send({0x12, 1, 0xb2, 0, 255}).at(6), 1U) << "resource provisioned";
}

TEST(WriteSame, refuses_what_it_does_not_do) {
    ScsiBench bench;
    EXPECT_EQ(bench.send(same_cdb(0, 0, 0), {.data_out = pattern(512, 1)}).sense, kField) << "no blocks";
    EXPECT_EQ(bench.send(same_cdb(0x08, 0, 1), {.data_out = pattern(512, 1)}).sense, kField) << "UNMAP";
    EXPECT_EQ(bench.send(same_cdb(0x10, 0, 1), {.data_out = pattern(512, 1)}).sense, kField) << "ANCHOR";
    EXPECT_EQ(bench.send(same_cdb(0, 4096, 1), {.data_out = pattern(512, 1)}).sense, kRange);
    EXPECT_EQ(bench.send(same_cdb(0, 0, 1), {.data_out = pattern(1024, 1)}).sense, kField) << "two blocks of data";
    EXPECT_EQ(bench.send(same_cdb(0, 0, 1), {.data_out = pattern(256, 1)}).sense, kField) << "half a block";
    EXPECT_EQ(bench.device.writes + bench.device.discards, 0);
    ScsiBench large({}, {.sectors = 1U << 20U});
    EXPECT_EQ(large.send(same_cdb(0, 0, 0x10000), {.data_out = pattern(512, 1)}).sense, kField);
    EXPECT_EQ(large.send(same_cdb(0, 0, 0xffff), {.data_out = pattern(512, 1)}).status, Status::kGood);
}

TEST(CompareAndWrite, writes_only_where_everything_is_as_expected) {
    ScsiBench bench;
    const std::vector<std::byte> old = pattern(1024, 1);
    const std::vector<std::byte> fresh = pattern(1024, 2);
    std::ranges::copy(old, bench.device.area(Lba(9), 1024).begin());
    std::vector<std::byte> data = old;
    data.insert(data.end(), fresh.begin(), fresh.end());
    Cdb cdb = cdb_of({0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2});
    EXPECT_EQ(bench.send(cdb, {.data_out = data}).status, Status::kGood);
    EXPECT_TRUE(std::ranges::equal(bench.device.area(Lba(9), 1024), fresh));
    const Answer again = bench.send(cdb, {.data_out = data});
    EXPECT_EQ(again.sense, kMismatch);
    const auto difference = std::ranges::mismatch(fresh, old).in1 - fresh.begin();
    EXPECT_EQ(load_be<std::uint32_t>(&again.raw_sense[3]), static_cast<std::uint32_t>(difference));
    EXPECT_EQ(bench.device.writes, 1);
    EXPECT_EQ(bench.send(cdb, {.data_out = old}).sense, kField) << "half of the data";
    cdb[1] = std::byte{0x08};
    std::ranges::copy(fresh, data.begin());
    EXPECT_EQ(bench.send(cdb, {.data_out = data}).status, Status::kGood);
    EXPECT_TRUE(bench.device.last_fua);
    EXPECT_EQ(bench.send({0x89}).status, Status::kGood) << "no blocks";
}

TEST(CompareAndWrite, a_block_that_cannot_be_read_is_an_error_not_a_difference) {
    ScsiBench bench;
    bench.device.unreadable.insert(1);
    const Answer answer =
        bench.send({0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, {.data_out = std::vector<std::byte>(2048)});
    EXPECT_EQ(answer.sense, kUnrecoveredReadError);
    EXPECT_EQ(bench.device.writes, 0);
}

TEST(OrWrite, sets_the_bits_of_its_data) {
    ScsiBench bench;
    const std::vector<std::byte> old = pattern(1024, 1);
    const std::vector<std::byte> data = pattern(1024, 9);
    std::ranges::copy(old, bench.device.area(Lba(4), 1024).begin());
    Cdb cdb = cdb_of({0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2});
    EXPECT_EQ(bench.send(cdb, {.data_out = data}).status, Status::kGood);
    const ConstBytes now = bench.device.area(Lba(4), 1024);
    for (std::size_t i = 0; i < now.size(); ++i) {
        ASSERT_EQ(now[i], old[i] | data[i]);
    }
}

TEST(Provisioning, a_thin_unit_says_so_and_a_full_one_does_not) {
    for (const bool thin : {false, true}) {
        ScsiBench bench({.thin = thin});
        const Answer limits = bench.send({0x12, 1, 0xb0, 0, 255});
        EXPECT_EQ(limits.number(20, 4), thin ? 1U << 20U : 0U);
        EXPECT_EQ(limits.number(24, 4), thin ? 256U : 0U);
        EXPECT_EQ(limits.number(28, 4), thin ? 8U : 0U);
        EXPECT_EQ(bench.send({0x12, 1, 0xb2, 0, 255}).at(5), thin ? 0xe4U : 0U);
        EXPECT_EQ(bench.send({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}).number(14, 2), thin ? 0xc000U : 0U);
    }
}

TEST(GetLbaStatus, says_that_all_blocks_have_space) {
    ScsiBench bench;
    const Answer answer = bench.send({0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 24});
    ASSERT_EQ(answer.data.size(), 24U);
    EXPECT_EQ(answer.number(0, 4), 20U);
    EXPECT_EQ(answer.number(8, 8), 9U);
    EXPECT_EQ(answer.number(16, 4), 4087U);
    EXPECT_EQ(answer.at(20), 0U);
    EXPECT_EQ(bench.send({0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 24}).sense, kRange);
}

TEST(ReadOnly, every_command_that_changes_the_medium_is_refused) {
    ScsiBench bench({.read_only = true, .thin = true});
    EXPECT_EQ(unmap(bench, unmap_list({{0, 1}})).sense, kProtected);
    EXPECT_EQ(bench.send(same_cdb(0, 0, 1), {.data_out = pattern(512, 1)}).sense, kProtected);
    EXPECT_EQ(bench.send({0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).sense,
              kProtected);
    EXPECT_EQ(bench.send({0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(1024, 1)}).sense,
              kProtected);
    EXPECT_EQ(bench.device.writes + bench.device.discards, 0);
}

}  // namespace
}  // namespace gemel::scsi
