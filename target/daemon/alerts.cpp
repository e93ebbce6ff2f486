// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/alerts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

namespace gemel {

namespace json = boost::json;

namespace {

constexpr std::string_view kFailedId = "alert-failed";
constexpr std::size_t kLookAhead = 1024;  ///< events looked at in one go
constexpr Duration kFirstRetry = std::chrono::seconds(5);
constexpr Duration kLastRetry = std::chrono::minutes(5);

Severity least_of(config::AlertSeverity severity) {
    constexpr std::array kAll{Severity::kInfo, Severity::kWarning, Severity::kError};
    return kAll[static_cast<std::size_t>(severity)];
}

std::string json_text(const std::string& node, std::uint64_t lost, const std::vector<admin::StoredEvent>& events) {
    json::array list;
    for (const admin::StoredEvent& e : events) {
        list.push_back(admin::event_json(e));
    }
    return json::serialize(json::object{{"node", node}, {"lost", lost}, {"events", std::move(list)}});
}

/// A value in a file that curl reads (curl(1), --config).
std::string curl_quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        out += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
    }
    return out + "\"";
}

std::string mail_text(const std::string& to, const std::string& node, std::uint64_t lost,
                      const std::vector<admin::StoredEvent>& events) {
    const auto worst = std::ranges::max_element(events, {}, &admin::StoredEvent::severity);
    std::string out = fmt::format(
        "To: {}\nSubject: [gemel {}] {}: {}: {}{}\nContent-Type: text/plain; charset=us-ascii\nAuto-Submitted: "
        "auto-generated\n\n",
        to, node, admin::severity_name(worst->severity), worst->id, worst->subject,
        events.size() > 1 ? fmt::format(" and {} more", events.size() - 1) : "");
    if (lost > 0) {
        out += fmt::format("{} events before these were lost.\n\n", lost);
    }
    for (const admin::StoredEvent& e : events) {
        out += fmt::format("{} {} {}\n  {}\n", admin::format_time(e.unix_ns), admin::severity_name(e.severity), e.id,
                           e.subject);
        out += e.cause.empty() ? "" : fmt::format("  {}\n", e.cause);
        out += e.action.empty() ? "" : fmt::format("  What to do: {}\n", e.action);
        out += "\n";
    }
    return out;
}

}  // namespace

Alerts::Delivery Alerts::make_delivery(const config::Alert& alert, const std::string& node, std::uint64_t lost,
                                       const std::vector<admin::StoredEvent>& events) {
    switch (alert.kind) {
        case config::AlertKind::kExec:
            return {alert.exec, json_text(node, lost, events) + "\n"};
        case config::AlertKind::kMail:
            return {{alert.sendmail, "-i", "-t"}, mail_text(alert.to, node, lost, events)};
        case config::AlertKind::kWebhook:
            break;
    }
    // Not as arguments, which every user of the machine can see: an address may hold a secret.
    // A redirect is followed, as a POST and not to a weaker protocol: without it would count as taken.
    const std::string_view onwards = alert.to.starts_with("https") ? "=https" : "=http,https";
    return {{"curl", "-q", "--config", "-"},
            fmt::format("silent\nshow-error\nfail\ngloboff\nmax-time = 20\nproto = \"=http,https\"\nlocation\n"
                        "max-redirs = 3\npost301\npost302\npost303\nproto-redir = \"{}\"\n"
                        "header = \"Content-Type: application/json\"\nurl = {}\ndata-raw = {}\n",
                        onwards, curl_quoted(alert.to), curl_quoted(json_text(node, lost, events)))};
}

Alerts::Alerts(Environment& environment, admin::EventRing& events, std::string node, std::vector<config::Alert> alerts)
    : environment_(environment), events_(events), node_(std::move(node)) {
    for (config::Alert& alert : alerts) {
        routes_.push_back(std::make_unique<Route>(std::move(alert), environment.clock));
    }
}

void Alerts::start() {
    for (const auto& route : routes_) {
        gate_.spawn(serve(*route));
    }
}

Task<void> Alerts::stop() {
    draining_ = true;
    stop_.set();
    events_.wake();
    GraceTimer grace;
    grace.alerts = this;
    grace.run = [](Work& w) noexcept { static_cast<GraceTimer&>(w).alerts->give_up(); };
    environment_.clock.arm(grace, environment_.clock.now() + kGrace);
    co_await gate_.close();
    environment_.clock.cancel(grace);
}

void Alerts::give_up() {
    stopping_ = true;
    for (const auto& route : routes_) {
        route->child.kill();
    }
}

Alerts::Batch Alerts::batch_for(const Route& route) const {
    Batch out;
    out.next = route.next;
    out.lost = route.lost;
    std::size_t bytes = 0;
    for (admin::StoredEvent& e : events_.since(route.next, kLookAhead)) {
        const bool wanted = e.severity >= least_of(route.alert.severity) && e.id != kFailedId;
        bytes += wanted ? e.id.size() + e.subject.size() + e.cause.size() + e.action.size() : 0;
        if (wanted && !out.events.empty() && (out.events.size() == kMostAtOnce || bytes > kMostBytes)) {
            break;
        }
        out.lost += e.sequence - out.next;
        out.next = e.sequence + 1;
        if (wanted) {
            out.events.push_back(std::move(e));
        }
    }
    return out;
}

Task<void> Alerts::serve(Route& route) {
    while (!stopping_) {
        const Batch batch = batch_for(route);
        if (batch.events.empty()) {
            const bool looked_at_all = batch.next == route.next;
            route.next = batch.next;
            route.lost = batch.lost;
            if (looked_at_all && draining_) {
                break;
            }
            if (looked_at_all) {
                co_await events_.changed();
            }
            continue;
        }
        Delivery delivery = make_delivery(route.alert, node_, batch.lost, batch.events);
        const Result<void> told =
            co_await route.child.run(std::move(delivery.arguments), std::move(delivery.input), kMostTime);
        if (stopping_ || (draining_ && !told)) {
            break;
        }
        if (told) {
            route.next = batch.next;
            route.lost = 0;
            route.failures = 0;
            co_await rest(route.alert.interval);
            continue;
        }
        if (++route.failures == 1) {
            events_.emit({Severity::kWarning, kFailedId, "alert " + route.alert.name, told.error().message,
                          "correct the [[alert]]; what it was to tell is in gemel events, and is tried again"});
        }
        const Duration pause = kFirstRetry * (std::int64_t{1} << std::min(route.failures - 1, 6U));
        co_await rest(std::max(route.alert.interval, std::min(pause, kLastRetry)));
    }
}

Task<void> Alerts::rest(Duration time) {
    co_await stop_.wait_until(environment_.clock, environment_.clock.now() + time);
}

}  // namespace gemel
