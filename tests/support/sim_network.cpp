// SPDX-License-Identifier: Apache-2.0
#include "tests/support/sim_network.hpp"

#include <charconv>

namespace gemel::sim {

class SimListener;

/// Two directions between two hosts. Side 0 dialled, side 1 accepted; pipe i carries what side i writes.
class SimNetwork::Connection {
  public:
    Connection(SimNetwork& network, std::array<std::string, 2> hosts, std::array<std::string, 2> addresses)
        : network_(network) {
        for (std::size_t i = 0; i < 2; ++i) {
            sides_[i].host = std::move(hosts[i]);
            sides_[i].address = std::move(addresses[i]);
            pipes_[i].timer.connection = this;
            pipes_[i].timer.pipe = i;
            pipes_[i].timer.run = [](Work& w) noexcept {
                auto& t = static_cast<Delivery&>(w);
                t.connection->deliver(t.pipe);
            };
        }
    }
    ~Connection() {
        for (Pipe& p : pipes_) {
            network_.scheduler_.cancel(p.timer);
        }
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    Task<Result<std::size_t>> read(std::size_t side, MutableBytes to);
    Task<Result<void>> write(std::size_t side, std::span<const ConstBytes> parts);
    void close(std::size_t side);
    void lose_power(std::size_t side);
    void reset();
    /// Something was waiting for the path to open, or for its host.
    void unpark(std::size_t pipe, Duration wait);

    [[nodiscard]] bool idle(std::size_t side) const {
        return !pipes_[1 - side].readable.waiting() && !pipes_[side].writable.waiting();
    }
    [[nodiscard]] bool between(const std::string& a, const std::string& b) const {
        return (sides_[0].host == a && sides_[1].host == b) || (sides_[0].host == b && sides_[1].host == a);
    }
    [[nodiscard]] bool open(std::size_t side) const { return sides_[side].open; }
    [[nodiscard]] bool broken(std::size_t side) const { return !sides_[side].open || sides_[side].reset; }
    [[nodiscard]] const std::string& address(std::size_t side) const { return sides_[side].address; }
    [[nodiscard]] const std::string& host(std::size_t side) const { return sides_[side].host; }

  private:
    struct Delivery : Timer {
        Connection* connection = nullptr;
        std::size_t pipe = 0;
    };
    enum class Kind : std::uint8_t { kData, kFin, kReset };
    struct Segment {
        Kind kind;
        TimePoint due;
        std::vector<std::byte> bytes;
    };
    struct Pipe {
        std::deque<Segment> flying;
        std::size_t flying_bytes = 0;
        std::vector<std::byte> inbox;  ///< delivered; read up to `taken`
        std::size_t taken = 0;
        bool fin = false;     ///< the end of the stream has arrived
        bool cut = false;     ///< reset both sides once everything in flight has arrived
        bool parked = false;  ///< has something to deliver and cannot
        Signal readable;
        Signal writable;
        Delivery timer;
        [[nodiscard]] std::size_t held() const { return flying_bytes + inbox.size() - taken; }
    };
    struct Side {
        std::string host;
        std::string address;
        bool open = true;    ///< the user has not closed it and its host lives
        bool reset = false;  ///< operations fail with kIo
    };

    void push(std::size_t pipe, Kind kind, std::vector<std::byte> bytes);
    void fault(std::size_t pipe, std::vector<std::byte>& bytes);
    void arm(std::size_t pipe);
    void deliver(std::size_t pipe);
    void arrive(std::size_t pipe, Segment segment);
    void reset_side(std::size_t side);
    void shut(std::size_t side);
    [[nodiscard]] Path& path(std::size_t pipe) { return network_.path(sides_[pipe].host, sides_[1 - pipe].host); }

    SimNetwork& network_;
    std::array<Pipe, 2> pipes_;
    std::array<Side, 2> sides_;
};

class SimStream : public Stream {
  public:
    SimStream(std::shared_ptr<SimNetwork::Connection> connection, std::size_t side)
        : connection_(std::move(connection)), side_(side) {}
    ~SimStream() override {
        CHECK(connection_->idle(side_));
        connection_->close(side_);
    }
    SimStream(const SimStream&) = delete;
    SimStream& operator=(const SimStream&) = delete;

    Task<Result<std::size_t>> read_some(MutableBytes to) override { return connection_->read(side_, to); }
    Task<Result<void>> write(std::span<const ConstBytes> parts) override { return connection_->write(side_, parts); }
    void close() override { connection_->close(side_); }
    void rebind(Executor& /*executor*/) override { CHECK(connection_->idle(side_)); }
    [[nodiscard]] std::string local_address() const override { return connection_->address(side_); }
    [[nodiscard]] std::string peer_address() const override { return connection_->address(1 - side_); }

  private:
    std::shared_ptr<SimNetwork::Connection> connection_;
    std::size_t side_;
};

class SimNetwork::Host : public Network {
  public:
    Host(SimNetwork& network, std::string name) : network_(network), name_(std::move(name)) {}
    Result<std::unique_ptr<Listener>> listen(std::string_view address) override;
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override;
    void kill();
    void revive() { alive_ = true; }
    [[nodiscard]] bool alive() const { return alive_; }

  private:
    friend class SimListener;
    SimNetwork& network_;
    std::string name_;
    std::map<std::uint16_t, SimListener*> listeners_;
    std::uint16_t next_port_ = 49152;
    std::uint64_t life_ = 0;
    bool alive_ = true;
};

class SimListener : public Listener {
  public:
    static constexpr std::size_t kBacklog = 64;
    SimListener(SimNetwork::Host& host, std::uint16_t port) : host_(host), port_(port) {
        host_.listeners_[port_] = this;
    }
    ~SimListener() override {
        CHECK(!waiting_.waiting());
        close();
    }
    SimListener(const SimListener&) = delete;
    SimListener& operator=(const SimListener&) = delete;

    Task<Result<std::unique_ptr<Stream>>> accept() override {
        while (open_ && queue_.empty()) {
            co_await waiting_.wait();
        }
        if (!open_) {
            co_return fail(Errc::kClosed, "the listener was closed");
        }
        std::unique_ptr<Stream> stream = std::move(queue_.front());
        queue_.pop_front();
        co_return Result<std::unique_ptr<Stream>>(std::move(stream));
    }
    void close() override {
        if (open_) {
            open_ = false;
            host_.listeners_.erase(port_);
            queue_.clear();
            waiting_.notify();
        }
    }
    [[nodiscard]] std::string local_address() const override { return host_.name_ + ":" + std::to_string(port_); }
    [[nodiscard]] bool full() const { return queue_.size() >= kBacklog; }
    void push(std::unique_ptr<Stream> stream) {
        queue_.push_back(std::move(stream));
        waiting_.notify();
    }

  private:
    SimNetwork::Host& host_;
    std::uint16_t port_;
    bool open_ = true;
    std::deque<std::unique_ptr<Stream>> queue_;
    Signal waiting_;
};

// ---- one connection

Task<Result<std::size_t>> SimNetwork::Connection::read(std::size_t side, MutableBytes to) {
    Pipe& in = pipes_[1 - side];
    for (;;) {
        if (!sides_[side].open) {
            co_return fail(Errc::kClosed, "the stream was closed");
        }
        if (const std::size_t there = in.inbox.size() - in.taken; there > 0) {
            std::size_t n = std::min(to.size(), there);
            if (network_.random_.one_in(8)) {
                n = 1 + network_.random_.below(n);  // TCP promises no more than a byte
            }
            std::copy_n(in.inbox.begin() + static_cast<std::ptrdiff_t>(in.taken), n, to.begin());
            in.taken += n;
            if (in.taken == in.inbox.size()) {
                in.inbox.clear();
                in.taken = 0;
            }
            in.writable.notify();
            co_return n;
        }
        if (sides_[side].reset) {
            co_return fail(Errc::kIo, "connection reset by " + sides_[1 - side].address);
        }
        if (in.fin) {
            co_return std::size_t{0};
        }
        co_await in.readable.wait();
    }
}

Task<Result<void>> SimNetwork::Connection::write(std::size_t side, std::span<const ConstBytes> parts) {
    Pipe& out = pipes_[side];
    const SimNetworkOptions& o = network_.options_;
    for (ConstBytes part : parts) {
        while (!part.empty()) {
            if (!sides_[side].open) {
                co_return fail(Errc::kClosed, "the stream was closed");
            }
            if (sides_[side].reset) {
                co_return fail(Errc::kIo, "connection reset by " + sides_[1 - side].address);
            }
            if (out.held() >= o.window_bytes) {
                co_await out.writable.wait();
                continue;
            }
            const std::size_t n = std::min({part.size(), o.segment_bytes, o.window_bytes - out.held()});
            push(side, Kind::kData, {part.begin(), part.begin() + static_cast<std::ptrdiff_t>(n)});
            part = part.subspan(n);
        }
    }
    co_return Result<void>{};
}

void SimNetwork::Connection::push(std::size_t pipe, Kind kind, std::vector<std::byte> bytes) {
    Pipe& p = pipes_[pipe];
    if (p.cut) {
        return;
    }
    if (kind == Kind::kData) {
        fault(pipe, bytes);
    }
    Path& way = path(pipe);
    TimePoint due = std::max(network_.scheduler_.now(), way.stalled_until) + network_.latency() + way.extra;
    if (!p.flying.empty()) {
        due = std::max(due, p.flying.back().due);  // SN1
    }
    p.flying_bytes += bytes.size();
    p.flying.push_back(Segment{kind, due, std::move(bytes)});
    arm(pipe);
}

/// The planned faults of the path, counted in bytes that pass.
void SimNetwork::Connection::fault(std::size_t pipe, std::vector<std::byte>& bytes) {
    Path& way = path(pipe);
    const auto reached = [&](std::optional<std::uint64_t>& in) -> std::optional<std::size_t> {
        if (!in) {
            return std::nullopt;
        }
        if (*in >= bytes.size()) {
            *in -= bytes.size();
            return std::nullopt;
        }
        ++network_.faults_;
        return static_cast<std::size_t>(*std::exchange(in, std::nullopt));
    };
    way.bytes += bytes.size();
    if (const auto at = reached(way.corrupt_in)) {
        bytes[*at] ^= std::byte{1} << network_.random_.below(8);
    }
    if (const auto at = reached(way.cut_in)) {
        bytes.resize(*at);
        pipes_[pipe].cut = true;
    }
    if (const auto at = reached(way.duplicate_in)) {
        const std::size_t n = std::min<std::size_t>(bytes.size() - *at, 1 + network_.random_.below(64));
        const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(*at);
        const std::vector<std::byte> again(from, from + static_cast<std::ptrdiff_t>(n));
        bytes.insert(from, again.begin(), again.end());
    }
}

void SimNetwork::Connection::arm(std::size_t pipe) {
    Pipe& p = pipes_[pipe];
    if (!p.timer.armed && !p.parked && !p.flying.empty()) {
        const Executor::Scope scope(network_.executor_);
        network_.scheduler_.arm(p.timer, std::max(p.flying.front().due, network_.scheduler_.now()));
    }
}

void SimNetwork::Connection::deliver(std::size_t pipe) {
    Pipe& p = pipes_[pipe];
    while (!p.flying.empty() && p.flying.front().due <= network_.scheduler_.now()) {
        if (!network_.reachable(sides_[pipe].host, sides_[1 - pipe].host)) {
            p.parked = true;
            return;
        }
        Segment segment = std::move(p.flying.front());
        p.flying.pop_front();
        p.flying_bytes -= segment.bytes.size();
        arrive(pipe, std::move(segment));
    }
    if (p.flying.empty() && p.cut) {
        reset();
        return;
    }
    arm(pipe);
}

void SimNetwork::Connection::arrive(std::size_t pipe, Segment segment) {
    Pipe& p = pipes_[pipe];
    const std::size_t receiver = 1 - pipe;
    if (segment.kind == Kind::kReset) {
        reset_side(receiver);
        return;
    }
    if (!sides_[receiver].open) {
        if (segment.kind == Kind::kData) {
            push(receiver, Kind::kReset, {});
        }
        return;
    }
    if (sides_[receiver].reset) {
        return;
    }
    if (segment.kind == Kind::kFin) {
        p.fin = true;
    } else {
        p.inbox.insert(p.inbox.end(), segment.bytes.begin(), segment.bytes.end());
    }
    p.readable.notify();
}

void SimNetwork::Connection::unpark(std::size_t pipe, Duration wait) {
    Pipe& p = pipes_[pipe];
    if (std::exchange(p.parked, false) && !p.flying.empty()) {
        p.flying.front().due = network_.scheduler_.now() + wait;  // the sender's retransmission timer
        arm(pipe);
    }
}

void SimNetwork::Connection::reset_side(std::size_t side) {
    sides_[side].reset = true;
    Pipe& in = pipes_[1 - side];
    if (network_.random_.one_in(2)) {
        in.inbox.clear();
        in.taken = 0;
    }
    in.readable.notify();
    pipes_[side].writable.notify();
}

void SimNetwork::Connection::reset() {
    for (std::size_t i = 0; i < 2; ++i) {
        pipes_[i].flying.clear();
        pipes_[i].flying_bytes = 0;
        pipes_[i].cut = false;
        network_.scheduler_.cancel(pipes_[i].timer);
        reset_side(i);
    }
}

/// Wakes whoever waits on this side, with kClosed.
void SimNetwork::Connection::shut(std::size_t side) {
    sides_[side].open = false;
    pipes_[1 - side].readable.notify();
    pipes_[side].writable.notify();
}

void SimNetwork::Connection::close(std::size_t side) {
    if (!sides_[side].open) {
        return;
    }
    shut(side);
    if (sides_[side].reset) {
        return;
    }
    if (network_.random_.one_in(4)) {
        pipes_[side].flying.clear();
        pipes_[side].flying_bytes = 0;
        pipes_[side].parked = false;
        network_.scheduler_.cancel(pipes_[side].timer);
        push(side, Kind::kReset, {});
    } else {
        push(side, Kind::kFin, {});
    }
}

void SimNetwork::Connection::lose_power(std::size_t side) {
    if (!sides_[side].open) {
        return;
    }
    shut(side);
    // What the network card had not sent yet is gone.
    Pipe& out = pipes_[side];
    const std::size_t keep = network_.random_.below(out.flying.size() + 1);
    while (out.flying.size() > keep) {
        out.flying_bytes -= out.flying.back().bytes.size();
        out.flying.pop_back();
    }
}

// ---- hosts

namespace {

/// The name and port of "name:port".
std::optional<std::pair<std::string, std::uint16_t>> split(std::string_view address) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) {
        return std::nullopt;
    }
    std::uint16_t port = 0;
    const char* end = address.data() + address.size();
    const auto parsed = std::from_chars(address.data() + colon + 1, end, port);
    if (parsed.ec != std::errc{} || parsed.ptr != end) {
        return std::nullopt;
    }
    return std::pair(std::string(address.substr(0, colon)), port);
}

}  // namespace

Result<std::unique_ptr<Listener>> SimNetwork::Host::listen(std::string_view address) {
    const auto where = split(address);
    if (!where) {
        return fail(Errc::kInvalidArgument, "'" + std::string(address) + "' is not host:port");
    }
    if (!alive_) {
        return fail(Errc::kIo, name_ + " is down");
    }
    std::uint16_t port = where->second;
    if (port == 0) {
        while (listeners_.contains(next_port_)) {
            ++next_port_;
        }
        port = next_port_++;
    }
    if (listeners_.contains(port)) {
        return fail(Errc::kBusy, "port " + std::to_string(port) + " is in use");
    }
    return std::make_unique<SimListener>(*this, port);
}

Task<Result<std::unique_ptr<Stream>>> SimNetwork::Host::connect(std::string address, std::int64_t timeout_ms) {
    const auto where = split(address);
    if (!where) {
        co_return fail(Errc::kInvalidArgument, "'" + address + "' is not host:port");
    }
    const std::string& to = where->first;
    const std::uint64_t life = life_;
    const TimePoint deadline = network_.scheduler_.now() + std::chrono::milliseconds(timeout_ms);
    if (alive_ && !network_.hosts_.contains(to)) {
        co_return fail(Errc::kIo, "no host '" + to + "'");
    }
    for (;;) {
        co_await sleep_for(network_.scheduler_, network_.latency() + network_.latency());
        if (!alive_ || life != life_) {
            co_return fail(Errc::kClosed, name_ + " is down");
        }
        Host& peer = *network_.hosts_.at(to);
        if (network_.reachable(name_, to) && network_.reachable(to, name_)) {
            const auto found = peer.listeners_.find(where->second);
            if (found == peer.listeners_.end()) {
                co_return fail(Errc::kIo, "connection refused by " + address);
            }
            if (!found->second->full()) {
                const std::string mine = name_ + ":" + std::to_string(next_port_++);
                auto connection =
                    std::make_shared<Connection>(network_, std::array{name_, to}, std::array{mine, address});
                std::erase_if(network_.connections_, [](const auto& weak) { return weak.expired(); });
                network_.connections_.push_back(connection);
                found->second->push(std::make_unique<SimStream>(connection, 1));
                co_return Result<std::unique_ptr<Stream>>(std::make_unique<SimStream>(connection, 0));
            }
        }
        if (network_.scheduler_.now() >= deadline) {
            co_return fail(Errc::kTimedOut, "no answer from " + address);
        }
        co_await sleep_until(network_.scheduler_,
                             std::min(deadline, network_.scheduler_.now() + std::chrono::milliseconds(200)));
    }
}

void SimNetwork::Host::kill() {
    alive_ = false;
    ++life_;
    while (!listeners_.empty()) {
        listeners_.begin()->second->close();
    }
}

// ---- the network

SimNetwork::SimNetwork(SimScheduler& scheduler, std::uint64_t seed, SimNetworkOptions options)
    : scheduler_(scheduler), executor_(scheduler.add_executor("network")), random_(seed), options_(options) {}

SimNetwork::~SimNetwork() = default;

Network& SimNetwork::host(const std::string& name) {
    std::unique_ptr<Host>& h = hosts_[name];
    if (!h) {
        h = std::make_unique<Host>(*this, name);
    }
    return *h;
}

Duration SimNetwork::latency() {
    const auto span = static_cast<std::uint64_t>((options_.max_latency - options_.min_latency).count()) + 1;
    return options_.min_latency + Duration(random_.below(span));
}

bool SimNetwork::reachable(const std::string& from, const std::string& to) {
    const auto h = hosts_.find(to);
    return h != hosts_.end() && h->second->alive() && !path(from, to).blocked;
}

std::vector<std::shared_ptr<SimNetwork::Connection>> SimNetwork::live(const std::string& a,
                                                                      const std::string& b) const {
    std::vector<std::shared_ptr<Connection>> out;
    for (const auto& weak : connections_) {
        if (auto c = weak.lock(); c && c->between(a, b)) {
            out.push_back(std::move(c));
        }
    }
    return out;
}

void SimNetwork::kick(const std::string& from, const std::string& to) {
    for (const auto& c : live(from, to)) {
        for (std::size_t i = 0; i < 2; ++i) {
            if (c->host(i) == from) {
                c->unpark(i, latency() + std::chrono::milliseconds(random_.below(200)));
            }
        }
    }
}

void SimNetwork::block(const std::string& from, const std::string& to) {
    path(from, to).blocked = true;
    ++faults_;
}

void SimNetwork::unblock(const std::string& from, const std::string& to) {
    path(from, to).blocked = false;
    kick(from, to);
}

void SimNetwork::partition(const std::string& a, const std::string& b) {
    block(a, b);
    path(b, a).blocked = true;
}

void SimNetwork::heal(const std::string& a, const std::string& b) {
    unblock(a, b);
    unblock(b, a);
}

void SimNetwork::reset_connections(const std::string& a, const std::string& b) {
    ++faults_;
    for (const auto& c : live(a, b)) {
        c->reset();
    }
}

void SimNetwork::cut_after(const std::string& from, const std::string& to, std::uint64_t bytes) {
    path(from, to).cut_in = bytes;
}

void SimNetwork::corrupt_after(const std::string& from, const std::string& to, std::uint64_t bytes) {
    path(from, to).corrupt_in = bytes;
}

void SimNetwork::duplicate_after(const std::string& from, const std::string& to, std::uint64_t bytes) {
    path(from, to).duplicate_in = bytes;
}

void SimNetwork::stall(const std::string& from, const std::string& to, Duration d) {
    path(from, to).stalled_until = scheduler_.now() + d;
    ++faults_;
}

void SimNetwork::set_delay(const std::string& a, const std::string& b, Duration extra) {
    path(a, b).extra = extra;
    path(b, a).extra = extra;
}

void SimNetwork::heal_all() {
    for (auto& [between, way] : paths_) {
        const std::uint64_t bytes = way.bytes;
        way = Path{};
        way.bytes = bytes;
        kick(between.first, between.second);
    }
}

void SimNetwork::kill_host(const std::string& name, Death death) {
    host(name);
    hosts_.at(name)->kill();
    ++faults_;
    for (const auto& weak : connections_) {
        const auto c = weak.lock();
        for (std::size_t i = 0; c && i < 2; ++i) {
            if (c->host(i) == name) {
                death == Death::kProcess ? c->close(i) : c->lose_power(i);
            }
        }
    }
}

void SimNetwork::revive_host(const std::string& name) {
    host(name);
    hosts_.at(name)->revive();
    for (const auto& [other, ignored] : hosts_) {
        kick(other, name);
    }
}

std::size_t SimNetwork::connections(const std::string& a, const std::string& b) const {
    std::size_t n = 0;
    for (const auto& c : live(a, b)) {
        n += !c->broken(0) && !c->broken(1) ? 1 : 0;
    }
    return n;
}

std::uint64_t SimNetwork::bytes_sent(const std::string& from, const std::string& to) const {
    const auto it = paths_.find({from, to});
    return it == paths_.end() ? 0 : it->second.bytes;
}

}  // namespace gemel::sim
