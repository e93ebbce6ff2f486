// SPDX-License-Identifier: Apache-2.0
#include "raid/stripe_plug.hpp"

#include <algorithm>
#include <span>

#include "raid/stripe.hpp"

namespace gemel::raid::detail {

StripePlug::Entry* StripePlug::find(std::uint64_t stripe) const {
    Entry* e = buckets_[stripe % kBuckets];
    while (e != nullptr && e->stripe != stripe) {
        e = e->next;
    }
    return e;
}

StripePlug::Entry& StripePlug::make(std::uint64_t stripe) {
    if (unused_ == nullptr) {
        entries_.push_back(std::make_unique<Entry>());
        unused_ = entries_.back().get();
    }
    Entry& e = *unused_;
    unused_ = e.next;
    e = Entry{};
    e.stripe = stripe;
    e.next = std::exchange(buckets_[stripe % kBuckets], &e);
    return e;
}

void StripePlug::drop(Entry& entry) {
    Entry** link = &buckets_[entry.stripe % kBuckets];
    while (*link != &entry) {
        link = &(*link)->next;
    }
    *link = entry.next;
    entry.next = std::exchange(unused_, &entry);
}

void StripePlug::begin(StripeIndex stripe) {
    Entry* e = find(stripe.value);
    ++(e == nullptr ? make(stripe.value) : *e).at_work;
}

void StripePlug::end(StripeIndex stripe) {
    Entry* e = find(stripe.value);
    CHECK(e != nullptr && e->at_work > 0);
    --e->at_work;
    note_end(*e);
    if (Entry* after = find(stripe.value + 1)) {
        note_end(*after);
    }
    if (e->at_work == 0 && e->first == nullptr) {
        drop(*e);
    }
}

/// SP1, SP2.
void StripePlug::note_end(Entry& entry) {
    if (entry.first == nullptr || entry.released) {
        return;
    }
    ++entry.ends;
    const Entry* before = entry.stripe == 0 ? nullptr : find(entry.stripe - 1);
    const bool alone = entry.at_work == 0 && (before == nullptr || before->at_work == 0);
    if (alone || entry.ends >= kPatience) {
        release(entry);
    }
}

void StripePlug::release(Entry& entry) {
    if (entry.released) {
        return;
    }
    entry.released = true;
    ++entry.at_work;
    entry.first->leads = true;
    Executor::current().post(entry.first->resume);
}

bool StripePlug::hold(HeldWrite& write, std::uint64_t row, bool others) {
    const std::uint64_t stripe = write.lba.value / row;
    const std::uint64_t sectors = write.from.sectors().value;
    if (sectors == row || !others) {
        return false;
    }
    Entry* e = find(stripe);
    if (e == nullptr) {
        const Entry* before = stripe == 0 || write.lba.value % row != 0 ? nullptr : find(stripe - 1);
        if (before == nullptr || before->at_work == 0) {
            return false;
        }
    }
    bool joins = write.lba.value % kSectorsPerBlock == 0 && sectors % kSectorsPerBlock == 0 && write.from.head() == 0;
    if (e != nullptr && e->first != nullptr) {
        const WriteOptions& options = e->first->options;
        joins = joins && options == write.options;
    }
    if (!joins) {
        if (e != nullptr && e->first != nullptr) {
            release(*e);
        }
        return false;
    }
    if (e == nullptr) {
        e = &make(stripe);
    }
    write.next = nullptr;
    (e->first == nullptr ? e->first : e->last->next) = &write;
    e->last = &write;
    e->held_sectors += sectors;
    if (e->held_sectors >= row) {
        release(*e);
    }
    return true;
}

bool StripePlug::full(StripeIndex stripe, std::uint64_t row) {
    const Entry* e = find(stripe.value);
    return e != nullptr && e->held_sectors >= row;
}

HeldWrite* StripePlug::take(StripeIndex stripe) {
    Entry* e = find(stripe.value);
    CHECK(e != nullptr && e->released);
    e->released = false;
    e->ends = 0;
    e->held_sectors = 0;
    e->last = nullptr;
    return std::exchange(e->first, nullptr);
}

namespace {

using Writes = std::span<HeldWrite* const>;

/// The data of one strip of a run of writes that follow one another: straight from the only write that has all of it,
/// or copied together with its checksums.
Task<Result<Slice>> strip_of(ArrayBody& array, Writes run, std::uint64_t begin, std::uint64_t end, Buffer& copy) {
    const auto first = std::ranges::find_if(run, [&](const HeldWrite* w) { return w->end() > begin; });
    if ((*first)->end() >= end) {
        co_return (*first)->from.sub((begin - (*first)->lba.value) * kSectorBytes, (end - begin) * kSectorBytes);
    }
    const std::size_t bytes = (end - begin) * kSectorBytes;
    CO_TRY(copy, co_await array.allocate(bytes));
    const Slice whole = copy.slice(bytes, Lba(0));
    for (auto w = first; w != run.end() && (*w)->lba.value < end; ++w) {
        const std::uint64_t from = std::max(begin, (*w)->lba.value);
        const std::uint64_t to = std::min(end, (*w)->end());
        const Slice source = (*w)->from.sub((from - (*w)->lba.value) * kSectorBytes, (to - from) * kSectorBytes);
        const Slice part = whole.sub((from - begin) * kSectorBytes, source.size());
        std::ranges::copy(source.data(), part.data().begin());
        std::ranges::copy(source.blocks(), part.blocks().begin());
    }
    co_return whole;
}

/// Writes that follow one another, as one.
Task<Result<void>> write_joined(ArrayBody& array, Shard& shard, Writes run) {
    const Lba lba = run.front()->lba;
    const std::uint64_t end = run.back()->end();
    const std::uint64_t strip = array.geometry.strip_sectors;
    std::array<Buffer, kMaxMembers> copies;
    std::array<Slice, kMaxMembers> strips;
    std::size_t n = 0;
    for (std::uint64_t at = lba.value; at < end; ++n) {
        const std::uint64_t strip_end = std::min(end, at / strip * strip + strip);
        CO_TRY(strips[n], co_await strip_of(array, run, at, strip_end, copies[n]));
        at = strip_end;
    }
    const StripeData data{SectorCount(end - lba.value), {}, std::span(strips).first(n)};
    co_return co_await write_locked(array, shard, lba, data, run.front()->options);
}

Task<void> write_run(ArrayBody& array, Shard& shard, Writes run) {
    if (run.size() > 1 && co_await write_joined(array, shard, run)) {
        co_return;
    }
    for (HeldWrite* w : run) {  // SP4
        w->result = co_await write_locked(array, shard, w->lba, {w->from.sectors(), w->from, {}}, w->options);
    }
}

}  // namespace

Task<void> write_held(ArrayBody& array, Shard& shard, StripeIndex stripe) {
    if (!shard.plug.full(stripe, array.geometry.row_sectors())) {
        co_await yield();  // what the end of the writes before has brought about may join
    }
    {
        const auto guard = co_await shard.lock.acquire(stripe.value, stripe.value);
        std::vector<HeldWrite*> writes;
        for (HeldWrite* w = shard.plug.take(stripe); w != nullptr; w = w->next) {
            writes.push_back(w);
        }
        std::ranges::sort(writes, {}, [](const HeldWrite* w) { return w->lba; });
        for (auto at = writes.begin(); at != writes.end();) {
            auto end = at + 1;
            while (end != writes.end() && (*end)->lba.value == (*(end - 1))->end()) {
                ++end;
            }
            co_await write_run(array, shard, Writes(at, end));
            for (; at != end; ++at) {
                if (!(*at)->leads) {
                    Executor::current().post((*at)->resume);
                }
            }
        }
    }
    shard.plug.finish(stripe);
}

}  // namespace gemel::raid::detail
