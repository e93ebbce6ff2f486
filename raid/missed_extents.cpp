// SPDX-License-Identifier: Apache-2.0
#include "raid/missed_extents.hpp"

#include <algorithm>
#include <utility>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/durable_log.hpp"

namespace gemel::raid::detail {

namespace {
/// Of what the log takes at once: its clients' checkpoints share that.
constexpr std::size_t kRecordShare = 4;
constexpr std::uint64_t kBaseShare = 8;  ///< of the log, with additions: then a new base
constexpr std::size_t kMostNews = 512;   ///< in one addition

constexpr std::uint32_t bit(std::uint32_t place) {
    return 1U << place;
}
}  // namespace

void SharedRegions::clear() {
    for (auto& word : words_) {
        word.store(0, std::memory_order_release);
    }
}

MissedExtents::MissedExtents(ArrayBody& array, RingLog& log)
    : array_(array),
      log_(log),
      journal_shape_(array.geometry),
      now_(make_regions(array.geometry)),
      set_(shape().regions()),
      named_(shape().regions()) {
    log.set_checkpoint(kLogClientMissed, array.home, [this] { return rebase(); });
}

MissedRegions* MissedExtents::make_regions(const Geometry& geometry) {
    const MissedShape shape = MissedShape::of(geometry, log_.max_record_bytes() / kRecordShare);
    sizes_.push_back(std::make_unique<MissedRegions>(shape));
    return sizes_.back().get();
}

/// What was named stays so; so is what is added, which nobody has made equal yet.
void MissedExtents::grow(const Geometry& grown) {
    blind_ = unsettled();
    clear();
    const MissedShape before = shape();
    const RegionSet named = std::exchange(named_, RegionSet());
    now_.store(make_regions(grown), std::memory_order_release);
    set_ = RegionSet(shape().regions());
    named_ = RegionSet(shape().regions());
    for (std::uint64_t r = 0; r < before.regions(); ++r) {
        if (named.contains(r)) {
            name(r * before.region, std::min((r + 1) * before.region, before.columns));
        }
    }
    name(before.columns, shape().columns);
}

// ---- what the journal names

void MissedExtents::name_in(RegionSet& set, std::uint64_t first_column, std::uint64_t end_column) const {
    const std::uint64_t region = shape().region;
    for (std::uint64_t r = first_column / region; r * region < end_column; ++r) {
        set.add(r);
    }
}

void MissedExtents::name(std::uint64_t first_column, std::uint64_t end_column) {
    name_in(named_, first_column, end_column);
}

void MissedExtents::name(const DirtyEntry& entry) {
    journal_shape_.each_range(entry, [this](std::uint64_t first, std::uint64_t end) { name(first, end); });
}

void MissedExtents::listed(std::span<const DirtyEntry> entries) {
    for (const DirtyEntry& e : entries) {
        name(e);
    }
}

void MissedExtents::relisted(const JournalRecord& checkpoint) {
    named_.clear();
    name(checkpoint.cursor, shape().columns);
    listed(checkpoint.entries);
}

/// ME2.
void MissedExtents::take_named() {
    if (active(TestSwitch::kMissedInFlight)) {
        return;
    }
    for (const auto& size : sizes_) {
        const MissedShape& of = size->shape;
        for (std::uint64_t r = 0; r < of.regions(); ++r) {
            if (size->repaired.contains(r)) {
                name_in(set_, r * of.region, std::min((r + 1) * of.region, of.columns));
            }
        }
    }
    set_.add(named_);
    if (all_named_) {
        name_in(set_, 0, shape().columns);
    }
}

void MissedExtents::note_repair(std::uint64_t first_column, std::uint64_t end_column) {
    MissedRegions& regions = now();
    for (std::uint64_t r = first_column / regions.shape.region; r * regions.shape.region < end_column; ++r) {
        regions.repaired.add(r);
    }
}

// ---- a start

/// It took superblocks until the end of the assembly before. After a clean stop it has the last one.
LostMember MissedExtents::absent(std::uint32_t place) const {
    const Superblock& sb = array_.superblock();
    const SuperblockStamp newest{sb.epoch, sb.incarnation};
    const SuperblockStamp before{sb.epoch - (array_.clean_start || sb.epoch == 0 ? 0 : 1), sb.incarnation};
    return {static_cast<std::uint16_t>(place), sb.members[place].uuid, before, newest};
}

std::optional<MissedState> MissedExtents::recover() const {
    const Superblock& sb = array_.superblock();
    if (sb.missed.episode == 0) {
        return std::nullopt;
    }
    const Result<std::vector<LogRecord>> records = log_.recovered(kLogClientMissed);
    Result<std::optional<MissedState>> state = fail(Errc::kCorrupt, "the durable log was lost");
    if (records) {
        state = recover_missed(*records, sb.missed.episode, shape());
    }
    if (!state) {
        array_.event(Severity::kWarning, "missed-extents-lost", "array " + array_.name,
                     "what its lost members missed is not known any more: " + state.error().message,
                     "they are rebuilt whole when they come back");
        return std::nullopt;
    }
    return *std::move(state);
}

MissedMarker MissedExtents::begin(const Assembly& assembly, std::uint64_t cursor, std::span<const ColumnRange> ranges,
                                  bool replays) {
    name(cursor, shape().columns);
    for (const ColumnRange& r : ranges) {
        name(r.first, r.end);
    }
    const Superblock& sb = array_.superblock();
    const std::optional<MissedState> state = assembly.forced ? std::nullopt : recover();
    for (const LostMember& m : state ? state->members : std::vector<LostMember>{}) {
        // One that is, or was, on its way back took superblocks until the end.
        const bool on_its_way = sb.catches_up() && sb.rebuild.place == m.place;
        const bool counts = m.place < sb.members.size() && sb.members[m.place].failed &&
                            (on_its_way || sb.members[m.place].uuid == m.uuid) &&
                            (sb.missed.members & bit(m.place)) != 0;
        if (counts) {
            // Unless that had not reached it yet.
            const bool renewed = on_its_way && !m.is(m.uuid, assembly.stamps[m.place]);
            track(renewed ? absent(m.place) : m);
            base_wanted_ = base_wanted_ || renewed;
            known_.fetch_or(renewed ? 0 : bit(m.place));
        }
    }
    if (tracked() != 0) {
        episode_ = sb.missed.episode;
        set_.add(state->set);
        for (std::uint64_t r = 0; r < shape().regions(); ++r) {
            if (set_.contains(r)) {
                publish(r);
            }
        }
        log_.drop_before(kLogClientMissed, state->base);
    }
    if (const auto old = log_.recovered(kLogClientMissed); old && !old->empty()) {
        newest_position_ = old->back().position;
        if (tracked() == 0) {
            log_.drop_before(kLogClientMissed, newest_position_ + 1);
        }
    }
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        blind_ = blind_ || (sb.members[m].failed && (tracked() & bit(m)) == 0) || assembly.forced;
    }
    // Writes are logged without being named only while a member is tracked, or where nothing is named (name_all).
    blind_ = blind_ || (replays && tracked() == 0);
    const MissedMarker out{tracked() == 0 ? 0 : episode_, tracked()};
    for (std::uint32_t m = 0; m < array_.geometry.members && !blind_; ++m) {
        if (!array_.in_sync(m) && !sb.members[m].failed) {
            track(absent(m));
            take_named();
        }
    }
    return out;
}

void MissedExtents::track(const LostMember& member) {
    lost_[member.place] = member;
    tracked_.fetch_or(bit(member.place), std::memory_order_acq_rel);
}

// ---- members that are lost

std::uint64_t MissedExtents::episode() {
    episode_ = episode_ != 0 ? episode_ : array_.env.random.next() | 1U;
    return episode_;
}

void MissedExtents::lose(std::uint32_t place, Superblock& next) {
    ++losses_;
    const bool before = (tracked() & bit(place)) != 0;
    if (!before && (blind_ || (all_named_ && tracked() == 0))) {
        blind_ = true;
        return;
    }
    take_named();
    known_.fetch_and(~bit(place));
    track({static_cast<std::uint16_t>(place),
           next.members[place].uuid,
           array_.members[place].stamp,
           {next.epoch, next.incarnation}});
    next.missed.episode = episode();
    next.missed.members |= bit(place);
    due_ = true;
}

void MissedExtents::lose_missing(std::uint32_t place, Superblock& next) {
    if ((tracked() & bit(place)) != 0) {
        next.missed.episode = episode();
        next.missed.members |= bit(place);
    }
}

void MissedExtents::failure_recorded(bool marked) {
    if (tracked() != 0 && (marked || due_)) {
        due_ = false;
        base_wanted_ = true;
        kick();
    }
}

void MissedExtents::forget(std::uint32_t place) {
    lost_.erase(place);
    known_.fetch_and(~bit(place));
    blind_ = true;
    if ((tracked_.fetch_and(~bit(place), std::memory_order_acq_rel) & ~bit(place)) == 0) {
        clear();
    }
}

void MissedExtents::settle() {
    const std::uint32_t lost = array_.lost_set();
    std::erase_if(lost_, [lost](const auto& m) { return (lost >> m.first & 1U) == 0; });
    tracked_.fetch_and(lost, std::memory_order_acq_rel);
    known_.fetch_and(lost);
    if (lost == 0) {
        blind_ = false;
    }
    if (tracked() == 0) {
        clear();
    }
}

void MissedExtents::clear() {
    tracked_.store(0, std::memory_order_release);
    known_.store(0);
    episode_ = 0;
    set_.clear();
    now().durable.clear();
    durable_regions_.store(0);
    lost_.clear();
    news_.clear();
    base_wanted_ = false;
    log_.drop_before(kLogClientMissed, newest_position_ + 1);
    changed_.set();
    changed_.reset();
}

Task<bool> MissedExtents::knows(std::uint32_t place, Uuid device, SuperblockStamp newest) {
    while ((tracked() & bit(place)) != 0 && (known_.load() & bit(place)) == 0 && running_) {
        co_await changed_.wait();
    }
    const auto at = lost_.find(place);
    co_return at != lost_.end() && (known_.load() & bit(place)) != 0 && at->second.is(device, newest);
}

std::optional<std::uint64_t> MissedExtents::missed_bytes(std::uint32_t place) const {
    if ((known_.load() & bit(place)) == 0) {
        return std::nullopt;
    }
    const Geometry& g = array_.geometry;
    const std::uint64_t columns = std::min(durable_regions_.load() * shape().region, shape().columns);
    return columns / (g.columns() / g.member_sectors) * kSectorBytes;
}

// ---- the data path

bool MissedExtents::recorded(std::uint64_t first_column, std::uint64_t end_column) const {
    if (tracked() == 0) {
        return true;
    }
    const MissedRegions& regions = now();
    for (std::uint64_t r = first_column / regions.shape.region; r * regions.shape.region < end_column; ++r) {
        if (!regions.durable.contains(r)) {
            return false;
        }
    }
    return true;
}

Task<Result<void>> MissedExtents::record(std::uint64_t first_column, std::uint64_t end_column) {
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    Result<void> r;
    if (active(TestSwitch::kMissedLate)) {
        auto later = [](MissedExtents& self, std::uint64_t first, std::uint64_t end) -> Task<void> {
            static_cast<void>(co_await self.ask(first, end));
        };
        gate_.spawn(later(*this, first_column, end_column));
    } else {
        r = co_await ask(first_column, end_column);
    }
    co_await resume_on(caller);
    co_return r;
}

/// Until the regions are durable, or nobody is tracked any more.
Task<Result<void>> MissedExtents::ask(std::uint64_t first_column, std::uint64_t end_column) {
    while (!recorded(first_column, end_column)) {
        if (dead_) {
            co_return std::unexpected(*dead_);
        }
        const std::uint64_t region = shape().region;
        for (std::uint64_t r = first_column / region; r * region < end_column; ++r) {
            if (!set_.contains(r)) {
                set_.add(r);
                news_.push_back(static_cast<std::uint32_t>(r));
            }
        }
        if (!running_ && news_.empty()) {
            base_wanted_ = true;  // it is in the set, and no record of that is on its way
        }
        kick();
        if (running_) {  // else it has ended at once
            co_await changed_.wait();
        }
    }
    co_return Result<void>{};
}

// ---- records

void MissedExtents::kick() {
    if (!running_ && !dead_) {
        running_ = true;
        if (!gate_.spawn(append_all())) {
            running_ = false;
            dead_ = Error(Errc::kClosed, "array " + array_.name + " is stopping");
        }
    }
}

/// One record at a time; the next takes what has come meanwhile.
Task<void> MissedExtents::append_all() {
    while (tracked() != 0 && !dead_ && (base_wanted_ || !news_.empty())) {
        const MissedRecord record = next_record();
        const Result<std::uint64_t> at = co_await log_.append(kLogClientMissed, encode(record));
        if (at) {
            landed(record, *at);
        } else {
            co_await give_up(at.error());
        }
        changed_.set();
        changed_.reset();
    }
    running_ = false;
    changed_.set();
    changed_.reset();
}

MissedRecord MissedExtents::next_record() {
    MissedRecord out{MissedKind::kAdd, episode(), shape(), {}, {}, {}};
    if (base_wanted_ || adds_since_ >= log_.pages() / kBaseShare) {
        base_wanted_ = false;
        news_.clear();
        out.kind = MissedKind::kBase;
        out.set = set_;
        for (const auto& [place, member] : lost_) {
            out.members.push_back(member);
        }
        return out;
    }
    const std::size_t n = std::min(news_.size(), kMostNews);
    out.regions.assign(news_.begin(), news_.begin() + static_cast<std::ptrdiff_t>(n));
    news_.erase(news_.begin(), news_.begin() + static_cast<std::ptrdiff_t>(n));
    std::ranges::sort(out.regions);
    return out;
}

void MissedExtents::publish(std::uint64_t region) {
    if (!now().durable.contains(region)) {
        now().durable.add(region);
        durable_regions_.fetch_add(1);
    }
}

void MissedExtents::landed(const MissedRecord& record, std::uint64_t position) {
    newest_position_ = std::max(newest_position_, position);
    if (record.episode != episode_) {
        log_.drop_before(kLogClientMissed, position + 1);  // all came back meanwhile
        return;
    }
    for (const std::uint32_t r : record.regions) {
        publish(r);
    }
    ++adds_since_;
    if (record.kind != MissedKind::kBase) {
        return;
    }
    adds_since_ = 0;
    ++bases_;
    log_.drop_before(kLogClientMissed, position);
    for (std::uint64_t r = 0; r < shape().regions(); ++r) {
        if (record.set.contains(r)) {
            publish(r);
        }
    }
    for (const LostMember& m : record.members) {
        const auto at = lost_.find(m.place);
        known_.fetch_or(at != lost_.end() && at->second == m ? bit(m.place) : 0);
    }
}

/// ME5.
Task<void> MissedExtents::give_up(Error why) {
    if (array_.stopping() || array_.read_only()) {
        dead_ = std::move(why);
        co_return;
    }
    Result<void> r;
    std::uint64_t losses = 0;
    do {
        losses = losses_;
        r = co_await array_.update_superblock([](Superblock& next) -> Result<void> {
            next.missed = {};
            return {};
        });
    } while (r && losses != losses_);
    if (!r) {
        dead_ = r.error();
        co_return;
    }
    array_.event(Severity::kWarning, "missed-extents-lost", "array " + array_.name,
                 "what its lost members miss cannot be recorded: " + why.message,
                 "they are rebuilt whole when they come back");
    blind_ = true;
    clear();
}

/// The log is running full.
Task<Result<void>> MissedExtents::rebase() {
    const std::uint64_t before = bases_;
    if (tracked() == 0) {
        co_return Result<void>{};
    }
    base_wanted_ = true;
    kick();
    while (running_ && bases_ == before) {
        co_await changed_.wait();
    }
    co_return Result<void>{};
}

Task<void> MissedExtents::stop() {
    co_await gate_.close();
}

}  // namespace gemel::raid::detail
