// SPDX-License-Identifier: Apache-2.0
// What a scrub finds: of one stripe, and of the whole array so far.
// Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "gemel/units.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

enum class ScrubMode : std::uint8_t {
    kCheck,   ///< blocks that cannot be read are written anew, as by any read; mismatches are only counted
    kRepair,  ///< mismatches are made right, too
};

/// Blocks that lie together and contradict their redundancy in the same way.
struct ScrubFault {
    std::optional<std::uint32_t> member;  ///< whose blocks are wrong; nothing: the redundancy cannot tell
    Lba member_lba;                       ///< the same on all members that take part
    SectorCount sectors;
    std::optional<Lba> lba;  ///< of the array's data, of the first data strip if no member is told; nothing: parity
    friend bool operator==(const ScrubFault&, const ScrubFault&) = default;
};

/// In blocks of 4 KiB, one of each member that takes part.
struct ScrubCounts {
    std::uint64_t checked = 0;     ///< compared with their redundancy
    std::uint64_t mismatched = 0;  ///< of these: contradict it
    std::uint64_t repaired = 0;    ///< of these: agree now
    std::uint64_t rewritten = 0;   ///< blocks of one member that could not be read and were written anew
    std::uint64_t unreadable = 0;  ///< more could not be read than redundancy makes up
    std::uint64_t unchecked = 0;   ///< nothing was left to compare, or the stripe could not be read for now
    std::uint64_t untrusted = 0;   ///< redundancy that is known to be possibly wrong: the resync's, or lost
    void add(const ScrubCounts& more) {
        checked += more.checked;
        mismatched += more.mismatched;
        repaired += more.repaired;
        rewritten += more.rewritten;
        unreadable += more.unreadable;
        unchecked += more.unchecked;
        untrusted += more.untrusted;
    }
};

struct StripeFindings {
    ScrubCounts counts;
    std::vector<ScrubFault> faults;
    /// A block: it joins the one before it of the same member.
    void add(const ScrubFault& fault) {
        for (ScrubFault& f : faults) {
            if (f.member == fault.member && f.member_lba + f.sectors.value == fault.member_lba) {
                f.sectors += fault.sectors.value;
                return;
            }
        }
        faults.push_back(fault);
    }
    /// Where one block is bad its neighbours may be, too.
    [[nodiscard]] bool hit() const { return counts.mismatched + counts.rewritten + counts.unreadable > 0; }
};

struct ScrubReport {
    enum class End : std::uint8_t { kRunning, kFinished, kCancelled, kInterrupted };

    ScrubMode mode = ScrubMode::kCheck;
    End end = End::kRunning;
    std::int64_t began_unix_ns = 0;  ///< of this run: since the daemon's start if it went on then
    std::int64_t ended_unix_ns = 0;
    std::uint64_t begun_at_column = 0;     ///< where this run went on; 0: it saw everything
    std::uint64_t mismatched_earlier = 0;  ///< by the runs before it of the same scrub
    ScrubCounts counts;
    std::array<std::uint64_t, kMaxMembers> wrong_blocks{};  ///< by member, where known
    std::vector<ScrubFault> faults;                         ///< the first kMostFaults
};

/// Addresses that a report keeps.
inline constexpr std::size_t kMostFaults = 32;

}  // namespace gemel::raid
