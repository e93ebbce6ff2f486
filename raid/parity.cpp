// SPDX-License-Identifier: Apache-2.0
#include "raid/parity.hpp"

#include <isa-l/erasure_code.h>
#include <isa-l/raid.h>

#include <algorithm>
#include <array>
#include <bit>

#include "gemel/check.hpp"

namespace gemel::raid {

namespace {

constexpr std::size_t kMaxVectors = 96;  ///< 31 strips old and new, old parity, and the result
constexpr std::uintptr_t kIsalAlignment = 32;
constexpr std::size_t kLeastDotProduct = 64;  ///< bytes; ISA-L's vector code wants that many
constexpr std::size_t kTableBytes = 32;       ///< of each factor, made by ec_init_tables

bool aligned(const std::byte* p) {
    return reinterpret_cast<std::uintptr_t>(p) % kIsalAlignment == 0;
}

void xor_by_words(MutableBytes to, Sources sources) {
    std::size_t i = 0;
    for (; i + 8 <= to.size(); i += 8) {
        std::uint64_t word = 0;
        for (const std::byte* source : sources) {
            word ^= load_le<std::uint64_t>(source + i);
        }
        store_le(to.data() + i, word);
    }
    for (; i < to.size(); ++i) {
        std::byte byte{0};
        for (const std::byte* source : sources) {
            byte ^= source[i];
        }
        to[i] = byte;
    }
}

void weighted_sum_by_bytes(MutableBytes to, Sources sources, std::span<const std::uint8_t> factors) {
    for (std::size_t i = 0; i < to.size(); ++i) {
        std::uint8_t sum = 0;
        for (std::size_t s = 0; s < sources.size(); ++s) {
            sum = static_cast<std::uint8_t>(sum ^ gf_multiply(factors[s], static_cast<std::uint8_t>(sources[s][i])));
        }
        to[i] = std::byte{sum};
    }
}

unsigned char* bytes_of_isal(const std::byte* p) {
    return reinterpret_cast<unsigned char*>(const_cast<std::byte*>(p));  // ISA-L only reads the sources
}

}  // namespace

void xor_into(MutableBytes to, Sources sources) {
    CHECK(sources.size() < kMaxVectors);
    if (to.empty()) {
        return;
    }
    if (sources.empty()) {
        std::ranges::fill(to, std::byte{0});
        return;
    }
    if (sources.size() == 1) {
        std::memcpy(to.data(), sources[0], to.size());
        return;
    }
    const bool fast = aligned(to.data()) && std::ranges::all_of(sources, aligned) && to.size() % kIsalAlignment == 0;
    if (!fast) {
        xor_by_words(to, sources);
        return;
    }
    std::array<void*, kMaxVectors> vectors{};
    for (std::size_t i = 0; i < sources.size(); ++i) {
        vectors[i] = const_cast<std::byte*>(sources[i]);  // ISA-L only reads the sources
    }
    vectors[sources.size()] = to.data();
    CHECK(xor_gen(static_cast<int>(sources.size() + 1), static_cast<int>(to.size()), vectors.data()) == 0);
}

void weighted_sum_into(MutableBytes to, Sources sources, std::span<const std::uint8_t> factors) {
    CHECK(sources.size() < kMaxVectors && factors.size() == sources.size());
    if (sources.empty() || to.size() < kLeastDotProduct) {
        weighted_sum_by_bytes(to, sources, factors);
        return;
    }
    std::array<unsigned char, kMaxVectors * kTableBytes> tables;
    std::array<unsigned char, kMaxVectors> row{};
    std::array<unsigned char*, kMaxVectors> vectors{};
    std::ranges::copy(factors, row.begin());
    std::ranges::transform(sources, vectors.begin(), bytes_of_isal);
    const int count = static_cast<int>(sources.size());
    ec_init_tables(count, 1, row.data(), tables.data());
    gf_vect_dot_prod(static_cast<int>(to.size()), count, tables.data(), vectors.data(), bytes_of_isal(to.data()));
}

void parity_into(MutableBytes p, MutableBytes q, Sources data) {
    CHECK(data.size() <= kMaxMembers - 2 || q.empty());
    const bool fast = !p.empty() && !q.empty() && data.size() > 1 && aligned(p.data()) && aligned(q.data()) &&
                      std::ranges::all_of(data, aligned) && p.size() % kIsalAlignment == 0;
    if (fast) {
        std::array<void*, kMaxMembers> vectors{};
        std::ranges::transform(data, vectors.begin(), bytes_of_isal);
        vectors[data.size()] = p.data();
        vectors[data.size() + 1] = q.data();
        CHECK(pq_gen(static_cast<int>(data.size() + 2), static_cast<int>(p.size()), vectors.data()) == 0);
        return;
    }
    if (!p.empty()) {
        xor_into(p, data);
    }
    if (!q.empty()) {
        weighted_sum_into(q, data, std::span(kGfPowers).first(data.size()));
    }
}

SlotFactors recovery_factors(std::uint32_t data_strips, std::uint32_t wanted, std::uint32_t unknown) {
    const std::uint32_t p = data_strips;
    const std::uint32_t q = data_strips + 1;
    const std::uint32_t other = unknown & ~(1U << wanted);
    CHECK(wanted < data_strips && (unknown >> wanted & 1U) != 0 && std::popcount(other) <= 1);
    // wanted = by_p (P + sum of d[i]) + by_q (Q + sum of 2^i d[i]), so that it counts once and the other not at all.
    std::uint8_t by_p = 1;
    std::uint8_t by_q = 0;
    if (other == 1U << p) {
        by_p = 0;
        by_q = gf_inverse(kGfPowers[wanted]);
    } else if (other != 0 && other != 1U << q) {
        const std::uint8_t mine = kGfPowers[wanted];
        const std::uint8_t theirs = kGfPowers[static_cast<std::size_t>(std::countr_zero(other))];
        by_q = gf_inverse(static_cast<std::uint8_t>(mine ^ theirs));
        by_p = gf_multiply(by_q, theirs);
    }
    SlotFactors out{};
    for (std::uint32_t i = 0; i < data_strips; ++i) {
        if ((unknown >> i & 1U) == 0) {
            out[i] = static_cast<std::uint8_t>(by_p ^ gf_multiply(by_q, kGfPowers[i]));
        }
    }
    out[p] = by_p;
    if (by_q != 0) {
        out[q] = by_q;
    }
    return out;
}

}  // namespace gemel::raid
