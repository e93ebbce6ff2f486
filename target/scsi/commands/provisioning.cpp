// SPDX-License-Identifier: Apache-2.0
// UNMAP and WRITE SAME (SBC-3 5.28, 5.41, 5.42). Both end in a discard of the device, which reads as zeros afterwards
// (LBPRZ), or in writes of the pattern.
//
// Invariants:
//   PV1  An UNMAP parameter list is judged as a whole before any of it is done.
//   PV2  What one command may name is bounded (VPD B0), so that none runs for hours, and it is done in pieces of 4 MiB
//        that end where the device's stripes do: each passes the gate by itself, and a mirror acknowledges each.
//   PV3  Space is given back only where the initiator asks for it: WRITE SAME without UNMAP leaves the blocks mapped.
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

constexpr std::size_t kUnmapHeader = 8;
constexpr std::size_t kUnmapDescriptor = 16;
constexpr std::size_t kPatternBytes = 256U << 10U;
constexpr std::uint64_t kPieceSectors = (4U << 20U) / kSectorBytes;

/// One piece of a command: it passes the gate by itself, so that nobody who wants it alone waits for the whole command.
Task<std::optional<ScsiResult>> run_piece(LogicalUnit& unit, const ScsiCommand& command, Lba lba, SectorCount sectors,
                                          Slice pattern) {
    const WriteGate::Pass pass = co_await unit.gate().pass();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return refusal;
    }
    const Result<void> done =
        pattern.empty() ? co_await unit.device().discard(lba, sectors) : co_await unit.device().write(lba, pattern, {});
    co_return done ? std::nullopt : std::optional(after_transfer(from_error(done.error()), command));
}

/// Where a piece that begins at `lba` ends, so that the device can give back the space of all that a range covers.
std::uint64_t piece_sectors(const DeviceLimits& limits, Lba lba) {
    const std::uint64_t unit = limits.discard_unit;
    const std::uint64_t piece = std::max(unit, round_down(kPieceSectors, unit));
    return piece - (lba.value + unit - limits.discard_first % unit) % unit;
}

/// Zeros over the range.
Task<std::optional<ScsiResult>> discard(LogicalUnit& unit, const ScsiCommand& command, Lba lba, SectorCount sectors) {
    const DeviceLimits limits = unit.device().limits();
    for (std::uint64_t done = 0; done < sectors.value;) {
        const SectorCount piece(std::min(piece_sectors(limits, lba + done), sectors.value - done));
        if (std::optional<ScsiResult> failed = co_await run_piece(unit, command, lba + done, piece, {})) {
            co_return failed;
        }
        done += piece.value;
    }
    co_return std::nullopt;
}

/// The end of a command: what it changed is durable where every write is.
Task<ScsiResult> finish(LogicalUnit& unit, const ScsiCommand& command) {
    if (unit.mode().write_cache_off()) {
        if (const Result<void> done = co_await unit.device().flush(); !done) {
            co_return after_transfer(from_error(done.error()), command);
        }
    }
    co_return after_transfer(good(), command);
}

/// Why the parameter list cannot be done; its descriptors go to `out`, without those that name nothing.
std::optional<ScsiResult> read_descriptors(const LogicalUnit& unit, ConstBytes list, std::vector<Extent>& out) {
    if (list.size() < kUnmapHeader) {
        return check_condition({.code = kParameterListLength});
    }
    const std::size_t bytes = std::min<std::size_t>(load_be<std::uint16_t>(&list[2]), list.size() - kUnmapHeader);
    const std::size_t descriptors = bytes / kUnmapDescriptor;  // an incomplete one at the end is ignored
    if (descriptors > kMaxUnmapDescriptors) {
        return invalid_parameter(2);
    }
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < descriptors; ++i) {
        const std::size_t at = kUnmapHeader + i * kUnmapDescriptor;
        const auto lba = load_be<std::uint64_t>(&list[at]);
        const std::uint64_t count = load_be<std::uint32_t>(&list[at + 8]);
        if (lba > unit.blocks() || count > unit.blocks() - lba) {
            return check_condition({.code = kLbaOutOfRange, .information = lba});
        }
        total += count;
        if (total > unit.max_unmap_blocks()) {
            return invalid_parameter(at + 8);
        }
        if (count != 0) {
            out.push_back({Lba(lba * unit.sectors_per_block()), SectorCount(count * unit.sectors_per_block())});
        }
    }
    return std::nullopt;
}

/// The pattern, one block, again and again.
Task<std::optional<ScsiResult>> write_pattern(LogicalUnit& unit, const ScsiCommand& command, ConstBytes block) {
    const std::size_t all = bytes_of(command.plan.sectors);
    const std::size_t step =
        round_down(std::min<std::size_t>({all, kPatternBytes, unit.max_transfer_bytes()}), block.size());
    const Result<Buffer> buffer = unit.environment().buffers.allocate(step);
    if (!buffer) {
        co_return after_transfer(from_error(buffer.error()), command);
    }
    for (std::size_t at = 0; at < step; at += block.size()) {
        std::ranges::copy(block, buffer->memory().subspan(at).begin());
    }
    for (std::size_t at = 0; at < all; at += step) {
        const Lba lba = command.plan.lba + at / kSectorBytes;
        const Slice part = buffer->slice(std::min(step, all - at), lba);
        part.seal();
        if (std::optional<ScsiResult> failed = co_await run_piece(unit, command, lba, part.sectors(), part)) {
            co_return failed;
        }
    }
    co_return std::nullopt;
}

}  // namespace

Task<ScsiResult> commands::unmap(LogicalUnit& unit, const ScsiCommand& command) {
    if (command.plan.transfer_bytes == 0) {
        co_return good();
    }
    const std::size_t bytes = std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes);
    std::vector<Extent> extents;
    if (std::optional<ScsiResult> wrong = read_descriptors(
            unit, bytes == 0 ? ConstBytes() : ConstBytes(command.data_out.memory()).first(bytes), extents)) {
        co_return after_transfer(*std::move(wrong), command);
    }
    for (const Extent& e : extents) {
        if (std::optional<ScsiResult> failed = co_await discard(unit, command, e.lba, e.sectors)) {
            co_return *std::move(failed);
        }
    }
    co_return co_await finish(unit, command);
}

/// A block of zeros, or none (NDOB), is a discard with UNMAP, and without it where that gives no space back (PV3).
Task<ScsiResult> commands::write_same(LogicalUnit& unit, const ScsiCommand& command) {
    static constexpr std::array<std::byte, kBlockBytes> kZeros{};
    constexpr std::byte kUnmap{0x08};
    const bool no_data = command.plan.direction == DataDirection::kNone;
    const ConstBytes block =
        (no_data ? ConstBytes(kZeros) : ConstBytes(command.data_out.memory())).first(unit.options().block_bytes);
    const bool unmaps = (command.cdb[1] & kUnmap) != std::byte{0} || !unit.device().limits().gives_back;
    std::optional<ScsiResult> failed = unmaps && all_zero(block)
                                           ? co_await discard(unit, command, command.plan.lba, command.plan.sectors)
                                           : co_await write_pattern(unit, command, block);
    if (failed) {
        co_return *std::move(failed);
    }
    co_return co_await finish(unit, command);
}

}  // namespace gemel::scsi
