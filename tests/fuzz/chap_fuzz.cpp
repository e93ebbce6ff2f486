// SPDX-License-Identifier: Apache-2.0
// Login requests with any text against a login machine that demands CHAP. Holds that nobody is let in who did not send
// the name and the right response to this login's challenge in one text, that the target proves itself to nobody
// else, and that binary values never decode to more than they may.
//
// An input is a row of records: 1 byte flags (T, C, stages), 2 bytes length, the text. In a text, "@r" stands for the
// right response in hexadecimal, "@c" for the challenge.
#include "gemel/check.hpp"
#include "target/iscsi/login.hpp"
#include "target/iscsi/portal.hpp"
#include "tests/support/chap_peer.hpp"
#include "tests/support/sim_scheduler.hpp"

namespace {

using namespace gemel;
using namespace gemel::iscsi;

constexpr std::string_view kSecret = "a secret of 16 b";

class Guarded : public LoginPolicy {
  public:
    [[nodiscard]] Admission admit(std::string_view /*initiator*/, std::string_view /*target*/) const override {
        return {LoginStatus::kSuccess, &definition_};
    }
    [[nodiscard]] std::optional<ChapTerms> chap_terms(const TargetDefinition* /*target*/) const override {
        return ChapTerms{&secrets_, &gate_, &random_};
    }

  private:
    TargetDefinition definition_{"iqn.t:one", "alias", {}, {}, 1};
    ChapSecrets secrets_{{{"u", std::string(kSecret), {}}}, {{"t", "the target's own"}}, ChapAlgorithm::kMd5};
    ChapGate gate_{{"u"}, "t"};
    mutable sim::SeededRandom random_{1};
};

/// The text with its words filled in; `answered` becomes whether the right response is in it.
std::string filled_in(std::string_view text, const test::ChapPeer& peer, bool& answered) {
    std::string out;
    while (!text.empty()) {
        if (text.starts_with("@r") && !peer.challenge.empty()) {
            out += encode_hex(peer.response(kSecret));
            answered = true;
            text.remove_prefix(2);
        } else if (text.starts_with("@c")) {
            out += encode_hex(peer.challenge);
            text.remove_prefix(2);
        } else {
            out += text.front();
            text.remove_prefix(1);
        }
    }
    return out;
}

void check_decoding(std::string_view text) {
    const std::size_t most = text.size() % 70;
    if (const auto bytes = decode_binary(text, most)) {
        CHECK(!bytes->empty() && bytes->size() <= most);
        CHECK(decode_binary(encode_hex(*bytes), most) == bytes);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    const Guarded policy;
    LoginMachine machine(policy, {262144, 1048576, 262144, 4});
    test::ChapPeer peer;
    ConstBytes rest(reinterpret_cast<const std::byte*>(bytes), size);
    check_decoding(as_text(rest));
    bool answered = false;
    bool over = false;
    std::string whole;  ///< the text so far, which requests that go on (C) make up together
    std::string said;   ///< by the initiator
    while (rest.size() >= 3) {
        LoginRequest request;
        request.immediate = true;
        request.flags = std::to_integer<std::uint8_t>(rest[0]);
        const std::size_t length = std::min<std::size_t>(load_be<std::uint16_t>(&rest[1]) % 8193U, rest.size() - 3);
        if (whole.empty()) {
            answered = false;
        }
        const std::string text = filled_in(as_text(rest.subspan(3, length)), peer, answered);
        rest = rest.subspan(3 + length);
        const bool was_proven = machine.chap() != nullptr && machine.chap()->proven();
        const LoginReply reply = machine.handle(request, text);
        const bool proven = machine.chap() != nullptr && machine.chap()->proven();
        whole += text;
        CHECK(!proven || was_proven || (answered && whole.contains("CHAP_N=u")));
        CHECK(proven || (!reply.full_feature && (reply.header.flags & kFinal) == 0));
        CHECK(proven || !reply.text.contains("CHAP_R=0"));
        CHECK(!proven || was_proven || reply.status() == LoginStatus::kSuccess);
        CHECK(!over || reply.status() == LoginStatus::kInvalidDuringLogin);
        CHECK(reply.text.size() <= LoginMachine::kMaxDataBytes);
        said += text;
        if ((request.flags & kContinue) == 0) {
            whole.clear();
        }
        CHECK(!reply.why.contains(kSecret) || said.contains(kSecret));
        over |= reply.full_feature || reply.status() != LoginStatus::kSuccess;
        peer.hear(reply.text);
    }
    return 0;
}
