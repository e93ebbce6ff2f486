// SPDX-License-Identifier: Apache-2.0
// What the medium access commands share: a command's data with its checksums, reads that turn unknown blocks into
// sense data, addresses in the unit's blocks.
//
// Invariants:
//   RW1  plan() has checked the range and the size; the device may have shrunk since and answers for itself.
//   RW2  With EDTL below the CDB's length only the whole blocks that EDTL covers are moved; the residual tells the
//        initiator. The status stays GOOD (RFC 7143 11.4.5.1).
//   RW3  What changes the medium has passed the unit's WriteGate, or has it alone, and looks after that once more at
//        all that may have changed while its data came or it waited: reservations (PO1), write protection, the medium.
// Threads: as LogicalUnit.
#pragma once

#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

inline std::uint64_t block_of(const LogicalUnit& unit, Lba lba) {
    return lba.value / unit.sectors_per_block();
}

/// Reads `bytes` into a new buffer and turns a block that is not known into an error, whatever the device returned
/// (B2). Where a device below does not answer, it keeps the buffer (B4), and another one is filled without that device.
Task<std::optional<ScsiResult>> read_into(LogicalUnit& unit, Lba lba, std::size_t bytes, Buffer& buffer);

/// RW3: why the command must not be run now. REQUIRES: it has passed the gate, or has it alone.
std::optional<ScsiResult> refused_now(const LogicalUnit& unit, const ScsiCommand& command);

/// A result of a command whose data did arrive, so that its residual is the usual one.
ScsiResult after_transfer(ScsiResult result, const ScsiCommand& command);

/// Bytes of the command's data that are whole blocks (RW2).
std::size_t usable_bytes(const LogicalUnit& unit, const ScsiCommand& command);

/// The command's data, from its byte `from` on, in a buffer of its own with its checksums taken.
/// Errors: kResources. REQUIRES: it has arrived.
Result<Buffer> sealed_copy(LogicalUnit& unit, const ScsiCommand& command, std::size_t from, std::size_t bytes);

/// FUA of the CDB, or a unit without a volatile cache.
bool write_through(const LogicalUnit& unit, const ScsiCommand& command);

/// The place of the first difference from the start; nothing if they are equal. REQUIRES: they are of one size.
std::optional<std::size_t> first_difference(ConstBytes a, ConstBytes b);

}  // namespace gemel::scsi
