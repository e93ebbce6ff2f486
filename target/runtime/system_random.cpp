// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/system_random.hpp"

#include <sys/random.h>

#include <cerrno>
#include <utility>

#include "gemel/check.hpp"

namespace gemel {

namespace {

struct Pocket {
    std::array<std::uint64_t, 64> words{};
    std::size_t left = 0;

    void refill() {
        auto* to = reinterpret_cast<std::byte*>(words.data());
        std::size_t have = 0;
        while (have < sizeof words) {
            const ssize_t n = ::getrandom(to + have, sizeof words - have, 0);
            // Only EINTR is possible once the kernel's generator is seeded.
            CHECK(n > 0 || errno == EINTR);
            have += n > 0 ? static_cast<std::size_t>(n) : 0;
        }
        left = words.size();
    }
};

thread_local Pocket pocket;

}  // namespace

std::uint64_t SystemRandom::next() {
    if (pocket.left == 0) {
        pocket.refill();
    }
    // What was given out is not kept: a later read of this memory does not reveal it.
    return std::exchange(pocket.words[--pocket.left], 0);
}

}  // namespace gemel
