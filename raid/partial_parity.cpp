// SPDX-License-Identifier: Apache-2.0
#include "raid/partial_parity.hpp"

#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"
#include "raid/redo_record.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {
constexpr Duration kRetry = std::chrono::milliseconds(20);

std::uint64_t strip_blocks(const Geometry& g) {
    return g.strip_sectors / kSectorsPerBlock;
}
}  // namespace

// ---- what is not flushed: on the shard

std::uint32_t UnflushedStrips::of(std::uint64_t block, std::uint64_t flushed) const {
    const auto at = blocks_.find(block);
    return at == blocks_.end() || at->second.done < flushed ? 0 : at->second.strips;
}

void UnflushedStrips::begin(std::uint64_t block, std::uint32_t strips, std::uint64_t flushed) {
    if (strips != 0) {
        blocks_[block] = {of(block, flushed) | strips, kNever};
    }
}

void UnflushedStrips::end(std::uint64_t first, std::uint64_t end, std::uint64_t flushes, std::uint64_t flushed) {
    for (std::uint64_t b = first; b < end; ++b) {
        if (const auto at = blocks_.find(b); at != blocks_.end()) {
            at->second.done = flushes;
        }
    }
    ended_.push_back({first, end, flushes});
    while (!ended_.empty() && ended_.front().done < flushed) {
        for (std::uint64_t b = ended_.front().first; b < ended_.front().end; ++b) {
            if (const auto at = blocks_.find(b); at != blocks_.end() && at->second.done < flushed) {
                blocks_.erase(at);
            }
        }
        ended_.pop_front();
    }
}

// ---- records

std::uint32_t RedoLog::unflushed(const Shard& shard, std::uint64_t block) const {
    return active(TestSwitch::kPartialForgetful) ? 0 : unflushed_[shard.index].of(block, flushed_.load());
}

/// PP5.
Task<Result<void>> RedoLog::settle_partial(const Shard& shard, WrittenColumns columns) {
    const std::uint64_t end = round_up(columns.end, kSectorsPerBlock) / kSectorsPerBlock;
    std::uint64_t block = columns.first / kSectorsPerBlock;
    while (partial_ && block < end && !active(TestSwitch::kPartialUnflushed)) {
        if (unflushed_[shard.index].of(block, flushed_.load()) == 0) {
            ++block;
            continue;
        }
        Executor& caller = Executor::current();
        co_await resume_on(array_.home);
        const Result<void> r = co_await array_.flush_with_map();
        co_await resume_on(caller);
        CO_TRY_VOID(r);
    }
    co_return Result<void>{};
}

/// Of the blocks that `parity` has at places [first, end).
PartialRecord RedoLog::partial_record(StripeIndex stripe, const PartialParity& parity, std::size_t first,
                                      std::size_t end) {
    const std::uint32_t all = all_data_strips(array_.geometry);
    const std::uint64_t base = stripe.value * strip_blocks(array_.geometry);
    PartialRecord record{stripe, {}, seeds_.fetch_add(1), {}};
    for (std::size_t b = first; b < end;) {
        const std::uint32_t written = parity.written[b];
        std::size_t next = b + 1;
        while (next < end && parity.written[next] == written) {
            ++next;
        }
        const bool tells = parity.bytes && written != all;
        const ConstBytes sum =
            tells ? parity.bytes.memory().subspan(b * kBlockBytes, (next - b) * kBlockBytes) : MutableBytes();
        if (written != 0) {
            record.runs.push_back({static_cast<std::uint32_t>(parity.first + b - base),
                                   static_cast<std::uint32_t>(next - b), tells ? written : all, sum});
        }
        b = next;
    }
    return record;
}

Task<Result<void>> RedoLog::write_partial(Shard& shard, StripeIndex stripe, PartialParity parity,
                                          const MemberWrites& writes, WriteOptions options, bool in_step) {
    UnflushedStrips& unflushed = unflushed_[shard.index];
    const std::size_t blocks = parity.written.size();
    for (std::size_t b = 0; b < blocks; ++b) {
        unflushed.begin(parity.first + b, parity.written[b], flushed_.load());
    }
    const std::size_t room = log_.max_record_bytes() - kRedoHeaderBytes;
    const std::size_t most = std::max<std::size_t>(1, room / (kBlockBytes + kPartialRunBytes));
    Result<void> r;
    for (std::size_t first = 0; r && first < blocks; first += most) {
        const std::size_t end = std::min(blocks, first + most);
        const std::uint64_t from = first == 0 ? 0 : (parity.first + first) * kSectorsPerBlock;
        const std::uint64_t to = end == blocks ? ~std::uint64_t{0} : (parity.first + end) * kSectorsPerBlock;
        const MemberWrites piece = cut(writes, from, to);
        const bool early = active(TestSwitch::kPartialWriteFirst);
        if (early) {
            r = co_await write_members(array_, shard, stripe, piece, options, in_step);
        }
        const Result<Entry*> entry = co_await append(encode(partial_record(stripe, parity, first, end)));
        partial_records_.fetch_add(1, std::memory_order_relaxed);
        if (!entry) {
            r = std::unexpected(entry.error());
        } else if (!early) {
            r = co_await write_members(array_, shard, stripe, piece, options, in_step);
        }
        if (entry && (r || !array_.read_only())) {  // else the next start needs it
            (*entry)->done.store(flushes_.load());
        }
    }
    unflushed.end(parity.first, parity.first + blocks, flushes_.load(), flushed_.load());
    co_return r;
}

bool ArrayBody::partial_parity() const {
    return redo_ && redo_->partial();
}

/// A checkpoint is durable, and with it that missing members are failed: what was there for this start may go.
void ArrayBody::note_untrusted_named() {
    if (!untrusted_named_.exchange(true)) {
        log_->drop_before(kLogClientRedo, replayed_below_);
    }
}

/// PP6.
Task<bool> ArrayBody::await_untrusted_named() {
    if (untrusted_named_) {
        co_return true;
    }
    const auto turn = co_await namings_.lock();  // one checkpoint for all writes that wait
    while (!untrusted_named_ && journal_ && !active(TestSwitch::kPartialUnnamed)) {
        if (stopping() || read_only()) {
            co_return false;
        }
        const Result<void> r = co_await journal_->checkpoint(Sweep::kAllUnused);
        if (!r) {
            co_await sleep_for(env.clock, kRetry);
        }
    }
    co_return true;
}

// ---- the start

/// Of each block of columns the newest record that speaks of it.
class NewestRecords {
  public:
    NewestRecords(const std::vector<LogRecord>& records, const Geometry& geometry) {
        for (const LogRecord& r : records) {
            if (is_partial_record(r.bytes)) {
                const Result<PartialRecord> record = decode_partial_record(r.bytes, geometry);
                CHECK(record);  // it did before
                for (const PartialRun& run : record->runs) {
                    const std::uint64_t first = record->stripe.value * strip_blocks(geometry) + run.first;
                    put(first, first + run.blocks, &r);
                }
                continue;
            }
            const Result<RedoRecord> record = decode_redo_record(r.bytes, geometry);
            CHECK(record);
            for (const RedoPart& part : record->parts) {
                put(part.lba.value / kSectorsPerBlock,
                    round_up(part.lba.value + part.bytes.size() / kSectorBytes, kSectorsPerBlock) / kSectorsPerBlock,
                    nullptr);  // PP5: all before it is in step
            }
        }
    }
    /// nullptr: no partial record counts.
    [[nodiscard]] const LogRecord* partial(std::uint64_t block) const {
        const auto at = blocks_.find(block);
        return at == blocks_.end() ? nullptr : at->second;
    }

  private:
    void put(std::uint64_t first, std::uint64_t end, const LogRecord* record) {
        for (std::uint64_t b = first; b < end; ++b) {
            blocks_[b] = record;
        }
    }
    std::map<std::uint64_t, const LogRecord*> blocks_;
};

namespace {

/// PP3, of blocks [first, end) of columns in one stripe, whose data strip `lost` is on the member that is missing.
class PartialRecovery {
  public:
    PartialRecovery(ArrayBody& array, Shard& shard, StripeIndex stripe, std::uint32_t lost, const NewestRecords& newest)
        : array_(array),
          g_(array.geometry),
          shard_(shard),
          stripe_(stripe),
          lost_(lost),
          parity_member_(g_.parity_member(stripe, 0)),
          newest_(newest) {}

    Task<Result<void>> run(std::uint64_t first, std::uint64_t end) {
        std::vector<std::uint64_t> recorded;
        for (std::uint64_t b = first; b < end; ++b) {
            if (newest_.partial(b) != nullptr) {
                recorded.push_back(b);
            }
        }
        if (!recorded.empty()) {
            const std::uint64_t base = g_.stripe_lba(stripe_).value;
            StripeImage image(array_, stripe_, recorded.front() * kSectorsPerBlock - base,
                              (recorded.back() + 1) * kSectorsPerBlock - base);
            CO_TRY_VOID(co_await image.load());
            for (const std::uint64_t b : recorded) {
                CO_TRY_VOID(co_await recover(image, b));
            }
        }
        for (std::uint64_t b = first; b < end; ++b) {
            if (newest_.partial(b) == nullptr) {
                trust(b);
            }
        }
        co_return Result<void>{};
    }
    [[nodiscard]] std::uint64_t made() const { return made_; }
    [[nodiscard]] std::uint64_t told() const { return told_; }

  private:
    void trust(std::uint64_t block) { array_.trust(shard_, block * kSectorsPerBlock, (block + 1) * kSectorsPerBlock); }
    [[nodiscard]] bool is_written(std::uint32_t strip) const { return (run_.written >> strip & 1U) != 0; }
    [[nodiscard]] static Slice at(const StripeImage& image, std::uint32_t member, std::size_t i) {
        return image.of(member).sub(i * kBlockBytes, kBlockBytes);
    }

    Task<Result<void>> recover(StripeImage& image, std::uint64_t block) {
        if (const LogRecord* newest = newest_.partial(block); newest != decoded_) {  // one is of many blocks, mostly
            CO_TRY(record_, decode_partial_record(newest->bytes, g_));
            decoded_ = newest;
        }
        const std::uint64_t in_strip = block % strip_blocks(g_);
        const auto covers = [&](const PartialRun& r) { return in_strip >= r.first && in_strip < r.first + r.blocks; };
        run_ = *std::ranges::find_if(record_.runs, covers);
        const bool tells = is_written(lost_);
        const bool alone = run_.written == 1U << lost_ || active(TestSwitch::kPartialGuesses);
        if (run_.parity.empty() || (tells && !alone)) {
            co_return Result<void>{};
        }
        const ConstBytes sum = run_.parity.subspan((in_strip - run_.first) * kBlockBytes, kBlockBytes);
        const std::size_t i = block - image.column(0) / kSectorsPerBlock;
        const bool known = tells ? others_are(image, i, sum) : make_parity(image, i, sum);
        if (!known) {
            co_return Result<void>{};  // a block that is bad, too
        }
        CO_TRY_VOID(co_await array_.prepare_map(image.column(i), image.column(i + 1)));
        if (!tells) {
            MemberWrites writes;
            add_write(array_, stripe_, parity_member_, Lba(image.column(i)), at(image, parity_member_, i),
                      SectorCount(kSectorsPerBlock), writes);
            CO_TRY_VOID(co_await write_members(array_, shard_, stripe_, writes, {}));
        }
        CO_TRY_VOID(co_await enter(image, i));
        trust(block);
        ++(tells ? told_ : made_);
        co_return Result<void>{};
    }

    /// The strips that are not written are what they were, and so is the one that parity tells of.
    [[nodiscard]] bool others_are(const StripeImage& image, std::size_t i, ConstBytes sum) const {
        alignas(32) std::array<std::byte, kBlockBytes> there;
        return image.known(parity_member_, i) && fold(image, i, /*written=*/0, {}, there) &&
               std::ranges::equal(there, sum);
    }
    /// Parity is that of the strips that are not written, `sum`, and of the others as they lie.
    [[nodiscard]] bool make_parity(StripeImage& image, std::size_t i, ConstBytes sum) const {
        alignas(32) std::array<std::byte, kBlockBytes> made;
        const bool known = fold(image, i, /*written=*/1, sum, made);
        if (known) {
            std::ranges::copy(made, image.of(parity_member_).block_data(i).begin());
            image.of(parity_member_).blocks()[i] = BlockInfo{};
        }
        return known;
    }
    /// The exclusive or of `first`, if any, and the strips that are written, or those that are not. False: one of them
    /// is not known.
    [[nodiscard]] bool fold(const StripeImage& image, std::size_t i, std::uint32_t written, ConstBytes first,
                            MutableBytes to) const {
        std::array<const std::byte*, kMaxMembers> sources{};
        std::size_t n = 0;
        if (!first.empty()) {
            sources[n++] = first.data();
        }
        for (std::uint32_t s = 0; s < g_.data_members(); ++s) {
            const std::uint32_t m = g_.data_member(stripe_, s);
            if (is_written(s) != (written != 0)) {
                continue;
            }
            if (!image.known(m, i)) {
                return false;
            }
            sources[n++] = image.of(m).block_data(i).data();
        }
        xor_into(to, std::span(sources).first(n));
        return true;
    }

    /// CS2: strips that are not written are as the map says (PP2), the others as they lie. What parity tells of the
    /// missing one may be of several writes.
    Task<Result<void>> enter(const StripeImage& image, std::size_t i) {
        Checksums* sums = array_.checksums();
        const Lba lba(image.column(i));
        if (sums == nullptr) {
            co_return Result<void>{};
        }
        CO_TRY_VOID(co_await sums->note(parity_member_, lba, at(image, parity_member_, i)));
        for (std::uint32_t s = 0; s < g_.data_members(); ++s) {
            const std::uint32_t m = g_.data_member(stripe_, s);
            if (!is_written(s)) {
                continue;
            }
            if (s == lost_) {
                CO_TRY_VOID(co_await sums->forget(m, lba, SectorCount(kSectorsPerBlock)));
            } else {
                CO_TRY_VOID(co_await sums->note(m, lba, at(image, m, i)));
            }
        }
        co_return Result<void>{};
    }

    ArrayBody& array_;
    const Geometry& g_;
    Shard& shard_;
    StripeIndex stripe_;
    std::uint32_t lost_;
    std::uint32_t parity_member_;
    const NewestRecords& newest_;
    const LogRecord* decoded_ = nullptr;  ///< as `record_`
    PartialRecord record_;
    PartialRun run_;  ///< of the block that is looked at
    std::uint64_t made_ = 0;
    std::uint64_t told_ = 0;
};

}  // namespace

/// Columns [first, end) of one stripe. A device that is built and has the stripe already is not asked for: what is
/// there was made up, and flushed, before the cursor said so.
Task<Result<void>> ArrayBody::recover_columns(const NewestRecords& newest, std::uint64_t first, std::uint64_t end) {
    const StripeIndex stripe(first / geometry.strip_sectors);
    const auto lost = static_cast<std::uint32_t>(std::countr_zero(lost_set()));
    Shard& shard = shard_of_stripe(stripe);
    Result<void> r;
    co_await resume_on(*shard.executor);
    if (geometry.parity_member(stripe, 0) != lost && !holds(lost, stripe)) {
        std::uint32_t strip = 0;
        while (geometry.data_member(stripe, strip) != lost) {
            ++strip;
        }
        PartialRecovery recovery(*this, shard, stripe, strip, newest);
        r = co_await recovery.run(first / kSectorsPerBlock, end / kSectorsPerBlock);
        partial_blocks_.fetch_add(recovery.made() + recovery.told());
        partial_told_.fetch_add(recovery.told());
    }
    co_await resume_on(home);
    co_return r;
}

/// PP3. REQUIRES: the records that are to be done again were.
Task<Result<void>> ArrayBody::recover_partial(const Doubts& doubts) {
    if (doubts.partial.empty() || level.parities() != 1 || lost_members() != 1) {
        co_return Result<void>{};
    }
    const NewestRecords newest(doubts.redo, geometry);
    for (const ColumnRange& range : doubts.partial) {
        for (std::uint64_t at = range.first; at < range.end;) {
            const std::uint64_t end =
                std::min(range.end, round_down(at, geometry.strip_sectors) + geometry.strip_sectors);
            CO_TRY_VOID(co_await recover_columns(newest, at, end));
            at = end;
        }
    }
    if (const std::uint64_t blocks = partial_blocks_.load(); blocks > 0) {
        event(Severity::kInfo, "partial-parity-used", "array " + name,
              "what the missing member holds was told from partial parity in " + std::to_string(blocks) +
                  " blocks that were being written");
    }
    co_return Result<void>{};
}

}  // namespace gemel::raid::detail
