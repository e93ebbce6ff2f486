// SPDX-License-Identifier: Apache-2.0
// ArenaPool: the daemon's buffers. One reserved range of addresses in pieces of 16 MiB; each processor's arena takes
// pieces as it needs them and cuts them by halves (4 KiB to 16 MiB).
//
// Invariants:
//   AP1 Memory in pieces never exceeds the bound; a request beyond it fails with kResources.
//   AP2 A block goes back to the arena whose piece it is in, whichever thread frees it. Each thread of a processor
//   keeps
//       a short list of free blocks per size without a lock; only when that is empty or full an arena's lock is taken.
//   AP3 A piece that is wholly free goes back to all, except one per arena.
//   AP4 All memory lies in [base, base + bytes): the piece of an address, and with it its number in a ring's table of
//       registered buffers, is a shift.
//   AP5 Under AddressSanitizer a free block is poisoned.
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "gemel/buffer.hpp"
#include "target/runtime/disk_queue.hpp"

namespace gemel {

struct ArenaOptions {
    std::size_t bytes = 256U << 20U;  ///< bound, rounded up to 16 MiB
    unsigned arenas = 1;              ///< as many as processors, main included
    bool huge_pages = false;
};

class ArenaPool final : public BufferPool {
  public:
    static constexpr std::size_t kPieceBytes = 16U << 20U;
    static constexpr std::size_t kMaxBuffer = kPieceBytes;

    /// Errors: kResources if the address range cannot be reserved.
    static Result<std::unique_ptr<ArenaPool>> create(const ArenaOptions& options);
    /// REQUIRES: every buffer is back, no thread uses the pool.
    ~ArenaPool() override;

    /// At least `bytes` (at most kMaxBuffer, else kInvalidArgument), a power of two from 4 KiB on.
    Result<Buffer> allocate(std::size_t bytes) override;

    [[nodiscard]] FixedMemory fixed_memory() const;
    [[nodiscard]] std::size_t bound_bytes() const;
    [[nodiscard]] std::size_t outstanding_bytes() const;

  private:
    struct Impl;
    explicit ArenaPool(std::unique_ptr<Impl> impl);
    void release(MutableBytes memory, std::span<BlockInfo> infos, std::uint32_t token) noexcept override;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel
