// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/secrets_file.hpp"

#include <fmt/format.h>

#include <filesystem>

#include "target/runtime/guarded_file.hpp"

namespace gemel {

namespace {
constexpr std::size_t kMostBytes = 1U << 20U;
}  // namespace

std::expected<config::Secrets, std::string> read_secrets(const config::Config& config, const std::string& config_file,
                                                         const std::string& state_dir) {
    if (config.chap.secrets.empty()) {
        return config::Secrets{};
    }
    const std::string path = (std::filesystem::path(state_dir) / config.chap.secrets).string();
    const auto text = read_guarded_file(path, kMostBytes);
    if (!text) {
        return std::unexpected(fmt::format("the secrets file {}: {}\n", path, text.error().message));
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
