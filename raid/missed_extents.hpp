// SPDX-License-Identifier: Apache-2.0
// MissedExtents: which regions of columns the members that are lost may lack, kept in the durable log
// (missed_record.hpp) so that a member that comes back gets these only.
//
// Invariants:
//   ME1 While a member is tracked, columns change on the others only when a durable record names their region. Whatever
//       rewrites what is there needs none.
//   ME2 The set of a member begins with all that it may have lost when it failed: what the journal named then
//       (J7), which holds every write under way and all that was not flushed since, and what was repaired. Of one that
//       was missing at a start it is what that start does not trust.
//   ME3 A member is tracked from before anybody can leave it out. Its record is made when its failure is durable, and
//       until that is in the log it cannot come back; a crash before costs a rebuild of all.
//   ME4 What is changed while a lost member is not tracked is not known. No further one is tracked then until all are
//       in sync, what began before that has ended, and a flush. Then the set is emptied, too.
//   ME5 A set that cannot be kept is given up, durably in the superblock, before anything changes that it lacks; no
//       write fails or waits for good for want of it. A start by force gives it up.
//   ME6 A place that another device is built in is not tracked any more: the superblock that begins that says so.
//   ME7 The array grows while nobody is tracked. The regions are those of the larger array from before the superblock
//       that says so, which may find a member lost already. Who asks meanwhile may still see those before: they stay,
//       and what is noted there counts.
// Threads: recorded, record, note_repair, missed_bytes: any executor; the rest on home.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "gemel/sync.hpp"
#include "raid/journal_record.hpp"
#include "raid/missed_record.hpp"

namespace gemel::raid {
class RingLog;
struct Assembly;
}  // namespace gemel::raid

namespace gemel::raid::detail {

class ArrayBody;

/// Bits that one executor sets and all read.
class SharedRegions {
  public:
    explicit SharedRegions(std::uint64_t regions) : words_((regions + 63) / 64) {}
    [[nodiscard]] bool contains(std::uint64_t region) const {
        return (words_[region / 64].load(std::memory_order_acquire) >> region % 64 & 1U) != 0;
    }
    void add(std::uint64_t region) { words_[region / 64].fetch_or(1ULL << region % 64, std::memory_order_acq_rel); }
    void clear();

  private:
    std::vector<std::atomic<std::uint64_t>> words_;
};

/// What any executor looks at; of one size of the array.
struct MissedRegions {
    explicit MissedRegions(const MissedShape& of) : shape(of), durable(of.regions()), repaired(of.regions()) {}
    MissedShape shape;
    SharedRegions durable;
    SharedRegions repaired;
};

class MissedExtents {
  public:
    MissedExtents(ArrayBody& array, RingLog& log);

    /// Before I/O: `cursor` and `ranges` are the columns that this start does not trust. `replays`: it does logged
    /// writes again, which a member that is missing may lack. Returns what the superblock is to say of it from now on.
    MissedMarker begin(const Assembly& assembly, std::uint64_t cursor, std::span<const ColumnRange> ranges,
                       bool replays);
    /// The array has no journal: what a member lacks when it fails is not known.
    void name_all() { all_named_ = true; }
    /// ME7. REQUIRES: all members are in sync; `control` held; the next superblock says that nobody is tracked.
    void grow(const Geometry& grown);
    /// Of the journal: what became durable.
    void listed(std::span<const DirtyEntry> entries);
    void relisted(const JournalRecord& checkpoint);

    /// ME1: the columns may be changed. If not: record().
    [[nodiscard]] bool recorded(std::uint64_t first_column, std::uint64_t end_column) const;
    /// Errors: the array is stopping or read-only.
    Task<Result<void>> record(std::uint64_t first_column, std::uint64_t end_column);
    /// Columns that a member gets again as they were: it may not keep that.
    void note_repair(std::uint64_t first_column, std::uint64_t end_column);

    /// ME3. The member is lost from now on; `next` is the superblock that will say so.
    void lose(std::uint32_t place, Superblock& next);
    /// The same of one that is missing since the start.
    void lose_missing(std::uint32_t place, Superblock& next);
    /// A superblock is durable; `marked`: it says anew whose extents are kept. So their record is to be.
    void failure_recorded(bool marked);
    /// ME6.
    void forget(std::uint32_t place);
    /// ME4. All that was changed without members that are in sync now is durable on them.
    void settle();
    [[nodiscard]] bool unsettled() const { return blind_ || tracked() != 0; }
    [[nodiscard]] bool tracks(std::uint32_t place) const { return (tracked() >> place & 1U) != 0; }

    /// The member can come back with this superblock; waits for its record.
    Task<bool> knows(std::uint32_t place, Uuid device, SuperblockStamp newest);
    [[nodiscard]] bool missed(std::uint64_t column) const {
        return now().durable.contains(column / now().shape.region);
    }
    /// Where the region of the column ends.
    [[nodiscard]] std::uint64_t region_end(std::uint64_t column) const {
        const std::uint64_t region = now().shape.region;
        return (column / region + 1) * region;
    }
    /// Of the member; nothing if it would be rebuilt whole.
    [[nodiscard]] std::optional<std::uint64_t> missed_bytes(std::uint32_t place) const;
    /// Lets records that are due end. REQUIRES: no write is under way.
    Task<void> stop();

  private:
    [[nodiscard]] std::uint32_t tracked() const { return tracked_.load(std::memory_order_acquire); }
    [[nodiscard]] MissedRegions& now() const { return *now_.load(std::memory_order_acquire); }
    [[nodiscard]] const MissedShape& shape() const { return now().shape; }
    MissedRegions* make_regions(const Geometry& geometry);
    void track(const LostMember& member);
    void name_in(RegionSet& set, std::uint64_t first_column, std::uint64_t end_column) const;
    void name(std::uint64_t first_column, std::uint64_t end_column);
    void name(const DirtyEntry& entry);
    void take_named();
    std::uint64_t episode();
    LostMember absent(std::uint32_t place) const;
    [[nodiscard]] std::optional<MissedState> recover() const;
    Task<Result<void>> ask(std::uint64_t first_column, std::uint64_t end_column);
    void kick();
    Task<void> append_all();
    MissedRecord next_record();
    void landed(const MissedRecord& record, std::uint64_t position);
    Task<void> give_up(Error why);
    Task<Result<void>> rebase();
    void publish(std::uint64_t region);
    void clear();

    ArrayBody& array_;
    RingLog& log_;
    JournalShape journal_shape_;
    std::vector<std::unique_ptr<MissedRegions>> sizes_;  ///< of all sizes that the array had, the last one counts
    std::atomic<MissedRegions*> now_;
    std::atomic<std::uint32_t> tracked_{0};  ///< members, as bits
    std::atomic<std::uint32_t> known_{0};    ///< those of them that a durable base has
    std::atomic<std::uint64_t> durable_regions_{0};

    // Home executor.
    std::uint64_t episode_ = 0;  ///< of absence; 0: none has been named
    RegionSet set_;              ///< durable, or about to be
    RegionSet named_;            ///< ME2
    bool all_named_ = false;
    bool blind_ = false;  ///< ME4
    std::map<std::uint32_t, LostMember> lost_;
    std::vector<std::uint32_t> news_;  ///< regions of the set that are to be recorded
    bool base_wanted_ = false;
    bool due_ = false;  ///< a base, when a superblock is durable
    bool running_ = false;
    std::uint64_t losses_ = 0;
    std::uint64_t adds_since_ = 0;  ///< the last base
    std::uint64_t bases_ = 0;
    std::uint64_t newest_position_ = 0;
    std::optional<Error> dead_;
    Event changed_;  ///< set and reset at once
    Gate gate_;
};

}  // namespace gemel::raid::detail
