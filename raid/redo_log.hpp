// SPDX-License-Identifier: Apache-2.0
// RedoLog: what writes change of a parity array's members is in the array's durable log first, so that a start does
// again what a crash cut short. Then no stripe is half written, and a member that is missing can be made up.
//
// It is on while the array lacks a member (with the policy `redo` always). The dirty stripe journal, which says where
// a crash may have left something half written, has nothing to say of writes that are logged.
//
// Invariants:
//   RD1 While it is on, a write that changes data or parity of columns (a host's, or the resync's) changes them on no
//       member before a record is durable that holds what all members will hold of them. Other writes to members leave
//       what is there (a block made anew from redundancy that is trusted), make a mismatch agree, which older records
//       may at worst bring back (SC5), or go to a device that no record speaks of (RR2): that of a rebuild below its
//       stripe, or of a replace.
//   RD2 At a start the records are done again in their order, on the devices that they are for, before anything is
//       read; that is durable before they are void. In order: what an older record brings back a newer one, or the
//       newest, makes right. So it does no harm that dropped records may come back: the log loses them from its old end
//       only, and a column's newest record is there as long as any of its own.
//   RD3 A write that is not logged changes members only when every record is void, by the superblock (`redo_from`). So
//       turning off is: no write is under way that the journal does not list; none is being logged, those that come
//       wait; a flush; the superblock; then they go on.
//   RD4 A record is dropped, or void, only when its writes have ended, and the checksum map and then a flush of all
//       members, both begun later, are durable. Those are the journal's, and one whenever the log is half full.
//   RD5 Records are void only when every device that may be used again has been given them: not while a member is
//       missing that is not failed (it comes back as it was), nor while the rebuild's device is not there. A member
//       that is replaced gets them with its target (MD6).
//   RD6 A write that begins while it is on is not listed in the journal. All others are, and hold their place there
//       until they end, so whatever they leave half written is named.
//   RD7 A record is as long as the log takes at a time, at most; longer writes are cut by columns, each of which is
//       right by itself. A log without room makes writes wait, and nothing is kept in it that could not be dropped
//       soon.
//       Entries of the checksum map change after the record is durable, for missing members too; doing it again enters
//       what is written, and forgets the entries of members that are missing, or rebuilt and not in the record.
//   RD8 Columns whose parity a write leaves wrong are named in the journal, durably, before its record.
//   RD9 A place is given to another device, which holds what the member holds (RP6), while nothing is logged, since
//       the locks of all stripes are held, by a superblock that makes every record void: those for the old device would
//       not be done again on the new one.
// Threads: begin, end, enter, write, flush_*: any shard; turn_on, turn_off, done_below, stop: home; the rest any.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/sync.hpp"
#include "raid/array.hpp"
#include "raid/member_writes.hpp"
#include "raid/partial_parity.hpp"
#include "raid/recovery_policy.hpp"
#include "raid/redo_record.hpp"

namespace gemel::raid {
class RingLog;
}

namespace gemel::raid::detail {

/// RedoLog::enter(), where there is one.
Task<bool> enter_redo(const ArrayBody& array);

/// What of `writes` lies in columns [first, end) of the members. REQUIRES: 4 KiB addresses.
MemberWrites cut(const MemberWrites& writes, std::uint64_t first, std::uint64_t end);

class RedoLog {
  public:
    /// With the policy `redo` also while no member is missing; with `ppl` it then takes partial parity. REQUIRES:
    /// fits().
    RedoLog(ArrayBody& array, RingLog& log, RecoveryPolicy policy);
    /// One block of every member fits into a record.
    [[nodiscard]] static bool fits(const RingLog& log, std::uint32_t members);

    // --- The data path
    /// RD6. True: the write is not to be listed, and end() follows.
    [[nodiscard]] bool begin();
    void end() { covered_.fetch_sub(1); }
    [[nodiscard]] bool off() const { return state_.load() == State::kOff; }
    /// True: write() must follow. False: the write is not logged (RD3). Waits while that is not decided.
    Task<bool> enter();
    /// Makes the record durable, then writes the members, in pieces if it is long (RD7). A member that fails is failed;
    /// on error the columns are untrusted from now on. REQUIRES: enter(); the stripe's lock is held.
    Task<Result<void>> write(Shard& shard, StripeIndex stripe, MemberWrites writes, WriteOptions options);
    /// The same, after what is untrusted is named in the journal (RD8).
    Task<Result<void>> write_after_checkpoint(Shard& shard, StripeIndex stripe, MemberWrites writes,
                                              WriteOptions options);
    // --- Partial parity (partial_parity.hpp)
    [[nodiscard]] bool partial() const { return partial_; }
    /// PP2.
    [[nodiscard]] std::uint32_t unflushed(const Shard& shard, std::uint64_t block) const;
    /// PP1. Makes the record durable, then writes the members, in pieces if it is long (RD7). REQUIRES: the write is
    /// listed; what write_members wants.
    Task<Result<void>> write_partial(Shard& shard, StripeIndex stripe, PartialParity parity, const MemberWrites& writes,
                                     WriteOptions options, bool in_step);

    /// RD8, PP7: what is untrusted is named in the journal, durably.
    Task<Result<void>> name_untrusted();

    /// Around a flush of the map and all members that succeeds.
    [[nodiscard]] std::uint64_t flush_begins() { return flushes_.fetch_add(1) + 1; }
    void flush_ended(std::uint64_t mark);

    // --- Control
    /// Records whose writes have ended are dropped, after a flush if that takes one.
    Task<Result<void>> make_room();
    /// A member is lost.
    void turn_on();
    /// No member is lost any more: it is off when nothing depends on it (RD3).
    void turn_off();
    /// After turn_off(): every write that the journal does not list has ended, or the log is on again.
    Task<void> await_listed() const;
    [[nodiscard]] bool on() const { return state_.load() == State::kOn; }
    /// Also while no member is missing.
    [[nodiscard]] bool always() const { return always_; }
    /// Every record below this position has its writes in place; a flush from now on makes them durable.
    [[nodiscard]] std::uint64_t done_below() const;
    Task<void> stop();

    void fill(JournalStatus& status) const;

  private:
    enum class State : std::uint8_t {
        kOff,
        kOn,
        kLeaving,  ///< writes are listed and logged
        kClosing,  ///< they wait
    };
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};
    struct Entry {
        std::uint64_t position = 0;               ///< 0: not durable yet
        std::atomic<std::uint64_t> done{kNever};  ///< flushes that had begun when its writes ended
    };

    /// After the record: an error leaves columns half written.
    Task<Result<void>> write_for_good(Shard& shard, StripeIndex stripe, const MemberWrites& piece,
                                      WriteOptions options);
    Task<Result<void>> write_pieces(Shard& shard, StripeIndex stripe, const MemberWrites& writes, WriteOptions options);
    Task<Result<Entry*>> append(std::vector<std::byte> record);
    PartialRecord partial_record(StripeIndex stripe, const PartialParity& parity, std::size_t first, std::size_t end);
    Task<Result<void>> settle_partial(const Shard& shard, WrittenColumns columns);
    void drop_covered();
    Task<void> await_change();
    void change(State to);
    Task<void> let_go();
    Task<void> leave(std::uint64_t turn);
    Task<bool> wait_for_none(const std::atomic<std::uint64_t>& counter, std::uint64_t turn) const;

    ArrayBody& array_;
    RingLog& log_;
    const bool always_;
    const bool partial_;
    std::atomic<State> state_;
    std::atomic<std::uint64_t> covered_{0};  ///< writes under way that the journal does not list
    std::atomic<std::uint64_t> logging_{0};  ///< between enter() and the end of write()
    std::atomic<std::uint64_t> flushes_{0};  ///< begun
    std::atomic<std::uint64_t> flushed_{0};  ///< newest that succeeded
    std::atomic<std::uint64_t> records_{0};
    std::atomic<std::uint64_t> bytes_{0};
    std::atomic<std::uint64_t> partial_records_{0};
    std::atomic<std::uint32_t> seeds_;        ///< RR4
    std::vector<UnflushedStrips> unflushed_;  ///< by shard, its own

    // Home executor.
    std::list<Entry> entries_;  ///< in the order of the log
    std::uint64_t dropped_below_ = 0;
    std::uint64_t turns_ = 0;  ///< on and off
    Event changed_;            ///< set and reset at once: the state changed
    Gate gate_;
};

}  // namespace gemel::raid::detail
