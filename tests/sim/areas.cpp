// SPDX-License-Identifier: Apache-2.0
// The areas of the simulator: one row each, with the states that a run of a thousand histories must have reached.
// Threads: any.
#include <array>

#include "tests/sim/history.hpp"
#include "tests/sim/raid_world.hpp"
#include "tests/sim/replication_world.hpp"

namespace gemel::sim {

namespace {

constexpr std::array<std::string_view, 92> kRaidStates{
    "older copy of a member",
    "older copy in a replace",
    "array grown",
    "array grown again",
    "grow interrupted",
    "volume grown",
    "disks extended while the array was not open",
    "member goes away",
    "member lost right after a rebuild",
    "stop with commands under way",
    "member catches up",
    "silent corruption",
    "silent corruption found",
    "silent corruption repaired",
    "single copy rotten and found",
    "single copies scrubbed",
    "redundancy without checksums",
    "checksums of redundancy switched",
    "level single",
    "level linear",
    "level 6",
    "level 10",
    "4Kn members",
    "level 0",
    "level 1",
    "level 5",
    "1 shard",
    "4 shards",
    "two volumes",
    "write overlapping one in flight",
    "member lost",
    "two members of level 10 lost",
    "two members of level 6 lost",
    "reads and writes without two members of level 6",
    "crash without two members of level 6",
    "degraded crash",
    "degraded crash needs force",
    "stale member refused",
    "latent error",
    "rebuild interrupted",
    "rebuild finished after crash",
    "second failure in a rebuild",
    "rebuild onto a spare that the config does not place",
    "stale member rebuilt",
    "member rebuilt",
    "spare, or the old member, quicker than the operator",
    "resync after unclean stop",
    "resync interrupted",
    "crash while opening",
    "crash right after an event",
    "stop right after an event",
    "clean restart",
    "views compared",
    "views without two members compared",
    "policy resync",
    "policy journal",
    "policy ppl",
    "partial parity used",
    "partial parity recorded",
    "degraded crash with partial parity",
    "hot write",
    "block from the stripe cache",
    "cold batch",
    "set full",
    "clean record",
    "checkpoint interrupted",
    "member lost in a crash",
    "degraded crash with journal",
    "recovery interrupted",
    "policy redo",
    "redo replayed",
    "crash after the redo log was off again",
    "degraded crash of a logged array",
    "degraded crash lost nothing",
    "member hangs",
    "member failed for its silence",
    "work went on over an I/O that hangs",
    "silent member answered too late",
    "read went around a silent member",
    "last copy silent",
    "silent member refused",
    "scrub finished",
    "scrub beside writes of hosts",
    "scrub interrupted by a crash and resumed",
    "scrub cancelled",
    "scrub waited for a resync",
    "latent error rewritten by a scrub",
    "rotten blocks repaired by a scrub",
    "replace finished",
    "replace interrupted by a crash",
    "old member failed in a replace",
    "target failed in a replace",
};

constexpr std::array<std::string_view, 40> kReplicationStates{
    "write overlapping one in flight",
    "primary crashed with writes in flight",
    "resync running",
    "resync interrupted",
    "resumed without resync",
    "went on alone",
    "host waited for the peer",
    "primary waits for its peer",
    "primary lost power, its peer did not",
    "both lost power",
    "peer's array failed",
    "promoted with contact",
    "promoted without contact",
    "promotion with an unknown outcome",
    "split brain refused",
    "split brain resolved",
    "severed",
    "re-established",
    "resized",
    "images compared",
    "member failed under the primary",
    "member failed under the secondary",
    "bad sectors under the primary",
    "bad sectors under the secondary",
    "degraded node crashed",
    "degraded node restarted",
    "disk error during a start",
    "start stopped by a disk error",
    "crash within establish",
    "crash within promote",
    "crash within promote --force",
    "crash within sever",
    "crash within re-establish",
    "crash within resize",
    "verify among faults",
    "verify finished among faults",
    "difference repaired",
    "secondary's block lost among faults",
    "block healed from the peer",
    "unreadable block of the secondary repaired",
};

constexpr std::array<std::string_view, 21> kRaidClasses{
    "relapses",         "busy-stops",   "ambushes",     "wandering", "beyond",       "member-faults",
    "media-faults",     "slowness",     "power-cuts",   "kills",     "lies",         "rests",
    "operator",         "discards",     "flushes",      "reads",     "stripe-cache", "growth",
    "single-checksums", "older-copies", "no-checksums",
};
constexpr std::array<std::string_view, 8> kReplicationClasses{
    "member-faults", "start-faults", "crash-operations", "operator", "discards", "flushes", "reads", "verify",
};

constexpr std::array kAreas{
    Area{"raid", run_raid_history, kRaidStates, kRaidClasses},
    Area{"replication", run_replication_history, kReplicationStates, kReplicationClasses},
};

}  // namespace

std::span<const Area> areas() {
    return kAreas;
}

}  // namespace gemel::sim
