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

}  // namespace
}  // namespace gemel
