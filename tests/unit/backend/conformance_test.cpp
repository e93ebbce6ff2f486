// SPDX-License-Identifier: Apache-2.0
// What every backend must do as a BlockDevice: run on every row of the backend table, with both kinds of disk queue.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "target/backend/backend_table.hpp"
#include "tests/support/real_runtime.hpp"
#include "tests/unit/backend/loop_device.hpp"
#include "tests/unit/backend/scratch.hpp"

namespace gemel {
namespace {

using test::LoopDevice;
using test::RealRuntime;
using test::ScratchDirectory;

constexpr std::uint64_t kBytes = 8 * kMiB;
constexpr std::uint64_t kSectors = kBytes / kSectorBytes;

struct Row {
    std::string_view kind;
    DiskQueueKind disks;
};

class Conformance : public ::testing::TestWithParam<Row> {
  protected:
    void SetUp() override {
        runtime_ = std::make_unique<RealRuntime>(2, GetParam().disks);
        BackendSpec spec{std::string(GetParam().kind), scratch_.file("device"), kBytes, /*create=*/false, {}};
        if (spec.kind == "memory") {
            spec.path.clear();
        } else {
            spec.create = true;
        }
        if (spec.kind == "block") {
            BackendSpec backing = spec;
            backing.kind = "file";
            ASSERT_TRUE(runtime_->run(open_backend(runtime_->environment(), backing)));
            loop_ = std::make_unique<LoopDevice>(spec.path);
            ASSERT_TRUE(loop_->usable());
            spec.path = loop_->path();
            spec.create = false;
        }
        auto opened = runtime_->run(open_backend(runtime_->environment(), spec));
        ASSERT_TRUE(opened) << opened.error().message;
        device_ = *std::move(opened);
        spec_ = spec;
    }
    void TearDown() override {
        device_.reset();
        runtime_.reset();
        loop_.reset();
    }

    ScratchDirectory scratch_;
    std::unique_ptr<RealRuntime> runtime_;
    std::unique_ptr<LoopDevice> loop_;
    std::unique_ptr<BlockDevice> device_;
    BackendSpec spec_;
};

/// A block device to test on is a loop device, which only root can make; without rights the row is left out.
std::vector<Row> rows_where(bool (*wanted)(const BackendRow&)) {
    std::vector<Row> rows;
    for (const BackendRow& row : kBackendTable) {
        if (!wanted(row) || (row.name == "block" && ::access("/dev/loop-control", R_OK | W_OK) != 0)) {
            continue;
        }
        rows.push_back({row.name, DiskQueueKind::kAutomatic});
        if (row.persistent) {
            rows.push_back({row.name, DiskQueueKind::kBlocking});
        }
    }
    return rows;
}

std::string row_name(const ::testing::TestParamInfo<Row>& info) {
    return std::string(info.param.kind) + (info.param.disks == DiskQueueKind::kBlocking ? "_threads" : "");
}

INSTANTIATE_TEST_SUITE_P(EveryRow, Conformance, ::testing::ValuesIn(rows_where([](const BackendRow&) { return true; })),
                         row_name);

/// Memory has no second user.
class Exclusive : public Conformance {};

INSTANTIATE_TEST_SUITE_P(EveryPersistentRow, Exclusive,
                         ::testing::ValuesIn(rows_where([](const BackendRow& row) { return row.persistent; })),
                         row_name);

Task<Result<void>> put(BlockDevice* device, BufferPool* pool, Lba lba, std::vector<std::byte> data,
                       WriteOptions options) {
    CO_TRY(const Buffer buffer, pool->allocate(data.size()));
    std::ranges::copy(data, buffer.memory().begin());
    const Slice slice = buffer.slice(data.size(), lba);
    slice.seal();
    co_return co_await device->write(lba, slice, options);
}

Task<Result<std::vector<std::byte>>> get(BlockDevice* device, BufferPool* pool, Lba lba, std::size_t bytes) {
    CO_TRY(const Buffer buffer, pool->allocate(bytes));
    const Slice slice = buffer.slice(bytes, lba);
    for (BlockInfo& info : slice.blocks()) {
        info = BlockInfo{123, BlockStatus::kUnreadable, true};
    }
    CO_TRY_VOID(co_await device->read(lba, slice));
    for (const BlockInfo& info : slice.blocks()) {
        CHECK(info.status == BlockStatus::kOk && !info.has_crc);
    }
    co_return std::vector<std::byte>(slice.data().begin(), slice.data().end());
}

TEST_P(Conformance, ItsSizeIsWhatWasAskedForAndItsLimitsMakeSense) {
    const DeviceLimits limits = device_->limits();
    EXPECT_EQ(limits.sectors, SectorCount(kSectors));
    EXPECT_TRUE(limits.alignment_sectors == 1 || limits.alignment_sectors == 8);
    EXPECT_GE(limits.physical_sectors, limits.alignment_sectors);
    EXPECT_GE(limits.max_transfer_bytes, 1U << 20U);
    EXPECT_TRUE(device_->identity().is_nil());
    EXPECT_NE(device_->name(), "");
}

TEST_P(Conformance, ReadsReturnWhatTheLastWritesAndDiscardsLeft) {
    const bool same = runtime_->run([](BlockDevice* device, BufferPool* pool) -> Task<bool> {
        std::mt19937_64 random(42);
        std::vector<std::byte> model(kBytes);
        CHECK(co_await device->discard(Lba(0), SectorCount(kSectors)));
        for (int step = 0; step < 300; ++step) {
            const std::uint64_t unit = device->limits().alignment_sectors;
            const std::uint64_t sectors = round_up(1 + random() % (step % 50 == 0 ? 4096 : 40), unit);
            const std::uint64_t lba = round_down(random() % (kSectors - sectors + 1), unit);
            const std::span range = std::span(model).subspan(lba * kSectorBytes, sectors * kSectorBytes);
            switch (random() % 4) {
                case 0:
                    std::ranges::fill(range, std::byte{0});
                    CHECK(co_await device->discard(Lba(lba), SectorCount(sectors)));
                    break;
                case 1:
                case 2: {
                    std::ranges::generate(range, [&] { return static_cast<std::byte>(random()); });
                    const WriteOptions options{.fua = random() % 8 == 0};
                    CHECK(co_await put(device, pool, Lba(lba), {range.begin(), range.end()}, options));
                    break;
                }
                default: {
                    const auto seen = co_await get(device, pool, Lba(lba), range.size());
                    if (!seen || !std::ranges::equal(*seen, range)) {
                        co_return false;
                    }
                }
            }
        }
        CHECK(co_await device->flush());
        for (std::uint64_t at = 0; at < kBytes; at += kMiB) {
            const auto seen = co_await get(device, pool, Lba(at / kSectorBytes), kMiB);
            if (!seen || std::memcmp(seen->data(), model.data() + at, kMiB) != 0) {
                co_return false;
            }
        }
        co_return true;
    }(device_.get(), &runtime_->buffers()));
    EXPECT_TRUE(same);
}

TEST_P(Conformance, TheLargestTransferWorksAndOneMoreSectorIsRefused) {
    const std::size_t most = device_->limits().max_transfer_bytes;
    std::vector<std::byte> data(most);
    std::mt19937_64 random(3);
    std::ranges::generate(data, [&] { return static_cast<std::byte>(random()); });
    BufferPool* pool = &runtime_->buffers();
    ASSERT_TRUE(runtime_->run(put(device_.get(), pool, Lba(8), data, {})));
    const auto seen = runtime_->run(get(device_.get(), pool, Lba(8), most), 1);
    ASSERT_TRUE(seen);
    EXPECT_EQ(*seen, data);
    data.resize(most + kBlockBytes);
    EXPECT_EQ(runtime_->run(put(device_.get(), pool, Lba(8), data, {})).error().code, Errc::kInvalidArgument);
}

TEST_P(Conformance, WhatLiesBeyondTheEndIsRefused) {
    const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
        {kSectors, 8}, {kSectors - 8, 16}, {kSectors + 8, 8}, {~std::uint64_t{0} - 7, 8}, {1ULL << 55U, 8}};
    BufferPool* pool = &runtime_->buffers();
    for (const auto& [lba, sectors] : ranges) {
        const std::vector<std::byte> data(sectors * kSectorBytes);
        EXPECT_EQ(runtime_->run(put(device_.get(), pool, Lba(lba), data, {})).error().code, Errc::kOutOfRange);
        EXPECT_EQ(runtime_->run(get(device_.get(), pool, Lba(lba), data.size())).error().code, Errc::kOutOfRange);
        EXPECT_EQ(runtime_->run(device_->discard(Lba(lba), SectorCount(sectors))).error().code, Errc::kOutOfRange);
    }
    EXPECT_TRUE(runtime_->run(device_->discard(Lba(kSectors), SectorCount(0))));
}

TEST_P(Conformance, DataThatDoesNotMatchItsChecksumIsNotWritten) {
    BufferPool* pool = &runtime_->buffers();
    const std::vector<std::byte> before(8192, std::byte{7});
    ASSERT_TRUE(runtime_->run(put(device_.get(), pool, Lba(16), before, {})));
    const Errc code = runtime_->run([](BlockDevice* device, BufferPool* buffers) -> Task<Errc> {
        const auto buffer = buffers->allocate(8192);
        CHECK(buffer);
        const Slice slice = buffer->slice(8192, Lba(16));
        std::ranges::fill(slice.data(), std::byte{9});
        slice.seal();
        slice.data()[5000] = std::byte{8};
        const auto written = co_await device->write(Lba(16), slice);
        co_return written ? Errc{} : written.error().code;
    }(device_.get(), pool));
    EXPECT_EQ(code, Errc::kChecksum);
    EXPECT_EQ(*runtime_->run(get(device_.get(), pool, Lba(16), 8192)), before);
}

TEST_P(Conformance, MemoryThatIsNotAlignedWorks) {
    const bool same = runtime_->run([](BlockDevice* device) -> Task<bool> {
        std::vector<std::byte> out(4096 + 8192 + 3);
        std::vector<std::byte> in(out.size());
        std::ranges::generate(out, [n = 0]() mutable { return static_cast<std::byte>(n++ * 7); });
        std::vector<BlockInfo> infos(3);
        const Slice from(MutableBytes(out).subspan(1, 8192), std::span(infos).first(2), 0);
        const Slice to(MutableBytes(in).subspan(3, 8192), std::span(infos).first(2), 0);
        CHECK(co_await device->write(Lba(24), from));
        CHECK(co_await device->read(Lba(24), to));
        co_return std::ranges::equal(from.data(), to.data()) && to.all_readable() && in[2] == std::byte{0} &&
            in[3 + 8192] == std::byte{0};
    }(device_.get()));
    EXPECT_TRUE(same);
}

/// Writes and reads overlapping ranges; every sector must be of one writer.
Task<int> hammer(BlockDevice* device, BufferPool* pool, std::uint64_t seed, int rounds) {
    std::mt19937_64 random(seed);
    const Processor& here = Processor::current();
    int torn = 0;
    for (int i = 0; i < rounds; ++i) {
        const std::uint64_t lba = random() % 8 * 8;
        const std::size_t bytes = 4096 * (1 + random() % 16);
        if (i % 2 == 0) {
            const std::vector<std::byte> data(bytes, static_cast<std::byte>(random()));
            CHECK(co_await put(device, pool, Lba(lba), data, {}));
        } else {
            const auto seen = co_await get(device, pool, Lba(lba), bytes);
            CHECK(seen);
            for (std::size_t at = 0; at < bytes; at += kSectorBytes) {
                const auto sector = std::span(*seen).subspan(at, kSectorBytes);
                torn += std::ranges::all_of(sector, [&](std::byte b) { return b == sector[0]; }) ? 0 : 1;
            }
        }
        CHECK(here.is_current());
    }
    co_return torn;
}

TEST_P(Conformance, TwoProcessorsMayUseItAtOnceAndSectorsDoNotTear) {
    std::vector<std::thread> callers;
    std::array<int, 2> torn{};
    for (std::size_t p = 0; p < 2; ++p) {
        callers.emplace_back([this, p, &torn] {
            std::vector<Task<int>> tasks;
            for (std::uint64_t i = 0; i < 8; ++i) {
                tasks.push_back(hammer(device_.get(), &runtime_->buffers(), 10 * p + i, 40));
            }
            for (const int n : runtime_->run(when_all(std::move(tasks)), p)) {
                torn[p] += n;
            }
        });
    }
    for (auto& caller : callers) {
        caller.join();
    }
    EXPECT_EQ(torn[0] + torn[1], 0);
    EXPECT_TRUE(runtime_->run(device_->flush()));
}

TEST_P(Exclusive, OnlyOneOpenAtATimeAndItsHolderIsNamed) {
    const std::vector<std::byte> data(4096, std::byte{5});
    ASSERT_TRUE(runtime_->run(put(device_.get(), &runtime_->buffers(), Lba(0), data, {.fua = true})));
    BackendSpec again = spec_;
    again.create = false;
    again.wait = std::chrono::milliseconds(50);
    const auto second = runtime_->run(open_backend(runtime_->environment(), again));
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::kBusy);
    EXPECT_NE(second.error().message.find("process " + std::to_string(::getpid())), std::string::npos)
        << second.error().message;
    // With the first one gone, though its file was registered with a ring, the second opens and finds the data.
    device_.reset();
    again.wait = std::chrono::seconds(5);
    auto third = runtime_->run(open_backend(runtime_->environment(), again));
    ASSERT_TRUE(third) << third.error().message;
    device_ = *std::move(third);
    EXPECT_EQ(*runtime_->run(get(device_.get(), &runtime_->buffers(), Lba(0), 4096)), data);
}

}  // namespace
}  // namespace gemel
