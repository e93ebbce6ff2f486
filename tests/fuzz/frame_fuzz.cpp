// SPDX-License-Identifier: Apache-2.0
// Bytes from the replication port: header, then body and payload as a receiver takes them.
#include "frame.pb.h"
#include "replication/frame_table.hpp"
#include "tests/support/heap_pool.hpp"

using namespace gemel;
using namespace gemel::replication;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const ConstBytes input(reinterpret_cast<const std::byte*>(data), size);
    if (size < kHeaderBytes) {
        return 0;
    }
    HeaderBytes bytes{};
    std::ranges::copy(input.first(kHeaderBytes), bytes.begin());
    store_le(bytes.data(), kFrameMagic);  // a random input would never pass the checksum: set it right
    store_le(bytes.data() + 76, crc32c(ConstBytes(bytes).first(76)));
    if (!why_header_invalid(bytes).empty()) {
        return 0;
    }
    const FrameHeader header = decode_header(bytes);
    CHECK(encode_header(header) == bytes);
    const ConstBytes rest = input.subspan(kHeaderBytes);
    const std::size_t body_size = std::min<std::size_t>(header.body_length, rest.size());
    const std::string body(as_text(rest.first(body_size)));
    wire::Hello hello;
    wire::PairView view;
    wire::Operation operation;
    wire::ErrorBody error;
    (void)hello.ParseFromString(body);
    (void)view.ParseFromString(body);
    (void)operation.ParseFromString(body);
    (void)error.ParseFromString(body);
    (void)decode_digests(body, body.size() / sizeof(BlockDigest)).has_value();
    const ConstBytes payload = rest.subspan(body_size);
    static sim::HeapPool pool;
    const std::size_t bytes_in = std::min<std::size_t>(payload.size(), 64 * kKiB);
    if (bytes_in > 0) {
        const Buffer memory = pool.allocate(bytes_in).value();
        const Slice slice = memory.slice(bytes_in, Lba(header.lba));
        std::ranges::copy(payload.first(bytes_in), slice.data().begin());
        (void)open_payload(header, body, slice).has_value();
    }
    (void)plain_crc_matches(header, body, payload);
    return 0;
}
