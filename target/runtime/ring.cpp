// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/ring.hpp"

#include <fcntl.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace gemel {

namespace {

constexpr unsigned kSizes = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;

/// Best first. DEFER_TASKRUN (6.1): completions are made when this thread asks for them, not by interrupting it.
constexpr std::array<unsigned, 3> kSetups{
    kSizes | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    kSizes | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    kSizes,
};

}  // namespace

Result<std::unique_ptr<Ring>> Ring::open(const DiskQueueOptions& options, int wake_fd) {
    int error = 0;
    for (const unsigned flags : kSetups) {
        io_uring ring{};
        io_uring_params params{};
        params.flags = flags;
        params.cq_entries = kCompletions;
        error = io_uring_queue_init_params(kSubmissions, &ring, &params);
        if (error != 0) {
            continue;
        }
        std::unique_ptr<Ring> made(new Ring(ring, options, flags));
        error = io_uring_register_eventfd(&made->ring_, wake_fd);
        if (error != 0) {
            continue;
        }
        made->disarm_events();
        made->register_tables();
        return made;
    }
    return fail(Errc::kUnsupported, std::string("io_uring is refused here: ") + std::strerror(-error));
}

Ring::Ring(const io_uring& ring, DiskQueueOptions options, unsigned flags)
    : ring_(ring), options_(std::move(options)), flags_(flags) {}

Ring::~Ring() {
    io_uring_queue_exit(&ring_);
}

void Ring::register_tables() {
    files_usable_ = io_uring_register_files_sparse(&ring_, kFiles) == 0;
    tickets_.assign(kFiles, 0);
    const std::size_t pieces = options_.memory.bytes / options_.memory.piece_bytes;
    memory_usable_ = pieces > 0 && io_uring_register_buffers_sparse(&ring_, static_cast<unsigned>(pieces)) == 0;
    pieces_.assign(pieces, false);
}

std::string Ring::describe() const {
    return (flags_ & IORING_SETUP_DEFER_TASKRUN) != 0 ? "io_uring (deferred completions)" : "io_uring";
}

void Ring::start(DiskRequest& request) {
    if (waiting_ == 0 && prepare(request)) {
        return;
    }
    request.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &request;
    last_ = &request;
    ++waiting_;
}

bool Ring::prepare(DiskRequest& request) {
    if (in_kernel_ >= kCompletions) {
        return false;
    }
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
        return false;
    }
    const bool registered = use_registered_file(request.file);
    const int fd = registered ? request.file.slot : request.file.fd;
    switch (request.command) {
        case DiskCommand::kRead:
        case DiskCommand::kWrite:
            prepare_transfer(*sqe, request, fd);
            break;
        case DiskCommand::kFlush:
            io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
            break;
        case DiskCommand::kZeroRange:
        case DiskCommand::kPunchHole:
            io_uring_prep_fallocate(sqe, fd, fallocate_mode(request.command), static_cast<off_t>(request.offset),
                                    static_cast<off_t>(request.length));
            break;
    }
    if (registered) {
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    }
    io_uring_sqe_set_data(sqe, &request);
    ++in_kernel_;
    return true;
}

void Ring::prepare_transfer(io_uring_sqe& sqe, const DiskRequest& request, int fd) {
    const bool write = request.command == DiskCommand::kWrite;
    unsigned piece = 0;
    if (use_registered_memory(request, piece)) {
        ++fixed_requests_;
        if (write) {
            io_uring_prep_write_fixed(&sqe, fd, request.data, request.bytes, request.offset, static_cast<int>(piece));
        } else {
            io_uring_prep_read_fixed(&sqe, fd, request.data, request.bytes, request.offset, static_cast<int>(piece));
        }
    } else if (write) {
        io_uring_prep_write(&sqe, fd, request.data, request.bytes, request.offset);
    } else {
        io_uring_prep_read(&sqe, fd, request.data, request.bytes, request.offset);
    }
    if (write && request.durable) {
        sqe.rw_flags = RWF_DSYNC;
    }
}

bool Ring::use_registered_file(const DiskFile& file) {
    if (!files_usable_ || file.slot < 0 || file.slot >= static_cast<std::int32_t>(kFiles)) {
        return false;
    }
    std::uint64_t& ticket = tickets_[static_cast<std::size_t>(file.slot)];
    if (ticket != file.ticket) {
        int fd = file.fd;
        if (io_uring_register_files_update(&ring_, static_cast<unsigned>(file.slot), &fd, 1) != 1) {
            return false;
        }
        ticket = file.ticket;
    }
    return true;
}

void Ring::forget_file(const DiskFile& file) {
    if (!files_usable_ || file.slot < 0 || tickets_[static_cast<std::size_t>(file.slot)] != file.ticket) {
        return;
    }
    int none = -1;
    io_uring_register_files_update(&ring_, static_cast<unsigned>(file.slot), &none, 1);
    tickets_[static_cast<std::size_t>(file.slot)] = 0;
}

bool Ring::use_registered_memory(const DiskRequest& request, unsigned& piece) {
    const FixedMemory& memory = options_.memory;
    if (!memory_usable_ || request.data < memory.base || request.data >= memory.base + memory.bytes) {
        return false;
    }
    const std::size_t number = static_cast<std::size_t>(request.data - memory.base) / memory.piece_bytes;
    piece = static_cast<unsigned>(number);
    if (pieces_[number]) {
        return true;
    }
    const iovec vec{memory.base + number * memory.piece_bytes, memory.piece_bytes};
    const int error = io_uring_register_buffers_update_tag(&ring_, piece, &vec, nullptr, 1);
    if (error < 0) {
        memory_usable_ = false;
        if (options_.notice) {
            options_.notice(std::string("buffers cannot be registered with io_uring: ") + std::strerror(-error) +
                            "; disks work without, somewhat slower. Raise RLIMIT_MEMLOCK (LimitMEMLOCK=) to the "
                            "daemon's memory times its I/O processors");
        }
        return false;
    }
    pieces_[number] = true;
    return true;
}

bool Ring::completions_wait() const {
    const unsigned flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_SEQ_CST);
    return io_uring_cq_ready(&ring_) > 0 || (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

std::size_t Ring::submit_and_reap() {
    while (first_ != nullptr) {
        Work* next = first_->next;
        if (!prepare(static_cast<DiskRequest&>(*first_))) {
            break;
        }
        first_ = next;
        --waiting_;
    }
    if (io_uring_sq_ready(&ring_) > 0) {
        // EAGAIN, EBUSY, EINTR: what was not taken stays in the queue for the next turn.
        const int taken = io_uring_submit_and_get_events(&ring_);
        CHECK(taken >= 0 || taken == -EAGAIN || taken == -EBUSY || taken == -EINTR);
    } else if (in_kernel_ > 0 && io_uring_cq_ready(&ring_) == 0 && completions_wait()) {
        io_uring_get_events(&ring_);
    }
    return in_kernel_ > 0 ? reap() : 0;
}

std::size_t Ring::reap() {
    std::size_t total = 0;
    std::array<io_uring_cqe*, 64> entries{};
    std::array<Work*, 64> done{};
    // At most what was there at the start, so that requests started by the completed ones are submitted soon.
    unsigned left = io_uring_cq_ready(&ring_);
    while (left > 0) {
        const unsigned n = io_uring_peek_batch_cqe(&ring_, entries.data(), std::min<unsigned>(left, entries.size()));
        if (n == 0) {
            break;
        }
        for (unsigned i = 0; i < n; ++i) {
            auto& request = *static_cast<DiskRequest*>(io_uring_cqe_get_data(entries[i]));
            request.result = entries[i]->res;
            done[i] = &request;
        }
        io_uring_cq_advance(&ring_, n);
        in_kernel_ -= n;
        for (unsigned i = 0; i < n; ++i) {
            done[i]->run(*done[i]);
        }
        total += n;
        left -= n;
    }
    return total;
}

bool Ring::arm_events() {
    if (io_uring_sq_ready(&ring_) > 0 || (first_ != nullptr && in_kernel_ < kCompletions)) {
        return true;
    }
    if (in_kernel_ == 0) {
        return false;
    }
    io_uring_cq_eventfd_toggle(&ring_, true);
    // The kernel makes a completion known and then looks at the flag; here it is the other way round.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return completions_wait();
}

void Ring::disarm_events() {
    io_uring_cq_eventfd_toggle(&ring_, false);
}

}  // namespace gemel
