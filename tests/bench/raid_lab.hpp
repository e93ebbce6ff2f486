// SPDX-License-Identifier: Apache-2.0
// RaidLab: what the rows of raid_bench measure with: arrays on real members, as the daemon makes them, and the same
// members raw.
//
// Invariants:
//   RL1 Both sides of a comparison use the same devices, in turns, in one process.
//   RL2 Members were written once before they are measured: no write allocates space.
//   RL3 After every I/O a worker lets other work run, as a command that comes from a network does.
// Threads: the benchmark's own, which blocks in calls, and up to two processors.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "raid/array.hpp"
#include "target/runtime/runtime.hpp"

namespace gemel::bench {

struct LabOptions {
    std::string folder = ".";
    std::uint64_t member_mib = 256;
    double seconds = 0.5;  ///< of one run
    int pairs = 5;
};

/// Member I/Os of an array, or of its members raw.
struct MemberIos {
    double reads = 0;
    double writes = 0;
    double written_bytes = 0;
};

/// Counts the I/Os of the device below; each processor has its own counters.
class CountedDevice final : public BlockDevice {
  public:
    explicit CountedDevice(std::unique_ptr<BlockDevice> device) : device_(std::move(device)) {}
    [[nodiscard]] DeviceLimits limits() const override { return device_->limits(); }
    [[nodiscard]] std::string name() const override { return device_->name(); }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override;
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override;
    Task<Result<void>> flush() override { return device_->flush(); }
    Task<Result<void>> discard(Lba lba, SectorCount count) override { return device_->discard(lba, count); }
    void add_to(MemberIos& sum) const;

  private:
    struct alignas(64) Counters {
        std::atomic<std::uint64_t> reads{0};
        std::atomic<std::uint64_t> writes{0};
        std::atomic<std::uint64_t> written_bytes{0};
    };
    static constexpr std::size_t kProcessors = 8;
    Counters& here();

    std::unique_ptr<BlockDevice> device_;
    std::array<Counters, kProcessors> counters_;
};

/// What an array is like. `adjust` sets what is special to a row.
struct Shape {
    std::string name;
    std::string level = "5";
    unsigned members = 5;
    std::uint32_t strip_kib = 64;
    std::string kind = "file";
    unsigned shards = 1;
    void (*adjust)(raid::ArrayConfig&) = nullptr;
};

struct Load {
    std::uint64_t bytes = kBlockBytes;  ///< of each I/O
    unsigned depth = 32;                ///< in all; a sequential load of members: of each member
    bool sequential = false;
    unsigned read_percent = 0;
    unsigned processors = 1;   ///< that the workers are divided over
    std::uint64_t region = 0;  ///< bytes from the start that it stays in; 0: all
    Duration interval{0};      ///< of each worker from one I/O to the next; 0: as fast as it can
    int only_written = -1;     ///< sequential load of members: this one is written, the others are read
};

struct Rate {
    double ios = 0;     ///< per second
    double p99_us = 0;  ///< how long all but one of a hundred took at most
    MemberIos member;   ///< per I/O
};

/// An open array and its members. The array is gone after close().
class Subject {
  public:
    Shape shape;
    std::vector<std::unique_ptr<CountedDevice>> members;
    std::unique_ptr<raid::Array> array;

    [[nodiscard]] BlockDevice& volume() const { return *array->find("vol"); }
    /// Of each member; nothing but data of the array lies there.
    [[nodiscard]] SectorCount data_sectors() const;
    [[nodiscard]] MemberIos ios() const;
};

class RaidLab {
  public:
    explicit RaidLab(LabOptions options);
    ~RaidLab();
    RaidLab(const RaidLab&) = delete;
    RaidLab& operator=(const RaidLab&) = delete;

    [[nodiscard]] const LabOptions& options() const { return options_; }
    Environment& environment() { return *environment_; }
    Processor& processor(std::size_t i) { return runtime_->processors().io(i); }

    /// Makes the members, writes all of them once, and makes an array of them whose redundancy is right. Ends the
    /// program with a message if that fails.
    Subject open(const Shape& shape);
    /// Stops the array and removes its members.
    void close(Subject& subject);

    /// Fails a member, whose device is then as a new one: it cannot just catch up.
    void lose(Subject& subject, std::uint32_t member);
    /// The load on the array's volume.
    Rate run_array(Subject& subject, const Load& load);
    /// The load on the data area of the raw members: at random over all of them, or each of them sequentially at once.
    /// The array's redundancy is wrong afterwards, which nobody here looks at.
    Rate run_members(Subject& subject, const Load& load);

  private:
    struct Place {
        BlockDevice* device = nullptr;
        bool read = false;  ///< where only_written is set
        std::uint64_t blocks = 0;
        std::atomic<std::uint64_t> next{0};
    };
    struct Run {
        std::vector<Place>& places;
        const Load& load;
        TimePoint end;
        bool sealed = false;
    };
    Rate run(Subject& subject, const Load& load, std::vector<Place>& places, unsigned workers, bool sealed);
    using Waits = std::vector<float>;  ///< microseconds, one per I/O
    Task<Waits> work(Run run, unsigned index);
    Task<Waits> work_at_home(Run run, unsigned index);
    Task<Result<Subject>> make(Shape shape);
    Task<Result<void>> fill(BlockDevice& device);

    class Events;
    LabOptions options_;
    std::unique_ptr<Events> events_;
    std::unique_ptr<Runtime> runtime_;
    std::unique_ptr<Environment> environment_;
};

/// `pairs` times both, in turns, after one that does not count.
struct Comparison {
    double ours = 0;    ///< median
    double theirs = 0;  ///< median
    double ratio = 0;   ///< median of the pairs' ratios
};

template <class Ours, class Theirs>
Comparison compare(int pairs, Ours ours, Theirs theirs);

double median(std::vector<double> values);

template <class Ours, class Theirs>
Comparison compare(int pairs, Ours ours, Theirs theirs) {
    std::vector<double> a;
    std::vector<double> b;
    std::vector<double> ratios;
    for (int i = -1; i < pairs; ++i) {
        double mine = 0;
        double other = 0;
        if (i % 2 == 0) {
            mine = ours();
            other = theirs();
        } else {
            other = theirs();
            mine = ours();
        }
        if (i >= 0) {
            a.push_back(mine);
            b.push_back(other);
            ratios.push_back(mine / other);
        }
    }
    return {median(std::move(a)), median(std::move(b)), median(std::move(ratios))};
}

}  // namespace gemel::bench
