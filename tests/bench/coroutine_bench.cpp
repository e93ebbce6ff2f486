// SPDX-License-Identifier: Apache-2.0
// Gemel's Task against boost::asio::awaitable: awaiting a child, joining two, giving way, and hopping between threads.
// Prints one JSON object per line: `ratio` is Asio's time over ours, above 1 means that ours is faster.
// Threads: the benchmark's own, and those of the processors and contexts that it starts.
#include <benchmark/benchmark.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <cstdio>
#include <map>
#include <string>
#include <thread>

#include "target/runtime/processor.hpp"

namespace {

namespace asio = boost::asio;
using gemel::Task;
constexpr int kSteps = 1000;

/// One processor (or two) that runs for the length of a benchmark.
class Processors {
  public:
    explicit Processors(unsigned count) : pool_(options(count)) { CHECK(pool_.start()); }
    gemel::Processor& at(std::size_t i) { return pool_.io(i); }

  private:
    static gemel::PoolOptions options(unsigned count) {
        gemel::PoolOptions o;
        o.io_processors = count;
        return o;
    }
    gemel::ProcessorPool pool_;
};

/// The same with Asio alone.
class Contexts {
  public:
    explicit Contexts(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            threads_.emplace_back([&io = *contexts_.emplace_back(std::make_unique<asio::io_context>(1))] {
                const auto guard = asio::make_work_guard(io);
                io.run();
            });
        }
    }
    ~Contexts() {
        for (auto& io : contexts_) {
            io->stop();
        }
        for (auto& thread : threads_) {
            thread.join();
        }
    }
    Contexts(const Contexts&) = delete;
    Contexts& operator=(const Contexts&) = delete;
    asio::io_context& at(std::size_t i) { return *contexts_[i]; }
    void run(asio::awaitable<void> work) { asio::co_spawn(at(0), std::move(work), asio::use_future).get(); }

  private:
    std::vector<std::unique_ptr<asio::io_context>> contexts_;
    std::vector<std::thread> threads_;
};

Task<int> our_child(int i) {
    co_return i + 1;
}
asio::awaitable<int> asio_child(int i) {
    co_return i + 1;
}

Task<void> our_awaits() {
    int sum = 0;
    for (int i = 0; i < kSteps; ++i) {
        sum += co_await our_child(i);
    }
    benchmark::DoNotOptimize(sum);
}
asio::awaitable<void> asio_awaits() {
    int sum = 0;
    for (int i = 0; i < kSteps; ++i) {
        sum += co_await asio_child(i);
    }
    benchmark::DoNotOptimize(sum);
}

Task<void> our_joins() {
    for (int i = 0; i < kSteps; ++i) {
        auto both = co_await gemel::when_both(our_child(i), our_child(i));
        benchmark::DoNotOptimize(both);
    }
}
asio::awaitable<void> asio_joins() {
    using namespace asio::experimental::awaitable_operators;
    for (int i = 0; i < kSteps; ++i) {
        auto both = co_await (asio_child(i) && asio_child(i));
        benchmark::DoNotOptimize(both);
    }
}

Task<void> our_yields() {
    for (int i = 0; i < kSteps; ++i) {
        co_await gemel::yield();
    }
}
asio::awaitable<void> asio_yields() {
    for (int i = 0; i < kSteps; ++i) {
        co_await asio::post(asio::use_awaitable);
    }
}

Task<void> our_hops(gemel::Processor* a, gemel::Processor* b) {
    for (int i = 0; i < kSteps; i += 2) {
        co_await gemel::resume_on(*b);
        co_await gemel::resume_on(*a);
    }
}
asio::awaitable<void> asio_hops(asio::io_context* a, asio::io_context* b) {
    for (int i = 0; i < kSteps; i += 2) {
        co_await asio::post(*b, asio::use_awaitable);
        co_await asio::post(*a, asio::use_awaitable);
    }
}

template <class Make>
void run_ours(benchmark::State& state, unsigned processors, Make make) {
    Processors pool(processors);
    for (auto _ : state) {
        gemel::run_blocking(pool.at(0), make(pool));
    }
}
template <class Make>
void run_asio(benchmark::State& state, std::size_t contexts, Make make) {
    Contexts pool(contexts);
    for (auto _ : state) {
        pool.run(make(pool));
    }
}

struct Case {
    const char* name;
    double target;  ///< of the ratio
    void (*ours)(benchmark::State&);
    void (*asios)(benchmark::State&);
};

constexpr Case kCases[] = {
    {"await_child", 2.0, [](benchmark::State& s) { run_ours(s, 1, [](Processors&) { return our_awaits(); }); },
     [](benchmark::State& s) { run_asio(s, 1, [](Contexts&) { return asio_awaits(); }); }},
    {"join_two", 2.0, [](benchmark::State& s) { run_ours(s, 1, [](Processors&) { return our_joins(); }); },
     [](benchmark::State& s) { run_asio(s, 1, [](Contexts&) { return asio_joins(); }); }},
    {"give_way", 2.0, [](benchmark::State& s) { run_ours(s, 1, [](Processors&) { return our_yields(); }); },
     [](benchmark::State& s) { run_asio(s, 1, [](Contexts&) { return asio_yields(); }); }},
    {"hop_between_threads", 1.0,
     [](benchmark::State& s) { run_ours(s, 2, [](Processors& p) { return our_hops(&p.at(0), &p.at(1)); }); },
     [](benchmark::State& s) { run_asio(s, 2, [](Contexts& c) { return asio_hops(&c.at(0), &c.at(1)); }); }},
};

/// Keeps the time of each benchmark by name.
class Collector final : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context& /*context*/) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            times_[run.benchmark_name()] = run.GetAdjustedRealTime() / kSteps;
        }
    }
    [[nodiscard]] double time(const std::string& name) const {
        for (const auto& [full, value] : times_) {
            if (full.starts_with(name + "/")) {
                return value;
            }
        }
        return 0;
    }

  private:
    std::map<std::string, double> times_;
};

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    for (const Case& c : kCases) {
        benchmark::RegisterBenchmark((std::string(c.name) + "_ours").c_str(), c.ours)->UseRealTime();
        benchmark::RegisterBenchmark((std::string(c.name) + "_asio").c_str(), c.asios)->UseRealTime();
    }
    Collector collector;
    benchmark::RunSpecifiedBenchmarks(&collector);
    for (const Case& c : kCases) {
        const double ours = collector.time(std::string(c.name) + "_ours");
        const double asios = collector.time(std::string(c.name) + "_asio");
        const double ratio = ours > 0 ? asios / ours : 0;
        std::printf(
            "{\"name\":\"coroutine_%s\",\"value\":%.1f,\"unit\":\"ns\",\"against\":%.1f,\"ratio\":%.2f,"
            "\"target\":%.1f,\"met\":%s}\n",
            c.name, ours, asios, ratio, c.target, ratio >= c.target ? "true" : "false");
    }
    return 0;
}
