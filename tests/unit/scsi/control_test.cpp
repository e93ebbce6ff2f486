// SPDX-License-Identifier: Apache-2.0
// INQUIRY and its pages, MODE SENSE, READ CAPACITY, REPORT LUNS, REQUEST SENSE, START STOP UNIT, PREVENT ALLOW, TEST
// UNIT READY, and truncation to the allocation length of every command that has one.
#include <gtest/gtest.h>

#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};

struct Designator {
    unsigned code_set;
    unsigned association;
    unsigned type;
    std::string value;
    friend bool operator==(const Designator&, const Designator&) = default;
};

std::vector<Designator> designators(const Answer& page) {
    std::vector<Designator> out;
    for (std::size_t at = 4; at < page.data.size();) {
        const std::size_t length = page.at(at + 3);
        out.push_back(
            {page.at(at) & 15U, page.at(at + 1) >> 4U & 3U, page.at(at + 1) & 15U, page.text(at + 4, length)});
        at += 4 + length;
    }
    return out;
}

TEST(Inquiry, standard_data_names_the_unit_and_its_standards) {
    ScsiBench bench({.vendor = "GEMEL", .product = "VOLUME", .revision = "0001"});
    const Answer answer = bench.send({0x12, 0, 0, 0, 255});
    ASSERT_EQ(answer.data.size(), 96U);
    EXPECT_EQ(answer.number(0, 5), 0x00'00'06'12'5bULL);
    EXPECT_EQ(answer.at(7), 0x02U);
    EXPECT_EQ(answer.text(8, 28), "GEMEL   VOLUME          0001");
    EXPECT_EQ(answer.number(58, 8), 0x00a0'0960'0460'04c0ULL);
    EXPECT_EQ(bench.send({0x12, 0, 0, 1, 0}).data.size(), 96U);
}

TEST(Inquiry, a_page_without_evpd_and_an_unknown_page_are_invalid_fields) {
    ScsiBench bench;
    EXPECT_EQ(bench.send({0x12, 0, 0x80, 0, 255}).sense, kField);
    for (const unsigned page : {0x01U, 0x82U, 0x84U, 0xb3U, 0xc0U, 0xffU}) {
        EXPECT_EQ(bench.send({0x12, 1, page, 0, 255}).sense, kField) << page;
    }
    EXPECT_EQ(bench.send({0x12, 2, 0, 0, 255}).sense, kField);  // CMDDT
}

TEST(Inquiry, every_listed_page_can_be_read_and_has_the_length_it_says) {
    ScsiBench bench;
    const Answer list = bench.send({0x12, 1, 0, 0, 255});
    const std::vector<std::byte> expected{std::byte{0},    std::byte{0},    std::byte{0},    std::byte{6},
                                          std::byte{0},    std::byte{0x80}, std::byte{0x83}, std::byte{0xb0},
                                          std::byte{0xb1}, std::byte{0xb2}};
    EXPECT_EQ(list.data, expected);
    for (std::size_t i = 4; i < list.data.size(); ++i) {
        const Answer page = bench.send({0x12, 1, list.at(i), 2, 0});
        ASSERT_EQ(page.status, Status::kGood);
        EXPECT_EQ(page.at(1), list.at(i));
        EXPECT_EQ(page.number(2, 2) + 4, page.data.size());
    }
}

TEST(Inquiry, the_identity_of_the_data_is_the_same_on_both_nodes_and_for_every_nexus) {
    ScsiBench alpha;
    ScsiBench beta({.read_only = true});
    ScsiBench other({}, {.identity = Uuid{{std::byte{0x99}}}});
    const auto unit_designators = [](ScsiBench& bench) {
        std::vector<Designator> all = designators(bench.send({0x12, 1, 0x83, 2, 0}));
        std::erase_if(all, [](const Designator& d) { return d.association != 0; });
        return all;
    };
    EXPECT_EQ(unit_designators(alpha), unit_designators(beta));
    EXPECT_NE(unit_designators(alpha), unit_designators(other));
    EXPECT_NE(alpha.send({0x12, 1, 0x80, 0, 255}).data, other.send({0x12, 1, 0x80, 0, 255}).data);

    const std::vector<Designator> all = designators(alpha.send({0x12, 1, 0x83, 2, 0}));
    ASSERT_EQ(all.size(), 6U);
    EXPECT_EQ(all[0].type, 3U);
    ASSERT_EQ(all[0].value.size(), 16U);
    // NAA 6, company id 02474d, and what is left of the identity 11223344 00...
    EXPECT_EQ(all[0].value, std::string("\x60\x24\x74\xd4", 4) + std::string(12, '\0'));
    EXPECT_EQ(all[1].value.substr(0, 24), "GEMEL   VOLUME          ");
    EXPECT_EQ(all[1].value.substr(24), "11223344000000000000000000000000");
    EXPECT_EQ(all[2], (Designator{1, 1, 4, std::string("\0\0\0\1", 4)}));
    EXPECT_EQ(all[3], (Designator{1, 1, 5, std::string("\0\0\0\7", 4)}));
    EXPECT_EQ(all[4].value.substr(0, 37), "iqn.2026-11.dev.gemel:target,t,0x0001");
    EXPECT_EQ(all[4].value.size() % 4, 0U);
    EXPECT_EQ(all[5].value.c_str(), std::string("iqn.2026-11.dev.gemel:target"));
    EXPECT_EQ(all[5].association, 2U);
}

TEST(Inquiry, a_device_without_identity_is_named_by_its_serial_number) {
    ScsiBench one({.serial = "disk-1"}, {.identity = {}});
    ScsiBench same({.serial = "disk-1"}, {.identity = {}});
    ScsiBench two({.serial = "disk-2"}, {.identity = {}});
    ScsiBench none({}, {.identity = {}});
    const auto naa = [](ScsiBench& bench) { return designators(bench.send({0x12, 1, 0x83, 2, 0}))[0].value; };
    EXPECT_EQ(naa(one), naa(same));
    EXPECT_NE(naa(one), naa(two));
    EXPECT_NE(naa(one), naa(none));
    EXPECT_EQ(one.send({0x12, 1, 0x80, 0, 255}).text(4, 6), "disk-1");
    EXPECT_EQ(none.send({0x12, 1, 0x80, 0, 255}).data.size(), 36U);
}

TEST(Inquiry, names_of_any_length_fit) {
    ScsiBench bench({.vendor = std::string(100, 'v'), .serial = std::string(300, 's')});
    const auto nexus = bench.unit.attach({.target_port = std::string(1000, 'n')});
    nexus->take_attention();
    const Answer page = bench.send({0x12, 1, 0x83, 0xff, 0xff}, {.nexus = nexus.get()});
    EXPECT_EQ(page.status, Status::kGood);
    EXPECT_EQ(designators(page).size(), 6U);
    EXPECT_EQ(bench.send({0x12, 0, 0, 0, 255}).data.size(), 96U);
}

TEST(Inquiry, block_limits_follow_the_device) {
    struct Row {
        std::uint32_t block;
        std::uint32_t max_bytes;
        std::uint32_t optimal_bytes;
        std::uint64_t granularity;
        std::uint64_t max;
        std::uint64_t optimal;
    };
    for (const Row& row :
         {Row{512, 4U << 20U, 256U << 10U, 8, 8192, 512}, Row{4096, 4U << 20U, 256U << 10U, 1, 1024, 64},
          Row{512, 64U << 20U, 0, 8, 8192, 0}, Row{512, 1U << 20U, 8U << 20U, 8, 2048, 2048}}) {
        ScsiBench bench({.block_bytes = row.block},
                        {.max_transfer_bytes = row.max_bytes, .optimal_transfer_bytes = row.optimal_bytes});
        const Answer page = bench.send({0x12, 1, 0xb0, 0, 255});
        ASSERT_EQ(page.data.size(), 64U);
        EXPECT_EQ(page.number(6, 2), row.granularity);
        EXPECT_EQ(page.number(8, 4), row.max);
        EXPECT_EQ(page.number(12, 4), row.optimal);
        EXPECT_EQ(page.at(4), 1U) << "WSNZ";
        EXPECT_EQ(page.at(5), 255U) << "COMPARE AND WRITE";
        EXPECT_EQ(page.number(36, 8), 0xffffU) << "WRITE SAME";
        for (std::size_t i = 16; i < 64; ++i) {
            EXPECT_TRUE(page.at(i) == 0U || (i >= 36 && i < 44)) << i;
        }
        EXPECT_EQ(bench.send({0x12, 1, 0xb1, 0, 255}).number(4, 2), 1U);
        EXPECT_EQ(bench.send({0x12, 1, 0xb2, 0, 255}).number(4, 4), 0U);
    }
}

TEST(ReadCapacity, sizes_at_both_block_sizes_and_beyond_32_bits) {
    ScsiBench small;
    EXPECT_EQ(small.send({0x25}).number(0, 8), 0x0000'0fff'0000'0200ULL);
    const Answer long_form = small.send({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32});
    ASSERT_EQ(long_form.data.size(), 32U);
    EXPECT_EQ(long_form.number(0, 8), 4095U);
    EXPECT_EQ(long_form.number(8, 4), 512U);
    EXPECT_EQ(long_form.number(12, 4), 0x0003'0000U);  // 8 logical blocks per physical one
    ScsiBench large({.block_bytes = 4096}, {.sectors = 4097});
    EXPECT_EQ(large.send({0x25}).number(0, 8), 0x0000'01ff'0000'1000ULL);
    EXPECT_EQ(large.send({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255}).number(12, 4), 0U);
}

/// Says that it is larger than any memory.
class HugeDevice : public MemoryDevice {
  public:
    HugeDevice() : MemoryDevice({}) {}
    [[nodiscard]] DeviceLimits limits() const override {
        DeviceLimits limits = MemoryDevice::limits();
        limits.sectors = SectorCount(0x3'0000'0000ULL);
        return limits;
    }
};

TEST(ReadCapacity, ten_byte_form_says_all_ones_when_the_unit_is_too_large_for_it) {
    ScsiBench bench;
    HugeDevice device;
    LogicalUnit unit(bench.environment(), device, {});
    const auto nexus = unit.attach({});
    nexus->take_attention();
    const auto send = [&](const Cdb& cdb) {
        ScsiCommand command;
        command.cdb = cdb;
        command.plan = unit.plan(cdb);
        command.nexus = nexus.get();
        command.data_in_capacity = 255;
        return answer_of(finish(unit.execute(command)));
    };
    EXPECT_EQ(send(cdb_of({0x25})).number(0, 4), 0xffff'ffffU);
    EXPECT_EQ(send(cdb_of({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32})).number(0, 8), 0x2'ffff'ffffULL);
    EXPECT_EQ(send(cdb_of({0x1a, 0, 0x08, 0, 255})).number(4, 4), 0xffff'ffffU);
    EXPECT_EQ(send(cdb_of({0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 255})).number(8, 8), 0x3'0000'0000ULL);
}

TEST(ReadCapacity, an_address_without_pmi_is_an_invalid_field) {
    ScsiBench bench;
    EXPECT_EQ(bench.send({0x25, 0, 0, 0, 0, 1}).sense, kField);
    EXPECT_EQ(bench.send({0x25, 0, 0, 0, 0, 1, 0, 0, 1}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 32}).sense, kField);
    EXPECT_EQ(bench.send({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 32, 1}).status, Status::kGood);
}

TEST(ModeSense, all_pages_with_and_without_block_descriptor_in_both_forms) {
    for (const bool read_only : {false, true}) {
        ScsiBench bench({.read_only = read_only});
        const unsigned parameter = read_only ? 0x90 : 0x10;
        const Answer six = bench.send({0x1a, 0, 0x3f, 0, 255});
        ASSERT_EQ(six.data.size(), 4U + 8 + 12 + 20 + 12 + 12);
        EXPECT_EQ(six.number(0, 4), (six.data.size() - 1) << 24U | parameter << 8U | 8U);
        EXPECT_EQ(six.number(4, 4), 4096U);
        EXPECT_EQ(six.number(9, 3), 512U);
        EXPECT_EQ(six.number(12, 2), 0x010aU);
        EXPECT_EQ(six.number(24, 2), 0x0812U);
        EXPECT_EQ(six.number(44, 2), 0x0a0aU);
        EXPECT_EQ(six.number(56, 2), 0x1c0aU);
        const Answer bare = bench.send({0x1a, 0x08, 0x3f, 0xff, 255});
        EXPECT_TRUE(std::ranges::equal(ConstBytes(bare.data).subspan(4), ConstBytes(six.data).subspan(12)));
        const Answer ten = bench.send({0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0});
        EXPECT_EQ(ten.number(0, 2), ten.data.size() - 2);
        EXPECT_EQ(ten.at(3), parameter);
        EXPECT_EQ(ten.number(6, 2), 8U);
        EXPECT_TRUE(std::ranges::equal(ConstBytes(ten.data).subspan(8), ConstBytes(six.data).subspan(4)));
        const Answer wide = bench.send({0x5a, 0x10, 0x08, 0, 0, 0, 0, 1, 0});
        EXPECT_EQ(wide.at(4), 1U);
        EXPECT_EQ(wide.number(6, 2), 16U);
        EXPECT_EQ(wide.number(8, 8), 4096U);
        EXPECT_EQ(wide.number(20, 4), 512U);
    }
}

TEST(ModeSense, wce_is_the_units_write_cache_in_current_and_default_and_changeable_where_it_is_set) {
    for (const WriteCache cache : {WriteCache::kVolatile, WriteCache::kNone}) {
        ScsiBench bench({.write_cache = cache});
        const unsigned wce = cache == WriteCache::kVolatile ? 0x04 : 0x00;
        EXPECT_EQ(bench.send({0x1a, 0x08, 0x08, 0, 255}).at(6), wce);
        EXPECT_EQ(bench.send({0x1a, 0x08, 0x88, 0, 255}).at(6), wce);
        const Answer changeable = bench.send({0x1a, 0x08, 0x7f, 0, 255});
        EXPECT_EQ(changeable.number(4, 2), 0x010aU);
        EXPECT_EQ(changeable.number(16, 2), 0x0812U);
        EXPECT_EQ(changeable.at(18), wce);
        EXPECT_EQ(std::ranges::count(ConstBytes(changeable.data).subspan(19, 17), std::byte{0}), 17);
        EXPECT_EQ(changeable.at(38), 0x04U) << "D_SENSE";
        EXPECT_EQ(changeable.at(40), 0x08U) << "SWP";
    }
}

TEST(ModeSense, unknown_pages_and_subpages_and_saved_values_are_refused) {
    ScsiBench bench;
    for (const unsigned page : {0x00U, 0x02U, 0x03U, 0x19U, 0x3eU}) {
        EXPECT_EQ(bench.send({0x1a, 0, page, 0, 255}).sense, kField) << page;
    }
    EXPECT_EQ(bench.send({0x1a, 0, 0x0a, 0x01, 255}).sense, kField);
    EXPECT_EQ(bench.send({0x1a, 0, 0xc8, 0, 255}).sense, (SenseCode{SenseKey::kIllegalRequest, 0x39, 0x00}));
    EXPECT_EQ(bench.send({0x1a, 0x10, 0x08, 0, 255}).sense, kField);  // LLBAA only in the ten-byte form
}

TEST(ReportLuns, lists_the_units_of_the_session_in_wire_format) {
    ScsiBench bench;
    const Answer all = bench.send({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0});
    ASSERT_EQ(all.data.size(), 32U);
    EXPECT_EQ(all.number(0, 4), 24U);
    EXPECT_EQ(all.number(16, 8), 0x0001'0000'0000'0000ULL);
    EXPECT_EQ(all.number(24, 8), 0x412c'0000'0000'0000ULL);  // flat space addressing of 300
    EXPECT_EQ(bench.send({0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0}).data.size(), 8U);
    EXPECT_EQ(bench.send({0xa0, 0, 2, 0, 0, 0, 0, 0, 1, 0}).data.size(), 32U);
    EXPECT_EQ(bench.send({0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0}).sense, kField);
    bench.luns.resize(2000);
    EXPECT_EQ(bench.send({0xa0, 0, 0, 0, 0, 0, 0, 1, 0, 0}).data.size(), 2000U * 8 + 8);
}

TEST(Lun, numbers_go_to_the_wire_and_back_and_other_addressing_is_nobody) {
    for (const std::uint64_t lun : {0ULL, 1ULL, 255ULL, 256ULL, 16383ULL}) {
        EXPECT_EQ(decode_lun(encode_lun(lun)), lun);
    }
    EXPECT_EQ(decode_lun(0x4001'0000'0000'0000ULL), 1U);  // flat space below 256
    for (const std::uint64_t field : {0x0100'0000'0000'0000ULL, 0x8000'0000'0000'0000ULL, 0xc101'0000'0000'0000ULL,
                                      0x0000'0000'0000'0001ULL, 0x0001'0001'0000'0000ULL, ~0ULL}) {
        EXPECT_FALSE(decode_lun(field).has_value()) << field;
    }
}

TEST(RequestSense, hands_a_pending_attention_over_and_forgets_it_and_honours_desc) {
    ScsiBench bench;
    bench.unit.raise_all(Attention::kCapacityChanged);
    const Answer fixed = bench.send({0x03, 0, 0, 0, 252});
    ASSERT_EQ(fixed.data.size(), 18U);
    EXPECT_EQ(fixed.status, Status::kGood);
    EXPECT_EQ(fixed.at(2), 0x06U);
    EXPECT_EQ(fixed.number(12, 2), 0x2a09U);
    const Answer none = bench.send({0x03, 1, 0, 0, 252});
    EXPECT_EQ(none.number(0, 8), 0x7200'0000'0000'0000ULL);
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
}

TEST(AllocationLength, every_command_that_has_one_is_cut_to_it_and_says_so) {
    struct Row {
        const char* name;
        Cdb cdb;
        std::size_t field;
        std::size_t bytes;
    };
    const std::vector<Row> rows{{"INQUIRY", cdb_of({0x12}), 3, 2},
                                {"VPD 83", cdb_of({0x12, 1, 0x83}), 3, 2},
                                {"VPD B0", cdb_of({0x12, 1, 0xb0}), 3, 2},
                                {"REQUEST SENSE", cdb_of({0x03}), 4, 1},
                                {"MODE SENSE(6)", cdb_of({0x1a, 0, 0x3f}), 4, 1},
                                {"MODE SENSE(10)", cdb_of({0x5a, 0, 0x3f}), 7, 2},
                                {"READ CAPACITY(16)", cdb_of({0x9e, 0x10}), 10, 4},
                                {"REPORT LUNS", cdb_of({0xa0}), 6, 4},
                                {"RSOC", cdb_of({0xa3, 0x0c}), 6, 4},
                                {"RSOC one", cdb_of({0xa3, 0x0c, 1, 0x28}), 6, 4}};
    ScsiBench bench;
    for (const Row& row : rows) {
        const auto with_length = [&](std::uint64_t length) {
            Cdb cdb = row.cdb;
            for (std::size_t i = 0; i < row.bytes; ++i) {
                cdb[row.field + row.bytes - 1 - i] = static_cast<std::byte>(length >> 8U * i);
            }
            return cdb;
        };
        const Answer whole = bench.send(with_length(row.bytes == 1 ? 255 : 65535));
        ASSERT_GT(whole.data.size(), 5U) << row.name;
        EXPECT_EQ(whole.transfer_bytes, whole.data.size());
        for (const std::size_t length : {0U, 1U, 3U, 5U, 7U}) {
            const Answer cut = bench.send(with_length(length));
            EXPECT_EQ(cut.status, Status::kGood) << row.name;
            EXPECT_TRUE(std::ranges::equal(cut.data, ConstBytes(whole.data).first(std::min(length, whole.data.size()))))
                << row.name << ' ' << length;
            EXPECT_EQ(cut.transfer_bytes, length);
            const Answer small = bench.send(with_length(7), {.data_in_capacity = length});
            EXPECT_EQ(small.data.size(), length) << row.name;
            EXPECT_EQ(small.transfer_bytes, 7U);
        }
        if (row.bytes == 4) {
            const Answer huge = bench.send(with_length(0xffff'ffff));
            EXPECT_EQ(huge.data, whole.data) << row.name;
        }
    }
}

TEST(TestUnitReady, asks_the_device_whether_the_medium_can_be_reached) {
    ScsiBench bench;
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
    EXPECT_EQ(bench.device.reads, 1);
    bench.device.unreadable = {0};
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
    for (const Errc code : {Errc::kStandby, Errc::kNotReady, Errc::kDeviceGone, Errc::kStaleTerm}) {
        bench.device.error = code;
        EXPECT_EQ(bench.send({0x00}).sense, answer_for(code).sense);
        EXPECT_EQ(bench.send({0x12, 0, 0, 0, 96}).status, Status::kGood) << "INQUIRY always works";
    }
    ScsiBench large({.block_bytes = 4096}, {.alignment_sectors = 8});
    EXPECT_EQ(large.send({0x00}).status, Status::kGood);
}

TEST(StartStopUnit, stopping_makes_durable_and_takes_the_unit_from_nobody) {
    struct Row {
        unsigned byte4;
        int flushes;
        bool good;
    };
    for (const Row& row : {Row{0x00, 1, true}, Row{0x01, 0, true}, Row{0x04, 0, true}, Row{0x30, 0, true},
                           Row{0x02, 0, false}, Row{0x03, 0, false}, Row{0x32, 0, true}}) {
        for (const unsigned immed : {0U, 1U}) {
            ScsiBench bench;
            const Answer answer = bench.send({0x1b, immed, 0, 0, row.byte4});
            EXPECT_EQ(answer.status == Status::kGood, row.good) << row.byte4;
            EXPECT_EQ(bench.device.flushes, row.flushes) << row.byte4;
            EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
        }
    }
    ScsiBench bench;
    bench.device.error = Errc::kIo;
    EXPECT_EQ(bench.send({0x1b}).sense, kInternalTargetFailure);
}

TEST(PreventAllow, is_accepted_with_nothing_to_prevent) {
    ScsiBench bench;
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 0}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 1}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 2}).sense, kField);
}

TEST(NoLun, inquiry_report_luns_and_request_sense_work_and_all_else_is_not_supported) {
    ScsiBench bench;
    const SenseCode no_lun{SenseKey::kIllegalRequest, 0x25, 0x00};
    const Answer inquiry = bench.send_no_lun({0x12, 0, 0, 0, 255});
    EXPECT_EQ(inquiry.at(0), 0x7fU);
    EXPECT_EQ(inquiry.data.size(), 96U);
    EXPECT_EQ(bench.send_no_lun({0x12, 1, 0, 0, 255}).number(0, 5), 0x7f'0000'0100ULL);
    EXPECT_EQ(bench.send_no_lun({0x12, 1, 0x83, 0, 255}).sense, kField);
    EXPECT_EQ(bench.send_no_lun({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}).data.size(), 32U);
    const Answer sense = bench.send_no_lun({0x03, 0, 0, 0, 18});
    EXPECT_EQ(sense.status, Status::kGood);
    EXPECT_EQ(sense.number(12, 2), 0x2500U);
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
        if (opcode != 0x12 && opcode != 0xa0 && opcode != 0x03) {
            EXPECT_EQ(bench.send_no_lun({opcode}).sense, no_lun) << opcode;
        }
    }
}

TEST(Options, what_the_device_cannot_be_shown_as_is_refused_with_a_reason) {
    const DeviceLimits plain{.sectors = SectorCount(64)};
    DeviceLimits native = plain;
    native.alignment_sectors = 8;
    DeviceLimits narrow = plain;
    narrow.max_transfer_bytes = 512;
    EXPECT_TRUE(LogicalUnit::check(plain, {}));
    EXPECT_TRUE(LogicalUnit::check(native, {.block_bytes = 4096}));
    for (const auto& [limits, block] :
         {std::pair(plain, 520U), std::pair(plain, 0U), std::pair(native, 512U), std::pair(narrow, 4096U),
          std::pair(DeviceLimits{.sectors = SectorCount(7)}, 4096U)}) {
        const Result<void> checked = LogicalUnit::check(limits, {.block_bytes = block});
        ASSERT_FALSE(checked);
        EXPECT_EQ(checked.error().code, Errc::kInvalidArgument);
        EXPECT_FALSE(checked.error().message.empty());
    }
}

}  // namespace
}  // namespace gemel::scsi
