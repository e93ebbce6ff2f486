// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

PageBuilder::PageBuilder(Buffer buffer) : buffer_(std::move(buffer)) {
    std::ranges::fill(buffer_.memory(), std::byte{0});  // LU3
}

std::byte* PageBuilder::claim(std::size_t n) {
    CHECK(n <= buffer_.memory().size() - size_);
    size_ += n;
    return buffer_.memory().data() + size_ - n;
}

void PageBuilder::ascii(std::string_view text, std::size_t field) {
    std::byte* const to = claim(field);
    for (std::size_t i = 0; i < field; ++i) {
        const char c = i < text.size() ? text[i] : ' ';
        to[i] = static_cast<std::byte>(c >= 0x20 && c < 0x7f ? c : ' ');
    }
}

ScsiResult good() {
    return {};
}

ScsiResult with_status(Status status) {
    ScsiResult result;
    result.status = status;
    return result;
}

ScsiResult check_condition(const Sense& sense) {
    ScsiResult result = with_status(Status::kCheckCondition);
    result.sense = sense;
    return result;
}

ScsiResult invalid_field(std::uint8_t byte, std::uint8_t bit) {
    return check_condition({.code = kInvalidFieldInCdb, .field = FieldPointer{byte, bit}});
}

ScsiResult invalid_parameter(std::size_t byte, std::uint8_t bit) {
    return check_condition({.code = kInvalidFieldInParameters,
                            .field = FieldPointer{static_cast<std::uint16_t>(byte), bit, /*in_parameters=*/true}});
}

ScsiResult from_error(const Error& error, std::optional<std::uint64_t> information) {
    const ErrorAnswer answer = answer_for(error.code);
    if (answer.status != Status::kCheckCondition) {
        return with_status(answer.status);
    }
    return check_condition({.code = answer.sense, .information = information});
}

namespace {

ScsiResult reply_at_most(const ScsiCommand& command, PageBuilder page, std::uint64_t limit) {
    ScsiResult result;
    result.transfer_bytes = std::min<std::uint64_t>(page.size(), limit);
    result.data_in_bytes = std::min<std::uint64_t>(result.transfer_bytes, command.data_in_capacity);
    result.data_in = page.take();
    return result;
}

}  // namespace

ScsiResult reply(const ScsiCommand& command, PageBuilder page) {
    return reply_at_most(command, std::move(page), command.plan.transfer_bytes);
}

ScsiResult reply_whole(const ScsiCommand& command, PageBuilder page) {
    const std::size_t size = page.size();
    return reply_at_most(command, std::move(page), size);
}

std::expected<PageBuilder, ScsiResult> new_page(Environment& environment, std::size_t bytes) {
    Result<Buffer> buffer = environment.buffers.allocate(bytes);
    if (!buffer) {
        return std::unexpected(from_error(buffer.error()));
    }
    return PageBuilder(*std::move(buffer));
}

SenseCode attention_code(Attention a) {
    // In the order of the enumeration.
    constexpr std::array<SenseCode, 13> kCodes{{{SenseKey::kUnitAttention, 0x29, 0x00},
                                                {SenseKey::kUnitAttention, 0x29, 0x03},
                                                {SenseKey::kUnitAttention, 0x29, 0x07},
                                                {SenseKey::kUnitAttention, 0x28, 0x00},
                                                {SenseKey::kUnitAttention, 0x2a, 0x09},
                                                {SenseKey::kUnitAttention, 0x2a, 0x01},
                                                {SenseKey::kUnitAttention, 0x2a, 0x03},
                                                {SenseKey::kUnitAttention, 0x2a, 0x04},
                                                {SenseKey::kUnitAttention, 0x2a, 0x05},
                                                {SenseKey::kUnitAttention, 0x2a, 0x06},
                                                {SenseKey::kUnitAttention, 0x3f, 0x0e},
                                                {SenseKey::kUnitAttention, 0x2f, 0x00},
                                                {SenseKey::kUnitAttention, 0x38, 0x07}}};
    static_assert(kCodes.size() == static_cast<std::size_t>(Attention::kSoftThreshold) + 1);
    return kCodes[static_cast<std::size_t>(a)];
}

}  // namespace gemel::scsi
