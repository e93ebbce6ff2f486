// SPDX-License-Identifier: Apache-2.0
// The part of a connection that takes SCSI commands from their PDU to their answer.
#include "target/iscsi/connection.hpp"

namespace gemel::iscsi {

namespace {

constexpr std::uint8_t kLastTaskAttribute = 4;  ///< ACA; 5 to 7 are reserved (RFC 7143 §11.3.1)

scsi::DataDirection declared_direction(std::uint8_t flags) {
    if ((flags & kCommandRead) != 0) {
        return scsi::DataDirection::kIn;
    }
    return (flags & kCommandWrite) != 0 ? scsi::DataDirection::kOut : scsi::DataDirection::kNone;
}

/// Reads and writes are what moves data from or to the medium.
CommandKind kind_of(const scsi::CommandPlan& plan) {
    if (plan.sectors.value == 0 || plan.direction == scsi::DataDirection::kNone) {
        return CommandKind::kOther;
    }
    return plan.direction == scsi::DataDirection::kIn ? CommandKind::kRead : CommandKind::kWrite;
}

}  // namespace

LunBinding* Connection::find_lun(std::uint64_t field) {
    const std::optional<std::uint64_t> number = scsi::decode_lun(field);
    if (!number) {
        return nullptr;
    }
    if (*number < luns_.size() && luns_[*number].number == *number) {
        return &luns_[*number];
    }
    const auto found = std::ranges::lower_bound(luns_, *number, {}, &LunBinding::number);
    return found != luns_.end() && found->number == *number ? &*found : nullptr;
}

Connection::Verdict Connection::begin_command(ConstBytes ahs) {
    const auto pdu = decode<ScsiCommandPdu>(inbound_.bhs.data());
    const bool writes = (pdu.flags & kCommandWrite) != 0;
    if (pdu.data_length > 0) {
        const std::uint32_t most = std::min(parameters_.first_burst_length, pdu.expected_data_transfer_length);
        if (!writes || !parameters_.immediate_data || pdu.data_length > most) {
            return protocol_error("immediate data that was not negotiated or is too long");
        }
    }
    if (!pdu.immediate && window_.position(pdu.cmd_sn) == CmdSnPosition::kOutside) {
        count(session_.ignored, 1);
        return Verdict::kGoOn;
    }
    if (pdu.immediate && tasks_.immediate_count() >= TaskSet::kMostImmediate) {
        reject(inbound_.bhs, RejectReason::kTooManyImmediateCommands);
        return Verdict::kGoOn;
    }
    if (pdu.initiator_task_tag == kReservedTag || (pdu.flags & kCommandAttributes) > kLastTaskAttribute ||
        !parse_additional_headers(ahs)) {
        reject(inbound_.bhs, RejectReason::kInvalidPduField);
        return Verdict::kGoOn;
    }
    if (tasks_.find(pdu.initiator_task_tag) != nullptr) {
        reject(inbound_.bhs, RejectReason::kTaskInProgress);
        return Verdict::kGoOn;
    }
    ScsiTask& task = tasks_.allocate();
    task.immediate = pdu.immediate;
    task.initiator_task_tag = pdu.initiator_task_tag;
    task.cmd_sn = pdu.cmd_sn;
    task.lun_field = pdu.lun;
    task.began = env_.clock.now();
    task.progress_tick = keepalive_tick_;
    plan_command(task, pdu);
    inbound_.sink = Inbound::Sink::kCommand;
    inbound_.task = &task;
    inbound_.place = place_for(task, 0, pdu.data_length);
    return Verdict::kGoOn;
}

void Connection::plan_command(ScsiTask& task, const ScsiCommandPdu& pdu) {
    const bool reads = (pdu.flags & kCommandRead) != 0;
    const bool writes = (pdu.flags & kCommandWrite) != 0;
    scsi::ScsiCommand& command = task.command;
    task.binding = find_lun(pdu.lun);
    task.expected_length = reads || writes ? pdu.expected_data_transfer_length : 0;
    command.cdb = pdu.cdb;
    command.plan = task.binding != nullptr ? task.binding->unit->plan(pdu.cdb) : scsi::plan_no_lun(pdu.cdb);
    command.nexus = task.binding != nullptr ? task.binding->nexus.get() : nullptr;
    command.luns = lun_numbers_;
    command.direction = declared_direction(pdu.flags);
    if (task.expected_length == 0) {
        // Nothing will be moved whatever the bits say: the command runs and reports what did not fit.
        command.direction = command.plan.direction;
    }
    command.declared_out = writes ? task.expected_length : 0;
    command.data_in_capacity = command.direction == scsi::DataDirection::kIn ? task.expected_length : 0;
    if (reads && writes) {
        return refuse(task, check_condition(scsi::kInvalidFieldInCdb));  // no bidirectional command is supported
    }
    if (command.direction != scsi::DataDirection::kOut) {
        return;  // what contradicts the CDB is judged by the unit
    }
    if (command.plan.direction != scsi::DataDirection::kOut) {
        return;
    }
    task.out_wanted =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(task.expected_length, command.plan.transfer_bytes));
    task.unsolicited_open = (pdu.flags & kFinal) == 0 && !parameters_.initial_r2t;
    if (task.out_wanted == 0) {
        return;
    }
    command.data_out_bytes = task.out_wanted;
    give_first_buffer(task);
}

void Connection::refuse(ScsiTask& task, scsi::ScsiResult result) {
    task.result = std::move(result);
    task.answered = true;
    task.out_wanted = 0;
    task.unsolicited_open = false;
    task.r2t_count = 0;
    task.command.data_out = Buffer{};
    task.command.data_out_bytes = 0;
    task.memory.shrink(0);
    std::erase(waiting_, &task);
    memory_is_back();
}

void Connection::refuse_full(ScsiTask& task) {
    scsi::ScsiResult full;
    full.status = window_.unanswered() > (task.ordered ? 1 : 0) ? scsi::Status::kTaskSetFull : scsi::Status::kBusy;
    refuse(task, std::move(full));
}

void Connection::end_command(DataCheck check) {
    ScsiTask& task = *inbound_.task;
    inbound_.task = nullptr;
    if (check == DataCheck::kDigestError) {
        reject(inbound_.bhs, RejectReason::kDataDigestError);
        tasks_.release(task);
        return;
    }
    // The window may have moved, or the tag been taken, only by this reader: both still hold.
    task.out_received = task.r2t_offset = inbound_.head.data_length;
    count(session_.commands, 1);
    count(session_.bytes_in, inbound_.head.data_length);
    if (!task.immediate && window_.position(task.cmd_sn) == CmdSnPosition::kEarly) {
        HeldRequest& held = tasks_.held(task.cmd_sn);
        if (!std::holds_alternative<std::monostate>(held)) {
            tasks_.release(task);
            return;
        }
        held = &task;
        task.state = TaskState::kHeld;
        enlist(task);
        return;
    }
    enlist(task);
    deliver(task);
    if (task.immediate) {
        return;
    }
    deliver_held();
}

void Connection::enlist(ScsiTask& task) {
    tasks_.insert(task);
    task.counters = task.binding != nullptr ? &task.binding->statistics->arrived() : nullptr;
}

void Connection::deliver_held() {
    while (true) {
        HeldRequest request = tasks_.take_held(window_.exp_cmd_sn());
        if (std::holds_alternative<std::monostate>(request)) {
            return;
        }
        if (ScsiTask* const* task = std::get_if<ScsiTask*>(&request)) {
            deliver(**task);
            continue;
        }
        window_.advance();
        widen_window();
        if (auto* control = std::get_if<std::unique_ptr<ControlRequest>>(&request)) {
            handle_control(**control);
        }
    }
}

void Connection::deliver(ScsiTask& task) {
    if (!task.immediate) {
        window_.advance();
        window_.take();
        task.ordered = true;
    }
    task.state = TaskState::kCollecting;
    proceed(task);
}

void Connection::proceed(ScsiTask& task) {
    if (task.answered) {
        finish(task);
        return;
    }
    if (!has_memory(task)) {
        return;
    }
    if (task.data_complete()) {
        task.state = TaskState::kExecuting;
        ++running_;
        if (!gate_.spawn(execute(task))) {
            --running_;
            drop(task);
        }
        return;
    }
    while (wants_r2t(task, parameters_)) {
        sender_.queue_control(next_r2t(task, parameters_, next_transfer_tag()), {}, StatSn::kShows);
    }
}

Task<void> Connection::execute(ScsiTask& task) {
    // The task and its binding live until finish(): nothing else ends a task in kExecuting.
    if (task.binding != nullptr) {
        task.result = co_await task.binding->unit->execute(task.command);
    } else {
        task.result = co_await scsi::execute_no_lun(env_, task.command);
    }
    --running_;
    task.command.data_out = Buffer{};
    task.memory.shrink(pool_bytes(task.result.data_in.memory().size()));
    memory_is_back();
    count(session_.bytes_out, task.result.data_in_bytes);
    finish(task);
    task_ended_.set();
    task_ended_.reset();
}

void Connection::finish(ScsiTask& task) {
    if (task.aborted || closing_) {
        drop(task);
        return;
    }
    count_answer(task);
    task.state = TaskState::kSending;
    sender_.queue(task);
    if (!parsing_) {
        sender_.flush_soon();
    }
}

void Connection::count_answer(ScsiTask& task) {
    if (LunCounters* counters = std::exchange(task.counters, nullptr)) {
        const std::uint64_t bytes =
            task.result.data_in_bytes + std::min<std::uint64_t>(task.out_received, task.out_wanted);
        LunStatistics::answered(*counters, kind_of(task.command.plan), task.result.status == scsi::Status::kGood, bytes,
                                env_.clock.now() - task.began);
    }
}

void Connection::fail_task(ScsiTask& task, scsi::SenseCode sense) {
    refuse(task, check_condition(sense));
    if (task.state == TaskState::kCollecting) {
        finish(task);
    }
}

void Connection::drop(ScsiTask& task) {
    if (receiving_into(task)) {
        // The rest of the PDU may come slowly: nobody waits for it, and the buffer stays until it is here.
        inbound_.orphan = std::move(task.command.data_out);
        inbound_.memory = std::move(task.memory);
        inbound_.task = nullptr;
        inbound_.sink = Inbound::Sink::kDrop;
    }
    if (task.state == TaskState::kHeld) {
        tasks_.held(task.cmd_sn) = Plugged{};
    }
    if (LunCounters* counters = std::exchange(task.counters, nullptr)) {
        LunStatistics::aborted(*counters);
    }
    if (task.listed) {
        tasks_.erase(task);
    }
    if (task.ordered) {
        window_.give_back();
    }
    std::erase(waiting_, &task);
    tasks_.release(task);
    memory_is_back();
    widen_window();
    task_ended_.set();
    task_ended_.reset();
}

Connection::Verdict Connection::begin_data_out() {
    const auto pdu = decode<DataOut>(inbound_.bhs.data());
    ScsiTask* task = tasks_.find(pdu.initiator_task_tag);
    const bool waits = task != nullptr && !task->answered &&
                       (task->state == TaskState::kHeld || task->state == TaskState::kCollecting);
    if (!waits) {
        return Verdict::kGoOn;  // of an aborted, failed or finished command
    }
    const DataOutVerdict verdict = check_data_out(*task, pdu, parameters_);
    if (verdict.action == DataOutVerdict::Action::kFailTask) {
        fail_task(*task, verdict.sense);
    }
    if (verdict.action == DataOutVerdict::Action::kStore) {
        inbound_.sink = Inbound::Sink::kDataOut;
        inbound_.task = task;
        inbound_.place = place_for(*task, pdu.buffer_offset, pdu.data_length);
    }
    return Verdict::kGoOn;
}

void Connection::end_data_out(DataCheck check) {
    ScsiTask& task = *inbound_.task;
    inbound_.task = nullptr;
    if (check == DataCheck::kDigestError) {
        reject(inbound_.bhs, RejectReason::kDataDigestError);
        fail_task(task, kProtocolServiceCrcError);
        return;
    }
    if (inbound_.head.data_length > 0) {
        task.progress_tick = keepalive_tick_;
    }
    count(session_.bytes_in, inbound_.head.data_length);
    const DataOutVerdict verdict = accept_data_out(task, decode<DataOut>(inbound_.bhs.data()), parameters_);
    if (verdict.action == DataOutVerdict::Action::kFailTask) {
        fail_task(task, verdict.sense);
        return;
    }
    if (task.state == TaskState::kCollecting) {
        proceed(task);
    }
}

void Connection::status_leaves(ScsiTask& task) {
    tasks_.erase(task);
    if (task.ordered) {
        window_.give_back();
        task.ordered = false;
    }
    widen_window();
}

void Connection::answered(ScsiTask& task) {
    if (task.listed) {
        status_leaves(task);
    }
    tasks_.release(task);
    memory_is_back();
}

}  // namespace gemel::iscsi
