// SPDX-License-Identifier: Apache-2.0
// SpaceWatch: when it tells that a file system fills up, and that it does so once.
#include "target/daemon/space_watch.hpp"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/sim_environment.hpp"

namespace gemel {
namespace {

std::map<std::string, std::uint32_t> used;

std::optional<std::uint32_t> measure(const std::string& path) {
    const auto found = used.find(path);
    return found == used.end() ? std::nullopt : std::optional(found->second);
}

struct Bench {
    sim::SimScheduler scheduler{1};
    sim::SimNetwork network{scheduler, 1};
    sim::SimEnvironment environment{scheduler, network, "node", 1};
    std::vector<std::string> told;
    SpaceWatch watch{environment.get(), [this](const std::string& array) { told.push_back(array); }, &measure};
};

TEST(SpaceWatch, ThresholdIsToldOfOnceUntilThereWasSpaceAgain) {
    Bench b;
    EXPECT_TRUE(b.watch.add({"one", 90, {"/a", "/b"}}));
    EXPECT_FALSE(b.watch.add({"two", 95, {"/a"}}));
    const std::vector<std::pair<std::uint32_t, std::size_t>> steps{{50, 0}, {89, 0}, {90, 1}, {93, 1},
                                                                   {90, 1}, {89, 1}, {91, 2}, {96, 3}};
    for (const auto& [percent, times] : steps) {
        used = {{"/a", percent}, {"/b", 10}};
        b.watch.look();
        EXPECT_EQ(b.told.size(), times) << "at " << percent;
        EXPECT_EQ(b.environment.events().count("space-low"), times);
    }
    EXPECT_EQ(b.told, (std::vector<std::string>{"one", "one", "two"}));
}

TEST(SpaceWatch, AFileSystemThatSaysNothingIsNotFull) {
    Bench b;
    b.watch.add({"one", 1, {"/gone"}});
    used.clear();
    b.watch.look();
    EXPECT_TRUE(b.told.empty());
    EXPECT_FALSE(used_percent("/no/such/file"));
    const auto root = used_percent("/");
    EXPECT_TRUE(!root || *root <= 100);
}

TEST(SpaceWatch, ItLooksUntilItIsStopped) {
    Bench b;
    b.watch.add({"one", 90, {"/a"}});
    used = {{"/a", 10}};
    sim::SimExecutor& home = b.scheduler.add_executor("home");
    Event stop;
    Gate gate;
    const auto run = [](SpaceWatch& watch, Event& end, Gate& in) -> Task<void> {
        in.spawn(watch.run(end));
        co_return;
    };
    b.scheduler.start(home, run(b.watch, stop, gate));
    b.scheduler.run_for(std::chrono::seconds(7));
    EXPECT_TRUE(b.told.empty());
    used["/a"] = 99;
    b.scheduler.run_for(std::chrono::seconds(6));
    EXPECT_EQ(b.told.size(), 1U);
    const auto end = [](Event& e, Gate& in) -> Task<void> {
        e.set();
        co_await in.close();
    };
    b.scheduler.run(home, end(stop, gate));
    EXPECT_EQ(gate.inside(), 0U);
}

}  // namespace
}  // namespace gemel
