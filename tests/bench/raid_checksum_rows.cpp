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

}  // namespace

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
