// SPDX-License-Identifier: Apache-2.0
// Discards down to the members: what is given back, what is stored, and that the redundancy is that of zeros.
#include <gtest/gtest.h>

#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;
using testing::kSectors;
using testing::kShapes;
using testing::options_of;
using testing::Shape;
using testing::Written;

constexpr std::uint64_t kStrip = 16 * kKiB / kSectorBytes;

std::uint64_t discarded(const ArrayFixture& f) {
    std::uint64_t sum = 0;
    for (const auto& disk : f.disks) {
        sum += disk->counters().sectors_discarded;
    }
    return sum;
}

/// Sectors of members that hold one sector of the array, times this.
std::uint64_t copies(const Shape& shape, std::uint64_t sectors) {
    const std::string level = shape.level;
    if (level == "1") {
        return sectors * shape.members;
    }
    if (level == "10") {
        return sectors * 2;
    }
    return sectors / (shape.members - (level == "6" ? 2 : 1)) * shape.members;
}

std::uint64_t row_of(const Shape& shape) {
    const std::string level = shape.level;
    return level == "5" || level == "6" ? kStrip * (shape.members - (level == "6" ? 2 : 1)) : kStrip;
}

void discard(Written& w, std::uint64_t lba, std::uint64_t sectors) {
    const auto r = w.f.scheduler.run(*w.f.caller, w.f.volume().discard(Lba(lba), SectorCount(sectors)));
    ASSERT_TRUE(r) << r.error().message;
    std::fill_n(w.model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes), sectors * kSectorBytes,
                std::byte{0});
}

void expect_scrubbed_clean(ArrayFixture& f) {
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->scrub(ScrubMode::kCheck)));
    ASSERT_TRUE(f.scheduler.run_until([&] { return !f.array->status().scrub.has_value(); }, std::chrono::hours(1)));
    EXPECT_FALSE(f.environment.events().has("scrub-mismatch"));
}

TEST(Discard, whole_stripes_are_given_back_with_their_redundancy_and_nothing_else) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Written w(options_of(shape));
        const std::uint64_t row = row_of(shape);
        const std::uint64_t before = discarded(w.f);
        discard(w, 2 * row, 5 * row);
        EXPECT_EQ(discarded(w.f) - before, copies(shape, 5 * row));
        w.expect_model("after the discard");
        expect_scrubbed_clean(w.f);
        w.rewrite(3 * row + 5, 20);
        w.expect_model("after a write into it");
        w.expect_redundant(w.place);
    }
}

TEST(Discard, a_part_of_a_stripe_is_zeros_and_its_parity_is_stored) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Written w(options_of(shape));
        const std::uint64_t before = discarded(w.f);
        discard(w, row_of(shape) + 8, 16);
        discard(w, 3 * row_of(shape) + 3, 10);
        EXPECT_GT(discarded(w.f), before);
        w.expect_model("after the discards");
        expect_scrubbed_clean(w.f);
        w.expect_redundant(w.place);
    }
}

TEST(Discard, members_that_give_nothing_back_get_zeros_written) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Written w(options_of(shape));
        for (const auto& disk : w.f.disks) {
            disk->set_gives_back(false);
        }
        const std::uint64_t before = discarded(w.f);
        EXPECT_FALSE(w.f.volume().limits().gives_back);
        discard(w, 0, kSectors);
        EXPECT_EQ(discarded(w.f), before);
        w.expect_model("after the discard");
        w.expect_redundant(w.place);
    }
}

TEST(Discard, a_lost_member_is_made_up_as_zeros_and_a_rebuild_gives_back_what_is_zeros) {
    for (const Shape& shape : kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        testing::Degraded d(options_of(shape));
        const std::uint64_t row = row_of(shape);
        discard(d, row, 8 * row);
        d.expect_model("without the member");
        sim::SimDisk& fresh = d.add_disk();
        ASSERT_TRUE(d.rebuild(&fresh));
        d.finish();
        const std::uint64_t zeros = fresh.counters().sectors_discarded;
        EXPECT_GE(zeros, shape.level == std::string("10") ? kStrip : 8 * kStrip);
        EXPECT_LT(zeros, fresh.counters().sectors_written) << "what is no zeros was written";
        d.expect_model("after the rebuild");
        d.expect_redundant(shape.members);
    }
}

TEST(Discard, levels_with_one_copy_give_it_back) {
    for (const char* level : {"0", "linear", "single"}) {
        SCOPED_TRACE(level);
        const std::uint32_t members = level == std::string("single") ? 1 : 3;
        Written w({.level = level, .members = members, .member_bytes = 4 * kMiB}, 0);
        discard(w, 5, 2003);
        EXPECT_EQ(discarded(w.f), 2000U) << "whole blocks";
        w.expect_model("after the discard");
        ASSERT_TRUE(w.f.stop());
        ASSERT_TRUE(w.f.reopen());
        w.expect_model("after a restart");
    }
}

TEST(Discard, limits_say_where_stripes_begin) {
    ArrayFixture f({.level = "5", .members = 4, .member_bytes = 8 * kMiB, .volumes = {{"a", kMiB}, {"b", kMiB}}});
    ASSERT_TRUE(f.create());
    const DeviceLimits a = f.volume("a").limits();
    const DeviceLimits b = f.volume("b").limits();
    EXPECT_TRUE(a.gives_back);
    EXPECT_EQ(a.discard_unit, 3 * kStrip);
    EXPECT_EQ(a.discard_first, 0U);
    const std::uint64_t start = sectors_of(kMiB).value;  // of the second volume in the array
    EXPECT_EQ(b.discard_first, 3 * kStrip - start % (3 * kStrip));
    f.settle();
    const auto data = f.pattern(1000);
    ASSERT_TRUE(f.write(0, data, {}, "b"));
    const std::uint64_t before = discarded(f);
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.volume("b").discard(Lba(b.discard_first), SectorCount(b.discard_unit))));
    EXPECT_EQ(discarded(f) - before, 4 * kStrip);
}

TEST(Discard, the_data_of_a_new_thin_array_is_given_back_and_its_areas_are_not) {
    ArrayFixture f({.level = "5", .members = 4, .member_bytes = 4 * kMiB});
    ArrayConfig c = f.config();
    c.create = ArrayConfig::Create::kIfBlank;
    c.thin = true;
    ASSERT_TRUE(f.open(std::move(c)));
    for (const auto& disk : f.disks) {
        const Superblock sb = testing::newest_superblock(*disk);
        EXPECT_EQ(disk->counters().sectors_discarded, sb.member_sectors);
    }
    f.settle();
    const auto data = f.pattern(500);
    ASSERT_TRUE(f.write(7, data));
    EXPECT_EQ(f.read(7, 500).data, data);
}

/// Discards take time by their length, and do nothing else.
class SlowDiscard : public BlockDevice {
  public:
    SlowDiscard(sim::SimScheduler& scheduler, sim::SimDisk& below) : scheduler_(scheduler), below_(below) {}
    [[nodiscard]] DeviceLimits limits() const override {
        DeviceLimits out = below_.limits();
        out.gives_back = discarded < gives_back;
        return out;
    }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override { return below_.read(lba, to, options); }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override {
        return below_.write(lba, from, options);
    }
    Task<Result<void>> flush() override { return below_.flush(); }
    Task<Result<void>> discard(Lba /*lba*/, SectorCount count) override {
        co_await sleep_for(scheduler_, time_for_gib * static_cast<std::int64_t>(count.value) / kGiB * kSectorBytes);
        if (fails) {
            co_return fail(Errc::kIo, "no discard");
        }
        discarded += count.value;
        co_return Result<void>{};
    }
    [[nodiscard]] std::string name() const override { return below_.name(); }

    Duration time_for_gib = std::chrono::seconds(4);
    std::uint64_t gives_back = ~std::uint64_t{0};  ///< no more than so much
    bool fails = false;
    std::uint64_t discarded = 0;

  private:
    sim::SimScheduler& scheduler_;
    sim::SimDisk& below_;
};

/// A thin array on a member of 2 GiB.
struct Thin {
    Result<void> create() {
        ArrayConfig c = f.config();
        c.create = ArrayConfig::Create::kIfBlank;
        c.thin = true;
        c.members[0].device = &device;
        c.member_timeout = std::chrono::seconds(2);
        return f.open(std::move(c));
    }
    ArrayFixture f{{.level = "single", .members = 1, .member_bytes = 2 * kGiB, .checksums = false}};
    SlowDiscard device{f.scheduler, *f.disks[0]};
};

TEST(Discard, a_new_thin_array_has_time_for_all_of_its_data) {
    Thin t;
    ASSERT_TRUE(t.create());
    EXPECT_GE(t.device.discarded, t.f.volume().limits().sectors.value);
    EXPECT_GT(t.device.discarded, sectors_of(kGiB).value) << "more than a member has time for at once";
}

TEST(Discard, a_new_array_whose_members_keep_their_space_says_so) {
    Thin t;
    t.device.fails = true;
    ASSERT_TRUE(t.create());
    EXPECT_TRUE(t.f.environment.events().has("space-kept"));
}

TEST(Discard, of_a_new_array_ends_where_a_member_gives_nothing_back) {
    Thin t;
    t.device.gives_back = 1;
    ASSERT_TRUE(t.create());
    EXPECT_LE(t.device.discarded, sectors_of(kGiB).value) << "it writes zeros";
}

TEST(Discard, that_does_not_end_is_not_followed_by_an_array) {
    Thin t;
    t.device.time_for_gib = std::chrono::hours(1);
    const auto r = t.create();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kTimedOut);
    EXPECT_NE(r.error().message.find("thin = false"), std::string::npos) << r.error().message;
    t.f.scheduler.run_for(std::chrono::hours(2));
}

}  // namespace
}  // namespace gemel::raid
