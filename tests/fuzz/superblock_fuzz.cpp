// SPDX-License-Identifier: Apache-2.0
// Any bytes as a superblock: decode never reads outside, and what it accepts is valid and comes back the same. The
// checksum is set right for half of the inputs, so that the fields behind it are reached.
#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/superblock.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace gemel;
    using namespace gemel::raid;
    std::array<std::byte, kSuperblockBytes> bytes{};
    std::copy_n(reinterpret_cast<const std::byte*>(data), std::min(size, bytes.size()), bytes.begin());
    if (size % 2 == 0) {
        store_le<std::uint64_t>(bytes.data(), 0x315242534c454d47ULL);
        store_le<std::uint32_t>(bytes.data() + 8, kSuperblockVersion);
        store_le(bytes.data() + kSuperblockBytes - 4, crc32c(std::span(bytes).first(kSuperblockBytes - 4)));
    }
    const auto sb = decode_superblock(bytes);
    if (sb) {
        CHECK(!why_invalid(*sb));
        std::array<std::byte, kSuperblockBytes> again{};
        encode(*sb, again);
        const auto twice = decode_superblock(again);
        CHECK(twice && *twice == *sb);
    }
    return 0;
}
