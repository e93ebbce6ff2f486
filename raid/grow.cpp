// SPDX-License-Identifier: Apache-2.0
// Grow: the array takes into use what the devices of its members have more than before, while hosts work.
//
// The added space lies behind everything that is there (added_space.hpp), and nothing is moved: one change of the
// superblock takes it into use. The other way, to move the areas to the new end, would keep the data in one piece, but
// every I/O of the log and of the checksum map would have to stand still for it, and a crash in it would need rules of
// its own.
//
// Invariants:
//   GR1 Before that change the superblocks of all members are at the new ends of their devices, and those at the old
//       ends, which would be found by nobody any more, are wiped. So added space is used only where no superblock is.
//   GR2 The change is one superblock (SB1). Before it is durable nothing is read or written in the added space, after
//       it any start has all of it: a crash leaves one or the other.
//   GR3 Redundancy of the added columns is untrusted from before their first use until resynced or written, as that of
//       a new array: the superblock's cursor, and the cursor of every checkpoint of the journal before, end where the
//       columns ended that were there. Their checksums are unknown, which is all that can be said of a single copy.
//   GR4 The sizes in `geometry` are raised last, at once for all: who looks sees the old or the new ones, and volumes
//       that reach into the added space are made only after that.
//   GR5 Only an array whose members are all in sync, and whose redundancy was walked through, grows: a member that is
//       not there could not be asked for its size, and a walk that runs has counted its columns.
// Threads: home; parts of take_growth() on the shards.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/growth.hpp"

namespace gemel::raid::detail {

Task<Result<void>> ArrayBody::grow() {
    return ordered([this] { return grow_at_home(); });
}

/// GR5.
Result<void> ArrayBody::may_grow() const {
    if (read_only()) {
        return fail(Errc::kReadOnly, "array " + name + " is read-only");
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (!in_sync(m)) {
            return fail(Errc::kRefused, member_subject(m) + " is not in sync; rebuild it before the array grows");
        }
    }
    if (rebuild_job.running() || superblock_.rebuild.active) {
        return fail(Errc::kBusy, "array " + name + " is replacing a member; wait for that, or cancel it");
    }
    if (walkers_ > 0 || walking_) {
        return fail(Errc::kBusy, "array " + name + " is resyncing; wait until that has ended");
    }
    return {};
}

Result<Superblock> ArrayBody::plan_growth_now() const {
    TRY_VOID(may_grow());
    std::vector<std::uint64_t> sectors;
    std::vector<std::string> names;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        sectors.push_back(members[m].device->limits().sectors.value);
        names.push_back(member_subject(m));
    }
    return plan_growth(superblock_, sectors, names);
}

Task<Result<void>> ArrayBody::grow_at_home() {
    const auto turn = co_await rebuilds_.lock();
    const auto table = co_await resizes_.lock();
    const SectorCount before = geometry.sectors();
    {
        const auto guard = co_await control_.lock();
        CO_TRY_VOID(plan_growth_now());
    }
    CO_TRY_VOID(co_await move_superblocks());
    {
        const auto guard = co_await control_.lock();
        for (std::uint32_t m = 0; m < geometry.members && !active(TestSwitch::kGrowSlotsStay); ++m) {
            if (!settled(m)) {  // GR1
                co_return fail(Errc::kBusy, member_subject(m) + " was extended again just now; grow again");
            }
        }
        CO_TRY(Superblock next, plan_growth_now());  // a member may have failed
        const Geometry grown = geometry_of(next);
        next.resync_cursor = active(TestSwitch::kGrowTrusted) ? grown.columns() : next.resync_cursor;
        next.missed = {};
        if (missed) {
            missed->grow(grown);
        }
        CO_TRY_VOID(co_await commit(std::move(next)));
        co_await take_growth(grown);
        publish_status();
    }
    event(Severity::kInfo, "array-grown", "array " + name,
          "it has " + std::to_string(bytes_of(geometry.sectors())) + " bytes now, and had " +
              std::to_string(bytes_of(before)),
          "grow volumes into the new space");
    if (untrusted_columns() > 0) {
        start_resync("the array has grown");
    }
    co_return Result<void>{};
}

/// GR3, GR4. REQUIRES: `control` held; the superblock that says so is durable; `grown` outlives the task.
Task<void> ArrayBody::take_growth(const Geometry& grown) {
    const std::uint64_t from = geometry.columns();
    const std::uint64_t end = grown.columns();
    const std::uint64_t group = geometry.group_columns();
    for (const auto& shard : shards) {
        if (!tracks) {
            break;
        }
        co_await resume_on(*shard->executor);
        if (!level.redundant || active(TestSwitch::kGrowTrusted)) {
            shard->walked = shard->local_from(end);
            continue;
        }
        shard->walked = std::min(shard->walked, shard->local_from(from));
        for (std::uint64_t first = round_down(from, group); first < end; first += group) {
            if (first / group % shards.size() == shard->index) {
                distrust(*shard, std::max(first, from), std::min(first + group, end));
            }
        }
    }
    co_await resume_on(home);
    if (!geometry.added.any()) {  // AS1
        geometry.added.base = grown.added.base;
        geometry.added.unit = grown.added.unit;
        geometry.added.map = grown.added.map;
        geometry.added.split = grown.added.split;
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        geometry.ends[m] = grown.ends[m];
    }
    geometry.member_sectors = grown.member_sectors;
    if (checksums_) {
        checksums_->grow();
    }
}

}  // namespace gemel::raid::detail
