// SPDX-License-Identifier: Apache-2.0
// DirtyJournal: the dirty stripe journal of an array with redundancy: before a write changes a member, a record that
// names its blocks is durable in the array's log; after a crash only what the records name is distrusted and made
// right.
//
// Invariants (of J1 to J12 those that are about the journal; the log's own are RL1 to RL6):
//   J1  A write changes members only while every stripe of it is held and listed durably (DS1, DS3). Whatever else
//       writes members keeps what is there (a block rewritten from redundancy that is trusted) or makes untrusted
//       columns right, which stay named until J2 lets them go, or makes a mismatch agree (scrub.hpp, SC5); so it needs
//       no record of its own.
//   J2  A checkpoint may omit a stripe only if no write used it when its shard was asked, and columns only if they were
//       trusted then, and a flush of all members in sync, issued after that, succeeded. A member that missed that flush
//       is durably failed before the record goes. Without anything to omit there is no flush.
//   J9  What a checkpoint omits is out of its shard's set from the moment the shard was asked: a write that comes later
//       is recorded anew. Records that reach home while the checkpoint is made are in it, too; those that come after it
//       was encoded are appended when it is durable.
//   J7  So at every moment the newest checkpoint that may be durable and the records behind it name every column that a
//       write may have left half done, and every column below the cursor that is not trusted. Old records are dropped
//       only after the checkpoint that replaces them is durable.
//   J12 The set is bounded by stripes and by bytes of members, the records between two checkpoints by a quarter of the
//       log, so that crash after crash leaves room for the next checkpoint. A write waits for room, and never fails for
//       want of it.
// Threads: begin, listed, end: on the shard. checkpoint, stop: home. status: any.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "gemel/sync.hpp"
#include "raid/array.hpp"
#include "raid/dirty_set.hpp"
#include "raid/journal_record.hpp"
#include "raid/shard.hpp"

namespace gemel::raid {
class RingLog;
}

namespace gemel::raid::detail {

class ArrayBody;

class DirtyJournal {
  public:
    /// `stripes`: most that are listed for writes at a time; 0: what the log has room for. In the log are so many
    /// records, with `entries`.
    DirtyJournal(ArrayBody& array, RingLog& log, std::uint32_t stripes, std::uint64_t records, std::uint64_t entries);

    /// True: the write holds its stripes, all listed already; else nothing happened and begin() is needed.
    bool try_begin(Shard& shard, const TouchedBlocks& write);
    /// The write holds its stripes and their record is on its way. Waits for room (J12). Errors: the log is dead.
    Task<Result<void>> begin(Shard& shard, TouchedBlocks write);
    /// J1: stripes first..last, which a write holds, may be changed on members.
    [[nodiscard]] bool listed(const Shard& shard, std::uint64_t first, std::uint64_t last) const;
    Task<Result<void>> await_listed(Shard& shard, std::uint64_t first, std::uint64_t last);
    /// Every member I/O of the write has ended. REQUIRES: await_listed() was awaited if the write failed.
    void end(Shard& shard, const TouchedBlocks& write);

    /// Names the untrusted columns of a shard that the resync has seen, as far as `left` goes, and stays behind it;
    /// returns the column where it ends, which may be beyond the last.
    static std::uint64_t list_untrusted(const Shard& shard, const JournalShape& shape, std::size_t& left,
                                        std::vector<DirtyEntry>& out);
    /// Writes the whole list, without what may be dropped (J2).
    Task<Result<void>> checkpoint(Sweep sweep);
    /// There is something that a checkpoint could drop.
    [[nodiscard]] bool worth_a_checkpoint() const { return named() > 0 || listed_.load() > 0 || stale_.load(); }
    /// At most so many entries of the records that a crash now would leave are there for writes.
    [[nodiscard]] std::uint64_t named() const { return named_.load(std::memory_order_relaxed); }
    /// The newest checkpoint names nothing as untrusted.
    [[nodiscard]] bool names_writes_only() const { return !names_untrusted_.load(std::memory_order_relaxed); }
    /// A shard's untrusted columns changed: the next checkpoint says something new.
    void note_trust_changed() { stale_.store(true, std::memory_order_relaxed); }
    /// REQUIRES: no write is under way; the log is stopped.
    Task<void> stop();

    void fill(JournalStatus& status) const;

  private:
    /// The journal's part of a shard.
    struct Side {
        DirtySet set;
        Event changed;  ///< set and reset at once: a record became durable, or there is room
        std::optional<Error> dead;
        std::atomic<std::uint64_t> hot{0};
        std::atomic<std::uint64_t> cold{0};
        std::atomic<std::uint64_t> waited{0};
    };
    /// What one write wants recorded.
    struct Request {
        std::uint32_t shard = 0;
        std::uint64_t ticket = 0;
        std::vector<DirtyEntry> entries;
    };

    [[nodiscard]] Side& side_of(const Shard& shard) const { return *sides_[shard.index]; }
    [[nodiscard]] bool reserve(std::size_t stripes);
    [[nodiscard]] DirtySet::Reach reach() const;
    Task<void> send(Request request);
    void kick();
    Task<void> append_requests();
    Task<Result<void>> append_adding(std::vector<DirtyEntry> entries);
    Task<void> deliver(std::vector<Request> requests, std::optional<Error> error);
    Task<std::uint64_t> gather(Sweep sweep, std::vector<DirtyEntry>& out);
    Task<Result<void>> append_checkpoint(JournalRecord record, std::uint64_t added_before);
    void fail_pending(const Error& error);
    [[nodiscard]] bool crowded() const;
    void start_relief();
    Task<void> relieve();
    Task<Result<void>> make_room_in_log();

    ArrayBody& array_;
    RingLog& log_;
    JournalShape shape_;
    std::vector<std::unique_ptr<Side>> sides_;
    std::size_t most_stripes_;
    std::uint64_t most_columns_;
    std::size_t most_untrusted_;
    std::atomic<std::size_t> listed_{0};  ///< stripes in all sets, and room reserved
    std::atomic<std::uint64_t> columns_{0};
    std::atomic<bool> stale_{false};

    // Home executor.
    std::deque<Request> pending_;
    std::uint64_t records_since_;  ///< the last checkpoint; each at most a page
    std::uint64_t added_ = 0;      ///< entries, for writes
    std::uint64_t most_records_;
    bool appending_ = false;
    bool encoded_ = false;  ///< a checkpoint is, and not yet durable: nothing may pass it
    bool noting_ = false;   ///< a checkpoint is being made
    std::map<std::uint64_t, BlockBox> late_;
    bool relieving_ = false;
    bool room_wanted_ = false;  ///< a write waits for some
    Mutex checkpoints_;
    Gate gate_;
    std::atomic<bool> checkpointing_{false};
    std::atomic<bool> names_untrusted_;
    std::atomic<std::uint64_t> named_;
    std::atomic<std::uint64_t> records_{0};
    std::atomic<std::uint64_t> checkpoints_written_{0};
};

}  // namespace gemel::raid::detail
