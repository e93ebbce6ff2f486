// SPDX-License-Identifier: Apache-2.0
#include "target/config/value_syntax.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

namespace gemel::config {

namespace {

struct Unit {
    std::string_view name;
    std::uint64_t factor;
};
constexpr std::array kSizeUnits{
    Unit{"", 1},
    Unit{"B", 1},
    Unit{"KiB", 1ULL << 10},
    Unit{"MiB", 1ULL << 20},
    Unit{"GiB", 1ULL << 30},
    Unit{"TiB", 1ULL << 40},
    Unit{"PiB", 1ULL << 50},
    Unit{"K", 1ULL << 10},
    Unit{"M", 1ULL << 20},
    Unit{"G", 1ULL << 30},
    Unit{"T", 1ULL << 40},
    Unit{"kB", 1'000ULL},
    Unit{"KB", 1'000ULL},
    Unit{"MB", 1'000'000ULL},
    Unit{"GB", 1'000'000'000ULL},
    Unit{"TB", 1'000'000'000'000ULL},
};
constexpr std::array kTimeUnits{
    Unit{"ms", 1'000'000ULL},
    Unit{"s", 1'000'000'000ULL},
    Unit{"min", 60'000'000'000ULL},
};

bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// A whole number followed by one of `units`; nothing when it is not that or does not fit.
std::optional<std::uint64_t> number_with_unit(std::string_view text, std::span<const Unit> units) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{}) {
        return std::nullopt;
    }
    std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
    unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
    const auto row = std::ranges::find(units, unit, &Unit::name);
    std::uint64_t value = 0;
    if (row == units.end() || __builtin_mul_overflow(number, row->factor, &value)) {
        return std::nullopt;
    }
    return value;
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) {
        d[i][0] = i;
    }
    for (std::size_t j = 0; j <= b.size(); ++j) {
        d[0][j] = j;
    }
    for (std::size_t i = 1; i <= a.size(); ++i) {
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t same = a[i - 1] == b[j - 1] ? 0 : 1;
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + same});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[a.size()][b.size()];
}

/// yyyy-mm of "iqn.yyyy-mm.": when the naming authority owned its domain.
bool is_year_month(std::string_view text) {
    const auto digit = [&](std::size_t i) { return text[i] >= '0' && text[i] <= '9'; };
    if (text.size() < 7 || text[4] != '-' || !digit(0) || !digit(1) || !digit(2) || !digit(3) || !digit(5) ||
        !digit(6)) {
        return false;
    }
    const int month = (text[5] - '0') * 10 + (text[6] - '0');
    return month >= 1 && month <= 12;
}

std::optional<std::string> why_bad_characters(std::string_view name, std::string_view also_allowed) {
    if (name.empty() || name.size() > 223) {
        return fmt::format("an iSCSI name has 1 to 223 characters, this one has {}", name.size());
    }
    for (const char c : name) {
        if (c >= 'A' && c <= 'Z') {
            return fmt::format("iSCSI names are written in lower case, '{}' is not", name);
        }
        if (!is_alnum(c) && std::string_view(".:-").find(c) == std::string_view::npos &&
            also_allowed.find(c) == std::string_view::npos) {
            return fmt::format("'{}' has a character that an iSCSI name may not have (allowed: a-z 0-9 . - :)", name);
        }
    }
    return std::nullopt;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    if (const auto bytes = number_with_unit(text, kSizeUnits)) {
        return *bytes;
    }
    return fail(
        Errc::kInvalidArgument,
        fmt::format("'{}' is not a size; expected a whole number and KiB, MiB, GiB or TiB, such as \"512MiB\"", text));
}

Result<Duration> parse_duration(std::string_view text) {
    const auto ns = number_with_unit(text, kTimeUnits);
    if (ns && *ns <= static_cast<std::uint64_t>(Duration(std::chrono::hours(24 * 365)).count())) {
        return Duration(static_cast<std::int64_t>(*ns));
    }
    return fail(Errc::kInvalidArgument,
                fmt::format("'{}' is not a time; expected a whole number and ms, s or min, such as \"500ms\"", text));
}

std::string format_size(std::uint64_t bytes) {
    constexpr std::array<std::string_view, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    std::size_t unit = 0;
    auto value = static_cast<double>(bytes);
    while (value >= 1024.0 && unit + 1 < kUnits.size()) {
        value /= 1024.0;
        ++unit;
    }
    const bool whole = (bytes >> (10 * unit)) << (10 * unit) == bytes;
    return whole ? fmt::format("{} {}", bytes >> (10 * unit), kUnits[unit])
                 : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

Result<Address> parse_address(std::string_view text) {
    const auto bad = [&](std::string_view why) {
        return fail(Errc::kInvalidArgument,
                    fmt::format("'{}' is not an address: {}; expected host:port or [v6]:port, such as 127.0.0.1:3260",
                                text, why));
    };
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) {
        return bad("the port is missing");
    }
    std::string_view host = text.substr(0, colon);
    const std::string_view port = text.substr(colon + 1);
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) {
        host = host.substr(1, host.size() - 2);
    } else if (host.find(':') != std::string_view::npos) {
        return bad("an IPv6 address goes in brackets");
    }
    if (host.empty() || host.find_first_of(" \t\n[]/") != std::string_view::npos) {
        return bad("the host is missing or has a character it may not have");
    }
    Address out{std::string(host), 0};
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (port.empty() || error != std::errc{} || end != port.data() + port.size()) {
        return bad("the port is not a number from 0 to 65535");
    }
    return out;
}

bool is_loopback(const Address& address) {
    in_addr v4{};
    in6_addr v6{};
    if (::inet_pton(AF_INET, address.host.c_str(), &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24U) == 127;
    }
    return ::inet_pton(AF_INET6, address.host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::optional<std::string> why_bad_iscsi_name(std::string_view name) {
    if (auto why = why_bad_characters(name, "")) {
        return why;
    }
    const auto all_hex = [](std::string_view digits) {
        return std::ranges::all_of(digits, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
    };
    if (name.starts_with("iqn.")) {
        const std::string_view rest = name.substr(4);
        if (!is_year_month(rest) || rest.size() < 9 || rest[7] != '.') {
            return fmt::format("'{}' is not an iqn: expected iqn.yyyy-mm.reversed-domain:name", name);
        }
        return std::nullopt;
    }
    if (name.starts_with("eui.") && name.size() == 20 && all_hex(name.substr(4))) {
        return std::nullopt;
    }
    if (name.starts_with("naa.") && (name.size() == 20 || name.size() == 36) && all_hex(name.substr(4))) {
        return std::nullopt;
    }
    return fmt::format(
        "'{}' is not an iSCSI name: expected iqn.yyyy-mm.reversed-domain:name (or eui., naa. and digits)", name);
}

std::optional<std::string> why_bad_initiator_pattern(std::string_view pattern) {
    if (pattern.find('*') == std::string_view::npos) {
        return why_bad_iscsi_name(pattern);
    }
    return why_bad_characters(pattern, "*");
}

std::optional<std::string> why_bad_name(std::string_view name) {
    const bool good = !name.empty() && name.size() <= 32 && is_alnum(name.front()) &&
                      std::ranges::all_of(name, [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
    if (good) {
        return std::nullopt;
    }
    return fmt::format("'{}' cannot be a name: expected 1 to 32 of a-z A-Z 0-9 . _ -, the first a letter or digit",
                       name);
}

std::optional<std::string> why_bad_url(std::string_view url) {
    const std::size_t scheme = url.starts_with("https://") ? 8 : url.starts_with("http://") ? 7 : 0;
    const bool good = scheme > 0 && url.size() > scheme && url[scheme] != '/' && url.size() <= 2048 &&
                      std::ranges::all_of(url, [](char c) { return c > ' ' && c <= '~'; });
    if (good) {
        return std::nullopt;
    }
    // Not quoted: it may hold a secret.
    return "this is no web address; expected http:// or https://, a host, and printable ASCII without blanks";
}

std::optional<std::string> why_bad_mail_address(std::string_view address) {
    const std::size_t at = address.find('@');
    const bool good =
        at != 0 && at != std::string_view::npos && at + 1 < address.size() && address.front() != '-' &&
        address.size() <= 254 &&
        std::ranges::all_of(address, [](char c) { return is_alnum(c) || std::string_view("@.+_-=").contains(c); });
    if (good) {
        return std::nullopt;
    }
    return fmt::format("'{}' is no mail address; expected one name@host of a-z A-Z 0-9 . + _ - =", address);
}

std::optional<std::string_view> did_you_mean(std::string_view word, std::span<const std::string_view> known) {
    std::optional<std::string_view> best;
    std::size_t best_distance = 0;
    for (const std::string_view candidate : known) {
        const std::size_t distance = word.size() > 64 ? 64 : edit_distance(word, candidate);
        const std::size_t allowed = candidate.size() < 4 ? 1 : (candidate.size() < 8 ? 2 : 3);
        if (distance <= allowed && (!best || distance < best_distance)) {
            best = candidate;
            best_distance = distance;
        }
    }
    return best;
}

}  // namespace gemel::config
