// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/shrink.hpp"

#include <cctype>

#include "tests/sim/history_process.hpp"

namespace gemel::sim {

namespace {

constexpr std::uint64_t kMostRuns = 400;
constexpr unsigned kMostSeconds = 30;  ///< of one history

class Shrinker {
  public:
    Shrinker(const Area& area, const HistoryOptions& options) : area_(area), options_(options) {}

    Shrunk run() {
        out_.cuts = options_.cuts;
        out_.before = out_.after = attempt(out_.cuts);
        if (out_.before.violations.empty()) {
            return std::move(out_);
        }
        kind_ = kind_of(out_.before.violations.front());
        for (bool shorter = true; shorter && out_.runs < kMostRuns;) {
            shorter = drop_classes();
            shorter = drop_rounds() || shorter;
            shorter = thin(&Cuts::faults, &HistoryResult::choices) || shorter;
            shorter = thin(&Cuts::commands, &HistoryResult::commands) || shorter;
        }
        return std::move(out_);
    }

  private:
    HistoryResult attempt(const Cuts& cuts) {
        ++out_.runs;
        return run_apart(area_, {.seed = options_.seed, .cuts = cuts}, kMostSeconds);
    }

    /// SK1. True, and `cuts` are kept, if the history still fails.
    bool keep_if_failing(const Cuts& cuts) {
        if (out_.runs >= kMostRuns) {
            return false;
        }
        HistoryResult r = attempt(cuts);
        if (r.violations.empty() || kind_of(r.violations.front()) != kind_) {
            return false;
        }
        out_.cuts = cuts;
        out_.after = std::move(r);
        return true;
    }

    bool drop_classes() {
        bool any = false;
        for (const std::string_view name : area_.classes) {
            if (!out_.cuts.without(name)) {
                Cuts cuts = out_.cuts;
                cuts.classes.emplace_back(name);
                any = keep_if_failing(cuts) || any;
            }
        }
        return any;
    }

    bool drop_rounds() {
        const std::uint64_t now = std::min(out_.after.rounds, out_.cuts.rounds);
        for (std::uint64_t n = 0; n < now; ++n) {
            Cuts cuts = out_.cuts;
            cuts.rounds = n;
            if (keep_if_failing(cuts)) {
                return true;
            }
        }
        return false;
    }

    /// Leaves out pieces, large ones first, from the end on.
    bool thin(raid::IntervalSet Cuts::* skipped, std::uint64_t HistoryResult::* count) {
        bool any = false;
        for (std::uint64_t piece = (out_.after.*count + 1) / 2; piece > 0; piece = piece == 1 ? 0 : (piece + 1) / 2) {
            for (std::uint64_t end = out_.after.*count; end > 0; end -= std::min(end, piece)) {
                const std::uint64_t first = end - std::min(end, piece);
                Cuts cuts = out_.cuts;
                const std::uint64_t before = (cuts.*skipped).total();
                (cuts.*skipped).add(first, end);
                any = ((cuts.*skipped).total() != before && keep_if_failing(cuts)) || any;
            }
        }
        return any;
    }

    const Area& area_;
    const HistoryOptions& options_;
    std::string kind_;
    Shrunk out_;
};

}  // namespace

std::string kind_of(std::string_view violation) {
    std::string out;
    int fields = 0;
    for (const char c : violation) {
        fields += c == ':' ? 1 : 0;
        if (fields == 2) {
            break;
        }
        const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
        if (!digit) {
            out += c;
        } else if (!out.ends_with('#') && !out.ends_with("# ")) {
            out += '#';
        }
    }
    return out;
}

Shrunk shrink(const Area& area, const HistoryOptions& options) {
    return Shrinker(area, options).run();
}

}  // namespace gemel::sim
