// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/space_watch.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace gemel {

WatchedArray watched_files(const config::Array& array, const StateDirectory& state) {
    WatchedArray out{array.name, array.thin_soft_threshold, {}};
    for (const auto* list : {&array.members, &array.spares}) {
        for (const config::Member& m : *list) {
            if (array.thin && m.kind == config::MemberKind::kFile) {
                out.files.push_back(state.resolve(m.path));
            }
        }
    }
    return out;
}

SpaceWatch::SpaceWatch(Environment environment, std::function<void(const std::string&)> reached, Ask ask)
    : environment_(environment), reached_(std::move(reached)), ask_(std::move(ask)) {}

void SpaceWatch::ask_file_system(const std::string& path, std::shared_ptr<SpaceAnswer> answer) {
    ask_beside(&used_percent, path, std::move(answer));
}

bool SpaceWatch::set(WatchedArray array) {
    const auto known = std::ranges::find(arrays_, array.name, [](const Array& a) { return a.what.name; });
    const bool first = arrays_.empty() && !array.files.empty();
    if (known != arrays_.end()) {
        known->what = std::move(array);
    } else if (!array.files.empty()) {
        arrays_.push_back({std::move(array)});
    }
    std::map<std::string, File> files;
    for (const Array& a : arrays_) {
        for (const std::string& path : a.what.files) {
            files[path] = files_[path];
        }
    }
    files_ = std::move(files);
    return first;
}

void SpaceWatch::ask() {
    for (auto& [path, file] : files_) {
        if (file.answer == nullptr) {
            file.answer = std::make_shared<SpaceAnswer>();
            file.asked = environment_.clock.now();
            ask_(path, file.answer);
        }
    }
}

void SpaceWatch::judge() {
    for (auto& [path, file] : files_) {
        take_answer(path, file);
    }
    for (Array& array : arrays_) {
        judge(array);
    }
}

/// SW2.
void SpaceWatch::take_answer(const std::string& path, File& file) {
    if (file.answer == nullptr) {
        return;
    }
    if (file.answer->there.load(std::memory_order_acquire)) {
        file.used = file.answer->used ? file.answer->used : file.used;
        file.answer = nullptr;
        file.silent = false;
        return;
    }
    if (!file.silent && environment_.clock.now() - file.asked >= kSilence) {
        file.silent = true;
        environment_.events.emit({Severity::kWarning, "space-unknown", "file " + path,
                                  "its file system does not say how full it is; it has not answered for 30 s",
                                  "see whether it is there: what is on it does not answer either"});
    }
}

/// SW1.
void SpaceWatch::judge(Array& array) {
    std::uint32_t most = 0;
    std::string where;
    for (const std::string& path : array.what.files) {
        if (const auto used = files_.at(path).used; used && *used >= most) {
            most = *used;
            where = path;
        }
    }
    const std::uint32_t threshold = array.what.threshold;
    if (array.told) {
        array.told = most + 1 > threshold;
        return;
    }
    if (most < threshold) {
        return;
    }
    array.told = true;
    environment_.events.emit({Severity::kWarning, "space-low", "array " + array.what.name,
                              fmt::format("the file system of {} is {} % full, the threshold is {} %; when it is full "
                                          "a member fails whose hosts write to what they had discarded",
                                          where, most, threshold),
                              "free space there, or move the member to a larger file system"});
    reached_(array.what.name);
}

Task<void> SpaceWatch::run(Event& stop) {
    while (!stop.is_set()) {
        ask();
        co_await stop.wait_until(environment_.clock, environment_.clock.now() + kAnswerTime);
        judge();
        co_await stop.wait_until(environment_.clock, environment_.clock.now() + kInterval - kAnswerTime);
    }
}

}  // namespace gemel
