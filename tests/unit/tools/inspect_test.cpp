// SPDX-License-Identifier: Apache-2.0
// gemel-inspect on the members of real arrays, whole, damaged, stale and foreign.
#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

#include "raid/array.hpp"
#include "tests/support/disk_image.hpp"
#include "tools/inspect/render.hpp"

namespace gemel::inspect {
namespace {

constexpr std::uint64_t kSectors = 4096;
constexpr LogClientId kClient = kLogClientPair | 3U;

class Inspect : public testing::Test {
  protected:
    sim::SimScheduler scheduler{1};
    sim::SimNetwork network{scheduler, 1};
    sim::SimEnvironment environment{scheduler, network, "node", 1};
    sim::SimExecutor& home = scheduler.add_executor("home");
    std::vector<std::unique_ptr<sim::SimDisk>> disks;

    std::vector<std::size_t> add_disks(std::size_t count) {
        std::vector<std::size_t> places;
        for (std::size_t i = 0; i < count; ++i) {
            sim::SimDiskOptions options{.sectors = SectorCount(kSectors)};
            disks.push_back(std::make_unique<sim::SimDisk>(scheduler, disks.size() + 1, options));
            places.push_back(disks.size() - 1);
        }
        return places;
    }
    raid::ArrayConfig config_of(const std::string& name, const std::vector<std::size_t>& places) {
        raid::ArrayConfig config;
        config.name = name;
        config.strip_bytes = 4096;
        config.volumes = {{"one", 64 * kKiB}};
        config.shards = {&home};
        for (const std::size_t i : places) {
            config.members.push_back({disks[i].get(), "disk" + std::to_string(i)});
        }
        return config;
    }
    /// Opens the array, appends `records` of 100 bytes, writes a block, and stops it.
    void use(raid::ArrayConfig config, int records) {
        auto array = scheduler.run(home, raid::Array::open(environment.get(), std::move(config)));
        ASSERT_TRUE(array) << array.error().message;
        for (int i = 0; i < records; ++i) {
            ASSERT_TRUE(scheduler.run(home, (*array)->log().append(kClient, std::vector<std::byte>(100))));
        }
        const Buffer buffer = *environment.pool().allocate(kBlockBytes);
        const Slice slice = buffer.slice(kBlockBytes, Lba(0));
        std::ranges::fill(slice.data(), std::byte{7});
        slice.clear_infos();
        ASSERT_TRUE(scheduler.run(home, (*array)->find("one")->write(Lba(0), slice, {})));
        ASSERT_TRUE(scheduler.run(home, (*array)->stop()));
    }
    std::vector<std::size_t> make(const std::string& name, int records) {
        const auto places = add_disks(3);
        raid::ArrayConfig config = config_of(name, places);
        config.create = raid::ArrayConfig::Create::kIfBlank;
        use(std::move(config), records);
        return places;
    }
    void overwrite(std::size_t disk, Lba lba, std::size_t bytes, std::byte value) {
        const Buffer buffer = *environment.pool().allocate(bytes);
        const Slice slice = buffer.slice(bytes, lba);
        std::ranges::fill(slice.data(), value);
        slice.clear_infos();
        ASSERT_TRUE(scheduler.run(home, disks[disk]->write(lba, slice, {.fua = true})));
    }
    Report look(const std::vector<std::size_t>& places) {
        std::vector<sim::DiskImage> images;
        std::vector<std::string> names;
        for (const std::size_t i : places) {
            images.emplace_back(scheduler, home, environment, *disks[i]);
            names.push_back("disk" + std::to_string(i));
        }
        std::vector<MemberImage*> pointers;
        for (sim::DiskImage& image : images) {
            pointers.push_back(&image);
        }
        return look_at(names, pointers);
    }
};

testing::AssertionResult says(const Report& report, std::string_view text) {
    for (const std::string& problem : report.problems) {
        if (problem.find(text) != std::string::npos) {
            return testing::AssertionSuccess();
        }
    }
    return testing::AssertionFailure() << as_text(report);
}

TEST_F(Inspect, shows_a_whole_array_and_its_records) {
    const Report report = look(make("first", 4));
    EXPECT_TRUE(report.problems.empty()) << as_text(report);
    ASSERT_TRUE(report.newest && report.log);
    EXPECT_FALSE(report.log->corrupt);
    ASSERT_TRUE(report.log->clients.contains(kClient));
    EXPECT_EQ(report.log->clients.at(kClient).records, 4U);
    EXPECT_EQ(report.log->clients.at(kClient).bytes, 400U);
    const std::string text = as_text(report);
    EXPECT_NE(text.find("array 'first'"), std::string::npos) << text;
    EXPECT_NE(text.find("volume 'one': number 1, 64 KiB"), std::string::npos) << text;
    EXPECT_NE(text.find("mirror of volume 3: 4 records"), std::string::npos) << text;
    const auto object = as_json(report);
    EXPECT_EQ(object.at("array").at("array"), "first") << boost::json::serialize(object);
    EXPECT_EQ(object.at("members").as_array().size(), 3U);
}

TEST_F(Inspect, names_a_damaged_superblock_and_goes_on_with_the_other) {
    const auto places = make("first", 1);
    overwrite(places[1], raid::superblock_slot(SectorCount(kSectors), 1) + 8, 512, std::byte{0xff});
    const Report report = look(places);
    EXPECT_TRUE(says(report, "disk1: superblock at byte"));
    EXPECT_TRUE(report.members[1].newest.has_value());
}

TEST_F(Inspect, counts_damaged_pages_of_the_log) {
    const auto places = make("first", 3);
    const Report whole = look(places);
    const MemberReport& member = whole.members[0];
    ASSERT_TRUE(member.log && member.log->valid > 0);
    const auto& area = member.slots[*member.newest].superblock.area(raid::AreaKind::kLog);
    const std::uint64_t slot = member.log->newest_sequence % member.log->pages;
    overwrite(places[0], area.lba + slot * kSectorsPerBlock + 7, 512, std::byte{0xff});
    const Report report = look(places);
    EXPECT_TRUE(says(report, "disk0: 1 damaged and 0 unreadable pages"));
    EXPECT_EQ(report.members[0].log->valid, member.log->valid - 1);
}

TEST_F(Inspect, tells_members_of_another_array_and_stale_ones) {
    const auto first = make("first", 1);
    const auto second = make("second", 1);
    EXPECT_TRUE(says(look({first[0], first[1], second[2]}), "belongs to another array, 'second'"));
    raid::ArrayConfig degraded = config_of("first", first);
    degraded.members[2].device = nullptr;
    degraded.force = true;  // its first resync has hardly begun
    use(std::move(degraded), 1);
    EXPECT_TRUE(says(look(first), "disk2: is stale"));
}

TEST_F(Inspect, says_when_there_is_nothing) {
    const Report report = look(add_disks(2));
    EXPECT_FALSE(report.newest);
    EXPECT_EQ(report.problems.size(), 2U);
    EXPECT_TRUE(says(report, "holds no valid superblock"));
}

}  // namespace
}  // namespace gemel::inspect
