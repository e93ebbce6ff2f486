// SPDX-License-Identifier: Apache-2.0
// MemberWatch: finds member I/Os that do not end, has their member failed, and lets their callers go on.
//
// Invariants:
//   MW1 An I/O is overdue when it has not ended after the array's patience, an eighth of it more at the most.
//   MW2 An I/O is given up, its caller gets kTimedOut, only where its end matters to nobody any more: its member is
//       durably failed. So the last copy's I/Os wait, with their locks and memory, until they end: then the array is
//       read-only. Three kinds are given up at once when overdue: flushes and superblocks, which have no lock, hold up
//       the failing of members, and whose callers apply the rule for that themselves; those of an array that is not
//       open yet; and, of a device that never answers, those of an array that stops.
//   MW3 The memory of an I/O that was given up is on loan (B4) until it really ends. What it then brings is dropped.
//   MW4 The stripe's lock goes with the caller, for the I/O can reach nobody: its device gets no I/O of the array any
//       more, which fails, and enters no place again as long as the array is open.
//   MW5 I/Os are listed by executor, each list touched there only. One timer for each, armed only while I/Os are
//       listed, on their first; nothing is measured or allocated for an I/O.
// Threads: I/O on any executor; one that has no list goes by the first one's.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/environment.hpp"

namespace gemel::raid {

/// What becomes of a member that does not answer: the open array.
class SilenceJudge {
  public:
    virtual ~SilenceJudge() = default;
    /// `device`, as watched() gave it, does not answer. Success: whoever it was is durably failed, or it is no member
    /// any more. Ends on the caller's executor.
    virtual Task<Result<void>> silent(const BlockDevice* device, Duration patience) = 0;
};

class MemberWatch {
  public:
    MemberWatch(Environment& env, Duration patience, const std::vector<Executor*>& executors);
    /// REQUIRES: stop() has ended.
    ~MemberWatch();
    MemberWatch(const MemberWatch&) = delete;
    MemberWatch& operator=(const MemberWatch&) = delete;

    /// `device`, watched: the same one each time; lives as long as this. The device outlives its last I/O. Home.
    BlockDevice* watched(BlockDevice* device);
    /// What watched() gave is of no use any more; its device may go. REQUIRES: no I/O is under way on it. Home.
    void forget(const BlockDevice* watched);
    /// What watched() gave gets no I/O any more (MW4). True: none is under way on it either, and its device may go; the
    /// watch knows it no more. Home; ends there.
    Task<bool> retire(BlockDevice* watched);
    /// Before I/O of hosts starts; nullptr takes it away.
    void set_judge(SilenceJudge* judge) { judge_.store(judge); }
    /// From now on what is overdue is given up whatever becomes of its member.
    void begin_stop() { stopping_.store(true); }
    /// REQUIRES: no I/O has a caller any more. Any executor; ends there.
    Task<void> stop();
    /// I/Os of what watched() gave that were given up and have not ended. Any thread.
    [[nodiscard]] static std::uint32_t unanswered(const BlockDevice* device);
    /// What watched() gave gets no I/O any more (MW4), or has I/O that was given up and may still happen. Any thread.
    [[nodiscard]] static bool given_up(const BlockDevice* device);

  private:
    class Watched;
    struct Caller;
    struct Flight;
    /// One executor's.
    struct Lane {
        struct Sweep : Timer {
            MemberWatch* watch = nullptr;
            Lane* lane = nullptr;
        };
        Executor* executor = nullptr;
        Flight* first = nullptr;
        std::uint64_t tick = 0;       ///< counts the timer's ends while I/Os are listed
        std::vector<Watched*> asked;  ///< whose failing is under way, or was refused
        std::uint32_t questions = 0;  ///< under way
        bool closed = false;
        Sweep sweep;
    };
    /// What the caller of an I/O lends, and whether it may be given up by itself (MW2).
    struct Terms {
        Watched* device = nullptr;
        bool at_once = false;
        ConstBytes memory;
    };
    using Counter = std::shared_ptr<std::atomic<std::uint32_t>>;

    Task<Result<void>> wait(Task<Result<void>> io, Terms terms);
    static gemel::detail::Detached fly(Task<Result<void>> io, MemberWatch& watch, Lane& lane, Caller& caller,
                                       Terms terms);
    [[nodiscard]] Lane* lane_here();
    void list(Lane& lane, Flight& flight);
    static void unlist(Flight& flight);
    void arm(Lane& lane);
    void sweep(Lane& lane);
    Task<void> ask(Lane& lane, Watched& device);
    template <class Which>
    void give_up(Lane& lane, Which which);

    Environment& env_;
    Duration patience_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    std::vector<std::unique_ptr<Watched>> devices_;
    std::atomic<SilenceJudge*> judge_{nullptr};
    std::atomic<bool> stopping_{false};
};

}  // namespace gemel::raid
