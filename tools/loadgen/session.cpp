// SPDX-License-Identifier: Apache-2.0
// One iSCSI session over libiscsi; see session.hpp.
#include "tools/loadgen/session.hpp"

#include <poll.h>
#include <unistd.h>

#include "gemel/check.hpp"
#include "gemel/units.hpp"

namespace gemel::loadgen {
namespace {

Outcome classify(int status, const scsi_task* task, bool patient) {
    switch (status) {
        case SCSI_STATUS_GOOD:
            return Outcome::kGood;
        case SCSI_STATUS_BUSY:
        case SCSI_STATUS_TASK_SET_FULL:
        case SCSI_STATUS_TASK_ABORTED:
            return Outcome::kRetry;
        case SCSI_STATUS_CANCELLED:
        case SCSI_STATUS_ERROR:
        case SCSI_STATUS_TIMEOUT:
            return Outcome::kBroken;
        default:
            break;
    }
    if (status != SCSI_STATUS_CHECK_CONDITION || task == nullptr) {
        return Outcome::kFailed;
    }
    const scsi_sense_key key = task->sense.key;
    const bool passing = key == SCSI_SENSE_UNIT_ATTENTION || key == SCSI_SENSE_COMMAND_ABORTED;
    return passing || (patient && key == SCSI_SENSE_NOT_READY) ? Outcome::kRetry : Outcome::kFailed;
}

std::string describe(int status, const scsi_task* task, const Operation& operation) {
    std::string text = operation.read ? "READ" : "WRITE";
    text += " of " + std::to_string(operation.sectors) + " sectors at " + std::to_string(operation.lba) + ": status " +
            std::to_string(status);
    if (status == SCSI_STATUS_CHECK_CONDITION && task != nullptr) {
        char sense[32];
        std::snprintf(sense, sizeof sense, ", sense %02x/%02x/%02x", static_cast<unsigned>(task->sense.key),
                      static_cast<unsigned>(task->sense.ascq) >> 8U, static_cast<unsigned>(task->sense.ascq) & 0xffU);
        text += sense;
    }
    return text;
}

}  // namespace

std::optional<TargetAddress> parse_url(const std::string& url, std::string& why) {
    iscsi_context* context = iscsi_create_context("iqn.2026-11.dev.gemel:url");
    CHECK(context != nullptr);
    std::optional<TargetAddress> address;
    if (iscsi_url* parsed = iscsi_parse_full_url(context, url.c_str()); parsed != nullptr) {
        address = TargetAddress{.portal = parsed->portal,
                                .target = parsed->target,
                                .lun = parsed->lun,
                                .user = parsed->user,
                                .password = parsed->passwd,
                                .target_user = parsed->target_user,
                                .target_password = parsed->target_passwd};
        iscsi_destroy_url(parsed);
    } else {
        why = iscsi_get_error(context);
    }
    iscsi_destroy_context(context);
    return address;
}

Session::Session(SessionOwner& owner, const Options& options, const TargetAddress& target, std::uint32_t index)
    : owner_(owner), options_(options), target_(target), index_(index), slots_(options.depth) {
    for (Slot& slot : slots_) {
        slot.session = this;
        slot.memory = std::make_unique<std::byte[]>(options.block_bytes);
        slot.data = MutableBytes(slot.memory.get(), options.block_bytes);
        std::uint64_t word = index + 1;
        for (std::size_t at = 0; at + sizeof word <= slot.data.size(); at += sizeof word) {
            word = word * 0x5851f42d4c957f2dU + 1;
            store_le(slot.data.data() + at, word);
        }
    }
}

Session::~Session() {
    disconnect();
}

std::string Session::error_text() const {
    return context_ == nullptr ? "not connected" : iscsi_get_error(context_);
}

void Session::connect() {
    disconnect();
    connect_started_ = SteadyClock::now();
    state_ = State::kConnecting;
    context_ = iscsi_create_context(options_.initiator.c_str());
    CHECK(context_ != nullptr);
    iscsi_set_isid_random(context_, static_cast<std::uint32_t>(::getpid()) & 0xffffffU, index_);  // S2
    iscsi_set_targetname(context_, target_.target.c_str());
    iscsi_set_session_type(context_, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(context_, options_.header_digest ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_noautoreconnect(context_, 1);
    if (!target_.user.empty()) {
        iscsi_set_initiator_username_pwd(context_, target_.user.c_str(), target_.password.c_str());
    }
    if (!target_.target_user.empty()) {
        iscsi_set_target_username_pwd(context_, target_.target_user.c_str(), target_.target_password.c_str());
    }
    if (iscsi_full_connect_async(context_, target_.portal.c_str(), target_.lun, &Session::connected, this) != 0) {
        lost(error_text());
    }
}

void Session::disconnect() {
    if (context_ == nullptr) {
        return;
    }
    tearing_down_ = true;  // S3
    iscsi_destroy_context(context_);
    context_ = nullptr;
    if (capacity_task_ != nullptr) {
        scsi_free_scsi_task(capacity_task_);
        capacity_task_ = nullptr;
    }
    for (Slot& slot : slots_) {
        if (slot.task != nullptr) {
            scsi_free_scsi_task(slot.task);
            slot.task = nullptr;
        }
        slot.in_flight = false;
    }
    tearing_down_ = false;
    state_ = State::kIdle;
}

void Session::log_out(std::chrono::milliseconds limit) {
    if (context_ == nullptr || state_ != State::kReady) {
        return;
    }
    bool answered = false;
    const auto on_answer = [](iscsi_context*, int, void*, void* flag) { *static_cast<bool*>(flag) = true; };
    const TimePoint deadline = SteadyClock::now() + limit;
    if (iscsi_logout_async(context_, on_answer, &answered) == 0) {
        while (!answered && SteadyClock::now() < deadline) {
            pollfd entry{.fd = descriptor(), .events = static_cast<short>(wanted_events()), .revents = 0};
            if (::poll(&entry, 1, 10) < 0 || iscsi_service(context_, entry.revents) != 0) {
                break;
            }
        }
    }
    disconnect();
}

void Session::lost(const std::string& why) {
    if (tearing_down_ || state_ == State::kLost) {
        return;
    }
    state_ = State::kLost;
    owner_.on_lost(*this, why);
}

void Session::connected(iscsi_context* context, int status, void*, void* self) {
    auto& session = *static_cast<Session*>(self);
    if (session.tearing_down_) {
        return;
    }
    if (status != SCSI_STATUS_GOOD) {
        session.lost(session.error_text());
        return;
    }
    session.capacity_task_ =
        iscsi_readcapacity16_task(context, session.target_.lun, &Session::capacity_known, &session);
    if (session.capacity_task_ == nullptr) {
        session.lost(session.error_text());
    }
}

void Session::capacity_known(iscsi_context* context, int status, void*, void* self) {
    auto& session = *static_cast<Session*>(self);
    if (session.tearing_down_) {
        return;
    }
    scsi_task* task = std::exchange(session.capacity_task_, nullptr);
    const Outcome outcome = classify(status, task, true);
    const auto* capacity = outcome == Outcome::kGood && task != nullptr
                               ? static_cast<const scsi_readcapacity16*>(scsi_datain_unmarshall(task))
                               : nullptr;
    if (capacity != nullptr && capacity->block_length >= kSectorBytes) {
        session.block_bytes_ = capacity->block_length;
        session.sectors_ = (capacity->returned_lba + 1) * (capacity->block_length / kSectorBytes);
        session.state_ = State::kReady;
    }
    if (task != nullptr) {
        scsi_free_scsi_task(task);
    }
    if (session.state_ == State::kReady) {
        session.owner_.on_ready(session);
        return;
    }
    if (outcome == Outcome::kRetry) {
        session.capacity_task_ =
            iscsi_readcapacity16_task(context, session.target_.lun, &Session::capacity_known, &session);
        if (session.capacity_task_ != nullptr) {
            return;
        }
    }
    session.lost("READ CAPACITY(16) failed: " + session.error_text());
}

void Session::submit(Slot& slot) {
    CHECK(state_ == State::kReady && slot.operation.has_value() && !slot.in_flight);
    const Operation& op = *slot.operation;
    const std::uint64_t lba = op.lba / (block_bytes_ / kSectorBytes);
    const auto bytes = static_cast<std::uint32_t>(op.sectors * kSectorBytes);
    auto* data = reinterpret_cast<unsigned char*>(slot.data.data());
    slot.piece = {.iov_base = data, .iov_len = bytes};
    const auto block = static_cast<int>(block_bytes_);
    if (op.read) {
        slot.task = iscsi_read16_iov_task(context_, target_.lun, lba, bytes, block, 0, 0, 0, 0, 0, &Session::completed,
                                          &slot, &slot.piece, 1);
    } else {
        slot.task = iscsi_write16_task(context_, target_.lun, lba, data, bytes, block, 0, 0, op.fua ? 1 : 0, 0, 0,
                                       &Session::completed, &slot);
    }
    slot.in_flight = slot.task != nullptr;
    if (!slot.in_flight) {
        lost(error_text());
    }
}

void Session::completed(iscsi_context*, int status, void*, void* private_slot) {
    Slot& slot = *static_cast<Slot*>(private_slot);
    Session& session = *slot.session;
    if (session.tearing_down_) {
        return;  // disconnect() frees the task
    }
    scsi_task* task = std::exchange(slot.task, nullptr);
    slot.in_flight = false;
    Outcome outcome = classify(status, task, session.options_.reconnect_seconds > 0);
    std::string why;
    if (outcome == Outcome::kGood && slot.operation->read && task != nullptr &&
        task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL) {
        outcome = Outcome::kFailed;
        why = describe(status, task, *slot.operation) + ", residual of " + std::to_string(task->residual) + " bytes";
    } else if (outcome == Outcome::kFailed) {
        why = describe(status, task, *slot.operation);
    }
    if (task != nullptr) {
        scsi_free_scsi_task(task);
    }
    if (outcome == Outcome::kBroken) {
        session.lost(session.error_text());
        return;
    }
    session.owner_.on_done(slot, outcome, why);
}

int Session::descriptor() const {
    return context_ == nullptr ? -1 : iscsi_get_fd(context_);
}

int Session::wanted_events() const {
    return context_ == nullptr ? 0 : iscsi_which_events(context_);
}

void Session::service(int events) {
    if (context_ == nullptr || state_ == State::kLost) {
        return;
    }
    if (iscsi_service(context_, events) != 0) {
        lost(error_text());
        return;
    }
    // Commands submitted by callbacks leave at once instead of after another poll().
    if (state_ == State::kReady && (iscsi_which_events(context_) & POLLOUT) != 0 &&
        iscsi_service(context_, POLLOUT) != 0) {
        lost(error_text());
    }
}

}  // namespace gemel::loadgen
