// SPDX-License-Identifier: Apache-2.0
// How many descriptors this process may have open (RLIMIT_NOFILE).
// Threads: any; the limit is the process's.
#pragma once

#include <cstdint>

#include "gemel/event_sink.hpp"

namespace gemel {

/// Raises the soft limit to the hard one, and emits `descriptors-short` when that is less than `needed`.
/// Returns the limit that now holds.
std::uint64_t raise_descriptor_limit(std::uint64_t needed, EventSink& events);

}  // namespace gemel
