// SPDX-License-Identifier: Apache-2.0
// The login phase of one connection (RFC 7143 §6.3, §11.12, §11.13) as a machine without I/O: one request in, one reply
// out. The stages and their transitions are a table; authentication methods are the choices of the AuthMethod key.
//
// Invariants:
//   L1  A reply never carries more than 8192 bytes of text, or the initiator's declared MaxRecvDataSegmentLength if
//       that is less; longer texts are continued with the C bit.
//   L2  Everything that identifies the login (ISID, TSIH, CID, initiator task tag) is fixed by the first request.
//   L3  After a reply with a status other than success, or with full_feature, no further request is accepted.
// Threads: one login at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "target/iscsi/pdu.hpp"
#include "target/iscsi/text_keys.hpp"

namespace gemel::iscsi {

struct TargetDefinition;

/// Status-Class and Status-Detail (RFC 7143 §11.13.5).
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

enum class LoginState : std::uint8_t { kStart, kSecurity, kOperational, kDone, kFailed };

inline constexpr std::uint8_t kSecurityNegotiation = 0;     ///< CSG, NSG
inline constexpr std::uint8_t kOperationalNegotiation = 1;  ///< CSG, NSG
inline constexpr std::uint8_t kFullFeaturePhase = 3;        ///< NSG

/// What a request with this CSG, T and NSG leads to; kFailed for every combination that is not a row. NSG has no
/// meaning without T.
LoginState next_login_state(LoginState from, std::uint8_t current_stage, bool transit, std::uint8_t next_stage);

/// Who may log in where.
class LoginPolicy {
  public:
    virtual ~LoginPolicy() = default;
    struct Admission {
        LoginStatus status = LoginStatus::kTargetNotFound;
        const TargetDefinition* target = nullptr;
    };
    [[nodiscard]] virtual Admission admit(std::string_view initiator, std::string_view target) const = 0;
};

struct LoginReply {
    LoginResponse header;  ///< all but the numbers; TSIH of a full_feature reply is the caller's
    std::string text;
    bool full_feature = false;  ///< after this reply the full feature phase begins
    std::string why;            ///< of a refusal, for logs; printable
    [[nodiscard]] LoginStatus status() const {
        return static_cast<LoginStatus>(header.status_class << 8U | header.status_detail);
    }
};

class LoginMachine {
  public:
    static constexpr std::size_t kMaxDataBytes = 8192;  ///< of one login request
    static constexpr std::size_t kMaxRequests = 64;     ///< of one login

    LoginMachine(const LoginPolicy& policy, const OwnLimits& limits) : policy_(policy), negotiation_(limits) {}

    /// `data`: the data segment without padding.
    LoginReply handle(const LoginRequest& request, std::string_view data);

    /// A refusal of `request`; the connection is closed after it.
    static LoginReply refuse(const LoginRequest& request, LoginStatus status, std::string why);

    // Known after the first complete text; final with full_feature.
    [[nodiscard]] const std::string& initiator() const { return negotiation_.text(KeyId::kInitiatorName); }
    [[nodiscard]] bool discovery() const { return negotiation_.text(KeyId::kSessionType) == "Discovery"; }
    [[nodiscard]] const TargetDefinition* target() const { return target_; }
    [[nodiscard]] const LoginRequest& first_request() const { return first_; }
    [[nodiscard]] std::size_t requests() const { return requests_; }
    [[nodiscard]] const SessionParameters& parameters() const { return parameters_; }

  private:
    [[nodiscard]] LoginStatus check_request(const LoginRequest& request, std::string_view data, std::string& why);
    [[nodiscard]] LoginStatus negotiate(const LoginRequest& request, std::string& why);
    [[nodiscard]] LoginStatus identify(std::string& why);
    void declare(std::uint8_t stage);
    LoginReply answer(const LoginRequest& request, LoginState next);

    const LoginPolicy& policy_;
    Negotiation negotiation_;
    LoginState state_ = LoginState::kStart;
    LoginRequest first_{};
    std::size_t requests_ = 0;
    std::string incoming_;  ///< text of requests with C, until the last one
    std::string outgoing_;  ///< text not yet sent
    bool identified_ = false;
    bool declared_target_ = false;
    bool declared_segment_ = false;
    const TargetDefinition* target_ = nullptr;
    SessionParameters parameters_;
};

}  // namespace gemel::iscsi
