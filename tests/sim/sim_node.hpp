// SPDX-License-Identifier: Apache-2.0
// SimNode: a whole node of a pair: disks, array, replicator. It crashes and comes back; the disks stay.
//
// Invariants:
//   SN1 A crash makes disks and streams dead first, and only then stops the objects in the ordinary way, which must
//   end.
//   SN2 What befalls the disks of a node stays within what its array hides: one member at a time, and nothing else
//       while it is lost. So its array starts without force, knows every block, and its host sees no error.
// Threads: the simulator's one.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "raid/array.hpp"
#include "raid/level_table.hpp"
#include "replication/replicator.hpp"
#include "tests/sim/history.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::sim {

struct SimNodeOptions {
    std::string name;
    std::string level = "0";
    std::uint32_t members = 1;
    std::uint32_t strip_bytes = 16384;
    std::uint64_t data_bytes = 4U << 20U;  ///< about, of the array
    std::uint64_t volume_bytes = 2U << 20U;
    std::uint32_t shards = 1;
    replication::NodeConfig replication;
};

class SimNode {
  public:
    enum class Crash : std::uint8_t { kPower, kKill };

    SimNode(SimScheduler& scheduler, SimNetwork& network, Chronicle& chronicle, std::uint64_t seed,
            SimNodeOptions options);

    /// Opens the array and starts the replicator. False, and a violation, if that fails.
    bool start() { return start_once(nullptr); }
    /// The same, while one disk refuses something that `trouble` chooses. False also if that stops the start: then
    /// another one may go well.
    bool start_in_trouble(SeededRandom& trouble) { return start_once(&trouble); }
    /// A member refuses a write or a flush, is full, or dies. False where the array could not hide it now.
    bool lose_member(SeededRandom& dice);
    /// Bad sectors on one member, or a read that fails. False where the array could not hide it now.
    bool damage_member(SeededRandom& dice);
    /// A member is, or may be, lost to the array.
    [[nodiscard]] bool degraded() const { return std::ranges::find(lost_, true) != lost_.end(); }
    /// After a crash there would be blocks that no member can say: parity may be half written.
    [[nodiscard]] bool must_not_crash() const { return parity() && degraded(); }
    /// The machine loses power, or the daemon is killed. `host_drained`: the commands in flight have ended.
    void crash(Crash how, CachePolicy policy, const std::function<bool()>& host_drained);
    /// Stops in the ordinary way.
    void stop(const std::function<bool()>& host_drained);
    [[nodiscard]] bool up() const { return replicator_ != nullptr; }

    /// Of the one volume. REQUIRES: up().
    [[nodiscard]] Task<replication::PairStatus> pair();
    [[nodiscard]] replication::PairStatus pair_now();
    [[nodiscard]] replication::Replicator& replicator() { return *replicator_; }
    [[nodiscard]] BlockDevice& mirror() { return *mirror_; }
    [[nodiscard]] raid::Array& array() { return *array_; }
    [[nodiscard]] BlockDevice& volume() { return *array_->find(kVolume); }
    [[nodiscard]] SimEnvironment& environment() { return environment_; }
    [[nodiscard]] SimExecutor& home() { return *executors_.front(); }
    [[nodiscard]] const std::vector<SimExecutor*>& executors() const { return executors_; }
    [[nodiscard]] std::vector<std::unique_ptr<SimDisk>>& disks() { return disks_; }
    [[nodiscard]] const std::string& name() const { return options_.name; }
    [[nodiscard]] SimNodeOptions& options() { return options_; }
    /// What is below the mirror, byte for byte.
    [[nodiscard]] std::vector<std::byte> image(SectorCount sectors);

    static constexpr const char* kVolume = "vol";

  private:
    [[nodiscard]] bool parity() const { return raid::find_level(options_.level)->parities() > 0; }
    bool start_once(SeededRandom* trouble);
    [[nodiscard]] Result<void> open_array();
    Result<void> start_replicator();
    void plant(SeededRandom& dice);
    void note_members(bool planted);
    [[nodiscard]] bool redundant() const;
    bool stop_objects(const std::function<bool()>& host_drained);
    void revive_disks();

    SimScheduler& scheduler_;
    SimNetwork& network_;
    Chronicle& chronicle_;
    SimNodeOptions options_;
    SimEnvironment environment_;
    std::vector<SimExecutor*> executors_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::unique_ptr<raid::Array> array_;
    std::unique_ptr<replication::Replicator> replicator_;
    BlockDevice* mirror_ = nullptr;
    bool formatted_ = false;
    bool unclean_ = false;    ///< the last stop left something to resync
    std::vector<bool> lost_;  ///< by place: given up by the array, or about to be
};

}  // namespace gemel::sim
