// SPDX-License-Identifier: Apache-2.0
// Reads a small file that holds secrets, if nobody else can.
//
// Invariants:
//   GF1 Nothing is taken from a file that anybody but the user of the daemon and root may read or write. An access list
//       says who may, whatever the mode shows: the bits of the group are then the list's mask. The credentials of
//       systemd are such files, of root and with mode 0440.
//   GF2 No message quotes the file.
// Threads: any; it waits for the file.
#pragma once

#include <sys/types.h>

#include <string>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"

namespace gemel {

/// What the file system says about a file.
struct FileGuard {
    mode_t mode = 0;  ///< and its kind
    uid_t owner = 0;
    ConstBytes acl{};  ///< the attribute system.posix_acl_access; empty: it has none
};

/// GF1, of a daemon that runs as `user`. Errors, with what to do: kInvalidArgument: it is no regular file; kRefused.
Result<void> check_guard(const FileGuard& guard, uid_t user);

/// The text of the file. Errors: those of check_guard(), kNotFound, kRefused: it cannot be opened, kInvalidArgument: it
/// is longer than `most_bytes`, kIo. They do not name it.
Result<std::string> read_guarded_file(const std::string& path, std::size_t most_bytes);

}  // namespace gemel
