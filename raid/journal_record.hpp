// SPDX-License-Identifier: Apache-2.0
// Journal record: what the dirty stripe journal appends to the durable log, and what the records found at a start mean.
//
// Invariants:
//   JR1 Records are cumulative: the newest checkpoint and all that follow it in the log together name every column
//       whose redundancy may be wrong; a checkpoint replaces everything before it.
//   JR2 Naming too much is harmless; a record that cannot be understood makes the whole journal unusable, and then
//       everything counts as named.
//   JR3 The log keeps the records whole (a checksum per page); their own checksum is against mistakes above it.
// Threads: any.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gemel/durable_log.hpp"
#include "raid/dirty_set.hpp"

namespace gemel::raid {

inline constexpr std::size_t kJournalHeaderBytes = 24;
inline constexpr std::size_t kJournalEntryBytes = 16;
inline constexpr std::uint16_t kJournalVersion = 1;

/// Numbers on disk: only added.
enum class JournalKind : std::uint16_t {
    kAdd = 1,
    kCheckpoint = 2,
};

struct JournalRecord {
    JournalKind kind = JournalKind::kAdd;
    /// Of a checkpoint: columns of the members from here on may be wrong, too.
    std::uint64_t cursor = 0;
    std::vector<DirtyEntry> entries;
    friend bool operator==(const JournalRecord&, const JournalRecord&) = default;
};

/// What an entry can name.
struct JournalShape {
    std::uint64_t stripes = 0;
    std::uint64_t columns = 0;
    std::uint32_t strip_blocks = 0;
    std::uint32_t data_strips = 0;
    /// Columns are counted through the strips of a stripe one after another, not for all of them at once.
    bool by_strip = false;

    explicit JournalShape(const Geometry& g)
        : stripes(g.stripes()),
          columns(g.columns()),
          strip_blocks(static_cast<std::uint32_t>(g.strip_sectors / kSectorsPerBlock)),
          data_strips(g.data_members()),
          by_strip(g.parities() == 0 && g.data_members() > 1) {}
    [[nodiscard]] std::uint64_t strip_columns() const { return std::uint64_t{strip_blocks} * kSectorsPerBlock; }
    /// The entry of untrusted columns [first, end), rounded out to blocks. REQUIRES: they lie in one strip's length.
    [[nodiscard]] DirtyEntry entry_of(std::uint64_t first, std::uint64_t end) const;
    /// The columns that an entry names, one range for each strip if they are counted so.
    template <class Each>
    void each_range(const DirtyEntry& e, Each each) const {
        const std::uint64_t from = std::uint64_t{e.box.first} * kSectorsPerBlock;
        const std::uint64_t to = std::uint64_t{e.box.end} * kSectorsPerBlock;
        for (std::uint32_t s = by_strip ? e.box.first_strip : 0; s <= (by_strip ? e.box.last_strip : 0U); ++s) {
            const std::uint64_t base = (e.stripe * (by_strip ? data_strips : 1) + s) * strip_columns();
            each(base + from, base + to);
        }
    }
    [[nodiscard]] BlockBox whole() const {
        return {0, static_cast<std::uint16_t>(strip_blocks), 0, static_cast<std::uint8_t>(data_strips - 1)};
    }
};

/// How many entries fit into a record of `bytes`.
constexpr std::size_t journal_entries_in(std::size_t bytes) {
    return bytes < kJournalHeaderBytes ? 0 : (bytes - kJournalHeaderBytes) / kJournalEntryBytes;
}

/// REQUIRES: why_invalid gives nothing.
std::vector<std::byte> encode(const JournalRecord& record);

/// Errors: kUnsupported: a newer version. kCorrupt.
Result<JournalRecord> decode_journal_record(ConstBytes bytes, const JournalShape& shape);

/// Why the record cannot be one of an array of this shape; nothing when it can.
std::optional<std::string> why_invalid(const JournalRecord& record, const JournalShape& shape);

struct JournalState {
    bool based = false;        ///< there is a checkpoint; without one the records say nothing
    std::uint64_t base = 0;    ///< its position in the log
    std::uint64_t cursor = 0;  ///< columns from here on are named
    std::vector<DirtyEntry> entries;
};

/// JR1. `records`: in the order of the log. Errors: JR2.
Result<JournalState> recover_journal(const std::vector<LogRecord>& records, const JournalShape& shape);

}  // namespace gemel::raid
