// SPDX-License-Identifier: Apache-2.0
// The mirror as its hosts see it: admission, intents, both legs, flush, and the lazy clearing of regions.
#include "replication/mirror.hpp"

#include <algorithm>

#include "gemel/test_switch.hpp"

namespace gemel::replication {

Mirror::Mirror(NodeContext& context, PeerAccess& peers, VolumeStore& store, VolumeInfo info, BlockDevice& device)
    : context_(context),
      peers_(peers),
      store_(store),
      info_(std::move(info)),
      device_(device),
      meta_(store.log(), kLogClientPair | info_.number, context.home),
      sectors_(device.limits().sectors.value),
      identity_(info_.uuid) {
    settled_.set();
    admitted_.set();
    reports_.mirror = this;
    reports_.run = [](Work& w) noexcept { static_cast<Reports&>(w).mirror->take_reports(); };
    device_.observe(this);
}

DeviceLimits Mirror::limits() const {
    DeviceLimits l = device_.limits();
    l.sectors = SectorCount(std::min(l.sectors.value, sectors_.load()));
    return l;
}

Uuid Mirror::identity() const {
    const std::lock_guard lock(identity_mutex_);
    return identity_;
}

void Mirror::set_identity(Uuid identity) {
    const std::lock_guard lock(identity_mutex_);
    identity_ = identity;
}

std::uint32_t Mirror::pair_id() const {
    return meta_.superblock().pair.is_nil() ? 0 : pair_id_of(meta_.superblock().pair);
}

void Mirror::capacity_changed(SectorCount now) {
    if (mode_.load() == Mode::kPassThrough) {  // a pair's size changes only by agreement
        announce_size(now);
    }
}

void Mirror::degraded(const std::string& why) {
    if (DeviceObserver* o = observer_.load(); o != nullptr) {
        o->degraded(why);
    }
}

void Mirror::announce_size(SectorCount sectors) {
    if (sectors_.exchange(sectors.value) != sectors.value) {
        if (DeviceObserver* o = observer_.load(); o != nullptr) {
            o->capacity_changed(sectors);
        }
        severed_copy_.announce(sectors);
    }
}

void Mirror::emit(std::string_view event, Severity severity, std::string cause, std::string action) {
    context_.env.events.emit({severity, event, "volume " + info_.name, std::move(cause), std::move(action)});
}

void Mirror::refresh_mode() {
    const Superblock& s = meta_.superblock();
    Mode mode = Mode::kNotReady;
    if (started_ && !stopping_) {
        if (s.state == PairState::kUnpaired) {
            mode = Mode::kPassThrough;
        } else if (s.role == Role::kSecondary) {
            mode = s.state == PairState::kNeedFull ? Mode::kNotReady : Mode::kStandby;
        } else {
            mode = serving_ ? Mode::kServing : Mode::kNotReady;
        }
    }
    mode_.store(mode);
    const bool readable = started_ && !stopping_ && s.role == Role::kSecondary && s.state == PairState::kSevered;
    if (readable != severed_times_.load() % 2) {
        severed_times_.fetch_add(1);
    }
}

/// The primary goes on without its peer: changes go to the tracks.
bool Mirror::alone() const {
    const PairState s = meta_.superblock().state;
    return s == PairState::kLogging || s == PairState::kSevered || s == PairState::kSplitBrain;
}

Result<void> Mirror::admission() const {
    switch (mode_.load()) {
        case Mode::kPassThrough:
        case Mode::kServing:
            return {};
        case Mode::kStandby:
            return fail(Errc::kStandby, "this node is the secondary of volume " + info_.name);
        case Mode::kNotReady:
            break;
    }
    return fail(Errc::kNotReady, "volume " + info_.name + " is not ready");
}

Task<Result<void>> Mirror::read(Lba lba, Slice to, ReadOptions options) {
    const auto refuse = [](Result<void> why) -> Task<Result<void>> { co_return why; };
    if (Result<void> ok = admission(); !ok) {
        return refuse(std::move(ok));
    }
    return mode_.load() == Mode::kPassThrough ? device_.read(lba, to, options) : read_paired(lba, to, options);
}

Task<Result<void>> Mirror::read_severed(Lba lba, Slice to, ReadOptions options) {
    const std::uint64_t before = severed_times_.load();
    Result<void> read = before % 2 == 1 ? co_await device_.read(lba, to, options) : Result<void>{};
    if (before % 2 == 0 || severed_times_.load() != before) {  // it may have changed under the read
        co_return fail(Errc::kRefused,
                       "volume " + info_.name + " is no severed secondary here: sever it to read its copy");
    }
    co_return read;
}

Task<Result<void>> Mirror::write(Lba lba, Slice from, WriteOptions options) {
    return change_through({FrameType::kData, lba, from.sectors(), from, options.fua});
}

Task<Result<void>> Mirror::discard(Lba lba, SectorCount count) {
    return change_through({FrameType::kDiscard, lba, count, {}, false});
}

// Counts writes that pass an unpaired volume, so that establish can wait for them before its first copy.
Task<Result<void>> Mirror::change_through(Change change) {
    if (mode_.load() != Mode::kPassThrough) {
        co_return co_await change_paired(change);
    }
    through_.fetch_add(1);
    if (mode_.load() != Mode::kPassThrough) {
        through_.fetch_sub(1);
        co_return co_await change_paired(change);
    }
    Result<void> result = co_await apply_local(change, /*background=*/false);
    through_.fetch_sub(1);
    co_return result;
}

Task<Result<void>> Mirror::apply_local(Change change, bool background) {
    if (change.type == FrameType::kDiscard) {
        return device_.discard(change.lba, change.sectors);
    }
    return device_.write(change.lba, change.data, {change.fua, background});
}

Task<Result<void>> Mirror::change_paired(Change change) {
    CO_TRY_VOID(admission());
    Executor& caller = Executor::current();
    co_await resume_on(context_.home);
    Result<void> result = fail(Errc::kAborted, "the node is stopping");
    if (gate_.enter()) {
        result = co_await change_home(change);
        gate_.leave();
    }
    co_await resume_on(caller);
    co_return result;
}

Task<Result<void>> Mirror::change_home(Change change) {
    if (change.sectors.value == 0) {
        co_return Result<void>{};
    }
    const std::uint64_t last = change.lba.value + change.sectors.value - 1;
    if (last < change.lba.value || last >= sectors_.load()) {
        co_return fail(Errc::kOutOfRange, "the range ends beyond volume " + info_.name);
    }
    IntervalLock::Guard guard;
    if (!active(TestSwitch::kNoIntervalLock)) {
        guard = co_await lock_.acquire(change.lba.value, last);  // M4
    }
    co_return co_await change_inside(change);
}

/// REQUIRES: the interval lock of its range is held.
Task<Result<void>> Mirror::change_inside(Change change) {
    while (barrier_ > 0 && !stopping_) {
        co_await admitted_.wait();
    }
    const Run regions = units_of(change.lba, change.sectors, kRegionSectors);
    for (std::uint64_t r = regions.first; r < regions.first + regions.count; ++r) {
        ++uses_[r].busy;
    }
    ++hosts_inside_;
    Result<void> result = co_await change_locked(change, regions);
    for (std::uint64_t r = regions.first; r < regions.first + regions.count; ++r) {
        RegionUse& use = uses_[r];
        --use.busy;
        use.epoch = epoch_;
    }
    if (--hosts_inside_ == 0) {
        hosts_left_.set();
    }
    co_return result;
}

Task<Result<void>> Mirror::change_locked(Change change, Run regions) {
    const Run tracks = units_of(change.lba, change.sectors, kTrackSectors);
    const bool late = active(TestSwitch::kTrackBitLate);
    for (;;) {
        CO_TRY_VOID(admission());
        if (barrier_ > 0) {
            co_await wait_admitted();
            continue;
        }
        if (change.lba.value + change.sectors.value > sectors_.load()) {  // the volume shrank while the write waited
            co_return fail(Errc::kOutOfRange, "the range ends beyond volume " + info_.name);
        }
        const bool single = alone();
        if (late) {
            break;
        }
        CO_TRY_VOID(single ? co_await meta_.ensure_tracks(tracks) : co_await meta_.ensure_regions(regions));  // M1
        const bool marked = single ? meta_.tracks().all(tracks) : meta_.regions().all(regions);
        if (marked && single == alone() && barrier_ == 0) {
            break;
        }
    }
    CO_TRY_VOID(admission());
    Result<void> result;
    if (change.legs != Legs::kBoth) {
        result = co_await change_one(change);
    } else if (alone()) {
        result = co_await apply_local(change, /*background=*/false);
    } else {
        result = co_await (active(TestSwitch::kAckBeforePeer) ? change_acked_early(change) : change_both(change));
    }
    if (late) {
        CO_TRY_VOID(alone() ? co_await meta_.ensure_tracks(tracks) : co_await meta_.ensure_regions(regions));
    }
    start_maintenance();
    co_return result;
}

/// A repair: of a pair that is not in step any more, only of this side's copy.
Task<Result<void>> Mirror::change_one(Change change) {
    if (change.legs == Legs::kHere) {
        co_return co_await device_.repair_write(change.lba, change.data);
    }
    if (!in_step()) {
        co_return fail(Errc::kClosed, "the pair is not in step any more");
    }
    // Held as a host's frame is: a part of the stream that a negotiation dropped would leave a gap in its sequence.
    const LegOutcome sent = co_await run_leg(change, /*resync=*/false);
    CO_TRY_VOID(sent.result);
    co_return sent.acknowledged ? Result<void>{} : fail(Errc::kClosed, "the peer was lost");
}

Task<Result<void>> Mirror::change_both(Change change) {
    const auto remote = [](Mirror& self, Change c) -> Task<LegOutcome> { return self.run_leg(c, /*resync=*/false); };
    auto [local, peer] = co_await when_both(apply_local(change, /*background=*/false), remote(*this, change));
    while (going_alone_) {
        // The flush that precedes going alone may not have covered this write: it is answered as one of a lone primary.
        co_await went_alone_.wait();
    }
    if (!local) {
        // The peer may have it, this leg may not: the range is copied again once the pair is negotiated anew.
        const Run tracks = units_of(change.lba, change.sectors, kTrackSectors);
        const Result<void> marked = co_await meta_.ensure_tracks(tracks);
        if (peer.acknowledged && !stopping_) {
            const std::string cause = "a write of this node's own leg failed: " + local.error().message;
            gate_.spawn(terminate(marked ? cause : cause + "; " + marked.error().message));
        }
        co_return local;
    }
    co_return peer.result;
}

Task<Result<void>> Mirror::change_acked_early(Change change) {
    if (change.type == FrameType::kData) {
        gate_.spawn(peer_copy(change));
        co_return co_await apply_local(change, /*background=*/false);
    }
    co_return co_await change_both(change);
}

Task<void> Mirror::peer_copy(Change change) {
    Result<Buffer> copy = context_.env.buffers.allocate(change.data.size());
    if (!copy) {
        co_return;
    }
    const Slice slice = copy->slice(change.data.size(), change.lba);
    std::ranges::copy(change.data.data(), slice.data().begin());
    slice.seal();
    change.data = slice;
    co_await run_leg(change, /*resync=*/false);
}

Task<Result<void>> Mirror::flush() {
    if (mode_.load() == Mode::kPassThrough) {
        return device_.flush();
    }
    return flush_paired();
}

Task<Result<void>> Mirror::flush_paired() {
    CO_TRY_VOID(admission());
    Executor& caller = Executor::current();
    co_await resume_on(context_.home);
    Result<void> result = fail(Errc::kAborted, "the node is stopping");
    if (gate_.enter()) {
        while (barrier_ > 0 && !stopping_) {
            co_await admitted_.wait();
        }
        result = admission();
        if (result) {
            result = alone() ? co_await device_.flush() : (co_await flush_both()).result;
        }
        gate_.leave();
    }
    co_await resume_on(caller);
    co_return result;
}

Task<Mirror::LegOutcome> Mirror::flush_both() {
    if (active(TestSwitch::kSkipFlushOneLeg)) {
        co_return LegOutcome{co_await device_.flush(), true};
    }
    auto [local, peer] = co_await when_both(device_.flush(), run_leg({FrameType::kFlush, {}, {}, {}, false}, false));
    if (!local) {
        co_return LegOutcome{std::move(local), false};
    }
    co_return std::move(peer);
}

/// Wherever regions may be marked and a stream runs: also after a restart, when no host writes any more.
void Mirror::start_maintenance() {
    if (!maintaining_ && primary() && !alone() && meta_.regions().any()) {
        maintaining_ = gate_.spawn(maintain());
    }
}

// Flushes both legs while regions are marked, so that durable positions advance when the host never flushes, and drops
// the marks of regions idle since before the flush (M5).
Task<void> Mirror::maintain() {
    while (!stopping_ && meta_.regions().any() && !alone()) {
        if (co_await stop_.wait_until(clock(), clock().now() + context_.config.flush_interval)) {
            break;
        }
        if (!sending_ || alone() || !primary()) {
            continue;
        }
        const std::uint64_t epoch = ++epoch_;
        const std::uint64_t session = session_;
        const LegOutcome flushed = co_await flush_both();
        if (!flushed.result) {
            last_error_ = flushed.result.error().message;
        } else if (flushed.acknowledged && session == session_ && !alone() && barrier_ == 0) {
            clear_idle_regions(epoch);
        }
    }
    maintaining_ = false;
}

void Mirror::clear_idle_regions(std::uint64_t epoch) {
    std::vector<Run> idle;
    const Bitmap& regions = meta_.regions();
    for (std::uint64_t r = regions.next(0); r < regions.size(); r = regions.next(r + 1)) {
        const auto use = uses_.find(r);
        if (use != uses_.end() && (use->second.busy > 0 || use->second.epoch >= epoch)) {
            continue;
        }
        if (use != uses_.end()) {
            uses_.erase(use);
        }
        if (!idle.empty() && idle.back().first + idle.back().count == r) {
            ++idle.back().count;
        } else {
            idle.push_back({r, 1});
        }
    }
    if (!idle.empty()) {
        const auto forget = [](Mirror& self, std::vector<Run> runs) -> Task<void> {
            const Result<void> cleared = co_await self.meta_.clear_regions(std::move(runs));
            if (!cleared) {
                self.last_error_ = cleared.error().message;
            }
        };
        gate_.spawn(forget(*this, std::move(idle)));
    }
}

void Mirror::hold_hosts() {
    ++barrier_;
    admitted_.reset();
}

// A write that has changed nothing yet does not count as inside while it waits, or drain_hosts() would wait for it.
Task<void> Mirror::wait_admitted() {
    if (--hosts_inside_ == 0) {
        hosts_left_.set();
    }
    while (barrier_ > 0 && !stopping_) {
        co_await admitted_.wait();
    }
    ++hosts_inside_;
}

void Mirror::admit_hosts() {
    CHECK(barrier_ > 0);
    if (--barrier_ == 0) {
        admitted_.set();
    }
}

Task<Result<void>> Mirror::drain_hosts() {
    const TimePoint due = clock().now() + budget();
    while (hosts_inside_ > 0) {
        hosts_left_.reset();
        if (!co_await hosts_left_.wait_until(clock(), due)) {
            co_return fail(Errc::kTimedOut, "host writes of volume " + info_.name + " are still in flight");
        }
    }
    co_return Result<void>{};
}

Task<void> Mirror::drain_through() {
    while (through_.load() > 0) {
        co_await sleep_for(clock(), std::chrono::milliseconds(1));
    }
}

/// A power loss since the last start, and a resync whose source has stopped, durably.
Task<Result<void>> Mirror::attach() {
    Superblock s = next_superblock();
    if (s.state != PairState::kUnpaired && s.state != PairState::kNeedFull) {
        s.lost_power = s.lost_power || s.boot != context_.env.boot_id;
        s.boot = context_.env.boot_id;
        if (s.role == Role::kPrimary && s.state == PairState::kResyncSource) {
            s.state = PairState::kLogging;
            if (s.base == 0) {
                s.base = s.generation;
                s.generation = context_.env.random.next() | 1U;
            }
        }
        CO_TRY_VOID(s == meta_.superblock() ? Result<void>{} : co_await meta_.commit_superblock(s));
    }
    attached_ = true;
    serving_ = alone();
    co_return Result<void>{};
}

Task<void> Mirror::start() {
    const Result<void> recovered = meta_.recover(device_.limits().sectors);
    if (!recovered) {
        meta_.mark_need_full();
        why_ = "the pair's metadata is damaged: " + recovered.error().message;
        emit("pair-need-full", Severity::kError, why_, "re-establish from the other node with --from NODE --force");
    }
    const Result<void> attached = co_await attach();
    const Superblock& s = meta_.superblock();
    if (s.state != PairState::kUnpaired && s.state != PairState::kNeedFull) {
        sectors_.store(s.sectors);
        set_identity(s.identity);
        if (!attached) {
            why_ = "the pair's metadata cannot be written: " + attached.error().message;
        } else if (primary() && !serving_) {
            why_ = s.lost_power ? "this node lost power; waiting for the peer, which may hold newer writes"
                                : "waiting for the peer, which may have been promoted meanwhile";
        }
    }
    started_ = true;
    refresh_mode();
}

Task<void> Mirror::stop() {
    stopping_ = true;
    refresh_mode();
    stop_.set();
    sending_ = false;
    complete_held(fail(Errc::kAborted, "the node is stopping"), /*acknowledged=*/false);
    settled_.set();
    answer_event_.set();
    ready_.set();
    applied_.set();
    admitted_.set();
    verify_changed_.set();
    suspects_changed_.set();
    co_await gate_.close();
    co_await meta_.stop();
    device_.observe(nullptr);
    co_await reports_taken();
}

PairStatus Mirror::status() const {
    const Superblock& s = meta_.superblock();
    PairStatus out;
    out.volume = info_.name;
    out.peer_node = s.peer_node;
    out.peer_volume = s.peer_volume;
    out.peer_address = link_ != nullptr ? link_->hello().iscsi_address : std::string();
    out.role = s.role;
    out.state = s.state;
    out.connected = phase_ != Phase::kDown && phase_ != Phase::kNegotiating;
    out.serving = mode_.load() == Mode::kPassThrough || mode_.load() == Mode::kServing;
    out.reason = why_;
    out.sectors = sectors_.load();
    out.term = s.term.counter;
    out.generation = s.generation;
    out.sequence_local = s.role == Role::kPrimary ? next_sequence_ - 1 : received_;
    out.sequence_received = peer_received_;
    out.sequence_durable = peer_durable_;
    out.dirty_bytes = meta_.tracks().count() * kTrackSectors * kSectorBytes;
    out.region_bytes = meta_.regions().count() * kRegionSectors * kSectorBytes;
    out.held_frames = held_.size();
    out.verify = verify_ ? std::optional(verify_report()) : std::nullopt;
    out.healed_blocks = healed_blocks_;
    out.last_error = last_error_;
    out.uncertain = meta_.uncertain();
    const TimePoint now = context_.env.clock.now();
    out.last_ack_age_ms = last_ack_ == TimePoint{} ? -1 : (now - last_ack_) / std::chrono::milliseconds(1);
    out.frames_sent = frames_sent_;
    out.bytes_sent = bytes_sent_;
    out.frames_received = frames_received_;
    out.bytes_received = bytes_received_;
    out.resync_bytes_sent = resync_bytes_sent_;
    out.resync.running = phase_ == Phase::kResyncSource || phase_ == Phase::kResyncTarget;
    out.resync.outgoing = phase_ == Phase::kResyncSource;
    out.resync.done_bytes = resync_done_;
    out.resync.total_bytes = resync_total_;
    if (out.resync.running && resync_done_ > 0) {
        const auto ms =
            static_cast<std::uint64_t>(std::max<std::int64_t>(1, (now - resync_began_) / std::chrono::milliseconds(1)));
        out.resync.bytes_per_second = resync_done_ * 1000 / ms;
        const std::uint64_t left = resync_total_ - std::min(resync_done_, resync_total_);
        out.resync.seconds_left =
            static_cast<std::int64_t>(left / std::max<std::uint64_t>(1, out.resync.bytes_per_second));
    }
    return out;
}

}  // namespace gemel::replication
