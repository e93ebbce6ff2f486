// SPDX-License-Identifier: Apache-2.0
#include "raid/parity.hpp"

#include <isa-l/raid.h>

#include <array>

#include "gemel/check.hpp"

namespace gemel::raid {

namespace {

constexpr std::size_t kMaxVectors = 96;  ///< 31 strips old and new, old parity, and the result
constexpr std::uintptr_t kIsalAlignment = 32;

bool aligned(const std::byte* p) {
    return reinterpret_cast<std::uintptr_t>(p) % kIsalAlignment == 0;
}

void xor_by_words(MutableBytes to, std::span<const std::byte* const> sources) {
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

}  // namespace

void xor_into(MutableBytes to, std::span<const std::byte* const> sources) {
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

}  // namespace gemel::raid
