// SPDX-License-Identifier: Apache-2.0
// The rules between the tables of a configuration.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "target/config/config.hpp"
#include "target/config/value_syntax.hpp"

namespace gemel::config {

namespace {

using Mistakes = std::vector<Mistake>;

/// Notes the second and later use of a name.
class Names {
  public:
    Names(std::string what, Mistakes& mistakes) : what_(std::move(what)), mistakes_(mistakes) {}
    void add(const std::string& name, Place place) {
        if (name.empty()) {
            return;
        }
        const auto [it, fresh] = first_.try_emplace(name, place);
        if (!fresh) {
            mistakes_.push_back(
                {place, fmt::format("{} '{}' is there twice; the first is in line {}", what_, name, it->second.line)});
        }
    }
    [[nodiscard]] bool has(const std::string& name) const { return first_.contains(name); }
    [[nodiscard]] std::string hint(std::string_view name) const {
        std::vector<std::string_view> known;
        for (const auto& [n, place] : first_) {
            known.push_back(n);
        }
        const auto near = did_you_mean(name, known);
        return near ? fmt::format(", did you mean '{}'?", *near) : "";
    }

  private:
    std::string what_;
    Mistakes& mistakes_;
    std::map<std::string, Place> first_;
};

void check_level(const Array& array, std::span<const LevelRule> levels, Mistakes& mistakes) {
    if (array.level.empty()) {
        return;
    }
    const auto rule = std::ranges::find(levels, array.level, &LevelRule::name);
    if (rule == levels.end()) {
        std::string all;
        for (const LevelRule& r : levels) {
            all += fmt::format("{}\"{}\"", all.empty() ? "" : " or ", r.name);
        }
        mistakes.push_back({array.place, fmt::format("array '{}' has the unknown level '{}'; expected {}", array.name,
                                                     array.level, all)});
        return;
    }
    if (array.journal == Journal::kPpl && array.level != "5") {
        mistakes.push_back({array.place, fmt::format("array '{}' of level {} has journal = \"ppl\", which is for level "
                                                     "5; expected \"journal\", or \"redo\", which loses nothing either",
                                                     array.name, array.level)});
    }
    const std::size_t members = array.members.size();
    if (members < rule->min_members || members > rule->max_members || (members - rule->min_members) % rule->step != 0) {
        const std::string counts = rule->min_members == rule->max_members
                                       ? fmt::format("{}", rule->min_members)
                                       : fmt::format("{} to {}", rule->min_members, rule->max_members);
        mistakes.push_back(
            {array.place, fmt::format("array '{}' has {} members; level {} takes {}{}", array.name, members,
                                      array.level, counts, rule->step == 2 ? ", an even number" : "")});
    }
}

std::vector<Member> devices_of(const Array& array) {
    std::vector<Member> out = array.members;
    out.insert(out.end(), array.spares.begin(), array.spares.end());
    return out;
}

void check_members(const Array& array, Mistakes& mistakes) {
    for (const Member& m : devices_of(array)) {
        if ((m.kind == MemberKind::kMemory) != array.in_memory()) {
            mistakes.push_back({m.place, fmt::format("array '{}' mixes memory members, which are blank at every start, "
                                                     "with others; expected all of them in memory or none",
                                                     array.name)});
            return;
        }
        if (m.kind == MemberKind::kFile && array.create && m.bytes == 0) {
            mistakes.push_back(
                {m.place, fmt::format("a file member of array '{}', which has create = true, has no 'size'; expected "
                                      "how large the file is to be made, such as size = \"1GiB\"",
                                      array.name)});
        }
    }
}

void check_arrays(const Config& config, std::span<const LevelRule> levels, Mistakes& mistakes) {
    Names names("array", mistakes);
    std::map<std::string, std::pair<std::string, Place>> paths;
    for (const Array& array : config.arrays) {
        names.add(array.name, array.place);
        check_level(array, levels, mistakes);
        check_members(array, mistakes);
        for (const Member& m : devices_of(array)) {
            if (m.path.empty()) {
                continue;
            }
            const std::string path = std::filesystem::path(m.path).lexically_normal().string();
            const auto [it, fresh] = paths.try_emplace(path, array.name, m.place);
            if (!fresh) {
                mistakes.push_back(
                    {m.place, fmt::format("member '{}' of array '{}' is already a member of array '{}' "
                                          "in line {}; expected each member once",
                                          m.path, array.name, it->second.first, it->second.second.line)});
            }
        }
    }
}

void check_volumes(const Config& config, Mistakes& mistakes) {
    Mistakes ignored;
    Names known("array", ignored);
    for (const Array& array : config.arrays) {
        known.add(array.name, array.place);
    }
    Names names("volume", mistakes);
    std::map<std::string, Place> rest;
    for (const Volume& v : config.volumes) {
        names.add(v.name, v.place);
        if (!v.array.empty() && !known.has(v.array)) {
            mistakes.push_back({v.array_place, fmt::format("volume '{}' is on array '{}', which is not in this file{}",
                                                           v.name, v.array, known.hint(v.array))});
        }
        if (v.bytes == 0 && !v.array.empty() && !rest.try_emplace(v.array, v.place).second) {
            mistakes.push_back({v.place, fmt::format("two volumes of array '{}' have no size, so that each would take "
                                                     "all that is left; expected a size for at least one of them",
                                                     v.array)});
        }
    }
}

/// By volume, and whether it is its severed copy.
using Exported = std::map<std::pair<std::string, bool>, const Lun*>;

void check_luns(const Target& target, const Names& volumes, Exported& exported, Mistakes& mistakes) {
    std::map<std::uint64_t, const Lun*> numbers;
    for (const Lun& lun : target.luns) {
        // One number may be another volume for other initiators.
        const auto [number, first_use] = numbers.try_emplace(lun.lun, &lun);
        if (!first_use && (lun.initiators.empty() || number->second->initiators.empty())) {
            mistakes.push_back(
                {lun.place, fmt::format("target '{}' has LUN {} twice; the first is in line {}; expected "
                                        "another number, or initiators for each of them",
                                        target.iqn, lun.lun, number->second->place.line)});
        }
        if (lun.volume.empty()) {
            continue;
        }
        if (!volumes.has(lun.volume)) {
            mistakes.push_back({lun.volume_place, fmt::format("LUN {} is volume '{}', which is not in this file{}",
                                                              lun.lun, lun.volume, volumes.hint(lun.volume))});
        }
        const auto [it, fresh] = exported.try_emplace(std::pair(lun.volume, lun.severed_copy), &lun);
        const Lun& first = *it->second;
        if (!fresh &&
            (first.block_bytes != lun.block_bytes || first.write_cache != lun.write_cache ||
             first.read_only != lun.read_only || first.thin != lun.thin || first.removable != lun.removable)) {
            mistakes.push_back(
                {lun.volume_place, fmt::format("volume '{}' is a LUN in line {} with another block_size, write_cache, "
                                               "read_only, thin or removable; expected the same for one volume",
                                               lun.volume, first.volume_place.line)});
        }
    }
}

void check_targets(const Config& config, Mistakes& mistakes) {
    Mistakes ignored;
    Names volumes("volume", ignored);
    for (const Volume& v : config.volumes) {
        volumes.add(v.name, v.place);
    }
    Names names("target", mistakes);
    Exported exported;
    for (const Target& target : config.targets) {
        names.add(target.iqn, target.place);
        check_luns(target, volumes, exported, mistakes);
        for (const Lun& lun : target.luns) {
            if (lun.severed_copy && config.replication.place.line == 0) {
                mistakes.push_back({lun.place, fmt::format("LUN {} is a severed copy and there is no [replication]; "
                                                           "only a mirrored volume has one",
                                                           lun.lun)});
            }
        }
    }
}

void check_portals(const Config& config, Mistakes& mistakes) {
    Names names("portal", mistakes);
    for (const Portal& portal : config.portals) {
        const auto address = parse_address(portal.address);
        if (!address) {
            continue;  // noted where it was read
        }
        if (address->port != 0) {
            names.add(portal.address, portal.place);
        }
        const bool open = std::ranges::any_of(config.targets, [](const Target& t) { return t.open(); });
        if (!is_loopback(portal.address) && open && !config.daemon.insecure_no_auth) {
            mistakes.push_back(
                {portal.place, fmt::format("portal {} can be reached from other machines and a target lets any "
                                           "initiator in; expected chap_users, allowed_initiators or "
                                           "allowed_networks in every [[target]], not such as hold all of them, or "
                                           "insecure_no_auth = true in [daemon]",
                                           portal.address)});
        }
    }
}

void check_gate(const Config& config, const ChapGate& gate, Mistakes& mistakes) {
    if (!gate.users.empty() && config.chap.secrets.empty()) {
        mistakes.push_back({gate.users_place,
                            "there are chap_users but no secrets; expected [chap] with secrets, the file of names and "
                            "secrets"});
    }
    if (!gate.own.empty() && gate.users.empty()) {
        mistakes.push_back({gate.own_place,
                            "chap_own without chap_users has no effect: who does not have to prove himself asks for "
                            "no proof; expected chap_users"});
    }
}

bool beyond_loopback(const std::string& text) {
    return parse_address(text) && !is_loopback(text);
}

void check_peer_keys(const Config& config, Mistakes& mistakes) {
    const bool some = std::ranges::any_of(config.peers, [](const Peer& p) { return !p.key_file.empty(); });
    for (const Peer& peer : config.peers) {
        const bool far = beyond_loopback(peer.address) || beyond_loopback(config.replication.listen);
        if (!peer.key_file.empty()) {
            continue;
        }
        if (some) {
            mistakes.push_back({peer.place, fmt::format("peer '{}' has no key_file and another one has; expected one "
                                                        "for every [[peer]], or for none",
                                                        peer.node)});
        } else if (far && !config.replication.insecure_no_key) {
            mistakes.push_back({peer.place, fmt::format("the link to peer '{}' leaves this machine without a key: "
                                                        "anybody between the nodes could read and change volumes; "
                                                        "expected key_file, or insecure_no_key = true in "
                                                        "[replication]",
                                                        peer.node)});
        }
    }
}

void check_peers(const Config& config, Mistakes& mistakes) {
    check_peer_keys(config, mistakes);
    Names names("peer", mistakes);
    for (const Peer& peer : config.peers) {
        names.add(peer.node, peer.place);
        if (!peer.node.empty() && peer.node == config.node.name) {
            mistakes.push_back(
                {peer.place, fmt::format("peer '{}' has the name of this node; expected another node", peer.node)});
        }
    }
    if (!config.peers.empty() && config.replication.listen.empty() && config.replication.place.line == 0) {
        mistakes.push_back({config.peers.front().place,
                            "there is a [[peer]] but no [replication]; expected [replication] with listen, "
                            "the address where the peer reaches this node"});
    }
    if (config.replication.place.line != 0 && config.node.name.empty()) {
        mistakes.push_back({config.replication.place,
                            "a node that replicates needs a name; expected [node] with name, by which its peer "
                            "knows it"});
    }
}

}  // namespace

bool Target::open() const {
    // "iqn.*" is no less than "*": a name costs nothing.
    const auto any_name = [](std::string_view pattern) {
        const std::size_t star = pattern.find('*');
        return star != std::string_view::npos && std::string_view("iqn.").starts_with(pattern.substr(0, star)) &&
               pattern.find_first_not_of('*', star) == std::string_view::npos;
    };
    const bool names = allowed_initiators.empty() || std::ranges::any_of(allowed_initiators, any_name);
    const bool networks = allowed_networks.empty() || std::ranges::any_of(allowed_networks, &IpNetwork::whole);
    return names && networks && chap.users.empty();
}

std::vector<Mistake> check(const Config& config, std::span<const LevelRule> levels) {
    Mistakes mistakes;
    check_arrays(config, levels, mistakes);
    check_volumes(config, mistakes);
    check_targets(config, mistakes);
    check_portals(config, mistakes);
    for (const Target& target : config.targets) {
        check_gate(config, target.chap, mistakes);
    }
    check_gate(config, config.discovery, mistakes);
    check_peers(config, mistakes);
    Names alerts("alert", mistakes);
    for (const Alert& alert : config.alerts) {
        alerts.add(alert.name, alert.place);
    }
    return mistakes;
}

}  // namespace gemel::config
