// SPDX-License-Identifier: Apache-2.0
// sim: runs histories of an area by seed, in several processes, and says which seeds fail and how to replay them.
//
// A history runs in a child process, so that a CHECK, a sanitizer report or an endless loop is a failed seed and not
// the end of the run. One seed alone runs in this process, for a debugger.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>

#include "gemel/test_switch.hpp"
#include "tests/sim/history.hpp"

namespace gemel::sim {
namespace {

constexpr unsigned kMostSecondsPerHistory = 120;
constexpr std::size_t kMostFailuresShown = 10;

struct Options {
    std::string area;
    std::uint64_t histories = 1;
    std::uint64_t seed = 1;
    unsigned jobs = 1;
    double minutes = 0;
    std::string test_switch;
    bool trace = false;
    bool states = false;  ///< missing required states fail the run
    bool stop_at_first = false;
    bool list_switches = false;
};

struct Totals {
    std::uint64_t histories = 0;
    std::uint64_t faults = 0;
    std::uint64_t writes = 0;
    std::uint64_t sectors = 0;
    std::uint64_t violations = 0;
    std::uint64_t few = 0;  ///< histories below 100 writes or 10 faults
    std::map<std::string, std::uint64_t> states;
    std::vector<std::uint64_t> failed;
};

std::string replay(const Options& o, std::uint64_t seed) {
    return "tools/run-sim " + o.area + " --seed " + std::to_string(seed) +
           (o.test_switch.empty() ? "" : " --switch " + o.test_switch) + " --trace";
}

void report_failure(const Options& o, Totals& totals, std::uint64_t seed, const std::vector<std::string>& violations) {
    totals.violations += violations.size();
    totals.failed.push_back(seed);
    if (totals.failed.size() <= kMostFailuresShown) {
        std::printf("seed %llu failed; replay: %s\n", static_cast<unsigned long long>(seed), replay(o, seed).c_str());
        for (const std::string& v : violations) {
            std::printf("    %s\n", v.c_str());
        }
        std::fflush(stdout);
    }
}

void add(const Options& o, Totals& totals, std::uint64_t seed, const HistoryResult& r) {
    ++totals.histories;
    totals.faults += r.faults;
    totals.writes += r.writes;
    totals.sectors += r.sectors_checked;
    totals.few += r.writes < 100 || r.faults < 10 ? 1 : 0;
    for (const std::string& state : r.states) {
        ++totals.states[state];
    }
    if (!r.violations.empty()) {
        report_failure(o, totals, seed, r.violations);
    }
}

// ---- what a child tells its parent: lines of text

void tell(std::FILE* to, const HistoryResult& r) {
    for (const std::string& s : r.states) {
        std::fprintf(to, "state %s\n", s.c_str());
    }
    for (std::string v : r.violations) {
        std::ranges::replace(v, '\n', ' ');
        std::fprintf(to, "violation %s\n", v.c_str());
    }
    std::fprintf(to, "end %llu %llu %llu %llu\n", static_cast<unsigned long long>(r.faults),
                 static_cast<unsigned long long>(r.writes), static_cast<unsigned long long>(r.sectors_checked),
                 static_cast<unsigned long long>(r.trace));
    std::fflush(to);
}

[[noreturn]] void child(const Area& area, std::uint64_t first, std::uint64_t last, std::uint64_t step, int out) {
    std::FILE* to = fdopen(out, "w");
    for (std::uint64_t seed = first; seed < last; seed += step) {
        std::fprintf(to, "begin %llu\n", static_cast<unsigned long long>(seed));
        std::fflush(to);
        alarm(kMostSecondsPerHistory);
        tell(to, area.run(HistoryOptions{.seed = seed}));
    }
    std::fclose(to);
    _exit(0);
}

struct Child {
    pid_t pid = -1;
    int in = -1;
    std::uint64_t next;  ///< the seed it is at
    std::uint64_t last;
    bool inside = false;
    HistoryResult result{};
    std::string text{};
};

void start_child(const Area& area, Child& c, std::uint64_t step) {
    std::array<int, 2> ends{};
    CHECK(pipe(ends.data()) == 0);
    std::fflush(nullptr);
    c.pid = fork();
    CHECK(c.pid >= 0);
    if (c.pid == 0) {
        close(ends[0]);
        child(area, c.next, c.last, step, ends[1]);
    }
    close(ends[1]);
    c.in = ends[0];
    c.inside = false;
    c.result = {};
    c.text.clear();
}

void take_line(const Options& o, Totals& totals, Child& c, std::string_view line) {
    if (line.starts_with("begin ")) {
        c.next = std::stoull(std::string(line.substr(6)));
        c.inside = true;
        c.result = {};
    } else if (line.starts_with("state ")) {
        c.result.states.emplace(line.substr(6));
    } else if (line.starts_with("violation ")) {
        c.result.violations.emplace_back(line.substr(10));
    } else if (line.starts_with("end ")) {
        unsigned long long faults = 0;
        unsigned long long writes = 0;
        unsigned long long sectors = 0;
        std::sscanf(std::string(line).c_str(), "end %llu %llu %llu", &faults, &writes, &sectors);
        c.result.faults = faults;
        c.result.writes = writes;
        c.result.sectors_checked = sectors;
        add(o, totals, c.next, c.result);
        c.inside = false;
    }
}

/// False when the child is gone and nothing is left for another one.
bool end_child(const Area& area, const Options& o, Totals& totals, Child& c, std::uint64_t step) {
    int status = 0;
    waitpid(c.pid, &status, 0);
    close(c.in);
    c.in = -1;
    if (!c.inside) {
        return false;
    }
    ++totals.histories;
    const bool late = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    report_failure(o, totals, c.next,
                   {late ? "no end after " + std::to_string(kMostSecondsPerHistory) + " s"
                         : "the process died: " +
                               std::string(WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "sanitizer or exit")});
    c.next += step;
    if (c.next >= c.last) {
        return false;
    }
    start_child(area, c, step);
    return true;
}

void run_many(const Area& area, const Options& o, Totals& totals) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(o.minutes * 60);
    const std::uint64_t last = o.minutes > 0 ? o.seed + 1'000'000'000 : o.seed + o.histories;
    std::vector<Child> children;
    for (unsigned i = 0; i < o.jobs && o.seed + i < last; ++i) {
        children.push_back(Child{.next = o.seed + i, .last = last});
        start_child(area, children.back(), o.jobs);
    }
    std::size_t running = children.size();
    while (running > 0) {
        const bool over = (o.minutes > 0 && std::chrono::steady_clock::now() >= deadline) ||
                          (o.stop_at_first && !totals.failed.empty());
        std::vector<pollfd> fds;
        for (const Child& c : children) {
            fds.push_back({c.in, POLLIN, 0});
        }
        poll(fds.data(), fds.size(), 200);
        for (std::size_t i = 0; i < children.size(); ++i) {
            Child& c = children[i];
            if (c.in >= 0 && over) {
                kill(c.pid, SIGKILL);
                waitpid(c.pid, nullptr, 0);
                close(c.in);
                c.in = -1;
                --running;
                continue;
            }
            if (c.in < 0 || (fds[i].revents & (POLLIN | POLLHUP)) == 0) {
                continue;
            }
            std::array<char, 65536> room{};
            const ssize_t n = read(c.in, room.data(), room.size());
            if (n <= 0) {
                running -= end_child(area, o, totals, c, o.jobs) ? 0 : 1;
                continue;
            }
            c.text.append(room.data(), static_cast<std::size_t>(n));
            for (std::size_t end = 0; (end = c.text.find('\n')) != std::string::npos;) {
                take_line(o, totals, c, std::string_view(c.text).substr(0, end));
                c.text.erase(0, end + 1);
            }
        }
    }
}

bool missing_states(const Area& area, const Totals& totals) {
    bool missing = false;
    for (const std::string_view state : area.required) {
        if (!totals.states.contains(std::string(state))) {
            std::printf("never reached: %.*s\n", static_cast<int>(state.size()), state.data());
            missing = true;
        }
    }
    return missing;
}

bool turn_on(const Options& o) {
    if (o.test_switch.empty()) {
        return true;
    }
#ifdef GEMEL_TEST_SWITCHES
    for (const TestSwitchRow& row : kTestSwitches) {
        if (row.name == o.test_switch) {
            active_test_switch = row.id;
            return true;
        }
    }
    std::fprintf(stderr, "sim: no test switch '%s'\n", o.test_switch.c_str());
#else
    std::fprintf(stderr, "sim: built without test switches\n");
#endif
    return false;
}

int run(const Options& o) {
    const auto all = areas();
    const auto area = std::ranges::find(all, o.area, &Area::name);
    if (area == all.end()) {
        std::fprintf(stderr, "sim: no area '%s'; there are:", o.area.c_str());
        for (const Area& a : all) {
            std::fprintf(stderr, " %.*s", static_cast<int>(a.name.size()), a.name.data());
        }
        std::fprintf(stderr, "\n");
        return 2;
    }
    if (o.list_switches) {
        for (const TestSwitchRow& row : kTestSwitches) {
            if (row.area == o.area) {
                std::printf("%.*s\n", static_cast<int>(row.name.size()), row.name.data());
            }
        }
        return 0;
    }
    if (!turn_on(o)) {
        return 2;
    }
    Totals totals;
    const auto began = std::chrono::steady_clock::now();
    if (o.minutes <= 0 && o.histories == 1) {
        const HistoryResult r = area->run(HistoryOptions{.seed = o.seed, .trace = o.trace});
        add(o, totals, o.seed, r);
        std::printf("trace %016llx after %llu steps, %llu writes\n", static_cast<unsigned long long>(r.trace),
                    static_cast<unsigned long long>(r.steps), static_cast<unsigned long long>(r.writes));
    } else {
        run_many(*area, o, totals);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    bool failed = !totals.failed.empty();
    if (o.states) {
        for (const auto& [state, n] : totals.states) {
            std::printf("%8llu  %s\n", static_cast<unsigned long long>(n), state.c_str());
        }
        failed = missing_states(*area, totals) || failed;
        if (totals.few > 0) {
            std::printf("%llu histories had fewer than 100 writes or 10 faults\n",
                        static_cast<unsigned long long>(totals.few));
            failed = true;
        }
    }
    std::printf("%.1f s, %llu host writes, %llu sectors checked\n", seconds,
                static_cast<unsigned long long>(totals.writes), static_cast<unsigned long long>(totals.sectors));
    std::printf("%llu histories, %llu faults, %llu violations\n", static_cast<unsigned long long>(totals.histories),
                static_cast<unsigned long long>(totals.faults), static_cast<unsigned long long>(totals.violations));
    return failed ? 1 : 0;
}

}  // namespace
}  // namespace gemel::sim

int main(int argc, char** argv) {
    CLI::App app{"Deterministic simulation of Gemel: random histories by seed, judged by an oracle"};
    gemel::sim::Options o;
    app.add_option("area", o.area, "raid or replication")->required();
    app.add_option("--histories", o.histories, "how many seeds, from --seed on")->check(CLI::PositiveNumber);
    app.add_option("--seed", o.seed, "the first seed");
    app.add_option("--jobs", o.jobs, "processes")->check(CLI::PositiveNumber);
    app.add_option("--minutes", o.minutes, "run for so long instead of a number of histories");
    app.add_option("--switch", o.test_switch, "turn on a deliberate bug");
    app.add_flag("--trace", o.trace, "tell what happens (one history)");
    app.add_flag("--states", o.states, "count the states reached; fail if a required one is missing");
    app.add_flag("--list-switches", o.list_switches, "the deliberate bugs of the area");
    app.add_flag("--stop-at-first", o.stop_at_first, "end with the first failing history");
    CLI11_PARSE(app, argc, argv);
    return gemel::sim::run(o);
}
