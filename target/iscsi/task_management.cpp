// SPDX-License-Identifier: Apache-2.0
// Task management (RFC 7143 §11.5, §11.6): the part of a connection that aborts tasks and resets units.
//
// Commands that wait for data end at once: transfer tags are not used again for 2^32 transfers, so data that still
// comes for them is recognised and dropped. Commands in a logical unit end when the unit says so (C3).
#include "target/iscsi/connection.hpp"

namespace gemel::iscsi {

namespace {

constexpr std::uint32_t kMostRunning = 32;  ///< functions that wait for tasks at a time

constexpr Duration kColdResetPause = std::chrono::milliseconds(500);

// Response codes (§11.6.1).
constexpr std::uint8_t kComplete = 0;
constexpr std::uint8_t kTaskDoesNotExist = 1;
constexpr std::uint8_t kLunDoesNotExist = 2;
constexpr std::uint8_t kReassignmentNotSupported = 4;
constexpr std::uint8_t kFunctionNotSupported = 5;
constexpr std::uint8_t kFunctionRejected = 255;

enum class Function : std::uint8_t {
    kAbortTask = 1,
    kAbortTaskSet = 2,
    kClearAca = 3,
    kClearTaskSet = 4,
    kLogicalUnitReset = 5,
    kTargetWarmReset = 6,
    kTargetColdReset = 7,
    kTaskReassign = 8,
};

enum class Handling : std::uint8_t { kOneTask, kOneUnit, kWholeTarget, kRefused };

/// Whose tasks and state it is about.
enum class Reach : std::uint8_t { kOwn, kEverybody };

struct FunctionRow {
    Function function;
    Handling handling;
    Reach reach;
    std::uint8_t refusal;  ///< with kRefused
};

// CLEAR ACA: NACA is not supported, so there is no ACA. TASK REASSIGN needs ErrorRecoveryLevel 2.
constexpr std::array kFunctions{
    FunctionRow{Function::kAbortTask, Handling::kOneTask, Reach::kOwn, 0},
    FunctionRow{Function::kAbortTaskSet, Handling::kOneUnit, Reach::kOwn, 0},
    FunctionRow{Function::kClearAca, Handling::kRefused, Reach::kOwn, kFunctionNotSupported},
    FunctionRow{Function::kClearTaskSet, Handling::kOneUnit, Reach::kEverybody, 0},
    FunctionRow{Function::kLogicalUnitReset, Handling::kOneUnit, Reach::kEverybody, 0},
    FunctionRow{Function::kTargetWarmReset, Handling::kWholeTarget, Reach::kEverybody, 0},
    FunctionRow{Function::kTargetColdReset, Handling::kWholeTarget, Reach::kEverybody, 0},
    FunctionRow{Function::kTaskReassign, Handling::kRefused, Reach::kOwn, kReassignmentNotSupported},
};

}  // namespace

void Connection::handle_task_management(const ControlRequest& request) {
    const auto pdu = decode<TaskManagementRequest>(request.bhs.data());
    const auto* row = std::ranges::find(kFunctions, static_cast<Function>(pdu.function()), &FunctionRow::function);
    if (pdu.initiator_task_tag == kReservedTag) {
        reject(request.bhs, RejectReason::kInvalidPduField);
    } else if (row == kFunctions.end()) {
        respond_to_management(pdu, kFunctionNotSupported);
    } else if (row->handling == Handling::kRefused) {
        respond_to_management(pdu, row->refusal);
    } else if (row->handling == Handling::kOneUnit && find_lun(pdu.lun) == nullptr) {
        respond_to_management(pdu, kLunDoesNotExist);
    } else if (row->reach == Reach::kEverybody && reaches_read_only(pdu, row->handling == Handling::kWholeTarget)) {
        respond_to_management(pdu, kFunctionRejected);
    } else if (management_running_ >= kMostRunning) {
        respond_to_management(pdu, kFunctionRejected);
    } else {
        ++management_running_;
        if (!gate_.spawn(manage_tasks(pdu))) {
            --management_running_;
        }
    }
}

bool Connection::reaches_read_only(const TaskManagementRequest& request, bool whole_target) {
    const auto only_reads = [](const LunBinding& lun) { return lun.nexus->nexus().read_only; };
    return whole_target ? std::ranges::any_of(luns_, only_reads) : only_reads(*find_lun(request.lun));
}

void Connection::respond_to_management(const TaskManagementRequest& request, std::uint8_t response) {
    TaskManagementResponse pdu;
    pdu.initiator_task_tag = request.initiator_task_tag;
    pdu.response = response;
    sender_.queue_control(pdu);
    if (!parsing_) {
        sender_.flush_soon();
    }
}

Task<void> Connection::manage_tasks(TaskManagementRequest request) {
    const auto function = static_cast<Function>(request.function());
    std::uint8_t response = kComplete;
    switch (function) {
        case Function::kAbortTask:
            response = abort_one(request);
            co_await wait_for_aborted_task(request.referenced_task_tag);
            break;
        case Function::kAbortTaskSet:
        case Function::kClearTaskSet: {
            scsi::LogicalUnit* unit = find_lun(request.lun)->unit;
            mark_aborted(unit);
            if (function == Function::kClearTaskSet) {
                co_await host_.abort_elsewhere(session_, std::vector{unit}, AbortCause::kTaskSetCleared);
            }
            co_await wait_for_aborted(unit);
            break;
        }
        case Function::kLogicalUnitReset:
            co_await reset_units(std::vector{find_lun(request.lun)->unit});
            break;
        default: {
            std::vector<scsi::LogicalUnit*> units;
            for (const LunBinding& lun : luns_) {
                units.push_back(lun.unit);
            }
            co_await reset_units(std::move(units));
        }
    }
    --management_running_;
    respond_to_management(request, response);
    if (function == Function::kTargetColdReset) {
        // The initiator may see the response before it loses the connection.
        resetting_ = true;
        co_await host_.drop_other_sessions(session_);
        co_await sender_.drained();
        co_await closed_.wait_until(env_.clock, env_.clock.now() + kColdResetPause);
        close();
    }
}

std::uint8_t Connection::abort_one(const TaskManagementRequest& request) {
    ScsiTask* task = tasks_.find(request.referenced_task_tag);
    if (task != nullptr && task->lun_field == request.lun && task->state != TaskState::kSending) {
        if (task->state == TaskState::kExecuting) {
            task->aborted = true;
        } else {
            drop(*task);
        }
        return kComplete;
    }
    // §11.5.5 of a command that never came: its number counts as received from now on.
    const bool may_come = task == nullptr && window_.position(request.ref_cmd_sn) != CmdSnPosition::kOutside &&
                          serial_before(request.ref_cmd_sn, request.cmd_sn);
    if (!may_come || !std::holds_alternative<std::monostate>(tasks_.held(request.ref_cmd_sn))) {
        return kTaskDoesNotExist;
    }
    tasks_.held(request.ref_cmd_sn) = Plugged{};
    deliver_held();
    return kComplete;
}

std::size_t Connection::mark_aborted(const scsi::LogicalUnit* unit) {
    std::size_t marked = 0;
    tasks_.for_each([&](ScsiTask& task) {
        if (task.binding == nullptr || task.binding->unit != unit || task.state == TaskState::kSending) {
            return;
        }
        ++marked;
        if (task.state == TaskState::kExecuting) {
            task.aborted = true;
        } else {
            drop(task);
        }
    });
    return marked;
}

void Connection::abort_tasks_on(const scsi::LogicalUnit* unit, AbortCause cause) {
    if (mark_aborted(unit) == 0 || cause == AbortCause::kReset) {
        return;
    }
    for (const LunBinding& lun : luns_) {
        if (lun.unit == unit) {
            lun.nexus->raise(scsi::Attention::kCommandsCleared);
        }
    }
}

Task<void> Connection::wait_for_aborted(const scsi::LogicalUnit* unit) {
    if (!visitors_.enter()) {
        co_return;
    }
    while (true) {
        bool waiting = false;
        tasks_.for_each(
            [&](ScsiTask& task) { waiting |= task.aborted && task.binding != nullptr && task.binding->unit == unit; });
        if (!waiting) {
            break;
        }
        co_await task_ended_.wait();
    }
    visitors_.leave();
}

Task<void> Connection::wait_for_aborted_task(std::uint32_t initiator_task_tag) {
    for (const ScsiTask* task = tasks_.find(initiator_task_tag); task != nullptr && task->aborted;
         task = tasks_.find(initiator_task_tag)) {
        co_await task_ended_.wait();
    }
}

Task<void> Connection::reset_units(std::vector<scsi::LogicalUnit*> units) {
    for (scsi::LogicalUnit* unit : units) {
        mark_aborted(unit);
    }
    co_await host_.abort_elsewhere(session_, units, AbortCause::kReset);
    for (scsi::LogicalUnit* unit : units) {
        co_await wait_for_aborted(unit);
        unit->reset();
    }
}

}  // namespace gemel::iscsi
