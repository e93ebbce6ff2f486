// SPDX-License-Identifier: Apache-2.0
// SimNetwork: named hosts with byte streams between them, in virtual time, from a seed.
//
// Invariants:
//   SN1 Bytes of one direction arrive in order and once, as with TCP, unless a fault of this file says otherwise.
//   SN2 A blocked direction loses nothing: what was sent arrives some time after it is unblocked, unless the connection
//       has been reset before.
//   SN3 Sent and unread bytes of a direction never exceed the window: a writer waits.
//   SN4 A host that lost power is silent: its peers learn of it from their own timers, or by a reset when it is back.
// Threads: the simulator's one. Streams resume their users on the executors that called them.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gemel/stream.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::sim {

/// One coroutine waits, anyone wakes it: it goes on where it was.
class Signal {
  public:
    auto wait() {
        struct Awaiter : ResumeWork {
            explicit Awaiter(Signal& s) : signal(s) {}
            Signal& signal;
            Executor* home = nullptr;
            [[nodiscard]] bool await_ready() const noexcept { return false; }
            void await_suspend(std::coroutine_handle<> h) noexcept {
                CHECK(signal.waiter_ == nullptr);
                handle = h;
                home = &Executor::current();
                signal.waiter_ = this;
                signal.home_ = home;
            }
            void await_resume() const noexcept {}
        };
        return Awaiter(*this);
    }
    void notify() {
        if (waiter_ != nullptr) {
            home_->post(*std::exchange(waiter_, nullptr));
        }
    }
    [[nodiscard]] bool waiting() const { return waiter_ != nullptr; }

  private:
    Work* waiter_ = nullptr;
    Executor* home_ = nullptr;
};

struct SimNetworkOptions {
    Duration min_latency = std::chrono::microseconds(30);
    Duration max_latency = std::chrono::microseconds(300);
    std::size_t window_bytes = 256U << 10U;
    std::size_t segment_bytes = 16U << 10U;
};

class SimNetwork {
  public:
    class Host;
    class Connection;

    SimNetwork(SimScheduler& scheduler, std::uint64_t seed, SimNetworkOptions options = {});
    ~SimNetwork();
    SimNetwork(const SimNetwork&) = delete;
    SimNetwork& operator=(const SimNetwork&) = delete;

    /// The network as the host of that name sees it; made at first use. Addresses are "name:port".
    Network& host(const std::string& name);

    /// Nothing gets from `from` to `to` until unblock (SN2).
    void block(const std::string& from, const std::string& to);
    void unblock(const std::string& from, const std::string& to);
    void partition(const std::string& a, const std::string& b);
    void heal(const std::string& a, const std::string& b);
    /// Ends every connection between the two at once; both sides see an error.
    void reset_connections(const std::string& a, const std::string& b);
    /// After so many more bytes from `from` to `to` the connection that carries them is reset.
    void cut_after(const std::string& from, const std::string& to, std::uint64_t bytes);
    /// The byte after so many more is changed, or the 1..64 bytes there are delivered twice.
    void corrupt_after(const std::string& from, const std::string& to, std::uint64_t bytes);
    void duplicate_after(const std::string& from, const std::string& to, std::uint64_t bytes);
    /// Nothing sent from `from` to `to` before `d` from now arrives earlier than that.
    void stall(const std::string& from, const std::string& to, Duration d);
    /// Added to the latency of both directions.
    void set_delay(const std::string& a, const std::string& b, Duration extra);
    /// Takes away everything above; planned faults too.
    void heal_all();

    enum class Death : std::uint8_t {
        kProcess,  ///< the kernel lives on and closes the connections
        kPower,    ///< silence (SN4)
    };
    /// All streams and listeners of the host fail from now on.
    void kill_host(const std::string& name, Death death);
    void revive_host(const std::string& name);

    [[nodiscard]] std::size_t connections(const std::string& a, const std::string& b) const;
    [[nodiscard]] std::uint64_t bytes_sent(const std::string& from, const std::string& to) const;
    [[nodiscard]] std::uint64_t faults() const { return faults_; }

  private:
    friend class Host;
    friend class Connection;
    friend class SimStream;
    friend class SimListener;

    /// One direction between two hosts.
    struct Path {
        bool blocked = false;
        std::optional<std::uint64_t> cut_in;
        std::optional<std::uint64_t> corrupt_in;
        std::optional<std::uint64_t> duplicate_in;
        TimePoint stalled_until{};
        Duration extra{};
        std::uint64_t bytes = 0;
    };
    Path& path(const std::string& from, const std::string& to) { return paths_[{from, to}]; }
    [[nodiscard]] Duration latency();
    [[nodiscard]] bool reachable(const std::string& from, const std::string& to);
    [[nodiscard]] std::vector<std::shared_ptr<Connection>> live(const std::string& a, const std::string& b) const;
    void kick(const std::string& from, const std::string& to);

    SimScheduler& scheduler_;
    SimExecutor& executor_;
    SeededRandom random_;
    SimNetworkOptions options_;
    std::map<std::string, std::unique_ptr<Host>> hosts_;
    std::map<std::pair<std::string, std::string>, Path> paths_;
    std::vector<std::weak_ptr<Connection>> connections_;
    std::uint64_t faults_ = 0;
};

}  // namespace gemel::sim
