// SPDX-License-Identifier: Apache-2.0
// Opening, making and judging members: what is refused, with which words, and that nothing is changed by it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "target/backend/backend_table.hpp"
#include "tests/support/real_runtime.hpp"
#include "tests/unit/backend/scratch.hpp"

namespace gemel {
namespace {

using test::RealRuntime;
using test::ScratchDirectory;

class OpenDevice : public ::testing::Test {
  protected:
    Result<std::unique_ptr<BlockDevice>> open(BackendSpec spec) {
        return runtime_.run(open_backend(runtime_.environment(), std::move(spec)));
    }
    static BackendSpec file_spec(std::string path, std::uint64_t bytes, bool create) {
        return {"file", std::move(path), bytes, create, std::chrono::milliseconds(50)};
    }
    RealRuntime runtime_{1};
    ScratchDirectory scratch_;
};

TEST_F(OpenDevice, AnIncompleteOrWrongSpecificationIsRefusedWithAReason) {
    struct Case {
        BackendSpec spec;
        Errc code;
        const char* text;
    };
    const std::string directory = scratch_.file("");
    const Case cases[] = {
        {{"tape", "/x", 0, false, {}}, Errc::kUnsupported, "file, block, memory"},
        {{"file", "", 0, false, {}}, Errc::kInvalidArgument, "needs a path"},
        {{"memory", "", 0, false, {}}, Errc::kInvalidArgument, "needs a size"},
        {{"memory", "", 1000, false, {}}, Errc::kInvalidArgument, "multiple of 4096"},
        {{"file", scratch_.file("none"), 0, false, {}}, Errc::kNotFound, "create = true"},
        {{"file", scratch_.file("none"), 0, true, {}}, Errc::kInvalidArgument, "size is not given"},
        {{"file", scratch_.file("no/such/directory"), 4096, true, {}}, Errc::kNotFound, "does not exist"},
        {{"block", scratch_.file("none"), 0, false, {}}, Errc::kNotFound, "does not exist"},
        {{"file", "/dev/null", 0, false, {}}, Errc::kInvalidArgument, "kind = \"block\""},
        {{"block", "/dev/null", 0, false, {}}, Errc::kInvalidArgument, "kind = \"file\""},
    };
    for (const Case& c : cases) {
        const auto device = open(c.spec);
        ASSERT_FALSE(device) << c.text;
        EXPECT_EQ(device.error().code, c.code) << device.error().message;
        EXPECT_NE(device.error().message.find(c.text), std::string::npos) << device.error().message;
    }
}

TEST_F(OpenDevice, AFileThatWasExtendedIsLargerWhenItIsMeasuredAndHasItsSpace) {
    const std::string path = scratch_.file("member");
    const auto device = open(file_spec(path, 4 * kMiB, true));
    ASSERT_TRUE(device) << device.error().message;
    ASSERT_EQ(::truncate(path.c_str(), 6 * kMiB + 100), 0);
    EXPECT_EQ((*device)->limits().sectors, sectors_of(4 * kMiB)) << "before it is measured";
    ASSERT_TRUE(measure_backend(**device));
    EXPECT_EQ((*device)->limits().sectors, sectors_of(6 * kMiB));
    struct stat st{};
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_GE(static_cast<std::uint64_t>(st.st_blocks) * 512, 6 * kMiB);
    ASSERT_TRUE(runtime_.run((*device)->discard(Lba(sectors_of(5 * kMiB).value), SectorCount(8))));
    ASSERT_EQ(::truncate(path.c_str(), 3 * kMiB), 0);
    const auto smaller = measure_backend(**device);
    ASSERT_FALSE(smaller);
    EXPECT_EQ(smaller.error().code, Errc::kSizeMismatch);
    EXPECT_EQ((*device)->limits().sectors, sectors_of(6 * kMiB));
}

TEST_F(OpenDevice, ANewFileHasAllItsSpaceAndDiscardGivesNoneBack) {
    const std::string path = scratch_.file("member");
    {
        const auto device = open(file_spec(path, 4 * kMiB, true));
        ASSERT_TRUE(device) << device.error().message;
        EXPECT_TRUE(runtime_.run((*device)->discard(Lba(1), SectorCount(4000))));
        EXPECT_TRUE(runtime_.run((*device)->flush()));
    }
    struct stat st{};
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_size, static_cast<off_t>(4 * kMiB));
    EXPECT_GE(static_cast<std::uint64_t>(st.st_blocks) * 512, 4 * kMiB);
    EXPECT_EQ(st.st_mode & 0777U, 0600U);
    EXPECT_TRUE(open(file_spec(path, 0, false)));
    EXPECT_TRUE(open(file_spec(path, 2 * kMiB, true)));
    EXPECT_EQ(open(file_spec(path, 8 * kMiB, true)).error().code, Errc::kSizeMismatch);
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_size, static_cast<off_t>(4 * kMiB));
}

std::uint64_t allocated(const std::string& path) {
    struct stat st{};
    return ::stat(path.c_str(), &st) == 0 ? static_cast<std::uint64_t>(st.st_blocks) * 512 : 0;
}

TEST_F(OpenDevice, AThinFileGivesBackWhatIsDiscardedAndKeepsItsHoles) {
    const std::string path = scratch_.file("member");
    BackendSpec spec = file_spec(path, 8 * kMiB, true);
    spec.thin = true;
    {
        const auto device = open(spec);
        ASSERT_TRUE(device) << device.error().message;
        EXPECT_TRUE((*device)->limits().gives_back);
        EXPECT_GE(allocated(path), 8 * kMiB) << "a new one has all its space";
        const auto kept = runtime_.run([](BlockDevice* d, BufferPool* pool) -> Task<std::vector<std::byte>> {
            const auto buffer = pool->allocate(2 * kMiB);
            std::ranges::fill(buffer->memory(), std::byte{0x5a});
            const Slice slice = buffer->slice(2 * kMiB, Lba(0));
            slice.clear_infos();
            CHECK(co_await d->write(Lba(0), slice));
            CHECK(co_await d->discard(Lba(2), sectors_of(7 * kMiB)));
            CHECK(co_await d->flush());
            CHECK(co_await d->read(Lba(0), slice));
            co_return std::vector<std::byte>(slice.data().begin(), slice.data().end());
        }(device->get(), &runtime_.buffers()));
        EXPECT_TRUE(std::ranges::all_of(std::span(kept).first(1024), [](std::byte b) { return b == std::byte{0x5a}; }));
        EXPECT_TRUE(all_zero(std::span(kept).subspan(1024)));
        EXPECT_LE(allocated(path), kMiB + 64 * kKiB);
        EXPECT_TRUE((*device)->limits().gives_back);
    }
    spec.create = false;
    {
        const auto device = open(spec);
        ASSERT_TRUE(device) << device.error().message;
        EXPECT_LE(allocated(path), kMiB + 64 * kKiB) << "it was filled at the next opening";
        ASSERT_EQ(::truncate(path.c_str(), 10 * kMiB), 0);
        ASSERT_TRUE(measure_backend(**device));
        EXPECT_LE(allocated(path), 3 * kMiB + 64 * kKiB) << "its holes were filled when it was extended";
        EXPECT_GE(allocated(path), 3 * kMiB - 64 * kKiB) << "what was added has its space";
    }
    spec.thin = false;
    EXPECT_TRUE(open(spec));
    EXPECT_GE(allocated(path), 10 * kMiB) << "a member that is not thin has all its space again";
}

TEST_F(OpenDevice, AFileThatDoesNotFitIsNotLeftBehind) {
    const std::string path = scratch_.file("huge");
    std::atomic<bool> ended{false};
    std::uint64_t most = 0;  // that the file has had
    std::thread watcher([&] {
        struct stat st{};
        while (!ended.load()) {
            most = ::stat(path.c_str(), &st) == 0 ? std::max(most, static_cast<std::uint64_t>(st.st_blocks)) : most;
        }
    });
    const auto device = open(file_spec(path, std::uint64_t{1} << 42U, true));
    ended.store(true);
    watcher.join();
    ASSERT_FALSE(device);
    EXPECT_TRUE(device.error().code == Errc::kNoSpace || device.error().code == Errc::kIo) << device.error().message;
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    EXPECT_EQ(most, 0U) << "the file system was filled up to find out";
}

TEST_F(OpenDevice, AFileLeftEmptyByAnInterruptedCreationIsCompleted) {
    const std::string path = scratch_.file("empty");
    std::ofstream(path).close();
    EXPECT_EQ(open(file_spec(path, 0, false)).error().code, Errc::kSizeMismatch);
    const auto device = open(file_spec(path, kMiB, true));
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ((*device)->limits().sectors, sectors_of(kMiB));
}

TEST_F(OpenDevice, ASparseFileGetsItsSpaceWhenOpened) {
    const std::string path = scratch_.file("sparse");
    std::ofstream(path).close();
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(kMiB)), 0);
    ASSERT_TRUE(open(file_spec(path, 0, false)));
    struct stat st{};
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_GE(static_cast<std::uint64_t>(st.st_blocks) * 512, kMiB);
}

/// A process that holds the file's lock until it is told to end.
class Holder {
  public:
    explicit Holder(const std::string& path) {
        CHECK(::pipe2(ready_, O_CLOEXEC) == 0 && ::pipe2(end_, O_CLOEXEC) == 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            const int fd = ::open(path.c_str(), O_RDWR);
            char byte = 0;
            if (::flock(fd, LOCK_EX) != 0 || ::write(ready_[1], "r", 1) != 1) {
                ::_exit(1);
            }
            ::close(end_[1]);
            ::_exit(::read(end_[0], &byte, 1) == 0 ? 0 : 1);
        }
        char byte = 0;
        CHECK(pid_ > 0 && ::read(ready_[0], &byte, 1) == 1);
    }
    ~Holder() {
        let_go();
        ::waitpid(pid_, nullptr, 0);
        ::close(ready_[0]);
        ::close(ready_[1]);
        ::close(end_[0]);
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    [[nodiscard]] pid_t pid() const { return pid_; }
    void let_go() {
        if (end_[1] >= 0) {
            ::close(std::exchange(end_[1], -1));
        }
    }

  private:
    int ready_[2];
    int end_[2];
    pid_t pid_ = -1;
};

TEST_F(OpenDevice, AFileHeldByAnotherProcessIsWaitedForAndItsHolderNamed) {
    const std::string path = scratch_.file("held");
    ASSERT_TRUE(open(file_spec(path, kMiB, true)));
    Holder holder(path);
    const auto refused = open(file_spec(path, 0, false));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kBusy);
    EXPECT_NE(refused.error().message.find("process " + std::to_string(holder.pid()) + " ("), std::string::npos)
        << refused.error().message;
    BackendSpec patient = file_spec(path, 0, false);
    patient.wait = std::chrono::seconds(10);
    const auto opened = runtime_.run([](Environment env, BackendSpec spec, Holder* other) -> Task<bool> {
        auto [device, nothing] =
            co_await when_both(open_backend(env, std::move(spec)), [](Clock* clock, Holder* h) -> Task<int> {
                co_await sleep_for(*clock, std::chrono::milliseconds(150));
                h->let_go();
                co_return 0;
            }(&env.clock, other));
        co_return device.has_value();
    }(runtime_.environment(), patient, &holder));
    EXPECT_TRUE(opened);
}

TEST_F(OpenDevice, BlankMembersAreBlankAndOthersAreNamed) {
    const std::string path = scratch_.file("content");
    const BackendSpec spec = file_spec(path, kMiB * 8, true);
    EXPECT_EQ(find_content(spec), std::nullopt);
    ASSERT_TRUE(open(spec));
    EXPECT_EQ(find_content(spec), std::nullopt);
    EXPECT_EQ(find_content({"memory", "", kMiB, false, {}}), std::nullopt);

    ASSERT_EQ(std::system(("PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F -L stuff " + path).c_str()), 0);
    auto content = find_content(spec);
    ASSERT_TRUE(content && *content);
    EXPECT_EQ(**content, "ext4 file system labelled 'stuff'");

    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.write(std::string(64 * kKiB, '\0').data(), 64 * kKiB);
    // An MBR with one partition.
    std::string mbr(512, '\0');
    mbr[446 + 4] = '\x83';
    mbr[446 + 8] = 8;
    mbr[446 + 13] = 8;
    mbr[510] = '\x55';
    mbr[511] = '\xaa';
    file.seekp(0);
    file.write(mbr.data(), 512);
    file.close();
    content = find_content(spec);
    ASSERT_TRUE(content && *content);
    EXPECT_EQ(**content, "dos partition table");
}

}  // namespace
}  // namespace gemel
