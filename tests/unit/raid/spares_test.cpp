// SPDX-License-Identifier: Apache-2.0
// Spares that a running array gets and gives back.
#include <gtest/gtest.h>

#include "tests/unit/raid/rebuild_fixture.hpp"

namespace gemel::raid {
namespace {

using namespace std::chrono_literals;
using testing::contents;
using testing::Degraded;
using testing::options_of;
using testing::Written;

struct Spared : Written {
    Spared() : Written(options_of({"5", 4, 4}, 8 * kMiB)), spare(add_disk()) {}
    Result<void> add(BlockDevice* device) {
        return f.scheduler.run(*f.caller, f.array->add_spare({device, device->name()}));
    }
    Result<void> remove(BlockDevice* device) {
        return f.scheduler.run(*f.caller, f.array->remove_spare({device, device->name()}));
    }
    [[nodiscard]] std::vector<std::string> spares() const { return f.array->status().spares; }
    sim::SimDisk& spare;
};

TEST(AddedSpares, one_that_is_added_takes_the_place_of_the_next_member_that_fails) {
    Spared d;
    ASSERT_TRUE(d.add(&d.spare));
    EXPECT_EQ(d.spares(), std::vector{d.spare.name()});
    EXPECT_EQ(d.spare.counters().writes, 0U);
    d.f.disks[d.place]->die();
    d.rewrite(0, 64);
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    EXPECT_TRUE(d.spares().empty());
    EXPECT_EQ(d.remove(&d.spare).error().code, Errc::kRefused);
    d.expect_redundant(d.f.disks.size() - 1);
}

TEST(AddedSpares, one_that_is_added_to_a_degraded_array_is_used_at_once) {
    Degraded d(options_of({"6", 5, 1}, 8 * kMiB));
    sim::SimDisk& spare = d.add_disk();
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->add_spare({&spare, ""})));
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    d.expect_redundant(d.f.disks.size() - 1);
}

TEST(AddedSpares, one_that_is_taken_away_is_not_used_and_may_be_added_again) {
    Spared d;
    ASSERT_TRUE(d.add(&d.spare));
    ASSERT_TRUE(d.remove(&d.spare));
    EXPECT_TRUE(d.spares().empty());
    d.f.disks[d.place]->die();
    d.rewrite(0, 64);
    d.f.scheduler.run_for(5s);
    EXPECT_EQ(d.state(), MemberState::kFailed);
    EXPECT_EQ(d.spare.counters().writes, 0U);
    EXPECT_EQ(d.remove(&d.spare).error().code, Errc::kNotFound);
    ASSERT_TRUE(d.add(&d.spare));
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    d.expect_redundant(d.f.disks.size() - 1);
}

TEST(AddedSpares, an_array_stops_when_none_is_being_taken_away) {
    Spared d;
    ASSERT_TRUE(d.add(&d.spare));
    sim::SimDisk& mute = d.add_disk();
    mute.hang();
    std::vector<Result<void>> ended;
    const auto keep = [](Task<Result<void>> task, std::vector<Result<void>>& out) -> Task<void> {
        out.push_back(co_await std::move(task));
    };
    d.f.scheduler.start(*d.f.caller, keep(d.f.array->add_spare({&mute, ""}), ended));
    d.f.scheduler.start(*d.f.caller, keep(d.f.array->remove_spare({&d.spare, ""}), ended));
    d.f.scheduler.run_for(100ms);
    ASSERT_TRUE(ended.empty()) << "one waits for its device, the other for the first";
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->stop()));
    EXPECT_EQ(ended.size(), 2U);
    EXPECT_EQ(d.remove(&d.spare).error().code, Errc::kClosed);
    EXPECT_EQ(d.add(&d.spare).error().code, Errc::kClosed);
    mute.kill_process();
}

TEST(AddedSpares, one_that_had_a_place_and_lost_it_is_let_go) {
    Spared d;
    ASSERT_TRUE(d.add(&d.spare));
    d.f.disks[d.place]->die();
    d.rewrite(0, 64);
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    sim::SimDisk& next = d.add_disk();
    ASSERT_TRUE(d.f.scheduler.run(*d.f.caller, d.f.array->fail_member(d.place, /*force=*/false)));
    EXPECT_EQ(d.remove(&d.spare).error().code, Errc::kRefused) << "it still has the place";
    ASSERT_TRUE(d.add(&next));
    ASSERT_TRUE(d.f.scheduler.run_until([&] { return d.state() == MemberState::kInSync; }, 600s));
    EXPECT_EQ(d.remove(&d.spare).error().code, Errc::kNotFound);
    const std::uint64_t io = d.spare.counters().reads + d.spare.counters().writes + d.spare.counters().flushes;
    d.rewrite(100, 64);
    EXPECT_EQ(d.spare.counters().reads + d.spare.counters().writes + d.spare.counters().flushes, io);
    d.expect_redundant(d.f.disks.size() - 1);
}

TEST(AddedSpares, what_can_be_none_is_refused_and_not_changed) {
    Spared d;
    sim::SimDisk& small = d.f.add_disk(4 * kMiB);
    sim::SimDisk& used = d.add_disk();
    std::vector<std::byte> some(kBlockBytes, std::byte{7});
    used.load(some);
    sim::SimDisk& former = d.add_disk();
    former.load(*d.f.disks[2]);
    sim::SimDisk& silent = d.add_disk();
    silent.die();
    sim::SimDisk& mute = d.add_disk();
    mute.hang();
    EXPECT_EQ(d.add(&mute).error().code, Errc::kBusy);
    const auto before = contents(d.f);  // by now the array is idle
    EXPECT_EQ(d.add(&small).error().code, Errc::kNoSpace);
    EXPECT_EQ(d.add(&used).error().code, Errc::kRefused);
    EXPECT_EQ(d.add(&former).error().code, Errc::kRefused);
    EXPECT_EQ(d.add(&silent).error().code, Errc::kDeviceGone);
    EXPECT_EQ(d.add(d.f.disks[0].get()).error().code, Errc::kAlreadyExists);
    ASSERT_TRUE(d.add(&d.spare));
    EXPECT_EQ(d.add(&d.spare).error().code, Errc::kAlreadyExists);
    EXPECT_EQ(d.spares(), std::vector{d.spare.name()});
    EXPECT_TRUE(contents(d.f) == before);
    mute.answer();
    Written none(options_of({"0", 4, 1}));
    EXPECT_EQ(none.f.scheduler.run(*none.f.caller, none.f.array->add_spare({&none.add_disk(), ""})).error().code,
              Errc::kInvalidArgument);
}

}  // namespace
}  // namespace gemel::raid
