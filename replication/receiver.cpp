// SPDX-License-Identifier: Apache-2.0
// The secondary's side of a stream: frames in order of sequence, applied at most once (M7), concurrently where they do
// not overlap, replied when the local write is done.
#include <algorithm>

#include "frame.pb.h"
#include "replication/mirror.hpp"

namespace gemel::replication {

namespace {

constexpr std::uint64_t kMaxApplyingBytes = 64 * kMiB;
constexpr std::uint64_t kMaxApplyingFrames = 1024;
constexpr std::size_t kMaxFailedKept = 1024;

}  // namespace

void Mirror::reply(std::uint64_t sequence) {
    if (link_ == nullptr) {
        return;
    }
    FrameHeader h;
    h.type = FrameType::kReply;
    h.pair_id = pair_id();
    h.sequence = sequence;
    h.lba = peer_durable_;
    link_->send_control(h, {});
}

void Mirror::reply_error(std::uint64_t sequence, const Error& error) {
    if (link_ == nullptr) {
        return;
    }
    wire::ErrorBody body;
    body.set_errc(static_cast<std::uint32_t>(error.code));
    body.set_nature(error.message.substr(0, 1024));
    FrameHeader h;
    h.type = FrameType::kErrorReply;
    h.pair_id = pair_id();
    h.sequence = sequence;
    link_->send_control(h, body.SerializeAsString());
}

/// A stream begins: old sequences mean nothing any more; what is still being applied keeps its interval locked.
void Mirror::new_stream() {
    ++stream_epoch_;
    fresh_stream_ = true;
    received_ = 0;  // or a resume before the first frame would take over the old stream's acknowledgements
    applying_.clear();
    failed_.clear();
    peer_received_ = 0;
    peer_durable_ = 0;
    progress_ = clock().now();
}

/// True: apply it. False: nothing to do (answered, or not of the present stream). Errors end the connection.
Result<bool> Mirror::check_sequence(Link& link, const FrameHeader& h) {
    const Superblock& s = meta_.superblock();
    const bool receiving = s.role == Role::kSecondary || s.state == PairState::kResyncTarget;
    const bool negotiated = phase_ == Phase::kStreaming || phase_ == Phase::kResyncTarget ||
                            (phase_ == Phase::kResyncSource && s.state == PairState::kMirrored);
    const Term term{h.term_counter, h.term_nonce};
    if (term < s.term) {
        reply_error(h.sequence,
                    Error(Errc::kStaleTerm, "term " + std::to_string(h.term_counter) +
                                                " is over; the primary has term " + std::to_string(s.term.counter)));
        return false;
    }
    if (!live(link.session()) || !receiving || !negotiated) {
        return false;
    }
    if (term != s.term || h.generation != s.generation) {
        return fail(Errc::kProtocol, "a frame of another term or generation");
    }
    const bool query = (h.flags & kFlagQuery) != 0;
    if (fresh_stream_ && !query) {
        fresh_stream_ = false;
        received_ = h.sequence;
        return true;
    }
    if (h.sequence <= received_) {
        if (const auto bad = failed_.find(h.sequence); bad != failed_.end()) {
            if (!query && bad->second.code == Errc::kChecksum) {
                return true;  // sent again
            }
            reply_error(h.sequence, bad->second);
        } else if (!applying_.contains(h.sequence)) {
            reply(h.sequence);
        }
        return false;
    }
    if (query || h.sequence != received_ + 1) {
        return fail(Errc::kProtocol, "sequence " + std::to_string(h.sequence) + " after " + std::to_string(received_));
    }
    received_ = h.sequence;
    return true;
}

Task<Result<void>> Mirror::stream_received(Link& link, Frame frame) {
    CO_TRY(const bool apply, check_sequence(link, frame.header));
    if (!apply) {
        co_return Result<void>{};
    }
    const FrameHeader& h = frame.header;
    ++frames_received_;
    bytes_received_ += frame.payload.size();
    if (h.type != FrameType::kFlush) {
        const bool sized =
            h.type == FrameType::kDiscard || h.payload_length == std::uint64_t{h.sector_count} * kSectorBytes;
        if (!sized || h.sector_count == 0) {
            co_return fail(Errc::kProtocol, "a frame whose sector count does not fit its payload");
        }
        if (h.lba > sectors_.load() || h.sector_count > sectors_.load() - h.lba) {
            co_return refuse_frame(h.sequence, Error(Errc::kOutOfRange, "the frame ends beyond the peer's volume"));
        }
    }
    if (h.payload_length > 0) {
        const Result<void> opened = open_payload(h, frame.body, frame.payload);
        if (!opened && opened.error().code != Errc::kChecksum) {
            co_return opened;
        }
        if (!opened) {
            co_return refuse_frame(h.sequence, opened.error());
        }
    }
    failed_.erase(h.sequence);
    applying_.insert(h.sequence);
    ++applying_count_;
    applied_bytes_ += h.payload_length;
    gate_.spawn(apply_frame(std::move(frame), stream_epoch_));
    while (!stopping_ && (applied_bytes_ > kMaxApplyingBytes || applying_count_ > kMaxApplyingFrames)) {
        applied_.reset();
        co_await applied_.wait();
    }
    co_return Result<void>{};
}

/// Kept as long as the stream: the peer may ask again and must never hear that the frame was applied. Too many end the
/// connection and the stream with it (the error): what is not acknowledged is copied again.
Result<void> Mirror::refuse_frame(std::uint64_t sequence, const Error& error) {
    failed_.insert_or_assign(sequence, error);
    if (failed_.size() > kMaxFailedKept) {
        knows_peer_ = {};
        return fail(error.code, "too many frames of one stream could not be applied: " + error.message);
    }
    reply_error(sequence, error);
    return {};
}

Task<void> Mirror::apply_frame(Frame frame, std::uint64_t epoch) {
    const FrameHeader& h = frame.header;
    Result<void> result;
    std::uint64_t durable = 0;
    if (h.type == FrameType::kFlush) {
        durable = applying_.empty() ? received_ : *applying_.begin() - 1;
        result = co_await device_.flush();
    } else {
        const IntervalLock::Guard guard = co_await lock_.acquire(h.lba, h.lba + h.sector_count - 1);
        const Change change{h.type == FrameType::kDiscard ? FrameType::kDiscard : FrameType::kData, Lba(h.lba),
                            SectorCount(h.sector_count), frame.payload, (h.flags & kFlagFua) != 0};
        result = co_await apply_local(change, h.type == FrameType::kResyncData);
    }
    --applying_count_;
    applied_bytes_ -= h.payload_length;
    applied_.set();
    if (epoch != stream_epoch_) {
        co_return;  // of an earlier stream: nobody waits for this reply
    }
    applying_.erase(h.sequence);
    if (result) {
        peer_durable_ = std::max(peer_durable_, durable);
        reply(h.sequence);
        co_return;
    }
    last_error_ = result.error().message;
    const bool aborted = result.error().code == Errc::kAborted;
    const Result<void> kept = refuse_frame(h.sequence, aborted ? Error(Errc::kIo, last_error_) : result.error());
    if (!kept && link_ != nullptr) {
        link_->reset(kept.error().message);
    }
}

Task<void> Mirror::drain_applying() {
    while (applying_count_ > 0 && !stopping_) {
        applied_.reset();
        co_await applied_.wait();
    }
}

}  // namespace gemel::replication
