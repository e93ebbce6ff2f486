// SPDX-License-Identifier: Apache-2.0
// What the operator of a RaidWorld does with space: extends disks while the array runs and while it does not, has the
// array grow, and volumes after it (raid_world.hpp, RW12).
#include <algorithm>

#include "raid/superblock.hpp"
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using raid::MemberState;

namespace {
constexpr std::uint64_t kSurelyMore = 256;  ///< sectors that are more than a strip and what the checksum map needs
constexpr std::uint64_t kMostSectors = 16384;
}  // namespace

/// What the daemon keeps in its state directory whenever it has looked at its members.
void RaidWorld::note_sizes() {
    for (const auto& disk : disks_) {
        base_.former_sizes.push_back(disk->limits().sectors);
    }
    if (target_) {
        base_.former_sizes.push_back(target_->limits().sectors);
    }
    std::ranges::sort(base_.former_sizes);
    const auto doubles = std::ranges::unique(base_.former_sizes);
    base_.former_sizes.erase(doubles.begin(), doubles.end());
}

/// The least size of those that limit the array.
std::uint64_t RaidWorld::least_size() const {
    std::uint64_t least = disks_.back()->limits().sectors.value;
    for (const auto& disk : disks_) {
        least = row_->layout == raid::Layout::kLinear ? least : std::min(least, disk->limits().sectors.value);
    }
    return least;
}

/// All disks in the places, or all but one. What was beyond their ends holds anything.
void RaidWorld::extend_disks() {
    const std::size_t left_out = grower_.one_in(5) ? grower_.below(disks_.size()) : disks_.size();
    const std::uint64_t by = grower_.one_in(4) ? kSectorsPerBlock * (1 + grower_.below(16))
                                               : kSectorsPerBlock * (kSurelyMore / 4 + grower_.below(256));
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        SimDisk& disk = *disks_[i];
        const std::uint64_t size = disk.limits().sectors.value;
        if (i == left_out || size > kMostSectors) {
            continue;
        }
        base_.former_sizes.push_back(disk.limits().sectors);
        const std::uint64_t more = grower_.one_in(2) ? 0 : alignment_ * grower_.below(64);
        disk.extend(SectorCount(size + round_up(by + more, alignment_)));
        chronicle_.say(disk.name() + " extended from " + std::to_string(size) + " to " +
                       std::to_string(disk.limits().sectors.value));
    }
    extended_ = true;
}

/// In the background, for a stop of some kind to meet it.
void RaidWorld::start_growth() {
    auto body = [](Task<Result<void>> task, std::optional<Result<void>>& out) -> Task<void> {
        out.emplace(co_await std::move(task));
    };
    growth_.reset();
    growing_ = true;
    chronicle_.say("grow, and go on");
    scheduler_.start(home(), body(array_->grow(), growth_));
    scheduler_.run_for(Duration(grower_.below(4'000'000)));
    if (!growth_) {
        chronicle_.reached("grow interrupted");
    }
}

void RaidWorld::end_growth() {
    if (growing_) {
        CHECK(scheduler_.run_until([this] { return growth_.has_value(); }));
        growing_ = false;
        grew_ = true;  // it may have
        grown_to_ = least_size();
    }
}

void RaidWorld::grow() {
    note_replace();
    const raid::ArrayStatus before = array_->status();
    const bool whole = std::ranges::all_of(before.members,
                                           [](const raid::MemberStatus& m) { return m.state == MemberState::kInSync; });
    const bool must = whole && !any_lost() && before.state == raid::ArrayState::kOptimal && !before.resyncing &&
                      !before.rebuild && !errors_expected_ && least_size() >= grown_to_ + kSurelyMore;
    chronicle_.say("grow");
    const Result<void> grown = scheduler_.run(home(), array_->grow());
    const raid::ArrayStatus after = array_->status();
    if (!grown) {
        chronicle_.say("does not grow: " + grown.error().message);
        if (must && !any_lost() && after.state == raid::ArrayState::kOptimal) {
            chronicle_.violation("an array does not grow: " + grown.error().message);
        }
        if (after.state > raid::ArrayState::kDegraded) {  // some members may have the superblock that says it
            grew_ = true;
            grown_to_ = least_size();
        }
        return;
    }
    if (after.sectors <= before.sectors) {
        chronicle_.violation("an array has grown and is no larger");
    }
    chronicle_.reached("array grown");
    if (grew_) {
        chronicle_.reached("array grown again");
    }
    grew_ = true;
    extended_ = false;
    grown_to_ = least_size();
}

/// The last volume gets what is free, or a part of that.
void RaidWorld::grow_volume() {
    const std::uint64_t free = array_->free_sectors().value;
    const std::uint64_t more = grower_.one_in(2) ? free : round_down(grower_.below(free + 1), kSectorsPerBlock);
    if (more == 0) {
        return;
    }
    const Volume& v = volumes_.back();
    const SectorCount size = v.oracle->sectors() + more;
    const Result<void> r = scheduler_.run(home(), array_->resize(v.name, size));
    if (r) {
        chronicle_.reached("volume grown");
    } else if (r.error().code != Errc::kReadOnly && r.error().code != Errc::kNoSpace) {  // 8 extents at most
        chronicle_.violation("a volume does not grow: " + r.error().message);
    }
    note_volume_sizes();
}

/// One that a crash or an error met may have grown.
void RaidWorld::note_volume_sizes() {
    for (const VolumeInfo& info : array_->volumes()) {
        const auto v = std::ranges::find(volumes_, info.name, &Volume::name);
        if (v != volumes_.end() && v->oracle->sectors() < info.sectors) {
            chronicle_.say(info.name + " has " + std::to_string(info.sectors.value) + " sectors now");
            v->oracle->resize(info.sectors);
        } else if (v != volumes_.end() && info.sectors < v->oracle->sectors()) {
            chronicle_.violation("volume " + info.name + " has shrunk");
        }
    }
}

void RaidWorld::operate_growth() {
    if (!grows_) {
        return;
    }
    if (growing_ && growth_) {
        end_growth();
    }
    switch (growing_ ? 3 : grower_.below(4)) {
        case 0:
            if (!extended_) {
                extend_disks();
            }
            break;
        case 1:
            if (!any_lost()) {  // what lies on one that is lost in the first resync cannot be known
                grow();
            }
            break;
        case 2:
            if (grew_ && array_->status().state <= raid::ArrayState::kDegraded) {
                grow_volume();
            }
            break;
        default:
            break;
    }
}

/// As the newest superblock on any disk says, where the disk ends or ended.
std::optional<raid::Geometry> RaidWorld::geometry() const {
    std::optional<raid::Superblock> newest;
    const auto look = [&newest](const SimDisk& disk, Lba lba) {
        const auto slot = disk.snapshot(lba, SectorCount(raid::kSuperblockBytes / kSectorBytes));
        auto sb = raid::decode_superblock(ConstBytes(slot).first<raid::kSuperblockBytes>());
        if (sb && (!newest || sb->epoch > newest->epoch)) {
            newest = *std::move(sb);
        }
    };
    for (const auto& disk : disks_) {
        const SectorCount size = disk->limits().sectors;
        std::vector<SectorCount> ends = base_.former_sizes;
        std::erase_if(ends, [size](SectorCount end) { return end >= size; });
        ends.push_back(size);
        for (const SectorCount end : ends) {
            look(*disk, raid::superblock_slot(end, 0));
            look(*disk, raid::superblock_slot(end, 1));
        }
    }
    return newest ? std::optional(raid::geometry_of(*newest)) : std::nullopt;
}

}  // namespace gemel::sim
