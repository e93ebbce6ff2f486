// SPDX-License-Identifier: Apache-2.0
// Reservations: persistent reservations of one unit (SPC-4 5.12, 6.15, 6.16) as values: who is registered, who holds
// what, and what a PERSISTENT RESERVE OUT makes of it. Pure; the unit keeps one and makes it durable.
//
// Invariants:
//   PR1  A registration is of an I_T nexus: initiator port (name and ISID) and target port. It outlives the session.
//   PR2  There is a holder if and only if the type is not kNone; a holder is registered. Of the types for all
//        registrants every registered nexus is one.
//   PR3  An operation changes everything it says or nothing. The generation changes with every change but by RESERVE
//        and RELEASE.
//   PR4  What comes back from a disk is taken only if it is whole and fulfils PR2; else nobody knows who may write.
// Threads: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gemel/result.hpp"
#include "target/scsi/sense.hpp"

namespace gemel::scsi {

enum class ReservationType : std::uint8_t {
    kNone = 0,
    kWriteExclusive = 1,
    kExclusiveAccess = 3,
    kWriteExclusiveRegistrants = 5,
    kExclusiveAccessRegistrants = 6,
    kWriteExclusiveAll = 7,  ///< every registrant is a holder
    kExclusiveAccessAll = 8,
};

/// What is said to a nexus that an operation of another one affects (SPC-4 5.12.11).
enum class ReservationNotice : std::uint8_t { kReservationsPreempted, kReservationsReleased, kRegistrationsPreempted };

struct NexusName {
    std::string initiator_port;
    std::string target_port;
    friend bool operator==(const NexusName&, const NexusName&) = default;
};

struct Registration {
    NexusName nexus;
    std::uint64_t key = 0;
    friend bool operator==(const Registration&, const Registration&) = default;
};

class Reservations {
  public:
    static constexpr std::size_t kMostRegistrations = 256;

    enum class Action : std::uint8_t {
        kRegister = 0,
        kReserve = 1,
        kRelease = 2,
        kClear = 3,
        kPreempt = 4,
        kPreemptAndAbort = 5,
        kRegisterAndIgnoreKey = 6,
        kRegisterAndMove = 7,
    };
    /// A PERSISTENT RESERVE OUT whose CDB and parameter list are well formed.
    struct Request {
        Action action = Action::kRegister;
        ReservationType type = ReservationType::kNone;
        std::uint64_t key = 0;
        std::uint64_t service_action_key = 0;
        bool persist = false;           ///< APTPL, of the registering actions
        bool unregister = false;        ///< UNREG of REGISTER AND MOVE
        std::vector<NexusName> others;  ///< SPEC_I_PT, or where REGISTER AND MOVE goes
    };
    struct Notice {
        NexusName to;
        ReservationNotice what;
    };
    struct Outcome {
        Status status = Status::kGood;
        Sense sense;  ///< with kCheckCondition
        std::vector<Notice> notices;
    };

    /// PR3. `by` asks.
    Outcome apply(const NexusName& by, const Request& request);

    [[nodiscard]] bool registered(const NexusName& nexus) const { return find(nexus) != nullptr; }
    [[nodiscard]] bool holds(const NexusName& nexus) const;
    /// The nexus may do what the reservation keeps from others.
    [[nodiscard]] bool admits(const NexusName& nexus) const;
    [[nodiscard]] ReservationType type() const { return type_; }
    [[nodiscard]] bool persists() const { return persists_; }
    [[nodiscard]] std::uint32_t generation() const { return generation_; }
    [[nodiscard]] const std::vector<Registration>& registrations() const { return registrations_; }
    /// As READ RESERVATION tells it: 0 for the types for all registrants.
    [[nodiscard]] std::uint64_t holders_key() const;

    [[nodiscard]] std::vector<std::byte> encode() const;
    /// Errors: kCorrupt, kUnsupported (PR4).
    static Result<Reservations> decode(ConstBytes from);
    friend bool operator==(const Reservations&, const Reservations&) = default;

  private:
    [[nodiscard]] const Registration* find(const NexusName& nexus) const;
    [[nodiscard]] bool for_all() const {
        return type_ == ReservationType::kWriteExclusiveAll || type_ == ReservationType::kExclusiveAccessAll;
    }
    [[nodiscard]] bool for_registrants() const { return type_ >= ReservationType::kWriteExclusiveRegistrants; }
    Outcome register_key(const NexusName& by, const Request& request);
    Outcome reserve(const NexusName& by, const Request& request);
    Outcome release(const NexusName& by, const Request& request);
    Outcome clear(const NexusName& by);
    Outcome preempt(const NexusName& by, const Request& request);
    Outcome move(const NexusName& by, const Request& request);
    void remove(const NexusName& nexus, Outcome& out);
    void notify_others(const NexusName& by, ReservationNotice what, Outcome& out) const;
    [[nodiscard]] bool whole() const;

    std::uint32_t generation_ = 0;
    bool persists_ = false;
    ReservationType type_ = ReservationType::kNone;
    std::optional<NexusName> holder_;  ///< not of the types for all registrants
    std::vector<Registration> registrations_;
};

/// 1, 3, 5, 6, 7 or 8.
bool is_reservation_type(unsigned value);
/// The type keeps readers out, too.
constexpr bool excludes_readers(ReservationType type) {
    return type == ReservationType::kExclusiveAccess || type == ReservationType::kExclusiveAccessRegistrants ||
           type == ReservationType::kExclusiveAccessAll;
}

}  // namespace gemel::scsi
