// SPDX-License-Identifier: Apache-2.0
// The secrets file as plain values: names and secrets of CHAP, in both directions.
//
// Invariants:
//   SE1 No message quotes a secret.
//   SE2 A secret has 12 to 255 bytes, and none is used in both directions: who knows a user's secret cannot pose as a
//       target, nor the other way round (RFC 7143 §9.2.1).
// Threads: values and pure functions.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "target/config/config.hpp"

namespace gemel::config {

struct Secrets {
    /// [[user]]: who may log in.
    struct User {
        std::string name;
        std::string secret;
        std::vector<std::string> initiators;  ///< lower case; empty: any; '*' stands for any text
        Place place;
    };
    /// [[own]]: as whom targets prove themselves.
    struct Own {
        std::string name;
        std::string secret;
        Place place;
    };
    std::vector<User> users;
    std::vector<Own> own;
};

std::expected<Secrets, std::vector<Mistake>> parse_secrets(std::string_view toml);

/// The names that the configuration uses and the secrets do not have; the places are those of the configuration.
std::vector<Mistake> check_secrets(const Config& config, const Secrets& secrets);

}  // namespace gemel::config
