// SPDX-License-Identifier: Apache-2.0
// MemoryDevice: a BlockDevice whose operations end at once, with faults that a test sets; ScsiBench: a logical unit on
// one, with a nexus, and the way to send it a CDB.
// Threads: one.
#pragma once

#include <cstdlib>
#include <optional>
#include <set>
#include <vector>

#include "target/scsi/lun.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::scsi {

struct MemoryDeviceOptions {
    std::uint64_t sectors = 4096;
    std::uint32_t alignment_sectors = 1;
    std::uint32_t physical_sectors = 8;
    std::uint32_t max_transfer_bytes = 4U << 20U;
    std::uint32_t optimal_transfer_bytes = 256U << 10U;
    bool gives_back = false;
    std::uint32_t discard_unit = kSectorsPerBlock;
    std::uint32_t discard_first = 0;
    Uuid identity{{std::byte{0x11}, std::byte{0x22}, std::byte{0x33}, std::byte{0x44}}};
};

class MemoryDevice : public BlockDevice {
  public:
    explicit MemoryDevice(MemoryDeviceOptions options) : options_(options), bytes_(zeros(options.sectors)) {}

    [[nodiscard]] DeviceLimits limits() const override {
        return {.sectors = SectorCount(options_.sectors),
                .alignment_sectors = options_.alignment_sectors,
                .physical_sectors = options_.physical_sectors,
                .max_transfer_bytes = options_.max_transfer_bytes,
                .optimal_transfer_bytes = options_.optimal_transfer_bytes,
                .gives_back = options_.gives_back,
                .discard_unit = options_.discard_unit,
                .discard_first = options_.discard_first};
    }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions /*options*/) override {
        ++reads;
        CHECK(inside(lba, to.size()) && to.size() > 0);
        if (silent_reads > 0) {
            --silent_reads;
            held.push_back(to.data().data());
            co_return fail(Errc::kTimedOut, "as the test wants");
        }
        CHECK(std::ranges::count(held, to.data().data()) == 0);  // a device still has that memory
        if (error) {
            co_return fail(*error, "as the test wants");
        }
        std::ranges::copy(area(lba, to.size()), to.data().begin());
        to.clear_infos();
        bool bad = false;
        for (std::size_t i = 0; i < to.blocks().size(); ++i) {
            const std::size_t offset = i == 0 ? 0 : i * kBlockBytes - to.head();
            const std::uint64_t first = lba.value + offset / kSectorBytes;
            if (unreadable.lower_bound(first) !=
                unreadable.lower_bound(first + to.block_data(i).size() / kSectorBytes)) {
                to.mark(i, BlockStatus::kUnreadable);
                bad = true;
            }
        }
        co_return bad && !hide_medium_errors ? fail(Errc::kMediumError, "as the test wants") : Result<void>{};
    }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions options) override {
        ++writes;
        CHECK(inside(lba, from.size()) && from.size() > 0);
        last_fua = options.fua;
        for (const BlockInfo& block : from.blocks()) {
            CHECK(block.has_crc);
        }
        CO_TRY_VOID(from.verify());
        if (error) {
            co_return fail(*error, "as the test wants");
        }
        std::ranges::copy(from.data(), area(lba, from.size()).begin());
        if (!corrupt_next_write.empty()) {
            area(lba, from.size())[corrupt_next_write.front()] ^= std::byte{1};
            corrupt_next_write.clear();
        }
        co_return Result<void>{};
    }
    Task<Result<void>> flush() override {
        ++flushes;
        co_return error ? fail(*error, "as the test wants") : Result<void>{};
    }
    Task<Result<void>> discard(Lba lba, SectorCount count) override {
        ++discards;
        discarded.push_back({lba, count});
        if (error) {
            co_return fail(*error, "as the test wants");
        }
        std::ranges::fill(area(lba, bytes_of(count)), std::byte{0});
        co_return Result<void>{};
    }
    void observe(DeviceObserver* observer) override { observer_ = observer; }
    [[nodiscard]] Uuid identity() const override { return options_.identity; }
    [[nodiscard]] std::string name() const override { return "memory:test"; }

    /// Grows, or shrinks without telling anybody when `tell` says so.
    enum class Tell : std::uint8_t { kObserver, kNobody };
    void resize(std::uint64_t sectors, Tell tell = Tell::kObserver) {
        const std::size_t kept = std::min(sectors, options_.sectors) * kSectorBytes;
        Memory now = zeros(sectors);
        std::copy_n(bytes_.get(), kept, now.get());
        bytes_ = std::move(now);
        options_.sectors = sectors;
        if (tell == Tell::kObserver && observer_ != nullptr) {
            observer_->capacity_changed(SectorCount(sectors));
        }
    }
    [[nodiscard]] MutableBytes area(Lba lba, std::size_t bytes) {
        return MutableBytes(bytes_.get(), options_.sectors * kSectorBytes).subspan(byte_offset(lba), bytes);
    }
    [[nodiscard]] bool observed() const { return observer_ != nullptr; }

    int reads = 0;
    int writes = 0;
    int flushes = 0;
    int discards = 0;
    std::vector<Extent> discarded;
    bool last_fua = false;
    bool hide_medium_errors = false;              ///< success, with the status of the blocks alone telling (B2)
    int silent_reads = 0;                         ///< so many next reads keep their memory
    std::vector<const std::byte*> held;           ///< by those
    std::optional<Errc> error;                    ///< every operation fails with it
    std::set<std::uint64_t> unreadable;           ///< sectors
    std::vector<std::size_t> corrupt_next_write;  ///< offset of a byte that the medium will get wrong

  private:
    struct Free {
        void operator()(std::byte* p) const { std::free(p); }
    };
    using Memory = std::unique_ptr<std::byte[], Free>;
    /// Zeros that cost no memory until they are touched.
    static Memory zeros(std::uint64_t sectors) {
        return Memory(static_cast<std::byte*>(std::calloc(sectors, kSectorBytes)));
    }
    [[nodiscard]] bool inside(Lba lba, std::size_t bytes) const {
        return bytes % (options_.alignment_sectors * kSectorBytes) == 0 &&
               lba.value % options_.alignment_sectors == 0 &&
               byte_offset(lba) + bytes <= options_.sectors * kSectorBytes;
    }
    MemoryDeviceOptions options_;
    Memory bytes_;
    DeviceObserver* observer_ = nullptr;
};

/// Runs a task of which every step ends at once.
template <class T>
T finish(Task<T> task) {
    std::optional<T> out;
    start_detached(
        [](Task<T> t, std::optional<T>& to) -> Task<void> { to.emplace(co_await std::move(t)); }(std::move(task), out));
    CHECK(out.has_value());
    return *std::move(out);
}

/// A CDB from its bytes; the rest is zeros.
inline Cdb cdb_of(std::initializer_list<unsigned> bytes) {
    Cdb cdb{};
    std::ranges::transform(bytes, cdb.begin(), [](unsigned b) { return static_cast<std::byte>(b); });
    return cdb;
}

struct Sent {
    std::vector<std::byte> data_out{};
    std::size_t data_in_capacity = 1U << 20U;
    std::optional<DataDirection> direction{};     ///< what the initiator declares; default: what the plan says
    std::optional<std::uint64_t> declared_out{};  ///< EDTL of a write; default: the size of the data
    ItlNexus* nexus = nullptr;                    ///< default: the bench's first
};

struct Answer {
    Status status;
    SenseCode sense;  ///< of fixed format sense data
    std::vector<std::byte> raw_sense;
    std::vector<std::byte> data;
    std::uint64_t transfer_bytes;
    [[nodiscard]] unsigned at(std::size_t i) const { return std::to_integer<unsigned>(data.at(i)); }
    [[nodiscard]] std::uint64_t number(std::size_t at, std::size_t bytes) const {
        std::uint64_t v = 0;
        for (std::size_t i = 0; i < bytes; ++i) {
            v = v << 8U | this->at(at + i);
        }
        return v;
    }
    [[nodiscard]] std::string text(std::size_t from, std::size_t bytes) const {
        return std::string(as_text(ConstBytes(data).subspan(from, bytes)));
    }
};

inline Answer answer_of(const ScsiResult& result, SenseFormat format = SenseFormat::kFixed) {
    Answer out{result.status, {}, {}, {}, result.transfer_bytes};
    const SenseBytes encoded =
        result.status == Status::kCheckCondition ? encode_sense(result.sense, format) : SenseBytes{};
    const ConstBytes sense = encoded.view();
    out.raw_sense.assign(sense.begin(), sense.end());
    if (sense.size() >= 14) {
        out.sense = {static_cast<SenseKey>(sense[2]), static_cast<std::uint8_t>(sense[12]),
                     static_cast<std::uint8_t>(sense[13])};
    }
    const ConstBytes data = result.data_in_bytes > 0 ? ConstBytes(result.data_in_view()) : ConstBytes();
    out.data.assign(data.begin(), data.end());
    return out;
}

class ScsiBench {
  public:
    explicit ScsiBench(LunOptions options = {}, MemoryDeviceOptions device_options = {},
                       ReservationStore* store = nullptr, Reservations reservations = {})
        : device(device_options), unit(node_.get(), device, std::move(options), store, std::move(reservations)) {
        first = attach("first");
    }
    /// A nexus whose power-on attention is gone.
    std::unique_ptr<ItlNexus> attach(const std::string& name) {
        auto nexus = attach_fresh(name);
        nexus->take_attention();
        return nexus;
    }
    std::unique_ptr<ItlNexus> attach_fresh(const std::string& name) {
        return unit.attach({.initiator_port = "iqn.2026-11.dev.gemel:" + name + ",i,0x00023d000001",
                            .target_port = "iqn.2026-11.dev.gemel:target,t,0x0001",
                            .relative_target_port = 1,
                            .target_port_group = 7});
    }
    Answer send(const Cdb& cdb, Sent sent = {}) {
        ScsiCommand command;
        command.cdb = cdb;
        command.nexus = sent.nexus != nullptr ? sent.nexus : first.get();
        command.plan = unit.plan(cdb, *command.nexus);
        command.direction = sent.direction.value_or(command.plan.direction);
        command.data_in_capacity = sent.data_in_capacity;
        command.luns = luns;
        command.declared_out = sent.declared_out.value_or(sent.data_out.size());
        if (!sent.data_out.empty()) {
            command.data_out = *node_.get().buffers.allocate(sent.data_out.size());
            std::ranges::copy(sent.data_out, command.data_out.memory().begin());
            command.data_out_bytes = sent.data_out.size();
        }
        return answer_of(finish(unit.execute(command)));
    }
    /// The reservation commands, so that a test reads like the standard.
    Answer reserve_out(unsigned action, std::uint64_t key, std::uint64_t service_action_key, unsigned type = 0,
                       ItlNexus* nexus = nullptr, unsigned flags = 0) {
        std::vector<std::byte> list(24);
        store_be(list.data(), key);
        store_be(list.data() + 8, service_action_key);
        list[20] = static_cast<std::byte>(flags);
        return send({0x5f, action, type, 0, 0, 0, 0, 0, 24}, {.data_out = std::move(list), .nexus = nexus});
    }
    Answer send(std::initializer_list<unsigned> cdb, Sent sent = {}) { return send(cdb_of(cdb), std::move(sent)); }
    Answer send_no_lun(std::initializer_list<unsigned> bytes) {
        ScsiCommand command;
        command.cdb = cdb_of(bytes);
        command.plan = plan_no_lun(command.cdb);
        command.direction = command.plan.direction;
        command.data_in_capacity = 1U << 20U;
        command.luns = luns;
        return answer_of(finish(execute_no_lun(node_.get(), command)));
    }
    Environment& environment() { return node_.get(); }

  private:
    sim::SimScheduler scheduler_{1};
    sim::SimNetwork network_{scheduler_, 1};
    sim::SimEnvironment node_{scheduler_, network_, "node", 1};

  public:
    MemoryDevice device;
    LogicalUnit unit;
    std::unique_ptr<ItlNexus> first;
    std::vector<std::uint64_t> luns{0, 1, 300};
};

inline std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
    std::vector<std::byte> out(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        out[i] = static_cast<std::byte>((i * 31 + i / 512 + seed) & 0xffU);
    }
    return out;
}

}  // namespace gemel::scsi
