// SPDX-License-Identifier: Apache-2.0
// The configuration of a daemon as plain values: what the TOML file says, checked as far as the file alone allows.
//
// Invariants:
//   CF1 parse() reports every mistake of the file at once, each with its line and column, what is wrong there and what
//       was expected; a Config is returned only if there is none.
//   CF2 No I/O: paths are not opened, names are not resolved. Whether members exist, fit or are blank is found out when
//       they are opened.
// Threads: values and pure functions.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/clock.hpp"
#include "gemel/ip_network.hpp"

namespace gemel::config {

/// Where in the file something stands; both from 1, 0 when it is nowhere (a default, a command line option).
struct Place {
    std::uint32_t line = 0;
    std::uint32_t column = 0;
};

struct Mistake {
    Place place;
    std::string message;
};

enum class MemberKind : std::uint8_t { kFile, kBlock, kMemory };
enum class WriteCache : std::uint8_t { kVolatile, kNone };
/// What an array knows after a crash: nothing, what its dirty stripe journal lists, or all that was written; kPpl: what
/// is listed, and all else also if a member is lost with it (level 5).
enum class Journal : std::uint8_t { kResync, kJournal, kRedo, kPpl };
/// From the weakest to the strongest.
enum class ChapAlgorithm : std::uint8_t { kMd5, kSha1, kSha256, kSha3_256 };
enum class AlertKind : std::uint8_t { kExec, kWebhook, kMail };
enum class AlertSeverity : std::uint8_t { kInfo, kWarning, kError };
enum class OnPeerLoss : std::uint8_t { kContinue, kFreeze };

struct Node {
    std::string name;  ///< what the peer calls this node
};

struct Daemon {
    std::uint32_t io_processors = 0;          ///< 0: as many as the machine has cores
    std::uint64_t memory_bytes = 512U << 20;  ///< bound of all buffers together
    std::string admin_socket;                 ///< relative to the state directory; empty: admin.sock
    bool insecure_no_auth = false;            ///< portals beyond loopback are accepted although a target is open
};

struct Portal {
    std::string address;  ///< "host:port"
    Place place;
};

struct Member {
    MemberKind kind = MemberKind::kFile;
    std::string path;         ///< empty for memory
    std::uint64_t bytes = 0;  ///< 0: the file or device as it is
    Place place;
};

struct Array {
    std::string name;
    std::string level;  ///< name of a LevelRule
    std::uint32_t strip_bytes = 64U << 10;
    Journal journal = Journal::kJournal;
    std::optional<bool> checksums;  ///< nothing: by level and kind of members
    std::uint64_t checksum_cache_bytes = 64U << 20;
    std::uint64_t stripe_cache_bytes = 16U << 20;  ///< 0: none
    bool create = false;
    bool thin = false;                       ///< members give back what hosts discard
    std::uint32_t thin_soft_threshold = 90;  ///< percent of a file system that holds members of a thin array
    Duration member_timeout = std::chrono::seconds(30);
    std::vector<Member> members;
    std::vector<Member> spares;
    Place place;

    /// Memory members are made anew at each start, and the array with them.
    [[nodiscard]] bool in_memory() const { return !members.empty() && members.front().kind == MemberKind::kMemory; }
};

struct Volume {
    std::string name;
    std::string array;
    std::uint64_t bytes = 0;  ///< 0: all that is left in the array
    Place place;
    Place array_place;
};

struct Lun {
    std::uint64_t lun = 0;
    std::string volume;
    std::uint32_t block_bytes = 512;
    WriteCache write_cache = WriteCache::kVolatile;
    bool read_only = false;
    bool thin = false;
    bool removable = false;
    bool severed_copy = false;  ///< not the volume but its copy, to be read while this node is a severed secondary
    std::vector<std::string> initiators;     ///< who sees it, lower case; empty: any; '*' stands for any text
    std::vector<std::string> read_only_for;  ///< who cannot write to it, likewise; empty: nobody
    Place place;
    Place volume_place;
};

/// Who has to prove himself by CHAP; the names are those of the secrets file.
struct ChapGate {
    std::vector<std::string> users;  ///< empty: nobody has to
    std::string own;                 ///< as whom the target proves itself; empty: it does not
    Place users_place;
    Place own_place;
};

struct Chap {
    std::string secrets;  ///< path, relative to the state directory; empty: there is no CHAP
    ChapAlgorithm weakest = ChapAlgorithm::kMd5;
};

struct Target {
    std::string iqn;
    std::string alias;
    std::vector<Lun> luns;
    std::vector<std::string> allowed_initiators;  ///< lower case; empty: any; '*' stands for any text
    std::vector<IpNetwork> allowed_networks;      ///< empty: any
    ChapGate chap;
    Place place;

    /// Whoever reaches a portal may use it. An entry that all names, or all addresses of a family, fit keeps nobody
    /// out; several that do so together are not seen through.
    [[nodiscard]] bool open() const;
};

struct Replication {
    std::string listen;  ///< empty: this node does not replicate
    std::uint32_t tries = 3;
    Duration ack_timeout = std::chrono::seconds(2);
    std::uint32_t frame_bytes = 256U << 10;
    OnPeerLoss on_peer_loss = OnPeerLoss::kContinue;
    bool insecure_no_key = false;  ///< peers beyond loopback are spoken to without a key, unencrypted
    Place place;
};

struct Peer {
    std::string node;
    std::string address;
    std::string key_file;  ///< relative to the state directory; empty: the link is not encrypted
    Place place;
};

/// Who is told of events, and how.
struct Alert {
    std::string name;
    AlertSeverity severity = AlertSeverity::kWarning;  ///< and above
    AlertKind kind = AlertKind::kExec;
    std::vector<std::string> exec;  ///< kExec: program and arguments
    std::string to;                 ///< kWebhook: URL; kMail: address
    std::string sendmail = "/usr/sbin/sendmail";
    Duration interval = std::chrono::seconds(1);  ///< from one delivery to the next at least
    Place place;
};

struct Config {
    Node node;
    Daemon daemon;
    std::vector<Portal> portals;
    std::vector<Array> arrays;
    std::vector<Volume> volumes;
    std::vector<Target> targets;
    Chap chap;
    ChapGate discovery;
    Replication replication;
    std::vector<Peer> peers;
    std::vector<Alert> alerts;
};

/// What an array level demands; the caller makes the list from the level table of raid/.
struct LevelRule {
    std::string name;
    std::uint32_t min_members = 1;
    std::uint32_t max_members = 32;
    std::uint32_t step = 1;  ///< 2: an even number of members
};

/// The names of the arrays in a file, whatever else is in it; none if it is not TOML.
std::vector<std::string> array_names(std::string_view toml_text);

/// Reads and checks a whole file. Mistakes are in the order of their places.
std::expected<Config, std::vector<Mistake>> parse(std::string_view toml, std::span<const LevelRule> levels);

/// The rules that concern several tables at once; parse() applies them. A caller that changed the config afterwards
/// (portals given on the command line) applies them again.
std::vector<Mistake> check(const Config& config, std::span<const LevelRule> levels);

/// "file:12:3: error: message", one line each.
std::string render(std::span<const Mistake> mistakes, std::string_view file);

}  // namespace gemel::config
