// SPDX-License-Identifier: Apache-2.0
// Parity. RAID 5: strips over all members but one, whose strip is the parity of the stripe, P; it rotates
// (left-symmetric). RAID 6: the same with P and Q (parity.hpp).
#include <algorithm>
#include <bit>

#include "raid/levels/levels.hpp"
#include "raid/redo_log.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::levels {

using detail::ArrayBody;
using detail::Shard;

namespace {

/// One strip's part of a read: straight from its member, or around it.
Task<Result<void>> read_strip(ArrayBody& array, Lba lba, Slice part, ReadOptions options) {
    const Place place = array.geometry.locate(lba);
    if (array.in_sync(place.member)) {
        const Result<void> r = co_await array.members[place.member].device->read(place.member_lba, part, options);
        if (r || r.error().code == Errc::kTimedOut) {
            co_return r;
        }
        co_await array.note_read_error(place.member, r.error().code);
    }
    co_return co_await detail::recover_strip(array, lba, part);
}

}  // namespace

Task<Result<void>> parity_read(ArrayBody& array, Lba lba, Slice to, ReadOptions options) {
    if (array.geometry.run_at(lba) >= to.sectors().value) {
        return read_strip(array, lba, to, options);
    }
    return fan_out(
        lba, to, AfterFailure::kGoOn, [&array](Lba here) { return array.geometry.run_at(here); },
        [&array, options](Lba here, Slice part) { return read_strip(array, here, part, options); });
}

Task<Result<void>> parity_write(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    const std::uint64_t row = array.geometry.row_sectors();
    if (lba.value % row + from.sectors().value <= row) {
        return detail::write_stripe(array, shard, lba, from, options);
    }
    return fan_out(
        lba, from, AfterFailure::kStop, [row](Lba here) { return row - here.value % row; },
        [&array, &shard, options](Lba here, Slice part) {
            return detail::write_stripe(array, shard, here, part, options);
        });
}

namespace {

/// Which data blocks of an untrusted column are gone: nobody knows them any more.
void report_lost(ArrayBody& array, Shard& shard, std::uint64_t column, std::uint32_t unknown) {
    if (shard.trusted(column, column + kSectorsPerBlock)) {
        return;
    }
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        const auto lba = array.geometry.lba_of(m, Lba(column));
        if ((unknown >> m & 1U) != 0 && lba) {
            array.unreadable({*lba, SectorCount(kSectorsPerBlock)});
        }
    }
}

/// Of one block: parity strips that are wrong, as bits, or that nothing can be said.
struct Verdict {
    std::uint32_t wrong = 0;
    bool lost = false;
    friend bool operator==(const Verdict&, const Verdict&) = default;
};
using Verdicts = std::span<const Verdict>;

/// Where the run of equal verdicts from `b` on ends.
std::size_t run_end(Verdicts verdicts, std::size_t b) {
    const auto other = std::ranges::find_if(verdicts.subspan(b), [&](const Verdict& v) { return v != verdicts[b]; });
    return static_cast<std::size_t>(other - verdicts.begin());
}

constexpr WriteOptions kParityMade{.background = true, .give_back = true};

/// Writes the runs of parity blocks that are wrong, and trusts what is right then.
Task<Result<void>> write_parity(ArrayBody& array, Shard& shard, detail::StripeImage& image, StripeIndex stripe,
                                Verdicts verdicts) {
    for (std::size_t b = 0; b < verdicts.size();) {
        const std::size_t end = run_end(verdicts, b);
        const std::uint64_t end_column = image.column(b) + (end - b) * kSectorsPerBlock;
        if (!array.in_missed(image.column(b), end_column)) {
            CO_TRY_VOID(co_await array.await_missed(image.column(b), end_column));
        }
        CO_TRY_VOID(co_await array.prepare_map(image.column(b), end_column));
        detail::MemberWrites writes;
        for (std::uint32_t i = 0; i < array.geometry.parities(); ++i) {
            if ((verdicts[b].wrong >> i & 1U) != 0) {
                const std::uint32_t m = array.geometry.parity_member(stripe, i);
                const Slice run = image.of(m).sub(b * kBlockBytes, (end - b) * kBlockBytes);
                detail::add_write(array, stripe, m, Lba(image.column(b)), run, run.sectors(), writes);
            }
        }
        if (!writes.empty() && co_await detail::enter_redo(array)) {
            CO_TRY_VOID(co_await array.redo()->write(shard, stripe, std::move(writes), kParityMade));
        } else {
            CO_TRY_VOID(co_await detail::write_members(array, shard, stripe, writes, kParityMade));
        }
        if (!verdicts[b].lost) {
            CO_TRY_VOID(co_await image.enter(b, end));
            array.trust(shard, image.column(b), end_column);
        }
        b = end;
    }
    co_return Result<void>{};
}

/// The members of data strips that are missing.
std::uint32_t missing_data(const ArrayBody& array, StripeIndex stripe) {
    std::uint32_t out = array.lost_set();
    for (std::uint32_t i = 0; i < array.geometry.parities(); ++i) {
        out &= ~(1U << array.geometry.parity_member(stripe, i));
    }
    return out;
}

/// Makes parity anew in the image and tells what was wrong with it.
Task<Result<void>> judge(ArrayBody& array, Shard& shard, detail::StripeImage& image, StripeIndex stripe,
                         std::span<Verdict> verdicts) {
    const std::uint32_t parities = array.geometry.parities();
    const std::size_t bytes = image.blocks() * kBlockBytes;
    std::array<Buffer, 2> old_parity;
    for (std::uint32_t i = 0; i < parities; ++i) {
        CO_TRY(old_parity[i], co_await array.allocate(bytes));
        std::ranges::copy(image.of(array.geometry.parity_member(stripe, i)).data(), old_parity[i].memory().begin());
    }
    std::array<std::uint32_t, kMiB / kBlockBytes> unknown{};
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        if (const std::uint32_t accepted = image.accepted(b); accepted != 0) {
            image.make_up(accepted, b);
        }
        unknown[b] = image.unknown(b);
    }
    image.make_parity(0, bytes);
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        if ((unknown[b] & ~image.parity_set()) != 0) {
            verdicts[b].lost = true;
            if (!image.failed_otherwise()) {
                report_lost(array, shard, image.column(b), unknown[b]);
            }
            continue;
        }
        for (std::uint32_t i = 0; i < parities; ++i) {
            const std::uint32_t m = array.geometry.parity_member(stripe, i);
            const ConstBytes old = old_parity[i].memory().subspan(b * kBlockBytes, kBlockBytes);
            const bool same = (unknown[b] >> m & 1U) == 0 && same_bytes(image.of(m).block_data(b), old);
            verdicts[b].wrong |= same ? 0 : 1U << i;
        }
    }
    co_return Result<void>{};
}

}  // namespace

/// Parity from data, never data from parity. A column with an unreadable block stays untrusted.
Task<Result<void>> parity_sync(ArrayBody& array, Shard& shard, StripeIndex stripe) {
    const auto guard = co_await shard.lock.acquire(stripe.value, stripe.value);
    const std::uint32_t lost = array.lost_set();
    if (array.read_only() || array.lost_members() >= array.geometry.parities()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " cannot be resynced without so many of its members");
    }
    if (missing_data(array, stripe) != 0 && array.accepted_member() == 0) {
        co_return Result<void>{};  // what lay there cannot be known: untrusted as long as nobody writes it
    }
    if (lost != 0) {
        CO_TRY_VOID(co_await array.record_missing());  // they miss the parity written here
    }
    detail::StripeImage image(array, stripe, 0, array.geometry.strip_sectors);
    CO_TRY_VOID(co_await image.load());
    array.count_recovery_read(image.blocks() * kBlockBytes * (array.geometry.members - array.lost_members()));
    if ((array.lost_set() & ~lost) != 0) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " lost a member during the resync");
    }
    std::array<Verdict, kMiB / kBlockBytes> verdicts{};
    CO_TRY_VOID(co_await judge(array, shard, image, stripe, std::span(verdicts).first(image.blocks())));
    co_return co_await write_parity(array, shard, image, stripe, std::span(verdicts).first(image.blocks()));
}

namespace {

/// Blocks of one stripe that a rebuild could not make up: listed on the member, and reported where they are data.
Task<Result<void>> give_up(ArrayBody& array, const detail::StripeImage& image, std::uint32_t member, std::size_t b,
                           std::size_t count) {
    const Lba column(image.column(b));
    CO_TRY_VOID(co_await array.give_up_blocks(member, column, count));
    std::uint32_t unknown = 0;
    for (std::size_t i = b; i < b + count; ++i) {
        unknown |= image.unknown(i);
    }
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        const auto lba = array.geometry.lba_of(m, column);
        if ((unknown >> m & 1U) != 0 && lba) {
            array.unreadable({*lba, SectorCount(count * kSectorsPerBlock)});
        }
    }
    co_return Result<void>{};
}

/// The members to make up, as bits, `member` among them, so that its block is right; or 0 (ST2).
std::uint32_t to_make_up(const Shard& shard, const detail::StripeImage& image, std::size_t b) {
    const std::uint32_t unknown = image.unknown(b);
    if ((unknown & ~image.parity_set()) == 0) {
        return unknown;  // from the data, whatever parity says
    }
    if (shard.trusted(image.column(b), image.column(b) + kSectorsPerBlock)) {
        return image.can_make_up(unknown, b) ? unknown : 0;
    }
    return image.accepted(b);
}

}  // namespace

/// Columns that are not trusted stay so: the resync looks at all their parity strips.
Task<Result<void>> parity_rebuild(ArrayBody& array, Shard& shard, StripeIndex stripe, std::uint32_t member) {
    const auto guard = co_await shard.lock.acquire(stripe.value, stripe.value);
    detail::StripeImage image(array, stripe, 0, array.geometry.strip_sectors);
    CO_TRY_VOID(co_await image.load());
    const auto makes = [&](std::size_t b) {
        return image.known(member, b) || (to_make_up(shard, image, b) >> member & 1U) != 0;
    };
    for (std::size_t b = 0; b < image.blocks() && array.builds(member);) {
        const bool made = makes(b);
        std::size_t n = b + 1;
        while (n < image.blocks() && makes(n) == made) {
            ++n;
        }
        if (!made && image.failed_otherwise()) {
            co_return fail(Errc::kIo, "stripe " + std::to_string(stripe.value) + " cannot be read now");
        }
        if (!made) {
            CO_TRY_VOID(co_await give_up(array, image, member, b, n - b));
            b = n;
            continue;
        }
        for (std::size_t i = b; i < n; ++i) {
            if (!image.known(member, i)) {
                image.make_up(to_make_up(shard, image, i), i);
            }
        }
        const Slice run = image.of(member).sub(b * kBlockBytes, (n - b) * kBlockBytes);
        CO_TRY_VOID(co_await array.prepare_map(image.column(b), image.column(n)));
        CO_TRY_VOID(co_await array.build(member, Lba(image.column(b)), run, {.background = true}));
        b = n;
    }
    array.built(shard, image.column(0), image.column(0) + array.geometry.strip_sectors);
    co_return Result<void>{};
}

}  // namespace gemel::raid::levels
