// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

constexpr int kReadTries = 4;

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

}  // namespace

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

std::optional<ScsiResult> refused_now(const LogicalUnit& unit, const ScsiCommand& command) {
    if (unit.keeps_out(*command.nexus, *command.plan.row)) {
        return after_transfer(with_status(Status::kReservationConflict), command);
    }
    if (!unit.medium_present() && needs_medium(*command.plan.row)) {
        return after_transfer(check_condition({.code = kMediumNotPresent}), command);
    }
    if (unit.write_protected() && writes_medium(*command.plan.row)) {
        return after_transfer(check_condition({.code = kWriteProtected}), command);
    }
    return std::nullopt;
}

ScsiResult after_transfer(ScsiResult result, const ScsiCommand& command) {
    result.transfer_bytes = command.plan.transfer_bytes;
    return result;
}

std::size_t usable_bytes(const LogicalUnit& unit, const ScsiCommand& command) {
    return round_down(std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes),
                      unit.options().block_bytes);
}

Result<Buffer> sealed_copy(LogicalUnit& unit, const ScsiCommand& command, std::size_t from, std::size_t bytes) {
    TRY(Buffer buffer, unit.environment().buffers.allocate(bytes));
    std::ranges::copy(command.data_out.memory().subspan(from, bytes), buffer.memory().begin());
    buffer.slice(bytes, command.plan.lba).seal();
    return buffer;
}

bool write_through(const LogicalUnit& unit, const ScsiCommand& command) {
    const bool fua = command.plan.row->cdb_bytes > 6 && (cdb_byte(command.cdb, 1) & 0x08U) != 0;
    return fua || unit.mode().write_cache_off();
}

std::optional<std::size_t> first_difference(ConstBytes a, ConstBytes b) {
    const auto difference = std::ranges::mismatch(a, b);
    if (difference.in1 == a.end()) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(difference.in1 - a.begin());
}

}  // namespace gemel::scsi
