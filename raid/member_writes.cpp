// SPDX-License-Identifier: Apache-2.0
#include "raid/member_writes.hpp"

#include <algorithm>

#include "raid/checksums.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {

constexpr int kForgetTries = 20;
constexpr Duration kForgetRetry = std::chrono::milliseconds(100);

/// The members that hold the stripe, as bits.
std::uint32_t holders(const ArrayBody& array, StripeIndex stripe) {
    std::uint32_t out = 0;
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        out |= array.holds(m, stripe) ? 1U << m : 0;
    }
    return out;
}

bool gets(const MemberWrite& write, std::uint32_t holders) {
    return !write.absent && (holders >> write.member & 1U) != 0;
}

/// MS1. What those who are not among `holders` would get.
Task<Result<void>> enter_absent(Checksums& sums, std::uint32_t holders, const MemberWrites& writes) {
    for (const MemberWrite& w : writes) {
        if (gets(w, holders)) {
            continue;
        }
        if (w.from.empty()) {
            CO_TRY_VOID(co_await sums.forget(w.member, w.lba, w.sectors));
        } else {
            CO_TRY_VOID(co_await sums.note(w.member, w.lba, w.from));
        }
    }
    co_return Result<void>{};
}

/// Nothing was sent after all: what these members hold, which is made up from what the others still have, is not known
/// by its checksums any more.
Task<void> forget_absent(ArrayBody& array, Shard& shard, std::uint32_t holders, WrittenColumns columns) {
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        if ((holders >> m & 1U) != 0) {
            continue;
        }
        Result<void> r = fail(Errc::kIo);
        for (int i = 0; i < kForgetTries && !r && !array.stopping(); ++i) {
            if (i > 0) {
                co_await sleep_for(array.env.clock, kForgetRetry);
            }
            r = co_await array.checksums()->forget(m, Lba(columns.first), SectorCount(columns.end - columns.first));
        }
        if (!r) {
            array.distrust(shard, columns.first, columns.end);  // entries of columns that are not trusted say nothing
        }
    }
}

}  // namespace

WrittenColumns columns_of(const MemberWrites& writes) {
    WrittenColumns out;
    for (const MemberWrite& w : writes) {
        out.first = std::min(out.first, w.lba.value);
        out.end = std::max(out.end, w.lba.value + w.sectors.value);
        out.members |= w.absent ? 0 : 1U << w.member;
    }
    return out;
}

Devices devices_of(const ArrayBody& array) {
    Devices out{};
    for (std::uint32_t m = 0; m < array.geometry.members; ++m) {
        out[m] = array.members[m].device->device();
    }
    return out;
}

Task<Result<void>> settle_missed(ArrayBody& array, const MemberFan& fan, Devices sent) {
    for (std::uint32_t m = 0; fan.failed() && m < array.geometry.members; ++m) {
        if (const auto code = fan.failure(m); code && sent[m] != nullptr) {
            CO_TRY_VOID(co_await array.own_missed(m, *sent[m], Error(*code, fan.first_error().message)));
        }
    }
    co_return Result<void>{};
}

// The tag first: the device of a place is exchanged before it can have a stripe, which takes the stripe's lock.
void add_write(const ArrayBody& array, StripeIndex stripe, std::uint32_t member, Lba lba, Slice from,
               SectorCount sectors, MemberWrites& out) {
    const std::uint64_t tag = array.members[member].tag.load(std::memory_order_acquire);
    const bool held = array.holds(member, stripe);
    out.push_back({member, held ? tag : 0, lba, sectors, from, !held});
}

Task<Result<void>> write_members(ArrayBody& array, Shard& shard, StripeIndex stripe, const MemberWrites& writes,
                                 WriteOptions options, bool in_step) {
    const WrittenColumns columns = columns_of(writes);
    std::uint32_t entered = ~0U;
    for (std::size_t next = 0; next < writes.size();) {
        std::uint32_t to = holders(array, stripe);
        for (; array.checksums() != nullptr && (entered & ~to) != 0; to = holders(array, stripe)) {
            entered = to;
            if (Result<void> r = co_await enter_absent(*array.checksums(), to, writes); !r) {
                co_await forget_absent(array, shard, to, columns);
                co_return r;
            }
        }
        MemberFan fan;
        const Devices sent = devices_of(array);
        for (std::uint32_t used = 0; next < writes.size() && (used >> writes[next].member & 1U) == 0; ++next) {
            const MemberWrite& w = writes[next];
            if (gets(w, to) && !w.from.empty()) {
                used |= 1U << w.member;
                MemberDevice& device = *array.members[w.member].device;
                fan.start(w.member, in_step ? device.write_in_step(w.lba, w.from, options)
                                            : device.write(w.lba, w.from, options));
            }
        }
        co_await fan.all();
        const Result<void> settled = co_await settle_missed(array, fan, sent);
        if (!settled) {
            array.distrust(shard, columns.first, columns.end);
            co_return settled;
        }
    }
    co_return Result<void>{};
}

}  // namespace gemel::raid::detail
