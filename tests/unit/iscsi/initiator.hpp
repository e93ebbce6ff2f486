// SPDX-License-Identifier: Apache-2.0
// An initiator for tests that says exactly what it is told to, and a world with one iSCSI server on memory devices.
// The initiator checks of every answer that StatSN, DataSN, offsets and digests are what RFC 7143 says.
// Threads: the simulator's one.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "gemel/sync.hpp"
#include "target/iscsi/digest.hpp"
#include "target/iscsi/portal.hpp"
#include "target/iscsi/text_keys.hpp"
#include "target/scsi/lun.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::iscsi::test {

/// A memory device whose operations can be held back.
class HoldableDevice : public BlockDevice {
  public:
    HoldableDevice(Clock& clock, SectorCount sectors) : clock_(clock), memory_(bytes_of(sectors)) {}

    bool hold_reads = false;
    bool hold_writes = false;
    std::size_t held = 0;  ///< operations waiting now
    std::size_t writes_done = 0;
    std::size_t reads_done = 0;
    void release() { hold_reads = hold_writes = false; }
    [[nodiscard]] MutableBytes bytes(Lba lba, std::size_t n) {
        return MutableBytes(memory_).subspan(byte_offset(lba), n);
    }

    [[nodiscard]] DeviceLimits limits() const override { return {.sectors = sectors_of(memory_.size())}; }
    Task<Result<void>> read(Lba lba, Slice to, ReadOptions /*options*/) override {
        co_await wait(hold_reads);
        std::ranges::copy(bytes(lba, to.size()), to.data().begin());
        to.clear_infos();
        ++reads_done;
        co_return Result<void>{};
    }
    Task<Result<void>> write(Lba lba, Slice from, WriteOptions /*options*/) override {
        co_await wait(hold_writes);
        CO_TRY_VOID(from.verify());
        std::ranges::copy(from.data(), bytes(lba, from.size()).begin());
        ++writes_done;
        co_return Result<void>{};
    }
    Task<Result<void>> flush() override { co_return Result<void>{}; }
    Task<Result<void>> discard(Lba lba, SectorCount count) override {
        std::ranges::fill(bytes(lba, bytes_of(count)), std::byte{0});
        co_return Result<void>{};
    }
    [[nodiscard]] std::string name() const override { return "holdable"; }

  private:
    Task<void> wait(const bool& hold) {
        co_await sleep_for(clock_, std::chrono::microseconds(10));
        while (hold) {
            ++held;
            co_await sleep_for(clock_, std::chrono::milliseconds(1));
            --held;
        }
    }
    Clock& clock_;
    std::vector<std::byte> memory_;
};

struct Received {
    BhsBytes bhs{};
    std::vector<std::byte> data;
    [[nodiscard]] Opcode opcode() const { return static_cast<Opcode>(raw_opcode(bhs.data())); }
    template <class Pdu>
    [[nodiscard]] Pdu as() const {
        EXPECT_EQ(opcode(), Pdu::kOpcode);
        return decode<Pdu>(bhs.data());
    }
    [[nodiscard]] std::string_view text() const { return as_text(data); }
};

class World;

/// What happened to one SCSI command.
struct Outcome {
    bool answered = false;
    std::uint8_t status = 0xff;
    std::uint8_t flags = 0;
    std::uint32_t residual = 0;
    std::vector<std::byte> data;
    std::vector<std::byte> sense;
    std::size_t data_in_pdus = 0;
    std::size_t r2ts = 0;
    [[nodiscard]] int sense_key() const { return sense.size() > 2 ? std::to_integer<int>(sense[2]) & 15 : -1; }
    [[nodiscard]] int asc() const {
        return sense.size() > 13 ? std::to_integer<int>(sense[12]) << 8 | std::to_integer<int>(sense[13]) : -1;
    }
};

/// How to send the data of a write.
struct WritePlan {
    std::size_t immediate = 0;    ///< bytes with the command
    std::size_t unsolicited = 0;  ///< bytes after it, without R2T
    std::size_t segment = 8192;   ///< of each Data-Out
};

using Cdb = std::array<std::byte, 16>;
Cdb cdb_of(std::initializer_list<int> bytes);
Cdb read10(std::uint32_t lba, std::uint16_t blocks);
Cdb write10(std::uint32_t lba, std::uint16_t blocks);
inline Cdb test_unit_ready() {
    return cdb_of({0});
}
std::vector<std::byte> pattern(std::size_t bytes, unsigned seed);

class Initiator {
  public:
    explicit Initiator(World& world, std::string name = "iqn.2026-11.org.example:host");
    ~Initiator();

    std::string name;
    std::string host = "client";  ///< in the network
    std::string target = "iqn.2026-11.dev.gemel:test";
    std::array<std::byte, 6> isid{std::byte{0x40}, std::byte{1}, std::byte{2},
                                  std::byte{3},    std::byte{4}, std::byte{5}};
    std::uint16_t tsih = 0;
    std::uint32_t cmd_sn = 100;
    std::uint32_t exp_stat_sn = 0;
    std::uint32_t max_cmd_sn = 0;
    std::uint32_t exp_cmd_sn = 0;
    std::uint32_t next_tag = 1;
    bool header_digest = false;
    bool data_digest = false;
    bool corrupt_header_digest = false;
    bool corrupt_data_digest = false;
    std::size_t write_chunk = 0;  ///< bytes per Stream::write; 0: all at once

    Task<void> connect();
    Task<void> send_raw(std::vector<std::byte> bytes);
    template <class Pdu>
    Task<void> send(Pdu pdu, std::vector<std::byte> data = {}, std::vector<std::byte> ahs = {}) {
        pdu.data_length = static_cast<std::uint32_t>(data.size());
        pdu.ahs_words = static_cast<std::uint8_t>(ahs.size() / 4);
        return send_raw(frame(encode(pdu), std::move(data), std::move(ahs)));
    }
    std::vector<std::byte> frame(BhsBytes bhs, std::vector<std::byte> data, std::vector<std::byte> ahs = {}) const;
    /// Nullopt: nothing came within `timeout`, or the connection is closed.
    Task<std::optional<Received>> receive(Duration timeout = std::chrono::seconds(60));
    [[nodiscard]] bool closed() const { return closed_; }
    Task<bool> wait_closed(Duration timeout = std::chrono::seconds(60));
    Task<void> close();
    /// Ends pending operations; close() must follow.
    void hang_up() { stream_->close(); }

    /// One login request that ends the login at once; `keys` are added to the names.
    Task<std::optional<LoginResponse>> try_login(std::vector<std::string> keys = {});
    /// Connects, logs in and takes the unit attention.
    Task<void> log_in(std::vector<std::string> keys = {});
    [[nodiscard]] LoginRequest login_request() const;
    [[nodiscard]] const std::string& login_text() const { return login_text_; }
    static std::vector<std::byte> keys_text(const std::vector<std::string>& keys);

    [[nodiscard]] ScsiCommandPdu command_pdu(Cdb cdb, std::uint8_t flags, std::uint32_t edtl, std::uint64_t lun = 0);
    /// Sends the command and waits for its answer, answering R2Ts from `out`.
    Task<Outcome> command(Cdb cdb, std::uint8_t flags, std::uint32_t edtl, std::vector<std::byte> out = {},
                          WritePlan plan = {}, std::uint64_t lun = 0);
    Task<Outcome> read(std::uint32_t lba, std::uint16_t blocks);
    Task<Outcome> write(std::uint32_t lba, std::vector<std::byte> data, WritePlan plan = {});
    /// Waits for the answer to `tag`.
    Task<Outcome> finish(std::uint32_t tag, std::vector<std::byte> out = {}, WritePlan plan = {});
    Task<std::optional<std::uint8_t>> manage(std::uint8_t function, std::uint32_t referenced_tag = kReservedTag,
                                             std::uint64_t lun = 0);
    /// A healthy session reads back what it writes.
    Task<void> prove_healthy();

  private:
    Task<void> read_loop();
    Task<void> answer_r2t(ReadyToTransfer r2t, const std::vector<std::byte>& out, std::size_t segment);
    void check_numbers(const Received& pdu);

    World& world_;
    std::unique_ptr<Stream> stream_;
    std::deque<Received> inbox_;
    Event arrived_;
    Gate gate_;
    bool closed_ = false;
    bool full_feature_ = false;
    std::string login_text_;
};

class World {
  public:
    /// The seed is that of --gtest_random_seed: the scheduler picks another order with another one.
    using Change = void (*)(ServerConfig&);
    explicit World(ServerLimits limits = {},
                   std::uint64_t seed = static_cast<std::uint64_t>(testing::UnitTest::GetInstance()->random_seed()),
                   Change change = nullptr);
    ~World();

    void run(Task<void> body);
    [[nodiscard]] Clock& clock() { return scheduler; }

    sim::SimScheduler scheduler;
    sim::SimExecutor& login_executor;
    sim::SimExecutor& processor_a;
    sim::SimExecutor& processor_b;
    sim::SimExecutor& client;
    sim::SimNetwork network;
    sim::SimEnvironment environment;
    HoldableDevice device;
    HoldableDevice other_device;
    scsi::LogicalUnit unit;
    scsi::LogicalUnit other_unit;
    std::unique_ptr<Server> server;
    std::string address;
};

#define SCENARIO_WITH(suite, name, limits)      \
    static Task<void> suite##_##name(World& w); \
    TEST(suite, name) {                         \
        World w{limits};                        \
        w.run(suite##_##name(w));               \
    }                                           \
    static Task<void> suite##_##name([[maybe_unused]] World& w)
#define SCENARIO_OF(suite, name, change)        \
    static Task<void> suite##_##name(World& w); \
    TEST(suite, name) {                         \
        World w({}, 1, change);                 \
        w.run(suite##_##name(w));               \
    }                                           \
    static Task<void> suite##_##name([[maybe_unused]] World& w)
#define SCENARIO(suite, name) SCENARIO_WITH(suite, name, ServerLimits{})

}  // namespace gemel::iscsi::test
