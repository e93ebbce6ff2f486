// SPDX-License-Identifier: Apache-2.0
// Streams between holders of a key over the simulated network; all others get nothing, and learn why.
#include "target/tls/tls_network.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "gemel/sync.hpp"
#include "tests/support/sim_network.hpp"

namespace gemel::tls {
namespace {

using namespace std::chrono_literals;

PairKey key_of(unsigned seed) {
    PairKey key{};
    for (std::size_t i = 0; i < key.size(); ++i) {
        key[i] = static_cast<std::byte>(seed + i * 7);
    }
    return key;
}

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
    std::vector<std::byte> out(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        out[i] = static_cast<std::byte>((i * 131 + i / 251 + seed) & 0xffU);
    }
    return out;
}

bool holds(const std::vector<std::byte>& bytes, std::string_view text) {
    return std::ranges::search(bytes, as_bytes_of(text)).begin() != bytes.end();
}

/// What went over the wire, and a network that notes it.
class Tapped final : public Network {
  public:
    explicit Tapped(Network& below) : below_(below) {}
    std::vector<std::byte> sent;

    Result<std::unique_ptr<Listener>> listen(std::string_view address) override { return below_.listen(address); }
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override {
        CO_TRY(std::unique_ptr<Stream> stream, co_await below_.connect(std::move(address), timeout_ms));
        co_return std::make_unique<Tap>(*this, std::move(stream));
    }

  private:
    class Tap final : public Stream {
      public:
        Tap(Tapped& owner, std::unique_ptr<Stream> below) : owner_(owner), below_(std::move(below)) {}
        Task<Result<std::size_t>> read_some(MutableBytes to) override { return below_->read_some(to); }
        Task<Result<void>> write(std::span<const ConstBytes> parts) override {
            for (const ConstBytes part : parts) {
                owner_.sent.insert(owner_.sent.end(), part.begin(), part.end());
            }
            return below_->write(parts);
        }
        void close() override { below_->close(); }
        void rebind(Executor& executor) override { below_->rebind(executor); }
        [[nodiscard]] std::string local_address() const override { return below_->local_address(); }
        [[nodiscard]] std::string peer_address() const override { return below_->peer_address(); }

      private:
        Tapped& owner_;
        std::unique_ptr<Stream> below_;
    };
    Network& below_;
};

class TlsNetworkTest : public ::testing::Test {
  protected:
    TlsNetworkTest()
        : scheduler_(static_cast<std::uint64_t>(testing::UnitTest::GetInstance()->random_seed())),
          home_(scheduler_.add_executor("home")),
          network_(scheduler_, 7),
          tapped_(network_.host("alpha")),
          alpha_(tapped_, "alpha", {{"beta", "beta:1", key_of(1)}}) {}
    ~TlsNetworkTest() override {
        if (dialled_) {
            dialled_->close();
        }
        if (accepted_) {
            accepted_->close();
        }
    }

    /// beta, as it knows its peers.
    void listen(std::vector<TlsPeer> peers, std::uint64_t rekey_bytes = TlsNetwork::kRekeyBytes) {
        beta_ = std::make_unique<TlsNetwork>(network_.host("beta"), "beta", std::move(peers), rekey_bytes);
        listener_ = beta_->listen("beta:1").value();
    }
    template <class T>
    T run(Task<T> task) {
        return scheduler_.run(home_, std::move(task));
    }
    /// Both ends. The handshake is still to come.
    void connect() { connect(alpha_); }
    void connect(Network& from) {
        auto [dialled, accepted] = run(both(from, *listener_));
        dialled_ = std::move(dialled).value();
        accepted_ = std::move(accepted).value();
    }
    using Ends = std::pair<Result<std::unique_ptr<Stream>>, Result<std::unique_ptr<Stream>>>;
    static Task<Ends> both(Network& from, Listener& to) {
        auto [dialled, accepted] = co_await when_both(from.connect("beta:1", 1000), to.accept());
        co_return Ends{std::move(dialled), std::move(accepted)};
    }

    static Task<Result<void>> write_all(Stream& to, std::vector<std::byte> data) {
        const ConstBytes all(data);
        const std::size_t half = all.size() / 2;
        const std::array<ConstBytes, 3> parts{all.first(half), ConstBytes{}, all.subspan(half)};
        co_return co_await to.write(parts);
    }
    static Task<Result<std::vector<std::byte>>> read_all(Stream& from, std::size_t bytes) {
        std::vector<std::byte> out(bytes);
        CO_TRY_VOID(co_await read_exactly(from, out));
        co_return out;
    }
    struct Exchange {
        Result<void> sent;
        Result<std::vector<std::byte>> received;
    };
    static Task<Exchange> exchange(Stream& from, Stream& to, std::vector<std::byte> data) {
        const std::size_t bytes = data.size();
        auto [sent, received] = co_await when_both(write_all(from, std::move(data)), read_all(to, bytes));
        co_return Exchange{std::move(sent), std::move(received)};
    }
    /// Whoever cannot go on closes, as the users of streams do.
    static Task<Exchange> exchange_and_close(Stream& from, Stream& to) {
        const auto send = [](Stream& s) -> Task<Result<void>> {
            Result<void> r = co_await write_all(s, pattern(100, 1));
            if (!r) {
                s.close();
            }
            co_return r;
        };
        const auto receive = [](Stream& s) -> Task<Result<std::vector<std::byte>>> {
            auto r = co_await read_all(s, 100);
            s.close();
            co_return r;
        };
        auto [sent, received] = co_await when_both(send(from), receive(to));
        co_return Exchange{std::move(sent), std::move(received)};
    }

    sim::SimScheduler scheduler_;
    sim::SimExecutor& home_;
    sim::SimNetwork network_;
    Tapped tapped_;
    TlsNetwork alpha_;
    std::unique_ptr<TlsNetwork> beta_;
    std::unique_ptr<Listener> listener_;
    std::unique_ptr<Stream> dialled_;
    std::unique_ptr<Stream> accepted_;
};

TEST_F(TlsNetworkTest, CarriesWhatIsWrittenOfEverySizeBothWays) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect();
    EXPECT_EQ(accepted_->peer_identity(), "") << "nothing is proven yet";
    for (const std::size_t bytes : {1U, 79U, 4096U, 16384U, 16385U, 300000U, 2000000U}) {
        const Exchange there = run(exchange(*dialled_, *accepted_, pattern(bytes, 1)));
        ASSERT_TRUE(there.sent.has_value()) << there.sent.error().message;
        ASSERT_TRUE(there.received.has_value()) << there.received.error().message;
        EXPECT_TRUE(*there.received == pattern(bytes, 1)) << bytes;
        const Exchange back = run(exchange(*accepted_, *dialled_, pattern(bytes, 2)));
        ASSERT_TRUE(back.sent.has_value() && back.received.has_value()) << bytes;
        EXPECT_TRUE(*back.received == pattern(bytes, 2)) << bytes;
    }
    EXPECT_EQ(dialled_->peer_identity(), "beta");
    EXPECT_EQ(accepted_->peer_identity(), "alpha");
}

TEST_F(TlsNetworkTest, BothSidesMayBeginAtOnceAndWriteBesideTheirReads) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect();
    const auto all = [](Stream& a, Stream& b) -> Task<bool> {
        auto [there, back] = co_await when_both(exchange(a, b, pattern(900000, 3)), exchange(b, a, pattern(900000, 4)));
        co_return there.received&& back.received && *there.received == pattern(900000, 3) &&
            *back.received == pattern(900000, 4);
    };
    EXPECT_TRUE(run(all(*dialled_, *accepted_)));
}

TEST_F(TlsNetworkTest, KeysChangeWhileBothSidesWrite) {
    TlsNetwork often(tapped_, "alpha", {{"beta", "beta:1", key_of(1)}}, 100000);
    listen({{"alpha", "alpha:1", key_of(1)}}, 70000);
    connect(often);
    const auto all = [](Stream& a, Stream& b) -> Task<bool> {
        auto [there, back] =
            co_await when_both(exchange(a, b, pattern(3000000, 3)), exchange(b, a, pattern(3000000, 4)));
        co_return there.received&& back.received && *there.received == pattern(3000000, 3) &&
            *back.received == pattern(3000000, 4);
    };
    EXPECT_TRUE(run(all(*dialled_, *accepted_)));
    const std::size_t with_updates = tapped_.sent.size();
    tapped_.sent.clear();
    connect();
    EXPECT_TRUE(run(all(*dialled_, *accepted_)));
    EXPECT_GT(with_updates, tapped_.sent.size()) << "no key was changed";
}

TEST_F(TlsNetworkTest, NothingCanBeReadOnTheWire) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect();
    const std::string_view secret = "what hosts write is nobody's business";
    std::vector<std::byte> data(as_bytes_of(secret).begin(), as_bytes_of(secret).end());
    ASSERT_TRUE(run(exchange(*dialled_, *accepted_, data)).received.has_value());
    EXPECT_GT(tapped_.sent.size(), data.size());
    EXPECT_FALSE(holds(tapped_.sent, secret));
    EXPECT_FALSE(holds(tapped_.sent, secret.substr(5, 8)));
}

TEST_F(TlsNetworkTest, AnotherKeyIsRefusedOnBothSides) {
    listen({{"alpha", "alpha:1", key_of(2)}});
    connect();
    const Exchange r = run(exchange_and_close(*dialled_, *accepted_));
    ASSERT_FALSE(r.sent.has_value());
    ASSERT_FALSE(r.received.has_value());
    EXPECT_EQ(r.received.error().code, Errc::kRefused);
    EXPECT_NE(r.received.error().message.find("key_file"), std::string::npos) << r.received.error().message;
    EXPECT_EQ(accepted_->peer_identity(), "");
}

TEST_F(TlsNetworkTest, ANodeThatIsNoPeerIsRefused) {
    listen({{"gamma", "gamma:1", key_of(1)}});
    connect();
    const Exchange r = run(exchange_and_close(*dialled_, *accepted_));
    EXPECT_FALSE(r.sent.has_value());
    EXPECT_FALSE(r.received.has_value());
}

TEST_F(TlsNetworkTest, APlainPeerIsRefusedWhicheverSideItIsOn) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect(tapped_);
    const Exchange plain_client = run(exchange_and_close(*dialled_, *accepted_));
    ASSERT_FALSE(plain_client.received.has_value());
    EXPECT_EQ(plain_client.received.error().code, Errc::kRefused);
    listener_ = network_.host("beta").listen("beta:2").value();
    TlsNetwork alpha(tapped_, "alpha", {{"beta", "beta:2", key_of(1)}});
    const auto dial = [](Network& from, Listener& to) -> Task<Ends> {
        auto [d, a] = co_await when_both(from.connect("beta:2", 1000), to.accept());
        co_return Ends{std::move(d), std::move(a)};
    };
    auto [dialled, accepted] = run(dial(alpha, *listener_));
    std::unique_ptr<Stream> client = std::move(dialled).value();
    std::unique_ptr<Stream> server = std::move(accepted).value();
    const Exchange plain_server = run(exchange_and_close(*client, *server));
    EXPECT_FALSE(plain_server.sent.has_value());
    EXPECT_EQ(client->peer_identity(), "");
}

TEST_F(TlsNetworkTest, AChangedByteEndsTheStreamAndIsNeverRead) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect();
    ASSERT_TRUE(run(exchange(*dialled_, *accepted_, pattern(10, 1))).received.has_value());
    network_.corrupt_after("alpha", "beta", 5000);
    const auto send = [](Stream& from, Stream& to) -> Task<Result<std::vector<std::byte>>> {
        const auto send_and_close = [](Stream& s) -> Task<Result<void>> {
            Result<void> r = co_await write_all(s, pattern(100000, 5));
            co_return r;
        };
        const auto take = [](Stream& s) -> Task<Result<std::vector<std::byte>>> {
            std::vector<std::byte> out;
            std::array<std::byte, 4096> chunk;
            for (;;) {
                const Result<std::size_t> n = co_await s.read_some(chunk);
                if (!n || *n == 0) {
                    s.close();
                    co_return n ? Result<std::vector<std::byte>>(std::move(out)) : std::unexpected(n.error());
                }
                out.insert(out.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(*n));
                const auto expected = pattern(100000, 5);
                CHECK(std::equal(out.begin(), out.end(), expected.begin()));
            }
        };
        auto [sent, received] = co_await when_both(send_and_close(from), take(to));
        co_return std::move(received);
    };
    const auto received = run(send(*dialled_, *accepted_));
    ASSERT_FALSE(received.has_value());
    EXPECT_EQ(received.error().code, Errc::kIo);
}

TEST_F(TlsNetworkTest, ClosingEndsAHandshakeThatThePeerDoesNotGoOnWith) {
    listen({{"alpha", "alpha:1", key_of(1)}});
    connect(tapped_);  // which says nothing
    const auto wait_and_close = [](Clock& clock, Stream& s) -> Task<Result<void>> {
        co_await sleep_for(clock, 3s);
        s.close();
        co_return Result<void>{};
    };
    auto [r, closed] = run(when_both(read_all(*accepted_, 1), wait_and_close(scheduler_, *accepted_)));
    ASSERT_FALSE(r.has_value());
    EXPECT_EQ(r.error().code, Errc::kClosed);
}

}  // namespace
}  // namespace gemel::tls
