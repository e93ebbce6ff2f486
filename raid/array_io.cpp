// SPDX-License-Identifier: Apache-2.0
// The data path of an array above its levels: from any executor to the shards and back.
#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/member_writes.hpp"
#include "raid/redo_log.hpp"
#include "raid/scrub.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {
constexpr Duration kMemoryPoll = std::chrono::milliseconds(1);
constexpr int kMemoryPolls = 5000;
/// Fragments of trust that a shard remembers; beyond that it forgets what it may.
constexpr std::size_t kMaxTrustPieces = 1U << 16U;
}  // namespace

Task<Result<void>> ArrayBody::write_piece(Lba lba, Slice from, WriteOptions options, bool repair) {
    Executor& caller = Executor::current();
    Shard& shard = shard_of(lba);
    co_await resume_on(*shard.executor);
    ++shard.writes_in_flight;
    shard.count_host_io();
    Result<void> r;
    if (read_only()) {
        r = fail(Errc::kReadOnly, "array " + name + " is read-only");
    } else if (!shard.writable && !active(TestSwitch::kUncleanLate)) {
        r = co_await open_for_writes(shard);
    }
    const TouchedBlocks touched(geometry, lba, from.sectors());
    const bool covered = r && redo_ && redo_->begin();  // RD6
    const bool asked = r && journal_ && !covered && !journal_->try_begin(shard, touched);
    if (asked) {
        r = co_await journal_->begin(shard, touched);
    }
    const bool held = r && journal_ && !covered;
    if (r && repair && level.parities() > 0) {
        r = co_await parity_repair(*this, shard, lba, from);
    } else if (r) {
        r = co_await level.write(*this, shard, lba, from, options);
    }
    if (held) {
        // Its record may still be on its way, if the write failed or was logged.
        if (asked && !listed(shard, StripeIndex(touched.first()), StripeIndex(touched.last()))) {
            const Result<void> recorded =
                co_await await_listed(shard, StripeIndex(touched.first()), StripeIndex(touched.last()));
            static_cast<void>(recorded);
        }
        journal_->end(shard, touched);
    }
    if (covered) {
        redo_->end();
    }
    if (r && unrecorded()) {
        r = co_await await_recorded();
    }
    if (r && active(TestSwitch::kUncleanLate) && !shard.writable) {
        r = co_await open_for_writes(shard);
    }
    if (tracks) {
        shard.last_write = env.clock.now();
    }
    --shard.writes_in_flight;
    co_await resume_on(caller);
    co_return r;
}

void ArrayBody::note_host_read() {
    for (const auto& shard : shards) {
        if (shard->executor->is_current()) {
            shard->count_host_io();
            return;
        }
    }
}

std::uint64_t ArrayBody::host_ios() const {
    std::uint64_t sum = 0;
    for (const auto& shard : shards) {
        sum += shard->host_ios.load(std::memory_order_relaxed);
    }
    return sum;
}

/// Cuts at the groups, each of which has its shard.
Task<Result<void>> ArrayBody::write_pieces(Lba lba, Slice from, WriteOptions options, bool repair) {
    const std::uint64_t group = geometry.group_sectors();
    return fan_out(
        lba, from, AfterFailure::kStop, [group](Lba here) { return group - here.value % group; },
        [this, options, repair](Lba here, Slice part) { return write_piece(here, part, options, repair); });
}

Task<Result<void>> ArrayBody::flush() {
    MemberFan fan;
    const Devices sent = devices_of(*this);
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (takes_writes(m)) {
            fan.start(m, members[m].device->flush());
        }
    }
    co_await fan.all();
    CO_TRY_VOID(co_await settle_missed(*this, fan, sent));
    co_return unrecorded() ? co_await await_recorded() : Result<void>{};
}

Task<Result<void>> ArrayBody::flush_with_map() {
    const std::uint64_t mark = redo_ ? redo_->flush_begins() : 0;
    if (checksums_) {
        CO_TRY_VOID(co_await checksums_->write_back());
    }
    CO_TRY_VOID(co_await flush());
    if (redo_) {
        redo_->flush_ended(mark);
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::prepare_map(std::uint64_t first_column, std::uint64_t end_column) {
    if (!checksums_) {
        co_return Result<void>{};
    }
    co_return co_await checksums_->prepare(first_column / kSectorsPerBlock,
                                           round_up(end_column, kSectorsPerBlock) / kSectorsPerBlock);
}

void ArrayBody::note_wrong_map(std::uint64_t column, std::uint32_t set) {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if ((set >> m & 1U) != 0) {
            event(Severity::kWarning, "checksum-renewed", member_subject(m),
                  "the checksum of the block at column " + std::to_string(column) +
                      " was wrong, not the block: it agrees with the redundancy");
        }
    }
}

void ArrayBody::note_lost_page(std::uint64_t page) {
    event(Severity::kWarning, "checksum-page-lost", "array " + name,
          "no copy of page " + std::to_string(page) +
              " of the checksum map can be read: its blocks count as they lie until they are written",
          level.redundant ? "scrub the array" : "compare the data there with another copy");
}

/// The stripe cache that may know of this address of a member; nullptr: none, or it was told of a doubt, since it is
/// another executor's.
StripeCache* ArrayBody::cache_here(Lba member_lba) {
    if (level.parities() == 0 || member_lba.value >= geometry.member_sectors) {
        return nullptr;
    }
    const Shard& shard = shard_of_stripe(StripeIndex(member_lba.value / geometry.strip_sectors));
    if (!shard.executor->is_current()) {
        doubt_cached();
        return nullptr;
    }
    return shard.cache.get();
}

void ArrayBody::forget_cached_columns(Lba member_lba, SectorCount sectors) {
    if (StripeCache* cache = active(TestSwitch::kCacheOutlivesRepair) ? nullptr : cache_here(member_lba)) {
        cache->forget_columns(geometry.members, member_lba.value / kSectorsPerBlock,
                              round_up(member_lba.value + sectors.value, kSectorsPerBlock) / kSectorsPerBlock);
    }
}

void ArrayBody::forget_cached(std::uint32_t member, Lba member_lba, SectorCount sectors) {
    if (StripeCache* cache = active(TestSwitch::kCacheOutlivesWrite) ? nullptr : cache_here(member_lba)) {
        cache->forget(member, member_lba.value / kSectorsPerBlock,
                      round_up(member_lba.value + sectors.value, kSectorsPerBlock) / kSectorsPerBlock);
    }
}

void ArrayBody::tell_of(const RepairReport& report, const RepairReport::ByMember& blocks) {
    const bool repaired = &report == &repairs_;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (blocks[m].blocks == 0) {
            continue;
        }
        if (repaired) {
            event(Severity::kWarning, "block-repaired", member_subject(m),
                  blocks[m].text("written anew from the other members"));
        } else {
            event(Severity::kError, "block-mismatched", member_subject(m),
                  blocks[m].text("not returned: the level has no other copy"),
                  "write these blocks anew from another copy, and check the device");
        }
    }
}

Task<void> ArrayBody::note_repaired(std::uint32_t member, Lba member_lba, std::uint64_t blocks, bool mismatched) {
    if (repairs_.add(member, member_lba, blocks, mismatched)) {
        co_await begin_telling(repairs_);
    }
}

Task<void> ArrayBody::note_mismatched(std::uint32_t member, Lba member_lba, std::uint64_t blocks) {
    if (mismatches_.add(member, member_lba, blocks, /*mismatched=*/true)) {
        co_await begin_telling(mismatches_);
    }
}

Task<void> ArrayBody::begin_telling(RepairReport& report) {
    Executor& caller = Executor::current();
    co_await resume_on(home);
    RepairReport::ByMember blocks;
    report.take(blocks);
    tell_of(report, blocks);
    if (!gate_.spawn(tell_more(report))) {
        while (report.take(blocks)) {
            tell_of(report, blocks);
        }
    }
    co_await resume_on(caller);
}

/// Of what is found soon after. Home.
Task<void> ArrayBody::tell_more(RepairReport& report) {
    RepairReport::ByMember blocks;
    bool more = true;
    while (more) {
        co_await stop_event_.wait_until(env.clock, env.clock.now() + RepairReport::kTellEvery);
        more = report.take(blocks);
        tell_of(report, blocks);
    }
}

Task<Result<Buffer>> ArrayBody::allocate(std::size_t bytes) {
    Result<Buffer> buffer = env.buffers.allocate(bytes);
    for (int i = 0; i < kMemoryPolls && !buffer && !stopping(); ++i) {
        for (const auto& shard : shards) {
            if (shard->executor->is_current()) {
                shard->cache->clear();
            }
        }
        co_await sleep_for(env.clock, kMemoryPoll);
        buffer = env.buffers.allocate(bytes);
    }
    co_return buffer;
}

Task<void> ArrayBody::note_read_error(std::uint32_t index, Errc code) {
    if (code == Errc::kDeviceGone && takes_writes(index) && !read_only()) {
        const Result<void> r = co_await fail_member(index, Error(code, "the device is gone"));
        static_cast<void>(r);  // the read goes on with what is left, also of a read-only array
    }
}

void ArrayBody::found_bad(Shard& shard, std::uint64_t column) {
    scrub->hit(shard, column);
}

void ArrayBody::trust(Shard& shard, std::uint64_t first_column, std::uint64_t end_column) {
    if (shard.untrusted.empty() || first_column >= end_column) {
        return;
    }
    if (shard.untrusted.pieces() >= kMaxTrustPieces) {
        if (level.parities() > 0 && lost_members() > 0) {
            turn_read_only("a member failed during a resync, and too many scattered writes followed");
        }
        return;  // stays untrusted, which is safe
    }
    const std::uint64_t before = shard.untrusted.total();
    const std::uint64_t from = shard.local(first_column);
    shard.untrusted.remove(from, from + (end_column - first_column));
    untrusted_total_.fetch_sub(before - shard.untrusted.total());
    if (shard.untrusted.empty()) {
        untrusted_shards_.fetch_sub(1, std::memory_order_acq_rel);
    }
    if (journal_) {
        journal_->note_trust_changed();
    }
}

void ArrayBody::distrust(Shard& shard, std::uint64_t first_column, std::uint64_t end_column) {
    if (first_column >= end_column) {
        return;
    }
    accepted_member_.store(0, std::memory_order_release);  // B5
    distrusts_.fetch_add(1, std::memory_order_relaxed);
    doubt_cached();
    const bool was_empty = shard.untrusted.empty();
    const std::uint64_t before = shard.untrusted.total();
    const std::uint64_t from = shard.local(first_column);
    shard.untrusted.add(from, from + (end_column - first_column));
    untrusted_total_.fetch_add(shard.untrusted.total() - before);
    if (was_empty) {
        untrusted_shards_.fetch_add(1, std::memory_order_acq_rel);
    }
    if (journal_) {
        journal_->note_trust_changed();
    }
}

std::string ArrayBody::member_subject(std::uint32_t index) const {
    return "array " + name + " member " + std::to_string(index) + " (" + member_name(index) + ")";
}

std::string ArrayBody::member_name(std::uint32_t index) const {
    const std::scoped_lock lock(status_mutex_);
    return member_names_[index];
}

void ArrayBody::event(Severity severity, std::string_view id, std::string subject, std::string cause,
                      std::string action) {
    env.events.emit({severity, id, std::move(subject), std::move(cause), std::move(action)});
}

}  // namespace gemel::raid::detail
