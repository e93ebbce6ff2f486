// SPDX-License-Identifier: Apache-2.0
// Deliberate bugs, each behind a switch that only tests can turn on: the simulator must find every one of them.
// In builds without GEMEL_TEST_SWITCHES active() is constant false and the code behind it is gone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gemel {

enum class TestSwitch : std::uint8_t {
    kNone,
    kAckBeforePeer,    ///< acknowledge the host before the peer's reply
    kTrackBitLate,     ///< changed-track bit durable only before the acknowledgement, not before the copy changes
    kClearBitEarly,    ///< clear a bit before the resync write is durable
    kSkipFlushOneLeg,  ///< flush only the local leg
    kNoIntervalLock,   ///< overlapping writes not serialised
    kVerifyUnlocked,   ///< copies are compared while they are written

    kJournalOneCopy,          ///< a log page on one member only
    kJournalWriteFirst,       ///< members written without waiting for the record
    kJournalNoFlush,          ///< stripes dropped without a flush of the members
    kJournalOmitInUse,        ///< a checkpoint omits stripes that writes are using
    kJournalStaysListed,      ///< a stripe that a checkpoint dropped counts as listed
    kJournalLateFlush,        ///< the checkpoint is durable before the flush
    kJournalSkipNewest,       ///< recovery ignores the newest record
    kJournalForgetUntrusted,  ///< a checkpoint omits columns whose redundancy is wrong
    kJournalNoLateAdds,       ///< a checkpoint omits what was recorded while it was made
    kMapLate,                 ///< stripes dropped before their checksums are on the members
    kMapBlind,                ///< reads are not compared with the checksum map
    kMapTrustedLate,          ///< a resync trusts columns without setting their checksums
    kJournalShortBox,         ///< an entry names only the first column of what is written

    kRedoWriteFirst,         ///< members written before their redo record is durable
    kRedoSkipNewest,         ///< a start does not do the newest redo record again
    kRedoNoFlush,            ///< redo records dropped without a flush of the members
    kPartialWriteFirst,      ///< members written before their partial parity is durable
    kPartialForgetful,       ///< partial parity leaves out strips of which older writes are not flushed yet
    kPartialUnflushed,       ///< logged writes go onto columns whose listed writes are not flushed yet
    kPartialGuesses,         ///< parity tells a block of a missing member although others were written with it
    kPartialUnnamed,         ///< writes begin before the journal names what a start could not tell
    kScrubUntrusted,         ///< a scrub judges, and makes up blocks from, redundancy that may be wrong
    kScrubUnlocked,          ///< a scrub reads and writes a stripe without its lock
    kScrubNotResumed,        ///< a scrub that a restart cut short does not go on
    kReplaceWritesOwnOnly,   ///< writes of a place that is replaced do not go to the target
    kReplaceNoFlush,         ///< the place is given to the target without a flush
    kReplaceBelievesCursor,  ///< a start does not copy again where a crash may have left the two devices different
    kGrowIntoAreas,          ///< data that was added lies behind the old data, where the areas are
    kGrowTrusted,            ///< redundancy of columns that were added counts as right
    kGrowSlotsStay,          ///< the slots stay where a device ended before it was extended
    kFailureUnrecorded,      ///< acknowledged although a failed member is not durably noted as such
    kLastCopyFailed,         ///< a member is failed that the level cannot spare
    kUncleanLate,            ///< the superblock says unclean only after the first write
    kCleanNoFlush,           ///< the superblock says clean without a flush of the members
    kSlotInPlace,            ///< a superblock overwrites the newest one
    kMissingUnmarked,        ///< members missing at a start are not marked failed when something is written
    kStaleTakenBack,         ///< a member that the superblock calls failed is used again
    kOlderCopyTaken,         ///< a member whose superblock is older than it must be is used
    kTakenAhead,             ///< a superblock says that all members have taken it
    kChangeUnsettled,        ///< a change counts before a superblock says that all members have taken it
    kResyncCursorAhead,      ///< a clean stop says that an unfinished resync has seen everything
    kNoStripeLock,           ///< a part of a stripe is written without the stripe's lock
    kUntrustedParity,        ///< parity of untrusted columns makes up what is read
    kCarriedTrusted,         ///< parity that was carried along counts as right
    kUnequalLegs,            ///< a read takes any leg where legs may differ
    kTornPage,               ///< recovery of the log takes a page that does not match its checksum
    kNewestBatchFew,         ///< a batch that a crash left on few members is not completed
    kRebuildMissesWrites,    ///< writes do not go to the leg that is rebuilt
    kUnbuiltRead,            ///< a stripe that is not on the device yet is read from it
    kRebuildGuesses,         ///< what a rebuild cannot make up is not listed as unreadable
    kRebuildCursorEarly,     ///< the rebuild's cursor is durable before what it says is on the device
    kRebuildNoLog,           ///< a rebuilt member is in sync without the durable log
    kForcedRebuildGoesOn,    ///< a forced start trusts what a rebuild had done before it
    kUnreadableForgotten,    ///< a start forgets which blocks are unreadable
    kCacheOutlivesWrite,     ///< the stripe cache keeps blocks that a part of a stripe has overwritten
    kCacheOutlivesRepair,    ///< the stripe cache keeps what whole stripes, repairs, resyncs have overwritten
    kMissedLate,             ///< members change before the missed extents that name it are durable
    kMissedInFlight,         ///< the missed extents of a member begin empty, without what it may have lost
    kMissedUnbarred,         ///< what a member holds that came back changes under writes
    kMissedUnlisted,         ///< missed extents are emptied while writes that the journal does not list are under way
    kGivesBackUnseen,        ///< what a discard writes gives its space back, zeros or not
    kMissedKept,             ///< the missed extents of a member go on when another device is built in its place
};

struct TestSwitchRow {
    TestSwitch id;
    std::string_view name;
    std::string_view area;
};
inline constexpr std::array kTestSwitches{
    TestSwitchRow{TestSwitch::kAckBeforePeer, "ack-before-peer", "replication"},
    TestSwitchRow{TestSwitch::kTrackBitLate, "track-bit-late", "replication"},
    TestSwitchRow{TestSwitch::kClearBitEarly, "clear-bit-early", "replication"},
    TestSwitchRow{TestSwitch::kSkipFlushOneLeg, "skip-flush-one-leg", "replication"},
    TestSwitchRow{TestSwitch::kNoIntervalLock, "no-interval-lock", "replication"},
    TestSwitchRow{TestSwitch::kVerifyUnlocked, "verify-unlocked", "replication"},
    TestSwitchRow{TestSwitch::kJournalOneCopy, "journal-one-copy", "raid"},
    TestSwitchRow{TestSwitch::kJournalWriteFirst, "journal-write-first", "raid"},
    TestSwitchRow{TestSwitch::kJournalNoFlush, "journal-no-flush", "raid"},
    TestSwitchRow{TestSwitch::kJournalOmitInUse, "journal-omit-in-use", "raid"},
    TestSwitchRow{TestSwitch::kJournalStaysListed, "journal-stays-listed", "raid"},
    TestSwitchRow{TestSwitch::kJournalLateFlush, "journal-late-flush", "raid"},
    TestSwitchRow{TestSwitch::kJournalSkipNewest, "journal-skip-newest", "raid"},
    TestSwitchRow{TestSwitch::kJournalForgetUntrusted, "journal-forget-untrusted", "raid"},
    TestSwitchRow{TestSwitch::kJournalNoLateAdds, "journal-no-late-adds", "raid"},
    TestSwitchRow{TestSwitch::kMapLate, "map-late", "raid"},
    TestSwitchRow{TestSwitch::kMapBlind, "map-blind", "raid"},
    TestSwitchRow{TestSwitch::kMapTrustedLate, "map-trusted-late", "raid"},
    TestSwitchRow{TestSwitch::kJournalShortBox, "journal-short-box", "raid"},
    TestSwitchRow{TestSwitch::kRedoWriteFirst, "redo-write-first", "raid"},
    TestSwitchRow{TestSwitch::kRedoSkipNewest, "redo-skip-newest", "raid"},
    TestSwitchRow{TestSwitch::kRedoNoFlush, "redo-no-flush", "raid"},
    TestSwitchRow{TestSwitch::kPartialWriteFirst, "partial-write-first", "raid"},
    TestSwitchRow{TestSwitch::kPartialForgetful, "partial-forgetful", "raid"},
    TestSwitchRow{TestSwitch::kPartialUnflushed, "partial-unflushed", "raid"},
    TestSwitchRow{TestSwitch::kPartialGuesses, "partial-guesses", "raid"},
    TestSwitchRow{TestSwitch::kPartialUnnamed, "partial-unnamed", "raid"},
    TestSwitchRow{TestSwitch::kScrubUntrusted, "scrub-untrusted", "raid"},
    TestSwitchRow{TestSwitch::kScrubUnlocked, "scrub-unlocked", "raid"},
    TestSwitchRow{TestSwitch::kScrubNotResumed, "scrub-not-resumed", "raid"},
    TestSwitchRow{TestSwitch::kReplaceWritesOwnOnly, "replace-writes-own-only", "raid"},
    TestSwitchRow{TestSwitch::kReplaceNoFlush, "replace-no-flush", "raid"},
    TestSwitchRow{TestSwitch::kReplaceBelievesCursor, "replace-believes-cursor", "raid"},
    TestSwitchRow{TestSwitch::kGrowIntoAreas, "grow-into-areas", "raid"},
    TestSwitchRow{TestSwitch::kGrowTrusted, "grow-trusted", "raid"},
    TestSwitchRow{TestSwitch::kGrowSlotsStay, "grow-slots-stay", "raid"},
    TestSwitchRow{TestSwitch::kFailureUnrecorded, "failure-unrecorded", "raid"},
    TestSwitchRow{TestSwitch::kLastCopyFailed, "last-copy-failed", "raid"},
    TestSwitchRow{TestSwitch::kUncleanLate, "unclean-late", "raid"},
    TestSwitchRow{TestSwitch::kCleanNoFlush, "clean-no-flush", "raid"},
    TestSwitchRow{TestSwitch::kSlotInPlace, "slot-in-place", "raid"},
    TestSwitchRow{TestSwitch::kMissingUnmarked, "missing-unmarked", "raid"},
    TestSwitchRow{TestSwitch::kStaleTakenBack, "stale-taken-back", "raid"},
    TestSwitchRow{TestSwitch::kOlderCopyTaken, "older-copy-taken", "raid"},
    TestSwitchRow{TestSwitch::kTakenAhead, "taken-ahead", "raid"},
    TestSwitchRow{TestSwitch::kChangeUnsettled, "change-unsettled", "raid"},
    TestSwitchRow{TestSwitch::kResyncCursorAhead, "resync-cursor-ahead", "raid"},
    TestSwitchRow{TestSwitch::kNoStripeLock, "no-stripe-lock", "raid"},
    TestSwitchRow{TestSwitch::kUntrustedParity, "untrusted-parity", "raid"},
    TestSwitchRow{TestSwitch::kCarriedTrusted, "carried-trusted", "raid"},
    TestSwitchRow{TestSwitch::kUnequalLegs, "unequal-legs", "raid"},
    TestSwitchRow{TestSwitch::kTornPage, "torn-page", "raid"},
    TestSwitchRow{TestSwitch::kNewestBatchFew, "newest-batch-few", "raid"},
    TestSwitchRow{TestSwitch::kRebuildMissesWrites, "rebuild-misses-writes", "raid"},
    TestSwitchRow{TestSwitch::kUnbuiltRead, "unbuilt-read", "raid"},
    TestSwitchRow{TestSwitch::kRebuildGuesses, "rebuild-guesses", "raid"},
    TestSwitchRow{TestSwitch::kRebuildCursorEarly, "rebuild-cursor-early", "raid"},
    TestSwitchRow{TestSwitch::kRebuildNoLog, "rebuild-no-log", "raid"},
    TestSwitchRow{TestSwitch::kForcedRebuildGoesOn, "forced-rebuild-goes-on", "raid"},
    TestSwitchRow{TestSwitch::kUnreadableForgotten, "unreadable-forgotten", "raid"},
    TestSwitchRow{TestSwitch::kCacheOutlivesWrite, "cache-outlives-write", "raid"},
    TestSwitchRow{TestSwitch::kCacheOutlivesRepair, "cache-outlives-repair", "raid"},
    TestSwitchRow{TestSwitch::kMissedLate, "missed-late", "raid"},
    TestSwitchRow{TestSwitch::kMissedInFlight, "missed-in-flight", "raid"},
    TestSwitchRow{TestSwitch::kMissedUnbarred, "missed-unbarred", "raid"},
    TestSwitchRow{TestSwitch::kMissedUnlisted, "missed-unlisted", "raid"},
    TestSwitchRow{TestSwitch::kGivesBackUnseen, "gives-back-unseen", "raid"},
    TestSwitchRow{TestSwitch::kMissedKept, "missed-kept", "raid"},
};

#ifdef GEMEL_TEST_SWITCHES
inline TestSwitch active_test_switch = TestSwitch::kNone;
inline bool active(TestSwitch s) {
    return active_test_switch == s;
}
#else
constexpr bool active(TestSwitch /*s*/) {
    return false;
}
#endif

}  // namespace gemel
