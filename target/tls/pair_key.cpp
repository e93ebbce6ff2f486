// SPDX-License-Identifier: Apache-2.0
#include "target/tls/pair_key.hpp"

#include <string_view>

#include "target/runtime/guarded_file.hpp"

namespace gemel::tls {

namespace {

constexpr std::string_view kHowToMake = "; make it by: openssl rand -hex 32 > FILE && chmod 600 FILE";
constexpr std::size_t kMostBytes = 4096;  // more than a key has, so that a longer file is known by its content

}  // namespace

Result<PairKey> read_pair_key(const std::string& path) {
    const Result<std::string> text = read_guarded_file(path, kMostBytes);
    if (!text) {
        const bool other = text.error().code == Errc::kNotFound || text.error().code == Errc::kInvalidArgument;
        return fail(text.error().code,
                    path + ": " + text.error().message + (other ? std::string(kHowToMake) : std::string()));
    }
    std::string_view digits = *text;
    if (digits.ends_with('\n')) {
        digits.remove_suffix(1);
    }
    PairKey key{};
    const auto bytes = bytes_of_hex(digits);
    if (!bytes || bytes->size() != key.size()) {
        return fail(Errc::kInvalidArgument,
                    path + " holds no key: expected 64 hexadecimal digits" + std::string(kHowToMake));
    }
    std::ranges::copy(*bytes, key.begin());
    return key;
}

}  // namespace gemel::tls
