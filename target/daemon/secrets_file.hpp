// SPDX-License-Identifier: Apache-2.0
// Reads the secrets of CHAP from a file that nobody else can read.
//
// Invariants:
//   SF1 Nothing is taken from a file that others than its owner may read or write, and its owner is the user of the
//       daemon or root.
//   SF2 No message quotes the file.
// Threads: any; it waits for the file.
#pragma once

#include <sys/types.h>

#include <expected>
#include <optional>
#include <string>

#include "target/config/secrets.hpp"

namespace gemel {

/// Why a file of this kind, mode (both in `mode`) and owner is not to hold secrets of a daemon that runs as `user`.
std::optional<std::string> why_unsafe(mode_t mode, uid_t owner, uid_t user);

/// The secrets that `config` names, empty if it names none; every name that it uses is in them. Otherwise all that is
/// wrong, one line each. `config_file` is for messages; a relative path is under `state_dir`.
std::expected<config::Secrets, std::string> read_secrets(const config::Config& config, const std::string& config_file,
                                                         const std::string& state_dir);

}  // namespace gemel
