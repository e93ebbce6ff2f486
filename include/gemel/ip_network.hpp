// SPDX-License-Identifier: Apache-2.0
// IP addresses and networks as values, for access lists. No name is ever looked up.
//
// Invariants:
//   IP1 An IPv4 address is the same however it is written: ::ffff:10.0.0.1 is 10.0.0.1.
//   IP2 A network holds addresses of its own family only: ::/0 holds no IPv4 address.
// Threads: values and pure functions.
#pragma once

#include <arpa/inet.h>

#include <charconv>
#include <optional>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"

namespace gemel {

struct IpAddress {
    std::array<std::byte, 16> bytes{};  ///< of IPv4 the first four
    bool v4 = false;

    bool operator==(const IpAddress&) const = default;
    [[nodiscard]] unsigned bits() const { return v4 ? 32 : 128; }
    /// 127.0.0.0/8 and ::1: nobody else can reach it.
    [[nodiscard]] bool is_loopback() const {
        std::array<std::byte, 16> one{};
        one.back() = std::byte{1};
        return v4 ? bytes[0] == std::byte{127} : bytes == one;
    }
    /// "10.0.0.1", "fd00::1", "[fd00::1]"; nullopt for everything else, names among it.
    static std::optional<IpAddress> parse(std::string_view text) {
        if (text.starts_with('[') && text.ends_with(']')) {
            text = text.substr(1, text.size() - 2);
        }
        const std::string terminated(text);
        if (terminated.contains('\0')) {
            return std::nullopt;
        }
        IpAddress out;
        if (::inet_pton(AF_INET, terminated.c_str(), out.bytes.data()) == 1) {
            out.v4 = true;
            return out;
        }
        if (::inet_pton(AF_INET6, terminated.c_str(), out.bytes.data()) != 1) {
            return std::nullopt;
        }
        constexpr std::size_t kMappedBytes = 12;
        std::array<std::byte, kMappedBytes> mapped{};
        mapped[10] = mapped[11] = std::byte{0xff};
        if (std::ranges::equal(ConstBytes(out.bytes).first(kMappedBytes), mapped)) {
            IpAddress v4_form;
            std::ranges::copy(ConstBytes(out.bytes).subspan(kMappedBytes), v4_form.bytes.begin());
            v4_form.v4 = true;
            return v4_form;
        }
        return out;
    }
    /// The same of "10.0.0.1:3260" and "[fd00::1]:3260".
    static std::optional<IpAddress> of_socket(std::string_view host_and_port) {
        const std::size_t colon = host_and_port.rfind(':');
        return colon == std::string_view::npos ? std::nullopt : parse(host_and_port.substr(0, colon));
    }
};

/// Of "127.0.0.1:3260" or "[::1]:3260" as numbers. A name may mean anything, whatever it looks like.
inline bool is_loopback(std::string_view host_and_port) {
    const std::optional<IpAddress> ip = IpAddress::of_socket(host_and_port);
    return ip && ip->is_loopback();
}

class IpNetwork {
  public:
    /// "10.0.0.0/8", "fd00::/8", "10.1.2.3" (that address alone). Errors: kInvalidArgument says what is expected.
    static Result<IpNetwork> parse(std::string_view text) {
        const auto bad = [&](const std::string& why) {
            return fail(Errc::kInvalidArgument, "'" + std::string(text) + "' is not a network: " + why +
                                                    "; expected an address or address/bits, such as 10.0.0.0/8");
        };
        const std::size_t slash = text.find('/');
        const auto address = IpAddress::parse(text.substr(0, slash));
        if (!address) {
            return bad("it does not begin with an IPv4 or IPv6 address");
        }
        if (address->v4 && text.contains(':')) {
            return bad("an IPv4 network is written as one");
        }
        IpNetwork out;
        out.address_ = *address;
        out.bits_ = address->bits();
        if (slash != std::string_view::npos) {
            const std::string_view bits = text.substr(slash + 1);
            const auto [end, error] = std::from_chars(bits.data(), bits.data() + bits.size(), out.bits_);
            if (bits.empty() || error != std::errc{} || end != bits.data() + bits.size() ||
                out.bits_ > address->bits()) {
                return bad("after the '/' stands no number from 0 to " + std::to_string(address->bits()));
            }
        }
        for (unsigned i = out.bits_; i < address->bits(); ++i) {
            if (out.bit(*address, i)) {
                return bad("the address has bits set behind the first " + std::to_string(out.bits_));
            }
        }
        return out;
    }
    [[nodiscard]] bool contains(const IpAddress& address) const {
        if (address.v4 != address_.v4) {
            return false;
        }
        unsigned i = 0;
        while (i < bits_ && bit(address, i) == bit(address_, i)) {
            ++i;
        }
        return i == bits_;
    }

    /// It holds every address of its family.
    [[nodiscard]] bool whole() const { return bits_ == 0; }

  private:
    static bool bit(const IpAddress& address, unsigned i) {
        return (std::to_integer<unsigned>(address.bytes[i / 8]) >> (7 - i % 8) & 1U) != 0;
    }
    IpAddress address_;
    unsigned bits_ = 0;
};

}  // namespace gemel
