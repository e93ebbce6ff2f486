// SPDX-License-Identifier: Apache-2.0
#include "raid/stripe.hpp"

#include <algorithm>
#include <bit>
#include <ranges>

#include "gemel/test_switch.hpp"
#include "raid/checksums.hpp"
#include "raid/parity.hpp"

namespace gemel::raid::detail {

void settle_read(Slice part, std::optional<Errc> code) {
    if (code && (*code != Errc::kMediumError || part.all_readable())) {
        part.mark_all(BlockStatus::kUnreadable);
    }
}

StripeImage::StripeImage(ArrayBody& array, StripeIndex stripe, std::uint64_t begin, std::uint64_t end)
    : array_(array),
      stripe_(stripe),
      begin_(round_down(begin, kSectorsPerBlock)),
      lba_(array.geometry.stripe_lba(stripe) + begin_),
      bytes_((round_up(end, kSectorsPerBlock) - begin_) * kSectorBytes) {
    for (std::uint32_t i = 0; i < array.geometry.parities(); ++i) {
        parity_set_ |= 1U << array.geometry.parity_member(stripe, i);
    }
}

Result<void> may_write_part(const ArrayBody& array, Lba block) {
    const Place place = array.geometry.locate(block);
    const Checksums& sums = *array.checksums();
    const std::uint64_t column = sums.column_block(place.member, place.member_lba);
    if (!Checksums::trusted(sums.shard(column), column)) {
        return {};
    }
    return fail(Errc::kMediumError, "array " + array.name + ": the block at sector " + std::to_string(block.value) +
                                        " cannot be read, so that no part of it can be written; write all of it");
}

/// `head`, `tail`: the blocks in which the write begins and ends, if they are known.
Task<Result<void>> WholeBlocks::join(ArrayBody& array, const Buffer* head, const Buffer* tail) {
    const std::size_t bytes = (end_.value - first_.value) * kSectorBytes;
    CO_TRY(buffer_, co_await array.allocate(bytes));
    slice_ = buffer_.slice(bytes, first_);
    slice_.clear_infos();
    if (head != nullptr) {
        std::ranges::copy(head->memory().first(kBlockBytes), slice_.data().begin());
    }
    if (tail != nullptr) {
        std::ranges::copy(tail->memory().first(kBlockBytes), slice_.data().last(kBlockBytes).begin());
    }
    std::ranges::copy(from_.data(), slice_.data().subspan((lba_.value - first_.value) * kSectorBytes).begin());
    slice_.seal();
    co_return Result<void>{};
}

namespace {
template <class Read>
Task<Result<void>> try_twice(Slice to, Read read) {
    Result<void> r = co_await read();
    const bool again = !r && r.error().code != Errc::kMediumError && r.error().code != Errc::kDeviceGone &&
                       r.error().code != Errc::kTimedOut;
    if (again) {
        to.clear_infos();
        r = co_await read();
    }
    co_return r;
}
}  // namespace

Task<Result<void>> read_twice(BlockDevice& device, Lba lba, Slice to) {
    return try_twice(to, [&device, lba, to] { return device.read(lba, to, {}); });
}

Task<Result<void>> read_twice(MemberDevice& device, Lba lba, Slice to) {
    return try_twice(to, [&device, lba, to] { return device.read_unverified(lba, to, {}); });
}

Task<Result<void>> StripeImage::load() {
    const std::uint32_t members = array_.geometry.members;
    for (std::uint32_t m = 0; m < members; ++m) {
        CO_TRY(buffers_[m], co_await array_.allocate(bytes_));
        slices_[m] = buffers_[m].slice(bytes_, lba_);
        slices_[m].clear_infos();
    }
    MemberFan fan;
    for (std::uint32_t m = 0; m < members; ++m) {
        if (array_.holds(m, stripe_)) {
            fan.start(m, read_twice(*array_.members[m].device, lba_, slices_[m]));
        } else {
            slices_[m].mark_all(BlockStatus::kUnreadable);
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < members; ++m) {
        if (const auto code = fan.failure(m)) {
            if (*code == Errc::kTimedOut) {  // the device may still write to its memory
                CO_TRY(buffers_[m], co_await array_.allocate(bytes_));
                slices_[m] = buffers_[m].slice(bytes_, lba_);
            }
            settle_read(slices_[m], code);
            co_await array_.note_read_error(m, *code);
            // One that has failed for it will not know them another time.
            failed_otherwise_ = failed_otherwise_ || (*code != Errc::kMediumError && array_.holds(m, stripe_));
        }
    }
    co_return co_await compare();
}

/// ST4.
Task<Result<void>> StripeImage::compare() {
    Checksums* sums = array_.checksums();
    for (std::size_t b = 0; sums != nullptr && b < blocks();) {
        const Shard& shard = sums->shard(column_block(b));
        ChecksumMap& map = sums->map(column_block(b));
        const std::uint64_t page = sums->layout().page_of(column_block(b));
        const std::size_t end = std::min(blocks(), b + (sums->layout().run_end(column_block(b)) - column_block(b)));
        const auto trusted = [&](std::size_t i) { return Checksums::trusted(shard, column_block(i)); };
        const auto run = std::views::iota(b, end);
        if (std::ranges::any_of(run, trusted)) {
            CO_TRY_VOID(co_await map.load(page));
            std::ranges::for_each(run | std::views::filter(trusted), [&](std::size_t i) { compare_block(map, i); });
        }
        b = end;
    }
    co_return Result<void>{};
}

void StripeImage::compare_block(ChecksumMap& map, std::size_t b) {
    const auto contradicts = [&](std::uint32_t m, ConstBytes data) {
        const std::uint32_t entry = map.get(column_block(b), m);
        return entry != kChecksumUnknown && entry != checksum_entry(block_sum(data), column_block(b), m);
    };
    std::uint32_t wrong = 0;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        wrong |= known(m, b) && contradicts(m, slices_[m].block_data(b)) ? 1U << m : 0;
    }
    const bool map_wrong = wrong != 0 && unknown(b) == 0 && agrees(b);  // CS5
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if ((wrong >> m & 1U) == 0) {
            continue;
        }
        if (map_wrong) {
            map.set(column_block(b), m, checksum_entry(block_sum(slices_[m].block_data(b)), column_block(b), m));
        } else {
            slices_[m].mark(b, BlockStatus::kUnreadable);
            mismatch_[b] |= 1U << m;
        }
    }
    if (map_wrong) {
        array_.note_wrong_map(column(b), wrong);
    }
    const std::uint32_t lost = unknown(b);
    if ((lost & ~parity_set_) == 0 || !can_make_up(lost, b)) {
        return;
    }
    alignas(32) std::array<std::byte, kBlockBytes> made;
    for (std::uint32_t slot = 0; slot < array_.geometry.data_members(); ++slot) {
        const std::uint32_t m = member_of(slot);
        if ((lost >> m & 1U) != 0) {
            derive(slot, slots_of(lost), b, made);
            doubtful_[b] = doubtful_[b] || contradicts(m, made);
        }
    }
}

/// The parity is that of the data. REQUIRES: all is known.
bool StripeImage::agrees(std::size_t b) const {
    alignas(32) std::array<std::array<std::byte, kBlockBytes>, 2> made;
    const Strips strips = strips_at(b * kBlockBytes);
    const bool two = array_.geometry.parities() == 2;
    parity_into(made[0], two ? MutableBytes(made[1]) : MutableBytes(),
                std::span(strips).first(array_.geometry.data_members()));
    for (std::uint32_t i = 0; i < array_.geometry.parities(); ++i) {
        if (!same_bytes(made[i], slices_[array_.geometry.parity_member(stripe_, i)].block_data(b))) {
            return false;
        }
    }
    return true;
}

Task<Result<void>> StripeImage::enter(std::size_t first, std::size_t end) {
    Checksums* sums = active(TestSwitch::kMapTrustedLate) ? nullptr : array_.checksums();
    for (std::size_t b = first; sums != nullptr && b < end; ++b) {
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            const Lba lba(column(b));
            if (known(m, b)) {
                CO_TRY_VOID(co_await sums->note(m, lba, slices_[m].sub(b * kBlockBytes, kBlockBytes)));
            } else {
                CO_TRY_VOID(co_await sums->forget(m, lba, SectorCount(kSectorsPerBlock)));
            }
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> StripeImage::forget(std::size_t block) {
    Checksums* sums = array_.checksums();
    for (std::uint32_t m = 0; sums != nullptr && m < array_.geometry.members; ++m) {
        CO_TRY_VOID(co_await sums->forget(m, Lba(column(block)), SectorCount(kSectorsPerBlock)));
    }
    co_return Result<void>{};
}

std::uint32_t StripeImage::unknown(std::size_t block) const {
    std::uint32_t out = 0;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        out |= known(m, block) ? 0 : 1U << m;
    }
    return out;
}

std::uint32_t StripeImage::accepted(std::size_t block) const {
    const std::uint32_t p = 1U << array_.geometry.parity_member(stripe_, 0);
    const std::uint32_t gone = unknown(block) & ~parity_set_;
    const bool told = gone != 0 && gone == array_.accepted_member() && (unknown(block) & p) == 0;
    return told ? gone | (parity_set_ & ~p) : 0;
}

std::uint32_t StripeImage::member_of(std::uint32_t slot) const {
    const Geometry& g = array_.geometry;
    return slot < g.data_members() ? g.data_member(stripe_, slot) : g.parity_member(stripe_, slot - g.data_members());
}

StripeImage::Strips StripeImage::strips_at(std::size_t at) const {
    Strips out{};
    for (std::uint32_t slot = 0; slot < array_.geometry.members; ++slot) {
        out[slot] = slices_[member_of(slot)].data().data() + at;
    }
    return out;
}

std::uint32_t StripeImage::slots_of(std::uint32_t members) const {
    std::uint32_t out = 0;
    for (std::uint32_t slot = 0; slot < array_.geometry.members; ++slot) {
        out |= (members >> member_of(slot) & 1U) << slot;
    }
    return out;
}

/// The block of one data strip from those that are not among `unknown_slots`.
void StripeImage::derive(std::uint32_t slot, std::uint32_t unknown_slots, std::size_t block, MutableBytes to) const {
    const Strips strips = strips_at(block * kBlockBytes);
    const SlotFactors factors = recovery_factors(array_.geometry.data_members(), slot, unknown_slots);
    Strips sources{};
    SlotFactors weights{};
    std::size_t n = 0;
    for (std::uint32_t from = 0; from < array_.geometry.members; ++from) {
        if (factors[from] != 0) {
            sources[n] = strips[from];
            weights[n++] = factors[from];
        }
    }
    if (std::ranges::all_of(std::span(weights).first(n), [](std::uint8_t w) { return w == 1; })) {
        xor_into(to, std::span(sources).first(n));
    } else {
        weighted_sum_into(to, std::span(sources).first(n), std::span(weights).first(n));
    }
}

void StripeImage::make_up(std::uint32_t unknown, std::size_t block) {
    const std::uint32_t slots = slots_of(unknown);
    for (std::uint32_t slot = 0; slot < array_.geometry.data_members(); ++slot) {
        if ((slots >> slot & 1U) != 0) {
            const Slice& to = slices_[member_of(slot)];
            derive(slot, slots, block, to.block_data(block));
            to.blocks()[block] = BlockInfo{};
        }
    }
    if ((unknown & parity_set_) != 0) {
        make_parity(block * kBlockBytes, kBlockBytes);
    }
}

void StripeImage::make_parity(std::size_t at, std::size_t bytes) {
    const Geometry& g = array_.geometry;
    const Strips strips = strips_at(at);
    std::array<MutableBytes, 2> to;
    for (std::uint32_t i = 0; i < g.parities(); ++i) {
        const Slice& slice = slices_[g.parity_member(stripe_, i)];
        to[i] = slice.data().subspan(at, bytes);
        for (std::size_t b = at / kBlockBytes; b * kBlockBytes < at + bytes; ++b) {
            slice.blocks()[b] = BlockInfo{};
        }
    }
    parity_into(to[0], to[1], std::span(strips).first(g.data_members()));
}

Task<void> StripeImage::repair(std::uint32_t member, std::size_t first_block, std::size_t count) {
    if (!array_.holds(member, stripe_) || array_.read_only()) {
        co_return;
    }
    const Lba lba = lba_ + first_block * kSectorsPerBlock;
    const Slice part = slices_[member].sub(first_block * kBlockBytes, count * kBlockBytes);
    if (!co_await array_.prepare_map(column(first_block), column(first_block + count))) {
        co_return;  // the next read repairs it
    }
    array_.note_repair(column(first_block), column(first_block + count));
    const bool mismatched = (mismatch_[first_block] >> member & 1U) != 0;
    if (Checksums* sums = array_.checksums(); sums != nullptr && mismatched) {
        sums->count_found(count);
    }
    const Result<void> r = co_await array_.members[member].device->write(lba, part, {});
    if (r) {
        array_.found_bad(array_.shard_of(Lba(stripe_.value * array_.geometry.row_sectors())), lba.value);
        co_await array_.note_repaired(member, lba, count, mismatched);
    } else {
        const Result<void> failed = co_await array_.fail_member(member, r.error());
        static_cast<void>(failed);  // the data is known either way; the array has said what became of it
    }
}

namespace {

/// Copies what the image knows into `to`, which begins `skip` bytes into it, making up what parity allows.
Task<Result<void>> fill_from(ArrayBody& array, Shard& shard, StripeImage& image, std::uint32_t member, Slice to,
                             std::size_t skip) {
    bool lost = false;
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        const MutableBytes part = to.block_data(b);
        const std::uint64_t column = image.column(b) + (b == 0 ? skip / kSectorBytes : 0);
        const std::uint32_t unknown = image.unknown(b);
        const bool whole = shard.trusted(image.column(b), image.column(b) + kSectorsPerBlock);
        const bool usable =
            whole || shard.trusted(column, column + part.size() / kSectorBytes) || active(TestSwitch::kUntrustedParity);
        const bool enough = image.can_make_up(unknown, b);
        const std::uint32_t accepted = usable ? 0 : image.accepted(b);
        if (!image.known(member, b) && (!enough || !usable) && accepted == 0) {
            to.mark(b, BlockStatus::kUnreadable);
            lost = true;
            continue;
        }
        if (!image.known(member, b)) {
            image.make_up(accepted != 0 ? accepted : unknown, b);
            for (std::uint32_t m = 0; whole && m < array.geometry.members; ++m) {
                if ((unknown >> m & 1U) != 0) {
                    co_await image.repair(m, b, 1);
                }
            }
        }
        const MutableBytes block = image.of(member).block_data(b);
        std::ranges::copy(block.subspan(b == 0 ? skip : 0, part.size()), part.begin());
        to.blocks()[b] = BlockInfo{};
    }
    if (lost) {
        // A member that failed for another reason may know them the next time: then they are not lost.
        const Errc code = image.failed_otherwise() ? Errc::kIo : Errc::kMediumError;
        co_return fail(code, "array " + array.name + ": blocks of member " + std::to_string(member) + " (" +
                                 array.member_name(member) + ") cannot be read nor made up from the others");
    }
    co_return Result<void>{};
}

}  // namespace

namespace {
/// REQUIRES: the stripe's lock is held.
Task<Result<void>> recover_locked(ArrayBody& array, Shard& shard, Lba lba, Slice to) {
    const Place place = array.geometry.locate(lba);
    StripeImage image(array, place.stripe, place.offset, place.offset + to.sectors().value);
    if (Result<void> r = co_await image.load(); !r) {
        to.mark_all(BlockStatus::kUnreadable);
        co_return r;
    }
    const std::size_t skip = (place.offset - image.begin()) * kSectorBytes;
    co_return co_await fill_from(array, shard, image, place.member, to, skip);
}
}  // namespace

Task<Result<void>> read_locked(ArrayBody& array, Shard& shard, Lba lba, Slice to) {
    const Place place = array.geometry.locate(lba);
    if (array.holds(place.member, place.stripe)) {
        const Result<void> r = co_await array.members[place.member].device->read(place.member_lba, to, {});
        if (r || r.error().code == Errc::kTimedOut) {
            co_return r;
        }
        co_await array.note_read_error(place.member, r.error().code);
    }
    co_return co_await recover_locked(array, shard, lba, to);
}

Task<Result<void>> recover_strip(ArrayBody& array, Lba lba, Slice to) {
    Executor& caller = Executor::current();
    Shard& shard = array.shard_of(lba);
    co_await resume_on(*shard.executor);
    Result<void> r;
    {
        const std::uint64_t stripe = array.geometry.stripe_of(lba).value;
        const auto guard = co_await shard.lock.acquire(stripe, stripe);
        r = co_await recover_locked(array, shard, lba, to);
    }
    co_await resume_on(caller);
    co_return r;
}

}  // namespace gemel::raid::detail
