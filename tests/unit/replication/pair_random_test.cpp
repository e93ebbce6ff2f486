// SPDX-License-Identifier: Apache-2.0
// Random histories of a pair: overlapping writes while the link is cut, damaged and silenced and the nodes are killed
// or lose power. Afterwards the copies are equal and nothing acknowledged is lost.
#include <gtest/gtest.h>

#include "tests/unit/replication/pair_world.hpp"

namespace gemel::replication {
namespace {

constexpr std::uint64_t kBlocks = 64;

/// What each block may hold: the last acknowledged value, or a later one whose outcome is not known.
class History {
  public:
    /// `fua`: every write is durable on both legs before it returns; needed where both nodes may lose power.
    History(PairWorld& world, std::uint64_t seed, bool fua) : world_(world), random_(seed), fua_(fua) {}

    void start_write(PairWorld::Side& side) {
        const std::uint64_t block = random_.below(kBlocks);
        const std::uint64_t count = 1 + random_.below(std::min<std::uint64_t>(4, kBlocks - block));
        value_ = value_ % 250 + 1;
        ++outstanding_;
        world_.scheduler.start(side.home, write(side, block, count, static_cast<unsigned char>(value_), ++serial_));
    }
    [[nodiscard]] std::size_t outstanding() const { return outstanding_; }
    [[nodiscard]] Duration longest() const { return longest_; }
    [[nodiscard]] std::size_t acknowledged() const { return acknowledged_; }
    [[nodiscard]] bool allowed(std::uint64_t block, unsigned value) const { return may_[block].contains(value); }

  private:
    static std::uint64_t place(std::uint64_t block) { return block * 96; }  // over several regions and tracks

    Task<void> write(PairWorld::Side& side, std::uint64_t block, std::uint64_t count, unsigned char value,
                     std::uint64_t serial) {
        std::vector<std::uint64_t> order;
        for (std::uint64_t b = block; b < block + count; ++b) {
            may_[b].insert(value);
            in_flight_[b].insert(serial);
        }
        const TimePoint began = world_.scheduler.now();
        bool ok = true;
        for (std::uint64_t b = block; b < block + count; ++b) {
            std::set<std::uint64_t> others = in_flight_[b];
            const std::set<unsigned> before = may_[b];
            const Result<void> done = co_await world_.write_task(side, place(b), 1, value, fua_);
            ok = done.has_value();
            // Alone on the block from start to end: only this value is left.
            if (ok && others.size() == 1 && in_flight_[b] == others && may_[b] == before) {
                may_[b] = {value};
                ++acknowledged_;
            }
            in_flight_[b].erase(serial);
            if (!ok) {
                for (std::uint64_t rest = b + 1; rest < block + count; ++rest) {
                    in_flight_[rest].erase(serial);
                }
                break;
            }
        }
        longest_ = std::max(longest_, world_.scheduler.now() - began);
        --outstanding_;
    }

    PairWorld& world_;
    sim::SeededRandom random_;
    bool fua_;
    std::array<std::set<unsigned>, kBlocks> may_ = [] {
        std::array<std::set<unsigned>, kBlocks> all;
        for (auto& block : all) {
            block.insert(0);
        }
        return all;
    }();
    std::array<std::set<std::uint64_t>, kBlocks> in_flight_;
    std::size_t outstanding_ = 0;
    std::size_t acknowledged_ = 0;
    std::uint64_t serial_ = 0;
    unsigned value_ = 0;
    Duration longest_{};

  public:
    [[nodiscard]] static std::uint64_t sector(std::uint64_t block) { return place(block); }
};

void random_fault(PairWorld& w, sim::SeededRandom& random, std::uint64_t kinds) {
    PairWorld::Side& side = random.below(2) == 0 ? w.alpha : w.beta;
    const std::string other = &side == &w.alpha ? "beta" : "alpha";
    switch (random.below(kinds)) {
        case 0:
            w.network.reset_connections("alpha", "beta");
            break;
        case 1:
            w.network.cut_after(side.name, other, random.below(40'000));
            break;
        case 2:
            w.network.corrupt_after(side.name, other, random.below(40'000));
            break;
        case 3:
            w.network.block(side.name, other);
            break;
        case 4:
            w.network.heal_all();
            break;
        case 5:
            w.kill(side);
            w.run_for(Duration(random.below(3'000'000'000)));
            w.restart(side);
            break;
        case 6:
            (void)w.scheduler.run(side.home, side.node->promote("vol", false));
            break;
        case 7:
            w.kill(side, /*power=*/true);
            w.run_for(Duration(random.below(3'000'000'000)));
            w.restart(side);
            break;
        default:
            break;
    }
}

class RandomPair : public testing::TestWithParam<std::uint64_t> {};

TEST_P(RandomPair, LosesNothingAcknowledgedAndEndsEqual) {
    std::size_t acknowledged = 0;
    for (std::uint64_t seed = GetParam() * 20; seed < GetParam() * 20 + 20; ++seed) {
        SCOPED_TRACE(seed);
        PairWorld w(seed);
        w.defaults.flush_interval = 200ms;
        w.defaults.retry_interval = 1s;
        w.pair_up();
        sim::SeededRandom random(seed * 77 + 5);
        const bool power = seed % 2 == 0;
        History history(w, seed, power);
        for (int step = 0; step < 60; ++step) {
            PairWorld::Side& primary = w.status(w.alpha).serving ? w.alpha : w.beta;
            for (std::uint64_t i = random.below(8); i > 0; --i) {
                history.start_write(primary);
            }
            w.run_for(Duration(random.below(random.one_in(8) ? 2'000'000'000 : 3'000'000)));
            if (random.one_in(5)) {
                random_fault(w, random, power ? 8 : 7);
            }
        }
        w.network.heal_all();
        ASSERT_TRUE(w.until([&] { return history.outstanding() == 0; }));
        ASSERT_TRUE(w.until([&] { return w.mirrored(); }))
            << pair_state_name(w.status(w.alpha).state) << " " << w.status(w.alpha).reason << " / "
            << pair_state_name(w.status(w.beta).state) << " " << w.status(w.beta).reason;
        EXPECT_LE(history.longest(), 4 * 10s);
        acknowledged += history.acknowledged();
        ASSERT_TRUE(w.equal());
        const auto image = w.alpha.disk.snapshot();
        for (std::uint64_t b = 0; b < kBlocks; ++b) {
            const auto value = std::to_integer<unsigned>(image[History::sector(b) * 512]);
            ASSERT_TRUE(history.allowed(b, value)) << "block " << b << " holds " << value;
        }
    }
    EXPECT_GT(acknowledged, 500U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPair, testing::Range<std::uint64_t>(0, 5));

}  // namespace
}  // namespace gemel::replication
