// SPDX-License-Identifier: Apache-2.0
// CHECK: always on, for mistakes of ours. Nothing that a peer, a host or a disk sends may trip one; that is a Result.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace gemel {

[[noreturn]] inline void check_failed(const char* what, const char* file, int line) noexcept {
    std::fprintf(stderr, "gemel: CHECK failed: %s at %s:%d\n", what, file, line);
    std::fflush(stderr);
    std::abort();
}

}  // namespace gemel

/// Aborts with the condition and its place when `condition` is false.
#define CHECK(condition) \
    (static_cast<bool>(condition) ? void(0) : ::gemel::check_failed(#condition, __FILE__, __LINE__))
