// SPDX-License-Identifier: Apache-2.0
// ReservationLog: persistent reservations of one volume in the durable log of its array, so that they survive a restart
// (APTPL).
//
// Invariants:
//   RV1  The newest record is the whole state; older ones are dropped when it is durable.
//   RV2  What cannot be read is not taken for none: the unit is not shown to hosts then, who might be fenced.
// Threads: save() on any executor, one at a time (the unit's gate); the rest at home.
#pragma once

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

    /// What was saved, or nothing. Errors: kCorrupt, kUnsupported (RV2).
    Result<scsi::Reservations> load();
    /// RV2 was overridden: from now on there are none.
    Task<Result<void>> forget() { return save(scsi::Reservations().encode()); }
    Task<Result<void>> save(std::vector<std::byte> record) override;

  private:
    Task<Result<void>> append();

    DurableLog& log_;
    const LogClientId client_;
    Executor& home_;
    std::vector<std::byte> current_;  ///< empty: nothing was ever saved
};

}  // namespace gemel
