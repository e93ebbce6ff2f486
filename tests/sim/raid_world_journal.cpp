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

/// RW6, of the policy `ppl`: whole blocks.
void RaidWorld::doubt_blocks_written() {
    for (Volume& v : volumes_) {
        for (const Extent& e : v.oracle->written_since(v.clean)) {
            const std::uint64_t first = round_down(e.lba.value, kSectorsPerBlock);
            const std::uint64_t end = round_up(e.lba.value + e.sectors.value, kSectorsPerBlock);
            v.doubtful.push_back({Lba(first), SectorCount(end - first)});
            const std::uint64_t from = first - std::min(first, stripe_sectors_);
            v.exposed.push_back({Lba(from), SectorCount(end + stripe_sectors_ - from)});
        }
    }
}

/// What is unreadable leaves its columns untrusted until it is written: another member may be lost now.
void RaidWorld::doubt_exposed() {
    exposed_damage_ = exposed_damage_ || met_damage_;
    for (Volume& v : volumes_) {
        v.doubtful.insert(v.doubtful.end(), v.exposed.begin(), v.exposed.end());
        v.exposed.clear();
    }
}

/// A degraded parity level loses what shares a stripe with a write that a crash cut short: the write hole, without the
/// journal.
void RaidWorld::forget_stripes_at_risk(bool open_only) {
    if (row_->parities() == 0) {
        return;
    }
    std::vector<raid::IntervalSet> lost(volumes_.size());
    for (std::size_t i = 0; i < volumes_.size(); ++i) {
        const std::uint64_t size = volumes_[i].oracle->sectors().value;
        for (const std::uint64_t sector : volumes_[i].oracle->unsettled(open_only)) {
            const std::uint64_t first = sector < stripe_sectors_ ? 0 : sector - stripe_sectors_;
            lost[i].add(first, first + 2 * stripe_sectors_);
            if (first == 0 && i > 0) {
                const std::uint64_t end = volumes_[i - 1].oracle->sectors().value;
                lost[i - 1].add(end - std::min(stripe_sectors_, end), end);
            }
            if (sector + stripe_sectors_ >= size && i + 1 < volumes_.size()) {
                lost[i + 1].add(0, stripe_sectors_);
            }
        }
    }
    for (std::size_t i = 0; i < volumes_.size(); ++i) {
        std::uint64_t at = 0;
        while (const auto range = lost[i].next(at)) {
            at = range->second;
            const Extent e{Lba(range->first), SectorCount(range->second - range->first)};
            volumes_[i].oracle->undefine(e.lba, e.sectors);
            volumes_[i].doubtful.push_back(e);
        }
    }
}

/// RW6. What may be unreadable, or anything, after a crash now without a member.
void RaidWorld::doubt_for_crash(bool power) {
    if (logged_) {
        chronicle_.reached("degraded crash of a logged array");
    } else if (told_) {
        chronicle_.reached("degraded crash with partial parity");
        doubt_blocks_written();
    } else if (row_->parities() > 0 && journal_) {
        doubt_what_was_written();
    } else {
        forget_stripes_at_risk(!power);
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

/// Two of three keep the plain one, or on level 5 partial parity.
raid::RecoveryPolicy RaidWorld::some_journal() {
    const bool redo = policies_.one_in(3);
    if (partial_ && !redo && base_.level == "5") {
        return raid::RecoveryPolicy::kPartial;
    }
    return redo ? raid::RecoveryPolicy::kRedo : raid::RecoveryPolicy::kJournal;
}

/// After a start.
void RaidWorld::note_replay() {
    const raid::JournalStatus j = array_->status().journal;
    if (j.replayed_records > 0) {
        chronicle_.reached("redo replayed");
    }
    if (j.partial_blocks > 0) {
        chronicle_.reached("partial parity used");
    }
    if (unclean_ && logged_ && any_lost()) {
        chronicle_.reached("degraded crash lost nothing");
    }
}

void RaidWorld::note_journal(bool crashing) {
    const raid::ArrayStatus status = array_->status();
    const raid::JournalStatus& j = status.journal;
    told_ = crashing && j.partial;
    logged_ = crashing && j.redo && j.named_stripes == 0 && status.resync_done == status.resync_total;
    const bool off_again = !j.redo && j.redo_records > 0 && status.state == raid::ArrayState::kOptimal;
    const std::array<std::pair<bool, const char*>, 8> states{
        {{j.hot_writes > 0, "hot write"},
         {j.records > 0 && j.cold_writes > j.records, "cold batch"},
         {j.waits_for_room > 0, "set full"},
         {j.partial_records > 0, "partial parity recorded"},
         {crashing && off_again, "crash after the redo log was off again"},
         {status.stripe_cache.hits > 0, "block from the stripe cache"},
         {crashing && j.checkpointing, "checkpoint interrupted"},
         {crashing && j.recovered_stripes > 0 && j.recovery_ms == 0 && status.resyncing, "recovery interrupted"}}};
    for (const auto& [reached, name] : states) {
        if (reached) {
            chronicle_.reached(name);
        }
    }
}

}  // namespace gemel::sim
