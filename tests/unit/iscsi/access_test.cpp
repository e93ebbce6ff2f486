// SPDX-License-Identifier: Apache-2.0
// Who gets into a whole server: CHAP over the network, sessions that strangers cannot take away, networks, and what
// discovery tells to whom.
#include "target/iscsi/access.hpp"

#include <functional>
#include <map>

#include "target/iscsi/login.hpp"
#include "tests/support/chap_peer.hpp"
#include "tests/unit/iscsi/initiator.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

constexpr std::string_view kAlice = "alice's long secret";
constexpr std::string_view kBob = "bob's secret, longer";

void guard(ServerConfig& config) {
    config.chap.users = {{"alice", std::string(kAlice), {"iqn.2026-11.ORG.example:host*"}},
                         {"bob", std::string(kBob), {}}};
    config.chap.own = {{"gemel", "what the target says"}};
    const auto units = config.targets[0].luns;
    config.targets[0].chap = {{"alice", "bob"}, "gemel"};
    config.targets.push_back({"iqn.2026-11.dev.gemel:of-bob", "", units, {}, 1, {}, {{"bob"}, ""}});
    config.targets.push_back({"iqn.2026-11.dev.gemel:near",
                              "",
                              units,
                              {},
                              1,
                              {*IpNetwork::parse("10.1.0.0/16"), *IpNetwork::parse("fd00::/8")},
                              {}});
}

void map_luns(ServerConfig& config) {
    std::vector<LunDefinition>& luns = config.targets[0].luns;
    luns.front().initiators = {"iqn.2026-11.ORG.example:a*"};
    luns.push_back({0, luns[1].unit, {"iqn.2026-11.org.example:*"}});
    luns[1].initiators = {"iqn.2026-11.org.example:b"};
    luns[2].read_only_for = {"iqn.2026-11.org.EXAMPLE:c"};
}

void guard_discovery(ServerConfig& config) {
    guard(config);
    config.discovery = {{"alice", "bob"}, ""};
}

struct Attempt {
    std::string_view user = "alice";
    std::string_view secret = kAlice;
    bool mutual = false;
    std::function<void()> challenged{};  ///< called before the response is sent
};

/// Logs in with CHAP as far as the target lets it; the last reply.
Task<std::optional<LoginResponse>> log_in_as(Initiator& i, Attempt attempt) {
    co_await i.connect();
    ChapPeer peer;
    std::optional<Received> reply;
    LoginRequest request = i.login_request();
    std::vector<std::string> keys{"InitiatorName=" + i.name, "AuthMethod=CHAP"};
    keys.push_back(i.target.empty() ? "SessionType=Discovery" : "TargetName=" + i.target);
    for (int step = 0; step < 4; ++step) {
        request.flags = step == 3 ? kFinal | kOperationalNegotiation << 2U | kFullFeaturePhase
                                  : (step == 2 ? kFinal | kOperationalNegotiation : 0U);
        co_await i.send(request, Initiator::keys_text(keys));
        reply = co_await i.receive();
        if (!reply || reply->as<LoginResponse>().status_class != 0) {
            break;
        }
        peer.hear(reply->text());
        keys = {"CHAP_A=7"};
        if (step == 1) {
            if (attempt.challenged) {
                attempt.challenged();
            }
            keys = {"CHAP_N=" + std::string(attempt.user), "CHAP_R=" + encode_hex(peer.response(attempt.secret))};
            if (attempt.mutual) {
                keys.insert(keys.end(), {"CHAP_I=9", "CHAP_C=0x00112233445566778899"});
            }
        } else if (step == 2) {
            keys.clear();
        }
    }
    co_return reply ? std::optional(reply->as<LoginResponse>()) : std::nullopt;
}

int status_of(const std::optional<LoginResponse>& reply) {
    return reply ? reply->status_class << 8 | reply->status_detail : -1;
}

std::uint64_t failures(World& w, LoginStatus status) {
    const auto row = std::ranges::find(kLoginFailures, status, &LoginFailureRow::status);
    return w.server->status().login_failures_by_status[static_cast<std::size_t>(row - kLoginFailures.begin())];
}

SCENARIO_OF(Access, chap_lets_the_right_ones_in_and_says_who_they_are, guard) {
    for (const bool mutual : {false, true}) {
        Initiator i(w);
        EXPECT_EQ(status_of(co_await log_in_as(i, {.mutual = mutual})), 0);
        const ServerStatus status = w.server->status();
        EXPECT_EQ(status.sessions.size(), 1U);
        EXPECT_EQ(status.sessions.at(0).chap_user, "alice");
        EXPECT_EQ(status.sessions.at(0).mutual_chap, mutual);
        co_await i.close();
        co_await sleep_for(w.clock(), 1s);
    }
    EXPECT_EQ(w.server->status().login_failures, 0U);
}

SCENARIO_OF(Access, new_secrets_are_for_logins_that_begin_with_them, guard) {
    static constexpr std::string_view kNew = "a secret of the new year";
    Initiator before(w, "iqn.2026-11.org.example:host1");
    EXPECT_EQ(status_of(co_await log_in_as(before, {})), 0);
    Initiator meanwhile(w, "iqn.2026-11.org.example:host2");
    const auto change = [&w] {
        w.server->set_secrets(
            {{{"alice", std::string(kNew), {"iqn.2026-11.org.EXAMPLE:host*"}}}, {}, ChapAlgorithm::kMd5});
    };
    EXPECT_EQ(status_of(co_await log_in_as(meanwhile, {.challenged = change})), 0) << "it has been challenged";
    EXPECT_EQ((co_await before.command(test_unit_ready(), kFinal, 0)).asc(), 0x2900);
    co_await before.prove_healthy();
    Initiator old_secret(w, "iqn.2026-11.org.example:host3");
    EXPECT_EQ(status_of(co_await log_in_as(old_secret, {})), 0x0201);
    Initiator new_secret(w, "iqn.2026-11.org.example:host4");
    EXPECT_EQ(status_of(co_await log_in_as(new_secret, {.secret = kNew})), 0);
    Initiator another(w, "iqn.2026-11.org.example:other");
    EXPECT_EQ(status_of(co_await log_in_as(another, {.secret = kNew})), 0x0202) << "names are still folded";
    EXPECT_EQ(w.server->status().sessions.size(), 3U);
    for (Initiator* i : {&before, &meanwhile, &old_secret, &new_secret, &another}) {
        co_await i->close();
    }
}

SCENARIO_OF(Access, what_is_refused_is_counted_by_status_and_no_event_tells_a_secret, guard) {
    struct Case {
        Attempt attempt;
        const char* name;
        LoginStatus status;
    };
    const char* host = "iqn.2026-11.org.example:host";
    const Case cases[] = {
        {{"alice", "a wrong long secret"}, host, LoginStatus::kAuthenticationFailure},
        {{"mallory", kAlice}, host, LoginStatus::kAuthenticationFailure},
        {{"alice", kAlice}, "iqn.2026-11.org.example:other", LoginStatus::kAuthorizationFailure},
    };
    for (const Case& c : cases) {
        Initiator i(w, c.name);
        const TimePoint before = w.clock().now();
        const std::uint64_t had = failures(w, c.status);
        EXPECT_EQ(status_of(co_await log_in_as(i, c.attempt)), static_cast<int>(c.status));
        EXPECT_EQ(w.clock().now() - before >= 1s, c.status == LoginStatus::kAuthenticationFailure) << "guesses wait";
        EXPECT_EQ(failures(w, c.status), had + 1);
        co_await i.close();
        co_await sleep_for(w.clock(), 15s);
    }
    Initiator plain(w);
    EXPECT_EQ(status_of(co_await plain.try_login()), 0x0201) << "without CHAP";
    co_await plain.close();
    Initiator cased(w, "iqn.2026-11.ORG.EXAMPLE:HOST7");
    EXPECT_EQ(status_of(co_await log_in_as(cased, {})), 0) << "names are the same in any case";
    co_await cased.close();
    EXPECT_EQ(w.server->status().login_failures, 4U);
    EXPECT_TRUE(w.environment.events().has("iscsi-login-refused"));
    for (const auto& e : w.environment.events().all()) {
        EXPECT_FALSE((e.subject + e.cause + e.action).contains(kAlice));
        EXPECT_FALSE((e.subject + e.cause + e.action).contains("a wrong long secret"));
    }
}

SCENARIO_OF(Access, only_its_own_user_reinstates_a_session, guard) {
    Initiator owner(w);
    EXPECT_EQ(status_of(co_await log_in_as(owner, {})), 0);
    const Outcome attention = co_await owner.command(test_unit_ready(), kFinal, 0);
    EXPECT_EQ(attention.asc(), 0x2900);
    const std::pair<Attempt, int> thieves[] = {
        {{"alice", "a wrong long secret"}, 0x0201}, {{"mallory", kAlice}, 0x0201}, {{"bob", kBob}, 0x0202}};
    for (const auto& [attempt, status] : thieves) {
        Initiator thief(w);
        EXPECT_EQ(status_of(co_await log_in_as(thief, attempt)), status);
        co_await thief.close();
        co_await owner.prove_healthy();
    }
    Initiator stops_halfway(w);
    co_await stops_halfway.connect();
    LoginRequest request = stops_halfway.login_request();
    request.flags = 0;
    co_await stops_halfway.send(request, Initiator::keys_text({"InitiatorName=" + owner.name,
                                                               "TargetName=" + owner.target, "AuthMethod=CHAP"}));
    EXPECT_TRUE((co_await stops_halfway.receive()).has_value());
    co_await stops_halfway.send(stops_halfway.command_pdu(test_unit_ready(), kFinal, 0));
    EXPECT_EQ(status_of((co_await stops_halfway.receive())->as<LoginResponse>()), 0x020b) << "no command before";
    co_await stops_halfway.close();
    co_await owner.prove_healthy();
    Initiator again(w);
    EXPECT_EQ(status_of(co_await log_in_as(again, {})), 0);
    EXPECT_TRUE(co_await owner.wait_closed(5s));
    co_await owner.close();
    co_await again.close();
}

SCENARIO_OF(Access, networks_are_held_to_whatever_the_name, guard) {
    const std::pair<const char*, int> hosts[] = {{"10.1.2.3", 0},   {"10.1.255.255", 0},   {"10.2.0.1", 0x0202},
                                                 {"[fd00::7]", 0},  {"[fe80::1]", 0x0202}, {"[::ffff:10.1.0.1]", 0},
                                                 {"client", 0x0202}};
    for (const auto& [host, status] : hosts) {
        Initiator i(w);
        i.host = host;
        i.target = "iqn.2026-11.dev.gemel:near";
        EXPECT_EQ(status_of(co_await i.try_login()), status) << host;
        co_await i.close();
        co_await sleep_for(w.clock(), 1s);
    }
}

Task<std::string> targets_for(Initiator& i) {
    TextRequest text;
    text.immediate = true;
    text.initiator_task_tag = 1;
    text.cmd_sn = i.cmd_sn;
    co_await i.send(text, Initiator::keys_text({"SendTargets=All"}));
    const auto reply = co_await i.receive();
    co_return reply ? std::string(reply->text()) : "(closed)";
}

SCENARIO_OF(Access, each_initiator_sees_its_own_luns_and_reaches_no_other, map_luns) {
    struct Case {
        const char* name;
        std::vector<std::uint64_t> luns;
        bool first_unit;  ///< LUN 0 is `device`, else `other_device`
    };
    w.device.bytes(Lba(0), 1)[0] = std::byte{1};
    w.other_device.bytes(Lba(0), 1)[0] = std::byte{2};
    for (const Case& c : {Case{"iqn.2026-11.org.example:a1", {0}, true},
                          {"iqn.2026-11.org.example:b", {0, 5}, false},
                          {"iqn.2026-11.org.example:c", {0}, false},
                          {"iqn.2026-11.com.other:d", {}, false}}) {
        Initiator i(w, c.name);
        EXPECT_EQ(status_of(co_await i.try_login()), 0);
        const Outcome report =
            co_await i.command(cdb_of({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}), kFinal | kCommandRead, 256);
        EXPECT_EQ(report.data.size(), 8 + 8 * c.luns.size()) << c.name;
        for (const std::uint64_t lun : {0ULL, 5ULL}) {
            const bool mine = std::ranges::find(c.luns, lun) != c.luns.end();
            co_await i.command(test_unit_ready(), kFinal, 0, {}, {}, lun);  // unit attention
            const Outcome read = co_await i.command(read10(0, 1), kFinal | kCommandRead, 512, {}, {}, lun);
            EXPECT_EQ(read.status == 0, mine) << c.name << " " << lun;
            EXPECT_EQ(read.asc(), mine ? -1 : 0x2500) << c.name << " " << lun;
            const Outcome write = co_await i.command(write10(1, 1), kFinal | kCommandWrite, 512, pattern(512, 1),
                                                     {.immediate = 512}, lun);
            const bool reader = std::string_view(c.name).ends_with(":c");
            EXPECT_EQ(write.status == 0, mine && !reader) << c.name << " " << lun;
            EXPECT_EQ(write.asc(), !mine ? 0x2500 : (reader ? 0x2700 : -1)) << c.name << " " << lun;
            if (mine && lun == 0) {
                EXPECT_EQ(read.data.at(0), std::byte(c.first_unit ? 1 : 2)) << c.name;
            }
        }
        co_await i.close();
        co_await sleep_for(w.clock(), 1s);
    }
}

TEST(Access, of_many_entries_for_one_number_the_first_that_fits_is_seen) {
    constexpr std::uint64_t kNumbers = 16384;
    TargetDefinition target;
    std::map<std::uint64_t, std::size_t> first;
    for (std::size_t i = 0; i < 3 * kNumbers; ++i) {
        const std::uint64_t number = i * 7919 % kNumbers;  // every number three times, in no order
        const bool mine = i % 5 != 0;
        target.luns.push_back({number, nullptr, {mine ? "iqn.2026-11.org.example:h*" : "iqn.2026-11.org.example:x"}});
        if (mine) {
            first.try_emplace(number, i);
        }
    }
    std::vector<std::size_t> expected;
    for (const auto& [number, place] : first) {
        expected.push_back(place);
    }
    EXPECT_EQ(visible_luns(target, "iqn.2026-11.org.example:host"), expected);
    EXPECT_TRUE(visible_luns(target, "iqn.2026-11.org.example:nobody").empty());
}

SCENARIO_OF(Access, discovery_without_chap_goes_by_name_and_network, guard) {
    for (const char* host : {"client", "10.1.2.3"}) {
        Initiator i(w);
        i.host = host;
        i.target.clear();
        co_await i.log_in({"SessionType=Discovery"});
        const std::string all = co_await targets_for(i);
        EXPECT_TRUE(all.contains(":test") && all.contains(":of-bob"));
        EXPECT_FALSE(all.contains(":private"));
        EXPECT_EQ(all.contains(":near"), std::string_view(host) == "10.1.2.3");
        co_await i.close();
    }
}

SCENARIO_OF(Access, discovery_with_chap_shows_each_user_his_own, guard_discovery) {
    Initiator stranger(w);
    stranger.target.clear();
    EXPECT_EQ(status_of(co_await stranger.try_login({"SessionType=Discovery"})), 0x0201);
    co_await stranger.close();
    for (const Attempt& attempt : {Attempt{"alice", kAlice}, Attempt{"bob", kBob}}) {
        Initiator i(w);
        i.target.clear();
        EXPECT_EQ(status_of(co_await log_in_as(i, attempt)), 0);
        const std::string all = co_await targets_for(i);
        EXPECT_TRUE(all.contains(":test"));
        EXPECT_EQ(all.contains(":of-bob"), attempt.user == "bob");
        EXPECT_FALSE(all.contains(":private") || all.contains(":near"));
        co_await i.close();
        co_await sleep_for(w.clock(), 1s);
    }
}

}  // namespace
}  // namespace gemel::iscsi::test
