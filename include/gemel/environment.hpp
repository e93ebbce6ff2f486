// SPDX-License-Identifier: Apache-2.0
// Environment: the world as raid/, replication/, target/iscsi and target/scsi see it. Everything that is not
// deterministic comes through here, so that the simulator can take its place.
#pragma once

#include "gemel/buffer.hpp"
#include "gemel/clock.hpp"
#include "gemel/event_sink.hpp"
#include "gemel/executor.hpp"
#include "gemel/random.hpp"
#include "gemel/stream.hpp"

namespace gemel {

struct Environment {
    Clock& clock;
    Random& random;
    BufferPool& buffers;
    EventSink& events;
    Network& network;
    /// Changes exactly when the machine may have lost power: the kernel's boot id. The simulator's is its own.
    Uuid boot_id;
};

}  // namespace gemel
