// SPDX-License-Identifier: Apache-2.0
// What lies on the members of an array, read offline: superblocks, areas, volumes, the durable log.
//
// Invariants:
//   IN1 Nothing is written, and nothing that lies on a member (any bytes) ends in more than a line of the report.
//   IN2 Memory is bounded by the log areas of the members given: one member's log is read in pieces, its valid pages
//   are
//       kept.
// Threads: one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "raid/log_page.hpp"
#include "raid/missed_record.hpp"
#include "raid/superblock.hpp"

namespace gemel::inspect {

/// A member to look at.
class MemberImage {
  public:
    virtual ~MemberImage() = default;
    [[nodiscard]] virtual std::uint64_t bytes() const = 0;
    /// Fills `to` from byte `offset`; false if any of it cannot be read. REQUIRES: offset + to.size() <= bytes().
    virtual bool read(std::uint64_t offset, MutableBytes to) = 0;
};

struct SlotReport {
    enum class Kind : std::uint8_t { kValid, kNone, kDamaged, kUnsupported, kUnreadable };
    Kind kind = Kind::kNone;
    std::uint64_t offset = 0;  ///< bytes from the start of the member
    std::string why;           ///< unless valid
    raid::Superblock superblock;
};

struct LogReport {
    std::uint64_t pages = 0;  ///< room for so many
    std::uint64_t valid = 0;
    std::uint64_t blank = 0;  ///< no page was ever written there
    std::uint64_t foreign = 0;
    std::uint64_t damaged = 0;
    std::uint64_t unreadable = 0;
    std::uint64_t oldest_sequence = 0;  ///< of the valid ones
    std::uint64_t newest_sequence = 0;
};

struct MemberReport {
    std::string name;
    std::uint64_t bytes = 0;
    std::array<SlotReport, 2> slots;
    std::optional<std::size_t> newest;  ///< slot
    std::optional<LogReport> log;       ///< where a superblock says where it is
};

/// The records of one client, of those that recovery would give it.
struct ClientRecords {
    std::uint64_t records = 0;
    std::uint64_t bytes = 0;
    std::uint64_t first_position = 0;
    std::uint64_t last_position = 0;
};

/// What the records of the redo log say (raid/redo_log.hpp).
struct RedoSummary {
    std::uint64_t valid = 0;           ///< a start does them again
    std::uint64_t voided = 0;          ///< by the superblock
    std::uint64_t damaged = 0;         ///< not void, and they cannot be understood
    std::uint64_t bytes = 0;           ///< of members, in valid ones
    std::uint64_t partial = 0;         ///< records of partial parity, not void
    std::uint64_t partial_blocks = 0;  ///< blocks of columns that they speak of
    std::optional<std::uint64_t> newest_stripe;
};

struct LogSummary {
    std::uint64_t generation = 0;
    std::uint64_t tail = 0;
    bool records_lost = false;
    std::optional<std::string> corrupt;
    std::map<std::uint32_t, ClientRecords> clients;
    RedoSummary redo;
    std::optional<raid::MissedState> missed;  ///< what lost members get when they come back
    raid::MissedShape missed_shape;
};

struct Report {
    std::vector<MemberReport> members;
    /// Place in `members` of the one whose superblock is the newest of the array most of them belong to.
    std::optional<std::size_t> newest;
    std::optional<LogSummary> log;      ///< of that array, from all its members given
    std::vector<std::string> problems;  ///< what an administrator should look at
};

/// `names` and `images` go together. REQUIRES: as many of one as of the other.
Report look_at(const std::vector<std::string>& names, const std::vector<MemberImage*>& images);

}  // namespace gemel::inspect
