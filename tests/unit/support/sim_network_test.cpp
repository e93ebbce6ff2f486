// SPDX-License-Identifier: Apache-2.0
// SimNetwork behaves like TCP, except for the fault that a test asked for.
#include "tests/support/sim_network.hpp"

#include <gtest/gtest.h>

namespace gemel::sim {
namespace {

using namespace std::chrono_literals;

struct Net {
    explicit Net(std::uint64_t seed)
        : scheduler(seed), network(scheduler, seed), executor(scheduler.add_executor("a")) {}

    void connect() {
        if (!listener) {
            listener = *network.host("beta").listen("beta:7000");
        }
        client = *scheduler.run(executor, network.host("alpha").connect("beta:7000", 1000));
        server = *scheduler.run(executor, listener->accept());
    }
    Result<void> send(Stream& s, std::string_view text) {
        auto body = [](Stream& to, std::string_view what) -> Task<Result<void>> {
            const std::array parts{as_bytes_of(what)};
            co_return co_await to.write(parts);
        };
        return scheduler.run(executor, body(s, text));
    }
    /// Reads until `n` bytes, the end or an error; the error is in `last`.
    std::string receive(Stream& s, std::size_t n) {
        std::string out;
        last = {};
        while (out.size() < n) {
            std::array<std::byte, 4096> room{};
            const auto got = scheduler.run(
                executor, s.read_some(MutableBytes(room).first(std::min<std::size_t>(n - out.size(), 4096))));
            if (!got) {
                last = std::unexpected(got.error());
                break;
            }
            if (*got == 0) {
                break;
            }
            out += as_text(ConstBytes(room).first(*got));
        }
        return out;
    }
    struct Waiting {
        bool done = false;
        Result<std::size_t> result = std::size_t{0};
        std::array<std::byte, 64> room{};
    };
    static Task<void> read_into(Stream& s, Waiting& w) {
        w.result = co_await s.read_some(w.room);
        w.done = true;
    }

    SimScheduler scheduler;
    SimNetwork network;
    SimExecutor& executor;
    std::unique_ptr<Listener> listener;
    std::unique_ptr<Stream> client;
    std::unique_ptr<Stream> server;
    Result<void> last;
};

std::string pattern(std::size_t n) {
    std::string s(n, ' ');
    for (std::size_t i = 0; i < n; ++i) {
        s[i] = static_cast<char>('a' + i % 26 + i / 1000 % 3);
    }
    return s;
}

TEST(SimNetwork, bytes_arrive_in_order_and_once) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Net n(seed);
        n.connect();
        const std::string text = pattern(100'000);
        ASSERT_TRUE(n.send(*n.client, text));
        EXPECT_EQ(n.receive(*n.server, text.size()), text);
        ASSERT_TRUE(n.send(*n.server, "back"));
        EXPECT_EQ(n.receive(*n.client, 4), "back");
        EXPECT_EQ(n.client->peer_address(), "beta:7000");
    }
}

TEST(SimNetwork, a_writer_waits_when_nobody_reads) {
    Net n(1);
    n.connect();
    const std::string text = pattern(1'000'000);
    bool done = false;
    auto body = [](Stream& to, std::string_view what, bool& flag) -> Task<void> {
        const std::array parts{as_bytes_of(what)};
        flag = (co_await to.write(parts)).has_value();
    };
    n.scheduler.start(n.executor, body(*n.client, text, done));
    n.scheduler.run_for(10s);
    EXPECT_FALSE(done);
    EXPECT_LE(n.network.bytes_sent("alpha", "beta"), 256U << 10U);
    EXPECT_EQ(n.receive(*n.server, text.size()), text);
    EXPECT_TRUE(done);
}

TEST(SimNetwork, connects_are_refused_or_time_out) {
    Net n(2);
    n.network.host("beta");
    EXPECT_EQ(n.scheduler.run(n.executor, n.network.host("alpha").connect("beta:1", 1000)).error().code, Errc::kIo);
    n.listener = *n.network.host("beta").listen("beta:0");
    const std::string where = n.listener->local_address();
    n.network.partition("alpha", "beta");
    const TimePoint before = n.scheduler.now();
    EXPECT_EQ(n.scheduler.run(n.executor, n.network.host("alpha").connect(where, 1000)).error().code, Errc::kTimedOut);
    EXPECT_GE(n.scheduler.now() - before, 1s);
    n.network.heal("alpha", "beta");
    EXPECT_TRUE(n.scheduler.run(n.executor, n.network.host("alpha").connect(where, 1000)));
    EXPECT_FALSE(n.network.host("beta").listen(where)) << "the port is in use";
}

TEST(SimNetwork, close_ends_the_peer_after_its_data_or_with_a_reset) {
    bool orderly = false;
    bool reset = false;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        Net n(seed);
        n.connect();
        ASSERT_TRUE(n.send(*n.client, "abc"));
        n.client->close();
        const std::string got = n.receive(*n.server, 10);
        (n.last ? orderly : reset) = true;
        if (n.last) {
            EXPECT_EQ(got, "abc");
        }
        EXPECT_EQ(n.scheduler.run(n.executor, n.client->read_some({})).error().code, Errc::kClosed);
    }
    EXPECT_TRUE(orderly);
    EXPECT_TRUE(reset);
}

TEST(SimNetwork, close_wakes_a_pending_read) {
    Net n(3);
    n.connect();
    Net::Waiting w;
    n.scheduler.start(n.executor, Net::read_into(*n.server, w));
    n.scheduler.run_for(1s);
    ASSERT_FALSE(w.done);
    n.server->close();
    ASSERT_TRUE(n.scheduler.run_until([&] { return w.done; }, 1s));
    EXPECT_EQ(w.result.error().code, Errc::kClosed);
}

TEST(SimNetwork, a_cut_can_come_after_any_byte) {
    for (const std::size_t at : {0U, 1U, 999U, 40'000U}) {
        Net n(4);
        n.connect();
        n.network.cut_after("alpha", "beta", at);
        const std::string text = pattern(60'000);
        const Result<void> ignored = n.send(*n.client, text);
        const std::string got = n.receive(*n.server, text.size());
        EXPECT_LE(got.size(), at);
        EXPECT_EQ(got, text.substr(0, got.size()));
        EXPECT_EQ(n.last.error().code, Errc::kIo);
        EXPECT_FALSE(n.send(*n.client, "x"));
        n.client.reset();
        n.server.reset();
        n.connect();
        ASSERT_TRUE(n.send(*n.client, "again"));
        EXPECT_EQ(n.receive(*n.server, 5), "again");
    }
}

TEST(SimNetwork, one_silent_direction_loses_nothing_and_leaves_the_other_alone) {
    Net n(5);
    n.connect();
    n.network.block("alpha", "beta");
    ASSERT_TRUE(n.send(*n.client, "late"));
    ASSERT_TRUE(n.send(*n.server, "fine"));
    EXPECT_EQ(n.receive(*n.client, 4), "fine");
    Net::Waiting w;
    n.scheduler.start(n.executor, Net::read_into(*n.server, w));
    n.scheduler.run_for(60s);
    EXPECT_FALSE(w.done);
    n.network.unblock("alpha", "beta");
    ASSERT_TRUE(n.scheduler.run_until([&] { return w.done; }, 1s));
    EXPECT_GE(*w.result, 1U);
}

TEST(SimNetwork, corrupt_and_duplicate_bytes_come_where_they_were_asked_for) {
    Net n(6);
    n.connect();
    n.network.corrupt_after("alpha", "beta", 5);
    ASSERT_TRUE(n.send(*n.client, "abcdefghij"));
    const std::string got = n.receive(*n.server, 10);
    EXPECT_EQ(got.substr(0, 5), "abcde");
    EXPECT_NE(got[5], 'f');
    EXPECT_EQ(got.substr(6), "ghij");
    n.network.duplicate_after("alpha", "beta", 3);
    ASSERT_TRUE(n.send(*n.client, "0123"));
    EXPECT_EQ(n.receive(*n.server, 5), "01233");
}

TEST(SimNetwork, a_host_without_power_is_silent_until_it_is_back) {
    Net n(7);
    n.connect();
    Net::Waiting client;
    Net::Waiting server;
    n.scheduler.start(n.executor, Net::read_into(*n.client, client));
    n.scheduler.start(n.executor, Net::read_into(*n.server, server));
    n.scheduler.run_for(1s);
    n.network.kill_host("beta", SimNetwork::Death::kPower);
    n.scheduler.run_for(60s);
    EXPECT_TRUE(server.done);
    EXPECT_EQ(server.result.error().code, Errc::kClosed);
    EXPECT_FALSE(client.done) << "nobody told it";
    EXPECT_EQ(n.scheduler.run(n.executor, n.listener->accept()).error().code, Errc::kClosed);
    ASSERT_TRUE(n.send(*n.client, "anyone?"));
    n.network.revive_host("beta");
    ASSERT_TRUE(n.scheduler.run_until([&] { return client.done; }, 5s));
    EXPECT_EQ(client.result.error().code, Errc::kIo);
}

TEST(SimNetwork, a_killed_process_ends_its_connections) {
    Net n(8);
    n.connect();
    Net::Waiting client;
    n.scheduler.start(n.executor, Net::read_into(*n.client, client));
    n.scheduler.run_for(1s);
    n.network.kill_host("beta", SimNetwork::Death::kProcess);
    EXPECT_TRUE(n.scheduler.run_until([&] { return client.done; }, 1s));
    EXPECT_EQ(n.network.connections("alpha", "beta"), 0U);
}

TEST(SimNetwork, a_stall_delays_and_heal_all_forgets_planned_faults) {
    Net n(9);
    n.connect();
    n.network.stall("alpha", "beta", 3s);
    const TimePoint before = n.scheduler.now();
    ASSERT_TRUE(n.send(*n.client, "x"));
    EXPECT_EQ(n.receive(*n.server, 1), "x");
    EXPECT_GE(n.scheduler.now() - before, 3s);
    n.network.cut_after("alpha", "beta", 0);
    n.network.heal_all();
    ASSERT_TRUE(n.send(*n.client, "y"));
    EXPECT_EQ(n.receive(*n.server, 1), "y");
}

}  // namespace
}  // namespace gemel::sim
