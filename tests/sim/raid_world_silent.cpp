// SPDX-License-Identifier: Apache-2.0
// RaidWorld and silent corruption (raid_world.hpp, RW8): one member acknowledges writes that it loses, puts elsewhere
// or damages, from when the array is in sync on. Such a history has no crashes, which would make what the journal lists
// count as it lies, and nothing else that takes redundancy away. Without redundancy blocks rot instead, with everything
// else as there: a member that loses writes may lose the only record of the journal, too.
// Also which histories go without checksums.
#include <algorithm>

#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

namespace {
constexpr std::uint64_t kPlainOneIn = 5;
}

/// Of levels without redundancy: on or off, or now on and now off.
void RaidWorld::choose_single_checksums() {
    if (row_->redundant) {
        return;
    }
    base_.checksums = !chronicle_.without("single-checksums") && !single_.one_in(4);
    base_.checksum_cache_bytes = single_.one_in(2) ? 16 * kKiB : raid::kDefaultChecksumCache;
    rots_ = base_.checksums && single_.one_in(3);
    switches_ = base_.checksums && !rots_ && single_.one_in(3);
    if (rots_) {
        power_cuts_ = false;
        kills_ = false;
        beyond_ = false;
        slowness_ = true;
    }
}

/// Redundancy without checksums: writes are of whatever sectors the hosts want. Off for good, or now off and now on.
void RaidWorld::choose_plain() {
    if (!plain_.one_in(kPlainOneIn) || !row_->redundant || liar_ || chronicle_.without("no-checksums")) {
        return;
    }
    base_.checksums = false;
    switches_ = plain_.one_in(3);
    chronicle_.reached("redundancy without checksums");
}

void RaidWorld::switch_checksums() {
    if (switches_ && single_.one_in(3)) {
        base_.checksums = !base_.checksums;
        chronicle_.say(base_.checksums ? "checksums on" : "checksums off");
        if (row_->redundant) {
            chronicle_.reached("checksums of redundancy switched");
        }
    }
}

/// Bits flip of blocks that were written, in the peace that follows the hosts' commands.
void RaidWorld::rot_single_copies() {
    if (!rots_ || !wait_hosts(std::chrono::seconds(180))) {
        return;
    }
    const std::optional<raid::Geometry> g = geometry();
    std::uint64_t begin = 0;  // of the volume, which lies behind those before it
    for (Volume& v : volumes_) {
        const std::vector<Extent> written = v.oracle->written_since(0);
        for (std::uint64_t n = written.empty() ? 0 : single_.below(3); n > 0; --n) {
            const Extent& e = written[single_.below(written.size())];
            const std::uint64_t sector = e.lba.value + single_.below(e.sectors.value);
            const raid::Place at = g->locate(Lba(begin + sector));
            chronicle_.fault(disks_[at.member]->name() + " rots at " + std::to_string(at.member_lba.value));
            disks_[at.member]->rot(at.member_lba);
            const std::uint64_t block = round_down(sector, kSectorsPerBlock);
            v.bad.add(block, block + kSectorsPerBlock);
            rotted_ = true;
        }
        begin += v.oracle->sectors().value;
    }
    if (array_->status().checksums.found > 0) {
        chronicle_.reached("single copy rotten and found");
    }
}

void RaidWorld::choose_liar() {
    if (!row_->redundant || !silent_.one_in(4)) {
        return;
    }
    liar_ = disks_[silent_.below(disks_.size())].get();
    power_cuts_ = false;
    kills_ = false;
    member_faults_ = false;
    media_faults_ = false;
    beyond_ = false;
    slowness_ = true;  // one whose liar was exchanged has other faults then
    base_.checksum_cache_bytes = silent_.one_in(2) ? 16 * kKiB : raid::kDefaultChecksumCache;
}

void RaidWorld::begin_lying() {
    if (liar_ && !chronicle_.without("lies") &&
        scheduler_.run_until([&] { return !resyncing(); }, std::chrono::seconds(60))) {
        const auto rate = [this] { return silent_.one_in(3) ? 0 : static_cast<std::uint32_t>(4 + silent_.below(200)); };
        const std::uint32_t lost = rate();
        (*liar_)->set_silent_fault_rates(lost, rate(), lost == 0 ? 20 : rate());
    }
}

void RaidWorld::note_lies() {
    const std::vector<RecordingEvents::Kept>& events = environment_.events().all();
    const auto wrong = std::ranges::find_if(events, [](const RecordingEvents::Kept& e) {
        return e.id == "checksum-renewed" || e.id == "checksum-page-lost" || e.id == "checksums-off";
    });
    const raid::ArrayStatus status = array_->status();
    if (!liar_ && !rotted_ && (wrong != events.end() || status.checksums.found > 0)) {
        chronicle_.violation("a checksum was wrong for no reason: " + std::to_string(status.checksums.found) +
                             " blocks" + (wrong != events.end() ? ", " + wrong->id + ": " + wrong->cause : ""));
    }
    if (!liar_) {
        return;
    }
    const std::uint64_t told = (*liar_)->counters().faults;
    for (; lies_told_ < told; ++lies_told_) {
        chronicle_.fault((*liar_)->name() + " lied about a write");
        chronicle_.reached("silent corruption");
    }
    if (status.checksums.found > 0) {
        chronicle_.reached("silent corruption found");
        if (environment_.events().has("block-repaired")) {
            chronicle_.reached("silent corruption repaired");
        }
    }
}

}  // namespace gemel::sim
