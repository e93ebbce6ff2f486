// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/access.hpp"

#include <algorithm>

#include "target/iscsi/wildcard.hpp"

namespace gemel::iscsi {

namespace {
void fold_all(std::vector<std::string>& names) {
    for (std::string& name : names) {
        name = fold_iscsi_name(name);
    }
}
}  // namespace

void fold_names(ServerConfig& config) {
    for (TargetDefinition& target : config.targets) {
        target.iqn = fold_iscsi_name(target.iqn);
        fold_all(target.allowed_initiators);
        for (LunDefinition& lun : target.luns) {
            fold_all(lun.initiators);
            fold_all(lun.read_only_for);
        }
    }
    fold_names(config.chap);
}

void fold_names(ChapSecrets& secrets) {
    for (ChapUser& user : secrets.users) {
        fold_all(user.initiators);
    }
}

namespace {

/// An empty list is for everyone.
bool lists(const std::vector<std::string>& patterns, std::string_view initiator) {
    return patterns.empty() || std::ranges::any_of(patterns, [&](const std::string& pattern) {
               return matches_wildcard(pattern, initiator);
           });
}

}  // namespace

std::vector<std::size_t> visible_luns(const TargetDefinition& target, std::string_view initiator) {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < target.luns.size(); ++i) {
        if (lists(target.luns[i].initiators, initiator)) {
            out.push_back(i);
        }
    }
    const auto number = [&](std::size_t i) { return target.luns[i].number; };
    std::ranges::sort(out, {}, [&](std::size_t i) { return std::pair(number(i), i); });
    const auto later = std::ranges::unique(out, {}, number);
    out.erase(later.begin(), later.end());
    return out;
}

bool read_only_for(const LunDefinition& lun, std::string_view initiator) {
    return !lun.read_only_for.empty() && lists(lun.read_only_for, initiator);
}

bool AccessRules::allows(const TargetDefinition& target, std::string_view initiator) const {
    const auto holds = [&](const IpNetwork& network) { return from_ && network.contains(*from_); };
    return lists(target.allowed_initiators, initiator) &&
           (target.allowed_networks.empty() || std::ranges::any_of(target.allowed_networks, holds));
}

LoginPolicy::Admission AccessRules::admit(std::string_view initiator, std::string_view target) const {
    const auto found = std::ranges::find(config_.targets, target, &TargetDefinition::iqn);
    if (found == config_.targets.end()) {
        return {LoginStatus::kTargetNotFound, nullptr};
    }
    return allows(*found, initiator) ? Admission{LoginStatus::kSuccess, &*found}
                                     : Admission{LoginStatus::kAuthorizationFailure, nullptr};
}

std::optional<ChapTerms> AccessRules::chap_terms(const TargetDefinition* target) const {
    const ChapGate& gate = target != nullptr ? target->chap : config_.discovery;
    return gate.users.empty() ? std::nullopt : std::optional(ChapTerms{secrets_.get(), &gate, &random_});
}

bool AccessRules::shows(const TargetDefinition& target, std::string_view initiator, std::string_view user) const {
    const std::vector<std::string>& users = target.chap.users;
    // Nobody has proven anything to a discovery without CHAP: names and addresses decide alone.
    const bool proven = user.empty() || users.empty() || std::ranges::find(users, user) != users.end();
    return proven && allows(target, initiator);
}

}  // namespace gemel::iscsi
