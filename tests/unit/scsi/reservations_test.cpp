// SPDX-License-Identifier: Apache-2.0
// Persistent reservations: who may do what under each type, each service action, notices, and what survives.
#include <gtest/gtest.h>

#include "tests/support/sim_disk.hpp"
#include "tests/unit/scsi/memory_device.hpp"

namespace gemel::scsi {
namespace {

constexpr SenseCode kParameter{SenseKey::kIllegalRequest, 0x26, 0x00};
constexpr SenseCode kField{SenseKey::kIllegalRequest, 0x24, 0x00};
constexpr SenseCode kLength{SenseKey::kIllegalRequest, 0x1a, 0x00};
constexpr SenseCode kPreempted{SenseKey::kUnitAttention, 0x2a, 0x03};
constexpr SenseCode kReleased{SenseKey::kUnitAttention, 0x2a, 0x04};
constexpr SenseCode kUnregistered{SenseKey::kUnitAttention, 0x2a, 0x05};

constexpr unsigned kRegister = 0;
constexpr unsigned kReserve = 1;
constexpr unsigned kRelease = 2;
constexpr unsigned kClear = 3;
constexpr unsigned kPreempt = 4;
constexpr unsigned kPreemptAndAbort = 5;
constexpr unsigned kRegisterAndIgnore = 6;
constexpr unsigned kRegisterAndMove = 7;
constexpr unsigned kTypes[] = {1, 3, 5, 6, 7, 8};

const Cdb kRead = cdb_of({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
const Cdb kWrite = cdb_of({0x2a, 0, 0, 0, 0, 0, 0, 0, 1});

/// Keeps the newest record, or fails.
class Store : public ReservationStore {
  public:
    Task<Result<void>> save(std::vector<std::byte> record) override {
        ++saves;
        if (fails) {
            co_return fail(Errc::kReadOnly, "as the test wants");
        }
        newest = std::move(record);
        co_return Result<void>{};
    }
    int saves = 0;
    bool fails = false;
    std::vector<std::byte> newest;
};

struct ThreeHosts : ScsiBench {
    explicit ThreeHosts(ReservationStore* store = nullptr, Reservations reservations = {})
        : ScsiBench({}, {}, store, std::move(reservations)),
          second(attach("second")),
          third(attach("third")),
          watcher(attach("watcher")) {}
    Status run(const Cdb& cdb, ItlNexus* nexus) {
        const bool writes = cdb[0] == std::byte{0x2a};
        return send(cdb, {.data_out = writes ? pattern(512, 1) : std::vector<std::byte>(), .nexus = nexus}).status;
    }
    Answer reserve_in(unsigned action) { return send({0x5e, action, 0, 0, 0, 0, 0, 16, 0}, {.nexus = watcher.get()}); }
    std::uint64_t keys() { return reserve_in(0).number(4, 4) / 8; }
    std::uint64_t generation() { return reserve_in(0).number(0, 4); }
    /// 0: there is no reservation.
    unsigned reserved_type() {
        const Answer answer = reserve_in(1);
        return answer.number(4, 4) == 0 ? 0 : answer.at(21);
    }
    std::unique_ptr<ItlNexus> second;
    std::unique_ptr<ItlNexus> third;
    std::unique_ptr<ItlNexus> watcher;  ///< never registered, so it is told nothing
};

TEST(PersistentReserve, each_type_lets_in_whom_it_says) {
    for (const unsigned type : kTypes) {
        ThreeHosts bench;
        EXPECT_EQ(bench.reserve_out(kRegister, 0, 11).status, Status::kGood);
        EXPECT_EQ(bench.reserve_out(kRegister, 0, 22, 0, bench.second.get()).status, Status::kGood);
        EXPECT_EQ(bench.reserve_out(kReserve, 11, 0, type).status, Status::kGood);
        const bool registrants = type >= 5;
        const bool readers = type == 3 || type == 6 || type == 8;
        const auto good = [](bool yes) { return yes ? Status::kGood : Status::kReservationConflict; };
        EXPECT_EQ(bench.run(kWrite, bench.first.get()), Status::kGood);
        EXPECT_EQ(bench.run(kRead, bench.first.get()), Status::kGood);
        EXPECT_EQ(bench.run(kWrite, bench.second.get()), good(registrants)) << type;
        EXPECT_EQ(bench.run(kRead, bench.second.get()), good(registrants || !readers)) << type;
        EXPECT_EQ(bench.run(kWrite, bench.third.get()), Status::kReservationConflict) << type;
        EXPECT_EQ(bench.run(kRead, bench.third.get()), good(!readers)) << type;
        for (const unsigned allowed : {0x00U, 0x03U, 0x12U, 0x25U, 0xa0U}) {
            EXPECT_EQ(bench.run(cdb_of({allowed}), bench.third.get()), Status::kGood) << type << ' ' << allowed;
        }
        EXPECT_EQ(bench.run(cdb_of({0x35}), bench.third.get()), Status::kReservationConflict) << type;
        EXPECT_EQ(bench.run(cdb_of({0x16}), bench.third.get()), Status::kReservationConflict) << "RESERVE(6)";
        EXPECT_EQ(bench.reserved_type(), type);
        const std::uint64_t key = bench.reserve_in(1).number(8, 8);
        EXPECT_EQ(key, type >= 7 ? 0U : 11U);
        // The end of a session changes nothing: the registration is of the port's name.
        bench.first = bench.attach("first");
        EXPECT_EQ(bench.run(kWrite, bench.first.get()), Status::kGood) << type;
        bench.unit.reset();
        bench.watcher->take_attention();
        EXPECT_EQ(bench.reserved_type(), type) << "a reset keeps it";
    }
}

TEST(PersistentReserve, registering_wants_the_key_that_is_known) {
    ThreeHosts bench;
    EXPECT_EQ(bench.reserve_out(kRegister, 5, 11).status, Status::kReservationConflict) << "it has none yet";
    EXPECT_EQ(bench.reserve_out(kRegister, 0, 0).status, Status::kGood) << "nothing to do";
    EXPECT_EQ(bench.generation(), 0U);
    EXPECT_EQ(bench.reserve_out(kRegister, 0, 11).status, Status::kGood);
    EXPECT_EQ(bench.reserve_out(kRegister, 0, 12).status, Status::kReservationConflict);
    EXPECT_EQ(bench.reserve_out(kRegisterAndIgnore, 99, 12).status, Status::kGood);
    EXPECT_EQ(bench.reserve_out(kRegister, 12, 13).status, Status::kGood);
    EXPECT_EQ(bench.keys(), 1U);
    EXPECT_EQ(bench.generation(), 3U);
    EXPECT_EQ(bench.reserve_out(kRegister, 13, 0).status, Status::kGood);
    EXPECT_EQ(bench.keys(), 0U);
    for (const unsigned action : {kReserve, kRelease, kClear, kPreempt}) {
        EXPECT_EQ(bench.reserve_out(action, 0, 1, 1).status, Status::kReservationConflict) << "not registered";
    }
}

TEST(PersistentReserve, only_its_holder_releases_it_and_registrants_are_told) {
    for (const unsigned type : kTypes) {
        ThreeHosts bench;
        bench.reserve_out(kRegister, 0, 11);
        bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
        bench.reserve_out(kReserve, 11, 0, type);
        if (type < 7) {
            EXPECT_EQ(bench.reserve_out(kReserve, 22, 0, type, bench.second.get()).status,
                      Status::kReservationConflict);
            EXPECT_EQ(bench.reserve_out(kRelease, 22, 0, type, bench.second.get()).status, Status::kGood);
            EXPECT_EQ(bench.reserved_type(), type) << "it was not the other's to release";
        }
        const unsigned other_type = type == 1 ? 3 : 1;
        EXPECT_EQ(bench.reserve_out(kRelease, 11, 0, other_type).sense,
                  (SenseCode{SenseKey::kIllegalRequest, 0x26, 0x04}));
        EXPECT_EQ(bench.reserve_out(kRelease, 11, 0, type).status, Status::kGood);
        EXPECT_EQ(bench.reserved_type(), 0U);
        const Answer told = bench.send({0x00}, {.nexus = bench.second.get()});
        EXPECT_EQ(told.sense, type >= 5 ? kReleased : SenseCode{}) << type;
        EXPECT_EQ(bench.send({0x00}, {.nexus = bench.third.get()}).status, Status::kGood) << "not registered";
    }
}

TEST(PersistentReserve, a_holder_that_unregisters_ends_it_but_for_all_registrants) {
    for (const unsigned type : kTypes) {
        ThreeHosts bench;
        bench.reserve_out(kRegister, 0, 11);
        bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
        bench.reserve_out(kReserve, 11, 0, type);
        EXPECT_EQ(bench.reserve_out(kRegister, 11, 0).status, Status::kGood);
        EXPECT_EQ(bench.reserved_type(), type >= 7 ? type : 0U);
        if (type >= 7) {
            EXPECT_EQ(bench.reserve_out(kRegister, 22, 0, 0, bench.second.get()).status, Status::kGood);
            EXPECT_EQ(bench.reserved_type(), 0U) << "the last one";
        }
    }
}

TEST(PersistentReserve, clear_takes_everything_from_everybody) {
    ThreeHosts bench;
    bench.reserve_out(kRegister, 0, 11);
    bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
    bench.reserve_out(kReserve, 11, 0, 3);
    EXPECT_EQ(bench.reserve_out(kClear, 22, 0, 0, bench.second.get()).status, Status::kGood);
    EXPECT_EQ(bench.send({0x00}).sense, kPreempted);
    EXPECT_EQ(bench.keys(), 0U);
    EXPECT_EQ(bench.reserved_type(), 0U);
    EXPECT_EQ(bench.run(kWrite, bench.third.get()), Status::kGood);
}

TEST(PersistentReserve, preempt_takes_the_reservation_of_the_key_and_its_registrations) {
    for (const unsigned action : {kPreempt, kPreemptAndAbort}) {
        ThreeHosts bench;
        bench.reserve_out(kRegister, 0, 11);
        bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
        bench.reserve_out(kRegister, 0, 11, 0, bench.third.get());
        bench.reserve_out(kReserve, 11, 0, 5);
        EXPECT_EQ(bench.reserve_out(action, 22, 0, 5, bench.second.get()).sense, kParameter) << "no key";
        EXPECT_EQ(bench.reserve_out(action, 22, 77, 5, bench.second.get()).status, Status::kReservationConflict);
        EXPECT_EQ(bench.reserve_out(action, 22, 11, 1, bench.second.get()).status, Status::kGood);
        EXPECT_EQ(bench.reserved_type(), 1U);
        EXPECT_EQ(bench.send({0x00}).sense, kUnregistered);
        EXPECT_EQ(bench.send({0x00}, {.nexus = bench.third.get()}).sense, kUnregistered);
        EXPECT_EQ(bench.keys(), 1U);
        EXPECT_EQ(bench.run(kWrite, bench.first.get()), Status::kReservationConflict);
        EXPECT_EQ(bench.run(kWrite, bench.second.get()), Status::kGood);
        // Without being the holder's key it takes registrations only.
        bench.reserve_out(kRegister, 0, 33, 0, bench.third.get());
        EXPECT_EQ(bench.reserve_out(action, 22, 33, 3, bench.second.get()).status, Status::kGood);
        EXPECT_EQ(bench.reserved_type(), 1U);
        EXPECT_EQ(bench.keys(), 1U);
    }
}

TEST(PersistentReserve, preempt_of_all_registrants) {
    ThreeHosts bench;
    bench.reserve_out(kRegister, 0, 11);
    bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
    bench.reserve_out(kReserve, 11, 0, 7);
    EXPECT_EQ(bench.reserve_out(kPreempt, 22, 0, 3, bench.second.get()).status, Status::kGood);
    EXPECT_EQ(bench.reserved_type(), 3U);
    EXPECT_EQ(bench.keys(), 1U);
    EXPECT_EQ(bench.run(kRead, bench.first.get()), Status::kCheckCondition) << "it is told first";
    EXPECT_EQ(bench.run(kRead, bench.first.get()), Status::kReservationConflict);
}

std::vector<std::byte> transport_id(const std::string& port) {
    std::vector<std::byte> out(4 + round_up(port.size() + 1, 4));
    out[0] = std::byte{0x45};
    store_be(&out[2], static_cast<std::uint16_t>(out.size() - 4));
    std::ranges::copy(as_bytes_of(port), out.begin() + 4);
    return out;
}

TEST(PersistentReserve, register_and_move_hands_it_to_a_port_by_name) {
    for (const bool unregister : {false, true}) {
        ThreeHosts bench;
        bench.reserve_out(kRegister, 0, 11);
        bench.reserve_out(kReserve, 11, 0, 1);
        std::vector<std::byte> list(24);
        store_be(list.data(), std::uint64_t{11});
        store_be(list.data() + 8, std::uint64_t{22});
        list[17] = unregister ? std::byte{2} : std::byte{0};
        list[19] = std::byte{1};  // relative target port
        const std::vector<std::byte> id = transport_id(bench.second->nexus().initiator_port);
        store_be(list.data() + 20, static_cast<std::uint32_t>(id.size()));
        list.insert(list.end(), id.begin(), id.end());
        const Cdb cdb = cdb_of({0x5f, kRegisterAndMove, 0, 0, 0, 0, 0, 0, static_cast<unsigned>(list.size())});
        EXPECT_EQ(bench.send(cdb, {.data_out = list}).status, Status::kGood);
        EXPECT_EQ(bench.keys(), unregister ? 1U : 2U);
        EXPECT_EQ(bench.run(kWrite, bench.second.get()), Status::kGood);
        EXPECT_EQ(bench.run(kWrite, bench.first.get()), Status::kReservationConflict);
        const auto refused = [&](std::size_t at, unsigned value) {
            std::vector<std::byte> wrong = list;
            wrong[at] = static_cast<std::byte>(value);
            store_be(wrong.data(), std::uint64_t{22});
            return bench.send(cdb, {.data_out = wrong, .nexus = bench.second.get()}).sense == kParameter;
        };
        EXPECT_TRUE(refused(24, 0x05)) << "a TransportID without an ISID";
        EXPECT_TRUE(refused(19, 2)) << "another target port";
        EXPECT_TRUE(refused(28 + bench.second->nexus().initiator_port.size() - 1, 'x')) << "no ISID";
    }
}

TEST(PersistentReserve, spec_i_pt_registers_ports_that_are_not_logged_in) {
    ThreeHosts bench;
    std::vector<std::byte> list(28);
    store_be(list.data() + 8, std::uint64_t{11});
    list[20] = std::byte{0x08};
    for (const std::string name : {"iqn.2026-11.dev.gemel:later,i,0x00023d000009", "iqn.x:y,i,0x000000000001"}) {
        std::vector<std::byte> id = transport_id(name);
        id.resize(std::max<std::size_t>(24, id.size()));  // the least there is
        store_be(&id[2], static_cast<std::uint16_t>(id.size() - 4));
        list.insert(list.end(), id.begin(), id.end());
    }
    store_be(list.data() + 24, static_cast<std::uint32_t>(list.size() - 28));
    const Cdb cdb = cdb_of({0x5f, kRegister, 0, 0, 0, 0, 0, 0, static_cast<unsigned>(list.size())});
    EXPECT_EQ(bench.send(cdb, {.data_out = list}).status, Status::kGood);
    EXPECT_EQ(bench.keys(), 3U);
    bench.reserve_out(kReserve, 11, 0, 5);
    const auto later = bench.unit.attach({.initiator_port = "iqn.2026-11.dev.gemel:later,i,0x00023d000009",
                                          .target_port = bench.first->nexus().target_port});
    later->take_attention();
    EXPECT_EQ(bench.run(kWrite, later.get()), Status::kGood);
    EXPECT_EQ(bench.run(kWrite, bench.third.get()), Status::kReservationConflict);
    const Answer full = bench.reserve_in(3);
    EXPECT_EQ(full.number(4, 4), full.data.size() - 8);
    EXPECT_EQ(full.number(8, 8), 11U);
}

TEST(PersistentReserve, malformed_requests_change_nothing) {
    ThreeHosts bench;
    bench.reserve_out(kRegister, 0, 11);
    EXPECT_EQ(bench.reserve_out(kReserve, 11, 0, 2).sense, kField) << "no such type";
    EXPECT_EQ(bench.reserve_out(kReserve, 11, 0, 0x11).sense, kField) << "scope of an element";
    EXPECT_EQ(bench.send({0x5f, kReserve, 1, 0, 0, 0, 0, 0, 23}, {.data_out = std::vector<std::byte>(23)}).sense,
              kLength);
    EXPECT_EQ(bench.reserve_out(kRegister, 11, 12, 0, nullptr, 0x04).sense, kParameter) << "ALL_TG_PT";
    EXPECT_EQ(bench.reserve_out(kRegister, 11, 12, 0, nullptr, 0x01).sense, kParameter) << "APTPL without a store";
    EXPECT_EQ(bench.send({0x5f, 8}).sense, kField) << "no such service action";
    EXPECT_EQ(bench.send({0x5e, 4}).sense, kField);
    EXPECT_EQ(bench.send({0x5f, kRegister, 0, 0, 0, 1, 0, 0, 0}).sense, kField) << "a list of 16 MiB";
    EXPECT_EQ(bench.generation(), 1U);
}

TEST(PersistentReserve, too_many_registrations_are_refused) {
    ThreeHosts bench;
    std::vector<std::unique_ptr<ItlNexus>> hosts;
    for (std::size_t i = 0; i < Reservations::kMostRegistrations; ++i) {
        hosts.push_back(bench.attach("h" + std::to_string(i)));
        ASSERT_EQ(bench.reserve_out(kRegister, 0, i + 1, 0, hosts.back().get()).status, Status::kGood);
    }
    EXPECT_EQ(bench.reserve_out(kRegister, 0, 9999).sense, (SenseCode{SenseKey::kIllegalRequest, 0x55, 0x04}));
    EXPECT_EQ(bench.send({0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xff}, {.data_in_capacity = 65535}).status, Status::kGood);
}

TEST(PersistentReserve, what_is_to_survive_is_durable_before_it_counts_and_comes_back) {
    Store store;
    {
        ThreeHosts bench(&store);
        EXPECT_EQ(bench.reserve_in(2).at(2) & 1U, 1U) << "PTPL_C";
        EXPECT_EQ(bench.reserve_out(kRegister, 0, 11).status, Status::kGood);
        EXPECT_EQ(store.saves, 0) << "nothing is to survive";
        EXPECT_EQ(bench.reserve_out(kRegister, 11, 12, 0, nullptr, 1).status, Status::kGood);
        EXPECT_EQ(bench.reserve_out(kReserve, 12, 0, 5).status, Status::kGood);
        EXPECT_EQ(store.saves, 2);
        store.fails = true;
        EXPECT_EQ(bench.reserve_out(kRelease, 12, 0, 5).sense, kWriteProtected);
        EXPECT_EQ(bench.reserved_type(), 5U) << "not durable, so it did not happen";
        store.fails = false;
    }
    {
        ThreeHosts bench(&store, *Reservations::decode(store.newest));
        EXPECT_EQ(bench.reserved_type(), 5U);
        EXPECT_EQ(bench.run(kWrite, bench.first.get()), Status::kGood);
        EXPECT_EQ(bench.run(kWrite, bench.second.get()), Status::kReservationConflict);
        EXPECT_EQ(bench.reserve_out(kRegister, 12, 13, 0, nullptr, 0).status, Status::kGood) << "APTPL=0";
    }
    EXPECT_EQ(Reservations::decode(store.newest)->registrations().size(), 0U) << "nor does its end come back";
}

TEST(PersistentReserve, preempting_ones_own_key_without_being_the_holder_ends_ones_own_registration) {
    ThreeHosts bench;
    bench.reserve_out(kRegister, 0, 11);
    bench.reserve_out(kRegister, 0, 22, 0, bench.second.get());
    bench.reserve_out(kReserve, 11, 0, 1);
    EXPECT_EQ(bench.reserve_out(kPreempt, 22, 22, 1, bench.second.get()).status, Status::kGood);
    EXPECT_EQ(bench.keys(), 1U);
    EXPECT_EQ(bench.send({0x00}, {.nexus = bench.second.get()}).status, Status::kGood) << "it is told nothing";
    EXPECT_EQ(bench.reserved_type(), 1U);
}

TEST(PersistentReserve, a_preempted_host_may_still_let_the_medium_go) {
    ThreeHosts bench;
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 1}, {.nexus = bench.second.get()}).status, Status::kGood);
    bench.reserve_out(kRegister, 0, 11);
    bench.reserve_out(kReserve, 11, 0, 3);
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 1}, {.nexus = bench.second.get()}).status, Status::kReservationConflict);
    EXPECT_EQ(bench.send({0x1e, 0, 0, 0, 0}, {.nexus = bench.second.get()}).status, Status::kGood);
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 1}, {.nexus = bench.second.get()}).status, Status::kGood) << "START";
    EXPECT_EQ(bench.send({0x1b, 0, 0, 0, 0}, {.nexus = bench.second.get()}).status, Status::kReservationConflict);
}

TEST(PersistentReserve, a_unit_without_them_says_so) {
    ScsiBench bench({.persistent_reservations = false});
    EXPECT_EQ(bench.send({0x5e, 0, 0, 0, 0, 0, 0, 1, 0}).sense.asc, 0x20);
    EXPECT_EQ(bench.reserve_out(kRegister, 0, 11).sense.asc, 0x20);
}

/// A write that is held in the device.
struct HeldWrite {
    sim::SimScheduler& scheduler;
    LogicalUnit& unit;
    Environment& environment;

    Task<void> write(ItlNexus& nexus, unsigned block, std::vector<Status>& out) {
        ScsiCommand command;
        command.nexus = &nexus;
        command.cdb = cdb_of({0x2a, 0, 0, 0, 0, block, 0, 0, 1});
        command.plan = unit.plan(command.cdb);
        command.direction = DataDirection::kOut;
        command.declared_out = command.data_out_bytes = 512;
        command.data_out = *environment.buffers.allocate(512);
        std::ranges::fill(command.data_out.memory(), std::byte{1});
        out.push_back((co_await unit.execute(command)).status);
    }
    Task<void> reserve_out(ItlNexus& nexus, unsigned action, std::uint64_t key, std::uint64_t victim,
                           std::vector<Status>& out) {
        ScsiCommand command;
        command.nexus = &nexus;
        command.cdb = cdb_of({0x5f, action, 1, 0, 0, 0, 0, 0, 24});
        command.plan = unit.plan(command.cdb);
        command.direction = DataDirection::kOut;
        command.declared_out = command.data_out_bytes = 24;
        command.data_out = *environment.buffers.allocate(24);
        std::ranges::fill(command.data_out.memory().first(24), std::byte{0});
        store_be(command.data_out.memory().data(), key);
        store_be(command.data_out.memory().data() + 8, victim);
        out.push_back((co_await unit.execute(command)).status);
    }
};

TEST(PersistentReserve, writes_before_a_preemption_have_ended_and_those_that_wait_behind_it_are_refused) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        sim::SimScheduler scheduler(seed);
        sim::SimExecutor& one = scheduler.add_executor("p0");
        sim::SimExecutor& other = scheduler.add_executor("p1");
        sim::SimNetwork network(scheduler, seed);
        sim::SimEnvironment node(scheduler, network, "node", seed);
        sim::SimDisk disk(scheduler, seed, {});
        LogicalUnit unit(node.get(), disk, {});
        const auto owner = unit.attach({.initiator_port = "owner"});
        const auto fenced = unit.attach({.initiator_port = "fenced"});
        owner->take_attention();
        fenced->take_attention();
        HeldWrite held{scheduler, unit, node.get()};
        std::vector<Status> control;
        scheduler.run(one, held.reserve_out(*owner, kRegister, 0, 1, control));
        scheduler.run(one, held.reserve_out(*fenced, kRegister, 0, 2, control));
        scheduler.run(one, held.reserve_out(*fenced, kReserve, 2, 0, control));
        ASSERT_EQ(control, std::vector<Status>(3, Status::kGood));
        std::vector<Status> before;
        std::vector<Status> after;
        std::vector<Status> preempted;
        disk.stall(std::chrono::seconds(1));
        scheduler.start(one, held.write(*fenced, 1, before));
        scheduler.run_for(std::chrono::milliseconds(1));
        scheduler.start(other, held.reserve_out(*owner, kPreemptAndAbort, 1, 2, preempted));
        scheduler.run_for(std::chrono::milliseconds(1));
        scheduler.start(one, held.write(*fenced, 2, after));
        scheduler.run_for(std::chrono::milliseconds(1));
        EXPECT_TRUE(before.empty() && preempted.empty() && after.empty()) << "all of them wait for the write";
        ASSERT_TRUE(scheduler.run_until([&] { return !preempted.empty() && !after.empty(); }));
        EXPECT_EQ(before, std::vector{Status::kGood}) << "it ended first";
        EXPECT_EQ(preempted, std::vector{Status::kGood});
        EXPECT_NE(after, std::vector{Status::kGood});
    }
}

TEST(PersistentReserve, a_record_that_is_not_whole_is_refused) {
    Reservations state;
    const NexusName a{"iqn.a:a,i,0x1", "iqn.t:t,t,0x0001"};
    const NexusName b{"iqn.b:b,i,0x1", "iqn.t:t,t,0x0001"};
    for (const auto& [name, key] : {std::pair{a, 1}, std::pair{b, 2}}) {
        state.apply(
            name,
            {.action = Reservations::Action::kRegister, .service_action_key = std::uint64_t(key), .persist = true});
    }
    state.apply(b, {.action = Reservations::Action::kReserve, .type = ReservationType::kWriteExclusive, .key = 2});
    const std::vector<std::byte> record = state.encode();
    EXPECT_EQ(*Reservations::decode(record), state);
    for (std::size_t i = 0; i < record.size(); ++i) {
        std::vector<std::byte> bad = record;
        bad[i] ^= std::byte{0x41};
        EXPECT_FALSE(Reservations::decode(bad).has_value()) << i;
        EXPECT_FALSE(Reservations::decode(ConstBytes(record).first(i)).has_value()) << i;
    }
}

}  // namespace
}  // namespace gemel::scsi
