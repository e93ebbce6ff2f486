// SPDX-License-Identifier: Apache-2.0
// Waiting for a descriptor in a coroutine, by Asio's reactor, without an allocation per wait. Internal to this room: it
// includes Asio.
//
// Invariants:
//   RD1 At most one wait per direction is pending.
//   RD2 The awaiter lives in the waiting coroutine's frame; close() makes every pending wait end, later, on the same
//       processor, so the frame is still there.
// Threads: one processor's.
#pragma once

#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <coroutine>
#include <cstddef>
#include <new>
#include <optional>

#include "gemel/check.hpp"
#include "target/runtime/processor.hpp"

namespace gemel {

/// Room for one pending Asio handler; a second one at the same time goes to the heap.
/// Threads: any. A processor's wake-up is posted from other threads, and one that was held up between claiming the
/// wake-up and posting it may meet the next.
class HandlerMemory {
  public:
    HandlerMemory() = default;
    HandlerMemory(const HandlerMemory&) = delete;
    HandlerMemory& operator=(const HandlerMemory&) = delete;
    void* allocate(std::size_t bytes) {
        if (bytes <= sizeof room_ && !used_.exchange(true, std::memory_order_acquire)) {
            return &room_;
        }
        return ::operator new(bytes);
    }
    void deallocate(void* p) noexcept {
        if (p == &room_) {
            used_.store(false, std::memory_order_release);
            return;
        }
        ::operator delete(p);
    }

  private:
    alignas(std::max_align_t) std::byte room_[256];
    std::atomic<bool> used_{false};
};

template <class T>
class HandlerAllocator {
  public:
    using value_type = T;
    explicit HandlerAllocator(HandlerMemory& memory) : memory_(&memory) {}
    template <class U>
    HandlerAllocator(const HandlerAllocator<U>& o) : memory_(o.memory_) {}  // NOLINT(google-explicit-constructor)
    T* allocate(std::size_t n) { return static_cast<T*>(memory_->allocate(n * sizeof(T))); }
    void deallocate(T* p, std::size_t /*n*/) noexcept { memory_->deallocate(p); }
    friend bool operator==(const HandlerAllocator&, const HandlerAllocator&) = default;

  private:
    template <class U>
    friend class HandlerAllocator;
    HandlerMemory* memory_;
};

/// A handler that calls `object.*method(error)` and lives in `memory`.
template <class T, void (T::*Method)(const boost::system::error_code&)>
struct MemberHandler {
    using allocator_type = HandlerAllocator<std::byte>;
    T* object;
    HandlerMemory* memory;
    [[nodiscard]] allocator_type get_allocator() const noexcept { return allocator_type(*memory); }
    void operator()(const boost::system::error_code& error) const { (object->*Method)(error); }
};

/// A descriptor that joins the reactor of the processor that first waits on it.
class Readiness {
  public:
    explicit Readiness(int fd) : fd_(fd) {}
    Readiness(const Readiness&) = delete;
    Readiness& operator=(const Readiness&) = delete;
    ~Readiness() {
        CHECK(!reading_ && !writing_);
        close();
    }

    /// -1 after close().
    [[nodiscard]] int fd() const { return fd_; }
    [[nodiscard]] bool closed() const { return fd_ < 0; }
    [[nodiscard]] bool waiting() const { return reading_ || writing_; }

    class Wait {
      public:
        Wait(Readiness& owner, boost::asio::posix::descriptor_base::wait_type type) : owner_(owner), type_(type) {}
        [[nodiscard]] bool await_ready() const noexcept { return owner_.closed(); }
        void await_suspend(std::coroutine_handle<> h) {
            using Handler = MemberHandler<Wait, &Wait::done>;
            handle_ = h;
            bool& pending = flag();
            CHECK(!pending);
            pending = true;
            owner_.joined().async_wait(type_, Handler{this, &memory()});
        }
        void await_resume() const noexcept {}

      private:
        void done(const boost::system::error_code& /*error*/) {
            flag() = false;
            handle_.resume();
        }
        [[nodiscard]] bool is_read() const { return type_ == boost::asio::posix::descriptor_base::wait_read; }
        bool& flag() { return is_read() ? owner_.reading_ : owner_.writing_; }
        HandlerMemory& memory() { return is_read() ? owner_.read_memory_ : owner_.write_memory_; }

        Readiness& owner_;
        boost::asio::posix::descriptor_base::wait_type type_;
        std::coroutine_handle<> handle_;
    };

    /// Awaiting ends when the descriptor may be readable (writable), or was closed: look at closed() afterwards.
    Wait readable() { return {*this, boost::asio::posix::descriptor_base::wait_read}; }
    Wait writable() { return {*this, boost::asio::posix::descriptor_base::wait_write}; }

    /// Leaves the reactor; the next wait joins that of its own processor. REQUIRES: no wait pending.
    void leave_reactor() {
        CHECK(!reading_ && !writing_);
        if (descriptor_) {
            static_cast<void>(descriptor_->release());  // the number is fd_
            descriptor_.reset();
        }
    }

    void close() {
        if (fd_ < 0) {
            return;
        }
        if (descriptor_) {
            boost::system::error_code ignored;
            ignored = descriptor_->close(ignored);
        } else {
            ::close(fd_);
        }
        fd_ = -1;
    }

  private:
    boost::asio::posix::stream_descriptor& joined() {
        if (!descriptor_) {
            descriptor_.emplace(Processor::current().io_context(), fd_);
        }
        return *descriptor_;
    }

    int fd_;
    bool reading_ = false;
    bool writing_ = false;
    HandlerMemory read_memory_;
    HandlerMemory write_memory_;
    std::optional<boost::asio::posix::stream_descriptor> descriptor_;
};

}  // namespace gemel
