// SPDX-License-Identifier: Apache-2.0
// Writing a part of one stripe (stripe.hpp): the five kinds of write_plan.hpp.
#include <algorithm>
#include <bit>

#include "raid/parity.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {

class StripeWriter {
  public:
    StripeWriter(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options)
        : array_(array),
          shard_(shard),
          g_(array.geometry),
          stripe_(g_.stripe_of(lba)),
          w_(StripeWrite::at(g_, lba.value - stripe_.value * g_.row_sectors(), from.sectors().value)),
          base_(g_.stripe_lba(stripe_)),
          parity_(g_.parity_member(stripe_)),
          from_(from),
          options_(options) {}

    [[nodiscard]] std::uint64_t stripe() const { return stripe_.value; }
    /// REQUIRES: the stripe's lock is held.
    Task<Result<void>> run();
    /// The whole way: everything is read, over the hull or, `widen`, over the stripe.
    Task<Result<void>> whole(bool widen);
    /// The data is known to be right, whatever parity says.
    void set_repair() { repair_ = true; }

  private:
    /// How the whole way makes the parity of a block.
    enum class Way : std::uint8_t {
        kSum,         ///< from all data, which is known
        kDerived,     ///< one block was lost: made up, given back to its member
        kCarried,     ///< the same from untrusted parity: only the sum of the stripe is kept (ST2)
        kDelta,       ///< more is lost, but not of what is written: the sum is kept by the difference
        kAbandoned,   ///< what is lost stays lost: parity is not written and not trusted
        kImpossible,  ///< a part of a lost block is written
    };
    static constexpr std::size_t kMaxBlocks = kMiB / kBlockBytes;

    [[nodiscard]] std::uint32_t member(std::uint32_t strip) const { return g_.data_member(stripe_, strip); }
    [[nodiscard]] std::uint64_t hull_sectors() const { return w_.hull_end() - w_.hull_begin(); }
    [[nodiscard]] std::uint64_t column(std::uint64_t offset) const { return base_.value + offset; }
    [[nodiscard]] Slice part_of(std::uint32_t strip) const;
    [[nodiscard]] WritePlan plan() const;
    void read_old(MemberFan& fan, std::uint32_t strip, std::uint64_t begin, std::uint64_t end);
    Task<Result<bool>> gather(WriteKind kind);
    Task<Result<void>> prepare(std::uint32_t slot, std::uint64_t begin, std::uint64_t end);
    void make_parity(WriteKind kind);
    [[nodiscard]] const std::byte* old_at(std::uint32_t slot, std::uint64_t column) const {
        return old_[slot].data().data() + (column - old_begin_[slot]) * kSectorBytes;
    }
    [[nodiscard]] const std::byte* new_at(std::uint32_t strip, std::uint64_t column) const;
    Task<Result<void>> submit(Slice parity, std::uint64_t parity_begin);
    [[nodiscard]] bool covered(std::uint32_t strip, std::uint64_t begin) const;
    [[nodiscard]] Way way_of(StripeImage& image, std::size_t block);
    void overlay(StripeImage& image);
    void fold_written(StripeImage& image, std::size_t block);
    Task<Result<void>> write_image(StripeImage& image);
    void trust_written(const StripeImage& image);

    ArrayBody& array_;
    Shard& shard_;
    const Geometry& g_;
    StripeIndex stripe_;
    StripeWrite w_;
    Lba base_;
    std::uint32_t parity_;
    Slice from_;
    WriteOptions options_;
    // Old data by data strip; old parity in slot data_members.
    std::array<Buffer, kMaxMembers> buffers_;
    std::array<Slice, kMaxMembers> old_;
    std::array<std::uint64_t, kMaxMembers> old_begin_{};
    Buffer parity_buffer_;
    Slice new_parity_;
    bool repair_ = false;
    std::array<Way, kMaxBlocks> ways_{};
    std::array<std::uint32_t, kMaxBlocks> lost_{};  ///< members whose data of the block is unknown, as bits
};

Slice StripeWriter::part_of(std::uint32_t strip) const {
    const std::uint64_t at = strip == w_.first ? 0 : (strip - w_.first) * w_.strip_sectors - w_.begin;
    return from_.sub(at * kSectorBytes, (w_.end_of(strip) - w_.begin_of(strip)) * kSectorBytes);
}

const std::byte* StripeWriter::new_at(std::uint32_t strip, std::uint64_t column) const {
    return part_of(strip).data().data() + (column - w_.begin_of(strip)) * kSectorBytes;
}

WritePlan StripeWriter::plan() const {
    std::optional<std::uint32_t> missing;
    for (std::uint32_t s = 0; s < w_.data_members; ++s) {
        if (!array_.in_sync(member(s))) {
            missing = s;
        }
    }
    const bool trusted = shard_.trusted(column(w_.hull_begin()), column(w_.hull_end()));
    return plan_write(w_, missing, !array_.in_sync(parity_), trusted);
}

Task<Result<void>> StripeWriter::prepare(std::uint32_t slot, std::uint64_t begin, std::uint64_t end) {
    CO_TRY(buffers_[slot], co_await array_.allocate((end - begin) * kSectorBytes));
    old_begin_[slot] = begin;
    old_[slot] = buffers_[slot].slice((end - begin) * kSectorBytes, base_ + begin);
    old_[slot].clear_infos();
    co_return Result<void>{};
}

/// Reads what the plan needs. False when some of it could not be read.
Task<Result<bool>> StripeWriter::gather(WriteKind kind) {
    const std::uint32_t parity_slot = w_.data_members;
    for (std::uint32_t s = 0; s < w_.data_members; ++s) {
        std::uint64_t begin = w_.hull_begin();
        std::uint64_t end = w_.hull_end();
        if (w_.touches(s) && kind == WriteKind::kModify) {
            begin = w_.begin_of(s);
            end = w_.end_of(s);
        } else if (w_.touches(s) && w_.begin_of(s) > begin) {
            end = w_.begin_of(s);
        } else if (w_.touches(s)) {
            begin = w_.end_of(s);
        } else if (kind == WriteKind::kModify) {
            continue;
        }
        if (begin < end) {
            CO_TRY_VOID(co_await prepare(s, begin, end));
        }
    }
    if (kind == WriteKind::kModify) {
        CO_TRY_VOID(co_await prepare(parity_slot, w_.hull_begin(), w_.hull_end()));
    }
    CO_TRY(parity_buffer_, co_await array_.allocate(hull_sectors() * kSectorBytes));
    new_parity_ = parity_buffer_.slice(hull_sectors() * kSectorBytes, base_ + w_.hull_begin());
    new_parity_.clear_infos();
    MemberFan fan;
    for (std::uint32_t s = 0; s <= parity_slot; ++s) {
        if (!old_[s].empty()) {
            const std::uint32_t m = s == parity_slot ? parity_ : member(s);
            fan.start(m, array_.members[m].device->read(base_ + old_begin_[s], old_[s], {}));
        }
    }
    co_await fan.all();
    bool all = true;
    for (std::uint32_t s = 0; s <= parity_slot; ++s) {
        const std::uint32_t m = s == parity_slot ? parity_ : member(s);
        const auto code = fan.failure(m);
        if (code) {
            co_await array_.note_read_error(m, *code);
        }
        all = all && !code && old_[s].all_readable();
    }
    co_return all;
}

/// New parity over the hull, piece by piece where the same strips take part.
void StripeWriter::make_parity(WriteKind kind) {
    std::array<std::uint64_t, 4> edges{w_.hull_begin(), w_.begin, w_.end, w_.hull_end()};
    std::ranges::sort(edges);
    for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
        const std::uint64_t from = edges[i];
        const std::uint64_t to = edges[i + 1];
        if (from == to) {
            continue;
        }
        std::array<const std::byte*, 2 * kMaxMembers> sources{};
        std::size_t n = 0;
        if (kind == WriteKind::kModify) {
            sources[n++] = old_at(w_.data_members, from);
        }
        for (std::uint32_t s = 0; s < w_.data_members; ++s) {
            const bool written = w_.touches(s) && w_.begin_of(s) <= from && to <= w_.end_of(s);
            if (written) {
                sources[n++] = new_at(s, from);
            }
            // To modify takes the old data of what is written; to reconstruct, that of what is not.
            if (written == (kind == WriteKind::kModify)) {
                sources[n++] = old_at(s, from);
            }
        }
        const std::size_t at = (from - w_.hull_begin()) * kSectorBytes;
        xor_into(new_parity_.data().subspan(at, (to - from) * kSectorBytes), std::span(sources).first(n));
    }
}

/// Writes the host's data, and parity, to every member that is in sync.
Task<Result<void>> StripeWriter::submit(Slice parity, std::uint64_t parity_begin) {
    MemberFan fan;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        const std::uint32_t m = member(s);
        if (array_.in_sync(m)) {
            fan.start(m, array_.members[m].device->write(base_ + w_.begin_of(s), part_of(s), options_));
        }
    }
    if (!parity.empty() && array_.in_sync(parity_)) {
        fan.start(parity_, array_.members[parity_].device->write(base_ + parity_begin, parity, options_));
    }
    co_await fan.all();
    const std::uint64_t first = parity.empty() ? w_.hull_begin() : parity_begin;
    const std::uint64_t end = parity.empty() ? w_.hull_end() : parity_begin + parity.sectors().value;
    co_return co_await settle_writes(array_, shard_, fan, column(first), column(end));
}

Task<Result<void>> StripeWriter::run() {
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only");
    }
    const WritePlan chosen = plan();
    if (chosen.kind == WriteKind::kDataOnly) {
        co_return co_await submit({}, 0);
    }
    if (chosen.kind == WriteKind::kWhole) {
        co_return co_await whole(array_.lost_members() == 0);
    }
    CO_TRY(const bool all, co_await gather(chosen.kind));
    if (!all) {
        co_return co_await whole(/*widen=*/false);
    }
    make_parity(chosen.kind);
    CO_TRY_VOID(co_await submit(new_parity_, w_.hull_begin()));
    if (chosen.kind == WriteKind::kFullStripe) {
        array_.trust(shard_, column(w_.hull_begin()), column(w_.hull_end()));
    }
    co_return Result<void>{};
}

/// The whole block at column `begin` of the strip is overwritten.
bool StripeWriter::covered(std::uint32_t strip, std::uint64_t begin) const {
    return w_.touches(strip) && w_.begin_of(strip) <= begin && w_.end_of(strip) >= begin + kSectorsPerBlock;
}

/// How the parity of a block can be made, by what is unknown in it.
StripeWriter::Way StripeWriter::way_of(StripeImage& image, std::size_t block) {
    const std::uint32_t unknown = image.unknown(block);
    const std::uint64_t begin = image.column(block) - base_.value;
    std::uint32_t open = unknown & ~(1U << parity_);  // data that the write does not make known
    bool all_covered = true;
    bool old_known = (unknown >> parity_ & 1U) == 0;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if (w_.begin_of(s) >= begin + kSectorsPerBlock || w_.end_of(s) <= begin) {
            continue;
        }
        const std::uint32_t bit = 1U << member(s);
        old_known = old_known && (unknown & bit) == 0;
        if (covered(s, begin)) {
            open &= ~bit;
        } else {
            all_covered = false;
        }
    }
    if (open == 0) {
        return Way::kSum;
    }
    if (std::popcount(open) == 1 && open == unknown) {
        const bool trusted = shard_.trusted(image.column(block), image.column(block) + kSectorsPerBlock);
        return trusted ? Way::kDerived : Way::kCarried;
    }
    if (old_known) {
        return Way::kDelta;
    }
    // Two members have lost this block, and not only for the moment: what is written is known, the rest is not.
    const bool for_good = !image.failed_otherwise() && (repair_ || array_.lost_members() == 0);
    return all_covered && for_good ? Way::kAbandoned : Way::kImpossible;
}

void StripeWriter::overlay(StripeImage& image) {
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        const Slice part = part_of(s);
        const std::size_t at = (w_.begin_of(s) - image.begin()) * kSectorBytes;
        std::ranges::copy(part.data(), image.of(member(s)).data().subspan(at).begin());
    }
}

/// parity ^= the blocks of the strips written: once with the old data and once with the new is the difference.
void StripeWriter::fold_written(StripeImage& image, std::size_t block) {
    alignas(32) std::array<std::byte, kBlockBytes> sum;
    std::array<const std::byte*, kMaxMembers> sources{image.of(parity_).block_data(block).data()};
    std::size_t n = 1;
    const std::uint64_t begin = image.column(block) - base_.value;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if (w_.begin_of(s) < begin + kSectorsPerBlock && w_.end_of(s) > begin) {
            sources[n++] = image.of(member(s)).block_data(block).data();
        }
    }
    xor_into(sum, std::span(sources).first(n));
    std::ranges::copy(sum, image.of(parity_).block_data(block).begin());
}

Task<Result<void>> StripeWriter::whole(bool widen) {
    StripeImage image(array_, stripe_, widen ? 0 : w_.hull_begin(), widen ? w_.strip_sectors : w_.hull_end());
    CO_TRY_VOID(co_await image.load());
    const std::size_t blocks = image.blocks();
    bool possible = true;
    for (std::size_t b = 0; b < blocks; ++b) {
        lost_[b] = image.unknown(b) & ~(1U << parity_);
        ways_[b] = way_of(image, b);
        possible = possible && ways_[b] != Way::kImpossible;
    }
    if (!possible && widen) {
        co_return co_await whole(/*widen=*/false);
    }
    if (!possible) {
        co_return fail(Errc::kMediumError, "array " + array_.name + ": stripe " + std::to_string(stripe_.value) +
                                               " cannot be written in part: blocks of more than one member "
                                               "cannot be read");
    }
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only");
    }
    for (std::size_t b = 0; b < blocks; ++b) {
        if (ways_[b] == Way::kDerived || ways_[b] == Way::kCarried) {
            image.derive(static_cast<std::uint32_t>(std::countr_zero(lost_[b])), b);
        }
        if (ways_[b] == Way::kDerived) {
            co_await image.repair(static_cast<std::uint32_t>(std::countr_zero(lost_[b])), b, 1);
        } else if (ways_[b] == Way::kDelta) {
            fold_written(image, b);
        }
    }
    overlay(image);
    for (std::size_t b = 0; b < blocks; ++b) {
        if (ways_[b] == Way::kDelta) {
            fold_written(image, b);
        } else if (ways_[b] != Way::kAbandoned) {
            image.derive(parity_, b);
        }
    }
    co_return co_await write_image(image);
}

Task<Result<void>> StripeWriter::write_image(StripeImage& image) {
    const auto ways = std::span(ways_).first(image.blocks());
    if (std::ranges::count(ways, Way::kAbandoned) == 0) {
        CO_TRY_VOID(co_await submit(image.of(parity_), image.begin()));
        trust_written(image);
        co_return Result<void>{};
    }
    for (std::size_t b = 0; b < ways.size(); ++b) {
        if (ways[b] == Way::kAbandoned) {
            array_.distrust(shard_, image.column(b), image.column(b) + kSectorsPerBlock);
        }
    }
    CO_TRY_VOID(co_await submit({}, 0));
    for (std::size_t b = 0; b < ways.size(); ++b) {
        if (ways[b] != Way::kAbandoned && array_.in_sync(parity_)) {
            MemberFan fan;
            const Slice block = image.of(parity_).sub(b * kBlockBytes, kBlockBytes);
            fan.start(parity_, array_.members[parity_].device->write(Lba(image.column(b)), block, options_));
            co_await fan.all();
            CO_TRY_VOID(
                co_await settle_writes(array_, shard_, fan, image.column(b), image.column(b) + kSectorsPerBlock));
        }
    }
    trust_written(image);
    co_return Result<void>{};
}

/// Columns whose sum is now known to be right. Of a carried block that is what was overwritten of the lost strip.
void StripeWriter::trust_written(const StripeImage& image) {
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        const std::uint64_t begin = image.column(b);
        const std::uint64_t end = begin + kSectorsPerBlock;
        if (ways_[b] == Way::kSum) {
            array_.trust(shard_, begin, end);
        }
        if (ways_[b] != Way::kCarried) {
            continue;
        }
        const auto strip = g_.data_index(stripe_, static_cast<std::uint32_t>(std::countr_zero(lost_[b])));
        if (strip && w_.touches(*strip)) {
            array_.trust(shard_, std::max(begin, column(w_.begin_of(*strip))),
                         std::min(end, column(w_.end_of(*strip))));
        }
    }
}

}  // namespace

Task<Result<void>> write_stripe(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    StripeWriter writer(array, shard, lba, from, options);
    const auto guard = co_await shard.lock.acquire(writer.stripe(), writer.stripe());
    co_return co_await writer.run();
}

namespace {
Task<Result<void>> repair_stripe(ArrayBody& array, Shard& shard, Lba lba, Slice from) {
    StripeWriter writer(array, shard, lba, from, {});
    const auto guard = co_await shard.lock.acquire(writer.stripe(), writer.stripe());
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    writer.set_repair();
    co_return co_await writer.whole(/*widen=*/false);
}
}  // namespace

Task<Result<void>> parity_repair(ArrayBody& array, Shard& shard, Lba lba, Slice from) {
    const std::uint64_t row = array.geometry.row_sectors();
    std::size_t at = 0;
    while (at < from.size()) {
        const Lba here = lba + at / kSectorBytes;
        const std::size_t bytes = std::min<std::size_t>(from.size() - at, (row - here.value % row) * kSectorBytes);
        CO_TRY_VOID(co_await repair_stripe(array, shard, here, from.sub(at, bytes)));
        at += bytes;
    }
    co_return Result<void>{};
}

}  // namespace gemel::raid::detail
