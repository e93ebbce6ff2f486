// SPDX-License-Identifier: Apache-2.0
// What every backend checks before it touches its memory or file.
// Threads: any.
#pragma once

#include <string>

#include "gemel/block_device.hpp"

namespace gemel {

/// Errors: kOutOfRange, kInvalidArgument (not aligned, longer than a transfer may be; `bytes` 0 is in order).
Result<void> check_bounds(const DeviceLimits& limits, const std::string& name, Lba lba, std::uint64_t bytes,
                          std::uint64_t max_bytes);

}  // namespace gemel
