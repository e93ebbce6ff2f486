// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/socket_address.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>

namespace gemel {

namespace {

std::string wrong(std::string_view address, std::string_view why) {
    return "'" + std::string(address) + "' is not an address: " + std::string(why) +
           "; expected host:port, [v6]:port or unix:/path";
}

bool is_port(std::string_view text) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() && value <= 65535;
}

Result<std::vector<SocketAddress>> unix_address(const std::string& path) {
    SocketAddress address;
    auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
    if (path.size() >= sizeof un->sun_path) {
        return fail(Errc::kInvalidArgument, "the path of the socket '" + path + "' is longer than " +
                                                std::to_string(sizeof un->sun_path - 1) +
                                                " characters; choose a shorter directory");
    }
    un->sun_family = AF_UNIX;
    std::ranges::copy(path, un->sun_path);
    address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    return std::vector{address};
}

}  // namespace

std::string SocketAddress::unix_path() const {
    if (family() != AF_UNIX || length <= offsetof(sockaddr_un, sun_path)) {
        return {};
    }
    return reinterpret_cast<const sockaddr_un*>(&storage)->sun_path;
}

std::string SocketAddress::text() const {
    char host[INET6_ADDRSTRLEN] = {};
    if (family() == AF_INET) {
        const auto* in = reinterpret_cast<const sockaddr_in*>(&storage);
        ::inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        return std::string(host) + ":" + std::to_string(ntohs(in->sin_port));
    }
    if (family() == AF_INET6) {
        const auto* in = reinterpret_cast<const sockaddr_in6*>(&storage);
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
            // An IPv4 peer of a socket that listens on [::]: initiators cannot log in to [::ffff:10.0.0.1].
            ::inet_ntop(AF_INET, in->sin6_addr.s6_addr + 12, host, sizeof host);
            return std::string(host) + ":" + std::to_string(ntohs(in->sin6_port));
        }
        ::inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        return "[" + std::string(host) + "]:" + std::to_string(ntohs(in->sin6_port));
    }
    return family() == AF_UNIX ? "unix:" + unix_path() : "?";
}

Result<HostAndPort> split_address(std::string_view address) {
    HostAndPort out;
    if (address.starts_with("unix:")) {
        out.unix_path = address.substr(5);
        if (out.unix_path.empty()) {
            return fail(Errc::kInvalidArgument, wrong(address, "the path is empty"));
        }
        return out;
    }
    std::size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) {
        return fail(Errc::kInvalidArgument, wrong(address, "the port is missing"));
    }
    std::string_view host = address.substr(0, colon);
    if (host.starts_with('[')) {
        if (!host.ends_with(']')) {
            return fail(Errc::kInvalidArgument, wrong(address, "the bracket is not closed"));
        }
        host = host.substr(1, host.size() - 2);
    } else if (host.find(':') != std::string_view::npos) {
        return fail(Errc::kInvalidArgument, wrong(address, "an IPv6 address stands in brackets"));
    }
    out.host = host;
    out.port = address.substr(colon + 1);
    if (!is_port(out.port)) {
        return fail(Errc::kInvalidArgument, wrong(address, "the port is not a number from 0 to 65535"));
    }
    return out;
}

Result<std::vector<SocketAddress>> resolve(const HostAndPort& address, NameLookup lookup, int extra_flags) {
    if (!address.unix_path.empty()) {
        return unix_address(address.unix_path);
    }
    addrinfo hints{};
    hints.ai_family = address.host.empty() ? AF_INET : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | extra_flags | (lookup == NameLookup::kNumericOnly ? AI_NUMERICHOST : 0);
    addrinfo* list = nullptr;
    const int error =
        ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), address.port.c_str(), &hints, &list);
    if (error != 0) {
        return fail(Errc::kNotFound,
                    "the address of host '" + address.host + "' is not known: " + ::gai_strerror(error));
    }
    std::vector<SocketAddress> out;
    for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
        SocketAddress one;
        one.length = a->ai_addrlen;
        std::memcpy(&one.storage, a->ai_addr, a->ai_addrlen);
        out.push_back(one);
    }
    ::freeaddrinfo(list);
    return out;
}

namespace {

using NameCall = int (*)(int, sockaddr*, socklen_t*);

std::string address_of(int fd, NameCall call) {
    SocketAddress address;
    address.length = sizeof address.storage;
    if (call(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
        return "?";
    }
    return address.text();
}

}  // namespace

std::string local_address_of(int fd) {
    return address_of(fd, [](int f, sockaddr* a, socklen_t* n) { return ::getsockname(f, a, n); });
}

std::string peer_address_of(int fd) {
    return address_of(fd, [](int f, sockaddr* a, socklen_t* n) { return ::getpeername(f, a, n); });
}

}  // namespace gemel
