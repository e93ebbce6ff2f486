// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/data_transfer.hpp"

#include <algorithm>

namespace gemel::iscsi {

namespace {

using Action = DataOutVerdict::Action;

DataOutVerdict fail_with(scsi::SenseCode sense) {
    return {Action::kFailTask, sense};
}

/// Flags and count of the residual (RFC 7143 §11.4.5).
struct Residual {
    std::uint8_t flags = 0;
    std::uint32_t count = 0;
};

Residual residual_of(const ScsiTask& task) {
    const std::int64_t difference = scsi::residual(task.result, task.expected_length);
    if (difference == 0) {
        return {};
    }
    const std::int64_t size = difference > 0 ? difference : -difference;
    return {difference > 0 ? kResidualOverflow : kResidualUnderflow,
            static_cast<std::uint32_t>(std::min<std::int64_t>(size, 0xffffffff))};
}

}  // namespace

void ScsiTask::clear() {
    state = TaskState::kFree;
    immediate = aborted = answered = listed = ordered = unsolicited_open = false;
    initiator_task_tag = kReservedTag;
    binding = nullptr;
    command.data_out = Buffer{};
    command.data_out_bytes = command.data_in_capacity = 0;
    command.nexus = nullptr;
    result.status = scsi::Status::kGood;
    result.sense = scsi::Sense{};
    result.data_in = Buffer{};
    result.data_in_bytes = 0;
    result.transfer_bytes = 0;
    memory.shrink(0);
    expected_length = out_wanted = out_received = unsolicited_data_sn = 0;
    r2t_offset = r2t_sn = r2t_count = 0;
    in_sent = in_burst = in_data_sn = 0;
}

scsi::ScsiResult check_condition(scsi::SenseCode code) {
    scsi::ScsiResult result;
    result.status = scsi::Status::kCheckCondition;
    result.sense = scsi::Sense{code, {}, {}};
    return result;
}

DataOutVerdict check_data_out(const ScsiTask& task, const DataOut& pdu, const SessionParameters& parameters) {
    if (pdu.target_transfer_tag == kReservedTag) {
        if (!task.unsolicited_open) {
            return fail_with(kUnexpectedUnsolicitedData);
        }
        const std::uint64_t most = std::min(parameters.first_burst_length, task.expected_length);
        if (pdu.data_sn != task.unsolicited_data_sn) {
            return fail_with(kProtocolServiceCrcError);
        }
        if (pdu.buffer_offset != task.out_received || std::uint64_t{pdu.buffer_offset} + pdu.data_length > most) {
            return fail_with(kIncorrectAmountOfData);
        }
        return {};
    }
    const std::span r2ts(task.r2ts.data(), task.r2t_count);
    const auto r2t = std::ranges::find(r2ts, pdu.target_transfer_tag, &OutstandingR2t::target_transfer_tag);
    if (r2t == r2ts.end()) {
        return {Action::kDiscard, {}};
    }
    // DataSequenceInOrder: the oldest R2T is fulfilled first.
    if (r2t != r2ts.begin() || pdu.data_sn != r2t->data_sn || pdu.lun != task.lun_field) {
        return fail_with(kProtocolServiceCrcError);
    }
    if (pdu.buffer_offset != r2t->offset + r2t->received || pdu.data_length > r2t->length - r2t->received) {
        return fail_with(kIncorrectAmountOfData);
    }
    return {};
}

MutableBytes place_for(const ScsiTask& task, std::uint32_t offset, std::uint32_t length) {
    if (offset >= task.out_wanted) {
        return {};
    }
    return task.command.data_out.memory().subspan(offset, std::min(length, task.out_wanted - offset));
}

DataOutVerdict accept_data_out(ScsiTask& task, const DataOut& pdu, const SessionParameters& parameters) {
    const bool final = (pdu.flags & kFinal) != 0;
    task.out_received += pdu.data_length;
    if (pdu.target_transfer_tag == kReservedTag) {
        ++task.unsolicited_data_sn;
        if (!final) {
            return {};
        }
        task.unsolicited_open = false;
        task.r2t_offset = task.out_received;
        // §11.4.7.2: a command longer than FirstBurstLength sends exactly that much unsolicited.
        if (task.expected_length > parameters.first_burst_length &&
            task.out_received != parameters.first_burst_length) {
            return fail_with(kIncorrectAmountOfData);
        }
        return {};
    }
    OutstandingR2t& r2t = task.r2ts[0];
    r2t.received += pdu.data_length;
    ++r2t.data_sn;
    const bool all = r2t.received == r2t.length;
    if (all != final) {
        return fail_with(kIncorrectAmountOfData);
    }
    if (all) {
        std::shift_left(task.r2ts.begin(), task.r2ts.end(), 1);
        --task.r2t_count;
    }
    return {};
}

bool wants_r2t(const ScsiTask& task, const SessionParameters& parameters) {
    return !task.unsolicited_open && task.r2t_offset < task.out_wanted &&
           task.r2t_count < std::min<std::size_t>(parameters.max_outstanding_r2t, kMaxOutstandingR2t);
}

ReadyToTransfer next_r2t(ScsiTask& task, const SessionParameters& parameters, std::uint32_t target_transfer_tag) {
    ReadyToTransfer r2t;
    r2t.initiator_task_tag = task.initiator_task_tag;
    r2t.lun = task.lun_field;
    r2t.target_transfer_tag = target_transfer_tag;
    r2t.r2t_sn = task.r2t_sn++;
    r2t.buffer_offset = task.r2t_offset;
    r2t.desired_length = std::min(parameters.max_burst_length, task.out_wanted - task.r2t_offset);
    task.r2t_offset += r2t.desired_length;
    task.r2ts[task.r2t_count++] = {target_transfer_tag, r2t.buffer_offset, r2t.desired_length, 0, 0};
    return r2t;
}

bool status_in_data_in(const ScsiTask& task) {
    // S=1 means that there is no sense data and no response code other than 0 (§11.7.3).
    return task.result.data_in_bytes > 0 && task.result.status == scsi::Status::kGood;
}

DataIn next_data_in(ScsiTask& task, const SessionParameters& parameters, ConstBytes& data) {
    const std::uint32_t left = task.in_total() - task.in_sent;
    const std::uint32_t size =
        std::min({left, parameters.max_send_data_segment_length, parameters.max_burst_length - task.in_burst});
    DataIn pdu;
    pdu.initiator_task_tag = task.initiator_task_tag;
    pdu.data_sn = task.in_data_sn++;
    pdu.buffer_offset = task.in_sent;
    pdu.data_length = size;
    data = ConstBytes(task.result.data_in.memory()).subspan(task.in_sent, size);
    task.in_sent += size;
    task.in_burst += size;
    const bool last = size == left;
    const bool sequence_ends = last || task.in_burst == parameters.max_burst_length;
    pdu.flags = sequence_ends ? kFinal : 0;
    if (sequence_ends) {
        task.in_burst = 0;
    }
    if (last && status_in_data_in(task)) {
        const Residual residual = residual_of(task);
        pdu.flags |= static_cast<std::uint8_t>(kDataInStatus | residual.flags);
        pdu.status = static_cast<std::uint8_t>(task.result.status);
        pdu.residual_count = residual.count;
    }
    return pdu;
}

ScsiResponse make_response(ScsiTask& task, ConstBytes& sense) {
    const Residual residual = residual_of(task);
    ScsiResponse pdu;
    pdu.initiator_task_tag = task.initiator_task_tag;
    pdu.flags = kFinal | residual.flags;
    pdu.status = static_cast<std::uint8_t>(task.result.status);
    pdu.exp_data_sn = task.in_data_sn + task.r2t_sn;
    pdu.residual_count = residual.count;
    if (task.result.status == scsi::Status::kCheckCondition) {
        const auto format = task.binding != nullptr ? task.binding->unit->sense_format() : scsi::SenseFormat::kFixed;
        const scsi::SenseBytes encoded = scsi::encode_sense(task.result.sense, format);
        const ConstBytes bytes = encoded.view();
        store_be(task.sense_segment.data(), static_cast<std::uint16_t>(bytes.size()));
        std::ranges::copy(bytes, task.sense_segment.begin() + 2);
        sense = ConstBytes(task.sense_segment).first(2 + bytes.size());
        pdu.data_length = static_cast<std::uint32_t>(sense.size());
    }
    return pdu;
}

}  // namespace gemel::iscsi
