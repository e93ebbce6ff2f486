// SPDX-License-Identifier: Apache-2.0
// Questions about the other side's copy, of a pair in step: blocks (READ_REQUEST), what they are compared by
// (DIGEST_REQUEST), and the secondary's wish that blocks be sent again (COPY_REQUEST). Each is answered once, by the
// message id of the question, or with an error; none is repeated.
//
// Invariants:
//   Q1  An answer counts only if the pair has been in step from the question to the answer, in one negotiation.
//   Q2  At most kMaxAnswering questions are being answered; the others are refused. Memory for each is one frame's. The
//       side that asks has fewer under way than that.
//   Q3  An answer is read behind every frame that came before the question (it waits for their interval locks).
//   Q4  A question is given up after kMostPatience, and for kSilencePause no other is asked then: hosts wait behind the
//       locks under which they are asked, and others for their turn (Q2).
#include "replication/block_runs.hpp"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint32_t kMaxAnswering = 32;
constexpr Duration kMostPatience = std::chrono::seconds(2);
constexpr Duration kSilencePause = std::chrono::seconds(10);
static_assert(kMaxQuestions < kMaxAnswering);

FrameType answer_to(FrameType question) {
    switch (question) {
        case FrameType::kReadRequest:
            return FrameType::kReadReply;
        case FrameType::kDigestRequest:
            return FrameType::kDigestReply;
        default:
            return FrameType::kReply;
    }
}

}  // namespace

/// Both copies ought to be equal but for writes under way, and both sides say so.
bool Mirror::in_step() const {
    return meta_.superblock().state == PairState::kMirrored && phase_ == Phase::kStreaming && link_ != nullptr &&
           !stopping_ && (!primary() || sending_);
}

/// Errors: kNotReady, kClosed (the pair is not in step, any more), kUnsupported, kTimedOut, or what the peer says.
Task<Result<Frame>> Mirror::ask_peer(FrameType type, Lba lba, SectorCount sectors) {
    co_await questions_.acquire();  // Q2
    Result<Frame> answer = co_await ask_now(type, lba, sectors);
    questions_.release();
    co_return answer;
}

Task<Result<Frame>> Mirror::ask_now(FrameType type, Lba lba, SectorCount sectors) {
    if (!in_step()) {
        co_return fail(Errc::kNotReady, "the pair is not in step");
    }
    if ((link_->hello().features & kFeatureQuestions) == 0) {
        co_return fail(Errc::kUnsupported,
                       "node '" + peer_node() + "' is too old to be asked about its copy; update it");
    }
    const TimePoint begin = clock().now();
    if (begin < silent_until_) {  // Q4
        co_return fail(Errc::kTimedOut, "node '" + peer_node() + "' does not answer");
    }
    FrameHeader h = request_header(type);
    h.term_counter = meta_.superblock().term.counter;
    h.term_nonce = meta_.superblock().term.nonce;
    h.lba = lba.value;
    h.sector_count = static_cast<std::uint32_t>(sectors.value);
    const std::uint64_t session = session_;
    const std::uint64_t round = round_;
    const Duration patience = std::min<Duration>(context_.config.ack_timeout, kMostPatience);
    Result<Frame> answer = co_await peers_.ask(*link_, h, {}, patience);
    if (!answer && answer.error().code == Errc::kTimedOut && clock().now() - begin >= patience) {
        silent_until_ = clock().now() + kSilencePause;
    }
    if (!answer) {
        co_return answer;
    }
    if (!in_step() || session != session_ || round != round_) {  // Q1
        co_return fail(Errc::kClosed, "the pair was not in step all the time");
    }
    if (answer->header.type != answer_to(type)) {
        co_return fail(Errc::kProtocol, "an answer of another kind than was asked for");
    }
    co_return answer;
}

/// The peer's copy, checked. Errors also: kMediumError: it cannot read all of it either.
Task<Result<Frame>> Mirror::peer_blocks(Lba lba, SectorCount sectors) {
    CO_TRY(Frame answer, co_await ask_peer(FrameType::kReadRequest, lba, sectors));
    const FrameHeader& h = answer.header;
    if (h.lba != lba.value || h.sector_count != sectors.value || h.payload_length != bytes_of(sectors)) {
        co_return fail(Errc::kProtocol, "other blocks than were asked for");
    }
    CO_TRY_VOID(open_payload(h, answer.body, answer.payload));
    co_return answer;
}

void Mirror::question_received(const FrameHeader& question) {
    if (answering_ >= kMaxAnswering) {  // Q2
        reply_error(question.sequence, Error(Errc::kBusy, "too many questions at once"));
        return;
    }
    gate_.spawn(answer_question(question, session_));
}

Task<void> Mirror::answer_question(FrameHeader question, std::uint64_t session) {
    ++answering_;
    const Result<void> answered = co_await answer(question);
    --answering_;
    if (!answered && live(session)) {
        reply_error(question.sequence, answered.error());
    }
}

Task<Result<void>> Mirror::answer(FrameHeader question) {
    const Superblock& s = meta_.superblock();
    const bool wants_copy = question.type == FrameType::kCopyRequest;
    if (!in_step() || primary() != wants_copy) {
        co_return fail(Errc::kNotReady, "node '" + context_.config.node + "' is not in step");
    }
    if (Term{question.term_counter, question.term_nonce} != s.term || question.generation != s.generation) {
        co_return fail(Errc::kStaleTerm, "a question of another term or generation");
    }
    const std::uint64_t size = sectors_.load();
    if (question.sector_count == 0 || question.sector_count > kMaxFramePayload / kSectorBytes ||
        question.lba % kSectorsPerBlock != 0 || question.lba >= size || question.sector_count > size - question.lba) {
        co_return fail(Errc::kOutOfRange, "a question about blocks beyond volume " + info_.name);
    }
    if (!wants_copy) {
        co_return co_await send_blocks(question);
    }
    co_return co_await copy_again(question);
}

/// Sends the peer what can be read here. Errors: kMediumError: not all of it can.
Task<Result<void>> Mirror::copy_again(FrameHeader question) {
    const std::uint64_t session = session_;
    const Lba lba(question.lba);
    const SectorCount sectors(question.sector_count);
    const IntervalLock::Guard guard = co_await lock_.acquire(lba.value, lba.value + sectors.value - 1);
    CO_TRY(const Buffer memory, co_await read_copy(lba, sectors));
    const Slice mine = memory.slice(bytes_of(sectors), lba);
    for (const BlockRun& run : runs_of(mine.blocks(), BlockStatus::kOk)) {
        const Slice part = run.of(mine);
        CO_TRY_VOID(
            co_await change_inside({FrameType::kResyncData, run.lba(lba), part.sectors(), part, false, Legs::kThere}));
    }
    if (!mine.all_readable()) {
        co_return fail(Errc::kMediumError, "not all of the blocks can be read here");
    }
    if (live(session)) {
        reply(question.sequence);
    }
    co_return Result<void>{};
}

/// The blocks themselves or their digests.
Task<Result<void>> Mirror::send_blocks(FrameHeader question) {
    const std::uint64_t session = session_;
    const Lba lba(question.lba);
    const SectorCount sectors(question.sector_count);
    IntervalLock::Guard guard = co_await lock_.acquire(lba.value, lba.value + sectors.value - 1);  // Q3
    CO_TRY(const Buffer memory, co_await read_copy(lba, sectors));
    guard.release();
    const Slice mine = memory.slice(bytes_of(sectors), lba);
    if (!live(session) || !in_step()) {
        co_return fail(Errc::kClosed, "the pair is not in step any more");
    }
    FrameHeader h;
    h.type = answer_to(question.type);
    h.pair_id = pair_id();
    h.sequence = question.sequence;
    h.lba = question.lba;
    h.sector_count = question.sector_count;
    if (h.type == FrameType::kDigestReply) {
        link_->send_control(h, encode_digests(digests_of(mine)));
        co_return Result<void>{};
    }
    if (!mine.all_readable()) {
        co_return fail(Errc::kMediumError, "node '" + context_.config.node + "' cannot read these blocks either");
    }
    SendItem item;
    item.header = h;
    item.body = seal_payload(item.header, mine);
    item.payload = mine.data();
    if (link_->send(item)) {
        co_await item.released.wait();
    }
    co_return Result<void>{};
}

}  // namespace gemel::replication
