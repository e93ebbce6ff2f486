// SPDX-License-Identifier: Apache-2.0
// Choice of the next command; see workload.hpp.
#include "tools/loadgen/workload.hpp"

#include <algorithm>

#include "gemel/units.hpp"

namespace gemel::loadgen {
namespace {

std::uint64_t span_end(const Options& options, std::uint64_t capacity) {
    const std::uint64_t first = options.first_byte / kSectorBytes;
    const std::uint64_t span = options.span_bytes / kSectorBytes;
    return span == 0 ? capacity : std::min(capacity, first + span);
}

}  // namespace

Workload::Workload(const Options& options, std::uint64_t capacity, Ledger* ledger)
    : options_(options),
      ledger_(ledger),
      first_(options.check ? 0 : options.first_byte / kSectorBytes),
      unit_sectors_(options.block_bytes / kSectorBytes),
      units_(0),
      random_(options.seed) {
    const std::uint64_t end = options.check ? capacity : span_end(options, capacity);
    if (end > first_) {
        // A check also reads the odd piece at the end; a workload has only whole units.
        units_ = options.check ? (end - first_ + unit_sectors_ - 1) / unit_sectors_ : (end - first_) / unit_sectors_;
    }
    for (std::uint32_t s = 0; s < options.sessions; ++s) {
        cursors_.push_back(units_ * s / options.sessions);
    }
    if (ledger_ != nullptr) {
        claimed_.resize(units_, false);
        random_.seed(options.seed + ledger_->next_sequence());  // every run over one ledger takes another path
    }
}

std::string Workload::why_unusable() const {
    if (options_.block_bytes % kSectorBytes != 0 || options_.first_byte % kSectorBytes != 0) {
        return "--block-size and --first must be multiples of 512";
    }
    const std::uint64_t in_flight = std::uint64_t{options_.sessions} * options_.depth;
    if (units_ == 0 || (ledger_ != nullptr && !options_.check && units_ < in_flight)) {
        return "the span holds " + std::to_string(units_) + " commands of " + std::to_string(options_.block_bytes) +
               " bytes, fewer than are to be in flight; use a larger --span or a smaller --block-size or --depth";
    }
    return {};
}

std::optional<Operation> Workload::next(std::uint32_t session) {
    if (options_.check) {
        return next_check();
    }
    if (options_.operations != 0 && issued_ >= options_.operations) {
        return std::nullopt;
    }
    std::uint64_t unit = 0;
    if (options_.sequential) {
        unit = cursors_[session];
    } else {
        unit = random_() % units_;
    }
    const auto claimed = claim_near(unit);
    if (!claimed) {
        return std::nullopt;
    }
    cursors_[session] = (*claimed + 1) % units_;
    ++issued_;
    Operation operation;
    operation.lba = first_ + *claimed * unit_sectors_;
    operation.sectors = unit_sectors_;
    operation.read = random_() % 100 < options_.read_percent;
    operation.fua = !operation.read && random_() % 100 < options_.fua_percent;
    if (!operation.read && ledger_ != nullptr) {
        operation.sequence = ledger_->next_sequence();
    }
    return operation;
}

std::optional<Operation> Workload::next_check() {
    while (check_unit_ < units_) {
        const std::uint64_t lba = check_unit_++ * unit_sectors_;
        const std::uint64_t sectors = std::min(unit_sectors_, ledger_->sectors() - lba);
        if (ledger_->owes(lba, sectors)) {  // W2
            return Operation{.lba = lba, .sectors = sectors};
        }
    }
    return std::nullopt;
}

std::optional<std::uint64_t> Workload::claim_near(std::uint64_t unit) {
    if (claimed_.empty()) {
        return unit;
    }
    for (std::uint64_t tried = 0; tried < units_; ++tried) {
        if (!claimed_[unit]) {
            claimed_[unit] = true;
            return unit;
        }
        unit = (unit + 1) % units_;
    }
    return std::nullopt;
}

void Workload::release(const Operation& operation) {
    if (!claimed_.empty() && !options_.check) {
        claimed_[(operation.lba - first_) / unit_sectors_] = false;
    }
}

}  // namespace gemel::loadgen
