// SPDX-License-Identifier: Apache-2.0
// The admin server over the simulated network: calls, errors, bounds, following events, stopping.
#include "target/admin/server.hpp"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <memory>
#include <string>

#include "tests/support/heap_pool.hpp"
#include "tests/support/sim_network.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::admin {
namespace {

namespace json = boost::json;

std::int64_t no_time() {
    return 0;
}

/// Remembers what was asked; knows the volume "v" only.
class FakeManagement : public Management {
  public:
    explicit FakeManagement(Clock& clock) : clock_(clock) {}
    Task<Result<json::value>> status() override { co_return json::value(json::object{{"node", "alpha"}}); }
    Task<Result<json::value>> volume_list() override { co_return json::value(json::array{"v"}); }
    Task<Result<json::value>> statistics() override { co_return json::value(json::object{}); }
    Task<Result<json::value>> session_list() override {
        co_await sleep_for(clock_, std::chrono::seconds(5));
        co_return json::value(json::array{});
    }
    Task<Result<json::value>> mirror_status(std::string volume) override {
        if (!volume.empty() && volume != "v") {
            co_return fail(Errc::kNotFound, "no volume '" + volume + "'");
        }
        co_return json::value(json::array{});
    }
    Task<Result<void>> mirror_establish(std::string v, std::string p, std::string pv, bool o) override {
        return note("establish " + v + " " + p + " " + pv + (o ? " overwrite" : ""));
    }
    Task<Result<void>> mirror_sever(std::string v, bool f) override { return note("sever " + v + (f ? " force" : "")); }
    Task<Result<void>> mirror_re_establish(std::string v, std::string from, bool f) override {
        return note("re-establish " + v + " " + from + (f ? " force" : ""));
    }
    Task<Result<void>> mirror_resize(std::string v, std::uint64_t bytes, bool s) override {
        return note("resize " + v + " " + std::to_string(bytes) + (s ? " shrink" : ""));
    }
    Task<Result<json::value>> array_list(std::string a) override {
        last = "list " + a;
        co_return json::value(json::array{});
    }
    Task<Result<void>> array_fail(std::string a, std::uint64_t m, bool f) override {
        return note("fail " + a + " " + std::to_string(m) + (f ? " force" : ""));
    }
    Task<Result<void>> array_rebuild(std::string a, std::uint64_t m, std::string w) override {
        return note("rebuild " + a + " " + std::to_string(m) + " " + w);
    }
    Task<Result<void>> array_scrub(std::string a, bool repair) override {
        return note("scrub " + a + (repair ? " repair" : ""));
    }
    Task<Result<void>> array_replace(std::string a, std::uint64_t m, std::string w) override {
        return note("replace " + a + " " + std::to_string(m) + " " + w);
    }
    Task<Result<void>> array_grow(std::string a) override { return note("grow " + a); }
    Task<Result<void>> array_add(std::string a, std::string d, std::uint64_t b) override {
        return note("add " + a + " " + d + " " + std::to_string(b));
    }
    Task<Result<void>> array_remove(std::string a, std::string d) override { return note("remove " + a + " " + d); }
    Task<Result<void>> array_create(std::string d) override { return note("create " + d); }
    Task<Result<void>> volume_resize(std::string v, std::uint64_t bytes, bool s) override {
        return note("resize volume " + v + " " + std::to_string(bytes) + (s ? " shrink" : ""));
    }
    Task<Result<json::value>> job_list() override { co_return json::value(json::array{}); }
    Task<Result<void>> job_order(std::string a, std::string kind, JobOrder order, std::uint64_t limit) override {
        return note("job " + a + " " + kind + " " + std::to_string(static_cast<int>(order)) + " " +
                    std::to_string(limit));
    }
    Task<Result<void>> promote(std::string v, bool f) override { return note("promote " + v + (f ? " force" : "")); }

    std::string last;

  private:
    Task<Result<void>> note(std::string what) {
        last = std::move(what);
        co_return Result<void>{};
    }
    Clock& clock_;
};

class AdminServerTest : public ::testing::Test {
  protected:
    AdminServerTest() : home_(scheduler_.add_executor("home")), client_(scheduler_.add_executor("client")) {
        options_.address = "server:1";
        options_.max_request_bytes = 8192;
        options_.max_clients = 3;
    }
    ~AdminServerTest() override {
        if (server_ != nullptr) {
            scheduler_.run(home_, stop());
            EXPECT_EQ(server_->clients(), 0U);
        }
        scheduler_.run(home_, events_.detach());
    }
    void start() {
        events_.attach(home_);
        server_ = std::make_unique<AdminServer>(environment_, options_, management_, events_);
        scheduler_.run(home_, [](AdminServer& s) -> Task<void> {
            CHECK(s.start().has_value());
            co_return;
        }(*server_));
    }
    Task<void> stop() { co_await server_->stop(); }

    std::unique_ptr<Stream> connect() {
        auto stream = scheduler_.run(client_, network_.host("client").connect("server:1", 1000));
        CHECK(stream.has_value());
        return *std::move(stream);
    }
    void send(Stream& stream, std::string text) { scheduler_.run(client_, write_text(stream, std::move(text))); }
    /// The next line; empty when the server closed.
    std::string line(Stream& stream) { return scheduler_.run(client_, read_line(stream)); }
    json::object answer(Stream& stream) { return json::parse(line(stream)).as_object(); }
    json::object call(Stream& stream, std::string method, std::string params = "{}") {
        send(stream, R"({"jsonrpc":"2.0","id":1,"method":")" + method + R"(","params":)" + params + "}\n");
        return answer(stream);
    }

    static Task<void> write_text(Stream& stream, std::string text) {
        const std::array parts{as_bytes_of(text)};
        (void)co_await stream.write(parts);
    }
    static Task<std::string> read_line(Stream& stream) {
        std::string out;
        std::array<std::byte, 1> one{};
        while ((co_await read_exactly(stream, one)).has_value()) {
            if (one[0] == std::byte{'\n'}) {
                break;
            }
            out += static_cast<char>(one[0]);
        }
        co_return out;
    }

    sim::SimScheduler scheduler_{7};
    sim::SimNetwork network_{scheduler_, 7};
    sim::SeededRandom random_{7};
    sim::HeapPool pool_;
    EventRing events_{8, no_time, nullptr};
    Environment environment_{scheduler_, random_, pool_, events_, network_.host("server"), Uuid{}};
    FakeManagement management_{scheduler_};
    ServerOptions options_;
    sim::SimExecutor& home_;
    sim::SimExecutor& client_;
    std::unique_ptr<AdminServer> server_;
};

/// A listener whose first accepts fail.
class FailingListener : public Listener {
  public:
    FailingListener(std::unique_ptr<Listener> inner, std::vector<Errc> failures)
        : inner_(std::move(inner)), failures_(std::move(failures)) {}
    Task<Result<std::unique_ptr<Stream>>> accept() override {
        if (next_ < failures_.size()) {
            co_return fail(failures_[next_++], "accepting failed");
        }
        co_return co_await inner_->accept();
    }
    void close() override { inner_->close(); }
    [[nodiscard]] std::string local_address() const override { return inner_->local_address(); }

  private:
    std::unique_ptr<Listener> inner_;
    std::vector<Errc> failures_;
    std::size_t next_ = 0;
};

class FailingNetwork : public Network {
  public:
    FailingNetwork(Network& inner, std::vector<Errc> failures) : inner_(inner), failures_(std::move(failures)) {}
    Result<std::unique_ptr<Listener>> listen(std::string_view address) override {
        TRY(auto listener, inner_.listen(address));
        return std::make_unique<FailingListener>(std::move(listener), failures_);
    }
    Task<Result<std::unique_ptr<Stream>>> connect(std::string address, std::int64_t timeout_ms) override {
        return inner_.connect(std::move(address), timeout_ms);
    }

  private:
    Network& inner_;
    std::vector<Errc> failures_;
};

TEST_F(AdminServerTest, AcceptingGoesOnAfterErrorsAndOneEventTellsOfThem) {
    FailingNetwork failing(environment_.network, {Errc::kIo, Errc::kIo, Errc::kResources, Errc::kInvalidArgument});
    Environment environment{scheduler_, random_, pool_, events_, failing, Uuid{}};
    events_.attach(home_);
    server_ = std::make_unique<AdminServer>(environment, options_, management_, events_);
    scheduler_.run(home_, [](AdminServer& s) -> Task<void> {
        CHECK(s.start().has_value());
        co_return;
    }(*server_));
    auto c = connect();
    EXPECT_EQ(call(*c, "status").at("result").at("node").as_string(), "alpha");
    const std::vector<StoredEvent> events = events_.since(0, 100);
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].id, "admin-accept-failed");
    c->close();
    scheduler_.run(home_, stop());
    server_.reset();
}

TEST_F(AdminServerTest, EveryVerbReachesTheDaemonWithItsParameters) {
    start();
    auto c = connect();
    EXPECT_EQ(call(*c, "status").at("result").at("node").as_string(), "alpha");
    struct Case {
        std::string method;
        std::string params;
        std::string_view heard;
    };
    for (const Case& v : std::vector<Case>{
             {"mirror.establish", R"({"volume":"v","peer":"beta"})", "establish v beta "},
             {"mirror.establish", R"({"volume":"v","peer":"b","peer_volume":"w","overwrite":true})",
              "establish v b w overwrite"},
             {"mirror.sever", R"({"volume":"v","force":true})", "sever v force"},
             {"mirror.re_establish", R"({"volume":"v","from":"beta"})", "re-establish v beta"},
             {"mirror.resize", R"({"volume":"v","bytes":8192,"shrink":true})", "resize v 8192 shrink"},
             {"promote", R"({"volume":"v"})", "promote v"},
             {"array.scrub", R"({"array":"a"})", "scrub a"},
             {"array.scrub", R"({"array":"a","repair":true})", "scrub a repair"},
             {"job.pause", R"({"array":"a"})", "job a  0 0"},
             {"job.resume", R"({"array":"a","kind":"scrub"})", "job a scrub 1 0"},
             {"job.cancel", R"({"array":"a","kind":"rebuild"})", "job a rebuild 2 0"},
             {"job.limit", R"({"array":"a","kind":"scrub","bytes_per_second":9})", "job a scrub 3 9"},
         }) {
        EXPECT_EQ(call(*c, v.method, v.params).at("result").at("done").as_bool(), true) << v.method;
        EXPECT_EQ(management_.last, v.heard);
    }
    c->close();
}

TEST_F(AdminServerTest, ErrorsSayWhatIsWrongAndTheConnectionGoesOn) {
    start();
    auto c = connect();
    EXPECT_EQ(call(*c, "nonsense").at("error").at("code").to_number<int>(), -32601);
    EXPECT_EQ(call(*c, "promote").at("error").at("code").to_number<int>(), -32602);
    const json::object missing = call(*c, "mirror.status", R"({"volume":"w"})");
    EXPECT_EQ(missing.at("error").at("code").to_number<int>(), static_cast<int>(Errc::kNotFound));
    EXPECT_EQ(missing.at("error").at("message").as_string(), "no volume 'w'");
    send(*c, "garbage\n");
    EXPECT_EQ(answer(*c).at("error").at("code").to_number<int>(), -32700);
    EXPECT_EQ(call(*c, "volume.list").at("result").as_array().size(), 1U);
    c->close();
}

TEST_F(AdminServerTest, RequestsMayArriveInPiecesOrManyAtOnceAndNotificationsGetNoAnswer) {
    start();
    auto c = connect();
    send(*c, R"({"jsonrpc":"2.0","method":"promote","params":{"volume":"v"}})"
             "\n"
             R"({"jsonrpc":"2.0","id":2,"method":"status"})"
             "\n\r\n"
             R"({"jsonrpc":"2.0","id":3,"met)");
    EXPECT_EQ(answer(*c).at("id").to_number<int>(), 2);
    EXPECT_EQ(management_.last, "promote v");
    send(*c, "hod\":\"status\"}\n");
    EXPECT_EQ(answer(*c).at("id").to_number<int>(), 3);
    c->close();
}

TEST_F(AdminServerTest, ARequestThatNeverEndsIsCutOff) {
    start();
    auto c = connect();
    send(*c, std::string(9000, 'x'));
    EXPECT_NE(line(*c).find("too long"), std::string::npos);
    EXPECT_EQ(line(*c), "");
    auto other = connect();
    EXPECT_TRUE(call(*other, "status").contains("result"));
    other->close();
}

TEST_F(AdminServerTest, ClientsBeyondTheBoundAreToldAndOthersGoOn) {
    start();
    std::vector<std::unique_ptr<Stream>> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(connect());
        EXPECT_TRUE(call(*clients.back(), "status").contains("result"));
    }
    auto more = connect();
    EXPECT_NE(line(*more).find("too many clients"), std::string::npos);
    EXPECT_EQ(line(*more), "");
    EXPECT_TRUE(call(*clients[0], "status").contains("result"));
    clients[0]->close();
    scheduler_.run_for(std::chrono::seconds(1));
    EXPECT_TRUE(call(*connect(), "status").contains("result"));
    for (auto& c : clients) {
        c->close();
    }
}

TEST_F(AdminServerTest, WhoIsNotAdmittedIsToldWhy) {
    options_.admit = [](const Stream&) -> Result<void> { return fail(Errc::kRefused, "user 1000 may not"); };
    start();
    auto c = connect();
    EXPECT_NE(line(*c).find("user 1000 may not"), std::string::npos);
    EXPECT_EQ(line(*c), "");
}

TEST_F(AdminServerTest, AFollowerGetsOldEventsThenNewOnesAndIsToldHowManyItLost) {
    start();
    for (int i = 1; i <= 3; ++i) {
        events_.emit({Severity::kInfo, "old", "s", std::to_string(i), ""});
    }
    auto c = connect();
    const json::object old = call(*c, "events", R"({"since":2,"follow":true})");
    EXPECT_EQ(old.at("result").at("events").as_array().size(), 2U);
    EXPECT_EQ(old.at("result").at("next").to_number<int>(), 4);
    events_.emit({Severity::kError, "new", "volume v", "4", "act"});
    const json::object fresh = answer(*c);
    EXPECT_EQ(fresh.at("method").as_string(), "event");
    EXPECT_EQ(fresh.at("params").at("sequence").to_number<int>(), 4);
    EXPECT_EQ(fresh.at("params").at("severity").as_string(), "error");
    for (int i = 5; i <= 24; ++i) {  // more than the ring keeps, before the follower gets to run
        events_.emit({Severity::kInfo, "burst", "s", std::to_string(i), ""});
    }
    const json::object late = answer(*c);
    EXPECT_EQ(late.at("params").at("sequence").to_number<int>(), 17);
    EXPECT_EQ(late.at("params").at("lost").to_number<int>(), 12);
    c->close();
}

TEST_F(AdminServerTest, ASlowMethodDoesNotHoldUpOtherClientsAndStopWaitsForIt) {
    start();
    auto slow = connect();
    send(*slow, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"session.list\"}\n");
    auto quick = connect();
    const TimePoint before = scheduler_.now();
    EXPECT_TRUE(call(*quick, "status").contains("result"));
    EXPECT_LT(scheduler_.now() - before, std::chrono::seconds(1));
    scheduler_.run(home_, stop());
    EXPECT_EQ(server_->clients(), 0U);
    EXPECT_GE(scheduler_.now() - before, std::chrono::seconds(4));
}

TEST_F(AdminServerTest, AFollowerThatStopsReadingIsClosedAfterTheDeadline) {
    start();
    auto c = connect();
    EXPECT_TRUE(call(*c, "events", R"({"follow":true})").contains("result"));
    for (int i = 0; i < 400; ++i) {
        events_.emit({Severity::kInfo, "flood", "s", std::string(1000, 'x'), std::string(1000, 'y')});
        scheduler_.run_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(server_->clients(), 1U);
    scheduler_.run_for(std::chrono::seconds(40));
    EXPECT_EQ(server_->clients(), 0U);
}

}  // namespace
}  // namespace gemel::admin
