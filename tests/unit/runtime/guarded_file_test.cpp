// SPDX-License-Identifier: Apache-2.0
// Files of secrets: whose they may be and who may use them, by mode and by access list.
#include "target/runtime/guarded_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace gemel {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kDaemon = 990;
constexpr std::uint32_t kNobody = 0xffffffff;

struct Entry {
    std::uint16_t tag;
    std::uint16_t permissions;
    std::uint32_t id = kNobody;
};
constexpr Entry kOwner{0x01, 4};
constexpr Entry kNoGroup{0x04, 0};
constexpr Entry kMask{0x10, 4};
constexpr Entry kNoOther{0x20, 0};

std::vector<std::byte> acl(std::initializer_list<Entry> entries) {
    std::vector<std::byte> out(4 + 8 * entries.size());
    store_le<std::uint32_t>(out.data(), 2);
    std::byte* at = &out[4];
    for (const Entry& e : entries) {
        store_le(at, e.tag);
        store_le(at + 2, e.permissions);
        store_le(at + 4, e.id);
        at += 8;
    }
    return out;
}

TEST(GuardedFile, OnlyTheDaemonAndRootMayUseIt) {
    struct Case {
        mode_t mode;
        uid_t owner;
        bool good;
    };
    for (const Case& c : {Case{S_IFREG | 0600, kDaemon, true},
                          {S_IFREG | 0400, kDaemon, true},
                          {S_IFREG | 0600, 0, true},
                          {S_IFREG | 0600, 1000, false},
                          {S_IFREG | 0640, kDaemon, false},
                          {S_IFREG | 0604, kDaemon, false},
                          {S_IFREG | 0620, kDaemon, false},
                          {S_IFREG | 0440, 0, false},
                          {S_IFREG | 0644, 0, false},
                          {S_IFIFO | 0600, kDaemon, false},
                          {S_IFDIR | 0700, kDaemon, false}}) {
        EXPECT_EQ(check_guard({c.mode, c.owner}, kDaemon).has_value(), c.good) << std::oct << c.mode << " " << c.owner;
    }
    EXPECT_TRUE(check_guard({S_IFREG | 0440, 0}, kDaemon).error().message.contains("its mode is 0440"));
}

TEST(GuardedFile, AnAccessListSaysWhoMayWhateverTheModeShows) {
    // What systemd 254 and later make of LoadCredential=.
    const auto credential = acl({kOwner, {0x02, 4, kDaemon}, kNoGroup, kMask, kNoOther});
    EXPECT_TRUE(check_guard({S_IFREG | 0440, 0, credential}, kDaemon));
    EXPECT_FALSE(check_guard({S_IFREG | 0440, 1000, credential}, kDaemon)) << "its owner can change it";
    EXPECT_FALSE(check_guard({S_IFREG | 0444, 0, credential}, kDaemon));
    EXPECT_FALSE(check_guard({S_IFREG | 0440, 0, credential}, 1000)) << "the daemon is another user";
    const std::vector<std::vector<std::byte>> bad{
        acl({kOwner, {0x02, 4, 1000}, kNoGroup, kMask, kNoOther}),
        acl({kOwner, {0x02, 4, kDaemon}, {0x02, 2, 1001}, kNoGroup, kMask, kNoOther}),
        acl({kOwner, {0x02, 4, kDaemon}, {0x04, 4}, kMask, kNoOther}),
        acl({kOwner, {0x02, 4, kDaemon}, kNoGroup, {0x08, 4, 6}, kMask, kNoOther}),
        acl({kOwner, {0x02, 4, kDaemon}, kNoGroup, kMask, {0x20, 4}}),
        acl({kOwner, {0x40, 4, kDaemon}}),
        {std::byte{3}, std::byte{0}, std::byte{0}, std::byte{0}},
        {std::byte{2}, std::byte{0}},
        std::vector<std::byte>(credential.begin(), credential.end() - 1)};
    for (const auto& list : bad) {
        const Result<void> judged = check_guard({S_IFREG | 0440, 0, list}, kDaemon);
        ASSERT_FALSE(judged) << list.size();
        EXPECT_EQ(judged.error().code, Errc::kRefused);
        EXPECT_TRUE(judged.error().message.contains("setfacl -b")) << judged.error().message;
    }
}

class Files : public testing::Test {
  protected:
    void SetUp() override { ASSERT_NE(::mkdtemp(root_.data()), nullptr); }
    void TearDown() override { fs::remove_all(root_); }
    [[nodiscard]] std::string file(std::string_view text, mode_t mode) const {
        std::string path = root_ + "/secret";
        std::ofstream(path) << text;
        EXPECT_EQ(::chmod(path.c_str(), mode), 0);
        return path;
    }
    std::string root_ = (fs::temp_directory_path() / "gemel-guard-XXXXXX").string();
};

TEST_F(Files, AreReadWholeAndNoFurtherThanAsked) {
    const std::string text(10000, 'x');
    EXPECT_EQ(read_guarded_file(file(text, 0600), 10000).value(), text);
    EXPECT_EQ(read_guarded_file(file(text, 0400), 9999).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(read_guarded_file(file(text, 0640), 10000).error().code, Errc::kRefused);
    EXPECT_EQ(read_guarded_file(root_, 10000).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(read_guarded_file(root_ + "/none", 10000).error().code, Errc::kNotFound);
    ASSERT_EQ(::mkfifo((root_ + "/pipe").c_str(), 0600), 0);
    EXPECT_EQ(read_guarded_file(root_ + "/pipe", 10000).error().code, Errc::kInvalidArgument);
}

TEST_F(Files, AreJudgedByTheAccessListThatTheyHave) {
    const std::string path = file("hush", 0400);
    for (const auto& [user, good] : {std::pair{::geteuid(), true}, std::pair{uid_t{12345}, false}}) {
        const auto list = acl({kOwner, {0x02, 4, user}, kNoGroup, kMask, kNoOther});
        if (::setxattr(path.c_str(), "system.posix_acl_access", list.data(), list.size(), 0) != 0) {
            ASSERT_EQ(errno, ENOTSUP);  // then the mode alone counts, as above
            break;
        }
        struct ::stat about{};
        ASSERT_EQ(::stat(path.c_str(), &about), 0);
        EXPECT_EQ(about.st_mode & 07777U, 0440U);
        EXPECT_EQ(read_guarded_file(path, 100).has_value(), good) << user;
    }
}

}  // namespace
}  // namespace gemel
