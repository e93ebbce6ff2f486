// SPDX-License-Identifier: Apache-2.0
// Opening files and block devices for this process alone, and making files.
// Threads: the caller's processor; open, fallocate and fsync of a directory block it for their duration.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "target/backend/backend_table.hpp"
#include "target/backend/device_holder.hpp"
#include "target/backend/file_device.hpp"

namespace gemel {

namespace {

constexpr Duration kRetryInterval{std::chrono::milliseconds(100)};

/// Closes the descriptor unless it is taken.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor& operator=(Descriptor&& o) noexcept {
        std::swap(fd_, o.fd_);
        return *this;
    }
    ~Descriptor() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    [[nodiscard]] int get() const { return fd_; }
    int take() { return std::exchange(fd_, -1); }

  private:
    int fd_;
};

Error open_error(const BackendSpec& spec, int error) {
    const std::string what = spec.kind + " '" + spec.path + "'";
    switch (error) {
        case ENOENT:
            return {
                Errc::kNotFound,
                what + " does not exist" +
                    (spec.kind == "file" && !spec.create ? "; create = true in the configuration would make it" : "")};
        case EACCES:
        case EPERM:
        case EROFS:
            return {Errc::kRefused, what + " may not be opened for writing: " + std::strerror(error)};
        case ENOSPC:
        case EDQUOT:
            return {Errc::kNoSpace, what + ": no space for " + std::to_string(spec.bytes) +
                                        " bytes: free some or choose "
                                        "a smaller size"};
        case EMFILE:
        case ENFILE:
        case ENOMEM:
            return {Errc::kResources, what + ": " + std::strerror(error)};
        default:
            return {Errc::kIo, what + ": " + std::strerror(error)};
    }
}

/// With O_DIRECT where the file system knows it (some, like older tmpfs, refuse).
Descriptor open_direct(const std::string& path, int flags) {
    int fd = ::open(path.c_str(), flags | O_RDWR | O_CLOEXEC | O_DIRECT, S_IRUSR | S_IWUSR);
    if (fd < 0 && errno == EINVAL) {
        fd = ::open(path.c_str(), flags | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
    }
    return Descriptor(fd);
}

/// Calls `attempt` until it returns 0 or something else than `busy`, or the time is over. Returns its last errno.
template <class Attempt>
Task<int> wait_while_busy(Clock* clock, Duration wait, int busy, Attempt attempt) {
    const TimePoint end = clock->now() + wait;
    for (;;) {
        const int error = attempt();
        if (error != busy || clock->now() >= end) {
            co_return error;
        }
        co_await sleep_for(*clock, kRetryInterval);
    }
}

Error busy_error(const BackendSpec& spec, const std::string& holder) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(spec.wait).count();
    return {Errc::kBusy, spec.kind + " '" + spec.path + "' is held by " + holder + "; waited " +
                             std::to_string(seconds) + " s. Stop that process, or use another device"};
}

int sync_directory_of(const std::string& path) {
    const std::filesystem::path directory = std::filesystem::path(path).parent_path();
    const Descriptor fd(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd.get() >= 0 && ::fsync(fd.get()) == 0 ? 0 : errno;
}

/// ENOSPC where the file system says that `bytes` more do not fit. To find that out by allocating would fill it up for
/// a moment, and fail whoever else writes there.
int check_free_space(int fd, std::uint64_t bytes) {
    struct statvfs fs{};
    if (::fstatvfs(fd, &fs) != 0) {
        return errno;
    }
    const bool unknown = fs.f_blocks == 0;  // such a file system sets no bound
    return unknown || fs.f_bavail >= bytes / fs.f_frsize ? 0 : ENOSPC;
}

struct FileRange {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
};

/// Gives the range of the file its space, durably; it lacks `missing` bytes of it. A new file that does not fit is
/// taken away again.
Result<void> allocate_space(const BackendSpec& spec, int fd, FileRange range, std::uint64_t missing, bool is_new) {
    const auto first = static_cast<off_t>(range.first);
    const auto bytes = static_cast<off_t>(range.end - range.first);
    int error = check_free_space(fd, missing);
    if (error == 0 && ::fallocate(fd, 0, first, bytes) != 0) {
        error = errno;
    }
    if (error == EOPNOTSUPP) {
        error = ::posix_fallocate(fd, first, bytes);
    }
    if (error == 0 && ::fsync(fd) != 0) {
        error = errno;
    }
    if (error == 0) {
        error = sync_directory_of(spec.path);
    }
    if (error == 0) {
        return {};
    }
    if (is_new) {
        ::unlink(spec.path.c_str());
    }
    return std::unexpected(open_error(spec, error));
}

void read_direct_alignment(int fd, OpenedFile& file) {
    struct statx st{};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN) != 0 &&
        st.stx_dio_offset_align != 0) {
        file.offset_alignment = std::max(kSectorBytes, st.stx_dio_offset_align);
        file.memory_alignment = std::max(1U, st.stx_dio_mem_align);
    }
}

Result<void> check_size(const BackendSpec& spec, OpenedFile& file) {
    file.bytes = round_down(file.bytes, std::max(kSectorBytes, file.offset_alignment));
    if (file.bytes == 0) {
        return fail(Errc::kSizeMismatch,
                    file.name + " is empty" + (spec.kind == "file" ? "; create = true and a size would fill it" : ""));
    }
    if (file.bytes < spec.bytes) {
        return fail(Errc::kSizeMismatch, file.name + " has " + std::to_string(file.bytes) +
                                             " bytes, the configuration asks for " + std::to_string(spec.bytes));
    }
    return {};
}

/// The locked descriptor becomes a device. `is_new`: this call has made the file.
Result<OpenedFile> prepare_file(const BackendSpec& spec, Descriptor& fd, bool is_new) {
    struct stat st{};
    if (::fstat(fd.get(), &st) != 0) {
        return std::unexpected(open_error(spec, errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return fail(Errc::kInvalidArgument,
                    "'" + spec.path + "' is not a regular file; kind = \"block\" is for devices");
    }
    OpenedFile file;
    file.name = "file:" + spec.path;
    file.locked = true;
    file.bytes = static_cast<std::uint64_t>(st.st_size);
    // A file of no size is left over from a start that was interrupted between making it and allocating it.
    if (file.bytes == 0 && spec.create) {
        file.bytes = spec.bytes;
    }
    read_direct_alignment(fd.get(), file);
    TRY_VOID(check_size(spec, file));
    file.thin = spec.thin;
    const std::uint64_t present = static_cast<std::uint64_t>(st.st_blocks) * 512;
    // A thin member has holes where hosts have discarded; one that nobody has written yet gets all, for its areas.
    if (present < file.bytes && (!spec.thin || present == 0)) {
        TRY_VOID(allocate_space(spec, fd.get(), {0, file.bytes}, file.bytes - present, is_new));
    }
    file.fd = fd.take();
    return file;
}

Result<OpenedFile> prepare_block_device(const BackendSpec& spec, Descriptor& fd) {
    struct stat st{};
    if (::fstat(fd.get(), &st) != 0) {
        return std::unexpected(open_error(spec, errno));
    }
    if (!S_ISBLK(st.st_mode)) {
        return fail(Errc::kInvalidArgument, "'" + spec.path + "' is not a block device; kind = \"file\" is for files");
    }
    OpenedFile file;
    file.name = "block:" + spec.path;
    int logical = static_cast<int>(kSectorBytes);
    unsigned physical = kBlockBytes;
    if (::ioctl(fd.get(), BLKGETSIZE64, &file.bytes) != 0 || ::ioctl(fd.get(), BLKSSZGET, &logical) != 0) {
        return std::unexpected(open_error(spec, errno));
    }
    // A device that does not tell its physical block is taken as one of 4 KiB.
    ::ioctl(fd.get(), BLKPBSZGET, &physical);
    file.offset_alignment = static_cast<std::uint32_t>(logical);
    file.memory_alignment = static_cast<std::uint32_t>(logical);
    file.physical_bytes = physical;
    file.thin = spec.thin;
    TRY_VOID(check_size(spec, file));
    file.fd = fd.take();
    return file;
}

/// What an opened file or device has now, in whole sectors of it.
Result<std::uint64_t> present_bytes(const BackendSpec& spec, const OpenedFile& file, struct stat& st) {
    std::uint64_t bytes = 0;
    if (::fstat(file.fd, &st) != 0) {
        return std::unexpected(open_error(spec, errno));
    }
    if (S_ISREG(st.st_mode)) {
        bytes = static_cast<std::uint64_t>(st.st_size);
    } else if (::ioctl(file.fd, BLKGETSIZE64, &bytes) != 0) {
        return std::unexpected(open_error(spec, errno));
    }
    return round_down(bytes, std::max(kSectorBytes, file.offset_alignment));
}

}  // namespace

Result<void> measure_backend(BlockDevice& device) {
    auto* opened = dynamic_cast<FileDevice*>(&device);
    if (opened == nullptr) {
        return {};  // memory does not change
    }
    const OpenedFile& file = opened->file();
    const std::size_t colon = file.name.find(':');
    BackendSpec spec;
    spec.kind = file.name.substr(0, colon);
    spec.path = file.name.substr(colon + 1);
    struct stat st{};
    TRY(const std::uint64_t bytes, present_bytes(spec, file, st));
    const std::uint64_t known = bytes_of(opened->limits().sectors);
    if (bytes < known) {
        return fail(Errc::kSizeMismatch, file.name + " has " + std::to_string(bytes) + " bytes now and had " +
                                             std::to_string(known) + ": a member cannot shrink. Give it its size back");
    }
    // What it had before is not looked at: a thin one has holes there.
    if (S_ISREG(st.st_mode) && bytes > known) {
        const std::uint64_t present = static_cast<std::uint64_t>(st.st_blocks) * 512;
        const std::uint64_t missing = std::min(bytes - known, bytes - std::min(bytes, present));
        TRY_VOID(allocate_space(spec, file.fd, {known, bytes}, missing, /*is_new=*/false));
    }
    opened->extend(sectors_of(bytes));
    return {};
}

Task<DeviceResult> open_file_backend(Environment environment, BackendSpec spec) {
    Descriptor fd = open_direct(spec.path, 0);
    bool is_new = false;
    if (fd.get() < 0 && errno == ENOENT && spec.create) {
        if (spec.bytes == 0) {
            co_return fail(Errc::kInvalidArgument, "file '" + spec.path + "' does not exist and its size is not given");
        }
        fd = open_direct(spec.path, O_CREAT | O_EXCL);
        is_new = fd.get() >= 0;
    }
    if (fd.get() < 0) {
        co_return std::unexpected(open_error(spec, errno));
    }
    const int error = co_await wait_while_busy(&environment.clock, spec.wait, EWOULDBLOCK, [raw = fd.get()] {
        return ::flock(raw, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    });
    if (error == EWOULDBLOCK) {
        co_return std::unexpected(busy_error(spec, holder_of_file(fd.get())));
    }
    if (error != 0) {
        co_return std::unexpected(open_error(spec, error));
    }
    CO_TRY(OpenedFile file, prepare_file(spec, fd, is_new));
    co_return std::make_unique<FileDevice>(environment, std::move(file));
}

Task<DeviceResult> open_block_backend(Environment environment, BackendSpec spec) {
    struct stat st{};
    if (::stat(spec.path.c_str(), &st) != 0) {
        co_return std::unexpected(open_error(spec, errno));
    }
    if (!S_ISBLK(st.st_mode)) {
        co_return fail(Errc::kInvalidArgument,
                       "'" + spec.path + "' is not a block device; kind = \"file\" is for files");
    }
    int raw = -1;
    const int error = co_await wait_while_busy(&environment.clock, spec.wait, EBUSY, [&raw, path = spec.path] {
        raw = open_direct(path, O_EXCL).take();
        return raw >= 0 ? 0 : errno;
    });
    if (error == EBUSY) {
        co_return std::unexpected(busy_error(spec, holder_of_block_device(spec.path)));
    }
    if (error != 0) {
        co_return std::unexpected(open_error(spec, error));
    }
    Descriptor fd(raw);
    CO_TRY(OpenedFile file, prepare_block_device(spec, fd));
    co_return std::make_unique<FileDevice>(environment, std::move(file));
}

}  // namespace gemel
