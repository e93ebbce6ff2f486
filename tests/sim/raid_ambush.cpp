// SPDX-License-Identifier: Apache-2.0
// What a RaidWorld does about the array's events: RW11, and ambushes, which are crashes and stops at the moments after
// a change of the array's state, when they hurt most; relapses, which are losses of a member right after a rebuild;
// also crashes in the middle of a start.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;

namespace {
constexpr Duration kAmbushWithin = 500us;  ///< of the event
constexpr Duration kAfterRebuild = 50ms;   ///< the array turns to another way of writing, some writes later
constexpr Duration kRelapseWithin = 5ms;   ///< of the end of a rebuild
constexpr Duration kNoticed = 20ms;
constexpr Duration kPatience = 60s;  ///< virtual time within which any start has ended
}  // namespace

void RaidWorld::heed(const EventRecord& e) {
    if ((e.id == "log-damaged" || e.id == "journal-damaged") && !errors_expected_ && !crashing_) {
        chronicle_.violation(std::string(e.id) + ": " + e.cause);
    }
    const bool likely = e.id == "member-failed" || ambusher_.one_in(2);
    if (ambushes_ && likely && !crashing_ && !ambush_) {
        const Duration within = e.id == "rebuild-ended" ? kAfterRebuild : kAmbushWithin;
        ambush_ = scheduler_.now() + Duration(ambusher_.below(static_cast<std::uint64_t>(within.count())));
    }
    if (relapses_ && e.id == "rebuild-ended" && !crashing_) {
        relapse_ = scheduler_.now() + Duration(relapser_.below(static_cast<std::uint64_t>(kRelapseWithin.count())));
    }
}

/// Lets time pass. False when an ambush is due.
bool RaidWorld::pass(Duration d) {
    if (!ambushes_ && !relapses_) {
        scheduler_.run_for(d);
        return true;
    }
    if (ambush_ && *ambush_ + kAmbushWithin < scheduler_.now()) {
        ambush_.reset();  // an operator was waited for since
    }
    const auto due = [this](const std::optional<TimePoint>& at) { return at && scheduler_.now() >= *at; };
    const TimePoint end = scheduler_.now() + d;
    while (scheduler_.run_until([&] { return due(ambush_) || due(relapse_); }, end - scheduler_.now())) {
        if (due(ambush_)) {
            return false;
        }
        relapse();
    }
    return true;
}

/// A member loses its power, with what its cache holds, and is there again at once, or later.
void RaidWorld::relapse() {
    relapse_.reset();
    note_members();
    const std::size_t victim = relapser_.below(disks_.size());
    if (!spares(victim) || damaged() > 0 || !chronicle_.next_fault()) {
        return;
    }
    SimDisk& disk = *disks_[victim];
    chronicle_.fault(disk.name() + " loses its power right after a rebuild");
    chronicle_.reached("member lost right after a rebuild");
    disk.power_cut(static_cast<CachePolicy>(relapser_.below(4)));
    lost_[victim] = true;
    doubt_exposed();
    const auto place = static_cast<std::uint32_t>(victim);
    const auto lost = [&] { return array_->status().members[place].state != raid::MemberState::kInSync; };
    if (!scheduler_.run_until(lost, kNoticed)) {
        const Result<void> failed = scheduler_.run(home(), array_->fail_member(place, /*force=*/true));
        static_cast<void>(failed);  // nothing has asked it since
    }
    if (relapser_.one_in(2)) {
        away_[victim] = true;
        disk.revive();
        const Result<void> began = scheduler_.run(home(), array_->rebuild(place, {&disk, ""}));
        static_cast<void>(began);  // the rebuild before may not be over yet
    }
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

/// Starts, and crashes before it is done.
bool RaidWorld::crash_while_opening(bool force) {
    bool back = false;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        back = back || (lost_[i] && !disks_[i]->dead());
    }
    if (told_ && back) {  // with all members there it is the journal, and one may be lost for the next start
        doubt_what_was_written();
    }
    std::optional<Result<std::unique_ptr<raid::Array>>> opened;
    auto body = [](Task<Result<std::unique_ptr<raid::Array>>> task,
                   std::optional<Result<std::unique_ptr<raid::Array>>>& out) -> Task<void> {
        out.emplace(co_await std::move(task));
    };
    scheduler_.start(home(), body(raid::Array::open(environment_.get(), config(force)), opened));
    scheduler_.run_for(Duration(random_.below(4'000'000)));
    if (opened.has_value() && !*opened) {
        return false;  // needs force: the caller finds out
    }
    if (opened.has_value()) {
        note_scrub((**opened)->status());
    }
    const bool power = power_cuts_;
    chronicle_.fault(power ? "power cut while opening" : "kill while opening");
    crashing_ = true;
    for (const auto& disk : disks_) {
        power ? disk->power_cut() : disk->kill_process();
    }
    if (target_) {
        power ? target_->power_cut() : target_->kill_process();
    }
    if (power) {
        environment_.power_lost();
        for (Volume& v : volumes_) {
            v.oracle->power_loss(kLegA, !any_lost() && damaged() == 0);
            v.oracle->serve_from(kLegA);
        }
    }
    CHECK(scheduler_.run_until([&] { return opened.has_value(); }, kPatience));
    if (*opened) {
        array_ = std::move(**opened);
        stop_array();
    }
    crashing_ = false;
    chronicle_.reached("crash while opening");
    revive_disks();
    return true;
}

}  // namespace gemel::sim
