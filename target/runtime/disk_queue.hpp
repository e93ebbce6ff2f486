// SPDX-License-Identifier: Apache-2.0
// DiskQueue: the disk requests of one processor. Two implementations: Ring (io_uring) and BlockingQueue (threads with
// preadv2 and pwritev2), for machines on which io_uring is refused.
//
// Invariants:
//   DQ1 A request is borrowed from start() until its `run` is called, on the processor's thread and never inside
//       start().
//   DQ2 A descriptor's entry in the table of registered files is renewed when its slot's ticket changes; forget_file()
//       drops it, since a registered file keeps the open file (and its locks) alive.
// Threads: all calls on the processor's own.
#pragma once

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "gemel/executor.hpp"
#include "gemel/result.hpp"

namespace gemel {

enum class DiskCommand : std::uint8_t { kRead, kWrite, kFlush, kZeroRange, kPunchHole };

/// fallocate(2)'s mode for kZeroRange, whose space stays allocated, and kPunchHole, whose space is given back.
int fallocate_mode(DiskCommand command);

/// Names an open file to the queues of all processors. `slot` is a place in the tables of registered files, `ticket`
/// tells a new user of the slot from an old one. slot < 0: not registered, the plain descriptor is used.
struct DiskFile {
    int fd = -1;
    std::int32_t slot = -1;
    std::uint64_t ticket = 0;
};

/// One request. `result`: bytes moved, or a negative errno.
struct DiskRequest : ResumeWork {
    DiskCommand command = DiskCommand::kRead;
    bool durable = false;  ///< a write with RWF_DSYNC
    DiskFile file;
    std::byte* data = nullptr;
    std::uint32_t bytes = 0;   ///< of data
    std::uint64_t offset = 0;  ///< in the file
    std::uint64_t length = 0;  ///< of kZeroRange and kPunchHole
    std::int32_t result = 0;
};

/// Memory that may be registered with a ring: `bytes` from `base`, in pieces of `piece_bytes`.
struct FixedMemory {
    std::byte* base = nullptr;
    std::size_t bytes = 0;
    std::size_t piece_bytes = 1;
};

enum class DiskQueueKind : std::uint8_t { kAutomatic, kRing, kBlocking };

struct DiskQueueOptions {
    DiskQueueKind kind = DiskQueueKind::kAutomatic;
    FixedMemory memory;  ///< empty: nothing is registered
    /// Told at most once per queue and reason, e.g. that RLIMIT_MEMLOCK refuses registration. May be empty. Any thread.
    std::function<void(std::string)> notice;
};

class DiskQueue {
  public:
    virtual ~DiskQueue() = default;

    /// Takes the request; it reaches the system at the next submit_and_reap().
    virtual void start(DiskRequest& request) = 0;
    /// Hands what was started to the system in one call, and runs what has completed. Returns how many completed.
    virtual std::size_t submit_and_reap() = 0;
    /// Before sleeping: true if a completion or an unsubmitted request waits (do not sleep); otherwise wake_fd is
    /// written at the next completion.
    virtual bool arm_events() = 0;
    virtual void disarm_events() = 0;
    virtual void forget_file(const DiskFile& file) = 0;
    [[nodiscard]] virtual std::size_t in_flight() const = 0;
    [[nodiscard]] virtual std::string describe() const = 0;  ///< "io_uring", "threads"
};

/// Makes the queue of the calling thread. `wake_fd`: an eventfd that is written when a completion waits and events are
/// armed. Errors: kUnsupported: io_uring was asked for and is refused; kResources.
Result<std::unique_ptr<DiskQueue>> open_disk_queue(const DiskQueueOptions& options, int wake_fd);

/// co_await disk_io(queue, request): starts it and waits. Ends on the queue's processor.
class disk_io {
  public:
    disk_io(DiskQueue& queue, DiskRequest& request) : queue_(queue), request_(request) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) {
        request_.handle = h;
        queue_.start(request_);
    }
    [[nodiscard]] std::int32_t await_resume() const noexcept { return request_.result; }

  private:
    DiskQueue& queue_;
    DiskRequest& request_;
};

}  // namespace gemel
