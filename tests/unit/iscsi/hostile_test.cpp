// SPDX-License-Identifier: Apache-2.0
// Peers that break the rules. After each case a healthy session reads what it writes, and nothing is left behind: the
// world's end checks buffers and sessions.
#include "tests/unit/iscsi/hostile.hpp"

#include "target/iscsi/login.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

struct CommandCase {
    const char* what;
    void (*change)(ScsiCommandPdu&);
    std::size_t data;
    std::vector<std::byte> ahs;
    Expected expected;
    std::vector<std::string> keys{};
};

std::vector<std::byte> ahs_of(std::initializer_list<int> list) {
    std::vector<std::byte> out;
    for (const int b : list) {
        out.push_back(static_cast<std::byte>(b));
    }
    return out;
}

const CommandCase kCommandCases[] = {
    {"tag ffffffff", [](ScsiCommandPdu& p) { p.initiator_task_tag = kReservedTag; }, 0, {}, {Answer::kReject, 9}},
    {"attribute 5", [](ScsiCommandPdu& p) { p.flags = kRead | 5U; }, 0, {}, {Answer::kReject, 9}},
    {"attribute 7", [](ScsiCommandPdu& p) { p.flags = kRead | 7U; }, 0, {}, {Answer::kReject, 9}},
    {"extended CDB of length 0", [](ScsiCommandPdu&) {}, 0, ahs_of({0, 0, 1, 0}), {Answer::kReject, 9}},
    {"extended CDB of length 1", [](ScsiCommandPdu&) {}, 0, ahs_of({0, 1, 1, 0}), {Answer::kReject, 9}},
    {"extended CDB beyond the AHS", [](ScsiCommandPdu&) {}, 0, ahs_of({0, 200, 1, 0}), {Answer::kReject, 9}},
    {"two extended CDBs",
     [](ScsiCommandPdu&) {},
     0,
     ahs_of({0, 5, 1, 0, 1, 2, 3, 4, 0, 5, 1, 0, 1, 2, 3, 4}),
     {Answer::kReject, 9}},
    {"AHS of type 0", [](ScsiCommandPdu&) {}, 0, ahs_of({0, 2, 0, 0, 0, 0, 0, 0}), {Answer::kReject, 9}},
    {"longest AHS", [](ScsiCommandPdu&) {}, 0, std::vector<std::byte>(1020), {Answer::kReject, 9}},
    {"read and write",
     [](ScsiCommandPdu& p) { p.flags = kRead | kCommandWrite | 1U; },
     0,
     {},
     {Answer::kSense, 0x2400}},
    {"no direction but a length", [](ScsiCommandPdu& p) { p.flags = kFinal | 1U; }, 0, {}, {Answer::kSilence}},
    {"data of a read", [](ScsiCommandPdu&) {}, 512, {}, {Answer::kClose}},
    {"more data than expected",
     [](ScsiCommandPdu& p) {
         p.flags = kWrite | 1U;
         p.expected_data_transfer_length = 256;
     },
     512,
     {},
     {Answer::kClose}},
    {"data with EDTL 0",
     [](ScsiCommandPdu& p) {
         p.flags = kWrite | 1U;
         p.expected_data_transfer_length = 0;
     },
     4,
     {},
     {Answer::kClose}},
    {"immediate data not negotiated",
     [](ScsiCommandPdu& p) {
         p.flags = kWrite | 1U;
         p.cdb = write10(0, 1);
     },
     512,
     {},
     {Answer::kClose},
     {"ImmediateData=No"}},
    {"immediate data above FirstBurstLength",
     [](ScsiCommandPdu& p) {
         p.flags = kWrite | 1U;
         p.cdb = write10(0, 4);
         p.expected_data_transfer_length = 2048;
     },
     2048,
     {},
     {Answer::kClose},
     {"FirstBurstLength=1024"}},
    {"CmdSN before the window", [](ScsiCommandPdu& p) { p.cmd_sn -= 1; }, 0, {}, {Answer::kSilence}},
    {"CmdSN after the window", [](ScsiCommandPdu& p) { p.cmd_sn += 128; }, 0, {}, {Answer::kSilence}},
    {"CmdSN far away", [](ScsiCommandPdu& p) { p.cmd_sn += 0x80000000U; }, 0, {}, {Answer::kSilence}},
    {"CmdSN of a hole", [](ScsiCommandPdu& p) { p.cmd_sn += 5; }, 0, {}, {Answer::kSilence}},
    {"LUN field with stray bits",
     [](ScsiCommandPdu& p) { p.lun = 0x0000000000000001; },
     0,
     {},
     {Answer::kSense, 0x2500}},
    {"well-known LUN", [](ScsiCommandPdu& p) { p.lun = 0xc101000000000000; }, 0, {}, {Answer::kSense, 0x2500}},
    {"vendor operation code", [](ScsiCommandPdu& p) { p.cdb[0] = std::byte{0xc1}; }, 0, {}, {Answer::kSense, 0x2000}},
    {"variable length CDB",
     [](ScsiCommandPdu& p) { p.cdb[0] = std::byte{0x7f}; },
     0,
     ahs_of({0, 17, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}),
     {Answer::kSense, 0x2000}},
};

SCENARIO(HostileCommand, each_has_its_answer_and_the_device_is_not_touched) {
    for (const CommandCase& c : kCommandCases) {
        Initiator i(w);
        co_await i.log_in(c.keys);
        const auto writes = w.device.writes_done;
        ScsiCommandPdu pdu = i.command_pdu(read10(0, 1), kRead, 512);
        const std::uint32_t cmd_sn = pdu.cmd_sn;
        c.change(pdu);
        co_await i.send(pdu, pattern(c.data, 1), c.ahs);
        if (std::string_view(c.what) == "no direction but a length") {
            EXPECT_TRUE((co_await i.finish(pdu.initiator_task_tag)).answered) << c.what;
        } else {
            co_await expect(i, c.expected, c.what);
        }
        EXPECT_EQ(w.device.writes_done, writes) << c.what;
        if (!i.closed()) {
            // A rejected command has not used up its number (RFC 7143 11.17).
            const bool used =
                c.expected.answer == Answer::kSense || std::string_view(c.what) == "no direction but a length";
            i.cmd_sn = used ? cmd_sn + 1 : cmd_sn;
            co_await i.prove_healthy();
        }
        co_await i.close();
        co_await neighbour_is_healthy(w);
    }
}

struct ControlCase {
    const char* what;
    std::vector<std::byte> (*make)(Initiator&);
    Expected expected;
};

const ControlCase kControlCases[] = {
    {"vendor opcode", [](Initiator& i) { return opcode_only(i, 0x1c); }, {Answer::kReject, 5}},
    {"reserved opcode", [](Initiator& i) { return opcode_only(i, 0x09); }, {Answer::kReject, 5}},
    {"opcode of targets", [](Initiator& i) { return opcode_only(i, 0x21); }, {Answer::kClose}},
    {"login in the full feature phase", [](Initiator& i) { return with(i, i.login_request()); }, {Answer::kClose}},
    {"SNACK", [](Initiator& i) { return with(i, SnackRequest{}); }, {Answer::kReject, 3}},
    {"SNACK with data", [](Initiator& i) { return with(i, SnackRequest{}, 8); }, {Answer::kReject, 9}},
    {"SNACK of an unknown type, of more than there can be",
     [](Initiator& i) {
         SnackRequest p;
         p.flags = kFinal | 7U;
         p.beg_run = 0xffffffff;
         p.run_length = 0xffffffff;
         return with(i, p);
     },
     {Answer::kReject, 3}},
    {"NOP-Out with AHS", [](Initiator& i) { return with(i, immediate_pdu<NopOut>(i), 0, 8); }, {Answer::kReject, 9}},
    {"text with AHS", [](Initiator& i) { return with(i, immediate_pdu<TextRequest>(i), 0, 8); }, {Answer::kReject, 9}},
    {"logout with data",
     [](Initiator& i) { return with(i, immediate_pdu<LogoutRequest>(i), 100); },
     {Answer::kReject, 9}},
    {"task management with AHS",
     [](Initiator& i) { return with(i, immediate_pdu<TaskManagementRequest>(i), 0, 8); },
     {Answer::kReject, 9}},
    {"task management with data",
     [](Initiator& i) { return with(i, immediate_pdu<TaskManagementRequest>(i), 100); },
     {Answer::kReject, 9}},
    {"logout with AHS",
     [](Initiator& i) { return with(i, immediate_pdu<LogoutRequest>(i), 0, 8); },
     {Answer::kReject, 9}},
    {"Data-Out with AHS", [](Initiator& i) { return with(i, DataOut{}, 0, 8); }, {Answer::kReject, 9}},
    {"logout reason 3",
     [](Initiator& i) {
         auto p = immediate_pdu<LogoutRequest>(i);
         p.flags = kFinal | 3U;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"NOP-Out without tag and not immediate",
     [](Initiator& i) {
         NopOut p;
         p.cmd_sn = i.cmd_sn++;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"NOP-Out that answers nothing",
     [](Initiator& i) {
         NopOut p;
         p.immediate = true;
         p.target_transfer_tag = 77;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"NOP-Out that wants no answer",
     [](Initiator& i) {
         NopOut p;
         p.immediate = true;
         return with(i, p);
     },
     {Answer::kSilence}},
    {"text with an unknown tag",
     [](Initiator& i) {
         auto p = immediate_pdu<TextRequest>(i);
         p.target_transfer_tag = 55;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"text with F and C",
     [](Initiator& i) {
         auto p = immediate_pdu<TextRequest>(i);
         p.flags = kFinal | kContinue;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"text that is none",
     [](Initiator& i) { return with(i, immediate_pdu<TextRequest>(i), 30); },
     {Answer::kReject, 4}},
    {"segment above the declared length",
     [](Initiator& i) { return with(i, immediate_pdu<NopOut>(i), 262148); },
     {Answer::kClose}},
    {"the longest segment",
     [](Initiator& i) {
         auto p = immediate_pdu<NopOut>(i);
         p.data_length = 0xffffff;
         return i.frame(encode(p), {});
     },
     {Answer::kClose}},
    {"reserved bits of the opcode byte",
     [](Initiator& i) {
         BhsBytes bhs = encode(immediate_pdu<NopOut>(i));
         bhs[0] |= std::byte{0x80};
         store_be(bhs.data() + 16, kReservedTag);
         store_be(bhs.data() + 20, kReservedTag);
         return i.frame(bhs, {});
     },
     {Answer::kSilence}},
    {"immediate Data-Out of no command",
     [](Initiator& i) {
         BhsBytes bhs = encode(DataOut{});
         bhs[0] |= std::byte{0x40};
         return i.frame(bhs, {});
     },
     {Answer::kSilence}},
    {"task management without F and with every reserved byte set",
     [](Initiator& i) {
         auto p = immediate_pdu<TaskManagementRequest>(i);
         BhsBytes bhs = encode(p);
         bhs[1] = std::byte{0x7f};
         std::fill(bhs.begin() + 2, bhs.begin() + 4, std::byte{0xff});
         std::fill(bhs.begin() + 40, bhs.end(), std::byte{0xff});
         return i.frame(bhs, {});
     },
     {Answer::kManaged, 5}},
    {"logout of another connection",
     [](Initiator& i) {
         auto p = immediate_pdu<LogoutRequest>(i);
         p.flags = kFinal | 1U;
         p.connection_id = 0x7777;
         return with(i, p);
     },
     {Answer::kLogout, 1}},
    {"logout with the reserved tag",
     [](Initiator& i) {
         auto p = immediate_pdu<LogoutRequest>(i);
         p.flags = kFinal;
         p.initiator_task_tag = kReservedTag;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"task management with the reserved tag",
     [](Initiator& i) {
         auto p = immediate_pdu<TaskManagementRequest>(i);
         p.flags = kFinal | 5U;
         p.initiator_task_tag = kReservedTag;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"text with the reserved tag",
     [](Initiator& i) {
         auto p = immediate_pdu<TextRequest>(i);
         p.flags = kFinal;
         p.initiator_task_tag = kReservedTag;
         return with(i, p);
     },
     {Answer::kReject, 9}},
    {"a text of 100 KiB",
     [](Initiator& i) { return with(i, immediate_pdu<TextRequest>(i), 102400); },
     {Answer::kClose}},
};

SCENARIO(HostileControl, each_has_its_answer) {
    for (const ControlCase& c : kControlCases) {
        Initiator i(w);
        co_await i.log_in();
        co_await i.send_raw(c.make(i));
        co_await expect(i, c.expected, c.what);
        if (!i.closed()) {
            co_await i.prove_healthy();
        }
        co_await i.close();
        co_await neighbour_is_healthy(w);
    }
}

SCENARIO(HostileControl, continued_text_without_data_is_harmless) {
    Initiator i(w);
    co_await i.log_in();
    auto p = immediate_pdu<TextRequest>(i);
    p.flags = kContinue;
    for (int n = 0; n < 5; ++n) {
        co_await i.send(p);
        const auto reply = co_await i.receive(5s);
        EXPECT_TRUE(reply.has_value());
        p.target_transfer_tag = reply->as<TextResponse>().target_transfer_tag;
        EXPECT_NE(p.target_transfer_tag, kReservedTag);
    }
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(HostileControl, a_text_goes_on_under_the_tag_it_began_with) {
    Initiator i(w);
    co_await i.log_in();
    auto p = immediate_pdu<TextRequest>(i);
    p.flags = kContinue;
    co_await i.send(p, Initiator::keys_text({"X-a=b"}));
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply.has_value());
    auto other = immediate_pdu<TextRequest>(i);
    other.target_transfer_tag = reply->as<TextResponse>().target_transfer_tag;
    co_await i.send(other);
    co_await expect(i, {Answer::kReject, 9}, "another task's tag");
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(HostileControl, nothing_after_a_logout_is_done) {
    Initiator i(w);
    co_await i.log_in();
    LogoutRequest logout;
    logout.flags = kFinal;
    logout.initiator_task_tag = i.next_tag++;
    logout.cmd_sn = i.cmd_sn++;
    std::vector<std::byte> pdus = with(i, logout);
    for (int n = 0; n < 3; ++n) {
        const auto write = with(i, i.command_pdu(write10(0, 1), kWrite, 512), 512);
        pdus.insert(pdus.end(), write.begin(), write.end());
    }
    co_await i.send_raw(pdus);
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<LogoutResponse>().response == 0);
    EXPECT_TRUE(co_await i.wait_closed(5s));
    EXPECT_EQ(w.device.writes_done, 0U);
    co_await i.close();
    co_await neighbour_is_healthy(w);
}

SCENARIO(HostileTag, of_a_live_command_is_rejected_and_the_command_unharmed) {
    Initiator i(w);
    co_await i.log_in();
    w.device.hold_reads = true;
    const auto first = i.command_pdu(read10(0, 1), kRead, 512);
    co_await i.send(first);
    auto second = i.command_pdu(read10(0, 1), kRead, 512);
    second.initiator_task_tag = first.initiator_task_tag;
    co_await i.send(second);
    co_await expect(i, {Answer::kReject, 7}, "live tag");
    w.device.release();
    EXPECT_EQ((co_await i.finish(first.initiator_task_tag)).status, 0);
    --i.cmd_sn;
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Window, a_hole_holds_what_follows_until_it_is_filled) {
    Initiator i(w);
    co_await i.log_in();
    const std::uint32_t hole = i.cmd_sn++;
    std::vector<std::uint32_t> tags;
    for (unsigned n = 0; n < 3; ++n) {
        const auto pdu = i.command_pdu(write10(n, 1), kWrite, 512);
        tags.push_back(pdu.initiator_task_tag);
        co_await i.send(pdu, pattern(512, n));
        co_await i.send(pdu, pattern(512, n));  // the same number again is ignored, or its live tag rejected
    }
    int rejects = 0;
    while (auto reply = co_await i.receive(1s)) {
        EXPECT_EQ(reply->as<Reject>().reason, 7);
        ++rejects;
    }
    EXPECT_EQ(rejects, 3);
    EXPECT_EQ(w.device.writes_done, 0U);
    EXPECT_EQ(i.exp_cmd_sn, hole);
    auto missing = i.command_pdu(test_unit_ready(), kFinal, 0);
    --i.cmd_sn;
    missing.cmd_sn = hole;
    co_await i.send(missing);
    std::set<std::uint32_t> answered;
    while (auto reply = co_await i.receive(1s)) {
        answered.insert(reply->as<ScsiResponse>().initiator_task_tag);
    }
    EXPECT_EQ(answered.size(), 4U);
    EXPECT_EQ(w.device.writes_done, 3U);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Window, a_hole_that_is_never_filled_costs_a_bounded_amount) {
    Initiator i(w);
    co_await i.log_in();
    ++i.cmd_sn;
    for (unsigned n = 0; n < 400; ++n) {
        co_await i.send(i.command_pdu(write10(0, 8), kWrite, 4096), pattern(4096, n));
    }
    co_await sleep_for(w.clock(), 1s);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 127U * 4096U);
    EXPECT_EQ(w.device.writes_done, 0U);
    co_await i.close();
}

SCENARIO(Window, numbers_wrap_around) {
    Initiator i(w);
    i.cmd_sn = 0xfffffff8;
    co_await i.log_in();
    for (unsigned n = 0; n < 20; ++n) {
        EXPECT_EQ((co_await i.read(n, 1)).status, 0);
    }
    EXPECT_EQ(i.exp_cmd_sn, 13U);
    co_await i.close();
}

SCENARIO(Immediate, commands_are_bounded_in_number) {
    Initiator i(w);
    co_await i.log_in();
    w.device.hold_reads = true;
    for (unsigned n = 0; n < 40; ++n) {
        auto pdu = i.command_pdu(read10(0, 1), kRead, 512);
        --i.cmd_sn;
        pdu.immediate = true;
        co_await i.send(pdu);
    }
    int rejects = 0;
    while (auto reply = co_await i.receive(1s)) {
        EXPECT_EQ(reply->as<Reject>().reason, 6);
        ++rejects;
    }
    EXPECT_EQ(rejects, 24);
    w.device.release();
    int answers = 0;
    while (auto reply = co_await i.receive(1s)) {
        answers += reply->opcode() == Opcode::kDataIn ? 1 : 0;
    }
    EXPECT_EQ(answers, 16);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(SlowReader, is_not_read_from_any_more_and_keeps_memory_bounded) {
    Initiator i(w);
    co_await i.log_in({"MaxRecvDataSegmentLength=262144"});
    w.network.block("target", "client");
    std::uint64_t accepted = 0;
    auto flood = [](Initiator& from, std::uint64_t& n) -> Task<void> {
        for (int k = 0; k < 400 && !from.closed(); ++k) {
            NopOut ping;
            ping.immediate = true;
            ping.initiator_task_tag = 0x70000000U + static_cast<std::uint32_t>(k);
            ping.cmd_sn = from.cmd_sn;
            co_await from.send(ping, std::vector<std::byte>(200000));
            ++n;
        }
    };
    Gate gate;
    gate.spawn(flood(i, accepted));
    co_await sleep_for(w.clock(), 10s);
    EXPECT_LT(accepted, 40U);
    EXPECT_LE(w.environment.pool().outstanding_bytes(), 8U << 20U);
    // It stays silent: the keepalive ends it, and with it everything that it held.
    co_await sleep_for(w.clock(), 60s);
    EXPECT_TRUE(w.server->status().sessions.empty());
    w.network.unblock("target", "client");
    i.hang_up();
    co_await gate.close();
    co_await i.close();
}

SCENARIO(Buffers, when_short_the_command_is_answered_busy) {
    Initiator i(w);
    co_await i.log_in();
    std::vector<Buffer> all;
    while (auto b = w.environment.pool().allocate(256U << 20U)) {
        all.push_back(*std::move(b));
    }
    const std::vector<std::byte> data = pattern(4096, 1);
    EXPECT_EQ((co_await i.write(0, data, {.immediate = 4096})).status, 0x08);
    EXPECT_EQ((co_await i.read(0, 8)).status, 0x08);
    all.clear();
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Disconnect, at_every_byte_of_a_write_leaves_nothing_behind) {
    for (std::size_t cut = 1; cut < 1500; cut += 7) {
        Initiator i(w);
        co_await i.log_in({"HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No"});
        auto pdu = i.command_pdu(write10(0, 2), kCommandWrite, 1024);
        std::vector<std::byte> bytes = [&] {
            pdu.data_length = 512;
            std::vector<std::byte> out = i.frame(encode(pdu), pattern(512, 1));
            DataOut data;
            data.initiator_task_tag = pdu.initiator_task_tag;
            data.buffer_offset = 512;
            data.data_length = 512;
            const std::vector<std::byte> more = i.frame(encode(data), pattern(512, 2));
            out.insert(out.end(), more.begin(), more.end());
            return out;
        }();
        bytes.resize(std::min(cut, bytes.size()));
        co_await i.send_raw(std::move(bytes));
        co_await sleep_for(w.clock(), 1ms);
        co_await i.close();
        co_await sleep_for(w.clock(), 20ms);
        EXPECT_TRUE(w.server->status().sessions.empty()) << cut;
        EXPECT_EQ(w.environment.pool().outstanding_bytes(), 0U) << cut;
    }
    co_await neighbour_is_healthy(w);
}

SCENARIO(Names, that_peers_send_are_harmless_in_events) {
    Initiator i(w, "iqn.\x1b[2J%n\r\nfake");
    EXPECT_TRUE((co_await i.try_login())->status_class == 2);
    co_await i.close();
    EXPECT_TRUE(w.environment.events().has("iscsi-login-refused"));
    for (const auto& e : w.environment.events().all()) {
        EXPECT_EQ(printable(e.cause, 4096), e.cause);
        EXPECT_EQ(printable(e.subject, 4096), e.subject);
    }
}

}  // namespace
}  // namespace gemel::iscsi::test
