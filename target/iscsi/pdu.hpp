// SPDX-License-Identifier: Apache-2.0
// The basic header segments of iSCSI (RFC 7143 §11), one struct per PDU. Each struct lists its fields with their
// offsets once; encode() and decode() both follow that list. All numbers are big-endian on the wire.
//
// Invariants:
//   D1  decode() never fails: every 48 bytes are some header. Whether the header makes sense in this phase is decided
//   by
//       opcode_rows and by the handler.
// Threads: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"

namespace gemel::iscsi {

inline constexpr std::size_t kBhsBytes = 48;
inline constexpr std::size_t kMaxAhsBytes = 255 * 4;
inline constexpr std::size_t kDigestBytes = 4;
inline constexpr std::uint32_t kReservedTag = 0xffffffffU;  ///< "no task", "no transfer"

using BhsBytes = std::array<std::byte, kBhsBytes>;

enum class Opcode : std::uint8_t {
    kNopOut = 0x00,
    kScsiCommand = 0x01,
    kTaskManagementRequest = 0x02,
    kLoginRequest = 0x03,
    kTextRequest = 0x04,
    kDataOut = 0x05,
    kLogoutRequest = 0x06,
    kSnackRequest = 0x10,
    kNopIn = 0x20,
    kScsiResponse = 0x21,
    kTaskManagementResponse = 0x22,
    kLoginResponse = 0x23,
    kTextResponse = 0x24,
    kDataIn = 0x25,
    kLogoutResponse = 0x26,
    kReadyToTransfer = 0x31,
    kAsyncMessage = 0x32,
    kReject = 0x3f,
};

/// RFC 7143 §11.17.1.
enum class RejectReason : std::uint8_t {
    kDataDigestError = 0x02,
    kSnackReject = 0x03,
    kProtocolError = 0x04,
    kCommandNotSupported = 0x05,
    kTooManyImmediateCommands = 0x06,
    kTaskInProgress = 0x07,
    kInvalidPduField = 0x09,
    kOutOfResources = 0x0a,
};

// Bits of the flags byte (byte 1).
inline constexpr std::uint8_t kFinal = 0x80;           ///< F of every PDU, T of Login
inline constexpr std::uint8_t kContinue = 0x40;        ///< C of Login and Text
inline constexpr std::uint8_t kCommandRead = 0x40;     ///< SCSI Command: R
inline constexpr std::uint8_t kCommandWrite = 0x20;    ///< SCSI Command: W
inline constexpr std::uint8_t kCommandAttributes = 7;  ///< SCSI Command: ATTR
inline constexpr std::uint8_t kResidualOverflow = 0x04;
inline constexpr std::uint8_t kResidualUnderflow = 0x02;
inline constexpr std::uint8_t kDataInStatus = 0x01;  ///< Data-In: S

/// What every PDU has. `flags` is byte 1 whole.
struct PduHead {
    bool immediate = false;
    std::uint8_t flags = kFinal;
    std::uint8_t ahs_words = 0;     ///< TotalAHSLength
    std::uint32_t data_length = 0;  ///< DataSegmentLength, 24 bits
    std::uint32_t initiator_task_tag = kReservedTag;
    friend bool operator==(const PduHead&, const PduHead&) = default;
};

// Below, `fields` hands every further field with its offset to the visitor.
#define GEMEL_PDU(opcode_, ...)                              \
    static constexpr Opcode kOpcode = Opcode::opcode_;       \
    template <class Self, class Visitor>                     \
    static constexpr void fields(Self& p, Visitor&& field) { \
        __VA_ARGS__                                          \
    }

struct NopOut : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    GEMEL_PDU(kNopOut, field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.cmd_sn);
              field(28, p.exp_stat_sn);)
    friend bool operator==(const NopOut&, const NopOut&) = default;
};

struct ScsiCommandPdu : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t expected_data_transfer_length = 0;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    std::array<std::byte, 16> cdb{};
    GEMEL_PDU(kScsiCommand, field(8, p.lun); field(20, p.expected_data_transfer_length); field(24, p.cmd_sn);
              field(28, p.exp_stat_sn); field(32, p.cdb);)
    friend bool operator==(const ScsiCommandPdu&, const ScsiCommandPdu&) = default;
};

struct TaskManagementRequest : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t referenced_task_tag = kReservedTag;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    std::uint32_t ref_cmd_sn = 0;
    std::uint32_t exp_data_sn = 0;
    GEMEL_PDU(kTaskManagementRequest, field(8, p.lun); field(20, p.referenced_task_tag); field(24, p.cmd_sn);
              field(28, p.exp_stat_sn); field(32, p.ref_cmd_sn); field(36, p.exp_data_sn);)
    [[nodiscard]] std::uint8_t function() const { return flags & 0x7fU; }
    friend bool operator==(const TaskManagementRequest&, const TaskManagementRequest&) = default;
};

struct LoginRequest : PduHead {
    std::uint8_t version_max = 0;
    std::uint8_t version_min = 0;
    std::array<std::byte, 6> isid{};
    std::uint16_t tsih = 0;
    std::uint16_t connection_id = 0;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    GEMEL_PDU(kLoginRequest, field(2, p.version_max); field(3, p.version_min); field(8, p.isid); field(14, p.tsih);
              field(20, p.connection_id); field(24, p.cmd_sn); field(28, p.exp_stat_sn);)
    [[nodiscard]] std::uint8_t current_stage() const { return (flags >> 2U) & 3U; }
    [[nodiscard]] std::uint8_t next_stage() const { return flags & 3U; }
    friend bool operator==(const LoginRequest&, const LoginRequest&) = default;
};

struct TextRequest : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    GEMEL_PDU(kTextRequest, field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.cmd_sn);
              field(28, p.exp_stat_sn);)
    friend bool operator==(const TextRequest&, const TextRequest&) = default;
};

struct DataOut : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t exp_stat_sn = 0;
    std::uint32_t data_sn = 0;
    std::uint32_t buffer_offset = 0;
    GEMEL_PDU(kDataOut, field(8, p.lun); field(20, p.target_transfer_tag); field(28, p.exp_stat_sn);
              field(36, p.data_sn); field(40, p.buffer_offset);)
    friend bool operator==(const DataOut&, const DataOut&) = default;
};

struct LogoutRequest : PduHead {
    std::uint16_t connection_id = 0;
    std::uint32_t cmd_sn = 0;
    std::uint32_t exp_stat_sn = 0;
    GEMEL_PDU(kLogoutRequest, field(20, p.connection_id); field(24, p.cmd_sn); field(28, p.exp_stat_sn);)
    [[nodiscard]] std::uint8_t reason() const { return flags & 0x7fU; }
    friend bool operator==(const LogoutRequest&, const LogoutRequest&) = default;
};

struct SnackRequest : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t exp_stat_sn = 0;
    std::uint32_t beg_run = 0;
    std::uint32_t run_length = 0;
    GEMEL_PDU(kSnackRequest, field(8, p.lun); field(20, p.target_transfer_tag); field(28, p.exp_stat_sn);
              field(40, p.beg_run); field(44, p.run_length);)
    friend bool operator==(const SnackRequest&, const SnackRequest&) = default;
};

/// Numbers that the sender fills into every PDU of the target at the moment it is sent (S2 in sender.hpp).
struct TargetNumbers {
    std::uint32_t stat_sn = 0;
    std::uint32_t exp_cmd_sn = 0;
    std::uint32_t max_cmd_sn = 0;
    friend bool operator==(const TargetNumbers&, const TargetNumbers&) = default;
};

struct NopIn : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    TargetNumbers numbers;
    GEMEL_PDU(kNopIn, field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.numbers);)
    friend bool operator==(const NopIn&, const NopIn&) = default;
};

struct ScsiResponse : PduHead {
    std::uint8_t response = 0;  ///< 0: command completed at target
    std::uint8_t status = 0;
    TargetNumbers numbers;
    std::uint32_t exp_data_sn = 0;  ///< number of Data-In and R2T PDUs sent for the command
    std::uint32_t residual_count = 0;
    GEMEL_PDU(kScsiResponse, field(2, p.response); field(3, p.status); field(24, p.numbers); field(36, p.exp_data_sn);
              field(44, p.residual_count);)
    friend bool operator==(const ScsiResponse&, const ScsiResponse&) = default;
};

struct TaskManagementResponse : PduHead {
    std::uint8_t response = 0;
    TargetNumbers numbers;
    GEMEL_PDU(kTaskManagementResponse, field(2, p.response); field(24, p.numbers);)
    friend bool operator==(const TaskManagementResponse&, const TaskManagementResponse&) = default;
};

struct LoginResponse : PduHead {
    std::uint8_t version_max = 0;
    std::uint8_t version_active = 0;
    std::array<std::byte, 6> isid{};
    std::uint16_t tsih = 0;
    TargetNumbers numbers;
    std::uint8_t status_class = 0;
    std::uint8_t status_detail = 0;
    GEMEL_PDU(kLoginResponse, field(2, p.version_max); field(3, p.version_active); field(8, p.isid); field(14, p.tsih);
              field(24, p.numbers); field(36, p.status_class); field(37, p.status_detail);)
    friend bool operator==(const LoginResponse&, const LoginResponse&) = default;
};

struct TextResponse : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    TargetNumbers numbers;
    GEMEL_PDU(kTextResponse, field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.numbers);)
    friend bool operator==(const TextResponse&, const TextResponse&) = default;
};

struct DataIn : PduHead {
    std::uint8_t status = 0;
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    TargetNumbers numbers;
    std::uint32_t data_sn = 0;
    std::uint32_t buffer_offset = 0;
    std::uint32_t residual_count = 0;
    GEMEL_PDU(kDataIn, field(3, p.status); field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.numbers);
              field(36, p.data_sn); field(40, p.buffer_offset); field(44, p.residual_count);)
    friend bool operator==(const DataIn&, const DataIn&) = default;
};

struct LogoutResponse : PduHead {
    std::uint8_t response = 0;
    TargetNumbers numbers;
    std::uint16_t time2wait = 0;
    std::uint16_t time2retain = 0;
    GEMEL_PDU(kLogoutResponse, field(2, p.response); field(24, p.numbers); field(40, p.time2wait);
              field(42, p.time2retain);)
    friend bool operator==(const LogoutResponse&, const LogoutResponse&) = default;
};

struct ReadyToTransfer : PduHead {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = 0;
    TargetNumbers numbers;
    std::uint32_t r2t_sn = 0;
    std::uint32_t buffer_offset = 0;
    std::uint32_t desired_length = 0;
    GEMEL_PDU(kReadyToTransfer, field(8, p.lun); field(20, p.target_transfer_tag); field(24, p.numbers);
              field(36, p.r2t_sn); field(40, p.buffer_offset); field(44, p.desired_length);)
    friend bool operator==(const ReadyToTransfer&, const ReadyToTransfer&) = default;
};

struct AsyncMessage : PduHead {
    std::uint64_t lun = 0;
    TargetNumbers numbers;
    std::uint8_t event = 0;
    std::uint8_t vendor_code = 0;
    std::uint16_t parameter1 = 0;
    std::uint16_t parameter2 = 0;
    std::uint16_t parameter3 = 0;
    GEMEL_PDU(kAsyncMessage, field(8, p.lun); field(24, p.numbers); field(36, p.event); field(37, p.vendor_code);
              field(38, p.parameter1); field(40, p.parameter2); field(42, p.parameter3);)
    friend bool operator==(const AsyncMessage&, const AsyncMessage&) = default;
};

struct Reject : PduHead {
    std::uint8_t reason = 0;
    TargetNumbers numbers;
    std::uint32_t data_sn = 0;
    GEMEL_PDU(kReject, field(2, p.reason); field(24, p.numbers); field(36, p.data_sn);)
    friend bool operator==(const Reject&, const Reject&) = default;
};

#undef GEMEL_PDU

namespace detail {

struct FieldReader {
    const std::byte* bhs;
    template <std::unsigned_integral T>
    constexpr void operator()(std::size_t at, T& value) const {
        value = load_be<T>(bhs + at);
    }
    template <std::size_t N>
    void operator()(std::size_t at, std::array<std::byte, N>& value) const {
        std::memcpy(value.data(), bhs + at, N);
    }
    void operator()(std::size_t at, TargetNumbers& n) const {
        n = {load_be<std::uint32_t>(bhs + at), load_be<std::uint32_t>(bhs + at + 4),
             load_be<std::uint32_t>(bhs + at + 8)};
    }
};

struct FieldWriter {
    std::byte* bhs;
    template <std::unsigned_integral T>
    constexpr void operator()(std::size_t at, const T& value) const {
        store_be<T>(bhs + at, value);
    }
    template <std::size_t N>
    void operator()(std::size_t at, const std::array<std::byte, N>& value) const {
        std::memcpy(bhs + at, value.data(), N);
    }
    void operator()(std::size_t at, const TargetNumbers& n) const {
        store_be(bhs + at, n.stat_sn);
        store_be(bhs + at + 4, n.exp_cmd_sn);
        store_be(bhs + at + 8, n.max_cmd_sn);
    }
};

}  // namespace detail

/// The opcode field without the immediate bit; may be a value that Opcode does not name.
inline std::uint8_t raw_opcode(const std::byte* bhs) {
    return std::to_integer<std::uint8_t>(bhs[0]) & 0x3fU;
}

inline PduHead decode_head(const std::byte* bhs) {
    return {(std::to_integer<std::uint8_t>(bhs[0]) & 0x40U) != 0, std::to_integer<std::uint8_t>(bhs[1]),
            std::to_integer<std::uint8_t>(bhs[4]), load_be<std::uint32_t>(bhs + 4) & 0xffffffU,
            load_be<std::uint32_t>(bhs + 16)};
}

/// REQUIRES: 48 bytes at `bhs`.
template <class Pdu>
Pdu decode(const std::byte* bhs) {
    Pdu p;
    static_cast<PduHead&>(p) = decode_head(bhs);
    Pdu::fields(p, detail::FieldReader{bhs});
    return p;
}

/// REQUIRES: 48 bytes at `bhs`, data_length < 2^24.
template <class Pdu>
void encode_to(const Pdu& p, std::byte* bhs) {
    std::memset(bhs, 0, kBhsBytes);
    bhs[0] = static_cast<std::byte>(static_cast<std::uint8_t>(Pdu::kOpcode) | (p.immediate ? 0x40U : 0U));
    bhs[1] = static_cast<std::byte>(p.flags);
    store_be(bhs + 4, (static_cast<std::uint32_t>(p.ahs_words) << 24U) | p.data_length);
    store_be(bhs + 16, p.initiator_task_tag);
    Pdu::fields(p, detail::FieldWriter{bhs});
}
template <class Pdu>
BhsBytes encode(const Pdu& p) {
    BhsBytes out;
    encode_to(p, out.data());
    return out;
}

/// Which PDUs an initiator may send, when, and with what.
struct OpcodeRow {
    Opcode opcode;
    std::string_view name;
    bool in_discovery;  ///< allowed in the full feature phase of a discovery session
    bool in_normal;     ///< allowed in the full feature phase of a normal session
    bool may_have_data;
    bool may_have_ahs;
};

inline constexpr std::array kOpcodeRows{
    OpcodeRow{Opcode::kNopOut, "NOP-Out", true, true, true, false},
    OpcodeRow{Opcode::kScsiCommand, "SCSI Command", false, true, true, true},
    OpcodeRow{Opcode::kTaskManagementRequest, "Task Management Function Request", false, true, false, false},
    OpcodeRow{Opcode::kLoginRequest, "Login Request", false, false, true, false},
    OpcodeRow{Opcode::kTextRequest, "Text Request", true, true, true, false},
    OpcodeRow{Opcode::kDataOut, "SCSI Data-Out", false, true, true, false},
    OpcodeRow{Opcode::kLogoutRequest, "Logout Request", true, true, false, false},
    OpcodeRow{Opcode::kSnackRequest, "SNACK Request", false, true, false, false},
};

/// The row of an opcode that initiators may send, or nullptr.
const OpcodeRow* find_opcode(std::uint8_t raw);

/// What the additional header segments of a SCSI Command carry (RFC 7143 §11.2.2).
struct AdditionalHeaders {
    ConstBytes extended_cdb;  ///< bytes of the CDB after the first 16
    std::optional<std::uint32_t> bidirectional_read_length;
};

/// Errors: kProtocol: a length that does not fit, an unknown type, or a segment given twice.
Result<AdditionalHeaders> parse_additional_headers(ConstBytes ahs);

constexpr std::size_t padding_of(std::size_t bytes) {
    return (4 - bytes % 4) % 4;
}

/// Serial number arithmetic (RFC 1982, 32 bits): a comes before b.
constexpr bool serial_before(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::int32_t>(a - b) < 0;
}

}  // namespace gemel::iscsi
