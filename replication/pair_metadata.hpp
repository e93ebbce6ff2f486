// SPDX-License-Identifier: Apache-2.0
// What a pair must not forget: its superblock, its regions and its changed tracks, as records of a DurableLog.
//
// Invariants:
//   PM1 Unless uncertain(), the superblock in memory is the durable one and every mark in memory is durable.
//   PM2 Records are appended one at a time in the order of submission, so a later record wins at recovery.
//   PM3 A checkpoint holds everything durable and everything of the record being appended beside it.
//   PM4 Clearing removes the mark from memory first: whoever needs it again appends it again, behind the clearing.
//       REQUIRES of the caller: no mark of the units cleared is being made at that time.
//   PM5 After stop() has ended the log neither runs nor begins a checkpoint of it: the array outlives the pair.
//   PM6 A record whose append failed, and a checkpoint that held it, may be durable all the same: uncertain() from then
//       on, and no mark is trusted, until one record with the whole state of the memory is durable behind it. The next
//       commit appends that first.
// Threads: the executor given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gemel/durable_log.hpp"
#include "gemel/sync.hpp"
#include "replication/changed_tracks.hpp"
#include "replication/pair_state.hpp"

namespace gemel::replication {

inline constexpr std::size_t kNodeNameBytes = 64;
inline constexpr std::size_t kVolumeNameBytes = 128;

struct Superblock {
    Uuid pair;
    Uuid identity;  ///< of the data: the first primary's volume uuid
    Uuid boot;      ///< boot id at the last attach
    std::uint64_t sectors = 0;
    std::uint64_t pending_sectors = 0;
    std::uint64_t generation = 0;
    std::uint64_t base = 0;
    Term term;
    Role role = Role::kPrimary;
    PairState state = PairState::kUnpaired;
    bool lost_power = false;
    Choice choice = Choice::kNone;
    std::string peer_node;
    std::string peer_volume;
    friend bool operator==(const Superblock&, const Superblock&) = default;
};

enum class MetadataOp : std::uint8_t {
    kSuperblock = 1,
    kSetRegions = 2,
    kClearRegions = 3,
    kSetTracks = 4,
    kClearTracks = 5,
    kResetMaps = 6,
};

struct MetadataChange {
    MetadataOp op = MetadataOp::kResetMaps;
    Superblock superblock;  ///< kSuperblock only
    std::vector<Run> runs;  ///< the set and clear operations only
    friend bool operator==(const MetadataChange&, const MetadataChange&) = default;
};

/// One record: changes applied in order. REQUIRES: names fit their fields.
[[nodiscard]] std::vector<std::byte> encode_record(const std::vector<MetadataChange>& changes);
/// Empty when decode_record would succeed.
[[nodiscard]] std::string why_record_invalid(ConstBytes record);
[[nodiscard]] Result<std::vector<MetadataChange>> decode_record(ConstBytes record);

class PairMetadata {
  public:
    PairMetadata(DurableLog& log, LogClientId client, Executor& home) : log_(log), client_(client), home_(home) {}

    /// Reads what the log kept. `sectors`: size of the volume, which the maps cover. Errors: kCorrupt: nothing is
    /// known.
    Result<void> recover(SectorCount sectors);
    void resize(SectorCount sectors);
    /// Lets records being appended end; later ones fail with kAborted.
    Task<void> stop();

    [[nodiscard]] const Superblock& superblock() const { return superblock_; }
    [[nodiscard]] const Bitmap& regions() const { return regions_; }
    [[nodiscard]] const Bitmap& tracks() const { return tracks_; }

    /// What is durable may be newer than the memory (PM6); commit({}) settles it.
    [[nodiscard]] bool uncertain() const { return uncertain_; }

    /// Applies `changes` durably, in order. Errors: the log's; nothing is then changed in memory, and uncertain().
    Task<Result<void>> commit(std::vector<MetadataChange> changes);
    Task<Result<void>> commit_superblock(Superblock next);
    /// Marks durably; free of I/O when all of `run` is marked already.
    Task<Result<void>> ensure_regions(Run run);
    Task<Result<void>> ensure_tracks(Run run);
    /// Clears in memory now and durably soon (PM4).
    Task<Result<void>> clear_regions(std::vector<Run> runs);
    Task<Result<void>> clear_tracks(std::vector<Run> runs);

    /// Regions as tracks.
    [[nodiscard]] std::vector<Run> regions_as_tracks() const;
    /// Before start: the volume's metadata is damaged.
    void mark_need_full();
    [[nodiscard]] std::uint64_t records() const { return records_; }

  private:
    struct Batch {
        std::vector<MetadataChange> changes;
        Event done;
        Result<void> result;
    };
    Task<void> write_batches();
    Task<Result<void>> write(const Batch& batch);
    Task<Result<void>> append(std::vector<MetadataChange> changes);
    void offer_checkpoints();
    Task<Result<void>> checkpoint();
    Task<Result<void>> write_checkpoint(std::shared_ptr<Batch> beside);
    void apply(const std::vector<MetadataChange>& changes);

    DurableLog& log_;
    LogClientId client_;
    Executor& home_;
    Superblock superblock_;
    Bitmap regions_;
    Bitmap tracks_;
    std::shared_ptr<Batch> pending_;
    std::shared_ptr<Batch> writing_;
    std::uint64_t records_ = 0;
    bool uncertain_ = false;
    std::shared_ptr<char> alive_ = std::make_shared<char>();  ///< until stop()
    Gate gate_;
};

}  // namespace gemel::replication
