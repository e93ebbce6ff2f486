// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/arena_pool.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "target/runtime/processor.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#endif

namespace gemel {

namespace {

using Page = std::uint32_t;
constexpr Page kNone = ~Page{0};
constexpr unsigned kOrders = 13;  ///< 4 KiB << order: up to one piece
constexpr unsigned kTop = kOrders - 1;
constexpr Page kPagesPerPiece = ArenaPool::kPieceBytes / kBlockBytes;
static_assert(kPagesPerPiece == 1U << kTop);
constexpr std::uint8_t kNotFree = 0xff;
constexpr std::size_t kCacheSlots = 64;
constexpr std::size_t kCacheBytesPerOrder = 1U << 20U;

constexpr std::size_t bytes_of_order(unsigned order) {
    return std::size_t{kBlockBytes} << order;
}
unsigned order_of(std::size_t bytes) {
    return bytes <= kBlockBytes ? 0 : static_cast<unsigned>(std::bit_width((bytes - 1) / kBlockBytes));
}

/// Reserved addresses, zeros, backed by memory as they are touched.
std::byte* reserve(std::size_t bytes, std::size_t alignment) {
    void* raw =
        ::mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        return nullptr;
    }
    const auto start = reinterpret_cast<std::uintptr_t>(raw);
    const std::uintptr_t aligned = round_up(start, alignment);
    if (aligned > start) {
        ::munmap(raw, aligned - start);
    }
    const std::size_t tail = start + alignment - aligned;
    auto* base = static_cast<std::byte*>(raw) + (aligned - start);
    if (tail > 0) {
        ::munmap(base + bytes, tail);
    }
    return base;
}

/// Blocks by halves within pieces. The caller holds the lock.
struct Arena {
    std::mutex mutex;
    std::array<Page, kOrders> heads;
    std::size_t whole_pieces = 0;  ///< free ones in heads[kTop]
    Arena() { heads.fill(kNone); }
};

/// Free blocks of one processor's thread, without a lock (AP2).
struct alignas(64) Cache {
    std::array<std::array<Page, kCacheSlots>, kOrders> pages{};
    std::array<std::uint8_t, kOrders> count{};
    std::atomic<std::int64_t> out{0};  ///< bytes; written by its thread only
    void note(std::int64_t bytes) { out.store(out.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed); }
};

}  // namespace

struct ArenaPool::Impl {
    std::byte* base = nullptr;
    std::size_t bytes = 0;
    bool huge_pages = false;
    BlockInfo* infos = nullptr;  ///< two per page: a buffer of n pages needs n + 1
    std::size_t infos_bytes = 0;
    std::size_t cache_bytes = 0;

    // By page; guarded by the lock of the arena that has the piece.
    std::vector<std::uint8_t> free_order;
    std::vector<Page> next;
    std::vector<Page> before;

    std::vector<Arena> arenas;
    std::vector<Cache> caches;
    std::atomic<std::int64_t> foreign_out{0};  ///< of threads that are no processor

    std::mutex pieces_mutex;
    std::vector<std::uint32_t> free_pieces;
    std::vector<std::atomic<std::uint32_t>> owner;  ///< arena of each piece in use

    explicit Impl(unsigned count) : arenas(count), caches(count) {}
    ~Impl() {
        if (base != nullptr) {
            ASAN_UNPOISON_MEMORY_REGION(base, bytes);
            ::munmap(base, bytes);
        }
        if (infos != nullptr) {
            ::munmap(static_cast<void*>(infos), infos_bytes);
        }
    }

    [[nodiscard]] std::byte* address(Page page) const { return base + std::size_t{page} * kBlockBytes; }
    [[nodiscard]] Page page_of(const std::byte* p) const {
        return static_cast<Page>(static_cast<std::size_t>(p - base) / kBlockBytes);
    }

    void push(Arena& arena, Page page, unsigned order) {
        free_order[page] = static_cast<std::uint8_t>(order);
        before[page] = kNone;
        next[page] = arena.heads[order];
        if (next[page] != kNone) {
            before[next[page]] = page;
        }
        arena.heads[order] = page;
        arena.whole_pieces += order == kTop ? 1 : 0;
    }
    void unlink(Arena& arena, Page page, unsigned order) {
        (before[page] == kNone ? arena.heads[order] : next[before[page]]) = next[page];
        if (next[page] != kNone) {
            before[next[page]] = before[page];
        }
        free_order[page] = kNotFree;
        arena.whole_pieces -= order == kTop ? 1 : 0;
    }

    bool take_piece(Arena& arena, std::size_t number) {
        std::uint32_t piece = 0;
        {
            const std::lock_guard lock(pieces_mutex);
            if (free_pieces.empty()) {
                return false;
            }
            piece = free_pieces.back();
            free_pieces.pop_back();
        }
        owner[piece].store(static_cast<std::uint32_t>(number), std::memory_order_relaxed);
        if (huge_pages) {
            ::madvise(base + piece * kPieceBytes, kPieceBytes, MADV_HUGEPAGE);
        }
        push(arena, piece * kPagesPerPiece, kTop);
        return true;
    }

    /// kNone if neither the arena nor the common stock has a block. The caller holds the arena's lock.
    Page take(std::size_t number, unsigned order, bool may_grow) {
        Arena& arena = arenas[number];
        unsigned have = order;
        while (have < kOrders && arena.heads[have] == kNone) {
            ++have;
        }
        if (have == kOrders) {
            if (!may_grow || !take_piece(arena, number)) {
                return kNone;
            }
            have = kTop;
        }
        const Page page = arena.heads[have];
        unlink(arena, page, have);
        while (have > order) {
            --have;
            push(arena, page + (Page{1} << have), have);
        }
        return page;
    }

    /// The caller holds the lock of the page's arena.
    void give_back(Arena& arena, Page page, unsigned order) {
        while (order < kTop) {
            const Page buddy = page ^ (Page{1} << order);
            if (free_order[buddy] != order) {
                break;
            }
            unlink(arena, buddy, order);
            page = std::min(page, buddy);
            ++order;
        }
        if (order == kTop && arena.whole_pieces > 0) {
            const std::lock_guard lock(pieces_mutex);  // AP3
            free_pieces.push_back(page / kPagesPerPiece);
            return;
        }
        push(arena, page, order);
    }

    void free_to_owner(Page page, unsigned order) {
        Arena& arena = arenas[owner[page / kPagesPerPiece].load(std::memory_order_relaxed)];
        const std::lock_guard lock(arena.mutex);
        give_back(arena, page, order);
    }

    [[nodiscard]] std::size_t cache_capacity(unsigned order) const {
        return std::min(kCacheSlots, cache_bytes / bytes_of_order(order));
    }

    /// Fills half of the cache's list, so that the lock is taken once for many.
    void refill(Cache& cache, std::size_t number, unsigned order) {
        const std::size_t wanted = std::max<std::size_t>(1, cache_capacity(order) / 2);
        const std::lock_guard lock(arenas[number].mutex);
        while (cache.count[order] < wanted) {
            const Page page = take(number, order, /*may_grow=*/cache.count[order] == 0);
            if (page == kNone) {
                return;
            }
            cache.pages[order][cache.count[order]++] = page;
        }
    }

    void spill(Cache& cache, unsigned order, std::size_t keep) {
        while (cache.count[order] > keep) {
            free_to_owner(cache.pages[order][--cache.count[order]], order);
        }
    }

    Page take_anywhere(unsigned order) {
        for (std::size_t i = 0; i < arenas.size(); ++i) {
            const std::lock_guard lock(arenas[i].mutex);
            if (const Page page = take(i, order, /*may_grow=*/true); page != kNone) {
                return page;
            }
        }
        return kNone;
    }

    /// The cache of this thread; nullptr when it is no processor's.
    Cache* cache_here() {
        const Processor* here = Processor::current_or_null();
        return here != nullptr && here->index() < caches.size() ? &caches[here->index()] : nullptr;
    }

    Page find(unsigned order) {
        Cache* cache = cache_here();
        if (cache == nullptr) {
            return take_anywhere(order);
        }
        if (cache->count[order] == 0) {
            refill(*cache, static_cast<std::size_t>(cache - caches.data()), order);
        }
        if (cache->count[order] > 0) {
            return cache->pages[order][--cache->count[order]];
        }
        for (unsigned o = 0; o < kOrders; ++o) {
            spill(*cache, o, 0);
        }
        return take_anywhere(order);
    }

    void account(std::int64_t change) {
        if (Cache* cache = cache_here(); cache != nullptr) {
            cache->note(change);
        } else {
            foreign_out.fetch_add(change, std::memory_order_relaxed);
        }
    }
};

Result<std::unique_ptr<ArenaPool>> ArenaPool::create(const ArenaOptions& options) {
    CHECK(options.arenas > 0);
    auto impl = std::make_unique<Impl>(options.arenas);
    impl->bytes = round_up(std::max<std::size_t>(options.bytes, 1), kPieceBytes);
    const std::size_t pages = impl->bytes / kBlockBytes;
    impl->infos_bytes = round_up(2 * pages * sizeof(BlockInfo), kBlockBytes);
    impl->base = reserve(impl->bytes, kPieceBytes);
    impl->infos = reinterpret_cast<BlockInfo*>(reserve(impl->infos_bytes, kBlockBytes));
    if (impl->base == nullptr || impl->infos == nullptr) {
        return fail(Errc::kResources, "no address space for " + std::to_string(impl->bytes / kMiB) +
                                          " MiB of buffers: " + std::strerror(errno) + "; lower [daemon] memory");
    }
    // A child process has no use for the buffers, and pages registered with a ring must not be copied on write.
    ::madvise(impl->base, impl->bytes, MADV_DONTFORK);
    ASAN_POISON_MEMORY_REGION(impl->base, impl->bytes);
    impl->huge_pages = options.huge_pages;
    impl->cache_bytes = std::min(kCacheBytesPerOrder, impl->bytes / options.arenas / 64);
    impl->free_order.assign(pages, kNotFree);
    impl->next.assign(pages, kNone);
    impl->before.assign(pages, kNone);
    impl->owner = std::vector<std::atomic<std::uint32_t>>(impl->bytes / kPieceBytes);
    for (std::size_t piece = impl->owner.size(); piece > 0; --piece) {
        impl->free_pieces.push_back(static_cast<std::uint32_t>(piece - 1));
    }
    return std::unique_ptr<ArenaPool>(new ArenaPool(std::move(impl)));
}

ArenaPool::ArenaPool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ArenaPool::~ArenaPool() {
    CHECK(outstanding_bytes() == 0);
}

Result<Buffer> ArenaPool::allocate(std::size_t bytes) {
    if (bytes > kMaxBuffer) {
        return fail(Errc::kInvalidArgument, "a buffer has at most 16 MiB");
    }
    const unsigned order = order_of(bytes);
    const Page page = impl_->find(order);
    if (page == kNone) {
        return fail(Errc::kResources, "the buffer memory of " + std::to_string(impl_->bytes / kMiB) +
                                          " MiB is in use; if that lasts, raise [daemon] memory");
    }
    const std::size_t size = bytes_of_order(order);
    impl_->account(static_cast<std::int64_t>(size));
    const MutableBytes memory(impl_->address(page), size);
    ASAN_UNPOISON_MEMORY_REGION(memory.data(), memory.size());
    const std::span<BlockInfo> infos(impl_->infos + 2 * std::size_t{page}, (std::size_t{1} << order) + 1);
    std::ranges::fill(infos, BlockInfo{});
    return Buffer(*this, memory, infos, page / kPagesPerPiece);
}

void ArenaPool::release(MutableBytes memory, std::span<BlockInfo> /*infos*/, std::uint32_t /*token*/) noexcept {
    const unsigned order = order_of(memory.size());
    const Page page = impl_->page_of(memory.data());
    ASAN_POISON_MEMORY_REGION(memory.data(), memory.size());
    impl_->account(-static_cast<std::int64_t>(memory.size()));
    Cache* cache = impl_->cache_here();
    const std::size_t capacity = impl_->cache_capacity(order);
    if (cache == nullptr || capacity == 0) {
        impl_->free_to_owner(page, order);
        return;
    }
    if (cache->count[order] >= capacity) {
        impl_->spill(*cache, order, capacity / 2);
    }
    cache->pages[order][cache->count[order]++] = page;
}

FixedMemory ArenaPool::fixed_memory() const {
    return {impl_->base, impl_->bytes, kPieceBytes};
}

std::size_t ArenaPool::bound_bytes() const {
    return impl_->bytes;
}

std::size_t ArenaPool::outstanding_bytes() const {
    std::int64_t sum = impl_->foreign_out.load(std::memory_order_relaxed);
    for (const Cache& cache : impl_->caches) {
        sum += cache.out.load(std::memory_order_relaxed);
    }
    return static_cast<std::size_t>(sum);
}

}  // namespace gemel
