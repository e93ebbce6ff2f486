// SPDX-License-Identifier: Apache-2.0
// Healing: a block that this array cannot read is taken from a peer in step, given to the host that asked for it,
// and rewritten here. What the array finds by itself (scrub, rebuild, another read) is healed in the background; a
// secondary asks its primary to send such blocks again.
//
// Invariants:
//   H1  A block is healed only with the peer's copy of it of a pair in step, under the interval lock (M9).
//   H2  A rewrite is marked as every change is (M1). One that fails costs nothing: the block stays unreadable.
//   H3  At most kMaxSuspects ranges are kept; each is tried again after kHealRetry, and ever more seldom.
//   H4  The interval lock is held for at most kMostTime and one question (Q4).
#include <algorithm>

#include "replication/block_runs.hpp"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::size_t kMaxSuspects = 1024;
constexpr Duration kHealRetry = std::chrono::seconds(30);
constexpr std::uint32_t kMostDoublings = 7;  ///< of kHealRetry: about an hour
constexpr Duration kToldPause = std::chrono::seconds(10);
constexpr Duration kMostTime = std::chrono::seconds(2);

bool passing(Errc code) {
    return code == Errc::kBusy || code == Errc::kResources || code == Errc::kTimedOut || code == Errc::kChecksum;
}
bool apart(Errc code) {
    return code == Errc::kNotReady || code == Errc::kClosed;
}

}  // namespace

Task<Result<void>> Mirror::read_paired(Lba lba, Slice to, ReadOptions options) {
    Result<void> result = co_await device_.read(lba, to, options);
    if (result || result.error().code != Errc::kMediumError) {
        co_return result;
    }
    Executor& caller = Executor::current();
    co_await resume_on(context_.home);
    if (gate_.enter()) {
        const Result<void> healed = co_await heal_read(lba, to);
        gate_.leave();
        if (healed) {
            result = {};
        } else {
            last_error_ = "blocks that cannot be read here: " + healed.error().message;
            // The peer may have the blocks: the host is to ask again.
            const Errc code = healed.error().code;
            const bool again = passing(code) || (apart(code) && soon_in_step());
            result = again ? fail(Errc::kBusy, healed.error().message) : std::move(result);
        }
    }
    co_await resume_on(caller);
    co_return result;
}

/// The link is lost, or negotiates anew, for no longer than a write would wait for it.
bool Mirror::soon_in_step() const {
    if (meta_.superblock().state != PairState::kMirrored || stopping_) {
        return false;
    }
    const Link* link = peers_.link_to(peer_node());
    return link != nullptr &&
           (link->up() ? phase_ != Phase::kIdle : context_.env.clock.now() - link->down_since() < budget());
}

/// Fills the unreadable blocks of a host's read. Errors: some stay unreadable.
Task<Result<void>> Mirror::heal_read(Lba lba, Slice to) {
    const TimePoint due = clock().now() + kMostTime;
    const Lba first_block(round_down(lba.value, std::uint64_t{kSectorsPerBlock}));
    if (to.all_readable()) {
        to.mark_all(BlockStatus::kUnreadable);
    }
    for (const BlockRun& run : runs_of(to.blocks(), BlockStatus::kUnreadable, frame_limit() / kBlockBytes)) {
        if (clock().now() >= due) {
            co_return fail(Errc::kTimedOut, "the peer takes too long to tell them");
        }
        const Lba first = run.lba(first_block);
        const std::uint64_t size = sectors_.load();
        if (lba.value + to.sectors().value > size) {
            co_return fail(Errc::kOutOfRange, "the range ends beyond volume " + info_.name);
        }
        const SectorCount sectors(std::min(run.size() * std::uint64_t{kSectorsPerBlock}, size - first.value));
        CO_TRY(const Buffer healed, co_await heal(first, sectors));
        const Slice from = healed.slice(bytes_of(sectors), first);
        for (std::size_t b = run.first; b < run.end; ++b) {
            const ConstBytes whole = from.block_data(b - run.first);
            const MutableBytes part = to.block_data(b);
            std::ranges::copy(whole.subspan(b == 0 ? to.head() : 0, part.size()), part.begin());
            to.blocks()[b] = BlockInfo{crc32c(part), BlockStatus::kOk, true};
        }
    }
    co_return Result<void>{};
}

/// This side's copy of the range, which afterwards has no unreadable block. Errors: the peer cannot help.
Task<Result<Buffer>> Mirror::heal(Lba lba, SectorCount sectors) {
    if (!primary() || !in_step()) {
        co_return fail(Errc::kNotReady, "the pair is not in step");
    }
    const IntervalLock::Guard guard = co_await lock_.acquire(lba.value, lba.value + sectors.value - 1);
    CO_TRY(Buffer memory, co_await read_copy(lba, sectors));
    const Slice mine = memory.slice(bytes_of(sectors), lba);
    if (!mine.all_readable()) {
        CO_TRY([[maybe_unused]] const std::uint64_t rewritten,
               co_await heal_locked(lba, mine, clock().now() + kMostTime));
    }
    if (!mine.all_readable()) {
        co_return fail(Errc::kMediumError, "the peer cannot read them either");
    }
    co_return memory;
}

/// Fills the unreadable blocks of `mine` that the peer can read, and rewrites them here: how many of them. REQUIRES:
/// the interval lock is held.
Task<Result<std::uint64_t>> Mirror::heal_locked(Lba lba, Slice mine, TimePoint due) {
    std::uint64_t rewritten = 0;
    for (const BlockRun& run : runs_of(mine.blocks(), BlockStatus::kUnreadable, frame_limit() / kBlockBytes)) {
        if (clock().now() >= due) {  // H4
            co_return fail(Errc::kTimedOut, "the peer takes too long to tell them");
        }
        const Slice part = run.of(mine);
        Result<Frame> theirs = co_await peer_blocks(run.lba(lba), part.sectors());  // H1
        if (theirs) {
            rewritten += co_await rewrite(run.lba(lba), part, *theirs);
            continue;
        }
        if (theirs.error().code != Errc::kMediumError) {
            co_return std::unexpected(std::move(theirs).error());
        }
        // It cannot read all of them: then those that it can.
        CO_TRY(const Frame answer, co_await ask_peer(FrameType::kDigestRequest, run.lba(lba), part.sectors()));
        CO_TRY(const std::vector<BlockDigest> digests, decode_digests(answer.body, run.size()));
        std::vector<BlockInfo> there(run.size());
        std::ranges::transform(digests, there.begin(), [](const BlockDigest& d) {
            return BlockInfo{0, d == kUnreadableDigest ? BlockStatus::kUnreadable : BlockStatus::kOk, false};
        });
        for (const BlockRun& some : runs_of(there, BlockStatus::kOk)) {
            if (clock().now() >= due) {
                co_return fail(Errc::kTimedOut, "the peer takes too long to tell them");
            }
            const Lba at = some.lba(run.lba(lba));
            CO_TRY(const Frame blocks, co_await peer_blocks(at, some.of(part).sectors()));
            rewritten += co_await rewrite(at, some.of(part), blocks);
        }
    }
    co_return rewritten;
}

/// Takes the blocks of the peer's answer into `mine` and onto this array: how many got there. H2.
Task<std::uint64_t> Mirror::rewrite(Lba lba, Slice mine, const Frame& theirs) {
    std::ranges::copy(theirs.payload.data(), mine.data().begin());
    std::ranges::copy(theirs.payload.blocks(), mine.blocks().begin());
    const Result<void> written =
        co_await change_inside({FrameType::kData, lba, mine.sectors(), theirs.payload, false, Legs::kHere});
    if (!written) {
        last_error_ = "rewriting blocks that the peer had: " + written.error().message;
        co_return 0;
    }
    note_healed(mine.blocks().size());
    co_return mine.blocks().size();
}

/// One event at once, and then one for all of a while.
void Mirror::note_healed(std::uint64_t blocks) {
    healed_blocks_ += blocks;
    if (healed_blocks_ > healed_told_ && !std::exchange(telling_, true)) {
        gate_.spawn(tell_healed());
    }
}

Task<void> Mirror::tell_healed() {
    while (healed_blocks_ > healed_told_) {
        emit("pair-healed", Severity::kWarning,
             std::to_string(healed_blocks_ - healed_told_) +
                 " blocks that this node could not read were taken from node " + peer_node() + " and rewritten",
             "look for the member that fails: gemel array show");
        healed_told_ = healed_blocks_;
        co_await stop_.wait_until(clock(), clock().now() + kToldPause);
    }
    telling_ = false;
}

void Mirror::unreadable(Extent extent) {
    if (DeviceObserver* o = observer_.load(); o != nullptr) {
        o->unreadable(extent);
    }
    if (mode_.load() == Mode::kPassThrough) {
        return;
    }
    const std::lock_guard lock(reports_.mutex);
    if (reports_.extents.size() < kMaxSuspects) {
        reports_.extents.push_back(extent);
    }
    if (!std::exchange(reports_.posted, true)) {
        context_.home.post(reports_);
    }
}

/// H3. Not where it is one already: each vain try has the device report again what is unreadable.
bool Mirror::room_for_suspect(std::uint64_t first, std::uint64_t end) {
    const auto after = suspects_.upper_bound(first);
    if (after != suspects_.begin()) {
        const auto& [at, kept] = *std::prev(after);
        if (at + kept.sectors.value >= end) {
            return false;
        }
    }
    if (suspects_.size() >= kMaxSuspects) {
        const auto hopeless = std::ranges::find_if(suspects_, [](const auto& s) { return s.second.told; });
        if (hopeless != suspects_.end() && hopeless->first != healing_at_) {
            suspects_.erase(hopeless);
        }
    }
    return suspects_.size() < kMaxSuspects;
}

void Mirror::take_reports() {
    std::vector<Extent> extents;
    {
        const std::lock_guard lock(reports_.mutex);
        extents.swap(reports_.extents);
        reports_.posted = false;
    }
    for (const Extent& e : extents) {
        const std::uint64_t first = round_down(e.lba.value, std::uint64_t{kSectorsPerBlock});
        const std::uint64_t end =
            std::min(round_down(e.lba.value + e.sectors.value + kSectorsPerBlock - 1, std::uint64_t{kSectorsPerBlock}),
                     sectors_.load());
        if (first < end && room_for_suspect(first, end)) {
            Suspect& kept =
                suspects_.try_emplace(first, Suspect{SectorCount(end - first), clock().now()}).first->second;
            kept.sectors = std::max(kept.sectors, SectorCount(end - first));
        }
    }
    suspects_changed_.set();
    if (!suspects_.empty() && !std::exchange(healing_, true)) {
        gate_.spawn(heal_suspects());  // or the mirror has stopped
    }
}

/// What a device reports while it is taken from this mirror is for nobody, but its work must leave the executor.
Task<void> Mirror::reports_taken() {
    const auto posted = [this] {
        const std::lock_guard lock(reports_.mutex);
        return reports_.posted;
    };
    while (posted()) {
        co_await yield();
    }
}

Task<void> Mirror::heal_suspects() {
    while (!stopping_ && !suspects_.empty()) {
        const auto next = std::ranges::min_element(suspects_, {}, [](const auto& s) { return s.second.due; });
        const TimePoint due = in_step() ? next->second.due : clock().now() + kHealRetry;
        if (due > clock().now()) {
            suspects_changed_.reset();
            co_await suspects_changed_.wait_until(clock(), due);
            continue;
        }
        const std::uint64_t first = next->first;
        const SectorCount tried = next->second.sectors;
        healing_at_ = first;
        const Result<void> healed = co_await heal_suspect({Lba(first), tried});
        healing_at_.reset();
        const auto it = suspects_.find(first);
        if (healed) {
            if (it->second.sectors == tried) {  // else more of it was reported meanwhile
                suspects_.erase(it);
            }
            continue;
        }
        it->second.due = clock().now() + kHealRetry * (std::int64_t{1} << it->second.doublings);
        if (healed.error().code != Errc::kMediumError) {
            continue;
        }
        it->second.doublings = std::min(it->second.doublings + 1, kMostDoublings);
        if (!std::exchange(it->second.told, true)) {
            emit("pair-heal-failed", Severity::kError,
                 "of " + std::to_string(it->second.sectors.value) + " sectors from " + std::to_string(first) +
                     " on some can be read on neither node",
                 "gemel mirror verify finds out which; a write of whole 4 KiB blocks makes them readable");
        }
    }
    healing_ = false;
}

/// Errors: some of it stays unreadable; kMediumError: on both sides.
Task<Result<void>> Mirror::heal_suspect(Extent suspect) {
    const std::uint64_t end = std::min(suspect.lba.value + suspect.sectors.value, sectors_.load());
    Result<void> result;
    for (std::uint64_t at = suspect.lba.value, next = at; at < end; at = next) {
        const SectorCount piece(std::min(end - at, frame_limit() / kSectorBytes));
        next = at + piece.value;
        Result<void> done;
        if (primary()) {
            const Result<Buffer> healed = co_await heal(Lba(at), piece);
            done = healed ? Result<void>{} : std::unexpected(healed.error());
        } else {
            const Result<Frame> copied = co_await ask_peer(FrameType::kCopyRequest, Lba(at), piece);
            done = copied ? Result<void>{} : std::unexpected(copied.error());
        }
        if (!done && done.error().code != Errc::kMediumError) {
            co_return done;
        }
        result = done ? std::move(result) : std::move(done);
    }
    co_return result;
}

}  // namespace gemel::replication
