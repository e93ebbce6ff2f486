// SPDX-License-Identifier: Apache-2.0
// The functions of the rows of level_table, one file per level.
// Threads: see LevelRow.
#pragma once

#include "raid/level_table.hpp"

namespace gemel::raid::levels {

Task<Result<void>> plain_read(detail::ArrayBody& array, Lba lba, Slice to, ReadOptions options);
Task<Result<void>> plain_write(detail::ArrayBody& array, detail::Shard& shard, Lba lba, Slice from,
                               WriteOptions options);

Task<Result<void>> mirrored_read(detail::ArrayBody& array, Lba lba, Slice to, ReadOptions options);
Task<Result<void>> mirrored_write(detail::ArrayBody& array, detail::Shard& shard, Lba lba, Slice from,
                                  WriteOptions options);
Task<Result<void>> mirrored_sync(detail::ArrayBody& array, detail::Shard& shard, StripeIndex index);
Task<Result<void>> mirrored_rebuild(detail::ArrayBody& array, detail::Shard& shard, StripeIndex index,
                                    std::uint32_t member);

Task<Result<void>> mirrored_scrub(detail::ArrayBody& array, detail::Shard& shard, StripeIndex index, ScrubMode mode,
                                  StripeFindings& out);

Task<Result<void>> parity_read(detail::ArrayBody& array, Lba lba, Slice to, ReadOptions options);
Task<Result<void>> parity_write(detail::ArrayBody& array, detail::Shard& shard, Lba lba, Slice from,
                                WriteOptions options);
Task<Result<void>> parity_sync(detail::ArrayBody& array, detail::Shard& shard, StripeIndex stripe);
Task<Result<void>> parity_rebuild(detail::ArrayBody& array, detail::Shard& shard, StripeIndex stripe,
                                  std::uint32_t member);
Task<Result<void>> parity_scrub(detail::ArrayBody& array, detail::Shard& shard, StripeIndex stripe, ScrubMode mode,
                                StripeFindings& out);

}  // namespace gemel::raid::levels
