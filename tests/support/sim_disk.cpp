// SPDX-License-Identifier: Apache-2.0
#include "tests/support/sim_disk.hpp"

#include <cstring>

namespace gemel::sim {

namespace {

constexpr Duration kHangPoll = std::chrono::milliseconds(100);

// Whole sectors are copied by memcpy: element by element they take a third of the simulator's time at -O1.
std::shared_ptr<const std::byte[]> copy_of(ConstBytes from) {
    auto out = std::make_shared_for_overwrite<std::byte[]>(from.size());
    std::memcpy(out.get(), from.data(), from.size());
    return out;
}

}  // namespace

SimDisk::SimDisk(SimScheduler& scheduler, std::uint64_t seed, SimDiskOptions options)
    : scheduler_(scheduler), random_(seed), options_(std::move(options)), media_(options_.sectors) {}

void SimDisk::extend(SectorCount sectors) {
    CHECK(sectors >= options_.sectors);
    const std::uint64_t from = options_.sectors.value;
    options_.sectors = sectors;
    media_.resize(sectors);
    std::vector<std::byte> data(kSectorBytes);
    const bool anything = random_.one_in(2);
    for (std::uint64_t s = from; anything && s < sectors.value; ++s) {
        std::ranges::generate(data, [this] { return static_cast<std::byte>(random_.next()); });
        media_.set_sector(s, data);
    }
}

DeviceLimits SimDisk::limits() const {
    return {.sectors = options_.sectors,
            .alignment_sectors = options_.alignment_sectors,
            .physical_sectors = options_.physical_sectors,
            .max_transfer_bytes = options_.max_transfer_bytes,
            .optimal_transfer_bytes = 0,
            .volatile_cache = options_.volatile_cache,
            .gives_back = options_.gives_back};
}

Duration SimDisk::latency(std::size_t bytes) {
    const auto span = static_cast<std::uint64_t>((options_.max_latency - options_.min_latency).count()) + 1;
    Duration d = options_.min_latency + Duration(random_.below(span));
    d += Duration(bytes / 4);  // 4 GB/s
    if (chance(options_.tail_one_in)) {
        d += Duration(random_.below(static_cast<std::uint64_t>(options_.tail_latency.count()) + 1));
    }
    return d * slowness_;
}

Task<void> SimDisk::delay(std::size_t bytes) {
    ++waiting_;
    co_await sleep_for(scheduler_, latency(bytes));
    while (hangs() && !dead_) {
        co_await sleep_until(scheduler_, std::min(hung_until_, scheduler_.now() + kHangPoll));
    }
    if (stalled_until_ > scheduler_.now()) {
        co_await sleep_until(scheduler_, stalled_until_ + latency(bytes));
    }
    --waiting_;
}

Task<Result<void>> SimDisk::gone() {
    co_await sleep_for(scheduler_, std::chrono::microseconds(5 + random_.below(20)));
    co_return fail(Errc::kDeviceGone, options_.name + " is gone");
}

void SimDisk::check_range(Lba lba, std::uint64_t sectors) {
    CHECK(sectors > 0 && lba.value + sectors <= options_.sectors.value);
    CHECK(lba.value % options_.alignment_sectors == 0 && sectors % options_.alignment_sectors == 0);
    CHECK(sectors * kSectorBytes <= options_.max_transfer_bytes);
}

bool SimDisk::chance(std::uint32_t one_in) {
    return one_in != 0 && random_.one_in(one_in);
}

/// A planned fault, or one by the rate.
bool SimDisk::take(std::uint32_t& planned, std::uint32_t one_in) {
    if (planned > 0) {
        --planned;
        ++counters_.faults;
        return true;
    }
    if (chance(one_in)) {
        ++counters_.faults;
        return true;
    }
    return false;
}

void SimDisk::set_silent_fault_rates(std::uint32_t lost, std::uint32_t misplaced, std::uint32_t rot) {
    options_.lost_write_one_in = lost;
    options_.misplaced_write_one_in = misplaced;
    options_.rot_one_in = rot;
}

void SimDisk::set_fault_rates(std::uint32_t read, std::uint32_t write, std::uint32_t flush) {
    options_.read_error_one_in = read;
    options_.write_error_one_in = write;
    options_.flush_error_one_in = flush;
}

ConstBytes SimDisk::visible(std::uint64_t sector) const {
    const auto it = cache_.find(sector);
    if (it == cache_.end()) {
        return media_.sector(sector);
    }
    const Version& v = it->second.back();
    return v.bytes();
}

void SimDisk::copy_visible(Lba lba, MutableBytes to) const {
    const std::uint64_t end = lba.value + to.size() / kSectorBytes;
    const auto place = [&](std::uint64_t sector) { return to.data() + (sector - lba.value) * kSectorBytes; };
    for (std::uint64_t at = lba.value; at < end; ++at) {
        std::memcpy(place(at), media_.sector(at).data(), kSectorBytes);
    }
    for (auto it = cache_.lower_bound(lba.value); it != cache_.end() && it->first < end; ++it) {
        const Version& newest = it->second.back();
        std::memcpy(place(it->first), newest.bytes().data(), kSectorBytes);
    }
}

/// Makes one sector of a write visible. Once per sector and write (SD1).
void SimDisk::apply(Pending& p, std::size_t sector, bool durable) {
    const std::uint64_t at = p.lba.value + sector;
    if (!p.applied[sector]) {
        p.applied[sector] = true;
        latent_.erase(at);
        cache_[at].push_back(Version{++serial_, p.data, sector * kSectorBytes});
    }
    if (!durable) {
        return;
    }
    // Already flushed, or still in the cache, perhaps below the version of an overlapping write.
    if (const auto it = cache_.find(at); it != cache_.end()) {
        Versions& versions = it->second;
        const auto mine = std::ranges::find_if(versions, [&](const Version& v) { return v.data == p.data; });
        if (mine != versions.end()) {
            media_.set_sector(at, mine->bytes());
            versions.erase(versions.begin(), std::next(mine));
        }
        if (versions.empty()) {
            cache_.erase(it);
        }
    }
}

/// Each sector of the write, or not: what an error or a crash leaves.
void SimDisk::apply_some(Pending& p) {
    // One write in three is all there, one in three not at all, the rest is torn.
    const std::uint64_t kind = random_.below(3);
    for (std::size_t i = 0; i < p.applied.size(); ++i) {
        if (kind == 0 || (kind == 1 && random_.one_in(2))) {
            apply(p, i, false);
        }
    }
}

/// Some sectors of writes in flight become visible to a read that overlaps them.
void SimDisk::surface(Lba lba, std::uint64_t sectors) {
    for (Pending* p : pending_) {
        const std::uint64_t first = std::max(lba.value, p->lba.value);
        const std::uint64_t end = std::min(lba.value + sectors, p->lba.value + p->applied.size());
        for (std::uint64_t at = first; at < end; ++at) {
            if (random_.one_in(3)) {
                apply(*p, at - p->lba.value, false);
            }
        }
    }
}

Task<Result<void>> SimDisk::read(Lba lba, Slice to, ReadOptions /*options*/) {
    const std::uint64_t sectors = to.sectors().value;
    check_range(lba, sectors);
    ++counters_.reads;
    counters_.sectors_read += sectors;
    const std::uint64_t life = life_;
    if (dead_) {
        co_return co_await gone();
    }
    co_await delay(to.size());
    if (dead_ || life != life_) {
        co_return fail(Errc::kDeviceGone, options_.name + " is gone");
    }
    if (failing_reads_ > 0 && reads_before_failing_ > 0) {
        --reads_before_failing_;
    } else if (take(failing_reads_, options_.read_error_one_in)) {
        co_return fail(Errc::kIo, options_.name + ": read failed");
    }
    surface(lba, sectors);
    to.clear_infos();
    bool unreadable = false;
    copy_visible(lba, to.data());
    for (auto bad = latent_.lower_bound(lba.value); bad != latent_.end() && *bad < lba.value + sectors; ++bad) {
        to.mark((to.head() + (*bad - lba.value) * kSectorBytes) / kBlockBytes, BlockStatus::kUnreadable);
        unreadable = true;
    }
    scheduler_.note_event(crc32c(to.data()));
    if (unreadable) {
        ++counters_.faults;
        co_return fail(Errc::kMediumError, options_.name + ": unreadable sectors from " + std::to_string(lba.value));
    }
    co_return Result<void>{};
}

Task<Result<void>> SimDisk::write(Lba lba, Slice from, WriteOptions options) {
    check_range(lba, from.sectors().value);
    ++counters_.writes;
    counters_.sectors_written += from.sectors().value;
    if (dead_) {
        co_return co_await gone();
    }
    Pending p{.lba = lba, .data = copy_of(from.data()), .fua = options.fua || !options_.volatile_cache};
    p.applied.resize(from.sectors().value);
    pending_.push_back(&p);
    co_await delay(from.size());
    if (std::memcmp(from.data().data(), p.data.get(), from.size()) != 0) {
        complaints_.push_back(options_.name + ": the caller changed a borrowed buffer during a write at sector " +
                              std::to_string(lba.value));
    }
    if (p.dropped) {
        co_return fail(Errc::kDeviceGone, options_.name + " is gone");
    }
    pending_.remove(&p);
    scheduler_.note_event(lba.value);
    if (full_) {
        ++counters_.faults;
        co_return fail(Errc::kNoSpace, options_.name + " is full");
    }
    if (take(failing_writes_, options_.write_error_one_in)) {
        apply_some(p);
        co_return fail(Errc::kIo, options_.name + ": write failed");
    }
    complete_write(p);
    co_return Result<void>{};
}

void SimDisk::complete_write(Pending& p) {
    if (chance(options_.lost_write_one_in)) {
        ++counters_.faults;
        return;
    }
    if (chance(options_.misplaced_write_one_in)) {
        ++counters_.faults;
        const std::uint64_t room = options_.sectors.value - p.applied.size() + 1;
        p.lba = Lba(random_.below(room));
    }
    for (std::size_t i = 0; i < p.applied.size(); ++i) {
        apply(p, i, p.fua);
    }
    if (chance(options_.rot_one_in)) {
        ++counters_.faults;
        rot(p.lba + random_.below(p.applied.size()));
    }
}

Task<Result<void>> SimDisk::flush() {
    ++counters_.flushes;
    if (dead_) {
        co_return co_await gone();
    }
    const std::uint64_t serial = serial_;
    const std::uint64_t life = life_;
    co_await delay(0);
    if (dead_ || life != life_) {
        co_return fail(Errc::kDeviceGone, options_.name + " is gone");
    }
    if (take(failing_flushes_, options_.flush_error_one_in)) {
        co_return fail(Errc::kIo, options_.name + ": flush failed");
    }
    settle(serial);
    co_return Result<void>{};
}

/// SD2: versions up to `serial` are durable; of each sector the newest of them goes to the media.
void SimDisk::settle(std::uint64_t serial) {
    for (auto it = cache_.begin(); it != cache_.end();) {
        Versions& versions = it->second;
        const auto end = std::ranges::find_if(versions, [&](const Version& v) { return v.serial > serial; });
        if (end != versions.begin()) {
            const Version& newest = *std::prev(end);
            media_.set_sector(it->first, newest.bytes());
            versions.erase(versions.begin(), end);
        }
        it = versions.empty() ? cache_.erase(it) : std::next(it);
    }
}

Task<Result<void>> SimDisk::discard(Lba lba, SectorCount count) {
    // The same as a write of zeros, cut to what one transfer may carry.
    counters_.sectors_discarded += count.value;
    const std::uint64_t step = options_.max_transfer_bytes / kSectorBytes;
    for (std::uint64_t done = 0; done < count.value;) {
        const std::uint64_t n = std::min(step, count.value - done);
        const auto head = static_cast<std::uint32_t>(byte_offset(lba + done) % kBlockBytes);
        std::vector<std::byte> zeros(n * kSectorBytes);
        std::vector<BlockInfo> infos(Slice::block_count(zeros.size(), head));
        CO_TRY_VOID(co_await write(lba + done, Slice(zeros, infos, head), {}));
        done += n;
    }
    co_return Result<void>{};
}

void SimDisk::crash_pending() {
    for (Pending* p : pending_) {
        apply_some(*p);
        p->dropped = true;
    }
    pending_.clear();
    dead_ = true;
    ++life_;
}

void SimDisk::kill_process() {
    if (!dead_) {
        crash_pending();
    }
}

void SimDisk::power_cut(CachePolicy policy) {
    if (!dead_) {
        crash_pending();
    }
    for (auto& [sector, versions] : cache_) {
        std::size_t keep = 0;  // 0: the media's; i: version i - 1
        switch (policy) {
            case CachePolicy::kRandom:
                keep = random_.below(versions.size() + 1);
                break;
            case CachePolicy::kDropAll:
                break;
            case CachePolicy::kKeepAll:
                keep = versions.size();
                break;
            case CachePolicy::kKeepNewestOrDrop:
                keep = random_.one_in(2) ? versions.size() : 0;
                break;
        }
        if (keep > 0) {
            const Version& v = versions[keep - 1];
            media_.set_sector(sector, v.bytes());
        }
    }
    cache_.clear();
}

void SimDisk::die() {
    kill_process();
}

void SimDisk::revive() {
    dead_ = false;
    full_ = false;
    slowness_ = 1;
    stalled_until_ = {};
    hung_until_ = {};
    failing_reads_ = failing_writes_ = failing_flushes_ = 0;
}

void SimDisk::damage(Lba lba, SectorCount count) {
    for (std::uint64_t i = 0; i < count.value && lba.value + i < options_.sectors.value; ++i) {
        latent_.insert(lba.value + i);
    }
}

void SimDisk::rot(Lba lba) {
    std::array<std::byte, kSectorBytes> copy;
    std::ranges::copy(visible(lba.value), copy.begin());
    copy[random_.below(kSectorBytes)] ^= std::byte{1} << random_.below(8);
    cache_.erase(lba.value);
    media_.set_sector(lba.value, copy);
}

std::vector<std::byte> SimDisk::snapshot(Lba lba, SectorCount sectors) const {
    std::vector<std::byte> out(bytes_of(sectors));
    copy_visible(lba, out);
    return out;
}

void SimDisk::load(const SimDisk& other) {
    CHECK(cache_.empty() && pending_.empty() && options_.sectors == other.options_.sectors);
    media_ = other.media_;
    for (const auto& [sector, versions] : other.cache_) {
        media_.set_sector(sector, other.visible(sector));
    }
}

void SimDisk::load(const Media& media) {
    CHECK(cache_.empty() && pending_.empty() && options_.sectors == media.sectors());
    media_ = media;
}

std::vector<UncertainSector> SimDisk::uncertain() const {
    std::map<std::uint64_t, UncertainSector> found;
    const auto add = [&](std::uint64_t sector, ConstBytes content) {
        UncertainSector& u = found[sector];
        if (u.contents.empty()) {
            u.sector = sector;
            u.contents.emplace_back(media_.sector(sector).begin(), media_.sector(sector).end());
        }
        if (std::ranges::none_of(u.contents, [&](const auto& known) { return std::ranges::equal(known, content); })) {
            u.contents.emplace_back(content.begin(), content.end());
        }
    };
    for (const auto& [sector, versions] : cache_) {
        for (const Version& v : versions) {
            add(sector, v.bytes());
        }
    }
    for (const Pending* p : pending_) {
        for (std::size_t i = 0; i < p->applied.size(); ++i) {
            add(p->lba.value + i, ConstBytes(p->data.get() + i * kSectorBytes, kSectorBytes));
        }
    }
    std::vector<UncertainSector> out;
    for (auto& [sector, u] : found) {
        if (u.contents.size() > 1) {
            out.push_back(std::move(u));
        }
    }
    return out;
}

void SimDisk::load(ConstBytes content) {
    CHECK(cache_.empty() && pending_.empty() && content.size() <= options_.sectors.value * kSectorBytes);
    for (std::size_t at = 0; at < content.size(); at += kSectorBytes) {
        media_.set_sector(at / kSectorBytes, content.subspan(at, kSectorBytes));
    }
}

}  // namespace gemel::sim
