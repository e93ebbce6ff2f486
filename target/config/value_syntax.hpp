// SPDX-License-Identifier: Apache-2.0
// The forms of single values: sizes, durations, addresses, iSCSI names, names of our own; and the nearest known word.
// Also used by the CLI for its arguments.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gemel/clock.hpp"
#include "gemel/result.hpp"

namespace gemel::config {

/// "512MiB", "64 KiB", "1TiB", "4096", "10GB" (powers of ten without the i). Errors: kInvalidArgument says what is
/// expected.
Result<std::uint64_t> parse_size(std::string_view text);

/// "250ms", "2s", "1min". Errors: kInvalidArgument.
Result<Duration> parse_duration(std::string_view text);

/// A size for people: "512 MiB", "1.5 GiB", "100 B".
std::string format_size(std::uint64_t bytes);

struct Address {
    std::string host;
    std::uint16_t port = 0;
};
/// "host:port" or "[v6]:port". Errors: kInvalidArgument.
Result<Address> parse_address(std::string_view text);

/// Why `name` is not an iSCSI name (RFC 7143 §4.2.7, RFC 3720 §3.2.6: iqn., eui., naa.), or nothing if it is one.
std::optional<std::string> why_bad_iscsi_name(std::string_view name);

/// As above; '*' is allowed anywhere.
std::optional<std::string> why_bad_initiator_pattern(std::string_view pattern);

/// Why `name` cannot name a node, array or volume: 1 to 32 of a-z A-Z 0-9 . _ -, the first one a letter or digit.
std::optional<std::string> why_bad_name(std::string_view name);

/// Of a web address: http or https, a host, printable ASCII.
std::optional<std::string> why_bad_url(std::string_view url);

/// Of one address that mail is sent to: no blanks, no list.
std::optional<std::string> why_bad_mail_address(std::string_view address);

/// The word of `known` that `word` most likely means, or nothing if none is near.
std::optional<std::string_view> did_you_mean(std::string_view word, std::span<const std::string_view> known);

}  // namespace gemel::config
