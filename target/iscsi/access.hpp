// SPDX-License-Identifier: Apache-2.0
// Who may use which target, and which of its LUNs: by the initiator's name, by the address it comes from, and by who it
// has proven to be.
//
// Invariants:
//   AC1 A discovery session is told of no target that would refuse its initiator's name, its address or, if it had to
//       prove it, its CHAP user.
//   AC2 Names are compared without regard to case: they are in lower case here (RFC 7143 §4.2.7.2, RFC 3722).
//   AC3 A login goes by the secrets that there were when it began.
// Threads: any; the configuration does not change.
#pragma once

#include "target/iscsi/login.hpp"
#include "target/iscsi/portal.hpp"

namespace gemel::iscsi {

/// Brings every name that is compared into lower case.
void fold_names(ServerConfig& config);
void fold_names(ChapSecrets& secrets);

/// Places in target.luns of those that `initiator` sees, ascending by number; of several of one number the first that
/// is for it.
std::vector<std::size_t> visible_luns(const TargetDefinition& target, std::string_view initiator);

/// Whether `initiator` cannot write to a LUN that it sees.
bool read_only_for(const LunDefinition& lun, std::string_view initiator);

/// The policy as one connection meets it.
class AccessRules final : public LoginPolicy {
  public:
    /// `peer_address`: "10.0.0.1:51234". REQUIRES: config and random outlive it.
    AccessRules(const ServerConfig& config, std::shared_ptr<const ChapSecrets> secrets, Random& random,
                std::string_view peer_address)
        : config_(config), secrets_(std::move(secrets)), random_(random), from_(IpAddress::of_socket(peer_address)) {}

    [[nodiscard]] Admission admit(std::string_view initiator, std::string_view target) const override;
    [[nodiscard]] std::optional<ChapTerms> chap_terms(const TargetDefinition* target) const override;
    /// Whether a discovery session of `initiator`, proven to be `user` (empty: it did not have to), is told of it.
    [[nodiscard]] bool shows(const TargetDefinition& target, std::string_view initiator, std::string_view user) const;

  private:
    [[nodiscard]] bool allows(const TargetDefinition& target, std::string_view initiator) const;

    const ServerConfig& config_;
    const std::shared_ptr<const ChapSecrets> secrets_;  ///< AC3
    Random& random_;
    const std::optional<IpAddress> from_;
};

}  // namespace gemel::iscsi
