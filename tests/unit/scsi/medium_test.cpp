// SPDX-License-Identifier: Apache-2.0
// READ, WRITE, VERIFY, WRITE AND VERIFY, SYNCHRONIZE CACHE in all their sizes: data, ranges, flags, residuals, errors.
#include <gtest/gtest.h>

#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kRange{SenseKey::kIllegalRequest, 0x21, 0x00};
constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};
constexpr SenseCode kProtected{SenseKey::kDataProtect, 0x27, 0x00};
constexpr SenseCode kMismatch{SenseKey::kMiscompare, 0x1d, 0x00};

/// One form of a command family: where its address and length are.
struct Form {
    const char* name;
    unsigned opcode;
    std::size_t cdb_bytes;
};

Cdb form_cdb(const Form& form, std::uint64_t lba, std::uint64_t count, unsigned byte1 = 0) {
    Cdb cdb = cdb_of({form.opcode, byte1});
    switch (form.cdb_bytes) {
        case 6:
            cdb[1] |= static_cast<std::byte>(lba >> 16U & 0x1fU);
            store_be(&cdb[2], static_cast<std::uint16_t>(lba));
            cdb[4] = static_cast<std::byte>(count);
            break;
        case 10:
            store_be(&cdb[2], static_cast<std::uint32_t>(lba));
            store_be(&cdb[7], static_cast<std::uint16_t>(count));
            break;
        case 12:
            store_be(&cdb[2], static_cast<std::uint32_t>(lba));
            store_be(&cdb[6], static_cast<std::uint32_t>(count));
            break;
        default:
            store_be(&cdb[2], lba);
            store_be(&cdb[10], static_cast<std::uint32_t>(count));
    }
    return cdb;
}

constexpr Form kReads[] = {
    {"READ(6)", 0x08, 6}, {"READ(10)", 0x28, 10}, {"READ(12)", 0xa8, 12}, {"READ(16)", 0x88, 16}};
constexpr Form kWrites[] = {
    {"WRITE(6)", 0x0a, 6}, {"WRITE(10)", 0x2a, 10}, {"WRITE(12)", 0xaa, 12}, {"WRITE(16)", 0x8a, 16}};
constexpr Form kWriteVerifies[] = {{"WV(10)", 0x2e, 10}, {"WV(12)", 0xae, 12}, {"WV(16)", 0x8e, 16}};
constexpr Form kVerifies[] = {{"VERIFY(10)", 0x2f, 10}, {"VERIFY(12)", 0xaf, 12}, {"VERIFY(16)", 0x8f, 16}};
constexpr Form kSyncs[] = {{"SYNC(10)", 0x35, 10}, {"SYNC(16)", 0x91, 16}};

TEST(Medium, what_any_write_wrote_any_read_returns_at_both_block_sizes) {
    for (const std::uint32_t block : {512U, 4096U}) {
        ScsiBench bench({.block_bytes = block}, {.alignment_sectors = block / 512});
        unsigned seed = 0;
        for (const Form& write : kWrites) {
            for (const Form& read : kReads) {
                const std::uint64_t lba = 3 + seed;
                const std::vector<std::byte> data = pattern(std::size_t{5} * block, ++seed);
                const Answer wrote = bench.send(form_cdb(write, lba, 5), {.data_out = data});
                ASSERT_EQ(wrote.status, Status::kGood) << write.name;
                EXPECT_EQ(wrote.transfer_bytes, data.size());
                const Answer got = bench.send(form_cdb(read, lba, 5));
                ASSERT_EQ(got.status, Status::kGood) << read.name;
                EXPECT_EQ(got.data, data) << write.name << " then " << read.name;
                EXPECT_TRUE(std::ranges::equal(bench.device.area(Lba(lba * block / 512), data.size()), data));
            }
        }
    }
}

TEST(Medium, a_length_of_zero_means_256_blocks_in_six_byte_commands_and_nothing_elsewhere) {
    ScsiBench bench;
    EXPECT_EQ(bench.unit.plan(form_cdb(kReads[0], 0, 0)).transfer_bytes, 256U * 512);
    EXPECT_EQ(bench.unit.plan(form_cdb(kWrites[0], 0, 0)).transfer_bytes, 256U * 512);
    for (const Form* family : {kReads, kWrites}) {
        for (std::size_t i = 1; i < 4; ++i) {
            const Answer answer = bench.send(form_cdb(family[i], 4096, 0));
            EXPECT_EQ(answer.status, Status::kGood) << family[i].name;
            EXPECT_EQ(answer.transfer_bytes, 0U);
        }
    }
    EXPECT_EQ(bench.device.reads + bench.device.writes, 0);
}

TEST(Medium, a_range_past_the_end_is_refused_before_any_data_is_asked_for) {
    ScsiBench bench;  // 4096 blocks
    struct Row {
        std::uint64_t lba;
        std::uint64_t count;
    };
    const std::vector<Row> rows{{4096, 1}, {4095, 2}, {4097, 0}, {0xffff'ffff, 1}, {0x8000'0000, 256}};
    const auto check = [&](const Form& form, const Row& row) {
        const Cdb cdb = form_cdb(form, row.lba, row.count, 0);
        const CommandPlan plan = bench.unit.plan(cdb);
        EXPECT_EQ(plan.direction, DataDirection::kNone) << form.name;
        EXPECT_EQ(plan.transfer_bytes, 0U);
        EXPECT_EQ(bench.send(cdb).sense, kRange) << form.name << ' ' << row.lba << ' ' << row.count;
    };
    for (const Row& row : rows) {
        for (std::size_t i = 1; i < 4; ++i) {
            check(kReads[i], row);
            check(kWrites[i], row);
            check(kVerifies[i - 1], row);
            check(kWriteVerifies[i - 1], row);
        }
        check(kSyncs[0], row);
        check(kSyncs[1], row);
    }
    for (const Row& row : {Row{~0ULL, 1}, Row{~0ULL, 0xffff'ffff}, Row{0, 0xffff'ffff}, Row{~0ULL - 1, 2}}) {
        check(kReads[3], row);
        check(kWrites[3], row);
        check(kVerifies[2], row);
    }
    check(kReads[0], {4095, 2});
    check(kWrites[0], {0x1f'ffff, 1});
    EXPECT_EQ(bench.device.reads + bench.device.writes + bench.device.flushes, 0);
}

TEST(Medium, the_last_block_can_be_read_and_written) {
    ScsiBench bench;
    EXPECT_EQ(bench.send(form_cdb(kWrites[1], 4095, 1), {.data_out = pattern(512, 9)}).status, Status::kGood);
    EXPECT_EQ(bench.send(form_cdb(kReads[1], 4095, 1)).data, pattern(512, 9));
    EXPECT_EQ(bench.send(form_cdb(kSyncs[0], 4096, 0)).status, Status::kGood);
}

TEST(Medium, more_than_the_maximum_transfer_length_is_an_invalid_field) {
    ScsiBench bench({}, {.sectors = 32768, .max_transfer_bytes = 1U << 20U});
    EXPECT_EQ(bench.unit.max_transfer_bytes(), 1U << 20U);
    EXPECT_EQ(bench.send(form_cdb(kReads[1], 0, 2048)).status, Status::kGood);
    for (const Form& form : {kReads[1], kReads[3], kWrites[1], kWrites[2], kVerifies[0], kWriteVerifies[2]}) {
        const Answer answer = bench.send(form_cdb(form, 0, 2049, form.opcode == 0x2f ? 2 : 0));
        EXPECT_EQ(answer.sense, kField) << form.name;
    }
    ScsiBench large({}, {.sectors = 32768, .max_transfer_bytes = 64U << 20U});
    EXPECT_EQ(large.unit.max_transfer_bytes(), 4U << 20U);
    EXPECT_EQ(large.send(form_cdb(kReads[1], 0, 8193)).sense, kField);
}

TEST(Medium, the_plan_says_which_way_the_data_goes_and_how_much) {
    ScsiBench bench;
    const auto plan = [&](const Form& form, unsigned byte1) { return bench.unit.plan(form_cdb(form, 8, 16, byte1)); };
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(plan(kReads[i], 0).direction, DataDirection::kIn);
        EXPECT_EQ(plan(kWrites[i], 0).direction, DataDirection::kOut);
        EXPECT_EQ(plan(kReads[i], 0).transfer_bytes, 16U * 512);
        EXPECT_EQ(plan(kWrites[i], 0).transfer_bytes, 16U * 512);
        EXPECT_EQ(plan(kWrites[i], 0).lba, Lba(8));
    }
    for (const Form& form : kVerifies) {
        EXPECT_EQ(plan(form, 0x00).direction, DataDirection::kNone);
        EXPECT_EQ(plan(form, 0x02).transfer_bytes, 16U * 512);
        EXPECT_EQ(plan(form, 0x06).transfer_bytes, 512U);
        EXPECT_EQ(plan(form, 0x06).direction, DataDirection::kOut);
        EXPECT_TRUE(plan(form, 0x04).refusal.has_value());
    }
    ScsiBench large({.block_bytes = 4096});
    EXPECT_EQ(large.unit.plan(form_cdb(kReads[1], 8, 16)).lba, Lba(64));
    EXPECT_EQ(large.unit.plan(form_cdb(kReads[1], 8, 16)).transfer_bytes, 16U * 4096);
}

TEST(Medium, a_read_gives_what_the_initiator_can_take_and_tells_the_rest_as_residual) {
    ScsiBench bench;
    std::ranges::copy(pattern(1024, 4), bench.device.area(Lba(0), 1024).begin());
    struct Row {
        std::size_t edtl;
        std::uint64_t count;
        std::size_t data;
        std::int64_t residual;
    };
    for (const Row& row : {Row{0, 1, 0, 512}, Row{10000, 1, 512, 512 - 10000}, Row{200, 1, 200, 312},
                           Row{512, 2, 512, 512}, Row{700, 2, 700, 324}}) {
        const Answer answer = bench.send(form_cdb(kReads[1], 0, row.count), {.data_in_capacity = row.edtl});
        EXPECT_EQ(answer.status, Status::kGood);
        EXPECT_EQ(answer.data.size(), row.data) << row.edtl;
        EXPECT_TRUE(std::ranges::equal(answer.data, pattern(row.data, 4)));
        EXPECT_EQ(static_cast<std::int64_t>(answer.transfer_bytes) - static_cast<std::int64_t>(row.edtl), row.residual);
    }
}

TEST(Medium, a_write_with_too_little_data_uses_the_whole_blocks_of_it) {
    struct Row {
        std::size_t edtl;
        std::size_t written;
    };
    for (const Form& form : {kWrites[1], kWrites[2], kWrites[3], kWriteVerifies[0], kWriteVerifies[2]}) {
        for (const Row& row : {Row{0, 0}, Row{200, 0}, Row{512, 512}, Row{1000, 512}, Row{1024, 1024}}) {
            ScsiBench bench;
            std::ranges::fill(bench.device.area(Lba(0), 2048), std::byte{'a'});
            const std::vector<std::byte> data(row.edtl, std::byte{'b'});
            const Answer answer = bench.send(form_cdb(form, 0, 2), {.data_out = data});
            EXPECT_EQ(answer.status, Status::kGood) << form.name;
            EXPECT_EQ(answer.transfer_bytes, 1024U);
            const auto area = bench.device.area(Lba(0), 2048);
            EXPECT_EQ(std::ranges::count(area, std::byte{'b'}), static_cast<std::ptrdiff_t>(row.written)) << row.edtl;
        }
    }
}

TEST(Medium, more_data_than_the_cdb_names_is_not_written) {
    ScsiBench bench;
    std::ranges::fill(bench.device.area(Lba(0), 1024), std::byte{'a'});
    const Answer answer =
        bench.send(form_cdb(kWrites[1], 0, 1), {.data_out = std::vector<std::byte>(1024, std::byte{'b'})});
    EXPECT_EQ(answer.status, Status::kGood);
    EXPECT_EQ(answer.transfer_bytes, 512U);
    EXPECT_EQ(bench.device.area(Lba(1), 512)[0], std::byte{'a'});
}

TEST(Medium, fua_and_the_write_cache_decide_whether_a_write_is_durable) {
    for (const WriteCache cache : {WriteCache::kVolatile, WriteCache::kNone}) {
        ScsiBench bench({.write_cache = cache});
        for (const Form& form : kWrites) {
            bench.send(form_cdb(form, 0, 1), {.data_out = pattern(512, 1)});
            EXPECT_EQ(bench.device.last_fua, cache == WriteCache::kNone) << form.name;
        }
        for (std::size_t i = 1; i < 4; ++i) {
            bench.send(form_cdb(kWrites[i], 0, 1, 0x08), {.data_out = pattern(512, 1)});
            EXPECT_TRUE(bench.device.last_fua);
            bench.send(form_cdb(kWrites[i], 0, 1, 0x10), {.data_out = pattern(512, 1)});  // DPO
            EXPECT_EQ(bench.device.last_fua, cache == WriteCache::kNone);
        }
    }
    // Bit 3 of byte 1 of a six-byte command belongs to its address.
    ScsiBench bench({}, {.sectors = 0x8'0001});
    bench.send(form_cdb(kWrites[0], 0x8'0000, 1), {.data_out = pattern(512, 1)});
    EXPECT_FALSE(bench.device.last_fua);
}

TEST(Medium, protection_information_and_reserved_bits_are_invalid_fields_with_a_pointer) {
    ScsiBench bench;
    struct Row {
        Cdb cdb;
        unsigned byte;
        unsigned bit;
    };
    std::vector<Row> rows;
    for (unsigned protect = 1; protect < 8; ++protect) {
        for (const Form& form : {kReads[1], kReads[2], kReads[3], kWrites[1], kWrites[2], kWrites[3], kVerifies[0],
                                 kVerifies[1], kVerifies[2], kWriteVerifies[0], kWriteVerifies[1], kWriteVerifies[2]}) {
            rows.push_back({form_cdb(form, 0, 1, protect << 5U), 1, protect >= 4 ? 7U : protect >= 2 ? 6U : 5U});
        }
    }
    rows.push_back({form_cdb(kVerifies[0], 0, 1, 0x04), 1, 2});       // BYTCHK 2
    rows.push_back({form_cdb(kWriteVerifies[0], 0, 1, 0x06), 1, 2});  // BYTCHK 3
    Cdb naca = form_cdb(kReads[1], 0, 1);
    naca[9] = std::byte{0x04};
    rows.push_back({naca, 9, 2});
    for (const Row& row : rows) {
        const Answer answer = bench.send(row.cdb);
        ASSERT_EQ(answer.sense, kField);
        ASSERT_EQ(answer.raw_sense.size(), 18U);
        EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[15]), 0xc8U | row.bit);
        EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[17]), row.byte);
    }
    EXPECT_EQ(bench.device.reads + bench.device.writes, 0);
}

TEST(Medium, data_declared_to_go_the_other_way_does_not_move) {
    ScsiBench bench;
    const Answer read = bench.send(form_cdb(kReads[1], 0, 1), {.direction = DataDirection::kOut});
    EXPECT_EQ(read.status, Status::kGood);
    EXPECT_TRUE(read.data.empty());
    EXPECT_EQ(read.transfer_bytes, 0U);
    const Answer write =
        bench.send(form_cdb(kWrites[1], 0, 1), {.data_out = pattern(512, 1), .direction = DataDirection::kIn});
    EXPECT_EQ(write.sense, kField);
    EXPECT_EQ(bench.device.reads + bench.device.writes, 0);
    EXPECT_EQ(bench.send({0x00}, {.direction = DataDirection::kIn}).status, Status::kGood);
}

TEST(Medium, a_read_only_unit_is_read_and_verified_but_never_written) {
    ScsiBench bench({.read_only = true});
    for (const Form& form :
         {kWrites[0], kWrites[1], kWrites[2], kWrites[3], kWriteVerifies[0], kWriteVerifies[1], kWriteVerifies[2]}) {
        EXPECT_EQ(bench.unit.plan(form_cdb(form, 0, 1)).direction, DataDirection::kNone);
        EXPECT_EQ(bench.send(form_cdb(form, 0, 1), {.data_out = pattern(512, 1)}).sense, kProtected) << form.name;
    }
    EXPECT_EQ(bench.device.writes, 0);
    EXPECT_EQ(bench.send(form_cdb(kReads[1], 0, 1)).status, Status::kGood);
    EXPECT_EQ(bench.send(form_cdb(kVerifies[0], 0, 1)).status, Status::kGood);
    EXPECT_EQ(bench.send(form_cdb(kSyncs[0], 0, 0)).status, Status::kGood);
}

TEST(Medium, a_unit_that_is_read_only_for_one_initiator_is_written_by_the_others) {
    ScsiBench bench({.thin = true});
    const auto reader = bench.unit.attach({.initiator_port = "iqn.2026-11.dev.gemel:reader,i,0x00023d000001",
                                           .target_port = "iqn.2026-11.dev.gemel:target,t,0x0001",
                                           .read_only = true});
    EXPECT_EQ(bench.send({0x00}, {.nexus = reader.get()}).status, Status::kCheckCondition) << "unit attention";
    for (const Form& form : {kWrites[0], kWrites[3], kWriteVerifies[1]}) {
        EXPECT_EQ(bench.unit.plan(form_cdb(form, 0, 1), *reader).direction, DataDirection::kNone) << "nothing is asked";
        EXPECT_EQ(bench.send(form_cdb(form, 0, 1), {.data_out = pattern(512, 1), .nexus = reader.get()}).sense,
                  kProtected);
    }
    const Answer unmap =
        bench.send({0x42, 0, 0, 0, 0, 0, 0, 0, 8}, {.data_out = std::vector<std::byte>(8), .nexus = reader.get()});
    EXPECT_EQ(unmap.sense, kProtected);
    EXPECT_EQ(bench.device.writes, 0);
    EXPECT_EQ(bench.send(form_cdb(kReads[1], 0, 1), {.nexus = reader.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1a, 0, 0x3f, 0, 255}, {.nexus = reader.get()}).at(2), 0x90U);
    EXPECT_EQ(bench.send({0x1a, 0, 0x3f, 0, 255}).at(2), 0x10U);
    EXPECT_EQ(bench.send(form_cdb(kWrites[1], 0, 1), {.data_out = pattern(512, 1)}).status, Status::kGood);
    EXPECT_EQ(bench.device.writes, 1);
}

TEST(Medium, verify_compares_as_bytchk_says) {
    ScsiBench bench;
    const std::vector<std::byte> stored = pattern(4 * 512, 3);
    std::ranges::copy(stored, bench.device.area(Lba(10), stored.size()).begin());
    std::vector<std::byte> changed = stored;
    changed[1300] ^= std::byte{0x40};
    for (const Form& form : kVerifies) {
        EXPECT_EQ(bench.send(form_cdb(form, 10, 4, 0x02), {.data_out = stored}).status, Status::kGood);
        EXPECT_EQ(bench.send(form_cdb(form, 10, 4, 0x12), {.data_out = stored}).status, Status::kGood);
        const Answer differs = bench.send(form_cdb(form, 10, 4, 0x02), {.data_out = changed});
        EXPECT_EQ(differs.sense, kMismatch) << form.name;
        EXPECT_EQ(load_be<std::uint32_t>(&differs.raw_sense[3]), 1300U);
        EXPECT_EQ(bench.send(form_cdb(form, 10, 4, 0x00)).status, Status::kGood);
        EXPECT_EQ(bench.send(form_cdb(form, 10, 0, 0x02)).status, Status::kGood);

        const std::vector<std::byte> one(512, std::byte{5});
        std::ranges::fill(bench.device.area(Lba(100), 3 * 512), std::byte{5});
        EXPECT_EQ(bench.send(form_cdb(form, 100, 3, 0x06), {.data_out = one}).status, Status::kGood);
        bench.device.area(Lba(102), 1)[0] = std::byte{6};
        const Answer third = bench.send(form_cdb(form, 100, 3, 0x06), {.data_out = one});
        EXPECT_EQ(third.sense, kMismatch);
        EXPECT_EQ(load_be<std::uint32_t>(&third.raw_sense[3]), 1024U);
    }
}

TEST(Medium, write_and_verify_finds_what_the_medium_got_wrong) {
    for (const Form& form : kWriteVerifies) {
        ScsiBench bench;
        const std::vector<std::byte> data = pattern(1024, 8);
        EXPECT_EQ(bench.send(form_cdb(form, 6, 2, 0x02), {.data_out = data}).status, Status::kGood);
        EXPECT_TRUE(bench.device.last_fua);
        EXPECT_TRUE(std::ranges::equal(bench.device.area(Lba(6), 1024), data));
        bench.device.corrupt_next_write = {700};
        EXPECT_EQ(bench.send(form_cdb(form, 6, 2, 0x02), {.data_out = data}).sense, kMismatch) << form.name;
        bench.device.unreadable = {7};
        EXPECT_EQ(bench.send(form_cdb(form, 6, 2), {.data_out = data}).sense, kUnrecoveredReadError) << form.name;
    }
}

TEST(Medium, synchronize_cache_flushes_once_and_reports_failure) {
    ScsiBench bench;
    int expected = 0;
    for (const Form& form : kSyncs) {
        for (const unsigned flags : {0x00U, 0x02U, 0x06U}) {
            EXPECT_EQ(bench.send(form_cdb(form, 0, 0, flags)).status, Status::kGood);
            EXPECT_EQ(bench.device.flushes, ++expected);
        }
    }
    bench.device.error = Errc::kIo;
    EXPECT_EQ(bench.send(form_cdb(kSyncs[0], 0, 8)).sense, kInternalTargetFailure);
}

TEST(Medium, a_block_that_cannot_be_read_is_named_and_its_zeros_are_never_shown) {
    for (const bool hidden : {false, true}) {
        for (const std::uint32_t block : {512U, 4096U}) {
            ScsiBench bench({.block_bytes = block});
            bench.device.hide_medium_errors = hidden;
            bench.device.unreadable = {803, 1200};
            const std::uint64_t lba = block == 512 ? 789 : 98;
            const std::uint64_t bad = block == 512 ? 800 : 100;  // the 4 KiB block of sector 803 begins at 800
            const Answer answer = bench.send(form_cdb(kReads[1], lba, 64));
            EXPECT_EQ(answer.sense, kUnrecoveredReadError);
            EXPECT_TRUE(answer.data.empty());
            EXPECT_EQ(answer.transfer_bytes, 0U);
            EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[0]), 0xf0U);
            EXPECT_EQ(load_be<std::uint32_t>(&answer.raw_sense[3]), bad);
        }
    }
}

TEST(Medium, a_read_that_a_member_does_not_answer_goes_around_it_in_other_memory) {
    ScsiBench bench({.block_bytes = 512});
    const Answer before = bench.send(form_cdb(kReads[1], 8, 64));
    bench.device.silent_reads = 2;
    const Answer answer = bench.send(form_cdb(kReads[1], 8, 64));
    EXPECT_EQ(answer.data, before.data);
    EXPECT_EQ(answer.transfer_bytes, 64U * 512);
    EXPECT_EQ(bench.device.held.size(), 2U);
    bench.device.silent_reads = 1000;
    EXPECT_TRUE(bench.send(form_cdb(kReads[1], 8, 64)).data.empty()) << "in the end the initiator has to try again";
}

TEST(Medium, every_device_error_reaches_the_initiator_from_reads_writes_and_verifies) {
    for (const ErrcRow& row : kErrcTable) {
        ScsiBench bench;
        bench.device.error = row.code;
        const ErrorAnswer expected = answer_for(row.code);
        const Answer read = bench.send(form_cdb(kReads[1], 0, 8));
        const Answer write = bench.send(form_cdb(kWrites[1], 0, 8), {.data_out = pattern(4096, 1)});
        const Answer verify = bench.send(form_cdb(kVerifies[1], 0, 8, 0x02), {.data_out = pattern(4096, 1)});
        for (const Answer& answer : {read, write, verify}) {
            EXPECT_EQ(answer.status, expected.status) << row.name;
            EXPECT_EQ(answer.sense, expected.sense) << row.name;
        }
        EXPECT_EQ(read.transfer_bytes, 0U);
        EXPECT_EQ(write.transfer_bytes, 4096U);
    }
}

TEST(Medium, a_device_that_shrank_after_the_plan_answers_for_itself) {
    ScsiBench bench;
    ScsiCommand command;
    command.cdb = form_cdb(kReads[1], 4000, 8);
    command.plan = bench.unit.plan(command.cdb);
    command.nexus = bench.first.get();
    command.data_in_capacity = 4096;
    bench.device.error = Errc::kOutOfRange;
    EXPECT_EQ(answer_of(finish(bench.unit.execute(command))).sense, kRange);
}

TEST(Medium, without_buffers_a_command_is_answered_busy) {
    sim::SimScheduler scheduler(1);
    sim::SimNetwork network(scheduler, 1);
    sim::SeededRandom random(1);
    sim::HeapPool pool(8192);
    sim::RecordingEvents events;
    Environment environment{scheduler, random, pool, events, network.host("n"), {}};
    MemoryDevice device({});
    LogicalUnit unit(environment, device, {});
    const std::unique_ptr<ItlNexus> nexus = unit.attach({});
    nexus->take_attention();
    const Buffer held = *pool.allocate(8192);
    for (const Cdb& cdb : {form_cdb(kReads[1], 0, 8), form_cdb(kVerifies[0], 0, 8), cdb_of({0x12, 0, 0, 0, 96}),
                           cdb_of({0x00}), cdb_of({0x1a, 0, 0x3f, 0, 255}), cdb_of({0xa0, 0, 0, 0, 0, 0, 0, 0, 1})}) {
        ScsiCommand command;
        command.cdb = cdb;
        command.plan = unit.plan(cdb);
        command.nexus = nexus.get();
        command.data_in_capacity = 4096;
        EXPECT_EQ(answer_of(finish(unit.execute(command))).status, Status::kBusy) << command_name(cdb);
    }
}

}  // namespace
}  // namespace gemel::scsi
