// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/blocking_queue.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace gemel {

namespace {

std::int64_t perform(const DiskRequest& r) {
    const iovec vec{r.data, r.bytes};
    const auto offset = static_cast<off_t>(r.offset);
    switch (r.command) {
        case DiskCommand::kRead:
            return ::preadv2(r.file.fd, &vec, 1, offset, 0);
        case DiskCommand::kWrite:
            return ::pwritev2(r.file.fd, &vec, 1, offset, r.durable ? RWF_DSYNC : 0);
        case DiskCommand::kFlush:
            return ::fdatasync(r.file.fd);
        case DiskCommand::kZeroRange:
        case DiskCommand::kPunchHole:
            return ::fallocate(r.file.fd, fallocate_mode(r.command), offset, static_cast<off_t>(r.length));
    }
    return -1;
}

}  // namespace

Result<std::unique_ptr<BlockingQueue>> BlockingQueue::open(int wake_fd) {
    std::unique_ptr<BlockingQueue> queue(new BlockingQueue(wake_fd));
    try {
        for (std::size_t i = 0; i < kThreads; ++i) {
            queue->threads_.emplace_back([&q = *queue] { q.serve(); });
        }
    } catch (const std::system_error& e) {
        return fail(Errc::kResources, std::string("a thread for disk requests cannot be started: ") + e.what());
    }
    return queue;
}

BlockingQueue::~BlockingQueue() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    more_.notify_all();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

void BlockingQueue::start(DiskRequest& request) {
    ++in_flight_;
    started_.push_back(&request);
}

std::size_t BlockingQueue::submit_and_reap() {
    if (!started_.empty()) {
        {
            const std::lock_guard lock(mutex_);
            for (DiskRequest* request : started_) {
                request->next = nullptr;
                (first_ == nullptr ? first_ : last_->next) = request;
                last_ = request;
            }
        }
        if (started_.size() == 1) {
            more_.notify_one();
        } else {
            more_.notify_all();
        }
        started_.clear();
    }
    std::size_t total = 0;
    Work* node = done_.load(std::memory_order_relaxed) == nullptr ? nullptr : done_.exchange(nullptr);
    while (node != nullptr) {
        Work* next = node->next;
        --in_flight_;
        ++total;
        node->run(*node);
        node = next;
    }
    return total;
}

bool BlockingQueue::arm_events() {
    if (!started_.empty()) {
        return true;
    }
    armed_.store(true);
    return done_.load() != nullptr;
}

void BlockingQueue::serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
        more_.wait(lock, [this] { return first_ != nullptr || stopping_; });
        if (first_ == nullptr) {
            return;
        }
        auto& request = static_cast<DiskRequest&>(*first_);
        first_ = first_->next;
        lock.unlock();
        const std::int64_t n = perform(request);
        request.result = n < 0 ? -errno : static_cast<std::int32_t>(n);
        finish(request);
        lock.lock();
    }
}

void BlockingQueue::finish(DiskRequest& request) {
    Work* head = done_.load(std::memory_order_relaxed);
    do {
        request.next = head;
    } while (!done_.compare_exchange_weak(head, &request));
    if (armed_.exchange(false)) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
    }
}

}  // namespace gemel
