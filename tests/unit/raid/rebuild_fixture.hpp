// SPDX-License-Identifier: Apache-2.0
// Written, Degraded: an array with a model of what was written, for tests of rebuilds and replaces.
// Threads: the simulator's one.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "raid/array.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid::testing {

inline constexpr std::uint64_t kSectors = 3000;

struct Shape {
    const char* level;
    std::uint32_t members;
    std::uint32_t shards;
};
inline constexpr std::array kShapes{Shape{"6", 4, 1}, Shape{"6", 6, 4}, Shape{"1", 2, 1},  Shape{"1", 3, 4},
                                    Shape{"5", 3, 1}, Shape{"5", 5, 4}, Shape{"10", 4, 1}, Shape{"10", 6, 4}};

inline FixtureOptions options_of(const Shape& shape, std::uint64_t bytes = 4 * kMiB) {
    return {.level = shape.level, .members = shape.members, .shards = shape.shards, .member_bytes = bytes};
}

/// An array that was written, of which member `place` matters.
struct Written {
    explicit Written(const FixtureOptions& options, std::uint32_t which = 1) : f(options), place(which) {
        CHECK(f.create());
        f.settle();
        model = f.pattern(kSectors);
        CHECK(f.write(0, model));
    }
    void rewrite(std::uint64_t lba, std::uint64_t sectors) {
        const auto data = f.pattern(sectors);
        const auto r = f.write(lba, data);
        ASSERT_TRUE(r) << r.error().message;
        std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
    }
    sim::SimDisk& add_disk() { return f.add_disk(f.options.member_bytes); }
    [[nodiscard]] MemberState state() const { return f.array->status().members[place].state; }
    [[nodiscard]] bool ended() const { return !f.array->status().rebuild.has_value(); }
    void finish() {
        ASSERT_TRUE(f.scheduler.run_until([this] { return ended(); }, std::chrono::hours(1)));
    }
    void until_percent(std::uint64_t percent) {
        ASSERT_TRUE(f.scheduler.run_until(
            [&] {
                const auto job = f.array->status().rebuild;
                return job && job->done_bytes * 100 >= job->total_bytes * percent;
            },
            std::chrono::hours(1)));
        ASSERT_FALSE(ended());
    }
    void expect_model(const std::string& when) {
        const auto got = f.read(0, kSectors);
        ASSERT_TRUE(got.result) << when << ": " << got.result.error().message;
        EXPECT_TRUE(got.data == model) << when;
    }
    /// A read of all of it gave what was written, or said that it is unreadable.
    void expect_nothing_wrong(const ArrayFixture::ReadOut& got) {
        for (std::size_t b = 0; b < got.status.size(); ++b) {
            const auto mine = ConstBytes(model).subspan(b * kBlockBytes, kBlockBytes);
            EXPECT_TRUE(got.status[b] == BlockStatus::kUnreadable ||
                        std::ranges::equal(ConstBytes(got.data).subspan(b * kBlockBytes, kBlockBytes), mine));
        }
    }
    /// With the device in the config at its place; every single other member may be gone.
    void expect_redundant(std::size_t disk) {
        ASSERT_TRUE(f.stop());
        std::swap(f.disks[place], f.disks[disk]);
        for (std::uint32_t gone = 0; gone < f.options.members; ++gone) {
            ArrayConfig c = f.config();
            c.members[gone].device = nullptr;
            const auto r = f.open(c);
            ASSERT_TRUE(r) << r.error().message;
            expect_model("without member " + std::to_string(gone));
            ASSERT_TRUE(f.stop());
        }
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(f.array->status().state, ArrayState::kOptimal);
    }

    ArrayFixture f;
    std::uint32_t place;
    std::vector<std::byte> model;
};

/// It has lost that member, and was written since.
struct Degraded : Written {
    explicit Degraded(const FixtureOptions& options, std::uint32_t lost = 1) : Written(options, lost) {
        f.disks[place]->die();
        rewrite(100, 700);
        CHECK(state() == MemberState::kFailed);
        // The journal lets go of what it listed until then.
        CHECK(f.scheduler.run_until([this] { return !journal().redo || journal().named_stripes == 0; }));
    }
    [[nodiscard]] JournalStatus journal() const { return f.array->status().journal; }
    Result<void> rebuild(BlockDevice* device) {
        return f.scheduler.run(*f.caller, f.array->rebuild(place, {device, ""}));
    }
};

/// Hosts that write the same areas again and again, until end() or an error.
struct Writers {
    Writers(ArrayFixture& fixture, std::vector<std::byte>& written) : f(fixture), model(written) {}
    void begin(std::uint64_t lba, std::uint64_t sectors) { f.scheduler.start(*f.caller, work(*this, lba, sectors)); }
    void end() {
        on = false;
        ASSERT_TRUE(f.scheduler.run_until([this] { return busy == 0; }, std::chrono::minutes(5)));
    }

    ArrayFixture& f;
    std::vector<std::byte>& model;
    bool on = true;
    int busy = 0;
    std::vector<Errc> errors;

  private:
    static Task<void> work(Writers& w, std::uint64_t lba, std::uint64_t sectors) {
        ++w.busy;
        const Buffer buffer = *w.f.environment.pool().allocate(sectors * kSectorBytes);
        const Slice slice = buffer.slice(sectors * kSectorBytes, Lba(lba));
        while (w.on) {
            w.f.scheduler.random().fill(slice.data());
            slice.seal();
            const Result<void> r = co_await w.f.volume().write(Lba(lba), slice, {});
            if (!r) {
                w.errors.push_back(r.error().code);
                break;
            }
            std::ranges::copy(slice.data(), w.model.begin() + static_cast<std::ptrdiff_t>(lba * kSectorBytes));
        }
        --w.busy;
    }
};

}  // namespace gemel::raid::testing
