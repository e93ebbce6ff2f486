// SPDX-License-Identifier: Apache-2.0
// The network seam: byte streams, listeners and the network that makes them. TCP in the daemon, SimNetwork in tests.
// Threads: a stream belongs to the executor that opened or accepted it, until rebind().
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gemel/bytes.hpp"
#include "gemel/executor.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"

namespace gemel {

class Stream {
  public:
    virtual ~Stream() = default;
    /// Reads at least one byte, at most to.size(). 0 means that the peer has closed its side.
    /// Errors: kClosed after close(), kIo. One read at a time.
    virtual Task<Result<std::size_t>> read_some(MutableBytes to) = 0;
    /// Writes all parts in order. One write at a time; may run beside a read. The parts are borrowed until it returns.
    virtual Task<Result<void>> write(std::span<const ConstBytes> parts) = 0;
    /// Ends pending operations with kClosed and drops the connection. Idempotent. Destroying a stream with an operation
    /// pending is not allowed: close, wait for it, then destroy.
    virtual void close() = 0;
    /// Moves the stream to `executor`. REQUIRES: called on the present executor, no operation pending.
    virtual void rebind(Executor& executor) = 0;
    [[nodiscard]] virtual std::string local_address() const = 0;  ///< "127.0.0.1:3260", "[::1]:3260"
    [[nodiscard]] virtual std::string peer_address() const = 0;
    /// The name that the other end has proven to have; empty: it has proven none.
    [[nodiscard]] virtual std::string peer_identity() const { return {}; }
};

class Listener {
  public:
    virtual ~Listener() = default;
    /// Errors: kClosed after close(); kResources when descriptors are short (the caller waits and goes on).
    virtual Task<Result<std::unique_ptr<Stream>>> accept() = 0;
    virtual void close() = 0;
    [[nodiscard]] virtual std::string local_address() const = 0;
};

class Network {
  public:
    virtual ~Network() = default;
    /// Address: "host:port" or "[v6]:port"; port 0 lets the system choose one.
    virtual Result<std::unique_ptr<Listener>> listen(std::string_view address) = 0;
    /// Errors: kTimedOut after `timeout`, kIo with the system's reason.
    virtual Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) = 0;
};

/// Fills `to` completely. Errors: kClosed when the stream ends before that.
inline Task<Result<void>> read_exactly(Stream& stream, MutableBytes to) {
    while (!to.empty()) {
        CO_TRY(const std::size_t n, co_await stream.read_some(to));
        if (n == 0) {
            co_return fail(Errc::kClosed, "the peer closed the connection");
        }
        to = to.subspan(n);
    }
    co_return Result<void>{};
}

}  // namespace gemel
