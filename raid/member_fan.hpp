// SPDX-License-Identifier: Apache-2.0
// MemberFan: several I/Os to members at once, joined without memory of their own; fan_out: one I/O in pieces.
// Invariant:  F1  The fan outlives its I/Os: all() is awaited before it goes.
// Threads: one executor; every I/O ends on it (Task T3).
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "gemel/buffer.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

class MemberFan {
  public:
    static constexpr std::size_t kSlots = kMaxMembers;

    MemberFan() = default;
    MemberFan(const MemberFan&) = delete;
    MemberFan& operator=(const MemberFan&) = delete;

    /// Starts `io` now as number `slot`. REQUIRES: slot < kSlots, not used since the last reset().
    void start(std::size_t slot, Task<Result<void>> io) {
        ++join_.left;
        run(std::move(io), *this, slot);
    }
    /// co_await fan.all(): every I/O has ended.
    auto all() { return detail_awaiter(); }

    /// kOk when the I/O of that slot succeeded or was not started.
    [[nodiscard]] std::optional<Errc> failure(std::size_t slot) const {
        return codes_[slot] == Errc{0} ? std::nullopt : std::optional(codes_[slot]);
    }
    [[nodiscard]] bool failed() const { return first_.has_value(); }
    /// The first error that came, but kTimedOut before all others: it says that memory is still lent. REQUIRES:
    /// failed().
    [[nodiscard]] const Error& first_error() const { return *first_; }
    /// REQUIRES: all() was awaited. Whoever waited then is not resumed by what starts now.
    void reset() {
        join_.waiter = nullptr;
        codes_.fill(Errc{0});
        first_.reset();
    }

  private:
    static gemel::detail::Detached run(Task<Result<void>> io, MemberFan& fan, std::size_t slot) {
        Result<void> r = co_await std::move(io);
        if (!r) {
            fan.codes_[slot] = r.error().code;
            if (!fan.first_ || r.error().code == Errc::kTimedOut) {
                fan.first_.emplace(std::move(r).error());
            }
        }
        fan.join_.done();
    }
    gemel::detail::JoinAwaiter detail_awaiter() {
        join_.waiter = nullptr;
        return gemel::detail::JoinAwaiter{join_};
    }

    gemel::detail::JoinState join_{0};
    std::array<Errc, kSlots> codes_{};
    std::optional<Error> first_;
};

enum class AfterFailure : std::uint8_t { kGoOn, kStop };

/// Cuts `all`, which begins at `lba`, into pieces and starts io(lba, slice) for each, kSlots at a time. `run(lba)`:
/// sectors from there on that stay together. Returns the first error, as MemberFan.
template <class Run, class Io>
Task<Result<void>> fan_out(Lba lba, Slice all, AfterFailure after, Run run, Io io) {
    MemberFan fan;
    std::optional<Error> error;
    std::size_t slot = 0;
    std::size_t at = 0;
    while (at < all.size() && !(error && after == AfterFailure::kStop)) {
        const Lba here = lba + at / kSectorBytes;
        const std::size_t bytes = std::min<std::size_t>(all.size() - at, run(here) * kSectorBytes);
        fan.start(slot++, io(here, all.sub(at, bytes)));
        at += bytes;
        if (slot == MemberFan::kSlots || at == all.size()) {
            co_await fan.all();
            if (fan.failed() && (!error || fan.first_error().code == Errc::kTimedOut)) {
                error.emplace(fan.first_error());
            }
            fan.reset();
            slot = 0;
        }
    }
    co_return error ? Result<void>(std::unexpected(*std::move(error))) : Result<void>();
}

}  // namespace gemel::raid
