// SPDX-License-Identifier: Apache-2.0
// When an array is formatted, opened or refused, on real files.
#include "target/daemon/array_start.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "target/admin/event_ring.hpp"
#include "target/runtime/runtime.hpp"

namespace gemel {
namespace {

namespace fs = std::filesystem;

std::int64_t no_time() {
    return 0;
}

/// A directory with members, and a runtime whose main processor runs on a thread of its own.
class ArrayStartTest : public ::testing::Test {
  protected:
    ArrayStartTest() {
        // Not in memory: the members are opened with O_DIRECT.
        std::string name = (fs::temp_directory_path() / "gemel-array-XXXXXX").string();
        CHECK(::mkdtemp(name.data()) != nullptr);
        root_ = name;
        open_state();
        RuntimeOptions options;
        options.io_processors = 1;
        options.memory_bytes = 64U << 20U;
        runtime_ = Runtime::create(options, events_).value();
        CHECK(runtime_->processors().start().has_value());
        main_ = std::thread([this] { CHECK(runtime_->processors().run_main().has_value()); });
        environment_ = std::make_unique<Environment>(runtime_->environment());
        array_.name = "r5";
        array_.level = "5";
        array_.strip_bytes = 16U << 10U;
        array_.create = true;
        for (const char* member : {"m0", "m1", "m2"}) {
            array_.members.push_back({config::MemberKind::kFile, member, 8U << 20U, {}});
        }
    }
    ~ArrayStartTest() override {
        runtime_->processors().stop_main();
        main_.join();
        runtime_->processors().stop_and_join();
        state_.reset();
        fs::remove_all(root_);
    }
    void open_state() {
        state_ = std::make_unique<StateDirectory>(StateDirectory::open(root_.string(), Duration{}).value());
    }

    /// Starts the array and stops it again; its uuid, or the error.
    Result<Uuid> start() {
        return run_blocking(
            runtime_->processors().main(),
            start_and_stop({*environment_, *state_, array_, {{"v", 0}}, {&runtime_->processors().io(0)}, false}));
    }
    static Task<Result<Uuid>> start_and_stop(ArrayStart given) {
        Executor& home = Executor::current();
        Executor& shard = *given.shards.front();
        CO_TRY(StartedArray started, co_await start_array(given));
        const Uuid uuid = started.array->status().uuid;
        while (started.array->status().resyncing) {
            co_await sleep_for(given.environment.clock, std::chrono::milliseconds(10));
        }
        co_await resume_on(shard);
        const auto stopped = co_await started.array->stop();
        co_await resume_on(home);
        if (!stopped) {
            co_return std::unexpected(stopped.error());
        }
        started.array.reset();
        co_return uuid;
    }
    [[nodiscard]] std::string bytes_of_member(const std::string& name) const {
        std::ifstream file(root_ / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void expect_refused(std::string_view says) {
        const auto started = start();
        ASSERT_FALSE(started.has_value());
        EXPECT_NE(started.error().message.find(says), std::string::npos) << started.error().message;
    }

    fs::path root_;
    admin::EventRing events_{256, no_time, nullptr};
    std::unique_ptr<Runtime> runtime_;
    std::unique_ptr<Environment> environment_;
    std::unique_ptr<StateDirectory> state_;
    std::thread main_;
    config::Array array_;
};

TEST_F(ArrayStartTest, TheFirstStartFormatsAndLaterOnesOpenTheSameArray) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    EXPECT_EQ(fs::file_size(root_ / "m0"), 8U << 20U);
    EXPECT_EQ(state_->array_record("r5").value(), (ArrayRecord{ArrayRecord::State::kFormatted, *first, {8U << 20U}}));
    const auto second = start();
    ASSERT_TRUE(second.has_value()) << second.error().message;
    EXPECT_EQ(*second, *first);
}

TEST_F(ArrayStartTest, MembersThatWereExtendedMeanwhileAreFoundAndNeverFormattedAnew) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    for (std::uint64_t size : {10U << 20U, 11U << 20U}) {
        for (const char* member : {"m0", "m1", "m2"}) {
            fs::resize_file(root_ / member, size);
        }
        const auto again = start();
        ASSERT_TRUE(again.has_value()) << again.error().message;
        EXPECT_EQ(*again, *first);
    }
    EXPECT_EQ(state_->array_record("r5").value()->bytes,
              (std::vector<std::uint64_t>{8U << 20U, 10U << 20U, 11U << 20U}));
    for (const char* member : {"m0", "m1", "m2"}) {
        fs::resize_file(root_ / member, 12U << 20U);
    }
    ASSERT_TRUE(state_->write_array_record("r5", {ArrayRecord::State::kFormatted, *first}));  // the sizes are lost
    expect_refused("give them back the size they had");
    for (const char* member : {"m0", "m1", "m2"}) {
        fs::resize_file(root_ / member, 11U << 20U);
    }
    const auto last = start();
    ASSERT_TRUE(last.has_value()) << last.error().message;
    EXPECT_EQ(*last, *first);
}

TEST_F(ArrayStartTest, WithoutCreateBlankMembersAreNotFormatted) {
    array_.create = false;
    for (const char* member : {"m0", "m1", "m2"}) {
        std::ofstream(root_ / member) << std::string(8U << 20U, '\0');
    }
    expect_refused("create = true");
    EXPECT_EQ(bytes_of_member("m0"), std::string(8U << 20U, '\0'));
    EXPECT_EQ(state_->array_record("r5").value(), std::nullopt);
}

TEST_F(ArrayStartTest, AMemberThatHoldsSomethingStopsTheCreationAndNothingIsChanged) {
    std::ofstream(root_ / "m1") << std::string(1080, '\0') << "\x53\xef" << std::string((8U << 20U) - 1082, '\0');
    // Not a file system that anybody knows, but not blank either: the array itself looks for zeros.
    const std::string before = bytes_of_member("m1");
    expect_refused("not blank");
    EXPECT_EQ(bytes_of_member("m1"), before);
    EXPECT_FALSE(fs::exists(root_ / "m0"));
    EXPECT_EQ(state_->array_record("r5").value(), std::nullopt);
}

TEST_F(ArrayStartTest, MembersOfAnArrayThatThisDirectoryDoesNotKnowAreNotFormattedAgain) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    ASSERT_TRUE(state_->remove_array_record("r5").has_value());
    expect_refused("create = false");
    EXPECT_EQ(state_->array_record("r5").value(), std::nullopt);
    array_.create = false;  // the way that the message names
    const auto again = start();
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(*again, *first);
    EXPECT_EQ(state_->array_record("r5").value()->uuid, *first);
}

TEST_F(ArrayStartTest, AMemberFileThatVanishedIsAMissingMemberAndIsNotMadeAgain) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    fs::remove(root_ / "m1");
    const auto degraded = start();
    ASSERT_TRUE(degraded.has_value()) << degraded.error().message;
    EXPECT_EQ(*degraded, *first);
    EXPECT_FALSE(fs::exists(root_ / "m1"));
}

TEST_F(ArrayStartTest, OtherMembersThanTheRecordSaysAreRefused) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    Uuid other;
    other.bytes[3] = std::byte{7};
    ASSERT_TRUE(state_->write_array_record("r5", {ArrayRecord::State::kFormatted, other}).has_value());
    expect_refused("was created from this state directory");
}

TEST_F(ArrayStartTest, ACreationThatWasInterruptedIsFinishedIfAllOrNothingWasFormatted) {
    const ArrayRecord interrupted{ArrayRecord::State::kFormatting, Uuid{}};
    ASSERT_TRUE(state_->write_array_record("r5", interrupted).has_value());
    const auto first = start();  // nothing was formatted
    ASSERT_TRUE(first.has_value()) << first.error().message;
    ASSERT_TRUE(state_->write_array_record("r5", interrupted).has_value());
    const auto second = start();  // all was
    ASSERT_TRUE(second.has_value()) << second.error().message;
    EXPECT_EQ(*second, *first);
    EXPECT_EQ(state_->array_record("r5").value()->uuid, *first);
}

TEST_F(ArrayStartTest, ACreationThatWasInterruptedIsNotBegunAgainWithoutCreate) {
    const ArrayRecord interrupted{ArrayRecord::State::kFormatting, Uuid{}};
    ASSERT_TRUE(state_->write_array_record("r5", interrupted).has_value());
    array_.create = false;
    for (const char* member : {"m0", "m1", "m2"}) {
        std::ofstream(root_ / member) << std::string(8U << 20U, '\0');
    }
    expect_refused("no member holds array r5");
    EXPECT_EQ(bytes_of_member("m0"), std::string(8U << 20U, '\0'));
    EXPECT_EQ(state_->array_record("r5").value(), interrupted);
}

TEST_F(ArrayStartTest, ACreationThatWasInterruptedHalfWayIsRefusedWithInstructions) {
    const auto first = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    ASSERT_TRUE(state_->write_array_record("r5", {ArrayRecord::State::kFormatting, Uuid{}}).has_value());
    std::ofstream(root_ / "m2", std::ios::trunc) << std::string(8U << 20U, '\0');
    expect_refused("wipe its members");
}

TEST_F(ArrayStartTest, AnArrayInMemoryIsMadeAtEveryStart) {
    array_.members.assign(3, {config::MemberKind::kMemory, "", 8U << 20U, {}});
    const auto first = start();
    const auto second = start();
    ASSERT_TRUE(first.has_value()) << first.error().message;
    ASSERT_TRUE(second.has_value()) << second.error().message;
    EXPECT_NE(*first, *second);
    EXPECT_EQ(state_->array_record("r5").value(), std::nullopt);
}

}  // namespace
}  // namespace gemel
