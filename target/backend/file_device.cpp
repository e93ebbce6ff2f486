// SPDX-License-Identifier: Apache-2.0
#include "target/backend/file_device.hpp"

#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "target/backend/device_bounds.hpp"
#include "target/runtime/ring.hpp"

namespace gemel {

namespace {

constexpr int kEndOfFile = -1;  ///< beside errno values
constexpr int kMaxRetries = 100;
constexpr std::uint64_t kZeroBufferBytes = kMiB;
constexpr std::uint64_t kZeroRangeStep = kGiB;  ///< bounds how long one request keeps the file's lock

struct ErrnoRow {
    int error;
    Errc on_read;
    Errc on_write;
};
constexpr std::array kErrnoTable{
    ErrnoRow{EIO, Errc::kMediumError, Errc::kIo},
    ErrnoRow{EBADMSG, Errc::kMediumError, Errc::kIo},
    ErrnoRow{ENODATA, Errc::kMediumError, Errc::kIo},
    ErrnoRow{EILSEQ, Errc::kMediumError, Errc::kIo},
    ErrnoRow{EUCLEAN, Errc::kMediumError, Errc::kIo},
    ErrnoRow{ENOSPC, Errc::kNoSpace, Errc::kNoSpace},
    ErrnoRow{EDQUOT, Errc::kNoSpace, Errc::kNoSpace},
    ErrnoRow{EROFS, Errc::kReadOnly, Errc::kReadOnly},
    ErrnoRow{EPERM, Errc::kReadOnly, Errc::kReadOnly},
    ErrnoRow{ENODEV, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{ENXIO, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{EBADF, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{ESHUTDOWN, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{ESTALE, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{kEndOfFile, Errc::kDeviceGone, Errc::kDeviceGone},
    ErrnoRow{ENOMEM, Errc::kResources, Errc::kResources},
};

constexpr std::string_view command_text(DiskCommand command) {
    constexpr std::array<std::string_view, 5> texts{"reading", "writing", "flushing", "zeroing", "punching"};
    return texts[static_cast<std::size_t>(command)];
}

// Slots of the rings' file tables, one bit each (FD3). A device beyond them works with its plain descriptor.
std::array<std::atomic<std::uint64_t>, Ring::kFiles / 64> used_slots{};
std::atomic<std::uint64_t> last_ticket{0};

std::int32_t claim_slot() {
    for (std::size_t word = 0; word < used_slots.size(); ++word) {
        std::uint64_t bits = used_slots[word].load();
        while (~bits != 0) {
            const int bit = std::countr_one(bits);
            if (used_slots[word].compare_exchange_weak(bits, bits | (std::uint64_t{1} << bit))) {
                return static_cast<std::int32_t>(word * 64) + bit;
            }
        }
    }
    return -1;
}

void free_slot(std::int32_t slot) {
    if (slot >= 0) {
        used_slots[static_cast<std::size_t>(slot) / 64].fetch_and(~(std::uint64_t{1} << (slot % 64)));
    }
}

}  // namespace

FileDevice::FileDevice(Environment environment, OpenedFile file) : environment_(environment), file_(std::move(file)) {
    disk_file_ = DiskFile{file_.fd, claim_slot(), last_ticket.fetch_add(1) + 1};
    sectors_ = file_.bytes / kSectorBytes;
    limits_.alignment_sectors = std::max(1U, file_.offset_alignment / kSectorBytes);
    limits_.physical_sectors = std::max(limits_.alignment_sectors, file_.physical_bytes / kSectorBytes);
    limits_.volatile_cache = true;
}

FileDevice::~FileDevice() {
    for (std::atomic<Processor*>& user : users_) {
        if (Processor* processor = user.load(); processor != nullptr) {
            processor->forget_file(disk_file_);
        }
    }
    if (file_.locked) {
        // At once, though a ring's table may keep the open file a little longer.
        ::flock(file_.fd, LOCK_UN);
    }
    ::close(file_.fd);
    free_slot(disk_file_.slot);
}

DiskQueue& FileDevice::queue_here() {
    Processor& here = Processor::current();
    CHECK(here.index() < kMaxProcessors);
    std::atomic<Processor*>& user = users_[here.index()];
    if (user.load(std::memory_order_relaxed) == nullptr) {
        user.store(&here);
    }
    return here.disks();
}

bool FileDevice::is_aligned(MutableBytes data) const {
    return reinterpret_cast<std::uintptr_t>(data.data()) % file_.memory_alignment == 0;
}

Error FileDevice::error_of(DiskCommand command, int error, std::uint64_t offset, std::uint64_t bytes) const {
    Errc code = Errc::kIo;
    for (const ErrnoRow& row : kErrnoTable) {
        if (row.error == error) {
            code = command == DiskCommand::kRead ? row.on_read : row.on_write;
        }
    }
    const std::string reason = error == kEndOfFile ? "the file is shorter than it was" : std::strerror(error);
    return {code, file_.name + ": " + std::string(command_text(command)) + " " + std::to_string(bytes) +
                      " bytes at offset " + std::to_string(offset) + ": " + reason};
}

Result<void> FileDevice::check_usable() const {
    if (failed_.load(std::memory_order_relaxed)) {
        return fail(Errc::kDeviceGone, file_.name + ": a flush has failed; what was written before it may be lost");
    }
    return {};
}

Task<int> FileDevice::transfer(DiskCommand command, std::uint64_t offset, MutableBytes data, bool durable) {
    DiskQueue& queue = queue_here();
    int retries = 0;
    while (!data.empty()) {
        DiskRequest request;
        request.command = command;
        request.durable = durable;
        request.file = disk_file_;
        request.data = data.data();
        request.bytes = static_cast<std::uint32_t>(data.size());
        request.offset = offset;
        const std::int32_t moved = co_await disk_io(queue, request);
        if (moved == 0) {
            co_return command == DiskCommand::kRead ? kEndOfFile : EIO;
        }
        if (moved > 0) {
            // The rest begins at a multiple of what O_DIRECT wants, even if some bytes are moved again.
            auto step = static_cast<std::size_t>(moved);
            if (step < data.size()) {
                step = round_down(step, std::max(file_.offset_alignment, file_.memory_alignment));
                if (step == 0) {
                    co_return command == DiskCommand::kRead ? kEndOfFile : EIO;
                }
            }
            data = data.subspan(step);
            offset += step;
        } else if ((moved != -EAGAIN && moved != -EINTR) || ++retries > kMaxRetries) {
            co_return -moved;
        } else {
            co_await yield();
        }
    }
    co_return 0;
}

Task<Result<void>> FileDevice::read(Lba lba, Slice to, ReadOptions /*options*/) {
    CO_TRY_VOID(check_bounds(limits(), file_.name, lba, to.size(), limits_.max_transfer_bytes));
    CO_TRY_VOID(check_usable());
    if (is_aligned(to.data())) {
        co_return co_await read_aligned(byte_offset(lba), to);
    }
    CO_TRY(const Buffer bounce, environment_.buffers.allocate(to.size()));
    const Slice whole = bounce.slice(to.size(), lba);
    Result<void> result = co_await read_aligned(byte_offset(lba), whole);
    std::ranges::copy(whole.data(), to.data().begin());
    std::ranges::copy(whole.blocks(), to.blocks().begin());
    co_return result;
}

Task<Result<void>> FileDevice::read_aligned(std::uint64_t offset, Slice to) {
    to.clear_infos();
    const int error = co_await transfer(DiskCommand::kRead, offset, to.data(), false);
    if (error == 0) {
        co_return Result<void>{};
    }
    Error failure = error_of(DiskCommand::kRead, error, offset, to.size());
    if (failure.code != Errc::kMediumError) {
        to.mark_all(BlockStatus::kUnreadable);
        co_return std::unexpected(std::move(failure));
    }
    co_return co_await read_block_by_block(offset, to);
}

/// Finds out which blocks are bad, so that the others can be used.
Task<Result<void>> FileDevice::read_block_by_block(std::uint64_t offset, Slice to) {
    std::size_t bad = 0;
    std::uint64_t first_bad = 0;
    for (std::size_t i = 0; i < to.blocks().size(); ++i) {
        const MutableBytes block = to.block_data(i);
        const std::uint64_t at = offset + static_cast<std::uint64_t>(block.data() - to.data().data());
        const int error = co_await transfer(DiskCommand::kRead, at, block, false);
        if (error == 0) {
            continue;
        }
        if (Error failure = error_of(DiskCommand::kRead, error, at, block.size()); failure.code != Errc::kMediumError) {
            to.mark_all(BlockStatus::kUnreadable);
            co_return std::unexpected(std::move(failure));
        }
        first_bad = bad++ == 0 ? at : first_bad;
        to.mark(i, BlockStatus::kUnreadable);
    }
    if (bad == 0) {
        co_return Result<void>{};
    }
    co_return fail(Errc::kMediumError, file_.name + ": " + std::to_string(bad) + " of " +
                                           std::to_string(to.blocks().size()) +
                                           " blocks cannot be read, the first at offset " + std::to_string(first_bad));
}

Task<Result<void>> FileDevice::write(Lba lba, Slice from, WriteOptions options) {
    CO_TRY_VOID(check_bounds(limits(), file_.name, lba, from.size(), limits_.max_transfer_bytes));
    CO_TRY_VOID(check_usable());
    CO_TRY_VOID(from.verify());
    Buffer bounce;
    MutableBytes data = from.data();
    if (!is_aligned(data)) {
        CO_TRY(bounce, environment_.buffers.allocate(from.size()));
        data = bounce.memory().first(from.size());
        std::ranges::copy(from.data(), data.begin());
    }
    if (const int error = co_await transfer(DiskCommand::kWrite, byte_offset(lba), data, options.fua); error != 0) {
        co_return std::unexpected(error_of(DiskCommand::kWrite, error, byte_offset(lba), from.size()));
    }
    co_return Result<void>{};
}

Task<Result<void>> FileDevice::flush() {
    CO_TRY_VOID(check_usable());
    DiskRequest request;
    request.command = DiskCommand::kFlush;
    request.file = disk_file_;
    std::int32_t result = 0;
    int retries = 0;
    do {
        result = co_await disk_io(queue_here(), request);
    } while ((result == -EINTR || result == -EAGAIN) && ++retries < kMaxRetries);
    if (result < 0) {
        failed_.store(true, std::memory_order_relaxed);
        co_return std::unexpected(error_of(DiskCommand::kFlush, -result, 0, bytes_of(limits().sectors)));
    }
    co_return Result<void>{};
}

Task<Result<void>> FileDevice::discard(Lba lba, SectorCount count) {
    CO_TRY_VOID(check_bounds(limits(), file_.name, lba, bytes_of(count), bytes_of(limits().sectors)));
    CO_TRY_VOID(check_usable());
    const std::uint64_t start = byte_offset(lba);
    const std::uint64_t end = start + bytes_of(count);
    const std::uint64_t first = std::min(round_up(start, kBlockBytes), end);
    const std::uint64_t last = std::max(round_down(end, kBlockBytes), first);
    CO_TRY_VOID(co_await write_zeros(start, first - start));
    CO_TRY(bool zeroed, file_.thin ? co_await zero_by(kHole, first, last - first) : Result<bool>(false));
    if (!zeroed) {
        CO_TRY(zeroed, co_await zero_by(kRange, first, last - first));
    }
    if (!zeroed) {
        CO_TRY_VOID(co_await write_zeros(first, last - first));
    }
    co_return co_await write_zeros(last, end - last);
}

/// False if the file system or device cannot do it, or not now: the caller has another way.
Task<Result<bool>> FileDevice::zero_by(Way way, std::uint64_t offset, std::uint64_t bytes) {
    while (bytes > 0) {
        if (refused_[way].load(std::memory_order_relaxed)) {
            co_return false;
        }
        DiskRequest request;
        request.command = way == kHole ? DiskCommand::kPunchHole : DiskCommand::kZeroRange;
        request.file = disk_file_;
        request.offset = offset;
        request.length = std::min(bytes, kZeroRangeStep);
        const std::int32_t result = co_await disk_io(queue_here(), request);
        if (result == -EINTR || result == -EAGAIN) {
            co_await yield();
            continue;
        }
        if (result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL) {
            note_refused(way, -result);
            continue;
        }
        if (result == -ENOSPC || result == -EDQUOT) {
            co_return false;  // for the file system's own records of a hole
        }
        if (result < 0) {
            co_return std::unexpected(error_of(request.command, -result, offset, request.length));
        }
        offset += request.length;
        bytes -= request.length;
    }
    co_return true;
}

void FileDevice::note_refused(Way way, int error) {
    if (!refused_[way].exchange(true, std::memory_order_relaxed) && way == kHole) {
        environment_.events.emit({Severity::kWarning, "space-not-given-back", file_.name,
                                  std::string("holes are refused: ") + std::strerror(error) +
                                      "; what hosts discard reads as zeros and keeps its space",
                                  "move the member to a file system or device that can make holes, or ignore this"});
    }
}

Task<Result<void>> FileDevice::write_zeros(std::uint64_t offset, std::uint64_t bytes) {
    if (bytes == 0) {
        co_return Result<void>{};
    }
    CO_TRY(const Buffer zeros, environment_.buffers.allocate(std::min(bytes, kZeroBufferBytes)));
    std::ranges::fill(zeros.memory(), std::byte{0});
    while (bytes > 0) {
        const std::size_t step = std::min<std::uint64_t>(bytes, zeros.memory().size());
        const int error = co_await transfer(DiskCommand::kWrite, offset, zeros.memory().first(step), false);
        if (error != 0) {
            co_return std::unexpected(error_of(DiskCommand::kWrite, error, offset, step));
        }
        offset += step;
        bytes -= step;
    }
    co_return Result<void>{};
}

}  // namespace gemel
