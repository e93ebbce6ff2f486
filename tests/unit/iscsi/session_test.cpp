// SPDX-License-Identifier: Apache-2.0
// A whole server over the simulated network: what a well-behaved initiator sees.
#include "tests/unit/iscsi/initiator.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

constexpr std::uint8_t kRead = kFinal | kCommandRead;
constexpr std::uint8_t kWrite = kFinal | kCommandWrite;

Task<std::string> send_targets(Initiator& i, std::string request) {
    TextRequest text;
    text.immediate = true;
    text.initiator_task_tag = i.next_tag++;
    text.cmd_sn = i.cmd_sn;
    co_await i.send(text, Initiator::keys_text({"SendTargets=" + request}));
    std::string out;
    while (true) {
        const auto reply = co_await i.receive();
        if (!reply) {
            co_return out + "(closed)";
        }
        const auto header = reply->as<TextResponse>();
        out += reply->text();
        if ((header.flags & kContinue) == 0) {
            EXPECT_NE(header.flags & kFinal, 0);
            co_return out;
        }
        text.target_transfer_tag = header.target_transfer_tag;
        co_await i.send(text);
    }
}

SCENARIO(Discovery, lists_only_targets_that_the_initiator_may_log_in_to) {
    Initiator i(w);
    i.target.clear();
    co_await i.log_in({"SessionType=Discovery"});
    const std::string all = co_await send_targets(i, "All");
    EXPECT_TRUE(all.contains("TargetName=iqn.2026-11.dev.gemel:test"));
    EXPECT_TRUE(all.contains("TargetAddress=target:3260,1"));
    EXPECT_FALSE(all.contains(":private"));
    EXPECT_EQ(co_await send_targets(i, "iqn.2026-11.dev.gemel:nothing"), "");
    EXPECT_TRUE((co_await send_targets(i, "iqn.2026-11.dev.gemel:test")).contains(":test"));
    EXPECT_TRUE((co_await send_targets(i, "")).contains("SendTargets=Reject"));
    co_await i.close();
    Initiator friendly(w, "iqn.2026-11.org.example:friend1");
    friendly.target.clear();
    co_await friendly.log_in({"SessionType=Discovery", "MaxRecvDataSegmentLength=512"});
    EXPECT_TRUE((co_await send_targets(friendly, "All")).contains(":private"));
    co_await friendly.close();
}

SCENARIO(Discovery, a_normal_session_sees_its_own_target_only) {
    Initiator i(w);
    co_await i.log_in();
    EXPECT_TRUE((co_await send_targets(i, "")).contains("TargetName=iqn.2026-11.dev.gemel:test"));
    EXPECT_TRUE((co_await send_targets(i, "All")).contains("SendTargets=Reject"));
    EXPECT_EQ(co_await send_targets(i, "iqn.2026-11.dev.gemel:private"), "");
    co_await i.close();
}

SCENARIO(Discovery, a_session_of_that_type_takes_no_scsi_command) {
    Initiator i(w);
    i.target.clear();
    co_await i.log_in({"SessionType=Discovery"});
    co_await i.send(i.command_pdu(test_unit_ready(), kFinal, 0));
    EXPECT_TRUE(co_await i.wait_closed(5s));
    EXPECT_EQ(w.server->status().protocol_errors, 1U);
    co_await i.close();
}

/// One way to negotiate and send a write; every one must bring the same data to the device.
struct WriteCase {
    const char* what;
    std::vector<std::string> keys;
    WritePlan plan;
    std::size_t bytes;
    std::size_t r2ts;
};

Task<void> write_and_read_back(World& w, WriteCase c, std::size_t chunk) {
    SCOPED_TRACE(c.what);
    Initiator i(w);
    co_await i.log_in(c.keys);
    i.write_chunk = chunk;
    const std::vector<std::byte> data = pattern(c.bytes, static_cast<unsigned>(c.bytes + c.plan.immediate));
    const Outcome written = co_await i.write(64, data, c.plan);
    EXPECT_EQ(written.status, 0) << c.what;
    EXPECT_EQ(written.r2ts, c.r2ts) << c.what;
    EXPECT_EQ(written.flags, 0) << c.what;
    const Outcome back = co_await i.read(64, static_cast<std::uint16_t>(c.bytes / 512));
    EXPECT_EQ(back.status, 0);
    EXPECT_EQ(back.data, data) << c.what;
    co_await i.close();
}

const std::vector<WriteCase>& write_cases() {
    const std::string no_r2t = "InitialR2T=No";
    static const std::vector<WriteCase> cases{
        {"immediate only", {}, {.immediate = 4096}, 4096, 0},
        {"R2T only", {"ImmediateData=No"}, {}, 65536, 1},
        {"immediate and R2T", {}, {.immediate = 8192}, 65536, 1},
        {"immediate and unsolicited", {no_r2t}, {.immediate = 8192, .unsolicited = 24576}, 32768, 0},
        {"unsolicited only", {no_r2t, "ImmediateData=No"}, {.unsolicited = 32768, .segment = 4096}, 32768, 0},
        {"immediate, unsolicited and R2T",
         {no_r2t, "FirstBurstLength=16384", "MaxBurstLength=32768"},
         {.immediate = 4096, .unsolicited = 12288, .segment = 4096},
         131072,
         4},
        {"many small R2Ts", {"MaxBurstLength=4096", "MaxOutstandingR2T=4"}, {.segment = 512}, 65536, 16},
        {"one byte more than a segment", {no_r2t}, {.immediate = 512, .unsolicited = 1024, .segment = 1023}, 1536, 0},
        {"a megabyte", {"MaxBurstLength=1048576"}, {.segment = 262144}, 1048576, 1},
        {"both digests",
         {"HeaderDigest=CRC32C", "DataDigest=CRC32C", no_r2t},
         {.immediate = 512, .unsolicited = 1024, .segment = 333},
         8192,
         1},
        {"header digest", {"HeaderDigest=CRC32C,None"}, {.immediate = 4096}, 65536, 1},
        {"data digest", {"DataDigest=CRC32C,None"}, {.immediate = 4096, .segment = 65536}, 262144, 1},
    };
    return cases;
}

SCENARIO(Write, every_way_of_sending_brings_the_same_bytes) {
    for (const WriteCase& c : write_cases()) {
        WriteCase mine = c;
        // What is longer than FirstBurstLength must send exactly that much unsolicited.
        if (std::string_view(c.what) == "both digests") {
            mine.keys.push_back("FirstBurstLength=1536");
        }
        co_await write_and_read_back(w, mine, 0);
    }
}

SCENARIO(Write, one_byte_segments_change_nothing) {
    co_await write_and_read_back(w,
                                 {"digests bytewise",
                                  {"HeaderDigest=CRC32C", "DataDigest=CRC32C"},
                                  {.immediate = 1024, .segment = 700},
                                  4096,
                                  1},
                                 1);
    co_await write_and_read_back(
        w, {"bytewise", {"InitialR2T=No"}, {.immediate = 512, .unsolicited = 512, .segment = 100}, 1024, 0}, 1);
}

SCENARIO(Read, data_is_cut_by_segment_and_burst_length) {
    Initiator i(w);
    co_await i.log_in({"MaxRecvDataSegmentLength=1024", "MaxBurstLength=2560"});
    std::ranges::copy(pattern(8192, 3), w.device.bytes(Lba(0), 8192).begin());
    co_await i.send(i.command_pdu(read10(0, 16), kRead, 8192));
    std::vector<std::byte> data;
    std::vector<std::size_t> sizes;
    std::vector<bool> finals;
    while (data.size() < 8192) {
        const auto pdu = co_await i.receive(1s);
        if (!pdu) {
            break;
        }
        const auto in = pdu->as<DataIn>();
        EXPECT_EQ(in.buffer_offset, data.size());
        data.insert(data.end(), pdu->data.begin(), pdu->data.end());
        sizes.push_back(pdu->data.size());
        finals.push_back((in.flags & kFinal) != 0);
    }
    EXPECT_EQ(data, pattern(8192, 3));
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1024, 1024, 512, 1024, 1024, 512, 1024, 1024, 512, 512}));
    EXPECT_EQ(finals, (std::vector<bool>{false, false, true, false, false, true, false, false, true, true}));
    co_await i.close();
}

struct ResidualCase {
    Cdb cdb;
    std::uint8_t flags;
    std::uint32_t edtl;
    std::uint8_t status;
    std::uint8_t residual_flags;
    std::uint32_t residual;
    std::size_t data;
};

SCENARIO(Residual, is_what_the_command_moves_less_what_was_expected) {
    Initiator i(w);
    co_await i.log_in();
    const ResidualCase cases[] = {
        {read10(0, 1), kRead, 512, 0, 0, 0, 512},
        {read10(0, 1), kRead, 10000, 0, kResidualUnderflow, 9488, 512},
        {read10(0, 2), kRead, 512, 0, kResidualOverflow, 512, 512},
        {read10(0, 1), kRead, 200, 0, kResidualOverflow, 312, 200},
        {read10(0, 1), kRead, 0, 0, kResidualOverflow, 512, 0},
        {read10(0, 1), kFinal, 0, 0, kResidualOverflow, 512, 0},
        {read10(0, 0), kRead, 512, 0, kResidualUnderflow, 512, 0},
        {write10(0, 1), kWrite, 0, 0, kResidualOverflow, 512, 0},
        {write10(0, 1), kWrite, 1024, 0, kResidualUnderflow, 512, 0},
        {write10(0, 2), kWrite, 512, 0, kResidualOverflow, 512, 0},
        {test_unit_ready(), kFinal, 0, 0, 0, 0, 0},
        {test_unit_ready(), kRead, 100, 0, kResidualUnderflow, 100, 0},
        {cdb_of({0x08, 0, 0, 0, 1}), kRead, 0xffffffff, 0, kResidualUnderflow, 0xffffffff - 512, 512},
        {read10(0xfffffff0, 1), kRead, 512, 2, kResidualUnderflow, 512, 0},
    };
    for (const ResidualCase& c : cases) {
        const std::vector<std::byte> out =
            (c.flags & kCommandWrite) != 0 ? pattern(c.edtl, 9) : std::vector<std::byte>{};
        const Outcome o = co_await i.command(c.cdb, c.flags, c.edtl, out);
        EXPECT_EQ(o.status, c.status) << "edtl " << c.edtl;
        EXPECT_EQ(o.flags, c.residual_flags) << "opcode " << int(c.cdb[0]) << " edtl " << c.edtl;
        EXPECT_EQ(o.residual, c.residual) << "opcode " << int(c.cdb[0]) << " edtl " << c.edtl;
        EXPECT_EQ(o.data.size(), c.data) << "opcode " << int(c.cdb[0]) << " edtl " << c.edtl;
    }
    co_await i.close();
}

SCENARIO(Residual, data_beyond_what_the_command_uses_is_received_and_dropped) {
    Initiator i(w);
    co_await i.log_in({"InitialR2T=No", "DataDigest=CRC32C"});
    const std::vector<std::byte> data = pattern(32768, 8);
    const std::vector<std::byte> before(w.device.bytes(Lba(1), 32768).begin(), w.device.bytes(Lba(1), 32768).end());
    for (const WritePlan& plan : {WritePlan{.immediate = 32768}, WritePlan{.immediate = 512, .unsolicited = 32256},
                                  WritePlan{.unsolicited = 32768, .segment = 20000}}) {
        const Outcome o = co_await i.command(write10(0, 1), kWrite, 32768, data, plan);
        EXPECT_EQ(o.status, 0);
        EXPECT_EQ(o.flags, kResidualUnderflow);
        EXPECT_EQ(o.residual, 32256U);
    }
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(0), 512), ConstBytes(data).first(512)));
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(1), 32768), before));
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Direction, that_contradicts_the_command_moves_nothing) {
    Initiator i(w);
    co_await i.log_in();
    const std::vector<std::byte> before(w.device.bytes(Lba(0), 512).begin(), w.device.bytes(Lba(0), 512).end());
    const Outcome write_as_read = co_await i.command(write10(0, 1), kRead, 512);
    EXPECT_EQ(write_as_read.asc(), 0x2400);
    const Outcome read_as_write = co_await i.command(read10(0, 1), kWrite, 512, pattern(512, 1), {.immediate = 512});
    EXPECT_TRUE(read_as_write.data.empty());
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(0), 512), before));
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Luns, are_found_by_their_field_and_unknown_ones_say_so) {
    Initiator i(w);
    co_await i.log_in();
    const std::vector<std::byte> data = pattern(512, 77);
    EXPECT_EQ((co_await i.command(test_unit_ready(), kFinal, 0, {}, {}, 5)).asc(), 0x2900);
    EXPECT_EQ((co_await i.command(write10(3, 1), kWrite, 512, data, {.immediate = 512}, 5)).status, 0);
    EXPECT_TRUE(std::ranges::equal(w.other_device.bytes(Lba(3), 512), data));
    EXPECT_FALSE(std::ranges::equal(w.device.bytes(Lba(3), 512), data));
    EXPECT_EQ((co_await i.command(read10(0, 1), kRead, 512, {}, {}, 1)).asc(), 0x2500);
    // INQUIRY of a LUN that is not there: peripheral qualifier 3.
    const Outcome inquiry = co_await i.command(cdb_of({0x12, 0, 0, 0, 96}), kRead, 96, {}, {}, 9);
    EXPECT_EQ(inquiry.status, 0);
    EXPECT_EQ(std::to_integer<int>(inquiry.data.at(0)), 0x7f);
    const Outcome luns = co_await i.command(cdb_of({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}), kRead, 256);
    EXPECT_EQ(luns.data.size(), 24U);
    EXPECT_EQ(std::to_integer<int>(luns.data.at(17)), 5);
    co_await i.close();
}

SCENARIO(Nop, a_ping_is_echoed_up_to_what_the_initiator_can_take) {
    Initiator i(w);
    co_await i.log_in({"MaxRecvDataSegmentLength=512"});
    for (const std::size_t size : {0UL, 1UL, 3UL, 512UL, 65536UL}) {
        NopOut ping;
        ping.immediate = true;
        ping.initiator_task_tag = i.next_tag++;
        ping.cmd_sn = i.cmd_sn;
        const std::vector<std::byte> data = pattern(size, 5);
        co_await i.send(ping, data);
        const auto pong = co_await i.receive(5s);
        EXPECT_TRUE(pong.has_value());
        if (pong) {
            EXPECT_EQ(pong->as<NopIn>().initiator_task_tag, ping.initiator_task_tag);
            EXPECT_TRUE(std::ranges::equal(pong->data, ConstBytes(data).first(std::min<std::size_t>(size, 512))));
        }
    }
    co_await i.close();
}

SCENARIO(Nop, an_idle_initiator_is_asked_and_a_dead_one_is_dropped) {
    Initiator i(w);
    co_await i.log_in();
    for (int round = 0; round < 3; ++round) {
        const auto ping = co_await i.receive(60s);
        EXPECT_TRUE(ping.has_value());
        if (!ping) {
            co_return;
        }
        const auto nop = ping->as<NopIn>();
        EXPECT_EQ(nop.initiator_task_tag, kReservedTag);
        NopOut answer;
        answer.immediate = true;
        answer.target_transfer_tag = nop.target_transfer_tag;
        answer.lun = nop.lun;
        answer.cmd_sn = i.cmd_sn;
        co_await i.send(answer);
    }
    EXPECT_FALSE(i.closed());
    const TimePoint from = w.clock().now();
    EXPECT_TRUE((co_await i.receive(60s)).has_value());
    EXPECT_TRUE(co_await i.wait_closed(60s));
    EXPECT_LE(w.clock().now() - from, 46s);
    co_await i.close();
}

SCENARIO(Nop, an_answer_that_other_traffic_overtakes_is_not_rejected) {
    Initiator i(w);
    co_await i.log_in();
    const auto ping = co_await i.receive(60s);
    EXPECT_TRUE(ping.has_value());
    EXPECT_EQ((co_await i.command(test_unit_ready(), kFinal, 0)).status, 0);
    EXPECT_FALSE((co_await i.receive(16s)).has_value()) << "asked although a command came";
    NopOut answer;
    answer.immediate = true;
    answer.target_transfer_tag = ping->as<NopIn>().target_transfer_tag;
    answer.cmd_sn = i.cmd_sn;
    co_await i.send(answer);
    EXPECT_FALSE((co_await i.receive(5s)).has_value()) << "the late answer was rejected";
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Logout, answers_what_runs_and_then_closes) {
    Initiator i(w);
    co_await i.log_in();
    w.device.hold_reads = true;
    const auto pdu = i.command_pdu(read10(0, 8), kRead, 4096);
    co_await i.send(pdu);
    LogoutRequest logout;
    logout.initiator_task_tag = i.next_tag++;
    logout.cmd_sn = i.cmd_sn++;
    co_await i.send(logout);
    EXPECT_FALSE((co_await i.receive(1s)).has_value());
    w.device.release();
    EXPECT_EQ((co_await i.finish(pdu.initiator_task_tag)).status, 0);
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->as<LogoutResponse>().response == 0);
    EXPECT_TRUE(co_await i.wait_closed(5s));
    co_await i.close();
}

SCENARIO(Logout, of_another_connection_or_for_recovery_is_refused) {
    Initiator i(w);
    co_await i.log_in();
    const std::pair<int, int> cases[] = {{1, 1}, {2, 2}};  // reason, response; the connection's id is 0
    for (const auto& [reason, response] : cases) {
        LogoutRequest logout;
        logout.flags = static_cast<std::uint8_t>(kFinal | reason);
        logout.initiator_task_tag = i.next_tag++;
        logout.connection_id = 9;
        logout.cmd_sn = i.cmd_sn++;
        co_await i.send(logout);
        const auto reply = co_await i.receive(5s);
        EXPECT_TRUE(reply && reply->as<LogoutResponse>().response == response);
    }
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Sessions, many_at_once_are_spread_over_the_processors_and_do_not_mix) {
    std::vector<std::unique_ptr<Initiator>> all;
    for (int n = 0; n < 12; ++n) {
        all.push_back(std::make_unique<Initiator>(w, "iqn.2026-11.org.example:h" + std::to_string(n)));
        co_await all.back()->log_in();
    }
    for (unsigned n = 0; n < 12; ++n) {
        const std::vector<std::byte> data = pattern(2048, n);
        EXPECT_EQ((co_await all[n]->write(n * 4, data, {.immediate = 2048})).status, 0);
    }
    for (unsigned n = 0; n < 12; ++n) {
        EXPECT_EQ((co_await all[11 - n]->read(n * 4, 4)).data, pattern(2048, n));
    }
    EXPECT_EQ(w.server->status().sessions.size(), 12U);
    EXPECT_EQ(w.server->status().sessions.at(3).commands, 3U);
    EXPECT_EQ(w.server->status().sessions.at(3).bytes_in, 2048U);
    EXPECT_EQ(w.server->status().sessions.at(3).bytes_out, 2048U);
    for (const auto& i : all) {
        co_await i->close();
    }
}

SCENARIO(Sessions, a_deep_queue_is_answered_completely) {
    Initiator i(w);
    co_await i.log_in();
    std::ranges::copy(pattern(65536, 1), w.device.bytes(Lba(0), 65536).begin());
    std::vector<std::uint32_t> tags;
    for (std::uint32_t n = 0; n < 128; ++n) {
        const auto pdu = i.command_pdu(read10(n, 1), kRead, 512);
        tags.push_back(pdu.initiator_task_tag);
        co_await i.send(pdu);
    }
    std::set<std::uint32_t> seen;
    while (seen.size() < tags.size()) {
        const auto pdu = co_await i.receive(5s);
        if (!pdu) {
            break;
        }
        const auto in = pdu->as<DataIn>();
        EXPECT_NE(in.flags & kDataInStatus, 0);
        EXPECT_TRUE(seen.insert(in.initiator_task_tag).second);
        const std::size_t at = (in.initiator_task_tag - tags.front()) * 512;
        EXPECT_TRUE(std::ranges::equal(pdu->data, ConstBytes(pattern(65536, 1)).subspan(at, 512)));
    }
    EXPECT_EQ(seen.size(), tags.size());
    EXPECT_EQ(i.max_cmd_sn - i.exp_cmd_sn, 127U);
    co_await i.close();
}

SCENARIO(Text, a_new_segment_length_holds_from_then_on) {
    Initiator i(w);
    co_await i.log_in();
    EXPECT_EQ((co_await i.read(0, 8)).data_in_pdus, 1U);
    TextRequest text;
    text.immediate = true;
    text.initiator_task_tag = i.next_tag++;
    text.cmd_sn = i.cmd_sn;
    co_await i.send(text, Initiator::keys_text({"MaxRecvDataSegmentLength=1024", "HeaderDigest=CRC32C", "X-odd=1"}));
    const auto reply = co_await i.receive(5s);
    EXPECT_TRUE(reply && reply->text() == std::string_view("HeaderDigest=Reject\0X-odd=NotUnderstood\0", 40));
    EXPECT_EQ((co_await i.read(0, 8)).data_in_pdus, 4U);
    co_await i.close();
}

}  // namespace
}  // namespace gemel::iscsi::test
