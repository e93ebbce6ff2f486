// SPDX-License-Identifier: Apache-2.0
// Addresses of sockets as text and as the system wants them. Internal to this room.
// Threads: any.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <vector>

#include "gemel/result.hpp"

namespace gemel {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;

    [[nodiscard]] int family() const { return storage.ss_family; }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    /// "127.0.0.1:3260", "[::1]:3260", "unix:/path".
    [[nodiscard]] std::string text() const;
    /// The path of a Unix socket, else empty.
    [[nodiscard]] std::string unix_path() const;
};

/// Text of an address, cut in two; not looked up.
struct HostAndPort {
    std::string host;  ///< without brackets; empty: every local address
    std::string port;
    std::string unix_path;  ///< if not empty the others are
};

/// Errors: kInvalidArgument, with what is expected.
Result<HostAndPort> split_address(std::string_view address);

/// Blocks while a name is looked up, unless numeric_only. Errors: kNotFound: no such name; kInvalidArgument.
enum class NameLookup : unsigned char { kAllowed, kNumericOnly };
Result<std::vector<SocketAddress>> resolve(const HostAndPort& address, NameLookup lookup, int extra_flags);

/// The local or the peer's address of a socket; "?" if the system does not tell.
std::string local_address_of(int fd);
std::string peer_address_of(int fd);

}  // namespace gemel
