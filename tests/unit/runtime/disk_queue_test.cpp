// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/disk_queue.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "target/runtime/ring.hpp"
#include "tests/support/real_runtime.hpp"

namespace gemel {
namespace {

using test::RealRuntime;

/// An unlinked file of 1 MiB, open with O_DIRECT where that works.
class ScratchFile {
  public:
    ScratchFile() {
        std::string path = ::testing::TempDir() + "gemel_disk_queue_XXXXXX";
        const int made = ::mkstemp(path.data());
        CHECK(made >= 0);
        fd_ = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd_ < 0) {
            fd_ = ::dup(made);
        }
        ::unlink(path.c_str());
        CHECK(::ftruncate(fd_, 1 << 20) == 0);
        ::close(made);
    }
    ~ScratchFile() { ::close(fd_); }
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;
    [[nodiscard]] int fd() const { return fd_; }

  private:
    int fd_ = -1;
};

class DiskQueues : public ::testing::TestWithParam<DiskQueueKind> {};

INSTANTIATE_TEST_SUITE_P(EveryKind, DiskQueues, ::testing::Values(DiskQueueKind::kRing, DiskQueueKind::kBlocking),
                         [](const auto& info) { return info.param == DiskQueueKind::kRing ? "Ring" : "Threads"; });

Task<std::int32_t> transfer(DiskCommand command, DiskFile file, MutableBytes data, std::uint64_t offset, bool durable) {
    DiskRequest request;
    request.command = command;
    request.file = file;
    request.data = data.data();
    request.bytes = static_cast<std::uint32_t>(data.size());
    request.offset = offset;
    request.length = command == DiskCommand::kZeroRange || command == DiskCommand::kPunchHole ? 8192 : 0;
    request.durable = durable;
    co_return co_await disk_io(Processor::current().disks(), request);
}

Task<bool> write_flush_zero_read(BufferPool* pool, DiskFile file) {
    const auto out = pool->allocate(16384);
    const auto in = pool->allocate(16384);
    CHECK(out && in);
    std::memset(out->memory().data(), 0x77, 16384);
    CHECK(co_await transfer(DiskCommand::kWrite, file, out->memory(), 4096, false) == 16384);
    CHECK(co_await transfer(DiskCommand::kWrite, file, out->memory().first(4096), 65536, /*durable=*/true) == 4096);
    CHECK(co_await transfer(DiskCommand::kFlush, file, {}, 0, false) == 0);
    CHECK(co_await transfer(DiskCommand::kRead, file, in->memory(), 4096, false) == 16384);
    if (std::memcmp(out->memory().data(), in->memory().data(), 16384) != 0) {
        co_return false;
    }
    CHECK(co_await transfer(DiskCommand::kZeroRange, file, {}, 8192, false) == 0);
    CHECK(co_await transfer(DiskCommand::kRead, file, in->memory(), 4096, false) == 16384);
    CHECK(co_await transfer(DiskCommand::kPunchHole, file, {}, 16384, false) == 0);
    CHECK(co_await transfer(DiskCommand::kRead, file, in->memory(), 4096, false) == 16384);
    std::memset(out->memory().data() + 4096, 0, 12288);
    co_return std::memcmp(out->memory().data(), in->memory().data(), 16384) == 0;
}

TEST_P(DiskQueues, WhatIsWrittenIsReadAndZeroedRangesReadAsZeros) {
    RealRuntime runtime(1, GetParam());
    const ScratchFile file;
    for (const std::int32_t slot : {-1, 3}) {
        EXPECT_TRUE(
            runtime.run(write_flush_zero_read(&runtime.buffers(), DiskFile{file.fd(), slot, slot < 0 ? 0U : 1000U})));
    }
}

TEST_P(DiskQueues, ManyMoreRequestsThanTheQueueHoldsAllComplete) {
    RealRuntime runtime(1, GetParam());
    const ScratchFile file;
    const auto bytes = runtime.run([](BufferPool* pool, DiskFile f) -> Task<std::int64_t> {
        const auto buffer = pool->allocate(4096);
        CHECK(buffer);
        std::memset(buffer->memory().data(), 1, 4096);
        std::vector<Task<std::int32_t>> tasks;
        for (int i = 0; i < 5000; ++i) {
            const auto offset = static_cast<std::uint64_t>(i % 256) * 4096;
            tasks.push_back(transfer(DiskCommand::kWrite, f, buffer->memory(), offset, false));
        }
        std::int64_t sum = 0;
        for (const std::int32_t n : co_await when_all(std::move(tasks))) {
            sum += n;
        }
        co_return sum;
    }(&runtime.buffers(), DiskFile{file.fd(), -1, 0}));
    EXPECT_EQ(bytes, 5000 * 4096);
}

TEST_P(DiskQueues, AnErrorOfTheSystemComesBackAsItsNumber) {
    RealRuntime runtime(1, GetParam());
    const int read_only = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const auto result = runtime.run([](BufferPool* pool, DiskFile f) -> Task<std::int32_t> {
        const auto buffer = pool->allocate(4096);
        CHECK(buffer);
        co_return co_await transfer(DiskCommand::kWrite, f, buffer->memory(), 0, false);
    }(&runtime.buffers(), DiskFile{read_only, -1, 0}));
    EXPECT_EQ(result, -EBADF);
    ::close(read_only);
}

TEST(RingOnly, ASlotWithANewTicketIsTheNewFileAndForgottenFilesAreClosed) {
    RealRuntime runtime(1, DiskQueueKind::kRing);
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const ScratchFile file;
    const DiskFile pipe_file{ends[1], 5, 77};
    const DiskFile next_file{file.fd(), 5, 78};
    const auto write_to = [](BufferPool* pool, DiskFile f) -> Task<std::int32_t> {
        const auto buffer = pool->allocate(4096);
        CHECK(buffer);
        std::memset(buffer->memory().data(), 9, 4096);
        co_return co_await transfer(DiskCommand::kWrite, f, buffer->memory(), 0, false);
    };
    EXPECT_EQ(runtime.run(write_to(&runtime.buffers(), pipe_file)), 4096);
    EXPECT_EQ(runtime.run(write_to(&runtime.buffers(), next_file)), 4096);
    EXPECT_EQ(runtime.run(write_to(&runtime.buffers(), pipe_file)), 4096);
    ::close(ends[1]);
    runtime.io(0).forget_file(pipe_file);
    runtime.run([]() -> Task<void> { co_return; }());
    char sink[16384];
    ssize_t total = 0;
    ssize_t n = 0;
    // With the last writer gone the pipe ends; while the ring held it, read() would say EAGAIN.
    for (int tries = 0; tries < 2000 && (n = ::read(ends[0], sink, sizeof sink)) != 0; ++tries) {
        total += n > 0 ? n : 0;
        if (n < 0) {
            ::usleep(1000);
        }
    }
    EXPECT_EQ(n, 0);
    EXPECT_EQ(total, 2 * 4096);
    ::close(ends[0]);
}

TEST(RingOnly, BuffersOfTheArenaGoByRegisteredMemory) {
    RealRuntime runtime(1, DiskQueueKind::kRing);
    const ScratchFile file;
    const auto counts = runtime.run([](BufferPool* pool, DiskFile f) -> Task<std::pair<std::uint64_t, std::uint64_t>> {
        const auto& ring = dynamic_cast<Ring&>(Processor::current().disks());
        const auto buffer = pool->allocate(4096);
        CHECK(buffer);
        co_await transfer(DiskCommand::kRead, f, buffer->memory(), 0, false);
        const std::uint64_t from_arena = ring.fixed_requests();
        alignas(4096) static std::byte elsewhere[4096];
        co_await transfer(DiskCommand::kRead, f, elsewhere, 0, false);
        co_return std::pair(from_arena, ring.fixed_requests() - from_arena);
    }(&runtime.buffers(), DiskFile{file.fd(), -1, 0}));
    if (runtime.events().ids().empty()) {
        EXPECT_EQ(counts.first, 1U);
    }
    EXPECT_EQ(counts.second, 0U);
}

}  // namespace
}  // namespace gemel
