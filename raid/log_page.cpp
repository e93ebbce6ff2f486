// SPDX-License-Identifier: Apache-2.0
#include "raid/log_page.hpp"

#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "gemel/test_switch.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint64_t kMagic = 0x31474f4c4c454d47ULL;  // "GMELLOG1"
constexpr std::size_t kCrcAt = kLogHeaderBytes - 8;
constexpr std::uint16_t kKnownFlags = kLogLastOfBatch | kLogFirstOfGeneration | kLogRecordsLost;
static_assert(kCrcAt == 8 + 4 + 4 + 16 + 7 * 8 + 4 * 2);

std::uint32_t page_crc(std::span<const std::byte, kLogPageBytes> page) {
    constexpr std::array<std::byte, 4> zero{};
    return crc32c(page.subspan(kCrcAt + 4), crc32c(zero, crc32c(page.first(kCrcAt))));
}
}  // namespace

void encode(const LogPageHeader& h, std::span<std::byte, kLogPageBytes> page) {
    CHECK(!why_invalid(h));
    std::ranges::fill(page.subspan(kLogHeaderBytes + h.payload_bytes), std::byte{0});
    LeWriter w(page.first(kLogHeaderBytes));
    w.put(kMagic);
    w.put(kLogVersion);
    w.put(h.payload_bytes);
    w.put(ConstBytes(h.array_uuid.bytes));
    w.put(h.generation);
    w.put(h.sequence);
    w.put(h.previous);
    w.put(h.head);
    w.put(h.batch_first);
    w.put(h.next_position);
    w.put(h.epoch);
    w.put(h.flags);
    w.put(h.copy);
    w.put(h.copies);
    w.put(std::uint16_t{0});
    w.put(std::uint64_t{0});
    store_le(page.data() + kCrcAt, page_crc(page));
}

std::optional<std::string> why_invalid(const LogPageHeader& h) {
    if (h.payload_bytes > kLogPayloadBytes) {
        return "payload of " + std::to_string(h.payload_bytes) + " bytes does not fit a page";
    }
    if (h.sequence == 0 || h.generation == 0) {
        return "sequence or generation is zero";
    }
    if (h.batch_first > h.sequence || h.head > h.batch_first || h.head == 0) {
        return "head, first page of the batch and page are out of order";
    }
    if (h.sequence - h.batch_first >= kMaxBatchPages) {
        return "batch of more than " + std::to_string(kMaxBatchPages) + " pages";
    }
    if (h.previous >= h.sequence || (h.previous != h.sequence - 1 && (h.flags & kLogFirstOfGeneration) == 0)) {
        return "link to the page before is wrong";
    }
    if ((h.flags & ~kKnownFlags) != 0) {
        return "unknown flags";
    }
    return std::nullopt;
}

Result<LogPageHeader> decode_log_page(std::span<const std::byte, kLogPageBytes> page) {
    LeReader r(page.first(kLogHeaderBytes));
    if (r.get<std::uint64_t>() != kMagic) {
        return fail(Errc::kNotFound, "no log page");
    }
    if (load_le<std::uint32_t>(page.data() + kCrcAt) != page_crc(page) && !active(TestSwitch::kTornPage)) {
        return fail(Errc::kCorrupt, "log page does not match its checksum");
    }
    if (const auto version = r.get<std::uint32_t>(); version != kLogVersion) {
        return fail(Errc::kUnsupported, "log page of format version " + std::to_string(version));
    }
    LogPageHeader h;
    h.payload_bytes = r.get<std::uint32_t>();
    std::ranges::copy(r.take(h.array_uuid.bytes.size()), h.array_uuid.bytes.begin());
    h.generation = r.get<std::uint64_t>();
    h.sequence = r.get<std::uint64_t>();
    h.previous = r.get<std::uint64_t>();
    h.head = r.get<std::uint64_t>();
    h.batch_first = r.get<std::uint64_t>();
    h.next_position = r.get<std::uint64_t>();
    h.epoch = r.get<std::uint64_t>();
    h.flags = r.get<std::uint16_t>();
    h.copy = r.get<std::uint16_t>();
    h.copies = r.get<std::uint16_t>();
    if (auto why = why_invalid(h)) {
        return fail(Errc::kCorrupt, "log page contradicts itself: " + *why);
    }
    if (h.generation > kMaxLogGeneration || h.sequence > kMaxLogSequence || h.next_position > kMaxLogPosition) {
        return fail(Errc::kCorrupt, "log page with a generation, sequence or position that no log reaches");
    }
    return h;
}

void LogPages::add(LogPage page) {
    const auto at = pages_.find(page.header.sequence);
    if (at == pages_.end()) {
        pages_.emplace(page.header.sequence, std::move(page));
    } else if (at->second.header.generation < page.header.generation) {
        at->second = std::move(page);
    }
}

namespace {

using Pages = std::map<std::uint64_t, LogPage>;

/// What is older than the newest generation but lies beyond its first page was torn before that generation began.
Pages without_void(const Pages& all, std::uint64_t newest) {
    std::uint64_t first = ~std::uint64_t{0};
    for (const auto& [sequence, page] : all) {
        if (page.header.generation == newest) {
            first = std::min(first, sequence);
        }
    }
    Pages out;
    for (const auto& [sequence, page] : all) {
        if (page.header.generation == newest || sequence < first) {
            out.emplace(sequence, page);
        }
    }
    return out;
}

bool batch_complete(const Pages& pages, const LogPageHeader& last) {
    if ((last.flags & kLogLastOfBatch) == 0) {
        return false;
    }
    for (std::uint64_t s = last.batch_first; s <= last.sequence; ++s) {
        const auto at = pages.find(s);
        if (at == pages.end() || at->second.header.batch_first != last.batch_first ||
            at->second.header.generation != last.generation) {
            return false;
        }
    }
    return true;
}

/// The last page of the newest complete batch. Beyond it there may be pages of one torn batch (LP2).
const LogPageHeader* find_tail(const Pages& pages, std::optional<std::string>& corrupt) {
    std::optional<std::uint64_t> torn;
    for (auto at = pages.rbegin(); at != pages.rend(); ++at) {
        const LogPageHeader& h = at->second.header;
        if (batch_complete(pages, h)) {
            return &h;
        }
        if (torn && *torn != h.batch_first) {
            corrupt = "page " + std::to_string(h.sequence) + " belongs to a batch with missing pages";
            return nullptr;
        }
        torn = h.batch_first;
    }
    corrupt = "no complete batch of pages";
    return nullptr;
}

/// The pages from head to tail, in order of the log.
std::vector<const LogPage*> chain(const Pages& pages, const LogPageHeader& tail, std::optional<std::string>& corrupt) {
    std::vector<const LogPage*> out;
    std::uint64_t at = tail.sequence;
    std::uint64_t generation = tail.generation;
    bool may_change = false;
    while (at >= tail.head) {
        const auto page = pages.find(at);
        if (page == pages.end()) {
            corrupt = "page " + std::to_string(at) + " is missing";
            return {};
        }
        const LogPageHeader& h = page->second.header;
        if (h.generation != generation && !(may_change && h.generation < generation)) {
            corrupt = "page " + std::to_string(at) + " is of another generation than its successor";
            return {};
        }
        out.push_back(&page->second);
        generation = h.generation;
        may_change = (h.flags & kLogFirstOfGeneration) != 0;
        if (h.previous >= at) {
            break;
        }
        at = h.previous;
    }
    std::ranges::reverse(out);
    return out;
}

/// The records of one batch. False if its bytes are not records.
bool parse_batch(std::uint64_t batch_first, ConstBytes bytes, std::vector<RecoveredRecord>& out) {
    LeReader r(bytes);
    while (r.remaining() > 0) {
        RecoveredRecord record;
        record.client = r.get<std::uint32_t>();
        const auto length = r.get<std::uint32_t>();
        record.position = r.get<std::uint64_t>();
        record.batch_first = batch_first;
        const ConstBytes body = r.take(length);
        if (!r.ok()) {
            return false;
        }
        record.bytes.assign(body.begin(), body.end());
        out.push_back(std::move(record));
    }
    return true;
}

void parse_records(const std::vector<const LogPage*>& pages, LogState& out) {
    std::vector<std::byte> bytes;
    for (const LogPage* page : pages) {
        bytes.insert(bytes.end(), page->payload.begin(), page->payload.end());
        if ((page->header.flags & kLogLastOfBatch) != 0) {
            if (!parse_batch(page->header.batch_first, bytes, out.records)) {
                out.corrupt = "the records of page " + std::to_string(page->header.batch_first) + " are damaged";
                return;
            }
            bytes.clear();
        }
    }
}

}  // namespace

LogState recover_log(const LogPages& found, std::uint64_t generation) {
    LogState out;
    for (const auto& [sequence, page] : found.by_sequence()) {
        out.generation = std::max(out.generation, page.header.generation);
        out.next_sequence = std::max(out.next_sequence, sequence + 1);
        out.next_position = std::max(out.next_position, page.header.next_position);
    }
    if (out.generation < generation) {
        out.corrupt = "no page of the newest generation was found";
        out.generation = generation;
        return out;
    }
    const Pages pages = without_void(found.by_sequence(), out.generation);
    const LogPageHeader* tail = find_tail(pages, out.corrupt);
    if (tail == nullptr) {
        return out;
    }
    out.tail = tail->sequence;
    out.records_lost = (tail->flags & kLogRecordsLost) != 0;
    const auto live = chain(pages, *tail, out.corrupt);
    if (!out.corrupt) {
        parse_records(live, out);
    }
    if (out.corrupt) {
        out.records.clear();
    }
    return out;
}

}  // namespace gemel::raid
