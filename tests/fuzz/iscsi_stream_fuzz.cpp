// SPDX-License-Identifier: Apache-2.0
// Bytes from an initiator in the full feature phase: headers, additional headers, data, digests, split anywhere. Holds
// that the connection ends, that every byte sent back belongs to a well-formed PDU, and that no buffer is left.
//
// An input: 1 byte settings (bit 0 header digest, 1 data digest, 2 no InitialR2T, 3 no ImmediateData, 4 discovery,
// 5..7 size of the reads), then records: 1 byte control (bit 0: header digest wrong, 1: data digest wrong, 2: CmdSN as
// is; else it is made the next one, 3: lengths as they are; else cut to what is here), 48 bytes header, the data.
#include "target/iscsi/connection.hpp"
#include "tests/support/sim_environment.hpp"
#include "tests/unit/scsi/memory_device.hpp"

namespace {

using namespace gemel;
using namespace gemel::iscsi;

constexpr std::size_t kCmdSnAt = 24;
constexpr std::uint32_t kFirstCmdSn = 0xfffffffe;

/// Gives the script in pieces, then the end; checks what is written.
class ScriptStream : public Stream {
  public:
    ScriptStream(std::vector<std::byte> script, std::size_t piece, const SessionParameters& p)
        : script_(std::move(script)), piece_(piece), parameters_(p) {}
    Task<Result<std::size_t>> read_some(MutableBytes to) override {
        co_await yield();
        if (closed_) {
            co_return fail(Errc::kClosed);
        }
        const std::size_t n = std::min({to.size(), piece_, script_.size() - at_});
        if (n > 0) {
            std::memcpy(to.data(), script_.data() + at_, n);
        }
        at_ += n;
        co_return n;
    }
    Task<Result<void>> write(std::span<const ConstBytes> parts) override {
        for (const ConstBytes part : parts) {
            out_.insert(out_.end(), part.begin(), part.end());
        }
        co_await yield();
        co_return closed_ ? Result<void>(fail(Errc::kClosed)) : Result<void>{};
    }
    void close() override { closed_ = true; }
    void rebind(Executor& /*executor*/) override {}
    [[nodiscard]] std::string local_address() const override { return "target:3260"; }
    [[nodiscard]] std::string peer_address() const override { return "host:1"; }

    void check_output() const {
        const std::size_t header_digest = parameters_.header_digest ? kDigestBytes : 0;
        const std::size_t data_digest_bytes = parameters_.data_digest ? kDigestBytes : 0;
        for (ConstBytes rest = out_; !rest.empty();) {
            CHECK(rest.size() >= kBhsBytes + header_digest);
            const PduHead head = decode_head(rest.data());
            CHECK(raw_opcode(rest.data()) >= 0x20 && head.ahs_words == 0);
            CHECK(header_digest == 0 || digest_matches(&rest[kBhsBytes], crc32c(rest.first(kBhsBytes))));
            const std::size_t padded = head.data_length + padding_of(head.data_length);
            const std::size_t data_bytes = padded + (head.data_length > 0 ? data_digest_bytes : 0);
            rest = rest.subspan(kBhsBytes + header_digest);
            CHECK(rest.size() >= data_bytes);
            if (head.data_length > 0 && data_digest_bytes > 0) {
                CHECK(digest_matches(&rest[padded], crc32c(rest.first(padded))));
            }
            rest = rest.subspan(data_bytes);
        }
    }

  private:
    std::vector<std::byte> script_;
    std::size_t piece_;
    const SessionParameters& parameters_;
    std::size_t at_ = 0;
    bool closed_ = false;
    std::vector<std::byte> out_;
};

class LonelyHost : public SessionHost {
  public:
    [[nodiscard]] std::string send_targets(const Session& /*session*/, std::string_view request) const override {
        return std::string("TargetName=") + std::string(request) + '\0';
    }
    Task<void> abort_elsewhere(Session& /*issuer*/, std::vector<scsi::LogicalUnit*> /*units*/,
                               AbortCause /*cause*/) override {
        co_await yield();
    }
    Task<void> drop_other_sessions(Session& /*issuer*/) override { co_await yield(); }
    [[nodiscard]] MemoryBudget& memory() override { return memory_; }
    void note_protocol_error(const Session& /*session*/, const std::string& what) override {
        CHECK(printable(what, what.size()) == what);
    }

  private:
    MemoryBudget memory_{256U << 20U};
};

/// One record, with the parts that random bytes would never get right put right.
void append_record(std::vector<std::byte>& script, ConstBytes& rest, const SessionParameters& p,
                   std::uint32_t& cmd_sn) {
    const unsigned control = std::to_integer<unsigned>(rest[0]);
    BhsBytes bhs;
    std::ranges::copy(rest.subspan(1, kBhsBytes), bhs.begin());
    rest = rest.subspan(1 + kBhsBytes);
    PduHead head = decode_head(bhs.data());
    if ((control & 8U) == 0) {
        const std::size_t ahs = std::min<std::size_t>(head.ahs_words % 8U, rest.size() / 4);
        const std::size_t data = std::min<std::size_t>(head.data_length % 3000, rest.size() - ahs * 4);
        store_be(bhs.data() + 4, static_cast<std::uint32_t>(ahs << 24U | data));
        head = decode_head(bhs.data());
    }
    if ((control & 4U) == 0) {
        store_be(bhs.data() + kCmdSnAt, cmd_sn);
        cmd_sn += head.immediate ? 0 : 1;
    }
    const auto add = [&](ConstBytes bytes) { script.insert(script.end(), bytes.begin(), bytes.end()); };
    const auto add_digest = [&](std::uint32_t crc, bool wrong) {
        std::array<std::byte, kDigestBytes> digest;
        store_digest(digest.data(), wrong ? ~crc : crc);
        add(digest);
    };
    const std::size_t ahs_bytes = std::min<std::size_t>(head.ahs_words * std::size_t{4}, rest.size());
    const std::size_t from = script.size();
    add(bhs);
    add(rest.first(ahs_bytes));
    if (p.header_digest) {
        add_digest(crc32c(ConstBytes(script).subspan(from)), (control & 1U) != 0);
    }
    rest = rest.subspan(ahs_bytes);
    const ConstBytes data = rest.first(std::min<std::size_t>(head.data_length, rest.size()));
    add(data);
    script.resize(script.size() + padding_of(data.size()));
    if (p.data_digest && !data.empty()) {
        add_digest(data_digest(data), (control & 2U) != 0);
    }
    rest = rest.subspan(data.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    ConstBytes rest(reinterpret_cast<const std::byte*>(bytes), size);
    const unsigned settings = std::to_integer<unsigned>(rest[0]);
    rest = rest.subspan(1);
    sim::SimScheduler scheduler(1);
    sim::SimExecutor& executor = scheduler.add_executor("processor");
    sim::SimNetwork network(scheduler, 1);
    sim::SimEnvironment environment(scheduler, network, "target", 1);
    scsi::MemoryDevice device({.sectors = 64});
    scsi::LogicalUnit unit(environment.get(), device, {});
    const TargetDefinition target{"iqn.t:one", "", {{0, &unit}}, {}, 1};
    Session session;
    session.initiator = "iqn.i:host";
    session.target = (settings & 16U) != 0 ? nullptr : &target;
    session.luns = std::vector<LunStatistics>(target.luns.size());
    session.executor = &executor;
    session.parameters.header_digest = (settings & 1U) != 0;
    session.parameters.data_digest = (settings & 2U) != 0;
    session.parameters.initial_r2t = (settings & 4U) == 0;
    session.parameters.immediate_data = (settings & 8U) == 0;
    session.parameters.first_burst_length = 2048;
    session.parameters.max_burst_length = 4096;
    session.parameters.max_send_data_segment_length = 1024;
    session.parameters.max_recv_data_segment_length = 8192;
    std::vector<std::byte> script;
    std::uint32_t cmd_sn = kFirstCmdSn;
    while (rest.size() > kBhsBytes) {
        append_record(script, rest, session.parameters, cmd_sn);
    }
    script.insert(script.end(), rest.begin(), rest.end());
    LonelyHost host;
    ServerLimits limits;
    limits.command_window = 8;
    const std::size_t piece = std::size_t{1} << (settings >> 5U) * 2;
    ScriptStream stream(std::move(script), piece, session.parameters);
    auto serve = [](Environment& env, SessionHost& h, Session& s, const ServerLimits& l, Stream& st) -> Task<void> {
        Receiver receiver(st);
        Connection connection(env, h, s, l, st, receiver, {kFirstCmdSn, 1});
        co_await connection.run();
    };
    scheduler.run(executor, serve(environment.get(), host, session, limits, stream));
    CHECK(environment.pool().outstanding_bytes() == 0);
    stream.check_output();
    return 0;
}
