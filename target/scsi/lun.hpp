// SPDX-License-Identifier: Apache-2.0
// LogicalUnit: one LUN on a BlockDevice. The front end (target/iscsi) asks it for a plan of a CDB, collects the data
// that the plan wants, and has the command executed.
//
//   CommandPlan plan = unit.plan(cdb);                       // pure: direction, size, or why it will be refused
//   ... receive min(EDTL, plan.transfer_bytes) bytes into a Buffer if plan.direction is kOut ...
//   ScsiResult result = co_await unit.execute(command);      // command lives until then
//   ... send result.data_in_slice(), status, sense, residual(result, edtl) ...
//
// Invariants:
//   LU1  Everything wrong with a CDB is found by plan(), before a byte of data is asked for; such a command has
//        direction kNone, and execute() answers with the plan's refusal.
//   LU2  A unit attention is reported once to each I_T nexus, on its next command that may carry it.
//   LU3  Only bytes that a handler wrote, or that the device filled, are in data_in: never stale memory.
//   LU4  execute() ends only when the device's operation has ended.
//   LU5  What changes the medium passes the gate; what must be one step with a read has it alone (write_gate.hpp).
// Threads: any I/O processor's executor, several at once. Per-nexus state is atomic; the list of nexuses is behind a
// mutex that the data path never takes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/environment.hpp"
#include "target/scsi/reservations.hpp"
#include "target/scsi/sense.hpp"
#include "target/scsi/unit_mode.hpp"
#include "target/scsi/write_gate.hpp"

namespace gemel::scsi {

inline constexpr std::size_t kCdbBytes = 16;
inline constexpr std::uint32_t kMaxUnmapDescriptors = 256;
using Cdb = std::array<std::byte, kCdbBytes>;

enum class WriteCache : std::uint8_t {
    kVolatile,  ///< WCE=1: a write is durable after SYNCHRONIZE CACHE or with FUA
    kNone,      ///< WCE=0: every write is durable before its status
};

struct LunOptions {
    std::string vendor = "GEMEL";     ///< up to 8 ASCII characters
    std::string product = "VOLUME";   ///< up to 16
    std::string revision = "0001";    ///< up to 4
    std::string serial;               ///< VPD 80, up to 32; empty: derived from the device's identity
    std::uint32_t block_bytes = 512;  ///< 512 or 4096: what the hosts see
    bool read_only = false;
    bool persistent_reservations = true;
    bool thin = false;       ///< UNMAP is there, and initiators are told so (LBPME)
    bool removable = false;  ///< the medium can be ejected by START STOP UNIT (RMB)
    WriteCache write_cache = WriteCache::kVolatile;
};

/// An I_T nexus as the front end knows it (SAM-5 4.8): one session.
struct Nexus {
    std::string initiator_port;              ///< "iqn.2001-04.com.example:host,i,0x00023d000001"
    std::string target_port;                 ///< "iqn.2026-11.dev.gemel:ram,t,0x0001"
    std::uint16_t relative_target_port = 1;  ///< from 1
    std::uint16_t target_port_group = 1;
    /// The unit is write protected for this initiator, whatever it is for others; nor does it change anything for them.
    bool read_only = false;
};

enum class DataDirection : std::uint8_t { kNone, kIn, kOut };

struct CommandRow;

/// What a CDB asks for. From the CDB and the LUN's geometry alone.
struct CommandPlan {
    const CommandRow* row = nullptr;  ///< null: unknown operation code
    DataDirection direction = DataDirection::kNone;
    /// kOut: exactly what the CDB says, at most max_transfer_bytes(). kIn: that, or the allocation length, which is an
    /// upper bound: never allocate by it.
    std::uint64_t transfer_bytes = 0;
    Lba lba;                       ///< of medium access commands, in sectors of 512 bytes
    SectorCount sectors;           ///< on the medium, in sectors
    std::optional<Sense> refusal;  ///< LU1
};

/// Unit attention conditions in order of precedence (SAM-5 5.14, SPC-4 annex D). Bit numbers in ItlNexus.
enum class Attention : std::uint8_t {
    kPowerOn,                 ///< 29/00
    kReset,                   ///< 29/03 bus device reset function: LUN reset, target reset
    kNexusLoss,               ///< 29/07
    kMediumChanged,           ///< 28/00
    kCapacityChanged,         ///< 2A/09
    kModeChanged,             ///< 2A/01
    kReservationsPreempted,   ///< 2A/03
    kReservationsReleased,    ///< 2A/04
    kRegistrationsPreempted,  ///< 2A/05
    kAsymmetricStateChanged,  ///< 2A/06
    kLunsChanged,             ///< 3F/0E
    kCommandsCleared,         ///< 2F/00 by another initiator
    kSoftThreshold,           ///< 38/07 the space behind a thin unit runs short
};

class LogicalUnit;

/// Where persistent reservations survive a restart (APTPL).
class ReservationStore {
  public:
    virtual ~ReservationStore() = default;
    /// Success: the newest record is this one, durably. Ends on the caller's executor.
    virtual Task<Result<void>> save(std::vector<std::byte> record) = 0;
};

/// What a logical unit keeps for one I_T nexus. The session owns it and destroys it before the unit; destruction
/// releases what the nexus had reserved.
class ItlNexus {
  public:
    ItlNexus(LogicalUnit& unit, Nexus nexus);
    ~ItlNexus();
    ItlNexus(const ItlNexus&) = delete;
    ItlNexus& operator=(const ItlNexus&) = delete;

    [[nodiscard]] const Nexus& nexus() const { return nexus_; }
    [[nodiscard]] const NexusName& name() const { return name_; }
    /// A persistent reservation keeps this nexus from nothing.
    [[nodiscard]] bool admitted() const { return admitted_.load(std::memory_order_acquire); }
    void raise(Attention a) { attentions_.fetch_or(1U << static_cast<unsigned>(a), std::memory_order_relaxed); }
    [[nodiscard]] bool attention_pending() const { return attentions_.load(std::memory_order_relaxed) != 0; }
    /// Takes the pending condition of the highest precedence.
    std::optional<Attention> take_attention();
    /// PREVENT ALLOW MEDIUM REMOVAL.
    void prevent_removal(bool prevents) { prevents_removal_.store(prevents, std::memory_order_relaxed); }
    [[nodiscard]] bool prevents_removal() const { return prevents_removal_.load(std::memory_order_relaxed); }
    /// Forgets `a`: the initiator has asked for what it announces.
    void clear(Attention a) { attentions_.fetch_and(~(1U << static_cast<unsigned>(a)), std::memory_order_relaxed); }

  private:
    friend class LogicalUnit;
    LogicalUnit& unit_;
    const Nexus nexus_;
    const NexusName name_;
    std::atomic<bool> admitted_{true};
    std::atomic<std::uint32_t> attentions_{0};
    std::atomic<bool> prevents_removal_{false};
};

struct ScsiCommand {
    Cdb cdb{};
    CommandPlan plan;           ///< of this cdb, from the same unit (or plan_no_lun); fill it before execute()
    ItlNexus* nexus = nullptr;  ///< null only for execute_no_lun
    /// What the initiator declared (R and W bits). A kOut command declared kIn is refused; a kIn command declared kOut
    /// is GOOD and moves nothing.
    DataDirection direction = DataDirection::kNone;
    std::size_t data_in_capacity = 0;  ///< EDTL of a read: no more than this is worth producing
    /// Data of a kOut command, complete and verified, from the start of the buffer. execute() takes its checksums first
    /// of all (B1), so call it as soon as the data is complete. Less than plan.transfer_bytes only when EDTL is less:
    /// then the whole blocks among it are used.
    Buffer data_out;
    std::size_t data_out_bytes = 0;
    std::uint64_t declared_out = 0;       ///< EDTL of a command that the initiator declares as a write
    std::span<const std::uint64_t> luns;  ///< LUN numbers that this initiator may see, ascending, for REPORT LUNS
};

struct ScsiResult {
    Status status = Status::kGood;
    Sense sense;  ///< with kCheckCondition; encoded as LogicalUnit::sense_format() says
    Buffer data_in;
    std::size_t data_in_bytes = 0;     ///< in data_in, from its start; at most ScsiCommand::data_in_capacity
    std::uint64_t transfer_bytes = 0;  ///< what the command would have moved with room enough: residual = this - EDTL
    [[nodiscard]] MutableBytes data_in_view() const { return data_in.memory().first(data_in_bytes); }
};

/// The residual that the transport reports (RFC 7143 11.4.5): positive is overflow, negative underflow.
inline std::int64_t residual(const ScsiResult& result, std::uint32_t expected_data_transfer_length) {
    return static_cast<std::int64_t>(result.transfer_bytes) - static_cast<std::int64_t>(expected_data_transfer_length);
}

class LogicalUnit final : private DeviceObserver {
  public:
    /// Errors: kInvalidArgument when the device cannot be shown with these options; the text says why.
    static Result<void> check(const DeviceLimits& limits, const LunOptions& options);

    /// REQUIRES: check() passed. Becomes the device's observer. `environment`, `device` and `store` outlive it.
    /// `store`: where `reservations` came from; null: none survives.
    LogicalUnit(Environment& environment, BlockDevice& device, LunOptions options, ReservationStore* store = nullptr,
                Reservations reservations = {});
    ~LogicalUnit() override;
    LogicalUnit(const LogicalUnit&) = delete;
    LogicalUnit& operator=(const LogicalUnit&) = delete;

    /// A new I_T nexus; its first command is answered with the unit attention 29/00.
    std::unique_ptr<ItlNexus> attach(Nexus nexus);

    /// Whether the CDB is good, which way its data goes and how much of it (LU1).
    [[nodiscard]] CommandPlan plan(const Cdb& cdb) const;
    /// The same for a command of this nexus.
    [[nodiscard]] CommandPlan plan(const Cdb& cdb, const ItlNexus& nexus) const;

    /// Runs the command. Await it at once: attentions are taken and checks made when it is called.
    /// REQUIRES: `command` lives, unchanged, until the task ends.
    Task<ScsiResult> execute(const ScsiCommand& command);

    /// LOGICAL UNIT RESET or a target reset: unit attention 29/03 for all nexuses, reservations cleared.
    /// The caller has waited for the commands in flight.
    void reset();
    /// Raises `a` for every nexus but `except`.
    void raise_all(Attention a, const ItlNexus* except = nullptr);

    [[nodiscard]] const LunOptions& options() const { return options_; }
    [[nodiscard]] BlockDevice& device() const { return device_; }
    [[nodiscard]] Environment& environment() const { return environment_; }
    /// The largest data transfer of one command, in bytes (VPD B0).
    [[nodiscard]] std::uint32_t max_transfer_bytes() const;
    [[nodiscard]] std::uint64_t blocks() const;
    /// The largest COMPARE AND WRITE, UNMAP and WRITE SAME, in blocks (VPD B0).
    [[nodiscard]] std::uint8_t max_compare_blocks() const;
    [[nodiscard]] std::uint32_t max_unmap_blocks() const { return kMaxUnmapBytes / options_.block_bytes; }
    [[nodiscard]] static std::uint32_t max_same_blocks() { return 0xffff; }  // as much as the shorter form can name
    [[nodiscard]] std::uint32_t sectors_per_block() const { return options_.block_bytes / kSectorBytes; }

    [[nodiscard]] bool write_protected() const { return options_.read_only || mode_.write_protected(); }
    [[nodiscard]] UnitMode& mode() { return mode_; }
    [[nodiscard]] const UnitMode& mode() const { return mode_; }
    [[nodiscard]] SenseFormat sense_format() const {
        return mode_.descriptor_sense() ? SenseFormat::kDescriptor : SenseFormat::kFixed;
    }
    [[nodiscard]] WriteGate& gate() { return gate_; }

    [[nodiscard]] bool medium_present() const { return medium_present_.load(std::memory_order_acquire); }
    [[nodiscard]] bool removal_prevented();
    void eject_medium() { medium_present_.store(false, std::memory_order_release); }
    /// 28/00 for all others if it was not there.
    void load_medium(const ItlNexus& by);

    /// RESERVE: false when another nexus holds the unit, or there are persistent registrations.
    bool reserve(ItlNexus& by);
    void release(const ItlNexus& by);
    [[nodiscard]] bool reserved_by_other(const ItlNexus& than) const {
        const ItlNexus* holder = reserved_by_.load(std::memory_order_acquire);
        return holder != nullptr && holder != &than;
    }

    // Persistent reservations.
    [[nodiscard]] Reservations reservations();
    [[nodiscard]] ReservationStore* reservation_store() const { return store_; }
    /// What every nexus may do changes at once. REQUIRES: the gate is had alone.
    void set_reservations(Reservations next, std::span<const Reservations::Notice> notices);
    /// A reservation of another nexus keeps this one from the command.
    [[nodiscard]] bool keeps_out(const ItlNexus& nexus, const CommandRow& row) const;

  private:
    friend class ItlNexus;
    static constexpr std::uint32_t kMaxUnmapBytes = 512U << 20U;  ///< of one command (PV2)
    void capacity_changed(SectorCount now) override;
    void detach(ItlNexus& nexus);

    Environment& environment_;
    BlockDevice& device_;
    const LunOptions options_;
    UnitMode mode_;
    WriteGate gate_;
    std::atomic<bool> medium_present_{true};
    std::atomic<const ItlNexus*> reserved_by_{nullptr};
    ReservationStore* const store_;
    std::atomic<ReservationType> reservation_type_{ReservationType::kNone};
    std::mutex nexuses_mutex_;
    Reservations reservations_;       ///< guarded by it, like each nexus's part of it
    std::vector<ItlNexus*> nexuses_;  ///< in order of attaching
};

/// For a LUN that is not in the initiator's map (SPC-4 6.6.1, SAM-5 4.7): INQUIRY answers with peripheral qualifier
/// 3, REPORT LUNS and REQUEST SENSE work, everything else ends with 05/25/00.
CommandPlan plan_no_lun(const Cdb& cdb);
Task<ScsiResult> execute_no_lun(Environment& environment, const ScsiCommand& command);

/// Name for logs: "READ(10)", or "operation code 0xc1".
std::string command_name(const Cdb& cdb);

/// The LUN field of a PDU, read as a big-endian number, to a LUN number and back (SAM-5 4.7): peripheral device
/// addressing below 256, flat space below 16384. Nullopt: no unit of ours has such an address.
std::optional<std::uint64_t> decode_lun(std::uint64_t field);
std::uint64_t encode_lun(std::uint64_t number);

}  // namespace gemel::scsi
