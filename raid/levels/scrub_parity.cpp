// SPDX-License-Identifier: Apache-2.0
// Scrub of one stripe with parity (scrub.hpp, SC1 to SC5): levels 5 and 6.
#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/levels/levels.hpp"
#include "raid/parity.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::levels {

using detail::ArrayBody;
using detail::Shard;

namespace {

constexpr std::size_t kMaxBlocks = kMiB / kBlockBytes;

/// What is wrong with one block of a stripe, in the order in which it is asked.
enum class Verdict : std::uint8_t {
    kRight,
    kUntrusted,  ///< not looked at
    kLost,       ///< more is unreadable than parity makes up
    kUnchecked,  ///< as much is unreadable as parity makes up
    kChecksum,   ///< blocks contradicted their checksums, and what is made up for them does not
    kMember,     ///< one member's block explains all that differs
    kSomewhere,  ///< data and parity differ, and nothing says whose block is wrong
};

using ParityBlock = std::array<std::byte, kBlockBytes>;

/// Which data strip explains that P and Q differ by these two blocks; or nothing.
std::optional<std::uint32_t> wrong_strip(const ParityBlock& p, const ParityBlock& q, std::uint32_t data_strips) {
    std::optional<std::uint32_t> strip;
    for (std::size_t i = 0; i < kBlockBytes; ++i) {
        const auto dp = static_cast<std::uint8_t>(p[i]);
        const auto dq = static_cast<std::uint8_t>(q[i]);
        if (dp == 0 && dq == 0) {
            continue;
        }
        if (dp == 0 || dq == 0) {
            return std::nullopt;
        }
        const std::uint32_t n = (kGfLogarithms[dq] + 255U - kGfLogarithms[dp]) % 255U;
        if (n >= data_strips || (strip && *strip != n)) {
            return std::nullopt;
        }
        strip = n;
    }
    return strip;
}

bool is_zero(const ParityBlock& block) {
    return std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
}

class ParityScrub {
  public:
    ParityScrub(ArrayBody& array, Shard& shard, StripeIndex stripe, ScrubMode mode, StripeFindings& out)
        : array_(array),
          shard_(shard),
          stripe_(stripe),
          mode_(mode),
          out_(out),
          image_(array, stripe, 0, array.geometry.strip_sectors) {}

    /// REQUIRES: the stripe's lock is held.
    Task<Result<void>> run();

  private:
    void judge(std::size_t block);
    void compare(std::size_t block, std::uint32_t unknown);
    void blame(std::size_t block, std::span<const ParityBlock> differences);
    void count(std::size_t block);
    void report_lost();
    void list_faults();
    Task<Result<void>> write_back();
    Task<Result<void>> write_member(std::uint32_t member);
    [[nodiscard]] std::size_t run_end(std::span<const std::uint32_t> members, std::size_t block,
                                      std::uint32_t member) const;

    ArrayBody& array_;
    Shard& shard_;
    StripeIndex stripe_;
    ScrubMode mode_;
    StripeFindings& out_;
    detail::StripeImage image_;
    std::array<Verdict, kMaxBlocks> verdicts_{};
    std::array<std::uint32_t, kMaxBlocks> wrong_{};  ///< members, as bits, whose block is wrong and known to be
    // Members, as bits, whose block of the image is to be written:
    std::array<std::uint32_t, kMaxBlocks> again_{};  ///< because they cannot read it
    std::array<std::uint32_t, kMaxBlocks> agree_{};  ///< because it contradicts the others
};

/// Data and parity of the block differ by these: whose block it is, and what has to be written to make it right.
void ParityScrub::blame(std::size_t block, std::span<const ParityBlock> differences) {
    const Geometry& g = array_.geometry;
    std::optional<std::uint32_t> wrong;
    if (differences.size() == 2 && is_zero(differences[0])) {
        wrong = g.parity_member(stripe_, 1);
    } else if (differences.size() == 2 && is_zero(differences[1])) {
        wrong = g.parity_member(stripe_, 0);
    } else if (differences.size() == 2) {
        if (const auto strip = wrong_strip(differences[0], differences[1], g.data_members())) {
            wrong = g.data_member(stripe_, *strip);
            const MutableBytes data = image_.of(*wrong).block_data(block);
            std::ranges::transform(data, differences[0], data.begin(), std::bit_xor<>{});
        }
    }
    verdicts_[block] = wrong ? Verdict::kMember : Verdict::kSomewhere;
    wrong_[block] = wrong ? 1U << *wrong : 0;
    agree_[block] = wrong ? wrong_[block] : image_.parity_set();
}

/// Makes up what is unknown, and parity from data; then looks what that changed of the parity that is known.
void ParityScrub::compare(std::size_t block, std::uint32_t unknown) {
    const Geometry& g = array_.geometry;
    std::array<ParityBlock, 2> differences{};
    for (std::uint32_t i = 0; i < g.parities(); ++i) {
        std::ranges::copy(image_.of(g.parity_member(stripe_, i)).block_data(block), differences[i].begin());
    }
    if (unknown != 0) {
        image_.make_up(unknown, block);
    }
    image_.make_parity(block * kBlockBytes, kBlockBytes);
    bool differs = false;
    for (std::uint32_t i = 0; i < g.parities(); ++i) {
        const std::uint32_t m = g.parity_member(stripe_, i);
        const MutableBytes now = image_.of(m).block_data(block);
        std::ranges::transform(differences[i], now, differences[i].begin(), std::bit_xor<>{});
        differs = differs || ((unknown >> m & 1U) == 0 && !is_zero(differences[i]));
    }
    if (differs && unknown == 0) {
        blame(block, std::span(differences).first(g.parities()));
    } else if (differs) {
        verdicts_[block] = Verdict::kSomewhere;
        agree_[block] = image_.parity_set() & ~unknown;
    }
}

void ParityScrub::judge(std::size_t block) {
    const std::uint64_t column = image_.column(block);
    if (!shard_.trusted(column, column + kSectorsPerBlock) && !active(TestSwitch::kScrubUntrusted)) {
        verdicts_[block] = Verdict::kUntrusted;  // SC2
        return;
    }
    const std::uint32_t unknown = image_.unknown(block);
    const auto n = static_cast<std::uint32_t>(std::popcount(unknown));
    if (!image_.can_make_up(unknown, block)) {
        verdicts_[block] = Verdict::kLost;
        return;
    }
    if (n < array_.geometry.parities()) {
        compare(block, unknown);
    } else {
        verdicts_[block] = Verdict::kUnchecked;
        image_.make_up(unknown, block);
    }
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        again_[block] |= array_.holds(m, stripe_) ? unknown & 1U << m : 0;
    }
    const std::uint32_t contradicted = again_[block] & image_.mismatched(block);
    if (contradicted != 0 && verdicts_[block] != Verdict::kSomewhere) {
        verdicts_[block] = Verdict::kChecksum;
        wrong_[block] = contradicted;
    }
    if (mode_ == ScrubMode::kCheck && verdicts_[block] == Verdict::kSomewhere) {
        again_[block] = 0;  // SC3
    }
}

/// Nobody knows these data blocks any more; a copy elsewhere may.
void ParityScrub::report_lost() {
    for (std::size_t b = 0; b < image_.blocks();) {
        const std::uint32_t unknown = verdicts_[b] == Verdict::kLost ? image_.unknown(b) : 0;
        std::size_t end = b + 1;
        while (unknown != 0 && end < image_.blocks() && image_.unknown(end) == unknown) {
            ++end;
        }
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            const auto lba = array_.geometry.lba_of(m, Lba(image_.column(b)));
            if ((unknown >> m & 1U) != 0 && lba) {
                array_.unreadable({*lba, SectorCount((end - b) * kSectorsPerBlock)});
            }
        }
        b = end;
    }
}

void ParityScrub::count(std::size_t block) {
    ScrubCounts& c = out_.counts;
    switch (verdicts_[block]) {
        case Verdict::kUntrusted:
            ++c.untrusted;
            return;
        case Verdict::kLost:
            ++c.unreadable;
            return;
        case Verdict::kUnchecked:
            ++c.unchecked;
            break;
        case Verdict::kChecksum:
            ++c.mismatched;
            ++c.repaired;
            ++c.checked;
            break;
        case Verdict::kMember:
        case Verdict::kSomewhere:
            ++c.mismatched;
            c.repaired += mode_ == ScrubMode::kRepair ? 1 : 0;
            ++c.checked;
            break;
        case Verdict::kRight:
            ++c.checked;
            break;
    }
    c.rewritten += static_cast<std::uint64_t>(std::popcount(again_[block] & ~wrong_[block]));
}

void ParityScrub::list_faults() {
    for (std::size_t b = 0; b < image_.blocks(); ++b) {
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            if ((wrong_[b] >> m & 1U) != 0) {
                const Lba at(image_.column(b));
                out_.add({m, at, SectorCount(kSectorsPerBlock), array_.geometry.lba_of(m, at)});
            }
        }
        if (verdicts_[b] == Verdict::kSomewhere) {
            const Lba at(image_.column(b));
            const std::uint32_t first = array_.geometry.data_member(stripe_, 0);
            out_.add({std::nullopt, at, SectorCount(kSectorsPerBlock), array_.geometry.lba_of(first, at)});
        }
    }
}

/// The end of the run of blocks from `block` on that are to be written to the member.
std::size_t ParityScrub::run_end(std::span<const std::uint32_t> members, std::size_t block,
                                 std::uint32_t member) const {
    while (block < image_.blocks() && (members[block] >> member & 1U) != 0) {
        ++block;
    }
    return block;
}

/// SC3, SC4. The members that miss a write are failed, as by any other.
Task<Result<void>> ParityScrub::write_member(std::uint32_t member) {
    for (std::size_t b = 0; b < image_.blocks(); ++b) {
        const std::size_t end = run_end(again_, b, member);
        const auto contradicts = [&](std::size_t i) { return (image_.mismatched(i) >> member & 1U) != 0; };
        std::size_t same = std::min(b + 1, end);  // for the same reason
        while (same < end && contradicts(same) == contradicts(b)) {
            ++same;
        }
        if (end > b) {
            co_await image_.repair(member, b, same - b);
            b = same - 1;
        }
    }
    for (std::size_t b = 0; mode_ == ScrubMode::kRepair && b < image_.blocks(); ++b) {
        const std::size_t end = run_end(agree_, b, member);
        if (end == b || !array_.holds(member, stripe_)) {
            continue;
        }
        array_.note_repair(image_.column(b), image_.column(end));
        if (!array_.in_missed(image_.column(b), image_.column(end))) {
            CO_TRY_VOID(co_await array_.await_missed(image_.column(b), image_.column(end)));
        }
        CO_TRY_VOID(co_await array_.prepare_map(image_.column(b), image_.column(end)));
        const Slice run = image_.of(member).sub(b * kBlockBytes, (end - b) * kBlockBytes);
        const Result<void> r =
            co_await array_.members[member].device->write(Lba(image_.column(b)), run, {.background = true});
        if (!r) {
            co_return co_await array_.fail_member(member, r.error());
        }
        b = end - 1;
    }
    co_return Result<void>{};
}

Task<Result<void>> ParityScrub::write_back() {
    const bool changes = mode_ == ScrubMode::kRepair && !out_.faults.empty();
    if (changes && array_.lost_set() != 0) {
        CO_TRY_VOID(co_await array_.record_missing());  // they miss what is written here
    }
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        CO_TRY_VOID(co_await write_member(m));
    }
    co_return Result<void>{};
}

Task<Result<void>> ParityScrub::run() {
    const std::uint32_t lost = array_.lost_set();
    CO_TRY_VOID(co_await image_.load());
    if (image_.failed_otherwise() || array_.read_only() || (array_.lost_set() & ~lost) != 0) {
        co_return fail(Errc::kIo, "stripe " + std::to_string(stripe_.value) + " cannot be read now");
    }
    for (std::size_t b = 0; b < image_.blocks(); ++b) {
        judge(b);
        count(b);
    }
    report_lost();
    list_faults();
    co_return co_await write_back();
}

}  // namespace

Task<Result<void>> parity_scrub(ArrayBody& array, Shard& shard, StripeIndex stripe, ScrubMode mode,
                                StripeFindings& out) {
    out = {};
    const std::uint64_t locked = stripe.value + (active(TestSwitch::kScrubUnlocked) ? array.geometry.stripes() : 0);
    const auto guard = co_await shard.lock.acquire(locked, locked);
    ParityScrub scrub(array, shard, stripe, mode, out);
    co_return co_await scrub.run();
}

}  // namespace gemel::raid::levels
