// SPDX-License-Identifier: Apache-2.0
// Exit codes of gemel. Scripts depend on them: numbers are never reused. README.md has the same table for people.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "gemel/error.hpp"

namespace gemel::cli {

enum class ExitCode : std::uint8_t {
    kOk = 0,
    kInternal = 1,     ///< anything that has no code of its own
    kUsage = 2,        ///< wrong command line or argument
    kNotFound = 3,     ///< no such volume, node, pair
    kRefused = 4,      ///< a rule forbids it in the present state; nothing changed
    kBusy = 5,         ///< not now: busy, not ready, timed out
    kNeedsForce = 6,   ///< possible only with --force
    kUnreachable = 7,  ///< no daemon answers on the socket
};

struct ExitRow {
    Errc errc;
    ExitCode code;
};
inline constexpr std::array kExitTable{
    ExitRow{Errc::kInvalidArgument, ExitCode::kUsage}, ExitRow{Errc::kNotFound, ExitCode::kNotFound},
    ExitRow{Errc::kAlreadyExists, ExitCode::kRefused}, ExitRow{Errc::kRefused, ExitCode::kRefused},
    ExitRow{Errc::kSizeMismatch, ExitCode::kRefused},  ExitRow{Errc::kSplitBrain, ExitCode::kRefused},
    ExitRow{Errc::kStandby, ExitCode::kRefused},       ExitRow{Errc::kStaleTerm, ExitCode::kRefused},
    ExitRow{Errc::kReadOnly, ExitCode::kRefused},      ExitRow{Errc::kNoSpace, ExitCode::kRefused},
    ExitRow{Errc::kUnsupported, ExitCode::kRefused},   ExitRow{Errc::kBusy, ExitCode::kBusy},
    ExitRow{Errc::kNotReady, ExitCode::kBusy},         ExitRow{Errc::kTimedOut, ExitCode::kBusy},
    ExitRow{Errc::kResources, ExitCode::kBusy},        ExitRow{Errc::kNeedsForce, ExitCode::kNeedsForce},
    ExitRow{Errc::kClosed, ExitCode::kUnreachable},
};

/// `name`: the stable name of an Errc as the daemon sends it; others are kInternal.
constexpr ExitCode exit_code_of(std::string_view name) {
    for (const ExitRow& row : kExitTable) {
        if (errc_name(row.errc) == name) {
            return row.code;
        }
    }
    return ExitCode::kInternal;
}

}  // namespace gemel::cli
