// SPDX-License-Identifier: Apache-2.0
// What a file device makes of errors of the system. /proc/self/mem is a file whose unmapped pages cannot be read (EIO);
// /dev/full is one that is always full and cannot be flushed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "target/backend/file_device.hpp"
#include "tests/support/real_runtime.hpp"
#include "tests/unit/backend/scratch.hpp"

namespace gemel {
namespace {

using test::RealRuntime;
using test::ScratchDirectory;

OpenedFile opened(const char* path, int flags, std::uint64_t bytes) {
    OpenedFile file;
    file.fd = ::open(path, flags | O_CLOEXEC);
    CHECK(file.fd >= 0);
    file.name = std::string("file:") + path;
    file.bytes = bytes;
    return file;
}

Task<std::pair<Errc, std::vector<BlockStatus>>> statuses(BlockDevice* device, BufferPool* pool, Lba lba,
                                                         std::size_t bytes, std::vector<std::byte>* data) {
    const auto buffer = pool->allocate(bytes);
    CHECK(buffer);
    const Slice slice = buffer->slice(bytes, lba);
    const auto done = co_await device->read(lba, slice);
    std::vector<BlockStatus> out;
    for (const BlockInfo& info : slice.blocks()) {
        out.push_back(info.status);
    }
    data->assign(slice.data().begin(), slice.data().end());
    co_return std::pair(done ? Errc{} : done.error().code, out);
}

TEST(FileDevice, ABadBlockIsFoundAndTheOthersAreGood) {
    RealRuntime runtime(1);
    auto* pages = static_cast<std::byte*>(
        ::mmap(nullptr, 8 * kBlockBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(pages, MAP_FAILED);
    std::memset(pages, 0x3c, 8 * kBlockBytes);
    ASSERT_EQ(::munmap(pages + 2 * kBlockBytes, kBlockBytes), 0);
    ASSERT_EQ(::munmap(pages + 5 * kBlockBytes, 2 * kBlockBytes), 0);
    FileDevice device(runtime.environment(), opened("/proc/self/mem", O_RDONLY, std::uint64_t{1} << 47U));
    const Lba lba(reinterpret_cast<std::uintptr_t>(pages) / kSectorBytes);
    std::vector<std::byte> data;
    const auto [code, seen] =
        runtime.run(statuses(&device, &runtime.buffers(), lba, std::size_t{8} * kBlockBytes, &data));
    EXPECT_EQ(code, Errc::kMediumError);
    constexpr auto kOk = BlockStatus::kOk;
    constexpr auto kBad = BlockStatus::kUnreadable;
    EXPECT_EQ(seen, (std::vector{kOk, kOk, kBad, kOk, kOk, kBad, kBad, kOk}));
    for (std::size_t i = 0; i < data.size(); ++i) {
        const bool bad = seen[i / kBlockBytes] == kBad;
        ASSERT_EQ(data[i], bad ? std::byte{0} : std::byte{0x3c}) << i;
    }
    // Ranges that begin and end within blocks: pieces, not whole blocks.
    const auto [part_code, part] =
        runtime.run(statuses(&device, &runtime.buffers(), lba + 7, 10 * kSectorBytes, &data));
    EXPECT_EQ(part_code, Errc::kMediumError);
    EXPECT_EQ(part, (std::vector{kOk, kOk, kBad}));
    ::munmap(pages, 8 * kBlockBytes);
}

TEST(FileDevice, WhereHolesAreRefusedZerosAreWrittenAndAnEventSaysSoOnce) {
    RealRuntime runtime(1);
    auto* pages = static_cast<std::byte*>(
        // Below 2 GiB: fallocate judges the offset before it is refused.
        ::mmap(nullptr, 4 * kBlockBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    ASSERT_NE(pages, MAP_FAILED);
    std::memset(pages, 0x3c, 4 * kBlockBytes);
    OpenedFile file = opened("/proc/self/mem", O_RDWR, std::uint64_t{1} << 47U);
    file.thin = true;
    FileDevice device(runtime.environment(), std::move(file));
    EXPECT_TRUE(device.limits().gives_back) << "nothing was tried yet";
    const Lba lba(reinterpret_cast<std::uintptr_t>(pages) / kSectorBytes);
    for (const std::uint64_t sector : {std::uint64_t{5}, std::uint64_t{9}}) {
        const auto done = runtime.run(device.discard(lba + sector, SectorCount(11)));
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_FALSE(device.limits().gives_back);
    }
    const std::vector<std::string> ids = runtime.events().ids();
    EXPECT_EQ(std::ranges::count(ids, "space-not-given-back"), 1);
    for (std::size_t i = 0; i < std::size_t{4} * kBlockBytes; ++i) {
        const bool zero = i >= 5 * kSectorBytes && i < 20 * kSectorBytes;
        ASSERT_EQ(pages[i], zero ? std::byte{0} : std::byte{0x3c}) << i;
    }
    ::munmap(pages, 4 * kBlockBytes);
}

TEST(FileDevice, AFileThatWasCutShortIsAGoneDevice) {
    RealRuntime runtime(1);
    const ScratchDirectory scratch;
    const std::string path = scratch.file("short");
    OpenedFile file = opened(path.c_str(), O_RDWR | O_CREAT, 64 * kKiB);
    ASSERT_EQ(::ftruncate(file.fd, 16384), 0);
    FileDevice device(runtime.environment(), std::move(file));
    std::vector<std::byte> data;
    const auto [code, seen] = runtime.run(statuses(&device, &runtime.buffers(), Lba(0), 32768, &data));
    EXPECT_EQ(code, Errc::kDeviceGone);
    EXPECT_EQ(seen[0], BlockStatus::kUnreadable);
}

Task<Errc> write_block(BlockDevice* device, BufferPool* pool) {
    const auto buffer = pool->allocate(4096);
    CHECK(buffer);
    std::ranges::fill(buffer->memory(), std::byte{0});
    const auto done = co_await device->write(Lba(0), buffer->slice(4096, Lba(0)));
    co_return done ? Errc{} : done.error().code;
}

TEST(FileDevice, AFullFileSystemIsNoSpace) {
    RealRuntime runtime(1);
    FileDevice device(runtime.environment(), opened("/dev/full", O_RDWR, kMiB));
    EXPECT_EQ(runtime.run(write_block(&device, &runtime.buffers())), Errc::kNoSpace);
}

TEST(FileDevice, AfterAFailedFlushTheDeviceIsGoneForGood) {
    RealRuntime runtime(1);
    FileDevice device(runtime.environment(), opened("/dev/zero", O_RDWR, kMiB));
    EXPECT_EQ(runtime.run(write_block(&device, &runtime.buffers())), Errc{});
    EXPECT_FALSE(runtime.run(device.flush()));
    EXPECT_EQ(runtime.run(device.flush()).error().code, Errc::kDeviceGone);
    EXPECT_EQ(runtime.run(write_block(&device, &runtime.buffers())), Errc::kDeviceGone);
}

TEST(FileDevice, ADescriptorThatMayNotWriteIsAnErrorNotACrash) {
    RealRuntime runtime(1);
    FileDevice device(runtime.environment(), opened("/dev/zero", O_RDONLY, kMiB));
    EXPECT_EQ(runtime.run(write_block(&device, &runtime.buffers())), Errc::kDeviceGone);
}

}  // namespace
}  // namespace gemel
