// SPDX-License-Identifier: Apache-2.0
// The login phase of one connection (RFC 7143 §6.3, §11.12, §11.13) as a machine without I/O: one request in, one reply
// out. The stages and their transitions are a table; CHAP is a machine of its own inside it (chap.hpp).
//
// Invariants:
//   L1  A reply never carries more than 8192 bytes of text, or the initiator's declared MaxRecvDataSegmentLength if
//       that is less; longer texts are continued with the C bit.
//   L2  Everything that identifies the login (ISID, TSIH, CID, initiator task tag) is fixed by the first request.
//   L3  After a reply with a status other than success, or with full_feature, no further request is accepted.
//   L4  Where the policy demands CHAP, no login leaves the security stage, or does without it, before it is proven.
// Threads: one login at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "target/iscsi/chap.hpp"
#include "target/iscsi/login_status.hpp"
#include "target/iscsi/pdu.hpp"
#include "target/iscsi/text_keys.hpp"

namespace gemel::iscsi {

struct TargetDefinition;

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
    /// How a login to `target` (null: a discovery session) is authenticated. Nullopt: nobody has to prove anything.
    [[nodiscard]] virtual std::optional<ChapTerms> chap_terms(const TargetDefinition* /*target*/) const {
        return std::nullopt;
    }
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
    /// How the initiator has proven who it is; nullptr: it did not have to.
    [[nodiscard]] const ChapExchange* chap() const { return chap_ ? &*chap_ : nullptr; }
    [[nodiscard]] const LoginRequest& first_request() const { return first_; }
    [[nodiscard]] std::size_t requests() const { return requests_; }
    [[nodiscard]] const SessionParameters& parameters() const { return parameters_; }

  private:
    [[nodiscard]] LoginStatus check_request(const LoginRequest& request, std::string_view data, std::string& why);
    [[nodiscard]] LoginStatus negotiate(const LoginRequest& request, std::string& why);
    [[nodiscard]] LoginStatus identify(std::string& why);
    void demand_authentication();
    [[nodiscard]] LoginStatus authenticate(const std::vector<TextPair>& pairs, StageMask stage, std::string& why);
    [[nodiscard]] LoginStatus take_method(const TextPair& pair, StageMask stage, ChapText& chap, std::string& why);
    [[nodiscard]] bool unproven() const { return chap_ && !chap_->proven(); }
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
    std::optional<ChapExchange> chap_;  ///< once identified, if the policy demands it
    bool declared_target_ = false;
    bool declared_segment_ = false;
    const TargetDefinition* target_ = nullptr;
    SessionParameters parameters_;
};

}  // namespace gemel::iscsi
