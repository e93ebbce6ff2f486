// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/real_clock.hpp"

#include <chrono>

#include "target/runtime/processor.hpp"
#include "target/runtime/timer_heap.hpp"

namespace gemel {

TimePoint RealClock::now() const {
    return TimePoint(std::chrono::steady_clock::now().time_since_epoch());
}

std::int64_t RealClock::unix_ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

void RealClock::arm(Timer& timer, TimePoint due) {
    Processor& here = Processor::current();
    timer.home = &here;
    here.timers().arm(timer, due);
}

bool RealClock::cancel(Timer& timer) {
    if (!timer.armed) {
        return false;
    }
    CHECK(timer.home == &Processor::current());
    return Processor::current().timers().cancel(timer);
}

}  // namespace gemel
