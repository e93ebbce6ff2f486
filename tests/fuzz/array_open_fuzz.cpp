// SPDX-License-Identifier: Apache-2.0
// Members that somebody forged, behind right checksums: opening an array over them ends, in an array that can be used
// and stopped or in an error that says why; and gemel-inspect shows them. An input is a level, patches of the
// superblock and of its record of the log area, and pieces of 64 bytes that become pages of the log.
#include <algorithm>

#include "gemel/crc32c.hpp"
#include "raid/assembly.hpp"
#include "raid/log_page.hpp"
#include "tests/support/disk_image.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"
#include "tools/inspect/render.hpp"

namespace {

using namespace gemel;
using namespace gemel::raid;

constexpr std::uint64_t kDiskSectors = 1024;
constexpr std::size_t kPieceBytes = 64;
constexpr std::size_t kMostPatches = 8;
constexpr LogClientId kClient = kLogClientPair | 1U;

/// What any input is made of: one array, new for each.
struct World {
    sim::SimScheduler scheduler{1};
    sim::SimNetwork network{scheduler, 1};
    sim::SimEnvironment environment{scheduler, network, "node", 1};
    sim::SimExecutor& home = scheduler.add_executor("home");
    std::vector<std::unique_ptr<sim::SimDisk>> disks;
    ArrayConfig config;

    explicit World(std::uint8_t level) {
        constexpr std::array<std::pair<const char*, std::size_t>, 3> shapes{{{"0", 1}, {"1", 2}, {"5", 3}}};
        const auto& [name, members] = shapes[level % shapes.size()];
        config.name = "array";
        config.level = name;
        config.strip_bytes = 4096;
        config.volumes = {{"one", 64 * kKiB}};
        config.shards = {&home};
        config.force = level >= 128;
        for (std::size_t i = 0; i < members; ++i) {
            sim::SimDiskOptions o{.sectors = SectorCount(kDiskSectors)};
            disks.push_back(std::make_unique<sim::SimDisk>(scheduler, i + 1, o));
            config.members.push_back({disks.back().get(), "disk" + std::to_string(i)});
        }
    }
    void write(std::size_t disk, Lba lba, ConstBytes bytes) {
        const Buffer buffer = *environment.pool().allocate(bytes.size());
        const Slice slice = buffer.slice(bytes.size(), lba);
        std::ranges::copy(bytes, slice.data().begin());
        CHECK(scheduler.run(home, disks[disk]->write(lba, slice, {.fua = true})));
    }
};

/// A log page whose fields are the piece's, most of them wide, so that they also come near the ends of their ranges.
std::array<std::byte, kLogPageBytes> forged_page(LeReader& r, const Superblock& sb) {
    std::array<std::byte, kLogPageBytes> page{};
    LeWriter w(page);
    w.put(std::uint64_t{0x31474f4c4c454d47ULL});
    w.put(kLogVersion);
    w.put(std::uint32_t{r.get<std::uint8_t>()});
    w.put(ConstBytes(sb.array_uuid.bytes));
    w.put(r.get<std::uint64_t>());  // generation
    w.put(r.get<std::uint64_t>());  // sequence
    w.put(r.get<std::uint64_t>());  // previous
    w.put(r.get<std::uint64_t>());  // head
    w.put(r.get<std::uint64_t>());  // batch_first
    w.put(r.get<std::uint64_t>());  // next_position
    w.put(sb.epoch);
    w.put(std::uint16_t{r.get<std::uint8_t>()});
    const ConstBytes payload = r.take(kPieceBytes - 50);
    std::ranges::copy(payload, page.begin() + kLogHeaderBytes);
    constexpr std::size_t kCrcAt = kLogHeaderBytes - 8;
    store_le(page.data() + kCrcAt, crc32c(page));
    return page;
}

/// The superblock of one member with some of its bytes as the input says.
std::array<std::byte, kSuperblockBytes> forged_superblock(const Superblock& sb, ConstBytes patches) {
    std::array<std::byte, kSuperblockBytes> bytes{};
    encode(sb, bytes);
    LeReader r(patches);
    while (r.remaining() >= 3) {
        const std::size_t at = r.get<std::uint16_t>();
        bytes[at % (kSuperblockBytes - 4)] = std::byte{r.get<std::uint8_t>()};
    }
    store_le(bytes.data() + kSuperblockBytes - 4, crc32c(std::span(bytes).first(kSuperblockBytes - 4)));
    return bytes;
}

/// An array that opened takes a record and a write, or says why not, and stops.
void use(World& w, Array& array) {
    static_cast<void>(array.log().recovered(kClient));
    static_cast<void>(w.scheduler.run(w.home, array.log().append(kClient, std::vector<std::byte>(100))));
    for (const VolumeInfo& info : array.volumes()) {
        const Buffer buffer = *w.environment.pool().allocate(kBlockBytes);
        const Slice slice = buffer.slice(kBlockBytes, Lba(0));
        slice.clear_infos();
        static_cast<void>(w.scheduler.run(w.home, array.find(info.name)->write(Lba(0), slice, {})));
    }
    static_cast<void>(w.scheduler.run(w.home, array.stop()));
}

void look_at(World& w) {
    std::vector<sim::DiskImage> images;
    std::vector<inspect::MemberImage*> pointers;
    std::vector<std::string> names;
    for (const MemberSpec& m : w.config.members) {
        names.push_back(m.name);
    }
    for (const auto& disk : w.disks) {
        images.emplace_back(w.scheduler, w.home, w.environment, *disk);
    }
    for (sim::DiskImage& image : images) {
        pointers.push_back(&image);
    }
    const inspect::Report report = inspect::look_at(names, pointers);
    CHECK(!inspect::as_text(report).empty() && !inspect::as_json(report).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    World w(r.get<std::uint8_t>());
    Superblock sb = *plan_format(w.config, *find_level(w.config.level), std::vector(w.disks.size(), kDiskSectors),
                                 w.environment.random());
    const ConstBytes patches = r.take(std::min<std::size_t>(r.get<std::uint8_t>() % kMostPatches * 3, r.remaining()));
    const AreaRecord area = sb.area(AreaKind::kLog);
    const std::uint64_t slots = area.sectors.value / kSectorsPerBlock;
    for (std::size_t page = 0; r.remaining() >= kPieceBytes; ++page) {
        const auto bytes = forged_page(r, sb);
        const auto slot = load_le<std::uint64_t>(bytes.data() + 40) % slots;
        w.write(page % w.disks.size(), area.lba + slot * kSectorsPerBlock, bytes);
    }
    for (std::uint16_t m = 0; m < w.disks.size(); ++m) {
        sb.member_index = m;
        w.write(m, superblock_slot(SectorCount(kDiskSectors), 0), forged_superblock(sb, patches));
    }
    look_at(w);
    auto array = w.scheduler.run(w.home, Array::open(w.environment.get(), w.config));
    if (array) {
        use(w, **array);
    } else {
        CHECK(!array.error().message.empty());
    }
    return 0;
}
