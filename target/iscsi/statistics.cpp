// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/statistics.hpp"

#include <algorithm>
#include <memory>

namespace gemel::iscsi {

namespace {

std::uint64_t now(const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
}

}  // namespace

void add(LunTotals& sum, const LunTotals& part) {
    for (std::size_t k = 0; k < sum.kinds.size(); ++k) {
        CommandFigures<std::uint64_t>& to = sum.kinds[k];
        const CommandFigures<std::uint64_t>& from = part.kinds[k];
        to.operations += from.operations;
        to.bytes += from.bytes;
        to.failed += from.failed;
        for (std::size_t i = 0; i < kLatencyBuckets; ++i) {
            to.latency[i] += from.latency[i];
        }
    }
    sum.aborted += part.aborted;
    sum.in_flight += part.in_flight;
    sum.most_in_flight = std::max(sum.most_in_flight, part.most_in_flight);
}

LunCounters& LunStatistics::arrived() {
    LunCounters* counters = counters_.load(std::memory_order_relaxed);
    if (counters == nullptr) {
        counters = std::make_unique<LunCounters>().release();
        counters_.store(counters, std::memory_order_release);
    }
    count(counters->in_flight, 1);
    const std::uint64_t in_flight = now(counters->in_flight);
    if (in_flight > now(counters->most_in_flight)) {
        counters->most_in_flight.store(in_flight, std::memory_order_relaxed);
    }
    return *counters;
}

void LunStatistics::answered(LunCounters& counters, CommandKind kind, bool good, std::uint64_t bytes, Duration took) {
    CommandFigures<std::atomic<std::uint64_t>>& figures = counters.kinds[static_cast<std::size_t>(kind)];
    count(figures.operations, 1);
    count(figures.bytes, bytes);
    count(figures.failed, good ? 0 : 1);
    count(figures.latency[latency_bucket(took)], 1);
    counters.in_flight.store(now(counters.in_flight) - 1, std::memory_order_relaxed);
}

void LunStatistics::aborted(LunCounters& counters) {
    count(counters.aborted, 1);
    counters.in_flight.store(now(counters.in_flight) - 1, std::memory_order_relaxed);
}

LunTotals LunStatistics::totals() const {
    LunTotals out;
    const LunCounters* counters = counters_.load(std::memory_order_acquire);
    if (counters == nullptr) {
        return out;
    }
    for (std::size_t k = 0; k < out.kinds.size(); ++k) {
        const CommandFigures<std::atomic<std::uint64_t>>& from = counters->kinds[k];
        out.kinds[k] = {now(from.operations), now(from.bytes), now(from.failed), {}};
        std::ranges::transform(from.latency, out.kinds[k].latency.begin(), now);
    }
    out.aborted = now(counters->aborted);
    out.in_flight = now(counters->in_flight);
    out.most_in_flight = now(counters->most_in_flight);
    return out;
}

}  // namespace gemel::iscsi
