// SPDX-License-Identifier: Apache-2.0
#include "raid/repair_report.hpp"

#include <algorithm>
#include <utility>

namespace gemel::raid {

std::string Repairs::text(std::string_view end_of_it) const {
    const std::uint64_t unread = blocks - mismatched;
    std::string what = std::to_string(blocks) + (blocks == 1 ? " block" : " blocks") + " in sectors " +
                       std::to_string(first) + " to " + std::to_string(end);
    if (mismatched > 0 && unread > 0) {
        what += " did not match their checksums (" + std::to_string(mismatched) + ") or could not be read (" +
                std::to_string(unread) + ")";
    } else {
        what += mismatched > 0 ? " did not match the checksum" : " could not be read";
    }
    return what + (blocks == 1 ? " and was " : " and were ") + std::string(end_of_it);
}

bool RepairReport::add(std::uint32_t member, Lba member_lba, std::uint64_t blocks, bool mismatched) {
    total_.fetch_add(blocks, std::memory_order_relaxed);
    const std::uint64_t end = member_lba.value + blocks * kSectorsPerBlock;
    const std::scoped_lock lock(mutex_);
    Repairs& r = untold_[member];
    r.first = r.blocks == 0 ? member_lba.value : std::min(r.first, member_lba.value);
    r.end = std::max(r.end, end);
    r.blocks += blocks;
    r.mismatched += mismatched ? blocks : 0;
    any_ = true;
    return !std::exchange(telling_, true);
}

bool RepairReport::take(ByMember& out) {
    const std::scoped_lock lock(mutex_);
    out = std::exchange(untold_, {});
    telling_ = std::exchange(any_, false);
    return telling_;
}

}  // namespace gemel::raid
