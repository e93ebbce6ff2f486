// SPDX-License-Identifier: Apache-2.0
// What two copies of a block are compared by: the first 16 bytes of its SHA-256. A CRC would take some different blocks
// for equal, and here that would be a difference that nobody finds.
// Threads: any; plain functions.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "gemel/buffer.hpp"

namespace gemel::replication {

using BlockDigest = std::array<std::byte, 16>;

/// Of a block that cannot be read there.
inline constexpr BlockDigest kUnreadableDigest{};

/// One for each block of `data`, in order.
[[nodiscard]] std::vector<BlockDigest> digests_of(const Slice& data);

/// As the body of a frame. Errors: kProtocol: not `blocks` digests.
[[nodiscard]] std::string encode_digests(const std::vector<BlockDigest>& digests);
[[nodiscard]] Result<std::vector<BlockDigest>> decode_digests(std::string_view body, std::size_t blocks);

}  // namespace gemel::replication
