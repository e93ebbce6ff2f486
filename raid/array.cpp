// SPDX-License-Identifier: Apache-2.0
#include "raid/array.hpp"

#include <algorithm>

#include "raid/array_body.hpp"
#include "raid/durable_log.hpp"
#include "raid/volume.hpp"
#include "raid/volume_table.hpp"

namespace gemel::raid {

std::string_view array_state_name(ArrayState state) {
    constexpr std::array<std::string_view, 4> names{"optimal", "degraded", "read-only", "failed"};
    return names[static_cast<std::size_t>(state)];
}

std::string_view member_state_name(MemberState state) {
    constexpr std::array<std::string_view, 4> names{"in-sync", "failed", "missing", "stale"};
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
      name(winner.array_name),
      home(*config.shards.front()),
      watch(watching) {
    geometry = geometry_of(winner);
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        members[m].device = config.members[m].device;
        members[m].name = config.members[m].name;
    }
    for (std::uint32_t i = 0; i < config.shards.size(); ++i) {
        auto shard = std::make_unique<Shard>();
        shard->executor = config.shards[i];
        shard->index = i;
        shard->shards = static_cast<std::uint32_t>(config.shards.size());
        shard->group_columns = geometry.group_columns();
        shard->writable = !level.redundant;  // nothing to resync: an unclean stop makes no difference
        shards.push_back(std::move(shard));
    }
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
    for (const Finding& f : assembly.findings) {
        event(f.severity, f.id, f.subject, f.cause, f.action);
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        members[m].state.store(assembly.states[m]);
        members[m].slot = assembly.slots[m];
        lost_set_.fetch_or(assembly.states[m] == MemberState::kInSync ? 0 : 1U << m);
        CO_TRY(Buffer slot, env.buffers.allocate(kSuperblockBytes));
        slots_.push_back(std::move(slot));
    }
    superblock_ = assembly.winner;
    superblock_.member_index = 0;
    clean_start = !assembly.unclean;
    log_ = std::make_unique<RingLog>(*this, superblock_.area(AreaKind::kLog));
    CO_TRY_VOID(co_await log_->recover(superblock_.log_generation));
    CO_TRY(const std::uint64_t generation, co_await log_->begin_generation());
    Superblock next = superblock_;
    next.previous_incarnation = superblock_.incarnation;
    next.incarnation = env.random.uuid();
    next.log_generation = generation;
    const bool accept = lost_set() != 0 && lost_members() < level.parities() && (assembly.forced || next.accepted);
    // By force parity that nothing can be compared with any more is right; legs that are left are made equal as always.
    const bool taken = assembly.forced && level.parities() > 0 && !accept;
    next.resync_cursor = !level.redundant || taken ? geometry.columns() : assembly.unclean ? 0 : next.resync_cursor;
    if (assembly.unclean) {
        next.untrusted.clear();  // all of it is, or by force nothing
    }
    next.accepted = accept && (next.resync_cursor < geometry.columns() || !next.untrusted.empty());
    next.clean = true;  // no write of this assembly is under way; what older ones left is above the cursor
    if (assembly.forced && level.parities() > 0) {
        mark_missing(next);  // parity is taken as right without them, so it need not be right with them
    }
    CO_TRY_VOID(co_await commit(next));
    if (assembly.forced) {
        event(Severity::kWarning, "array-forced", "array " + name,
              "started without all members after an unclean stop, by force",
              "compare the data with another copy where writes were in flight");
    }
    for (const VolumeRecord& v : superblock_.volumes) {
        volumes_.push_back(std::make_unique<Volume>(*this, v));
    }
    distrust_columns(superblock_.resync_cursor, geometry.columns());
    for (const ColumnRange& r : superblock_.untrusted) {
        distrust_columns(r.first, r.end);
    }
    accepted_member_.store(superblock_.accepted ? lost_set() : 0);
    publish_status();
    start_resync(assembly.formatted);
    co_return Result<void>{};
}

void ArrayBody::start_resync(bool formatted) {
    walking_ = superblock_.resync_cursor < geometry.columns();
    const bool possible = level.parities() == 0 || lost_members() < level.parities();
    for (const auto& shard : shards) {
        if (possible && !shard->untrusted.empty()) {
            ++walkers_;
        }
    }
    if (walkers_ == 0) {
        return;
    }
    resyncing_.store(true);
    event(Severity::kInfo, "resync-started", "array " + name,
          formatted     ? "the array is new"
          : clean_start ? "the resync of an earlier start goes on"
                        : "the last stop was not clean");
    for (const auto& shard : shards) {
        if (!shard->untrusted.empty()) {
            gate_.spawn(run_resync(*shard));
        }
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
        co_await log_->stop();
        co_await gate_.close();
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
    }
    for (std::uint32_t m = 0; m < geometry.members; ++m) {
        out.members.push_back({members[m].name, members[m].state.load(), MemberWatch::unanswered(members[m].device)});
    }
    const bool lost = !level.tolerates(lost_set(), geometry.members);
    out.state = lost                  ? ArrayState::kFailed
                : read_only()         ? ArrayState::kReadOnly
                : lost_members() != 0 ? ArrayState::kDegraded
                                      : ArrayState::kOptimal;
    out.resyncing = resyncing_.load();
    out.resync_total = SectorCount(level.redundant ? geometry.columns() : 0);
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
    Executor& caller = Executor::current();
    co_await resume_on(home);
    Result<void> r = co_await resize_at_home(std::move(volume_name), sectors);
    co_await resume_on(caller);
    co_return r;
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
    const VolumeRecord old = *record;
    CO_TRY_VOID(resize_volume(planned, *record, sectors, geometry.sectors()));
    if (*record == old) {
        co_return Result<void>{};
    }
    const VolumeRecord now = *record;
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
    return config;
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
    for (MemberSpec& member : config.members) {
        member.device = watch->watched(member.device);
    }
    Result<std::vector<MemberReading>> readings = co_await read_members(env, config);
    Result<Assembly> assembly = fail(Errc::kResources);
    if (!readings) {
        assembly = std::unexpected(std::move(readings).error());
    } else if (config.create == ArrayConfig::Create::kIfBlank) {
        assembly = co_await format(env, config, *find_level(config.level), *std::move(readings));
    } else {
        assembly = assemble(*readings, config);
    }
    std::unique_ptr<Array> array;
    Result<void> started;
    if (assembly) {
        auto body = std::make_unique<detail::ArrayBody>(env, config, assembly->winner, *watch);
        watch->set_judge(body.get());
        started = co_await body->start(*std::move(assembly));
        array = std::make_unique<Array>(std::move(watch), std::move(body));
    }
    if (!assembly || !started) {
        co_await (array ? *array->watch_ : *watch).stop();
    }
    co_await resume_on(caller);
    CO_TRY_VOID(assembly);
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
