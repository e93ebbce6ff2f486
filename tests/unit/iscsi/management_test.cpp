// SPDX-License-Identifier: Apache-2.0
// Aborts, resets and reinstatement, with commands held inside the device: nothing is answered before it has ended.
#include "tests/unit/iscsi/initiator.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

constexpr std::uint8_t kRead = kFinal | kCommandRead;
constexpr std::uint8_t kWrite = kFinal | kCommandWrite;
constexpr std::uint8_t kAbortTask = 1;
constexpr std::uint8_t kAbortTaskSet = 2;
constexpr std::uint8_t kClearTaskSet = 4;
constexpr std::uint8_t kLunReset = 5;
constexpr std::uint8_t kWarmReset = 6;
constexpr std::uint8_t kColdReset = 7;

/// Sends the request and returns its tag, without waiting for the response.
Task<std::uint32_t> send_management(Initiator& i, std::uint8_t function, std::uint32_t referenced,
                                    std::uint64_t lun = 0) {
    TaskManagementRequest request;
    request.immediate = true;
    request.flags = kFinal | function;
    request.lun = scsi::encode_lun(lun);
    request.initiator_task_tag = i.next_tag++;
    request.referenced_task_tag = referenced;
    request.cmd_sn = i.cmd_sn;
    request.ref_cmd_sn = i.cmd_sn - 1;
    co_await i.send(request);
    co_return request.initiator_task_tag;
}

Task<std::uint32_t> send_held_read(World& w, Initiator& i) {
    w.device.hold_reads = true;
    const auto pdu = i.command_pdu(read10(0, 8), kRead, 4096);
    co_await i.send(pdu);
    while (w.device.held == 0) {
        co_await sleep_for(w.clock(), 100us);
    }
    co_return pdu.initiator_task_tag;
}

SCENARIO(AbortTask, of_a_running_command_answers_after_its_io_and_the_command_never) {
    Initiator i(w);
    co_await i.log_in();
    const std::uint32_t tag = co_await send_held_read(w, i);
    co_await send_management(i, kAbortTask, tag);
    EXPECT_FALSE((co_await i.receive(5s)).has_value()) << "answered while the device still works";
    w.device.release();
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<TaskManagementResponse>().response == 0);
    EXPECT_EQ(w.device.reads_done, 1U);
    EXPECT_FALSE((co_await i.receive(1s)).has_value()) << "the aborted command was answered";
    co_await i.prove_healthy();
    EXPECT_EQ(i.max_cmd_sn - i.exp_cmd_sn, 127U) << "the aborted command keeps its place in the window";
    co_await i.close();
}

SCENARIO(AbortTask, of_a_command_that_waits_for_data_ends_it_at_once) {
    Initiator i(w);
    co_await i.log_in({"ImmediateData=No"});
    const auto pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
    co_await i.send(pdu);
    const auto r2t = co_await i.receive(5s);
    EXPECT_TRUE(r2t.has_value());
    EXPECT_EQ(co_await i.manage(kAbortTask, pdu.initiator_task_tag), 0);
    DataOut late;
    late.initiator_task_tag = pdu.initiator_task_tag;
    late.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
    co_await i.send(late, pattern(4096, 1));
    EXPECT_FALSE((co_await i.receive(1s)).has_value());
    EXPECT_EQ(w.device.writes_done, 0U);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(AbortTask, of_what_is_not_there_says_so) {
    Initiator i(w);
    co_await i.log_in();
    EXPECT_EQ(co_await i.manage(kAbortTask, 0x7777), 1);
    EXPECT_EQ(co_await i.manage(kAbortTask, kReservedTag), 1);
    // A command whose CmdSN never came: it counts as received, and the next one has its turn.
    i.cmd_sn += 1;
    EXPECT_EQ(co_await i.manage(kAbortTask, 0x7777), 0);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(AbortTask, of_its_own_tag_or_of_another_lun_finds_nothing) {
    Initiator i(w);
    co_await i.log_in();
    const std::uint32_t tag = co_await send_held_read(w, i);
    EXPECT_EQ(co_await i.manage(kAbortTask, i.next_tag), 1);
    EXPECT_EQ(co_await i.manage(kAbortTask, tag, 5), 1);
    w.device.release();
    EXPECT_EQ((co_await i.finish(tag)).status, 0);
    co_await i.close();
}

/// Of LUN 0, of all sessions.
LunTotals totals_of(const World& w) {
    return w.server->statistics().targets.front().luns.front().totals;
}

SCENARIO(Statistics, count_each_command_once_by_kind_status_and_time) {
    Initiator i(w);
    co_await i.log_in();
    const LunTotals before = totals_of(w);
    EXPECT_EQ((co_await i.read(0, 16)).status, 0);
    EXPECT_EQ((co_await i.write(8, pattern(4096, 1))).status, 0);
    EXPECT_NE((co_await i.read(0x7fffffff, 1)).status, 0);
    const LunTotals after = totals_of(w);
    const auto& reads = after.kinds[static_cast<std::size_t>(CommandKind::kRead)];
    const auto& writes = after.kinds[static_cast<std::size_t>(CommandKind::kWrite)];
    EXPECT_EQ(reads.operations, 1U);
    EXPECT_EQ(reads.bytes, 8192U);
    EXPECT_EQ(writes.operations, 1U);
    EXPECT_EQ(writes.bytes, 4096U);
    EXPECT_EQ(reads.latency[latency_bucket(10us)], 1U) << "the device takes 10 us";
    // A command that its CDB alone condemns moves nothing: it is none of the two.
    EXPECT_EQ(after.kinds[2].failed, before.kinds[2].failed + 1);
    EXPECT_EQ(after.in_flight, 0U);
    EXPECT_EQ(after.most_in_flight, 1U);
    co_await i.close();
}

SCENARIO(Statistics, count_aborted_commands_and_outlive_the_session) {
    Initiator i(w);
    co_await i.log_in();
    const std::uint32_t tag = co_await send_held_read(w, i);
    EXPECT_EQ(totals_of(w).in_flight, 1U);
    co_await send_management(i, kAbortTask, tag);
    w.device.release();
    EXPECT_TRUE((co_await i.receive(5s)).has_value());
    EXPECT_EQ(totals_of(w).aborted, 1U);
    EXPECT_EQ(totals_of(w).in_flight, 0U);
    EXPECT_EQ((co_await i.read(0, 1)).status, 0);
    const ServerStatistics open = w.server->statistics();
    EXPECT_EQ(open.sessions.size(), 1U);
    EXPECT_EQ(open.targets.front().sessions, 1U);
    co_await i.close();
    co_await sleep_for(w.clock(), 5s);
    const ServerStatistics closed = w.server->statistics();
    EXPECT_TRUE(closed.sessions.empty());
    EXPECT_EQ(closed.targets.front().luns.front().totals.kinds[0].operations, 1U);
    EXPECT_EQ(closed.targets.front().luns.front().totals.aborted, 1U);
}

SCENARIO(Statistics, tell_what_a_session_sent_in_vain) {
    Initiator i(w);
    co_await i.log_in({"DataDigest=CRC32C"});
    auto outside = i.command_pdu(read10(0, 1), kRead, 512);
    outside.cmd_sn += 1000;
    --i.cmd_sn;
    co_await i.send(outside);
    i.data_digest = i.corrupt_data_digest = true;
    co_await i.send(i.command_pdu(write10(0, 1), kWrite, 512), pattern(512, 1));
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->opcode() == Opcode::kReject);
    const SessionReport report = w.server->statistics().sessions.front();
    EXPECT_EQ(report.ignored, 1U);
    EXPECT_EQ(report.digest_errors, 1U);
    EXPECT_EQ(report.rejected, 1U);
    co_await i.close();
}

SCENARIO(AbortTask, racing_completion_ends_every_command_exactly_once) {
    Initiator i(w);
    co_await i.log_in();
    std::size_t answered = 0;
    std::size_t aborted = 0;
    for (unsigned n = 0; n < 3000; ++n) {
        const auto pdu = i.command_pdu(read10(0, 1), kRead, 512);
        co_await i.send(pdu);
        co_await sleep_for(w.clock(), std::chrono::microseconds(w.scheduler.random().below(700)));
        const std::uint32_t manage_tag = co_await send_management(i, kAbortTask, pdu.initiator_task_tag);
        bool command_answered = false;
        while (true) {
            const auto reply = co_await i.receive(5s);
            if (!reply) {
                ADD_FAILURE() << "no response to the abort";
                break;
            }
            if (decode_head(reply->bhs.data()).initiator_task_tag == pdu.initiator_task_tag) {
                EXPECT_FALSE(command_answered);
                command_answered = true;
                continue;
            }
            const auto response = reply->as<TaskManagementResponse>();
            EXPECT_EQ(response.initiator_task_tag, manage_tag);
            EXPECT_EQ(response.response, command_answered ? 1 : 0);
            break;
        }
        ++(command_answered ? answered : aborted);
    }
    EXPECT_GT(answered, 100U);
    EXPECT_GT(aborted, 100U);
    EXPECT_EQ(i.max_cmd_sn - i.exp_cmd_sn, 127U);
    co_await i.close();
}

SCENARIO(TaskManagement, what_is_not_supported_is_answered_with_its_code) {
    Initiator i(w);
    co_await i.log_in();
    const std::pair<int, int> cases[] = {{0, 5}, {3, 5}, {8, 4}, {9, 5}, {127, 5}};
    for (const auto& [function, response] : cases) {
        EXPECT_EQ(co_await i.manage(static_cast<std::uint8_t>(function)), response) << function;
    }
    EXPECT_EQ(co_await i.manage(kLunReset, kReservedTag, 77), 2);
    EXPECT_EQ(co_await i.manage(kAbortTaskSet, kReservedTag, 77), 2);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(LunReset, waits_for_the_tasks_of_every_session_and_tells_each_nexus_once) {
    Initiator one(w);
    Initiator two(w, "iqn.2026-11.org.example:other");
    co_await one.log_in();
    co_await two.log_in();
    const std::uint32_t first = co_await send_held_read(w, one);
    const auto second = two.command_pdu(read10(8, 8), kRead, 4096);
    co_await two.send(second);
    const auto collecting = two.command_pdu(write10(0, 8), kWrite, 4096);
    co_await two.send(collecting);
    EXPECT_TRUE((co_await two.receive(5s)).has_value());  // its R2T
    co_await send_management(one, kLunReset, kReservedTag);
    EXPECT_FALSE((co_await one.receive(5s)).has_value());
    w.device.release();
    const auto reply = co_await one.receive(5s);
    EXPECT_TRUE(reply && reply->as<TaskManagementResponse>().response == 0);
    EXPECT_EQ(w.device.reads_done, 2U);
    EXPECT_FALSE((co_await two.receive(1s)).has_value());
    for (Initiator* i : {&one, &two}) {
        const Outcome attention = co_await i->command(test_unit_ready(), kFinal, 0);
        EXPECT_EQ(attention.sense_key(), 6);
        EXPECT_EQ(attention.asc(), 0x2903);
        EXPECT_EQ((co_await i->command(test_unit_ready(), kFinal, 0)).status, 0);
        EXPECT_EQ(i->max_cmd_sn - i->exp_cmd_sn, 127U);
    }
    EXPECT_NE(first, 0U);
    co_await one.prove_healthy();
    co_await one.close();
    co_await two.close();
}

SCENARIO(LunReset, waits_for_own_tasks) {
    Initiator i(w);
    co_await i.log_in();
    co_await send_held_read(w, i);
    co_await send_management(i, kLunReset, kReservedTag);
    EXPECT_FALSE((co_await i.receive(5s)).has_value());
    w.device.release();
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<TaskManagementResponse>().response == 0);
    co_await i.close();
}

SCENARIO(LunReset, waits_for_the_tasks_of_a_session_that_has_hung_up) {
    Initiator gone(w);
    Initiator i(w, "iqn.2026-11.org.example:other");
    co_await gone.log_in();
    co_await i.log_in();
    co_await send_held_read(w, gone);
    co_await gone.close();
    co_await sleep_for(w.clock(), 20ms);
    co_await send_management(i, kLunReset, kReservedTag);
    EXPECT_FALSE((co_await i.receive(5s)).has_value());
    w.device.release();
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<TaskManagementResponse>().response == 0);
    co_await i.close();
}

SCENARIO(LunReset, does_not_wait_for_data_that_another_session_sends_slowly) {
    Initiator one(w);
    Initiator two(w, "iqn.2026-11.org.example:other");
    co_await one.log_in({"ImmediateData=No"});
    co_await two.log_in();
    const auto pdu = one.command_pdu(write10(0, 128), kWrite, 65536);
    co_await one.send(pdu);
    const auto r2t = co_await one.receive(5s);
    EXPECT_TRUE(r2t.has_value());
    DataOut data;
    data.initiator_task_tag = pdu.initiator_task_tag;
    data.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
    data.data_length = 65536;
    std::vector<std::byte> bytes = one.frame(encode(data), pattern(65536, 4));
    std::vector<std::byte> rest(bytes.begin() + 30000, bytes.end());
    bytes.resize(30000);
    co_await one.send_raw(std::move(bytes));
    co_await sleep_for(w.clock(), 10ms);
    co_await send_management(two, kLunReset, kReservedTag);
    const auto reply = co_await two.receive(1s);
    EXPECT_TRUE(reply && reply->as<TaskManagementResponse>().response == 0) << "waits for the rest of a Data-Out";
    EXPECT_EQ(w.environment.pool().outstanding_bytes(), 65536U) << "the receiver still writes into the buffer";
    co_await one.send_raw(std::move(rest));
    co_await sleep_for(w.clock(), 10ms);
    EXPECT_EQ(w.environment.pool().outstanding_bytes(), 0U);
    EXPECT_EQ(w.device.writes_done, 0U);
    EXPECT_EQ((co_await one.command(test_unit_ready(), kFinal, 0)).asc(), 0x2903);
    co_await one.prove_healthy();
    co_await one.close();
    co_await two.close();
}

SCENARIO(LunReset, from_both_sides_at_once_ends_also_when_both_disconnect) {
    Initiator one(w);
    Initiator two(w, "iqn.2026-11.org.example:other");
    co_await one.log_in();
    co_await two.log_in();
    co_await send_held_read(w, one);
    co_await two.send(two.command_pdu(read10(8, 8), kRead, 4096));
    co_await send_management(one, kLunReset, kReservedTag);
    co_await send_management(two, kLunReset, kReservedTag);
    co_await sleep_for(w.clock(), 5ms);
    co_await one.close();
    co_await two.close();
    co_await sleep_for(w.clock(), 5ms);
    EXPECT_EQ(w.server->status().sessions.size(), 2U) << "a session is gone while its command runs";
    w.device.release();
    co_await sleep_for(w.clock(), 100ms);
    EXPECT_TRUE(w.server->status().sessions.empty());
}

SCENARIO(TaskSets, abort_ends_own_tasks_only_and_clear_ends_all) {
    Initiator one(w);
    Initiator two(w, "iqn.2026-11.org.example:other");
    co_await one.log_in();
    co_await two.log_in();
    co_await send_held_read(w, one);
    const auto other = two.command_pdu(read10(8, 8), kRead, 4096);
    co_await two.send(other);
    co_await sleep_for(w.clock(), 5ms);
    co_await send_management(one, kAbortTaskSet, kReservedTag);
    EXPECT_FALSE((co_await one.receive(1s)).has_value()) << "answered while the device still works";
    w.device.release();
    EXPECT_EQ((co_await one.receive(5s))->as<TaskManagementResponse>().response, 0);
    EXPECT_EQ((co_await two.finish(other.initiator_task_tag)).status, 0);
    co_await send_held_read(w, two);
    co_await send_management(one, kClearTaskSet, kReservedTag);
    EXPECT_FALSE((co_await one.receive(1s)).has_value());
    w.device.release();
    EXPECT_EQ((co_await one.receive(5s))->as<TaskManagementResponse>().response, 0);
    EXPECT_EQ((co_await two.command(test_unit_ready(), kFinal, 0)).asc(), 0x2f00);
    EXPECT_EQ((co_await one.command(test_unit_ready(), kFinal, 0)).status, 0);
    co_await one.close();
    co_await two.close();
}

void let_read(ServerConfig& config) {
    config.targets[0].luns.front().read_only_for = {"iqn.2026-11.org.example:reader"};
}

SCENARIO_OF(TaskSets, of_others_are_not_ended_by_who_may_only_read, let_read) {
    Initiator reader(w, "iqn.2026-11.org.example:reader");
    Initiator writer(w);
    co_await reader.log_in();
    co_await writer.log_in();
    const std::uint32_t theirs = co_await send_held_read(w, writer);
    const auto own = reader.command_pdu(read10(8, 8), kRead, 4096);
    co_await reader.send(own);
    co_await sleep_for(w.clock(), 5ms);
    for (const std::uint8_t function : {kClearTaskSet, kLunReset, kWarmReset, kColdReset}) {
        EXPECT_EQ(co_await reader.manage(function), 255) << int(function);
    }
    co_await send_management(reader, kAbortTaskSet, kReservedTag);
    EXPECT_FALSE((co_await reader.receive(1s)).has_value()) << "answered while the device still works";
    w.device.release();
    EXPECT_EQ((co_await reader.receive(5s))->as<TaskManagementResponse>().response, 0) << "its own it may end";
    EXPECT_EQ((co_await writer.finish(theirs)).status, 0);
    EXPECT_EQ((co_await writer.command(test_unit_ready(), kFinal, 0)).status, 0) << "nothing to be told of";
    EXPECT_EQ(co_await reader.manage(kLunReset, kReservedTag, 5), 0) << "of a unit that it may write to";
    EXPECT_EQ(co_await writer.manage(kLunReset), 0);
    co_await reader.close();
    co_await writer.close();
}

SCENARIO(TargetReset, warm_keeps_the_sessions_and_cold_ends_them) {
    Initiator one(w);
    Initiator two(w, "iqn.2026-11.org.example:other");
    co_await one.log_in();
    co_await two.log_in();
    EXPECT_EQ(co_await one.manage(kWarmReset), 0);
    EXPECT_EQ((co_await two.command(test_unit_ready(), kFinal, 0)).asc(), 0x2903);
    EXPECT_EQ((co_await two.command(test_unit_ready(), kFinal, 0, {}, {}, 5)).sense_key(), 6);
    EXPECT_EQ(co_await one.manage(kColdReset), 0);
    EXPECT_TRUE(co_await one.wait_closed(5s));
    EXPECT_TRUE(co_await two.wait_closed(5s));
    co_await one.close();
    co_await two.close();
    Initiator again(w);
    co_await again.log_in();
    co_await again.prove_healthy();
    co_await again.close();
}

SCENARIO(Reinstatement, ends_the_old_session_and_its_commands_before_the_new_one_begins) {
    Initiator old(w);
    co_await old.log_in();
    co_await send_held_read(w, old);
    Initiator fresh(w);
    co_await fresh.connect();
    co_await fresh.send(fresh.login_request(),
                        Initiator::keys_text({"InitiatorName=" + fresh.name, "TargetName=" + fresh.target}));
    EXPECT_FALSE((co_await fresh.receive(2s)).has_value()) << "logged in while a command of the old session runs";
    EXPECT_TRUE(old.closed());
    w.device.release();
    const auto reply = co_await fresh.receive(5s);
    EXPECT_TRUE(reply && reply->as<LoginResponse>().status_class == 0);
    EXPECT_EQ(w.server->status().sessions.size(), 1U);
    co_await old.close();
    co_await fresh.close();
}

SCENARIO(Reinstatement, is_put_off_while_the_device_does_not_answer) {
    Initiator old(w);
    co_await old.log_in();
    co_await send_held_read(w, old);
    for (int attempt = 0; attempt < 3; ++attempt) {
        Initiator fresh(w);
        const auto reply = co_await fresh.try_login();
        EXPECT_TRUE(reply && reply->status_class == 3 && reply->status_detail == 1) << "attempt " << attempt;
        EXPECT_TRUE(co_await fresh.wait_closed(5s));
        EXPECT_EQ(w.server->status().logging_in, 0U) << "the attempt still waits";
        co_await fresh.close();
    }
    EXPECT_TRUE(old.closed());
    EXPECT_EQ(w.server->status().sessions.size(), 1U);
    w.device.release();
    Initiator fresh(w);
    co_await fresh.log_in();
    co_await fresh.prove_healthy();
    co_await old.close();
    co_await fresh.close();
}

SCENARIO(Reinstatement, needs_the_same_name_isid_and_target) {
    Initiator one(w);
    co_await one.log_in();
    Initiator other_name(w, "iqn.2026-11.org.example:other");
    co_await other_name.log_in();
    Initiator other_isid(w);
    other_isid.isid[5] = std::byte{99};
    co_await other_isid.log_in();
    Initiator refused(w);
    refused.target = "iqn.2026-11.dev.gemel:private";
    EXPECT_EQ((co_await refused.try_login())->status_detail, 2);
    co_await one.prove_healthy();
    EXPECT_EQ(w.server->status().sessions.size(), 3U);
    for (Initiator* i : {&one, &other_name, &other_isid, &refused}) {
        co_await i->close();
    }
}

SCENARIO(Names, are_the_same_in_upper_and_lower_case) {
    Initiator friendly(w, "IQN.2026-11.org.Example:FRIEND7");
    friendly.target = "iqn.2026-11.dev.Gemel:PRIVATE";
    co_await friendly.log_in();
    EXPECT_EQ(w.server->status().sessions.at(0).initiator, "iqn.2026-11.org.example:friend7");
    // The same name, ISID and target, spelled otherwise: the session is reinstated, not doubled.
    Initiator again(w, "iqn.2026-11.org.example:Friend7");
    again.target = "iqn.2026-11.dev.gemel:private";
    co_await again.log_in();
    EXPECT_TRUE(co_await friendly.wait_closed(5s));
    EXPECT_EQ(w.server->status().sessions.size(), 1U);
    Initiator stranger(w, "iqn.2026-11.org.example:FOE");
    stranger.target = "iqn.2026-11.dev.gemel:private";
    EXPECT_EQ((co_await stranger.try_login())->status_detail, 2);
    for (Initiator* i : {&friendly, &again, &stranger}) {
        co_await i->close();
    }
}

SCENARIO(Reinstatement, of_a_session_by_its_tsih_is_refused_as_a_second_connection) {
    Initiator one(w);
    co_await one.log_in();
    const std::uint16_t tsih = w.server->status().sessions.at(0).tsih;
    struct Case {
        std::uint16_t tsih;
        const char* name;
        int detail;
    };
    for (const Case& c : {Case{tsih, "iqn.2026-11.org.example:host", 6}, Case{tsih, "iqn.2026-11.org.example:x", 10},
                          Case{static_cast<std::uint16_t>(tsih + 1), "iqn.2026-11.org.example:host", 10}}) {
        Initiator second(w, c.name);
        second.tsih = c.tsih;
        const auto reply = co_await second.try_login();
        EXPECT_TRUE(reply && reply->status_class == 2 && reply->status_detail == c.detail) << c.name;
        EXPECT_TRUE(co_await second.wait_closed(5s));
        co_await second.close();
    }
    co_await one.prove_healthy();
    co_await one.close();
}

SCENARIO(Disconnect, with_commands_in_the_device_waits_for_them) {
    Initiator i(w);
    co_await i.log_in();
    w.device.hold_writes = true;
    for (unsigned n = 0; n < 20; ++n) {
        co_await i.send(i.command_pdu(write10(n, 1), kWrite, 512), pattern(512, n));
    }
    while (w.device.held < 20) {
        co_await sleep_for(w.clock(), 100us);
    }
    co_await i.close();
    co_await sleep_for(w.clock(), 50ms);
    EXPECT_EQ(w.server->status().sessions.size(), 1U);
    w.device.release();
    co_await sleep_for(w.clock(), 50ms);
    EXPECT_TRUE(w.server->status().sessions.empty());
    EXPECT_EQ(w.device.writes_done, 20U);
}

}  // namespace
}  // namespace gemel::iscsi::test
