// SPDX-License-Identifier: Apache-2.0
// WriteGate: writes of a unit pass it side by side; a command that reads and then writes as one uninterrupted step
// (COMPARE AND WRITE, ORWRITE: SBC-3 4.12) has it for itself.
//
// Invariants:
//   WG1  While somebody has it alone nobody passes; alone is nobody before all that had passed have left.
//   WG2  Passing costs one atomic operation on a line of the caller's processor, leaving another; the mutex is taken
//        only when somebody has it alone or waits for that.
//   WG3  Those that wait to pass and those that wait to have it alone take turns, so neither starves the other.
//   WG4  A waiter goes on where it waited, from its own queue, never inside the call that let it in.
// Threads: any; what passed leaves on any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "gemel/executor.hpp"
#include "gemel/task.hpp"

namespace gemel::scsi {

class WriteGate {
  public:
    /// Leaves when it goes.
    class Pass {
      public:
        Pass() = default;
        Pass(Pass&& o) noexcept : gate_(std::exchange(o.gate_, nullptr)), lane_(o.lane_) {}
        Pass& operator=(Pass&& o) noexcept {
            std::swap(gate_, o.gate_);
            std::swap(lane_, o.lane_);
            return *this;
        }
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;
        ~Pass() {
            if (gate_ != nullptr) {
                gate_->leave(lane_);
            }
        }
        explicit operator bool() const { return gate_ != nullptr; }

      private:
        friend class WriteGate;
        Pass(WriteGate& gate, std::size_t lane) : gate_(&gate), lane_(lane) {}
        WriteGate* gate_ = nullptr;
        std::size_t lane_ = 0;
    };
    /// Gives it back when it goes.
    class Alone {
      public:
        explicit Alone(WriteGate& gate) : gate_(&gate) {}
        Alone(Alone&& o) noexcept : gate_(std::exchange(o.gate_, nullptr)) {}
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;
        Alone& operator=(Alone&&) = delete;
        ~Alone() {
            if (gate_ != nullptr) {
                gate_->open();
            }
        }

      private:
        WriteGate* gate_;
    };

    WriteGate() = default;
    WriteGate(const WriteGate&) = delete;
    WriteGate& operator=(const WriteGate&) = delete;
    ~WriteGate();

    /// Nothing if it must be waited for: then pass().
    Pass try_pass();
    Task<Pass> pass();
    Task<Alone> alone();

  private:
    static constexpr std::size_t kLanes = 16;
    struct alignas(64) Lane {
        std::atomic<std::uint32_t> inside{0};
    };
    struct Waiter : ResumeWork {
        Executor* executor = nullptr;
    };
    struct WaitToPass;
    struct WaitAlone;

    static std::size_t my_lane();
    void leave(std::size_t lane);
    void open();
    /// REQUIRES: the mutex. The first that waits to be alone is, if nobody is inside.
    void admit_alone();
    [[nodiscard]] bool empty() const;
    static void resume(Waiter& waiter) { waiter.executor->post(waiter); }

    std::array<Lane, kLanes> lanes_;
    std::atomic<bool> closed_{false};  ///< somebody is alone, or waits to be
    std::mutex mutex_;                 ///< guards what follows
    bool taken_ = false;               ///< somebody is alone
    std::deque<Waiter*> alone_;
    std::vector<std::pair<Waiter*, std::size_t>> passing_;  ///< with the lane of each
};

}  // namespace gemel::scsi
