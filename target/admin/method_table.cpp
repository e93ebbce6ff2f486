// SPDX-License-Identifier: Apache-2.0
#include "target/admin/method_table.hpp"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>

namespace gemel::admin {

namespace json = boost::json;

namespace {

using Answer = Task<Result<json::value>>;

/// The result of a method that only does something.
Answer done(Task<Result<void>> work) {
    CO_TRY_VOID(co_await std::move(work));
    co_return json::value(json::object{{"done", true}});
}

constexpr std::array kNoParams = std::array<ParamSpec, 0>{};
constexpr ParamSpec kVolume{"volume", ParamKind::kText, Need::kRequired, "name of the volume here"};
constexpr std::array kVolumeFilter{
    ParamSpec{"volume", ParamKind::kText, Need::kOptional, "only this volume"},
};
constexpr std::array kEstablish{
    kVolume,
    ParamSpec{"peer", ParamKind::kText, Need::kRequired, "name of the peer node"},
    ParamSpec{"peer_volume", ParamKind::kText, Need::kOptional, "name of the volume there; default the same"},
    ParamSpec{"overwrite", ParamKind::kFlag, Need::kOptional, "go on although the peer's volume is not blank"},
};
constexpr std::array kForce{
    kVolume,
    ParamSpec{"force", ParamKind::kFlag, Need::kOptional, "without contact to the peer"},
};
constexpr std::array kReEstablish{
    kVolume,
    ParamSpec{"from", ParamKind::kText, Need::kOptional, "node whose data is kept"},
    ParamSpec{"force", ParamKind::kFlag, Need::kOptional, "full copy where no common base is known"},
};
constexpr std::array kResize{
    kVolume,
    ParamSpec{"bytes", ParamKind::kNumber, Need::kRequired, "new size"},
    ParamSpec{"shrink", ParamKind::kFlag, Need::kOptional, "the new size may be smaller"},
};
constexpr ParamSpec kArray{"array", ParamKind::kText, Need::kRequired, "name of the array"};
constexpr ParamSpec kPlace{"member", ParamKind::kNumber, Need::kRequired, "number of its place, from 0"};
constexpr std::array kOneArray{kArray};
constexpr std::array kFail{
    kArray,
    kPlace,
    ParamSpec{"force", ParamKind::kFlag, Need::kOptional, "although parity is not right yet everywhere"},
};
constexpr std::array kCreate{
    ParamSpec{"definition", ParamKind::kText, Need::kRequired,
              "[[array]] and its [[volume]]s as in the configuration file"},
};
constexpr std::array kAdd{
    kArray,
    ParamSpec{"device", ParamKind::kText, Need::kRequired, "path of a blank device or file"},
    ParamSpec{"bytes", ParamKind::kNumber, Need::kOptional, "size of the file to be made, if there is none"},
};
constexpr std::array kRemove{
    kArray,
    ParamSpec{"device", ParamKind::kText, Need::kRequired, "path of a spare that was added"},
};
constexpr std::array kRebuild{
    kArray,
    kPlace,
    ParamSpec{"with", ParamKind::kText, Need::kOptional, "path of a spare; default the device in the place"},
};
constexpr std::array kScrub{
    kArray,
    ParamSpec{"repair", ParamKind::kFlag, Need::kOptional, "make right what contradicts its redundancy"},
};
constexpr ParamSpec kKind{"kind", ParamKind::kText, Need::kOptional,
                          "rebuild, replace or scrub; default the one that runs"};
constexpr std::array kJob{kArray, kKind};
constexpr std::array kReplace{
    kArray,
    kPlace,
    ParamSpec{"with", ParamKind::kText, Need::kOptional, "path of a spare; default the first one"},
};
constexpr std::array kLimit{
    kArray,
    ParamSpec{"kind", ParamKind::kText, Need::kOptional, "rebuild, replace or scrub; default all"},
    ParamSpec{"bytes_per_second", ParamKind::kNumber, Need::kRequired, "0: no limit"},
};
constexpr std::array kEvents{
    ParamSpec{"since", ParamKind::kNumber, Need::kOptional, "first sequence number; default the oldest kept"},
    ParamSpec{"follow", ParamKind::kFlag, Need::kOptional, "send later ones as notifications, method \"event\""},
};

constexpr std::array kMethods{
    MethodRow{"status", kNoParams, [](Management& m, Params) -> Answer { return m.status(); },
              "node, arrays, volumes, targets, pairs, counters"},
    MethodRow{"volume.list", kNoParams, [](Management& m, Params) -> Answer { return m.volume_list(); },
              "volumes with size, array, LUNs and mirror state"},
    MethodRow{"volume.resize", kResize,
              [](Management& m, Params p) -> Answer {
                  return done(m.volume_resize(p.text("volume"), p.number("bytes"), p.flag("shrink")));
              },
              "change the size of a volume that is not mirrored, then tell the hosts"},
    MethodRow{"session.list", kNoParams, [](Management& m, Params) -> Answer { return m.session_list(); },
              "iSCSI sessions and their counters"},
    MethodRow{"stats", kNoParams, [](Management& m, Params) -> Answer { return m.statistics(); },
              "operations, bytes and latencies of each LUN and session"},
    MethodRow{"mirror.status", kVolumeFilter,
              [](Management& m, Params p) -> Answer { return m.mirror_status(p.text("volume")); },
              "pairs with state, sequence numbers, changed tracks and resync progress"},
    MethodRow{"mirror.establish", kEstablish,
              [](Management& m, Params p) -> Answer {
                  return done(
                      m.mirror_establish(p.text("volume"), p.text("peer"), p.text("peer_volume"), p.flag("overwrite")));
              },
              "make the volume the primary of a new pair and copy all of it"},
    MethodRow{"mirror.sever", kForce,
              [](Management& m, Params p) -> Answer { return done(m.mirror_sever(p.text("volume"), p.flag("force"))); },
              "end the mirroring; changed tracks are recorded from now on"},
    MethodRow{"mirror.re_establish", kReEstablish,
              [](Management& m, Params p) -> Answer {
                  return done(m.mirror_re_establish(p.text("volume"), p.text("from"), p.flag("force")));
              },
              "mirror again; only changed tracks are sent"},
    MethodRow{"mirror.resize", kResize,
              [](Management& m, Params p) -> Answer {
                  return done(m.mirror_resize(p.text("volume"), p.number("bytes"), p.flag("shrink")));
              },
              "change the size on both sides, then tell the hosts"},
    MethodRow{"promote", kForce,
              [](Management& m, Params p) -> Answer { return done(m.promote(p.text("volume"), p.flag("force"))); },
              "make this node the primary of the volume"},
    MethodRow{"array.list", kNoParams, [](Management& m, Params) -> Answer { return m.array_list({}); },
              "arrays with members, spares, resync, rebuild and scrub"},
    MethodRow{"array.show", kOneArray, [](Management& m, Params p) -> Answer { return m.array_list(p.text("array")); },
              "one array, in a list"},
    MethodRow{"array.fail", kFail,
              [](Management& m, Params p) -> Answer {
                  return done(m.array_fail(p.text("array"), p.number("member"), p.flag("force")));
              },
              "mark a member failed"},
    MethodRow{"array.rebuild", kRebuild,
              [](Management& m, Params p) -> Answer {
                  return done(m.array_rebuild(p.text("array"), p.number("member"), p.text("with")));
              },
              "rebuild what belongs to a place that is not in sync"},
    MethodRow{"array.scrub", kScrub,
              [](Management& m, Params p) -> Answer { return done(m.array_scrub(p.text("array"), p.flag("repair"))); },
              "compare every stripe with its redundancy"},
    MethodRow{"array.create", kCreate,
              [](Management& m, Params p) -> Answer { return done(m.array_create(p.text("definition"))); },
              "make an array on blank members and start it; it is there after a restart, too"},
    MethodRow{"array.add", kAdd,
              [](Management& m, Params p) -> Answer {
                  return done(m.array_add(p.text("array"), p.text("device"), p.number("bytes")));
              },
              "give an array a spare; it has it after a restart, too"},
    MethodRow{"array.remove", kRemove,
              [](Management& m, Params p) -> Answer { return done(m.array_remove(p.text("array"), p.text("device"))); },
              "take away a spare that was added and is not used"},
    MethodRow{"array.grow", kOneArray,
              [](Management& m, Params p) -> Answer { return done(m.array_grow(p.text("array"))); },
              "take into use what the members' devices have more than before"},
    MethodRow{"array.replace", kReplace,
              [](Management& m, Params p) -> Answer {
                  return done(m.array_replace(p.text("array"), p.number("member"), p.text("with")));
              },
              "give the place of a member that works to a spare, which gets what it holds first"},
    MethodRow{"job.list", kNoParams, [](Management& m, Params) -> Answer { return m.job_list(); },
              "running jobs with progress, rate and time left"},
    MethodRow{"job.pause", kJob,
              [](Management& m, Params p) -> Answer {
                  return done(m.job_order(p.text("array"), p.text("kind"), Management::JobOrder::kPause, 0));
              },
              "pause the array's job, until it is resumed or the daemon starts again"},
    MethodRow{"job.resume", kJob,
              [](Management& m, Params p) -> Answer {
                  return done(m.job_order(p.text("array"), p.text("kind"), Management::JobOrder::kResume, 0));
              },
              "go on with the array's job"},
    MethodRow{"job.cancel", kJob,
              [](Management& m, Params p) -> Answer {
                  return done(m.job_order(p.text("array"), p.text("kind"), Management::JobOrder::kCancel, 0));
              },
              "end the array's job; it does not go on, what a rebuild has done so far is lost"},
    MethodRow{"job.limit", kLimit,
              [](Management& m, Params p) -> Answer {
                  return done(m.job_order(p.text("array"), p.text("kind"), Management::JobOrder::kLimit,
                                          p.number("bytes_per_second")));
              },
              "bound the rate of the array's jobs"},
    MethodRow{"events", kEvents, nullptr, "events kept, oldest first, and with follow all later ones"},
    MethodRow{"methods", kNoParams, nullptr, "this table"},
};

constexpr std::string_view kind_name(ParamKind kind) {
    constexpr std::array<std::string_view, 3> kNames{"a string", "a whole number", "true or false"};
    return kNames[static_cast<std::size_t>(kind)];
}

bool is_of_kind(const json::value& value, ParamKind kind) {
    switch (kind) {
        case ParamKind::kText:
            return value.is_string();
        case ParamKind::kNumber:
            return value.is_uint64() || (value.is_int64() && value.get_int64() >= 0);
        case ParamKind::kFlag:
            return value.is_bool();
    }
    return false;
}

}  // namespace

std::string Params::text(std::string_view name) const {
    const json::value* v = values_.if_contains(name);
    return v != nullptr ? std::string(v->get_string()) : std::string();
}
std::uint64_t Params::number(std::string_view name) const {
    const json::value* v = values_.if_contains(name);
    if (v == nullptr) {
        return 0;
    }
    return v->is_uint64() ? v->get_uint64() : static_cast<std::uint64_t>(v->get_int64());
}
bool Params::flag(std::string_view name) const {
    const json::value* v = values_.if_contains(name);
    return v != nullptr && v->get_bool();
}

std::span<const MethodRow> method_table() {
    return kMethods;
}

const MethodRow* find_method(std::string_view name) {
    const auto* row = std::ranges::find(kMethods, name, &MethodRow::name);
    return row == kMethods.end() ? nullptr : row;
}

Result<void> check_params(const MethodRow& row, const json::object& params) {
    for (const auto& [key, value] : params) {
        const auto spec = std::ranges::find(row.params, std::string_view(key), &ParamSpec::name);
        if (spec == row.params.end()) {
            return fail(Errc::kInvalidArgument,
                        "method '" + std::string(row.name) + "' has no parameter '" + std::string(key) + "'");
        }
        if (!is_of_kind(value, spec->kind)) {
            return fail(Errc::kInvalidArgument, "parameter '" + std::string(spec->name) + "' of '" +
                                                    std::string(row.name) + "' is not " +
                                                    std::string(kind_name(spec->kind)));
        }
    }
    for (const ParamSpec& spec : row.params) {
        if (spec.need == Need::kRequired && !params.contains(spec.name)) {
            return fail(Errc::kInvalidArgument, "method '" + std::string(row.name) + "' needs the parameter '" +
                                                    std::string(spec.name) + "': " + std::string(spec.meaning));
        }
    }
    return {};
}

json::value describe_methods() {
    json::array methods;
    for (const MethodRow& row : kMethods) {
        json::array params;
        for (const ParamSpec& p : row.params) {
            params.push_back(json::object{{"name", p.name},
                                          {"kind", kind_name(p.kind)},
                                          {"required", p.need == Need::kRequired},
                                          {"meaning", p.meaning}});
        }
        methods.push_back(json::object{{"name", row.name}, {"meaning", row.meaning}, {"params", std::move(params)}});
    }
    return methods;
}

}  // namespace gemel::admin
