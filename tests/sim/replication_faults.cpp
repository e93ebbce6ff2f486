// SPDX-License-Identifier: Apache-2.0
// What goes wrong in a history of a pair, what its operator does, and what is known about the two copies after that.
#include "tests/sim/replication_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using replication::PairState;
using replication::PairStatus;
using replication::Role;

// ---- faults

void ReplicationWorld::one_fault() {
    if (member_faults_ && disk_random_.one_in(3)) {
        fault_a_disk();
        return;
    }
    std::uint64_t total = 0;
    for (const Fault& f : faults_) {
        total += f.weight;
    }
    std::uint64_t dice = random_.below(total);
    for (const Fault& f : faults_) {
        if (dice < f.weight) {
            (this->*f.happen)();
            return;
        }
        dice -= f.weight;
    }
}

void ReplicationWorld::partition() {
    const Duration d = log_random(5ms, 16s);
    chronicle_.fault("partition for " + std::to_string(d.count() / 1'000'000) + " ms");
    network_.partition("alpha", "beta");
    plan(d, [this] {
        chronicle_.say("partition heals");
        network_.heal("alpha", "beta");
    });
}

void ReplicationWorld::block_one_way() {
    const std::size_t from = random_.below(2);
    const std::string a = nodes_[from]->name();
    const std::string b = nodes_[1 - from]->name();
    const Duration d = log_random(5ms, 16s);
    chronicle_.fault("nothing from " + a + " to " + b + " for " + std::to_string(d.count() / 1'000'000) + " ms");
    network_.block(a, b);
    plan(d, [this, a, b] { network_.unblock(a, b); });
}

void ReplicationWorld::break_connection() {
    if (pick(3)) {
        chronicle_.fault("connections reset");
        network_.reset_connections("alpha", "beta");
        return;
    }
    const std::size_t from = random_.below(2);
    const std::uint64_t bytes = random_.below(pick(2) ? 300 : 100'000);
    chronicle_.fault("cut after " + std::to_string(bytes) + " bytes from " + nodes_[from]->name());
    network_.cut_after(nodes_[from]->name(), nodes_[1 - from]->name(), bytes);
}

void ReplicationWorld::damage_stream() {
    const std::size_t from = random_.below(2);
    const std::uint64_t bytes = random_.below(pick(2) ? 300 : 100'000);
    const bool corrupt = !pick(3);
    chronicle_.fault((corrupt ? "corrupt byte after " : "bytes twice after ") + std::to_string(bytes) + " from " +
                     nodes_[from]->name());
    corrupt ? network_.corrupt_after(nodes_[from]->name(), nodes_[1 - from]->name(), bytes)
            : network_.duplicate_after(nodes_[from]->name(), nodes_[1 - from]->name(), bytes);
}

void ReplicationWorld::slow_network() {
    if (pick(2)) {
        const std::size_t from = random_.below(2);
        const Duration d = log_random(1ms, 6s);
        chronicle_.fault("stream from " + nodes_[from]->name() + " stalls for " +
                         std::to_string(d.count() / 1'000'000) + " ms");
        network_.stall(nodes_[from]->name(), nodes_[1 - from]->name(), d);
        return;
    }
    chronicle_.fault("slow network");
    network_.set_delay("alpha", "beta", log_random(1ms, 60ms));
    plan(log_random(10ms, 4s), [this] { network_.set_delay("alpha", "beta", {}); });
}

void ReplicationWorld::slow_disks() {
    SimNode& node = *nodes_[random_.below(2)];
    SimDisk& disk = *node.disks()[random_.below(node.disks().size())];
    chronicle_.fault(disk.name() + " slow or stalled");
    if (pick(2)) {
        disk.stall(log_random(1ms, 400ms));
    } else {
        disk.set_slowness(static_cast<std::uint32_t>(2 + random_.below(30)));
        plan(log_random(10ms, 2s), [&disk] { disk.set_slowness(1); });
    }
}

void ReplicationWorld::crash_secondary() {
    if (usable(1 - active_)) {
        crash_node(1 - active_, pick(2) ? Crash::kPower : Crash::kKill);
    }
}

void ReplicationWorld::crash_primary() {
    if (usable(active_)) {
        crash_node(active_, pick(2) ? Crash::kPower : Crash::kKill);
    }
}

void ReplicationWorld::crash_both() {
    if (usable(0) && usable(1)) {
        const Crash how = pick(3) ? Crash::kKill : Crash::kPower;
        crash_node(1 - active_, how);
        crash_node(active_, how);
        if (how == Crash::kPower) {
            chronicle_.reached("both lost power");
        }
    }
}

/// A write that the secondary's array cannot spare: it turns read-only, until the node is restarted.
void ReplicationWorld::fail_secondary_array() {
    if (!usable(1 - active_) || other().options().level != "0") {
        return;
    }
    chronicle_.fault(other().name() + " array fails a write");
    other().disks().front()->fail_next_writes(1);
    const std::size_t node = 1 - active_;
    plan(log_random(100ms, 8s), [this, node] {
        if (usable(node) && nodes_[node]->array().status().state == raid::ArrayState::kReadOnly) {
            chronicle_.reached("peer's array failed");
            crash_node(node, Crash::kKill);
        }
    });
}

/// Something that the node's own array hides from the pair.
void ReplicationWorld::fault_a_disk() {
    const std::size_t node = disk_random_.below(2);
    if (!usable(node)) {
        return;
    }
    if (disk_random_.one_in(3)) {
        if (nodes_[node]->lose_member(disk_random_)) {
            chronicle_.reached(node == active_ ? "member failed under the primary"
                                               : "member failed under the secondary");
        }
    } else if (nodes_[node]->damage_member(disk_random_)) {
        chronicle_.reached(node == active_ ? "bad sectors under the primary" : "bad sectors under the secondary");
    }
}

void ReplicationWorld::crash_node(std::size_t node, Crash how) {
    const PairStatus status = nodes_[node]->pair_now();
    const PairState state = status.state;
    if (state == PairState::kResyncSource || state == PairState::kResyncTarget || status.resync.running) {
        chronicle_.reached("resync interrupted");
    }
    if (host_->busy() && node == active_) {
        chronicle_.reached("primary crashed with writes in flight");
    }
    chronicle_.say("  " + nodes_[node]->name() + ": " + describe(status));
    crashing_[node] = true;
    if (node == active_) {
        host_->crash();
        oracle_->crash();
        in_service_ = false;
    }
    mirrored_was_ = mirrored_was_ || mirrored_;
    mirrored_ = false;
    const auto drained = [this, node] { return (node != active_ || host_->drained()) && queries_[node] == 0; };
    const auto policy = static_cast<CachePolicy>(random_.below(4));
    if (nodes_[node]->must_not_crash()) {
        chronicle_.fault(nodes_[node]->name() + " is stopped: a crash would cost its array blocks");
        chronicle_.reached("degraded node restarted");
        nodes_[node]->stop(drained);
    } else {
        if (nodes_[node]->degraded()) {
            chronicle_.reached("degraded node crashed");
        }
        if (how == Crash::kPower) {
            oracle_->power_loss(leg(node), !nodes_[node]->degraded());
            lost_power_[node] = true;
        }
        nodes_[node]->crash(how == Crash::kPower ? SimNode::Crash::kPower : SimNode::Crash::kKill, policy, drained);
    }
    crashing_[node] = false;
    plan(log_random(1ms, 14s), [this, node] { restart(node); });
}

void ReplicationWorld::restart(std::size_t node) {
    if (nodes_[node]->up()) {
        return;
    }
    if (!start_faults_ || !disk_random_.one_in(3)) {
        nodes_[node]->start();
    } else if (!nodes_[node]->start_in_trouble(disk_random_)) {
        plan(Duration(disk_random_.below(3'000'000'000)), [this, node] { restart(node); });
    }
}

/// Until the node is up again, which some crash has planned.
bool ReplicationWorld::wait_for(std::size_t node) {
    for (int i = 0; i < 600 && !usable(node) && chronicle_.result.violations.empty(); ++i) {
        advance(100ms);
    }
    return usable(node);
}

// ---- the operator

std::optional<Result<void>> ReplicationWorld::operation(std::size_t node, Task<Result<void>> task,
                                                        const std::string& what) {
    std::optional<Result<void>> out;
    auto body = [](Task<Result<void>> t, std::optional<Result<void>>& to, std::uint32_t& inside) -> Task<void> {
        to.emplace(co_await std::move(t));
        --inside;
    };
    ++queries_[node];
    scheduler_.start(nodes_[node]->home(), body(std::move(task), out, queries_[node]));
    interrupted_ = false;
    if (operating_ && crash_operations_ && disk_random_.one_in(2)) {
        crash_within(node, what, out);
    }
    if (!scheduler_.run_until([&] { return out.has_value(); }, 90s)) {
        std::fprintf(stderr, "%s on %s does not end\n", what.c_str(), nodes_[node]->name().c_str());
        CHECK(out.has_value());
    }
    chronicle_.say("operator: " + what + " on " + nodes_[node]->name() + ": " +
                   (*out ? "ok" : std::string(errc_name(out->error().code)) + ": " + out->error().message));
    return out;
}

/// One of the nodes crashes while `what` is under way on `node`.
void ReplicationWorld::crash_within(std::size_t node, const std::string& what, const std::optional<Result<void>>& out) {
    const auto least = std::uint64_t{5'000} << disk_random_.below(12);
    scheduler_.run_for(Duration(least + disk_random_.below(least)));
    const std::size_t victim = disk_random_.one_in(2) ? node : 1 - node;
    if (out || !usable(victim)) {
        return;
    }
    chronicle_.say(nodes_[victim]->name() + " goes during " + what);
    chronicle_.reached("crash within " + what);
    interrupted_ = true;
    crash_node(victim, disk_random_.one_in(2) ? Crash::kPower : Crash::kKill);
}

void ReplicationWorld::operate() {
    switch (random_.below(8)) {
        case 0:
        case 1:
            promote_with_contact();
            break;
        case 2:
        case 3:
            promote_without_contact();
            break;
        case 4:
            sever();
            break;
        case 5:
            resize();
            break;
        default:
            re_establish(false);
            break;
    }
}

void ReplicationWorld::promote_with_contact() {
    if (!usable(0) || !usable(1) || !in_service_ || other().pair_now().role == Role::kPrimary) {
        return;
    }
    const auto r = operation(1 - active_, other().replicator().promote(SimNode::kVolume, false), "promote");
    if (!usable(0) || !usable(1)) {
        return;  // what came of it shows when somebody serves
    }
    if (!*r) {
        if (other().pair_now().role == Role::kPrimary && active().pair_now().role == Role::kPrimary) {
            chronicle_.violation("two primaries after a refused promotion");
        }
        return;
    }
    chronicle_.reached("promoted with contact");
    host_->pause();
    if (!scheduler_.run_until([&] { return host_->drained(); }, 30s)) {
        chronicle_.violation("commands at the old primary do not end after a promotion");
        return;
    }
    resume(1 - active_);
}

void ReplicationWorld::promote_without_contact() {
    if (!usable(1 - active_)) {
        return;
    }
    const PairStatus before = other().pair_now();
    if (before.state == PairState::kUnpaired || before.state == PairState::kPreparing ||
        before.role == Role::kPrimary) {
        return;
    }
    const std::size_t node = 1 - active_;
    abandon_service();
    const auto r = operation(node, nodes_[node]->replicator().promote(SimNode::kVolume, true), "promote --force");
    // Whether it was in time is durable; nobody writes until it is known. A record that failed shows after a start.
    const bool unknown = !*r && usable(node) && nodes_[node]->pair_now().uncertain;
    if (unknown) {
        chronicle_.reached("promotion with an unknown outcome");
        crash_node(node, Crash::kKill);
    }
    const bool promoted =
        *r || ((interrupted_ || unknown) && wait_for(node) && nodes_[node]->pair_now().role == Role::kPrimary);
    if (!promoted) {
        if (before.state == PairState::kResyncTarget) {
            chronicle_.reached("promotion of a resync target refused");
        }
        return;
    }
    if (!wait_for(node)) {
        return;
    }
    if (before.state == PairState::kResyncTarget && nodes_[node]->pair_now().state == PairState::kResyncTarget) {
        chronicle_.violation("an inconsistent resync target was promoted");
    }
    chronicle_.reached(before.connected ? "promoted by force with contact" : "promoted without contact");
    authority_ = leg(node);
    forced_ = true;
    mirrored_was_ = mirrored_ = false;
    active_ = node;
}

/// A promotion that a cut link stopped half-way leaves no primary: the operator repeats it.
void ReplicationWorld::finish_handover() {
    if (!usable(0) || !usable(1)) {
        return;
    }
    if (nodes_[0]->pair_now().role == Role::kSecondary && nodes_[1]->pair_now().role == Role::kSecondary) {
        chronicle_.reached("promotion cut short");
        const std::size_t node = random_.below(2);
        operation(node, nodes_[node]->replicator().promote(SimNode::kVolume, false), "promote again");
    }
}

void ReplicationWorld::sever() {
    if (!usable(active_) || !in_service_) {
        return;
    }
    const auto r = operation(active_, active().replicator().sever(SimNode::kVolume, pick(2)), "sever");
    if (*r) {
        chronicle_.reached("severed");
    }
}

void ReplicationWorld::re_establish(bool force) {
    if (!usable(active_)) {
        return;
    }
    const PairStatus mine = active().pair_now();
    const bool split = mine.state == PairState::kSplitBrain ||
                       (usable(1 - active_) && other().pair_now().state == PairState::kSplitBrain);
    if (!split && mine.state != PairState::kSevered && mine.state != PairState::kNeedFull && !force) {
        return;
    }
    const auto r = operation(
        active_, active().replicator().re_establish(SimNode::kVolume, active().name(), force || split), "re-establish");
    if (*r || interrupted_) {
        authority_ = leg(active_);
        mirrored_ = mirrored_was_ = false;
        chronicle_.reached(split ? "split brain resolved" : "re-established");
    }
}

void ReplicationWorld::resize() {
    if (!usable(active_) || !in_service_) {
        return;
    }
    const SectorCount now = active().mirror().limits().sectors;
    const SectorCount more = now + (8 + random_.below(256)) * kSectorsPerBlock;
    const auto r = operation(active_, active().replicator().resize(SimNode::kVolume, more, false), "resize");
    if (*r) {
        chronicle_.reached("resized");
        if (usable(active_) && active().mirror().limits().sectors != more) {
            chronicle_.violation("a resize succeeded without effect");
        }
        if (usable(1 - active_) && other().pair_now().sectors != more.value) {
            chronicle_.violation("a resize succeeded before the secondary had the new size");
        }
    }
}

// ---- who serves, and what is known about the copies

/// The host gives up its path: what is in flight there has no answer.
void ReplicationWorld::abandon_service() {
    host_->crash();
    oracle_->crash();
    in_service_ = false;
}

std::optional<std::size_t> ReplicationWorld::serving_node() {
    for (const std::size_t node : {active_, 1 - active_}) {
        if (usable(node)) {
            const PairStatus s = nodes_[node]->pair_now();
            if (s.role == Role::kPrimary && s.serving && (node == active_ || authority_ == kBoth)) {
                return node;
            }
        }
    }
    return std::nullopt;
}

void ReplicationWorld::resume(std::size_t node) {
    active_ = node;
    if (!in_service_) {
        // A primary that lost power, and whose peer did not, is made equal to the peer before it serves.
        if (mirrored_was_ && lost_power_[node] && !lost_power_[1 - node] && authority_ == kBoth) {
            oracle_->synced(leg(1 - node), leg(node));
            chronicle_.reached("primary lost power, its peer did not");
        }
        oracle_->serve_from(authority_);
    }
    mirrored_was_ = false;
    in_service_ = true;
    const SectorCount now = nodes_[node]->mirror().limits().sectors;
    // A copy promoted by force may not have heard of the last resize.
    if (now < oracle_->sectors() && !forced_) {
        chronicle_.violation("the volume shrank to " + std::to_string(now.value) + " sectors");
    }
    host_->aim(nodes_[node]->mirror(), nodes_[node]->executors());
    chronicle_.say("host uses " + nodes_[node]->name());
    tell();
}

/// Waits until somebody serves; an operator helps when nobody does for long.
bool ReplicationWorld::ensure_service(Duration patience) {
    const TimePoint give_up = scheduler_.now() + patience;
    int helped = 0;
    while (chronicle_.result.violations.empty()) {
        if (in_service_ && usable(active_)) {
            const PairStatus s = active().pair_now();
            if (s.role == Role::kPrimary && (s.serving || freeze_)) {
                break;
            }
        }
        if (const auto node = serving_node(); node && (host_->drained() || in_service_)) {
            if (in_service_ && *node == active_) {
                break;
            }
            if (in_service_) {
                abandon_service();
            } else {
                resume(*node);
                break;
            }
        }
        if (scheduler_.now() >= give_up) {
            if (++helped > 40) {
                const auto why = [this](std::size_t i) {
                    return usable(i) ? nodes_[i]->pair_now().reason : std::string("down");
                };
                chronicle_.violation("nobody serves: " + why(active_) + "; " + why(1 - active_));
                return false;
            }
            if (helped == 1 && pick(2) && !crashing_[1 - active_] && usable(1 - active_)) {
                promote_without_contact();
            } else {
                bring_everything_back();
                advance(1s);
                finish_handover();
                attend();
            }
        }
        advance(log_random(10ms, 1s));
    }
    if (in_service_ && active().mirror().limits().sectors > oracle_->sectors()) {
        oracle_->resize(active().mirror().limits().sectors);
    }
    return chronicle_.result.violations.empty();
}

Task<LegMask> ReplicationWorld::holders() {
    const std::size_t node = active_;
    if (!usable(node)) {
        co_return leg(node);
    }
    ++queries_[node];
    const PairStatus mine = co_await nodes_[node]->pair();
    --queries_[node];
    const bool both = mine.role == Role::kPrimary && mine.state == PairState::kMirrored && node == active_;
    if (!both) {
        mirrored_ = false;
        co_return leg(node);
    }
    if (!mirrored_) {
        co_await note_sync();
    }
    // A peer that has lost power since may have held it no longer than that.
    co_return lost_power_[1 - node] ? leg(node) : kBoth;
}

/// Asks both nodes whether the copies are equal now, but for writes in flight.
Task<void> ReplicationWorld::note_sync() {
    const std::size_t node = active_;
    if (asking_ || !usable(node) || !usable(1 - node)) {
        co_return;
    }
    asking_ = true;
    std::array<PairStatus, 2> s;
    bool still = true;
    for (std::size_t i = 0; i < 2 && still; ++i) {
        still = usable(i);
        if (still) {
            ++queries_[i];
            s[i] = co_await nodes_[i]->pair();
            --queries_[i];
        }
    }
    asking_ = false;
    if (still && usable(0) && usable(1) && node == active_ && in_service_ && s[node].role == Role::kPrimary &&
        s[1 - node].role == Role::kSecondary && in_step(s[0]) && in_step(s[1])) {
        oracle_->synced(leg(node), leg(1 - node));
        mirrored_ = true;
        lost_power_ = {};
        authority_ = kBoth;
    }
}

void ReplicationWorld::observe_node(std::size_t node, const PairStatus& s) {
    switch (s.state) {
        case PairState::kSplitBrain:
            chronicle_.reached("split brain refused");
            break;
        case PairState::kLogging:
            chronicle_.reached("went on alone");
            break;
        case PairState::kResyncSource:
            chronicle_.reached("resync running");
            break;
        case PairState::kNeedFull:
            chronicle_.violation(nodes_[node]->name() + " needs a full copy: " + s.reason);
            break;
        default:
            break;
    }
    if (node == active_ && !s.serving && s.role == Role::kPrimary) {
        chronicle_.reached("primary waits for its peer");
    }
    if (node == active_ && s.state == PairState::kMirrored) {
        if (!in_step(s)) {
            reconnecting_ = true;
            resync_bytes_ = s.resync_bytes_sent;
        } else if (std::exchange(reconnecting_, false) && resync_bytes_ == s.resync_bytes_sent) {
            chronicle_.reached("resumed without resync");
        }
    } else if (node == active_) {
        reconnecting_ = false;
    }
}

/// For the trace: what both sides say of themselves. Asked also when nobody listens, since asking is part of the
/// history.
void ReplicationWorld::tell() {
    for (std::size_t i = 0; i < 2; ++i) {
        chronicle_.say("  " + nodes_[i]->name() + (usable(i) ? ": " + describe(nodes_[i]->pair_now()) : " is down"));
    }
}

std::string ReplicationWorld::describe(const PairStatus& s) {
    return std::string(role_name(s.role)) + " " + std::string(pair_state_name(s.state)) +
           (s.connected ? " connected" : " apart") + (s.serving ? " serving" : "") + " term " + std::to_string(s.term) +
           " generation " + std::to_string(s.generation) + " dirty " + std::to_string(s.dirty_bytes) + " regions " +
           std::to_string(s.region_bytes) + " held " + std::to_string(s.held_frames) + " size " +
           std::to_string(s.sectors) + " resynced " + std::to_string(s.resync_bytes_sent) +
           (s.resync.running ? (s.resync.outgoing ? " resync out " : " resync in ") : std::string()) + " '" + s.reason +
           "' '" + s.last_error + "'";
}

void ReplicationWorld::observe() {
    std::array<PairStatus, 2> s;
    for (std::size_t i = 0; i < 2; ++i) {
        if (!usable(i)) {
            continue;
        }
        s[i] = nodes_[i]->pair_now();
        observe_node(i, s[i]);
    }
    if (usable(0) && usable(1)) {
        if (s[0].role == Role::kPrimary && s[1].role == Role::kPrimary && s[0].serving && s[1].serving &&
            s[0].term == s[1].term && !forced_ && s[0].state != PairState::kUnpaired &&
            s[1].state != PairState::kUnpaired) {
            chronicle_.violation("two primaries serve in one term");
        }
    }
    if (in_service_ && usable(active_)) {
        scheduler_.run(active().home(), note_sync());
    }
}

/// PW2.
void ReplicationWorld::check_standby() {
    if (!usable(1 - active_) || !in_service_) {
        return;
    }
    const PairStatus before = other().pair_now();
    const Buffer buffer = *other().environment().pool().allocate(kBlockBytes);
    const Result<void> read = scheduler_.run(other().home(), other().mirror().read(Lba(0), buffer.slice(4096, Lba(0))));
    const PairStatus after = other().pair_now();
    const auto standby = [](const PairStatus& s) {
        return s.role == Role::kSecondary && s.state != PairState::kUnpaired && s.state != PairState::kPreparing;
    };
    if (standby(before) && standby(after)) {
        if (read) {
            chronicle_.violation(other().name() + " is secondary and served a read");
        } else if (read.error().code != Errc::kStandby && read.error().code != Errc::kNotReady) {
            chronicle_.violation(other().name() + " is secondary and answered " +
                                 std::string(errc_name(read.error().code)));
        } else {
            chronicle_.reached("secondary refused a read");
        }
    }
}

}  // namespace gemel::sim
