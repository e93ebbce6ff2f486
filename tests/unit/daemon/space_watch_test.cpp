// SPDX-License-Identifier: Apache-2.0
// SpaceWatch: when it tells that a file system fills up, and that it does so once.
#include "target/daemon/space_watch.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "tests/support/sim_environment.hpp"

namespace gemel {
namespace {

namespace fs = std::filesystem;

struct Bench {
    /// What file systems say; one that is not here says nothing, and a silent one does not answer.
    std::map<std::string, std::uint32_t> used;
    std::set<std::string> silent;
    std::map<std::string, int> asked;
    std::vector<std::shared_ptr<SpaceAnswer>> owed;

    void answer(const std::string& path, std::shared_ptr<SpaceAnswer> to) {
        ++asked[path];
        if (silent.contains(path)) {
            owed.push_back(std::move(to));
            return;
        }
        if (const auto found = used.find(path); found != used.end()) {
            to->used = found->second;
        }
        to->there = true;
    }
    void look() {
        watch.ask();
        watch.judge();
    }
    /// run() in the background, until end().
    void start() {
        home = &scheduler.add_executor("home");
        const auto spawn = [](SpaceWatch& w, Event& stop, Gate& in) -> Task<void> {
            in.spawn(w.run(stop));
            co_return;
        };
        scheduler.start(*home, spawn(watch, stop, gate));
    }
    void end() {
        const auto close = [](Event& e, Gate& in) -> Task<void> {
            e.set();
            co_await in.close();
        };
        scheduler.run(*home, close(stop, gate));
        EXPECT_EQ(gate.inside(), 0U);
    }

    sim::SimScheduler scheduler{1};
    sim::SimNetwork network{scheduler, 1};
    sim::SimEnvironment environment{scheduler, network, "node", 1};
    sim::SimExecutor* home = nullptr;
    Event stop;
    Gate gate;
    std::vector<std::string> told;
    SpaceWatch watch{environment.get(), [this](const std::string& array) { told.push_back(array); },
                     [this](const std::string& path, std::shared_ptr<SpaceAnswer> to) { answer(path, std::move(to)); }};
};

TEST(SpaceWatch, ThresholdIsToldOfOnceUntilThereWasSpaceAgain) {
    Bench b;
    EXPECT_TRUE(b.watch.set({"one", 90, {"/a", "/b"}}));
    EXPECT_FALSE(b.watch.set({"two", 95, {"/a"}}));
    const std::vector<std::pair<std::uint32_t, std::size_t>> steps{{50, 0}, {89, 0}, {90, 1}, {93, 1},
                                                                   {90, 1}, {89, 1}, {91, 2}, {96, 3}};
    for (const auto& [percent, times] : steps) {
        b.used = {{"/a", percent}, {"/b", 10}};
        b.look();
        EXPECT_EQ(b.told.size(), times) << "at " << percent;
        EXPECT_EQ(b.environment.events().count("space-low"), times);
    }
    EXPECT_EQ(b.told, (std::vector<std::string>{"one", "one", "two"}));
}

TEST(SpaceWatch, AFileSystemThatSaysNothingIsNotFull) {
    Bench b;
    b.watch.set({"one", 1, {"/gone"}});
    b.look();
    EXPECT_TRUE(b.told.empty());
}

TEST(SpaceWatch, ItLooksUntilItIsStopped) {
    Bench b;
    b.watch.set({"one", 90, {"/a"}});
    b.used = {{"/a", 10}};
    b.start();
    b.scheduler.run_for(std::chrono::seconds(7));
    EXPECT_TRUE(b.told.empty());
    b.used["/a"] = 99;
    b.scheduler.run_for(std::chrono::seconds(6));
    EXPECT_EQ(b.told.size(), 1U);
    b.end();
}

TEST(SpaceWatch, AFileSystemThatHangsHoldsUpNeitherTheOthersNorTheEnd) {
    Bench b;
    b.watch.set({"one", 90, {"/a", "/hangs"}});
    b.watch.set({"two", 90, {"/hangs2"}});
    b.used = {{"/a", 10}, {"/hangs", 95}, {"/hangs2", 20}};
    b.start();
    b.scheduler.run_for(std::chrono::seconds(4));
    EXPECT_EQ(b.told, std::vector<std::string>{"one"});
    b.silent = {"/hangs", "/hangs2"};
    b.scheduler.run_for(std::chrono::minutes(5));
    EXPECT_EQ(b.told, std::vector<std::string>{"one"}) << "it is as full as it said";
    EXPECT_EQ(b.asked["/hangs"], 2) << "no second thread waits for it";
    EXPECT_GT(b.asked["/a"], 50);
    EXPECT_EQ(b.environment.events().count("space-unknown"), 2U);
    b.used["/hangs2"] = 99;
    b.silent.clear();
    for (const auto& answer : b.owed) {
        answer->there = true;  // without a word
    }
    b.scheduler.run_for(std::chrono::seconds(11));
    EXPECT_EQ(b.told, (std::vector<std::string>{"one", "two"}));
    b.silent = {"/a"};
    b.scheduler.run_for(std::chrono::seconds(6));
    b.end();
}

TEST(SpaceWatch, AnArrayThatGetsASpareIsWatchedWithIt) {
    Bench b;
    EXPECT_FALSE(b.watch.set({"one", 90, {}})) << "nothing to watch";
    EXPECT_TRUE(b.watch.set({"one", 90, {"/a"}}));
    b.used = {{"/a", 10}, {"/spare", 92}};
    b.look();
    EXPECT_TRUE(b.told.empty());
    EXPECT_FALSE(b.watch.set({"one", 90, {"/a", "/spare"}}));
    b.look();
    EXPECT_EQ(b.told.size(), 1U);
    b.watch.set({"one", 90, {"/a"}});
    b.look();
    b.watch.set({"one", 90, {"/a", "/spare"}});
    b.look();
    EXPECT_EQ(b.told.size(), 2U) << "between the two it was below";
}

TEST(SpaceWatch, FilesOfThinArraysAreWatchedSparesToo) {
    std::string root = (fs::temp_directory_path() / "gemel-space-XXXXXX").string();
    ASSERT_NE(::mkdtemp(root.data()), nullptr);
    {
        auto state = StateDirectory::open(root, Duration{});
        ASSERT_TRUE(state) << state.error().message;
        config::Array array;
        array.name = "one";
        array.thin_soft_threshold = 77;
        array.members = {{config::MemberKind::kFile, "m0", 0, {}}, {config::MemberKind::kBlock, "/dev/x", 0, {}}};
        array.spares = {{config::MemberKind::kFile, "/far/s0", 0, {}}};
        EXPECT_TRUE(watched_files(array, *state).files.empty()) << "it is not thin";
        array.thin = true;
        const WatchedArray watched = watched_files(array, *state);
        EXPECT_EQ(watched.files, (std::vector<std::string>{state->resolve("m0"), "/far/s0"}));
        EXPECT_EQ(watched.threshold, 77U);
    }
    fs::remove_all(root);
}

}  // namespace
}  // namespace gemel
