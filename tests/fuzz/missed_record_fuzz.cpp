// SPDX-License-Identifier: Apache-2.0
// Any bytes as a record of missed extents: decode never reads outside and accepts only what encode can have made; what
// recovery makes of records lies inside the array. An input is records: {bytes that count, checksum right or not}.
#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/missed_record.hpp"

namespace {

using namespace gemel;
using namespace gemel::raid;

constexpr std::size_t kCrcAt = kMissedHeaderBytes - 4;
constexpr MissedShape kShape{1000, 16};

/// A record of the input's bytes, with a right checksum, episode and size of the array if the input wants that.
std::vector<std::byte> record_from(LeReader& r) {
    const std::size_t size = std::min<std::size_t>(r.get<std::uint8_t>(), r.remaining());
    const auto forged = r.get<std::uint8_t>() % 8;
    const ConstBytes from = r.take(std::min(size, r.remaining()));
    std::vector<std::byte> out(from.begin(), from.end());
    if (forged == 0 || out.size() < kMissedHeaderBytes) {
        return out;
    }
    store_le(out.data(), std::uint32_t{0x31584d47U});
    store_le(out.data() + 4, kMissedVersion);
    if (forged > 2) {
        store_le(out.data() + 8, std::uint64_t{7});
        store_le(out.data() + 16, kShape.columns);
        store_le(out.data() + 24, kShape.region);
    }
    store_le(out.data() + kCrcAt, std::uint32_t{0});
    store_le(out.data() + kCrcAt, crc32c(out));
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    std::vector<LogRecord> log;
    while (r.remaining() > 0) {
        log.push_back({log.size() + 1, record_from(r)});
        if (const auto record = decode_missed_record(log.back().bytes)) {
            CHECK(!why_invalid(*record));
            CHECK(encode(*record) == log.back().bytes);
        }
    }
    if (const auto state = recover_missed(log, 7, kShape); state && *state) {
        CHECK((*state)->set.regions() == kShape.regions());
        CHECK((*state)->set.count() <= kShape.regions());
    }
    return 0;
}
