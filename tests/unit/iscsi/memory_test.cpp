// SPDX-License-Identifier: Apache-2.0
// Buffer memory between sessions: what one takes and does not give back costs itself, and the others go on.
#include <map>

#include "target/iscsi/memory_share.hpp"
#include "tests/unit/iscsi/initiator.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

constexpr std::uint8_t kRead = kFinal | kCommandRead;
constexpr std::uint8_t kWrite = kFinal | kCommandWrite;
constexpr std::uint8_t kLunReset = 5;
constexpr std::uint8_t kTaskSetFull = 0x28;
constexpr std::size_t kMiB = 1U << 20U;
constexpr ServerLimits kSmall{.data_memory = 8 * kMiB};  ///< one session: 4 MiB

TEST(MemoryShare, n_greedy_sessions_hold_a_part_of_n_plus_1_each_and_leave_one_for_the_next) {
    constexpr std::size_t kBytes = 240 * kMiB;
    for (const std::size_t n : {1U, 2U, 5U, 14U}) {
        MemoryBudget budget(kBytes);
        std::vector<std::unique_ptr<MemoryShare>> shares;
        std::vector<MemoryShare::Grant> grants;
        for (std::size_t i = 0; i < n; ++i) {
            shares.push_back(std::make_unique<MemoryShare>(budget));
        }
        bool more = true;
        while (more) {
            more = false;
            for (const auto& share : shares) {
                auto grant = share->take(64 * 1024);
                more |= grant.bytes() > 0;
                grants.push_back(std::move(grant));
            }
        }
        for (const auto& share : shares) {
            EXPECT_LE(share->held(), kBytes / (n + 1) + kMiB) << n;
            EXPECT_GE(share->held(), kBytes / (n + 1) - kMiB) << n;
        }
        EXPECT_LE(budget.used(), kBytes);
        EXPECT_GE(MemoryShare(budget).room(), kBytes / (n + 1) / 2 - kMiB) << n;
        grants.clear();
        EXPECT_EQ(budget.used(), 0U) << n;
    }
}

TEST(MemoryShare, counts_what_the_pool_takes_and_keeps_nothing_when_it_holds_nothing) {
    MemoryBudget budget(8 * kMiB);
    MemoryShare share(budget);
    auto grant = share.take(5000);
    EXPECT_EQ(grant.bytes(), 8192U);
    auto other = share.take(1);
    EXPECT_EQ(share.held(), 8192U + 4096U);
    EXPECT_EQ(share.take(4 * kMiB).bytes(), 0U);
    grant.shrink(4096);
    EXPECT_EQ(share.held(), 8192U);
    grant = std::move(other);
    EXPECT_EQ(share.held(), 8192U);
    grant = MemoryShare::Grant{};
    other = MemoryShare::Grant{};
    EXPECT_EQ(share.held(), 0U);
    EXPECT_EQ(budget.used(), 0U);
    EXPECT_EQ(share.take(4 * kMiB).bytes(), 4 * kMiB) << "half of it for one";
}

/// Takes what comes until nothing does for `quiet`; every R2T by tag and every status.
struct Seen {
    std::vector<ReadyToTransfer> r2ts;
    std::map<std::uint32_t, std::uint8_t> statuses;
    bool logged_out = false;
};

Task<void> collect(Initiator& i, Seen& seen, Duration quiet = 1s) {
    while (auto pdu = co_await i.receive(quiet)) {
        if (pdu->opcode() == Opcode::kReadyToTransfer) {
            seen.r2ts.push_back(pdu->as<ReadyToTransfer>());
        } else if (pdu->opcode() == Opcode::kScsiResponse) {
            const auto response = pdu->as<ScsiResponse>();
            seen.statuses[response.initiator_task_tag] = response.status;
        } else if (pdu->opcode() == Opcode::kDataIn && pdu->as<DataIn>().flags & kDataInStatus) {
            seen.statuses[pdu->as<DataIn>().initiator_task_tag] = pdu->as<DataIn>().status;
        }
        seen.logged_out = pdu->opcode() == Opcode::kLogoutResponse;
    }
}

Task<void> answer(Initiator& i, ReadyToTransfer r2t, const std::vector<std::byte>& all) {
    constexpr std::uint32_t kSegment = 131072;
    DataOut data;
    data.initiator_task_tag = r2t.initiator_task_tag;
    data.target_transfer_tag = r2t.target_transfer_tag;
    data.lun = r2t.lun;
    for (std::uint32_t sent = 0; sent < r2t.desired_length; ++data.data_sn) {
        const std::uint32_t n = std::min(kSegment, r2t.desired_length - sent);
        data.buffer_offset = r2t.buffer_offset + sent;
        sent += n;
        data.flags = sent == r2t.desired_length ? kFinal : 0;
        const ConstBytes part = ConstBytes(all).subspan(data.buffer_offset, n);
        co_await i.send(data, std::vector<std::byte>(part.begin(), part.end()));
    }
}

Task<void> log_out(Initiator& i) {
    LogoutRequest logout;
    logout.immediate = true;
    logout.flags = kFinal;
    logout.initiator_task_tag = 0x7777;
    logout.cmd_sn = i.cmd_sn;
    co_await i.send(logout);
}

Task<void> neighbour_works(World& w, std::size_t bytes) {
    Initiator neighbour(w, "iqn.2026-11.org.example:neighbour");
    neighbour.host = "elsewhere";
    co_await neighbour.log_in();
    co_await neighbour.prove_healthy();
    EXPECT_EQ((co_await neighbour.write(0, pattern(bytes, 9))).status, 0);
    EXPECT_EQ((co_await neighbour.read(0, static_cast<std::uint16_t>(bytes / 512))).status, 0);
    co_await neighbour.close();
}

SCENARIO_WITH(Memory, writes_whose_data_does_not_come_hold_one_share_and_the_rest_waits_its_turn, kSmall) {
    Initiator slow(w);
    co_await slow.log_in({"ImmediateData=No", "MaxBurstLength=1048576"});
    for (unsigned n = 0; n < 7; ++n) {
        co_await slow.send(slow.command_pdu(write10(n, 2048), kWrite, kMiB));
    }
    const std::vector<std::byte> data = pattern(kMiB, 5);
    Seen seen;
    co_await collect(slow, seen);
    EXPECT_EQ(seen.r2ts.size(), 4U) << "asked for more data than the session has memory for";
    EXPECT_EQ(w.environment.pool().outstanding_bytes(), 4 * kMiB);
    EXPECT_TRUE(seen.statuses.empty()) << "a command that can wait is not answered";
    co_await neighbour_works(w, 2 * kMiB);
    // Half of its data, then nothing: the same.
    co_await answer(slow, seen.r2ts[0], data);
    co_await answer(slow, seen.r2ts[1], data);
    co_await collect(slow, seen);
    EXPECT_EQ(seen.r2ts.size(), 6U);
    EXPECT_EQ(seen.statuses.size(), 2U);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 4 * kMiB);
    co_await neighbour_works(w, 2 * kMiB);
    for (std::size_t n = 2; n < seen.r2ts.size(); ++n) {
        co_await answer(slow, seen.r2ts[n], data);
        co_await collect(slow, seen, 10ms);
    }
    EXPECT_EQ(seen.r2ts.size(), 7U);
    EXPECT_EQ(seen.statuses.size(), 7U);
    EXPECT_TRUE(std::ranges::all_of(seen.statuses, [](const auto& s) { return s.second == 0; }));
    co_await slow.close();
}

SCENARIO_WITH(Memory, reads_whose_data_is_not_taken_hold_one_share_and_others_go_on, kSmall) {
    Initiator slow(w);
    co_await slow.log_in({"MaxRecvDataSegmentLength=262144"});
    w.network.block("target", "client");
    for (unsigned n = 0; n < 7; ++n) {
        co_await slow.send(slow.command_pdu(read10(n, 2048), kRead, kMiB));
    }
    co_await sleep_for(w.clock(), 100ms);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 4 * kMiB);
    EXPECT_EQ(w.device.reads_done, 3U) << "and room for data that may come unasked";
    co_await neighbour_works(w, 2 * kMiB);
    w.network.unblock("target", "client");
    Seen seen;
    co_await collect(slow, seen);
    EXPECT_EQ(seen.statuses.size(), 7U);
    EXPECT_TRUE(std::ranges::all_of(seen.statuses, [](const auto& s) { return s.second == 0; }));
    co_await slow.prove_healthy();
    co_await slow.close();
}

SCENARIO_WITH(Memory, data_that_comes_unasked_has_its_place_and_the_whole_buffer_follows, kSmall) {
    Initiator i(w);
    co_await i.log_in({"InitialR2T=No", "FirstBurstLength=262144"});
    const std::vector<std::byte> data = pattern(kMiB, 5);
    Seen seen;
    unsigned sent = 0;
    for (int round = 0; round < 100 && seen.statuses.size() < 40; ++round) {
        while (sent < 40 && !serial_before(i.max_cmd_sn, i.cmd_sn)) {
            co_await i.send(i.command_pdu(write10(2048 * (sent++ % 4), 2048), kWrite, kMiB),
                            std::vector<std::byte>(data.begin(), data.begin() + 262144));
        }
        co_await collect(i, seen, 10ms);
        EXPECT_LE(w.environment.pool().outstanding_bytes(), 4 * kMiB);
        for (const ReadyToTransfer& r2t : std::exchange(seen.r2ts, {})) {
            EXPECT_GE(r2t.buffer_offset, 262144U);
            co_await answer(i, r2t, data);
        }
    }
    EXPECT_EQ(seen.statuses.size(), 40U);
    EXPECT_EQ(std::ranges::count_if(seen.statuses, [](const auto& s) { return s.second == 0; }), 40)
        << "the window admitted more than there was room for";
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(0), kMiB), data));
    co_await i.close();
}

/// Receives until `answers` commands have their status, and sends what is asked for. Answers pings.
Task<Seen> serve_writes(Initiator& i, std::size_t answers, const std::vector<std::byte>& data) {
    Seen seen;
    while (seen.statuses.size() < answers) {
        const auto pdu = co_await i.receive(600s);
        if (!pdu) {
            break;
        }
        if (pdu->opcode() == Opcode::kReadyToTransfer) {
            seen.r2ts.push_back(pdu->as<ReadyToTransfer>());
            co_await answer(i, seen.r2ts.back(), data);
        } else if (pdu->opcode() == Opcode::kScsiResponse) {
            seen.statuses[pdu->as<ScsiResponse>().initiator_task_tag] = pdu->as<ScsiResponse>().status;
        } else if (pdu->opcode() == Opcode::kNopIn) {
            NopOut pong;
            pong.immediate = true;
            pong.flags = kFinal;
            pong.target_transfer_tag = pdu->as<NopIn>().target_transfer_tag;
            pong.cmd_sn = i.cmd_sn;
            co_await i.send(pong);
        }
    }
    co_return seen;
}

SCENARIO_WITH(Memory, writes_that_wait_with_their_unasked_data_do_not_wait_for_one_another, kSmall) {
    const std::vector<std::byte> data = pattern(kMiB, 5);
    for (const std::uint16_t taken : std::initializer_list<std::uint16_t>{8192, 4096, 1024}) {
        Initiator slow(w);
        co_await slow.log_in({"ImmediateData=No"});
        co_await slow.send(slow.command_pdu(write10(0, taken), kWrite, taken * 512U));  // its data never comes
        Initiator i(w, "iqn.2026-11.org.example:other");
        co_await i.log_in({"InitialR2T=No", "FirstBurstLength=262144"});
        const TimePoint from = w.clock().now();
        for (unsigned n = 0; n < 3; ++n) {
            co_await i.send(i.command_pdu(write10(2048 * n, 2048), kWrite, kMiB),
                            std::vector<std::byte>(data.begin(), data.begin() + 262144));
        }
        const Seen seen = co_await serve_writes(i, 3, data);
        EXPECT_EQ(seen.statuses.size(), 3U) << taken;
        EXPECT_TRUE(std::ranges::all_of(seen.statuses, [](const auto& s) { return s.second == 0; })) << taken;
        EXPECT_LT(w.clock().now() - from, 1s) << "waited for the other session";
        co_await i.close();
        co_await slow.close();
        co_await sleep_for(w.clock(), 10ms);
    }
}

SCENARIO_WITH(Memory, when_all_that_hold_memory_wait_the_first_is_refused_and_the_others_go_on, kSmall) {
    // Three others leave 512 KiB, which no end of theirs adds to.
    std::vector<std::unique_ptr<Initiator>> others;
    for (const std::uint32_t mib : {4U, 2U, 1U}) {
        others.push_back(std::make_unique<Initiator>(w, "iqn.2026-11.org.example:other" + std::to_string(mib)));
        co_await others.back()->log_in({"ImmediateData=No"});
        co_await others.back()->send(
            others.back()->command_pdu(write10(0, static_cast<std::uint16_t>(mib * 2048)), kWrite, mib << 20U));
    }
    co_await sleep_for(w.clock(), 10ms);
    Initiator i(w);
    co_await i.log_in({"InitialR2T=No", "FirstBurstLength=65536"});
    const std::vector<std::byte> data = pattern(kMiB, 5);
    // One number is missing: what follows is held with its unasked data, and none gets the rest of its buffer.
    const std::uint32_t hole = i.cmd_sn++;
    const std::uint32_t tag = i.next_tag;
    for (const std::uint32_t kib : {1024U, 256U, 256U}) {
        co_await i.send(i.command_pdu(write10(0, static_cast<std::uint16_t>(kib * 2)), kWrite, kib * 1024),
                        std::vector<std::byte>(data.begin(), data.begin() + 65536));
    }
    NopOut plug;
    plug.flags = kFinal;
    plug.initiator_task_tag = 0x7777;
    plug.cmd_sn = hole;
    const TimePoint from = w.clock().now();
    co_await i.send(plug);
    const Seen seen = co_await serve_writes(i, 3, data);
    EXPECT_EQ(seen.statuses, (std::map<std::uint32_t, std::uint8_t>{{tag, kTaskSetFull}, {tag + 1, 0}, {tag + 2, 0}}));
    EXPECT_LT(w.clock().now() - from, 1s) << "waited for the other sessions";
    co_await i.close();
    for (const auto& other : others) {
        co_await other->close();
    }
}

SCENARIO_WITH(Memory, what_comes_when_memory_is_just_free_again_queues_behind_what_waits, kSmall) {
    Initiator i(w);
    co_await i.log_in({"ImmediateData=No", "MaxBurstLength=1048576"});
    co_await i.send(i.command_pdu(write10(0, 8192), kWrite, 4 * kMiB));
    co_await i.send(i.command_pdu(write10(0, 2048), kWrite, kMiB));
    Seen seen;
    co_await collect(i, seen);
    EXPECT_EQ(seen.r2ts.size(), 1U) << "the second waits";
    // In one read: what ends the first command, and two more.
    DataOut wrong;
    wrong.initiator_task_tag = seen.r2ts[0].initiator_task_tag;
    wrong.target_transfer_tag = seen.r2ts[0].target_transfer_tag;
    wrong.lun = seen.r2ts[0].lun;
    wrong.data_sn = 7;
    std::vector<std::byte> all = i.frame(encode(wrong), {});
    std::ranges::copy(i.frame(encode(i.command_pdu(write10(0, 2048), kWrite, kMiB)), {}), std::back_inserter(all));
    std::ranges::copy(i.frame(encode(i.command_pdu(read10(0, 2048), kRead, kMiB)), {}), std::back_inserter(all));
    const std::vector<std::byte> data = pattern(kMiB, 5);
    seen = Seen{};
    co_await i.send_raw(std::move(all));
    co_await collect(i, seen);
    EXPECT_EQ(seen.r2ts.size(), 2U);
    for (const ReadyToTransfer& r2t : seen.r2ts) {
        co_await answer(i, r2t, data);
    }
    co_await collect(i, seen);
    EXPECT_EQ(seen.statuses.size(), 4U);
    EXPECT_EQ(std::ranges::count_if(seen.statuses, [](const auto& s) { return s.second == 0; }), 3)
        << "refused while memory was free";
    co_await i.close();
}

SCENARIO_WITH(Memory, the_first_window_is_what_there_is_room_for_at_the_login, kSmall) {
    Initiator slow(w);
    co_await slow.log_in({"ImmediateData=No"});
    co_await slow.send(slow.command_pdu(write10(0, 8192), kWrite, 4 * kMiB));
    Initiator i(w, "iqn.2026-11.org.example:other");
    const auto places = [&](std::vector<std::string> keys) -> Task<std::uint32_t> {
        const auto reply = co_await i.try_login(std::move(keys));
        co_await i.close();
        co_return reply->numbers.max_cmd_sn - reply->numbers.exp_cmd_sn + 1;
    };
    EXPECT_EQ(co_await places({"FirstBurstLength=262144"}), 4U) << "half of 2 MiB";
    EXPECT_EQ(co_await places({"FirstBurstLength=524288", "InitialR2T=No"}), 4U) << "ours is 262144";
    EXPECT_EQ(co_await places({"FirstBurstLength=131072"}), 8U);
    EXPECT_EQ(co_await places({"ImmediateData=No"}), 8U) << "nothing comes unasked";
    co_await slow.close();
}

SCENARIO_WITH(Memory, a_session_without_any_is_answered_busy_and_does_not_wait_for_others, kSmall) {
    Initiator slow(w);
    co_await slow.log_in({"ImmediateData=No"});
    co_await slow.send(slow.command_pdu(write10(0, 8192), kWrite, 4 * kMiB));
    Seen seen;
    co_await collect(slow, seen);
    Initiator i(w, "iqn.2026-11.org.example:other");
    co_await i.log_in();
    EXPECT_EQ((co_await i.read(0, 8192)).status, 0x08);
    EXPECT_EQ((co_await i.write(0, pattern(4 * kMiB, 1))).status, 0x08);
    EXPECT_EQ((co_await i.read(0, 4096)).status, 0) << "two of the four that are left";
    co_await i.prove_healthy();
    co_await slow.close();
    co_await sleep_for(w.clock(), 10ms);
    EXPECT_EQ((co_await i.read(0, 8192)).status, 0);
    co_await i.close();
}

SCENARIO_WITH(Memory, commands_that_wait_for_it_end_at_once_by_reset_logout_and_hanging_up, kSmall) {
    Initiator other(w, "iqn.2026-11.org.example:other");
    co_await other.log_in();
    for (int how = 0; how < 3; ++how) {
        Initiator slow(w);
        co_await slow.log_in({"ImmediateData=No"});
        for (unsigned n = 0; n < 5; ++n) {
            co_await slow.send(slow.command_pdu(write10(n, 2048), kWrite, kMiB));
        }
        co_await slow.send(slow.command_pdu(read10(0, 2048), kRead, kMiB));
        co_await slow.send(slow.command_pdu(read10(0, 2048), kRead, kMiB));
        Seen seen;
        co_await collect(slow, seen);
        EXPECT_EQ(seen.r2ts.size(), 4U);
        EXPECT_TRUE(seen.statuses.empty());
        if (how == 0) {
            const TimePoint from = w.clock().now();
            EXPECT_EQ(co_await other.manage(kLunReset), 0);
            EXPECT_LT(w.clock().now() - from, 100ms) << "waits for data of another session";
            EXPECT_EQ((co_await slow.command(test_unit_ready(), kFinal, 0)).asc(), 0x2903);
            EXPECT_EQ((co_await other.command(test_unit_ready(), kFinal, 0)).asc(), 0x2903);
            co_await slow.prove_healthy();
        } else if (how == 1) {
            co_await log_out(slow);
            co_await collect(slow, seen, 5s);
            EXPECT_EQ(seen.statuses.size(), 2U) << "the reads were complete";
            EXPECT_TRUE(seen.logged_out);
        }
        co_await slow.close();
        co_await sleep_for(w.clock(), 10ms);
        EXPECT_EQ(w.environment.pool().outstanding_bytes(), 0U) << how;
    }
    co_await other.prove_healthy();
    co_await other.close();
}

SCENARIO_WITH(Memory, a_logout_does_not_hang_when_what_waits_is_refused, kSmall) {
    Initiator i(w);
    Initiator other(w, "iqn.2026-11.org.example:other");
    co_await i.log_in({"ImmediateData=No"});
    co_await other.log_in({"ImmediateData=No"});
    co_await i.send(i.command_pdu(write10(0, 4096), kWrite, 2 * kMiB));
    co_await i.send(i.command_pdu(read10(0, 8192), kRead, 4 * kMiB));
    co_await other.send(other.command_pdu(write10(0, 4096), kWrite, 2 * kMiB));
    Seen seen;
    co_await collect(i, seen);
    EXPECT_TRUE(seen.statuses.empty());
    co_await log_out(i);
    co_await collect(i, seen, 2s);
    EXPECT_EQ(seen.statuses.size(), 1U);
    EXPECT_EQ(seen.statuses.begin()->second, 0x08) << "the other session took what it waited for";
    EXPECT_TRUE(seen.logged_out);
    co_await i.close();
    co_await other.close();
}

SCENARIO_WITH(Memory, requests_that_wait_for_a_hole_hold_no_more_than_a_share, kSmall) {
    Initiator i(w);
    co_await i.log_in({"MaxRecvDataSegmentLength=262144"});
    co_await i.send(i.command_pdu(write10(0, 4096), kWrite, 2 * kMiB));
    co_await i.send(i.command_pdu(write10(0, 2048), kWrite, kMiB));
    Seen seen;
    co_await collect(i, seen);
    EXPECT_EQ(w.environment.pool().outstanding_bytes(), 3 * kMiB);
    const std::uint32_t hole = i.cmd_sn++;
    unsigned sent = 0;
    for (; !serial_before(i.max_cmd_sn, i.cmd_sn); ++sent) {
        NopOut ping;
        ping.flags = kFinal;
        ping.initiator_task_tag = i.next_tag++;
        ping.cmd_sn = i.cmd_sn++;
        co_await i.send(ping, std::vector<std::byte>(262144));
    }
    EXPECT_GT(sent, 4U) << "the window admits no more than there is room for: the test shows nothing";
    co_await sleep_for(w.clock(), 100ms);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 4 * kMiB);
    unsigned refused = 0;
    while (const auto pdu = co_await i.receive(10ms)) {
        if (pdu->opcode() == Opcode::kReject) {
            ++refused;
            EXPECT_EQ(pdu->as<Reject>().reason, static_cast<std::uint8_t>(RejectReason::kOutOfResources));
        }
    }
    EXPECT_EQ(refused, sent - 4) << "1 MiB was left";
    co_await neighbour_works(w, kMiB);
    NopOut plug;
    plug.flags = kFinal;
    plug.initiator_task_tag = i.next_tag++;
    plug.cmd_sn = hole;
    co_await i.send(plug);
    unsigned echoes = 0;
    while (const auto pdu = co_await i.receive(10ms)) {
        echoes += pdu->opcode() == Opcode::kNopIn ? 1 : 0;
    }
    EXPECT_EQ(echoes, 5U) << "what was held is answered";
    EXPECT_EQ(w.environment.pool().outstanding_bytes(), 3 * kMiB);
    co_await i.close();
}

}  // namespace
}  // namespace gemel::iscsi::test
