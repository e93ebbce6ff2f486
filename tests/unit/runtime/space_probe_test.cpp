// SPDX-License-Identifier: Apache-2.0
// SpaceProbe: an answer comes from another thread, and who asked goes on whatever that thread waits for.
#include "target/runtime/space_probe.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace gemel {
namespace {

std::atomic<bool> server_is_there{false};

std::optional<std::uint32_t> hangs(const std::string& path) {
    while (!server_is_there.load()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return static_cast<std::uint32_t>(path.size());
}

void wait_for(const SpaceAnswer& answer) {
    for (int i = 0; i < 10000 && !answer.there.load(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(answer.there.load());
}

TEST(SpaceProbe, WhoAsksOneThatHangsGoesOn) {
    const auto late = std::make_shared<SpaceAnswer>();
    std::weak_ptr<SpaceAnswer> dropped;
    {
        const auto nobody_waits = std::make_shared<SpaceAnswer>();
        dropped = nobody_waits;
        ask_beside(&hangs, "/x", nobody_waits);
    }
    ask_beside(&hangs, "/four", late);
    EXPECT_FALSE(late->there.load());
    EXPECT_FALSE(dropped.expired()) << "its thread still has it";
    server_is_there = true;
    wait_for(*late);
    EXPECT_EQ(late->used, 5U);
    while (!dropped.expired()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

TEST(SpaceProbe, TheFileSystemSaysHowFullItIsIfItCan) {
    const auto root = std::make_shared<SpaceAnswer>();
    ask_beside(&used_percent, "/", root);
    wait_for(*root);
    EXPECT_LE(root->used.value_or(0), 100U);
    EXPECT_EQ(root->used.has_value(), used_percent("/").has_value());
    EXPECT_FALSE(used_percent("/no/such/file"));
}

}  // namespace
}  // namespace gemel
