// SPDX-License-Identifier: Apache-2.0
// Catching up: a member that was lost and comes back as it was gets only what it missed, by a rebuild that begins with
// these columns alone (rebuild.cpp, RB1 to RB8 hold).
//
// Invariants (with ME1 to ME6):
//   CU1 Only the member itself catches up: it has the place's uuid, and its newest superblock is the one it had when it
//       was lost (MR3). Any other device, older copy, or member that was used elsewhere is rebuilt whole, or refused.
//   CU2 It is lost until it is in sync, as in any rebuild. What it holds already is used from a moment on in which no
//       write, and nothing else that depends on it, is under way in the shard.
//   CU3 The durable cursor says the same as in any rebuild; beyond it is on the device what no missed extent names.
//       Writes go on being named meanwhile, so that a crash, or another loss of the member, finds them named.
//   CU4 A member that a start finds so catches up by itself, before a spare is taken.
//   CU5 It gets another uuid when that begins, as any device that a rebuild goes onto: whoever calls it failed by the
//       old one knows of an earlier time (R3).
// Threads: home; the bar on the shard.
#include <algorithm>
#include <array>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/redo_log.hpp"
#include "raid/redo_record.hpp"

namespace gemel::raid::detail {

/// Before I/O starts.
void ArrayBody::find_returned(const Assembly& assembly, const Doubts& doubts) {
    if (!level.redundant) {
        return;
    }
    missed = std::make_unique<MissedExtents>(*this, *log_);
    const auto replayed = [](const LogRecord& r) { return !is_partial_record(r.bytes); };
    superblock_.missed =
        missed->begin(assembly, doubts.cursor, doubts.ranges, std::ranges::any_of(doubts.redo, replayed));
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const bool stale = members[m].state.load() == MemberState::kStale;
        returned_ |= stale && (superblock_.missed.members >> m & 1U) != 0 ? 1U << m : 0;
    }
}

/// CU1. Where its newest superblock is.
Task<std::optional<SlotPlace>> ArrayBody::came_back(std::uint32_t place, MemberSpec spec) {
    const std::array<MemberSpec, 1> specs{spec};
    Result<std::vector<MemberReading>> readings = co_await read_members(env, specs);
    if (readings) {
        co_await look_at_former_ends(env, name, known_ends(), specs, *readings);
    }
    if (!readings || readings->front().kind != MemberReading::Kind::kFound) {
        co_return std::nullopt;
    }
    const Superblock& held = readings->front().superblock;
    const bool ours = held.array_uuid == superblock_.array_uuid && held.member_index == place &&
                      superblock_.members[place].failed && (superblock_.missed.members >> place & 1U) != 0;
    if (!ours || !co_await missed->knows(place, held.member_uuid(), held.stamp())) {
        co_return std::nullopt;
    }
    co_return readings->front().newest;
}

/// On the shard: waits until nothing is under way in it, and keeps the rest waiting as long as `guard` lives.
Task<void> ArrayBody::bar(Shard& shard, IntervalLock::Guard& guard) {
    if (!active(TestSwitch::kMissedUnbarred)) {
        guard = co_await shard.lock.acquire(0, ~std::uint64_t{0});
    }
}

/// CU2. All columns that it did not miss are on the device from here on.
Task<void> ArrayBody::keep_what_it_holds(std::uint32_t place) {
    std::uint64_t unbuilt = 0;
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        IntervalLock::Guard guard;
        co_await bar(*shard, guard);
        await_columns(*shard, 0, missed->tracks(place));
        unbuilt += shard->unbuilt.total();
    }
    co_await resume_on(home);
    unbuilt_columns_ = unbuilt;
}

/// CU4.
Task<void> ArrayBody::take_back() {
    const auto turn = co_await rebuilds_.lock();
    for (std::uint32_t m = 0; m < geometry.members && !stopping() && !rebuild_job.cancelled(); ++m) {
        if ((returned_ >> m & 1U) == 0 || rebuild_job.running()) {
            continue;
        }
        returned_ &= ~(1U << m);
        if (members[m].state.load() != MemberState::kStale) {
            continue;
        }
        const Result<void> began = co_await begin_rebuild(m, {}, Onto::kReturned);
        if (!began && !stopping()) {
            event(Severity::kWarning, "catch-up-refused", member_subject(m), began.error().message,
                  "rebuild or replace the member");
        }
    }
}

/// Whoever came back, else spares.
Task<void> ArrayBody::fill_places() {
    if (returned_ != 0) {
        co_await take_back();
    }
    co_await use_spares();
}

/// ME4, after a member has become in sync.
Task<void> ArrayBody::settle_return() {
    if (!missed || !missed->unsettled()) {
        co_return;
    }
    if (redo_ && !active(TestSwitch::kMissedUnlisted)) {
        co_await redo_->await_listed();  // only the set has named them, which is emptied
    }
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        IntervalLock::Guard guard;
        co_await bar(*shard, guard);
    }
    co_await resume_on(home);
    Result<void> r = co_await flush_with_map();
    if (r) {
        r = co_await update_superblock([](Superblock& next) -> Result<void> {
            for (std::size_t m = 0; m < next.members.size(); ++m) {
                next.missed.members &= next.members[m].failed ? ~0U : ~(1U << m);
            }
            next.missed = next.missed.members == 0 ? MissedMarker() : next.missed;
            return {};
        });
    }
    if (r) {
        missed->settle();
    }
}

}  // namespace gemel::raid::detail
