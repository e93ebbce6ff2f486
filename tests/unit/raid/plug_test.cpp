// SPDX-License-Identifier: Apache-2.0
// Parts of a stripe that are written at the same time: joined, never held alone, each with its own result.
#include <gtest/gtest.h>

#include "raid/geometry.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;

constexpr std::uint64_t kStrip = 32;  // sectors

struct Part {
    std::uint64_t lba;
    std::vector<std::byte> data;
    WriteOptions options = {};
};

Task<Result<void>> write_part(ArrayFixture& f, const Part& part) {
    const Buffer buffer = *f.environment.pool().allocate(part.data.size());
    const Slice slice = buffer.slice(part.data.size(), Lba(part.lba));
    std::ranges::copy(part.data, slice.data().begin());
    slice.seal();
    co_return co_await f.volume().write(Lba(part.lba), slice, part.options);
}

/// All of them at once, arriving in their order.
std::vector<Result<void>> write_together(ArrayFixture& f, const std::vector<Part>& parts) {
    std::vector<Task<Result<void>>> tasks;
    for (const Part& part : parts) {
        tasks.push_back(write_part(f, part));
    }
    return f.scheduler.run(*f.executors[0], when_all(std::move(tasks)));
}

struct MemberIos {
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
};

MemberIos member_ios(const ArrayFixture& f) {
    MemberIos sum;
    for (const auto& disk : f.disks) {
        sum.reads += disk->counters().reads;
        sum.writes += disk->counters().writes;
    }
    return sum;
}

/// Without the journal, whose records would be counted.
FixtureOptions unlisted(FixtureOptions o) {
    o.policy = RecoveryPolicy::kResync;
    return o;
}

/// An array with three data strips in a stripe, of which hosts wrote a moment ago: nothing has to be noted durably
/// before they write it again.
struct Plugged : ArrayFixture {
    explicit Plugged(FixtureOptions o = {}) : ArrayFixture(unlisted(std::move(o))) {
        CHECK(create());
        settle();
        CHECK(write(0, pattern(12 * row())));
    }
    [[nodiscard]] std::uint64_t row() const { return kStrip * 3; }

    /// Everything is there, and with any one member gone, too.
    void expect(std::uint64_t lba, const std::vector<std::byte>& data) {
        EXPECT_EQ(read(lba, data.size() / kSectorBytes).data, data);
        for (auto& disk : disks) {
            const std::size_t stripes = data.size() / kSectorBytes / row() + 1;
            disk->damage(Lba(lba / row() * kStrip), SectorCount(stripes * kStrip));
            EXPECT_EQ(read(lba, data.size() / kSectorBytes).data, data) << "without " << disk->name();
            disk->heal();
        }
    }
};

/// `data` in pieces of so many sectors.
void add_pieces(std::vector<Part>& parts, std::uint64_t lba, const std::vector<std::byte>& data,
                std::uint64_t sectors) {
    const auto bytes = static_cast<std::ptrdiff_t>(sectors * kSectorBytes);
    for (auto at = data.begin(); at != data.end(); at += bytes) {
        parts.push_back({lba + static_cast<std::uint64_t>(at - data.begin()) / kSectorBytes, {at, at + bytes}});
    }
}

TEST(StripePlug, pieces_behind_a_write_at_work_become_whole_stripes_without_reads) {
    for (const char* level : {"5", "6"}) {
        for (const std::uint64_t piece : {8U, 16U, 32U, 48U}) {
            Plugged f({.level = level, .members = level[0] == '6' ? 5U : 4U});
            const auto data = f.pattern(4 * f.row());
            std::vector<Part> parts{{0, {data.begin(), data.begin() + static_cast<std::ptrdiff_t>(f.row() * 512)}}};
            add_pieces(parts, f.row(), {data.begin() + static_cast<std::ptrdiff_t>(f.row() * 512), data.end()}, piece);
            const MemberIos before = member_ios(f);
            for (const Result<void>& r : write_together(f, parts)) {
                EXPECT_TRUE(r);
            }
            const MemberIos after = member_ios(f);
            EXPECT_EQ(after.reads, before.reads) << level << " in pieces of " << piece;
            EXPECT_EQ(after.writes - before.writes, 4 * f.options.members) << level << " in pieces of " << piece;
            f.expect(0, data);
        }
    }
}

TEST(StripePlug, pieces_that_come_in_any_order_are_joined) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Plugged f({.seed = seed});
        const auto data = f.pattern(f.row());
        std::vector<Part> parts;
        add_pieces(parts, 0, data, 8);
        for (std::size_t i = parts.size() - 1; i > 0; --i) {
            std::swap(parts[i], parts[f.scheduler.random().below(i + 1)]);
        }
        const MemberIos before = member_ios(f);
        for (const Result<void>& r : write_together(f, parts)) {
            EXPECT_TRUE(r);
        }
        // The first goes by itself; those behind it are two runs at most.
        EXPECT_LE(member_ios(f).reads - before.reads, 2U + 2 * 3U);
        f.expect(0, data);
    }
}

TEST(StripePlug, the_last_pieces_go_when_nothing_else_is_at_work) {
    Plugged f;
    const auto data = f.pattern(f.row() + 40);
    const auto row_bytes = static_cast<std::ptrdiff_t>(f.row() * 512);
    std::vector<Part> parts{{0, {data.begin(), data.begin() + row_bytes}}};
    add_pieces(parts, f.row(), {data.begin() + row_bytes, data.end()}, 8);
    const MemberIos before = member_ios(f);
    for (const Result<void>& r : write_together(f, parts)) {
        EXPECT_TRUE(r);
    }
    const MemberIos after = member_ios(f);
    EXPECT_EQ(after.reads - before.reads, 2U) << "one run: what the second strip lacks, and the third";
    EXPECT_EQ(after.writes - before.writes, 4U + 3U);
    f.expect(0, data);
}

TEST(StripePlug, a_piece_that_is_alone_is_not_held) {
    Plugged f;
    const TimePoint began = f.scheduler.now();
    ASSERT_TRUE(f.write(f.row(), f.pattern(8)));
    EXPECT_LT(f.scheduler.now() - began, std::chrono::milliseconds(100));
    // Nor is one that does not begin its stripe, or whose neighbours are at rest.
    const MemberIos before = member_ios(f);
    for (const Result<void>& r : write_together(f, {{0, f.pattern(f.row())}, {f.row() + 8, f.pattern(8)}})) {
        EXPECT_TRUE(r);
    }
    EXPECT_EQ(member_ios(f).reads - before.reads, 2U);
}

TEST(StripePlug, what_overlaps_is_one_or_the_other_and_the_redundancy_is_right) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Plugged f({.seed = seed});
        const auto first = f.pattern(f.row());
        const auto one = f.pattern(16);
        const auto other = f.pattern(16);
        for (const Result<void>& r :
             write_together(f, {{0, first}, {f.row(), one}, {f.row(), other}, {f.row() + 16, one}})) {
            EXPECT_TRUE(r);
        }
        const auto got = f.read(f.row(), 16).data;
        EXPECT_TRUE(got == one || got == other);
        f.expect(0, first);
        f.expect(f.row(), got);
        f.expect(f.row() + 16, one);
    }
}

TEST(StripePlug, a_durable_write_is_not_joined_with_others) {
    Plugged f;
    const auto data = f.pattern(f.row());
    std::vector<Part> parts{{f.row(), f.pattern(f.row())}};
    add_pieces(parts, 2 * f.row(), data, kStrip);
    parts[2].options.fua = true;
    for (const Result<void>& r : write_together(f, parts)) {
        EXPECT_TRUE(r);
    }
    f.expect(2 * f.row(), data);
    for (auto& disk : f.disks) {
        disk->power_cut(sim::CachePolicy::kDropAll);
    }
    f.stop_anyhow();
    for (auto& disk : f.disks) {
        disk->revive();
    }
    ASSERT_TRUE(f.reopen());
    const std::vector<std::byte> durable(data.begin() + kStrip * 512, data.begin() + 2 * kStrip * 512);
    EXPECT_EQ(f.read(2 * f.row() + kStrip, kStrip).data, durable);
}

TEST(StripePlug, a_piece_that_cannot_be_written_does_not_fail_its_neighbours) {
    Plugged f;
    const Geometry g{.layout = Layout::kParity, .members = 4, .strip_sectors = kStrip};
    f.disks[g.data_member(StripeIndex(1), 0)]->die();
    ASSERT_TRUE(f.write(10 * f.row(), f.pattern(f.row())));
    f.disks[g.data_member(StripeIndex(1), 1)]->damage(Lba(kStrip), SectorCount(8));
    // Of the first block of the stripe two data strips are lost: nothing can tell what parity has to be.
    const auto good = f.pattern(8);
    const auto results = write_together(f, {{0, f.pattern(f.row())}, {f.row(), f.pattern(8)}, {f.row() + 8, good}});
    EXPECT_TRUE(results[0]);
    ASSERT_FALSE(results[1]);
    EXPECT_EQ(results[1].error().code, Errc::kMediumError);
    EXPECT_TRUE(results[2]);
    EXPECT_EQ(f.read(f.row() + 8, 8).data, good);
}

Task<void> rewrite_until(ArrayFixture& f, Part part, const bool& done, int& running) {
    ++running;
    while (!done) {
        const Result<void> r = co_await write_part(f, part);
        CHECK(r);
    }
    --running;
}

Task<void> write_then_say(ArrayFixture& f, Part part, bool& done) {
    const Result<void> r = co_await write_part(f, part);
    CHECK(r);
    done = true;
}

TEST(StripePlug, a_stripe_that_is_written_again_and_again_does_not_hold_the_next_one_for_ever) {
    Plugged f;
    bool done = false;
    int running = 0;
    for (int i = 0; i < 4; ++i) {
        f.scheduler.start(*f.executors[0], rewrite_until(f, {0, f.pattern(f.row())}, done, running));
    }
    f.scheduler.run_for(std::chrono::milliseconds(5));
    f.scheduler.start(*f.executors[0], write_then_say(f, {f.row(), f.pattern(8)}, done));
    EXPECT_TRUE(f.scheduler.run_until([&] { return done; }, std::chrono::seconds(2)));
    done = true;
    ASSERT_TRUE(f.scheduler.run_until([&] { return running == 0; }));
}

}  // namespace
}  // namespace gemel::raid
