// SPDX-License-Identifier: Apache-2.0
// One row per frame type: its limits, and who handles it. A new frame is a message in frame.proto and a row here.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "replication/block_digest.hpp"
#include "replication/frame_codec.hpp"

namespace gemel::replication {

enum class FrameHandler : std::uint8_t {
    kHandshake,  ///< only as the first frame of a connection
    kLink,       ///< liveness and farewell
    kPair,       ///< about one pair: negotiation, replies, resync control
    kStream,     ///< changes the secondary's copy; in order, sequence checked
    kOperation,  ///< an operator's request from the peer
    kQuestion,   ///< about blocks of the other side's copy; answered by the same message id
    kAnswer,     ///< to a question of this side
};

struct FrameRow {
    FrameType type;
    std::string_view name;
    FrameHandler handler;
    std::uint32_t max_body;
    std::uint32_t max_payload;
};

inline constexpr std::uint32_t kMaxHelloBody = 1024;
inline constexpr std::uint32_t kMaxCrcList = kMaxFramePayload / kBlockBytes * 4 + 4;
inline constexpr std::uint32_t kMaxDigestBody = kMaxFramePayload / kBlockBytes * sizeof(BlockDigest);

inline constexpr std::array kFrameTable{
    FrameRow{FrameType::kHello, "hello", FrameHandler::kHandshake, kMaxHelloBody, 0},
    FrameRow{FrameType::kHelloReply, "hello-reply", FrameHandler::kHandshake, kMaxHelloBody, 0},
    FrameRow{FrameType::kPing, "ping", FrameHandler::kLink, 0, 0},
    FrameRow{FrameType::kPong, "pong", FrameHandler::kLink, 0, 0},
    FrameRow{FrameType::kBye, "bye", FrameHandler::kLink, kMaxControlBody, 0},
    FrameRow{FrameType::kPairState, "pair-state", FrameHandler::kPair, kMaxControlBody, 0},
    FrameRow{FrameType::kData, "data", FrameHandler::kStream, kMaxCrcList, kMaxFramePayload},
    FrameRow{FrameType::kDiscard, "discard", FrameHandler::kStream, 0, 0},
    FrameRow{FrameType::kFlush, "flush", FrameHandler::kStream, 0, 0},
    FrameRow{FrameType::kReply, "reply", FrameHandler::kPair, 0, 0},
    FrameRow{FrameType::kErrorReply, "error-reply", FrameHandler::kPair, kMaxControlBody, 0},
    FrameRow{FrameType::kResyncBegin, "resync-begin", FrameHandler::kPair, kMaxControlBody, 0},
    FrameRow{FrameType::kResyncReady, "resync-ready", FrameHandler::kPair, 0, 0},
    FrameRow{FrameType::kTracks, "tracks", FrameHandler::kPair, kMaxControlBody, 0},
    FrameRow{FrameType::kResyncData, "resync-data", FrameHandler::kStream, kMaxCrcList, kMaxFramePayload},
    FrameRow{FrameType::kResyncEnd, "resync-end", FrameHandler::kPair, 0, 0},
    FrameRow{FrameType::kEstablishPrepare, "establish-prepare", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kEstablishCommit, "establish-commit", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kEstablishAbort, "establish-abort", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kSever, "sever", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kReEstablish, "re-establish", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kResizePrepare, "resize-prepare", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kResizeCommit, "resize-commit", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kPromoteRequest, "promote-request", FrameHandler::kOperation, kMaxControlBody, 0},
    FrameRow{FrameType::kReadRequest, "read-request", FrameHandler::kQuestion, 0, 0},
    FrameRow{FrameType::kReadReply, "read-reply", FrameHandler::kAnswer, kMaxCrcList, kMaxFramePayload},
    FrameRow{FrameType::kDigestRequest, "digest-request", FrameHandler::kQuestion, 0, 0},
    FrameRow{FrameType::kDigestReply, "digest-reply", FrameHandler::kAnswer, kMaxDigestBody, 0},
    FrameRow{FrameType::kCopyRequest, "copy-request", FrameHandler::kQuestion, 0, 0},
};

/// nullptr for a type that this version does not know.
constexpr const FrameRow* frame_row(FrameType type) {
    const auto row = std::ranges::find(kFrameTable, type, &FrameRow::type);
    return row == kFrameTable.end() ? nullptr : &*row;
}

}  // namespace gemel::replication
