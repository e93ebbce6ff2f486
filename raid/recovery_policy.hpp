// SPDX-License-Identifier: Apache-2.0
// RecoveryPolicy: how an array knows after a crash which redundancy may be wrong.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gemel::raid {

/// Numbers on disk: only added.
enum class RecoveryPolicy : std::uint16_t {
    kResync = 1,   ///< it does not: all of it is made anew
    kJournal = 2,  ///< the dirty stripe journal lists it (dirty_journal.hpp); without a member: see kRedo
    kRedo = 3,     ///< parity levels: what is written is logged (redo_log.hpp). On disk this is kJournal
    kPartial = 4,  ///< level 5: kJournal, and partial parity is logged (partial_parity.hpp). The same
};

struct RecoveryPolicyRow {
    RecoveryPolicy id;
    std::string_view name;
};
inline constexpr std::array kRecoveryPolicies{
    RecoveryPolicyRow{RecoveryPolicy::kResync, "resync"},
    RecoveryPolicyRow{RecoveryPolicy::kJournal, "journal"},
    RecoveryPolicyRow{RecoveryPolicy::kRedo, "redo"},
    RecoveryPolicyRow{RecoveryPolicy::kPartial, "ppl"},
};

constexpr std::string_view recovery_policy_name(RecoveryPolicy policy) {
    for (const RecoveryPolicyRow& row : kRecoveryPolicies) {
        if (row.id == policy) {
            return row.name;
        }
    }
    return "unknown";
}
constexpr std::optional<RecoveryPolicy> find_recovery_policy(std::string_view name) {
    for (const RecoveryPolicyRow& row : kRecoveryPolicies) {
        if (row.name == name) {
            return row.id;
        }
    }
    return std::nullopt;
}
/// As superblocks say it.
constexpr RecoveryPolicy recorded_policy(RecoveryPolicy policy) {
    return policy == RecoveryPolicy::kResync ? policy : RecoveryPolicy::kJournal;
}
constexpr bool is_recorded_policy(RecoveryPolicy policy) {
    return policy == RecoveryPolicy::kResync || policy == RecoveryPolicy::kJournal;
}

}  // namespace gemel::raid
