// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/processor.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include "target/runtime/readiness.hpp"
#include "target/runtime/timer_heap.hpp"

namespace gemel {

namespace {

namespace asio = boost::asio;

thread_local Processor* current_processor = nullptr;

/// While there is other work sockets are looked at after so many turns or pieces of work: a poll costs a system call.
constexpr unsigned kTurnsPerPoll = 16;
constexpr unsigned kWorkPerPoll = 64;
constexpr Duration kFirstSpin{std::chrono::microseconds(5)};

TimePoint monotonic_now() {
    return TimePoint(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

struct Processor::Impl {
    /// Only makes run_one() return.
    struct WakeHandler {
        using allocator_type = HandlerAllocator<std::byte>;
        HandlerMemory* memory;
        [[nodiscard]] allocator_type get_allocator() const noexcept { return allocator_type(*memory); }
        void operator()() const {}
    };

    explicit Impl(ProcessorOptions o) : options(std::move(o)), wake_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        CHECK(wake_fd >= 0);
        wake.assign(wake_fd);
    }

    ProcessorOptions options;
    asio::io_context io{1};
    asio::executor_work_guard<asio::io_context::executor_type> guard{io.get_executor()};
    TimerHeap timers;
    std::unique_ptr<DiskQueue> disks;
    const int wake_fd;
    asio::posix::stream_descriptor wake{io};  // of the disk queue
    HandlerMemory wake_memory;
    bool wake_pending = false;
    HandlerMemory post_memory;
    asio::steady_timer alarm{io};
    HandlerMemory alarm_memory;
    bool alarm_pending = false;
    TimePoint alarm_due{};
    Duration spin{0};
    std::uint64_t turn = 0;
    unsigned unpolled_turns = 0;  // since sockets were looked at
    unsigned unpolled_work = 0;

    Work* first = nullptr;  // local work, in order
    Work* last = nullptr;
    alignas(64) std::atomic<Work*> inbox{nullptr};  // from other threads, newest first
    std::atomic<bool> asleep{false};
    std::atomic<bool> stopping{false};
    std::atomic<std::uint64_t> wake_ups{0};

    std::mutex forget_mutex;
    std::vector<DiskFile> to_forget;  // guarded by forget_mutex
    std::atomic<bool> forget_waits{false};

    void forget_files() {
        std::vector<DiskFile> files;
        {
            const std::lock_guard lock(forget_mutex);
            files.swap(to_forget);
            forget_waits.store(false, std::memory_order_relaxed);
        }
        for (const DiskFile& file : files) {
            disks->forget_file(file);
        }
    }

    void push_local(Work& work) {
        work.next = nullptr;
        (first == nullptr ? first : last->next) = &work;
        last = &work;
    }

    void push_remote(Work& work) {
        Work* head = inbox.load(std::memory_order_relaxed);
        do {
            work.next = head;
        } while (!inbox.compare_exchange_weak(head, &work, std::memory_order_seq_cst, std::memory_order_relaxed));
        wake_up();
    }

    void wake_up() {
        if (asleep.load(std::memory_order_seq_cst) && asleep.exchange(false, std::memory_order_seq_cst)) {
            wake_ups.fetch_add(1, std::memory_order_relaxed);
            // One post per sleep. Two may be on their way at once when the processor woke by itself and slept again
            // before the first arrived; the second handler then lives on the heap.
            asio::post(io, WakeHandler{&post_memory});
        }
    }

    /// Moves the inbox behind the local work, oldest first.
    void take_inbox() {
        Work* node = inbox.exchange(nullptr, std::memory_order_seq_cst);
        Work* ordered = nullptr;
        while (node != nullptr) {
            Work* next = node->next;
            node->next = ordered;
            ordered = node;
            node = next;
        }
        while (ordered != nullptr) {
            Work* next = ordered->next;
            push_local(*ordered);
            ordered = next;
        }
    }

    unsigned run_batch() {
        if (inbox.load(std::memory_order_relaxed) != nullptr) {
            take_inbox();
        }
        Work* node = std::exchange(first, nullptr);
        last = nullptr;
        unsigned count = 0;
        while (node != nullptr) {
            Work* next = node->next;
            node->run(*node);
            node = next;
            ++count;
        }
        return count;
    }

    bool run_timers() {
        if (timers.empty()) {
            return false;
        }
        const TimePoint now = monotonic_now();
        bool any = false;
        while (Timer* timer = timers.take_due(now)) {
            timer->run(*timer);
            any = true;
        }
        return any;
    }

    void woken(const boost::system::error_code& /*error*/) {
        wake_pending = false;
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t n = ::read(wake_fd, &count, sizeof count);
    }
    void alarm_rang(const boost::system::error_code& error) {
        if (error != asio::error::operation_aborted) {
            alarm_pending = false;
        }
    }

    /// The alarm is set only when it would ring too late; one that rings early costs a turn, setting it a system call.
    void set_alarm() {
        if (timers.empty() || (alarm_pending && alarm_due <= timers.earliest())) {
            return;
        }
        alarm_due = timers.earliest();
        alarm_pending = true;
        alarm.expires_at(std::chrono::steady_clock::time_point(
            std::chrono::duration_cast<std::chrono::steady_clock::duration>(alarm_due.time_since_epoch())));
        alarm.async_wait(MemberHandler<Impl, &Impl::alarm_rang>{this, &alarm_memory});
    }

    [[nodiscard]] bool finished() const {
        return stopping.load(std::memory_order_seq_cst) && first == nullptr && disks->in_flight() == 0;
    }

    /// True if something came while spinning.
    bool spin_for_work() {
        if (spin == Duration{0}) {
            return false;
        }
        const TimePoint end = monotonic_now() + spin;
        do {
            if (inbox.load(std::memory_order_relaxed) != nullptr || disks->submit_and_reap() > 0 || io.poll() > 0) {
                return true;
            }
        } while (monotonic_now() < end);
        spin = spin / 2 < kFirstSpin ? Duration{0} : spin / 2;
        return false;
    }

    void sleep() {
        asleep.store(true, std::memory_order_seq_cst);
        const bool stay = inbox.load(std::memory_order_seq_cst) != nullptr ||
                          forget_waits.load(std::memory_order_seq_cst) || finished() || disks->arm_events();
        if (!stay) {
            if (!wake_pending && disks->in_flight() > 0) {
                wake_pending = true;
                wake.async_wait(asio::posix::stream_descriptor::wait_read,
                                MemberHandler<Impl, &Impl::woken>{this, &wake_memory});
            }
            set_alarm();
            // Looks at the sockets by itself before it blocks.
            if (options.max_spin == Duration{0}) {
                io.run_one();
            } else {
                const TimePoint from = monotonic_now();
                io.run_one();
                if (monotonic_now() - from < options.max_spin) {
                    spin = std::min(options.max_spin, std::max(kFirstSpin, spin * 2));
                }
            }
        }
        asleep.store(false, std::memory_order_seq_cst);
        disks->disarm_events();
    }

    void loop() {
        for (;;) {
            ++turn;
            if (forget_waits.load(std::memory_order_relaxed)) {
                forget_files();
            }
            const unsigned count = run_batch();
            bool busy = run_timers() || count > 0;
            busy = disks->submit_and_reap() > 0 || busy;
            ++unpolled_turns;
            unpolled_work += count;
            if (unpolled_turns >= kTurnsPerPoll || unpolled_work >= kWorkPerPoll) {
                unpolled_turns = 0;
                unpolled_work = 0;
                busy = io.poll() > 0 || busy;
            }
            if (busy || first != nullptr || inbox.load(std::memory_order_relaxed) != nullptr) {
                continue;
            }
            if (finished()) {
                return;
            }
            if (!spin_for_work()) {
                sleep();
            }
        }
    }
};

Processor::Processor(ProcessorOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Processor::~Processor() = default;

void Processor::post(Work& work) noexcept {
    if (is_current()) {
        impl_->push_local(work);
    } else {
        impl_->push_remote(work);
    }
}

void Processor::run(const std::function<void(Result<void>)>& ready) {
    CHECK(current_processor == nullptr);
    current_processor = this;
    const Executor::Scope scope(*this);
    ::pthread_setname_np(::pthread_self(), impl_->options.name.substr(0, 15).c_str());
    if (const std::optional<unsigned> cpu = impl_->options.cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(*cpu, &set);
        // A core that is not ours to use is no reason not to start.
        ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
    }
    auto disks = open_disk_queue(impl_->options.disks, impl_->wake_fd);
    if (disks) {
        impl_->disks = *std::move(disks);
        ready({});
        impl_->loop();
    } else {
        ready(std::unexpected(std::move(disks).error()));
    }
    current_processor = nullptr;
}

void Processor::stop() noexcept {
    impl_->stopping.store(true, std::memory_order_seq_cst);
    impl_->wake_up();
}

void Processor::forget_file(const DiskFile& file) {
    if (is_current()) {
        impl_->disks->forget_file(file);
        return;
    }
    {
        const std::lock_guard lock(impl_->forget_mutex);
        impl_->to_forget.push_back(file);
        impl_->forget_waits.store(true, std::memory_order_seq_cst);
    }
    impl_->wake_up();
}

Processor* Processor::current_or_null() {
    return current_processor;
}

Processor& Processor::current() {
    CHECK(current_processor != nullptr);
    return *current_processor;
}

unsigned Processor::index() const {
    return impl_->options.index;
}
const std::string& Processor::name() const {
    return impl_->options.name;
}
boost::asio::io_context& Processor::io_context() {
    return impl_->io;
}
TimerHeap& Processor::timers() {
    return impl_->timers;
}
DiskQueue& Processor::disks() {
    CHECK(impl_->disks != nullptr);
    return *impl_->disks;
}
std::uint64_t Processor::turn() const {
    return impl_->turn;
}
std::uint64_t Processor::wake_ups() const {
    return impl_->wake_ups.load(std::memory_order_relaxed);
}

struct ProcessorPool::Thread {
    std::thread thread;
};

ProcessorPool::ProcessorPool(const PoolOptions& options) {
    const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
    const unsigned count = std::min(kMostIoProcessors, options.io_processors == 0 ? cores : options.io_processors);
    for (unsigned i = 0; i <= count; ++i) {
        ProcessorOptions o;
        o.name = i == 0 ? "main" : "io-" + std::to_string(i);
        o.index = i;
        if (options.pin && i > 0) {
            o.cpu = (i - 1) % cores;
        }
        // The main processor never spins: it has nothing that is in a hurry.
        o.max_spin = i == 0 ? Duration{0} : options.max_spin;
        o.disks = options.disks;
        processors_.push_back(std::make_unique<Processor>(std::move(o)));
    }
}

ProcessorPool::~ProcessorPool() {
    stop_and_join();
}

Result<void> ProcessorPool::start() {
    CHECK(threads_.empty());
    std::vector<std::future<Result<void>>> results;
    for (std::size_t i = 0; i < io_count(); ++i) {
        auto promise = std::make_shared<std::promise<Result<void>>>();
        results.push_back(promise->get_future());
        auto thread = std::make_unique<Thread>();
        Processor& processor = io(i);
        try {
            thread->thread = std::thread([&processor, promise] {
                processor.run([&promise](Result<void> result) { promise->set_value(std::move(result)); });
            });
        } catch (const std::system_error& e) {
            return fail(Errc::kResources, std::string("a thread for an I/O processor cannot be started: ") + e.what());
        }
        threads_.push_back(std::move(thread));
    }
    Result<void> all{};
    for (auto& result : results) {
        if (Result<void> one = result.get(); !one) {
            all = std::move(one);
        }
    }
    return all;
}

Result<void> ProcessorPool::run_main() {
    Result<void> outcome{};
    main().run([&outcome](Result<void> result) { outcome = std::move(result); });
    return outcome;
}

void ProcessorPool::stop_and_join() {
    for (std::size_t i = 0; i < io_count(); ++i) {
        io(i).stop();
    }
    for (const auto& thread : threads_) {
        thread->thread.join();
    }
    threads_.clear();
}

namespace {

struct StartWork : Work {
    Task<void> task;
    explicit StartWork(Task<void> t) : task(std::move(t)) {
        run = [](Work& w) noexcept {
            const std::unique_ptr<StartWork> self(&static_cast<StartWork&>(w));
            start_detached(std::move(self->task));
        };
    }
};

}  // namespace

void start_on(Executor& executor, Task<void> task) {
    executor.post(*new StartWork(std::move(task)));
}

}  // namespace gemel
