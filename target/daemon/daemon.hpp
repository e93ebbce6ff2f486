// SPDX-License-Identifier: Apache-2.0
// Daemon: everything of a running gemeld, wired together: members -> arrays -> mirrors -> logical units -> portals, and
// the admin socket beside them.
//
// Invariants:
//   DM1 Nothing is formatted before it is known that every port can be listened on.
//   DM2 Parts are made from the members up and stopped from the hosts down; what a part refers to outlives it.
// Threads: on the main processor.
#pragma once

#include <deque>
#include <expected>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gemel/sync.hpp"
#include "replication/replicator.hpp"
#include "target/admin/event_ring.hpp"
#include "target/admin/management.hpp"
#include "target/admin/server.hpp"
#include "target/config/config.hpp"
#include "target/config/secrets.hpp"
#include "target/daemon/alerts.hpp"
#include "target/daemon/array_start.hpp"
#include "target/daemon/reservation_log.hpp"
#include "target/daemon/space_watch.hpp"
#include "target/iscsi/portal.hpp"
#include "target/runtime/runtime.hpp"
#include "target/scsi/lun.hpp"
#include "target/tls/tls_network.hpp"

namespace gemel {

/// How gemeld ends. Scripts and units depend on the numbers.
enum class DaemonExit : std::uint8_t {
    kOk = 0,
    kInternal = 1,
    kUsage = 2,
    kConfig = 3,       ///< the configuration has mistakes
    kState = 4,        ///< the state directory is in use or cannot be used
    kArray = 5,        ///< an array cannot be started
    kNeedsForce = 6,   ///< an array starts only with --force
    kListen = 7,       ///< an address cannot be listened on
    kReplication = 8,  ///< the replication engine cannot be started
    kResources = 9,    ///< memory, threads, descriptors
};

struct StartFailure {
    DaemonExit exit = DaemonExit::kInternal;
    Error error;
};

struct DaemonOptions {
    config::Config config;
    std::set<std::string> force;  ///< arrays named by --force
    std::string version;
    config::Secrets secrets{};
};

class Daemon final : public admin::Management {
  public:
    /// REQUIRES: everything given outlives it.
    Daemon(Runtime& runtime, admin::EventRing& events, StateDirectory& state, DaemonOptions options);
    /// REQUIRES: stop() has ended, or start() was never called.
    ~Daemon() override;

    /// All of it, or an error; stop() must follow either way.
    Task<std::expected<void, StartFailure>> start();
    Task<void> stop();
    /// After stop(): a device has not ended its I/O. The process is to end as it is, nothing is to be destroyed.
    [[nodiscard]] bool holds_memory() const { return runtime_.buffers().loans() > 0; }
    /// "listening on 127.0.0.1:3260 (node alpha, 1 target, 1 LUN, admin socket /x/admin.sock)". REQUIRES: started.
    [[nodiscard]] std::string summary() const;

    Task<Result<boost::json::value>> status() override;
    Task<Result<boost::json::value>> volume_list() override;
    Task<Result<boost::json::value>> session_list() override;
    Task<Result<boost::json::value>> statistics() override;
    Task<Result<boost::json::value>> mirror_status(std::string volume) override;
    Task<Result<void>> mirror_establish(std::string volume, std::string peer, std::string peer_volume,
                                        bool overwrite) override;
    Task<Result<void>> mirror_sever(std::string volume, bool force) override;
    Task<Result<void>> mirror_re_establish(std::string volume, std::string from, bool force) override;
    Task<Result<void>> mirror_resize(std::string volume, std::uint64_t bytes, bool shrink) override;
    Task<Result<void>> promote(std::string volume, bool force) override;
    Task<Result<boost::json::value>> array_list(std::string array) override;
    Task<Result<void>> array_fail(std::string array, std::uint64_t member, bool force) override;
    Task<Result<void>> array_rebuild(std::string array, std::uint64_t member, std::string with) override;
    Task<Result<void>> array_scrub(std::string array, bool repair) override;
    Task<Result<void>> array_replace(std::string array, std::uint64_t member, std::string with) override;
    Task<Result<void>> array_grow(std::string array) override;
    Task<Result<void>> array_add(std::string array, std::string path, std::uint64_t bytes) override;
    Task<Result<void>> array_remove(std::string array, std::string path) override;
    Task<Result<void>> array_create(std::string definition) override;
    Task<Result<void>> volume_resize(std::string volume, std::uint64_t bytes, bool shrink) override;
    Task<Result<boost::json::value>> job_list() override;
    Task<Result<void>> job_order(std::string array, std::string kind, JobOrder order, std::uint64_t limit) override;

  private:
    /// A volume as hosts see it.
    struct Volume {
        raid::Array* array = nullptr;
        BlockDevice* device = nullptr;  ///< the mirror, or the array's volume where nothing replicates
        std::uint16_t number = 0;       ///< in the array
    };

    Result<void> probe_ports();
    /// Errors: those of read_pair_key(), with the peer.
    Result<void> make_peer_network();
    Task<std::expected<void, StartFailure>> start_arrays();
    Task<Result<StartedArray>> start_one(const config::Array& array);
    /// The configuration with the array of `definition` and its volumes. Errors: kInvalidArgument, kAlreadyExists.
    Result<config::Config> with_array(const std::string& definition) const;
    [[nodiscard]] std::vector<std::string> paired_volumes() const;
    Result<void> add_volumes();
    Task<Result<void>> make_units();
    Task<std::optional<scsi::Reservations>> open_reservations(const std::string& name, const Volume& volume);
    Result<void> make_unit(const config::Target& target, const config::Lun& lun, const Volume& volume,
                           scsi::Reservations reservations);
    [[nodiscard]] scsi::LunOptions unit_options(const config::Lun& lun) const;
    iscsi::ServerConfig server_config();
    Result<void> start_server();
    Result<void> start_admin();
    Task<void> stop_arrays();
    [[nodiscard]] std::string socket_path() const;
    [[nodiscard]] bool replicates() const { return !config_.replication.listen.empty(); }
    /// Errors: kNotFound names the volumes there are; kRefused: this node does not replicate.
    Result<void> check_volume(const std::string& volume) const;
    Result<void> check_mirror(const std::string& volume) const;
    /// Errors: kNotFound names the arrays there are.
    Result<StartedArray*> check_array(const std::string& array);
    Result<raid::MemberSpec> named_device(const StartedArray& started, const std::string& with) const;
    /// Where `array` is thin and its members are files.
    void watch_space(const config::Array& array);
    void space_low(const std::string& array);
    using GivePlace = Task<Result<void>> (raid::Array::*)(std::uint32_t, raid::MemberSpec);
    Task<Result<void>> give_place(std::string array, std::uint64_t member, std::string with, GivePlace give);
    Result<void> take_added_spares();
    using OrderSpare = Task<Result<void>> (raid::Array::*)(raid::MemberSpec);
    Task<Result<void>> order_spare(StartedArray& started, raid::MemberSpec spare, OrderSpare order);
    Task<std::map<std::string, replication::PairStatus>> pairs();
    boost::json::array volumes_json(const std::map<std::string, replication::PairStatus>& pairs) const;

    Runtime& runtime_;
    admin::EventRing& events_;
    StateDirectory& state_;
    config::Config config_;  ///< gets the arrays that are created, and spares that are added
    const std::set<std::string> force_;
    const std::string version_;
    const config::Secrets secrets_;
    Environment environment_;
    const TimePoint started_;

    std::deque<StartedArray> arrays_;  ///< one stays where it is when another is created
    Mutex creations_;
    std::unique_ptr<tls::TlsNetwork> peer_network_;  ///< null: peers have no keys
    std::optional<Environment> peer_environment_;    ///< the replicator's
    std::unique_ptr<replication::Replicator> replicator_;
    std::map<std::string, Volume> volumes_;
    std::map<std::string, std::unique_ptr<ReservationLog>> reservations_;  ///< by name of volume
    std::map<std::string, std::unique_ptr<scsi::LogicalUnit>> units_;      ///< the same
    SpaceWatch space_;
    Event stopping_;
    Gate background_;
    std::unique_ptr<iscsi::Server> server_;
    std::unique_ptr<admin::AdminServer> admin_;
    Alerts alerts_;
};

}  // namespace gemel
