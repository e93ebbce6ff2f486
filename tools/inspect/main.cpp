// SPDX-License-Identifier: Apache-2.0
// gemel-inspect: shows what lies on members of an array, offline and without writing.
// Threads: one.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "tools/inspect/render.hpp"

namespace {

using namespace gemel;

enum ExitCode : int { kGood = 0, kProblems = 1, kUsage = 2, kNotAMember = 3 };

class FileImage final : public inspect::MemberImage {
  public:
    FileImage(int fd, std::uint64_t bytes) : fd_(fd), bytes_(bytes) {}
    ~FileImage() override { ::close(fd_); }
    FileImage(const FileImage&) = delete;
    FileImage& operator=(const FileImage&) = delete;

    [[nodiscard]] std::uint64_t bytes() const override { return bytes_; }
    bool read(std::uint64_t offset, MutableBytes to) override {
        while (!to.empty()) {
            const ssize_t n = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(offset));
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                return false;
            }
            to = to.subspan(static_cast<std::size_t>(n));
            offset += static_cast<std::uint64_t>(n);
        }
        return true;
    }

  private:
    int fd_;
    std::uint64_t bytes_;
};

/// nullptr with errno set, or 0 if it is neither a file nor a block device.
std::unique_ptr<FileImage> open_image(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return nullptr;
    }
    struct stat st{};
    std::uint64_t bytes = 0;
    int error = ::fstat(fd, &st) == 0 ? 0 : errno;
    bool known = error == 0 && S_ISREG(st.st_mode);
    if (known) {
        bytes = static_cast<std::uint64_t>(st.st_size);
    } else if (error == 0 && S_ISBLK(st.st_mode)) {
        known = ::ioctl(fd, BLKGETSIZE64, &bytes) == 0;
        error = known ? 0 : errno;
    }
    if (known) {
        return std::make_unique<FileImage>(fd, bytes);
    }
    ::close(fd);
    errno = error;
    return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Shows the superblocks, tables and log on members of an array; reads only. The daemon need not run; where\n"
        "it does, what is read may be of different moments.");
    std::vector<std::string> paths;
    bool json = false;
    app.add_option("MEMBER", paths, "files or block devices, in any order")->required();
    app.add_flag("--json", json, "one JSON object");
    app.footer(
        "exit codes: 0 good, 1 problems found, 2 wrong arguments or a member that cannot be opened,\n"
        "3 no superblock on any of them");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? kGood : kUsage;
    }
    std::vector<std::unique_ptr<FileImage>> files;
    std::vector<inspect::MemberImage*> images;
    for (const std::string& path : paths) {
        auto image = open_image(path);
        if (image == nullptr) {
            std::fprintf(stderr, "gemel-inspect: %s: %s\n", path.c_str(),
                         errno != 0 ? std::strerror(errno) : "neither a file nor a block device");
            return kUsage;
        }
        images.push_back(image.get());
        files.push_back(std::move(image));
    }
    const inspect::Report report = inspect::look_at(paths, images);
    const std::string text = json ? boost::json::serialize(inspect::as_json(report)) + "\n" : inspect::as_text(report);
    std::fputs(text.c_str(), stdout);
    return !report.newest ? kNotAMember : report.problems.empty() ? kGood : kProblems;
}
