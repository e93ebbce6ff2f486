// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/raid_lab.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "target/backend/backend_table.hpp"

namespace gemel::bench {

namespace {

constexpr unsigned kProcessors = 2;

std::string member_path(const LabOptions& options, const Shape& shape, unsigned member) {
    return (std::filesystem::absolute(options.folder) / (shape.name + "." + std::to_string(member))).string();
}

[[noreturn]] void give_up(const Error& error) {
    std::fprintf(stderr, "raid_bench: %s\n", error.message.c_str());
    std::_Exit(2);  // other processors may be at work
}

}  // namespace

class RaidLab::Events final : public EventSink {
  public:
    void emit(EventRecord event) override {
        if (event.severity != Severity::kInfo) {
            std::fprintf(stderr, "%s: %s\n", event.subject.c_str(), event.cause.c_str());
        }
    }
};

CountedDevice::Counters& CountedDevice::here() {
    return counters_[Processor::current().index() % kProcessors];
}

Task<Result<void>> CountedDevice::read(Lba lba, Slice to, ReadOptions options) {
    // One thread writes a counter: no locked instruction is needed.
    Counters& c = here();
    c.reads.store(c.reads.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return device_->read(lba, to, options);
}

Task<Result<void>> CountedDevice::write(Lba lba, Slice from, WriteOptions options) {
    Counters& c = here();
    c.writes.store(c.writes.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    c.written_bytes.store(c.written_bytes.load(std::memory_order_relaxed) + from.size(), std::memory_order_relaxed);
    return device_->write(lba, from, options);
}

void CountedDevice::add_to(MemberIos& sum) const {
    for (const Counters& c : counters_) {
        sum.reads += static_cast<double>(c.reads.load());
        sum.writes += static_cast<double>(c.writes.load());
        sum.written_bytes += static_cast<double>(c.written_bytes.load());
    }
}

SectorCount Subject::data_sectors() const {
    const raid::ArrayStatus status = array->status();
    const std::uint64_t parities = status.level == "6" ? 2 : status.level == "5" ? 1 : 0;
    return SectorCount(status.sectors.value / (members.size() - parities));
}

MemberIos Subject::ios() const {
    MemberIos sum;
    for (const auto& member : members) {
        member->add_to(sum);
    }
    return sum;
}

RaidLab::RaidLab(LabOptions options) : options_(std::move(options)), events_(std::make_unique<Events>()) {
    RuntimeOptions o;
    o.io_processors = kProcessors;
    auto made = Runtime::create(o, *events_);
    if (!made) {
        give_up(made.error());
    }
    runtime_ = *std::move(made);
    environment_ = std::make_unique<Environment>(runtime_->environment());
    if (auto started = runtime_->processors().start(); !started) {
        give_up(started.error());
    }
}

RaidLab::~RaidLab() {
    runtime_->processors().stop_and_join();
}

Task<Result<void>> RaidLab::fill(BlockDevice& device) {
    constexpr std::size_t kStep = kMiB;
    CO_TRY(const Buffer zeros, environment_->buffers.allocate(kStep));
    std::ranges::fill(zeros.memory(), std::byte{0});
    const std::uint64_t bytes = bytes_of(device.limits().sectors);
    for (std::uint64_t at = 0; at < bytes; at += kStep) {
        const Lba lba(at / kSectorBytes);
        const Slice slice = zeros.slice(std::min<std::uint64_t>(kStep, bytes - at), lba);
        slice.clear_infos();
        CO_TRY_VOID(co_await device.write(lba, slice, {}));
    }
    co_return co_await device.flush();
}

void RaidLab::lose(Subject& subject, std::uint32_t member) {
    Result<void> r = run_blocking(processor(0), subject.array->fail_member(member, /*force=*/false));
    if (r) {
        r = run_blocking(processor(0), fill(*subject.members[member]));
    }
    if (!r) {
        give_up(r.error());
    }
}

Task<Result<Subject>> RaidLab::make(Shape shape) {
    Subject out;
    raid::ArrayConfig config;
    config.name = shape.name;
    config.level = shape.level;
    config.strip_bytes = shape.strip_kib * static_cast<std::uint32_t>(kKiB);
    config.create = raid::ArrayConfig::Create::kIfBlank;
    config.volumes = {{"vol", 0}};
    for (unsigned i = 0; i < shape.shards; ++i) {
        config.shards.push_back(&processor(i));
    }
    for (unsigned i = 0; i < shape.members; ++i) {
        BackendSpec spec;
        spec.kind = shape.kind;
        spec.path = shape.kind == "file" ? member_path(options_, shape, i) : "";
        spec.bytes = options_.member_mib * kMiB;
        spec.create = shape.kind == "file";
        CO_TRY(auto device, co_await open_backend(*environment_, spec));
        CO_TRY_VOID(co_await fill(*device));
        out.members.push_back(std::make_unique<CountedDevice>(std::move(device)));
        config.members.push_back({out.members.back().get(), ""});
    }
    config.checksums = false;  // the loads on raw members would contradict them
    if (shape.adjust != nullptr) {
        shape.adjust(config);
    }
    out.shape = std::move(shape);
    CO_TRY(out.array, co_await raid::Array::open(*environment_, std::move(config)));
    co_return std::move(out);
}

Subject RaidLab::open(const Shape& shape) {
    for (unsigned i = 0; shape.kind == "file" && i < shape.members; ++i) {
        std::filesystem::remove(member_path(options_, shape, i));
    }
    auto made = run_blocking(processor(0), make(shape));
    if (!made) {
        give_up(made.error());
    }
    while (made->array->status().resyncing) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return *std::move(made);
}

void RaidLab::close(Subject& subject) {
    if (auto stopped = run_blocking(processor(0), subject.array->stop()); !stopped) {
        give_up(stopped.error());
    }
    subject.array.reset();
    for (unsigned i = 0; subject.shape.kind == "file" && i < subject.shape.members; ++i) {
        std::filesystem::remove(member_path(options_, subject.shape, i));
    }
    subject.members.clear();
}

Task<RaidLab::Waits> RaidLab::work_at_home(Run run, unsigned index) {
    const Load& load = run.load;
    Clock& clock = environment_->clock;
    auto in = environment_->buffers.allocate(load.bytes);
    auto out = environment_->buffers.allocate(load.bytes);
    CHECK(in && out);
    std::ranges::fill(out->memory(), std::byte{static_cast<unsigned char>(index + 1)});
    const Slice to = in->slice(load.bytes, Lba(0));
    const Slice from = out->slice(load.bytes, Lba(0));
    from.clear_infos();
    if (run.sealed) {
        from.seal();
    }
    std::mt19937_64 random(index + 1);
    Waits waits;
    TimePoint now = clock.now();
    TimePoint due = now;
    while (now < run.end) {
        const std::uint64_t dice = random();
        Place& place = run.places[(load.sequential ? index : dice >> 8U) % run.places.size()];
        const std::uint64_t block = load.sequential ? place.next.fetch_add(1, std::memory_order_relaxed) : random();
        const Lba lba(block % place.blocks * (load.bytes / kSectorBytes));
        const bool read = place.read || dice % 100 < load.read_percent;
        const Result<void> r =
            read ? co_await place.device->read(lba, to, {}) : co_await place.device->write(lba, from, {});
        if (!r) {
            give_up(r.error());
        }
        const TimePoint began = std::exchange(now, clock.now());
        waits.push_back(std::chrono::duration<float, std::micro>(now - began).count());
        co_await yield();  // RL3
        due += load.interval;
        if (load.interval.count() > 0) {
            co_await sleep_until(clock, due);
            now = clock.now();
        }
    }
    co_return waits;
}

Task<RaidLab::Waits> RaidLab::work(Run run, unsigned index) {
    Executor& caller = Executor::current();
    co_await resume_on(processor(index % run.load.processors));
    Waits waits = co_await work_at_home(run, index);
    co_await resume_on(caller);
    co_return waits;
}

Rate RaidLab::run(Subject& subject, const Load& load, std::vector<Place>& places, unsigned workers, bool sealed) {
    const MemberIos before = subject.ios();
    const TimePoint began = environment_->clock.now();
    const auto length = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.seconds));
    const Run run{places, load, began + length, sealed};
    std::vector<Task<Waits>> tasks;
    for (unsigned i = 0; i < workers; ++i) {
        tasks.push_back(work(run, i));
    }
    const std::vector<Waits> all = run_blocking(processor(0), when_all(std::move(tasks)));
    const double seconds = std::chrono::duration<double>(environment_->clock.now() - began).count();
    const MemberIos after = subject.ios();
    Waits waits;
    for (const Waits& w : all) {
        waits.insert(waits.end(), w.begin(), w.end());
    }
    const auto done = static_cast<double>(waits.size());
    const auto p99 = waits.begin() + static_cast<std::ptrdiff_t>(waits.size() * 99 / 100);
    std::ranges::nth_element(waits, p99);
    return {done / seconds,
            *p99,
            {(after.reads - before.reads) / done, (after.writes - before.writes) / done,
             (after.written_bytes - before.written_bytes) / done}};
}

Rate RaidLab::run_array(Subject& subject, const Load& load) {
    std::vector<Place> places(1);
    places[0].device = &subject.volume();
    const std::uint64_t bytes = bytes_of(subject.volume().limits().sectors);
    places[0].blocks = (load.region == 0 ? bytes : std::min(bytes, load.region)) / load.bytes;
    return run(subject, load, places, load.depth, /*sealed=*/true);
}

Rate RaidLab::run_members(Subject& subject, const Load& load) {
    std::vector<Place> places(subject.members.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
        places[i].device = subject.members[i].get();
        places[i].blocks = bytes_of(subject.data_sectors()) / load.bytes;
        places[i].read = load.only_written >= 0 && i != static_cast<std::size_t>(load.only_written);
    }
    const auto streams = static_cast<unsigned>(places.size());
    return run(subject, load, places, load.sequential ? load.depth * streams : load.depth, /*sealed=*/false);
}

double median(std::vector<double> values) {
    CHECK(!values.empty());
    std::ranges::sort(values);
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace gemel::bench
