// SPDX-License-Identifier: Apache-2.0
// Mirror: one volume as hosts see it, and this node's side of its pair. As the primary it writes both legs and holds
// frames until they are acknowledged; as the secondary it applies the peer's frames. The parts are in mirror.cpp
// (hosts), stream.cpp (frames held and replied), receiver.cpp, negotiation.cpp, resync.cpp, operations.cpp,
// questions.cpp (about the other copy), heal.cpp and verify.cpp.
//
// Invariants:
//   M1  A region (mirrored) or track (alone) is durably marked before either copy of it may change (I-9).
//   M2  A new generation is durable, and this leg flushed, before the first write that only this leg has is
//       acknowledged (I-10).
//   M3  A frame is held, and the host's buffer borrowed, until it is acknowledged or the association has ended durably.
//   M4  Overlapping writes and copies hold the interval lock until both legs are done, so no two frames in flight
//       overlap, and a copy never overwrites newer data (I-11).
//   M5  A mark is dropped only after a flush of both legs that began after the last write under it had ended (I-7).
//   M6  The target of a resync is durably inconsistent before its first byte changes; it is not promotable (I-12).
//   M7  A secondary applies each sequence at most once, of its own term and generation only (I-5, I-14).
//   M8  State, role and generation change only under transition_; new host writes wait while barrier_ is up.
//   M9  A block is taken from the peer, or called different from it, only of a pair in step and under the interval
//       lock: then no write of it is under way, and both copies ought to be equal.
// Threads: the executor `home`; read, limits, identity and the unpaired path: any.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "gemel/interval_lock.hpp"
#include "gemel/volume_store.hpp"
#include "replication/block_digest.hpp"
#include "replication/link.hpp"
#include "replication/pair_metadata.hpp"
#include "replication/severed_copy.hpp"

namespace gemel::replication {

namespace wire {
class Operation;
}

class Mirror;

/// Under way at once, of one volume.
inline constexpr std::size_t kMaxQuestions = 24;

/// What a mirror needs of its node: links and requests to the peer.
class PeerAccess {
  public:
    virtual ~PeerAccess() = default;
    /// nullptr for a node that is not configured.
    virtual Link* link_to(const std::string& node) = 0;
    /// Sends a request and waits for REPLY (true) or ERROR_REPLY. Errors: kClosed, kTimedOut, or what the peer says.
    virtual Task<Result<void>> request(Link& link, FrameHeader header, std::string body) = 0;
    /// The same, for an answer of `patience`: the frame that answers, of whatever type.
    virtual Task<Result<Frame>> ask(Link& link, FrameHeader header, std::string body, Duration patience) = 0;
    virtual bool pair_id_taken(std::uint32_t pair_id) = 0;
};

class Mirror : public BlockDevice, public DeviceObserver {
  public:
    Mirror(NodeContext& context, PeerAccess& peers, VolumeStore& store, VolumeInfo info, BlockDevice& device);

    // BlockDevice
    [[nodiscard]] DeviceLimits limits() const override;
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions options) override;
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> discard(Lba lba, SectorCount count) override;
    void observe(DeviceObserver* observer) override { observer_.store(observer); }
    [[nodiscard]] Uuid identity() const override;
    [[nodiscard]] std::string name() const override { return "mirror " + info_.name; }
    // DeviceObserver of the volume below
    void unreadable(Extent extent) override;
    void capacity_changed(SectorCount now) override;
    void degraded(const std::string& why) override;

    Task<void> start();
    Task<void> stop();

    // Operations; REQUIRES: on home.
    Task<Result<void>> establish(EstablishRequest request);
    Task<Result<void>> sever(bool force);
    Task<Result<void>> re_establish(std::string from_node, bool force);
    Task<Result<void>> resize(SectorCount sectors, bool force_shrink);
    Task<Result<void>> promote(bool force);
    Result<void> verify(VerifyOrder order);
    [[nodiscard]] PairStatus status() const;

    /// This node's copy while it is a severed secondary. Errors: kRefused at any other time.
    Task<Result<void>> read_severed(Lba lba, Slice to, ReadOptions options);
    [[nodiscard]] BlockDevice& severed_copy() { return severed_copy_; }
    /// Of the volume of this node, whatever the pair is called.
    [[nodiscard]] const Uuid& own_uuid() const { return info_.uuid; }

    // From the node.
    void link_up(Link& link);
    void link_down(Link& link);
    Task<Result<void>> frame_received(Link& link, Frame frame);
    void pair_unknown(Link& link, const std::string& why);
    Task<Result<void>> operation_received(Link& link, FrameType type, const wire::Operation& op);
    [[nodiscard]] const std::string& volume() const { return info_.name; }
    [[nodiscard]] std::uint32_t pair_id() const;
    [[nodiscard]] const std::string& peer_node() const { return meta_.superblock().peer_node; }

  private:
    enum class Mode : std::uint8_t { kPassThrough, kServing, kStandby, kNotReady };
    enum class Phase : std::uint8_t { kDown, kNegotiating, kIdle, kStreaming, kResyncSource, kResyncTarget };

    struct Leg;
    struct HeldFrame {
        SendItem item;
        Leg* leg = nullptr;
        std::uint32_t tries = 0;
    };
    /// The peer's half of one write, discard, flush or copy.
    struct Leg {
        std::vector<std::unique_ptr<HeldFrame>> frames;
        std::size_t left = 0;
        bool resync = false;
        bool acknowledged = true;  ///< false: ended without the peer's reply, its range is in the tracks
        TimePoint since{};
        Result<void> result;
        Event done;
    };
    struct RegionUse {
        std::uint32_t busy = 0;
        std::uint64_t epoch = 0;
    };
    /// Where a change goes: a repair only to the copy that lacks what the other one has.
    enum class Legs : std::uint8_t { kBoth, kHere, kThere };
    /// A change of the volume by a host, or a repair.
    struct Change {
        FrameType type = FrameType::kData;
        Lba lba;
        SectorCount sectors;
        Slice data;
        bool fua = false;
        Legs legs = Legs::kBoth;
    };
    struct LegOutcome {
        Result<void> result;
        bool acknowledged = true;
    };

    // mirror.cpp: hosts
    Task<Result<void>> change_through(Change change);
    Task<Result<void>> change_paired(Change change);
    Task<Result<void>> change_home(Change change);
    Task<Result<void>> change_inside(Change change);
    Task<Result<void>> change_locked(Change change, Run regions);
    Task<Result<void>> change_one(Change change);
    Task<Result<void>> change_both(Change change);
    Task<Result<void>> change_acked_early(Change change);
    Task<void> peer_copy(Change change);
    Task<Result<void>> apply_local(Change change, bool background);
    Task<Result<void>> flush_paired();
    Task<LegOutcome> flush_both();
    Task<Result<void>> attach();
    void start_maintenance();
    Task<void> maintain();
    void clear_idle_regions(std::uint64_t epoch);
    [[nodiscard]] Result<void> admission() const;
    [[nodiscard]] bool alone() const;
    void refresh_mode();
    void hold_hosts();
    Task<void> wait_admitted();
    void admit_hosts();
    Task<Result<void>> drain_hosts();
    Task<void> drain_through();

    // stream.cpp: the sender's side of a stream
    Task<LegOutcome> run_leg(Change change, bool resync);
    [[nodiscard]] std::uint64_t frame_limit() const;
    void add_frames(Leg& leg, const Change& change);
    void send_held(HeldFrame& frame);
    void resend_after(std::uint64_t received);
    void complete_held(const Result<void>& hosts, bool acknowledged);
    void interrupt_resync();
    void reply_received(const FrameHeader& header);
    void error_received(const FrameHeader& header, const std::string& body);
    void start_watch();
    Task<void> watch();
    [[nodiscard]] Duration budget() const;
    Task<void> terminate(std::string reason);
    Task<void> terminate_locked(std::string reason);
    Task<Result<void>> go_alone(PairState next);
    void fence(const std::string& why);

    // receiver.cpp
    Task<Result<void>> stream_received(Link& link, Frame frame);
    Result<bool> check_sequence(Link& link, const FrameHeader& header);
    Result<void> refuse_frame(std::uint64_t sequence, const Error& error);
    Task<void> apply_frame(Frame frame, std::uint64_t epoch);
    void reply(std::uint64_t sequence);
    void reply_error(std::uint64_t sequence, const Error& error);
    Task<void> drain_applying();
    void new_stream();

    // negotiation.cpp
    void start_negotiation();
    Task<void> drive_negotiation();
    Task<void> answer_negotiation(PairView theirs, std::uint64_t session);
    Result<void> state_received(Link& link, const Frame& frame);
    Result<void> start_asked(Task<void> task);
    Task<void> run_asked(Task<void> task);
    Task<void> make_certain();
    [[nodiscard]] PairView view() const;
    void send_view(std::uint16_t flags, const PairView& mine);
    Task<void> settle(PairView mine, PairView theirs);
    Task<Result<void>> adopt_common(const PairView& mine, const PairView& theirs, const Decision& decision);
    Task<Result<void>> execute(const PairView& theirs, const Decision& decision);
    Task<Result<void>> become_idle(const PairView& theirs);
    Task<Result<void>> restart_stream();
    void retry_later();
    Task<void> retry_after_interval();
    void note_problem(std::string_view event, Severity severity, const std::string& cause, const std::string& action);

    // resync.cpp
    Task<void> run_resync(std::uint64_t run, bool full);
    Task<Result<void>> begin_resync(std::uint64_t run, bool full);
    Task<Result<void>> copy_pass(std::uint64_t run);
    Task<void> copy_tracks(Run tracks, std::uint64_t run);
    enum class Patience : std::uint8_t { kNone, kResync };
    Task<Result<Buffer>> read_copy(Lba lba, SectorCount sectors, Patience patience = Patience::kNone);
    Task<Result<void>> copy_range(Lba lba, SectorCount sectors);
    Task<Result<void>> finish_resync(std::uint64_t run);
    Task<void> resync_begun(std::uint64_t session, std::uint64_t generation);
    Task<void> resync_ended(std::uint64_t session, std::uint64_t request);
    void send_tracks();
    void tracks_received(const Frame& frame);
    [[nodiscard]] bool resyncing(std::uint64_t run) const;

    // questions.cpp
    [[nodiscard]] bool in_step() const;
    Task<Result<Frame>> ask_peer(FrameType type, Lba lba, SectorCount sectors);
    Task<Result<Frame>> ask_now(FrameType type, Lba lba, SectorCount sectors);
    Task<Result<Frame>> peer_blocks(Lba lba, SectorCount sectors);
    void question_received(const FrameHeader& question);
    Task<void> answer_question(FrameHeader question, std::uint64_t session);
    Task<Result<void>> answer(FrameHeader question);
    Task<Result<void>> copy_again(FrameHeader question);
    Task<Result<void>> send_blocks(FrameHeader question);

    // heal.cpp
    Task<Result<void>> read_paired(Lba lba, Slice to, ReadOptions options);
    [[nodiscard]] bool soon_in_step() const;
    Task<Result<void>> heal_read(Lba lba, Slice to);
    Task<Result<Buffer>> heal(Lba lba, SectorCount sectors);
    Task<Result<std::uint64_t>> heal_locked(Lba lba, Slice mine, TimePoint due);
    Task<std::uint64_t> rewrite(Lba lba, Slice mine, const Frame& theirs);
    void note_healed(std::uint64_t blocks);
    Task<void> tell_healed();
    void take_reports();
    bool room_for_suspect(std::uint64_t first, std::uint64_t end);
    Task<void> reports_taken();
    Task<void> heal_suspects();
    Task<Result<void>> heal_suspect(Extent suspect);

    // verify.cpp
    enum class Comparison : std::uint8_t { kEqual, kDifferent, kUnreadableHere, kUnreadableThere, kUnreadableBoth };
    /// A run of blocks that compare alike.
    struct Difference {
        Comparison comparison = Comparison::kEqual;
        Extent extent{};
        std::uint64_t blocks = 0;
        std::uint64_t repaired = 0;
    };
    static Comparison judge(const BlockDigest& mine, const BlockDigest& theirs);
    Task<void> run_verify();
    Task<Result<void>> compare_all();
    [[nodiscard]] bool comparing() const;
    void move_on(VerifyReport& v);
    Task<Result<void>> compare(Lba lba, SectorCount sectors);
    Task<Result<std::uint64_t>> repair(Difference d, Slice mine, TimePoint due);
    void note_difference(const Difference& d);
    [[nodiscard]] VerifyReport verify_report() const;
    void end_verify(VerifyState state, std::string why);

    // operations.cpp
    struct Busy;
    Result<Link*> contact() const;
    FrameHeader request_header(FrameType type) const;
    std::string operation_body(const Superblock& s, bool force, const std::string& from) const;
    Task<Result<void>> become_source(Superblock s);
    Task<Result<void>> check_blank();
    Task<Result<void>> prepare_secondary(Link& link, const wire::Operation& op);
    Task<Result<void>> commit_secondary(const wire::Operation& op);
    Task<Result<void>> abort_secondary(const wire::Operation& op);
    Task<Result<void>> sever_here();
    Task<Result<void>> choose_direction(std::string from_node, bool take_term);
    [[nodiscard]] Result<std::string> check_direction(const std::string& from_node, bool force) const;
    Task<Result<void>> restore_peer_metadata(Link& link);
    Task<Result<void>> resize_pair(Link& link, SectorCount sectors, bool grow);
    Task<Result<void>> take_size(SectorCount sectors);
    Task<Result<void>> complete_resize(const std::string& body);
    Task<Result<void>> commit_resize(SectorCount sectors);
    Task<Result<void>> hand_over(std::uint64_t session);
    Task<Result<void>> take_over(Link& link);
    Task<void> refresh_peer_view();
    Task<Result<void>> promote_alone();
    void announce_size(SectorCount sectors);

    [[nodiscard]] Superblock next_superblock() const { return meta_.superblock(); }
    [[nodiscard]] bool primary() const { return meta_.superblock().role == Role::kPrimary; }
    [[nodiscard]] bool live(std::uint64_t session) const { return phase_ != Phase::kDown && session == session_; }
    Clock& clock() { return context_.env.clock; }
    void set_identity(Uuid identity);
    void emit(std::string_view event, Severity severity, std::string cause, std::string action = {});

    NodeContext& context_;
    PeerAccess& peers_;
    VolumeStore& store_;
    VolumeInfo info_;
    BlockDevice& device_;
    SeveredCopy severed_copy_{*this};
    std::atomic<std::uint64_t> severed_times_{0};  ///< odd: this is a severed secondary, whose copy can be read
    PairMetadata meta_;
    std::atomic<DeviceObserver*> observer_{nullptr};
    std::atomic<Mode> mode_{Mode::kNotReady};
    std::atomic<std::uint64_t> sectors_;
    std::atomic<std::uint64_t> through_{0};
    mutable std::mutex identity_mutex_;  ///< hosts ask for the identity on any executor
    Uuid identity_;                      ///< guarded by identity_mutex_

    Phase phase_ = Phase::kDown;
    Link* link_ = nullptr;
    std::uint64_t session_ = 0;
    bool started_ = false;
    bool attached_ = false;  ///< what this start means for the pair is durable
    bool stopping_ = false;
    bool serving_ = false;  ///< as the primary
    bool sending_ = false;  ///< frames go out as they are made
    bool operating_ = false;
    bool handed_over_ = false;  ///< to a promotion of the peer that has not been seen to end
    std::string why_;           ///< why hosts are not served or the pair is not mirrored
    std::string last_error_;
    std::string last_problem_;
    TimePoint last_problem_at_{};
    PairView peer_view_;
    bool peer_seen_ = false;

    // Sender
    std::map<std::uint64_t, HeldFrame*> held_;
    std::uint64_t next_sequence_ = 1;
    std::uint64_t peer_durable_ = 0;
    std::uint64_t peer_received_ = 0;
    TimePoint progress_{};
    TimePoint last_reset_{};
    TimePoint last_ack_{};
    bool watching_ = false;
    bool terminating_ = false;
    bool maintaining_ = false;
    bool retrying_ = false;
    std::uint32_t resets_ = 0;

    // Regions and hosts
    IntervalLock lock_;
    std::map<std::uint64_t, RegionUse> uses_;
    std::uint64_t epoch_ = 1;
    std::uint32_t barrier_ = 0;
    Event admitted_;
    std::uint64_t hosts_inside_ = 0;
    Event hosts_left_;
    bool going_alone_ = false;  ///< between the flush of this leg and the record that lets it serve alone (M2)
    Event went_alone_;

    // Receiver
    Uuid knows_peer_;
    std::uint64_t received_ = 0;
    std::uint64_t stream_epoch_ = 0;
    bool fresh_stream_ = true;
    std::set<std::uint64_t> applying_;
    std::map<std::uint64_t, Error> failed_;  ///< received, not applied; kChecksum: may be sent again
    std::uint64_t applied_bytes_ = 0;
    std::uint64_t applying_count_ = 0;
    Event applied_;

    // Negotiation
    Mutex transition_;
    std::uint64_t round_ = 0;
    std::uint32_t asked_ = 0;  ///< tasks under way that the peer's frames began
    bool answered_ = false;    ///< the peer's side of this round is known; frames behind it belong to the new stream
    PairView answer_;
    Event answer_event_;
    Event settled_;

    // Resync
    Mutex resync_;           ///< one run at a time; an interrupted one ends before the next begins
    std::uint64_t run_ = 0;  ///< number of the present run: grows with every negotiation
    Event ready_;
    std::vector<Run> peer_tracks_;
    std::vector<Run> copied_;
    std::set<std::uint64_t> unreadable_;
    std::uint64_t resync_done_ = 0;
    std::uint64_t resync_total_ = 0;
    TimePoint resync_began_{};
    TimePoint resync_next_{};
    Result<void> resync_result_;

    // Questions, healing, verify
    struct Reports : Work {
        Mirror* mirror = nullptr;
        std::mutex mutex;
        std::vector<Extent> extents;  ///< guarded by mutex
        bool posted = false;          ///< guarded by mutex
    };
    struct Suspect {
        SectorCount sectors;
        TimePoint due{};
        std::uint32_t doublings = 0;  ///< of the time until it is tried again
        bool told = false;            ///< that it cannot be healed
    };
    Reports reports_;  ///< what the device could not read, from any executor
    std::map<std::uint64_t, Suspect> suspects_;
    std::optional<std::uint64_t> healing_at_;  ///< of them, under way
    std::uint32_t answering_ = 0;
    bool healing_ = false;
    std::uint64_t healed_blocks_ = 0;
    std::uint64_t healed_told_ = 0;
    bool telling_ = false;
    TimePoint silent_until_{};  ///< the peer did not answer a question in time: it is asked nothing
    Event suspects_changed_;
    Semaphore questions_{kMaxQuestions};
    std::optional<VerifyReport> verify_;
    bool verifying_ = false;
    bool verify_stop_ = false;
    Event verify_changed_;
    TimePoint verify_began_{};
    std::uint64_t verify_began_bytes_ = 0;
    TimePoint verify_next_{};
    std::map<std::uint64_t, std::uint64_t> compared_;  ///< beyond the position: bytes by their first

    std::uint64_t frames_sent_ = 0;
    std::uint64_t bytes_sent_ = 0;
    std::uint64_t frames_received_ = 0;
    std::uint64_t bytes_received_ = 0;
    std::uint64_t resync_bytes_sent_ = 0;

    Event stop_;
    Gate gate_;
};

}  // namespace gemel::replication
