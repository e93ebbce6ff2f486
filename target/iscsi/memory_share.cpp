// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/memory_share.hpp"

#include <algorithm>
#include <bit>

#include "gemel/units.hpp"

namespace gemel::iscsi {

std::size_t pool_bytes(std::size_t bytes) {
    return bytes == 0 ? 0 : std::bit_ceil(std::max<std::size_t>(bytes, kBlockBytes));
}

std::size_t MemoryBudget::room(std::size_t held, std::size_t used) const {
    // The most for which held + room <= bytes - (used + room).
    return used + held >= bytes_ ? 0 : (bytes_ - used - held) / 2;
}

std::size_t MemoryBudget::room(std::size_t held) const {
    return room(held, used());
}

bool MemoryBudget::take(std::size_t held, std::size_t bytes) {
    std::size_t used = used_.load(std::memory_order_relaxed);
    do {
        if (bytes > room(held, used)) {
            return false;
        }
    } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    return true;
}

MemoryShare::Grant MemoryShare::take(std::size_t bytes) {
    const std::size_t wanted = pool_bytes(bytes);
    if (held_ + wanted > taken_) {
        const std::size_t missing = held_ + wanted - taken_;
        const std::size_t steps = round_up(missing, kStep);
        if (budget_.take(taken_, steps)) {
            taken_ += steps;
        } else if (budget_.take(taken_, missing)) {
            taken_ += missing;
        } else {
            return {};
        }
    }
    held_ += wanted;
    return {*this, wanted};
}

void MemoryShare::give_back(std::size_t bytes) {
    held_ -= bytes;
    const std::size_t keep = held_ == 0 ? 0 : held_ + kStep;
    if (taken_ > keep + kStep || (held_ == 0 && taken_ > 0)) {
        budget_.give_back(taken_ - keep);
        taken_ = keep;
    }
}

void MemoryShare::Grant::shrink(std::size_t bytes) {
    if (bytes_ > bytes) {
        const std::size_t before = std::exchange(bytes_, bytes);
        share_->give_back(before - bytes);
    }
}

}  // namespace gemel::iscsi
