// SPDX-License-Identifier: Apache-2.0
// Buffer memory that the commands of all sessions may hold at a time, and each session's share of it.
//
// Invariants:
//   M1  All shares together never exceed the budget.
//   M2  A share grows to at most what then is still free. So one session can hold half of the budget, n sessions that
//       take all they can get 1/(n+1) each, and as much is left for the next one.
//   M3  A share takes from the budget in steps, so that sessions of different processors seldom touch the same memory;
//       one that holds nothing keeps nothing.
// Threads: MemoryBudget any; MemoryShare and its grants on the session's processor.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "gemel/check.hpp"

namespace gemel::iscsi {

/// What a buffer of `bytes` takes of a pool that deals in powers of two from 4 KiB on.
std::size_t pool_bytes(std::size_t bytes);

class MemoryBudget {
  public:
    explicit MemoryBudget(std::size_t bytes) : bytes_(bytes) {}
    ~MemoryBudget() { CHECK(used_ == 0); }
    MemoryBudget(const MemoryBudget&) = delete;
    MemoryBudget& operator=(const MemoryBudget&) = delete;

    [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_relaxed); }
    /// How much a share that holds `held` may take more (M2).
    [[nodiscard]] std::size_t room(std::size_t held) const;
    /// `bytes` more for a share that holds `held`; false when that is more than its room.
    bool take(std::size_t held, std::size_t bytes);
    void give_back(std::size_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  private:
    [[nodiscard]] std::size_t room(std::size_t held, std::size_t used) const;

    const std::size_t bytes_;
    std::atomic<std::size_t> used_{0};
};

class MemoryShare {
  public:
    /// Memory that the share has counted; goes back when it goes.
    class Grant {
      public:
        Grant() = default;
        Grant(Grant&& o) noexcept : share_(o.share_), bytes_(std::exchange(o.bytes_, 0)) {}
        Grant& operator=(Grant&& o) noexcept {
            std::swap(share_, o.share_);
            std::swap(bytes_, o.bytes_);
            return *this;
        }
        Grant(const Grant&) = delete;
        Grant& operator=(const Grant&) = delete;
        ~Grant() { shrink(0); }
        [[nodiscard]] std::size_t bytes() const { return bytes_; }
        /// Gives back what is above `bytes`.
        void shrink(std::size_t bytes);

      private:
        friend class MemoryShare;
        Grant(MemoryShare& share, std::size_t bytes) : share_(&share), bytes_(bytes) {}
        MemoryShare* share_ = nullptr;
        std::size_t bytes_ = 0;
    };

    explicit MemoryShare(MemoryBudget& budget) : budget_(budget) {}
    /// REQUIRES: every grant is gone.
    ~MemoryShare() { CHECK(held_ == 0 && taken_ == 0); }
    MemoryShare(const MemoryShare&) = delete;
    MemoryShare& operator=(const MemoryShare&) = delete;

    /// For a buffer of `bytes`; a grant of 0 bytes when that is more than the share may have now.
    [[nodiscard]] Grant take(std::size_t bytes);
    [[nodiscard]] std::size_t held() const { return held_; }
    /// What take() would still grant.
    [[nodiscard]] std::size_t room() const { return taken_ - held_ + budget_.room(taken_); }

  private:
    static constexpr std::size_t kStep = 64U << 10U;
    void give_back(std::size_t bytes);

    MemoryBudget& budget_;
    std::size_t held_ = 0;   ///< by grants
    std::size_t taken_ = 0;  ///< from the budget: at most two steps more
};

}  // namespace gemel::iscsi
