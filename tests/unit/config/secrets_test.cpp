// SPDX-License-Identifier: Apache-2.0
// The secrets file: what it may say, what is refused, and that no message quotes a secret.
#include "target/config/secrets.hpp"

#include <gtest/gtest.h>

namespace gemel::config {
namespace {

constexpr std::string_view kGood = R"([[user]]
name = "host-a"
secret = "hush-hush-hush-1"
initiators = ["iqn.2026-11.org.Example:a*"]

[[user]]
name = "0x00"
secret = "hush-hush-hush-2"

[[own]]
name = "gemel"
secret = "hush-hush-hush-3"
)";

TEST(Secrets, AGoodFileGivesNamesAndSecretsOfBothDirections) {
    const auto parsed = parse_secrets(kGood);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "test");
    ASSERT_EQ(parsed->users.size(), 2U);
    EXPECT_EQ(parsed->users[0].name, "host-a");
    EXPECT_EQ(parsed->users[0].secret, "hush-hush-hush-1");
    EXPECT_EQ(parsed->users[0].initiators, std::vector<std::string>{"iqn.2026-11.org.example:a*"});
    EXPECT_EQ(parsed->users[1].name, "0x00");
    ASSERT_EQ(parsed->own.size(), 1U);
    EXPECT_EQ(parsed->own[0].secret, "hush-hush-hush-3");
    EXPECT_TRUE(parse_secrets("").has_value());
}

TEST(Secrets, EachMistakeIsReportedWithItsPlaceAndQuotesNoSecret) {
    struct Case {
        std::string_view from;
        std::string_view to;
        std::uint32_t line;
        std::string_view says;
    };
    const std::string long_one = "\"" + std::string(256, 'h') + "\"";
    const Case cases[] = {
        {"\"hush-hush-hush-1\"", "\"hush-hush-h\"", 3, "'secret' has 11 bytes; expected 12 to 255"},
        {"\"hush-hush-hush-1\"", long_one, 3, "'secret' has 256 bytes"},
        {"\"hush-hush-hush-1\"", "\"hush-hush\\n-hush-1\"", 3, "control characters"},
        {"\"hush-hush-hush-1\"", "\"\"", 3, "'secret' is empty"},
        {"\"hush-hush-hush-1\"", "[\"hush-hush-hush-1\"]", 3, "'secret' is an array"},
        {"\"hush-hush-hush-1\"", "\"hush-hush-hush-3\"", 11, "[[own]] 'gemel' has the secret of [[user]] 'host-a'"},
        {"\"hush-hush-hush-1\"", "\"hush-hush-hush-1", 3, "this is not TOML"},
        {"secret = \"hush-hush-hush-2\"\n", "", 6, "[[user]] has no 'secret'"},
        {"\"0x00\"", "\"host-a\"", 7, "[[user]] 'host-a' is there twice; the first is in line 2"},
        {"\"host-a\"", "\"host\\u0001a\"", 2, "control characters"},
        {"org.Example:a*", "org example", 4, "may not have"},
        {"[\"iqn.2026-11.org.Example:a*\"]", "[]", 4, "is an empty list"},
        {"[[own]]", "[[ownn]]", 10, "unknown key 'ownn' in the secrets file, did you mean 'own'?"},
    };
    for (const Case& c : cases) {
        std::string text(kGood);
        const std::size_t at = text.find(c.from);
        ASSERT_NE(at, std::string::npos) << c.from;
        text.replace(at, c.from.size(), c.to);
        const auto parsed = parse_secrets(text);
        ASSERT_FALSE(parsed.has_value()) << c.says;
        bool found = false;
        for (const Mistake& m : parsed.error()) {
            found |= m.place.line == c.line && m.message.contains(c.says);
            EXPECT_FALSE(m.message.contains("hush")) << m.message;
            EXPECT_FALSE(m.message.contains("hhhh")) << m.message;
        }
        EXPECT_TRUE(found) << c.line << " " << c.says << "\ngot\n" << render(parsed.error(), "test");
    }
}

TEST(Secrets, EveryNameThatTheConfigurationUsesIsThere) {
    const Secrets secrets = *parse_secrets(kGood);
    Config config;
    config.targets.emplace_back().chap = {{"host-a", "0x00"}, "gemel", {5, 1}, {6, 1}};
    EXPECT_TRUE(check_secrets(config, secrets).empty());
    config.targets[0].chap.users.emplace_back("host-b");
    config.discovery = {{"gemel"}, "host-a", {9, 1}, {10, 1}};
    const std::vector<Mistake> mistakes = check_secrets(config, secrets);
    ASSERT_EQ(mistakes.size(), 3U);
    EXPECT_EQ(mistakes[0].place.line, 5U);
    EXPECT_TRUE(mistakes[0].message.contains("'host-b' of chap_users"));
    EXPECT_EQ(mistakes[1].place.line, 9U);
    EXPECT_TRUE(mistakes[1].message.contains("'gemel' of chap_users"));
    EXPECT_EQ(mistakes[2].place.line, 10U);
    EXPECT_TRUE(mistakes[2].message.contains("chap_own 'host-a'"));
}

}  // namespace
}  // namespace gemel::config
