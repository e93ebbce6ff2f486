// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/state_directory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <utility>

#include "gemel/crc32c.hpp"

namespace gemel {

namespace {

constexpr int kPollMs = 50;
constexpr std::string_view kCreated = "/created";
constexpr std::string_view kDefinition = ".toml";
constexpr std::string_view kSpares = "/spares";
constexpr std::string_view kFirstLine = "gemel-array-record 1\n";
constexpr std::string_view kSparesFirstLine = "gemel-spares 1\n";
constexpr std::string_view kSpareLine = "spare ";

std::unexpected<Error> system_error(std::string_view what, const std::string& path) {
    const int number = errno;
    const Errc code = number == EACCES || number == EPERM || number == EROFS ? Errc::kRefused
                      : number == ENOSPC || number == EDQUOT                 ? Errc::kNoSpace
                                                                             : Errc::kIo;
    return fail(code, fmt::format("cannot {} {}: {}", what, path, std::strerror(number)));
}

/// Closes a descriptor at the end of a scope.
class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() {
        if (number_ >= 0) {
            ::close(number_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    [[nodiscard]] int get() const { return number_; }
    int release() { return std::exchange(number_, -1); }

  private:
    int number_;
};

Result<std::string> read_all(int descriptor, const std::string& path) {
    std::string out;
    std::array<char, 4096> chunk;
    for (;;) {
        const ssize_t n = ::pread(descriptor, chunk.data(), chunk.size(), static_cast<off_t>(out.size()));
        if (n < 0) {
            return system_error("read", path);
        }
        if (n == 0 || out.size() > 65536) {
            return out;
        }
        out.append(chunk.data(), static_cast<std::size_t>(n));
    }
}

Result<void> write_all(int descriptor, std::string_view text, const std::string& path) {
    while (!text.empty()) {
        const ssize_t n = ::write(descriptor, text.data(), text.size());
        if (n < 0) {
            return system_error("write", path);
        }
        text.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
}

Result<void> sync_directory(const std::string& path) {
    const Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0 || ::fsync(directory.get()) != 0) {
        return system_error("sync", path);
    }
    return {};
}

Result<void> make_directory(const std::string& path) {
    std::error_code bad;
    const std::filesystem::path parent = std::filesystem::path(path).parent_path();
    std::filesystem::create_directories(parent, bad);
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
        return system_error("make the directory", path);
    }
    return {};
}

/// "process 4711 (gemeld)", as the holder wrote into the lock file.
std::string holder_of(int lock, const std::string& path) {
    const std::string written = read_all(lock, path).value_or("");
    int pid = 0;
    if (std::from_chars(written.data(), written.data() + written.size(), pid).ec != std::errc{} || pid <= 0) {
        return "another process";
    }
    // The command line, since the name of a process is that of its main thread.
    const Descriptor command(::open(fmt::format("/proc/{}/cmdline", pid).c_str(), O_RDONLY | O_CLOEXEC));
    std::string name = command.get() >= 0 ? read_all(command.get(), "").value_or("") : "";
    name = std::filesystem::path(name.substr(0, name.find('\0'))).filename().string();
    return name.empty() ? fmt::format("process {}", pid) : fmt::format("process {} ({})", pid, name);
}

}  // namespace

namespace {

/// With a last line that says its checksum.
std::string sealed(std::string text) {
    text += fmt::format("crc {:08x}\n", crc32c(as_bytes_of(text)));
    return text;
}

/// What sealed() was given. Errors: kCorrupt.
Result<std::string_view> unsealed(std::string_view text, std::string_view first_line, std::string_view what) {
    const std::size_t crc_line = text.rfind("crc ");
    if (!text.starts_with(first_line) || crc_line == std::string_view::npos || !text.ends_with('\n')) {
        return fail(Errc::kCorrupt, fmt::format("it is not {} of version 1", what));
    }
    std::uint32_t crc = 0;
    const std::string_view digits = text.substr(crc_line + 4, text.size() - crc_line - 5);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), crc, 16);
    if (error != std::errc{} || end != digits.data() + digits.size() ||
        crc != crc32c(as_bytes_of(text.substr(0, crc_line)))) {
        return fail(Errc::kCorrupt, "its checksum is wrong");
    }
    return text.substr(0, crc_line);
}

}  // namespace

std::string encode_record(const ArrayRecord& record) {
    std::string text(kFirstLine);
    text += record.state == ArrayRecord::State::kFormatted ? "state formatted\n" : "state formatting\n";
    text += "uuid " + record.uuid.text() + "\n";
    for (const std::uint64_t bytes : record.bytes) {
        text += fmt::format("device {}\n", bytes);
    }
    return sealed(std::move(text));
}

std::string encode_spares(const std::vector<AddedSpare>& spares) {
    std::string text(kSparesFirstLine);
    for (const AddedSpare& spare : spares) {
        text += fmt::format("{}{} {} {}\n", kSpareLine, spare.kind, spare.bytes, spare.path);
    }
    return sealed(std::move(text));
}

Result<std::vector<AddedSpare>> decode_spares(std::string_view text) {
    TRY(std::string_view lines, unsealed(text, kSparesFirstLine, "a list of spares"));
    lines.remove_prefix(kSparesFirstLine.size());
    std::vector<AddedSpare> out;
    while (!lines.empty()) {
        std::string_view line = lines.substr(0, lines.find('\n'));
        lines.remove_prefix(std::min(lines.size(), line.size() + 1));
        line.remove_prefix(std::min(line.size(), kSpareLine.size()));
        AddedSpare spare;
        spare.kind = line.substr(0, line.find(' '));
        line.remove_prefix(std::min(line.size(), spare.kind.size() + 1));
        const auto number = std::from_chars(line.data(), line.data() + line.size(), spare.bytes);
        const auto digits = static_cast<std::size_t>(number.ptr - line.data());
        if (number.ec != std::errc{} || digits + 1 >= line.size()) {
            return fail(Errc::kCorrupt, "a line of it names no spare");
        }
        spare.path = line.substr(digits + 1);
        out.push_back(std::move(spare));
    }
    return out;
}

Result<ArrayRecord> decode_record(std::string_view sealed_text) {
    TRY(const std::string_view text, unsealed(sealed_text, kFirstLine, "an array record"));
    const std::size_t crc_line = text.size();
    // The checksum is right: it was written by us, in the fixed layout of encode_record().
    ArrayRecord record;
    record.state = text.find("state formatted\n") != std::string_view::npos ? ArrayRecord::State::kFormatted
                                                                            : ArrayRecord::State::kFormatting;
    const std::size_t uuid = text.find("uuid ");
    if (uuid == std::string_view::npos || uuid + 5 + 32 > crc_line) {
        return fail(Errc::kCorrupt, "it has no uuid");
    }
    const std::optional<Uuid> id = Uuid::parse(text.substr(uuid + 5, 32));
    if (!id) {
        return fail(Errc::kCorrupt, "its uuid has other characters than hexadecimal digits");
    }
    record.uuid = *id;
    constexpr std::string_view kDevice = "\ndevice ";
    for (std::size_t at = text.find(kDevice); at < crc_line; at = text.find(kDevice, at + 1)) {
        std::uint64_t bytes = 0;
        const char* number = text.data() + at + kDevice.size();
        if (std::from_chars(number, text.data() + crc_line, bytes).ec != std::errc{}) {
            return fail(Errc::kCorrupt, "a size in it is no number");
        }
        record.bytes.push_back(bytes);
    }
    return record;
}

Result<StateDirectory> StateDirectory::open(std::string path, Duration wait) {
    std::error_code bad;
    path = std::filesystem::absolute(path, bad).lexically_normal().string();
    while (path.size() > 1 && path.ends_with('/')) {
        path.pop_back();
    }
    TRY_VOID(make_directory(path));
    TRY_VOID(make_directory(path + "/arrays"));
    TRY_VOID(make_directory(path + std::string(kCreated)));
    TRY_VOID(make_directory(path + std::string(kSpares)));
    const std::string lock_path = path + "/lock";
    Descriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (lock.get() < 0) {
        return system_error("open", lock_path);
    }
    for (Duration waited{}; ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0; waited += std::chrono::milliseconds(kPollMs)) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return system_error("lock", lock_path);
        }
        if (waited >= wait) {
            return fail(Errc::kBusy,
                        fmt::format("the state directory {} is in use by {}; stop it first, or give another "
                                    "--state-dir",
                                    path, holder_of(lock.get(), lock_path)));
        }
        ::poll(nullptr, 0, kPollMs);
    }
    if (::ftruncate(lock.get(), 0) != 0) {
        return system_error("write", lock_path);
    }
    TRY_VOID(write_all(lock.get(), std::to_string(::getpid()) + "\n", lock_path));
    return StateDirectory(std::move(path), lock.release());
}

StateDirectory::StateDirectory(StateDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

StateDirectory& StateDirectory::operator=(StateDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(lock_, other.lock_);
    return *this;
}

StateDirectory::~StateDirectory() {
    if (lock_ >= 0) {
        ::close(lock_);
    }
}

std::string StateDirectory::resolve(std::string_view path) const {
    return (std::filesystem::path(path_) / path).lexically_normal().string();
}

std::string StateDirectory::record_path(const std::string& array) const {
    return path_ + "/arrays/" + array;
}

Result<std::optional<ArrayRecord>> StateDirectory::array_record(const std::string& array) const {
    const std::string path = record_path(array);
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
        if (errno == ENOENT) {
            return std::nullopt;
        }
        return system_error("open", path);
    }
    TRY(const std::string text, read_all(file.get(), path));
    auto record = decode_record(text);
    if (!record) {
        return fail(Errc::kCorrupt,
                    fmt::format("the record of array '{}' in {} is damaged: {}; if its members hold the array, remove "
                                "the record and set create = false",
                                array, path, record.error().message));
    }
    return *record;
}

namespace {

/// SD2.
Result<void> put_file(const std::string& path, std::string_view text) {
    const std::string draft = path + "#";  // no array's name has a '#'
    {
        const Descriptor file(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        if (file.get() < 0) {
            return system_error("make", draft);
        }
        TRY_VOID(write_all(file.get(), text, draft));
        if (::fsync(file.get()) != 0) {
            return system_error("sync", draft);
        }
    }
    if (::rename(draft.c_str(), path.c_str()) != 0) {
        return system_error("rename to", path);
    }
    return sync_directory(std::filesystem::path(path).parent_path().string());
}

Result<void> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return system_error("remove", path);
    }
    return sync_directory(std::filesystem::path(path).parent_path().string());
}

}  // namespace

Result<void> StateDirectory::write_array_record(const std::string& array, const ArrayRecord& record) {
    return put_file(record_path(array), encode_record(record));
}

Result<void> StateDirectory::remove_array_record(const std::string& array) {
    return remove_file(record_path(array));
}

std::string StateDirectory::created_path(const std::string& array) const {
    return path_ + std::string(kCreated) + "/" + array + std::string(kDefinition);
}

Result<void> StateDirectory::write_created(const CreatedArray& array) {
    return put_file(created_path(array.name), array.definition);
}

Result<void> StateDirectory::remove_created(const std::string& array) {
    return remove_file(created_path(array));
}

std::string StateDirectory::spares_path(const std::string& array) const {
    return path_ + std::string(kSpares) + "/" + array;
}

Result<void> StateDirectory::write_added_spares(const std::string& array, const std::vector<AddedSpare>& spares) {
    const std::string path = spares_path(array);
    return spares.empty() ? remove_file(path) : put_file(path, encode_spares(spares));
}

Result<std::vector<AddedSpare>> StateDirectory::added_spares(const std::string& array) const {
    const std::string path = spares_path(array);
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
        if (errno == ENOENT) {
            return std::vector<AddedSpare>{};
        }
        return system_error("open", path);
    }
    TRY(const std::string text, read_all(file.get(), path));
    auto spares = decode_spares(text);
    if (!spares) {
        return fail(Errc::kCorrupt, fmt::format("the spares of array '{}' in {} cannot be told: {}; remove it, and add "
                                                "the spares again, or name them in the configuration",
                                                array, path, spares.error().message));
    }
    return spares;
}

Result<std::vector<CreatedArray>> created_arrays(const std::string& state_directory) {
    std::vector<CreatedArray> out;
    std::error_code bad;
    for (const auto& entry : std::filesystem::directory_iterator(state_directory + std::string(kCreated), bad)) {
        const std::string path = entry.path().string();
        if (entry.path().extension() != kDefinition) {
            continue;
        }
        const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (file.get() < 0) {
            return system_error("open", path);
        }
        TRY(std::string text, read_all(file.get(), path));
        out.push_back({entry.path().stem().string(), std::move(text)});
    }
    std::ranges::sort(out, {}, &CreatedArray::name);
    return out;
}

}  // namespace gemel
