// SPDX-License-Identifier: Apache-2.0
// Writing a part of one stripe (stripe.hpp): the five kinds of write_plan.hpp.
#include <algorithm>
#include <bit>
#include <utility>

#include "gemel/test_switch.hpp"
#include "raid/checksums.hpp"
#include "raid/member_writes.hpp"
#include "raid/parity.hpp"
#include "raid/redo_log.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {

class StripeWriter {
  public:
    StripeWriter(ArrayBody& array, Shard& shard, Lba lba, StripeData data, WriteOptions options)
        : array_(array),
          shard_(shard),
          g_(array.geometry),
          stripe_(g_.stripe_of(lba)),
          w_(StripeWrite::at(g_, lba.value - stripe_.value * g_.row_sectors(), data.sectors.value)),
          whole_blocks_(w_.begin % kSectorsPerBlock == 0 && w_.end % kSectorsPerBlock == 0),
          base_(g_.stripe_lba(stripe_)),
          data_(data),
          options_(options),
          doubts_(shard.cache->doubts()) {}

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
        kDerived,     ///< some blocks were lost: made up, given back to their members
        kAccepted,    ///< the one of a missing member, as P tells it (B5)
        kDelta,       ///< what is lost cannot be made up, but is not written: the sums are kept by the difference
        kCarried,     ///< a part of the one block lost is written: the same, and from all data where it is (ST2)
        kAbandoned,   ///< what is lost stays lost: parity is not written and not trusted
        kImpossible,  ///< a part of a lost block is written
    };
    static constexpr std::size_t kMaxBlocks = kMiB / kBlockBytes;
    static constexpr std::uint32_t kMaxParities = 2;
    using ParitySlices = std::array<Slice, kMaxParities>;

    [[nodiscard]] std::uint32_t member(std::uint32_t strip) const { return g_.data_member(stripe_, strip); }
    [[nodiscard]] std::uint32_t parity_member(std::uint32_t which) const { return g_.parity_member(stripe_, which); }
    /// Slots: the data strips, behind them the parity strips.
    [[nodiscard]] std::uint32_t member_of(std::uint32_t slot) const {
        return slot < w_.data_members ? member(slot) : parity_member(slot - w_.data_members);
    }
    [[nodiscard]] std::uint64_t hull_sectors() const { return w_.hull_end() - w_.hull_begin(); }
    [[nodiscard]] std::uint64_t column(std::uint64_t offset) const { return base_.value + offset; }
    [[nodiscard]] std::uint64_t block_of(std::uint64_t offset) const { return column(offset) / kSectorsPerBlock; }
    [[nodiscard]] Slice part_of(std::uint32_t strip) const;
    void note_unflushed();
    [[nodiscard]] std::uint32_t written_in(std::uint64_t begin) const;
    Task<Result<void>> make_partial(WriteKind kind);
    Task<Result<void>> make_partial(const StripeImage& image);
    [[nodiscard]] WritePlan plan();
    [[nodiscard]] CachedStrips look_up();
    void keep(WriteKind kind);
    void keep_blocks(std::uint32_t slot, std::uint64_t begin, Slice data, Buffer own);
    /// The columns of a data strip whose old data the plan needs.
    [[nodiscard]] ColumnRange needed(std::uint32_t strip, WriteKind kind) const;
    Task<Result<void>> prepare_all(WriteKind kind);
    Task<Result<bool>> gather(WriteKind kind);
    Task<Result<void>> prepare(std::uint32_t slot, std::uint64_t begin, std::uint64_t end);
    void make_parity(WriteKind kind);
    void modify_parity(std::uint64_t from, std::uint64_t to, std::span<const MutableBytes> parity) const;
    [[nodiscard]] const std::byte* old_at(std::uint32_t slot, std::uint64_t column) const {
        return old_[slot].data().data() + (column - old_begin_[slot]) * kSectorBytes;
    }
    [[nodiscard]] const std::byte* new_at(std::uint32_t strip, std::uint64_t column) const;
    /// Columns [begin, end) of the stripe are those of `parity`, or what is written.
    Task<Result<void>> submit(ParitySlices parity, std::uint64_t begin, std::uint64_t end);
    Task<Result<void>> write_listed(const MemberWrites& writes, std::uint64_t begin, std::uint64_t end);
    [[nodiscard]] MemberWrites member_writes(ParitySlices parity, std::uint64_t begin, std::uint64_t end) const;
    void add_kept_parity(const StripeImage& image, MemberWrites& out) const;
    [[nodiscard]] bool covered(std::uint32_t strip, std::uint64_t begin) const;
    [[nodiscard]] Way way_of(StripeImage& image, std::size_t block);
    void overlay(StripeImage& image);
    [[nodiscard]] bool overlaps(std::uint32_t strip, std::uint64_t begin) const;
    void fold_written(StripeImage& image, std::size_t block) const;
    /// What is written of the one lost strip in a carried block.
    [[nodiscard]] ColumnRange written_of_lost(std::size_t block, std::uint64_t begin) const;
    Task<void> make_up_lost(StripeImage& image);
    void make_image_parity(StripeImage& image);
    Task<Result<void>> write_image(StripeImage& image);
    [[nodiscard]] bool makes_parity(std::size_t block, std::uint32_t which) const;
    Task<Result<void>> trust_written(StripeImage& image);

    ArrayBody& array_;
    Shard& shard_;
    const Geometry& g_;
    StripeIndex stripe_;
    StripeWrite w_;
    const bool whole_blocks_;  ///< are written, of each strip
    Lba base_;
    StripeData data_;
    WriteOptions options_;
    std::uint32_t parities_used_ = 0;  ///< by the plan, as bits: 1 is P, 2 is Q
    std::uint64_t doubts_;             ///< of the cache, when this began
    bool keeps_ = false;               ///< what is written is worth a place in it
    bool in_step_ = false;             ///< parity is changed by what is written, and by nothing else
    std::uint32_t cached_ = 0;         ///< slots that need no read, as bits
    PartialParity partial_;            ///< PP1; of arrays that record it
    bool tells_ = false;               ///< it is more than what is written
    std::uint32_t unflushed_ = 0;      ///< data strips, as bits, that it leaves out though they are not written there
    // Old data and parity by slot.
    std::array<Buffer, kMaxMembers> buffers_;
    std::array<Slice, kMaxMembers> old_;
    std::array<std::uint64_t, kMaxMembers> old_begin_{};
    std::array<Buffer, kMaxParities> parity_buffers_;
    ParitySlices new_parity_;
    bool repair_ = false;
    std::array<Way, kMaxBlocks> ways_{};
    std::array<std::uint32_t, kMaxBlocks> unknown_{};  ///< members whose block is unknown, as bits
};

Slice StripeWriter::part_of(std::uint32_t strip) const {
    if (!data_.strips.empty()) {
        return data_.strips[strip - w_.first];
    }
    const std::uint64_t at = strip == w_.first ? 0 : (strip - w_.first) * w_.strip_sectors - w_.begin;
    return data_.whole.sub(at * kSectorBytes, (w_.end_of(strip) - w_.begin_of(strip)) * kSectorBytes);
}

const std::byte* StripeWriter::new_at(std::uint32_t strip, std::uint64_t column) const {
    return part_of(strip).data().data() + (column - w_.begin_of(strip)) * kSectorBytes;
}

/// The data strips, as bits, that are written in the block at this column.
std::uint32_t StripeWriter::written_in(std::uint64_t begin) const {
    std::uint32_t out = 0;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        out |= overlaps(s, begin) ? 1U << s : 0;
    }
    return out;
}

/// PP1: what the record is to leave out.
void StripeWriter::note_unflushed() {
    if (!array_.partial_parity()) {
        return;
    }
    const std::uint64_t first = round_down(w_.hull_begin(), kSectorsPerBlock);
    const std::uint64_t end = round_up(w_.hull_end(), kSectorsPerBlock);
    tells_ = array_.lost_members() == 0;
    partial_.first = block_of(first);
    partial_.written.clear();
    for (std::uint64_t at = first; at < end; at += kSectorsPerBlock) {
        const std::uint32_t before = array_.redo()->unflushed(shard_, block_of(at));
        // Nothing between two strips of which one ends before the other begins.
        const std::uint32_t now = written_in(at);
        partial_.written.push_back(now == 0 ? 0 : before | now);
        unflushed_ |= tells_ && now != 0 ? before & ~now : 0;
    }
}

/// From old parity and the old data of what is written, or from the rest of the data, in whole blocks. Full stripes
/// tell nothing.
Task<Result<void>> StripeWriter::make_partial(WriteKind kind) {
    if (!tells_ || kind == WriteKind::kFullStripe) {
        co_return Result<void>{};
    }
    CO_TRY(partial_.bytes, co_await array_.allocate(partial_.written.size() * kBlockBytes));
    const bool modify = kind == WriteKind::kModify;
    for (std::size_t b = 0; b < partial_.written.size(); ++b) {
        const std::uint64_t at = w_.hull_begin() + b * kSectorsPerBlock;
        const std::uint32_t strips = modify ? partial_.written[b] : all_data_strips(g_) & ~partial_.written[b];
        partial_.fold(b, modify ? old_at(w_.data_members, at) : nullptr, strips,
                      [&](std::uint32_t s) { return old_at(s, at); });
    }
    co_return Result<void>{};
}

/// The same from all data, where it is known.
Task<Result<void>> StripeWriter::make_partial(const StripeImage& image) {
    if (!tells_) {
        co_return Result<void>{};
    }
    CO_TRY(partial_.bytes, co_await array_.allocate(partial_.written.size() * kBlockBytes));
    for (std::size_t b = 0; b < partial_.written.size(); ++b) {
        const std::size_t i = partial_.first + b - block_of(image.begin());
        const bool known = ways_[i] == Way::kSum || ways_[i] == Way::kDerived;
        partial_.written[b] = known || partial_.written[b] == 0 ? partial_.written[b] : all_data_strips(g_);
        partial_.fold(b, nullptr, all_data_strips(g_) & ~partial_.written[b],
                      [&](std::uint32_t s) { return image.of(member(s)).block_data(i).data(); });
    }
    co_return Result<void>{};
}

WritePlan StripeWriter::plan() {
    std::uint32_t missing = 0;
    for (std::uint32_t s = 0; s < w_.data_members; ++s) {
        missing |= array_.holds(member(s), stripe_) ? 0 : 1U << s;
    }
    for (std::uint32_t i = 0; i < g_.parities(); ++i) {
        parities_used_ |= array_.holds(parity_member(i), stripe_) ? 1U << i : 0;
    }
    const bool trusted = shard_.trusted(column(w_.hull_begin()), column(w_.hull_end()));
    return plan_write(w_, missing, static_cast<std::uint32_t>(std::popcount(parities_used_)), trusted, look_up());
}

/// What each kind of write would read, and the cache has.
CachedStrips StripeWriter::look_up() {
    CachedStrips out;
    if (!whole_blocks_ || (w_.strips() == w_.data_members && w_.begin == 0 && w_.end == w_.strip_sectors)) {
        return out;
    }
    StripeCache& cache = *shard_.cache;
    keeps_ = cache.note_write(block_of(w_.hull_begin()), block_of(w_.hull_end()), g_.members);
    const auto has = [&](std::uint32_t slot, ColumnRange r) {
        const std::uint32_t m = member_of(slot);
        return r.first < r.end && cache.has(m, block_of(r.first), block_of(r.end)) && array_.holds(m, stripe_);
    };
    for (std::uint32_t s = 0; cache.bytes() > 0 && s < w_.data_members; ++s) {
        out.modify |= w_.touches(s) && has(s, needed(s, WriteKind::kModify)) ? 1U << s : 0;
        out.reconstruct |= has(s, needed(s, WriteKind::kReconstruct)) ? 1U << s : 0;
    }
    for (std::uint32_t s = w_.data_members; cache.bytes() > 0 && s < g_.members; ++s) {
        out.modify |= has(s, {w_.hull_begin(), w_.hull_end()}) ? 1U << s : 0;
    }
    keeps_ = keeps_ || (out.modify | out.reconstruct) != 0;
    return out;
}

ColumnRange StripeWriter::needed(std::uint32_t strip, WriteKind kind) const {
    const ColumnRange hull{w_.hull_begin(), w_.hull_end()};
    if (kind == WriteKind::kModify) {
        if ((unflushed_ >> strip & 1U) != 0) {
            return hull;
        }
        return w_.touches(strip) ? ColumnRange{w_.begin_of(strip), w_.end_of(strip)} : ColumnRange{};
    }
    if (!w_.touches(strip)) {
        return hull;
    }
    return w_.begin_of(strip) > hull.first ? ColumnRange{hull.first, w_.begin_of(strip)}
                                           : ColumnRange{w_.end_of(strip), hull.end};
}

Task<Result<void>> StripeWriter::prepare(std::uint32_t slot, std::uint64_t begin, std::uint64_t end) {
    StripeCache& cache = *shard_.cache;
    const std::uint32_t m = member_of(slot);
    const std::uint64_t first = block_of(begin);
    const std::uint64_t blocks = whole_blocks_ ? (end - begin) / kSectorsPerBlock : 0;
    if (blocks == 1 && cache.has(m, first, first + 1)) {
        buffers_[slot] = cache.take(m, first);
        cached_ |= 1U << slot;
    } else {
        CO_TRY(buffers_[slot], co_await array_.allocate((end - begin) * kSectorBytes));
    }
    old_begin_[slot] = begin;
    old_[slot] = buffers_[slot].slice((end - begin) * kSectorBytes, base_ + begin);
    old_[slot].clear_infos();
    if (blocks > 1 && cache.has(m, first, first + blocks)) {
        for (std::uint64_t b = 0; b < blocks; ++b) {
            cache.copy(m, first + b, old_[slot].block_data(b));
        }
        cached_ |= 1U << slot;
    }
    co_return Result<void>{};
}

/// Memory for what the plan reads, and for the new parity.
Task<Result<void>> StripeWriter::prepare_all(WriteKind kind) {
    for (std::uint32_t s = 0; s < w_.data_members; ++s) {
        const ColumnRange range = needed(s, kind);
        if (range.first < range.end) {
            CO_TRY_VOID(co_await prepare(s, range.first, range.end));
        }
    }
    for (std::uint32_t i = 0; i < g_.parities(); ++i) {
        if ((parities_used_ >> i & 1U) == 0) {
            continue;
        }
        if (kind == WriteKind::kModify) {
            CO_TRY_VOID(co_await prepare(w_.data_members + i, w_.hull_begin(), w_.hull_end()));
        }
        CO_TRY(parity_buffers_[i], co_await array_.allocate(hull_sectors() * kSectorBytes));
        new_parity_[i] = parity_buffers_[i].slice(hull_sectors() * kSectorBytes, base_ + w_.hull_begin());
        new_parity_[i].clear_infos();
    }
    co_return Result<void>{};
}

/// Reads what the plan needs. False when some of it could not be read.
Task<Result<bool>> StripeWriter::gather(WriteKind kind) {
    CO_TRY_VOID(co_await prepare_all(kind));
    MemberFan fan;
    for (std::uint32_t slot = 0; slot < g_.members; ++slot) {
        if (!old_[slot].empty() && (cached_ >> slot & 1U) == 0) {
            const std::uint32_t m = member_of(slot);
            fan.start(m, array_.members[m].device->read(base_ + old_begin_[slot], old_[slot], {}));
        }
    }
    co_await fan.all();
    bool all = true;
    for (std::uint32_t slot = 0; slot < g_.members; ++slot) {
        const std::uint32_t m = member_of(slot);
        const auto code = fan.failure(m);
        if (code) {
            co_await array_.note_read_error(m, *code);
        }
        all = all && !code && old_[slot].all_readable();
    }
    co_return all;
}

/// New parity over the hull, piece by piece where the same strips take part.
void StripeWriter::make_parity(WriteKind kind) {
    std::array<std::uint64_t, 4> edges{w_.hull_begin(), w_.begin, w_.end, w_.hull_end()};
    std::ranges::sort(edges);
    for (std::size_t piece = 0; piece + 1 < edges.size(); ++piece) {
        const std::uint64_t from = edges[piece];
        const std::uint64_t to = edges[piece + 1];
        if (from == to) {
            continue;
        }
        std::array<MutableBytes, kMaxParities> parity;
        for (std::uint32_t i = 0; i < g_.parities(); ++i) {
            const std::size_t at = (from - w_.hull_begin()) * kSectorBytes;
            if (!new_parity_[i].empty()) {
                parity[i] = new_parity_[i].data().subspan(at, (to - from) * kSectorBytes);
            }
        }
        if (kind == WriteKind::kModify) {
            modify_parity(from, to, parity);
            continue;
        }
        std::array<const std::byte*, kMaxMembers> data{};
        for (std::uint32_t s = 0; s < w_.data_members; ++s) {
            const bool written = w_.touches(s) && w_.begin_of(s) <= from && to <= w_.end_of(s);
            data[s] = written ? new_at(s, from) : old_at(s, from);
        }
        parity_into(parity[0], parity[1], std::span(data).first(w_.data_members));
    }
}

/// Old parity, old data and new data are the new parity.
void StripeWriter::modify_parity(std::uint64_t from, std::uint64_t to, std::span<const MutableBytes> parity) const {
    std::array<const std::byte*, 2 * kMaxMembers> sources{};
    std::array<std::uint8_t, 2 * kMaxMembers> factors{1};
    std::size_t n = 1;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if (w_.begin_of(s) <= from && to <= w_.end_of(s)) {
            factors[n] = factors[n + 1] = kGfPowers[s];
            sources[n++] = new_at(s, from);
            sources[n++] = old_at(s, from);
        }
    }
    if (!parity[0].empty()) {
        sources[0] = old_at(w_.data_members, from);
        xor_into(parity[0], std::span(sources).first(n));
    }
    if (!parity[1].empty()) {
        sources[0] = old_at(w_.data_members + 1, from);
        weighted_sum_into(parity[1], std::span(sources).first(n), std::span(factors).first(n));
    }
}

MemberWrites StripeWriter::member_writes(ParitySlices parity, std::uint64_t begin, std::uint64_t end) const {
    MemberWrites out;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        const Slice part = part_of(s);
        add_write(array_, stripe_, member(s), base_ + w_.begin_of(s), part, part.sectors(), out);
    }
    for (std::uint32_t i = 0; i < g_.parities(); ++i) {
        add_write(array_, stripe_, parity_member(i), base_ + begin, parity[i], SectorCount(end - begin), out);
    }
    return out;
}

/// Writes the host's data, and parity, to every member that holds the stripe.
Task<Result<void>> StripeWriter::submit(ParitySlices parity, std::uint64_t begin, std::uint64_t end) {
    const bool logged = co_await enter_redo(array_);
    MemberWrites writes = member_writes(parity, begin, end);
    if (logged) {
        co_return co_await array_.redo()->write(shard_, stripe_, std::move(writes), options_);
    }
    co_return co_await write_listed(writes, begin, end);
}

/// J1.
Task<Result<void>> StripeWriter::write_listed(const MemberWrites& writes, std::uint64_t begin, std::uint64_t end) {
    if (!array_.listed(shard_, stripe_, stripe_)) {
        CO_TRY_VOID(co_await array_.await_listed(shard_, stripe_, stripe_));
    }
    if (!array_.in_missed(column(begin), column(end))) {
        CO_TRY_VOID(co_await array_.await_missed(column(begin), column(end)));
    }
    CO_TRY_VOID(co_await array_.prepare_map(column(begin), column(end)));
    if (array_.partial_parity()) {
        co_return co_await array_.redo()->write_partial(shard_, stripe_, std::move(partial_), writes, options_,
                                                        in_step_);
    }
    co_return co_await write_members(array_, shard_, stripe_, writes, options_, in_step_);
}

Task<Result<void>> StripeWriter::run() {
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only");
    }
    note_unflushed();
    const WritePlan chosen = plan();
    if (chosen.kind == WriteKind::kDataOnly) {
        co_return co_await submit({}, w_.hull_begin(), w_.hull_end());
    }
    if (chosen.kind == WriteKind::kWhole || (tells_ && !whole_blocks_)) {
        co_return co_await whole(chosen.kind == WriteKind::kWhole && array_.lost_members() == 0);
    }
    CO_TRY(const bool all, co_await gather(chosen.kind));
    if (!all) {
        co_return co_await whole(/*widen=*/false);
    }
    make_parity(chosen.kind);
    CO_TRY_VOID(co_await make_partial(chosen.kind));
    in_step_ = chosen.kind != WriteKind::kFullStripe;
    CO_TRY_VOID(co_await submit(new_parity_, w_.hull_begin(), w_.hull_end()));
    if (in_step_) {
        keep(chosen.kind);
    } else {
        array_.trust(shard_, column(w_.hull_begin()), column(w_.hull_end()));
    }
    co_return Result<void>{};
}

/// KC1. What members hold now of the columns written.
void StripeWriter::keep(WriteKind kind) {
    if (!keeps_ || shard_.cache->doubts() != doubts_) {
        return;
    }
    for (std::uint32_t s = 0; s < w_.data_members; ++s) {
        if (w_.touches(s)) {
            const bool fits = kind == WriteKind::kModify && (unflushed_ >> s & 1U) == 0;
            keep_blocks(s, w_.begin_of(s), part_of(s), fits ? std::move(buffers_[s]) : Buffer());
        } else if (!old_[s].empty()) {
            keep_blocks(s, old_begin_[s], old_[s], std::move(buffers_[s]));
        }
    }
    for (std::uint32_t i = 0; i < g_.parities(); ++i) {
        keep_blocks(w_.data_members + i, w_.hull_begin(), new_parity_[i], std::move(parity_buffers_[i]));
    }
}

/// `own`: memory for one block, which may be that of `data`, as what the cache gets. Without memory nothing is kept.
void StripeWriter::keep_blocks(std::uint32_t slot, std::uint64_t begin, Slice data, Buffer own) {
    const std::uint32_t m = member_of(slot);
    const std::size_t blocks = array_.holds(m, stripe_) ? data.size() / kBlockBytes : 0;
    for (std::size_t b = 0; b < blocks; ++b) {
        Result<Buffer> memory = blocks == 1 && own ? Result<Buffer>(std::exchange(own, Buffer()))
                                                   : array_.env.buffers.allocate(kBlockBytes);
        if (!memory) {
            return;
        }
        if (memory->memory().data() != data.block_data(b).data()) {
            std::ranges::copy(data.block_data(b), memory->memory().begin());
        }
        shard_.cache->put(m, block_of(begin) + b, *std::move(memory), doubts_);
    }
}

/// The whole block at column `begin` of the strip is overwritten.
bool StripeWriter::covered(std::uint32_t strip, std::uint64_t begin) const {
    return w_.touches(strip) && w_.begin_of(strip) <= begin && w_.end_of(strip) >= begin + kSectorsPerBlock;
}

/// A part of it is.
bool StripeWriter::overlaps(std::uint32_t strip, std::uint64_t begin) const {
    return w_.touches(strip) && w_.begin_of(strip) < begin + kSectorsPerBlock && w_.end_of(strip) > begin;
}

/// How the parity of a block can be made, by what is unknown in it.
StripeWriter::Way StripeWriter::way_of(StripeImage& image, std::size_t block) {
    const std::uint32_t unknown = unknown_[block];
    const std::uint32_t data = unknown & ~image.parity_set();
    const std::uint64_t begin = image.column(block) - base_.value;
    std::uint32_t open = data;  // that the write does not make known
    std::uint32_t written = 0;
    bool all_covered = true;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if (overlaps(s, begin)) {
            written |= 1U << member(s);
            all_covered = all_covered && covered(s, begin);
            open &= covered(s, begin) ? ~(1U << member(s)) : ~0U;
        }
    }
    if (open == 0) {
        return Way::kSum;
    }
    const bool trusted = shard_.trusted(image.column(block), image.column(block) + kSectorsPerBlock);
    if (trusted && image.can_make_up(unknown, block)) {
        return Way::kDerived;
    }
    if (!trusted && image.accepted(block) != 0) {
        return Way::kAccepted;
    }
    const bool sums_known = (unknown & image.parity_set() & ~array_.lost_set()) == 0;
    if (sums_known && (data & written) == 0) {
        return Way::kDelta;
    }
    if (sums_known && std::has_single_bit(data)) {
        return Way::kCarried;
    }
    // More is lost than parity makes up, and not only for the moment: what is written is known, the rest is not.
    const bool for_good = !image.failed_otherwise() && (repair_ || array_.lost_members() == 0);
    return all_covered && for_good ? Way::kAbandoned : Way::kImpossible;
}

void StripeWriter::overlay(StripeImage& image) {
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        const Slice part = part_of(s);
        const std::size_t at = (w_.begin_of(s) - image.begin()) * kSectorBytes;
        std::ranges::copy(part.data(), image.of(member(s)).data().subspan(at).begin());
        for (std::size_t b = 0; b < image.blocks(); ++b) {
            if (covered(s, image.column(b) - base_.value)) {
                image.of(member(s)).blocks()[b] = BlockInfo{};
            }
        }
    }
}

/// Adds the blocks of the strips written that are known to parity: once with the old data and once with the new is the
/// difference.
void StripeWriter::fold_written(StripeImage& image, std::size_t block) const {
    std::array<const std::byte*, kMaxMembers> sources{};
    std::array<std::uint8_t, kMaxMembers> factors{1};
    std::size_t n = 1;
    const std::uint64_t begin = image.column(block) - base_.value;
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if (overlaps(s, begin) && (unknown_[block] >> member(s) & 1U) == 0) {
            factors[n] = kGfPowers[s];
            sources[n++] = image.of(member(s)).block_data(block).data();
        }
    }
    alignas(32) std::array<std::byte, kBlockBytes> sum;
    for (std::uint32_t i = 0; i < g_.parities(); ++i) {
        const MutableBytes parity = image.of(parity_member(i)).block_data(block);
        sources[0] = parity.data();
        if (i == 0) {
            xor_into(sum, std::span(sources).first(n));
        } else {
            weighted_sum_into(sum, std::span(sources).first(n), std::span(factors).first(n));
        }
        std::ranges::copy(sum, parity.begin());
    }
}

ColumnRange StripeWriter::written_of_lost(std::size_t block, std::uint64_t begin) const {
    for (std::uint32_t s = w_.first; s <= w_.last; ++s) {
        if ((unknown_[block] >> member(s) & 1U) != 0) {
            return {std::max(begin, w_.begin_of(s)), std::min(begin + kSectorsPerBlock, w_.end_of(s))};
        }
    }
    return {begin, begin};
}

/// Before the new data is laid over the old.
Task<void> StripeWriter::make_up_lost(StripeImage& image) {
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        if (ways_[b] == Way::kDelta || ways_[b] == Way::kCarried) {
            fold_written(image, b);
        }
        if (ways_[b] == Way::kAccepted) {
            image.make_up(image.accepted(b), b);
        }
        if (ways_[b] != Way::kDerived) {
            continue;
        }
        image.make_up(unknown_[b], b);
        for (std::uint32_t m = 0; m < g_.members; ++m) {
            if ((unknown_[b] & ~image.parity_set()) >> m & 1U) {
                co_await image.repair(m, b, 1);
            }
        }
    }
}

/// After that.
void StripeWriter::make_image_parity(StripeImage& image) {
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        if (ways_[b] == Way::kSum || ways_[b] == Way::kDerived || ways_[b] == Way::kAccepted) {
            image.make_parity(b * kBlockBytes, kBlockBytes);
        }
        if (ways_[b] == Way::kDelta || ways_[b] == Way::kCarried) {
            fold_written(image, b);
        }
        if (ways_[b] == Way::kCarried) {
            const ColumnRange lost = written_of_lost(b, image.column(b) - base_.value);
            image.make_parity((lost.first - image.begin()) * kSectorBytes, (lost.end - lost.first) * kSectorBytes);
        }
    }
}

Task<Result<void>> StripeWriter::whole(bool widen) {
    note_unflushed();
    StripeImage image(array_, stripe_, widen ? 0 : w_.hull_begin(), widen ? w_.strip_sectors : w_.hull_end());
    CO_TRY_VOID(co_await image.load());
    bool possible = true;
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        unknown_[b] = image.unknown(b);
        ways_[b] = way_of(image, b);
        possible = possible && ways_[b] != Way::kImpossible;
    }
    if (!possible && widen) {
        co_return co_await whole(/*widen=*/false);
    }
    if (!possible) {
        co_return fail(Errc::kMediumError, "array " + array_.name + ": stripe " + std::to_string(stripe_.value) +
                                               " cannot be written in part: blocks of more members cannot be read "
                                               "than parity makes up for");
    }
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only");
    }
    co_await make_up_lost(image);
    overlay(image);
    make_image_parity(image);
    CO_TRY_VOID(co_await make_partial(image));
    co_return co_await write_image(image);
}

Task<Result<void>> StripeWriter::write_image(StripeImage& image) {
    const auto ways = std::span(ways_).first(image.blocks());
    const std::uint64_t end = image.begin() + image.blocks() * kSectorsPerBlock;
    bool all = true;
    for (std::size_t b = 0; b < ways.size(); ++b) {
        all = all && makes_parity(b, 0) && (g_.parities() == 1 || makes_parity(b, 1));
    }
    if (all) {
        ParitySlices parity;
        for (std::uint32_t i = 0; i < g_.parities(); ++i) {
            parity[i] = image.of(parity_member(i));
        }
        CO_TRY_VOID(co_await submit(parity, image.begin(), end));
        co_return co_await trust_written(image);
    }
    for (std::size_t b = 0; b < ways.size(); ++b) {
        if (ways[b] == Way::kAbandoned) {
            array_.distrust(shard_, image.column(b), image.column(b) + kSectorsPerBlock);
        }
    }
    const bool logged = co_await enter_redo(array_);
    MemberWrites writes = member_writes({}, w_.hull_begin(), w_.hull_end());
    add_kept_parity(image, writes);
    if (logged) {
        CO_TRY_VOID(co_await array_.redo()->write_after_checkpoint(shard_, stripe_, std::move(writes), options_));
    } else {
        if (array_.partial_parity()) {  // PP7
            CO_TRY_VOID(co_await array_.redo()->name_untrusted());
        }
        CO_TRY_VOID(co_await write_listed(writes, w_.hull_begin(), w_.hull_end()));
    }
    co_return co_await trust_written(image);
}

/// What was made of the parity strip is right, or as it was, in this block. A device that is rebuilt may hold a strip
/// of which a block could not be made up: a difference makes nothing of that.
bool StripeWriter::makes_parity(std::size_t block, std::uint32_t which) const {
    const bool kept = ways_[block] == Way::kDelta || ways_[block] == Way::kCarried;
    const std::uint32_t m = parity_member(which);
    return ways_[block] != Way::kAbandoned && !(kept && (unknown_[block] >> m & 1U) != 0 && array_.holds(m, stripe_));
}

/// The parity of the blocks where it was made.
void StripeWriter::add_kept_parity(const StripeImage& image, MemberWrites& out) const {
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        for (std::uint32_t i = 0; i < g_.parities(); ++i) {
            const std::uint32_t m = parity_member(i);
            if (makes_parity(b, i)) {
                const Slice block = image.of(m).sub(b * kBlockBytes, kBlockBytes);
                add_write(array_, stripe_, m, Lba(image.column(b)), block, block.sectors(), out);
            }
        }
    }
}

/// Columns whose sums are now known to be right. Of a carried block that is what was overwritten of the lost strip.
Task<Result<void>> StripeWriter::trust_written(StripeImage& image) {
    for (std::size_t b = 0; b < image.blocks(); ++b) {
        if (shard_.trusted(image.column(b), image.column(b) + kSectorsPerBlock)) {
            continue;
        }
        const bool carried = active(TestSwitch::kCarriedTrusted) && ways_[b] == Way::kDelta;
        if (ways_[b] == Way::kSum || ways_[b] == Way::kAccepted || carried) {
            CO_TRY_VOID(co_await image.enter(b, b + 1));
            array_.trust(shard_, image.column(b), image.column(b) + kSectorsPerBlock);
        }
        if (ways_[b] == Way::kCarried) {
            const ColumnRange lost = written_of_lost(b, image.column(b) - base_.value);
            CO_TRY_VOID(co_await image.forget(b));
            array_.trust(shard_, column(lost.first), column(lost.end));
        }
    }
    co_return Result<void>{};
}

}  // namespace

Task<Result<void>> write_locked(ArrayBody& array, Shard& shard, Lba lba, StripeData data, WriteOptions options) {
    StripeWriter writer(array, shard, lba, data, options);
    co_return co_await writer.run();
}

namespace {
/// A block as it is, for a write of a part of it. REQUIRES: the stripe's lock is held.
Task<Result<void>> read_for_write(ArrayBody& array, Shard& shard, Lba lba, Slice to) {
    const Place place = array.geometry.locate(lba);
    const std::uint64_t block = place.member_lba.value / kSectorsPerBlock;
    StripeCache& cache = *shard.cache;
    if (cache.has(place.member, block, block + 1) && array.holds(place.member, place.stripe)) {
        cache.copy(place.member, block, to.data());
        co_return Result<void>{};
    }
    co_return co_await read_locked(array, shard, lba, to);
}

/// A write that begins or ends inside a block, with the rest of it.
Task<Result<void>> write_part(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    WholeBlocks whole(lba, from);
    CO_TRY_VOID(
        co_await whole.fill(array, [&](Lba block, Slice to) { return read_for_write(array, shard, block, to); }));
    const Slice all = whole.slice();
    co_return co_await write_locked(array, shard, whole.lba(), {all.sectors(), all, {}}, options);
}
}  // namespace

Task<Result<void>> write_stripe(ArrayBody& array, Shard& shard, Lba lba, Slice from, WriteOptions options) {
    HeldWrite held{lba, from, options};
    const StripeIndex stripe = array.geometry.stripe_of(lba);
    if (shard.plug.hold(held, array.geometry.row_sectors(), shard.writes_in_flight > 1)) {
        co_await held.resumed();
        if (held.leads) {
            co_await write_held(array, shard, stripe);
        }
        co_return std::move(held.result);
    }
    const StripePlug::AtWork at_work(shard.plug, stripe);
    IntervalLock::Guard guard;
    if (!active(TestSwitch::kNoStripeLock)) {
        guard = co_await shard.lock.acquire(stripe.value, stripe.value);
    }
    if (array.checksums() == nullptr || (from.head() == 0 && from.size() % kBlockBytes == 0)) {
        co_return co_await write_locked(array, shard, lba, {from.sectors(), from, {}}, options);
    }
    co_return co_await write_part(array, shard, lba, from, options);
}

namespace {
/// REQUIRES: the stripe's lock is held.
Task<Result<void>> repair_locked(ArrayBody& array, Shard& shard, Lba lba, Slice from) {
    if (array.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array.name + " is read-only");
    }
    StripeWriter writer(array, shard, lba, {from.sectors(), from, {}}, {});
    writer.set_repair();
    co_return co_await writer.whole(/*widen=*/false);
}

Task<Result<void>> repair_stripe(ArrayBody& array, Shard& shard, Lba lba, Slice from) {
    const std::uint64_t stripe = array.geometry.stripe_of(lba).value;
    const auto guard = co_await shard.lock.acquire(stripe, stripe);
    if (array.checksums() == nullptr || (from.head() == 0 && from.size() % kBlockBytes == 0)) {
        co_return co_await repair_locked(array, shard, lba, from);
    }
    WholeBlocks whole(lba, from);
    CO_TRY_VOID(co_await whole.fill(array, [&](Lba block, Slice to) { return read_locked(array, shard, block, to); }));
    co_return co_await repair_locked(array, shard, whole.lba(), whole.slice());
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
