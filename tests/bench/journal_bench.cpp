// SPDX-License-Identifier: Apache-2.0
// What the dirty stripe journal costs: 4 KiB random writes to two RAID 5 arrays of four members, one with the journal
// and one without, in turns in one run. Prints one JSON object per line; `ratio` is journal over resync. Before each
// run the journal lists nothing, so that its writes begin cold; `cold` is the share of writes that asked for a record.
// Threads: the benchmark's own and one processor.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "raid/array.hpp"
#include "target/backend/backend_table.hpp"
#include "target/runtime/runtime.hpp"

namespace {

using namespace gemel;
using Wall = std::chrono::steady_clock;

struct Options {
    std::string kind = "file";
    std::string folder = "/tmp";
    std::uint64_t member_mib = 1024;
    std::uint64_t strip_kib = 64;
    double seconds = 1;
    int pairs = 5;
};

class QuietEvents final : public EventSink {
  public:
    void emit(EventRecord event) override {
        if (event.severity != Severity::kInfo) {
            std::fprintf(stderr, "%s: %s\n", event.subject.c_str(), event.cause.c_str());
        }
    }
};

/// One array and its members.
struct Subject {
    std::vector<std::unique_ptr<BlockDevice>> devices;
    std::unique_ptr<raid::Array> array;
};

Task<Result<Subject>> open_subject(Environment& env, Executor& home, Options o, raid::RecoveryPolicy policy) {
    Subject out;
    raid::ArrayConfig config;
    config.name = std::string(raid::recovery_policy_name(policy));
    config.strip_bytes = static_cast<std::uint32_t>(o.strip_kib * kKiB);
    config.create = raid::ArrayConfig::Create::kIfBlank;
    config.policy = policy;
    config.volumes = {{"vol", 0}};
    config.shards = {&home};
    for (int m = 0; m < 4; ++m) {
        BackendSpec spec;
        spec.kind = o.kind;
        spec.path = o.kind == "memory" ? "" : o.folder + "/" + config.name + std::to_string(m);
        spec.bytes = o.member_mib * kMiB;
        spec.create = o.kind == "file";
        CO_TRY(auto device, co_await open_backend(env, spec));
        config.members.push_back({device.get(), ""});
        out.devices.push_back(std::move(device));
    }
    CO_TRY(out.array, co_await raid::Array::open(env, std::move(config)));
    co_return std::move(out);
}

/// One of `depth` writers, until `end`; returns its writes.
Task<std::uint64_t> write_randomly(Environment& env, BlockDevice& volume, std::uint64_t blocks, Wall::time_point end) {
    const Buffer buffer = *env.buffers.allocate(kBlockBytes);
    std::uint64_t done = 0;
    while (Wall::now() < end) {
        const Lba lba(env.random.next() % blocks * kSectorsPerBlock);
        const Slice slice = buffer.slice(kBlockBytes, lba);
        slice.clear_infos();
        const Result<void> r = co_await volume.write(lba, slice, {});
        CHECK(r.has_value());
        ++done;
    }
    co_return done;
}

struct Figures {
    double iops = 0;
    double cold = 0;     ///< share of writes
    double records = 0;  ///< per cold write
};

class Bench {
  public:
    explicit Bench(Options options) : options_(std::move(options)) {
        RuntimeOptions o;
        o.io_processors = 1;
        auto made = Runtime::create(o, events_);
        CHECK(made);
        runtime_ = *std::move(made);
        env_ = std::make_unique<Environment>(runtime_->environment());
        CHECK(runtime_->processors().start());
    }
    ~Bench() { runtime_->processors().stop_and_join(); }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    int run() {
        Subject journal = open(raid::RecoveryPolicy::kJournal);
        Subject resync = open(raid::RecoveryPolicy::kResync);
        for (const std::uint64_t mib : {options_.member_mib * 3 / 4, std::uint64_t{2}}) {
            for (const int depth : {1, 32}) {
                compare(journal, resync, depth, mib);
            }
        }
        close(journal);
        close(resync);
        return 0;
    }

  private:
    Processor& io() { return runtime_->processors().io(0); }

    Subject open(raid::RecoveryPolicy policy) {
        auto made = run_blocking(io(), open_subject(*env_, io(), options_, policy));
        if (!made) {
            std::fprintf(stderr, "%s\n", made.error().message.c_str());
            std::exit(2);
        }
        while (made->array->status().resyncing) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return *std::move(made);
    }
    void close(Subject& s) {
        CHECK(run_blocking(io(), s.array->stop()));
        s.array.reset();
        s.devices.clear();
    }

    Figures measure(Subject& s, int depth, std::uint64_t mib) {
        while (s.array->status().journal.listed_stripes > 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
        const raid::JournalStatus before = s.array->status().journal;
        const auto began = Wall::now();
        const auto end =
            began + std::chrono::duration_cast<Wall::duration>(std::chrono::duration<double>(options_.seconds));
        std::vector<Task<std::uint64_t>> writers;
        for (int i = 0; i < depth; ++i) {
            writers.push_back(write_randomly(*env_, *s.array->find("vol"), mib * kMiB / kBlockBytes, end));
        }
        const auto counts = run_blocking(io(), when_all(std::move(writers)));
        const double seconds = std::chrono::duration<double>(Wall::now() - began).count();
        const raid::JournalStatus after = s.array->status().journal;
        double writes = 0;
        for (const std::uint64_t n : counts) {
            writes += static_cast<double>(n);
        }
        const auto cold = static_cast<double>(after.cold_writes - before.cold_writes);
        const auto records = static_cast<double>(after.records - before.records);
        return {writes / seconds, cold / writes, cold > 0 ? records / cold : 0};
    }

    void compare(Subject& journal, Subject& resync, int depth, std::uint64_t mib) {
        std::vector<double> ratios;
        std::vector<Figures> with;
        std::vector<double> without;
        for (int i = 0; i < options_.pairs; ++i) {
            const bool first = i % 2 == 0;
            Figures a = first ? measure(journal, depth, mib) : Figures{};
            const Figures b = measure(resync, depth, mib);
            a = first ? a : measure(journal, depth, mib);
            ratios.push_back(a.iops / b.iops);
            with.push_back(a);
            without.push_back(b.iops);
        }
        std::ranges::sort(ratios);
        std::ranges::sort(without);
        std::ranges::sort(with, {}, &Figures::iops);
        const Figures& f = with[with.size() / 2];
        std::printf(
            "{\"name\": \"%s members, %llu MiB, 4KiB random write depth %d\", \"journal\": %.0f, \"resync\": "
            "%.0f, \"ratio\": %.3f, \"cold\": %.4f, \"records_per_cold_write\": %.3f}\n",
            options_.kind.c_str(), static_cast<unsigned long long>(mib), depth, f.iops, without[without.size() / 2],
            ratios[ratios.size() / 2], f.cold, f.records);
        std::fflush(stdout);
    }

    Options options_;
    QuietEvents events_;
    std::unique_ptr<Runtime> runtime_;
    std::unique_ptr<Environment> env_;
};

}  // namespace

int main(int argc, char** argv) {
    Options o;
    CLI::App app{"What the dirty stripe journal costs a RAID 5 array"};
    app.add_option("--kind", o.kind, "file or memory members");
    app.add_option("--folder", o.folder, "where the files go");
    app.add_option("--member-mib", o.member_mib, "size of a member");
    app.add_option("--strip-kib", o.strip_kib, "size of a strip");
    app.add_option("--seconds", o.seconds, "of one run");
    app.add_option("--pairs", o.pairs, "runs of each");
    CLI11_PARSE(app, argc, argv);
    return Bench(o).run();
}
