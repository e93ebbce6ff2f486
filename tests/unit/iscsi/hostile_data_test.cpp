// SPDX-License-Identifier: Apache-2.0
// Peers that break the rules in how they frame PDUs and send the data of writes. After each case a healthy session
// reads what it writes, and nothing is left behind: the world's end checks buffers and sessions.
#include <map>
#include <set>

#include "tests/unit/iscsi/hostile.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;
namespace {

struct DataCase {
    const char* what;
    void (*change)(DataOut&);
    std::size_t data;
    Expected expected;
};

SCENARIO(HostileDataOut, never_writes_outside_what_was_asked_for) {
    const DataCase cases[] = {
        {"unknown task", [](DataOut& d) { d.initiator_task_tag = 0x5555; }, 4096, {Answer::kSilence}},
        {"unknown transfer tag", [](DataOut& d) { d.target_transfer_tag += 1; }, 4096, {Answer::kSilence}},
        {"unsolicited though R2T is required",
         [](DataOut& d) { d.target_transfer_tag = kReservedTag; },
         4096,
         {Answer::kSense, 0x0c0c}},
        {"offset beyond the command", [](DataOut& d) { d.buffer_offset = 4096; }, 512, {Answer::kSense, 0x0c0d}},
        {"offset that wraps", [](DataOut& d) { d.buffer_offset = 0xfffffe00; }, 4096, {Answer::kSense, 0x0c0d}},
        {"offset that skips", [](DataOut& d) { d.buffer_offset = 512; }, 512, {Answer::kSense, 0x0c0d}},
        {"more than asked for", [](DataOut&) {}, 8192, {Answer::kSense, 0x0c0d}},
        {"F too early", [](DataOut&) {}, 512, {Answer::kSense, 0x0c0d}},
        {"F missing", [](DataOut& d) { d.flags = 0; }, 4096, {Answer::kSense, 0x0c0d}},
        {"no data at all", [](DataOut&) {}, 0, {Answer::kSense, 0x0c0d}},
        {"DataSN that skips", [](DataOut& d) { d.data_sn = 1; }, 4096, {Answer::kSense, 0x4705}},
        {"another LUN", [](DataOut& d) { d.lun = scsi::encode_lun(5); }, 4096, {Answer::kSense, 0x4705}},
    };
    for (const DataCase& c : cases) {
        Initiator i(w);
        co_await i.log_in({"ImmediateData=No"});
        const auto pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
        co_await i.send(pdu);
        const auto r2t = co_await i.receive(5s);
        EXPECT_TRUE(r2t.has_value()) << c.what;
        DataOut data;
        data.initiator_task_tag = pdu.initiator_task_tag;
        data.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
        data.lun = pdu.lun;
        c.change(data);
        const auto before = w.device.writes_done;
        co_await i.send(data, pattern(c.data, 1));
        co_await expect(i, c.expected, c.what);
        EXPECT_EQ(w.device.writes_done, before) << c.what;
        co_await i.prove_healthy();
        co_await i.close();
    }
}

SCENARIO(HostileDataOut, too_little_unsolicited_data_fails_the_command) {
    Initiator i(w);
    co_await i.log_in({"InitialR2T=No", "FirstBurstLength=4096"});
    const Outcome o = co_await i.write(0, pattern(8192, 1), {.immediate = 512, .unsolicited = 512});
    EXPECT_EQ(o.asc(), 0x0c0d);
    EXPECT_EQ(w.device.writes_done, 0U);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO_WITH(HostileDataOut, an_r2t_that_is_never_answered_ends_the_command, ServerLimits{.keepalive = 1s}) {
    Initiator i(w);
    co_await i.log_in({"ImmediateData=No"});
    const auto pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
    co_await i.send(pdu);
    EXPECT_TRUE((co_await i.receive(5s)).has_value());
    bool answered = false;
    for (int round = 0; round < 40 && !answered; ++round) {
        NopOut ping;  // keeps the connection alive meanwhile
        ping.immediate = true;
        ping.initiator_task_tag = 0x999999;
        ping.cmd_sn = i.cmd_sn;
        co_await i.send(ping);
        co_await sleep_for(w.clock(), 300ms);
        while (auto reply = co_await i.receive(1ms)) {
            answered |= reply->opcode() == Opcode::kScsiResponse;
        }
    }
    EXPECT_TRUE(answered);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO_WITH(HostileDataOut, empty_pdus_are_no_progress, ServerLimits{.keepalive = 1s}) {
    Initiator i(w);
    co_await i.log_in({"ImmediateData=No"});
    const auto pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
    co_await i.send(pdu);
    const auto r2t = co_await i.receive(5s);
    EXPECT_TRUE(r2t.has_value());
    DataOut empty;
    empty.initiator_task_tag = pdu.initiator_task_tag;
    empty.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
    empty.lun = pdu.lun;
    empty.flags = 0;
    bool answered = false;
    for (int round = 0; round < 40 && !answered; ++round) {
        co_await i.send(empty);
        ++empty.data_sn;
        while (auto reply = co_await i.receive(300ms)) {
            answered |= reply->opcode() == Opcode::kScsiResponse;
        }
    }
    EXPECT_TRUE(answered);
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Digests, a_bad_header_digest_closes_the_connection) {
    Initiator i(w);
    co_await i.log_in({"HeaderDigest=CRC32C"});
    i.corrupt_header_digest = true;
    co_await i.send(i.command_pdu(test_unit_ready(), kFinal, 0));
    EXPECT_TRUE(co_await i.wait_closed(5s));
    co_await i.close();
    co_await neighbour_is_healthy(w);
}

SCENARIO(Digests, bad_data_never_reaches_the_device_and_can_be_sent_again) {
    Initiator i(w);
    co_await i.log_in({"DataDigest=CRC32C", "HeaderDigest=CRC32C"});
    // Immediate data: the command is rejected as a whole, and its CmdSN is still due.
    auto pdu = i.command_pdu(write10(0, 1), kWrite, 512);
    i.corrupt_data_digest = true;
    co_await i.send(pdu, pattern(512, 1));
    co_await expect(i, {Answer::kReject, 2}, "immediate data");
    EXPECT_EQ(w.device.writes_done, 0U);
    i.corrupt_data_digest = false;
    co_await i.send(pdu, pattern(512, 1));
    EXPECT_EQ((co_await i.finish(pdu.initiator_task_tag)).status, 0);
    EXPECT_EQ(w.device.writes_done, 1U);
    // Solicited data: Reject, and the task ends with PROTOCOL SERVICE CRC ERROR.
    pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
    co_await i.send(pdu);
    const auto r2t = co_await i.receive(5s);
    DataOut data;
    data.initiator_task_tag = pdu.initiator_task_tag;
    data.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
    i.corrupt_data_digest = true;
    co_await i.send(data, pattern(4096, 1));
    i.corrupt_data_digest = false;
    co_await expect(i, {Answer::kReject, 2}, "solicited data");
    co_await expect(i, {Answer::kSense, 0x4705}, "solicited data");
    EXPECT_EQ(w.device.writes_done, 1U);
    // A ping.
    i.corrupt_data_digest = true;
    co_await i.send(immediate_pdu<NopOut>(i), pattern(10, 1));
    i.corrupt_data_digest = false;
    co_await expect(i, {Answer::kReject, 2}, "ping");
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Digests, a_bad_one_of_a_text_or_of_the_last_pdu_does_no_harm) {
    Initiator i(w);
    co_await i.log_in({"DataDigest=CRC32C"});
    i.corrupt_data_digest = true;
    co_await i.send(immediate_pdu<TextRequest>(i), Initiator::keys_text({"SendTargets="}));
    co_await expect(i, {Answer::kReject, 2}, "text");
    i.corrupt_data_digest = false;
    co_await i.prove_healthy();
    const auto before = w.device.writes_done;
    i.corrupt_data_digest = true;
    co_await i.send(i.command_pdu(write10(0, 1), kWrite, 512), pattern(512, 1));
    i.hang_up();
    co_await i.close();
    co_await neighbour_is_healthy(w);
    EXPECT_EQ(w.device.writes_done, before + 1) << "the neighbour's only";
}

/// What the initiator sends of a write of 4096 bytes, one R2T for all of it, after it was asked for.
SCENARIO(HostileDataOut, sent_twice_or_backwards_fails_the_command) {
    struct Case {
        const char* what;
        std::uint32_t offset;
        std::uint32_t data_sn;
        int sense;
    };
    for (const Case& c : {Case{"the same piece again", 0, 1, 0x0c0d}, Case{"a number again", 512, 0, 0x4705},
                          Case{"a number that skips", 512, 2, 0x4705}}) {
        Initiator i(w);
        co_await i.log_in({"ImmediateData=No"});
        const auto pdu = i.command_pdu(write10(0, 8), kWrite, 4096);
        co_await i.send(pdu);
        const auto r2t = co_await i.receive(5s);
        EXPECT_TRUE(r2t.has_value()) << c.what;
        const auto before = w.device.writes_done;
        DataOut data;
        data.initiator_task_tag = pdu.initiator_task_tag;
        data.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
        data.flags = 0;
        co_await i.send(data, pattern(512, 1));
        data.buffer_offset = c.offset;
        data.data_sn = c.data_sn;
        co_await i.send(data, pattern(512, 2));
        co_await expect(i, {Answer::kSense, c.sense}, c.what);
        EXPECT_EQ(w.device.writes_done, before) << c.what;
        co_await i.prove_healthy();
        co_await i.close();
    }
}

SCENARIO(HostileDataOut, of_what_takes_none_is_dropped) {
    Initiator i(w);
    co_await i.log_in({"ImmediateData=No"});
    Initiator other(w, "iqn.2026-11.org.example:other");
    co_await other.log_in({"ImmediateData=No"});
    // Another session's write waits for its data under this tag and this transfer tag.
    const auto theirs = other.command_pdu(write10(100, 8), kWrite, 4096);
    co_await other.send(theirs);
    const auto r2t = co_await other.receive(5s);
    EXPECT_TRUE(r2t.has_value());
    w.device.hold_reads = true;
    const auto reading = i.command_pdu(read10(0, 8), kRead, 4096);
    co_await i.send(reading);
    const auto aborted = i.command_pdu(write10(50, 8), kWrite, 4096);
    co_await i.send(aborted);
    const auto mine = co_await i.receive(5s);
    EXPECT_TRUE(mine.has_value());
    EXPECT_EQ(co_await i.manage(1, aborted.initiator_task_tag), 0) << "ABORT TASK";
    const auto before = w.device.writes_done;
    DataOut data;
    for (const auto& [tag, transfer] :
         {std::pair{reading.initiator_task_tag, kReservedTag}, std::pair{reading.initiator_task_tag, 1U},
          std::pair{aborted.initiator_task_tag, mine->as<ReadyToTransfer>().target_transfer_tag},
          std::pair{theirs.initiator_task_tag + 0x1000U, r2t->as<ReadyToTransfer>().target_transfer_tag}}) {
        data.initiator_task_tag = tag;
        data.target_transfer_tag = transfer;
        co_await i.send(data, pattern(4096, 3));
        co_await expect(i, {Answer::kSilence}, "data of a read, of an aborted write, of another session");
    }
    EXPECT_EQ(w.device.writes_done, before);
    w.device.release();
    EXPECT_EQ((co_await i.finish(reading.initiator_task_tag)).status, 0);
    data.initiator_task_tag = reading.initiator_task_tag;
    co_await i.send(data, pattern(4096, 3));
    co_await expect(i, {Answer::kSilence}, "data of what has ended");
    EXPECT_EQ(w.device.writes_done, before);
    co_await i.prove_healthy();
    data.initiator_task_tag = theirs.initiator_task_tag;
    data.target_transfer_tag = r2t->as<ReadyToTransfer>().target_transfer_tag;
    co_await other.send(data, pattern(4096, 4));
    const auto done = co_await other.receive(5s);
    EXPECT_TRUE(done && done->as<ScsiResponse>().status == 0);
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(100), 4096), pattern(4096, 4)));
    co_await i.close();
    co_await other.close();
}

SCENARIO(Framing, many_pdus_in_one_segment_are_told_apart) {
    Initiator i(w);
    co_await i.log_in({"HeaderDigest=CRC32C", "DataDigest=CRC32C"});
    std::vector<std::byte> all;
    const auto add = [&all](const std::vector<std::byte>& pdu) { all.insert(all.end(), pdu.begin(), pdu.end()); };
    const auto write = i.command_pdu(write10(7, 1), kWrite, 512);
    add(with(i, write, 512));
    add(with(i, immediate_pdu<NopOut>(i), 1));
    const auto read = i.command_pdu(test_unit_ready(), kFinal, 0);
    add(with(i, read));
    add(with(i, immediate_pdu<NopOut>(i), 511));
    co_await i.send_raw(all);
    std::map<Opcode, int> answers;
    std::size_t echoed = 0;
    while (auto reply = co_await i.receive(1s)) {
        ++answers[reply->opcode()];
        echoed += reply->data.size();
    }
    EXPECT_EQ(answers, (std::map<Opcode, int>{{Opcode::kNopIn, 2}, {Opcode::kScsiResponse, 2}}));
    EXPECT_EQ(echoed, 512U);
    EXPECT_TRUE(std::ranges::equal(w.device.bytes(Lba(7), 512), pattern(512, 2)));
    co_await i.prove_healthy();
    co_await i.close();
}

SCENARIO(Framing, padding_may_be_anything_and_may_not_be_missing) {
    Initiator i(w);
    co_await i.log_in();
    std::vector<std::byte> ping = with(i, immediate_pdu<NopOut>(i), 5);
    EXPECT_EQ(ping.size(), kBhsBytes + 8);
    std::fill(ping.end() - 3, ping.end(), std::byte{0xee});
    co_await i.send_raw(ping);
    const auto echo = co_await i.receive(5s);
    EXPECT_TRUE(echo && echo->opcode() == Opcode::kNopIn);
    EXPECT_EQ(echo->data, pattern(5, 2)) << "and is no data";
    co_await i.prove_healthy();
    const auto before = w.device.writes_done;
    for (int n = 0; n < 20; ++n) {  // from now on the stream is three bytes ahead
        std::vector<std::byte> pdus = with(i, immediate_pdu<NopOut>(i), 5);
        pdus.resize(pdus.size() - 3);
        const auto write = with(i, i.command_pdu(write10(0, 1), kWrite, 512), 512);
        pdus.insert(pdus.end(), write.begin(), write.end());
        co_await i.send_raw(pdus);
        co_await sleep_for(w.clock(), 10ms);
    }
    EXPECT_EQ(w.device.writes_done, before);
    i.hang_up();
    co_await i.close();
    co_await neighbour_is_healthy(w);
}

SCENARIO(Framing, additional_headers_are_covered_by_the_header_digest) {
    for (const bool corrupt : {false, true}) {
        Initiator i(w);
        co_await i.log_in({"HeaderDigest=CRC32C"});
        auto pdu = i.command_pdu(test_unit_ready(), kFinal, 0);
        i.corrupt_header_digest = corrupt;
        co_await i.send(pdu, {}, std::vector<std::byte>(1020));
        co_await expect(i, corrupt ? Expected{Answer::kClose} : Expected{Answer::kReject, 9}, "the longest AHS");
        if (!corrupt) {
            --i.cmd_sn;
            co_await i.prove_healthy();
        }
        co_await i.close();
        co_await neighbour_is_healthy(w);
    }
}

SCENARIO(Framing, every_opcode_that_initiators_do_not_send_is_rejected_or_ends_the_connection) {
    const std::set<unsigned> known{0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10};
    for (unsigned opcode = 0; opcode < 0x40; ++opcode) {
        if (known.contains(opcode)) {
            continue;
        }
        Initiator i(w);
        co_await i.log_in();
        co_await i.send_raw(opcode_only(i, static_cast<std::uint8_t>(opcode)));
        const bool of_targets = opcode >= 0x20;
        co_await expect(i, of_targets ? Expected{Answer::kClose} : Expected{Answer::kReject, 5},
                        std::to_string(opcode).c_str());
        if (!of_targets) {
            co_await i.prove_healthy();
        }
        co_await i.close();
    }
    co_await neighbour_is_healthy(w);
}
}  // namespace
}  // namespace gemel::iscsi::test
