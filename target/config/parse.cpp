// SPDX-License-Identifier: Apache-2.0
// From the text of a configuration to a Config: one function per table. The rules between tables are in check.cpp.

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "target/config/config.hpp"
#include "target/config/table_reader.hpp"
#include "target/config/value_syntax.hpp"

namespace gemel::config {

namespace {

constexpr std::uint64_t kMaxBytes = 1ULL << 50;

constexpr std::array kMemberKinds{
    Choice<MemberKind>{"file", MemberKind::kFile},
    Choice<MemberKind>{"block", MemberKind::kBlock},
    Choice<MemberKind>{"memory", MemberKind::kMemory},
};
constexpr std::array kWriteCaches{
    Choice<WriteCache>{"volatile", WriteCache::kVolatile},
    Choice<WriteCache>{"none", WriteCache::kNone},
};
constexpr std::array kJournals{
    Choice<Journal>{"resync", Journal::kResync},
    Choice<Journal>{"journal", Journal::kJournal},
    Choice<Journal>{"redo", Journal::kRedo},
    Choice<Journal>{"ppl", Journal::kPpl},
};
constexpr std::array kChapAlgorithms{
    Choice<ChapAlgorithm>{"md5", ChapAlgorithm::kMd5},
    Choice<ChapAlgorithm>{"sha1", ChapAlgorithm::kSha1},
    Choice<ChapAlgorithm>{"sha256", ChapAlgorithm::kSha256},
    Choice<ChapAlgorithm>{"sha3-256", ChapAlgorithm::kSha3_256},
};
constexpr std::array kAlertSeverities{
    Choice<AlertSeverity>{"info", AlertSeverity::kInfo},
    Choice<AlertSeverity>{"warning", AlertSeverity::kWarning},
    Choice<AlertSeverity>{"error", AlertSeverity::kError},
};
constexpr std::array kPeerLossPolicies{
    Choice<OnPeerLoss>{"continue", OnPeerLoss::kContinue},
    Choice<OnPeerLoss>{"freeze", OnPeerLoss::kFreeze},
};

void read_name(TableReader& table, std::string_view key, std::string& to) {
    table.text(key, to, Presence::kRequired);
    if (to.empty()) {
        return;
    }
    if (const auto why = why_bad_name(to)) {
        table.mistake(key, *why);
    }
}

void read_address(TableReader& table, std::string_view key, std::string& to, Presence presence) {
    table.text(key, to, presence);
    if (to.empty()) {
        return;
    }
    if (const auto address = parse_address(to); !address) {
        table.mistake(key, address.error().message);
    }
}

void read_node(TableReader& table, Node& to) {
    read_name(table, "name", to.name);
}

void read_daemon(TableReader& table, Daemon& to) {
    table.number("io_processors", to.io_processors, 1, 256);
    table.size("memory", to.memory_bytes, 64U << 20, kMaxBytes, Presence::kOptional);
    table.text("admin_socket", to.admin_socket, Presence::kOptional);
    table.flag("insecure_no_auth", to.insecure_no_auth);
}

Portal read_portal(TableReader& table) {
    Portal to;
    read_address(table, "address", to.address, Presence::kRequired);
    to.place = table.place("address");
    return to;
}

Member read_member(TableReader& table) {
    Member to;
    to.place = table.place();
    table.choice<MemberKind>("kind", to.kind, kMemberKinds);
    if (to.kind == MemberKind::kMemory) {
        table.size("size", to.bytes, 1U << 20, kMaxBytes, Presence::kRequired);
        return to;
    }
    table.text("path", to.path, Presence::kRequired);
    if (to.kind == MemberKind::kFile) {
        table.size("size", to.bytes, 1U << 20, kMaxBytes, Presence::kOptional);
    }
    if (to.bytes % 4096 != 0) {
        table.mistake("size", fmt::format("'size' is {} bytes; expected a multiple of 4096", to.bytes));
    }
    return to;
}

Array read_array(TableReader& table) {
    Array to;
    to.place = table.place();
    read_name(table, "name", to.name);
    table.word("level", to.level, Presence::kRequired);
    if (to.level.starts_with("raid")) {
        to.level.erase(0, 4);
    }
    table.size("strip", to.strip_bytes, 4U << 10, 1U << 20);
    if ((to.strip_bytes & (to.strip_bytes - 1)) != 0) {
        table.mistake("strip",
                      fmt::format("'strip' is {} bytes; expected a power of two from 4 KiB to 1 MiB", to.strip_bytes));
    }
    table.choice<Journal>("journal", to.journal, kJournals);
    table.flag("checksums", to.checksums);
    table.size("checksum_cache", to.checksum_cache_bytes, 1U << 20, 64ULL << 30, Presence::kOptional);
    table.size("stripe_cache", to.stripe_cache_bytes, 0, 4ULL << 30, Presence::kOptional);
    table.flag("create", to.create);
    table.flag("thin", to.thin);
    table.number("thin_soft_threshold", to.thin_soft_threshold, 1, 99);
    table.duration("member_timeout", to.member_timeout, std::chrono::milliseconds(100), std::chrono::minutes(10));
    table.tables("members", Presence::kRequired,
                 [&](TableReader& member) { to.members.push_back(read_member(member)); });
    table.tables("spares", Presence::kOptional, [&](TableReader& spare) { to.spares.push_back(read_member(spare)); });
    return to;
}

Volume read_volume(TableReader& table) {
    Volume to;
    to.place = table.place("name");
    to.array_place = table.place("array");
    read_name(table, "name", to.name);
    table.text("array", to.array, Presence::kRequired);
    table.size("size", to.bytes, 4096, kMaxBytes, Presence::kOptional);
    if (to.bytes % 4096 != 0) {
        table.mistake("size", fmt::format("'size' is {} bytes; expected a multiple of 4096", to.bytes));
    }
    return to;
}

Lun read_lun(TableReader& table) {
    Lun to;
    to.place = table.place("lun");
    to.volume_place = table.place("volume");
    // Flat addressing has 14 bits (SAM-5 4.7.7.4); every initiator can name these.
    table.number("lun", to.lun, 0, 16383, Presence::kRequired);
    table.text("volume", to.volume, Presence::kRequired);
    table.number("block_size", to.block_bytes, 512, 4096);
    if (to.block_bytes != 512 && to.block_bytes != 4096) {
        table.mistake("block_size", fmt::format("'block_size' is {}; expected 512 or 4096", to.block_bytes));
    }
    table.choice<WriteCache>("write_cache", to.write_cache, kWriteCaches);
    table.flag("read_only", to.read_only);
    table.flag("thin", to.thin);
    table.flag("removable", to.removable);
    table.initiator_patterns("initiators", to.initiators);
    table.initiator_patterns("read_only_for", to.read_only_for);
    return to;
}

void read_gate(TableReader& table, ChapGate& to) {
    table.texts("chap_users", to.users);
    table.text("chap_own", to.own, Presence::kOptional);
    to.users_place = table.place("chap_users");
    to.own_place = table.place("chap_own");
}

Target read_target(TableReader& table) {
    Target to;
    to.place = table.place("iqn");
    table.text("iqn", to.iqn, Presence::kRequired);
    if (!to.iqn.empty()) {
        if (const auto why = why_bad_iscsi_name(to.iqn)) {
            table.mistake("iqn", *why);
        }
    }
    table.text("alias", to.alias, Presence::kOptional);
    table.tables("luns", Presence::kOptional, [&](TableReader& lun) { to.luns.push_back(read_lun(lun)); });
    table.initiator_patterns("allowed_initiators", to.allowed_initiators);
    std::vector<std::string> networks;
    table.texts("allowed_networks", networks);
    for (const std::string& text : networks) {
        if (const auto network = IpNetwork::parse(text)) {
            to.allowed_networks.push_back(*network);
        } else {
            table.mistake("allowed_networks", network.error().message);
        }
    }
    read_gate(table, to.chap);
    return to;
}

void read_chap(TableReader& table, Chap& to) {
    table.text("secrets", to.secrets, Presence::kRequired);
    table.choice<ChapAlgorithm>("weakest_algorithm", to.weakest, kChapAlgorithms);
}

void read_replication(TableReader& table, Replication& to) {
    to.place = table.place();
    read_address(table, "listen", to.listen, Presence::kRequired);
    table.number("tries", to.tries, 1, 100);
    table.duration("ack_timeout", to.ack_timeout, std::chrono::milliseconds(100), std::chrono::seconds(60));
    table.size("frame_size", to.frame_bytes, 4U << 10, 1U << 20);
    if (to.frame_bytes % 4096 != 0) {
        table.mistake("frame_size", fmt::format("'frame_size' is {}; expected a multiple of 4096", to.frame_bytes));
    }
    table.choice<OnPeerLoss>("on_peer_loss", to.on_peer_loss, kPeerLossPolicies);
    table.flag("insecure_no_key", to.insecure_no_key);
}

Peer read_peer(TableReader& table) {
    Peer to;
    to.place = table.place("node");
    read_name(table, "node", to.node);
    table.text("key_file", to.key_file, Presence::kOptional);
    read_address(table, "address", to.address, Presence::kRequired);
    if (const auto address = parse_address(to.address); address && address->port == 0) {
        table.mistake("address", "the address of a peer needs its port; expected the peer's [replication] listen");
    }
    return to;
}

Alert read_alert(TableReader& table) {
    Alert to;
    to.place = table.place("name");
    read_name(table, "name", to.name);
    table.choice<AlertSeverity>("severity", to.severity, kAlertSeverities);
    std::string webhook;
    std::string mail;
    table.texts("exec", to.exec);
    table.text("webhook", webhook, Presence::kOptional);
    table.text("mail", mail, Presence::kOptional);
    table.text("sendmail", to.sendmail, Presence::kOptional);
    to.kind = !mail.empty() ? AlertKind::kMail : !webhook.empty() ? AlertKind::kWebhook : AlertKind::kExec;
    to.interval = to.kind == AlertKind::kMail ? std::chrono::minutes(1) : std::chrono::seconds(1);
    table.duration("interval", to.interval, std::chrono::milliseconds(100), std::chrono::hours(24));
    to.to = mail + webhook;
    if ((to.exec.empty() ? 0 : 1) + (webhook.empty() ? 0 : 1) + (mail.empty() ? 0 : 1) != 1) {
        table.mistake("name", fmt::format("alert '{}' needs exactly one of 'exec', 'webhook' and 'mail'", to.name));
        return to;
    }
    if (!to.exec.empty() && !to.exec.front().starts_with('/')) {
        table.mistake("exec", fmt::format("'{}' is no absolute path of a program", to.exec.front()));
    }
    if (!webhook.empty()) {
        if (const auto why = why_bad_url(webhook)) {
            table.mistake("webhook", *why);
        }
    }
    if (mail.empty() ? to.sendmail != Alert().sendmail : !to.sendmail.starts_with('/')) {
        table.mistake("sendmail", "'sendmail' is the absolute path of the program that sends a 'mail'");
    }
    if (!mail.empty()) {
        if (const auto why = why_bad_mail_address(mail)) {
            table.mistake("mail", *why);
        }
    }
    return to;
}

Config read_config(TableReader& root) {
    Config to;
    root.table("node", [&](TableReader& t) { read_node(t, to.node); });
    root.table("daemon", [&](TableReader& t) { read_daemon(t, to.daemon); });
    root.tables("portal", Presence::kOptional, [&](TableReader& t) { to.portals.push_back(read_portal(t)); });
    root.tables("array", Presence::kOptional, [&](TableReader& t) { to.arrays.push_back(read_array(t)); });
    root.tables("volume", Presence::kOptional, [&](TableReader& t) { to.volumes.push_back(read_volume(t)); });
    root.tables("target", Presence::kOptional, [&](TableReader& t) { to.targets.push_back(read_target(t)); });
    root.table("chap", [&](TableReader& t) { read_chap(t, to.chap); });
    root.table("discovery", [&](TableReader& t) { read_gate(t, to.discovery); });
    root.table("replication", [&](TableReader& t) { read_replication(t, to.replication); });
    root.tables("peer", Presence::kOptional, [&](TableReader& t) { to.peers.push_back(read_peer(t)); });
    root.tables("alert", Presence::kOptional, [&](TableReader& t) { to.alerts.push_back(read_alert(t)); });
    root.finish();
    return to;
}

}  // namespace

std::vector<std::string> array_names(std::string_view toml_text) {
    std::vector<std::string> out;
    const toml::parse_result document = toml::parse(toml_text);
    const toml::array* arrays = document ? document.table()["array"].as_array() : nullptr;
    for (std::size_t i = 0; arrays != nullptr && i < arrays->size(); ++i) {
        const toml::table* array = arrays->get(i)->as_table();
        const auto name = array != nullptr ? (*array)["name"].value<std::string>() : std::nullopt;
        if (name) {
            out.push_back(*name);
        }
    }
    return out;
}

std::expected<Config, std::vector<Mistake>> parse(std::string_view toml_text, std::span<const LevelRule> levels) {
    const toml::parse_result document = toml::parse(toml_text);
    if (!document) {
        const toml::source_position at = document.error().source().begin;
        return std::unexpected(std::vector<Mistake>{
            {{at.line, at.column}, fmt::format("this is not TOML: {}", document.error().description())}});
    }
    std::vector<Mistake> mistakes;
    TableReader root(document.table(), "the file", {1, 1}, mistakes);
    Config config = read_config(root);
    std::ranges::move(check(config, levels), std::back_inserter(mistakes));
    if (mistakes.empty()) {
        return config;
    }
    std::ranges::sort(mistakes, {},
                      [](const Mistake& m) { return std::tuple(m.place.line, m.place.column, m.message); });
    return std::unexpected(std::move(mistakes));
}

std::string render(std::span<const Mistake> mistakes, std::string_view file) {
    std::string out;
    for (const Mistake& m : mistakes) {
        out += m.place.line == 0 ? fmt::format("{}: error: {}\n", file, m.message)
                                 : fmt::format("{}:{}:{}: error: {}\n", file, m.place.line, m.place.column, m.message);
    }
    return out;
}

}  // namespace gemel::config
