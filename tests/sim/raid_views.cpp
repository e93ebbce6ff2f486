// SPDX-License-Identifier: Apache-2.0
// RaidWorld, RW4: what an array shows without members that its level can do without.
#include <bit>
#include <cstring>

#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

void RaidWorld::check_views(const std::vector<std::vector<std::byte>>& images) {
    doubt_exposed();
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (i > 1 && !random_.one_in(3)) {
            continue;
        }
        // As many as the level tolerates, from this one on in some order.
        const std::size_t stride = 1 + random_.below(disks_.size());
        std::uint32_t removed = 0;
        for (std::size_t j = 0; j < disks_.size(); ++j) {
            const std::uint32_t with = removed | 1U << (i + j * stride) % disks_.size();
            removed = tolerates(with) ? with : removed;
        }
        check_view(removed, images);
    }
}

void RaidWorld::check_view(std::uint32_t removed, const std::vector<std::vector<std::byte>>& images) {
    std::vector<std::unique_ptr<SimDisk>> copies;
    raid::ArrayConfig c = base_;
    std::string what = "view without member";
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        SimDiskOptions o{.name = "copy" + std::to_string(i), .sectors = disks_[i]->limits().sectors};
        o.tail_one_in = 0;
        o.alignment_sectors = alignment_;
        copies.push_back(std::make_unique<SimDisk>(scheduler_, random_.next(), o));
        copies.back()->load(*disks_[i]);
        c.members[i] = {(removed >> i & 1U) != 0 ? nullptr : copies.back().get(), o.name};
        what += c.members[i].device == nullptr ? " " + std::to_string(i) : "";
    }
    auto view = scheduler_.run(home(), raid::Array::open(environment_.get(), c));
    if (!view) {
        chronicle_.violation(what + " does not open: " + view.error().message);
        return;
    }
    compare_view(**view, what, images);
    const Result<void> ignored = scheduler_.run(home(), (*view)->stop());
    chronicle_.reached("views compared");
    if (std::popcount(removed) > 1 && row_->parities() > 1) {
        chronicle_.reached("views without two members compared");
    }
}

void RaidWorld::compare_view(raid::Array& view, const std::string& what,
                             const std::vector<std::vector<std::byte>>& images) {
    constexpr std::size_t kStep = 256 * kKiB;
    for (std::size_t i = 0; i < volumes_.size(); ++i) {
        BlockDevice& device = *view.find(volumes_[i].name);
        for (std::size_t at = 0; at < images[i].size(); at += kStep) {
            const std::size_t n = std::min(kStep, images[i].size() - at);
            const Buffer buffer = *environment_.pool().allocate(n);
            const Slice slice = buffer.slice(n, Lba(at / kSectorBytes));
            const Result<void> read = scheduler_.run(home(), device.read(Lba(at / kSectorBytes), slice));
            if (!read && read.error().code != Errc::kMediumError) {
                chronicle_.violation(what + ": " + read.error().message);
                return;
            }
            for (std::size_t b = 0; b < slice.blocks().size(); ++b) {
                const Lba lba((at + b * kBlockBytes) / kSectorBytes);
                const auto image = std::span(images[i]).subspan(at + b * kBlockBytes, slice.block_data(b).size());
                const bool unknown = slice.blocks()[b].status == BlockStatus::kUnreadable;
                if (unknown ? !unreadable_expected(volumes_[i].name, lba)
                            : std::memcmp(slice.block_data(b).data(), image.data(), image.size()) != 0) {
                    chronicle_.violation(what + (unknown ? " cannot read" : " differs at") + " sector " +
                                         std::to_string(lba.value) + " of " + volumes_[i].name);
                    return;
                }
            }
        }
    }
}

}  // namespace gemel::sim
