// SPDX-License-Identifier: Apache-2.0
// Control of an open array: superblock changes, the rule for failing members, clean and unclean.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"
#include "raid/volume.hpp"

namespace gemel::raid::detail {

namespace {
constexpr Duration kIdleBeforeClean = std::chrono::seconds(3);
constexpr Duration kIdleCheck = std::chrono::seconds(1);

SlotPlace place_after(SlotPlace newest, SectorCount sectors) {
    if (active(TestSwitch::kSlotInPlace)) {
        return newest;
    }
    return next_place(newest, active(TestSwitch::kGrowSlotsStay) ? newest.device : sectors);
}
}  // namespace

namespace {
/// RB5: what is said of the place's own member stays. One that came back was of use until then.
void end_rebuild(Superblock& next, const Uuid& incarnation) {
    if (next.catches_up()) {
        next.members[next.rebuild.place].last_incarnation = incarnation;
    }
    next.rebuild = {};
}
}  // namespace

void ArrayBody::set_failed(std::uint32_t index, Superblock& next) {
    unrecorded_.store(true, std::memory_order_release);  // before anybody can leave the member out
    const bool its_target = next.rebuild.active && next.rebuild.place == index && next.members[index].failed;
    if (missed && (!its_target || next.catches_up())) {
        missed->lose(index, next);
    }
    members[index].state.store(MemberState::kFailed, std::memory_order_release);
    lost_set_.fetch_or(1U << index, std::memory_order_acq_rel);
    doubt_cached();
    const bool its_rebuild = next.rebuild.active && next.rebuild.place == index;
    if (its_rebuild && next.members[index].failed) {
        end_rebuild(next, next.incarnation);
    } else {
        next.rebuild.cursor = its_rebuild ? 0 : next.rebuild.cursor;  // RP4
        next.members[index].failed = true;
        next.members[index].last_incarnation = next.incarnation;
    }
    if (redo_) {
        redo_->turn_on();
    }
}

/// Members that were missing when the array was assembled have been in sync with the incarnation before.
void ArrayBody::mark_missing(Superblock& next) const {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const MemberState state = members[m].state.load();
        // Also a place whose own member is not there but one that held it before.
        const bool missing = state == MemberState::kMissing || state == MemberState::kStale;
        if (missing && !next.members[m].failed && !active(TestSwitch::kMissingUnmarked)) {
            next.members[m].failed = true;
            next.members[m].last_incarnation = next.previous_incarnation;
            if (missed) {
                missed->lose_missing(m, next);
            }
        }
    }
    const std::uint32_t place = next.rebuild.place;
    if (next.rebuild.active && !rebuilding(place) && members[place].device->target() == nullptr) {
        end_rebuild(next, next.previous_incarnation);  // its device was not there, and misses what is written now
    }
    if (untrusted_named_) {                                          // PP6
        next.redo_from = std::max(next.redo_from, replayed_below_);  // RD5: nobody comes back any more
    }
}

/// A device that was given up still reads from the old one.
void ArrayBody::renew_slot_buffer(std::uint32_t member) {
    Result<Buffer> fresh = env.buffers.allocate(kSuperblockBytes);
    slots_[member] = fresh ? *std::move(fresh) : std::move(slots_[member]);
}

/// What became of the superblocks; `next` then says which members failed.
void ArrayBody::settle_slots(const MemberFan& fan, std::uint32_t started, const SlotPlaces& places, Superblock& next) {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if ((started >> m & 1U) == 0) {
            continue;
        }
        const auto code = fan.failure(m);
        const bool given = gives_place(m, next);
        SlotPlace& newest = given ? target_newest_ : members[m].newest;
        if (!code) {
            members[m].stamp = given ? members[m].stamp : next.stamp();
            target_epoch_ = given ? next.epoch : target_epoch_;
            members[m].vacated = !given && newest.device != places[m].device ? newest.device : members[m].vacated;
            newest = places[m];
            continue;
        }
        if (*code == Errc::kTimedOut) {
            renew_slot_buffer(m);
        }
        if (given) {  // RP6: the next one says so, also to the old member, which has taken none since
            next.members[m] = superblock_.members[m];
            next.taken_by_all = superblock_.taken_by_all;
            continue;
        }
        if (!can_spare(m)) {
            turn_read_only("the superblock of member " + std::to_string(m) + " cannot be written (" +
                           std::string(errc_name(*code)) + ") and the level can spare no further member");
            return;
        }
        set_failed(m, next);
        event(Severity::kError, "member-failed", member_subject(m),
              "its superblock cannot be written: " + std::string(errc_name(*code)), "replace the member");
    }
}

/// SB5. The newest superblock that all who may come back, and are not called failed, have taken.
std::uint64_t ArrayBody::taken_by_all(const Superblock& next) const {
    std::uint64_t least = superblock_.epoch;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const bool its_rebuild = next.rebuild.active && next.rebuild.place == m;
        if (takes_writes(m)) {
            least = std::min(least, gives_place(m, next) ? target_epoch_ : members[m].stamp.epoch);
            least = replacing(m) && its_rebuild ? std::min(least, target_epoch_) : least;
        } else if (!next.members[m].failed || its_rebuild) {
            return next.taken_by_all;  // missing
        }
    }
    return std::max(next.taken_by_all, active(TestSwitch::kTakenAhead) ? next.epoch : least);
}

/// One superblock to all. True if all took it, else `next` says which failed.
Task<bool> ArrayBody::offer(Superblock& next) {
    next.taken_by_all = taken_by_all(next);
    superblock_.epoch = next.epoch;  // never used again, whatever becomes of it
    MemberFan fan;
    std::uint32_t started = 0;
    SlotPlaces places;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (!takes_writes(m)) {
            continue;
        }
        const bool given = gives_place(m, next);
        const MemberDevice& there = *members[m].device;
        BlockDevice& device = given ? *there.target() : *there.device();  // not both
        next.member_index = static_cast<std::uint16_t>(m);
        next.target = next.rebuild.active && next.rebuild.place == m && next.members[m].failed;
        places[m] = place_after(given ? target_newest_ : members[m].newest, device.limits().sectors);
        const Lba lba = places[m].lba();
        const Slice slice = slots_[m].slice(kSuperblockBytes, lba);
        encode(next, slice.data().first<kSuperblockBytes>());
        slice.clear_infos();
        started |= 1U << m;
        fan.start(m, device.write(lba, slice, {.fua = true}));
    }
    co_await fan.all();
    next.member_index = 0;
    next.target = false;
    settle_slots(fan, started, places, next);
    if (fan.failed()) {
        co_return false;
    }
    co_return co_await offer_target(next);
}

/// SB1, SB5: one change, in a loop while members fail under it.
Task<Result<void>> ArrayBody::commit(Superblock next) {
    target_lost_.reset();
    const std::uint32_t wanted = active(TestSwitch::kChangeUnsettled) ? 1 : 2;
    std::uint32_t taken = 0;  // in a row, without anything new in it
    while (!read_only() && taken < wanted) {
        next.epoch = superblock_.epoch + 1;
        taken = co_await offer(next) ? taken + 1 : 0;
    }
    if (taken < wanted) {
        publish_status();
        co_return fail(Errc::kReadOnly, "array " + name + " is read-only");
    }
    const auto failed = [](const Superblock& s) { return std::ranges::count(s.members, true, &MemberRecord::failed); };
    if (!spares_.empty() && failed(next) > failed(superblock_)) {
        gate_.spawn(use_spares());
    }
    const bool marked = next.missed != superblock_.missed;
    superblock_ = std::move(next);
    log_->drop_before(kLogClientRedo, superblock_.redo_from);
    unrecorded_.store(false, std::memory_order_release);
    if (target_lost_) {
        drop_target(*target_lost_);
    }
    publish_status();
    if (missed) {
        missed->failure_recorded(marked);
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::write_zeros(BlockDevice& device, Lba first, Lba end) {
    CO_TRY(const Buffer buffer, env.buffers.allocate((end.value - first.value) * kSectorBytes));
    const Slice slice = buffer.slice((end.value - first.value) * kSectorBytes, first);
    std::ranges::fill(slice.data(), std::byte{0});
    slice.clear_infos();
    co_return co_await device.write(first, slice, {.fua = true});
}

/// SB4. One that does not take it is failed: a write that may still come would hit what lies there by then.
/// REQUIRES: home, without `control`, which the failing of a member that does not answer needs.
Task<Result<void>> ArrayBody::wipe_vacated() {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const SectorCount old = std::exchange(members[m].vacated, SectorCount(0));
        if (old.value == 0 || !takes_writes(m)) {
            continue;
        }
        const Lba first = superblock_slot(old, 0);
        const Lba end = std::min(superblock_slot(old, 2), superblock_slot(members[m].newest.device, 0));
        const Result<void> r = co_await write_zeros(*members[m].device->device(), first, end);
        if (!r) {
            CO_TRY_VOID(co_await fail_member(m, Error(r.error().code, "wiping old superblocks: " + r.error().message)));
        }
    }
    co_return Result<void>{};
}

bool ArrayBody::settled(std::uint32_t member) const {
    const Member& m = members[member];
    return m.vacated.value == 0 && m.newest.at_end_of(m.device->limits().sectors);
}

/// SB4: the superblocks of all members in use are at the ends of their devices; those before are not wiped yet.
/// REQUIRES: `control` held.
Task<Result<void>> ArrayBody::settle_ends() {
    const auto behind = [this](std::uint32_t m) {
        return takes_writes(m) && !members[m].newest.at_end_of(members[m].device->limits().sectors);
    };
    for (int i = 0; i < 2 && !active(TestSwitch::kGrowSlotsStay); ++i) {  // the first may have to go to the old end
        bool any = false;
        for (std::uint32_t m = 0; m < geometry.members; ++m) {
            any = any || behind(m);
        }
        if (any) {
            CO_TRY_VOID(co_await commit(superblock_));
        }
    }
    co_return Result<void>{};
}

/// The same, and those before are wiped. REQUIRES: home, without `control`.
Task<Result<void>> ArrayBody::move_superblocks() {
    {
        const auto guard = co_await control_.lock();
        CO_TRY_VOID(co_await settle_ends());
    }
    co_return co_await wipe_vacated();
}

Task<Result<void>> ArrayBody::fail_locked(std::uint32_t index, Error why) {
    if (!takes_writes(index)) {
        co_return Result<void>{};  // durable already: the change is made under `control`
    }
    if (read_only()) {
        co_return fail(Errc::kReadOnly, "array " + name + " is read-only");
    }
    if (!can_spare(index) && !active(TestSwitch::kLastCopyFailed)) {
        turn_read_only("member " + std::to_string(index) + " (" + member_name(index) + ") failed: " + why.message +
                       "; the level can spare no further member");
        co_return fail(Errc::kReadOnly, "array " + name + " is read-only: member " + std::to_string(index) +
                                            " failed and it is the last the level can spare");
    }
    Superblock next = superblock_;
    mark_missing(next);
    set_failed(index, next);
    event(Severity::kError, "member-failed", member_subject(index),
          std::string(errc_name(why.code)) + ": " + why.message, "replace the member");
    if (active(TestSwitch::kFailureUnrecorded)) {
        superblock_ = std::move(next);
        unrecorded_.store(false);
        co_return Result<void>{};
    }
    co_return co_await commit(std::move(next));
}

Task<Result<void>> ArrayBody::fail_member(std::uint32_t index, Error why) {
    return under_control([this, index, why = std::move(why)]() mutable { return fail_locked(index, std::move(why)); });
}

Task<Result<void>> ArrayBody::fail_members(std::uint32_t set, std::string_view why) {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if ((set >> m & 1U) != 0) {
            CO_TRY_VOID(co_await fail_member(m, Error(Errc::kIo, std::string(why))));
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::fail_by_operator(std::uint32_t place, bool force) {
    return ordered([this, place, force] { return fail_at_home(place, force); });
}

Task<Result<void>> ArrayBody::fail_at_home(std::uint32_t place, bool force) {
    const auto guard = co_await control_.lock();
    if (place >= geometry.members) {
        co_return fail(Errc::kInvalidArgument,
                       "array " + name + " has members 0 to " + std::to_string(geometry.members - 1));
    }
    if (!takes_writes(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " is not in use");
    }
    if (!can_spare(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " cannot be spared: the array would lose data");
    }
    if (!force && in_sync(place) && level.parities() > 0 && untrusted_columns() > 0) {
        co_return fail(Errc::kNeedsForce, "the parity of array " + name + " is not right yet everywhere: what " +
                                              member_subject(place) +
                                              " holds there could not be read any more. Wait until the resync has "
                                              "ended, or fail it by force if it is of no use");
    }
    co_return co_await fail_locked(place, Error(Errc::kAborted, "marked failed by an operator"));
}

Task<Result<void>> ArrayBody::silent(const BlockDevice* device, Duration patience) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(patience).count();
    const Error why(Errc::kTimedOut, "an I/O has not ended within " + std::to_string(ms) + " ms");
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (members[m].device->device() == device) {
            co_return co_await own_missed(m, *device, why);
        }
        if (members[m].device->target() == device) {
            Result<void> r = co_await target_missed(m, *device, why);
            if (!r && members[m].device->device() == device) {  // it has become the member meanwhile
                r = co_await own_missed(m, *device, why);
            }
            co_return r;
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::await_recorded() {
    Executor& caller = Executor::current();
    co_await resume_on(home);
    Result<void> r;
    {
        const auto guard = co_await control_.lock();
        if (unrecorded()) {
            r = fail(Errc::kReadOnly, "array " + name + " is read-only: a failed member could not be recorded");
        }
    }
    co_await resume_on(caller);
    co_return r;
}

Task<Result<void>> ArrayBody::record_missing() {
    return update_superblock([this](Superblock& next) -> Result<void> {
        mark_missing(next);
        return {};
    });
}

Task<Result<void>> ArrayBody::open_for_writes(Shard& shard) {
    CO_TRY_VOID(co_await update_superblock([this](Superblock& next) -> Result<void> {
        next.clean = false;
        ++openings_;
        mark_missing(next);
        if (!watching_ && !stopping()) {
            watching_ = gate_.spawn(watch_idle());
        }
        return {};
    }));
    if (!untrusted_named_.load()) {
        co_await resume_on(home);
        const bool named = co_await await_untrusted_named();
        co_await resume_on(*shard.executor);
        if (!named) {
            co_return fail(Errc::kReadOnly, "array " + name + " is read-only, or stopping");
        }
    }
    shard.writable = true;
    co_return Result<void>{};
}

namespace {

/// The lowest untrusted columns of one shard, as global ranges; returns from where on there are more than were taken.
std::uint64_t take_untrusted(const Shard& shard, std::uint64_t limit, IntervalSet& out) {
    std::uint64_t at = 0;
    for (std::size_t n = 0;; ++n) {
        const auto range = shard.untrusted.next(at);
        if (!range) {
            return limit;
        }
        const std::uint64_t first = shard.global(range->first);
        if (n > kMaxUntrusted) {
            return first;
        }
        // One group at a time: the next one of this shard is elsewhere, unless there is one shard.
        const std::uint64_t group_end = round_down(range->first, shard.group_columns) + shard.group_columns;
        const std::uint64_t end = shard.shards == 1 ? range->second : std::min(range->second, group_end);
        out.add(first, first + (end - range->first));
        at = end;
    }
}

/// What the superblock has room to say: a few ranges, and from where on everything is untrusted.
/// The tail of a resync that has not seen every stripe is said by the cursor.
void describe(const IntervalSet& untrusted, std::uint64_t cursor, std::uint64_t tail, Superblock& next) {
    next.untrusted.clear();
    std::uint64_t at = 0;
    while (const auto range = untrusted.next(at)) {
        if (range->first >= cursor) {
            break;
        }
        if (next.untrusted.size() == kMaxUntrusted || range->second >= tail) {
            cursor = range->first;
            break;
        }
        next.untrusted.push_back({range->first, range->second});
        at = range->second;
    }
    next.resync_cursor = cursor;
}

}  // namespace

/// Reads what is untrusted in all shards into `next`. `close`, SH3: from here on every write asks first; false if one
/// is under way or has just been, then nothing that is written depends on it.
Task<bool> ArrayBody::visit_shards(Superblock& next, bool close) {
    IntervalSet untrusted;
    std::uint64_t cursor = geometry.columns();
    bool quiet = true;
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        const bool recent = !stopping() && env.clock.now() - shard->last_write < kIdleBeforeClean;
        quiet = quiet && shard->writes_in_flight == 0 && !recent;
        if (quiet && close) {
            shard->writable = false;
        }
        cursor = std::min(cursor, take_untrusted(*shard, geometry.columns(), untrusted));
    }
    co_await resume_on(home);
    describe(untrusted, cursor, walking_ ? geometry.columns() : geometry.columns() + 1, next);
    co_return quiet;
}

Task<bool> ArrayBody::quiet_shards() {
    bool quiet = true;
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        const bool recent = env.clock.now() - shard->last_write < kIdleBeforeClean;
        quiet = quiet && shard->writes_in_flight == 0 && !recent;
    }
    co_await resume_on(home);
    co_return quiet;
}

/// The journal lets go of what it lists when writes pause; earlier where what it lists cannot be read after a crash.
Task<void> ArrayBody::tend_journal() {
    if (partial_parity()) {  // what is written together and not flushed is what a crash can cost
        const Result<void> r = co_await redo_->make_room();
        static_cast<void>(r);  // it stays so
    }
    if (!journal_ || !journal_->worth_a_checkpoint()) {
        co_return;
    }
    const bool costly = level.parities() > 0 && lost_members() > 0;
    if (costly || co_await quiet_shards()) {
        const Result<void> r = co_await journal_->checkpoint(Sweep::kAllUnused);
        static_cast<void>(r);  // the next one, or stop(), says the same
    }
}

Task<Result<void>> ArrayBody::flush_locked() {
    MemberFan fan;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (takes_writes(m)) {
            fan.start(m, members[m].device->device()->flush());
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            CO_TRY_VOID(co_await fail_locked(m, Error(*code, "flush failed")));
        }
    }
    co_return co_await flush_target();
}

Task<Result<void>> ArrayBody::mark_clean() {
    return commit_quiet(/*clean=*/true);
}

/// Reads the shards, has the map written as it is then, and makes durable what they said if nothing has contradicted it
/// meanwhile. The map is not written under `control`, which the failing of a member needs.
Task<Result<void>> ArrayBody::commit_quiet(bool clean) {
    Superblock seen;
    std::uint64_t distrusts = 0;
    std::uint64_t openings = 0;
    {
        const auto guard = co_await control_.lock();
        if (read_only()) {
            const Result<void> flushed = clean ? co_await flush_locked() : Result<void>{};
            static_cast<void>(flushed);  // what can be saved is; the error below says the rest
            co_return fail(Errc::kReadOnly, "array " + name + " is read-only and stays marked unclean");
        }
        seen = superblock_;
        seen.redo_from =
            redo_ ? redo_->done_below() : replayed_below_;  // RD4: before the map is written, and the flush
        distrusts = distrusts_.load();
        openings = openings_;
        // A shard that was closed and whose neighbour is busy asks again at its next write, which costs no I/O.
        if (!co_await visit_shards(seen, /*close=*/clean) && clean) {
            co_return fail(Errc::kBusy, "writes are in flight");
        }
    }
    if (checksums_) {
        CO_TRY_VOID(co_await checksums_->write_back());
    }
    const auto guard = co_await control_.lock();
    if (distrusts != distrusts_.load() || (clean && openings != openings_)) {
        co_return fail(Errc::kBusy, "writes are in flight");
    }
    co_return co_await commit_seen(std::move(seen), clean);
}

/// Makes what visit_shards() saw durable, after a flush. REQUIRES: `control` held, home executor.
Task<Result<void>> ArrayBody::commit_seen(Superblock seen, bool clean) {
    // What was copied is redundancy only when it is durable: a power cut may bring back what was there before.
    if (!active(TestSwitch::kCleanNoFlush)) {
        CO_TRY_VOID(co_await flush_locked());
    }
    Superblock next = superblock_;  // the flush may have failed a member
    next.clean = next.clean || clean;
    next.resync_cursor = active(TestSwitch::kResyncCursorAhead) ? geometry.columns() : seen.resync_cursor;
    next.untrusted = std::move(seen.untrusted);
    next.redo_from = may_void_redo() ? std::max(next.redo_from, seen.redo_from) : next.redo_from;
    next.accepted = accepted_member() != 0 && (next.resync_cursor < geometry.columns() || !next.untrusted.empty());
    if (!next.clean || (next == superblock_ && !stopping())) {  // R10: no copy from before a stop is a member
        co_return Result<void>{};  // after a crash of an unclean array everything is resynced anyway
    }
    co_return co_await commit(std::move(next));
}

Task<void> ArrayBody::watch_idle() {
    while (!stopping()) {
        co_await stop_event_.wait_until(env.clock, env.clock.now() + kIdleCheck);
        if (stopping() || read_only()) {
            break;
        }
        co_await tend_journal();
        const Result<void> r = co_await mark_clean();
        if (r && !(journal_ && journal_->worth_a_checkpoint())) {  // writes may have paused between the two
            break;
        }
    }
    watching_ = false;
}

Task<Result<void>> ArrayBody::checkpoint_resync() {
    if (journal_) {
        CO_TRY_VOID(co_await journal_->checkpoint(Sweep::kNothing));
    }
    co_return co_await commit_quiet(/*clean=*/false);
}

void ArrayBody::turn_read_only(std::string why) {
    if (read_only_.exchange(true)) {
        return;
    }
    event(Severity::kError, "array-read-only", "array " + name, why,
          "stop the daemon, repair or bring back the members, and start again");
    for (const auto& volume : volumes_) {
        if (DeviceObserver* observer = volume->observer()) {
            observer->degraded("array " + name + " is read-only: " + why);
        }
    }
}

}  // namespace gemel::raid::detail
