// SPDX-License-Identifier: Apache-2.0
// The oracle accepts every history that the durability rules allow and names what is wrong with every other.
#include "tests/support/oracle.hpp"

#include <gtest/gtest.h>

#include "tests/support/heap_pool.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kSectors = 64;

/// An oracle and the bytes that a (good or bad) device would return.
struct History {
    explicit History(LegMask legs = kLegA) : oracle(7, SectorCount(kSectors), legs), image(kSectors * kSectorBytes) {}

    MutableBytes sectors(std::uint64_t lba, std::uint64_t n) {
        return MutableBytes(image).subspan(lba * kSectorBytes, n * kSectorBytes);
    }
    Oracle::Id begin(std::uint64_t lba, std::uint64_t n, bool zeros = false) {
        return oracle.begin_write(Lba(lba), SectorCount(n), zeros);
    }
    std::vector<std::byte> data(Oracle::Id id, std::uint64_t n) {
        std::vector<std::byte> bytes(n * kSectorBytes);
        oracle.stamp(id, bytes);
        return bytes;
    }
    void apply(Oracle::Id id, std::uint64_t lba, std::uint64_t n) { oracle.stamp(id, sectors(lba, n)); }
    /// A whole write that is applied and acknowledged.
    Oracle::Id write(std::uint64_t lba, std::uint64_t n, LegMask legs = kLegA, bool fua = false) {
        const Oracle::Id id = begin(lba, n);
        apply(id, lba, n);
        oracle.acknowledge(id, fua, legs);
        return id;
    }
    void finish_read(Oracle::Id id, std::uint64_t lba, std::uint64_t n, LegMask leg = kLegA) {
        const Buffer b = *pool.allocate(n * kSectorBytes);
        std::ranges::copy(sectors(lba, n), b.memory().begin());
        oracle.end_read(id, b.slice(n * kSectorBytes, Lba(lba)), leg);
    }
    void read(std::uint64_t lba, std::uint64_t n, LegMask leg = kLegA) {
        finish_read(oracle.begin_read(Lba(lba), SectorCount(n)), lba, n, leg);
    }
    void flush(LegMask legs = kLegA) { oracle.end_flush(oracle.begin_flush(), legs); }
    void power_cut() {
        oracle.crash();
        oracle.power_loss(kLegA);
        oracle.serve_from(kLegA);
    }
    void kill() {
        oracle.crash();
        oracle.serve_from(kLegA);
    }
    [[nodiscard]] std::vector<Verdict> verdicts() const {
        std::vector<Verdict> out;
        for (const Violation& v : oracle.violations()) {
            out.push_back(v.verdict);
        }
        return out;
    }

    HeapPool pool;
    Oracle oracle;
    std::vector<std::byte> image;
};

using Verdicts = std::vector<Verdict>;

TEST(Oracle, a_good_history_has_no_violation) {
    History h;
    h.read(0, 8);
    h.write(0, 4);
    h.read(0, 8);
    h.write(2, 4);
    h.flush();
    h.power_cut();
    h.read(0, 8);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    EXPECT_EQ(h.oracle.sectors_checked(), 24U);
}

TEST(Oracle, a_stale_read_is_found) {
    History h;
    h.write(0, 1);
    const auto old = h.image;
    h.write(0, 1);
    h.image = old;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kStale});
}

TEST(Oracle, zeros_after_a_write_are_stale_and_after_a_discard_right) {
    History h;
    h.write(0, 2);
    const auto data = h.image;
    std::ranges::fill(h.image, std::byte{0});
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kStale});
    h.oracle.acknowledge(h.begin(1, 1, true), false, kLegA);
    h.read(1, 1);
    EXPECT_EQ(h.verdicts().size(), 1U);
    h.image = data;
    h.read(1, 1);
    EXPECT_EQ(h.verdicts().size(), 2U) << "the discarded value came back";
}

TEST(Oracle, zeros_that_may_come_from_a_discard_in_flight_say_nothing_of_one_that_has_ended) {
    History h;
    static_cast<void>(h.begin(0, 1, true));  // stays in flight
    const Oracle::Id ended = h.begin(0, 1, true);
    const Oracle::Id write = h.begin(0, 1);
    h.oracle.acknowledge(ended, false, kLegA);
    h.apply(write, 0, 1);
    h.oracle.acknowledge(write, false, kLegA);
    const auto data = h.image;
    std::ranges::fill(h.image, std::byte{0});
    h.read(0, 1);
    h.image = data;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{}) << "what is in flight may be seen or not";
}

TEST(Oracle, zeros_of_a_discard_that_a_power_loss_may_take_say_nothing_of_one_that_was_flushed) {
    History h;
    const Oracle::Id later = h.begin(0, 1, true);
    const Oracle::Id write = h.begin(0, 1);
    const Oracle::Id sooner = h.begin(0, 1, true);
    h.oracle.acknowledge(sooner, true, kLegA);
    h.apply(write, 0, 1);
    h.oracle.acknowledge(write, false, kLegA);
    const auto data = h.image;
    h.oracle.acknowledge(later, false, kLegA);
    std::ranges::fill(h.image, std::byte{0});
    h.read(0, 1);
    h.power_cut();
    h.image = data;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{}) << "the later discard was lost";
}

TEST(Oracle, a_lost_flushed_or_fua_write_is_found_and_a_lost_unflushed_one_is_not) {
    for (const int how : {0, 1, 2}) {
        History h;
        h.write(0, 1, kLegA, true);
        const auto old = h.image;
        h.write(0, 1, kLegA, how == 1);
        if (how == 2) {
            h.flush();
        }
        h.power_cut();
        h.image = old;
        h.read(0, 1);
        EXPECT_EQ(h.verdicts(), how == 0 ? Verdicts{} : Verdicts{Verdict::kLost}) << how;
    }
}

TEST(Oracle, a_flush_covers_only_what_had_ended_before_it_began) {
    History h;
    h.write(0, 1, kLegA, true);
    const auto old = h.image;
    const Oracle::Id flush = h.oracle.begin_flush();
    h.write(0, 1);
    h.oracle.end_flush(flush, kLegA);
    h.power_cut();
    h.image = old;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{});
}

TEST(Oracle, the_death_of_the_process_may_not_lose_an_acknowledged_write) {
    History h;
    h.write(0, 1);
    const auto old = h.image;
    h.write(0, 1);
    h.kill();
    h.image = old;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kLost});
}

TEST(Oracle, a_write_in_flight_at_a_crash_may_have_happened_or_not_but_the_first_read_decides) {
    for (const bool happened : {false, true}) {
        History h;
        h.write(0, 1, kLegA, true);
        const auto old = h.image;
        const Oracle::Id id = h.begin(0, 1);
        h.apply(id, 0, 1);
        const auto fresh = h.image;
        h.kill();
        h.image = happened ? fresh : old;
        h.read(0, 1);
        EXPECT_EQ(h.verdicts(), Verdicts{});
        h.image = happened ? old : fresh;
        h.read(0, 1);
        EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kResurrected});
    }
}

TEST(Oracle, a_pinned_value_survives_another_power_cut) {
    History h;
    h.write(0, 1, kLegA, true);
    const auto old = h.image;
    h.write(0, 1);
    const auto fresh = h.image;
    h.power_cut();
    h.image = old;
    h.read(0, 1);
    h.power_cut();
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.image = fresh;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kResurrected});
}

TEST(Oracle, a_read_during_a_write_is_old_or_new_per_sector_and_afterwards_new) {
    History h;
    h.write(0, 4);
    const auto old = h.image;
    const Oracle::Id id = h.begin(0, 4);
    h.apply(id, 0, 4);
    const auto fresh = h.image;
    std::ranges::copy(std::span(old).subspan(512, 512), h.image.begin() + 512);
    h.read(0, 4);
    h.image = old;
    h.read(0, 4);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    const Oracle::Id read = h.oracle.begin_read(Lba(0), SectorCount(1));
    h.oracle.acknowledge(id, false, kLegA);
    h.finish_read(read, 0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{}) << "it began before the acknowledgement";
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kStale});
    h.image = fresh;
    h.read(0, 4);
    EXPECT_EQ(h.verdicts().size(), 1U);
}

TEST(Oracle, overlapping_writes_end_in_either_order_but_the_same_for_all_reads) {
    History h;
    const Oracle::Id one = h.begin(0, 1);
    const Oracle::Id two = h.begin(0, 1);
    h.oracle.acknowledge(two, false, kLegA);
    h.oracle.acknowledge(one, false, kLegA);
    h.apply(two, 0, 1);
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.apply(one, 0, 1);
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kResurrected});
}

TEST(Oracle, a_failed_write_is_old_or_new_until_the_next_write) {
    History h;
    h.write(0, 1);
    const auto old = h.image;
    const Oracle::Id id = h.begin(0, 1);
    h.apply(id, 0, 1);
    const auto fresh = h.image;
    h.oracle.fail_write(id);
    for (const auto& image : {old, fresh, old}) {
        h.image = image;
        h.read(0, 1);
    }
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.write(0, 1);
    h.image = fresh;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kStale});
}

TEST(Oracle, torn_misplaced_foreign_corrupt_and_unwritten_sectors_are_told_apart) {
    History h;
    const Oracle::Id a = h.write(0, 2);
    const Oracle::Id b = h.write(0, 2);
    const auto good = h.image;
    const auto old = h.data(a, 2);
    std::ranges::copy(std::span(old).first(256), h.image.begin());
    h.read(0, 1);
    h.image = good;
    std::ranges::copy(std::span(good).subspan(512, 512), h.image.begin());
    h.read(0, 1);
    h.image = good;
    h.image[100] ^= std::byte{1};
    h.read(0, 1);
    h.image = good;
    Oracle other(8, SectorCount(kSectors), kLegA);
    other.stamp(other.begin_write(Lba(0), SectorCount(2), false), h.sectors(0, 2));
    h.read(0, 1);
    h.image = good;
    Oracle later(7, SectorCount(kSectors), kLegA);
    Oracle::Id far = 0;
    while (far < b + 5) {
        far = later.begin_write(Lba(0), SectorCount(2), false);
    }
    later.stamp(far, h.sectors(0, 2));
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), (Verdicts{Verdict::kTorn, Verdict::kMisplaced, Verdict::kCorrupt, Verdict::kForeign,
                                      Verdict::kNeverWritten}));
}

TEST(Oracle, unreadable_blocks_are_reported_unless_nothing_is_known) {
    History h;
    h.write(0, 8);
    h.oracle.undefine(Lba(8), SectorCount(8));
    const Buffer b = *h.pool.allocate(16 * kSectorBytes);
    std::ranges::copy(h.sectors(0, 8), b.memory().begin());
    const Slice s = b.slice(16 * kSectorBytes, Lba(0));
    s.mark(1, BlockStatus::kUnreadable);
    EXPECT_TRUE(h.oracle.end_read(h.oracle.begin_read(Lba(0), SectorCount(16)), s, kLegA).empty());
    s.mark(0, BlockStatus::kUnreadable);
    const std::vector<Lba> lost = h.oracle.end_read(h.oracle.begin_read(Lba(0), SectorCount(16)), s, kLegA);
    ASSERT_EQ(lost.size(), 8U) << "all of them, not only the first";
    EXPECT_EQ(lost.front(), Lba(0));
    EXPECT_EQ(lost.back(), Lba(7));
    EXPECT_EQ(h.verdicts(), Verdicts{});
}

TEST(Oracle, undefined_sectors_may_be_anything_until_written) {
    History h;
    h.write(0, 1);
    const auto old = h.image;
    h.oracle.undefine(Lba(0), SectorCount(1));
    h.image[3] ^= std::byte{9};
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.write(0, 1);
    h.image = old;
    h.read(0, 1);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kStale});
}

// ---- two legs

TEST(Oracle, a_mirrored_write_may_be_lost_only_when_both_legs_lost_power) {
    for (const LegMask lost : {kLegA, kLegB, static_cast<LegMask>(kLegA | kLegB)}) {
        History h(kLegA | kLegB);
        h.write(0, 1, kLegA | kLegB, true);
        const auto old = h.image;
        h.write(0, 1, kLegA | kLegB);
        h.oracle.crash();
        h.oracle.power_loss(lost);
        h.oracle.serve_from(kLegA | kLegB);
        h.image = old;
        h.read(0, 1);
        EXPECT_EQ(h.verdicts(), lost == (kLegA | kLegB) ? Verdicts{} : Verdicts{Verdict::kLost}) << int(lost);
    }
}

TEST(Oracle, a_promoted_leg_may_lack_what_was_written_without_it_but_nothing_else) {
    History h(kLegA | kLegB);
    h.write(0, 1, kLegA | kLegB);
    const auto before = h.image;
    const auto blank = std::vector<std::byte>(before.size());
    h.write(0, 1, kLegA);
    h.read(0, 1);
    h.oracle.crash();
    h.oracle.serve_from(kLegB);
    h.image = before;
    h.read(0, 1, kLegB);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.image = blank;
    h.read(0, 1, kLegB);
    EXPECT_EQ(h.verdicts(), Verdicts{Verdict::kLost});
}

TEST(Oracle, after_a_resync_the_target_holds_what_the_source_held) {
    for (const bool synced : {false, true}) {
        History h(kLegA | kLegB);
        const auto blank = h.image;
        h.write(0, 1, kLegA);
        h.flush(kLegA);
        if (synced) {
            h.oracle.synced(kLegA, kLegB);
        }
        h.oracle.crash();
        h.oracle.power_loss(kLegA);
        h.oracle.serve_from(kLegB);
        h.image = blank;
        h.read(0, 1, kLegB);
        EXPECT_EQ(h.verdicts(), synced ? Verdicts{Verdict::kLost} : Verdicts{});
    }
}

TEST(Oracle, a_side_given_up_in_a_split_brain_may_not_come_back) {
    History h(kLegA | kLegB);
    h.write(0, 1, kLegA | kLegB, true);
    h.write(0, 1, kLegA);
    const auto on_a = h.image;
    h.oracle.crash();
    h.oracle.serve_from(kLegB);
    h.write(0, 1, kLegB);
    h.oracle.synced(kLegB, kLegA);
    h.oracle.serve_from(kLegA | kLegB);
    h.read(0, 1, kLegB);
    EXPECT_EQ(h.verdicts(), Verdicts{});
    h.image = on_a;
    h.read(0, 1, kLegA);
    EXPECT_FALSE(h.verdicts().empty());
}

}  // namespace
}  // namespace gemel::sim
