// SPDX-License-Identifier: Apache-2.0
// Medium access: READ, WRITE, WRITE AND VERIFY, VERIFY, SYNCHRONIZE CACHE (SBC-3 5).
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

/// The data of the command that will be used, with its checksums taken.
Slice sealed_data(const LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t usable = usable_bytes(unit, command);
    if (usable == 0) {
        return {};
    }
    const Slice data = command.data_out.slice(usable, command.plan.lba);
    data.seal();
    return data;
}

/// Reads the range of the plan and compares it with the data of the command. GOOD, MISCOMPARE or the device's error.
/// `data` repeats every `data.size()` bytes; empty: only readability is checked.
Task<ScsiResult> compare(LogicalUnit& unit, const ScsiCommand& command, ConstBytes data, std::size_t bytes) {
    Buffer buffer;
    if (std::optional<ScsiResult> failed = co_await read_into(unit, command.plan.lba, bytes, buffer)) {
        co_return after_transfer(*std::move(failed), command);
    }
    const Slice medium = buffer.slice(bytes, command.plan.lba);
    for (std::size_t at = 0; !data.empty() && at < bytes; at += data.size()) {
        const ConstBytes stored = ConstBytes(medium.data()).subspan(at, std::min(data.size(), bytes - at));
        if (const auto offset = first_difference(stored, data.first(stored.size()))) {
            co_return after_transfer(check_condition({.code = kMiscompareDuringVerify, .information = at + *offset}),
                                     command);
        }
    }
    co_return after_transfer(good(), command);
}

}  // namespace

Task<ScsiResult> commands::read(LogicalUnit& unit, const ScsiCommand& command) {
    ScsiResult result;
    result.transfer_bytes = command.plan.transfer_bytes;
    const std::size_t wanted = std::min<std::uint64_t>(command.plan.transfer_bytes, command.data_in_capacity);
    if (wanted == 0) {
        co_return result;
    }
    const std::size_t bytes = round_up(wanted, unit.options().block_bytes);
    if (std::optional<ScsiResult> failed = co_await read_into(unit, command.plan.lba, bytes, result.data_in)) {
        co_return *std::move(failed);
    }
    result.data_in_bytes = wanted;
    co_return result;
}

Task<ScsiResult> commands::write(LogicalUnit& unit, const ScsiCommand& command) {
    const Slice data = sealed_data(unit, command);
    if (!data.empty()) {
        WriteGate::Pass pass = unit.gate().try_pass();
        if (!pass) {
            pass = co_await unit.gate().pass();
        }
        if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
            co_return *std::move(refusal);
        }
        const Result<void> done =
            co_await unit.device().write(command.plan.lba, data, {.fua = write_through(unit, command)});
        if (!done) {
            co_return after_transfer(from_error(done.error()), command);
        }
    }
    co_return after_transfer(good(), command);
}

/// The data is on the medium before it is compared: that is what the command is for (SBC-3 5.36).
Task<ScsiResult> commands::write_and_verify(LogicalUnit& unit, const ScsiCommand& command) {
    const Slice data = sealed_data(unit, command);
    if (data.empty()) {
        co_return after_transfer(good(), command);
    }
    const WriteGate::Pass pass = co_await unit.gate().pass();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return *std::move(refusal);
    }
    const Result<void> done = co_await unit.device().write(command.plan.lba, data, {.fua = true});
    if (!done) {
        co_return after_transfer(from_error(done.error()), command);
    }
    const ConstBytes expected = bytchk(command.cdb) == 0 ? ConstBytes() : ConstBytes(data.data());
    co_return co_await compare(unit, command, expected, data.size());
}

/// BYTCHK 0: can it be read; 1: is it equal to the data; 3: is every block equal to the one of the data (SBC-3 5.27).
Task<ScsiResult> commands::verify(LogicalUnit& unit, const ScsiCommand& command) {
    std::size_t bytes = bytes_of(command.plan.sectors);
    ConstBytes data;
    if (bytchk(command.cdb) != 0) {
        data = ConstBytes(command.data_out.memory()).first(usable_bytes(unit, command));
        if (bytchk(command.cdb) == 1) {
            bytes = data.size();
        }
        if (data.empty()) {
            bytes = 0;
        }
    }
    if (bytes == 0) {
        co_return after_transfer(good(), command);
    }
    co_return co_await compare(unit, command, data, bytes);
}

/// Nothing is kept in a cache of this unit, so the blocks would not stay: GOOD, not CONDITION MET (SBC-3 5.10).
Task<ScsiResult> commands::pre_fetch(LogicalUnit& /*unit*/, const ScsiCommand& /*command*/) {
    co_return good();
}

/// Flushes everything, whatever range was named, and before its status even with IMMED: more than was asked for.
Task<ScsiResult> commands::synchronize_cache(LogicalUnit& unit, const ScsiCommand& /*command*/) {
    const Result<void> done = co_await unit.device().flush();
    co_return done ? good() : from_error(done.error());
}

}  // namespace gemel::scsi
