// SPDX-License-Identifier: Apache-2.0
// Runtime: the real Environment and the processors, made together in the right order.
// Threads: made and destroyed on the main thread; the parts as they say.
#pragma once

#include <memory>

#include "gemel/environment.hpp"
#include "target/runtime/arena_pool.hpp"
#include "target/runtime/processor.hpp"
#include "target/runtime/real_clock.hpp"
#include "target/runtime/system_random.hpp"
#include "target/runtime/tcp_network.hpp"

namespace gemel {

struct RuntimeOptions {
    unsigned io_processors = 0;  ///< 0: as many as cores; at most ProcessorPool::kMostIoProcessors
    bool pin = false;
    std::size_t memory_bytes = 256U << 20U;  ///< bound of all buffers
    bool huge_pages = false;
    bool register_buffers = true;
    DiskQueueKind disks = DiskQueueKind::kAutomatic;  ///< GEMEL_DISK_QUEUE=ring|threads in the environment wins
    Duration max_spin{0};                             ///< before sleeping, at most 50 us make sense; see README
};

class Runtime {
  public:
    /// Nothing runs yet: processors().start() and processors().run_main() do that. `events` outlives it.
    /// Errors: kResources; kIo if the boot id cannot be read.
    static Result<std::unique_ptr<Runtime>> create(const RuntimeOptions& options, EventSink& events);

    ProcessorPool& processors() { return *processors_; }
    ArenaPool& buffers() { return *buffers_; }
    TcpNetwork& network() { return network_; }
    const Environment& environment() const { return environment_; }

  private:
    Runtime(std::unique_ptr<ArenaPool> buffers, std::unique_ptr<ProcessorPool> processors, EventSink& events,
            Uuid boot_id);

    RealClock clock_;
    SystemRandom random_;
    TcpNetwork network_;
    std::unique_ptr<ArenaPool> buffers_;
    std::unique_ptr<ProcessorPool> processors_;
    Environment environment_;
};

/// /proc/sys/kernel/random/boot_id. Errors: kIo.
Result<Uuid> read_boot_id();

}  // namespace gemel
