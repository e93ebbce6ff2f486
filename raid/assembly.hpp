// SPDX-License-Identifier: Apache-2.0
// Assembly: from what lies on the members to an array: the rules as a pure function, and the reading and formatting.
//
// Rules, in this order:
//   R1  A device holds a member of another array, of another place, or appears twice: refused, nothing changes.
//   R2  The superblock with the highest epoch is the winner.
//   R3  A member that the winner calls failed is stale: not used. If that member was assembled elsewhere since, and
//       calls a member of the winner failed that no rebuild has replaced, the two diverged: refused without force.
//   R4  Blank, damaged and absent members count as missing. Together more than the level tolerates: error.
//   R5  After an unclean stop or during a resync: kNeedsForce if a missing member may have gone on without all that are
//       here. A parity array without one of its members wants force, too, unless its journal names what may be wrong:
//       that is known when the log was read (`hole`). Given once for level 6 without one member, force holds until that
//       resync ends or the next unclean stop.
//   R6  A slot that can be read but does not hold a superblock was torn by a crash: the other one counts. A slot that
//       cannot be read may be the newest one: the member counts as missing. If the others may have missed what it
//       says (epoch of its other slot above the winner's, or the same and the others few): kNeedsForce. A bad sector
//       in a slot does no harm where they can have missed nothing, as the level could not have gone on without them.
//   R7  The places that the config gives do not stand against the newest superblock: a spare that it names as the
//       place's member in sync, or as the device of the place's rebuild, has that place; else a spare of the array that
//       is newer than what lies on the device that the config names, unless it is the target of a replace.
//   R8  The device of the winner's rebuild is used as that (kRebuilding), and counts as missing for R4 and R5. In a
//       replace it is beside the place's member, among the spares; in the place it is not used.
//   R9  A device without two superblocks at its end may have been extended: it is a member by the newest one that is
//       there, or where it, or another member, ends or ended before. Only a superblock of this array counts there.
//   R10 A member, or the device of a rebuild or a replace, whose superblock is older than what the winner says that all
//       had taken (SB5) is an older copy of it, put there while the array was not open: stale, as if the place were
//       missing. Nothing that it holds is used, and force does not change that. Of its slots one that cannot be read
//       (R6) may be the newer one. Where all devices are of the same earlier time none of them says more, and the array
//       is as it was then. A copy that went on elsewhere (R3) does not overrule those that know it by a newer epoch.
// Threads: any executor.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "raid/array.hpp"
#include "raid/level_table.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid {

/// What was found on one device.
struct MemberReading {
    enum class Kind : std::uint8_t { kAbsent, kUnread, kBlank, kDamaged, kUnsupported, kFound };
    Kind kind = Kind::kAbsent;
    std::string name;
    std::string why;        ///< unless kBlank or kFound
    Superblock superblock;  ///< kFound: the newest. kUnread, kDamaged: with an epoch of at least 1 what could be read
    std::uint64_t sectors = 0;  ///< of the device
    SlotPlace newest;           ///< where the superblock was
    bool vacant = false;        ///< both slots at its end were read, and not both hold one
};

struct Finding {
    Severity severity;
    std::string_view id;
    std::string subject;
    std::string cause;
    std::string action;
};

struct Assembly {
    /// Of a replace, and where its superblock is.
    struct Target {
        MemberSpec spec;
        SlotPlace newest;
        std::uint64_t epoch = 0;  ///< of that one
    };
    Superblock winner;
    std::optional<Target> target;         ///< beside its member in sync
    std::vector<MemberState> states;      ///< by place
    std::vector<SlotPlace> slots;         ///< where each member's newest superblock is
    std::vector<SuperblockStamp> stamps;  ///< and which it is
    bool unclean = false;                 ///< the last stop was not clean
    bool resync_unfinished = false;
    bool forced = false;  ///< degraded after an unclean stop, by force
    bool force = false;   ///< the operator allows that
    std::string hole;     ///< why force is wanted if the journal cannot be read; or empty
    bool formatted = false;
    std::vector<Finding> findings;  ///< become events
};

/// The rules R1 to R6, R8 and R10.
Result<Assembly> assemble(const std::vector<MemberReading>& readings, const ArrayConfig& config);

/// What an operator must still correct in the config itself; nothing when it is right.
std::optional<std::string> why_invalid(const ArrayConfig& config);

/// Lays out a new array on devices of so many sectors, one number for each member. Errors: kNoSpace, kInvalidArgument.
Result<Superblock> plan_format(const ArrayConfig& config, const LevelRow& level,
                               std::span<const std::uint64_t> device_sectors, Random& random);

/// Reads both slots of every device. Errors: kResources. REQUIRES: `specs` outlive the task (and `config` below).
Task<Result<std::vector<MemberReading>>> read_members(Environment& env, std::span<const MemberSpec> specs);

/// R9. They are read anew where devices of `sizes` end; what is newer there, or better kept, counts. REQUIRES: one
/// reading for each of `specs`; all outlive the task.
Task<void> look_at_former_ends(Environment& env, const std::string& array, std::vector<SectorCount> sizes,
                               std::span<const MemberSpec> specs, std::vector<MemberReading>& readings);

/// R7. Changes places in `readings`, `spares` and `config`.
std::vector<Finding> place_spares(std::vector<MemberReading>& readings, std::vector<MemberReading>& spares,
                                  ArrayConfig& config);

/// R8, and what else is of use of the spares: those that are blank. `spares`: of config.spares, which get fewer.
void take_spares(Assembly& assembly, const std::vector<MemberReading>& spares, ArrayConfig& config);

/// Refuses a device that holds anything. REQUIRES: `reading` is of it.
Task<Result<void>> require_blank(Environment& env, MemberSpec spec, MemberReading reading);

/// Refuses unless every member is present and blank; then writes the log's and superblock's first state.
Task<Result<Assembly>> format(Environment& env, const ArrayConfig& config, const LevelRow& level,
                              std::vector<MemberReading> readings);

}  // namespace gemel::raid
