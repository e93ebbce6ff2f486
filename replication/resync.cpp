// SPDX-License-Identifier: Apache-2.0
// Resync: the source pushes the marked tracks, ascending and pipelined, while hosts' writes are mirrored as usual. The
// target is durably inconsistent before its first byte changes (M6); marks go only after a flush of both legs.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr Duration kReadyTimeout = std::chrono::seconds(10);
constexpr Duration kMemoryRetry = std::chrono::milliseconds(5);
constexpr int kReadTries = 3;
constexpr std::uint64_t kTracksPerPass = 1024;  // 64 MiB between two flushes: progress that an interruption keeps
constexpr std::uint64_t kMapBytesPerFrame = 16384;

}  // namespace

bool Mirror::resyncing(std::uint64_t run) const {
    return run == run_ && phase_ == Phase::kResyncSource && !stopping_;
}

Task<void> Mirror::run_resync(std::uint64_t run, bool full) {
    const Mutex::Guard alone_here = co_await resync_.lock();
    const Result<void> begun = co_await begin_resync(run, full);
    if (!begun) {
        last_error_ = begun.error().message;
        if (resyncing(run)) {
            link_->reset(last_error_);
        }
        co_return;
    }
    emit("pair-resync-started", Severity::kInfo, std::to_string(resync_total_ / kKiB) + " KiB to copy to the peer");
    while (resyncing(run) && meta_.tracks().any()) {
        unreadable_.clear();
        Result<void> pass;
        while (pass && resyncing(run) && meta_.tracks().count() > unreadable_.size()) {
            pass = co_await copy_pass(run);
        }
        if (!resyncing(run)) {
            co_return;
        }
        if (!pass) {
            last_error_ = pass.error().message;
            link_->reset("resync: " + last_error_);
            co_return;
        }
        if (meta_.tracks().any()) {
            note_problem("pair-unreadable", Severity::kError,
                         std::to_string(unreadable_.size()) + " tracks cannot be read here and were not copied",
                         "repair the array of this node; the resync goes on by itself");
            co_await stop_.wait_until(clock(), clock().now() + context_.config.retry_interval);
        }
    }
    if (resyncing(run)) {
        const Result<void> finished = co_await finish_resync(run);
        if (!finished && resyncing(run)) {
            last_error_ = finished.error().message;
            link_->reset("end of resync: " + last_error_);
        }
    }
}

/// Asks the target to get ready, takes its marks, and starts the stream. From the durable record on, hosts' writes that
/// waited for the peer are covered by tracks.
Task<Result<void>> Mirror::begin_resync(std::uint64_t run, bool full) {
    if (!resyncing(run)) {
        co_return fail(Errc::kClosed, "the link was lost");
    }
    // M2: from RESYNC_BEGIN on the peer's copy counts no more; what perhaps only it holds durably must be durable here.
    CO_TRY_VOID(co_await device_.flush());
    if (!resyncing(run)) {
        co_return fail(Errc::kClosed, "the link was lost");
    }
    FrameHeader begin;
    begin.type = FrameType::kResyncBegin;
    begin.pair_id = pair_id();
    begin.generation = meta_.superblock().generation;
    link_->send_control(begin, {});
    if (!co_await ready_.wait_until(clock(), clock().now() + kReadyTimeout)) {
        co_return fail(Errc::kTimedOut, "the peer did not get ready for the resync");
    }
    const Mutex::Guard guard = co_await transition_.lock();
    if (!resyncing(run)) {
        co_return fail(Errc::kClosed, "the link was lost");
    }
    hold_hosts();
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kSetTracks, {}, std::exchange(peer_tracks_, {})});
    changes.push_back({MetadataOp::kSetTracks, {}, meta_.regions_as_tracks()});
    if (full) {
        changes.push_back({MetadataOp::kSetTracks, {}, {{0, meta_.tracks().size()}}});
    }
    Superblock s = next_superblock();
    s.state = PairState::kResyncSource;
    s.choice = Choice::kNone;
    changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
    const Result<void> committed = co_await meta_.commit(std::move(changes));
    if (committed) {
        complete_held({}, /*acknowledged=*/false);
        if (resyncing(run)) {
            new_stream();
            knows_peer_ = link_->hello().incarnation;
            sending_ = true;
        }
        serving_ = primary();
        start_maintenance();
        refresh_mode();
        resync_began_ = resync_next_ = clock().now();
        resync_done_ = 0;
        resync_total_ = meta_.tracks().count() * kTrackSectors * kSectorBytes;
        why_ = "copying changed tracks to the peer";
    }
    admit_hosts();
    co_return committed;
}

/// One pass over at most kTracksPerPass tracks, a flush of both legs, and only then their marks go (M5).
Task<Result<void>> Mirror::copy_pass(std::uint64_t run) {
    copied_.clear();
    resync_result_ = {};
    const std::uint64_t per_frame =
        std::max<std::uint64_t>(1, context_.config.frame_bytes / (kTrackSectors * kSectorBytes));
    std::vector<Run> jobs;
    std::uint64_t chosen_tracks = 0;
    const Bitmap& tracks = meta_.tracks();
    for (std::uint64_t t = tracks.next(0); t < tracks.size() && chosen_tracks < kTracksPerPass;
         t = tracks.next(t + 1)) {
        if (unreadable_.contains(t)) {
            continue;
        }
        ++chosen_tracks;
        if (!jobs.empty() && jobs.back().first + jobs.back().count == t && jobs.back().count < per_frame) {
            ++jobs.back().count;
        } else {
            jobs.push_back({t, 1});
        }
    }
    std::size_t next = 0;
    const auto worker = [](Mirror& self, std::vector<Run>& work, std::size_t& at,
                           std::uint64_t number) -> Task<Result<void>> {
        while (at < work.size() && self.resyncing(number) && self.resync_result_) {
            co_await self.copy_tracks(work[at++], number);
        }
        co_return Result<void>{};
    };
    std::vector<Task<Result<void>>> workers;
    for (std::uint32_t i = 0; i < std::max<std::uint32_t>(1, context_.config.resync_depth); ++i) {
        workers.push_back(worker(*this, jobs, next, run));
    }
    co_await when_all(std::move(workers));
    if (!resync_result_ || !resyncing(run)) {
        co_return resync_result_;
    }
    if (active(TestSwitch::kClearBitEarly)) {
        co_return co_await meta_.clear_tracks(std::exchange(copied_, {}));
    }
    const LegOutcome flushed = co_await flush_both();
    CO_TRY_VOID(flushed.result);
    if (!flushed.acknowledged || !resyncing(run)) {
        co_return fail(Errc::kClosed, "the resync was interrupted");
    }
    co_return co_await meta_.clear_tracks(std::exchange(copied_, {}));
}

Task<void> Mirror::copy_tracks(Run tracks, std::uint64_t run) {
    const std::uint64_t first = tracks.first * kTrackSectors;
    const std::uint64_t end = std::min(sectors_.load(), (tracks.first + tracks.count) * kTrackSectors);
    if (first >= end) {
        copied_.push_back(tracks);  // beyond the agreed size
        co_return;
    }
    if (context_.config.resync_bytes_per_second > 0) {
        const TimePoint mine = std::max(resync_next_, clock().now());
        resync_next_ = mine + Duration(static_cast<std::int64_t>((end - first) * kSectorBytes * 1'000'000'000 /
                                                                 context_.config.resync_bytes_per_second));
        co_await stop_.wait_until(clock(), mine);
    }
    if (!resyncing(run)) {
        co_return;
    }
    const Result<void> copied = co_await copy_range(Lba(first), SectorCount(end - first));
    if (copied) {
        copied_.push_back(tracks);
        resync_done_ += (end - first) * kSectorBytes;
        co_return;
    }
    if (copied.error().code != Errc::kMediumError) {
        resync_result_ = copied;
        co_return;
    }
    if (tracks.count == 1) {
        unreadable_.insert(tracks.first);
        co_return;
    }
    for (std::uint64_t t = tracks.first; t < tracks.first + tracks.count && resyncing(run); ++t) {
        co_await copy_tracks({t, 1}, run);
    }
}

/// A part of the volume in new memory, blocks that cannot be read marked as such. What a device that does not answer
/// keeps is left to it. Only a resync waits for memory, and asks again: behind all others hosts wait for the lock.
Task<Result<Buffer>> Mirror::read_copy(Lba lba, SectorCount sectors, Patience patience) {
    const bool waits = patience == Patience::kResync;
    for (int i = 0;; ++i) {
        Result<Buffer> memory = context_.env.buffers.allocate(bytes_of(sectors));
        while (!memory && memory.error().code == Errc::kResources && waits && sending_) {
            co_await stop_.wait_until(clock(), clock().now() + kMemoryRetry);
            memory = context_.env.buffers.allocate(bytes_of(sectors));
        }
        if (!memory) {
            co_return std::unexpected(std::move(memory).error());
        }
        const Slice slice = memory->slice(bytes_of(sectors), lba);
        slice.clear_infos();
        ReadOptions background;
        background.background = true;
        const Result<void> r = co_await device_.read(lba, slice, background);
        if (r) {
            co_return memory;
        }
        if (r.error().code == Errc::kMediumError) {
            if (slice.all_readable()) {
                slice.mark_all(BlockStatus::kUnreadable);
            }
            co_return memory;
        }
        if (r.error().code != Errc::kTimedOut || i == kReadTries || !waits) {
            co_return std::unexpected(r.error());
        }
    }
}

/// Reads and sends under the interval lock (M4). kMediumError: an unreadable block, nothing was sent: never as zeros.
Task<Result<void>> Mirror::copy_range(Lba lba, SectorCount sectors) {
    const IntervalLock::Guard guard = co_await lock_.acquire(lba.value, lba.value + sectors.value - 1);
    CO_TRY(const Buffer memory, co_await read_copy(lba, sectors, Patience::kResync));
    const Slice slice = memory.slice(bytes_of(sectors), lba);
    if (!slice.all_readable()) {
        co_return fail(Errc::kMediumError, "unreadable blocks");
    }
    if (!sending_) {
        co_return fail(Errc::kClosed, "the resync was interrupted");
    }
    Change change{FrameType::kResyncData, lba, sectors, slice, false};
    if (all_zero(slice.data())) {
        change = Change{FrameType::kDiscard, lba, sectors, {}, false};
    }
    const LegOutcome sent = co_await run_leg(change, /*resync=*/true);
    CO_TRY_VOID(sent.result);
    co_return sent.acknowledged ? Result<void>{} : fail(Errc::kClosed, "the resync was interrupted");
}

/// Every track is durable on the target. The source records that first; until the target has done so too it stays
/// inconsistent, and a handshake in between only repeats this end.
Task<Result<void>> Mirror::finish_resync(std::uint64_t run) {
    {
        const Mutex::Guard guard = co_await transition_.lock();
        if (!resyncing(run) || meta_.tracks().any()) {
            co_return fail(Errc::kClosed, "the resync was interrupted");
        }
        Superblock s = next_superblock();
        s.state = PairState::kMirrored;
        s.base = 0;
        s.lost_power = false;
        CO_TRY_VOID(co_await meta_.commit_superblock(s));
        if (!primary() && meta_.regions().any()) {
            CO_TRY_VOID(co_await meta_.clear_regions(meta_.regions().runs()));
        }
    }
    if (!resyncing(run)) {
        co_return fail(Errc::kClosed, "the link was lost");
    }
    CO_TRY_VOID(co_await peers_.request(*link_, request_header(FrameType::kResyncEnd), {}));
    if (!resyncing(run)) {
        co_return fail(Errc::kClosed, "the link was lost");
    }
    phase_ = Phase::kStreaming;
    why_.clear();
    emit("pair-resync-done", Severity::kInfo, std::to_string(resync_done_ / kKiB) + " KiB copied");
    co_return Result<void>{};
}

/// Target: inconsistent durably, own marks to the source, then ready.
Task<void> Mirror::resync_begun(std::uint64_t session, std::uint64_t generation) {
    const Mutex::Guard guard = co_await transition_.lock();
    if (!live(session) || phase_ != Phase::kResyncTarget || stopping_) {
        co_return;
    }
    serving_ = false;
    refresh_mode();
    Result<void> done = co_await drain_hosts();
    co_await drain_applying();
    if (done) {
        Superblock s = next_superblock();
        s.state = PairState::kResyncTarget;
        s.generation = generation;
        s.base = 0;
        s.choice = Choice::kNone;
        done = co_await meta_.commit_superblock(s);
    }
    if (!live(session) || phase_ != Phase::kResyncTarget) {
        co_return;
    }
    if (!done) {
        last_error_ = done.error().message;
        link_->reset("cannot become the target of a resync: " + last_error_);
        co_return;
    }
    new_stream();
    knows_peer_ = link_->hello().incarnation;
    resync_began_ = clock().now();
    resync_done_ = resync_total_ = 0;
    send_tracks();
    FrameHeader ready;
    ready.type = FrameType::kResyncReady;
    ready.pair_id = pair_id();
    link_->send_control(ready, {});
}

/// The runs of this side's maps, as tracks: {first u64, count u64} each, in frames of type TRACKS.
void Mirror::send_tracks() {
    std::vector<Run> runs = meta_.tracks().runs();
    std::ranges::copy(meta_.regions_as_tracks(), std::back_inserter(runs));
    constexpr std::size_t kPerFrame = kMapBytesPerFrame / 16;
    for (std::size_t at = 0; at < runs.size(); at += kPerFrame) {
        const std::size_t n = std::min(kPerFrame, runs.size() - at);
        std::string body(n * 16, '\0');
        auto* out = reinterpret_cast<std::byte*>(body.data());
        for (std::size_t i = 0; i < n; ++i) {
            store_le(out + i * 16, runs[at + i].first);
            store_le(out + i * 16 + 8, runs[at + i].count);
        }
        FrameHeader h;
        h.type = FrameType::kTracks;
        h.pair_id = pair_id();
        link_->send_control(h, std::move(body));
    }
}

void Mirror::tracks_received(const Frame& frame) {
    LeReader r(as_bytes_of(frame.body));
    while (r.remaining() >= 16 && peer_tracks_.size() < meta_.tracks().size() + 1) {
        Run run;
        run.first = r.get<std::uint64_t>();
        run.count = r.get<std::uint64_t>();
        if (run.first < meta_.tracks().size()) {
            run.count = std::min(run.count, meta_.tracks().size() - run.first);
            peer_tracks_.push_back(run);
        }
    }
}

/// Target: the copy is complete and durable here.
Task<void> Mirror::resync_ended(std::uint64_t session, std::uint64_t request) {
    const Mutex::Guard guard = co_await transition_.lock();
    if (!live(session) || phase_ != Phase::kResyncTarget || stopping_) {
        co_return;
    }
    Superblock s = next_superblock();
    s.state = PairState::kMirrored;
    s.base = 0;
    s.lost_power = false;
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kResetMaps, {}, {}});
    changes.push_back({MetadataOp::kSuperblock, std::move(s), {}});
    const Result<void> done = co_await meta_.commit(std::move(changes));
    if (!live(session)) {
        co_return;
    }
    if (!done) {
        reply_error(request, done.error());
        co_return;
    }
    phase_ = Phase::kStreaming;
    why_.clear();
    reply(request);
    if (primary()) {
        serving_ = true;
        sending_ = true;
        start_maintenance();
    }
    refresh_mode();
    emit("pair-resync-done", Severity::kInfo, "this copy is up to date again");
}

}  // namespace gemel::replication
