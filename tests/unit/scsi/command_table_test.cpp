// SPDX-License-Identifier: Apache-2.0
// Every row of the command table against REPORT SUPPORTED OPERATION CODES, against the CDB checks and against names.
#include "target/scsi/command_table.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};
constexpr SenseCode kOpcode{SenseKey::kIllegalRequest, 0x20, 0x00};

Cdb minimal_cdb(const CommandRow& row) {
    Cdb cdb{};
    cdb[0] = std::byte{row.opcode};
    if (row.service_action >= 0) {
        cdb[1] = static_cast<std::byte>(row.service_action);
    }
    return cdb;
}

Answer report(ScsiBench& bench, unsigned options, unsigned opcode, unsigned action) {
    return bench.send({0xa3, 0x0c, options, opcode, action >> 8U, action & 0xffU, 0, 0, 0xff, 0xff});
}

TEST(CommandTable, holds_every_command_of_the_first_set_under_its_code) {
    const std::set<std::pair<unsigned, int>> expected{
        {0x00, -1}, {0x03, -1}, {0x08, -1}, {0x0a, -1}, {0x12, -1}, {0x15, -1}, {0x16, -1},   {0x17, -1},
        {0x1a, -1}, {0x1b, -1}, {0x1e, -1}, {0x25, -1}, {0x28, -1}, {0x2a, -1}, {0x2e, -1},   {0x2f, -1},
        {0x34, -1}, {0x35, -1}, {0x37, -1}, {0x41, -1}, {0x42, -1}, {0x55, -1}, {0x56, -1},   {0x57, -1},
        {0x5a, -1}, {0x5e, 0},  {0x5e, 1},  {0x5e, 2},  {0x5e, 3},  {0x5f, 0},  {0x5f, 1},    {0x5f, 2},
        {0x5f, 3},  {0x5f, 4},  {0x5f, 5},  {0x5f, 6},  {0x5f, 7},  {0x88, -1}, {0x89, -1},   {0x8a, -1},
        {0x8b, -1}, {0x8e, -1}, {0x8f, -1}, {0x90, -1}, {0x91, -1}, {0x93, -1}, {0x9e, 0x10}, {0x9e, 0x12},
        {0xa0, -1}, {0xa3, 12}, {0xa3, 13}, {0xa8, -1}, {0xaa, -1}, {0xae, -1}, {0xaf, -1},   {0xb7, -1}};
    std::set<std::pair<unsigned, int>> present;
    for (const CommandRow& row : command_table()) {
        present.emplace(row.opcode, row.service_action);
        EXPECT_EQ(find_row(minimal_cdb(row)), &row);
        EXPECT_EQ(command_name(minimal_cdb(row)), row.name);
        EXPECT_FALSE(row.section.empty());
        // The group of an operation code decides the length of its CDB (SPC-4 4.2.5.1).
        const unsigned group = row.opcode >> 5U;
        EXPECT_EQ(row.cdb_bytes, group == 0 ? 6U : group == 4 ? 16U : group == 5 ? 12U : 10U) << row.name;
    }
    EXPECT_EQ(present, expected);
    EXPECT_EQ(command_name(cdb_of({0xc1})), "operation code 0xc1");
}

TEST(CommandTable, all_other_operation_codes_and_service_actions_are_invalid_and_ask_for_no_data) {
    ScsiBench bench;
    int unknown = 0;
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
        for (unsigned action = 0; action < 32; ++action) {
            const Cdb cdb = cdb_of({opcode, action, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
            if (find_row(cdb) != nullptr) {
                continue;
            }
            ++unknown;
            const CommandPlan plan = bench.unit.plan(cdb);
            EXPECT_EQ(plan.direction, DataDirection::kNone);
            EXPECT_EQ(plan.transfer_bytes, 0U);
            const bool reserve = opcode == 0x5e || opcode == 0x5f;
            EXPECT_EQ(bench.send(cdb).sense, reserve ? kField : kOpcode) << opcode << ' ' << action;
        }
    }
    EXPECT_GT(unknown, 200 * 32);
}

TEST(CommandTable, each_bit_outside_the_usage_mask_is_an_invalid_field_with_its_address) {
    ScsiBench bench({.thin = true});
    int tried = 0;
    for (const CommandRow& row : command_table()) {
        for (std::size_t byte = 1; byte < row.cdb_bytes; ++byte) {
            for (unsigned bit = 0; bit < 8; ++bit) {
                if ((row.usage[byte] >> bit & 1U) != 0) {
                    continue;
                }
                Cdb cdb = minimal_cdb(row);
                cdb[byte] |= static_cast<std::byte>(1U << bit);
                const Answer answer = bench.send(cdb);
                ASSERT_EQ(answer.sense, kField) << row.name << " byte " << byte << " bit " << bit;
                EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[15]), 0xc8U | bit);
                EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[17]), byte);
                ++tried;
            }
        }
        // Bytes after the CDB's end are the transport's padding.
        Cdb padded = minimal_cdb(row);
        std::fill(padded.begin() + row.cdb_bytes, padded.end(), std::byte{0xff});
        if (row.transfer == Transfer::kSame) {
            padded[row.length.offset + row.length.bytes - 1U] = std::byte{1};  // of no blocks it is refused
        }
        EXPECT_FALSE(bench.unit.plan(padded).refusal.has_value()) << row.name;
    }
    EXPECT_GT(tried, 500);
}

TEST(ReportSupportedOperationCodes, the_whole_list_is_the_table) {
    ScsiBench bench({.thin = true});
    const Answer plain = report(bench, 0x00, 0, 0);
    const Answer timed = report(bench, 0x80, 0, 0);
    ASSERT_EQ(plain.data.size(), 4 + 8 * command_table().size());
    ASSERT_EQ(timed.data.size(), 4 + 20 * command_table().size());
    EXPECT_EQ(plain.number(0, 4), plain.data.size() - 4);
    EXPECT_EQ(timed.number(0, 4), timed.data.size() - 4);
    for (std::size_t i = 0; i < command_table().size(); ++i) {
        const CommandRow& row = command_table()[i];
        const bool actions = row.service_action >= 0;
        const std::uint64_t head = std::uint64_t{row.opcode} << 8U;
        const std::uint64_t action = actions ? static_cast<std::uint64_t>(row.service_action) : 0;
        EXPECT_EQ(plain.number(4 + 8 * i, 2), head) << row.name;
        EXPECT_EQ(plain.number(6 + 8 * i, 2), action);
        EXPECT_EQ(plain.number(8 + 8 * i, 2), actions ? 1U : 0U);
        EXPECT_EQ(plain.number(10 + 8 * i, 2), row.cdb_bytes);
        EXPECT_EQ(timed.number(8 + 20 * i, 2), actions ? 3U : 2U);
        EXPECT_EQ(timed.number(12 + 20 * i, 2), 10U);
        EXPECT_EQ(timed.number(20 + 20 * i, 4), row.timeout_seconds);
        EXPECT_GT(row.timeout_seconds, 0);
    }
}

TEST(ReportSupportedOperationCodes, a_command_that_the_unit_has_not_is_in_no_list) {
    ScsiBench bench;
    EXPECT_EQ(report(bench, 0x00, 0, 0).data.size(), 4 + 8 * (command_table().size() - 1));
    EXPECT_EQ(report(bench, 1, 0x42, 0).at(1), 1U);
    EXPECT_EQ(bench.send({0x42}).sense, kOpcode);
    ScsiBench thin({.thin = true});
    EXPECT_EQ(report(thin, 1, 0x42, 0).at(1), 3U);
    EXPECT_EQ(thin.send({0x42}).status, Status::kGood);
}

TEST(ReportSupportedOperationCodes, one_command_by_each_reporting_option) {
    ScsiBench bench({.thin = true});
    for (const CommandRow& row : command_table()) {
        const bool actions = row.service_action >= 0;
        const unsigned action = actions ? static_cast<unsigned>(row.service_action) : 0;
        for (const unsigned timeouts : {0x00U, 0x80U}) {
            EXPECT_EQ(report(bench, 1U | timeouts, row.opcode, action).sense, actions ? kField : SenseCode{});
            EXPECT_EQ(report(bench, 2U | timeouts, row.opcode, action).sense, actions ? SenseCode{} : kField);
            const Answer one = report(bench, (actions ? 2U : 1U) | timeouts, row.opcode, action);
            const Answer either = report(bench, 3U | timeouts, row.opcode, action);
            EXPECT_EQ(one.data, either.data) << row.name;
            ASSERT_EQ(one.data.size(), 4U + row.cdb_bytes + (timeouts != 0 ? 12 : 0));
            EXPECT_EQ(one.at(1), timeouts | 3U);
            EXPECT_EQ(one.number(2, 2), row.cdb_bytes);
            EXPECT_EQ(one.at(4), row.opcode);
            EXPECT_EQ(one.at(5), actions ? action : row.usage[1]) << row.name;
            for (std::size_t i = 2; i < row.cdb_bytes; ++i) {
                EXPECT_EQ(one.at(4 + i), row.usage[i]);
            }
        }
    }
    EXPECT_EQ(report(bench, 1, 0x28, 0).at(5) & 0x18U, 0x18U) << "DPO and FUA are said to be supported";
}

TEST(ReportSupportedOperationCodes, what_is_not_there_is_reported_as_such) {
    ScsiBench bench;
    for (const unsigned option : {1U, 2U, 3U}) {
        const Answer unknown = report(bench, option, 0xc1, 0);
        EXPECT_EQ(unknown.number(0, 4), 0x0001'0000U) << option;
    }
    EXPECT_EQ(report(bench, 2, 0x9e, 0x11).at(1), 1U);
    EXPECT_EQ(report(bench, 3, 0x9e, 0x11).at(1), 1U);
    EXPECT_EQ(report(bench, 3, 0x9e, 0x1010).at(1), 1U);
    EXPECT_EQ(report(bench, 3, 0x28, 0x01).at(1), 1U);
    for (const unsigned option : {4U, 5U, 6U, 7U}) {
        EXPECT_EQ(report(bench, option, 0x28, 0).sense, kField);
    }
}

TEST(CommandTable, what_brings_data_to_stay_has_an_effect_and_what_only_reads_has_none) {
    for (const CommandRow& row : command_table()) {
        const bool blocks = row.transfer == Transfer::kBlocksOut || row.transfer == Transfer::kCompare ||
                            row.transfer == Transfer::kSame;
        const bool reads = row.transfer == Transfer::kAllocation || row.transfer == Transfer::kBlocksIn ||
                           row.transfer == Transfer::kVerify || row.transfer == Transfer::kEightBytes;
        EXPECT_TRUE(!blocks || row.effect == Effect::kMedium) << row.name;
        EXPECT_TRUE(row.transfer != Transfer::kParameters || row.effect != Effect::kNothing) << row.name;
        EXPECT_TRUE(!reads || row.effect == Effect::kNothing) << row.name;
    }
}

}  // namespace
}  // namespace gemel::scsi
