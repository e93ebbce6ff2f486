// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/tcp_network.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

#include "target/runtime/readiness.hpp"
#include "target/runtime/socket_address.hpp"

namespace gemel {

namespace {

constexpr unsigned kOperationsPerTurn = 32;  ///< TN4
constexpr int kBacklog = 1024;
// A peer that vanishes without a word is noticed within about 45 s when idle, 30 s when data is on its way. Those that
// need to know sooner (the mirror) have deadlines of their own.
constexpr int kKeepaliveIdleSeconds = 15;
constexpr int kKeepaliveIntervalSeconds = 10;
constexpr int kKeepaliveProbes = 3;
constexpr unsigned kUserTimeoutMs = 30'000;

std::string reason(int error) {
    return std::strerror(error);
}

bool is_short_of_resources(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

template <class T>
void set_option(int fd, int level, int name, T value) {
    // A kernel without one of these options still gives a working connection.
    ::setsockopt(fd, level, name, &value, sizeof value);
}

void set_tcp_options(int fd) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

Error closed_here() {
    return {Errc::kClosed, "the connection was closed"};
}

class TcpStream final : public Stream {
  public:
    TcpStream(std::unique_ptr<Readiness> socket, Executor& home)
        : socket_(std::move(socket)),
          home_(&home),
          local_(local_address_of(socket_->fd())),
          peer_(peer_address_of(socket_->fd())) {}

    Task<Result<std::size_t>> read_some(MutableBytes to) override;
    Task<Result<void>> write(std::span<const ConstBytes> parts) override;

    void close() override { socket_->close(); }

    void rebind(Executor& executor) override {
        CHECK(home_->is_current() && !socket_->waiting());
        socket_->leave_reactor();
        home_ = &executor;
    }

    [[nodiscard]] std::string local_address() const override { return local_; }
    [[nodiscard]] std::string peer_address() const override { return peer_; }
    [[nodiscard]] int fd() const { return socket_->fd(); }

  private:
    /// True when others should run first (TN4).
    bool took_its_share() {
        const std::uint64_t turn = Processor::current().turn();
        if (turn != turn_) {
            turn_ = turn;
            operations_ = 0;
        }
        return ++operations_ > kOperationsPerTurn;
    }

    std::unique_ptr<Readiness> socket_;
    Executor* home_;
    std::string local_;
    std::string peer_;
    std::uint64_t turn_ = 0;
    unsigned operations_ = 0;
};

Task<Result<std::size_t>> TcpStream::read_some(MutableBytes to) {
    CHECK(home_->is_current() && !to.empty());
    if (took_its_share()) {
        co_await yield();
    }
    for (;;) {
        if (socket_->closed()) {
            co_return std::unexpected(closed_here());
        }
        const ssize_t n = ::recv(socket_->fd(), to.data(), to.size(), 0);
        if (n >= 0) {
            co_return static_cast<std::size_t>(n);
        }
        if (errno == EAGAIN) {
            co_await socket_->readable();
        } else if (errno != EINTR) {
            co_return fail(Errc::kIo, "reading from " + peer_ + ": " + reason(errno));
        }
    }
}

/// Where a gathered write has come to.
class GatherCursor {
  public:
    explicit GatherCursor(std::span<const ConstBytes> parts) : parts_(parts) { skip_empty(); }
    [[nodiscard]] bool done() const { return at_ == parts_.size(); }

    /// As many parts as one sendmsg takes; `more`: some are left over.
    std::span<iovec> fill(std::span<iovec> room, bool& more) const {
        std::size_t used = 0;
        std::size_t i = at_;
        for (; i < parts_.size() && used < room.size(); ++i) {
            const ConstBytes part = parts_[i].subspan(i == at_ ? offset_ : 0);
            if (!part.empty()) {
                room[used++] = iovec{const_cast<std::byte*>(part.data()), part.size()};
            }
        }
        more = i < parts_.size();
        return room.first(used);
    }
    void advance(std::size_t n) {
        while (n > 0) {
            const std::size_t step = std::min(n, parts_[at_].size() - offset_);
            n -= step;
            offset_ += step;
            skip_empty();
        }
    }

  private:
    void skip_empty() {
        while (at_ < parts_.size() && offset_ == parts_[at_].size()) {
            ++at_;
            offset_ = 0;
        }
    }
    std::span<const ConstBytes> parts_;
    std::size_t at_ = 0;
    std::size_t offset_ = 0;
};

/// One sendmsg of what fits. The vector is filled and used without a suspension in between, so one per thread is
/// enough.
ssize_t send_some(int fd, const GatherCursor& cursor) {
    static thread_local std::array<iovec, IOV_MAX> room;
    bool more = false;
    const std::span<iovec> vec = cursor.fill(room, more);
    msghdr message{};
    message.msg_iov = vec.data();
    message.msg_iovlen = vec.size();
    return ::sendmsg(fd, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

Task<Result<void>> TcpStream::write(std::span<const ConstBytes> parts) {
    CHECK(home_->is_current());
    GatherCursor cursor(parts);
    while (!cursor.done()) {
        if (took_its_share()) {
            co_await yield();
        }
        if (socket_->closed()) {
            co_return std::unexpected(closed_here());
        }
        const ssize_t n = send_some(socket_->fd(), cursor);
        if (n >= 0) {
            cursor.advance(static_cast<std::size_t>(n));
        } else if (errno == EAGAIN) {
            co_await socket_->writable();
        } else if (errno != EINTR) {
            co_return fail(Errc::kIo, "writing to " + peer_ + ": " + reason(errno));
        }
    }
    if (socket_->closed()) {
        co_return std::unexpected(closed_here());
    }
    co_return Result<void>{};
}

class TcpListener final : public Listener {
  public:
    TcpListener(int fd, std::string unix_path)
        : socket_(fd), local_(local_address_of(fd)), unix_path_(std::move(unix_path)) {}
    ~TcpListener() override { remove_file(); }

    Task<Result<std::unique_ptr<Stream>>> accept() override;
    void close() override {
        remove_file();
        socket_.close();
    }
    [[nodiscard]] std::string local_address() const override { return local_; }

  private:
    void remove_file() {
        if (!socket_.closed() && !unix_path_.empty()) {
            ::unlink(unix_path_.c_str());
        }
    }
    Readiness socket_;
    std::string local_;
    std::string unix_path_;
    unsigned accepted_ = 0;
};

Task<Result<std::unique_ptr<Stream>>> TcpListener::accept() {
    if (++accepted_ % kOperationsPerTurn == 0) {
        co_await yield();  // TN4: nor may those who connect without end keep everybody else from running
    }
    for (;;) {
        if (socket_.closed()) {
            co_return fail(Errc::kClosed, "the listener on " + local_ + " was closed");
        }
        const int fd = ::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (unix_path_.empty()) {
                set_tcp_options(fd);
            }
            co_return std::make_unique<TcpStream>(std::make_unique<Readiness>(fd), Executor::current());
        }
        const int error = errno;
        if (error == EAGAIN) {
            co_await socket_.readable();
        } else if (is_short_of_resources(error)) {
            co_return fail(Errc::kResources, "a connection to " + local_ + " cannot be accepted: " + reason(error) +
                                                 "; raise RLIMIT_NOFILE or close connections");
        } else if (error == EBADF || error == EINVAL || error == ENOTSOCK || error == EOPNOTSUPP) {
            co_return fail(Errc::kIo, "accepting on " + local_ + ": " + reason(error));
        }
        // Everything else is an error of that one connection, which is gone: take the next (accept(2), "Error
        // handling").
    }
}

Error listen_error(std::string_view address, int error) {
    const std::string text(address);
    switch (error) {
        case EADDRINUSE:
            return {Errc::kBusy, "address " + text + " is in use: another process listens there"};
        case EADDRNOTAVAIL:
            return {Errc::kInvalidArgument, "address " + text + " is not an address of this machine"};
        case EACCES:
        case EPERM:
            return {Errc::kRefused, "address " + text + " may not be used: " + reason(error) +
                                        "; ports below 1024 need CAP_NET_BIND_SERVICE"};
        default:
            return {is_short_of_resources(error) ? Errc::kResources : Errc::kIo,
                    "listening on " + text + ": " + reason(error)};
    }
}

/// A socket file that nobody listens on is left over from a process that was killed.
bool remove_stale_socket(const SocketAddress& address) {
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0) {
        return false;
    }
    const bool refused = ::connect(probe, address.get(), address.length) != 0 && errno == ECONNREFUSED;
    ::close(probe);
    return refused && ::unlink(address.unix_path().c_str()) == 0;
}

/// Returns 0 or the errno.
int bind_and_listen(int fd, const SocketAddress& address) {
    if (address.family() == AF_UNIX) {
        // Before bind(): the file then never exists with a wider mode.
        ::fchmod(fd, S_IRUSR | S_IWUSR);
    } else {
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (::bind(fd, address.get(), address.length) != 0) {
        if (errno != EADDRINUSE || address.family() != AF_UNIX || !remove_stale_socket(address)) {
            return errno == 0 ? EADDRINUSE : errno;
        }
        if (::bind(fd, address.get(), address.length) != 0) {
            return errno;
        }
    }
    return ::listen(fd, kBacklog) == 0 ? 0 : errno;
}

/// Closes a connection attempt when its time is over.
struct ConnectDeadline : Timer {
    Readiness* socket = nullptr;
    ConnectDeadline() {
        run = [](Work& w) noexcept { static_cast<ConnectDeadline&>(w).socket->close(); };
    }
};

Task<Result<std::unique_ptr<Stream>>> connect_to(SocketAddress address, Clock* clock, TimePoint due) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        co_return fail(is_short_of_resources(errno) ? Errc::kResources : Errc::kIo,
                       "connecting to " + address.text() + ": " + reason(errno));
    }
    auto socket = std::make_unique<Readiness>(fd);
    if (address.family() != AF_UNIX) {
        set_tcp_options(fd);
    }
    int error = ::connect(fd, address.get(), address.length) == 0 ? 0 : errno;
    if (error == EINPROGRESS || error == EINTR) {
        ConnectDeadline deadline;
        deadline.socket = socket.get();
        clock->arm(deadline, due);
        co_await socket->writable();
        clock->cancel(deadline);
        if (socket->closed()) {
            co_return fail(Errc::kTimedOut, "no answer from " + address.text() + " in time");
        }
        socklen_t length = sizeof error;
        ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    }
    if (error != 0) {
        co_return fail(Errc::kIo, "connecting to " + address.text() + ": " + reason(error));
    }
    co_return std::make_unique<TcpStream>(std::move(socket), Executor::current());
}

/// A look-up in progress; whichever of answer and deadline comes second finds `waiter` empty.
struct NameQuery {
    explicit NameQuery(boost::asio::io_context& io) : resolver(io) {}
    boost::asio::ip::tcp::resolver resolver;
    std::coroutine_handle<> waiter;
    std::vector<SocketAddress> found;
    std::string error = "no answer in time";
    bool answered = false;

    void wake() {
        if (waiter) {
            std::exchange(waiter, nullptr).resume();
        }
    }
};

struct NameDeadline : Timer {
    std::shared_ptr<NameQuery> query;
    NameDeadline() {
        run = [](Work& w) noexcept {
            const std::shared_ptr<NameQuery> query = static_cast<NameDeadline&>(w).query;
            query->resolver.cancel();
            query->wake();
        };
    }
};

struct NameAnswer {
    NameQuery& query;
    [[nodiscard]] bool await_ready() const noexcept { return query.answered; }
    void await_suspend(std::coroutine_handle<> h) noexcept { query.waiter = h; }
    void await_resume() const noexcept {}
};

/// Looks the name up on Asio's thread for that.
Task<Result<std::vector<SocketAddress>>> look_up(HostAndPort address, Clock* clock, TimePoint due) {
    auto query = std::make_shared<NameQuery>(Processor::current().io_context());
    NameDeadline deadline;
    deadline.query = query;
    query->resolver.async_resolve(
        address.host, address.port, boost::asio::ip::resolver_base::numeric_service,
        [query](const boost::system::error_code& error, const boost::asio::ip::tcp::resolver::results_type& results) {
            query->answered = true;
            query->error = error.message();
            for (const auto& entry : results) {
                SocketAddress one;
                one.length = static_cast<socklen_t>(entry.endpoint().size());
                std::memcpy(&one.storage, entry.endpoint().data(), entry.endpoint().size());
                query->found.push_back(one);
            }
            query->wake();
        });
    clock->arm(deadline, due);
    co_await NameAnswer{*query};
    clock->cancel(deadline);
    if (query->found.empty()) {
        co_return fail(query->answered ? Errc::kNotFound : Errc::kTimedOut,
                       "the address of host '" + address.host + "' is not known: " + query->error);
    }
    co_return std::move(query->found);
}

}  // namespace

Result<std::unique_ptr<Listener>> TcpNetwork::listen(std::string_view address) {
    TRY(const HostAndPort where, split_address(address));
    TRY(const std::vector<SocketAddress> found, resolve(where, NameLookup::kAllowed, AI_PASSIVE));
    const SocketAddress& first = found.front();
    const int fd = ::socket(first.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return std::unexpected(listen_error(address, errno));
    }
    if (const int error = bind_and_listen(fd, first); error != 0) {
        ::close(fd);
        return std::unexpected(listen_error(address, error));
    }
    return std::make_unique<TcpListener>(fd, first.unix_path());
}

Task<Result<std::unique_ptr<Stream>>> TcpNetwork::connect(std::string address, std::int64_t timeout_ms) {
    CO_TRY(const HostAndPort where, split_address(address));
    const TimePoint due = clock_.now() + std::chrono::milliseconds(timeout_ms);
    auto found = resolve(where, NameLookup::kNumericOnly, 0);
    if (!found) {
        found = co_await look_up(where, &clock_, due);
    }
    if (!found) {
        co_return std::unexpected(std::move(found).error());
    }
    Result<std::unique_ptr<Stream>> last = fail(Errc::kTimedOut, "no answer from " + address + " in time");
    for (const SocketAddress& one : *found) {
        last = co_await connect_to(one, &clock_, due);
        if (last || clock_.now() >= due) {
            break;
        }
    }
    co_return last;
}

Result<PeerCredentials> peer_credentials(const Stream& stream) {
    const auto* tcp = dynamic_cast<const TcpStream*>(&stream);
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (tcp == nullptr || tcp->fd() < 0 || !tcp->local_address().starts_with("unix:") ||
        ::getsockopt(tcp->fd(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        return fail(Errc::kUnsupported, "the peer's credentials are known only on a Unix socket");
    }
    return PeerCredentials{credentials.uid, credentials.gid, credentials.pid};
}

}  // namespace gemel
