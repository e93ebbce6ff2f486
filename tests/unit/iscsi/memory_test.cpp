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
    co_await i.log_in();
    ++i.cmd_sn;
    for (unsigned n = 0; n < 15; ++n) {
        NopOut ping;
        ping.initiator_task_tag = i.next_tag++;
        ping.cmd_sn = i.cmd_sn++;
        co_await i.send(ping, std::vector<std::byte>(262144));
        if (n == 7) {
            co_await i.send(i.command_pdu(write10(0, 4096), kWrite, 2 * kMiB));
        }
    }
    co_await sleep_for(w.clock(), 100ms);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 4 * kMiB + 262144U);
    co_await neighbour_works(w, kMiB);
    co_await i.close();
}

}  // namespace
}  // namespace gemel::iscsi::test
