// SPDX-License-Identifier: Apache-2.0
#include "raid/checksums.hpp"

#include <algorithm>

#include "raid/array_body.hpp"

namespace gemel::raid::detail {

namespace {

constexpr std::string_view kPageMissed = "a page of the checksum map could not be written";

std::uint32_t entry_of(ConstBytes data, std::uint64_t column_block, std::uint32_t slot) {
    return checksum_entry(block_sum(data), column_block, slot);
}

}  // namespace

void copy_part(Slice whole, std::size_t skip, Slice to) {
    for (std::size_t b = 0; b < to.blocks().size(); ++b) {
        if (whole.blocks()[b].status == BlockStatus::kUnreadable) {
            to.mark(b, BlockStatus::kUnreadable);
            continue;
        }
        const MutableBytes part = to.block_data(b);
        std::ranges::copy(whole.block_data(b).subspan(b == 0 ? skip : 0, part.size()), part.begin());
        to.blocks()[b] = BlockInfo{};
    }
}

Checksums::Checksums(ArrayBody& array, ChecksumOrigin origin, std::uint64_t start, const AreaRecord& area,
                     std::uint64_t cache_bytes)
    : array_(array), layout_(ChecksumLayout::of(array.geometry)) {
    const std::size_t shards = array.shards.size();
    const std::uint64_t pages = std::min(cache_bytes / kChecksumPageBytes, layout_.pages()) / shards + 1;
    for (std::size_t i = 0; i < shards; ++i) {
        maps_.push_back(std::make_unique<ChecksumMap>(array, layout_, origin, start, area, pages));
    }
}

std::uint64_t Checksums::column_block(std::uint32_t member, Lba member_lba) const {
    const Geometry& g = array_.geometry;
    const Lba column = g.parities() > 0 ? member_lba : *g.lba_of(member, member_lba);
    return column.value / kSectorsPerBlock;
}

Shard& Checksums::shard(std::uint64_t column_block) const {
    const std::size_t shards = array_.shards.size();
    return *array_.shards[shards == 1 ? 0 : column_block / layout_.group % shards];
}

/// How many of `blocks` blocks from `block` on are in its page and are compared together.
std::size_t Checksums::together(std::uint64_t block, std::size_t blocks) const {
    return std::min({blocks, kAtOnce, static_cast<std::size_t>(layout_.run_end(block) - block)});
}

/// What the map says of blocks whose page was not at hand. Any executor.
Task<Result<void>> Checksums::fetch(std::uint32_t member, std::uint64_t block, std::span<std::uint32_t> expected,
                                    std::uint32_t reader) {
    Executor& caller = Executor::current();
    const Shard& owner = shard(block);
    ChecksumMap& pages = map(block);
    co_await resume_on(*owner.executor);
    std::ranges::fill(expected, kChecksumUnknown);
    bool any = false;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        any = any || trusted(owner, block + i);
    }
    Result<void> r;
    if (any) {
        r = co_await pages.load_for(layout_.page_of(block), reader);
    }
    for (std::size_t i = 0; any && r && i < expected.size(); ++i) {
        expected[i] = trusted(owner, block + i) ? pages.get(block + i, slot(member)) : kChecksumUnknown;
    }
    co_await resume_on(caller);
    co_return r;
}

/// Those of the blocks `wrong`, as bits, whose columns are trusted. Any executor.
Task<std::uint64_t> Checksums::keep_trusted(std::uint64_t block, std::uint64_t wrong) {
    Executor& caller = Executor::current();
    const Shard& owner = shard(block);
    co_await resume_on(*owner.executor);
    std::uint64_t out = 0;
    for (std::size_t i = 0; i < kAtOnce; ++i) {
        if ((wrong >> i & 1U) != 0 && trusted(owner, block + i)) {
            out |= std::uint64_t{1} << i;
        }
    }
    co_await resume_on(caller);
    co_return out;
}

Task<Result<void>> Checksums::compare(std::uint32_t member, Lba member_lba, Slice to, std::uint32_t reader) {
    const std::uint64_t first = column_block(member, member_lba);
    const std::size_t blocks = to.blocks().size();
    bool all = true;
    Entries entries;
    for (std::size_t b = 0; b < blocks;) {
        const std::uint64_t block = first + b;
        const std::size_t n = together(block, blocks - b);
        const std::span<std::uint32_t> expected = std::span(entries).first(n);
        if (!map(block).peek(block, slot(member), reader, expected)) {
            CO_TRY_VOID(co_await fetch(member, block, expected, reader));
        }
        std::uint64_t wrong = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const bool known = to.blocks()[b + i].status != BlockStatus::kUnreadable;
            if (known && expected[i] != kChecksumUnknown &&
                entry_of(to.block_data(b + i), block + i, slot(member)) != expected[i]) {
                wrong |= std::uint64_t{1} << i;
            }
        }
        wrong = wrong == 0 ? 0 : co_await keep_trusted(block, wrong);
        for (std::size_t i = 0; i < n; ++i) {
            if ((wrong >> i & 1U) != 0) {
                to.mark(b + i, BlockStatus::kUnreadable);
                all = false;
            }
        }
        b += n;
    }
    if (!all) {
        co_return fail(Errc::kMediumError, array_.member_subject(member) + ": blocks near sector " +
                                               std::to_string(member_lba.value) + " do not match their checksums");
    }
    co_return Result<void>{};
}

// ---- what is written

/// Block `index` of `from` is on its way to the member, or would be if it were there.
void Checksums::enter(std::uint32_t member, std::uint64_t block, Slice from, std::size_t index) {
    const MutableBytes data = from.block_data(index);
    const bool whole = data.size() == kBlockBytes;
    CHECK(whole || !trusted(shard(block), block) || array_.replaying());  // CS6
    map(block).set(block, slot(member), whole ? entry_of(data, block, slot(member)) : kChecksumUnknown);
}

Task<Result<void>> Checksums::prepare(std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t block = first; block < end; block = layout_.run_end(block)) {
        CO_TRY_VOID(co_await map(block).load(layout_.page_of(block)));
    }
    co_return Result<void>{};
}

bool Checksums::note_now(std::uint32_t member, Lba member_lba, Slice from) {
    const std::uint64_t first = column_block(member, member_lba);
    const std::size_t blocks = from.blocks().size();
    const std::uint64_t page = layout_.page_of(first);
    if (layout_.page_of(first + blocks - 1) != page || !map(first).loaded(page)) {
        return false;
    }
    for (std::size_t b = 0; b < blocks; ++b) {
        enter(member, first + b, from, b);
    }
    return true;
}

Task<Result<void>> Checksums::note(std::uint32_t member, Lba member_lba, Slice from) {
    const std::uint64_t first = column_block(member, member_lba);
    const std::size_t blocks = from.blocks().size();
    for (std::size_t b = 0; b < blocks;) {
        const std::uint64_t page = layout_.page_of(first + b);
        CO_TRY_VOID(co_await map(first + b).load(page));
        for (; b < blocks && layout_.page_of(first + b) == page; ++b) {
            enter(member, first + b, from, b);
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Checksums::forget(std::uint32_t member, Lba member_lba, SectorCount sectors) {
    const std::uint64_t first = column_block(member, member_lba);
    const std::uint64_t end = first + Slice::block_count(bytes_of(sectors), byte_offset(member_lba) % kBlockBytes);
    for (std::uint64_t block = first; block < end;) {
        const std::uint64_t page = layout_.page_of(block);
        CO_TRY_VOID(co_await map(block).load(page));
        for (; block < end && layout_.page_of(block) == page; ++block) {
            map(block).set(block, slot(member), kChecksumUnknown);
        }
    }
    co_return Result<void>{};
}

// ---- what is durable

Task<Result<void>> Checksums::write_back() {
    std::uint32_t missed = 0;
    std::optional<Error> error;
    for (const auto& owner : array_.shards) {
        co_await resume_on(*owner->executor);
        Result<void> r = co_await maps_[owner->index]->write_back();
        missed |= maps_[owner->index]->take_missed();
        if (!r && !error) {
            error.emplace(std::move(r).error());
        }
    }
    co_await resume_on(array_.home);
    CO_TRY_VOID(co_await array_.fail_members(missed, kPageMissed));
    co_return error ? Result<void>(std::unexpected(*std::move(error))) : Result<void>();
}

Task<Result<Checksums::Copied>> Checksums::copy_pages(Shard& owner, std::uint32_t place, std::uint64_t page) {
    ChecksumMap& pages = *maps_[owner.index];
    const std::size_t shards = array_.shards.size();
    Copied out{page, 0};
    MemberFan fan;
    for (; out.next < layout_.pages() && out.pages < MemberFan::kSlots; ++out.next) {
        if (out.next / layout_.pages_per_group() % shards == owner.index && layout_.lies_on(out.next, place)) {
            fan.start(out.pages++, pages.renew(out.next));
        }
    }
    co_await fan.all();
    const Result<void> r = co_await pages.write_back();
    CO_TRY_VOID(co_await array_.fail_members(pages.take_missed(), kPageMissed));
    CO_TRY_VOID(r);
    if (fan.failed()) {
        co_return std::unexpected(fan.first_error());
    }
    co_return out;
}

std::uint64_t Checksums::cached_bytes() const {
    std::uint64_t out = 0;
    for (const auto& m : maps_) {
        out += m->cached() * kChecksumPageBytes;
    }
    return out;
}

}  // namespace gemel::raid::detail
