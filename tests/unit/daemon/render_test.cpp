// SPDX-License-Identifier: Apache-2.0
// What the CLI shows: tables, progress, events, and the exit code of each error.
#include "tools/gemel/render.hpp"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include "tools/gemel/exit_code.hpp"

namespace gemel::cli {
namespace {

namespace json = boost::json;

const std::string kPair = R"({"volume":"vol1","role":"primary","state":"resync-source","peer_node":"beta",
  "peer_volume":"vol1","connected":true,"serving":true,"reason":"","bytes":536870912,"dirty_bytes":1048576,
  "sequence":{"local":9,"received":8,"durable":7},
  "resync":{"running":true,"direction":"outgoing","done_bytes":241591911,"total_bytes":536870912,
            "bytes_per_second":125829120,"seconds_left":3}})";

TEST(CliRender, ColumnsAreAsWideAsTheirWidestCell) {
    EXPECT_EQ(render_table({{"A", "LONG"}, {"wide cell", "x"}}), "A          LONG\nwide cell  x\n");
}

TEST(CliRender, ARunningResyncHasALineWithPercentRateAndTimeLeft) {
    json::object pair = json::parse(kPair).as_object();
    EXPECT_EQ(render_progress(pair), "vol1: resync to beta: 45 % of 512 MiB, 120 MiB/s, 0:03 left");
    pair["resync"].as_object()["direction"] = "incoming";
    pair["resync"].as_object()["seconds_left"] = -1;
    EXPECT_EQ(render_progress(pair), "vol1: resync from beta: 45 % of 512 MiB, 120 MiB/s, unknown time left");
    pair["resync"].as_object()["running"] = false;
    EXPECT_EQ(render_progress(pair), "");
}

TEST(CliRender, PairsAreATableAndOnePairIsDescribed) {
    const json::value pair = json::parse(kPair);
    const std::string table = render_pairs(json::array{pair});
    EXPECT_NE(table.find("vol1    primary  beta/vol1  resync-source  up    yes      1 MiB"), std::string::npos)
        << table;
    EXPECT_NE(table.find("45 %"), std::string::npos);
    EXPECT_NE(render_pair_details(pair.as_object()).find("9 sent, 8 acknowledged, 7 durable"), std::string::npos);
    EXPECT_EQ(render_pairs(json::array{}), "no mirrored volumes\n");
}

TEST(CliRender, VolumesShowTheirMirrorAndLuns) {
    const std::string table = render_volumes(json::parse(
        R"([{"name":"a","array":"r5","bytes":1024,"luns":[{"target":"iqn.x","lun":3}],"mirror":null},
            {"name":"b","array":"r5","bytes":1024,"luns":[],"mirror":)" +
        kPair + "}]"));
    EXPECT_NE(table.find("a       r5     1 KiB  -                               iqn.x LUN 3"), std::string::npos)
        << table;
    EXPECT_NE(table.find("primary of beta, resync-source"), std::string::npos) << table;
    EXPECT_EQ(render_volumes(json::array{}), "no volumes\n");
}

json::value statistics(unsigned operations) {
    const json::array latency{0, 0, operations, operations, 0};  // half below 4 us, half below 8 us
    const json::object moved{
        {"operations", 2 * operations}, {"bytes", 8192 * operations}, {"failed", 1}, {"latency", latency}};
    const json::object none{{"operations", 0}, {"bytes", 0}, {"failed", 0}, {"latency", json::array{0, 0, 0, 0, 0}}};
    json::object lun{{"lun", 3},      {"volume", "v"}, {"reads", moved}, {"writes", none},
                     {"other", none}, {"aborted", 7},  {"in_flight", 2}, {"most_in_flight", 5}};
    json::object session{{"initiator", "iqn.host"}, {"target", "iqn.x"},  {"peer_address", "10.0.0.9:5"},
                         {"rejected", 4},           {"digest_errors", 3}, {"ignored", 2},
                         {"luns", json::array{lun}}};
    return json::object{{"targets", json::array{json::object{{"iqn", "iqn.x"}, {"luns", json::array{lun}}}}},
                        {"sessions", json::array{session}}};
}

TEST(CliRender, StatisticsHaveLunsWithLatenciesAndSessionsWithErrors) {
    const std::string text = render_statistics(statistics(10));
    EXPECT_NE(
        text.find("iqn.x   3    v       20     80 KiB  <4 us  <8 us  0       0 B      -    -    0      1       7"),
        std::string::npos)
        << text;
    EXPECT_NE(text.find("2 (most 5)"), std::string::npos) << text;
    EXPECT_NE(text.find("iqn.host   iqn.x   10.0.0.9:5  20     0       1       7        4         3"),
              std::string::npos)
        << text;
    EXPECT_EQ(render_statistics(json::object{}), "no LUNs\n\nno sessions\n");
}

json::value with_logins(unsigned right, unsigned wrong, unsigned unknown) {
    json::value out = statistics(10);
    out.as_object()["logins"] = json::object{
        {"logins", right},
        {"login_failures", wrong + unknown},
        {"login_failures_by_status",
         json::object{{"initiator-error", 0}, {"authentication-failure", wrong}, {"target-not-found", unknown}}},
        {"refused_connections", 5},
        {"protocol_errors", 6}};
    return out;
}

TEST(CliRender, StatisticsCountLoginsAndWhyTheyWereRefused) {
    EXPECT_TRUE(
        render_statistics(with_logins(7, 2, 1))
            .ends_with("\nlogins 7, refused 3: 2 authentication-failure, 1 target-not-found; connections turned "
                       "away 5, protocol errors 6\n"));
    EXPECT_TRUE(render_statistics(with_logins(7, 0, 0))
                    .ends_with("\nlogins 7, refused 0; connections turned away 5, protocol errors 6\n"));
    EXPECT_TRUE(render_statistics_since(with_logins(9, 2, 4), with_logins(7, 2, 1), 1)
                    .ends_with("\nlogins 2, refused 3: 3 target-not-found; connections turned away 0, protocol errors "
                               "0\n"));
}

TEST(CliRender, StatisticsSinceAnEarlierAnswerAreRates) {
    const std::string text = render_statistics_since(statistics(30), statistics(10), 2.0);
    EXPECT_NE(text.find("READS/s  READ/s"), std::string::npos) << text;
    EXPECT_NE(text.find("iqn.x   3    v       20       80 KiB"), std::string::npos) << text;
}

TEST(CliRender, StatusNamesMembersThatAreNotInSyncAndSurvivesMissingFields) {
    const std::string text = render_status(json::parse(
        R"({"node":"alpha","version":"0.1.0","pid":7,"uptime_seconds":61,"portals":["127.0.0.1:3260"],
            "arrays":[{"name":"r5","level":"5","state":"degraded","bytes":1024,"free_bytes":0,"strip_bytes":65536,
                       "members":[{"name":"m0","state":"in-sync"},{"name":"m1","state":"missing"}],"resync":null,
                       "checksums":{"on":true,"found":3},
                       "journal":{"policy":"journal","listed_stripes":12}}]})"));
    EXPECT_NE(text.find("r5: 3 blocks did not match their checksums"), std::string::npos) << text;
    EXPECT_NE(text.find("12 stripes"), std::string::npos) << text;
    EXPECT_NE(text.find("up 1:01"), std::string::npos) << text;
    EXPECT_NE(text.find("r5: member m1 is missing"), std::string::npos) << text;
    EXPECT_EQ(text.find("member m0"), std::string::npos) << text;
    EXPECT_FALSE(render_status(json::object{}).empty());
}

TEST(CliRender, AScrubHasALineWhileItRunsAndItsAddressesAfterwards) {
    const json::value array = json::parse(
        R"({"name":"r5","scrub":{"kind":"scrub","member":null,"state":"waiting","done_bytes":536870912,
            "total_bytes":1073741824,"bytes_per_second":0,"seconds_left":null},
            "last_scrub":{"mode":"check","state":"finished","began":"B","ended":"E","checked":100,"mismatched":2,
            "repaired":0,"rewritten":1,"unreadable":0,"unchecked":0,"untrusted":0,"mismatched_earlier":0,
            "faults":[{"member":null,"member_sector":64,"sectors":8,"sector":192},
                      {"member":4,"member_sector":80,"sectors":8,"sector":null}]}})");
    EXPECT_EQ(render_scrub(array), "r5: scrub (waiting): 50 % of 1 GiB, 0 B/s, unknown time left");
    EXPECT_EQ(
        render_last_scrub(array),
        "last scrub (check, finished E): 100 blocks compared, 2 mismatched, 1 rewritten that could not be read\n");
    const std::string text = render_array_details(json::array{array});
    EXPECT_NE(text.find("unknown          64             8        192\n"), std::string::npos) << text;
    EXPECT_NE(text.find("4                80             8        parity\n"), std::string::npos) << text;
    EXPECT_NE(text.find("r5: scrub (waiting)"), std::string::npos) << text;
    EXPECT_EQ(render_last_scrub(json::parse(R"({"last_scrub":null})")), "");
    EXPECT_EQ(render_scrub(json::parse(R"({"scrub":null})")), "");
}

TEST(CliRender, AnEventIsOneLineAndLostOnesAreMentioned) {
    const json::value event = json::parse(
        R"({"sequence":4,"time":"T","severity":"error","id":"member-failed","subject":"array r5","cause":"c",
            "action":"a","lost":2})");
    const std::string text = render_event(event);
    EXPECT_NE(text.find("(2 events were lost"), std::string::npos);
    EXPECT_NE(text.find("4 T error member-failed: array r5: c. a"), std::string::npos) << text;
}

TEST(CliExitCode, EveryErrorThatAScriptMayReactToHasItsCode) {
    EXPECT_EQ(exit_code_of("not_found"), ExitCode::kNotFound);
    EXPECT_EQ(exit_code_of("refused"), ExitCode::kRefused);
    EXPECT_EQ(exit_code_of("size_mismatch"), ExitCode::kRefused);
    EXPECT_EQ(exit_code_of("busy"), ExitCode::kBusy);
    EXPECT_EQ(exit_code_of("needs_force"), ExitCode::kNeedsForce);
    EXPECT_EQ(exit_code_of("something of a newer daemon"), ExitCode::kInternal);
}

}  // namespace
}  // namespace gemel::cli
