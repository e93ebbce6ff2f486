// SPDX-License-Identifier: Apache-2.0
// Who else holds a file or a block device: for the message to the operator.
// Threads: any; blocks for some reads of /proc.
#pragma once

#include <string>

namespace gemel {

/// The holder of the flock on the file behind `fd`: "process 1234 (gemeld --config a.toml)".
std::string holder_of_file(int fd);

/// A process that has the block device at `path` open, or what else keeps it busy.
std::string holder_of_block_device(const std::string& path);

}  // namespace gemel
