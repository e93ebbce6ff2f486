// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/reservations.hpp"

#include <algorithm>

#include "gemel/check.hpp"
#include "gemel/crc32c.hpp"

namespace gemel::scsi {

namespace {

Reservations::Outcome conflict() {
    return {.status = Status::kReservationConflict, .sense = {}, .notices = {}};
}

Reservations::Outcome refused(SenseCode code) {
    return {.status = Status::kCheckCondition, .sense = {.code = code}, .notices = {}};
}

}  // namespace

bool is_reservation_type(unsigned value) {
    return value == 1 || value == 3 || (value >= 5 && value <= 8);
}

const Registration* Reservations::find(const NexusName& nexus) const {
    const auto at = std::ranges::find(registrations_, nexus, &Registration::nexus);
    return at == registrations_.end() ? nullptr : &*at;
}

bool Reservations::holds(const NexusName& nexus) const {
    return for_all() ? registered(nexus) : holder_ == nexus;
}

bool Reservations::admits(const NexusName& nexus) const {
    return type_ == ReservationType::kNone || (for_registrants() ? registered(nexus) : holder_ == nexus);
}

std::uint64_t Reservations::holders_key() const {
    return holder_ ? find(*holder_)->key : 0;
}

void Reservations::notify_others(const NexusName& by, ReservationNotice what, Outcome& out) const {
    for (const Registration& r : registrations_) {
        if (r.nexus != by) {
            out.notices.push_back({r.nexus, what});
        }
    }
}

Reservations::Outcome Reservations::apply(const NexusName& by, const Request& request) {
    const Registration* own = find(by);
    const bool registers = request.action == Action::kRegister || request.action == Action::kRegisterAndIgnoreKey;
    if (registers) {
        return register_key(by, request);
    }
    if (own == nullptr || own->key != request.key) {
        return conflict();
    }
    switch (request.action) {
        case Action::kReserve:
            return reserve(by, request);
        case Action::kRelease:
            return release(by, request);
        case Action::kClear:
            return clear(by);
        case Action::kRegisterAndMove:
            return move(by, request);
        default:
            return preempt(by, request);
    }
}

/// The reservation goes with the last of its holders; the types for registrants tell those that are left.
void Reservations::remove(const NexusName& nexus, Outcome& out) {
    const bool held = holds(nexus);
    std::erase_if(registrations_, [&](const Registration& r) { return r.nexus == nexus; });
    if (!held || (for_all() && !registrations_.empty())) {
        return;
    }
    if (for_registrants()) {
        notify_others(nexus, ReservationNotice::kReservationsReleased, out);
    }
    type_ = ReservationType::kNone;
    holder_.reset();
}

/// SPC-4 table 40 and 41.
Reservations::Outcome Reservations::register_key(const NexusName& by, const Request& request) {
    const Registration* own = find(by);
    const bool ignores_key = request.action == Action::kRegisterAndIgnoreKey;
    const std::uint64_t known = own != nullptr ? own->key : 0;
    if (!ignores_key && request.key != known) {
        return conflict();
    }
    if (!request.others.empty() && own != nullptr) {
        return refused(kInvalidFieldInParameters);
    }
    Outcome out;
    if (request.service_action_key == 0) {
        if (own != nullptr) {
            remove(by, out);
            ++generation_;
            persists_ = request.persist;
        }
        return out;
    }
    std::vector<NexusName> names = request.others;
    names.push_back(by);
    std::vector<Registration> next = registrations_;
    for (const NexusName& name : names) {
        const auto at = std::ranges::find(next, name, &Registration::nexus);
        if (at != next.end() && name != by) {
            return conflict();  // SPEC_I_PT names a nexus that is registered already
        }
        if (at != next.end()) {
            at->key = request.service_action_key;
        } else {
            next.push_back({name, request.service_action_key});
        }
    }
    if (next.size() > kMostRegistrations) {
        return refused(kInsufficientRegistrationResources);
    }
    registrations_ = std::move(next);
    persists_ = request.persist;
    ++generation_;
    return out;
}

Reservations::Outcome Reservations::reserve(const NexusName& by, const Request& request) {
    if (type_ != ReservationType::kNone) {
        return holds(by) && type_ == request.type ? Outcome{} : conflict();
    }
    type_ = request.type;
    if (!for_all()) {
        holder_ = by;
    }
    return {};
}

Reservations::Outcome Reservations::release(const NexusName& by, const Request& request) {
    if (type_ == ReservationType::kNone || !holds(by)) {
        return {};
    }
    if (type_ != request.type) {
        return refused(kInvalidRelease);
    }
    Outcome out;
    if (for_registrants()) {
        notify_others(by, ReservationNotice::kReservationsReleased, out);
    }
    type_ = ReservationType::kNone;
    holder_.reset();
    return out;
}

Reservations::Outcome Reservations::clear(const NexusName& by) {
    Outcome out;
    notify_others(by, ReservationNotice::kReservationsPreempted, out);
    registrations_.clear();
    type_ = ReservationType::kNone;
    holder_.reset();
    ++generation_;
    return out;
}

/// SPC-4 5.12.11.2.4 to 5.12.11.2.6.
Reservations::Outcome Reservations::preempt(const NexusName& by, const Request& request) {
    const std::uint64_t victim = request.service_action_key;
    const bool everybody = for_all() && victim == 0;
    if (victim == 0 && !for_all()) {
        return refused(kInvalidFieldInParameters);
    }
    const bool takes_over = everybody || (holder_ && holders_key() == victim);
    const auto hit = [&](const Registration& r) { return everybody ? r.nexus != by : r.key == victim; };
    if (std::ranges::none_of(registrations_, hit) && !takes_over) {
        return conflict();
    }
    Outcome out;
    const ReservationType before = type_;
    std::vector<Registration> left;
    for (const Registration& r : registrations_) {
        if (!hit(r) || (r.nexus == by && takes_over)) {
            left.push_back(r);
        } else if (r.nexus != by) {
            out.notices.push_back({r.nexus, ReservationNotice::kRegistrationsPreempted});
        }
    }
    registrations_ = std::move(left);
    ++generation_;
    if (!takes_over) {
        if (registrations_.empty()) {
            type_ = ReservationType::kNone;  // for all registrants, of whom there is none any more
        }
        return out;
    }
    type_ = request.type;
    holder_.reset();
    if (!for_all()) {
        holder_ = by;
    }
    if (type_ != before) {
        notify_others(by, ReservationNotice::kReservationsReleased, out);
    }
    return out;
}

/// SPC-4 5.12.8. The one other is registered with the service action key and becomes the holder.
Reservations::Outcome Reservations::move(const NexusName& by, const Request& request) {
    if (type_ == ReservationType::kNone || !holds(by)) {
        return conflict();
    }
    if (for_all()) {
        return conflict();
    }
    const NexusName& to = request.others.front();
    if (request.service_action_key == 0 || to == by) {
        return refused(kInvalidFieldInParameters);
    }
    const auto at = std::ranges::find(registrations_, to, &Registration::nexus);
    if (at != registrations_.end()) {
        at->key = request.service_action_key;
    } else if (registrations_.size() == kMostRegistrations) {
        return refused(kInsufficientRegistrationResources);
    } else {
        registrations_.push_back({to, request.service_action_key});
    }
    holder_ = to;
    Outcome out;
    if (request.unregister) {
        remove(by, out);
    }
    persists_ = request.persist;
    ++generation_;
    return out;
}

// ---- on disk: see README, little-endian

namespace {

constexpr std::uint32_t kMagic = 0x31525047;  // "GPR1"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 24;
constexpr std::size_t kMaxNameBytes = 512;
constexpr std::uint16_t kNoHolder = 0xffff;

void put_text(std::vector<std::byte>& to, const std::string& text) {
    CHECK(text.size() <= kMaxNameBytes);
    to.resize(to.size() + 2);
    store_le(to.data() + to.size() - 2, static_cast<std::uint16_t>(text.size()));
    const ConstBytes bytes = as_bytes_of(text);
    to.insert(to.end(), bytes.begin(), bytes.end());
}

bool take_text(ConstBytes from, std::size_t& at, std::string& to) {
    if (from.size() - at < 2) {
        return false;
    }
    const std::size_t size = load_le<std::uint16_t>(&from[at]);
    at += 2;
    if (size > kMaxNameBytes || from.size() - at < size) {
        return false;
    }
    to = as_text(from.subspan(at, size));
    at += size;
    return true;
}

/// With its own field as zero.
std::uint32_t sum_of(ConstBytes record) {
    std::vector<std::byte> copy(record.begin(), record.end());
    store_le(copy.data() + 20, std::uint32_t{0});
    return crc32c(copy);
}

}  // namespace

std::vector<std::byte> Reservations::encode() const {
    std::vector<std::byte> out(kHeaderBytes);
    std::uint16_t holder = kNoHolder;
    for (std::size_t i = 0; i < registrations_.size(); ++i) {
        const Registration& r = registrations_[i];
        holder = holder_ == r.nexus ? static_cast<std::uint16_t>(i) : holder;
        out.resize(out.size() + 8);
        store_le(out.data() + out.size() - 8, r.key);
        put_text(out, r.nexus.initiator_port);
        put_text(out, r.nexus.target_port);
    }
    store_le(&out[0], kMagic);
    store_le(&out[4], kVersion);
    store_le(&out[6], static_cast<std::uint16_t>(type_));
    store_le(&out[8], generation_);
    store_le(&out[12], static_cast<std::uint16_t>(persists_ ? 1 : 0));
    store_le(&out[14], holder);
    store_le(&out[16], static_cast<std::uint32_t>(registrations_.size()));
    store_le(&out[20], sum_of(out));
    return out;
}

bool Reservations::whole() const {
    if (type_ == ReservationType::kNone) {
        return !holder_;
    }
    return for_all() ? !holder_ && !registrations_.empty() : holder_ && find(*holder_) != nullptr;
}

Result<Reservations> Reservations::decode(ConstBytes from) {
    const auto corrupt = [](const char* why) {
        return fail(Errc::kCorrupt, std::string("record of persistent reservations: ") + why);
    };
    if (from.size() < kHeaderBytes || load_le<std::uint32_t>(from.data()) != kMagic) {
        return corrupt("it is none");
    }
    if (load_le<std::uint16_t>(&from[4]) != kVersion) {
        return fail(Errc::kUnsupported, "record of persistent reservations of a newer version");
    }
    if (load_le<std::uint32_t>(&from[20]) != sum_of(from)) {
        return corrupt("its checksum is wrong");
    }
    const unsigned type = load_le<std::uint16_t>(&from[6]);
    const std::size_t count = load_le<std::uint32_t>(&from[16]);
    if ((type != 0 && !is_reservation_type(type)) || count > kMostRegistrations ||
        load_le<std::uint16_t>(&from[12]) > 1) {
        return corrupt("a field is out of range");
    }
    Reservations out;
    out.type_ = static_cast<ReservationType>(type);
    out.generation_ = load_le<std::uint32_t>(&from[8]);
    out.persists_ = load_le<std::uint16_t>(&from[12]) == 1;
    std::size_t at = kHeaderBytes;
    for (std::size_t i = 0; i < count; ++i) {
        Registration r;
        if (from.size() - at < 8) {
            return corrupt("it is cut off");
        }
        r.key = load_le<std::uint64_t>(&from[at]);
        at += 8;
        if (!take_text(from, at, r.nexus.initiator_port) || !take_text(from, at, r.nexus.target_port)) {
            return corrupt("a name is cut off or too long");
        }
        if (r.key == 0 || out.registered(r.nexus)) {
            return corrupt("a registration has no key or is there twice");
        }
        out.registrations_.push_back(std::move(r));
    }
    const std::uint16_t holder = load_le<std::uint16_t>(&from[14]);
    if (at != from.size() || (holder != kNoHolder && holder >= count)) {
        return corrupt("its length and its number of registrations differ");
    }
    if (holder != kNoHolder) {
        out.holder_ = out.registrations_[holder].nexus;
    }
    return out.whole() ? Result<Reservations>(std::move(out)) : corrupt("the reservation has no holder");
}

}  // namespace gemel::scsi
