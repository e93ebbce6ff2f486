// SPDX-License-Identifier: Apache-2.0
#include "target/tls/pair_key.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace gemel::tls {

namespace {

constexpr std::string_view kHowToMake = "; make it by: openssl rand -hex 32 > FILE && chmod 600 FILE";

int digit_of(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

Result<void> check_owner(const struct ::stat& found, const std::string& path) {
    if (!S_ISREG(found.st_mode)) {
        return fail(Errc::kInvalidArgument, path + " is no file" + std::string(kHowToMake));
    }
    if ((found.st_mode & 077U) != 0) {
        return fail(Errc::kRefused, path + " holds a key that others can read; chmod 600 " + path);
    }
    if (found.st_uid != ::geteuid() && found.st_uid != 0) {
        return fail(Errc::kRefused, path + " holds a key of another user; chown it to the one that gemeld runs as");
    }
    return {};
}

}  // namespace

Result<PairKey> read_pair_key(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        const bool absent = errno == ENOENT;
        return fail(absent ? Errc::kNotFound : Errc::kRefused,
                    path + ": " + std::strerror(errno) + (absent ? std::string(kHowToMake) : ""));
    }
    PairKey key{};
    struct ::stat found{};
    std::array<char, 2 * sizeof(PairKey) + 2> text{};  // a line end, and one character too many
    const ssize_t n = ::fstat(fd, &found) == 0 ? ::read(fd, text.data(), text.size()) : -1;
    ::close(fd);
    TRY_VOID(check_owner(found, path));
    std::string_view digits(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
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
