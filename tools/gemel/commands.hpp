// SPDX-License-Identifier: Apache-2.0
// What the verbs of gemel do: a call, then its answer as a table or as JSON.
// Threads: one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/gemel/exit_code.hpp"

namespace gemel::cli {

/// The whole command line, as main.cpp read it.
struct Invocation {
    std::string socket;
    bool json = false;
    std::string volume;
    std::string peer;
    std::string peer_volume;
    std::string from;
    std::string size;
    bool overwrite = false;
    bool force = false;
    bool shrink = false;
    bool wait = false;
    bool watch = false;
    bool follow = false;
    std::string array;
    std::uint64_t member = 0;
    std::string with;
    std::string device;  ///< PATH, or PATH:SIZE for a file to be made
    bool repair = false;
    std::string level;
    std::string strip;
    std::vector<std::string> members;  ///< PATH, or PATH:SIZE for files to be made
    std::vector<std::string> spares;
    std::vector<std::string> volumes;  ///< NAME:SIZE, or NAME for all that is left
    std::string kind;                  ///< of a job
    std::string order;                 ///< to a verify: pause, resume or cancel; empty: a new one
    std::uint64_t since = 0;
    std::uint64_t interval_seconds = 0;  ///< of stats; 0: once
    std::uint64_t timeout_seconds = 0;   ///< of --wait; 0: no limit
};

/// Each returns the exit code; errors are on standard error, or as JSON on standard output with --json.
ExitCode show_status(const Invocation& given);
ExitCode list_volumes(const Invocation& given);
ExitCode list_sessions(const Invocation& given);
ExitCode show_statistics(const Invocation& given);
ExitCode show_events(const Invocation& given);
ExitCode mirror_status(const Invocation& given);
ExitCode mirror_establish(const Invocation& given);
ExitCode mirror_sever(const Invocation& given);
ExitCode mirror_re_establish(const Invocation& given);
ExitCode mirror_resize(const Invocation& given);
ExitCode mirror_verify(const Invocation& given);
ExitCode promote(const Invocation& given);
ExitCode reload(const Invocation& given);
ExitCode list_arrays(const Invocation& given);
ExitCode show_array(const Invocation& given);
ExitCode fail_member(const Invocation& given);
ExitCode rebuild_member(const Invocation& given);
ExitCode scrub_array(const Invocation& given);
ExitCode replace_member(const Invocation& given);
ExitCode grow_array(const Invocation& given);
ExitCode create_array(const Invocation& given);
ExitCode add_spare(const Invocation& given);
ExitCode remove_spare(const Invocation& given);
ExitCode resize_volume(const Invocation& given);
ExitCode list_jobs(const Invocation& given);
ExitCode pause_job(const Invocation& given);
ExitCode resume_job(const Invocation& given);
ExitCode cancel_job(const Invocation& given);
ExitCode limit_job(const Invocation& given);

}  // namespace gemel::cli
