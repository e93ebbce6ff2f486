// SPDX-License-Identifier: Apache-2.0
#include "target/runtime/space_probe.hpp"

#include <sys/statvfs.h>

#include <system_error>
#include <thread>

namespace gemel {

/// As df(1) counts: what only root may use is neither used nor free.
std::optional<std::uint32_t> used_percent(const std::string& path) {
    struct statvfs fs{};
    if (::statvfs(path.c_str(), &fs) != 0 || fs.f_blocks == 0) {
        return std::nullopt;
    }
    const std::uint64_t used = fs.f_blocks - fs.f_bfree;
    return used + fs.f_bavail == 0 ? 100U : static_cast<std::uint32_t>(used * 100 / (used + fs.f_bavail));
}

void ask_beside(std::optional<std::uint32_t> (*ask)(const std::string& path), std::string path,
                std::shared_ptr<SpaceAnswer> answer) {
    try {
        std::thread([ask, path = std::move(path), answer] {
            answer->used = ask(path);
            answer->there.store(true, std::memory_order_release);
        }).detach();  // SB1
    } catch (const std::system_error&) {
        answer->there.store(true, std::memory_order_release);
    }
}

}  // namespace gemel
