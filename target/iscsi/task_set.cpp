// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/task_set.hpp"

namespace gemel::iscsi {

std::size_t unasked_bytes(const SessionParameters& parameters) {
    const bool unasked = parameters.immediate_data || !parameters.initial_r2t;
    return unasked ? pool_bytes(parameters.first_burst_length) : 0;
}

std::uint32_t places_in(std::size_t room, const SessionParameters& parameters) {
    const std::size_t bytes = unasked_bytes(parameters);
    const std::size_t places = bytes == 0 ? TaskSet::kMostWindow : room / 2 / bytes;
    return static_cast<std::uint32_t>(std::min<std::size_t>(places, TaskSet::kMostWindow));
}

CmdSnPosition CommandWindow::position(std::uint32_t cmd_sn) const {
    const bool before = serial_before(cmd_sn, exp_cmd_sn_);
    const bool after = serial_before(max_cmd_sn(), cmd_sn);
    if (before || after) {
        return CmdSnPosition::kOutside;
    }
    return cmd_sn == exp_cmd_sn_ ? CmdSnPosition::kNext : CmdSnPosition::kEarly;
}

void CommandWindow::widen(std::uint32_t most) {
    const std::uint32_t wanted = unanswered_ == 0 ? std::max(most, 1U) : most;
    const std::uint32_t last = exp_cmd_sn_ + std::min(wanted, size_ - unanswered_) - 1;
    if (serial_before(max_cmd_sn_, last)) {
        max_cmd_sn_ = last;
    }
}

ScsiTask& TaskSet::allocate() {
    if (free_.empty()) {
        all_.push_back(std::make_unique<ScsiTask>());
        return *all_.back();
    }
    ScsiTask* task = free_.back();
    free_.pop_back();
    return *task;
}

void TaskSet::release(ScsiTask& task) {
    task.clear();
    free_.push_back(&task);
}

ScsiTask* TaskSet::find(std::uint32_t initiator_task_tag) const {
    for (std::size_t i = slot_of(initiator_task_tag); table_[i] != nullptr; i = (i + 1) % kTableSize) {
        if (table_[i]->initiator_task_tag == initiator_task_tag) {
            return table_[i];
        }
    }
    return nullptr;
}

void TaskSet::insert(ScsiTask& task) {
    std::size_t i = slot_of(task.initiator_task_tag);
    while (table_[i] != nullptr) {
        CHECK(table_[i]->initiator_task_tag != task.initiator_task_tag);
        i = (i + 1) % kTableSize;
    }
    table_[i] = &task;
    task.listed = true;
    immediate_ += task.immediate ? 1 : 0;
}

void TaskSet::erase(ScsiTask& task) {
    std::size_t hole = slot_of(task.initiator_task_tag);
    while (table_[hole] != &task) {
        CHECK(table_[hole] != nullptr);
        hole = (hole + 1) % kTableSize;
    }
    immediate_ -= task.immediate ? 1 : 0;
    // Entries after the hole move into it unless they would then stand before their own slot.
    for (std::size_t i = (hole + 1) % kTableSize; table_[i] != nullptr; i = (i + 1) % kTableSize) {
        const std::size_t home = slot_of(table_[i]->initiator_task_tag);
        const bool stays = hole <= i ? (hole < home && home <= i) : (hole < home || home <= i);
        if (!stays) {
            table_[hole] = table_[i];
            hole = i;
        }
    }
    table_[hole] = nullptr;
    task.listed = false;
}

HeldRequest& TaskSet::held(std::uint32_t cmd_sn) {
    if (held_.empty()) {
        held_.resize(kMostWindow);
    }
    return held_[cmd_sn % kMostWindow];
}

HeldRequest TaskSet::take_held(std::uint32_t cmd_sn) {
    return held_.empty() ? HeldRequest{} : std::exchange(held_[cmd_sn % kMostWindow], HeldRequest{});
}

}  // namespace gemel::iscsi
