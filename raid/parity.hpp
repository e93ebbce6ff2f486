// SPDX-License-Identifier: Apache-2.0
// Parity over columns of strips, by ISA-L where its rules of alignment are met.
//
// P is the exclusive or of the data strips d[0], d[1], ..., Q the sum of 2^i d[i] in the field of 256 elements with the
// polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d): any two of a stripe's strips can be made up from the others.
// Threads: any.
#pragma once

#include <array>
#include <span>

#include "gemel/bytes.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

using Sources = std::span<const std::byte* const>;

/// to = sources[0] xor sources[1] xor ...; with one source a copy, with none zeros.
/// REQUIRES: every source points to at least to.size() readable bytes; `to` overlaps no source; at most 95 sources.
void xor_into(MutableBytes to, Sources sources);

/// to = the sum of factors[i] times sources[i]. REQUIRES: as xor_into; as many factors as sources.
void weighted_sum_into(MutableBytes to, Sources sources, std::span<const std::uint8_t> factors);

/// P and Q of all data strips, in their order; an empty one is not made. REQUIRES: as xor_into; at most 30 strips.
void parity_into(MutableBytes p, MutableBytes q, Sources data);

/// 2^n for n < 255, which are all elements but 0.
inline constexpr std::array<std::uint8_t, 255> kGfPowers = [] {
    std::array<std::uint8_t, 255> powers{};
    std::uint32_t x = 1;
    for (std::uint8_t& power : powers) {
        power = static_cast<std::uint8_t>(x);
        x = x << 1U ^ (x >> 7U) * 0x11dU;
    }
    return powers;
}();
/// n of 2^n; of 0 nothing that means anything.
inline constexpr std::array<std::uint8_t, 256> kGfLogarithms = [] {
    std::array<std::uint8_t, 256> logarithms{};
    for (std::size_t n = 0; n < kGfPowers.size(); ++n) {
        logarithms[kGfPowers[n]] = static_cast<std::uint8_t>(n);
    }
    return logarithms;
}();
constexpr std::uint8_t gf_multiply(std::uint8_t a, std::uint8_t b) {
    return a == 0 || b == 0 ? 0 : kGfPowers[(kGfLogarithms[a] + kGfLogarithms[b]) % kGfPowers.size()];
}
/// REQUIRES: a != 0.
constexpr std::uint8_t gf_inverse(std::uint8_t a) {
    return kGfPowers[(kGfPowers.size() - kGfLogarithms[a]) % kGfPowers.size()];
}

/// A stripe's strips as slots: data in their order, then P, then Q.
using SlotFactors = std::array<std::uint8_t, kMaxMembers>;

/// The factors of all slots whose weighted sum is data strip `wanted`; zero for every slot in `unknown`, as bits.
/// REQUIRES: `wanted` is one of at most two unknown slots; without Q (`parities` 1) of at most one.
SlotFactors recovery_factors(std::uint32_t data_strips, std::uint32_t wanted, std::uint32_t unknown);

}  // namespace gemel::raid
