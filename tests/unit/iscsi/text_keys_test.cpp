// SPDX-License-Identifier: Apache-2.0
// The text keys: every rule of the table, and values that are none.
#include "target/iscsi/text_keys.hpp"

#include <gtest/gtest.h>

namespace gemel::iscsi {
namespace {

constexpr OwnLimits kOwn{262144, 1048576, 262144, 4};

struct Case {
    const char* key;
    const char* value;
    const char* answer;  ///< of the value; "" for no answer
    std::uint32_t result;
};

std::string reply_to(Negotiation& n, const char* key, const char* value, StageMask stage = kOperationalStage) {
    std::string out;
    EXPECT_TRUE(n.offer({key, value}, stage, out)) << key << "=" << value;
    if (out.empty()) {
        return "";
    }
    EXPECT_EQ(out.back(), '\0');
    EXPECT_TRUE(out.starts_with(std::string(key) + "="));
    return out.substr(std::string_view(key).size() + 1, out.size() - std::string_view(key).size() - 2);
}

TEST(Negotiation, follows_the_rule_of_each_key) {
    const Case cases[] = {
        {"HeaderDigest", "CRC32C,None", "CRC32C", kDigestCrc32c},
        {"HeaderDigest", "None,CRC32C", "None", kDigestNone},
        {"HeaderDigest", "X-fast,CRC32C", "CRC32C", kDigestCrc32c},
        {"HeaderDigest", "MD5", "Reject", kDigestNone},
        {"HeaderDigest", ",,,", "Reject", kDigestNone},
        {"DataDigest", "", "Reject", kDigestNone},
        {"MaxConnections", "8", "1", 1},
        {"MaxConnections", "0", "Reject", 1},
        {"InitialR2T", "Yes", "Yes", 1},
        {"InitialR2T", "No", "No", 0},
        {"InitialR2T", "yes", "Reject", 1},
        {"ImmediateData", "Yes", "Yes", 1},
        {"ImmediateData", "No", "No", 0},
        {"MaxRecvDataSegmentLength", "65536", "", 65536},
        {"MaxRecvDataSegmentLength", "0", "Reject", 8192},
        {"MaxRecvDataSegmentLength", "511", "Reject", 8192},
        {"MaxRecvDataSegmentLength", "16777215", "", 16777215},
        {"MaxRecvDataSegmentLength", "16777216", "Reject", 8192},
        {"MaxBurstLength", "262144", "262144", 262144},
        {"MaxBurstLength", "16777215", "1048576", 1048576},
        {"MaxBurstLength", "0x10000", "65536", 65536},
        {"MaxBurstLength", "512~1024", "Reject", 262144},
        {"FirstBurstLength", "1000", "1000", 1000},
        {"FirstBurstLength", "16777215", "262144", 262144},
        {"DefaultTime2Wait", "0", "2", 2},
        {"DefaultTime2Wait", "30", "30", 30},
        {"DefaultTime2Retain", "0", "0", 0},
        {"DefaultTime2Retain", "3601", "Reject", 20},
        {"MaxOutstandingR2T", "1", "1", 1},
        {"MaxOutstandingR2T", "65535", "4", 4},
        {"DataPDUInOrder", "No", "Yes", 1},
        {"DataSequenceInOrder", "No", "Yes", 1},
        {"ErrorRecoveryLevel", "2", "0", 0},
        {"ErrorRecoveryLevel", "3", "Reject", 0},
        {"TaskReporting", "FastAbort,RFC3720", "RFC3720", 0},
        {"TaskReporting", "FastAbort", "Reject", 0},
        {"iSCSIProtocolLevel", "2", "1", 1},
        {"OFMarker", "Yes", "No", 0},
        {"IFMarker", "No", "No", 0},
        {"OFMarkInt", "2048~8192", "Reject", 0},
        {"IFMarkInt", "2048", "Reject", 0},
        {"SessionType", "Discovery", "", 0},
        {"InitiatorAlias", "a host", "", 0},
        {"TargetAlias", "mine", "Reject", 0},
        {"TargetAlias", "NotUnderstood", "", 0},
        {"AuthMethod", "None", "Reject", 0},  // not in this stage
        {"SendTargets", "All", "Reject", 0},
    };
    for (const Case& c : cases) {
        Negotiation n(kOwn);
        EXPECT_EQ(reply_to(n, c.key, c.value), c.answer) << c.key << "=" << c.value;
        EXPECT_EQ(n.number(find_key(c.key)->id), c.result) << c.key << "=" << c.value;
    }
}

TEST(Negotiation, unknown_keys_are_not_understood_in_every_stage) {
    for (const StageMask stage : {kSecurityStage, kOperationalStage, kFullFeatureStage}) {
        Negotiation n(kOwn);
        EXPECT_EQ(reply_to(n, "X-com.example.thing", "1", stage), "NotUnderstood");
        EXPECT_EQ(reply_to(n, "maxburstlength", "1", stage), "NotUnderstood");
    }
}

TEST(Negotiation, authentication_none_is_taken_in_the_security_stage) {
    Negotiation n(kOwn);
    EXPECT_EQ(reply_to(n, "AuthMethod", "CHAP,None", kSecurityStage), "None");
    EXPECT_TRUE(n.given(KeyId::kAuthMethod));
    Negotiation chap(kOwn);
    EXPECT_EQ(reply_to(chap, "AuthMethod", "CHAP", kSecurityStage), "Reject");
    EXPECT_FALSE(chap.given(KeyId::kAuthMethod));
}

TEST(Negotiation, a_key_sent_twice_or_a_reserved_value_ends_it) {
    Negotiation n(kOwn);
    std::string out;
    EXPECT_TRUE(n.offer({"MaxBurstLength", "1024"}, kOperationalStage, out));
    EXPECT_FALSE(n.offer({"MaxBurstLength", "1024"}, kOperationalStage, out));
    for (const char* value : {"NotUnderstood", "Reject", "Irrelevant"}) {
        Negotiation other(kOwn);
        EXPECT_FALSE(other.offer({"InitiatorName", value}, kOperationalStage, out));
        EXPECT_FALSE(other.given(KeyId::kInitiatorName));
    }
}

TEST(Negotiation, the_number_of_keys_is_bounded) {
    Negotiation n(kOwn);
    std::string out;
    std::size_t taken = 0;
    while (taken < 5000 && n.offer({"a", "b"}, kOperationalStage, out)) {
        ++taken;
    }
    EXPECT_EQ(taken, TextLimits::kPairs);
}

TEST(Negotiation, first_burst_above_max_burst_is_refused_only_if_both_were_offered) {
    Negotiation both(kOwn);
    reply_to(both, "FirstBurstLength", "65536");
    reply_to(both, "MaxBurstLength", "16384");
    EXPECT_FALSE(both.finish());
    Negotiation one(kOwn);
    reply_to(one, "MaxBurstLength", "16384");
    const auto p = one.finish();
    ASSERT_TRUE(p);
    EXPECT_EQ(p->first_burst_length, 16384U);
}

TEST(Negotiation, without_an_offer_the_standards_defaults_hold) {
    const auto p = Negotiation(kOwn).finish();
    ASSERT_TRUE(p);
    EXPECT_FALSE(p->header_digest || p->data_digest);
    EXPECT_TRUE(p->initial_r2t && p->immediate_data);
    EXPECT_EQ(p->max_send_data_segment_length, 8192U);
    EXPECT_EQ(p->max_burst_length, 262144U);
    EXPECT_EQ(p->first_burst_length, 65536U);
    EXPECT_EQ(p->max_outstanding_r2t, 1U);
}

TEST(Numbers, are_decimal_or_hexadecimal_and_fit) {
    EXPECT_EQ(parse_number("0"), 0U);
    EXPECT_EQ(parse_number("4294967295"), 4294967295U);
    EXPECT_EQ(parse_number("0xfF"), 255U);
    for (const char* bad : {"", "-1", "+1", " 1", "1 ", "0x", "0xG", "1e3", "007", "4294967296", "99999999999999999999",
                            "0x1ffffffff", "0b1", "1~5", "1,2"}) {
        EXPECT_FALSE(parse_number(bad)) << "'" << bad << "'";
    }
}

TEST(Pairs, malformed_text_is_refused) {
    const std::string long_key(64, 'k');
    const std::string long_value(256, 'v');
    using namespace std::string_literals;
    for (const std::string& bad : {"novalue\0"s, "=value\0"s, "a=b"s, "\0a=b\0"s, long_key + "=1\0"s,
                                   "a=" + long_value + "\0"s, "a b=1\0"s, "a\n=1\0"s}) {
        std::string_view rest = bad;
        EXPECT_FALSE(next_pair(rest)) << printable(bad);
    }
    const std::string good = "a=\0b=1=2\0"s;
    std::string_view rest = good;
    EXPECT_EQ(next_pair(rest)->value, "");
    EXPECT_EQ(next_pair(rest)->value, "1=2");
    EXPECT_TRUE(rest.empty());
}

TEST(Names, are_iscsi_names_or_refused) {
    EXPECT_TRUE(valid_iscsi_name("iqn.2026-11.dev.gemel:a_b-c.d"));
    EXPECT_TRUE(valid_iscsi_name("eui.02004567A425678D"));
    EXPECT_TRUE(valid_iscsi_name("iqn." + std::string(219, 'a')));
    for (const std::string& bad :
         {std::string(), std::string("iqn."), std::string("foo.bar"), std::string("iqn.a/../b"), std::string("iqn.%n"),
          std::string("iqn.a\x1b[2J"), std::string("iqn.\xff\xfe"), "iqn." + std::string(220, 'a'),
          std::string("iqn.a b"), std::string("iqn.a\"b")}) {
        EXPECT_FALSE(valid_iscsi_name(bad)) << printable(bad);
    }
    EXPECT_EQ(printable("a\x1b\xff"
                        "b"),
              "a??b");
}

}  // namespace
}  // namespace gemel::iscsi
