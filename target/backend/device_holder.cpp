// SPDX-License-Identifier: Apache-2.0
#include "target/backend/device_holder.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

namespace gemel {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kCommandShown = 120;

std::string describe_process(std::int64_t pid) {
    if (pid == ::getpid()) {
        return "this process itself (process " + std::to_string(pid) + "): is it a member twice?";
    }
    std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
    std::string command((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    while (command.ends_with('\0')) {
        command.pop_back();
    }
    if (command.empty()) {
        return "process " + std::to_string(pid) + ", which is just ending";
    }
    std::ranges::replace_if(command, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
    if (command.size() > kCommandShown) {
        command.resize(kCommandShown);
        command += "...";
    }
    return "process " + std::to_string(pid) + " (" + command + ")";
}

/// "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF", proc(5); the device is in hexadecimal.
std::optional<std::int64_t> holder_in_line(const std::string& line, const std::string& wanted) {
    std::istringstream words(line);
    std::string number;
    std::string kind;
    std::string advisory;
    std::string mode;
    std::string inode;
    std::int64_t pid = 0;
    words >> number >> kind >> advisory >> mode >> pid >> inode;
    // A line with "->" is a waiter.
    return words && kind == "FLOCK" && inode == wanted ? std::optional(pid) : std::nullopt;
}

bool has_open(const fs::path& process, dev_t device) {
    std::error_code error;
    for (fs::directory_iterator fd(process / "fd", error), end; !error && fd != end; fd.increment(error)) {
        struct stat st{};
        if (::stat(fd->path().c_str(), &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == device) {
            return true;
        }
    }
    return false;
}

std::optional<std::string> mount_of(dev_t device) {
    std::ifstream mounts("/proc/self/mounts");
    std::string line;
    while (std::getline(mounts, line)) {
        std::istringstream words(line);
        std::string source;
        std::string target;
        words >> source >> target;
        struct stat st{};
        if (source.starts_with('/') && ::stat(source.c_str(), &st) == 0 && S_ISBLK(st.st_mode) &&
            st.st_rdev == device) {
            return target;
        }
    }
    return std::nullopt;
}

}  // namespace

std::string holder_of_file(int fd) {
    struct stat st{};
    if (::fstat(fd, &st) != 0) {
        return "another process";
    }
    char wanted[64];
    std::snprintf(wanted, sizeof wanted, "%02x:%02x:%llu", ::major(st.st_dev), ::minor(st.st_dev),
                  static_cast<unsigned long long>(st.st_ino));
    std::ifstream locks("/proc/locks");
    std::string line;
    while (std::getline(locks, line)) {
        if (const auto pid = holder_in_line(line, wanted); pid && *pid > 0) {
            return describe_process(*pid);
        }
    }
    return "another process (not visible in /proc/locks)";
}

std::string holder_of_block_device(const std::string& path) {
    struct stat device{};
    if (::stat(path.c_str(), &device) != 0) {
        return "another user";
    }
    if (const auto mount = mount_of(device.st_rdev)) {
        return "a file system mounted on " + *mount;
    }
    std::error_code error;
    for (fs::directory_iterator process("/proc", error), end; !error && process != end; process.increment(error)) {
        const std::string name = process->path().filename();
        std::int64_t pid = 0;
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
        if (parsed.ec == std::errc{} && parsed.ptr == name.data() + name.size() &&
            has_open(process->path(), device.st_rdev)) {
            return describe_process(pid);
        }
    }
    return "the kernel or a process that is not visible here (RAID, LVM or swap on it?)";
}

}  // namespace gemel
