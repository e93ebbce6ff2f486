// SPDX-License-Identifier: Apache-2.0
#include "target/daemon/array_start.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "raid/level_table.hpp"
#include "target/backend/backend_table.hpp"

namespace gemel {

namespace {

using Create = raid::ArrayConfig::Create;

std::string_view kind_name(config::MemberKind kind) {
    constexpr std::array<std::string_view, 3> kNames{"file", "block", "memory"};
    return kNames[static_cast<std::size_t>(kind)];
}

BackendSpec spec_of(const ArrayStart& start, const config::Member& member, Create create) {
    BackendSpec spec;
    spec.kind = kind_name(member.kind);
    spec.path = member.path.empty() ? "" : start.state.resolve(member.path);
    // Later the member has the size it was made with; the superblock knows it, the configuration is only compared.
    const bool needs_size = create == Create::kIfBlank || member.kind == config::MemberKind::kMemory;
    spec.bytes = needs_size ? member.bytes : 0;
    spec.create = create == Create::kIfBlank && member.kind == config::MemberKind::kFile;
    spec.thin = start.array.thin;
    return spec;
}

/// Adds the array's name, and what an operator can do, to an error from below.
Error explain(const ArrayStart& start, Error error, std::string_view advice) {
    error.message =
        fmt::format("array '{}': {}{}{}", start.array.name, error.message, advice.empty() ? "" : "; ", advice);
    return error;
}

/// AR1: nothing lies on any member that the operating system knows by its look.
Result<void> check_blank(const ArrayStart& start) {
    for (const config::Member& member : start.array.members) {
        const BackendSpec spec = spec_of(start, member, Create::kIfBlank);
        auto content = find_content(spec);
        if (!content) {
            return std::unexpected(explain(start, std::move(content).error(), ""));
        }
        if (content->has_value()) {
            return fail(Errc::kRefused,
                        fmt::format("array '{}' is to be created, but member {} is not blank: it holds {}. Nothing was "
                                    "changed. Name blank members, or wipe this one if nothing on it is needed",
                                    start.array.name, spec.path, **content));
        }
    }
    return {};
}

/// A member that is not there is a missing member; one that somebody holds, or that we may not open, is an error.
bool is_missing(Errc code) {
    return code == Errc::kNotFound || code == Errc::kDeviceGone || code == Errc::kIo || code == Errc::kSizeMismatch;
}

struct Members {
    std::vector<std::unique_ptr<BlockDevice>> devices;
    std::vector<raid::MemberSpec> specs;
    std::vector<raid::MemberSpec> spares;

    StartedArray with(std::unique_ptr<raid::Array> array) && {
        std::vector<raid::MemberSpec> named;
        for (const auto* list : {&specs, &spares}) {
            std::ranges::copy_if(*list, std::back_inserter(named), [](const auto& m) { return m.device != nullptr; });
        }
        return {std::move(devices), std::move(named), std::move(array)};
    }
};

/// A spare that cannot be opened is none.
Task<void> open_spares(const ArrayStart& start, Create create, Members& out) {
    for (const config::Member& spare : start.array.spares) {
        const BackendSpec spec = spec_of(start, spare, create);
        const std::string name = spec.path.empty() ? fmt::format("memory spare {}", out.spares.size()) : spec.path;
        auto device = co_await open_backend(start.environment, spec);
        if (!device) {
            start.environment.events.emit({Severity::kError, "spare-missing",
                                           fmt::format("array {} spare {}", start.array.name, name),
                                           device.error().message, "bring it back, or name another one"});
            continue;
        }
        out.spares.push_back({device->get(), name});
        out.devices.push_back(*std::move(device));
    }
}

Task<Result<Members>> open_members(const ArrayStart& start, Create create) {
    Members out;
    for (std::size_t i = 0; i < start.array.members.size(); ++i) {
        const BackendSpec spec = spec_of(start, start.array.members[i], create);
        const std::string name = spec.path.empty() ? fmt::format("memory member {}", i) : spec.path;
        auto device = co_await open_backend(start.environment, spec);
        if (device) {
            out.specs.push_back({device->get(), name});
            out.devices.push_back(*std::move(device));
            continue;
        }
        if (create == Create::kIfBlank || !is_missing(device.error().code)) {
            co_return std::unexpected(explain(start, std::move(device).error(), ""));
        }
        start.environment.events.emit({Severity::kError, "member-missing",
                                       fmt::format("array {} member {}", start.array.name, i), device.error().message,
                                       "bring the member back, or replace it"});
        out.specs.push_back({nullptr, name});
    }
    co_await open_spares(start, create, out);
    co_return out;
}

raid::RecoveryPolicy policy_of(config::Journal journal) {
    switch (journal) {
        case config::Journal::kResync:
            return raid::RecoveryPolicy::kResync;
        case config::Journal::kJournal:
            return raid::RecoveryPolicy::kJournal;
        case config::Journal::kPpl:
            return raid::RecoveryPolicy::kPartial;
        case config::Journal::kRedo:
            break;
    }
    return raid::RecoveryPolicy::kRedo;
}

/// Where the config does not say. Without redundancy they cost a memory member more than they can tell of it: a write
/// goes to another processor, and waits there for a record.
bool keeps_checksums(const config::Array& array) {
    const raid::LevelRow* level = raid::find_level(array.level);
    return !array.in_memory() || level == nullptr || level->redundant;
}

Task<Result<std::unique_ptr<raid::Array>>> open_array(const ArrayStart& start, const Members& members, Create create) {
    raid::ArrayConfig config;
    if (!start.array.in_memory()) {
        CO_TRY(const std::optional<ArrayRecord> record, start.state.array_record(start.array.name));
        for (const std::uint64_t bytes : record ? record->bytes : std::vector<std::uint64_t>{}) {
            config.former_sizes.push_back(sectors_of(bytes));
        }
    }
    config.name = start.array.name;
    config.level = start.array.level;
    config.strip_bytes = start.array.strip_bytes;
    config.policy = policy_of(start.array.journal);
    config.checksums = start.array.checksums.value_or(keeps_checksums(start.array));
    config.checksum_cache_bytes = start.array.checksum_cache_bytes;
    config.stripe_cache_bytes = std::min(start.array.stripe_cache_bytes, start.most_stripe_cache);
    config.thin = start.array.thin;
    config.members = members.specs;
    config.spares = members.spares;
    config.volumes = start.volumes;
    config.create = create;
    config.force = start.force;
    config.member_timeout = start.array.member_timeout;
    config.shards = start.shards;
    Executor& home = Executor::current();
    co_await resume_on(*start.shards.front());
    auto array = co_await raid::Array::open(start.environment, std::move(config));
    co_await resume_on(home);
    co_return array;
}

/// A start that failed leaves its devices as they are where one of them does not answer: they go with the process.
void leave_silent(const ArrayStart& start, Members& members) {
    for (auto& device : members.devices) {
        if (start.environment.buffers.loans() > 0) {
            [[maybe_unused]] const BlockDevice* const stays = device.release();
        }
    }
}

Task<Result<StartedArray>> assemble(const ArrayStart& start) {
    CO_TRY(Members members, co_await open_members(start, Create::kNo));
    auto array = co_await open_array(start, members, Create::kNo);
    if (!array) {
        leave_silent(start, members);
        co_return std::unexpected(std::move(array).error());
    }
    co_return std::move(members).with(*std::move(array));
}

/// Stops an array that was opened but must not be used.
Task<void> give_up(const ArrayStart& start, StartedArray& started) {
    Executor& home = Executor::current();
    co_await resume_on(*start.shards.front());
    (void)co_await started.array->stop();
    co_await resume_on(home);
}

Task<Result<StartedArray>> start_in_memory(const ArrayStart& start) {
    CO_TRY(Members members, co_await open_members(start, Create::kIfBlank));
    auto array = co_await open_array(start, members, Create::kIfBlank);
    if (!array) {
        co_return std::unexpected(explain(start, std::move(array).error(), ""));
    }
    co_return std::move(members).with(*std::move(array));
}

/// The file members that do not exist yet; their directories do afterwards.
std::vector<std::string> files_to_make(const ArrayStart& start) {
    std::vector<std::string> out;
    for (const auto* list : {&start.array.members, &start.array.spares}) {
        for (const config::Member& member : *list) {
            const std::string path = start.state.resolve(member.path);
            std::error_code bad;
            if (member.kind == config::MemberKind::kFile && !std::filesystem::exists(path, bad) && !bad) {
                // If this fails, opening the file fails and says why.
                std::filesystem::create_directories(std::filesystem::path(path).parent_path(), bad);
                out.push_back(path);
            }
        }
    }
    return out;
}

constexpr std::size_t kMostSizes = 256;

/// `known`: of devices that are not in use now, or of a superblock that has not moved yet; they do no harm.
ArrayRecord record_of(const StartedArray& started, std::vector<std::uint64_t> known = {}) {
    ArrayRecord record{ArrayRecord::State::kFormatted, started.array->status().uuid, std::move(known)};
    for (const auto& device : started.devices) {
        record.bytes.push_back(bytes_of(device->limits().sectors));
    }
    std::ranges::sort(record.bytes);
    const auto doubles = std::ranges::unique(record.bytes);
    record.bytes.erase(doubles.begin(), doubles.end());
    if (record.bytes.size() > kMostSizes) {
        record.bytes.erase(record.bytes.begin(), record.bytes.end() - kMostSizes);  // devices only grow
    }
    return record;
}

/// AR2: takes back what a refused format() has made.
Result<void> take_back(const ArrayStart& start, const std::vector<std::string>& made) {
    for (const std::string& path : made) {
        std::error_code ignored;  // an empty file that stays is blank at the next try
        std::filesystem::remove(path, ignored);
    }
    return start.state.remove_array_record(start.array.name);
}

Task<Result<StartedArray>> format(const ArrayStart& start) {
    const std::string& name = start.array.name;
    CO_TRY_VOID(check_blank(start));
    const std::vector<std::string> made = files_to_make(start);
    CO_TRY_VOID(start.state.write_array_record(name, {ArrayRecord::State::kFormatting, Uuid{}, {}}));
    auto members = co_await open_members(start, Create::kIfBlank);
    if (!members) {
        CO_TRY_VOID(take_back(start, made));
        co_return std::unexpected(std::move(members).error());
    }
    auto array = co_await open_array(start, *members, Create::kIfBlank);
    if (!array) {
        leave_silent(start, *members);
        const Errc code = array.error().code;
        if (code == Errc::kRefused || code == Errc::kInvalidArgument || code == Errc::kNoSpace) {
            members->devices.clear();
            CO_TRY_VOID(take_back(start, made));  // it has not touched the members
        }
        co_return std::unexpected(
            explain(start, std::move(array).error(),
                    code == Errc::kRefused ? "if these members hold this array already, set create = false" : ""));
    }
    StartedArray started = (*std::move(members)).with(*std::move(array));
    const ArrayRecord record = record_of(started);
    if (auto written = start.state.write_array_record(name, record); !written) {
        co_await give_up(start, started);
        co_return std::unexpected(explain(start, std::move(written).error(), ""));
    }
    start.environment.events.emit(
        {Severity::kInfo, "array-created", fmt::format("array {}", name),
         fmt::format("formatted with {} members, uuid {}", start.array.members.size(), record.uuid.text()), ""});
    co_return started;
}

std::string_view advice_for(Errc code) {
    switch (code) {
        case Errc::kNeedsForce:
            return "start gemeld once with --force and the array's name if you accept that";
        case Errc::kNotFound:
            return "check the paths of its members; create = true formats blank ones, if the state directory has no "
                   "record of the array";
        default:
            return "";
    }
}

/// A crash came between the two records. The array is complete, untouched or torn; it holds nothing of any host.
Task<Result<StartedArray>> finish_format(const ArrayStart& start) {
    auto started = co_await assemble(start);
    if (!started && started.error().code == Errc::kNotFound) {
        if (!start.array.create) {  // AR1
            co_return std::unexpected(explain(start, std::move(started).error(), advice_for(Errc::kNotFound)));
        }
        co_return co_await format(start);
    }
    if (started && started->array->status().state == raid::ArrayState::kOptimal) {
        CO_TRY_VOID(start.state.write_array_record(start.array.name, record_of(*started)));
        co_return started;
    }
    if (started) {
        co_await give_up(start, *started);
    }
    co_return fail(
        Errc::kRefused,
        fmt::format("array '{}': its creation was interrupted and not all of its members were formatted{}{}. "
                    "It holds no data: wipe its members (remove those that are files) and remove {}",
                    start.array.name, started ? "" : ": ", started ? "" : started.error().message,
                    start.state.resolve("arrays/" + start.array.name)));
}

Task<Result<StartedArray>> open_existing(const ArrayStart& start, std::optional<ArrayRecord> record) {
    auto started = co_await assemble(start);
    if (!started) {
        const std::string_view advice = advice_for(started.error().code);
        co_return std::unexpected(explain(start, std::move(started).error(), advice));
    }
    const Uuid uuid = started->array->status().uuid;
    if (record && record->uuid != uuid) {
        co_await give_up(start, *started);
        co_return fail(Errc::kRefused,
                       fmt::format("array '{}': its members hold the array {}, but {} was created from this state "
                                   "directory. Bring the right members back; or remove {} if these are the right ones",
                                   start.array.name, uuid.text(), record->uuid.text(),
                                   start.state.resolve("arrays/" + start.array.name)));
    }
    if (auto written = remember_devices(start.state, *started); !written) {
        if (!record) {
            co_await give_up(start, *started);
            co_return std::unexpected(explain(start, std::move(written).error(), ""));
        }
        start.environment.events.emit({Severity::kWarning, "devices-not-recorded",
                                       fmt::format("array {}", start.array.name), written.error().message,
                                       "make room in the state directory before a member is extended"});
    }
    co_return started;
}

}  // namespace

Result<void> remember_devices(StateDirectory& state, const StartedArray& started) {
    const std::string name = started.array->status().name;
    TRY(const std::optional<ArrayRecord> record, state.array_record(name));
    const ArrayRecord now = record_of(started, record ? record->bytes : std::vector<std::uint64_t>{});
    return record && *record == now ? Result<void>{} : state.write_array_record(name, now);
}

std::vector<config::LevelRule> level_rules() {
    std::vector<config::LevelRule> rules;
    for (const raid::LevelRow& row : raid::kLevelTable) {
        rules.push_back({std::string(row.name), row.min_members, row.max_members, row.step});
    }
    return rules;
}

Task<Result<StartedArray>> start_array(ArrayStart start) {
    if (start.array.in_memory()) {
        co_return co_await start_in_memory(start);
    }
    CO_TRY(const std::optional<ArrayRecord> record, start.state.array_record(start.array.name));
    if (record && record->state == ArrayRecord::State::kFormatting) {
        co_return co_await finish_format(start);
    }
    if (!record && start.array.create) {
        co_return co_await format(start);
    }
    co_return co_await open_existing(start, record);
}

}  // namespace gemel
