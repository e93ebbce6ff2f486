// SPDX-License-Identifier: Apache-2.0
// Reads the secrets of CHAP from a file that nobody else can read.
// Threads: any; it waits for the file.
#pragma once

#include <expected>
#include <string>

#include "target/config/secrets.hpp"

namespace gemel {

/// The secrets that `config` names, empty if it names none; every name that it uses is in them. Otherwise all that is
/// wrong, one line each. `config_file` is for messages; a relative path is under `state_dir`.
std::expected<config::Secrets, std::string> read_secrets(const config::Config& config, const std::string& config_file,
                                                         const std::string& state_dir);

}  // namespace gemel
