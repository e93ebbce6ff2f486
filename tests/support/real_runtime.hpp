// SPDX-License-Identifier: Apache-2.0
// RealRuntime: the daemon's processors and environment in a test, and the events that were emitted.
// Threads: made and destroyed by the test's thread, which is no processor.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "target/runtime/runtime.hpp"

namespace gemel::test {

class RecordedEvents final : public EventSink {
  public:
    void emit(EventRecord event) override {
        const std::lock_guard lock(mutex_);
        ids_.emplace_back(event.id);
    }
    std::vector<std::string> ids() {
        const std::lock_guard lock(mutex_);
        return ids_;
    }

  private:
    std::mutex mutex_;
    std::vector<std::string> ids_;
};

class RealRuntime {
  public:
    explicit RealRuntime(unsigned processors = 2, DiskQueueKind disks = DiskQueueKind::kAutomatic) {
        RuntimeOptions options;
        options.io_processors = processors;
        options.memory_bytes = 64U << 20U;
        options.disks = disks;
        options.max_spin = std::chrono::microseconds(50);
        auto made = Runtime::create(options, events_);
        CHECK(made);
        runtime_ = *std::move(made);
        CHECK(runtime_->processors().start());
    }
    ~RealRuntime() { runtime_->processors().stop_and_join(); }
    RealRuntime(const RealRuntime&) = delete;
    RealRuntime& operator=(const RealRuntime&) = delete;

    Processor& io(std::size_t i) { return runtime_->processors().io(i); }
    Environment environment() { return runtime_->environment(); }
    ArenaPool& buffers() { return runtime_->buffers(); }
    RecordedEvents& events() { return events_; }

    /// Runs `task` on I/O processor `i` and waits for it.
    template <class T>
    T run(Task<T> task, std::size_t i = 0) {
        return run_blocking(io(i), std::move(task));
    }

  private:
    RecordedEvents events_;
    std::unique_ptr<Runtime> runtime_;
};

}  // namespace gemel::test
