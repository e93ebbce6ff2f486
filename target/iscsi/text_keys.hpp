// SPDX-License-Identifier: Apache-2.0
// Text keys (RFC 7143 §6, §13): one table with every key's scope, stages, negotiation rule, default and range, and the
// negotiation of one session by that table. The target only answers and declares; it never makes an offer.
//
// Invariants:
//   K1  A value of the initiator is adopted only if it is well-formed and inside the key's range; otherwise the answer
//       is Reject and the key keeps what it had. NotUnderstood, Reject and Irrelevant are never adopted as values.
//   K2  A key is negotiated or declared at most once by the initiator per login (§6.3).
//   K3  An answer is never longer than 320 bytes per pair received, and pairs are counted (TextLimits).
// Threads: one login or session at a time.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gemel/result.hpp"

namespace gemel::iscsi {

/// Bounds on what an initiator may send as text.
struct TextLimits {
    static constexpr std::size_t kKeyBytes = 63;       ///< §6.1
    static constexpr std::size_t kValueBytes = 255;    ///< §6.1
    static constexpr std::size_t kBinaryBytes = 2050;  ///< of CHAP_C and CHAP_R: 1024 bytes in hexadecimal (§12.1.3)
    static constexpr std::size_t kTotalBytes = 65536;  ///< of one text that is continued over several PDUs
    static constexpr std::size_t kPairs = 256;         ///< of one login; RFC keys are 35
    static constexpr std::size_t kNameBytes = 223;     ///< iSCSI names (RFC 3720 §3.2.6.1)
};

enum class KeyId : std::uint8_t {
    kAuthMethod,
    kHeaderDigest,
    kDataDigest,
    kMaxConnections,
    kSendTargets,
    kTargetName,
    kInitiatorName,
    kTargetAlias,
    kInitiatorAlias,
    kTargetAddress,
    kTargetPortalGroupTag,
    kInitialR2T,
    kImmediateData,
    kMaxRecvDataSegmentLength,
    kMaxBurstLength,
    kFirstBurstLength,
    kDefaultTime2Wait,
    kDefaultTime2Retain,
    kMaxOutstandingR2T,
    kDataPDUInOrder,
    kDataSequenceInOrder,
    kErrorRecoveryLevel,
    kSessionType,
    kTaskReporting,
    kProtocolLevel,
    kNodeArchitecture,
    kOFMarker,
    kIFMarker,
    kOFMarkInt,
    kIFMarkInt,
    kChapA,
    kChapI,
    kChapC,
    kChapN,
    kChapR,
};
inline constexpr std::size_t kKeyCount = static_cast<std::size_t>(KeyId::kChapR) + 1;

enum class KeyScope : std::uint8_t { kConnection, kSession };

/// Where the initiator may send a key.
using StageMask = std::uint8_t;
inline constexpr StageMask kSecurityStage = 1;
inline constexpr StageMask kOperationalStage = 2;
inline constexpr StageMask kFullFeatureStage = 4;
inline constexpr StageMask kLoginStages = kSecurityStage | kOperationalStage;
inline constexpr StageMask kAnyStage = 7;

enum class KeyRule : std::uint8_t {
    kDeclareNumber,   ///< the initiator says it, no answer
    kDeclareText,     ///< the initiator says it, no answer
    kTargetDeclares,  ///< only the target says it
    kFirstOfList,     ///< the first of the initiator's list that is also in ours
    kMinimum,         ///< of both numbers
    kMaximum,         ///< of both numbers
    kBothYes,         ///< boolean AND
    kEitherYes,       ///< boolean OR
    kAnswerNo,        ///< obsolete boolean, always No (§13.25)
    kAlwaysReject,    ///< obsolete, never accepted (§13.25)
    kRequest,         ///< not negotiated: the session handles it (SendTargets)
    kAuthenticates,   ///< not negotiated: the login handles it (chap.hpp)
};

struct KeyRow {
    KeyId id;
    std::string_view name;
    KeyScope scope;
    StageMask stages;
    KeyRule rule;
    std::uint32_t initial;  ///< before negotiation; booleans 0/1; lists: index in `choices`
    std::uint32_t least;
    std::uint32_t most;
    std::array<std::string_view, 2> choices{};  ///< what we accept of a list; unused places are empty
};

/// Indexed by KeyId.
extern const std::array<KeyRow, kKeyCount> kKeyTable;
const KeyRow& key_row(KeyId id);
/// nullptr: not a key of RFC 7143 or 7144.
const KeyRow* find_key(std::string_view name);

/// A list choice: index in KeyRow::choices.
inline constexpr std::uint32_t kMethodNone = 0;
inline constexpr std::uint32_t kMethodChap = 1;
inline constexpr std::uint32_t kDigestCrc32c = 0;
inline constexpr std::uint32_t kDigestNone = 1;

/// Decimal or 0x hexadecimal, no sign, no leading zeros of decimals, at most 32 bits (§6.1).
std::optional<std::uint32_t> parse_number(std::string_view text);

/// One pair; the views point into the text.
struct TextPair {
    std::string_view key;
    std::string_view value;
};
/// Takes the next pair off `text`. REQUIRES: text not empty.
/// Errors: kProtocol: no '=', no key, key too long or with illegal characters, value too long, no ending NUL.
Result<TextPair> next_pair(std::string_view& text);

void append_pair(std::string& out, std::string_view key, std::string_view value);

/// Whether `name` is a well-formed iSCSI name: iqn., eui. or naa., of the characters of RFC 3722, at most 223 bytes.
bool valid_iscsi_name(std::string_view name);
/// The form in which names are kept and compared (RFC 7143 §4.2.7.2, RFC 3722): for ASCII, lower case.
std::string fold_iscsi_name(std::string_view name);
/// `text` with everything but printable ASCII replaced by '?', and cut at `most` bytes: for logs, events and status.
std::string printable(std::string_view text, std::size_t most = 223);

/// Upper bounds that we bring into the negotiation.
struct OwnLimits {
    std::uint32_t max_recv_data_segment_length;
    std::uint32_t max_burst_length;
    std::uint32_t first_burst_length;
    std::uint32_t max_outstanding_r2t;
};

/// What a session runs with once it is logged in.
struct SessionParameters {
    bool header_digest = false;
    bool data_digest = false;
    bool initial_r2t = true;
    bool immediate_data = true;
    std::uint32_t max_send_data_segment_length = 8192;  ///< the initiator's MaxRecvDataSegmentLength
    std::uint32_t max_recv_data_segment_length = 8192;  ///< ours, as declared
    std::uint32_t max_burst_length = 262144;
    std::uint32_t first_burst_length = 65536;
    std::uint32_t max_outstanding_r2t = 1;
};

class Negotiation {
  public:
    explicit Negotiation(const OwnLimits& own);

    /// Handles one pair of the initiator and appends the answer, if any, to `answer`.
    /// Errors: kProtocol: the login must end with "initiator error" (K2, K1 for reserved values).
    Result<void> offer(const TextPair& pair, StageMask stage, std::string& answer);
    /// True once the initiator sent the key with a value that was taken.
    [[nodiscard]] bool given(KeyId id) const { return given_[static_cast<std::size_t>(id)]; }
    [[nodiscard]] std::uint32_t number(KeyId id) const { return values_[static_cast<std::size_t>(id)]; }
    [[nodiscard]] const std::string& text(KeyId id) const { return texts_[static_cast<std::size_t>(id)]; }
    /// From now on AuthMethod is CHAP or refused; before, None or refused.
    void demand_chap() { method_ = kMethodChap; }
    /// Keys may be sent again: in the full feature phase every exchange is a new negotiation.
    void begin_exchange() {
        sent_.reset();
        pairs_ = 0;
    }
    /// Errors: kProtocol: an offered FirstBurstLength above the offered MaxBurstLength (§13.14).
    [[nodiscard]] Result<SessionParameters> finish() const;

  private:
    [[nodiscard]] std::string negotiate(const KeyRow& row, std::string_view value);
    [[nodiscard]] std::string choose(const KeyRow& row, std::string_view list);
    [[nodiscard]] std::uint32_t own(KeyId id) const;

    OwnLimits own_;
    std::array<std::uint32_t, kKeyCount> values_{};
    std::array<std::string, kKeyCount> texts_;
    std::bitset<kKeyCount> sent_;
    std::bitset<kKeyCount> given_;
    std::size_t pairs_ = 0;
    std::uint32_t method_ = kMethodNone;
    std::uint32_t offered_first_burst_ = 0;
    std::uint32_t offered_max_burst_ = 0;
};

}  // namespace gemel::iscsi
