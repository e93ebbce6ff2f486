// SPDX-License-Identifier: Apache-2.0
// What one run of loadgen is asked to do.
// Threads: one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace gemel::loadgen {

/// Exit codes; also in tools/README.md.
enum class ExitCode : int {
    kGood = 0,
    kIoError = 1,       ///< a command failed with a status that retrying does not help
    kUsage = 2,         ///< wrong arguments, or an unusable ledger
    kVerification = 3,  ///< the target returned something other than what it had acknowledged
    kConnection = 4,    ///< not reachable, or gone for longer than --reconnect
};

struct Options {
    std::string url;
    std::string initiator = "iqn.2026-11.dev.gemel:loadgen";
    std::uint32_t sessions = 1;
    std::uint32_t depth = 1;  ///< commands in flight per session
    std::uint32_t block_bytes = 4096;
    std::uint32_t read_percent = 100;
    bool sequential = false;
    double seconds = 5;
    double warmup_seconds = 0;
    std::uint64_t operations = 0;  ///< 0: only the time ends the run
    std::uint64_t first_byte = 0;
    std::uint64_t span_bytes = 0;  ///< 0: to the end of the LUN
    std::uint32_t fua_percent = 0;
    std::string ledger;  ///< empty: no stamps, no checking
    bool check = false;  ///< read back all that the ledger knows instead of a workload
    bool json = false;
    double reconnect_seconds = 0;  ///< 0: a lost connection ends the run
    double give_up_seconds = 60;   ///< a command without an answer for this long ends the run
    bool header_digest = false;    ///< libiscsi 1.19 has no data digest
    std::uint64_t seed = 1;
};

/// Parses the command line; prints help or what is wrong. Empty: leave with `exit_code`.
std::optional<Options> parse_options(int argc, char** argv, int& exit_code);

}  // namespace gemel::loadgen
