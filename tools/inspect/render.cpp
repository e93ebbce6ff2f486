// SPDX-License-Identifier: Apache-2.0
#include "tools/inspect/render.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/json/array.hpp>
#include <iterator>

#include "gemel/durable_log.hpp"
#include "raid/level_table.hpp"
#include "target/config/value_syntax.hpp"

namespace gemel::inspect {

namespace json = boost::json;
using config::format_size;

namespace {

using raid::Superblock;

std::string_view kind_name(SlotReport::Kind kind) {
    constexpr std::array<std::string_view, 5> kNames{"valid", "none", "damaged", "newer-format", "unreadable"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::string_view area_name(raid::AreaKind kind) {
    constexpr std::array<std::string_view, 7> kNames{"", "log", "journal", "redo", "checksums", "mirror", "migration"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::string client_name(std::uint32_t client) {
    const std::uint32_t volume = client & 0xffffU;
    if (client == raid::kLogClientMissed) {
        return "missed extents of lost members";
    }
    return (client & ~0xffffU) == kLogClientPair ? fmt::format("mirror of volume {}", volume)
           : client == kLogClientJournal         ? "dirty stripe journal"
           : client == kLogClientRedo            ? "redo log"
                                                 : fmt::format("client {:#x}", client);
}

std::string_view level_name(std::uint16_t id) {
    const raid::LevelRow* level = raid::find_level(id);
    return level != nullptr ? level->long_name : "unknown";
}

const Superblock& array_of(const Report& report) {
    const MemberReport& m = report.members[*report.newest];
    return m.slots[*m.newest].superblock;
}

void add_member(std::string& out, const MemberReport& m) {
    auto to = std::back_inserter(out);
    fmt::format_to(to, "{} ({})\n", m.name, format_size(m.bytes));
    for (std::size_t i = 0; i < m.slots.size(); ++i) {
        const SlotReport& slot = m.slots[i];
        fmt::format_to(to, "  superblock {} at byte {}: ", i, slot.offset);
        if (slot.kind == SlotReport::Kind::kValid) {
            const Superblock& sb = slot.superblock;
            fmt::format_to(to, "epoch {}, array '{}', member {}, {}{}\n", sb.epoch, sb.array_name, sb.member_index,
                           sb.clean ? "clean" : "unclean", m.newest == i ? " (newest)" : "");
        } else {
            fmt::format_to(to, "{}: {}\n", kind_name(slot.kind), slot.why);
        }
    }
    if (m.log) {
        fmt::format_to(to,
                       "  log: room for {} pages: {} valid (sequences {} to {}), {} blank, {} foreign, {} damaged, "
                       "{} unreadable\n",
                       m.log->pages, m.log->valid, m.log->oldest_sequence, m.log->newest_sequence, m.log->blank,
                       m.log->foreign, m.log->damaged, m.log->unreadable);
    }
}

void add_array(std::string& out, const Superblock& sb) {
    auto to = std::back_inserter(out);
    fmt::format_to(to, "\narray '{}' {}: {}, strips of {}, epoch {}, {}\n", sb.array_name, sb.array_uuid.text(),
                   level_name(sb.level), format_size(sb.strip_bytes), sb.epoch, sb.clean ? "clean" : "unclean");
    fmt::format_to(to, "  incarnation {}, before {}\n", sb.incarnation.text(), sb.previous_incarnation.text());
    if (sb.accepted) {
        fmt::format_to(to,
                       "  started by force: where redundancy is not right P tells what lay on the missing member\n");
    }
    fmt::format_to(to, "  redundancy is right below sector {} of {}, but for {} ranges\n", sb.resync_cursor,
                   raid::geometry_of(sb).columns(), sb.untrusted.size());
    if (sb.scrub.active) {
        fmt::format_to(to, "  a scrub{} has seen what is below sector {}: {} blocks mismatched\n",
                       sb.scrub.repair ? " that repairs" : "", sb.scrub.cursor, sb.scrub.mismatched);
    }
    for (const raid::ColumnRange& r : sb.untrusted) {
        fmt::format_to(to, "    sectors {} to {}\n", r.first, r.end);
    }
    for (std::size_t i = 0; i < sb.members.size(); ++i) {
        fmt::format_to(to, "  member {}: {}, {} of data, {}\n", i, sb.members[i].uuid.text(),
                       format_size(bytes_of(sb.members[i].sectors)), sb.members[i].failed ? "failed" : "in sync");
    }
    for (const raid::AreaRecord& area : sb.areas) {
        fmt::format_to(to, "  area {}: sector {}, {}, version {}\n", area_name(area.kind), area.lba.value,
                       format_size(bytes_of(area.sectors)), area.version);
    }
    if (sb.added.any()) {
        fmt::format_to(to,
                       "  grown: data beyond {} from sector {} on, in units of {}, each behind {} of checksum map\n",
                       format_size(sb.added.split * kSectorBytes), sb.added.base,
                       format_size(sb.added.unit * kSectorBytes), format_size(sb.added.map * kSectorBytes));
    }
    for (const raid::VolumeRecord& v : sb.volumes) {
        fmt::format_to(to, "  volume '{}': number {}, {}, {}\n", v.name, v.number, format_size(bytes_of(v.sectors)),
                       v.uuid.text());
        for (const raid::VolumeExtent& e : v.extents) {
            fmt::format_to(to, "    sector {} of the array, {}\n", e.lba.value, format_size(bytes_of(e.sectors)));
        }
    }
}

void add_log(std::string& out, const LogSummary& log) {
    auto to = std::back_inserter(out);
    fmt::format_to(to, "  log: generation {}, newest page {}{}\n", log.generation, log.tail,
                   log.records_lost ? ", records were lost in an earlier generation" : "");
    for (const auto& [client, records] : log.clients) {
        fmt::format_to(to, "    {}: {} records, {} bytes, positions {} to {}\n", client_name(client), records.records,
                       records.bytes, records.first_position, records.last_position);
    }
    const RedoSummary& redo = log.redo;
    if (redo.valid + redo.voided + redo.damaged > 0) {
        fmt::format_to(to, "    of the redo log a start does {} again ({} of members{}), {} are void, {} damaged\n",
                       redo.valid, format_size(redo.bytes),
                       redo.newest_stripe ? fmt::format(", the newest of stripe {}", *redo.newest_stripe) : "",
                       redo.voided, redo.damaged);
    }
    if (redo.partial > 0) {
        fmt::format_to(to, "    {} records of partial parity, of {} blocks: for a start without one member\n",
                       redo.partial, redo.partial_blocks);
    }
    if (log.missed) {
        for (const raid::LostMember& m : log.missed->members) {
            fmt::format_to(to, "    member {} gets {} of {} regions of {} columns when it comes back\n", m.place,
                           log.missed->set.count(), log.missed->set.regions(), log.missed_shape.region);
        }
    }
}

json::object json_of(const Superblock& sb) {
    json::array members;
    for (const raid::MemberRecord& m : sb.members) {
        members.push_back(json::object{{"uuid", m.uuid.text()}, {"failed", m.failed}, {"sectors", m.sectors.value}});
    }
    json::array areas;
    for (const raid::AreaRecord& a : sb.areas) {
        areas.push_back(json::object{
            {"kind", area_name(a.kind)}, {"lba", a.lba.value}, {"sectors", a.sectors.value}, {"version", a.version}});
    }
    json::array volumes;
    for (const raid::VolumeRecord& v : sb.volumes) {
        json::array extents;
        for (const raid::VolumeExtent& e : v.extents) {
            extents.push_back(json::object{{"lba", e.lba.value}, {"sectors", e.sectors.value}});
        }
        volumes.push_back(json::object{{"name", v.name},
                                       {"number", v.number},
                                       {"uuid", v.uuid.text()},
                                       {"sectors", v.sectors.value},
                                       {"extents", std::move(extents)}});
    }
    json::array untrusted;
    for (const raid::ColumnRange& r : sb.untrusted) {
        untrusted.push_back(json::object{{"first", r.first}, {"end", r.end}});
    }
    return {{"array", sb.array_name},
            {"uuid", sb.array_uuid.text()},
            {"level", level_name(sb.level)},
            {"strip_bytes", sb.strip_bytes},
            {"member_index", sb.member_index},
            {"epoch", sb.epoch},
            {"incarnation", sb.incarnation.text()},
            {"previous_incarnation", sb.previous_incarnation.text()},
            {"clean", sb.clean},
            {"accepted", sb.accepted},
            {"member_sectors", sb.member_sectors},
            {"resync_cursor", sb.resync_cursor},
            {"untrusted", std::move(untrusted)},
            {"scrub", sb.scrub.active ? json::value(json::object{{"repair", sb.scrub.repair},
                                                                 {"cursor", sb.scrub.cursor},
                                                                 {"mismatched", sb.scrub.mismatched}})
                                      : json::value(nullptr)},
            {"added", sb.added.any() ? json::value(json::object{{"split", sb.added.split.get()},
                                                                {"base", sb.added.base},
                                                                {"unit", sb.added.unit},
                                                                {"map", sb.added.map}})
                                     : json::value(nullptr)},
            {"log_generation", sb.log_generation},
            {"members", std::move(members)},
            {"areas", std::move(areas)},
            {"volumes", std::move(volumes)}};
}

json::object json_of(const MemberReport& m) {
    json::array slots;
    for (std::size_t i = 0; i < m.slots.size(); ++i) {
        const SlotReport& slot = m.slots[i];
        json::object one{{"offset", slot.offset}, {"state", kind_name(slot.kind)}, {"newest", m.newest == i}};
        if (slot.kind == SlotReport::Kind::kValid) {
            one["superblock"] = json_of(slot.superblock);
        } else {
            one["why"] = slot.why;
        }
        slots.push_back(std::move(one));
    }
    json::object out{{"name", m.name}, {"bytes", m.bytes}, {"slots", std::move(slots)}};
    if (m.log) {
        out["log"] = json::object{{"pages", m.log->pages},
                                  {"valid", m.log->valid},
                                  {"blank", m.log->blank},
                                  {"foreign", m.log->foreign},
                                  {"damaged", m.log->damaged},
                                  {"unreadable", m.log->unreadable},
                                  {"oldest_sequence", m.log->oldest_sequence},
                                  {"newest_sequence", m.log->newest_sequence}};
    }
    return out;
}

json::object json_of(const LogSummary& log) {
    json::array clients;
    for (const auto& [client, records] : log.clients) {
        clients.push_back(json::object{{"client", client},
                                       {"what", client_name(client)},
                                       {"records", records.records},
                                       {"bytes", records.bytes},
                                       {"first_position", records.first_position},
                                       {"last_position", records.last_position}});
    }
    json::object out{{"generation", log.generation},
                     {"tail", log.tail},
                     {"records_lost", log.records_lost},
                     {"clients", std::move(clients)}};
    json::object redo{
        {"valid", log.redo.valid}, {"void", log.redo.voided}, {"damaged", log.redo.damaged}, {"bytes", log.redo.bytes}};
    if (log.redo.newest_stripe) {
        redo["newest_stripe"] = *log.redo.newest_stripe;
    }
    redo["partial"] = log.redo.partial;
    redo["partial_blocks"] = log.redo.partial_blocks;
    out["redo"] = std::move(redo);
    if (log.missed) {
        json::array members;
        for (const raid::LostMember& m : log.missed->members) {
            members.push_back(json::value(m.place));
        }
        out["missed"] = json::object{{"members", std::move(members)},
                                     {"regions", log.missed->set.count()},
                                     {"of", log.missed->set.regions()},
                                     {"region_columns", log.missed_shape.region}};
    }
    if (log.corrupt) {
        out["corrupt"] = *log.corrupt;
    }
    return out;
}

}  // namespace

std::string as_text(const Report& report) {
    std::string out;
    for (const MemberReport& m : report.members) {
        add_member(out, m);
    }
    if (report.newest) {
        add_array(out, array_of(report));
    }
    if (report.log) {
        add_log(out, *report.log);
    }
    out += report.problems.empty() ? "\nno problem found in what was read\n" : "\nproblems:\n";
    for (const std::string& problem : report.problems) {
        out += "  " + problem + "\n";
    }
    return out;
}

json::object as_json(const Report& report) {
    json::array members;
    for (const MemberReport& m : report.members) {
        members.push_back(json_of(m));
    }
    json::array problems;
    for (const std::string& problem : report.problems) {
        problems.push_back(json::value(problem));
    }
    json::object out{{"members", std::move(members)}, {"problems", std::move(problems)}};
    if (report.newest) {
        out["array"] = json_of(array_of(report));
    }
    if (report.log) {
        out["log"] = json_of(*report.log);
    }
    return out;
}

}  // namespace gemel::inspect
