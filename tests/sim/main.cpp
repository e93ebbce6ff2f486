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
#include "tests/sim/history_process.hpp"
#include "tests/sim/shrink.hpp"

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
    bool shrink = false;
    Cuts cuts{};
    std::string skipped_commands;
    std::string skipped_faults;
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

std::string replay(const Options& o, std::uint64_t seed, const Cuts& cuts) {
    const std::string text = cuts.text();
    return "tools/run-sim " + o.area + " --seed " + std::to_string(seed) + (text.empty() ? "" : " " + text) +
           (o.test_switch.empty() ? "" : " --switch " + o.test_switch) + " --trace";
}

void report_failure(const Options& o, Totals& totals, std::uint64_t seed, const std::vector<std::string>& violations) {
    totals.violations += violations.size();
    totals.failed.push_back(seed);
    if (totals.failed.size() <= kMostFailuresShown) {
        std::printf("seed %llu failed; replay: %s\n", static_cast<unsigned long long>(seed),
                    replay(o, seed, o.cuts).c_str());
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

[[noreturn]] void child(const Area& area, const Cuts& cuts, std::uint64_t first, std::uint64_t last, std::uint64_t step,
                        int out) {
    std::FILE* to = fdopen(out, "w");
    for (std::uint64_t seed = first; seed < last; seed += step) {
        std::fprintf(to, "begin %llu\n", static_cast<unsigned long long>(seed));
        std::fflush(to);
        alarm(kMostSecondsPerHistory);
        tell(to, area.run(HistoryOptions{.seed = seed, .cuts = cuts}));
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

void start_child(const Area& area, const Cuts& cuts, Child& c, std::uint64_t step) {
    std::array<int, 2> ends{};
    CHECK(pipe(ends.data()) == 0);
    std::fflush(nullptr);
    c.pid = fork();
    CHECK(c.pid >= 0);
    if (c.pid == 0) {
        close(ends[0]);
        child(area, cuts, c.next, c.last, step, ends[1]);
    }
    close(ends[1]);
    c.in = ends[0];
    c.inside = false;
    c.result = {};
    c.text.clear();
}

void take(const Options& o, Totals& totals, Child& c, std::string_view line) {
    if (line.starts_with("begin ")) {
        c.next = std::stoull(std::string(line.substr(6)));
        c.inside = true;
        c.result = {};
    } else if (take_line(c.result, line)) {
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
    report_failure(o, totals, c.next, {why_died(status, kMostSecondsPerHistory)});
    c.next += step;
    if (c.next >= c.last) {
        return false;
    }
    start_child(area, o.cuts, c, step);
    return true;
}

void run_many(const Area& area, const Options& o, Totals& totals) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(o.minutes * 60);
    const std::uint64_t last = o.minutes > 0 ? o.seed + 1'000'000'000 : o.seed + o.histories;
    std::vector<Child> children;
    for (unsigned i = 0; i < o.jobs && o.seed + i < last; ++i) {
        children.push_back(Child{.next = o.seed + i, .last = last});
        start_child(area, o.cuts, children.back(), o.jobs);
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
                take(o, totals, c, std::string_view(c.text).substr(0, end));
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

/// What the options say to leave out. False, and said why, if they say nothing that can be left out.
bool read_cuts(const Area& area, Options& o) {
    for (const std::string& name : o.cuts.classes) {
        if (std::ranges::find(area.classes, name) == area.classes.end()) {
            std::fprintf(stderr, "sim: %s histories have no class '%s'; there are:", o.area.c_str(), name.c_str());
            for (const std::string_view c : area.classes) {
                std::fprintf(stderr, " %.*s", static_cast<int>(c.size()), c.data());
            }
            std::fprintf(stderr, "\n");
            return false;
        }
    }
    for (const auto& [text, set] :
         {std::pair(&o.skipped_commands, &o.cuts.commands), std::pair(&o.skipped_faults, &o.cuts.faults)}) {
        const auto numbers = text->empty() ? raid::IntervalSet{} : parse_numbers(*text);
        if (!numbers) {
            std::fprintf(stderr, "sim: '%s' is not a list of numbers such as 3-17,20\n", text->c_str());
            return false;
        }
        *set = *numbers;
    }
    return true;
}

void print_size(const char* what, const HistoryResult& r, const Cuts& cuts) {
    std::printf("%s: %llu commands of hosts, %llu choices of faults, %llu rounds, %llu steps\n", what,
                static_cast<unsigned long long>(left(cuts.commands, r.commands)),
                static_cast<unsigned long long>(left(cuts.faults, r.choices)),
                static_cast<unsigned long long>(std::min(r.rounds, cuts.rounds)),
                static_cast<unsigned long long>(r.steps));
}

/// Ends with the line that replays what is left, and one for seeds.txt.
int shrink_one(const Area& area, const Options& o) {
    const Shrunk s = shrink(area, HistoryOptions{.seed = o.seed, .cuts = o.cuts});
    if (s.before.violations.empty()) {
        std::printf("seed %llu does not fail\n", static_cast<unsigned long long>(o.seed));
        return 0;
    }
    static_cast<void>(
        run_apart(area, HistoryOptions{.seed = o.seed, .trace = true, .cuts = s.cuts}, kMostSecondsPerHistory));
    print_size("before", s.before, o.cuts);
    print_size("after", s.after, s.cuts);
    std::printf("%llu histories were tried\n", static_cast<unsigned long long>(s.runs));
    for (const std::string& v : s.after.violations) {
        std::printf("    %s\n", v.c_str());
    }
    std::printf("seeds.txt: %s %llu %s\n", o.area.c_str(), static_cast<unsigned long long>(o.seed),
                s.cuts.text().c_str());
    std::printf("replay: %s\n", replay(o, o.seed, s.cuts).c_str());
    return 1;
}

int run(Options o) {
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
    if (!turn_on(o) || !read_cuts(*area, o)) {
        return 2;
    }
    if (o.shrink) {
        return shrink_one(*area, o);
    }
    Totals totals;
    const auto began = std::chrono::steady_clock::now();
    if (o.minutes <= 0 && o.histories == 1) {
        const HistoryResult r = area->run(HistoryOptions{.seed = o.seed, .trace = o.trace, .cuts = o.cuts});
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
    app.add_flag("--shrink", o.shrink, "cut away from a failing history what it does not need to fail (one seed)");
    app.add_option("--rounds", o.cuts.rounds, "leave out all rounds after so many");
    app.add_option("--without", o.cuts.classes, "leave out classes of faults and commands")->delimiter(',');
    app.add_option("--skip-faults", o.skipped_faults, "leave out these choices of faults, such as 3-17,20");
    app.add_option("--skip-commands", o.skipped_commands, "leave out these commands of hosts");
    CLI11_PARSE(app, argc, argv);
    return gemel::sim::run(std::move(o));
}
