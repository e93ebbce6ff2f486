// SPDX-License-Identifier: Apache-2.0
// Replicator: the replication engine of one node (NS-1 to NS-9). It wraps each volume in a mirror (a BlockDevice that a
// LUN exports), keeps one link to each peer node, and offers the operations on pairs.
//
// Threads: everything lives on the executor `home`; every task may be started on any executor and ends on the caller's.
// A mirror's reads, and all I/O of an unpaired volume, never leave the caller's executor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/environment.hpp"
#include "gemel/volume_store.hpp"

namespace gemel::replication {

/// What a primary does when its peer is lost.
enum class PeerLoss : std::uint8_t {
    kContinue,  ///< go on alone after the deadline, changed tracks recorded
    kFreeze,    ///< answer kNotReady until the peer is back or an operator promotes with force
};

struct PeerConfig {
    std::string node;     ///< name of the peer node
    std::string address;  ///< where its replication port is: "host:port"
};

struct NodeConfig {
    std::string node;           ///< this node's name, 1..64 characters, different from every peer's
    std::string iscsi_address;  ///< this node's iSCSI node name (NS-4), for status and messages
    std::string listen;         ///< replication port; empty: do not listen
    std::vector<PeerConfig> peers;
    Duration ping_interval = std::chrono::seconds(1);
    Duration dead_after = std::chrono::seconds(3);      ///< nothing received for so long: the link is dead
    Duration ack_timeout = std::chrono::seconds(2);     ///< no acknowledgement for so long: reconnect
    std::uint32_t tries = 3;                            ///< N of NS-6: reconnects before the association ends
    std::uint32_t frame_bytes = 256 * 1024;             ///< largest payload of a frame (NS-5); 4 KiB..1 MiB
    Duration flush_interval = std::chrono::seconds(1);  ///< both legs are flushed so often while there are writes
    Duration retry_interval = std::chrono::seconds(5);  ///< a refused or failed pair is negotiated again
    std::uint64_t resync_bytes_per_second = 0;          ///< 0: no limit
    std::uint32_t resync_depth = 8;                     ///< resync frames in flight
    PeerLoss on_peer_loss = PeerLoss::kContinue;
};

enum class Role : std::uint8_t { kSecondary, kPrimary };

/// Durable state of one side of a pair.
enum class PairState : std::uint8_t {
    kUnpaired,
    kPreparing,     ///< secondary between the two phases of establish
    kMirrored,      ///< copies equal but for the regions in the primary's map
    kLogging,       ///< the primary goes on alone; resynced as soon as the peer is back
    kSevered,       ///< by an operator; resynced only by re-establish
    kResyncSource,  ///< its changed tracks are being copied to the peer
    kResyncTarget,  ///< inconsistent until the resync is complete
    kSplitBrain,    ///< both sides were written alone
    kNeedFull,      ///< metadata damaged: only a full copy helps
};
[[nodiscard]] std::string_view role_name(Role role);
/// Stable, kebab-case: "unpaired", "resync-source".
[[nodiscard]] std::string_view pair_state_name(PairState state);

struct ResyncStatus {
    bool running = false;
    bool outgoing = false;  ///< this node is the source; means nothing unless running
    std::uint64_t done_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t bytes_per_second = 0;
    std::int64_t seconds_left = -1;  ///< -1: not known
};

struct PairStatus {
    std::string volume;
    std::string peer_node;  ///< empty while unpaired
    std::string peer_volume;
    std::string peer_address;  ///< of the peer's iSCSI node, once it has been heard of
    Role role = Role::kPrimary;
    PairState state = PairState::kUnpaired;
    bool connected = false;  ///< the link is up and the pair has been negotiated
    bool serving = true;     ///< hosts are served here
    std::string reason;      ///< why it is not serving or not mirrored; empty when all is well
    std::uint64_t sectors = 0;
    std::uint64_t term = 0;
    std::uint64_t generation = 0;
    std::uint64_t sequence_local = 0;     ///< last sent (primary) or accepted (secondary)
    std::uint64_t sequence_received = 0;  ///< last that the secondary has acknowledged
    std::uint64_t sequence_durable = 0;   ///< last known durable on the secondary
    std::uint64_t dirty_bytes = 0;        ///< changed tracks not yet on the peer
    std::uint64_t region_bytes = 0;       ///< regions that may differ after a crash
    std::uint64_t held_frames = 0;        ///< sent, not yet acknowledged
    ResyncStatus resync;
    std::string last_error;
    bool uncertain = false;  ///< a record of the pair's state failed: after a start it may be newer than this (PM6)
    std::int64_t last_ack_age_ms = -1;
    std::uint64_t frames_sent = 0;
    std::uint64_t bytes_sent = 0;  ///< payload of host writes
    std::uint64_t frames_received = 0;
    std::uint64_t bytes_received = 0;
    std::uint64_t resync_bytes_sent = 0;  ///< payload of all resyncs since the daemon started; zeros cost none
};

struct EstablishRequest {
    std::string volume;
    std::string peer;         ///< node name
    std::string peer_volume;  ///< empty: the same name
    bool overwrite = false;   ///< go on although the peer's volume is not blank
};

class Node;

class Replicator {
  public:
    /// REQUIRES: `env`, `home` and every store added outlive it. stop() must end before it is destroyed, if start() was
    /// called.
    Replicator(Environment& env, NodeConfig config, Executor& home);
    ~Replicator();
    Replicator(const Replicator&) = delete;
    Replicator& operator=(const Replicator&) = delete;

    /// The device that a LUN of this volume exports; lives as long as the Replicator. It answers kNotReady until
    /// start(). REQUIRES: the store has the volume; each volume at most once, before start().
    BlockDevice& add_volume(VolumeStore& store, std::string_view volume);

    /// Recovers the pairs, listens, dials. Errors: a wrong config, the port in use.
    Task<Result<void>> start();
    /// Ends links and waiting I/O (kAborted, never acknowledged); always terminates. Pairs stay as they are durably.
    Task<void> stop();

    /// Makes `volume` the primary of a new pair and starts the full initial copy. Every check is made on both sides
    /// before anything changes. Errors: kNotFound, kAlreadyExists, kSizeMismatch, kNeedsForce (the peer's volume is
    /// not blank), kNotReady (no contact).
    Task<Result<void>> establish(EstablishRequest request);
    /// Ends the mirroring, on both sides when the peer can be reached; kNeedsForce when it cannot.
    Task<Result<void>> sever(std::string volume, bool force);
    /// Mirrors again; only the changed tracks are sent. `from_node` names the side whose data is kept and may be empty
    /// where only one side was written. kSplitBrain: it must be named. `force`: full copy where no common base is
    /// known, or the data of a serving primary is given up.
    Task<Result<void>> re_establish(std::string volume, std::string from_node, bool force);
    /// Success: durable on both sides. kNeedsForce: to shrink. kNoSpace: which side. Any other error leaves both sides
    /// as they were, or says that this side has the new size and the other takes it when they are in step again.
    Task<Result<void>> resize(std::string volume, SectorCount sectors, bool force_shrink);
    /// Makes this node the primary. kNeedsForce without contact; both nodes may then be live.
    Task<Result<void>> promote(std::string volume, bool force);

    /// Every volume added, in order of name.
    Task<std::vector<PairStatus>> status();
    /// "127.0.0.1:7261" once started; empty if it does not listen.
    [[nodiscard]] std::string listen_address() const;
    /// Connections to the replication port that did not greet as a peer of this node. Threads: any.
    [[nodiscard]] std::uint64_t refused_connections() const;

  private:
    std::unique_ptr<Node> node_;
};

}  // namespace gemel::replication
