// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/reservation_log.hpp"

#include <utility>

namespace gemel {

ReservationLog::ReservationLog(DurableLog& log, std::uint16_t volume, Executor& home)
    : log_(log), client_(kLogClientReservations | volume), home_(home) {}

ReservationLog::~ReservationLog() {
    log_.remove_client(client_);
}

Task<Result<scsi::Reservations>> ReservationLog::open() {
    Executor& caller = Executor::current();
    co_await resume_on(home_);
    Result<std::vector<LogRecord>> records = log_.recovered(client_);
    if (records && !records->empty()) {
        current_ = std::move(records->back().bytes);
    }
    log_.set_checkpoint(client_, home_, [this, alive = std::weak_ptr<char>(alive_)]() -> Task<Result<void>> {
        const auto gone = []() -> Task<Result<void>> { co_return fail(Errc::kAborted, "the daemon is stopping"); };
        return alive.expired() ? gone() : append();
    });
    Result<scsi::Reservations> out = scsi::Reservations();
    if (!records) {
        out = std::unexpected(std::move(records).error());
    } else if (!current_.empty()) {
        out = scsi::Reservations::decode(current_);
    }
    co_await resume_on(caller);
    co_return out;
}

/// A checkpoint that comes while a record is on its way carries the same one.
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
    std::vector<std::byte> before = std::exchange(current_, std::move(record));
    Result<void> r = co_await append();
    if (!r) {
        current_ = before.empty() ? scsi::Reservations().encode() : std::move(before);
        const Result<void> again = co_await append();  // RV3; where the log is dead nothing helps
        static_cast<void>(again);
    }
    co_await resume_on(caller);
    co_return r;
}

}  // namespace gemel
