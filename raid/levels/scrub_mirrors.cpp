// SPDX-License-Identifier: Apache-2.0
// Scrub of a strip's length of mirrors (scrub.hpp, SC1 to SC5): levels 1 and 10, and of single copies, which are
// compared with their checksums alone.
#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/levels/levels.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::levels {

using detail::ArrayBody;
using detail::Shard;

namespace {

constexpr std::size_t kMaxBlocks = kMiB / kBlockBytes;

class MirrorScrub {
  public:
    MirrorScrub(ArrayBody& array, Shard& shard, StripeIndex index, ScrubMode mode, StripeFindings& out)
        : array_(array),
          shard_(shard),
          first_(index.value * array.geometry.strip_sectors),
          member_lba_(array.geometry.locate(first_).member_lba),
          bytes_(array.geometry.strip_sectors * kSectorBytes),
          mode_(mode),
          out_(out) {}

    /// REQUIRES: the lock of the strip's sectors is held.
    Task<Result<void>> run();

  private:
    Task<Result<void>> load();
    void judge(std::size_t block);
    void compare(std::size_t block, std::uint32_t known);
    Task<Result<void>> verify();
    void note_fault(std::size_t block, std::optional<std::uint32_t> member);
    Task<Result<void>> write_back();
    Task<Result<void>> write_run(std::size_t block, std::size_t end);
    [[nodiscard]] std::size_t blocks() const { return bytes_ / kBlockBytes; }
    [[nodiscard]] Lba lba(std::size_t block) const { return first_ + block * kSectorsPerBlock; }
    [[nodiscard]] bool known(std::uint32_t m, std::size_t block) const {
        return slices_[m].blocks()[block].status != BlockStatus::kUnreadable;
    }
    [[nodiscard]] bool all_equal(std::size_t block, std::uint32_t legs) const;
    [[nodiscard]] bool equal(std::uint32_t a, std::uint32_t b, std::size_t block) const {
        return same_bytes(slices_[a].block_data(block), slices_[b].block_data(block));
    }

    ArrayBody& array_;
    Shard& shard_;
    Lba first_;
    Lba member_lba_;
    std::size_t bytes_;
    ScrubMode mode_;
    StripeFindings& out_;
    std::uint32_t read_ = 0;  ///< the legs that were, as bits
    std::array<Buffer, kMaxMembers> buffers_;
    std::array<Slice, kMaxMembers> slices_;
    struct Order {
        std::uint32_t to = 0;     ///< legs to write the block to, as bits
        std::uint32_t from = 0;   ///< the leg that has it
        std::uint32_t wrong = 0;  ///< of those in `to`: contradicted their checksums
        bool agree = false;       ///< it was a mismatch
        friend bool operator==(const Order&, const Order&) = default;
    };
    std::array<Order, kMaxBlocks> orders_{};
    std::array<std::uint32_t, kMaxBlocks> mismatched_{};  ///< legs, as bits, whose block contradicted its checksum
    IntervalSet lost_;                                    ///< sectors that no leg knows
};

/// The legs in sync. Errors: kIo when one cannot be read for another reason than bad blocks.
Task<Result<void>> MirrorScrub::load() {
    const std::uint32_t legs = array_.geometry.legs(first_);
    MemberFan fan;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if ((legs >> m & 1U) != 0 && array_.in_sync(m)) {
            CO_TRY(buffers_[m], co_await array_.allocate(bytes_));
            slices_[m] = buffers_[m].slice(bytes_, first_);
            slices_[m].clear_infos();
            read_ |= 1U << m;
        }
    }
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if ((read_ >> m & 1U) != 0) {
            fan.start(m, detail::read_twice(*array_.members[m].device, member_lba_, slices_[m]));
        }
    }
    co_await fan.all();
    bool now = true;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            if (*code == Errc::kMediumError) {
                detail::settle_read(slices_[m], code);
                continue;
            }
            now = false;  // and the device may still write to its memory
            co_await array_.note_read_error(m, *code);
        }
    }
    if (!now || array_.read_only()) {
        co_return fail(Errc::kIo, "sectors from " + std::to_string(first_.value) + " on cannot be read now");
    }
    co_return Result<void>{};
}

/// CS1, CS5.
Task<Result<void>> MirrorScrub::verify() {
    detail::Checksums* sums = array_.checksums();
    for (std::uint32_t m = 0; sums != nullptr && m < array_.geometry.members; ++m) {
        if ((read_ >> m & 1U) == 0) {
            continue;
        }
        for (std::size_t b = 0; b < blocks(); ++b) {
            mismatched_[b] |= known(m, b) ? 1U << m : 0;
        }
        const Result<void> r = co_await sums->judge(m, member_lba_, slices_[m]);
        if (!r && r.error().code != Errc::kMediumError) {
            co_return r;
        }
        for (std::size_t b = 0; b < blocks(); ++b) {
            mismatched_[b] &= known(m, b) ? ~(1U << m) : ~0U;
        }
    }
    for (std::size_t b = 0; sums != nullptr && b < blocks(); ++b) {
        if (mismatched_[b] != read_ || std::popcount(read_) < 2 || !all_equal(b, read_)) {
            continue;
        }
        const auto lowest = static_cast<std::uint32_t>(std::countr_zero(read_));
        const Lba at = member_lba_ + b * kSectorsPerBlock;
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            if ((read_ >> m & 1U) != 0) {
                slices_[m].blocks()[b] = BlockInfo{};
            }
        }
        CO_TRY_VOID(co_await sums->note(lowest, at, slices_[lowest].sub(b * kBlockBytes, kBlockBytes)));
        array_.note_wrong_map(at.value, read_);
        mismatched_[b] = 0;
    }
    co_return Result<void>{};
}

void MirrorScrub::note_fault(std::size_t block, std::optional<std::uint32_t> member) {
    out_.add({member, member_lba_ + block * kSectorsPerBlock, SectorCount(kSectorsPerBlock), lba(block)});
}

/// REQUIRES: `legs` is not empty.
bool MirrorScrub::all_equal(std::size_t block, std::uint32_t legs) const {
    const auto lowest = static_cast<std::uint32_t>(std::countr_zero(legs));
    bool same = true;
    for (std::uint32_t m = lowest + 1; m < array_.geometry.members; ++m) {
        same = same && ((legs >> m & 1U) == 0 || equal(lowest, m, block));
    }
    return same;
}

/// REQUIRES: two legs are known at least.
void MirrorScrub::compare(std::size_t block, std::uint32_t known) {
    ++out_.counts.checked;
    const auto lowest = static_cast<std::uint32_t>(std::countr_zero(known));
    std::uint32_t others = 0;  // that differ from the lowest
    for (std::uint32_t m = lowest + 1; m < array_.geometry.members; ++m) {
        others |= (known >> m & 1U) != 0 && !equal(lowest, m, block) ? 1U << m : 0;
    }
    Order& order = orders_[block];
    order.from = lowest;
    if (others == 0) {
        return;
    }
    ++out_.counts.mismatched;
    std::optional<std::uint32_t> wrong;
    if (std::popcount(known) > 2 && std::has_single_bit(others)) {
        wrong = static_cast<std::uint32_t>(std::countr_zero(others));
    } else if (std::popcount(known) > 2 && others == (known & ~(1U << lowest))) {
        const bool same = all_equal(block, others);
        wrong = same ? std::optional(lowest) : std::nullopt;
        order.from = same ? static_cast<std::uint32_t>(std::countr_zero(others)) : lowest;
    }
    note_fault(block, wrong);
    if (mode_ == ScrubMode::kRepair) {
        order.to = wrong ? 1U << *wrong : others;
        order.agree = true;
        ++out_.counts.repaired;
    }
}

void MirrorScrub::judge(std::size_t block) {
    const std::uint64_t column = lba(block).value;
    if (!shard_.trusted(column, column + kSectorsPerBlock) && !active(TestSwitch::kScrubUntrusted)) {
        ++out_.counts.untrusted;  // SC2
        return;
    }
    std::uint32_t good = 0;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        good |= (read_ >> m & 1U) != 0 && known(m, block) ? 1U << m : 0;
    }
    const std::uint64_t mismatched = out_.counts.mismatched;
    const std::uint32_t wrong = mismatched_[block];
    if (good == 0) {
        ++out_.counts.unreadable;
        lost_.add(column, column + kSectorsPerBlock);
        if (!array_.level.redundant && wrong != 0) {
            ++out_.counts.checked;
            ++out_.counts.mismatched;
            note_fault(block, static_cast<std::uint32_t>(std::countr_zero(wrong)));
            array_.checksums()->count_found(1);
        }
        return;
    }
    if (!std::has_single_bit(good)) {
        compare(block, good);
    } else {
        ++(wrong != 0 || !array_.level.redundant ? out_.counts.checked : out_.counts.unchecked);
        orders_[block].from = static_cast<std::uint32_t>(std::countr_zero(good));
    }
    const bool differ = out_.counts.mismatched != mismatched;
    if (wrong != 0 && !differ) {
        ++out_.counts.mismatched;
        ++out_.counts.repaired;
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            if ((wrong >> m & 1U) != 0) {
                note_fault(block, m);
            }
        }
    }
    if (mode_ == ScrubMode::kRepair || !differ) {  // SC3
        orders_[block].to |= read_ & ~good;
        orders_[block].wrong = wrong;
        out_.counts.rewritten += static_cast<std::uint64_t>(std::popcount(read_ & ~good & ~wrong));
    }
}

/// Blocks [block, end), which have the same orders. A leg that misses a write is failed, as by any other.
Task<Result<void>> MirrorScrub::write_run(std::size_t block, std::size_t end) {
    const Order& order = orders_[block];
    array_.note_repair(lba(block).value, lba(end).value);
    if (!array_.in_missed(lba(block).value, lba(end).value)) {
        CO_TRY_VOID(co_await array_.await_missed(lba(block).value, lba(end).value));
    }
    CO_TRY_VOID(co_await array_.prepare_map(lba(block).value, lba(end).value));
    const Slice run = slices_[order.from].sub(block * kBlockBytes, (end - block) * kBlockBytes);
    const std::uint32_t legs = array_.geometry.legs(first_);
    MemberFan fan;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        // What is rebuilt may have a copy of what was wrong.
        const bool copy = order.agree && (legs >> m & 1U) != 0 && array_.rebuilding(m);
        if (copy || ((order.to >> m & 1U) != 0 && array_.takes_writes(m))) {
            const Lba at = member_lba_ + block * kSectorsPerBlock;
            fan.start(m, array_.members[m].device->write(at, run, {.background = true}));
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            CO_TRY_VOID(co_await array_.fail_member(m, Error(*code, fan.first_error().message)));
        }
    }
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        const bool mismatched = (order.wrong >> m & 1U) != 0;
        if (mismatched) {
            array_.checksums()->count_found(end - block);
        }
        if (!order.agree && (order.to >> m & 1U) != 0 && array_.in_sync(m)) {
            co_await array_.note_repaired(m, member_lba_ + block * kSectorsPerBlock, end - block, mismatched);
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> MirrorScrub::write_back() {
    const bool changes = std::ranges::any_of(orders_, &Order::agree);
    if (changes && array_.lost_set() != 0) {
        CO_TRY_VOID(co_await array_.record_missing());  // they miss what is written here
    }
    for (std::size_t b = 0; b < blocks();) {
        std::size_t end = b + 1;
        while (end < blocks() && orders_[end] == orders_[b]) {
            ++end;
        }
        if (orders_[b].to != 0) {
            CO_TRY_VOID(co_await write_run(b, end));
        }
        b = end;
    }
    co_return Result<void>{};
}

Task<Result<void>> MirrorScrub::run() {
    CO_TRY_VOID(co_await load());
    CO_TRY_VOID(co_await verify());
    for (std::size_t b = 0; b < blocks(); ++b) {
        judge(b);
    }
    std::uint64_t from = 0;
    while (const auto range = lost_.next(from)) {  // nobody knows them any more; a copy elsewhere may
        array_.unreadable({Lba(range->first), SectorCount(range->second - range->first)});
        from = range->second;
    }
    co_return co_await write_back();
}

}  // namespace

Task<Result<void>> mirrored_scrub(ArrayBody& array, Shard& shard, StripeIndex index, ScrubMode mode,
                                  StripeFindings& out) {
    out = {};
    const std::uint64_t strip = array.geometry.strip_sectors;
    const std::uint64_t skip = active(TestSwitch::kScrubUnlocked) ? array.geometry.sectors().value : 0;
    const std::uint64_t first = index.value * strip + skip;
    const auto guard = co_await shard.lock.acquire(first, first + strip - 1);
    MirrorScrub scrub(array, shard, index, mode, out);
    co_return co_await scrub.run();
}

}  // namespace gemel::raid::levels
