// SPDX-License-Identifier: Apache-2.0
#include "replication/frame_codec.hpp"

#include "replication/frame_table.hpp"

namespace gemel::replication {

namespace {

struct FrameOnWire {
    std::uint32_t magic;
    std::uint8_t version;
    std::uint8_t type;
    std::uint16_t flags;
    std::uint32_t target_id;
    std::uint32_t initiator_id;
    std::uint32_t pair_id;
    std::uint32_t sector_count;
    std::uint64_t term_counter;
    std::uint64_t term_nonce;
    std::uint64_t generation;
    std::uint64_t sequence;
    std::uint64_t lba;
    std::uint32_t body_length;
    std::uint32_t payload_length;
    std::uint32_t payload_crc;
    std::uint32_t header_crc;
};
static_assert(sizeof(FrameOnWire) == kHeaderBytes);
static_assert(offsetof(FrameOnWire, header_crc) == 76);

constexpr std::size_t kCrcOffset = offsetof(FrameOnWire, header_crc);

std::uint32_t body_crc(std::string_view body) {
    return crc32c(as_bytes_of(body));
}

}  // namespace

HeaderBytes encode_header(const FrameHeader& h) {
    HeaderBytes out{};
    LeWriter w(out);
    w.put(kFrameMagic);
    w.put(kFrameVersion);
    w.put(static_cast<std::uint8_t>(h.type));
    w.put(h.flags);
    w.put(h.target_id);
    w.put(h.initiator_id);
    w.put(h.pair_id);
    w.put(h.sector_count);
    w.put(h.term_counter);
    w.put(h.term_nonce);
    w.put(h.generation);
    w.put(h.sequence);
    w.put(h.lba);
    w.put(h.body_length);
    w.put(h.payload_length);
    w.put(h.payload_crc);
    w.put(crc32c(ConstBytes(out).first(kCrcOffset)));
    return out;
}

FrameHeader decode_header(const HeaderBytes& bytes) {
    LeReader r(bytes);
    FrameHeader h;
    r.take(5);
    h.type = static_cast<FrameType>(r.get<std::uint8_t>());
    h.flags = r.get<std::uint16_t>();
    h.target_id = r.get<std::uint32_t>();
    h.initiator_id = r.get<std::uint32_t>();
    h.pair_id = r.get<std::uint32_t>();
    h.sector_count = r.get<std::uint32_t>();
    h.term_counter = r.get<std::uint64_t>();
    h.term_nonce = r.get<std::uint64_t>();
    h.generation = r.get<std::uint64_t>();
    h.sequence = r.get<std::uint64_t>();
    h.lba = r.get<std::uint64_t>();
    h.body_length = r.get<std::uint32_t>();
    h.payload_length = r.get<std::uint32_t>();
    h.payload_crc = r.get<std::uint32_t>();
    return h;
}

std::string why_header_invalid(const HeaderBytes& bytes) {
    if (load_le<std::uint32_t>(bytes.data()) != kFrameMagic) {
        return "not a frame of Gemel's replication protocol (wrong magic)";
    }
    if (load_le<std::uint32_t>(bytes.data() + kCrcOffset) != crc32c(ConstBytes(bytes).first(kCrcOffset))) {
        return "the frame header's checksum does not match";
    }
    const auto version = std::to_integer<unsigned>(bytes[4]);
    if (version != kFrameVersion) {
        return "frame version " + std::to_string(version) + "; this node speaks version " +
               std::to_string(unsigned{kFrameVersion});
    }
    const FrameHeader h = decode_header(bytes);
    const FrameRow* row = frame_row(h.type);
    if (row == nullptr) {
        return "unknown frame type " + std::to_string(static_cast<unsigned>(h.type));
    }
    if ((h.flags & ~unsigned{kKnownFlags}) != 0) {
        return "unknown flags in a " + std::string(row->name) + " frame";
    }
    if (h.body_length > row->max_body || h.payload_length > row->max_payload) {
        return "a " + std::string(row->name) + " frame longer than its limit";
    }
    return {};
}

std::uint32_t node_id(std::string_view node) {
    return crc32c(as_bytes_of(node));
}

std::uint32_t pair_id_of(const Uuid& pair) {
    return crc32c(pair.bytes);
}

std::string seal_payload(FrameHeader& header, const Slice& payload) {
    const auto blocks = payload.blocks();
    const auto crc_of = [&](std::size_t i) {
        return blocks[i].has_crc ? blocks[i].crc : crc32c(payload.block_data(i));
    };
    header.payload_length = static_cast<std::uint32_t>(payload.size());
    header.body_length = 0;
    header.flags = static_cast<std::uint16_t>(header.flags & ~unsigned{kFlagBlockCrcs});
    if (blocks.size() == 1) {
        header.payload_crc = crc_of(0);
        return {};
    }
    std::string list(blocks.size() * 4, '\0');
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        store_le(reinterpret_cast<std::byte*>(list.data()) + i * 4, crc_of(i));
    }
    header.flags = static_cast<std::uint16_t>(header.flags | kFlagBlockCrcs);
    header.body_length = static_cast<std::uint32_t>(list.size());
    header.payload_crc = body_crc(list);
    return list;
}

Result<void> open_payload(const FrameHeader& header, std::string_view body, const Slice& payload) {
    const auto blocks = payload.blocks();
    const bool listed = (header.flags & kFlagBlockCrcs) != 0;
    if (body.size() != (listed ? blocks.size() * 4 : 0) || (!listed && blocks.size() > 1)) {
        return fail(Errc::kProtocol, "the list of block checksums does not fit the payload");
    }
    if (listed && body_crc(body) != header.payload_crc) {
        return fail(Errc::kChecksum, "the list of block checksums is damaged");
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::uint32_t crc =
            listed ? load_le<std::uint32_t>(as_bytes_of(body).data() + i * 4) : header.payload_crc;
        blocks[i] = BlockInfo{crc, BlockStatus::kOk, true};
    }
    return payload.verify();
}

bool plain_crc_matches(const FrameHeader& header, std::string_view body, ConstBytes payload) {
    return crc32c(payload, body_crc(body)) == header.payload_crc;
}

}  // namespace gemel::replication
