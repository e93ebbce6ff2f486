// SPDX-License-Identifier: Apache-2.0
// Power cuts at every point of small workloads: after every submission, completion and flush of a member, with every
// choice of what the unflushed sectors keep (a sample where there are too many), with all members and without each
// tolerated one, and again at every point of the recovery.
//
// What must hold after each: a sector reads as a value that it may have (allowed()); unreadable only where a member is
// missing and the stripe had been written; with all members the redundancy is right once the recovery has ended. An
// array that lacked a member before the workload began loses nothing: it starts without force, nothing is unreadable.
// With the policy `ppl` only what was written is unreadable, and only where another strip of its columns was, too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "raid/array.hpp"
#include "raid/level_table.hpp"
#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kDiskSectors = 776;  ///< the configuration area and some sixteen stripes
constexpr std::size_t kStripBytes = 4096;
constexpr std::size_t kMostChoices = 256;
constexpr std::size_t kMostChoicesDegraded = 8;  ///< or a few more
constexpr Duration kPatience = std::chrono::seconds(60);

using Content = std::vector<std::byte>;

struct Step {
    enum class Kind : std::uint8_t { kWrite, kDiscard, kWait, kFlush, kGrow };
    Kind kind = Kind::kWrite;
    std::uint64_t lba = 0;
    std::uint64_t sectors = 0;
    bool fua = false;
};
constexpr Step kWait{Step::Kind::kWait};
constexpr Step kFlush{Step::Kind::kFlush};
constexpr Step kGrow{Step::Kind::kGrow};

/// `steps`: writes and a growth start at once and run side by side; kWait and kFlush wait for those before.
struct Scenario {
    std::string name;
    std::string level;
    std::size_t members;
    std::vector<Step> steps;
    std::uint32_t missing = 0;   ///< members that failed before, as bits
    std::uint64_t extended = 0;  ///< sectors that each disk is extended by before the steps
    raid::RecoveryPolicy policy = raid::RecoveryPolicy::kJournal;

    [[nodiscard]] bool partial() const { return policy == raid::RecoveryPolicy::kPartial; }
};

void PrintTo(const Scenario& s, std::ostream* out) {
    *out << s.name;
}

/// What stamp `stamp` wrote to a sector; stamp 0 was there before the workload.
Content content_of(std::uint64_t sector, unsigned stamp) {
    Content out(kSectorBytes);
    std::uint64_t word = (sector + 1) * 0x9e3779b97f4a7c15ULL + stamp * 0xd1b54a32d192ed03ULL;
    for (std::size_t at = 0; at < out.size(); at += sizeof word) {
        word = word * 6364136223846793005ULL + 1442695040888963407ULL;
        const std::uint64_t mixed = word ^ word >> 29U;  // the low bits of `word` alone repeat early
        std::memcpy(out.data() + at, &mixed, sizeof mixed);
    }
    return out;
}

/// What the host of the workload knows.
class Ledger {
  public:
    /// Returns the stamp of the write.
    unsigned begin(const Step& step) {
        const bool zeros = step.kind == Step::Kind::kDiscard;
        writes_.push_back({.first = step.lba, .end = step.lba + step.sectors, .began = ++clock_, .zeros = zeros});
        return static_cast<unsigned>(writes_.size());
    }
    void end(unsigned stamp, bool durable) {
        writes_[stamp - 1].ended = ++clock_;
        writes_[stamp - 1].settled = durable;
    }
    /// A flush that began after `mark` of its caller has ended well: what had ended by then is settled.
    [[nodiscard]] std::uint64_t mark() const { return clock_; }
    void flushed(std::uint64_t mark) {
        for (Write& w : writes_) {
            w.settled = w.settled || (w.ended != 0 && w.ended <= mark);
        }
    }
    [[nodiscard]] bool allowed(std::uint64_t sector, ConstBytes content) const {
        for (unsigned stamp = 0; stamp <= writes_.size(); ++stamp) {
            if (may_read(sector, stamp) && std::ranges::equal(content, this->content(sector, stamp))) {
                return true;
            }
        }
        return false;
    }
    /// Some write has touched sectors [first, end).
    [[nodiscard]] bool written(std::uint64_t first, std::uint64_t end) const {
        return std::ranges::any_of(writes_, [&](const Write& w) { return w.first < end && first < w.end; });
    }
    /// The array has grown to so much, durably.
    void grown(SectorCount sectors) { array_sectors_ = sectors; }
    [[nodiscard]] SectorCount array_sectors() const { return array_sectors_; }

  private:
    struct Write {
        std::uint64_t first;
        std::uint64_t end;
        std::uint64_t began;
        std::uint64_t ended = 0;
        bool settled = false;
        bool zeros = false;
    };
    [[nodiscard]] Content content(std::uint64_t sector, unsigned stamp) const {
        return stamp > 0 && writes_[stamp - 1].zeros ? Content(kSectorBytes) : content_of(sector, stamp);
    }
    /// Nothing that is settled began after it had ended.
    [[nodiscard]] bool may_read(std::uint64_t sector, unsigned stamp) const {
        if (stamp > 0 && !covers(writes_[stamp - 1], sector)) {
            return false;
        }
        const std::uint64_t ended = stamp == 0 ? 0 : writes_[stamp - 1].ended;
        if (stamp > 0 && ended == 0) {
            return true;  // in flight
        }
        return std::ranges::none_of(writes_,
                                    [&](const Write& w) { return w.settled && covers(w, sector) && w.began > ended; });
    }
    static bool covers(const Write& w, std::uint64_t sector) { return sector >= w.first && sector < w.end; }

    std::vector<Write> writes_;
    std::uint64_t clock_ = 0;
    SectorCount array_sectors_;
};

/// One life of the node: disks with a given content, and the array on them.
class World {
  public:
    World(const Scenario& scenario, const std::vector<Media>& media, std::uint32_t missing = 0)
        : network_(scheduler_, 1), environment_(scheduler_, network_, "node", ++lives), home_(executor(scheduler_)) {
        config_.name = "array";
        config_.level = scenario.level;
        config_.policy = scenario.policy;
        config_.strip_bytes = kStripBytes;
        config_.volumes = {{"v", 0}};
        config_.shards = {&home_};
        config_.former_sizes = {SectorCount(kDiskSectors)};
        for (std::size_t i = 0; i < scenario.members; ++i) {
            SimDiskOptions o{.name = "disk" + std::to_string(i)};
            o.sectors = media.empty() ? SectorCount(kDiskSectors) : media[i].sectors();
            disks_.push_back(std::make_unique<SimDisk>(scheduler_, i + 1, o));
            if (!media.empty()) {
                disks_[i]->load(media[i]);
            }
            const bool here = ((missing | scenario.missing) >> i & 1U) == 0;
            config_.members.push_back({here ? disks_[i].get() : nullptr, o.name});
        }
        config_.create = media.empty() ? raid::ArrayConfig::Create::kIfBlank : raid::ArrayConfig::Create::kNo;
    }
    /// Whatever runs ends, without an effect.
    ~World() {
        for (const auto& disk : disks_) {
            disk->kill_process();
        }
        if (opening_) {
            CHECK(scheduler_.run_until([this] { return opened_.has_value(); }, kPatience));
            keep();
        }
        if (array_) {
            const Result<void> stopped = scheduler_.run(home_, array_->stop());
            static_cast<void>(stopped);
        }
        CHECK(scheduler_.run_until([this] { return running_ == 0; }, kPatience));
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    void start_open() {
        opening_ = true;
        scheduler_.start(home_, open(raid::Array::open(environment_.get(), config_), opened_));
    }
    /// True when the start has ended; array() and error() then say how.
    bool is_open() {
        if (opening_ && opened_) {
            keep();
        }
        return !opening_;
    }
    [[nodiscard]] raid::Array* array() const { return array_.get(); }
    [[nodiscard]] const std::optional<Error>& error() const { return error_; }
    void open_now() {
        start_open();
        CHECK(scheduler_.run_until([this] { return is_open(); }, kPatience));
    }
    [[nodiscard]] bool settle() {
        return scheduler_.run_until([this] { return !array_->status().resyncing; }, kPatience);
    }
    [[nodiscard]] std::uint64_t sectors() { return array_->find("v")->limits().sectors.value; }

    /// Runs the workload; `ledger` hears of everything. Background work of this world until it ends.
    void start(const std::vector<Step>& steps, Ledger& ledger) {
        ++running_;
        scheduler_.start(home_, work(steps, &ledger));
    }
    [[nodiscard]] bool working() const { return running_ > 0; }
    /// Overwrites the whole volume with stamp 0, durably.
    void fill() {
        const Buffer buffer = *environment_.pool().allocate(sectors() * kSectorBytes);
        const Slice slice = buffer.slice(sectors() * kSectorBytes, Lba(0));
        for (std::uint64_t i = 0; i < sectors(); ++i) {
            std::ranges::copy(content_of(i, 0), slice.data().subspan(i * kSectorBytes).begin());
        }
        slice.clear_infos();
        CHECK(scheduler_.run(home_, array_->find("v")->write(Lba(0), slice, {})));
    }
    /// The whole volume, and which blocks could not be read.
    struct Reading {
        Content content;
        std::vector<bool> unreadable;  ///< by block
    };
    Reading read_all() {
        const Buffer buffer = *environment_.pool().allocate(sectors() * kSectorBytes);
        const Slice slice = buffer.slice(sectors() * kSectorBytes, Lba(0));
        slice.clear_infos();
        const Result<void> got = scheduler_.run(home_, array_->find("v")->read(Lba(0), slice, {}));
        static_cast<void>(got);
        Reading out{{slice.data().begin(), slice.data().end()}, {}};
        for (const BlockInfo& info : slice.blocks()) {
            out.unreadable.push_back(info.status == BlockStatus::kUnreadable);
        }
        return out;
    }
    Result<void> grow() { return scheduler_.run(home_, array_->grow()); }
    void stop() {
        CHECK(scheduler_.run(home_, array_->stop()));
        array_.reset();
    }
    [[nodiscard]] std::vector<Media> durable() const {
        std::vector<Media> out;
        for (const auto& disk : disks_) {
            out.push_back(disk->media());
        }
        return out;
    }
    [[nodiscard]] const std::vector<std::unique_ptr<SimDisk>>& disks() const { return disks_; }
    /// Changes whenever a member sees a submission or a completion that a power cut could tell apart.
    [[nodiscard]] std::uint64_t signature() const {
        std::uint64_t sum = 0;
        for (const auto& disk : disks_) {
            sum = sum * 0x100000001b3ULL + disk->counters().writes;
            sum = sum * 0x100000001b3ULL + disk->in_flight();
            sum = sum * 0x100000001b3ULL + disk->unflushed_sectors();
        }
        return sum;
    }

    SimScheduler& scheduler() { return scheduler_; }

  private:
    static inline std::uint64_t lives = 0;
    static SimExecutor& executor(SimScheduler& s) { return s.add_executor("home"); }
    static Task<void> open(Task<Result<std::unique_ptr<raid::Array>>> task,
                           std::optional<Result<std::unique_ptr<raid::Array>>>& out) {
        out.emplace(co_await std::move(task));
    }
    Task<void> work(std::vector<Step> steps, Ledger* ledger) {
        for (const Step& step : steps) {
            if (step.kind == Step::Kind::kWrite || step.kind == Step::Kind::kDiscard) {
                ++running_;
                scheduler_.start(home_, step.kind == Step::Kind::kWrite ? write(step, ledger) : discard(step, ledger));
                continue;
            }
            if (step.kind == Step::Kind::kGrow) {
                ++running_;
                scheduler_.start(home_, grow_beside(ledger));
                continue;
            }
            while (running_ > 1) {
                co_await sleep_for(scheduler_, std::chrono::microseconds(10));
            }
            if (step.kind == Step::Kind::kFlush) {
                const std::uint64_t mark = ledger->mark();
                if (co_await array_->find("v")->flush()) {
                    ledger->flushed(mark);
                }
            }
        }
        --running_;
    }
    Task<void> grow_beside(Ledger* ledger) {
        if (co_await array_->grow()) {
            ledger->grown(array_->status().sectors);
        }
        --running_;
    }
    Task<void> write(Step step, Ledger* ledger) {
        const unsigned stamp = ledger->begin(step);
        const Buffer buffer = *environment_.pool().allocate(step.sectors * kSectorBytes);
        const Slice slice = buffer.slice(step.sectors * kSectorBytes, Lba(step.lba));
        for (std::uint64_t i = 0; i < step.sectors; ++i) {
            std::ranges::copy(content_of(step.lba + i, stamp), slice.data().subspan(i * kSectorBytes).begin());
        }
        slice.clear_infos();
        if (co_await array_->find("v")->write(Lba(step.lba), slice, {.fua = step.fua})) {
            ledger->end(stamp, step.fua);
        }
        --running_;
    }
    Task<void> discard(Step step, Ledger* ledger) {
        const unsigned stamp = ledger->begin(step);
        if (co_await array_->find("v")->discard(Lba(step.lba), SectorCount(step.sectors))) {
            ledger->end(stamp, /*durable=*/false);
        }
        --running_;
    }
    void keep() {
        opening_ = false;
        if (*opened_) {
            array_ = **std::move(opened_);
        } else {
            error_ = opened_->error();
        }
    }
    SimScheduler scheduler_{1};
    SimNetwork network_;
    SimEnvironment environment_;
    SimExecutor& home_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    raid::ArrayConfig config_;
    bool opening_ = false;
    std::optional<Result<std::unique_ptr<raid::Array>>> opened_;
    std::unique_ptr<raid::Array> array_;
    std::optional<Error> error_;
    int running_ = 0;
};

/// All that a power cut now may leave, one after the other; a sample if there are too many.
class Choices {
  public:
    explicit Choices(const World& world) : media_(world.durable()) {
        for (std::size_t i = 0; i < world.disks().size(); ++i) {
            for (UncertainSector& u : world.disks()[i]->uncertain()) {
                all_ = all_ > kMostChoices ? all_ : all_ * u.contents.size();
                sectors_.push_back({i, std::move(u)});
            }
        }
    }
    [[nodiscard]] std::size_t size() const { return std::min(all_, kMostChoices); }
    [[nodiscard]] bool every() const { return all_ <= kMostChoices; }
    /// Number 0: nothing unflushed was kept; size() - 1: the newest of everything.
    [[nodiscard]] std::vector<Media> media(std::size_t number) const {
        std::vector<Media> out = media_;
        SeededRandom random(number);
        std::size_t left = number;
        for (const auto& [disk, u] : sectors_) {
            const std::size_t n = u.contents.size();
            std::size_t take = 0;
            if (every()) {
                take = left % n;
                left /= n;
            } else {
                take = number == 0 ? 0 : number == kMostChoices - 1 ? n - 1 : random.below(n);
            }
            if (take > 0) {  // the first is what it holds
                out[disk].set_sector(u.sector, u.contents[take]);
            }
        }
        return out;
    }

  private:
    std::vector<Media> media_;
    std::vector<std::pair<std::size_t, UncertainSector>> sectors_;
    std::size_t all_ = 1;
};

class CrashPoints : public testing::TestWithParam<Scenario> {
  protected:
    struct Counts {
        std::uint64_t points = 0;
        std::uint64_t recoveries = 0;
        std::uint64_t refused = 0;  ///< degraded starts that asked for force
        std::uint64_t unreadable = 0;
        std::uint64_t replayed = 0;  ///< starts that did writes again
    };

    [[nodiscard]] const Scenario& scenario() const { return GetParam(); }
    [[nodiscard]] const raid::LevelRow& level() const { return *raid::find_level(scenario().level); }

    std::vector<Media> fresh() {
        Scenario whole = scenario();
        whole.missing = 0;
        World world(whole, {});
        world.open_now();
        CHECK(world.array() != nullptr && world.settle());
        world.fill();
        world.stop();
        return scenario().missing == 0 ? world.durable() : degraded(world.durable());
    }
    /// The array has seen that the members are gone.
    std::vector<Media> degraded(const std::vector<Media>& media) {
        World world(scenario(), media);
        world.open_now();
        CHECK(world.array() != nullptr);
        world.fill();
        world.stop();
        return world.durable();
    }

    /// The places that a crash may take with it: none, then each that the level tolerates.
    [[nodiscard]] std::vector<std::uint32_t> losses() const {
        std::vector<std::uint32_t> out{0};
        const auto members = static_cast<std::uint32_t>(scenario().members);
        for (std::uint32_t m = 0; level().redundant && m < members; ++m) {
            const std::uint32_t all = scenario().missing | 1U << m;
            if (all != scenario().missing && level().tolerates(all, members)) {
                out.push_back(1U << m);
            }
        }
        return out;
    }

    /// The block at this sector, after a crash that took a member.
    [[nodiscard]] bool may_be_unreadable(std::uint64_t first, const Ledger& ledger) const {
        const std::uint64_t row = first / stripe_sectors_ * stripe_sectors_;
        if (!scenario().partial()) {
            return ledger.written(row, row + stripe_sectors_);
        }
        const std::uint64_t end = first + kSectorsPerBlock;  // a strip
        return ledger.written(first, end) && (ledger.written(row, first) || ledger.written(end, row + stripe_sectors_));
    }

    void check_reading(const World::Reading& reading, const Ledger& ledger, std::uint32_t missing) {
        for (std::size_t b = 0; b < reading.unreadable.size(); ++b) {
            const std::uint64_t first = b * kSectorsPerBlock;
            if (reading.unreadable[b]) {
                ++counts_.unreadable;
                const bool known = missing == 0 || scenario().missing != 0;
                ASSERT_TRUE(!known && may_be_unreadable(first, ledger))
                    << "block " << b << " is unreadable without a reason";
                continue;
            }
            for (std::uint64_t s = first; s < first + kSectorsPerBlock; ++s) {
                ASSERT_TRUE(ledger.allowed(s, ConstBytes(reading.content).subspan(s * kSectorBytes, kSectorBytes)))
                    << "sector " << s << " reads as something that it must not";
            }
        }
    }

    /// One start after a power cut that left `media`.
    void recover(const std::vector<Media>& media, const Ledger& ledger, std::uint32_t missing) {
        ++counts_.recoveries;
        World world(scenario(), media, missing);
        world.open_now();
        if (world.array() == nullptr) {
            ASSERT_TRUE(missing != 0 && scenario().missing == 0 && world.error()->code == Errc::kNeedsForce)
                << world.error()->message;
            ++counts_.refused;
            return;
        }
        const World::Reading first = world.read_all();
        ASSERT_NO_FATAL_FAILURE(check_reading(first, ledger, missing));
        ASSERT_TRUE(world.settle()) << "the resync does not end";
        ASSERT_GE(world.array()->status().sectors, ledger.array_sectors()) << "a growth that had ended is gone";
        if (missing == 0 && scenario().extended > 0) {
            const Result<void> grown = world.grow();
            ASSERT_TRUE(grown || grown.error().code == Errc::kNoSpace) << grown.error().message;  // it had grown before
            ASSERT_TRUE(world.settle()) << "the resync after the growth does not end";
        }
        const World::Reading second = world.read_all();
        ASSERT_TRUE(first.unreadable == second.unreadable && first.content == second.content)
            << "a second read differs from the first";
        counts_.replayed += world.array()->status().journal.replayed_records > 0 ? 1 : 0;
        world.stop();
        if (missing == 0 && scenario().missing == 0) {
            ASSERT_NO_FATAL_FAILURE(check_redundancy(world.durable()));
        }
    }

    /// Without any one member the array reads the same.
    void check_redundancy(const std::vector<Media>& media) {
        std::optional<Content> whole;
        for (const std::uint32_t missing : losses()) {
            World world(scenario(), media, missing);
            world.open_now();
            ASSERT_NE(world.array(), nullptr) << world.error()->message;
            World::Reading reading = world.read_all();
            ASSERT_EQ(std::ranges::count(reading.unreadable, true), 0) << "without members " << missing;
            if (!whole) {
                whole = std::move(reading.content);
            }
            ASSERT_TRUE(missing == 0 || reading.content == *whole) << "other bytes without members " << missing;
        }
    }

    void recover_all(const World& world, const Ledger& ledger, std::size_t most) {
        const Choices choices(world);
        const std::size_t count = std::min(choices.size(), most);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t number = count == 1 ? 0 : i * (choices.size() - 1) / (count - 1);
            const std::vector<Media> media = choices.media(number);
            for (const std::uint32_t missing : losses()) {
                if (missing == 0 || i % (1 + count / kMostChoicesDegraded) == 0) {
                    ASSERT_NO_FATAL_FAILURE(recover(media, ledger, missing))
                        << "choice " << number << ", without members " << missing;
                }
            }
        }
    }

    /// The recovery from `media`, cut at its points.
    void cut_recovery(const std::vector<Media>& media, const Ledger& ledger, std::uint64_t stride,
                      std::uint32_t missing = 0) {
        World world(scenario(), media, missing);
        world.start_open();
        std::uint64_t before = world.signature();
        std::uint64_t point = 0;
        const auto ended = [&] { return world.is_open() && !world.array()->status().resyncing; };
        while (!ended()) {
            CHECK(world.scheduler().step());
            if (world.signature() != before && ++point % stride == 0) {
                const Choices choices(world);
                for (const std::size_t n : {std::size_t{0}, choices.size() - 1}) {
                    ASSERT_NO_FATAL_FAILURE(recover(choices.media(n), ledger, missing))
                        << "point " << point << " of a recovery without members " << missing;
                }
            }
            before = world.signature();
        }
    }

    [[nodiscard]] static bool whole(World& world) {
        return world.is_open() && world.array()->status().state == raid::ArrayState::kOptimal &&
               !world.array()->status().rebuild && !world.array()->status().resyncing;
    }

    /// A start of all members, one of which came back, after a power cut that left `media`.
    void finish_return(const std::vector<Media>& media, const Ledger& ledger) {
        ++counts_.recoveries;
        World world(scenario(), media);
        world.open_now();
        ASSERT_NE(world.array(), nullptr) << world.error()->message;
        ASSERT_NO_FATAL_FAILURE(check_reading(world.read_all(), ledger, 0));
        ASSERT_TRUE(world.scheduler().run_until([&] { return whole(world); }, kPatience)) << "it does not come back";
        ASSERT_NO_FATAL_FAILURE(check_reading(world.read_all(), ledger, 0));
        world.stop();
        ASSERT_NO_FATAL_FAILURE(check_redundancy(world.durable()));
    }

    Counts counts_;
    std::uint64_t stripe_sectors_ = 0;
};

class ReturnPoints : public CrashPoints {};

/// Of a member that was away during the workload.
TEST_P(ReturnPoints, leave_what_was_written) {
    Ledger ledger;
    World away(scenario(), fresh(), 1U << 1U);
    away.open_now();
    std::vector<Step> steps = scenario().steps;
    steps.push_back(kFlush);
    away.start(steps, ledger);
    ASSERT_TRUE(away.scheduler().run_until([&] { return !away.working(); }, kPatience));
    away.stop();
    World back(scenario(), away.durable());
    back.start_open();
    std::uint64_t before = back.signature();
    while (!whole(back)) {
        CHECK(back.scheduler().step());
        if (back.signature() == before) {
            continue;
        }
        before = back.signature();
        if (++counts_.points % (std::getenv("GEMEL_LONG") != nullptr ? 1 : 3) != 0) {
            continue;
        }
        const Choices choices(back);
        for (const std::size_t n : {std::size_t{0}, choices.size() / 2, choices.size() - 1}) {
            ASSERT_NO_FATAL_FAILURE(finish_return(choices.media(n), ledger))
                << "point " << counts_.points << ", choice " << n;
        }
    }
    EXPECT_GE(counts_.points, 20U);
}

TEST_P(CrashPoints, leave_what_was_promised) {
    const bool long_run = std::getenv("GEMEL_LONG") != nullptr;
    stripe_sectors_ =
        raid::Geometry{level().layout, static_cast<std::uint32_t>(scenario().members), kStripBytes / kSectorBytes, 0}
            .row_sectors();
    std::vector<Media> base = fresh();
    for (Media& disk : base) {
        const std::uint64_t end = disk.sectors().value;
        disk.resize(SectorCount(end + scenario().extended));
        for (std::uint64_t s = end; s < disk.sectors().value; ++s) {
            disk.set_sector(s, Content(kSectorBytes, std::byte{0xa5}));
        }
    }
    Ledger ledger;
    if (scenario().extended > 0) {  // the superblocks move at the start
        ASSERT_NO_FATAL_FAILURE(cut_recovery(base, ledger, 1));
    }
    World world(scenario(), base);
    world.open_now();
    ASSERT_NE(world.array(), nullptr);
    world.start(scenario().steps, ledger);
    std::uint64_t before = world.signature();
    while (world.working()) {
        CHECK(world.scheduler().step());
        if (world.signature() == before) {
            continue;
        }
        before = world.signature();
        ++counts_.points;
        ASSERT_NO_FATAL_FAILURE(recover_all(world, ledger, long_run ? kMostChoices : kMostChoices / 4))
            << "at point " << counts_.points;
        if (long_run || counts_.points % 4 == 1) {
            const Choices choices(world);
            for (const std::size_t n : {std::size_t{0}, choices.size() - 1}) {
                ASSERT_NO_FATAL_FAILURE(cut_recovery(choices.media(n), ledger, long_run ? 1 : 7))
                    << "at point " << counts_.points << ", choice " << n;
                const bool without = scenario().partial() && (long_run || counts_.points % 8 == 1);
                for (std::uint32_t m = 0; without && m < scenario().members; ++m) {
                    ASSERT_NO_FATAL_FAILURE(cut_recovery(choices.media(n), ledger, long_run ? 1 : 11, 1U << m))
                        << "at point " << counts_.points << ", choice " << n;
                }
            }
        }
    }
    std::printf("%s: %llu points, %llu recoveries, %llu asked for force, %llu blocks unreadable, %llu replayed\n",
                scenario().name.c_str(), static_cast<unsigned long long>(counts_.points),
                static_cast<unsigned long long>(counts_.recoveries), static_cast<unsigned long long>(counts_.refused),
                static_cast<unsigned long long>(counts_.unreadable), static_cast<unsigned long long>(counts_.replayed));
    EXPECT_GE(counts_.points, 3U);
    EXPECT_TRUE(scenario().missing == 0 || counts_.replayed > 0);
}

constexpr Step write_at(std::uint64_t lba, std::uint64_t sectors, bool fua = false) {
    return {Step::Kind::kWrite, lba, sectors, fua};
}

constexpr Step discard_at(std::uint64_t lba, std::uint64_t sectors) {
    return {Step::Kind::kDiscard, lba, sectors};
}
constexpr raid::RecoveryPolicy kPpl = raid::RecoveryPolicy::kPartial;

const std::vector<Scenario> kScenarios{
    {"single_one_write", "single", 1, {write_at(3, 2), kWait, kFlush}},
    {"raid0_two_strips", "0", 2, {write_at(6, 4), kWait, kFlush}},
    {"single_overlapping", "single", 1, {write_at(8, 3), write_at(9, 20), kWait, write_at(3, 2)}},
    {"raid0_in_turn", "0", 3, {write_at(5, 9), kWait, write_at(6, 2, true), kWait, kFlush}},
    {"linear_grows", "linear", 2, {kGrow, write_at(130, 12), kWait, kFlush}, 0, 160},
    {"raid1_one_sector", "1", 2, {write_at(9, 1), kWait, kFlush}},
    {"raid1_overlapping", "1", 3, {write_at(8, 3), write_at(9, 4), kWait}},
    {"raid5_one_sector", "5", 3, {write_at(9, 1)}},
    {"raid5_one_block_flushed", "5", 3, {write_at(16, 8), kWait, kFlush}},
    {"raid5_fua", "5", 4, {write_at(24, 2, true)}},
    {"raid5_full_stripe", "5", 3, {write_at(16, 16)}},
    {"raid5_same_stripe_twice", "5", 3, {write_at(16, 2), write_at(26, 2), kWait, kFlush}},
    {"raid5_overlapping", "5", 4, {write_at(0, 4), write_at(2, 4), kWait}},
    {"raid5_two_stripes_in_turn", "5", 3, {write_at(0, 2), kWait, write_at(40, 2, true)}},
    {"raid5_across_stripes", "5", 3, {write_at(14, 4), kWait, kFlush}},
    {"raid6_one_sector", "6", 4, {write_at(9, 1)}},
    {"raid6_full_stripe", "6", 4, {write_at(16, 16)}},
    {"raid6_across_stripes", "6", 5, {write_at(22, 4), kWait, kFlush}},
    {"raid0_grows", "0", 2, {kGrow, write_at(6, 4), kWait, kFlush}, 0, 160},
    {"raid1_grows", "1", 2, {kGrow, write_at(9, 1)}, 0, 160},
    {"raid5_grows", "5", 3, {write_at(9, 1), kGrow}, 0, 160},
    {"raid5_degraded_one_sector", "5", 3, {write_at(9, 1)}, 1U << 1U},
    {"raid5_degraded_full_stripe", "5", 3, {write_at(16, 16)}, 1U << 0U},
    {"raid5_degraded_same_stripe_twice", "5", 4, {write_at(24, 2), write_at(34, 12), kWait, kFlush}, 1U << 2U},
    {"raid5_degraded_overlapping", "5", 4, {write_at(0, 12), write_at(2, 4), kWait}, 1U << 3U},
    {"raid5_degraded_in_turn", "5", 3, {write_at(0, 2), kWait, write_at(4, 12, true), kWait, kFlush}, 1U << 0U},
    {"raid5_degraded_across_stripes", "5", 3, {write_at(14, 4), kWait, kFlush}, 1U << 2U},
    {"raid6_degraded_one_sector", "6", 4, {write_at(9, 1)}, 1U << 1U},
    {"raid6_degraded_across_stripes", "6", 5, {write_at(22, 4), kWait, kFlush}, 1U << 0U},
    {"raid6_without_two_in_turn", "6", 5, {write_at(2, 4), kWait, write_at(0, 9)}, 5U},
    {"raid1_discard", "1", 2, {discard_at(8, 8), kWait, kFlush}},
    {"raid5_discard_whole_stripe", "5", 3, {discard_at(16, 16), kWait, kFlush}},
    {"raid5_degraded_discard", "5", 3, {discard_at(16, 16), write_at(18, 2)}, 1U << 0U},
    {"raid5_ppl_one_sector", "5", 3, {write_at(9, 1)}, 0, 0, kPpl},
    {"raid5_ppl_full_stripe", "5", 3, {write_at(16, 16)}, 0, 0, kPpl},
    {"raid5_ppl_strips_in_turn", "5", 4, {write_at(24, 8), kWait, write_at(32, 8), kWait, kFlush}, 0, 0, kPpl},
    {"raid5_ppl_same_strip_again", "5", 3, {write_at(16, 8), kWait, write_at(18, 2, true)}, 0, 0, kPpl},
    {"raid10_two_pairs", "10", 4, {write_at(6, 4), kWait, kFlush}},
};

/// In which nobody but the member that is away is missing.
std::vector<Scenario> return_scenarios() {
    std::vector<Scenario> out;
    std::ranges::copy_if(kScenarios, std::back_inserter(out),
                         [](const Scenario& s) { return raid::find_level(s.level)->redundant && s.missing == 0; });
    return out;
}

INSTANTIATE_TEST_SUITE_P(All, CrashPoints, testing::ValuesIn(kScenarios),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(All, ReturnPoints, testing::ValuesIn(return_scenarios()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace gemel::sim
