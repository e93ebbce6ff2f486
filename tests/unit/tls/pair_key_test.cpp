// SPDX-License-Identifier: Apache-2.0
// Key files: what is taken, and what is refused with a word on what to do.
#include "target/tls/pair_key.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "gemel/check.hpp"

namespace gemel::tls {
namespace {

namespace fs = std::filesystem;

class PairKeyTest : public ::testing::Test {
  protected:
    PairKeyTest() {
        std::string name = (fs::temp_directory_path() / "gemel-key-XXXXXX").string();
        CHECK(::mkdtemp(name.data()) != nullptr);
        folder_ = name;
    }
    ~PairKeyTest() override { fs::remove_all(folder_); }

    std::string file(const std::string& text, mode_t mode = 0600) {
        const std::string path = (folder_ / "key").string();
        std::ofstream(path) << text;
        CHECK(::chmod(path.c_str(), mode) == 0);
        return path;
    }
    static std::string digits(std::size_t n) {
        std::string out;
        for (std::size_t i = 0; i < n; ++i) {
            out += "0123456789abcdefABCDEF"[i % 22];
        }
        return out;
    }

    fs::path folder_;
};

TEST_F(PairKeyTest, SixtyFourDigitsAreAKeyWithAndWithoutALineEnd) {
    const Result<PairKey> key = read_pair_key(file(digits(64) + "\n"));
    ASSERT_TRUE(key.has_value()) << key.error().message;
    EXPECT_EQ((*key)[0], std::byte{0x01});
    EXPECT_EQ((*key)[8], std::byte{0xAB});
    EXPECT_EQ((*key)[10], std::byte{0xEF});
    EXPECT_EQ(read_pair_key(file(digits(64))).value(), *key);
}

TEST_F(PairKeyTest, WhatIsNoKeyIsRefusedWithoutBeingTold) {
    for (const std::string& text : {std::string(), digits(63), digits(65), digits(64) + "\n\n", digits(63) + "g",
                                    digits(32) + " " + digits(31), digits(64) + "\r\n"}) {
        const Result<PairKey> key = read_pair_key(file(text));
        ASSERT_FALSE(key.has_value()) << text;
        EXPECT_EQ(key.error().code, Errc::kInvalidArgument);
        EXPECT_NE(key.error().message.find("openssl rand -hex 32"), std::string::npos);
        EXPECT_EQ(key.error().message.find("0123456789"), std::string::npos) << "the message has the key";
    }
    EXPECT_EQ(read_pair_key((folder_ / "none").string()).error().code, Errc::kNotFound);
    EXPECT_EQ(read_pair_key(folder_.string()).error().code, Errc::kInvalidArgument);
}

TEST_F(PairKeyTest, OneThatOthersCanReadIsRefused) {
    for (const mode_t mode : {0644U, 0640U, 0604U, 0660U}) {
        const Result<PairKey> key = read_pair_key(file(digits(64), mode));
        ASSERT_FALSE(key.has_value());
        EXPECT_EQ(key.error().code, Errc::kRefused);
        EXPECT_NE(key.error().message.find("chmod 600"), std::string::npos);
    }
}

}  // namespace
}  // namespace gemel::tls
