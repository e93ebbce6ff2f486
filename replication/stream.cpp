// SPDX-License-Identifier: Apache-2.0
// The sender's side of a stream: frames held until acknowledged, resent after a reconnect, and given up for good when
// the budget of NS-6 is spent: new generation, tracks durable, and only then the waiting hosts.
#include <algorithm>

#include "frame.pb.h"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr Duration kWatchInterval = std::chrono::milliseconds(100);
constexpr Duration kLongestBudget = std::chrono::seconds(8);

/// What an error reply of the peer means for the association (NS-7).
enum class Nature : std::uint8_t { kRetry, kFence, kIgnore, kStop };
struct NatureRow {
    Errc code;
    Nature nature;
};
constexpr std::array kNatures{
    NatureRow{Errc::kChecksum, Nature::kRetry},
    NatureRow{Errc::kStaleTerm, Nature::kFence},
    NatureRow{Errc::kAborted, Nature::kIgnore},
};
Nature nature_of(Errc code) {
    const auto row = std::ranges::find(kNatures, code, &NatureRow::code);
    return row == kNatures.end() ? Nature::kStop : row->nature;
}

}  // namespace

// Half of the promise "at most 10 s" stays for detection, the flush and the durable record.
Duration Mirror::budget() const {
    return std::min<Duration>(kLongestBudget, context_.config.ack_timeout * context_.config.tries);
}

/// Bytes of payload that one frame may carry.
std::uint64_t Mirror::frame_limit() const {
    const std::uint64_t theirs = link_ != nullptr ? link_->hello().frame_bytes : 0;
    return round_down(std::min<std::uint64_t>({context_.config.frame_bytes, kMaxFramePayload,
                                               theirs > 0 ? theirs : std::uint64_t{kMaxFramePayload}}),
                      kBlockBytes);
}

void Mirror::add_frames(Leg& leg, const Change& change) {
    const std::uint64_t limit = frame_limit();
    std::size_t offset = 0;
    do {
        auto frame = std::make_unique<HeldFrame>();
        FrameHeader& h = frame->item.header;
        h.type = change.type;
        h.pair_id = pair_id();
        h.term_counter = meta_.superblock().term.counter;
        h.term_nonce = meta_.superblock().term.nonce;
        h.generation = meta_.superblock().generation;
        h.lba = change.lba.value + offset / kSectorBytes;
        h.flags = change.fua ? kFlagFua : std::uint16_t{0};
        h.sector_count = static_cast<std::uint32_t>(change.sectors.value);
        if (!change.data.empty()) {
            std::size_t size = std::min<std::size_t>(limit, change.data.size() - offset);
            if (offset == 0 && size < change.data.size()) {
                size -= change.data.head();  // later frames begin on 4 KiB addresses
            }
            const Slice part = change.data.sub(offset, size);
            frame->item.body = seal_payload(h, part);
            frame->item.payload = part.data();
            h.sector_count = static_cast<std::uint32_t>(size / kSectorBytes);
            offset += size;
        }
        if (offset == change.data.size()) {
            h.flags = static_cast<std::uint16_t>(h.flags | kFlagLastOfWrite);
        }
        frame->leg = &leg;
        leg.frames.push_back(std::move(frame));
    } while (offset < change.data.size());
    leg.left = leg.frames.size();
}

void Mirror::send_held(HeldFrame& frame) {
    if (link_ != nullptr && !frame.item.in_link && link_->session() == session_ && link_->send(frame.item)) {
        ++frames_sent_;
        (frame.leg->resync ? resync_bytes_sent_ : bytes_sent_) += frame.item.payload.size();
    }
}

Task<Mirror::LegOutcome> Mirror::run_leg(Change change, bool resync) {
    if (stopping_) {
        co_return LegOutcome{fail(Errc::kAborted, "the node is stopping"), false};
    }
    Leg leg;
    leg.resync = resync;
    leg.since = clock().now();
    add_frames(leg, change);
    for (const auto& frame : leg.frames) {
        frame->item.header.sequence = next_sequence_++;
        held_.emplace(frame->item.header.sequence, frame.get());
        if (sending_) {
            send_held(*frame);
        }
    }
    start_watch();
    co_await leg.done.wait();
    for (const auto& frame : leg.frames) {
        if (frame->item.in_link) {
            co_await frame->item.released.wait();  // LK1: the buffer is the host's again afterwards
        }
    }
    co_return LegOutcome{std::move(leg.result), leg.acknowledged};
}

// The same stream goes on: what the peer has not received is sent again; for the rest it is asked for its reply.
void Mirror::resend_after(std::uint64_t received) {
    for (const auto& [sequence, frame] : held_) {
        if (sequence > received || frame->item.header.type == FrameType::kFlush) {
            send_held(*frame);
        } else {
            FrameHeader query = frame->item.header;
            query.flags = kFlagQuery;
            query.payload_length = 0;
            link_->send_control(query, {});
        }
    }
}

/// Ends every leg: resync copies fail, hosts' legs get `hosts`.
void Mirror::complete_held(const Result<void>& hosts, bool acknowledged) {
    while (!held_.empty()) {
        Leg& leg = *held_.begin()->second->leg;
        for (const auto& frame : leg.frames) {
            held_.erase(frame->item.header.sequence);
        }
        leg.left = 0;
        leg.acknowledged = acknowledged;
        leg.result = leg.resync ? fail(Errc::kClosed, "the resync was interrupted") : hosts;
        leg.done.set();
    }
}

/// A negotiation ends the present run of a resync: its copies fail, hosts' frames stay held.
void Mirror::interrupt_resync() {
    ++run_;
    ready_.set();
    for (auto it = held_.begin(); it != held_.end();) {
        Leg& leg = *it->second->leg;
        if (!leg.resync) {
            ++it;
            continue;
        }
        it = held_.erase(it);
        leg.acknowledged = false;
        leg.result = fail(Errc::kClosed, "the resync was interrupted");
        leg.done.set();
    }
}

void Mirror::reply_received(const FrameHeader& header) {
    const auto it = held_.find(header.sequence);
    if (it == held_.end()) {
        return;
    }
    Leg& leg = *it->second->leg;
    held_.erase(it);
    resets_ = 0;
    progress_ = last_ack_ = clock().now();
    peer_received_ = std::max(peer_received_, header.sequence);
    peer_durable_ = std::max(peer_durable_, header.lba);
    if (--leg.left == 0) {
        leg.done.set();
    }
}

void Mirror::error_received(const FrameHeader& header, const std::string& body) {
    wire::ErrorBody error;
    if (!error.ParseFromString(body)) {
        link_->reset("an error reply that cannot be read");
        return;
    }
    const auto code = static_cast<Errc>(error.errc());
    last_error_ = "peer: " + error.nature() + " (" + std::string(errc_name(code)) + ")";
    const auto it = held_.find(header.sequence);
    switch (nature_of(code)) {
        case Nature::kRetry:
            if (it != held_.end() && ++it->second->tries <= context_.config.tries) {
                send_held(*it->second);
            } else if (it != held_.end()) {
                emit("checksum-error", Severity::kError, last_error_, "check the network path between the nodes");
                it->second->tries = 0;
                link_->reset("a frame arrives damaged again and again");
            }
            return;
        case Nature::kFence:
            fence(last_error_);
            return;
        case Nature::kIgnore:
            return;
        case Nature::kStop:
            if (it != held_.end()) {
                gate_.spawn(terminate(last_error_));
            }
            return;
    }
}

// A newer primary exists: nothing is acknowledged any more; the handshake decides what becomes of this side.
void Mirror::fence(const std::string& why) {
    if (!primary() || !serving_) {
        return;
    }
    serving_ = false;
    sending_ = false;
    why_ = why;
    refresh_mode();
    emit("pair-fenced", Severity::kError, why, "look at both nodes with 'gemel mirror status'");
    complete_held(fail(Errc::kStandby, "a newer primary of volume " + info_.name + " exists"), /*acknowledged=*/false);
    if (link_ != nullptr) {
        link_->reset("fenced by a newer term");
    }
}

void Mirror::start_watch() {
    if (!watching_ && !stopping_) {
        watching_ = true;
        gate_.spawn(watch());
    }
}

// Runs while something is unacknowledged. No progress for ack_timeout: reconnect; for the whole budget: end it.
Task<void> Mirror::watch() {
    while (!held_.empty() && !stopping_) {
        co_await stop_.wait_until(clock(), clock().now() + kWatchInterval);
        if (held_.empty() || stopping_) {
            break;
        }
        const TimePoint now = clock().now();
        const TimePoint stuck_since = std::max(progress_, held_.begin()->second->leg->since);
        const bool down = link_ == nullptr || !link_->up();
        const bool long_gone = down && (link_ == nullptr || now - link_->down_since() >= budget());
        if (now - stuck_since >= budget() || long_gone) {
            if (!terminating_) {
                co_await terminate(down ? "the peer cannot be reached" : "the peer acknowledges nothing");
            }
        } else if (!down && now - stuck_since > context_.config.ack_timeout &&
                   now - last_reset_ > context_.config.ack_timeout) {
            last_reset_ = now;
            ++resets_;
            link_->reset("no acknowledgement of volume " + info_.name + " (try " + std::to_string(resets_) + " of " +
                         std::to_string(context_.config.tries) + ")");
        }
    }
    watching_ = false;
}

/// Ends the association and goes on alone, or freezes (NS-6).
Task<void> Mirror::terminate(std::string reason) {
    if (terminating_ || stopping_) {
        co_return;
    }
    terminating_ = true;
    {
        const Mutex::Guard guard = co_await transition_.lock();
        if (!stopping_) {
            co_await terminate_locked(std::move(reason));
        }
    }
    terminating_ = false;
}

Task<void> Mirror::terminate_locked(std::string reason) {
    const Superblock& s = meta_.superblock();
    sending_ = false;
    // Only a copy that is known to be good may go on alone (M6): a resync target stays one, whatever its role is.
    if (s.role != Role::kPrimary || (s.state != PairState::kMirrored && s.state != PairState::kResyncSource)) {
        complete_held(alone() ? Result<void>{} : fail(Errc::kNotReady, reason), /*acknowledged=*/false);
        co_return;
    }
    const bool inconsistent_peer = s.state == PairState::kResyncSource;
    if (context_.config.on_peer_loss == PeerLoss::kFreeze && !inconsistent_peer) {
        serving_ = false;
        knows_peer_ = {};  // its stream cannot be resumed: the frames are gone with the hosts' buffers
        why_ = "frozen: " + reason;
        refresh_mode();
        emit("pair-frozen", Severity::kError, reason, "bring the peer back, or promote --force to go on alone");
        complete_held(fail(Errc::kNotReady, "volume is frozen: " + reason), /*acknowledged=*/false);
    } else {
        const Result<void> result = co_await go_alone(PairState::kLogging);
        why_ = result ? "severed by loss of the peer: " + reason : why_;
        if (result && !inconsistent_peer) {
            emit("pair-severed", Severity::kError, reason,
                 "hosts go on with this node alone; changed tracks are copied when the peer is back");
        } else if (result) {
            emit("pair-resync-interrupted", Severity::kWarning, reason);
        }
    }
    if (link_ != nullptr && link_->up() && phase_ != Phase::kDown) {
        phase_ = Phase::kIdle;
        retry_later();
    }
}

/// REQUIRES: transition_ held, this side is the primary.
Task<Result<void>> Mirror::go_alone(PairState next) {
    hold_hosts();
    sending_ = false;
    went_alone_.reset();
    going_alone_ = true;
    Result<void> result = co_await device_.flush();  // M2: what only the peer might hold durably is durable here too
    if (result) {
        Superblock s = next_superblock();
        s.state = next;
        s.choice = Choice::kNone;
        if (s.base == 0) {
            s.base = s.generation;
            s.generation = context_.env.random.next() | 1U;
        }
        std::vector<MetadataChange> changes;
        changes.push_back({MetadataOp::kSetTracks, {}, meta_.regions_as_tracks()});
        changes.push_back({MetadataOp::kClearRegions, {}, meta_.regions().runs()});
        changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
        result = co_await meta_.commit(std::move(changes));
    }
    if (!result) {
        serving_ = false;
        knows_peer_ = {};  // its stream cannot be resumed: the frames are gone with the hosts' buffers
        why_ = "cannot go on alone: " + result.error().message;
        last_error_ = why_;
        emit("pair-frozen", Severity::kError, why_, "repair the array of this node, or promote the peer");
    } else {
        serving_ = true;
    }
    refresh_mode();
    complete_held(result ? Result<void>{} : fail(Errc::kNotReady, why_), /*acknowledged=*/false);
    going_alone_ = false;
    went_alone_.set();
    admit_hosts();
    co_return result;
}

}  // namespace gemel::replication
