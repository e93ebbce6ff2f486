// SPDX-License-Identifier: Apache-2.0
// The run of a history: what it is made of, its rounds, and its end.
#include "tests/sim/replication_world.hpp"

#include <bit>

namespace gemel::sim {

using namespace std::chrono_literals;
using replication::PairState;
using replication::PairStatus;
using replication::Role;

namespace {

constexpr std::uint64_t kLeastWrites = 100;
constexpr std::uint64_t kLeastFaults = 10;
constexpr std::uint64_t kMostRounds = 200;
constexpr Duration kLongestWait = 10s;
/// Such that the histories of seeds.txt that are older than these faults have none of them.
constexpr std::uint64_t kDiskSalt = 0x4449534c55ULL;
constexpr std::uint64_t kVerifySalt = 0x5645524946ULL;
constexpr Duration kPatience = 120s;  ///< virtual time within which anything healthy has ended

}  // namespace

ReplicationWorld::ReplicationWorld(const HistoryOptions& options)
    : scheduler_(options.seed),
      random_(options.seed ^ 0x5245504cULL),
      disk_random_(options.seed ^ kDiskSalt),
      verify_random_(options.seed ^ kVerifySalt),
      chronicle_(scheduler_, options),
      network_(scheduler_, options.seed) {}

ReplicationWorld::~ReplicationWorld() = default;

HistoryResult run_replication_history(const HistoryOptions& options) {
    return ReplicationWorld(options).run();
}

/// As likely to be short as long.
Duration ReplicationWorld::log_random(Duration least, Duration most) {
    const auto ratio = static_cast<std::uint64_t>(most / least);
    const auto shift = random_.below(static_cast<std::uint64_t>(std::bit_width(ratio)));
    const auto base = static_cast<std::uint64_t>(least.count()) << shift;
    return Duration(base + random_.below(base));
}

SimNodeOptions ReplicationWorld::choose_node(const char* name, const char* peer, std::uint64_t volume_bytes) {
    struct Shape {
        const char* level;
        std::uint32_t members;
    };
    constexpr std::array shapes{Shape{"0", 1}, Shape{"0", 1}, Shape{"1", 2}, Shape{"5", 3},
                                Shape{"5", 5}, Shape{"6", 4}, Shape{"10", 4}};
    const Shape& shape = shapes[random_.below(shapes.size())];
    SimNodeOptions o{.name = name, .level = shape.level, .members = shape.members};
    o.volume_bytes = volume_bytes;
    o.data_bytes = volume_bytes + (1U << 20U);
    o.shards = pick(3) ? 4 : 1;
    o.replication.node = name;
    o.replication.iscsi_address = std::string("iqn.2026-11.dev.gemel:") + name;
    o.replication.listen = std::string(name) + ":7261";
    o.replication.peers = {{peer, std::string(peer) + ":7261"}};
    return o;
}

void ReplicationWorld::choose() {
    const std::uint64_t volume_bytes = (8 + random_.below(40)) * 65536;
    freeze_ = pick(8);
    const bool quick = pick(2);
    for (std::size_t i = 0; i < 2; ++i) {
        SimNodeOptions o = choose_node(i == 0 ? "alpha" : "beta", i == 0 ? "beta" : "alpha", volume_bytes);
        if (quick) {
            o.replication.ping_interval = 200ms;
            o.replication.dead_after = 700ms;
            o.replication.ack_timeout = 400ms;
            o.replication.flush_interval = 200ms;
            o.replication.retry_interval = 1s;
        }
        o.replication.frame_bytes = 8192U << random_.below(6);
        o.replication.on_peer_loss = freeze_ ? replication::PeerLoss::kFreeze : replication::PeerLoss::kContinue;
        chronicle_.say(o.name + ": level " + o.level + ", " + std::to_string(o.members) + " members, " +
                       std::to_string(o.shards) + " shards, frame " + std::to_string(o.replication.frame_bytes));
        nodes_[i] = std::make_unique<SimNode>(scheduler_, network_, chronicle_, random_.next() >> 8U, std::move(o));
    }
    chronicle_.say("volume of " + std::to_string(volume_bytes / kSectorBytes) + " sectors" +
                   (freeze_ ? ", freeze" : "") + (quick ? ", quick" : ""));
    constexpr std::array all{
        Fault{4, &ReplicationWorld::partition},        Fault{3, &ReplicationWorld::block_one_way},
        Fault{4, &ReplicationWorld::break_connection}, Fault{4, &ReplicationWorld::damage_stream},
        Fault{2, &ReplicationWorld::slow_network},     Fault{2, &ReplicationWorld::slow_disks},
        Fault{4, &ReplicationWorld::crash_secondary},  Fault{4, &ReplicationWorld::crash_primary},
        Fault{1, &ReplicationWorld::crash_both},       Fault{1, &ReplicationWorld::fail_secondary_array},
    };
    // Classes of faults are switched off at random, so that frequent ones do not hide rare ones.
    if (disk_random_.one_in(2)) {
        member_faults_ = !disk_random_.one_in(3);
        start_faults_ = !disk_random_.one_in(3);
        crash_operations_ = !disk_random_.one_in(3);
    }
    member_faults_ = member_faults_ && !chronicle_.without("member-faults");
    start_faults_ = start_faults_ && !chronicle_.without("start-faults");
    crash_operations_ = crash_operations_ && !chronicle_.without("crash-operations");
    for (const Fault& f : all) {
        if (!pick(3)) {
            faults_.push_back(f);
        }
    }
    if (faults_.empty()) {
        faults_.push_back(all[random_.below(all.size())]);
    }
}

bool ReplicationWorld::begin() {
    for (const auto& node : nodes_) {
        if (!node->start()) {
            return false;
        }
    }
    const SectorCount sectors = active().mirror().limits().sectors;
    oracle_ = std::make_unique<Oracle>(77, sectors, kBoth);
    SimHostOptions o;
    o.depth = std::array<std::uint32_t, 4>{1, 4, 8, 32}[random_.below(4)];
    o.max_sectors = static_cast<std::uint32_t>(8 + random_.below(248));
    o.hot_sectors = static_cast<std::uint32_t>(16 + random_.below(1024));
    o.fua_percent = pick(3) ? 0 : 8;
    o.flush_percent = pick(4) ? 0 : 5;
    host_ = std::make_unique<SimHost>(scheduler_, random_.next(), pool_, *oracle_, *this, chronicle_, o);
    resume(0);
    if (pick(3)) {
        host_->add_work(20);  // an unpaired volume is written before it is mirrored
        scheduler_.run_until([&] { return host_->drained(); }, kPatience);
    }
    if (!establish()) {
        return false;
    }
    if (!pick(3)) {
        scheduler_.run_until([&] { return false; }, log_random(10ms, 4s));
    }
    return true;
}

/// The link needs a moment to come up; a node that crashed meanwhile, to come back.
bool ReplicationWorld::establish() {
    std::string error = "never tried";
    bool established = false;
    operating_ = true;
    for (int i = 0; i < 400 && !established && chronicle_.result.violations.empty(); ++i) {
        advance(100ms);
        if (!usable(0) || !usable(1)) {
            continue;
        }
        const auto r = operation(
            0, active().replicator().establish({.volume = SimNode::kVolume, .peer = other().name()}), "establish");
        // One that a crash interrupted may have got far enough, or only the peer's half of it.
        established = *r || (r->error().code == Errc::kAlreadyExists && usable(0) &&
                             active().pair_now().state != PairState::kUnpaired);
        error = *r ? "" : r->error().message;
    }
    operating_ = false;
    if (!established) {
        chronicle_.violation("establish failed: " + error);
    }
    return established;
}

void ReplicationWorld::plan(Duration in, std::function<void()> action) {
    planned_.emplace(scheduler_.now() + in, std::move(action));
}

/// Lets time pass; what was planned happens in it.
void ReplicationWorld::advance(Duration d) {
    const TimePoint until = scheduler_.now() + d;
    while (!planned_.empty() && planned_.begin()->first <= until) {
        const auto next = planned_.begin();
        if (next->first > scheduler_.now()) {
            scheduler_.run_for(next->first - scheduler_.now());
        }
        const std::function<void()> action = std::move(next->second);
        planned_.erase(next);
        action();
    }
    if (until > scheduler_.now()) {
        scheduler_.run_for(until - scheduler_.now());
    }
}

void ReplicationWorld::round() {
    if (!ensure_service(log_random(100ms, 40s))) {
        return;
    }
    host_->set_depth(pick(3) ? 32 : static_cast<std::uint32_t>(1 + random_.below(16)));
    host_->add_work(static_cast<std::uint32_t>(10 + random_.below(50)));
    const std::uint64_t faults = 1 + random_.below(3);
    for (std::uint64_t i = 0; i < faults && chronicle_.result.violations.empty(); ++i) {
        advance(log_random(20us, 1s));
        if (chronicle_.next_fault()) {
            one_fault();
        }
        observe();
    }
    advance(log_random(100us, 4s));
    observe();
    check_standby();
    begin_verify();
    const bool operates = pick(3) || (crash_operations_ && disk_random_.one_in(2));
    if (operates && !chronicle_.without("operator")) {
        operating_ = true;
        operate();
        operating_ = false;
    }
}

HistoryResult ReplicationWorld::run() {
    choose();
    if (begin()) {
        const std::uint64_t rounds = 3 + random_.below(4);
        for (std::uint64_t i = 0; i < kMostRounds && chronicle_.result.violations.empty(); ++i) {
            if (i >= rounds && host_->writes() >= kLeastWrites && chronicle_.result.faults >= kLeastFaults) {
                break;
            }
            if (!chronicle_.next_round()) {
                break;
            }
            round();
        }
        if (chronicle_.result.violations.empty()) {
            settle();
        }
    }
    end();
    chronicle_.result.writes = host_ ? host_->writes() : 0;
    chronicle_.result.sectors_checked = oracle_ ? oracle_->sectors_checked() : 0;
    chronicle_.result.trace = scheduler_.trace();
    chronicle_.result.steps = scheduler_.steps();
    return chronicle_.result;
}

// ---- what the host may see

bool ReplicationWorld::error_expected(const Error& error, Extent where) {
    switch (error.code) {
        case Errc::kNotReady:
        case Errc::kStandby:
        case Errc::kClosed:
        case Errc::kAborted:
            return !settling_ || !in_service_;
        case Errc::kReadOnly:
            return usable(active_) && active().array().status().state > raid::ArrayState::kDegraded;
        case Errc::kMediumError:
        case Errc::kBusy:
            return crashing_[active_] || doubted_within(where);
        default:
            return crashing_[active_];
    }
}

void ReplicationWorld::waited(Duration d) {
    if (d > 1s) {
        chronicle_.reached("host waited for the peer");
    }
    if (d > kLongestWait) {
        chronicle_.violation("a host waited " + std::to_string(d.count() / 1'000'000) + " ms");
    }
}

// ---- the end: faults stop, the pair becomes mirrored and idle

void ReplicationWorld::bring_everything_back() {
    planned_.clear();
    network_.heal_all();
    for (std::size_t i = 0; i < 2; ++i) {
        for (const auto& disk : nodes_[i]->disks()) {
            disk->set_slowness(1);
            disk->fail_next_reads(0);
            disk->fail_next_writes(0);
            disk->fail_next_flushes(0);
            if (!doubted_[i].empty()) {
                disk->heal();
            }
        }
        doubted_[i].clear();
        if (nodes_[i]->up() && nodes_[i]->array().status().state == raid::ArrayState::kReadOnly) {
            crash_node(i, Crash::kKill);
            planned_.clear();
        }
        if (!nodes_[i]->up()) {
            nodes_[i]->start();
        }
    }
}

bool ReplicationWorld::quiet() {
    for (std::size_t i = 0; i < 2; ++i) {
        const PairStatus s = nodes_[i]->pair_now();
        if (!in_step(s) || s.dirty_bytes != 0 || s.region_bytes != 0 || s.resync.running) {
            return false;
        }
    }
    return true;
}

/// What an operator does to a pair that cannot go on by itself.
void ReplicationWorld::attend() {
    observe();
    const PairStatus mine = active().pair_now();
    const PairStatus theirs = other().pair_now();
    const auto needs_help = [](const PairStatus& s) {
        return s.state == PairState::kSplitBrain || s.state == PairState::kSevered || s.state == PairState::kNeedFull ||
               s.state == PairState::kUnpaired;
    };
    if (needs_help(mine) || needs_help(theirs)) {
        operating_ = true;
        re_establish(true);
        operating_ = false;
    }
}

void ReplicationWorld::settle() {
    chronicle_.say("---- faults stop");
    crash_operations_ = false;
    tell();
    bring_everything_back();
    host_->pause();
    if (!scheduler_.run_until([&] { return host_->drained(); }, 30s)) {
        chronicle_.violation("commands do not end after the faults have");
        return;
    }
    if (!ensure_service(kPatience)) {
        return;
    }
    const TimePoint deadline = scheduler_.now() + kPatience;
    TimePoint next_help = scheduler_.now() + 8s;
    while (!quiet()) {
        if (scheduler_.now() >= deadline) {
            const PairStatus a = nodes_[0]->pair_now();
            const PairStatus b = nodes_[1]->pair_now();
            chronicle_.violation("not mirrored and idle in time: alpha " + describe(a) + "; beta " + describe(b));
            return;
        }
        advance(500ms);
        if (scheduler_.now() >= next_help) {
            attend();
            next_help = scheduler_.now() + 8s;
        }
    }
    settling_ = true;
    scheduler_.run(active().home(), note_sync());
    scheduler_.run(active().home(), host_->verify());
    host_->add_work(16);
    if (!scheduler_.run_until([&] { return host_->drained(); }, kPatience) ||
        !scheduler_.run_until([&] { return quiet(); }, kPatience)) {
        chronicle_.violation("not idle again after the last writes");
        return;
    }
    compare_copies();
    compare_images();
}

void ReplicationWorld::compare_images() {
    const SectorCount size = nodes_[0]->mirror().limits().sectors;
    if (size != nodes_[1]->mirror().limits().sectors) {
        chronicle_.violation("mirrored and idle, but of different sizes");
        return;
    }
    // The volume below may be larger on one side: a resize that was given up after that side had grown.
    const std::vector<std::byte> a = nodes_[0]->image(size);
    const std::vector<std::byte> b = nodes_[1]->image(size);
    const auto [x, y] = std::ranges::mismatch(a, b);
    if (x != a.end()) {
        const auto sector = static_cast<std::uint64_t>(x - a.begin()) / kSectorBytes;
        chronicle_.violation("mirrored and idle, but sector " + std::to_string(sector) +
                             " differs; known: " + oracle_->describe(sector));
    }
    chronicle_.reached("images compared");
}

void ReplicationWorld::end() {
    network_.heal_all();
    planned_.clear();
    if (host_) {
        host_->crash();
    }
    for (std::size_t i = 0; i < 2; ++i) {
        if (nodes_[i] && nodes_[i]->up()) {
            crashing_[i] = true;
            nodes_[i]->stop([&] { return (!host_ || host_->drained()) && queries_[i] == 0; });
        }
    }
}

}  // namespace gemel::sim
