// SPDX-License-Identifier: Apache-2.0
// RAID 0: strips in turn over the members, no redundancy. One member: everything passes through in one I/O.
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
    detail::settle_read(part, error.code);
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

Task<Result<void>> striped_read(ArrayBody& array, Lba lba, Slice to, ReadOptions options) {
    if (array.geometry.run_at(lba) >= to.sectors().value) {
        const Place place = array.geometry.locate(lba);
        Result<void> r = co_await array.members[place.member].device->read(place.member_lba, to, options);
        if (!r) {
            co_return co_await settle(array, place.member, to, std::move(r).error());
        }
        co_return r;
    }
    MemberFan fan;
    std::optional<Error> error;
    std::size_t slot = 0;
    std::size_t at = 0;
    while (at < to.size()) {
        const Lba here = lba + at / kSectorBytes;
        const std::size_t bytes = std::min<std::size_t>(to.size() - at, array.geometry.run_at(here) * kSectorBytes);
        fan.start(slot++, read_run(array, here, to.sub(at, bytes), options));
        at += bytes;
        if (slot == MemberFan::kSlots || at == to.size()) {
            co_await fan.all();
            if (fan.failed() && !error) {
                error.emplace(fan.first_error());
            }
            fan.reset();
            slot = 0;
        }
    }
    co_return error ? Result<void>(std::unexpected(*std::move(error))) : Result<void>();
}

Task<Result<void>> striped_write(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    const auto guard = co_await shard.lock.acquire(lba.value, lba.value + from.sectors().value - 1);
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    if (array.geometry.run_at(lba) >= from.sectors().value) {
        co_return co_await write_run(array, lba, from, options);
    }
    MemberFan fan;
    std::size_t slot = 0;
    std::size_t at = 0;
    while (at < from.size()) {
        const Lba here = lba + at / kSectorBytes;
        const std::size_t bytes = std::min<std::size_t>(from.size() - at, array.geometry.run_at(here) * kSectorBytes);
        fan.start(slot++, write_run(array, here, from.sub(at, bytes), options));
        at += bytes;
        if (slot == MemberFan::kSlots || at == from.size()) {
            co_await fan.all();
            if (fan.failed()) {
                co_return std::unexpected(fan.first_error());
            }
            fan.reset();
            slot = 0;
        }
    }
    co_return Result<void>{};
}

}  // namespace gemel::raid::levels
