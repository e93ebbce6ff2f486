// SPDX-License-Identifier: Apache-2.0
// Healing: a block that this array cannot read is taken from a peer in step, given to the host that asked for it,
// and rewritten here. What the array finds by itself (scrub, rebuild, another read) is healed in the background; a
// secondary asks its primary to send such blocks again.
//
// Invariants:
//   H1  A block is healed only with the peer's copy of it of a pair in step, under the interval lock (M9).
//   H2  A rewrite is marked as every change is (M1). One that fails costs nothing: the block stays unreadable.
//   H3  At most kMaxSuspects ranges are kept, and each is tried once per kHealRetry.
#include <algorithm>

#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::size_t kMaxSuspects = 1024;
constexpr Duration kHealRetry = std::chrono::seconds(30);
constexpr Duration kToldPause = std::chrono::seconds(10);

/// The end of the run of unreadable blocks that begins at `from`, of at most `most` blocks.
std::size_t unreadable_end(std::span<const BlockInfo> blocks, std::size_t from, std::uint64_t most) {
    std::size_t end = from;
    while (end < blocks.size() && end - from < most && blocks[end].status == BlockStatus::kUnreadable) {
        ++end;
    }
    return end;
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
        if (const Result<void> healed = co_await heal_read(lba, to); healed) {
            result = {};
        } else {
            last_error_ = "blocks that cannot be read here: " + healed.error().message;
        }
        gate_.leave();
    }
    co_await resume_on(caller);
    co_return result;
}

/// Fills the unreadable blocks of a host's read. Errors: some stay unreadable.
Task<Result<void>> Mirror::heal_read(Lba lba, Slice to) {
    const std::span<BlockInfo> blocks = to.blocks();
    const std::uint64_t first_block = lba.value / kSectorsPerBlock;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::size_t end = unreadable_end(blocks, i, frame_limit() / kBlockBytes);
        if (end == i) {
            continue;
        }
        const Lba first((first_block + i) * kSectorsPerBlock);
        const SectorCount sectors(std::min((end - i) * std::uint64_t{kSectorsPerBlock}, sectors_.load() - first.value));
        CO_TRY(const Buffer healed, co_await heal(first, sectors));
        const Slice from = healed.slice(bytes_of(sectors), first);
        for (std::size_t b = i; b < end; ++b) {
            const ConstBytes whole = from.block_data(b - i);
            const MutableBytes part = to.block_data(b);
            std::ranges::copy(whole.subspan(b == 0 ? to.head() : 0, part.size()), part.begin());
            blocks[b] = BlockInfo{crc32c(part), BlockStatus::kOk, true};
        }
        i = end - 1;
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
        CO_TRY_VOID(co_await heal_locked(lba, mine));
    }
    co_return memory;
}

/// Takes the unreadable blocks of `mine` from the peer and rewrites them here. REQUIRES: the interval lock is held.
Task<Result<void>> Mirror::heal_locked(Lba lba, Slice mine) {
    CO_TRY(const Frame theirs, co_await peer_blocks(lba, mine.sectors()));  // H1
    const std::span<BlockInfo> blocks = mine.blocks();
    std::uint64_t healed = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::size_t end = unreadable_end(blocks, i, blocks.size());
        if (end == i) {
            continue;
        }
        const std::size_t from = i * kBlockBytes;
        const Slice run = theirs.payload.sub(from, std::min(end * kBlockBytes, mine.size()) - from);
        for (; i < end; ++i) {
            std::ranges::copy(theirs.payload.block_data(i), mine.block_data(i).begin());
            blocks[i] = theirs.payload.blocks()[i];
        }
        const Lba at(lba.value + from / kSectorBytes);
        const Result<void> written =
            co_await change_inside({FrameType::kData, at, run.sectors(), run, false, Legs::kHere});  // H2
        if (written) {
            healed += run.blocks().size();
        } else {
            last_error_ = "rewriting blocks that the peer had: " + written.error().message;
        }
        --i;
    }
    note_healed(healed);
    co_return Result<void>{};
}

/// One event for all of a while.
void Mirror::note_healed(std::uint64_t blocks) {
    healed_blocks_ += blocks;
    const TimePoint now = clock().now();
    if (healed_blocks_ == healed_told_ || (healed_told_ > 0 && now - healed_told_at_ < kToldPause)) {
        return;
    }
    emit("pair-healed", Severity::kWarning,
         std::to_string(healed_blocks_ - healed_told_) + " blocks that this node could not read were taken from node " +
             peer_node() + " and rewritten",
         "look for the member that fails: gemel array list");
    healed_told_ = healed_blocks_;
    healed_told_at_ = now;
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
        if (first < end && suspects_.size() < kMaxSuspects) {  // H3
            suspects_.try_emplace(first, Suspect{SectorCount(end - first), clock().now(), false});
        }
    }
    if (!suspects_.empty() && !healing_) {
        healing_ = gate_.spawn(heal_suspects());
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
            co_await stop_.wait_until(clock(), due);
            continue;
        }
        const std::uint64_t first = next->first;
        const Result<void> healed = co_await heal_suspect({Lba(first), next->second.sectors});
        const auto it = suspects_.find(first);  // nobody else takes one away
        if (healed) {
            suspects_.erase(it);
            continue;
        }
        it->second.due = clock().now() + kHealRetry;
        if (healed.error().code == Errc::kMediumError && !std::exchange(it->second.told, true)) {
            emit("pair-heal-failed", Severity::kError,
                 std::to_string(it->second.sectors.value) + " sectors from " + std::to_string(first) +
                     " on can be read on neither node",
                 "restore them from a backup: a write of whole 4 KiB blocks makes them readable");
        }
    }
    healing_ = false;
}

/// Errors: some of it stays unreadable.
Task<Result<void>> Mirror::heal_suspect(Extent suspect) {
    const std::uint64_t end = std::min(suspect.lba.value + suspect.sectors.value, sectors_.load());
    for (std::uint64_t at = suspect.lba.value; at < end; at += frame_limit() / kSectorBytes) {
        const SectorCount piece(std::min(end - at, frame_limit() / kSectorBytes));
        if (primary()) {
            CO_TRY([[maybe_unused]] const Buffer healed, co_await heal(Lba(at), piece));
        } else {
            CO_TRY([[maybe_unused]] const Frame done, co_await ask_peer(FrameType::kCopyRequest, Lba(at), piece));
        }
    }
    co_return Result<void>{};
}

}  // namespace gemel::replication
