// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/sense.hpp"

namespace gemel::scsi {

namespace {

struct ErrorRow {
    Errc code;
    ErrorAnswer answer;
};

constexpr ErrorAnswer check_condition(SenseCode sense) {
    return {Status::kCheckCondition, sense};
}
constexpr ErrorAnswer kBusyAnswer{Status::kBusy, kNoAdditionalSense};

// NOT READY makes a multipath initiator try another path or wait; ABORTED COMMAND makes it repeat; HARDWARE ERROR
// makes it give up.
constexpr std::array kErrorRows{
    ErrorRow{Errc::kInvalidArgument, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kNotFound, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kAlreadyExists, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kBusy, kBusyAnswer},
    ErrorRow{Errc::kRefused, check_condition(kNotReadyManualIntervention)},
    ErrorRow{Errc::kOutOfRange, check_condition(kLbaOutOfRange)},
    ErrorRow{Errc::kNoSpace, check_condition(kSpaceAllocationFailed)},
    ErrorRow{Errc::kMediumError, check_condition(kUnrecoveredReadError)},
    ErrorRow{Errc::kMiscompare, check_condition(kMiscompareDuringVerify)},
    ErrorRow{Errc::kChecksum, check_condition(kInformationUnitCrc)},
    ErrorRow{Errc::kDeviceGone, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kReadOnly, check_condition(kWriteProtected)},
    ErrorRow{Errc::kStandby, check_condition(kNotReadyStandby)},
    ErrorRow{Errc::kNotReady, check_condition(kNotReadyBecoming)},
    ErrorRow{Errc::kTimedOut, check_condition(kCommandAborted)},
    ErrorRow{Errc::kClosed, check_condition(kCommandAborted)},
    ErrorRow{Errc::kProtocol, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kCorrupt, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kStaleTerm, check_condition(kNotReadyStandby)},
    ErrorRow{Errc::kSizeMismatch, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kUnsupported, check_condition(kInvalidOpcode)},
    ErrorRow{Errc::kAborted, check_condition(kCommandAborted)},
    ErrorRow{Errc::kSplitBrain, check_condition(kNotReadyManualIntervention)},
    ErrorRow{Errc::kIo, check_condition(kInternalTargetFailure)},
    ErrorRow{Errc::kNeedsForce, check_condition(kNotReadyManualIntervention)},
    ErrorRow{Errc::kResources, kBusyAnswer},
};

constexpr bool every_code_has_an_answer() {
    for (const ErrcRow& code : kErrcTable) {
        if (std::ranges::count(kErrorRows, code.code, &ErrorRow::code) != 1) {
            return false;
        }
    }
    return true;
}
static_assert(every_code_has_an_answer());

/// Sense key specific bytes of a field pointer: SKSV, C/D, BPV, the bit, the byte (SPC-4 4.5.2.4.2).
void put_field_pointer(std::byte* to, FieldPointer field) {
    const std::byte of_cdb = field.in_parameters ? std::byte{0} : std::byte{0x40};
    to[0] = std::byte{0x88} | of_cdb | std::byte{static_cast<unsigned char>(field.bit & 7U)};
    store_be<std::uint16_t>(to + 1, field.byte);
}

SenseBytes encode_fixed(const Sense& sense) {
    SenseBytes out;
    std::byte* const b = out.bytes.data();
    b[0] = std::byte{0x70};
    if (sense.information && *sense.information <= 0xffff'ffffU) {
        b[0] |= std::byte{0x80};  // VALID
        store_be(b + 3, static_cast<std::uint32_t>(*sense.information));
    }
    b[2] = static_cast<std::byte>(sense.code.key);
    b[7] = std::byte{10};  // 18 bytes in all
    b[12] = std::byte{sense.code.asc};
    b[13] = std::byte{sense.code.ascq};
    if (sense.field) {
        put_field_pointer(b + 15, *sense.field);
    }
    out.size = 18;
    return out;
}

SenseBytes encode_descriptors(const Sense& sense) {
    SenseBytes out;
    std::byte* const b = out.bytes.data();
    b[0] = std::byte{0x72};
    b[1] = static_cast<std::byte>(sense.code.key);
    b[2] = std::byte{sense.code.asc};
    b[3] = std::byte{sense.code.ascq};
    out.size = 8;
    if (sense.information) {
        b[out.size] = std::byte{0x00};      // information descriptor
        b[out.size + 1] = std::byte{0x0a};  // 10 more bytes
        b[out.size + 2] = std::byte{0x80};  // VALID
        store_be(b + out.size + 4, *sense.information);
        out.size = static_cast<std::uint8_t>(out.size + 12);
    }
    if (sense.field) {
        b[out.size] = std::byte{0x02};  // sense key specific descriptor
        b[out.size + 1] = std::byte{0x06};
        put_field_pointer(b + out.size + 4, *sense.field);
        out.size = static_cast<std::uint8_t>(out.size + 8);
    }
    b[7] = static_cast<std::byte>(out.size - 8);
    return out;
}

}  // namespace

SenseBytes encode_sense(const Sense& sense, SenseFormat format) {
    return format == SenseFormat::kFixed ? encode_fixed(sense) : encode_descriptors(sense);
}

ErrorAnswer answer_for(Errc code) {
    const auto* row = std::ranges::find(kErrorRows, code, &ErrorRow::code);
    return row != kErrorRows.end() ? row->answer : check_condition(kInternalTargetFailure);
}

}  // namespace gemel::scsi
