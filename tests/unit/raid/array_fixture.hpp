// SPDX-License-Identifier: Apache-2.0
// ArrayFixture: one array over SimDisks in the simulator's scheduler, with synchronous calls for tests.
// Threads: the simulator's one.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "raid/array.hpp"
#include "raid/superblock.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::raid::testing {

struct FixtureOptions {
    std::uint64_t seed = 1;
    std::string level = "5";
    std::uint32_t members = 4;
    std::uint32_t strip_bytes = 16 * 1024;
    std::uint32_t shards = 1;
    std::uint64_t member_bytes = 2 * kMiB;
    std::uint64_t more_bytes = 0;  ///< that each member has beyond the one before it
    std::uint32_t alignment_sectors = 1;
    RecoveryPolicy policy = RecoveryPolicy::kJournal;
    std::uint32_t journal_stripes = 0;
    bool checksums = true;
    std::uint64_t checksum_cache = kDefaultChecksumCache;
    std::uint64_t stripe_cache = kDefaultStripeCache;
    std::vector<VolumeSpec> volumes{{"vol", 0}};
};

class ArrayFixture {
  public:
    explicit ArrayFixture(FixtureOptions given = {})
        : options(std::move(given)),
          scheduler(options.seed),
          network(scheduler, options.seed),
          environment(scheduler, network, "node", options.seed) {
        for (std::uint32_t i = 0; i < options.shards; ++i) {
            executors.push_back(&scheduler.add_executor("shard" + std::to_string(i)));
        }
        caller = &scheduler.add_executor("caller");
        for (std::uint32_t i = 0; i < options.members; ++i) {
            add_disk(options.member_bytes + i * options.more_bytes);
        }
    }
    ~ArrayFixture() {
        if (array) {
            stop_anyhow();
        }
        scheduler.run_for(std::chrono::seconds(1));
    }
    ArrayFixture(const ArrayFixture&) = delete;
    ArrayFixture& operator=(const ArrayFixture&) = delete;

    sim::SimDisk& add_disk(std::uint64_t bytes) {
        sim::SimDiskOptions o;
        o.name = "disk" + std::to_string(disks.size());
        o.sectors = sectors_of(bytes);
        o.alignment_sectors = options.alignment_sectors;
        disks.push_back(std::make_unique<sim::SimDisk>(scheduler, options.seed * 100 + disks.size(), o));
        return *disks.back();
    }
    ArrayConfig config() {
        ArrayConfig c;
        c.name = "r";
        c.level = options.level;
        c.strip_bytes = options.strip_bytes;
        c.volumes = options.volumes;
        c.policy = options.policy;
        c.journal_stripes = options.journal_stripes;
        c.checksums = options.checksums;
        c.checksum_cache_bytes = options.checksum_cache;
        c.stripe_cache_bytes = options.stripe_cache;
        for (std::uint32_t i = 0; i < options.members; ++i) {
            c.members.push_back({disks[i].get(), ""});
        }
        for (sim::SimExecutor* e : executors) {
            c.shards.push_back(e);
        }
        return c;
    }
    Result<void> open(ArrayConfig c) {
        auto r = scheduler.run(*caller, Array::open(environment.get(), std::move(c)));
        if (!r) {
            return std::unexpected(r.error());
        }
        array = *std::move(r);
        return {};
    }
    Result<void> create() {
        ArrayConfig c = config();
        c.create = ArrayConfig::Create::kIfBlank;
        return open(std::move(c));
    }
    Result<void> reopen(bool force = false) {
        ArrayConfig c = config();
        c.force = force;
        return open(std::move(c));
    }
    Result<void> stop() {
        Result<void> r = scheduler.run(*caller, array->stop());
        array.reset();
        return r;
    }
    /// Whether it can end cleanly or not.
    void stop_anyhow() {
        const Result<void> stopped = stop();
        static_cast<void>(stopped);
    }
    /// Ends the process: writes in flight tear; power: unflushed sectors too.
    void crash(bool power) {
        for (auto& d : disks) {
            power ? d->power_cut() : d->kill_process();
        }
        stop_anyhow();
        for (auto& d : disks) {
            d->revive();
        }
    }
    BlockDevice& volume(std::string_view name = "vol") {
        BlockDevice* v = array->find(name);
        CHECK(v != nullptr);
        return *v;
    }
    /// Until the resync has ended.
    void settle() {
        CHECK(scheduler.run_until([this] { return !array->status().resyncing; }));
    }

    Result<void> write(std::uint64_t lba, const std::vector<std::byte>& data, WriteOptions o = {},
                       std::string_view name = "vol") {
        auto buffer = environment.pool().allocate(data.size());
        const Slice slice = buffer->slice(data.size(), Lba(lba));
        std::ranges::copy(data, slice.data().begin());
        slice.seal();
        return scheduler.run(*caller, volume(name).write(Lba(lba), slice, o));
    }
    struct ReadOut {
        Result<void> result;
        std::vector<std::byte> data;
        std::vector<BlockStatus> status;
    };
    ReadOut read(std::uint64_t lba, std::uint64_t sectors, std::string_view name = "vol") {
        auto buffer = environment.pool().allocate(sectors * kSectorBytes);
        std::ranges::fill(buffer->memory(), std::byte{0xee});
        const Slice slice = buffer->slice(sectors * kSectorBytes, Lba(lba));
        slice.clear_infos();
        ReadOut out{scheduler.run(*caller, volume(name).read(Lba(lba), slice, {})), {}, {}};
        out.data.assign(slice.data().begin(), slice.data().end());
        for (const BlockInfo& b : slice.blocks()) {
            out.status.push_back(b.status);
        }
        return out;
    }
    Result<void> flush() { return scheduler.run(*caller, volume().flush()); }

    std::vector<std::byte> pattern(std::uint64_t sectors) {
        std::vector<std::byte> out(sectors * kSectorBytes);
        scheduler.random().fill(out);
        return out;
    }

    FixtureOptions options;
    sim::SimScheduler scheduler;
    sim::SimNetwork network;
    sim::SimEnvironment environment;
    std::vector<sim::SimExecutor*> executors;
    sim::SimExecutor* caller = nullptr;
    std::vector<std::unique_ptr<sim::SimDisk>> disks;
    std::unique_ptr<Array> array;
};

/// All that lies on the members.
inline std::vector<std::vector<std::byte>> contents(const ArrayFixture& f) {
    std::vector<std::vector<std::byte>> out;
    for (const auto& disk : f.disks) {
        out.push_back(disk->snapshot());
    }
    return out;
}

/// The newest one; nothing if the disk holds none.
inline std::optional<Superblock> find_superblock(const sim::SimDisk& disk) {
    std::optional<Superblock> newest;
    for (std::uint64_t i = 0; i < 2; ++i) {
        const Lba at = superblock_slot(disk.limits().sectors, i);
        const std::vector<std::byte> slot = disk.snapshot(at, SectorCount(kSuperblockBytes / kSectorBytes));
        const auto found = decode_superblock(ConstBytes(slot).first<kSuperblockBytes>());
        if (found && (!newest || found->epoch > newest->epoch)) {
            newest = *found;
        }
    }
    return newest;
}

inline Superblock newest_superblock(const sim::SimDisk& disk) {
    const auto newest = find_superblock(disk);
    CHECK(newest);
    return *newest;
}

/// Opening fails with `code`, says `text`, and changes nothing.
inline void expect_refused(ArrayFixture& f, ArrayConfig config, Errc code, const std::string& text) {
    const auto before = contents(f);
    const auto r = f.open(std::move(config));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, code) << r.error().message;
    EXPECT_NE(r.error().message.find(text), std::string::npos) << r.error().message;
    EXPECT_EQ(contents(f), before) << "a refused start changed a member";
}

}  // namespace gemel::raid::testing
