// SPDX-License-Identifier: Apache-2.0
#include "raid/assembly.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/durable_log.hpp"
#include "raid/member_fan.hpp"
#include "raid/stripe.hpp"
#include "raid/volume_table.hpp"

namespace gemel::raid {

namespace {

using Kind = MemberReading::Kind;

std::string subject_of(const ArrayConfig& config, std::size_t place) {
    return "array " + config.name + " member " + std::to_string(place) + " (" + config.members[place].name + ")";
}

/// R1.
Result<void> check_identity(const std::vector<MemberReading>& readings, const ArrayConfig& config) {
    const Superblock* first = nullptr;
    for (std::size_t i = 0; i < readings.size(); ++i) {
        const Superblock& sb = readings[i].superblock;
        if (readings[i].kind == Kind::kUnsupported) {
            return fail(Errc::kUnsupported, subject_of(config, i) + ": " + readings[i].why);
        }
        if (readings[i].kind != Kind::kFound) {
            continue;
        }
        if (sb.array_name != config.name) {
            return fail(Errc::kRefused, subject_of(config, i) + " belongs to array '" + sb.array_name +
                                            "'; correct the config, or wipe the member if its data is not needed");
        }
        if (first != nullptr && sb.array_uuid != first->array_uuid) {
            return fail(Errc::kRefused, subject_of(config, i) + " belongs to another array of the same name (uuid " +
                                            sb.array_uuid.text() + ", not " + first->array_uuid.text() + ")");
        }
        if (sb.members.size() != readings.size()) {
            return fail(Errc::kInvalidArgument, "array " + config.name + " has " + std::to_string(sb.members.size()) +
                                                    " members, but the config names " +
                                                    std::to_string(readings.size()));
        }
        for (std::size_t j = 0; j < i; ++j) {
            if (readings[j].kind == Kind::kFound && readings[j].superblock.member_uuid() == sb.member_uuid()) {
                return fail(Errc::kInvalidArgument, subject_of(config, i) + " and member " + std::to_string(j) + " (" +
                                                        config.members[j].name + ") are the same device");
            }
        }
        if (sb.member_index != i) {
            return fail(Errc::kRefused, subject_of(config, i) + " is member " + std::to_string(sb.member_index) +
                                            " of the array; name the members in their order");
        }
        first = first == nullptr ? &sb : first;
    }
    return {};
}

/// Another member went on without `mine` in an assembly that `mine` knows nothing of, while `mine` wrote nothing. R10:
/// not an older copy of it, which `mine` knows by a newer superblock.
bool overruled(const Superblock& mine, const std::vector<MemberReading>& readings) {
    return std::ranges::any_of(readings, [&](const MemberReading& r) {
        const Superblock& other = r.superblock;
        return r.kind == Kind::kFound && other.epoch >= mine.taken_by_all && other.members[mine.member_index].failed &&
               !mine.members[other.member_index].failed && other.incarnation != mine.incarnation &&
               other.incarnation != mine.previous_incarnation;
    });
}

/// One slot of it was read, but it may be the older one.
bool held_older(const MemberReading& r) {
    return (r.kind == Kind::kUnread || r.kind == Kind::kDamaged) && r.superblock.epoch > 0;
}

/// The members that were found are more than the level could have done without: what took effect is on one of them.
bool found_have_all(const Superblock& winner, const std::vector<MemberReading>& readings) {
    std::uint32_t gone = 0;  // if all that were found had failed since
    for (std::size_t i = 0; i < readings.size(); ++i) {
        gone |= readings[i].kind == Kind::kFound || winner.members[i].failed ? 1U << i : 0;
    }
    return !find_level(winner.level)->tolerates(gone, static_cast<std::uint32_t>(winner.members.size()));
}

/// R10.
bool is_older_copy(const Superblock& held, const Superblock& winner) {
    return held.epoch < winner.taken_by_all && !active(TestSwitch::kOlderCopyTaken);
}

std::string epochs(const Superblock& held, const Superblock& winner) {
    return "its epoch is " + std::to_string(held.epoch) + ", the array's " + std::to_string(winner.epoch);
}

Finding older_copy(std::string subject, const Superblock& held, const Superblock& winner, std::string action) {
    return {Severity::kError, "member-stale", std::move(subject),
            "it is an older copy, as of an image that was restored (" + epochs(held, winner) + "); it is not used",
            std::move(action)};
}

/// R6: a member of which one slot can be read is in sync, whatever the other one says.
bool in_sync_by_other_slot(const Superblock& winner, const std::vector<MemberReading>& readings, std::size_t place) {
    const MemberReading& r = readings[place];
    const Superblock& mine = r.superblock;
    const MemberRecord& record = winner.members[place];
    return r.kind == Kind::kDamaged && held_older(r) && mine.array_uuid == winner.array_uuid &&
           mine.member_index == place && mine.members.size() == winner.members.size() &&
           mine.member_uuid() == record.uuid && !record.failed && mine.epoch <= winner.epoch &&
           mine.epoch + 1 >= winner.taken_by_all && found_have_all(winner, readings);
}

/// R6: the others must not have missed what a member did of which only one slot can be read. At its epoch they have
/// not, if they are more than the level could have done without since.
Result<void> refuse_behind(const Superblock& winner, const std::vector<MemberReading>& readings,
                           const ArrayConfig& config) {
    const std::uint64_t known = winner.epoch + (found_have_all(winner, readings) ? 1 : 0);
    for (std::size_t i = 0; i < readings.size() && !config.force; ++i) {
        const Superblock& other = readings[i].superblock;
        if (held_older(readings[i]) && other.array_uuid == winner.array_uuid && other.epoch >= known) {
            return fail(Errc::kNeedsForce, subject_of(config, i) + " may know of changes that the others missed, but " +
                                               readings[i].why +
                                               ". Repair the device, or start with --force to go on without it");
        }
    }
    return {};
}

/// R2.
const Superblock* choose_winner(const std::vector<MemberReading>& readings) {
    const Superblock* winner = nullptr;
    for (const MemberReading& r : readings) {
        if (r.kind == Kind::kFound && !overruled(r.superblock, readings) &&
            (winner == nullptr || r.superblock.epoch > winner->epoch)) {
            winner = &r.superblock;
        }
    }
    return winner;
}

/// R3. A place that was given to another device since says nothing: only a rebuild makes a failed one good again, and
/// one that was catching up (CU5) has its uuid since that began.
bool diverged(const Superblock& mine, const Superblock& winner) {
    const MemberRecord& record = winner.members[mine.member_index];
    if (mine.incarnation == winner.incarnation || mine.incarnation == record.last_incarnation) {
        return false;
    }
    for (std::size_t j = 0; j < winner.members.size(); ++j) {
        const bool same = mine.members[j].uuid == winner.members[j].uuid;
        const bool returning = mine.rebuilds(j, mine.members[j].uuid);
        if (same && mine.members[j].failed && !winner.members[j].failed && !returning) {
            return true;
        }
    }
    return false;
}

/// R3, R8 and R10 for a device that holds a superblock of the place.
Result<MemberState> judge_found(std::size_t place, const Superblock& held, const ArrayConfig& config, Assembly& out) {
    const MemberRecord& record = out.winner.members[place];
    const std::string subject = subject_of(config, place);
    const bool older = is_older_copy(held, out.winner);
    const bool target = held.target && record.failed && out.winner.rebuilds(place, held.member_uuid());  // R8
    if (target && !older) {
        return MemberState::kRebuilding;
    }
    if (record.uuid != held.member_uuid() && !target) {
        out.findings.push_back({Severity::kWarning, "member-stale", subject,
                                "the place was given to another member since", "replace the member"});
        return MemberState::kStale;
    }
    if ((!record.failed && !older) || active(TestSwitch::kStaleTakenBack)) {
        return MemberState::kInSync;
    }
    if (diverged(held, out.winner) && !config.force) {
        return fail(Errc::kRefused, subject +
                                        " was started without the others, and the others without it; both have "
                                        "changes. Remove the side that is not needed from the config, or start "
                                        "with --force to keep the newest superblock's side");
    }
    if (!record.failed || target) {
        out.findings.push_back(
            older_copy(subject, held, out.winner,
                       "bring the device back as it was and start again, or make it anew with 'gemel array rebuild " +
                           config.name + " " + std::to_string(place) +
                           "'; to take the array back to an earlier time restore all of its members"));
    } else {
        out.findings.push_back({Severity::kWarning, "member-stale", subject,
                                "the array went on without it (" + epochs(held, out.winner) + "); it is not used",
                                "replace or rebuild the member"});
    }
    return MemberState::kStale;
}

/// R3 and R4 for one place.
Result<MemberState> judge(std::size_t place, const MemberReading& reading, const ArrayConfig& config, Assembly& out) {
    const MemberRecord& record = out.winner.members[place];
    const std::string subject = subject_of(config, place);
    switch (reading.kind) {
        case Kind::kAbsent:
        case Kind::kUnread:
            out.findings.push_back(
                {Severity::kWarning, "member-missing", subject, reading.why, "bring the member back, or replace it"});
            break;
        case Kind::kBlank:
            out.findings.push_back({Severity::kWarning, "member-missing", subject,
                                    "the device is blank: it holds no superblock of this array",
                                    "bring the right device back (if it was extended: with the size it had), or "
                                    "replace the member"});
            break;
        case Kind::kDamaged:
            out.findings.push_back({Severity::kError, "member-superblock-damaged", subject,
                                    reading.why + "; the member is treated as missing",
                                    "check the device, then replace the member"});
            break;
        case Kind::kUnsupported:
        case Kind::kFound:
            return judge_found(place, reading.superblock, config, out);
    }
    return record.failed ? MemberState::kFailed : MemberState::kMissing;
}

/// R4 and R5 for all.
Result<void> admit(Assembly& out, const std::vector<MemberReading>& readings, const ArrayConfig& config,
                   const LevelRow& level) {
    std::string lost;
    std::string causes;
    std::uint32_t gone = 0;
    std::uint32_t unknown = 0;  // gone, and in sync as the winner says
    for (std::size_t i = 0; i < out.states.size(); ++i) {
        if (out.states[i] != MemberState::kInSync) {
            gone |= 1U << i;
            unknown |= out.winner.members[i].failed ? 0 : 1U << i;
            lost += (lost.empty() ? "" : ", ") + std::to_string(i) + " (" + config.members[i].name + ", " +
                    std::string(member_state_name(out.states[i])) + ")";
            const bool older = readings[i].kind == Kind::kFound && is_older_copy(readings[i].superblock, out.winner);
            const std::string why = older ? "an older copy of itself (" + epochs(readings[i].superblock, out.winner) +
                                                "); members that are restored must all be of the same time"
                                          : readings[i].why;
            causes += why.empty() ? "" : "; member " + std::to_string(i) + ": " + why;
        }
    }
    const auto members = static_cast<std::uint32_t>(out.states.size());
    if (!level.tolerates(gone, members)) {
        return fail(Errc::kDeviceGone, "array " + config.name + " cannot start: too many members are missing: " + lost +
                                           causes + ". Bring the devices back, or repair them, and start again");
    }
    out.unclean = !out.winner.clean;
    out.resync_unfinished = level.redundant && out.winner.resync_cursor < geometry_of(out.winner).columns();
    out.force = config.force;
    const bool accepted = out.winner.accepted && static_cast<std::uint32_t>(std::popcount(gone)) < level.parities();
    if (gone == 0 || !(out.unclean || (out.resync_unfinished && !accepted))) {
        return {};
    }
    const std::string why = "array " + config.name +
                            (out.unclean ? " was not stopped cleanly" : " was not fully resynced") +
                            " and lacks members " + lost +
                            ": what lay on them may be wrong where writes were in flight. Bring them back, or start "
                            "with --force";
    // A leg that knows of every failure holds every acknowledged write, parity may be half written. Those that are
    // missing may know more than all that are here if they can do without them.
    const std::uint32_t all = members == kMaxMembers ? ~0U : (1U << members) - 1;
    const bool behind = unknown != 0 && level.tolerates(all & ~unknown, members);
    if (!behind && level.parities() > 0 && out.winner.policy == RecoveryPolicy::kJournal) {
        out.hole = why;
    } else if (behind || level.parities() > 0) {
        if (!config.force) {
            return fail(Errc::kNeedsForce, why);
        }
        out.forced = true;
    }
    return {};
}

void compare_with_config(Assembly& out, const ArrayConfig& config) {
    const auto differs = [&](std::string what) {
        out.findings.push_back({Severity::kWarning, "config-differs", "array " + config.name, std::move(what),
                                "the array's own table holds; correct the config"});
    };
    const LevelRow* wanted = find_level(config.level);
    if (wanted != nullptr && wanted->id != out.winner.level) {
        differs("the config says level " + config.level + ", the array is of level " +
                std::string(find_level(out.winner.level)->name));
    }
    if (config.strip_bytes != out.winner.strip_bytes) {
        differs("the config says strips of " + std::to_string(config.strip_bytes) + " bytes, the array has " +
                std::to_string(out.winner.strip_bytes));
    }
    for (const VolumeSpec& spec : config.volumes) {
        const auto v = std::ranges::find(out.winner.volumes, spec.name, &VolumeRecord::name);
        if (v == out.winner.volumes.end()) {
            differs("volume '" + spec.name + "' of the config is not on the array");
        } else if (spec.bytes != 0 && round_up(spec.bytes, kBlockBytes) != bytes_of(v->sectors)) {
            differs("volume '" + spec.name + "' has " + std::to_string(bytes_of(v->sectors)) +
                    " bytes, the config says " + std::to_string(spec.bytes));
        }
    }
}

std::string all_levels() {
    std::string out;
    for (const LevelRow& row : kLevelTable) {
        out += (out.empty() ? "" : ", ") + std::string(row.name);
    }
    return out;
}

}  // namespace

std::optional<std::string> why_invalid(const ArrayConfig& config) {
    const LevelRow* level = find_level(config.level);
    if (config.name.empty() || config.name.size() > kArrayNameBytes) {
        return "array name must have 1 to " + std::to_string(kArrayNameBytes) + " bytes";
    }
    if (level == nullptr) {
        return "array " + config.name + ": unknown level '" + config.level + "'; known are " + all_levels();
    }
    if (!std::has_single_bit(config.strip_bytes) || config.strip_bytes < kBlockBytes || config.strip_bytes > kMiB) {
        return "array " + config.name + ": strip size must be a power of two from 4 KiB to 1 MiB";
    }
    if (!level->fits(config.members.size())) {
        return "array " + config.name + ": level " + config.level + " needs " + member_counts(*level) +
               " members, not " + std::to_string(config.members.size());
    }
    if (config.policy == RecoveryPolicy::kPartial && level->parities() != 1) {
        return "array " + config.name + ": the policy ppl is for level 5, not " + config.level;
    }
    if (config.shards.empty() || std::ranges::count(config.shards, nullptr) > 0) {
        return "array " + config.name + ": no executor to run on";
    }
    if (config.member_timeout < kMinMemberTimeout || config.member_timeout > kMaxMemberTimeout) {
        return "array " + config.name + ": the time that a member has to answer must be 100 ms to 10 min";
    }
    for (std::size_t i = 0; i < config.members.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (config.members[i].device != nullptr && config.members[i].device == config.members[j].device) {
                return "array " + config.name + ": members " + std::to_string(j) + " and " + std::to_string(i) +
                       " are the same device (" + config.members[i].device->name() + ")";
            }
        }
    }
    return std::nullopt;
}

Result<Assembly> assemble(const std::vector<MemberReading>& readings, const ArrayConfig& config) {
    TRY_VOID(check_identity(readings, config));
    const Superblock* winner = choose_winner(readings);
    if (winner == nullptr) {
        std::string seen;
        bool unread = false;
        for (std::size_t i = 0; i < readings.size(); ++i) {
            seen += (i == 0 ? "" : "; ") + config.members[i].name + ": " +
                    (readings[i].kind == Kind::kBlank ? "blank" : readings[i].why);
            unread = unread || held_older(readings[i]);
        }
        if (unread) {
            return fail(Errc::kIo,
                        "array " + config.name + " cannot start: no member's newest superblock can be read (" + seen +
                            "). Repair the device and start again; if the slot named is lost for " + "good, write " +
                            std::to_string(kSuperblockBytes) + " zeros there to start from the other one");
        }
        return fail(Errc::kNotFound, "no member holds array " + config.name + " (" + seen +
                                         "); create = true in the config formats blank members. If its devices were "
                                         "extended since the last start, give them back the size they had");
    }
    TRY_VOID(refuse_behind(*winner, readings, config));
    Assembly out;
    out.winner = *winner;
    for (const MemberReading& r : readings) {
        if (r.kind == Kind::kFound) {
            out.winner.epoch = std::max(out.winner.epoch, r.superblock.epoch);
        }
    }
    for (std::size_t i = 0; i < readings.size(); ++i) {
        MemberState state = MemberState::kInSync;
        if (in_sync_by_other_slot(*winner, readings, i)) {
            out.findings.push_back({Severity::kWarning, "member-superblock-damaged", subject_of(config, i),
                                    readings[i].why + "; the other members have missed nothing, so it is used",
                                    "check the device: it has bad sectors"});
        } else {
            TRY(state, judge(i, readings[i], config, out));
        }
        out.states.push_back(state);
        out.slots.push_back(readings[i].newest);
        out.stamps.push_back(readings[i].superblock.stamp());
        const std::uint64_t end = out.winner.device_end(i);
        const bool used = state == MemberState::kInSync || state == MemberState::kRebuilding;
        if (used && readings[i].sectors < end + 2 * kSuperblockSectors) {
            return fail(Errc::kCorrupt, subject_of(config, i) + " is smaller than its superblock says");
        }
    }
    TRY_VOID(admit(out, readings, config, *find_level(out.winner.level)));
    compare_with_config(out, config);
    return out;
}

namespace {

/// Both slots of one member as they were read.
struct Slots {
    std::array<Result<Superblock>, 2> superblocks{fail(Errc::kNotFound), fail(Errc::kNotFound)};
    std::array<std::optional<Error>, 2> unread;
};

/// R6. What the slots say together. REQUIRES: `out.sectors`.
void interpret(Slots slots, MemberReading& out) {
    out.kind = Kind::kBlank;
    out.newest = {1, SectorCount(out.sectors)};
    out.vacant = !slots.unread[0] && !slots.unread[1] && !(slots.superblocks[0] && slots.superblocks[1]);
    for (std::uint64_t i = 0; i < 2; ++i) {
        Result<Superblock>& found = slots.superblocks[i];
        if (found && (out.kind != Kind::kFound || found->epoch > out.superblock.epoch)) {
            out.kind = Kind::kFound;
            out.superblock = *std::move(found);
            out.newest.slot = i;
        } else if (!found && out.kind != Kind::kFound && found.error().code != Errc::kNotFound) {
            out.kind = Kind::kDamaged;
            out.why = "both superblock slots are unusable: " + found.error().message;
        }
    }
    for (std::uint64_t i = 0; i < 2; ++i) {
        const Result<Superblock>& found = slots.superblocks[i];
        if (!found && found.error().code == Errc::kUnsupported) {
            out.kind = Kind::kUnsupported;
            out.why = found.error().message;
            return;
        }
        if (const std::optional<Error>& error = slots.unread[i]) {
            const bool bad = error->code == Errc::kMediumError;
            out.why = "its superblock slot " + std::to_string(i) + " at sector " +
                      std::to_string(superblock_slot(SectorCount(out.sectors), i).value) + " cannot be read (" +
                      error->message + "), and what the other slot says may be older";
            out.kind = bad ? Kind::kDamaged : Kind::kUnread;
        }
    }
}

/// Those at the end of a device of `sectors`.
Task<Slots> read_slots(BlockDevice* device, SectorCount sectors, Buffer buffer) {
    Slots slots;
    for (std::uint64_t i = 0; i < 2; ++i) {
        const Lba lba = superblock_slot(sectors, i);
        const Slice slice = buffer.slice(kSuperblockBytes, lba);
        slice.clear_infos();
        Result<void> r = co_await detail::read_twice(*device, lba, slice);
        if (r) {
            slots.superblocks[i] = decode_superblock(slice.data().first<kSuperblockBytes>());
        } else {
            slots.unread[i].emplace(std::move(r).error());
        }
    }
    co_return slots;
}

Task<MemberReading> read_member(MemberSpec spec, Buffer buffer) {
    MemberReading out;
    out.name = spec.name;
    if (spec.device == nullptr) {
        out.why = "the device could not be opened";
        co_return out;
    }
    out.sectors = spec.device->limits().sectors.value;
    if (out.sectors < 2 * kSuperblockSectors + kSectorsPerBlock) {
        out.why = "the device is too small to be a member";
        co_return out;
    }
    // What a killed process had in flight may be in the device's cache only. It counts from here on, superblocks and
    // log pages alike, so it must not be lost to a power cut later.
    if (const Result<void> flushed = co_await spec.device->flush(); !flushed) {
        out.why = "flush failed: " + flushed.error().message;
        co_return out;
    }
    interpret(co_await read_slots(spec.device, SectorCount(out.sectors), std::move(buffer)), out);
    co_return out;
}

}  // namespace

namespace {

/// Of the array that lies on the places: the newest superblock on any device.
const Superblock* newest_of(const std::vector<MemberReading>& readings, const std::vector<MemberReading>& spares,
                            const ArrayConfig& config) {
    const Superblock* newest = nullptr;
    for (const auto* list : {&readings, &spares}) {
        for (const MemberReading& r : *list) {
            const Superblock& held = r.superblock;
            const bool ours = r.kind == Kind::kFound && held.array_name == config.name &&
                              held.members.size() == readings.size() &&
                              (newest == nullptr || held.array_uuid == newest->array_uuid);
            if (ours && (newest == nullptr || held.epoch > newest->epoch)) {
                newest = &held;
            }
        }
    }
    return newest;
}

/// `reading` is of the device that `newest` means for the place: its member in sync, or the one of its rebuild.
bool meant_for(const MemberReading& reading, std::size_t place, const Superblock& newest) {
    const Superblock& held = reading.superblock;
    if (reading.kind != Kind::kFound || held.array_uuid != newest.array_uuid || held.member_index != place) {
        return false;
    }
    return newest.members[place].failed ? held.target && newest.rebuilds(place, held.member_uuid())
                                        : held.member_uuid() == newest.members[place].uuid;
}

/// R8.
bool is_target(const MemberReading& reading, const Superblock& newest) {
    const Superblock& held = reading.superblock;
    return reading.kind == Kind::kFound && held.array_uuid == newest.array_uuid && held.target &&
           newest.rebuilds(held.member_index, held.member_uuid()) && !newest.members[held.member_index].failed;
}

}  // namespace

std::vector<Finding> place_spares(std::vector<MemberReading>& readings, std::vector<MemberReading>& spares,
                                  ArrayConfig& config) {
    std::vector<Finding> out;
    const Superblock* found = newest_of(readings, spares, config);
    if (found == nullptr) {
        return out;
    }
    const Superblock newest = *found;
    for (std::size_t s = 0; s < spares.size(); ++s) {
        const Superblock& held = spares[s].superblock;
        const std::size_t place = held.member_index;
        if (spares[s].kind != Kind::kFound || held.array_name != config.name || place >= readings.size() ||
            is_target(spares[s], newest)) {
            continue;
        }
        const MemberReading& there = readings[place];
        const bool newer = there.kind != Kind::kFound ||
                           (there.superblock.array_uuid == held.array_uuid && there.superblock.epoch < held.epoch);
        if (meant_for(there, place, newest) || !(newer || meant_for(spares[s], place, newest))) {
            continue;
        }
        std::swap(readings[place], spares[s]);
        std::swap(config.members[place], config.spares[s]);
        out.push_back({Severity::kWarning, "config-differs", subject_of(config, place),
                       "the config names " + config.spares[s].name + " for this place, which was given to " +
                           config.members[place].name,
                       "correct the config"});
    }
    return out;
}

void take_spares(Assembly& assembly, const std::vector<MemberReading>& spares, ArrayConfig& config) {
    std::vector<MemberSpec> usable;
    for (std::size_t i = 0; i < spares.size(); ++i) {
        const MemberSpec& spec = config.spares[i];
        const bool target = is_target(spares[i], assembly.winner);
        if (target && is_older_copy(spares[i].superblock, assembly.winner)) {
            assembly.findings.push_back(older_copy("spare " + spec.name, spares[i].superblock, assembly.winner,
                                                   "wipe it, or give the array another spare"));
            continue;
        }
        if (target && assembly.states[spares[i].superblock.member_index] == MemberState::kInSync) {
            assembly.target = {spec, spares[i].newest, spares[i].superblock.epoch};
        } else if (target || spares[i].kind == Kind::kBlank) {  // a target whose member is gone: its spare
            usable.push_back(spec);
        } else {
            assembly.findings.push_back({Severity::kWarning, "spare-refused", "spare " + spec.name,
                                         "it is not blank, or cannot be read", "give the array another spare"});
        }
    }
    config.spares = std::move(usable);
}

namespace {

/// R9 for one device.
Task<void> look_at_former_ends_of(Environment& env, const std::string& array, MemberSpec spec,
                                  std::vector<SectorCount> sizes, MemberReading& reading) {
    std::ptrdiff_t valid = 2;  // slots where the reading is from; at the device's end 2: never another on a tie
    for (const SectorCount size : sizes) {
        Result<Buffer> buffer = env.buffers.allocate(kSuperblockBytes);
        if (!buffer || size.value >= reading.sectors || SlotPlace{1, size}.at_end_of(SectorCount(reading.sectors)) ||
            size.value < 2 * kSuperblockSectors) {
            continue;
        }
        MemberReading there = reading;
        there.sectors = size.value;
        Slots slots = co_await read_slots(spec.device, size, *std::move(buffer));
        const auto here = std::ranges::count_if(slots.superblocks, [](const auto& s) { return s.has_value(); });
        interpret(std::move(slots), there);
        const Superblock& held = reading.superblock;
        // One slot of the device's own may lie where another size has its other one: it alone may be the older one.
        const bool better =
            there.superblock.epoch > held.epoch || (there.superblock.epoch == held.epoch && here > valid);
        const bool newer =
            reading.kind != Kind::kFound || (there.superblock.member_uuid() == held.member_uuid() && better);
        if (there.kind == Kind::kFound && there.superblock.array_name == array && newer) {
            there.sectors = reading.sectors;
            there.why.clear();
            reading = std::move(there);
            valid = here;
        }
    }
}

}  // namespace

Task<void> look_at_former_ends(Environment& env, const std::string& array, std::vector<SectorCount> sizes,
                               std::span<const MemberSpec> specs, std::vector<MemberReading>& readings) {
    std::ranges::sort(sizes, std::greater{});
    const auto doubles = std::ranges::unique(sizes);
    sizes.erase(doubles.begin(), doubles.end());
    for (std::size_t i = 0; i < readings.size(); ++i) {
        if (readings[i].vacant) {
            co_await look_at_former_ends_of(env, array, specs[i], sizes, readings[i]);
        }
    }
}

Task<Result<std::vector<MemberReading>>> read_members(Environment& env, std::span<const MemberSpec> specs) {
    std::vector<Task<MemberReading>> tasks;
    tasks.reserve(specs.size());
    for (const MemberSpec& spec : specs) {
        CO_TRY(Buffer buffer, env.buffers.allocate(kSuperblockBytes));
        tasks.push_back(read_member(spec, std::move(buffer)));
    }
    co_return co_await when_all(std::move(tasks));
}

}  // namespace gemel::raid
