// SPDX-License-Identifier: Apache-2.0
// What tests of peers that break the rules share: the answers there are, and PDUs that are wrong in one place.
// Threads: the simulator's one.
#pragma once

#include "tests/unit/iscsi/initiator.hpp"

namespace gemel::iscsi::test {

inline constexpr std::uint8_t kRead = kFinal | kCommandRead;
inline constexpr std::uint8_t kWrite = kFinal | kCommandWrite;

/// The answer that the server must give.
enum class Answer { kClose, kSilence, kReject, kSense, kManaged, kLogout };

struct Expected {
    Answer answer;
    int code = 0;  ///< reason of the Reject, ASC and ASCQ, or the response
};

inline Task<void> expect(Initiator& i, Expected e, const char* what) {
    if (e.answer == Answer::kClose) {
        EXPECT_TRUE(co_await i.wait_closed(std::chrono::seconds(5))) << what;
        co_return;
    }
    const auto reply = co_await i.receive(std::chrono::seconds(e.answer == Answer::kSilence ? 2 : 5));
    EXPECT_FALSE(i.closed()) << what;
    EXPECT_EQ(reply.has_value(), e.answer != Answer::kSilence) << what;
    if (!reply) {
        co_return;
    }
    if (e.answer == Answer::kReject) {
        EXPECT_EQ(int(reply->as<Reject>().reason), e.code) << what;
        EXPECT_EQ(reply->data.size(), kBhsBytes) << what;
    } else if (e.answer == Answer::kManaged) {
        EXPECT_EQ(int(reply->as<TaskManagementResponse>().response), e.code) << what;
    } else if (e.answer == Answer::kLogout) {
        EXPECT_EQ(int(reply->as<LogoutResponse>().response), e.code) << what;
    } else {
        EXPECT_EQ(reply->as<ScsiResponse>().status, 2) << what;
        Outcome o;
        o.sense.assign(reply->data.begin() + std::min<std::ptrdiff_t>(2, std::ssize(reply->data)), reply->data.end());
        EXPECT_EQ(o.asc(), e.code) << what;
    }
}

inline Task<void> neighbour_is_healthy(World& w) {
    Initiator neighbour(w, "iqn.2026-11.org.example:neighbour");
    co_await neighbour.log_in();
    co_await neighbour.prove_healthy();
    co_await neighbour.close();
}

template <class Pdu>
std::vector<std::byte> with(Initiator& i, Pdu pdu, std::size_t data = 0, std::size_t ahs = 0) {
    pdu.data_length = static_cast<std::uint32_t>(data);
    pdu.ahs_words = static_cast<std::uint8_t>(ahs / 4);
    return i.frame(encode(pdu), pattern(data, 2), std::vector<std::byte>(ahs));
}

inline std::vector<std::byte> opcode_only(Initiator& i, std::uint8_t opcode) {
    BhsBytes bhs{};
    bhs[0] = static_cast<std::byte>(opcode);
    return i.frame(bhs, {});
}

template <class Pdu>
Pdu immediate_pdu(Initiator& i) {
    Pdu p;
    p.immediate = true;
    p.initiator_task_tag = i.next_tag++;
    p.cmd_sn = i.cmd_sn;
    return p;
}

}  // namespace gemel::iscsi::test
