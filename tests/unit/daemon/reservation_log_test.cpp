// SPDX-License-Identifier: Apache-2.0
// ReservationLog: what was saved comes back, also after a checkpoint; what cannot be read is not taken for none.
#include "target/daemon/reservation_log.hpp"

#include <gtest/gtest.h>

#include "tests/support/sim_scheduler.hpp"
#include "tests/support/test_log.hpp"

namespace gemel {
namespace {

constexpr std::uint16_t kVolume = 3;
constexpr LogClientId kClient = kLogClientReservations | kVolume;

scsi::Reservations registered(std::uint64_t key) {
    scsi::Reservations out;
    const scsi::NexusName name{"iqn.2026-11.dev.gemel:host,i,0x1", "iqn.2026-11.dev.gemel:t,t,0x0001"};
    const auto outcome = out.apply(name, {.service_action_key = key, .persist = true});
    CHECK(outcome.status == scsi::Status::kGood);
    return out;
}

struct World {
    sim::SimScheduler scheduler{1};
    sim::SimExecutor& home = scheduler.add_executor("home");
    sim::SimExecutor& other = scheduler.add_executor("other");
    sim::TestLog log{scheduler};

    Result<scsi::Reservations> open(ReservationLog& reservations) { return scheduler.run(other, reservations.open()); }
    Result<scsi::Reservations> reopened() {
        ReservationLog reservations(log, kVolume, home);
        return open(reservations);
    }
    Result<void> save(ReservationLog& reservations, std::uint64_t key) {
        return scheduler.run(other, reservations.save(registered(key).encode()));
    }
};

TEST(ReservationLog, the_newest_state_comes_back_and_older_ones_are_dropped) {
    World w;
    {
        ReservationLog reservations(w.log, kVolume, w.home);
        EXPECT_TRUE(w.open(reservations)->registrations().empty());
        EXPECT_TRUE(w.save(reservations, 7).has_value());
        EXPECT_TRUE(w.save(reservations, 8).has_value());
        EXPECT_EQ(w.log.records(kClient), 1U);
        EXPECT_TRUE(w.scheduler.run(w.home, w.log.checkpoints[kClient]()).has_value());
        EXPECT_EQ(w.log.records(kClient), 1U);
    }
    EXPECT_EQ(w.log.checkpoints.count(kClient), 0U) << "it is gone";
    ReservationLog again(w.log, kVolume, w.home);
    EXPECT_EQ(*w.open(again), registered(8));
    // A checkpoint before anything is saved carries what was loaded on.
    EXPECT_TRUE(w.scheduler.run(w.home, w.log.checkpoints[kClient]()).has_value());
    EXPECT_EQ(*w.reopened(), registered(8));
}

TEST(ReservationLog, a_state_that_was_not_saved_is_not_carried_on) {
    World w;
    ReservationLog reservations(w.log, kVolume, w.home);
    EXPECT_TRUE(w.open(reservations).has_value());
    EXPECT_TRUE(w.save(reservations, 7).has_value());
    w.log.fail_next = 1;  // it may be there all the same
    EXPECT_FALSE(w.save(reservations, 8).has_value());
    EXPECT_EQ(*w.reopened(), registered(7)) << "RV3";
    w.log.failing = true;
    EXPECT_FALSE(w.save(reservations, 8).has_value());
    w.log.failing = false;
    EXPECT_EQ(*w.reopened(), registered(7));
}

TEST(ReservationLog, a_log_that_lost_records_and_a_damaged_record_are_errors_until_they_are_forgotten) {
    World w;
    w.log.corrupt = true;
    EXPECT_EQ(w.reopened().error().code, Errc::kCorrupt);
    w.log.corrupt = false;
    {
        ReservationLog reservations(w.log, kVolume, w.home);
        EXPECT_TRUE(w.scheduler.run(w.home, reservations.save(std::vector<std::byte>(40))).has_value());
    }
    ReservationLog reservations(w.log, kVolume, w.home);
    EXPECT_EQ(w.open(reservations).error().code, Errc::kCorrupt);
    EXPECT_TRUE(w.scheduler.run(w.home, w.log.checkpoints[kClient]()).has_value());
    EXPECT_EQ(w.log.records(kClient), 1U) << "carried on as it is (RV1, RV2)";
    EXPECT_TRUE(w.scheduler.run(w.home, reservations.forget()).has_value());
    EXPECT_TRUE(w.reopened()->registrations().empty());
}

}  // namespace
}  // namespace gemel
