// SPDX-License-Identifier: Apache-2.0
// Levels without redundancy: 0, linear, single. Every sector has one copy; where it is, and how far an I/O goes on one
// member, is geometry's. With checksums they are mirrors of one leg (raid1.cpp).
#include <algorithm>

#include "raid/array_body.hpp"
#include "raid/levels/levels.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::levels {

using detail::ArrayBody;
using detail::Shard;

namespace {

/// A read that failed on one member: its blocks, and the member if the device is gone.
Task<Result<void>> settle(ArrayBody& array, std::uint32_t member, Slice part, Error error) {
    if (error.code != Errc::kTimedOut) {
        detail::settle_read(part, error.code);
    }
    co_await array.note_read_error(member, error.code);
    co_return std::unexpected(std::move(error));
}

Task<Result<void>> read_run(ArrayBody& array, Lba lba, Slice part, ReadOptions options) {
    const Place place = array.geometry.locate(lba);
    Result<void> r = co_await array.members[place.member].device->read(place.member_lba, part, options);
    if (!r) {
        co_return co_await settle(array, place.member, part, std::move(r).error());
    }
    co_return r;
}

Task<Result<void>> write_run(ArrayBody& array, Lba lba, Slice part, WriteOptions options) {
    const Place place = array.geometry.locate(lba);
    Result<void> r = co_await array.members[place.member].device->write(place.member_lba, part, options);
    if (!r) {
        const Result<void> noted = co_await array.fail_member(place.member, r.error());
        static_cast<void>(noted);  // the level spares none: the array is read-only now
    }
    co_return r;
}

}  // namespace

Task<Result<void>> plain_read(ArrayBody& array, Lba lba, Slice to, ReadOptions options) {
    if (array.tracks) {
        return mirrored_read(array, lba, to, options);
    }
    if (array.geometry.run_at(lba) >= to.sectors().value) {
        return read_run(array, lba, to, options);
    }
    return fan_out(
        lba, to, AfterFailure::kGoOn, [&array](Lba here) { return array.geometry.run_at(here); },
        [&array, options](Lba here, Slice part) { return read_run(array, here, part, options); });
}

Task<Result<void>> plain_write(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    if (array.tracks) {
        co_return co_await mirrored_write(array, shard, lba, from, options);
    }
    const auto guard = co_await shard.lock.acquire(lba.value, lba.value + from.sectors().value - 1);
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    if (array.geometry.run_at(lba) >= from.sectors().value) {
        co_return co_await write_run(array, lba, from, options);
    }
    co_return co_await fan_out(
        lba, from, AfterFailure::kStop, [&array](Lba here) { return array.geometry.run_at(here); },
        [&array, options](Lba here, Slice part) { return write_run(array, here, part, options); });
}

}  // namespace gemel::raid::levels
