// SPDX-License-Identifier: Apache-2.0
// COMPARE AND WRITE and ORWRITE (SBC-3 5.3, 5.9): a read and a write as one uninterrupted step, by having the unit's
// WriteGate alone. A power cut in the write leaves every block old or new, as in any write.
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

Task<ScsiResult> write_sealed(LogicalUnit& unit, const ScsiCommand& command, const Buffer& data, std::size_t bytes) {
    const Result<void> done = co_await unit.device().write(command.plan.lba, data.slice(bytes, command.plan.lba),
                                                           {.fua = write_through(unit, command)});
    co_return after_transfer(done ? good() : from_error(done.error()), command);
}

}  // namespace

/// The first half of the data is what must be there, the second what is to be there; both are here.
Task<ScsiResult> commands::compare_and_write(LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t bytes = bytes_of(command.plan.sectors);
    if (bytes == 0) {
        co_return good();
    }
    const Result<Buffer> fresh = sealed_copy(unit, command, bytes, bytes);
    if (!fresh) {
        co_return after_transfer(from_error(fresh.error()), command);
    }
    const WriteGate::Alone alone = co_await unit.gate().alone();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return *std::move(refusal);
    }
    Buffer old;
    if (std::optional<ScsiResult> failed = co_await read_into(unit, command.plan.lba, bytes, old)) {
        co_return after_transfer(*std::move(failed), command);
    }
    const ConstBytes expected = ConstBytes(command.data_out.memory()).first(bytes);
    if (const auto offset = first_difference(ConstBytes(old.memory()).first(bytes), expected)) {
        co_return after_transfer(check_condition({.code = kMiscompareDuringVerify, .information = *offset}), command);
    }
    co_return co_await write_sealed(unit, command, *fresh, bytes);
}

Task<ScsiResult> commands::orwrite(LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t bytes = usable_bytes(unit, command);
    if (bytes == 0) {
        co_return after_transfer(good(), command);
    }
    const Result<Buffer> data = sealed_copy(unit, command, 0, bytes);
    if (!data) {
        co_return after_transfer(from_error(data.error()), command);
    }
    const WriteGate::Alone alone = co_await unit.gate().alone();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return *std::move(refusal);
    }
    Buffer old;
    if (std::optional<ScsiResult> failed = co_await read_into(unit, command.plan.lba, bytes, old)) {
        co_return after_transfer(*std::move(failed), command);
    }
    if (const Result<void> intact = data->slice(bytes, command.plan.lba).verify(); !intact) {
        co_return after_transfer(from_error(intact.error()), command);
    }
    for (std::size_t i = 0; i < bytes; ++i) {
        data->memory()[i] |= old.memory()[i];
    }
    data->slice(bytes, command.plan.lba).seal();
    co_return co_await write_sealed(unit, command, *data, bytes);
}

}  // namespace gemel::scsi
