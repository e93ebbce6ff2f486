// SPDX-License-Identifier: Apache-2.0
// Programs that the daemon runs: what they get, how they end, and that they can be ended.
#include "target/runtime/child_process.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

using namespace std::chrono_literals;

/// There, and not only as what nobody has asked after.
bool runs(long pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::string stat;
    std::getline(in, stat);
    const std::size_t name_end = stat.rfind(") ");
    return name_end != std::string::npos && stat[name_end + 2] != 'Z';
}

class ChildProcessTest : public ::testing::Test {
  protected:
    Result<void> run(std::vector<std::string> arguments, std::string input, Duration most) {
        return runtime_.run(child_.run(std::move(arguments), std::move(input), most));
    }
    Result<void> run(const std::string& script, std::string input = "", Duration most = 20s) {
        return run({"/bin/sh", "-c", script}, std::move(input), most);
    }

    test::RealRuntime runtime_{1};
    Environment environment_ = runtime_.environment();
    ChildProcess child_{environment_.clock};
};

TEST_F(ChildProcessTest, GetsItsInputAndEndsWell) {
    EXPECT_TRUE(run("test \"$(cat)\" = hello", "hello").has_value());
    EXPECT_TRUE(run("test \"$(wc -c)\" -eq 100000", std::string(100000, 'x')).has_value());
}

TEST_F(ChildProcessTest, ACodeOrASignalIsAnErrorWithWhatItSaid) {
    const Result<void> code = run("echo 'no such user' >&2; echo more >&2; exit 3");
    ASSERT_FALSE(code.has_value());
    EXPECT_EQ(code.error().code, Errc::kIo);
    EXPECT_EQ(code.error().message, "/bin/sh ended with code 3: no such user");
    const Result<void> signal = run("kill -TERM $$");
    ASSERT_FALSE(signal.has_value());
    EXPECT_EQ(signal.error().message, "/bin/sh was ended by signal 15");
}

TEST_F(ChildProcessTest, OneThatIsNotThereCannotBeStarted) {
    const Result<void> r = run(std::vector<std::string>{"/no/such/program"}, "", 5s);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().code, Errc::kNotFound);
}

TEST_F(ChildProcessTest, OneThatTakesTooLongIsEndedWithItsChildren) {
    std::string file = (std::filesystem::temp_directory_path() / "gemel-child-XXXXXX").string();
    const int made = ::mkstemp(file.data());
    ASSERT_GE(made, 0);
    ::close(made);
    const Result<void> r = run("sleep 600 & echo $! > " + file + "; sleep 600", "", 2s);
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().code, Errc::kTimedOut);
    long child = 0;
    ASSERT_TRUE(std::ifstream(file) >> child) << "the shell has not started it";
    std::filesystem::remove(file);
    EXPECT_TRUE(runtime_.run([](Clock& clock, long pid) -> Task<bool> {
        for (int i = 0; i < 1000 && runs(pid); ++i) {
            co_await sleep_for(clock, 10ms);
        }
        co_return !runs(pid);
    }(environment_.clock, child)));
}

TEST_F(ChildProcessTest, WhatItSaysIsBounded) {
    const Result<void> r = run("head -c 100000000 /dev/zero | tr '\\0' 'x' >&2; exit 4");
    ASSERT_FALSE(r.has_value());
    EXPECT_LT(r.error().message.size(), 400U);
    EXPECT_TRUE(run("head -c 1000000 /dev/zero >&2").has_value()) << "one that talks much has not failed";
    EXPECT_FALSE(run("head -c 1100000 /dev/zero >&2").has_value()) << "it is told that nobody keeps more";
}

TEST_F(ChildProcessTest, GetsNothingOfTheDaemon) {
    const int kept = ::open("/dev/null", O_RDONLY);  // one that a library forgot to mark
    ASSERT_GE(kept, 0);
    // Three descriptors and the one of the listing; the C library ignores two signals of its own.
    EXPECT_TRUE(run("test \"$(ls /proc/self/fd | wc -l)\" -eq 4").has_value());
    EXPECT_TRUE(run("grep -q 'SigBlk:[[:space:]]*0000000000000000' /proc/self/status").has_value());
    EXPECT_TRUE(run("grep -q 'SigIgn:.*0000000$' /proc/self/status").has_value());
    ::close(kept);
}

}  // namespace
}  // namespace gemel
