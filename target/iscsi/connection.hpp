// SPDX-License-Identifier: Apache-2.0
// The full feature phase of one connection, which is also its session (MaxConnections 1): one reader that takes PDUs
// apart, one coroutine per command in the logical unit, one writer (sender.hpp).
//
// Invariants:
//   C1  No command is executed before its data is complete and verified, and before every command that precedes it by
//       CmdSN had its turn.
//   C2  Every command ends exactly once: answered, aborted, or dropped with the connection.
//   C3  A task management response follows the end of every task that it affects; run() ends after every task.
//   C4  A peer that breaks the protocol costs itself the connection, and nothing else.
//   C5  While commands wait for memory, something else of the session holds some and its end serves them, or a turn of
//       serve_waiting() is posted (task_memory.cpp).
// Threads: the session's processor.
#pragma once

#include "gemel/environment.hpp"
#include "target/iscsi/receiver.hpp"
#include "target/iscsi/sender.hpp"
#include "target/iscsi/session.hpp"
#include "target/iscsi/task_set.hpp"
#include "target/iscsi/text_exchange.hpp"

namespace gemel::iscsi {

/// Numbers with which the full feature phase begins.
struct FirstNumbers {
    std::uint32_t cmd_sn = 0;
    std::uint32_t stat_sn = 0;
    std::uint32_t window = 1;  ///< commands that may come before the first answer: what the login promised
};

class Connection final : private SendSource {
  public:
    Connection(Environment& env, SessionHost& host, Session& session, const ServerLimits& limits, Stream& stream,
               Receiver& receiver, FirstNumbers numbers);
    ~Connection() override;

    /// Serves the connection until it ends; every task has ended then.
    Task<void> run();
    /// Ends the connection; run() returns when the last task has ended. Idempotent.
    void close();
    /// Aborts this session's tasks on `unit` without an answer, because of another session.
    void abort_tasks_on(const scsi::LogicalUnit* unit, AbortCause cause);
    /// Waits until the aborted tasks on `unit` have ended; they have when the connection refuses visitors.
    Task<void> wait_for_aborted(const scsi::LogicalUnit* unit);

  private:
    /// The PDU that is being received.
    struct Inbound {
        enum class Sink : std::uint8_t { kDrop, kControl, kCommand, kDataOut };
        const OpcodeRow* row = nullptr;
        PduHead head;
        BhsBytes bhs{};
        Sink sink = Sink::kDrop;
        MutableBytes place;         ///< where its data goes
        ScsiTask* task = nullptr;   ///< kCommand, kDataOut
        Buffer control_data;        ///< kControl
        Buffer orphan;              ///< kDrop: `place` is in it, its task was aborted meanwhile
        MemoryShare::Grant memory;  ///< of control_data or orphan
        void reset() {
            row = nullptr;
            sink = Sink::kDrop;
            place = {};
            task = nullptr;
            control_data = Buffer{};
            orphan = Buffer{};
            memory.shrink(0);
        }
    };
    enum class Verdict : std::uint8_t { kGoOn, kClose };
    /// A header at the front of the receive buffer.
    struct Header {
        ConstBytes bytes;        ///< basic and additional
        std::size_t wire_bytes;  ///< with the digest
    };

    // connection.cpp: receiving, and everything but commands.
    Task<void> serve();
    Task<bool> fill(std::size_t bytes);
    Task<bool> receive_pdu();
    [[nodiscard]] std::optional<Header> whole_header() const;
    [[nodiscard]] bool pdu_is_here() const;
    Verdict take_header(const Header& header);
    Verdict take_pdu();
    Verdict begin_pdu(ConstBytes ahs);
    Verdict begin_control();
    Verdict end_pdu(DataCheck check);
    Verdict order_control();
    void handle_control(ControlRequest& request);
    void handle_nop_out(ControlRequest& request);
    void handle_text(const ControlRequest& request);
    void handle_logout(const ControlRequest& request);
    Task<void> log_out();
    void reject(const BhsBytes& bhs, RejectReason reason);
    Verdict protocol_error(const std::string& what);
    void arm_keepalive();
    void keepalive();
    void fail_stalled_tasks();

    // connection_commands.cpp: SCSI commands and their data.
    Verdict begin_command(ConstBytes ahs);
    void plan_command(ScsiTask& task, const ScsiCommandPdu& pdu);
    void refuse(ScsiTask& task, scsi::ScsiResult result);
    void refuse_full(ScsiTask& task);
    void end_command(DataCheck check);
    Verdict begin_data_out();
    void end_data_out(DataCheck check);
    void deliver_held();
    void deliver(ScsiTask& task);
    void proceed(ScsiTask& task);
    void fail_task(ScsiTask& task, scsi::SenseCode sense);
    Task<void> execute(ScsiTask& task);
    void enlist(ScsiTask& task);
    void finish(ScsiTask& task);
    void count_answer(ScsiTask& task);
    void drop(ScsiTask& task);
    LunBinding* find_lun(std::uint64_t field);
    [[nodiscard]] bool receiving_into(const ScsiTask& task) const { return inbound_.task == &task; }

    // task_memory.cpp
    bool give_buffer(ScsiTask& task, std::size_t bytes);
    void give_first_buffer(ScsiTask& task);
    /// Whether nothing but `task` and those that wait holds memory of the session.
    [[nodiscard]] bool only_waiting_hold(const ScsiTask& task) const;
    [[nodiscard]] bool may_take(const ScsiTask& task, std::size_t bytes) const;
    [[nodiscard]] std::size_t missing_memory(const ScsiTask& task) const;
    bool give_missing_memory(ScsiTask& task);
    bool has_memory(ScsiTask& task);
    void memory_is_back();
    void serve_waiting();
    void widen_window();

    // task_management.cpp
    void handle_task_management(const ControlRequest& request);
    Task<void> manage_tasks(TaskManagementRequest request);
    std::uint8_t abort_one(const TaskManagementRequest& request);
    std::size_t mark_aborted(const scsi::LogicalUnit* unit);
    Task<void> reset_units(std::vector<scsi::LogicalUnit*> units);
    /// Whether it is about a unit that this nexus may only read: what others do there is not its to end.
    [[nodiscard]] bool reaches_read_only(const TaskManagementRequest& request, bool whole_target);
    void respond_to_management(const TaskManagementRequest& request, std::uint8_t response);
    Task<void> wait_for_aborted_task(std::uint32_t initiator_task_tag);

    // SendSource
    void status_leaves(ScsiTask& task) override;
    void answered(ScsiTask& task) override;
    [[nodiscard]] std::uint32_t exp_cmd_sn() const override { return window_.exp_cmd_sn(); }
    [[nodiscard]] std::uint32_t max_cmd_sn() const override { return window_.max_cmd_sn(); }

    struct KeepaliveTimer : Timer {
        Connection* connection = nullptr;
    };
    struct MemoryWork : Work {
        Connection* connection = nullptr;
        bool posted = false;
    };

    std::uint32_t next_transfer_tag();

    Environment& env_;
    SessionHost& host_;
    Session& session_;
    const ServerLimits& limits_;
    const SessionParameters& parameters_;
    Stream& stream_;
    Receiver& receiver_;
    Gate gate_;      ///< everything that this connection started
    Gate visitors_;  ///< functions of other sessions that wait for tasks here; closed when no task runs
    Sender sender_;
    CommandWindow window_;
    MemoryShare share_;
    TaskSet tasks_;
    std::vector<ScsiTask*> waiting_;  ///< kCollecting, until the share has memory for them; oldest first
    MemoryWork memory_work_;
    TextExchange text_;
    std::vector<LunBinding> luns_;            ///< ascending by number
    std::vector<std::uint64_t> lun_numbers_;  ///< of luns_, for REPORT LUNS
    Inbound inbound_;
    bool closing_ = false;
    bool resetting_ = false;  ///< TARGET COLD RESET was answered: everything else is dropped
    Event closed_;
    std::optional<LogoutRequest> logout_;  ///< after it nothing is read
    bool parsing_ = false;                 ///< completions need not start a write: the reader will
    std::size_t running_ = 0;              ///< tasks in kExecuting
    Event task_ended_;
    std::uint32_t last_transfer_tag_ = 0;
    KeepaliveTimer keepalive_timer_;
    std::uint64_t keepalive_tick_ = 0;
    std::uint64_t bytes_at_tick_ = 0;
    std::uint32_t management_running_ = 0;
    std::uint32_t ping_tag_ = kReservedTag;  ///< of the last NOP-In that asks for an answer
    bool ping_waits_ = false;                ///< it is not answered, and nothing else has come since
};

}  // namespace gemel::iscsi
