// SPDX-License-Identifier: Apache-2.0
// The configuration file: what a good one gives, and each mistake with its place and what was expected.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "target/config/config.hpp"

namespace gemel::config {
namespace {

const std::array kLevels{LevelRule{"0", 1, 32}, LevelRule{"1", 2, 32}, LevelRule{"5", 3, 32}};

constexpr std::string_view kGood = R"([node]
name = "alpha"

[daemon]
io_processors = 2
memory = "1GiB"

[[portal]]
address = "127.0.0.1:3261"

[[array]]
name = "r5"
level = 5
strip = "16KiB"
create = true
members = [
  {path = "m0", size = "64MiB"},
  {kind = "file", path = "m1", size = 67108864},
  {kind = "block", path = "/dev/sdx"},
]

[[volume]]
name = "vol1"
array = "r5"
size = "100MiB"

[[target]]
iqn = "iqn.2026-11.dev.gemel:a"
luns = [{lun = 3, volume = "vol1", block_size = 4096, write_cache = "none", read_only = true}]
allowed_initiators = ["iqn.2026-11.dev.gemel:host1", "iqn.2001-04.com.example:*"]

[replication]
listen = "127.0.0.1:7261"
tries = 2
ack_timeout = "1500ms"
frame_size = "64KiB"
on_peer_loss = "freeze"

[[peer]]
node = "beta"
address = "127.0.0.1:7262"
key_file = "beta.key"

[[alert]]
name = "pager"
severity = "error"
exec = ["/usr/local/bin/page", "--now"]
interval = "5s"

[[alert]]
name = "chat"
webhook = "https://chat.example.org/hook"

[[alert]]
name = "mail"
mail = "ops@example.org"
)";

TEST(ConfigParse, AGoodFileGivesEveryValueThatItStates) {
    const auto parsed = parse(kGood, kLevels);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "good");
    const Config& c = *parsed;
    EXPECT_EQ(c.node.name, "alpha");
    EXPECT_EQ(c.daemon.io_processors, 2U);
    EXPECT_EQ(c.daemon.memory_bytes, 1ULL << 30);
    ASSERT_EQ(c.portals.size(), 1U);
    EXPECT_EQ(c.portals[0].address, "127.0.0.1:3261");
    ASSERT_EQ(c.arrays.size(), 1U);
    EXPECT_EQ(c.arrays[0].level, "5");
    EXPECT_EQ(c.arrays[0].strip_bytes, 16U << 10);
    EXPECT_EQ(c.arrays[0].journal, Journal::kJournal) << "the default";
    EXPECT_TRUE(c.arrays[0].create);
    ASSERT_EQ(c.arrays[0].members.size(), 3U);
    EXPECT_EQ(c.arrays[0].members[0].kind, MemberKind::kFile);
    EXPECT_EQ(c.arrays[0].members[1].bytes, 64ULL << 20);
    EXPECT_EQ(c.arrays[0].members[2].kind, MemberKind::kBlock);
    EXPECT_FALSE(c.arrays[0].in_memory());
    ASSERT_EQ(c.volumes.size(), 1U);
    EXPECT_EQ(c.volumes[0].bytes, 100ULL << 20);
    ASSERT_EQ(c.targets.size(), 1U);
    const Lun& lun = c.targets[0].luns.at(0);
    EXPECT_EQ(lun.lun, 3U);
    EXPECT_EQ(lun.block_bytes, 4096U);
    EXPECT_EQ(lun.write_cache, WriteCache::kNone);
    EXPECT_TRUE(lun.read_only);
    EXPECT_EQ(c.targets[0].allowed_initiators.size(), 2U);
    EXPECT_EQ(c.replication.listen, "127.0.0.1:7261");
    EXPECT_EQ(c.replication.tries, 2U);
    EXPECT_EQ(c.replication.ack_timeout, std::chrono::milliseconds(1500));
    EXPECT_EQ(c.replication.frame_bytes, 64U << 10);
    EXPECT_EQ(c.replication.on_peer_loss, OnPeerLoss::kFreeze);
    ASSERT_EQ(c.peers.size(), 1U);
    EXPECT_EQ(c.peers[0].node, "beta");
    EXPECT_EQ(c.peers[0].key_file, "beta.key");
    ASSERT_EQ(c.alerts.size(), 3U);
    EXPECT_EQ(c.alerts[0].severity, AlertSeverity::kError);
    EXPECT_EQ(c.alerts[0].exec, (std::vector<std::string>{"/usr/local/bin/page", "--now"}));
    EXPECT_EQ(c.alerts[0].interval, std::chrono::seconds(5));
    EXPECT_EQ(c.alerts[1].kind, AlertKind::kWebhook);
    EXPECT_EQ(c.alerts[1].severity, AlertSeverity::kWarning);
    EXPECT_EQ(c.alerts[2].kind, AlertKind::kMail);
    EXPECT_EQ(c.alerts[2].to, "ops@example.org");
    EXPECT_EQ(c.alerts[2].interval, std::chrono::minutes(1));
}

TEST(ConfigParse, DefaultsAreTheDocumentedOnes) {
    const auto parsed = parse("", kLevels);
    ASSERT_TRUE(parsed.has_value());
    EXPECT_EQ(parsed->daemon.io_processors, 0U);
    EXPECT_EQ(parsed->daemon.memory_bytes, 512ULL << 20);
    EXPECT_EQ(parsed->replication.tries, 3U);
    EXPECT_EQ(parsed->replication.ack_timeout, std::chrono::seconds(2));
    EXPECT_EQ(parsed->replication.on_peer_loss, OnPeerLoss::kContinue);
}

TEST(ConfigParse, AnArrayCanDoWithoutAJournal) {
    std::string text(kGood);
    text.replace(text.find("create = true"), 13, "journal = \"resync\"");
    const auto parsed = parse(text, kLevels);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "test");
    EXPECT_EQ(parsed->arrays[0].journal, Journal::kResync);
}

TEST(ConfigParse, AnArrayCanDoWithoutChecksumsOrKeepMoreOfThemInMemory) {
    const auto usual = parse(kGood, kLevels);
    ASSERT_TRUE(usual.has_value());
    EXPECT_EQ(usual->arrays[0].checksums, std::nullopt);
    std::string text(kGood);
    text.replace(text.find("create = true"), 13, "checksums = false\nchecksum_cache = \"1GiB\"\nstripe_cache = 0");
    const auto parsed = parse(text, kLevels);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "test");
    EXPECT_EQ(parsed->arrays[0].checksums, false);
    EXPECT_EQ(parsed->arrays[0].checksum_cache_bytes, 1ULL << 30);
    EXPECT_EQ(parsed->arrays[0].stripe_cache_bytes, 0U);
}

/// A change of the good file, and where and how it must be reported.
struct Case {
    std::string_view what;
    std::string_view from;
    std::string_view to;
    std::uint32_t line;
    std::uint32_t column;
    std::string_view says;  ///< part of the message
};

std::string changed(const Case& c) {
    std::string text(kGood);
    const std::size_t at = text.find(c.from);
    EXPECT_NE(at, std::string::npos) << c.what;
    return text.replace(at, c.from.size(), c.to);
}

constexpr std::array kMistakes{
    Case{"misspelt key", "strip =", "stripe =", 14, 1, "unknown key 'stripe' in [[array]], did you mean 'strip'?"},
    Case{"unknown key", "tries = 2", "colour = 2", 34, 1,
         "expected one of: ack_timeout, frame_size, insecure_no_key, listen"},
    Case{"unknown table", "[daemon]", "[demon]", 4, 2, "did you mean 'daemon'?"},
    Case{"wrong kind", "io_processors = 2", "io_processors = \"two\"", 5, 17,
         "'io_processors' is a string; expected a whole number from 1 to 256"},
    Case{"out of range", "io_processors = 2", "io_processors = 0", 5, 17, "expected a whole number from 1 to 256"},
    Case{"negative", "io_processors = 2", "io_processors = -1", 5, 17, "'io_processors' is -1"},
    Case{"single table for many", "[[array]]", "[array]", 11, 1,
         "'array' is a table; expected tables, written [[array]]"},
    Case{"many tables for one", "[node]", "[[node]]", 1, 1, "expected one table, written [node]"},
    Case{"bad size", "\"16KiB\"", "\"16 quux\"", 14, 9, "'16 quux' is not a size"},
    Case{"strip no power of two", "\"16KiB\"", "\"24KiB\"", 14, 9, "expected a power of two from 4 KiB to 1 MiB"},
    Case{"strip too small", "\"16KiB\"", "2048", 14, 9, "'strip' is 2 KiB; expected 4 KiB to 1 MiB"},
    Case{"partial parity of a mirror", "level = 5", "level = 1\njournal = \"ppl\"", 11, 1,
         "array 'r5' of level 1 has journal = \"ppl\", which is for level 5"},
    Case{"unknown level", "level = 5", "level = \"raid7\"", 11, 1,
         "unknown level '7'; expected \"0\" or \"1\" or \"5\""},
    Case{"too few members", "  {kind = \"block\", path = \"/dev/sdx\"},\n", "", 11, 1,
         "array 'r5' has 2 members; level 5 takes 3 to 32"},
    Case{"member twice", "path = \"m1\"", "path = \"./m0\"", 18, 3, "'./m0' of array 'r5' is already a member"},
    Case{"mixed with memory", "{path = \"m0\", size", "{kind = \"memory\", size", 18, 3, "mixes memory members"},
    Case{"no size to create", ", size = 67108864", "", 18, 3, "has no 'size'; expected how large the file is"},
    Case{"size not of blocks", "67108864", "67108865", 18, 39, "expected a multiple of 4096"},
    Case{"unknown kind", "kind = \"block\"", "kind = \"blok\"", 19, 11, "did you mean \"block\"?"},
    Case{"no name", "name = \"vol1\"\n", "", 22, 1, "[[volume]] has no 'name'; expected a string"},
    Case{"bad name", "\"vol1\"", "\"a/b\"", 23, 8, "'a/b' cannot be a name"},
    Case{"unknown array", "array = \"r5\"", "array = \"r6\"", 24, 9, "which is not in this file, did you mean 'r5'?"},
    Case{"unknown volume", "volume = \"vol1\"", "volume = \"vol2\"", 29, 28, "did you mean 'vol1'?"},
    Case{"bad iqn", "iqn.2026-11.dev.gemel:a", "iqn.2026-13.dev.gemel:a", 28, 7, "is not an iqn"},
    Case{"upper case iqn", "dev.gemel:a", "dev.Gemel:a", 28, 7, "lower case"},
    Case{"bad initiator", "dev.gemel:host1", "dev gemel:host1", 30, 22, "may not have"},
    Case{"block size", "block_size = 4096", "block_size = 1024", 29, 49, "expected 512 or 4096"},
    Case{"lun too high", "lun = 3", "lun = 16384", 29, 16, "expected a whole number from 0 to 16383"},
    Case{"write cache", "\"none\"", "\"non\"", 29, 69, "did you mean \"none\"?"},
    Case{"bad address", "127.0.0.1:3261", "127.0.0.1", 9, 11, "the port is missing"},
    Case{"bad port", "127.0.0.1:3261", "127.0.0.1:70000", 9, 11, "not a number from 0 to 65535"},
    Case{"peer without port", "127.0.0.1:7262", "127.0.0.1:0", 41, 11, "the address of a peer needs its port"},
    Case{"peer is this node", "node = \"beta\"", "node = \"alpha\"", 40, 8, "has the name of this node"},
    Case{"node without name", "name = \"alpha\"", "", 1, 1, "[node] has no 'name'"},
    Case{"two ways", "mail = \"ops@", "webhook = \"http://a/\"\nmail = \"ops@", 55, 8, "exactly one of 'exec'"},
    Case{"no way", "webhook = \"https://chat.example.org/hook\"", "", 51, 8, "exactly one of 'exec'"},
    Case{"bad program", "/usr/local/bin/page", "page", 47, 8, "no absolute path"},
    Case{"bad web address", "https://chat", "ftp://chat", 52, 11, "is no web address"},
    Case{"bad mail address", "ops@example.org", "ops@example.org, you", 56, 8, "is no mail address"},
    Case{"alert twice", "\"chat\"", "\"pager\"", 51, 8, "is there twice"},
    Case{"bad time", "\"1500ms\"", "\"1500\"", 35, 15, "is not a time"},
    Case{"time out of range", "\"1500ms\"", "\"5ms\"", 35, 15, "expected 100 ms to 60000 ms"},
    Case{"journal", "create = true", "journal = \"journ\"", 15, 11, "did you mean \"journal\"?"},
    Case{"time to answer", "create = true", "create = true\nmember_timeout = \"20ms\"", 16, 18,
         "expected 100 ms to 600000 ms"},
    Case{"small cache", "create = true", "checksum_cache = \"4KiB\"", 15, 18, "expected"},
    Case{"not TOML", "create = true", "create = yes", 15, 10, "this is not TOML"},
    Case{"key twice", "create = true", "create = true\ncreate = true", 16, 10, "this is not TOML"},
};

TEST(ConfigParse, AMemberHas30SecondsToAnswerUnlessItIsSaid) {
    EXPECT_EQ(parse(kGood, kLevels)->arrays[0].member_timeout, std::chrono::seconds(30));
    std::string other(kGood);
    other.replace(other.find("create = true"), 13, "create = true\nmember_timeout = \"45s\"");
    EXPECT_EQ(parse(other, kLevels)->arrays[0].member_timeout, std::chrono::seconds(45));
}

TEST(ConfigParse, EachMistakeIsReportedWithItsPlaceAndWhatWasExpected) {
    for (const Case& c : kMistakes) {
        const auto parsed = parse(changed(c), kLevels);
        ASSERT_FALSE(parsed.has_value()) << c.what;
        bool found = false;
        for (const Mistake& m : parsed.error()) {
            found |=
                m.place.line == c.line && m.place.column == c.column && m.message.find(c.says) != std::string::npos;
        }
        EXPECT_TRUE(found) << c.what << ": expected " << c.line << ":" << c.column << " " << c.says << "\ngot\n"
                           << render(parsed.error(), "test");
    }
}

TEST(ConfigParse, AllMistakesAreReportedAtOnceInTheOrderOfTheFile) {
    std::string text(kGood);
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"io_processors", "io_procesors"}, {"strip = \"16KiB\"", "strip = 5000"}, {"tries = 2", "tries = 0"}}) {
        text.replace(text.find(from), from.size(), to);
    }
    const auto parsed = parse(text, kLevels);
    ASSERT_FALSE(parsed.has_value());
    ASSERT_EQ(parsed.error().size(), 3U) << render(parsed.error(), "test");
    EXPECT_EQ(parsed.error()[0].place.line, 5U);
    EXPECT_EQ(parsed.error()[1].place.line, 14U);
    EXPECT_EQ(parsed.error()[2].place.line, 34U);
}

TEST(ConfigParse, DuplicateNamesAreRefusedWithTheLineOfTheFirst) {
    struct Duplicate {
        std::string_view extra;
        std::string_view says;
    };
    for (const Duplicate& d : std::array{
             Duplicate{"[[array]]\nname = \"r5\"\nlevel = 0\nmembers = [{path = \"x\"}]\n",
                       "array 'r5' is there twice; the first is in line 11"},
             Duplicate{"[[volume]]\nname = \"vol1\"\narray = \"r5\"\n", "volume 'vol1' is there twice"},
             Duplicate{"[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\n", "target 'iqn.2026-11.dev.gemel:a' is there"},
             Duplicate{"[[portal]]\naddress = \"127.0.0.1:3261\"\n", "portal '127.0.0.1:3261' is there twice"},
             Duplicate{"[[peer]]\nnode = \"beta\"\naddress = \"127.0.0.1:1\"\n", "peer 'beta' is there twice"},
             Duplicate{"[[array]]\nname = \"other\"\nlevel = 0\nmembers = [{path = \"m1\"}]\n",
                       "'m1' of array 'other' is already a member of array 'r5' in line 18"},
         }) {
        const auto parsed = parse(std::string(kGood) + std::string(d.extra), kLevels);
        ASSERT_FALSE(parsed.has_value()) << d.says;
        EXPECT_NE(render(parsed.error(), "test").find(d.says), std::string::npos) << render(parsed.error(), "test");
    }
}

TEST(ConfigParse, APortalBeyondLoopbackNeedsAllowedInitiatorsOrTheWordInsecure) {
    const std::string open = "[[portal]]\naddress = \"0.0.0.0:3260\"\n[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\n";
    const auto refused = parse(open, kLevels);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error()[0].place.line, 2U);
    EXPECT_NE(refused.error()[0].message.find("insecure_no_auth"), std::string::npos);
    EXPECT_TRUE(parse(open + "[daemon]\ninsecure_no_auth = true\n", kLevels).has_value());
    EXPECT_TRUE(parse(open + "allowed_initiators = [\"iqn.2026-11.dev.gemel:h\"]\n", kLevels).has_value());
}

TEST(ConfigParse, AnyAccessListClosesATargetForThePortalBeyondLoopback) {
    const std::string open = "[[portal]]\naddress = \"[::]:3260\"\n[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\n";
    EXPECT_FALSE(parse(open, kLevels).has_value());
    EXPECT_TRUE(parse(open + "allowed_networks = [\"10.0.0.0/8\"]\n", kLevels).has_value());
    for (const char* nobody :
         {"allowed_initiators = [\"*\"]\n", "allowed_initiators = [\"iqn.2026-11.org.x:h\", \"iqn.*\"]\n",
          "allowed_initiators = [\"**\"]\nallowed_networks = [\"::/0\"]\n", "allowed_networks = [\"0.0.0.0/0\"]\n",
          "allowed_networks = [\"10.0.0.0/8\", \"::/0\"]\n"}) {
        const auto refused = parse(open + nobody, kLevels);
        ASSERT_FALSE(refused.has_value()) << nobody << "keeps nobody out";
        EXPECT_NE(render(refused.error(), "test").find("insecure_no_auth"), std::string::npos);
    }
    for (const char* some : {"allowed_initiators = [\"iqn.2026-11.*\"]\n", "allowed_initiators = [\"*:h\"]\n",
                             "allowed_initiators = [\"*\"]\nallowed_networks = [\"10.0.0.0/8\"]\n",
                             "allowed_initiators = [\"iqn.2026-11.org.x:h\"]\nallowed_networks = [\"::/0\"]\n",
                             "allowed_networks = [\"0.0.0.0/1\"]\n"}) {
        EXPECT_TRUE(parse(open + some, kLevels).has_value()) << some;
    }
    EXPECT_TRUE(parse(open + "allowed_initiators = [\"*\"]\n[daemon]\ninsecure_no_auth = true\n", kLevels).has_value());
    const std::string chap = "chap_users = [\"host\"]\n[chap]\nsecrets = \"s\"\n";
    EXPECT_TRUE(parse(open + chap, kLevels).has_value());
    EXPECT_FALSE(parse(open + chap + "[[target]]\niqn = \"iqn.2026-11.dev.gemel:b\"\n", kLevels).has_value());
}

TEST(ConfigParse, AccessListsAndChapAreWhatTheFileSays) {
    const std::string text =
        "[chap]\nsecrets = \"/etc/gemel/s\"\nweakest_algorithm = \"sha256\"\n"
        "[discovery]\nchap_users = [\"h\"]\n[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\n"
        "allowed_initiators = [\"iqn.2026-11.ORG.example:HOST*\"]\n"
        "allowed_networks = [\"10.0.0.0/8\", \"fd00::7\"]\n"
        "chap_users = [\"h\", \"g\"]\nchap_own = \"t\"\n";
    const auto parsed = parse(text, kLevels);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "test");
    EXPECT_EQ(parsed->chap.secrets, "/etc/gemel/s");
    EXPECT_EQ(parsed->chap.weakest, ChapAlgorithm::kSha256);
    EXPECT_EQ(parsed->discovery.users, std::vector<std::string>{"h"});
    const Target& target = parsed->targets.at(0);
    EXPECT_EQ(target.allowed_initiators, std::vector<std::string>{"iqn.2026-11.org.example:host*"});
    ASSERT_EQ(target.allowed_networks.size(), 2U);
    EXPECT_TRUE(target.allowed_networks[1].contains(*IpAddress::parse("fd00::7")));
    EXPECT_EQ(target.chap.users, (std::vector<std::string>{"h", "g"}));
    EXPECT_EQ(target.chap.own, "t");
    EXPECT_FALSE(target.open());
}

TEST(ConfigParse, ALunNumberMayBeThereTwiceForDifferentInitiatorsOnly) {
    const std::string before =
        "[[array]]\nname = \"a\"\nlevel = 0\nmembers = [{path = \"m\"}]\n[[volume]]\nname = \"v\"\n"
        "array = \"a\"\n[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\nluns = [{lun = 0, volume = \"v\"";
    const std::string one = ", initiators = [\"iqn.2026-11.ORG.example:a\"]";
    const std::string two = "}, {lun = 0, volume = \"v\"";
    const std::string other = ", initiators = [\"iqn.2026-11.org.example:b*\"]";
    const auto parsed = parse(before + one + two + other + "}]\n", kLevels);
    ASSERT_TRUE(parsed.has_value()) << render(parsed.error(), "test");
    EXPECT_EQ(parsed->targets[0].luns[0].initiators, std::vector<std::string>{"iqn.2026-11.org.example:a"});
    const auto reader = parse(before + ", read_only_for = [\"iqn.2026-11.ORG.example:*\"]}]\n", kLevels);
    ASSERT_TRUE(reader.has_value()) << render(reader.error(), "test");
    EXPECT_EQ(reader->targets[0].luns[0].read_only_for, std::vector<std::string>{"iqn.2026-11.org.example:*"});
    for (const std::string& text :
         {before + two + "}]\n", before + one + two + "}]\n", before + two + other + "}]\n"}) {
        const auto refused = parse(text, kLevels);
        ASSERT_FALSE(refused.has_value());
        EXPECT_NE(refused.error()[0].message.find("has LUN 0 twice"), std::string::npos);
    }
}

TEST(ConfigParse, AccessListsThatMeanNothingAreMistakes) {
    struct Case {
        std::string_view keys;
        std::uint32_t line;
        std::string_view says;
    };
    for (const Case& c : std::array{
             Case{"allowed_initiators = []", 3, "'allowed_initiators' is an empty list"},
             Case{"allowed_networks = []", 3, "'allowed_networks' is an empty list"},
             Case{"chap_users = []\n[chap]\nsecrets = \"s\"", 3, "'chap_users' is an empty list"},
             Case{"allowed_networks = [\"10.0.0.1/8\"]", 3, "bits set behind the first 8"},
             Case{"chap_users = [\"h\"]", 3, "expected [chap] with secrets"},
             Case{"chap_own = \"t\"", 3, "chap_own without chap_users"},
             Case{"[discovery]\nchap_users = [\"h\"]", 4, "expected [chap] with secrets"},
             Case{"[chap]\nweakest_algorithm = \"md5\"", 3, "[chap] has no 'secrets'"},
             Case{"[chap]\nsecrets = \"s\"\nweakest_algorithm = \"sha512\"", 5, "did you mean \"sha1\"?"},
         }) {
        const auto parsed =
            parse("[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\n" + std::string(c.keys) + "\n", kLevels);
        ASSERT_FALSE(parsed.has_value()) << c.says;
        EXPECT_EQ(parsed.error()[0].place.line, c.line) << render(parsed.error(), "test");
        EXPECT_NE(parsed.error()[0].message.find(c.says), std::string::npos) << render(parsed.error(), "test");
    }
}

TEST(ConfigCheck, ALinkThatLeavesTheMachineNeedsAKeyForEachPeerOrAWord) {
    const auto with = [](const std::string& replication, const std::string& one, const std::string& two) {
        return parse("[node]\nname = \"a\"\n[replication]\n" + replication + "\n[[peer]]\nnode = \"b\"\n" + one +
                         "\n[[peer]]\nnode = \"c\"\n" + two + "\n",
                     kLevels);
    };
    const std::string near = "listen = \"127.0.0.1:1\"";
    const std::string far = "listen = \"0.0.0.0:1\"";
    const std::string peer = "address = \"127.0.0.1:2\"";
    const std::string other = "address = \"127.0.0.1:3\"";
    const std::string key = "\nkey_file = \"k\"";
    EXPECT_TRUE(with(near, peer, other).has_value());
    EXPECT_TRUE(with(far, peer + key, other + key).has_value());
    EXPECT_TRUE(with(far + "\ninsecure_no_key = true", peer, other).has_value());
    const auto open = with(far, peer, other);
    ASSERT_FALSE(open.has_value());
    EXPECT_NE(open.error().front().message.find("leaves this machine without a key"), std::string::npos);
    EXPECT_FALSE(with(near, "address = \"10.0.0.2:2\"", other).has_value());
    const auto mixed = with(near, peer + key, other);
    ASSERT_FALSE(mixed.has_value());
    EXPECT_NE(mixed.error().front().message.find("peer 'c' has no key_file and another one has"), std::string::npos);
}

TEST(ConfigParse, APeerWithoutReplicationAndReplicationWithoutANodeNameAreRefused) {
    const auto peer = parse("[[peer]]\nnode = \"b\"\naddress = \"127.0.0.1:1\"\n", kLevels);
    ASSERT_FALSE(peer.has_value());
    EXPECT_NE(peer.error()[0].message.find("no [replication]"), std::string::npos);
    const auto unnamed = parse("[replication]\nlisten = \"127.0.0.1:1\"\n", kLevels);
    ASSERT_FALSE(unnamed.has_value());
    EXPECT_NE(unnamed.error()[0].message.find("needs a name"), std::string::npos);
}

TEST(ConfigParse, OneVolumeAtMostMayTakeAllThatIsLeft) {
    const std::string two =
        "[[array]]\nname = \"a\"\nlevel = 0\nmembers = [{kind = \"memory\", size = \"8MiB\"}]\n"
        "[[volume]]\nname = \"x\"\narray = \"a\"\n[[volume]]\nname = \"y\"\narray = \"a\"\n";
    const auto parsed = parse(two, kLevels);
    ASSERT_FALSE(parsed.has_value());
    EXPECT_NE(parsed.error()[0].message.find("all that is left"), std::string::npos);
    EXPECT_TRUE(parse(two + "size = \"1MiB\"\n", kLevels).has_value());
}

TEST(ConfigParse, OneVolumeUnderTwoTargetsNeedsTheSameLunOptions) {
    const std::string two =
        "[[array]]\nname = \"a\"\nlevel = 0\nmembers = [{kind = \"memory\", size = \"8MiB\"}]\n"
        "[[volume]]\nname = \"x\"\narray = \"a\"\n"
        "[[target]]\niqn = \"iqn.2026-11.dev.gemel:a\"\nluns = [{lun = 0, volume = \"x\"}]\n"
        "[[target]]\niqn = \"iqn.2026-11.dev.gemel:b\"\n";
    EXPECT_TRUE(parse(two + "luns = [{lun = 4, volume = \"x\"}]\n", kLevels).has_value());
    const auto parsed = parse(two + "luns = [{lun = 4, volume = \"x\", block_size = 4096}]\n", kLevels);
    ASSERT_FALSE(parsed.has_value());
    EXPECT_NE(parsed.error()[0].message.find("expected the same for one volume"), std::string::npos);
}

TEST(ConfigParse, MistakesAreRenderedAsFileLineColumn) {
    const std::vector<Mistake> mistakes{{{3, 7}, "wrong"}, {{0, 0}, "worse"}};
    EXPECT_EQ(render(mistakes, "a.toml"), "a.toml:3:7: error: wrong\na.toml: error: worse\n");
}

}  // namespace
}  // namespace gemel::config
