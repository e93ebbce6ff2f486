// SPDX-License-Identifier: Apache-2.0
// Sizes, times, addresses, names and the nearest word.
#include "target/config/value_syntax.hpp"

#include <gtest/gtest.h>

#include <array>

namespace gemel::config {
namespace {

TEST(ValueSyntax, SizesAreWholeNumbersWithAUnit) {
    struct Case {
        std::string_view text;
        std::uint64_t bytes;
    };
    for (const Case& c : std::array{Case{"0", 0}, Case{"4096", 4096}, Case{"1B", 1}, Case{"64KiB", 65536},
                                    Case{"64 KiB", 65536}, Case{"512MiB", 512ULL << 20}, Case{"1TiB", 1ULL << 40},
                                    Case{"2G", 2ULL << 30}, Case{"10GB", 10'000'000'000ULL}}) {
        const auto size = parse_size(c.text);
        ASSERT_TRUE(size.has_value()) << c.text;
        EXPECT_EQ(*size, c.bytes) << c.text;
    }
    for (const std::string_view bad :
         {"", "MiB", "1.5GiB", "-1", "1 Mib", "12x", "99999999999999999999", "99999999999TiB", " 1", "1MiB "}) {
        EXPECT_FALSE(parse_size(bad).has_value()) << bad;
    }
}

TEST(ValueSyntax, TimesNeedAUnit) {
    EXPECT_EQ(parse_duration("250ms").value(), std::chrono::milliseconds(250));
    EXPECT_EQ(parse_duration("2 s").value(), std::chrono::seconds(2));
    EXPECT_EQ(parse_duration("1min").value(), std::chrono::minutes(1));
    for (const std::string_view bad : {"", "2", "2h", "-1s", "999999999999s"}) {
        EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
    }
}

TEST(ValueSyntax, SizesForPeopleKeepOneDecimalOnlyWhereNeeded) {
    EXPECT_EQ(format_size(0), "0 B");
    EXPECT_EQ(format_size(100), "100 B");
    EXPECT_EQ(format_size(512ULL << 20), "512 MiB");
    EXPECT_EQ(format_size(1536ULL << 20), "1.5 GiB");
    EXPECT_EQ(format_size((1ULL << 30) + 1), "1.0 GiB");
}

TEST(ValueSyntax, AddressesAreHostAndPort) {
    EXPECT_EQ(parse_address("[::1]:3260").value().host, "::1");
    EXPECT_EQ(parse_address("storage.example:0").value().port, 0);
    for (const std::string_view bad :
         {"", ":1", "host", "host:", "host:x", "host:65536", "::1:3260", "a b:1", "h:1x"}) {
        EXPECT_FALSE(parse_address(bad).has_value()) << bad;
    }
}

TEST(ValueSyntax, IscsiNamesFollowTheirThreeForms) {
    for (const std::string_view good : {"iqn.2026-11.dev.gemel:ram", "iqn.1998-01.x", "eui.02004567a425678d",
                                        "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef"}) {
        EXPECT_FALSE(why_bad_iscsi_name(good).has_value()) << good;
    }
    for (const std::string_view bad :
         {"", "iqn", "iqn.2026-00.dev", "iqn.2026-11", "iqn.2026-11.", "iqn.26-11.dev.x", "eui.12", "naa.xyz",
          "foo:bar", "iqn.2026-11.dev.a_b", "iqn.2026-11.dev.gemel:*"}) {
        EXPECT_TRUE(why_bad_iscsi_name(bad).has_value()) << bad;
    }
    EXPECT_TRUE(why_bad_iscsi_name("iqn.2026-11.dev." + std::string(220, 'a')).has_value());
    EXPECT_FALSE(why_bad_initiator_pattern("iqn.2026-11.dev.*").has_value());
    EXPECT_FALSE(why_bad_initiator_pattern("*").has_value());
    EXPECT_TRUE(why_bad_initiator_pattern("IQN*").has_value());
}

TEST(ValueSyntax, TheNearestWordIsOfferedOnlyWhenItIsNear) {
    constexpr std::array<std::string_view, 3> kKnown{"address", "strip", "lun"};
    EXPECT_EQ(did_you_mean("adress", kKnown), "address");
    EXPECT_EQ(did_you_mean("stirp", kKnown), "strip");
    EXPECT_EQ(did_you_mean("luns", kKnown), "lun");
    EXPECT_FALSE(did_you_mean("colour", kKnown).has_value());
    EXPECT_FALSE(did_you_mean("xyz", kKnown).has_value());
}

}  // namespace
}  // namespace gemel::config
