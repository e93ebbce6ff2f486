// SPDX-License-Identifier: Apache-2.0
// Sense data formats, and the answer to every Errc.
#include "target/scsi/sense.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace gemel::scsi {
namespace {

std::vector<unsigned> numbers(const SenseBytes& sense) {
    std::vector<unsigned> out;
    for (const std::byte b : sense.view()) {
        out.push_back(std::to_integer<unsigned>(b));
    }
    return out;
}

TEST(Sense, fixed_format_carries_key_codes_information_and_field_pointer) {
    EXPECT_EQ(numbers(encode_sense({.code = kUnrecoveredReadError, .information = 0x01020304}, SenseFormat::kFixed)),
              (std::vector<unsigned>{0xf0, 0, 3, 1, 2, 3, 4, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0}));
    EXPECT_EQ(numbers(encode_sense({.code = kInvalidFieldInCdb, .field = FieldPointer{7, 4}}, SenseFormat::kFixed)),
              (std::vector<unsigned>{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcc, 0, 7}));
}

TEST(Sense, information_beyond_32_bits_is_left_out_of_the_fixed_format) {
    const Sense sense{.code = kUnrecoveredReadError, .information = 0x1'0000'0000ULL};
    EXPECT_EQ(numbers(encode_sense(sense, SenseFormat::kFixed))[0], 0x70U);
    EXPECT_EQ(numbers(encode_sense(sense, SenseFormat::kFixed))[3], 0U);
    EXPECT_EQ(numbers(encode_sense(sense, SenseFormat::kDescriptor)),
              (std::vector<unsigned>{0x72, 3, 0x11, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0}));
}

TEST(Sense, descriptor_format_with_everything_fits) {
    const Sense sense{.code = kInvalidFieldInCdb, .field = FieldPointer{2, 5}, .information = 9};
    const std::vector<unsigned> bytes = numbers(encode_sense(sense, SenseFormat::kDescriptor));
    ASSERT_EQ(bytes.size(), 28U);
    EXPECT_EQ(bytes[7], 20U);
    EXPECT_EQ(bytes[20], 2U);
    EXPECT_EQ(bytes[24], 0xcdU);
    EXPECT_EQ(bytes[26], 2U);
}

TEST(ErrorMapping, every_error_code_has_the_answer_of_the_table) {
    struct Row {
        Errc code;
        Status status;
        SenseCode sense;
    };
    constexpr SenseCode kNone{};
    constexpr SenseCode kHardware{SenseKey::kHardwareError, 0x44, 0x00};
    constexpr SenseCode kManual{SenseKey::kNotReady, 0x04, 0x03};
    constexpr SenseCode kStandbySense{SenseKey::kNotReady, 0x04, 0x0b};
    constexpr SenseCode kAbort{SenseKey::kAbortedCommand, 0x00, 0x00};
    constexpr Status kCheck = Status::kCheckCondition;
    const std::vector<Row> rows{
        {Errc::kInvalidArgument, kCheck, kHardware},
        {Errc::kNotFound, kCheck, kHardware},
        {Errc::kAlreadyExists, kCheck, kHardware},
        {Errc::kBusy, Status::kBusy, kNone},
        {Errc::kRefused, kCheck, kManual},
        {Errc::kOutOfRange, kCheck, {SenseKey::kIllegalRequest, 0x21, 0x00}},
        {Errc::kNoSpace, kCheck, {SenseKey::kDataProtect, 0x27, 0x07}},
        {Errc::kMediumError, kCheck, {SenseKey::kMediumError, 0x11, 0x00}},
        {Errc::kMiscompare, kCheck, {SenseKey::kMiscompare, 0x1d, 0x00}},
        {Errc::kChecksum, kCheck, {SenseKey::kAbortedCommand, 0x47, 0x03}},
        {Errc::kDeviceGone, kCheck, kHardware},
        {Errc::kReadOnly, kCheck, {SenseKey::kDataProtect, 0x27, 0x00}},
        {Errc::kStandby, kCheck, kStandbySense},
        {Errc::kNotReady, kCheck, {SenseKey::kNotReady, 0x04, 0x01}},
        {Errc::kTimedOut, kCheck, kAbort},
        {Errc::kClosed, kCheck, kAbort},
        {Errc::kProtocol, kCheck, kHardware},
        {Errc::kCorrupt, kCheck, kHardware},
        {Errc::kStaleTerm, kCheck, kStandbySense},
        {Errc::kSizeMismatch, kCheck, kHardware},
        {Errc::kUnsupported, kCheck, {SenseKey::kIllegalRequest, 0x20, 0x00}},
        {Errc::kAborted, kCheck, kAbort},
        {Errc::kSplitBrain, kCheck, kManual},
        {Errc::kIo, kCheck, kHardware},
        {Errc::kNeedsForce, kCheck, kManual},
        {Errc::kResources, Status::kBusy, kNone},
    };
    EXPECT_EQ(rows.size(), kErrcTable.size());
    for (const Row& row : rows) {
        EXPECT_EQ(answer_for(row.code).status, row.status) << errc_name(row.code);
        EXPECT_EQ(answer_for(row.code).sense, row.sense) << errc_name(row.code);
    }
    EXPECT_EQ(answer_for(static_cast<Errc>(9999)).sense, kHardware);
}

}  // namespace
}  // namespace gemel::scsi
