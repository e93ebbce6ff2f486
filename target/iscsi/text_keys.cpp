// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/text_keys.hpp"

#include <algorithm>
#include <charconv>

#include "gemel/check.hpp"

namespace gemel::iscsi {

namespace {

using enum KeyRule;
constexpr auto kConn = KeyScope::kConnection;
constexpr auto kSess = KeyScope::kSession;
constexpr std::uint32_t kMaxSegment = 0xffffff;

bool is_letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_reserved_value(std::string_view value) {
    return value == "NotUnderstood" || value == "Reject" || value == "Irrelevant";
}

}  // namespace

// Sections of RFC 7143; iSCSIProtocolLevel is RFC 7144 §7.1.
constexpr std::array<KeyRow, kKeyCount> kKeyTable{{
    {KeyId::kAuthMethod, "AuthMethod", kConn, kSecurityStage, kFirstOfList, 0, 0, 0, {"None", "CHAP"}},  // 12.1
    {KeyId::kHeaderDigest,
     "HeaderDigest",
     kConn,
     kOperationalStage,
     kFirstOfList,
     1,
     0,
     0,
     {"CRC32C", "None"}},                                                                                     // 13.1
    {KeyId::kDataDigest, "DataDigest", kConn, kOperationalStage, kFirstOfList, 1, 0, 0, {"CRC32C", "None"}},  // 13.1
    {KeyId::kMaxConnections, "MaxConnections", kSess, kOperationalStage, kMinimum, 1, 1, 65535},              // 13.2
    {KeyId::kSendTargets, "SendTargets", kSess, kFullFeatureStage, kRequest, 0, 0, 0},                        // 13.3
    {KeyId::kTargetName, "TargetName", kSess, kLoginStages, kDeclareText, 0, 0, 0},                           // 13.4
    {KeyId::kInitiatorName, "InitiatorName", kSess, kLoginStages, kDeclareText, 0, 0, 0},                     // 13.5
    {KeyId::kTargetAlias, "TargetAlias", kSess, kAnyStage, kTargetDeclares, 0, 0, 0},                         // 13.6
    {KeyId::kInitiatorAlias, "InitiatorAlias", kSess, kAnyStage, kDeclareText, 0, 0, 0},                      // 13.7
    {KeyId::kTargetAddress, "TargetAddress", kSess, kAnyStage, kTargetDeclares, 0, 0, 0},                     // 13.8
    {KeyId::kTargetPortalGroupTag, "TargetPortalGroupTag", kSess, kAnyStage, kTargetDeclares, 0, 0, 0},       // 13.9
    {KeyId::kInitialR2T, "InitialR2T", kSess, kOperationalStage, kEitherYes, 1, 0, 1},                        // 13.10
    {KeyId::kImmediateData, "ImmediateData", kSess, kOperationalStage, kBothYes, 1, 0, 1},                    // 13.11
    {KeyId::kMaxRecvDataSegmentLength, "MaxRecvDataSegmentLength", kConn, kOperationalStage | kFullFeatureStage,
     kDeclareNumber, 8192, 512, kMaxSegment},                                                                  // 13.12
    {KeyId::kMaxBurstLength, "MaxBurstLength", kSess, kOperationalStage, kMinimum, 262144, 512, kMaxSegment},  // 13.13
    {KeyId::kFirstBurstLength, "FirstBurstLength", kSess, kOperationalStage, kMinimum, 65536, 512,
     kMaxSegment},                                                                                           // 13.14
    {KeyId::kDefaultTime2Wait, "DefaultTime2Wait", kSess, kOperationalStage, kMaximum, 2, 0, 3600},          // 13.15
    {KeyId::kDefaultTime2Retain, "DefaultTime2Retain", kSess, kOperationalStage, kMinimum, 20, 0, 3600},     // 13.16
    {KeyId::kMaxOutstandingR2T, "MaxOutstandingR2T", kSess, kOperationalStage, kMinimum, 1, 1, 65535},       // 13.17
    {KeyId::kDataPDUInOrder, "DataPDUInOrder", kSess, kOperationalStage, kEitherYes, 1, 0, 1},               // 13.18
    {KeyId::kDataSequenceInOrder, "DataSequenceInOrder", kSess, kOperationalStage, kEitherYes, 1, 0, 1},     // 13.19
    {KeyId::kErrorRecoveryLevel, "ErrorRecoveryLevel", kSess, kOperationalStage, kMinimum, 0, 0, 2},         // 13.20
    {KeyId::kSessionType, "SessionType", kSess, kLoginStages, kDeclareText, 0, 0, 0},                        // 13.21
    {KeyId::kTaskReporting, "TaskReporting", kSess, kOperationalStage, kFirstOfList, 0, 0, 0, {"RFC3720"}},  // 13.23
    {KeyId::kProtocolLevel, "iSCSIProtocolLevel", kSess, kOperationalStage, kMinimum, 1, 0, 31},
    {KeyId::kNodeArchitecture, "X#NodeArchitecture", kSess, kAnyStage, kDeclareText, 0, 0, 0},  // 13.24
    {KeyId::kOFMarker, "OFMarker", kConn, kOperationalStage, kAnswerNo, 0, 0, 1},               // 13.25
    {KeyId::kIFMarker, "IFMarker", kConn, kOperationalStage, kAnswerNo, 0, 0, 1},
    {KeyId::kOFMarkInt, "OFMarkInt", kConn, kOperationalStage, kAlwaysReject, 0, 0, 0},
    {KeyId::kIFMarkInt, "IFMarkInt", kConn, kOperationalStage, kAlwaysReject, 0, 0, 0},
    {KeyId::kChapA, "CHAP_A", kConn, kSecurityStage, kAuthenticates, 0, 0, 0},  // 12.1.3
    {KeyId::kChapI, "CHAP_I", kConn, kSecurityStage, kAuthenticates, 0, 0, 0},
    {KeyId::kChapC, "CHAP_C", kConn, kSecurityStage, kAuthenticates, 0, 0, 0},
    {KeyId::kChapN, "CHAP_N", kConn, kSecurityStage, kAuthenticates, 0, 0, 0},
    {KeyId::kChapR, "CHAP_R", kConn, kSecurityStage, kAuthenticates, 0, 0, 0},
}};

static_assert(
    [] {
        for (std::size_t i = 0; i < kKeyTable.size(); ++i) {
            if (static_cast<std::size_t>(kKeyTable[i].id) != i) {
                return false;
            }
        }
        return true;
    }(),
    "the rows stand in the order of KeyId");

const KeyRow& key_row(KeyId id) {
    return kKeyTable[static_cast<std::size_t>(id)];
}

const KeyRow* find_key(std::string_view name) {
    const auto* row = std::ranges::find(kKeyTable, name, &KeyRow::name);
    return row == kKeyTable.end() ? nullptr : row;
}

std::optional<std::uint32_t> parse_number(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    } else if (text.size() > 1 && text.front() == '0') {
        return std::nullopt;
    }
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    // from_chars takes a leading minus only for signed types, and no plus or space.
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

Result<TextPair> next_pair(std::string_view& text) {
    const std::size_t end = text.find('\0');
    if (end == std::string_view::npos) {
        return fail(Errc::kProtocol, "the last key=value pair is not ended by a NUL");
    }
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(end + 1);
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
        return fail(Errc::kProtocol, "text without a key or without '=': '" + printable(pair, 40) + "'");
    }
    const TextPair out{pair.substr(0, equals), pair.substr(equals + 1)};
    const bool legal = std::ranges::all_of(out.key, [](char c) {
        return is_letter_or_digit(c) || c == '.' || c == '-' || c == '+' || c == '@' || c == '_' || c == '#';
    });
    if (out.key.size() > TextLimits::kKeyBytes || !legal) {
        return fail(Errc::kProtocol, "illegal key name '" + printable(out.key, 40) + "'");
    }
    const bool binary = out.key == key_row(KeyId::kChapC).name || out.key == key_row(KeyId::kChapR).name;
    const std::size_t most = binary ? TextLimits::kBinaryBytes : TextLimits::kValueBytes;
    if (out.value.size() > most) {
        return fail(Errc::kProtocol, "the value of " + std::string(out.key) + " has " +
                                         std::to_string(out.value.size()) + " bytes; at most " + std::to_string(most) +
                                         " are allowed");
    }
    return out;
}

void append_pair(std::string& out, std::string_view key, std::string_view value) {
    out.append(key);
    out += '=';
    out.append(value);
    out += '\0';
}

bool valid_iscsi_name(std::string_view name) {
    const bool prefix = name.starts_with("iqn.") || name.starts_with("eui.") || name.starts_with("naa.");
    return prefix && name.size() > 4 && name.size() <= TextLimits::kNameBytes && std::ranges::all_of(name, [](char c) {
               return is_letter_or_digit(c) || c == '.' || c == '-' || c == ':' || c == '_';
           });
}

std::string fold_iscsi_name(std::string_view name) {
    std::string out(name);
    std::ranges::transform(out, out.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return out;
}

std::string printable(std::string_view text, std::size_t most) {
    std::string out(text.substr(0, most));
    std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
    return out;
}

Negotiation::Negotiation(const OwnLimits& own) : own_(own) {
    for (const KeyRow& row : kKeyTable) {
        values_[static_cast<std::size_t>(row.id)] = row.initial;
    }
}

std::uint32_t Negotiation::own(KeyId id) const {
    switch (id) {
        case KeyId::kMaxBurstLength:
            return own_.max_burst_length;
        case KeyId::kFirstBurstLength:
            return own_.first_burst_length;
        case KeyId::kMaxOutstandingR2T:
            return own_.max_outstanding_r2t;
        case KeyId::kInitialR2T:
            return 0;  // unsolicited data saves a round trip
        default:
            return key_row(id).initial;
    }
}

Result<void> Negotiation::offer(const TextPair& pair, StageMask stage, std::string& answer) {
    if (++pairs_ > TextLimits::kPairs) {
        return fail(Errc::kProtocol, "more than " + std::to_string(TextLimits::kPairs) + " keys");
    }
    const KeyRow* row = find_key(pair.key);
    if (row == nullptr) {
        append_pair(answer, pair.key, "NotUnderstood");
        return {};
    }
    const auto index = static_cast<std::size_t>(row->id);
    if (sent_[index]) {
        return fail(Errc::kProtocol, std::string(row->name) + " was sent twice");
    }
    sent_[index] = true;
    if (row->rule == KeyRule::kTargetDeclares) {
        // NotUnderstood and the like may answer our own declaration.
        if (!is_reserved_value(pair.value)) {
            append_pair(answer, row->name, "Reject");
        }
        return {};
    }
    if (is_reserved_value(pair.value)) {
        return fail(Errc::kProtocol, std::string(row->name) + "=" + std::string(pair.value) + " answers no offer");
    }
    if ((row->stages & stage) == 0) {
        append_pair(answer, row->name, "Reject");
        return {};
    }
    const std::string reply = negotiate(*row, pair.value);
    if (!reply.empty()) {
        append_pair(answer, row->name, reply);
    }
    return {};
}

std::string Negotiation::negotiate(const KeyRow& row, std::string_view value) {
    const auto index = static_cast<std::size_t>(row.id);
    std::uint32_t& current = values_[index];
    const std::optional<std::uint32_t> offered = parse_number(value);
    const bool in_range = offered && *offered >= row.least && *offered <= row.most;
    const bool yes = value == "Yes";
    switch (row.rule) {
        case KeyRule::kDeclareText:
            texts_[index] = row.id == KeyId::kInitiatorName || row.id == KeyId::kTargetName ? fold_iscsi_name(value)
                                                                                            : std::string(value);
            given_[index] = true;
            return {};
        case KeyRule::kFirstOfList:
            return choose(row, value);
        case KeyRule::kAuthenticates:
            return {};
        case KeyRule::kBothYes:
        case KeyRule::kEitherYes:
            if (!yes && value != "No") {
                return "Reject";
            }
            current = row.rule == KeyRule::kBothYes ? static_cast<std::uint32_t>(yes && own(row.id) != 0)
                                                    : static_cast<std::uint32_t>(yes || own(row.id) != 0);
            given_[index] = true;
            return current != 0 ? "Yes" : "No";
        case KeyRule::kAnswerNo:
            return yes || value == "No" ? "No" : "Reject";
        case KeyRule::kDeclareNumber:
        case KeyRule::kMinimum:
        case KeyRule::kMaximum:
            break;
        default:
            return "Reject";
    }
    if (!in_range) {
        return "Reject";
    }
    given_[index] = true;
    if (row.id == KeyId::kFirstBurstLength) {
        offered_first_burst_ = *offered;
    }
    if (row.id == KeyId::kMaxBurstLength) {
        offered_max_burst_ = *offered;
    }
    if (row.rule == KeyRule::kDeclareNumber) {
        current = *offered;
        return {};
    }
    current = row.rule == KeyRule::kMinimum ? std::min(*offered, own(row.id)) : std::max(*offered, own(row.id));
    return std::to_string(current);
}

std::string Negotiation::choose(const KeyRow& row, std::string_view list) {
    const auto index = static_cast<std::size_t>(row.id);
    while (true) {
        const std::size_t comma = list.find(',');
        const std::string_view item = list.substr(0, comma);
        for (std::uint32_t i = 0; i < row.choices.size() && !item.empty(); ++i) {
            const bool open = row.id != KeyId::kAuthMethod || i == method_;
            if (open && item == row.choices[i]) {
                values_[index] = i;
                given_[index] = true;
                return std::string(item);
            }
        }
        if (comma == std::string_view::npos) {
            return "Reject";
        }
        list.remove_prefix(comma + 1);
    }
}

Result<SessionParameters> Negotiation::finish() const {
    if (offered_first_burst_ != 0 && offered_max_burst_ != 0 && offered_first_burst_ > offered_max_burst_) {
        return fail(Errc::kProtocol, "FirstBurstLength " + std::to_string(offered_first_burst_) +
                                         " is above MaxBurstLength " + std::to_string(offered_max_burst_));
    }
    SessionParameters p;
    p.header_digest = number(KeyId::kHeaderDigest) == kDigestCrc32c;
    p.data_digest = number(KeyId::kDataDigest) == kDigestCrc32c;
    p.initial_r2t = number(KeyId::kInitialR2T) != 0;
    p.immediate_data = number(KeyId::kImmediateData) != 0;
    p.max_send_data_segment_length = number(KeyId::kMaxRecvDataSegmentLength);
    p.max_recv_data_segment_length = own_.max_recv_data_segment_length;
    p.max_burst_length = number(KeyId::kMaxBurstLength);
    // The default of one key may stand above what was negotiated for the other.
    p.first_burst_length = std::min(number(KeyId::kFirstBurstLength), p.max_burst_length);
    p.max_outstanding_r2t = number(KeyId::kMaxOutstandingR2T);
    return p;
}

}  // namespace gemel::iscsi
