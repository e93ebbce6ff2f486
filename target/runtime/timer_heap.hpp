// SPDX-License-Identifier: Apache-2.0
// TimerHeap: the timers armed on one processor, a binary heap by deadline.
//
// Invariants:
//   TH1 While a timer is armed, timer.id is its place in the heap: cancel needs no search.
//   TH2 Equal deadlines fire in the order in which they were armed.
// Threads: the processor's own.
#pragma once

#include <cstdint>
#include <vector>

#include "gemel/clock.hpp"

namespace gemel {

class TimerHeap {
  public:
    [[nodiscard]] bool empty() const { return heap_.empty(); }
    /// REQUIRES: not empty.
    [[nodiscard]] TimePoint earliest() const { return heap_.front().due; }

    void arm(Timer& timer, TimePoint due);
    bool cancel(Timer& timer);
    /// Takes out the first timer that is due at `now`; nullptr if none is.
    Timer* take_due(TimePoint now);

  private:
    struct Entry {
        TimePoint due;
        std::uint64_t order;
        Timer* timer;
        [[nodiscard]] bool before(const Entry& o) const { return due != o.due ? due < o.due : order < o.order; }
    };
    void place(std::size_t at, const Entry& entry);
    void remove(std::size_t at);
    void sift_up(std::size_t at, const Entry& entry);
    void sift_down(std::size_t at, const Entry& entry);

    std::vector<Entry> heap_;
    std::uint64_t next_order_ = 0;
};

}  // namespace gemel
