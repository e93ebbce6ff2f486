// SPDX-License-Identifier: Apache-2.0
// LoopDevice: a file as a block device, where the machine and our rights allow it.
// Threads: the test's.
#pragma once

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <string>

namespace gemel::test {

class LoopDevice {
  public:
    explicit LoopDevice(const std::string& backing_file) {
        const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        const int file = ::open(backing_file.c_str(), O_RDWR | O_CLOEXEC);
        // Another process may take the free number first.
        for (int tries = 0; control >= 0 && file >= 0 && tries < 10 && fd_ < 0; ++tries) {
            attach(::ioctl(control, LOOP_CTL_GET_FREE), file);
        }
        ::close(control);
        ::close(file);
    }
    ~LoopDevice() {
        if (fd_ >= 0) {
            ::ioctl(fd_, LOOP_CLR_FD);
            ::close(fd_);
        }
    }
    LoopDevice(const LoopDevice&) = delete;
    LoopDevice& operator=(const LoopDevice&) = delete;

    [[nodiscard]] bool usable() const { return fd_ >= 0; }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    void attach(int number, int file) {
        path_ = "/dev/loop" + std::to_string(number);
        const int device = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        if (device >= 0 && ::ioctl(device, LOOP_SET_FD, file) == 0) {
            fd_ = device;
        } else if (device >= 0) {
            ::close(device);
        }
    }
    int fd_ = -1;
    std::string path_;
};

}  // namespace gemel::test
