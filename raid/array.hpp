// SPDX-License-Identifier: Apache-2.0
// Array: members joined by a RAID level, the volumes on them, and their durable log. The public face of raid/.
//
// Invariants (README.md has the crash rules behind them):
//   A1  A write is acknowledged only when every in-sync member that must hold it has it, or the failure of those that
//       have not is durable on the others.
//   A2  Nothing is formatted unless every member is blank; opening changes nothing when it fails.
//   A3  Redundancy that may be wrong (after an unclean stop, until resynced) is never used to make up data.
// Threads: open() and stop() on any executor of `shards`; volumes as BlockDevice; status() and the VolumeStore queries
// on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/volume_store.hpp"
#include "raid/job.hpp"
#include "raid/recovery_policy.hpp"
#include "raid/scrub_report.hpp"

namespace gemel::raid {

/// More places than any array has: for numbers that come from outside.
inline constexpr std::uint32_t kMostPlaces = 1000;

/// A place in the array. The order of members is part of the array. Devices outlive the array.
struct MemberSpec {
    BlockDevice* device = nullptr;  ///< nullptr: known to be missing
    std::string name;               ///< for messages; the device's own name when empty
};

struct VolumeSpec {
    std::string name;
    std::uint64_t bytes = 0;  ///< rounded up to 4 KiB; 0: all that is left
};

/// Bytes of each reserved area on every member, multiples of 4 KiB; 0: a share of the member.
struct ReservedAreas {
    std::uint64_t log_bytes = 0;
    std::uint64_t journal_bytes = 0;
    std::uint64_t redo_bytes = 0;
    std::uint64_t checksum_bytes = 0;
    std::uint64_t mirror_bytes = 0;
    std::uint64_t migration_bytes = 0;
};

inline constexpr std::uint64_t kDefaultChecksumCache = 64 * kMiB;  ///< entries of 59 GiB of members

inline constexpr std::uint64_t kDefaultStripeCache = 16 * kMiB;

inline constexpr Duration kDefaultMemberTimeout = std::chrono::seconds(30);
inline constexpr Duration kMinMemberTimeout = std::chrono::milliseconds(100);
inline constexpr Duration kMaxMemberTimeout = std::chrono::minutes(10);

struct ArrayConfig {
    enum class Create : std::uint8_t { kNo, kIfBlank };

    std::string name;
    std::string level = "5";                  ///< a row of level_table: "single", "5", "raid5" ...
    std::uint32_t strip_bytes = 64U * 1024U;  ///< 4 KiB to 1 MiB, a power of two
    std::vector<MemberSpec> members;
    /// Devices of no fixed place. What was put into a place since is found among them; blank ones are hot spares.
    std::vector<MemberSpec> spares;
    std::vector<VolumeSpec> volumes;  ///< made at format; afterwards only compared, a difference is an event
    Create create = Create::kNo;
    /// Sizes that devices of this array had: one that was extended since has its superblocks where it ended then.
    std::vector<SectorCount> former_sizes;
    bool force = false;  ///< start although the members cannot tell what is wrong, or diverged
    /// From this start on; levels without redundancy and checksums have none.
    RecoveryPolicy policy = RecoveryPolicy::kJournal;
    std::uint32_t journal_stripes = 0;  ///< most that the journal lists for writes; 0: by its room
    bool checksums = true;              ///< of every block; from this start on
    std::uint64_t checksum_cache_bytes = kDefaultChecksumCache;  ///< of the checksum map, in memory at most
    std::uint64_t stripe_cache_bytes = kDefaultStripeCache;      ///< of parity levels, from the pool, at most; 0: none
    ReservedAreas areas;
    /// At format devices give back the space of all data, where they can.
    bool thin = false;
    Duration member_timeout = kDefaultMemberTimeout;  ///< a member I/O that takes longer fails its member
    std::vector<Executor*> shards;                    ///< at least one; the first also runs what is not data path
};

enum class ArrayState : std::uint8_t { kOptimal, kDegraded, kReadOnly, kFailed };
enum class MemberState : std::uint8_t { kInSync, kFailed, kMissing, kStale, kRebuilding };

[[nodiscard]] std::string_view array_state_name(ArrayState state);
[[nodiscard]] std::string_view member_state_name(MemberState state);

struct MemberStatus {
    std::string name;
    MemberState state = MemberState::kInSync;
    std::uint32_t unanswered = 0;               ///< I/Os that were not waited for any longer and have not ended
    std::string replaced_with;                  ///< the device that is to have its place; empty: none
    SectorCount sectors;                        ///< of its device; 0: there is none
    std::optional<std::uint64_t> missed_bytes;  ///< of a lost one: what it gets when it comes back; nothing: all
};

struct JournalStatus {
    RecoveryPolicy policy = RecoveryPolicy::kResync;
    std::uint64_t listed_stripes = 0;
    std::uint64_t records = 0;  ///< that listed stripes for writes
    std::uint64_t checkpoints = 0;
    bool checkpointing = false;
    std::uint64_t hot_writes = 0;      ///< found all their stripes listed
    std::uint64_t cold_writes = 0;     ///< asked for a record
    std::uint64_t waits_for_room = 0;  ///< of writes, the set being full
    std::uint64_t named_stripes = 0;   ///< at most, that a crash now would make untrusted
    bool redo = false;                 ///< writes are logged: a crash makes nothing else unknown
    bool partial = false;  ///< PP1: a crash without one member makes nothing unknown that was not being written
    std::uint64_t partial_records = 0;
    std::uint64_t partial_blocks = 0;  ///< columns whose parity this start has told from partial parity
    std::uint64_t redo_records = 0;
    std::uint64_t redo_bytes = 0;
    std::uint64_t replayed_records = 0;  ///< at this start
    std::uint64_t replayed_bytes = 0;
    // The recovery of this start, after an unclean stop.
    std::uint64_t recovered_stripes = 0;
    std::uint64_t recovery_bytes_read = 0;
    std::uint64_t recovery_ms = 0;  ///< 0 until it has ended
};

struct ChecksumStatus {
    bool on = false;
    std::uint64_t found = 0;  ///< blocks that did not match, since the start
    std::uint64_t cached_bytes = 0;
};

struct StripeCacheStatus {
    std::uint64_t bytes = 0;
    std::uint64_t hits = 0;  ///< blocks of members that a write needed and did not read, since the start
};

struct ArrayStatus {
    std::string name;
    std::string level;
    std::uint32_t strip_bytes = 0;
    Uuid uuid;
    SectorCount sectors;  ///< of data
    SectorCount free;     ///< not given to a volume
    ArrayState state = ArrayState::kOptimal;
    std::vector<MemberStatus> members;
    std::vector<std::string> spares;  ///< names of those not used yet
    bool clean_start = true;
    bool resyncing = false;
    SectorCount resync_done;  ///< of each member's data
    SectorCount resync_total;
    std::optional<JobStatus> rebuild;  ///< or a replace
    std::optional<JobStatus> scrub;
    std::optional<ScrubReport> scrub_report;  ///< of the last one since the array was opened
    std::uint64_t unreadable_blocks = 0;      ///< of members, that a rebuild could not make up
    std::uint64_t repaired_blocks = 0;        ///< of members, that were written anew since the start
    std::uint64_t epoch = 0;
    JournalStatus journal;
    ChecksumStatus checksums;
    StripeCacheStatus stripe_cache;
};

class MemberWatch;
namespace detail {
class ArrayBody;
}

class Array : public VolumeStore {
  public:
    /// Assembles the array, or formats it when config.create allows that (A2).
    /// Errors: kInvalidArgument (config), kRefused (not blank, foreign or diverged members), kNotFound (no member holds
    /// this array), kNeedsForce, kDeviceGone (too many members missing), kNoSpace (members or volumes too small),
    /// kCorrupt, kUnsupported (a newer format).
    static Task<Result<std::unique_ptr<Array>>> open(Environment& env, ArrayConfig config);

    Array(std::unique_ptr<MemberWatch> watch, std::unique_ptr<detail::ArrayBody> body);
    /// REQUIRES: stop() has ended, or open() failed.
    ~Array() override;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    /// Refuses new I/O (kClosed), waits for that in flight, flushes and writes the clean superblock; an error says why
    /// the array is left unclean. What a member does not answer within member_timeout is not waited for, not even on
    /// the last copy: status() then says so, and its device, and the pool, must outlive that I/O.
    Task<Result<void>> stop();
    /// Before the users of the volumes are stopped, which wait for their I/O: from now on none waits for a member
    /// longer than member_timeout. Any thread.
    void begin_stop();

    [[nodiscard]] ArrayStatus status() const;

    /// Begins to rebuild what belongs to a place whose member is not in sync, onto `device`, or onto the place's own
    /// one when that is nullptr. The device is blank, or was a member of this array; it outlives the array. Success:
    /// the rebuild is durably begun; it goes on at the next start, and its end is an event.
    /// Errors: kInvalidArgument (no such place, no redundancy), kRefused (the member is in sync, the device holds
    /// something else), kBusy (a rebuild is running, the device is in use), kNoSpace (the device is too small),
    /// kUnsupported (its sectors are too large), kDeviceGone, kReadOnly, kClosed.
    Task<Result<void>> rebuild(std::uint32_t place, MemberSpec device);
    /// Begins to give the place of a member in sync to `device`, or to the first spare when that is nullptr; the member
    /// stays in sync until then. The device is blank, or had this place before; it outlives the array. Success: durably
    /// begun; it goes on at the next start, and its end is an event. If the member fails meanwhile, it is rebuilt onto
    /// the device. Errors: as rebuild(), kRefused also if the member is not in sync.
    Task<Result<void>> replace(std::uint32_t place, MemberSpec device);
    /// Takes `device` as a hot spare, until the array stops: a member that has failed gets it at once. It is blank, and
    /// outlives the array, or its removal. Errors: kInvalidArgument (no redundancy), kAlreadyExists, kRefused (it holds
    /// something), kBusy (it does not answer, and must outlive the array), kNoSpace, kUnsupported (its sectors are too
    /// large), kDeviceGone, kClosed.
    Task<Result<void>> add_spare(MemberSpec device);
    /// The array lets go of a spare, which may be closed then. Errors: kRefused (a place has it), kNotFound (it is no
    /// spare, perhaps no more: it stays open until the array has stopped), kBusy (it does not answer).
    Task<Result<void>> remove_spare(MemberSpec device);
    /// Marks a member failed, durably, or ends the rebuild onto it. Errors: kInvalidArgument (no such place), kRefused
    /// (it is not in use, or the level cannot spare it), kNeedsForce (parity is not right yet everywhere: what the
    /// member holds there would be unreadable), kReadOnly.
    Task<Result<void>> fail_member(std::uint32_t place, bool force);
    /// Begins to compare every stripe with its redundancy. Success: it is durably begun; it goes on at the next start,
    /// and its end is an event. Errors: kInvalidArgument (no redundancy), kReadOnly, kBusy (a scrub or a resync runs),
    /// kRefused (so many members are missing that nothing could be compared), kClosed.
    Task<Result<void>> scrub(ScrubMode mode);
    Job* job(JobKind kind);
    /// Takes into use what the members' devices have more than before (DeviceLimits::sectors), for volumes to grow
    /// into. Success: it is durable; the redundancy of the new space is made right in the background. Level linear
    /// grows at its last member. Errors: kNoSpace (a member is not larger; says which), kRefused (a member is not in
    /// sync, or smaller than it was), kBusy (a resync, rebuild or replace runs), kReadOnly, kClosed.
    Task<Result<void>> grow();

    [[nodiscard]] std::vector<VolumeInfo> volumes() const override;
    BlockDevice* find(std::string_view name) override;
    Task<Result<void>> resize(std::string name, SectorCount sectors) override;
    [[nodiscard]] SectorCount free_sectors() const override;
    DurableLog& log() override;

  private:
    std::unique_ptr<MemberWatch> watch_;  ///< outlives the body
    std::unique_ptr<detail::ArrayBody> body_;
};

}  // namespace gemel::raid
