// SPDX-License-Identifier: Apache-2.0
// The one error table. A row exists only if some caller can react to it differently. Numbers are on the wire between
// peers and in the admin protocol: never reused, only added.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace gemel {

enum class Errc : std::uint16_t {
    kInvalidArgument = 1,
    kNotFound = 2,
    kAlreadyExists = 3,
    kBusy = 4,
    kRefused = 5,
    kOutOfRange = 6,
    kNoSpace = 7,
    kMediumError = 8,
    kMiscompare = 9,
    kChecksum = 10,
    kDeviceGone = 11,
    kReadOnly = 12,
    kStandby = 13,
    kNotReady = 14,
    kTimedOut = 15,
    kClosed = 16,
    kProtocol = 17,
    kCorrupt = 18,
    kStaleTerm = 19,
    kSizeMismatch = 20,
    kUnsupported = 21,
    kAborted = 22,
    kSplitBrain = 23,
    kIo = 24,
    kNeedsForce = 25,
    kResources = 26,
};

struct ErrcRow {
    Errc code;
    std::string_view name;     ///< stable, used in JSON
    std::string_view meaning;  ///< what a caller may conclude
};

inline constexpr std::array kErrcTable{
    ErrcRow{Errc::kInvalidArgument, "invalid_argument", "the request itself is wrong; do not retry it"},
    ErrcRow{Errc::kNotFound, "not_found", "no object of that name"},
    ErrcRow{Errc::kAlreadyExists, "already_exists", "an object of that name or role exists"},
    ErrcRow{Errc::kBusy, "busy", "something else is using it; retry later"},
    ErrcRow{Errc::kRefused, "refused", "a rule forbids it in the present state; nothing changed"},
    ErrcRow{Errc::kOutOfRange, "out_of_range", "blocks beyond the end of the device"},
    ErrcRow{Errc::kNoSpace, "no_space", "not enough free space"},
    ErrcRow{Errc::kMediumError, "medium_error", "blocks cannot be known; their addresses are reported"},
    ErrcRow{Errc::kMiscompare, "miscompare", "data differs from what was to be compared"},
    ErrcRow{Errc::kChecksum, "checksum", "data does not match its checksum; sending it again may help"},
    ErrcRow{Errc::kDeviceGone, "device_gone", "the device failed or vanished for good"},
    ErrcRow{Errc::kReadOnly, "read_only", "the device accepts no writes"},
    ErrcRow{Errc::kStandby, "standby", "this node is not the primary of the volume"},
    ErrcRow{Errc::kNotReady, "not_ready", "the volume waits for a decision or for its peer"},
    ErrcRow{Errc::kTimedOut, "timed_out", "no progress within the deadline"},
    ErrcRow{Errc::kClosed, "closed", "the stream or object was closed"},
    ErrcRow{Errc::kProtocol, "protocol", "the peer broke the protocol"},
    ErrcRow{Errc::kCorrupt, "corrupt", "stored metadata is damaged"},
    ErrcRow{Errc::kStaleTerm, "stale_term", "a newer primary exists"},
    ErrcRow{Errc::kSizeMismatch, "size_mismatch", "sizes of the two sides differ"},
    ErrcRow{Errc::kUnsupported, "unsupported", "not available here"},
    ErrcRow{Errc::kAborted, "aborted", "ended on request before completion"},
    ErrcRow{Errc::kSplitBrain, "split_brain", "both sides were written alone; an operator must choose"},
    ErrcRow{Errc::kIo, "io", "the operating system reported an I/O error"},
    ErrcRow{Errc::kNeedsForce, "needs_force", "possible only with --force, which may lose data"},
    ErrcRow{Errc::kResources, "resources", "memory or descriptors are short; retry later"},
};

/// Name of `code` in JSON and logs; "unknown" for a number of a newer peer.
constexpr std::string_view errc_name(Errc code) {
    for (const ErrcRow& row : kErrcTable) {
        if (row.code == code) {
            return row.name;
        }
    }
    return "unknown";
}

/// An operating error: its kind, and a text for people that names what is wrong and what to do.
struct [[nodiscard]] Error {
    Errc code;
    std::string message;

    Error(Errc c, std::string m) : code(c), message(std::move(m)) {}
    explicit Error(Errc c) : code(c), message(errc_name(c)) {}
};

}  // namespace gemel
