// SPDX-License-Identifier: Apache-2.0
#include "target/admin/event_ring.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <ctime>

namespace gemel::admin {

namespace {

std::string clean(std::string_view text) {
    std::string out(text.substr(0, EventRing::kMaxText));
    std::ranges::replace_if(out, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
    return out;
}

}  // namespace

std::string_view severity_name(Severity severity) {
    constexpr std::array<std::string_view, 3> kNames{"info", "warning", "error"};
    return kNames[static_cast<std::size_t>(severity)];
}

std::string format_time(std::int64_t unix_ns) {
    const std::time_t seconds = unix_ns / 1'000'000'000;
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, unix_ns / 1'000'000 % 1000);
}

boost::json::object event_json(const StoredEvent& event) {
    return {{"sequence", event.sequence},
            {"time", format_time(event.unix_ns)},
            {"severity", severity_name(event.severity)},
            {"id", event.id},
            {"subject", event.subject},
            {"cause", event.cause},
            {"action", event.action}};
}

void log_to_stderr(const StoredEvent& event) {
    static const std::shared_ptr<spdlog::logger> logger = [] {
        auto made = spdlog::stderr_logger_st("gemeld");
        made->set_pattern("%v");
        return made;
    }();
    constexpr std::array kLevels{spdlog::level::info, spdlog::level::warn, spdlog::level::err};
    logger->log(kLevels[static_cast<std::size_t>(event.severity)], "{} {} {}: {}{}{}{}{}", format_time(event.unix_ns),
                severity_name(event.severity), event.id, event.subject, event.cause.empty() ? "" : ": ", event.cause,
                event.action.empty() ? "" : ". ", event.action);
}

void EventRing::emit(EventRecord event) {
    StoredEvent stored{
        0, now_(), event.severity, clean(event.id), clean(event.subject), clean(event.cause), clean(event.action)};
    const std::scoped_lock lock(mutex_);
    stored.sequence = ++last_;
    events_.push_back(std::move(stored));
    if (events_.size() > capacity_) {
        events_.pop_front();
    }
    if (home_ == nullptr) {
        if (log_ != nullptr) {
            log_(events_.back());
        }
        logged_ = last_;
    } else if (!posted_) {
        posted_ = true;
        home_->post(wake_);
    }
}

void EventRing::attach(Executor& home) {
    const std::scoped_lock lock(mutex_);
    home_ = &home;
}

Task<void> EventRing::detach() {
    for (;;) {
        {
            const std::scoped_lock lock(mutex_);
            if (!posted_) {
                home_ = nullptr;
                co_return;
            }
        }
        co_await yield();
    }
}

std::vector<StoredEvent> EventRing::since(std::uint64_t sequence, std::size_t limit) const {
    const std::scoped_lock lock(mutex_);
    const auto first = std::ranges::lower_bound(events_, sequence, {}, &StoredEvent::sequence);
    const auto count = std::min<std::size_t>(limit, static_cast<std::size_t>(events_.end() - first));
    return {first, first + static_cast<std::ptrdiff_t>(count)};
}

std::uint64_t EventRing::last() const {
    const std::scoped_lock lock(mutex_);
    return last_;
}

void EventRing::wake() {
    changed_.set();
    changed_.reset();
}

void EventRing::drain() {
    {
        const std::scoped_lock lock(mutex_);
        posted_ = false;
    }
    log_new();
    wake();
}

void EventRing::log_new() {
    std::uint64_t next = 0;
    {
        const std::scoped_lock lock(mutex_);
        next = logged_ + 1;
        logged_ = last_;
    }
    if (log_ == nullptr) {
        return;
    }
    for (const StoredEvent& event : since(next, capacity_)) {
        log_(event);
    }
}

}  // namespace gemel::admin
