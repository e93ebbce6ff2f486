// SPDX-License-Identifier: Apache-2.0
// Older copies in a RaidWorld: images are taken of its disks while the array runs, and one is put back on its disk
// while the array is not open. For the array that is the loss of the member (RW13).
#include <algorithm>

#include "raid/superblock.hpp"
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using raid::MemberState;

namespace {

constexpr std::size_t kMostCopies = 3;

std::optional<raid::Superblock> newest_on(ConstBytes disk) {
    std::optional<raid::Superblock> newest;
    for (std::uint64_t slot = 0; slot < 2; ++slot) {
        const Lba at = raid::superblock_slot(SectorCount(disk.size() / kSectorBytes), slot);
        const ConstBytes bytes = disk.subspan(at.value * kSectorBytes, raid::kSuperblockBytes);
        auto held = raid::decode_superblock(bytes.first<raid::kSuperblockBytes>());
        if (held && (!newest || held->epoch > newest->epoch)) {
            newest = *std::move(held);
        }
    }
    return newest;
}

}  // namespace

void RaidWorld::take_copy() {
    if (!copies_ || !array_ || !copier_.one_in(2)) {
        return;
    }
    const std::size_t which = copier_.below(disks_.size() + (target_ ? disks_.size() : 0));
    const SimDisk& disk = which < disks_.size() ? *disks_[which] : *target_;
    if (disk.dead() || disk.damaged_sectors() > 0) {
        return;
    }
    std::vector<std::byte> content = disk.snapshot();
    const auto held = newest_on(content);
    if (!held) {
        return;
    }
    if (older_.size() == kMostCopies) {
        older_.erase(older_.begin() + static_cast<std::ptrdiff_t>(copier_.below(kMostCopies)));
    }
    older_.push_back({&disk, held->epoch, held->target, std::move(content)});
}

/// REQUIRES: the level spares it; the array is not open, or about to crash.
void RaidWorld::lose_to_copy(const Copy& copy) {
    chronicle_.fault("a copy of " + copy.disk->name() + " of epoch " + std::to_string(copy.epoch) + " is put back");
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (disks_[i].get() == copy.disk) {
            chronicle_.reached(lost_[i] ? "older copy in a rebuild" : "older copy of a member");
            lost_[i] = true;
            doubt_exposed();
        }
    }
    if (target_ && copy.disk == target_.get()) {
        chronicle_.reached("older copy in a replace");
        target_faulted_ = true;
    }
}

/// Which copy is put back at this stop, or nothing. Nothing tells a copy that was taken since the last change of the
/// array from the member, unless the stop is clean; nor one of the time in which its member failed.
/// REQUIRES: the array has not been destroyed.
const RaidWorld::Copy* RaidWorld::choose_copy(bool clean) {
    const Copy* const copy = find_copy(clean);
    if (copy != nullptr) {
        lose_to_copy(*copy);
    }
    return copy;
}

const RaidWorld::Copy* RaidWorld::find_copy(bool clean) {
    if (!copies_ || older_.empty() || errors_expected_ || !copier_.one_in(2)) {
        return nullptr;
    }
    const raid::ArrayStatus status = array_->status();
    const auto of_target =
        std::ranges::find_if(older_, [&](const Copy& c) { return target_ && c.disk == target_.get(); });
    const Copy& copy =
        clean && of_target != older_.end() ? *of_target : older_[copier_.below(older_.size())];  // it is rare
    const bool known = clean || copy.epoch + 1 < status.epoch;
    // Members that may come back, since nothing was written without them, have not taken any change.
    const bool none_missing = std::ranges::none_of(status.members, [](const raid::MemberStatus& m) {
        return m.state == MemberState::kMissing || m.state == MemberState::kStale;
    });
    const bool resynced = status.resync_done == status.resync_total;
    if (!known || !none_missing || !resynced || damaged() > 0) {
        return nullptr;
    }
    if (target_ && copy.disk == target_.get()) {
        return clean ? &copy : nullptr;  // a crash may have given it the place
    }
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (copy.disk == disks_[i].get()) {
            const bool extended = bytes_of(disks_[i]->limits().sectors) != copy.content.size();
            return !extended && (spares(i) || (lost_[i] && copy.target)) ? &copy : nullptr;
        }
    }
    return nullptr;  // it has no place any more
}

/// REQUIRES: the array is not open, and nothing is under way.
void RaidWorld::put_back(const Copy* copy) {
    if (copy == nullptr) {
        return;
    }
    const auto onto = [&](SimDisk* disk) {
        if (disk == copy->disk) {
            CHECK(bytes_of(disk->limits().sectors) == copy->content.size());
            disk->power_cut(CachePolicy::kDropAll);
            disk->load(copy->content);
            disk->heal();
            disk->revive();
        }
    };
    for (const auto& disk : disks_) {
        onto(disk.get());
    }
    onto(target_.get());
}

}  // namespace gemel::sim
