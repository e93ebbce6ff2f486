// SPDX-License-Identifier: Apache-2.0
// MemoryDevice: a block device in this process's memory, for tests and benchmarks. Every call completes at once.
//
// Invariants:
//   MD1 A write holds the locks of all the regions that it touches, taken in ascending order, while it copies: writes
//       that overlap are serialised, and a read sees no torn sector. No lock is held across a suspension.
// Threads: any processor's.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "target/backend/backend_table.hpp"
#include "target/backend/device_bounds.hpp"

namespace gemel {

namespace {

/// A 4 KiB request takes one lock, one of 4 MiB takes 17, far below the 64 that ThreadSanitizer can follow.
constexpr std::uint64_t kRegionBytes = 256 * kKiB;

class MemoryDevice final : public BlockDevice {
  public:
    MemoryDevice(std::byte* memory, std::uint64_t bytes)
        : memory_(memory), bytes_(bytes), regions_(round_up(bytes, kRegionBytes) / kRegionBytes) {
        limits_.sectors = sectors_of(bytes);
        limits_.physical_sectors = kSectorsPerBlock;
        limits_.gives_back = true;
    }
    ~MemoryDevice() override { ::munmap(memory_, bytes_); }
    MemoryDevice(const MemoryDevice&) = delete;
    MemoryDevice& operator=(const MemoryDevice&) = delete;

    [[nodiscard]] DeviceLimits limits() const override { return limits_; }
    [[nodiscard]] std::string name() const override { return "memory:" + std::to_string(bytes_ / kMiB) + "MiB"; }

    Task<Result<void>> read(Lba lba, Slice to, ReadOptions /*options*/) override {
        CO_TRY_VOID(check_bounds(limits_, name_for_errors(), lba, to.size(), limits_.max_transfer_bytes));
        to.clear_infos();
        with_regions(byte_offset(lba), to.size(), [&](std::byte* at) { std::memcpy(to.data().data(), at, to.size()); });
        co_return Result<void>{};
    }

    Task<Result<void>> write(Lba lba, Slice from, WriteOptions /*options*/) override {
        CO_TRY_VOID(check_bounds(limits_, name_for_errors(), lba, from.size(), limits_.max_transfer_bytes));
        CO_TRY_VOID(from.verify());
        with_regions(byte_offset(lba), from.size(),
                     [&](std::byte* at) { std::memcpy(at, from.data().data(), from.size()); });
        co_return Result<void>{};
    }

    Task<Result<void>> flush() override { co_return Result<void>{}; }

    Task<Result<void>> discard(Lba lba, SectorCount count) override {
        CO_TRY_VOID(check_bounds(limits_, name_for_errors(), lba, bytes_of(count), bytes_));
        std::uint64_t at = byte_offset(lba);
        const std::uint64_t end = at + bytes_of(count);
        while (at < end) {
            const std::uint64_t step = std::min(end - at, std::uint64_t{limits_.max_transfer_bytes});
            with_regions(at, step, [&](std::byte* p) { clear(p, step); });
            at += step;
        }
        co_return Result<void>{};
    }

  private:
    static const std::string& name_for_errors() {
        static const std::string name = "memory device";
        return name;
    }

    /// Whole pages go back to the system, which gives zeros when they are touched again.
    static void clear(std::byte* from, std::uint64_t bytes) {
        const auto start = reinterpret_cast<std::uintptr_t>(from);
        const std::uintptr_t first = std::min(round_up(start, kBlockBytes), start + bytes);
        const std::uintptr_t last = std::max(round_down(start + bytes, kBlockBytes), first);
        std::memset(from, 0, first - start);
        if (last > first && ::madvise(from + (first - start), last - first, MADV_DONTNEED) != 0) {
            std::memset(from + (first - start), 0, last - first);
        }
        std::memset(from + (last - start), 0, start + bytes - last);
    }

    template <class Function>
    void with_regions(std::uint64_t offset, std::uint64_t bytes, Function&& function) {
        if (bytes == 0) {
            return;
        }
        const std::size_t first = offset / kRegionBytes;
        const std::size_t last = (offset + bytes - 1) / kRegionBytes;
        for (std::size_t i = first; i <= last; ++i) {
            regions_[i].lock();
        }
        function(memory_ + offset);
        for (std::size_t i = first; i <= last; ++i) {
            regions_[i].unlock();
        }
    }

    std::byte* const memory_;
    const std::uint64_t bytes_;
    std::vector<std::mutex> regions_;
    DeviceLimits limits_;
};

}  // namespace

Task<DeviceResult> open_memory_backend(Environment /*environment*/, BackendSpec spec) {
    if (spec.bytes == 0 || spec.bytes % kBlockBytes != 0) {
        co_return fail(Errc::kInvalidArgument, "a memory device of " + std::to_string(spec.bytes) +
                                                   " bytes: the size must be a multiple of 4096 bytes, and not 0");
    }
    void* memory =
        ::mmap(nullptr, spec.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        co_return fail(Errc::kResources,
                       "no memory for a device of " + std::to_string(spec.bytes) + " bytes: " + std::strerror(errno));
    }
    ::madvise(memory, spec.bytes, MADV_DONTFORK);
    co_return std::make_unique<MemoryDevice>(static_cast<std::byte*>(memory), spec.bytes);
}

}  // namespace gemel
