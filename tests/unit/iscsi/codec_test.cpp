// SPDX-License-Identifier: Apache-2.0
// Headers there and back, where their fields lie, additional headers, digests, the opcode table, the command window.
#include <gtest/gtest.h>

#include "target/iscsi/digest.hpp"
#include "target/iscsi/task_set.hpp"
#include "target/iscsi/wildcard.hpp"

namespace gemel::iscsi {
namespace {

/// Gives every field of a PDU another value.
struct FieldFiller {
    std::uint8_t next = 1;
    template <std::unsigned_integral T>
    void operator()(std::size_t /*at*/, T& value) {
        std::array<std::byte, sizeof(T)> bytes;
        for (std::byte& b : bytes) {
            b = static_cast<std::byte>(next++);
        }
        value = load_be<T>(bytes.data());
    }
    template <std::size_t N>
    void operator()(std::size_t /*at*/, std::array<std::byte, N>& value) {
        for (std::byte& b : value) {
            b = static_cast<std::byte>(next++);
        }
    }
    void operator()(std::size_t at, TargetNumbers& n) {
        (*this)(at, n.stat_sn);
        (*this)(at, n.exp_cmd_sn);
        (*this)(at, n.max_cmd_sn);
    }
};

template <class Pdu>
void comes_back() {
    Pdu p;
    p.flags = 0xa5;
    p.immediate = (static_cast<std::uint8_t>(Pdu::kOpcode) & 0x20U) == 0;
    p.ahs_words = 7;
    p.data_length = 0x123456;
    p.initiator_task_tag = 0xcafef00d;
    Pdu::fields(p, FieldFiller{});
    const BhsBytes bhs = encode(p);
    EXPECT_EQ(raw_opcode(bhs.data()), static_cast<std::uint8_t>(Pdu::kOpcode));
    EXPECT_EQ(decode<Pdu>(bhs.data()), p) << "opcode " << int(Pdu::kOpcode);
    Pdu other = p;
    other.data_length ^= 1U;
    EXPECT_NE(encode(other), bhs);
}

template <class... Pdus>
void all_come_back() {
    (comes_back<Pdus>(), ...);
}

TEST(Bhs, every_pdu_comes_back_as_it_was) {
    all_come_back<NopOut, ScsiCommandPdu, TaskManagementRequest, LoginRequest, TextRequest, DataOut, LogoutRequest,
                  SnackRequest, NopIn, ScsiResponse, TaskManagementResponse, LoginResponse, TextResponse, DataIn,
                  LogoutResponse, ReadyToTransfer, AsyncMessage, Reject>();
}

TEST(Bhs, fields_lie_where_the_standard_puts_them) {
    ScsiCommandPdu c;
    c.immediate = true;
    c.flags = 0xe1;
    c.data_length = 0x010203;
    c.lun = 0x0102030405060708;
    c.initiator_task_tag = 0x11223344;
    c.expected_data_transfer_length = 0x55667788;
    c.cmd_sn = 0x99aabbcc;
    c.exp_stat_sn = 0xddeeff00;
    c.cdb[0] = std::byte{0x28};
    const BhsBytes b = encode(c);
    const std::array<int, 33> expected{0x41, 0xe1, 0,    0,    0,    1,    2,    3,    1,    2,    3,
                                       4,    5,    6,    7,    8,    0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
                                       0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x28};
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(std::to_integer<int>(b[i]), expected[i]) << "byte " << i;
    }
}

TEST(Opcodes, the_table_names_the_eight_that_initiators_send) {
    int found = 0;
    for (unsigned raw = 0; raw < 256; ++raw) {
        const OpcodeRow* row = find_opcode(static_cast<std::uint8_t>(raw));
        found += row != nullptr ? 1 : 0;
        EXPECT_TRUE(row == nullptr || static_cast<unsigned>(row->opcode) == raw);
    }
    EXPECT_EQ(found, 8);
    EXPECT_FALSE(find_opcode(0x01)->in_discovery);
    EXPECT_FALSE(find_opcode(0x03)->in_normal);
}

std::vector<std::byte> bytes_of_list(std::initializer_list<int> list) {
    std::vector<std::byte> out;
    for (const int b : list) {
        out.push_back(static_cast<std::byte>(b));
    }
    return out;
}

TEST(AdditionalHeaders, good_ones_are_taken_apart) {
    const auto both = bytes_of_list({0, 5, 2, 0, 0, 0, 1, 0, 0, 3, 1, 0, 0xaa, 0xbb, 0, 0});
    const auto parsed = parse_additional_headers(both);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->bidirectional_read_length, 256U);
    ASSERT_EQ(parsed->extended_cdb.size(), 2U);
    EXPECT_EQ(parsed->extended_cdb[1], std::byte{0xbb});
}

TEST(AdditionalHeaders, bad_ones_are_refused) {
    for (const auto& bad :
         {bytes_of_list({0, 0, 1, 0}), bytes_of_list({0, 1, 1, 0}), bytes_of_list({0, 9, 1, 0}),
          bytes_of_list({0, 2, 0, 0, 0, 0, 0, 0}), bytes_of_list({0, 2, 9, 0, 0, 0, 0, 0}),
          bytes_of_list({0, 5, 2, 0, 0, 0, 0}), bytes_of_list({0xff, 0xff, 1, 0}),
          bytes_of_list({0, 2, 1, 0, 1, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0, 0}), bytes_of_list({0, 4, 2, 0, 0, 0, 0, 0})}) {
        EXPECT_FALSE(parse_additional_headers(bad)) << bad.size();
    }
}

TEST(Digest, is_that_of_the_standards_examples) {
    // RFC 7143 B.4: 32 bytes of zeros, of ones, rising and falling; least significant byte first.
    std::array<std::byte, 32> data{};
    std::array<std::byte, 4> digest{};
    store_digest(digest.data(), crc32c(data));
    EXPECT_EQ(load_be<std::uint32_t>(digest.data()), 0xaa36918aU);
    data.fill(std::byte{0xff});
    store_digest(digest.data(), crc32c(data));
    EXPECT_EQ(load_be<std::uint32_t>(digest.data()), 0x43aba862U);
    for (std::size_t i = 0; i < 32; ++i) {
        data[i] = static_cast<std::byte>(i);
    }
    store_digest(digest.data(), crc32c(data));
    EXPECT_EQ(load_be<std::uint32_t>(digest.data()), 0x4e79dd46U);
    EXPECT_EQ(data_digest(ConstBytes(data).first(5)), crc32c(bytes_of_list({0, 1, 2, 3, 4, 0, 0, 0})));
}

TEST(CommandWindow, takes_numbers_inside_it_only_also_where_they_wrap) {
    for (const std::uint32_t first : {0U, 1U, 0x7fffffffU, 0x80000000U, 0xfffffff0U, 0xffffffffU}) {
        CommandWindow w(first, 32, 32);
        EXPECT_EQ(w.position(first), CmdSnPosition::kNext);
        EXPECT_EQ(w.position(first + 1), CmdSnPosition::kEarly);
        EXPECT_EQ(w.position(first + 31), CmdSnPosition::kEarly);
        EXPECT_EQ(w.position(first + 32), CmdSnPosition::kOutside);
        EXPECT_EQ(w.position(first - 1), CmdSnPosition::kOutside);
        EXPECT_EQ(w.position(first + 0x80000000U), CmdSnPosition::kOutside);
    }
}

TEST(CommandWindow, closes_as_commands_are_taken_and_never_goes_back) {
    CommandWindow w(0xfffffffe, 4, 4);
    std::uint32_t last = w.max_cmd_sn();
    for (int i = 0; i < 4; ++i) {
        w.advance();
        w.take();
        EXPECT_EQ(w.max_cmd_sn(), last);
    }
    EXPECT_EQ(w.position(w.exp_cmd_sn()), CmdSnPosition::kOutside);
    w.give_back();
    w.widen(0);
    EXPECT_EQ(w.max_cmd_sn(), last) << "there is no room, and answers are still to come";
    w.widen(4);
    EXPECT_EQ(w.max_cmd_sn(), last + 1);
    EXPECT_EQ(w.position(w.exp_cmd_sn()), CmdSnPosition::kNext);
    w.widen(0);
    EXPECT_EQ(w.max_cmd_sn(), last + 1);
    for (int i = 0; i < 3; ++i) {
        w.give_back();
    }
    w.advance();
    w.widen(0);
    EXPECT_EQ(w.position(w.exp_cmd_sn()), CmdSnPosition::kNext) << "nothing is unanswered: one may always come";
    EXPECT_EQ(w.max_cmd_sn(), w.exp_cmd_sn());
}

TEST(TaskSet, finds_what_is_in_it_whatever_the_tags_are) {
    TaskSet set;
    std::uint32_t x = 12345;
    std::vector<ScsiTask*> live;
    for (int round = 0; round < 20000; ++round) {
        x = x * 1664525U + 1013904223U;
        if (live.size() < 272 && x % 3 != 0) {
            const std::uint32_t tag = x % 2 == 0 ? x % 400 : x;
            if (set.find(tag) == nullptr) {
                ScsiTask& task = set.allocate();
                task.initiator_task_tag = tag;
                task.state = TaskState::kCollecting;
                set.insert(task);
                live.push_back(&task);
            }
        } else if (!live.empty()) {
            std::swap(live[x % live.size()], live.back());
            ScsiTask& task = *live.back();
            live.pop_back();
            const std::uint32_t tag = task.initiator_task_tag;
            set.erase(task);
            set.release(task);
            ASSERT_EQ(set.find(tag), nullptr);
        }
        for (std::size_t i = 0; i < live.size(); i += 17) {
            ASSERT_EQ(set.find(live[i]->initiator_task_tag), live[i]);
        }
    }
}

TEST(Wildcard, star_stands_for_any_run) {
    struct Case {
        const char* pattern;
        const char* text;
        bool matches;
    };
    for (const Case& c :
         {Case{"*", "", true}, Case{"*", "abc", true}, Case{"a*c", "abbbc", true}, Case{"a*c", "abbb", false},
          Case{"abc", "abc", true}, Case{"abc", "abcd", false}, Case{"", "a", false}, Case{"*a*b*", "xxaxxb", true},
          Case{"**a", "bca", true}, Case{"iqn.*:host-*", "iqn.2026.x:host-7", true}, Case{"a?", "ab", false}}) {
        EXPECT_EQ(matches_wildcard(c.pattern, c.text), c.matches) << c.pattern << " " << c.text;
    }
}

}  // namespace
}  // namespace gemel::iscsi
