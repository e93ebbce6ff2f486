// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/space_watch.hpp"

#include <fmt/format.h>
#include <sys/statvfs.h>

namespace gemel {

namespace {
constexpr Duration kInterval = std::chrono::seconds(5);
}  // namespace

/// As df(1) counts: what only root may use is neither used nor free.
std::optional<std::uint32_t> used_percent(const std::string& path) {
    struct statvfs fs{};
    if (::statvfs(path.c_str(), &fs) != 0 || fs.f_blocks == 0) {
        return std::nullopt;
    }
    const std::uint64_t used = fs.f_blocks - fs.f_bfree;
    return used + fs.f_bavail == 0 ? 100U : static_cast<std::uint32_t>(used * 100 / (used + fs.f_bavail));
}

SpaceWatch::SpaceWatch(Environment environment, std::function<void(const std::string&)> reached, Measure measure)
    : environment_(environment), reached_(std::move(reached)), measure_(measure) {}

bool SpaceWatch::add(WatchedArray array) {
    arrays_.push_back(std::move(array));
    return arrays_.size() == 1;
}

void SpaceWatch::look() {
    for (WatchedArray& array : arrays_) {
        std::uint32_t most = 0;
        std::string where;
        for (const std::string& member : array.members) {
            if (const auto used = measure_(member); used && *used >= most) {
                most = *used;
                where = member;
            }
        }
        judge(array, most, where);
    }
}

/// SW1.
void SpaceWatch::judge(WatchedArray& array, std::uint32_t most, const std::string& where) {
    if (array.told) {
        array.told = most + 1 > array.threshold;
        return;
    }
    if (most < array.threshold) {
        return;
    }
    array.told = true;
    environment_.events.emit({Severity::kWarning, "space-low", "array " + array.name,
                              fmt::format("the file system of {} is {} % full, the threshold is {} %; when it is full "
                                          "a member fails whose hosts write to what they had discarded",
                                          where, most, array.threshold),
                              "free space there, or move the member to a larger file system"});
    reached_(array.name);
}

Task<void> SpaceWatch::run(Event& stop) {
    while (!stop.is_set()) {
        look();
        co_await stop.wait_until(environment_.clock, environment_.clock.now() + kInterval);
    }
}

}  // namespace gemel
