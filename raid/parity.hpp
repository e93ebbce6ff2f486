// SPDX-License-Identifier: Apache-2.0
// Parity: exclusive or over columns of strips, by ISA-L where its alignment rule is met.
// Threads: any.
#pragma once

#include <span>

#include "gemel/bytes.hpp"

namespace gemel::raid {

/// to = sources[0] xor sources[1] xor ...; with one source a copy, with none zeros.
/// REQUIRES: every source points to at least to.size() readable bytes; `to` overlaps no source; at most 95 sources.
void xor_into(MutableBytes to, std::span<const std::byte* const> sources);

}  // namespace gemel::raid
