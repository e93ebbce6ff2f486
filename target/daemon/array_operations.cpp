// SPDX-License-Identifier: Apache-2.0
// The daemon's Management of arrays, their spares and their jobs.
//
// Invariants:
//   AO1 A spare that an operator has added is in the state directory before the array may use it, and until it is taken
//       away again: at each start it is one of the array's spares, and a device that it gave a place to is found so.
//   AO2 What the configuration names itself is kept there no longer.
// Threads: on the main processor.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <filesystem>
#include <map>
#include <vector>

#include "target/backend/backend_table.hpp"
#include "target/daemon/daemon.hpp"
#include "target/daemon/status_json.hpp"

namespace gemel {

namespace json = boost::json;

Result<StartedArray*> Daemon::check_array(const std::string& array) {
    std::string all;
    for (StartedArray& started : arrays_) {
        const std::string name = started.array->status().name;
        if (name == array) {
            return &started;
        }
        all += (all.empty() ? "" : ", ") + name;
    }
    return fail(Errc::kNotFound, fmt::format("there is no array '{}' on node {}; there {} {}", array, config_.node.name,
                                             arrays_.size() == 1 ? "is" : "are", all.empty() ? "none" : all));
}

Task<Result<json::value>> Daemon::array_list(std::string array) {
    json::array out;
    if (!array.empty()) {
        CO_TRY(const StartedArray* one, check_array(array));
        out.push_back(array_json(one->array->status()));
        co_return json::value(std::move(out));
    }
    for (const StartedArray& started : arrays_) {
        out.push_back(array_json(started.array->status()));
    }
    co_return json::value(std::move(out));
}

Task<Result<void>> Daemon::array_fail(std::string array, std::uint64_t member, bool force) {
    CO_TRY(StartedArray * started, check_array(array));
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await started->array->fail_member(
        static_cast<std::uint32_t>(std::min<std::uint64_t>(member, raid::kMostPlaces)), force);
    co_await resume_on(home);
    co_return r;
}

/// The device that the configuration names `with`; none for "".
Result<raid::MemberSpec> Daemon::named_device(const StartedArray& started, const std::string& with) const {
    if (with.empty()) {
        return raid::MemberSpec{};
    }
    const auto found = std::ranges::find_if(
        started.named, [&](const raid::MemberSpec& m) { return m.name == with || m.name == state_.resolve(with); });
    if (found == started.named.end()) {
        return fail(Errc::kNotFound,
                    fmt::format("array '{0}' has no member or spare '{1}'; make it a spare with 'gemel array add {0} "
                                "{1}'",
                                started.array->status().name, with));
    }
    return *found;
}

Task<Result<void>> Daemon::array_rebuild(std::string array, std::uint64_t member, std::string with) {
    return give_place(std::move(array), member, std::move(with), &raid::Array::rebuild);
}

Task<Result<void>> Daemon::array_replace(std::string array, std::uint64_t member, std::string with) {
    return give_place(std::move(array), member, std::move(with), &raid::Array::replace);
}

Task<Result<void>> Daemon::give_place(std::string array, std::uint64_t member, std::string with, GivePlace give) {
    CO_TRY(StartedArray * started, check_array(array));
    CO_TRY(raid::MemberSpec device, named_device(*started, with));
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await (started->array.get()->*give)(
        static_cast<std::uint32_t>(std::min<std::uint64_t>(member, raid::kMostPlaces)), std::move(device));
    co_await resume_on(home);
    co_return r;
}

Task<Result<void>> Daemon::array_scrub(std::string array, bool repair) {
    CO_TRY(StartedArray * started, check_array(array));
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await started->array->scrub(repair ? raid::ScrubMode::kRepair : raid::ScrubMode::kCheck);
    co_await resume_on(home);
    co_return r;
}

namespace {
/// Its members are in memory: there is nothing to remember.
bool lies_in_memory(const config::Config& config, const std::string& array) {
    const auto found = std::ranges::find(config.arrays, array, &config::Array::name);
    return found != config.arrays.end() && found->in_memory();
}
}  // namespace

Task<Result<void>> Daemon::array_grow(std::string array) {
    CO_TRY(StartedArray * started, check_array(array));
    const bool recorded = !lies_in_memory(config_, array);
    if (recorded) {
        CO_TRY_VOID(remember_devices(state_, *started));  // superblocks are where the devices end now
    }
    for (const auto& device : started->devices) {
        CO_TRY_VOID(measure_backend(*device));
    }
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await started->array->grow();
    co_await resume_on(home);
    if (recorded) {  // whatever came of it, superblocks may be at the new ends
        Result<void> kept = remember_devices(state_, *started);
        if (r && !kept) {
            r = std::move(kept);
        }
    }
    co_return r;
}

// ---- spares

namespace {

config::Member member_of(const AddedSpare& spare) {
    return {
        spare.kind == "block" ? config::MemberKind::kBlock : config::MemberKind::kFile, spare.path, spare.bytes, {}};
}

/// Of every device that the configuration names, its absolute path and its array.
std::map<std::string, std::string> named_paths(const config::Config& config, const StateDirectory& state) {
    std::map<std::string, std::string> out;
    for (const config::Array& array : config.arrays) {
        for (const auto* list : {&array.members, &array.spares}) {
            for (const config::Member& m : *list) {
                if (!m.path.empty()) {
                    out.try_emplace(state.resolve(m.path), array.name);
                }
            }
        }
    }
    return out;
}

/// What lies at the path, or is to be made there.
Result<BackendSpec> spare_at(const std::string& path, std::uint64_t bytes) {
    if (path.contains('\n')) {
        return fail(Errc::kInvalidArgument, "the path of a spare has no line break");
    }
    std::error_code bad;
    const bool there = std::filesystem::exists(path, bad);
    if (!there && bytes == 0) {
        return fail(Errc::kNotFound, fmt::format("there is no {0}; name a device or a file, or {0}:SIZE to make a file "
                                                 "of that size",
                                                 path));
    }
    BackendSpec spec;
    spec.kind = std::filesystem::is_block_file(path, bad) ? "block" : "file";
    spec.path = path;
    spec.bytes = bytes;
    spec.create = !there;
    spec.wait = Duration{};
    TRY(const std::optional<std::string> content, find_content(spec));
    if (content) {
        return fail(Errc::kRefused,
                    fmt::format("{} is not blank: it holds {}. Wipe it if nothing on it is needed", path, *content));
    }
    return spec;
}

}  // namespace

/// AO1.
Result<void> Daemon::take_added_spares() {
    std::map<std::string, std::string> named = named_paths(config_, state_);
    for (config::Array& array : config_.arrays) {
        TRY(const std::vector<AddedSpare> added, state_.added_spares(array.name));
        std::vector<AddedSpare> kept;
        for (const AddedSpare& spare : added) {
            const auto [at, fresh] = named.try_emplace(spare.path, array.name);
            if (!fresh && at->second == array.name) {
                continue;  // AO2
            }
            kept.push_back(spare);
            const std::string subject = fmt::format("array {} spare {}", array.name, spare.path);
            if (!fresh) {
                events_.emit(
                    {Severity::kWarning, "spare-refused", subject,
                     fmt::format("it was added by 'gemel array add', but is a device of array '{}', too", at->second),
                     "take it away from one of the two"});
                continue;
            }
            array.spares.push_back(member_of(spare));
            events_.emit({Severity::kInfo, "spare-not-in-config", subject,
                          "it was added by 'gemel array add'; the configuration does not name it",
                          "add it to 'spares' there when the file is next changed"});
        }
        if (kept != added) {
            TRY_VOID(state_.write_added_spares(array.name, kept));
        }
    }
    return {};
}

/// On the array's executor.
Task<Result<void>> Daemon::order_spare(StartedArray& started, raid::MemberSpec spare, OrderSpare order) {
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await (started.array.get()->*order)(std::move(spare));
    co_await resume_on(home);
    co_return r;
}

Task<Result<void>> Daemon::array_add(std::string array, std::string path, std::uint64_t bytes) {
    const auto turn = co_await creations_.lock();
    CO_TRY(StartedArray * started, check_array(array));
    if (lies_in_memory(config_, array)) {
        co_return fail(Errc::kInvalidArgument,
                       fmt::format("array '{}' lies in memory and is made anew at each start: its spares belong into "
                                   "the configuration",
                                   array));
    }
    path = state_.resolve(path);
    const std::map<std::string, std::string> named = named_paths(config_, state_);
    if (const auto other = named.find(path); other != named.end()) {
        co_return fail(Errc::kAlreadyExists, fmt::format("{} is a device of array '{}' already", path, other->second));
    }
    CO_TRY(const std::vector<AddedSpare> before, state_.added_spares(array));
    CO_TRY(const BackendSpec spec, spare_at(path, bytes));
    CO_TRY(std::unique_ptr<BlockDevice> device, co_await open_backend(environment_, spec));
    std::vector<AddedSpare> now = before;
    now.push_back({spec.kind, path, bytes_of(device->limits().sectors)});
    Result<void> r = state_.write_added_spares(array, now);  // AO1
    if (r) {
        r = co_await order_spare(*started, {device.get(), path}, &raid::Array::add_spare);
    }
    if (!r) {
        const Result<void> kept = state_.write_added_spares(array, before);
        static_cast<void>(kept);  // a spare that is not blank is refused at the next start, too
        if (r.error().code == Errc::kBusy) {
            started->devices.push_back(std::move(device));
        }
        std::error_code ignored;  // an empty file that stays is blank
        if (spec.create && device) {
            std::filesystem::remove(path, ignored);
        }
        co_return r;
    }
    started->named.push_back({device.get(), path});
    started->devices.push_back(std::move(device));
    std::ranges::find(config_.arrays, array, &config::Array::name)->spares.push_back(member_of(now.back()));
    if (const Result<void> kept = remember_devices(state_, *started); !kept) {
        events_.emit({Severity::kWarning, "devices-not-recorded", "array " + array, kept.error().message,
                      "make room in the state directory before a member is extended"});
    }
    co_return r;
}

Task<Result<void>> Daemon::array_remove(std::string array, std::string path) {
    const auto turn = co_await creations_.lock();
    CO_TRY(StartedArray * started, check_array(array));
    path = state_.resolve(path);
    CO_TRY(const std::vector<AddedSpare> before, state_.added_spares(array));
    std::vector<AddedSpare> now = before;
    if (std::erase_if(now, [&](const AddedSpare& s) { return s.path == path; }) == 0) {
        const std::map<std::string, std::string> named = named_paths(config_, state_);
        const auto at = named.find(path);
        if (at == named.end() || at->second != array) {
            co_return fail(Errc::kNotFound, fmt::format("array '{}' has no spare '{}'", array, path));
        }
        co_return fail(Errc::kRefused, fmt::format("the configuration names {} for array '{}': take it out there and "
                                                   "start the daemon again",
                                                   path, array));
    }
    const auto open = std::ranges::find(started->named, path, &raid::MemberSpec::name);
    const bool opened = open != started->named.end();
    Result<void> r;
    if (opened) {
        r = co_await order_spare(*started, *open, &raid::Array::remove_spare);
    }
    if (!r && r.error().code != Errc::kNotFound) {
        co_return r;
    }
    CO_TRY_VOID(state_.write_added_spares(array, now));
    auto& spares = std::ranges::find(config_.arrays, array, &config::Array::name)->spares;
    std::erase_if(spares, [&](const config::Member& m) { return m.path == path; });
    if (opened && r) {
        const BlockDevice* const device = open->device;
        started->named.erase(open);
        std::erase_if(started->devices, [device](const auto& d) { return d.get() == device; });
    }
    co_return Result<void>{};
}

// ---- arrays that are made while the daemon runs

namespace {
std::string joined(const std::vector<config::Mistake>& mistakes) {
    std::string all;
    for (const config::Mistake& m : mistakes) {
        all += (all.empty() ? "" : "; ") + m.message;
    }
    return all;
}
}  // namespace

Result<config::Config> Daemon::with_array(const std::string& definition) const {
    const std::vector<config::LevelRule> rules = level_rules();
    const auto parsed = config::parse(definition, rules);
    if (!parsed) {
        return fail(Errc::kInvalidArgument, joined(parsed.error()));
    }
    const bool alone = parsed->arrays.size() == 1 && parsed->portals.empty() && parsed->targets.empty() &&
                       parsed->peers.empty() && parsed->node.name.empty() && parsed->replication.listen.empty();
    if (!alone) {
        return fail(Errc::kInvalidArgument, "a definition has one [[array]], its [[volume]]s, and nothing else");
    }
    if (parsed->arrays.front().in_memory()) {
        return fail(Errc::kInvalidArgument,
                    "an array in memory is made anew at each start: it belongs into the configuration");
    }
    config::Config out = config_;
    out.arrays.push_back(parsed->arrays.front());
    out.arrays.back().create = true;
    out.volumes.insert(out.volumes.end(), parsed->volumes.begin(), parsed->volumes.end());
    if (const auto mistakes = config::check(out, rules); !mistakes.empty()) {
        return fail(Errc::kAlreadyExists, joined(mistakes));
    }
    for (const config::Volume& v : parsed->volumes) {
        if (volumes_.contains(v.name)) {
            return fail(Errc::kAlreadyExists, fmt::format("there is a volume '{}' already", v.name));
        }
    }
    return out;
}

/// The definition is durable first: a crash in the middle is one in the first start of an array of the configuration.
Task<Result<void>> Daemon::array_create(std::string definition) {
    const auto turn = co_await creations_.lock();
    CO_TRY(config::Config wanted, with_array(definition));
    const config::Array array = wanted.arrays.back();
    CO_TRY(const std::optional<ArrayRecord> record, state_.array_record(array.name));
    if (record) {
        co_return fail(Errc::kAlreadyExists,
                       fmt::format("an array '{}' was made from this state directory before; take another name, or "
                                   "remove {} if that array is not needed any more",
                                   array.name, state_.resolve("arrays/" + array.name)));
    }
    CO_TRY_VOID(state_.write_created({array.name, std::move(definition)}));
    config::Config before = std::exchange(config_, std::move(wanted));
    auto started = co_await start_one(array);
    if (!started) {
        config_ = std::move(before);
        CO_TRY_VOID(state_.remove_created(array.name));
        co_return std::unexpected(std::move(started).error());
    }
    arrays_.push_back(*std::move(started));
    watch_space(array);
    for (const VolumeInfo& info : arrays_.back().array->volumes()) {
        volumes_[info.name] = {arrays_.back().array.get(), arrays_.back().array->find(info.name)};
    }
    co_return Result<void>{};
}

Task<Result<json::value>> Daemon::job_list() {
    json::array out;
    for (const StartedArray& started : arrays_) {
        const raid::ArrayStatus status = started.array->status();
        for (const auto& running : {status.rebuild, status.scrub}) {
            if (running) {
                json::object job = job_json(*running);
                job["array"] = status.name;
                out.push_back(std::move(job));
            }
        }
    }
    co_return json::value(std::move(out));
}

namespace {

/// The jobs of that kind, or all when it is empty.
Result<std::vector<raid::Job*>> jobs_of(raid::Array& array, const std::string& kind) {
    std::vector<raid::Job*> out;
    std::string all;
    for (const raid::JobKind k : raid::kJobKinds) {
        all += (all.empty() ? "" : ", ") + std::string(raid::job_kind_name(k));
        raid::Job* job = array.job(k);
        const bool asked = kind.empty() || kind == raid::job_kind_name(k);
        if (asked && std::ranges::find(out, job) == out.end()) {  // a replace and a rebuild are one
            out.push_back(job);
        }
    }
    if (out.empty()) {
        return fail(Errc::kInvalidArgument, fmt::format("'{}' is no kind of job: expected one of {}", kind, all));
    }
    return out;
}

}  // namespace

Task<Result<void>> Daemon::job_order(std::string array, std::string kind, JobOrder order, std::uint64_t limit) {
    CO_TRY(StartedArray * started, check_array(array));
    CO_TRY(std::vector<raid::Job*> jobs, jobs_of(*started->array, kind));
    if (order == JobOrder::kLimit) {
        for (raid::Job* job : jobs) {
            job->set_limit(limit);  // also for those to come
        }
        co_return Result<void>{};
    }
    std::erase_if(jobs, [&kind](const raid::Job* job) {
        const std::optional<raid::JobStatus> status = job->status();
        return !status || (!kind.empty() && raid::job_kind_name(status->kind) != kind);
    });
    if (jobs.empty()) {
        co_return fail(Errc::kNotFound, kind.empty() ? fmt::format("array '{}' has no job", array)
                                                     : fmt::format("array '{}' has no {} running", array, kind));
    }
    if (jobs.size() > 1) {
        co_return fail(Errc::kInvalidArgument,
                       fmt::format("array '{}' has more than one job; say of which kind", array));
    }
    if (order == JobOrder::kCancel) {
        jobs.front()->cancel();
    } else {
        jobs.front()->pause(order == JobOrder::kPause);
    }
    co_return Result<void>{};
}

}  // namespace gemel
