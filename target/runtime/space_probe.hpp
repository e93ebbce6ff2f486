// SPDX-License-Identifier: Apache-2.0
// How full the file system of a path is, found out on a thread of its own: one that hangs, as a network file system
// does whose server is gone, holds up nobody.
//
// Invariants:
//   SB1 Nobody waits for the thread: what it uses it owns together with who asked. (A system call that cannot be
//       interrupted keeps a process from its end all the same, as any I/O on that file system does.)
// Threads: any may ask; the answer is written by one, and read when it is there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace gemel {

struct SpaceAnswer {
    std::optional<std::uint32_t> used;  ///< percent, rounded down; nothing if the file system does not say
    std::atomic<bool> there{false};     ///< `used` is set, and does not change any more
};

/// How much of the file system that holds `path` is used. Blocks for as long as that takes.
std::optional<std::uint32_t> used_percent(const std::string& path);

/// Asks a function that may block for ever, on a thread of its own. Without a thread the answer is nothing, at once.
void ask_beside(std::optional<std::uint32_t> (*ask)(const std::string& path), std::string path,
                std::shared_ptr<SpaceAnswer> answer);

}  // namespace gemel
