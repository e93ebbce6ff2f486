// SPDX-License-Identifier: Apache-2.0
#include "tools/gemel/render.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "target/config/value_syntax.hpp"

namespace gemel::cli {

namespace json = boost::json;
using config::format_size;

namespace {

const json::value* find(const json::value& from, std::string_view path) {
    const json::value* at = &from;
    while (!path.empty() && at != nullptr) {
        const std::size_t dot = std::min(path.find('.'), path.size());
        const json::object* object = at->if_object();
        at = object != nullptr ? object->if_contains(path.substr(0, dot)) : nullptr;
        path.remove_prefix(std::min(dot + 1, path.size()));
    }
    return at;
}

const json::array& list_of(const json::value& from, std::string_view path) {
    static const json::array kNone;
    const json::value* v = find(from, path);
    return v != nullptr && v->is_array() ? v->get_array() : kNone;
}

std::string size_of(const json::value& from, std::string_view path) {
    return find(from, path) != nullptr ? format_size(number_of(from, path)) : "-";
}

std::string luns_of(const json::value& volume) {
    std::string out;
    for (const json::value& lun : list_of(volume, "luns")) {
        out += fmt::format("{}{} LUN {}", out.empty() ? "" : ", ", text_of(lun, "target"), text_of(lun, "lun"));
    }
    return out.empty() ? "-" : out;
}

std::string mirror_of(const json::value& volume) {
    const json::value* mirror = find(volume, "mirror");
    if (mirror == nullptr || !mirror->is_object() || text_of(*mirror, "state") == "unpaired") {
        return "-";
    }
    return fmt::format("{} of {}, {}", text_of(*mirror, "role"), text_of(*mirror, "peer_node"),
                       text_of(*mirror, "state"));
}

std::string percent(std::uint64_t done, std::uint64_t total) {
    return fmt::format("{} %", total == 0 ? 100 : std::min<std::uint64_t>(100, done * 100 / total));
}

std::string minutes(std::int64_t seconds) {
    return seconds >= 3600 ? fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
                           : fmt::format("{}:{:02}", seconds / 60, seconds % 60);
}

/// The stripes listed, or the policy of an array that lists none, or that writes are logged.
std::string journal_of(const json::value& array) {
    const std::string policy = text_of(array, "journal.policy");
    const json::value* logged = find(array, "journal.redo.active");
    if (logged != nullptr && logged->is_bool() && logged->as_bool()) {
        return "redo";
    }
    return policy == "journal" ? text_of(array, "journal.listed_stripes") + " stripes" : policy;
}

/// Of arrays: a table, members that are not in sync, and what runs.
std::string arrays_text(const json::array& arrays) {
    std::vector<std::vector<std::string>> rows{
        {"ARRAY", "LEVEL", "STATE", "SIZE", "FREE", "STRIP", "JOURNAL", "RESYNC"}};
    std::string broken;
    for (const json::value& a : arrays) {
        const json::value* resync = find(a, "resync");
        const bool running = resync != nullptr && resync->is_object();
        rows.push_back({text_of(a, "name"), text_of(a, "level"), text_of(a, "state"), size_of(a, "bytes"),
                        size_of(a, "free_bytes"), size_of(a, "strip_bytes"), journal_of(a),
                        running ? percent(number_of(*resync, "done_bytes"), number_of(*resync, "total_bytes")) : "-"});
        for (const json::value& m : list_of(a, "members")) {
            if (text_of(m, "state") != "in-sync") {
                broken +=
                    fmt::format("  {}: member {} is {}\n", text_of(a, "name"), text_of(m, "name"), text_of(m, "state"));
            }
        }
        if (const std::uint64_t found = number_of(a, "checksums.found"); found > 0) {
            broken += fmt::format("  {}: {} blocks did not match their checksums since the start (gemel events)\n",
                                  text_of(a, "name"), found);
        }
        if (const std::uint64_t repaired = number_of(a, "repaired_blocks"); repaired > 0) {
            broken += fmt::format("  {}: {} blocks were written anew since the start (gemel events)\n",
                                  text_of(a, "name"), repaired);
        }
        for (const std::string& job : {render_rebuild(a), render_scrub(a)}) {
            broken += job.empty() ? "" : "  " + job + "\n";
        }
    }
    return rows.size() > 1 ? render_table(rows) + broken : std::string();
}

std::string left_of(const json::value& job) {
    const json::value* left = find(job, "seconds_left");
    return left != nullptr && left->is_number() ? minutes(static_cast<std::int64_t>(number_of(job, "seconds_left")))
                                                : "unknown time";
}

/// A job's progress in one line; `what`: it runs.
std::string job_line(const json::value& array, const json::value& job, std::string_view what) {
    const std::string state = text_of(job, "state");
    return fmt::format("{}: {}{}: {} of {}, {}/s, {} left", text_of(array, "name"), what,
                       state == "running" ? "" : " (" + state + ")",
                       percent(number_of(job, "done_bytes"), number_of(job, "total_bytes")),
                       size_of(job, "total_bytes"), size_of(job, "bytes_per_second"), left_of(job));
}

/// The addresses that the last scrub found, as a table.
std::string faults_text(const json::value& array) {
    std::vector<std::vector<std::string>> rows{{"WRONG ON MEMBER", "MEMBER SECTOR", "SECTORS", "ARRAY SECTOR"}};
    for (const json::value& f : list_of(array, "last_scrub.faults")) {
        rows.push_back({text_of(f, "member", "unknown"), text_of(f, "member_sector"), text_of(f, "sectors"),
                        text_of(f, "sector", "parity")});
    }
    return rows.size() > 1 ? render_table(rows) : std::string();
}

void add_targets(const json::value& status, std::string& out) {
    std::vector<std::vector<std::string>> rows{{"TARGET", "LUN", "VOLUME", "BLOCK", "CACHE", "ACCESS"}};
    for (const json::value& t : list_of(status, "targets")) {
        for (const json::value& lun : list_of(t, "luns")) {
            rows.push_back({text_of(t, "iqn"), text_of(lun, "lun"), text_of(lun, "volume"), text_of(lun, "block_bytes"),
                            text_of(lun, "write_cache"), flag_of(lun, "read_only") ? "read-only" : "read-write"});
        }
    }
    if (rows.size() > 1) {
        out += "\n" + render_table(rows);
    }
}

}  // namespace

std::string text_of(const json::value& from, std::string_view path, std::string_view fallback) {
    const json::value* v = find(from, path);
    if (v == nullptr || v->is_null()) {
        return std::string(fallback);
    }
    if (v->is_string()) {
        return v->get_string().empty() ? std::string(fallback) : std::string(v->get_string());
    }
    return json::serialize(*v);
}

std::uint64_t number_of(const json::value& from, std::string_view path) {
    const json::value* v = find(from, path);
    if (v == nullptr) {
        return 0;
    }
    if (v->is_uint64()) {
        return v->get_uint64();
    }
    return v->is_int64() && v->get_int64() > 0 ? static_cast<std::uint64_t>(v->get_int64()) : 0;
}

bool flag_of(const json::value& from, std::string_view path) {
    const json::value* v = find(from, path);
    return v != nullptr && v->is_bool() && v->get_bool();
}

std::string render_table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    std::string out;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += fmt::format("{:<{}}  ", row[i], widths[i]);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    }
    return out;
}

std::string render_status(const json::value& status) {
    std::string portals;
    for (const json::value& p : list_of(status, "portals")) {
        portals += (portals.empty() ? "" : ", ") + text_of(p, "");
    }
    std::string out =
        fmt::format("node {}: gemeld {}, pid {}, up {}\n", text_of(status, "node"), text_of(status, "version"),
                    text_of(status, "pid"), minutes(static_cast<std::int64_t>(number_of(status, "uptime_seconds"))));
    out += fmt::format("portals {}; replication {}\n", portals.empty() ? "-" : portals,
                       text_of(status, "replication_listen"));
    out += fmt::format(
        "{} sessions, {} logins, {} login failures, {} protocol errors; {} of {} of buffers in use; last event {}\n",
        number_of(status, "iscsi.sessions"), number_of(status, "iscsi.logins"),
        number_of(status, "iscsi.login_failures"), number_of(status, "iscsi.protocol_errors"),
        size_of(status, "memory.in_use_bytes"), size_of(status, "memory.bound_bytes"), number_of(status, "last_event"));
    if (const std::string arrays = arrays_text(list_of(status, "arrays")); !arrays.empty()) {
        out += "\n" + arrays;
    }
    if (const json::value* volumes = find(status, "volumes");
        volumes != nullptr && !list_of(status, "volumes").empty()) {
        out += "\n" + render_volumes(*volumes);
    }
    add_targets(status, out);
    return out;
}

std::string render_arrays(const json::value& arrays) {
    const std::string out = arrays_text(list_of(arrays, ""));
    return out.empty() ? "no arrays\n" : out;
}

std::string render_array_details(const json::value& arrays) {
    std::string out = render_arrays(arrays);
    for (const json::value& a : list_of(arrays, "")) {
        std::vector<std::vector<std::string>> rows{{"MEMBER", "DEVICE", "STATE"}};
        for (const json::value& m : list_of(a, "members")) {
            const json::value* with = find(m, "replaced_with");
            const bool replaced = with != nullptr && with->is_string();
            const json::value* missed = find(m, "missed_bytes");
            const bool known = missed != nullptr && !missed->is_null();
            rows.push_back({std::to_string(rows.size() - 1), text_of(m, "name"),
                            text_of(m, "state") +
                                (replaced ? ", is replaced with " + std::string(with->get_string()) : std::string()) +
                                (known ? ", missed " + format_size(number_of(m, "missed_bytes")) : std::string())});
        }
        for (const json::value& spare : list_of(a, "spares")) {
            rows.push_back({"-", spare.is_string() ? std::string(spare.get_string()) : "-", "spare"});
        }
        out += "\n" + render_table(rows);
        if (const std::uint64_t blocks = number_of(a, "unreadable_blocks"); blocks > 0) {
            out += fmt::format("{} blocks of members could not be made up by a rebuild\n", blocks);
        }
        out += render_last_scrub(a) + faults_text(a);
    }
    return out;
}

std::string render_rebuild(const json::value& array) {
    const json::value* job = find(array, "rebuild");
    if (job == nullptr || !job->is_object()) {
        return {};
    }
    return job_line(array, *job, text_of(*job, "kind") + " of member " + text_of(*job, "member"));
}

std::string render_scrub(const json::value& array) {
    const json::value* job = find(array, "scrub");
    return job != nullptr && job->is_object() ? job_line(array, *job, "scrub") : std::string();
}

std::string render_last_scrub(const json::value& array) {
    const json::value* s = find(array, "last_scrub");
    if (s == nullptr || !s->is_object()) {
        return {};
    }
    const auto more = [&](std::string_view field, std::string_view what) {
        const std::uint64_t n = number_of(*s, field);
        return n > 0 ? fmt::format(", {} {}", n, what) : std::string();
    };
    return fmt::format("last scrub ({}, {} {}): {} blocks compared, {} mismatched{}{}{}{}{}{}\n", text_of(*s, "mode"),
                       text_of(*s, "state"), text_of(*s, "ended", text_of(*s, "began")), number_of(*s, "checked"),
                       number_of(*s, "mismatched"), more("repaired", "of them repaired"),
                       more("mismatched_earlier", "mismatched before the last start"),
                       more("rewritten", "rewritten that could not be read"), more("unreadable", "unreadable"),
                       more("unchecked", "not comparable"), more("untrusted", "not trusted"));
}

std::string render_jobs(const json::value& jobs) {
    std::vector<std::vector<std::string>> rows{
        {"ARRAY", "JOB", "MEMBER", "STATE", "DONE", "OF", "RATE", "LIMIT", "LEFT"}};
    for (const json::value& j : list_of(jobs, "")) {
        rows.push_back({text_of(j, "array"), text_of(j, "kind"), text_of(j, "member"), text_of(j, "state"),
                        percent(number_of(j, "done_bytes"), number_of(j, "total_bytes")), size_of(j, "total_bytes"),
                        size_of(j, "bytes_per_second") + "/s",
                        number_of(j, "limit") == 0 ? "none" : size_of(j, "limit") + "/s", left_of(j)});
    }
    return rows.size() > 1 ? render_table(rows) : "no jobs\n";
}

std::string render_volumes(const json::value& volumes) {
    std::vector<std::vector<std::string>> rows{{"VOLUME", "ARRAY", "SIZE", "MIRROR", "LUNS"}};
    for (const json::value& v : list_of(volumes, "")) {
        rows.push_back({text_of(v, "name"), text_of(v, "array"), size_of(v, "bytes"), mirror_of(v), luns_of(v)});
    }
    return rows.size() > 1 ? render_table(rows) : "no volumes\n";
}

std::string render_sessions(const json::value& sessions) {
    std::vector<std::vector<std::string>> rows{{"INITIATOR", "TARGET", "FROM", "TSIH", "COMMANDS", "WRITTEN", "READ"}};
    for (const json::value& s : list_of(sessions, "")) {
        rows.push_back({text_of(s, "initiator"), text_of(s, "target", "(discovery)"), text_of(s, "peer_address"),
                        text_of(s, "tsih"), text_of(s, "commands"), size_of(s, "bytes_in"), size_of(s, "bytes_out")});
    }
    return rows.size() > 1 ? render_table(rows) : "no sessions\n";
}

std::string render_progress(const json::object& pair) {
    const json::value p(pair);
    if (!flag_of(p, "resync.running")) {
        return {};
    }
    if (number_of(p, "resync.total_bytes") == 0) {
        return fmt::format("{}: resync with {}: counting what is to be copied", text_of(p, "volume"),
                           text_of(p, "peer_node"));
    }
    const json::value* left = find(p, "resync.seconds_left");
    const bool known = left != nullptr && left->is_int64() && left->get_int64() >= 0;
    return fmt::format("{}: resync {} {}: {} of {}, {}/s, {} left", text_of(p, "volume"),
                       text_of(p, "resync.direction") == "incoming" ? "from" : "to", text_of(p, "peer_node"),
                       percent(number_of(p, "resync.done_bytes"), number_of(p, "resync.total_bytes")),
                       size_of(p, "resync.total_bytes"), size_of(p, "resync.bytes_per_second"),
                       known ? minutes(left->get_int64()) : "unknown time");
}

std::string render_pairs(const json::value& pairs) {
    std::vector<std::vector<std::string>> rows{
        {"VOLUME", "ROLE", "PEER", "STATE", "LINK", "SERVING", "CHANGED", "NOTE"}};
    std::string progress;
    for (const json::value& p : list_of(pairs, "")) {
        rows.push_back({text_of(p, "volume"), text_of(p, "role"),
                        text_of(p, "peer_node") == "-"
                            ? "-"
                            : fmt::format("{}/{}", text_of(p, "peer_node"), text_of(p, "peer_volume")),
                        text_of(p, "state"), flag_of(p, "connected") ? "up" : "down",
                        flag_of(p, "serving") ? "yes" : "no", size_of(p, "dirty_bytes"), text_of(p, "reason")});
        if (p.is_object()) {
            const std::string line = render_progress(p.get_object());
            progress += line.empty() ? "" : line + "\n";
        }
    }
    return rows.size() > 1 ? render_table(rows) + progress : "no mirrored volumes\n";
}

std::string render_pair_details(const json::object& pair) {
    const json::value p(pair);
    struct Line {
        std::string_view name;
        std::string value;
    };
    std::string out;
    for (const Line& l : {
             Line{"volume", text_of(p, "volume")},
             Line{"role", text_of(p, "role")},
             Line{"state", text_of(p, "state")},
             Line{"peer", fmt::format("{}/{} {}", text_of(p, "peer_node"), text_of(p, "peer_volume"),
                                      text_of(p, "peer_address", ""))},
             Line{"link", flag_of(p, "connected") ? "up" : "down"},
             Line{"serving", flag_of(p, "serving") ? "yes" : "no"},
             Line{"reason", text_of(p, "reason")},
             Line{"size", size_of(p, "bytes")},
             Line{"term, generation", fmt::format("{}, {}", text_of(p, "term"), text_of(p, "generation"))},
             Line{"sequence", fmt::format("{} sent, {} acknowledged, {} durable", text_of(p, "sequence.local"),
                                          text_of(p, "sequence.received"), text_of(p, "sequence.durable"))},
             Line{"changed tracks", size_of(p, "dirty_bytes")},
             Line{"open regions", size_of(p, "region_bytes")},
             Line{"held frames", text_of(p, "held_frames")},
             Line{"last ack", fmt::format("{} ms ago", text_of(p, "last_ack_age_ms"))},
             Line{"sent", fmt::format("{} in {} frames, resync {}", size_of(p, "bytes_sent"), text_of(p, "frames_sent"),
                                      size_of(p, "resync_bytes_sent"))},
             Line{"received",
                  fmt::format("{} in {} frames", size_of(p, "bytes_received"), text_of(p, "frames_received"))},
             Line{"last error", text_of(p, "last_error")},
             Line{"metadata",
                  flag_of(p, "uncertain") ? "a record failed: the state may be newer after a restart" : "durable"},
         }) {
        out += fmt::format("{:<17} {}\n", l.name, l.value);
    }
    const std::string progress = render_progress(pair);
    return progress.empty() ? out : out + progress + "\n";
}

std::string render_event(const json::value& event) {
    std::string out;
    if (const std::uint64_t lost = number_of(event, "lost"); lost != 0) {
        out = fmt::format("({} events were lost, the daemon keeps only the last ones)\n", lost);
    }
    const std::string action = text_of(event, "action", "");
    const std::string cause = text_of(event, "cause", "");
    out += fmt::format("{} {} {} {}: {}{}{}{}{}", text_of(event, "sequence"), text_of(event, "time"),
                       text_of(event, "severity"), text_of(event, "id"), text_of(event, "subject"),
                       cause.empty() ? "" : ": ", cause, action.empty() ? "" : ". ", action);
    return out;
}

}  // namespace gemel::cli
