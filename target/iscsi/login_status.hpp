// SPDX-License-Identifier: Apache-2.0
// How a login ends (RFC 7143 §11.13.5): on the wire, in counters, and what an operator can do about it.
// Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gemel::iscsi {

/// Status-Class and Status-Detail.
enum class LoginStatus : std::uint16_t {
    kSuccess = 0x0000,
    kInitiatorError = 0x0200,
    kAuthenticationFailure = 0x0201,
    kAuthorizationFailure = 0x0202,
    kTargetNotFound = 0x0203,
    kUnsupportedVersion = 0x0205,
    kTooManyConnections = 0x0206,
    kMissingParameter = 0x0207,
    kSessionTypeNotSupported = 0x0209,
    kSessionDoesNotExist = 0x020a,
    kInvalidDuringLogin = 0x020b,
    kServiceUnavailable = 0x0301,
    kOutOfResources = 0x0302,
};

struct LoginFailureRow {
    LoginStatus status;
    std::string_view name;    ///< stable: a key of the JSON of `gemel status`
    std::string_view action;  ///< what an operator can do
};

inline constexpr std::string_view kUpdateInitiator = "update the initiator if this goes on";
inline constexpr std::array kLoginFailures{
    LoginFailureRow{LoginStatus::kInitiatorError, "initiator-error", kUpdateInitiator},
    LoginFailureRow{LoginStatus::kAuthenticationFailure, "authentication-failure",
                    "check that the initiator uses CHAP exactly where the configuration has chap_users, with the name "
                    "and secret of the secrets file; if it is not yours, somebody tries to log in"},
    LoginFailureRow{LoginStatus::kAuthorizationFailure, "authorization-failure",
                    "check the initiator's name and address against allowed_initiators, allowed_networks and "
                    "chap_users of the target, and initiators of the CHAP user"},
    LoginFailureRow{LoginStatus::kTargetNotFound, "target-not-found", "check the target's name on both sides"},
    LoginFailureRow{LoginStatus::kUnsupportedVersion, "unsupported-version", kUpdateInitiator},
    LoginFailureRow{LoginStatus::kTooManyConnections, "too-many-connections",
                    "let the initiator use one connection per session"},
    LoginFailureRow{LoginStatus::kMissingParameter, "missing-parameter", kUpdateInitiator},
    LoginFailureRow{LoginStatus::kSessionTypeNotSupported, "session-type-not-supported", kUpdateInitiator},
    LoginFailureRow{LoginStatus::kSessionDoesNotExist, "session-does-not-exist",
                    "nothing: the initiator makes a new session"},
    LoginFailureRow{LoginStatus::kInvalidDuringLogin, "invalid-during-login", kUpdateInitiator},
    LoginFailureRow{LoginStatus::kServiceUnavailable, "service-unavailable",
                    "nothing if it does not go on: the initiator tries again; else look for a device that hangs"},
    LoginFailureRow{LoginStatus::kOutOfResources, "out-of-resources", "log out initiators that are not needed"},
};

}  // namespace gemel::iscsi
