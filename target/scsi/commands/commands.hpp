// SPDX-License-Identifier: Apache-2.0
// The handlers of the command table, and what they share: page building and the three kinds of result.
//
// Invariants:
//   CH1  A handler runs only when plan() found nothing wrong with the CDB, no unit attention was due and no other
//        nexus's reservation stood in the way.
//   CH2  Sizes that come from the initiator bound a reply; they never size an allocation.
// Threads: as LogicalUnit.
#pragma once

#include <string_view>

#include "target/scsi/command_table.hpp"

namespace gemel::scsi {

/// Builds parameter data in a zeroed buffer. Big-endian. REQUIRES: what is put fits (sizes are ours, not the peer's).
class PageBuilder {
  public:
    explicit PageBuilder(Buffer buffer);
    [[nodiscard]] std::size_t size() const { return size_; }
    void u8(unsigned v) { *claim(1) = static_cast<std::byte>(v); }
    void u16(std::size_t v) { store_be(claim(2), static_cast<std::uint16_t>(v)); }
    void u24(std::size_t v) {
        u8(static_cast<unsigned>(v >> 16U & 0xffU));
        u16(v & 0xffffU);
    }
    void u32(std::uint64_t v) { store_be(claim(4), static_cast<std::uint32_t>(v)); }
    void u64(std::uint64_t v) { store_be(claim(8), v); }
    void zeros(std::size_t n) { claim(n); }
    void bytes(ConstBytes from) { std::ranges::copy(from, claim(from.size())); }
    /// ASCII, cut to `field`, padded with spaces (SPC-4 4.3.1). Other characters become spaces.
    void ascii(std::string_view text, std::size_t field);
    /// A length field written earlier as zero.
    void patch_u16(std::size_t at, std::size_t v) {
        store_be(buffer_.memory().data() + at, static_cast<std::uint16_t>(v));
    }
    void patch_u8(std::size_t at, std::size_t v) { buffer_.memory()[at] = static_cast<std::byte>(v); }
    void patch_u32(std::size_t at, std::size_t v) {
        store_be(buffer_.memory().data() + at, static_cast<std::uint32_t>(v));
    }
    Buffer take() { return std::move(buffer_); }

  private:
    std::byte* claim(std::size_t n);
    Buffer buffer_;
    std::size_t size_ = 0;
};

ScsiResult good();
ScsiResult with_status(Status status);
ScsiResult check_condition(const Sense& sense);
/// 05/24/00 with a pointer to the field.
ScsiResult invalid_field(std::uint8_t byte, std::uint8_t bit = 7);
/// 05/26/00 with a pointer to the field.
ScsiResult invalid_parameter(std::size_t byte, std::uint8_t bit = 7);
/// The answer to a failed device operation. `information` as in Sense.
ScsiResult from_error(const Error& error, std::optional<std::uint64_t> information = std::nullopt);
/// GOOD with `page`, cut to the plan's allocation length and to what the initiator can take.
ScsiResult reply(const ScsiCommand& command, PageBuilder page);
/// GOOD with `page` of a command whose CDB has no allocation length.
ScsiResult reply_whole(const ScsiCommand& command, PageBuilder page);
/// A page of up to `bytes`; on failure the result says busy.
std::expected<PageBuilder, ScsiResult> new_page(Environment& environment, std::size_t bytes = kBlockBytes);

/// The 16 bytes that name the data behind a unit (VPD 83, NAA 6), the same on both nodes of a pair.
std::array<std::byte, 16> unit_naa(const LogicalUnit& unit);
/// What VPD 80 says.
std::string unit_serial(const LogicalUnit& unit);

namespace commands {

// read_write.cpp
Task<ScsiResult> read(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> write(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> write_and_verify(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> verify(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> synchronize_cache(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> pre_fetch(LogicalUnit& unit, const ScsiCommand& command);
// compare_and_write.cpp
Task<ScsiResult> compare_and_write(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> orwrite(LogicalUnit& unit, const ScsiCommand& command);
// provisioning.cpp
Task<ScsiResult> unmap(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> write_same(LogicalUnit& unit, const ScsiCommand& command);
// inquiry.cpp
ScsiResult inquiry(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult inquiry_no_lun(Environment& environment, const ScsiCommand& command);
// mode_pages.cpp
ScsiResult mode_sense(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> mode_select(LogicalUnit& unit, const ScsiCommand& command);
// reports.cpp
ScsiResult read_capacity_10(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult read_capacity_16(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult report_luns(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult report_luns_of(Environment& environment, const ScsiCommand& command);
ScsiResult report_supported_operation_codes(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult report_supported_task_management_functions(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult get_lba_status(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult read_defect_data_10(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult read_defect_data_12(LogicalUnit& unit, const ScsiCommand& command);
// persistent_reserve.cpp
ScsiResult persistent_reserve_in(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> persistent_reserve_out(LogicalUnit& unit, const ScsiCommand& command);
// unit_state.cpp
Task<ScsiResult> test_unit_ready(LogicalUnit& unit, const ScsiCommand& command);
Task<ScsiResult> start_stop_unit(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult request_sense(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult request_sense_of(Environment& environment, const ScsiCommand& command, const Sense& sense);
ScsiResult prevent_allow(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult reserve(LogicalUnit& unit, const ScsiCommand& command);
ScsiResult release(LogicalUnit& unit, const ScsiCommand& command);

}  // namespace commands

/// The sense code of a unit attention.
SenseCode attention_code(Attention a);

}  // namespace gemel::scsi
