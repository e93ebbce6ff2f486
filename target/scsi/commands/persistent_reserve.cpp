// SPDX-License-Identifier: Apache-2.0
// PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): parameter lists, parameter data and TransportIDs; what they mean is
// reservations.hpp.
//
// Invariants:
//   PO1  A PERSISTENT RESERVE OUT has the unit's WriteGate alone: writes that began before it have ended when it takes
//        effect, those after it see what it made. So no write of a preempted nexus lands after PREEMPT AND ABORT.
//   PO2  What is to survive a restart (APTPL) is durable before it takes effect, and so is its end.
#include <charconv>

#include "target/scsi/commands/medium_access.hpp"

namespace gemel::scsi {

namespace {

using Action = Reservations::Action;

constexpr std::size_t kListBytes = 24;
constexpr std::size_t kMoveHeaderBytes = 24;
constexpr std::size_t kLeastTransportId = 24;
constexpr unsigned kIscsiWithIsid = 0x45;  ///< format 01b, protocol identifier 5
constexpr unsigned kSpecInitiatorPorts = 0x08;
constexpr unsigned kAllTargetPorts = 0x04;
constexpr unsigned kPersistThroughPowerLoss = 0x01;

unsigned service_action(const Cdb& cdb) {
    return cdb_byte(cdb, 1) & 0x1fU;
}

/// Bytes of a name with its end, padded (SPC-4 7.6.4.6).
std::size_t transport_id_bytes(std::string_view port) {
    return std::max(kLeastTransportId, 4 + round_up(port.size() + 1, 4));
}

void put_transport_id(PageBuilder& page, std::string_view port) {
    const std::size_t bytes = transport_id_bytes(port);
    page.u8(kIscsiWithIsid);
    page.u8(0);
    page.u16(bytes - 4);
    page.bytes(as_bytes_of(port));
    page.zeros(bytes - 4 - port.size());
}

constexpr std::size_t kMaxNameBytes = 223;  ///< RFC 7143 4.2.7.2
constexpr std::string_view kIsidMark = ",i,0x";
constexpr std::size_t kIsidDigits = 12;

/// A name as nexuses have it: of an initiator, then ",i,0x" and the ISID in 12 hexadecimal digits.
bool is_initiator_port(std::string_view port) {
    const std::size_t mark = port.rfind(kIsidMark);
    const bool shaped = mark != std::string_view::npos && mark > 0 && mark <= kMaxNameBytes &&
                        port.size() == mark + kIsidMark.size() + kIsidDigits;
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return shaped && std::ranges::all_of(port.substr(port.size() - kIsidDigits), is_digit) &&
           std::ranges::all_of(port, [](char c) { return c > ' ' && c <= '~'; });
}

/// Names are compared as they are kept: in lower case.
std::string lower(std::string_view text) {
    std::string out(text);
    std::ranges::transform(out, out.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return out;
}

/// The initiator port at `at`, which moves behind it. Nothing: no TransportID of iSCSI with an ISID.
std::optional<std::string> take_transport_id(ConstBytes list, std::size_t& at) {
    if (list.size() - at < kLeastTransportId || std::to_integer<unsigned>(list[at]) != kIscsiWithIsid) {
        return std::nullopt;
    }
    const std::size_t length = load_be<std::uint16_t>(&list[at + 2]);
    if (length % 4 != 0 || length < kLeastTransportId - 4 || list.size() - at - 4 < length) {
        return std::nullopt;
    }
    const std::string_view text = as_text(list.subspan(at + 4, length));
    const std::size_t end = text.find('\0');
    at += 4 + length;
    if (end == std::string_view::npos) {
        return std::nullopt;
    }
    std::string port = lower(text.substr(0, end));
    return is_initiator_port(port) ? std::optional(std::move(port)) : std::nullopt;
}

/// SPEC_I_PT: the list of TransportIDs behind the first 24 bytes.
std::optional<ScsiResult> take_others(ConstBytes list, const NexusName& by, std::vector<NexusName>& out) {
    if (list.size() < kListBytes + 4) {
        return check_condition({.code = kParameterListLength});
    }
    const std::size_t length = load_be<std::uint32_t>(&list[kListBytes]);
    if (length != list.size() - kListBytes - 4) {
        return invalid_parameter(kListBytes);
    }
    for (std::size_t at = kListBytes + 4; at < list.size();) {
        const std::size_t here = at;
        std::optional<std::string> port = take_transport_id(list, at);
        if (!port || out.size() == Reservations::kMostRegistrations) {
            return invalid_parameter(here);
        }
        NexusName name{*std::move(port), by.target_port};
        if (name != by && std::ranges::find(out, name) == out.end()) {
            out.push_back(std::move(name));
        }
    }
    return std::nullopt;
}

/// REGISTER AND MOVE has a parameter list of its own (SPC-4 6.16.4).
std::optional<ScsiResult> read_move(ConstBytes list, const ItlNexus& nexus, Reservations::Request& out) {
    if (list.size() < kMoveHeaderBytes + kLeastTransportId) {
        return check_condition({.code = kParameterListLength});
    }
    const unsigned flags = std::to_integer<unsigned>(list[17]);
    out.unregister = (flags & 2U) != 0;
    out.persist = (flags & kPersistThroughPowerLoss) != 0;
    if (load_be<std::uint16_t>(&list[18]) != nexus.nexus().relative_target_port) {
        return invalid_parameter(18);  // it moves between initiator ports, not between target ports
    }
    const std::size_t length = load_be<std::uint32_t>(&list[20]);
    std::size_t at = kMoveHeaderBytes;
    std::optional<std::string> port = take_transport_id(list, at);
    if (!port || length != list.size() - kMoveHeaderBytes || at != list.size()) {
        return invalid_parameter(20);
    }
    out.others.push_back({*std::move(port), nexus.name().target_port});
    return std::nullopt;
}

std::optional<ScsiResult> read_list(ConstBytes list, const NexusName& by, Reservations::Request& out) {
    const unsigned flags = std::to_integer<unsigned>(list[20]);
    const bool registers = out.action == Action::kRegister || out.action == Action::kRegisterAndIgnoreKey;
    if (!registers) {
        return list.size() == kListBytes ? std::nullopt
                                         : std::optional(check_condition({.code = kParameterListLength}));
    }
    out.persist = (flags & kPersistThroughPowerLoss) != 0;
    if ((flags & kAllTargetPorts) != 0) {
        return invalid_parameter(20, 2);
    }
    if ((flags & kSpecInitiatorPorts) == 0) {
        return list.size() == kListBytes ? std::nullopt
                                         : std::optional(check_condition({.code = kParameterListLength}));
    }
    return out.action == Action::kRegister ? take_others(list, by, out.others)
                                           : std::optional(invalid_parameter(20, 3));
}

/// The request, or why there is none.
std::optional<ScsiResult> read_request(const ScsiCommand& command, Reservations::Request& out) {
    const Cdb& cdb = command.cdb;
    out.action = static_cast<Action>(service_action(cdb));
    const unsigned type = cdb_byte(cdb, 2) & 0x0fU;
    const bool typed = out.action == Action::kReserve || out.action == Action::kRelease ||
                       out.action == Action::kPreempt || out.action == Action::kPreemptAndAbort;
    if (typed && ((cdb_byte(cdb, 2) >> 4U) != 0 || !is_reservation_type(type))) {
        return invalid_field(2);
    }
    out.type = typed ? static_cast<ReservationType>(type) : ReservationType::kNone;
    const std::size_t bytes = std::min<std::uint64_t>(command.data_out_bytes, command.plan.transfer_bytes);
    if (bytes < kListBytes || bytes != command.plan.transfer_bytes) {
        return check_condition({.code = kParameterListLength});
    }
    const ConstBytes list = ConstBytes(command.data_out.memory()).first(bytes);
    out.key = load_be<std::uint64_t>(list.data());
    out.service_action_key = load_be<std::uint64_t>(&list[8]);
    return out.action == Action::kRegisterAndMove ? read_move(list, *command.nexus, out)
                                                  : read_list(list, command.nexus->name(), out);
}

/// PO2.
Task<Result<void>> make_durable(LogicalUnit& unit, const Reservations& before, const Reservations& next) {
    if (before == next || (!before.persists() && !next.persists())) {
        co_return Result<void>{};
    }
    const Reservations none;
    co_return co_await unit.reservation_store()->save((next.persists() ? next : none).encode());
}

ScsiResult answer_of(const Reservations::Outcome& outcome) {
    return outcome.status == Status::kCheckCondition ? check_condition(outcome.sense) : with_status(outcome.status);
}

void put_keys(PageBuilder& page, const Reservations& state) {
    page.u32(state.registrations().size() * 8);
    for (const Registration& r : state.registrations()) {
        page.u64(r.key);
    }
}

void put_reservation(PageBuilder& page, const Reservations& state) {
    if (state.type() == ReservationType::kNone) {
        page.u32(0);
        return;
    }
    page.u32(16);
    page.u64(state.holders_key());
    page.u32(0);
    page.u8(0);
    page.u8(static_cast<unsigned>(state.type()));
    page.u16(0);
}

/// SPC-4 6.15.4.
void put_capabilities(PageBuilder& page, const Reservations& state, bool durable) {
    page.u16(8);
    page.u8(0x08U | (durable ? 1U : 0U));           // SIP_C, PTPL_C
    page.u8(0x80U | (state.persists() ? 1U : 0U));  // TMV, PTPL_A
    page.u16(0xea01);                               // all types
    page.u16(0);
}

/// The number behind ",t,0x" of a target port's name.
std::uint16_t relative_port(std::string_view target_port) {
    std::uint16_t out = 0;
    const std::size_t at = target_port.rfind("0x");
    if (at != std::string_view::npos) {
        std::from_chars(target_port.data() + at + 2, target_port.data() + target_port.size(), out, 16);
    }
    return out;
}

/// SPC-4 6.15.5.
void put_full_status(PageBuilder& page, const Reservations& state) {
    page.u32(0);
    for (const Registration& r : state.registrations()) {
        const bool holder = state.holds(r.nexus);
        page.u64(r.key);
        page.u32(0);
        page.u8(holder ? 1U : 0U);
        page.u8(holder ? static_cast<unsigned>(state.type()) : 0U);
        page.u32(0);
        page.u16(relative_port(r.nexus.target_port));
        page.u32(transport_id_bytes(r.nexus.initiator_port));
        put_transport_id(page, r.nexus.initiator_port);
    }
    page.patch_u32(4, page.size() - 8);
}

std::size_t page_bytes(const Reservations& state) {
    std::size_t bytes = 32;
    for (const Registration& r : state.registrations()) {
        bytes += 24 + transport_id_bytes(r.nexus.initiator_port);
    }
    return bytes;
}

}  // namespace

ScsiResult commands::persistent_reserve_in(LogicalUnit& unit, const ScsiCommand& command) {
    const Reservations state = unit.reservations();
    auto page = new_page(unit.environment(), page_bytes(state));
    if (!page) {
        return std::move(page).error();
    }
    const unsigned action = service_action(command.cdb);
    if (action == 2) {
        put_capabilities(*page, state, unit.reservation_store() != nullptr);
        return reply(command, *std::move(page));
    }
    page->u32(state.generation());
    switch (action) {
        case 0:
            put_keys(*page, state);
            break;
        case 1:
            put_reservation(*page, state);
            break;
        default:
            put_full_status(*page, state);
    }
    return reply(command, *std::move(page));
}

Task<ScsiResult> commands::persistent_reserve_out(LogicalUnit& unit, const ScsiCommand& command) {
    Reservations::Request request;
    if (std::optional<ScsiResult> wrong = read_request(command, request)) {
        co_return after_transfer(*std::move(wrong), command);
    }
    if (request.persist && unit.reservation_store() == nullptr) {
        co_return after_transfer(invalid_parameter(request.action == Action::kRegisterAndMove ? 17 : 20, 0), command);
    }
    const WriteGate::Alone alone = co_await unit.gate().alone();
    if (unit.reserved_by_other(*command.nexus)) {
        co_return after_transfer(with_status(Status::kReservationConflict), command);
    }
    const Reservations before = unit.reservations();
    Reservations next = before;
    const Reservations::Outcome outcome = next.apply(command.nexus->name(), request);
    if (outcome.status == Status::kGood) {
        if (const Result<void> durable = co_await make_durable(unit, before, next); !durable) {
            co_return after_transfer(from_error(durable.error()), command);
        }
        unit.set_reservations(std::move(next), outcome.notices);
    }
    co_return after_transfer(answer_of(outcome), command);
}

}  // namespace gemel::scsi
