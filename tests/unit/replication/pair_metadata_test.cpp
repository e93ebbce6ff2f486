// SPDX-License-Identifier: Apache-2.0
// The pair's records: what is durable and what is in memory when the log fails, and may have written all the same.
#include "replication/pair_metadata.hpp"

#include <gtest/gtest.h>

#include "tests/unit/replication/pair_world.hpp"

namespace gemel::replication {
namespace {

constexpr LogClientId kClient = kLogClientPair | 1;

class Metadata : public testing::Test {
  protected:
    Metadata() { CHECK(meta.recover(SectorCount(8 * kRegionSectors)).has_value()); }
    ~Metadata() override { scheduler.run(home, stop(meta)); }
    static Task<void> stop(PairMetadata& m) { co_await m.stop(); }

    Result<void> commit(std::vector<MetadataChange> changes) {
        return scheduler.run(home, meta.commit(std::move(changes)));
    }
    Result<void> commit_state(PairState state) {
        Superblock s;
        s.state = state;
        return scheduler.run(home, meta.commit_superblock(s));
    }
    /// What a restart would find.
    struct Durable {
        PairState state;
        std::vector<replication::Run> regions;
    };
    Durable durable() {
        PairMetadata again(log, kClient, home);
        CHECK(again.recover(SectorCount(8 * kRegionSectors)).has_value());
        Durable out{again.superblock().state, again.regions().runs()};
        scheduler.run(home, stop(again));
        return out;
    }

    sim::SimScheduler scheduler{1};
    sim::SimExecutor& home = scheduler.add_executor("home");
    TestLog log{scheduler};
    PairMetadata meta{log, kClient, home};
};

TEST_F(Metadata, ARecordThatFailedIsUncertainUntilTheWholeStateIsDurableBehindIt) {
    ASSERT_TRUE(commit_state(PairState::kMirrored));
    log.fail_next = 1;
    ASSERT_FALSE(commit_state(PairState::kResyncTarget));
    EXPECT_EQ(meta.superblock().state, PairState::kMirrored);
    EXPECT_TRUE(meta.uncertain());
    EXPECT_EQ(durable().state, PairState::kResyncTarget);
    log.failing = true;
    EXPECT_FALSE(commit({}));
    EXPECT_TRUE(meta.uncertain());
    log.failing = false;
    ASSERT_TRUE(commit({}));
    EXPECT_FALSE(meta.uncertain());
    EXPECT_EQ(durable().state, PairState::kMirrored);
    EXPECT_EQ(log.records(kClient), 1U) << "what came before the whole state is not needed";
}

TEST_F(Metadata, AMarkIsNotTrustedAfterTheRecordThatWouldClearItFailed) {
    ASSERT_TRUE(scheduler.run(home, meta.ensure_regions({2, 1})));
    ASSERT_TRUE(scheduler.run(home, meta.ensure_regions({5, 1})));
    log.fail_next = 1;
    ASSERT_FALSE(commit({{MetadataOp::kResetMaps, {}, {}}}));
    EXPECT_TRUE(durable().regions.empty());
    log.failing = true;
    EXPECT_FALSE(scheduler.run(home, meta.ensure_regions({2, 1})));
    log.failing = false;
    ASSERT_TRUE(scheduler.run(home, meta.ensure_regions({2, 1})));
    EXPECT_EQ(durable().regions, (std::vector<replication::Run>{{2, 1}, {5, 1}}));
}

TEST_F(Metadata, ACheckpointThatHeldARecordWhichThenFailedIsSettledToo) {
    ASSERT_TRUE(commit_state(PairState::kMirrored));
    std::optional<Result<void>> failed;
    const auto late = [](PairMetadata& m, std::optional<Result<void>>& out) -> Task<void> {
        Superblock s;
        s.state = PairState::kLogging;
        out = co_await m.commit_superblock(s);
    };
    log.fail_next = 1;
    scheduler.start(home, late(meta, failed));
    scheduler.run_for(1us);
    ASSERT_TRUE(scheduler.run(home, log.checkpoints.at(kClient)()));
    ASSERT_TRUE(failed.has_value() && !*failed);
    EXPECT_EQ(durable().state, PairState::kLogging);
    EXPECT_EQ(meta.superblock().state, PairState::kMirrored);
    EXPECT_TRUE(meta.uncertain());
    ASSERT_TRUE(scheduler.run(home, meta.ensure_regions({3, 1})));
    EXPECT_EQ(durable().state, PairState::kMirrored);
    EXPECT_EQ(durable().regions, (std::vector<replication::Run>{{3, 1}}));
}

}  // namespace
}  // namespace gemel::replication
