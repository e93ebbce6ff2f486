// SPDX-License-Identifier: Apache-2.0
// Sender: the queue of answers of one connection and the one coroutine that writes them, many PDUs in one gathered
// write. Headers are made when they are sent, data goes out from the buffer that the device filled.
//
// Invariants:
//   S1  One write at a time; PDUs leave in the order in which they were queued.
//   S2  StatSN, ExpCmdSN and MaxCmdSN are set when a PDU joins a write, so that they are as new as can be.
//   S3  The queue is bounded: tasks by the command window, control PDUs by over_bound(), which stops the reader.
// Threads: the connection's processor.
#pragma once

#include <string>
#include <vector>

#include "gemel/stream.hpp"
#include "gemel/sync.hpp"
#include "target/iscsi/data_transfer.hpp"

namespace gemel::iscsi {

/// What a PDU says in its StatSN field.
enum class StatSn : std::uint8_t {
    kAdvances,  ///< a status: the next number, which is then used up
    kShows,     ///< R2T and NOP-In pings: the next number
    kReserved,  ///< Data-In without status: zero
};

/// Everything that is not the answer of a SCSI command.
struct ControlPdu : SendItem {
    ControlPdu() : SendItem(Kind::kControl) {}
    BhsBytes bhs{};  ///< numbers and data length are set by the sender
    StatSn stat_sn = StatSn::kAdvances;
    std::string text;  ///< the data segment: either this
    Buffer data;       ///< or this
    std::size_t data_bytes = 0;
    [[nodiscard]] ConstBytes payload() const {
        return data ? ConstBytes(data.memory()).first(data_bytes) : as_bytes_of(text);
    }
};

/// What the sender needs of its connection.
class SendSource {
  public:
    virtual ~SendSource() = default;
    /// The status of `task` joins a write now: its place in the command window is free.
    virtual void status_leaves(ScsiTask& task) = 0;
    /// The task's answer was written, or will never be.
    virtual void answered(ScsiTask& task) = 0;
    [[nodiscard]] virtual std::uint32_t exp_cmd_sn() const = 0;
    [[nodiscard]] virtual std::uint32_t max_cmd_sn() const = 0;
};

class Sender {
  public:
    Sender(Stream& stream, SendSource& source, Gate& gate, const SessionParameters& parameters, std::uint32_t stat_sn);
    Sender(const Sender&) = delete;
    Sender& operator=(const Sender&) = delete;
    ~Sender();

    /// The task is the sender's until SendSource::answered().
    void queue(ScsiTask& task);
    template <class Pdu>
    void queue_control(const Pdu& pdu, std::string text = {}, StatSn stat_sn = StatSn::kAdvances) {
        ControlPdu& item = control();
        encode_to(pdu, item.bhs.data());
        item.text = std::move(text);
        item.stat_sn = stat_sn;
        push(item);
    }
    /// A NOP-In that returns the data of a ping.
    void queue_echo(const NopIn& pdu, Buffer data, std::size_t bytes);

    /// Starts writing now, in the caller's turn, if nothing is being written.
    void flush();
    /// Starts writing in a later turn, so that what completes until then shares the write.
    void flush_soon();

    [[nodiscard]] bool over_bound() const { return control_count_ > kMostControls || control_bytes_ > kMostBytes; }
    [[nodiscard]] bool idle() const { return head_ == nullptr && !writing_; }
    /// Waits until over_bound() is false, or the connection is broken.
    Task<void> below_bound();
    /// Waits until everything queued is written, or the connection is broken.
    Task<void> drained();
    /// Nothing more is sent. Tasks in the queue are answered() at once, those in the present write when it ends.
    void abandon();
    [[nodiscard]] bool broken() const { return broken_; }

  private:
    static constexpr std::size_t kMostControls = 256;
    static constexpr std::size_t kMostBytes = 1U << 20U;  ///< of control payload
    static constexpr std::size_t kBatchPdus = 128;
    static constexpr std::size_t kBatchBytes = 1U << 20U;  ///< a write takes no further PDU beyond this
    /// Header, header digest, padding and data digest of one PDU.
    static constexpr std::size_t kFrameBytes = kBhsBytes + kDigestBytes + 3 + kDigestBytes;

    struct FlushWork : Work {
        Sender* sender = nullptr;
        bool posted = false;
    };

    ControlPdu& control();
    void push(SendItem& item);
    void pop();
    Task<void> write_loop();
    void gather();
    bool gather_task(ScsiTask& task);
    bool room() const { return pdus_ < kBatchPdus && bytes_ < kBatchBytes; }
    void emit(const std::byte* bhs, ConstBytes data, StatSn stat_sn);
    void add_framing(ConstBytes bytes);
    void finish(SendItem*& list);
    void recycle(ControlPdu& item);

    Stream& stream_;
    SendSource& source_;
    Gate& gate_;
    const SessionParameters& parameters_;
    std::uint32_t stat_sn_;

    SendItem* head_ = nullptr;
    SendItem* tail_ = nullptr;
    SendItem* sent_ = nullptr;  ///< wholly in the present write
    bool writing_ = false;
    bool broken_ = false;
    std::size_t control_count_ = 0;
    std::size_t control_bytes_ = 0;
    Event progress_;  ///< after each write
    FlushWork flush_work_;

    std::vector<std::byte> framing_;  ///< kBatchPdus * kFrameBytes
    std::size_t framing_used_ = 0;
    std::vector<ConstBytes> parts_;
    bool framing_last_ = false;  ///< the last part lies in framing_ and may be lengthened
    std::size_t pdus_ = 0;
    std::size_t bytes_ = 0;
    std::vector<std::unique_ptr<ControlPdu>> controls_;
    std::vector<ControlPdu*> free_controls_;
};

}  // namespace gemel::iscsi
