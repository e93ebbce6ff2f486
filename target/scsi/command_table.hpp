// SPDX-License-Identifier: Apache-2.0
// The command table: all that is known of each command in one row. Checks of the CDB, the plan of its data transfer,
// dispatch, REPORT SUPPORTED OPERATION CODES and the names in logs are derived from it. A new command is a function in
// commands/ and a row.
//
// Invariants:
//   CT1  Rows are ordered by operation code, then service action; a code's rows all have service actions, or it has
//        one row. find_row() needs that; it is checked at compile time.
//   CT2  A bit of the CDB that is not in the row's usage must be zero, else the command ends with 05/24/00 and a
//        pointer to the bit (SPC-4 4.3.3 lets a server check them).
// Threads: constants.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "target/scsi/lun.hpp"

namespace gemel::scsi {

/// Where a big-endian number lies in a CDB.
struct Field {
    std::uint8_t offset = 0;
    std::uint8_t bytes = 0;  ///< 0: the CDB has no such field
};

/// How the amount of data follows from the CDB.
enum class Transfer : std::uint8_t {
    kNone,        ///< no data
    kAllocation,  ///< in, at most `length` bytes
    kBlocksIn,    ///< in, `length` blocks from `lba`
    kBlocksOut,   ///< out, the same
    kCompare,     ///< out, twice `length` blocks, the first of which are expected from `lba` on
    kSame,        ///< out, one block for `length` blocks from `lba`, or none
    kParameters,  ///< out, `length` bytes
    kVerify,      ///< BYTCHK 0: none; 1: out, `length` blocks; 3: out, one block; 2: refused
    kRange,       ///< no data; `length` blocks from `lba` must exist
    kEightBytes,  ///< in, 8 bytes, without a length in the CDB
};

/// Against reservations of other nexuses (SPC-2 table 10, SPC-4 table 65).
enum class ReservationClass : std::uint8_t {
    kAllowed,  ///< runs whatever is reserved
    kState,    ///< kept out by RESERVE, not by a persistent reservation
    kRead,     ///< reads the medium or its state
    kWrite,    ///< changes the medium or its state
};

/// What the command changes for all nexuses of the unit.
enum class Effect : std::uint8_t {
    kNothing,
    kLoad,    ///< whether it has its medium, if LOEJ is set
    kHold,    ///< that nobody can take its medium away, if PREVENT is set
    kUnit,    ///< its mode, or who may use it
    kMedium,  ///< what is on the medium
};

/// Whether a pending unit attention is reported on the command (SAM-5 5.14.5).
enum class AttentionRule : std::uint8_t { kReport, kPass };

using ControlHandler = ScsiResult (*)(LogicalUnit&, const ScsiCommand&);
using MediumHandler = Task<ScsiResult> (*)(LogicalUnit&, const ScsiCommand&);

inline constexpr std::int16_t kNoServiceAction = -1;

struct CommandRow {
    std::uint8_t opcode;
    std::int16_t service_action;
    std::string_view name;
    std::uint8_t cdb_bytes;
    /// Bits of the CDB that are evaluated or ignored; byte 0 and the service action are filled in where reported.
    std::array<std::uint8_t, kCdbBytes> usage;
    Transfer transfer;
    Field lba;
    Field length;
    ReservationClass reservation;
    Effect effect;
    AttentionRule attention;
    std::uint16_t timeout_seconds;  ///< recommended, for the timeouts descriptor
    ControlHandler control;         ///< answers at once ...
    MediumHandler medium;           ///< ... or waits for the device; exactly one of the two is set
    std::string_view section;       ///< where it is defined
};

std::span<const CommandRow> command_table();

/// Null when no row has this operation code and service action.
const CommandRow* find_row(const Cdb& cdb);
const CommandRow* find_row(std::uint8_t opcode, std::int16_t service_action);
/// Whether any row has this operation code, and then whether its rows are told apart by service actions.
enum class OpcodeKind : std::uint8_t { kUnknown, kPlain, kServiceActions };
OpcodeKind opcode_kind(std::uint8_t opcode);

/// A unit with these options has the command.
bool available(const CommandRow& row, const LunOptions& options);
/// The command is about the medium, which a removable unit may lack.
bool needs_medium(const CommandRow& row);
/// The command changes the medium: refused where that is write protected.
inline bool writes_medium(const CommandRow& row) {
    return row.effect == Effect::kMedium;
}
/// The command changes something of the unit for other nexuses, too: refused where the nexus may not write.
bool changes_unit(const CommandRow& row, const Cdb& cdb);

/// REQUIRES: field.bytes <= 8 and inside the CDB.
inline std::uint64_t load_field(const Cdb& cdb, Field field) {
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < field.bytes; ++i) {
        v = v << 8U | std::to_integer<std::uint64_t>(cdb[field.offset + i]);
    }
    return v;
}
inline unsigned cdb_byte(const Cdb& cdb, std::size_t i) {
    return std::to_integer<unsigned>(cdb[i]);
}
/// BYTCHK of VERIFY and WRITE AND VERIFY (SBC-4 5.33).
inline unsigned bytchk(const Cdb& cdb) {
    return cdb_byte(cdb, 1) >> 1U & 3U;
}

}  // namespace gemel::scsi
