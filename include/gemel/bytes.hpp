// SPDX-License-Identifier: Apache-2.0
// Byte spans, integers in a stated byte order, and a reader that cannot run past its end.
// On disk and between peers numbers are little-endian; inside iSCSI and SCSI they are big-endian.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gemel {

using ConstBytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

/// Of the standard library's comparisons none is quick with std::byte.
inline bool same_bytes(ConstBytes a, ConstBytes b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

inline bool all_zero(ConstBytes bytes) {
    return bytes.empty() || (bytes[0] == std::byte{0} && same_bytes(bytes.first(bytes.size() - 1), bytes.subspan(1)));
}

template <std::unsigned_integral T>
T load_le(const std::byte* from) {
    T v;
    std::memcpy(&v, from, sizeof v);
    return std::endian::native == std::endian::little ? v : std::byteswap(v);
}
template <std::unsigned_integral T>
void store_le(std::byte* to, T v) {
    if constexpr (std::endian::native != std::endian::little) {
        v = std::byteswap(v);
    }
    std::memcpy(to, &v, sizeof v);
}
template <std::unsigned_integral T>
T load_be(const std::byte* from) {
    T v;
    std::memcpy(&v, from, sizeof v);
    return std::endian::native == std::endian::big ? v : std::byteswap(v);
}
template <std::unsigned_integral T>
void store_be(std::byte* to, T v) {
    if constexpr (std::endian::native != std::endian::big) {
        v = std::byteswap(v);
    }
    std::memcpy(to, &v, sizeof v);
}

inline ConstBytes as_bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ConstBytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Reads little-endian fields in order. Once a read would pass the end, ok() is false and every value is zero.
class LeReader {
  public:
    explicit LeReader(ConstBytes bytes) : rest_(bytes) {}
    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
    template <std::unsigned_integral T>
    T get() {
        const ConstBytes b = take(sizeof(T));
        return b.size() == sizeof(T) ? load_le<T>(b.data()) : T{0};
    }
    ConstBytes take(std::size_t n) {
        if (!ok_ || n > rest_.size()) {
            ok_ = false;
            return {};
        }
        const ConstBytes out = rest_.first(n);
        rest_ = rest_.subspan(n);
        return out;
    }
    /// A string stored in a fixed field, ended by the first NUL or by the field.
    std::string text(std::size_t field) {
        const std::string_view v = as_text(take(field));
        return std::string(v.substr(0, std::min(v.find('\0'), v.size())));
    }

  private:
    ConstBytes rest_;
    bool ok_ = true;
};

/// Writes little-endian fields in order into a fixed span. REQUIRES: the fields fit (tested by static sizes).
class LeWriter {
  public:
    explicit LeWriter(MutableBytes bytes) : rest_(bytes) {}
    [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
    template <std::unsigned_integral T>
    void put(T v) {
        store_le(claim(sizeof v).data(), v);
    }
    void put(ConstBytes from) { std::ranges::copy(from, claim(from.size()).begin()); }
    /// Text into a fixed field, cut to fit, padded with NUL.
    void text(std::string_view from, std::size_t field) {
        const MutableBytes to = claim(field);
        std::ranges::fill(to, std::byte{0});
        std::ranges::copy(as_bytes_of(from.substr(0, field)), to.begin());
    }

  private:
    MutableBytes claim(std::size_t n);
    MutableBytes rest_;
};

inline MutableBytes LeWriter::claim(std::size_t n) {
    const MutableBytes out = rest_.first(n);
    rest_ = rest_.subspan(n);
    return out;
}

/// Two lower-case hexadecimal digits for each byte.
inline std::string hex_of(ConstBytes bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    out.reserve(2 * bytes.size());
    for (const std::byte b : bytes) {
        out += digits[std::to_integer<unsigned>(b) >> 4U];
        out += digits[std::to_integer<unsigned>(b) & 15U];
    }
    return out;
}

/// What hex_of() was given, or the same in capitals; nothing if it is no such text.
inline std::optional<std::vector<std::byte>> bytes_of_hex(std::string_view digits) {
    const auto value = [](char c) -> unsigned {
        constexpr std::string_view lower = "0123456789abcdef";
        constexpr std::string_view upper = "0123456789ABCDEF";
        const std::size_t at = lower.find(c);
        return static_cast<unsigned>(at != std::string_view::npos ? at : std::min<std::size_t>(upper.find(c), 16));
    };
    std::vector<std::byte> out(digits.size() / 2);
    bool good = digits.size() % 2 == 0;
    for (std::size_t i = 0; good && i < out.size(); ++i) {
        const unsigned high = value(digits[2 * i]);
        const unsigned low = value(digits[2 * i + 1]);
        good = high < 16 && low < 16;
        out[i] = static_cast<std::byte>(high << 4U | low);
    }
    return good ? std::optional(std::move(out)) : std::nullopt;
}

/// 16 random bytes that name an array, a member, a volume or a node incarnation.
struct Uuid {
    std::array<std::byte, 16> bytes{};
    friend auto operator<=>(const Uuid&, const Uuid&) = default;
    [[nodiscard]] bool is_nil() const { return *this == Uuid{}; }
    /// 32 lower-case hexadecimal digits.
    [[nodiscard]] std::string text() const { return hex_of(bytes); }
    /// What text() gave, in capitals too.
    static std::optional<Uuid> parse(std::string_view text) {
        const auto found = bytes_of_hex(text);
        Uuid out;
        if (!found || found->size() != out.bytes.size()) {
            return std::nullopt;
        }
        std::ranges::copy(*found, out.bytes.begin());
        return out;
    }
};

}  // namespace gemel
