// SPDX-License-Identifier: Apache-2.0
// Media: the durable content of a simulated disk. Copies are cheap: they share every block until one of them changes
// it.
// Threads: the simulator's one.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/units.hpp"

namespace gemel::sim {

class Media {
  public:
    explicit Media(SectorCount sectors) { resize(sectors); }

    [[nodiscard]] SectorCount sectors() const { return sectors_; }
    /// Sectors that are added hold zeros.
    void resize(SectorCount sectors) {
        sectors_ = sectors;
        blocks_.resize((sectors.value + kSectorsPerBlock - 1) / kSectorsPerBlock);
    }
    [[nodiscard]] ConstBytes sector(std::uint64_t number) const {
        static constexpr std::array<std::byte, kSectorBytes> kZeros{};
        const auto& block = blocks_[number / kSectorsPerBlock];
        return block ? ConstBytes(*block).subspan(number % kSectorsPerBlock * kSectorBytes, kSectorBytes) : kZeros;
    }
    void set_sector(std::uint64_t number, ConstBytes data) {
        auto& block = blocks_[number / kSectorsPerBlock];
        if (block.use_count() != 1) {
            block = block ? std::make_shared<Block>(*block) : std::make_shared<Block>();
        }
        std::memcpy(block->data() + number % kSectorsPerBlock * kSectorBytes, data.data(), kSectorBytes);
    }
    /// Whole, in one piece.
    [[nodiscard]] std::vector<std::byte> bytes() const {
        std::vector<std::byte> out(sectors_.value * kSectorBytes);
        for (std::size_t i = 0; i < blocks_.size(); ++i) {
            if (blocks_[i]) {
                const std::size_t n = std::min<std::size_t>(kBlockBytes, out.size() - i * kBlockBytes);
                std::memcpy(out.data() + i * kBlockBytes, blocks_[i]->data(), n);
            }
        }
        return out;
    }

  private:
    using Block = std::array<std::byte, kBlockBytes>;

    SectorCount sectors_;
    std::vector<std::shared_ptr<Block>> blocks_;  ///< none: zeros
};

}  // namespace gemel::sim
