// SPDX-License-Identifier: Apache-2.0
// Management: what the daemon can do for an operator. The admin room translates JSON-RPC to these calls; the daemon
// implements them.
// Threads: called on the admin server's executor; each task ends there.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <string>

#include "gemel/result.hpp"
#include "gemel/task.hpp"

namespace gemel::admin {

class Management {
  public:
    virtual ~Management() = default;

    virtual Task<Result<boost::json::value>> status() = 0;
    virtual Task<Result<boost::json::value>> volume_list() = 0;
    virtual Task<Result<boost::json::value>> session_list() = 0;
    virtual Task<Result<boost::json::value>> statistics() = 0;
    /// One volume, or all of them when `volume` is empty. Errors: kNotFound.
    virtual Task<Result<boost::json::value>> mirror_status(std::string volume) = 0;

    virtual Task<Result<void>> mirror_establish(std::string volume, std::string peer, std::string peer_volume,
                                                bool overwrite) = 0;
    virtual Task<Result<void>> mirror_sever(std::string volume, bool force) = 0;
    virtual Task<Result<void>> mirror_re_establish(std::string volume, std::string from, bool force) = 0;
    virtual Task<Result<void>> mirror_resize(std::string volume, std::uint64_t bytes, bool shrink) = 0;
    /// One array, or all of them when `array` is empty. Errors: kNotFound.
    virtual Task<Result<boost::json::value>> array_list(std::string array) = 0;
    virtual Task<Result<void>> array_fail(std::string array, std::uint64_t member, bool force) = 0;
    /// `with`: a device of the array's configuration by its path; empty: the one that is in the place.
    virtual Task<Result<void>> array_rebuild(std::string array, std::uint64_t member, std::string with) = 0;
    virtual Task<Result<void>> array_scrub(std::string array, bool repair) = 0;
    virtual Task<Result<void>> array_replace(std::string array, std::uint64_t member, std::string with) = 0;
    /// Takes into use what the array's devices have more than before.
    virtual Task<Result<void>> array_grow(std::string array) = 0;
    /// Gives the array a device as a spare, at later starts, too. `bytes`: a file of that size is made, if there is
    /// none. Errors: kInvalidArgument, kAlreadyExists, kNotFound, kRefused (it is not blank), kNoSpace (it is too
    /// small), kUnsupported, kBusy (somebody holds it).
    virtual Task<Result<void>> array_add(std::string array, std::string path, std::uint64_t bytes) = 0;
    /// Takes away a spare that was added so and is not used. Errors: kNotFound, kRefused (it is a member by now, or the
    /// configuration names it).
    virtual Task<Result<void>> array_remove(std::string array, std::string path) = 0;
    /// Makes an array and starts it; later starts have it, too. `definition`: its tables as in the configuration file.
    /// Errors: kInvalidArgument, kAlreadyExists (a name, a member), kRefused (a member is not blank), kNoSpace.
    virtual Task<Result<void>> array_create(std::string definition) = 0;
    /// Of a volume that is not mirrored. Errors: kRefused: it is; kNoSpace, kNeedsForce (it would shrink).
    virtual Task<Result<void>> volume_resize(std::string volume, std::uint64_t bytes, bool shrink) = 0;
    virtual Task<Result<boost::json::value>> job_list() = 0;
    enum class JobOrder : std::uint8_t { kPause, kResume, kCancel, kLimit };
    /// `kind`: of the job; empty: of the only one that runs, or kLimit: of all. `limit`: bytes per second; 0: none.
    /// Errors: kNotFound (no such array or job), kInvalidArgument (no such kind, or it must be told).
    virtual Task<Result<void>> job_order(std::string array, std::string kind, JobOrder order, std::uint64_t limit) = 0;
    virtual Task<Result<void>> promote(std::string volume, bool force) = 0;
};

}  // namespace gemel::admin
