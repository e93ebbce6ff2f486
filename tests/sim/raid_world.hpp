// SPDX-License-Identifier: Apache-2.0
// RaidWorld: one array over SimDisks, one host per volume, and everything that can go wrong within what the level
// tolerates: member failures, power cuts, kills, latent errors, slow and failing disks, restarts, also while starting.
//
// What must hold (violations otherwise):
//   RW1 Reads return what the oracle allows, in every state.
//   RW2 Hosts see no error while the level tolerates what happened.
//   RW3 The array opens again after every crash. Degraded after an unclean stop it wants force if it has parity and no
//       journal, or if a missing leg may know more than those that are here, and only then.
//   RW4 Resync ends. Then every view with tolerated members removed is the same, byte for byte.
//   RW5 After a clean stop nothing is left in the cache of a member in sync.
//   RW6 With the journal a degraded crash makes unreadable only what was written, or listed with that, since nothing
//       was listed; and nothing wrong.
//       While writes are logged, the journal names none and all columns are trusted
//       it makes nothing unreadable.
//   RW7 A member that hangs, for a time or for ever, keeps no command waiting beyond its time; its late answers are
//       seen by nobody, and no memory is given out again that it holds.
// Threads: the simulator's one.
#pragma once

#include <memory>
#include <optional>

#include "raid/array.hpp"
#include "raid/level_table.hpp"
#include "tests/sim/sim_host.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::sim {

class RaidWorld : public HostWorld {
  public:
    explicit RaidWorld(const HistoryOptions& options);
    ~RaidWorld() override;
    HistoryResult run();

    Task<LegMask> holders() override { co_return kLegA; }
    LegMask reader() override { return kLegA; }
    bool error_expected(const Error& error) override;
    bool unreadable_expected(Lba lba) override;
    void waited(Duration d) override;

  private:
    struct Volume {
        std::string name;
        std::unique_ptr<Oracle> oracle;
        std::unique_ptr<SimHost> host;
        Oracle::Id clean = 0;          ///< when the journal last listed nothing
        std::vector<Extent> doubtful;  ///< RW6
    };
    enum class Crash : std::uint8_t { kPower, kKill };

    void choose();
    void choose_disks(std::uint64_t members, std::uint64_t data_sectors);
    void choose_faults();
    void create();
    bool open();
    bool open_once(bool force);
    bool crash_while_opening(bool force);
    [[nodiscard]] raid::ArrayConfig config(bool force) const;
    void aim_hosts();
    void round();
    void one_fault();
    void fault_without_redundancy();
    void damage_a_member();
    void lose_a_member();
    void silence(SimDisk& disk);
    void crash(Crash how);
    void note_journal(bool crashing);
    void note_replay();
    [[nodiscard]] raid::RecoveryPolicy some_journal();
    void note_bad_sectors();
    void rest();
    void nothing_listed();
    void doubt_what_was_written();
    void stop_cleanly();
    void stop_array();
    void revive_disks();
    void end_silence();
    void forget_stripes_at_risk(bool open_only);
    void finish();
    void check_views(const std::vector<std::vector<std::byte>>& images);
    void check_view(std::uint32_t removed, const std::vector<std::vector<std::byte>>& images);
    void compare_view(raid::Array& view, const std::string& what, const std::vector<std::vector<std::byte>>& images);
    bool wait_hosts(Duration limit);
    // raid_operator.cpp
    void operate();
    void begin_rebuild();
    void disturb_rebuild();
    void note_members();
    bool rebuild_all();
    SimDisk& fresh_disk(std::size_t place);
    [[nodiscard]] bool rebuilding() const { return array_ && array_->status().rebuild.has_value(); }
    void take_complaints();
    [[nodiscard]] std::uint64_t writes() const;

    [[nodiscard]] bool resyncing() const { return array_ && array_->status().resyncing; }
    /// Two members or more are not in sync. REQUIRES: the array is open.
    [[nodiscard]] bool without_two() const;
    /// Members, as bits.
    [[nodiscard]] std::uint32_t lost_set() const;
    [[nodiscard]] std::uint32_t bad_set() const;
    [[nodiscard]] bool tolerates(std::uint32_t set) const;
    [[nodiscard]] bool spares(std::size_t victim) const;
    [[nodiscard]] bool any_lost() const { return std::ranges::find(lost_, true) != lost_.end(); }
    [[nodiscard]] std::size_t damaged() const;
    [[nodiscard]] SimExecutor& home() const { return *executors_.front(); }

    SimScheduler scheduler_;
    SeededRandom random_;
    SeededRandom operator_;  ///< what the operator does: its own, so that older histories stay what they were
    SeededRandom policies_;  ///< the same, for the policy `redo`
    Chronicle chronicle_;
    SimNetwork network_;
    SimEnvironment environment_;
    std::vector<SimExecutor*> executors_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::vector<bool> lost_;                         ///< by place: failed for good, or given up by the array
    std::vector<std::unique_ptr<SimDisk>> retired_;  ///< another disk has their place
    std::vector<SimDisk*> named_;  ///< by place: the disk that the config names; nullptr: the one that is there
    std::vector<bool> away_;       ///< by place: the array was seen without it since it was lost
    bool resumed_ = false;         ///< the rebuild goes on after a crash
    raid::ArrayConfig base_;
    const raid::LevelRow* row_ = nullptr;  ///< of the level
    std::uint32_t alignment_ = 1;          ///< of the members
    std::unique_ptr<raid::Array> array_;
    std::vector<Volume> volumes_;
    std::uint64_t stripe_sectors_ = 0;  ///< of data
    bool power_cuts_ = true;
    bool kills_ = true;
    bool member_faults_ = true;
    bool media_faults_ = true;
    bool slowness_ = true;
    bool beyond_ = false;           ///< also faults that the level cannot hide
    bool journal_ = false;          ///< the array that runs, or ran last, keeps one
    bool logged_ = false;           ///< RW6: the last crash could make nothing unreadable
    bool unclean_ = false;          ///< the last stop was a crash
    bool errors_expected_ = false;  ///< until the next start
    bool crashing_ = false;
    bool told_by_p_ = false;      ///< since a start by force P tells what a missing member held; ends with the resync
    bool unreadable_ok_ = false;  ///< damage met lost redundancy: for the rest of the history
};

HistoryResult run_raid_history(const HistoryOptions& options);

}  // namespace gemel::sim
