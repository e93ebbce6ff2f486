// SPDX-License-Identifier: Apache-2.0
// What a mirrored write cannot do without: one frame of 4 KiB over a TCP connection on loopback, and a short answer.
// Prints the median round trip in microseconds. Two threads, blocking sockets, no Nagle.
// Threads: main sends, one answers.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kFrame = 80 + 4096;
constexpr std::size_t kAnswer = 80;
constexpr int kRounds = 20000;
constexpr int kWarmUp = 2000;

void require(bool good, const char* what) {
    if (!good) {
        std::perror(what);
        std::exit(1);
    }
}

bool move_all(int socket, char* data, std::size_t size, bool out) {
    while (size > 0) {
        const ssize_t n = out ? ::send(socket, data, size, 0) : ::recv(socket, data, size, 0);
        if (n <= 0) {
            return false;
        }
        data += n;
        size -= static_cast<std::size_t>(n);
    }
    return true;
}

void no_delay(int socket) {
    const int on = 1;
    require(::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
}

}  // namespace

int main() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    require(::bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0 && ::listen(listener, 1) == 0,
            "listen");
    require(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0, "getsockname");
    std::thread other([listener] {
        const int peer = ::accept(listener, nullptr, nullptr);
        require(peer >= 0, "accept");
        no_delay(peer);
        std::array<char, kFrame> frame{};
        while (move_all(peer, frame.data(), kFrame, false) && move_all(peer, frame.data(), kAnswer, true)) {
        }
        ::close(peer);
    });
    const int near = ::socket(AF_INET, SOCK_STREAM, 0);
    require(::connect(near, reinterpret_cast<sockaddr*>(&address), length) == 0, "connect");
    no_delay(near);
    std::array<char, kFrame> frame{};
    std::vector<double> times;
    for (int i = 0; i < kRounds; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        require(move_all(near, frame.data(), kFrame, true) && move_all(near, frame.data(), kAnswer, false), "exchange");
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
        if (i >= kWarmUp) {
            times.push_back(took.count());
        }
    }
    ::close(near);
    other.join();
    ::close(listener);
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    std::printf("%.2f\n", *middle);
    return 0;
}
