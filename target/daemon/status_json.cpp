// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/status_json.hpp"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>

#include "target/admin/event_ring.hpp"

namespace gemel {

namespace json = boost::json;

json::object job_json(const raid::JobStatus& s) {
    return {{"kind", raid::job_kind_name(s.kind)},
            {"member", s.kind == raid::JobKind::kRebuild ? json::value(s.member) : json::value(nullptr)},
            {"state", s.paused    ? "paused"
                      : s.waiting ? "waiting"
                                  : "running"},
            {"done_bytes", s.done_bytes},
            {"total_bytes", s.total_bytes},
            {"bytes_per_second", s.rate},
            {"limit", s.limit},
            {"seconds_left", s.seconds_left ? json::value(*s.seconds_left) : json::value(nullptr)}};
}

namespace {

template <class Value>
json::value or_null(const std::optional<Value>& value) {
    return value ? json::value(*value) : json::value(nullptr);
}

json::object scrub_json(const raid::ScrubReport& s, std::size_t members) {
    constexpr std::array<std::string_view, 4> kEnds{"running", "finished", "cancelled", "interrupted"};
    json::array faults;
    for (const raid::ScrubFault& f : s.faults) {
        faults.push_back(json::object{{"member", or_null(f.member)},
                                      {"member_sector", f.member_lba.value},
                                      {"sectors", f.sectors.value},
                                      {"sector", f.lba ? json::value(f.lba->value) : json::value(nullptr)}});
    }
    const bool ended = s.end != raid::ScrubReport::End::kRunning;
    return {{"mode", s.mode == raid::ScrubMode::kRepair ? "repair" : "check"},
            {"state", kEnds[static_cast<std::size_t>(s.end)]},
            {"began", admin::format_time(s.began_unix_ns)},
            {"ended", ended ? json::value(admin::format_time(s.ended_unix_ns)) : json::value(nullptr)},
            {"went_on", s.begun_at_column > 0},
            {"checked", s.counts.checked},
            {"mismatched", s.counts.mismatched},
            {"mismatched_earlier", s.mismatched_earlier},
            {"repaired", s.counts.repaired},
            {"rewritten", s.counts.rewritten},
            {"unreadable", s.counts.unreadable},
            {"unchecked", s.counts.unchecked},
            {"untrusted", s.counts.untrusted},
            {"wrong_blocks", json::array(s.wrong_blocks.begin(), s.wrong_blocks.begin() + members)},
            {"faults", std::move(faults)}};
}

json::object member_json(const raid::MemberStatus& m) {
    return {{"name", m.name},
            {"state", raid::member_state_name(m.state)},
            {"bytes", bytes_of(m.sectors)},
            {"replaced_with", m.replaced_with.empty() ? json::value(nullptr) : json::value(m.replaced_with)},
            {"missed_bytes", or_null(m.missed_bytes)}};
}

}  // namespace

json::object array_json(const raid::ArrayStatus& status) {
    json::array members;
    for (const raid::MemberStatus& m : status.members) {
        members.push_back(member_json(m));
    }
    json::array spares;
    for (const std::string& spare : status.spares) {
        spares.push_back(json::value(spare));
    }
    json::value resync = nullptr;
    if (status.resyncing) {
        resync =
            json::object{{"done_bytes", bytes_of(status.resync_done)}, {"total_bytes", bytes_of(status.resync_total)}};
    }
    const raid::JournalStatus& j = status.journal;
    json::value recovery = nullptr;
    if (j.recovered_stripes > 0) {
        recovery = json::object{
            {"stripes", j.recovered_stripes}, {"bytes_read", j.recovery_bytes_read}, {"milliseconds", j.recovery_ms}};
    }
    return {{"name", status.name},
            {"level", status.level},
            {"state", raid::array_state_name(status.state)},
            {"strip_bytes", status.strip_bytes},
            {"uuid", status.uuid.text()},
            {"bytes", bytes_of(status.sectors)},
            {"free_bytes", bytes_of(status.free)},
            {"clean_start", status.clean_start},
            {"epoch", status.epoch},
            {"members", std::move(members)},
            {"spares", std::move(spares)},
            {"unreadable_blocks", status.unreadable_blocks},
            {"repaired_blocks", status.repaired_blocks},
            {"resync", std::move(resync)},
            {"rebuild", status.rebuild ? json::value(job_json(*status.rebuild)) : json::value(nullptr)},
            {"scrub", status.scrub ? json::value(job_json(*status.scrub)) : json::value(nullptr)},
            {"last_scrub", status.scrub_report ? json::value(scrub_json(*status.scrub_report, status.members.size()))
                                               : json::value(nullptr)},
            {"checksums", json::object{{"on", status.checksums.on},
                                       {"found", status.checksums.found},
                                       {"cached_bytes", status.checksums.cached_bytes}}},
            {"stripe_cache", json::object{{"bytes", status.stripe_cache.bytes}, {"hits", status.stripe_cache.hits}}},
            {"journal", json::object{{"policy", raid::recovery_policy_name(j.policy)},
                                     {"listed_stripes", j.listed_stripes},
                                     {"records", j.records},
                                     {"checkpoints", j.checkpoints},
                                     {"hot_writes", j.hot_writes},
                                     {"cold_writes", j.cold_writes},
                                     {"waits_for_room", j.waits_for_room},
                                     {"recovery", std::move(recovery)},
                                     {"partial_parity", json::object{{"records", j.partial_records},
                                                                     {"recovered_blocks", j.partial_blocks}}},
                                     {"redo", json::object{{"active", j.redo},
                                                           {"records", j.redo_records},
                                                           {"bytes", j.redo_bytes},
                                                           {"replayed_records", j.replayed_records},
                                                           {"replayed_bytes", j.replayed_bytes}}}}}};
}

namespace {

json::value verify_json(const std::optional<replication::VerifyReport>& v) {
    if (!v) {
        return nullptr;
    }
    json::array extents;
    for (const Extent& e : v->extents) {
        extents.push_back(json::object{{"lba", e.lba.value}, {"sectors", e.sectors.value}});
    }
    return json::object{{"state", replication::verify_state_name(v->state)},
                        {"mode", v->repair ? "repair" : "check"},
                        {"done_bytes", v->done_bytes},
                        {"total_bytes", v->total_bytes},
                        {"bytes_per_second", v->bytes_per_second},
                        {"seconds_left", v->seconds_left < 0 ? json::value(nullptr) : json::value(v->seconds_left)},
                        {"different_blocks", v->different_blocks},
                        {"unreadable_here", v->unreadable_here},
                        {"unreadable_at_peer", v->unreadable_at_peer},
                        {"bad_blocks", v->bad_blocks},
                        {"repaired_blocks", v->repaired_blocks},
                        {"extents", std::move(extents)},
                        {"why", v->why}};
}

}  // namespace

json::object pair_json(const replication::PairStatus& s) {
    return {
        {"volume", s.volume},
        {"role", replication::role_name(s.role)},
        {"state", replication::pair_state_name(s.state)},
        {"peer_node", s.peer_node},
        {"peer_volume", s.peer_volume},
        {"peer_address", s.peer_address},
        {"connected", s.connected},
        {"serving", s.serving},
        {"reason", s.reason},
        {"bytes", s.sectors * kSectorBytes},
        {"term", s.term},
        {"generation", s.generation},
        {"sequence",
         json::object{{"local", s.sequence_local}, {"received", s.sequence_received}, {"durable", s.sequence_durable}}},
        {"dirty_bytes", s.dirty_bytes},
        {"region_bytes", s.region_bytes},
        {"held_frames", s.held_frames},
        {"resync", json::object{{"running", s.resync.running},
                                {"direction", !s.resync.running   ? "none"
                                              : s.resync.outgoing ? "outgoing"
                                                                  : "incoming"},
                                {"done_bytes", s.resync.done_bytes},
                                {"total_bytes", s.resync.total_bytes},
                                {"bytes_per_second", s.resync.bytes_per_second},
                                {"seconds_left", s.resync.seconds_left}}},
        {"verify", verify_json(s.verify)},
        {"healed_blocks", s.healed_blocks},
        {"last_error", s.last_error},
        {"uncertain", s.uncertain},
        {"last_ack_age_ms", s.last_ack_age_ms},
        {"frames_sent", s.frames_sent},
        {"bytes_sent", s.bytes_sent},
        {"frames_received", s.frames_received},
        {"bytes_received", s.bytes_received},
        {"resync_bytes_sent", s.resync_bytes_sent}};
}

json::object session_json(const iscsi::SessionStatus& s) {
    return {{"initiator", s.initiator},
            {"target", s.target},
            {"isid", s.isid},
            {"tsih", s.tsih},
            {"peer_address", s.peer_address},
            {"connections", s.connections},
            {"commands", s.commands},
            {"bytes_in", s.bytes_in},
            {"bytes_out", s.bytes_out},
            {"chap_user", s.chap_user.empty() ? json::value(nullptr) : json::value(s.chap_user)},
            {"mutual_chap", s.mutual_chap}};
}

namespace {

json::object lun_json(const iscsi::LunReport& lun) {
    json::object out{{"lun", lun.number}, {"volume", lun.volume}};
    for (std::size_t k = 0; k < lun.totals.kinds.size(); ++k) {
        const iscsi::CommandFigures<std::uint64_t>& f = lun.totals.kinds[k];
        out[iscsi::kCommandKindNames[k]] = json::object{{"operations", f.operations},
                                                        {"bytes", f.bytes},
                                                        {"failed", f.failed},
                                                        {"latency", json::array(f.latency.begin(), f.latency.end())}};
    }
    out["aborted"] = lun.totals.aborted;
    out["in_flight"] = lun.totals.in_flight;
    out["most_in_flight"] = lun.totals.most_in_flight;
    return out;
}

}  // namespace

json::object statistics_json(const iscsi::ServerStatistics& statistics) {
    json::array target_list;
    for (const iscsi::TargetReport& target : statistics.targets) {
        json::array luns;
        std::ranges::transform(target.luns, std::back_inserter(luns), lun_json);
        target_list.push_back(
            json::object{{"iqn", target.iqn}, {"sessions", target.sessions}, {"luns", std::move(luns)}});
    }
    json::array sessions;
    for (const iscsi::SessionReport& s : statistics.sessions) {
        json::array luns;
        std::ranges::transform(s.luns, std::back_inserter(luns), lun_json);
        sessions.push_back(json::object{{"initiator", s.initiator},
                                        {"target", s.target},
                                        {"isid", s.isid},
                                        {"tsih", s.tsih},
                                        {"peer_address", s.peer_address},
                                        {"digest_errors", s.digest_errors},
                                        {"ignored", s.ignored},
                                        {"rejected", s.rejected},
                                        {"luns", std::move(luns)}});
    }
    json::array below;
    for (std::size_t i = 0; i + 1 < iscsi::kLatencyBuckets; ++i) {
        below.push_back(json::value(std::uint64_t{1} << i));
    }
    below.push_back(nullptr);
    return {
        {"latency_below_us", std::move(below)}, {"targets", std::move(target_list)}, {"sessions", std::move(sessions)}};
}

json::object iscsi_json(const iscsi::ServerStatus& s) {
    json::object failures;
    for (std::size_t i = 0; i < iscsi::kLoginFailures.size(); ++i) {
        failures.emplace(iscsi::kLoginFailures[i].name, s.login_failures_by_status[i]);
    }
    return {{"sessions", s.sessions.size()},
            {"logging_in", s.logging_in},
            {"logins", s.logins},
            {"login_failures", s.login_failures},
            {"login_failures_by_status", std::move(failures)},
            {"refused_connections", s.refused_connections},
            {"protocol_errors", s.protocol_errors}};
}

json::object target_json(const config::Target& target) {
    json::array luns;
    for (const config::Lun& lun : target.luns) {
        json::array initiators(lun.initiators.begin(), lun.initiators.end());
        luns.push_back(json::object{{"lun", lun.lun},
                                    {"volume", lun.volume},
                                    {"block_bytes", lun.block_bytes},
                                    {"write_cache", lun.write_cache == config::WriteCache::kNone ? "none" : "volatile"},
                                    {"read_only", lun.read_only || lun.severed_copy},
                                    {"severed_copy", lun.severed_copy},
                                    {"initiators", std::move(initiators)}});
    }
    return {{"iqn", target.iqn},
            {"alias", target.alias},
            {"luns", std::move(luns)},
            {"chap", !target.chap.users.empty()},
            {"mutual_chap", !target.chap.own.empty()}};
}

}  // namespace gemel
