// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/raid_rows.hpp"

#include <isa-l/raid.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "raid/parity.hpp"

namespace gemel::bench {

namespace {

constexpr unsigned kDataStrips = 4;
constexpr double kMegabyte = 1e6;

std::string amplification(const Rate& rate, std::uint64_t bytes) {
    return "per write " + number(rate.member.reads, 2) + " member reads, " + number(rate.member.writes, 2) +
           " member writes; " + number(rate.member.written_bytes / static_cast<double>(bytes), 2) +
           " bytes written for one";
}

/// Sequential writes of `bytes` at `depth` against k of k + m parts of what the members take when each of them is
/// written by itself, strip by strip, as many at once as there are stripes in flight.
Finding sequential_against_members(RaidLab& lab, Subject& subject, std::uint64_t bytes, unsigned depth) {
    Load ours;
    ours.sequential = true;
    ours.bytes = bytes;
    ours.depth = depth;
    Load theirs = ours;
    theirs.bytes = subject.shape.strip_kib * kKiB;
    theirs.depth = 16;
    Rate last;
    const double share = static_cast<double>(kDataStrips) / static_cast<double>(subject.members.size());
    const Comparison c = compare(
        lab.options().pairs,
        [&] {
            last = lab.run_array(subject, ours);
            return last.ios * static_cast<double>(ours.bytes) / kMegabyte;
        },
        [&] { return lab.run_members(subject, theirs).ios * static_cast<double>(theirs.bytes) / kMegabyte * share; });
    Finding f;
    f.name = "RAID " + subject.shape.level + " " + std::to_string(bytes / kKiB) + " KiB sequential write depth " +
             std::to_string(depth) + ", " + subject.shape.kind + " members";
    f.value = c.ours;
    f.unit = "MB/s";
    f.against = "k/(k+m) of raw members " + number(c.theirs) + " MB/s";
    f.ratio = c.ratio;
    f.note = amplification(last, bytes);
    return f;
}

Findings full_stripes(RaidLab& lab) {
    Findings out;
    for (const std::string level : {"5", "6"}) {
        for (const std::string kind : {"file", "memory"}) {
            Subject subject = lab.open(parity_shape(level, kind));
            out.push_back(sequential_against_members(lab, subject, kDataStrips * 64 * kKiB, 16));
            out.back().name += ", full stripes";
            if (kind == "file") {
                out.back().goal = 0.85;
            }
            lab.close(subject);
        }
    }
    return out;
}

Findings partial_stripes(RaidLab& lab) {
    Findings out;
    Subject subject = lab.open(parity_shape("5", "file"));
    for (const std::uint64_t kib : {64U, 4U}) {
        out.push_back(sequential_against_members(lab, subject, kib * kKiB, 32));
    }
    lab.close(subject);
    return out;
}

/// A write of a part of a stripe is two reads, then two writes: raw, as many I/Os are in flight as the array has.
Finding random_against_members(RaidLab& lab, Subject& subject) {
    const Load ours;
    Load theirs;
    theirs.read_percent = 50;
    theirs.depth = 2 * ours.depth;
    Rate last;
    const Comparison c = compare(
        lab.options().pairs,
        [&] {
            last = lab.run_array(subject, ours);
            return last.ios;
        },
        [&] { return lab.run_members(subject, theirs).ios / 4; });
    Finding f;
    f.name = "RAID 5 4 KiB random write depth 32, " + subject.shape.kind + " members";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "raw random I/Os of the members / 4: " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    f.note = amplification(last, kBlockBytes);
    return f;
}

Findings random_writes(RaidLab& lab) {
    Findings out;
    for (const std::string kind : {"file", "memory"}) {
        Subject subject = lab.open(parity_shape("5", kind));
        out.push_back(random_against_members(lab, subject));
        if (kind == "file") {
            out.back().goal = 0.85;
        }
        lab.close(subject);
    }
    return out;
}

/// Blocks that are written again and again, with the stripe cache against without.
Findings rewrites(RaidLab& lab) {
    constexpr std::uint64_t kHotBytes = 4 * kMiB;
    Findings out;
    for (const std::string kind : {"file", "memory"}) {
        Shape shape = parity_shape("5", kind);
        Subject cached = lab.open(shape);
        shape.name += "-uncached";
        shape.adjust = [](raid::ArrayConfig& c) { c.stripe_cache_bytes = 0; };
        Subject uncached = lab.open(shape);
        Load load;
        load.region = kHotBytes;
        Rate last;
        const Comparison c = compare(
            lab.options().pairs,
            [&] {
                last = lab.run_array(cached, load);
                return last.ios;
            },
            [&] { return lab.run_array(uncached, load).ios; });
        lab.close(cached);
        lab.close(uncached);
        Finding f;
        f.name = "RAID 5 4 KiB random write depth 32 within 4 MiB, " + kind + " members";
        f.value = c.ours;
        f.unit = "IOPS";
        f.against = "without the stripe cache " + number(c.theirs) + " IOPS";
        f.ratio = c.ratio;
        f.note = amplification(last, load.bytes);
        out.push_back(std::move(f));
    }
    return out;
}

/// One processor with one shard against two with two: the host's load is divided over the processors, too.
Findings two_shards(RaidLab& lab) {
    Subject one = lab.open(parity_shape("5", "memory", 1));
    Subject two = lab.open(parity_shape("5", "memory", 2));
    Load narrow;
    Load wide;
    wide.processors = 2;
    const Comparison c = compare(
        lab.options().pairs, [&] { return lab.run_array(two, wide).ios; },
        [&] { return lab.run_array(one, narrow).ios; });
    lab.close(one);
    lab.close(two);
    Finding f;
    f.name = "RAID 5 4 KiB random write depth 32, one LUN over 2 shards, memory members";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "1 shard on 1 processor " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    f.goal = 1.6;
    return {f};
}

/// Calls of `make` per second.
template <class Make>
double calls_per_second(double seconds, Make make) {
    using Wall = std::chrono::steady_clock;
    constexpr int kBatch = 256;
    const auto began = Wall::now();
    double calls = 0;
    double passed = 0;
    do {
        for (int i = 0; i < kBatch; ++i) {
            make();
        }
        calls += kBatch;
        passed = std::chrono::duration<double>(Wall::now() - began).count();
    } while (passed < seconds);
    return calls / passed;
}

Findings parity_rates(RaidLab& lab) {
    constexpr std::size_t kStripBytes = 16 * kKiB;  // six of them lie in every second-level cache
    struct alignas(64) Strip {
        std::array<std::byte, kStripBytes> bytes;
    };
    std::vector<Strip> strips(kDataStrips + 2);
    std::array<const std::byte*, kDataStrips> data{};
    std::array<void*, kDataStrips + 2> vectors{};
    for (std::size_t i = 0; i < strips.size(); ++i) {
        std::ranges::fill(strips[i].bytes, std::byte{static_cast<unsigned char>(17 * i + 1)});
        vectors[i] = strips[i].bytes.data();
    }
    std::ranges::transform(std::span(strips).first(kDataStrips), data.begin(),
                           [](const Strip& s) { return s.bytes.data(); });
    const MutableBytes p = strips[kDataStrips].bytes;
    const MutableBytes q = strips[kDataStrips + 1].bytes;
    const double gigabytes = static_cast<double>(kDataStrips * kStripBytes) / 1e9;
    const double seconds = lab.options().seconds / 16;  // short: a processor that is shared is disturbed less often
    Findings out;
    for (const bool both : {false, true}) {
        const Comparison c = compare(
            8 * lab.options().pairs,
            [&] {
                return gigabytes *
                       calls_per_second(seconds, [&] { raid::parity_into(p, both ? q : MutableBytes{}, data); });
            },
            [&] {
                return gigabytes * calls_per_second(seconds, [&] {
                           const int bad = both ? pq_gen(kDataStrips + 2, kStripBytes, vectors.data())
                                                : xor_gen(kDataStrips + 1, kStripBytes, vectors.data());
                           CHECK(bad == 0);
                       });
            });
        Finding f;
        f.name = both ? "parity P+Q of 4 strips in cache" : "parity xor of 4 strips in cache";
        f.value = c.ours;
        f.unit = "GB/s";
        f.against = "ISA-L " + number(c.theirs, 1) + " GB/s";
        f.ratio = c.ratio;
        f.goal = 0.9;
        out.push_back(std::move(f));
    }
    return out;
}

constexpr std::array kRows{
    Row{"full-stripes", "sequential writes of whole stripes against the raw members", &full_stripes},
    Row{"partial-stripes", "sequential writes of parts of stripes against the raw members", &partial_stripes},
    Row{"random", "4 KiB random writes against raw random I/Os", &random_writes},
    Row{"rewrites", "4 KiB random writes of a small region with the stripe cache against without", &rewrites},
    Row{"shards", "one LUN over two shards against one", &two_shards},
    Row{"parity", "P and Q against ISA-L itself", &parity_rates},
    Row{"journal", "4 KiB random writes with the dirty stripe journal against without; records", &journal_rows},
    Row{"checksums", "4 KiB random I/O with block checksums against without", &checksum_rows},
    Row{"single-checksums", "the same of one member without redundancy", &single_checksum_rows},
    Row{"rebuild", "rebuild against the raw members; the host's p99 beside it", &rebuild_rows},
};

}  // namespace

std::span<const Row> raid_rows() {
    return kRows;
}

std::string number(double value, int digits) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%.*f", digits, value);
    return text.data();
}

Shape parity_shape(const std::string& level, const std::string& kind, unsigned shards) {
    Shape shape;
    shape.name = "raid" + level + "-" + kind + "-" + std::to_string(shards);
    shape.level = level;
    shape.members = kDataStrips + (level == "6" ? 2 : 1);
    shape.kind = kind;
    shape.shards = shards;
    return shape;
}

}  // namespace gemel::bench
