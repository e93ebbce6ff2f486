// SPDX-License-Identifier: Apache-2.0
// One SCSI command as the transport sees it, and the rules by which its data moves: unsolicited data, R2T sequences
// (RFC 7143 §4.2.2.4, §11.7, §11.8) and Data-In sequences with piggybacked status. Pure functions on the task.
//
// Invariants:
//   X1  Data-Out is stored only at the offset that is due next, inside what was allowed or asked for, and never beyond
//       the command's buffer.
//   X2  A command is complete when all bytes it will use are here and the initiator has ended its unsolicited data.
//   X3  A Data-In PDU carries at most the initiator's MaxRecvDataSegmentLength; a sequence at most MaxBurstLength, and
//       ends with F.
// Threads: the session's processor.
#pragma once

#include <array>
#include <cstdint>

#include "target/iscsi/memory_share.hpp"
#include "target/iscsi/pdu.hpp"
#include "target/iscsi/statistics.hpp"
#include "target/iscsi/text_keys.hpp"
#include "target/scsi/lun.hpp"

namespace gemel::iscsi {

/// A LUN as one session sees it.
struct LunBinding {
    std::uint64_t number = 0;
    scsi::LogicalUnit* unit = nullptr;
    std::unique_ptr<scsi::ItlNexus> nexus;
    LunStatistics* statistics = nullptr;
};

enum class TaskState : std::uint8_t {
    kFree,
    kHeld,        ///< received before a command that precedes it
    kCollecting,  ///< its turn has come; data is missing
    kExecuting,   ///< in the logical unit
    kSending,     ///< its answer is queued or partly sent
};

/// Anything that waits to be sent.
struct SendItem {
    enum class Kind : std::uint8_t { kControl, kTask };
    explicit SendItem(Kind k) : kind(k) {}
    SendItem* next = nullptr;
    Kind kind;
};

/// An R2T that was sent and not yet fulfilled.
struct OutstandingR2t {
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
    std::uint32_t received = 0;
    std::uint32_t data_sn = 0;  ///< of the next Data-Out
};

inline constexpr std::size_t kMaxOutstandingR2t = 8;

struct ScsiTask : SendItem {
    ScsiTask() : SendItem(Kind::kTask) {}

    TaskState state = TaskState::kFree;
    bool immediate = false;
    bool aborted = false;   ///< ends without an answer
    bool answered = false;  ///< `result` stands already: it is never executed
    bool listed = false;    ///< in the table of tags
    bool ordered = false;   ///< takes a place in the command window
    std::uint32_t initiator_task_tag = kReservedTag;
    std::uint32_t cmd_sn = 0;
    std::uint64_t lun_field = 0;
    LunBinding* binding = nullptr;      ///< null: no such LUN
    LunCounters* counters = nullptr;    ///< from its arrival until it is answered or dropped (ST2)
    TimePoint began;                    ///< when its PDU came
    std::uint32_t expected_length = 0;  ///< EDTL
    MemoryShare::Grant memory;          ///< for the buffer of its data, whichever way it goes
    scsi::ScsiCommand command;
    scsi::ScsiResult result;

    // Data-Out.
    std::uint32_t out_wanted = 0;    ///< bytes that the command will use: min(EDTL, plan)
    std::uint32_t out_received = 0;  ///< contiguous from 0; bytes beyond out_wanted are counted and dropped
    std::uint32_t unsolicited_data_sn = 0;
    bool unsolicited_open = false;  ///< the initiator may send unsolicited Data-Out until F
    std::uint32_t r2t_offset = 0;   ///< where the next R2T begins
    std::uint32_t r2t_sn = 0;
    std::uint32_t r2t_count = 0;  ///< of `r2ts`, oldest first
    std::array<OutstandingR2t, kMaxOutstandingR2t> r2ts{};
    std::uint64_t progress_tick = 0;  ///< keepalive tick at which data last came

    // Data-In.
    std::uint32_t in_sent = 0;
    std::uint32_t in_burst = 0;  ///< bytes in the present sequence
    std::uint32_t in_data_sn = 0;
    std::array<std::byte, 2 + sizeof(scsi::SenseBytes::bytes)> sense_segment{};

    [[nodiscard]] bool data_complete() const { return out_received >= out_wanted && !unsolicited_open; }
    [[nodiscard]] std::uint32_t in_total() const { return static_cast<std::uint32_t>(result.data_in_bytes); }
    [[nodiscard]] bool in_done() const { return in_sent == in_total(); }
    /// Back to what a new task is; keeps no buffer.
    void clear();
};

// RFC 7143 §11.4.7.2.
inline constexpr scsi::SenseCode kUnexpectedUnsolicitedData{scsi::SenseKey::kAbortedCommand, 0x0c, 0x0c};
inline constexpr scsi::SenseCode kIncorrectAmountOfData{scsi::SenseKey::kAbortedCommand, 0x0c, 0x0d};
inline constexpr scsi::SenseCode kProtocolServiceCrcError{scsi::SenseKey::kAbortedCommand, 0x47, 0x05};
/// The initiator left an R2T unanswered: INITIATOR RESPONSE TIMEOUT.
inline constexpr scsi::SenseCode kInitiatorResponseTimeout{scsi::SenseKey::kAbortedCommand, 0x4b, 0x06};

scsi::ScsiResult check_condition(scsi::SenseCode code);

/// What to do with a Data-Out PDU of a task in kHeld or kCollecting.
struct DataOutVerdict {
    enum class Action : std::uint8_t { kStore, kDiscard, kFailTask };
    Action action = Action::kStore;
    scsi::SenseCode sense{};  ///< with kFailTask
};
/// From the header alone, before the data is received.
DataOutVerdict check_data_out(const ScsiTask& task, const DataOut& pdu, const SessionParameters& parameters);
/// The part of the command's buffer that the PDU's data belongs in; may be shorter than the data (X1).
MutableBytes place_for(const ScsiTask& task, std::uint32_t offset, std::uint32_t length);
/// Accounts for a PDU that check_data_out() let pass and whose data is stored and verified.
/// Returns what is wrong now that the sequence may have ended; kStore if nothing.
DataOutVerdict accept_data_out(ScsiTask& task, const DataOut& pdu, const SessionParameters& parameters);

/// Whether an R2T is to be sent now.
bool wants_r2t(const ScsiTask& task, const SessionParameters& parameters);
/// The next R2T, noted as outstanding. REQUIRES: wants_r2t().
ReadyToTransfer next_r2t(ScsiTask& task, const SessionParameters& parameters, std::uint32_t target_transfer_tag);

/// The next Data-In PDU of a finished task; sets status and residual in the last one if they fit there.
/// REQUIRES: not in_done(). `data` is set to its data, which stays in the task's buffer.
DataIn next_data_in(ScsiTask& task, const SessionParameters& parameters, ConstBytes& data);
/// Whether the last Data-In carries the status, so that no SCSI Response follows.
bool status_in_data_in(const ScsiTask& task);
/// The SCSI Response; `sense` is set to its data segment.
ScsiResponse make_response(ScsiTask& task, ConstBytes& sense);

}  // namespace gemel::iscsi
