// SPDX-License-Identifier: Apache-2.0
// gemel-inspect on the members of real arrays, whole, damaged, stale and foreign.
#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>

#include "raid/array.hpp"
#include "raid/level_table.hpp"
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

    std::vector<std::size_t> add_disks(std::size_t count, std::uint64_t more_sectors = 0) {
        std::vector<std::size_t> places;
        for (std::size_t i = 0; i < count; ++i) {
            sim::SimDiskOptions options{.sectors = SectorCount(kSectors + i * more_sectors)};
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
    std::vector<std::size_t> make(const std::string& name, int records, const std::string& level = "5",
                                  std::uint64_t more_sectors = 0) {
        const auto places = add_disks(level == "10" || level == "6" ? 4 : 3, more_sectors);
        raid::ArrayConfig config = config_of(name, places);
        config.level = level;
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
    /// Forges both superblocks of a member.
    void rewrite_superblocks(std::size_t disk, void (*change)(raid::Superblock&)) {
        for (const std::uint64_t slot : {0U, 1U}) {
            const Buffer buffer = *environment.pool().allocate(raid::kSuperblockBytes);
            const Lba lba = raid::superblock_slot(disks[disk]->limits().sectors, slot);
            const Slice slice = buffer.slice(raid::kSuperblockBytes, lba);
            slice.clear_infos();
            ASSERT_TRUE(scheduler.run(home, disks[disk]->read(lba, slice, {})));
            const auto bytes = slice.data().first<raid::kSuperblockBytes>();
            auto superblock = raid::decode_superblock(bytes);
            ASSERT_TRUE(superblock) << superblock.error().message;
            change(*superblock);
            encode(*superblock, bytes);
            ASSERT_TRUE(scheduler.run(home, disks[disk]->write(lba, slice, {.fua = true})));
        }
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

TEST_F(Inspect, says_which_writes_of_the_redo_log_a_start_does_again) {
    const auto places = make("first", 0);
    raid::ArrayConfig config = config_of("first", places);
    config.policy = raid::RecoveryPolicy::kRedo;
    auto array = scheduler.run(home, raid::Array::open(environment.get(), std::move(config)));
    ASSERT_TRUE(array) << array.error().message;
    const Buffer buffer = *environment.pool().allocate(kBlockBytes);
    const Slice slice = buffer.slice(kBlockBytes, Lba(16));
    std::ranges::fill(slice.data(), std::byte{9});
    slice.clear_infos();
    ASSERT_TRUE(scheduler.run(home, (*array)->find("one")->write(Lba(16), slice, {})));
    const Report running = look(places);
    ASSERT_TRUE(running.log);
    EXPECT_EQ(running.log->redo.valid, 1U);
    EXPECT_EQ(running.log->redo.bytes, 2 * kBlockBytes) << "data and parity";
    EXPECT_EQ(running.log->redo.newest_stripe, 1U);
    EXPECT_NE(as_text(running).find("a start does 1 again (8 KiB of members, the newest of stripe 1)"),
              std::string::npos)
        << as_text(running);
    EXPECT_EQ(as_json(running).at("log").at("redo").at("valid").as_uint64(), 1U);
    ASSERT_TRUE(scheduler.run(home, (*array)->stop()));
    EXPECT_EQ(look(places).log->redo.valid, 0U);
}

TEST_F(Inspect, counts_what_partial_parity_speaks_of) {
    const auto places = make("first", 0);
    raid::ArrayConfig config = config_of("first", places);
    config.policy = raid::RecoveryPolicy::kPartial;
    auto array = scheduler.run(home, raid::Array::open(environment.get(), std::move(config)));
    ASSERT_TRUE(array) << array.error().message;
    const Buffer buffer = *environment.pool().allocate(kBlockBytes);
    const Slice slice = buffer.slice(kBlockBytes, Lba(16));
    std::ranges::fill(slice.data(), std::byte{9});
    slice.clear_infos();
    ASSERT_TRUE(scheduler.run(home, (*array)->find("one")->write(Lba(16), slice, {})));
    const Report running = look(places);
    ASSERT_TRUE(running.log);
    EXPECT_EQ(running.log->redo.valid, 0U);
    EXPECT_EQ(running.log->redo.partial, 1U);
    EXPECT_EQ(running.log->redo.partial_blocks, 1U);
    EXPECT_NE(as_text(running).find("1 records of partial parity, of 1 blocks"), std::string::npos) << as_text(running);
    EXPECT_EQ(as_json(running).at("log").at("redo").at("partial").as_uint64(), 1U);
    ASSERT_TRUE(scheduler.run(home, (*array)->stop()));
    EXPECT_EQ(look(places).log->redo.partial, 0U);
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
    const std::vector<std::byte> old = disks[second[1]]->durable_snapshot();
    use(config_of("second", second), 1);
    EXPECT_FALSE(says(look(second), "older copy"));
    disks[second[1]]->power_cut(sim::CachePolicy::kDropAll);
    disks[second[1]]->revive();
    disks[second[1]]->load(old);
    EXPECT_TRUE(says(look(second), "disk4: is an older copy of the member"));
}

TEST_F(Inspect, finds_the_log_behind_the_data_of_each_member_of_a_linear_array) {
    const auto places = make("first", 3, "linear", 512);
    const Report report = look(places);
    EXPECT_TRUE(report.problems.empty()) << as_text(report);
    for (const MemberReport& m : report.members) {
        EXPECT_GT(m.log->valid, 0U) << m.name;
    }
    EXPECT_EQ(report.log->clients.at(kClient).records, 3U);
    const raid::Superblock& sb = report.members[0].slots[*report.members[0].newest].superblock;
    ASSERT_NE(sb.members[2].sectors, sb.members[0].sectors);
    const auto members = as_json(report).at("array").at("members").as_array();
    EXPECT_EQ(members.at(2).at("sectors").to_number<std::uint64_t>(), sb.members[2].sectors.value);
}

TEST_F(Inspect, counts_what_is_resynced_as_the_level_does) {
    const Report report = look(make("first", 1, "10"));
    const raid::Superblock& sb = report.members[0].slots[*report.members[0].newest].superblock;
    const std::string total = " of " + std::to_string(2 * sb.member_sectors) + ", but for";
    EXPECT_NE(as_text(report).find(total), std::string::npos) << as_text(report);
}

TEST_F(Inspect, shows_that_parity_was_accepted_by_force) {
    const auto places = make("first", 1, "6");
    EXPECT_FALSE(as_json(look(places)).at("array").at("accepted").as_bool());
    rewrite_superblocks(places[1], [](raid::Superblock& sb) {
        sb.accepted = true;
        sb.epoch += 2;
    });
    const Report report = look(places);
    EXPECT_TRUE(as_json(report).at("array").at("accepted").as_bool());
    EXPECT_NE(as_text(report).find("started by force"), std::string::npos) << as_text(report);
}

TEST_F(Inspect, a_superblock_that_counts_other_members_is_named) {
    const auto places = make("first", 1, "6");
    for (const std::size_t i : {0U, 1U, 2U}) {
        rewrite_superblocks(places[i], [](raid::Superblock& sb) {
            sb.level = raid::find_level("5")->id;
            sb.members.pop_back();
            sb.epoch += 2;
        });
    }
    EXPECT_TRUE(says(look(places), "disk3: says that the array has 4 members, not 3"));
}

TEST_F(Inspect, says_when_there_is_nothing) {
    const Report report = look(add_disks(2));
    EXPECT_FALSE(report.newest);
    EXPECT_EQ(report.problems.size(), 2U);
    EXPECT_TRUE(says(report, "holds no valid superblock"));
}

}  // namespace
}  // namespace gemel::inspect
