// SPDX-License-Identifier: Apache-2.0
// The frame between two nodes: an 80-byte header with its own checksum, a body, a payload.
//
// Invariants:
//   F1  No length of a header is believed before the header's checksum matched.
//   F2  payload_crc covers the body and the payload; with kFlagBlockCrcs the body is the list of the payload's CRC32Cs
//       per 4 KiB block, payload_crc covers that list only, and the list covers the payload. A payload of one block has
//       no list: payload_crc is its CRC. The receiver's buffer gets the sender's checksums.
// Threads: any; plain functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "gemel/buffer.hpp"
#include "gemel/bytes.hpp"
#include "gemel/result.hpp"

namespace gemel::replication {

inline constexpr std::uint32_t kFrameMagic = 0x524c4d47;  // "GMLR"
inline constexpr std::uint8_t kFrameVersion = 1;
inline constexpr std::size_t kHeaderBytes = 80;
inline constexpr std::uint32_t kMaxFramePayload = 1024 * 1024;
inline constexpr std::uint32_t kMaxControlBody = 16 * 1024;

enum class FrameType : std::uint8_t {
    kHello = 1,
    kHelloReply = 2,
    kPing = 3,
    kPong = 4,
    kBye = 5,
    kPairState = 6,
    kData = 7,
    kDiscard = 8,
    kFlush = 9,
    kReply = 10,
    kErrorReply = 11,
    kResyncBegin = 12,
    kResyncReady = 13,
    kTracks = 14,
    kResyncData = 15,
    kResyncEnd = 16,
    kEstablishPrepare = 17,
    kEstablishCommit = 18,
    kEstablishAbort = 19,
    kSever = 20,
    kReEstablish = 21,
    kResizePrepare = 22,
    kResizeCommit = 23,
    kPromoteRequest = 24,
    kReadRequest = 25,
    kReadReply = 26,
    kDigestRequest = 27,
    kDigestReply = 28,
    kCopyRequest = 29,
};

inline constexpr std::uint16_t kFlagFua = 1U << 0U;
inline constexpr std::uint16_t kFlagBlockCrcs = 1U << 1U;
inline constexpr std::uint16_t kFlagQuery = 1U << 2U;        ///< DATA, DISCARD: no payload; reply if it was applied
inline constexpr std::uint16_t kFlagLastOfWrite = 1U << 3U;  ///< last frame of one host write
inline constexpr std::uint16_t kFlagRequest = 1U << 4U;      ///< PAIR_STATE: asks for the other side's
inline constexpr std::uint16_t kFlagNudge = 1U << 5U;        ///< PAIR_STATE: please ask me
inline constexpr std::uint16_t kKnownFlags = (1U << 6U) - 1;

struct FrameHeader {
    FrameType type = FrameType::kPing;
    std::uint16_t flags = 0;
    std::uint32_t target_id = 0;     ///< CRC32C of the receiver's node name
    std::uint32_t initiator_id = 0;  ///< of the sender's
    std::uint32_t pair_id = 0;       ///< CRC32C of the pair's uuid; 0: the frame is about no pair
    std::uint32_t sector_count = 0;
    std::uint64_t term_counter = 0;
    std::uint64_t term_nonce = 0;
    std::uint64_t generation = 0;
    std::uint64_t sequence = 0;  ///< message id: of the frame, or of the request that is answered
    std::uint64_t lba = 0;       ///< REPLY: the durable sequence; TRACKS: the first track
    std::uint32_t body_length = 0;
    std::uint32_t payload_length = 0;
    std::uint32_t payload_crc = 0;
    friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

[[nodiscard]] HeaderBytes encode_header(const FrameHeader& header);
/// REQUIRES: why_header_invalid(bytes) is empty.
[[nodiscard]] FrameHeader decode_header(const HeaderBytes& bytes);
/// Empty when the header may be believed: magic, version, checksum, known type and flags, lengths in the type's limits.
[[nodiscard]] std::string why_header_invalid(const HeaderBytes& bytes);

/// The id that stands for a node name in frames (NS-4).
[[nodiscard]] std::uint32_t node_id(std::string_view node);
[[nodiscard]] std::uint32_t pair_id_of(const Uuid& pair);

/// Sets body, flags, lengths and payload_crc of a frame that carries `payload`. Takes missing block checksums itself.
/// Returns the body.
[[nodiscard]] std::string seal_payload(FrameHeader& header, const Slice& payload);
/// Checks `payload` against header and body and gives its blocks their checksums. kChecksum: the payload or the list is
/// damaged and may be sent again. kProtocol: the list has the wrong length.
[[nodiscard]] Result<void> open_payload(const FrameHeader& header, std::string_view body, const Slice& payload);
/// For frames without block checksums: body and payload against payload_crc.
[[nodiscard]] bool plain_crc_matches(const FrameHeader& header, std::string_view body, ConstBytes payload);

}  // namespace gemel::replication
