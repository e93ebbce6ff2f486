// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/secrets_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace gemel {

namespace {

constexpr std::size_t kMostBytes = 1U << 20U;

/// The text of the file, or why not.
std::expected<std::string, std::string> read_guarded(const std::string& path) {
    // A pipe in its place must not make the daemon wait.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0) {
        return std::unexpected(fmt::format("cannot open it: {}", std::strerror(errno)));
    }
    std::expected<std::string, std::string> out;
    struct stat about{};
    if (::fstat(descriptor, &about) != 0) {
        out = std::unexpected(fmt::format("cannot look at it: {}", std::strerror(errno)));
    } else if (const auto why = why_unsafe(about.st_mode, about.st_uid, ::geteuid())) {
        out = std::unexpected(*why);
    }
    std::array<char, 4096> chunk{};
    ssize_t n = 1;
    while (out && n > 0 && out->size() <= kMostBytes) {
        n = ::read(descriptor, chunk.data(), chunk.size());
        if (n > 0) {
            out->append(chunk.data(), static_cast<std::size_t>(n));
        } else if (n < 0) {
            out = std::unexpected(fmt::format("cannot read it: {}", std::strerror(errno)));
        }
    }
    ::close(descriptor);
    if (out && out->size() > kMostBytes) {
        out = std::unexpected("it is longer than 1 MiB");
    }
    return out;
}

}  // namespace

std::optional<std::string> why_unsafe(mode_t mode, uid_t owner, uid_t user) {
    if (!S_ISREG(mode)) {
        return "it is not a file";
    }
    if (owner != user && owner != 0) {
        return fmt::format("it belongs to user {}; expected user {}, who runs gemeld, or root", owner, user);
    }
    if ((mode & (S_IRWXG | S_IRWXO)) != 0) {
        return fmt::format("its mode is {:04o}, so others may use it; expected 0600 (chmod 600)", mode & 07777U);
    }
    return std::nullopt;
}

std::expected<config::Secrets, std::string> read_secrets(const config::Config& config, const std::string& config_file,
                                                         const std::string& state_dir) {
    if (config.chap.secrets.empty()) {
        return config::Secrets{};
    }
    const std::string path = (std::filesystem::path(state_dir) / config.chap.secrets).string();
    const auto text = read_guarded(path);
    if (!text) {
        return std::unexpected(fmt::format("the secrets file {}: {}\n", path, text.error()));
    }
    auto secrets = config::parse_secrets(*text);
    if (!secrets) {
        return std::unexpected(config::render(secrets.error(), path));
    }
    if (const auto mistakes = config::check_secrets(config, *secrets); !mistakes.empty()) {
        return std::unexpected(config::render(mistakes, config_file));
    }
    return *std::move(secrets);
}

}  // namespace gemel
