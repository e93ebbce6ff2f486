// SPDX-License-Identifier: Apache-2.0
#include "raid/stripe.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
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

Task<Result<void>> read_twice(BlockDevice& device, Lba lba, Slice to) {
    Result<void> r = co_await device.read(lba, to, {});
    const bool again = !r && r.error().code != Errc::kMediumError && r.error().code != Errc::kDeviceGone &&
                       r.error().code != Errc::kTimedOut;
    if (again) {
        to.clear_infos();
        r = co_await device.read(lba, to, {});
    }
    co_return r;
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

void StripeImage::make_up(std::uint32_t unknown, std::size_t block) {
    const std::uint32_t data = array_.geometry.data_members();
    std::uint32_t slots = 0;
    for (std::uint32_t slot = 0; slot < array_.geometry.members; ++slot) {
        slots |= (unknown >> member_of(slot) & 1U) << slot;
    }
    const Strips strips = strips_at(block * kBlockBytes);
    for (std::uint32_t slot = 0; slot < data; ++slot) {
        if ((slots >> slot & 1U) == 0) {
            continue;
        }
        const SlotFactors factors = recovery_factors(data, slot, slots);
        Strips sources{};
        SlotFactors weights{};
        std::size_t n = 0;
        for (std::uint32_t from = 0; from < array_.geometry.members; ++from) {
            if (factors[from] != 0) {
                sources[n] = strips[from];
                weights[n++] = factors[from];
            }
        }
        const std::uint32_t m = member_of(slot);
        const MutableBytes to = slices_[m].block_data(block);
        if (std::ranges::all_of(std::span(weights).first(n), [](std::uint8_t w) { return w == 1; })) {
            xor_into(to, std::span(sources).first(n));
        } else {
            weighted_sum_into(to, std::span(sources).first(n), std::span(weights).first(n));
        }
        slices_[m].blocks()[block] = BlockInfo{};
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
    const Result<void> r = co_await array_.members[member].device->write(lba, part, {});
    if (r) {
        array_.event(Severity::kWarning, "block-repaired", array_.member_subject(member),
                     "a block at sector " + std::to_string(lba.value) +
                         " could not be read and was written anew from "
                         "the other members");
    } else {
        const Result<void> failed = co_await array_.fail_member(member, r.error());
        static_cast<void>(failed);  // the data is known either way; the array has said what became of it
    }
}

Task<Result<void>> settle_writes(ArrayBody& array, Shard& shard, const MemberFan& fan, std::uint64_t first_column,
                                 std::uint64_t end_column) {
    if (!fan.failed()) {
        co_return Result<void>{};
    }
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            Result<void> r = co_await array.fail_member(m, Error(*code, fan.first_error().message));
            if (!r) {
                array.distrust(shard, first_column, end_column);
                co_return r;
            }
        }
    }
    co_return Result<void>{};
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
        const bool enough = static_cast<std::uint32_t>(std::popcount(unknown)) <= array.geometry.parities();
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

Task<Result<void>> recover_strip(ArrayBody& array, Lba lba, Slice to) {
    Executor& caller = Executor::current();
    const Place place = array.geometry.locate(lba);
    Shard& shard = array.shard_of(lba);
    co_await resume_on(*shard.executor);
    Result<void> r;
    {
        const auto guard = co_await shard.lock.acquire(place.stripe.value, place.stripe.value);
        StripeImage image(array, place.stripe, place.offset, place.offset + to.sectors().value);
        r = co_await image.load();
        if (r) {
            const std::size_t skip = (place.offset - image.begin()) * kSectorBytes;
            r = co_await fill_from(array, shard, image, place.member, to, skip);
        } else {
            to.mark_all(BlockStatus::kUnreadable);
        }
    }
    co_await resume_on(caller);
    co_return r;
}

}  // namespace gemel::raid::detail
