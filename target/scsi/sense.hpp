// SPDX-License-Identifier: Apache-2.0
// Sense data: why a command failed, in SCSI's words, and the one place where an Errc becomes one of them.
// Threads: any; plain values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "gemel/bytes.hpp"
#include "gemel/error.hpp"

namespace gemel::scsi {

/// Status byte (SAM-5 5.3.1).
enum class Status : std::uint8_t {
    kGood = 0x00,
    kCheckCondition = 0x02,
    kConditionMet = 0x04,
    kBusy = 0x08,
    kReservationConflict = 0x18,
    kTaskSetFull = 0x28,
    kTaskAborted = 0x40,
};

/// SPC-4 4.5.6.
enum class SenseKey : std::uint8_t {
    kNoSense = 0x0,
    kRecoveredError = 0x1,
    kNotReady = 0x2,
    kMediumError = 0x3,
    kHardwareError = 0x4,
    kIllegalRequest = 0x5,
    kUnitAttention = 0x6,
    kDataProtect = 0x7,
    kAbortedCommand = 0xb,
    kMiscompare = 0xe,
};

/// Sense key, additional sense code and its qualifier.
struct SenseCode {
    SenseKey key = SenseKey::kNoSense;
    std::uint8_t asc = 0;
    std::uint8_t ascq = 0;
    friend bool operator==(const SenseCode&, const SenseCode&) = default;
};

inline constexpr SenseCode kNoAdditionalSense{};
inline constexpr SenseCode kNotReadyBecoming{SenseKey::kNotReady, 0x04, 0x01};
inline constexpr SenseCode kNotReadyStandby{SenseKey::kNotReady, 0x04, 0x0b};
inline constexpr SenseCode kNotReadyManualIntervention{SenseKey::kNotReady, 0x04, 0x03};
inline constexpr SenseCode kMediumNotPresent{SenseKey::kNotReady, 0x3a, 0x00};
inline constexpr SenseCode kUnrecoveredReadError{SenseKey::kMediumError, 0x11, 0x00};
inline constexpr SenseCode kInternalTargetFailure{SenseKey::kHardwareError, 0x44, 0x00};
inline constexpr SenseCode kParameterListLength{SenseKey::kIllegalRequest, 0x1a, 0x00};
inline constexpr SenseCode kInvalidOpcode{SenseKey::kIllegalRequest, 0x20, 0x00};
inline constexpr SenseCode kLbaOutOfRange{SenseKey::kIllegalRequest, 0x21, 0x00};
inline constexpr SenseCode kInvalidFieldInCdb{SenseKey::kIllegalRequest, 0x24, 0x00};
inline constexpr SenseCode kLunNotSupported{SenseKey::kIllegalRequest, 0x25, 0x00};
inline constexpr SenseCode kInvalidFieldInParameters{SenseKey::kIllegalRequest, 0x26, 0x00};
inline constexpr SenseCode kInvalidRelease{SenseKey::kIllegalRequest, 0x26, 0x04};
inline constexpr SenseCode kInsufficientRegistrationResources{SenseKey::kIllegalRequest, 0x55, 0x04};
inline constexpr SenseCode kSavingParametersNotSupported{SenseKey::kIllegalRequest, 0x39, 0x00};
inline constexpr SenseCode kMediumRemovalPrevented{SenseKey::kIllegalRequest, 0x53, 0x02};
inline constexpr SenseCode kWriteProtected{SenseKey::kDataProtect, 0x27, 0x00};
inline constexpr SenseCode kSpaceAllocationFailed{SenseKey::kDataProtect, 0x27, 0x07};
inline constexpr SenseCode kInformationUnitCrc{SenseKey::kAbortedCommand, 0x47, 0x03};
inline constexpr SenseCode kCommandAborted{SenseKey::kAbortedCommand, 0x00, 0x00};
inline constexpr SenseCode kMiscompareDuringVerify{SenseKey::kMiscompare, 0x1d, 0x00};

/// The bit of the CDB, or of the parameter list, that is wrong (SPC-4 4.5.2.4.2, sense key specific field pointer).
struct FieldPointer {
    std::uint16_t byte = 0;
    std::uint8_t bit = 7;  ///< leftmost bit in error, 0..7
    bool in_parameters = false;
};

/// Why a command ends with CHECK CONDITION.
struct Sense {
    SenseCode code;
    std::optional<FieldPointer> field;         ///< only with kInvalidFieldInCdb and kInvalidFieldInParameters
    std::optional<std::uint64_t> information;  ///< first bad LBA in the LUN's blocks, or the offset of a miscompare
};

/// Sense data as it goes to the initiator.
struct SenseBytes {
    std::array<std::byte, 32> bytes{};
    std::uint8_t size = 0;
    [[nodiscard]] ConstBytes view() const { return ConstBytes(bytes).first(size); }
};

/// Fixed format (response code 70h, 18 bytes) unless the initiator asked for descriptor format (72h). `information`
/// that does not fit in the 32 bits of the fixed format is left out (SPC-4 4.5.2, 4.5.3).
enum class SenseFormat : std::uint8_t { kFixed, kDescriptor };
SenseBytes encode_sense(const Sense& sense, SenseFormat format);

/// How a failed device operation is told to the initiator.
struct ErrorAnswer {
    Status status = Status::kCheckCondition;
    SenseCode sense;
};
/// Total over Errc: every code has an answer.
ErrorAnswer answer_for(Errc code);

}  // namespace gemel::scsi
