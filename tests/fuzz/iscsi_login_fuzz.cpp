// SPDX-License-Identifier: Apache-2.0
// Login requests with any header and any text against the login machine. Holds that every reply is bounded, that a
// refusal is final and printable, and that what was negotiated is inside the ranges of the standard.
//
// An input is a row of records: 1 byte flags (T, C, stages), 1 byte bits for odd fields, 2 bytes length, the text.
#include "gemel/check.hpp"
#include "target/iscsi/login.hpp"
#include "target/iscsi/portal.hpp"

namespace {

using namespace gemel;
using namespace gemel::iscsi;

class AnyTarget : public LoginPolicy {
  public:
    [[nodiscard]] Admission admit(std::string_view initiator, std::string_view target) const override {
        CHECK(valid_iscsi_name(initiator));
        return target == definition_.iqn ? Admission{LoginStatus::kSuccess, &definition_}
                                         : Admission{LoginStatus::kTargetNotFound, nullptr};
    }

  private:
    TargetDefinition definition_{"iqn.t:one", "alias", {}, {}, 1};
};

void check_parameters(const SessionParameters& p) {
    CHECK(p.max_send_data_segment_length >= 512 && p.max_send_data_segment_length < (1U << 24U));
    CHECK(p.max_burst_length >= 512 && p.max_burst_length <= 1048576);
    CHECK(p.first_burst_length >= 512 && p.first_burst_length <= p.max_burst_length);
    CHECK(p.max_outstanding_r2t >= 1 && p.max_outstanding_r2t <= 4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    const AnyTarget policy;
    LoginMachine machine(policy, {262144, 1048576, 262144, 4});
    ConstBytes rest(reinterpret_cast<const std::byte*>(bytes), size);
    bool over = false;
    while (rest.size() >= 4) {
        LoginRequest request;
        request.immediate = true;
        request.flags = std::to_integer<std::uint8_t>(rest[0]);
        const unsigned odd = std::to_integer<unsigned>(rest[1]);
        request.version_min = (odd & 1U) != 0 ? 1 : 0;
        request.tsih = (odd & 2U) != 0 ? 7 : 0;
        request.connection_id = (odd & 4U) != 0 ? 7 : 0;
        const std::size_t length = std::min<std::size_t>(load_be<std::uint16_t>(&rest[2]) % 8193U, rest.size() - 4);
        const LoginReply reply = machine.handle(request, as_text(rest.subspan(4, length)));
        rest = rest.subspan(4 + length);
        CHECK(reply.text.size() <= LoginMachine::kMaxDataBytes);
        CHECK(printable(reply.why, reply.why.size()) == reply.why);
        CHECK(!over || reply.status() == LoginStatus::kInvalidDuringLogin);
        CHECK((reply.status() == LoginStatus::kSuccess) == reply.why.empty());
        over |= reply.full_feature || reply.status() != LoginStatus::kSuccess;
        if (reply.full_feature) {
            CHECK(reply.status() == LoginStatus::kSuccess && valid_iscsi_name(machine.initiator()));
            CHECK(machine.discovery() || machine.target() != nullptr);
            check_parameters(machine.parameters());
        }
    }
    return 0;
}
