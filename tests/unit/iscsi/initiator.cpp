// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/iscsi/initiator.hpp"

#include "target/iscsi/login.hpp"

namespace gemel::iscsi::test {

using namespace std::chrono_literals;

namespace {

ServerConfig config_for(ServerLimits limits, scsi::LogicalUnit& unit, scsi::LogicalUnit& other, World::Change change) {
    ServerConfig config;
    config.portals = {"target:3260"};
    config.limits = limits;
    config.targets.push_back({"iqn.2026-11.dev.gemel:test", "test alias", {{0, &unit}, {5, &other}}, {}, 1});
    config.targets.push_back(
        {"iqn.2026-11.dev.gemel:private", "", {{0, &unit}}, {"iqn.2026-11.org.Example:friend*"}, 1});
    if (change != nullptr) {
        change(config);
    }
    return config;
}

}  // namespace

Cdb cdb_of(std::initializer_list<int> bytes) {
    Cdb cdb{};
    std::size_t i = 0;
    for (const int b : bytes) {
        cdb[i++] = static_cast<std::byte>(b);
    }
    return cdb;
}

Cdb read10(std::uint32_t lba, std::uint16_t blocks) {
    Cdb cdb = cdb_of({0x28});
    store_be(cdb.data() + 2, lba);
    store_be(cdb.data() + 7, blocks);
    return cdb;
}

Cdb write10(std::uint32_t lba, std::uint16_t blocks) {
    Cdb cdb = read10(lba, blocks);
    cdb[0] = std::byte{0x2a};
    return cdb;
}

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
    std::vector<std::byte> out(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        out[i] = static_cast<std::byte>((i * 131 + i / 251 + seed * 7919U) % 251);
    }
    return out;
}

World::World(ServerLimits limits, std::uint64_t seed, Change change)
    : scheduler(seed),
      login_executor(scheduler.add_executor("login")),
      processor_a(scheduler.add_executor("a")),
      processor_b(scheduler.add_executor("b")),
      client(scheduler.add_executor("client")),
      network(scheduler, seed + 1),
      environment(scheduler, network, "target", seed + 2),
      device(scheduler, SectorCount(8192)),
      other_device(scheduler, SectorCount(8192)),
      unit(environment.get(), device, {}),
      other_unit(environment.get(), other_device, {}) {
    server = std::make_unique<Server>(environment.get(), config_for(limits, unit, other_unit, change), login_executor,
                                      std::vector<Executor*>{&processor_a, &processor_b});
    auto listen = [](Server& s) -> Task<bool> { co_return s.listen().has_value(); };
    CHECK(scheduler.run(login_executor, listen(*server)));
    address = server->portal_addresses().at(0);
}

World::~World() {
    device.release();
    other_device.release();
    scheduler.run(login_executor, server->stop());
    EXPECT_TRUE(server->status().sessions.empty());
    EXPECT_EQ(server->status().logging_in, 0U);
    server.reset();
    EXPECT_EQ(environment.pool().outstanding_bytes(), 0U);
}

void World::run(Task<void> body) {
    scheduler.run(client, std::move(body));
}

Initiator::Initiator(World& world, std::string n) : name(std::move(n)), world_(world) {}

Initiator::~Initiator() {
    CHECK(gate_.inside() == 0);
}

Task<void> Initiator::connect() {
    auto stream = co_await world_.network.host(host).connect(world_.address, 5000);
    CHECK(stream.has_value());
    stream_ = *std::move(stream);
    closed_ = full_feature_ = false;
    inbox_.clear();
    gate_.spawn(read_loop());
}

Task<void> Initiator::close() {
    if (stream_) {
        stream_->close();
        while (gate_.inside() > 0) {
            co_await yield();
        }
        stream_.reset();
    }
}

Task<void> Initiator::read_loop() {
    while (true) {
        Received pdu;
        if (!co_await read_exactly(*stream_, pdu.bhs)) {
            break;
        }
        const bool digests = full_feature_;
        std::array<std::byte, 4> digest{};
        if (digests && header_digest) {
            if (!co_await read_exactly(*stream_, digest)) {
                break;
            }
            EXPECT_TRUE(digest_matches(digest.data(), crc32c(pdu.bhs))) << "header digest of the target";
        }
        const std::size_t length = decode_head(pdu.bhs.data()).data_length;
        pdu.data.resize(length + padding_of(length));
        if (!co_await read_exactly(*stream_, pdu.data)) {
            break;
        }
        if (digests && data_digest && length > 0) {
            if (!co_await read_exactly(*stream_, digest)) {
                break;
            }
            EXPECT_TRUE(digest_matches(digest.data(), crc32c(pdu.data))) << "data digest of the target";
        }
        pdu.data.resize(length);
        check_numbers(pdu);
        inbox_.push_back(std::move(pdu));
        arrived_.set();
        arrived_.reset();
    }
    closed_ = true;
    arrived_.set();
    arrived_.reset();
}

void Initiator::check_numbers(const Received& pdu) {
    const auto stat_sn = load_be<std::uint32_t>(pdu.bhs.data() + 24);
    exp_cmd_sn = load_be<std::uint32_t>(pdu.bhs.data() + 28);
    const auto max = load_be<std::uint32_t>(pdu.bhs.data() + 32);
    if (pdu.opcode() == Opcode::kLoginResponse) {
        exp_stat_sn = stat_sn + 1;
        max_cmd_sn = max;
        return;
    }
    EXPECT_FALSE(serial_before(max, max_cmd_sn)) << "MaxCmdSN went back";
    max_cmd_sn = max;
    const bool ping = pdu.opcode() == Opcode::kNopIn && decode_head(pdu.bhs.data()).initiator_task_tag == kReservedTag;
    const bool status = pdu.opcode() == Opcode::kDataIn ? (std::to_integer<unsigned>(pdu.bhs[1]) & kDataInStatus) != 0
                                                        : pdu.opcode() != Opcode::kReadyToTransfer && !ping;
    if (status) {
        EXPECT_EQ(stat_sn, exp_stat_sn) << "StatSN of opcode " << int(raw_opcode(pdu.bhs.data()));
        exp_stat_sn = stat_sn + 1;
    }
}

Task<void> Initiator::send_raw(std::vector<std::byte> bytes) {
    const std::size_t step = write_chunk == 0 ? bytes.size() : write_chunk;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
        const ConstBytes part = ConstBytes(bytes).subspan(at, std::min(step, bytes.size() - at));
        if (!co_await stream_->write(std::span(&part, 1))) {
            co_return;
        }
        if (write_chunk != 0) {
            co_await yield();
        }
    }
}

std::vector<std::byte> Initiator::frame(BhsBytes bhs, std::vector<std::byte> data, std::vector<std::byte> ahs) const {
    std::vector<std::byte> out(bhs.begin(), bhs.end());
    out.insert(out.end(), ahs.begin(), ahs.end());
    const auto add_digest = [&](std::uint32_t crc, bool corrupt) {
        std::array<std::byte, 4> digest{};
        store_digest(digest.data(), corrupt ? ~crc : crc);
        out.insert(out.end(), digest.begin(), digest.end());
    };
    if (full_feature_ && header_digest) {
        add_digest(crc32c(out), corrupt_header_digest);
    }
    const std::uint32_t crc = iscsi::data_digest(data);
    const bool has_data = !data.empty();
    data.resize(data.size() + padding_of(data.size()));
    out.insert(out.end(), data.begin(), data.end());
    if (full_feature_ && this->data_digest && has_data) {
        add_digest(crc, corrupt_data_digest);
    }
    return out;
}

Task<std::optional<Received>> Initiator::receive(Duration timeout) {
    const TimePoint due = world_.clock().now() + timeout;
    while (inbox_.empty()) {
        if (closed_ || !co_await arrived_.wait_until(world_.clock(), due)) {
            co_return std::nullopt;
        }
    }
    Received pdu = std::move(inbox_.front());
    inbox_.pop_front();
    co_return pdu;
}

Task<bool> Initiator::wait_closed(Duration timeout) {
    const TimePoint due = world_.clock().now() + timeout;
    while (!closed_ && world_.clock().now() < due) {
        co_await arrived_.wait_until(world_.clock(), due);
    }
    co_return closed_;
}

std::vector<std::byte> Initiator::keys_text(const std::vector<std::string>& keys) {
    std::vector<std::byte> out;
    for (const std::string& key : keys) {
        const ConstBytes bytes = as_bytes_of(key);
        out.insert(out.end(), bytes.begin(), bytes.end());
        out.push_back(std::byte{0});
    }
    return out;
}

LoginRequest Initiator::login_request() const {
    LoginRequest request;
    request.immediate = true;
    request.flags = kFinal | (kOperationalNegotiation << 2U) | kFullFeaturePhase;
    request.isid = isid;
    request.tsih = tsih;
    request.initiator_task_tag = 0x1001;
    request.cmd_sn = cmd_sn;
    request.exp_stat_sn = 7;
    return request;
}

Task<std::optional<LoginResponse>> Initiator::try_login(std::vector<std::string> keys) {
    co_await connect();
    std::vector<std::string> all{"InitiatorName=" + name};
    if (!target.empty()) {
        all.push_back("TargetName=" + target);
    }
    all.insert(all.end(), keys.begin(), keys.end());
    co_await send(login_request(), keys_text(all));
    const std::optional<Received> reply = co_await receive();
    if (!reply) {
        co_return std::nullopt;
    }
    login_text_ = reply->text();
    const auto response = reply->as<LoginResponse>();
    if (response.status_class == 0 && (response.flags & kFinal) != 0) {
        full_feature_ = true;
        header_digest = login_text_.contains("HeaderDigest=CRC32C");
        data_digest = login_text_.contains("DataDigest=CRC32C");
    }
    co_return response;
}

Task<void> Initiator::log_in(std::vector<std::string> keys) {
    const auto response = co_await try_login(std::move(keys));
    EXPECT_TRUE(response && response->status_class == 0 && (response->flags & kFinal) != 0);
    if (!response || target.empty()) {
        co_return;
    }
    EXPECT_NE(response->tsih, 0);
    const Outcome attention = co_await command(test_unit_ready(), kFinal, 0);
    EXPECT_EQ(attention.status, 2);
    EXPECT_EQ(attention.sense_key(), 6);
    EXPECT_EQ(attention.asc(), 0x2900);
}

ScsiCommandPdu Initiator::command_pdu(Cdb cdb, std::uint8_t flags, std::uint32_t edtl, std::uint64_t lun) {
    ScsiCommandPdu pdu;
    pdu.flags = flags | 1U;
    pdu.lun = scsi::encode_lun(lun);
    pdu.initiator_task_tag = next_tag++;
    pdu.expected_data_transfer_length = edtl;
    pdu.cmd_sn = cmd_sn++;
    pdu.exp_stat_sn = exp_stat_sn;
    pdu.cdb = cdb;
    return pdu;
}

Task<Outcome> Initiator::command(Cdb cdb, std::uint8_t flags, std::uint32_t edtl, std::vector<std::byte> out,
                                 WritePlan plan, std::uint64_t lun) {
    ScsiCommandPdu pdu = command_pdu(cdb, flags, edtl, lun);
    const auto part = [&](std::size_t from, std::size_t n) {
        const ConstBytes bytes = ConstBytes(out).subspan(from, n);
        return std::vector<std::byte>(bytes.begin(), bytes.end());
    };
    if (plan.unsolicited > 0) {
        pdu.flags &= static_cast<std::uint8_t>(~unsigned{kFinal});
    }
    co_await send(pdu, part(0, plan.immediate));
    std::uint32_t data_sn = 0;
    for (std::size_t sent = 0; sent < plan.unsolicited;) {
        const std::size_t n = std::min(plan.segment, plan.unsolicited - sent);
        DataOut data;
        data.initiator_task_tag = pdu.initiator_task_tag;
        data.lun = pdu.lun;
        data.data_sn = data_sn++;
        data.buffer_offset = static_cast<std::uint32_t>(plan.immediate + sent);
        data.flags = sent + n == plan.unsolicited ? kFinal : 0;
        co_await send(data, part(plan.immediate + sent, n));
        sent += n;
    }
    co_return co_await finish(pdu.initiator_task_tag, std::move(out), plan);
}

Task<void> Initiator::answer_r2t(ReadyToTransfer r2t, const std::vector<std::byte>& out, std::size_t segment) {
    std::uint32_t data_sn = 0;
    for (std::uint32_t sent = 0; sent < r2t.desired_length;) {
        const std::uint32_t n = static_cast<std::uint32_t>(std::min<std::size_t>(segment, r2t.desired_length - sent));
        DataOut data;
        data.initiator_task_tag = r2t.initiator_task_tag;
        data.target_transfer_tag = r2t.target_transfer_tag;
        data.lun = r2t.lun;
        data.data_sn = data_sn++;
        data.buffer_offset = r2t.buffer_offset + sent;
        data.flags = sent + n == r2t.desired_length ? kFinal : 0;
        const ConstBytes bytes = ConstBytes(out).subspan(data.buffer_offset, n);
        co_await send(data, std::vector<std::byte>(bytes.begin(), bytes.end()));
        sent += n;
    }
}

Task<Outcome> Initiator::finish(std::uint32_t tag, std::vector<std::byte> out, WritePlan plan) {
    Outcome o;
    while (!o.answered) {
        const std::optional<Received> pdu = co_await receive();
        if (!pdu) {
            break;
        }
        if (decode_head(pdu->bhs.data()).initiator_task_tag != tag) {
            ADD_FAILURE() << "unexpected PDU with opcode " << int(raw_opcode(pdu->bhs.data()));
            break;
        }
        if (pdu->opcode() == Opcode::kReadyToTransfer) {
            const auto r2t = pdu->as<ReadyToTransfer>();
            EXPECT_EQ(r2t.r2t_sn, o.r2ts++);
            co_await answer_r2t(r2t, out, plan.segment);
        } else if (pdu->opcode() == Opcode::kDataIn) {
            const auto in = pdu->as<DataIn>();
            EXPECT_EQ(in.data_sn, o.data_in_pdus++);
            EXPECT_EQ(in.buffer_offset, o.data.size());
            o.data.insert(o.data.end(), pdu->data.begin(), pdu->data.end());
            if ((in.flags & kDataInStatus) != 0) {
                EXPECT_NE(in.flags & kFinal, 0);
                o.answered = true;
                o.status = in.status;
                o.flags = in.flags & 6U;
                o.residual = in.residual_count;
            }
        } else {
            const auto response = pdu->as<ScsiResponse>();
            EXPECT_EQ(response.exp_data_sn, o.data_in_pdus + o.r2ts);
            o.answered = true;
            o.status = response.status;
            o.flags = response.flags & 6U;
            o.residual = response.residual_count;
            if (pdu->data.size() > 2) {
                o.sense.assign(pdu->data.begin() + 2, pdu->data.end());
            }
        }
    }
    co_return o;
}

Task<Outcome> Initiator::read(std::uint32_t lba, std::uint16_t blocks) {
    return command(read10(lba, blocks), kFinal | kCommandRead, blocks * 512U);
}

Task<Outcome> Initiator::write(std::uint32_t lba, std::vector<std::byte> data, WritePlan plan) {
    const auto bytes = static_cast<std::uint32_t>(data.size());
    return command(write10(lba, static_cast<std::uint16_t>(bytes / 512)), kFinal | kCommandWrite, bytes,
                   std::move(data), plan);
}

Task<std::optional<std::uint8_t>> Initiator::manage(std::uint8_t function, std::uint32_t referenced_tag,
                                                    std::uint64_t lun) {
    TaskManagementRequest request;
    request.immediate = true;
    request.flags = kFinal | function;
    request.lun = scsi::encode_lun(lun);
    request.initiator_task_tag = next_tag++;
    request.referenced_task_tag = referenced_tag;
    request.cmd_sn = cmd_sn;
    request.ref_cmd_sn = cmd_sn - 1;
    co_await send(request);
    const auto pdu = co_await receive();
    if (!pdu) {
        co_return std::nullopt;
    }
    co_return pdu->as<TaskManagementResponse>().response;
}

Task<void> Initiator::prove_healthy() {
    const std::vector<std::byte> data = pattern(4096, next_tag);
    const Outcome written = co_await write(1000, data);
    EXPECT_EQ(written.status, 0);
    const Outcome back = co_await read(1000, 8);
    EXPECT_EQ(back.status, 0);
    EXPECT_EQ(back.data, data);
}

}  // namespace gemel::iscsi::test
