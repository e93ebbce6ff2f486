// SPDX-License-Identifier: Apache-2.0
// The durable log: pages, recovery as a pure function, and the ring on a real array through crashes and failures.
#include <gtest/gtest.h>

#include <bit>

#include "gemel/sync.hpp"
#include "raid/durable_log.hpp"
#include "raid/level_table.hpp"
#include "raid/log_page.hpp"
#include "tests/unit/raid/array_fixture.hpp"

namespace gemel::raid {
namespace {

using testing::ArrayFixture;
using testing::FixtureOptions;

constexpr LogClientId kClient = kLogClientPair | 1U;
constexpr LogClientId kOther = kLogClientPair | 2U;

LogPageHeader header(std::uint64_t sequence, std::uint64_t batch_first, bool last, std::uint64_t head = 1,
                     std::uint64_t generation = 1) {
    LogPageHeader h;
    h.generation = generation;
    h.sequence = sequence;
    h.previous = sequence - 1;
    h.head = head;
    h.batch_first = batch_first;
    h.next_position = sequence + 1;
    h.flags = last ? kLogLastOfBatch : 0;
    return h;
}

/// A batch of `pages` pages with one record that fills them.
std::vector<LogPage> batch(std::uint64_t first, std::uint64_t pages, std::uint64_t head = 1,
                           std::uint64_t generation = 1) {
    const std::size_t bytes = pages * kLogPayloadBytes - kLogRecordHeaderBytes - 5;
    std::vector<std::byte> payload(kLogRecordHeaderBytes + bytes, std::byte(first));
    LeWriter w(payload);
    w.put(kClient);
    w.put(static_cast<std::uint32_t>(bytes));
    w.put(first);
    std::vector<LogPage> out;
    for (std::uint64_t i = 0; i < pages; ++i) {
        const ConstBytes all(payload);
        const ConstBytes part =
            all.subspan(i * kLogPayloadBytes, std::min(kLogPayloadBytes, payload.size() - i * kLogPayloadBytes));
        LogPageHeader h = header(first + i, first, i + 1 == pages, head, generation);
        h.payload_bytes = static_cast<std::uint32_t>(part.size());
        out.push_back({h, {part.begin(), part.end()}});
    }
    return out;
}

void add(LogPages& to, std::vector<LogPage> pages, std::vector<std::size_t> without = {}) {
    for (std::size_t i = 0; i < pages.size(); ++i) {
        if (std::ranges::count(without, i) == 0) {
            to.add(std::move(pages[i]));
        }
    }
}

std::vector<std::uint64_t> positions(const LogState& s) {
    std::vector<std::uint64_t> out;
    for (const RecoveredRecord& r : s.records) {
        out.push_back(r.position);
    }
    return out;
}

TEST(LogPage, comes_back_and_damage_is_noticed) {
    LogPageHeader h = header(9, 8, true, 3);
    h.payload_bytes = 100;
    h.copies = 2;
    std::array<std::byte, kLogPageBytes> page{};
    std::ranges::fill(page, std::byte{0x5a});
    encode(h, page);
    const auto out = decode_log_page(page);
    ASSERT_TRUE(out);
    EXPECT_EQ(*out, h);
    for (std::size_t byte = 0; byte < page.size(); byte += 7) {
        auto bad = page;
        bad[byte] ^= std::byte{4};
        EXPECT_FALSE(decode_log_page(bad)) << byte;
    }
}

TEST(LogRecovery, gives_the_records_from_head_to_tail) {
    LogPages pages;
    add(pages, batch(1, 2));
    add(pages, batch(3, 1));
    add(pages, batch(4, 3, 3));
    const LogState s = recover_log(pages, 1);
    EXPECT_FALSE(s.corrupt);
    EXPECT_EQ(positions(s), (std::vector<std::uint64_t>{3, 4}));
    EXPECT_EQ(s.tail, 6U);
    EXPECT_EQ(s.next_sequence, 7U);
}

TEST(LogRecovery, drops_a_torn_last_batch_and_never_uses_its_numbers_again) {
    for (std::size_t missing = 0; missing < 3; ++missing) {
        LogPages pages;
        add(pages, batch(1, 2));
        add(pages, batch(3, 3), {missing});
        const LogState s = recover_log(pages, 1);
        EXPECT_FALSE(s.corrupt) << *s.corrupt;
        EXPECT_EQ(positions(s), (std::vector<std::uint64_t>{1}));
        EXPECT_EQ(s.next_sequence, missing == 2 ? 5U : 6U);
    }
}

TEST(LogRecovery, a_hole_before_the_last_batch_is_corrupt) {
    LogPages pages;
    add(pages, batch(1, 2));
    add(pages, batch(3, 3), {1});
    add(pages, batch(6, 1));
    const LogState s = recover_log(pages, 1);
    EXPECT_TRUE(s.corrupt);
    EXPECT_TRUE(s.records.empty());
}

TEST(LogRecovery, two_incomplete_batches_are_corrupt) {
    LogPages pages;
    add(pages, batch(1, 1));
    add(pages, batch(2, 2), {0});
    add(pages, batch(4, 2), {0});
    EXPECT_TRUE(recover_log(pages, 1).corrupt);
}

TEST(LogRecovery, a_missing_generation_or_an_empty_log_is_corrupt) {
    LogPages pages;
    EXPECT_TRUE(recover_log(pages, 1).corrupt);
    add(pages, batch(1, 1));
    EXPECT_TRUE(recover_log(pages, 2).corrupt);
}

TEST(LogRecovery, a_new_generation_voids_what_was_torn_before_it) {
    LogPages pages;
    add(pages, batch(1, 1));
    add(pages, batch(2, 4), {1});  // pages 2, 4, 5
    std::vector<LogPage> next = batch(3, 1, 1, 2);
    next[0].header.flags |= kLogFirstOfGeneration;
    next[0].header.previous = 1;
    add(pages, next);
    const LogState s = recover_log(pages, 2);
    EXPECT_FALSE(s.corrupt) << *s.corrupt;
    EXPECT_EQ(positions(s), (std::vector<std::uint64_t>{1, 3}));
}

class LogOnArray : public ::testing::Test {
  protected:
    Result<std::uint64_t> append(ArrayFixture& f, const std::string& text, LogClientId client = kClient) {
        const ConstBytes b = as_bytes_of(text);
        return f.scheduler.run(*f.caller, f.array->log().append(client, {b.begin(), b.end()}));
    }
    static std::vector<std::string> recovered(ArrayFixture& f, LogClientId client = kClient) {
        auto r = f.array->log().recovered(client);
        CHECK(r.has_value());
        std::vector<std::string> out;
        for (const LogRecord& record : *r) {
            out.emplace_back(as_text(record.bytes));
        }
        return out;
    }
};

TEST_F(LogOnArray, records_survive_power_loss_in_order_and_dropped_ones_go) {
    for (const char* level : {"0", "1", "5"}) {
        ArrayFixture f({.seed = 3, .level = level, .members = 3});
        ASSERT_TRUE(f.create());
        ASSERT_TRUE(append(f, "one"));
        const auto two = append(f, "two");
        ASSERT_TRUE(append(f, "other", kOther));
        ASSERT_TRUE(append(f, std::string(9000, 'x')));
        f.array->log().drop_before(kClient, *two);
        ASSERT_TRUE(append(f, "last"));
        f.crash(/*power=*/true);
        ASSERT_TRUE(f.reopen());
        auto got = recovered(f);
        if (got.size() == 4 && got.front() == "one") {
            got.erase(got.begin());  // may come back: the page that says it is dropped may hold it
        }
        EXPECT_EQ(got, (std::vector<std::string>{"two", std::string(9000, 'x'), "last"})) << level;
        EXPECT_EQ(recovered(f, kOther), (std::vector<std::string>{"other"}));
    }
}

TEST_F(LogOnArray, a_record_outlives_any_members_that_the_level_can_lose_at_once) {
    for (const LevelRow& row : kLevelTable) {
        const std::uint32_t members = row.min_members + 2;
        if (!row.redundant || !row.fits(members)) {
            continue;
        }
        for (std::uint32_t gone = 1; gone < 1U << members; ++gone) {
            // All at once, or one member before the records are written.
            for (const bool degraded : {false, true}) {
                if (!row.tolerates(gone, members)) {
                    continue;
                }
                ArrayFixture f({.seed = 4 + gone, .level = std::string(row.name), .members = members});
                ASSERT_TRUE(f.create());
                f.settle();
                if (degraded) {
                    f.disks[static_cast<std::size_t>(std::countr_zero(gone))]->die();
                }
                std::vector<std::string> expected;
                for (std::uint32_t i = 0; i < 2 * members; ++i) {
                    expected.push_back("record " + std::to_string(i));
                    ASSERT_TRUE(append(f, expected.back()));
                }
                f.crash(/*power=*/true);
                ArrayConfig c = f.config();
                for (std::uint32_t m = 0; m < members; ++m) {
                    c.members[m].device = (gone >> m & 1U) != 0 ? nullptr : c.members[m].device;
                }
                const auto r = f.open(c);
                ASSERT_TRUE(r) << row.name << " " << gone << ": " << r.error().message;
                EXPECT_EQ(recovered(f), expected) << row.name << " " << gone;
            }
        }
    }
}

TEST_F(LogOnArray, a_record_on_striped_mirrors_is_on_one_pair) {
    ArrayFixture f({.level = "10", .members = 6});
    ASSERT_TRUE(f.create());
    f.settle();
    f.scheduler.run_for(std::chrono::seconds(6));
    std::uint64_t before = 0;
    for (const auto& disk : f.disks) {
        before += disk->counters().writes;
    }
    ASSERT_TRUE(append(f, "record"));
    std::uint64_t after = 0;
    for (const auto& disk : f.disks) {
        after += disk->counters().writes;
    }
    EXPECT_EQ(after - before, 2U);
}

TEST_F(LogOnArray, a_member_that_fails_is_replaced_by_another) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    f.disks[1]->die();
    std::vector<std::string> expected;
    for (int i = 0; i < 8; ++i) {
        expected.push_back("record " + std::to_string(i));
        ASSERT_TRUE(append(f, expected.back()));
    }
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kFailed);
    ASSERT_TRUE(f.stop());
    f.disks[1]->revive();
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->status().members[1].state, MemberState::kStale);
    EXPECT_EQ(recovered(f), expected);
}

/// One record after another; none of those before the last is needed.
Task<void> append_until(DurableLog& log, LogClientId client, const bool& over, int& failed) {
    while (!over) {
        const auto position = co_await log.append(client, std::vector<std::byte>(3000));
        failed += position ? 0 : 1;
        log.drop_before(client, position.value_or(0));
    }
}

TEST_F(LogOnArray, a_member_gets_the_log_though_it_is_never_idle) {
    ArrayFixture f({.level = "1", .members = 2});
    ASSERT_TRUE(f.create());
    f.settle();
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->fail_member(1, /*force=*/false)));
    bool over = false;
    int failed = 0;
    for (LogClientId c = 0; c < 4; ++c) {
        f.scheduler.start(*f.caller, append_until(f.array->log(), kClient + c, over, failed));
    }
    ASSERT_TRUE(f.scheduler.run(*f.caller, f.array->rebuild(1, {f.disks[1].get(), ""})));
    EXPECT_TRUE(f.scheduler.run_until([&] { return f.array->status().state == ArrayState::kOptimal; },
                                      std::chrono::seconds(30)));
    over = true;
    f.scheduler.run_for(std::chrono::seconds(10));
    EXPECT_EQ(failed, 0);
}

Task<Result<void>> checkpoint_of(ArrayFixture* f, int* calls) {
    ++*calls;
    auto position = co_await f->array->log().append(kClient, std::vector<std::byte>(500, std::byte{7}));
    if (!position) {
        co_return std::unexpected(position.error());
    }
    f->array->log().drop_before(kClient, *position);
    co_return Result<void>{};
}

TEST_F(LogOnArray, a_full_log_asks_for_checkpoints_and_goes_on) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    int calls = 0;
    f.array->log().set_checkpoint(kClient, *f.caller, [&f, &calls] { return checkpoint_of(&f, &calls); });
    std::uint64_t last = 0;
    for (int i = 0; i < 300; ++i) {
        const auto r = append(f, std::string(3000, 'a'));
        ASSERT_TRUE(r) << i << " " << r.error().message;
        ASSERT_GT(*r, last);
        last = *r;
    }
    EXPECT_GT(calls, 5);
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_FALSE(recovered(f).empty());
    EXPECT_EQ(recovered(f).back(), std::string(3000, 'a'));
}

/// Fills the log up to one page, appends a record of two pages and then one of one, and only then makes room.
Task<Result<void>> checkpoint_with_two_records(ArrayFixture* f, std::vector<std::uint64_t>* positions) {
    if (!positions->empty()) {
        co_return Result<void>{};
    }
    positions->resize(2);
    auto& log = dynamic_cast<RingLog&>(f->array->log());
    std::uint64_t last = 0;
    while (log.used_pages() + 5 < log.pages()) {  // RL3: kSparePages and one more
        CO_TRY(last, co_await log.append(kClient, std::vector<std::byte>(3000)));
    }
    const auto put = [](RingLog& to, std::size_t bytes, std::uint64_t& position) -> Task<Result<void>> {
        CO_TRY(position, co_await to.append(kClient, std::vector<std::byte>(bytes)));
        co_return Result<void>{};
    };
    Gate gate;
    const auto start = [](Task<Result<void>> task) -> Task<void> {
        const Result<void> ended = co_await std::move(task);
        static_cast<void>(ended);
    };
    gate.spawn(start(put(log, 6000, (*positions)[0])));
    co_await sleep_for(f->scheduler, std::chrono::milliseconds(1));
    gate.spawn(start(put(log, 100, (*positions)[1])));
    co_await sleep_for(f->scheduler, std::chrono::milliseconds(100));
    log.drop_before(kClient, last);
    co_await gate.close();
    co_return Result<void>{};
}

TEST_F(LogOnArray, records_of_the_client_whose_checkpoint_runs_stay_in_their_order) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    std::vector<std::uint64_t> positions;
    f.array->log().set_checkpoint(kClient, *f.caller,
                                  [&f, &positions] { return checkpoint_with_two_records(&f, &positions); });
    ASSERT_TRUE(append(f, "keeps the others in the log"));
    for (int i = 0; i < 300 && (positions.empty() || std::ranges::count(positions, 0U) > 0); ++i) {
        const auto position = append(f, std::string(3000, 'a'), kOther);
        ASSERT_TRUE(position);
        f.array->log().drop_before(kOther, *position + 1);
    }
    ASSERT_EQ(positions.size(), 2U);
    EXPECT_GT(positions[0], 0U);
    EXPECT_GT(positions[1], positions[0]) << "a smaller record passed one that did not fit";
}

TEST_F(LogOnArray, a_full_log_without_checkpoints_says_so_in_bounded_time) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    Result<std::uint64_t> r = 0;
    int appended = 0;
    while ((r = append(f, std::string(3000, 'a')))) {
        ASSERT_LT(++appended, 1000);
    }
    EXPECT_EQ(r.error().code, Errc::kNoSpace);
    EXPECT_GT(appended, 10);
    f.array->log().drop_before(kClient, 1000);
    EXPECT_TRUE(append(f, "fits again"));
}

TEST_F(LogOnArray, a_client_that_leaves_keeps_its_records_whatever_others_append) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(append(f, "stays"));
    f.array->log().remove_client(kClient);
    ASSERT_TRUE(append(f, "of another", kOther));
    ASSERT_TRUE(append(f, "and another", kOther));
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(recovered(f), (std::vector<std::string>{"stays"}));
}

TEST_F(LogOnArray, lost_pages_are_an_error_until_a_client_writes_its_state_anew) {
    ArrayFixture f({.seed = 8, .level = "0", .members = 1});
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(append(f, "one"));
    ASSERT_TRUE(append(f, "two"));
    ASSERT_TRUE(f.stop());
    // The log area begins where the data ends; find and damage all of it.
    const auto image = f.disks[0]->snapshot();
    for (std::size_t at = 0; at < image.size(); at += kLogPageBytes) {
        if (as_text(ConstBytes(image).subspan(at, 8)) == "GMELLOG1") {
            f.disks[0]->rot(Lba(at / kSectorBytes));
        }
    }
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->log().recovered(kClient).error().code, Errc::kCorrupt);
    EXPECT_TRUE(f.environment.events().has("log-damaged"));
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->log().recovered(kClient).error().code, Errc::kCorrupt) << "forgotten after a second start";
    ASSERT_TRUE(append(f, "anew"));
    ASSERT_TRUE(f.stop());
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(recovered(f), (std::vector<std::string>{"anew"}));
}

TEST_F(LogOnArray, a_page_that_may_be_behind_unreadable_sectors_is_not_taken_as_never_written) {
    ArrayFixture f({.seed = 9, .level = "0", .members = 2});
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(append(f, "one"));
    ASSERT_TRUE(append(f, "two"));
    ASSERT_TRUE(f.stop());
    for (auto& disk : f.disks) {
        disk->fail_next_reads(2, 2);  // both slots are read before the log
        EXPECT_EQ(f.reopen().error().code, Errc::kIo);
        disk->fail_next_reads(1, 2);  // and tried again
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(recovered(f), (std::vector<std::string>{"one", "two"}));
        ASSERT_TRUE(f.stop());
    }
    const auto image = f.disks[1]->snapshot();
    for (std::size_t at = 0; at < image.size(); at += kLogPageBytes) {
        if (as_text(ConstBytes(image).subspan(at, 8)) == "GMELLOG1") {
            f.disks[1]->damage(Lba(at / kSectorBytes), SectorCount(1));
        }
    }
    ASSERT_TRUE(f.reopen());
    EXPECT_EQ(f.array->log().recovered(kClient).error().code, Errc::kCorrupt);
}

TEST_F(LogOnArray, a_record_that_was_found_on_one_member_outlives_it) {
    int found_two = 0;
    for (std::uint32_t gone = 0; gone < 3; ++gone) {
        ArrayFixture f({.seed = 11 + gone, .level = "5", .members = 3});
        ASSERT_TRUE(f.create());
        f.settle();
        ASSERT_TRUE(append(f, "one"));
        ASSERT_TRUE(append(f, "two"));
        f.crash(/*power=*/true);
        // The batch of "two" as if it had been in flight: only member `gone` has it, if it took part.
        bool held = false;
        for (std::uint32_t m = 0; m < 3; ++m) {
            const auto image = f.disks[m]->snapshot();
            const auto at = as_text(image).find("two");
            held = held || (m == gone && at != std::string_view::npos);
            if (m != gone && at != std::string_view::npos) {
                f.disks[m]->rot(Lba(at / kSectorBytes));
            }
        }
        ASSERT_TRUE(f.reopen());
        const auto found = recovered(f);
        EXPECT_EQ(found, held ? (std::vector<std::string>{"one", "two"}) : std::vector<std::string>{"one"});
        found_two += held ? 1 : 0;
        ASSERT_TRUE(f.stop());
        ArrayConfig c = f.config();
        c.members[gone].device = nullptr;
        ASSERT_TRUE(f.open(c));
        EXPECT_EQ(recovered(f), found) << "it was on member " << gone << " only";
    }
    EXPECT_EQ(found_two, 2) << "a batch is on two members of three";
}

TEST_F(LogOnArray, the_other_copy_serves_for_pages_that_cannot_be_read) {
    ArrayFixture f({.seed = 10, .level = "5", .members = 3});
    ASSERT_TRUE(f.create());
    ASSERT_TRUE(append(f, "one"));
    ASSERT_TRUE(append(f, "two"));
    ASSERT_TRUE(f.stop());
    for (auto& disk : f.disks) {
        disk->fail_next_reads(2, 2);
        ASSERT_TRUE(f.reopen());
        EXPECT_EQ(recovered(f), (std::vector<std::string>{"one", "two"}));
        ASSERT_TRUE(f.stop());
    }
}

TEST(LogPage, numbers_that_no_log_reaches_are_refused) {
    const std::array wrongs{
        +[](LogPageHeader& h) { h.generation = kMaxLogGeneration + 1; },
        +[](LogPageHeader& h) { h.next_position = ~std::uint64_t{0}; },
        +[](LogPageHeader& h) {
            h.sequence = ~std::uint64_t{0};
            h.previous = h.batch_first = h.head = h.sequence - 1;
        },
        +[](LogPageHeader& h) { h.sequence = h.previous = kMaxLogSequence + 1; },
    };
    for (std::size_t i = 0; i < wrongs.size(); ++i) {
        LogPageHeader h = header(9, 8, true, 3);
        wrongs[i](h);
        h.sequence += i == 3 ? 1 : 0;
        h.batch_first = std::max(h.batch_first, h.sequence - 1);
        std::array<std::byte, kLogPageBytes> page{};
        encode(h, page);
        EXPECT_EQ(decode_log_page(page).error().code, Errc::kCorrupt) << i;
    }
    LogPageHeader h = header(2000, 2000 - kMaxBatchPages, true, 3);
    EXPECT_TRUE(why_invalid(h));
}

TEST_F(LogOnArray, a_record_that_is_too_large_is_refused) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    const std::size_t most = f.array->log().max_record_bytes();
    EXPECT_TRUE(append(f, std::string(most, 'a')));
    EXPECT_EQ(append(f, std::string(most + 1, 'a')).error().code, Errc::kInvalidArgument);
}

TEST_F(LogOnArray, many_appends_at_once_share_pages) {
    ArrayFixture f;
    ASSERT_TRUE(f.create());
    f.settle();
    auto one = [](DurableLog* log, int* done) -> Task<void> {
        CHECK((co_await log->append(kClient, std::vector<std::byte>(20, std::byte{1}))).has_value());
        ++*done;
    };
    const std::uint64_t before = f.disks[0]->counters().writes + f.disks[1]->counters().writes;
    int done = 0;
    for (int i = 0; i < 100; ++i) {
        f.scheduler.start(*f.caller, one(&f.array->log(), &done));
    }
    ASSERT_TRUE(f.scheduler.run_until([&] { return done == 100; }));
    const std::uint64_t writes = f.disks[0]->counters().writes + f.disks[1]->counters().writes - before;
    EXPECT_LT(writes, 20U) << "appends did not join";
}

}  // namespace
}  // namespace gemel::raid
