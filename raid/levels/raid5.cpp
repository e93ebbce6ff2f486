// SPDX-License-Identifier: Apache-2.0
// RAID 5: strips over all members but one, whose strip is the parity of the stripe; it rotates (left-symmetric).
#include <algorithm>

#include "raid/levels/levels.hpp"
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
        if (r) {
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

enum class Verdict : std::uint8_t { kRight, kWrong, kLost };

/// Writes the runs of parity blocks that are wrong, and trusts what is right then.
Task<Result<void>> write_parity(ArrayBody& array, Shard& shard, const detail::StripeImage& image,
                                std::span<const Verdict> verdicts) {
    for (std::size_t b = 0; b < verdicts.size();) {
        std::size_t end = b + 1;
        while (end < verdicts.size() && verdicts[end] == verdicts[b]) {
            ++end;
        }
        if (verdicts[b] == Verdict::kWrong) {
            const Slice run = image.of(image.parity()).sub(b * kBlockBytes, (end - b) * kBlockBytes);
            const Result<void> r =
                co_await array.members[image.parity()].device->write(Lba(image.column(b)), run, {.background = true});
            if (!r) {
                co_return co_await array.fail_member(image.parity(), r.error());
            }
        }
        if (verdicts[b] != Verdict::kLost) {
            array.trust(shard, image.column(b), image.column(b) + (end - b) * kSectorsPerBlock);
        }
        b = end;
    }
    co_return Result<void>{};
}

}  // namespace

/// Parity from data, never data from parity. A column with an unreadable block stays untrusted.
Task<Result<void>> parity_sync(ArrayBody& array, Shard& shard, StripeIndex stripe) {
    const auto guard = co_await shard.lock.acquire(stripe.value, stripe.value);
    if (array.read_only() || array.lost_members() > 0) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " cannot be resynced without all its members");
    }
    detail::StripeImage image(array, stripe, 0, array.geometry.strip_sectors);
    CO_TRY_VOID(co_await image.load());
    const std::uint32_t parity = image.parity();
    const std::size_t blocks = image.blocks();
    CO_TRY(const Buffer old_parity, co_await array.allocate(blocks * kBlockBytes));
    std::ranges::copy(image.of(parity).data(), old_parity.memory().begin());
    std::array<std::uint32_t, kMiB / kBlockBytes> unknown{};
    for (std::size_t b = 0; b < blocks; ++b) {
        unknown[b] = image.unknown(b);
    }
    if (array.lost_members() > 0) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " lost a member during the resync");
    }
    image.make_parity();
    std::array<Verdict, kMiB / kBlockBytes> verdicts{};
    for (std::size_t b = 0; b < blocks; ++b) {
        if ((unknown[b] & ~(1U << parity)) != 0) {
            verdicts[b] = Verdict::kLost;
            if (!image.failed_otherwise()) {
                report_lost(array, shard, image.column(b), unknown[b]);
            }
        } else {
            const ConstBytes old = old_parity.memory().subspan(b * kBlockBytes, kBlockBytes);
            const bool same = unknown[b] == 0 && std::ranges::equal(image.of(parity).block_data(b), old);
            verdicts[b] = same ? Verdict::kRight : Verdict::kWrong;
        }
    }
    co_return co_await write_parity(array, shard, image, std::span(verdicts).first(blocks));
}

}  // namespace gemel::raid::levels
