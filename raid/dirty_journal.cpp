// SPDX-License-Identifier: Apache-2.0
#include "raid/dirty_journal.hpp"

#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/durable_log.hpp"

namespace gemel::raid::detail {

namespace {

constexpr Duration kFullPoll = std::chrono::milliseconds(20);  ///< what held the room may have ended since
constexpr Duration kRetry = std::chrono::milliseconds(20);
constexpr std::uint64_t kMostMemberBytes = 2 * kGiB;  ///< listed for writes: some seconds of recovery
constexpr std::uint64_t kAheadBytes = kMiB;           ///< of data, listed beyond a sequential write
constexpr std::size_t kAheadShare = 16;               ///< and no more than this part of the room
/// A write cut at the groups, and a group ahead of it, must fit.
constexpr std::size_t kLeastStripes = kGroupStripes;
/// One page of the log: more go into the next record.
constexpr std::size_t kEntriesPerRecord = journal_entries_in(kLogPayloadBytes - kLogRecordHeaderBytes);
static_assert(kEntriesPerRecord >= 2 * kGroupStripes);

void count(std::atomic<std::uint64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void wake(Event& event) {
    event.set();
    event.reset();
}

}  // namespace

// Half of the largest record: the other half of the log's reserve is for what was queued before a checkpoint.
DirtyJournal::DirtyJournal(ArrayBody& array, RingLog& log, std::uint32_t stripes, std::uint64_t records,
                           std::uint64_t entries)
    : array_(array),
      log_(log),
      shape_(array.geometry),
      records_since_(records),
      most_records_(log.pages() / 4),
      names_untrusted_(array.untrusted_columns() > 0),
      named_(entries) {
    const std::size_t room = journal_entries_in(log.max_record_bytes() / 2);
    most_stripes_ = std::max<std::size_t>(kLeastStripes, stripes != 0 ? stripes : room / 2);
    most_stripes_ = std::min(most_stripes_, room);
    most_untrusted_ = room - most_stripes_;
    most_columns_ = std::max<std::uint64_t>(kMostMemberBytes / array.geometry.members / kBlockBytes,
                                            kLeastStripes * shape_.strip_blocks);
    for (std::size_t i = 0; i < array.shards.size(); ++i) {
        sides_.push_back(std::make_unique<Side>());
    }
    log.set_checkpoint(kLogClientJournal, array.home, [this] { return make_room_in_log(); });
}

// ---- the data path: on the shard

bool DirtyJournal::reserve(std::size_t stripes) {
    const std::size_t before = listed_.fetch_add(stripes, std::memory_order_relaxed);
    if (stripes > 0 && (before + stripes > most_stripes_ || columns_.load(std::memory_order_relaxed) > most_columns_)) {
        listed_.fetch_sub(stripes, std::memory_order_relaxed);
        return false;
    }
    return true;
}

/// A parity array without one of its members loses what it lists too much: nothing is listed that is not written.
DirtySet::Reach DirtyJournal::reach() const {
    const Geometry& g = array_.geometry;
    const std::uint64_t ahead = std::min(kAheadBytes / (g.row_sectors() * kSectorBytes), most_stripes_ / kAheadShare);
    return {shape_.whole(), ahead, kGroupStripes, g.stripes(), g.parities() > 0 && array_.lost_members() > 0};
}

bool DirtyJournal::try_begin(Shard& shard, const TouchedBlocks& write) {
    Side& side = side_of(shard);
    if (!side.set.hold_if_listed(write)) {
        return false;
    }
    count(side.hot);
    return true;
}

Task<Result<void>> DirtyJournal::begin(Shard& shard, TouchedBlocks write) {
    Side& side = side_of(shard);
    std::size_t room = side.set.missing(write);
    while (!side.dead && !reserve(room)) {
        count(side.waited);
        co_await resume_on(array_.home);
        room_wanted_ = true;
        start_relief();
        co_await resume_on(*shard.executor);
        room = side.set.missing(write);
        if (side.dead || reserve(room)) {
            break;
        }
        if (array_.read_only()) {
            co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only");
        }
        co_await side.changed.wait_until(array_.env.clock, array_.env.clock.now() + kFullPoll);
        room = side.set.missing(write);
    }
    if (side.dead) {
        co_return std::unexpected(*side.dead);
    }
    DirtySet::Reach how = reach();
    if (how.ahead > 0 && reserve(how.ahead)) {
        room += how.ahead;
    } else {
        how.ahead = 0;
    }
    const std::size_t stripes = side.set.size();
    const std::uint64_t columns = side.set.columns();
    Request request{shard.index, 0, {}};
    request.ticket = side.set.hold(write, how, request.entries);
    listed_.fetch_sub(room - (side.set.size() - stripes), std::memory_order_relaxed);
    columns_.fetch_add(side.set.columns() - columns, std::memory_order_relaxed);
    if (request.ticket != 0) {
        count(side.cold);
        start_detached(send(std::move(request)));
    }
    co_return Result<void>{};
}

bool DirtyJournal::listed(const Shard& shard, std::uint64_t first, std::uint64_t last) const {
    return side_of(shard).set.listed(first, last) || active(TestSwitch::kJournalWriteFirst);
}

Task<Result<void>> DirtyJournal::await_listed(Shard& shard, std::uint64_t first, std::uint64_t last) {
    Side& side = side_of(shard);
    while (!side.set.listed(first, last)) {
        if (side.dead) {
            co_return std::unexpected(*side.dead);
        }
        co_await side.changed.wait();
    }
    co_return Result<void>{};
}

void DirtyJournal::end(Shard& shard, const TouchedBlocks& write) {
    side_of(shard).set.release(write);
}

// ---- records: at home

Task<void> DirtyJournal::send(Request request) {
    co_await resume_on(array_.home);
    added_ += request.entries.size();
    named_.fetch_add(request.entries.size(), std::memory_order_relaxed);
    if (noting_ && !active(TestSwitch::kJournalNoLateAdds)) {
        for (const DirtyEntry& e : request.entries) {
            const auto [at, fresh] = late_.try_emplace(e.stripe, e.box);
            at->second = fresh ? e.box : at->second.joined(e.box);
        }
    }
    pending_.push_back(std::move(request));
    kick();
    if (crowded() || records_since_ >= most_records_ / 2) {
        start_relief();
    }
}

void DirtyJournal::kick() {
    if (!appending_ && !encoded_ && !pending_.empty() && records_since_ < most_records_) {
        appending_ = true;
        CHECK(gate_.spawn(append_requests()));  // writes wait for it: stop() comes after them
    }
}

/// One record at a time; the next takes what has come meanwhile.
Task<void> DirtyJournal::append_requests() {
    while (!pending_.empty() && !encoded_ && records_since_ < most_records_) {
        std::vector<DirtyEntry> entries;
        std::map<std::uint32_t, std::vector<Request>> taken;
        while (!pending_.empty() &&
               (entries.empty() || entries.size() + pending_.front().entries.size() <= kEntriesPerRecord)) {
            Request& r = pending_.front();
            entries.insert(entries.end(), r.entries.begin(), r.entries.end());
            taken[r.shard].push_back(std::move(r));
            pending_.pop_front();
        }
        const Result<void> done = co_await append_adding(std::move(entries));
        for (auto& [shard, requests] : taken) {
            gate_.spawn(deliver(std::move(requests), done ? std::nullopt : std::optional(done.error())));
        }
    }
    appending_ = false;
    if (records_since_ >= most_records_) {
        start_relief();
    }
}

/// A log that is full for the moment makes writes wait; any other error is for good (RL4).
Task<Result<void>> DirtyJournal::append_adding(std::vector<DirtyEntry> entries) {
    if (active(TestSwitch::kJournalShortBox)) {
        for (DirtyEntry& e : entries) {
            e.box.end = static_cast<std::uint16_t>(e.box.first + 1);
        }
    }
    std::ranges::for_each(entries, [this](DirtyEntry& e) { e.partial = array_.partial_parity(); });  // PP3
    const JournalRecord record{JournalKind::kAdd, 0, std::move(entries)};
    const std::vector<std::byte> bytes = encode(record);
    while (true) {
        const Result<std::uint64_t> r = co_await log_.append(kLogClientJournal, bytes);
        if (r) {
            count(records_);
            ++records_since_;
            if (array_.missed) {
                array_.missed->listed(record.entries);
            }
            co_return Result<void>{};
        }
        const bool passing = r.error().code == Errc::kNoSpace || r.error().code == Errc::kResources;
        if (!passing || array_.stopping() || array_.read_only()) {
            co_return std::unexpected(r.error());
        }
        co_await sleep_for(array_.env.clock, kRetry);
    }
}

/// Tells one shard what became of its requests.
Task<void> DirtyJournal::deliver(std::vector<Request> requests, std::optional<Error> error) {
    const Shard& shard = *array_.shards[requests.front().shard];
    co_await resume_on(*shard.executor);
    Side& side = side_of(shard);
    if (error) {
        side.dead = std::move(error);
    } else {
        for (const Request& r : requests) {
            side.set.recorded(r.entries, r.ticket);
        }
    }
    wake(side.changed);
    co_await resume_on(array_.home);
}

// ---- checkpoints: at home

std::uint64_t DirtyJournal::list_untrusted(const Shard& shard, const JournalShape& shape, std::size_t& left,
                                           std::vector<DirtyEntry>& out) {
    const std::uint64_t strip = shape.strip_columns();
    std::uint64_t at = 0;
    while (const auto range = shard.untrusted.next(at)) {
        if (range->first >= shard.walked) {
            break;
        }
        at = std::min({range->second, shard.walked, round_down(range->first, strip) + strip});
        const std::uint64_t column = shard.global(range->first);
        if (left == 0) {
            return column;
        }
        --left;
        out.push_back(shape.entry_of(column, column + (at - range->first)));
    }
    return shard.global(shard.walked);
}

/// Asks every shard in turn (J9): from then on what it dropped is not listed. Returns the cursor.
Task<std::uint64_t> DirtyJournal::gather(Sweep sweep, std::vector<DirtyEntry>& out) {
    std::uint64_t cursor = array_.geometry.columns();
    std::size_t left = most_untrusted_;
    for (const auto& shard : array_.shards) {
        co_await resume_on(*shard->executor);
        Side& side = side_of(*shard);
        const std::size_t stripes = side.set.size();
        const std::uint64_t columns = side.set.columns();
        side.set.sweep(sweep, out);
        listed_.fetch_sub(stripes - side.set.size(), std::memory_order_relaxed);
        columns_.fetch_sub(columns - side.set.columns(), std::memory_order_relaxed);
        if (!active(TestSwitch::kJournalForgetUntrusted)) {
            cursor = std::min(cursor, list_untrusted(*shard, shape_, left, out));
        }
        wake(side.changed);
    }
    co_await resume_on(array_.home);
    co_return cursor;
}

Task<Result<void>> DirtyJournal::checkpoint(Sweep sweep) {
    const auto turn = co_await checkpoints_.lock();
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only: its journal stays as it is");
    }
    noting_ = true;
    checkpointing_.store(true);
    const std::uint64_t added_before = added_;
    const bool stale = stale_.exchange(false);
    JournalRecord record{JournalKind::kCheckpoint, 0, {}};
    record.cursor = co_await gather(sweep, record.entries);
    const bool late = active(TestSwitch::kJournalLateFlush);
    const bool omits = sweep != Sweep::kNothing || stale || stale_.load();
    Result<void> r;
    if (omits && !late && !active(TestSwitch::kJournalNoFlush)) {
        r = active(TestSwitch::kMapLate) ? co_await array_.flush() : co_await array_.flush_with_map();
    }
    if (r) {
        r = co_await append_checkpoint(std::move(record), added_before);
    }
    if (late) {
        static_cast<void>(co_await array_.flush());
    }
    noting_ = false;
    late_.clear();
    checkpointing_.store(false);
    if (!r) {
        stale_.store(true);
    }
    co_return r;
}

Task<Result<void>> DirtyJournal::append_checkpoint(JournalRecord record, std::uint64_t added_before) {
    encoded_ = true;
    for (DirtyEntry& e : record.entries) {
        if (const auto at = late_.find(e.stripe); at != late_.end() && !e.untrusted) {
            e.box = e.box.joined(at->second);
            late_.erase(at);
        }
    }
    for (const auto& [stripe, box] : late_) {
        record.entries.push_back({stripe, box, false});
    }
    std::ranges::for_each(record.entries,
                          [this](DirtyEntry& e) { e.partial = !e.untrusted && array_.partial_parity(); });
    const auto for_writes = std::ranges::count(record.entries, false, &DirtyEntry::untrusted);
    const bool untrusted =
        std::cmp_not_equal(for_writes, record.entries.size()) || record.cursor < array_.geometry.columns();
    const Result<std::uint64_t> position = co_await log_.append(kLogClientJournal, encode(record));
    if (position) {
        log_.drop_before(kLogClientJournal, *position);
        named_.store(static_cast<std::uint64_t>(for_writes) + (added_ - added_before), std::memory_order_relaxed);
        if (array_.missed) {
            array_.missed->relisted(record);
        }
        count(checkpoints_written_);
        records_since_ = 0;
        names_untrusted_.store(untrusted, std::memory_order_relaxed);
        array_.note_untrusted_named();
    }
    encoded_ = false;
    kick();
    co_return position ? Result<void>{} : Result<void>(std::unexpected(position.error()));
}

bool DirtyJournal::crowded() const {
    return listed_.load() > most_stripes_ / 4 * 3 || columns_.load() > most_columns_ / 4 * 3;
}

void DirtyJournal::start_relief() {
    if (!relieving_) {
        relieving_ = true;
        if (!gate_.spawn(relieve())) {
            relieving_ = false;
        }
    }
}

Task<void> DirtyJournal::relieve() {
    do {
        const bool drop = std::exchange(room_wanted_, false) || crowded();
        const Result<void> r = co_await checkpoint(drop ? Sweep::kOlderHalf : Sweep::kNothing);
        if (!r && (array_.read_only() || array_.stopping())) {
            fail_pending(r.error());
        } else if (!r) {
            co_await sleep_for(array_.env.clock, kRetry);
        }
    } while (!pending_.empty() && records_since_ >= most_records_);
    relieving_ = false;
}

void DirtyJournal::fail_pending(const Error& error) {
    for (Request& r : pending_) {
        std::vector<Request> one;
        one.push_back(std::move(r));
        gate_.spawn(deliver(std::move(one), error));
    }
    pending_.clear();
}

Task<Result<void>> DirtyJournal::make_room_in_log() {
    const std::uint64_t before = checkpoints_written_.load();
    {
        const auto turn = co_await checkpoints_.lock();
        if (checkpoints_written_.load() != before) {
            co_return Result<void>{};
        }
    }
    co_return co_await checkpoint(Sweep::kNothing);
}

Task<void> DirtyJournal::stop() {
    co_await gate_.close();
}

void DirtyJournal::fill(JournalStatus& status) const {
    status.listed_stripes = listed_.load();
    status.named_stripes = named();
    status.records = records_.load();
    status.checkpoints = checkpoints_written_.load();
    status.checkpointing = checkpointing_.load();
    for (const auto& side : sides_) {
        status.hot_writes += side->hot.load(std::memory_order_relaxed);
        status.cold_writes += side->cold.load(std::memory_order_relaxed);
        status.waits_for_room += side->waited.load(std::memory_order_relaxed);
    }
}

}  // namespace gemel::raid::detail
