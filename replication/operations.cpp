// SPDX-License-Identifier: Apache-2.0
// Operations on a pair (NS-2, NS-3): every rule is checked on both sides before anything changes, and each change is
// durable on the side that could lose something first. A crash in between leaves the old or the new state; the
// handshake heals the rest.
#include <algorithm>

#include "frame.pb.h"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint64_t kBlankCheckBytes = 256 * kKiB;
constexpr Duration kPollInterval = std::chrono::milliseconds(10);
constexpr Duration kServeTimeout = std::chrono::seconds(5);
constexpr Duration kCommitRetry = std::chrono::milliseconds(200);

/// Of a record that failed (PM6): the operator must not take the promotion for undone.
constexpr const char* kMayShow =
    "; the promotion may have become durable all the same: mend the array, then restart this daemon and look which "
    "side "
    "is primary before hosts use either";

std::string text_of(const Uuid& u) {
    return std::string(as_text(u.bytes));
}

bool take_uuid(const std::string& text, Uuid& u) {
    if (text.size() != u.bytes.size()) {
        return false;
    }
    std::ranges::copy(as_bytes_of(text), u.bytes.begin());
    return true;
}

}  // namespace

/// One operation at a time per volume; a second one is refused at once, so that two nodes never wait for one another.
struct Mirror::Busy {
    explicit Busy(Mirror& m) : mirror(m), mine(!m.operating_ && m.started_ && !m.stopping_) {
        if (mine) {
            mirror.operating_ = true;
        }
    }
    ~Busy() {
        if (mine) {
            mirror.operating_ = false;
        }
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;
    [[nodiscard]] Result<void> ok() const {
        return mine ? Result<void>{}
                    : fail(Errc::kBusy, "another operation on volume " + mirror.info_.name + " is running");
    }
    Mirror& mirror;
    bool mine;
};

Result<Link*> Mirror::contact() const {
    Link* link = peers_.link_to(meta_.superblock().peer_node);
    if (link == nullptr || !link->up()) {
        return fail(Errc::kNotReady,
                    "no contact to node '" + meta_.superblock().peer_node + "'" +
                        (link != nullptr && !link->last_error().empty() ? ": " + link->last_error() : std::string()));
    }
    return link;
}

FrameHeader Mirror::request_header(FrameType type) const {
    FrameHeader h;
    h.type = type;
    h.pair_id = pair_id();
    h.generation = meta_.superblock().generation;
    return h;
}

std::string Mirror::operation_body(const Superblock& s, bool force, const std::string& from) const {
    wire::Operation op;
    op.set_pair(text_of(s.pair));
    op.set_identity(text_of(s.identity));
    op.set_volume(info_.name);
    op.set_peer_volume(s.peer_volume);
    op.set_sectors(s.sectors);
    op.set_term_counter(s.term.counter);
    op.set_term_nonce(s.term.nonce);
    op.set_generation(s.base);
    op.set_force(force);
    op.set_from_node(from);
    return op.SerializeAsString();
}

/// Establish, first side: every track is changed, once no write of the unpaired time is in flight.
Task<Result<void>> Mirror::become_source(Superblock s) {
    const Mutex::Guard guard = co_await transition_.lock();
    hold_hosts();
    mode_.store(Mode::kNotReady);
    co_await drain_through();
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kResetMaps, {}, {}});
    changes.push_back({MetadataOp::kSetTracks, {}, {{0, meta_.tracks().size()}}});
    changes.push_back({MetadataOp::kSuperblock, s, {}});
    Result<void> committed = co_await meta_.commit(std::move(changes));
    serving_ = committed.has_value();
    if (committed) {
        sectors_.store(s.sectors);
    }
    refresh_mode();
    admit_hosts();
    co_return committed;
}

Task<Result<void>> Mirror::establish(EstablishRequest request) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    const Superblock before = next_superblock();
    if (before.state != PairState::kUnpaired) {
        co_return fail(Errc::kAlreadyExists, "volume " + info_.name + " is already paired with node '" +
                                                 before.peer_node + "' (" + std::string(pair_state_name(before.state)) +
                                                 ")");
    }
    const std::string peer_volume = request.peer_volume.empty() ? info_.name : request.peer_volume;
    if (peer_volume.size() >= kVolumeNameBytes) {
        co_return fail(Errc::kInvalidArgument, "the peer volume's name is too long");
    }
    Link* link = peers_.link_to(request.peer);
    if (link == nullptr) {
        co_return fail(Errc::kNotFound, "no peer '" + request.peer + "' is configured on this node");
    }
    if (!link->up()) {
        co_return fail(Errc::kNotReady, "no contact to node '" + request.peer + "': " + link->last_error());
    }
    Superblock s;
    do {
        s.pair = context_.env.random.uuid();
    } while (peers_.pair_id_taken(pair_id_of(s.pair)) || pair_id_of(s.pair) == 0);
    s.identity = info_.uuid;
    s.boot = context_.env.boot_id;
    s.sectors = device_.limits().sectors.value;
    s.base = context_.env.random.next() | 1U;
    s.generation = context_.env.random.next() | 1U;
    s.term = {1, context_.env.random.next()};
    s.state = PairState::kLogging;
    s.peer_node = request.peer;
    s.peer_volume = peer_volume;
    FrameHeader prepare;
    prepare.type = FrameType::kEstablishPrepare;
    CO_TRY_VOID(co_await peers_.request(*link, prepare, operation_body(s, request.overwrite, {})));
    const Result<void> committed = co_await become_source(s);
    FrameHeader second;
    second.type = committed ? FrameType::kEstablishCommit : FrameType::kEstablishAbort;
    const Result<void> told = co_await peers_.request(*link, second, operation_body(s, request.overwrite, {}));
    CO_TRY_VOID(committed);
    if (!told) {
        last_error_ = told.error().message;  // the handshake completes it
    }
    emit("pair-established", Severity::kInfo, "mirrored to volume " + peer_volume + " of node " + request.peer);
    link_ = link;
    start_negotiation();
    co_return Result<void>{};
}

/// Errors: kNeedsForce if the first or last part of the volume holds anything but zeros.
Task<Result<void>> Mirror::check_blank() {
    const std::uint64_t bytes = device_.limits().sectors.value * kSectorBytes;
    const std::uint64_t part = round_down(std::min(bytes, kBlankCheckBytes), kBlockBytes);
    for (const std::uint64_t at : {std::uint64_t{0}, round_down(bytes - part, kBlockBytes)}) {
        CO_TRY(const Buffer memory, context_.env.buffers.allocate(part));
        const Slice slice = memory.slice(part, Lba(at / kSectorBytes));
        slice.clear_infos();
        CO_TRY_VOID(co_await device_.read(Lba(at / kSectorBytes), slice, {}));
        if (!std::ranges::all_of(slice.data(), [](std::byte b) { return b == std::byte{0}; })) {
            co_return fail(Errc::kNeedsForce, "volume " + info_.name + " of node '" + context_.config.node +
                                                  "' is not blank; overwrite it only with --overwrite");
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Mirror::prepare_secondary(Link& link, const wire::Operation& op) {
    const Superblock& now = meta_.superblock();
    const bool restore = now.state == PairState::kNeedFull && op.force();
    if (now.state != PairState::kUnpaired && !restore) {
        co_return fail(Errc::kAlreadyExists, "volume " + info_.name + " of node '" + context_.config.node +
                                                 "' is already paired (" + std::string(pair_state_name(now.state)) +
                                                 ")");
    }
    if (op.sectors() != device_.limits().sectors.value && !restore) {
        co_return fail(Errc::kSizeMismatch, "volume " + info_.name + " of node '" + context_.config.node + "' has " +
                                                std::to_string(device_.limits().sectors.value) + " sectors, not " +
                                                std::to_string(op.sectors()) + "; resize one of them");
    }
    Superblock s;
    if (!take_uuid(op.pair(), s.pair) || !take_uuid(op.identity(), s.identity) || op.volume().empty() ||
        op.volume().size() >= kVolumeNameBytes || op.sectors() > device_.limits().sectors.value) {
        co_return fail(Errc::kInvalidArgument, "an establish request with a bad field");
    }
    if (peers_.pair_id_taken(pair_id_of(s.pair))) {
        co_return fail(Errc::kBusy, "the new pair's id is taken; try again");
    }
    if (!op.force()) {
        CO_TRY_VOID(co_await check_blank());
    }
    s.boot = context_.env.boot_id;
    s.sectors = op.sectors();
    s.generation = op.generation();
    s.term = {op.term_counter(), op.term_nonce()};
    s.role = Role::kSecondary;
    s.state = PairState::kPreparing;
    s.peer_node = link.peer_node();
    s.peer_volume = op.volume();
    const Mutex::Guard guard = co_await transition_.lock();
    mode_.store(Mode::kStandby);
    co_await drain_through();
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kResetMaps, {}, {}});
    changes.push_back({MetadataOp::kSuperblock, s, {}});
    Result<void> done = co_await meta_.commit(std::move(changes));
    if (done) {
        set_identity(s.identity);
        sectors_.store(s.sectors);
    }
    refresh_mode();
    co_return done;
}

Task<Result<void>> Mirror::commit_secondary(const wire::Operation& op) {
    Superblock s = next_superblock();
    Uuid pair;
    if (!take_uuid(op.pair(), pair) || pair != s.pair) {
        co_return fail(Errc::kNotFound, "no such pair is being established");
    }
    const Mutex::Guard guard = co_await transition_.lock();
    s = next_superblock();
    if (s.state == PairState::kPreparing) {
        s.state = PairState::kResyncTarget;
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
    }
    co_return Result<void>{};
}

Task<Result<void>> Mirror::abort_secondary(const wire::Operation& op) {
    Uuid pair;
    if (!take_uuid(op.pair(), pair) || pair != meta_.superblock().pair ||
        meta_.superblock().state != PairState::kPreparing) {
        co_return Result<void>{};
    }
    const Mutex::Guard guard = co_await transition_.lock();
    CO_TRY_VOID(co_await meta_.commit_superblock(Superblock{}));
    set_identity(info_.uuid);
    refresh_mode();
    co_return Result<void>{};
}

/// This side's half of sever: a primary first makes both copies equal and durable where it can.
Task<Result<void>> Mirror::sever_here() {
    if (primary() && meta_.superblock().state == PairState::kMirrored && sending_) {
        hold_hosts();
        const Result<void> drained = co_await drain_hosts();
        const LegOutcome flushed = co_await flush_both();
        if (drained && flushed.result && flushed.acknowledged && !alone()) {
            const Result<void> cleared = co_await meta_.clear_regions(meta_.regions().runs());
            last_error_ = cleared ? last_error_ : cleared.error().message;
        }
        admit_hosts();
    }
    const Mutex::Guard guard = co_await transition_.lock();
    Superblock s = next_superblock();
    if (primary() && (s.state == PairState::kMirrored || s.state == PairState::kResyncSource)) {
        CO_TRY_VOID(co_await go_alone(PairState::kSevered));
    } else if (consistent(s.state) && s.state != PairState::kSevered) {
        s.state = PairState::kSevered;
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
    }
    phase_ = phase_ == Phase::kDown ? Phase::kDown : Phase::kIdle;
    sending_ = false;
    why_ = "severed by an operator";
    refresh_mode();
    emit("pair-severed", Severity::kInfo, "severed by an operator", "'gemel mirror re-establish' mirrors again");
    co_return Result<void>{};
}

Task<Result<void>> Mirror::sever(bool force) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    const PairState state = meta_.superblock().state;
    if (state == PairState::kUnpaired) {
        co_return fail(Errc::kNotFound, "volume " + info_.name + " is not mirrored");
    }
    if (state == PairState::kSevered) {
        co_return fail(Errc::kRefused, "volume " + info_.name + " is severed already");
    }
    if (!consistent(state) && !primary()) {
        co_return fail(Errc::kRefused, "this copy is not consistent (" + std::string(pair_state_name(state)) +
                                           "); sever on the other node");
    }
    const Result<Link*> link = contact();
    if (!link && !force) {
        co_return fail(Errc::kNeedsForce, link.error().message + "; --force severs this side alone");
    }
    if (primary()) {
        CO_TRY_VOID(co_await sever_here());
    }
    if (link) {
        const Result<void> told = co_await peers_.request(**link, request_header(FrameType::kSever),
                                                          operation_body(meta_.superblock(), force, {}));
        if (!told && !primary() && !force) {
            co_return told;
        }
    }
    if (!primary()) {
        CO_TRY_VOID(co_await sever_here());
    }
    co_return Result<void>{};
}

/// Which side is to be the source; empty: as the superblocks say. Checked on both sides.
Result<std::string> Mirror::check_direction(const std::string& from_node, bool force) const {
    const Superblock& s = meta_.superblock();
    if (!from_node.empty() && from_node != context_.config.node && from_node != s.peer_node) {
        return fail(Errc::kInvalidArgument, "--from must be '" + context_.config.node + "' or '" + s.peer_node + "'");
    }
    if (s.state == PairState::kMirrored || s.state == PairState::kResyncSource || s.state == PairState::kResyncTarget ||
        s.state == PairState::kPreparing) {
        if (!peer_seen_ || (consistent(peer_view_.state) && peer_view_.state == PairState::kMirrored)) {
            return fail(Errc::kRefused, "the pair is not severed");
        }
    }
    if (!peer_seen_) {
        return fail(Errc::kNotReady, "the peer's pair state is not known yet; try again");
    }
    PairView mine = view();
    PairView theirs = peer_view_;
    mine.choice = theirs.choice = Choice::kNone;
    for (PairView* v : {&mine, &theirs}) {
        v->state =
            v->state == PairState::kSevered || v->state == PairState::kSplitBrain ? PairState::kLogging : v->state;
    }
    const Decision natural = decide(mine, theirs);
    const bool mine_natural = natural.verdict == Verdict::kSource;
    const bool moves = mine_natural || natural.verdict == Verdict::kTarget;
    if (from_node.empty()) {
        if (natural.verdict == Verdict::kSplitBrain) {
            return fail(Errc::kSplitBrain, "both sides were written alone; name the one to keep with --from NODE");
        }
        if (natural.verdict == Verdict::kRefuse) {
            return fail(Errc::kNeedsForce, natural.reason);
        }
        return std::string(!moves ? "" : (mine_natural ? context_.config.node : s.peer_node));
    }
    const bool me = from_node == context_.config.node;
    mine.choice = me ? Choice::kThisSide : Choice::kOtherSide;
    if (me) {
        mine.term.counter = std::max(mine.term.counter, theirs.term.counter) + 1;  // as choose_direction() will
    }
    const Decision chosen = decide(mine, theirs);
    if (chosen.verdict == Verdict::kRefuse) {
        return fail(Errc::kRefused, chosen.reason);
    }
    if (chosen.full && !force) {
        return fail(Errc::kNeedsForce, "no common base: everything would be copied; say --force");
    }
    if (moves && mine_natural != me && !force) {
        return fail(Errc::kNeedsForce, "the writes made alone on the other side would be lost; say --force");
    }
    return from_node;
}

/// Durable on this side: severed no more, and the direction if one was named.
Task<Result<void>> Mirror::choose_direction(std::string from_node, bool take_term) {
    const Mutex::Guard guard = co_await transition_.lock();
    Superblock s = next_superblock();
    if (s.state == PairState::kSevered || s.state == PairState::kSplitBrain) {
        s.state = s.base == 0 && s.role == Role::kSecondary ? PairState::kMirrored : PairState::kLogging;
    }
    s.choice = from_node.empty()                   ? Choice::kNone
               : from_node == context_.config.node ? Choice::kThisSide
                                                   : Choice::kOtherSide;
    if (take_term && s.choice == Choice::kThisSide) {
        s.term = {std::max(s.term.counter, peer_view_.term.counter) + 1, context_.env.random.next()};
    }
    co_return co_await meta_.commit_superblock(s);
}

Task<Result<void>> Mirror::restore_peer_metadata(Link& link) {
    Superblock s = next_superblock();
    s.base = s.base != 0 ? s.base : s.generation;
    FrameHeader prepare;
    prepare.type = FrameType::kEstablishPrepare;
    CO_TRY_VOID(co_await peers_.request(link, prepare, operation_body(s, /*force=*/true, {})));
    {
        const Mutex::Guard guard = co_await transition_.lock();
        if (primary() && !alone()) {
            CO_TRY_VOID(co_await go_alone(PairState::kLogging));
        }
        s = next_superblock();
        s.choice = Choice::kThisSide;
        std::vector<MetadataChange> changes;
        changes.push_back({MetadataOp::kSetTracks, {}, {{0, meta_.tracks().size()}}});
        changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
        CO_TRY_VOID(co_await meta_.commit(std::move(changes)));
    }
    prepare.type = FrameType::kEstablishCommit;
    CO_TRY_VOID(co_await peers_.request(link, prepare, operation_body(meta_.superblock(), /*force=*/true, {})));
    link_ = &link;
    start_negotiation();
    co_return Result<void>{};
}

Task<void> Mirror::refresh_peer_view() {
    peer_seen_ = false;
    start_negotiation();
    const TimePoint due = clock().now() + kServeTimeout;
    while (!peer_seen_ && clock().now() < due && !stopping_ && phase_ != Phase::kDown) {
        co_await settled_.wait_until(clock(), due);
        if (!peer_seen_) {
            co_await stop_.wait_until(clock(), clock().now() + kPollInterval);
        }
    }
}

Task<Result<void>> Mirror::re_establish(std::string from_node, bool force) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    const PairState state = meta_.superblock().state;
    if (state == PairState::kUnpaired) {
        co_return fail(Errc::kNotFound, "volume " + info_.name + " is not mirrored; establish it first");
    }
    if (state == PairState::kNeedFull) {
        co_return fail(Errc::kRefused, "this side lost its metadata; run it on the other node with --from and --force");
    }
    CO_TRY(Link * link, contact());
    if (force && from_node == context_.config.node && consistent(state) && phase_ == Phase::kIdle) {
        FrameHeader probe = request_header(FrameType::kReEstablish);
        const Result<void> known = co_await peers_.request(*link, probe, operation_body(meta_.superblock(), force, {}));
        if (!known && known.error().code == Errc::kCorrupt) {
            co_return co_await restore_peer_metadata(*link);
        }
    }
    if (phase_ == Phase::kIdle || phase_ == Phase::kNegotiating) {
        co_await refresh_peer_view();  // what was heard before the sever says nothing of what was written since
    }
    CO_TRY(const std::string from, check_direction(from_node, force));
    const bool split = state == PairState::kSplitBrain || peer_view_.state == PairState::kSplitBrain ||
                       (primary() && peer_view_.role == Role::kPrimary);
    // The peer checks its own table and records it first; a crash before this side follows changes no data.
    const std::string body = operation_body(meta_.superblock(), split, from_node.empty() ? std::string() : from);
    wire::Operation op;
    CHECK(op.ParseFromString(body));
    op.set_phase(1);
    CO_TRY_VOID(co_await peers_.request(*link, request_header(FrameType::kReEstablish), op.SerializeAsString()));
    CO_TRY_VOID(co_await choose_direction(from_node.empty() ? std::string() : from, split));
    link_ = link;
    start_negotiation();
    co_return Result<void>{};
}

Task<Result<void>> Mirror::take_size(SectorCount sectors) {
    const Mutex::Guard guard = co_await transition_.lock();
    meta_.resize(SectorCount(std::max(sectors.value, device_.limits().sectors.value)));
    Superblock s = next_superblock();
    const std::uint64_t old = s.sectors;
    s.sectors = sectors.value;
    s.pending_sectors = 0;
    std::vector<MetadataChange> changes;
    if (sectors.value > old && primary()) {  // new sectors have no defined content: they are changed tracks
        changes.push_back(
            {MetadataOp::kSetTracks, {}, {units_of(Lba(old), SectorCount(sectors.value - old), kTrackSectors)}});
    }
    changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
    CO_TRY_VOID(co_await meta_.commit(std::move(changes)));
    knows_peer_ = {};  // the grown tracks are copied by a resync, not by the old stream
    announce_size(sectors);
    co_return Result<void>{};
}

Task<Result<void>> Mirror::resize_pair(Link& link, SectorCount sectors, bool grow) {
    Superblock s = next_superblock();
    s.sectors = sectors.value;
    const std::string body = operation_body(s, !grow, {});
    CO_TRY_VOID(co_await peers_.request(link, request_header(FrameType::kResizePrepare), body));
    if (grow) {
        CO_TRY_VOID(co_await store_.resize(info_.name, sectors));
    }
    hold_hosts();
    Result<void> done = co_await drain_hosts();
    if (done && (!sending_ || meta_.superblock().state != PairState::kMirrored)) {
        done = fail(Errc::kAborted, "the peer was lost during the resize; it keeps the old size");
    }
    if (done) {
        sending_ = false;
        done = co_await take_size(sectors);
    }
    admit_hosts();
    CO_TRY_VOID(done);
    const Result<void> completed = co_await complete_resize(body);
    if (!grow) {
        CO_TRY_VOID(co_await store_.resize(info_.name, sectors));
    }
    co_return completed;
}

/// From this side's record on the new size is decided. A peer that does not hear of it now takes it in the handshake,
/// but only what is durable on both sides is a success: the peer may be promoted alone.
Task<Result<void>> Mirror::complete_resize(const std::string& body) {
    const TimePoint due = clock().now() + kServeTimeout;
    Result<void> told;
    for (bool again = false;; again = true) {
        const Result<Link*> link = contact();
        told = link ? co_await peers_.request(**link, request_header(FrameType::kResizeCommit), body)
                    : std::unexpected(link.error());
        if (told || !again) {
            start_negotiation();
        }
        if (told || clock().now() >= due || co_await stop_.wait_until(clock(), clock().now() + kCommitRetry)) {
            break;
        }
    }
    if (!told) {
        last_error_ = told.error().message;
        co_return fail(told.error().code, "node '" + context_.config.node + "' has the new size; node '" + peer_node() +
                                              "' takes it when they are in step again: " + last_error_);
    }
    co_return Result<void>{};
}

/// The secondary's second phase, asked for until it is answered.
Task<Result<void>> Mirror::commit_resize(SectorCount sectors) {
    bool taken = false;  // the handshake was first
    {
        const Mutex::Guard guard = co_await transition_.lock();
        const Superblock& s = meta_.superblock();
        taken = s.sectors == sectors.value && s.pending_sectors == 0 && !meta_.uncertain();
        if (!taken && s.pending_sectors != sectors.value) {
            co_return fail(Errc::kRefused, "this size was not prepared");
        }
    }
    if (!taken) {
        CO_TRY_VOID(co_await take_size(sectors));
    }
    if (sectors < device_.limits().sectors) {
        CO_TRY_VOID(co_await store_.resize(info_.name, sectors));
    }
    co_return Result<void>{};
}

Task<Result<void>> Mirror::resize(SectorCount sectors, bool force_shrink) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    const std::uint64_t now = sectors_.load();
    if (sectors.value == 0) {
        co_return fail(Errc::kInvalidArgument, "a volume cannot have no sectors");
    }
    if (sectors.value < now && !force_shrink) {
        co_return fail(Errc::kNeedsForce, "shrinking volume " + info_.name + " loses its end; say --force");
    }
    if (meta_.superblock().state == PairState::kUnpaired) {
        CO_TRY_VOID(co_await store_.resize(info_.name, sectors));
        meta_.resize(sectors);
        announce_size(device_.limits().sectors);
        co_return Result<void>{};
    }
    if (!primary() || meta_.superblock().state != PairState::kMirrored || phase_ != Phase::kStreaming) {
        co_return fail(Errc::kRefused, "a pair is resized on its primary, mirrored and connected; this side is " +
                                           std::string(role_name(meta_.superblock().role)) + ", " +
                                           std::string(pair_state_name(meta_.superblock().state)));
    }
    if (sectors.value == now) {
        co_return Result<void>{};
    }
    const std::uint64_t device = device_.limits().sectors.value;
    if (sectors.value > device && (sectors.value - device) > store_.free_sectors().value) {
        co_return fail(Errc::kNoSpace, "node '" + context_.config.node + "' has only " +
                                           std::to_string(store_.free_sectors().value) + " sectors free");
    }
    CO_TRY(Link * link, contact());
    co_return co_await resize_pair(*link, sectors, sectors.value > now);
}

/// The old primary's half of a promotion with contact: nothing in flight, both copies equal and durable, demoted.
Task<Result<void>> Mirror::hand_over(std::uint64_t session) {
    if (!primary()) {
        co_return Result<void>{};
    }
    if (meta_.superblock().state != PairState::kMirrored || phase_ != Phase::kStreaming || !sending_) {
        co_return fail(Errc::kBusy, "the pair is not mirrored on the primary (" +
                                        std::string(pair_state_name(meta_.superblock().state)) + "); wait or --force");
    }
    const std::uint64_t round = round_;
    hold_hosts();
    Result<void> done = co_await drain_hosts();
    if (done) {
        const LegOutcome flushed = co_await flush_both();
        done = flushed.result;
        if (done && (!flushed.acknowledged || alone() || !sending_)) {
            done = fail(Errc::kAborted, "the peer was lost meanwhile");
        }
    }
    if (done) {
        const Mutex::Guard guard = co_await transition_.lock();
        Superblock s = next_superblock();
        // After a lost connection or a new round the other side has given up, and nobody would be the primary.
        if (s.state == PairState::kMirrored && phase_ == Phase::kStreaming && live(session) && round == round_) {
            s.role = Role::kSecondary;
            std::vector<MetadataChange> changes;
            changes.push_back({MetadataOp::kResetMaps, {}, {}});
            changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
            done = co_await meta_.commit(std::move(changes));
            if (done) {
                serving_ = false;
                sending_ = false;
                why_ = "handed over to the peer";
                handed_over_ = true;
                emit("pair-demoted", Severity::kInfo, "handed over to node " + meta_.superblock().peer_node);
            }
        } else {
            done = fail(Errc::kAborted, "the pair's state changed meanwhile");
        }
    }
    refresh_mode();
    admit_hosts();
    co_return done;
}

/// Without contact: what this side has becomes a generation of its own.
Task<Result<void>> Mirror::promote_alone() {
    const Mutex::Guard guard = co_await transition_.lock();
    co_await drain_applying();
    Superblock s = next_superblock();
    if (!consistent(s.state)) {
        co_return fail(Errc::kRefused, "this copy is not consistent (" + std::string(pair_state_name(s.state)) +
                                           "): promoting it would serve damaged data");
    }
    CO_TRY_VOID(co_await device_.flush());  // M2
    s.role = Role::kPrimary;
    s.term = {s.term.counter + 1, context_.env.random.next()};
    s.base = s.base != 0 ? s.base : s.generation;
    s.generation = context_.env.random.next() | 1U;
    s.choice = Choice::kNone;
    s.state = PairState::kLogging;
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kSetTracks, {}, meta_.regions_as_tracks()});
    changes.push_back({MetadataOp::kClearRegions, {}, meta_.regions().runs()});
    changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
    hold_hosts();
    const Result<void> done = co_await meta_.commit(std::move(changes));
    if (done) {
        sending_ = false;
        complete_held({}, /*acknowledged=*/false);
        serving_ = true;
        why_ = "promoted without its peer";
        refresh_mode();
        emit("pair-promoted", Severity::kWarning, "promoted without contact to the peer",
             "make sure that the other node does not serve hosts");
    }
    admit_hosts();
    co_return done ? done : fail(done.error().code, done.error().message + kMayShow);
}

/// With contact: the old primary steps down durably, then this side takes the role, unless they have negotiated since.
Task<Result<void>> Mirror::take_over(Link& link) {
    const std::uint64_t session = session_;
    const std::uint64_t round = round_;
    CO_TRY_VOID(co_await peers_.request(link, request_header(FrameType::kPromoteRequest),
                                        operation_body(meta_.superblock(), /*force=*/false, {})));
    const Mutex::Guard guard = co_await transition_.lock();
    co_await drain_applying();
    Superblock next = next_superblock();
    if (next.state != PairState::kMirrored || !live(session) || round != round_) {
        co_return fail(Errc::kAborted, "the pair's state changed meanwhile");
    }
    next.role = Role::kPrimary;
    next.term = {next.term.counter + 1, context_.env.random.next()};
    if (const Result<void> done = co_await meta_.commit_superblock(next); !done) {
        co_return fail(done.error().code, done.error().message + kMayShow);
    }
    serving_ = true;
    why_.clear();
    refresh_mode();
    emit("pair-promoted", Severity::kInfo, "term " + std::to_string(next.term.counter));
    co_return Result<void>{};
}

Task<Result<void>> Mirror::promote(bool force) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    const Superblock& s = meta_.superblock();
    if (s.state == PairState::kUnpaired) {
        co_return fail(Errc::kNotFound, "volume " + info_.name + " is not mirrored");
    }
    if (primary() && serving_) {
        co_return Result<void>{};
    }
    const Result<Link*> link = contact();
    const bool in_step = link && s.state == PairState::kMirrored && phase_ == Phase::kStreaming;
    if (!in_step && force) {
        CO_TRY_VOID(co_await promote_alone());
        if (link) {
            start_negotiation();
        }
        co_return Result<void>{};
    }
    if (!consistent(s.state)) {
        co_return fail(Errc::kRefused, "this copy is not consistent yet (" + std::string(pair_state_name(s.state)) +
                                           "); wait for the resync");
    }
    if (!in_step) {
        co_return fail(Errc::kNeedsForce,
                       (link ? "the pair is " + std::string(pair_state_name(s.state)) + " and not in step"
                             : link.error().message) +
                           "; --force promotes this side alone, and both may then be live");
    }
    const Result<void> taken = co_await take_over(**link);
    start_negotiation();  // where it failed, the old primary takes the role back, if it had stepped down at all
    CO_TRY_VOID(taken);
    const TimePoint due = clock().now() + kServeTimeout;
    while (phase_ == Phase::kNegotiating && clock().now() < due && !stopping_) {
        co_await settled_.wait_until(clock(), due);
    }
    co_return Result<void>{};
}

/// A request of the peer. Runs beside the link's receive loop.
Task<Result<void>> Mirror::operation_received(Link& link, FrameType type, const wire::Operation& op) {
    const Busy busy(*this);
    CO_TRY_VOID(busy.ok());
    switch (type) {
        case FrameType::kEstablishPrepare:
            co_return co_await prepare_secondary(link, op);
        case FrameType::kEstablishCommit:
            co_return co_await commit_secondary(op);
        case FrameType::kEstablishAbort:
            co_return co_await abort_secondary(op);
        default:
            break;
    }
    if (meta_.superblock().state == PairState::kNeedFull) {
        co_return fail(Errc::kCorrupt, "node '" + context_.config.node + "' lost the metadata of this pair");
    }
    Uuid pair;
    if (!take_uuid(op.pair(), pair) || pair != meta_.superblock().pair || link.peer_node() != peer_node()) {
        co_return fail(Errc::kNotFound, "node '" + context_.config.node + "' has no such pair");
    }
    switch (type) {
        case FrameType::kSever:
            co_return co_await sever_here();
        case FrameType::kReEstablish:
            if (op.phase() == 1) {
                co_return co_await choose_direction(op.from_node(), op.force());
            }
            co_return Result<void>{};
        case FrameType::kResizePrepare: {
            if (primary() || phase_ != Phase::kStreaming) {
                co_return fail(Errc::kRefused, "node '" + context_.config.node + "' is not the pair's secondary now");
            }
            if (op.sectors() > device_.limits().sectors.value) {
                CO_TRY_VOID(co_await store_.resize(info_.name, SectorCount(op.sectors())));
            }
            const Mutex::Guard guard = co_await transition_.lock();
            Superblock s = next_superblock();
            s.pending_sectors = op.sectors();
            co_return co_await meta_.commit_superblock(s);
        }
        case FrameType::kResizeCommit:
            co_return co_await commit_resize(SectorCount(op.sectors()));
        case FrameType::kPromoteRequest:
            co_return co_await hand_over(link.session());
        default:
            co_return fail(Errc::kProtocol, "not an operation");
    }
}

}  // namespace gemel::replication
