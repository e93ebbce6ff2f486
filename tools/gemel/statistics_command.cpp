// SPDX-License-Identifier: Apache-2.0
// gemel stats: what hosts do, LUN by LUN and session by session, since the start or from one moment to the next.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <optional>

#include "target/config/value_syntax.hpp"
#include "tools/gemel/client.hpp"
#include "tools/gemel/commands.hpp"
#include "tools/gemel/render.hpp"
#include "tools/gemel/verb_call.hpp"

namespace gemel::cli {

namespace json = boost::json;

namespace {

const json::array& list_in(const json::value& from, std::string_view name) {
    static const json::array kNone;
    const json::object* object = from.if_object();
    const json::value* list = object != nullptr ? object->if_contains(name) : nullptr;
    return list != nullptr && list->is_array() ? list->get_array() : kNone;
}

std::vector<std::uint64_t> latencies_in(const json::value& lun, std::string_view kind) {
    const json::object* object = lun.if_object();
    const json::value* figures = object != nullptr ? object->if_contains(kind) : nullptr;
    std::vector<std::uint64_t> out;
    for (const json::value& n : list_in(figures != nullptr ? *figures : lun, "latency")) {
        out.push_back(n.is_number() ? n.to_number<std::uint64_t>() : 0);
    }
    return out;
}

/// The same LUN in an earlier answer; null: it was not there. One number may be several volumes, for different hosts.
const json::value* same_lun(const json::value* earlier, std::string_view iqn, const json::value& now) {
    if (earlier == nullptr) {
        return nullptr;
    }
    for (const json::value& target : list_in(*earlier, "targets")) {
        for (const json::value& lun : list_in(target, "luns")) {
            const bool same =
                number_of(lun, "lun") == number_of(now, "lun") && text_of(lun, "volume") == text_of(now, "volume");
            if (same && text_of(target, "iqn") == iqn) {
                return &lun;
            }
        }
    }
    return nullptr;
}

std::string time_text(std::uint64_t us) {
    return us < 1000      ? fmt::format("<{} us", us)
           : us < 1000000 ? fmt::format("<{:.3g} ms", static_cast<double>(us) / 1e3)
                          : fmt::format("<{:.3g} s", static_cast<double>(us) / 1e6);
}

/// So that this part of all commands took less.
std::string quantile(const std::vector<std::uint64_t>& latency, double part) {
    std::uint64_t all = 0;
    for (const std::uint64_t n : latency) {
        all += n;
    }
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < latency.size() && all > 0; ++i) {
        seen += latency[i];
        if (static_cast<double>(seen) >= part * static_cast<double>(all)) {
            return i + 1 < latency.size() ? time_text(std::uint64_t{1} << i) : "longer";
        }
    }
    return "-";
}

/// Of one kind of command of a LUN: since the start, or since `before`, then operations and bytes per second.
struct Figures {
    std::string operations;
    std::string bytes;
    std::string p50;
    std::string p99;
};

Figures figures_of(const json::value& lun, const json::value* before, const std::string& kind, double seconds) {
    std::vector<std::uint64_t> latency = latencies_in(lun, kind);
    std::uint64_t operations = number_of(lun, kind + ".operations");
    std::uint64_t bytes = number_of(lun, kind + ".bytes");
    if (before == nullptr) {
        return {fmt::format("{}", operations), config::format_size(bytes), quantile(latency, 0.5),
                quantile(latency, 0.99)};
    }
    const std::vector<std::uint64_t> then = latencies_in(*before, kind);
    for (std::size_t i = 0; i < std::min(then.size(), latency.size()); ++i) {
        latency[i] -= std::min(latency[i], then[i]);
    }
    operations -= std::min(operations, number_of(*before, kind + ".operations"));
    bytes -= std::min(bytes, number_of(*before, kind + ".bytes"));
    return {fmt::format("{:.0f}", static_cast<double>(operations) / seconds),
            config::format_size(static_cast<std::uint64_t>(static_cast<double>(bytes) / seconds)),
            quantile(latency, 0.5), quantile(latency, 0.99)};
}

std::uint64_t failed_of(const json::value& lun) {
    return number_of(lun, "reads.failed") + number_of(lun, "writes.failed") + number_of(lun, "other.failed");
}

std::string luns_table(const json::value& now, const json::value* earlier, double seconds) {
    const std::string per = earlier != nullptr ? "/s" : "";
    std::vector<std::vector<std::string>> rows{{"TARGET", "LUN", "VOLUME", "READS" + per, "READ" + per, "P50", "P99",
                                                "WRITES" + per, "WRITTEN" + per, "P50", "P99", "OTHER" + per, "FAILED",
                                                "ABORTED", "IN FLIGHT"}};
    for (const json::value& target : list_in(now, "targets")) {
        for (const json::value& lun : list_in(target, "luns")) {
            const json::value* before = same_lun(earlier, text_of(target, "iqn"), lun);
            const Figures r = figures_of(lun, before, "reads", seconds);
            const Figures w = figures_of(lun, before, "writes", seconds);
            const Figures o = figures_of(lun, before, "other", seconds);
            rows.push_back({text_of(target, "iqn"), text_of(lun, "lun"), text_of(lun, "volume"), r.operations, r.bytes,
                            r.p50, r.p99, w.operations, w.bytes, w.p50, w.p99, o.operations,
                            fmt::format("{}", failed_of(lun)), text_of(lun, "aborted"),
                            fmt::format("{} (most {})", text_of(lun, "in_flight"), text_of(lun, "most_in_flight"))});
        }
    }
    return rows.size() > 1 ? render_table(rows) : "no LUNs\n";
}

std::string sessions_table(const json::value& now) {
    std::vector<std::vector<std::string>> rows{{"INITIATOR", "TARGET", "FROM", "READS", "WRITES", "FAILED", "ABORTED",
                                                "REJECTED", "DIGEST ERRORS", "IGNORED"}};
    for (const json::value& s : list_in(now, "sessions")) {
        std::uint64_t reads = 0;
        std::uint64_t writes = 0;
        std::uint64_t failed = 0;
        std::uint64_t aborted = 0;
        for (const json::value& lun : list_in(s, "luns")) {
            reads += number_of(lun, "reads.operations");
            writes += number_of(lun, "writes.operations");
            failed += failed_of(lun);
            aborted += number_of(lun, "aborted");
        }
        rows.push_back({text_of(s, "initiator"), text_of(s, "target"), text_of(s, "peer_address"),
                        fmt::format("{}", reads), fmt::format("{}", writes), fmt::format("{}", failed),
                        fmt::format("{}", aborted), text_of(s, "rejected"), text_of(s, "digest_errors"),
                        text_of(s, "ignored")});
    }
    return rows.size() > 1 ? render_table(rows) : "no sessions\n";
}

const json::object* object_in(const json::value& from, std::string_view name) {
    const json::object* object = from.if_object();
    const json::value* inner = object != nullptr ? object->if_contains(name) : nullptr;
    return inner != nullptr ? inner->if_object() : nullptr;
}

/// Since the start, or since `earlier`: how many logins went well and, by reason, how many did not.
std::string logins_line(const json::value& now, const json::value* earlier) {
    const json::object* logins = object_in(now, "logins");
    if (logins == nullptr) {
        return "";
    }
    const auto count = [&](const std::string& path) {
        const std::uint64_t n = number_of(now, "logins." + path);
        return n - std::min(n, earlier != nullptr ? number_of(*earlier, "logins." + path) : 0);
    };
    std::string reasons;
    const json::object* by_status = object_in(*now.as_object().if_contains("logins"), "login_failures_by_status");
    for (const auto& [name, value] : by_status != nullptr ? *by_status : json::object()) {
        const std::uint64_t n = count("login_failures_by_status." + std::string(name));
        reasons += n == 0 ? "" : fmt::format("{}{} {}", reasons.empty() ? ": " : ", ", n, std::string_view(name));
    }
    return fmt::format("\nlogins {}, refused {}{}; connections turned away {}, protocol errors {}\n", count("logins"),
                       count("login_failures"), reasons, count("refused_connections"), count("protocol_errors"));
}

ExitCode repeat_statistics(const Invocation& given) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    std::optional<json::value> earlier;
    for (auto then = std::chrono::steady_clock::now();;) {
        auto answer = client->call("stats", {});
        if (!answer) {
            return complain(given, answer.error());
        }
        const auto now = std::chrono::steady_clock::now();
        if (given.json) {
            print(json::serialize(*answer) + "\n");
        } else if (earlier) {
            print(render_statistics_since(*answer, *earlier, std::chrono::duration<double>(now - then).count()));
        }
        earlier = *std::move(answer);
        then = now;
        pause_for(std::chrono::seconds(given.interval_seconds));
    }
}

}  // namespace

std::string render_statistics(const json::value& statistics) {
    return luns_table(statistics, nullptr, 1) + "\n" + sessions_table(statistics) + logins_line(statistics, nullptr);
}

std::string render_statistics_since(const json::value& statistics, const json::value& earlier, double seconds) {
    return luns_table(statistics, &earlier, seconds) + logins_line(statistics, &earlier);
}

ExitCode show_statistics(const Invocation& given) {
    return given.interval_seconds != 0 ? repeat_statistics(given) : show(given, "stats", render_statistics);
}

}  // namespace gemel::cli
