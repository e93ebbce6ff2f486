// SPDX-License-Identifier: Apache-2.0
// RaidWorld and the dirty stripe journal (raid_world.hpp, RW6): what may be unreadable after a degraded crash, and
// which states of the journal a history has seen.
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;

namespace {
constexpr Duration kPatience = 60s;
}

bool RaidWorld::unreadable_expected(std::string_view volume, Lba lba) {
    const auto v = std::ranges::find(volumes_, volume, &Volume::name);
    CHECK(v != volumes_.end());
    const auto holds = [lba](const Extent& e) { return e.lba <= lba && lba.value < e.lba.value + e.sectors.value; };
    return errors_expected_ || v->bad.intersects(lba.value, lba.value + 1) || std::ranges::any_of(v->doubtful, holds);
}

/// RW6: with their stripes, and those listed ahead of a sequential writer.
void RaidWorld::doubt_what_was_written() {
    const std::uint64_t most = base_.journal_stripes != 0 ? base_.journal_stripes : 512;
    const std::uint64_t ahead = std::min(most / 16, kMiB / kSectorBytes / stripe_sectors_);
    for (Volume& v : volumes_) {
        if (told_by_p_ && resyncing()) {  // what P told ends with the crash, wherever Q is not right yet
            v.doubtful.push_back({Lba(0), v.oracle->sectors()});
        }
        for (const Extent& e : v.oracle->written_since(v.clean)) {
            const std::uint64_t first = e.lba.value - std::min(e.lba.value, stripe_sectors_);
            const std::uint64_t end = e.lba.value + e.sectors.value + (1 + ahead) * stripe_sectors_;
            v.doubtful.push_back({Lba(first), SectorCount(end - first)});
        }
    }
    for (std::size_t i = 0; i + 1 < volumes_.size(); ++i) {  // the stripes where two volumes meet
        const std::uint64_t size = volumes_[i].oracle->sectors().value;
        volumes_[i].doubtful.push_back({Lba(size - std::min(size, stripe_sectors_)), SectorCount(stripe_sectors_)});
        volumes_[i + 1].doubtful.push_back({Lba(0), SectorCount((1 + ahead) * stripe_sectors_)});
    }
}

void RaidWorld::nothing_listed() {
    for (Volume& v : volumes_) {
        v.clean = v.oracle->mark();
    }
}

/// Hosts pause until the journal lists nothing any more.
void RaidWorld::rest() {
    if (!wait_hosts(kPatience)) {
        return;
    }
    scheduler_.run_for(6s);
    const raid::JournalStatus status = array_->status().journal;
    if (journal_ && status.listed_stripes == 0) {
        chronicle_.reached("clean record");
        nothing_listed();
    } else if (journal_ && !resyncing() && !errors_expected_) {
        chronicle_.violation("the journal of an idle array lists " + std::to_string(status.listed_stripes) +
                             " stripes");
    }
}

void RaidWorld::note_journal(bool crashing) {
    const raid::ArrayStatus status = array_->status();
    const raid::JournalStatus& j = status.journal;
    const std::array<std::pair<bool, const char*>, 5> states{
        {{j.hot_writes > 0, "hot write"},
         {j.records > 0 && j.cold_writes > j.records, "cold batch"},
         {j.waits_for_room > 0, "set full"},
         {crashing && j.checkpointing, "checkpoint interrupted"},
         {crashing && j.recovered_stripes > 0 && j.recovery_ms == 0 && status.resyncing, "recovery interrupted"}}};
    for (const auto& [reached, name] : states) {
        if (reached) {
            chronicle_.reached(name);
        }
    }
}

}  // namespace gemel::sim
