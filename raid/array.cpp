// SPDX-License-Identifier: Apache-2.0
#include "raid/array.hpp"

#include <algorithm>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/checksums.hpp"
#include "raid/durable_log.hpp"
#include "raid/redo_log.hpp"
#include "raid/scrub.hpp"
#include "raid/volume.hpp"
#include "raid/volume_table.hpp"

namespace gemel::raid {

std::string_view array_state_name(ArrayState state) {
    constexpr std::array<std::string_view, 4> names{"optimal", "degraded", "read-only", "failed"};
    return names[static_cast<std::size_t>(state)];
}

std::string_view member_state_name(MemberState state) {
    constexpr std::array<std::string_view, 5> names{"in-sync", "failed", "missing", "stale", "rebuilding"};
    return names[static_cast<std::size_t>(state)];
}

namespace detail {

namespace {
constexpr Duration kDrainPoll = std::chrono::milliseconds(1);
}

ArrayBody::ArrayBody(Environment& environment, const ArrayConfig& config, const Superblock& winner,
                     MemberWatch& watching)
    : env(environment),
      level(*find_level(winner.level)),
      tracks(level.redundant || (config.checksums && has_map_room(winner))),
      name(winner.array_name),
      home(*config.shards.front()),
      watch(watching),
      rebuild_job(environment.clock, JobKind::kRebuild),
      wanted_checksums_(config.checksums),
      checksum_cache_(config.checksum_cache_bytes),
      wanted_policy_(!tracks                 ? RecoveryPolicy::kResync
                     : level.parities() == 0 ? recorded_policy(config.policy)
                                             : config.policy),
      journal_stripes_(config.journal_stripes) {
    geometry = geometry_of(winner);
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        members[m].device = std::make_unique<MemberDevice>(*this, m);
        members[m].device->put(config.members[m].device);
        member_names_[m] = config.members[m].name;
    }
    spares_ = config.spares;
    former_sizes_ = config.former_sizes;
    for (std::uint32_t i = 0; i < config.shards.size(); ++i) {
        auto shard = std::make_unique<Shard>();
        shard->executor = config.shards[i];
        shard->index = i;
        shard->shards = static_cast<std::uint32_t>(config.shards.size());
        shard->group_columns = geometry.group_columns();
        const std::uint64_t cached = level.parities() == 0 ? 0 : config.stripe_cache_bytes / kBlockBytes;
        shard->cache = std::make_unique<StripeCache>(cached / config.shards.size(), cache_doubts_);
        shard->writable = !tracks;  // an unclean stop makes no difference
        shards.push_back(std::move(shard));
    }
    scrub = std::make_unique<Scrub>(*this);
}

ArrayBody::~ArrayBody() = default;

/// Before I/O starts: these columns are untrusted.
void ArrayBody::distrust_columns(std::uint64_t from, std::uint64_t end) {
    const std::uint64_t group = geometry.group_columns();
    for (const auto& shard : shards) {
        if (shards.size() == 1) {
            distrust(*shard, from, end);
            continue;
        }
        for (std::uint64_t first = shard->index * group; first < end; first += group * shards.size()) {
            distrust(*shard, std::max(first, from), std::min(first + group, end));
        }
    }
}

Task<Result<void>> ArrayBody::start(Assembly assembly) {
    Result<void> r = co_await take_over(std::move(assembly));
    if (!r) {
        stopping_.store(true);
        stop_event_.set();
        watch.begin_stop();
        co_await scrub->stop();
        co_await gate_.close();  // a member that failed meanwhile may have called for a spare
        if (redo_) {
            co_await redo_->stop();
        }
        if (log_) {
            co_await log_->stop();
        }
        co_await stop_journal();
        if (missed) {
            co_await missed->stop();
        }
    }
    co_return r;
}

/// RB8. What a device got before a forced start is not what parity, which is taken as right, says it holds.
void ArrayBody::begin_rebuild_anew() {
    RebuildRecord& rebuild = superblock_.rebuild;
    if (rebuild.active) {
        rebuild.cursor = 0;
        const bool its = superblock_.members[rebuild.place].failed;  // else the list is that of the member in sync
        std::erase_if(superblock_.unreadable,
                      [&](const UnreadableRange& u) { return its && u.member == rebuild.place; });
    }
}

/// What assembly found at the places.
Task<Result<void>> ArrayBody::take_members(const Assembly& assembly) {
    const Superblock& winner = assembly.winner;
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        const bool target = assembly.states[m] == MemberState::kRebuilding;
        members[m].state.store(assembly.states[m]);
        members[m].newest = assembly.slots[m];
        members[m].stamp = assembly.stamps[m];
        members[m].tag.store(device_tag(target ? winner.rebuild.uuid : winner.members[m].uuid));
        lost_set_.fetch_or(assembly.states[m] == MemberState::kInSync ? 0 : 1U << m);
        CO_TRY(Buffer slot, env.buffers.allocate(kSuperblockBytes));
        slots_.push_back(std::move(slot));
    }
    co_return Result<void>{};
}

Task<Result<void>> ArrayBody::take_over(Assembly assembly) {
    const auto turn = co_await rebuilds_.lock();  // a member that fails meanwhile gets its spare after that
    for (const Finding& f : assembly.findings) {
        event(f.severity, f.id, f.subject, f.cause, f.action);
    }
    CO_TRY_VOID(co_await take_members(assembly));
    superblock_ = assembly.winner;
    superblock_.member_index = 0;
    superblock_.target = false;
    clean_start = !assembly.unclean;
    log_ = std::make_unique<RingLog>(*this, superblock_.area(AreaKind::kLog));
    CO_TRY_VOID(co_await log_->recover(superblock_.log_generation));
    CO_TRY(const Doubts doubts, find_doubts(assembly));
    untrusted_named_ = doubts.partial.empty();
    if (assembly.forced && !active(TestSwitch::kForcedRebuildGoesOn)) {
        begin_rebuild_anew();
    }
    find_returned(assembly, doubts);
    resume_places();
    apply_doubts(doubts);
    resume_replace(assembly);
    CO_TRY(const std::uint64_t generation, co_await log_->begin_generation());
    CO_TRY_VOID(co_await replay_redo(doubts, generation, assembly));
    co_await open_journal(doubts);
    if (!journal_) {
        untrusted_named_ = true;  // the superblock that voids the records says that no journal counts
    }
    if (missed && (!journal_ || (redo_ && redo_->always()))) {  // what the journal does not list it cannot name
        missed->name_all();
    }
    CO_TRY_VOID(co_await begin_incarnation(generation, assembly));
    CO_TRY_VOID(co_await wipe_vacated());
    if (assembly.forced) {
        event(Severity::kWarning, "array-forced", "array " + name,
              "started without all members after an unclean stop, by force",
              "compare the data with another copy where writes were in flight");
    }
    open_map();
    for (const VolumeRecord& v : superblock_.volumes) {
        volumes_.push_back(std::make_unique<Volume>(*this, v));
    }
    accepted_member_.store(superblock_.accepted ? lost_set() : 0);
    publish_status();
    if (untrusted_columns() > 0) {
        start_resync(assembly.formatted ? "the array is new"
                     : clean_start      ? "the resync of an earlier start goes on"
                                        : "the last stop was not clean");
    }
    if (!resyncing_.load()) {
        report_recovery();
    }
    const std::uint32_t place = superblock_.rebuild.place;
    const bool replaced = members[place].device->target() != nullptr;
    gate_.spawn(rebuilding(place) ? run_rebuild(place, /*resumed=*/true)
                : replaced        ? run_replace(place, /*resumed=*/true)
                                  : fill_places());
    scrub->resume();
    co_return Result<void>{};
}

/// The first superblock of this assembly.
Task<Result<void>> ArrayBody::begin_incarnation(std::uint64_t log_generation, const Assembly& assembly) {
    const auto guard = co_await control_.lock();
    Superblock next = superblock_;
    next.previous_incarnation = superblock_.incarnation;
    next.incarnation = env.random.uuid();
    next.log_generation = log_generation;
    next.policy = journal_ ? RecoveryPolicy::kJournal : RecoveryPolicy::kResync;
    next.redo_from = may_void_redo() ? std::max(next.redo_from, replayed_below_) : next.redo_from;
    choose_map(next, assembly);
    next.clean = true;  // no write of this assembly is under way; what older ones left is said to be untrusted
    static_cast<void>(co_await visit_shards(next, /*close=*/false));
    if (assembly.forced || partial_told_.load() > 0) {
        mark_missing(next);  // parity that is taken as right may contradict them
    }
    next.accepted = accepts(assembly) && (next.resync_cursor < geometry.columns() || !next.untrusted.empty());
    CO_TRY_VOID(co_await commit(next));
    CO_TRY_VOID(co_await settle_ends());
    if (!journal_) {
        log_->drop_before(kLogClientJournal, ~std::uint64_t{0});
    }
    co_return Result<void>{};
}

void ArrayBody::start_resync(std::string_view why) {
    walking_ = superblock_.resync_cursor < geometry.columns();
    if (walkers_ > 0 || (level.parities() > 0 && lost_members() >= level.parities())) {
        return;
    }
    walk_complete_ = true;
    walk_seen_ = true;
    resyncing_.store(true);
    event(Severity::kInfo, "resync-started", "array " + name, std::string(why));
    walkers_ = static_cast<std::uint32_t>(shards.size());
    for (const auto& shard : shards) {
        gate_.spawn(run_resync(*shard));
    }
}

Task<Result<void>> ArrayBody::stop() {
    Executor& caller = Executor::current();
    co_await resume_on(home);
    Result<void> r;
    if (!stopping_.exchange(true)) {
        stop_event_.set();
        watch.begin_stop();
        while (!std::ranges::all_of(volumes_, [](const auto& v) { return v->quiet(/*all=*/true); })) {
            co_await sleep_for(env.clock, kDrainPoll);
        }
        co_await scrub->stop();
        co_await gate_.close();
        if (redo_) {
            co_await redo_->stop();
        }
        const Result<void> kept = co_await checkpoint_rebuild();
        static_cast<void>(kept);  // else the next start does more again
        if (journal_ && journal_->worth_a_checkpoint()) {
            const Result<void> listed = co_await journal_->checkpoint(Sweep::kAllUnused);
            static_cast<void>(listed);  // what stays named is made right at the next start
        }
        if (missed) {
            co_await missed->stop();  // with the record of a member that was lost just now
        }
        co_await log_->stop();
        co_await stop_journal();
        r = co_await mark_clean();
        co_await watch.stop();
    }
    co_await resume_on(caller);
    co_return r;
}

/// What of the status is not atomic, for other threads. REQUIRES: home.
void ArrayBody::publish_status() {
    const std::scoped_lock lock(status_mutex_);
    status_.name = name;
    status_.level = level.name;
    status_.strip_bytes = superblock_.strip_bytes;
    status_.uuid = superblock_.array_uuid;
    status_.sectors = geometry.sectors();
    status_.free = free_sectors(superblock_.volumes, geometry.sectors());
    status_.clean_start = clean_start;
    status_.epoch = superblock_.epoch;
    volume_infos_.clear();
    for (const VolumeRecord& v : superblock_.volumes) {
        volume_infos_.push_back({v.name, v.number, v.sectors, v.uuid});
    }
}

ArrayStatus ArrayBody::status() const {
    ArrayStatus out;
    {
        const std::scoped_lock lock(status_mutex_);
        out = status_;
        for (std::uint32_t m = 0; m < geometry.members; ++m) {
            out.members.push_back(
                {member_names_[m], members[m].state.load(), MemberWatch::unanswered(members[m].device->device()),
                 members[m].device->target() != nullptr ? target_name_ : "", members[m].device->limits().sectors,
                 missed && !in_sync(m) ? missed->missed_bytes(m) : std::nullopt});
        }
        for (const MemberSpec& spare : spares_) {
            out.spares.push_back(spare.name);
        }
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        out.unreadable_blocks += members[m].device->unreadable().total();
    }
    out.repaired_blocks = repairs_.blocks();
    out.rebuild = rebuild_job.status();
    out.scrub = scrub->job.status();
    out.scrub_report = scrub->report();
    const bool lost = !level.tolerates(lost_set(), geometry.members);
    out.state = lost                  ? ArrayState::kFailed
                : read_only()         ? ArrayState::kReadOnly
                : lost_members() != 0 ? ArrayState::kDegraded
                                      : ArrayState::kOptimal;
    out.resyncing = resyncing_.load();
    out.journal.policy = journal_ ? wanted_policy_ : RecoveryPolicy::kResync;
    out.journal.replayed_records = replayed_records_.load();
    out.journal.replayed_bytes = replayed_bytes_.load();
    out.journal.partial_blocks = partial_blocks_.load();
    out.journal.recovered_stripes = recovery_stripes_;
    out.journal.recovery_bytes_read = recovery_bytes_.load();
    out.journal.recovery_ms = recovery_ms_.load();
    if (journal_) {
        journal_->fill(out.journal);
        out.journal.partial = partial_parity() && journal_->names_writes_only() && untrusted_columns() == 0;
    }
    if (redo_) {
        redo_->fill(out.journal);
    }
    if (checksums_) {
        out.checksums = {true, checksums_->found(), checksums_->cached_bytes()};
    }
    for (const auto& shard : shards) {
        out.stripe_cache.bytes += shard->cache->bytes();
        out.stripe_cache.hits += shard->cache->hits();
    }
    out.resync_total = SectorCount(tracks ? geometry.columns() : 0);
    out.resync_done = SectorCount(out.resync_total.value - std::min(out.resync_total.value, untrusted_columns()));
    return out;
}

void ArrayBody::unreadable(Extent extent) {
    event(Severity::kError, "blocks-unreadable", "array " + name,
          "sectors " + std::to_string(extent.lba.value) + " to " +
              std::to_string(extent.lba.value + extent.sectors.value) + " cannot be read nor made up",
          "rewrite them from another copy");
    for (const auto& volume : volumes_) {
        volume->unreadable(extent);
    }
}

Volume* ArrayBody::find(std::string_view volume) {
    const auto at =
        std::ranges::find(volumes_, volume, [](const auto& v) -> std::string_view { return v->volume_name(); });
    return at == volumes_.end() ? nullptr : at->get();
}

std::vector<VolumeInfo> ArrayBody::volume_infos() const {
    const std::scoped_lock lock(status_mutex_);
    return volume_infos_;
}

Task<Result<void>> ArrayBody::resize(std::string volume_name, SectorCount sectors) {
    return ordered([this, volume = std::move(volume_name), sectors]() mutable {
        return resize_at_home(std::move(volume), sectors);
    });
}

/// Grow: durable, then in force. Shrink: out of force, quiet, then durable (VO1); a failure puts the old map back.
Task<Result<void>> ArrayBody::resize_at_home(std::string volume_name, SectorCount sectors) {
    Volume* volume = find(volume_name);
    if (volume == nullptr) {
        co_return fail(Errc::kNotFound, "array " + name + " has no volume '" + volume_name + "'");
    }
    const auto turn = co_await resizes_.lock();
    Superblock planned = superblock_;
    const auto record = std::ranges::find(planned.volumes, volume_name, &VolumeRecord::name);
    // NOLINTNEXTLINE(performance-unnecessary-copy-initialization): what it points to changes
    const VolumeRecord old = *record;
    CO_TRY_VOID(resize_volume(planned, *record, sectors, geometry.sectors()));
    if (*record == old) {
        co_return Result<void>{};
    }
    const VolumeRecord& now = *record;
    if (sectors < old.sectors) {
        volume->set_map(now);
        while (!volume->quiet(/*all=*/false)) {
            co_await sleep_for(env.clock, kDrainPoll);
        }
    }
    // Not before: the I/O waited for may itself need `control`, to open the array for writes or to fail a member.
    const Result<void> r = co_await update_superblock([&planned](Superblock& next) -> Result<void> {
        next.volumes = planned.volumes;
        return {};
    });
    if (!r && sectors < old.sectors) {
        volume->set_map(old);
    }
    CO_TRY_VOID(r);
    if (sectors > old.sectors) {
        volume->set_map(now);
    }
    if (DeviceObserver* observer = volume->observer()) {
        observer->capacity_changed(sectors);
    }
    co_return Result<void>{};
}

}  // namespace detail

namespace {

/// The config with a name for every member.
ArrayConfig with_names(ArrayConfig config) {
    for (std::size_t i = 0; i < config.members.size(); ++i) {
        MemberSpec& m = config.members[i];
        if (m.name.empty()) {
            m.name = m.device != nullptr ? m.device->name() : "member " + std::to_string(i);
        }
    }
    for (MemberSpec& spare : config.spares) {
        spare.name = spare.name.empty() && spare.device != nullptr ? spare.device->name() : spare.name;
    }
    return config;
}

/// R9. Where devices of this array end or ended.
std::vector<SectorCount> ends_of(const ArrayConfig& config, const std::vector<MemberReading>& readings,
                                 const std::vector<MemberReading>& spares) {
    std::vector<SectorCount> sizes = config.former_sizes;
    for (const auto* list : {&readings, &spares}) {
        for (const MemberReading& r : *list) {
            if (r.kind == MemberReading::Kind::kFound && r.superblock.array_name == config.name) {
                sizes.push_back(r.newest.device);
            }
        }
    }
    return sizes;
}

}  // namespace

Task<Result<std::unique_ptr<Array>>> Array::open(Environment& env, ArrayConfig given) {
    ArrayConfig config = with_names(std::move(given));
    if (auto why = why_invalid(config)) {
        co_return fail(Errc::kInvalidArgument, *why);
    }
    Executor& caller = Executor::current();
    co_await resume_on(*config.shards.front());
    auto watch = std::make_unique<MemberWatch>(env, config.member_timeout, config.shards);
    for (std::vector<MemberSpec>* specs : {&config.members, &config.spares}) {
        for (MemberSpec& spec : *specs) {
            spec.device = watch->watched(spec.device);
        }
    }
    Result<std::vector<MemberReading>> readings = co_await read_members(env, config.members);
    Result<std::vector<MemberReading>> spares = co_await read_members(env, config.spares);
    std::vector<Finding> moved;
    if (readings && spares) {
        const std::vector<SectorCount> sizes = ends_of(config, *readings, *spares);
        co_await look_at_former_ends(env, config.name, sizes, config.members, *readings);
        co_await look_at_former_ends(env, config.name, sizes, config.spares, *spares);
        moved = place_spares(*readings, *spares, config);
    }
    Result<Assembly> assembly = fail(Errc::kResources);
    if (!readings || !spares) {
        assembly = std::unexpected(readings ? spares.error() : readings.error());
    } else if (config.create == ArrayConfig::Create::kIfBlank) {
        assembly = co_await format(env, config, *find_level(config.level), *std::move(readings));
    } else {
        assembly = assemble(*readings, config);
    }
    MemberWatch& watching = *watch;
    std::unique_ptr<Array> array;
    Result<void> started = assembly ? Result<void>{} : std::unexpected(assembly.error());
    if (started) {
        take_spares(*assembly, *spares, config);
        std::ranges::move(moved, std::back_inserter(assembly->findings));
        auto body = std::make_unique<detail::ArrayBody>(env, config, assembly->winner, watching);
        watching.set_judge(body.get());
        started = co_await body->start(*std::move(assembly));
        array = std::make_unique<Array>(std::move(watch), std::move(body));
    }
    if (!started) {
        co_await watching.stop();
    }
    co_await resume_on(caller);
    CO_TRY_VOID(started);
    co_return array;
}

Array::Array(std::unique_ptr<MemberWatch> watch, std::unique_ptr<detail::ArrayBody> body)
    : watch_(std::move(watch)), body_(std::move(body)) {}
Array::~Array() = default;

void Array::begin_stop() {
    watch_->begin_stop();
}

Task<Result<void>> Array::stop() {
    return body_->stop();
}
ArrayStatus Array::status() const {
    return body_->status();
}
Task<Result<void>> Array::rebuild(std::uint32_t place, MemberSpec device) {
    return body_->rebuild(place, std::move(device));
}
Task<Result<void>> Array::replace(std::uint32_t place, MemberSpec device) {
    return body_->replace(place, std::move(device));
}
Task<Result<void>> Array::add_spare(MemberSpec device) {
    return body_->add_spare(std::move(device));
}
Task<Result<void>> Array::remove_spare(MemberSpec device) {
    return body_->remove_spare(std::move(device));
}
Task<Result<void>> Array::grow() {
    return body_->grow();
}
Task<Result<void>> Array::fail_member(std::uint32_t place, bool force) {
    return body_->fail_by_operator(place, force);
}
Task<Result<void>> Array::scrub(ScrubMode mode) {
    return body_->scrub->start(mode);
}
Job* Array::job(JobKind kind) {
    return kind == JobKind::kScrub ? &body_->scrub->job : &body_->rebuild_job;
}
std::vector<VolumeInfo> Array::volumes() const {
    return body_->volume_infos();
}
BlockDevice* Array::find(std::string_view name) {
    return body_->find(name);
}
Task<Result<void>> Array::resize(std::string name, SectorCount sectors) {
    return body_->resize(std::move(name), sectors);
}
SectorCount Array::free_sectors() const {
    return body_->status().free;
}
DurableLog& Array::log() {
    return body_->log();
}

}  // namespace gemel::raid
