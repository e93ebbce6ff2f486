// SPDX-License-Identifier: Apache-2.0
#include "target/backend/device_bounds.hpp"

namespace gemel {

Result<void> check_bounds(const DeviceLimits& limits, const std::string& name, Lba lba, std::uint64_t bytes,
                          std::uint64_t max_bytes) {
    const std::uint64_t unit = std::uint64_t{limits.alignment_sectors} * kSectorBytes;
    if (bytes % unit != 0 || lba.value % limits.alignment_sectors != 0) {
        return fail(Errc::kInvalidArgument, name + ": sector " + std::to_string(lba.value) + ", " +
                                                std::to_string(bytes) + " bytes: not a multiple of " +
                                                std::to_string(unit) + " bytes");
    }
    if (lba > Lba(limits.sectors.value) || bytes / kSectorBytes > limits.sectors.value - lba.value) {
        return fail(Errc::kOutOfRange, name + ": sectors " + std::to_string(lba.value) + " + " +
                                           std::to_string(bytes / kSectorBytes) + " are beyond the end at " +
                                           std::to_string(limits.sectors.value));
    }
    if (bytes > max_bytes) {
        return fail(Errc::kInvalidArgument, name + ": " + std::to_string(bytes) + " bytes at once, at most " +
                                                std::to_string(max_bytes) + " are possible");
    }
    return {};
}

}  // namespace gemel
