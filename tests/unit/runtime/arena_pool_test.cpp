// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/arena_pool.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

using test::RealRuntime;

std::unique_ptr<ArenaPool> make_pool(std::size_t bytes, unsigned arenas = 2) {
    ArenaOptions options;
    options.bytes = bytes;
    options.arenas = arenas;
    auto pool = ArenaPool::create(options);
    CHECK(pool);
    return *std::move(pool);
}

TEST(ArenaPool, BuffersAreAlignedLargeEnoughAndClean) {
    const auto pool = make_pool(64U << 20U);
    for (const std::size_t bytes : {0UL, 1UL, 512UL, 4096UL, 4097UL, 65536UL, 300000UL, 4UL << 20U, 16UL << 20U}) {
        auto buffer = pool->allocate(bytes);
        ASSERT_TRUE(buffer) << bytes;
        EXPECT_GE(buffer->memory().size(), bytes);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->memory().data()) % kBlockBytes, 0U);
        EXPECT_GE(buffer->infos().size(), buffer->memory().size() / kBlockBytes + 1);
        for (BlockInfo& info : buffer->infos()) {
            EXPECT_FALSE(info.has_crc);
            info.has_crc = true;
        }
        std::memset(buffer->memory().data(), 0x5a, buffer->memory().size());
    }
    EXPECT_EQ(pool->outstanding_bytes(), 0U);
    EXPECT_EQ(pool->allocate(ArenaPool::kMaxBuffer + 1).error().code, Errc::kInvalidArgument);
}

TEST(ArenaPool, TheBoundHoldsAndFreedMemoryServesEverySizeAgain) {
    constexpr std::size_t kBound = 32U << 20U;
    const auto pool = make_pool(kBound);
    for (const std::size_t size : {4096UL, 65536UL, 16UL << 20U, 4096UL, 1UL << 20U}) {
        std::vector<Buffer> held;
        for (;;) {
            auto buffer = pool->allocate(size);
            if (!buffer) {
                EXPECT_EQ(buffer.error().code, Errc::kResources);
                break;
            }
            held.push_back(*std::move(buffer));
        }
        EXPECT_EQ(held.size(), kBound / size);
        EXPECT_EQ(pool->outstanding_bytes(), kBound);
    }
}

TEST(ArenaPool, LiveBuffersNeverOverlapUnderRandomUse) {
    const auto pool = make_pool(32U << 20U);
    std::mt19937_64 random(7);
    std::vector<std::pair<Buffer, std::byte>> held;
    for (int step = 0; step < 4000; ++step) {
        if (held.size() < 40 && random() % 2 == 0) {
            auto buffer = pool->allocate(std::size_t{1} << (12 + random() % 8));
            if (buffer) {
                const auto mark = static_cast<std::byte>(random());
                std::memset(buffer->memory().data(), std::to_integer<int>(mark), buffer->memory().size());
                held.emplace_back(*std::move(buffer), mark);
            }
        } else if (!held.empty()) {
            const std::size_t i = random() % held.size();
            std::swap(held[i], held.back());
            const auto memory = held.back().first.memory();
            EXPECT_TRUE(std::ranges::all_of(memory, [&](std::byte b) { return b == held.back().second; }));
            held.pop_back();
        }
    }
}

Task<void> allocate_here_and_free_there(BufferPool* pool, Processor* here, Processor* there, int rounds) {
    for (int i = 0; i < rounds; ++i) {
        std::vector<Buffer> held;
        for (std::size_t size = 4096; size <= (1U << 20U); size *= 4) {
            auto buffer = pool->allocate(size);
            CHECK(buffer);
            buffer->memory()[0] = std::byte{1};
            buffer->memory()[size - 1] = std::byte{2};
            held.push_back(*std::move(buffer));
        }
        co_await resume_on(*there);
        held.clear();
        co_await resume_on(*here);
    }
}

TEST(ArenaPool, BuffersFreedOnAnotherProcessorDoNotRunTheirArenaDry) {
    RealRuntime runtime(2);
    std::vector<std::thread> callers;
    for (std::size_t i = 0; i < 2; ++i) {
        callers.emplace_back([&runtime, i] {
            runtime.run(allocate_here_and_free_there(&runtime.buffers(), &runtime.io(i), &runtime.io(1 - i), 500), i);
        });
    }
    for (auto& caller : callers) {
        caller.join();
    }
    EXPECT_EQ(runtime.buffers().outstanding_bytes(), 0U);
    // Everything but the short lists of the processors can still be had as one kind.
    std::vector<Buffer> held;
    while (auto buffer = runtime.buffers().allocate(1U << 20U)) {
        held.push_back(*std::move(buffer));
    }
    EXPECT_GE(held.size(), 48U);
}

}  // namespace
}  // namespace gemel
