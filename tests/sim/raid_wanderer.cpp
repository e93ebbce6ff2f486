// SPDX-License-Identifier: Apache-2.0
// Members of a RaidWorld that go away for a while. Nothing is under way, one is lost, with or without what its cache
// holds; it misses a few writes, of which a crash may interrupt the last; then it is there again. Or one does not
// answer.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using raid::MemberState;

/// In place of a round.
void RaidWorld::wander() {
    rest();
    const std::size_t victim = wanderer_.below(disks_.size());
    if (!array_ || !spares(victim) || damaged() > 0 || rebuilding()) {
        round();
        return;
    }
    if (wanderer_.one_in(2)) {  // it has something to lose
        add_writes(1 + wanderer_.below(4));
        scheduler_.run_for(Duration(wanderer_.below(4'000'000)));
    }
    doubt_exposed();
    SimDisk& disk = *disks_[victim];
    const bool power = wanderer_.one_in(2);
    chronicle_.fault(disk.name() + (power ? " loses its power" : " is taken away"));
    power ? disk.power_cut(static_cast<CachePolicy>(wanderer_.below(4))) : disk.die();
    lost_[victim] = true;
    chronicle_.reached("member goes away");
    for (std::uint64_t more = 1 + wanderer_.below(3); more > 0; --more) {
        add_writes(1 + wanderer_.below(5));
        scheduler_.run_for(Duration(wanderer_.below(wanderer_.one_in(3) ? 20'000'000 : 3'000'000)));
    }
    note_journal(/*crashing=*/false);
    const std::uint64_t end = wanderer_.below(6);
    if (end == 0) {
        const auto place = static_cast<std::uint32_t>(victim);
        if (array_->status().members[place].state == raid::MemberState::kInSync) {
            const Result<void> failed = scheduler_.run(home(), array_->fail_member(place, /*force=*/true));
            static_cast<void>(failed);  // nothing has asked it since
        }
        disk.revive();
        away_[victim] = true;
        const Result<void> began = scheduler_.run(home(), array_->rebuild(place, {&disk, ""}));
        static_cast<void>(began);
        add_writes(10);
        wait_hosts(60s);
        return;
    }
    if (end < 3 && power_cuts_) {
        crash(Crash::kPower);
    } else if (end < 5 && kills_) {
        crash(Crash::kKill);
    } else {
        stop_cleanly();
    }
    if (wanderer_.one_in(4)) {
        disk.die();  // it stays away for another start
    } else {
        disk.revive();
    }
    open();
}

void RaidWorld::add_writes(std::uint64_t n) {
    for (Volume& v : volumes_) {
        v.host->add_work(static_cast<std::uint32_t>(n));
    }
}

/// For ever, which is until the process or the disk ends, or until some time after it was given up.
void RaidWorld::silence(SimDisk& disk) {
    const bool for_ever = random_.one_in(2);
    const Duration d = base_.member_timeout * (2 + static_cast<std::int64_t>(random_.below(4))) / 2;
    chronicle_.fault(disk.name() + (for_ever ? " answers no more" : " does not answer for a time"));
    for_ever ? disk.hang() : disk.hang(d);
    chronicle_.reached("member hangs");
    const std::uint64_t most = 3 * static_cast<std::uint64_t>(base_.member_timeout.count());
    static_cast<void>(pass(Duration(random_.below(most))));  // the next one says it again
    for (const raid::MemberStatus& m : array_->status().members) {
        if (m.name != disk.name() || m.state == MemberState::kInSync) {
            continue;
        }
        chronicle_.reached("member failed for its silence");
        if (m.unanswered > 0) {
            chronicle_.reached("work went on over an I/O that hangs");
        } else if (!for_ever) {
            chronicle_.reached("silent member answered too late");
        }
    }
}

/// A new process gets a device only when nothing of the old one is under way there any more.
void RaidWorld::end_silence() {
    const auto end = [&](SimDisk& disk) {
        if (disk.waiting() > 0) {
            disk.kill_process();
            const bool ended = scheduler_.run_until([&] { return disk.waiting() == 0; }, 1s);
            CHECK(ended);
        }
    };
    for (const auto* disks : {&disks_, &retired_}) {
        for (const auto& disk : *disks) {
            end(*disk);
        }
    }
    if (target_) {
        end(*target_);
    }
}

}  // namespace gemel::sim
