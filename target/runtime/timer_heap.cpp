// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/timer_heap.hpp"

namespace gemel {

void TimerHeap::arm(Timer& timer, TimePoint due) {
    CHECK(!timer.armed);
    timer.due = due;
    timer.armed = true;
    heap_.emplace_back();
    sift_up(heap_.size() - 1, Entry{due, next_order_++, &timer});
}

bool TimerHeap::cancel(Timer& timer) {
    if (!timer.armed) {
        return false;
    }
    CHECK(timer.id < heap_.size() && heap_[timer.id].timer == &timer);
    remove(timer.id);
    return true;
}

Timer* TimerHeap::take_due(TimePoint now) {
    if (heap_.empty() || heap_.front().due > now) {
        return nullptr;
    }
    Timer* timer = heap_.front().timer;
    remove(0);
    return timer;
}

void TimerHeap::place(std::size_t at, const Entry& entry) {
    heap_[at] = entry;
    entry.timer->id = at;
}

void TimerHeap::remove(std::size_t at) {
    heap_[at].timer->armed = false;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) {
        return;
    }
    if (at > 0 && last.before(heap_[(at - 1) / 2])) {
        sift_up(at, last);
    } else {
        sift_down(at, last);
    }
}

void TimerHeap::sift_up(std::size_t at, const Entry& entry) {
    while (at > 0 && entry.before(heap_[(at - 1) / 2])) {
        place(at, heap_[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(at, entry);
}

void TimerHeap::sift_down(std::size_t at, const Entry& entry) {
    for (;;) {
        std::size_t child = 2 * at + 1;
        if (child >= heap_.size()) {
            break;
        }
        if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) {
            ++child;
        }
        if (!heap_[child].before(entry)) {
            break;
        }
        place(at, heap_[child]);
        at = child;
    }
    place(at, entry);
}

}  // namespace gemel
