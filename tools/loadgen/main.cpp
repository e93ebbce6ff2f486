// SPDX-License-Identifier: Apache-2.0
// loadgen: load generator and checker for iSCSI LUNs.
// Threads: one.
#include <csignal>
#include <cstdio>
#include <optional>

#include "tools/loadgen/options.hpp"
#include "tools/loadgen/report.hpp"
#include "tools/loadgen/runner.hpp"

namespace {

volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int) {
    stop_requested = 1;
}

int leave(gemel::loadgen::ExitCode code) {
    return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
    using namespace gemel::loadgen;
    int exit_code = 0;
    const auto options = parse_options(argc, argv, exit_code);
    if (!options) {
        return exit_code;
    }
    std::string why;
    const auto target = parse_url(options->url, why);
    if (!target) {
        std::fprintf(stderr, "loadgen: %s\n", why.c_str());
        return leave(ExitCode::kUsage);
    }
    std::optional<Ledger> ledger;
    if (!options->ledger.empty()) {
        auto loaded = load_ledger(options->ledger);
        const bool is_new = !loaded && loaded.error().code == gemel::Errc::kNotFound && !options->check;
        if (!loaded && !is_new) {
            std::fprintf(stderr, "loadgen: %s\n", loaded.error().message.c_str());
            return leave(ExitCode::kUsage);
        }
        ledger = loaded ? std::move(*loaded) : Ledger();
    }
    std::signal(SIGINT, request_stop);
    std::signal(SIGTERM, request_stop);
    std::signal(SIGPIPE, SIG_IGN);
    Ledger* kept = ledger ? &*ledger : nullptr;
    Runner runner(*options, *target, kept, stop_requested);
    RunResult result = runner.run();
    if (kept != nullptr && kept->volume_tag() != 0) {
        if (const auto saved = save_ledger(options->ledger, *kept); !saved) {
            result.problems.push_back(saved.error().message);
            result.exit_code = result.exit_code == ExitCode::kGood ? ExitCode::kUsage : result.exit_code;
        }
    }
    const std::string text = options->json ? as_json(*options, result, kept) : as_text(*options, result, kept);
    std::fputs(text.c_str(), stdout);
    return leave(result.exit_code);
}
