// SPDX-License-Identifier: Apache-2.0
// The rows of raid_bench for what an array does beside its hosts' I/O: the journal and the rebuild.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/bench/raid_rows.hpp"

namespace gemel::bench {

namespace {

constexpr auto kPoll = std::chrono::milliseconds(2);
constexpr std::uint64_t kHotBytes = 2 * kMiB;
constexpr double kMegabyte = 1e6;

Subject open_with_policy(RaidLab& lab, raid::RecoveryPolicy policy) {
    Shape shape = parity_shape("5", "file");
    shape.name += "-" + std::string(raid::recovery_policy_name(policy));
    shape.adjust = policy == raid::RecoveryPolicy::kResync
                       ? [](raid::ArrayConfig& c) { c.policy = raid::RecoveryPolicy::kResync; }
                       : [](raid::ArrayConfig& c) { c.policy = raid::RecoveryPolicy::kJournal; };
    return lab.open(shape);
}

/// Until the journal lists nothing: the next writes begin cold.
void cool_down(const Subject& subject) {
    while (subject.array->status().journal.listed_stripes > 0) {
        std::this_thread::sleep_for(kPoll);
    }
}

struct Records {
    double cold_writes = 0;
    double records = 0;
};

Records records_of(const Subject& subject) {
    const raid::JournalStatus j = subject.array->status().journal;
    return {static_cast<double>(j.cold_writes), static_cast<double>(j.records)};
}

Finding journal_on_and_off(RaidLab& lab, Subject& journal, Subject& resync, unsigned depth, double goal) {
    Load load;
    load.depth = depth;
    Records sum;
    double writes = 0;
    const Comparison c = compare(
        std::min(lab.options().pairs, 3),  // each waits some seconds for the journal to list nothing
        [&] {
            cool_down(journal);
            const Records before = records_of(journal);
            const double ios = lab.run_array(journal, load).ios;
            const Records after = records_of(journal);
            sum.cold_writes += after.cold_writes - before.cold_writes;
            sum.records += after.records - before.records;
            writes += ios * lab.options().seconds;
            return ios;
        },
        [&] { return lab.run_array(resync, load).ios; });
    Finding f;
    f.name = "RAID 5 4 KiB random write depth " + std::to_string(depth) + ", journal on";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "journal off " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    f.goal = goal;
    f.note = number(100 * sum.cold_writes / writes, 1) + " % of the writes were cold, " +
             number(sum.cold_writes / std::max(sum.records, 1.0), 1) + " of them to a record";
    return f;
}

/// What records cost: writes of stripes that are not listed share them, those of listed ones need none.
Findings records_per_write(RaidLab& lab, Subject& journal) {
    const Load load;
    cool_down(journal);
    const Records before = records_of(journal);
    lab.run_array(journal, load);
    const Records cold = records_of(journal);
    Load hot = load;
    hot.region = kHotBytes;
    lab.run_array(journal, hot);
    const Records warm = records_of(journal);
    const double writes = lab.run_array(journal, hot).ios * lab.options().seconds;
    const Records after = records_of(journal);
    Finding f;
    f.name = "cold stripe writes per record at depth 32";
    f.value = (cold.cold_writes - before.cold_writes) / std::max(1.0, cold.records - before.records);
    f.unit = "writes";
    f.against = "one record";
    f.ratio = f.value;
    f.goal = 8.0;
    Finding h;
    h.name = "hot writes without a record at depth 32";
    h.value = writes;
    h.unit = "writes";
    h.against = "all of them: " + number(after.records - warm.records) + " records";
    h.ratio = after.records == warm.records ? 1.0 : 0.0;
    h.goal = 1.0;
    return {f, h};
}

/// Without a member, with the redo log and (resync) without.
Finding degraded_writes(RaidLab& lab, Subject& logged, Subject& plain, unsigned depth) {
    Load load;
    load.depth = depth;
    const Comparison c = compare(
        std::min(lab.options().pairs, 3), [&] { return lab.run_array(logged, load).ios; },
        [&] { return lab.run_array(plain, load).ios; });
    Finding f;
    f.name = "RAID 5 without a member, 4 KiB random write depth " + std::to_string(depth) + ", logged";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "policy resync, not logged " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    return f;
}

void begin_rebuild(RaidLab& lab, Subject& subject) {
    const Result<void> r = run_blocking(lab.processor(0), subject.array->rebuild(0, {}));
    if (!r) {
        std::fprintf(stderr, "raid_bench: %s\n", r.error().message.c_str());
        std::_Exit(2);
    }
}

void await_rebuilt(const Subject& subject) {
    while (subject.array->status().rebuild || subject.array->status().resyncing) {
        std::this_thread::sleep_for(kPoll);
    }
    CHECK(subject.array->status().members[0].state == raid::MemberState::kInSync);
}

/// Both sides read the other members and write one at the same time: file members may share one disk.
Finding rebuild_rate(RaidLab& lab, Subject& subject) {
    Load raw;
    raw.sequential = true;
    raw.bytes = subject.shape.strip_kib * kKiB;
    raw.depth = 16;
    raw.only_written = 0;
    const double bytes = static_cast<double>(bytes_of(subject.data_sectors()));
    const Comparison c = compare(
        std::min(lab.options().pairs, 3),
        [&] {
            lab.lose(subject, 0);
            const TimePoint began = lab.environment().clock.now();
            begin_rebuild(lab, subject);
            await_rebuilt(subject);
            const std::chrono::duration<double> passed = lab.environment().clock.now() - began;
            return bytes / passed.count() / kMegabyte;
        },
        [&] {
            const Rate all = lab.run_members(subject, raw);
            const double others = static_cast<double>(subject.members.size() - 1);
            return std::min(all.member.writes, all.member.reads / others) * all.ios * static_cast<double>(raw.bytes) /
                   kMegabyte;
        });
    Finding f;
    f.name = "RAID 5 rebuild without host load";
    f.value = c.ours;
    f.unit = "MB/s";
    f.against = "the slower of reading 4 raw members and writing 1 at the same time: " + number(c.theirs) + " MB/s";
    f.ratio = c.ratio;
    f.goal = 0.85;
    return f;
}

Finding host_beside_rebuild(RaidLab& lab, Subject& subject) {
    Load fixed;
    fixed.depth = 8;
    fixed.read_percent = 50;
    fixed.interval = std::chrono::milliseconds(4);  // 2000 I/Os per second in all
    std::vector<double> rates;
    const Comparison c = compare(
        std::min(lab.options().pairs, 3),
        [&] {
            lab.lose(subject, 0);
            begin_rebuild(lab, subject);
            const double p99 = lab.run_array(subject, fixed).p99_us;
            const auto rebuild = subject.array->status().rebuild;
            rates.push_back(rebuild ? static_cast<double>(rebuild->rate) / kMegabyte : 0);
            await_rebuilt(subject);
            return 1 / p99;
        },
        [&] { return 1 / lab.run_array(subject, fixed).p99_us; });
    Finding f;
    f.name = "host p99 during a rebuild, 4 KiB at 2000 IOPS";
    f.value = 1 / c.ours;
    f.unit = "us";
    f.against = "without " + number(1 / c.theirs) + " us (ratio: without / during)";
    f.ratio = c.ratio;
    f.goal = 0.5;
    f.note = "the rebuild goes on at " + number(median(rates), 1) + " MB/s";
    return f;
}

}  // namespace

Findings journal_rows(RaidLab& lab) {
    Subject journal = open_with_policy(lab, raid::RecoveryPolicy::kJournal);
    Subject resync = open_with_policy(lab, raid::RecoveryPolicy::kResync);
    Findings out{journal_on_and_off(lab, journal, resync, 32, 0.90), journal_on_and_off(lab, journal, resync, 1, 0.70)};
    std::ranges::move(records_per_write(lab, journal), std::back_inserter(out));
    lab.lose(journal, 0);
    lab.lose(resync, 0);
    out.push_back(degraded_writes(lab, journal, resync, 32));
    out.push_back(degraded_writes(lab, journal, resync, 1));
    lab.close(journal);
    lab.close(resync);
    return out;
}

Findings rebuild_rows(RaidLab& lab) {
    Subject subject = lab.open(parity_shape("5", "file"));
    Findings out{rebuild_rate(lab, subject), host_beside_rebuild(lab, subject)};
    lab.close(subject);
    return out;
}

}  // namespace gemel::bench
