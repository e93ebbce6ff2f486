// SPDX-License-Identifier: Apache-2.0
// The handshake decision: what two sides of a pair do, from both superblocks alone.
//
// Invariants:
//   PS1 decide(a, b) and decide(b, a) are mirror images: never two sources, never two targets (I-18).
//   PS2 A copy that is not consistent is never a source.
//   PS3 Without an operator's word no data moves when both sides were written alone.
//   PS4 Nothing is decided while what a side has durably is uncertain. So a pair that has a consistent copy keeps one:
//       a side records that it is inconsistent only under a decision for which the other side showed itself consistent
//       and certain, hence durably so. The other side can only become inconsistent under a later decision, for which
//       this side must show itself consistent and certain: after its record was written it is not the former, after
//       one that failed (and may be durable) not the latter, and while one is being written it shows nothing
//       (Mirror::transition_). A restart shows what is durable.
// Threads: any; pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "gemel/bytes.hpp"
#include "replication/replicator.hpp"

namespace gemel::replication {

/// A promotion number. Two nodes promoted apart may reach the same counter; the nonce tells them apart.
struct Term {
    std::uint64_t counter = 0;
    std::uint64_t nonce = 0;
    friend auto operator<=>(const Term&, const Term&) = default;
};

/// Direction that an operator named (re-establish); kept durably until the copy has begun.
enum class Choice : std::uint8_t { kNone, kThisSide, kOtherSide };

/// One side as the other sees it.
struct PairView {
    Uuid pair;
    std::uint64_t sectors = 0;          ///< agreed size
    std::uint64_t pending_sectors = 0;  ///< prepared by a resize, 0: none
    std::uint64_t device_sectors = 0;   ///< what the volume below can hold
    std::uint64_t generation = 0;       ///< names the content
    std::uint64_t base = 0;             ///< generation at which this side went on alone; 0: it did not
    Term term;
    PairState state = PairState::kUnpaired;
    Role role = Role::kSecondary;
    bool lost_power = false;  ///< since the copies were last equal
    bool dirty = false;       ///< a region or track is marked
    bool uncertain = false;   ///< what is durable may differ from all of this: a record failed
    Choice choice = Choice::kNone;
    Uuid incarnation;            ///< of this side's daemon
    Uuid knows_peer;             ///< of the other side's daemon in the last stream; nil: none
    std::uint64_t received = 0;  ///< in that stream
    std::uint64_t sent = 0;
    std::uint64_t round = 0;
    std::uint32_t node = 0;  ///< id of the node; only breaks ties
};

enum class Verdict : std::uint8_t {
    kResume,   ///< same stream goes on: held frames are sent again
    kRestart,  ///< copies are equal: a new stream
    kSource,   ///< I copy marked tracks to the peer
    kTarget,
    kSplitBrain,
    kIdle,  ///< severed: nothing until re-establish
    kRefuse,
};

struct Decision {
    Verdict verdict = Verdict::kRefuse;
    bool full = false;       ///< every track, not only the marked ones
    bool demote_me = false;  ///< the other side is the newer primary
    bool demote_peer = false;
    std::string reason;
};

[[nodiscard]] Decision decide(const PairView& mine, const PairView& theirs);

/// True in states whose data is a usable image by itself.
[[nodiscard]] constexpr bool consistent(PairState state) {
    return state == PairState::kMirrored || state == PairState::kLogging || state == PairState::kSevered ||
           state == PairState::kResyncSource || state == PairState::kSplitBrain;
}

}  // namespace gemel::replication
