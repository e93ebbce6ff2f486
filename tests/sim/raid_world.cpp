// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/raid_world.hpp"

namespace gemel::sim {

using namespace std::chrono_literals;
using raid::ArrayState;
using raid::MemberState;

namespace {

constexpr std::uint64_t kReservedSectors = 600;  ///< at least what the configuration area of a small member takes
constexpr std::uint64_t kLeastWrites = 100;
constexpr std::uint64_t kLeastFaults = 10;
constexpr std::uint64_t kMostRounds = 400;
/// Virtual time within which anything healthy has ended, also a queue of logged writes on a slow disk.
constexpr Duration kPatience = 180s;
/// Chosen so that no history of seeds.txt is one with ambushes: they stay what they were.
constexpr std::uint64_t kAmbushSalt = 0x414D425553480035ULL;
/// The same of an operator who sees rebuilds through.
constexpr std::uint64_t kPatienceSalt = 0x504154494500181DULL;
constexpr std::uint64_t kWanderSalt = 0x57414E44455200D7ULL;  ///< of members that go away
constexpr std::uint64_t kCopySalt = 0x434F504945530001ULL;    ///< of older copies
constexpr std::uint64_t kRelapseSalt =
    0x52454C41505352D9ULL;  ///< as of members that go away, right after a rebuild, and of stops
constexpr std::uint64_t kPartialSalt = 0x50415254494C072FULL;  ///< of partial parity
constexpr std::uint64_t kPlainSalt = 0x504C41494E00D007ULL;    ///< of redundancy without checksums

}  // namespace

RaidWorld::RaidWorld(const HistoryOptions& options)
    : scheduler_(options.seed),
      random_(options.seed ^ 0x5241494421ULL),
      silent_(options.seed ^ 0x53494c454e54ULL),
      operator_(options.seed ^ 0x4f50455241ULL),
      policies_(options.seed ^ 0x5245444f21ULL),
      patience_(options.seed ^ kPatienceSalt),
      scrubber_(options.seed ^ 0x53435343daULL),
      replacer_(options.seed ^ 0x5245504c41ULL),
      cacher_(options.seed ^ 0x4341434845ULL),
      grower_(options.seed ^ 0x47524f575345ULL),
      ambusher_(options.seed ^ kAmbushSalt),
      wanderer_(options.seed ^ kWanderSalt),
      relapser_(options.seed ^ kRelapseSalt),
      single_(options.seed ^ 0x53494e474c45ULL),
      partials_(options.seed ^ kPartialSalt),
      copier_(options.seed ^ kCopySalt),
      plain_(options.seed ^ kPlainSalt),
      chronicle_(scheduler_, options),
      network_(scheduler_, options.seed),
      environment_(scheduler_, network_, "node", options.seed + 1) {
    environment_.events().listener = [this](const EventRecord& e) {
        note_event(e);
        heed(e);
    };
}

RaidWorld::~RaidWorld() = default;

HistoryResult run_raid_history(const HistoryOptions& options) {
    return RaidWorld(options).run();
}

// ---- what this history is made of

void RaidWorld::choose() {
    struct Shape {
        std::string_view level;
        std::uint64_t least;
        std::uint64_t most;
    };
    constexpr std::array shapes{Shape{"0", 1, 4},  Shape{"1", 2, 3}, Shape{"5", 3, 6},      Shape{"5", 3, 5},
                                Shape{"5", 4, 5},  Shape{"1", 2, 2}, Shape{"linear", 1, 4}, Shape{"single", 1, 1},
                                Shape{"10", 4, 8}, Shape{"6", 4, 7}, Shape{"6", 4, 6}};
    const Shape& shape = shapes[random_.below(shapes.size())];
    row_ = raid::find_level(shape.level);
    const std::uint64_t members = shape.least + random_.below((shape.most - shape.least) / row_->step + 1) * row_->step;
    base_.name = "array";
    base_.level = std::string(shape.level);
    base_.strip_bytes = 4096U << random_.below(4);
    base_.create = raid::ArrayConfig::Create::kIfBlank;
    base_.policy = random_.one_in(4) ? raid::RecoveryPolicy::kResync : some_journal();
    base_.journal_stripes = random_.one_in(4) ? 0 : 64 + static_cast<std::uint32_t>(random_.below(32));
    base_.member_timeout = std::chrono::milliseconds(1000 + random_.below(2000));  // beyond what a slow disk takes
    const std::size_t shards = random_.one_in(2) ? 1 : 4;
    for (std::size_t i = 0; i < shards; ++i) {
        executors_.push_back(&scheduler_.add_executor("shard" + std::to_string(i)));
        base_.shards.push_back(executors_.back());
    }
    const std::array<std::uint64_t, 4> caches{0, shards * 128 * kKiB, raid::kDefaultStripeCache,
                                              raid::kDefaultStripeCache};
    base_.stripe_cache_bytes = chronicle_.without("stripe-cache") ? 0 : caches[cacher_.below(caches.size())];
    const std::uint64_t data = (128 + random_.below(512)) * kSectorsPerBlock / 4;
    choose_disks(members, data);
    const raid::Geometry g{row_->layout, static_cast<std::uint32_t>(members), base_.strip_bytes / kSectorBytes, data};
    stripe_sectors_ = g.row_sectors();
    const std::uint64_t usable = data * kSectorBytes * g.data_members();
    base_.volumes.push_back({"v0", random_.one_in(3) && usable > 512 * kKiB ? 128 * kKiB : 0});
    if (base_.volumes[0].bytes != 0) {
        base_.volumes.push_back({"v1", 0});
        chronicle_.reached("two volumes");
    }
    chronicle_.reached("level " + base_.level);
    chronicle_.reached(std::to_string(shards) + (shards == 1 ? " shard" : " shards"));
    choose_faults();
}

void RaidWorld::choose_disks(std::uint64_t members, std::uint64_t data_sectors) {
    const bool cache = !random_.one_in(6);
    alignment_ = random_.one_in(4) ? kSectorsPerBlock : 1;
    for (std::uint64_t i = 0; i < members; ++i) {
        SimDiskOptions o{.name = "disk" + std::to_string(i), .sectors = SectorCount(kReservedSectors + data_sectors)};
        if (row_->layout == raid::Layout::kLinear) {
            o.sectors += random_.below(512);
        }
        o.sectors = SectorCount(round_up(o.sectors.value, alignment_));
        o.alignment_sectors = alignment_;
        o.volatile_cache = cache;
        o.gives_back = alignment_ == 1;
        first_sizes_.push_back(o.sectors.value);
        disks_.push_back(std::make_unique<SimDisk>(scheduler_, random_.next(), o));
        base_.members.push_back({disks_.back().get(), o.name});
    }
    lost_.assign(members, false);
    named_.assign(members, nullptr);
    away_.assign(members, false);
    faulted_.assign(members, false);
    if (alignment_ > 1) {
        chronicle_.reached("4Kn members");
    }
}

/// Classes of faults are switched off at random, so that frequent ones do not hide rare ones.
void RaidWorld::choose_faults() {
    power_cuts_ = !random_.one_in(4);
    kills_ = !random_.one_in(4);
    member_faults_ = random_.one_in(2);
    media_faults_ = random_.one_in(2);
    slowness_ = random_.one_in(2) || !(power_cuts_ || kills_);
    beyond_ = random_.one_in(6);
    replaces_ = replacer_.one_in(2);
    choose_liar();
    choose_single_checksums();
    choose_plain();
    grows_ = grower_.one_in(3) && !liar_ && !rots_;  // in columns that are not resynced yet lies are believed
    ambushes_ = ambusher_.one_in(4) && (power_cuts_ || kills_);
    member_faults_ = member_faults_ || (ambushes_ && ambusher_.one_in(2));
    wanders_ = wanderer_.one_in(4) && row_->redundant && !liar_;
    relapses_ = relapser_.one_in(6) && row_->redundant && !liar_;
    busy_stops_ = relapser_.one_in(6);
    patient_ = patient_ || relapses_;
    member_faults_ = member_faults_ || relapses_;
    copies_ = copier_.one_in(3) && row_->redundant && !liar_;
    const std::array<std::pair<std::string_view, bool*>, 12> classes{{{"power-cuts", &power_cuts_},
                                                                      {"older-copies", &copies_},
                                                                      {"kills", &kills_},
                                                                      {"member-faults", &member_faults_},
                                                                      {"media-faults", &media_faults_},
                                                                      {"slowness", &slowness_},
                                                                      {"beyond", &beyond_},
                                                                      {"growth", &grows_},
                                                                      {"ambushes", &ambushes_},
                                                                      {"wandering", &wanders_},
                                                                      {"relapses", &relapses_},
                                                                      {"busy-stops", &busy_stops_}}};
    for (const auto& [name, on] : classes) {
        *on = *on && !chronicle_.without(name);
    }
    chronicle_.say("level " + base_.level + ", " + std::to_string(disks_.size()) + " members, strip " +
                   std::to_string(base_.strip_bytes) + ", " + std::to_string(executors_.size()) + " shards, policy " +
                   std::string(raid::recovery_policy_name(base_.policy)));
}

void RaidWorld::create() {
    grown_to_ = least_size();
    if (!open_once(false)) {
        return;
    }
    note_sizes();
    for (const VolumeInfo& info : array_->volumes()) {
        Volume v{.name = info.name};
        v.oracle = std::make_unique<Oracle>(100U + info.number, info.sectors, kLegA);
        SimHostOptions o{.name = info.name};
        o.depth = std::array<std::uint32_t, 4>{1, 4, 8, 32}[random_.below(4)];
        o.max_sectors =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(info.sectors.value / 2, 8 + random_.below(192)));
        o.hot_sectors = static_cast<std::uint32_t>(16 + random_.below(512));
        o.fua_percent = random_.one_in(3) ? 0 : 10;
        o.flush_percent = random_.one_in(4) ? 1 : 6;
        v.host =
            std::make_unique<SimHost>(scheduler_, random_.next(), environment_.pool(), *v.oracle, *this, chronicle_, o);
        volumes_.push_back(std::move(v));
    }
    aim_hosts();
}

void RaidWorld::aim_hosts() {
    for (Volume& v : volumes_) {
        v.host->aim(*array_->find(v.name), executors_);
    }
}

raid::ArrayConfig RaidWorld::config(bool force) const {
    raid::ArrayConfig c = base_;
    c.force = force;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        c.members[i] = {disks_[i].get(), disks_[i]->name()};
        if (named_[i] != nullptr) {
            c.members[i] = {named_[i], named_[i]->name()};
            c.spares.push_back({disks_[i].get(), disks_[i]->name()});
        } else if (lost_[i] && disks_[i]->dead()) {
            c.members[i].device = nullptr;
        }
    }
    if (target_) {
        c.spares.push_back({target_.get(), target_->name()});
    }
    return c;
}

// ---- starting

bool RaidWorld::open_once(bool force) {
    auto opened = scheduler_.run(home(), raid::Array::open(environment_.get(), config(force)));
    base_.create = raid::ArrayConfig::Create::kNo;
    if (!opened) {
        const std::uint32_t all = (1U << disks_.size()) - 1;
        const bool may_know_more = tolerates(all & ~lost_set());
        const bool may_want_force = unclean_ && any_lost() && (may_know_more || !(journal_ && row_->parities() > 0));
        if (opened.error().code == Errc::kNeedsForce && may_want_force && !force) {
            chronicle_.reached("degraded crash needs force");
            forget_stripes_at_risk(false);
            return open_once(true);
        }
        chronicle_.violation("open failed: " + std::string(errc_name(opened.error().code)) + ": " +
                             opened.error().message);
        return false;
    }
    array_ = std::move(*opened);
    note_replace();
    const raid::ArrayStatus status = array_->status();
    for (std::size_t i = 0; i < status.members.size(); ++i) {
        if (status.members[i].state == MemberState::kStale) {
            chronicle_.reached("stale member refused");
        }
        const bool in_sync = status.members[i].state == MemberState::kInSync;
        if (!in_sync && !lost_[i] && !lies(i) && !faulted_[i]) {
            chronicle_.violation("member " + std::to_string(i) + " is not in sync after open, for no reason");
        }
        lost_[i] = !in_sync;
        away_[i] = !in_sync;
        faulted_[i] = false;
    }
    told_by_p_ = status.resyncing && (told_by_p_ || force);
    if (status.resyncing) {
        chronicle_.reached("resync after unclean stop");
    }
    resumed_ = unclean_ && status.rebuild && status.rebuild->kind == raid::JobKind::kRebuild;
    check_scrub_goes_on(status);
    if (journal_ && unclean_ && any_lost() && row_->parities() > 0) {
        chronicle_.reached("degraded crash with journal");
    }
    note_replay();
    journal_ = status.journal.policy != raid::RecoveryPolicy::kResync;
    chronicle_.reached("policy " + std::string(raid::recovery_policy_name(status.journal.policy)));
    return true;
}

bool RaidWorld::open() {
    errors_expected_ = false;
    ambush_.reset();
    relapse_.reset();
    if (random_.one_in(12)) {
        base_.policy = random_.one_in(2) ? raid::RecoveryPolicy::kResync : some_journal();
    }
    switch_checksums();
    if (unclean_ && random_.one_in(4) && (power_cuts_ || kills_)) {
        crash_while_opening(false);
    }
    if (grows_ && grower_.one_in(5)) {
        extend_disks();
        chronicle_.reached("disks extended while the array was not open");
    }
    if (!open_once(false)) {
        return false;
    }
    note_sizes();
    if (grows_) {
        note_volume_sizes();
    }
    aim_hosts();
    return true;
}

void RaidWorld::revive_disks() {
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        // A lost member comes back now and then, with what it held.
        if (!lost_[i] || random_.one_in(4) || operator_.one_in(2)) {
            disks_[i]->revive();
        }
    }
    if (target_) {  // it may have been given the place at the end: then its loss were a member's
        target_->revive();
    }
}

// ---- what the hosts may see

bool RaidWorld::error_expected(const Error& error, Extent /*where*/) {
    // Blocks that cannot be known may keep their stripe from being written in part when another member is lost or bad
    // there; without the journal's level 5 has spare for that only once a bad member was replaced.
    const bool doubtful = std::ranges::any_of(volumes_, [](const Volume& v) { return !v.doubtful.empty(); });
    const bool bad_stripe = met_damage_ && (row_->parities() > 1 || (row_->parities() > 0 && exposed_damage_));
    const bool possible = (doubtful && row_->parities() > 0) || bad_stripe;
    const bool rotten = rots_ && std::ranges::any_of(volumes_, [](const Volume& v) { return !v.bad.empty(); });
    const bool stuck = (possible || rotten) && error.code == Errc::kMediumError;
    return errors_expected_ || crashing_ || stuck || (stopping_ && error.code == Errc::kClosed);
}

void RaidWorld::waited(Duration d) {
    if (d > 30s) {
        chronicle_.violation("a host waited " + std::to_string(d.count() / 1'000'000) + " ms");
    }
}

bool RaidWorld::without_two() const {
    return std::ranges::count_if(array_->status().members,
                                 [](const raid::MemberStatus& m) { return m.state != MemberState::kInSync; }) > 1;
}

std::uint32_t RaidWorld::lost_set() const {
    std::uint32_t set = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        set |= lost_[i] ? 1U << i : 0;
    }
    return set;
}

/// With latent errors, too.
std::uint32_t RaidWorld::bad_set() const {
    std::uint32_t set = lost_set();
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        set |= disks_[i]->damaged_sectors() > 0 ? 1U << i : 0;
    }
    return set;
}

bool RaidWorld::tolerates(std::uint32_t set) const {
    return row_->tolerates(set, static_cast<std::uint32_t>(disks_.size()));
}

/// The level makes good what happens to `victim` now.
bool RaidWorld::spares(std::size_t victim) const {
    return row_->redundant && !resyncing() && !growing_ && array_ && array_->status().state <= ArrayState::kDegraded &&
           !lost_[victim] && tolerates(bad_set() | 1U << victim);
}

std::size_t RaidWorld::damaged() const {
    std::size_t n = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        n += lost_[i] ? 0 : disks_[i]->damaged_sectors();
    }
    return n;
}

// ---- one round: work, disturbed; then a stop of some kind

void RaidWorld::round() {
    rot_single_copies();
    const bool ambushed = !work();
    if (grows_ && !growing_ && !errors_expected_ && !any_lost() && grower_.one_in(3)) {
        start_growth();
    }
    note_journal(/*crashing=*/false);
    note_lies();
    const std::uint64_t end = random_.below(10);
    if (ambushed) {
        end_ambushed();
    } else if (end < 4 && power_cuts_) {
        crash(Crash::kPower);
    } else if (end < 7 && kills_) {
        crash(Crash::kKill);
    } else if (end < 9) {
        stop_cleanly();
    } else {
        wait_hosts(kPatience);
        return;
    }
    if (chronicle_.result.violations.empty()) {  // else the array may not have stopped
        open();
    }
}

/// False when it was cut short by an ambush.
bool RaidWorld::work() {
    for (Volume& v : volumes_) {
        v.host->set_depth(random_.one_in(3) ? 32 : static_cast<std::uint32_t>(1 + random_.below(16)));
        v.host->add_work(static_cast<std::uint32_t>(20 + random_.below(60)));
    }
    const std::uint64_t faults = random_.below(4);
    for (std::uint64_t i = 0; i < faults; ++i) {
        if (!pass(Duration(random_.below(6'000'000)))) {
            return false;
        }
        if (chronicle_.next_fault()) {
            one_fault();
        }
        if (ambushes_ && member_faults_ && ambusher_.one_in(3) && chronicle_.next_fault()) {
            lose_a_member();
        }
        operate();
    }
    operate();
    const bool two_missing = without_two();
    const std::uint64_t writes_before = writes();
    const std::uint64_t reads_before = chronicle_.result.reads;
    if (!pass(Duration(random_.below(8'000'000)))) {
        return false;
    }
    if (two_missing && writes() > writes_before && chronicle_.result.reads > reads_before) {
        chronicle_.reached("reads and writes without two members of level " + base_.level);
    }
    if (random_.one_in(6) && !chronicle_.without("rests")) {
        rest();
        for (Volume& v : volumes_) {
            v.host->add_work(static_cast<std::uint32_t>(random_.below(20)));
        }
        return pass(Duration(random_.below(4'000'000)));
    }
    return true;
}

void RaidWorld::one_fault() {
    note_replace();
    const std::uint64_t which = random_.below(8);
    if (slowness_ && which < 2) {
        SimDisk& disk = *disks_[random_.below(disks_.size())];
        chronicle_.fault(disk.name() + " slow or stalled");
        random_.one_in(2) ? disk.set_slowness(static_cast<std::uint32_t>(1 + random_.below(20)))
                          : disk.stall(Duration(random_.below(40'000'000)));
    } else if (media_faults_ && which < 5) {
        damage_a_member();
    } else if (member_faults_ && which < 7) {
        lose_a_member();
    } else if (beyond_ && random_.one_in(2)) {
        fault_without_redundancy();
    }
}

/// Latent errors on no more members at a time than redundancy makes good.
void RaidWorld::damage_a_member() {
    std::size_t victim = random_.below(disks_.size());
    for (std::size_t i = 0; i < disks_.size() && !spares(victim); ++i) {
        victim = disks_[i]->damaged_sectors() > 0 ? i : victim;
    }
    if (!spares(victim)) {
        return;
    }
    doubt_exposed();
    SimDisk& disk = *disks_[victim];
    if (random_.one_in(4)) {
        chronicle_.fault(disk.name() + " fails a read");
        disk.fail_next_reads(1);
        return;
    }
    const auto g = grew_ ? geometry() : std::nullopt;
    const std::uint64_t data =
        g ? g->data_of(static_cast<std::uint32_t>(victim)) : first_sizes_[victim] - kReservedSectors;
    const Lba at(random_.below(data));
    const std::uint64_t most = g ? g->strip_sectors - at.value % g->strip_sectors : data - at.value;
    const SectorCount n(std::min<std::uint64_t>(1 + random_.below(24), most));
    const Lba lba = g ? g->device_lba(static_cast<std::uint32_t>(victim), at) : at;
    chronicle_.fault(disk.name() + " latent error at " + std::to_string(lba.value) + "+" + std::to_string(n.value));
    disk.damage(lba, n);
    chronicle_.reached("latent error");
}

/// A member dies, or refuses one write or flush, where the level tolerates it.
void RaidWorld::lose_a_member() {
    const std::size_t victim = random_.below(disks_.size());
    if (!spares(victim)) {
        return;
    }
    doubt_exposed();
    SimDisk& disk = *disks_[victim];
    if (rebuilding()) {
        chronicle_.reached("second failure in a rebuild");
    }
    switch (random_.below(6)) {
        case 4:
        case 5:
            silence(disk);
            break;
        case 0:
            chronicle_.fault(disk.name() + " fails a write");
            disk.fail_next_writes(1);
            break;
        case 1:
            chronicle_.fault(disk.name() + " fails a flush");
            disk.fail_next_flushes(1);
            break;
        case 2:
            chronicle_.fault(disk.name() + " is full");
            disk.set_full(true);
            break;
        default:
            chronicle_.fault(disk.name() + " dies");
            disk.die();
            break;
    }
    lost_[victim] = true;
    chronicle_.reached("member lost");
    if (target_ && victim == target_place_) {
        chronicle_.reached("old member failed in a replace");
    }
    if (std::ranges::count(lost_, true) > 1) {
        chronicle_.reached("two members of level " + base_.level + " lost");
    }
}

/// More than the level hides: hosts see errors, never wrong data.
void RaidWorld::fault_without_redundancy() {
    if (resyncing() || row_->parities() > 0) {
        return;
    }
    // Of two failures at the same time the array may see the later one first, and go on without that member.
    const raid::ArrayStatus status = array_->status();
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (lost_[i] && status.members[i].state == MemberState::kInSync) {
            return;
        }
    }
    std::size_t victim = random_.below(disks_.size());
    while (lost_[victim]) {
        victim = (victim + 1) % disks_.size();
    }
    if (tolerates(lost_set() | 1U << victim)) {
        return;
    }
    errors_expected_ = true;
    SimDisk& disk = *disks_[victim];
    chronicle_.fault(disk.name() + " fails a write that cannot be spared");
    const std::uint64_t which = random_.below(3);
    which == 0 ? disk.fail_next_writes(1) : which == 1 ? disk.fail_next_reads(1) : disk.hang(2 * base_.member_timeout);
    scheduler_.run_for(which == 2 ? 2 * base_.member_timeout : Duration(20ms));
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        out |= array_->status().members[i].state == MemberState::kInSync ? 0 : 1U << i;
    }
    lost_[victim] = (out >> victim & 1U) != 0 && tolerates(out);  // a rebuild has ended meanwhile: it was spared
    if (array_->status().state == ArrayState::kReadOnly) {
        chronicle_.reached("array read-only");
        if (which == 2) {
            chronicle_.reached("last copy silent");
        }
    }
}

// ---- stopping

void RaidWorld::stop_array() {
    const Result<void> stopped = scheduler_.run(home(), array_->stop());
    end_growth();
    chronicle_.say(stopped ? "array stopped" : "array stopped: " + stopped.error().message);
    array_.reset();
    take_complaints();
}

void RaidWorld::lose_in_crash() {
    const std::size_t victim = random_.below(disks_.size());
    const bool ppl = base_.policy == raid::RecoveryPolicy::kPartial;  // for such crashes
    if ((member_faults_ || ppl) && spares(victim) && damaged() == 0 &&
        (ppl ? !partials_.one_in(3) : random_.one_in(3))) {
        lost_[victim] = true;
        doubt_exposed();
        chronicle_.fault("a member is lost in the crash");
        chronicle_.reached("member lost in a crash");
    }
}

void RaidWorld::crash(Crash how) {
    const bool power = how == Crash::kPower;
    chronicle_.fault(power ? "power cut" : "kill -9");
    if (resyncing()) {
        chronicle_.reached("resync interrupted");
    }
    if (rebuilding()) {
        chronicle_.reached(replacing() ? "replace interrupted by a crash" : "rebuild interrupted");
    }
    note_members();
    note_journal(/*crashing=*/true);
    lose_in_crash();
    const Copy* const older = choose_copy(/*clean=*/false);
    if (any_lost()) {
        chronicle_.reached("degraded crash");
        if (without_two()) {
            chronicle_.reached("crash without two members of level " + base_.level);
        }
        doubt_for_crash(power);
    }
    note_bad_sectors();
    const bool settled = !any_lost() && damaged() == 0;
    crashing_ = true;
    const CachePolicy policy = static_cast<CachePolicy>(random_.below(4));
    for (const auto& disk : disks_) {
        power ? disk->power_cut(policy) : disk->kill_process();
    }
    if (target_) {
        power ? target_->power_cut(policy) : target_->kill_process();
    }
    for (Volume& v : volumes_) {
        v.host->crash();
        v.oracle->crash();
        if (power) {
            v.oracle->power_loss(kLegA, settled);
        }
        v.oracle->serve_from(kLegA);
    }
    stop_array();
    if (!scheduler_.run_until(
            [&] { return std::ranges::all_of(volumes_, [](const Volume& v) { return v.host->drained(); }); },
            kPatience)) {
        chronicle_.violation("commands of a crashed array never end");
    }
    if (power) {
        environment_.power_lost();
    }
    end_silence();
    revive_disks();
    put_back(older);
    unclean_ = true;
    crashing_ = false;
}

/// Commands under way end as ever; hosts are told of the stop by the next one.
void RaidWorld::stop_cleanly() {
    stopping_ = busy_stops_ && relapser_.one_in(2);
    for (Volume& v : volumes_) {
        if (stopping_) {
            v.host->pause();
        }
    }
    if (!stopping_ && !wait_hosts(kPatience)) {
        return;
    }
    if (!std::ranges::all_of(volumes_, [](const Volume& v) { return v.host->drained(); })) {
        chronicle_.reached("stop with commands under way");
    }
    for (const auto& disk : disks_) {
        disk->fail_next_reads(0);
    }
    const Result<void> stopped = scheduler_.run(home(), array_->stop());
    end_growth();
    if (!wait_hosts(kPatience)) {
        return;
    }
    stopping_ = false;
    unclean_ = !stopped.has_value();
    note_members();  // one that is in sync by now is not left out of the next start: a resync may still need it
    if (!stopped && !errors_expected_) {
        chronicle_.violation("a clean stop failed: " + stopped.error().message);
    }
    const raid::ArrayStatus status = array_->status();
    for (std::size_t i = 0; stopped && i < disks_.size(); ++i) {
        if (status.members[i].state == MemberState::kInSync && disks_[i]->unflushed_sectors() > 0) {
            chronicle_.violation(disks_[i]->name() + " holds unflushed data after a clean stop");
        }
    }
    for (std::size_t i = 0; stopped && i < volumes_.size(); ++i) {
        volumes_[i].oracle->end_flush(volumes_[i].oracle->begin_flush(), kLegA);
    }
    const Copy* const older = stopped ? choose_copy(/*clean=*/true) : nullptr;
    array_.reset();
    take_complaints();
    chronicle_.reached("clean restart");
    if (stopped) {
        nothing_listed();
    }
    end_silence();
    for (const auto& disk : disks_) {
        if (stopped && power_cuts_) {
            disk->power_cut(CachePolicy::kDropAll);
        }
    }
    if (target_ && stopped && power_cuts_) {
        target_->power_cut(CachePolicy::kDropAll);
    }
    revive_disks();
    put_back(older);
}

bool RaidWorld::wait_hosts(Duration limit) {
    const auto idle = [&] { return std::ranges::all_of(volumes_, [](const Volume& v) { return v.host->drained(); }); };
    if (!scheduler_.run_until(idle, limit)) {
        chronicle_.violation("hosts' commands do not end");
        return false;
    }
    return true;
}

void RaidWorld::take_complaints() {
    for (const auto& disk : disks_) {
        for (const std::string& complaint : disk->complaints()) {
            chronicle_.violation(complaint);
        }
    }
}

// ---- the end: everything heals, everything is read

void RaidWorld::finish() {
    ambushes_ = false;
    relapses_ = false;
    copies_ = false;
    end_growth();
    grows_ = false;
    for (const auto& disk : disks_) {
        disk->set_slowness(1);
        disk->fail_next_reads(0);
    }
    if (errors_expected_) {
        crash(Crash::kKill);
        if (!open()) {
            return;
        }
    }
    if (!wait_hosts(kPatience)) {
        return;
    }
    if (!rebuild_all()) {
        return;
    }
    if (!resync_and_scrub_all()) {
        return;
    }
    rot_single_copies();
    std::vector<std::vector<std::byte>> images(volumes_.size());
    for (std::size_t i = 0; i < volumes_.size(); ++i) {
        scheduler_.run(home(), volumes_[i].host->verify(&images[i]));
    }
    note_lies();
    const bool redundancy = row_->redundant && !any_lost() && !liar_;
    stop_cleanly();
    if (chronicle_.result.violations.empty() && redundancy && damaged() == 0) {
        check_views(images);
    }
}

HistoryResult RaidWorld::run() {
    choose();
    create();
    begin_lying();
    const std::uint64_t rounds = 3 + random_.below(4);
    for (std::uint64_t i = 0; i < kMostRounds && array_ && chronicle_.result.violations.empty(); ++i) {
        if (i >= rounds && writes() >= kLeastWrites && chronicle_.result.faults >= kLeastFaults) {
            break;
        }
        if (!chronicle_.next_round()) {
            break;
        }
        wanders_&& wanderer_.one_in(2) ? wander() : round();
    }
    if (array_ && chronicle_.result.violations.empty()) {
        finish();
    }
    if (array_) {
        for (Volume& v : volumes_) {
            v.host->crash();
        }
        crashing_ = true;
        stop_array();
        wait_hosts(kPatience);
    }
    end_silence();
    chronicle_.result.writes = writes();
    for (const Volume& v : volumes_) {
        chronicle_.result.sectors_checked += v.oracle->sectors_checked();
    }
    if (environment_.pool().outstanding_bytes() != 0) {
        chronicle_.violation("buffers are still out at the end");
    }
    chronicle_.result.trace = scheduler_.trace();
    chronicle_.result.steps = scheduler_.steps();
    return chronicle_.result;
}

}  // namespace gemel::sim
