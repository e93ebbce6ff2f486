// SPDX-License-Identifier: Apache-2.0
#include "replication/link.hpp"

#include <algorithm>
#include <array>

#include "frame.pb.h"
#include "replication/frame_table.hpp"

namespace gemel::replication {

namespace {

constexpr Duration kMemoryRetry = std::chrono::milliseconds(5);
constexpr std::int64_t kConnectTimeoutMs = 1000;

std::string text_of(const Uuid& u) {
    return std::string(as_text(u.bytes));
}

bool uuid_from(const std::string& text, Uuid& u) {
    if (text.size() != u.bytes.size()) {
        return false;
    }
    std::ranges::copy(as_bytes_of(text), u.bytes.begin());
    return true;
}

}  // namespace

Task<Result<void>> close_unless(Stream& stream, Event& finished, Clock& clock, TimePoint due) {
    if (!co_await finished.wait_until(clock, due)) {
        stream.close();
    }
    co_return Result<void>{};
}

Link::Link(NodeContext& context, LinkOwner& owner, PeerConfig peer)
    : context_(context), owner_(owner), peer_(std::move(peer)), down_since_(context.env.clock.now()) {}

void Link::start() {
    down_since_ = context_.env.clock.now();
    if (context_.config.node < peer_.node && !peer_.address.empty()) {
        gate_.spawn(dial_loop());
    }
}

Task<void> Link::stop() {
    if (up_) {
        SendItem bye;
        bye.header.type = FrameType::kBye;
        if (send(bye)) {
            co_await bye.released.wait_until(context_.env.clock, context_.env.clock.now() + kMinBackoff);
            reset("this node is stopping");
            co_await bye.released.wait();
        }
    }
    stop_.set();
    reset("this node is stopping");
    co_await gate_.close();
}

void Link::reset(const std::string& why) {
    if (running_ && !closing_.is_set()) {
        last_error_ = why;
        closing_.set();
        queued_.set();
        room_.set();
        stream_->close();
    }
}

bool Link::send(SendItem& item) {
    if (!up_ || closing_.is_set()) {
        return false;
    }
    item.header.target_id = node_id(peer_.node);
    item.header.initiator_id = node_id(context_.config.node);
    item.in_link = true;
    item.released.reset();
    queue_.push_back(&item);
    queued_.set();
    return true;
}

void Link::send_control(FrameHeader header, std::string body, bool urgent) {
    if (!up_ || closing_.is_set()) {
        return;
    }
    auto item = std::make_unique<SendItem>();
    header.target_id = node_id(peer_.node);
    header.initiator_id = node_id(context_.config.node);
    header.body_length = static_cast<std::uint32_t>(body.size());
    header.payload_crc = crc32c(as_bytes_of(body));
    item->header = header;
    item->body = std::move(body);
    item->owned = true;
    item->in_link = true;
    (urgent ? urgent_ : queue_).push_back(item.release());
    ++control_queued_;
    queued_.set();
}

Task<Result<void>> Link::write_hello(NodeContext& context, Stream& stream, FrameType type, const std::string& target) {
    wire::Hello hello;
    hello.set_node(context.config.node);
    hello.set_iscsi_address(context.config.iscsi_address);
    hello.set_target_node(target);
    hello.set_version(kFrameVersion);
    hello.set_incarnation(text_of(context.incarnation));
    hello.set_boot_id(text_of(context.env.boot_id));
    hello.set_frame_bytes(context.config.frame_bytes);
    hello.set_features(kFeatureQuestions);
    const std::string body = hello.SerializeAsString();
    FrameHeader header;
    header.type = type;
    header.target_id = node_id(target);
    header.initiator_id = node_id(context.config.node);
    header.body_length = static_cast<std::uint32_t>(body.size());
    header.payload_crc = crc32c(as_bytes_of(body));
    const HeaderBytes encoded = encode_header(header);
    const std::array<ConstBytes, 2> parts{ConstBytes(encoded), as_bytes_of(body)};
    co_return co_await stream.write(parts);
}

Task<Result<PeerHello>> Link::read_hello(NodeContext& context, Stream& stream, FrameType expected) {
    HeaderBytes bytes{};
    CO_TRY_VOID(co_await read_exactly(stream, bytes));
    if (std::string why = why_header_invalid(bytes); !why.empty()) {
        co_return fail(Errc::kProtocol, why);
    }
    const FrameHeader header = decode_header(bytes);
    if (header.type != expected) {
        co_return fail(Errc::kProtocol, "the connection does not begin with a greeting");
    }
    std::string body(header.body_length, '\0');
    CO_TRY_VOID(co_await read_exactly(stream, {reinterpret_cast<std::byte*>(body.data()), body.size()}));
    wire::Hello hello;
    const auto printable = [](const std::string& text) {
        return std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127; });
    };
    if (!plain_crc_matches(header, body, {}) || !hello.ParseFromString(body) || !printable(hello.node()) ||
        !printable(hello.iscsi_address()) || !printable(hello.target_node())) {
        co_return fail(Errc::kProtocol, "the greeting is damaged");
    }
    PeerHello out;
    out.node = hello.node();
    out.iscsi_address = hello.iscsi_address();
    out.frame_bytes = hello.frame_bytes();
    out.features = hello.features();
    if (!uuid_from(hello.incarnation(), out.incarnation) || !uuid_from(hello.boot_id(), out.boot_id) ||
        out.frame_bytes < kBlockBytes) {
        co_return fail(Errc::kProtocol, "the greeting of node '" + out.node + "' lacks a field");
    }
    if (const std::string proven = stream.peer_identity(); !proven.empty() && proven != out.node) {
        co_return fail(Errc::kRefused, "the holder of the key of node '" + proven + "' says that it is node '" +
                                           out.node + "'; check the names and the key files of both nodes");
    }
    if (hello.version() != kFrameVersion) {
        co_return fail(Errc::kUnsupported, "node '" + out.node + "' speaks protocol version " +
                                               std::to_string(hello.version()) + "; update the older node");
    }
    if (hello.target_node() != context.config.node) {
        co_return fail(Errc::kRefused, "node '" + out.node + "' wants node '" + hello.target_node() + "', this is '" +
                                           context.config.node + "'; check the peers' addresses");
    }
    co_return out;
}

Task<Result<PeerHello>> Link::greet(Stream& stream) {
    CO_TRY_VOID(co_await write_hello(context_, stream, FrameType::kHello, peer_.node));
    CO_TRY(PeerHello hello, co_await read_hello(context_, stream, FrameType::kHelloReply));
    if (hello.node != peer_.node) {
        co_return fail(Errc::kRefused, "the node at " + peer_.address + " is '" + hello.node + "', not '" + peer_.node +
                                           "'; check the peer's address");
    }
    co_return hello;
}

Task<void> Link::dial_loop() {
    Duration backoff = kMinBackoff;
    Clock& clock = context_.env.clock;
    while (!stop_.is_set()) {
        auto stream = co_await context_.env.network.connect(peer_.address, kConnectTimeoutMs);
        if (stream && !stop_.is_set()) {
            Event finished;
            const auto attempt = [](Link& self, Stream& s, Event& done) -> Task<Result<PeerHello>> {
                Result<PeerHello> hello = co_await self.greet(s);
                done.set();
                co_return hello;
            };
            auto [hello, ignored] =
                co_await when_both(attempt(*this, **stream, finished),
                                   close_unless(**stream, finished, clock, clock.now() + kHandshakeTimeout));
            if (hello && !stop_.is_set()) {
                const TimePoint began = clock.now();
                co_await run_session(std::move(*stream), std::move(*hello));
                backoff = clock.now() - began > kMaxBackoff ? kMinBackoff : backoff;
            } else {
                (*stream)->close();
                last_error_ = hello ? "stopping" : hello.error().message;
            }
        } else if (!stream) {
            last_error_ = stream.error().message;
        }
        const Duration jitter(
            static_cast<std::int64_t>(context_.env.random.below(static_cast<std::uint64_t>(backoff.count()) / 2 + 1)));
        if (co_await stop_.wait_until(clock, clock.now() + backoff / 2 + jitter)) {
            break;
        }
        backoff = std::min(backoff * 2, kMaxBackoff);
    }
}

Task<void> Link::adopt(std::unique_ptr<Stream> stream, PeerHello hello) {
    if (!gate_.enter()) {
        stream->close();
        co_return;
    }
    co_await run_session(std::move(stream), std::move(hello));
    gate_.leave();
}

Task<void> Link::run_session(std::unique_ptr<Stream> stream, PeerHello hello) {
    while (running_) {  // LK3
        reset("the peer connected anew");
        co_await ended_.wait();
    }
    if (stop_.is_set()) {
        stream->close();
        co_return;
    }
    running_ = true;
    ended_.reset();
    closing_.reset();
    queued_.reset();
    stream_ = std::move(stream);
    hello_ = std::move(hello);
    ++session_;
    last_received_ = context_.env.clock.now();
    up_ = true;
    owner_.link_up(*this);
    std::vector<Task<Result<void>>> loops;
    loops.push_back(receive_loop());
    loops.push_back(send_loop());
    loops.push_back(ping_loop());
    co_await when_all(std::move(loops));
    up_ = false;
    down_since_ = context_.env.clock.now();
    drop_queues();
    stream_.reset();
    owner_.link_down(*this);
    running_ = false;
    ended_.set();
}

Task<Result<void>> Link::receive_loop() {
    while (!closing_.is_set()) {
        if (const Result<void> room = co_await wait_for_room(); !room) {
            reset(room.error().message);
            break;
        }
        reading_ = true;
        Result<Frame> frame = co_await read_frame();
        reading_ = false;
        if (!frame) {
            reset(frame.error().message);
            break;
        }
        last_received_ = context_.env.clock.now();
        const Result<void> handled = co_await handle(std::move(*frame));
        last_received_ = context_.env.clock.now();
        if (!handled) {
            reset(handled.error().message);
            break;
        }
    }
    co_return Result<void>{};
}

/// LK5. Each frame that the peer takes from us is progress.
Task<Result<void>> Link::wait_for_room() {
    Clock& clock = context_.env.clock;
    while (control_queued_ >= kMaxControlQueued && !closing_.is_set()) {
        room_.reset();
        if (!co_await room_.wait_until(clock, clock.now() + context_.config.dead_after)) {
            co_return fail(Errc::kTimedOut, "the peer asks and does not read the answers");
        }
        last_received_ = clock.now();  // not being read is not the peer's silence
    }
    co_return Result<void>{};
}

Task<Result<Buffer>> Link::payload_memory(std::size_t bytes) {
    while (!closing_.is_set()) {
        Result<Buffer> memory = context_.env.buffers.allocate(bytes);
        if (memory || memory.error().code != Errc::kResources) {
            co_return memory;
        }
        reading_ = false;  // waiting for memory is not the peer's silence
        co_await closing_.wait_until(context_.env.clock, context_.env.clock.now() + kMemoryRetry);
        last_received_ = context_.env.clock.now();
        reading_ = true;
    }
    co_return fail(Errc::kClosed, "the link is closing");
}

// As read_exactly, but every byte counts as a sign of life: a slow link is not a dead one.
Task<Result<void>> Link::read_all(MutableBytes to) {
    while (!to.empty()) {
        CO_TRY(const std::size_t n, co_await stream_->read_some(to));
        if (n == 0) {
            co_return fail(Errc::kClosed, "the peer closed the connection");
        }
        last_received_ = context_.env.clock.now();
        to = to.subspan(n);
    }
    co_return Result<void>{};
}

Task<Result<Frame>> Link::read_frame() {
    HeaderBytes bytes{};
    CO_TRY_VOID(co_await read_all(bytes));
    if (std::string why = why_header_invalid(bytes); !why.empty()) {  // F1
        co_return fail(Errc::kProtocol, why);
    }
    Frame frame;
    frame.header = decode_header(bytes);
    const FrameHeader& h = frame.header;
    if (h.target_id != node_id(context_.config.node) || h.initiator_id != node_id(peer_.node)) {
        co_return fail(Errc::kProtocol, "a frame of other nodes on this link");
    }
    frame.body.resize(h.body_length);
    CO_TRY_VOID(co_await read_all({reinterpret_cast<std::byte*>(frame.body.data()), h.body_length}));
    if (h.payload_length > 0) {
        CO_TRY(frame.memory, co_await payload_memory(h.payload_length));
        frame.payload = frame.memory.slice(h.payload_length, Lba(h.lba));
        CO_TRY_VOID(co_await read_all(frame.payload.data()));
    }
    co_return frame;
}

Task<Result<void>> Link::handle(Frame frame) {
    const FrameRow& row = *frame_row(frame.header.type);
    if (row.handler != FrameHandler::kStream && row.max_payload == 0 &&
        !plain_crc_matches(frame.header, frame.body, ConstBytes(frame.payload.data()))) {
        co_return fail(Errc::kProtocol, "a " + std::string(row.name) + " frame is damaged");
    }
    switch (row.handler) {
        case FrameHandler::kHandshake:
            co_return fail(Errc::kProtocol, "a second greeting");
        case FrameHandler::kLink:
            // Whatever is queued ahead of data shows life as well: a peer that pings and never reads fills no queue.
            if (frame.header.type == FrameType::kPing && urgent_.empty()) {
                FrameHeader pong;
                pong.type = FrameType::kPong;
                send_control(pong, {}, /*urgent=*/true);
            }
            if (frame.header.type == FrameType::kBye) {
                co_return fail(Errc::kClosed, "the peer's daemon is stopping");
            }
            co_return Result<void>{};
        case FrameHandler::kPair:
        case FrameHandler::kStream:
        case FrameHandler::kOperation:
        case FrameHandler::kQuestion:
        case FrameHandler::kAnswer:
            break;
    }
    co_return co_await owner_.frame_received(*this, std::move(frame));
}

Task<Result<void>> Link::send_loop() {
    while (!closing_.is_set()) {
        if (urgent_.empty() && queue_.empty()) {
            queued_.reset();
            co_await queued_.wait();
            continue;
        }
        std::deque<SendItem*>& from = urgent_.empty() ? queue_ : urgent_;  // LK2
        SendItem* item = from.front();
        from.pop_front();
        const HeaderBytes header = encode_header(item->header);
        const std::array<ConstBytes, 3> parts{ConstBytes(header), as_bytes_of(item->body), item->payload};
        const Result<void> sent = co_await stream_->write(parts);
        release(item);
        if (!sent) {
            reset(sent.error().message);
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> Link::ping_loop() {
    Clock& clock = context_.env.clock;
    while (!co_await closing_.wait_until(clock, clock.now() + context_.config.ping_interval)) {
        if (reading_ && clock.now() - last_received_ > context_.config.dead_after) {
            reset("nothing heard from the peer for " +
                  std::to_string(context_.config.dead_after / std::chrono::milliseconds(1)) + " ms");
            break;
        }
        FrameHeader ping;
        ping.type = FrameType::kPing;
        if (urgent_.empty()) {
            send_control(ping, {}, /*urgent=*/true);
        }
    }
    co_return Result<void>{};
}

void Link::release(SendItem* item) {
    if (item->owned) {
        --control_queued_;
        room_.set();
        delete item;
        return;
    }
    item->in_link = false;
    item->released.set();
}

void Link::drop_queues() {
    for (std::deque<SendItem*>* queue : {&urgent_, &queue_}) {
        while (!queue->empty()) {
            SendItem* item = queue->front();
            queue->pop_front();
            release(item);
        }
    }
}

}  // namespace gemel::replication
