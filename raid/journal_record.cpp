// SPDX-License-Identifier: Apache-2.0
#include "raid/journal_record.hpp"

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"
#include "gemel/test_switch.hpp"

namespace gemel::raid {

namespace {
constexpr std::uint32_t kMagic = 0x314a4447U;  // "GDJ1"
constexpr std::size_t kCrcAt = kJournalHeaderBytes - 4;
constexpr std::uint16_t kUntrustedFlag = 1;
constexpr std::uint16_t kPartialFlag = 2;
static_assert(kCrcAt == 4 + 2 + 2 + 8 + 4);
static_assert(kJournalEntryBytes == 8 + 2 + 2 + 1 + 1 + 2);

std::uint32_t record_crc(ConstBytes bytes) {
    constexpr std::array<std::byte, 4> zero{};
    return crc32c(bytes.subspan(kCrcAt + 4), crc32c(zero, crc32c(bytes.first(kCrcAt))));
}
}  // namespace

DirtyEntry JournalShape::entry_of(std::uint64_t first, std::uint64_t end) const {
    const std::uint64_t unit = first / strip_columns();
    const std::uint64_t base = unit * strip_columns();
    DirtyEntry out{unit, whole(), true};
    if (by_strip) {
        out.stripe = unit / data_strips;
        out.box.first_strip = out.box.last_strip = static_cast<std::uint8_t>(unit % data_strips);
    }
    out.box.first = static_cast<std::uint16_t>((first - base) / kSectorsPerBlock);
    out.box.end = static_cast<std::uint16_t>(round_up(end - base, kSectorsPerBlock) / kSectorsPerBlock);
    return out;
}

std::optional<std::string> why_invalid(const JournalRecord& record, const JournalShape& shape) {
    if (record.kind != JournalKind::kAdd && record.kind != JournalKind::kCheckpoint) {
        return "unknown kind " + std::to_string(static_cast<std::uint16_t>(record.kind));
    }
    if (record.cursor > (record.kind == JournalKind::kCheckpoint ? shape.columns : 0)) {
        return "a position beyond the end, or in a record that has none";
    }
    for (const DirtyEntry& e : record.entries) {
        if (e.stripe >= shape.stripes) {
            return "stripe " + std::to_string(e.stripe) + " of " + std::to_string(shape.stripes);
        }
        if (e.box.first >= e.box.end || e.box.end > shape.strip_blocks || e.box.first_strip > e.box.last_strip ||
            e.box.last_strip >= shape.data_strips) {
            return "blocks outside stripe " + std::to_string(e.stripe);
        }
    }
    return std::nullopt;
}

std::vector<std::byte> encode(const JournalRecord& record) {
    std::vector<std::byte> out(kJournalHeaderBytes + record.entries.size() * kJournalEntryBytes);
    LeWriter w(out);
    w.put(kMagic);
    w.put(kJournalVersion);
    w.put(static_cast<std::uint16_t>(record.kind));
    w.put(record.cursor);
    w.put(static_cast<std::uint32_t>(record.entries.size()));
    w.put(std::uint32_t{0});
    for (const DirtyEntry& e : record.entries) {
        w.put(e.stripe);
        w.put(e.box.first);
        w.put(e.box.end);
        w.put(e.box.first_strip);
        w.put(e.box.last_strip);
        w.put(e.untrusted ? kUntrustedFlag : e.partial ? kPartialFlag : std::uint16_t{0});
    }
    store_le(out.data() + kCrcAt, record_crc(out));
    return out;
}

Result<JournalRecord> decode_journal_record(ConstBytes bytes, const JournalShape& shape) {
    LeReader r(bytes);
    if (bytes.size() < kJournalHeaderBytes || r.get<std::uint32_t>() != kMagic) {
        return fail(Errc::kCorrupt, "no journal record");
    }
    if (load_le<std::uint32_t>(bytes.data() + kCrcAt) != record_crc(bytes)) {
        return fail(Errc::kCorrupt, "journal record does not match its checksum");
    }
    if (const auto version = r.get<std::uint16_t>(); version != kJournalVersion) {
        return fail(Errc::kUnsupported, "journal record of format version " + std::to_string(version));
    }
    JournalRecord out;
    out.kind = static_cast<JournalKind>(r.get<std::uint16_t>());
    out.cursor = r.get<std::uint64_t>();
    const auto count = r.get<std::uint32_t>();
    r.take(4);
    if (r.remaining() % kJournalEntryBytes != 0 || count != r.remaining() / kJournalEntryBytes) {
        return fail(Errc::kCorrupt, "journal record counts other entries than it holds");
    }
    out.entries.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        DirtyEntry e;
        e.stripe = r.get<std::uint64_t>();
        e.box.first = r.get<std::uint16_t>();
        e.box.end = r.get<std::uint16_t>();
        e.box.first_strip = r.get<std::uint8_t>();
        e.box.last_strip = r.get<std::uint8_t>();
        const auto flags = r.get<std::uint16_t>();
        if (flags > kPartialFlag) {
            return fail(Errc::kCorrupt, "journal entry with unknown flags");
        }
        e.untrusted = flags == kUntrustedFlag;
        e.partial = flags == kPartialFlag;
        out.entries.push_back(e);
    }
    if (auto why = why_invalid(out, shape)) {
        return fail(Errc::kCorrupt, "journal record contradicts the array: " + *why);
    }
    return out;
}

Result<JournalState> recover_journal(const std::vector<LogRecord>& records, const JournalShape& shape) {
    JournalState out;
    const std::size_t count = records.size() - (active(TestSwitch::kJournalSkipNewest) && records.size() > 1 ? 1 : 0);
    for (std::size_t i = 0; i < count; ++i) {
        TRY(const JournalRecord record, decode_journal_record(records[i].bytes, shape));
        if (record.kind == JournalKind::kCheckpoint) {
            out.based = true;
            out.base = records[i].position;
            out.cursor = record.cursor;
            out.entries.clear();
        }
        out.entries.insert(out.entries.end(), record.entries.begin(), record.entries.end());
    }
    return out;
}

}  // namespace gemel::raid
