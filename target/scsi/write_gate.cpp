// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/write_gate.hpp"

#include <algorithm>

namespace gemel::scsi {

WriteGate::~WriteGate() {
    CHECK(empty() && !taken_ && alone_.empty() && passing_.empty());
}

/// Threads are few; two on one lane are only slower.
std::size_t WriteGate::my_lane() {
    static std::atomic<std::size_t> next{0};
    static thread_local const std::size_t lane = next.fetch_add(1, std::memory_order_relaxed) % kLanes;
    return lane;
}

bool WriteGate::empty() const {
    return std::ranges::all_of(lanes_, [](const Lane& l) { return l.inside.load(std::memory_order_seq_cst) == 0; });
}

// Whoever passes enters its lane first and looks at `closed_` then; whoever wants to be alone closes first and looks at
// the lanes then. So one of the two sees the other (sequential consistency of the four operations).
WriteGate::Pass WriteGate::try_pass() {
    const std::size_t lane = my_lane();
    lanes_[lane].inside.fetch_add(1, std::memory_order_seq_cst);
    if (!closed_.load(std::memory_order_seq_cst)) {
        return {*this, lane};
    }
    leave(lane);
    return {};
}

void WriteGate::leave(std::size_t lane) {
    lanes_[lane].inside.fetch_sub(1, std::memory_order_seq_cst);
    if (closed_.load(std::memory_order_seq_cst)) {
        const std::scoped_lock lock(mutex_);
        admit_alone();
    }
}

void WriteGate::admit_alone() {
    if (taken_ || alone_.empty() || !empty()) {
        return;
    }
    taken_ = true;
    resume(*alone_.front());
    alone_.pop_front();
}

/// Those that wait to pass go first, so that a row of others does not keep them out (WG3).
void WriteGate::open() {
    const std::scoped_lock lock(mutex_);
    taken_ = false;
    if (alone_.empty()) {
        closed_.store(false, std::memory_order_seq_cst);
    }
    for (const auto& [waiter, lane] : passing_) {
        lanes_[lane].inside.fetch_add(1, std::memory_order_seq_cst);
        resume(*waiter);
    }
    passing_.clear();
    admit_alone();
}

struct WriteGate::WaitToPass : Waiter {
    WriteGate& gate;
    std::size_t lane = my_lane();
    explicit WaitToPass(WriteGate& g) : gate(g) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> h) {
        handle = h;
        const std::scoped_lock lock(gate.mutex_);
        if (!gate.closed_.load(std::memory_order_seq_cst)) {  // only open() does that, under the mutex
            gate.lanes_[lane].inside.fetch_add(1, std::memory_order_seq_cst);
            return false;
        }
        executor = &Executor::current();
        gate.passing_.emplace_back(this, lane);
        return true;
    }
    [[nodiscard]] Pass await_resume() const noexcept { return {gate, lane}; }
};

struct WriteGate::WaitAlone : Waiter {
    WriteGate& gate;
    explicit WaitAlone(WriteGate& g) : gate(g) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> h) {
        handle = h;
        const std::scoped_lock lock(gate.mutex_);
        gate.closed_.store(true, std::memory_order_seq_cst);
        if (!gate.taken_ && gate.alone_.empty() && gate.empty()) {
            gate.taken_ = true;
            return false;
        }
        executor = &Executor::current();
        gate.alone_.push_back(this);
        return true;
    }
    [[nodiscard]] Alone await_resume() const noexcept { return Alone(gate); }
};

Task<WriteGate::Pass> WriteGate::pass() {
    co_return co_await WaitToPass(*this);
}

Task<WriteGate::Alone> WriteGate::alone() {
    co_return co_await WaitAlone(*this);
}

}  // namespace gemel::scsi
