// SPDX-License-Identifier: Apache-2.0
#include "raid/redo_log.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_record.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {

constexpr Duration kPoll = std::chrono::milliseconds(1);
constexpr Duration kRetry = std::chrono::milliseconds(20);

RedoRecord record_of(StripeIndex stripe, const MemberWrites& writes, std::uint32_t seed) {
    RedoRecord record{stripe, {}, seed, {}};
    for (const MemberWrite& w : writes) {
        if (!w.absent && !w.from.empty()) {
            record.parts.push_back({w.member, w.tag, w.lba, w.from.data()});
        }
    }
    return record;
}

}  // namespace

MemberWrites cut(const MemberWrites& writes, std::uint64_t first, std::uint64_t end) {
    MemberWrites out;
    for (const MemberWrite& w : writes) {
        const std::uint64_t from = std::max(first, w.lba.value);
        const std::uint64_t to = std::min(end, w.lba.value + w.sectors.value);
        if (from >= to) {
            continue;
        }
        const std::size_t bytes = (to - from) * kSectorBytes;
        const Slice part = w.from.empty() ? Slice{} : w.from.sub((from - w.lba.value) * kSectorBytes, bytes);
        out.push_back({w.member, w.tag, Lba(from), SectorCount(to - from), part, w.absent});
    }
    return out;
}

Task<bool> enter_redo(const ArrayBody& array) {
    co_return array.redo() != nullptr && !array.redo()->off() && co_await array.redo()->enter();
}

RedoLog::RedoLog(ArrayBody& array, RingLog& log, RecoveryPolicy policy)
    : array_(array),
      log_(log),
      always_(policy == RecoveryPolicy::kRedo),
      partial_(policy == RecoveryPolicy::kPartial),
      state_(always_ || array.lost_members() > 0 ? State::kOn : State::kOff),
      seeds_(static_cast<std::uint32_t>(array.env.random.next())),
      unflushed_(array.shards.size()),
      dropped_below_(array.replayed_below()) {
    log.set_checkpoint(kLogClientRedo, array.home, [this] { return make_room(); });
}

bool RedoLog::fits(const RingLog& log, std::uint32_t members) {
    return log.max_record_bytes() >= redo_record_bytes(members, kBlockBytes);
}

// ---- the data path

bool RedoLog::begin() {
    covered_.fetch_add(1);
    if (state_.load() == State::kOn) {
        return true;
    }
    covered_.fetch_sub(1);
    return false;
}

Task<bool> RedoLog::enter() {
    while (true) {
        logging_.fetch_add(1);
        const State state = state_.load();
        if (state == State::kOn || state == State::kLeaving) {
            co_return true;
        }
        logging_.fetch_sub(1);
        if (state == State::kOff) {
            co_return false;
        }
        co_await await_change();
    }
}

Task<void> RedoLog::await_change() {
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    if (state_.load() == State::kClosing) {
        co_await changed_.wait();
    }
    co_await resume_on(caller);
}

Task<Result<void>> RedoLog::write(Shard& shard, StripeIndex stripe, MemberWrites writes, WriteOptions options) {
    const Result<void> r = co_await write_pieces(shard, stripe, writes, options);
    logging_.fetch_sub(1);
    co_return r;
}

Task<Result<void>> RedoLog::write_after_checkpoint(Shard& shard, StripeIndex stripe, MemberWrites writes,
                                                   WriteOptions options) {
    Result<void> r = co_await name_untrusted();
    if (r) {
        r = co_await write_pieces(shard, stripe, writes, options);
    }
    logging_.fetch_sub(1);
    co_return r;
}

Task<Result<void>> RedoLog::name_untrusted() {
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    const Result<void> r = co_await array_.journal()->checkpoint(Sweep::kNothing);
    co_await resume_on(caller);
    co_return r;
}

Task<Result<void>> RedoLog::write_for_good(Shard& shard, StripeIndex stripe, const MemberWrites& piece,
                                           WriteOptions options) {
    Result<void> r = co_await write_members(array_, shard, stripe, piece, options);
    if (!r) {
        array_.turn_read_only("a write that was logged could not be done: " + r.error().message);
    }
    co_return r;
}

/// An error of the log or of the map comes before its piece changes a member: that one is as it was.
Task<Result<void>> RedoLog::write_pieces(Shard& shard, StripeIndex stripe, const MemberWrites& writes,
                                         WriteOptions options) {
    const WrittenColumns all = columns_of(writes);
    CO_TRY_VOID(co_await settle_partial(shard, all));
    if (all.first < all.end && !array_.in_missed(all.first, all.end)) {  // ME1: before the record, after enter()
        CO_TRY_VOID(co_await array_.await_missed(all.first, all.end));
    }
    CO_TRY_VOID(co_await array_.prepare_map(all.first, std::max(all.first, all.end)));
    const auto members = static_cast<std::size_t>(std::popcount(all.members));
    const std::size_t room = redo_bytes_in(log_.max_record_bytes(), writes.size());
    const std::uint64_t step =
        std::max<std::uint64_t>(1, room / (std::max<std::size_t>(1, members) * kBlockBytes)) * kSectorsPerBlock;
    for (std::uint64_t at = round_down(all.first, kSectorsPerBlock); at < all.end; at += step) {
        const MemberWrites piece = cut(writes, at, at + step);
        const RedoRecord record = record_of(stripe, piece, seeds_.fetch_add(1));
        const bool early = record.parts.empty() || active(TestSwitch::kRedoWriteFirst);
        if (early) {
            CO_TRY_VOID(co_await write_for_good(shard, stripe, piece, options));
        }
        if (record.parts.empty()) {
            continue;
        }
        std::vector<std::byte> bytes = encode(record);
        records_.fetch_add(1, std::memory_order_relaxed);
        bytes_.fetch_add(bytes.size(), std::memory_order_relaxed);
        CO_TRY(Entry* const entry, co_await append(std::move(bytes)));
        if (!early) {
            CO_TRY_VOID(co_await write_for_good(shard, stripe, piece, options));
        }
        entry->done.store(flushes_.load());
    }
    co_return Result<void>{};
}

void RedoLog::flush_ended(std::uint64_t mark) {
    std::uint64_t before = flushed_.load();
    while (before < mark && !flushed_.compare_exchange_weak(before, mark)) {
    }
}

// ---- the log: at home

/// RD7: a log that is full for the moment makes writes wait; any other error is for good (RL4).
Task<Result<RedoLog::Entry*>> RedoLog::append(std::vector<std::byte> record) {
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    Result<Entry*> out = fail(Errc::kReadOnly, "array " + array_.name + " is read-only, or stopping");
    while (!array_.read_only()) {
        drop_covered();
        const auto entry = entries_.emplace(entries_.end());  // in the order in which the log takes them
        const Result<std::uint64_t> r = co_await log_.append(kLogClientRedo, record);
        if (r) {
            entry->position = *r;
            out = &*entry;
            break;
        }
        entries_.erase(entry);
        if (r.error().code != Errc::kNoSpace && r.error().code != Errc::kResources) {
            out = std::unexpected(r.error());
            break;
        }
        if (array_.stopping()) {  // what had begun before is done as long as the log has room
            break;
        }
        co_await sleep_for(array_.env.clock, kRetry);
    }
    co_await resume_on(caller);
    co_return out;
}

/// RD4.
void RedoLog::drop_covered() {
    const std::uint64_t flushed = active(TestSwitch::kRedoNoFlush) ? kNever : flushed_.load();
    const std::uint64_t before = dropped_below_;
    while (!entries_.empty() && entries_.front().done.load() < flushed) {
        dropped_below_ = entries_.front().position + 1;
        entries_.pop_front();
    }
    if (dropped_below_ != before) {
        log_.drop_before(kLogClientRedo, dropped_below_);
    }
}

std::uint64_t RedoLog::done_below() const {
    std::uint64_t below = dropped_below_;
    for (const Entry& e : entries_) {
        if (e.done.load() == kNever) {
            return below;
        }
        below = e.position + 1;
    }
    return below;
}

Task<Result<void>> RedoLog::make_room() {
    if (!co_await array_.await_untrusted_named()) {  // what was there for the start goes with that
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only, or stopping");
    }
    drop_covered();
    if (!entries_.empty() && entries_.front().done.load() != kNever) {
        CO_TRY_VOID(co_await array_.flush_with_map());
        drop_covered();
    }
    co_return Result<void>{};
}

// ---- on and off: at home

void RedoLog::change(State to) {
    state_.store(to);
    changed_.set();
    changed_.reset();
}

void RedoLog::turn_on() {
    if (!on()) {
        ++turns_;
        change(State::kOn);
        gate_.spawn(let_go());
    }
}

/// What the journal lists is what a crash now could make unknown: it lists less and less, as nothing is added.
Task<void> RedoLog::let_go() {
    co_await yield();  // after the change of the superblock that it was called in
    while (on() && !array_.stopping() && !array_.read_only() && array_.journal()->named() > 0) {
        const Result<void> r = co_await array_.journal()->checkpoint(Sweep::kAllUnused);
        co_await sleep_for(array_.env.clock, r && array_.journal()->named() > 0 ? kPoll : kRetry);
    }
}

void RedoLog::turn_off() {
    if (!always_ && on() && array_.lost_members() == 0) {
        change(State::kLeaving);
        gate_.spawn(leave(++turns_));
    }
}

/// False when it was turned on or off meanwhile, or the array stops.
Task<bool> RedoLog::wait_for_none(const std::atomic<std::uint64_t>& counter, std::uint64_t turn) const {
    while (turns_ == turn && !array_.stopping() && counter.load() != 0) {
        co_await sleep_for(array_.env.clock, kPoll);
    }
    co_return turns_ == turn && !array_.stopping();
}

/// RD3. Where that does not work writes go on being listed and logged: what is listed a lost member may lack (ME2).
Task<void> RedoLog::leave(std::uint64_t turn) {
    bool over = !co_await wait_for_none(covered_, turn) || !co_await array_.await_untrusted_named() || turns_ != turn;
    while (!over) {
        change(State::kClosing);
        Result<void> r = fail(Errc::kAborted);
        if (co_await wait_for_none(logging_, turn)) {
            r = co_await array_.void_redo(done_below());
        }
        if (turns_ != turn) {
            co_return;
        }
        change(r ? State::kOff : State::kLeaving);
        over = r || array_.stopping() || array_.read_only();
        if (!over) {
            co_await sleep_for(array_.env.clock, kRetry);
            over = turns_ != turn;
        }
    }
}

Task<void> RedoLog::await_listed() const {
    while (!on() && !array_.stopping() && covered_.load() != 0) {
        co_await sleep_for(array_.env.clock, kPoll);
    }
}

Task<void> RedoLog::stop() {
    co_await gate_.close();
}

void RedoLog::fill(JournalStatus& status) const {
    status.redo = on();
    status.redo_records = records_.load(std::memory_order_relaxed);
    status.redo_bytes = bytes_.load(std::memory_order_relaxed);
    status.partial_records = partial_records_.load(std::memory_order_relaxed);
}

// ---- the start

namespace {
template <class Record>
Result<void> checked(const Result<Record>& record) {
    return record ? Result<void>{} : Result<void>(std::unexpected(record.error()));
}
}  // namespace

/// Records that are not void. False when there are some that cannot be understood.
bool ArrayBody::gather_redo(std::vector<LogRecord>& out) {
    out = log_->take_recovered(kLogClientRedo);
    log_->drop_before(kLogClientRedo, superblock_.redo_from);
    std::erase_if(out, [&](const LogRecord& r) { return r.position < superblock_.redo_from; });
    if (active(TestSwitch::kRedoSkipNewest) && !out.empty()) {
        out.pop_back();
    }
    for (const LogRecord& r : out) {
        const Result<void> known = is_partial_record(r.bytes) ? checked(decode_partial_record(r.bytes, geometry))
                                                              : checked(decode_redo_record(r.bytes, geometry));
        if (!known) {
            event(Severity::kError, "redo-damaged", "array " + name,
                  "the redo log cannot be read: " + known.error().message, "everything is resynced; check the members");
            out.clear();
            return false;
        }
    }
    return true;
}

/// The checksum map hears of what is done again: it is opened by a superblock of this start, which says as much, or as
/// little, as the one before.
Task<Result<void>> ArrayBody::begin_replay(std::uint64_t log_generation, const Assembly& assembly) {
    CO_TRY_VOID(co_await update_superblock([&](Superblock& next) -> Result<void> {
        next.log_generation = log_generation;
        choose_map(next, assembly);
        return {};
    }));
    if (superblock_.area(AreaKind::kChecksums).version != 0) {
        open_map();
    }
    co_return Result<void>{};
}

/// REQUIRES: it decodes.
Task<Result<void>> ArrayBody::replay_record(ConstBytes bytes) {
    CO_TRY(const RedoRecord record, decode_redo_record(bytes, geometry));
    MemberWrites writes;
    std::vector<Buffer> buffers;
    for (const RedoPart& p : record.parts) {
        if (members[p.member].tag.load() != p.tag || !holds(p.member, record.stripe)) {
            continue;
        }
        CO_TRY(Buffer buffer, co_await allocate(p.bytes.size()));
        const Slice slice = buffer.slice(p.bytes.size(), p.lba);
        std::ranges::copy(p.bytes, slice.data().begin());
        slice.seal();
        writes.push_back({p.member, p.tag, p.lba, slice.sectors(), slice, false});
        buffers.push_back(std::move(buffer));
        replayed_bytes_.fetch_add(p.bytes.size());
    }
    Shard& shard = shard_of_stripe(record.stripe);
    co_await resume_on(*shard.executor);
    const WrittenColumns columns = columns_of(writes);
    Result<void> r = co_await prepare_map(columns.first, std::max(columns.first, columns.end));
    for (std::uint32_t m = 0; m < geometry.members && !writes.empty(); ++m) {
        // One that is rebuilt may have got the stripe since, and the map not yet have said so durably.
        if (!holds(m, record.stripe) || (rebuilding(m) && (columns.members >> m & 1U) == 0)) {
            writes.push_back({m, 0, Lba(columns.first), SectorCount(columns.end - columns.first), {}, true});
        }
    }
    if (r) {
        r = co_await write_members(*this, shard, record.stripe, writes, {.give_back = true});
    }
    co_await resume_on(home);
    co_return r;
}

/// RD2. REQUIRES: they decode; the newest is on as many members as any other (RL6).
Task<Result<void>> ArrayBody::replay_redo(const Doubts& doubts, std::uint64_t log_generation,
                                          const Assembly& assembly) {
    const std::vector<LogRecord>& records = doubts.redo;
    if (!records.empty()) {
        CO_TRY_VOID(co_await begin_replay(log_generation, assembly));
    }
    std::size_t done = 0;
    replaying_ = true;
    for (const LogRecord& r : records) {
        if (!is_partial_record(r.bytes)) {
            ++done;
            CO_TRY_VOID(co_await replay_record(r.bytes));
        }
    }
    replaying_ = false;
    CO_TRY_VOID(co_await recover_partial(doubts));
    if (!records.empty()) {
        CO_TRY_VOID(co_await flush_with_map());
    }
    if (done > 0) {
        replayed_records_.store(done);
        event(Severity::kInfo, "redo-replayed", "array " + name,
              std::to_string(done) + " writes that may have been cut short were done again (" +
                  std::to_string(replayed_bytes_.load()) + " bytes)");
    }
    replayed_below_ = log_->next_position();
    co_return records.empty() || !may_void_redo() ? Result<void>{} : co_await void_redo(replayed_below_);
}

/// RD5, PP6.
bool ArrayBody::may_void_redo() const {
    return untrusted_named_ && all_devices_here();
}

bool ArrayBody::all_devices_here() const {
    const auto strange = [this](std::uint32_t m) {
        const MemberState state = members[m].state.load();
        return (state == MemberState::kMissing || state == MemberState::kStale) && !superblock_.members[m].failed;
    };
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (strange(m)) {
            return false;
        }
    }
    return !superblock_.rebuild.active || builds(superblock_.rebuild.place);
}

/// Records below `position`, whose writes have ended, are void once this succeeds.
Task<Result<void>> ArrayBody::void_redo(std::uint64_t position) {
    CO_TRY_VOID(co_await flush_with_map());
    co_return co_await update_superblock([this, position](Superblock& next) -> Result<void> {
        if (!may_void_redo()) {
            return fail(Errc::kRefused, "a device that the redo log is for is not here");
        }
        next.redo_from = std::max(next.redo_from, position);
        return {};
    });
}

}  // namespace gemel::raid::detail
