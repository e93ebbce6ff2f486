// SPDX-License-Identifier: Apache-2.0
// What a peer that greets properly may do to a node: it costs little memory and never gets a wrong answer.
#include <gtest/gtest.h>

#include "tests/unit/replication/fake_peer.hpp"

namespace gemel::replication {
namespace {

constexpr std::size_t kWindowFrames = (256U << 10U) / kHeaderBytes;  // what one direction of the network holds

struct HostilePeer : testing::Test {
    HostilePeer() { world.start(world.beta); }
    /// How many frames were taken from a peer that sends `frames` of them within 10 s and reads nothing.
    std::size_t flood(FrameHeader header, std::size_t frames) {
        const auto send = [](FakePeer& from, FrameHeader h, std::size_t limit, std::size_t& sent) -> Task<void> {
            while (sent < limit && co_await from.send(h)) {
                ++sent;
            }
        };
        std::size_t sent = 0;
        world.scheduler.start(world.alpha.home, send(peer, header, frames, sent));
        world.run_for(10s);
        if (sent < frames) {
            peer.close();
            world.run_for(10ms);
        }
        return sent;
    }
    PairWorld world;
    FakePeer peer{world};
};

TEST_F(HostilePeer, PingsOfAPeerThatDoesNotReadAreAnsweredOneAtATime) {
    ASSERT_TRUE(peer.run(peer.connect()));
    FrameHeader ping;
    ping.type = FrameType::kPing;
    EXPECT_EQ(flood(ping, 20'000), 20'000U) << "a pong that waits holds no ping back";
    const std::vector<Frame> answers = peer.run(peer.read_to_end());
    EXPECT_GT(answers.size(), 100U);
    EXPECT_LE(answers.size(), kWindowFrames + 10);
}

TEST_F(HostilePeer, APeerThatAsksAndReadsNothingIsReadNoFurtherAndThenGivenUp) {
    ASSERT_TRUE(peer.run(peer.connect()));
    const std::size_t sent = flood(peer.header(FrameType::kPairState), 100'000);
    EXPECT_GE(sent, kMaxControlQueued);
    EXPECT_LE(sent, kMaxControlQueued + 3 * kWindowFrames);
    ASSERT_EQ(world.beta.env.events().count("peer-lost"), 1U);
    ASSERT_TRUE(peer.run(peer.connect())) << "a better peer is heard";
    ASSERT_TRUE(peer.run(peer.pair()));
}

TEST_F(HostilePeer, AskingWithoutWaitingForTheAnswerEndsTheConnection) {
    ASSERT_TRUE(peer.run(peer.connect()));
    ASSERT_TRUE(peer.run(peer.pair()));
    EXPECT_LT(flood(peer.header(FrameType::kResyncBegin), 100'000), 50'000U);
}

TEST_F(HostilePeer, AFrameThatCouldNotBeAppliedIsNeverAnsweredAsApplied) {
    constexpr std::uint64_t kFrames = 3000;
    ASSERT_TRUE(peer.run(peer.connect()));
    ASSERT_TRUE(peer.run(peer.pair()));
    world.beta.disk.die();
    const auto attack = [](FakePeer& from) -> Task<void> {
        for (const std::uint16_t flags : {std::uint16_t{0}, kFlagQuery}) {
            for (std::uint64_t sequence = 1; sequence <= kFrames; ++sequence) {
                FrameHeader h = from.header(FrameType::kDiscard, sequence);
                h.sector_count = 8;
                h.flags = flags;
                if (!co_await from.send(h)) {
                    co_return;
                }
            }
        }
    };
    peer.run(attack(peer));
    std::size_t errors = 0;
    for (const Frame& frame : peer.run(peer.read_to_end())) {
        ASSERT_NE(frame.header.type, FrameType::kReply) << frame.header.sequence;
        errors += frame.header.type == FrameType::kErrorReply ? 1 : 0;
    }
    EXPECT_GE(errors, 100U);
    EXPECT_LE(errors, 1024U);
    EXPECT_EQ(world.beta.env.events().count("peer-lost"), 1U);
}

}  // namespace
}  // namespace gemel::replication
