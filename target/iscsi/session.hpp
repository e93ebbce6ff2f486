// SPDX-License-Identifier: Apache-2.0
// A session as the login executor and its processor share it, and what a connection may ask of the server.
//
// Invariants:
//   N1  Identity does not change after the login. Counters are atomics with one writer.
//   N2  `connection` is set and read on the session's processor only.
// Threads: see N1, N2; `ended` on the login executor.
#pragma once

#include <atomic>
#include <span>
#include <string>

#include "gemel/stream.hpp"
#include "gemel/sync.hpp"
#include "target/iscsi/login.hpp"
#include "target/iscsi/memory_share.hpp"
#include "target/iscsi/portal.hpp"
#include "target/iscsi/statistics.hpp"

namespace gemel::iscsi {

class Connection;

struct Session {
    std::string initiator;  ///< a valid iSCSI name
    std::array<std::byte, 6> isid{};
    std::uint16_t tsih = 0;
    std::uint16_t connection_id = 0;
    const TargetDefinition* target = nullptr;  ///< null: discovery session
    std::string peer_address;
    std::string local_address;
    std::string chap_user;  ///< empty: it did not have to prove anything
    bool mutual_chap = false;
    SessionParameters parameters;
    Executor* executor = nullptr;  ///< its processor

    std::atomic<std::uint64_t> commands{0};
    std::atomic<std::uint64_t> bytes_in{0};
    std::atomic<std::uint64_t> bytes_out{0};
    std::atomic<std::uint64_t> digest_errors{0};
    std::atomic<std::uint64_t> ignored{0};   ///< requests with a CmdSN outside the window
    std::atomic<std::uint64_t> rejected{0};  ///< PDUs answered by Reject
    std::vector<LunStatistics> luns;         ///< of the target, in its order
    std::vector<std::size_t> visible;  ///< places in `luns` of those that the initiator sees; fixed as identity is

    Connection* connection = nullptr;  ///< N2
    bool close_requested = false;      ///< on the processor
    Event ended;                       ///< out of the registry

    [[nodiscard]] bool discovery() const { return target == nullptr; }
    /// 12 hexadecimal digits.
    [[nodiscard]] std::string isid_text() const;
};

/// Why tasks of other sessions are aborted: after a reset every nexus gets its unit attention from the unit itself.
enum class AbortCause : std::uint8_t { kTaskSetCleared, kReset };

/// The server, as a connection sees it.
class SessionHost {
  public:
    virtual ~SessionHost() = default;
    /// The answer to SendTargets=`request` as key=value pairs: "All", empty (the session's own target) or a name.
    /// Threads: any.
    [[nodiscard]] virtual std::string send_targets(const Session& session, std::string_view request) const = 0;
    /// Aborts the tasks of every other session on these units and waits until they have ended.
    /// Threads: called on, and ends on, the session's processor.
    virtual Task<void> abort_elsewhere(Session& issuer, std::vector<scsi::LogicalUnit*> units, AbortCause cause) = 0;
    /// Begins to end every other session of the issuer's target (TARGET COLD RESET).
    /// Threads: called on, and ends on, the session's processor.
    virtual Task<void> drop_other_sessions(Session& issuer) = 0;
    /// Threads: any.
    [[nodiscard]] virtual MemoryBudget& memory() = 0;
    /// Threads: any.
    virtual void note_protocol_error(const Session& session, const std::string& what) = 0;
};

}  // namespace gemel::iscsi
