// SPDX-License-Identifier: Apache-2.0
// The part of a connection that gives commands their memory out of the session's share (memory_share.hpp).
//
// A command whose data must wait for memory waits only while something of its session that does not wait itself holds
// memory, whose end then serves it. So neither sessions nor the commands of one wait for one another: where those that
// wait hold all that the session has, the first takes what it wants, or is answered BUSY and leaves its own to the
// next. Data that comes unasked has to be put somewhere: the window admits no more commands than half of the share's
// room holds data of, that room is kept for them while others hold memory, and a command gets at least a buffer for its
// unasked data; the buffer of the whole follows before the first R2T.
#include "target/iscsi/connection.hpp"

namespace gemel::iscsi {

namespace {

/// Of a command that is not a write: the data that it may return. Units move no more than this at a time.
constexpr std::size_t kMostDataIn = 4U << 20U;

}  // namespace

bool Connection::give_buffer(ScsiTask& task, std::size_t bytes) {
    MemoryShare::Grant grant = share_.take(bytes);
    if (grant.bytes() == 0) {
        return false;
    }
    Result<Buffer> buffer = env_.buffers.allocate(bytes);
    if (!buffer) {
        return false;
    }
    if (task.command.data_out) {
        const ConstBytes old = ConstBytes(task.command.data_out.memory()).first(task.out_received);
        std::ranges::copy(old, buffer->memory().begin());
    }
    task.command.data_out = *std::move(buffer);
    task.memory = std::move(grant);
    return true;
}

void Connection::give_first_buffer(ScsiTask& task) {
    if (waiting_.empty() && may_take(task, task.out_wanted) && give_buffer(task, task.out_wanted)) {
        return;
    }
    const bool comes_unasked = inbound_.head.data_length > 0 || task.unsolicited_open;
    // Without any, the whole follows when it is its turn.
    if (comes_unasked && !give_buffer(task, std::min(task.out_wanted, parameters_.first_burst_length))) {
        refuse_full(task);
    }
}

bool Connection::only_waiting_hold(const ScsiTask& task) const {
    std::size_t held = std::ranges::find(waiting_, &task) == waiting_.end() ? task.memory.bytes() : 0;
    for (const ScsiTask* waiting : waiting_) {
        held += waiting->memory.bytes();
    }
    return share_.held() == held;
}

bool Connection::may_take(const ScsiTask& task, std::size_t bytes) const {
    if (only_waiting_hold(task)) {
        return true;  // nothing to wait for: whatever it wants
    }
    const std::size_t promised = window_.max_cmd_sn() - window_.exp_cmd_sn() + 1;
    return pool_bytes(bytes) + promised * unasked_bytes(parameters_) <= share_.room();
}

std::size_t Connection::missing_memory(const ScsiTask& task) const {
    const scsi::ScsiCommand& command = task.command;
    if (task.out_wanted > 0) {
        const bool asks = !task.unsolicited_open && task.out_received < task.out_wanted;
        return asks && command.data_out.memory().size() < task.out_wanted ? task.out_wanted : 0;
    }
    if (command.plan.direction != scsi::DataDirection::kIn || task.memory.bytes() > 0) {
        return 0;
    }
    return static_cast<std::size_t>(
        std::min<std::uint64_t>({command.plan.transfer_bytes, command.data_in_capacity, kMostDataIn}));
}

bool Connection::give_missing_memory(ScsiTask& task) {
    const std::size_t missing = missing_memory(task);
    if (missing == 0) {
        return true;
    }
    if (!may_take(task, missing)) {
        return false;
    }
    if (task.out_wanted > 0) {
        return give_buffer(task, missing);
    }
    task.memory = share_.take(missing);  // the unit allocates
    return task.memory.bytes() > 0;
}

bool Connection::has_memory(ScsiTask& task) {
    if (missing_memory(task) == 0 || (waiting_.empty() && give_missing_memory(task))) {
        return true;
    }
    // Nothing overtakes one that waits, or large commands would never have their turn.
    waiting_.push_back(&task);
    if (only_waiting_hold(task)) {
        memory_is_back();  // nothing else will say so
    }
    return false;
}

void Connection::memory_is_back() {
    if (waiting_.empty() || memory_work_.posted || !gate_.enter()) {
        return;
    }
    memory_work_.posted = true;
    Executor::current().post(memory_work_);
}

void Connection::serve_waiting() {
    while (!waiting_.empty() && !closing_) {
        ScsiTask& task = *waiting_.front();
        const bool served = give_missing_memory(task);
        if (!served && !only_waiting_hold(task)) {
            break;
        }
        waiting_.erase(waiting_.begin());
        task.progress_tick = keepalive_tick_;
        if (!served) {
            refuse_full(task);
        }
        proceed(task);
    }
    task_ended_.set();  // a logout waits for those that wait
    task_ended_.reset();
    if (!parsing_) {
        sender_.flush_soon();
    }
}

void Connection::widen_window() {
    window_.widen(places_in(share_.room(), parameters_));
}

}  // namespace gemel::iscsi
