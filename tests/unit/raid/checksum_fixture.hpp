// SPDX-License-Identifier: Apache-2.0
// What the tests of block checksums share: an array full of known data, whose members are changed behind its back.
// Threads: the simulator's one.
#pragma once

#include <vector>

#include "raid/checksum_page.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid::testing {

using Bytes = std::vector<std::byte>;

struct ChecksumShape {
    const char* level;
    std::uint32_t members;
    std::uint32_t shards;
    std::uint64_t cache;  ///< of the map
};

inline FixtureOptions options_of(const ChecksumShape& shape, std::uint64_t seed = 1) {
    return {.seed = seed,
            .level = shape.level,
            .members = shape.members,
            .strip_bytes = 8 * 1024,
            .shards = shape.shards,
            .checksum_cache = shape.cache};
}

/// An array full of known data, nothing of which is in a cache of its members.
struct Full {
    explicit Full(const FixtureOptions& options) : f(options) {
        CHECK(f.create());
        f.settle();
        sectors = f.volume().limits().sectors.value;
        model = f.pattern(sectors);
        write_all();
        rest();
        data_blocks = newest_superblock(*f.disks[0]).member_sectors / kSectorsPerBlock;
    }
    void write(std::uint64_t at, std::uint64_t count) {
        const auto from = model.begin() + static_cast<std::ptrdiff_t>(at * kSectorBytes);
        CHECK(f.write(at, Bytes(from, from + static_cast<std::ptrdiff_t>(count * kSectorBytes))));
    }
    void write_all() {
        for (std::uint64_t at = 0; at < sectors; at += kChunk) {
            write(at, std::min(kChunk, sectors - at));
        }
    }
    void rewrite(std::uint64_t at, std::uint64_t count) {
        const Bytes fresh = f.pattern(count);
        std::ranges::copy(fresh, model.begin() + static_cast<std::ptrdiff_t>(at * kSectorBytes));
        write(at, count);
    }
    /// Until the journal lists nothing and all is durable.
    void rest() {
        f.scheduler.run_for(std::chrono::seconds(8));
        CHECK(f.flush());
        CHECK(f.array->status().journal.listed_stripes == 0);
    }
    /// Changes what lies on a member behind its back.
    template <class Edit>
    void edit(std::uint32_t member, Edit change) {
        CHECK(f.flush());
        Bytes all = f.disks[member]->snapshot();
        change(all);
        f.disks[member]->load(ConstBytes(all));
    }
    void flip(std::uint32_t member, std::uint64_t block) {
        CHECK(f.flush());
        sim::Media media = f.disks[member]->media();
        const ConstBytes sector = media.sector(block * kSectorsPerBlock);
        Bytes wrong(sector.begin(), sector.end());
        wrong[77] ^= std::byte{4};
        media.set_sector(block * kSectorsPerBlock, wrong);
        f.disks[member]->load(media);
    }
    void expect_all_right(const std::string& what) {
        for (std::uint64_t at = 0; at < sectors; at += kChunk) {
            const std::uint64_t count = std::min(kChunk, sectors - at);
            const auto r = f.read(at, count);
            ASSERT_TRUE(r.result) << what << " at " << at << ": " << r.result.error().message;
            ASSERT_TRUE(std::equal(r.data.begin(), r.data.end(),
                                   model.begin() + static_cast<std::ptrdiff_t>(at * kSectorBytes)))
                << what << " near sector " << at;
        }
    }

    static constexpr std::uint64_t kChunk = 512;
    ArrayFixture f;
    std::uint64_t sectors = 0;
    std::uint64_t data_blocks = 0;  ///< of a member
    Bytes model;
};

}  // namespace gemel::raid::testing
