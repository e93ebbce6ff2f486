// SPDX-License-Identifier: Apache-2.0
// What a RaidWorld does about the array's events: RW9, and ambushes, which are crashes and stops at the moments after a
// change of the array's state, when they hurt most.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;

namespace {
constexpr Duration kAmbushWithin = 500us;  ///< of the event
}

void RaidWorld::heed(const EventRecord& e) {
    if ((e.id == "log-damaged" || e.id == "journal-damaged") && !errors_expected_ && !crashing_) {
        chronicle_.violation(std::string(e.id) + ": " + e.cause);
    }
    const bool likely = e.id == "member-failed" || ambusher_.one_in(2);
    if (ambushes_ && likely && !crashing_ && !ambush_) {
        ambush_ = scheduler_.now() + Duration(ambusher_.below(static_cast<std::uint64_t>(kAmbushWithin.count())));
    }
}

/// Lets time pass. False when an ambush is due.
bool RaidWorld::pass(Duration d) {
    if (!ambushes_) {
        scheduler_.run_for(d);
        return true;
    }
    if (ambush_ && *ambush_ + kAmbushWithin < scheduler_.now()) {
        ambush_.reset();  // an operator was waited for since
    }
    return !scheduler_.run_until([this] { return ambush_ && scheduler_.now() >= *ambush_; }, d);
}

void RaidWorld::end_ambushed() {
    if (ambusher_.one_in(3)) {
        chronicle_.reached("stop right after an event");
        stop_cleanly();
    } else {
        chronicle_.reached("crash right after an event");
        crash(power_cuts_ && (!kills_ || ambusher_.one_in(2)) ? Crash::kPower : Crash::kKill);
    }
}

}  // namespace gemel::sim
