// SPDX-License-Identifier: Apache-2.0
// Addresses and networks of access lists.
#include "gemel/ip_network.hpp"

#include <gtest/gtest.h>

namespace gemel {
namespace {

TEST(IpAddress, IsReadFromEveryFormOfASocketsAddressAndFromNoName) {
    for (const char* good : {"10.0.0.1:3260", "[fd00::1]:1", "[::ffff:10.0.0.1]:1", "[::1]:0"}) {
        EXPECT_TRUE(IpAddress::of_socket(good).has_value()) << good;
    }
    EXPECT_EQ(IpAddress::of_socket("[::ffff:10.0.0.1]:1"), IpAddress::parse("10.0.0.1"));
    for (const char* bad : {"", ":", "host:1", "127.evil.example:1", "127.0.0.1", "10.0.0.256:1", "10.0.0.1.:1",
                            "[fd00::1:1", "fd00::g:1", "[]:1", "?"}) {
        EXPECT_FALSE(IpAddress::of_socket(bad).has_value()) << bad;
    }
    EXPECT_FALSE(IpAddress::parse(std::string_view("10.0.0.1\0x", 10)).has_value());
}

TEST(IpAddress, KnowsWhatNobodyElseCanReach) {
    for (const char* local : {"127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"}) {
        EXPECT_TRUE(IpAddress::parse(local)->is_loopback()) << local;
    }
    for (const char* other : {"128.0.0.1", "126.0.0.1", "::2", "::", "7f00::1", "::ffff:10.0.0.1", "0.0.0.0"}) {
        EXPECT_FALSE(IpAddress::parse(other)->is_loopback()) << other;
    }
    for (const char* local : {"127.9.9.9:1", "[::1]:1", "[0:0:0:0:0:0:0:1]:1", "[::ffff:127.0.0.1]:1"}) {
        EXPECT_TRUE(is_loopback(local)) << local;
    }
    for (const char* other :
         {"0.0.0.0:1", "10.0.0.1:1", "127.example.org:1", "127.0.0.1.example.org:1", "127.:1", "127.0.0.256:1",
          "localhost:1", "[::2]:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1", "127.0.0.1"}) {
        EXPECT_FALSE(is_loopback(other)) << other;
    }
}

TEST(IpNetwork, HoldsExactlyItsAddresses) {
    struct Case {
        const char* network;
        const char* address;
        bool inside;
    };
    for (const Case& c : {Case{"10.0.0.0/8", "10.255.255.255", true},
                          {"10.0.0.0/8", "11.0.0.0", false},
                          {"10.1.2.0/23", "10.1.3.255", true},
                          {"10.1.2.0/23", "10.1.4.0", false},
                          {"10.1.2.3", "10.1.2.3", true},
                          {"10.1.2.3", "10.1.2.2", false},
                          {"10.1.2.3/32", "10.1.2.3", true},
                          {"0.0.0.0/0", "200.1.1.1", true},
                          {"0.0.0.0/0", "fd00::1", false},
                          {"::/0", "fd00::1", true},
                          {"::/0", "10.0.0.1", false},
                          {"10.9.0.0/16", "::ffff:10.9.9.9", true},
                          {"fd00:2::/31", "fd00:4:5::1", false},
                          {"fd00:2::/31", "fd00:3:5::1", true},
                          {"fd00::7", "fd00::7", true},
                          {"fd00::7/128", "fd00::6", false}}) {
        const auto network = IpNetwork::parse(c.network);
        ASSERT_TRUE(network.has_value()) << network.error().message;
        EXPECT_EQ(network->contains(*IpAddress::parse(c.address)), c.inside) << c.network << " " << c.address;
    }
}

TEST(IpNetwork, SaysWhatIsWrongWithOne) {
    struct Case {
        const char* text;
        const char* says;
    };
    for (const Case& c : {Case{"10.0.0.1/8", "bits set behind the first 8"},
                          {"10.0.0.0/33", "no number from 0 to 32"},
                          {"10.0.0.0/", "no number from 0 to 32"},
                          {"10.0.0.0/+8", "no number"},
                          {"10.0.0.0/8 ", "no number"},
                          {"fd00::/129", "no number from 0 to 128"},
                          {"fd00::1/64", "bits set behind the first 64"},
                          {"::ffff:10.0.0.0/104", "is written as one"},
                          {"example.org", "does not begin with"},
                          {"", "does not begin with"},
                          {"/8", "does not begin with"},
                          {"10.0.0/8", "does not begin with"}}) {
        const auto network = IpNetwork::parse(c.text);
        ASSERT_FALSE(network.has_value()) << c.text;
        EXPECT_TRUE(network.error().message.contains(c.says)) << network.error().message;
    }
}

}  // namespace
}  // namespace gemel
