// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/cuts.hpp"

#include <charconv>

namespace gemel::sim {

namespace {

std::string numbers(const raid::IntervalSet& set) {
    std::string out;
    std::uint64_t at = 0;
    while (const auto range = set.next(at)) {
        at = range->second;
        out += (out.empty() ? "" : ",") + std::to_string(range->first);
        out += at - range->first > 1 ? "-" + std::to_string(at - 1) : "";
    }
    return out;
}

bool take_number(std::string_view& text, std::uint64_t& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc{};
}

}  // namespace

std::string Cuts::text() const {
    std::string out;
    const auto add = [&out](std::string_view option, const std::string& value) {
        out += (out.empty() ? "--" : " --") + std::string(option) + "=" + value;
    };
    if (rounds != kAllRounds) {
        add("rounds", std::to_string(rounds));
    }
    if (!classes.empty()) {
        std::string names;
        for (const std::string& name : classes) {
            names += (names.empty() ? "" : ",") + name;
        }
        add("without", names);
    }
    if (!faults.empty()) {
        add("skip-faults", numbers(faults));
    }
    if (!commands.empty()) {
        add("skip-commands", numbers(commands));
    }
    return out;
}

std::uint64_t left(const raid::IntervalSet& skipped, std::uint64_t n) {
    std::uint64_t out = n;
    std::uint64_t at = 0;
    while (const auto range = skipped.next(at)) {
        at = range->second;
        out -= std::min(at, n) - std::min(range->first, n);
    }
    return out;
}

std::optional<raid::IntervalSet> parse_numbers(std::string_view text) {
    raid::IntervalSet out;
    while (true) {
        std::uint64_t first = 0;
        if (!take_number(text, first)) {
            return std::nullopt;
        }
        std::uint64_t last = first;
        if (text.starts_with('-')) {
            text.remove_prefix(1);
            if (!take_number(text, last) || last < first) {
                return std::nullopt;
            }
        }
        out.add(first, last + 1);
        if (text.empty()) {
            return out;
        }
        if (!text.starts_with(',')) {
            return std::nullopt;
        }
        text.remove_prefix(1);
    }
}

}  // namespace gemel::sim
