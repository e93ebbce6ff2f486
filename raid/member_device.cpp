// SPDX-License-Identifier: Apache-2.0
#include "raid/member_device.hpp"

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"

namespace gemel::raid::detail {

namespace {

Task<Result<void>> gone(std::string name) {
    co_return fail(Errc::kDeviceGone, name + " has no device");
}

/// The list may grow by one piece when a write cuts a range in two.
constexpr std::size_t kMaxPieces = kMaxUnreadable / 2;

constexpr int kEntryTries = 20;
constexpr Duration kEntryRetry = std::chrono::milliseconds(100);

/// MD8.
Task<Result<void>> store(BlockDevice& device, Lba lba, Slice from, WriteOptions options) {
    if (options.give_back && !options.fua && device.limits().gives_back &&
        (all_zero(from.data()) || active(TestSwitch::kGivesBackUnseen))) {
        return device.discard(lba, from.sectors());
    }
    return device.write(lba, from, options);
}

}  // namespace

void MemberDevice::put(BlockDevice* device) {
    {
        const std::scoped_lock lock(mutex_);
        unreadable_ = {};
        any_.store(false);
    }
    device_.store(device, std::memory_order_release);
    target_.store(nullptr, std::memory_order_release);
    array_.doubt_cached();
}

void MemberDevice::exchange() {
    device_.store(target(), std::memory_order_release);
    target_.store(nullptr, std::memory_order_release);
    array_.doubt_cached();
}

bool MemberDevice::add_unreadable(std::uint64_t first, std::uint64_t count) {
    array_.doubt_cached();
    const std::scoped_lock lock(mutex_);
    unreadable_.add(first, first + count);
    any_.store(!unreadable_.empty());
    return unreadable_.pieces() <= kMaxPieces;
}

void MemberDevice::remove_unreadable(std::uint64_t first, std::uint64_t count) {
    const std::scoped_lock lock(mutex_);
    unreadable_.remove(first, first + count);
    any_.store(!unreadable_.empty());
}

IntervalSet MemberDevice::unreadable() const {
    const std::scoped_lock lock(mutex_);
    return unreadable_;
}

bool MemberDevice::listed(Lba lba, SectorCount sectors) const {
    if (!any_.load(std::memory_order_acquire)) {
        return false;
    }
    const std::scoped_lock lock(mutex_);
    return unreadable_.intersects(lba.value / kSectorsPerBlock,
                                  round_up(lba.value + sectors.value, kSectorsPerBlock) / kSectorsPerBlock);
}

DeviceLimits MemberDevice::limits() const {
    const BlockDevice* d = device();
    return d == nullptr ? DeviceLimits{} : d->limits();
}

bool MemberDevice::has_entries() const {
    return array_.checksums() != nullptr;
}

Task<Result<void>> MemberDevice::missing() const {
    return gone(name());
}

Lba MemberDevice::device_lba(Door door, Lba lba, SectorCount sectors) const {
    if (door == Door::kAreas || active(TestSwitch::kGrowIntoAreas)) {
        return lba;
    }
    const std::uint64_t rest = std::max<std::uint64_t>(sectors.value, 1) - 1;
    const Lba out = array_.geometry.device_lba(index_, lba);
    CHECK(array_.geometry.device_lba(index_, lba + rest) == out + rest);
    return out;
}

Task<Result<void>> MemberDevice::read(Lba lba, Slice to, ReadOptions options) {
    if (!has_entries()) {
        return read_unverified(lba, to, options);
    }
    const bool whole = to.head() == 0 && to.size() % kBlockBytes == 0;
    return whole ? read_verified(lba, to, options) : read_whole(array_, lba, to, [this, options](Lba at, Slice all) {
        return read_verified(at, all, options);
    });
}

Task<Result<void>> MemberDevice::read_verified(Lba lba, Slice to, ReadOptions options) {
    Result<void> r = co_await read_unverified(lba, to, options);
    if (!r && (r.error().code != Errc::kMediumError || to.all_readable())) {
        co_return r;
    }
    Result<void> verified = co_await array_.checksums()->verify(index_, lba, to);
    co_return r ? std::move(verified) : std::move(r);
}

Task<Result<void>> MemberDevice::read_unverified(Lba lba, Slice to, ReadOptions options) {
    return read_present(Door::kData, lba, to, options);
}

Task<Result<void>> MemberDevice::read_present(Door door, Lba lba, Slice to, ReadOptions options) {
    BlockDevice* d = device();
    if (d == nullptr) {
        to.mark_all(BlockStatus::kUnreadable);
        return missing();
    }
    return target() != nullptr ? read_beside_target(door, *d, lba, to, options) : read_from(door, *d, lba, to, options);
}

Task<Result<void>> MemberDevice::read_from(Door door, BlockDevice& device, Lba lba, Slice to, ReadOptions options) {
    return door == Door::kData && listed(lba, to.sectors())
               ? read_around(device, lba, to, options)
               : device.read(device_lba(door, lba, to.sectors()), to, options);
}

/// What fails on a device that is no member any more says nothing of the one that is.
Task<Result<void>> MemberDevice::read_beside_target(Door door, BlockDevice& device, Lba lba, Slice to,
                                                    ReadOptions options) {
    Result<void> r = co_await read_from(door, device, lba, to, options);
    BlockDevice* now = device_.load(std::memory_order_acquire);
    if (!r && r.error().code != Errc::kTimedOut && now != &device && array_.in_sync(index_)) {
        to.clear_infos();
        r = co_await read_from(door, *now, lba, to, options);
    }
    co_return r;
}

/// What is listed when the read begins: a block that leaves the list meanwhile may have been read before it was
/// written.
Task<Result<void>> MemberDevice::read_around(BlockDevice& device, Lba lba, Slice to, ReadOptions options) {
    const IntervalSet before = unreadable();
    Result<void> r = co_await device.read(device_lba(Door::kData, lba, to.sectors()), to, options);
    if (!r && r.error().code != Errc::kMediumError) {
        co_return r;
    }
    for (std::size_t b = 0; b < to.blocks().size(); ++b) {
        const std::uint64_t block = lba.value / kSectorsPerBlock + b;
        if (!before.intersects(block, block + 1)) {
            continue;
        }
        to.mark(b, BlockStatus::kUnreadable);
        if (r) {
            r = fail(Errc::kMediumError, name() + ": block at sector " + std::to_string(block * kSectorsPerBlock) +
                                             " could not be made up when the member was rebuilt");
        }
    }
    co_return r;
}

Task<Result<void>> MemberDevice::write(Lba lba, Slice from, WriteOptions options) {
    array_.forget_cached_columns(lba, from.sectors());
    return write_data(lba, from, options);
}

Task<Result<void>> MemberDevice::write_in_step(Lba lba, Slice from, WriteOptions options) {
    array_.forget_cached(index_, lba, from.sectors());
    return write_data(lba, from, options);
}

Task<Result<void>> MemberDevice::write_data(Lba lba, Slice from, WriteOptions options) {
    if (!has_entries() || array_.checksums()->note_now(index_, lba, from)) {
        return write_device(lba, from, options);
    }
    return write_entered(lba, from, options);
}

Task<Result<void>> MemberDevice::write_entered(Lba lba, Slice from, WriteOptions options) {
    // A page that cannot be had now is no fault of this device, which an error would fail.
    Result<void> entered = co_await array_.checksums()->note(index_, lba, from);
    for (int i = 0; i < kEntryTries && !entered && !array_.read_only() && !array_.stopping(); ++i) {
        co_await sleep_for(array_.env.clock, kEntryRetry);
        entered = co_await array_.checksums()->note(index_, lba, from);
    }
    CO_TRY_VOID(entered);
    co_return co_await write_device(lba, from, options);
}

Task<Result<void>> MemberDevice::write_device(Lba lba, Slice from, WriteOptions options) {
    if (!present()) {
        return missing();
    }
    return listed(lba, from.sectors()) ? write_and_clear(lba, from, options)
                                       : write_through(Door::kData, lba, from, options);
}

Task<Result<void>> MemberDevice::write_through(Door door, Lba lba, Slice from, WriteOptions options) {
    lba = device_lba(door, lba, from.sectors());
    BlockDevice* t = target();
    BlockDevice* d = device();
    const bool alone = t == nullptr || t == d || active(TestSwitch::kReplaceWritesOwnOnly);
    return alone ? store(*d, lba, from, options)
                 : both(*d, *t, store(*d, lba, from, options), store(*t, lba, from, options));
}

/// MD6.
Task<Result<void>> MemberDevice::both(BlockDevice& device, BlockDevice& target, Task<Result<void>> own,
                                      Task<Result<void>> other) {
    MemberFan fan;
    fan.start(0, std::move(own));
    fan.start(1, std::move(other));
    co_await fan.all();
    if (const auto code = fan.failure(1)) {
        const Error why(*code, fan.first_error().message);
        Result<void> r = co_await array_.target_missed(index_, target, why);
        if (!r && this->device() == &target) {  // it has become the member meanwhile, and missed that
            r = co_await array_.own_missed(index_, target, why);
        }
        CO_TRY_VOID(r);
    }
    if (const auto code = fan.failure(0)) {
        CO_TRY_VOID(co_await array_.own_missed(index_, device, Error(*code, fan.first_error().message)));
    }
    co_return Result<void>{};
}

Task<Result<void>> MemberDevice::write_target(Lba lba, Slice from, WriteOptions options) {
    array_.forget_cached_columns(lba, from.sectors());
    return write_target_at(Door::kData, lba, from, options);
}

Task<Result<void>> MemberDevice::write_target_area(Lba lba, Slice from, WriteOptions options) {
    return write_target_at(Door::kAreas, lba, from, options);
}

Task<Result<void>> MemberDevice::write_target_at(Door door, Lba lba, Slice from, WriteOptions options) {
    BlockDevice* t = target();
    if (t == nullptr) {
        co_return fail(Errc::kAborted, name() + " is not replaced any more");
    }
    if (door == Door::kData && listed(lba, from.sectors())) {
        co_return co_await write_and_clear(lba, from, options);
    }
    const Result<void> r = co_await store(*t, device_lba(door, lba, from.sectors()), from, options);
    if (!r) {
        CO_TRY_VOID(co_await array_.target_missed(index_, *t, r.error()));
        co_return fail(Errc::kAborted, name() + " is not replaced any more");
    }
    co_return r;
}

/// MD2. A block that is written in part stays listed.
Task<Result<void>> MemberDevice::write_and_clear(Lba lba, Slice from, WriteOptions options) {
    CO_TRY_VOID(co_await write_through(Door::kData, lba, from, options));
    const std::uint64_t first = round_up(lba.value, kSectorsPerBlock) / kSectorsPerBlock;
    const std::uint64_t end = (lba.value + from.sectors().value) / kSectorsPerBlock;
    if (first >= end) {
        co_return Result<void>{};
    }
    CO_TRY_VOID(co_await flush());
    co_return co_await array_.forget_unreadable(index_, first, end - first);
}

Task<Result<void>> MemberDevice::flush() {
    BlockDevice* t = target();
    BlockDevice* d = device();
    if (d == nullptr) {
        return missing();
    }
    return t == nullptr || t == d ? d->flush() : both(*d, *t, d->flush(), t->flush());
}

Task<Result<void>> MemberDevice::discard(Lba lba, SectorCount count) {
    return discard_through(Door::kData, lba, count);
}

Task<Result<void>> MemberDevice::discard_through(Door door, Lba lba, SectorCount count) {
    BlockDevice* t = target();
    BlockDevice* d = device();
    if (d == nullptr) {
        return missing();
    }
    lba = device_lba(door, lba, count);
    return t == nullptr || t == d ? d->discard(lba, count)
                                  : both(*d, *t, d->discard(lba, count), t->discard(lba, count));
}

std::string MemberDevice::name() const {
    return array_.member_subject(index_);
}

}  // namespace gemel::raid::detail
