// SPDX-License-Identifier: Apache-2.0
// StripePlug: parts of stripes that hosts write at the same time are written together, so that a stripe which is
// written from end to end in small pieces needs no reads.
//
// Invariants:
//   SP1 A write is held only while another one is at work in its stripe or, if it begins its stripe, in the stripe
//       before: the end of that one lets it go. There is no timer, and a write that is alone is never held.
//   SP2 It is held for at most kPatience ends of such writes.
//   SP3 The held writes of a stripe cover whole 4 KiB blocks and have the same options. One that cannot join lets
//       those go that are held, and is written by itself. Those that overlap are written one after another.
//   SP4 What fails joined is tried again piece by piece: a host's write fails for its own reasons only.
//   SP5 Whoever is held is not acknowledged, so those that are joined may be written in any order.
// Threads: the shard's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/executor.hpp"

namespace gemel::raid::detail {

class ArrayBody;
struct Shard;

/// A host's write of a part of one stripe, while it waits. Lives in its writer.
struct HeldWrite {
    Lba lba;
    Slice from;
    WriteOptions options;
    HeldWrite* next = nullptr;
    Result<void> result;
    bool leads = false;  ///< it writes for all that are held
    ResumeWork resume;

    [[nodiscard]] std::uint64_t end() const { return lba.value + from.sectors().value; }
    /// co_await write.resumed(): `resume` was posted, which may happen before.
    auto resumed() {
        struct Awaiter {
            HeldWrite& write;
            [[nodiscard]] bool await_ready() const noexcept { return false; }
            void await_suspend(std::coroutine_handle<> h) noexcept { write.resume.handle = h; }
            void await_resume() const noexcept {}
        };
        return Awaiter{*this};
    }
};

class StripePlug {
  public:
    static constexpr std::uint32_t kPatience = 4;

    /// A write is at work in `stripe` as long as this lives.
    class AtWork {
      public:
        AtWork(StripePlug& plug, StripeIndex stripe) : plug_(plug), stripe_(stripe) { plug_.begin(stripe); }
        ~AtWork() { plug_.end(stripe_); }
        AtWork(const AtWork&) = delete;
        AtWork& operator=(const AtWork&) = delete;

      private:
        StripePlug& plug_;
        StripeIndex stripe_;
    };

    /// Takes the write if it is to be held; its `resume` is posted when it leads or its result is there.
    /// `row`: sectors of data in a stripe; `others`: the shard has more writes than this one.
    bool hold(HeldWrite& write, std::uint64_t row, bool others);
    /// All that are held now, as a list. REQUIRES: the caller leads them; finish() follows.
    HeldWrite* take(StripeIndex stripe);
    /// What take() gave has been written.
    void finish(StripeIndex stripe) { end(stripe); }
    /// As much is held as the stripe has: there is no need to wait for more.
    [[nodiscard]] bool full(StripeIndex stripe, std::uint64_t row);

  private:
    struct Entry {
        std::uint64_t stripe = 0;
        std::uint32_t at_work = 0;  ///< writes, and the leader of the held ones from its release on
        std::uint32_t ends = 0;     ///< of such writes, since the first was held
        bool released = false;      ///< the leader is on its way
        std::uint64_t held_sectors = 0;
        HeldWrite* first = nullptr;
        HeldWrite* last = nullptr;
        Entry* next = nullptr;  ///< in its bucket, or among the unused
    };
    static constexpr std::size_t kBuckets = 256;

    void begin(StripeIndex stripe);
    void end(StripeIndex stripe);
    [[nodiscard]] Entry* find(std::uint64_t stripe) const;
    Entry& make(std::uint64_t stripe);
    void drop(Entry& entry);
    void note_end(Entry& entry);
    static void release(Entry& entry);

    std::array<Entry*, kBuckets> buckets_{};
    std::vector<std::unique_ptr<Entry>> entries_;  ///< as many as there ever were at once
    Entry* unused_ = nullptr;
};

/// Writes what is held in the stripe of the leader, and gives each its result.
Task<void> write_held(ArrayBody& array, Shard& shard, StripeIndex stripe);

}  // namespace gemel::raid::detail
