// SPDX-License-Identifier: Apache-2.0
// Link: the one connection between this node and a peer, carrying all their pairs in both directions. The node with the
// smaller name dials; both listen.
//
// Invariants:
//   LK1 A SendItem is in the link's hands from send() until released is set; its memory is not touched afterwards.
//   LK2 Pings go ahead of data between frames and do not depend on data being sent or read (NS-6).
//   LK3 One session at a time: a new connection of the same peer ends the old one first.
//   LK4 Before the handshake a connection costs at most one header and kMaxHelloBody bytes, and kHandshakeTimeout.
//   LK5 A peer is read only while fewer than kMaxControlQueued frames that the link owns (answers, states, queries; not
//       data) wait for it to read them, and is given up when it reads none of those for `dead_after`.
// Threads: the executor `home` of its node.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "gemel/environment.hpp"
#include "gemel/sync.hpp"
#include "replication/frame_codec.hpp"
#include "replication/replicator.hpp"

namespace gemel::replication {

inline constexpr Duration kHandshakeTimeout = std::chrono::seconds(3);
inline constexpr std::size_t kMaxControlQueued = 4096;
/// Of Hello::features: the node answers questions about its copy.
inline constexpr std::uint64_t kFeatureQuestions = 1;
inline constexpr Duration kMinBackoff = std::chrono::milliseconds(100);
inline constexpr Duration kMaxBackoff = std::chrono::seconds(2);

/// What every part of a node needs to know.
struct NodeContext {
    Environment& env;
    NodeConfig config;
    Executor& home;
    Uuid incarnation;
};

/// What a peer said of itself.
struct PeerHello {
    std::string node;
    std::string iscsi_address;
    Uuid incarnation;
    Uuid boot_id;
    std::uint32_t frame_bytes = 0;
    std::uint64_t features = 0;
};

/// A frame to send. REQUIRES: alive until `released` is set, if it was given to a link.
struct SendItem {
    FrameHeader header;
    std::string body;
    ConstBytes payload;  ///< borrowed
    bool in_link = false;
    bool owned = false;  ///< by the link: freed when sent
    Event released;
};

/// A frame received.
struct Frame {
    FrameHeader header;
    std::string body;
    Buffer memory;
    Slice payload;
};

class Link;

class LinkOwner {
  public:
    virtual ~LinkOwner() = default;
    virtual void link_up(Link& link) = 0;
    virtual void link_down(Link& link) = 0;
    /// May wait to hold the peer back. An error ends the connection.
    virtual Task<Result<void>> frame_received(Link& link, Frame frame) = 0;
};

class Link {
  public:
    Link(NodeContext& context, LinkOwner& owner, PeerConfig peer);

    void start();
    Task<void> stop();

    [[nodiscard]] bool up() const { return up_; }
    [[nodiscard]] const std::string& peer_node() const { return peer_.node; }
    [[nodiscard]] const PeerHello& hello() const { return hello_; }
    /// Number of the connection; a frame of an older one means nothing any more.
    [[nodiscard]] std::uint64_t session() const { return session_; }
    [[nodiscard]] const std::string& last_error() const { return last_error_; }
    [[nodiscard]] TimePoint down_since() const { return down_since_; }

    /// Queues `item`; false, and it is not queued, when the link is down.
    bool send(SendItem& item);
    /// Queues a frame that the link owns. Ids are filled in. Dropped when the link is down.
    void send_control(FrameHeader header, std::string body, bool urgent = false);
    /// Ends the connection; the dialling side connects again.
    void reset(const std::string& why);

    /// Runs a connection that the peer opened, to its end.
    Task<void> adopt(std::unique_ptr<Stream> stream, PeerHello hello);
    /// Reads and checks the peer's first frame. Errors name what is wrong.
    static Task<Result<PeerHello>> read_hello(NodeContext& context, Stream& stream, FrameType expected);
    static Task<Result<void>> write_hello(NodeContext& context, Stream& stream, FrameType type,
                                          const std::string& target);

  private:
    Task<void> dial_loop();
    Task<Result<PeerHello>> greet(Stream& stream);
    Task<void> run_session(std::unique_ptr<Stream> stream, PeerHello hello);
    Task<Result<void>> receive_loop();
    Task<Result<void>> wait_for_room();
    Task<Result<Frame>> read_frame();
    Task<Result<void>> read_all(MutableBytes to);
    Task<Result<Buffer>> payload_memory(std::size_t bytes);
    Task<Result<void>> handle(Frame frame);
    Task<Result<void>> send_loop();
    Task<Result<void>> ping_loop();
    void release(SendItem* item);
    void drop_queues();

    NodeContext& context_;
    LinkOwner& owner_;
    PeerConfig peer_;
    PeerHello hello_;
    std::unique_ptr<Stream> stream_;
    bool up_ = false;
    bool running_ = false;
    bool reading_ = false;
    std::uint64_t session_ = 0;
    TimePoint last_received_{};
    TimePoint down_since_{};
    std::string last_error_;
    std::deque<SendItem*> urgent_;
    std::deque<SendItem*> queue_;
    std::size_t control_queued_ = 0;  ///< frames of the link's own in both
    Event room_;
    Event queued_;
    Event closing_;
    Event ended_;
    Event stop_;
    Gate gate_;
};

/// Runs `task` and closes `stream` if it has not ended by `due`.
Task<Result<void>> close_unless(Stream& stream, Event& finished, Clock& clock, TimePoint due);

}  // namespace gemel::replication
