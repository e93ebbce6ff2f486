// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/reservation_log.hpp"

#include <utility>

namespace gemel {

ReservationLog::ReservationLog(DurableLog& log, std::uint16_t volume, Executor& home)
    : log_(log), client_(kLogClientReservations | volume), home_(home) {
    log_.set_checkpoint(client_, home_, [this]() -> Task<Result<void>> { return append(); });
}

ReservationLog::~ReservationLog() {
    log_.remove_client(client_);
}

Result<scsi::Reservations> ReservationLog::load() {
    TRY(const std::vector<LogRecord> records, log_.recovered(client_));
    if (records.empty()) {
        return scsi::Reservations();
    }
    current_ = records.back().bytes;
    return scsi::Reservations::decode(current_);
}

/// A checkpoint that comes while the record is on its way carries it, too: whichever is the last says the same.
Task<Result<void>> ReservationLog::append() {
    if (current_.empty()) {
        co_return Result<void>{};
    }
    CO_TRY(const std::uint64_t position, co_await log_.append(client_, current_));
    log_.drop_before(client_, position);
    co_return Result<void>{};
}

Task<Result<void>> ReservationLog::save(std::vector<std::byte> record) {
    Executor& caller = Executor::current();
    co_await resume_on(home_);
    const std::vector<std::byte> before = std::exchange(current_, std::move(record));
    Result<void> r = co_await append();
    if (!r) {
        current_ = before;
    }
    co_await resume_on(caller);
    co_return r;
}

}  // namespace gemel
