// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_node.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kReservedSectors = 640;  ///< the configuration area of a small member

Task<void> keep(Task<Result<void>> task, std::optional<Result<void>>& out) {
    out.emplace(co_await std::move(task));
}

}  // namespace

SimNode::SimNode(SimScheduler& scheduler, SimNetwork& network, Chronicle& chronicle, std::uint64_t seed,
                 SimNodeOptions options)
    : scheduler_(scheduler),
      network_(network),
      chronicle_(chronicle),
      options_(std::move(options)),
      environment_(scheduler, network, options_.name, seed) {
    environment_.events().listener = [this](const EventRecord& e) {
        chronicle_.say("  " + name() + " event " + std::string(e.id) + ": " + e.subject + ": " + e.cause);
    };
    for (std::uint32_t i = 0; i < options_.shards; ++i) {
        executors_.push_back(&scheduler.add_executor(options_.name + std::to_string(i)));
    }
    const raid::LevelRow& row = *raid::find_level(options_.level);
    const std::uint64_t data_members =
        raid::Geometry{row.layout, options_.members, options_.strip_bytes / kSectorBytes, 0}.data_members();
    const std::uint64_t sectors = kReservedSectors + round_up(options_.data_bytes / data_members, 65536) / kSectorBytes;
    for (std::uint32_t i = 0; i < options_.members; ++i) {
        SimDiskOptions o{.name = options_.name + ".disk" + std::to_string(i), .sectors = SectorCount(sectors)};
        disks_.push_back(std::make_unique<SimDisk>(scheduler, seed * 64 + i, o));
    }
    lost_.assign(disks_.size(), false);
}

Result<void> SimNode::open_array() {
    raid::ArrayConfig c;
    c.name = options_.name;
    c.level = options_.level;
    c.strip_bytes = options_.strip_bytes;
    c.checksums = raid::find_level(c.level)->redundant;  // single copies with checksums are RaidWorld's
    for (const auto& disk : disks_) {
        c.members.push_back({disk.get(), disk->name()});
    }
    c.volumes = {{kVolume, options_.volume_bytes}};
    c.create = formatted_ ? raid::ArrayConfig::Create::kNo : raid::ArrayConfig::Create::kIfBlank;
    c.shards.assign(executors_.begin(), executors_.end());
    auto opened = scheduler_.run(home(), raid::Array::open(environment_.get(), std::move(c)));
    if (!opened) {
        return std::unexpected(std::move(opened).error());
    }
    formatted_ = true;
    array_ = std::move(*opened);
    return {};
}

bool SimNode::start_once(SeededRandom* trouble) {
    // The power is back: a disk that had died now and then comes back with it, with what it held.
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (disks_[i]->dead() && trouble != nullptr && trouble->one_in(4)) {
            disks_[i]->revive();
        }
    }
    if (trouble != nullptr) {
        plant(*trouble);
    }
    Result<void> opened = open_array();
    if (!opened && opened.error().code == Errc::kNeedsForce && degraded()) {
        // Its failure was not yet recorded: the operator brings the member back.
        chronicle_.reached("member brought back for a start");
        std::ranges::for_each(disks_, [](const auto& disk) { disk->revive(); });
        opened = open_array();
    }
    if (opened) {
        note_members(trouble != nullptr);
        opened = start_replicator();
    }
    for (const auto& disk : disks_) {
        disk->fail_next_reads(0);
        disk->fail_next_writes(0);
        disk->fail_next_flushes(0);
    }
    if (opened) {
        if (trouble != nullptr) {
            scheduler_.run_for(20ms);  // a failure that a disk has just reported is recorded
            note_members(true);
        }
        chronicle_.say(name() + " started");
    } else if (trouble == nullptr) {
        chronicle_.violation(name() + " does not start: " + opened.error().message);
    } else {
        chronicle_.say(name() + " does not start: " + opened.error().message);
        chronicle_.reached("start stopped by a disk error");
    }
    return opened.has_value();
}

Result<void> SimNode::start_replicator() {
    replicator_ = std::make_unique<replication::Replicator>(environment_.get(), options_.replication, home());
    mirror_ = &replicator_->add_volume(*array_, kVolume);
    Result<void> started = scheduler_.run(home(), replicator_->start());
    if (!started) {
        stop_objects([] { return true; });
    }
    return started;
}

/// One disk refuses something during the start.
void SimNode::plant(SeededRandom& dice) {
    SimDisk& disk = *disks_[dice.below(disks_.size())];
    // With parity that is not resynced a lost member is lost data; a read that fails once loses none, one that fails
    // twice may cost the member.
    const auto times = static_cast<std::uint32_t>(parity() && unclean_ ? 1 : 1 + dice.below(3));
    const std::uint64_t kind = dice.below(parity() && (unclean_ || degraded()) ? 3 : 5);
    chronicle_.fault(disk.name() + " refuses a " +
                     (kind < 3   ? "read"
                      : kind < 4 ? "write"
                                 : "flush") +
                     " during the start");
    if (kind < 3) {
        disk.fail_next_reads(times, static_cast<std::uint32_t>(dice.below(4)));
    } else if (kind < 4) {
        disk.fail_next_writes(1);
    } else {
        disk.fail_next_flushes(1);
    }
    chronicle_.reached("disk error during a start");
}

void SimNode::note_members(bool planted) {
    const raid::ArrayStatus status = array_->status();
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        const bool in_sync = status.members[i].state == raid::MemberState::kInSync;
        if (!in_sync && !lost_[i] && !planted) {
            chronicle_.violation(disks_[i]->name() + " is not in sync after the start, for no reason");
        }
        if (status.members[i].state == raid::MemberState::kStale) {
            chronicle_.reached("stale member in a pair");
        }
        lost_[i] = !in_sync;
    }
}

bool SimNode::redundant() const {
    const raid::ArrayStatus status = array_->status();
    return options_.level != "0" && !degraded() && status.state == raid::ArrayState::kOptimal && !status.resyncing;
}

bool SimNode::lose_member(SeededRandom& dice) {
    const std::size_t victim = dice.below(disks_.size());
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (i != victim && disks_[i]->damaged_sectors() > 0) {
            return false;
        }
    }
    if (!redundant()) {
        return false;
    }
    SimDisk& disk = *disks_[victim];
    constexpr std::array<const char*, 4> names{"fails a write", "fails a flush", "is full", "dies"};
    const std::uint64_t kind = dice.below(names.size());
    chronicle_.fault(disk.name() + " " + names[kind]);
    switch (kind) {
        case 0:
            disk.fail_next_writes(1);
            break;
        case 1:
            disk.fail_next_flushes(1);
            break;
        case 2:
            disk.set_full(true);
            break;
        default:
            disk.die();
            break;
    }
    lost_[victim] = true;
    return true;
}

bool SimNode::damage_member(SeededRandom& dice) {
    if (!redundant()) {
        return false;
    }
    std::size_t victim = dice.below(disks_.size());
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        victim = disks_[i]->damaged_sectors() > 0 ? i : victim;
    }
    SimDisk& disk = *disks_[victim];
    if (dice.one_in(4)) {
        chronicle_.fault(disk.name() + " fails a read");
        disk.fail_next_reads(1);
        return true;
    }
    const std::uint64_t data = disk.limits().sectors.value - kReservedSectors;
    const Lba lba(dice.below(data));
    const SectorCount n(std::min<std::uint64_t>(1 + dice.below(24), data - lba.value));
    chronicle_.fault(disk.name() + " latent error at " + std::to_string(lba.value) + "+" + std::to_string(n.value));
    disk.damage(lba, n);
    return true;
}

/// SN2. Disks that are lost stay as they are; bad sectors would meet the redundancy that a crash leaves open.
void SimNode::revive_disks() {
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        disks_[i]->heal();
        if (!lost_[i]) {
            disks_[i]->revive();
        }
    }
}

bool SimNode::stop_objects(const std::function<bool()>& host_drained) {
    bool replicator_ended = false;
    auto note = [](Task<void> task, bool& done) -> Task<void> {
        co_await std::move(task);
        done = true;
    };
    scheduler_.start(home(), note(replicator_->stop(), replicator_ended));
    std::optional<Result<void>> array_ended;
    bool ended = scheduler_.run_until([&] { return replicator_ended; }, 60s);
    if (ended) {
        scheduler_.start(home(), keep(array_->stop(), array_ended));
        ended = scheduler_.run_until([&] { return array_ended.has_value(); }, 60s);
    }
    ended = ended && scheduler_.run_until(host_drained, 60s);
    if (!ended) {
        // Nothing can be destroyed any more: this process is of no use.
        std::fprintf(stderr, "%s does not stop: %s\n", name().c_str(),
                     !replicator_ended ? "replicator"
                     : !array_ended    ? "array"
                                       : "commands in flight");
        CHECK(ended);
    }
    replicator_.reset();
    mirror_ = nullptr;
    array_.reset();
    for (const auto& disk : disks_) {
        for (const std::string& complaint : disk->complaints()) {
            chronicle_.violation(complaint);
        }
    }
    if (environment_.pool().outstanding_bytes() != 0) {
        chronicle_.violation(name() + " has buffers out after stop");
    }
    return *array_ended ? true : false;
}

void SimNode::crash(Crash how, CachePolicy policy, const std::function<bool()>& host_drained) {
    const bool power = how == Crash::kPower;
    chronicle_.fault(name() + (power ? " loses power" : " is killed"));
    for (const auto& disk : disks_) {
        power ? disk->power_cut(policy) : disk->kill_process();
    }
    network_.kill_host(name(), power ? SimNetwork::Death::kPower : SimNetwork::Death::kProcess);
    stop_objects(host_drained);
    if (power) {
        environment_.power_lost();
    }
    unclean_ = true;
    revive_disks();
    network_.revive_host(name());
}

void SimNode::stop(const std::function<bool()>& host_drained) {
    chronicle_.say(name() + " stops");
    unclean_ = array_->status().resyncing;
    if (!stop_objects(host_drained)) {
        chronicle_.violation(name() + ": the array was left unclean by an ordinary stop");
    }
    revive_disks();
}

Task<replication::PairStatus> SimNode::pair() {
    std::vector<replication::PairStatus> all = co_await replicator_->status();
    CHECK(all.size() == 1);
    co_return std::move(all.front());
}

replication::PairStatus SimNode::pair_now() {
    return scheduler_.run(home(), pair());
}

std::vector<std::byte> SimNode::image(SectorCount sectors) {
    BlockDevice& device = volume();
    const std::uint64_t total = sectors.value;
    if (device.limits().sectors < sectors) {
        chronicle_.violation(name() + "'s volume is smaller than its mirror");
        return {};
    }
    std::vector<std::byte> out(total * kSectorBytes);
    constexpr std::uint64_t kStep = 512;
    for (std::uint64_t at = 0; at < total; at += kStep) {
        const std::uint64_t n = std::min(kStep, total - at);
        const Buffer buffer = *environment_.pool().allocate(n * kSectorBytes);
        const Slice slice = buffer.slice(n * kSectorBytes, Lba(at));
        if (const Result<void> read = scheduler_.run(home(), device.read(Lba(at), slice)); !read) {
            chronicle_.violation(name() + " image: " + read.error().message);
            return out;
        }
        std::ranges::copy(slice.data(), out.begin() + static_cast<std::ptrdiff_t>(at * kSectorBytes));
    }
    return out;
}

}  // namespace gemel::sim
