// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/child_process.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "target/runtime/readiness.hpp"

namespace gemel {

namespace {

constexpr std::size_t kMostOfErrors = 1U << 20U;  ///< what a program writes beyond is an error to it
constexpr std::size_t kMostOfLine = 300;

/// Memory as a file.
class MemoryFile {
  public:
    /// `fixed`: its size for ever, filled with zeros; 0: as what is written.
    explicit MemoryFile(std::size_t fixed = 0) : fd_(::memfd_create("gemel", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
        if (fd_ >= 0 && fixed > 0) {
            good_ = ::ftruncate(fd_, static_cast<off_t>(fixed)) == 0 &&
                    ::fcntl(fd_, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0;
        }
    }
    ~MemoryFile() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    [[nodiscard]] int fd() const { return fd_; }
    [[nodiscard]] bool good() const { return fd_ >= 0 && good_; }
    [[nodiscard]] bool fill(const std::string& text) const {
        return fd_ >= 0 && ::pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
    }
    [[nodiscard]] std::string first_line() const {
        std::array<char, kMostOfLine> text{};
        const ssize_t n = ::pread(fd_, text.data(), text.size(), 0);
        const std::string all(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
        return all.substr(0, all.find_first_of(std::string_view("\n\0", 2)));
    }

  private:
    const int fd_;
    bool good_ = true;
};

/// CH1. The error number of posix_spawnp.
int spawn(pid_t& pid, const std::vector<std::string>& arguments, int input, int errors) {
    std::vector<char*> argv;
    for (const std::string& a : arguments) {
        argv.push_back(const_cast<char*>(a.c_str()));
    }
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, errors, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_t how;
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&how, 0);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&how, &signals);
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&how, &signals);
    const int error = ::posix_spawnp(&pid, argv[0], &files, &how, argv.data(), environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

struct KillTimer : Timer {
    explicit KillTimer(ChildProcess& c) : child(c) {
        run = [](Work& w) noexcept {
            auto& timer = static_cast<KillTimer&>(w);
            timer.fired = true;
            timer.child.kill();
        };
    }
    ChildProcess& child;
    bool fired = false;
};

}  // namespace

Task<Result<void>> ChildProcess::run(std::vector<std::string> arguments, std::string input, Duration most) {
    const MemoryFile in;
    const MemoryFile errors(kMostOfErrors);
    if (!in.fill(input) || !errors.good()) {
        co_return fail(Errc::kResources, std::string("memory for a program's input: ") + std::strerror(errno));
    }
    pid_t pid = 0;
    if (const int error = spawn(pid, arguments, in.fd(), errors.fd()); error != 0) {
        co_return fail(Errc::kNotFound, arguments[0] + " cannot be started: " + std::strerror(error));
    }
    pid_ = pid;
    killed_ = false;
    KillTimer timer(*this);
    clock_.arm(timer, clock_.now() + most);
    Readiness ended(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (ended.closed()) {
        kill();  // it could not be waited for
    }
    co_await ended.readable();
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    clock_.cancel(timer);
    pid_ = 0;
    if (timer.fired) {
        co_return fail(Errc::kTimedOut, arguments[0] + " was ended because it took too long");
    }
    if (killed_) {
        co_return fail(Errc::kAborted, arguments[0] + " was ended");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        co_return Result<void>{};
    }
    const std::string why = WIFEXITED(status) ? "ended with code " + std::to_string(WEXITSTATUS(status))
                                              : "was ended by signal " + std::to_string(WTERMSIG(status));
    const std::string text = errors.first_line();
    co_return fail(Errc::kIo, arguments[0] + " " + why + (text.empty() ? "" : ": " + text));
}

void ChildProcess::kill() {
    if (pid_ > 0) {
        killed_ = true;
        ::kill(-pid_, SIGKILL);
    }
}

}  // namespace gemel
