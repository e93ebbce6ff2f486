// SPDX-License-Identifier: Apache-2.0
// Resync: makes the redundancy of untrusted columns right again, in the background, from the data; without redundancy
// their checksums.
//
// One walker per shard, ascending, a few stripes at a time, each under its stripe's lock. It yields to hosts: after
// every batch during which host I/O passed it rests as long as the batch took, and at least kRest.
#include <algorithm>

#include "raid/array_body.hpp"

namespace gemel::raid::detail {

using namespace job_pace;

namespace {
constexpr std::uint64_t kCheckpoints = 16;  ///< of a whole resync
}  // namespace

Task<bool> ArrayBody::resync_shard(Shard& shard) {
    const std::uint64_t strip = geometry.strip_sectors;
    const std::uint64_t batch =
        std::clamp<std::uint64_t>(kBatchBytes / (strip * kSectorBytes), 1, MemberFan::kSlots / 4);
    const std::uint64_t total = shard.untrusted.total();
    std::uint64_t next_checkpoint = total / kCheckpoints;
    std::uint64_t from = 0;
    while (!stopping() && !read_only() && !(level.parities() > 0 && lost_members() >= level.parities())) {
        const TimePoint started = env.clock.now();
        const std::uint64_t ios = host_ios();
        MemberFan fan;
        for (std::size_t i = 0; i < batch; ++i) {
            const auto range = shard.untrusted.next(from);
            if (!range) {
                break;
            }
            const std::uint64_t column = round_down(range->first, strip);
            fan.start(i, level.sync_stripe(*this, shard, StripeIndex(shard.global(column) / strip)));
            from = column + strip;
        }
        co_await fan.all();
        shard.walked = std::max(shard.walked, from);
        if (!shard.untrusted.next(from)) {
            shard.walked = std::max(shard.walked, shard.local_from(geometry.columns()));
            co_return true;
        }
        if (total - std::min(total, shard.untrusted.total()) >= next_checkpoint) {
            next_checkpoint += std::max<std::uint64_t>(1, total / kCheckpoints);
            Executor& here = *shard.executor;
            co_await resume_on(home);
            const Result<void> r = co_await checkpoint_resync();
            static_cast<void>(r);  // the next one, or stop(), says the same
            co_await resume_on(here);
        }
        if (host_ios() != ios) {
            co_await sleep_for(env.clock, std::max(kRest, env.clock.now() - started));
        } else {
            co_await yield();
        }
    }
    co_return false;
}

Task<void> ArrayBody::run_resync(Shard& shard) {
    co_await resume_on(*shard.executor);
    const bool seen = co_await resync_shard(shard);
    const bool complete = shard.untrusted.empty();
    co_await resume_on(home);
    walk_complete_ = walk_complete_ && complete;
    walk_seen_ = walk_seen_ && seen;
    if (--walkers_ > 0) {
        co_return;
    }
    if (walk_seen_) {
        accepted_member_.store(0);  // what could not be made right stays unknown
    }
    walking_ = walking_ && !walk_seen_;
    const bool all = walk_complete_;
    const Result<void> r = co_await checkpoint_resync();
    static_cast<void>(r);
    if (!stopping()) {
        event(all ? Severity::kInfo : Severity::kWarning, "resync-ended", "array " + name,
              !all              ? "some stripes could not be made right; they are not trusted until they are written"
              : level.redundant ? "the redundancy of all stripes is right"
                                : "the checksums of all blocks are right");
    }
    report_recovery();
    resyncing_.store(walkers_ > 0);  // the next one may have begun meanwhile
}

}  // namespace gemel::raid::detail
