// SPDX-License-Identifier: Apache-2.0
#include "raid/stripe.hpp"

#include <algorithm>

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
      bytes_((round_up(end, kSectorsPerBlock) - begin_) * kSectorBytes),
      parity_(array.geometry.parity_member(stripe)) {}

Task<Result<void>> read_twice(BlockDevice& device, Lba lba, Slice to) {
    Result<void> r = co_await device.read(lba, to, {});
    if (!r && r.error().code != Errc::kMediumError && r.error().code != Errc::kDeviceGone) {
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
        if (array_.in_sync(m)) {
            fan.start(m, read_twice(*array_.members[m].device, lba_, slices_[m]));
        } else {
            slices_[m].mark_all(BlockStatus::kUnreadable);
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < members; ++m) {
        if (const auto code = fan.failure(m)) {
            failed_otherwise_ = failed_otherwise_ || *code != Errc::kMediumError;
            settle_read(slices_[m], code);
            co_await array_.note_read_error(m, *code);
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

void StripeImage::derive(std::uint32_t member, std::size_t block) {
    std::array<const std::byte*, kMaxMembers> sources{};
    std::size_t n = 0;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (m != member) {
            sources[n++] = slices_[m].block_data(block).data();
        }
    }
    xor_into(slices_[member].block_data(block), std::span(sources).first(n));
    slices_[member].blocks()[block] = BlockInfo{};
}

void StripeImage::make_parity() {
    std::array<const std::byte*, kMaxMembers> sources{};
    std::size_t n = 0;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (m != parity_) {
            sources[n++] = slices_[m].data().data();
        }
    }
    xor_into(slices_[parity_].data(), std::span(sources).first(n));
    slices_[parity_].clear_infos();
}

Task<void> StripeImage::repair(std::uint32_t member, std::size_t first_block, std::size_t count) {
    if (!array_.in_sync(member) || array_.read_only()) {
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
        const bool usable = whole || shard.trusted(column, column + part.size() / kSectorBytes);
        if (!image.known(member, b) && (unknown != 1U << member || !usable)) {
            to.mark(b, BlockStatus::kUnreadable);
            lost = true;
            continue;
        }
        if (!image.known(member, b)) {
            image.derive(member, b);
            if (whole) {
                co_await image.repair(member, b, 1);
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
                                 array.members[member].name + ") cannot be read nor made up from the others");
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
