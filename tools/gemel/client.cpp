// SPDX-License-Identifier: Apache-2.0
#include "tools/gemel/client.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gemel::cli {

namespace json = boost::json;

namespace {

/// The text at `key`, or nothing.
std::string text_at(const json::object& object, std::string_view key) {
    const json::value* v = object.if_contains(key);
    return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

Failure failure_of(const json::value& error) {
    Failure out{ExitCode::kInternal, "internal", "the daemon's answer has no error text"};
    if (const json::object* e = error.if_object()) {
        out.message = text_at(*e, "message");
        const json::value* data = e->if_contains("data");
        if (data != nullptr && data->is_object()) {
            out.errc = text_at(data->get_object(), "errc");
            out.code = exit_code_of(out.errc);
        }
    }
    return out;
}

}  // namespace

Outcome<AdminClient> AdminClient::connect(const std::string& socket_path) {
    const auto unreachable = [&](const std::string& why) {
        return std::unexpected(
            Failure{ExitCode::kUnreachable, "unreachable",
                    "no gemeld answers on " + socket_path + ": " + why +
                        "; is it running? give its socket by --socket, --state-dir or GEMEL_SOCKET"});
    };
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_path.empty() || socket_path.size() >= sizeof address.sun_path) {
        return unreachable("the path of a Unix socket has 1 to " + std::to_string(sizeof address.sun_path - 1) +
                           " bytes");
    }
    std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
    const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return unreachable(std::strerror(errno));
    }
    AdminClient client(descriptor, socket_path);
    if (::connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return unreachable(std::strerror(errno));
    }
    return client;
}

AdminClient::AdminClient(AdminClient&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      input_(std::move(other.input_)),
      kept_(std::move(other.kept_)),
      next_id_(other.next_id_) {}

AdminClient& AdminClient::operator=(AdminClient&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(path_, other.path_);
    std::swap(input_, other.input_);
    std::swap(kept_, other.kept_);
    std::swap(next_id_, other.next_id_);
    return *this;
}

AdminClient::~AdminClient() {
    if (descriptor_ >= 0) {
        ::close(descriptor_);
    }
}

Failure AdminClient::lost(std::string_view why) const {
    return {ExitCode::kUnreachable, "unreachable",
            "the connection to gemeld on " + path_ + " ended: " + std::string(why)};
}

Outcome<json::object> AdminClient::read_message() {
    std::size_t end = 0;
    while ((end = input_.find('\n')) == std::string::npos) {
        std::array<char, 65536> chunk;
        const ssize_t n = ::read(descriptor_, chunk.data(), chunk.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return std::unexpected(lost(n == 0 ? "the daemon closed it" : std::strerror(errno)));
        }
        input_.append(chunk.data(), static_cast<std::size_t>(n));
    }
    boost::system::error_code bad;
    json::value message = json::parse(std::string_view(input_).substr(0, end), bad);
    input_.erase(0, end + 1);
    if (bad || !message.is_object()) {
        return std::unexpected(lost("it sent what is not JSON-RPC"));
    }
    return std::move(message.get_object());
}

Outcome<json::value> AdminClient::call(std::string_view method, json::object params) {
    const std::uint64_t id = next_id_++;
    std::string request = json::serialize(
        json::object{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", std::move(params)}});
    request += '\n';
    std::string_view rest = request;
    while (!rest.empty()) {
        const ssize_t n = ::send(descriptor_, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            break;  // the answer says why, or its absence does
        }
        rest.remove_prefix(n < 0 ? 0 : static_cast<std::size_t>(n));
    }
    for (;;) {
        auto message = read_message();
        if (!message) {
            return std::unexpected(std::move(message).error());
        }
        if (message->contains("method")) {
            kept_ += json::serialize(*message) + "\n";
            continue;
        }
        if (const json::value* error = message->if_contains("error")) {
            return std::unexpected(failure_of(*error));
        }
        const json::value* answered = message->if_contains("id");
        json::value* result = message->if_contains("result");
        if (answered == nullptr || result == nullptr || *answered != json::value(id)) {
            return std::unexpected(lost("it answered another request"));
        }
        return std::move(*result);
    }
}

Outcome<json::value> AdminClient::next_event() {
    input_.insert(0, std::exchange(kept_, {}));
    auto message = read_message();
    if (!message) {
        return std::unexpected(std::move(message).error());
    }
    json::value* params = message->if_contains("params");
    if (params == nullptr || !params->is_object()) {
        return std::unexpected(lost("it sent a notification without parameters"));
    }
    return std::move(*params);
}

}  // namespace gemel::cli
