// SPDX-License-Identifier: Apache-2.0
// The handshake decision over the cross product of what two sides can be, and by cases.
#include "replication/pair_state.hpp"

#include <gtest/gtest.h>

namespace gemel::replication {
namespace {

PairView side(std::uint32_t node, PairState state, Role role, std::uint64_t generation, std::uint64_t base) {
    PairView v;
    v.node = node;
    v.state = state;
    v.role = role;
    v.generation = generation;
    v.base = base;
    v.incarnation.bytes[0] = static_cast<std::byte>(node);
    v.term = {1, 1};
    return v;
}

Verdict mirror_of(Verdict v) {
    return v == Verdict::kSource ? Verdict::kTarget : (v == Verdict::kTarget ? Verdict::kSource : v);
}

/// Every combination of the fields that the decision looks at.
std::vector<PairView> all_sides(std::uint32_t node) {
    std::vector<PairView> out;
    for (const PairState state :
         {PairState::kPreparing, PairState::kMirrored, PairState::kLogging, PairState::kSevered,
          PairState::kResyncSource, PairState::kResyncTarget, PairState::kSplitBrain, PairState::kNeedFull}) {
        for (const Role role : {Role::kSecondary, Role::kPrimary}) {
            for (const auto& [generation, base] : {std::pair{1, 0}, {2, 1}, {3, 1}, {1, 2}, {4, 5}}) {
                for (unsigned bits = 0; bits < 8; ++bits) {
                    for (const Choice choice : {Choice::kNone, Choice::kThisSide, Choice::kOtherSide}) {
                        PairView v = side(node, state, role, static_cast<std::uint64_t>(generation),
                                          static_cast<std::uint64_t>(base));
                        v.lost_power = (bits & 1U) != 0;
                        v.dirty = (bits & 2U) != 0;
                        v.term.counter = (bits & 4U) != 0 ? 2 : 1;
                        v.choice = choice;
                        out.push_back(v);
                    }
                }
            }
        }
    }
    return out;
}

TEST(Decision, IsMirroredAndNeverTakesAnInconsistentSourceOverTheCrossProduct) {
    const std::vector<PairView> as = all_sides(1);
    const std::vector<PairView> bs = all_sides(2);
    std::size_t moves = 0;
    for (PairView a : as) {
        for (PairView b : bs) {
            for (const bool known : {false, true}) {
                a.knows_peer = known ? b.incarnation : Uuid{};
                b.knows_peer = known ? a.incarnation : Uuid{};
                const Decision mine = decide(a, b);
                const Decision theirs = decide(b, a);
                ASSERT_EQ(mine.verdict, mirror_of(theirs.verdict));
                ASSERT_EQ(mine.full, theirs.full);
                ASSERT_EQ(mine.demote_me, theirs.demote_peer);
                ASSERT_EQ(mine.demote_peer, theirs.demote_me);
                if (mine.verdict == Verdict::kSource) {
                    ++moves;
                    ASSERT_TRUE(consistent(a.state));
                }
                if (mine.verdict == Verdict::kResume || mine.verdict == Verdict::kRestart) {
                    ASSERT_EQ(a.generation, b.generation);
                    ASSERT_TRUE(consistent(a.state) && consistent(b.state));
                    ASSERT_TRUE(mine.verdict == Verdict::kResume || (!a.dirty && !b.dirty));
                }
                if (a.base != 0 && a.base == b.base && a.generation != b.generation && a.choice == Choice::kNone &&
                    b.choice == Choice::kNone) {
                    ASSERT_TRUE(mine.verdict != Verdict::kSource && mine.verdict != Verdict::kTarget) << "PS3";
                }
            }
        }
    }
    EXPECT_GT(moves, 10000U);
}

TEST(Decision, ByCases) {
    struct Case {
        std::string_view what;
        PairView a;
        PairView b;
        Verdict expected;
    };
    constexpr auto kP = Role::kPrimary;
    constexpr auto kS = Role::kSecondary;
    std::vector<Case> cases{
        {"went on alone", side(1, PairState::kLogging, kP, 2, 1), side(2, PairState::kMirrored, kS, 1, 0),
         Verdict::kSource},
        {"peer was promoted alone", side(1, PairState::kMirrored, kP, 1, 0), side(2, PairState::kLogging, kP, 2, 1),
         Verdict::kTarget},
        {"both alone", side(1, PairState::kLogging, kP, 2, 1), side(2, PairState::kLogging, kP, 3, 1),
         Verdict::kSplitBrain},
        {"unrelated", side(1, PairState::kLogging, kP, 2, 1), side(2, PairState::kMirrored, kS, 9, 0),
         Verdict::kRefuse},
        {"interrupted resync", side(1, PairState::kLogging, kP, 2, 1), side(2, PairState::kResyncTarget, kS, 2, 0),
         Verdict::kSource},
        {"severed", side(1, PairState::kSevered, kP, 2, 1), side(2, PairState::kMirrored, kS, 1, 0), Verdict::kIdle},
        {"clean restart", side(1, PairState::kMirrored, kP, 1, 0), side(2, PairState::kMirrored, kS, 1, 0),
         Verdict::kRestart},
        {"need full", side(1, PairState::kNeedFull, kS, 0, 0), side(2, PairState::kMirrored, kP, 1, 0),
         Verdict::kRefuse},
    };
    cases.push_back(cases[6]);
    cases.back().what = "primary lost power with regions marked";
    cases.back().a.dirty = cases.back().a.lost_power = true;
    cases.back().expected = Verdict::kTarget;
    cases.push_back(cases.back());
    cases.back().what = "both lost power: the primary's";
    cases.back().b.lost_power = true;
    cases.back().expected = Verdict::kSource;
    cases.push_back(cases[6]);
    cases.back().what = "same incarnations";
    cases.back().a.dirty = true;
    cases.back().a.knows_peer = cases.back().b.incarnation;
    cases.back().b.knows_peer = cases.back().a.incarnation;
    cases.back().expected = Verdict::kResume;
    cases.push_back(cases[2]);
    cases.back().what = "split brain, operator chose";
    cases.back().b.choice = Choice::kOtherSide;
    cases.back().expected = Verdict::kSource;
    for (const std::uint64_t counter : {1U, 2U, 3U}) {
        cases.push_back(cases[2]);
        cases.back().what = "operator chose a in term 2, b was promoted alone in term " + std::to_string(counter);
        cases.back().a.choice = Choice::kThisSide;
        cases.back().a.term = {2, 7};
        cases.back().b.term = {counter, 9};
        cases.back().expected = counter < 2 ? Verdict::kSource : Verdict::kSplitBrain;
    }
    cases.push_back(cases[6]);
    cases.back().what = "another pair";
    cases.back().a.pair.bytes[0] = std::byte{1};
    cases.back().expected = Verdict::kRefuse;
    for (const Case& c : cases) {
        EXPECT_EQ(decide(c.a, c.b).verdict, c.expected) << c.what << ": " << decide(c.a, c.b).reason;
    }
}

TEST(Decision, NothingIsDecidedWhileWhatASideHasDurablyIsUncertain) {
    for (PairView a : all_sides(1)) {
        PairView b = side(2, PairState::kMirrored, Role::kSecondary, 1, 0);
        b.uncertain = true;
        ASSERT_EQ(decide(a, b).verdict, Verdict::kRefuse);
        a.uncertain = true;
        b.uncertain = false;
        ASSERT_EQ(decide(a, b).verdict, Verdict::kRefuse);
    }
}

}  // namespace
}  // namespace gemel::replication
