// SPDX-License-Identifier: Apache-2.0
// Commands about the unit itself: TEST UNIT READY, REQUEST SENSE, START STOP UNIT, PREVENT ALLOW, RESERVE, RELEASE.
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

/// Ready means that the medium can be reached now, so the device is asked to read: only it knows whether it is standby
/// or waits for its peer. A bad or slow block 0 does not make a unit unready.
Task<ScsiResult> commands::test_unit_ready(LogicalUnit& unit, const ScsiCommand& /*command*/) {
    const std::size_t bytes = std::size_t{unit.device().limits().alignment_sectors} * kSectorBytes;
    Result<Buffer> buffer = unit.environment().buffers.allocate(bytes);
    if (!buffer) {
        co_return from_error(buffer.error());
    }
    const Result<void> done = co_await unit.device().read(Lba(0), buffer->slice(bytes, Lba(0)));
    if (!done && done.error().code != Errc::kMediumError && done.error().code != Errc::kChecksum) {
        co_return from_error(done.error());
    }
    co_return good();
}

namespace {
/// No write is under way when the medium goes, and nobody has taken it, or holds it, since the command began.
Task<ScsiResult> eject(LogicalUnit& unit, const ScsiCommand& command) {
    const WriteGate::Alone alone = co_await unit.gate().alone();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return *std::move(refusal);
    }
    if (unit.removal_prevented()) {
        co_return check_condition({.code = kMediumRemovalPrevented});
    }
    unit.eject_medium();
    co_return good();
}
}  // namespace

/// There is no spindle, and one initiator must not take the unit away from the others: stopping makes everything
/// durable and changes nothing else. LOEJ ejects the medium of a removable unit, or brings it back.
Task<ScsiResult> commands::start_stop_unit(LogicalUnit& unit, const ScsiCommand& command) {
    const unsigned b4 = cdb_byte(command.cdb, 4);
    const bool power_condition = (b4 & 0xf0U) != 0;
    const bool no_flush = (b4 & 0x04U) != 0;
    const bool load_eject = (b4 & 0x02U) != 0;
    const bool start = (b4 & 0x01U) != 0;
    if (load_eject && !power_condition && !unit.options().removable) {
        co_return invalid_field(4, 1);
    }
    const bool moves = load_eject && !power_condition;
    if (moves && unit.removal_prevented()) {
        co_return check_condition({.code = kMediumRemovalPrevented});
    }
    if (moves && start) {
        unit.load_medium(*command.nexus);
        co_return good();
    }
    if (power_condition || start || no_flush) {
        co_return good();
    }
    if (const Result<void> done = co_await unit.device().flush(); !done) {
        co_return from_error(done.error());
    }
    co_return moves ? co_await eject(unit, command) : good();
}

/// Sense data as parameter data. A pending unit attention is handed over that way and is then no longer pending
/// (SPC-4 6.39).
ScsiResult commands::request_sense(LogicalUnit& unit, const ScsiCommand& command) {
    Sense sense;
    if (command.nexus->attention_pending()) {
        if (const std::optional<Attention> a = command.nexus->take_attention()) {
            sense.code = attention_code(*a);
        }
    }
    return request_sense_of(unit.environment(), command, sense);
}

ScsiResult commands::request_sense_of(Environment& environment, const ScsiCommand& command, const Sense& sense) {
    auto page = new_page(environment);
    if (!page) {
        return std::move(page).error();
    }
    const bool descriptors = (cdb_byte(command.cdb, 1) & 1U) != 0;
    page->bytes(encode_sense(sense, descriptors ? SenseFormat::kDescriptor : SenseFormat::kFixed).view());
    return reply(command, *std::move(page));
}

/// 10b and 11b are obsolete (SBC-3 5.8). What a unit without a removable medium is told has no effect.
ScsiResult commands::prevent_allow(LogicalUnit& /*unit*/, const ScsiCommand& command) {
    if (cdb_byte(command.cdb, 4) > 1) {
        return invalid_field(4, 1);
    }
    command.nexus->prevent_removal(cdb_byte(command.cdb, 4) == 1);
    return good();
}

/// Of the whole unit; held until RELEASE, a reset, or the end of the nexus (SPC-2 5.5.1).
ScsiResult commands::reserve(LogicalUnit& unit, const ScsiCommand& command) {
    return unit.reserve(*command.nexus) ? good() : with_status(Status::kReservationConflict);
}

/// A release by a nexus that holds nothing is GOOD and changes nothing (SPC-2 7.16).
ScsiResult commands::release(LogicalUnit& unit, const ScsiCommand& command) {
    unit.release(*command.nexus);
    return good();
}

}  // namespace gemel::scsi
