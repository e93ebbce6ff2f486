// SPDX-License-Identifier: Apache-2.0
// PairWorld: two replication nodes over simulated disks and a simulated network, in virtual time, with a log that
// survives restarts. For the unit tests of replication/.
// Threads: the simulator's one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gemel/test_switch.hpp"
#include "gemel/volume_store.hpp"
#include "replication/replicator.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"
#include "tests/support/sim_network.hpp"
#include "tests/support/sim_scheduler.hpp"
#include "tests/support/test_log.hpp"

namespace gemel::replication {

using sim::TestLog;
using std::chrono_literals::operator""us;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

/// A volume of a size that resize() changes, on a larger disk.
class TestVolume : public BlockDevice {
  public:
    TestVolume(sim::SimDisk& disk, SectorCount sectors) : disk_(disk), sectors_(sectors) {}
    DeviceLimits limits() const override {
        DeviceLimits l = disk_.limits();
        l.sectors = sectors_;
        return l;
    }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions o) override {
        Result<void> r = co_await disk_.read(lba, to, o);
        for (std::size_t b = 0; reports && observer_ != nullptr && b < to.blocks().size(); ++b) {
            if (to.blocks()[b].status == BlockStatus::kUnreadable) {
                observer_->unreadable({Lba((lba.value / 8 + b) * 8), SectorCount(8)});
            }
        }
        co_return r;
    }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions o) override { return disk_.write(lba, from, o); }
    Task<Result<void>> flush() override { return disk_.flush(); }
    Task<Result<void>> discard(Lba lba, SectorCount n) override { return disk_.discard(lba, n); }
    bool reports = false;  ///< what a read finds unreadable, as arrays do
    void observe(DeviceObserver* o) override { observer_ = o; }
    std::string name() const override { return "test volume"; }
    void report_unreadable(Extent extent) { observer_->unreadable(extent); }
    void set_sectors(SectorCount n) {
        sectors_ = n;
        if (observer_ != nullptr) {
            observer_->capacity_changed(n);
        }
    }

  private:
    sim::SimDisk& disk_;
    SectorCount sectors_;
    DeviceObserver* observer_ = nullptr;
};

class TestStore : public VolumeStore {
  public:
    TestStore(Clock& clock, sim::SimDisk& disk, SectorCount sectors, Uuid uuid)
        : disk_(disk), volume_(disk, sectors), log_(clock), uuid_(uuid) {}
    std::vector<VolumeInfo> volumes() const override { return {{"vol", 1, volume_.limits().sectors, uuid_}}; }
    BlockDevice* find(std::string_view name) override { return name == "vol" ? &volume_ : nullptr; }
    Task<Result<void>> resize(std::string /*name*/, SectorCount sectors) override {
        if (sectors > disk_.limits().sectors) {
            co_return fail(Errc::kNoSpace, "no room");
        }
        volume_.set_sectors(sectors);
        co_return Result<void>{};
    }
    SectorCount free_sectors() const override {
        return SectorCount(disk_.limits().sectors.value - volume_.limits().sectors.value);
    }
    TestLog& log() override { return log_; }
    TestVolume& volume() { return volume_; }

  private:
    sim::SimDisk& disk_;
    TestVolume volume_;
    TestLog log_;
    Uuid uuid_;
};

class PairWorld {
  public:
    static constexpr std::uint64_t kSectors = 8192;  // 4 MiB
    static constexpr std::uint64_t kDiskSectors = 16384;

    struct Side {
        Side(PairWorld& world, std::string node_name, std::uint64_t seed)
            : name(std::move(node_name)),
              env(world.scheduler, world.network, name, seed),
              home(world.scheduler.add_executor(name)),
              disk(world.scheduler, seed + 7, disk_options()),
              store(world.scheduler, disk, SectorCount(kSectors), env.random().uuid()) {}
        static sim::SimDiskOptions disk_options() {
            sim::SimDiskOptions o;
            o.sectors = SectorCount(kDiskSectors);
            return o;
        }
        std::string name;
        sim::SimEnvironment env;
        sim::SimExecutor& home;
        sim::SimDisk disk;
        TestStore store;
        std::unique_ptr<Replicator> node;
        BlockDevice* lun = nullptr;
        bool alive = false;
    };

    explicit PairWorld(std::uint64_t seed = 1)
        : scheduler(seed),
          network(scheduler, seed + 1),
          alpha(*this, "alpha", seed + 10),
          beta(*this, "beta", seed + 20) {}
    ~PairWorld() {
        stop(alpha);
        stop(beta);
        run_for(1s);
        alpha.node.reset();
        beta.node.reset();
    }

    NodeConfig config(const Side& side) const {
        NodeConfig c = defaults;
        const Side& other = &side == &alpha ? beta : alpha;
        c.node = side.name;
        c.iscsi_address = "iqn.2026-11.dev.gemel:" + side.name;
        c.listen = side.name + ":7261";
        c.peers = {{other.name, other.name + ":7261"}};
        return c;
    }
    void start(Side& side) {
        side.node = std::make_unique<Replicator>(side.env.get(), config(side), side.home);
        side.lun = &side.node->add_volume(side.store, "vol");
        const Result<void> started = scheduler.run(side.home, side.node->start());
        CHECK(started.has_value());
        side.alive = true;
    }
    void start() {
        start(alpha);
        start(beta);
        run_for(1s);
    }
    void stop(Side& side) {
        if (side.alive) {
            side.alive = false;
            scheduler.run(side.home, side.node->stop());
        }
    }
    /// kill -9: what the disk has stays; the objects are stopped when nothing they do has an effect any more.
    void kill(Side& side, bool power = false) {
        network.kill_host(side.name, power ? sim::SimNetwork::Death::kPower : sim::SimNetwork::Death::kProcess);
        if (power) {
            side.disk.power_cut(sim::CachePolicy::kDropAll);
            side.env.power_lost();
        } else {
            side.disk.kill_process();
        }
        side.store.log().failing = true;
        stop(side);
        run_for(100ms);
        side.node.reset();
    }
    void restart(Side& side) {
        side.store.log().failing = false;
        side.disk.revive();
        network.revive_host(side.name);
        start(side);
    }
    void run_for(Duration d) { scheduler.run_for(d); }

    /// Writes `blocks` 4 KiB blocks from `lba` on, filled with `value`.
    Task<Result<void>> write_task(Side& side, std::uint64_t lba, std::size_t blocks, unsigned char value,
                                  bool fua = false) {
        Result<Buffer> memory = side.env.pool().allocate(blocks * kBlockBytes);
        CHECK(memory.has_value());
        const Slice slice = memory->slice(blocks * kBlockBytes, Lba(lba));
        std::ranges::fill(slice.data(), std::byte{value});
        slice.seal();
        WriteOptions options;
        options.fua = fua;
        co_return co_await side.lun->write(Lba(lba), slice, options);
    }
    Result<void> write(Side& side, std::uint64_t lba, std::size_t blocks, unsigned char value, bool fua = false) {
        return scheduler.run(side.home, write_task(side, lba, blocks, value, fua));
    }
    Result<void> flush(Side& side) { return scheduler.run(side.home, side.lun->flush()); }
    Task<Result<unsigned>> read_task(Side& side, std::uint64_t lba) {
        Result<Buffer> memory = side.env.pool().allocate(kBlockBytes);
        CHECK(memory.has_value());
        const Slice slice = memory->slice(kBlockBytes, Lba(lba));
        CO_TRY_VOID(co_await side.lun->read(Lba(lba), slice, {}));
        co_return std::to_integer<unsigned>(slice.data()[0]);
    }
    Result<unsigned> read(Side& side, std::uint64_t lba) { return scheduler.run(side.home, read_task(side, lba)); }
    PairStatus status(Side& side) { return scheduler.run(side.home, side.node->status()).at(0); }
    Result<void> establish() { return scheduler.run(alpha.home, alpha.node->establish({"vol", "beta", "", false})); }
    bool until(const std::function<bool()>& done, Duration limit = 60s) {
        const TimePoint end = scheduler.now() + limit;
        while (!done()) {
            if (scheduler.now() > end) {
                return false;
            }
            run_for(20ms);
        }
        return true;
    }
    bool mirrored() {
        const auto ok = [](const PairStatus& s) {
            return s.state == PairState::kMirrored && s.connected && !s.resync.running && s.dirty_bytes == 0;
        };
        return ok(status(alpha)) && ok(status(beta));
    }
    bool until_mirrored() {
        return until([&] { return mirrored(); });
    }
    bool equal() {
        const auto a = alpha.disk.snapshot();
        const auto b = beta.disk.snapshot();
        const std::size_t bytes = status(alpha).sectors * kSectorBytes;
        return std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(bytes), b.begin());
    }
    /// A mirrored pair with alpha as its primary.
    void pair_up() {
        start();
        CHECK(establish().has_value());
        CHECK(until_mirrored());
    }

    NodeConfig defaults;
    sim::SimScheduler scheduler;
    sim::SimNetwork network;
    Side alpha;
    Side beta;
};

}  // namespace gemel::replication
