// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/login.hpp"

#include "target/iscsi/portal.hpp"

namespace gemel::iscsi {

namespace {

struct StageRow {
    LoginState from;
    std::uint8_t current_stage;
    bool transit;
    std::uint8_t next_stage;  ///< with transit only
    LoginState to;
};

using enum LoginState;
constexpr bool kStays = false;
constexpr bool kTransits = true;

// RFC 7143 §6.3: security and operational negotiation may each be left out, never repeated.
constexpr std::array kStageTable{
    StageRow{kStart, kSecurityNegotiation, kStays, 0, kSecurity},
    StageRow{kStart, kSecurityNegotiation, kTransits, kOperationalNegotiation, kOperational},
    StageRow{kStart, kSecurityNegotiation, kTransits, kFullFeaturePhase, kDone},
    StageRow{kStart, kOperationalNegotiation, kStays, 0, kOperational},
    StageRow{kStart, kOperationalNegotiation, kTransits, kFullFeaturePhase, kDone},
    StageRow{kSecurity, kSecurityNegotiation, kStays, 0, kSecurity},
    StageRow{kSecurity, kSecurityNegotiation, kTransits, kOperationalNegotiation, kOperational},
    StageRow{kSecurity, kSecurityNegotiation, kTransits, kFullFeaturePhase, kDone},
    StageRow{kOperational, kOperationalNegotiation, kStays, 0, kOperational},
    StageRow{kOperational, kOperationalNegotiation, kTransits, kFullFeaturePhase, kDone},
};

constexpr std::uint8_t kStageShift = 2;  ///< CSG in the flags byte

/// The state in which a request of this stage waits for more of the same.
LoginState state_of_stage(std::uint8_t stage) {
    return stage == kSecurityNegotiation ? kSecurity : kOperational;
}

/// Keys that mean something only once it is known who wants to log in where.
bool is_method_key(std::string_view name) {
    const KeyRow* row = find_key(name);
    return row != nullptr && (row->id == KeyId::kAuthMethod || row->rule == KeyRule::kAuthenticates);
}

}  // namespace

LoginState next_login_state(LoginState from, std::uint8_t current_stage, bool transit, std::uint8_t next_stage) {
    for (const StageRow& row : kStageTable) {
        if (row.from == from && row.current_stage == current_stage && row.transit == transit &&
            (!transit || row.next_stage == next_stage)) {
            return row.to;
        }
    }
    return kFailed;
}

LoginReply LoginMachine::refuse(const LoginRequest& request, LoginStatus status, std::string why) {
    LoginReply reply;
    reply.header.flags = static_cast<std::uint8_t>(request.current_stage() << kStageShift);
    reply.header.isid = request.isid;
    reply.header.tsih = request.tsih;
    reply.header.initiator_task_tag = request.initiator_task_tag;
    reply.header.status_class = static_cast<std::uint8_t>(static_cast<std::uint16_t>(status) >> 8U);
    reply.header.status_detail = static_cast<std::uint8_t>(status);
    reply.why = std::move(why);
    return reply;
}

LoginReply LoginMachine::handle(const LoginRequest& request, std::string_view data) {
    std::string why;
    LoginStatus status = check_request(request, data, why);
    const LoginState next =
        next_login_state(state_, request.current_stage(), (request.flags & kFinal) != 0, request.next_stage());
    if (status == LoginStatus::kSuccess && next == kFailed) {
        status = LoginStatus::kInitiatorError;
        why = "no such login stage or transition";
    }
    const bool more_to_come = (request.flags & kContinue) != 0;
    if (status == LoginStatus::kSuccess && !more_to_come) {
        status = negotiate(request, why);
    }
    if (status != LoginStatus::kSuccess) {
        state_ = kFailed;
        return refuse(request, status, std::move(why));
    }
    if (more_to_come) {
        state_ = state_of_stage(request.current_stage());
        LoginReply reply = refuse(request, LoginStatus::kSuccess, {});
        return reply;
    }
    return answer(request, next);
}

LoginStatus LoginMachine::check_request(const LoginRequest& request, std::string_view data, std::string& why) {
    if (state_ == kDone || state_ == kFailed) {
        why = "a login request after the end of the login";
        return LoginStatus::kInvalidDuringLogin;
    }
    if (requests_++ == 0) {
        first_ = request;
    }
    if (request.version_min > 0) {
        why = "the initiator speaks version " + std::to_string(request.version_min) + " and later, the target 0";
        return LoginStatus::kUnsupportedVersion;
    }
    const bool same = request.isid == first_.isid && request.tsih == first_.tsih &&
                      request.connection_id == first_.connection_id &&
                      request.initiator_task_tag == first_.initiator_task_tag;
    if (!same) {
        why = "ISID, TSIH, CID or initiator task tag changed during the login";
        return LoginStatus::kInitiatorError;
    }
    if ((request.flags & kFinal) != 0 && (request.flags & kContinue) != 0) {
        why = "a login request with both T and C";
        return LoginStatus::kInitiatorError;
    }
    if (requests_ > kMaxRequests || incoming_.size() + data.size() > TextLimits::kTotalBytes) {
        why = "the login has too many requests or too much text";
        return LoginStatus::kInitiatorError;
    }
    incoming_.append(data);
    return LoginStatus::kSuccess;
}

LoginStatus LoginMachine::negotiate(const LoginRequest& request, std::string& why) {
    const StageMask stage = request.current_stage() == kSecurityNegotiation ? kSecurityStage : kOperationalStage;
    const std::string text = std::exchange(incoming_, {});
    const bool asks_for_more = text.empty() && !outgoing_.empty();
    std::vector<TextPair> methods;  // looked at when it is known who wants to log in where
    for (std::string_view rest = text; !rest.empty();) {
        const Result<TextPair> pair = next_pair(rest);
        if (pair && is_method_key(pair->key)) {
            methods.push_back(*pair);
            continue;
        }
        const Result<void> done =
            pair ? negotiation_.offer(*pair, stage, outgoing_) : fail(Errc::kProtocol, pair.error().message);
        if (!done) {
            why = done.error().message;
            return LoginStatus::kInitiatorError;
        }
    }
    if (!identified_) {
        if (const LoginStatus status = identify(why); status != LoginStatus::kSuccess) {
            return status;
        }
        identified_ = true;
    }
    if (const LoginStatus status = authenticate(methods, stage, why); status != LoginStatus::kSuccess) {
        return status;
    }
    // A request to go on that brings the authentication no further would be made for ever.
    const bool transit = (request.flags & kFinal) != 0;
    if (unproven() && transit && methods.empty() && !asks_for_more) {
        why = "the login goes on without CHAP, which is demanded here";
        return LoginStatus::kAuthenticationFailure;
    }
    const Result<SessionParameters> parameters = negotiation_.finish();
    if (!parameters) {
        why = parameters.error().message;
        return LoginStatus::kInitiatorError;
    }
    parameters_ = *parameters;
    declare(request.current_stage());
    return LoginStatus::kSuccess;
}

LoginStatus LoginMachine::identify(std::string& why) {
    const std::string& type = negotiation_.text(KeyId::kSessionType);
    const std::string& target_name = negotiation_.text(KeyId::kTargetName);
    if (negotiation_.given(KeyId::kSessionType) && type != "Normal" && type != "Discovery") {
        why = "SessionType=" + printable(type, 40);
        return LoginStatus::kSessionTypeNotSupported;
    }
    if (!negotiation_.given(KeyId::kInitiatorName) || (!discovery() && !negotiation_.given(KeyId::kTargetName))) {
        why = "the first login request lacks InitiatorName or TargetName";
        return LoginStatus::kMissingParameter;
    }
    if (!valid_iscsi_name(initiator())) {
        why = "InitiatorName '" + printable(initiator(), 60) + "' is not an iSCSI name";
        return LoginStatus::kInitiatorError;
    }
    if (discovery()) {
        demand_authentication();
        return LoginStatus::kSuccess;
    }
    const LoginPolicy::Admission admission = policy_.admit(initiator(), target_name);
    target_ = admission.target;
    if (admission.status != LoginStatus::kSuccess) {
        why = printable(initiator()) + " may not log in to '" + printable(target_name) + "', or it does not exist";
        return admission.status;
    }
    demand_authentication();
    return LoginStatus::kSuccess;
}

void LoginMachine::demand_authentication() {
    if (const std::optional<ChapTerms> terms = policy_.chap_terms(target_)) {
        chap_.emplace(*terms, initiator());
        negotiation_.demand_chap();
    }
}

LoginStatus LoginMachine::authenticate(const std::vector<TextPair>& pairs, StageMask stage, std::string& why) {
    ChapText chap;
    for (const TextPair& pair : pairs) {
        if (const LoginStatus status = take_method(pair, stage, chap, why); status != LoginStatus::kSuccess) {
            return status;
        }
    }
    if (stage == kSecurityStage && chap_) {
        return chap_->handle(chap, outgoing_, why);
    }
    if (unproven()) {
        why = "the login leaves out CHAP, which is demanded here";
        return LoginStatus::kAuthenticationFailure;
    }
    return LoginStatus::kSuccess;
}

LoginStatus LoginMachine::take_method(const TextPair& pair, StageMask stage, ChapText& chap, std::string& why) {
    if (const Result<void> done = negotiation_.offer(pair, stage, outgoing_); !done) {
        why = done.error().message;
        return LoginStatus::kInitiatorError;
    }
    const KeyId id = find_key(pair.key)->id;
    // AuthMethod is the one key whose refusal ends the login.
    if (id == KeyId::kAuthMethod && !negotiation_.given(id)) {
        why = std::string(chap_ ? "CHAP is demanded" : "CHAP is not set up") + ", the initiator offers " +
              printable(pair.value, 60);
        return LoginStatus::kAuthenticationFailure;
    }
    if (id != KeyId::kAuthMethod && stage == kSecurityStage && !chap_) {
        append_pair(outgoing_, pair.key, "Reject");
    }
    struct Place {
        KeyId id;
        ChapKeys key;
        std::string_view ChapText::* value;
    };
    static constexpr std::array kPlaces{
        Place{KeyId::kAuthMethod, kMethodKey, &ChapText::method},
        Place{KeyId::kChapA, kAlgorithmKey, &ChapText::algorithms},
        Place{KeyId::kChapN, kNameKey, &ChapText::name},
        Place{KeyId::kChapR, kResponseKey, &ChapText::response},
        Place{KeyId::kChapI, kIdentifierKey, &ChapText::identifier},
        Place{KeyId::kChapC, kChallengeKey, &ChapText::challenge},
    };
    const auto place = std::ranges::find(kPlaces, id, &Place::id);
    chap.keys |= place->key;
    chap.*place->value = pair.value;
    return LoginStatus::kSuccess;
}

void LoginMachine::declare(std::uint8_t stage) {
    if (target_ != nullptr && !declared_target_) {
        declared_target_ = true;
        append_pair(outgoing_, key_row(KeyId::kTargetPortalGroupTag).name, std::to_string(target_->portal_group_tag));
        if (!target_->alias.empty()) {
            append_pair(outgoing_, key_row(KeyId::kTargetAlias).name, printable(target_->alias));
        }
    }
    if (stage == kOperationalNegotiation && !declared_segment_) {
        declared_segment_ = true;
        append_pair(outgoing_, key_row(KeyId::kMaxRecvDataSegmentLength).name,
                    std::to_string(parameters_.max_recv_data_segment_length));
    }
}

LoginReply LoginMachine::answer(const LoginRequest& request, LoginState next) {
    LoginReply reply = refuse(request, LoginStatus::kSuccess, {});
    const std::size_t most = std::min<std::size_t>(kMaxDataBytes, parameters_.max_send_data_segment_length);
    reply.text = outgoing_.substr(0, most);
    outgoing_.erase(0, reply.text.size());
    if (!outgoing_.empty()) {
        reply.header.flags |= kContinue;
        state_ = state_of_stage(request.current_stage());
        return reply;
    }
    state_ = unproven() ? kSecurity : next;  // L4
    if ((request.flags & kFinal) != 0 && !unproven()) {
        reply.header.flags |= static_cast<std::uint8_t>(kFinal | request.next_stage());
    }
    if (state_ == kDone) {
        // Without the operational stage our MaxRecvDataSegmentLength stays at its default.
        if (!declared_segment_) {
            parameters_.max_recv_data_segment_length = key_row(KeyId::kMaxRecvDataSegmentLength).initial;
        }
        reply.full_feature = true;
    }
    return reply;
}

}  // namespace gemel::iscsi
