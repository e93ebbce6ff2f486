// SPDX-License-Identifier: Apache-2.0
// Peers that break the rules before they are logged in, or need not prove anything to be.
#include "target/iscsi/login.hpp"
#include "tests/unit/iscsi/hostile.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

SCENARIO(Login, garbage_is_hung_up_on_without_an_answer) {
    for (const std::size_t size : {1UL, 47UL, 48UL, 200UL, 100000UL}) {
        Initiator i(w);
        co_await i.connect();
        co_await i.send_raw(pattern(size, static_cast<unsigned>(size)));
        EXPECT_FALSE((co_await i.receive(20s)).has_value());
        EXPECT_TRUE(co_await i.wait_closed(1s)) << size;
        co_await i.close();
    }
    EXPECT_EQ(w.server->status().protocol_errors, 5U);
    EXPECT_TRUE(w.environment.events().has("iscsi-protocol-error"));
    Initiator cut(w);
    co_await cut.connect();
    LoginRequest request = cut.login_request();
    request.data_length = 100;
    co_await cut.send_raw(cut.frame(encode(request), {}));
    co_await sleep_for(w.clock(), 10ms);
    co_await cut.close();
    co_await sleep_for(w.clock(), 10ms);
    Initiator silent(w);  // a check of whether the port answers
    co_await silent.connect();
    co_await silent.close();
    co_await neighbour_is_healthy(w);
    EXPECT_EQ(w.server->status().protocol_errors, 6U);
    EXPECT_EQ(w.server->status().logging_in, 0U);
}

SCENARIO(Login, silence_is_ended_by_the_timer) {
    Initiator i(w);
    co_await i.connect();
    const TimePoint from = w.clock().now();
    EXPECT_TRUE(co_await i.wait_closed(60s));
    EXPECT_LE(w.clock().now() - from, 16s);
    co_await i.close();
    Initiator slow(w);
    co_await slow.connect();
    for (int n = 0; n < 5 && !slow.closed(); ++n) {
        co_await slow.send_raw(std::vector<std::byte>(1, std::byte{0x43}));
        co_await sleep_for(w.clock(), 5s);
    }
    EXPECT_TRUE(slow.closed());
    co_await slow.close();
}

SCENARIO(Login, other_pdus_and_oversized_requests_are_refused) {
    Initiator i(w);
    co_await i.connect();
    LoginRequest request = i.login_request();
    request.flags = kOperationalNegotiation << 2U;
    co_await i.send(request, Initiator::keys_text({"InitiatorName=" + i.name, "TargetName=" + i.target}));
    EXPECT_TRUE((co_await i.receive(5s)).has_value());
    co_await i.send(i.command_pdu(test_unit_ready(), kFinal, 0));
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<LoginResponse>().status_detail == 0x0b);
    EXPECT_TRUE(co_await i.wait_closed(5s));
    co_await i.close();
    for (const std::uint32_t length : {8193U, 0xffffffU}) {
        Initiator big(w);
        co_await big.connect();
        LoginRequest huge = big.login_request();
        huge.data_length = length;
        co_await big.send_raw(big.frame(encode(huge), {}));
        const auto refusal = co_await big.receive(5s);
        EXPECT_TRUE(refusal && refusal->as<LoginResponse>().status_class == 2);
        EXPECT_TRUE(co_await big.wait_closed(5s));
        co_await big.close();
    }
    EXPECT_EQ(w.server->status().login_failures, 3U);
}

SCENARIO_WITH(Login, half_open_connections_are_bounded_and_do_not_keep_others_out,
              (ServerLimits{.unauthenticated = 20, .unauthenticated_per_peer = 10})) {
    std::vector<std::unique_ptr<Initiator>> all;
    for (int n = 0; n < 30; ++n) {
        all.push_back(std::make_unique<Initiator>(w));
        co_await all.back()->connect();
    }
    co_await sleep_for(w.clock(), 1s);
    EXPECT_EQ(w.server->status().logging_in, 10U);
    EXPECT_EQ(w.server->status().refused_connections, 20U);
    co_await sleep_for(w.clock(), 20s);
    EXPECT_EQ(w.server->status().logging_in, 0U);
    co_await neighbour_is_healthy(w);
    for (const auto& i : all) {
        co_await i->close();
    }
}

SCENARIO_WITH(Login, sessions_are_bounded, ServerLimits{.sessions = 3}) {
    std::vector<std::unique_ptr<Initiator>> all;
    for (int n = 0; n < 5; ++n) {
        all.push_back(std::make_unique<Initiator>(w, "iqn.2026-11.org.example:h" + std::to_string(n)));
        const auto reply = co_await all.back()->try_login();
        EXPECT_TRUE(reply && (n < 3 ? reply->status_class == 0 : reply->status_class == 3)) << n;
    }
    for (const auto& i : all) {
        co_await i->close();
    }
}

/// Opens that many discovery sessions from `host`; how many were let in.
Task<int> discover(World& w, std::vector<std::unique_ptr<Initiator>>& all, const char* host, int times) {
    int in = 0;
    for (int n = 0; n < times; ++n) {
        all.push_back(std::make_unique<Initiator>(w, "iqn.2026-11.org.example:scan" + std::to_string(all.size())));
        all.back()->host = host;
        all.back()->target.clear();
        const auto reply = co_await all.back()->try_login({"SessionType=Discovery"});
        EXPECT_TRUE(reply && (reply->status_class == 0 || reply->status_class == 3));
        in += reply && reply->status_class == 0 ? 1 : 0;
    }
    co_return in;
}

SCENARIO_WITH(Discovery, sessions_are_bounded_and_take_no_place_of_a_host,
              (ServerLimits{.sessions = 2, .discovery_sessions = 5, .discovery_per_peer = 3})) {
    std::vector<std::unique_ptr<Initiator>> all;
    EXPECT_EQ(co_await discover(w, all, "client", 4), 3);
    EXPECT_EQ(co_await discover(w, all, "10.1.2.3", 4), 2);
    Initiator first(w, "iqn.2026-11.org.example:first");
    co_await first.log_in();
    Initiator second(w, "iqn.2026-11.org.example:second");
    co_await second.log_in();
    Initiator third(w, "iqn.2026-11.org.example:third");
    const auto reply = co_await third.try_login();
    EXPECT_TRUE(reply && reply->status_class == 3);
    co_await all.front()->close();
    co_await sleep_for(w.clock(), 1s);
    EXPECT_EQ(co_await discover(w, all, "client", 2), 1);
    co_await first.prove_healthy();
    for (const auto& i : all) {
        co_await i->close();
    }
    co_await first.close();
    co_await second.close();
    co_await third.close();
}

SCENARIO(Discovery, a_session_does_not_live_for_ever) {
    std::vector<std::unique_ptr<Initiator>> all;
    EXPECT_EQ(co_await discover(w, all, "client", 1), 1);
    Initiator host(w);
    co_await host.log_in();
    Initiator& idler = *all.front();
    const TimePoint from = w.clock().now();
    while (!idler.closed() && w.clock().now() - from < 120s) {
        NopOut alive;  // not silent, so that keepalive does not end it
        alive.immediate = true;
        alive.initiator_task_tag = idler.next_tag++;
        alive.cmd_sn = idler.cmd_sn;
        co_await idler.send(alive);
        co_await host.prove_healthy();
        co_await sleep_for(w.clock(), 5s);
    }
    EXPECT_TRUE(idler.closed());
    EXPECT_GE(w.clock().now() - from, 60s);
    EXPECT_LE(w.clock().now() - from, 70s);
    co_await host.prove_healthy();
    EXPECT_EQ(w.server->status().sessions.size(), 1U);
    co_await idler.close();
    co_await host.close();
}

SCENARIO(Discovery, takes_no_command_and_no_task_management) {
    using Make = std::vector<std::byte> (*)(Initiator&);
    const std::pair<const char*, Make> cases[] = {
        {"a command", [](Initiator& i) { return with(i, i.command_pdu(test_unit_ready(), kFinal, 0)); }},
        {"task management", [](Initiator& i) { return with(i, immediate_pdu<TaskManagementRequest>(i)); }},
        {"SNACK", [](Initiator& i) { return with(i, SnackRequest{}); }},
        {"Data-Out", [](Initiator& i) { return with(i, DataOut{}, 512); }},
    };
    for (const auto& [what, make] : cases) {
        Initiator i(w);
        i.target.clear();
        co_await i.log_in({"SessionType=Discovery"});
        co_await i.send_raw(make(i));
        EXPECT_TRUE(co_await i.wait_closed(5s)) << what;
        co_await i.close();
        co_await neighbour_is_healthy(w);
    }
    EXPECT_EQ(w.device.writes_done, 4U) << "the neighbour's only";
}

SCENARIO(Login, continued_text_without_data_is_harmless) {
    Initiator i(w);
    co_await i.connect();
    LoginRequest request = i.login_request();
    request.flags = kContinue | kOperationalNegotiation << 2U;
    for (int n = 0; n < 5; ++n) {
        co_await i.send(request);
        const auto reply = co_await i.receive(5s);
        EXPECT_TRUE(reply && reply->as<LoginResponse>().status_class == 0 && reply->data.empty());
    }
    request.flags = kFinal | kOperationalNegotiation << 2U | kFullFeaturePhase;
    co_await i.send(request, Initiator::keys_text({"InitiatorName=" + i.name, "TargetName=" + i.target}));
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<LoginResponse>().status_class == 0);
    co_await i.close();
    co_await neighbour_is_healthy(w);
}

SCENARIO(Login, numbers_that_change_on_the_way_do_no_harm) {
    Initiator i(w);
    co_await i.connect();
    LoginRequest request = i.login_request();
    request.flags = kOperationalNegotiation << 2U;
    co_await i.send(request, Initiator::keys_text({"InitiatorName=" + i.name, "TargetName=" + i.target}));
    const auto first = co_await i.receive(5s);
    EXPECT_TRUE(first && first->as<LoginResponse>().status_class == 0);
    request.flags = kFinal | kOperationalNegotiation << 2U | kFullFeaturePhase;
    request.cmd_sn += 0x40000000;
    request.exp_stat_sn += 0x40000000;
    co_await i.send(request);
    const auto last = co_await i.receive(5s);
    EXPECT_TRUE(last && last->as<LoginResponse>().status_class == 0);
    EXPECT_EQ(last->as<LoginResponse>().numbers.exp_cmd_sn, i.cmd_sn) << "the first request's counts";
    co_await i.close();
    co_await neighbour_is_healthy(w);
}
}  // namespace
}  // namespace gemel::iscsi::test
