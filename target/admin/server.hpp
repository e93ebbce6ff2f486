// SPDX-License-Identifier: Apache-2.0
// AdminServer: JSON-RPC 2.0 over a listener, one JSON text per line, many clients at once.
//
// Invariants:
//   AS1 A client's requests are answered in order, one at a time; clients do not wait for one another.
//   AS2 What a client can make us keep is bounded: clients, bytes of a request, events on their way, seconds of a
//       write that it does not read.
//   AS3 Clients are accepted until stop(), whatever accepting them says in between.
//   AS4 stop() ends every connection; a method that is running is waited for.
// Threads: everything on `home`.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>

#include "gemel/environment.hpp"
#include "gemel/result.hpp"
#include "gemel/sync.hpp"
#include "gemel/task.hpp"
#include "target/admin/event_ring.hpp"
#include "target/admin/management.hpp"

namespace gemel::admin {

struct ServerOptions {
    std::string address;  ///< of Network::listen: "unix:/var/lib/gemel/admin.sock"
    std::size_t max_clients = 64;
    std::size_t max_request_bytes = 64U << 10U;
    Duration write_timeout = std::chrono::seconds(30);
    /// Whether whoever is at the other end may use this socket; the error is sent to it. nullptr: everyone.
    Result<void> (*admit)(const Stream& stream) = nullptr;
};

class AdminServer {
  public:
    /// REQUIRES: everything given outlives it.
    AdminServer(Environment& environment, ServerOptions options, Management& management, EventRing& events);
    /// REQUIRES: stop() has ended, or start() was never called or failed.
    ~AdminServer();
    AdminServer(const AdminServer&) = delete;
    AdminServer& operator=(const AdminServer&) = delete;

    /// Errors: those of Network::listen.
    Result<void> start();
    Task<void> stop();
    [[nodiscard]] std::size_t clients() const { return connections_.size(); }

  private:
    class Connection;
    Task<void> accept_loop();
    Task<void> serve(std::unique_ptr<Stream> stream);

    Environment& environment_;
    const ServerOptions options_;
    Management& management_;
    EventRing& events_;
    std::unique_ptr<Listener> listener_;
    std::list<Connection*> connections_;
    Gate gate_;
};

}  // namespace gemel::admin
