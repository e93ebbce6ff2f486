// SPDX-License-Identifier: Apache-2.0
// What an array may not trust at a start, and the opening of its journal.
//
// The journal names it exactly, after any stop. The superblock names it too coarsely, and only after a clean stop;
// after any other it says nothing, and then all of it is doubtful. So the superblock stands in where the journal cannot
// be read or is new.
#include <algorithm>
#include <set>

#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"

namespace gemel::raid::detail {

namespace {
/// PP3: what is listed with the mark, and for no other reason.
std::vector<ColumnRange> partial_ranges(const JournalState& state, const JournalShape& shape) {
    IntervalSet set;
    for (const bool marked : {true, false}) {
        for (const DirtyEntry& e : state.entries) {
            shape.each_range(e, [&](std::uint64_t first, std::uint64_t end) {
                if (e.partial && marked) {
                    set.add(first, end);
                } else if (!e.partial && !marked) {
                    set.remove(first, end);
                }
            });
        }
    }
    set.remove(state.cursor, shape.columns);
    std::vector<ColumnRange> out;
    for (auto range = set.next(0); range; range = set.next(range->second)) {
        out.push_back({range->first, range->second});
    }
    return out;
}
}  // namespace

std::optional<ArrayBody::Doubts> ArrayBody::journal_doubts() {
    const JournalShape shape(geometry);
    const Result<std::vector<LogRecord>> records = log_->recovered(kLogClientJournal);
    Result<JournalState> state = fail(Errc::kCorrupt);
    if (records) {
        state = recover_journal(*records, shape);
    } else {
        state = std::unexpected(records.error());
    }
    if (!state) {
        event(Severity::kError, "journal-damaged", "array " + name,
              "the dirty stripe journal cannot be read: " + state.error().message,
              "everything is resynced; check the members");
        return std::nullopt;
    }
    if (!state->based) {
        return std::nullopt;
    }
    log_->drop_before(kLogClientJournal, state->base);
    Doubts out;
    out.journal = true;
    out.records = records->size();
    out.cursor = state->cursor;
    std::set<std::uint64_t> stripes;
    for (const DirtyEntry& e : state->entries) {
        shape.each_range(e, [&out](std::uint64_t first, std::uint64_t end) { out.ranges.push_back({first, end}); });
        stripes.insert(e.stripe);
    }
    out.partial = partial_ranges(*state, shape);
    out.entries = state->entries.size();
    out.stripes = stripes.size();
    return out;
}

/// Errors: kNeedsForce (R5).
Result<ArrayBody::Doubts> ArrayBody::find_doubts(Assembly& assembly) {
    Doubts out;
    const bool redo_known = gather_redo(out.redo);
    if (tracks && superblock_.policy == RecoveryPolicy::kJournal) {
        if (auto doubts = redo_known ? journal_doubts() : std::nullopt) {
            doubts->redo = std::move(out.redo);
            return *std::move(doubts);
        }
        if (!assembly.hole.empty() && !assembly.force) {
            return fail(Errc::kNeedsForce, assembly.hole + " (its journal cannot tell where)");
        }
        assembly.forced = assembly.forced || !assembly.hole.empty();
    } else if (const auto old = log_->recovered(kLogClientJournal); old && !old->empty()) {
        // Of a journal that counts no more: kept, they would hold the log's head, and each start fills a page.
        log_->drop_before(kLogClientJournal, old->back().position + 1);
    }
    // By force parity that nothing can be compared with any more is right; legs that are left are made equal as always.
    const bool comparable = lost_set() != 0 && lost_members() < level.parities();
    const bool believed = level.parities() > 0 && assembly.forced && !comparable;
    // Of a single copy without checksums, now or before, nothing can be wrong but itself.
    const bool tracked = tracks && (level.redundant || superblock_.area(AreaKind::kChecksums).version != 0);
    out.cursor = !tracked || believed ? geometry.columns() : assembly.unclean ? 0 : superblock_.resync_cursor;
    if (tracked && !assembly.unclean) {
        out.ranges = superblock_.untrusted;
    }
    return out;
}

/// By force, now or before a clean stop: P tells what a missing member held of untrusted stripes.
bool ArrayBody::accepts(const Assembly& assembly) const {
    const bool told = lost_set() != 0 && lost_members() < level.parities();
    return told && (assembly.forced || (superblock_.accepted && !assembly.unclean));
}

void ArrayBody::apply_doubts(const Doubts& doubts) {
    walking_ = doubts.cursor < geometry.columns();
    recovery_began_ = env.clock.now();
    recovering_ = doubts.journal && !clean_start;
    recovery_stripes_ = recovering_ ? doubts.stripes : 0;
    for (const auto& shard : shards) {
        shard->walked = shard->local_from(doubts.cursor);
    }
    distrust_columns(doubts.cursor, geometry.columns());
    for (const ColumnRange& r : doubts.ranges) {
        distrust_columns(r.first, r.end);
    }
}

/// What the first record of a journal says: what is untrusted now, if there is room for that. Not what was before this
/// start told some of it (PP3), which hosts may have read since.
JournalRecord ArrayBody::base_record() const {
    const JournalShape shape(geometry);
    JournalRecord out{JournalKind::kCheckpoint, geometry.columns(), {}};
    std::size_t room = journal_entries_in(log_->max_record_bytes() / 2);
    for (const auto& shard : shards) {
        out.cursor = std::min(out.cursor, DirtyJournal::list_untrusted(*shard, shape, room, out.entries));
    }
    return out;
}

/// A journal that says nothing yet gets its first record before the superblock says that it counts; one that a row of
/// crashes has left long is made short. Neither is done while a member is missing: a record would make that one stale,
/// and the array may only be looked at. A journal without room for a checkpoint counts no more.
Task<void> ArrayBody::open_journal(const Doubts& doubts) {
    if (wanted_policy_ == RecoveryPolicy::kResync) {
        co_return;
    }
    const auto present = [](const Member& m) { return m.state.load() != MemberState::kMissing; };
    // PP3: what was told is not named any more, which must not be told to a member that may come back.
    const bool nothing_told = partial_blocks_.load() == 0 || all_devices_here();
    const bool may_append = nothing_told && std::ranges::all_of(std::span(members).first(geometry.members), present);
    const bool full = log_->used_pages() > log_->pages() / 2;
    Result<void> ready = doubts.journal ? Result<void>{} : Result<void>(fail(Errc::kRefused, "members are missing"));
    if (may_append && (!doubts.journal || full || !untrusted_named_)) {  // PP6
        const Result<std::uint64_t> at = co_await log_->append(kLogClientJournal, encode(base_record()));
        if (at) {
            log_->drop_before(kLogClientJournal, *at);
            untrusted_named_ = true;
        }
        ready = at ? Result<void>{} : Result<void>(std::unexpected(at.error()));
    } else if (full && log_->used_pages() > log_->pages() / 4 * 3) {
        ready = fail(Errc::kNoSpace, "the durable log has no room for it");
    }
    if (ready) {
        journal_ = std::make_unique<DirtyJournal>(*this, *log_, journal_stripes_, doubts.records, doubts.entries);
        if (level.parities() > 0 && RedoLog::fits(*log_, geometry.members)) {
            redo_ = std::make_unique<RedoLog>(*this, *log_, wanted_policy_);
        }
        if (wanted_policy_ == RecoveryPolicy::kPartial && !partial_parity()) {
            event(Severity::kWarning, "ppl-off", "array " + name,
                  "its log has no room for partial parity: an earlier version made it, or log_bytes is small",
                  "it goes on with the policy journal; copy the data to a new array for the other");
        }
    } else {
        event(Severity::kWarning, "journal-later", "array " + name,
              "the dirty stripe journal cannot begin: " + ready.error().message,
              "it begins with a later start; a crash before that resyncs everything");
    }
}

/// A map that was not kept for a while, or of data that is taken as it lies by force, says nothing any more (CP3).
void ArrayBody::choose_map(Superblock& next, const Assembly& assembly) const {
    AreaRecord& area = *std::ranges::find(next.areas, AreaKind::kChecksums, &AreaRecord::kind);
    const bool on = wanted_checksums_ && has_map_room(superblock_);
    if (on && (area.version == 0 || assembly.forced)) {
        next.map_epoch = next.epoch + 1;
    }
    area.version = on ? kChecksumVersion : 0;
}

/// REQUIRES: the superblock of this start is durable.
void ArrayBody::open_map() {
    const AreaRecord& area = superblock_.area(AreaKind::kChecksums);
    if (area.version != 0) {
        checksums_ = std::make_unique<Checksums>(*this, ChecksumOrigin{superblock_.array_uuid, superblock_.map_epoch},
                                                 superblock_.epoch, area, checksum_cache_);
    } else if (wanted_checksums_) {
        event(
            Severity::kWarning, "checksums-off", "array " + name,
            "its members have no room for a checksum map: an earlier version made them, or their sizes differ too much",
            "copy the data to a new array, or set checksums = false");
    }
}

Task<void> ArrayBody::stop_journal() {
    if (journal_) {
        co_await journal_->stop();
    }
}

/// How long it took until what the journal named was right, or that it cannot be made right now.
void ArrayBody::report_recovery() {
    if (!std::exchange(recovering_, false) || stopping()) {
        return;
    }
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(env.clock.now() - recovery_began_).count();
    recovery_ms_.store(static_cast<std::uint64_t>(std::max<std::int64_t>(ms, 1)));
    const bool all = untrusted_columns() == 0;
    const std::string stripes = std::to_string(recovery_stripes_) + " stripes";
    event(all ? Severity::kInfo : Severity::kWarning, "journal-recovered", "array " + name,
          all ? "recovered " + stripes + " (" + std::to_string(recovery_bytes_.load()) + " bytes read) in " +
                    std::to_string(ms) + " ms after an unclean stop"
              : stripes + " were listed after an unclean stop, and " +
                    std::to_string(untrusted_columns() * kSectorBytes) +
                    " bytes of each member stay untrusted: what a missing member held of them cannot be read",
          all ? "" : "write these blocks anew, or bring the members back");
}

}  // namespace gemel::raid::detail
