// SPDX-License-Identifier: Apache-2.0
// The file of secrets: where it is, and what is said when it is not as it should be.
#include "target/daemon/secrets_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace gemel {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
  protected:
    void SetUp() override { ASSERT_NE(::mkdtemp(root.data()), nullptr); }
    void TearDown() override { fs::remove_all(root); }
    void write(std::string_view text, mode_t mode) const {
        std::ofstream(root + "/secrets") << text;
        ASSERT_EQ(::chmod((root + "/secrets").c_str(), mode), 0);
    }
    [[nodiscard]] std::string error() const {
        const auto read = read_secrets(config, "gemel.toml", root);
        return read ? "" : read.error();
    }
    std::string root = (fs::temp_directory_path() / "gemel-secrets-XXXXXX").string();
    config::Config config = [] {
        config::Config c;
        c.chap.secrets = "secrets";
        c.targets.emplace_back().chap = {{"host"}, "", {7, 3}, {}};
        return c;
    }();
};

TEST_F(Files, AreReadFromTheStateDirectoryIfNobodyElseCan) {
    constexpr std::string_view kText = "[[user]]\nname = \"host\"\nsecret = \"hush-hush-hush\"\n";
    EXPECT_EQ(error(), "the secrets file " + root + "/secrets: cannot open it: No such file or directory\n");
    write(kText, 0600);
    EXPECT_EQ(error(), "");
    EXPECT_EQ(read_secrets(config, "", root)->users.at(0).secret, "hush-hush-hush");
    write(kText, 0644);
    EXPECT_TRUE(error().contains("its mode is 0644")) << error();
    EXPECT_TRUE(error().contains("chmod 600")) << error();
    write("[[user]]\nname = \"host\"\nsecret = \"hush\"\n", 0600);
    EXPECT_TRUE(error().contains(root + "/secrets:3:")) << error();
    EXPECT_FALSE(error().contains("hush")) << error();
    write("[[user]]\nname = \"guest\"\nsecret = \"hush-hush-hush\"\n", 0600);
    EXPECT_TRUE(error().contains("gemel.toml:7:3:")) << error();
    write(std::string((1U << 20U) + 4097, '#'), 0600);
    EXPECT_TRUE(error().contains("longer than 1048576 bytes")) << error();
}

TEST_F(Files, AreNoPipes) {
    ASSERT_EQ(::mkfifo((root + "/secrets").c_str(), 0600), 0);
    EXPECT_TRUE(error().contains("it is not a file")) << error();
}

TEST_F(Files, AreNotNeededWhereNothingUsesThem) {
    config.chap.secrets.clear();
    EXPECT_EQ(error(), "");
}

}  // namespace
}  // namespace gemel
