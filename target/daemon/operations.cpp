// SPDX-License-Identifier: Apache-2.0
// The daemon's Management: what the admin protocol asks for.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>

#include "target/daemon/daemon.hpp"
#include "target/daemon/status_json.hpp"

namespace gemel {

namespace json = boost::json;

Result<void> Daemon::check_volume(const std::string& volume) const {
    if (volumes_.contains(volume)) {
        return {};
    }
    std::string all;
    for (const auto& [name, v] : volumes_) {
        all += (all.empty() ? "" : ", ") + name;
    }
    return fail(Errc::kNotFound,
                fmt::format("there is no volume '{}' on node {}; there {} {}", volume, config_.node.name,
                            volumes_.size() == 1 ? "is" : "are", all.empty() ? "none" : all));
}

Result<void> Daemon::check_mirror(const std::string& volume) const {
    TRY_VOID(check_volume(volume));
    if (replicator_ == nullptr) {
        return fail(Errc::kRefused, fmt::format("node {} does not replicate; add [replication] and a [[peer]] to its "
                                                "configuration and start it again",
                                                config_.node.name));
    }
    return {};
}

Task<std::map<std::string, replication::PairStatus>> Daemon::pairs() {
    std::map<std::string, replication::PairStatus> out;
    if (replicator_ != nullptr) {
        for (replication::PairStatus& status : co_await replicator_->status()) {
            out.emplace(status.volume, std::move(status));
        }
    }
    co_return out;
}

json::array Daemon::volumes_json(const std::map<std::string, replication::PairStatus>& pairs) const {
    json::array out;
    for (const auto& [name, volume] : volumes_) {
        json::array luns;
        for (const config::Target& target : config_.targets) {
            for (const config::Lun& lun : target.luns) {
                if (lun.volume == name && !lun.severed_copy) {
                    luns.push_back(json::object{{"target", target.iqn}, {"lun", lun.lun}});
                }
            }
        }
        const auto pair = pairs.find(name);
        const bool mirrored = pair != pairs.end() && pair->second.state != replication::PairState::kUnpaired;
        out.push_back(json::object{{"name", name},
                                   {"array", volume.array->status().name},
                                   {"bytes", bytes_of(volume.device->limits().sectors)},
                                   {"identity", volume.device->identity().text()},
                                   {"serving", pair == pairs.end() || pair->second.serving},
                                   {"luns", std::move(luns)},
                                   {"mirror", mirrored ? json::value(pair_json(pair->second)) : json::value(nullptr)}});
    }
    return out;
}

Task<Result<json::value>> Daemon::status() {
    const auto all_pairs = co_await pairs();
    json::array portals;
    for (const std::string& address : server_ != nullptr ? server_->portal_addresses() : std::vector<std::string>{}) {
        portals.push_back(json::value(address));
    }
    json::array arrays;
    for (const StartedArray& started : arrays_) {
        arrays.push_back(array_json(started.array->status()));
    }
    json::array targets;
    for (const config::Target& target : config_.targets) {
        targets.push_back(target_json(target));
    }
    const Duration up = environment_.clock.now() - started_;
    co_return json::value(
        json::object{{"node", config_.node.name},
                     {"version", version_},
                     {"pid", ::getpid()},
                     {"uptime_seconds", std::chrono::duration_cast<std::chrono::seconds>(up).count()},
                     {"io_processors", runtime_.processors().io_count()},
                     {"state_directory", state_.path()},
                     {"portals", std::move(portals)},
                     {"replication_listen", replicator_ != nullptr ? replicator_->listen_address() : std::string()},
                     {"replication_refused", replicator_ != nullptr ? replicator_->refused_connections() : 0},
                     {"arrays", std::move(arrays)},
                     {"volumes", volumes_json(all_pairs)},
                     {"targets", std::move(targets)},
                     {"iscsi", server_ != nullptr ? json::value(iscsi_json(server_->status())) : json::value(nullptr)},
                     {"memory", json::object{{"bound_bytes", runtime_.buffers().bound_bytes()},
                                             {"in_use_bytes", runtime_.buffers().outstanding_bytes()}}},
                     {"last_event", events_.last()}});
}

Task<Result<json::value>> Daemon::volume_list() {
    co_return json::value(volumes_json(co_await pairs()));
}

Task<Result<json::value>> Daemon::session_list() {
    json::array out;
    if (server_ != nullptr) {
        for (const iscsi::SessionStatus& session : server_->status().sessions) {
            out.push_back(session_json(session));
        }
    }
    co_return json::value(std::move(out));
}

Task<Result<json::value>> Daemon::statistics() {
    const bool serves = server_ != nullptr;
    json::object out = statistics_json(serves ? server_->statistics() : iscsi::ServerStatistics{});
    out["logins"] = serves ? json::value(iscsi_json(server_->status())) : json::value(nullptr);
    co_return json::value(std::move(out));
}

Task<Result<void>> Daemon::reload() {
    co_return reload_secrets();
}

Task<Result<json::value>> Daemon::mirror_status(std::string volume) {
    if (!volume.empty()) {
        CO_TRY_VOID(check_mirror(volume));
    }
    json::array out;
    for (const auto& [name, status] : co_await pairs()) {
        if (volume.empty() ? status.state != replication::PairState::kUnpaired : name == volume) {
            out.push_back(pair_json(status));
        }
    }
    co_return json::value(std::move(out));
}

Task<Result<void>> Daemon::mirror_establish(std::string volume, std::string peer, std::string peer_volume,
                                            bool overwrite) {
    CO_TRY_VOID(check_mirror(volume));
    if (std::ranges::find(config_.peers, peer, &config::Peer::node) == config_.peers.end()) {
        co_return fail(Errc::kNotFound, fmt::format("node '{}' is not a peer of node {}; add a [[peer]] to its "
                                                    "configuration",
                                                    peer, config_.node.name));
    }
    co_return co_await replicator_->establish({volume, peer, peer_volume, overwrite});
}

Task<Result<void>> Daemon::mirror_sever(std::string volume, bool force) {
    CO_TRY_VOID(check_mirror(volume));
    co_return co_await replicator_->sever(volume, force);
}

Task<Result<void>> Daemon::mirror_re_establish(std::string volume, std::string from, bool force) {
    CO_TRY_VOID(check_mirror(volume));
    co_return co_await replicator_->re_establish(volume, from, force);
}

Task<Result<void>> Daemon::mirror_resize(std::string volume, std::uint64_t bytes, bool shrink) {
    CO_TRY_VOID(check_volume(volume));
    if (bytes == 0 || bytes % kBlockBytes != 0) {
        co_return fail(Errc::kInvalidArgument,
                       fmt::format("{} bytes is not a size of a volume; expected a multiple of 4096", bytes));
    }
    const Volume& found = volumes_.at(volume);
    if (sectors_of(bytes) < found.device->limits().sectors && !shrink) {
        co_return fail(Errc::kNeedsForce, fmt::format("volume '{}' would become smaller and lose what lies beyond; say "
                                                      "--shrink if that is meant",
                                                      volume));
    }
    if (replicator_ != nullptr) {
        co_return co_await replicator_->resize(volume, sectors_of(bytes), shrink);
    }
    co_return co_await found.array->resize(volume, sectors_of(bytes));
}

Task<Result<void>> Daemon::mirror_verify(std::string volume, std::string order) {
    using replication::VerifyOrder;
    struct Order {
        std::string_view name;
        VerifyOrder order;
    };
    constexpr std::array kOrders{
        Order{"check", VerifyOrder::kCheck},   Order{"repair", VerifyOrder::kRepair},
        Order{"pause", VerifyOrder::kPause},   Order{"resume", VerifyOrder::kResume},
        Order{"cancel", VerifyOrder::kCancel},
    };
    CO_TRY_VOID(check_mirror(volume));
    const auto* const row = std::ranges::find(kOrders, order, &Order::name);
    if (row == kOrders.end()) {
        co_return fail(
            Errc::kInvalidArgument,
            fmt::format("'{}' is no order for a verify; expected check, repair, pause, resume or cancel", order));
    }
    co_return co_await replicator_->verify(volume, row->order);
}

Task<Result<void>> Daemon::volume_resize(std::string volume, std::uint64_t bytes, bool shrink) {
    CO_TRY_VOID(check_volume(volume));
    const auto all = co_await pairs();
    const auto pair = all.find(volume);
    if (pair != all.end() && pair->second.state != replication::PairState::kUnpaired) {
        co_return fail(Errc::kRefused,
                       fmt::format("volume '{}' is mirrored: both of its copies have one size, which changes by "
                                   "agreement of the nodes; use 'gemel mirror resize {} SIZE' on its primary",
                                   volume, volume));
    }
    co_return co_await mirror_resize(std::move(volume), bytes, shrink);
}

Task<Result<void>> Daemon::promote(std::string volume, bool force) {
    CO_TRY_VOID(check_mirror(volume));
    co_return co_await replicator_->promote(volume, force);
}

}  // namespace gemel
