// SPDX-License-Identifier: Apache-2.0
// MODE SELECT and what it changes; removable media.
#include <gtest/gtest.h>

#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};
constexpr SenseCode kParameter{SenseKey::kIllegalRequest, 0x26, 0x00};
constexpr SenseCode kLength{SenseKey::kIllegalRequest, 0x1a, 0x00};
constexpr SenseCode kModeChanged{SenseKey::kUnitAttention, 0x2a, 0x01};
constexpr SenseCode kNoMedium{SenseKey::kNotReady, 0x3a, 0x00};

constexpr std::initializer_list<unsigned> kControl{0x0a, 0x0a, 0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0};
constexpr std::initializer_list<unsigned> kCaching{0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

std::vector<std::byte> bytes_from(std::initializer_list<unsigned> values) {
    std::vector<std::byte> out;
    for (const unsigned v : values) {
        out.push_back(static_cast<std::byte>(v));
    }
    return out;
}

/// A parameter list of MODE SELECT(6) with one page, of which byte `at` is changed by `mask`.
std::vector<std::byte> list_of(std::initializer_list<unsigned> page, std::size_t at = 0, unsigned mask = 0) {
    std::vector<std::byte> out(4);
    const std::vector<std::byte> body = bytes_from(page);
    out.insert(out.end(), body.begin(), body.end());
    out[4 + at] ^= static_cast<std::byte>(mask);
    return out;
}

Answer select6(ScsiBench& bench, std::vector<std::byte> list, unsigned flags = 0x10, ItlNexus* nexus = nullptr) {
    return bench.send({0x15, flags, 0, 0, static_cast<unsigned>(list.size())},
                      {.data_out = std::move(list), .nexus = nexus});
}

TEST(ModeSelect, software_write_protection_keeps_writes_out_until_it_is_taken_back) {
    ScsiBench bench;
    const auto second = bench.attach("second");
    EXPECT_EQ(select6(bench, list_of(kControl, 4, 0x08)).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}, {.nexus = second.get()}).sense, kModeChanged) << "others are told";
    EXPECT_EQ(bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).sense, kWriteProtected);
    EXPECT_EQ(bench.send({0x1a, 0x08, 0x0a, 0, 255}).at(2) & 0x80U, 0x80U) << "WP";
    EXPECT_EQ(bench.send({0x1a, 0x08, 0x8a, 0, 255}).at(8) & 0x08U, 0U) << "not the default";
    EXPECT_EQ(bench.send({0x28, 0, 0, 0, 0, 0, 0, 0, 1}).status, Status::kGood);
    EXPECT_EQ(select6(bench, list_of(kControl)).status, Status::kGood);
    EXPECT_EQ(bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).status, Status::kGood);
}

TEST(ModeSelect, the_write_cache_can_be_turned_off_but_not_on_against_the_configuration) {
    ScsiBench bench;
    EXPECT_EQ(select6(bench, list_of(kCaching)).status, Status::kGood);
    EXPECT_EQ(bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).status, Status::kGood);
    EXPECT_TRUE(bench.device.last_fua);
    bench.unit.reset();
    EXPECT_EQ(bench.send({0x00}).sense.asc, 0x29) << "the reset's attention";
    EXPECT_EQ(bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).status, Status::kGood);
    EXPECT_FALSE(bench.device.last_fua) << "a reset brings the defaults back";
    ScsiBench through({.write_cache = WriteCache::kNone});
    EXPECT_EQ(select6(through, list_of(kCaching, 2, 0x04)).sense, kParameter);
}

TEST(ModeSelect, sense_data_is_in_the_format_that_was_chosen) {
    ScsiBench bench;
    EXPECT_EQ(bench.unit.sense_format(), SenseFormat::kFixed);
    EXPECT_EQ(select6(bench, list_of(kControl, 2, 0x04)).status, Status::kGood);
    EXPECT_EQ(bench.unit.sense_format(), SenseFormat::kDescriptor);
}

TEST(ModeSelect, a_list_with_anything_wrong_changes_nothing) {
    ScsiBench bench;
    const std::uint8_t before = bench.unit.mode().flags();
    std::vector<std::byte> two = list_of(kControl, 4, 0x08);
    const std::vector<std::byte> bad = bytes_from({0x1c, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    two.insert(two.end(), bad.begin(), bad.end());
    const Answer answer = select6(bench, two);
    EXPECT_EQ(answer.sense, kParameter) << "DEXCPT cannot be changed";
    EXPECT_EQ(std::to_integer<unsigned>(answer.raw_sense[15]), 0x8fU) << "a parameter's field, not the CDB's";
    EXPECT_EQ(load_be<std::uint16_t>(&answer.raw_sense[16]), 18U);
    EXPECT_EQ(select6(bench, list_of({0x0a, 0x09, 0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0})).sense, kParameter);
    EXPECT_EQ(select6(bench, list_of({0x3f, 0x0a})).sense, kParameter);
    EXPECT_EQ(select6(bench, list_of({0x0a, 0x0a, 0x02})).sense, kLength);
    EXPECT_EQ(select6(bench, std::vector<std::byte>(3)).sense, kLength);
    EXPECT_EQ(select6(bench, list_of(kControl, 4, 0x08), 0x11).sense, kField) << "SP";
    EXPECT_EQ(select6(bench, list_of(kControl, 4, 0x08), 0x00).sense, kField) << "PF";
    EXPECT_EQ(bench.unit.mode().flags(), before);
    EXPECT_EQ(bench.send({0x15, 0x10}).status, Status::kGood) << "no list";
}

TEST(ModeSelect, a_block_descriptor_must_say_what_is) {
    for (const bool right : {true, false}) {
        ScsiBench bench;
        std::vector<std::byte> list(8 + 8);
        list[7] = std::byte{8};
        store_be(list.data() + 12, right ? 512U : 4096U);
        const std::vector<std::byte> page = bytes_from(kControl);
        list.insert(list.end(), page.begin(), page.end());
        Cdb cdb = cdb_of({0x55, 0x10, 0, 0, 0, 0, 0, 0, static_cast<unsigned>(list.size())});
        EXPECT_EQ(bench.send(cdb, {.data_out = list}).status == Status::kGood, right);
    }
}

TEST(Removable, the_medium_is_ejected_and_loaded_and_held_by_whoever_prevents_it) {
    ScsiBench bench({.removable = true});
    const auto second = bench.attach("second");
    EXPECT_EQ(bench.send({0x12, 0, 0, 0, 96}).at(1), 0x80U) << "RMB";
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 1}, {.nexus = second.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 2}).sense, kMediumRemovalPrevented);
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 0}, {.nexus = second.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 2}).status, Status::kGood);
    EXPECT_EQ(bench.device.flushes, 1);
    for (const unsigned opcode : {0x00U, 0x25U, 0x28U, 0x35U, 0x2fU}) {
        EXPECT_EQ(bench.send({opcode}).sense, kNoMedium) << opcode;
    }
    EXPECT_EQ(bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)}).sense, kNoMedium);
    EXPECT_EQ(bench.device.writes, 0);
    EXPECT_EQ(bench.send({0x12, 0, 0, 0, 96}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 3}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}, {.nexus = second.get()}).sense, (SenseCode{SenseKey::kUnitAttention, 0x28, 0x00}));
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
}

TEST(Removable, a_reset_and_the_end_of_a_nexus_end_its_prevention) {
    ScsiBench bench({.removable = true});
    auto second = bench.attach("second");
    bench.send({0x1e, 0, 0, 0, 1}, {.nexus = second.get()});
    second.reset();
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 2}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 3}).status, Status::kGood);
    bench.send({0x1e, 0, 0, 0, 1});
    bench.unit.reset();
    bench.send({0x00});
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 2}).status, Status::kGood);
}

}  // namespace
}  // namespace gemel::scsi
