// SPDX-License-Identifier: Apache-2.0
// What the operator of a RaidWorld does with members that work: replaces them, disturbs that, and sees how it ended.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using raid::JobKind;
using raid::MemberState;

bool RaidWorld::replacing() const {
    const std::optional<raid::JobStatus> job = array_ ? array_->status().rebuild : std::nullopt;
    return job && job->kind == JobKind::kReplace;
}

void RaidWorld::begin_replace() {
    const raid::ArrayStatus status = array_->status();
    const std::size_t place = replacer_.below(disks_.size());
    if (!row_->redundant || target_ || lost_[place] || status.rebuild || errors_expected_ ||
        status.members[place].state != MemberState::kInSync || status.state > raid::ArrayState::kDegraded) {
        return;
    }
    target_ = blank_disk(place, ".r" + std::to_string(retired_.size() + 1));
    target_place_ = place;
    target_faulted_ = false;
    chronicle_.say("replace " + disks_[place]->name() + " with " + target_->name());
    const auto began =
        scheduler_.run(home(), array_->replace(static_cast<std::uint32_t>(place), {target_.get(), target_->name()}));
    note_replace();
    const bool spare_first = !began && began.error().code == Errc::kBusy && rebuilding();
    if (!began && !spare_first && !lost_[place] && array_->status().state <= raid::ArrayState::kDegraded &&
        !errors_expected_) {
        chronicle_.violation("a replace does not begin: " + began.error().message);
    }
}

void RaidWorld::disturb_replace() {
    note_replace();
    raid::Job& job = *array_->job(JobKind::kReplace);
    switch (replacer_.below(8)) {
        case 0:
            job.pause(true);
            break;
        case 1:
            job.set_limit((1 + replacer_.below(64)) * kMiB);
            break;
        case 2:
            if (replacer_.one_in(3)) {
                chronicle_.say("cancel");
                job.cancel();
            }
            break;
        case 3:
            // While something is left to copy: the end meets the fault, so that no member inherits it.
            if (const auto status = job.status();
                member_faults_ && target_ && status->done_bytes < status->total_bytes) {
                fail_target();
            }
            break;
        default:
            job.pause(false);
            job.set_limit(0);
            break;
    }
}

void RaidWorld::fail_target() {
    chronicle_.fault(target_->name() + " fails in its replace");
    target_faulted_ = true;
    switch (replacer_.below(4)) {
        case 0:
            target_->die();
            break;
        case 1:
            target_->fail_next_writes(1);
            break;
        case 2:
            target_->fail_next_flushes(1);
            break;
        default:
            target_->hang();
            break;
    }
}

/// Which of the two devices has the place, and whether the other one still matters.
void RaidWorld::note_replace() {
    if (!array_ || !target_) {
        return;
    }
    const raid::ArrayStatus status = array_->status();
    const raid::MemberStatus& member = status.members[target_place_];
    if (member.name == target_->name()) {
        if (member.state == MemberState::kInSync && !lost_[target_place_]) {
            chronicle_.reached("replace finished");
        }
        faulted_[target_place_] = target_faulted_;
        away_[target_place_] = lost_[target_place_];  // what was lost is not the member any more
        named_[target_place_] = nullptr;
        if (replacer_.one_in(2) && !disks_[target_place_]->dead()) {
            named_[target_place_] = disks_[target_place_].get();
        }
        retired_.push_back(std::exchange(disks_[target_place_], std::move(target_)));
        return;
    }
    if (!lost_[target_place_] && !lies(target_place_) && member.state != MemberState::kInSync) {
        chronicle_.violation(member.name + " is not in sync, and only its target failed, if anything");
    }
    // While the place is not in sync the target may yet get it as a spare.
    if (member.replaced_with != target_->name() && member.state == MemberState::kInSync) {
        if (target_faulted_) {
            chronicle_.reached("target failed in a replace");
        }
        retired_.push_back(std::move(target_));
    }
}

}  // namespace gemel::sim
