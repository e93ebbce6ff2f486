// SPDX-License-Identifier: Apache-2.0
// Negotiation of a pair over a link that is up: both superblocks are exchanged, both sides decide alike, and both carry
// it out. The node that dials asks; the other may nudge it. Each round ends in a phase, or with the link's reset.
#include <algorithm>

#include "frame.pb.h"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint32_t kMaxAsked = 64;  // a peer that waits for its answers needs one for each connection
constexpr Duration kSameProblemPause = std::chrono::seconds(60);

std::string bytes_of_uuid(const Uuid& u) {
    return std::string(as_text(u.bytes));
}

Uuid uuid_of(const std::string& text) {
    Uuid u;
    if (text.size() == u.bytes.size()) {
        std::ranges::copy(as_bytes_of(text), u.bytes.begin());
    }
    return u;
}

Result<PairView> parse_view(const std::string& body, std::uint32_t node) {
    wire::PairView w;
    if (!w.ParseFromString(body) || w.state() > static_cast<std::uint32_t>(PairState::kNeedFull) || w.role() > 1 ||
        w.choice() > static_cast<std::uint32_t>(Choice::kOtherSide)) {
        return fail(Errc::kProtocol, "the peer's pair state cannot be read");
    }
    PairView v;
    v.pair = uuid_of(w.pair());
    v.sectors = w.sectors();
    v.pending_sectors = w.pending_sectors();
    v.device_sectors = w.device_sectors();
    v.generation = w.generation();
    v.base = w.base();
    v.term = {w.term_counter(), w.term_nonce()};
    v.state = static_cast<PairState>(w.state());
    v.role = static_cast<Role>(w.role());
    v.lost_power = w.lost_power();
    v.dirty = w.dirty();
    v.uncertain = w.uncertain();
    v.choice = static_cast<Choice>(w.choice());
    v.incarnation = uuid_of(w.incarnation());
    v.knows_peer = uuid_of(w.knows_peer());
    v.received = w.received();
    v.sent = w.sent();
    v.round = w.round();
    v.node = node;
    return v;
}

}  // namespace

PairView Mirror::view() const {
    const Superblock& s = meta_.superblock();
    PairView v;
    v.pair = s.pair;
    v.sectors = s.sectors;
    v.pending_sectors = s.pending_sectors;
    v.device_sectors = device_.limits().sectors.value;
    v.generation = s.generation;
    v.base = s.base;
    v.term = s.term;
    v.state = s.state;
    v.role = s.role;
    v.lost_power = s.lost_power;
    v.dirty = meta_.regions().any() || meta_.tracks().any();
    v.uncertain = meta_.uncertain() || !attached_;
    v.choice = s.choice;
    v.incarnation = context_.incarnation;
    v.knows_peer = knows_peer_;
    v.received = received_;
    v.sent = next_sequence_ - 1;
    v.round = round_;
    v.node = node_id(context_.config.node);
    return v;
}

void Mirror::send_view(std::uint16_t flags, const PairView& v) {
    wire::PairView w;
    w.set_pair(bytes_of_uuid(v.pair));
    w.set_volume(info_.name);
    w.set_peer_volume(meta_.superblock().peer_volume);
    w.set_sectors(v.sectors);
    w.set_pending_sectors(v.pending_sectors);
    w.set_device_sectors(v.device_sectors);
    w.set_generation(v.generation);
    w.set_base(v.base);
    w.set_term_counter(v.term.counter);
    w.set_term_nonce(v.term.nonce);
    w.set_state(static_cast<std::uint32_t>(v.state));
    w.set_role(static_cast<std::uint32_t>(v.role));
    w.set_lost_power(v.lost_power);
    w.set_dirty(v.dirty);
    w.set_uncertain(v.uncertain);
    w.set_choice(static_cast<std::uint32_t>(v.choice));
    w.set_incarnation(bytes_of_uuid(v.incarnation));
    w.set_knows_peer(bytes_of_uuid(v.knows_peer));
    w.set_received(v.received);
    w.set_sent(v.sent);
    w.set_round(v.round);
    FrameHeader h;
    h.type = FrameType::kPairState;
    h.flags = flags;
    h.pair_id = pair_id();
    link_->send_control(h, w.SerializeAsString());
}

void Mirror::link_up(Link& link) {
    const Superblock& s = meta_.superblock();
    if (stopping_ || s.state == PairState::kUnpaired || s.pair.is_nil() || s.peer_node != link.peer_node()) {
        return;
    }
    link_ = &link;
    start_negotiation();
}

void Mirror::link_down(Link& link) {
    if (link_ != &link) {
        return;
    }
    phase_ = Phase::kDown;
    sending_ = false;
    answered_ = false;
    settled_.set();
    answer_event_.set();
    ready_.set();
    if (primary() && meta_.superblock().state == PairState::kResyncSource) {
        // The peer's copy is inconsistent already: the hosts need not wait for it.
        gate_.spawn(terminate("the link was lost during a resync"));
    } else if (!primary()) {
        complete_held(fail(Errc::kClosed, "the link was lost"), /*acknowledged=*/false);
    }
}

void Mirror::start_negotiation() {
    if (link_ == nullptr || !link_->up() || stopping_) {
        return;
    }
    session_ = link_->session();
    sending_ = false;
    answered_ = false;
    phase_ = Phase::kNegotiating;
    settled_.reset();
    if (context_.config.node < link_->peer_node()) {
        gate_.spawn(drive_negotiation());
    } else {
        send_view(kFlagNudge, view());
    }
}

/// Before this side shows what it has (PS4). What fails here is shown as uncertain. REQUIRES: transition_ held.
Task<void> Mirror::make_certain() {
    Result<void> done;
    if (!attached_) {
        done = co_await attach();
        refresh_mode();
    } else if (meta_.uncertain()) {
        done = co_await meta_.commit({});
    }
    if (!done) {
        last_error_ = done.error().message;
    }
}

Task<void> Mirror::drive_negotiation() {
    const std::uint64_t session = session_;
    const Mutex::Guard guard = co_await transition_.lock();
    if (stopping_ || !live(session)) {
        co_return;
    }
    sending_ = false;
    answered_ = false;
    phase_ = Phase::kNegotiating;
    settled_.reset();
    interrupt_resync();
    co_await make_certain();
    if (stopping_ || !live(session)) {
        co_return;
    }
    ++round_;
    const PairView mine = view();
    answer_event_.reset();
    send_view(kFlagRequest, mine);
    const bool told = co_await answer_event_.wait_until(clock(), clock().now() + context_.config.ack_timeout);
    if (!stopping_ && live(session) && phase_ == Phase::kNegotiating) {
        if (answered_) {
            co_await settle(mine, answer_);
        } else if (!told) {
            link_->reset("the peer does not answer about volume " + info_.name);
        } else {
            phase_ = Phase::kIdle;
        }
    }
    settled_.set();
}

Task<void> Mirror::answer_negotiation(PairView theirs, std::uint64_t session) {
    const Mutex::Guard guard = co_await transition_.lock();
    if (stopping_ || !live(session)) {
        co_return;
    }
    sending_ = false;
    phase_ = Phase::kNegotiating;
    settled_.reset();
    answered_ = true;
    interrupt_resync();
    co_await make_certain();
    if (stopping_ || !live(session)) {
        co_return;
    }
    round_ = theirs.round;
    const PairView mine = view();
    send_view(0, mine);
    co_await settle(mine, theirs);
    settled_.set();
}

/// What waits for transition_ must not grow with what the peer sends. An error ends the connection.
Result<void> Mirror::start_asked(Task<void> task) {
    if (asked_ >= kMaxAsked) {
        return fail(Errc::kProtocol, "the peer asks again and again without waiting for an answer");
    }
    gate_.spawn(run_asked(std::move(task)));
    return {};
}

Task<void> Mirror::run_asked(Task<void> task) {
    ++asked_;
    co_await std::move(task);
    --asked_;
}

Result<void> Mirror::state_received(Link& link, const Frame& frame) {
    TRY(const PairView theirs, parse_view(frame.body, frame.header.initiator_id));
    if ((frame.header.flags & kFlagNudge) != 0) {
        link_ = &link;
        if (phase_ != Phase::kNegotiating || answered_) {  // else its answer will be newer than this
            start_negotiation();
        }
    } else if ((frame.header.flags & kFlagRequest) != 0) {
        link_ = &link;
        session_ = link.session();
        if (phase_ == Phase::kDown) {
            phase_ = Phase::kNegotiating;
        }
        return start_asked(answer_negotiation(theirs, session_));
    } else if (theirs.round == round_ && phase_ == Phase::kNegotiating) {
        answer_ = theirs;
        answered_ = true;
        answer_event_.set();
    }
    return {};
}

Task<Result<void>> Mirror::frame_received(Link& link, Frame frame) {
    if (meta_.superblock().peer_node != link.peer_node() || stopping_) {
        co_return Result<void>{};
    }
    if (frame.header.type == FrameType::kPairState) {
        co_return state_received(link, frame);
    }
    if (frame.header.type == FrameType::kReply) {
        reply_received(frame.header);
        co_return Result<void>{};
    }
    if (frame.header.type == FrameType::kErrorReply) {
        if (live(link.session())) {
            error_received(frame.header, frame.body);
        }
        co_return Result<void>{};
    }
    if (phase_ == Phase::kNegotiating && answered_) {
        co_await settled_.wait();  // the peer is ahead of us: this frame belongs to what is being settled
    }
    if (!live(link.session()) || phase_ == Phase::kNegotiating) {
        co_return Result<void>{};
    }
    switch (frame.header.type) {
        case FrameType::kResyncBegin:
            co_return start_asked(resync_begun(session_, frame.header.generation));
        case FrameType::kResyncReady:
            ready_.set();
            break;
        case FrameType::kTracks:
            tracks_received(frame);
            break;
        case FrameType::kResyncEnd:
            co_return start_asked(resync_ended(session_, frame.header.sequence));
        case FrameType::kReadRequest:
        case FrameType::kDigestRequest:
        case FrameType::kCopyRequest:
            question_received(frame.header);
            break;
        default:
            co_return co_await stream_received(link, std::move(frame));
    }
    co_return Result<void>{};
}

/// The peer knows nothing of this pair: an establish that never became whole is undone.
void Mirror::pair_unknown(Link& link, const std::string& why) {
    if (link_ != &link) {
        return;
    }
    answer_event_.set();
    phase_ = Phase::kIdle;
    if (meta_.superblock().state == PairState::kPreparing) {
        const auto undo = [](Mirror& self) -> Task<void> {
            const Mutex::Guard guard = co_await self.transition_.lock();
            if (self.meta_.superblock().state == PairState::kPreparing && !self.stopping_) {
                const Result<void> undone = co_await self.meta_.commit_superblock(Superblock{});
                self.last_error_ = undone ? "an establish was not completed" : undone.error().message;
                self.set_identity(self.info_.uuid);
                self.refresh_mode();
            }
        };
        gate_.spawn(undo(*this));
        return;
    }
    note_problem("pair-refused", Severity::kError, "peer: " + why,
                 "the peer has no such pair: sever it here with --force, or establish it again");
    retry_later();
}

void Mirror::note_problem(std::string_view event, Severity severity, const std::string& cause,
                          const std::string& action) {
    last_error_ = cause;
    why_ = cause;
    if (cause != last_problem_ || clock().now() - last_problem_at_ > kSameProblemPause) {
        last_problem_ = cause;
        last_problem_at_ = clock().now();
        emit(event, severity, cause, action);
    }
}

void Mirror::retry_later() {
    if (!retrying_ && !stopping_) {
        retrying_ = true;
        gate_.spawn(retry_after_interval());
    }
}

Task<void> Mirror::retry_after_interval() {
    co_await stop_.wait_until(clock(), clock().now() + context_.config.retry_interval);
    retrying_ = false;
    if (phase_ == Phase::kIdle && meta_.superblock().state != PairState::kUnpaired) {
        start_negotiation();
    }
}

/// REQUIRES: transition_ held.
Task<void> Mirror::settle(PairView mine, PairView theirs) {
    const std::uint64_t session = session_;
    peer_view_ = theirs;
    peer_seen_ = true;
    const Decision decision = decide(mine, theirs);
    Result<void> done = co_await adopt_common(mine, theirs, decision);
    if (done && live(session)) {
        done = co_await execute(theirs, decision);
    }
    if (!done && live(session)) {
        phase_ = Phase::kIdle;
        note_problem("pair-refused", Severity::kError, done.error().message, "see 'gemel mirror status' on both nodes");
        retry_later();
    }
}

/// Term, role and size, before any data moves. Nothing is taken over from a peer whose data is not related.
Task<Result<void>> Mirror::adopt_common(const PairView& mine, const PairView& theirs, const Decision& decision) {
    if (decision.verdict == Verdict::kRefuse || decision.verdict == Verdict::kSplitBrain ||
        decision.verdict == Verdict::kIdle) {
        co_return Result<void>{};
    }
    Superblock s = next_superblock();
    s.term = std::max(s.term, theirs.term);
    s.pending_sectors = 0;
    if (decision.demote_me) {
        s.role = Role::kSecondary;
    }
    const bool equal = decision.verdict == Verdict::kResume || decision.verdict == Verdict::kRestart;
    if (handed_over_ && equal && theirs.role == Role::kSecondary && theirs.term == s.term) {
        s.role = Role::kPrimary;  // the promotion did not come to its end, and nobody else serves
    }
    handed_over_ = handed_over_ && theirs.role == Role::kSecondary && !equal;
    const bool peer_leads = (theirs.role == Role::kPrimary && !decision.demote_peer) ||
                            (s.role == Role::kSecondary && theirs.sectors > s.sectors);
    if (peer_leads) {
        if (theirs.sectors > device_.limits().sectors.value || theirs.sectors == 0) {
            co_return fail(Errc::kSizeMismatch, "the pair has " + std::to_string(theirs.sectors) + " sectors, volume " +
                                                    info_.name + " here has only " +
                                                    std::to_string(device_.limits().sectors.value));
        }
        s.sectors = theirs.sectors;
    } else if (theirs.device_sectors < s.sectors) {
        co_return fail(Errc::kSizeMismatch, "the peer's volume has only " + std::to_string(theirs.device_sectors) +
                                                " of " + std::to_string(s.sectors) + " sectors; resize it");
    }
    if (mine.node == theirs.node) {
        co_return fail(Errc::kProtocol, "both nodes have the same id; rename one");
    }
    if (s != meta_.superblock()) {
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
    }
    meta_.resize(device_.limits().sectors);
    announce_size(SectorCount(s.sectors));
    if (decision.demote_me) {
        serving_ = false;
        emit("pair-demoted", Severity::kWarning, "the peer has the newer term " + std::to_string(s.term.counter));
        complete_held(fail(Errc::kStandby, "a newer primary exists"), /*acknowledged=*/false);
    }
    refresh_mode();
    co_return Result<void>{};
}

Task<Result<void>> Mirror::execute(const PairView& theirs, const Decision& decision) {
    const bool full = decision.full;
    switch (decision.verdict) {
        case Verdict::kResume:
            phase_ = Phase::kStreaming;
            why_.clear();
            if (primary()) {
                resend_after(theirs.received);
                sending_ = true;
                serving_ = true;
                refresh_mode();
                start_maintenance();
            }
            co_return Result<void>{};
        case Verdict::kRestart:
            knows_peer_ = theirs.incarnation;
            co_return co_await restart_stream();
        case Verdict::kSource:
            knows_peer_ = {};
            phase_ = Phase::kResyncSource;
            ready_.reset();
            peer_tracks_.clear();
            gate_.spawn(run_resync(run_, full));
            co_return Result<void>{};
        case Verdict::kTarget:
            knows_peer_ = {};
            phase_ = Phase::kResyncTarget;
            why_ = "its copy is being brought up to date by the peer";
            if (primary()) {
                serving_ = false;
                refresh_mode();
            }
            co_return Result<void>{};
        case Verdict::kSplitBrain: {
            phase_ = Phase::kIdle;
            why_ = decision.reason;
            Superblock s = next_superblock();
            if (s.state != PairState::kSplitBrain) {
                s.state = PairState::kSplitBrain;
                CO_TRY_VOID(co_await meta_.commit_superblock(s));
                emit("split-brain", Severity::kError, decision.reason, "re-establish with --from NODE");
            }
            co_return Result<void>{};
        }
        case Verdict::kIdle:
            co_return co_await become_idle(theirs);
        case Verdict::kRefuse:
            break;
    }
    co_return fail(Errc::kRefused, decision.reason);
}

Task<Result<void>> Mirror::become_idle(const PairView& theirs) {
    phase_ = Phase::kIdle;
    why_ = "severed by an operator";
    Superblock s = next_superblock();
    if (primary() && (s.state == PairState::kMirrored || s.state == PairState::kResyncSource) &&
        !(theirs.role == Role::kPrimary && theirs.term > s.term)) {
        co_return co_await go_alone(PairState::kSevered);
    }
    if (consistent(s.state) && s.state != PairState::kSevered && s.state != PairState::kSplitBrain) {
        if (theirs.role == Role::kPrimary && theirs.term > s.term && s.base == 0) {
            s.role = Role::kSecondary;
            serving_ = false;
        }
        s.state = PairState::kSevered;
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
    }
    refresh_mode();
    co_return Result<void>{};
}

/// The copies are equal: a new stream begins, with whatever hosts wrote since.
Task<Result<void>> Mirror::restart_stream() {
    Superblock s = next_superblock();
    s.state = PairState::kMirrored;
    s.base = 0;
    s.choice = Choice::kNone;
    s.lost_power = false;
    if (s != meta_.superblock()) {
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
    }
    new_stream();
    phase_ = Phase::kStreaming;
    why_.clear();
    if (!primary()) {
        refresh_mode();
        co_return Result<void>{};
    }
    for (auto it = held_.begin(); it != held_.end();) {
        if (it->second->item.in_link) {
            co_await it->second->item.released.wait();
            it = held_.begin();
        } else {
            ++it;
        }
    }
    std::vector<HeldFrame*> waiting;
    for (const auto& [sequence, frame] : held_) {
        waiting.push_back(frame);
    }
    held_.clear();
    for (HeldFrame* frame : waiting) {
        FrameHeader& h = frame->item.header;
        h.sequence = next_sequence_++;
        h.term_counter = meta_.superblock().term.counter;
        h.term_nonce = meta_.superblock().term.nonce;
        held_.emplace(h.sequence, frame);
        send_held(*frame);
    }
    serving_ = true;
    sending_ = true;
    start_maintenance();
    refresh_mode();
    co_return Result<void>{};
}

}  // namespace gemel::replication
