// SPDX-License-Identifier: Apache-2.0
// The frame's codec and table, the maps, and the pair's records: tables of good and bad input.
#include <gtest/gtest.h>

#include "replication/changed_tracks.hpp"
#include "replication/frame_table.hpp"
#include "replication/pair_metadata.hpp"
#include "tests/support/heap_pool.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::replication {
namespace {

using Marks = ::gemel::replication::Run;  // testing::Test has a Run of its own

FrameHeader sample() {
    FrameHeader h;
    h.type = FrameType::kData;
    h.flags = kFlagFua | kFlagLastOfWrite;
    h.target_id = 1;
    h.initiator_id = 2;
    h.pair_id = 3;
    h.sector_count = 4;
    h.term_counter = 5;
    h.term_nonce = 6;
    h.generation = 7;
    h.sequence = 8;
    h.lba = 9;
    h.body_length = 10;
    h.payload_length = 11;
    h.payload_crc = 12;
    return h;
}

void fix_crc(HeaderBytes& bytes) {
    store_le(bytes.data() + 76, crc32c(ConstBytes(bytes).first(76)));
}

TEST(Frame, AHeaderSurvivesItsEncoding) {
    const HeaderBytes bytes = encode_header(sample());
    EXPECT_EQ(why_header_invalid(bytes), "");
    EXPECT_EQ(decode_header(bytes), sample());
    EXPECT_EQ(load_le<std::uint64_t>(bytes.data() + 48), 8U) << "the sequence is at offset 48";
}

TEST(Frame, EveryFlippedBitOfAHeaderIsSeen) {
    for (std::size_t bit = 0; bit < kHeaderBytes * 8; ++bit) {
        HeaderBytes bytes = encode_header(sample());
        bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        EXPECT_NE(why_header_invalid(bytes), "") << bit;
    }
}

TEST(Frame, AHeaderWithARightChecksumIsStillHeldToItsLimits) {
    struct Case {
        std::size_t offset;
        std::uint32_t value;
        std::string_view expected;
    };
    for (const Case& c : {Case{64, kMaxCrcList + 1, "limit"}, Case{68, kMaxFramePayload + 1, "limit"},
                          Case{68, 0xffffffff, "limit"}, Case{4, 0x00000702, "version"}, Case{4, 0x0000ff01, "type"},
                          Case{4, 0x80000701, "flags"}, Case{0, 0, "magic"}}) {
        HeaderBytes bytes = encode_header(sample());
        store_le(bytes.data() + c.offset, c.value);
        fix_crc(bytes);
        EXPECT_NE(why_header_invalid(bytes).find(c.expected), std::string::npos) << why_header_invalid(bytes);
    }
}

TEST(Frame, EveryTypeHasOneRowAndNamesAreUnique) {
    std::set<std::string_view> names;
    std::set<FrameType> types;
    for (const FrameRow& row : kFrameTable) {
        EXPECT_TRUE(names.insert(row.name).second) << row.name;
        EXPECT_TRUE(types.insert(row.type).second) << row.name;
        EXPECT_EQ(frame_row(row.type), &row);
        EXPECT_LE(row.max_payload, kMaxFramePayload);
        EXPECT_LE(row.max_body, kMaxControlBody);
    }
    EXPECT_EQ(types.size(), static_cast<std::size_t>(FrameType::kCopyRequest));
    EXPECT_EQ(frame_row(static_cast<FrameType>(99)), nullptr);
}

TEST(Frame, TheReceiversBufferGetsTheSendersChecksums) {
    sim::HeapPool pool;
    for (const std::size_t bytes : {std::size_t{4096}, std::size_t{512}, std::size_t{20480}}) {
        for (const std::uint64_t lba : {std::uint64_t{0}, std::uint64_t{3}}) {
            const Buffer out = pool.allocate(bytes).value();
            const Slice sent = out.slice(bytes, Lba(lba));
            sim::SeededRandom(bytes + lba).fill(sent.data());
            sent.seal();
            FrameHeader h = sample();
            const std::string body = seal_payload(h, sent);
            const Buffer in = pool.allocate(bytes).value();
            const Slice got = in.slice(bytes, Lba(lba));
            std::ranges::copy(sent.data(), got.data().begin());
            ASSERT_TRUE(open_payload(h, body, got));
            for (std::size_t i = 0; i < got.blocks().size(); ++i) {
                EXPECT_TRUE(got.blocks()[i].has_crc);
                EXPECT_EQ(got.blocks()[i].crc, sent.blocks()[i].crc);
            }
            got.data()[bytes / 2] ^= std::byte{1};
            EXPECT_EQ(open_payload(h, body, got).error().code, Errc::kChecksum);
            EXPECT_EQ(open_payload(h, body + "1234", got).error().code, Errc::kProtocol);
        }
    }
}

TEST(Frame, TheOverheadOfA4KiBWriteAndItsReplyIsAtMostFourPercent) {
    sim::HeapPool pool;
    const Buffer memory = pool.allocate(4096).value();
    const Slice slice = memory.slice(4096, Lba(8));
    slice.seal();
    FrameHeader h;
    const std::string body = seal_payload(h, slice);
    EXPECT_LE((2 * kHeaderBytes + body.size()) * 100, 4096 * 4);
}

TEST(Bitmap, RunsCountsAndNextAgreeWithASimpleModel) {
    sim::SeededRandom random(3);
    Bitmap map;
    map.resize(300);
    std::set<std::uint64_t> model;
    for (int i = 0; i < 2000; ++i) {
        const Marks run{random.below(300), random.below(20)};
        const bool set = random.below(2) == 0;
        set ? map.set(run) : map.clear(run);
        for (std::uint64_t u = run.first; u < std::min<std::uint64_t>(300, run.first + run.count); ++u) {
            set ? (void)model.insert(u) : (void)model.erase(u);
        }
        ASSERT_EQ(map.count(), model.size());
        const std::uint64_t from = random.below(300);
        const auto next = model.lower_bound(from);
        ASSERT_EQ(map.next(from), next == model.end() ? 300 : *next);
        std::uint64_t in_runs = 0;
        for (const Marks& r : map.runs()) {
            ASSERT_TRUE(map.all(r));
            in_runs += r.count;
        }
        ASSERT_EQ(in_runs, model.size());
    }
}

TEST(Bitmap, CoarseningMarksMoreAndNeverLess) {
    Bitmap map;
    map.resize(5000);
    for (std::uint64_t i = 0; i < 5000; i += 7) {
        map.set({i, 1});
    }
    const std::vector<Marks> few = coarsened(map.runs(), 10);
    EXPECT_LE(few.size(), 10U);
    Bitmap coarse;
    coarse.resize(5000);
    for (const Marks& run : few) {
        coarse.set(run);
    }
    for (const Marks& run : map.runs()) {
        EXPECT_TRUE(coarse.all(run));
    }
}

std::vector<MetadataChange> sample_changes() {
    Superblock s;
    s.pair.bytes[3] = std::byte{9};
    s.identity.bytes[0] = std::byte{1};
    s.sectors = 1000;
    s.pending_sectors = 2000;
    s.generation = 11;
    s.base = 12;
    s.term = {4, 5};
    s.role = Role::kSecondary;
    s.state = PairState::kResyncTarget;
    s.lost_power = true;
    s.choice = Choice::kOtherSide;
    s.peer_node = "beta";
    s.peer_volume = "vol1";
    return {{MetadataOp::kResetMaps, {}, {}},
            {MetadataOp::kSetTracks, {}, {{1, 2}, {9, 1}}},
            {MetadataOp::kClearRegions, {}, {{0, 1}}},
            {MetadataOp::kSuperblock, s, {}}};
}

TEST(PairRecord, SurvivesItsEncoding) {
    const auto decoded = decode_record(encode_record(sample_changes()));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(*decoded, sample_changes());
    EXPECT_EQ(why_record_invalid(encode_record(sample_changes())), "");
}

TEST(PairRecord, EveryDamageIsSeen) {
    const std::vector<std::byte> good = encode_record(sample_changes());
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        std::vector<std::byte> bad = good;
        bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        EXPECT_NE(why_record_invalid(bad), "") << bit;
    }
    for (std::size_t n = 0; n < good.size(); ++n) {
        EXPECT_NE(why_record_invalid(ConstBytes(good).first(n)), "") << n;
    }
}

}  // namespace
}  // namespace gemel::replication
