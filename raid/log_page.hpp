// SPDX-License-Identifier: Apache-2.0
// Log page: the 4 KiB unit of the durable log on a member, and what a set of pages found on the members means.
//
// Invariants:
//   LP1 Sequences are never used twice; page s lies in slot s mod slots of each member that has a copy.
//   LP2 A batch is consecutive pages, its records begin at the start of its first page. A batch is submitted only when
//       the one before is durable; so at most the last batch can be torn.
//   LP3 `previous` links a page to the page before it in the log. It differs from sequence - 1 only at the first page
//       of a generation, which skips what was torn before.
//   LP4 `head` is the first page of the oldest batch still needed when the page was written; nothing from the newest
//       durable head on is ever overwritten.
// Threads: any.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"
#include "gemel/units.hpp"

namespace gemel::raid {

inline constexpr std::size_t kLogPageBytes = kBlockBytes;
inline constexpr std::size_t kLogHeaderBytes = 104;
inline constexpr std::size_t kLogPayloadBytes = kLogPageBytes - kLogHeaderBytes;
inline constexpr std::size_t kLogRecordHeaderBytes = 16;
inline constexpr std::uint32_t kLogVersion = 1;
inline constexpr std::uint64_t kMinLogPages = 16;         ///< of the log area
inline constexpr std::uint64_t kMaxLogPages = 1U << 18U;  ///< recovery reads all of them into memory
inline constexpr std::uint64_t kMaxBatchPages = 1024;

/// Beyond what any log reaches; far enough from the end of 64 bits to go on counting from there.
inline constexpr std::uint64_t kMaxLogGeneration = 1ULL << 28U;
inline constexpr std::uint64_t kMaxLogSequence = 1ULL << 56U;
inline constexpr std::uint64_t kMaxLogPosition = 1ULL << 62U;

enum LogPageFlag : std::uint16_t {
    kLogLastOfBatch = 1,
    kLogFirstOfGeneration = 2,
    /// Records were lost in an earlier generation: a client without records must take everything as dirty (D3).
    kLogRecordsLost = 4,
};

struct LogPageHeader {
    Uuid array_uuid;
    std::uint64_t generation = 0;
    std::uint64_t sequence = 0;
    std::uint64_t previous = 0;
    std::uint64_t head = 0;
    std::uint64_t batch_first = 0;
    std::uint64_t next_position = 0;  ///< above every position given out up to this batch
    std::uint64_t epoch = 0;          ///< of the superblock, for people who look at it
    std::uint16_t flags = 0;
    std::uint16_t copy = 0;
    std::uint16_t copies = 0;
    std::uint32_t payload_bytes = 0;
    friend bool operator==(const LogPageHeader&, const LogPageHeader&) = default;
};

/// Fills the page's header and checksum around a payload already at kLogHeaderBytes; zeros what is behind it.
void encode(const LogPageHeader& header, std::span<std::byte, kLogPageBytes> page);

/// Errors: kNotFound: no page. kUnsupported: a newer version. kCorrupt, also for numbers that no log reaches.
Result<LogPageHeader> decode_log_page(std::span<const std::byte, kLogPageBytes> page);

/// Why the fields contradict one another; nothing when they are right.
std::optional<std::string> why_invalid(const LogPageHeader& header);

struct LogPage {
    LogPageHeader header;
    std::vector<std::byte> payload;
};

/// The pages found on all members, one per sequence.
class LogPages {
  public:
    /// Keeps the page unless one of a newer generation has its sequence.
    void add(LogPage page);
    [[nodiscard]] const std::map<std::uint64_t, LogPage>& by_sequence() const { return pages_; }

  private:
    std::map<std::uint64_t, LogPage> pages_;
};

struct RecoveredRecord {
    std::uint32_t client = 0;
    std::uint64_t position = 0;
    std::uint64_t batch_first = 0;
    std::vector<std::byte> bytes;
};

struct LogState {
    std::uint64_t generation = 0;     ///< newest seen
    std::uint64_t tail = 0;           ///< newest page of a complete batch
    std::uint64_t next_sequence = 1;  ///< above every one seen
    std::uint64_t next_position = 1;
    bool records_lost = false;
    std::vector<RecoveredRecord> records;
    std::optional<std::string> corrupt;  ///< why the records cannot be trusted to be complete
};

/// Recovery: the records from the newest durable head to the newest complete batch. `generation` is the one that the
/// superblock knows to have begun.
LogState recover_log(const LogPages& pages, std::uint64_t generation);

}  // namespace gemel::raid
