// SPDX-License-Identifier: Apache-2.0
// Mirrors. RAID 1: the same data on every member. RAID 10: strips in turn over pairs of members, the same on both.
// Where a sector's legs are is geometry's; a run is what lies together on them. Levels without redundancy whose blocks
// have checksums are mirrors of one leg: nothing is made equal there, and what contradicts its checksum is an error.
//
// A read of an untrusted area first makes the legs equal there, from the lowest one in sync: otherwise two reads could
// return different values of a write that a crash interrupted (F14).
#include <algorithm>
#include <bit>
#include <vector>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/levels/levels.hpp"
#include "raid/member_writes.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::levels {

using detail::ArrayBody;
using detail::Checksums;
using detail::Shard;

namespace {

constexpr std::uint64_t kLegRun = kMiB / kSectorBytes;  ///< sectors read from one leg before the next takes its turn

bool legs_equal(const ArrayBody& array) {
    return array.all_trusted() || !array.level.redundant || active(TestSwitch::kUnequalLegs);
}

/// The leg that serves `lba`; the lowest while legs may differ. Nothing if no leg is in sync.
std::optional<std::uint32_t> choose_leg(const ArrayBody& array, Lba lba) {
    std::array<std::uint32_t, kMaxMembers> legs{};
    std::uint32_t n = 0;
    const std::uint32_t holders = array.geometry.legs(lba);
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        if ((holders >> m & 1U) != 0 && array.in_sync(m)) {
            legs[n++] = m;
        }
    }
    if (n == 0) {
        return std::nullopt;
    }
    return legs[legs_equal(array) && !array.read_only() ? lba.value / kLegRun % n : 0];
}

/// Columns of mirrors are sectors of the array.
Task<Result<void>> prepare_map(ArrayBody& array, Lba lba, SectorCount sectors) {
    return array.prepare_map(lba.value, lba.value + sectors.value);
}

/// Writes `from`, in one run, to those of its legs that are in `among` and take writes (RB1).
Task<Result<void>> write_legs(ArrayBody& array, Lba lba, Slice from, std::uint32_t among, WriteOptions options) {
    const std::uint32_t legs = array.geometry.legs(lba) & among;
    const Lba member_lba = array.geometry.locate(lba).member_lba;
    if (!array.in_missed(lba.value, lba.value + from.sectors().value)) {
        CO_TRY_VOID(co_await array.await_missed(lba.value, lba.value + from.sectors().value));
    }
    CO_TRY_VOID(co_await prepare_map(array, lba, from.sectors()));
    MemberFan fan;
    const detail::Devices sent = detail::devices_of(array);
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        const bool missed = active(TestSwitch::kRebuildMissesWrites) && !options.background && array.rebuilding(m);
        if ((legs >> m & 1U) != 0 && array.takes_writes(m) && !missed) {
            fan.start(m, array.members[m].device->write(member_lba, from, options));
        }
    }
    co_await fan.all();
    co_return co_await detail::settle_missed(array, fan, sent);
}

/// The legs, as bits, that do not have one block of a run.
struct BadLegs {
    std::uint32_t unread = 0;
    std::uint32_t mismatched = 0;  ///< what they have contradicts the checksum
    [[nodiscard]] std::uint32_t all() const { return unread | mismatched; }
    friend bool operator==(const BadLegs&, const BadLegs&) = default;
};
using BadBlocks = std::vector<BadLegs>;  ///< empty: all legs that were asked have all blocks

bool unreadable(Slice slice, std::size_t block) {
    return slice.blocks()[block].status == BlockStatus::kUnreadable;
}

/// The blocks that are unreadable in `part`, which came from leg `m`, and were not noted before.
std::size_t note_bad(Slice part, std::uint32_t m, std::uint32_t BadLegs::* how, BadBlocks& bad) {
    std::size_t n = 0;
    for (std::size_t b = 0; b < part.blocks().size(); ++b) {
        if (!unreadable(part, b)) {
            continue;
        }
        bad.resize(part.blocks().size());
        if ((bad[b].all() >> m & 1U) == 0) {
            bad[b].*how |= 1U << m;
            ++n;
        }
    }
    return n;
}

/// What the legs of a run hold that none of them, by the checksum map, may hold: a block that is the same on all legs
/// in sync is what was written, and the map was wrong (CS5).
Task<Result<void>> settle_map(ArrayBody& array, Lba lba, Slice to, BadBlocks& bad) {
    const std::uint32_t legs = array.geometry.legs(lba);
    const Lba member_lba = array.geometry.locate(lba).member_lba;
    CO_TRY(Buffer buffer, co_await array.allocate(2 * kBlockBytes));
    for (std::size_t b = 0; b < to.blocks().size(); ++b) {
        if (to.blocks()[b].status != BlockStatus::kUnreadable) {
            continue;
        }
        const Lba at = member_lba + b * kSectorsPerBlock;
        const Slice one(buffer.memory().first(kBlockBytes), buffer.infos().first(1), 0);
        const Slice other(buffer.memory().subspan(kBlockBytes, kBlockBytes), buffer.infos().subspan(1, 1), 0);
        std::uint32_t same = 0;
        bool differ = false;
        for (std::uint32_t m = 0; m < array.geometry.members && !differ; ++m) {
            if ((legs >> m & 1U) == 0 || !array.in_sync(m)) {
                continue;
            }
            const Slice& part = same == 0 ? one : other;
            part.clear_infos();
            const Result<void> r = co_await detail::read_twice(*array.members[m].device, at, part);
            if (!r) {
                co_await array.note_read_error(m, r.error().code);
                CO_TRY(buffer, co_await array.allocate(2 * kBlockBytes));  // the device may still write to the old one
            }
            differ = !r || (same != 0 && !same_bytes(one.data(), other.data()));
            same |= 1U << m;
        }
        if (differ || std::popcount(same) < 2) {
            continue;
        }
        CO_TRY_VOID(co_await array.checksums()->note(static_cast<std::uint32_t>(std::countr_zero(same)), at, one));
        array.note_wrong_map(at.value, same);
        std::ranges::copy(one.data(), to.block_data(b).begin());
        to.blocks()[b] = BlockInfo{};
        bad[b] = {};
    }
    co_return Result<void>{};
}

/// Reads a run from one leg, compared with the map. What it could not read is unreadable in `part`, which begins to use
/// other memory if a device still holds its own. Errors: the map cannot be read.
Task<Result<void>> read_leg(ArrayBody& array, std::uint32_t m, Lba member_lba, Buffer& buffer, Slice& part,
                            std::optional<Errc>& failure, BadBlocks& bad) {
    part.clear_infos();
    Result<void> r = co_await detail::read_twice(*array.members[m].device, member_lba, part);
    if (!r) {
        if (r.error().code == Errc::kTimedOut) {  // the device may still write to its memory
            CO_TRY(buffer, co_await array.allocate(part.size()));
            part = buffer.slice(part.size(), member_lba);
        }
        detail::settle_read(part, r.error().code);
        failure = r.error().code;
        co_await array.note_read_error(m, r.error().code);
    }
    note_bad(part, m, &BadLegs::unread, bad);
    Checksums* sums = array.checksums();
    if (sums == nullptr || (!r && r.error().code != Errc::kMediumError)) {
        co_return Result<void>{};
    }
    r = co_await sums->judge(m, member_lba, part);
    sums->count_found(note_bad(part, m, &BadLegs::mismatched, bad));
    co_return r || r.error().code == Errc::kMediumError ? Result<void>{} : std::move(r);
}

/// The first of `legs`, from `first` on, that is in sync.
std::optional<std::uint32_t> next_leg(const ArrayBody& array, std::uint32_t legs, std::uint32_t first) {
    for (std::uint32_t i = 0; i < array.geometry.members; ++i) {
        const std::uint32_t m = (first + i) % array.geometry.members;
        if ((legs >> m & 1U) != 0 && array.in_sync(m)) {
            return m;
        }
    }
    return std::nullopt;
}

/// Reads a run from its legs, from leg `first` on, until every block is known; tells which of those legs do not have
/// which. REQUIRES: the lock; with checksums, whole blocks.
Task<Result<void>> read_any(ArrayBody& array, Lba lba, Slice to, BadBlocks& bad, std::uint32_t first = 0) {
    CO_TRY_VOID(co_await prepare_map(array, lba, to.sectors()));  // what all copies say: one of them may be old
    CO_TRY(Buffer buffer, co_await array.allocate(to.size()));
    Slice part = buffer.slice(to.size(), lba);
    to.mark_all(BlockStatus::kUnreadable);
    bad.clear();
    Errc failure = Errc::kMediumError;  // another one may be gone the next time: then the blocks are not lost
    std::uint32_t legs = array.geometry.legs(lba);  // that were not asked
    const Lba member_lba = array.geometry.locate(lba).member_lba;
    while (!to.all_readable()) {
        const auto leg = next_leg(array, legs, first);  // one that gets in sync meanwhile, too
        if (!leg) {
            break;
        }
        const std::uint32_t m = *leg;
        legs &= ~(1U << m);
        std::optional<Errc> code;
        CO_TRY_VOID(co_await read_leg(array, m, member_lba, buffer, part, code, bad));
        failure = code && *code != Errc::kMediumError ? *code : failure;
        for (std::size_t b = 0; b < to.blocks().size(); ++b) {
            if (unreadable(to, b) && !unreadable(part, b)) {
                std::ranges::copy(part.block_data(b), to.block_data(b).begin());
                to.blocks()[b] = BlockInfo{};
            }
        }
    }
    if (array.checksums() != nullptr && !to.all_readable()) {
        CO_TRY_VOID(co_await settle_map(array, lba, to, bad));
    }
    if (!to.all_readable()) {
        co_return fail(failure, "array " + array.name + ": blocks near sector " + std::to_string(lba.value) +
                                    (array.level.redundant ? " cannot be read from any leg"
                                                           : " cannot be read, or do not match their checksums"));
    }
    co_return Result<void>{};
}

/// Whoever has it now has what was written; of a single copy only its checksum can be wrong (CS2).
Task<Result<void>> settle_legs(ArrayBody& array, Lba lba, Slice run, WriteOptions options) {
    if (array.level.redundant) {
        co_return co_await write_legs(array, lba, run, ~0U, options);
    }
    if (active(TestSwitch::kMapTrustedLate)) {
        co_return Result<void>{};
    }
    const Place at = array.geometry.locate(lba);
    co_return co_await array.checksums()->note(at.member, at.member_lba, run);
}

/// Makes the legs equal over [first, end) of a run, one lock's range. Blocks that no leg knows stay untrusted.
/// `options`: a read makes it durable, so that no power cut brings back what a host has seen overwritten.
Task<Result<void>> equalise(ArrayBody& array, Shard& shard, std::uint64_t first, std::uint64_t end,
                            WriteOptions options) {
    const auto guard = co_await shard.lock.acquire(first, end - 1);
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    CO_TRY(const Buffer buffer, co_await array.allocate((end - first) * kSectorBytes));
    const Slice all = buffer.slice((end - first) * kSectorBytes, Lba(first));
    BadBlocks bad;
    const Result<void> r = co_await read_any(array, Lba(first), all, bad);
    array.count_recovery_read(all.size());
    if (!r && r.error().code != Errc::kMediumError) {
        co_return r;
    }
    CO_TRY_VOID(co_await array.record_missing());
    for (std::size_t b = 0; b < all.blocks().size();) {
        std::size_t n = b;
        while (n < all.blocks().size() && all.blocks()[n].status != BlockStatus::kUnreadable) {
            ++n;
        }
        if (n > b) {
            const Slice run = all.sub(b * kBlockBytes, (n - b) * kBlockBytes);
            const Lba lba = Lba(first) + b * kSectorsPerBlock;
            CO_TRY_VOID(co_await settle_legs(array, lba, run, options));
            array.trust(shard, lba.value, lba.value + run.sectors().value);
        }
        b = n + 1;
    }
    if (!r) {
        array.unreadable({Lba(first), SectorCount(end - first)});
    }
    co_return r;
}

/// Blocks of a run are written to the legs that do not have them.
Task<void> give_back(ArrayBody& array, Lba lba, Slice known, const BadBlocks& bad) {
    for (std::size_t b = 0; b < bad.size();) {
        std::size_t end = b + 1;
        while (end < bad.size() && bad[end] == bad[b] && unreadable(known, end) == unreadable(known, b)) {
            ++end;
        }
        const std::size_t from = b == 0 ? 0 : b * kBlockBytes - known.head();
        const std::size_t to = std::min(known.size(), end * kBlockBytes - known.head());
        if (bad[b].all() != 0 && !unreadable(known, b)) {
            const Lba at = lba + from / kSectorBytes;
            array.note_repair(at.value, at.value + (to - from) / kSectorBytes);
            const Result<void> w = co_await write_legs(array, at, known.sub(from, to - from), bad[b].all(), {});
            static_cast<void>(w);  // the value is known; a leg that failed is recorded
            const Lba member_lba = array.geometry.locate(at).member_lba;
            for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
                if ((bad[b].all() >> m & 1U) != 0 && array.in_sync(m)) {
                    co_await array.note_repaired(m, member_lba, end - b, (bad[b].mismatched >> m & 1U) != 0);
                }
            }
        }
        b = end;
    }
}

/// Blocks of a single copy that contradict their checksums.
Task<void> tell_mismatched(ArrayBody& array, Lba lba, const BadBlocks& bad) {
    const Place at = array.geometry.locate(lba);
    for (std::size_t b = 0; b < bad.size();) {
        std::size_t end = b + 1;
        while (end < bad.size() && bad[end] == bad[b]) {
            ++end;
        }
        if (bad[b].mismatched != 0) {
            co_await array.note_mismatched(at.member, at.member_lba + b * kSectorsPerBlock, end - b);
        }
        b = end;
    }
}

/// A read in one run that leg `suspect` could not answer, or of an area where the legs may differ.
Task<Result<void>> read_carefully(ArrayBody& array, Lba lba, Slice to, std::uint32_t suspect) {
    Executor& caller = Executor::current();
    Shard& shard = array.shard_of(lba);
    co_await resume_on(*shard.executor);
    const std::uint64_t end = lba.value + to.sectors().value;
    const std::uint64_t unit = array.geometry.strip_sectors;
    for (std::uint64_t at = round_down(lba.value, unit); at < end && !array.read_only(); at += unit) {
        if (array.level.redundant && !shard.trusted(at, at + unit)) {
            const Result<void> r = co_await equalise(array, shard, at, at + unit, {.fua = true});
            static_cast<void>(r);  // what stays unknown shows in the read below
        }
    }
    Result<void> r;
    {
        const auto guard = co_await shard.lock.acquire(lba.value, end - 1);
        BadBlocks bad;
        // What is wrong with the suspect is found out, and mended, only where it is asked first.
        r = co_await read_any(array, lba, to, bad, shard.trusted(lba.value, end) ? suspect : 0);
        if (!array.level.redundant) {
            co_await tell_mismatched(array, lba, bad);
        }
        if (!bad.empty() && !array.read_only()) {
            co_await give_back(array, lba, to, bad);
            array.found_bad(shard, lba.value);
        }
    }
    co_await resume_on(caller);
    co_return r;
}

/// Cuts at the groups, each of which has its shard.
Task<Result<void>> read_carefully_by_group(ArrayBody& array, Lba lba, Slice to, std::uint32_t suspect) {
    const std::uint64_t group = array.geometry.group_sectors();
    Result<void> out;
    std::size_t at = 0;
    while (at < to.size()) {
        const Lba here = lba + at / kSectorBytes;
        const std::size_t bytes = std::min<std::size_t>(to.size() - at, (group - here.value % group) * kSectorBytes);
        Result<void> r = co_await read_carefully(array, here, to.sub(at, bytes), suspect);
        if (!r && out) {
            out = std::move(r);
        }
        at += bytes;
    }
    co_return out;
}

Task<Result<void>> read_run(ArrayBody& array, Lba lba, Slice to, ReadOptions options) {
    const auto leg = choose_leg(array, lba);
    if (leg && (legs_equal(array) || array.read_only())) {
        const Lba member_lba = array.geometry.locate(lba).member_lba;
        const Result<void> r = co_await array.members[*leg].device->read(member_lba, to, options);
        if (r || r.error().code == Errc::kTimedOut) {
            co_return r;
        }
        co_await array.note_read_error(*leg, r.error().code);
    }
    const std::uint32_t suspect = leg.value_or(0);
    if (array.checksums() == nullptr || (to.head() == 0 && to.size() % kBlockBytes == 0)) {
        co_return co_await read_carefully_by_group(array, lba, to, suspect);
    }
    co_return co_await detail::read_whole(
        array, lba, to, [&](Lba at, Slice all) { return read_carefully_by_group(array, at, all, suspect); });
}

Task<Result<void>> write_run(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    const std::uint64_t end = lba.value + from.sectors().value;
    Result<void> r = co_await write_legs(array, lba, from, ~0U, options);
    if (r) {
        array.trust(shard, lba.value, end);
    } else {
        array.distrust(shard, lba.value, end);
    }
    co_return r;
}

}  // namespace

Task<Result<void>> mirrored_read(ArrayBody& array, Lba lba, Slice to, ReadOptions options) {
    if (array.geometry.run_at(lba) >= to.sectors().value) {
        return read_run(array, lba, to, options);
    }
    return fan_out(
        lba, to, AfterFailure::kGoOn, [&array](Lba here) { return array.geometry.run_at(here); },
        [&array, options](Lba here, Slice part) { return read_run(array, here, part, options); });
}

namespace {
/// REQUIRES: the lock is held.
Task<Result<void>> write_locked(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    const StripeIndex first = array.geometry.stripe_of(lba);
    const StripeIndex last = array.geometry.stripe_of(lba + (from.sectors().value - 1));
    if (!array.listed(shard, first, last)) {
        CO_TRY_VOID(co_await array.await_listed(shard, first, last));
    }
    if (array.geometry.run_at(lba) >= from.sectors().value) {
        co_return co_await write_run(array, shard, lba, from, options);
    }
    co_return co_await fan_out(
        lba, from, AfterFailure::kStop, [&array](Lba here) { return array.geometry.run_at(here); },
        [&array, &shard, options](Lba here, Slice part) { return write_run(array, shard, here, part, options); });
}

/// A write that begins or ends inside a block, with the rest of it.
Task<Result<void>> write_part(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    detail::WholeBlocks whole(lba, from);
    BadBlocks bad;
    CO_TRY_VOID(co_await whole.fill(array, [&](Lba block, Slice to) { return read_any(array, block, to, bad); }));
    co_return co_await write_locked(array, shard, whole.lba(), whole.slice(), options);
}
}  // namespace

Task<Result<void>> mirrored_write(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    const std::uint64_t end = lba.value + from.sectors().value;
    if (array.checksums() == nullptr || (from.head() == 0 && from.size() % kBlockBytes == 0)) {
        const auto guard = co_await shard.lock.acquire(lba.value, end - 1);
        co_return co_await write_locked(array, shard, lba, from, options);
    }
    const auto guard =
        co_await shard.lock.acquire(round_down(lba.value, kSectorsPerBlock), round_up(end, kSectorsPerBlock) - 1);
    co_return co_await write_part(array, shard, lba, from, options);
}

Task<Result<void>> mirrored_sync(ArrayBody& array, Shard& shard, StripeIndex index) {
    const std::uint64_t first = index.value * array.geometry.strip_sectors;
    co_return co_await equalise(array, shard, first, first + array.geometry.strip_sectors,
                                {.background = true, .give_back = true});
}

/// Columns that are not trusted stay so: the resync makes all legs equal, the new one too.
Task<Result<void>> mirrored_rebuild(ArrayBody& array, Shard& shard, StripeIndex index, std::uint32_t member) {
    const std::uint64_t bytes = array.geometry.strip_sectors * kSectorBytes;
    const Lba first(index.value * array.geometry.strip_sectors);
    const Lba end = first + array.geometry.strip_sectors;
    const auto guard = co_await shard.lock.acquire(first.value, end.value - 1);
    CO_TRY(const Buffer buffer, co_await array.allocate(bytes));
    const Slice all = buffer.slice(bytes, first);
    BadBlocks bad;
    const Result<void> r = co_await read_any(array, first, all, bad);
    if (!r && r.error().code != Errc::kMediumError) {
        co_return r;
    }
    const auto known = [&all](std::size_t b) { return all.blocks()[b].status != BlockStatus::kUnreadable; };
    for (std::size_t b = 0; b < all.blocks().size() && array.builds(member);) {
        std::size_t n = b + 1;
        while (n < all.blocks().size() && known(n) == known(b)) {
            ++n;
        }
        const Lba lba = first + b * kSectorsPerBlock;
        if (known(b)) {
            const Slice run = all.sub(b * kBlockBytes, (n - b) * kBlockBytes);
            const Lba member_lba = array.geometry.locate(lba).member_lba;
            CO_TRY_VOID(co_await array.prepare_map(lba.value, lba.value + run.sectors().value));
            CO_TRY_VOID(co_await array.build(member, member_lba, run, {.background = true}));
        } else {
            CO_TRY_VOID(co_await array.give_up_blocks(member, array.geometry.locate(lba).member_lba, n - b));
            array.unreadable({lba, SectorCount((n - b) * kSectorsPerBlock)});
        }
        b = n;
    }
    array.built(shard, first.value, end.value);
    co_return Result<void>{};
}

}  // namespace gemel::raid::levels
