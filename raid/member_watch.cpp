// SPDX-License-Identifier: Apache-2.0
#include "raid/member_watch.hpp"

#include <algorithm>

#include "raid/superblock.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint64_t kTicks = 8;  ///< of the patience
constexpr Duration kStopPoll = std::chrono::milliseconds(1);
}  // namespace

/// In the frame of who waits.
struct MemberWatch::Caller : ResumeWork {
    std::optional<Result<void>> result;

    [[nodiscard]] bool await_ready() const noexcept { return result.has_value(); }
    void await_suspend(std::coroutine_handle<> h) noexcept { handle = h; }
    void await_resume() const noexcept {}
    void answer(Result<void> r) {
        result.emplace(std::move(r));
        if (handle) {
            handle.resume();
        }
    }
    /// Not here and now: the array may end with it. REQUIRES: it waits.
    void answer_later(Result<void> r) {
        result.emplace(std::move(r));
        Executor::current().post(*this);
    }
};

/// In the frame of the I/O, which outlives its caller, and the array, if it was given up.
struct MemberWatch::Flight {
    Flight* before = nullptr;
    Flight* after = nullptr;
    Lane* lane = nullptr;
    Caller* caller = nullptr;  ///< nullptr: given up
    std::uint64_t tick = 0;
    Terms terms;
    std::optional<BufferPool::Loan> loan;
    Counter unanswered;
};

class MemberWatch::Watched : public BlockDevice {
  public:
    Watched(MemberWatch& watch, BlockDevice& device) : watch_(watch), device_(device) {}

    [[nodiscard]] DeviceLimits limits() const override { return device_.limits(); }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override {
        return out.load() ? none() : watch_.wait(device_.read(lba, to, options), {this, false, to.data()});
    }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override {
        return out.load() ? none()
                          : watch_.wait(device_.write(lba, from, options), {this, is_superblock(lba), from.data()});
    }
    Task<Result<void>> flush() override { return out.load() ? none() : watch_.wait(device_.flush(), {this, true, {}}); }
    Task<Result<void>> discard(Lba lba, SectorCount count) override {
        return out.load() ? none() : watch_.wait(device_.discard(lba, count), {this, false, {}});
    }
    void observe(DeviceObserver* observer) override { device_.observe(observer); }
    [[nodiscard]] Uuid identity() const override { return device_.identity(); }
    [[nodiscard]] std::string name() const override { return device_.name(); }

    [[nodiscard]] const BlockDevice& device() const { return device_; }
    Counter unanswered = std::make_shared<std::atomic<std::uint32_t>>(0);
    std::atomic<bool> out{false};  ///< it gets no I/O any more (MW4); then the device may be gone
    bool retired = false;          ///< home
    static std::unexpected<Error> refused() { return fail(Errc::kDeviceGone, "the device did not answer, or is gone"); }

  private:
    static Task<Result<void>> none() { co_return refused(); }
    /// At the device's end, which moves when it is extended.
    [[nodiscard]] bool is_superblock(Lba lba) const {
        const SectorCount sectors = device_.limits().sectors;
        return sectors.value >= 2 * kSuperblockSectors && lba >= superblock_slot(sectors, 0);
    }

    MemberWatch& watch_;
    BlockDevice& device_;
};

MemberWatch::MemberWatch(Environment& env, Duration patience, const std::vector<Executor*>& executors)
    : env_(env), patience_(patience) {
    for (Executor* executor : executors) {
        auto lane = std::make_unique<Lane>();
        lane->executor = executor;
        lane->sweep.watch = this;
        lane->sweep.lane = lane.get();
        lane->sweep.run = [](Work& w) noexcept {
            auto& sweep = static_cast<Lane::Sweep&>(w);
            sweep.watch->sweep(*sweep.lane);
        };
        lanes_.push_back(std::move(lane));
    }
}

MemberWatch::~MemberWatch() {
    for (const auto& lane : lanes_) {
        CHECK(lane->first == nullptr && !lane->sweep.armed);
    }
}

BlockDevice* MemberWatch::watched(BlockDevice* device) {
    if (device == nullptr) {
        return nullptr;
    }
    const auto same = [device](const auto& w) { return w.get() == device || (!w->retired && &w->device() == device); };
    if (const auto known = std::ranges::find_if(devices_, same); known != devices_.end()) {
        return known->get();
    }
    devices_.push_back(std::make_unique<Watched>(*this, *device));
    return devices_.back().get();
}

void MemberWatch::forget(const BlockDevice* watched) {
    std::erase_if(devices_, [watched](const auto& w) { return w.get() == watched && w->unanswered->load() == 0; });
}

/// A coroutine may still have it between two I/Os: so what watched() gave stays. Each executor looks at `out` before it
/// touches the device, and has done so when this has been there.
Task<bool> MemberWatch::retire(BlockDevice* watched) {
    const auto found = std::ranges::find(devices_, watched, [](const auto& w) -> BlockDevice* { return w.get(); });
    CHECK(found != devices_.end());
    Watched& device = **found;
    device.out.store(true);
    bool quiet = true;
    Executor& home = Executor::current();
    for (const auto& lane : lanes_) {
        co_await resume_on(*lane->executor);
        for (const Flight* f = lane->first; f != nullptr; f = f->after) {
            quiet = quiet && f->terms.device != &device;
        }
    }
    co_await resume_on(home);
    device.retired = quiet && device.unanswered->load() == 0;
    co_return device.retired;
}

std::uint32_t MemberWatch::unanswered(const BlockDevice* device) {
    const auto* watched = dynamic_cast<const Watched*>(device);
    return watched == nullptr ? 0 : watched->unanswered->load();
}

bool MemberWatch::given_up(const BlockDevice* device) {
    const auto* watched = dynamic_cast<const Watched*>(device);
    return watched != nullptr && (watched->out.load() || watched->unanswered->load() > 0);
}

MemberWatch::Lane* MemberWatch::lane_here() {
    for (const auto& lane : lanes_) {
        if (lane->executor->is_current()) {
            return lane.get();
        }
    }
    return nullptr;
}

Task<Result<void>> MemberWatch::wait(Task<Result<void>> io, Terms terms) {
    if (terms.device->out.load(std::memory_order_acquire)) {
        co_return Watched::refused();  // MW4; `io` has not begun
    }
    Executor& here = Executor::current();
    Lane* lane = lane_here();
    if (lane == nullptr) {
        lane = lanes_.front().get();
        co_await resume_on(*lane->executor);
        if (terms.device->out.load(std::memory_order_acquire)) {  // retire() may have been here meanwhile
            co_await resume_on(here);
            co_return Watched::refused();
        }
    }
    Caller caller;
    fly(std::move(io), *this, *lane, caller, terms);
    co_await caller;
    co_await resume_on(here);
    co_return *std::move(caller.result);
}

gemel::detail::Detached MemberWatch::fly(Task<Result<void>> io, MemberWatch& watch, Lane& lane, Caller& caller,
                                         Terms terms) {
    Flight flight;
    flight.caller = &caller;
    flight.terms = terms;
    watch.list(lane, flight);
    Result<void> r = co_await std::move(io);
    if (flight.caller == nullptr) {
        flight.unanswered->fetch_sub(1);  // MW3: the loan ends with this frame
        co_return;
    }
    unlist(flight);
    if (!r && r.error().code == Errc::kTimedOut) {
        r = fail(Errc::kIo, r.error().message);  // the device's own word: it has given the memory back
    }
    flight.caller->answer(std::move(r));
}

void MemberWatch::list(Lane& lane, Flight& flight) {
    flight.lane = &lane;
    flight.tick = lane.tick;
    flight.after = lane.first;
    if (lane.first != nullptr) {
        lane.first->before = &flight;
    }
    lane.first = &flight;
    if (!lane.sweep.armed) {
        arm(lane);
    }
}

void MemberWatch::unlist(Flight& flight) {
    (flight.before != nullptr ? flight.before->after : flight.lane->first) = flight.after;
    if (flight.after != nullptr) {
        flight.after->before = flight.before;
    }
    flight.before = flight.after = nullptr;
}

void MemberWatch::arm(Lane& lane) {
    if (!lane.closed) {
        env_.clock.arm(lane.sweep, env_.clock.now() + patience_ / kTicks);
    }
}

/// Gives up the flights of which `which` says so.
template <class Which>
void MemberWatch::give_up(Lane& lane, Which which) {
    for (Flight* f = lane.first; f != nullptr;) {
        Flight* next = f->after;
        if (which(*f)) {
            unlist(*f);
            f->loan.emplace(env_.buffers.lend(f->terms.memory));
            f->unanswered = f->terms.device->unanswered;
            f->unanswered->fetch_add(1);
            std::exchange(f->caller, nullptr)->answer_later(fail(Errc::kTimedOut, "the device does not answer"));
        }
        f = next;
    }
}

void MemberWatch::sweep(Lane& lane) {
    if (lane.first == nullptr) {
        return;  // MW5: armed again by the next I/O
    }
    ++lane.tick;
    arm(lane);
    const bool stopping = stopping_.load();
    SilenceJudge* judge = judge_.load();
    const auto overdue = [&lane](const Flight& f) { return lane.tick - f.tick > kTicks; };
    std::vector<Watched*> silent;
    for (const Flight* f = lane.first; f != nullptr; f = f->after) {
        Watched& device = *f->terms.device;
        if (!overdue(*f)) {
            continue;
        }
        if (std::ranges::find(lane.asked, &device) == lane.asked.end() && !device.out.load() && judge != nullptr) {
            lane.asked.push_back(&device);
            silent.push_back(&device);
        }
        if (stopping) {
            device.out.store(true);
        }
    }
    give_up(lane, [&](const Flight& f) {
        return f.terms.device->out.load() || (overdue(f) && (f.terms.at_once || judge == nullptr));
    });
    for (Watched* device : silent) {
        ++lane.questions;
        start_detached(ask(lane, *device));
    }
}

Task<void> MemberWatch::ask(Lane& lane, Watched& device) {
    const Result<void> failed = co_await judge_.load()->silent(&device, patience_);
    if (failed) {  // else it stays among those that were asked for
        device.out.store(true);
        std::erase(lane.asked, &device);
        give_up(lane, [&device](const Flight& f) { return f.terms.device == &device; });
    }
    --lane.questions;
}

Task<void> MemberWatch::stop() {
    Executor& here = Executor::current();
    for (const auto& lane : lanes_) {
        co_await resume_on(*lane->executor);
        lane->closed = true;
        env_.clock.cancel(lane->sweep);
        while (lane->questions > 0) {
            co_await sleep_for(env_.clock, kStopPoll);
        }
    }
    co_await resume_on(here);
}

}  // namespace gemel::raid
