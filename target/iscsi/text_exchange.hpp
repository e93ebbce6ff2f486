// SPDX-License-Identifier: Apache-2.0
// Text requests of the full feature phase (RFC 7143 §11.10, §11.11): collects requests that are continued, answers
// SendTargets and the keys that may change then, and hands out long answers in pieces.
//
// Invariants:
//   TX1  One exchange at a time; a request that begins a new one (target transfer tag ffffffff) forgets the old one.
//   TX2  A piece is never longer than the initiator's MaxRecvDataSegmentLength.
// Threads: the session's processor.
#pragma once

#include <optional>
#include <string>

#include "target/iscsi/pdu.hpp"
#include "target/iscsi/session.hpp"

namespace gemel::iscsi {

class TextExchange {
  public:
    TextExchange(const SessionHost& host, Session& session, const OwnLimits& limits);

    struct Reply {
        TextResponse header;
        std::string text;
    };
    /// Nullopt: the request makes no sense and is to be rejected with kInvalidPduField or kProtocolError (`reason`).
    std::optional<Reply> handle(const TextRequest& request, std::string_view data, std::uint32_t fresh_transfer_tag,
                                RejectReason& reason);

  private:
    [[nodiscard]] bool answer_pairs();
    Reply next_piece(const TextRequest& request, std::uint32_t fresh_transfer_tag);

    const SessionHost& host_;
    Session& session_;
    Negotiation negotiation_;
    std::uint32_t initiator_task_tag_ = kReservedTag;
    std::uint32_t transfer_tag_ = kReservedTag;  ///< of the exchange under way; kReservedTag: none
    std::string incoming_;
    std::string outgoing_;
};

}  // namespace gemel::iscsi
