// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/pdu.hpp"

namespace gemel::iscsi {

namespace {

constexpr std::uint8_t kNoRow = 0xff;

constexpr auto kRowOfOpcode = [] {
    std::array<std::uint8_t, 64> index{};
    index.fill(kNoRow);
    for (std::size_t i = 0; i < kOpcodeRows.size(); ++i) {
        index[static_cast<std::uint8_t>(kOpcodeRows[i].opcode)] = static_cast<std::uint8_t>(i);
    }
    return index;
}();

constexpr std::uint8_t kAhsExtendedCdb = 1;
constexpr std::uint8_t kAhsBidirectionalRead = 2;
constexpr std::size_t kAhsHead = 3;  ///< AHSLength and AHSType
constexpr std::size_t kMaxExtendedCdb = 260 - 16;

}  // namespace

const OpcodeRow* find_opcode(std::uint8_t raw) {
    const std::uint8_t row = raw < kRowOfOpcode.size() ? kRowOfOpcode[raw] : kNoRow;
    return row == kNoRow ? nullptr : &kOpcodeRows[row];
}

Result<AdditionalHeaders> parse_additional_headers(ConstBytes ahs) {
    AdditionalHeaders out;
    while (!ahs.empty()) {
        if (ahs.size() < kAhsHead + 1) {
            return fail(Errc::kProtocol, "additional header segment is shorter than its own head");
        }
        // AHSLength counts the bytes after AHSType, the reserved first one included, without padding.
        const std::size_t length = load_be<std::uint16_t>(ahs.data());
        const std::uint8_t type = std::to_integer<std::uint8_t>(ahs[2]);
        if (length < 2 || kAhsHead + length > ahs.size()) {
            return fail(Errc::kProtocol, "additional header segment has a length of " + std::to_string(length));
        }
        const ConstBytes body = ahs.subspan(kAhsHead + 1, length - 1);
        if (type == kAhsExtendedCdb && out.extended_cdb.empty() && body.size() <= kMaxExtendedCdb) {
            out.extended_cdb = body;
        } else if (type == kAhsBidirectionalRead && !out.bidirectional_read_length && body.size() == 4) {
            out.bidirectional_read_length = load_be<std::uint32_t>(body.data());
        } else {
            return fail(Errc::kProtocol, "additional header segment of type " + std::to_string(type) +
                                             " is unknown, given twice or of a wrong length");
        }
        const std::size_t whole = kAhsHead + length;
        ahs = ahs.subspan(std::min(ahs.size(), whole + padding_of(whole)));
    }
    return out;
}

}  // namespace gemel::iscsi
