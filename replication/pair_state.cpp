// SPDX-License-Identifier: Apache-2.0
#include "replication/pair_state.hpp"

#include <array>

namespace gemel::replication {

namespace {

struct StateName {
    PairState state;
    std::string_view name;
};
constexpr std::array kStateNames{
    StateName{PairState::kUnpaired, "unpaired"},
    StateName{PairState::kPreparing, "preparing"},
    StateName{PairState::kMirrored, "mirrored"},
    StateName{PairState::kLogging, "logging"},
    StateName{PairState::kSevered, "severed"},
    StateName{PairState::kResyncSource, "resync-source"},
    StateName{PairState::kResyncTarget, "resync-target"},
    StateName{PairState::kSplitBrain, "split-brain"},
    StateName{PairState::kNeedFull, "need-full"},
};

Decision of(Verdict verdict, std::string reason = {}) {
    Decision d;
    d.verdict = verdict;
    d.reason = std::move(reason);
    return d;
}

Decision source_is(bool me, bool full = false) {
    Decision d = of(me ? Verdict::kSource : Verdict::kTarget);
    d.full = full;
    return d;
}

/// +1: this side was named as the source, -1: the other, 0: nobody named one, 2: they contradict each other.
int chosen(const PairView& mine, const PairView& theirs) {
    const auto vote = [](Choice c, int self) {
        return c == Choice::kNone ? 0 : (c == Choice::kThisSide ? self : -self);
    };
    const int a = vote(mine.choice, 1);
    const int b = vote(theirs.choice, -1);
    if (a != 0 && b != 0 && a != b) {
        return 2;
    }
    const int word = a != 0 ? a : b;
    const PairView& winner = word > 0 ? mine : theirs;
    const PairView& loser = word > 0 ? theirs : mine;
    // A choice counts only against what it was made against. It takes a term above all that was known then: a primary
    // that goes alone in a term not below it was promoted since, and what it acknowledged is nobody's to give up.
    const bool overtaken = word != 0 && loser.choice == Choice::kNone && loser.role == Role::kPrimary &&
                           loser.base != 0 && loser.term != winner.term && loser.term.counter >= winner.term.counter;
    return overtaken ? 0 : word;
}

/// Equal generations: the copies hold the same data but for marked regions and tracks.
Decision equal_generations(const PairView& mine, const PairView& theirs) {
    const bool mine_ok = consistent(mine.state);
    const bool theirs_ok = consistent(theirs.state);
    if (!mine_ok && !theirs_ok) {
        return of(Verdict::kRefuse, "neither copy is consistent; re-establish with --from and --force");
    }
    if (mine_ok != theirs_ok) {
        return source_is(mine_ok);
    }
    const bool same_stream = mine.knows_peer == theirs.incarnation && theirs.knows_peer == mine.incarnation &&
                             mine.state == PairState::kMirrored && theirs.state == PairState::kMirrored;
    if (same_stream) {
        return of(Verdict::kResume);
    }
    if (!mine.dirty && !theirs.dirty) {
        return of(Verdict::kRestart);
    }
    if (mine.lost_power != theirs.lost_power) {
        return source_is(!mine.lost_power);
    }
    if (mine.role != theirs.role && mine.term == theirs.term) {
        return source_is(mine.role == Role::kPrimary);
    }
    if (mine.term != theirs.term) {
        return source_is(mine.term > theirs.term);
    }
    if (mine.dirty != theirs.dirty) {
        return source_is(mine.dirty);
    }
    return source_is(mine.node < theirs.node);
}

/// What an operator's word allows: any direction from a consistent side; full where no common base is known.
Decision operator_decides(const PairView& mine, const PairView& theirs, bool me) {
    const PairView& source = me ? mine : theirs;
    if (!consistent(source.state)) {
        return of(Verdict::kRefuse, "the side named as the source is not consistent");
    }
    const PairView& target = me ? theirs : mine;
    const bool related = source.generation == target.generation || source.base == target.generation ||
                         source.generation == target.base || (source.base != 0 && source.base == target.base);
    return source_is(me, !related || target.state == PairState::kNeedFull);
}

Decision by_generations(const PairView& mine, const PairView& theirs) {
    if (mine.state == PairState::kNeedFull || theirs.state == PairState::kNeedFull) {
        return of(Verdict::kRefuse, "one side lost its pair metadata; re-establish with --from and --force");
    }
    if (mine.generation == theirs.generation) {
        return equal_generations(mine, theirs);
    }
    const bool i_am_ahead = mine.base != 0 && mine.base == theirs.generation;
    const bool they_are_ahead = theirs.base != 0 && theirs.base == mine.generation;
    if (i_am_ahead != they_are_ahead) {
        const PairView& source = i_am_ahead ? mine : theirs;
        return consistent(source.state) ? source_is(i_am_ahead)
                                        : of(Verdict::kRefuse, "the newer copy is not consistent");
    }
    if (mine.base != 0 && mine.base == theirs.base) {
        return of(Verdict::kSplitBrain, "both sides were written alone; re-establish with --from NODE");
    }
    return of(Verdict::kRefuse, "no common generation; re-establish with --from and --force copies everything");
}

}  // namespace

std::string_view role_name(Role role) {
    return role == Role::kPrimary ? "primary" : "secondary";
}

std::string_view pair_state_name(PairState state) {
    for (const StateName& row : kStateNames) {
        if (row.state == state) {
            return row.name;
        }
    }
    return "unknown";
}

Decision decide(const PairView& mine, const PairView& theirs) {
    if (mine.pair != theirs.pair) {
        return of(Verdict::kRefuse, "the two volumes belong to different pairs");
    }
    if (mine.uncertain || theirs.uncertain) {
        return of(Verdict::kRefuse, "one side's last record failed and may be durable or not; repair its array");
    }
    const int word = chosen(mine, theirs);
    Decision d;
    if (word == 2) {
        d = of(Verdict::kRefuse, "the two sides were told different directions; re-establish again");
    } else if (mine.state == PairState::kSevered || theirs.state == PairState::kSevered) {
        d = of(Verdict::kIdle, "severed");
    } else if (word != 0) {
        d = operator_decides(mine, theirs, word > 0);
    } else {
        d = by_generations(mine, theirs);
    }
    const bool move = d.verdict != Verdict::kSplitBrain && d.verdict != Verdict::kRefuse && d.verdict != Verdict::kIdle;
    if (move && mine.role == Role::kPrimary && theirs.role == Role::kPrimary) {
        // Where data moves, the target's hosts would lose what they see; else the newer promotion wins.
        const bool moves = d.verdict == Verdict::kSource || d.verdict == Verdict::kTarget;
        const bool older = mine.term < theirs.term || (mine.term == theirs.term && mine.node > theirs.node);
        d.demote_me = moves ? d.verdict == Verdict::kTarget : older;
        d.demote_peer = !d.demote_me;
    }
    return d;
}

}  // namespace gemel::replication
