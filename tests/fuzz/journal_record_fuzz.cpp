// SPDX-License-Identifier: Apache-2.0
// Any bytes as a journal record: decode never reads outside and accepts only what encode can have made; what recovery
// makes of records lies inside the array. An input is a layout, then records: {bytes that count, checksum right or
// not}.
#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "raid/journal_record.hpp"

namespace {

using namespace gemel;
using namespace gemel::raid;

constexpr std::size_t kCrcAt = kJournalHeaderBytes - 4;

/// A record of the input's bytes, with a right checksum if the input wants that.
std::vector<std::byte> record_from(LeReader& r) {
    const std::size_t size = std::min<std::size_t>(r.get<std::uint8_t>(), r.remaining());
    const bool forged = r.get<std::uint8_t>() % 8 != 0;
    const ConstBytes from = r.take(std::min(size, r.remaining()));
    std::vector<std::byte> out(from.begin(), from.end());
    if (forged && out.size() >= kJournalHeaderBytes) {
        store_le(out.data(), std::uint32_t{0x314a4447U});
        store_le(out.data() + 4, kJournalVersion);
        store_le(out.data() + 16, static_cast<std::uint32_t>(journal_entries_in(out.size())));
        store_le(out.data() + kCrcAt, std::uint32_t{0});
        store_le(out.data() + kCrcAt, crc32c(out));
    }
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    constexpr std::array layouts{Layout::kMirrored, Layout::kStripedMirrors, Layout::kParity, Layout::kStriped};
    const Geometry g{layouts[r.get<std::uint8_t>() % layouts.size()], 4, 32, 32 * 16};
    const JournalShape shape(g);
    std::vector<LogRecord> log;
    while (r.remaining() > 0) {
        log.push_back({log.size() + 1, record_from(r)});
        if (const auto record = decode_journal_record(log.back().bytes, shape)) {
            CHECK(!why_invalid(*record, shape));
            CHECK(encode(*record) == log.back().bytes);
        }
    }
    if (const auto state = recover_journal(log, shape)) {
        CHECK(state->cursor <= g.columns());
        for (const DirtyEntry& e : state->entries) {
            shape.each_range(
                e, [&g](std::uint64_t first, std::uint64_t end) { CHECK(first < end && end <= g.columns()); });
        }
    }
    return 0;
}
