// SPDX-License-Identifier: Apache-2.0
// COMPARE AND WRITE and ORWRITE (SBC-3 5.3, 5.9): a read and a write as one uninterrupted step, by having the unit's
// WriteGate alone. A power cut in the write leaves every block old or new, as in any write.
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

/// One of them at work: nobody else writes as long as it lives.
struct AloneAtWork {
    Buffer data;  ///< of the command, with its checksums taken
    WriteGate::Alone alone;
    Buffer old;  ///< what the medium holds
};

/// `from`: where in the command's data, all of which is here, its last `bytes` begin. Or why it ends now.
Task<std::expected<AloneAtWork, ScsiResult>> begin(LogicalUnit& unit, const ScsiCommand& command, std::size_t from,
                                                   std::size_t bytes) {
    Result<Buffer> data = sealed_copy(unit, command, from, bytes);
    if (!data) {
        co_return std::unexpected(after_transfer(from_error(data.error()), command));
    }
    WriteGate::Alone alone = co_await unit.gate().alone();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return std::unexpected(*std::move(refusal));
    }
    Buffer old;
    if (std::optional<ScsiResult> failed = co_await read_into(unit, command.plan.lba, bytes, old)) {
        co_return std::unexpected(after_transfer(*std::move(failed), command));
    }
    co_return AloneAtWork{*std::move(data), std::move(alone), std::move(old)};
}

Task<ScsiResult> write_sealed(LogicalUnit& unit, const ScsiCommand& command, const Buffer& data, std::size_t bytes) {
    const Result<void> done = co_await unit.device().write(command.plan.lba, data.slice(bytes, command.plan.lba),
                                                           {.fua = write_through(unit, command)});
    co_return after_transfer(done ? good() : from_error(done.error()), command);
}

}  // namespace

/// The first half of the data is what must be there, the second what is to be there.
Task<ScsiResult> commands::compare_and_write(LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t bytes = bytes_of(command.plan.sectors);
    if (bytes == 0) {
        co_return good();
    }
    auto work = co_await begin(unit, command, bytes, bytes);
    if (!work) {
        co_return std::move(work).error();
    }
    const ConstBytes expected = ConstBytes(command.data_out.memory()).first(bytes);
    if (const auto offset = first_difference(ConstBytes(work->old.memory()).first(bytes), expected)) {
        co_return after_transfer(check_condition({.code = kMiscompareDuringVerify, .information = *offset}), command);
    }
    co_return co_await write_sealed(unit, command, work->data, bytes);
}

Task<ScsiResult> commands::orwrite(LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t bytes = usable_bytes(unit, command);
    if (bytes == 0) {
        co_return after_transfer(good(), command);
    }
    auto work = co_await begin(unit, command, 0, bytes);
    if (!work) {
        co_return std::move(work).error();
    }
    const Slice data = work->data.slice(bytes, command.plan.lba);
    if (const Result<void> intact = data.verify(); !intact) {
        co_return after_transfer(from_error(intact.error()), command);
    }
    for (std::size_t i = 0; i < bytes; ++i) {
        data.data()[i] |= work->old.memory()[i];
    }
    data.seal();
    co_return co_await write_sealed(unit, command, work->data, bytes);
}

}  // namespace gemel::scsi
