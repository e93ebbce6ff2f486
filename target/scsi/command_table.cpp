// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/command_table.hpp"

#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

using enum Transfer;
using enum ReservationClass;
using enum Effect;
using enum AttentionRule;

using Usage = std::array<std::uint8_t, kCdbBytes>;

// Masks shared by the commands of a family. Byte 1 comes first because it is what differs; byte 0 is the operation
// code.
constexpr Usage usage6(std::uint8_t b1, std::uint8_t b2, std::uint8_t b3, std::uint8_t b4) {
    return {0xff, b1, b2, b3, b4};
}
/// LBA in 2-5, group number in 6, length in 7-8.
constexpr Usage usage10(std::uint8_t b1) {
    return {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff};
}
/// LBA in 2-5, length in 6-9, group number in 10.
constexpr Usage usage12(std::uint8_t b1) {
    return {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f};
}
/// LBA in 2-9, length in 10-13, group number in 14.
constexpr Usage usage16(std::uint8_t b1) {
    return {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f};
}

constexpr Usage usage_reserve_in() {
    return {0xff, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff};
}
/// Scope and type in 2, length in 5-8.
constexpr Usage usage_reserve_out() {
    return {0xff, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff};
}

constexpr std::uint8_t kReadFlags = 0x1c;    // DPO, FUA, RARC
constexpr std::uint8_t kWriteFlags = 0x18;   // DPO, FUA
constexpr std::uint8_t kVerifyFlags = 0x16;  // DPO, BYTCHK
constexpr std::uint8_t kSyncFlags = 0x06;    // SYNC_NV (obsolete), IMMED
constexpr std::uint8_t kImmediate = 0x02;
constexpr std::uint8_t kUnmapFlag = 0x08;
constexpr std::uint8_t kNoDataFlag = 0x01;  // NDOB

constexpr Field kNoField{};
constexpr Field kLba6{1, 3};
constexpr Field kLength6{4, 1};
constexpr Field kLba10{2, 4};
constexpr Field kLength10{7, 2};
constexpr Field kLength12{6, 4};
constexpr Field kLba16{2, 8};
constexpr Field kLength16{10, 4};

constexpr std::int16_t kPlain = kNoServiceAction;
constexpr std::uint16_t kQuick = 10;     // seconds
constexpr std::uint16_t kTransfer = 60;  // a mirror may wait for its peer's deadline first
constexpr std::uint16_t kFlush = 120;

constexpr CommandRow kRows[] = {
    {0x00, kPlain, "TEST UNIT READY", 6, usage6(0, 0, 0, 0), kNone, kNoField, kNoField, kState, kNothing, kReport,
     kQuick, nullptr, commands::test_unit_ready, "SPC-4 6.47"},
    {0x03, kPlain, "REQUEST SENSE", 6, usage6(0x01, 0, 0, 0xff), kAllocation, kNoField, kLength6, kAllowed, kNothing,
     kPass, kQuick, commands::request_sense, nullptr, "SPC-4 6.39"},
    {0x08, kPlain, "READ(6)", 6, usage6(0x1f, 0xff, 0xff, 0xff), kBlocksIn, kLba6, kLength6, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::read, "SBC-3 5.10"},
    {0x0a, kPlain, "WRITE(6)", 6, usage6(0x1f, 0xff, 0xff, 0xff), kBlocksOut, kLba6, kLength6, kWrite, kMedium, kReport,
     kTransfer, nullptr, commands::write, "SBC-3 5.31"},
    {0x12, kPlain, "INQUIRY", 6, usage6(0x01, 0xff, 0xff, 0xff), kAllocation, kNoField, Field{3, 2}, kAllowed, kNothing,
     kPass, kQuick, commands::inquiry, nullptr, "SPC-4 6.6"},
    {0x15, kPlain, "MODE SELECT(6)", 6, usage6(0x11, 0, 0, 0xff), kParameters, kNoField, kLength6, kWrite, kUnit,
     kReport, kFlush, nullptr, commands::mode_select, "SPC-4 6.11"},
    {0x16, kPlain, "RESERVE(6)", 6, usage6(0, 0, 0, 0), kNone, kNoField, kNoField, kRead, kUnit, kReport, kQuick,
     commands::reserve, nullptr, "SPC-2 7.21"},
    {0x17, kPlain, "RELEASE(6)", 6, usage6(0, 0, 0, 0), kNone, kNoField, kNoField, kAllowed, kNothing, kReport, kQuick,
     commands::release, nullptr, "SPC-2 7.16"},
    {0x1a, kPlain, "MODE SENSE(6)", 6, usage6(0x08, 0xff, 0xff, 0xff), kAllocation, kNoField, kLength6, kRead, kNothing,
     kReport, kQuick, commands::mode_sense, nullptr, "SPC-4 6.13"},
    {0x1b, kPlain, "START STOP UNIT", 6, usage6(0x01, 0, 0x0f, 0xf7), kNone, kNoField, kNoField, kWrite, kLoad, kReport,
     kFlush, nullptr, commands::start_stop_unit, "SBC-3 5.24"},
    {0x1e, kPlain, "PREVENT ALLOW MEDIUM REMOVAL", 6, usage6(0, 0, 0, 0x03), kNone, kNoField, kNoField, kWrite, kHold,
     kReport, kQuick, commands::prevent_allow, nullptr, "SBC-3 5.8"},
    {0x25,
     kPlain,
     "READ CAPACITY(10)",
     10,
     {0xff, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01},
     kEightBytes,
     kNoField,
     kNoField,
     kAllowed,
     kNothing,
     kReport,
     kQuick,
     commands::read_capacity_10,
     nullptr,
     "SBC-3 5.15"},
    {0x28, kPlain, "READ(10)", 10, usage10(kReadFlags), kBlocksIn, kLba10, kLength10, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::read, "SBC-3 5.11"},
    {0x2a, kPlain, "WRITE(10)", 10, usage10(kWriteFlags), kBlocksOut, kLba10, kLength10, kWrite, kMedium, kReport,
     kTransfer, nullptr, commands::write, "SBC-3 5.32"},
    {0x2e, kPlain, "WRITE AND VERIFY(10)", 10, usage10(kVerifyFlags), kBlocksOut, kLba10, kLength10, kWrite, kMedium,
     kReport, kTransfer, nullptr, commands::write_and_verify, "SBC-3 5.36"},
    {0x2f, kPlain, "VERIFY(10)", 10, usage10(kVerifyFlags), kVerify, kLba10, kLength10, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::verify, "SBC-3 5.27"},
    {0x34, kPlain, "PRE-FETCH(10)", 10, usage10(kImmediate), kRange, kLba10, kLength10, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::pre_fetch, "SBC-3 5.10"},
    {0x35, kPlain, "SYNCHRONIZE CACHE(10)", 10, usage10(kSyncFlags), kRange, kLba10, kLength10, kWrite, kNothing,
     kReport, kFlush, nullptr, commands::synchronize_cache, "SBC-3 5.25"},
    {0x37,
     kPlain,
     "READ DEFECT DATA(10)",
     10,
     {0xff, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength10,
     kRead,
     kNothing,
     kReport,
     kQuick,
     commands::read_defect_data_10,
     nullptr,
     "SBC-3 5.17"},
    {0x41, kPlain, "WRITE SAME(10)", 10, usage10(kUnmapFlag), kSame, kLba10, kLength10, kWrite, kMedium, kReport,
     kFlush, nullptr, commands::write_same, "SBC-3 5.41"},
    {0x42,
     kPlain,
     "UNMAP",
     10,
     {0xff, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff},
     kParameters,
     kNoField,
     kLength10,
     kWrite,
     kMedium,
     kReport,
     kFlush,
     nullptr,
     commands::unmap,
     "SBC-3 5.28"},
    {0x55,
     kPlain,
     "MODE SELECT(10)",
     10,
     {0xff, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff},
     kParameters,
     kNoField,
     kLength10,
     kWrite,
     kUnit,
     kReport,
     kFlush,
     nullptr,
     commands::mode_select,
     "SPC-4 6.12"},
    {0x56,
     kPlain,
     "RESERVE(10)",
     10,
     {0xff},
     kNone,
     kNoField,
     kNoField,
     kRead,
     kUnit,
     kReport,
     kQuick,
     commands::reserve,
     nullptr,
     "SPC-2 7.22"},
    {0x57,
     kPlain,
     "RELEASE(10)",
     10,
     {0xff},
     kNone,
     kNoField,
     kNoField,
     kAllowed,
     kNothing,
     kReport,
     kQuick,
     commands::release,
     nullptr,
     "SPC-2 7.17"},
    {0x5a,
     kPlain,
     "MODE SENSE(10)",
     10,
     {0xff, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength10,
     kRead,
     kNothing,
     kReport,
     kQuick,
     commands::mode_sense,
     nullptr,
     "SPC-4 6.14"},
    {0x5e, 0x00, "PERSISTENT RESERVE IN READ KEYS", 10, usage_reserve_in(), kAllocation, kNoField, kLength10, kState,
     kNothing, kReport, kQuick, commands::persistent_reserve_in, nullptr, "SPC-4 6.15"},
    {0x5e, 0x01, "PERSISTENT RESERVE IN READ RESERVATION", 10, usage_reserve_in(), kAllocation, kNoField, kLength10,
     kState, kNothing, kReport, kQuick, commands::persistent_reserve_in, nullptr, "SPC-4 6.15"},
    {0x5e, 0x02, "PERSISTENT RESERVE IN REPORT CAPABILITIES", 10, usage_reserve_in(), kAllocation, kNoField, kLength10,
     kState, kNothing, kReport, kQuick, commands::persistent_reserve_in, nullptr, "SPC-4 6.15"},
    {0x5e, 0x03, "PERSISTENT RESERVE IN READ FULL STATUS", 10, usage_reserve_in(), kAllocation, kNoField, kLength10,
     kState, kNothing, kReport, kQuick, commands::persistent_reserve_in, nullptr, "SPC-4 6.15"},
    {0x5f, 0x00, "PERSISTENT RESERVE OUT REGISTER", 10, usage_reserve_out(), kParameters, kNoField, Field{5, 4}, kState,
     kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x01, "PERSISTENT RESERVE OUT RESERVE", 10, usage_reserve_out(), kParameters, kNoField, Field{5, 4}, kState,
     kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x02, "PERSISTENT RESERVE OUT RELEASE", 10, usage_reserve_out(), kParameters, kNoField, Field{5, 4}, kState,
     kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x03, "PERSISTENT RESERVE OUT CLEAR", 10, usage_reserve_out(), kParameters, kNoField, Field{5, 4}, kState,
     kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x04, "PERSISTENT RESERVE OUT PREEMPT", 10, usage_reserve_out(), kParameters, kNoField, Field{5, 4}, kState,
     kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x05, "PERSISTENT RESERVE OUT PREEMPT AND ABORT", 10, usage_reserve_out(), kParameters, kNoField,
     Field{5, 4}, kState, kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x06, "PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY", 10, usage_reserve_out(), kParameters,
     kNoField, Field{5, 4}, kState, kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x5f, 0x07, "PERSISTENT RESERVE OUT REGISTER AND MOVE", 10, usage_reserve_out(), kParameters, kNoField,
     Field{5, 4}, kState, kUnit, kReport, kFlush, nullptr, commands::persistent_reserve_out, "SPC-4 6.16"},
    {0x88, kPlain, "READ(16)", 16, usage16(kReadFlags), kBlocksIn, kLba16, kLength16, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::read, "SBC-3 5.13"},
    {0x89,
     kPlain,
     "COMPARE AND WRITE",
     16,
     {0xff, kWriteFlags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f},
     kCompare,
     kLba16,
     Field{13, 1},
     kWrite,
     kMedium,
     kReport,
     kTransfer,
     nullptr,
     commands::compare_and_write,
     "SBC-3 5.3"},
    {0x8a, kPlain, "WRITE(16)", 16, usage16(kWriteFlags), kBlocksOut, kLba16, kLength16, kWrite, kMedium, kReport,
     kTransfer, nullptr, commands::write, "SBC-3 5.34"},
    {0x8b, kPlain, "ORWRITE(16)", 16, usage16(kWriteFlags), kBlocksOut, kLba16, kLength16, kWrite, kMedium, kReport,
     kTransfer, nullptr, commands::orwrite, "SBC-3 5.9"},
    {0x8e, kPlain, "WRITE AND VERIFY(16)", 16, usage16(kVerifyFlags), kBlocksOut, kLba16, kLength16, kWrite, kMedium,
     kReport, kTransfer, nullptr, commands::write_and_verify, "SBC-3 5.38"},
    {0x8f, kPlain, "VERIFY(16)", 16, usage16(kVerifyFlags), kVerify, kLba16, kLength16, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::verify, "SBC-3 5.29"},
    {0x90, kPlain, "PRE-FETCH(16)", 16, usage16(kImmediate), kRange, kLba16, kLength16, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::pre_fetch, "SBC-3 5.11"},
    {0x91, kPlain, "SYNCHRONIZE CACHE(16)", 16, usage16(kSyncFlags), kRange, kLba16, kLength16, kWrite, kNothing,
     kReport, kFlush, nullptr, commands::synchronize_cache, "SBC-3 5.26"},
    {0x93, kPlain, "WRITE SAME(16)", 16, usage16(kUnmapFlag | kNoDataFlag), kSame, kLba16, kLength16, kWrite, kMedium,
     kReport, kFlush, nullptr, commands::write_same, "SBC-3 5.42"},
    {0x9e,
     0x10,
     "READ CAPACITY(16)",
     16,
     {0xff, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
     kAllocation,
     kNoField,
     kLength16,
     kAllowed,
     kNothing,
     kReport,
     kQuick,
     commands::read_capacity_16,
     nullptr,
     "SBC-3 5.16"},
    {0x9e,
     0x12,
     "GET LBA STATUS",
     16,
     {0xff, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength16,
     kRead,
     kNothing,
     kReport,
     kQuick,
     commands::get_lba_status,
     nullptr,
     "SBC-3 5.6"},
    {0xa0,
     kPlain,
     "REPORT LUNS",
     12,
     {0xff, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength12,
     kAllowed,
     kNothing,
     kPass,
     kQuick,
     commands::report_luns,
     nullptr,
     "SPC-4 6.33"},
    {0xa3,
     0x0c,
     "REPORT SUPPORTED OPERATION CODES",
     12,
     {0xff, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength12,
     kAllowed,
     kNothing,
     kReport,
     kQuick,
     commands::report_supported_operation_codes,
     nullptr,
     "SPC-4 6.35"},
    {0xa3,
     0x0d,
     "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
     12,
     {0xff, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength12,
     kAllowed,
     kNothing,
     kReport,
     kQuick,
     commands::report_supported_task_management_functions,
     nullptr,
     "SPC-4 6.36"},
    {0xa8, kPlain, "READ(12)", 12, usage12(kReadFlags), kBlocksIn, kLba10, kLength12, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::read, "SBC-3 5.12"},
    {0xaa, kPlain, "WRITE(12)", 12, usage12(kWriteFlags), kBlocksOut, kLba10, kLength12, kWrite, kMedium, kReport,
     kTransfer, nullptr, commands::write, "SBC-3 5.33"},
    {0xae, kPlain, "WRITE AND VERIFY(12)", 12, usage12(kVerifyFlags), kBlocksOut, kLba10, kLength12, kWrite, kMedium,
     kReport, kTransfer, nullptr, commands::write_and_verify, "SBC-3 5.37"},
    {0xaf, kPlain, "VERIFY(12)", 12, usage12(kVerifyFlags), kVerify, kLba10, kLength12, kRead, kNothing, kReport,
     kTransfer, nullptr, commands::verify, "SBC-3 5.28"},
    {0xb7,
     kPlain,
     "READ DEFECT DATA(12)",
     12,
     {0xff, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
     kAllocation,
     kNoField,
     kLength12,
     kRead,
     kNothing,
     kReport,
     kQuick,
     commands::read_defect_data_12,
     nullptr,
     "SBC-3 5.18"},
};

constexpr bool in_order() {
    for (std::size_t i = 1; i < std::size(kRows); ++i) {
        const CommandRow& a = kRows[i - 1];
        const CommandRow& b = kRows[i];
        const bool ordered = a.opcode < b.opcode ||
                             (a.opcode == b.opcode && a.service_action >= 0 && a.service_action < b.service_action);
        if (!ordered) {
            return false;
        }
    }
    return std::ranges::all_of(kRows,
                               [](const CommandRow& r) { return (r.control == nullptr) != (r.medium == nullptr); });
}
static_assert(in_order());  // CT1

constexpr std::uint8_t kNoRow = 0xff;
static_assert(std::size(kRows) < kNoRow);

/// First row of each operation code.
constexpr std::array<std::uint8_t, 256> make_index() {
    std::array<std::uint8_t, 256> index{};
    index.fill(kNoRow);
    for (std::size_t i = std::size(kRows); i-- > 0;) {
        index[kRows[i].opcode] = static_cast<std::uint8_t>(i);
    }
    return index;
}
constexpr std::array<std::uint8_t, 256> kIndex = make_index();

}  // namespace

std::span<const CommandRow> command_table() {
    return kRows;
}

const CommandRow* find_row(const Cdb& cdb) {
    return find_row(static_cast<std::uint8_t>(cdb[0]), static_cast<std::int16_t>(cdb_byte(cdb, 1) & 0x1fU));
}

const CommandRow* find_row(std::uint8_t opcode, std::int16_t service_action) {
    for (std::size_t i = kIndex[opcode]; i < std::size(kRows) && kRows[i].opcode == opcode; ++i) {
        if (kRows[i].service_action == kNoServiceAction || kRows[i].service_action == service_action) {
            return &kRows[i];
        }
    }
    return nullptr;
}

bool available(const CommandRow& row, const LunOptions& options) {
    if (row.medium == commands::unmap) {
        return options.thin;
    }
    const bool reserves =
        row.medium == commands::persistent_reserve_out || row.control == commands::persistent_reserve_in;
    return !reserves || options.persistent_reservations;
}

bool needs_medium(const CommandRow& row) {
    const bool of_state = row.medium == commands::start_stop_unit || row.medium == commands::mode_select ||
                          row.medium == commands::persistent_reserve_out;
    return (row.medium != nullptr && !of_state) || row.control == commands::read_capacity_10 ||
           row.control == commands::read_capacity_16 || row.control == commands::get_lba_status;
}

bool changes_unit(const CommandRow& row, const Cdb& cdb) {
    constexpr unsigned kPowerCondition = 0xf0;
    constexpr unsigned kLoadEject = 0x02;
    constexpr unsigned kPrevent = 0x03;
    if (row.effect == kLoad) {
        return (cdb_byte(cdb, 4) & kPowerCondition) == 0 && (cdb_byte(cdb, 4) & kLoadEject) != 0;
    }
    if (row.effect == kHold) {
        return (cdb_byte(cdb, 4) & kPrevent) != 0;
    }
    return row.effect != kNothing;
}

OpcodeKind opcode_kind(std::uint8_t opcode) {
    if (kIndex[opcode] == kNoRow) {
        return OpcodeKind::kUnknown;
    }
    return kRows[kIndex[opcode]].service_action == kNoServiceAction ? OpcodeKind::kPlain : OpcodeKind::kServiceActions;
}

}  // namespace gemel::scsi
