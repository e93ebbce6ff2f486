// SPDX-License-Identifier: Apache-2.0
// INQUIRY: standard data and vital product data pages (SPC-4 6.6, 7.8; SBC-3 6.6).
#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

constexpr std::uint8_t kDirectAccess = 0x00;
constexpr std::uint8_t kNoUnitHere = 0x7f;  // qualifier 3, device type 1Fh
constexpr std::size_t kProductBytes = 16;

// Designator fields (SPC-4 7.8.6).
enum class CodeSet : std::uint8_t { kBinary = 1, kAscii = 2, kUtf8 = 3 };
enum class Association : std::uint8_t { kUnit = 0, kTargetPort = 1, kTargetDevice = 2 };
enum class DesignatorType : std::uint8_t {
    kT10Vendor = 1,
    kNaa = 3,
    kRelativeTargetPort = 4,
    kTargetPortGroup = 5,
    kScsiName = 8,
};

/// FNV-1a, for units whose device has no identity of its own: stable, and different for different names.
std::uint64_t fold(std::string_view text, std::uint64_t start) {
    std::uint64_t h = start;
    for (const char c : text) {
        h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    }
    return h;
}

void put_designator_header(PageBuilder& page, CodeSet code, Association association, DesignatorType type,
                           std::size_t length) {
    constexpr unsigned kIscsi = 5;
    const bool of_port = association != Association::kUnit;
    page.u8((of_port ? kIscsi << 4U : 0U) | static_cast<unsigned>(code));
    page.u8((of_port ? 0x80U : 0U) | static_cast<unsigned>(association) << 4U | static_cast<unsigned>(type));
    page.u8(0);
    page.u8(static_cast<unsigned>(length));
}

/// A SCSI name string: UTF-8, NUL-terminated, padded to four bytes (SPC-4 7.8.6.11). Cut to the field's 255 bytes.
void put_name(PageBuilder& page, Association association, std::string_view name) {
    name = name.substr(0, 251);
    const std::size_t length = round_up(name.size() + 1, 4);
    put_designator_header(page, CodeSet::kUtf8, association, DesignatorType::kScsiName, length);
    page.bytes(as_bytes_of(name));
    page.zeros(length - name.size());
}

void put_port_number(PageBuilder& page, DesignatorType type, std::uint16_t number) {
    put_designator_header(page, CodeSet::kBinary, Association::kTargetPort, type, 4);
    page.u16(0);
    page.u16(number);
}

using VpdWriter = void (*)(PageBuilder&, const LogicalUnit&, const Nexus&);

struct VpdPage {
    std::uint8_t code;
    VpdWriter write;  ///< what follows the four bytes of header
};

void put_supported_pages(PageBuilder& page, const LogicalUnit& unit, const Nexus& nexus);

void put_serial(PageBuilder& page, const LogicalUnit& unit, const Nexus& /*nexus*/) {
    const std::string serial = unit_serial(unit);
    page.ascii(serial, serial.size());
}

void put_identification(PageBuilder& page, const LogicalUnit& unit, const Nexus& nexus) {
    put_designator_header(page, CodeSet::kBinary, Association::kUnit, DesignatorType::kNaa, 16);
    page.bytes(unit_naa(unit));
    const std::string serial = unit_serial(unit);
    put_designator_header(page, CodeSet::kAscii, Association::kUnit, DesignatorType::kT10Vendor,
                          8 + kProductBytes + serial.size());
    page.ascii(unit.options().vendor, 8);
    page.ascii(unit.options().product, kProductBytes);
    page.ascii(serial, serial.size());
    put_port_number(page, DesignatorType::kRelativeTargetPort, nexus.relative_target_port);
    put_port_number(page, DesignatorType::kTargetPortGroup, nexus.target_port_group);
    put_name(page, Association::kTargetPort, nexus.target_port);
    put_name(page, Association::kTargetDevice,
             std::string_view(nexus.target_port).substr(0, nexus.target_port.find(',')));
}

/// SBC-3 6.6.4. Commands that are not there (atomic writes; UNMAP of a fully provisioned unit) have limit 0.
void put_block_limits(PageBuilder& page, const LogicalUnit& unit, const Nexus& /*nexus*/) {
    const DeviceLimits limits = unit.device().limits();
    const std::uint32_t block = unit.options().block_bytes;
    const std::uint32_t physical = std::max(1U, limits.physical_sectors / unit.sectors_per_block());
    const std::uint32_t optimal = std::min(limits.optimal_transfer_bytes, unit.max_transfer_bytes()) / block;
    constexpr std::uint32_t kAlignmentValid = 1U << 31U;
    const bool thin = unit.options().thin;
    page.u8(1);  // WSNZ: WRITE SAME of 0 blocks does not mean all
    page.u8(unit.max_compare_blocks());
    page.u16(physical);  // optimal transfer length granularity
    page.u32(unit.max_transfer_bytes() / block);
    page.u32(optimal);
    page.u32(0);  // PRE-FETCH: no limit
    page.u32(thin ? unit.max_unmap_blocks() : 0);
    page.u32(thin ? kMaxUnmapDescriptors : 0);
    page.u32(thin ? std::max(1U, limits.discard_unit / unit.sectors_per_block()) : 0);        // granularity
    page.u32(thin ? kAlignmentValid | limits.discard_first / unit.sectors_per_block() : 0U);  // its first block
    page.u64(unit.max_same_blocks());
    page.zeros(20);
}

/// SBC-3 6.6.2: no rotation.
void put_characteristics(PageBuilder& page, const LogicalUnit& /*unit*/, const Nexus& /*nexus*/) {
    page.u16(1);
    page.zeros(58);
}

/// SBC-3 6.6.6. A thin unit: UNMAP and WRITE SAME(10), (16) unmap; what is unmapped reads as zeros. Where its device
/// gives no space back all of it is there from the start (resource provisioned).
void put_provisioning(PageBuilder& page, const LogicalUnit& unit, const Nexus& /*nexus*/) {
    constexpr unsigned kUnmaps = 0xe0;  // LBPU, LBPWS, LBPWS10
    constexpr unsigned kReadsZeros = 0x04;
    constexpr unsigned kResourceProvisioned = 1;
    constexpr unsigned kThinProvisioned = 2;
    const unsigned type = unit.device().limits().gives_back ? kThinProvisioned : kResourceProvisioned;
    page.u8(0);  // no thresholds
    page.u8(unit.options().thin ? kUnmaps | kReadsZeros : 0U);
    page.u8(unit.options().thin ? type : 0U);
    page.u8(0);
}

constexpr VpdPage kVpdPages[] = {
    {0x00, put_supported_pages}, {0x80, put_serial},          {0x83, put_identification},
    {0xb0, put_block_limits},    {0xb1, put_characteristics}, {0xb2, put_provisioning},
};

void put_supported_pages(PageBuilder& page, const LogicalUnit& /*unit*/, const Nexus& /*nexus*/) {
    for (const VpdPage& row : kVpdPages) {
        page.u8(row.code);
    }
}

ScsiResult vital_product_data(LogicalUnit& unit, const ScsiCommand& command, unsigned code) {
    const auto* row = std::ranges::find(kVpdPages, code, &VpdPage::code);
    if (row == std::end(kVpdPages)) {
        return invalid_field(2);
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    page->u8(kDirectAccess);
    page->u8(code);
    page->u16(0);
    row->write(*page, unit, command.nexus->nexus());
    page->patch_u16(2, page->size() - 4);
    return reply(command, *std::move(page));
}

/// SPC-4 6.6.2, 96 bytes.
void put_standard_data(PageBuilder& page, std::uint8_t qualifier_and_type, const LunOptions& options) {
    constexpr std::uint16_t kStandards[] = {0x00a0, 0x0960, 0x0460, 0x04c0};  // SAM-5, iSCSI, SPC-4, SBC-3
    page.u8(qualifier_and_type);
    page.u8(options.removable ? 0x80U : 0U);
    page.u8(0x06);  // SPC-4
    page.u8(0x12);  // HISUP, response data format 2
    page.u8(91);    // 96 bytes in all
    page.u8(0);     // TPGS=0: no asymmetric access states are reported
    page.u8(0);
    page.u8(0x02);  // CMDQUE
    page.ascii(options.vendor, 8);
    page.ascii(options.product, kProductBytes);
    page.ascii(options.revision, 4);
    page.zeros(22);
    for (const std::uint16_t standard : kStandards) {
        page.u16(standard);
    }
    page.zeros(30);
}

}  // namespace

/// NAA 6 with a locally administered company id (second bit of its first octet set: nobody's), then 100 bits of the
/// device's identity, or of a hash of the serial number or of the device's name where it has none.
std::array<std::byte, 16> unit_naa(const LogicalUnit& unit) {
    std::array<std::byte, 16> id = unit.device().identity().bytes;
    if (unit.device().identity().is_nil()) {
        const std::string seed = unit.options().serial.empty() ? unit.device().name() : unit.options().serial;
        store_be(id.data(), fold(seed, 0xcbf29ce484222325ULL));
        store_be(id.data() + 8, fold(seed, 0x84222325cbf29ce4ULL));
    }
    // 6 | 02474d | the last 100 bits
    id[0] = std::byte{0x60};
    id[1] = std::byte{0x24};
    id[2] = std::byte{0x74};
    id[3] = std::byte{0xd0} | (id[3] & std::byte{0x0f});
    return id;
}

std::string unit_serial(const LogicalUnit& unit) {
    if (!unit.options().serial.empty()) {
        return unit.options().serial.substr(0, 32);
    }
    const Uuid identity = unit.device().identity();
    return (identity.is_nil() ? Uuid{unit_naa(unit)} : identity).text();
}

ScsiResult commands::inquiry(LogicalUnit& unit, const ScsiCommand& command) {
    const bool evpd = (cdb_byte(command.cdb, 1) & 1U) != 0;
    const unsigned code = cdb_byte(command.cdb, 2);
    if (evpd) {
        return vital_product_data(unit, command, code);
    }
    if (code != 0) {
        return invalid_field(2);
    }
    auto page = new_page(unit.environment());
    if (!page) {
        return std::move(page).error();
    }
    put_standard_data(*page, kDirectAccess, unit.options());
    return reply(command, *std::move(page));
}

/// Of a LUN that has no unit: standard data, and a VPD page 00 that lists itself.
ScsiResult commands::inquiry_no_lun(Environment& environment, const ScsiCommand& command) {
    const bool evpd = (cdb_byte(command.cdb, 1) & 1U) != 0;
    if (cdb_byte(command.cdb, 2) != 0) {
        return invalid_field(2);
    }
    auto page = new_page(environment);
    if (!page) {
        return std::move(page).error();
    }
    if (evpd) {
        page->u8(kNoUnitHere);
        page->u8(0);
        page->u16(1);
        page->u8(0);
    } else {
        put_standard_data(*page, kNoUnitHere, LunOptions{});
    }
    return reply(command, *std::move(page));
}

}  // namespace gemel::scsi
