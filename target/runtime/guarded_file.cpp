// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/guarded_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <vector>

namespace gemel {

namespace {

constexpr const char* kAclName = "system.posix_acl_access";
constexpr std::size_t kMostAclBytes = 65536;  // XATTR_SIZE_MAX

/// The attribute (linux/posix_acl_xattr.h): a version, then entries of tag, permissions and id, little-endian.
constexpr std::size_t kAclHeaderBytes = 4;
constexpr std::size_t kAclEntryBytes = 8;
constexpr std::uint32_t kAclVersion = 2;
constexpr unsigned kReadOrWrite = 06;
enum AclTag : std::uint16_t { kOwner = 0x01, kUser = 0x02, kMask = 0x10 };

struct OpenFile {
    explicit OpenFile(int fd) : descriptor(fd) {}
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;
    ~OpenFile() {
        if (descriptor >= 0) {
            ::close(descriptor);
        }
    }
    const int descriptor;
};

/// Whether it lets anybody but `user` and root read or write. One that cannot be understood does.
bool lets_others(ConstBytes acl, uid_t user) {
    if (acl.size() < kAclHeaderBytes || (acl.size() - kAclHeaderBytes) % kAclEntryBytes != 0 ||
        load_le<std::uint32_t>(acl.data()) != kAclVersion) {
        return true;
    }
    for (std::size_t at = kAclHeaderBytes; at < acl.size(); at += kAclEntryBytes) {
        const auto tag = load_le<std::uint16_t>(&acl[at]);
        const unsigned permissions = load_le<std::uint16_t>(&acl[at + 2]);
        const uid_t id = load_le<std::uint32_t>(&acl[at + 4]);
        const bool trusted = tag == kOwner || tag == kMask || (tag == kUser && (id == user || id == 0));
        if (!trusted && (permissions & kReadOrWrite) != 0) {
            return true;
        }
    }
    return false;
}

/// The access list of an open file; nothing where its mode says all.
Result<std::optional<std::vector<std::byte>>> access_list(int descriptor) {
    std::vector<std::byte> list(kMostAclBytes);
    const ssize_t n = ::fgetxattr(descriptor, kAclName, list.data(), list.size());
    if (n >= 0) {
        list.resize(static_cast<std::size_t>(n));
        return std::optional(std::move(list));
    }
    if (errno == ENODATA || errno == ENOTSUP) {
        return std::optional<std::vector<std::byte>>();
    }
    return fail(Errc::kIo, std::string("its access list cannot be read: ") + std::strerror(errno));
}

}  // namespace

Result<void> check_guard(const FileGuard& guard, uid_t user) {
    if (!S_ISREG(guard.mode)) {
        return fail(Errc::kInvalidArgument, "it is not a file");
    }
    if (guard.owner != user && guard.owner != 0) {
        return fail(Errc::kRefused, "it belongs to user " + std::to_string(guard.owner) + "; chown it to user " +
                                        std::to_string(user) + ", who runs gemeld, or to root");
    }
    const bool listed = !guard.acl.empty();
    const unsigned judged = listed ? S_IRWXO : S_IRWXG | S_IRWXO;
    if ((guard.mode & judged) != 0) {
        std::array<char, 8> mode{};
        std::snprintf(mode.data(), mode.size(), "%04o", guard.mode & 07777U);
        return fail(Errc::kRefused, "its mode is " + std::string(mode.data()) + ", so others may use it; chmod 600");
    }
    if (listed && lets_others(guard.acl, user)) {
        return fail(Errc::kRefused,
                    "its access list lets others use it; see it with getfacl, remove it with setfacl -b "
                    "and chmod 600");
    }
    return {};
}

Result<std::string> read_guarded_file(const std::string& path, std::size_t most_bytes) {
    // A pipe in its place must not make the daemon wait.
    const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (file.descriptor < 0) {
        return fail(errno == ENOENT ? Errc::kNotFound : Errc::kRefused,
                    std::string("cannot open it: ") + std::strerror(errno));
    }
    struct ::stat about{};
    if (::fstat(file.descriptor, &about) != 0) {
        return fail(Errc::kIo, std::string("cannot look at it: ") + std::strerror(errno));
    }
    TRY(const auto list, access_list(file.descriptor));
    TRY_VOID(check_guard({about.st_mode, about.st_uid, list ? ConstBytes(*list) : ConstBytes()}, ::geteuid()));
    std::string out;
    std::array<char, 4096> chunk{};
    ssize_t n = 1;
    while (n > 0 && out.size() <= most_bytes) {
        n = ::read(file.descriptor, chunk.data(), chunk.size());
        if (n < 0) {
            return fail(Errc::kIo, std::string("cannot read it: ") + std::strerror(errno));
        }
        out.append(chunk.data(), static_cast<std::size_t>(n));
    }
    if (out.size() > most_bytes) {
        return fail(Errc::kInvalidArgument, "it is longer than " + std::to_string(most_bytes) + " bytes");
    }
    return out;
}

}  // namespace gemel
