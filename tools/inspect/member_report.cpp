// SPDX-License-Identifier: Apache-2.0
#include "tools/inspect/member_report.hpp"

#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/durable_log.hpp"
#include "raid/redo_record.hpp"

namespace gemel::inspect {

namespace {

using raid::AreaKind;
using raid::kLogPageBytes;
using raid::kSuperblockBytes;
using raid::LogPages;
using raid::Superblock;

constexpr std::size_t kReadPages = 256;

SlotReport read_slot(MemberImage& image, std::uint64_t slot) {
    SlotReport out;
    out.offset = raid::superblock_slot(SectorCount(image.bytes() / kSectorBytes), slot).value * kSectorBytes;
    std::array<std::byte, kSuperblockBytes> bytes;
    if (!image.read(out.offset, bytes)) {
        out.kind = SlotReport::Kind::kUnreadable;
        out.why = "cannot be read";
        return out;
    }
    auto decoded = raid::decode_superblock(bytes);
    if (decoded) {
        out.kind = SlotReport::Kind::kValid;
        out.superblock = *std::move(decoded);
        return out;
    }
    out.why = decoded.error().message;
    out.kind = decoded.error().code == Errc::kNotFound      ? SlotReport::Kind::kNone
               : decoded.error().code == Errc::kUnsupported ? SlotReport::Kind::kUnsupported
                                                            : SlotReport::Kind::kDamaged;
    return out;
}

std::optional<std::size_t> newest_slot(const std::array<SlotReport, 2>& slots) {
    std::optional<std::size_t> newest;
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const bool valid = slots[i].kind == SlotReport::Kind::kValid;
        if (valid && (!newest || slots[i].superblock.epoch > slots[*newest].superblock.epoch)) {
            newest = i;
        }
    }
    return newest;
}

/// Counts one page and keeps it if it is one of this array.
void take_page(std::span<const std::byte, kLogPageBytes> page, std::uint64_t slot, const Superblock& superblock,
               LogReport& report, LogPages& pages) {
    const auto header = raid::decode_log_page(page);
    if (!header) {
        ++(header.error().code == Errc::kNotFound ? report.blank : report.damaged);
        return;
    }
    if (header->array_uuid != superblock.array_uuid || header->sequence % report.pages != slot) {
        ++report.foreign;
        return;
    }
    report.oldest_sequence = report.valid == 0 ? header->sequence : std::min(report.oldest_sequence, header->sequence);
    report.newest_sequence = std::max(report.newest_sequence, header->sequence);
    ++report.valid;
    const auto payload = page.subspan(raid::kLogHeaderBytes, header->payload_bytes);
    pages.add({*header, {payload.begin(), payload.end()}});
}

LogReport read_log(MemberImage& image, const Superblock& superblock, LogPages& pages) {
    const raid::AreaRecord& area = superblock.area(AreaKind::kLog);
    LogReport report;
    report.pages = area.sectors.value / kSectorsPerBlock;
    const std::uint64_t begin = (area.lba.value + superblock.area_shift(superblock.member_index)) * kSectorBytes;
    std::vector<std::byte> piece;
    for (std::uint64_t slot = 0; slot < report.pages;) {
        const std::uint64_t offset = begin + slot * kLogPageBytes;
        const std::uint64_t there = offset < image.bytes() ? (image.bytes() - offset) / kLogPageBytes : 0;
        if (there == 0) {  // the superblock promises more than the member has
            report.unreadable += report.pages - slot;
            break;
        }
        std::uint64_t count = std::min({std::uint64_t{kReadPages}, report.pages - slot, there});
        piece.resize(count * kLogPageBytes);
        if (!image.read(offset, piece)) {
            count = 1;  // again, page by page, to find the one
            if (!image.read(offset, MutableBytes(piece).first(kLogPageBytes))) {
                ++report.unreadable;
                ++slot;
                continue;
            }
        }
        for (std::uint64_t i = 0; i < count; ++i) {
            take_page(std::span<const std::byte, kLogPageBytes>(piece.data() + i * kLogPageBytes, kLogPageBytes),
                      slot + i, superblock, report, pages);
        }
        slot += count;
    }
    return report;
}

MemberReport read_superblocks(const std::string& name, MemberImage& image) {
    MemberReport out;
    out.name = name;
    out.bytes = image.bytes();
    if (out.bytes < 2 * kSuperblockBytes + kBlockBytes) {
        for (SlotReport& slot : out.slots) {
            slot.why = "the member is too small to hold one";
        }
        return out;
    }
    out.slots = {read_slot(image, 0), read_slot(image, 1)};
    out.newest = newest_slot(out.slots);
    return out;
}

const Superblock& superblock_of(const MemberReport& member) {
    return member.slots[*member.newest].superblock;
}

/// The newest superblock of the array that most members belong to; the first such array if several are as frequent.
std::optional<std::size_t> find_newest(const std::vector<MemberReport>& members) {
    std::optional<std::size_t> best;
    std::ptrdiff_t most = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
        if (!members[i].newest) {
            continue;
        }
        const Superblock& mine = superblock_of(members[i]);
        const auto same = std::ranges::count_if(members, [&](const MemberReport& other) {
            return other.newest && superblock_of(other).array_uuid == mine.array_uuid;
        });
        const bool newer = best && superblock_of(members[*best]).array_uuid == mine.array_uuid &&
                           mine.epoch > superblock_of(members[*best]).epoch;
        if (same > most || newer) {
            best = i;
            most = same;
        }
    }
    return best;
}

void note_problems(Report& report) {
    const auto say = [&report](std::string text) { report.problems.push_back(std::move(text)); };
    for (std::size_t i = 0; i < report.members.size(); ++i) {
        const MemberReport& m = report.members[i];
        for (const SlotReport& slot : m.slots) {
            if (slot.kind == SlotReport::Kind::kDamaged || slot.kind == SlotReport::Kind::kUnreadable ||
                slot.kind == SlotReport::Kind::kUnsupported) {
                say(m.name + ": superblock at byte " + std::to_string(slot.offset) + ": " + slot.why);
            }
        }
        if (!m.newest) {
            say(m.name + ": holds no valid superblock");
            continue;
        }
        const Superblock& mine = superblock_of(m);
        const Superblock& array = superblock_of(report.members[*report.newest]);
        if (mine.array_uuid != array.array_uuid) {
            say(m.name + ": belongs to another array, '" + mine.array_name + "'");
        } else if (mine.members.size() != array.members.size()) {
            say(m.name + ": says that the array has " + std::to_string(mine.members.size()) + " members, not " +
                std::to_string(array.members.size()));
        } else if (mine.epoch < array.epoch && array.members[mine.member_index].failed) {
            say(m.name + ": is stale: the array went on without it at epoch " + std::to_string(mine.epoch));
        } else if (mine.epoch < array.taken_by_all && mine.member_uuid() == array.members[mine.member_index].uuid) {
            say(m.name + ": is an older copy of the member, of epoch " + std::to_string(mine.epoch) +
                "; it had taken epoch " + std::to_string(array.taken_by_all));
        } else if (mine.member_uuid() != array.members[mine.member_index].uuid) {
            say(m.name + ": its place was given to another member");
        }
        if (m.log && m.log->damaged + m.log->unreadable > 0) {
            say(m.name + ": " + std::to_string(m.log->damaged) + " damaged and " + std::to_string(m.log->unreadable) +
                " unreadable pages in the log");
        }
    }
    if (report.log && report.log->corrupt) {
        say("the log of these members is not complete: " + *report.log->corrupt);
    }
    if (report.log && report.log->redo.damaged > 0) {
        say(std::to_string(report.log->redo.damaged) + " records of the redo log cannot be understood");
    }
}

void add_redo(const raid::RecoveredRecord& record, const Superblock& array, RedoSummary& out) {
    if (record.position < array.redo_from) {
        ++out.voided;
        return;
    }
    if (raid::is_partial_record(record.bytes)) {
        const auto partial = raid::decode_partial_record(record.bytes, raid::geometry_of(array));
        out.damaged += partial ? 0 : 1;
        out.partial += partial ? 1 : 0;
        for (std::size_t i = 0; partial && i < partial->runs.size(); ++i) {
            out.partial_blocks += partial->runs[i].blocks;
        }
        return;
    }
    const Result<raid::RedoRecord> redo = raid::decode_redo_record(record.bytes, raid::geometry_of(array));
    if (!redo) {
        ++out.damaged;
        return;
    }
    ++out.valid;
    out.newest_stripe = redo->stripe.value;
    for (const raid::RedoPart& part : redo->parts) {
        out.bytes += part.bytes.size();
    }
}

/// Of the superblock's episode; nothing if no record of that counts.
void find_missed(const std::vector<LogRecord>& records, const Superblock& array, LogSummary& out) {
    for (const LogRecord& r : records) {
        const auto record = raid::decode_missed_record(r.bytes);
        if (record && record->episode == array.missed.episode) {
            out.missed_shape = record->shape;
        }
    }
    if (auto state = raid::recover_missed(records, array.missed.episode, out.missed_shape);
        state && array.missed.episode != 0) {
        out.missed = *std::move(state);
    }
}

LogSummary summarise(const LogPages& pages, const Superblock& array) {
    const raid::LogState state = raid::recover_log(pages, array.log_generation);
    LogSummary out;
    std::vector<LogRecord> missed;
    out.generation = state.generation;
    out.tail = state.tail;
    out.records_lost = state.records_lost;
    out.corrupt = state.corrupt;
    for (const raid::RecoveredRecord& record : state.records) {
        ClientRecords& client = out.clients[record.client];
        client.first_position = client.records == 0 ? record.position : client.first_position;
        client.last_position = record.position;
        client.bytes += record.bytes.size();
        ++client.records;
        if (record.client == kLogClientRedo) {
            add_redo(record, array, out.redo);
        }
        if (record.client == raid::kLogClientMissed) {
            missed.push_back({record.position, record.bytes});
        }
    }
    find_missed(missed, array, out);
    return out;
}

}  // namespace

Report look_at(const std::vector<std::string>& names, const std::vector<MemberImage*>& images) {
    CHECK(names.size() == images.size());
    Report report;
    for (std::size_t i = 0; i < names.size(); ++i) {
        report.members.push_back(read_superblocks(names[i], *images[i]));
    }
    report.newest = find_newest(report.members);
    if (report.newest) {
        const Superblock& array = superblock_of(report.members[*report.newest]);
        LogPages pages;
        for (std::size_t i = 0; i < images.size(); ++i) {
            MemberReport& m = report.members[i];
            if (m.newest && superblock_of(m).array_uuid == array.array_uuid) {
                m.log = read_log(*images[i], superblock_of(m), pages);
            }
        }
        report.log = summarise(pages, array);
    }
    note_problems(report);
    return report;
}

}  // namespace gemel::inspect
