// SPDX-License-Identifier: Apache-2.0
// The initiator's side of CHAP: remembers what the target asked, and answers with any secret.
// Threads: one.
#pragma once

#include <string>
#include <string_view>

#include "target/iscsi/chap.hpp"

namespace gemel::iscsi::test {

class ChapPeer {
  public:
    /// The value of `key` in a text of key=value pairs; empty if it is not there.
    static std::string value(std::string_view text, std::string_view key) {
        const std::string wanted = std::string(1, '\0') + std::string(key) + "=";
        const std::string all = std::string(1, '\0') + std::string(text);
        const std::size_t at = all.find(wanted);
        return at == std::string::npos
                   ? std::string()
                   : all.substr(at + wanted.size(), all.find('\0', at + wanted.size()) - (at + wanted.size()));
    }
    /// Keeps the challenge of a reply, if it has one.
    void hear(std::string_view text) {
        const std::string a = value(text, "CHAP_A");
        const std::string i = value(text, "CHAP_I");
        const auto c = decode_binary(value(text, "CHAP_C"), ChapExchange::kMostBytes);
        if (c && !a.empty() && !i.empty()) {
            challenge = *c;
            identifier = static_cast<std::uint8_t>(std::stoul(i));
            algorithm = static_cast<ChapAlgorithm>(std::stoul(a));
        }
    }
    /// What `secret` gives for the challenge, as bytes.
    [[nodiscard]] std::vector<std::byte> response(std::string_view secret) const {
        const auto digest = chap_response(algorithm, identifier, secret, challenge);
        return digest ? std::vector<std::byte>(digest->bytes().begin(), digest->bytes().end())
                      : std::vector<std::byte>{};
    }

    std::vector<std::byte> challenge;
    std::uint8_t identifier = 0;
    ChapAlgorithm algorithm = ChapAlgorithm::kMd5;
};

}  // namespace gemel::iscsi::test
