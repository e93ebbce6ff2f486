// SPDX-License-Identifier: Apache-2.0
// Scrubs of a RaidWorld (raid_world.hpp, RW9): begun, disturbed and cut short by its operator, and one at the end, also
// of what rotted unnoticed.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using raid::JobKind;
using raid::ScrubMode;
using End = raid::ScrubReport::End;

namespace {
constexpr Duration kPatience = 60s;
constexpr Duration kScrubPatience = 600s;
}  // namespace

void RaidWorld::note_event(const EventRecord& e) {
    chronicle_.say("  event " + std::string(e.id) + ": " + e.subject + ": " + e.cause);
    if (e.id == "rebuild-started" && e.cause.contains("it came back")) {
        chronicle_.reached("member catches up");
    }
    if (e.id == "scrub-mismatch" && rotten_.empty() && !liar_ && !rots_) {
        chronicle_.violation("a scrub found a mismatch: " + e.cause);
    }
}

std::uint64_t RaidWorld::writes() const {
    std::uint64_t n = 0;
    for (const Volume& v : volumes_) {
        n += v.host->writes();
    }
    return n;
}

/// What of the scrub the next start must go on with.
void RaidWorld::note_scrub(const raid::ArrayStatus& status) {
    const auto& report = status.scrub_report;
    const bool under_way = status.scrub && status.scrub->done_bytes < status.scrub->total_bytes;
    // The superblock that says it is over may be on a member of an array that turned read-only over it.
    const bool may_be_over = status.state == raid::ArrayState::kReadOnly;
    scrub_goes_on_ = report && !scrub_cancelled_ && (under_way || (report->end == End::kInterrupted && !may_be_over));
    if (!report) {
        return;
    }
    if (report->end == End::kFinished) {
        chronicle_.reached("scrub finished");
        if (writes() > scrub_began_at_) {
            chronicle_.reached("scrub beside writes of hosts");
        }
        if (scrub_resumed_) {
            chronicle_.reached("scrub interrupted by a crash and resumed");
        }
    }
    if (report->end == End::kCancelled) {
        chronicle_.reached("scrub cancelled");
    }
    if (report->counts.rewritten > 0) {
        chronicle_.reached("latent error rewritten by a scrub");
    }
    if (status.scrub && status.scrub->waiting && status.resyncing) {
        chronicle_.reached("scrub waited for a resync");
    }
}

void RaidWorld::check_scrub_goes_on(const raid::ArrayStatus& status) {
    if (scrub_goes_on_ && !status.scrub_report && (row_->redundant || status.checksums.on)) {
        chronicle_.violation("a scrub that a restart cut short does not go on");
    }
    scrub_resumed_ = unclean_ && scrub_goes_on_;
    scrub_cancelled_ = false;
}

bool RaidWorld::begin_scrub(ScrubMode mode) {
    const raid::ArrayStatus before = array_->status();
    chronicle_.say(mode == ScrubMode::kRepair ? "scrub, repairing" : "scrub");
    scrub_began_at_ = writes();
    const auto began = scheduler_.run(home(), array_->scrub(mode));
    scrub_resumed_ = false;
    scrub_cancelled_ = false;
    const bool may = before.state == raid::ArrayState::kOptimal && !before.resyncing && !before.scrub;
    if (!began && may && array_->status().state == raid::ArrayState::kOptimal && !array_->status().resyncing) {
        chronicle_.violation("a scrub does not begin: " + began.error().message);
    }
    return began.has_value();
}

void RaidWorld::disturb_scrub() {
    raid::Job& job = *array_->job(JobKind::kScrub);
    switch (scrubber_.below(8)) {
        case 0:
            job.pause(true);
            break;
        case 1:
            job.set_limit((1 + scrubber_.below(64)) * kMiB);
            break;
        case 2:
            if (scrubber_.one_in(3)) {
                chronicle_.say("cancel of the scrub");
                scrub_cancelled_ = true;
                job.cancel();
            }
            break;
        default:
            job.pause(false);
            break;
    }
}

void RaidWorld::operate_scrub() {
    if (!scrubs_ || !(row_->redundant || base_.checksums)) {
        return;
    }
    if (array_->status().scrub) {
        disturb_scrub();
    } else if (scrubber_.one_in(2)) {
        begin_scrub(scrubber_.one_in(2) ? ScrubMode::kRepair : ScrubMode::kCheck);
    }
}

bool RaidWorld::end_scrub() {
    raid::Job& job = *array_->job(JobKind::kScrub);
    job.pause(false);
    job.set_limit(0);
    const auto held = [&] { return array_->status().state == raid::ArrayState::kDegraded; };
    scheduler_.run_until([&] { return !job.running() || held(); }, kScrubPatience);
    if (job.running() && held() && !rebuild_all()) {  // a member failed in it, and without it nothing can be compared
        return false;
    }
    if (!scheduler_.run_until([&] { return !job.running(); }, kScrubPatience)) {
        chronicle_.violation("the scrub does not end");
        return false;
    }
    note_scrub(array_->status());
    return true;
}

/// Bits of some blocks flip, no two in one stripe, where the redundancy that is left tells what was there. Their
/// addresses on the members.
void RaidWorld::let_rot() {
    const raid::ArrayStatus status = array_->status();
    const std::uint64_t strip = base_.strip_bytes / kSectorBytes;
    raid::Geometry g{row_->layout, static_cast<std::uint32_t>(disks_.size()), strip, 0};
    g.member_sectors = status.sectors.value / g.data_members();
    const bool any = row_->parities() > 1 || (row_->layout == raid::Layout::kMirrored && disks_.size() > 2);
    rotted_ = true;
    const auto grown = grew_ ? geometry() : std::nullopt;
    std::set<std::uint64_t> stripes;
    for (std::uint64_t n = 1 + scrubber_.below(4); n > 0; --n) {
        const Lba at(scrubber_.below(g.member_sectors));
        const StripeIndex stripe(at.value / strip);
        std::uint32_t victim = static_cast<std::uint32_t>(scrubber_.below(disks_.size())) | 1U;
        victim = any                    ? victim % static_cast<std::uint32_t>(disks_.size())
                 : row_->parities() > 0 ? g.parity_member(stripe)
                                        : std::min(victim, static_cast<std::uint32_t>(disks_.size()) - 1);
        if (stripes.insert(stripe.value).second) {
            chronicle_.fault(disks_[victim]->name() + " rots at " + std::to_string(at.value));
            disks_[victim]->rot(grown ? grown->device_lba(victim, at) : at);
            rotten_.insert({victim, at.value / kSectorsPerBlock});
        }
    }
}

/// What a scrub says of what rotted: all of it, at its address, and whose it is where that can be known.
void RaidWorld::check_rot_found(const raid::ScrubReport& report) {
    const bool tells = row_->parities() > 1 || (row_->layout == raid::Layout::kMirrored && disks_.size() > 2);
    std::set<std::pair<std::uint32_t, std::uint64_t>> found;
    for (const raid::ScrubFault& fault : report.faults) {
        const auto rotten = std::ranges::find_if(
            rotten_, [&](const auto& r) { return r.second == fault.member_lba.value / kSectorsPerBlock; });
        const bool right = rotten != rotten_.end() && fault.sectors.value == kSectorsPerBlock &&
                           (fault.member ? *fault.member == rotten->first : !tells);
        if (right) {
            found.insert(*rotten);
        } else {
            chronicle_.violation("a scrub names blocks that did not rot, at " + std::to_string(fault.member_lba.value));
        }
    }
    if (found != rotten_ || report.counts.repaired != rotten_.size()) {
        chronicle_.violation("a scrub found " + std::to_string(found.size()) + " and repaired " +
                             std::to_string(report.counts.repaired) + " of " + std::to_string(rotten_.size()) +
                             " rotten blocks");
    }
    chronicle_.reached("rotten blocks repaired by a scrub");
}

/// RW9, at the end: nothing is found but what rotted, and that only once.
bool RaidWorld::scrub_all() {
    const raid::ArrayStatus status = array_->status();
    if (!(row_->redundant || base_.checksums) || status.state != raid::ArrayState::kOptimal) {
        return true;
    }
    if (!end_scrub() || !begin_scrub(ScrubMode::kCheck) || !end_scrub()) {
        return chronicle_.result.violations.empty();
    }
    const raid::ArrayStatus after = array_->status();
    const bool whole = after.scrub_report->counts.untrusted + after.scrub_report->counts.unreadable +
                           after.scrub_report->counts.unchecked ==
                       0;
    if (!row_->redundant) {
        chronicle_.reached("single copies scrubbed");
        return true;
    }
    if (!whole || after.state != raid::ArrayState::kOptimal || any_lost() || damaged() > 0 || !scrubs_ || liar_) {
        return true;
    }
    note_lies();
    let_rot();
    if (!begin_scrub(ScrubMode::kRepair) || !end_scrub()) {
        return false;
    }
    check_rot_found(*array_->status().scrub_report);
    rotten_.clear();
    return begin_scrub(ScrubMode::kCheck) && end_scrub();
}

bool RaidWorld::resync_and_scrub_all() {
    if (!scheduler_.run_until([&] { return !resyncing(); }, kPatience)) {
        chronicle_.violation("the resync does not end");
        return false;
    }
    return scrub_all();
}

}  // namespace gemel::sim
