// SPDX-License-Identifier: Apache-2.0
#include "target/scsi/lun.hpp"

#include <bit>

#include "target/scsi/commands/commands.hpp"

namespace gemel::scsi {

namespace {

constexpr std::uint32_t kMaxTransferBytes = 4U << 20U;
constexpr std::uint64_t kMaxParameterBytes = 65535;
constexpr unsigned kPersistentReserveIn = 0x5e;
constexpr unsigned kPersistentReserveOut = 0x5f;

Task<ScsiResult> at_once(ScsiResult result) {
    co_return result;
}

/// The first bit of the CDB that is set though the row has no use for it (CT2).
std::optional<FieldPointer> stray_bit(const Cdb& cdb, const CommandRow& row) {
    for (std::size_t i = 1; i < row.cdb_bytes; ++i) {
        const unsigned stray = cdb_byte(cdb, i) & ~unsigned{row.usage[i]};
        if (stray != 0) {
            return FieldPointer{static_cast<std::uint16_t>(i), static_cast<std::uint8_t>(std::bit_width(stray) - 1)};
        }
    }
    return std::nullopt;
}

void refuse(CommandPlan& plan, Sense sense) {
    plan.direction = DataDirection::kNone;
    plan.transfer_bytes = 0;
    plan.refusal = sense;
}

Sense bad_field(std::uint16_t byte, std::uint8_t bit) {
    return {.code = kInvalidFieldInCdb, .field = FieldPointer{byte, bit}};
}

/// What plan() needs to know of the unit.
struct Geometry {
    std::uint64_t blocks;
    std::uint32_t block_bytes;
    std::uint32_t max_transfer_bytes;
    std::uint32_t max_same_blocks;
    bool thin;
};

/// The most blocks that a command of this kind may name.
std::uint64_t most_blocks(Transfer transfer, const Geometry& unit) {
    switch (transfer) {
        case Transfer::kRange:
            return unit.blocks;
        case Transfer::kSame:
            return unit.max_same_blocks;
        case Transfer::kCompare:
            return unit.max_transfer_bytes / 2 / unit.block_bytes;
        default:
            return unit.max_transfer_bytes / unit.block_bytes;
    }
}

/// WRITE SAME: NDOB is bit 0 of byte 1 of the longer form. Refused: no blocks (WSNZ), UNMAP of a unit that does not.
void plan_same(CommandPlan& plan, const Cdb& cdb, std::uint64_t count, const Geometry& unit) {
    const CommandRow& row = *plan.row;
    if (count == 0) {
        refuse(plan, bad_field(row.length.offset, 7));
        return;
    }
    if ((cdb_byte(cdb, 1) & 0x08U) != 0 && !unit.thin) {
        refuse(plan, bad_field(1, 3));
        return;
    }
    if (row.cdb_bytes == 16 && (cdb_byte(cdb, 1) & 0x01U) != 0) {
        return;
    }
    plan.direction = DataDirection::kOut;
    plan.transfer_bytes = unit.block_bytes;
}

/// The blocks that the CDB names. A length of 0 in READ(6) and WRITE(6) means 256; elsewhere nothing is moved.
void plan_blocks(CommandPlan& plan, const Cdb& cdb, const Geometry& unit) {
    const CommandRow& row = *plan.row;
    const std::uint64_t lba = load_field(cdb, row.lba);
    std::uint64_t count = load_field(cdb, row.length);
    if (row.cdb_bytes == 6 && count == 0) {
        count = 256;
    }
    if (lba > unit.blocks || count > unit.blocks - lba) {
        refuse(plan, {.code = kLbaOutOfRange});
        return;
    }
    const std::uint64_t bytes = count * unit.block_bytes;
    if (count > most_blocks(row.transfer, unit)) {
        refuse(plan, bad_field(row.length.offset, 7));
        return;
    }
    plan.lba = Lba(lba * (unit.block_bytes / kSectorBytes));
    plan.sectors = sectors_of(bytes);
    switch (row.transfer) {
        case Transfer::kBlocksIn:
            plan.direction = DataDirection::kIn;
            plan.transfer_bytes = bytes;
            break;
        case Transfer::kBlocksOut:
            plan.direction = DataDirection::kOut;
            plan.transfer_bytes = bytes;
            break;
        case Transfer::kCompare:
            plan.direction = count == 0 ? DataDirection::kNone : DataDirection::kOut;
            plan.transfer_bytes = 2 * bytes;
            break;
        case Transfer::kSame:
            plan_same(plan, cdb, count, unit);
            break;
        case Transfer::kVerify:
            plan.transfer_bytes = bytchk(cdb) == 3 ? std::min<std::uint64_t>(bytes, unit.block_bytes) : bytes;
            plan.direction = DataDirection::kOut;
            if (bytchk(cdb) == 0) {
                plan.direction = DataDirection::kNone;
                plan.transfer_bytes = 0;
            }
            break;
        default:
            break;
    }
}

bool bytchk_is_reserved(const Cdb& cdb, const CommandRow& row) {
    const bool write_and_verify = row.medium == commands::write_and_verify;
    return (row.transfer == Transfer::kVerify && bytchk(cdb) == 2) || (write_and_verify && bytchk(cdb) > 1);
}

CommandPlan plan_without_medium(const Cdb& cdb) {
    CommandPlan plan;
    plan.row = find_row(cdb);
    if (plan.row == nullptr) {
        const bool reserve = cdb_byte(cdb, 0) == kPersistentReserveIn || cdb_byte(cdb, 0) == kPersistentReserveOut;
        refuse(plan, reserve ? bad_field(1, 4) : Sense{.code = kInvalidOpcode});
        return plan;
    }
    if (const std::optional<FieldPointer> stray = stray_bit(cdb, *plan.row)) {
        refuse(plan, bad_field(stray->byte, stray->bit));
        return plan;
    }
    if (plan.row->transfer == Transfer::kAllocation) {
        plan.direction = DataDirection::kIn;
        plan.transfer_bytes = load_field(cdb, plan.row->length);
    } else if (plan.row->transfer == Transfer::kParameters) {
        plan.transfer_bytes = load_field(cdb, plan.row->length);
        plan.direction = plan.transfer_bytes == 0 ? DataDirection::kNone : DataDirection::kOut;
        if (plan.transfer_bytes > kMaxParameterBytes) {
            refuse(plan, bad_field(plan.row->length.offset, 7));
        }
    } else if (plan.row->transfer == Transfer::kEightBytes) {
        plan.direction = DataDirection::kIn;
        plan.transfer_bytes = 8;
    }
    return plan;
}

/// Forms of commands that change the state of the unit, but take nothing from anybody: allowed whatever is reserved
/// (SBC-3 table 13): START STOP UNIT that only starts, PREVENT ALLOW that allows.
bool takes_nothing(const ScsiCommand& command) {
    const unsigned b4 = cdb_byte(command.cdb, 4);
    return (command.plan.row->medium == commands::start_stop_unit && (b4 & 0xf3U) == 0x01U) ||
           (command.plan.row->control == commands::prevent_allow && (b4 & 0x03U) == 0);
}

/// COMPARE AND WRITE and WRITE SAME with other than the data that their CDB asks for: a part of it means nothing.
bool needs_all_data(const CommandRow& row) {
    return row.transfer == Transfer::kCompare || row.transfer == Transfer::kSame;
}

Attention attention_for(ReservationNotice what) {
    switch (what) {
        case ReservationNotice::kReservationsPreempted:
            return Attention::kReservationsPreempted;
        case ReservationNotice::kReservationsReleased:
            return Attention::kReservationsReleased;
        case ReservationNotice::kRegistrationsPreempted:
            break;
    }
    return Attention::kRegistrationsPreempted;
}

/// The answer when the declared direction leaves no way for the command's data. Data for the initiator, declared as a
/// write: nothing can be sent, so nothing is done, and the residual says that nothing moved; iscsi-test-cu
/// Read10Invalid wants GOOD. Data from the initiator, declared as a read, is refused: what would be written is not
/// there.
std::optional<ScsiResult> wrong_way(const ScsiCommand& command) {
    const DataDirection declared = command.direction;
    const DataDirection planned = command.plan.direction;
    if (declared == DataDirection::kNone || planned == DataDirection::kNone || declared == planned) {
        return std::nullopt;
    }
    return planned == DataDirection::kIn ? good() : check_condition({.code = kInvalidFieldInCdb});
}

}  // namespace

// ---- ItlNexus

ItlNexus::ItlNexus(LogicalUnit& unit, Nexus nexus)
    : unit_(unit), nexus_(std::move(nexus)), name_{nexus_.initiator_port, nexus_.target_port} {
    raise(Attention::kPowerOn);
    const std::lock_guard lock(unit_.nexuses_mutex_);
    admitted_.store(unit_.reservations_.admits(name_), std::memory_order_release);
    unit_.nexuses_.push_back(this);
}

ItlNexus::~ItlNexus() {
    unit_.detach(*this);
}

std::optional<Attention> ItlNexus::take_attention() {
    std::uint32_t pending = attentions_.load(std::memory_order_relaxed);
    while (pending != 0) {
        const std::uint32_t rest = pending & (pending - 1);
        if (attentions_.compare_exchange_weak(pending, rest, std::memory_order_relaxed)) {
            return static_cast<Attention>(std::countr_zero(pending));
        }
    }
    return std::nullopt;
}

// ---- LogicalUnit

Result<void> LogicalUnit::check(const DeviceLimits& limits, const LunOptions& options) {
    if (options.block_bytes != 512 && options.block_bytes != 4096) {
        return fail(Errc::kInvalidArgument,
                    "a LUN's block size is 512 or 4096, not " + std::to_string(options.block_bytes));
    }
    const std::uint32_t sectors = options.block_bytes / kSectorBytes;
    if (limits.alignment_sectors > sectors) {
        return fail(Errc::kInvalidArgument, "the device is written in units of " +
                                                std::to_string(limits.alignment_sectors * kSectorBytes) +
                                                " bytes: give the LUN that block size");
    }
    if (limits.sectors.value < sectors) {
        return fail(Errc::kInvalidArgument, "the device is smaller than one block of the LUN");
    }
    if (limits.max_transfer_bytes < options.block_bytes) {
        return fail(Errc::kInvalidArgument, "the device's largest transfer is smaller than one block of the LUN");
    }
    return {};
}

LogicalUnit::LogicalUnit(Environment& environment, BlockDevice& device, LunOptions options, ReservationStore* store,
                         Reservations reservations)
    : environment_(environment),
      device_(device),
      options_(std::move(options)),
      mode_(options_.write_cache == WriteCache::kNone ? UnitMode::kNoWriteCache : 0),
      store_(store),
      reservation_type_(reservations.type()),
      reservations_(std::move(reservations)) {
    CHECK(check(device_.limits(), options_).has_value());
    device_.observe(this);
}

LogicalUnit::~LogicalUnit() {
    device_.observe(nullptr);
    CHECK(nexuses_.empty());
}

std::unique_ptr<ItlNexus> LogicalUnit::attach(Nexus nexus) {
    return std::make_unique<ItlNexus>(*this, std::move(nexus));
}

void LogicalUnit::detach(ItlNexus& nexus) {
    release(nexus);
    const std::lock_guard lock(nexuses_mutex_);
    std::erase(nexuses_, &nexus);
}

std::uint32_t LogicalUnit::max_transfer_bytes() const {
    const std::uint32_t bytes = std::min(device_.limits().max_transfer_bytes, kMaxTransferBytes);
    return bytes / options_.block_bytes * options_.block_bytes;
}

std::uint8_t LogicalUnit::max_compare_blocks() const {
    return static_cast<std::uint8_t>(std::min(255U, max_transfer_bytes() / 2 / options_.block_bytes));
}

std::uint64_t LogicalUnit::blocks() const {
    return device_.limits().sectors.value / sectors_per_block();
}

CommandPlan LogicalUnit::plan(const Cdb& cdb) const {
    CommandPlan plan = plan_without_medium(cdb);
    if (plan.refusal) {
        return plan;
    }
    if (!available(*plan.row, options_)) {
        refuse(plan, {.code = kInvalidOpcode});
        return plan;
    }
    const bool refused = writes_medium(*plan.row) && write_protected();
    if (plan.row->lba.bytes == 0) {
        if (refused) {
            refuse(plan, {.code = kWriteProtected});
        }
        return plan;
    }
    if (bytchk_is_reserved(cdb, *plan.row)) {
        refuse(plan, bad_field(1, 2));
        return plan;
    }
    const DeviceLimits limits = device_.limits();
    plan_blocks(plan, cdb,
                {.blocks = limits.sectors.value / sectors_per_block(),
                 .block_bytes = options_.block_bytes,
                 .max_transfer_bytes = std::min(limits.max_transfer_bytes, kMaxTransferBytes),
                 .max_same_blocks = max_same_blocks(),
                 .thin = options_.thin});
    if (!plan.refusal && refused) {
        refuse(plan, {.code = kWriteProtected});
    }
    return plan;
}

CommandPlan LogicalUnit::plan(const Cdb& cdb, const ItlNexus& nexus) const {
    CommandPlan out = plan(cdb);
    if (!out.refusal && nexus.nexus().read_only && changes_unit(*out.row, cdb)) {
        refuse(out, {.code = kWriteProtected});
    }
    return out;
}

Task<ScsiResult> LogicalUnit::execute(const ScsiCommand& command) {
    ItlNexus& nexus = *command.nexus;
    const CommandRow* const row = command.plan.row;
    if (nexus.attention_pending() && (row == nullptr || row->attention == AttentionRule::kReport)) {
        if (const std::optional<Attention> a = nexus.take_attention()) {  // LU2
            return at_once(check_condition({.code = attention_code(*a)}));
        }
    }
    if (row != nullptr && !takes_nothing(command) && keeps_out(nexus, *row)) {
        return at_once(with_status(Status::kReservationConflict));
    }
    if (command.plan.refusal) {
        return at_once(check_condition(*command.plan.refusal));
    }
    if (!medium_present() && needs_medium(*row)) {
        return at_once(check_condition({.code = kMediumNotPresent}));
    }
    if (std::optional<ScsiResult> answer = wrong_way(command)) {
        return at_once(*std::move(answer));
    }
    if (needs_all_data(*row) && command.declared_out != command.plan.transfer_bytes) {
        return at_once(check_condition({.code = kInvalidFieldInCdb}));
    }
    if (row->control != nullptr) {
        return at_once(row->control(*this, command));
    }
    return row->medium(*this, command);
}

void LogicalUnit::reset() {
    reserved_by_.store(nullptr, std::memory_order_release);
    mode_.reset();
    {
        const std::lock_guard lock(nexuses_mutex_);
        for (ItlNexus* nexus : nexuses_) {
            nexus->prevent_removal(false);
        }
    }
    raise_all(Attention::kReset);
}

void LogicalUnit::raise_all(Attention a, const ItlNexus* except) {
    const std::lock_guard lock(nexuses_mutex_);
    for (ItlNexus* nexus : nexuses_) {
        if (nexus != except) {
            nexus->raise(a);
        }
    }
}

void LogicalUnit::capacity_changed(SectorCount /*now*/) {
    raise_all(Attention::kCapacityChanged);
}

bool LogicalUnit::removal_prevented() {
    const std::lock_guard lock(nexuses_mutex_);
    return std::ranges::any_of(nexuses_, &ItlNexus::prevents_removal);
}

void LogicalUnit::load_medium(const ItlNexus& by) {
    if (!medium_present_.exchange(true, std::memory_order_acq_rel)) {
        raise_all(Attention::kMediumChanged, &by);
    }
}

bool LogicalUnit::keeps_out(const ItlNexus& nexus, const CommandRow& row) const {
    if (row.reservation == ReservationClass::kAllowed) {
        return false;
    }
    if (reserved_by_other(nexus)) {
        return true;
    }
    const ReservationType type = reservation_type_.load(std::memory_order_acquire);
    if (type == ReservationType::kNone || row.reservation == ReservationClass::kState || nexus.admitted()) {
        return false;
    }
    return row.reservation == ReservationClass::kWrite || excludes_readers(type);
}

Reservations LogicalUnit::reservations() {
    const std::lock_guard lock(nexuses_mutex_);
    return reservations_;
}

/// Who is kept out is told so before the type says so, and the other way round: between the two nobody is let in who
/// is not let in before or after.
void LogicalUnit::set_reservations(Reservations next, std::span<const Reservations::Notice> notices) {
    const std::lock_guard lock(nexuses_mutex_);
    reservations_ = std::move(next);
    for (ItlNexus* nexus : nexuses_) {
        nexus->admitted_.store(reservations_.admits(nexus->name()), std::memory_order_release);
        for (const Reservations::Notice& n : notices) {
            if (n.to == nexus->name()) {
                nexus->raise(attention_for(n.what));
            }
        }
    }
    reservation_type_.store(reservations_.type(), std::memory_order_release);
}

bool LogicalUnit::reserve(ItlNexus& by) {
    const std::lock_guard lock(nexuses_mutex_);
    if (!reservations_.registrations().empty()) {
        return false;  // SPC-4 5.12.3
    }
    const ItlNexus* holder = nullptr;
    return reserved_by_.compare_exchange_strong(holder, &by, std::memory_order_acq_rel) || holder == &by;
}

void LogicalUnit::release(const ItlNexus& by) {
    const ItlNexus* holder = &by;
    reserved_by_.compare_exchange_strong(holder, nullptr, std::memory_order_acq_rel);
}

// ---- without a unit

CommandPlan plan_no_lun(const Cdb& cdb) {
    CommandPlan plan = plan_without_medium(cdb);
    const bool answered = plan.row != nullptr && plan.row->attention == AttentionRule::kPass;
    if (!answered) {
        refuse(plan, {.code = kLunNotSupported});
    }
    return plan;
}

Task<ScsiResult> execute_no_lun(Environment& environment, const ScsiCommand& command) {
    if (command.plan.refusal) {
        return at_once(check_condition(*command.plan.refusal));
    }
    if (std::optional<ScsiResult> answer = wrong_way(command)) {
        return at_once(*std::move(answer));
    }
    const ControlHandler handler = command.plan.row->control;
    if (handler == commands::inquiry) {
        return at_once(commands::inquiry_no_lun(environment, command));
    }
    if (handler == commands::report_luns) {
        return at_once(commands::report_luns_of(environment, command));
    }
    CHECK(handler == commands::request_sense);
    return at_once(commands::request_sense_of(environment, command, {.code = kLunNotSupported}));
}

std::string command_name(const Cdb& cdb) {
    const CommandRow* const row = find_row(cdb);
    if (row != nullptr) {
        return std::string(row->name);
    }
    return "operation code 0x" + hex_of(ConstBytes(cdb).first(1));
}

std::optional<std::uint64_t> decode_lun(std::uint64_t field) {
    const std::uint64_t first = field >> 48U;
    if ((field & 0xffff'ffff'ffffULL) != 0) {
        return std::nullopt;
    }
    switch (first >> 14U) {
        case 0:  // peripheral device: bus 0 only
            return first < 256 ? std::optional(first) : std::nullopt;
        case 1:  // flat space
            return first & 0x3fffU;
        default:
            return std::nullopt;
    }
}

std::uint64_t encode_lun(std::uint64_t number) {
    CHECK(number < 16384);
    return (number < 256 ? number : number | 0x4000U) << 48U;
}

}  // namespace gemel::scsi
