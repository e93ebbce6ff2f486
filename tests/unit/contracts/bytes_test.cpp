// SPDX-License-Identifier: Apache-2.0
// Bytes as text.
#include "gemel/bytes.hpp"

#include <gtest/gtest.h>

namespace gemel {
namespace {

TEST(Hexadecimal, IsReadAsItIsWrittenInEitherCase) {
    std::vector<std::byte> all(256);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::byte>(i);
    }
    const std::string text = hex_of(all);
    EXPECT_EQ(text.substr(0, 6), "000102");
    EXPECT_EQ(text.substr(text.size() - 6), "fdfeff");
    EXPECT_EQ(bytes_of_hex(text), all);
    EXPECT_EQ(bytes_of_hex("AbCD"), (std::vector{std::byte{0xab}, std::byte{0xcd}}));
    EXPECT_EQ(bytes_of_hex(""), std::vector<std::byte>());
    for (const std::string_view bad : {"a", "0g", "G0", "0x", " 1", "1 ", "-1", "+1", "00 ", "ab:cd", "\xff\xff"}) {
        EXPECT_FALSE(bytes_of_hex(bad).has_value()) << bad;
    }
    EXPECT_FALSE(bytes_of_hex(std::string_view("0\0", 2)).has_value());
}

TEST(Hexadecimal, NamesAUuid) {
    Uuid id;
    id.bytes[0] = std::byte{0xfe};
    id.bytes[15] = std::byte{0x01};
    EXPECT_EQ(id.text(), "fe000000000000000000000000000001");
    EXPECT_EQ(Uuid::parse(id.text()), id);
    EXPECT_FALSE(Uuid::parse(id.text().substr(2)).has_value());
    EXPECT_FALSE(Uuid::parse(id.text() + "00").has_value());
    EXPECT_FALSE(Uuid::parse("fe-00000000000000000000000000001").has_value());
}

}  // namespace
}  // namespace gemel
