// SPDX-License-Identifier: Apache-2.0
// TcpNetwork: the network seam over non-blocking sockets: TCP on IPv4 and IPv6, and Unix sockets ("unix:/path").
//
// Invariants:
//   TN1 An operation tries the system call first and waits (Asio, edge-triggered epoll) only after EAGAIN.
//   TN2 A socket joins the event loop of the processor that first waits on it, and leaves it at rebind().
//   TN3 After close() no call touches the descriptor: a waiter that is woken looks at the descriptor's holder again.
//   TN4 An operation that always succeeds at once gives way to other work after 32 times in one turn of the loop.
// Threads: a stream and a listener belong to one processor at a time; listen() and connect() on any processor.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "gemel/clock.hpp"
#include "gemel/stream.hpp"

namespace gemel {

class TcpNetwork final : public Network {
  public:
    explicit TcpNetwork(Clock& clock) : clock_(clock) {}

    /// "127.0.0.1:3260", "[::1]:3260", "name:3260", ":3260" (all IPv4), "[::]:3260" (both), "unix:/path" (mode 0600; a
    /// socket file that nobody listens on is replaced). Names are looked up at once, blocking.
    /// Errors: kInvalidArgument: not an address; kBusy: in use; kNotFound: no such name; kRefused: no permission; kIo.
    Result<std::unique_ptr<Listener>> listen(std::string_view address) override;

    /// Tries every address of a name until `timeout_ms` have passed. Names are looked up without blocking.
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override;

  private:
    Clock& clock_;
};

/// Who is at the other end of a stream accepted from a Unix listener (SO_PEERCRED). Errors: kUnsupported elsewhere.
struct PeerCredentials {
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::int32_t pid = 0;
};
Result<PeerCredentials> peer_credentials(const Stream& stream);

}  // namespace gemel
