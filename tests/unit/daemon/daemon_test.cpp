// SPDX-License-Identifier: Apache-2.0
// The daemon's life as a whole, on arrays in memory.
#include "target/daemon/daemon.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "raid/level_table.hpp"

namespace gemel {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = R"(
[node]
name = "alpha"
[daemon]
io_processors = 2
memory = "64MiB"
[replication]
listen = "127.0.0.1:0"
[[portal]]
address = "127.0.0.1:0"
[[array]]
name = "a"
level = "5"
create = true
members = [{kind = "memory", size = "32MiB"}, {kind = "memory", size = "32MiB"}, {kind = "memory", size = "32MiB"}]
[[volume]]
name = "one"
array = "a"
size = "16MiB"
[[volume]]
name = "two"
array = "a"
size = "16MiB"
[[target]]
iqn = "iqn.2026-11.dev.gemel:t"
luns = [{lun = 0, volume = "one"}, {lun = 1, volume = "two"}]
)";

std::int64_t no_time() {
    return 0;
}

config::Config parsed() {
    std::vector<config::LevelRule> rules;
    for (const raid::LevelRow& row : raid::kLevelTable) {
        rules.push_back({std::string(row.name), row.min_members, raid::kMaxMembers});
    }
    auto config = config::parse(kConfig, rules);
    CHECK(config.has_value());
    return *std::move(config);
}

/// Starts a daemon, lets its arrays work for `time`, and stops it; the number of volumes that it had.
Task<std::size_t> live(Runtime& runtime, admin::EventRing& events, StateDirectory& state, Duration time) {
    events.attach(runtime.processors().main());
    std::size_t volumes = 0;
    {
        Daemon daemon(runtime, events, state, {parsed(), {}, "test"});
        const auto started = co_await daemon.start();
        EXPECT_TRUE(started.has_value()) << (started ? "" : started.error().error.message);
        co_await sleep_for(runtime.environment().clock, time);
        const auto list = co_await daemon.volume_list();
        volumes = list ? list->as_array().size() : 0;
        co_await daemon.stop();
    }
    co_await events.detach();
    co_return volumes;
}

TEST(Daemon, StopsWhileItsArraysWorkAndLeavesNothingBehind) {
    std::string root = (fs::temp_directory_path() / "gemel-daemon-XXXXXX").string();
    ASSERT_NE(::mkdtemp(root.data()), nullptr);
    for (int round = 0; round < 8; ++round) {
        auto state = StateDirectory::open(root, Duration{});
        ASSERT_TRUE(state.has_value());
        admin::EventRing events(64, no_time, nullptr);
        RuntimeOptions options;
        options.io_processors = 2;
        options.memory_bytes = 64U << 20U;
        auto runtime = Runtime::create(options, events).value();
        ASSERT_TRUE(runtime->processors().start().has_value());
        std::thread main([&] { CHECK(runtime->processors().run_main().has_value()); });
        // A fresh array makes its parity in the background.
        EXPECT_EQ(run_blocking(runtime->processors().main(),
                               live(*runtime, events, *state, std::chrono::milliseconds(round))),
                  2U);
        EXPECT_EQ(runtime->buffers().outstanding_bytes(), 0U);
        runtime->processors().stop_main();
        main.join();
        runtime->processors().stop_and_join();
    }
    fs::remove_all(root);
}

}  // namespace
}  // namespace gemel
