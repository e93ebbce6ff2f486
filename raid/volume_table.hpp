// SPDX-License-Identifier: Apache-2.0
// The volume table: which extents of an array's data belong to which volume. Plain functions over the records of the
// superblock; durability is the caller's.
// Threads: any.
#pragma once

#include <vector>

#include "gemel/random.hpp"
#include "raid/array.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid {

/// Sectors are given out in multiples of this: 1 MiB, or 64 KiB in arrays below 64 MiB.
std::uint64_t allocation_unit(SectorCount array_sectors);

/// Free ranges of the array, ascending, whole units.
std::vector<VolumeExtent> free_extents(const std::vector<VolumeRecord>& volumes, SectorCount array_sectors);
SectorCount free_sectors(const std::vector<VolumeRecord>& volumes, SectorCount array_sectors);

/// Adds a volume. Errors: kAlreadyExists, kInvalidArgument (name), kNoSpace.
Result<void> add_volume(Superblock& superblock, const VolumeSpec& spec, SectorCount array_sectors, Random& random);

/// Grows `volume` (the last extent first, then others), or shrinks it and gives whole units back.
/// Errors: kInvalidArgument (zero, or not a multiple of 4 KiB), kNoSpace (says how much is free).
Result<void> resize_volume(Superblock& superblock, VolumeRecord& volume, SectorCount sectors,
                           SectorCount array_sectors);

}  // namespace gemel::raid
