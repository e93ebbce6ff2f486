// SPDX-License-Identifier: Apache-2.0
// The source of randomness. The daemon's is the system's CSPRNG; the simulator's is seeded.
#pragma once

#include <cstdint>

#include "gemel/bytes.hpp"

namespace gemel {

class Random {
  public:
    virtual ~Random() = default;
    virtual std::uint64_t next() = 0;

    /// Uniform in [0, n). REQUIRES: n > 0. The bias of the modulo is below 2^-32 for n < 2^32.
    std::uint64_t below(std::uint64_t n) { return next() % n; }
    void fill(MutableBytes to) {
        while (!to.empty()) {
            std::array<std::byte, 8> word{};
            store_le(word.data(), next());
            const std::size_t n = std::min(to.size(), word.size());
            std::ranges::copy(ConstBytes(word).first(n), to.begin());
            to = to.subspan(n);
        }
    }
    Uuid uuid() {
        Uuid u;
        fill(u.bytes);
        return u;
    }
};

}  // namespace gemel
