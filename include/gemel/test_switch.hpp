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

    kRedoWriteFirst,  ///< members written before their redo record is durable
    kRedoSkipNewest,  ///< a start does not do the newest redo record again
    kRedoNoFlush,     ///< redo records dropped without a flush of the members
    kRedoStaysValid,  ///< writes that are not logged while redo records are not void
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
    TestSwitchRow{TestSwitch::kRedoStaysValid, "redo-stays-valid", "raid"},
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
