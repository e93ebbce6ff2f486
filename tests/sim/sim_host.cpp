// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_host.hpp"

#include <cstring>

namespace gemel::sim {

namespace {

constexpr std::uint64_t kVerifySectors = 256;
constexpr int kReadTries = 4;

std::string describe(std::string_view what, Extent where) {
    return std::string(what) + " " + std::to_string(where.lba.value) + "+" + std::to_string(where.sectors.value);
}

}  // namespace

SimHost::SimHost(SimScheduler& scheduler, std::uint64_t seed, HeapPool& pool, Oracle& oracle, HostWorld& world,
                 Chronicle& chronicle, SimHostOptions options)
    : scheduler_(scheduler),
      random_(seed),
      pool_(pool),
      oracle_(oracle),
      world_(world),
      chronicle_(chronicle),
      options_(std::move(options)) {}

void SimHost::aim(BlockDevice& device, std::vector<SimExecutor*> executors) {
    device_ = &device;
    executors_ = std::move(executors);
}

void SimHost::add_work(std::uint32_t commands) {
    budget_ += commands;
    while (workers_ < std::min(options_.depth, budget_)) {
        ++workers_;
        ++inside_;
        scheduler_.start(*executors_[random_.below(executors_.size())], worker(life_));
    }
}

void SimHost::crash() {
    ++life_;
    budget_ = 0;
    workers_ = 0;
}

Task<void> SimHost::worker(std::uint64_t life) {
    while (life == life_ && budget_ > 0) {
        --budget_;
        co_await command(life);
    }
    --inside_;
    if (life == life_) {
        --workers_;
    }
}

Extent SimHost::choose() {
    const std::uint64_t total = std::min(oracle_.sectors().value, device_->limits().sectors.value);
    const std::uint64_t align = device_->limits().alignment_sectors;
    std::uint64_t count = 1 + random_.below(random_.one_in(4) ? options_.max_sectors : 16);
    if (random_.one_in(2)) {
        count = round_up(count, kSectorsPerBlock);  // what file systems do
    }
    count = std::min(round_up(count, align), round_down(total, align));
    const std::uint64_t zone = random_.one_in(2) ? std::min<std::uint64_t>(options_.hot_sectors, total) : total;
    std::uint64_t lba = random_.below(zone);
    lba = round_down(lba, random_.one_in(2) ? std::max<std::uint64_t>(align, kSectorsPerBlock) : align);
    lba = std::min(lba, round_down(total - count, align));
    return Extent{Lba(lba), SectorCount(count)};
}

Task<void> SimHost::command(std::uint64_t life) {
    const Extent where = choose();
    std::uint64_t dice = random_.below(100);
    if (!chronicle_.next_command()) {
        co_return;
    }
    if (dice < options_.flush_percent) {
        if (!chronicle_.without("flushes")) {
            co_await flush();
        }
    } else if ((dice -= options_.flush_percent) < options_.discard_percent) {
        if (!chronicle_.without("discards")) {
            co_await discard_some(life, where);
        }
    } else if ((dice -= options_.discard_percent) < options_.read_percent) {
        if (!chronicle_.without("reads")) {
            co_await read_some(life, where);
        }
    } else {
        co_await write_some(life, where);
    }
}

Task<void> SimHost::write_some(std::uint64_t life, Extent where) {
    const Buffer buffer = *pool_.allocate(bytes_of(where.sectors));
    const Slice data = buffer.slice(bytes_of(where.sectors), where.lba);
    if (oracle_.overlaps_open(where.lba, where.sectors)) {
        chronicle_.reached("write overlapping one in flight");
    }
    const std::uint64_t id = oracle_.begin_write(where.lba, where.sectors, false);
    oracle_.stamp(id, data.data());
    data.clear_infos();
    if (!random_.one_in(8)) {
        data.seal();
    }
    const bool fua = random_.below(100) < options_.fua_percent;
    const TimePoint began = scheduler_.now();
    Result<void> result = co_await device_->write(where.lba, data, {.fua = fua});
    if (life == life_) {
        world_.waited(scheduler_.now() - began);
        co_await ended(life, id, fua, "write " + std::to_string(id), where, std::move(result));
    }
}

Task<void> SimHost::discard_some(std::uint64_t life, Extent where) {
    const std::uint64_t id = oracle_.begin_write(where.lba, where.sectors, true);
    const TimePoint began = scheduler_.now();
    Result<void> result = co_await device_->discard(where.lba, where.sectors);
    if (life == life_) {
        world_.waited(scheduler_.now() - began);
        co_await ended(life, id, false, "discard " + std::to_string(id), where, std::move(result));
    }
}

/// The answer to a write. Who holds it is asked before anything else can happen to this host.
Task<void> SimHost::ended(std::uint64_t life, std::uint64_t id, bool fua, std::string_view what, Extent where,
                          Result<void> result) {
    if (result) {
        const LegMask holders = co_await world_.holders();
        if (life != life_) {
            co_return;
        }
        ++writes_;
        oracle_.acknowledge(id, fua, holders);
        chronicle_.say(describe(what, where) + (fua ? " fua" : "") + " ok on " + std::to_string(holders));
        co_return;
    }
    oracle_.fail_write(id);
    judge_error(what, where, result.error());
    co_await sleep_for(scheduler_, std::chrono::milliseconds(20));
}

Task<bool> SimHost::flush() {
    const std::uint64_t life = life_;
    const std::uint64_t id = oracle_.begin_flush();
    const TimePoint began = scheduler_.now();
    const Result<void> result = co_await device_->flush();
    if (life != life_) {
        co_return false;
    }
    world_.waited(scheduler_.now() - began);
    if (!result) {
        judge_error("flush", Extent{}, result.error());
        co_await sleep_for(scheduler_, std::chrono::milliseconds(20));
        co_return false;
    }
    const LegMask holders = co_await world_.holders();
    if (life == life_) {
        oracle_.end_flush(id, holders);
        chronicle_.say("flush ok on " + std::to_string(holders));
    }
    co_return life == life_;
}

/// As the front end: what a device below still holds is left alone, and other memory filled.
Task<Result<void>> SimHost::read_into(Extent where, Buffer& buffer) {
    Result<void> result = fail(Errc::kTimedOut);
    for (int i = 0; i < kReadTries && !result && result.error().code == Errc::kTimedOut; ++i) {
        if (i > 0) {
            chronicle_.reached("read went around a silent member");
        }
        buffer = *pool_.allocate(bytes_of(where.sectors));
        const Slice data = buffer.slice(bytes_of(where.sectors), where.lba);
        std::memset(data.data().data(), 0xdb, data.size());
        result = co_await device_->read(where.lba, data);
    }
    co_return result;
}

Task<void> SimHost::read_some(std::uint64_t life, Extent where) {
    const std::uint64_t id = oracle_.begin_read(where.lba, where.sectors);
    const LegMask leg = world_.reader();
    const TimePoint began = scheduler_.now();
    Buffer buffer;
    const Result<void> result = co_await read_into(where, buffer);
    if (life != life_) {
        co_return;
    }
    world_.waited(scheduler_.now() - began);
    if (world_.reader() != leg) {
        oracle_.drop_read(id);
        co_return;
    }
    judge_read(id, where, buffer.slice(bytes_of(where.sectors), where.lba), result);
    if (!result) {
        co_await sleep_for(scheduler_, std::chrono::milliseconds(20));
    }
}

void SimHost::judge_read(std::uint64_t id, Extent where, Slice data, const Result<void>& result) {
    if (!result && result.error().code != Errc::kMediumError) {
        oracle_.drop_read(id);
        judge_error("read", where, result.error());
        return;
    }
    ++chronicle_.result.reads;
    if (result && !data.all_readable()) {
        chronicle_.violation(describe("read", where) + " succeeded with unreadable blocks");
    }
    if (!result && data.all_readable()) {
        chronicle_.violation(describe("read", where) + " failed with every block readable: " + result.error().message);
    }
    if (!data.verify()) {
        chronicle_.violation(describe("read", where) + " returned data that does not match its own checksums");
    }
    const std::size_t known = oracle_.violations().size();
    const std::vector<Lba> unreadable = oracle_.end_read(id, data, world_.reader());
    const auto bad =
        std::ranges::find_if(unreadable, [this](Lba lba) { return !world_.unreadable_expected(options_.name, lba); });
    if (bad != unreadable.end()) {
        chronicle_.violation(describe("read", where) + ": sector " + std::to_string(bad->value) +
                             " is unreadable: " + (result ? "" : result.error().message));
    }
    for (std::size_t i = known; i < oracle_.violations().size(); ++i) {
        chronicle_.violation(options_.name + " " + oracle_.violations()[i].text);
    }
}

void SimHost::judge_error(std::string_view what, Extent where, const Error& error) {
    chronicle_.say(describe(what, where) + " failed: " + std::string(errc_name(error.code)) + ": " + error.message);
    if (!world_.error_expected(error, where)) {
        chronicle_.violation(options_.name + " " + describe(what, where) +
                             " failed without reason: " + std::string(errc_name(error.code)) + ": " + error.message);
    }
}

Task<void> SimHost::verify(std::vector<std::byte>* image) {
    const std::uint64_t total = std::min(oracle_.sectors().value, device_->limits().sectors.value);
    if (image != nullptr) {
        image->resize(total * kSectorBytes);
    }
    for (std::uint64_t at = 0; at < total; at += kVerifySectors) {
        const Extent where{Lba(at), SectorCount(std::min(kVerifySectors, total - at))};
        const std::uint64_t id = oracle_.begin_read(where.lba, where.sectors);
        Buffer buffer;
        const Result<void> result = co_await read_into(where, buffer);
        const Slice data = buffer.slice(bytes_of(where.sectors), where.lba);
        judge_read(id, where, data, result);
        if (image != nullptr) {
            std::ranges::copy(data.data(), image->begin() + static_cast<std::ptrdiff_t>(byte_offset(where.lba)));
        }
    }
}

}  // namespace gemel::sim
