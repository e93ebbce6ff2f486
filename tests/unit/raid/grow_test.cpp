// SPDX-License-Identifier: Apache-2.0
// Arrays whose members' devices were extended: found again, grown, and as before in all else (grow.cpp, R9, SB4).
#include <gtest/gtest.h>

#include "raid/growth.hpp"
#include "raid/level_table.hpp"
#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::find_superblock;
using testing::FixtureOptions;
using testing::kSectors;
using testing::newest_superblock;
using testing::options_of;
using testing::Shape;
using testing::Written;

constexpr std::array kAllShapes{Shape{"single", 1, 1}, Shape{"linear", 3, 1}, Shape{"0", 3, 4}, Shape{"1", 3, 4},
                                Shape{"5", 4, 1},      Shape{"5", 5, 4},      Shape{"6", 5, 4}, Shape{"10", 4, 4}};
constexpr std::uint64_t kMore = sectors_of(3 * kMiB).value;

void extend(ArrayFixture& f, std::uint64_t more = kMore) {
    for (std::size_t i = 0; i < f.options.members; ++i) {
        f.disks[i]->extend(SectorCount(f.disks[i]->limits().sectors.value + more));
    }
}

Result<void> grow(ArrayFixture& f) {
    Result<void> r = f.scheduler.run(*f.caller, f.array->grow());
    f.settle();
    return r;
}

void grow_volume(ArrayFixture& f) {
    const SectorCount all = f.volume().limits().sectors + f.array->free_sectors().value;
    const auto r = f.scheduler.run(*f.caller, f.array->resize("vol", all));
    ASSERT_TRUE(r) << r.error().message;
}

ArrayConfig config_after(ArrayFixture& f, SectorCount size) {
    ArrayConfig c = f.config();
    c.former_sizes = {size};
    return c;
}

void expect_reads(ArrayFixture& f, std::uint64_t lba, const std::vector<std::byte>& data, const std::string& what) {
    const auto out = f.read(lba, data.size() / kSectorBytes);
    ASSERT_TRUE(out.result) << what << ": " << out.result.error().message;
    EXPECT_EQ(out.data, data) << what;
}

/// `untrusted`: of some blocks too little is known to compare them.
void expect_clean_scrub(ArrayFixture& f, bool untrusted = false) {
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->scrub(ScrubMode::kCheck)));
    ASSERT_TRUE(f.scheduler.run_until([&f] { return !f.array->status().scrub; }, std::chrono::hours(1)));
    const ScrubReport report = *f.array->status().scrub_report;
    EXPECT_EQ(report.counts.mismatched, 0U)
        << "the first at sector " << (report.faults.empty() ? 0 : report.faults.front().member_lba.value);
    EXPECT_EQ(report.counts.unreadable, 0U);
    EXPECT_TRUE(untrusted || report.counts.untrusted == 0) << report.counts.untrusted;
}

TEST(Grow, every_level_keeps_what_it_had_and_uses_what_was_added) {
    for (const Shape& shape : kAllShapes) {
        SCOPED_TRACE(std::string(shape.level));
        FixtureOptions o = options_of(shape, 2 * kMiB);
        o.strip_bytes = 4096;  // small units, so that I/O crosses them
        Written w(o);
        ArrayFixture& f = w.f;
        std::uint64_t written = kSectors;
        for (int round = 0; round < 3; ++round) {
            const SectorCount before = f.array->status().sectors;
            extend(f);
            const auto r = grow(f);
            ASSERT_TRUE(r) << r.error().message;
            EXPECT_GT(f.array->status().sectors, before + kMore / 2);
            EXPECT_TRUE(f.environment.events().has("array-grown"));
            expect_reads(f, 0, w.model, "after the growth");
            grow_volume(f);
            const std::uint64_t last = f.volume().limits().sectors.value;
            const auto data = f.pattern(last - written);
            for (std::uint64_t at = written; at < last; at += 1500) {
                const std::uint64_t n = std::min<std::uint64_t>(1500, last - at);
                const auto* from = data.data() + (at - written) * kSectorBytes;
                const auto put = f.write(at, std::vector(from, from + n * kSectorBytes));
                ASSERT_TRUE(put) << put.error().message;
            }
            w.model.insert(w.model.end(), data.begin(), data.end());
            written = last;
            expect_reads(f, 0, w.model, "after writing all of it");
            expect_clean_scrub(f);
            ASSERT_TRUE(f.stop());
            ASSERT_TRUE(f.reopen());
            f.settle();
            expect_reads(f, 0, w.model, "after a restart");
        }
    }
}

TEST(Grow, redundancy_of_what_was_added_holds_without_a_member) {
    for (const Shape& shape : testing::kShapes) {
        SCOPED_TRACE(std::string(shape.level));
        FixtureOptions o = options_of(shape, 2 * kMiB);
        o.strip_bytes = 4096;
        Written w(o);
        ArrayFixture& f = w.f;
        extend(f);
        ASSERT_TRUE(grow(f));
        grow_volume(f);
        const auto data = f.pattern(2000);
        const std::uint64_t at = f.volume().limits().sectors.value - 2000;
        ASSERT_TRUE(f.write(at, data));
        f.disks[1]->die();
        expect_reads(f, at, data, "degraded");
        const auto fresh = f.pattern(40);
        ASSERT_TRUE(f.write(at - 100, fresh));
        sim::SimDisk& spare = f.add_disk(bytes_of(f.disks[0]->limits().sectors));
        const auto began = f.scheduler.run(*f.caller, f.array->rebuild(1, {&spare, "spare"}));
        ASSERT_TRUE(began) << began.error().message;
        w.finish();
        f.settle();
        ASSERT_EQ(f.array->status().state, ArrayState::kOptimal);
        const std::uint32_t other = std::string_view(shape.level) == "10" ? 0 : 2 % shape.members;
        f.disks[other]->die();
        expect_reads(f, at, data, "from the rebuilt member");
        expect_reads(f, at - 100, fresh, "written without it");
    }
}

TEST(Grow, a_member_is_replaced_by_a_larger_one_until_all_are) {
    Written w(FixtureOptions{.level = "5", .members = 3, .shards = 4, .member_bytes = 2 * kMiB});
    ArrayFixture& f = w.f;
    for (std::uint32_t m = 0; m < 3; ++m) {
        const auto early = grow(f);
        ASSERT_FALSE(early);
        EXPECT_EQ(early.error().code, Errc::kNoSpace);
        EXPECT_NE(early.error().message.find("member 2 (disk2) has 2097152 bytes"), std::string::npos)
            << early.error().message;
        sim::SimDisk& larger = f.add_disk(6 * kMiB);
        ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->replace(m, {&larger, "larger" + std::to_string(m)})));
        w.finish();
    }
    const SectorCount before = f.array->status().sectors;
    const auto r = grow(f);
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_GT(f.array->status().sectors, before + before.value);
    expect_reads(f, 0, w.model, "after the growth");
    {
        SCOPED_TRACE("after the growth");
        expect_clean_scrub(f);
    }
    // Replaced again, by one that would have been large enough before.
    sim::SimDisk& small = f.add_disk(2 * kMiB);
    const auto refused = f.scheduler.run(*f.caller, f.array->replace(0, {&small, ""}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNoSpace);
    sim::SimDisk& same = f.add_disk(6 * kMiB);
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->replace(0, {&same, ""})));
    w.finish();
    expect_clean_scrub(f);
}

TEST(Grow, what_stands_in_the_way_is_named) {
    Written w(FixtureOptions{.level = "5", .members = 3, .member_bytes = 2 * kMiB});
    ArrayFixture& f = w.f;
    f.disks[0]->extend(SectorCount(8192));
    f.disks[2]->extend(SectorCount(8192));
    const auto small = grow(f);
    ASSERT_FALSE(small);
    EXPECT_EQ(small.error().code, Errc::kNoSpace);
    EXPECT_NE(small.error().message.find("member 1 (disk1) has 2097152 bytes"), std::string::npos);
    EXPECT_NE(small.error().message.find("4194304"), std::string::npos) << small.error().message;
    f.disks[1]->extend(SectorCount(8192));
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->fail_member(1, /*force=*/false)));
    const auto lost = grow(f);
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::kRefused);
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->rebuild(1, {})));
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->grow()).error().code, Errc::kRefused);
    w.finish();
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->grow()));
    EXPECT_EQ(f.scheduler.run(*f.caller, f.array->grow()).error().code, Errc::kBusy) << "it is resyncing";
    f.settle();
    EXPECT_EQ(grow(f).error().code, Errc::kNoSpace);
}

TEST(Grow, a_member_that_has_shrunk_is_refused) {
    Written w(FixtureOptions{.level = "5", .members = 3, .member_bytes = 2 * kMiB});
    const Superblock sb = newest_superblock(*w.f.disks[0]);
    const std::vector<std::string> names{"a", "b", "c"};
    const auto r = plan_growth(sb, std::vector<std::uint64_t>{8192, 4096 - 256, 8192}, names);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::kRefused);
    EXPECT_NE(r.error().message.find("b has"), std::string::npos) << r.error().message;
}

TEST(Grow, linear_grows_at_its_last_member) {
    FixtureOptions o{.level = "linear", .members = 3, .member_bytes = 2 * kMiB};
    Written w(o);
    ArrayFixture& f = w.f;
    f.disks[0]->extend(SectorCount(16384));
    const auto first = grow(f);
    ASSERT_FALSE(first);
    EXPECT_EQ(first.error().code, Errc::kNoSpace);
    EXPECT_NE(first.error().message.find("level linear grows at its last member"), std::string::npos);
    f.disks[2]->extend(SectorCount(16384));
    ASSERT_TRUE(grow(f));
    expect_reads(f, 0, w.model, "after the growth");
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    expect_reads(f, 0, w.model, "after a restart");
}

TEST(Extended, while_the_array_is_stopped_it_is_found_where_it_ended) {
    for (const Shape& shape : kAllShapes) {
        SCOPED_TRACE(std::string(shape.level));
        Written w(options_of(shape, 2 * kMiB));
        ArrayFixture& f = w.f;
        const SectorCount size = f.disks[0]->limits().sectors;
        ASSERT_TRUE(f.stop());
        extend(f);
        testing::expect_refused(f, f.config(), Errc::kNotFound, "no member holds array");
        ASSERT_TRUE(f.open(config_after(f, size)));
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
        f.settle();
        for (std::size_t i = 0; i < f.options.members; ++i) {  // SB4
            EXPECT_TRUE(find_superblock(*f.disks[i])) << "no superblock at the new end of " << i;
            const auto image = f.disks[i]->snapshot();
            const auto old = std::span(image).subspan(byte_offset(superblock_slot(size, 0)), 2 * kSuperblockBytes);
            EXPECT_TRUE(std::ranges::all_of(old, [](std::byte b) { return b == std::byte{0}; })) << i;
        }
        expect_reads(f, 0, w.model, "after it was extended");
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.reopen()) << "the new end is where it is looked for";
        ASSERT_TRUE(grow(f));
        expect_reads(f, 0, w.model, "after the growth");
    }
}

TEST(Extended, one_member_is_found_by_where_the_others_end) {
    Written w(FixtureOptions{.level = "5", .members = 4, .member_bytes = 2 * kMiB});
    ArrayFixture& f = w.f;
    ASSERT_TRUE(f.stop());
    f.disks[2]->extend(SectorCount(9000));
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
    EXPECT_FALSE(f.environment.events().has("member-missing"));
}

TEST(Extended, by_a_little_nothing_of_the_newest_superblock_is_overwritten) {
    for (const std::uint64_t more : {8U, 32U, 56U, 64U, 72U, 120U, 128U, 136U}) {
        for (const bool twice : {false, true}) {
            Written w(FixtureOptions{.level = "0", .members = 2, .strip_bytes = 4096, .member_bytes = 2 * kMiB});
            ArrayFixture& f = w.f;
            const SectorCount size = f.disks[0]->limits().sectors;
            if (twice) {  // the other slot has the newest one
                const SectorCount half(round_down(f.volume().limits().sectors.value / 2, 8));
                ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("vol", half)));
                ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("vol", half + 8)));
                ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->resize("vol", half)));
            }
            ASSERT_TRUE(f.stop());
            extend(f, more);
            // Any write of a superblock is torn: the one before it must still be found.
            for (int i = 0; i < 6; ++i) {
                std::optional<Result<std::unique_ptr<Array>>> opened;
                auto body = [](Task<Result<std::unique_ptr<Array>>> task,
                               std::optional<Result<std::unique_ptr<Array>>>& out) -> Task<void> {
                    out.emplace(co_await std::move(task));
                };
                f.scheduler.start(*f.caller, body(Array::open(f.environment.get(), config_after(f, size)), opened));
                f.scheduler.run_for(std::chrono::microseconds(700 * (i + 1)));
                for (auto& d : f.disks) {
                    d->power_cut();
                }
                ASSERT_TRUE(f.scheduler.run_until([&] { return opened.has_value(); }));
                if (*opened) {
                    f.array = std::move(**opened);
                    f.stop_anyhow();
                }
                for (auto& d : f.disks) {
                    d->revive();
                }
            }
            const auto r = f.open(config_after(f, size));
            ASSERT_TRUE(r) << more << ": " << r.error().message;
        }
    }
}

TEST(Extended, a_blank_device_with_an_old_superblock_of_another_array_is_blank) {
    Written w(FixtureOptions{.level = "5", .members = 3, .member_bytes = 2 * kMiB});
    ArrayFixture& f = w.f;
    const SectorCount size = f.disks[0]->limits().sectors;
    ASSERT_TRUE(f.stop());
    f.disks[1]->extend(SectorCount(9000));
    ArrayConfig c = config_after(f, size);
    c.name = "other";
    const auto r = f.open(std::move(c));
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("belongs to array 'r'"), std::string::npos) << r.error().message;
}

/// The growth is cut short after `when`; what is left is the old array or the new one, whole.
bool grown_after_crash(const Shape& shape, Duration when, bool power) {
    FixtureOptions o = options_of(shape, 2 * kMiB);
    o.strip_bytes = 4096;
    o.seed = 1 + static_cast<std::uint64_t>(when.count());
    Written w(o);
    ArrayFixture& f = w.f;
    EXPECT_TRUE(f.flush());
    const SectorCount size = f.disks[0]->limits().sectors;
    const SectorCount before = f.array->status().sectors;
    extend(f);
    std::optional<Result<void>> grown;
    auto body = [](Task<Result<void>> task, std::optional<Result<void>>& out) -> Task<void> {
        out.emplace(co_await std::move(task));
    };
    f.scheduler.start(*f.caller, body(f.array->grow(), grown));
    f.scheduler.run_for(when);
    const bool acknowledged = grown && *grown;
    f.crash(power);
    EXPECT_TRUE(f.scheduler.run_until([&] { return grown.has_value(); }));
    const auto r = f.open(config_after(f, size));
    EXPECT_TRUE(r) << (r ? "" : r.error().message);
    if (!r) {
        return false;
    }
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
    f.settle();
    const bool larger = f.array->status().sectors > before;
    EXPECT_TRUE(larger || !acknowledged) << "an acknowledged growth is gone";
    expect_reads(f, 0, w.model, "after the crash");
    if (!larger) {
        EXPECT_TRUE(grow(f));
    }
    grow_volume(f);
    const auto data = f.pattern(900);
    const std::uint64_t at = f.volume().limits().sectors.value - 900;
    EXPECT_TRUE(f.write(at, data));
    expect_reads(f, at, data, "at the new end");
    if (find_level(shape.level)->redundant) {
        expect_clean_scrub(f);
    }
    return larger;
}

TEST(Grow, a_crash_leaves_the_old_array_or_the_new_one) {
    for (const Shape& shape : {Shape{"5", 4, 4}, Shape{"1", 2, 1}, Shape{"0", 3, 1}, Shape{"10", 4, 1}}) {
        SCOPED_TRACE(std::string(shape.level));
        int old = 0;
        int grown = 0;
        for (int i = 0; i < 24; ++i) {
            const bool larger = grown_after_crash(shape, std::chrono::microseconds(110 * i), i % 2 == 0);
            (larger ? grown : old) += 1;
        }
        EXPECT_GT(old, 0);
        EXPECT_GT(grown, 0);
    }
}

TEST(Grow, hosts_go_on_while_it_grows) {
    for (const Shape& shape : kAllShapes) {
        SCOPED_TRACE(std::string(shape.level));
        Written w(options_of(shape, 2 * kMiB));
        ArrayFixture& f = w.f;
        extend(f);
        std::optional<Result<void>> grown;
        auto body = [](Task<Result<void>> task, std::optional<Result<void>>& out) -> Task<void> {
            out.emplace(co_await std::move(task));
        };
        f.scheduler.start(*f.caller, body(f.array->grow(), grown));
        for (std::uint64_t i = 0; i < 60; ++i) {
            w.rewrite(i * 37 % (kSectors - 64), 8 + i % 56);
        }
        ASSERT_TRUE(f.scheduler.run_until([&] { return grown.has_value(); }));
        ASSERT_TRUE(*grown) << grown->error().message;
        expect_reads(f, 0, w.model, "while it resyncs");
        f.settle();
        expect_reads(f, 0, w.model, "afterwards");
    }
}

// ---- members that come back to an array that has grown

bool caught_up(ArrayFixture& f) {
    return std::ranges::any_of(f.environment.events().all(), [](const auto& e) {
        return e.id == "rebuild-started" && e.cause.contains("it came back");
    });
}

/// Member 1 comes back, gets less than `most` bytes, and is worth as much as the others.
void come_back(Written& w, std::uint64_t most) {
    ArrayFixture& f = w.f;
    f.environment.events().clear();
    f.disks[1]->revive();
    const auto began = f.scheduler.run(*f.caller, f.array->rebuild(1, {}));
    ASSERT_TRUE(began) << began.error().message;
    ASSERT_TRUE(f.array->status().rebuild);
    EXPECT_LT(f.array->status().rebuild->total_bytes, most);
    w.finish();
    f.settle();
    EXPECT_TRUE(caught_up(f));
    EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
}

/// Whole stripes of the volume from sector `first` on.
std::vector<std::byte> fill_from(ArrayFixture& f, std::uint64_t first) {
    constexpr std::uint64_t kRows = 960;  // whole stripes of 4 KiB strips at 2, 3, 4 and 5 of them
    const std::uint64_t last = f.volume().limits().sectors.value;
    auto data = f.pattern(last - first);
    for (std::uint64_t at = first; at < last;) {
        const std::uint64_t n = std::min(at / kRows * kRows + kRows, last) - at;
        const auto* from = data.data() + (at - first) * kSectorBytes;
        const auto put = f.write(at, std::vector(from, from + n * kSectorBytes));
        EXPECT_TRUE(put) << put.error().message;
        at += n;
    }
    return data;
}

TEST(Grow, a_member_that_comes_back_afterwards_gets_what_it_missed) {
    for (const Shape& shape : testing::kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        FixtureOptions o = options_of(shape, 8 * kMiB);
        o.strip_bytes = 4096;
        Written w(o);
        ArrayFixture& f = w.f;
        f.disks[1]->die();
        w.rewrite(100, 700);
        come_back(w, kMore * kSectorBytes);
        expect_clean_scrub(f);
        extend(f);
        ASSERT_TRUE(grow(f));
        grow_volume(f);
        ASSERT_TRUE(f.flush());
        f.scheduler.run_for(std::chrono::seconds(10));
        f.disks[1]->die();
        w.rewrite(900, 700);
        const auto data = f.pattern(960);
        const std::uint64_t at = f.volume().limits().sectors.value - 960;
        ASSERT_TRUE(f.write(at, data));
        come_back(w, kMore * kSectorBytes);
        expect_clean_scrub(f);
        f.disks[std::string_view(shape.level) == "10" ? 0 : shape.members - 1]->die();
        expect_reads(f, 0, w.model, "what was there");
        expect_reads(f, at, data, "what was added");
    }
}

/// The superblock that says so finds it lost.
TEST(Grow, a_member_that_is_lost_in_it_gets_all_that_was_added) {
    for (const Shape& shape : testing::kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        FixtureOptions o = options_of(shape, 8 * kMiB);
        o.strip_bytes = 4096;
        Written w(o);
        ArrayFixture& f = w.f;
        const SectorCount size = f.disks[0]->limits().sectors;
        ASSERT_TRUE(f.stop());
        extend(f);
        ASSERT_TRUE(f.open(config_after(f, size)));  // which moves the superblocks: the next one is that of the growth
        f.settle();
        const std::uint64_t before = f.volume().limits().sectors.value;
        f.disks[1]->fail_next_writes(1);
        const auto r = grow(f);
        ASSERT_TRUE(r) << r.error().message;
        ASSERT_EQ(w.state(), MemberState::kFailed);
        grow_volume(f);
        w.rewrite(900, 60);
        // The rest holds anything, which only legs can be made to agree on without it.
        const std::uint64_t middle = round_up((before + f.volume().limits().sectors.value) / 2, 960);
        const auto data = fill_from(f, middle);
        EXPECT_GT(f.array->status().members[1].missed_bytes.value_or(0), kMore * kSectorBytes / 2);
        come_back(w, 8 * kMiB);
        expect_clean_scrub(f, /*untrusted=*/true);  // what was not written
        f.disks[std::string_view(shape.level) == "10" ? 0 : shape.members - 1]->die();
        expect_reads(f, 0, w.model, "what was there");
        expect_reads(f, middle, data, "what was added");
    }
}

TEST(Extended, while_it_is_away_a_member_comes_back_as_it_was) {
    for (const Shape& shape : testing::kShapes) {
        SCOPED_TRACE(std::string(shape.level) + "/" + std::to_string(shape.members));
        Written w(options_of(shape, 8 * kMiB));
        ArrayFixture& f = w.f;
        const SectorCount size = f.disks[1]->limits().sectors;
        f.disks[1]->die();
        w.rewrite(100, 700);
        extend(f);
        come_back(w, kMore * kSectorBytes);
        expect_clean_scrub(f);
        const auto image = f.disks[1]->snapshot();
        const auto old = std::span(image).subspan(byte_offset(superblock_slot(size, 0)), 2 * kSuperblockBytes);
        EXPECT_TRUE(std::ranges::all_of(old, [](std::byte b) { return b == std::byte{0}; })) << "SB4";
        EXPECT_TRUE(find_superblock(*f.disks[1])) << "no superblock at the new end";
        ASSERT_TRUE(grow(f));
        expect_clean_scrub(f);
        w.expect_redundant(1);
    }
}

}  // namespace
}  // namespace gemel::raid
