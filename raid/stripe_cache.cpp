// SPDX-License-Identifier: Apache-2.0
#include "raid/stripe_cache.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "raid/geometry.hpp"

namespace gemel::raid::detail {

namespace {

constexpr std::size_t kMarksPerBlock = 4;  ///< a column is remembered for longer than its blocks are kept
constexpr std::size_t kShare = 4;          ///< one write takes no more than this part of the cache

std::uint64_t mixed(std::uint64_t key) {
    key *= 0x9e3779b97f4a7c15ULL;
    return key ^ (key >> 32U);
}

}  // namespace

StripeCache::StripeCache(std::size_t blocks, const std::atomic<std::uint64_t>& doubts)
    : most_(blocks),
      doubts_(doubts),
      buckets_(std::bit_ceil(blocks)),
      written_(std::bit_ceil(blocks * kMarksPerBlock)) {}

std::uint64_t StripeCache::key_of(std::uint32_t member, std::uint64_t block) {
    return block * kMaxMembers + member;
}

StripeCache::Entry*& StripeCache::bucket(std::uint64_t key) {
    return buckets_[mixed(key) & (buckets_.size() - 1)];
}

StripeCache::Entry* StripeCache::find(std::uint64_t key) {
    Entry* e = bucket(key);
    while (e != nullptr && e->key != key) {
        e = e->chain;
    }
    return e;
}

/// KC3.
void StripeCache::heed_doubts() {
    if (const std::uint64_t now = doubts(); now != heeded_) {
        clear();
        heeded_ = now;
    }
}

bool StripeCache::note_write(std::uint64_t first, std::uint64_t end, std::size_t members) {
    if ((end - first) * members * kShare > most_) {
        return false;
    }
    const std::uint64_t hash = mixed(first);
    const std::uint32_t mark = static_cast<std::uint32_t>(hash >> 32U) | 1U;
    return std::exchange(written_[hash & (written_.size() - 1)], mark) == mark;
}

bool StripeCache::has(std::uint32_t member, std::uint64_t first, std::uint64_t end) {
    heed_doubts();
    bool all = oldest_ != nullptr;
    for (std::uint64_t b = first; all && b < end; ++b) {
        all = find(key_of(member, b)) != nullptr;
    }
    return all;
}

Buffer StripeCache::take(std::uint32_t member, std::uint64_t block) {
    Entry* e = find(key_of(member, block));
    CHECK(e != nullptr);
    Buffer out = std::move(e->memory);
    drop(*e);
    count_hit();
    return out;
}

void StripeCache::copy(std::uint32_t member, std::uint64_t block, MutableBytes to) {
    Entry* e = find(key_of(member, block));
    CHECK(e != nullptr);
    std::ranges::copy(e->memory.memory().first(kBlockBytes), to.begin());
    unlink(*e);
    link_newest(*e);
    count_hit();
}

void StripeCache::put(std::uint32_t member, std::uint64_t block, Buffer memory, std::uint64_t since) {
    heed_doubts();
    if (most_ == 0 || heeded_ != since) {
        return;
    }
    const std::uint64_t key = key_of(member, block);
    if (Entry* e = find(key)) {
        e->memory = std::move(memory);
        return;
    }
    if (held_.load(std::memory_order_relaxed) >= most_) {
        drop(*oldest_);
    }
    if (unused_ == nullptr) {
        unused_ = &entries_.emplace_back();
    }
    Entry& e = *std::exchange(unused_, unused_->chain);
    e.key = key;
    e.memory = std::move(memory);
    e.chain = std::exchange(bucket(key), &e);
    link_newest(e);
    held_.store(held_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void StripeCache::link_newest(Entry& entry) {
    entry.newer = nullptr;
    entry.older = std::exchange(newest_, &entry);
    (entry.older == nullptr ? oldest_ : entry.older->newer) = &entry;
}

void StripeCache::unlink(Entry& entry) {
    (entry.older == nullptr ? oldest_ : entry.older->newer) = entry.newer;
    (entry.newer == nullptr ? newest_ : entry.newer->older) = entry.older;
}

void StripeCache::drop(Entry& entry) {
    Entry** at = &bucket(entry.key);
    while (*at != &entry) {
        at = &(*at)->chain;
    }
    *at = entry.chain;
    unlink(entry);
    entry.memory = Buffer();
    entry.chain = std::exchange(unused_, &entry);
    held_.store(held_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
}

void StripeCache::forget(std::uint32_t member, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t b = first; oldest_ != nullptr && b < end; ++b) {
        if (Entry* e = find(key_of(member, b))) {
            drop(*e);
        }
    }
}

void StripeCache::forget_columns(std::uint32_t members, std::uint64_t first, std::uint64_t end) {
    for (std::uint32_t m = 0; m < members; ++m) {
        forget(m, first, end);
    }
}

void StripeCache::clear() {
    while (oldest_ != nullptr) {
        drop(*oldest_);
    }
}

void StripeCache::count_hit() {
    hits_.store(hits_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace gemel::raid::detail
