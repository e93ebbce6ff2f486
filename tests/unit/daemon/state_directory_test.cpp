// SPDX-License-Identifier: Apache-2.0
// The state directory: one daemon at a time, records that survive, and damaged ones that are noticed.
#include "target/daemon/state_directory.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace gemel {
namespace {

class StateDirectoryTest : public ::testing::Test {
  protected:
    StateDirectoryTest() {
        std::string name = (std::filesystem::temp_directory_path() / "gemel-state-XXXXXX").string();
        CHECK(::mkdtemp(name.data()) != nullptr);
        root_ = name;
    }
    ~StateDirectoryTest() override { std::filesystem::remove_all(root_); }
    [[nodiscard]] std::string path() const { return (root_ / "new" / "state").string(); }
    Result<StateDirectory> open() { return StateDirectory::open(path(), Duration{}); }

    std::filesystem::path root_;
};

ArrayRecord formatted() {
    ArrayRecord record{ArrayRecord::State::kFormatted, {}};
    record.uuid.bytes[0] = std::byte{0xab};
    record.uuid.bytes[15] = std::byte{0x01};
    record.bytes = {4096, std::uint64_t{1} << 50U};
    return record;
}

TEST_F(StateDirectoryTest, ItIsMadeForItsOwnerOnlyAndASecondDaemonIsToldWhoHasIt) {
    auto first = open();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    struct stat info{};
    ASSERT_EQ(::stat(path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0700U);
    const auto second = open();
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, Errc::kBusy);
    EXPECT_NE(second.error().message.find("process " + std::to_string(::getpid()) + " ("), std::string::npos)
        << second.error().message;
}

TEST_F(StateDirectoryTest, ItIsFreeAgainWhenItsDaemonIsGone) {
    {
        const auto first = open();
        ASSERT_TRUE(first.has_value());
    }
    EXPECT_TRUE(open().has_value());
}

TEST_F(StateDirectoryTest, RelativePathsAreUnderIt) {
    const auto state = open();
    EXPECT_EQ(state->resolve("a/b"), path() + "/a/b");
    EXPECT_EQ(state->resolve("/a/b"), "/a/b");
    EXPECT_EQ(state->resolve("./x/../y"), path() + "/y");
}

TEST_F(StateDirectoryTest, SparesThatWereAddedAreThereAtTheNextStartAndDamageIsNoticed) {
    const std::vector<AddedSpare> spares{{"file", "/a b/c", 40U << 20U}, {"block", "/dev/sdx", 1}};
    {
        auto state = open();
        EXPECT_EQ(state->added_spares("r5").value(), std::vector<AddedSpare>{});
        ASSERT_TRUE(state->write_added_spares("r5", spares).has_value());
    }
    auto state = open();
    EXPECT_EQ(state->added_spares("r5").value(), spares);
    EXPECT_EQ(state->added_spares("r6").value(), std::vector<AddedSpare>{});
    std::string text = encode_spares(spares);
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::string bad = text;
        bad[i] = static_cast<char>(bad[i] ^ 1);
        EXPECT_NE(decode_spares(bad), spares) << i;
    }
    std::ofstream(path() + "/spares/r5") << text.substr(0, 40);
    const auto damaged = state->added_spares("r5");
    ASSERT_FALSE(damaged.has_value());
    EXPECT_EQ(damaged.error().code, Errc::kCorrupt);
    EXPECT_NE(damaged.error().message.find("/spares/r5"), std::string::npos) << damaged.error().message;
    ASSERT_TRUE(state->write_added_spares("r5", {}).has_value());
    EXPECT_EQ(state->added_spares("r5").value(), std::vector<AddedSpare>{});
}

TEST_F(StateDirectoryTest, ARecordIsThereAtTheNextStartAndCanBeRemoved) {
    {
        auto state = open();
        EXPECT_EQ(state->array_record("r5").value(), std::nullopt);
        ASSERT_TRUE(state->write_array_record("r5", {ArrayRecord::State::kFormatting, Uuid{}}).has_value());
        EXPECT_EQ(state->array_record("r5").value()->state, ArrayRecord::State::kFormatting);
        ASSERT_TRUE(state->write_array_record("r5", formatted()).has_value());
    }
    auto state = open();
    EXPECT_EQ(state->array_record("r5").value(), formatted());
    EXPECT_EQ(state->array_record("r6").value(), std::nullopt);
    ASSERT_TRUE(state->remove_array_record("r5").has_value());
    EXPECT_EQ(state->array_record("r5").value(), std::nullopt);
    EXPECT_TRUE(state->remove_array_record("r5").has_value());
}

TEST_F(StateDirectoryTest, ADraftThatACrashLeftBehindChangesNothing) {
    auto state = open();
    ASSERT_TRUE(state->write_array_record("r5", formatted()).has_value());
    std::ofstream(path() + "/arrays/r5#") << "half of a rec";
    EXPECT_EQ(state->array_record("r5").value(), formatted());
    ASSERT_TRUE(state->write_array_record("r5", {ArrayRecord::State::kFormatting, Uuid{}}).has_value());
    EXPECT_EQ(state->array_record("r5").value()->state, ArrayRecord::State::kFormatting);
}

TEST_F(StateDirectoryTest, CreatedArraysAreThereAtTheNextStartInOrder) {
    EXPECT_TRUE(created_arrays(path()).value().empty()) << "there is no directory yet";
    {
        auto state = open();
        ASSERT_TRUE(state->write_created({"b", "[[array]]\n"}));
        ASSERT_TRUE(state->write_created({"a", "text"}));
        ASSERT_TRUE(state->write_created({"c", "gone"}));
        ASSERT_TRUE(state->remove_created("c"));
        std::ofstream(path() + "/created/d.toml#") << "half of a def";
    }
    const auto found = created_arrays(path());
    ASSERT_TRUE(found.has_value());
    ASSERT_EQ(found->size(), 2U);
    EXPECT_EQ(found->front().name, "a");
    EXPECT_EQ(found->front().definition, "text");
    EXPECT_EQ(found->back().definition, "[[array]]\n");
}

TEST_F(StateDirectoryTest, ADamagedRecordIsAnErrorAndNeverNoRecord) {
    auto state = open();
    ASSERT_TRUE(state->write_array_record("r5", formatted()).has_value());
    const std::string good = encode_record(formatted());
    for (std::size_t i = 0; i < good.size(); ++i) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ 4);
        std::ofstream(path() + "/arrays/r5", std::ios::trunc) << bad;
        const auto record = state->array_record("r5");
        ASSERT_FALSE(record.has_value()) << "byte " << i;
        EXPECT_EQ(record.error().code, Errc::kCorrupt);
    }
    for (std::size_t size = 0; size < good.size(); ++size) {
        EXPECT_FALSE(decode_record(std::string_view(good).substr(0, size)).has_value()) << size;
    }
}

}  // namespace
}  // namespace gemel
