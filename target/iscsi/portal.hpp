// SPDX-License-Identifier: Apache-2.0
// Server: the iSCSI front end as the rest of the daemon sees it. It listens on the portals, logs initiators in on the
// login executor, and moves each session to the I/O processor that has the fewest.
//
// Invariants:
//   P1  The registry of sessions changes on the login executor only; a session's own state on its processor only.
//   P2  A session leaves the registry after its last command has ended (its device I/O is complete).
//   P3  Everything that an unauthenticated peer can make us keep is bounded by ServerLimits.
// Threads: construction, listen(), stop(), status(), statistics() and destruction on the login executor.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/ip_network.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "target/iscsi/chap.hpp"
#include "target/iscsi/statistics.hpp"

namespace gemel::scsi {
class LogicalUnit;
}

namespace gemel::iscsi {

/// A logical unit behind a number of a target.
struct LunDefinition {
    std::uint64_t number = 0;  ///< 0..16383
    scsi::LogicalUnit* unit = nullptr;
    std::vector<std::string> initiators;     ///< names of those who see it, '*' matches any run; empty: everyone
    std::vector<std::string> read_only_for;  ///< names of those who cannot write to it; empty: nobody
    std::string volume;                      ///< what statistics call it
};

/// One target node. The logical units outlive the server.
struct TargetDefinition {
    std::string iqn;                              ///< "iqn.2026-11.dev.gemel:ram"
    std::string alias;                            ///< may be empty
    std::vector<LunDefinition> luns;              ///< of one number several, if they are for different initiators
    std::vector<std::string> allowed_initiators;  ///< names, '*' matches any run; empty admits everyone
    std::uint16_t portal_group_tag = 1;
    std::vector<IpNetwork> allowed_networks;  ///< where initiators come from; empty: anywhere
    ChapGate chap;
};

/// Bounds on what peers can use. Every one of them is enforced before memory is taken.
struct ServerLimits {
    std::uint32_t sessions = 1024;                 ///< normal and discovery sessions together
    std::uint32_t unauthenticated = 256;           ///< connections that have not logged in yet
    std::uint32_t unauthenticated_per_peer = 128;  ///< the same from one address; below the total
    Duration login_timeout = std::chrono::seconds(15);
    Duration keepalive = std::chrono::seconds(15);  ///< silence before a NOP-In; twice that closes the connection
    std::uint32_t command_window = 128;             ///< 1..256: commands of a session that are not yet answered
    std::uint32_t max_recv_data_segment_length = 256 * 1024;
    std::uint32_t max_burst_length = 1024 * 1024;
    std::uint32_t first_burst_length = 256 * 1024;
    std::uint32_t max_outstanding_r2t = 4;
    std::size_t data_memory = 256U << 20U;  ///< buffers that commands of all sessions hold; at least 8 MiB
};

struct ServerConfig {
    std::vector<std::string> portals;  ///< "127.0.0.1:3260", "[::1]:3260"; port 0 lets the system choose
    std::vector<TargetDefinition> targets;
    ServerLimits limits;
    ChapSecrets chap;
    ChapGate discovery;  ///< of discovery sessions
};

struct SessionStatus {
    std::string initiator;
    std::string target;  ///< empty for a discovery session
    std::string isid;    ///< 12 hexadecimal digits
    std::uint16_t tsih = 0;
    std::string peer_address;
    std::uint32_t connections = 0;
    std::uint64_t commands = 0;
    std::uint64_t bytes_in = 0;   ///< data of writes
    std::uint64_t bytes_out = 0;  ///< data of reads
    std::string chap_user;        ///< empty: it did not have to prove anything
    bool mutual_chap = false;     ///< the target has proven itself too
};

struct ServerStatus {
    std::vector<SessionStatus> sessions;
    std::uint32_t logging_in = 0;  ///< connections that have not logged in yet
    std::uint64_t logins = 0;
    std::uint64_t login_failures = 0;
    std::array<std::uint64_t, kLoginFailures.size()> login_failures_by_status{};  ///< rows as in kLoginFailures
    std::uint64_t refused_connections = 0;                                        ///< over a limit
    std::uint64_t protocol_errors = 0;  ///< connections whose peer broke the protocol, or never spoke it
};

class Server {
  public:
    /// REQUIRES: limits.command_window in 1..256, processors not empty; env, executors and logical units outlive it.
    Server(Environment& env, ServerConfig config, Executor& login_executor, std::vector<Executor*> processors);
    /// REQUIRES: stop() has ended, or listen() was never called.
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Opens every portal, or none: the error names the one that could not be opened and why.
    Result<void> listen();
    /// One per portal, with the port that was chosen.
    [[nodiscard]] std::vector<std::string> portal_addresses() const;
    /// Closes listeners and connections, and waits until every command in flight has ended. Idempotent.
    Task<void> stop();
    [[nodiscard]] ServerStatus status() const;
    [[nodiscard]] ServerStatistics statistics() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::iscsi
