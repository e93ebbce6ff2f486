// SPDX-License-Identifier: Apache-2.0
// Members that do not answer: the array goes on without them, and nothing that they do later matters.
#include <gtest/gtest.h>

#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using namespace std::chrono_literals;
using testing::ArrayFixture;

constexpr Duration kPatience = 2s;
constexpr Duration kSoon = 3s;  ///< an I/O that was given up has ended

class Silence : public ::testing::Test {
  protected:
    std::unique_ptr<ArrayFixture> fixture;
    std::uint64_t sectors = 0;
    std::vector<std::byte> model;

    ArrayFixture& f() { return *fixture; }
    void TearDown() override { end(); }
    /// What hangs ends as with the process.
    void end() {
        if (fixture == nullptr) {
            return;
        }
        if (f().array) {
            f().stop_anyhow();
        }
        for (auto& disk : f().disks) {
            disk->kill_process();
        }
        f().scheduler.run_for(1s);
        expect_no_complaints();
        EXPECT_EQ(f().environment.pool().outstanding_bytes(), 0U);
        fixture.reset();
    }
    void make(const std::string& level, std::uint32_t members, std::uint32_t shards = 1) {
        end();
        fixture = std::make_unique<ArrayFixture>(
            testing::FixtureOptions{.level = level, .members = members, .shards = shards});
        ArrayConfig c = config();
        c.create = ArrayConfig::Create::kIfBlank;
        ASSERT_TRUE(f().open(c));
        f().settle();
        sectors = f().volume().limits().sectors.value;
        model = f().pattern(sectors);
        ASSERT_TRUE(f().write(0, model));
        ASSERT_TRUE(f().flush());
    }
    ArrayConfig config() {
        ArrayConfig c = f().config();
        c.member_timeout = kPatience;
        return c;
    }
    struct Ended {
        std::optional<Result<void>> result;
        TimePoint when{};
    };
    static Task<void> write_later(ArrayFixture& f, std::uint64_t lba, std::vector<std::byte> data, Ended& out) {
        const Buffer buffer = *f.environment.pool().allocate(data.size());
        const Slice slice = buffer.slice(data.size(), Lba(lba));
        std::ranges::copy(data, slice.data().begin());
        slice.seal();
        out.result = co_await f.volume().write(Lba(lba), slice, {});
        out.when = f.scheduler.now();
    }
    void start_write(std::uint64_t lba, std::uint64_t count, Ended& out) {
        const auto data = f().pattern(count);
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
        f().scheduler.start(*f().caller, write_later(f(), lba, data, out));
    }
    /// As a host: what a device still holds is read again.
    std::vector<std::byte> read_all() {
        auto got = f().read(0, sectors);
        for (int i = 0; i < 3 && !got.result && got.result.error().code == Errc::kTimedOut; ++i) {
            got = f().read(0, sectors);
        }
        EXPECT_TRUE(got.result) << got.result.error().message;
        return got.data;
    }
    MemberState state(std::size_t member) { return f().array->status().members[member].state; }
    void expect_no_complaints() {
        for (const auto& disk : f().disks) {
            EXPECT_TRUE(disk->complaints().empty()) << disk->complaints().front();
        }
    }
};

TEST_F(Silence, writes_and_reads_go_on_without_a_member_that_never_answers) {
    for (const auto& [level, members] :
         {std::pair{"1", 3U}, std::pair{"5", 4U}, std::pair{"6", 5U}, std::pair{"10", 4U}}) {
        for (const std::uint32_t shards : {1U, 4U}) {
            SCOPED_TRACE(std::string("level ") + level);
            make(level, members, shards);
            f().disks[1]->hang();
            const TimePoint began = f().scheduler.now();
            std::vector<Ended> writes(40);
            for (std::size_t i = 0; i < writes.size(); ++i) {
                start_write(i * 37, 30, writes[i]);
            }
            f().scheduler.run_for(kPatience - 100ms);
            EXPECT_EQ(state(1), MemberState::kInSync) << "it has time";
            f().scheduler.run_for(kSoon);
            for (const Ended& w : writes) {
                ASSERT_TRUE(w.result && *w.result);
                EXPECT_LE(w.when - began, kPatience + kPatience / 2);
            }
            EXPECT_EQ(state(1), MemberState::kFailed);
            EXPECT_TRUE(f().environment.events().has("member-failed"));
            EXPECT_GT(f().array->status().members[1].unanswered, 0U);
            EXPECT_EQ(read_all(), model);
            ASSERT_TRUE(f().write(3, f().pattern(5))) << "where an I/O hangs, too";
            ASSERT_TRUE(f().stop());
            f().disks[1]->kill_process();
            f().scheduler.run_for(1s);
            f().disks[1]->revive();
            ASSERT_TRUE(f().open(config()));
            EXPECT_EQ(state(1), MemberState::kStale) << "its failure was durable";
        }
    }
}

TEST_F(Silence, an_answer_after_the_deadline_changes_nothing) {
    make("5", 4);
    f().disks[1]->hang();
    std::vector<Ended> writes(20);
    for (std::size_t i = 0; i < writes.size(); ++i) {
        start_write(i * 50, 40, writes[i]);
    }
    f().scheduler.run_for(kSoon);
    std::vector<Ended> again(20);
    for (std::size_t i = 0; i < again.size(); ++i) {
        start_write(i * 50, 40, again[i]);
    }
    f().scheduler.run_for(1s);
    const auto before = f().array->status();
    ASSERT_GT(before.members[1].unanswered, 0U);
    f().disks[1]->answer();
    f().scheduler.run_for(1s);
    const auto after = f().array->status();
    EXPECT_EQ(after.members[1].unanswered, 0U);
    EXPECT_EQ(after.members[1].state, MemberState::kFailed);
    EXPECT_EQ(after.epoch, before.epoch);
    EXPECT_EQ(read_all(), model);
    expect_no_complaints();
}

TEST_F(Silence, another_device_takes_the_place_while_the_silent_one_still_hangs) {
    make("5", 4);
    sim::SimDisk& fresh = f().add_disk(f().options.member_bytes);
    f().disks[1]->hang();
    Ended write;
    start_write(0, 200, write);
    f().scheduler.run_for(kSoon);
    ASSERT_EQ(state(1), MemberState::kFailed);
    const auto own = f().scheduler.run(*f().caller, f().array->rebuild(1, {}));
    ASSERT_FALSE(own);
    EXPECT_EQ(own.error().code, Errc::kBusy) << own.error().message;
    const auto began = f().scheduler.run(*f().caller, f().array->rebuild(1, {&fresh, ""}));
    ASSERT_TRUE(began) << began.error().message;
    ASSERT_TRUE(f().scheduler.run_until([this] { return state(1) == MemberState::kInSync; }, std::chrono::minutes(10)));
    EXPECT_EQ(f().array->status().members[1].unanswered, 0U) << "of the device that has the place";
    const auto let_go = [this] {
        return f().scheduler.run(*f().caller, f().array->remove_spare({f().disks[1].get(), ""})).error().code;
    };
    EXPECT_EQ(let_go(), Errc::kBusy) << "what it was given may still happen";
    f().disks[1]->answer();
    f().scheduler.run_for(kSoon);
    EXPECT_EQ(let_go(), Errc::kNotFound);
    EXPECT_EQ(state(1), MemberState::kInSync);
    f().disks[0]->die();
    EXPECT_EQ(read_all(), model);
}

TEST_F(Silence, a_device_that_does_not_answer_ends_its_rebuild) {
    make("6", 5);
    sim::SimDisk& fresh = f().add_disk(f().options.member_bytes);
    f().disks[1]->die();
    ASSERT_TRUE(f().write(0, f().pattern(8)));
    ASSERT_TRUE(f().write(0, {model.begin(), model.begin() + 8 * kSectorBytes}));
    ASSERT_TRUE(f().scheduler.run(*f().caller, f().array->rebuild(1, {&fresh, ""})));
    fresh.hang();
    f().scheduler.run_for(2 * kSoon);
    EXPECT_FALSE(f().array->status().rebuild);
    EXPECT_EQ(state(1), MemberState::kFailed);
    EXPECT_EQ(read_all(), model);
}

TEST_F(Silence, a_rebuild_that_cannot_begin_for_the_silence_of_its_device_says_so) {
    for (const std::uint64_t writes : {2U, 3U}) {  // both slots are empty; then its superblock
        SCOPED_TRACE("after " + std::to_string(writes) + " writes");
        make("6", 5);
        sim::SimDisk& fresh = f().add_disk(f().options.member_bytes);
        f().disks[1]->die();
        ASSERT_TRUE(f().write(0, f().pattern(200)));
        ASSERT_EQ(state(1), MemberState::kFailed);
        std::optional<Result<void>> began;
        const auto begin = [](ArrayFixture& f, sim::SimDisk& onto, std::optional<Result<void>>& out) -> Task<void> {
            out = co_await f.array->rebuild(1, {&onto, ""});
        };
        f().scheduler.start(*f().caller, begin(f(), fresh, began));
        ASSERT_TRUE(f().scheduler.run_until([&] { return fresh.counters().writes == writes && fresh.waiting() > 0; }));
        fresh.hang();
        ASSERT_TRUE(f().scheduler.run_until([&] { return began.has_value(); }, 2 * kSoon));
        ASSERT_FALSE(*began);
        EXPECT_EQ(began->error().code, Errc::kBusy) << began->error().message;
    }
}

TEST_F(Silence, a_read_that_hangs_is_told_apart_and_its_memory_is_not_given_out) {
    for (const auto& [level, members] : {std::pair{"1", 2U}, std::pair{"5", 4U}, std::pair{"6", 5U}}) {
        SCOPED_TRACE(level);
        make(level, members);
        const std::size_t idle = f().environment.pool().outstanding_bytes();
        const std::size_t silent = std::string_view(level) == "1" ? 0 : 1;
        f().disks[silent]->hang();
        const auto got = f().read(0, sectors);
        ASSERT_FALSE(got.result);
        EXPECT_EQ(got.result.error().code, Errc::kTimedOut);
        EXPECT_EQ(state(silent), MemberState::kFailed) << "durably, before the caller hears of it";
        EXPECT_GT(f().environment.pool().outstanding_bytes(), idle) << "the device may still write there";
        EXPECT_EQ(read_all(), model);
        f().disks[silent]->answer();
        f().scheduler.run_for(1s);
        EXPECT_EQ(f().environment.pool().outstanding_bytes(), idle);
    }
}

TEST_F(Silence, a_member_that_is_slow_within_the_time_stays) {
    make("5", 4);
    f().disks[1]->hang(kPatience - 200ms);
    ASSERT_TRUE(f().write(0, f().pattern(200)));
    ASSERT_TRUE(f().flush());
    EXPECT_EQ(state(1), MemberState::kInSync);
}

TEST_F(Silence, a_flush_that_hangs_fails_the_member) {
    make("1", 2);
    f().disks[0]->hang();
    EXPECT_TRUE(f().flush());
    EXPECT_EQ(state(0), MemberState::kFailed);
}

TEST_F(Silence, a_superblock_that_hangs_fails_its_member_too) {
    make("6", 5);
    f().disks[1]->die();
    f().disks[2]->hang();
    ASSERT_TRUE(f().write(0, f().pattern(1)));  // not on member 2, but the failure of member 1 is to be noted there
    EXPECT_EQ(state(1), MemberState::kFailed);
    EXPECT_EQ(state(2), MemberState::kFailed);
    EXPECT_EQ(f().array->status().state, ArrayState::kDegraded);
    ASSERT_GT(f().array->status().members[2].unanswered, 0U);
    const auto own = f().scheduler.run(*f().caller, f().array->rebuild(2, {}));
    ASSERT_FALSE(own) << "the superblock that hangs could be written over a newer one";
    EXPECT_EQ(own.error().code, Errc::kBusy) << own.error().message;
}

TEST_F(Silence, the_last_copy_is_waited_for_and_never_failed) {
    make("1", 2);
    f().disks[0]->die();
    ASSERT_TRUE(f().write(0, f().pattern(8)));
    ASSERT_EQ(state(0), MemberState::kFailed);
    f().disks[1]->hang();
    Ended late;
    start_write(100, 20, late);
    f().scheduler.run_for(10 * kPatience);
    EXPECT_FALSE(late.result) << "its lock and its memory are the device's until it answers";
    EXPECT_EQ(state(1), MemberState::kInSync);
    EXPECT_EQ(f().array->status().state, ArrayState::kReadOnly);
    EXPECT_EQ(f().write(500, f().pattern(1)).error().code, Errc::kReadOnly);
    f().disks[1]->answer();
    f().scheduler.run_for(1s);
    ASSERT_TRUE(late.result);
    EXPECT_EQ(read_all().size(), model.size());
    expect_no_complaints();
}

TEST_F(Silence, the_stop_of_an_array_ends_whatever_its_members_do) {
    for (const char* level : {"0", "1", "5", "6"}) {
        SCOPED_TRACE(level);
        make(level, 4);
        for (auto& disk : f().disks) {
            disk->hang();
        }
        std::vector<Ended> writes(10);
        for (std::size_t i = 0; i < writes.size(); ++i) {
            start_write(i * 50, 40, writes[i]);
        }
        f().scheduler.run_for(10ms);
        const TimePoint began = f().scheduler.now();
        EXPECT_FALSE(f().stop());
        EXPECT_LE(f().scheduler.now() - began, 8 * kPatience);
        for (const Ended& w : writes) {
            EXPECT_TRUE(w.result && !*w.result);
        }
    }
}

TEST_F(Silence, a_start_does_not_wait_for_a_member_that_does_not_answer) {
    make("5", 4);
    ASSERT_TRUE(f().stop());
    f().disks[2]->hang();
    const TimePoint began = f().scheduler.now();
    ASSERT_TRUE(f().open(config()));
    EXPECT_LE(f().scheduler.now() - began, 2 * kPatience);
    EXPECT_EQ(state(2), MemberState::kMissing);
    EXPECT_EQ(read_all(), model);
}

TEST_F(Silence, an_idle_array_has_no_timer) {
    make("5", 4, 4);
    f().scheduler.run_for(10s);
    EXPECT_FALSE(f().scheduler.step()) << "clean, nothing in flight, nothing armed";
}

TEST_F(Silence, the_time_has_bounds) {
    make("1", 2);
    ASSERT_TRUE(f().stop());
    for (const Duration d : {Duration(0), Duration(99ms), Duration(601s)}) {
        ArrayConfig c = f().config();
        c.member_timeout = d;
        testing::expect_refused(f(), c, Errc::kInvalidArgument, "100 ms to 10 min");
    }
    ASSERT_TRUE(f().open(config()));
}

}  // namespace
}  // namespace gemel::raid
