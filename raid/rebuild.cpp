// SPDX-License-Identifier: Apache-2.0
// Rebuild: a device gets what belongs to a place whose member is lost, while the array works; then the place is its.
//
// Invariants:
//   RB1 Mirrors: every write to the place goes to the device, wherever the walk is. It is read only when in sync.
//   RB2 Parity: a stripe is on the device or not yet; that changes under the stripe's lock only. Not yet: the stripe is
//       treated as without its member. On it: as with it, but read under the lock only, since an unlocked read could
//       not know.
//   RB3 What goes onto the device is made from what is known, under the lock. What cannot be made up (a source that
//       cannot be read, parity that is not trusted) is listed as unreadable (MD1), never filled with anything.
//   RB4 A durable cursor says: columns below it are on the device durably. So the order is: read the cursor, flush the
//       device, write the superblock with the cursor and the list of unreadable blocks as it is then.
//   RB5 The device is lost for the array until RB6: the rebuild changes nothing about what the level tolerates. When it
//       fails, or is not there at a start and something is written, the superblock that says so ends the rebuild; it is
//       stale from then on.
//   RB6 The place is in sync by one change of the superblock: after all columns, a flush, and the durable log are on
//       the device. Before and after any crash it is either failed with a rebuild, or in sync.
//   RB7 A member that is durably failed gets a spare at once, unless a rebuild runs or the last one was cancelled; a
//       spare that is not blank is refused and not tried again. Missing at a start is not failed: it may be late.
//   RB8 A forced start begins it anew at column 0: by force parity is taken as right, or told by P, as without the
//       device (B5), and what the device got in a stripe that a crash cut short may contradict that.
//   RB9 Without hosts' I/O stripes are under way without a break, each lane beginning its next one when it has ended
//       one. Beside it as few are as leave the time that one takes what it was at best, one at least, and after each
//       round the walk rests as long as that took: what hosts wait for on the members is what a stripe waits for.
// Threads: rebuild_lane, built, give_up_blocks on the shard; the rest on home.
#include <algorithm>
#include <array>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"

namespace gemel::raid::detail {

using namespace job_pace;

namespace {
constexpr Duration kShortRest = std::chrono::milliseconds(1);  ///< at least, after a turn beside hosts' I/O
constexpr Duration kCalm = std::chrono::milliseconds(100);
constexpr std::uint64_t kMostLanes = MemberFan::kSlots / 4;
constexpr std::uint64_t kQuietStripes = 8;  ///< of each lane in a turn without hosts' I/O
constexpr std::uint64_t kCheckpoints = 64;  ///< of a whole rebuild
}  // namespace

/// What the array knows a device by stays on it until a new superblock is there: without one it would be a device
/// that holds data of somebody. But one that is newer than the array's, of a member that was started elsewhere since,
/// would count more than those that follow. Gives the place of what is left.
Task<Result<SlotPlace>> ArrayBody::clear_target(BlockDevice& device, std::optional<FoundSlot> found) {
    const SectorCount sectors = device.limits().sectors;
    if (found && found->place.at_end_of(sectors) && found->epoch <= superblock_.epoch) {
        const std::uint64_t other = 1 - found->place.slot;
        CO_TRY_VOID(co_await write_zeros(device, superblock_slot(sectors, other), superblock_slot(sectors, other + 1)));
        co_return SlotPlace{found->place.slot, sectors};
    }
    CO_TRY_VOID(co_await wipe_slots(device, found ? found->place.device : sectors));
    co_return SlotPlace{1, sectors};
}

/// Those at the device's end, and where it ended before.
Task<Result<void>> ArrayBody::wipe_slots(BlockDevice& device, SectorCount ended) {
    const SectorCount sectors = device.limits().sectors;
    if (ended < sectors) {
        CO_TRY_VOID(co_await write_zeros(device, superblock_slot(ended, 0), superblock_slot(ended, 2)));
    }
    co_return co_await write_zeros(device, superblock_slot(sectors, 0), superblock_slot(sectors, 2));
}

/// R9.
std::vector<SectorCount> ArrayBody::known_ends() const {
    std::vector<SectorCount> out = former_sizes_;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        out.push_back(members[m].newest.device);
    }
    return out;
}

bool ArrayBody::holds(std::uint32_t member, StripeIndex stripe) const {
    if (!rebuilding(member)) {
        return in_sync(member);
    }
    const Shard& shard = shard_of_stripe(stripe);
    const std::uint64_t column = shard.local(stripe.value * geometry.strip_sectors);
    return active(TestSwitch::kUnbuiltRead) || !shard.unbuilt.intersects(column, column + geometry.strip_sectors);
}

/// From here on no column of the shard at or beyond `from` is on the device; `only_missed`: of those that it missed.
void ArrayBody::await_columns(Shard& shard, std::uint64_t from, bool only_missed) {
    shard.unbuilt = {};
    const std::uint64_t group = geometry.group_columns();
    const std::uint64_t end = geometry.columns();
    for (std::uint64_t at = shard.index * group; at < end; at += group * shards.size()) {
        const std::uint64_t first = std::max(at, from);
        const std::uint64_t last = std::min(at + group, end);
        for (std::uint64_t column = first; column < last;) {
            const std::uint64_t next = only_missed ? std::min(last, missed->region_end(column)) : last;
            if (!only_missed || missed->missed(column)) {
                shard.unbuilt.add(shard.local(column), shard.local(column) + (next - column));
            }
            column = next;
        }
    }
}

/// Before I/O starts: what the superblock says of the places.
void ArrayBody::resume_places() {
    for (const UnreadableRange& u : superblock_.unreadable) {
        if (active(TestSwitch::kUnreadableForgotten)) {
            break;
        }
        static_cast<void>(members[u.member].device->add_unreadable(u.first, u.count));  // it had room for them
    }
    for (const auto& shard : shards) {
        await_columns(*shard, superblock_.rebuild.cursor, superblock_.catches_up());  // CU3
        unbuilt_columns_ += shard->unbuilt.total();
    }
}

void ArrayBody::built(Shard& shard, std::uint64_t first_column, std::uint64_t end_column) {
    const std::uint64_t from = shard.local(first_column);
    shard.unbuilt.remove(from, from + (end_column - first_column));
}

Task<Result<void>> ArrayBody::give_up_blocks(std::uint32_t member, Lba member_lba, std::uint64_t blocks) {
    if (active(TestSwitch::kRebuildGuesses) ||
        members[member].device->add_unreadable(member_lba.value / kSectorsPerBlock, blocks)) {
        co_return Result<void>{};
    }
    co_return co_await lose_built(
        member, Error(Errc::kNoSpace, "more of its blocks cannot be made up than there is room to list"));
}

Task<Result<void>> ArrayBody::forget_unreadable(std::uint32_t member, std::uint64_t first, std::uint64_t count) {
    return update_superblock([this, member, first, count](Superblock& next) -> Result<void> {
        members[member].device->remove_unreadable(first, count);
        gather_unreadable(next);
        if (next.unreadable.size() > kMaxUnreadable) {  // scattered writes cut it up: it stays listed, which is safe
            static_cast<void>(members[member].device->add_unreadable(first, count));
            gather_unreadable(next);
        }
        return {};
    });
}

void ArrayBody::gather_unreadable(Superblock& next) const {
    next.unreadable.clear();
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const IntervalSet blocks = members[m].device->unreadable();
        std::uint64_t at = 0;
        while (const auto range = blocks.next(at)) {
            constexpr std::uint64_t kMost = 1ULL << 31U;
            at = std::min(range->second, range->first + kMost);
            next.unreadable.push_back(
                {static_cast<std::uint16_t>(m), range->first, static_cast<std::uint32_t>(at - range->first)});
        }
    }
}

// ---- the beginning

Task<Result<void>> ArrayBody::rebuild(std::uint32_t place, MemberSpec spec) {
    return ordered([this, place, spec = std::move(spec)]() mutable { return rebuild_at_home(place, std::move(spec)); });
}

Result<void> ArrayBody::may_build(std::uint32_t place) const {
    if (!level.redundant) {
        return fail(Errc::kInvalidArgument, "array " + name + " of level " + std::string(level.name) +
                                                " has no redundancy: its members cannot be rebuilt or replaced");
    }
    if (place >= geometry.members) {
        return fail(Errc::kInvalidArgument, "array " + name + " has members 0 to " +
                                                std::to_string(geometry.members - 1) + ", not " +
                                                std::to_string(place));
    }
    if (read_only()) {
        return fail(Errc::kReadOnly, "array " + name + " is read-only");
    }
    if (rebuild_job.running()) {
        return fail(Errc::kBusy, "array " + name + " is rebuilding or replacing a member; wait for it, or cancel it");
    }
    return {};
}

Task<Result<void>> ArrayBody::rebuild_at_home(std::uint32_t place, MemberSpec spec) {
    const auto turn = co_await rebuilds_.lock();
    spec.device = watch.watched(spec.device);
    Result<void> r = co_await begin_rebuild(place, spec, Onto::kAny);
    if (r) {
        const std::scoped_lock lock(status_mutex_);
        std::erase_if(spares_, [&](const MemberSpec& s) { return s.device == spec.device; });
    }
    co_return r;
}

/// REQUIRES: `rebuilds` held.
Task<Result<void>> ArrayBody::begin_rebuild(std::uint32_t place, MemberSpec spec, Onto onto) {
    CO_TRY_VOID(may_build(place));
    if (in_sync(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " is in sync; replace it, or mark it failed first");
    }
    if (spec.device == nullptr) {
        spec = {members[place].device->device(), member_name(place)};
    }
    if (spec.device == nullptr) {
        co_return fail(Errc::kInvalidArgument, member_subject(place) + " has no device; name the one to rebuild onto");
    }
    if (spec.name.empty()) {
        spec.name = spec.device->name();
    }
    CO_TRY(const std::optional<FoundSlot> found, co_await check_target(place, spec));
    const std::optional<SlotPlace> held = co_await came_back(place, spec);
    if (!held && onto == Onto::kReturned) {
        co_return fail(Errc::kRefused, member_subject(place) +
                                           " is not as the array lost it, or what it missed is not "
                                           "known: it has to be rebuilt whole");
    }
    SlotPlace newest = held.value_or(SlotPlace());
    if (!held) {
        CO_TRY(newest, co_await clear_target(*spec.device, found));
    }
    CO_TRY_VOID(co_await enter_target(place, std::move(spec), newest, held.has_value()));
    if (held) {
        co_await keep_what_it_holds(place);
        const Result<void> moved = co_await move_superblocks();  // it may have been extended
        static_cast<void>(moved);  // one that does not take it has failed, which the rebuild finds
    }
    if (!gate_.spawn(run_rebuild(place, /*resumed=*/false))) {
        co_return fail(Errc::kClosed, "array " + name + " is stopping");
    }
    co_return Result<void>{};
}

Result<void> ArrayBody::check_answers(const MemberSpec& spec) {
    if (MemberWatch::given_up(spec.device)) {
        return fail(Errc::kBusy,
                    spec.name + " did not answer; take another device, or start the daemon again when it answers");
    }
    return {};
}

/// It can be the device of the place, and is not that of another one.
Result<void> ArrayBody::check_shape(std::uint32_t place, const MemberSpec& spec) const {
    const DeviceLimits limits = spec.device->limits();
    const std::uint64_t needed = superblock_.device_end(place);
    if (round_down(limits.sectors.value, kSectorsPerBlock) < needed + 2 * kSuperblockSectors) {
        return fail(Errc::kNoSpace, spec.name + " has " + std::to_string(bytes_of(limits.sectors)) +
                                        " bytes; a member of array " + name + " needs " +
                                        std::to_string((needed + 2 * kSuperblockSectors) * kSectorBytes));
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (m == place && !in_sync(place)) {
            continue;
        }
        if (members[m].device->device() == spec.device) {
            return fail(Errc::kBusy, spec.name + " is member " + std::to_string(m) + " of array " + name);
        }
        const DeviceLimits other = members[m].device->limits();
        const bool strange =
            limits.max_transfer_bytes < other.max_transfer_bytes || limits.alignment_sectors > other.alignment_sectors;
        if (in_sync(m) && strange) {
            return fail(Errc::kUnsupported,
                        spec.name + " has larger sectors, or takes smaller transfers, than " + member_subject(m));
        }
    }
    return {};
}

/// The device fits, and nothing on it is needed. Gives the newest superblock of this array on it.
Task<Result<std::optional<ArrayBody::FoundSlot>>> ArrayBody::check_target(std::uint32_t place, MemberSpec spec) {
    CO_TRY_VOID(check_answers(spec));
    CO_TRY_VOID(check_shape(place, spec));
    const std::array<MemberSpec, 1> specs{spec};
    CO_TRY(std::vector<MemberReading> readings, co_await read_members(env, specs));
    co_await look_at_former_ends(env, name, known_ends(), specs, readings);
    const MemberReading& found = readings.front();
    const bool own = spec.device == members[place].device->device();
    if (found.kind == MemberReading::Kind::kFound && found.superblock.array_uuid == superblock_.array_uuid) {
        const std::uint32_t was = found.superblock.member_index;
        if (was < geometry.members && in_sync(was) && superblock_.members[was].uuid == found.superblock.member_uuid()) {
            co_return fail(Errc::kBusy, spec.name + " is " + member_subject(was) + " by another name");
        }
        if (was != place) {  // the config may still name it for that place
            co_return fail(Errc::kRefused, spec.name + " was member " + std::to_string(was) + " of array " + name +
                                               "; wipe it first if it is to be member " + std::to_string(place));
        }
        co_return FoundSlot{found.newest, found.superblock.epoch};
    }
    if (found.kind != MemberReading::Kind::kDamaged || !own) {
        CO_TRY_VOID(co_await require_blank(env, spec, found));
    }
    co_return std::nullopt;
}

/// `newest`: superblock on the device. `returned`: it is the member that the place had.
Task<Result<void>> ArrayBody::enter_target(std::uint32_t place, MemberSpec spec, SlotPlace newest, bool returned) {
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        await_columns(*shard, 0);
    }
    co_await resume_on(home);
    const auto guard = co_await control_.lock();
    if (read_only() || takes_writes(place)) {
        co_return fail(Errc::kRefused, member_subject(place) + " cannot be rebuilt now");
    }
    Superblock next = superblock_;
    const bool known = next.rebuild.active && members[place].device->target() == spec.device;  // RP4
    if (returned && (next.missed.members >> place & 1U) == 0) {
        co_return fail(Errc::kBusy,
                       "what " + member_subject(place) + " missed is not known any more; rebuild it again");
    }
    const Uuid uuid = known ? next.rebuild.uuid : env.random.uuid();
    next.members[place].uuid = returned ? uuid : next.members[place].uuid;  // CU5
    const IntervalSet kept = returned ? members[place].device->unreadable() : IntervalSet();
    next.rebuild = {};
    if (!returned && !active(TestSwitch::kMissedKept)) {  // ME6
        next.missed.members &= ~(1U << place);
        next.missed = next.missed.members == 0 ? MissedMarker() : next.missed;
    }
    mark_missing(next);
    if (!next.members[place].failed) {
        next.members[place].failed = true;
        next.members[place].last_incarnation = next.incarnation;
    }
    members[place].device->put(spec.device);
    for (auto range = kept.next(0); range; range = kept.next(range->second)) {
        static_cast<void>(members[place].device->add_unreadable(range->first, range->second - range->first));
    }
    members[place].newest = newest;
    members[place].stamp = returned ? members[place].stamp
                           : known  ? SuperblockStamp{target_epoch_, next.incarnation}
                                    : SuperblockStamp{};
    members[place].vacated = {};
    {
        const std::scoped_lock lock(status_mutex_);
        member_names_[place] = spec.name;
    }
    next.rebuild = {true, static_cast<std::uint16_t>(place), 0, uuid};
    members[place].tag.store(device_tag(uuid), std::memory_order_release);
    gather_unreadable(next);
    members[place].state.store(MemberState::kRebuilding, std::memory_order_release);
    const Result<void> r = co_await commit(std::move(next));
    if (r && !rebuilding(place)) {
        CO_TRY_VOID(check_answers(spec));  // it has been given up for its silence meanwhile
        co_return fail(Errc::kIo, member_subject(place) + " takes no superblock");
    }
    if (!r) {
        members[place].state.store(MemberState::kFailed, std::memory_order_release);
    } else if (!returned && !active(TestSwitch::kMissedKept)) {
        missed->forget(place);
    }
    co_return r;
}

/// RB7.
std::optional<std::uint32_t> ArrayBody::wants_spare() const {
    if (stopping() || read_only() || rebuild_job.running() || rebuild_job.cancelled() || !level.redundant) {
        return std::nullopt;
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (!takes_writes(m) && superblock_.members[m].failed) {
            return m;
        }
    }
    return std::nullopt;
}

Task<void> ArrayBody::use_spares() {
    co_await yield();  // after the change of the superblock that it was called in
    const auto turn = co_await rebuilds_.lock();
    while (!spares_.empty()) {
        {
            const auto settled = co_await control_.lock();
        }
        const auto place = wants_spare();
        if (!place) {
            break;
        }
        const MemberSpec spare = spares_.front();
        {
            const std::scoped_lock lock(status_mutex_);
            spares_.erase(spares_.begin());
        }
        const std::string lost = member_subject(*place);
        const Result<void> began = co_await begin_rebuild(*place, spare, Onto::kAny);
        if (began) {
            event(Severity::kWarning, "spare-used", lost, "spare " + spare.name + " takes its place");
            break;
        }
        event(Severity::kError, "spare-refused", "array " + name + " spare " + spare.name, began.error().message,
              "give the array another spare");
    }
}

// ---- the walk

bool ArrayBody::rebuild_goes_on(std::uint32_t place) const {
    return !stopping() && !read_only() && builds(place) && !rebuild_job.cancelled();
}

/// Stripes that are under way at once, and at most so many in a turn, after which the walk looks around.
struct RebuildTurn {
    std::uint64_t from = 0;      ///< local: where the next stripe is looked for
    std::uint64_t host_ios = 0;  ///< of the array, when it began
    std::uint64_t left = 0;      ///< stripes that it may still begin
    bool quiet = true;           ///< it ends when a host's I/O comes
    std::uint64_t done = 0;
    Duration busy{0};  ///< that the stripes took, added up
};

namespace {

/// RB9. How many stripes are under way at once beside hosts' I/O.
class RebuildPace {
  public:
    explicit RebuildPace(std::uint64_t most) : most_(most) {}
    [[nodiscard]] std::uint64_t lanes() const { return lanes_; }
    [[nodiscard]] std::uint64_t most() const { return most_; }
    void heed(const RebuildTurn& turn) {
        if (turn.done == 0) {
            return;
        }
        const Duration mean = turn.busy / static_cast<std::int64_t>(turn.done);
        best_ = best_ == Duration{0} ? mean : std::min(mean, best_ + best_ / 64);  // what was best once may be no more
        lanes_ = mean > best_ + best_ / 2 ? std::max<std::uint64_t>(1, lanes_ / 2) : std::min(most_, lanes_ + 1);
    }

  private:
    std::uint64_t most_;
    std::uint64_t lanes_ = 1;
    Duration best_{0};
};

}  // namespace

/// One stripe after another, as long as the turn lasts.
Task<Result<void>> ArrayBody::rebuild_lane(Shard& shard, std::uint32_t place, RebuildTurn& turn) {
    const std::uint64_t strip = geometry.strip_sectors;
    while (turn.left > 0 && rebuild_goes_on(place) && !(turn.quiet && host_ios() != turn.host_ios)) {
        const auto range = shard.unbuilt.next(turn.from);
        if (!range) {
            break;
        }
        const std::uint64_t column = round_down(range->first, strip);
        turn.from = column + strip;
        const std::uint64_t global = shard.global(column);
        // Of striped mirrors most columns are not on this member.
        if (level.parities() == 0 && (geometry.legs(Lba(global)) >> place & 1U) == 0) {
            built(shard, global, global + strip);
            continue;
        }
        --turn.left;
        const StripeIndex stripe(global / strip);
        const TimePoint began = env.clock.now();
        const Result<void> r = rebuilding(place) ? co_await level.rebuild_stripe(*this, shard, stripe, place)
                                                 : co_await replace_stripe(shard, stripe, place);
        if (!r) {
            turn.left = 0;
            co_return r;
        }
        ++turn.done;
        turn.busy += env.clock.now() - began;
    }
    co_return Result<void>{};
}

/// False if a stripe could not be done now.
Task<bool> ArrayBody::rebuild_turn(Shard& shard, std::uint32_t place, std::uint64_t lanes, RebuildTurn& turn) {
    MemberFan fan;
    for (std::uint64_t i = 0; i < lanes; ++i) {
        fan.start(i, rebuild_lane(shard, place, turn));
    }
    co_await fan.all();
    co_return !fan.failed();
}

namespace {
/// Runs the task there; ends here.
Task<Result<void>> run_on(Executor& there, Task<Result<void>> task) {
    Executor& here = Executor::current();
    co_await resume_on(there);
    Result<void> r = co_await std::move(task);
    co_await resume_on(here);
    co_return r;
}
}  // namespace

Task<bool> ArrayBody::rebuild_shard(Shard& shard, std::uint32_t place) {
    co_await resume_on(*shard.executor);
    const std::uint64_t total = shard.unbuilt.total();
    const std::uint64_t step = total / kCheckpoints / geometry.strip_sectors;  // of all shards alike
    std::uint64_t next_checkpoint = total / kCheckpoints;
    std::uint64_t from = 0;
    std::uint32_t failures = 0;
    RebuildPace pace(std::clamp<std::uint64_t>(kBatchBytes / (geometry.strip_sectors * kSectorBytes), 1, kMostLanes));
    bool hosts = false;
    MemberFan checkpoint;  // the walk goes on meanwhile
    std::uint64_t seen = host_ios();
    TimePoint calm{};  // without I/O of hosts until then there is none
    while (rebuild_goes_on(place) && !shard.unbuilt.empty() && failures < kRetries) {
        const TimePoint started = env.clock.now();
        const std::uint64_t before = shard.unbuilt.total();
        const std::uint64_t lanes = hosts ? pace.lanes() : pace.most();
        RebuildTurn turn{.from = from, .host_ios = host_ios(), .quiet = !hosts};
        turn.left = hosts || rebuild_job.limited() ? lanes : std::clamp(step, lanes, lanes * kQuietStripes);
        const bool done = co_await rebuild_turn(shard, place, lanes, turn);
        failures = done ? 0 : failures + 1;
        from = done && shard.unbuilt.next(turn.from) ? turn.from : 0;
        TimePoint due = rebuild_job.advance(before - shard.unbuilt.total());
        if (hosts) {
            pace.heed(turn);
        }
        if (const std::uint64_t ios = host_ios(); std::exchange(seen, ios) != ios) {
            calm = env.clock.now() + kCalm;
        }
        hosts = env.clock.now() < calm;
        if (!done) {
            due = std::max(due, env.clock.now() + kRetryAfter);
        } else if (hosts) {
            due = std::max(due, env.clock.now() + std::max(kShortRest, env.clock.now() - started));
        }
        if (shard.index == 0 && total - shard.unbuilt.total() >= next_checkpoint) {
            next_checkpoint += std::max<std::uint64_t>(1, total / kCheckpoints);
            co_await checkpoint.all();
            checkpoint.reset();  // whether it succeeded or not: the next one says the same
            checkpoint.start(0, run_on(home, checkpoint_rebuild()));
        }
        co_await yield();
        co_await rest_in_rebuild(place, due);
    }
    co_await checkpoint.all();
    const bool complete = shard.unbuilt.empty();
    co_await resume_on(home);
    co_return complete;
}

/// The columns that are not on the device, of all shards. True when all are.
Task<bool> ArrayBody::walk_shards(std::uint32_t place) {
    std::vector<Task<bool>> walks;
    for (const auto& shard : shards) {
        walks.push_back(rebuild_shard(*shard, place));
    }
    const std::vector<bool> walked = co_await when_all(std::move(walks));
    co_return std::ranges::all_of(walked, [](bool complete) { return complete; });
}

/// Until it is due, and not paused.
Task<void> ArrayBody::rest_in_rebuild(std::uint32_t place, TimePoint due) {
    while (rebuild_goes_on(place) && (rebuild_job.paused() || env.clock.now() < due)) {
        const Duration left = rebuild_job.paused() ? kPausePoll : due - env.clock.now();
        co_await sleep_for(env.clock, std::min(kPausePoll, left));
    }
}

/// A page of the checksum map, in the units of the job.
std::uint64_t ArrayBody::columns_of_page() const {
    return kSectorsPerBlock * geometry.columns() / geometry.member_sectors;
}

void ArrayBody::begin_job(JobKind kind, std::uint32_t place) {
    const std::uint64_t columns = geometry.columns();
    const double bytes = static_cast<double>(bytes_of(superblock_.members[place].sectors));
    const std::uint64_t map = checksums_ ? checksums_->layout().pages_on(place) * columns_of_page() : 0;
    const bool some = superblock_.catches_up();
    rebuild_job.set_kind(kind);
    rebuild_job.begin(place, (some ? unbuilt_columns_ : columns) + map, some ? 0 : superblock_.rebuild.cursor,
                      bytes / static_cast<double>(columns));
}

/// The next pages of a shard, from `page` on, that belong on the device. False if there are none any more.
Task<Result<bool>> ArrayBody::copy_map_pages(Shard& shard, std::uint32_t place, std::uint64_t& page) {
    co_await resume_on(*shard.executor);
    const TimePoint started = env.clock.now();
    const std::uint64_t ios = host_ios();
    const Result<Checksums::Copied> copied = co_await checksums_->copy_pages(shard, place, page);
    const bool beside_hosts = host_ios() != ios;
    co_await resume_on(home);
    CO_TRY_VOID(copied);
    page = copied->next;
    TimePoint due = rebuild_job.advance(copied->pages * columns_of_page());
    if (beside_hosts) {
        due = std::max(due, env.clock.now() + std::max(kShortRest, env.clock.now() - started));
    }
    co_await rest_in_rebuild(place, due);
    co_return page < checksums_->layout().pages();
}

/// The pages of the checksum map that have a copy on the device: what changes in them later goes there, too. A restart
/// begins anew with them.
Task<Result<void>> ArrayBody::copy_map(std::uint32_t place) {
    for (const auto& shard : shards) {
        std::uint64_t page = 0;
        std::uint32_t failures = 0;
        Result<bool> more = checksums_ != nullptr;
        while (!more || *more) {
            if (!rebuild_goes_on(place)) {
                co_return fail(Errc::kIo, "it was cut short");
            }
            more = co_await copy_map_pages(*shard, place, page);
            failures = more ? 0 : failures + 1;
            if (failures == kRetries) {
                co_return std::unexpected(std::move(more).error());
            }
            if (!more) {
                co_await rest_in_rebuild(place, env.clock.now() + kRetryAfter);
            }
        }
    }
    co_return Result<void>{};
}

/// All that the device of the place is to hold.
Task<Result<void>> ArrayBody::fill_place(std::uint32_t place) {
    Result<void> r = fail(Errc::kIo, "its stripes cannot be read, not even after some time");
    if (co_await walk_shards(place)) {
        r = co_await copy_map(place);
    }
    if (!r && rebuild_job.cancelled()) {
        r = fail(Errc::kAborted, "it was cancelled");
    }
    co_return r;
}

Task<void> ArrayBody::run_rebuild(std::uint32_t place, bool resumed) {
    begin_job(JobKind::kRebuild, place);
    const std::uint64_t percent = superblock_.rebuild.cursor * 100 / geometry.columns();
    const std::string bytes = std::to_string(rebuild_job.status().value_or(JobStatus()).total_bytes);
    event(Severity::kInfo, "rebuild-started", member_subject(place),
          superblock_.catches_up() ? "it came back and gets what it missed: " + bytes + " bytes"
          : resumed                ? "the rebuild of an earlier start goes on at " + std::to_string(percent) + " %"
                                   : "it gets what belongs to its place");
    Result<void> r = co_await fill_place(place);
    if (r) {
        r = co_await finish_rebuild(place);
    }
    if (r) {
        event(Severity::kInfo, "rebuild-ended", member_subject(place), "it is in sync");
        co_await settle_return();
        if (untrusted_columns() > 0) {
            start_resync("a member is back");
        }
    } else if (!stopping() && !read_only()) {
        const Result<void> failed = co_await fail_member(place, r.error());
        static_cast<void>(failed);  // read-only: it goes on at the next start
        event(Severity::kError, "rebuild-failed", member_subject(place), r.error().message,
              "rebuild onto this device again, or onto another one");
    }
    rebuild_job.end();
    gate_.spawn(fill_places());  // of the next one that is lost
}

// ---- what is durable of it

/// The lowest column that is not on the device.
Task<std::uint64_t> ArrayBody::built_below() {
    std::uint64_t cursor = geometry.columns();
    for (const auto& shard : shards) {
        co_await resume_on(*shard->executor);
        if (const auto range = shard->unbuilt.next(0)) {
            cursor = std::min(cursor, shard->global(range->first));
        }
    }
    co_await resume_on(home);
    co_return cursor;
}

/// RB4.
Task<Result<void>> ArrayBody::checkpoint_rebuild() {
    const auto guard = co_await control_.lock();
    const std::uint32_t place = superblock_.rebuild.place;
    if (!superblock_.rebuild.active || read_only() || !builds(place)) {
        co_return Result<void>{};
    }
    const std::uint64_t cursor = co_await built_below();
    const MemberDevice& there = *members[place].device;
    BlockDevice& device = replacing(place) ? *there.target() : *there.device();
    Result<void> flushed;
    const bool early =
        active(TestSwitch::kRebuildCursorEarly) || (active(TestSwitch::kReplaceNoFlush) && replacing(place));
    if (!early) {
        flushed = co_await device.flush();
    }
    if (!flushed) {
        co_return co_await lose_built_locked(place, Error(flushed.error().code, "flush failed"));
    }
    Superblock next = superblock_;
    next.rebuild.cursor = cursor;
    gather_unreadable(next);
    if (next.unreadable.size() > kMaxUnreadable) {
        co_return co_await lose_built_locked(
            place, Error(Errc::kNoSpace, "more blocks cannot be made up than there is room to list"));
    }
    co_return next == superblock_ ? Result<void>{} : co_await commit(std::move(next));
}

/// The device that is built in the place is of no use any more. REQUIRES: `control` held.
Task<Result<void>> ArrayBody::lose_built_locked(std::uint32_t place, Error why) {
    return replacing(place) ? end_replace(place, std::move(why)) : fail_locked(place, std::move(why));
}

Task<Result<void>> ArrayBody::lose_built(std::uint32_t place, Error why) {
    return under_control(
        [this, place, why = std::move(why)]() mutable { return lose_built_locked(place, std::move(why)); });
}

/// RB6.
Task<Result<void>> ArrayBody::finish_rebuild(std::uint32_t place) {
    CO_TRY_VOID(co_await checkpoint_rebuild());  // flushes what was written to it
    if (!active(TestSwitch::kRebuildNoLog)) {
        CO_TRY_VOID(co_await log_->copy_to(place));
    }
    const Result<void> r = co_await admit_rebuilt(place);
    log_->stop_copying();
    co_return r;
}

Task<Result<void>> ArrayBody::admit_rebuilt(std::uint32_t place) {
    const auto guard = co_await control_.lock();
    if (!rebuilding(place)) {
        co_return fail(Errc::kIo, "it failed");
    }
    Superblock next = superblock_;
    next.members[place].uuid = next.rebuild.uuid;
    next.members[place].failed = false;
    next.members[place].last_incarnation = next.incarnation;
    next.rebuild = {};
    CO_TRY_VOID(co_await commit(std::move(next)));
    if (!rebuilding(place)) {
        co_return fail(Errc::kIo, "it failed");
    }
    lost_set_.fetch_and(~(1U << place), std::memory_order_acq_rel);
    members[place].state.store(MemberState::kInSync, std::memory_order_release);
    if (redo_) {
        redo_->turn_off();
    }
    publish_status();
    co_return Result<void>{};
}

}  // namespace gemel::raid::detail
