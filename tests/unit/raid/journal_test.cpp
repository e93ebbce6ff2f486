// SPDX-License-Identifier: Apache-2.0
// The dirty stripe journal: its set, its records, and what an array does with it after a crash.
#include <gtest/gtest.h>

#include "gemel/crc32c.hpp"
#include "raid/journal_record.hpp"
#include "raid/superblock.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;

// ---- the set

constexpr Geometry kFour{Layout::kParity, 4, 32, 32 * 128};  // strips of 16 KiB, rows of 96 sectors
constexpr BlockBox kWhole{0, 4, 0, 2};
constexpr DirtySet::Reach kReach{kWhole, 4, 64, 128, false};

TouchedBlocks write_of(std::uint64_t lba, std::uint64_t sectors) {
    return {kFour, Lba(lba), SectorCount(sectors)};
}

/// Holds the write, and counts its record as durable.
std::vector<DirtyEntry> list(DirtySet& set, const TouchedBlocks& write, const DirtySet::Reach& reach = kReach) {
    std::vector<DirtyEntry> out;
    const std::uint64_t ticket = set.hold(write, reach, out);
    EXPECT_EQ(ticket == 0, out.empty());
    set.recorded(out, ticket);
    return out;
}

TEST(TouchedBlocks, names_the_columns_and_strips_of_every_stripe) {
    const auto one = write_of(33, 8);  // strip 1 of stripe 0, columns 1 to 9
    EXPECT_EQ(one.count(), 1U);
    EXPECT_EQ(one.box(0), (BlockBox{0, 2, 1, 1}));
    const auto two = write_of(88, 24);  // the last block of stripe 0, two blocks of stripe 1
    EXPECT_EQ(two.last(), 1U);
    EXPECT_EQ(two.box(0), (BlockBox{3, 4, 2, 2}));
    EXPECT_EQ(two.box(1), (BlockBox{0, 2, 0, 0}));
    EXPECT_EQ(write_of(30, 4).box(0), (BlockBox{0, 4, 0, 1})) << "columns between two strips count";
}

TEST(DirtySet, a_write_waits_for_its_own_record_and_the_next_one_there_for_none) {
    DirtySet set;
    const auto write = write_of(0, 8);
    EXPECT_FALSE(set.hold_if_listed(write));
    std::vector<DirtyEntry> out;
    const std::uint64_t ticket = set.hold(write, kReach, out);
    ASSERT_EQ(out, (std::vector<DirtyEntry>{{0, {0, 1, 0, 0}, false}}));
    EXPECT_FALSE(set.listed(0, 0));
    EXPECT_FALSE(set.hold_if_listed(write)) << "not durable yet";
    std::vector<DirtyEntry> again;
    EXPECT_EQ(set.hold(write, kReach, again), 0U) << "the record on its way is enough";
    set.recorded(out, ticket);
    EXPECT_TRUE(set.listed(0, 0));
    EXPECT_TRUE(set.hold_if_listed(write));
}

TEST(DirtySet, a_box_that_grew_needs_its_newer_record) {
    DirtySet set;
    std::vector<DirtyEntry> first;
    const std::uint64_t one = set.hold(write_of(0, 8), kReach, first);
    std::vector<DirtyEntry> second;
    const std::uint64_t two = set.hold(write_of(8, 8), kReach, second);
    EXPECT_EQ(second, (std::vector<DirtyEntry>{{0, kWhole, false}})) << "the second cold hit lists the whole stripe";
    set.recorded(first, one);
    EXPECT_FALSE(set.listed(0, 0));
    set.recorded(second, two);
    EXPECT_TRUE(set.listed(0, 0));
}

TEST(DirtySet, a_record_of_a_stripe_that_was_dropped_meanwhile_lists_nothing) {
    DirtySet set;
    std::vector<DirtyEntry> first;
    const std::uint64_t one = set.hold(write_of(0, 8), kReach, first);
    set.release(write_of(0, 8));
    std::vector<DirtyEntry> kept;
    set.sweep(Sweep::kAllUnused, kept);
    std::vector<DirtyEntry> second;
    const std::uint64_t two = set.hold(write_of(0, 8), kReach, second);
    set.recorded(first, one);
    EXPECT_FALSE(set.listed(0, 0)) << "it is from before the sweep";
    set.recorded(second, two);
    EXPECT_TRUE(set.listed(0, 0));
}

TEST(DirtySet, a_sweep_keeps_what_writes_use_and_the_newer_half_of_the_rest) {
    DirtySet set;
    for (std::uint64_t s = 0; s < 10; ++s) {
        list(set, write_of(s * 2 * 96, 8));
    }
    for (std::uint64_t s = 1; s < 10; ++s) {
        set.release(write_of(s * 2 * 96, 8));
    }
    std::vector<DirtyEntry> kept;
    set.sweep(Sweep::kOlderHalf, kept);
    ASSERT_EQ(kept.size(), 5U);
    EXPECT_EQ(kept[0].stripe, 0U) << "in use";
    EXPECT_EQ(kept[1].stripe, 12U) << "the four used last";
    EXPECT_EQ(set.columns(), 5U);
    kept.clear();
    set.sweep(Sweep::kAllUnused, kept);
    EXPECT_EQ(kept.size(), 1U);
    EXPECT_FALSE(set.hold_if_listed(write_of(12 * 96, 8)));
}

TEST(DirtySet, lists_ahead_of_a_sequential_writer_and_not_of_others_nor_of_a_degraded_array) {
    DirtySet set;
    EXPECT_EQ(list(set, write_of(60 * 96, 96)).size(), 1U);
    const auto ahead = list(set, write_of(61 * 96, 8));
    ASSERT_EQ(ahead.size(), 3U) << "two more to the end of the group";
    EXPECT_EQ(ahead[0], (DirtyEntry{61, kWhole, false}));
    EXPECT_EQ(ahead[2].stripe, 63U);
    EXPECT_TRUE(set.hold_if_listed(write_of(62 * 96, 96)));
    EXPECT_EQ(list(set, write_of(10 * 96, 96)).size(), 1U);
    DirtySet::Reach exact = kReach;
    exact.exact = true;
    EXPECT_EQ(list(set, write_of(11 * 96, 8), exact), (std::vector<DirtyEntry>{{11, {0, 1, 0, 0}, false}}));
    EXPECT_EQ(list(set, write_of(11 * 96 + 16, 8), exact), (std::vector<DirtyEntry>{{11, {0, 3, 0, 0}, false}}));
}

TEST(DirtySet, what_it_lists_always_covers_what_writes_hold) {
    sim::SeededRandom random(9);
    DirtySet set;
    std::vector<TouchedBlocks> held;
    for (int i = 0; i < 5000; ++i) {
        const std::uint64_t sectors = 1 + random.below(random.one_in(4) ? 300 : 16);
        const auto write = write_of(random.below(128 * 96 - sectors), sectors);
        if (!set.hold_if_listed(write)) {
            list(set, write);
        }
        held.push_back(write);
        while (held.size() > random.below(20)) {
            const std::size_t at = random.below(held.size());
            set.release(held[at]);
            held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
        }
        std::vector<DirtyEntry> kept;
        if (random.one_in(10)) {
            set.sweep(random.one_in(2) ? Sweep::kAllUnused : Sweep::kOlderHalf, kept);
            std::uint64_t columns = 0;
            for (const DirtyEntry& e : kept) {
                columns += e.box.columns();
            }
            ASSERT_EQ(columns, set.columns());
            for (const TouchedBlocks& w : held) {
                for (std::uint64_t s = w.first(); s <= w.last(); ++s) {
                    const auto entry = std::ranges::find(kept, s, &DirtyEntry::stripe);
                    ASSERT_TRUE(entry != kept.end() && entry->box.covers(w.box(s)));
                }
            }
        }
        for (const TouchedBlocks& w : held) {
            ASSERT_TRUE(set.listed(w.first(), w.last()));
        }
    }
}

// ---- the records

JournalRecord sample(JournalKind kind) {
    return {kind,
            kind == JournalKind::kCheckpoint ? 777U : 0U,
            {{5, {0, 4, 0, 2}, false}, {127, {1, 2, 1, 1}, true}, {5, {3, 4, 2, 2}, false}}};
}

TEST(JournalRecord, comes_back_as_it_was) {
    const JournalShape shape(kFour);
    for (const JournalKind kind : {JournalKind::kAdd, JournalKind::kCheckpoint}) {
        const auto bytes = encode(sample(kind));
        EXPECT_EQ(bytes.size(), kJournalHeaderBytes + 3 * kJournalEntryBytes);
        const auto back = decode_journal_record(bytes, shape);
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, sample(kind));
    }
}

TEST(JournalRecord, every_changed_bit_is_noticed) {
    const JournalShape shape(kFour);
    const auto good = encode(sample(JournalKind::kCheckpoint));
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        auto bad = good;
        bad[bit / 8] ^= std::byte{1} << (bit % 8);
        EXPECT_FALSE(decode_journal_record(bad, shape)) << bit;
    }
    for (std::size_t size = 0; size < good.size(); ++size) {
        EXPECT_FALSE(decode_journal_record(ConstBytes(good).first(size), shape)) << size;
    }
}

TEST(JournalRecord, one_that_cannot_be_of_this_array_says_why) {
    const JournalShape shape(kFour);
    const auto why = [&](auto change) {
        JournalRecord r = sample(JournalKind::kCheckpoint);
        change(r);
        const auto text = why_invalid(r, shape);
        EXPECT_FALSE(decode_journal_record(encode(r), shape));
        return text.value_or("nothing");
    };
    EXPECT_NE(why([](auto& r) { r.entries[1].stripe = 128; }).find("stripe 128 of 128"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.entries[1].box.end = 5; }).find("outside stripe 127"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.entries[1].box.first = 2; }).find("outside"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.entries[0].box.last_strip = 3; }).find("outside"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.entries[1].box.first_strip = 2; }).find("outside"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.cursor = kFour.columns() + 1; }).find("beyond the end"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.kind = JournalKind::kAdd; }).find("that has none"), std::string::npos);
    EXPECT_NE(why([](auto& r) { r.kind = static_cast<JournalKind>(3); }).find("unknown kind"), std::string::npos);
    auto newer = encode(sample(JournalKind::kAdd));
    store_le(newer.data() + 4, std::uint16_t{kJournalVersion + 1});
    store_le(newer.data() + 20, std::uint32_t{0});
    store_le(newer.data() + 20, crc32c(newer));
    EXPECT_EQ(decode_journal_record(newer, shape).error().code, Errc::kUnsupported);
}

TEST(JournalRecord, recovery_unites_what_follows_the_last_checkpoint) {
    const JournalShape shape(kFour);
    const auto record = [](JournalKind kind, std::uint64_t cursor, std::uint64_t stripe) {
        return encode(JournalRecord{kind, cursor, {{stripe, kWhole, false}}});
    };
    std::vector<LogRecord> log{{1, record(JournalKind::kAdd, 0, 1)}};
    EXPECT_FALSE(recover_journal(log, shape)->based);
    log.push_back({2, record(JournalKind::kCheckpoint, 9, 2)});
    log.push_back({3, record(JournalKind::kAdd, 0, 3)});
    log.push_back({4, record(JournalKind::kCheckpoint, 800, 4)});
    log.push_back({5, record(JournalKind::kAdd, 0, 5)});
    log.push_back({6, record(JournalKind::kAdd, 0, 6)});
    const auto state = recover_journal(log, shape);
    ASSERT_TRUE(state);
    EXPECT_TRUE(state->based);
    EXPECT_EQ(state->base, 4U);
    EXPECT_EQ(state->cursor, 800U);
    ASSERT_EQ(state->entries.size(), 3U);
    EXPECT_EQ(state->entries[0].stripe, 4U);
    EXPECT_EQ(state->entries[2].stripe, 6U);
    log[0].bytes[9] ^= std::byte{1};
    EXPECT_EQ(recover_journal(log, shape).error().code, Errc::kCorrupt);
}

TEST(JournalShape, an_entry_of_columns_names_these_columns) {
    for (const Layout layout : {Layout::kParity, Layout::kMirrored, Layout::kStripedMirrors}) {
        const Geometry g{layout, 4, 32, 32 * 16};
        const JournalShape shape(g);
        for (std::uint64_t first = 0; first < g.columns(); first += 3) {
            const std::uint64_t end = std::min(first + 9, round_down(first, 32) + 32);
            const DirtyEntry e = shape.entry_of(first, end);
            ASSERT_FALSE(why_invalid(JournalRecord{JournalKind::kAdd, 0, {e}}, shape)) << first;
            int ranges = 0;
            shape.each_range(e, [&](std::uint64_t from, std::uint64_t to) {
                EXPECT_EQ(from, round_down(first, kSectorsPerBlock));
                EXPECT_EQ(to, round_up(end, kSectorsPerBlock));
                ++ranges;
            });
            EXPECT_EQ(ranges, 1);
        }
    }
}

TEST(JournalShape, what_a_write_of_striped_mirrors_touches_is_named_strip_by_strip) {
    const Geometry g{Layout::kStripedMirrors, 6, 32, 32 * 16};
    const TouchedBlocks write(g, Lba(96 + 32 + 8), SectorCount(8));  // strip 1 of stripe 1
    const JournalShape shape(g);
    std::vector<std::uint64_t> edges;
    shape.each_range({1, write.box(1), false},
                     [&](std::uint64_t from, std::uint64_t to) { edges.insert(edges.end(), {from, to}); });
    EXPECT_EQ(edges, (std::vector<std::uint64_t>{136, 144}));
}

// ---- the array

std::uint64_t writes_to_disks(const ArrayFixture& f) {
    std::uint64_t n = 0;
    for (const auto& disk : f.disks) {
        n += disk->counters().writes;
    }
    return n;
}

/// Until the idle array has said that it is clean.
void rest(ArrayFixture& f) {
    f.scheduler.run_for(std::chrono::seconds(6));
}

TEST(JournalOnArray, after_a_crash_only_what_was_written_is_made_right) {
    for (const auto& [level, members] : {std::pair{"5", 4U}, std::pair{"1", 2U}, std::pair{"10", 4U}}) {
        for (const std::uint32_t shards : {1U, 4U}) {
            ArrayFixture f({.level = level, .members = members, .shards = shards, .member_bytes = 16 * kMiB});
            ASSERT_TRUE(f.create());
            f.settle();
            ASSERT_TRUE(f.write(0, f.pattern(600)));
            rest(f);
            EXPECT_EQ(f.array->status().journal.listed_stripes, 0U);
            const auto data = f.pattern(8);
            ASSERT_TRUE(f.write(8000, data));
            f.crash(/*power=*/true);
            ASSERT_TRUE(f.reopen());
            EXPECT_EQ(f.array->status().journal.recovered_stripes, 1U) << level;
            const auto doubted = f.array->status();
            EXPECT_LE(doubted.resync_total.value - doubted.resync_done.value, 32U);
            f.settle();
            const auto status = f.array->status();
            EXPECT_EQ(status.resync_done, status.resync_total);
            EXPECT_GT(status.journal.recovery_bytes_read, 0U);
            EXPECT_LE(status.journal.recovery_bytes_read, members * 16 * kKiB);
            EXPECT_GT(status.journal.recovery_ms, 0U);
            EXPECT_TRUE(f.environment.events().has("journal-recovered"));
        }
    }
}

TEST(JournalOnArray, a_degraded_start_after_a_crash_needs_no_force_and_shows_no_garbage) {
    for (const std::uint32_t gone : {0U, 1U, 2U, 3U}) {
        ArrayFixture f({.seed = 3 + gone, .member_bytes = 4 * kMiB});
        ASSERT_TRUE(f.create());
        f.settle();
        const auto old = f.pattern(2000);
        ASSERT_TRUE(f.write(0, old));
        rest(f);
        const auto data = f.pattern(8);
        ASSERT_TRUE(f.write(8, data));  // one block of stripe 0
        f.crash(/*power=*/false);
        ArrayConfig c = f.config();
        c.members[gone].device = nullptr;
        ASSERT_TRUE(f.open(c));
        const auto got = f.read(0, 2000);
        for (std::size_t b = 0; b < got.status.size(); ++b) {
            const auto part = ConstBytes(got.data).subspan(b * kBlockBytes, kBlockBytes);
            const auto& right = b == 1 ? data : old;
            const std::size_t at = b == 1 ? 0 : b * kBlockBytes;
            if (got.status[b] == BlockStatus::kUnreadable) {
                EXPECT_TRUE(b % 4 == 1 && b < 12) << "block " << b << " shares no column with the write";
            } else {
                EXPECT_TRUE(std::ranges::equal(part, ConstBytes(right).subspan(at, kBlockBytes))) << "block " << b;
            }
        }
        EXPECT_EQ(std::ranges::count(got.status, BlockStatus::kUnreadable), gone == 3 ? 0 : 1);
        ASSERT_TRUE(f.write(0, old));
        EXPECT_EQ(f.read(0, 2000).data, old) << "written anew";
        ASSERT_TRUE(f.stop());
        ASSERT_TRUE(f.open(c));
        EXPECT_EQ(f.read(0, 2000).data, old);
    }
}

TEST(JournalOnArray, what_stays_unknown_is_still_named_after_clean_stops) {
    ArrayFixture f({.member_bytes = 4 * kMiB});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(2000)));
    rest(f);
    ASSERT_TRUE(f.write(8, f.pattern(8)));
    f.crash(/*power=*/false);
    ArrayConfig c = f.config();
    c.members[0].device = nullptr;
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(f.open(c));
        EXPECT_EQ(std::ranges::count(f.read(0, 2000).status, BlockStatus::kUnreadable), 1) << "start " << i;
        ASSERT_TRUE(f.write(3000, f.pattern(8)));
        rest(f);
        ASSERT_TRUE(f.stop());
    }
}

TEST(JournalOnArray, hot_writes_cost_no_record_and_a_stream_costs_few) {
    ArrayFixture f({.member_bytes = 16 * kMiB});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(8)));
    const auto before = f.array->status().journal;
    EXPECT_EQ(before.records, 1U);
    for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(f.write(0, f.pattern(8)));
    }
    EXPECT_EQ(f.array->status().journal.records, before.records);
    EXPECT_EQ(f.array->status().journal.hot_writes, 50U);
    for (std::uint64_t lba = 9600; lba < 9600 + 16 * 1024; lba += 64) {
        ASSERT_TRUE(f.write(lba, f.pattern(64)));
    }
    EXPECT_LE(f.array->status().journal.records, before.records + 16) << "8 MiB";
}

TEST(JournalOnArray, an_idle_array_writes_nothing) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(100)));
    rest(f);
    const std::uint64_t writes = writes_to_disks(f);
    f.scheduler.run_for(std::chrono::seconds(60));
    EXPECT_EQ(writes_to_disks(f), writes);
    f.crash(/*power=*/true);
    ASSERT_TRUE(f.reopen());
    EXPECT_FALSE(f.array->status().resyncing);
    EXPECT_EQ(f.array->status().journal.recovered_stripes, 0U);
}

Task<void> write_many(ArrayFixture& f, std::uint64_t first, std::uint64_t count, std::uint64_t step, int& failed) {
    const Buffer buffer = *f.environment.pool().allocate(kBlockBytes);
    for (std::uint64_t i = 0; i < count; ++i) {
        const Slice slice = buffer.slice(kBlockBytes, Lba((first + i) * step));
        slice.clear_infos();
        failed += co_await f.volume().write(Lba((first + i) * step), slice, {}) ? 0 : 1;
    }
}

TEST(JournalOnArray, a_full_set_makes_writes_wait_and_none_fails) {
    for (const std::uint32_t shards : {1U, 4U}) {
        ArrayFixture f({.strip_bytes = 4096, .shards = shards, .member_bytes = 16 * kMiB, .journal_stripes = 64});
        ASSERT_TRUE(f.create());
        f.settle();
        int failed = 0;
        std::vector<Task<bool>> writers;
        const auto run = [](Task<void> t) -> Task<bool> {
            co_await std::move(t);
            co_return true;
        };
        for (std::uint64_t i = 0; i < 64; ++i) {
            writers.push_back(run(write_many(f, i * 40, 40, 24, failed)));
        }
        f.scheduler.run(*f.caller, when_all(std::move(writers)));
        EXPECT_EQ(failed, 0);
        const auto status = f.array->status().journal;
        EXPECT_GT(status.waits_for_room, 0U);
        EXPECT_GT(status.checkpoints, 20U);
        EXPECT_LE(status.listed_stripes, 64U);
        f.crash(/*power=*/true);
        ASSERT_TRUE(f.reopen());
        EXPECT_LE(f.array->status().journal.recovered_stripes, 128U) << "what was listed, and what was dropped last";
    }
}

TEST(JournalOnArray, the_policy_of_the_config_holds_from_the_next_start) {
    ArrayFixture f({.member_bytes = 4 * kMiB, .policy = RecoveryPolicy::kResync});
    ASSERT_TRUE(f.create());
    f.settle();
    for (const RecoveryPolicy policy : {RecoveryPolicy::kJournal, RecoveryPolicy::kResync, RecoveryPolicy::kJournal}) {
        ASSERT_TRUE(f.write(0, f.pattern(8)));
        const RecoveryPolicy before = f.options.policy;
        f.options.policy = policy;
        f.crash(/*power=*/true);
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(f.array->status().journal.policy, policy);
        const auto status = f.array->status();
        const std::uint64_t doubted = status.resync_total.value - status.resync_done.value;
        if (before == RecoveryPolicy::kResync) {
            EXPECT_GT(doubted, 4000U) << "everything, under the policy of the crash";
        } else {
            EXPECT_LE(doubted, 32U);
        }
        f.settle();
    }
}

/// Every start writes a page: records that count no more must not keep the pages behind them.
TEST(JournalOnArray, starts_without_a_journal_do_not_fill_the_log) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(f.write(0, f.pattern(8)));
    ASSERT_TRUE(f.stop());
    f.options.policy = RecoveryPolicy::kResync;
    for (int i = 0; i < 200; ++i) {
        ASSERT_TRUE(f.reopen());
        ASSERT_TRUE(f.stop());
    }
    f.options.policy = RecoveryPolicy::kJournal;
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().journal.policy, RecoveryPolicy::kJournal);
    EXPECT_FALSE(f.environment.events().has("journal-later"));
    EXPECT_FALSE(f.environment.events().has("log-damaged"));
}

void damage_log(ArrayFixture& f) {
    for (auto& disk : f.disks) {
        const auto image = disk->snapshot();
        const Lba slot = superblock_slot(disk->limits().sectors, 0);
        const auto sb = decode_superblock(std::span(image).subspan(byte_offset(slot)).first<kSuperblockBytes>());
        ASSERT_TRUE(sb);
        const AreaRecord& area = sb->area(AreaKind::kLog);
        for (std::uint64_t s = 0; s < area.sectors.value; s += kSectorsPerBlock) {
            disk->rot(area.lba + s);
        }
    }
}

/// Client of the log that drops nothing.
Result<std::uint64_t> append_page(ArrayFixture& f) {
    return f.scheduler.run(*f.caller, f.array->log().append(kLogClientPair | 1U, std::vector<std::byte>(3000)));
}

/// Two members fail.
void turn_read_only(ArrayFixture& f) {
    f.disks[0]->fail_next_flushes(1);
    f.disks[1]->fail_next_flushes(1);
    EXPECT_FALSE(f.flush());
    EXPECT_EQ(f.array->status().state, ArrayState::kReadOnly);
}

TEST(JournalOnArray, a_read_only_array_with_a_full_log_is_quiet_and_keeps_nobody_waiting) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(96)));
    rest(f);  // nothing is being written to the log, whose oldest record is the journal's
    turn_read_only(f);
    Result<std::uint64_t> appended = append_page(f);
    const TimePoint began = f.scheduler.now();
    for (int i = 0; i < 64 && appended; ++i) {
        appended = append_page(f);
    }
    ASSERT_FALSE(appended);
    EXPECT_EQ(appended.error().code, Errc::kReadOnly) << appended.error().message;
    EXPECT_LT(f.scheduler.now() - began, std::chrono::seconds(1));
    f.scheduler.run_for(std::chrono::seconds(10));
    EXPECT_LE(f.environment.events().count("log-checkpoint-failed"), 1U);
}

TEST(JournalOnArray, a_write_that_waits_for_the_log_of_an_array_that_turns_read_only_fails) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.write(0, f.pattern(96)));
    while (append_page(f)) {
    }
    int failed = 0;
    f.scheduler.start(*f.caller, write_many(f, 100, 1, 96, failed));  // not listed
    f.scheduler.run_for(std::chrono::seconds(1));
    turn_read_only(f);
    EXPECT_TRUE(f.scheduler.run_until([&] { return failed == 1; }, std::chrono::seconds(1)));
    const TimePoint began = f.scheduler.now();
    f.stop_anyhow();
    EXPECT_LT(f.scheduler.now() - began, std::chrono::seconds(1));
}

TEST(JournalOnArray, without_its_log_everything_is_doubtful_and_a_degraded_start_wants_force) {
    ArrayFixture f({.member_bytes = 4 * kMiB});
    ASSERT_TRUE(f.create());
    f.settle();
    const auto data = f.pattern(8);
    ASSERT_TRUE(f.write(0, data));
    f.crash(/*power=*/false);
    damage_log(f);
    ArrayConfig c = f.config();
    c.members[1].device = nullptr;
    const auto before = f.disks[0]->snapshot();
    const auto refused = f.open(c);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNeedsForce) << refused.error().message;
    EXPECT_EQ(f.disks[0]->snapshot(), before) << "a refused start changed a member";
    ASSERT_TRUE(f.reopen());
    EXPECT_TRUE(f.environment.events().has("journal-damaged"));
    EXPECT_EQ(f.array->status().resync_done.value, 0U);
    f.settle();
    EXPECT_EQ(f.read(0, 8).data, data);
    ASSERT_TRUE(f.write(0, data));
    f.crash(/*power=*/false);
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().journal.recovered_stripes, 1U) << "the journal began anew";
}

TEST(JournalOnArray, the_first_resync_goes_on_where_a_crash_left_it) {
    for (const std::uint32_t shards : {1U, 4U}) {
        ArrayFixture f({.shards = shards, .member_bytes = 16 * kMiB});
        ASSERT_TRUE(f.create());
        f.scheduler.run_until([&] { return f.array->status().resync_done.value > 16384; });
        ASSERT_TRUE(f.write(0, f.pattern(8)));
        ASSERT_TRUE(f.array->status().resyncing);
        f.crash(/*power=*/true);
        ASSERT_TRUE(f.reopen());
        EXPECT_GT(f.array->status().resync_done.value, 8192U);
        f.settle();
        EXPECT_EQ(f.array->status().resync_done, f.array->status().resync_total);
    }
}

TEST(JournalOnArray, starts_without_writes_leave_room_for_the_journal) {
    ArrayFixture f({.member_bytes = 4 * kMiB});
    ASSERT_TRUE(f.create());
    f.settle();
    for (std::uint64_t i = 0; i < 7; ++i) {
        ASSERT_TRUE(f.write(i * 960, f.pattern(8)));
    }
    for (int i = 0; i < 40; ++i) {
        f.crash(/*power=*/false);
        ASSERT_TRUE(f.reopen()) << "start " << i;
    }
    ASSERT_TRUE(f.write(0, f.pattern(8)));
    f.settle();
    EXPECT_EQ(f.array->status().journal.policy, RecoveryPolicy::kJournal);
}

}  // namespace
}  // namespace gemel::raid
