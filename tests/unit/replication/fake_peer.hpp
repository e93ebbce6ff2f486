// SPDX-License-Identifier: Apache-2.0
// FakePeer: plays node alpha towards a real node beta, frame by frame, and reads only what the test wants to read.
// Threads: the simulator's one.
#pragma once

#include "frame.pb.h"
#include "replication/link.hpp"
#include "tests/unit/replication/pair_world.hpp"

namespace gemel::replication {

class FakePeer {
  public:
    explicit FakePeer(PairWorld& world)
        : world_(world),
          context_{world.alpha.env.get(), world.config(world.alpha), world.alpha.home, world.alpha.env.random().uuid()},
          pair_(world.alpha.env.random().uuid()) {}
    ~FakePeer() { close(); }
    void close() { stream_->close(); }

    Task<Result<void>> connect() {
        CO_TRY(stream_, co_await context_.env.network.connect("beta:7261", 1000));
        CO_TRY_VOID(co_await Link::write_hello(context_, *stream_, FrameType::kHello, "beta"));
        CO_TRY([[maybe_unused]] const PeerHello hello,
               co_await Link::read_hello(context_, *stream_, FrameType::kHelloReply));
        co_return Result<void>{};
    }
    Task<Result<void>> send(FrameHeader header, std::string body = {}) {
        header.target_id = node_id("beta");
        header.initiator_id = node_id("alpha");
        header.body_length = static_cast<std::uint32_t>(body.size());
        header.payload_crc = crc32c(as_bytes_of(body));
        const HeaderBytes encoded = encode_header(header);
        const std::array<ConstBytes, 2> parts{ConstBytes(encoded), as_bytes_of(body)};
        co_return co_await stream_->write(parts);
    }
    Task<Result<Frame>> read() {
        HeaderBytes bytes{};
        CO_TRY_VOID(co_await read_exactly(*stream_, bytes));
        CHECK(why_header_invalid(bytes).empty());
        Frame frame;
        frame.header = decode_header(bytes);
        frame.body.resize(frame.header.body_length);
        CO_TRY_VOID(
            co_await read_exactly(*stream_, {reinterpret_cast<std::byte*>(frame.body.data()), frame.body.size()}));
        if (frame.header.payload_length > 0) {
            CO_TRY(frame.memory, context_.env.buffers.allocate(frame.header.payload_length));
            frame.payload = frame.memory.slice(frame.header.payload_length, Lba(frame.header.lba));
            CO_TRY_VOID(co_await read_exactly(*stream_, frame.payload.data()));
        }
        co_return frame;
    }
    /// Skips frames of other types. An error reply is an error.
    Task<Result<Frame>> read_until(FrameType type) {
        for (;;) {
            CO_TRY(Frame frame, co_await read());
            if (frame.header.type == type) {
                co_return frame;
            }
            if (frame.header.type == FrameType::kErrorReply) {
                co_return fail(Errc::kRefused, frame.body);
            }
        }
    }
    /// Every frame until the connection ends.
    Task<std::vector<Frame>> read_to_end() {
        std::vector<Frame> out;
        for (Result<Frame> frame = co_await read(); frame; frame = co_await read()) {
            out.push_back(std::move(*frame));
        }
        co_return out;
    }

    [[nodiscard]] FrameHeader header(FrameType type, std::uint64_t sequence = 0) const {
        FrameHeader h;
        h.type = type;
        h.pair_id = pair_id_of(pair_);
        h.sequence = sequence;
        h.generation = kGeneration;
        h.term_counter = 1;
        h.term_nonce = 1;
        return h;
    }
    /// The peer's answer to this side's state.
    Task<Result<wire::PairView>> ask() {
        wire::PairView mine;
        mine.set_pair(std::string(as_text(pair_.bytes)));
        mine.set_sectors(PairWorld::kSectors);
        mine.set_device_sectors(PairWorld::kSectors);
        mine.set_generation(kGeneration);
        mine.set_base(kBase);
        mine.set_term_counter(1);
        mine.set_term_nonce(1);
        mine.set_state(static_cast<std::uint32_t>(PairState::kLogging));
        mine.set_role(static_cast<std::uint32_t>(Role::kPrimary));
        mine.set_incarnation(std::string(as_text(context_.incarnation.bytes)));
        mine.set_round(++round_);
        FrameHeader h = header(FrameType::kPairState);
        h.flags = kFlagRequest;
        CO_TRY_VOID(co_await send(h, mine.SerializeAsString()));
        CO_TRY(const Frame answer, co_await read_until(FrameType::kPairState));
        wire::PairView theirs;
        CHECK(theirs.ParseFromString(answer.body));
        co_return theirs;
    }
    /// Beta's volume becomes the target of a resync from here, ready for frames.
    Task<Result<void>> pair() {
        wire::Operation op;
        op.set_pair(std::string(as_text(pair_.bytes)));
        op.set_identity(op.pair());
        op.set_volume("vol");
        op.set_peer_volume("vol");
        op.set_sectors(PairWorld::kSectors);
        op.set_term_counter(1);
        op.set_term_nonce(1);
        op.set_generation(kBase);
        for (const FrameType type : {FrameType::kEstablishPrepare, FrameType::kEstablishCommit}) {
            FrameHeader h = header(type, kRequest);
            h.pair_id = 0;
            CO_TRY_VOID(co_await send(h, op.SerializeAsString()));
            CO_TRY([[maybe_unused]] const Frame done, co_await read_until(FrameType::kReply));
        }
        CO_TRY([[maybe_unused]] const wire::PairView theirs, co_await ask());
        CO_TRY_VOID(co_await send(header(FrameType::kResyncBegin)));
        CO_TRY([[maybe_unused]] const Frame ready, co_await read_until(FrameType::kResyncReady));
        co_return Result<void>{};
    }
    /// And then mirrored.
    Task<Result<void>> end_resync() {
        CO_TRY_VOID(co_await send(header(FrameType::kResyncEnd, kRequest)));
        CO_TRY([[maybe_unused]] const Frame done, co_await read_until(FrameType::kReply));
        co_return Result<void>{};
    }
    template <class T>
    T run(Task<T> task) {
        return world_.scheduler.run(world_.alpha.home, std::move(task));
    }

  private:
    static constexpr std::uint64_t kRequest = 1ULL << 63U;
    static constexpr std::uint64_t kGeneration = 12;
    static constexpr std::uint64_t kBase = 11;
    PairWorld& world_;
    NodeContext context_;
    Uuid pair_;
    std::unique_ptr<Stream> stream_;
    std::uint64_t round_ = 0;
};

}  // namespace gemel::replication
