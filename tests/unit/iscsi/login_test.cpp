// SPDX-License-Identifier: Apache-2.0
// The login machine: every transition of its table, what it refuses and with which status, and continued text.
#include "target/iscsi/login.hpp"

#include <gtest/gtest.h>

#include "target/iscsi/portal.hpp"

namespace gemel::iscsi {
namespace {

constexpr OwnLimits kOwn{262144, 1048576, 262144, 4};

class OneTarget : public LoginPolicy {
  public:
    TargetDefinition definition{"iqn.t:one", "alias", {}, {}, 3};
    [[nodiscard]] Admission admit(std::string_view initiator, std::string_view target) const override {
        if (target != definition.iqn) {
            return {LoginStatus::kTargetNotFound, nullptr};
        }
        if (initiator == "iqn.i:banned") {
            return {LoginStatus::kAuthorizationFailure, nullptr};
        }
        return {LoginStatus::kSuccess, &definition};
    }
};

LoginRequest request(std::uint8_t current, std::uint8_t next, bool transit) {
    LoginRequest r;
    r.immediate = true;
    r.flags = static_cast<std::uint8_t>((transit ? kFinal : 0U) | unsigned{current} << 2U | (transit ? next : 0U));
    r.initiator_task_tag = 5;
    r.cmd_sn = 1;
    return r;
}

std::string text(std::initializer_list<std::string_view> keys) {
    std::string out;
    for (const std::string_view k : keys) {
        out += k;
        out += '\0';
    }
    return out;
}

const std::string kNames = text({"InitiatorName=iqn.i:host", "TargetName=iqn.t:one"});

TEST(LoginTable, allows_exactly_the_transitions_of_the_standard) {
    using enum LoginState;
    int allowed = 0;
    for (const LoginState from : {kStart, kSecurity, kOperational, kDone, kFailed}) {
        for (unsigned csg = 0; csg < 4; ++csg) {
            for (unsigned transit = 0; transit < 2; ++transit) {
                for (unsigned nsg = 0; nsg < 4; ++nsg) {
                    const LoginState to = next_login_state(from, static_cast<std::uint8_t>(csg), transit != 0,
                                                           static_cast<std::uint8_t>(nsg));
                    // Said the other way round: a live login, in the stage it claims, that stays or goes forward.
                    const bool live =
                        from == kStart || (from == kSecurity && csg == 0) || (from == kOperational && csg == 1);
                    const bool forward = transit == 0 || (nsg > csg && nsg != 2);
                    const bool good = live && csg < 2 && forward;
                    EXPECT_EQ(to != kFailed, good) << int(from) << " " << csg << " " << transit << " " << nsg;
                    if (good) {
                        ++allowed;
                        const LoginState stage = csg == 0 ? kSecurity : kOperational;
                        EXPECT_EQ(to, transit == 0 ? stage : (nsg == 3 ? kDone : kOperational));
                    }
                }
            }
        }
    }
    EXPECT_EQ(allowed, 2 * (4 + 2 + 4 + 1));
}

TEST(Login, in_two_stages_declares_tag_alias_and_segment_length_once) {
    const OneTarget policy;
    LoginMachine m(policy, kOwn);
    LoginReply r = m.handle(request(0, 1, true), kNames + text({"AuthMethod=None", "SessionType=Normal"}));
    EXPECT_EQ(r.status(), LoginStatus::kSuccess);
    EXPECT_EQ(r.header.flags, kFinal | 1U);
    EXPECT_EQ(r.text, text({"AuthMethod=None", "TargetPortalGroupTag=3", "TargetAlias=alias"}));
    EXPECT_FALSE(r.full_feature);
    r = m.handle(request(1, 0, false), text({"MaxRecvDataSegmentLength=65536"}));
    EXPECT_EQ(r.text, text({"MaxRecvDataSegmentLength=262144"}));
    EXPECT_EQ(r.header.flags, 1U << 2U);
    r = m.handle(request(1, 3, true), text({"ImmediateData=Yes"}));
    EXPECT_EQ(r.text, text({"ImmediateData=Yes"}));
    EXPECT_TRUE(r.full_feature);
    EXPECT_EQ(m.parameters().max_send_data_segment_length, 65536U);
    EXPECT_EQ(m.parameters().max_recv_data_segment_length, 262144U);
    EXPECT_EQ(m.handle(request(1, 3, true), "").status(), LoginStatus::kInvalidDuringLogin);
}

TEST(Login, without_the_operational_stage_our_segment_length_is_the_default) {
    const OneTarget policy;
    LoginMachine m(policy, kOwn);
    const LoginReply r = m.handle(request(0, 3, true), kNames);
    EXPECT_TRUE(r.full_feature);
    EXPECT_EQ(m.parameters().max_recv_data_segment_length, 8192U);
}

struct Refusal {
    const char* what;
    LoginRequest request;
    std::string text;
    LoginStatus status;
};

TEST(Login, refuses_with_the_status_that_says_why) {
    LoginRequest both = request(1, 3, true);
    both.flags |= kContinue;
    LoginRequest new_version = request(1, 3, true);
    new_version.version_min = 1;
    const LoginRequest good = request(1, 3, true);
    using enum LoginStatus;
    const Refusal cases[] = {
        {"T and C", both, kNames, kInitiatorError},
        {"stage 2", request(2, 3, true), kNames, kInitiatorError},
        {"next stage 2", request(1, 2, true), kNames, kInitiatorError},
        {"backwards", request(1, 0, true), kNames, kInitiatorError},
        {"version", new_version, kNames, kUnsupportedVersion},
        {"no names", good, "", kMissingParameter},
        {"no initiator", good, text({"TargetName=iqn.t:one"}), kMissingParameter},
        {"no target", good, text({"InitiatorName=iqn.i:host"}), kMissingParameter},
        {"unknown target", good, text({"InitiatorName=iqn.i:host", "TargetName=iqn.t:two"}), kTargetNotFound},
        {"banned", good, text({"InitiatorName=iqn.i:banned", "TargetName=iqn.t:one"}), kAuthorizationFailure},
        {"bad name", good, text({"InitiatorName=../etc", "TargetName=iqn.t:one"}), kInitiatorError},
        {"session type", good, kNames + text({"SessionType=Foo"}), kSessionTypeNotSupported},
        {"authentication", request(0, 1, true), kNames + text({"AuthMethod=CHAP"}), kAuthenticationFailure},
        {"no NUL", good, kNames + "MaxBurstLength=512", kInitiatorError},
        {"empty pair", good, kNames + std::string(1, '\0'), kInitiatorError},
        {"no key", good, kNames + text({"=1"}), kInitiatorError},
        {"twice", good, kNames + text({"TargetName=iqn.t:one"}), kInitiatorError},
        {"bursts", good, kNames + text({"FirstBurstLength=8192", "MaxBurstLength=4096"}), kInitiatorError},
    };
    for (const Refusal& c : cases) {
        const OneTarget policy;
        LoginMachine m(policy, kOwn);
        const LoginReply r = m.handle(c.request, c.text);
        EXPECT_EQ(r.status(), c.status) << c.what;
        EXPECT_FALSE(r.full_feature) << c.what;
        EXPECT_FALSE(r.why.empty()) << c.what;
        EXPECT_EQ(r.why, printable(r.why, 4096)) << c.what;
        EXPECT_EQ(m.handle(good, kNames).status(), kInvalidDuringLogin) << c.what << ": nothing may follow";
    }
}

TEST(Login, identity_may_not_change_on_the_way) {
    for (int field = 0; field < 4; ++field) {
        const OneTarget policy;
        LoginMachine m(policy, kOwn);
        EXPECT_EQ(m.handle(request(1, 0, false), kNames).status(), LoginStatus::kSuccess);
        LoginRequest second = request(1, 3, true);
        (field == 0 ? second.initiator_task_tag : second.exp_stat_sn) += field == 0 ? 1 : 0;
        second.isid[2] = std::byte{static_cast<unsigned char>(field == 1 ? 9 : 0)};
        second.tsih = field == 2 ? 4 : 0;
        second.connection_id = field == 3 ? 4 : 0;
        EXPECT_EQ(m.handle(second, "").status(), LoginStatus::kInitiatorError) << field;
    }
}

TEST(Login, text_split_at_any_byte_means_the_same) {
    const std::string whole = kNames + text({"MaxBurstLength=8192", "X-a=b"});
    for (std::size_t at = 0; at <= whole.size(); ++at) {
        const OneTarget policy;
        LoginMachine m(policy, kOwn);
        LoginRequest first = request(1, 0, false);
        first.flags |= kContinue;
        LoginReply r = m.handle(first, std::string_view(whole).substr(0, at));
        EXPECT_EQ(r.status(), LoginStatus::kSuccess);
        EXPECT_TRUE(r.text.empty());
        EXPECT_EQ(r.header.flags & (kFinal | kContinue), 0);
        r = m.handle(request(1, 3, true), std::string_view(whole).substr(at));
        EXPECT_TRUE(r.full_feature) << at;
        EXPECT_EQ(m.parameters().max_burst_length, 8192U);
    }
}

TEST(Login, a_long_answer_is_continued_and_the_transition_waits_for_its_end) {
    const OneTarget policy;
    LoginMachine m(policy, kOwn);
    std::string many = kNames + text({"MaxRecvDataSegmentLength=512"});
    for (int i = 0; i < 200; ++i) {
        many += "k" + std::to_string(i) + "=v";
        many += '\0';
    }
    std::string answer;
    LoginReply r = m.handle(request(1, 3, true), many);
    int pieces = 1;
    while ((r.header.flags & kContinue) != 0 && pieces < 100) {
        EXPECT_EQ(r.header.flags & kFinal, 0);
        EXPECT_LE(r.text.size(), 512U);
        EXPECT_FALSE(r.full_feature);
        answer += r.text;
        ++pieces;
        r = m.handle(request(1, 3, true), "");
    }
    answer += r.text;
    EXPECT_TRUE(r.full_feature);
    EXPECT_GT(pieces, 5);
    EXPECT_TRUE(answer.contains("k199=NotUnderstood"));
}

TEST(Login, never_ending_ones_end) {
    const OneTarget policy;
    LoginMachine stay(policy, kOwn);
    std::size_t requests = 0;
    LoginReply r = stay.handle(request(1, 0, false), kNames);
    while (r.status() == LoginStatus::kSuccess && ++requests < 1000) {
        r = stay.handle(request(1, 0, false), "");
    }
    EXPECT_LT(requests, 100U);
    LoginMachine grow(policy, kOwn);
    LoginRequest more = request(1, 0, false);
    more.flags |= kContinue;
    std::size_t bytes = 0;
    while (grow.handle(more, std::string(8192, 'a')).status() == LoginStatus::kSuccess && bytes < (1U << 20U)) {
        bytes += 8192;
    }
    EXPECT_LE(bytes, TextLimits::kTotalBytes);
}

TEST(Login, discovery_needs_no_target) {
    const OneTarget policy;
    LoginMachine m(policy, kOwn);
    const LoginReply r = m.handle(request(1, 3, true), text({"InitiatorName=iqn.i:host", "SessionType=Discovery"}));
    EXPECT_TRUE(r.full_feature);
    EXPECT_TRUE(m.discovery());
    EXPECT_EQ(m.target(), nullptr);
}

}  // namespace
}  // namespace gemel::iscsi
