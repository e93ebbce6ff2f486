// SPDX-License-Identifier: Apache-2.0
// MODE SENSE(6) and (10), and the mode pages (SPC-4 6.13, 7.5; SBC-3 6.5). Nothing can be changed by MODE SELECT, so
// the changeable values are zeros and the current ones are the defaults.
#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

enum class PageControl : std::uint8_t { kCurrent = 0, kChangeable = 1, kDefault = 2, kSaved = 3 };

/// The bytes of a mode page after its two bytes of header; pages are at most 20 bytes long.
using PageBody = std::array<std::uint8_t, 18>;

struct ModePage {
    std::uint8_t code;
    std::uint8_t length;  ///< of the body
    PageBody (*current)(const LogicalUnit&);
};

/// All zeros: no read or write retries are reported, errors are never hidden.
PageBody error_recovery(const LogicalUnit& /*unit*/) {
    return {};
}

/// WCE as the unit's write cache is; reads may be cached (RCD=0).
PageBody caching(const LogicalUnit& unit) {
    PageBody body{};
    body[0] = unit.options().write_cache == WriteCache::kVolatile ? 0x04 : 0x00;
    return body;
}

PageBody control(const LogicalUnit& /*unit*/) {
    PageBody body{};
    body[0] = 0x02;  // GLTSD: no log parameters are saved; D_SENSE=0: fixed format
    body[1] = 0x10;  // commands may be reordered without restriction; the initiator orders by waiting
    body[6] = 0xff;  // busy timeout: no limit
    body[7] = 0xff;
    return body;
}

/// DEXCPT: no failure predictions are reported here; the daemon's events tell the operator.
PageBody informational_exceptions(const LogicalUnit& /*unit*/) {
    PageBody body{};
    body[0] = 0x08;
    return body;
}

constexpr ModePage kModePages[] = {
    {0x01, 0x0a, error_recovery},
    {0x08, 0x12, caching},
    {0x0a, 0x0a, control},
    {0x1c, 0x0a, informational_exceptions},
};
constexpr unsigned kAllPages = 0x3f;
constexpr unsigned kAllSubpages = 0xff;

void put_pages(PageBuilder& page, const LogicalUnit& unit, unsigned code, PageControl pc) {
    for (const ModePage& row : kModePages) {
        if (code != kAllPages && code != row.code) {
            continue;
        }
        const PageBody body = pc == PageControl::kChangeable ? PageBody{} : row.current(unit);
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
    const unsigned device_specific = (unit.options().read_only ? 0x80U : 0U) | 0x10U;  // WP, DPOFUA
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

}  // namespace gemel::scsi
