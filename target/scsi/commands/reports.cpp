// SPDX-License-Identifier: Apache-2.0
// READ CAPACITY, REPORT LUNS, REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS, READ DEFECT DATA.
#include <bit>

#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

/// An LBA without PMI has no meaning (SBC-2 5.10); with PMI the answer is the same, since no block is slow to reach.
bool stray_address(const Cdb& cdb, Field lba, std::size_t pmi_byte) {
    return load_field(cdb, lba) != 0 && (cdb_byte(cdb, pmi_byte) & 1U) == 0;
}

std::uint64_t last_block(const LogicalUnit& unit) {
    return unit.blocks() == 0 ? 0 : unit.blocks() - 1;
}

/// Usage data of a row: the operation code and the service action as they are, else the bits that are evaluated.
std::array<std::uint8_t, kCdbBytes> usage_data(const CommandRow& row) {
    std::array<std::uint8_t, kCdbBytes> usage = row.usage;
    usage[0] = row.opcode;
    if (row.service_action != kNoServiceAction) {
        usage[1] = static_cast<std::uint8_t>((usage[1] & 0xe0U) | static_cast<unsigned>(row.service_action));
    }
    return usage;
}

/// SPC-4 6.35.4: length, then nominal and recommended seconds.
void put_timeouts(PageBuilder& page, const CommandRow& row) {
    page.u16(10);
    page.zeros(2);  // reserved, command specific
    page.u32(0);    // nominal: not stated
    page.u32(row.timeout_seconds);
}

/// SPC-4 6.35.2.
void put_all_commands(PageBuilder& page, const LunOptions& options, bool timeouts) {
    page.u32(0);
    for (const CommandRow& row : command_table()) {
        if (!available(row, options)) {
            continue;
        }
        const bool service_actions = row.service_action != kNoServiceAction;
        page.u8(row.opcode);
        page.u8(0);
        page.u16(service_actions ? static_cast<std::size_t>(row.service_action) : 0);
        page.u8(0);
        page.u8((timeouts ? 2U : 0U) | (service_actions ? 1U : 0U));  // CTDP, SERVACTV
        page.u16(row.cdb_bytes);
        if (timeouts) {
            put_timeouts(page, row);
        }
    }
    page.patch_u32(0, page.size() - 4);
}

/// SPC-4 6.35.3. `row` null: not supported.
void put_one_command(PageBuilder& page, const CommandRow* row, bool timeouts) {
    constexpr unsigned kNotSupported = 1;
    constexpr unsigned kAsInTheStandard = 3;
    page.u8(0);
    if (row == nullptr) {
        page.u8(kNotSupported);
        page.u16(0);
        return;
    }
    page.u8((timeouts ? 0x80U : 0U) | kAsInTheStandard);
    page.u16(row->cdb_bytes);
    for (std::size_t i = 0; i < row->cdb_bytes; ++i) {
        page.u8(usage_data(*row)[i]);
    }
    if (timeouts) {
        put_timeouts(page, *row);
    }
}

}  // namespace

ScsiResult commands::read_capacity_10(LogicalUnit& unit, const ScsiCommand& command) {
    if (stray_address(command.cdb, {2, 4}, 8)) {
        return invalid_field(2);
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    page->u32(std::min<std::uint64_t>(last_block(unit), 0xffff'ffffU));
    page->u32(unit.options().block_bytes);
    return reply_whole(command, *std::move(page));
}

ScsiResult commands::read_capacity_16(LogicalUnit& unit, const ScsiCommand& command) {
    if (stray_address(command.cdb, {2, 8}, 14)) {
        return invalid_field(2);
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    const std::uint32_t per_physical = std::max(1U, unit.device().limits().physical_sectors / unit.sectors_per_block());
    page->u64(last_block(unit));
    page->u32(unit.options().block_bytes);
    page->u8(0);                                                              // no protection information
    page->u8(static_cast<unsigned>(std::bit_width(per_physical) - 1) & 15U);  // blocks per physical block, exponent
    page->u16(unit.options().thin ? 0xc000U : 0U);                            // LBPME, LBPRZ; lowest aligned LBA 0
    page->zeros(16);
    return reply(command, *std::move(page));
}

ScsiResult commands::report_luns(LogicalUnit& unit, const ScsiCommand& command) {
    command.nexus->clear(Attention::kLunsChanged);
    return report_luns_of(unit.environment(), command);
}

/// SELECT REPORT 0 and 2: all units that the initiator may see; 1: well known units, of which there are none
/// (SPC-4 6.33).
ScsiResult commands::report_luns_of(Environment& environment, const ScsiCommand& command) {
    const unsigned select = cdb_byte(command.cdb, 2);
    if (select > 2) {
        return invalid_field(2);
    }
    const std::span<const std::uint64_t> luns = select == 1 ? std::span<const std::uint64_t>() : command.luns;
    auto page = new_page(environment, 8 + luns.size() * 8);
    if (!page) {
        return std::move(page).error();
    }
    page->u32(luns.size() * 8);
    page->u32(0);
    for (const std::uint64_t lun : luns) {
        page->u64(encode_lun(lun));
    }
    return reply(command, *std::move(page));
}

/// Reporting options: 0 all; 1 one without service actions; 2 one with; 3 one either way (SPC-4 6.35.1).
ScsiResult commands::report_supported_operation_codes(LogicalUnit& unit, const ScsiCommand& command) {
    const bool timeouts = (cdb_byte(command.cdb, 2) & 0x80U) != 0;
    const unsigned options = cdb_byte(command.cdb, 2) & 7U;
    const auto opcode = static_cast<std::uint8_t>(command.cdb[3]);
    const std::uint64_t action = load_field(command.cdb, {4, 2});
    const OpcodeKind kind = opcode_kind(opcode);
    if (options > 3) {
        return invalid_field(2, 2);
    }
    if ((options == 1 && kind == OpcodeKind::kServiceActions) || (options == 2 && kind == OpcodeKind::kPlain)) {
        return invalid_field(2, 2);
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    if (options == 0) {
        put_all_commands(*page, unit.options(), timeouts);
    } else {
        const bool action_fits = action <= 0x1f && (kind == OpcodeKind::kServiceActions || action == 0 || options == 1);
        const CommandRow* row = action_fits ? find_row(opcode, static_cast<std::int16_t>(action)) : nullptr;
        put_one_command(*page, row != nullptr && available(*row, unit.options()) ? row : nullptr, timeouts);
    }
    return reply(command, *std::move(page));
}

/// What target/iscsi does with task management requests (SPC-4 6.36).
ScsiResult commands::report_supported_task_management_functions(LogicalUnit& unit, const ScsiCommand& command) {
    constexpr unsigned kAbortTask = 0x80;
    constexpr unsigned kAbortTaskSet = 0x40;
    constexpr unsigned kClearTaskSet = 0x10;
    constexpr unsigned kLogicalUnitReset = 0x08;
    constexpr unsigned kTargetReset = 0x02;
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    page->u8(kAbortTask | kAbortTaskSet | kClearTaskSet | kLogicalUnitReset | kTargetReset);
    page->zeros(3);
    return reply(command, *std::move(page));
}

/// One descriptor: all blocks from there on have space of their own, since it was allocated when the array was made.
ScsiResult commands::get_lba_status(LogicalUnit& unit, const ScsiCommand& command) {
    constexpr unsigned kMapped = 0;
    const std::uint64_t lba = load_field(command.cdb, {2, 8});
    if (lba >= unit.blocks()) {
        return check_condition({.code = kLbaOutOfRange});
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    page->u32(20);
    page->zeros(4);
    page->u64(lba);
    page->u32(std::min<std::uint64_t>(unit.blocks() - lba, 0xffff'ffffU));
    page->u8(kMapped);
    page->zeros(3);
    return reply(command, *std::move(page));
}

namespace {
/// An empty list in whatever format was asked for: what a member cannot read is made up or reported where it is read.
ScsiResult no_defects(LogicalUnit& unit, const ScsiCommand& command, unsigned flags, std::size_t zeros) {
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    page->u8(0);
    page->u8(flags & 0x1fU);  // the lists and the format that were asked for
    page->zeros(zeros);
    return reply(command, *std::move(page));
}
}  // namespace

ScsiResult commands::read_defect_data_10(LogicalUnit& unit, const ScsiCommand& command) {
    return no_defects(unit, command, cdb_byte(command.cdb, 2), 2);
}

ScsiResult commands::read_defect_data_12(LogicalUnit& unit, const ScsiCommand& command) {
    return no_defects(unit, command, cdb_byte(command.cdb, 1), 6);
}

}  // namespace gemel::scsi
