// SPDX-License-Identifier: Apache-2.0
// IntervalLock: serialises operations on overlapping ranges of sectors, first come, first served.
//
// Invariants:
//   L1  Two granted ranges never overlap, unless both are shared.
//   L2  A range waits for every overlapping range asked for before it, so the order of asking is the order of granting.
//   L3  A guard is held until the operation under it has really completed on every device: not until its abort or
//       timeout.
// Threads: all calls on one executor.
#pragma once

#include <cstdint>
#include <list>
#include <utility>

#include "gemel/executor.hpp"
#include "gemel/task.hpp"

namespace gemel {

class IntervalLock {
  public:
    enum class Mode : std::uint8_t { kExclusive, kShared };

  private:
    struct Entry {
        std::uint64_t first;
        std::uint64_t last;  ///< inclusive
        Mode mode;
        bool granted = false;
        ResumeWork work;
    };
    using Position = std::list<Entry>::iterator;

  public:
    class Guard {
      public:
        Guard() = default;
        Guard(IntervalLock& lock, Position p) : lock_(&lock), position_(p) {}
        Guard(Guard&& o) noexcept : lock_(std::exchange(o.lock_, nullptr)), position_(o.position_) {}
        Guard& operator=(Guard&& o) noexcept {
            release();
            lock_ = std::exchange(o.lock_, nullptr);
            position_ = o.position_;
            return *this;
        }
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        ~Guard() { release(); }
        void release() {
            if (lock_ != nullptr) {
                std::exchange(lock_, nullptr)->unlock(position_);
            }
        }

      private:
        IntervalLock* lock_ = nullptr;
        Position position_;
    };

    /// Joins the queue now (L2) and waits when awaited. Units: whatever the owner counts; `last` is inclusive.
    auto acquire(std::uint64_t first, std::uint64_t last, Mode mode = Mode::kExclusive) {
        struct Awaiter {
            IntervalLock& lock;
            Position position;
            [[nodiscard]] bool await_ready() const noexcept { return position->granted; }
            void await_suspend(std::coroutine_handle<> h) noexcept { position->work.handle = h; }
            [[nodiscard]] Guard await_resume() noexcept { return Guard(lock, position); }
        };
        entries_.push_back(Entry{first, last, mode, false, {}});
        const Position p = std::prev(entries_.end());
        p->granted = may_run(p);
        return Awaiter{*this, p};
    }

    [[nodiscard]] bool idle() const { return entries_.empty(); }
    [[nodiscard]] bool touches(std::uint64_t first, std::uint64_t last) const {
        for (const Entry& e : entries_) {
            if (e.first <= last && first <= e.last) {
                return true;
            }
        }
        return false;
    }

  private:
    [[nodiscard]] bool may_run(Position p) {
        for (auto e = entries_.begin(); e != p; ++e) {
            const bool overlap = e->first <= p->last && p->first <= e->last;
            if (overlap && !(e->mode == Mode::kShared && p->mode == Mode::kShared)) {
                return false;
            }
        }
        return true;
    }
    void unlock(Position gone) {
        const std::uint64_t first = gone->first;
        const std::uint64_t last = gone->last;
        const auto start = entries_.erase(gone);
        for (auto e = start; e != entries_.end(); ++e) {
            if (!e->granted && e->first <= last && first <= e->last && may_run(e)) {
                e->granted = true;
                if (e->work.handle) {
                    Executor::current().post(e->work);
                }
            }
        }
    }

    std::list<Entry> entries_;  ///< in order of asking; short: at most the commands in flight
};

}  // namespace gemel
