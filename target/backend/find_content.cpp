// SPDX-License-Identifier: Apache-2.0
// Blank or not: asks libblkid what superblocks and partition tables lie on a file or device.
// Threads: any; blocks for some disk reads.
#include <blkid/blkid.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "target/backend/backend_table.hpp"

namespace gemel {

namespace {

struct ProbeDeleter {
    void operator()(blkid_struct_probe* p) const { blkid_free_probe(p); }
};
using Probe = std::unique_ptr<blkid_struct_probe, ProbeDeleter>;

constexpr int kNothingFound = 1;
constexpr int kSeveralFound = -2;

std::string value_of(blkid_probe probe, const char* name) {
    const char* data = nullptr;
    return blkid_probe_lookup_value(probe, name, &data, nullptr) == 0 && data != nullptr ? data : "";
}

/// "ext4 file system labelled 'home'", "gpt partition table", "LVM2_member (raid)".
std::string describe(blkid_probe probe) {
    const std::string type = value_of(probe, "TYPE");
    const std::string table = value_of(probe, "PTTYPE");
    const std::string usage = value_of(probe, "USAGE");
    const std::string label = value_of(probe, "LABEL");
    if (type.empty()) {
        return table.empty() ? "data of an unknown kind" : table + " partition table";
    }
    return type + (usage == "filesystem" ? " file system" : " (" + usage + ")") +
           (label.empty() ? "" : " labelled '" + label + "'");
}

}  // namespace

Result<std::optional<std::string>> find_content(const BackendSpec& spec) {
    const BackendRow* row = find_backend(spec.kind);
    if (row == nullptr || !row->needs_path) {
        return std::nullopt;
    }
    const int fd = ::open(spec.path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return std::nullopt;
    }
    if (fd < 0) {
        return fail(errno == EACCES ? Errc::kRefused : Errc::kIo,
                    "'" + spec.path + "' cannot be looked at: " + std::strerror(errno));
    }
    struct stat st{};
    if (::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0) {
        ::close(fd);
        return std::nullopt;
    }
    const Probe probe(blkid_new_probe());
    int found = -1;
    std::string text;
    if (probe && blkid_probe_set_device(probe.get(), fd, 0, 0) == 0) {
        blkid_probe_enable_superblocks(probe.get(), 1);
        blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
        blkid_probe_enable_partitions(probe.get(), 1);
        found = blkid_do_safeprobe(probe.get());
        text = found == 0 ? describe(probe.get()) : "";
    }
    ::close(fd);
    if (found == kNothingFound) {
        return std::nullopt;
    }
    if (found == kSeveralFound) {
        return "several kinds of content at once";
    }
    if (found < 0) {
        return fail(Errc::kIo, "'" + spec.path + "' cannot be looked at: libblkid reports an error");
    }
    return text;
}

}  // namespace gemel
