// SPDX-License-Identifier: Apache-2.0
// The verbs of arrays and their jobs.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>

#include "gemel/units.hpp"
#include "target/config/value_syntax.hpp"
#include "tools/gemel/client.hpp"
#include "tools/gemel/render.hpp"
#include "tools/gemel/verb_call.hpp"

namespace gemel::cli {

namespace json = boost::json;

namespace {

std::string member_text(const Invocation& given) {
    return "member " + std::to_string(given.member) + " of array '" + given.array + "'";
}

/// Asks for the array until `runs` says no.
ExitCode wait_for(const Invocation& given, std::string (*progress)(const json::value&),
                  bool (*runs)(const Invocation&, const json::value& array),
                  ExitCode (*end)(const Invocation&, const json::value& array)) {
    return wait_while(given, "array.show", {{"array", given.array}},
                      {[progress](const json::array& list) { return progress(list.at(0)); },
                       [&given, runs](const json::array& list) { return runs(given, list.at(0)); },
                       [&given, end](const json::array& list) { return end(given, list.at(0)); },
                       "it goes on, see 'gemel job list'"});
}

/// The array as array.show has it, or `text`.
void print_array(const Invocation& given, const json::value& array, const std::string& text) {
    print(given.json ? json::serialize(json::array{array}) + "\n" : text);
}

/// A field of a member, or "" if the answer has none such.
std::string member_field(const json::value& array, std::uint64_t member, std::string_view field) {
    const json::object* object = array.if_object();
    const json::value* members = object != nullptr ? object->if_contains("members") : nullptr;
    if (members == nullptr || !members->is_array() || member >= members->get_array().size()) {
        return {};
    }
    return text_of(members->get_array()[member], field, "");
}

std::string state_of(const json::value& array, std::uint64_t member) {
    return member_field(array, member, "state");
}

json::object place_params(const Invocation& given) {
    json::object params{{"array", given.array}, {"member", given.member}};
    if (!given.with.empty()) {
        params["with"] = given.with;
    }
    return params;
}

ExitCode wait_for_rebuild(const Invocation& given) {
    return wait_for(
        given, render_rebuild,
        [](const Invocation& g, const json::value& array) { return state_of(array, g.member) == "rebuilding"; },
        [](const Invocation& g, const json::value& array) {
            const std::string state = state_of(array, g.member);
            if (state != "in-sync") {
                return complain(g, {ExitCode::kRefused, "refused",
                                    member_text(g) + " is " + state + "; see 'gemel events' for the reason"});
            }
            print_array(g, array, member_text(g) + " is in sync\n");
            return ExitCode::kOk;
        });
}

/// `given.with` is the device that the place had before.
ExitCode wait_for_replace(const Invocation& given) {
    return wait_for(
        given, render_rebuild,
        [](const Invocation& g, const json::value& array) {
            return !member_field(array, g.member, "replaced_with").empty();
        },
        [](const Invocation& g, const json::value& array) {
            const std::string state = state_of(array, g.member);
            const std::string device = member_field(array, g.member, "name");
            if (state == "in-sync" && device != g.with) {
                print_array(g, array, member_text(g) + " is " + device + " now\n");
                return ExitCode::kOk;
            }
            const std::string why = state != "in-sync" ? " failed meanwhile: it is " + state + " on " + device
                                                       : " was not replaced: " + device + " stays";
            return complain(
                g, {ExitCode::kRefused, "refused", member_text(g) + why + "; see 'gemel events' for the reason"});
        });
}

/// kInternal when something is left that is wrong.
ExitCode wait_for_scrub(const Invocation& given) {
    return wait_for(
        given, render_scrub,
        [](const Invocation&, const json::value& array) { return text_of(array, "last_scrub.state") == "running"; },
        [](const Invocation& g, const json::value& array) {
            const std::string state = text_of(array, "last_scrub.state");
            if (state != "finished") {
                return complain(g,
                                {ExitCode::kRefused, "refused", "the scrub of array '" + g.array + "' was " + state});
            }
            print_array(g, array, render_last_scrub(array));
            const bool good = number_of(array, "last_scrub.mismatched") == number_of(array, "last_scrub.repaired") &&
                              number_of(array, "last_scrub.unreadable") == 0;
            return good ? ExitCode::kOk : ExitCode::kInternal;
        });
}

/// "the job of array 'r5'", "the scrub of array 'r5'".
std::string job_text(const Invocation& given) {
    return "the " + (given.kind.empty() ? "job" : given.kind) + " of array '" + given.array + "'";
}

json::object job_params(const Invocation& given) {
    json::object params{{"array", given.array}};
    if (!given.kind.empty()) {
        params["kind"] = given.kind;
    }
    return params;
}

}  // namespace

ExitCode list_arrays(const Invocation& given) {
    return show(given, "array.list", render_arrays);
}

ExitCode show_array(const Invocation& given) {
    return show(given, "array.show", render_array_details, {{"array", given.array}});
}

ExitCode fail_member(const Invocation& given) {
    return change(given, "array.fail", {{"array", given.array}, {"member", given.member}, {"force", given.force}},
                  member_text(given) + " is marked failed");
}

ExitCode rebuild_member(const Invocation& given) {
    json::object params = place_params(given);
    const std::string done = member_text(given) + " is being rebuilt; see 'gemel job list'";
    if (!given.wait) {
        return change(given, "array.rebuild", std::move(params), done);
    }
    const auto answer = call(given, "array.rebuild", std::move(params));
    return answer ? wait_for_rebuild(given) : complain(given, answer.error());
}

ExitCode replace_member(const Invocation& given) {
    json::object params = place_params(given);
    if (!given.wait) {
        return change(given, "array.replace", std::move(params),
                      member_text(given) + " is being replaced; see 'gemel job list'");
    }
    const auto before = call(given, "array.show", {{"array", given.array}});
    if (!before || !before->is_array() || before->get_array().empty()) {
        return complain(
            given, before ? Failure{ExitCode::kInternal, "internal", "the daemon names no array"} : before.error());
    }
    Invocation waiting = given;
    waiting.with = member_field(before->get_array().front(), given.member, "name");
    const auto answer = call(given, "array.replace", std::move(params));
    return answer ? wait_for_replace(waiting) : complain(given, answer.error());
}

ExitCode scrub_array(const Invocation& given) {
    json::object params{{"array", given.array}, {"repair", given.repair}};
    if (!given.wait) {
        return change(given, "array.scrub", std::move(params),
                      "array '" + given.array + "' is being scrubbed; see 'gemel job list'");
    }
    const auto answer = call(given, "array.scrub", std::move(params));
    return answer ? wait_for_scrub(given) : complain(given, answer.error());
}

namespace {

/// As TOML has it.
std::string toml_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c;
    }
    return out + "\"";
}

/// PATH, or PATH:SIZE where no such path is. The daemon runs elsewhere: the path is absolute.
struct DeviceArgument {
    std::string path;
    std::string size;  ///< as it was given
};

DeviceArgument device_argument(const std::string& given) {
    std::error_code bad;
    DeviceArgument out{given, ""};
    const std::size_t colon = given.rfind(':');
    if (colon != std::string::npos && !std::filesystem::exists(given, bad) &&
        config::parse_size(given.substr(colon + 1))) {
        out = {given.substr(0, colon), given.substr(colon + 1)};
    }
    out.path = std::filesystem::absolute(out.path, bad).lexically_normal().string();
    return out;
}

/// The table of a member; a file that is there is taken as large as it is.
std::string member_table(const std::string& given) {
    std::error_code bad;
    const DeviceArgument device = device_argument(given);
    std::string size = device.size.empty() ? "" : ", size = " + toml_string(device.size);
    if (size.empty() && std::filesystem::is_regular_file(device.path, bad)) {
        size = ", size = " + std::to_string(round_down(std::filesystem::file_size(device.path, bad), kBlockBytes));
    }
    const bool block = std::filesystem::is_block_file(device.path, bad);
    return "  {kind = " + toml_string(block ? "block" : "file") + ", path = " + toml_string(device.path) + size +
           "},\n";
}

std::string members_of(std::string_view key, const std::vector<std::string>& given) {
    std::string out(key);
    out += " = [\n";
    for (const std::string& member : given) {
        out += member_table(member);
    }
    return out + "]\n";
}

/// The array of the command line, as the configuration file has one.
std::string definition_of(const Invocation& given) {
    std::string out = "[[array]]\nname = " + toml_string(given.array) + "\nlevel = " + toml_string(given.level) + "\n";
    out += given.strip.empty() ? "" : "strip = " + toml_string(given.strip) + "\n";
    out += "create = true\n" + members_of("members", given.members);
    out += given.spares.empty() ? "" : members_of("spares", given.spares);
    std::vector<std::string> volumes = given.volumes;
    if (volumes.empty()) {
        volumes.push_back(given.array);
    }
    for (const std::string& volume : volumes) {
        const std::size_t colon = volume.find(':');
        out += "\n[[volume]]\nname = " + toml_string(volume.substr(0, colon)) +
               "\narray = " + toml_string(given.array) + "\n";
        out += colon == std::string::npos ? "" : "size = " + toml_string(volume.substr(colon + 1)) + "\n";
    }
    return out;
}

}  // namespace

ExitCode create_array(const Invocation& given) {
    const auto created = call(given, "array.create", {{"definition", definition_of(given)}});
    const auto answer = created ? call(given, "array.show", {{"array", given.array}}) : created;
    if (!answer || !answer->is_array() || answer->get_array().empty()) {
        return complain(
            given, answer ? Failure{ExitCode::kInternal, "internal", "the daemon names no array"} : answer.error());
    }
    const json::value& array = answer->get_array().front();
    const std::string first = given.volumes.empty() ? given.array : given.volumes.front();
    print_array(given, array,
                "array '" + given.array + "' is made, of level " + text_of(array, "level", "") + " with " +
                    config::format_size(number_of(array, "bytes")) +
                    ", and is there after a restart, too. For a LUN add such lines to the configuration and start the "
                    "daemon again:\n\n[[target]]\niqn = \"iqn.2026-11.dev.gemel:" +
                    given.array + "\"\nluns = [{lun = 0, volume = " + toml_string(first.substr(0, first.find(':'))) +
                    "}]\n");
    return ExitCode::kOk;
}

ExitCode add_spare(const Invocation& given) {
    const DeviceArgument device = device_argument(given.device);
    json::object params{{"array", given.array}, {"device", device.path}};
    if (!device.size.empty()) {
        params["bytes"] = *config::parse_size(device.size);
    }
    return change(given, "array.add", std::move(params),
                  device.path + " is a spare of array '" + given.array + "', after a restart, too");
}

ExitCode remove_spare(const Invocation& given) {
    const std::string path = device_argument(given.device).path;
    return change(given, "array.remove", {{"array", given.array}, {"device", path}},
                  path + " is no spare of array '" + given.array + "' any more");
}

ExitCode grow_array(const Invocation& given) {
    const auto grown = call(given, "array.grow", {{"array", given.array}});
    const auto answer = grown ? call(given, "array.show", {{"array", given.array}}) : grown;
    if (!answer || !answer->is_array() || answer->get_array().empty()) {
        return complain(
            given, answer ? Failure{ExitCode::kInternal, "internal", "the daemon names no array"} : answer.error());
    }
    const json::value& array = answer->get_array().front();
    print_array(given, array,
                "array '" + given.array + "' has " + config::format_size(number_of(array, "bytes")) + " now, " +
                    config::format_size(number_of(array, "free_bytes")) + " of it free for volumes\n");
    return ExitCode::kOk;
}

ExitCode list_jobs(const Invocation& given) {
    return show(given, "job.list", render_jobs);
}

ExitCode pause_job(const Invocation& given) {
    return change(given, "job.pause", job_params(given), job_text(given) + " is paused");
}

ExitCode resume_job(const Invocation& given) {
    return change(given, "job.resume", job_params(given), job_text(given) + " goes on");
}

ExitCode cancel_job(const Invocation& given) {
    return change(given, "job.cancel", job_params(given), job_text(given) + " ends");
}

ExitCode limit_job(const Invocation& given) {
    const auto bytes = given.size == "none" ? Result<std::uint64_t>(0) : config::parse_size(given.size);
    if (!bytes) {
        return complain(given, {ExitCode::kUsage, "invalid_argument", bytes.error().message + ", or none"});
    }
    json::object params = job_params(given);
    params["bytes_per_second"] = *bytes;
    const std::string jobs = (given.kind.empty() ? "jobs" : given.kind + "s") + " of array '" + given.array + "'";
    return change(
        given, "job.limit", std::move(params),
        *bytes == 0 ? jobs + " have no limit" : jobs + " do at most " + config::format_size(*bytes) + " a second");
}

}  // namespace gemel::cli
