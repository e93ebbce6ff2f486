// SPDX-License-Identifier: Apache-2.0
// RingLog: the durable log of an array: a ring of pages (log_page.hpp) in the log area of its members.
//
// Invariants (with LP1..LP4):
//   RL1 One batch is in flight; the next gathers what arrives meanwhile. No timer.
//   RL2 A batch is durable when FUA writes of all its pages succeeded on so many members that the level could not lose
//       them all (f + 1; two legs of one pair), or on all that are usable; a member that fails is failed by the
//       array's rule and another takes its place.
//   RL3 Appends leave a quarter of the ring free for checkpoints, those of the redo log three eighths, and checkpoints
//       leave kSparePages for pages that only move the head. Of a read-only array nothing makes room: there is no
//       checkpoint, and an append that does not fit fails at its next look.
//   RL4 After a batch that could not be made durable nothing more is appended (no page may follow a hole).
//   RL5 Recovery goes on only if the level tolerates the loss of the members that are lost and those that cannot be
//       read together: one of the others has the page.
//   RL6 The newest batch that recovery finds may have been in flight at the end, and so be on fewer: it is written to
//       all members in sync before anything follows it.
//   RL7 A member gets in sync only with all pages that are needed: else the loss of those that have them, which the
//       level tolerates, would lose the log.
// Threads: append() from any executor; drop_before, recovered, set_checkpoint, remove_client from any thread; the rest
// on the array's home executor.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <optional>

#include "gemel/block_device.hpp"
#include "gemel/durable_log.hpp"
#include "gemel/environment.hpp"
#include "gemel/sync.hpp"
#include "raid/log_page.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid {

namespace detail {
class ArrayBody;
}

class RingLog : public DurableLog {
  public:
    RingLog(detail::ArrayBody& array, const AreaRecord& area);

    /// The first page of a new array, on one of its members.
    static Task<Result<void>> format(Environment& env, BlockDevice& device, Superblock superblock);

    /// The least size of the area for which max_record_bytes() is at least `bytes`.
    static std::uint64_t bytes_for_records_of(std::size_t bytes);
    /// Reads the log of all in-sync members. REQUIRES: home. `generation`: as the superblock says.
    Task<Result<void>> recover(std::uint64_t generation);
    /// Writes the first page of a new generation to all in-sync members; returns its number. REQUIRES: after recover().
    Task<Result<std::uint64_t>> begin_generation();
    /// Writes all that is needed to the device that is built in a member's place, and from then on, if that member is
    /// not in sync, all batches to it, too (RL7), until stop_copying(). REQUIRES: home; the device takes writes.
    Task<Result<void>> copy_to(std::uint32_t member);
    void stop_copying() { copying_to_.reset(); }
    /// Ends what waits with kClosed and waits for what is in flight.
    Task<void> stop();

    Task<Result<std::uint64_t>> append(LogClientId client, std::vector<std::byte> record) override;
    void drop_before(LogClientId client, std::uint64_t position) override;
    Result<std::vector<LogRecord>> recovered(LogClientId client) override;
    void set_checkpoint(LogClientId client, Executor& executor, Checkpoint checkpoint) override;
    void remove_client(LogClientId client) override;
    [[nodiscard]] std::size_t max_record_bytes() const override;

    /// Pages from the durable head to the tail; for tests and status.
    [[nodiscard]] std::uint64_t used_pages() const { return next_sequence_ - durable_head_; }
    [[nodiscard]] std::uint64_t pages() const { return slots_; }
    /// Above that of every record so far. REQUIRES: home.
    [[nodiscard]] std::uint64_t next_position() const { return next_position_; }
    /// recovered(), once; nothing where records were lost.
    std::vector<LogRecord> take_recovered(LogClientId client);

  private:
    struct Pending {
        LogClientId client;
        std::vector<std::byte> record;
        std::optional<Result<std::uint64_t>> result;
        bool taken = false;
        Event done;
    };
    struct Live {
        std::uint64_t position;
        LogClientId client;
        std::uint64_t batch_first;
    };
    struct Client {
        std::uint64_t dropped_below = 0;
        Executor* executor = nullptr;
        Checkpoint checkpoint;
    };
    struct Batch {
        std::vector<Pending*> records;
        std::vector<Buffer> chunks;  ///< kChunkPages pages each
        std::uint64_t first = 0;
        std::uint64_t pages = 0;
        std::uint64_t head = 0;
    };
    /// What recovery read.
    struct Found {
        LogPages pages;
        std::vector<std::uint32_t> unknown;  ///< by slot: the members in which it could not be read, as bits
        /// Members by sequence and generation of the pages on them.
        std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint32_t> holders;
    };

    void kick();
    Task<void> write_batches();
    bool choose(Batch& batch);
    [[nodiscard]] bool fits(LogClientId client, std::uint64_t pages) const;
    Task<Result<void>> allocate_chunks(Batch& batch);
    Task<Result<void>> encode_batch(Batch& batch, std::uint16_t flags);
    Task<Result<void>> write_copies(Batch& batch, bool everywhere);
    Task<Result<void>> write_to_member(std::uint32_t member, Batch& batch);
    Task<Result<void>> write_head_page(std::uint16_t flags, bool everywhere);
    Task<Result<void>> copy_pages(std::uint32_t member);
    void drop_pending();
    void finish(Batch& batch, const Result<void>& outcome);
    void advance_head();
    Task<void> run_checkpoints();
    Task<Result<void>> read_member(std::uint32_t member, Found& found);
    void keep_newest_batch(Found found);
    Task<Result<void>> complete_newest_batch();
    Task<Result<void>> open_generation();
    [[nodiscard]] std::uint64_t batch_limit(bool privileged) const;
    /// Where slot `slot` is on a member.
    [[nodiscard]] Lba slot_lba(std::uint32_t member, std::uint64_t slot) const;
    /// RL2. `holders`: members with a copy, as bits.
    [[nodiscard]] bool enough(std::uint32_t holders) const;
    Task<void> wait_for(Pending& pending);

    detail::ArrayBody& array_;
    Lba area_;
    std::uint64_t slots_;
    std::uint64_t generation_ = 0;
    std::uint64_t next_sequence_ = 1;
    std::uint64_t next_position_ = 1;
    std::uint64_t tail_ = 0;
    std::uint64_t head_ = 1;          ///< oldest batch needed, or next_sequence_
    std::uint64_t durable_head_ = 1;  ///< as the newest durable page says
    bool records_lost_ = false;
    bool missing_recorded_ = false;
    std::optional<Error> dead_;  ///< RL4, or stopped
    std::deque<Live> live_;
    std::deque<Pending*> pending_;
    bool writing_ = false;
    bool copying_ = false;  ///< to a member, or waiting for that
    Event written_;         ///< set and reset at once: no batch is in flight
    bool checkpointing_ = false;
    std::optional<std::uint32_t> copying_to_;  ///< RL7
    std::optional<LogClientId> privileged_;    ///< whose checkpoint runs
    std::uint32_t rotation_ = 0;
    Gate gate_;

    std::vector<LogPage> newest_batch_;       ///< RL6, between recover() and begin_generation()
    std::uint32_t newest_batch_members_ = 0;  ///< that hold all of it

    mutable std::mutex clients_mutex_;  ///< guards the two below only; never held over an I/O
    std::map<LogClientId, Client> clients_;
    std::map<LogClientId, std::vector<LogRecord>> recovered_;
};

}  // namespace gemel::raid
