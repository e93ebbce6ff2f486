// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/runtime.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace gemel {

namespace {

constexpr const char* kBootIdFile = "/proc/sys/kernel/random/boot_id";

/// What the environment says, else what the configuration says.
DiskQueueKind choose_queue(DiskQueueKind configured) {
    const char* text = std::getenv("GEMEL_DISK_QUEUE");
    const std::string_view wanted = text == nullptr ? "" : text;
    if (wanted == "ring") {
        return DiskQueueKind::kRing;
    }
    return wanted == "threads" ? DiskQueueKind::kBlocking : configured;
}

/// Every ring has the same notice; one event is enough.
std::function<void(std::string)> notice_once(EventSink& events) {
    auto told = std::make_shared<std::atomic<bool>>(false);
    return [&events, told](std::string text) {
        if (!told->exchange(true)) {
            events.emit(EventRecord{Severity::kWarning, "disk-queue-degraded", "disk requests", std::move(text), ""});
        }
    };
}

}  // namespace

Result<Uuid> read_boot_id() {
    std::ifstream file(kBootIdFile);
    std::string text;
    std::getline(file, text);
    std::erase(text, '-');
    const std::optional<Uuid> id = Uuid::parse(text);
    if (!id) {
        return fail(Errc::kIo, std::string(kBootIdFile) +
                                   " cannot be read: without it a power loss cannot be told from a "
                                   "restart; is /proc mounted?");
    }
    return *id;
}

Result<std::unique_ptr<Runtime>> Runtime::create(const RuntimeOptions& options, EventSink& events) {
    TRY(const Uuid boot_id, read_boot_id());
    const unsigned wanted =
        options.io_processors == 0 ? std::max(1U, std::thread::hardware_concurrency()) : options.io_processors;
    const unsigned count = std::min(ProcessorPool::kMostIoProcessors, wanted);
    ArenaOptions arenas;
    arenas.bytes = options.memory_bytes;
    arenas.arenas = count + 1;
    arenas.huge_pages = options.huge_pages;
    TRY(auto buffers, ArenaPool::create(arenas));

    PoolOptions pool;
    pool.io_processors = count;
    pool.pin = options.pin;
    pool.max_spin = options.max_spin;
    pool.disks.kind = choose_queue(options.disks);
    pool.disks.notice = notice_once(events);
    if (options.register_buffers) {
        pool.disks.memory = buffers->fixed_memory();
    }
    auto processors = std::make_unique<ProcessorPool>(pool);
    return std::unique_ptr<Runtime>(new Runtime(std::move(buffers), std::move(processors), events, boot_id));
}

Runtime::Runtime(std::unique_ptr<ArenaPool> buffers, std::unique_ptr<ProcessorPool> processors, EventSink& events,
                 Uuid boot_id)
    : network_(clock_),
      buffers_(std::move(buffers)),
      processors_(std::move(processors)),
      environment_{clock_, random_, *buffers_, events, network_, boot_id} {}

}  // namespace gemel
