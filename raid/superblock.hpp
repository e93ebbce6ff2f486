// SPDX-License-Identifier: Apache-2.0
// Superblock: what every member says about itself and its array. Two slots at the end of the member, written in turn.
//
// Invariants:
//   SB1 A change is one superblock with epoch + 1, written with FUA to all in-sync members, on each to the slot that
//       does not hold the newest one there: that one is never overwritten. Then it is written once more, with the next
//       epoch, and nobody relies on it before that (SB5).
//   SB2 It is in effect if any in-sync member has it; assembly writes the newest again to all.
//   SB3 Unused bytes are zero; decode() accepts only what encode() can have made.
//   SB4 The slots are at the end of the device. On one that was extended the next change goes to its new end, to where
//       it overwrites nothing of the newest superblock, and those at the old end are wiped after that. Nothing is put
//       where they were before they are all at the new end.
//   SB5 `taken_by_all` is an epoch that every member which the superblock does not call failed, and the device of its
//       rebuild or replace, had taken before it was written; it never falls. So a device that is one of these and holds
//       an older superblock is an older copy (R10). What is written to members, or said of what they hold, relies on a
//       change whose epoch `taken_by_all` has reached: no copy from before that change can pass for a member.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"
#include "gemel/units.hpp"
#include "raid/geometry.hpp"
#include "raid/recovery_policy.hpp"

namespace gemel::raid {

inline constexpr std::size_t kSuperblockBytes = 32U * 1024U;
inline constexpr std::uint64_t kSuperblockSectors = kSuperblockBytes / kSectorBytes;
inline constexpr std::uint32_t kSuperblockVersion = 1;
inline constexpr std::size_t kMaxVolumes = 64;
inline constexpr std::size_t kMaxExtents = 8;
inline constexpr std::size_t kMaxUntrusted = 40;
inline constexpr std::size_t kMaxUnreadable = 1000;
inline constexpr std::size_t kArrayNameBytes = 64;
inline constexpr std::size_t kVolumeNameBytes = 48;

/// Numbers on disk: only added.
enum class AreaKind : std::uint16_t {
    kLog = 1,
    kJournal = 2,
    kRedo = 3,
    kChecksums = 4,
    kMirror = 5,
    kMigration = 6,
};
inline constexpr std::size_t kMaxAreas = 8;

struct AreaRecord {
    AreaKind kind = AreaKind::kLog;
    std::uint16_t version = 0;  ///< of what is in it; 0: nothing was ever written
    Lba lba;                    ///< on the member
    SectorCount sectors;
    friend bool operator==(const AreaRecord&, const AreaRecord&) = default;
};

struct MemberRecord {
    Uuid uuid;
    bool failed = false;    ///< misses acknowledged writes
    Uuid last_incarnation;  ///< of the array, when it was last in sync
    SectorCount sectors;    ///< of data on it: member_sectors, or if linear at least that; whole strips
    friend bool operator==(const MemberRecord&, const MemberRecord&) = default;
};

struct VolumeExtent {
    Lba lba;  ///< in the array's data
    SectorCount sectors;
    friend bool operator==(const VolumeExtent&, const VolumeExtent&) = default;
};

struct VolumeRecord {
    std::string name;
    Uuid uuid;
    std::uint16_t number = 0;
    SectorCount sectors;  ///< of the volume; its extents hold at least that
    std::vector<VolumeExtent> extents;
    friend bool operator==(const VolumeRecord&, const VolumeRecord&) = default;
};

/// Columns [first, end) of the members.
struct ColumnRange {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    friend bool operator==(const ColumnRange&, const ColumnRange&) = default;
};

/// Blocks of 4 KiB of a member's data that hold nothing known: a rebuild could not make them up.
struct UnreadableRange {
    std::uint16_t member = 0;
    std::uint64_t first = 0;
    std::uint32_t count = 0;
    friend bool operator==(const UnreadableRange&, const UnreadableRange&) = default;
};

/// A device is on its way into a place: until then its member is failed, or, in a replace, in sync.
struct RebuildRecord {
    bool active = false;
    std::uint16_t place = 0;
    std::uint64_t cursor = 0;  ///< columns below it are on the device, durably
    Uuid uuid;                 ///< of the device; the place's when the rebuild has ended
    friend bool operator==(const RebuildRecord&, const RebuildRecord&) = default;
};

/// A scrub that has not ended.
struct ScrubRecord {
    bool active = false;
    bool repair = false;
    std::uint64_t cursor = 0;      ///< columns below it were looked at
    std::uint64_t mismatched = 0;  ///< blocks that it has found so far
    friend bool operator==(const ScrubRecord&, const ScrubRecord&) = default;
};

/// Which superblock it is.
struct SuperblockStamp {
    std::uint64_t epoch = 0;
    Uuid incarnation;
    friend bool operator==(const SuperblockStamp&, const SuperblockStamp&) = default;
};

/// Whose missed extents the durable log has (missed_record.hpp).
struct MissedMarker {
    std::uint64_t episode = 0;  ///< of absence; 0: nobody's
    std::uint32_t members = 0;  ///< as bits
    friend bool operator==(const MissedMarker&, const MissedMarker&) = default;
};

struct Superblock {
    Uuid array_uuid;
    std::string array_name;
    std::uint16_t level = 0;  ///< LevelRow::id
    std::uint32_t strip_bytes = 0;
    std::uint16_t member_index = 0;  ///< whose superblock this is
    bool target = false;             ///< it is on the device of `rebuild`, not on the member of its place
    std::vector<MemberRecord> members;
    std::uint64_t epoch = 0;
    std::uint64_t taken_by_all = 0;      ///< SB5; 0: nothing is said
    Uuid incarnation;                    ///< random, of this assembly of the array
    Uuid previous_incarnation;           ///< of the assembly before
    bool clean = true;                   ///< no write of a host can be half done
    bool accepted = false;               ///< by force: where not resynced P tells what lay on the missing member
    std::uint64_t member_sectors = 0;    ///< of data on each member, on the smallest if linear
    std::uint64_t resync_cursor = 0;     ///< if clean: redundancy of columns below it is right, except `untrusted`
    std::vector<ColumnRange> untrusted;  ///< ascending, below the cursor
    RebuildRecord rebuild;
    std::vector<UnreadableRange> unreadable;          ///< ascending by member and block, merged
    RecoveryPolicy policy = RecoveryPolicy::kResync;  ///< of the assembly that wrote this
    ScrubRecord scrub;
    MissedMarker missed;
    std::uint64_t log_generation = 0;
    std::uint64_t redo_from = 0;  ///< redo records below this position of the log are void
    std::uint64_t map_epoch = 0;  ///< which pages of the checksum map count (CP3); 0: none was ever kept
    std::uint16_t next_volume_number = 1;
    std::vector<AreaRecord> areas;
    std::vector<VolumeRecord> volumes;
    AddedSpace added;  ///< what the array has grown by
    friend bool operator==(const Superblock&, const Superblock&) = default;

    /// Its address is that on the smallest member.
    [[nodiscard]] const AreaRecord& area(AreaKind kind) const;
    /// Data of a member before it grew.
    [[nodiscard]] std::uint64_t first_data(std::size_t member) const;
    /// Areas follow the first data of a member: so much farther than on the smallest.
    [[nodiscard]] std::uint64_t area_shift(std::size_t member) const;
    /// The first sector of a member's device behind all that is there but the slots.
    [[nodiscard]] std::uint64_t device_end(std::size_t member) const;
    /// Of the device that holds this superblock.
    [[nodiscard]] const Uuid& member_uuid() const { return target ? rebuild.uuid : members[member_index].uuid; }
    [[nodiscard]] SuperblockStamp stamp() const { return {epoch, incarnation}; }
    /// `uuid` is that of the device on its way into `place`.
    [[nodiscard]] bool rebuilds(std::size_t place, const Uuid& uuid) const {
        return rebuild.active && rebuild.place == place && rebuild.uuid == uuid;
    }
    /// The rebuild is that of a member that came back: its columns that no missed extent names are on it.
    [[nodiscard]] bool catches_up() const {
        return rebuild.active && (missed.members >> rebuild.place & 1U) != 0 && members[rebuild.place].failed &&
               members[rebuild.place].uuid == rebuild.uuid;
    }
};

/// Tells one device of a place from another, by the uuid that it has as its member.
inline std::uint64_t device_tag(const Uuid& uuid) {
    return load_le<std::uint64_t>(uuid.bytes.data());
}

/// REQUIRES: the level is known.
Geometry geometry_of(const Superblock& superblock);

/// REQUIRES: `superblock` is valid (why_invalid gives nothing).
void encode(const Superblock& superblock, std::span<std::byte, kSuperblockBytes> to);

/// Errors: kNotFound: no superblock here (no magic). kUnsupported: a newer version. kCorrupt: damaged or forged.
Result<Superblock> decode_superblock(std::span<const std::byte, kSuperblockBytes> from);

/// Why the fields contradict one another or their limits; nothing when they are right.
std::optional<std::string> why_invalid(const Superblock& superblock);

/// Pages that the map of the checksums has room for on each member; if linear, on the last one.
std::uint64_t map_pages(const Superblock& superblock);
/// Pages of it that are needed on each member for a unit of so many sectors of added data.
std::uint64_t unit_map_pages(const Superblock& superblock, std::uint64_t unit);
/// There is room for all of it: an array that an earlier version made may have less.
bool has_map_room(const Superblock& superblock);

/// Where slot 0 or 1 begins on a device of `sectors`. REQUIRES: sectors >= 2 * kSuperblockSectors.
constexpr Lba superblock_slot(SectorCount sectors, std::uint64_t slot) {
    return Lba(round_down(sectors.value, kSectorsPerBlock) - (2 - slot) * kSuperblockSectors);
}

/// Where a superblock is: in slot 0 or 1 at the end of a device that had, or has, so many sectors.
struct SlotPlace {
    std::uint64_t slot = 1;
    SectorCount device;
    friend constexpr bool operator==(const SlotPlace&, const SlotPlace&) = default;

    [[nodiscard]] constexpr Lba lba() const { return superblock_slot(device, slot); }
    [[nodiscard]] constexpr bool at_end_of(SectorCount sectors) const {
        return superblock_slot(device, 0) == superblock_slot(sectors, 0);
    }
};

/// SB1, SB4: where the next one goes on a device that now has `sectors`.
constexpr SlotPlace next_place(SlotPlace newest, SectorCount sectors) {
    const bool moves = sectors > newest.device && !newest.at_end_of(sectors);
    if (!moves || superblock_slot(sectors, 1) < newest.lba() + kSuperblockSectors) {
        return {1 - newest.slot, newest.device};
    }
    return {1, sectors};
}

}  // namespace gemel::raid
