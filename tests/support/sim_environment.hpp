// SPDX-License-Identifier: Apache-2.0
// SimEnvironment: the Environment of one simulated node. Its boot id changes when the node loses power, and only then.
// Threads: the simulator's one.
#pragma once

#include "gemel/environment.hpp"
#include "tests/support/heap_pool.hpp"
#include "tests/support/recording_events.hpp"
#include "tests/support/sim_network.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::sim {

class SimEnvironment {
  public:
    /// `name` is the node's host name in `network`.
    SimEnvironment(SimScheduler& scheduler, SimNetwork& network, const std::string& name, std::uint64_t seed)
        : random_(seed), environment_{scheduler, random_, buffers_, events_, network.host(name), random_.uuid()} {}

    [[nodiscard]] Environment& get() { return environment_; }
    [[nodiscard]] RecordingEvents& events() { return events_; }
    [[nodiscard]] HeapPool& pool() { return buffers_; }
    [[nodiscard]] SeededRandom& random() { return random_; }
    /// The machine restarts after a power cut: another boot id.
    void power_lost() { environment_.boot_id = random_.uuid(); }

  private:
    SeededRandom random_;
    HeapPool buffers_;
    RecordingEvents events_;
    Environment environment_;
};

}  // namespace gemel::sim
