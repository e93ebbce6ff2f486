// SPDX-License-Identifier: Apache-2.0
// Alerts: events that are told to people and to other systems: each [[alert]] of the configuration runs a program,
// posts to a web address, or sends mail.
//
// Invariants:
//   AL1 An alert is told of events in order, one delivery at a time, each of at most kMostAtOnce events and, but for
//       the first, kMostBytes of their texts: curl takes no line of more than 100 KiB, quoted. The same ones come
//       again, at growing intervals, until a delivery succeeds; how many the ring dropped meanwhile is told. What is
//       not told when the daemon ends never is: the ring is in memory.
//   AL2 A delivery takes kMostTime at most, and the next one begins no sooner than the alert's `interval` after its
//       end, so that a storm of events is no storm of programs.
//   AL3 That an alert fails is an event, once until it works again, of which no alert is told.
// Threads: the main processor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gemel/environment.hpp"
#include "gemel/sync.hpp"
#include "target/admin/event_ring.hpp"
#include "target/config/config.hpp"
#include "target/runtime/child_process.hpp"

namespace gemel {

class Alerts {
  public:
    static constexpr std::size_t kMostAtOnce = 100;
    static constexpr std::size_t kMostBytes = 16 * kKiB;
    static constexpr Duration kMostTime = std::chrono::seconds(30);
    static constexpr Duration kGrace = std::chrono::seconds(5);

    Alerts(Environment& environment, admin::EventRing& events, std::string node, std::vector<config::Alert> alerts);
    /// From the oldest event that the ring has.
    void start();
    /// Tells what there is, within kGrace; then ends what still runs.
    Task<void> stop();

    /// How events are told by an alert of this kind.
    struct Delivery {
        std::vector<std::string> arguments;
        std::string input;
    };
    static Delivery make_delivery(const config::Alert& alert, const std::string& node, std::uint64_t lost,
                                  const std::vector<admin::StoredEvent>& events);

  private:
    struct GraceTimer : Timer {
        Alerts* alerts = nullptr;
    };
    struct Route {
        Route(config::Alert a, Clock& clock) : alert(std::move(a)), child(clock) {}
        config::Alert alert;
        ChildProcess child;
        std::uint64_t next = 1;  ///< event
        std::uint64_t lost = 0;  ///< events before it that the ring dropped, not yet told
        unsigned failures = 0;   ///< of deliveries, one after another
    };
    /// What a route is told next.
    struct Batch {
        std::vector<admin::StoredEvent> events;
        std::uint64_t lost = 0;
        std::uint64_t next = 0;
    };
    [[nodiscard]] Batch batch_for(const Route& route) const;
    Task<void> serve(Route& route);
    void give_up();
    Task<void> rest(Duration time);

    Environment& environment_;
    admin::EventRing& events_;
    const std::string node_;
    std::vector<std::unique_ptr<Route>> routes_;
    bool draining_ = false;  ///< what is told now is the last
    bool stopping_ = false;
    Event stop_;  ///< draining
    Gate gate_;
};

}  // namespace gemel
