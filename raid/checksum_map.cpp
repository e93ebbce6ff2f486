// SPDX-License-Identifier: Apache-2.0
#include "raid/checksum_map.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid::detail {

namespace {
constexpr std::size_t kSavesAtOnce = 16;
constexpr unsigned kPageBits = 44;  ///< of a tag, below the version
constexpr std::uint64_t kPageMask = (std::uint64_t{1} << kPageBits) - 1;

std::uint64_t spread(std::uint64_t page) {
    return page * 0x9e3779b97f4a7c15ULL >> 32U;
}
}  // namespace

ChecksumMap::ChecksumMap(ArrayBody& array, const ChecksumLayout& layout, ChecksumOrigin origin, std::uint64_t start,
                         const AreaRecord& area, std::size_t most_pages)
    : array_(array),
      layout_(layout),
      origin_(origin),
      area_pages_(area.sectors.value / kSectorsPerBlock),
      sets_(std::max<std::size_t>(1, most_pages / kWays)),
      ways_(std::make_unique<Way[]>(sets_ * kWays)),
      stamp_{start, 0} {
    for (std::uint32_t m = 0; m < layout.members; ++m) {
        areas_[m] = area.lba + array.superblock().area_shift(m);
    }
}

std::span<ChecksumMap::Way> ChecksumMap::set_of(std::uint64_t page) const {
    return {&ways_[spread(page) % sets_ * kWays], kWays};
}

ChecksumMap::Way* ChecksumMap::find(std::uint64_t page) const {
    for (Way& way : set_of(page)) {
        if (way.taken && way.page == page) {
            return &way;
        }
    }
    return nullptr;
}

ChecksumMap::Way& ChecksumMap::at(std::uint64_t page) const {
    Way* way = find(page);
    CHECK(way != nullptr && !way->loading);
    return *way;
}

/// CM3. REQUIRES: the page is there.
bool ChecksumMap::serves(const Way& way, std::uint32_t member) {
    const std::uint32_t sources = way.sources.load(std::memory_order_relaxed);
    if (member == kAllCopies || sources == kAllCopies) {
        return sources == kAllCopies;
    }
    return (sources & ~(1U << member)) != 0;
}

/// What the area has no room for lies in front of the data that was added.
Lba ChecksumMap::lba_of(const ChecksumLayout::Place& place) const {
    if (!place.added && place.index < area_pages_) {
        return areas_[place.member] + place.index * kSectorsPerBlock;
    }
    return array_.geometry.added.map_page(place.index - (place.added ? 0 : area_pages_));
}

// ---- readers

bool ChecksumMap::peek(std::uint64_t block, std::uint32_t slot, std::uint32_t member,
                       std::span<std::uint32_t> out) const {
    const std::uint64_t page = layout_.page_of(block);
    for (const Way& way : set_of(page)) {
        if (active(TestSwitch::kMapBlind)) {
            return false;
        }
        const std::uint64_t tag = way.tag.load(std::memory_order_acquire);
        if ((tag & kPageMask) != page + 1) {
            continue;
        }
        const bool fits = serves(way, member);
        std::size_t entry = layout_.entry(block, slot);
        for (std::uint32_t& o : out) {
            o = (*way.entries)[entry].load(std::memory_order_relaxed);
            entry += layout_.slots;
        }
        std::atomic_thread_fence(std::memory_order_acquire);
        return fits && way.tag.load(std::memory_order_relaxed) == tag;
    }
    return false;
}

void ChecksumMap::publish(Way& way, const ChecksumEntries& entries, std::uint32_t sources) {
    way.tag.store(0, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t i = 0; i < kChecksumEntries; ++i) {
        (*way.entries)[i].store(entries[i], std::memory_order_relaxed);
    }
    way.sources.store(sources, std::memory_order_relaxed);
    way.tag.store(++way.version << kPageBits | (way.page + 1), std::memory_order_release);
}

// ---- loading

bool ChecksumMap::loaded(std::uint64_t page) const {
    const Way* way = find(page);
    return way != nullptr && !way->loading && serves(*way, kAllCopies) && !crowded(*way);
}

/// CM6. It may not become dirty now.
bool ChecksumMap::crowded(const Way& way) const {
    const auto full = [&way](const Way& w) { return &w == &way || w.dirty || w.writing; };  // a write may fail
    return !way.dirty && std::ranges::all_of(set_of(way.page), full);
}

Task<Result<void>> ChecksumMap::load_for(std::uint64_t page, std::uint32_t member) {
    return bring(page, member);
}

Task<Result<void>> ChecksumMap::load(std::uint64_t page) {
    return bring(page, kAllCopies);
}

Task<Result<void>> ChecksumMap::bring(std::uint64_t page, std::uint32_t member) {
    for (;;) {
        Way* way = find(page);
        if (way != nullptr && way->loading) {
            co_await changed_.wait();
            continue;
        }
        if (way == nullptr) {
            CO_TRY(way, co_await claim(page));
            if (way == nullptr) {
                continue;  // it waited: another one may have brought the page
            }
        } else if (serves(*way, member)) {
            way->recent = true;
            if (member != kAllCopies || !crowded(*way)) {
                co_return Result<void>{};
            }
            const auto unsaved = [](const Way& w) { return w.dirty && !w.writing; };
            const std::span<Way> set = set_of(page);
            if (const auto other = std::ranges::find_if(set, unsaved); other != set.end()) {
                CO_TRY_VOID(co_await save_for_room(*other));
            } else {
                co_await changed_.wait();
            }
            continue;
        }
        way->loading = true;
        const Result<void> r = co_await fill(*way, member);
        way->loading = false;
        if (!r && way->tag.load(std::memory_order_relaxed) == 0) {
            way->taken = false;
            cached_.fetch_sub(1, std::memory_order_relaxed);
        }
        wake();
        CO_TRY_VOID(r);
    }
}

/// A way for the page, without data yet; nullptr after waiting for one.
Task<Result<ChecksumMap::Way*>> ChecksumMap::claim(std::uint64_t page) {
    const auto usable = [](const Way& w) { return !w.loading && !w.dirty && !w.writing; };
    Way* chosen = nullptr;
    Way* unsaved = nullptr;
    for (Way& way : set_of(page)) {
        const bool better = chosen == nullptr || (chosen->taken && (!way.taken || (chosen->recent && !way.recent)));
        if (usable(way) && better) {
            chosen = &way;
        } else if (way.dirty && !way.writing && !way.loading) {
            unsaved = &way;
        }
    }
    if (chosen == nullptr) {
        if (unsaved != nullptr) {
            CO_TRY_VOID(co_await save_for_room(*unsaved));
        } else {
            co_await changed_.wait();
        }
        co_return nullptr;
    }
    for (Way& way : set_of(page)) {
        way.recent = false;
    }
    if (!chosen->taken) {
        cached_.fetch_add(1, std::memory_order_relaxed);
    }
    chosen->tag.store(0, std::memory_order_relaxed);
    if (!chosen->entries) {
        chosen->entries = std::make_unique<std::array<std::atomic<std::uint32_t>, kChecksumEntries>>();
    }
    chosen->page = page;
    chosen->taken = true;
    chosen->sources.store(0, std::memory_order_relaxed);
    co_return chosen;
}

Task<Result<void>> ChecksumMap::save_for_room(Way& way) {
    const Result<void> r = co_await save(way);
    CO_TRY_VOID(co_await array_.fail_members(take_missed(), "a page of the checksum map could not be written"));
    co_return r;
}

std::uint32_t ChecksumMap::holders_in_sync(std::uint64_t page) const {
    std::uint32_t out = 0;
    for (std::uint32_t c = 0; c < layout_.copies; ++c) {
        const std::uint32_t m = layout_.place(page, c).member;
        out |= array_.in_sync(m) ? 1U << m : 0;
    }
    return out;
}

/// Brings the page into its way. A page that one copy does not know is asked for at all of them.
Task<Result<void>> ChecksumMap::fill(Way& way, std::uint32_t member) {
    Found found;
    std::uint32_t sources = kAllCopies;
    const bool one = layout_.copies > 1 && member != kAllCopies && way.tag.load(std::memory_order_relaxed) == 0;
    if (const std::uint32_t others = one ? holders_in_sync(way.page) & ~(1U << member) : 0; others != 0) {
        sources = 1U << std::countr_zero(std::rotr(others, static_cast<int>(way.page % layout_.members)));
        sources = std::rotl(sources, static_cast<int>(way.page % layout_.members));
        CO_TRY_VOID(co_await ask(way.page, sources, found));
    }
    if (!found.whole()) {
        sources = kAllCopies;
        for (std::uint32_t asked = ~0U; asked != holders_in_sync(way.page);) {  // one lost or admitted meanwhile counts
            asked = holders_in_sync(way.page);
            found = {};
            CO_TRY_VOID(co_await ask(way.page, asked, found));
        }
    }
    if (!found.whole() && found.unread) {
        co_return fail(Errc::kIo, "array " + array_.name + ": no copy of page " + std::to_string(way.page) +
                                      " of the checksum map can be read now");
    }
    if (!found.whole() && found.damaged) {
        array_.note_lost_page(way.page);
    }
    publish(way, found.entries, sources);
    if (sources == kAllCopies && found.odd && !found.empty() && !array_.read_only() && !crowded(way)) {
        make_dirty(way);
    }
    co_return Result<void>{};
}

void ChecksumMap::take(std::uint64_t page, std::span<const std::byte, kChecksumPageBytes> copy, Found& found) const {
    for (std::size_t unit = 0; unit < kChecksumUnits; ++unit) {
        ChecksumEntries entries;
        const Result<ChecksumStamp> stamp = decode_checksum_unit(origin_, page, unit, copy, entries);
        if (!stamp) {
            found.damaged = found.damaged || stamp.error().code != Errc::kNotFound;
            found.odd = true;
            continue;
        }
        const bool first = found.copies[unit]++ == 0;
        found.odd = found.odd || (!first && *stamp != found.stamps[unit]);
        if (first || *stamp > found.stamps[unit]) {
            found.stamps[unit] = *stamp;
            const auto part = std::span(entries).subspan(unit * kChecksumUnitEntries, kChecksumUnitEntries);
            std::ranges::copy(part, found.entries.begin() + static_cast<std::ptrdiff_t>(unit * kChecksumUnitEntries));
        }
    }
}

/// Reads the copies on `members`.
Task<Result<void>> ChecksumMap::ask(std::uint64_t page, std::uint32_t members, Found& found) {
    std::array<Buffer, kMaxMembers> buffers;
    std::array<Slice, kMaxMembers> slices;
    MemberFan fan;
    for (std::uint32_t c = 0; c < layout_.copies; ++c) {
        const ChecksumLayout::Place place = layout_.place(page, c);
        if ((members >> place.member & 1U) != 0) {
            CO_TRY(buffers[c], co_await array_.allocate(kChecksumPageBytes));
        }
    }
    for (std::uint32_t c = 0; c < layout_.copies; ++c) {
        if (!buffers[c]) {
            continue;
        }
        const ChecksumLayout::Place place = layout_.place(page, c);
        slices[c] = buffers[c].slice(kChecksumPageBytes, lba_of(place));
        slices[c].clear_infos();
        fan.start(c, read_twice(array_.members[place.member].device->areas(), lba_of(place), slices[c]));
    }
    co_await fan.all();
    for (std::uint32_t c = 0; c < layout_.copies; ++c) {
        if (!buffers[c]) {
            continue;
        }
        if (const auto code = fan.failure(c)) {
            const std::uint32_t m = layout_.place(page, c).member;
            co_await array_.note_read_error(m, *code);
            if (array_.in_sync(m)) {  // one that has failed for it will not be asked again
                found.unread = found.unread || *code != Errc::kMediumError;
                found.damaged = true;
                found.odd = true;
            }
            continue;
        }
        take(page, slices[c].data().first<kChecksumPageBytes>(), found);
    }
    co_return Result<void>{};
}

// ---- changing

std::uint32_t ChecksumMap::get(std::uint64_t block, std::uint32_t slot) const {
    const Way& way = at(layout_.page_of(block));
    if (active(TestSwitch::kMapBlind)) {
        return kChecksumUnknown;
    }
    return (*way.entries)[layout_.entry(block, slot)].load(std::memory_order_relaxed);
}

void ChecksumMap::set(std::uint64_t block, std::uint32_t slot, std::uint32_t entry) {
    Way& way = at(layout_.page_of(block));
    CHECK(serves(way, kAllCopies));
    std::atomic<std::uint32_t>& e = (*way.entries)[layout_.entry(block, slot)];
    if (e.load(std::memory_order_relaxed) != entry) {
        e.store(entry, std::memory_order_relaxed);
        make_dirty(way);
    }
}

Task<Result<void>> ChecksumMap::renew(std::uint64_t page) {
    CO_TRY_VOID(co_await load(page));
    make_dirty(at(page));
    co_return Result<void>{};
}

void ChecksumMap::make_dirty(Way& way) {
    way.dirty = true;
    if (!std::exchange(way.queued, true)) {
        dirty_.push_back(&way);
    }
}

// ---- writing

Task<Result<void>> ChecksumMap::write_copies(const Way& way) {
    CO_TRY(const Buffer buffer, co_await array_.allocate(kChecksumPageBytes));
    ChecksumEntries entries;
    for (std::size_t i = 0; i < kChecksumEntries; ++i) {
        entries[i] = (*way.entries)[i].load(std::memory_order_relaxed);
    }
    ++stamp_.number;
    encode_checksum_page(origin_, way.page, stamp_, entries, buffer.memory().first<kChecksumPageBytes>());
    const Slice slice = buffer.slice(kChecksumPageBytes, Lba(0));
    slice.clear_infos();
    MemberFan fan;
    std::uint32_t started = 0;
    for (std::uint32_t c = 0; c < layout_.copies; ++c) {
        const ChecksumLayout::Place place = layout_.place(way.page, c);
        if (array_.takes_writes(place.member)) {
            started |= 1U << place.member;
            fan.start(place.member, array_.members[place.member].device->areas().write(lba_of(place), slice, {}));
        }
    }
    co_await fan.all();
    std::uint32_t failed = 0;
    for (std::uint32_t m = 0; m < layout_.members; ++m) {
        failed |= fan.failure(m) ? 1U << m : 0;
    }
    missed_ |= failed;
    if (failed == started) {
        co_return fail(Errc::kIo, "array " + array_.name + ": no copy of page " + std::to_string(way.page) +
                                      " of the checksum map could be written");
    }
    co_return Result<void>{};
}

/// CM4. REQUIRES: dirty, not being written.
Task<Result<void>> ChecksumMap::save(Way& way) {
    if (array_.read_only()) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + " is read-only: its checksum map stays as it is");
    }
    way.writing = true;
    way.dirty = false;
    in_flight_.push_back(&way);
    Result<void> r = co_await write_copies(way);
    way.writing = false;
    std::erase(in_flight_, &way);
    if (!r) {
        make_dirty(way);
    }
    wake();
    co_return r;
}

Task<Result<void>> ChecksumMap::write_back() {
    const auto turn = co_await write_backs_.lock();
    std::vector<Way*> ways = std::exchange(dirty_, {});
    for (Way* way : ways) {
        way->queued = false;
    }
    ways.insert(ways.end(), in_flight_.begin(), in_flight_.end());
    std::optional<Error> error;
    for (std::size_t i = 0; i < ways.size();) {
        MemberFan fan;
        std::size_t started = 0;
        for (; i < ways.size() && started < kSavesAtOnce; ++i) {
            while (ways[i]->writing) {
                co_await changed_.wait();
            }
            if (ways[i]->dirty && !error) {
                fan.start(started++, save(*ways[i]));
            } else if (ways[i]->dirty) {
                make_dirty(*ways[i]);
            }
        }
        co_await fan.all();
        if (fan.failed() && !error) {
            error.emplace(fan.first_error());
        }
    }
    co_return error ? Result<void>(std::unexpected(*std::move(error))) : Result<void>();
}

}  // namespace gemel::raid::detail
