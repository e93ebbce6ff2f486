// SPDX-License-Identifier: Apache-2.0
// Verify: the primary compares both copies, block by block, by digests, while hosts are served; on request it makes
// them equal. It goes on where it was after a pause or a lost link.
//
// Invariants:
//   V1  Blocks are called different only of a pair in step and under the interval lock (M9).
//   V2  Every frame's worth of blocks counts once; the position is the end of what was compared without a gap.
//   V3  A repair goes to the copy that lacks the block: the primary's counts where it can be read, else the peer's. It
//       is marked as every change is (M1).
//   V4  No repair begins more than kMostTime after the lock was taken: hosts wait behind it.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint64_t kPieceBytes = 256 * kKiB;
constexpr Duration kMostTime = std::chrono::seconds(2);
constexpr std::uint64_t kMostAhead = 64 * kPieceBytes;  ///< of the position: what is remembered beyond it is bounded

bool ended(VerifyState state) {
    return state == VerifyState::kDone || state == VerifyState::kCancelled || state == VerifyState::kFailed;
}

}  // namespace

Mirror::Comparison Mirror::judge(const BlockDigest& mine, const BlockDigest& theirs) {
    if (mine == kUnreadableDigest || theirs == kUnreadableDigest) {
        return mine == theirs              ? Comparison::kUnreadableBoth
               : mine == kUnreadableDigest ? Comparison::kUnreadableHere
                                           : Comparison::kUnreadableThere;
    }
    return mine == theirs ? Comparison::kEqual : Comparison::kDifferent;
}

std::string_view verify_state_name(VerifyState state) {
    constexpr std::array<std::string_view, 6> kNames{"running", "paused", "waiting", "done", "cancelled", "failed"};
    return kNames.at(static_cast<std::size_t>(state));
}

Result<void> Mirror::verify(VerifyOrder order) {
    const bool under_way = verify_ && !ended(verify_->state);
    if (order == VerifyOrder::kCheck || order == VerifyOrder::kRepair) {
        if (under_way || verifying_) {
            return fail(Errc::kBusy, "volume " + info_.name + " is being verified; see gemel mirror status");
        }
        if (!primary() || meta_.superblock().state != PairState::kMirrored) {
            return fail(Errc::kRefused, "only a mirrored volume is verified, and at its primary; volume " + info_.name +
                                            " is " + std::string(role_name(meta_.superblock().role)) + ", " +
                                            std::string(pair_state_name(meta_.superblock().state)));
        }
        if (in_step() && (link_->hello().features & kFeatureQuestions) == 0) {
            return fail(Errc::kUnsupported, "node '" + peer_node() + "' is too old to be asked; update it");
        }
        verify_.emplace();
        verify_->repair = order == VerifyOrder::kRepair;
        verify_->total_bytes = sectors_.load() * kSectorBytes;
        compared_.clear();
        verify_began_ = verify_next_ = clock().now();
        verify_began_bytes_ = 0;
        verify_stop_ = false;
        verifying_ = true;
        gate_.spawn(run_verify());  // or the mirror has stopped
        return {};
    }
    if (!under_way) {
        return fail(Errc::kNotFound, "volume " + info_.name + " is not being verified");
    }
    if (order == VerifyOrder::kCancel) {
        verify_stop_ = true;
    } else {
        verify_->state = order == VerifyOrder::kPause ? VerifyState::kPaused : VerifyState::kRunning;
    }
    verify_changed_.set();
    return {};
}

Task<void> Mirror::run_verify() {
    VerifyReport& v = *verify_;
    while (!stopping_ && !verify_stop_ && v.done_bytes < v.total_bytes) {
        verify_changed_.reset();
        const PairState state = meta_.superblock().state;
        if (!primary() || state == PairState::kUnpaired || state == PairState::kSevered ||
            state == PairState::kSplitBrain) {
            end_verify(VerifyState::kFailed, "the volume is no longer mirrored from this node");
            break;
        }
        if (v.state != VerifyState::kPaused) {
            v.state = in_step() ? VerifyState::kRunning : VerifyState::kWaiting;
        }
        if (v.state == VerifyState::kRunning) {
            const Result<void> all = co_await compare_all();
            v.why = all ? std::string() : all.error().message;
            if (all) {
                continue;
            }
            if (all.error().code == Errc::kUnsupported) {
                end_verify(VerifyState::kFailed, v.why);
                break;
            }
            v.state = v.state == VerifyState::kRunning ? VerifyState::kWaiting : v.state;
        }
        verify_began_ = {};
        co_await verify_changed_.wait_until(clock(), clock().now() + context_.config.retry_interval);
    }
    if (!ended(v.state)) {
        end_verify(v.done_bytes >= v.total_bytes ? VerifyState::kDone : VerifyState::kCancelled, {});
    }
    verifying_ = false;
}

/// Compares on from the position until all is compared, or something stops it: the error.
Task<Result<void>> Mirror::compare_all() {
    VerifyReport& v = *verify_;
    if (verify_began_ == TimePoint{}) {
        verify_began_ = verify_next_ = clock().now();
        verify_began_bytes_ = v.done_bytes;
    }
    v.total_bytes = std::max(sectors_.load() * kSectorBytes, v.done_bytes);
    std::uint64_t next = v.done_bytes;
    Result<void> stopped;
    const auto worker = [](Mirror& self, VerifyReport& to, std::uint64_t& at,
                           Result<void>& error) -> Task<Result<void>> {
        while (at < to.total_bytes && at < to.done_bytes + kMostAhead && error && self.comparing()) {
            const std::uint64_t mine = at;
            if (const auto known = self.compared_.find(mine); known != self.compared_.end()) {
                at += known->second;
                continue;
            }
            const std::uint64_t bytes = std::min(kPieceBytes, to.total_bytes - mine);
            at += bytes;
            if (Result<void> r = co_await self.compare(Lba(mine / kSectorBytes), SectorCount(bytes / kSectorBytes));
                !r) {
                error = std::move(r);
                break;
            }
            self.compared_.emplace(mine, bytes);
            self.move_on(to);
        }
        co_return Result<void>{};
    };
    std::vector<Task<Result<void>>> workers;
    for (std::uint32_t i = 0; i < std::max<std::uint32_t>(1, context_.config.resync_depth); ++i) {
        workers.push_back(worker(*this, v, next, stopped));
    }
    co_await when_all(std::move(workers));
    co_return stopped;
}

bool Mirror::comparing() const {
    return !stopping_ && !verify_stop_ && verify_->state == VerifyState::kRunning;
}

/// V2.
void Mirror::move_on(VerifyReport& v) {
    for (auto it = compared_.begin(); it != compared_.end() && it->first <= v.done_bytes; it = compared_.erase(it)) {
        v.done_bytes = std::max(v.done_bytes, it->first + it->second);
    }
}

Task<Result<void>> Mirror::compare(Lba lba, SectorCount sectors) {
    if (context_.config.resync_bytes_per_second > 0) {
        const TimePoint mine = std::max(verify_next_, clock().now());
        verify_next_ = mine + Duration(static_cast<std::int64_t>(bytes_of(sectors) * 1'000'000'000 /
                                                                 context_.config.resync_bytes_per_second));
        co_await stop_.wait_until(clock(), mine);
    }
    IntervalLock::Guard guard;
    if (!active(TestSwitch::kVerifyUnlocked)) {
        guard = co_await lock_.acquire(lba.value, lba.value + sectors.value - 1);  // V1
    }
    const TimePoint due = clock().now() + kMostTime;
    auto [memory, answer] =
        co_await when_both(read_copy(lba, sectors), ask_peer(FrameType::kDigestRequest, lba, sectors));
    if (!memory) {
        co_return std::unexpected(std::move(memory).error());
    }
    if (!answer) {
        co_return std::unexpected(std::move(answer).error());
    }
    if (!in_step()) {
        co_return fail(Errc::kClosed, "the pair is not in step any more");
    }
    const Slice mine = memory->slice(bytes_of(sectors), lba);
    CO_TRY(const std::vector<BlockDigest> theirs, decode_digests(answer->body, mine.blocks().size()));
    const std::vector<BlockDigest> ours = digests_of(mine);
    std::vector<Difference> left;
    for (std::size_t i = 0; i < ours.size();) {
        Difference d{.comparison = judge(ours[i], theirs[i])};
        std::size_t end = i + 1;
        while (end < ours.size() && judge(ours[end], theirs[end]) == d.comparison) {
            ++end;
        }
        const std::size_t from = i * kBlockBytes;
        const Slice run = mine.sub(from, std::min(end * kBlockBytes, mine.size()) - from);
        d.extent = {Lba(lba.value + from / kSectorBytes), run.sectors()};
        d.blocks = end - i;
        i = end;
        if (d.comparison == Comparison::kEqual) {
            continue;
        }
        if (verify_->repair && d.comparison != Comparison::kUnreadableBoth) {
            if (clock().now() >= due) {  // V4
                co_return fail(Errc::kTimedOut, "repairs of this piece take long; the rest is left for another turn");
            }
            CO_TRY(d.repaired, co_await repair(d, run, due));
            note_difference(d);
        } else {
            left.push_back(d);
        }
    }
    std::ranges::for_each(left, [this](const Difference& d) { note_difference(d); });
    co_return Result<void>{};
}

/// V3. The blocks that are equal now.
Task<Result<std::uint64_t>> Mirror::repair(Difference d, Slice mine, TimePoint due) {
    if (d.comparison == Comparison::kUnreadableHere) {
        co_return co_await heal_locked(d.extent.lba, mine, due);
    }
    CO_TRY_VOID(
        co_await change_inside({FrameType::kResyncData, d.extent.lba, d.extent.sectors, mine, false, Legs::kThere}));
    co_return d.blocks;
}

void Mirror::note_difference(const Difference& d) {
    VerifyReport& v = *verify_;
    if (v.extents.empty()) {
        emit(
            "pair-different", Severity::kError,
            "the copies differ, or cannot be read, from sector " + std::to_string(d.extent.lba.value) + " on",
            v.repair
                ? ""
                : "gemel mirror verify --repair makes them equal: what this node can read counts; if the other node is "
                  "right, promote it first");
    }
    const bool both = d.comparison == Comparison::kUnreadableBoth;
    v.different_blocks += d.comparison == Comparison::kDifferent ? d.blocks : 0;
    v.unreadable_here += both || d.comparison == Comparison::kUnreadableHere ? d.blocks : 0;
    v.unreadable_at_peer += both || d.comparison == Comparison::kUnreadableThere ? d.blocks : 0;
    v.bad_blocks += d.blocks;
    v.repaired_blocks += d.repaired;
    const auto at = std::ranges::lower_bound(v.extents, d.extent.lba, {}, &Extent::lba);
    v.extents.insert(at, d.extent);
    std::vector<Extent> merged;
    for (const Extent& e : v.extents) {
        if (!merged.empty() && merged.back().lba.value + merged.back().sectors.value == e.lba.value) {
            merged.back().sectors.value += e.sectors.value;
        } else if (merged.size() < VerifyReport::kMaxExtents) {
            merged.push_back(e);
        }
    }
    v.extents = std::move(merged);
}

/// With what changes all the time.
VerifyReport Mirror::verify_report() const {
    VerifyReport v = *verify_;
    if (v.state == VerifyState::kRunning && verify_began_ != TimePoint{} && v.done_bytes > verify_began_bytes_) {
        const auto ms = static_cast<std::uint64_t>(
            std::max<std::int64_t>(1, (context_.env.clock.now() - verify_began_) / std::chrono::milliseconds(1)));
        v.bytes_per_second = (v.done_bytes - verify_began_bytes_) * 1000 / ms;
        v.seconds_left =
            static_cast<std::int64_t>((v.total_bytes - v.done_bytes) / std::max<std::uint64_t>(1, v.bytes_per_second));
    }
    return v;
}

void Mirror::end_verify(VerifyState state, std::string why) {
    VerifyReport& v = *verify_;
    v.state = state;
    v.why = std::move(why);
    const bool good = state != VerifyState::kFailed && v.bad_blocks == v.repaired_blocks;
    emit("pair-verify-ended", good ? Severity::kInfo : Severity::kError,
         std::string(verify_state_name(state)) + ": " + std::to_string(v.done_bytes / kKiB) + " KiB compared, " +
             std::to_string(v.different_blocks) + " blocks differ, " + std::to_string(v.unreadable_here) +
             " unreadable here, " + std::to_string(v.unreadable_at_peer) + " at the peer, " +
             std::to_string(v.repaired_blocks) + " repaired" + (v.why.empty() ? "" : "; " + v.why),
         v.bad_blocks == v.repaired_blocks ? ""
         : v.repair                        ? "write what neither node can read anew, in whole 4 KiB blocks"
                                           : "gemel mirror verify --repair makes the copies equal");
}

}  // namespace gemel::replication
