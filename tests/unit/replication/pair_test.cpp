// SPDX-License-Identifier: Apache-2.0
// A pair in operation: establish, write, cuts, restarts, severing and promotion, in virtual time.
#include <gtest/gtest.h>

#include "tests/unit/replication/pair_world.hpp"

namespace gemel::replication {
namespace {

Errc code(const Result<void>& r) {
    return r ? Errc{0} : r.error().code;
}
Errc code(const Result<unsigned>& r) {
    return r ? Errc{0} : r.error().code;
}

TEST(Pair, AnUnpairedVolumePassesThrough) {
    PairWorld w;
    w.start(w.alpha);
    ASSERT_TRUE(w.write(w.alpha, 8, 1, 7));
    EXPECT_EQ(w.read(w.alpha, 8).value(), 7U);
    EXPECT_TRUE(w.status(w.alpha).serving);
    EXPECT_EQ(w.status(w.alpha).state, PairState::kUnpaired);
}

TEST(Pair, EstablishCopiesEverythingThatIsNotZeroAndThenMirrorsWrites) {
    PairWorld w;
    w.start();
    ASSERT_TRUE(w.write(w.alpha, 800, 4, 3));
    ASSERT_TRUE(w.establish());
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
    EXPECT_GT(w.status(w.alpha).resync_bytes_sent, 0U);
    EXPECT_LE(w.status(w.alpha).resync_bytes_sent, 512U * kKiB);
    ASSERT_TRUE(w.write(w.alpha, 1600, 2, 9));
    EXPECT_TRUE(w.equal()) << "an acknowledged write is on both copies";
    EXPECT_EQ(w.alpha.lun->identity(), w.beta.lun->identity());
    EXPECT_EQ(w.status(w.beta).role, Role::kSecondary);
}

TEST(Pair, AHostWriteLargerThanAFrameIsOneUnitOfAcknowledgement) {
    PairWorld w;
    w.defaults.frame_bytes = 16384;
    w.pair_up();
    const std::uint64_t before = w.status(w.alpha).frames_sent;
    ASSERT_TRUE(w.write(w.alpha, 1, 64, 5));  // 256 KiB, not on a 4 KiB address
    EXPECT_GE(w.status(w.alpha).frames_sent - before, 16U);
    EXPECT_TRUE(w.equal());
}

TEST(Pair, ASecondaryAnswersStandbyToEveryMediumAccess) {
    PairWorld w;
    w.pair_up();
    EXPECT_EQ(code(w.read(w.beta, 0)), Errc::kStandby);
    EXPECT_EQ(code(w.write(w.beta, 0, 1, 1)), Errc::kStandby);
    EXPECT_EQ(code(w.flush(w.beta)), Errc::kStandby);
    EXPECT_EQ(w.beta.lun->limits().sectors.value, PairWorld::kSectors);
}

TEST(Pair, ACutLinkResumesFromHeldFramesWithoutAResync) {
    PairWorld w;
    w.pair_up();
    const std::uint64_t resynced = w.status(w.alpha).resync_bytes_sent;
    std::vector<std::optional<Result<void>>> results(16);
    const auto one = [](PairWorld& world, std::uint64_t i, std::optional<Result<void>>& out) -> Task<void> {
        out = co_await world.write_task(world.alpha, i * 64, 2, static_cast<unsigned char>(i + 1));
    };
    w.network.cut_after("alpha", "beta", 30'000);
    for (std::uint64_t i = 0; i < results.size(); ++i) {
        w.scheduler.start(w.alpha.home, one(w, i, results[i]));
    }
    ASSERT_TRUE(w.until([&] { return std::ranges::all_of(results, [](const auto& r) { return r.has_value(); }); }));
    for (const auto& r : results) {
        EXPECT_TRUE(r->has_value());
    }
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.status(w.alpha).state, PairState::kMirrored);
    EXPECT_EQ(w.status(w.alpha).resync_bytes_sent, resynced);
    EXPECT_GE(w.alpha.env.events().count("peer-connected"), 2U) << "the link was really cut";
}

TEST(Pair, APeerThatRestartsGetsOnlyTheRegionsThatWereInFlight) {
    PairWorld w;
    w.pair_up();
    const std::uint64_t resynced = w.status(w.alpha).resync_bytes_sent;
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 4));
    w.kill(w.beta);
    w.restart(w.beta);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
    const std::uint64_t sent = w.status(w.alpha).resync_bytes_sent - resynced;
    EXPECT_GT(sent, 0U);
    EXPECT_LE(sent, kMiB);
}

TEST(Pair, APeerThatLosesPowerGetsBackWhatItHadNotFlushed) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 2048, 8, 4));
    w.kill(w.beta, /*power=*/true);
    ASSERT_FALSE(w.alpha.disk.snapshot() == w.beta.disk.snapshot());
    w.restart(w.beta);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST(Pair, APrimaryThatLosesPowerIsBroughtUpToDateByItsPeerBeforeItServes) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 2048, 8, 4));  // acknowledged, not flushed: only beta keeps it
    w.kill(w.alpha, /*power=*/true);
    w.network.partition("alpha", "beta");
    w.restart(w.alpha);
    w.run_for(2s);
    EXPECT_EQ(code(w.read(w.alpha, 2048)), Errc::kNotReady);
    EXPECT_NE(w.status(w.alpha).reason, "");
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until_mirrored());
    ASSERT_TRUE(w.until([&] { return w.status(w.alpha).serving; }));
    EXPECT_EQ(w.read(w.alpha, 2048).value(), 4U);
    EXPECT_EQ(w.status(w.alpha).role, Role::kPrimary);
    EXPECT_TRUE(w.equal());
}

TEST(Pair, APrimaryThatLosesPowerAsTheSourceOfAResyncKeepsWhatItsPeerHadBefore) {
    PairWorld w;
    w.defaults.flush_interval = std::chrono::hours(1);
    w.defaults.resync_bytes_per_second = 64 * kKiB;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 2048, 8, 4));  // acknowledged by both, not flushed
    w.kill(w.beta);
    w.restart(w.beta);
    ASSERT_TRUE(w.until([&] { return w.status(w.alpha).resync.running && w.status(w.alpha).resync.total_bytes > 0; }));
    ASSERT_EQ(w.status(w.beta).state, PairState::kResyncTarget);
    w.kill(w.alpha, /*power=*/true);  // beta's copy had it when it stopped being one that counts
    w.defaults.resync_bytes_per_second = 0;
    w.restart(w.alpha);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.read(w.alpha, 2048).value(), 4U);
    EXPECT_TRUE(w.equal());
}

TEST(Pair, APrimaryThatIsTheTargetOfAResyncStaysTheTargetWhenTheLinkIsLost) {
    PairWorld w;
    w.defaults.resync_bytes_per_second = 256 * kKiB;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 2048, 8, 4));
    w.kill(w.alpha, /*power=*/true);
    w.restart(w.alpha);
    ASSERT_TRUE(w.until([&] { return w.status(w.alpha).state == PairState::kResyncTarget; }));
    for (int i = 0; i < 3; ++i) {
        w.network.reset_connections("alpha", "beta");
        w.run_for(300ms);
        EXPECT_EQ(w.status(w.alpha).state, PairState::kResyncTarget);
        EXPECT_EQ(code(w.read(w.alpha, 2048)), Errc::kNotReady);
    }
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.read(w.alpha, 2048).value(), 4U);
    EXPECT_TRUE(w.equal());
}

TEST(Pair, RegionsLeftByACrashAreClearedWithoutAnyFurtherWrite) {
    for (const bool secondary : {false, true}) {
        PairWorld w;
        w.pair_up();
        ASSERT_TRUE(w.write(w.alpha, 2048, 8, 4));
        PairWorld::Side& victim = secondary ? w.beta : w.alpha;
        w.kill(victim);
        w.restart(victim);
        ASSERT_TRUE(w.until_mirrored());
        EXPECT_TRUE(w.until([&] { return w.status(w.alpha).region_bytes == 0; }, 10s));
    }
}

TEST(Pair, ALostPeerIsSeveredWithinTenSecondsAndComesBackWithChangedTracksOnly) {
    PairWorld w;
    w.pair_up();
    w.network.partition("alpha", "beta");
    const TimePoint began = w.scheduler.now();
    ASSERT_TRUE(w.write(w.alpha, 128 * 10, 1, 6));
    EXPECT_LE(w.scheduler.now() - began, 10s);
    EXPECT_EQ(w.status(w.alpha).state, PairState::kLogging);
    EXPECT_TRUE(w.alpha.env.events().has("pair-severed"));
    const TimePoint second = w.scheduler.now();
    ASSERT_TRUE(w.write(w.alpha, 128 * 30, 1, 6));
    EXPECT_LE(w.scheduler.now() - second, 100ms) << "later writes do not wait for the peer";
    const std::uint64_t before = w.status(w.alpha).resync_bytes_sent;
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
    const std::uint64_t sent = w.status(w.alpha).resync_bytes_sent - before;
    EXPECT_GE(sent, 2 * 64 * kKiB);
    EXPECT_LE(sent, kMiB + 64 * kKiB) << "one region in flight and one track";
}

TEST(Pair, WithFreezeNothingIsAcknowledgedAloneAndThePeersReturnThaws) {
    PairWorld w;
    w.defaults.on_peer_loss = PeerLoss::kFreeze;
    w.pair_up();
    w.network.partition("alpha", "beta");
    EXPECT_EQ(code(w.write(w.alpha, 0, 1, 6)), Errc::kNotReady);
    EXPECT_EQ(code(w.write(w.alpha, 64, 1, 6)), Errc::kNotReady);
    EXPECT_TRUE(w.alpha.env.events().has("pair-frozen"));
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until([&] { return w.mirrored() && w.status(w.alpha).serving; }));
    ASSERT_TRUE(w.write(w.alpha, 64, 1, 7));
    EXPECT_TRUE(w.equal());
}

TEST(Pair, ASeveredPairLogsTracksAndReEstablishSendsOnlyThem) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->sever("vol", false)));
    EXPECT_EQ(w.status(w.alpha).state, PairState::kSevered);
    EXPECT_EQ(w.status(w.beta).state, PairState::kSevered);
    ASSERT_TRUE(w.write(w.alpha, 128 * 5, 1, 8));
    w.network.reset_connections("alpha", "beta");
    w.run_for(10s);
    EXPECT_EQ(w.status(w.alpha).state, PairState::kSevered) << "a severed pair does not come back by itself";
    EXPECT_EQ(w.beta.disk.snapshot()[128 * 5 * 512], std::byte{0});
    const std::uint64_t before = w.status(w.alpha).resync_bytes_sent;
    const Result<void> back = w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "", false));
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.status(w.alpha).resync_bytes_sent - before, 64 * kKiB);
}

TEST(Pair, ASeveredPairIsReEstablishedThoughItsLinkWasNeverLost) {
    for (const bool from_beta : {false, true}) {
        PairWorld w;
        w.pair_up();
        ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->sever("vol", false)));
        ASSERT_TRUE(w.write(w.alpha, 128 * 5, 1, 8));
        PairWorld::Side& side = from_beta ? w.beta : w.alpha;
        const Result<void> back = w.scheduler.run(side.home, side.node->re_establish("vol", "", false));
        ASSERT_TRUE(back) << back.error().message;
        ASSERT_TRUE(w.until_mirrored());
        EXPECT_TRUE(w.equal());
        EXPECT_EQ(w.read(w.alpha, 128 * 5).value(), 8U);
    }
}

TEST(Pair, PromoteWithContactSwapsTheRolesAndLosesNothing) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
    const Result<void> promoted = w.scheduler.run(w.beta.home, w.beta.node->promote("vol", false));
    ASSERT_TRUE(promoted) << promoted.error().message;
    EXPECT_EQ(code(w.read(w.alpha, 0)), Errc::kStandby);
    EXPECT_EQ(w.read(w.beta, 0).value(), 1U);
    ASSERT_TRUE(w.write(w.beta, 8, 1, 2));
    EXPECT_TRUE(w.equal());
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->promote("vol", false)));
    ASSERT_TRUE(w.write(w.alpha, 16, 1, 3));
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.status(w.alpha).term, 3U);
    EXPECT_EQ(w.status(w.beta).term, 3U);
}

TEST(Pair, AHandOverThatDoesNotComeToItsEndLeavesTheOldPrimaryServing) {
    for (const bool late : {true, false}) {
        PairWorld w;
        w.pair_up();
        if (late) {
            w.alpha.store.log().delay = 20s;  // it steps down when the other side has long given up
        } else {
            w.beta.store.log().failing = true;
        }
        EXPECT_EQ(code(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", false))),
                  late ? Errc::kTimedOut : Errc::kDeviceGone);
        w.alpha.store.log().delay = 50us;
        w.beta.store.log().failing = false;
        ASSERT_TRUE(w.until([&] { return w.mirrored() && w.status(w.alpha).serving; }, 12s)) << late;
        EXPECT_EQ(w.status(w.beta).role, Role::kSecondary);
        ASSERT_TRUE(w.write(w.alpha, 8, 1, 2));
        EXPECT_TRUE(w.equal());
        ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", false)));
        ASSERT_TRUE(w.write(w.beta, 8, 1, 3));
    }
}

TEST(Pair, PromoteWithoutContactNeedsForceAndTheOldPrimaryComesBackAsSecondary) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
    w.kill(w.alpha);
    EXPECT_EQ(code(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", false))), Errc::kNeedsForce);
    ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true)));
    EXPECT_EQ(w.read(w.beta, 0).value(), 1U);
    ASSERT_TRUE(w.write(w.beta, 128 * 9, 1, 2));
    w.restart(w.alpha);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.status(w.alpha).role, Role::kSecondary);
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.read(w.beta, 128 * 9).value(), 2U);
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->promote("vol", false)));
    EXPECT_EQ(w.read(w.alpha, 128 * 9).value(), 2U);
}

TEST(Pair, TheCopyOfASeveredSecondaryCanBeReadAndDoesNotChangeUntilReEstablish) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
    BlockDevice& volume = *w.beta.lun;
    BlockDevice& copy = w.beta.node->severed_copy("vol");
    w.beta.lun = &copy;
    EXPECT_EQ(code(w.read(w.beta, 0)), Errc::kRefused) << "mirrored: it changes";
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->sever("vol", false)));
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 2));
    EXPECT_EQ(w.read(w.beta, 0).value(), 1U);
    EXPECT_EQ(code(w.write(w.beta, 0, 1, 3)), Errc::kReadOnly);
    EXPECT_EQ(w.read(w.beta, 0).value(), 1U);
    EXPECT_EQ(copy.limits().sectors.value, PairWorld::kSectors);
    EXPECT_NE(copy.identity(), volume.identity()) << "no host may take it for a path to the volume";
    EXPECT_NE(copy.identity(), w.alpha.node->severed_copy("vol").identity());
    w.alpha.lun = &w.alpha.node->severed_copy("vol");
    EXPECT_EQ(code(w.read(w.alpha, 0)), Errc::kRefused) << "the primary's copy changes";
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "alpha", false)));
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(code(w.read(w.beta, 0)), Errc::kRefused);

    struct Sizes : DeviceObserver {
        void capacity_changed(SectorCount now) override { told = now; }
        SectorCount told;
    } sizes;
    copy.observe(&sizes);
    const SectorCount more(PairWorld::kSectors + 2048);
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", more, false)));
    EXPECT_EQ(sizes.told, more);
    copy.observe(nullptr);
}

TEST(Pair, APromotionWhoseRecordFailedSaysThatItMayShowAfterARestart) {
    PairWorld w;
    w.pair_up();
    w.kill(w.alpha);
    w.beta.store.log().failing = true;
    const Result<void> promoted = w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true));
    ASSERT_FALSE(promoted);
    EXPECT_NE(promoted.error().message.find("may have become durable"), std::string::npos) << promoted.error().message;
    EXPECT_TRUE(w.status(w.beta).uncertain);
    EXPECT_EQ(w.status(w.beta).role, Role::kSecondary);
    w.beta.store.log().failing = false;
    ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true)));
    EXPECT_FALSE(w.status(w.beta).uncertain);
    EXPECT_EQ(w.status(w.beta).role, Role::kPrimary);
}

TEST(Pair, BothSidesWrittenAloneIsSplitBrainAndOnlyAnOperatorEndsIt) {
    PairWorld w;
    w.pair_up();
    w.network.partition("alpha", "beta");
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
    ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true)));
    ASSERT_TRUE(w.write(w.beta, 128 * 20, 1, 2));
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until([&] { return w.status(w.alpha).state == PairState::kSplitBrain; }));
    ASSERT_TRUE(w.until([&] { return w.status(w.beta).state == PairState::kSplitBrain; }));
    EXPECT_TRUE(w.alpha.env.events().has("split-brain"));
    EXPECT_EQ(w.beta.disk.snapshot()[0], std::byte{0}) << "no data moved";
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "", false))), Errc::kSplitBrain);
    const Result<void> chosen = w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "beta", false));
    ASSERT_TRUE(chosen) << chosen.error().message;
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.status(w.beta).role, Role::kPrimary);
    EXPECT_EQ(w.status(w.alpha).role, Role::kSecondary);
    EXPECT_EQ(w.read(w.beta, 128 * 20).value(), 2U);
    EXPECT_EQ(w.read(w.beta, 0).value(), 0U) << "alpha's write was given up on both sides";
}

TEST(Pair, ResizeGrowsBothSidesAndShrinkingNeedsForce) {
    struct Watcher : DeviceObserver {
        void capacity_changed(SectorCount n) override { seen = n.value; }
        std::uint64_t seen = 0;
    };
    PairWorld w;
    w.pair_up();
    Watcher watcher;
    w.alpha.lun->observe(&watcher);
    const Result<void> grown = w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", SectorCount(10240), false));
    ASSERT_TRUE(grown) << grown.error().message;
    EXPECT_EQ(watcher.seen, 10240U);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.alpha.lun->limits().sectors.value, 10240U);
    EXPECT_EQ(w.beta.lun->limits().sectors.value, 10240U);
    ASSERT_TRUE(w.write(w.alpha, 10232, 1, 5));
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", SectorCount(99999), false))),
              Errc::kNoSpace);
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", SectorCount(4096), false))),
              Errc::kNeedsForce);
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", SectorCount(4096), true)));
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.beta.lun->limits().sectors.value, 4096U);
    w.alpha.lun->observe(nullptr);
}

TEST(Pair, AResizeIsASuccessOnlyWhenTheSecondaryHasItDurably) {
    for (const bool mends : {true, false}) {
        PairWorld w;
        w.pair_up();
        w.run_for(3s);
        std::optional<Result<void>> result;
        const auto resize = [](PairWorld& world, std::optional<Result<void>>& out) -> Task<void> {
            out = co_await world.alpha.node->resize("vol", SectorCount(10240), false);
        };
        const std::size_t records = w.beta.store.log().records(kLogClientPair | 1);
        w.scheduler.start(w.alpha.home, resize(w, result));
        ASSERT_TRUE(w.scheduler.run_until([&] { return w.beta.store.log().records(kLogClientPair | 1) > records; }));
        w.beta.store.log().failing = true;  // between its two phases
        w.run_for(1s);
        EXPECT_FALSE(result.has_value());
        EXPECT_EQ(w.status(w.beta).sectors, PairWorld::kSectors);
        w.beta.store.log().failing = !mends;
        w.run_for(20s);
        ASSERT_TRUE(result.has_value());
        EXPECT_EQ(result->has_value(), mends);
        EXPECT_EQ(w.status(w.alpha).sectors, 10240U);
        w.kill(w.alpha);
        w.beta.store.log().failing = false;
        ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true)));
        EXPECT_EQ(w.status(w.beta).sectors, mends ? 10240U : PairWorld::kSectors);
    }
}

TEST(Pair, AShrinkThatTheHandshakeCompletesGivesTheSpaceBackOnBothSides) {
    PairWorld w;
    w.pair_up();
    w.run_for(3s);
    std::optional<Result<void>> result;
    const auto resize = [](PairWorld& world, std::optional<Result<void>>& out) -> Task<void> {
        out = co_await world.alpha.node->resize("vol", SectorCount(4096), true);
    };
    w.scheduler.start(w.alpha.home, resize(w, result));
    ASSERT_TRUE(w.scheduler.run_until([&] { return w.status(w.alpha).sectors == 4096; }));
    w.network.reset_connections("alpha", "beta");  // the commit is lost
    ASSERT_TRUE(w.until([&] { return result.has_value(); }));
    EXPECT_TRUE(*result);
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.status(w.beta).sectors, 4096U);
    EXPECT_EQ(w.alpha.store.find("vol")->limits().sectors.value, 4096U);
    EXPECT_EQ(w.beta.store.find("vol")->limits().sectors.value, 4096U);
}

TEST(Pair, ADamagedPayloadIsSentAgainAndADamagedHeaderEndsOnlyTheConnection) {
    for (const std::uint64_t at : {std::uint64_t{40}, std::uint64_t{5000}}) {
        PairWorld w;
        w.pair_up();
        w.network.corrupt_after("alpha", "beta", at);
        ASSERT_TRUE(w.write(w.alpha, 256, 8, 5));
        EXPECT_TRUE(w.equal()) << at;
        EXPECT_EQ(w.status(w.alpha).state, PairState::kMirrored);
    }
}

TEST(Pair, APeerWhoseArrayFailsOrIsFullEndsTheAssociationAtOnce) {
    for (const bool full : {true, false}) {
        PairWorld w;
        w.pair_up();
        full ? w.beta.disk.set_full(true) : w.beta.disk.die();
        const TimePoint began = w.scheduler.now();
        ASSERT_TRUE(w.write(w.alpha, 0, 1, 5));
        EXPECT_LE(w.scheduler.now() - began, 1s);
        EXPECT_EQ(w.status(w.alpha).state, PairState::kLogging);
        EXPECT_NE(w.status(w.alpha).last_error, "");
        full ? w.beta.disk.set_full(false) : w.beta.disk.revive();
        ASSERT_TRUE(w.until_mirrored()) << "the pair mends itself when the peer's array works again";
        EXPECT_TRUE(w.equal());
    }
}

TEST(Pair, ARecordThatFailedButIsDurableNeverLeavesTwoInconsistentCopies) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 5));  // its region stays marked for a while
    w.kill(w.beta);
    w.beta.store.log().failing_durably = true;
    w.restart(w.beta);
    ASSERT_TRUE(w.until([&] { return !w.status(w.beta).last_error.empty(); }, 5s)) << "it was to become the target";
    w.beta.store.log().failing_durably = false;
    w.beta.store.log().failing = true;
    w.kill(w.alpha, /*power=*/true);
    w.restart(w.alpha);
    w.run_for(10s);
    EXPECT_FALSE(w.status(w.alpha).serving) << "it lost power, and the peer may hold newer writes";
    w.kill(w.beta);
    w.restart(w.beta);
    ASSERT_TRUE(w.until_mirrored()) << w.status(w.alpha).reason;
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.read(w.alpha, 0).value(), 5U);
}

TEST(Pair, AnInterruptedResyncKeepsItsProgressAndEnds) {
    PairWorld w(5);
    w.start();
    ASSERT_TRUE(w.write(w.alpha, 0, 512, 3));
    ASSERT_TRUE(w.establish());
    for (int i = 0; i < 20; ++i) {
        w.run_for(Duration(2ms) * (i + 1));
        w.network.reset_connections("alpha", "beta");
        EXPECT_TRUE(w.write(w.alpha, static_cast<std::uint64_t>(i) * 160, 2, static_cast<unsigned char>(100 + i)));
    }
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST(Pair, AResyncTargetIsNotPromotableEvenWithForce) {
    PairWorld w;
    w.defaults.resync_bytes_per_second = 512 * kKiB;
    w.start();
    ASSERT_TRUE(w.write(w.alpha, 0, 512, 3));
    ASSERT_TRUE(w.establish());
    ASSERT_TRUE(w.until([&] { return w.status(w.beta).state == PairState::kResyncTarget; }));
    EXPECT_EQ(code(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true))), Errc::kRefused);
    w.kill(w.alpha);
    EXPECT_EQ(code(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", true))), Errc::kRefused);
}

TEST(Pair, AnUnreadableSourceBlockIsNeverShippedAsZeros) {
    PairWorld w;
    w.start();
    ASSERT_TRUE(w.write(w.alpha, 0, 32, 3));
    ASSERT_TRUE(w.write(w.beta, 512, 1, 77));
    w.alpha.disk.damage(Lba(512), SectorCount(1));
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->establish({"vol", "beta", "", true})));
    w.run_for(20s);
    EXPECT_TRUE(w.alpha.env.events().has("pair-unreadable"));
    EXPECT_FALSE(w.mirrored());
    EXPECT_EQ(w.beta.disk.snapshot()[512 * 512], std::byte{77});
    EXPECT_EQ(w.status(w.alpha).dirty_bytes, 64 * kKiB);
    ASSERT_TRUE(w.write(w.alpha, 512, 1, 4));
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST(Pair, RefusedOperationsChangeNothingAndSayWhy) {
    PairWorld w;
    w.start();
    const auto establish = [&](EstablishRequest r) {
        return w.scheduler.run(w.alpha.home, w.alpha.node->establish(r));
    };
    EXPECT_EQ(code(establish({"nix", "beta", "", false})), Errc::kNotFound);
    EXPECT_EQ(code(establish({"vol", "gamma", "", false})), Errc::kNotFound);
    EXPECT_EQ(code(establish({"vol", "beta", "other", false})), Errc::kNotFound);
    ASSERT_TRUE(w.write(w.beta, 0, 1, 1));
    EXPECT_EQ(code(establish({"vol", "beta", "", false})), Errc::kNeedsForce);
    ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->resize("vol", SectorCount(12000), false)));
    EXPECT_EQ(code(establish({"vol", "beta", "", true})), Errc::kSizeMismatch);
    EXPECT_EQ(w.status(w.alpha).state, PairState::kUnpaired);
    EXPECT_EQ(w.status(w.beta).state, PairState::kUnpaired);
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->sever("vol", false))), Errc::kNotFound);
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->promote("vol", true))), Errc::kNotFound);
    EXPECT_EQ(code(w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "", true))), Errc::kNotFound);
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
}

TEST(Pair, DamagedMetadataMeansAFullCopyAndNeverSilentlyClean) {
    PairWorld w;
    w.pair_up();
    w.kill(w.beta);
    w.beta.store.log().corrupt = true;
    w.restart(w.beta);
    w.run_for(5s);
    EXPECT_EQ(w.status(w.beta).state, PairState::kNeedFull);
    EXPECT_TRUE(w.beta.env.events().has("pair-need-full"));
    EXPECT_EQ(code(w.read(w.beta, 0)), Errc::kNotReady);
    ASSERT_TRUE(w.write(w.alpha, 0, 4, 9));
    const Result<void> back = w.scheduler.run(w.alpha.home, w.alpha.node->re_establish("vol", "alpha", true));
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST(Pair, GarbageOnThePortDisturbsNothing) {
    PairWorld w;
    w.pair_up();
    const auto attack = [](PairWorld& world, std::size_t bytes, std::uint64_t seed) -> Task<void> {
        auto stream = co_await world.network.host("mallory").connect("beta:7261", 1000);
        CHECK(stream.has_value());
        std::vector<std::byte> junk(bytes);
        sim::SeededRandom random(seed);
        random.fill(junk);
        const std::array<ConstBytes, 1> parts{ConstBytes(junk)};
        (void)co_await (*stream)->write(parts);
        (void)co_await (*stream)->read_some(junk);
        (*stream)->close();
    };
    sim::SimExecutor& mallory = w.scheduler.add_executor("mallory");
    for (std::uint64_t i = 0; i < 30; ++i) {
        w.scheduler.start(mallory, attack(w, i * 97 + 1, i + 1));
    }
    ASSERT_TRUE(w.write(w.alpha, 0, 4, 9));
    w.run_for(10s);
    EXPECT_TRUE(w.mirrored());
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.beta.node->refused_connections(), 30U);
    EXPECT_TRUE(w.beta.env.events().has("replication-connection-refused"));
    EXPECT_LE(w.beta.env.events().count("replication-connection-refused"), 3U) << "rate-limited";
}

TEST(Pair, RegionsAreClearedOnceBothLegsAreFlushedAndHotOnesCostNoRecord) {
    PairWorld w;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1, 1));
    const std::size_t records = w.alpha.store.log().records(kLogClientPair | 1);
    for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(w.write(w.alpha, static_cast<std::uint64_t>(i) * 8, 1, 2));
    }
    EXPECT_EQ(w.alpha.store.log().records(kLogClientPair | 1), records);
    EXPECT_EQ(w.status(w.alpha).region_bytes, kMiB);
    w.run_for(5s);
    EXPECT_EQ(w.status(w.alpha).region_bytes, 0U);
    EXPECT_EQ(w.beta.disk.unflushed_sectors(), 0U);
    EXPECT_GT(w.status(w.alpha).sequence_durable, 0U);
}

TEST(Pair, ACheckpointTakenAtAnyTimeKeepsThePair) {
    PairWorld w;
    w.pair_up();
    w.network.partition("alpha", "beta");
    ASSERT_TRUE(w.write(w.alpha, 128 * 3, 1, 1));
    for (std::uint64_t i = 0; i < 20; ++i) {
        ASSERT_TRUE(w.write(w.alpha, 128 * (i * 3 % 60), 1, 1));
        const auto checkpoint = w.alpha.store.log().checkpoints.at(kLogClientPair | 1);
        ASSERT_TRUE(w.scheduler.run(w.alpha.home, checkpoint()));
        EXPECT_EQ(w.alpha.store.log().records(kLogClientPair | 1), 1U);
    }
    w.kill(w.alpha);
    w.restart(w.alpha);
    EXPECT_TRUE(w.status(w.alpha).serving) << "logging: it serves at once";
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST(Pair, StopEndsWaitingWritesWithoutAcknowledgingThem) {
    PairWorld w;
    w.pair_up();
    w.network.partition("alpha", "beta");
    std::optional<Result<void>> result;
    const auto one = [](PairWorld& world, std::optional<Result<void>>& out) -> Task<void> {
        out = co_await world.write_task(world.alpha, 0, 1, 1);
    };
    w.scheduler.start(w.alpha.home, one(w, result));
    w.run_for(500ms);
    EXPECT_FALSE(result.has_value());
    w.stop(w.alpha);
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(code(*result), Errc::kAborted);
}

}  // namespace
}  // namespace gemel::replication
