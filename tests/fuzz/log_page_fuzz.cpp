// SPDX-License-Identifier: Apache-2.0
// Any set of log pages: decode never reads outside, and recovery ends and gives records in order, whatever the headers
// say. An input is a row of 64-byte pieces, each the header fields and the start of the payload of one page.
#include <algorithm>

#include "gemel/check.hpp"
#include "raid/log_page.hpp"

namespace {

using namespace gemel;
using namespace gemel::raid;

constexpr std::size_t kPieceBytes = 64;

/// Small numbers, so that pages meet.
LogPage page_from(LeReader& r) {
    LogPage page;
    LogPageHeader& h = page.header;
    h.generation = 1 + r.get<std::uint8_t>() % 4;
    h.sequence = 1 + r.get<std::uint8_t>() % 32;
    h.batch_first = h.sequence - std::min<std::uint64_t>(h.sequence - 1, r.get<std::uint8_t>() % 4);
    h.head = h.batch_first - std::min<std::uint64_t>(h.batch_first - 1, r.get<std::uint8_t>() % 32);
    h.flags = r.get<std::uint8_t>() % 8;
    const std::uint8_t back = 1 + r.get<std::uint8_t>() % 8;
    h.previous = (h.flags & kLogFirstOfGeneration) != 0 ? h.sequence - std::min<std::uint64_t>(h.sequence, back)
                                                        : h.sequence - 1;
    h.next_position = r.get<std::uint8_t>();
    const ConstBytes payload = r.take(kPieceBytes - 7);
    page.payload.assign(payload.begin(), payload.end());
    page.payload.resize(std::min<std::size_t>(page.payload.size(), h.next_position % 58));
    h.payload_bytes = static_cast<std::uint32_t>(page.payload.size());
    return page;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::array<std::byte, kLogPageBytes> raw{};
    std::copy_n(reinterpret_cast<const std::byte*>(data), std::min(size, raw.size()), raw.begin());
    if (const auto header = decode_log_page(raw)) {
        CHECK(!why_invalid(*header));
    }
    LeReader r(ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    LogPages pages;
    while (r.remaining() >= kPieceBytes) {
        LogPage page = page_from(r);
        if (!why_invalid(page.header)) {
            std::ranges::fill(raw, std::byte{0});
            std::ranges::copy(page.payload, raw.begin() + kLogHeaderBytes);
            encode(page.header, raw);
            const auto back = decode_log_page(raw);
            CHECK(back && *back == page.header);
            pages.add(std::move(page));
        }
    }
    const LogState state = recover_log(pages, 1);
    CHECK(!state.corrupt || state.records.empty());
    CHECK(state.tail < state.next_sequence);
    for (std::size_t i = 1; i < state.records.size(); ++i) {
        CHECK(state.records[i - 1].batch_first <= state.records[i].batch_first);
    }
    return 0;
}
