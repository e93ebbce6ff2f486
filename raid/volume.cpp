// SPDX-License-Identifier: Apache-2.0
#include "raid/volume.hpp"

#include <algorithm>

#include "raid/array_body.hpp"

namespace gemel::raid::detail {

namespace {
constexpr std::uint64_t kDiscardBytes = kMiB;  ///< of a piece, if a stripe is no longer
constexpr std::size_t kDiscardsAtOnce = 4;
}  // namespace

Volume::Use::Use(Volume& volume) {
    while (true) {
        map_ = volume.map_.load();
        map_->users.fetch_add(1);
        if (map_ == volume.map_.load()) {
            return;
        }
        map_->users.fetch_sub(1);
    }
}

Volume::Volume(ArrayBody& array, const VolumeRecord& record)
    : array_(array), volume_name_(record.name), uuid_(record.uuid) {
    set_map(record);
}

void Volume::set_map(const VolumeRecord& record) {
    auto map = std::make_unique<Map>();
    map->sectors = record.sectors;
    map->extents = record.extents;
    map_.store(map.get());
    maps_.push_back(std::move(map));
}

bool Volume::quiet(bool all) const {
    const Map* present = map_.load();
    return std::ranges::all_of(
        maps_, [&](const auto& map) { return (map.get() == present && !all) || map->users.load() == 0; });
}

std::string Volume::name() const {
    return "volume " + volume_name_ + " of array " + array_.name;
}

DeviceLimits Volume::limits() const {
    DeviceLimits out;
    out.sectors = map_.load()->sectors;
    out.volatile_cache = false;
    const Geometry& g = array_.geometry;
    for (std::uint32_t m = 0; m < g.members; ++m) {
        if (array_.members[m].device->present()) {
            const DeviceLimits member = array_.members[m].device->limits();
            out.alignment_sectors = std::max(out.alignment_sectors, member.alignment_sectors);
            out.physical_sectors = std::max(out.physical_sectors, member.physical_sectors);
            out.max_transfer_bytes = std::min(out.max_transfer_bytes, member.max_transfer_bytes);
            out.volatile_cache = out.volatile_cache || member.volatile_cache;
            out.gives_back = out.gives_back || member.gives_back;
        }
    }
    if (g.layout != Layout::kLinear) {
        out.optimal_transfer_bytes = static_cast<std::uint32_t>(g.row_sectors() * kSectorBytes);
    }
    const std::uint64_t unit = discard_unit();
    const std::vector<VolumeExtent>& extents = map_.load()->extents;
    out.discard_unit = static_cast<std::uint32_t>(unit);
    out.discard_first =
        extents.empty() ? 0 : static_cast<std::uint32_t>((unit - extents.front().lba.value % unit) % unit);
    return out;
}

/// Sectors of the array from a multiple of them on whose discard frees whole stripes with their parity.
std::uint64_t Volume::discard_unit() const {
    return array_.level.parities() > 0 ? array_.geometry.row_sectors() : kSectorsPerBlock;
}

Result<void> Volume::admit(const Map& map, Lba lba, SectorCount sectors) const {
    if (array_.stopping()) {
        return fail(Errc::kClosed, name() + " is closed: the array is stopping");
    }
    if (sectors > map.sectors || lba.value > map.sectors.value - sectors.value) {
        return fail(Errc::kOutOfRange, "sectors " + std::to_string(lba.value) + " to " +
                                           std::to_string(lba.value + sectors.value) + " are beyond the end of " +
                                           name() + " (" + std::to_string(map.sectors.value) + " sectors)");
    }
    return {};
}

VolumeExtent Volume::locate(const Map& map, Lba lba) {
    std::uint64_t rest = lba.value;
    for (const VolumeExtent& e : map.extents) {
        if (rest < e.sectors.value) {
            return {e.lba + rest, SectorCount(e.sectors.value - rest)};
        }
        rest -= e.sectors.value;
    }
    check_failed("an admitted sector lies in an extent", __FILE__, __LINE__);
}

void Volume::report(Lba lba, Slice part) {
    DeviceObserver* observer = observer_.load();
    if (observer == nullptr) {
        return;
    }
    const auto blocks = part.blocks();
    std::uint64_t at = lba.value;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const std::uint64_t sectors = part.block_data(i).size() / kSectorBytes;
        if (blocks[i].status == BlockStatus::kUnreadable) {
            observer->unreadable({Lba(at), SectorCount(sectors)});
        }
        at += sectors;
    }
}

void Volume::unreadable(Extent extent) {
    DeviceObserver* observer = observer_.load();
    if (observer == nullptr) {
        return;
    }
    const Use use(*this);
    const std::uint64_t end = extent.lba.value + extent.sectors.value;
    std::uint64_t at = 0;
    for (const VolumeExtent& e : use.map().extents) {
        const std::uint64_t from = std::max(e.lba.value, extent.lba.value);
        const std::uint64_t to = std::min({e.lba.value + e.sectors.value, end});
        const std::uint64_t first = at + (from - e.lba.value);
        if (from < to && first < use.map().sectors.value) {
            observer->unreadable({Lba(first), SectorCount(std::min(to - from, use.map().sectors.value - first))});
        }
        at += e.sectors.value;
    }
}

Task<Result<void>> Volume::read(Lba lba, Slice to, ReadOptions options) {
    const Use use(*this);
    CO_TRY_VOID(admit(use.map(), lba, to.sectors()));
    if (!options.background) {
        array_.note_host_read();
    }
    Result<void> out;
    std::size_t at = 0;
    while (at < to.size()) {
        const VolumeExtent run = locate(use.map(), lba + at / kSectorBytes);
        const std::size_t bytes = std::min<std::size_t>(to.size() - at, bytes_of(run.sectors));
        const Slice part = bytes == to.size() ? to : to.sub(at, bytes);
        Result<void> r = co_await array_.level.read(array_, run.lba, part, options);
        if (!r && r.error().code == Errc::kMediumError) {
            report(lba + at / kSectorBytes, part);
        }
        if (!r && (out || r.error().code == Errc::kTimedOut)) {
            out = std::move(r);
        }
        at += bytes;
    }
    co_return out;
}

Task<Result<void>> Volume::write(Lba lba, Slice from, WriteOptions options) {
    return write_verified(lba, from, options, false);
}

Task<Result<void>> Volume::repair_write(Lba lba, Slice from) {
    return write_verified(lba, from, {}, true);
}

Task<Result<void>> Volume::write_verified(Lba lba, Slice from, WriteOptions options, bool repair) {
    CO_TRY_VOID(from.verify());
    const Use use(*this);
    CO_TRY_VOID(admit(use.map(), lba, from.sectors()));
    std::size_t at = 0;
    while (at < from.size()) {
        const VolumeExtent run = locate(use.map(), lba + at / kSectorBytes);
        const std::size_t bytes = std::min<std::size_t>(from.size() - at, bytes_of(run.sectors));
        const Slice part = bytes == from.size() ? from : from.sub(at, bytes);
        if (repair) {
            CO_TRY_VOID(co_await array_.repair(run.lba, part));
        } else {
            CO_TRY_VOID(co_await array_.write(run.lba, part, options));
        }
        at += bytes;
    }
    co_return Result<void>{};
}

Task<Result<void>> Volume::flush() {
    const Use use(*this);
    CO_TRY_VOID(admit(use.map(), Lba(0), SectorCount(0)));
    co_return co_await array_.flush();
}

/// VO3. How much of `left` sectors from `lba` of the array on is one piece of a discard.
std::uint64_t Volume::discard_piece(Lba lba, std::uint64_t left, std::uint64_t most) const {
    const std::uint64_t unit = discard_unit();
    const std::uint64_t cut = unit <= most ? round_down(most, unit) : unit;
    const std::uint64_t end =
        std::min(lba.value - lba.value % cut + cut, round_down(lba.value + most, kSectorsPerBlock));
    const std::uint64_t here = std::min(left, end - lba.value);
    if (lba.value % kSectorsPerBlock != 0) {
        return std::min(here, kSectorsPerBlock - lba.value % kSectorsPerBlock);
    }
    return here < kSectorsPerBlock ? here : round_down(here, kSectorsPerBlock);
}

Task<Result<void>> Volume::discard(Lba lba, SectorCount count) {
    const Use use(*this);
    CO_TRY_VOID(admit(use.map(), lba, count));
    const std::uint64_t transfer = limits().max_transfer_bytes / kSectorBytes;
    const std::uint64_t most = std::min(std::max(discard_unit(), kDiscardBytes / kSectorBytes), transfer);
    CO_TRY(const Buffer zeros, co_await array_.allocate(std::min(most, count.value) * kSectorBytes));
    std::ranges::fill(zeros.memory(), std::byte{0});
    std::ranges::fill(zeros.infos(), BlockInfo{});
    MemberFan fan;
    for (std::uint64_t done = 0; done < count.value;) {
        for (std::size_t slot = 0; slot < kDiscardsAtOnce && done < count.value; ++slot) {
            const VolumeExtent run = locate(use.map(), lba + done);
            const std::uint64_t left = std::min(count.value - done, run.sectors.value);
            const std::uint64_t sectors = discard_piece(run.lba, left, most);
            const Slice part = zeros.slice(sectors * kSectorBytes, run.lba);
            fan.start(slot, array_.write(run.lba, part, {.give_back = true}));
            done += sectors;
        }
        co_await fan.all();
        if (fan.failed()) {
            co_return std::unexpected(fan.first_error());
        }
        fan.reset();
    }
    co_return Result<void>{};
}

}  // namespace gemel::raid::detail
