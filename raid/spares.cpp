// SPDX-License-Identifier: Apache-2.0
// Spares of an open array: taken while it runs, and given back.
//
// Invariants:
//   SP1 A spare is blank when it is taken, and could be the device of any place. Until a rebuild or a replace begins
//       onto it (rebuild.cpp, RB7) the array writes nothing to it.
//   SP2 One that is given back gets no I/O any more, and the array knows nothing of it; nor of one that had a place and
//       lost it, when that is given back.
// Threads: home.
#include <algorithm>
#include <array>

#include "raid/array_body.hpp"

namespace gemel::raid::detail {

bool ArrayBody::has_place(const BlockDevice* device) const {
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        if (members[m].device->device() == device || members[m].device->target() == device) {
            return true;
        }
    }
    return false;
}

/// SP1.
Task<Result<void>> ArrayBody::check_spare(MemberSpec spec) {
    CO_TRY_VOID(check_answers(spec));
    if (has_place(spec.device) || std::ranges::find(spares_, spec.device, &MemberSpec::device) != spares_.end()) {
        co_return fail(Errc::kAlreadyExists, spec.name + " is a member or a spare of array " + name + " already");
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        CO_TRY_VOID(check_shape(m, spec));
    }
    const std::array<MemberSpec, 1> specs{spec};
    CO_TRY(std::vector<MemberReading> readings, co_await read_members(env, specs));
    co_await look_at_former_ends(env, name, known_ends(), specs, readings);
    const MemberReading& found = readings.front();
    if (found.kind == MemberReading::Kind::kFound) {
        co_return fail(Errc::kRefused, spec.name + " was a member of array '" + found.superblock.array_name +
                                           "'; wipe it first if nothing on it is needed");
    }
    co_return co_await require_blank(env, spec, found);
}

Task<Result<void>> ArrayBody::add_spare_at_home(MemberSpec spec) {
    if (!level.redundant) {
        co_return fail(Errc::kInvalidArgument, "array " + name + " of level " + std::string(level.name) +
                                                   " has no redundancy: a spare would be of no use");
    }
    Result<void> r;
    {
        const auto turn = co_await rebuilds_.lock();
        spec.device = watch.watched(spec.device);
        spec.name = spec.name.empty() ? spec.device->name() : spec.name;
        r = co_await check_spare(spec);
        if (r) {
            const std::scoped_lock lock(status_mutex_);
            spares_.push_back(spec);
        } else if (MemberWatch::unanswered(spec.device) > 0) {
            r = fail(Errc::kBusy, spec.name + " does not answer: " + r.error().message);
        } else if (r.error().code != Errc::kAlreadyExists) {
            watch.forget(spec.device);
        }
    }
    if (r) {
        event(Severity::kInfo, "spare-added", "array " + name + " spare " + spec.name,
              "it takes the place of a member that fails");
        gate_.spawn(use_spares());  // one may have failed already
    }
    co_return r;
}

/// SP2.
Task<Result<void>> ArrayBody::remove_spare_at_home(MemberSpec spec) {
    const auto turn = co_await rebuilds_.lock();
    BlockDevice* const device = watch.watched(spec.device);
    if (has_place(device)) {
        co_return fail(Errc::kRefused, spec.name + " is a member of array " + name + ", not a spare that is left");
    }
    const auto found = std::ranges::find(spares_, device, &MemberSpec::device);
    if (found == spares_.end()) {  // it may have been a member
        const bool quiet = co_await watch.retire(device);
        co_return quiet ? fail(Errc::kNotFound, spec.name + " is no spare of array " + name)
                        : fail(Errc::kBusy, spec.name +
                                                " has not ended all I/O that it was given; try again later, or "
                                                "stop the daemon");
    }
    CO_TRY_VOID(check_answers(*found));
    {
        const std::scoped_lock lock(status_mutex_);
        spares_.erase(found);
    }
    watch.forget(device);
    event(Severity::kInfo, "spare-removed", "array " + name + " spare " + spec.name, "it was taken away");
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::add_spare(MemberSpec spec) {
    return ordered([this, spec = std::move(spec)]() mutable { return add_spare_at_home(std::move(spec)); });
}

Task<Result<void>> ArrayBody::remove_spare(MemberSpec spec) {
    return ordered([this, spec = std::move(spec)]() mutable { return remove_spare_at_home(std::move(spec)); });
}

}  // namespace gemel::raid::detail
