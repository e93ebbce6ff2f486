// SPDX-License-Identifier: Apache-2.0
// What an array becomes when the devices of its members have grown: a pure function.
// Threads: any.
#pragma once

#include <span>
#include <string>

#include "raid/superblock.hpp"

namespace gemel::raid {

/// `now`, with all the space in use that devices of so many sectors have. `members`: what to call them in messages.
/// Errors: kNoSpace: some, which are named, have no room for another strip. kRefused: one is smaller than it was.
Result<Superblock> plan_growth(const Superblock& now, std::span<const std::uint64_t> device_sectors,
                               std::span<const std::string> members);

}  // namespace gemel::raid
