// SPDX-License-Identifier: Apache-2.0
#include "target/iscsi/chap.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "target/iscsi/text_keys.hpp"
#include "target/iscsi/wildcard.hpp"

namespace gemel::iscsi {

namespace {

struct AlgorithmRow {
    ChapAlgorithm id;
    const char* digest;  ///< its name in libcrypto
    std::size_t bytes;
};
constexpr std::array kAlgorithms{
    AlgorithmRow{ChapAlgorithm::kMd5, "MD5", 16},
    AlgorithmRow{ChapAlgorithm::kSha1, "SHA1", 20},
    AlgorithmRow{ChapAlgorithm::kSha256, "SHA256", 32},
    AlgorithmRow{ChapAlgorithm::kSha3_256, "SHA3-256", 32},
};

const AlgorithmRow& row_of(ChapAlgorithm algorithm) {
    return *std::ranges::find(kAlgorithms, algorithm, &AlgorithmRow::id);
}

struct FreeDigest {
    void operator()(EVP_MD* d) const { EVP_MD_free(d); }
    void operator()(EVP_MD_CTX* c) const { EVP_MD_CTX_free(c); }
};

std::optional<std::vector<std::byte>> decode_base64(std::string_view text, std::size_t padding) {
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::vector<std::byte> out;
    out.reserve(text.size() / 4 * 3);
    std::uint32_t bits = 0;
    unsigned have = 0;
    for (const char c : text.substr(0, text.size() - padding)) {
        const std::size_t value = kAlphabet.find(c);
        if (value == std::string_view::npos) {
            return std::nullopt;
        }
        bits = bits << 6U | static_cast<std::uint32_t>(value);
        have += 6;
        if (have >= 8) {
            have -= 8;
            out.push_back(static_cast<std::byte>(bits >> have & 0xffU));
        }
    }
    // What the padding cuts off carries nothing: one value has one spelling.
    const bool clean = (bits & ((1U << have) - 1U)) == 0;
    return clean ? std::optional(std::move(out)) : std::nullopt;
}

}  // namespace

std::optional<ChapDigest> chap_response(ChapAlgorithm algorithm, std::uint8_t identifier, std::string_view secret,
                                        ConstBytes challenge) {
    const std::unique_ptr<EVP_MD, FreeDigest> digest(EVP_MD_fetch(nullptr, row_of(algorithm).digest, nullptr));
    const std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
    ChapDigest out;
    unsigned size = 0;
    const bool done =
        digest && context && EVP_DigestInit_ex2(context.get(), digest.get(), nullptr) == 1 &&
        EVP_DigestUpdate(context.get(), &identifier, 1) == 1 &&
        EVP_DigestUpdate(context.get(), secret.data(), secret.size()) == 1 &&
        EVP_DigestUpdate(context.get(), challenge.data(), challenge.size()) == 1 &&
        EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(out.bytes_.data()), &size) == 1;
    if (!done || size != row_of(algorithm).bytes) {
        return std::nullopt;
    }
    out.size_ = size;
    return out;
}

std::optional<std::vector<std::byte>> decode_binary(std::string_view text, std::size_t most) {
    const std::string_view prefix = text.substr(0, 2);
    const std::string_view body = text.size() < 2 ? std::string_view() : text.substr(2);
    if (body.empty()) {
        return std::nullopt;
    }
    if (prefix == "0x" || prefix == "0X") {
        return body.size() / 2 <= most ? bytes_of_hex(body) : std::nullopt;
    }
    if ((prefix == "0b" || prefix == "0B") && body.size() % 4 == 0) {
        const std::size_t padding = body.ends_with("==") ? 2 : (body.ends_with('=') ? 1 : 0);
        return body.size() / 4 * 3 - padding <= most ? decode_base64(body, padding) : std::nullopt;
    }
    return std::nullopt;
}

std::string encode_hex(ConstBytes bytes) {
    return "0x" + hex_of(bytes);
}

LoginStatus ChapExchange::handle(const ChapText& text, std::string& answer, std::string& why) {
    struct Step {
        State from;
        unsigned keys;
        LoginStatus (ChapExchange::*take)(const ChapText&, std::string&, std::string&);
    };
    // RFC 7143 §12.1.3. What is no row here ends the login; a text without any of the keys is no step.
    static constexpr std::array kSteps{
        Step{State::kMethod, kMethodKey, &ChapExchange::agree},
        Step{State::kAlgorithm, kAlgorithmKey, &ChapExchange::challenge},
        Step{State::kResponse, kNameKey | kResponseKey, &ChapExchange::verify},
        Step{State::kResponse, kNameKey | kResponseKey | kIdentifierKey | kChallengeKey, &ChapExchange::verify},
    };
    if (text.keys == kNoKeys) {
        return LoginStatus::kSuccess;
    }
    for (const Step& step : kSteps) {
        if (step.from == state_ && step.keys == text.keys) {
            return (this->*step.take)(text, answer, why);
        }
    }
    why = "keys of CHAP out of turn";
    return LoginStatus::kInitiatorError;
}

LoginStatus ChapExchange::agree(const ChapText& /*text*/, std::string& /*answer*/, std::string& /*why*/) {
    // Which method it is was negotiated like any other list.
    state_ = State::kAlgorithm;
    return LoginStatus::kSuccess;
}

LoginStatus ChapExchange::challenge(const ChapText& text, std::string& answer, std::string& why) {
    terms_.random->fill(challenge_);
    identifier_ = static_cast<std::uint8_t>(terms_.random->below(256));
    // The first of the initiator's list that is strong enough, and that libcrypto gives.
    for (std::string_view list = text.algorithms; state_ == State::kAlgorithm;) {
        const std::size_t comma = list.find(',');
        const std::optional<std::uint32_t> number = parse_number(list.substr(0, comma));
        const auto row = std::ranges::find_if(
            kAlgorithms, [&](const AlgorithmRow& r) { return number && static_cast<std::uint32_t>(r.id) == *number; });
        if (row != kAlgorithms.end() && row->id >= terms_.secrets->weakest &&
            chap_response(row->id, identifier_, {}, challenge_)) {
            algorithm_ = row->id;
            state_ = State::kResponse;
        } else if (comma == std::string_view::npos) {
            why = "none of the CHAP algorithms " + printable(text.algorithms, 60) + " is allowed here; at least " +
                  std::to_string(static_cast<unsigned>(terms_.secrets->weakest)) + " is expected";
            return LoginStatus::kAuthenticationFailure;
        } else {
            list.remove_prefix(comma + 1);
        }
    }
    append_pair(answer, key_row(KeyId::kChapA).name, std::to_string(static_cast<unsigned>(algorithm_)));
    append_pair(answer, key_row(KeyId::kChapI).name, std::to_string(identifier_));
    append_pair(answer, key_row(KeyId::kChapC).name, encode_hex(challenge_));
    return LoginStatus::kSuccess;
}

LoginStatus ChapExchange::verify(const ChapText& text, std::string& answer, std::string& why) {
    const std::size_t expected_bytes = row_of(algorithm_).bytes;
    const auto response = decode_binary(text.response, expected_bytes);
    if (!response || response->size() != expected_bytes) {
        why = "CHAP_R is no binary value of " + std::to_string(expected_bytes) + " bytes";
        return LoginStatus::kAuthenticationFailure;
    }
    // Somebody unknown is measured against bytes that nobody knows, all users being looked at in either case.
    std::array<std::byte, kChallengeBytes> nobody{};
    terms_.random->fill(nobody);
    const ChapUser* user = nullptr;
    for (const ChapUser& u : terms_.secrets->users) {
        user = u.name == text.name ? &u : user;
    }
    const std::string_view secret = user != nullptr ? std::string_view(user->secret) : as_text(nobody);
    const ChapIdentity* identity = own();
    const std::string_view own_secret = identity != nullptr ? std::string_view(identity->secret) : as_text(nobody);
    const auto right = chap_response(algorithm_, identifier_, secret, challenge_);
    const auto ours = chap_response(algorithm_, identifier_, own_secret, challenge_);
    const auto is = [&](const std::optional<ChapDigest>& digest) {
        return digest && CRYPTO_memcmp(response->data(), digest->bytes().data(), expected_bytes) == 0;
    };
    const bool matches = is(right);
    const bool is_ours = is(ours);
    if (!matches || is_ours || user == nullptr) {
        why = "CHAP user '" + printable(text.name, 60) + "' is unknown, or the secret is not his";
        return LoginStatus::kAuthenticationFailure;
    }
    LoginStatus status = authorise(*user, why);
    if (status == LoginStatus::kSuccess && (text.keys & kChallengeKey) != 0) {
        status = answer_challenge(text, answer, why);
    }
    if (status == LoginStatus::kSuccess) {
        user_ = user->name;
        state_ = State::kProven;
    }
    return status;
}

LoginStatus ChapExchange::authorise(const ChapUser& user, std::string& why) {
    const auto named = [&](const std::string& pattern) { return matches_wildcard(pattern, initiator_); };
    if (!user.initiators.empty() && !std::ranges::any_of(user.initiators, named)) {
        why = "CHAP user '" + printable(user.name, 60) + "' may not be the initiator " + printable(initiator_);
        return LoginStatus::kAuthorizationFailure;
    }
    if (std::ranges::find(terms_.gate->users, user.name) == terms_.gate->users.end()) {
        why = "CHAP user '" + printable(user.name, 60) + "' is not among those who may log in here";
        return LoginStatus::kAuthorizationFailure;
    }
    return LoginStatus::kSuccess;
}

LoginStatus ChapExchange::answer_challenge(const ChapText& text, std::string& answer, std::string& why) {
    const ChapIdentity* identity = own();
    const std::optional<std::uint32_t> number = parse_number(text.identifier);
    const auto asked = decode_binary(text.challenge, kMostBytes);
    if (identity == nullptr) {
        why = "the initiator wants the target to prove itself, which has no chap_own";
        return LoginStatus::kAuthenticationFailure;
    }
    if (!number || *number > 255 || !asked) {
        why = "CHAP_I is no number up to 255, or CHAP_C no binary value of 1 to 1024 bytes";
        return LoginStatus::kAuthenticationFailure;
    }
    if (same_bytes(*asked, challenge_)) {
        why = "the initiator sent our own challenge back";
        return LoginStatus::kAuthenticationFailure;
    }
    const auto response = chap_response(algorithm_, static_cast<std::uint8_t>(*number), identity->secret, *asked);
    if (!response) {
        why = "libcrypto does not give the digest any more";
        return LoginStatus::kAuthenticationFailure;
    }
    append_pair(answer, key_row(KeyId::kChapN).name, identity->name);
    append_pair(answer, key_row(KeyId::kChapR).name, encode_hex(response->bytes()));
    mutual_ = true;
    return LoginStatus::kSuccess;
}

const ChapIdentity* ChapExchange::own() const {
    const auto found = std::ranges::find(terms_.secrets->own, terms_.gate->own, &ChapIdentity::name);
    return found == terms_.secrets->own.end() ? nullptr : &*found;
}

}  // namespace gemel::iscsi
