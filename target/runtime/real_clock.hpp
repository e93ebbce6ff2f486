// SPDX-License-Identifier: Apache-2.0
// RealClock: the system's monotonic clock, and timers kept by the processor that arms them.
// Threads: now() any; arm() and cancel() on a processor's thread, cancel() on that of arm().
#pragma once

#include "gemel/clock.hpp"

namespace gemel {

class RealClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override;
    [[nodiscard]] std::int64_t unix_ns() const override;
    void arm(Timer& timer, TimePoint due) override;
    bool cancel(Timer& timer) override;
};

}  // namespace gemel
