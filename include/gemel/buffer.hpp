// SPDX-License-Identifier: Apache-2.0
// Buffers of the data path: memory for disk and network, with one checksum and one status per 4 KiB block.
//
// A buffer stands for a range of sectors. It is divided where the device's addresses are multiples of 4 KiB; each piece
// (a whole block, or the part of a block at either end) has a BlockInfo.
// Invariants:
//   B1  Data that a host sent carries the CRC32C of each piece from its arrival to the last device.
//   B2  A read sets every piece's status; the data of a piece that is not kOk is zeros and is never shown to a host.
//   B3  A slice borrows; its Buffer outlives it. A slice is cut at 4 KiB addresses only.
//   B4  Memory that a device did not give back (BufferPool::lend) is given out again only when it has, also if its
//       Buffer goes before that. Until then the device may write to what it was to fill.
// Threads: a buffer is used by one executor at a time; it may be freed on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "gemel/bytes.hpp"
#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "gemel/result.hpp"
#include "gemel/units.hpp"

namespace gemel {

enum class BlockStatus : std::uint8_t { kOk, kUnreadable, kUnmapped };

struct BlockInfo {
    std::uint32_t crc = 0;
    BlockStatus status = BlockStatus::kOk;
    bool has_crc = false;
};

/// A borrowed range of a buffer: `data` and the infos of the blocks it touches.
class Slice {
  public:
    Slice() = default;
    /// `head`: bytes from the last multiple of 4 KiB to the first byte, in device addresses (0..4095).
    Slice(MutableBytes data, std::span<BlockInfo> blocks, std::uint32_t head)
        : data_(data), blocks_(blocks), head_(head) {
        CHECK(head < kBlockBytes && blocks.size() == block_count(data.size(), head));
    }
    static std::size_t block_count(std::size_t bytes, std::uint32_t head) {
        return bytes == 0 ? 0 : (head + bytes + kBlockBytes - 1) / kBlockBytes;
    }
    [[nodiscard]] MutableBytes data() const { return data_; }
    [[nodiscard]] std::span<BlockInfo> blocks() const { return blocks_; }
    [[nodiscard]] std::size_t size() const { return data_.size(); }
    [[nodiscard]] SectorCount sectors() const { return sectors_of(data_.size()); }
    [[nodiscard]] std::uint32_t head() const { return head_; }
    [[nodiscard]] bool empty() const { return data_.empty(); }

    /// The bytes of block `i` that are in this slice.
    [[nodiscard]] MutableBytes block_data(std::size_t i) const {
        const std::size_t from = i == 0 ? 0 : i * kBlockBytes - head_;
        const std::size_t to = std::min<std::size_t>((i + 1) * kBlockBytes - head_, data_.size());
        return data_.subspan(from, to - from);
    }
    /// A part of this slice. REQUIRES: `offset` and `offset + size` lie on 4 KiB addresses or at this slice's ends.
    [[nodiscard]] Slice sub(std::size_t offset, std::size_t size) const {
        CHECK(offset + size <= data_.size());
        CHECK(offset == 0 || (head_ + offset) % kBlockBytes == 0);
        CHECK(offset + size == data_.size() || (head_ + offset + size) % kBlockBytes == 0);
        const std::uint32_t head = offset == 0 ? head_ : 0;
        const std::size_t first = (head_ + offset) / kBlockBytes;
        return {data_.subspan(offset, size), blocks_.subspan(first, block_count(size, head)), head};
    }
    /// Takes the checksum of every block: at arrival (B1), or of data just made.
    void seal() const {
        for (std::size_t i = 0; i < blocks_.size(); ++i) {
            blocks_[i] = BlockInfo{crc32c(block_data(i)), BlockStatus::kOk, true};
        }
    }
    /// Fails with kChecksum if a block's data no longer matches its checksum. Blocks without one are skipped.
    [[nodiscard]] Result<void> verify() const {
        for (std::size_t i = 0; i < blocks_.size(); ++i) {
            if (blocks_[i].has_crc && blocks_[i].crc != crc32c(block_data(i))) {
                return fail(Errc::kChecksum,
                            "block " + std::to_string(i) + " of the buffer does not match its checksum");
            }
        }
        return {};
    }
    /// Every block readable again, without checksums: before a read fills it.
    void clear_infos() const { std::ranges::fill(blocks_, BlockInfo{}); }
    void mark(std::size_t block, BlockStatus status) const {
        blocks_[block] = BlockInfo{0, status, false};
        std::ranges::fill(block_data(block), std::byte{0});
    }
    void mark_all(BlockStatus status) const {
        for (std::size_t i = 0; i < blocks_.size(); ++i) {
            mark(i, status);
        }
    }
    [[nodiscard]] bool all_readable() const {
        return std::ranges::none_of(blocks_, [](const BlockInfo& b) { return b.status == BlockStatus::kUnreadable; });
    }

  private:
    MutableBytes data_;
    std::span<BlockInfo> blocks_;
    std::uint32_t head_ = 0;
};

class BufferPool;

/// Owned memory, aligned to 4 KiB, that goes back to its pool.
class Buffer {
  public:
    Buffer() = default;
    Buffer(BufferPool& pool, MutableBytes memory, std::span<BlockInfo> infos, std::uint32_t token)
        : pool_(&pool), memory_(memory), infos_(infos), token_(token) {}
    Buffer(Buffer&& o) noexcept
        : pool_(std::exchange(o.pool_, nullptr)), memory_(o.memory_), infos_(o.infos_), token_(o.token_) {}
    Buffer& operator=(Buffer&& o) noexcept {
        std::swap(pool_, o.pool_);
        std::swap(memory_, o.memory_);
        std::swap(infos_, o.infos_);
        std::swap(token_, o.token_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();

    explicit operator bool() const { return pool_ != nullptr; }
    [[nodiscard]] MutableBytes memory() const { return memory_; }
    [[nodiscard]] std::span<BlockInfo> infos() const { return infos_; }
    [[nodiscard]] std::uint32_t token() const { return token_; }
    /// The first `bytes` of it, standing for sectors from `lba` on. REQUIRES: bytes <= memory().size().
    [[nodiscard]] Slice slice(std::size_t bytes, Lba lba) const {
        const auto head = static_cast<std::uint32_t>(byte_offset(lba) % kBlockBytes);
        return {memory_.first(bytes), infos_.first(Slice::block_count(bytes, head)), head};
    }

  private:
    BufferPool* pool_ = nullptr;
    MutableBytes memory_;
    std::span<BlockInfo> infos_;
    std::uint32_t token_ = 0;
};

/// Where buffers come from: per-processor arenas in the daemon, the heap in tests.
/// Threads: any.
class BufferPool {
  public:
    virtual ~BufferPool() = default;
    /// A buffer of at least `bytes` (room for one more BlockInfo than bytes / 4096, for unaligned ranges).
    /// Errors: kResources when the pool's bound is reached; the caller reports busy or waits.
    virtual Result<Buffer> allocate(std::size_t bytes) = 0;

    /// Ends a loan (B4) when it goes.
    class Loan {
      public:
        Loan(BufferPool& pool, std::uint64_t number) : pool_(&pool), number_(number) {}
        Loan(Loan&& o) noexcept : pool_(std::exchange(o.pool_, nullptr)), number_(o.number_) {}
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        Loan& operator=(Loan&&) = delete;
        ~Loan() {
            if (pool_ != nullptr) {
                pool_->end_loan(number_);
            }
        }

      private:
        BufferPool* pool_;
        std::uint64_t number_;
    };
    /// B4 for `part`. Memory that is not of this pool is not kept: its owner must. The pool outlives the loan.
    [[nodiscard]] Loan lend(ConstBytes part) {
        const std::scoped_lock lock(loans_mutex_);
        loans_.push_back({++last_loan_, part});
        lent_.fetch_add(1, std::memory_order_release);
        return {*this, last_loan_};
    }
    /// Devices, and this pool, must not go before it is zero.
    [[nodiscard]] std::uint32_t loans() const { return lent_.load(std::memory_order_acquire); }

  private:
    friend class Buffer;
    virtual void release(MutableBytes memory, std::span<BlockInfo> infos, std::uint32_t token) noexcept = 0;

    struct LentPart {
        std::uint64_t number;
        ConstBytes part;
    };
    struct Kept {
        MutableBytes memory;
        std::span<BlockInfo> infos;
        std::uint32_t token;
    };
    [[nodiscard]] bool on_loan(ConstBytes memory) const {
        return std::ranges::any_of(loans_, [&](const LentPart& l) {
            return l.part.data() < memory.data() + memory.size() && memory.data() < l.part.data() + l.part.size();
        });
    }
    void put_back(Kept buffer) noexcept {
        if (lent_.load(std::memory_order_acquire) != 0) {
            const std::scoped_lock lock(loans_mutex_);
            if (on_loan(buffer.memory)) {
                kept_.push_back(buffer);
                return;
            }
        }
        release(buffer.memory, buffer.infos, buffer.token);
    }
    void end_loan(std::uint64_t number) noexcept {
        std::list<Kept> back;
        {
            const std::scoped_lock lock(loans_mutex_);
            loans_.remove_if([&](const LentPart& l) { return l.number == number; });
            for (auto at = kept_.begin(); at != kept_.end();) {
                const auto next = std::next(at);
                if (!on_loan(at->memory)) {
                    back.splice(back.end(), kept_, at);
                }
                at = next;
            }
            lent_.fetch_sub(1, std::memory_order_release);
        }
        for (const Kept& buffer : back) {
            release(buffer.memory, buffer.infos, buffer.token);
        }
    }

    std::atomic<std::uint32_t> lent_{0};  ///< loans; all that is looked at while there is none
    std::mutex loans_mutex_;              ///< guards the rest; never held over an I/O
    std::uint64_t last_loan_ = 0;
    std::list<LentPart> loans_;
    std::list<Kept> kept_;  ///< buffers that went while a part of them was on loan
};

inline Buffer::~Buffer() {
    if (pool_ != nullptr) {
        pool_->put_back({memory_, infos_, token_});
    }
}

}  // namespace gemel
