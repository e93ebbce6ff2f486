// SPDX-License-Identifier: Apache-2.0
#include "target/config/secrets.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "target/config/table_reader.hpp"
#include "target/config/value_syntax.hpp"

namespace gemel::config {

namespace {

constexpr std::size_t kLeastBytes = 12;  // RFC 7143 §9.2.1: 96 bits
constexpr std::size_t kMostBytes = 255;

bool is_control(char c) {
    return static_cast<unsigned char>(c) < ' ' || c == '\x7f';
}

void read_identity(TableReader& table, std::string& name, std::string& secret) {
    table.text("name", name, Presence::kRequired);
    if (name.size() > kMostBytes || std::ranges::any_of(name, is_control)) {
        table.mistake("name", "'name' has control characters or more than 255 bytes");
    }
    table.text("secret", secret, Presence::kRequired);
    if (!secret.empty() && (secret.size() < kLeastBytes || secret.size() > kMostBytes)) {
        table.mistake("secret", fmt::format("'secret' has {} bytes; expected {} to {}, best 16 or more random ones",
                                            secret.size(), kLeastBytes, kMostBytes));
    }
    if (std::ranges::any_of(secret, is_control)) {
        table.mistake("secret", "'secret' has control characters in it; expected printable text");
    }
}

template <class Row>
void check_names(const std::vector<Row>& rows, std::string_view what, std::vector<Mistake>& mistakes) {
    for (auto row = rows.begin(); row != rows.end(); ++row) {
        const auto first = std::find_if(rows.begin(), row, [&](const Row& r) { return r.name == row->name; });
        if (first != row && !row->name.empty()) {
            mistakes.push_back({row->place, fmt::format("[[{}]] '{}' is there twice; the first is in line {}", what,
                                                        row->name, first->place.line)});
        }
    }
}

/// SE2.
void check_directions(const Secrets& secrets, std::vector<Mistake>& mistakes) {
    for (const Secrets::Own& own : secrets.own) {
        const auto user = std::ranges::find(secrets.users, own.secret, &Secrets::User::secret);
        if (user != secrets.users.end() && !own.secret.empty()) {
            mistakes.push_back({own.place, fmt::format("[[own]] '{}' has the secret of [[user]] '{}'; expected another "
                                                       "one: each of them could pose as the other",
                                                       own.name, user->name)});
        }
    }
}

void check_gate(const ChapGate& gate, const Secrets& secrets, std::vector<Mistake>& mistakes) {
    for (const std::string& name : gate.users) {
        if (std::ranges::find(secrets.users, name, &Secrets::User::name) == secrets.users.end()) {
            mistakes.push_back(
                {gate.users_place, fmt::format("'{}' of chap_users is no [[user]] of the secrets file", name)});
        }
    }
    if (!gate.own.empty() && std::ranges::find(secrets.own, gate.own, &Secrets::Own::name) == secrets.own.end()) {
        mistakes.push_back({gate.own_place, fmt::format("chap_own '{}' is no [[own]] of the secrets file", gate.own)});
    }
}

}  // namespace

std::expected<Secrets, std::vector<Mistake>> parse_secrets(std::string_view toml_text) {
    const toml::parse_result document = toml::parse(toml_text);
    if (!document) {
        // What the parser says may quote the file (SE1).
        const toml::source_position at = document.error().source().begin;
        return std::unexpected(std::vector<Mistake>{
            {{at.line, at.column}, "this is not TOML; expected [[user]] and [[own]] tables with name and secret"}});
    }
    std::vector<Mistake> mistakes;
    Secrets out;
    TableReader root(document.table(), "the secrets file", {1, 1}, mistakes);
    root.tables("user", Presence::kOptional, [&](TableReader& table) {
        Secrets::User& user = out.users.emplace_back();
        user.place = table.place("name");
        read_identity(table, user.name, user.secret);
        table.initiator_patterns("initiators", user.initiators);
    });
    root.tables("own", Presence::kOptional, [&](TableReader& table) {
        Secrets::Own& own = out.own.emplace_back();
        own.place = table.place("name");
        read_identity(table, own.name, own.secret);
    });
    root.finish();
    check_names(out.users, "user", mistakes);
    check_names(out.own, "own", mistakes);
    check_directions(out, mistakes);
    if (mistakes.empty()) {
        return out;
    }
    std::ranges::sort(mistakes, {},
                      [](const Mistake& m) { return std::tuple(m.place.line, m.place.column, m.message); });
    return std::unexpected(std::move(mistakes));
}

std::vector<Mistake> check_secrets(const Config& config, const Secrets& secrets) {
    std::vector<Mistake> mistakes;
    for (const Target& target : config.targets) {
        check_gate(target.chap, secrets, mistakes);
    }
    check_gate(config.discovery, secrets, mistakes);
    return mistakes;
}

}  // namespace gemel::config
