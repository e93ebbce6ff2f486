// SPDX-License-Identifier: Apache-2.0
// The pre-shared key of a pair of nodes, and the file that it is in.
//
// Invariants:
//   PK1 A key that others than the daemon and root can read is not used. It is in no message, event or answer.
// Threads: any; blocks for a small file.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "gemel/result.hpp"

namespace gemel::tls {

using PairKey = std::array<std::byte, 32>;

/// Errors: those of read_guarded_file(), kInvalidArgument (what is in it): what is wrong and what to do.
Result<PairKey> read_pair_key(const std::string& path);

}  // namespace gemel::tls
