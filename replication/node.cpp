// SPDX-License-Identifier: Apache-2.0
#include "replication/node.hpp"

#include <algorithm>

#include "frame.pb.h"
#include "replication/frame_table.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint64_t kRequestBit = std::uint64_t{1} << 63U;
constexpr Duration kRequestTimeout = std::chrono::seconds(15);
constexpr Duration kRefusedPause = std::chrono::seconds(10);
constexpr Duration kAcceptRetry = std::chrono::milliseconds(100);

}  // namespace

Node::Node(Environment& env, NodeConfig config, Executor& home)
    : context_{env, std::move(config), home, env.random.uuid()} {
    for (const PeerConfig& peer : context_.config.peers) {
        links_.emplace(peer.node, std::make_unique<Link>(context_, *this, peer));
    }
}

Mirror& Node::add_volume(VolumeStore& store, std::string_view volume) {
    const std::vector<VolumeInfo> volumes = store.volumes();
    const auto info = std::ranges::find(volumes, volume, &VolumeInfo::name);
    BlockDevice* device = store.find(volume);
    CHECK(info != volumes.end() && device != nullptr);
    auto mirror = std::make_unique<Mirror>(context_, *this, store, *info, *device);
    const auto [it, added] = mirrors_.emplace(std::string(volume), std::move(mirror));
    CHECK(added);
    return *it->second;
}

Result<void> Node::check_config() const {
    const NodeConfig& c = context_.config;
    if (c.node.empty() || c.node.size() >= kNodeNameBytes) {
        return fail(Errc::kInvalidArgument, "a node's name has 1 to 63 characters");
    }
    if (c.frame_bytes < kBlockBytes * 2 || c.frame_bytes > kMaxFramePayload) {
        return fail(Errc::kInvalidArgument, "frame_bytes must be 8 KiB to 1 MiB");
    }
    for (const PeerConfig& peer : c.peers) {
        if (peer.node == c.node || peer.node.empty() || peer.node.size() >= kNodeNameBytes) {
            return fail(Errc::kInvalidArgument, "peer '" + peer.node + "' needs a name of its own");
        }
    }
    if (links_.size() != c.peers.size()) {
        return fail(Errc::kInvalidArgument, "two peers have the same name");
    }
    return {};
}

Task<Result<void>> Node::start() {
    CO_TRY_VOID(check_config());
    for (const auto& [name, mirror] : mirrors_) {
        co_await mirror->start();
    }
    if (!context_.config.listen.empty()) {
        CO_TRY(listener_, context_.env.network.listen(context_.config.listen));
        listen_address_ = listener_->local_address();
        gate_.spawn(accept_loop());
    }
    for (const auto& [name, link] : links_) {
        link->start();
    }
    co_return Result<void>{};
}

Task<void> Node::stop() {
    stop_.set();
    if (listener_ != nullptr) {
        listener_->close();
    }
    std::vector<Task<Result<void>>> endings;
    const auto end = [](Link& link) -> Task<Result<void>> {
        co_await link.stop();
        co_return Result<void>{};
    };
    for (const auto& [name, link] : links_) {
        endings.push_back(end(*link));
    }
    std::vector<Task<Result<void>>> mirrors;
    const auto end_mirror = [](Mirror& mirror) -> Task<Result<void>> {
        co_await mirror.stop();
        co_return Result<void>{};
    };
    for (const auto& [name, mirror] : mirrors_) {
        endings.push_back(end_mirror(*mirror));
    }
    co_await when_all(std::move(endings));
    for (const auto& [id, request] : requests_) {
        request->result = fail(Errc::kAborted, "the node is stopping");
        request->done.set();
    }
    requests_.clear();
    co_await gate_.close();
}

Mirror* Node::find(const std::string& volume) {
    const auto it = mirrors_.find(volume);
    return it == mirrors_.end() ? nullptr : it->second.get();
}

std::vector<PairStatus> Node::status() const {
    std::vector<PairStatus> out;
    for (const auto& [name, mirror] : mirrors_) {
        out.push_back(mirror->status());
    }
    return out;
}

Link* Node::link_to(const std::string& node) {
    const auto it = links_.find(node);
    return it == links_.end() ? nullptr : it->second.get();
}

bool Node::pair_id_taken(std::uint32_t pair_id) {
    return std::ranges::any_of(mirrors_, [&](const auto& m) { return m.second->pair_id() == pair_id; });
}

Mirror* Node::by_pair(const Link& link, std::uint32_t pair_id) {
    for (const auto& [name, mirror] : mirrors_) {
        if (pair_id != 0 && mirror->pair_id() == pair_id && mirror->peer_node() == link.peer_node()) {
            return mirror.get();
        }
    }
    return nullptr;
}

void Node::link_up(Link& link) {
    context_.env.events.emit({Severity::kInfo, "peer-connected", "node " + link.peer_node(), "", ""});
    for (const auto& [name, mirror] : mirrors_) {
        mirror->link_up(link);
    }
}

void Node::link_down(Link& link) {
    context_.env.events.emit({Severity::kWarning, "peer-lost", "node " + link.peer_node(), link.last_error(),
                              "it is dialled again by itself"});
    for (auto it = requests_.begin(); it != requests_.end();) {
        if (it->second->link == &link) {
            it->second->result = fail(Errc::kClosed, "the link to node '" + link.peer_node() + "' was lost");
            it->second->done.set();
            it = requests_.erase(it);
        } else {
            ++it;
        }
    }
    for (const auto& [name, mirror] : mirrors_) {
        mirror->link_down(link);
    }
}

Task<Result<void>> Node::request(Link& link, FrameHeader header, std::string body) {
    CO_TRY(const Frame answer, co_await ask(link, header, std::move(body), kRequestTimeout));
    co_return answer.header.type == FrameType::kReply ? Result<void>{}
                                                      : fail(Errc::kProtocol, "an answer of another kind");
}

Task<Result<Frame>> Node::ask(Link& link, FrameHeader header, std::string body, Duration patience) {
    if (!link.up() || stop_.is_set()) {
        co_return fail(Errc::kNotReady, "no contact to node '" + link.peer_node() + "'");
    }
    Request request;
    request.link = &link;
    header.sequence = next_request_++ | kRequestBit;
    requests_.emplace(header.sequence, &request);
    link.send_control(header, std::move(body));
    if (!co_await request.done.wait_until(context_.env.clock, context_.env.clock.now() + patience)) {
        requests_.erase(header.sequence);
        co_return fail(Errc::kTimedOut, "node '" + link.peer_node() + "' did not answer in time");
    }
    co_return std::move(request.result);
}

void Node::answer(const Link& link, Frame frame) {
    const auto it = requests_.find(frame.header.sequence);
    if (it == requests_.end() || it->second->link != &link) {
        return;
    }
    Request& request = *it->second;
    requests_.erase(it);
    if (frame.header.type == FrameType::kErrorReply) {
        wire::ErrorBody error;
        request.result = error.ParseFromString(frame.body)
                             ? fail(static_cast<Errc>(error.errc()), error.nature())
                             : fail(Errc::kProtocol, "an error reply that cannot be read");
    } else {
        request.result = std::move(frame);
    }
    request.done.set();
}

void Node::reply_to(Link& link, const FrameHeader& request, const Result<void>& result) {
    FrameHeader h;
    h.type = result ? FrameType::kReply : FrameType::kErrorReply;
    h.pair_id = request.pair_id;
    h.sequence = request.sequence;
    std::string body;
    if (!result) {
        wire::ErrorBody error;
        error.set_errc(static_cast<std::uint32_t>(result.error().code));
        error.set_nature(result.error().message.substr(0, 1024));
        body = error.SerializeAsString();
    }
    link.send_control(h, std::move(body));
}

Task<void> Node::run_operation(Link& link, Frame frame) {
    const std::uint64_t session = link.session();
    wire::Operation op;
    Result<void> result = fail(Errc::kProtocol, "an operation that cannot be read");
    if (op.ParseFromString(frame.body)) {
        Mirror* mirror = frame.header.pair_id != 0 ? by_pair(link, frame.header.pair_id) : find(op.peer_volume());
        if (mirror == nullptr && frame.header.pair_id != 0) {
            mirror = find(op.peer_volume());
        }
        result =
            mirror == nullptr
                ? fail(Errc::kNotFound, "node '" + context_.config.node + "' has no volume '" + op.peer_volume() + "'")
                : co_await mirror->operation_received(link, frame.header.type, op);
    }
    if (link.up() && link.session() == session) {
        reply_to(link, frame.header, result);
    }
}

Task<Result<void>> Node::frame_received(Link& link, Frame frame) {
    const FrameHeader& h = frame.header;
    const bool reply = h.type == FrameType::kReply || h.type == FrameType::kErrorReply;
    if (frame_row(h.type)->handler == FrameHandler::kAnswer || (reply && (h.sequence & kRequestBit) != 0)) {
        answer(link, std::move(frame));
        co_return Result<void>{};
    }
    if (frame_row(h.type)->handler == FrameHandler::kOperation) {
        gate_.spawn(run_operation(link, std::move(frame)));
        co_return Result<void>{};
    }
    Mirror* mirror = by_pair(link, h.pair_id);
    if (mirror == nullptr) {
        if (h.type == FrameType::kPairState) {
            FrameHeader unknown = h;
            unknown.sequence = 0;
            reply_to(link, unknown, fail(Errc::kNotFound, "node '" + context_.config.node + "' has no such pair"));
        }
        co_return Result<void>{};
    }
    if (h.type == FrameType::kErrorReply && h.sequence == 0) {
        mirror->pair_unknown(link, "it has no such pair");
        co_return Result<void>{};
    }
    co_return co_await mirror->frame_received(link, std::move(frame));
}

Task<void> Node::accept_loop() {
    while (!stop_.is_set()) {
        Result<std::unique_ptr<Stream>> stream = co_await listener_->accept();
        if (!stream) {
            if (stream.error().code == Errc::kClosed) {
                break;
            }
            co_await stop_.wait_until(context_.env.clock, context_.env.clock.now() + kAcceptRetry);
            continue;
        }
        if (greetings_ >= kMaxGreetings || stop_.is_set()) {  // N1
            (*stream)->close();
            refused_connection((*stream)->peer_address(), "too many connections that do not say who they are");
            continue;
        }
        ++greetings_;
        gate_.spawn(greet(std::move(*stream)));
    }
}

Task<Result<PeerHello>> Node::exchange(Stream& stream) {
    CO_TRY(PeerHello hello, co_await Link::read_hello(context_, stream, FrameType::kHello));
    if (link_to(hello.node) == nullptr) {
        co_return fail(Errc::kRefused,
                       "node '" + hello.node.substr(0, kNodeNameBytes) + "' is not a peer of this node");
    }
    CO_TRY_VOID(co_await Link::write_hello(context_, stream, FrameType::kHelloReply, hello.node));
    co_return hello;
}

Task<void> Node::greet(std::unique_ptr<Stream> stream) {
    Event finished;
    const auto attempt = [](Node& self, Stream& s, Event& done) -> Task<Result<PeerHello>> {
        Result<PeerHello> hello = co_await self.exchange(s);
        done.set();
        co_return hello;
    };
    Clock& clock = context_.env.clock;
    auto [hello, ignored] = co_await when_both(attempt(*this, *stream, finished),
                                               close_unless(*stream, finished, clock, clock.now() + kHandshakeTimeout));
    --greetings_;
    if (!hello || stop_.is_set()) {
        if (!hello) {
            refused_connection(stream->peer_address(), hello.error().message);
        }
        stream->close();
        co_return;
    }
    Link* link = link_to(hello->node);
    co_await link->adopt(std::move(stream), std::move(*hello));
}

// A port scanner must not fill the event log: one event per pause, with the number refused since the last one.
void Node::refused_connection(const std::string& from, const std::string& why) {
    ++refused_;
    const TimePoint now = context_.env.clock.now();
    if (refused_at_ != TimePoint{} && now - refused_at_ < kRefusedPause) {
        return;
    }
    refused_at_ = now;
    context_.env.events.emit({Severity::kWarning, "replication-connection-refused", "connection from " + from,
                              why + " (" + std::to_string(refused_.load()) + " refused so far)",
                              "check who connects to the replication port"});
}

}  // namespace gemel::replication
