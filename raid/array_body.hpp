// SPDX-License-Identifier: Apache-2.0
// ArrayBody: everything an open array consists of, as the files of raid/ see it.
//
// Invariants:
//   B1  Superblock, member states and the volume table change on the home executor under `control`, one at a time.
//   B2  A member is marked failed in memory before, and acknowledged as failed only after, the superblock that says so
//       is durable on the others (A1).
//   B3  When the level can spare no further member the array turns read-only and nothing is marked failed.
//   B4  The superblock says unclean, durably, before any write of a host reaches a member.
//   B5  Started by force without one member of level 6 after an unclean stop, P and Q may disagree: until the resync
//       has made Q right, P tells what lay on that member. That ends when anything else becomes untrusted.
//   B6  A device on its way into a place (kRebuilding) counts as lost wherever that is asked; its failure ends the
//       rebuild. rebuild.cpp has the rules.
// Threads: states of members and of the array are read anywhere; functions say where they run.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <mutex>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/sync.hpp"
#include "raid/array.hpp"
#include "raid/assembly.hpp"
#include "raid/dirty_journal.hpp"
#include "raid/job.hpp"
#include "raid/level_table.hpp"
#include "raid/member_device.hpp"
#include "raid/member_fan.hpp"
#include "raid/member_watch.hpp"
#include "raid/missed_extents.hpp"
#include "raid/repair_report.hpp"
#include "raid/shard.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid {
class RingLog;
}

namespace gemel::raid::detail {

class Checksums;
class NewestRecords;
class RedoLog;
class Scrub;
struct RebuildTurn;
class Volume;

struct Member {
    std::unique_ptr<MemberDevice> device;  ///< of all places that the level has
    std::atomic<MemberState> state{MemberState::kMissing};
    std::atomic<std::uint64_t> tag{0};  ///< of the device that has, or is to get, the place (redo_record.hpp)
    SlotPlace newest;                   ///< of the superblocks on it (SB1); under `control`
    SuperblockStamp stamp;              ///< of that one; the same
    SectorCount vacated;                ///< superblocks at the end of a device of that size are to be wiped (SB4), or 0
};

class ArrayBody : public SilenceJudge {
  public:
    ArrayBody(Environment& environment, const ArrayConfig& config, const Superblock& winner, MemberWatch& watch);
    ~ArrayBody() override;
    ArrayBody(const ArrayBody&) = delete;
    ArrayBody& operator=(const ArrayBody&) = delete;

    // --- What does not change after open(), but for the sizes in `geometry`, which grow ----------------------------
    Environment& env;
    const LevelRow& level;
    /// Columns may be untrusted, and what a crash leaves so is tracked: the array has redundancy, or checksums alone.
    const bool tracks;
    std::string name;
    Geometry geometry;
    std::array<Member, kMaxMembers> members;
    std::vector<std::unique_ptr<Shard>> shards;
    Executor& home;
    MemberWatch& watch;
    bool clean_start = true;  ///< set by start()

    // --- The data path (array_io.cpp) ------------------------------------------------------------------------------
    [[nodiscard]] bool in_sync(std::uint32_t member) const {
        return members[member].state.load(std::memory_order_acquire) == MemberState::kInSync;
    }
    [[nodiscard]] bool rebuilding(std::uint32_t member) const {
        return members[member].state.load(std::memory_order_acquire) == MemberState::kRebuilding;
    }
    /// RP1: it is in sync, and another device is on its way into its place.
    [[nodiscard]] bool replacing(std::uint32_t member) const {
        return in_sync(member) && members[member].device->target() != nullptr;
    }
    /// A rebuild or a replace writes there.
    [[nodiscard]] bool builds(std::uint32_t member) const { return rebuilding(member) || replacing(member); }
    /// Flushes, superblocks and a mirror's writes go to it.
    [[nodiscard]] bool takes_writes(std::uint32_t member) const { return in_sync(member) || rebuilding(member); }
    /// RB2. What the stripe has on this member is there. REQUIRES: a parity level; on the stripe's shard.
    [[nodiscard]] bool holds(std::uint32_t member, StripeIndex stripe) const;
    [[nodiscard]] bool read_only() const { return read_only_.load(std::memory_order_acquire); }
    [[nodiscard]] bool stopping() const { return stopping_.load(std::memory_order_acquire); }
    [[nodiscard]] bool all_trusted() const { return untrusted_shards_.load(std::memory_order_acquire) == 0; }
    /// The members that are not in sync, as bits.
    [[nodiscard]] std::uint32_t lost_set() const { return lost_set_.load(std::memory_order_acquire); }
    /// B5: that member as a bit, while it is missing, or 0.
    [[nodiscard]] std::uint32_t accepted_member() const {
        return accepted_member_.load(std::memory_order_acquire) & lost_set();
    }
    [[nodiscard]] std::uint32_t lost_members() const { return static_cast<std::uint32_t>(std::popcount(lost_set())); }
    /// J1: members may be changed in these stripes, which a write holds. If not: await_listed().
    [[nodiscard]] bool listed(const Shard& shard, StripeIndex first, StripeIndex last) const {
        return !journal_ || journal_->listed(shard, first.value, last.value);
    }
    Task<Result<void>> await_listed(Shard& shard, StripeIndex first, StripeIndex last) {
        return journal_->await_listed(shard, first.value, last.value);
    }
    /// Nothing where writes are never logged.
    [[nodiscard]] RedoLog* redo() const { return redo_.get(); }
    [[nodiscard]] DirtyJournal* journal() const { return journal_.get(); }
    /// Writes record partial parity while no member is missing (partial_parity.hpp).
    [[nodiscard]] bool partial_parity() const;
    /// PP6, home executor. False: the array is stopping or read-only.
    Task<bool> await_untrusted_named();
    void note_untrusted_named();
    /// Redo records below this position of the log were done again at this start. Home executor.
    [[nodiscard]] std::uint64_t replayed_below() const { return replayed_below_; }
    /// This start is doing them again; nothing else is written meanwhile. Any executor that it does so on.
    [[nodiscard]] bool replaying() const { return replaying_; }
    /// ME1: columns may be changed. If not: await_missed().
    [[nodiscard]] bool in_missed(std::uint64_t first_column, std::uint64_t end_column) const {
        return !missed || missed->recorded(first_column, end_column);
    }
    Task<Result<void>> await_missed(std::uint64_t first_column, std::uint64_t end_column) {
        return missed->record(first_column, end_column);
    }
    void note_repair(std::uint64_t first_column, std::uint64_t end_column) {
        if (missed) {
            missed->note_repair(first_column, end_column);
        }
    }
    [[nodiscard]] bool one_group(Lba lba, Slice slice) const {
        const std::uint64_t group = geometry.group_sectors();
        return lba.value / group == (lba.value + slice.sectors().value - 1) / group;
    }
    /// SH1. One copy of every sector, of which nothing else is known, has no legs to keep equal and no parity to lock:
    /// such a write stays with its caller.
    [[nodiscard]] Shard& shard_of(Lba lba) {
        if (!tracks) {
            for (const auto& shard : shards) {
                if (shard->executor->is_current()) {
                    return *shard;
                }
            }
        }
        return *shards[shards.size() == 1 ? 0 : lba.value / geometry.group_sectors() % shards.size()];
    }
    /// Array data; any executor. `from` was verified.
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) {
        const bool whole = !tracks || (shards.size() == 1 && !journal_) || one_group(lba, from);
        return whole ? write_piece(lba, from, options, false) : write_pieces(lba, from, options, false);
    }
    /// A write that makes the redundancy of its stripes right whatever was there.
    Task<Result<void>> repair(Lba lba, Slice from) { return write_pieces(lba, from, {}, true); }
    Task<Result<void>> flush();
    /// On any executor: a host reads.
    void note_host_read();
    /// I/Os of hosts, for background work to yield to. A read on an executor without a shard is not counted.
    [[nodiscard]] std::uint64_t host_ios() const;
    /// After an I/O error of member `index`. A read error alone fails no member; a device that is gone does.
    Task<void> note_read_error(std::uint32_t index, Errc code);

    /// nullptr: the array keeps no checksums.
    [[nodiscard]] Checksums* checksums() const { return checksums_.get(); }
    /// On the shard: MemberDevice can enter writes of these columns without waiting. Errors: as ChecksumMap::load.
    Task<Result<void>> prepare_map(std::uint64_t first_column, std::uint64_t end_column);
    /// CS5. On the shard: these members' blocks of the column contradicted the map, and it was wrong.
    void note_wrong_map(std::uint64_t column, std::uint32_t set);
    /// No copy of a page of the map could be read: what it said is lost.
    void note_lost_page(std::uint64_t page);
    /// Blocks of the member from this address on were written anew: counted, and told of (RR2).
    Task<void> note_repaired(std::uint32_t member, Lba member_lba, std::uint64_t blocks, bool mismatched);
    /// The same of blocks that contradict their checksums, and of which there is no other copy.
    Task<void> note_mismatched(std::uint32_t member, Lba member_lba, std::uint64_t blocks);

    /// On the shard: no write may start before it returns success (B4).
    Task<Result<void>> open_for_writes(Shard& shard);

    /// A buffer, waiting up to some seconds for memory to come back.
    Task<Result<Buffer>> allocate(std::size_t bytes);

    /// Takes columns of the shard out of, or into, its untrusted set.
    void trust(Shard& shard, std::uint64_t first_column, std::uint64_t end_column);
    void distrust(Shard& shard, std::uint64_t first_column, std::uint64_t end_column);

    // --- Stripe cache (stripe_cache.hpp): any executor ---------------------------------------------------------------
    /// KC3.
    void doubt_cached() { cache_doubts_.fetch_add(1, std::memory_order_acq_rel); }
    /// KC2: a member is written there. KC1: only that of `member` is to be forgotten.
    void forget_cached_columns(Lba member_lba, SectorCount sectors);
    void forget_cached(std::uint32_t member, Lba member_lba, SectorCount sectors);

    // --- Scrub (scrub.hpp) -----------------------------------------------------------------------------------------
    std::unique_ptr<Scrub> scrub;
    /// On the shard: blocks of the stripe at `column` could not be read, or contradict their redundancy.
    void found_bad(Shard& shard, std::uint64_t column);

    // --- Rebuild (rebuild.cpp) -----------------------------------------------------------------------------------
    Task<Result<void>> rebuild(std::uint32_t place, MemberSpec spec);
    /// On the shard, under the lock: columns of the device that is rebuilt are what they must be, or listed.
    void built(Shard& shard, std::uint64_t first_column, std::uint64_t end_column);
    /// On the shard, under the lock: these blocks of the device that is rebuilt cannot be made up.
    Task<Result<void>> give_up_blocks(std::uint32_t member, Lba member_lba, std::uint64_t blocks);
    /// MD2. Any executor.
    Task<Result<void>> forget_unreadable(std::uint32_t member, std::uint64_t first, std::uint64_t count);
    Job rebuild_job;  ///< of a replace, too: only one of them runs
    Task<Result<void>> fail_by_operator(std::uint32_t place, bool force);

    // --- Members that come back (catch_up.cpp) -----------------------------------------------------------------------
    std::unique_ptr<MissedExtents> missed;  ///< nothing where there is no redundancy; fixed after start()

    // --- Replace (replace.cpp): any executor; end on the caller's ------------------------------------------------
    Task<Result<void>> replace(std::uint32_t place, MemberSpec spec);
    /// Writes to the device that a rebuild or a replace brings into the place. Its failure is recorded.
    Task<Result<void>> build(std::uint32_t member, Lba member_lba, Slice from, WriteOptions options);
    /// The same of what is no data, by sectors of the device.
    Task<Result<void>> build_area(std::uint32_t member, Lba lba, Slice from, WriteOptions options);
    /// RP3. Success: what `target` missed is of no importance, durably.
    Task<Result<void>> target_missed(std::uint32_t index, const BlockDevice& target, Error why);
    /// RP4. The same of the device that was the member's when the I/O began.
    Task<Result<void>> own_missed(std::uint32_t index, const BlockDevice& own, Error why);

    // --- Spares (spares.cpp): any executor; end on the caller's --------------------------------------------------
    Task<Result<void>> add_spare(MemberSpec spec);
    Task<Result<void>> remove_spare(MemberSpec spec);

    // --- Grow (grow.cpp): any executor; ends on the caller's -------------------------------------------------------
    Task<Result<void>> grow();

    // --- Control (array_control.cpp): any executor; end on the caller's ------------------------------------------
    /// Runs the task that `order` gives, at home: an operator asks for it, and stop() waits for it.
    template <class Order>
    Task<Result<void>> ordered(Order order) {
        Executor& caller = Executor::current();
        co_await resume_on(home);
        Result<void> r = fail(Errc::kClosed, "array " + name + " is stopping");
        if (!stopping() && gate_.enter()) {
            r = co_await order();
            gate_.leave();
        }
        co_await resume_on(caller);
        co_return r;
    }
    /// Runs the task that `change` gives, under `control`.
    template <class Change>
    Task<Result<void>> under_control(Change change) {
        Executor& caller = Executor::current();
        co_await resume_on(home);
        Result<void> r;
        {
            const auto guard = co_await control_.lock();
            r = co_await change();
        }
        co_await resume_on(caller);
        co_return r;
    }
    /// Member `index` has missed a write or a flush. Success: its failure is durable on the others, the array goes on
    /// without it. Error: kReadOnly (B3).
    Task<Result<void>> fail_member(std::uint32_t index, Error why);
    Task<Result<void>> silent(const BlockDevice* device, Duration patience) override;
    /// A write or flush that left out a failed member is acknowledged only when that failure is durable (B2).
    [[nodiscard]] bool unrecorded() const { return unrecorded_.load(std::memory_order_acquire); }
    Task<Result<void>> await_recorded();
    /// Members missing since assembly are durably marked failed.
    Task<Result<void>> record_missing();
    /// Runs `change` on a copy of the superblock and makes it durable, or leaves everything as it was.
    template <class Change>
    Task<Result<void>> update_superblock(Change change) {
        return under_control(
            [this, change = std::move(change)]() mutable { return commit_changed(std::move(change)); });
    }
    /// Home executor.
    [[nodiscard]] const Superblock& superblock() const { return superblock_; }
    /// All members of `set`, as bits, have missed a write.
    Task<Result<void>> fail_members(std::uint32_t set, std::string_view why);
    /// CM2: what the map says now is durable on the members, with their data. Home, without `control`.
    Task<Result<void>> flush_with_map();
    /// Flushes all in-sync members and marks the superblock clean. Home executor.
    Task<Result<void>> mark_clean();
    /// Marks it clean after a while without writes. Runs until then or stopped. Home executor.
    Task<void> watch_idle();
    /// Redo records below this position of the log, whose writes are in place, are void when it succeeds (RD4, RD5).
    /// Home executor.
    Task<Result<void>> void_redo(std::uint64_t position);
    /// Makes the progress of the resync durable, if that says anything after a crash. Home executor, without `control`.
    Task<Result<void>> checkpoint_resync();

    // --- Resync (resync.cpp) ---------------------------------------------------------------------------------------
    /// Walks the untrusted columns of one shard. Runs on the shard until done or stopped.
    /// True when every stripe was seen.
    Task<bool> resync_shard(Shard& shard);
    [[nodiscard]] bool resyncing() const { return resyncing_.load(std::memory_order_acquire); }
    /// Bytes read from members to make redundancy right.
    void count_recovery_read(std::uint64_t bytes) { recovery_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t untrusted_columns() const { return untrusted_total_.load(std::memory_order_relaxed); }

    // --- Life (array.cpp) --------------------------------------------------------------------------------------------
    /// Takes over what assembly found. Home executor.
    Task<Result<void>> start(Assembly assembly);
    Task<Result<void>> stop();
    void publish_status();
    [[nodiscard]] ArrayStatus status() const;
    void event(Severity severity, std::string_view id, std::string subject, std::string cause, std::string action = {});
    [[nodiscard]] std::string member_subject(std::uint32_t index) const;
    [[nodiscard]] std::string member_name(std::uint32_t index) const;
    /// Tells the volumes that these sectors of the array cannot be known any more.
    void unreadable(Extent extent);
    void turn_read_only(std::string why);

    Volume* find(std::string_view volume);
    [[nodiscard]] std::vector<VolumeInfo> volume_infos() const;
    Task<Result<void>> resize(std::string volume, SectorCount sectors);
    RingLog& log() { return *log_; }

  private:
    Task<Result<void>> take_members(const Assembly& assembly);
    Task<Result<void>> take_over(Assembly assembly);
    Task<Result<void>> begin_incarnation(std::uint64_t log_generation, const Assembly& assembly);
    /// Writes `next` with epoch + 1, and + 2, to all in-sync members (SB1, SB5). REQUIRES: `control` held, home
    /// executor.
    Task<Result<void>> commit(Superblock next);
    template <class Change>
    Task<Result<void>> commit_changed(Change change) {
        Superblock next = superblock_;
        CO_TRY_VOID(change(next));
        co_return next == superblock_ ? Result<void>{} : co_await commit(std::move(next));
    }
    Task<Result<void>> fail_at_home(std::uint32_t place, bool force);
    Task<bool> offer(Superblock& next);
    [[nodiscard]] std::uint64_t taken_by_all(const Superblock& next) const;
    Task<Result<void>> fail_locked(std::uint32_t index, Error why);
    /// Flushes all in-sync members; one that fails is failed. REQUIRES: `control` held, home executor.
    Task<Result<void>> flush_locked();
    using SlotPlaces = std::array<SlotPlace, kMaxMembers>;
    void settle_slots(const MemberFan& fan, std::uint32_t started, const SlotPlaces& places, Superblock& next);
    Task<Result<void>> settle_ends();
    Task<Result<void>> move_superblocks();
    [[nodiscard]] bool settled(std::uint32_t member) const;
    Task<Result<void>> wipe_vacated();
    Task<Result<void>> write_zeros(BlockDevice& device, Lba first, Lba end);
    void renew_slot_buffer(std::uint32_t member);
    void set_failed(std::uint32_t index, Superblock& next);
    void mark_missing(Superblock& next) const;
    /// The level goes on without `index`, too.
    [[nodiscard]] bool can_spare(std::uint32_t index) const {
        return level.tolerates(lost_set() | 1U << index, geometry.members);
    }
    Task<bool> visit_shards(Superblock& next, bool close);
    Task<Result<void>> commit_quiet(bool clean);
    Task<bool> quiet_shards();
    Task<void> tend_journal();
    Task<Result<void>> commit_seen(Superblock seen, bool clean);
    Task<void> run_resync(Shard& shard);
    void start_resync(std::string_view why);
    // array_recovery.cpp
    struct Doubts {  ///< what may be wrong at a start
        std::uint64_t cursor = 0;
        std::vector<ColumnRange> ranges;
        std::uint64_t stripes = 0;
        bool journal = false;       ///< as the journal says
        std::uint64_t records = 0;  ///< of the journal
        std::uint64_t entries = 0;  ///< of it
        std::vector<LogRecord> redo;
        std::vector<ColumnRange> partial;  ///< of `ranges`, those that partial parity has something to say of
    };
    bool gather_redo(std::vector<LogRecord>& out);                                            // redo_log.cpp
    Task<Result<void>> begin_replay(std::uint64_t log_generation, const Assembly& assembly);  // redo_log.cpp
    Task<Result<void>> replay_redo(const Doubts& doubts, std::uint64_t log_generation, const Assembly& assembly);
    Task<Result<void>> replay_record(ConstBytes bytes);        // redo_log.cpp
    [[nodiscard]] bool all_devices_here() const;               // redo_log.cpp
    [[nodiscard]] bool may_void_redo() const;                  // redo_log.cpp
    Task<Result<void>> recover_partial(const Doubts& doubts);  // partial_parity.cpp
    Task<Result<void>> recover_columns(const NewestRecords& newest, std::uint64_t first, std::uint64_t end);
    Result<Doubts> find_doubts(Assembly& assembly);
    std::optional<Doubts> journal_doubts();
    void apply_doubts(const Doubts& doubts);
    [[nodiscard]] bool accepts(const Assembly& assembly) const;
    [[nodiscard]] JournalRecord base_record() const;
    Task<void> open_journal(const Doubts& doubts);
    void choose_map(Superblock& next, const Assembly& assembly) const;
    void open_map();
    Task<void> stop_journal();
    void report_recovery();
    void distrust_columns(std::uint64_t first, std::uint64_t end);
    [[nodiscard]] Shard& shard_of_stripe(StripeIndex stripe) const {
        return *shards[shards.size() == 1 ? 0 : stripe.value / kGroupStripes % shards.size()];
    }
    void resume_places();
    void begin_rebuild_anew();
    void await_columns(Shard& shard, std::uint64_t from, bool only_missed = false);
    Task<Result<void>> rebuild_at_home(std::uint32_t place, MemberSpec spec);
    Result<void> may_build(std::uint32_t place) const;
    Task<Result<void>> wipe_slots(BlockDevice& device, SectorCount ended);
    /// The newest superblock of this array on a device that is to be built.
    struct FoundSlot {
        SlotPlace place;
        std::uint64_t epoch = 0;
    };
    Task<Result<SlotPlace>> clear_target(BlockDevice& device, std::optional<FoundSlot> found);
    /// What of a device that a rebuild goes onto stays there.
    enum class Onto : std::uint8_t {
        kAny,       ///< what it holds, if that is known, or nothing
        kReturned,  ///< what it holds; refused if that is not known
    };
    Task<Result<void>> begin_rebuild(std::uint32_t place, MemberSpec spec, Onto onto);
    static Result<void> check_answers(const MemberSpec& spec);
    Result<void> check_shape(std::uint32_t place, const MemberSpec& spec) const;
    Task<Result<std::optional<FoundSlot>>> check_target(std::uint32_t place, MemberSpec spec);
    [[nodiscard]] std::vector<SectorCount> known_ends() const;
    Task<Result<void>> enter_target(std::uint32_t place, MemberSpec spec, SlotPlace newest, bool returned);
    Task<void> use_spares();
    [[nodiscard]] bool has_place(const BlockDevice* device) const;
    Task<Result<void>> check_spare(MemberSpec spec);
    Task<Result<void>> add_spare_at_home(MemberSpec spec);
    Task<Result<void>> remove_spare_at_home(MemberSpec spec);
    [[nodiscard]] std::optional<std::uint32_t> wants_spare() const;
    Task<void> run_rebuild(std::uint32_t place, bool resumed);
    void begin_job(JobKind kind, std::uint32_t place);
    Task<Result<void>> fill_place(std::uint32_t place);
    Task<bool> walk_shards(std::uint32_t place);
    Task<Result<void>> copy_map(std::uint32_t place);
    Task<Result<bool>> copy_map_pages(Shard& shard, std::uint32_t place, std::uint64_t& page);
    [[nodiscard]] std::uint64_t columns_of_page() const;
    Task<void> rest_in_rebuild(std::uint32_t place, TimePoint due);
    Task<bool> rebuild_shard(Shard& shard, std::uint32_t place);
    Task<Result<void>> rebuild_lane(Shard& shard, std::uint32_t place, RebuildTurn& turn);
    Task<bool> rebuild_turn(Shard& shard, std::uint32_t place, std::uint64_t lanes, RebuildTurn& turn);
    [[nodiscard]] bool rebuild_goes_on(std::uint32_t place) const;
    Task<std::uint64_t> built_below();
    Task<Result<void>> checkpoint_rebuild();
    Task<Result<void>> lose_built(std::uint32_t place, Error why);
    Task<Result<void>> target_missed_locked(std::uint32_t index, const BlockDevice& target, Error why);
    Task<Result<void>> own_missed_locked(std::uint32_t index, const BlockDevice& own, Error why);
    Task<Result<void>> lose_built_locked(std::uint32_t place, Error why);
    Task<Result<void>> finish_rebuild(std::uint32_t place);
    Task<Result<void>> admit_rebuilt(std::uint32_t place);
    void gather_unreadable(Superblock& next) const;
    // catch_up.cpp
    void find_returned(const Assembly& assembly, const Doubts& doubts);
    Task<std::optional<SlotPlace>> came_back(std::uint32_t place, MemberSpec spec);
    Task<void> bar(Shard& shard, IntervalLock::Guard& guard);
    Task<void> keep_what_it_holds(std::uint32_t place);
    Task<void> take_back();
    Task<void> fill_places();
    Task<void> settle_return();
    // replace.cpp
    Task<Result<void>> begin_replace(std::uint32_t place, MemberSpec spec);
    Task<Result<void>> enter_replace(std::uint32_t place, MemberSpec spec, SlotPlace newest);
    void attach_target(std::uint32_t place, const MemberSpec& spec, SlotPlace newest, std::uint64_t epoch);
    Task<bool> offer_target(Superblock& next);
    void drop_target(const Error& why);
    void resume_replace(const Assembly& assembly);
    Task<Result<void>> replace_stripe(Shard& shard, StripeIndex index, std::uint32_t place);
    Task<void> run_replace(std::uint32_t place, bool resumed);
    Task<void> rebuild_instead(std::uint32_t place, MemberSpec spec);
    Task<Result<void>> end_replace(std::uint32_t place, Error why);
    Task<Result<void>> flush_target();
    Task<Result<void>> finish_replace(std::uint32_t place);
    Task<Result<void>> give_place(std::uint32_t place);
    Task<Result<void>> give_place_now(std::uint32_t place, std::uint64_t redo_done);
    [[nodiscard]] bool gives_place(std::uint32_t member, const Superblock& next) const;
    [[nodiscard]] std::string target_name() const;
    Task<Result<void>> resize_at_home(std::string volume, SectorCount sectors);
    [[nodiscard]] StripeCache* cache_here(Lba member_lba);
    // grow.cpp
    Task<Result<void>> grow_at_home();
    [[nodiscard]] Result<void> may_grow() const;
    [[nodiscard]] Result<Superblock> plan_growth_now() const;
    Task<void> take_growth(const Geometry& grown);
    Task<Result<void>> write_piece(Lba lba, Slice from, WriteOptions options, bool repair);
    Task<Result<void>> write_pieces(Lba lba, Slice from, WriteOptions options, bool repair);
    void tell_of(const RepairReport& report, const RepairReport::ByMember& blocks);
    Task<void> begin_telling(RepairReport& report);
    Task<void> tell_more(RepairReport& report);

    Superblock superblock_;
    Mutex control_;
    Mutex rebuilds_;  ///< held while one begins; taken before `control`
    Mutex namings_;   ///< of what is untrusted (PP6); held while one is made
    Mutex resizes_;   ///< the volume table changes under it; taken before `control`
    Gate gate_;       ///< background work on home
    Event stop_event_;
    std::uint32_t returned_ = 0;         ///< places, as bits, whose member came back with this start; home only
    std::uint64_t unbuilt_columns_ = 0;  ///< of a rebuild when it begins or goes on; home only
    bool watching_ = false;              ///< watch_idle() runs
    std::vector<Buffer> slots_;          ///< one superblock per member, under `control`
    SlotPlace target_newest_;            ///< superblock on the target of a replace; under `control`
    std::uint64_t target_epoch_ = 0;     ///< of that one; the same
    std::optional<Error> target_lost_;   ///< it did not take one; the same
    std::atomic<bool> read_only_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint32_t> untrusted_shards_{0};
    std::atomic<std::uint64_t> untrusted_total_{0};
    std::atomic<std::uint32_t> lost_set_{0};
    std::atomic<std::uint32_t> accepted_member_{0};
    std::atomic<bool> unrecorded_{false};  ///< a member is failed in memory, not yet in the superblock
    std::atomic<bool> resyncing_{false};
    std::uint32_t walkers_ = 0;  ///< of the resync; home only
    bool walk_complete_ = true;
    bool walk_seen_ = true;
    bool walking_ = false;  ///< the resync began and has not seen every stripe; home only

    std::vector<std::unique_ptr<Volume>> volumes_;  ///< fixed after start()
    std::unique_ptr<RingLog> log_;
    std::unique_ptr<DirtyJournal> journal_;  ///< nothing under the policy `resync`
    std::unique_ptr<RedoLog> redo_;          ///< of parity levels with a journal
    bool replaying_ = false;
    std::uint64_t replayed_below_ = 0;         ///< redo records below it were done again, durably; home only
    std::atomic<bool> untrusted_named_{true};  ///< PP6; changed on home
    std::atomic<std::uint64_t> partial_blocks_{0};
    std::atomic<std::uint64_t> partial_told_{0};  ///< of them, as parity tells
    std::atomic<std::uint64_t> replayed_records_{0};
    std::atomic<std::uint64_t> replayed_bytes_{0};
    std::unique_ptr<Checksums> checksums_;
    std::atomic<std::uint64_t> cache_doubts_{0};
    RepairReport repairs_;
    RepairReport mismatches_;  ///< without another copy
    bool wanted_checksums_;
    std::uint64_t checksum_cache_;
    std::uint64_t openings_ = 0;               ///< for writes; under `control`
    std::atomic<std::uint64_t> distrusts_{0};  ///< how often columns became untrusted
    RecoveryPolicy wanted_policy_;
    std::uint32_t journal_stripes_;
    bool recovering_ = false;  ///< what the journal named after an unclean stop; home only
    TimePoint recovery_began_{};
    std::uint64_t recovery_stripes_ = 0;
    std::atomic<std::uint64_t> recovery_bytes_{0};
    std::atomic<std::uint64_t> recovery_ms_{0};

    mutable std::mutex status_mutex_;  ///< guards what follows only; never held over an I/O
    std::array<std::string, kMaxMembers> member_names_;
    std::string target_name_;                ///< of the last replace
    std::vector<MemberSpec> spares_;         ///< those not used yet; changed on home
    std::vector<SectorCount> former_sizes_;  ///< R9
    ArrayStatus status_;
    std::vector<VolumeInfo> volume_infos_;
};

}  // namespace gemel::raid::detail
