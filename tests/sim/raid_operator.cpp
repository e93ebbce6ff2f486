// SPDX-License-Identifier: Apache-2.0
// What the operator of a RaidWorld does: rebuilds lost members onto new disks and onto their own, pauses, goes on.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using raid::JobKind;
using raid::MemberState;

namespace {
constexpr Duration kRebuildPatience = 600s;
}

/// Members that a rebuild brought back.
void RaidWorld::note_members() {
    if (!array_) {
        return;
    }
    note_replace();
    const raid::ArrayStatus status = array_->status();
    note_scrub(status);
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        const bool in_sync = status.members[i].state == MemberState::kInSync;
        if (in_sync && named_[i] != nullptr && status.members[i].name == named_[i]->name()) {
            // It came back before the disk that was built in its place.
            std::swap(disks_[i], *std::ranges::find(retired_, named_[i], &std::unique_ptr<SimDisk>::get));
            named_[i] = nullptr;
        }
        away_[i] = lost_[i] && (away_[i] || !in_sync);
        lost_[i] = lost_[i] || (faulted_[i] && !in_sync);
        if (away_[i] && in_sync && !disks_[i]->dead()) {  // one that died at the end of its rebuild is soon seen
            lost_[i] = false;
            away_[i] = false;
            chronicle_.reached("member rebuilt");
            if (resumed_) {
                chronicle_.reached("rebuild finished after crash");
            }
        }
    }
}

/// Of the members that the next start has: also of one that is lost unnoticed.
void RaidWorld::note_bad_sectors() {
    const raid::ArrayStatus status = array_->status();
    const auto g = grew_ ? geometry() : std::nullopt;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        const bool counts = !lost_[i] || status.members[i].state == MemberState::kInSync;
        const std::uint64_t data = g ? g->data_of(static_cast<std::uint32_t>(i)) : 0;
        for (const std::uint64_t sector : disks_[i]->latent()) {
            const std::optional<std::uint64_t> at = g ? g->added.data_at(sector, data) : sector;
            if (counts && at) {
                note_bad_stripe(*at / (base_.strip_bytes / kSectorBytes));
            }
        }
    }
}

/// The volumes lie one behind the other.
void RaidWorld::note_bad_stripe(std::uint64_t stripe) {
    met_damage_ = true;
    std::uint64_t begin = 0;
    for (Volume& v : volumes_) {
        const std::uint64_t first = std::max(stripe * stripe_sectors_, begin);
        const std::uint64_t end = std::min((stripe + 1) * stripe_sectors_, begin + v.oracle->sectors().value);
        if (first < end) {
            v.bad.add(first - begin, end - begin);
        }
        begin += v.oracle->sectors().value;
    }
}

/// As large as the one in the place.
std::unique_ptr<SimDisk> RaidWorld::blank_disk(std::size_t place, const std::string& suffix) {
    SimDiskOptions o{.name = "disk" + std::to_string(place) + suffix};
    o.sectors = disks_[place]->limits().sectors;
    base_.former_sizes.push_back(o.sectors);
    o.alignment_sectors = alignment_;
    o.volatile_cache = disks_[place]->limits().volatile_cache;
    return std::make_unique<SimDisk>(scheduler_, operator_.next(), o);
}

/// A blank disk in the place; at random the config goes on naming the old one.
SimDisk& RaidWorld::fresh_disk(std::size_t place) {
    std::unique_ptr<SimDisk> fresh = blank_disk(place, "." + std::to_string(retired_.size() + 1));
    retired_.push_back(std::exchange(disks_[place], std::move(fresh)));
    named_[place] = nullptr;
    if (operator_.one_in(2) && !retired_.back()->dead()) {
        named_[place] = retired_.back().get();
        chronicle_.reached("rebuild onto a spare that the config does not place");
    }
    return *disks_[place];
}

void RaidWorld::begin_rebuild() {
    const raid::ArrayStatus status = array_->status();
    const std::size_t place = operator_.below(disks_.size());
    if (!lost_[place] || status.members[place].state == MemberState::kInSync || status.rebuild) {
        return;
    }
    SimDisk* const named = named_[place];
    away_[place] = true;
    faulted_[place] = false;
    SimDisk* disk = disks_[place].get();
    const bool own = operator_.one_in(3);
    const bool silent = disk->hangs() || status.members[place].unanswered > 0;
    if (own) {
        disk->answer();
        disk->revive();
        disk->set_full(false);
        chronicle_.reached("stale member rebuilt");
    } else {
        disk = &fresh_disk(place);
    }
    chronicle_.say("rebuild onto " + disk->name());
    const auto began = scheduler_.run(home(), array_->rebuild(static_cast<std::uint32_t>(place), {disk, ""}));
    if (own && !began && (silent || began.error().code == Errc::kBusy)) {
        chronicle_.reached("silent member refused");
    } else if (own && !began && lies(place)) {
        chronicle_.reached("member that lost its superblocks in silence refused");  // its data might be anybody's
    } else if (!began && !rebuilding() && array_->status().state <= raid::ArrayState::kDegraded && !errors_expected_) {
        chronicle_.violation("a rebuild does not begin: " + began.error().message);
    }
    if (!own && !began) {
        note_quicker_spare(place, named);
    }
    resumed_ = false;
}

/// A rebuild onto the disk that fresh_disk() put into the place was refused: another device may have the place. If that
/// was the target of a replace, note_replace() sees it.
void RaidWorld::note_quicker_spare(std::size_t place, SimDisk* named) {
    const std::string holder = array_->status().members[place].name;
    if (holder == retired_.back()->name() || (target_ && holder == target_->name()) ||
        (named != nullptr && holder == named->name())) {
        std::swap(disks_[place], retired_.back());
        named_[place] = named;
        chronicle_.reached("spare, or the old member, quicker than the operator");
    }
}

void RaidWorld::disturb_rebuild() {
    raid::Job& job = *array_->job(JobKind::kRebuild);
    const std::uint32_t member = job.status() ? job.status()->member : 0;
    switch (operator_.below(6)) {
        case 0:
            job.pause(true);
            break;
        case 1:
            job.set_limit((1 + operator_.below(64)) * kMiB);
            break;
        case 2:
            if (operator_.one_in(3)) {
                chronicle_.say("cancel");
                job.cancel();
            }
            break;
        case 3:
            if (member_faults_ && lost_[member]) {
                chronicle_.fault(disks_[member]->name() + " fails in its rebuild");
                operator_.one_in(2) ? disks_[member]->die() : disks_[member]->fail_next_writes(1);
                faulted_[member] = true;
            }
            break;
        default:
            job.pause(false);
            break;
    }
}

/// Hosts work meanwhile, and for some time after it: then the array writes in another way again.
void RaidWorld::see_rebuild_through() {
    raid::Job& job = *array_->job(JobKind::kRebuild);
    job.pause(false);
    job.set_limit(0);
    const TimePoint due = scheduler_.now() + 300ms;
    std::uint64_t after = 1 + patience_.below(6);
    for (bool more = true; more && after > 0 && scheduler_.now() < due;) {
        after -= rebuilding() ? 0 : 1;
        for (Volume& v : volumes_) {
            v.host->add_work(static_cast<std::uint32_t>(5 + patience_.below(10)));
        }
        more = pass(5ms);
    }
}

void RaidWorld::operate() {
    note_members();
    take_copy();
    if (chronicle_.without("operator")) {
        return;
    }
    if (replacing()) {
        disturb_replace();
    } else if (patient_ && any_lost()) {
        for (int tries = 0; tries < 8 && !rebuilding(); ++tries) {
            begin_rebuild();
        }
        if (rebuilding()) {
            see_rebuild_through();
        }
    } else if (rebuilding()) {
        disturb_rebuild();
    } else if (replaces_ && !target_ && replacer_.one_in(2)) {
        begin_replace();
    } else if (any_lost()) {
        begin_rebuild();
    }
    operate_scrub();
    operate_growth();
}

/// At the end: everything lost gets a new disk.
bool RaidWorld::rebuild_all() {
    for (std::size_t i = 0; i < 3 * disks_.size(); ++i) {
        raid::Job& job = *array_->job(JobKind::kRebuild);
        job.pause(false);
        job.set_limit(0);
        if (!scheduler_.run_until([&] { return !rebuilding(); }, kRebuildPatience)) {
            chronicle_.violation("the rebuild does not end");
            return false;
        }
        note_members();
        const auto lost = std::ranges::find(lost_, true);
        if (lost == lost_.end() || !row_->redundant || array_->status().state > raid::ArrayState::kDegraded) {
            return true;
        }
        const auto place = static_cast<std::uint32_t>(lost - lost_.begin());
        if (array_->status().members[place].state == MemberState::kInSync) {
            return true;  // it was to fail and nothing has asked it since
        }
        SimDisk* const named = named_[place];
        const auto began = scheduler_.run(home(), array_->rebuild(place, {&fresh_disk(place), ""}));
        if (!began) {
            note_quicker_spare(place, named);
        }
        if (!began && !(began.error().code == Errc::kBusy && rebuilding())) {  // else a spare was there first
            chronicle_.violation("the last rebuild does not begin: " + began.error().message);
            return false;
        }
    }
    chronicle_.violation("members cannot be rebuilt");
    return false;
}

}  // namespace gemel::sim
