// SPDX-License-Identifier: Apache-2.0
// Names with wildcards in access lists: '*' stands for any run of characters, everything else for itself.
// Threads: pure functions.
#pragma once

#include <string_view>

namespace gemel::iscsi {

/// Linear in text.size() * number of '*', for any pattern.
constexpr bool matches_wildcard(std::string_view pattern, std::string_view text) {
    std::size_t p = 0;
    std::size_t t = 0;
    std::size_t star = std::string_view::npos;
    std::size_t star_text = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern.size() && pattern[p] == text[t]) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace gemel::iscsi
