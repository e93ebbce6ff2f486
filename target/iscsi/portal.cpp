// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/portal.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <numeric>

#include "gemel/sync.hpp"
#include "target/iscsi/access.hpp"
#include "target/iscsi/connection.hpp"

namespace gemel::iscsi {

namespace {

constexpr Duration kDescriptorsShortPause = std::chrono::milliseconds(200);
constexpr Duration kLinger = std::chrono::seconds(1);  ///< for the initiator to hang up after a refusal
constexpr Duration kEventSpacing = std::chrono::seconds(10);
constexpr Duration kGuessPause = std::chrono::seconds(1);  ///< before a wrong secret is refused

/// "127.0.0.1" of "127.0.0.1:51234".
std::string host_of(const std::string& address) {
    return address.substr(0, address.rfind(':'));
}

bool is_wildcard_address(std::string_view address) {
    return address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
}

bool is_loopback_address(std::string_view address) {
    const std::optional<IpAddress> ip = IpAddress::of_socket(address);
    return ip && ip->is_loopback();
}

/// Who has been proven to log in; empty: nobody had to.
std::string user_of(const LoginMachine& machine) {
    return machine.chap() != nullptr ? machine.chap()->user() : std::string();
}

/// Closes a stream whose login takes too long.
struct LoginTimer : Timer {
    explicit LoginTimer(Stream& s) : stream(s) {
        run = [](Work& w) noexcept { static_cast<LoginTimer&>(w).stream.close(); };
    }
    Stream& stream;
};

}  // namespace

std::string Session::isid_text() const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out;
    for (const std::byte b : isid) {
        out += kDigits[std::to_integer<unsigned>(b) >> 4U];
        out += kDigits[std::to_integer<unsigned>(b) & 15U];
    }
    return out;
}

class Server::Impl final : public SessionHost {
  public:
    Impl(Environment& env, ServerConfig config, Executor& login_executor, std::vector<Executor*> processors)
        : env_(env),
          config_(std::move(config)),
          login_executor_(login_executor),
          processors_(std::move(processors)),
          sessions_on_(processors_.size(), 0),
          memory_(config_.limits.data_memory) {
        ServerLimits& limits = config_.limits;
        CHECK(!processors_.empty() && limits.command_window >= 1 && limits.command_window <= TaskSet::kMostWindow);
        // However much room there is at times: the unasked data of a full window fits into half of the largest share.
        const std::size_t places = memory_.room(0) / 2 / pool_bytes(limits.first_burst_length);
        limits.command_window =
            std::max(1U, static_cast<std::uint32_t>(std::min<std::size_t>(places, limits.command_window)));
        fold_names(config_);
        limits.max_outstanding_r2t = std::clamp<std::uint32_t>(limits.max_outstanding_r2t, 1, kMaxOutstandingR2t);
    }
    ~Impl() override { CHECK(gate_.inside() == 0); }

    Result<void> listen();
    [[nodiscard]] std::vector<std::string> portal_addresses() const { return addresses_; }
    Task<void> stop();
    [[nodiscard]] ServerStatus status() const;
    [[nodiscard]] ServerStatistics statistics() const;

  private:
    struct Login {
        Stream* stream;
        std::string host;
    };
    struct LoggedIn {
        std::shared_ptr<Session> session;
        FirstNumbers numbers;
    };

    // Connections, on the login executor unless stated.
    Task<void> accept_from(Listener& listener);
    Task<void> serve(std::unique_ptr<Stream> stream);
    Task<LoggedIn> log_in(Stream& stream, Receiver& receiver);
    Task<LoginReply> next_reply(Receiver& receiver, LoginMachine& machine, LoginRequest& request, bool& hang_up);
    Task<std::shared_ptr<Session>> admit_session(const LoginMachine& machine, const Stream& stream, LoginReply& reply);
    Task<Result<void>> send_reply(Stream& stream, const LoginReply& reply);
    void note_login_failure(const Stream& stream, const LoginReply& reply);
    void note_garbage(const Stream& stream, const std::string& what);

    // Sessions, on the login executor.
    [[nodiscard]] std::shared_ptr<Session> find_session(const LoginMachine& machine) const;
    std::shared_ptr<Session> create_session(const LoginMachine& machine, const Stream& stream);
    Task<void> ask_to_close(std::shared_ptr<Session> session);
    void forget(const std::shared_ptr<Session>& session);
    [[nodiscard]] bool may_emit();

    // SessionHost
    [[nodiscard]] std::string send_targets(const Session& session, std::string_view request) const override;
    Task<void> abort_elsewhere(Session& issuer, std::vector<scsi::LogicalUnit*> units, AbortCause cause) override;
    Task<void> drop_other_sessions(Session& issuer) override;
    [[nodiscard]] MemoryBudget& memory() override { return memory_; }
    void note_protocol_error(const Session& session, const std::string& what) override;

    Environment& env_;
    ServerConfig config_;
    Executor& login_executor_;
    std::vector<Executor*> processors_;
    std::vector<std::size_t> sessions_on_;  ///< of each processor
    MemoryBudget memory_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::vector<std::string> addresses_;  ///< fixed once listen() has returned
    std::vector<Login*> logging_in_;
    std::vector<std::shared_ptr<Session>> sessions_;                   ///< in order of login
    std::map<const TargetDefinition*, std::vector<LunTotals>> ended_;  ///< of sessions that have (ST3), LUNs in order
    std::uint16_t last_tsih_ = 0;
    bool stopping_ = false;
    Gate gate_;
    std::uint64_t logins_ = 0;
    std::array<std::uint64_t, kLoginFailures.size()> login_failures_{};
    std::uint64_t refused_ = 0;
    std::atomic<std::uint64_t> protocol_errors_{0};
    std::atomic<std::int64_t> last_event_{-kEventSpacing.count()};
};

Result<void> Server::Impl::listen() {
    for (const std::string& portal : config_.portals) {
        auto listener = env_.network.listen(portal);
        if (!listener) {
            listeners_.clear();
            addresses_.clear();
            return fail(listener.error().code, "portal " + portal + ": " + listener.error().message);
        }
        addresses_.push_back((*listener)->local_address());
        listeners_.push_back(*std::move(listener));
    }
    for (const auto& listener : listeners_) {
        gate_.spawn(accept_from(*listener));
    }
    return {};
}

Task<void> Server::Impl::accept_from(Listener& listener) {
    while (!stopping_) {
        Result<std::unique_ptr<Stream>> stream = co_await listener.accept();
        if (!stream && stream.error().code == Errc::kClosed) {
            co_return;
        }
        if (!stream) {
            co_await sleep_for(env_.clock, kDescriptorsShortPause);
            continue;
        }
        const std::string host = host_of((*stream)->peer_address());
        const auto from_host = std::ranges::count(logging_in_, host, [](const Login* l) { return l->host; });
        if (stopping_ || logging_in_.size() >= config_.limits.unauthenticated ||
            static_cast<std::size_t>(from_host) >= config_.limits.unauthenticated_per_peer) {
            ++refused_;
            (*stream)->close();
            continue;
        }
        gate_.spawn(serve(*std::move(stream)));
    }
}

Task<void> Server::Impl::serve(std::unique_ptr<Stream> stream) {
    Receiver receiver(*stream);
    LoggedIn in = co_await log_in(*stream, receiver);
    if (!in.session) {
        stream->close();
        co_return;
    }
    stream->rebind(*in.session->executor);
    co_await resume_on(*in.session->executor);
    {
        Connection connection(env_, *this, *in.session, config_.limits, *stream, receiver, in.numbers);
        co_await connection.run();
    }
    stream.reset();
    co_await resume_on(login_executor_);
    forget(in.session);
}

Task<Server::Impl::LoggedIn> Server::Impl::log_in(Stream& stream, Receiver& receiver) {
    Login login{&stream, host_of(stream.peer_address())};
    logging_in_.push_back(&login);
    LoginTimer timer(stream);
    env_.clock.arm(timer, env_.clock.now() + config_.limits.login_timeout);
    const ServerLimits& limits = config_.limits;
    const AccessRules rules(config_, env_.random, stream.peer_address());
    LoginMachine machine(rules, OwnLimits{limits.max_recv_data_segment_length, limits.max_burst_length,
                                          limits.first_burst_length, limits.max_outstanding_r2t});
    LoggedIn in;
    bool first = true;
    while (true) {
        LoginRequest request;
        bool hang_up = false;
        LoginReply reply = co_await next_reply(receiver, machine, request, hang_up);
        if (hang_up) {
            if (!reply.why.empty()) {
                note_garbage(stream, reply.why);
            }
            break;
        }
        if (std::exchange(first, false)) {
            in.numbers = {request.cmd_sn, request.exp_stat_sn};
        }
        if (reply.full_feature) {
            in.session = co_await admit_session(machine, stream, reply);
        }
        if (in.session) {
            const std::uint32_t places = places_in(memory_.room(0), in.session->parameters);
            in.numbers.window = std::clamp(places, 1U, limits.command_window);
        }
        reply.header.numbers = {in.numbers.stat_sn++, in.numbers.cmd_sn, in.numbers.cmd_sn + in.numbers.window - 1};
        if (reply.status() == LoginStatus::kAuthenticationFailure) {
            co_await sleep_for(env_.clock, kGuessPause);
        }
        const bool sent = (co_await send_reply(stream, reply)).has_value();
        if (reply.status() != LoginStatus::kSuccess) {
            note_login_failure(stream, reply);
            co_await receiver.linger(env_.clock, kLinger);
            break;
        }
        if (!sent && in.session) {
            forget(in.session);
            in.session = nullptr;
        }
        if (!sent || reply.full_feature) {
            break;
        }
    }
    env_.clock.cancel(timer);
    std::erase(logging_in_, &login);
    logins_ += in.session ? 1 : 0;
    co_return in;
}

Task<LoginReply> Server::Impl::next_reply(Receiver& receiver, LoginMachine& machine, LoginRequest& request,
                                          bool& hang_up) {
    hang_up = true;
    // Only a connection that ends without a byte between two PDUs says nothing wrong.
    LoginReply broken_off;
    broken_off.why = "the connection ended, or its time did, inside a login request";
    if (!co_await receiver.need(kBhsBytes)) {
        co_return receiver.available() > 0 ? broken_off : LoginReply{};
    }
    const bool is_login = raw_opcode(receiver.data()) == static_cast<std::uint8_t>(Opcode::kLoginRequest);
    request = decode<LoginRequest>(receiver.data());
    if (!is_login) {
        // Before the first login request there is nobody to answer (RFC 7143 §6.3).
        hang_up = machine.requests() == 0;
        co_return LoginMachine::refuse(machine.first_request(), LoginStatus::kInvalidDuringLogin,
                                       "a PDU other than a login request during the login");
    }
    if (request.ahs_words > 0 || request.data_length > LoginMachine::kMaxDataBytes) {
        hang_up = false;
        co_return LoginMachine::refuse(request, LoginStatus::kInitiatorError,
                                       "a login request with additional headers or more than 8192 bytes");
    }
    receiver.consume(kBhsBytes);
    std::string data(request.data_length, '\0');
    const MutableBytes place(reinterpret_cast<std::byte*>(data.data()), data.size());
    if (!co_await receiver.receive_data(place, data.size(), /*digest=*/false)) {
        co_return broken_off;
    }
    hang_up = false;
    co_return machine.handle(request, data);
}

Task<Result<void>> Server::Impl::send_reply(Stream& stream, const LoginReply& reply) {
    LoginResponse header = reply.header;
    header.data_length = static_cast<std::uint32_t>(reply.text.size());
    const BhsBytes bhs = encode(header);
    constexpr std::array<std::byte, 3> kZeros{};
    const std::array<ConstBytes, 3> parts{ConstBytes(bhs), as_bytes_of(reply.text),
                                          ConstBytes(kZeros).first(padding_of(reply.text.size()))};
    co_return co_await stream.write(parts);
}

Task<std::shared_ptr<Session>> Server::Impl::admit_session(const LoginMachine& machine, const Stream& stream,
                                                           LoginReply& reply) {
    const LoginRequest& first = machine.first_request();
    const auto refuse = [&](LoginStatus status, std::string why) {
        reply = LoginMachine::refuse(first, status, std::move(why));
        return std::shared_ptr<Session>();
    };
    if (first.tsih != 0) {
        const auto existing = std::ranges::find(sessions_, first.tsih, [](const auto& s) { return s->tsih; });
        const bool same = existing != sessions_.end() && (*existing)->initiator == machine.initiator() &&
                          (*existing)->isid == first.isid && (*existing)->target == machine.target();
        co_return same ? refuse(LoginStatus::kTooManyConnections, "a session has one connection only")
                       : refuse(LoginStatus::kSessionDoesNotExist, "no session has that TSIH");
    }
    // Session reinstatement (RFC 7143 §6.3.5): the old session's commands end before the new session begins. A device
    // that does not answer must not make the initiator's attempts pile up: it is told in time to try again later.
    const TimePoint due = env_.clock.now() + config_.limits.login_timeout / 2;
    while (const std::shared_ptr<Session> old = stopping_ ? nullptr : find_session(machine)) {
        if (old->chap_user != user_of(machine)) {
            co_return refuse(LoginStatus::kAuthorizationFailure,
                             "a session of " + printable(machine.initiator()) + " belongs to another CHAP user");
        }
        co_await ask_to_close(old);
        if (!co_await old->ended.wait_until(env_.clock, due)) {
            co_return refuse(LoginStatus::kServiceUnavailable,
                             "commands of the earlier session of " + printable(machine.initiator()) + " still run");
        }
    }
    if (stopping_) {
        co_return refuse(LoginStatus::kServiceUnavailable, "the target is stopping");
    }
    if (sessions_.size() >= config_.limits.sessions) {
        co_return refuse(LoginStatus::kOutOfResources,
                         "all " + std::to_string(config_.limits.sessions) + " sessions are in use");
    }
    std::shared_ptr<Session> session = create_session(machine, stream);
    reply.header.tsih = session->tsih;
    co_return session;
}

std::shared_ptr<Session> Server::Impl::find_session(const LoginMachine& machine) const {
    // Discovery sessions hold nothing that a second one could disturb: they are not reinstated.
    const auto found = std::ranges::find_if(sessions_, [&](const std::shared_ptr<Session>& s) {
        return !s->discovery() && s->target == machine.target() && s->isid == machine.first_request().isid &&
               s->initiator == machine.initiator();
    });
    return found == sessions_.end() ? nullptr : *found;
}

std::shared_ptr<Session> Server::Impl::create_session(const LoginMachine& machine, const Stream& stream) {
    auto session = std::make_shared<Session>();
    session->initiator = machine.initiator();
    session->isid = machine.first_request().isid;
    session->connection_id = machine.first_request().connection_id;
    session->target = machine.target();
    session->peer_address = stream.peer_address();
    session->local_address = stream.local_address();
    session->parameters = machine.parameters();
    session->chap_user = user_of(machine);
    session->mutual_chap = machine.chap() != nullptr && machine.chap()->mutual();
    if (!session->discovery()) {
        session->luns = std::vector<LunStatistics>(session->target->luns.size());
        for (std::size_t i = 0; i < session->luns.size(); ++i) {
            session->luns[i].number = session->target->luns[i].number;
        }
    }
    // Sessions are fewer than tags (ServerLimits), so a free one exists.
    do {
        ++last_tsih_;
    } while (last_tsih_ == 0 || std::ranges::count(sessions_, last_tsih_, [](const auto& s) { return s->tsih; }) > 0);
    session->tsih = last_tsih_;
    const auto least = std::ranges::min_element(sessions_on_);
    ++*least;
    session->executor = processors_[static_cast<std::size_t>(least - sessions_on_.begin())];
    sessions_.push_back(session);
    return session;
}

Task<void> Server::Impl::ask_to_close(std::shared_ptr<Session> session) {
    co_await resume_on(*session->executor);
    session->close_requested = true;
    if (session->connection != nullptr) {
        session->connection->close();
    }
    co_await resume_on(login_executor_);
}

void Server::Impl::forget(const std::shared_ptr<Session>& session) {
    std::erase(sessions_, session);
    std::vector<LunTotals>& ended = ended_[session->target];
    ended.resize(session->luns.size());
    for (std::size_t i = 0; i < ended.size(); ++i) {
        add(ended[i], session->luns[i].totals());
    }
    const auto processor = std::ranges::find(processors_, session->executor);
    --sessions_on_[static_cast<std::size_t>(processor - processors_.begin())];
    session->ended.set();
}

Task<void> Server::Impl::stop() {
    stopping_ = true;
    for (const auto& listener : listeners_) {
        listener->close();
    }
    for (Login* login : logging_in_) {
        login->stream->close();
    }
    const std::vector<std::shared_ptr<Session>> sessions = sessions_;
    for (const std::shared_ptr<Session>& session : sessions) {
        co_await ask_to_close(session);
    }
    co_await gate_.close();
    listeners_.clear();
}

ServerStatus Server::Impl::status() const {
    ServerStatus out;
    for (const std::shared_ptr<Session>& s : sessions_) {
        out.sessions.push_back({s->initiator, s->discovery() ? std::string() : s->target->iqn, s->isid_text(), s->tsih,
                                s->peer_address, 1, s->commands.load(std::memory_order_relaxed),
                                s->bytes_in.load(std::memory_order_relaxed),
                                s->bytes_out.load(std::memory_order_relaxed), s->chap_user, s->mutual_chap});
    }
    out.logging_in = static_cast<std::uint32_t>(logging_in_.size());
    out.logins = logins_;
    out.login_failures_by_status = login_failures_;
    out.login_failures = std::accumulate(login_failures_.begin(), login_failures_.end(), std::uint64_t{0});
    out.refused_connections = refused_;
    out.protocol_errors = protocol_errors_.load(std::memory_order_relaxed);
    return out;
}

ServerStatistics Server::Impl::statistics() const {
    ServerStatistics out;
    for (const TargetDefinition& target : config_.targets) {
        TargetReport& report = out.targets.emplace_back(TargetReport{target.iqn, 0, {}});
        const auto ended = ended_.find(&target);
        for (std::size_t i = 0; i < target.luns.size(); ++i) {
            report.luns.push_back(
                {target.luns[i].number, target.luns[i].volume, ended != ended_.end() ? ended->second[i] : LunTotals{}});
        }
    }
    for (const std::shared_ptr<Session>& s : sessions_) {
        if (s->discovery()) {
            continue;
        }
        TargetReport& target = out.targets[static_cast<std::size_t>(s->target - config_.targets.data())];
        ++target.sessions;
        SessionReport& report =
            out.sessions.emplace_back(SessionReport{s->initiator,
                                                    s->target->iqn,
                                                    s->isid_text(),
                                                    s->tsih,
                                                    s->peer_address,
                                                    s->digest_errors.load(std::memory_order_relaxed),
                                                    s->ignored.load(std::memory_order_relaxed),
                                                    s->rejected.load(std::memory_order_relaxed),
                                                    {}});
        for (const std::size_t i : visible_luns(*s->target, s->initiator)) {
            report.luns.push_back({s->luns[i].number, s->target->luns[i].volume, s->luns[i].totals()});
            add(target.luns[i].totals, report.luns.back().totals);
        }
    }
    return out;
}

std::string Server::Impl::send_targets(const Session& session, std::string_view request) const {
    std::string out;
    const bool all = request == "All";
    const std::string name = fold_iscsi_name(request);
    const AccessRules rules(config_, env_.random, session.peer_address);
    if (session.discovery() ? request.empty() : all) {
        append_pair(out, key_row(KeyId::kSendTargets).name, "Reject");
        return out;
    }
    for (const TargetDefinition& target : config_.targets) {
        const bool own = &target == session.target;
        const bool wanted = all || name == target.iqn || (request.empty() && own);
        const bool visible = session.discovery() ? rules.shows(target, session.initiator, session.chap_user) : own;
        if (!wanted || !visible) {
            continue;
        }
        append_pair(out, key_row(KeyId::kTargetName).name, target.iqn);
        const std::string tag = "," + std::to_string(target.portal_group_tag);
        append_pair(out, key_row(KeyId::kTargetAddress).name, session.local_address + tag);
        for (const std::string& address : addresses_) {
            // Another machine would look for a loopback address on itself.
            const bool reachable = !is_loopback_address(address) || is_loopback_address(session.local_address);
            if (address != session.local_address && !is_wildcard_address(address) && reachable) {
                append_pair(out, key_row(KeyId::kTargetAddress).name, address + tag);
            }
        }
    }
    return out;
}

Task<void> Server::Impl::abort_elsewhere(Session& issuer, std::vector<scsi::LogicalUnit*> units, AbortCause cause) {
    co_await resume_on(login_executor_);
    std::vector<std::shared_ptr<Session>> others = sessions_;
    std::erase_if(others, [&](const auto& s) { return s.get() == &issuer || s->discovery(); });
    // First all are told, then all are waited for.
    for (const std::shared_ptr<Session>& other : others) {
        co_await resume_on(*other->executor);
        for (const scsi::LogicalUnit* unit : units) {
            if (other->connection != nullptr) {
                other->connection->abort_tasks_on(unit, cause);
            }
        }
    }
    for (const std::shared_ptr<Session>& other : others) {
        co_await resume_on(*other->executor);
        for (const scsi::LogicalUnit* unit : units) {
            if (other->connection != nullptr) {
                co_await other->connection->wait_for_aborted(unit);
            }
        }
    }
    co_await resume_on(*issuer.executor);
}

Task<void> Server::Impl::drop_other_sessions(Session& issuer) {
    co_await resume_on(login_executor_);
    std::vector<std::shared_ptr<Session>> sessions = sessions_;
    std::erase_if(sessions, [&](const auto& s) { return s.get() == &issuer || s->target != issuer.target; });
    for (const std::shared_ptr<Session>& session : sessions) {
        co_await ask_to_close(session);
    }
    co_await resume_on(*issuer.executor);
}

bool Server::Impl::may_emit() {
    // A peer must not be able to fill the event log.
    const std::int64_t now = env_.clock.now().time_since_epoch().count();
    std::int64_t last = last_event_.load(std::memory_order_relaxed);
    return now - last >= kEventSpacing.count() && last_event_.compare_exchange_strong(last, now);
}

void Server::Impl::note_protocol_error(const Session& session, const std::string& what) {
    protocol_errors_.fetch_add(1, std::memory_order_relaxed);
    if (may_emit()) {
        env_.events.emit({Severity::kWarning, "iscsi-protocol-error",
                          "initiator " + session.initiator + " at " + session.peer_address, what,
                          "the connection was closed; update the initiator if this goes on"});
    }
}

void Server::Impl::note_garbage(const Stream& stream, const std::string& what) {
    if (stopping_) {
        return;
    }
    protocol_errors_.fetch_add(1, std::memory_order_relaxed);
    if (may_emit()) {
        env_.events.emit({Severity::kWarning, "iscsi-protocol-error", "peer at " + stream.peer_address(), what,
                          "the connection was closed; something that is no initiator connects to the portal"});
    }
}

void Server::Impl::note_login_failure(const Stream& stream, const LoginReply& reply) {
    const auto row = std::ranges::find(kLoginFailures, reply.status(), &LoginFailureRow::status);
    CHECK(row != kLoginFailures.end());
    ++login_failures_[static_cast<std::size_t>(row - kLoginFailures.begin())];
    if (may_emit()) {
        env_.events.emit({Severity::kWarning, "iscsi-login-refused", "initiator at " + stream.peer_address(), reply.why,
                          std::string(row->action)});
    }
}

Server::Server(Environment& env, ServerConfig config, Executor& login_executor, std::vector<Executor*> processors)
    : impl_(std::make_unique<Impl>(env, std::move(config), login_executor, std::move(processors))) {}
Server::~Server() = default;
Result<void> Server::listen() {
    return impl_->listen();
}
std::vector<std::string> Server::portal_addresses() const {
    return impl_->portal_addresses();
}
Task<void> Server::stop() {
    return impl_->stop();
}
ServerStatus Server::status() const {
    return impl_->status();
}
ServerStatistics Server::statistics() const {
    return impl_->statistics();
}

}  // namespace gemel::iscsi
