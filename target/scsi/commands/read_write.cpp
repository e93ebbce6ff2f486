// SPDX-License-Identifier: Apache-2.0
// Medium access: READ, WRITE, WRITE AND VERIFY, VERIFY, SYNCHRONIZE CACHE (SBC-3 5).
//
// Invariants:
//   RW1  plan() has checked the range and the size; the device may have shrunk since and answers for itself.
//   RW2  With EDTL below the CDB's length only the whole blocks that EDTL covers are moved; the residual tells the
//        initiator. The status stays GOOD (RFC 7143 11.4.5.1).
#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

std::uint64_t block_of(const LogicalUnit& unit, Lba lba) {
    return lba.value / unit.sectors_per_block();
}

/// Address, in the unit's blocks, of the first block of `slice` that could not be read.
std::optional<std::uint64_t> first_unreadable(const LogicalUnit& unit, Lba start, const Slice& slice) {
    for (std::size_t i = 0; i < slice.blocks().size(); ++i) {
        if (slice.blocks()[i].status == BlockStatus::kUnreadable) {
            const auto offset = static_cast<std::uint64_t>(slice.block_data(i).data() - slice.data().data());
            return block_of(unit, start + offset / kSectorBytes);
        }
    }
    return std::nullopt;
}

constexpr int kReadTries = 4;

/// Reads `bytes` into a new buffer and turns a block that is not known into an error, whatever the device returned
/// (B2). Where a device below does not answer, it keeps the buffer (B4), and another one is filled without that device.
Task<std::optional<ScsiResult>> read_into(LogicalUnit& unit, Lba lba, std::size_t bytes, Buffer& buffer) {
    Result<void> done = fail(Errc::kTimedOut);
    Slice to;
    for (int i = 0; i < kReadTries && !done && done.error().code == Errc::kTimedOut; ++i) {
        Result<Buffer> fresh = unit.environment().buffers.allocate(bytes);
        if (!fresh) {
            co_return from_error(fresh.error());
        }
        buffer = *std::move(fresh);
        to = buffer.slice(bytes, lba);
        done = co_await unit.device().read(lba, to);
    }
    if (!done) {
        std::optional<std::uint64_t> where;
        if (done.error().code == Errc::kMediumError) {
            where = first_unreadable(unit, lba, to).value_or(block_of(unit, lba));
        }
        co_return from_error(done.error(), where);
    }
    if (!to.all_readable()) {
        co_return from_error(Error(Errc::kMediumError), first_unreadable(unit, lba, to));
    }
    co_return std::nullopt;
}

/// A result of a command whose data did arrive, so that its residual is the usual one.
ScsiResult after_transfer(ScsiResult result, const ScsiCommand& command) {
    result.transfer_bytes = command.plan.transfer_bytes;
    return result;
}

std::size_t whole_blocks(const LogicalUnit& unit, std::size_t bytes) {
    return round_down(bytes, unit.options().block_bytes);
}

/// The data of the command that will be used, with its checksums taken.
Slice sealed_data(const LogicalUnit& unit, const ScsiCommand& command) {
    const std::size_t bytes = std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes);
    const std::size_t usable = whole_blocks(unit, bytes);
    if (usable == 0) {
        return {};
    }
    const Slice data = command.data_out.slice(usable, command.plan.lba);
    data.seal();
    return data;
}

bool write_through(const LogicalUnit& unit, const ScsiCommand& command) {
    const bool fua = command.plan.row->cdb_bytes > 6 && (cdb_byte(command.cdb, 1) & 0x08U) != 0;
    return fua || unit.options().write_cache == WriteCache::kNone;
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
        const auto difference = std::ranges::mismatch(stored, data);
        if (difference.in1 != stored.end()) {
            const auto offset = at + static_cast<std::size_t>(difference.in1 - stored.begin());
            co_return after_transfer(check_condition({.code = kMiscompareDuringVerify, .information = offset}),
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
        const std::size_t arrived = std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes);
        data = ConstBytes(command.data_out.memory()).first(whole_blocks(unit, arrived));
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

/// Flushes everything, whatever range was named, and before its status even with IMMED: more than was asked for.
Task<ScsiResult> commands::synchronize_cache(LogicalUnit& unit, const ScsiCommand& /*command*/) {
    const Result<void> done = co_await unit.device().flush();
    co_return done ? good() : from_error(done.error());
}

}  // namespace gemel::scsi
