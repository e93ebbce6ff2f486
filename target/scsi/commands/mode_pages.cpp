// SPDX-License-Identifier: Apache-2.0
// MODE SENSE and MODE SELECT(6) and (10), and the mode pages (SPC-4 6.11, 6.13, 7.5; SBC-3 6.5).
//
// Invariants:
//   MP1  MODE SELECT changes all that its parameter list says, or nothing: everything is checked first.
//   MP2  What no page declares as changeable must be as it is now; nothing is saved.
//   MP3  It has the unit's WriteGate alone: writes that were judged before have ended, and where the write cache is
//        turned off they are durable, before its status.
#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

enum class PageControl : std::uint8_t { kCurrent = 0, kChangeable = 1, kDefault = 2, kSaved = 3 };

/// The bytes of a mode page after its two bytes of header; pages are at most 20 bytes long.
using PageBody = std::array<std::uint8_t, 18>;

/// A bit of a page that stands for one of UnitMode's flags.
struct ModeBit {
    std::uint8_t flag;
    std::uint8_t byte;  ///< of the body
    std::uint8_t mask;
    bool inverted;  ///< the flag is set where the bit is zero
};

struct ModePage {
    std::uint8_t code;
    std::uint8_t length;            ///< of the body
    PageBody fixed;                 ///< what never changes
    std::span<const ModeBit> bits;  ///< what does
};

/// WCE. Reads may be cached (RCD=0).
constexpr ModeBit kCachingBits[] = {{UnitMode::kNoWriteCache, 0, 0x04, true}};
/// D_SENSE, SWP.
constexpr ModeBit kControlBits[] = {{UnitMode::kDescriptorSense, 0, 0x04, false},
                                    {UnitMode::kWriteProtect, 2, 0x08, false}};

constexpr ModePage kModePages[] = {
    // All zeros: no read or write retries are reported, errors are never hidden.
    {0x01, 0x0a, {}, {}},
    {0x08, 0x12, {}, kCachingBits},
    // GLTSD: no log parameters are saved; commands may be reordered without restriction, the initiator orders by
    // waiting; busy timeout: no limit.
    {0x0a, 0x0a, {0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff}, kControlBits},
    // DEXCPT: no failure predictions are reported here; the daemon's events tell the operator.
    {0x1c, 0x0a, {0x08}, {}},
};
constexpr unsigned kAllPages = 0x3f;
constexpr unsigned kAllSubpages = 0xff;

/// The flags that MODE SELECT may change: a unit that is written through by its configuration stays so.
unsigned changeable_flags(const LogicalUnit& unit) {
    const unsigned cache = unit.options().write_cache == WriteCache::kVolatile ? UnitMode::kNoWriteCache : 0U;
    return UnitMode::kWriteProtect | UnitMode::kDescriptorSense | cache;
}

PageBody body_of(const ModePage& row, unsigned flags) {
    PageBody body = row.fixed;
    for (const ModeBit& bit : row.bits) {
        if (((flags & bit.flag) != 0) != bit.inverted) {
            body[bit.byte] = static_cast<std::uint8_t>(body[bit.byte] | bit.mask);
        }
    }
    return body;
}

PageBody changeable_of(const ModePage& row, unsigned flags) {
    PageBody body{};
    for (const ModeBit& bit : row.bits) {
        if ((flags & bit.flag) != 0) {
            body[bit.byte] = static_cast<std::uint8_t>(body[bit.byte] | bit.mask);
        }
    }
    return body;
}

PageBody body_for(const ModePage& row, const LogicalUnit& unit, PageControl pc) {
    if (pc == PageControl::kChangeable) {
        return changeable_of(row, changeable_flags(unit));
    }
    return body_of(row, pc == PageControl::kDefault ? unit.mode().defaults() : unit.mode().flags());
}

void put_pages(PageBuilder& page, const LogicalUnit& unit, unsigned code, PageControl pc) {
    for (const ModePage& row : kModePages) {
        if (code != kAllPages && code != row.code) {
            continue;
        }
        const PageBody body = body_for(row, unit, pc);
        page.u8(row.code);
        page.u8(row.length);
        page.bytes(std::as_bytes(std::span(body).first(row.length)));
    }
}

/// SBC-3 6.5.2: short and long block descriptor.
void put_block_descriptor(PageBuilder& page, const LogicalUnit& unit, bool long_lba) {
    if (long_lba) {
        page.u64(unit.blocks());
        page.u32(0);
        page.u32(unit.options().block_bytes);
        return;
    }
    page.u32(std::min<std::uint64_t>(unit.blocks(), 0xffff'ffffU));
    page.u8(0);
    page.u24(unit.options().block_bytes);
}

}  // namespace

ScsiResult commands::mode_sense(LogicalUnit& unit, const ScsiCommand& command) {
    const bool six = command.plan.row->cdb_bytes == 6;
    const bool no_descriptor = (cdb_byte(command.cdb, 1) & 0x08U) != 0;
    const bool long_lba = !six && (cdb_byte(command.cdb, 1) & 0x10U) != 0;
    const auto pc = static_cast<PageControl>(cdb_byte(command.cdb, 2) >> 6U);
    const unsigned code = cdb_byte(command.cdb, 2) & 0x3fU;
    const unsigned subpage = cdb_byte(command.cdb, 3);
    if (code != kAllPages && std::ranges::find(kModePages, code, &ModePage::code) == std::end(kModePages)) {
        return invalid_field(2, 5);
    }
    if (subpage != 0 && subpage != kAllSubpages) {
        return invalid_field(3);
    }
    if (pc == PageControl::kSaved) {
        return check_condition({.code = kSavingParametersNotSupported});
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    const std::size_t descriptor = no_descriptor ? 0U : long_lba ? 16U : 8U;
    const bool protects = unit.write_protected() || command.nexus->nexus().read_only;
    const unsigned device_specific = (protects ? 0x80U : 0U) | 0x10U;  // WP, DPOFUA
    page->zeros(six ? 4 : 8);
    if (!no_descriptor) {
        put_block_descriptor(*page, unit, long_lba);
    }
    put_pages(*page, unit, code, pc);
    if (six) {
        page->patch_u8(0, page->size() - 1);
        page->patch_u8(2, device_specific);
        page->patch_u8(3, descriptor);
    } else {
        page->patch_u16(0, page->size() - 2);
        page->patch_u8(3, device_specific);
        page->patch_u8(4, long_lba ? 1 : 0);
        page->patch_u16(6, descriptor);
    }
    return reply(command, *std::move(page));
}

namespace {

/// Takes one page of a parameter list: what it says of `flags`, and how long it is. Error: the answer (MP2).
std::expected<std::size_t, ScsiResult> take_page(const LogicalUnit& unit, ConstBytes list, std::size_t at,
                                                 unsigned& flags) {
    const auto byte = [&](std::size_t i) { return std::to_integer<unsigned>(list[i]); };
    if (list.size() - at < 2) {
        return std::unexpected(check_condition({.code = kParameterListLength}));
    }
    const auto* row = std::ranges::find(kModePages, byte(at), &ModePage::code);  // PS is reserved here, SPF not ours
    if (row == std::end(kModePages)) {
        return std::unexpected(invalid_parameter(at));
    }
    if (byte(at + 1) != row->length) {
        return std::unexpected(invalid_parameter(at + 1));
    }
    if (list.size() - at - 2 < row->length) {
        return std::unexpected(check_condition({.code = kParameterListLength}));
    }
    const PageBody now = body_of(*row, flags);
    const PageBody changeable = changeable_of(*row, changeable_flags(unit));
    for (std::size_t i = 0; i < row->length; ++i) {
        if (((byte(at + 2 + i) ^ now[i]) & ~unsigned{changeable[i]} & 0xffU) != 0) {
            return std::unexpected(invalid_parameter(at + 2 + i));
        }
    }
    for (const ModeBit& bit : row->bits) {
        const bool on = ((byte(at + 2 + bit.byte) & bit.mask) != 0) != bit.inverted;
        flags = on ? flags | bit.flag : flags & ~unsigned{bit.flag};
    }
    return std::size_t{2} + row->length;
}

/// The block descriptor must say what is, or nothing (SPC-4 7.5.7: the number of blocks and their size are fixed).
bool descriptor_is_right(const LogicalUnit& unit, ConstBytes descriptor) {
    if (descriptor.empty()) {
        return true;
    }
    const bool long_lba = descriptor.size() == 16;
    const std::uint64_t blocks =
        long_lba ? load_be<std::uint64_t>(descriptor.data()) : load_be<std::uint32_t>(descriptor.data());
    const std::uint32_t block_bytes =
        long_lba ? load_be<std::uint32_t>(&descriptor[12]) : load_be<std::uint32_t>(&descriptor[4]) & 0xff'ffffU;
    const std::uint64_t all = long_lba ? unit.blocks() : std::min<std::uint64_t>(unit.blocks(), 0xffff'ffffU);
    return (blocks == 0 || blocks == all) && block_bytes == unit.options().block_bytes;
}

/// What the list makes of the flags, or why it cannot be taken.
std::expected<unsigned, ScsiResult> read_list(const LogicalUnit& unit, const ScsiCommand& command, ConstBytes list) {
    const bool six = command.plan.row->cdb_bytes == 6;
    const std::size_t header = six ? 4 : 8;
    if (list.size() < header) {
        return std::unexpected(check_condition({.code = kParameterListLength}));
    }
    const bool long_lba = !six && (std::to_integer<unsigned>(list[4]) & 1U) != 0;
    const std::size_t descriptor =
        six ? std::to_integer<std::size_t>(list[3]) : std::size_t{load_be<std::uint16_t>(&list[6])};
    if (descriptor != 0 && descriptor != (long_lba ? 16U : 8U)) {
        return std::unexpected(invalid_parameter(six ? 3 : 6));
    }
    if (list.size() < header + descriptor) {
        return std::unexpected(check_condition({.code = kParameterListLength}));
    }
    if (!descriptor_is_right(unit, list.subspan(header, descriptor))) {
        return std::unexpected(invalid_parameter(header));
    }
    unsigned flags = unit.mode().flags();
    for (std::size_t at = header + descriptor; at < list.size();) {
        auto taken = take_page(unit, list, at, flags);
        if (!taken) {
            return std::unexpected(std::move(taken).error());
        }
        at += *taken;
    }
    return flags;
}

Task<ScsiResult> select(LogicalUnit& unit, const ScsiCommand& command) {
    const WriteGate::Alone alone = co_await unit.gate().alone();
    if (std::optional<ScsiResult> refusal = refused_now(unit, command)) {
        co_return *std::move(refusal);
    }
    const std::size_t bytes = std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes);
    const ConstBytes list = bytes == 0 ? ConstBytes() : ConstBytes(command.data_out.memory()).first(bytes);
    std::expected<unsigned, ScsiResult> flags = read_list(unit, command, list);
    if (!flags) {
        co_return std::move(flags).error();
    }
    if ((*flags & UnitMode::kNoWriteCache) != 0 && !unit.mode().write_cache_off()) {
        if (const Result<void> done = co_await unit.device().flush(); !done) {
            co_return from_error(done.error());
        }
    }
    if (unit.mode().set(static_cast<std::uint8_t>(*flags))) {
        unit.raise_all(Attention::kModeChanged, command.nexus);
    }
    co_return good();
}

}  // namespace

Task<ScsiResult> commands::mode_select(LogicalUnit& unit, const ScsiCommand& command) {
    const unsigned flags = cdb_byte(command.cdb, 1);
    if ((flags & 0x10U) == 0) {
        co_return after_transfer(invalid_field(1, 4), command);  // PF: only pages as the standard has them
    }
    if ((flags & 0x01U) != 0) {
        co_return after_transfer(invalid_field(1, 0), command);  // SP: nothing is saved
    }
    if (command.plan.transfer_bytes == 0) {
        co_return good();
    }
    co_return after_transfer(co_await select(unit, command), command);
}

}  // namespace gemel::scsi
