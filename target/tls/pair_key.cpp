// SPDX-License-Identifier: Apache-2.0
#include "target/tls/pair_key.hpp"

#include <string_view>

#include "target/runtime/guarded_file.hpp"

namespace gemel::tls {

namespace {

constexpr std::string_view kHowToMake = "; make it by: openssl rand -hex 32 > FILE && chmod 600 FILE";
constexpr std::size_t kMostBytes = 4096;  // more than a key has, so that a longer file is known by its content

int digit_of(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

Result<PairKey> read_pair_key(const std::string& path) {
    const Result<std::string> text = read_guarded_file(path, kMostBytes);
    if (!text) {
        const bool other = text.error().code == Errc::kNotFound || text.error().code == Errc::kInvalidArgument;
        return fail(text.error().code,
                    path + ": " + text.error().message + (other ? std::string(kHowToMake) : std::string()));
    }
    PairKey key{};
    std::string_view digits = *text;
    if (digits.ends_with('\n')) {
        digits.remove_suffix(1);
    }
    bool good = digits.size() == 2 * key.size();
    for (std::size_t i = 0; good && i < key.size(); ++i) {
        const int high = digit_of(digits[2 * i]);
        const int low = digit_of(digits[2 * i + 1]);
        good = high >= 0 && low >= 0;
        key[i] = static_cast<std::byte>(good ? high << 4U | low : 0);
    }
    if (!good) {
        return fail(Errc::kInvalidArgument,
                    path + " holds no key: expected 64 hexadecimal digits" + std::string(kHowToMake));
    }
    return key;
}

}  // namespace gemel::tls
