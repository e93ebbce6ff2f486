// SPDX-License-Identifier: Apache-2.0
// ReservationLog: persistent reservations of one volume in the durable log of its array, so that they survive a restart
// (APTPL).
//
// Invariants:
//   RV1  The newest record is the whole state; older ones are dropped when it is durable. There is one of these for
//        every volume, also for one that is no LUN: a record that nobody carries on would hold the log's head.
//   RV2  What cannot be read is not taken for none: the unit is not shown to hosts then, who might be fenced. It is
//        carried on as it is.
//   RV3  A state that could not be saved is followed by the one before it, as soon as the log takes anything: whatever
//   a
//        checkpoint carried meanwhile is not the last word.
// Threads: save(), forget() and open() from any executor, one at a time (the unit's gate); they work at home.
#pragma once

#include <memory>
#include <vector>

#include "gemel/durable_log.hpp"
#include "target/scsi/lun.hpp"

namespace gemel {

class ReservationLog final : public scsi::ReservationStore {
  public:
    /// `volume`: its number. `log` outlives this.
    ReservationLog(DurableLog& log, std::uint16_t volume, Executor& home);
    ~ReservationLog() override;
    ReservationLog(const ReservationLog&) = delete;
    ReservationLog& operator=(const ReservationLog&) = delete;

    /// What was saved, or nothing; from now on it is carried on. Errors: kCorrupt, kUnsupported (RV2).
    Task<Result<scsi::Reservations>> open();
    /// RV2 was overridden: from now on there are none.
    Task<Result<void>> forget() { return save(scsi::Reservations().encode()); }
    Task<Result<void>> save(std::vector<std::byte> record) override;

  private:
    Task<Result<void>> append();

    DurableLog& log_;
    const LogClientId client_;
    Executor& home_;
    std::shared_ptr<char> alive_ = std::make_shared<char>();  ///< a checkpoint that comes too late finds it gone

    // Home executor.
    std::vector<std::byte> current_;  ///< empty: nothing is saved
};

}  // namespace gemel
