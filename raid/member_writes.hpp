// SPDX-License-Identifier: Apache-2.0
// MemberWrites: what the members are to hold of a stripe of a parity array, and how it gets there.
//
// Invariants:
//   MS1 A member that does not get its part, since it is missing or was lost at the last look, has the part's entries
//       of the checksum map changed instead (CS3); nothing is waited for between that look and the writes.
//   MS2 An I/O that fails says something of the device that it was sent to, not of one that has got the place since:
//       a rebuild's device does not have the stripe, whose lock is held, yet, and a replace gives the place while no
//       such lock is held.
// Threads: the stripe's shard; devices_of, settle_missed any.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "raid/array_body.hpp"

namespace gemel::raid::detail {

/// What one member is to hold of a stripe.
struct MemberWrite {
    std::uint32_t member = 0;
    std::uint64_t tag = 0;  ///< of its device (redo_record.hpp, RR2)
    Lba lba;                ///< on the member
    SectorCount sectors;
    Slice from;           ///< empty: nothing is written, and nobody knows any more what it should hold
    bool absent = false;  ///< the member is missing: only the checksum map hears of it
};
using MemberWrites = std::vector<MemberWrite>;

struct WrittenColumns {
    std::uint64_t first = ~std::uint64_t{0};
    std::uint64_t end = 0;
    std::uint32_t members = 0;  ///< those that are there, as bits
};
WrittenColumns columns_of(const MemberWrites& writes);

/// What is at the places when I/Os are sent there.
using Devices = std::array<const BlockDevice*, kMaxMembers>;
Devices devices_of(const ArrayBody& array);
/// MS2. Fails the members that missed theirs. Errors: kReadOnly (B3).
Task<Result<void>> settle_missed(ArrayBody& array, const MemberFan& fan, Devices sent);

/// Adds what `member` is to hold: `from`, or if that is empty nothing, but if the member is missing the map knows
/// nothing of `sectors` any more. REQUIRES: the stripe's lock is held.
void add_write(const ArrayBody& array, StripeIndex stripe, std::uint32_t member, Lba lba, Slice from,
               SectorCount sectors, MemberWrites& out);

/// Writes them, several parts of one member one after another. Members that fail are failed; on error the columns are
/// untrusted from now on. `in_step`: parity changes by what is written and nothing else, so the stripe cache keeps the
/// rest of the columns. REQUIRES: the stripe's lock is held; prepare_map().
Task<Result<void>> write_members(ArrayBody& array, Shard& shard, StripeIndex stripe, const MemberWrites& writes,
                                 WriteOptions options, bool in_step = false);

}  // namespace gemel::raid::detail
