// SPDX-License-Identifier: Apache-2.0
// The poll loop of loadgen; see runner.hpp.
#include "tools/loadgen/runner.hpp"

#include <poll.h>

#include <algorithm>
#include <random>

#include "gemel/check.hpp"
#include "gemel/units.hpp"
#include "tools/loadgen/stamp.hpp"

namespace gemel::loadgen {
namespace {

constexpr auto kRetryPause = std::chrono::milliseconds(10);
constexpr auto kReconnectPause = std::chrono::milliseconds(100);
constexpr auto kConnectLimit = std::chrono::seconds(5);
constexpr auto kLogoutLimit = std::chrono::milliseconds(500);
constexpr std::size_t kProblemsKept = 10;

double seconds_between(TimePoint from, TimePoint to) {
    return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Runner::Runner(const Options& options, TargetAddress target, Ledger* ledger, const volatile std::sig_atomic_t& stop)
    : options_(options), target_(std::move(target)), ledger_(ledger), stop_requested_(stop) {
    for (std::uint32_t i = 0; i < options_.sessions; ++i) {
        sessions_.push_back(std::make_unique<Session>(*this, options_, target_, i));
    }
    down_since_.resize(options_.sessions, SteadyClock::now());
}

RunResult Runner::run() {
    for (const auto& session : sessions_) {
        session->connect();
    }
    while (!abandon_ && !(ending_ && idle())) {
        turn();
    }
    const TimePoint end = SteadyClock::now();
    settle_at_end();
    if (workload_ != nullptr) {
        const double warmup = std::min(options_.warmup_seconds, seconds_between(started_, end));
        result_.seconds = std::max(seconds_between(started_, last_counted_) - warmup, 1e-9);
    }
    for (const auto& session : sessions_) {
        session->log_out(kLogoutLimit);
    }
    return std::move(result_);
}

void Runner::turn() {
    const TimePoint now = SteadyClock::now();
    for (const auto& session : sessions_) {
        maintain(*session, now);
    }
    if (workload_ != nullptr && !options_.check &&
        seconds_between(started_, now) >= options_.seconds + options_.warmup_seconds) {
        ending_ = true;
    }
    if (stop_requested_ != 0) {
        ending_ = true;
        abandon_ = abandon_ || workload_ == nullptr;
    }
    if (workload_ != nullptr && waiting_ > 0 && seconds_between(last_end_, now) > options_.give_up_seconds) {
        problem(ExitCode::kConnection,
                "no command was answered for " + std::to_string(options_.give_up_seconds) + " s");
        abandon_ = true;  // N2
    }
    if (!abandon_ && !(ending_ && idle())) {
        wait_for_events();
    }
}

void Runner::maintain(Session& session, TimePoint now) {
    switch (session.state()) {
        case Session::State::kReady:
            for (Slot& slot : session.slots()) {
                if (session.state() == Session::State::kReady && slot.operation && !slot.in_flight &&
                    slot.not_before <= now) {
                    session.submit(slot);
                }
            }
            break;
        case Session::State::kConnecting:
            if (now - session.connect_started() > kConnectLimit) {
                on_lost(session, "login was not answered within 5 s");
                session.disconnect();
            }
            break;
        case Session::State::kLost:
            session.disconnect();
            break;
        case Session::State::kIdle:
            if (now - session.connect_started() > kReconnectPause) {
                session.connect();
            }
            break;
    }
}

void Runner::wait_for_events() {
    std::vector<pollfd> entries;
    std::vector<Session*> order;
    int timeout_ms = waiting_retries_ ? 5 : 100;
    waiting_retries_ = false;
    for (const auto& session : sessions_) {
        if (session->state() == Session::State::kLost) {
            timeout_ms = 0;
        }
        if (session->descriptor() >= 0) {
            entries.push_back(
                {.fd = session->descriptor(), .events = static_cast<short>(session->wanted_events()), .revents = 0});
            order.push_back(session.get());
        } else {
            timeout_ms = std::min(timeout_ms, 20);
        }
    }
    if (::poll(entries.data(), entries.size(), timeout_ms) < 0) {
        return;  // a signal; the next turn looks at the stop flag
    }
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i]->service(entries[i].revents);
    }
}

bool Runner::begin_workload(const Session& session) {
    result_.capacity_bytes = session.sectors() * kSectorBytes;
    if (ledger_ != nullptr) {
        if (ledger_->volume_tag() == 0) {
            std::random_device device;
            const std::uint64_t tag = (std::uint64_t{device()} << 32U) | device() | 1U;
            *ledger_ = Ledger(tag, session.sectors());
        }
        ledger_->grow(session.sectors());
        if (options_.check && ledger_->sectors() > session.sectors()) {
            problem(ExitCode::kVerification, "the LUN is smaller than when it was written");
            return false;
        }
    }
    workload_ = std::make_unique<Workload>(options_, session.sectors(), ledger_);
    std::string why = workload_->why_unusable();
    if (why.empty() && options_.block_bytes % session.block_bytes() != 0) {
        why = "--block-size must be a multiple of the LUN's block size, " + std::to_string(session.block_bytes());
    }
    if (!why.empty()) {
        problem(ExitCode::kUsage, why);
        workload_.reset();
        return false;
    }
    started_ = last_end_ = last_counted_ = SteadyClock::now();
    return true;
}

void Runner::on_ready(Session& session) {
    down_since_[session.index()].reset();
    if (workload_ == nullptr) {
        if (!begin_workload(session)) {
            abandon_ = true;
            return;
        }
    }
    for (Slot& slot : session.slots()) {
        if (slot.operation) {
            slot.not_before = {};
            if (session.state() == Session::State::kReady) {
                session.submit(slot);
            }
        } else {
            refill(slot);
        }
    }
}

void Runner::on_lost(Session& session, const std::string& why) {
    std::optional<TimePoint>& down_since = down_since_[session.index()];
    const auto has_work = [](const Slot& slot) { return slot.operation.has_value(); };
    if (ending_ && std::ranges::none_of(session.slots(), has_work)) {
        return;
    }
    const TimePoint now = SteadyClock::now();
    if (!down_since) {
        down_since = now;
        ++result_.reconnects;
    }
    if (options_.reconnect_seconds <= 0 || seconds_between(*down_since, now) > options_.reconnect_seconds) {
        problem(ExitCode::kConnection, "session " + std::to_string(session.index()) + ": " + why);
        abandon_ = true;  // N2
    }
}

void Runner::refill(Slot& slot) {
    Session& session = *slot.session;
    if (ending_ || abandon_ || session.state() != Session::State::kReady) {
        return;
    }
    slot.operation = workload_->next(session.index());
    if (!slot.operation) {
        ending_ = true;
        return;
    }
    const Operation& op = *slot.operation;
    if (!op.read && ledger_ != nullptr) {
        for (std::uint64_t i = 0; i < op.sectors; ++i) {
            write_stamp(slot.data.subspan(i * kSectorBytes, kSectorBytes), {.volume_tag = ledger_->volume_tag(),
                                                                            .lba = op.lba + i,
                                                                            .sequence = op.sequence,
                                                                            .writer = session.index()});
        }
    }
    slot.first_sent = SteadyClock::now();
    slot.not_before = {};
    if (waiting_++ == 0) {
        last_end_ = slot.first_sent;
    }
    session.submit(slot);
}

void Runner::on_done(Slot& slot, Outcome outcome, const std::string& why) {
    const TimePoint now = SteadyClock::now();
    if (outcome == Outcome::kRetry) {
        ++result_.retries;
        slot.not_before = now + kRetryPause;
        waiting_retries_ = true;
        if (seconds_between(slot.first_sent, now) > options_.give_up_seconds) {
            problem(ExitCode::kIoError, "a command was put off for " + std::to_string(options_.give_up_seconds) + " s");
            abandon_ = true;
        }
        return;
    }
    result_.longest_stall = std::max(result_.longest_stall, seconds_between(last_end_, now));
    result_.longest_wait = std::max(result_.longest_wait, seconds_between(slot.first_sent, now));
    last_end_ = now;
    if (outcome == Outcome::kFailed) {
        problem(ExitCode::kIoError, why);
        ending_ = true;
        if (!slot.operation->read && ledger_ != nullptr) {
            ledger_->possible(slot.operation->lba, slot.operation->sectors, slot.operation->sequence);
        }
    } else {
        finish(slot);
    }
    workload_->release(*slot.operation);
    slot.operation.reset();
    --waiting_;
    refill(slot);
}

void Runner::finish(Slot& slot) {
    const Operation& op = *slot.operation;
    if (ledger_ != nullptr) {
        if (op.read) {
            verify(slot);
        } else {
            ledger_->acknowledged(op.lba, op.sectors, op.sequence);  // N1
        }
    }
    if (seconds_between(started_, last_end_) < options_.warmup_seconds) {
        return;
    }
    last_counted_ = last_end_;
    DirectionResult& direction = op.read ? result_.reads : result_.writes;
    const auto taken = std::chrono::duration_cast<std::chrono::nanoseconds>(last_end_ - slot.first_sent);
    direction.latency.add(static_cast<std::uint64_t>(taken.count()));
    direction.bytes += op.sectors * kSectorBytes;
}

void Runner::verify(const Slot& slot) {
    const Operation& op = *slot.operation;
    for (std::uint64_t i = 0; i < op.sectors; ++i) {
        if (!ledger_->owes(op.lba + i, 1)) {
            continue;
        }
        ++result_.sectors_checked;
        const std::string wrong = ledger_->check(op.lba + i, slot.data.subspan(i * kSectorBytes, kSectorBytes));
        if (!wrong.empty()) {
            ++result_.wrong_sectors;
            problem(ExitCode::kVerification, wrong);
        }
    }
}

void Runner::settle_at_end() {
    const TimePoint now = SteadyClock::now();
    for (const auto& session : sessions_) {
        for (Slot& slot : session->slots()) {
            if (!slot.operation) {
                continue;
            }
            ++result_.unanswered;
            result_.longest_wait = std::max(result_.longest_wait, seconds_between(slot.first_sent, now));
            result_.longest_stall = std::max(result_.longest_stall, seconds_between(last_end_, now));
            const Operation& op = *slot.operation;
            if (!op.read && ledger_ != nullptr) {
                ledger_->possible(op.lba, op.sectors, op.sequence);  // N1
            }
        }
    }
}

void Runner::problem(ExitCode code, std::string text) {
    // Wrong data outweighs everything else that may have happened.
    if (result_.exit_code == ExitCode::kGood || code == ExitCode::kVerification) {
        result_.exit_code = code;
    }
    if (result_.problems.size() < kProblemsKept) {
        result_.problems.push_back(std::move(text));
    }
}

bool Runner::idle() const {
    return waiting_ == 0;
}

}  // namespace gemel::loadgen
