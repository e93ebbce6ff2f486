// SPDX-License-Identifier: Apache-2.0
// FileDevice: a block device on an open file or block device, with O_DIRECT, through the disk queue of the processor
// that calls.
//
// Invariants:
//   FD1 The descriptor is open for this process alone (flock or O_EXCL) from before the device is made until it is
//   gone. FD2 After a failed flush the device fails for good: what the system has dropped cannot be made durable by
//   trying
//       again.
//   FD3 A slot of the rings' file tables belongs to one device; a ticket is never used twice.
//   FD4 A file's space stays allocated: discard makes zeros without giving space back, unless the device is thin.
// Threads: any processor's.
#pragma once

#include <array>
#include <atomic>

#include "gemel/block_device.hpp"
#include "gemel/environment.hpp"
#include "target/runtime/processor.hpp"

namespace gemel {

/// An exclusively opened file or block device.
struct OpenedFile {
    int fd = -1;
    std::string name;  ///< "file:/path", "block:/dev/vdb"
    std::uint64_t bytes = 0;
    std::uint32_t offset_alignment = kSectorBytes;  ///< of addresses and sizes
    std::uint32_t memory_alignment = kSectorBytes;
    std::uint32_t physical_bytes = kBlockBytes;
    bool locked = false;  ///< by flock
    bool thin = false;
};

class FileDevice final : public BlockDevice {
  public:
    FileDevice(Environment environment, OpenedFile file);
    ~FileDevice() override;
    FileDevice(const FileDevice&) = delete;
    FileDevice& operator=(const FileDevice&) = delete;

    [[nodiscard]] DeviceLimits limits() const override {
        DeviceLimits out = limits_;
        out.sectors = SectorCount(sectors_.load(std::memory_order_relaxed));
        out.gives_back = file_.thin && !refused_[kHole].load(std::memory_order_relaxed);
        return out;
    }
    [[nodiscard]] const OpenedFile& file() const { return file_; }
    /// It has been extended to so many sectors.
    void extend(SectorCount sectors) { sectors_.store(sectors.value, std::memory_order_relaxed); }
    [[nodiscard]] std::string name() const override { return file_.name; }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override;
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;

  private:
    static constexpr std::size_t kMaxProcessors = ProcessorPool::kMostIoProcessors + 1;  ///< with the main one

    /// Moves all bytes, whatever the system takes at once. Returns 0, or a positive errno; kEndOfFile for a read past
    /// the end.
    Task<int> transfer(DiskCommand command, std::uint64_t offset, MutableBytes data, bool durable);
    Task<Result<void>> read_aligned(std::uint64_t offset, Slice to);
    Task<Result<void>> read_block_by_block(std::uint64_t offset, Slice to);
    Task<Result<void>> write_zeros(std::uint64_t offset, std::uint64_t bytes);
    /// A way to make zeros without writing them.
    enum Way : std::uint8_t { kHole, kRange };
    Task<Result<bool>> zero_by(Way way, std::uint64_t offset, std::uint64_t bytes);
    void note_refused(Way way, int error);
    [[nodiscard]] bool is_aligned(MutableBytes data) const;
    [[nodiscard]] Error error_of(DiskCommand command, int error, std::uint64_t offset, std::uint64_t bytes) const;
    Result<void> check_usable() const;
    DiskQueue& queue_here();

    Environment environment_;
    OpenedFile file_;
    DiskFile disk_file_;
    DeviceLimits limits_;  ///< but for the size
    std::atomic<std::uint64_t> sectors_;
    std::atomic<bool> failed_{false};             ///< FD2
    std::array<std::atomic<bool>, 2> refused_{};  ///< by the file system or device, for good
    /// Processors whose queue may know disk_file_.
    std::array<std::atomic<Processor*>, kMaxProcessors> users_{};
};

}  // namespace gemel
