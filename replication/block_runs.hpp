// SPDX-License-Identifier: Apache-2.0
// Runs of blocks of a slice that can, or cannot, be read.
// Threads: any; plain functions.
#pragma once

#include <algorithm>
#include <vector>

#include "gemel/buffer.hpp"

namespace gemel::replication {

/// Blocks `first` to `end` - 1 of a slice.
struct BlockRun {
    std::size_t first = 0;
    std::size_t end = 0;
    [[nodiscard]] std::size_t size() const { return end - first; }
    /// REQUIRES: the slice begins at a 4 KiB address.
    [[nodiscard]] Slice of(const Slice& whole) const {
        const std::size_t from = first * kBlockBytes;
        return whole.sub(from, std::min(end * kBlockBytes, whole.size()) - from);
    }
    /// Where it begins, of a slice that begins at `whole`, a 4 KiB address.
    [[nodiscard]] Lba lba(Lba whole) const { return whole + first * kSectorsPerBlock; }
};

/// The runs of at most `most` blocks that are unreadable, or (kOk) of those that are not.
inline std::vector<BlockRun> runs_of(std::span<const BlockInfo> blocks, BlockStatus status,
                                     std::size_t most = SIZE_MAX) {
    const bool wanted = status == BlockStatus::kUnreadable;
    std::vector<BlockRun> out;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if ((blocks[i].status == BlockStatus::kUnreadable) != wanted) {
            continue;
        }
        if (out.empty() || out.back().end != i || out.back().size() == most) {
            out.push_back({i, i});
        }
        ++out.back().end;
    }
    return out;
}

}  // namespace gemel::replication
