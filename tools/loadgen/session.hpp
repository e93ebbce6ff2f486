// SPDX-License-Identifier: Apache-2.0
// One iSCSI session: a libiscsi context, its login and re-login, and the slots whose commands it carries.
//
// Invariants:
// S1  a slot with an operation keeps it, with the same bytes, until a status settles it: after a lost connection the
//     same command is sent again, as a host's SCSI layer does.
// S2  every login of a session uses the same ISID, so that the target ends the old one's commands first
//     (session reinstatement, RFC 7143 §6.3.5).
// S3  nothing is submitted from a callback while the context is being torn down.
// Threads: one; libiscsi calls back only from service() and from the teardown.
#pragma once

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "tools/loadgen/options.hpp"
#include "tools/loadgen/workload.hpp"

namespace gemel::loadgen {

using SteadyClock = std::chrono::steady_clock;
using TimePoint = SteadyClock::time_point;

struct TargetAddress {
    std::string portal;
    std::string target;
    int lun = 0;
    /// Name and secret of CHAP, and those that the target must have; empty: none.
    std::string user;
    std::string password;
    std::string target_user;
    std::string target_password;
};

/// What a finished command means to its owner.
enum class Outcome : unsigned char {
    kGood,    ///< GOOD status
    kRetry,   ///< unit attention, busy, standby while reconnecting: send it again soon
    kBroken,  ///< the connection went; send it again after the next login
    kFailed,  ///< any other status
};

class Session;

/// Room for one command and its data.
struct Slot {
    Session* session = nullptr;
    scsi_task* task = nullptr;
    scsi_iovec piece{};  ///< libiscsi keeps a pointer to it while a read is in flight
    std::unique_ptr<std::byte[]> memory;
    MutableBytes data;
    std::optional<Operation> operation;
    bool in_flight = false;
    TimePoint first_sent;  ///< of this operation, retries included
    TimePoint not_before;  ///< when to send again
};

/// Told about every command that ended.
class SessionOwner {
  public:
    virtual ~SessionOwner() = default;
    virtual void on_ready(Session& session) = 0;
    virtual void on_done(Slot& slot, Outcome outcome, const std::string& why) = 0;
    virtual void on_lost(Session& session, const std::string& why) = 0;
};

class Session {
  public:
    enum class State : unsigned char { kIdle, kConnecting, kReady, kLost };

    Session(SessionOwner& owner, const Options& options, const TargetAddress& target, std::uint32_t index);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void connect();
    /// Ends the context; commands in flight stay in their slots (S1).
    void disconnect();
    /// Logs out politely, waiting at most `limit`. REQUIRES: nothing in flight.
    void log_out(std::chrono::milliseconds limit);
    /// Sends the slot's operation. REQUIRES: ready, the slot has an operation and is not in flight.
    void submit(Slot& slot);

    [[nodiscard]] int descriptor() const;
    [[nodiscard]] int wanted_events() const;
    void service(int events);

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] std::uint32_t index() const { return index_; }
    [[nodiscard]] std::uint32_t block_bytes() const { return block_bytes_; }
    [[nodiscard]] std::uint64_t sectors() const { return sectors_; }
    [[nodiscard]] TimePoint connect_started() const { return connect_started_; }
    std::vector<Slot>& slots() { return slots_; }

  private:
    static void connected(iscsi_context* context, int status, void* data, void* self);
    static void capacity_known(iscsi_context* context, int status, void* data, void* self);
    static void completed(iscsi_context* context, int status, void* data, void* slot);
    void lost(const std::string& why);
    [[nodiscard]] std::string error_text() const;

    SessionOwner& owner_;
    const Options& options_;
    const TargetAddress& target_;
    std::uint32_t index_;
    iscsi_context* context_ = nullptr;
    State state_ = State::kIdle;
    bool tearing_down_ = false;
    std::uint32_t block_bytes_ = 512;
    std::uint64_t sectors_ = 0;
    TimePoint connect_started_;
    scsi_task* capacity_task_ = nullptr;
    std::vector<Slot> slots_;
};

/// Parses iscsi://host:port/target/lun. Empty with `why` set when it is wrong.
std::optional<TargetAddress> parse_url(const std::string& url, std::string& why);

}  // namespace gemel::loadgen
