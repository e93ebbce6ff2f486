// SPDX-License-Identifier: Apache-2.0
// CHAP in the security negotiation of a login (RFC 7143 §12.1.3, §9.2.1; RFC 1994): algorithms, binary values, and the
// exchange of one login as a table of steps. Digests and the comparison are libcrypto's.
//
// Invariants:
//   A1  proven() is true only after a response to this login's own challenge that the user's secret alone gives.
//   A2  No step is taken twice or out of turn: keys that are no row of the step table end the login.
//   A3  A response is compared in constant time, and an unknown user costs what a known one does.
//   A4  The length of a binary value is judged before it is decoded, and nothing is decoded beyond its limit.
//   A5  Our own challenge is not answered, and a response that our own secret gives is not taken.
// Threads: one login at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/random.hpp"
#include "target/iscsi/login_status.hpp"

namespace gemel::iscsi {

/// Numbers of IANA's registry "PPP Authentication Algorithms", from the weakest to the strongest.
enum class ChapAlgorithm : std::uint8_t { kMd5 = 5, kSha1 = 6, kSha256 = 7, kSha3_256 = 8 };

/// A digest of libcrypto: at most 64 bytes.
class ChapDigest {
  public:
    [[nodiscard]] ConstBytes bytes() const { return ConstBytes(bytes_).first(size_); }

  private:
    friend std::optional<ChapDigest> chap_response(ChapAlgorithm algorithm, std::uint8_t identifier,
                                                   std::string_view secret, ConstBytes challenge);
    std::array<std::byte, 64> bytes_{};
    std::size_t size_ = 0;
};
/// The response that `secret` gives: the digest of identifier, secret and challenge (RFC 1994 §4.1). Nullopt:
/// libcrypto does not offer the algorithm here.
std::optional<ChapDigest> chap_response(ChapAlgorithm algorithm, std::uint8_t identifier, std::string_view secret,
                                        ConstBytes challenge);

/// A binary value (RFC 7143 §6.1): "0x" and pairs of digits, or "0b" and base64 with its padding. Nullopt: it is
/// neither, it is empty, or it has more than `most` bytes.
std::optional<std::vector<std::byte>> decode_binary(std::string_view text, std::size_t most);
std::string encode_hex(ConstBytes bytes);

/// Who may prove himself to this node.
struct ChapUser {
    std::string name;
    std::string secret;
    std::vector<std::string> initiators;  ///< names of the initiators that he may be, '*' matches any run; empty: all
};
/// As whom a target proves itself.
struct ChapIdentity {
    std::string name;
    std::string secret;
};
/// All secrets of this node. None is ever in a log, an event or a status.
struct ChapSecrets {
    std::vector<ChapUser> users;
    std::vector<ChapIdentity> own;
    ChapAlgorithm weakest = ChapAlgorithm::kMd5;  ///< that is taken
};
/// What a target, or discovery, demands.
struct ChapGate {
    std::vector<std::string> users;  ///< names of those who may; empty: nobody has to prove anything
    std::string own;                 ///< name of the identity that answers initiators; empty: none
};
struct ChapTerms {
    const ChapSecrets* secrets = nullptr;
    const ChapGate* gate = nullptr;
    Random* random = nullptr;
};

/// A step's keys.
enum ChapKeys : std::uint8_t {
    kNoKeys = 0,
    kMethodKey = 1,
    kAlgorithmKey = 2,
    kNameKey = 4,
    kResponseKey = 8,
    kIdentifierKey = 16,
    kChallengeKey = 32,
};
/// The values that one complete text of the initiator has.
struct ChapText {
    std::uint8_t keys = kNoKeys;
    std::string_view method;
    std::string_view algorithms;
    std::string_view name;
    std::string_view response;
    std::string_view identifier;
    std::string_view challenge;
};

class ChapExchange {
  public:
    static constexpr std::size_t kChallengeBytes = 32;
    static constexpr std::size_t kMostBytes = 1024;  ///< of a binary value (RFC 7143 §12.1.3)

    enum class State : std::uint8_t { kMethod, kAlgorithm, kResponse, kProven };

    /// `initiator`: the name that logs in. REQUIRES: the terms outlive it.
    ChapExchange(const ChapTerms& terms, std::string_view initiator) : terms_(terms), initiator_(initiator) {}

    /// Takes one step, or none if the text has no keys of it. Answers are appended to `answer`; `why` is printable.
    [[nodiscard]] LoginStatus handle(const ChapText& text, std::string& answer, std::string& why);
    [[nodiscard]] bool proven() const { return state_ == State::kProven; }
    /// The target has proven itself too.
    [[nodiscard]] bool mutual() const { return mutual_; }
    /// REQUIRES: proven().
    [[nodiscard]] const std::string& user() const { return user_; }

  private:
    [[nodiscard]] LoginStatus agree(const ChapText& text, std::string& answer, std::string& why);
    [[nodiscard]] LoginStatus challenge(const ChapText& text, std::string& answer, std::string& why);
    [[nodiscard]] LoginStatus verify(const ChapText& text, std::string& answer, std::string& why);
    [[nodiscard]] LoginStatus authorise(const ChapUser& user, std::string& why);
    [[nodiscard]] LoginStatus answer_challenge(const ChapText& text, std::string& answer, std::string& why);
    [[nodiscard]] const ChapIdentity* own() const;

    const ChapTerms terms_;
    const std::string initiator_;
    State state_ = State::kMethod;
    ChapAlgorithm algorithm_ = ChapAlgorithm::kMd5;
    std::uint8_t identifier_ = 0;
    std::array<std::byte, kChallengeBytes> challenge_{};
    std::string user_;
    bool mutual_ = false;
};

}  // namespace gemel::iscsi
