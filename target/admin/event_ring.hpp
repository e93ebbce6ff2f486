// SPDX-License-Identifier: Apache-2.0
// EventRing: the daemon's EventSink. Keeps the last events under sequence numbers, writes them to the log, and wakes
// those who follow.
//
// Invariants:
//   ER1 Sequence numbers start at 1 and have no gaps; a follower that is slower than the ring is told how many it lost.
//   ER2 emit() never waits for a log or a follower: it appends under a short lock and posts one piece of work.
//   ER3 Texts are cut to kMaxText bytes of printable ASCII: names of peers and hosts are in them.
// Threads: emit(), since() and last() on any; attach(), detach(), changed() and wake() on the executor given to
// attach().
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "gemel/event_sink.hpp"
#include "gemel/executor.hpp"
#include "gemel/sync.hpp"
#include "gemel/task.hpp"

namespace gemel::admin {

struct StoredEvent {
    std::uint64_t sequence = 0;
    std::int64_t unix_ns = 0;
    Severity severity = Severity::kInfo;
    std::string id;
    std::string subject;
    std::string cause;
    std::string action;
};

std::string_view severity_name(Severity severity);
/// "2026-11-20T15:00:00.123Z"
std::string format_time(std::int64_t unix_ns);

/// As the admin protocol tells it.
boost::json::object event_json(const StoredEvent& event);

/// Where events are written for people. Called in order, one at a time.
using EventLog = void (*)(const StoredEvent& event);
/// To standard error by spdlog: "2026-11-20T15:00:00.123Z warning pair-severed: volume v1: cause. action".
void log_to_stderr(const StoredEvent& event);

class EventRing final : public EventSink {
  public:
    static constexpr std::size_t kMaxText = 1024;

    /// `now` is the wall clock, in nanoseconds since 1970. `log` may be nullptr.
    EventRing(std::size_t capacity, std::int64_t (*now)(), EventLog log)
        : capacity_(capacity), now_(now), log_(log), wake_(*this) {}

    void emit(EventRecord event) override;

    /// From now on events are logged and followers woken on `home`; before that emit() itself logs.
    void attach(Executor& home);
    /// Undoes it. REQUIRES: no follower waits.
    Task<void> detach();

    /// At most `limit` events from `sequence` on, oldest first. Those that the ring no longer has are left out.
    [[nodiscard]] std::vector<StoredEvent> since(std::uint64_t sequence, std::size_t limit) const;
    /// The last sequence number given; 0 when there was none.
    [[nodiscard]] std::uint64_t last() const;

    /// Until the next event or wake().
    auto changed() { return changed_.wait(); }
    void wake();

  private:
    struct Wake : Work {
        EventRing& ring;
        explicit Wake(EventRing& r) : ring(r) {
            run = [](Work& w) noexcept { static_cast<Wake&>(w).ring.drain(); };
        }
    };
    void drain();
    /// Logs what was not logged yet; only one thread at a time does so.
    void log_new();

    const std::size_t capacity_;
    std::int64_t (*const now_)();
    const EventLog log_;
    mutable std::mutex mutex_;
    std::deque<StoredEvent> events_;
    std::uint64_t last_ = 0;
    std::uint64_t logged_ = 0;
    Executor* home_ = nullptr;
    bool posted_ = false;
    Wake wake_;
    Event changed_;
};

}  // namespace gemel::admin
