// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/connection.hpp"

#include "target/iscsi/access.hpp"

namespace gemel::iscsi {

namespace {

constexpr std::size_t kCmdSnAt = 24;
constexpr Duration kLinger = std::chrono::seconds(1);  ///< for the initiator to hang up after the logout
constexpr unsigned kPdusPerTurn = 64;                  ///< then other connections of the processor get theirs
constexpr std::uint64_t kStallTicks = 4;               ///< keepalive periods that data may be missing
constexpr std::uint8_t kLogoutSession = 0;             ///< RFC 7143 §11.14.1
constexpr std::uint8_t kLogoutConnection = 1;
constexpr std::uint8_t kLogoutForRecovery = 2;
constexpr std::uint8_t kLogoutDone = 0;  ///< RFC 7143 §11.15.1
constexpr std::uint8_t kLogoutNoSuchConnection = 1;
constexpr std::uint8_t kLogoutNoRecovery = 2;

}  // namespace

Connection::Connection(Environment& env, SessionHost& host, Session& session, const ServerLimits& limits,
                       Stream& stream, Receiver& receiver, FirstNumbers numbers)
    : env_(env),
      host_(host),
      session_(session),
      limits_(limits),
      parameters_(session.parameters),
      stream_(stream),
      receiver_(receiver),
      sender_(stream, *this, gate_, session.parameters, numbers.stat_sn),
      window_(numbers.cmd_sn, numbers.window, limits.command_window),
      share_(host.memory()),
      text_(host, session,
            OwnLimits{limits.max_recv_data_segment_length, limits.max_burst_length, limits.first_burst_length,
                      limits.max_outstanding_r2t}) {
    keepalive_timer_.connection = this;
    keepalive_timer_.run = [](Work& w) noexcept { static_cast<KeepaliveTimer&>(w).connection->keepalive(); };
    memory_work_.connection = this;
    memory_work_.run = [](Work& w) noexcept {
        auto& work = static_cast<MemoryWork&>(w);
        Connection& connection = *work.connection;
        work.posted = false;
        connection.serve_waiting();
        connection.gate_.leave();
    };
    if (session_.discovery()) {
        return;
    }
    char port[8];
    std::snprintf(port, sizeof port, "0x%04x", session_.target->portal_group_tag);
    for (const std::size_t i : session_.visible) {
        const LunDefinition& lun = session_.target->luns[i];
        scsi::Nexus nexus{session_.initiator + ",i,0x" + session_.isid_text(), session_.target->iqn + ",t," + port,
                          session_.target->portal_group_tag, session_.target->portal_group_tag,
                          read_only_for(lun, session_.initiator)};
        luns_.push_back({lun.number, lun.unit, lun.unit->attach(std::move(nexus)), &session_.luns[i]});
        lun_numbers_.push_back(lun.number);
    }
}

Connection::~Connection() = default;

Task<void> Connection::run() {
    session_.connection = this;
    if (!session_.close_requested) {
        arm_keepalive();
        co_await serve();
        env_.clock.cancel(keepalive_timer_);
    }
    closing_ = true;
    stream_.close();
    closed_.set();
    sender_.abandon();
    inbound_.task = nullptr;
    tasks_.for_each([this](ScsiTask& task) {
        if (task.state == TaskState::kExecuting) {
            task.aborted = true;
        } else if (task.state != TaskState::kSending) {
            drop(task);
        }
    });
    // Two gates: a function of ours may wait for tasks of a session that waits for ours. Tasks wait for nobody.
    while (running_ > 0) {
        co_await task_ended_.wait();
    }
    co_await visitors_.close();
    co_await gate_.close();
    sender_.abandon();
    session_.connection = nullptr;
}

void Connection::close() {
    closing_ = true;
    stream_.close();
    task_ended_.set();
    task_ended_.reset();
}

Task<void> Connection::serve() {
    unsigned turn = 0;
    parsing_ = true;
    while (!closing_ && !logout_) {
        // Whole PDUs are taken from the buffer without a coroutine of their own.
        const bool good = pdu_is_here() ? take_pdu() == Verdict::kGoOn : co_await receive_pdu();
        if (!good) {
            co_return;
        }
        if (++turn % kPdusPerTurn == 0) {
            sender_.flush();
            co_await yield();
        }
    }
    parsing_ = false;
    if (logout_ && !closing_) {
        co_await log_out();
    }
}

Task<bool> Connection::fill(std::size_t bytes) {
    // What the PDUs of the last read have brought about goes out in one write before the next read.
    sender_.flush();
    parsing_ = false;
    if (sender_.over_bound()) {
        co_await sender_.below_bound();
    }
    const bool good = !closing_ && (co_await receiver_.need(bytes)).has_value();
    parsing_ = true;
    co_return good && !closing_;
}

std::optional<Connection::Header> Connection::whole_header() const {
    if (receiver_.available() < kBhsBytes) {
        return std::nullopt;
    }
    const std::size_t ahs_bytes = decode_head(receiver_.data()).ahs_words * std::size_t{4};
    const std::size_t digest_bytes = parameters_.header_digest ? kDigestBytes : 0;
    const Header header{ConstBytes(receiver_.data(), kBhsBytes + ahs_bytes), kBhsBytes + ahs_bytes + digest_bytes};
    return receiver_.available() < header.wire_bytes ? std::nullopt : std::optional(header);
}

Connection::Verdict Connection::take_header(const Header& header) {
    const ConstBytes bytes = header.bytes;
    if (parameters_.header_digest && !digest_matches(bytes.data() + bytes.size(), crc32c(bytes))) {
        // Nothing after a bad header can be trusted (RFC 7143 §7.8).
        count(session_.digest_errors, 1);
        return protocol_error("a header digest does not match");
    }
    inbound_.reset();
    std::memcpy(inbound_.bhs.data(), bytes.data(), kBhsBytes);
    inbound_.head = decode_head(bytes.data());
    const Verdict verdict = begin_pdu(bytes.subspan(kBhsBytes));
    receiver_.consume(header.wire_bytes);
    return verdict;
}

Task<bool> Connection::receive_pdu() {
    if (receiver_.available() < kBhsBytes && !co_await fill(kBhsBytes)) {
        co_return false;
    }
    if (!whole_header()) {
        const std::size_t ahs_bytes = decode_head(receiver_.data()).ahs_words * std::size_t{4};
        if (!co_await fill(kBhsBytes + ahs_bytes + (parameters_.header_digest ? kDigestBytes : 0))) {
            co_return false;
        }
    }
    if (take_header(*whole_header()) == Verdict::kClose) {
        co_return false;
    }
    const std::uint32_t length = inbound_.head.data_length;
    if (receiver_.data_is_here(length, parameters_.data_digest)) {
        co_return end_pdu(receiver_.take_data(inbound_.place, length, parameters_.data_digest)) == Verdict::kGoOn;
    }
    sender_.flush();
    parsing_ = false;
    const Result<DataCheck> check = co_await receiver_.receive_data(inbound_.place, length, parameters_.data_digest);
    parsing_ = true;
    co_return check && !closing_ && end_pdu(*check) == Verdict::kGoOn;
}

Connection::Verdict Connection::take_pdu() {
    if (take_header(*whole_header()) == Verdict::kClose) {
        return Verdict::kClose;
    }
    return end_pdu(receiver_.take_data(inbound_.place, inbound_.head.data_length, parameters_.data_digest));
}

bool Connection::pdu_is_here() const {
    const std::optional<Header> header = whole_header();
    if (!header) {
        return false;
    }
    const std::uint32_t length = decode_head(header->bytes.data()).data_length;
    return receiver_.available() - header->wire_bytes >= length + padding_of(length) + kDigestBytes;
}

Connection::Verdict Connection::begin_pdu(ConstBytes ahs) {
    const std::uint8_t raw = raw_opcode(inbound_.bhs.data());
    const OpcodeRow* row = find_opcode(raw);
    inbound_.row = row;
    if (inbound_.head.data_length > parameters_.max_recv_data_segment_length) {
        return protocol_error("a data segment is longer than the declared MaxRecvDataSegmentLength");
    }
    if (resetting_) {
        return Verdict::kGoOn;
    }
    if (row == nullptr) {
        if ((raw & 0x20U) != 0) {
            return protocol_error("a PDU with an opcode of targets");
        }
        reject(inbound_.bhs, RejectReason::kCommandNotSupported);
        return Verdict::kGoOn;
    }
    if (!(session_.discovery() ? row->in_discovery : row->in_normal)) {
        return protocol_error("a " + std::string(row->name) + " in this phase");
    }
    if ((!ahs.empty() && !row->may_have_ahs) || (inbound_.head.data_length > 0 && !row->may_have_data)) {
        reject(inbound_.bhs, RejectReason::kInvalidPduField);
        return Verdict::kGoOn;
    }
    switch (row->opcode) {
        case Opcode::kScsiCommand:
            return begin_command(ahs);
        case Opcode::kDataOut:
            return begin_data_out();
        case Opcode::kSnackRequest:
            reject(inbound_.bhs, RejectReason::kSnackReject);
            return Verdict::kGoOn;
        default:
            return begin_control();
    }
}

Connection::Verdict Connection::begin_control() {
    inbound_.sink = Inbound::Sink::kControl;
    std::size_t wanted = inbound_.head.data_length;
    if (inbound_.row->opcode == Opcode::kNopOut) {
        wanted = std::min<std::size_t>(wanted, parameters_.max_send_data_segment_length);
    } else if (wanted > TextLimits::kTotalBytes) {
        return protocol_error("a text of more than 64 KiB");
    }
    if (wanted > 0) {
        inbound_.memory = share_.take(wanted);
        Result<Buffer> buffer = inbound_.memory.bytes() > 0 ? env_.buffers.allocate(wanted)
                                                            : fail(Errc::kResources, "the session's share is used up");
        if (!buffer) {
            reject(inbound_.bhs, RejectReason::kOutOfResources);
            inbound_.sink = Inbound::Sink::kDrop;
            return Verdict::kGoOn;
        }
        inbound_.control_data = *std::move(buffer);
        inbound_.place = inbound_.control_data.memory().first(wanted);
    }
    return Verdict::kGoOn;
}

Connection::Verdict Connection::end_pdu(DataCheck check) {
    Verdict verdict = Verdict::kGoOn;
    switch (inbound_.sink) {
        case Inbound::Sink::kDrop:
            break;
        case Inbound::Sink::kControl:
            if (check == DataCheck::kDigestError) {
                reject(inbound_.bhs, RejectReason::kDataDigestError);
            } else {
                verdict = order_control();
            }
            break;
        case Inbound::Sink::kCommand:
            end_command(check);
            break;
        case Inbound::Sink::kDataOut:
            end_data_out(check);
            break;
    }
    inbound_.task = nullptr;
    if (inbound_.memory.bytes() > 0) {
        inbound_.orphan = Buffer{};
        inbound_.control_data = Buffer{};
        inbound_.memory.shrink(0);
    }
    memory_is_back();
    return verdict;
}

Connection::Verdict Connection::order_control() {
    ControlRequest request{inbound_.bhs, std::move(inbound_.control_data), inbound_.place.size(),
                           std::move(inbound_.memory)};
    if (inbound_.head.immediate) {
        handle_control(request);
        return Verdict::kGoOn;
    }
    const auto cmd_sn = load_be<std::uint32_t>(request.bhs.data() + kCmdSnAt);
    switch (window_.position(cmd_sn)) {
        case CmdSnPosition::kOutside:
            count(session_.ignored, 1);
            break;
        case CmdSnPosition::kNext:
            window_.advance();
            widen_window();
            handle_control(request);
            deliver_held();
            break;
        case CmdSnPosition::kEarly:
            if (HeldRequest& held = tasks_.held(cmd_sn); std::holds_alternative<std::monostate>(held)) {
                held = std::make_unique<ControlRequest>(std::move(request));
            }
            break;
    }
    return Verdict::kGoOn;
}

void Connection::handle_control(ControlRequest& request) {
    switch (static_cast<Opcode>(raw_opcode(request.bhs.data()))) {
        case Opcode::kNopOut:
            return handle_nop_out(request);
        case Opcode::kTextRequest:
            return handle_text(request);
        case Opcode::kLogoutRequest:
            return handle_logout(request);
        default:
            return handle_task_management(request);
    }
}

void Connection::handle_nop_out(ControlRequest& request) {
    const auto pdu = decode<NopOut>(request.bhs.data());
    if (pdu.initiator_task_tag == kReservedTag) {
        const bool answers_ping = pdu.target_transfer_tag == ping_tag_ && ping_tag_ != kReservedTag;
        if (answers_ping) {
            ping_waits_ = false;
        } else if (!pdu.immediate || pdu.target_transfer_tag != kReservedTag) {
            reject(request.bhs, RejectReason::kInvalidPduField);
        }
        return;
    }
    NopIn echo;
    echo.initiator_task_tag = pdu.initiator_task_tag;
    echo.lun = pdu.lun;
    sender_.queue_echo(echo, std::move(request.data), request.data_bytes);
}

void Connection::handle_text(const ControlRequest& request) {
    const auto pdu = decode<TextRequest>(request.bhs.data());
    RejectReason reason = RejectReason::kProtocolError;
    auto reply = text_.handle(pdu, request.text(), next_transfer_tag(), reason);
    if (!reply) {
        reject(request.bhs, reason);
        return;
    }
    sender_.queue_control(reply->header, std::move(reply->text));
}

void Connection::handle_logout(const ControlRequest& request) {
    const auto pdu = decode<LogoutRequest>(request.bhs.data());
    if (pdu.initiator_task_tag == kReservedTag || pdu.reason() > kLogoutForRecovery) {
        reject(request.bhs, RejectReason::kInvalidPduField);
        return;
    }
    LogoutResponse refusal;
    refusal.initiator_task_tag = pdu.initiator_task_tag;
    if (pdu.reason() == kLogoutForRecovery) {
        refusal.response = kLogoutNoRecovery;
        sender_.queue_control(refusal);
    } else if (pdu.reason() == kLogoutConnection && pdu.connection_id != session_.connection_id) {
        refusal.response = kLogoutNoSuchConnection;
        sender_.queue_control(refusal);
    } else {
        static_assert(kLogoutSession == 0);
        logout_ = pdu;
    }
}

Task<void> Connection::log_out() {
    // Commands that were complete before the logout are answered before it; the others can never be.
    tasks_.for_each([this](ScsiTask& task) {
        const bool collecting = task.state == TaskState::kCollecting && !task.data_complete();
        if (task.state == TaskState::kHeld || collecting) {
            drop(task);
        }
    });
    while ((running_ > 0 || !waiting_.empty()) && !closing_) {
        co_await task_ended_.wait();
    }
    LogoutResponse response;
    response.initiator_task_tag = logout_->initiator_task_tag;
    response.response = kLogoutDone;
    sender_.queue_control(response);
    co_await sender_.drained();
    co_await receiver_.linger(env_.clock, kLinger);
}

void Connection::reject(const BhsBytes& bhs, RejectReason reason) {
    count(session_.rejected, 1);
    count(session_.digest_errors, reason == RejectReason::kDataDigestError ? 1 : 0);
    Reject pdu;
    pdu.reason = static_cast<std::uint8_t>(reason);
    sender_.queue_control(pdu, std::string(as_text(bhs)));
    if (!parsing_) {
        sender_.flush_soon();
    }
}

Connection::Verdict Connection::protocol_error(const std::string& what) {
    host_.note_protocol_error(session_, what);
    return Verdict::kClose;
}

std::uint32_t Connection::next_transfer_tag() {
    last_transfer_tag_ = last_transfer_tag_ + 1 == kReservedTag ? 0 : last_transfer_tag_ + 1;
    return last_transfer_tag_;
}

void Connection::arm_keepalive() {
    env_.clock.arm(keepalive_timer_, env_.clock.now() + limits_.keepalive);
}

void Connection::keepalive() {
    ++keepalive_tick_;
    const bool silent = receiver_.total_bytes() == bytes_at_tick_;
    bytes_at_tick_ = receiver_.total_bytes();
    if (!silent) {
        ping_waits_ = false;  // an answer that comes later still is one
    } else if (ping_waits_) {
        close();
        return;
    } else {
        NopIn ping;
        ping.target_transfer_tag = ping_tag_ = next_transfer_tag();
        ping_waits_ = true;
        sender_.queue_control(ping, {}, StatSn::kShows);
    }
    fail_stalled_tasks();
    memory_is_back();
    sender_.flush();
    arm_keepalive();
}

void Connection::fail_stalled_tasks() {
    tasks_.for_each([this](ScsiTask& task) {
        const bool stalled = keepalive_tick_ - task.progress_tick >= kStallTicks;
        // One that waits for memory has not been asked for its data yet.
        const bool asked = task.state == TaskState::kCollecting && std::ranges::find(waiting_, &task) == waiting_.end();
        if (asked && stalled && !receiving_into(task)) {
            fail_task(task, kInitiatorResponseTimeout);
        }
    });
}

}  // namespace gemel::iscsi
