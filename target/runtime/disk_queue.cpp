// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/disk_queue.hpp"

#include <fcntl.h>

#include "target/runtime/blocking_queue.hpp"
#include "target/runtime/ring.hpp"

namespace gemel {

int fallocate_mode(DiskCommand command) {
    return FALLOC_FL_KEEP_SIZE | (command == DiskCommand::kPunchHole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

Result<std::unique_ptr<DiskQueue>> open_disk_queue(const DiskQueueOptions& options, int wake_fd) {
    if (options.kind != DiskQueueKind::kBlocking) {
        auto ring = Ring::open(options, wake_fd);
        if (ring) {
            return *std::move(ring);
        }
        if (options.kind == DiskQueueKind::kRing) {
            return std::unexpected(std::move(ring).error());
        }
        if (options.notice) {
            options.notice(ring.error().message + "; disks are served by threads instead, with more CPU per request");
        }
    }
    TRY(auto threads, BlockingQueue::open(wake_fd));
    return threads;
}

}  // namespace gemel
