// SPDX-License-Identifier: Apache-2.0
// ReplicationWorld: two whole nodes that mirror one volume, a host that follows the primary, an operator, and every
// fault of the network, of the nodes, and of their disks (SN2: what their arrays hide). Nodes crash also while an
// operator waits for them, and start while a disk refuses something.
//
// What must hold (violations otherwise):
//   PW1 Reads return what the oracle allows. An acknowledged write is lost only if every leg that held it lost power,
//   or
//       an operator forced the promotion of a copy that did not hold it.
//   PW2 A node that is not the primary serves nobody.
//   PW3 No command takes longer than 10 s.
//   PW4 Everything ends: crashes, operations, and, once faults stop, the way back to mirrored and idle.
//   PW5 Mirrored and idle, both images are equal, byte for byte.
//   PW6 A comparison of the copies finds nothing, whatever happens meanwhile, unless a block was changed behind them;
//       that it finds and repairs. A block that one copy cannot read is taken from the other; the host sees no error.
// Threads: the simulator's one.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "tests/sim/sim_host.hpp"
#include "tests/sim/sim_node.hpp"

namespace gemel::sim {

class ReplicationWorld : public HostWorld {
  public:
    explicit ReplicationWorld(const HistoryOptions& options);
    ~ReplicationWorld() override;
    HistoryResult run();

    Task<LegMask> holders() override;
    LegMask reader() override { return leg(active_); }
    bool error_expected(const Error& error, Extent where) override;
    bool unreadable_expected(std::string_view volume, Lba lba) override;
    void waited(Duration d) override;

  private:
    struct Fault {
        std::uint32_t weight;
        void (ReplicationWorld::*happen)();
    };
    enum class Crash : std::uint8_t { kPower, kKill };

    [[nodiscard]] static LegMask leg(std::size_t node) { return node == 0 ? kLegA : kLegB; }
    static constexpr LegMask kBoth = kLegA | kLegB;
    [[nodiscard]] SimNode& active() { return *nodes_[active_]; }
    [[nodiscard]] SimNode& other() { return *nodes_[1 - active_]; }
    [[nodiscard]] bool usable(std::size_t node) const { return nodes_[node]->up() && !crashing_[node]; }
    [[nodiscard]] bool pick(std::uint64_t one_in) { return random_.one_in(one_in); }
    Duration log_random(Duration least, Duration most);

    void choose();
    [[nodiscard]] SimNodeOptions choose_node(const char* name, const char* peer, std::uint64_t volume_bytes);
    bool begin();
    void round();
    void advance(Duration d);
    void plan(Duration in, std::function<void()> action);

    // Faults.
    void one_fault();
    void partition();
    void block_one_way();
    void break_connection();
    void damage_stream();
    void slow_network();
    void slow_disks();
    void crash_secondary();
    void crash_primary();
    void crash_both();
    void fail_secondary_array();
    void fault_a_disk();
    void crash_node(std::size_t node, Crash how);
    void crash_within(std::size_t node, const std::string& what, const std::optional<Result<void>>& out);
    void restart(std::size_t node);
    bool wait_for(std::size_t node);

    // The operator.
    void operate();
    bool establish();
    void promote_with_contact();
    void promote_without_contact();
    void finish_handover();
    void sever();
    void re_establish(bool force);
    void resize();
    std::optional<Result<void>> operation(std::size_t node, Task<Result<void>> task, const std::string& what);

    // Who serves, and what is known about the copies.
    void abandon_service();
    bool ensure_service(Duration patience);
    void resume(std::size_t node);
    std::optional<std::size_t> serving_node();
    LegMask note(const replication::PairStatus& mine);
    void observe();
    void tell();
    [[nodiscard]] static std::string describe(const replication::PairStatus& s);
    void observe_node(std::size_t node, const replication::PairStatus& s);
    /// Mirrored, and not only in contact: a pair that was refused is that, too.
    [[nodiscard]] static bool in_step(const replication::PairStatus& s) {
        return s.state == replication::PairState::kMirrored && s.connected && s.reason.empty();
    }
    Task<void> note_sync();
    void check_standby();

    // Comparisons of the copies.
    void begin_verify();
    void observe_verify(const SimNode& node, const replication::PairStatus& s);
    replication::VerifyReport verify(replication::VerifyOrder order);
    void spoil_among_faults();
    [[nodiscard]] bool doubted_within(Extent where) const;
    void change_behind(std::size_t node, Lba lba);
    void spoil_a_block(std::size_t node);
    [[nodiscard]] Lba random_lba(std::size_t node);
    void compare_copies();

    void settle();
    void bring_everything_back();
    bool quiet();
    void attend();
    void compare_images();
    void end();

    SimScheduler scheduler_;
    SeededRandom random_;
    SeededRandom disk_random_;  ///< for what befalls disks and operations
    SeededRandom verify_random_;
    Chronicle chronicle_;
    SimNetwork network_;
    HeapPool pool_;  ///< the host's buffers
    std::array<std::unique_ptr<SimNode>, 2> nodes_;
    std::array<bool, 2> crashing_{};
    std::array<bool, 2> lost_power_{};        ///< since the copies were last known to be equal
    std::array<std::uint32_t, 2> queries_{};  ///< questions and operations inside a node
    std::unique_ptr<Oracle> oracle_;
    std::unique_ptr<SimHost> host_;
    std::multimap<TimePoint, std::function<void()>> planned_;
    std::vector<Fault> faults_;
    std::size_t active_ = 0;
    bool in_service_ = false;
    bool mirrored_ = false;      ///< the copies were equal, but for writes in flight, when last looked at
    bool mirrored_was_ = false;  ///< and nobody has served since a crash of that time
    bool settling_ = false;
    bool asking_ = false;        ///< note_sync() is under way
    LegMask authority_ = kBoth;  ///< the copies that together say what a write's fate was
    bool freeze_ = false;
    std::array<std::set<std::uint64_t>, 2> doubted_;  ///< blocks that a node may be unable to read, by first sector
    bool lost_block_ = false;                         ///< there was one
    bool spoilt_ = false;                             ///< a block of one copy was changed behind the pair's back
    bool forced_ = false;  ///< there was a promotion by force: two terms of one number may exist
    std::uint64_t resync_bytes_ = 0;
    bool reconnecting_ = false;
    bool member_faults_ = false;     ///< disks fail below arrays that hide it
    bool start_faults_ = false;      ///< disks refuse something while a node starts
    bool crash_operations_ = false;  ///< nodes crash while an operator waits for them
    bool operating_ = false;         ///< an operation that may be interrupted is under way
    bool interrupted_ = false;       ///< the last one was
};

HistoryResult run_replication_history(const HistoryOptions& options);

}  // namespace gemel::sim
