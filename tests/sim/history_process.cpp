// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history_process.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "gemel/check.hpp"

namespace gemel::sim {

void tell(std::FILE* to, const HistoryResult& r) {
    for (const std::string& s : r.states) {
        std::fprintf(to, "state %s\n", s.c_str());
    }
    for (std::string v : r.violations) {
        std::ranges::replace(v, '\n', ' ');
        std::fprintf(to, "violation %s\n", v.c_str());
    }
    std::fputs("end", to);
    for (const std::uint64_t n : {r.faults, r.writes, r.sectors_checked, r.steps, r.rounds, r.commands, r.choices}) {
        std::fprintf(to, " %llu", static_cast<unsigned long long>(n));
    }
    std::fputc('\n', to);
    std::fflush(to);
}

bool take_line(HistoryResult& r, std::string_view line) {
    if (line.starts_with("state ")) {
        r.states.emplace(line.substr(6));
    } else if (line.starts_with("violation ")) {
        r.violations.emplace_back(line.substr(10));
    } else if (line.starts_with("end ")) {
        const std::string text(line.substr(4));
        const char* at = text.c_str();
        for (std::uint64_t* n :
             {&r.faults, &r.writes, &r.sectors_checked, &r.steps, &r.rounds, &r.commands, &r.choices}) {
            char* end = nullptr;
            *n = std::strtoull(at, &end, 10);
            at = end;
        }
        return true;
    }
    return false;
}

std::string why_died(int status, unsigned seconds) {
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        return "no end after " + std::to_string(seconds) + " s";
    }
    return "the process died: " + std::string(WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "sanitizer or exit");
}

HistoryResult run_apart(const Area& area, const HistoryOptions& options, unsigned seconds) {
    std::array<int, 2> ends{};
    CHECK(pipe(ends.data()) == 0);
    std::fflush(nullptr);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        std::FILE* to = fdopen(ends[1], "w");
        alarm(seconds);
        tell(to, area.run(options));
        std::fclose(to);
        _exit(0);
    }
    close(ends[1]);
    HistoryResult out;
    bool ended = false;
    std::FILE* from = fdopen(ends[0], "r");
    char* line = nullptr;
    std::size_t room = 0;
    for (ssize_t n = 0; (n = getline(&line, &room, from)) > 0;) {
        ended = take_line(out, std::string_view(line, static_cast<std::size_t>(n - 1))) || ended;
    }
    std::free(line);
    std::fclose(from);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!ended) {
        out.violations = {why_died(status, seconds)};
    }
    return out;
}

}  // namespace gemel::sim
