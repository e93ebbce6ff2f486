// SPDX-License-Identifier: Apache-2.0
// Comparisons of the two copies: begun at any time in a history, where they must never find anything, and at its end,
// where blocks are changed behind the pair's back or cannot be read any more.
#include "tests/sim/replication_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using replication::PairStatus;
using replication::VerifyOrder;
using replication::VerifyReport;
using replication::VerifyState;

namespace {

constexpr Duration kPatience = 120s;

}  // namespace

/// Among everything else that happens: what a comparison meets is for observe() to judge.
void ReplicationWorld::begin_verify() {
    if (!usable(active_) || chronicle_.without("verify") || !verify_random_.one_in(2)) {
        return;
    }
    if (verify_random_.one_in(3)) {
        spoil_among_faults();
    }
    const VerifyOrder order = std::array{VerifyOrder::kCheck, VerifyOrder::kRepair, VerifyOrder::kPause,
                                         VerifyOrder::kResume}[verify_random_.below(4)];
    const std::size_t node = active_;
    std::optional<Result<void>> done;
    scheduler_.start(nodes_[node]->home(), [](Task<Result<void>> t, std::optional<Result<void>>& to) -> Task<void> {
        to.emplace(co_await std::move(t));
    }(nodes_[node]->replicator().verify(SimNode::kVolume, order), done));
    scheduler_.run_until([&] { return done.has_value(); }, kPatience);
    if (done && *done && order != VerifyOrder::kPause) {
        chronicle_.reached("verify among faults");
    }
}

/// PW6.
void ReplicationWorld::observe_verify(const SimNode& node, const PairStatus& s) {
    if (s.verify && !spoilt_ && (s.verify->different_blocks > 0 || (s.verify->bad_blocks > 0 && !lost_block_))) {
        chronicle_.violation(node.name() + " found a difference in copies that are equal, at sector " +
                             std::to_string(s.verify->extents.front().lba.value));
    }
    if (s.verify && s.verify->state == VerifyState::kDone) {
        chronicle_.reached("verify finished among faults");
    }
}

/// A block that the secondary cannot read any more, and has to get from the primary. Until then it may be lost, to a
/// host of that node also when it is promoted.
void ReplicationWorld::spoil_among_faults() {
    const std::size_t node = 1 - active_;
    if (!usable(0) || !usable(1) || !in_step(active().pair_now()) || !in_step(other().pair_now()) ||
        other().options().level != "0") {
        return;
    }
    const Lba lba(round_down(random_lba(node).value, std::uint64_t{kSectorsPerBlock}));
    chronicle_.fault(other().name() + " cannot read sector " + std::to_string(lba.value));
    other().disks().front()->damage(lba, SectorCount(1));
    doubted_[node].insert(lba.value);
    lost_block_ = true;
    [[maybe_unused]] const Result<void> seen =
        scheduler_.run(other().home(), [](BlockDevice& volume, Lba at, Buffer memory) -> Task<Result<void>> {
            co_return co_await volume.read(at, memory.slice(kBlockBytes, at));  // so that it is seen
        }(other().volume(), lba, *other().environment().pool().allocate(kBlockBytes)));
    chronicle_.reached("secondary's block lost among faults");
}

bool ReplicationWorld::doubted_within(Extent where) const {
    const auto first = doubted_[active_].lower_bound(round_down(where.lba.value, std::uint64_t{kSectorsPerBlock}));
    return first != doubted_[active_].end() && *first < where.lba.value + where.sectors.value;
}

bool ReplicationWorld::unreadable_expected(std::string_view /*volume*/, Lba lba) {
    return doubted_within({lba, SectorCount(1)});
}

/// REQUIRES: mirrored, no faults any more.
VerifyReport ReplicationWorld::verify(VerifyOrder order) {
    [[maybe_unused]] const Result<void> cancelled =
        scheduler_.run(active().home(), active().replicator().verify(SimNode::kVolume, VerifyOrder::kCancel));
    const auto under_way = [this] {
        const PairStatus s = active().pair_now();
        return s.verify && (s.verify->state == VerifyState::kRunning || s.verify->state == VerifyState::kWaiting ||
                            s.verify->state == VerifyState::kPaused);
    };
    const auto ended = [&] {
        for (const TimePoint deadline = scheduler_.now() + kPatience; under_way();) {
            if (scheduler_.now() >= deadline) {
                return false;
            }
            advance(20ms);
        }
        return true;
    };
    const bool before = ended();
    const Result<void> begun = scheduler_.run(active().home(), active().replicator().verify(SimNode::kVolume, order));
    if (!before || !begun || !ended() || active().pair_now().verify->state != VerifyState::kDone) {
        chronicle_.violation("a verify of a healthy pair does not begin or end" +
                             (begun ? std::string() : ": " + begun.error().message));
        return {};
    }
    return *active().pair_now().verify;
}

/// Blocks of one copy, beneath the mirror, that no host wrote.
void ReplicationWorld::change_behind(std::size_t node, Lba lba) {
    const Buffer memory = *nodes_[node]->environment().pool().allocate(kBlockBytes);
    const Slice slice = memory.slice(kBlockBytes, lba);
    std::ranges::generate(slice.data(), [this] { return static_cast<std::byte>(verify_random_.below(256)); });
    const Result<void> written = scheduler_.run(nodes_[node]->home(), nodes_[node]->volume().write(lba, slice, {}));
    if (!written) {
        chronicle_.violation("a block cannot be changed: " + written.error().message);
    }
}

/// REQUIRES: settled.
void ReplicationWorld::compare_copies() {
    if (chronicle_.without("verify")) {
        return;
    }
    if (const VerifyReport r = verify(VerifyOrder::kCheck); r.bad_blocks > 0) {
        chronicle_.violation("a verify found " + std::to_string(r.bad_blocks) + " blocks of equal copies different");
    }
    spoilt_ = true;
    const std::size_t secondary = 1 - active_;
    change_behind(secondary, Lba(round_down(random_lba(secondary).value, std::uint64_t{kSectorsPerBlock})));
    for (std::size_t i = 0; i < 2; ++i) {
        spoil_a_block(i);
    }
    host_->add_work(24);
    const VerifyReport r = verify(VerifyOrder::kRepair);
    if (!scheduler_.run_until([&] { return host_->drained() && quiet(); }, kPatience)) {
        chronicle_.violation("not idle again after a verify");
    }
    if (r.repaired_blocks != r.bad_blocks) {
        chronicle_.violation("a verify repaired " + std::to_string(r.repaired_blocks) + " of " +
                             std::to_string(r.bad_blocks) + " blocks");
    }
    if (r.different_blocks > 0) {
        chronicle_.reached("difference repaired");
    }
    if (active().pair_now().healed_blocks > 0) {
        chronicle_.reached("block healed from the peer");
    }
    if (r.unreadable_at_peer > 0) {
        chronicle_.reached("unreadable block of the secondary repaired");
    }
}

/// Where no redundancy hides it. Not both copies of one block.
void ReplicationWorld::spoil_a_block(std::size_t node) {
    SimNode& n = *nodes_[node];
    if (n.options().level != "0" || n.array().status().state != raid::ArrayState::kOptimal) {
        return;
    }
    n.disks().front()->damage(random_lba(node), SectorCount(1 + verify_random_.below(4)));
}

/// Of the half of the volume in which `node` is the one with the bad copy.
Lba ReplicationWorld::random_lba(std::size_t node) {
    const std::uint64_t half = active().mirror().limits().sectors.value / 2;
    return Lba(node * half + verify_random_.below(half - kSectorsPerBlock));
}

}  // namespace gemel::sim
