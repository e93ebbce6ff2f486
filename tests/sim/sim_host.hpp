// SPDX-License-Identifier: Apache-2.0
// SimHost: a host with many commands in flight on one volume: overlapping writes, reads, flushes, FUA, discards. Tells
// the oracle what it does and asks it about everything it reads.
//
// Invariants:
//   SH1 What was in flight when the host was told of a crash ends without an answer.
//   SH2 Every error is either one that the world expects now, or a violation.
// Threads: the simulator's one; commands are issued on the executors given, at random.
#pragma once

#include <string>
#include <vector>

#include "gemel/block_device.hpp"
#include "tests/sim/history.hpp"
#include "tests/support/heap_pool.hpp"
#include "tests/support/oracle.hpp"

namespace gemel::sim {

/// What a host cannot know by itself; answered by the world it lives in.
class HostWorld {
  public:
    virtual ~HostWorld() = default;
    /// The legs that hold a write acknowledged just now.
    virtual Task<LegMask> holders() = 0;
    /// The leg that reads are served from now.
    virtual LegMask reader() = 0;
    /// Of a command to `where`; no sectors: a flush.
    virtual bool error_expected(const Error& error, Extent where) = 0;
    virtual bool unreadable_expected(std::string_view volume, Lba lba) = 0;
    virtual void waited(Duration d) = 0;
};

struct SimHostOptions {
    std::string name = "volume";
    std::uint32_t depth = 8;
    std::uint32_t max_sectors = 64;
    std::uint32_t hot_sectors = 256;  ///< half of the commands go there
    std::uint32_t flush_percent = 6;
    std::uint32_t discard_percent = 4;
    std::uint32_t read_percent = 25;
    std::uint32_t fua_percent = 8;  ///< of writes
};

class SimHost {
  public:
    SimHost(SimScheduler& scheduler, std::uint64_t seed, HeapPool& pool, Oracle& oracle, HostWorld& world,
            Chronicle& chronicle, SimHostOptions options);

    /// From now on commands go to `device`, issued on one of `executors`.
    void aim(BlockDevice& device, std::vector<SimExecutor*> executors);
    void set_depth(std::uint32_t depth) { options_.depth = depth; }
    /// Issues so many more commands, options.depth at a time.
    void add_work(std::uint32_t commands);
    /// SH1. Commands not yet issued are dropped.
    void crash();
    /// No command is in flight; after a crash: those from before it have ended too.
    [[nodiscard]] bool drained() const { return inside_ == 0; }
    [[nodiscard]] bool busy() const { return workers_ > 0; }
    /// Issues nothing more; what is in flight goes on.
    void pause() { budget_ = 0; }
    [[nodiscard]] std::uint64_t writes() const { return writes_; }

    /// Reads the whole volume and lets the oracle judge it. The bytes are in `image` if it is given.
    Task<void> verify(std::vector<std::byte>* image = nullptr);
    /// One flush, as the host's own.
    Task<bool> flush();

  private:
    Task<void> worker(std::uint64_t life);
    Task<void> command(std::uint64_t life);
    Task<void> write_some(std::uint64_t life, Extent where);
    Task<void> discard_some(std::uint64_t life, Extent where);
    Task<Result<void>> read_into(Extent where, Buffer& buffer);
    Task<void> read_some(std::uint64_t life, Extent where);
    Task<void> ended(std::uint64_t life, std::uint64_t id, bool fua, std::string_view what, Extent where,
                     Result<void> result);
    void judge_error(std::string_view what, Extent where, const Error& error);
    void judge_read(std::uint64_t id, Extent where, Slice data, const Result<void>& result);
    [[nodiscard]] Extent choose();

    SimScheduler& scheduler_;
    SeededRandom random_;
    HeapPool& pool_;
    Oracle& oracle_;
    HostWorld& world_;
    Chronicle& chronicle_;
    SimHostOptions options_;
    BlockDevice* device_ = nullptr;
    std::vector<SimExecutor*> executors_;
    std::uint64_t life_ = 0;
    std::uint32_t budget_ = 0;
    std::uint32_t workers_ = 0;  ///< of this life
    std::uint32_t inside_ = 0;   ///< of all lives
    std::uint64_t writes_ = 0;
};

}  // namespace gemel::sim
