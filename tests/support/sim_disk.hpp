// SPDX-License-Identifier: Apache-2.0
// SimDisk: a disk in memory that does everything a real one is allowed to do, in virtual time, from a seed.
//
// Invariants:
//   SD1 Operations complete in random order. A write's sectors become visible at its completion at the latest, one by
//       one at the earliest at its submission; once visible a sector does not go back, except by a crash.
//   SD2 A completed write is in the cache. A flush makes durable what had completed before the flush was submitted, and
//       nothing else for certain. FUA, and a disk without cache, write to the media.
//   SD3 At a power cut every unflushed sector keeps any of its versions, and a write in flight tears at 512 bytes.
//       At the death of the process the cache stays and only writes in flight are uncertain.
//   SD4 A dead disk fails everything with kDeviceGone and no effect, also what was submitted before it died.
//   SD5 The caller may not change a borrowed buffer; one that did is in complaints().
// Threads: the simulator's one.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <set>
#include <string>
#include <vector>

#include "gemel/block_device.hpp"
#include "tests/support/media.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::sim {

struct SimDiskOptions {
    std::string name = "disk";
    SectorCount sectors{4096};
    std::uint32_t alignment_sectors = 1;
    std::uint32_t physical_sectors = 1;
    std::uint32_t max_transfer_bytes = 4U << 20U;
    bool volatile_cache = true;
    bool gives_back = true;

    Duration min_latency = std::chrono::microseconds(20);
    Duration max_latency = std::chrono::microseconds(400);
    Duration tail_latency = std::chrono::milliseconds(15);  ///< of one operation in tail_one_in
    std::uint32_t tail_one_in = 50;

    // Faults: one operation in so many; 0 means never.
    std::uint32_t read_error_one_in = 0;   ///< kIo, nothing read
    std::uint32_t write_error_one_in = 0;  ///< kIo; per sector old or new
    std::uint32_t flush_error_one_in = 0;  ///< kIo; nothing made durable
    std::uint32_t lost_write_one_in = 0;   ///< success without effect
    std::uint32_t misplaced_write_one_in = 0;
    std::uint32_t rot_one_in = 0;  ///< a write after which one bit of a random written sector flips
};

/// What a power cut does to sectors that were not flushed.
enum class CachePolicy : std::uint8_t { kRandom, kDropAll, kKeepAll, kKeepNewestOrDrop };

/// A sector that a power cut at this moment leaves with any one of `contents`: the media's, then newer ones.
struct UncertainSector {
    std::uint64_t sector = 0;
    std::vector<std::vector<std::byte>> contents;
};

struct SimDiskCounters {
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t sectors_read = 0;
    std::uint64_t sectors_written = 0;
    std::uint64_t sectors_discarded = 0;  ///< of those
    std::uint64_t faults = 0;             ///< errors and silent damage given out
};

class SimDisk : public BlockDevice {
  public:
    SimDisk(SimScheduler& scheduler, std::uint64_t seed, SimDiskOptions options);
    ~SimDisk() override { CHECK(pending_.empty()); }
    SimDisk(const SimDisk&) = delete;
    SimDisk& operator=(const SimDisk&) = delete;

    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options = {}) override;
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options = {}) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    [[nodiscard]] std::string name() const override { return options_.name; }

    /// Power is gone: SD3, then dead until revive().
    void power_cut(CachePolicy policy = CachePolicy::kRandom);
    /// The process that used the disk is gone: SD3, then dead until revive().
    void kill_process();
    /// The disk itself fails: dead; its content stays for a revive().
    void die();
    void revive();
    [[nodiscard]] bool dead() const { return dead_; }

    /// Reads of these sectors fail until they are written again.
    void damage(Lba lba, SectorCount count);
    /// All of them can be read again, with what was last written.
    void heal() { latent_.clear(); }
    [[nodiscard]] bool damaged(Lba lba) const { return latent_.contains(lba.value); }
    [[nodiscard]] std::size_t damaged_sectors() const { return latent_.size(); }
    [[nodiscard]] const std::set<std::uint64_t>& latent() const { return latent_; }
    /// It has so many sectors from now on; those beyond its end so far hold zeros or anything. REQUIRES: not fewer.
    void extend(SectorCount sectors);
    /// Flips one bit of the sector, silently.
    void rot(Lba lba);
    void set_full(bool full) { full_ = full; }
    void set_gives_back(bool does) { options_.gives_back = does; }
    /// Multiplies latencies; 1 is normal.
    void set_slowness(std::uint32_t factor) { slowness_ = factor; }
    /// Nothing completes before `d` from now.
    void stall(Duration d) { stalled_until_ = scheduler_.now() + d; }
    /// The same, but the end can come earlier: answer(), or a death of disk or process.
    void hang(Duration d = std::chrono::hours(24 * 365)) { hung_until_ = scheduler_.now() + d; }
    void answer() { hung_until_ = {}; }
    [[nodiscard]] bool hangs() const { return hung_until_ > scheduler_.now(); }
    void fail_next_writes(std::uint32_t n) { failing_writes_ = n; }
    void fail_next_flushes(std::uint32_t n) { failing_flushes_ = n; }
    /// `after`: so many reads more go well first.
    void fail_next_reads(std::uint32_t n, std::uint32_t after = 0) {
        failing_reads_ = n;
        reads_before_failing_ = after;
    }
    void set_fault_rates(std::uint32_t read, std::uint32_t write, std::uint32_t flush);
    void set_silent_fault_rates(std::uint32_t lost, std::uint32_t misplaced, std::uint32_t rot);

    /// What reads would return now, whole, without latency or faults.
    [[nodiscard]] std::vector<std::byte> snapshot() const { return snapshot(Lba(0), options_.sectors); }
    [[nodiscard]] std::vector<std::byte> snapshot(Lba lba, SectorCount sectors) const;
    [[nodiscard]] std::vector<std::byte> durable_snapshot() const { return media_.bytes(); }
    [[nodiscard]] const Media& media() const { return media_; }
    /// Makes the durable content that of another disk of the same size. REQUIRES: nothing cached or in flight.
    void load(const SimDisk& other);
    void load(const Media& media);
    /// Where a power cut now has a choice (SD3), in order of address.
    [[nodiscard]] std::vector<UncertainSector> uncertain() const;
    /// Makes `content` the durable content, from sector 0 on. REQUIRES: nothing cached or in flight.
    void load(ConstBytes content);
    [[nodiscard]] std::size_t unflushed_sectors() const { return cache_.size(); }
    [[nodiscard]] std::size_t in_flight() const { return pending_.size(); }
    /// Reads and flushes, too.
    [[nodiscard]] std::uint64_t waiting() const { return waiting_; }
    [[nodiscard]] const SimDiskCounters& counters() const { return counters_; }
    [[nodiscard]] const std::vector<std::string>& complaints() const { return complaints_; }

  private:
    using Data = std::shared_ptr<const std::byte[]>;
    /// One version of one sector in the cache.
    struct Version {
        std::uint64_t serial;  ///< order of becoming visible
        Data data;
        std::size_t offset;
        [[nodiscard]] ConstBytes bytes() const { return {data.get() + offset, kSectorBytes}; }
    };
    struct Pending {
        Lba lba;
        Data data;
        bool fua;
        bool dropped = false;  ///< a crash has decided about it
        std::vector<bool> applied{};
    };

    [[nodiscard]] Duration latency(std::size_t bytes);
    Task<void> delay(std::size_t bytes);
    Task<Result<void>> gone();
    void check_range(Lba lba, std::uint64_t sectors);
    bool chance(std::uint32_t one_in);
    bool take(std::uint32_t& planned, std::uint32_t one_in);
    void apply(Pending& p, std::size_t sector, bool durable);
    void apply_some(Pending& p);
    void surface(Lba lba, std::uint64_t sectors);
    void complete_write(Pending& p);
    void crash_pending();
    /// What visible() gives of consecutive sectors.
    void copy_visible(Lba lba, MutableBytes to) const;
    [[nodiscard]] ConstBytes visible(std::uint64_t sector) const;
    void settle(std::uint64_t serial);

    SimScheduler& scheduler_;
    SeededRandom random_;
    SimDiskOptions options_;
    Media media_;
    using Versions = std::pmr::vector<Version>;
    std::pmr::unsynchronized_pool_resource cache_memory_;  ///< the cache is most of what the simulator allocates
    std::pmr::map<std::uint64_t, Versions> cache_{&cache_memory_};  ///< SD2: per sector, oldest first, never empty
    std::list<Pending*> pending_;                                   ///< writes in flight, in order of submission
    std::set<std::uint64_t> latent_;
    std::uint64_t serial_ = 0;
    std::uint64_t life_ = 0;  ///< grows at each death: what was submitted in another life fails (SD4)
    bool dead_ = false;
    bool full_ = false;
    std::uint32_t slowness_ = 1;
    TimePoint stalled_until_{};
    TimePoint hung_until_{};
    std::uint64_t waiting_ = 0;  ///< operations submitted and not completed
    std::uint32_t failing_reads_ = 0;
    std::uint32_t reads_before_failing_ = 0;
    std::uint32_t failing_writes_ = 0;
    std::uint32_t failing_flushes_ = 0;
    SimDiskCounters counters_;
    std::vector<std::string> complaints_;
};

}  // namespace gemel::sim
