// SPDX-License-Identifier: Apache-2.0
// What the RAID engine costs: each row is a ratio of two sides that were measured in turns in this process. Exit 1 if a
// goal is not met, 2 if nothing could be measured.
// Threads: raid_lab.hpp.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/raid_rows.hpp"

namespace {

using namespace gemel::bench;

void print_json(const Finding& f) {
    const std::string goal = f.goal ? std::to_string(*f.goal) : "null";
    const char* met = !f.goal ? "null" : f.met() ? "true" : "false";
    std::printf(
        "{\"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"against\": \"%s\", \"ratio\": %.3f, \"target\": %s, "
        "\"met\": %s, \"note\": \"%s\"}\n",
        f.name.c_str(), f.value, f.unit.c_str(), f.against.c_str(), f.ratio, goal.c_str(), met, f.note.c_str());
}

void print_text(const Finding& f) {
    const std::string verdict = !f.goal ? "no goal" : f.met() ? "met" : "NOT MET";
    std::printf("%s\n    %.2f x (goal %s: %s): %.1f %s; %s\n", f.name.c_str(), f.ratio,
                f.goal ? std::to_string(*f.goal).substr(0, 4).c_str() : "-", verdict.c_str(), f.value, f.unit.c_str(),
                f.against.c_str());
    if (!f.note.empty()) {
        std::printf("    %s\n", f.note.c_str());
    }
}

/// Says how many goals were met, and which were not.
bool summarise(const Findings& all) {
    const auto goals = std::ranges::count_if(all, [](const Finding& f) { return f.goal.has_value(); });
    const auto missed = std::ranges::count_if(all, [](const Finding& f) { return !f.met(); });
    std::fprintf(stderr, "%td of %td goals met\n", goals - missed, goals);
    for (const Finding& f : all) {
        if (!f.met()) {
            std::fprintf(stderr, "not met: %s: %.2f, wanted %.2f\n", f.name.c_str(), f.ratio, *f.goal);
        }
    }
    return missed == 0;
}

}  // namespace

int main(int argc, char** argv) {
    LabOptions options;
    bool json = false;
    std::vector<std::string> only;
    CLI::App app{"Benchmarks of the RAID engine as ratios of both sides in one run"};
    app.add_option("--folder", options.folder, "where file members go; its file system must know O_DIRECT");
    app.add_option("--member-mib", options.member_mib, "size of a member");
    app.add_option("--seconds", options.seconds, "of one run");
    app.add_option("--pairs", options.pairs, "of runs in each row")->check(CLI::Range(1, 99));
    app.add_option("--only", only, "rows to run");
    app.add_flag("--json", json, "one JSON object per line");
    std::string rows = "Rows:";
    for (const Row& row : raid_rows()) {
        rows += "\n  " + std::string(row.id) + ": " + std::string(row.meaning);
    }
    app.footer(rows);
    CLI11_PARSE(app, argc, argv);
    for (const std::string& id : only) {
        if (std::ranges::find(raid_rows(), id, &Row::id) == raid_rows().end()) {
            std::fprintf(stderr, "raid_bench: there is no row %s; --help lists them\n", id.c_str());
            return 2;
        }
    }
    RaidLab lab(options);
    Findings all;
    for (const Row& row : raid_rows()) {
        if (!only.empty() && std::ranges::find(only, row.id) == only.end()) {
            continue;
        }
        for (Finding& f : row.measure(lab)) {
            json ? print_json(f) : print_text(f);
            std::fflush(stdout);
            all.push_back(std::move(f));
        }
    }
    return summarise(all) ? 0 : 1;
}
