// SPDX-License-Identifier: Apache-2.0
// Ring: the disk queue over io_uring, one per processor.
//
// Invariants:
//   RG1 Never more requests in the kernel than the completion queue holds; the rest waits in a list here.
//   RG2 One io_uring_enter per turn of the loop, and none when nothing was started and nothing completed.
//   RG3 The eventfd is written by the kernel only between arm_events() and disarm_events().
// Threads: the thread that opened it (IORING_SETUP_SINGLE_ISSUER).
#pragma once

#include <liburing.h>

#include <vector>

#include "target/runtime/disk_queue.hpp"

namespace gemel {

class Ring final : public DiskQueue {
  public:
    static constexpr unsigned kSubmissions = 256;
    static constexpr unsigned kCompletions = 4096;
    static constexpr unsigned kFiles = 256;

    /// Errors: kUnsupported if the kernel refuses io_uring.
    static Result<std::unique_ptr<Ring>> open(const DiskQueueOptions& options, int wake_fd);
    ~Ring() override;
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    void start(DiskRequest& request) override;
    std::size_t submit_and_reap() override;
    bool arm_events() override;
    void disarm_events() override;
    void forget_file(const DiskFile& file) override;
    [[nodiscard]] std::size_t in_flight() const override { return waiting_ + in_kernel_; }
    [[nodiscard]] std::string describe() const override;

    /// Requests that used registered memory so far.
    [[nodiscard]] std::uint64_t fixed_requests() const { return fixed_requests_; }

  private:
    Ring(const io_uring& ring, DiskQueueOptions options, unsigned flags);
    void register_tables();
    bool prepare(DiskRequest& request);
    void prepare_transfer(io_uring_sqe& sqe, const DiskRequest& request, int fd);
    bool use_registered_file(const DiskFile& file);
    bool use_registered_memory(const DiskRequest& request, unsigned& piece);
    [[nodiscard]] bool completions_wait() const;
    std::size_t reap();

    io_uring ring_;
    DiskQueueOptions options_;
    unsigned flags_;
    bool files_usable_ = false;
    bool memory_usable_ = false;
    std::vector<std::uint64_t> tickets_;  ///< by slot; 0: free (DQ2)
    std::vector<bool> pieces_;            ///< registered so far
    Work* first_ = nullptr;               ///< waiting for room (RG1)
    Work* last_ = nullptr;
    std::size_t waiting_ = 0;
    std::size_t in_kernel_ = 0;
    std::uint64_t fixed_requests_ = 0;
};

}  // namespace gemel
