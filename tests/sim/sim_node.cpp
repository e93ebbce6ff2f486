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
    const std::uint64_t data_members = options_.level == "0"   ? options_.members
                                       : options_.level == "1" ? 1
                                                               : options_.members - 1;
    const std::uint64_t sectors = kReservedSectors + round_up(options_.data_bytes / data_members, 65536) / kSectorBytes;
    for (std::uint32_t i = 0; i < options_.members; ++i) {
        SimDiskOptions o{.name = options_.name + ".disk" + std::to_string(i), .sectors = SectorCount(sectors)};
        disks_.push_back(std::make_unique<SimDisk>(scheduler, seed * 64 + i, o));
    }
}

bool SimNode::start() {
    raid::ArrayConfig c;
    c.name = options_.name;
    c.level = options_.level;
    c.strip_bytes = options_.strip_bytes;
    for (const auto& disk : disks_) {
        c.members.push_back({disk.get(), disk->name()});
    }
    c.volumes = {{kVolume, options_.volume_bytes}};
    c.create = formatted_ ? raid::ArrayConfig::Create::kNo : raid::ArrayConfig::Create::kIfBlank;
    c.shards.assign(executors_.begin(), executors_.end());
    auto opened = scheduler_.run(home(), raid::Array::open(environment_.get(), std::move(c)));
    if (!opened) {
        chronicle_.violation(name() + " array does not open: " + opened.error().message);
        return false;
    }
    formatted_ = true;
    array_ = std::move(*opened);
    replicator_ = std::make_unique<replication::Replicator>(environment_.get(), options_.replication, home());
    mirror_ = &replicator_->add_volume(*array_, kVolume);
    if (const Result<void> started = scheduler_.run(home(), replicator_->start()); !started) {
        chronicle_.violation(name() + " replicator does not start: " + started.error().message);
        return false;
    }
    chronicle_.say(name() + " started");
    return true;
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
    for (const auto& disk : disks_) {
        disk->revive();
    }
    network_.revive_host(name());
}

void SimNode::stop(const std::function<bool()>& host_drained) {
    chronicle_.say(name() + " stops");
    if (!stop_objects(host_drained)) {
        chronicle_.violation(name() + ": the array was left unclean by an ordinary stop");
    }
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
