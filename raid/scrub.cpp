// SPDX-License-Identifier: Apache-2.0
// The walk of a scrub: which stripes, in which order, how fast, and what is durable and reported of it. What happens in
// one stripe is the level's (LevelRow::scrub_stripe).
#include "raid/scrub.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"

namespace gemel::raid::detail {

using namespace job_pace;

namespace {
constexpr std::uint32_t kFewRetries = 2;  ///< of stripes behind some that were given up
constexpr std::size_t kBatchStripes = MemberFan::kSlots / 4;
constexpr std::uint64_t kCheckpoints = 64;  ///< of a whole scrub
constexpr Duration kCheckpointEvery = std::chrono::seconds(5);
constexpr std::uint64_t kNeighbours = 16;  ///< on either side of a hit
constexpr std::size_t kMostPieces = 256;   ///< of what goes first; beyond that it waits for its turn
constexpr std::uint32_t kMostEvents = 64;  ///< of mismatches, in one run
constexpr std::size_t kPlacesInEvent = 4;
}  // namespace

Scrub::Scrub(ArrayBody& array) : job(array.env.clock, JobKind::kScrub), array_(array), sides_(array.shards.size()) {}

std::optional<ScrubReport> Scrub::report() const {
    const std::scoped_lock lock(mutex_);
    return report_;
}

// ---- whether

/// Somewhere enough members are there to compare something.
bool Scrub::comparable() const {
    const Geometry& g = array_.geometry;
    if (!array_.level.redundant) {
        return array_.checksums() != nullptr;
    }
    if (g.parities() > 0) {
        return array_.lost_members() < g.parities();
    }
    const std::uint32_t lost = array_.lost_set();
    for (std::uint32_t i = 0; i < g.data_members(); ++i) {
        if (std::popcount(g.legs(Lba(i * g.strip_sectors)) & ~lost) > 1) {
            return true;
        }
    }
    return false;
}

bool Scrub::goes_on() const {
    return !array_.stopping() && !array_.read_only() && !job.cancelled();
}

/// SC9.
bool Scrub::held() const {
    return array_.resyncing() || !comparable();
}

Result<void> Scrub::may_start() const {
    const std::string array = "array " + array_.name;
    if (!array_.tracks) {
        return fail(Errc::kInvalidArgument, array + " of level " + std::string(array_.level.name) +
                                                " has neither redundancy nor checksums to compare with");
    }
    if (array_.read_only()) {
        return fail(Errc::kReadOnly, array + " is read-only");
    }
    if (job.running()) {
        return fail(Errc::kBusy, array + " is being scrubbed; wait for it, or cancel it");
    }
    if (array_.resyncing()) {
        return fail(Errc::kBusy,
                    array + " is being resynced, which makes the same right; scrub it when that has ended");
    }
    if (!comparable()) {
        return fail(Errc::kRefused,
                    array + " lacks so many members that nothing could be compared; rebuild them first");
    }
    return {};
}

// ---- the beginning

Task<Result<void>> Scrub::start(ScrubMode mode) {
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    Result<void> r = fail(Errc::kClosed, "array " + array_.name + " is stopping");
    if (!array_.stopping() && gate_.enter()) {
        r = co_await begin(mode);
        gate_.leave();
    }
    co_await resume_on(caller);
    co_return r;
}

Task<Result<void>> Scrub::begin(ScrubMode mode) {
    const auto turn = co_await begins_.lock();
    CO_TRY_VOID(may_start());
    const ScrubRecord record{true, mode == ScrubMode::kRepair, 0, 0};
    CO_TRY_VOID(co_await array_.update_superblock([record](Superblock& next) -> Result<void> {
        next.scrub = record;
        return {};
    }));
    if (!gate_.spawn(run(/*resumed=*/false))) {
        co_return fail(Errc::kClosed, "array " + array_.name + " is stopping");
    }
    co_return Result<void>{};
}

/// Without anything to compare with it waits for a start with checksums.
void Scrub::resume() {
    if (array_.superblock().scrub.active && array_.tracks && !active(TestSwitch::kScrubNotResumed)) {
        gate_.spawn(run(/*resumed=*/true));
    }
}

Task<void> Scrub::stop() {
    co_await gate_.close();
}

/// REQUIRES: no walk runs.
Task<void> Scrub::prepare_sides(std::uint64_t cursor) {
    const std::uint64_t group = array_.geometry.group_columns();
    const std::uint64_t end = array_.geometry.columns();
    const std::uint64_t from = round_down(cursor, array_.geometry.strip_sectors);
    for (const auto& shard : array_.shards) {
        co_await resume_on(*shard->executor);
        Side& side = sides_[shard->index];
        side = {};
        for (std::uint64_t at = shard->index * group; at < end; at += group * array_.shards.size()) {
            const std::uint64_t first = std::max(at, from);
            const std::uint64_t last = std::min(at + group, end);
            if (first < last) {
                side.left.add(shard->local(first), shard->local(first) + (last - first));
            }
        }
    }
    co_await resume_on(array_.home);
}

Task<void> Scrub::run(bool resumed) {
    const std::uint64_t columns = array_.geometry.columns();
    const ScrubRecord record = array_.superblock().scrub;
    mode_ = record.repair ? ScrubMode::kRepair : ScrubMode::kCheck;
    {
        const std::scoped_lock lock(mutex_);
        report_.emplace();
        report_->mode = mode_;
        report_->began_unix_ns = array_.env.clock.unix_ns();
        report_->begun_at_column = record.cursor;
        report_->mismatched_earlier = record.mismatched;
        events_ = 0;
    }
    last_checkpoint_ = array_.env.clock.now();
    job.begin(0, columns, record.cursor,
              static_cast<double>(bytes_of(array_.geometry.sectors())) / static_cast<double>(columns));
    co_await prepare_sides(record.cursor);
    array_.event(
        Severity::kInfo, "scrub-started", "array " + array_.name,
        resumed ? "the scrub of an earlier start goes on at " + std::to_string(record.cursor * 100 / columns) + " %"
                : "every stripe is compared with its " + yardstick() + (record.repair ? ", and made right" : ""));
    std::vector<Task<bool>> walks;
    for (const auto& shard : array_.shards) {
        walks.push_back(walk(*shard));
    }
    const std::vector<bool> walked = co_await when_all(std::move(walks));
    co_await finish(std::ranges::all_of(walked, [](bool complete) { return complete; }));
    job.end();
}

// ---- the walk

Task<bool> Scrub::walk(Shard& shard) {
    co_await resume_on(*shard.executor);
    Side& side = sides_[shard.index];
    const std::uint64_t part = side.left.total() / kCheckpoints + 1;
    std::uint64_t next_checkpoint = side.left.total() - std::min(part, side.left.total());
    std::uint32_t failures = 0;
    co_await rest(array_.env.clock.now());
    while (goes_on() && !side.left.empty()) {
        const TimePoint started = array_.env.clock.now();
        const std::uint64_t ios = array_.host_ios();
        const std::uint64_t before = side.left.total();
        const bool give_up = failures >= kRetries;
        const bool done = co_await batch(shard, give_up);
        failures = done ? 0 : give_up ? kRetries - kFewRetries : failures + 1;
        const TimePoint now = array_.env.clock.now();
        TimePoint due = job.advance(before - side.left.total());
        if (!done) {
            due = std::max(due, now + kRetryAfter);
        } else if (array_.host_ios() != ios) {
            due = std::max(due, now + std::max(kRest, now - started));
        }
        if (side.left.total() <= next_checkpoint) {
            next_checkpoint = side.left.total() - std::min(part, side.left.total());
            co_await resume_on(array_.home);
            if (array_.env.clock.now() - last_checkpoint_ >= kCheckpointEvery) {
                const Result<void> r = co_await checkpoint();
                static_cast<void>(r);  // the next one says the same
            }
            co_await resume_on(*shard.executor);
        }
        co_await yield();
        co_await rest(due);
    }
    const bool complete = side.left.empty();
    co_await resume_on(array_.home);
    co_return complete;
}

/// Until it is due, not paused, and not held.
Task<void> Scrub::rest(TimePoint due) {
    Clock& clock = array_.env.clock;
    while (goes_on() && (job.paused() || held() || clock.now() < due)) {
        job.set_waiting(held());
        const Duration left = job.paused() || held() ? kPausePoll : due - clock.now();
        co_await sleep_for(clock, std::min(kPausePoll, left));
    }
    job.set_waiting(false);
}

/// Local columns of the stripes to look at next: neighbours of what was found, then ascending.
Scrub::Columns Scrub::choose(Side& side, std::uint64_t strip, std::size_t most) {
    Columns out;
    const auto take = [&](std::uint64_t column) {
        if (std::ranges::find(out, column) == out.end()) {
            out.push_back(column);
        }
    };
    while (out.size() < most) {
        const auto range = side.first.next(0);
        if (!range) {
            break;
        }
        const std::uint64_t column = round_down(range->first, strip);
        side.first.remove(column, column + strip);
        if (side.left.intersects(column, column + strip)) {
            take(column);
        }
    }
    for (std::uint64_t from = 0; out.size() < most;) {
        const auto range = side.left.next(from);
        if (!range) {
            break;
        }
        const std::uint64_t column = round_down(range->first, strip);
        take(column);
        from = column + strip;
    }
    return out;
}

/// The next stripes of the shard; those that cannot be read for now are left, or given up. False if there are such.
Task<bool> Scrub::batch(Shard& shard, bool give_up) {
    const std::uint64_t strip = array_.geometry.strip_sectors;
    const std::uint64_t most = std::clamp<std::uint64_t>(kBatchBytes / (strip * kSectorBytes), 1, kBatchStripes);
    Side& side = sides_[shard.index];
    const Columns columns = choose(side, strip, most);
    std::array<StripeFindings, kBatchStripes> found;
    MemberFan fan;
    for (std::size_t i = 0; i < columns.size(); ++i) {
        const StripeIndex stripe(shard.global(columns[i]) / strip);
        fan.start(i, array_.level.scrub_stripe(array_, shard, stripe, mode_, found[i]));
    }
    co_await fan.all();
    for (std::size_t i = 0; i < columns.size(); ++i) {
        if (fan.failure(i)) {
            if (!give_up) {
                continue;
            }
            found[i] = {};
            found[i].counts.unchecked = strip / kSectorsPerBlock;
        }
        side.left.remove(columns[i], columns[i] + strip);
        note(found[i]);
        if (found[i].hit()) {
            co_await spread_hit(shard, shard.global(columns[i]));
        }
    }
    co_return !fan.failed();
}

// ---- neighbours first (SC8)

/// Those of the stripe at `column` that are this shard's.
void Scrub::add_neighbours(const Shard& shard, std::uint64_t column) {
    const std::uint64_t reach = kNeighbours * array_.geometry.strip_sectors;
    const std::uint64_t group = array_.geometry.group_columns();
    const std::uint64_t end = std::min(column + reach + array_.geometry.strip_sectors, array_.geometry.columns());
    Side& side = sides_[shard.index];
    for (std::uint64_t at = column - std::min(column, reach); at < end;) {
        const std::uint64_t next = std::min(round_down(at, group) + group, end);
        if (at / group % array_.shards.size() == shard.index && side.first.pieces() < kMostPieces) {
            side.first.add(shard.local(at), shard.local(at) + (next - at));
        }
        at = next;
    }
}

void Scrub::hit(const Shard& shard, std::uint64_t column) {
    if (job.running()) {
        add_neighbours(shard, round_down(column, array_.geometry.strip_sectors));
    }
}

/// Also of the shards that have the groups beside this one.
Task<void> Scrub::spread_hit(Shard& shard, std::uint64_t column) {
    add_neighbours(shard, column);
    const std::uint64_t in_group = column % array_.geometry.group_columns();
    const std::uint64_t reach = kNeighbours * array_.geometry.strip_sectors;
    const bool inside = in_group >= reach && in_group + reach < array_.geometry.group_columns();
    if (inside || array_.shards.size() == 1) {
        co_return;
    }
    for (const auto& other : array_.shards) {
        if (other->index != shard.index) {
            co_await resume_on(*other->executor);
            add_neighbours(*other, column);
        }
    }
    co_await resume_on(*shard.executor);
}

// ---- what is told of it

void Scrub::note(const StripeFindings& found) {
    if (found.counts.repaired + found.counts.rewritten > 0) {
        unflushed_.store(true);
    }
    std::uint32_t number = 0;
    {
        const std::scoped_lock lock(mutex_);
        report_->counts.add(found.counts);
        for (const ScrubFault& fault : found.faults) {
            if (fault.member) {
                report_->wrong_blocks[*fault.member] += fault.sectors.value / kSectorsPerBlock;
            }
            if (report_->faults.size() < kMostFaults) {
                report_->faults.push_back(fault);
            }
        }
        number = found.faults.empty() || events_ > kMostEvents ? 0 : ++events_;
    }
    if (number > kMostEvents) {
        array_.event(Severity::kWarning, "scrub-mismatch", "array " + array_.name,
                     "there are more mismatches, which are only counted", "look at the end of the scrub");
    } else if (number > 0) {
        tell(found);
    }
}

std::string Scrub::place_of(const ScrubFault& fault) const {
    std::string out = std::to_string(fault.sectors.value) + " sectors at sector " +
                      std::to_string(fault.member_lba.value) + " of " +
                      (fault.member ? "member " + std::to_string(*fault.member) : std::string("the members"));
    return out + (fault.lba ? ", sector " + std::to_string(fault.lba->value) + " of the array" : ", parity");
}

std::string Scrub::yardstick() const {
    return array_.level.redundant ? "redundancy" : "checksums";
}

std::string Scrub::advice() const {
    return array_.level.redundant ? "scrub with --repair to make them agree"
                                  : "write these blocks anew from another copy: the level has none";
}

/// One event for what was found in a stripe.
void Scrub::tell(const StripeFindings& found) {
    std::string places;
    for (std::size_t i = 0; i < found.faults.size() && i < kPlacesInEvent; ++i) {
        places += (places.empty() ? "" : "; ") + place_of(found.faults[i]);
    }
    if (found.faults.size() > kPlacesInEvent) {
        places += "; and " + std::to_string(found.faults.size() - kPlacesInEvent) + " more in this stripe";
    }
    const bool repaired = found.counts.repaired > 0;
    array_.event(
        Severity::kWarning, "scrub-mismatch", "array " + array_.name,
        "blocks contradict their " + yardstick() + ": " + places +
            (repaired ? "; made to agree" + std::string(found.faults.front().member ? "" : " with what reads return")
                      : ""),
        repaired ? "compare the data there with another copy" : advice());
}

void Scrub::report_end(ScrubReport::End end) {
    ScrubReport now;
    {
        const std::scoped_lock lock(mutex_);
        report_->end = end;
        report_->ended_unix_ns = array_.env.clock.unix_ns();
        now = *report_;
    }
    if (end == ScrubReport::End::kInterrupted) {
        return;  // it goes on
    }
    const ScrubCounts& c = now.counts;
    const auto say = [](std::uint64_t n, std::string_view what) {
        return ", " + std::to_string(n) + std::string(what);
    };
    std::string text = std::to_string(c.checked) + " blocks compared" + say(c.mismatched, " mismatched") +
                       say(c.repaired, " of them repaired") + say(c.rewritten, " rewritten that could not be read") +
                       say(c.unreadable, " unreadable");
    text += c.unchecked > 0 ? say(c.unchecked, " not comparable") : "";
    text += c.untrusted > 0 ? say(c.untrusted, " not trusted") : "";
    text += now.mismatched_earlier > 0 ? say(now.mismatched_earlier, " mismatched before the last start") : "";
    const bool good = c.mismatched + c.unreadable + now.mismatched_earlier == 0;
    const bool open = c.mismatched > c.repaired;
    array_.event(good ? Severity::kInfo : Severity::kWarning,
                 end == ScrubReport::End::kFinished ? "scrub-finished" : "scrub-cancelled", "array " + array_.name,
                 text, open ? advice() : "");
}

// ---- what is durable of it

/// The lowest column that was not looked at.
Task<std::uint64_t> Scrub::seen_below() {
    std::uint64_t cursor = array_.geometry.columns();
    for (const auto& shard : array_.shards) {
        co_await resume_on(*shard->executor);
        if (const auto range = sides_[shard->index].left.next(0)) {
            cursor = std::min(cursor, shard->global(range->first));
        }
    }
    co_await resume_on(array_.home);
    co_return cursor;
}

Task<Result<void>> Scrub::flush_written() {
    Result<void> r;
    const auto turn = co_await flushes_.lock();
    if (unflushed_.exchange(false)) {
        r = co_await array_.flush_with_map();
        if (!r) {
            unflushed_.store(true);
        }
    }
    co_return r;
}

/// SC6.
Task<Result<void>> Scrub::checkpoint() {
    last_checkpoint_ = array_.env.clock.now();
    std::uint64_t mismatched = 0;
    const std::uint64_t cursor = co_await seen_below();
    {
        const std::scoped_lock lock(mutex_);
        mismatched = report_->mismatched_earlier + report_->counts.mismatched;
    }
    CO_TRY_VOID(co_await flush_written());
    co_return co_await array_.update_superblock([cursor, mismatched](Superblock& next) -> Result<void> {
        next.scrub.cursor = cursor;
        next.scrub.mismatched = mismatched;
        return {};
    });
}

/// SC7.
Task<void> Scrub::finish(bool complete) {
    const bool over = complete || job.cancelled();
    Result<void> r;
    if (over) {
        r = co_await flush_written();
    } else {
        r = co_await checkpoint();
    }
    if (r && over) {
        r = co_await array_.update_superblock([](Superblock& next) -> Result<void> {
            next.scrub = {};
            return {};
        });
    }
    report_end(!r || !over ? ScrubReport::End::kInterrupted
               : complete  ? ScrubReport::End::kFinished
                           : ScrubReport::End::kCancelled);
}

}  // namespace gemel::raid::detail
