// SPDX-License-Identifier: Apache-2.0
// Missed record: what an array keeps in its durable log while a member is lost, so that the member, when it comes back,
// gets only what it missed: the regions of columns that may have changed since, and how the member is known again.
//
// Invariants:
//   MR1 A base replaces all records before it; the newest base of an episode and all additions behind it together name
//       every region that a member listed in the base may lack.
//   MR2 Naming too much is harmless. Records of another episode than the superblock's say nothing; one that cannot be
//       understood makes all of them say nothing, and the members are rebuilt whole.
//   MR3 A member is known by its uuid and by its newest superblock, epoch and incarnation: an older copy of it, or one
//       that was started elsewhere since, has another one.
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gemel/durable_log.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid {

inline constexpr LogClientId kLogClientMissed = 4U << 16U;
inline constexpr std::uint16_t kMissedVersion = 1;
inline constexpr std::size_t kMissedHeaderBytes = 40;
inline constexpr std::size_t kMissedMemberBytes = 72;
inline constexpr std::uint64_t kMaxMissedRegions = 1U << 18U;  ///< 32 KiB of bits

/// A member that is lost, and which superblock it can have.
struct LostMember {
    std::uint16_t place = 0;
    Uuid uuid;
    SuperblockStamp taken;    ///< the newest that it has surely taken
    SuperblockStamp offered;  ///< the newest that it may have taken; those between are of the same incarnation
    friend bool operator==(const LostMember&, const LostMember&) = default;

    /// MR3.
    [[nodiscard]] bool is(const Uuid& device, const SuperblockStamp& newest) const;
};

/// Columns are kept in regions of this many: a power of two times the strip.
struct MissedShape {
    std::uint64_t columns = 0;
    std::uint32_t region = 1;
    friend bool operator==(const MissedShape&, const MissedShape&) = default;

    /// `record_bytes`: the most that a base may have.
    static MissedShape of(const Geometry& geometry, std::size_t record_bytes);
    [[nodiscard]] std::uint64_t regions() const { return (columns + region - 1) / region; }
};

/// Regions, as bits.
class RegionSet {
  public:
    RegionSet() = default;
    explicit RegionSet(std::uint64_t regions) : regions_(regions), words_((regions + 63) / 64) {}
    [[nodiscard]] std::uint64_t regions() const { return regions_; }
    [[nodiscard]] bool contains(std::uint64_t region) const { return (words_[region / 64] >> region % 64 & 1U) != 0; }
    [[nodiscard]] std::uint64_t count() const;
    void add(std::uint64_t region) { words_[region / 64] |= 1ULL << region % 64; }
    void add(const RegionSet& other);
    void clear();
    friend bool operator==(const RegionSet&, const RegionSet&) = default;

  private:
    std::uint64_t regions_ = 0;
    std::vector<std::uint64_t> words_;
};

/// Numbers on disk: only added.
enum class MissedKind : std::uint16_t {
    kAdd = 1,
    kBase = 2,
};

struct MissedRecord {
    MissedKind kind = MissedKind::kAdd;
    std::uint64_t episode = 0;  ///< of absence; random, not 0
    MissedShape shape;
    std::vector<LostMember> members;     ///< of a base
    RegionSet set;                       ///< of a base
    std::vector<std::uint32_t> regions;  ///< of an addition: ascending
    friend bool operator==(const MissedRecord&, const MissedRecord&) = default;
};

/// REQUIRES: why_invalid gives nothing.
std::vector<std::byte> encode(const MissedRecord& record);
/// Errors: kUnsupported: a newer version. kCorrupt.
Result<MissedRecord> decode_missed_record(ConstBytes bytes);
/// Why no array can have written it; nothing when one can.
std::optional<std::string> why_invalid(const MissedRecord& record);

struct MissedState {
    std::uint64_t base = 0;  ///< its position in the log
    std::vector<LostMember> members;
    RegionSet set;
};

/// MR1. `records`: in the order of the log. Nothing: they say nothing of this episode. Errors: MR2.
Result<std::optional<MissedState>> recover_missed(const std::vector<LogRecord>& records, std::uint64_t episode,
                                                  const MissedShape& shape);

}  // namespace gemel::raid
