// SPDX-License-Identifier: Apache-2.0
// CHAP as the login machine speaks it: digests against known ones, binary values, every step out of turn, and what an
// initiator without the secret can try.
#include "target/iscsi/chap.hpp"

#include <gtest/gtest.h>

#include <set>

#include "target/iscsi/login.hpp"
#include "target/iscsi/portal.hpp"
#include "tests/support/chap_peer.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace gemel::iscsi::test {
namespace {

constexpr OwnLimits kOwn{262144, 1048576, 262144, 4};
const std::string kSecret = "a secret of 16 b";
const std::string kOwnSecret = "the target's own";

ChapSecrets secrets_of(ChapAlgorithm weakest = ChapAlgorithm::kMd5) {
    return {{{"alice", kSecret, {}},
             {"bob", "bob's secret, longer", {}},
             {"tied", "tied to a name!!", {"iqn.i:other*"}},
             {"0x616c696365", "hexadecimal name", {}},
             {"0bYWxpY2U=", "base64 as a name", {}}},
            {{"gemel", kOwnSecret}},
            weakest};
}

/// One target that demands CHAP, and discovery that does.
class Guarded : public LoginPolicy {
  public:
    TargetDefinition definition{"iqn.t:one", "", {}, {}, 1};
    ChapSecrets secrets = secrets_of();
    ChapGate gate{{"alice", "tied", "0x616c696365", "0bYWxpY2U="}, "gemel"};
    mutable sim::SeededRandom random{7};

    [[nodiscard]] Admission admit(std::string_view /*initiator*/, std::string_view target) const override {
        return target == definition.iqn ? Admission{LoginStatus::kSuccess, &definition}
                                        : Admission{LoginStatus::kTargetNotFound, nullptr};
    }
    [[nodiscard]] std::optional<ChapTerms> chap_terms(const TargetDefinition* /*target*/) const override {
        return ChapTerms{&secrets, &gate, &random};
    }
};

std::string hex(const std::vector<std::byte>& bytes) {
    return encode_hex(bytes);
}

std::string base64(const std::vector<std::byte>& bytes) {
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out = "0b";
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t bits = 0;
        for (std::size_t j = 0; j < 3; ++j) {
            bits = bits << 8U | (i + j < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0U);
        }
        for (std::size_t j = 0; j < 4; ++j) {
            out += i + j > bytes.size() ? '=' : kAlphabet[bits >> (18 - 6 * j) & 63U];
        }
    }
    return out;
}

/// One request. In `keys`, words in braces stand for what is known only when the challenge is there.
struct Turn {
    std::uint8_t stage;
    int next;  ///< -1: without T
    std::vector<std::string> keys;
};
constexpr int kStay = -1;

class Talk {
  public:
    explicit Talk(const LoginPolicy& policy) : machine(policy, kOwn) {}

    LoginReply say(const Turn& turn) {
        std::string text;
        for (std::string key : turn.keys) {
            fill_in(key);
            text += key + '\0';
        }
        return send(turn, text, 0);
    }
    LoginReply send(const Turn& turn, std::string_view text, std::uint8_t flags) {
        LoginRequest r;
        r.immediate = true;
        r.initiator_task_tag = 5;
        r.flags = static_cast<std::uint8_t>(flags | unsigned{turn.stage} << 2U);
        if (turn.next >= 0) {
            r.flags |= static_cast<std::uint8_t>(kFinal | static_cast<unsigned>(turn.next));
        }
        LoginReply reply = machine.handle(r, text);
        peer.hear(reply.text);
        return reply;
    }
    void fill_in(std::string& key) const {
        const std::pair<std::string, std::string> words[] = {
            {"{right}", hex(peer.response(kSecret))},
            {"{right64}", base64(peer.response(kSecret))},
            {"{RIGHT}", upper(hex(peer.response(kSecret)))},
            {"{of bob}", hex(peer.response("bob's secret, longer"))},
            {"{of tied}", hex(peer.response("tied to a name!!"))},
            {"{of hex}", hex(peer.response("hexadecimal name"))},
            {"{of 64}", hex(peer.response("base64 as a name"))},
            {"{wrong}", hex(peer.response("a secret of 17 b"))},
            {"{own}", hex(peer.response(kOwnSecret))},
            {"{our challenge}", hex(peer.challenge)},
        };
        for (const auto& [word, value] : words) {
            if (const std::size_t at = key.find(word); at != std::string::npos) {
                key.replace(at, word.size(), value);
            }
        }
    }
    static std::string upper(std::string text) {
        for (char& c : text) {
            c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        }
        return text;
    }

    LoginMachine machine;
    ChapPeer peer;
};

const std::vector<std::string> kNames{"InitiatorName=iqn.i:host", "TargetName=iqn.t:one"};

std::vector<std::string> with_names(std::vector<std::string> keys) {
    keys.insert(keys.begin(), kNames.begin(), kNames.end());
    return keys;
}

const Turn kMethod{0, kStay, with_names({"AuthMethod=CHAP,None"})};
const Turn kAskMd5{0, kStay, {"CHAP_A=5"}};

TEST(Chap, digests_are_what_other_implementations_make_of_the_same_bytes) {
    std::vector<std::byte> challenge(32);
    for (std::size_t i = 0; i < challenge.size(); ++i) {
        challenge[i] = static_cast<std::byte>(i);
    }
    const std::pair<ChapAlgorithm, std::string_view> known[] = {
        {ChapAlgorithm::kMd5, "0xbe0cff3bddbc3510d61ecf362167eab1"},
        {ChapAlgorithm::kSha1, "0x70dce7b6de2991f867e52dc47ff41fd67d9ddcfa"},
        {ChapAlgorithm::kSha256, "0xdeff7fd6905874094f6e88098ae5cd2b190741ec154bd4faa5f1a58ff2523294"},
        {ChapAlgorithm::kSha3_256, "0x4d4a03e8e4066e58d6b56df7d7da672a183529ce253751b5a303ff34e3ee5eb2"},
    };
    for (const auto& [algorithm, expected] : known) {
        const auto digest = chap_response(algorithm, 0x2a, kSecret, challenge);
        ASSERT_TRUE(digest.has_value());
        EXPECT_EQ(encode_hex(digest->bytes()), expected);
    }
}

TEST(Chap, binary_values_are_read_in_both_forms_and_nothing_else_is) {
    for (std::size_t n = 1; n <= 70; ++n) {
        std::vector<std::byte> bytes(n);
        for (std::size_t i = 0; i < n; ++i) {
            bytes[i] = static_cast<std::byte>(i * 37 + n);
        }
        for (const std::string& text : {hex(bytes), base64(bytes), Talk::upper(hex(bytes))}) {
            EXPECT_EQ(decode_binary(text, n), bytes) << text;
            EXPECT_EQ(decode_binary(text, n - 1), std::nullopt) << text;
        }
    }
    EXPECT_EQ(decode_binary("0bAAECAw==", 4), (std::vector{std::byte{0}, std::byte{1}, std::byte{2}, std::byte{3}}));
    for (const char* bad :
         {"",       "0",      "0x",     "0b",         "0x1",    "0x123",  "0xg0",   "0x 1",   "0x-1",
          "0x0x",   "abcd",   "1234",   "0bA",        "0bAA",   "0bAAA",  "0bAA=A", "0b====", "0bA===",
          "0bAB==", "0bAAB=", "0bA A=", "0bAAE=AAE=", "0bAA-_", "0c0011", "x00"}) {
        EXPECT_EQ(decode_binary(bad, 1024), std::nullopt) << bad;
    }
}

TEST(Chap, every_algorithm_and_form_logs_in_one_way_and_both_ways) {
    for (const char* algorithm : {"5", "6", "7", "8"}) {
        for (const char* response : {"{right}", "{right64}", "{RIGHT}"}) {
            for (const bool mutual : {false, true}) {
                const Guarded policy;
                Talk t(policy);
                LoginReply r = t.say(kMethod);
                EXPECT_EQ(r.text, std::string("AuthMethod=CHAP\0TargetPortalGroupTag=1\0", 39));
                r = t.say({0, kStay, {std::string("CHAP_A=") + algorithm}});
                EXPECT_EQ(ChapPeer::value(r.text, "CHAP_A"), algorithm);
                EXPECT_GE(t.peer.challenge.size(), 16U);
                std::vector<std::string> keys{"CHAP_N=alice", std::string("CHAP_R=") + response};
                if (mutual) {
                    keys.insert(keys.end(), {"CHAP_I=0x1f", "CHAP_C=0bAAECAwQFBgc="});
                }
                r = t.say({0, 1, keys});
                ASSERT_EQ(r.status(), LoginStatus::kSuccess) << r.why;
                EXPECT_EQ(r.header.flags, kFinal | 1U);
                EXPECT_EQ(ChapPeer::value(r.text, "CHAP_N"), mutual ? "gemel" : "");
                if (mutual) {
                    ChapPeer other;
                    other.algorithm = t.peer.algorithm;
                    other.identifier = 0x1f;
                    for (unsigned i = 0; i < 8; ++i) {
                        other.challenge.push_back(static_cast<std::byte>(i));
                    }
                    EXPECT_EQ(ChapPeer::value(r.text, "CHAP_R"), hex(other.response(kOwnSecret)));
                }
                EXPECT_TRUE(t.say({1, 3, {}}).full_feature);
                ASSERT_NE(t.machine.chap(), nullptr);
                EXPECT_EQ(t.machine.chap()->user(), "alice");
                EXPECT_EQ(t.machine.chap()->mutual(), mutual);
            }
        }
    }
}

TEST(Chap, the_first_of_the_list_that_is_strong_enough_is_taken) {
    struct Case {
        ChapAlgorithm weakest;
        const char* offered;
        const char* taken;  ///< empty: refused
    };
    const Case cases[] = {
        {ChapAlgorithm::kMd5, "99,7,5", "7"},      {ChapAlgorithm::kMd5, "5,8", "5"},
        {ChapAlgorithm::kSha256, "5,6,8,7", "8"},  {ChapAlgorithm::kSha256, "5,6", ""},
        {ChapAlgorithm::kSha3_256, "7,6,5", ""},   {ChapAlgorithm::kSha1, "0x6", "6"},
        {ChapAlgorithm::kMd5, "5,5,5,5,5,5", "5"}, {ChapAlgorithm::kMd5, ",,5", "5"},
        {ChapAlgorithm::kMd5, "4294967301,9", ""}, {ChapAlgorithm::kMd5, "261", ""},
    };
    for (const Case& c : cases) {
        Guarded policy;
        policy.secrets = secrets_of(c.weakest);
        Talk t(policy);
        EXPECT_EQ(t.say(kMethod).status(), LoginStatus::kSuccess);
        const LoginReply r = t.say({0, kStay, {std::string("CHAP_A=") + c.offered}});
        EXPECT_EQ(ChapPeer::value(r.text, "CHAP_A"), c.taken) << c.offered;
        EXPECT_EQ(r.status(), *c.taken != 0 ? LoginStatus::kSuccess : LoginStatus::kAuthenticationFailure) << c.offered;
    }
}

TEST(Chap, a_transition_asked_for_too_early_waits_for_the_proof) {
    for (const int next : {1, 3}) {
        const Guarded policy;
        Talk t(policy);
        for (const Turn& turn : {Turn{0, next, kMethod.keys}, Turn{0, next, kAskMd5.keys}}) {
            const LoginReply r = t.say(turn);
            EXPECT_EQ(r.status(), LoginStatus::kSuccess);
            EXPECT_EQ(r.header.flags, 0) << "no T, still the security stage";
            EXPECT_FALSE(r.full_feature);
        }
        const LoginReply r = t.say({0, next, {"CHAP_N=alice", "CHAP_R={right}"}});
        EXPECT_EQ(r.header.flags, kFinal | static_cast<unsigned>(next));
        EXPECT_EQ(r.full_feature, next == 3);
    }
}

TEST(Chap, may_stay_in_the_stage_before_and_after_every_step) {
    const Guarded policy;
    Talk t(policy);
    const Turn nothing{0, kStay, {}};
    for (const Turn& turn : {Turn{0, kStay, kNames}, nothing, Turn{0, kStay, {"AuthMethod=CHAP"}}, nothing, kAskMd5,
                             nothing, Turn{0, kStay, {"CHAP_N=alice", "CHAP_R={right}"}}, nothing}) {
        EXPECT_EQ(t.say(turn).status(), LoginStatus::kSuccess);
    }
    EXPECT_TRUE(t.say({0, 3, {}}).full_feature);
}

TEST(Chap, text_split_at_any_byte_means_the_same) {
    std::size_t length = 1000;
    for (std::size_t at = 0; at <= length; ++at) {
        const Guarded policy;
        Talk t(policy);
        EXPECT_EQ(t.say(kMethod).status(), LoginStatus::kSuccess);
        EXPECT_EQ(t.say({0, kStay, {"CHAP_A=7"}}).status(), LoginStatus::kSuccess);
        std::string text = "CHAP_R={right}";
        t.fill_in(text);
        text += std::string("\0CHAP_N=alice\0", 14);
        length = text.size();
        EXPECT_EQ(t.send({0, kStay, {}}, std::string_view(text).substr(0, at), kContinue).status(),
                  LoginStatus::kSuccess);
        EXPECT_FALSE(t.machine.chap()->proven());
        EXPECT_EQ(t.send({0, 1, {}}, std::string_view(text).substr(at), 0).header.flags, kFinal | 1U) << at;
        EXPECT_TRUE(t.machine.chap()->proven());
    }
    EXPECT_LT(length, 1000U);
}

TEST(Chap, every_set_of_keys_that_is_no_step_ends_the_login) {
    const std::string values[] = {"AuthMethod=CHAP", "CHAP_A=5",    "CHAP_N=alice",
                                  "CHAP_R={right}",  "CHAP_I=0x00", "CHAP_C=0x0011"};
    const std::vector<std::vector<Turn>> ways{
        {{0, kStay, kNames}},
        {kMethod},
        {kMethod, kAskMd5},
        {kMethod, kAskMd5, {0, kStay, {"CHAP_N=alice", "CHAP_R={right}"}}},
    };
    const std::set<unsigned> steps[] = {{1}, {2}, {4 + 8, 4 + 8 + 16 + 32}, {}};
    for (std::size_t way = 0; way < ways.size(); ++way) {
        for (unsigned keys = 1; keys < 64; ++keys) {
            const Guarded policy;
            Talk t(policy);
            for (const Turn& turn : ways[way]) {
                ASSERT_EQ(t.say(turn).status(), LoginStatus::kSuccess);
            }
            Turn last{0, kStay, {}};
            for (unsigned k = 0; k < 6; ++k) {
                if ((keys >> k & 1U) != 0) {
                    last.keys.push_back(values[k]);
                }
            }
            EXPECT_EQ(t.say(last).status(),
                      steps[way].contains(keys) ? LoginStatus::kSuccess : LoginStatus::kInitiatorError)
                << way << " " << keys;
        }
    }
}

struct Hostile {
    const char* what;
    std::vector<Turn> turns;  ///< all but the last are taken, without T and without access
    LoginStatus status;
};

std::vector<Turn> at_response(std::vector<std::string> keys) {
    return {kMethod, kAskMd5, {0, 1, std::move(keys)}};
}

std::vector<Turn> of_mutual(const std::string& identifier, const std::string& challenge) {
    return at_response({"CHAP_N=alice", "CHAP_R={right}", "CHAP_I=" + identifier, "CHAP_C=" + challenge});
}

void try_all(const Guarded& policy, const std::vector<Hostile>& cases) {
    for (const Hostile& c : cases) {
        Talk t(policy);
        for (std::size_t i = 0; i < c.turns.size(); ++i) {
            const LoginReply r = t.say(c.turns[i]);
            const bool last = i + 1 == c.turns.size();
            EXPECT_EQ(r.status(), last ? c.status : LoginStatus::kSuccess) << c.what << ", turn " << i << ": " << r.why;
            EXPECT_FALSE(r.full_feature) << c.what;
            EXPECT_EQ(r.header.flags & kFinal, 0) << c.what;
            EXPECT_FALSE(r.text.contains("CHAP_R=")) << c.what << ": the target proves nothing to strangers";
            EXPECT_FALSE(r.why.contains(kSecret) || r.why.contains(kOwnSecret)) << c.what;
            EXPECT_EQ(r.why, printable(r.why, 4096)) << c.what;
        }
        EXPECT_FALSE(t.machine.chap() != nullptr && t.machine.chap()->proven()) << c.what;
        EXPECT_EQ(t.say({0, 1, {"CHAP_N=alice", "CHAP_R={right}"}}).status(), LoginStatus::kInvalidDuringLogin);
    }
}

TEST(Chap, nobody_gets_past_it) {
    using enum LoginStatus;
    const Turn wait{0, kStay, {}};
    const auto method = [](const char* list, int next = 1) {
        return std::vector<Turn>{{0, next, with_names({std::string("AuthMethod=") + list})}};
    };
    try_all(Guarded(),
            {
                {"no method, on to the operational stage", {{0, 1, kNames}}, kAuthenticationFailure},
                {"no method, on to the full feature phase", {{0, 3, kNames}}, kAuthenticationFailure},
                {"begins in the operational stage", {{1, kStay, kNames}}, kAuthenticationFailure},
                {"begins in the operational stage and ends", {{1, 3, kNames}}, kAuthenticationFailure},
                {"method in the operational stage", {{1, 3, kMethod.keys}}, kAuthenticationFailure},
                {"None", method("None"), kAuthenticationFailure},
                {"KRB5,None", method("KRB5,None"), kAuthenticationFailure},
                {"no methods", method(""), kAuthenticationFailure},
                {"lower case", method("chap"), kAuthenticationFailure},
                {"method, then on", {kMethod, {0, 1, {}}}, kAuthenticationFailure},
                {"method, then to the end", {kMethod, {0, 3, {}}}, kAuthenticationFailure},
                {"challenge, then on", {kMethod, kAskMd5, {0, 1, {}}}, kAuthenticationFailure},
                {"challenge, then to the end", {kMethod, kAskMd5, {0, 3, {"X-a=b"}}}, kAuthenticationFailure},
                {"challenge, waiting, then on", {kMethod, kAskMd5, wait, {0, 1, {}}}, kAuthenticationFailure},
                {"method, then the operational stage", {kMethod, {1, kStay, {}}}, kInitiatorError},
                {"challenge, then the operational stage", {kMethod, kAskMd5, {1, 3, {}}}, kInitiatorError},
                {"the method twice", {kMethod, {0, kStay, {"AuthMethod=CHAP"}}}, kInitiatorError},
                {"a second challenge", {kMethod, kAskMd5, kAskMd5}, kInitiatorError},
                {"an algorithm twice", {kMethod, {0, kStay, {"CHAP_A=5", "CHAP_A=5"}}}, kInitiatorError},
                {"a reserved value", {kMethod, {0, kStay, {"CHAP_A=Reject"}}}, kInitiatorError},
                {"algorithm 56", {kMethod, {0, kStay, {"CHAP_A=56"}}}, kAuthenticationFailure},
                {"no algorithm", {kMethod, {0, kStay, {"CHAP_A="}}}, kAuthenticationFailure},
                {"only commas", {kMethod, {0, kStay, {"CHAP_A=,,,"}}}, kAuthenticationFailure},
                {"algorithm -5", {kMethod, {0, kStay, {"CHAP_A=-5"}}}, kAuthenticationFailure},
                {"algorithm with a space", {kMethod, {0, kStay, {"CHAP_A= 5"}}}, kAuthenticationFailure},
                {"algorithms by name", {kMethod, {0, kStay, {"CHAP_A=MD5"}}}, kAuthenticationFailure},
                {"a thousand algorithms",
                 {kMethod, {0, kStay, {"CHAP_A=5" + std::string(2000, ',') + "5"}}},
                 kInitiatorError},
                {"name too long", at_response({"CHAP_N=" + std::string(256, 'a'), "CHAP_R={right}"}), kInitiatorError},
                {"unknown target",
                 {{0, 1, {"InitiatorName=iqn.i:host", "TargetName=iqn.t:two", "AuthMethod=CHAP"}}},
                 kTargetNotFound},
            });
}

TEST(Chap, no_answer_but_the_right_one_is_taken) {
    using enum LoginStatus;
    const auto answer = [](const std::string& response, const std::string& name = "alice") {
        return at_response({"CHAP_N=" + name, "CHAP_R=" + response});
    };
    try_all(Guarded(),
            {
                {"wrong secret", answer("{wrong}"), kAuthenticationFailure},
                {"another user's", answer("{of bob}"), kAuthenticationFailure},
                {"unknown user", answer("{right}", "mallory"), kAuthenticationFailure},
                {"no name", answer("{right}", ""), kAuthenticationFailure},
                {"another case", answer("{right}", "Alice"), kAuthenticationFailure},
                {"the name in hexadecimal is another name", answer("{right}", "0x616c696365"), kAuthenticationFailure},
                {"the name in base64 is another name", answer("{right}", "0bYWxpY2U="), kAuthenticationFailure},
                {"the target's own secret", answer("{own}"), kAuthenticationFailure},
                {"the target's own name", answer("{own}", "gemel"), kAuthenticationFailure},
                {"the right secret, but not of this target", answer("{of bob}", "bob"), kAuthorizationFailure},
                {"the right secret under a wrong initiator name", answer("{of tied}", "tied"), kAuthorizationFailure},
                {"the challenge itself", answer("{our challenge}"), kAuthenticationFailure},
                {"empty", answer(""), kAuthenticationFailure},
                {"only 0x", answer("0x"), kAuthenticationFailure},
                {"only 0b", answer("0b"), kAuthenticationFailure},
                {"odd digits", answer("{right}0"), kAuthenticationFailure},
                {"a byte more", answer("{right}00"), kAuthenticationFailure},
                {"a byte less", answer("0x" + std::string(30, '0')), kAuthenticationFailure},
                {"zeros", answer("0x" + std::string(32, '0')), kAuthenticationFailure},
                {"no digits", answer("0x" + std::string(32, 'g')), kAuthenticationFailure},
                {"no prefix", answer(std::string(34, '0')), kAuthenticationFailure},
                {"1024 bytes", answer("0x" + std::string(2048, '0')), kAuthenticationFailure},
                {"1025 bytes", answer("0x" + std::string(2050, '0')), kInitiatorError},
                {"1533 bytes in base64", answer("0b" + std::string(2044, 'A')), kAuthenticationFailure},
                {"95 bytes in base64", answer("0b" + std::string(127, 'A') + "="), kAuthenticationFailure},
                {"bad padding", answer("0b" + std::string(21, 'A') + "==="), kAuthenticationFailure},
                {"bad base64", answer("0b" + std::string(20, '*') + "AA=="), kAuthenticationFailure},
            });
    for (const auto& [name, word] : {std::pair{"0x616c696365", "{of hex}"}, std::pair{"0bYWxpY2U=", "{of 64}"}}) {
        const Guarded policy;
        Talk t(policy);
        LoginReply r;
        for (const Turn& turn : answer(word, name)) {
            r = t.say(turn);
        }
        EXPECT_EQ(r.status(), LoginStatus::kSuccess) << name << " is a name like any other";
    }
}

TEST(Chap, mutual_authentication_answers_no_trick) {
    using enum LoginStatus;
    try_all(Guarded(),
            {
                {"our own challenge", of_mutual("1", "{our challenge}"), kAuthenticationFailure},
                {"no challenge", of_mutual("1", "0x"), kAuthenticationFailure},
                {"an empty one", of_mutual("1", ""), kAuthenticationFailure},
                {"1025 bytes", of_mutual("1", "0x" + std::string(2050, '0')), kInitiatorError},
                {"1533 bytes in base64", of_mutual("1", "0b" + std::string(2044, 'A')), kAuthenticationFailure},
                {"identifier 256", of_mutual("256", "0x0011"), kAuthenticationFailure},
                {"identifier 0x100", of_mutual("0x100", "0x0011"), kAuthenticationFailure},
                {"identifier -1", of_mutual("-1", "0x0011"), kAuthenticationFailure},
                {"no identifier", of_mutual("", "0x0011"), kAuthenticationFailure},
                {"a wrong secret", at_response({"CHAP_N=alice", "CHAP_R={wrong}", "CHAP_I=1", "CHAP_C=0x0011"}),
                 kAuthenticationFailure},
            });
    Guarded mute;
    mute.gate.own.clear();
    try_all(mute, {{"the target has no identity", of_mutual("1", "0x0011"), kAuthenticationFailure}});
    // What a configuration must not have: the same secret both ways. It opens nothing.
    Guarded same;
    same.secrets.own[0].secret = kSecret;
    try_all(same, {{"the secret of both", at_response({"CHAP_N=alice", "CHAP_R={right}"}), kAuthenticationFailure}});
    const Guarded policy;
    for (const char* longest : {"0x", "0X"}) {
        Talk t(policy);
        LoginReply r;
        for (const Turn& turn : of_mutual("255", longest + std::string(2048, 'a'))) {
            r = t.say(turn);
        }
        EXPECT_EQ(r.status(), kSuccess) << r.why;
    }
}

TEST(Chap, an_answer_to_another_logins_challenge_is_worth_nothing) {
    const Guarded policy;
    Talk first(policy);
    Talk second(policy);
    for (Talk* t : {&first, &second}) {
        EXPECT_EQ(t->say(kMethod).status(), LoginStatus::kSuccess);
        EXPECT_EQ(t->say(kAskMd5).status(), LoginStatus::kSuccess);
    }
    const std::string replayed = hex(first.peer.response(kSecret));
    EXPECT_EQ(second.say({0, 1, {"CHAP_N=alice", "CHAP_R=" + replayed}}).status(), LoginStatus::kAuthenticationFailure);
    EXPECT_EQ(first.say({0, 1, {"CHAP_N=alice", "CHAP_R=" + replayed}}).status(), LoginStatus::kSuccess);
}

TEST(Chap, no_challenge_comes_twice_and_an_unknown_user_costs_what_a_known_one_does) {
    /// Counts what is drawn.
    struct Counting : Random {
        std::uint64_t drawn = 0;
        sim::SeededRandom source{3};
        std::uint64_t next() override {
            ++drawn;
            return source.next();
        }
    } random;
    const ChapSecrets secrets = secrets_of();
    const ChapGate gate{{"alice"}, ""};
    std::set<std::vector<std::byte>> seen;
    std::uint64_t known = 0;
    for (int i = 0; i < 2000; ++i) {
        ChapExchange exchange({&secrets, &gate, &random}, "iqn.i:host");
        std::string answer;
        std::string why;
        const std::uint64_t before = random.drawn;
        ASSERT_EQ(exchange.handle({.keys = kMethodKey}, answer, why), LoginStatus::kSuccess);
        ASSERT_EQ(exchange.handle({.keys = kAlgorithmKey, .algorithms = "5"}, answer, why), LoginStatus::kSuccess);
        ChapPeer peer;
        peer.hear(answer);
        EXPECT_TRUE(seen.insert(peer.challenge).second);
        const std::string response = hex(peer.response("not the secret"));
        const bool unknown = i % 2 != 0;
        EXPECT_EQ(exchange.handle({.keys = kNameKey | kResponseKey,
                                   .name = unknown ? std::string_view("mallory") : std::string_view("alice"),
                                   .response = response},
                                  answer, why),
                  LoginStatus::kAuthenticationFailure);
        EXPECT_EQ(random.drawn - before, i == 0 ? random.drawn - before : known) << i;
        known = random.drawn - before;
    }
}

TEST(Chap, where_it_is_not_demanded_logins_are_what_they_were) {
    struct Open : Guarded {
        [[nodiscard]] std::optional<ChapTerms> chap_terms(const TargetDefinition* /*target*/) const override {
            return std::nullopt;
        }
    };
    const Open policy;
    for (const Turn& turn : {Turn{1, 3, kNames}, Turn{0, 3, kNames}, Turn{0, 3, with_names({"AuthMethod=None"})},
                             Turn{0, 3, kMethod.keys}, Turn{0, 3, with_names({"AuthMethod=CHAP,None", "CHAP_A=5"})}}) {
        Talk t(policy);
        const LoginReply r = t.say(turn);
        EXPECT_TRUE(r.full_feature) << r.why;
        EXPECT_EQ(t.machine.chap(), nullptr);
        EXPECT_FALSE(r.text.contains("AuthMethod=CHAP"));
        EXPECT_EQ(r.text.contains("CHAP_A=Reject"), turn.keys.back() == "CHAP_A=5");
    }
    Talk t(policy);
    EXPECT_EQ(t.say({0, 1, with_names({"AuthMethod=CHAP"})}).status(), LoginStatus::kAuthenticationFailure);
}

TEST(Chap, keys_of_it_in_the_operational_stage_are_refused) {
    const Guarded policy;
    Talk t(policy);
    for (const Turn& turn : at_response({"CHAP_N=alice", "CHAP_R={right}"})) {
        EXPECT_EQ(t.say(turn).status(), LoginStatus::kSuccess);
    }
    const LoginReply r = t.say({1, 3, {"CHAP_I=1", "CHAP_C=0x00"}});
    EXPECT_TRUE(r.full_feature);
    EXPECT_TRUE(r.text.contains("CHAP_I=Reject") && r.text.contains("CHAP_C=Reject"));
    EXPECT_FALSE(r.text.contains("CHAP_R"));
}

TEST(Chap, a_long_answer_is_sent_in_pieces_and_the_proof_still_waits) {
    const Guarded policy;
    Talk t(policy);
    std::vector<std::string> keys = kMethod.keys;
    for (int i = 0; i < 240; ++i) {
        keys.push_back("a-key-that-nobody-has-heard-of-" + std::to_string(i) + "=v");
    }
    LoginReply r = t.say({0, 1, keys});
    int pieces = 1;
    while ((r.header.flags & kContinue) != 0 && pieces < 10) {
        EXPECT_EQ(r.header.flags & kFinal, 0);
        r = t.say({0, 1, {}});
        EXPECT_EQ(r.status(), LoginStatus::kSuccess);
        ++pieces;
    }
    EXPECT_GT(pieces, 1);
    EXPECT_EQ(r.header.flags, 0) << "all is said, and nothing is proven";
    EXPECT_EQ(t.say({0, 1, {}}).status(), LoginStatus::kAuthenticationFailure);
}

}  // namespace
}  // namespace gemel::iscsi::test
