// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/tcp_network.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "gemel/sync.hpp"
#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

using test::RealRuntime;
using StreamPtr = std::unique_ptr<Stream>;
using Pair = std::pair<StreamPtr, StreamPtr>;

Task<Pair> connected(Network* network, std::string address) {
    auto listener = network->listen(address);
    CHECK(listener);
    const std::string there = address.starts_with("unix:") ? address : (*listener)->local_address();
    auto [client, server] = co_await when_both(network->connect(there, 5000), (*listener)->accept());
    CHECK(client && server);
    (*listener)->close();
    co_return Pair(*std::move(client), *std::move(server));
}

std::byte pattern(std::size_t i) {
    return static_cast<std::byte>(i * 131 + i / 251);
}

Task<bool> send_pattern(Stream* to, std::size_t parts, std::size_t part_bytes) {
    std::vector<std::byte> data(parts * part_bytes);
    for (std::size_t i = 0; i < data.size(); ++i) {
        data[i] = pattern(i);
    }
    std::vector<ConstBytes> list;
    for (std::size_t i = 0; i < parts; ++i) {
        list.push_back(ConstBytes(data).subspan(i * part_bytes, part_bytes));
        list.emplace_back();  // empty parts are allowed
    }
    co_return (co_await to->write(list)).has_value();
}

Task<bool> expect_pattern(Stream* from, std::size_t bytes, std::size_t at_once) {
    std::vector<std::byte> in(at_once);
    std::size_t seen = 0;
    while (seen < bytes) {
        const auto n = co_await from->read_some(MutableBytes(in).first(std::min(at_once, bytes - seen)));
        if (!n || *n == 0) {
            co_return false;
        }
        for (std::size_t i = 0; i < *n; ++i) {
            if (in[i] != pattern(seen + i)) {
                co_return false;
            }
        }
        seen += *n;
    }
    co_return true;
}

struct TransferCase {
    const char* name;
    const char* address;
    std::size_t parts;
    std::size_t part_bytes;
    std::size_t read_bytes;
};

class Transfers : public ::testing::TestWithParam<TransferCase> {};

INSTANTIATE_TEST_SUITE_P(EveryShape, Transfers,
                         ::testing::Values(TransferCase{"OneByteReads", "127.0.0.1:0", 10, 1000, 1},
                                           TransferCase{"AThousandParts", "127.0.0.1:0", 1000, 777, 65536},
                                           TransferCase{"MorePartsThanOneCallTakes", "127.0.0.1:0", 3000, 3, 4096},
                                           TransferCase{"MoreThanTheSocketBuffers", "127.0.0.1:0", 4, 8U << 20U,
                                                        1U << 20U},
                                           TransferCase{"Version6", "[::1]:0", 10, 1000, 4096},
                                           TransferCase{"ByName", "localhost:0", 10, 1000, 4096}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Transfers, EveryByteArrivesInOrder) {
    const TransferCase& c = GetParam();
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const bool good = runtime.run([](Network* network, TransferCase t) -> Task<bool> {
        Pair pair = co_await connected(network, t.address);
        const auto [sent, seen] =
            co_await when_both(send_pattern(pair.first.get(), t.parts, t.part_bytes),
                               expect_pattern(pair.second.get(), t.parts * t.part_bytes, t.read_bytes));
        co_return sent&& seen;
    }(&env.network, c));
    EXPECT_TRUE(good);
}

TEST(TcpNetwork, AStreamThatIsClosedByThePeerReadsZeroBytes) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const auto n = runtime.run([](Network* network) -> Task<Result<std::size_t>> {
        Pair pair = co_await connected(network, "127.0.0.1:0");
        pair.first->close();
        std::byte b{};
        co_return co_await pair.second->read_some(MutableBytes(&b, 1));
    }(&env.network));
    ASSERT_TRUE(n);
    EXPECT_EQ(*n, 0U);
}

Task<Errc> read_error(Stream* stream) {
    std::byte b{};
    const auto n = co_await stream->read_some(MutableBytes(&b, 1));
    co_return n ? Errc{} : n.error().code;
}
Task<Errc> write_until_error(Stream* stream) {
    const std::vector<std::byte> data(1U << 20U);
    const ConstBytes part(data);
    for (;;) {
        if (const auto done = co_await stream->write(std::span(&part, 1)); !done) {
            co_return done.error().code;
        }
    }
}
Task<Errc> accept_error(Listener* listener) {
    const auto stream = co_await listener->accept();
    co_return stream ? Errc{} : stream.error().code;
}

TEST(TcpNetwork, CloseEndsPendingReadsWritesAndAccepts) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const auto codes = runtime.run([](Environment* e) -> Task<std::vector<Errc>> {
        Pair pair = co_await connected(&e->network, "127.0.0.1:0");
        auto listener = e->network.listen("127.0.0.1:0");
        CHECK(listener);
        std::vector<Task<Errc>> tasks;
        tasks.push_back(read_error(pair.first.get()));
        tasks.push_back(write_until_error(pair.first.get()));
        tasks.push_back(accept_error(listener->get()));
        tasks.push_back([](Environment* w, Stream* s, Listener* l) -> Task<Errc> {
            co_await sleep_for(w->clock, std::chrono::milliseconds(20));
            s->close();
            s->close();
            l->close();
            co_return co_await read_error(s);
        }(e, pair.first.get(), listener->get()));
        co_return co_await when_all(std::move(tasks));
    }(&env));
    EXPECT_EQ(codes, std::vector<Errc>(4, Errc::kClosed));
}

Task<void> echo_on(Processor* there, Stream* stream, int rounds) {
    // The stream's processor calls rebind(); from then on it is used over there.
    stream->rebind(*there);
    co_await resume_on(*there);
    for (int i = 0; i < rounds; ++i) {
        std::byte b{};
        CHECK(co_await read_exactly(*stream, MutableBytes(&b, 1)));
        const ConstBytes out(&b, 1);
        CHECK(co_await stream->write(std::span(&out, 1)));
    }
}

TEST(TcpNetwork, AStreamMovesBetweenProcessorsUnderTraffic) {
    RealRuntime runtime(2);
    Environment env = runtime.environment();
    const int echoed = runtime.run([](Network* network, Processor* a, Processor* b) -> Task<int> {
        Pair pair = co_await connected(network, "127.0.0.1:0");
        int count = 0;
        Gate gate;
        gate.spawn([](Stream* server, Processor* first, Processor* second) -> Task<void> {
            for (int i = 0; i < 20; ++i) {
                co_await echo_on(second, server, 10);
                co_await echo_on(first, server, 10);
            }
        }(pair.second.get(), a, b));
        for (int i = 0; i < 400; ++i) {
            const auto sent = static_cast<std::byte>(i);
            const ConstBytes out(&sent, 1);
            CHECK(co_await pair.first->write(std::span(&out, 1)));
            std::byte back{};
            CHECK(co_await read_exactly(*pair.first, MutableBytes(&back, 1)));
            count += back == sent ? 1 : 0;
        }
        co_await gate.close();
        co_return count;
    }(&env.network, &runtime.io(0), &runtime.io(1)));
    EXPECT_EQ(echoed, 400);
}

TEST(TcpNetwork, OneBusyStreamLeavesRoomForOtherWork) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const int turns = runtime.run([](Network* network) -> Task<int> {
        Pair pair = co_await connected(network, "127.0.0.1:0");
        CHECK(co_await send_pattern(pair.first.get(), 1, 10000));
        int yields = 0;
        bool done = false;
        Gate gate;
        gate.spawn([](int* count, bool* stop) -> Task<void> {
            while (!*stop) {
                ++*count;
                co_await yield();
            }
        }(&yields, &done));
        CHECK(co_await expect_pattern(pair.second.get(), 10000, 1));
        done = true;
        co_await gate.close();
        co_return yields;
    }(&env.network));
    EXPECT_GE(turns, 10000 / 64);
}

struct BadAddress {
    const char* address;
    Errc code;
    const char* text;
};

TEST(TcpNetwork, BadAddressesAreRefusedWithAReason) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const BadAddress cases[] = {
        {"nonsense", Errc::kInvalidArgument, "port is missing"},
        {"127.0.0.1:99999", Errc::kInvalidArgument, "0 to 65535"},
        {"127.0.0.1:", Errc::kInvalidArgument, "0 to 65535"},
        {"::1:3260", Errc::kInvalidArgument, "brackets"},
        {"[::1:3260", Errc::kInvalidArgument, "bracket"},
        {"unix:", Errc::kInvalidArgument, "path is empty"},
        {"203.0.113.1:0", Errc::kInvalidArgument, "not an address of this machine"},
    };
    for (const BadAddress& c : cases) {
        const auto listener = env.network.listen(c.address);
        ASSERT_FALSE(listener) << c.address;
        EXPECT_EQ(listener.error().code, c.code) << c.address;
        EXPECT_NE(listener.error().message.find(c.text), std::string::npos) << listener.error().message;
    }
}

TEST(TcpNetwork, APortInUseIsNamed) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const auto first = env.network.listen("127.0.0.1:0");
    ASSERT_TRUE(first);
    const auto second = env.network.listen((*first)->local_address());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::kBusy);
    EXPECT_NE(second.error().message.find((*first)->local_address() + " is in use"), std::string::npos);
}

TEST(TcpNetwork, AnIpv4PeerOfAListenerOnAllAddressesHasAnIpv4Address) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    auto listener = env.network.listen("[::]:0");
    ASSERT_TRUE(listener) << listener.error().message;
    const std::string all = (*listener)->local_address();
    const std::string address = "127.0.0.1" + all.substr(all.rfind(':'));
    auto client = runtime.run(env.network.connect(address, 1000));
    ASSERT_TRUE(client) << client.error().message;
    auto accepted = runtime.run((*listener)->accept());
    ASSERT_TRUE(accepted);
    EXPECT_EQ((*accepted)->local_address(), address);
    EXPECT_EQ((*accepted)->peer_address(), (*client)->local_address());
    runtime.run([](Stream* a, Stream* b, Listener* l) -> Task<void> {
        a->close();
        b->close();
        l->close();
        co_return;
    }(client->get(), accepted->get(), listener->get()));
}

TEST(TcpNetwork, ConnectingToNobodyFailsWithTheAddress) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    auto listener = env.network.listen("127.0.0.1:0");
    ASSERT_TRUE(listener);
    const std::string address = (*listener)->local_address();
    (*listener)->close();
    const auto refused = runtime.run(env.network.connect(address, 1000));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kIo);
    EXPECT_NE(refused.error().message.find(address), std::string::npos);
}

TEST(TcpNetwork, ConnectingToAHostThatDoesNotAnswerTimesOut) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    // A listener whose queue is full drops what comes: the connection is neither made nor refused.
    const int full = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof where;
    ASSERT_EQ(::bind(full, reinterpret_cast<sockaddr*>(&where), length), 0);
    ASSERT_EQ(::listen(full, 0), 0);
    ASSERT_EQ(::getsockname(full, reinterpret_cast<sockaddr*>(&where), &length), 0);
    const std::string address = "127.0.0.1:" + std::to_string(ntohs(where.sin_port));
    const auto code = runtime.run([](Network* network, std::string to) -> Task<Errc> {
        std::vector<StreamPtr> queued;
        for (int i = 0; i < 10; ++i) {
            auto stream = co_await network->connect(to, 100);
            if (!stream) {
                co_return stream.error().code;
            }
            queued.push_back(*std::move(stream));
        }
        co_return Errc{};
    }(&env.network, address));
    EXPECT_EQ(code, Errc::kTimedOut);
    ::close(full);
}

TEST(TcpNetwork, AnUnknownNameIsNotFound) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const auto stream = runtime.run(env.network.connect("no-such-host.invalid:3260", 5000));
    ASSERT_FALSE(stream);
    EXPECT_TRUE(stream.error().code == Errc::kNotFound || stream.error().code == Errc::kTimedOut);
    EXPECT_NE(stream.error().message.find("no-such-host.invalid"), std::string::npos);
}

TEST(TcpNetwork, AcceptWithoutDescriptorsSaysSoAndGoesOnLater) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    auto listener = env.network.listen("127.0.0.1:0");
    ASSERT_TRUE(listener);
    auto client = runtime.run(env.network.connect((*listener)->local_address(), 1000));
    ASSERT_TRUE(client);
    // The limit holds for the accept alone: UBSan's own checks need descriptors, and without them report nonsense.
    const Errc code = runtime.run([](Listener* l) -> Task<Errc> {
        rlimit old{};
        ::getrlimit(RLIMIT_NOFILE, &old);
        rlimit none = old;
        none.rlim_cur = 3;
        ::setrlimit(RLIMIT_NOFILE, &none);
        const auto refused = co_await l->accept();
        ::setrlimit(RLIMIT_NOFILE, &old);
        co_return refused ? Errc{} : refused.error().code;
    }(listener->get()));
    EXPECT_EQ(code, Errc::kResources);
    auto accepted = runtime.run((*listener)->accept());
    EXPECT_TRUE(accepted);
    runtime.run([](Stream* a, Stream* b, Listener* l) -> Task<void> {
        a->close();
        b->close();
        l->close();
        co_return;
    }(client->get(), accepted->get(), listener->get()));
}

TEST(TcpNetwork, AUnixSocketTellsWhoIsThereAndReplacesAStaleFile) {
    RealRuntime runtime(1);
    Environment env = runtime.environment();
    const std::string path = ::testing::TempDir() + "gemel_unix_" + std::to_string(::getpid());
    {
        auto gone = env.network.listen("unix:" + path);
        ASSERT_TRUE(gone);
        EXPECT_EQ(env.network.listen("unix:" + path).error().code, Errc::kBusy);
        const std::string kept = path + ".kept";
        ASSERT_EQ(::link(path.c_str(), kept.c_str()), 0);
        (*gone)->close();
        ASSERT_EQ(::rename(kept.c_str(), path.c_str()), 0);  // as after SIGKILL
    }
    const auto credentials = runtime.run([](Network* network, std::string p) -> Task<Result<PeerCredentials>> {
        auto listener = network->listen("unix:" + p);
        CHECK(listener);
        struct stat st{};
        CHECK(::stat(p.c_str(), &st) == 0 && (st.st_mode & 0777) == 0600);
        auto [client, server] = co_await when_both(network->connect("unix:" + p, 1000), (*listener)->accept());
        CHECK(client && server);
        co_return peer_credentials(**server);
    }(&env.network, path));
    ASSERT_TRUE(credentials);
    EXPECT_EQ(credentials->uid, ::getuid());
    EXPECT_EQ(credentials->pid, ::getpid());
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace gemel
