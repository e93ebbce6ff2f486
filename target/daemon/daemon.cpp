// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/daemon.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace gemel {

namespace {

Result<void> admit_owner(const Stream& stream) {
    TRY(const PeerCredentials peer, peer_credentials(stream));
    if (peer.uid == 0 || peer.uid == ::geteuid()) {
        return {};
    }
    return fail(Errc::kRefused,
                fmt::format("user {} may not manage this daemon; root and user {} may", peer.uid, ::geteuid()));
}

std::vector<Executor*> io_executors(ProcessorPool& processors) {
    std::vector<Executor*> out;
    for (std::size_t i = 0; i < processors.io_count(); ++i) {
        out.push_back(&processors.io(i));
    }
    return out;
}

config::Config with_defaults(config::Config config) {
    if (config.node.name.empty()) {
        config.node.name = "gemel";
    }
    if (config.portals.empty()) {
        config.portals.push_back({"127.0.0.1:3260", {}});
    }
    if (config.daemon.admin_socket.empty()) {
        config.daemon.admin_socket = "admin.sock";
    }
    return config;
}

std::string counted(std::size_t n, std::string_view what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

/// For when_both(): a task that only ends.
Task<bool> ended(Task<void> task) {
    co_await std::move(task);
    co_return true;
}

replication::NodeConfig node_config(const config::Config& config) {
    replication::NodeConfig out;
    out.node = config.node.name;
    out.iscsi_address = config.targets.empty() ? "iqn.2026-11.dev.gemel:" + config.node.name : config.targets[0].iqn;
    out.listen = config.replication.listen;
    for (const config::Peer& peer : config.peers) {
        out.peers.push_back({peer.node, peer.address});
    }
    out.ack_timeout = config.replication.ack_timeout;
    out.tries = config.replication.tries;
    out.frame_bytes = config.replication.frame_bytes;
    out.on_peer_loss = config.replication.on_peer_loss == config::OnPeerLoss::kFreeze
                           ? replication::PeerLoss::kFreeze
                           : replication::PeerLoss::kContinue;
    return out;
}

iscsi::ChapSecrets chap_secrets(const config::Secrets& secrets, config::ChapAlgorithm weakest) {
    constexpr std::array kAlgorithms{
        std::pair{config::ChapAlgorithm::kMd5, iscsi::ChapAlgorithm::kMd5},
        std::pair{config::ChapAlgorithm::kSha1, iscsi::ChapAlgorithm::kSha1},
        std::pair{config::ChapAlgorithm::kSha256, iscsi::ChapAlgorithm::kSha256},
        std::pair{config::ChapAlgorithm::kSha3_256, iscsi::ChapAlgorithm::kSha3_256},
    };
    iscsi::ChapSecrets out;
    for (const config::Secrets::User& user : secrets.users) {
        out.users.push_back({user.name, user.secret, user.initiators});
    }
    for (const config::Secrets::Own& own : secrets.own) {
        out.own.push_back({own.name, own.secret});
    }
    out.weakest = std::ranges::find(kAlgorithms, weakest, [](const auto& row) { return row.first; })->second;
    return out;
}

std::unexpected<StartFailure> failed(DaemonExit exit, Error error) {
    return std::unexpected(StartFailure{exit, std::move(error)});
}

}  // namespace

Daemon::Daemon(Runtime& runtime, admin::EventRing& events, StateDirectory& state, DaemonOptions options)
    : runtime_(runtime),
      events_(events),
      state_(state),
      config_(with_defaults(std::move(options.config))),
      force_(std::move(options.force)),
      version_(std::move(options.version)),
      secrets_(std::move(options.secrets)),
      environment_(runtime.environment()),
      started_(environment_.clock.now()),
      space_(environment_, [this](const std::string& array) { space_low(array); }),
      alerts_(environment_, events_, config_.node.name, config_.alerts) {}

Daemon::~Daemon() = default;

std::string Daemon::socket_path() const {
    return state_.resolve(config_.daemon.admin_socket);
}

Result<void> Daemon::probe_ports() {
    std::vector<std::string> addresses;
    for (const config::Portal& portal : config_.portals) {
        addresses.push_back(portal.address);
    }
    if (replicates()) {
        addresses.push_back(config_.replication.listen);
    }
    for (const std::string& address : addresses) {
        TRY(const std::unique_ptr<Listener> listener, environment_.network.listen(address));
        listener->close();
    }
    return {};
}

Result<void> Daemon::make_peer_network() {
    std::vector<tls::TlsPeer> peers;
    for (const config::Peer& peer : config_.peers) {
        if (peer.key_file.empty()) {
            continue;
        }
        const Result<tls::PairKey> key = tls::read_pair_key(state_.resolve(peer.key_file));
        if (!key) {
            return fail(key.error().code, fmt::format("peer '{}': {}", peer.node, key.error().message));
        }
        if (const auto other = std::ranges::find(peers, *key, &tls::TlsPeer::key); other != peers.end()) {
            return fail(Errc::kInvalidArgument,
                        fmt::format("peers '{}' and '{}' have the same key, so that each could be the other; make one "
                                    "for each pair of nodes",
                                    other->node, peer.node));
        }
        peers.push_back({peer.node, peer.address, *key});
    }
    if (!peers.empty()) {
        peer_network_ = std::make_unique<tls::TlsNetwork>(environment_.network, config_.node.name, std::move(peers));
    } else if (config_.replication.insecure_no_key) {
        events_.emit({Severity::kWarning, "peer-links-open", "node " + config_.node.name,
                      "the links to its peers are neither encrypted nor authenticated (insecure_no_key)",
                      "give every [[peer]] a key_file"});
    }
    const Environment& e = environment_;
    Network& network = peer_network_ ? *peer_network_ : e.network;
    peer_environment_.emplace(e.clock, e.random, e.buffers, e.events, network, e.boot_id);
    return {};
}

/// REQUIRES: it is one of `config_`, which does not change meanwhile.
Task<Result<StartedArray>> Daemon::start_one(const config::Array& array) {
    std::vector<raid::VolumeSpec> volumes;
    for (const config::Volume& v : config_.volumes) {
        if (v.array == array.name) {
            volumes.push_back({v.name, v.bytes});
        }
    }
    // The one that takes all that is left comes last.
    std::ranges::partition(volumes, [](const raid::VolumeSpec& v) { return v.bytes != 0; });
    // What the arrays keep there hosts cannot use: an eighth of it in all.
    const std::uint64_t most_cache = config_.daemon.memory_bytes / 8 / std::max<std::size_t>(1, config_.arrays.size());
    co_return co_await start_array({environment_, state_, array, std::move(volumes),
                                    io_executors(runtime_.processors()), force_.contains(array.name), most_cache});
}

Task<std::expected<void, StartFailure>> Daemon::start_arrays() {
    for (const config::Array& array : config_.arrays) {
        auto started = co_await start_one(array);
        if (!started) {
            const bool force = started.error().code == Errc::kNeedsForce;
            co_return failed(force ? DaemonExit::kNeedsForce : DaemonExit::kArray, std::move(started).error());
        }
        arrays_.push_back(*std::move(started));
    }
    co_return std::expected<void, StartFailure>{};
}

/// Of a volume that is, or was, one of a pair, the array's log has records.
std::vector<std::string> Daemon::paired_volumes() const {
    std::vector<std::string> out;
    for (const StartedArray& started : arrays_) {
        for (const VolumeInfo& info : started.array->volumes()) {
            const auto records = started.array->log().recovered(kLogClientPair | info.number);
            if (records && !records->empty()) {
                out.push_back(info.name);
            }
        }
    }
    return out;
}

/// Pairs are kept without [replication], too: else nobody knew what was written meanwhile, a secondary would serve what
/// it happens to hold, and the records, which nobody drops, would fill the log.
Result<void> Daemon::add_volumes() {
    const std::vector<std::string> paired = replicates() ? std::vector<std::string>() : paired_volumes();
    for (const std::string& volume : paired) {
        events_.emit({Severity::kWarning, "replication-not-configured", "volume " + volume,
                      "it is one of a pair, and the configuration has no [replication]",
                      "add [replication] and the [[peer]] to the configuration"});
    }
    if (replicates() || !paired.empty()) {
        replicator_ = std::make_unique<replication::Replicator>(*peer_environment_, node_config(config_),
                                                                runtime_.processors().io(0));
    }
    for (const StartedArray& started : arrays_) {
        for (const VolumeInfo& info : started.array->volumes()) {
            if (volumes_.contains(info.name)) {
                return fail(Errc::kAlreadyExists, fmt::format("two arrays have a volume '{}', the second is array '{}'",
                                                              info.name, started.array->status().name));
            }
            BlockDevice* device = replicator_ != nullptr ? &replicator_->add_volume(*started.array, info.name)
                                                         : started.array->find(info.name);
            volumes_[info.name] = {started.array.get(), device, info.number};
        }
    }
    for (const config::Volume& v : config_.volumes) {
        if (!volumes_.contains(v.name)) {
            events_.emit({Severity::kWarning, "volume-not-in-array", "volume " + v.name,
                          fmt::format("the configuration has it, the durable table of array '{}' has not", v.array),
                          "volumes are made when the array is created; remove it from the configuration"});
        }
    }
    return {};
}

scsi::LunOptions Daemon::unit_options(const config::Lun& lun) const {
    scsi::LunOptions options;
    options.block_bytes = lun.block_bytes;
    options.read_only = lun.read_only;
    options.thin = lun.thin;
    // They are not sent to the peer: what one node says would not hold on the other, and a fence that is none is worse.
    options.persistent_reservations = !replicates();
    options.removable = lun.removable;
    options.write_cache =
        lun.write_cache == config::WriteCache::kNone ? scsi::WriteCache::kNone : scsi::WriteCache::kVolatile;
    return options;
}

/// Its persistent reservations, or nothing where they cannot be told: then the volume is no LUN.
Task<std::optional<scsi::Reservations>> Daemon::open_reservations(const std::string& name, const Volume& volume) {
    ReservationLog& log = *reservations_.at(name);
    Result<scsi::Reservations> reservations = co_await log.open();
    if (reservations) {
        co_return *std::move(reservations);
    }
    const std::string array = volume.array->status().name;
    const Result<void> forgotten =
        force_.contains(array) ? co_await log.forget() : fail(Errc::kNeedsForce, "without --force " + array);
    if (forgotten) {
        events_.emit({Severity::kWarning, "reservations-forgotten", "volume " + name,
                      "its persistent reservations could not be read (" + reservations.error().message +
                          "); by --force it goes on without",
                      "hosts that had some register again"});
        co_return scsi::Reservations();
    }
    events_.emit(
        {Severity::kError, "reservations-lost", "volume " + name,
         "its persistent reservations cannot be read, so it is not known which hosts may write: it is no LUN (" +
             reservations.error().message + "; " + forgotten.error().message + ")",
         "see to it that no fenced host writes, then start gemeld with --force " + array});
    co_return std::nullopt;
}

Result<void> Daemon::make_unit(const config::Target& target, const config::Lun& lun, const Volume& volume,
                               scsi::Reservations reservations) {
    const scsi::LunOptions options = unit_options(lun);
    if (auto good = scsi::LogicalUnit::check(volume.device->limits(), options); !good) {
        return fail(good.error().code, fmt::format("volume '{}' cannot be LUN {} of {}: {}", lun.volume, lun.lun,
                                                   target.iqn, good.error().message));
    }
    units_[lun.volume] = std::make_unique<scsi::LogicalUnit>(
        environment_, *volume.device, options, reservations_.at(lun.volume).get(), std::move(reservations));
    return {};
}

Task<Result<void>> Daemon::make_units() {
    std::map<std::string, scsi::Reservations> known;
    for (const auto& [name, volume] : volumes_) {
        reservations_[name] =
            std::make_unique<ReservationLog>(volume.array->log(), volume.number, runtime_.processors().io(0));
        if (std::optional<scsi::Reservations> found = co_await open_reservations(name, volume)) {
            known[name] = *std::move(found);
        }
    }
    for (const config::Target& target : config_.targets) {
        for (const config::Lun& lun : target.luns) {
            const auto volume = volumes_.find(lun.volume);
            if (volume != volumes_.end() && known.contains(lun.volume) && !units_.contains(lun.volume)) {
                CO_TRY_VOID(make_unit(target, lun, volume->second, known.at(lun.volume)));
            }
        }
    }
    co_return Result<void>{};
}

iscsi::ServerConfig Daemon::server_config() {
    iscsi::ServerConfig out;
    // The other half is for what arrays and mirrors do with the commands.
    out.limits.data_memory = runtime_.buffers().bound_bytes() / 2;
    for (const config::Portal& portal : config_.portals) {
        out.portals.push_back(portal.address);
    }
    for (const config::Target& target : config_.targets) {
        iscsi::TargetDefinition definition;
        definition.iqn = target.iqn;
        definition.alias = target.alias;
        definition.allowed_initiators = target.allowed_initiators;
        definition.allowed_networks = target.allowed_networks;
        definition.chap = {target.chap.users, target.chap.own};
        for (const config::Lun& lun : target.luns) {
            if (const auto unit = units_.find(lun.volume); unit != units_.end()) {
                definition.luns.push_back({lun.lun, unit->second.get(), lun.initiators, lun.read_only_for, lun.volume});
            }
        }
        out.targets.push_back(std::move(definition));
    }
    out.discovery = {config_.discovery.users, config_.discovery.own};
    out.chap = chap_secrets(secrets_, config_.chap.weakest);
    return out;
}

Result<void> Daemon::start_server() {
    server_ = std::make_unique<iscsi::Server>(environment_, server_config(), runtime_.processors().main(),
                                              io_executors(runtime_.processors()));
    return server_->listen();
}

Result<void> Daemon::start_admin() {
    admin::ServerOptions options;
    options.address = "unix:" + socket_path();
    options.admit = &admit_owner;
    admin_ = std::make_unique<admin::AdminServer>(environment_, std::move(options), *this, events_);
    return admin_->start();
}

Task<std::expected<void, StartFailure>> Daemon::start() {
    alerts_.start();
    if (auto network = make_peer_network(); !network) {
        co_return failed(DaemonExit::kConfig, std::move(network).error());
    }
    if (auto ports = probe_ports(); !ports) {
        co_return failed(DaemonExit::kListen, std::move(ports).error());
    }
    if (auto spares = take_added_spares(); !spares) {
        co_return failed(DaemonExit::kState, std::move(spares).error());
    }
    if (auto arrays = co_await start_arrays(); !arrays) {
        co_return arrays;
    }
    if (auto volumes = add_volumes(); !volumes) {
        co_return failed(DaemonExit::kArray, std::move(volumes).error());
    }
    if (replicator_ != nullptr) {
        if (auto replicating = co_await replicator_->start(); !replicating) {
            const bool port = replicating.error().code == Errc::kBusy;
            co_return failed(port ? DaemonExit::kListen : DaemonExit::kReplication, std::move(replicating).error());
        }
    }
    if (auto units = co_await make_units(); !units) {
        co_return failed(DaemonExit::kConfig, std::move(units).error());
    }
    if (auto admin = start_admin(); !admin) {
        co_return failed(DaemonExit::kState, std::move(admin).error());
    }
    if (auto server = start_server(); !server) {
        co_return failed(DaemonExit::kListen, std::move(server).error());
    }
    for (const config::Array& array : config_.arrays) {
        watch_space(array);
    }
    co_return std::expected<void, StartFailure>{};
}

void Daemon::watch_space(const config::Array& array) {
    WatchedArray watched{array.name, array.thin_soft_threshold, {}};
    for (const config::Member& member : array.members) {
        if (array.thin && member.kind == config::MemberKind::kFile) {
            watched.members.push_back(state_.resolve(member.path));
        }
    }
    if (!watched.members.empty() && space_.add(std::move(watched))) {
        background_.spawn(space_.run(stopping_));
    }
}

void Daemon::space_low(const std::string& array) {
    for (const auto& [name, unit] : units_) {
        if (unit->options().thin && volumes_.at(name).array->status().name == array) {
            unit->raise_all(scsi::Attention::kSoftThreshold);
        }
    }
}

Task<void> Daemon::stop_arrays() {
    Executor& home = Executor::current();
    for (StartedArray& started : arrays_) {
        co_await resume_on(runtime_.processors().io(0));
        const auto stopped = co_await started.array->stop();
        co_await resume_on(home);
        if (!stopped) {
            events_.emit({Severity::kWarning, "array-not-clean", "array " + started.array->status().name,
                          stopped.error().message, "it is made consistent at the next start"});
        }
    }
}

Task<void> Daemon::stop() {
    stopping_.set();
    co_await background_.close();
    for (const StartedArray& started : arrays_) {
        started.array->begin_stop();  // commands in flight may wait for a member that does not answer
    }
    // Both at once: commands in flight may wait for the peer, and the replicator ends that waiting.
    Task<bool> no_server = [](iscsi::Server* s) -> Task<bool> {
        co_return s == nullptr || co_await ended(s->stop());
    }(server_.get());
    Task<bool> no_mirrors = [](replication::Replicator* r) -> Task<bool> {
        co_return r == nullptr || co_await ended(r->stop());
    }(replicator_.get());
    co_await when_both(std::move(no_server), std::move(no_mirrors));
    if (admin_ != nullptr) {
        co_await admin_->stop();
    }
    // Arrays tell units and mirrors what happens to them until they have stopped: only then these may go.
    co_await stop_arrays();
    if (holds_memory()) {
        events_.emit({Severity::kWarning, "member-does-not-answer", "daemon",
                      "a member has not ended all I/O that it was given; the process ends without waiting for it",
                      "check the device"});
    }
    co_await alerts_.stop();
    if (holds_memory()) {
        co_return;  // what its I/O needs stays until the process has ended
    }
    server_.reset();
    admin_.reset();
    units_.clear();
    reservations_.clear();
    volumes_.clear();
    replicator_.reset();
    arrays_.clear();
}

std::string Daemon::summary() const {
    std::string portals;
    for (const std::string& address : server_->portal_addresses()) {
        portals += (portals.empty() ? "" : ", ") + address;
    }
    std::size_t luns = 0;
    for (const config::Target& target : config_.targets) {
        luns += target.luns.size();
    }
    return fmt::format("listening on {} (node {}, {}, {}{}, admin socket {})", portals, config_.node.name,
                       counted(config_.targets.size(), "target"), counted(luns, "LUN"),
                       replicates() ? ", replication on " + replicator_->listen_address() : "", socket_path());
}

}  // namespace gemel
