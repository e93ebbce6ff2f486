// SPDX-License-Identifier: Apache-2.0
// Replace: a device takes the place of a member that still works, while the array keeps its redundancy.
//
// It is a rebuild (rebuild.cpp, RB4) whose place is not failed: the same record of the superblock, the same walk.
//
// Invariants:
//   RP1 The place's own member stays in sync, is read and written, and gets every superblock; its target is never read.
//       The target gets them, too, after all members, so that an older copy of it is known (R10); they name it as what
//       it is, and none is newer than those of the members.
//   RP2 Every write and flush of the place goes to both (MD6), wherever the walk is. The walk copies what the member
//       holds, under the stripe's lock; what it cannot read comes from redundancy, or is listed (RB3). So a stripe that
//       was walked is the same on both, and what is durable on the member is durable on the target by the next cursor.
//   RP3 The target missed something: the record ends, durably, before that write is acknowledged; the member stays.
//   RP4 The member missed something: the superblock that fails it makes the record that of a rebuild onto the target,
//       from column 0. What was copied is not believed: only the member, read and written until then, vouched for it.
//   RP5 After a start the two may differ in columns that are untrusted then, wherever a crash cut a write or lost the
//       cache of one. These are walked again; the cursor is below them, durably, before the resync can trust them. A
//       target, or a member, that is not there at a start ends the replace before anything is written.
//   RP6 The place goes to the target by one change of the superblock, written to the others and the target, not to the
//       old member: after all columns, its pages of the checksum map, a flush, and the durable log are on it. If the
//       target does not take it, the next change gives the place back. A crash leaves one or the other: both hold all
//       that was acknowledged. Redo records are void by that superblock (RD9).
//   RP7 The old member's superblocks are wiped afterwards. Until then it is stale: the place has another uuid.
// Threads: replace_stripe, build, own_missed, target_missed on any executor; the rest on home.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

// ---- the beginning

Task<Result<void>> ArrayBody::replace(std::uint32_t place, MemberSpec spec) {
    return ordered([this, place, spec = std::move(spec)]() mutable { return begin_replace(place, std::move(spec)); });
}

Task<Result<void>> ArrayBody::begin_replace(std::uint32_t place, MemberSpec spec) {
    const auto turn = co_await rebuilds_.lock();
    CO_TRY_VOID(may_build(place));
    if (!in_sync(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " is not in sync; rebuild it");
    }
    spec.device = watch.watched(spec.device);
    if (spec.device == nullptr && !spares_.empty()) {
        spec = spares_.front();
    }
    if (spec.device == nullptr) {
        co_return fail(Errc::kInvalidArgument, "array " + name + " has no spare; name the device to replace " +
                                                   member_subject(place) + " with");
    }
    if (spec.name.empty()) {
        spec.name = spec.device->name();
    }
    CO_TRY(const std::optional<FoundSlot> found, co_await check_target(place, spec));
    CO_TRY(const SlotPlace newest, co_await clear_target(*spec.device, found));
    CO_TRY_VOID(co_await enter_replace(place, spec, newest));
    {
        const std::scoped_lock lock(status_mutex_);
        std::erase_if(spares_, [&](const MemberSpec& s) { return s.device == spec.device; });
    }
    if (!gate_.spawn(run_replace(place, /*resumed=*/false))) {
        co_return fail(Errc::kClosed, "array " + name + " is stopping");
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::enter_replace(std::uint32_t place, MemberSpec spec, SlotPlace newest) {
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        await_columns(*shard, 0);
    }
    co_await resume_on(home);
    const auto guard = co_await control_.lock();
    if (read_only() || !in_sync(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " cannot be replaced now");
    }
    Superblock next = superblock_;
    next.rebuild = {true, static_cast<std::uint16_t>(place), 0, env.random.uuid()};
    attach_target(place, spec, newest, 0);
    Result<void> r = co_await commit(std::move(next));
    if (r && !replacing(place)) {
        r = fail(Errc::kIo,
                 "a superblock of " + member_subject(place) + ", or of " + target_name() + ", cannot be written");
    }
    if (!r) {
        const Result<void> ended = co_await end_replace(place, r.error());
        static_cast<void>(ended);  // read-only: the next start ends it, for the target is not there
    }
    co_return r;
}

void ArrayBody::attach_target(std::uint32_t place, const MemberSpec& spec, SlotPlace newest, std::uint64_t epoch) {
    target_newest_ = newest;
    target_epoch_ = epoch;
    {
        const std::scoped_lock lock(status_mutex_);
        target_name_ = spec.name;
    }
    members[place].device->set_target(spec.device);
}

/// RP1: if there is one. False if it does not take it: then `next` says that it is out. REQUIRES: `control` held.
Task<bool> ArrayBody::offer_target(Superblock& next) {
    const std::uint32_t place = next.rebuild.place;
    if (!next.rebuild.active || !replacing(place)) {
        co_return true;
    }
    BlockDevice& device = *members[place].device->target();
    const SlotPlace to = next_place(target_newest_, device.limits().sectors);
    const Lba lba = to.lba();
    const Slice slice = slots_[place].slice(kSuperblockBytes, lba);
    next.member_index = static_cast<std::uint16_t>(place);
    next.target = true;
    encode(next, slice.data().first<kSuperblockBytes>());
    next.member_index = 0;
    next.target = false;
    slice.clear_infos();
    Result<void> r = co_await device.write(lba, slice, {.fua = true});
    if (r) {
        target_newest_ = to;
        target_epoch_ = next.epoch;
        co_return true;
    }
    if (r.error().code == Errc::kTimedOut) {  // the device still reads from there
        renew_slot_buffer(place);
    }
    next.rebuild = {};
    target_lost_ = Error(r.error().code, "its superblock cannot be written: " + r.error().message);
    co_return false;
}

/// A superblock says so. It gets nothing any more. REQUIRES: `control` held.
void ArrayBody::drop_target(const Error& why) {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (replacing(m)) {
            members[m].device->set_target(nullptr);
            event(why.code == Errc::kAborted ? Severity::kInfo : Severity::kError, "replace-failed", member_subject(m),
                  target_name() + " does not take its place, and it stays: " + why.message,
                  "replace it again, with another device");
        }
    }
}

/// RP5. Before I/O starts.
void ArrayBody::resume_replace(const Assembly& assembly) {
    RebuildRecord& record = superblock_.rebuild;
    if (!record.active || superblock_.members[record.place].failed) {
        return;
    }
    if (!assembly.target) {
        event(Severity::kWarning, "replace-failed", member_subject(record.place),
              "it, or the device that was to take its place, is not there", "replace or rebuild it again");
        record = {};
        return;
    }
    attach_target(record.place, assembly.target->spec, assembly.target->newest, assembly.target->epoch);
    std::uint64_t cursor = geometry.columns();
    const std::uint64_t strip = geometry.strip_sectors;
    for (const auto& shard : shards) {
        std::uint64_t at = 0;
        while (const auto range = shard->untrusted.next(at)) {
            if (active(TestSwitch::kReplaceBelievesCursor)) {
                break;
            }
            at = range->second;
            shard->unbuilt.add(round_down(range->first, strip), round_up(at, strip));
        }
        if (const auto first = shard->unbuilt.next(0)) {
            cursor = std::min(cursor, shard->global(first->first));
        }
    }
    record.cursor = cursor;
}

// ---- the walk

Task<Result<void>> ArrayBody::build(std::uint32_t member, Lba member_lba, Slice from, WriteOptions options) {
    options.give_back = true;  // another device of the place may have had no space there
    if (!rebuilding(member)) {
        if (checksums_) {  // what was made up, CS3
            CO_TRY_VOID(co_await checksums_->note(member, member_lba, from));
        }
        co_return co_await members[member].device->write_target(member_lba, from, options);
    }
    const Result<void> r = co_await members[member].device->write(member_lba, from, options);
    if (!r) {
        co_return co_await fail_member(member, r.error());
    }
    co_return r;
}

Task<Result<void>> ArrayBody::build_area(std::uint32_t member, Lba lba, Slice from, WriteOptions options) {
    MemberDevice& place = *members[member].device;
    if (!rebuilding(member)) {
        co_return co_await place.write_target_area(lba, from, options);
    }
    const Result<void> r = co_await place.areas().write(lba, from, options);
    if (!r) {
        co_return co_await fail_member(member, r.error());
    }
    co_return r;
}

/// RP2. From the member itself, if all of it can be read.
Task<Result<void>> ArrayBody::replace_stripe(Shard& shard, StripeIndex index, std::uint32_t place) {
    const std::uint64_t strip = geometry.strip_sectors;
    const Lba first(index.value * strip);
    const bool parity = level.parities() > 0;
    const Lba member_lba = parity ? geometry.stripe_lba(index) : geometry.locate(first).member_lba;
    {
        const std::uint64_t from = parity ? index.value : first.value;
        const auto guard = co_await shard.lock.acquire(from, parity ? from : from + strip - 1);
        CO_TRY(const Buffer buffer, co_await allocate(strip * kSectorBytes));
        const Slice all = buffer.slice(strip * kSectorBytes, member_lba);
        all.clear_infos();
        BlockDevice& member = *members[place].device;  // compares with the checksums
        const Result<void> r = co_await read_twice(member, member_lba, all);
        if (r) {
            CO_TRY_VOID(
                co_await members[place].device->write_target(member_lba, all, {.background = true, .give_back = true}));
            built(shard, first.value, first.value + strip);
            co_return r;
        }
        co_await note_read_error(place, r.error().code);
        if (r.error().code == Errc::kTimedOut) {
            co_return r;
        }
    }
    co_return co_await level.rebuild_stripe(*this, shard, index, place);
}

Task<void> ArrayBody::run_replace(std::uint32_t place, bool resumed) {
    begin_job(JobKind::kReplace, place);
    BlockDevice* target = members[place].device->target();
    const std::string with = target_name();
    event(Severity::kInfo, "replace-started", member_subject(place),
          with + (resumed ? " goes on getting what it holds" : " gets what it holds, and then its place"));
    Result<void> r = co_await fill_place(place);
    if (r) {
        r = co_await finish_replace(place);
    }
    if (!r && !stopping() && !read_only()) {
        const auto guard = co_await control_.lock();
        const Result<void> ended = co_await end_replace(place, r.error());
        static_cast<void>(ended);  // read-only: it goes on at the next start
    }
    const auto turn = co_await rebuilds_.lock();
    rebuild_job.end();
    if (!r && !stopping() && !read_only() && members[place].device->target() != nullptr) {
        co_await rebuild_instead(place, {target, with});
    }
    gate_.spawn(use_spares());
}

/// RP4. The record, and the superblock on the device, say so already, for a start after a crash.
/// REQUIRES: `rebuilds` held; nothing walks.
Task<void> ArrayBody::rebuild_instead(std::uint32_t place, MemberSpec spec) {
    Result<void> r = may_build(place);
    if (r) {
        r = check_answers(spec);
    }
    if (r) {
        r = co_await enter_target(place, spec, target_newest_, /*returned=*/false);
    }
    if (r && !gate_.spawn(run_rebuild(place, /*resumed=*/false))) {
        r = fail(Errc::kClosed, "array " + name + " is stopping");
    }
    if (!r) {
        members[place].device->set_target(nullptr);
        event(Severity::kError, "rebuild-failed", member_subject(place), r.error().message,
              "rebuild onto " + spec.name + " again, or onto another device");
    }
}

// ---- its end

/// RP3. A superblock that does not name the target; then the target gets nothing any more. Nothing is done if the
/// member has failed (RP4). REQUIRES: `control` held.
Task<Result<void>> ArrayBody::end_replace(std::uint32_t place, Error why) {
    if (!replacing(place)) {
        co_return Result<void>{};
    }
    Superblock next = superblock_;
    next.rebuild = {};
    CO_TRY_VOID(co_await commit(std::move(next)));
    drop_target(why);
    co_return Result<void>{};
}

/// RP2. REQUIRES: `control` held.
Task<Result<void>> ArrayBody::flush_target() {
    const std::uint32_t place = superblock_.rebuild.place;
    if (!replacing(place)) {
        co_return Result<void>{};
    }
    const Result<void> r = co_await members[place].device->target()->flush();
    if (!r) {
        co_return co_await end_replace(place, Error(r.error().code, "flush failed"));
    }
    co_return r;
}

/// REQUIRES: `control` held.
Task<Result<void>> ArrayBody::target_missed_locked(std::uint32_t index, const BlockDevice& target, Error why) {
    const MemberDevice& place = *members[index].device;
    if (place.device() == &target) {
        co_return std::unexpected(std::move(why));  // it is the member by now
    }
    if (place.target() != &target) {
        co_return Result<void>{};
    }
    if (read_only()) {
        co_return fail(Errc::kReadOnly, "array " + name + " is read-only");
    }
    co_return co_await end_replace(index, std::move(why));
}

Task<Result<void>> ArrayBody::target_missed(std::uint32_t index, const BlockDevice& target, Error why) {
    return under_control([this, index, &target, why = std::move(why)]() mutable {
        return target_missed_locked(index, target, std::move(why));
    });
}

/// REQUIRES: `control` held.
Task<Result<void>> ArrayBody::own_missed_locked(std::uint32_t index, const BlockDevice& own, Error why) {
    const bool still = members[index].device->device() == &own;
    co_return still ? co_await fail_locked(index, std::move(why)) : Result<void>{};
}

Task<Result<void>> ArrayBody::own_missed(std::uint32_t index, const BlockDevice& own, Error why) {
    return under_control(
        [this, index, &own, why = std::move(why)]() mutable { return own_missed_locked(index, own, std::move(why)); });
}

/// RP6.
Task<Result<void>> ArrayBody::finish_replace(std::uint32_t place) {
    CO_TRY_VOID(co_await checkpoint_rebuild());  // flushes what was copied
    CO_TRY_VOID(co_await log_->copy_to(place));
    log_->stop_copying();  // what follows goes to the target with the member's own
    BlockDevice* old = members[place].device->device();
    const SectorCount end = members[place].newest.device;
    CO_TRY_VOID(co_await give_place(place));
    event(Severity::kInfo, "replace-ended", member_subject(place), "it is in sync in its place; remove the old device");
    const Result<void> wiped = co_await wipe_slots(*old, end);
    static_cast<void>(wiped);  // RP7: a device that does not take it is no better than one that is gone
    co_return Result<void>{};
}

/// With the locks of all stripes held: what the target misses meanwhile would be missed by a member (MS2), and what is
/// logged be for the old device (RD9).
Task<Result<void>> ArrayBody::give_place(std::uint32_t place) {
    std::vector<IntervalLock::Guard> guards(shards.size());
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        guards[shard->index] = co_await shard->lock.acquire(0, ~std::uint64_t{0});
    }
    co_await resume_on(home);
    const std::uint64_t done = redo_ ? redo_->done_below() : 0;
    Result<void> r = redo_ ? co_await flush_with_map() : Result<void>{};
    if (r) {
        r = co_await give_place_now(place, done);
    }
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        guards[shard->index].release();
    }
    co_await resume_on(home);
    co_return r;
}

/// `redo_done`: records below it are durable on both devices.
Task<Result<void>> ArrayBody::give_place_now(std::uint32_t place, std::uint64_t redo_done) {
    const auto guard = co_await control_.lock();
    if (!replacing(place)) {
        co_return fail(Errc::kIo, "one of the two devices failed");
    }
    Superblock next = superblock_;
    const Uuid uuid = next.rebuild.uuid;
    next.members[place].uuid = uuid;
    next.members[place].last_incarnation = next.incarnation;
    next.rebuild = {};
    next.redo_from = may_void_redo() ? std::max(next.redo_from, redo_done) : next.redo_from;
    CO_TRY_VOID(co_await commit(std::move(next)));
    MemberDevice& device = *members[place].device;
    if (superblock_.members[place].uuid != uuid) {
        device.set_target(nullptr);
        event(Severity::kError, "replace-failed", member_subject(place),
              target_name() + " does not take its place, and it stays: its superblock cannot be written",
              "replace it again, with another device");
        co_return fail(Errc::kIo, "its superblock cannot be written");
    }
    device.exchange();
    members[place].tag.store(device_tag(uuid), std::memory_order_release);
    members[place].newest = target_newest_;
    members[place].stamp = superblock_.stamp();
    members[place].vacated = {};
    {
        const std::scoped_lock lock(status_mutex_);
        member_names_[place] = target_name_;
    }
    publish_status();
    co_return Result<void>{};
}

/// The place is given to its target by `next`, which goes there.
bool ArrayBody::gives_place(std::uint32_t member, const Superblock& next) const {
    return members[member].device->target() != nullptr && next.members[member].uuid != superblock_.members[member].uuid;
}

std::string ArrayBody::target_name() const {
    const std::scoped_lock lock(status_mutex_);
    return target_name_;
}

}  // namespace gemel::raid::detail
