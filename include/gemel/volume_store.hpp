// SPDX-License-Identifier: Apache-2.0
// VolumeStore: the volumes of an array, as replication and the admin room see them (NS-3). Implemented in raid/.
// Changes are durable before they return, all or nothing: a crash leaves the old or the new table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/durable_log.hpp"

namespace gemel {

struct VolumeInfo {
    std::string name;
    std::uint16_t number = 0;  ///< stable for the life of the volume; names its log clients
    SectorCount sectors;
    Uuid uuid;
};

class VolumeStore {
  public:
    virtual ~VolumeStore() = default;
    [[nodiscard]] virtual std::vector<VolumeInfo> volumes() const = 0;
    /// The volume's device; lives as long as the store. nullptr if there is none of that name.
    virtual BlockDevice* find(std::string_view name) = 0;
    /// Grows or shrinks. New sectors have no defined content. Errors: kNotFound, kNoSpace (says how much is free).
    virtual Task<Result<void>> resize(std::string name, SectorCount sectors) = 0;
    [[nodiscard]] virtual SectorCount free_sectors() const = 0;
    virtual DurableLog& log() = 0;
};

}  // namespace gemel
