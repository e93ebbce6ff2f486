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

}  // namespace
}  // namespace gemel
