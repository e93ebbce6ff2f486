// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/text_exchange.hpp"

namespace gemel::iscsi {

namespace {

/// An answer may be longer than any request: SendTargets names every target.
constexpr std::size_t kMostAnswerBytes = 1U << 20U;

}  // namespace

TextExchange::TextExchange(const SessionHost& host, Session& session, const OwnLimits& limits)
    : host_(host), session_(session), negotiation_(limits) {}

std::optional<TextExchange::Reply> TextExchange::handle(const TextRequest& request, std::string_view data,
                                                        std::uint32_t fresh_transfer_tag, RejectReason& reason) {
    const bool final = (request.flags & kFinal) != 0;
    const bool more_to_come = (request.flags & kContinue) != 0;
    reason = RejectReason::kInvalidPduField;
    if (request.initiator_task_tag == kReservedTag || (final && more_to_come)) {
        return std::nullopt;
    }
    if (request.target_transfer_tag == kReservedTag) {
        incoming_.clear();
        outgoing_.clear();
        negotiation_.begin_exchange();
        initiator_task_tag_ = request.initiator_task_tag;
    } else if (request.target_transfer_tag != transfer_tag_ || request.initiator_task_tag != initiator_task_tag_) {
        return std::nullopt;
    }
    transfer_tag_ = kReservedTag;
    if (incoming_.size() + data.size() > TextLimits::kTotalBytes) {
        reason = RejectReason::kProtocolError;
        return std::nullopt;
    }
    incoming_.append(data);
    if (more_to_come) {
        Reply reply;
        reply.header.flags = 0;
        reply.header.initiator_task_tag = request.initiator_task_tag;
        reply.header.target_transfer_tag = transfer_tag_ = fresh_transfer_tag;
        return reply;
    }
    if (!answer_pairs()) {
        reason = RejectReason::kProtocolError;
        return std::nullopt;
    }
    return next_piece(request, fresh_transfer_tag);
}

bool TextExchange::answer_pairs() {
    const std::string text = std::exchange(incoming_, {});
    for (std::string_view rest = text; !rest.empty();) {
        const Result<TextPair> pair = next_pair(rest);
        if (!pair) {
            return false;
        }
        if (pair->key == key_row(KeyId::kSendTargets).name) {
            outgoing_ += host_.send_targets(session_, pair->value);
        } else if (!negotiation_.offer(*pair, kFullFeatureStage, outgoing_)) {
            return false;
        }
        if (outgoing_.size() > kMostAnswerBytes) {
            return false;
        }
    }
    if (negotiation_.given(KeyId::kMaxRecvDataSegmentLength)) {
        session_.parameters.max_send_data_segment_length = negotiation_.number(KeyId::kMaxRecvDataSegmentLength);
    }
    return true;
}

TextExchange::Reply TextExchange::next_piece(const TextRequest& request, std::uint32_t fresh_transfer_tag) {
    Reply reply;
    reply.header.initiator_task_tag = request.initiator_task_tag;
    reply.text = outgoing_.substr(0, session_.parameters.max_send_data_segment_length);
    outgoing_.erase(0, reply.text.size());
    const bool final = (request.flags & kFinal) != 0;
    if (!outgoing_.empty()) {
        reply.header.flags = kContinue;
    } else {
        reply.header.flags = final ? kFinal : 0;
    }
    if (reply.header.flags != kFinal) {
        reply.header.target_transfer_tag = transfer_tag_ = fresh_transfer_tag;
    }
    return reply;
}

}  // namespace gemel::iscsi
