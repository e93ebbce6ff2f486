// SPDX-License-Identifier: Apache-2.0
// DurableLog: a small log kept by an array on f+1 of its members, for what must survive any crash: the mirror's
// regions, changed tracks and pair superblocks today, the dirty stripe journal and tag tables next. Implemented in
// raid/.
//
// Invariants:
//   D1  append() returns success only when the record is durable on min(f+1, in-sync) members.
//   D2  After a crash, recovered() gives every durable record not yet dropped, in order of append, and possibly some
//       that were appended but not acknowledged, never one that was not appended.
//   D3  A damaged page is an error (kCorrupt) for the whole log, never a record silently missing: the clients then take
//       everything as dirty.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"

namespace gemel {

/// Who a record belongs to. Low 16 bits: number of the volume; above: what it is.
using LogClientId = std::uint32_t;
inline constexpr LogClientId kLogClientPair = 1U << 16U;
inline constexpr LogClientId kLogClientJournal = 2U << 16U;  ///< the array's own, of no volume
inline constexpr LogClientId kLogClientRedo = 3U << 16U;     ///< the same
inline constexpr LogClientId kLogClientReservations = 8U << 16U;

struct LogRecord {
    std::uint64_t position = 0;  ///< grows with every record; never repeated
    std::vector<std::byte> bytes;
};

class DurableLog {
  public:
    virtual ~DurableLog() = default;

    /// Appends a record of at most max_record_bytes(). Appends from all executors join one group commit; records of one
    /// caller that waits for each are in its order. Threads: any executor; ends on the caller's.
    /// Returns its position. Errors: kNoSpace: the log is full and its clients' checkpoints did not free any;
    /// kReadOnly, kDeviceGone: it cannot be made durable.
    virtual Task<Result<std::uint64_t>> append(LogClientId client, std::vector<std::byte> record) = 0;

    /// The records of `client` with positions below `position` are not needed any more.
    virtual void drop_before(LogClientId client, std::uint64_t position) = 0;

    /// What the log held for `client` when it was opened. kCorrupt: see D3.
    virtual Result<std::vector<LogRecord>> recovered(LogClientId client) = 0;

    /// When the log runs full it calls this, on the executor given, at most one at a time per client; the client
    /// appends its whole state as one record (a reserve is kept for that) and then drops what came before it.
    using Checkpoint = std::function<Task<Result<void>>()>;
    virtual void set_checkpoint(LogClientId client, Executor& executor, Checkpoint checkpoint) = 0;
    /// The client is not asked for checkpoints any more. Its records stay: it is there again after the next start.
    virtual void remove_client(LogClientId client) = 0;

    [[nodiscard]] virtual std::size_t max_record_bytes() const = 0;
};

}  // namespace gemel
