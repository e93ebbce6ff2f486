// SPDX-License-Identifier: Apache-2.0
// Comparison of both copies, and blocks that one side cannot read and takes from the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "replication/block_digest.hpp"
#include "tests/unit/replication/fake_peer.hpp"

namespace gemel::replication {
namespace {

constexpr unsigned char kForeign = 0xee;

struct Verify : testing::Test {
    /// Puts blocks that no host wrote on the disk of `side`.
    void change_behind(PairWorld::Side& side, std::uint64_t lba, std::size_t blocks) {
        const auto put = [](PairWorld::Side& to, Lba at, std::size_t n) -> Task<Result<void>> {
            const Buffer memory = *to.env.pool().allocate(n * kBlockBytes);
            const Slice slice = memory.slice(n * kBlockBytes, at);
            std::ranges::fill(slice.data(), std::byte{kForeign});
            co_return co_await to.disk.write(at, slice, {});
        };
        CHECK(w.scheduler.run(side.home, put(side, Lba(lba), blocks)).has_value());
    }
    Result<void> order(PairWorld::Side& side, VerifyOrder o) {
        return w.scheduler.run(side.home, side.node->verify("vol", o));
    }
    VerifyReport report() { return w.status(w.alpha).verify.value(); }
    VerifyReport verified(VerifyOrder o) {
        const Result<void> begun = order(w.alpha, o);
        EXPECT_TRUE(begun.has_value()) << (begun ? "" : begun.error().message);
        EXPECT_TRUE(w.until([&] { return report().state == VerifyState::kDone; })) << report().why;
        return report();
    }
    PairWorld w;
};

TEST_F(Verify, CopiesThatAreEqualHaveNoDifferenceWhileHostsWrite) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 3, 40, 7));
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    for (unsigned i = 0; i < 50; ++i) {
        ASSERT_TRUE(w.write(w.alpha, i * 160, 3, static_cast<unsigned char>(i)));
    }
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kDone; }));
    const VerifyReport r = report();
    EXPECT_EQ(r.done_bytes, PairWorld::kSectors * kSectorBytes);
    EXPECT_EQ(r.bad_blocks, 0U);
    EXPECT_TRUE(r.extents.empty());
    EXPECT_FALSE(w.alpha.env.events().has("pair-different"));
}

TEST_F(Verify, EachBlockThatDiffersIsFoundAndOnlyARepairMakesItEqual) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    change_behind(w.beta, 16, 1);
    change_behind(w.beta, 480, 5);   // over the end of a frame's worth
    change_behind(w.beta, 8184, 1);  // the last
    VerifyReport r = verified(VerifyOrder::kCheck);
    EXPECT_EQ(r.different_blocks, 7U);
    EXPECT_EQ(r.extents, (std::vector<Extent>{
                             {Lba(16), SectorCount(8)}, {Lba(480), SectorCount(40)}, {Lba(8184), SectorCount(8)}}));
    EXPECT_EQ(r.repaired_blocks, 0U);
    EXPECT_FALSE(w.equal());
    EXPECT_EQ(w.alpha.env.events().count("pair-different"), 1U);

    r = verified(VerifyOrder::kRepair);
    EXPECT_EQ(r.different_blocks, 7U);
    EXPECT_EQ(r.repaired_blocks, 7U);
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.read(w.alpha, 16).value(), 7U) << "the primary's copy counts";
    EXPECT_EQ(verified(VerifyOrder::kCheck).bad_blocks, 0U);
}

TEST_F(Verify, WhatOneSideCannotReadIsRepairedFromTheOther) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.alpha.disk.damage(Lba(8), SectorCount(3));
    w.beta.disk.damage(Lba(100), SectorCount(8));
    w.alpha.disk.damage(Lba(200), SectorCount(1));
    w.beta.disk.damage(Lba(201), SectorCount(1));
    const VerifyReport r = verified(VerifyOrder::kRepair);
    EXPECT_EQ(r.different_blocks, 0U);
    EXPECT_EQ(r.unreadable_here, 2U);
    EXPECT_EQ(r.unreadable_at_peer, 3U);
    EXPECT_EQ(r.repaired_blocks, 3U);
    EXPECT_EQ(r.bad_blocks, 4U);
    EXPECT_EQ(w.read(w.alpha, 8).value(), 7U);
    EXPECT_TRUE(w.beta.disk.damaged(Lba(201))) << "nobody has it";
    EXPECT_FALSE(w.beta.disk.damaged(Lba(100)));
}

TEST_F(Verify, ItGoesOnWhereItWasAfterAPauseAndAfterTheLinkWasLost) {
    w.defaults.resync_bytes_per_second = 1U << 20U;  // four seconds for all
    w.defaults.retry_interval = 1s;
    w.pair_up();
    change_behind(w.beta, 16, 1);
    change_behind(w.beta, 8000, 1);
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    EXPECT_FALSE(order(w.alpha, VerifyOrder::kCheck)) << "one at a time";
    ASSERT_TRUE(w.until([&] { return report().done_bytes > 0; }));
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kPause));
    w.run_for(3s);
    const std::uint64_t paused = report().done_bytes;
    w.run_for(3s);
    EXPECT_EQ(report().done_bytes, paused);
    EXPECT_EQ(report().state, VerifyState::kPaused);
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kResume));
    ASSERT_TRUE(w.until([&] { return report().done_bytes > paused; }));
    w.network.partition("alpha", "beta");
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kWaiting; }));
    const std::uint64_t lost = report().done_bytes;
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kDone; })) << report().why;
    EXPECT_GE(report().done_bytes, lost);
    EXPECT_EQ(report().different_blocks, 2U) << "each counts once";
}

TEST_F(Verify, OnlyThePrimaryOfAMirroredVolumeVerifiesAndACancelledOneEnds) {
    w.defaults.resync_bytes_per_second = 1U << 20U;
    w.start();
    EXPECT_EQ(order(w.alpha, VerifyOrder::kCheck).error().code, Errc::kRefused);
    ASSERT_TRUE(w.establish());
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(order(w.beta, VerifyOrder::kCheck).error().code, Errc::kRefused);
    EXPECT_EQ(order(w.alpha, VerifyOrder::kPause).error().code, Errc::kNotFound);
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCancel));
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kCancelled; }));
    EXPECT_LT(report().done_bytes, report().total_bytes);
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck)) << "another may begin";
}

TEST_F(Verify, APromotedPeerEndsItHere) {
    w.defaults.resync_bytes_per_second = 1U << 19U;
    w.defaults.retry_interval = 1s;
    w.pair_up();
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    ASSERT_TRUE(w.scheduler.run(w.beta.home, w.beta.node->promote("vol", false)));
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kFailed; }));
    EXPECT_NE(report().why.find("no longer mirrored from this node"), std::string::npos);
}

TEST_F(Verify, AReadThatTheArrayCannotSatisfyIsAnsweredFromThePeerAndRewrittenHere) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 3, 64, 7));  // no 4 KiB address
    w.alpha.disk.damage(Lba(20), SectorCount(1));
    w.alpha.disk.damage(Lba(160), SectorCount(20));
    EXPECT_EQ(w.read(w.alpha, 19).value(), 7U) << "in the middle of a block, and over its end";
    EXPECT_EQ(w.status(w.alpha).healed_blocks, 1U);
    EXPECT_FALSE(w.alpha.disk.damaged(Lba(20)));
    EXPECT_EQ(w.read(w.alpha, 160).value(), 7U);
    EXPECT_EQ(w.read(w.alpha, 168).value(), 7U);
    EXPECT_TRUE(w.alpha.env.events().has("pair-healed"));
    EXPECT_TRUE(w.equal());
}

TEST_F(Verify, WithoutAPeerInStepTheBlockStaysUnreadable) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.kill(w.beta);
    w.run_for(20s);
    ASSERT_TRUE(w.write(w.alpha, 16, 1, 9)) << "alone now";
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kMediumError) << "the peer's copy is an old one";
    w.restart(w.beta);
    w.run_for(10s);
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kMediumError);
}

TEST_F(Verify, WhileTheLinkIsLostForAMomentTheHostIsToAskAgain) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.run_for(3s);  // no mark that would have the pair go alone
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    w.network.reset_connections("alpha", "beta");
    w.network.partition("alpha", "beta");
    w.run_for(100ms);
    ASSERT_FALSE(w.status(w.alpha).connected);
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kBusy);
    w.network.heal("alpha", "beta");
    ASSERT_TRUE(w.until_mirrored());
    EXPECT_EQ(w.read(w.alpha, 16).value(), 7U);

    w.alpha.disk.damage(Lba(16), SectorCount(1));
    w.network.partition("alpha", "beta");
    w.run_for(20s);
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kMediumError) << "not for ever";
}

TEST_F(Verify, WhatNobodyHasIsTriedEverMoreSeldom) {
    w.pair_up();
    w.alpha.store.volume().reports = true;
    for (std::uint64_t at = 0; at < 512; at += 16) {
        w.alpha.disk.damage(Lba(at), SectorCount(1));
        w.beta.disk.damage(Lba(at), SectorCount(1));
    }
    w.alpha.store.volume().report_unreadable({Lba(0), SectorCount(512)});
    w.run_for(60s);
    const std::uint64_t early = w.alpha.disk.counters().reads;
    EXPECT_GT(early, 0U);
    w.run_for(std::chrono::hours(4));
    EXPECT_LT(w.alpha.disk.counters().reads - early, 20U);
    EXPECT_EQ(w.alpha.env.events().count("pair-heal-failed"), 1U) << "what a try reports is no suspect of its own";
}

TEST_F(Verify, ASeveredPeersOlderCopyHealsNothing) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->sever("vol", false)));
    ASSERT_TRUE(w.write(w.alpha, 16, 1, 9));
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kMediumError);
    ASSERT_TRUE(w.write(w.alpha, 16, 1, 10)) << "a write of the whole block makes it readable";
    EXPECT_EQ(w.read(w.alpha, 16).value(), 10U);
}

TEST_F(Verify, WhatNeitherSideCanReadIsAnErrorAndSaysSoOnce) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    w.beta.disk.damage(Lba(17), SectorCount(1));
    EXPECT_EQ(w.read(w.alpha, 16).error().code, Errc::kMediumError);
    w.alpha.store.volume().report_unreadable({Lba(16), SectorCount(1)});
    w.run_for(200s);
    EXPECT_EQ(w.alpha.env.events().count("pair-heal-failed"), 1U);
}

TEST_F(Verify, WhatAnArrayFindsByItselfIsHealedOnEitherSideAlsoWhenThePeerComesBackLater) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    w.beta.disk.damage(Lba(170), SectorCount(2));
    w.alpha.store.volume().report_unreadable({Lba(16), SectorCount(8)});
    w.beta.store.volume().report_unreadable({Lba(170), SectorCount(2)});
    w.run_for(1s);
    EXPECT_EQ(w.alpha.disk.damaged_sectors() + w.beta.disk.damaged_sectors(), 0U);
    EXPECT_TRUE(w.equal());

    w.beta.disk.damage(Lba(80), SectorCount(1));
    w.network.partition("alpha", "beta");
    w.run_for(5s);
    w.beta.store.volume().report_unreadable({Lba(80), SectorCount(1)});
    w.run_for(5s);
    EXPECT_TRUE(w.beta.disk.damaged(Lba(80)));
    w.network.heal("alpha", "beta");
    EXPECT_TRUE(w.until([&] { return !w.beta.disk.damaged(Lba(80)); }, 120s));
    EXPECT_TRUE(w.until_mirrored());
    EXPECT_TRUE(w.equal());
}

TEST_F(Verify, ARepairWhoseLinkIsCutGoesOnAndTheStreamIsWhole) {
    w.defaults.resync_bytes_per_second = 1U << 20U;
    w.defaults.retry_interval = 1s;
    w.pair_up();
    for (std::uint64_t at = 0; at < PairWorld::kSectors; at += 16) {
        change_behind(w.beta, at, 1);
    }
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kRepair));
    for (int cut = 0; cut < 5; ++cut) {
        w.run_for(500ms);
        w.network.cut_after("alpha", "beta", 300 + static_cast<std::uint64_t>(cut) * 5000);
        ASSERT_TRUE(w.write(w.alpha, 24, 1, static_cast<unsigned char>(cut)));
    }
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kDone; })) << report().why;
    EXPECT_TRUE(w.equal());
    EXPECT_EQ(w.status(w.alpha).resync_bytes_sent, 0U) << "every cut was resumed";
    EXPECT_LE(w.alpha.env.events().count("peer-lost"), 5U);
    EXPECT_GE(w.alpha.env.events().count("peer-lost"), 3U);
}

TEST_F(Verify, ManyReadsOfBadBlocksAtOnceAreAllAnswered) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1024, 7));
    w.alpha.disk.damage(Lba(0), SectorCount(8192));
    std::size_t good = 0;
    const auto read = [](PairWorld& world, std::uint64_t lba, std::size_t& n) -> Task<void> {
        const Result<unsigned> r = co_await world.read_task(world.alpha, lba);
        n += r && *r == 7 ? 1 : 0;
    };
    for (std::uint64_t i = 0; i < 200; ++i) {
        w.scheduler.start(w.alpha.home, read(w, i * 40, good));
    }
    w.run_for(5s);
    EXPECT_EQ(good, 200U);
    EXPECT_EQ(w.read(w.alpha, 8184).value(), 7U);
}

TEST_F(Verify, OneBlockThatNobodyHasCostsNoOther) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1024, 7));
    w.alpha.disk.damage(Lba(0), SectorCount(2048));
    w.beta.disk.damage(Lba(800), SectorCount(1));
    w.beta.disk.damage(Lba(4000), SectorCount(2000));
    w.alpha.disk.damage(Lba(5000), SectorCount(1));
    w.alpha.store.volume().report_unreadable({Lba(0), SectorCount(2048)});
    w.beta.store.volume().report_unreadable({Lba(4000), SectorCount(2000)});
    w.run_for(5s);
    EXPECT_EQ(w.alpha.disk.damaged_sectors(), 8U + 1U) << "the one block, and one that nobody reported";
    EXPECT_EQ(w.beta.disk.damaged_sectors(), 1U + 8U);
    EXPECT_EQ(w.status(w.alpha).healed_blocks, 255U);
    EXPECT_EQ(w.read(w.alpha, 792).value(), 7U);
    EXPECT_EQ(w.read(w.alpha, 800).error().code, Errc::kMediumError);
}

TEST_F(Verify, HostsDoNotWaitLongForAPeerThatDoesNotAnswerAndAreToldToAskAgain) {
    w.defaults.ack_timeout = 20s;
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 64, 7));
    w.alpha.disk.damage(Lba(16), SectorCount(1));
    w.beta.disk.stall(100s);
    std::vector<Errc> codes;
    std::vector<TimePoint> ends;
    const auto read = [](Verify& self, std::vector<Errc>& to, std::vector<TimePoint>& when) -> Task<void> {
        const Result<unsigned> r = co_await self.w.read_task(self.w.alpha, 16);
        to.push_back(r ? Errc{0} : r.error().code);
        when.push_back(self.w.scheduler.now());
    };
    const TimePoint begin = w.scheduler.now();
    for (int i = 0; i < 8; ++i) {
        w.scheduler.start(w.alpha.home, read(*this, codes, ends));
    }
    w.run_for(8s);
    ASSERT_EQ(codes, std::vector<Errc>(8, Errc::kBusy));
    EXPECT_LE(ends.back() - begin, 5s);
    w.beta.disk.stall(0s);
}

TEST_F(Verify, ManyHostsDoNotWaitInTurnForAPeerThatDoesNotAnswer) {
    w.pair_up();
    ASSERT_TRUE(w.write(w.alpha, 0, 1024, 7));
    w.run_for(3s);
    w.alpha.disk.damage(Lba(0), SectorCount(8192));
    w.beta.disk.stall(100s);
    std::vector<Errc> codes;
    const auto read = [](Verify& self, std::uint64_t lba, std::vector<Errc>& to) -> Task<void> {
        const Result<unsigned> r = co_await self.w.read_task(self.w.alpha, lba);
        to.push_back(r ? Errc{0} : r.error().code);
    };
    for (std::uint64_t i = 0; i < 200; ++i) {
        w.scheduler.start(w.alpha.home, read(*this, i * 40, codes));
    }
    w.run_for(3s);
    EXPECT_EQ(codes, std::vector<Errc>(200, Errc::kBusy));
    w.beta.disk.stall(0s);
}

TEST_F(Verify, ADaemonThatStopsDoesNotWaitForIt) {
    w.defaults.resync_bytes_per_second = 1U << 16U;
    w.pair_up();
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    w.run_for(300ms);
    const TimePoint begin = w.scheduler.now();
    w.stop(w.alpha);
    EXPECT_LT(w.scheduler.now() - begin, 1s);
}

TEST_F(Verify, AVolumeThatGrowsMeanwhileIsComparedToItsNewEnd) {
    w.defaults.resync_bytes_per_second = 2U << 20U;
    w.defaults.retry_interval = 1s;
    w.pair_up();
    ASSERT_TRUE(order(w.alpha, VerifyOrder::kCheck));
    w.run_for(500ms);
    const SectorCount more(PairWorld::kSectors + 2048 + 8);
    ASSERT_TRUE(w.scheduler.run(w.alpha.home, w.alpha.node->resize("vol", more, false)));
    ASSERT_TRUE(w.until([&] { return report().state == VerifyState::kDone; })) << report().why;
    EXPECT_EQ(report().done_bytes, bytes_of(more));
    EXPECT_EQ(report().bad_blocks, 0U);
}

struct Questions : testing::Test {
    Questions() { w.start(w.beta); }
    FrameHeader question(FrameType type, std::uint64_t lba, std::uint32_t sectors) {
        FrameHeader h = peer.header(type, (1ULL << 63U) | ++number);
        h.lba = lba;
        h.sector_count = sectors;
        return h;
    }
    Result<Frame> ask(FrameHeader h, FrameType answer) {
        const auto once = [](FakePeer& p, FrameHeader header, FrameType type) -> Task<Result<Frame>> {
            CO_TRY_VOID(co_await p.send(header));
            co_return co_await p.read_until(type);
        };
        return peer.run(once(peer, h, answer));
    }
    std::string refusal(FrameHeader h, FrameType answer) {
        const Result<Frame> r = ask(h, answer);
        return r ? "answered" : r.error().message;
    }
    PairWorld w;
    FakePeer peer{w};
    std::uint64_t number = 0;
};

TEST_F(Questions, AreAnsweredOnlyInStepAboutBlocksOfTheVolumeInItsTermAndByWhoHasTheRole) {
    using testing::HasSubstr;
    const auto read = FrameType::kReadRequest;
    const auto reply = FrameType::kReadReply;
    ASSERT_TRUE(peer.run(peer.connect()));
    ASSERT_TRUE(peer.run(peer.pair()));
    EXPECT_THAT(refusal(question(read, 0, 8), reply), HasSubstr("not in step")) << "the target of a resync";
    ASSERT_TRUE(peer.run(peer.end_resync()));
    const Result<Frame> good = ask(question(read, PairWorld::kSectors - 8, 8), reply);
    ASSERT_TRUE(good);
    EXPECT_EQ(good->payload.size(), kBlockBytes);
    EXPECT_THAT(refusal(question(read, PairWorld::kSectors - 8, 16), reply), HasSubstr("beyond volume"));
    EXPECT_THAT(refusal(question(read, ~std::uint64_t{7}, 16), reply), HasSubstr("beyond volume"));
    EXPECT_THAT(refusal(question(read, 0, 0), reply), HasSubstr("beyond volume"));
    EXPECT_THAT(refusal(question(read, 4, 8), reply), HasSubstr("beyond volume"));
    EXPECT_THAT(refusal(question(FrameType::kDigestRequest, 0, 4096), FrameType::kDigestReply), HasSubstr("beyond"));
    EXPECT_THAT(refusal(question(FrameType::kCopyRequest, 0, 8), FrameType::kReply), HasSubstr("not in step"));
    FrameHeader other_term = question(read, 0, 8);
    other_term.term_nonce = 2;
    EXPECT_THAT(refusal(other_term, reply), HasSubstr("another term"));
    ASSERT_TRUE(peer.run(peer.send(peer.header(FrameType::kDigestReply, (1ULL << 63U) | 99U), std::string(16, 'x'))))
        << "to no question";
    w.run_for(1s);
    EXPECT_FALSE(w.beta.env.events().has("peer-lost"));
}

TEST_F(Questions, OfAPeerThatDoesNotReadTheAnswersAreRefusedAfterSome) {
    ASSERT_TRUE(peer.run(peer.connect()));
    ASSERT_TRUE(peer.run(peer.pair()));
    ASSERT_TRUE(peer.run(peer.end_resync()));
    const auto flood = [](Questions& self) -> Task<Result<void>> {
        for (int i = 0; i < 500; ++i) {
            CO_TRY_VOID(co_await self.peer.send(self.question(FrameType::kReadRequest, 0, 2048)));
        }
        co_return Result<void>{};
    };
    ASSERT_TRUE(peer.run(flood(*this)));
    w.run_for(100ms);
    EXPECT_LE(w.beta.env.pool().outstanding_bytes(), 33U << 20U) << "32 answers of 1 MiB";
    std::size_t answered = 0;
    for (int i = 0; i < 500; ++i) {
        const Result<Frame> frame = peer.run(peer.read());
        ASSERT_TRUE(frame) << i;
        answered += frame->header.type == FrameType::kReadReply ? 1 : 0;
    }
    EXPECT_GE(answered, 32U);
    EXPECT_LT(answered, 100U);
}

TEST(BlockDigest, IsTheBeginningOfSha256AndZerosStandForWhatCannotBeRead) {
    sim::HeapPool pool;
    const Buffer memory = *pool.allocate(2 * kBlockBytes);
    const Slice slice = memory.slice(2 * kBlockBytes, Lba(0));
    std::ranges::fill(slice.data(), std::byte{0});
    slice.clear_infos();
    slice.mark(1, BlockStatus::kUnreadable);
    const std::vector<BlockDigest> d = digests_of(slice);
    ASSERT_EQ(d.size(), 2U);
    // sha256sum of 4096 zeros.
    EXPECT_EQ(d[0], (BlockDigest{std::byte{0xad}, std::byte{0x7f}, std::byte{0xac}, std::byte{0xb2}, std::byte{0x58},
                                 std::byte{0x6f}, std::byte{0xc6}, std::byte{0xe9}, std::byte{0x66}, std::byte{0xc0},
                                 std::byte{0x04}, std::byte{0xd7}, std::byte{0xd1}, std::byte{0xd1}, std::byte{0x6b},
                                 std::byte{0x02}}));
    EXPECT_EQ(d[1], kUnreadableDigest);
    EXPECT_EQ(decode_digests(encode_digests(d), 2).value(), d);
    EXPECT_EQ(decode_digests(encode_digests(d), 3).error().code, Errc::kProtocol);
}

}  // namespace
}  // namespace gemel::replication
