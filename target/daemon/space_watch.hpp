// SPDX-License-Identifier: Apache-2.0
// SpaceWatch: says when a file system that holds members of a thin array fills up: what hosts have discarded is given
// back there, and they may want it again when somebody else has it. Its spares will be members.
//
// Invariants:
//   SW1 A threshold is told of once when it is reached, and again only after the file system was below it by a percent.
//   SW2 A file system that does not answer is as full as it said last; it is asked once, until it answers, and holds up
//       nothing else. That it is silent is told once.
// Threads: the executor that runs it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/sync.hpp"
#include "target/config/config.hpp"
#include "target/daemon/state_directory.hpp"
#include "target/runtime/space_probe.hpp"

namespace gemel {

struct WatchedArray {
    std::string name;
    std::uint32_t threshold = 0;     ///< percent of a file system that is used
    std::vector<std::string> files;  ///< members and spares
};

/// What is to be watched of it: nothing where it is not thin.
WatchedArray watched_files(const config::Array& array, const StateDirectory& state);

class SpaceWatch {
  public:
    /// Sees to it that the answer comes, some time or never.
    using Ask = std::function<void(const std::string& path, std::shared_ptr<SpaceAnswer> answer)>;
    static constexpr Duration kInterval = std::chrono::seconds(5);
    static constexpr Duration kAnswerTime = std::chrono::seconds(1);
    static constexpr Duration kSilence = std::chrono::seconds(30);

    /// `reached`: called with an array's name, after the event.
    SpaceWatch(Environment environment, std::function<void(const std::string&)> reached, Ask ask = &ask_file_system);

    /// From now on that is watched of the array. True if it is the first one: run() is to be started.
    bool set(WatchedArray array);
    /// Asks all file systems that owe no answer.
    void ask();
    /// Takes the answers that are there.
    void judge();
    /// Both every few seconds, until `stop` is set.
    Task<void> run(Event& stop);

  private:
    struct Array {
        WatchedArray what;
        bool told = false;
    };
    struct File {
        std::shared_ptr<SpaceAnswer> answer;  ///< null: not asked
        TimePoint asked;
        std::optional<std::uint32_t> used;
        bool silent = false;
    };
    static void ask_file_system(const std::string& path, std::shared_ptr<SpaceAnswer> answer);
    void take_answer(const std::string& path, File& file);
    void judge(Array& array);

    Environment environment_;
    std::function<void(const std::string&)> reached_;
    Ask ask_;
    std::vector<Array> arrays_;
    std::map<std::string, File> files_;
};

}  // namespace gemel
