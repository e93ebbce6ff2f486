// SPDX-License-Identifier: Apache-2.0
#include "target/admin/server.hpp"

#include <array>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <vector>

#include "target/admin/json_rpc.hpp"
#include "target/admin/method_table.hpp"

namespace gemel::admin {

namespace json = boost::json;

namespace {

constexpr std::size_t kReadBytes = 4096;
constexpr std::size_t kEventsAtOnce = 64;
constexpr Duration kLinger = std::chrono::seconds(1);
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

}  // namespace

/// One client. Lives in the coroutine serve().
class AdminServer::Connection {
  public:
    Connection(AdminServer& server, std::unique_ptr<Stream> stream) : server_(server), stream_(std::move(stream)) {}

    Task<void> run() {
        while (!closing_) {
            std::array<std::byte, kReadBytes> chunk;
            const auto got = co_await stream_->read_some(chunk);
            if (!got || *got == 0) {
                break;
            }
            input_ += as_text(ConstBytes(chunk).first(*got));
            if (!co_await take_lines()) {
                break;
            }
        }
        close();
        co_await followers_.close();
    }

    void close() {
        closing_ = true;
        stream_->close();
        server_.events_.wake();
    }

    /// A last answer; then what still comes is dropped for a moment, so that the client gets to read the answer.
    Task<void> send_last(json::object message) {
        if ((co_await send(std::move(message))).has_value()) {
            Deadline deadline(*stream_);
            Clock& clock = server_.environment_.clock;
            clock.arm(deadline, clock.now() + kLinger);
            std::array<std::byte, kReadBytes> dropped;
            for (;;) {
                const auto got = co_await stream_->read_some(dropped);
                if (!got || *got == 0) {
                    break;
                }
            }
            clock.cancel(deadline);
        }
        close();
    }

    Task<Result<void>> send(json::object message) {
        std::string text = json::serialize(message);
        text += '\n';
        const Mutex::Guard one = co_await writing_.lock();
        if (closing_) {
            co_return fail(Errc::kClosed);
        }
        Deadline deadline(*stream_);
        Clock& clock = server_.environment_.clock;
        clock.arm(deadline, clock.now() + server_.options_.write_timeout);
        const std::array parts{as_bytes_of(text)};
        auto written = co_await stream_->write(parts);
        clock.cancel(deadline);
        co_return written;
    }

  private:
    /// Closes the stream of a client that does not read (AS2).
    struct Deadline : Timer {
        Stream& stream;
        explicit Deadline(Stream& s) : stream(s) {
            run = [](Work& w) noexcept { static_cast<Deadline&>(w).stream.close(); };
        }
    };

    /// Answers every complete line of the input. False: the connection is to end.
    Task<bool> take_lines() {
        std::size_t from = 0;
        for (;;) {
            const std::size_t end = input_.find('\n', from);
            if (end == std::string::npos) {
                break;
            }
            const std::string line = input_.substr(from, end - from);
            from = end + 1;
            if (line.find_first_not_of(" \r\t") != std::string::npos && !(co_await answer(line))) {
                co_return false;
            }
        }
        input_.erase(0, from);
        if (input_.size() > server_.options_.max_request_bytes) {
            co_await send_last(make_error(nullptr, RpcCode::kInvalidRequest, "the request is too long"));
            co_return false;
        }
        co_return true;
    }

    Task<bool> answer(std::string line) {
        auto request = parse_request(line);
        if (!request) {
            co_return (co_await send(std::move(request).error())).has_value();
        }
        json::object reply = co_await call(*request);
        if (!request->id) {
            co_return true;
        }
        const bool sent = (co_await send(std::move(reply))).has_value();
        if (sent && follow_from_ != 0) {
            followers_.spawn(follow(std::exchange(follow_from_, 0)));
        }
        co_return sent;
    }

    Task<json::object> call(Request& request) {
        const json::value id = request.id.value_or(nullptr);
        const MethodRow* row = find_method(request.method);
        if (row == nullptr) {
            co_return make_error(id, RpcCode::kMethodNotFound,
                                 "there is no method '" + request.method.substr(0, 64) + "'; see 'methods'");
        }
        if (const auto good = check_params(*row, request.params); !good) {
            co_return make_error(id, RpcCode::kInvalidParams, good.error().message);
        }
        const Params params(request.params);
        if (row->handler == nullptr) {
            co_return make_result(id, row->name == "methods" ? describe_methods() : events(params));
        }
        auto result = co_await row->handler(server_.management_, params);
        if (!result) {
            co_return make_error(id, result.error());
        }
        co_return make_result(id, *std::move(result));
    }

    /// The events kept; with follow the later ones are sent once this answer is out.
    json::value events(const Params& params) {
        const std::vector<StoredEvent> kept = server_.events_.since(params.number("since"), SIZE_MAX);
        json::array list;
        for (const StoredEvent& e : kept) {
            list.push_back(event_json(e));
        }
        const std::uint64_t next = kept.empty() ? server_.events_.last() + 1 : kept.back().sequence + 1;
        if (params.flag("follow") && followers_.inside() == 0) {
            follow_from_ = next;
        }
        return json::object{{"events", std::move(list)}, {"next", next}};
    }

    Task<void> follow(std::uint64_t next) {
        while (!closing_) {
            const std::vector<StoredEvent> fresh = server_.events_.since(next, kEventsAtOnce);
            if (fresh.empty()) {
                co_await server_.events_.changed();
                continue;
            }
            for (const StoredEvent& e : fresh) {
                json::object params = event_json(e);
                if (e.sequence != next) {
                    params["lost"] = e.sequence - next;
                }
                next = e.sequence + 1;
                if (!co_await send(make_notification("event", std::move(params)))) {
                    close();
                    co_return;
                }
            }
        }
    }

    AdminServer& server_;
    std::unique_ptr<Stream> stream_;
    std::string input_;
    std::uint64_t follow_from_ = 0;
    bool closing_ = false;
    Mutex writing_;
    Gate followers_;
};

AdminServer::AdminServer(Environment& environment, ServerOptions options, Management& management, EventRing& events)
    : environment_(environment), options_(std::move(options)), management_(management), events_(events) {}

AdminServer::~AdminServer() = default;

Result<void> AdminServer::start() {
    TRY(listener_, environment_.network.listen(options_.address));
    gate_.spawn(accept_loop());
    return {};
}

Task<void> AdminServer::stop() {
    if (listener_ != nullptr) {
        listener_->close();
    }
    for (Connection* connection : connections_) {
        connection->close();
    }
    co_await gate_.close();
    listener_.reset();
}

Task<void> AdminServer::accept_loop() {
    bool failing = false;  // one event for all failures in a row
    for (;;) {
        auto stream = co_await listener_->accept();
        if (stream) {
            failing = false;
            gate_.spawn(serve(*std::move(stream)));
            continue;
        }
        if (gate_.closed() || stream.error().code == Errc::kClosed) {
            co_return;
        }
        if (!std::exchange(failing, true)) {
            events_.emit({Severity::kWarning, "admin-accept-failed", "admin socket " + options_.address,
                          stream.error().message, "it is tried again until it works"});
        }
        co_await sleep_for(environment_.clock, kAcceptPause);
    }
}

Task<void> AdminServer::serve(std::unique_ptr<Stream> stream) {
    Result<void> admitted = options_.admit != nullptr ? options_.admit(*stream) : Result<void>{};
    if (admitted && connections_.size() >= options_.max_clients) {
        admitted = fail(Errc::kResources, "too many clients on the admin socket; close some");
    }
    Connection connection(*this, std::move(stream));
    const auto place = connections_.insert(connections_.end(), &connection);
    if (gate_.closed() || connections_.size() > 2 * options_.max_clients) {
        connection.close();
    } else if (admitted) {
        co_await connection.run();
    } else {
        co_await connection.send_last(make_error(nullptr, admitted.error()));
    }
    connections_.erase(place);
}

}  // namespace gemel::admin
