// SPDX-License-Identifier: Apache-2.0
// The status as its readers get it.
#include "target/daemon/status_json.hpp"

#include <gtest/gtest.h>

namespace gemel {
namespace {

TEST(StatusJson, AResyncHasADirectionOnlyWhileItRuns) {
    struct Case {
        bool running;
        bool outgoing;
        std::string_view direction;
    };
    for (const Case& c : {Case{false, false, "none"}, Case{true, false, "incoming"}, Case{true, true, "outgoing"}}) {
        replication::PairStatus status;
        status.resync.running = c.running;
        status.resync.outgoing = c.outgoing;
        EXPECT_EQ(pair_json(status).at("resync").at("direction").as_string(), c.direction);
    }
}

TEST(StatusJson, AnArraySaysWhatItsJournalListsAndWhatItsRecoveryTook) {
    raid::ArrayStatus status;
    status.journal.policy = raid::RecoveryPolicy::kJournal;
    status.journal.listed_stripes = 12;
    EXPECT_EQ(array_json(status).at("journal").at("policy").as_string(), "journal");
    EXPECT_EQ(array_json(status).at("journal").at("listed_stripes"), 12U);
    EXPECT_TRUE(array_json(status).at("journal").at("recovery").is_null());
    status.journal.recovered_stripes = 3;
    status.journal.recovery_bytes_read = 4096;
    EXPECT_EQ(array_json(status).at("journal").at("recovery").at("stripes"), 3U);
    EXPECT_EQ(array_json(status).at("journal").at("recovery").at("bytes_read"), 4096U);
    status.journal.redo = true;
    status.journal.replayed_records = 7;
    EXPECT_TRUE(array_json(status).at("journal").at("redo").at("active").as_bool());
    EXPECT_EQ(array_json(status).at("journal").at("redo").at("replayed_records"), 7U);
}

TEST(StatusJson, AnArraySaysWhatItsLastScrubFoundAndWhere) {
    raid::ArrayStatus status;
    EXPECT_TRUE(array_json(status).at("scrub").is_null());
    EXPECT_TRUE(array_json(status).at("last_scrub").is_null());
    status.members.resize(3);
    raid::ScrubReport& report = status.scrub_report.emplace();
    report.mode = raid::ScrubMode::kRepair;
    report.end = raid::ScrubReport::End::kFinished;
    report.counts = {.checked = 100, .mismatched = 3, .repaired = 2};
    report.wrong_blocks[2] = 1;
    report.faults = {{2, Lba(64), SectorCount(8), Lba(192)}, {std::nullopt, Lba(72), SectorCount(16), std::nullopt}};
    const boost::json::value last = array_json(status).at("last_scrub");
    EXPECT_EQ(last.at("mode").as_string(), "repair");
    EXPECT_EQ(last.at("state").as_string(), "finished");
    EXPECT_EQ(last.at("checked"), 100U);
    EXPECT_EQ(last.at("mismatched"), 3U);
    EXPECT_EQ(last.at("repaired"), 2U);
    EXPECT_EQ(last.at("wrong_blocks").as_array().size(), 3U);
    EXPECT_EQ(last.at("wrong_blocks").at(2), 1U);
    EXPECT_EQ(last.at("faults").at(0).at("member"), 2U);
    EXPECT_EQ(last.at("faults").at(0).at("member_sector"), 64U);
    EXPECT_EQ(last.at("faults").at(0).at("sector"), 192U);
    EXPECT_TRUE(last.at("faults").at(1).at("member").is_null());
    EXPECT_TRUE(last.at("faults").at(1).at("sector").is_null());
}

TEST(StatusJson, FailedLoginsAreCountedByStatusAndASessionSaysWhoItIs) {
    iscsi::ServerStatus status;
    status.login_failures = 3;
    status.login_failures_by_status[1] = 3;
    const boost::json::value failures = iscsi_json(status).at("login_failures_by_status");
    EXPECT_EQ(failures.as_object().size(), iscsi::kLoginFailures.size());
    EXPECT_EQ(failures.at("authentication-failure"), 3U);
    EXPECT_EQ(failures.at("authorization-failure"), 0U);
    iscsi::SessionStatus session;
    EXPECT_TRUE(session_json(session).at("chap_user").is_null());
    session.chap_user = "host";
    session.mutual_chap = true;
    EXPECT_EQ(session_json(session).at("chap_user").as_string(), "host");
    EXPECT_TRUE(session_json(session).at("mutual_chap").as_bool());
}

TEST(StatusJson, LunsOfOneNumberForDifferentInitiatorsAreToldApartByVolume) {
    iscsi::ServerStatistics statistics;
    statistics.targets.push_back({"iqn.t:a", 0, {{0, "v0", {}}, {1, "v1", {}}, {0, "v2", {}}}});
    const boost::json::value json = statistics_json(statistics);
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(json.at("targets").at(0).at("luns").at(i).at("volume").as_string(), "v" + std::to_string(i));
    }
}

TEST(StatusJson, AScrubIsAJobOfNoMember) {
    raid::JobStatus job;
    EXPECT_EQ(job_json(job).at("member"), 0U);
    job.kind = raid::JobKind::kScrub;
    job.waiting = true;
    EXPECT_EQ(job_json(job).at("kind").as_string(), "scrub");
    EXPECT_TRUE(job_json(job).at("member").is_null());
    EXPECT_EQ(job_json(job).at("state").as_string(), "waiting");
}

TEST(StatusJson, AnArraySaysHowManyBlocksDidNotMatchTheirChecksums) {
    raid::ArrayStatus status;
    EXPECT_FALSE(array_json(status).at("checksums").at("on").as_bool());
    status.checksums = {true, 5, 8192};
    EXPECT_TRUE(array_json(status).at("checksums").at("on").as_bool());
    EXPECT_EQ(array_json(status).at("checksums").at("found"), 5U);
    EXPECT_EQ(array_json(status).at("checksums").at("cached_bytes"), 8192U);
}

}  // namespace
}  // namespace gemel
