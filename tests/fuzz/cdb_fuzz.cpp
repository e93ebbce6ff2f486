// SPDX-License-Identifier: Apache-2.0
// Random CDBs against a logical unit: a sequence of commands from two nexuses with any lengths and any data. Holds that
// plans bound what is allocated, that a result is complete and fits, that no stale memory is shown, and that nothing
// outside the named range changes.
//
// An input is a row of records: 1 byte nexus and declared direction, 2 bytes EDTL in units of 64, 16 bytes CDB,
// 1 byte that the data is made of.
#include "tests/unit/scsi/memory_device.hpp"

namespace {

using namespace gemel;
using namespace gemel::scsi;

constexpr std::size_t kRecordBytes = 20;
constexpr std::uint64_t kSectors = 64;
constexpr std::byte kStale{0xdb};  // neither the device, nor data, nor any page has this byte

/// Buffers that look used.
class StalePool : public sim::HeapPool {
  public:
    Result<Buffer> allocate(std::size_t bytes) override {
        CHECK(bytes <= (4U << 20U) + kBlockBytes);
        Result<Buffer> buffer = sim::HeapPool::allocate(bytes);
        std::ranges::fill(buffer->memory(), kStale);
        return buffer;
    }
};

struct World {
    sim::SimScheduler scheduler{1};
    sim::SimNetwork network{scheduler, 1};
    sim::SeededRandom random{1};
    StalePool pool;
    sim::RecordingEvents events;
    Environment environment{scheduler, random, pool, events, network.host("n"), {}};
};

ScsiCommand decode(World& world, const LogicalUnit& unit, ConstBytes record) {
    ScsiCommand command;
    std::ranges::copy(record.subspan(3, kCdbBytes), command.cdb.begin());
    command.plan = unit.plan(command.cdb);
    command.direction = static_cast<DataDirection>(std::to_integer<unsigned>(record[0]) >> 1U & 1U ? 1 : 0);
    if ((std::to_integer<unsigned>(record[0]) & 4U) != 0) {
        command.direction = command.plan.direction;
    }
    const std::size_t edtl = std::size_t{load_be<std::uint16_t>(&record[1])} * 64;
    command.data_in_capacity = edtl;
    if (command.plan.direction == DataDirection::kOut) {
        CHECK(command.plan.transfer_bytes <= unit.max_transfer_bytes());
        command.data_out_bytes = std::min<std::uint64_t>(edtl, command.plan.transfer_bytes);
        command.data_out = *world.environment.buffers.allocate(command.data_out_bytes);
        std::ranges::fill(command.data_out.memory().first(command.data_out_bytes), record[19] & std::byte{0x7f});
    }
    return command;
}

void check_result(const ScsiCommand& command, const ScsiResult& result) {
    CHECK((result.status == Status::kCheckCondition) == (result.sense.code.key != SenseKey::kNoSense));
    CHECK(result.data_in_bytes <= command.data_in_capacity);
    CHECK(result.data_in_bytes <= result.transfer_bytes);
    if (command.plan.direction == DataDirection::kNone) {
        CHECK(result.transfer_bytes == 0);
    }
    if (result.data_in_bytes > 0) {
        CHECK(command.plan.direction == DataDirection::kIn && result.status == Status::kGood);
        CHECK(std::ranges::count(result.data_in_view(), kStale) == 0);
    }
    if (command.plan.refusal) {
        CHECK(result.status != Status::kGood);
    }
}

/// Sectors outside the plan's range are as they were.
void check_medium(MemoryDevice& device, std::vector<std::byte>& before, const CommandPlan& plan) {
    if (std::exchange(device.writes, 0) == 0) {
        return;
    }
    const ConstBytes now = device.area(Lba(0), kSectors * kSectorBytes);
    CHECK(plan.direction == DataDirection::kOut);
    const std::size_t from = byte_offset(plan.lba);
    const std::size_t to = from + bytes_of(plan.sectors);
    CHECK(std::ranges::equal(now.first(from), ConstBytes(before).first(from)));
    CHECK(std::ranges::equal(now.subspan(to), ConstBytes(before).subspan(to)));
    before.assign(now.begin(), now.end());
}

void run(World& world, ConstBytes input, std::uint32_t block_bytes) {
    MemoryDevice device({.sectors = kSectors, .alignment_sectors = block_bytes / kSectorBytes});
    LogicalUnit unit(world.environment, device, {.block_bytes = block_bytes});
    const auto one = unit.attach({.initiator_port = "iqn.a,i,1", .target_port = "iqn.t,t,1"});
    const auto two = unit.attach({.initiator_port = "iqn.b,i,1", .target_port = "iqn.t,t,1"});
    const std::vector<std::uint64_t> luns{0, 7};
    std::vector<std::byte> before(kSectors * kSectorBytes);
    constexpr std::size_t kMaxCommands = 8;
    for (std::size_t n = 0; n < kMaxCommands && input.size() >= kRecordBytes; ++n) {
        ScsiCommand command = decode(world, unit, input.first(kRecordBytes));
        command.nexus = (std::to_integer<unsigned>(input[0]) & 1U) != 0 ? one.get() : two.get();
        command.luns = luns;
        check_result(command, finish(unit.execute(command)));
        check_medium(device, before, command.plan);
        ScsiCommand elsewhere;
        elsewhere.cdb = command.cdb;
        elsewhere.plan = plan_no_lun(command.cdb);
        elsewhere.data_in_capacity = command.data_in_capacity;
        elsewhere.luns = luns;
        check_result(elsewhere, finish(execute_no_lun(world.environment, elsewhere)));
        CHECK(!command_name(command.cdb).empty());
        input = input.subspan(kRecordBytes);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static World world;
    const ConstBytes input(reinterpret_cast<const std::byte*>(data), size);
    run(world, input, size % 2 == 0 ? 512 : 4096);
    CHECK(world.pool.outstanding_bytes() == 0);
    return 0;
}
