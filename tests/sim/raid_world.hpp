// SPDX-License-Identifier: Apache-2.0
// RaidWorld: one array over SimDisks, one host per volume, and everything that can go wrong within what the level
// tolerates: member failures, power cuts, kills, latent errors, slow and failing disks, restarts, also while starting.
//
// What must hold (violations otherwise):
//   RW1 Reads return what the oracle allows, in every state.
//   RW2 Hosts see no error while the level tolerates what happened.
//   RW3 The array opens again after every crash. Degraded after an unclean stop it wants force if it has parity and no
//       journal, or if missing members may know more than those that are here, and only then.
//   RW4 Resync ends. Then every view with tolerated members removed is the same, byte for byte.
//   RW5 After a clean stop nothing is left in the cache of a member in sync.
//   RW6 With the journal a degraded crash makes unreadable only what was written, or listed with that, since nothing
//       was listed; and nothing wrong.
//       While partial parity is recorded, and all columns are trusted, that is the blocks written, and nothing else.
//       While writes are logged, the journal names none and all columns are trusted, it makes nothing unreadable.
//   RW7 A member that hangs, for a time or for ever, keeps no command waiting beyond its time; its late answers are
//       seen by nobody, and no memory is given out again that it holds.
//   RW8 A member that loses, misplaces or damages what is written to it, in silence, changes nothing that hosts see
//       (raid_world_silent.cpp); without one no checksum is ever found wrong but of what rotted at the end.
//       Without redundancy what rotted is unreadable, until all of its block is written, and nothing else is.
//   RW9 A scrub finds no mismatch but where something rotted, and that once and at its address; it goes on after a
//       restart unless it had ended or was cancelled.
//   RW10 A member that is replaced stays in sync unless it fails itself, whatever becomes of its target.
//   RW11 The array finds its durable log and its journal whole at every start.
//   RW12 Members that were extended, also while the array was not open, are members as before; an array whose members
//       all are larger grows, and crashes around that leave it as it was or grown.
//   RW13 An older copy of a member, or of a device of a rebuild or a replace, that is put in its place while the array
//       is not open is the loss of it, whatever is on it.
// Threads: the simulator's one.
#pragma once

#include <memory>
#include <optional>
#include <set>

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
    bool error_expected(const Error& error, Extent where) override;
    bool unreadable_expected(std::string_view volume, Lba lba) override;
    void waited(Duration d) override;

  private:
    struct Volume {
        std::string name;
        std::unique_ptr<Oracle> oracle;
        std::unique_ptr<SimHost> host;
        Oracle::Id clean = 0;          ///< when the journal last listed nothing
        std::vector<Extent> doubtful;  ///< RW6
        std::vector<Extent> exposed;   ///< stripes without redundancy there: doubtful when another member is lost
        raid::IntervalSet bad;         ///< stripes with bad sectors that a crash, or lost redundancy, has met
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
    bool work();
    void end_ambushed();
    void relapse();
    bool pass(Duration d);
    void heed(const EventRecord& e);
    void one_fault();
    void fault_without_redundancy();
    void damage_a_member();
    void lose_a_member();
    void silence(SimDisk& disk);
    void lose_in_crash();
    void crash(Crash how);
    void note_journal(bool crashing);
    void note_replay();
    [[nodiscard]] raid::RecoveryPolicy some_journal();
    void note_bad_sectors();
    void note_bad_stripe(std::uint64_t stripe);
    void rest();
    void doubt_for_crash(bool power);
    void nothing_listed();
    void doubt_what_was_written();
    void doubt_blocks_written();
    void doubt_exposed();
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
    // raid_world_silent.cpp
    void choose_single_checksums();
    void choose_plain();
    void switch_checksums();
    void rot_single_copies();
    void choose_liar();
    void begin_lying();
    void note_lies();
    [[nodiscard]] bool lies(std::size_t place) const { return liar_ && disks_[place].get() == *liar_; }
    // raid_operator.cpp
    void operate();
    void note_quicker_spare(std::size_t place, SimDisk* named);
    void begin_rebuild();
    void see_rebuild_through();
    void disturb_rebuild();
    void note_members();
    bool rebuild_all();
    SimDisk& fresh_disk(std::size_t place);
    // raid_scrubs.cpp
    void note_event(const EventRecord& e);
    void note_scrub(const raid::ArrayStatus& status);
    void check_scrub_goes_on(const raid::ArrayStatus& status);
    bool begin_scrub(raid::ScrubMode mode);
    void disturb_scrub();
    void operate_scrub();
    bool end_scrub();
    void let_rot();
    void check_rot_found(const raid::ScrubReport& report);
    bool scrub_all();
    bool resync_and_scrub_all();
    std::unique_ptr<SimDisk> blank_disk(std::size_t place, const std::string& suffix);
    // raid_wanderer.cpp
    void wander();
    void add_writes(std::uint64_t n);
    // raid_copies.cpp
    struct Copy {
        const SimDisk* disk;
        std::uint64_t epoch;
        bool target;  ///< of a rebuild or a replace
        std::vector<std::byte> content;
    };
    void take_copy();
    const Copy* choose_copy(bool clean);
    const Copy* find_copy(bool clean);
    void lose_to_copy(const Copy& copy);
    void put_back(const Copy* copy);
    // raid_grower.cpp
    void note_sizes();
    [[nodiscard]] std::uint64_t least_size() const;
    void extend_disks();
    void start_growth();
    void end_growth();
    void grow();
    void grow_volume();
    void note_volume_sizes();
    void operate_growth();
    [[nodiscard]] std::optional<raid::Geometry> geometry() const;
    // raid_replacer.cpp
    [[nodiscard]] bool replacing() const;
    void begin_replace();
    void disturb_replace();
    void fail_target();
    void note_replace();
    [[nodiscard]] bool rebuilding() const { return array_ && array_->job(raid::JobKind::kRebuild)->running(); }
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
    SeededRandom silent_;    ///< what a disk does in silence; the same
    SeededRandom operator_;  ///< what the operator does: its own, so that older histories stay what they were
    SeededRandom policies_;  ///< the same, for the policy `redo`
    SeededRandom patience_;  ///< when the operator waits for the end of a rebuild
    SeededRandom scrubber_;  ///< what it does with scrubs; the seed leaves the histories of seeds.txt without
    SeededRandom replacer_;  ///< what the operator does with members that work
    SeededRandom cacher_;    ///< the size of the stripe cache
    SeededRandom grower_;    ///< what the operator does with space
    SeededRandom ambusher_;  ///< when crashes follow events: for the same reason its own
    SeededRandom wanderer_;  ///< which members go away for a while
    SeededRandom relapser_;  ///< which are lost right after a rebuild, and which stops find commands under way
    SeededRandom single_;    ///< what happens to checksums without redundancy
    SeededRandom partials_;  ///< the policy `ppl`
    SeededRandom copier_;    ///< which disks are copied, and put back
    SeededRandom plain_;     ///< redundancy without checksums
    Chronicle chronicle_;
    SimNetwork network_;
    SimEnvironment environment_;
    std::vector<SimExecutor*> executors_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::vector<std::uint64_t> first_sizes_;         ///< of the disks in the places when the array was made
    std::vector<bool> lost_;                         ///< by place: failed for good, or given up by the array
    std::vector<std::unique_ptr<SimDisk>> retired_;  ///< another disk has their place
    std::vector<SimDisk*> named_;      ///< by place: the disk that the config names; nullptr: the one that is there
    std::unique_ptr<SimDisk> target_;  ///< of a replace
    std::size_t target_place_ = 0;
    bool target_faulted_ = false;
    bool replaces_ = false;
    std::vector<bool> faulted_;  ///< by place: its failure was planned before it was in sync, and may come after that
    std::vector<bool> away_;     ///< by place: the array was seen without it since it was lost
    bool resumed_ = false;       ///< the rebuild goes on after a crash
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
    bool wanders_ = false;  ///< members go away and come back
    bool copies_ = false;   ///< older copies are put back
    std::vector<Copy> older_;
    bool switches_ = false;                                     ///< checksums go off and on
    bool rots_ = false;                                         ///< blocks rot while the hosts rest; the same
    bool ambushes_ = false;                                     ///< crashes follow events of the array closely
    std::optional<TimePoint> ambush_;                           ///< the next one
    bool relapses_ = false;                                     ///< a member is lost right after a rebuild
    std::optional<TimePoint> relapse_;                          ///< when
    bool busy_stops_ = false;                                   ///< not after the hosts' last commands only
    bool stopping_ = false;                                     ///< and some are under way
    bool beyond_ = false;                                       ///< also faults that the level cannot hide
    bool patient_ = patience_.one_in(3);                        ///< sees rebuilds through
    bool partial_ = partials_.one_in(2);                        ///< arrays of level 5 have the policy `ppl`
    bool scrubs_ = scrubber_.one_in(2);                         ///< while hosts work
    bool scrub_goes_on_ = false;                                ///< at the next start
    bool scrub_resumed_ = false;                                ///< the scrub that runs went on after a crash
    bool scrub_cancelled_ = false;                              ///< the one that runs will end
    std::uint64_t scrub_began_at_ = 0;                          ///< writes of hosts before it
    std::set<std::pair<std::uint32_t, std::uint64_t>> rotten_;  ///< blocks, by member
    bool rotted_ = false;                                       ///< before now, too
    bool grows_ = false;                                        ///< disks are extended
    bool extended_ = false;                                     ///< since it grew
    bool grew_ = false;                                         ///< once
    bool growing_ = false;                                      ///< in the background
    std::optional<Result<void>> growth_;                        ///< its end
    std::uint64_t grown_to_ = 0;                                ///< size of the smallest disk that limits it then
    bool journal_ = false;                                      ///< the array that runs, or ran last, keeps one
    bool logged_ = false;                                       ///< RW6: the last crash could make nothing unreadable
    bool told_ = false;                                         ///< RW6: the same of what was not being written
    bool unclean_ = false;                                      ///< the last stop was a crash
    bool errors_expected_ = false;                              ///< until the next start
    bool crashing_ = false;
    std::optional<SimDisk*> liar_;  ///< RW8
    std::uint64_t lies_told_ = 0;
    bool told_by_p_ = false;       ///< since a start by force P tells what a missing member held; ends with the resync
    bool met_damage_ = false;      ///< some stripe is bad: writes of parts of such blocks may fail
    bool exposed_damage_ = false;  ///< and a member was lost, or has bad sectors, since
};

HistoryResult run_raid_history(const HistoryOptions& options);

}  // namespace gemel::sim
