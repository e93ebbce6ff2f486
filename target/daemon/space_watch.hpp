// SPDX-License-Identifier: Apache-2.0
// SpaceWatch: says when a file system that holds members of a thin array fills up: what hosts have discarded is given
// back there, and they may want it again when somebody else has it.
//
// Invariants:
//   SW1 A threshold is told of once when it is reached, and again only after the file system was below it by a percent.
// Threads: the executor that runs it; statvfs blocks it for short.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/sync.hpp"

namespace gemel {

struct WatchedArray {
    std::string name;
    std::uint32_t threshold = 0;       ///< percent of a file system that is used
    std::vector<std::string> members;  ///< files
    bool told = false;
};

/// How much of the file system that holds `path` is used, in percent rounded down; nothing if it does not say.
std::optional<std::uint32_t> used_percent(const std::string& path);

class SpaceWatch {
  public:
    using Measure = std::optional<std::uint32_t> (*)(const std::string& path);
    /// `reached`: called with an array's name, after the event.
    SpaceWatch(Environment environment, std::function<void(const std::string&)> reached,
               Measure measure = &used_percent);

    /// True if it is the first one: run() is to be started.
    bool add(WatchedArray array);
    /// Looks at all file systems now.
    void look();
    /// Looks at them every few seconds until `stop` is set.
    Task<void> run(Event& stop);

  private:
    void judge(WatchedArray& array, std::uint32_t most, const std::string& where);

    Environment environment_;
    std::function<void(const std::string&)> reached_;
    Measure measure_;
    std::vector<WatchedArray> arrays_;
};

}  // namespace gemel
