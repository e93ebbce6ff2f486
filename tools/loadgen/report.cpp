// SPDX-License-Identifier: Apache-2.0
// Reports of loadgen; see report.hpp.
#include "tools/loadgen/report.hpp"

#include <sys/resource.h>

#include <boost/json.hpp>
#include <cstdarg>
#include <cstdio>

#include "gemel/units.hpp"

namespace gemel::loadgen {
namespace {

double microseconds(std::uint64_t ns) {
    return static_cast<double>(ns) / 1000.0;
}

double per_second(std::uint64_t n, double seconds) {
    return seconds > 0 ? static_cast<double>(n) / seconds : 0;
}

double mib_per_second(const DirectionResult& d, double seconds) {
    return per_second(d.bytes, seconds) / static_cast<double>(kMiB);
}

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto of = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return of(usage.ru_utime) + of(usage.ru_stime);
}

boost::json::object direction_json(const DirectionResult& d, double seconds) {
    return {{"operations", d.latency.count()},
            {"bytes", d.bytes},
            {"iops", per_second(d.latency.count(), seconds)},
            {"mib_per_s", mib_per_second(d, seconds)},
            {"latency_us",
             {{"mean", microseconds(d.latency.mean())},
              {"p50", microseconds(d.latency.quantile(0.5))},
              {"p90", microseconds(d.latency.quantile(0.9))},
              {"p99", microseconds(d.latency.quantile(0.99))},
              {"p99_9", microseconds(d.latency.quantile(0.999))},
              {"max", microseconds(d.latency.max())}}}};
}

[[gnu::format(printf, 1, 2)]] std::string line(const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

std::string direction_text(const char* name, const DirectionResult& d, double seconds) {
    if (d.latency.count() == 0) {
        return {};
    }
    const Histogram& h = d.latency;
    return line("%-6s %9.0f IOPS %9.1f MiB/s   us: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n", name,
                per_second(h.count(), seconds), mib_per_second(d, seconds), microseconds(h.quantile(0.5)),
                microseconds(h.quantile(0.9)), microseconds(h.quantile(0.99)), microseconds(h.quantile(0.999)),
                microseconds(h.max()));
}

}  // namespace

std::string as_json(const Options& options, const RunResult& result, const Ledger* ledger) {
    boost::json::object root{{"url", options.url},
                             {"sessions", options.sessions},
                             {"depth", options.depth},
                             {"block_bytes", options.block_bytes},
                             {"read_percent", options.check ? 100 : options.read_percent},
                             {"pattern", options.sequential || options.check ? "sequential" : "random"},
                             {"capacity_bytes", result.capacity_bytes},
                             {"seconds", result.seconds},
                             {"reads", direction_json(result.reads, result.seconds)},
                             {"writes", direction_json(result.writes, result.seconds)},
                             {"longest_stall_s", result.longest_stall},
                             {"longest_wait_s", result.longest_wait},
                             {"reconnects", result.reconnects},
                             {"retries", result.retries},
                             {"unanswered", result.unanswered},
                             {"cpu_seconds", cpu_seconds()}};
    if (ledger != nullptr) {
        root["verify"] = {{"sectors_checked", result.sectors_checked},
                          {"wrong_sectors", result.wrong_sectors},
                          {"possible_writes", ledger->possible_writes()}};
    }
    boost::json::array problems;
    for (const std::string& p : result.problems) {
        problems.emplace_back(p);
    }
    root["problems"] = std::move(problems);
    root["exit_code"] = static_cast<int>(result.exit_code);
    return boost::json::serialize(root) + "\n";
}

std::string as_text(const Options& options, const RunResult& result, const Ledger* ledger) {
    std::string text = line("%s: %u session(s), depth %u, %u bytes, %.1f s\n", options.url.c_str(), options.sessions,
                            options.depth, options.block_bytes, result.seconds);
    text += direction_text("read", result.reads, result.seconds);
    text += direction_text("write", result.writes, result.seconds);
    text += line("longest stall %.3f s, longest wait of one command %.3f s, reconnects %llu, retries %llu\n",
                 result.longest_stall, result.longest_wait, static_cast<unsigned long long>(result.reconnects),
                 static_cast<unsigned long long>(result.retries));
    if (ledger != nullptr) {
        text += line("verified %llu sectors, %llu wrong\n", static_cast<unsigned long long>(result.sectors_checked),
                     static_cast<unsigned long long>(result.wrong_sectors));
    }
    for (const std::string& p : result.problems) {
        text += "problem: " + p + "\n";
    }
    return text;
}

}  // namespace gemel::loadgen
