// SPDX-License-Identifier: Apache-2.0
// What is kept per I_T nexus: unit attentions, once each, and RESERVE/RELEASE; and a unit on a slow, crashing disk.
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/sim_disk.hpp"
#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

SenseCode attention(unsigned asc, unsigned ascq) {
    return {SenseKey::kUnitAttention, static_cast<std::uint8_t>(asc), static_cast<std::uint8_t>(ascq)};
}

TEST(UnitAttention, a_new_nexus_hears_once_of_the_power_on) {
    ScsiBench bench;
    const auto nexus = bench.attach_fresh("second");
    const Answer first = bench.send({0x00}, {.nexus = nexus.get()});
    EXPECT_EQ(first.status, Status::kCheckCondition);
    EXPECT_EQ(first.sense, attention(0x29, 0x00));
    EXPECT_EQ(bench.send({0x00}, {.nexus = nexus.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
}

TEST(UnitAttention, growth_is_told_once_to_every_nexus_and_the_new_size_is_there) {
    ScsiBench bench;
    const auto second = bench.attach("second");
    bench.device.resize(8192);
    bench.device.resize(16384);
    for (ItlNexus* nexus : {bench.first.get(), second.get()}) {
        EXPECT_EQ(bench.send({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, {.nexus = nexus}).sense, attention(0x2a, 0x09));
        EXPECT_EQ(bench.send({0x28, 0, 0, 0, 0x20, 0, 0, 0, 1}, {.nexus = nexus}).status, Status::kGood);
        EXPECT_EQ(bench.send({0x25}, {.nexus = nexus}).number(0, 4), 16383U);
    }
}

TEST(UnitAttention, each_condition_has_its_code_and_they_come_in_order_of_precedence) {
    const std::vector<std::pair<Attention, SenseCode>> rows{{Attention::kPowerOn, attention(0x29, 0x00)},
                                                            {Attention::kReset, attention(0x29, 0x03)},
                                                            {Attention::kNexusLoss, attention(0x29, 0x07)},
                                                            {Attention::kCapacityChanged, attention(0x2a, 0x09)},
                                                            {Attention::kModeChanged, attention(0x2a, 0x01)},
                                                            {Attention::kReservationsReleased, attention(0x2a, 0x04)},
                                                            {Attention::kAsymmetricStateChanged, attention(0x2a, 0x06)},
                                                            {Attention::kLunsChanged, attention(0x3f, 0x0e)},
                                                            {Attention::kCommandsCleared, attention(0x2f, 0x00)},
                                                            {Attention::kSoftThreshold, attention(0x38, 0x07)}};
    ScsiBench bench;
    for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
        bench.first->raise(row->first);
        bench.first->raise(row->first);
    }
    for (const auto& [condition, code] : rows) {
        EXPECT_EQ(bench.send({0x00}).sense, code);
    }
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
}

TEST(UnitAttention, inquiry_and_report_luns_pass_it_and_every_other_command_reports_it_before_its_own_faults) {
    ScsiBench bench;
    bench.first->raise(Attention::kCapacityChanged);
    EXPECT_EQ(bench.send({0x12, 0, 0, 0, 96}).status, Status::kGood);
    EXPECT_EQ(bench.send({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}).status, Status::kGood);
    EXPECT_TRUE(bench.first->attention_pending());
    EXPECT_EQ(bench.send({0xc1}).sense, attention(0x2a, 0x09));
    EXPECT_EQ(bench.send({0xc1}).sense, kInvalidOpcode);
}

TEST(UnitAttention, report_luns_ends_the_news_that_the_luns_have_changed) {
    ScsiBench bench;
    const auto second = bench.attach("second");
    bench.unit.raise_all(Attention::kLunsChanged);
    bench.send({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0});
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}, {.nexus = second.get()}).sense, attention(0x3f, 0x0e));
}

TEST(UnitAttention, a_write_that_meets_one_writes_nothing) {
    ScsiBench bench;
    bench.first->raise(Attention::kReset);
    const Answer answer = bench.send({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, {.data_out = pattern(512, 1)});
    EXPECT_EQ(answer.sense, attention(0x29, 0x03));
    EXPECT_EQ(bench.device.writes, 0);
}

TEST(Reservation, others_get_conflict_except_for_what_is_always_allowed) {
    for (const unsigned opcode : {0x16U, 0x56U}) {
        ScsiBench bench;
        const auto second = bench.attach("second");
        EXPECT_EQ(bench.send({opcode}).status, Status::kGood);
        EXPECT_EQ(bench.send({opcode}).status, Status::kGood) << "again by the same nexus";
        const auto other = [&](std::initializer_list<unsigned> cdb) {
            return bench.send(cdb, {.nexus = second.get()}).status;
        };
        for (const unsigned conflicting : {0x00U, 0x16U, 0x56U, 0x1aU, 0x1bU, 0x28U, 0x2aU, 0x2fU, 0x35U, 0x88U}) {
            EXPECT_EQ(other({conflicting}), Status::kReservationConflict) << conflicting;
        }
        EXPECT_EQ(other({0x2a, 0, 0, 0, 0, 0, 0, 0, 1}), Status::kReservationConflict);
        EXPECT_EQ(bench.device.reads + bench.device.writes + bench.device.flushes, 0);
        EXPECT_EQ(other({0x12, 0, 0, 0, 96}), Status::kGood);
        EXPECT_EQ(other({0x03, 0, 0, 0, 18}), Status::kGood);
        EXPECT_EQ(other({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16}), Status::kGood);
        EXPECT_EQ(other({0x25}), Status::kGood);
        EXPECT_EQ(other({0x17}), Status::kGood) << "releases nothing";
        EXPECT_EQ(other({0x00}), Status::kReservationConflict);
        EXPECT_EQ(bench.send({0x28, 0, 0, 0, 0, 0, 0, 0, 1}).status, Status::kGood);
        EXPECT_EQ(bench.send({opcode == 0x16 ? 0x17U : 0x57U}).status, Status::kGood);
        EXPECT_EQ(other({opcode}), Status::kGood);
        EXPECT_EQ(bench.send({0x00}).status, Status::kReservationConflict);
    }
}

TEST(Reservation, a_reset_and_the_end_of_the_nexus_release_it) {
    ScsiBench bench;
    auto second = bench.attach("second");
    bench.send({0x16});
    bench.unit.reset();
    for (ItlNexus* nexus : {bench.first.get(), second.get()}) {
        EXPECT_EQ(bench.send({0x00}, {.nexus = nexus}).sense, attention(0x29, 0x03));
        EXPECT_EQ(bench.send({0x00}, {.nexus = nexus}).status, Status::kGood);
    }
    EXPECT_EQ(bench.send({0x16}, {.nexus = second.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}).status, Status::kReservationConflict);
    second.reset();
    EXPECT_EQ(bench.send({0x00}).status, Status::kGood);
}

TEST(UnitAttention, nexuses_may_come_and_go_on_one_thread_while_others_raise_and_take) {
    ScsiBench bench;
    constexpr int kRounds = 2000;
    std::atomic<bool> stop = false;
    std::atomic<int> taken = 0;
    std::thread raiser([&] {
        for (int i = 0; i < kRounds; ++i) {
            bench.unit.raise_all(i % 2 == 0 ? Attention::kCapacityChanged : Attention::kLunsChanged);
            bench.unit.reserve(*bench.first);
            bench.unit.release(*bench.first);
        }
        stop = true;
    });
    std::thread taker([&] {
        while (!stop) {
            taken += bench.first->take_attention().has_value() ? 1 : 0;
        }
    });
    for (int i = 0; i < kRounds; ++i) {
        const auto nexus = bench.attach_fresh("n" + std::to_string(i));
        nexus->take_attention();
        EXPECT_EQ(bench.unit.reserved_by_other(*bench.first), false);
    }
    raiser.join();
    taker.join();
    while (bench.first->take_attention()) {
        ++taken;
    }
    EXPECT_GE(taken, 1);
    EXPECT_LE(taken, kRounds);
    EXPECT_FALSE(bench.first->attention_pending());
}

TEST(LogicalUnit, observes_its_device_while_it_lives) {
    ScsiBench bench;
    MemoryDevice device({});
    {
        LogicalUnit unit(bench.environment(), device, {});
        EXPECT_TRUE(device.observed());
    }
    EXPECT_FALSE(device.observed());
}

struct Outcome {
    int ended = 0;
    int good = 0;
    int gone = 0;
};

Task<void> run_one(LogicalUnit& unit, ItlNexus& nexus, Environment& environment, std::uint64_t lba, Outcome& outcome) {
    ScsiCommand command;
    command.nexus = &nexus;
    command.cdb = cdb_of({lba % 2 == 0 ? 0x2aU : 0x28U, 0, 0, 0, 0, static_cast<unsigned>(lba), 0, 0, 8});
    command.plan = unit.plan(command.cdb);
    command.direction = command.plan.direction;
    command.data_in_capacity = 4096;
    if (command.direction == DataDirection::kOut) {
        command.data_out = *environment.buffers.allocate(4096);
        std::ranges::fill(command.data_out.memory(), static_cast<std::byte>(lba));
        command.data_out_bytes = 4096;
    }
    const Answer answer = answer_of(co_await unit.execute(command));
    ++outcome.ended;
    outcome.good += answer.status == Status::kGood ? 1 : 0;
    outcome.gone += answer.sense == kInternalTargetFailure ? 1 : 0;
}

TEST(LogicalUnit, commands_on_a_disk_that_dies_end_each_once_in_whatever_order) {
    int failed = 0;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        sim::SimScheduler scheduler(seed);
        sim::SimExecutor& executor = scheduler.add_executor("p0");
        sim::SimNetwork network(scheduler, seed);
        sim::SimEnvironment node(scheduler, network, "node", seed);
        sim::SimDisk disk(scheduler, seed, {});
        LogicalUnit unit(node.get(), disk, {});
        const auto nexus = unit.attach({});
        nexus->take_attention();
        Outcome outcome;
        for (std::uint64_t i = 0; i < 32; ++i) {
            scheduler.start(executor, run_one(unit, *nexus, node.get(), i, outcome));
        }
        scheduler.run_for(std::chrono::microseconds(200));
        disk.die();
        ASSERT_TRUE(scheduler.run_until([&] { return outcome.ended == 32; }));
        EXPECT_EQ(outcome.good + outcome.gone, 32);
        EXPECT_EQ(node.pool().outstanding_bytes(), 0U);
        EXPECT_TRUE(disk.complaints().empty());
        failed += outcome.gone;
    }
    EXPECT_GT(failed, 0);
}

TEST(ReadOnlyNexus, changes_nothing_of_the_unit_for_the_others) {
    ScsiBench bench({.thin = true, .removable = true});
    const auto reader = bench.unit.attach({.initiator_port = "iqn.2026-11.dev.gemel:reader,i,0x00023d000001",
                                           .target_port = "iqn.2026-11.dev.gemel:target,t,0x0001",
                                           .read_only = true});
    EXPECT_EQ(bench.send({0x00}, {.nexus = reader.get()}).sense, attention(0x29, 0x00));
    struct Row {
        const char* what;
        Cdb cdb;
        std::size_t bytes;
    };
    const Row rows[] = {{"MODE SELECT(6)", cdb_of({0x15, 0x10, 0, 0, 16}), 16},
                        {"MODE SELECT(10)", cdb_of({0x55, 0x10, 0, 0, 0, 0, 0, 0, 20}), 20},
                        {"RESERVE(6)", cdb_of({0x16}), 0},
                        {"RESERVE(10)", cdb_of({0x56}), 0},
                        {"eject", cdb_of({0x1b, 0, 0, 0, 2}), 0},
                        {"load", cdb_of({0x1b, 0, 0, 0, 3}), 0},
                        {"REGISTER", cdb_of({0x5f, 0, 0, 0, 0, 0, 0, 0, 24}), 24},
                        {"PREEMPT AND ABORT", cdb_of({0x5f, 5, 1, 0, 0, 0, 0, 0, 24}), 24},
                        {"REGISTER AND IGNORE", cdb_of({0x5f, 6, 0, 0, 0, 0, 0, 0, 24}), 24},
                        {"PREVENT MEDIUM REMOVAL", cdb_of({0x1e, 0, 0, 0, 1}), 0}};
    for (const Row& row : rows) {
        EXPECT_EQ(bench.unit.plan(row.cdb, *reader).direction, DataDirection::kNone) << row.what;
        const std::vector<std::byte> list(row.bytes, std::byte{1});
        EXPECT_EQ(bench.send(row.cdb, {.data_out = list, .nexus = reader.get()}).sense,
                  (SenseCode{SenseKey::kDataProtect, 0x27, 0x00}))
            << row.what;
    }
    EXPECT_EQ(bench.send({0x5e, 0, 0, 0, 0, 0, 0, 0, 255}).number(4, 4), 0U) << "no keys";
    // What others do not notice it may do.
    for (const Cdb& harmless : {cdb_of({0x1b, 0, 0, 0, 1}), cdb_of({0x1b}), cdb_of({0x1e}), cdb_of({0x17}),
                                cdb_of({0x57}), cdb_of({0x5e, 0, 0, 0, 0, 0, 0, 0, 255})}) {
        EXPECT_EQ(bench.send(harmless, {.nexus = reader.get()}).status, Status::kGood) << command_name(harmless);
    }
    EXPECT_EQ(bench.send({0x16}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x17}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 2}).status, Status::kGood);
}

}  // namespace
}  // namespace gemel::scsi
