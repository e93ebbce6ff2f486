// SPDX-License-Identifier: Apache-2.0
// The rows of raid_bench for block checksums: on against off, with the map in memory and with a tenth of it.
#include <algorithm>

#include "raid/checksum_page.hpp"
#include "tests/bench/raid_rows.hpp"

namespace gemel::bench {

namespace {

constexpr std::uint64_t kSmallCache = 128 * kKiB;  ///< a tenth of the maps of the rows' arrays of 256 MiB members

Subject open_with_checksums(RaidLab& lab, const char* name, void (*adjust)(raid::ArrayConfig&)) {
    Shape shape = parity_shape("5", "file");
    shape.name += std::string("-checksums-") + name;
    shape.adjust = adjust;
    return lab.open(shape);
}

/// Pages of the map per page of the cache.
double map_to_cache(const Subject& subject, std::uint64_t cache) {
    const double data =
        static_cast<double>(bytes_of(subject.data_sectors())) * static_cast<double>(subject.members.size());
    return data / kBlockBytes / raid::kChecksumEntries * kBlockBytes / static_cast<double>(cache);
}

Finding on_and_off(RaidLab& lab, Subject& on, Subject& off, unsigned read_percent, double goal) {
    Load load;
    load.read_percent = read_percent;
    const Comparison c = compare(
        lab.options().pairs, [&] { return lab.run_array(on, load).ios; }, [&] { return lab.run_array(off, load).ios; });
    Finding f;
    f.name = std::string("RAID 5 4 KiB random ") + (read_percent == 0 ? "write" : "read") + " depth 32, checksums on";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "checksums off " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    f.goal = goal;
    return f;
}

/// Of the writes since `before`: in a record of the journal.
std::string cold_share(const raid::JournalStatus& before, const raid::JournalStatus& now) {
    const auto cold = static_cast<double>(now.cold_writes - before.cold_writes);
    const auto hot = static_cast<double>(now.hot_writes - before.hot_writes);
    return number(cold * 100 / std::max(1.0, cold + hot)) + " % of the writes waited for a record";
}

Finding single_on_and_off(RaidLab& lab, Subject& on, Subject& off, const Load& load) {
    const raid::JournalStatus before = on.array->status().journal;
    const Comparison c = compare(
        lab.options().pairs, [&] { return lab.run_array(on, load).ios; }, [&] { return lab.run_array(off, load).ios; });
    Finding f;
    f.name = "single, " + on.shape.kind + " member, 4 KiB random " + (load.read_percent == 0 ? "write" : "read") +
             " depth " + std::to_string(load.depth) + ", checksums on";
    f.value = c.ours;
    f.unit = "IOPS";
    f.against = "checksums off " + number(c.theirs) + " IOPS";
    f.ratio = c.ratio;
    if (load.read_percent == 0) {
        f.note = cold_share(before, on.array->status().journal);
    }
    return f;
}

}  // namespace

/// All is written first: of what nobody has written there is nothing to compare.
Findings single_checksum_rows(RaidLab& lab) {
    Findings out;
    for (const std::string kind : {"file", "memory"}) {
        Shape shape{.name = "single-checksums-on", .level = "single", .members = 1, .kind = kind};
        shape.adjust = [](raid::ArrayConfig& c) { c.checksums = true; };
        Subject on = lab.open(shape);
        shape.name = "single-checksums-off";
        shape.adjust = nullptr;
        Subject off = lab.open(shape);
        for (Subject* subject : {&on, &off}) {
            lab.run_array(*subject, {.bytes = kMiB, .depth = 8, .sequential = true});
        }
        for (const unsigned depth : {32U, 1U}) {
            out.push_back(single_on_and_off(lab, on, off, {.depth = depth}));
        }
        out.push_back(single_on_and_off(lab, on, off, {.read_percent = 100}));
        lab.close(on);
        lab.close(off);
    }
    return out;
}

Findings checksum_rows(RaidLab& lab) {
    Subject cached = open_with_checksums(lab, "cached", [](raid::ArrayConfig& c) { c.checksums = true; });
    Subject small = open_with_checksums(lab, "small", [](raid::ArrayConfig& c) {
        c.checksums = true;
        c.checksum_cache_bytes = kSmallCache;
    });
    Subject off = open_with_checksums(lab, "off", [](raid::ArrayConfig& c) { c.checksums = false; });
    Findings out;
    for (const unsigned read_percent : {0U, 100U}) {
        out.push_back(on_and_off(lab, cached, off, read_percent, 0.90));
        out.back().name += ", map cached";
        out.push_back(on_and_off(lab, small, off, read_percent, read_percent == 0 ? 0.60 : 0.45));
        out.back().name += ", map " + number(map_to_cache(small, kSmallCache)) + " x its cache";
    }
    lab.close(cached);
    lab.close(small);
    lab.close(off);
    return out;
}

}  // namespace gemel::bench
