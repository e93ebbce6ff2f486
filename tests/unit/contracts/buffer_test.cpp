// SPDX-License-Identifier: Apache-2.0
// Slices: division at 4 KiB addresses, checksums per block, status per block. CRC32C against RFC 7143 §B.4 values.
#include "gemel/buffer.hpp"

#include <gtest/gtest.h>

#include "tests/support/heap_pool.hpp"

namespace gemel {
namespace {

TEST(Crc32c, known_values) {
    const std::array<std::byte, 32> zeros{};
    EXPECT_EQ(crc32c(zeros), 0x8a9136aaU);
    std::array<std::byte, 32> ones{};
    ones.fill(std::byte{0xff});
    EXPECT_EQ(crc32c(ones), 0x62a8ab43U);
    EXPECT_EQ(crc32c(as_bytes_of("123456789")), 0xe3069283U);
    EXPECT_EQ(crc32c(as_bytes_of("6789"), crc32c(as_bytes_of("12345"))), 0xe3069283U);
}

TEST(Slice, an_unaligned_range_is_divided_at_4_kib_addresses) {
    sim::HeapPool pool;
    const Buffer buffer = *pool.allocate(8192);
    const Slice s = buffer.slice(8192, Lba(3));
    ASSERT_EQ(s.blocks().size(), 3U);
    EXPECT_EQ(s.head(), 3U * 512);
    EXPECT_EQ(s.block_data(0).size(), 4096U - 1536);
    EXPECT_EQ(s.block_data(1).size(), 4096U);
    EXPECT_EQ(s.block_data(2).size(), 1536U);
    const Slice tail = s.sub(2560, 5632);
    EXPECT_EQ(tail.head(), 0U);
    EXPECT_EQ(tail.blocks().size(), 2U);
    EXPECT_EQ(tail.block_data(0).data(), s.block_data(1).data());
}

TEST(BufferPool, memory_on_loan_is_given_out_again_only_when_the_loan_has_ended) {
    sim::HeapPool pool(3 * std::size_t{kBlockBytes});
    {
        std::optional<BufferPool::Loan> first;
        std::optional<BufferPool::Loan> second;
        {
            const Buffer buffer = *pool.allocate(2 * std::size_t{kBlockBytes});
            const Buffer other = *pool.allocate(kBlockBytes);
            first.emplace(pool.lend(buffer.memory().first(1)));
            second.emplace(pool.lend(buffer.memory().last(1)));
            EXPECT_EQ(pool.loans(), 2U);
        }
        EXPECT_EQ(pool.outstanding_bytes(), 2U * kBlockBytes) << "the other one is back";
        EXPECT_FALSE(pool.allocate(2 * std::size_t{kBlockBytes}));
        first.reset();
        EXPECT_EQ(pool.outstanding_bytes(), 2U * kBlockBytes) << "another device still has a part of it";
        second.reset();
        EXPECT_EQ(pool.outstanding_bytes(), 0U);
        EXPECT_EQ(pool.loans(), 0U);
    }
    {
        const Buffer buffer = *pool.allocate(kBlockBytes);
        static_cast<void>(pool.lend(buffer.memory()));
        EXPECT_EQ(pool.loans(), 0U);
        EXPECT_EQ(pool.outstanding_bytes(), kBlockBytes) << "a loan that ends first leaves the buffer to its owner";
    }
    EXPECT_EQ(pool.outstanding_bytes(), 0U);
}

TEST(Slice, verify_finds_a_changed_byte_and_skips_blocks_without_checksum) {
    sim::HeapPool pool;
    const Buffer buffer = *pool.allocate(8192);
    const Slice s = buffer.slice(8192, Lba(0));
    std::ranges::fill(s.data(), std::byte{7});
    s.seal();
    EXPECT_TRUE(s.verify());
    s.data()[5000] = std::byte{8};
    ASSERT_FALSE(s.verify());
    EXPECT_EQ(s.verify().error().code, Errc::kChecksum);
    s.mark(1, BlockStatus::kUnreadable);
    EXPECT_TRUE(s.verify());
    EXPECT_FALSE(s.all_readable());
    EXPECT_EQ(s.data()[5000], std::byte{0});
}

}  // namespace
}  // namespace gemel
