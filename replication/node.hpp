// SPDX-License-Identifier: Apache-2.0
// Node: the links and mirrors of one daemon, and who gets which frame. The state behind Replicator.
//
// Invariants:
//   N1  At most kMaxGreetings connections that have not yet said who they are.
//   N2  A frame goes to the mirror whose pair has its id; an operation on no pair yet, to the volume it names.
// Threads: the executor `home`.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "replication/mirror.hpp"

namespace gemel::replication {

inline constexpr std::size_t kMaxGreetings = 8;

class Node : public LinkOwner, public PeerAccess {
  public:
    Node(Environment& env, NodeConfig config, Executor& home);

    Mirror& add_volume(VolumeStore& store, std::string_view volume);
    Task<Result<void>> start();
    Task<void> stop();
    Mirror* find(const std::string& volume);
    std::vector<PairStatus> status() const;
    [[nodiscard]] Executor& home() { return context_.home; }
    [[nodiscard]] std::string listen_address() const { return listen_address_; }
    [[nodiscard]] std::uint64_t refused_connections() const { return refused_.load(); }

    void link_up(Link& link) override;
    void link_down(Link& link) override;
    Task<Result<void>> frame_received(Link& link, Frame frame) override;
    Link* link_to(const std::string& node) override;
    Task<Result<void>> request(Link& link, FrameHeader header, std::string body) override;
    Task<Result<Frame>> ask(Link& link, FrameHeader header, std::string body, Duration patience) override;
    bool pair_id_taken(std::uint32_t pair_id) override;

  private:
    struct Request {
        Link* link = nullptr;
        Result<Frame> result;
        Event done;
    };
    [[nodiscard]] Result<void> check_config() const;
    Task<void> accept_loop();
    Task<void> greet(std::unique_ptr<Stream> stream);
    Task<Result<PeerHello>> exchange(Stream& stream);
    Task<void> run_operation(Link& link, Frame frame);
    void answer(const Link& link, Frame frame);
    void reply_to(Link& link, const FrameHeader& request, const Result<void>& result);
    void refused_connection(const std::string& from, const std::string& why);
    Mirror* by_pair(const Link& link, std::uint32_t pair_id);

    NodeContext context_;
    std::map<std::string, std::unique_ptr<Link>> links_;
    std::map<std::string, std::unique_ptr<Mirror>> mirrors_;
    std::map<std::uint64_t, Request*> requests_;
    std::uint64_t next_request_ = 1;
    std::unique_ptr<Listener> listener_;
    std::string listen_address_;
    std::size_t greetings_ = 0;
    std::atomic<std::uint64_t> refused_{0};
    TimePoint refused_at_{};
    Event stop_;
    Gate gate_;
};

}  // namespace gemel::replication
