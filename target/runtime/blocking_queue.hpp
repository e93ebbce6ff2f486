// SPDX-License-Identifier: Apache-2.0
// BlockingQueue: the disk queue where io_uring is refused: four threads per processor with preadv2 and pwritev2.
//
// Invariants:
//   BQ1 A request is with the processor, in the queue, with one thread, or in done_, in this order.
//   BQ2 A thread writes the eventfd only if it finds armed_ set after it has added to done_; arm_events() sets armed_
//       before it looks at done_.
// Threads: the processor's own, and those it starts.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "target/runtime/disk_queue.hpp"

namespace gemel {

class BlockingQueue final : public DiskQueue {
  public:
    static constexpr std::size_t kThreads = 4;

    /// Errors: kResources.
    static Result<std::unique_ptr<BlockingQueue>> open(int wake_fd);
    ~BlockingQueue() override;
    BlockingQueue(const BlockingQueue&) = delete;
    BlockingQueue& operator=(const BlockingQueue&) = delete;

    void start(DiskRequest& request) override;
    std::size_t submit_and_reap() override;
    bool arm_events() override;
    void disarm_events() override { armed_.store(false); }
    void forget_file(const DiskFile& /*file*/) override {}
    [[nodiscard]] std::size_t in_flight() const override { return in_flight_; }
    [[nodiscard]] std::string describe() const override { return "threads"; }

  private:
    explicit BlockingQueue(int wake_fd) : wake_fd_(wake_fd) {}
    void serve();
    void finish(DiskRequest& request);

    const int wake_fd_;
    std::size_t in_flight_ = 0;
    std::vector<DiskRequest*> started_;  ///< not yet handed over
    std::mutex mutex_;
    std::condition_variable more_;
    Work* first_ = nullptr;  ///< the queue, guarded by mutex_
    Work* last_ = nullptr;
    bool stopping_ = false;
    std::atomic<Work*> done_{nullptr};  ///< newest first
    std::atomic<bool> armed_{false};
    std::vector<std::thread> threads_;
};

}  // namespace gemel
