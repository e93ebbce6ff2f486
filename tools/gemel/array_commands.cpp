// SPDX-License-Identifier: Apache-2.0
// The verbs of arrays and their jobs.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <expected>
#include <limits>
#include <optional>

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

/// The member in an answer of array.show; null if there is none such.
json::value member_of(const json::value& arrays, std::uint64_t member) {
    const json::array* list = arrays.if_array();
    const json::object* array = list != nullptr && !list->empty() ? list->front().if_object() : nullptr;
    const json::value* members = array != nullptr ? array->if_contains("members") : nullptr;
    if (members == nullptr || !members->is_array() || member >= members->get_array().size()) {
        return nullptr;
    }
    return members->get_array()[member];
}

bool is_replaced(const json::value& member) {
    const json::object* fields = member.if_object();
    const json::value* with = fields != nullptr ? fields->if_contains("replaced_with") : nullptr;
    return with != nullptr && with->is_string();
}

json::object place_params(const Invocation& given) {
    json::object params{{"array", given.array}, {"member", given.member}};
    if (!given.with.empty()) {
        params["with"] = given.with;
    }
    return params;
}

using JobEnd = std::optional<std::expected<std::string, std::string>>;

/// Draws the progress of a rebuild or a replace until `ended` says what became of it, given the member.
template <class Ended>
ExitCode wait_for_job(const Invocation& given, Ended ended) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    ProgressLine line;
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
        const auto answer = client->call("array.show", {{"array", given.array}});
        if (!answer) {
            line.clear();
            return complain(given, answer.error());
        }
        if (const JobEnd end = ended(member_of(*answer, given.member))) {
            line.clear();
            if (*end) {
                print(given.json ? json::serialize(*answer) + "\n" : member_text(given) + " " + **end + "\n");
                return ExitCode::kOk;
            }
            return complain(given, {ExitCode::kRefused, "refused",
                                    member_text(given) + " " + end->error() + "; see 'gemel events' for the reason"});
        }
        line.draw(render_rebuild(answer->get_array().front()));
        if (given.timeout_seconds != 0 &&
            std::chrono::steady_clock::now() - start > std::chrono::seconds(given.timeout_seconds)) {
            line.clear();
            return complain(given, {ExitCode::kBusy, "timed_out",
                                    member_text(given) + " is not ready within " +
                                        std::to_string(given.timeout_seconds) + " s; the job goes on"});
        }
        pause_for(kPoll);
    }
}

JobEnd end_of_rebuild(const json::value& member) {
    const std::string state = text_of(member, "state");
    if (state == "rebuilding") {
        return std::nullopt;
    }
    return state == "in-sync" ? JobEnd(std::in_place, "is in sync")
                              : JobEnd(std::in_place, std::unexpect, "is " + state);
}

JobEnd end_of_replace(const json::value& member, const std::string& old) {
    if (is_replaced(member)) {
        return std::nullopt;
    }
    const std::string state = text_of(member, "state");
    const std::string device = text_of(member, "name");
    if (state != "in-sync") {
        return JobEnd(std::in_place, std::unexpect, "failed meanwhile: it is " + state + " on " + device);
    }
    return device == old ? JobEnd(std::in_place, std::unexpect, "was not replaced: " + old + " stays")
                         : JobEnd(std::in_place, "is " + device + " now");
}

}  // namespace

ExitCode list_arrays(const Invocation& given) {
    return show(given, "array.list", render_arrays);
}

ExitCode show_array(const Invocation& given) {
    return show(given, "array.show", render_array_details, {{"array", given.array}});
}

ExitCode fail_member(const Invocation& given) {
    return change(given, "array.fail", {{"array", given.array}, {"member", given.member}},
                  member_text(given) + " is marked failed");
}

ExitCode rebuild_member(const Invocation& given) {
    json::object params = place_params(given);
    const std::string done = member_text(given) + " is being rebuilt; see 'gemel job list'";
    if (!given.wait) {
        return change(given, "array.rebuild", std::move(params), done);
    }
    const auto answer = call(given, "array.rebuild", std::move(params));
    return answer ? wait_for_job(given, end_of_rebuild) : complain(given, answer.error());
}

ExitCode replace_member(const Invocation& given) {
    json::object params = place_params(given);
    if (!given.wait) {
        return change(given, "array.replace", std::move(params),
                      member_text(given) + " is being replaced; see 'gemel job list'");
    }
    const auto before = call(given, "array.show", {{"array", given.array}});
    if (!before) {
        return complain(given, before.error());
    }
    const std::string old = text_of(member_of(*before, given.member), "name");
    const auto answer = call(given, "array.replace", std::move(params));
    return answer ? wait_for_job(given, [&old](const json::value& m) { return end_of_replace(m, old); })
                  : complain(given, answer.error());
}

ExitCode list_jobs(const Invocation& given) {
    return show(given, "job.list", render_jobs);
}

ExitCode pause_job(const Invocation& given) {
    return change(given, "job.pause", {{"array", given.array}}, "the job of array '" + given.array + "' is paused");
}

ExitCode resume_job(const Invocation& given) {
    return change(given, "job.resume", {{"array", given.array}}, "the job of array '" + given.array + "' goes on");
}

ExitCode cancel_job(const Invocation& given) {
    return change(given, "job.cancel", {{"array", given.array}}, "the job of array '" + given.array + "' ends");
}

ExitCode limit_job(const Invocation& given) {
    const auto bytes = given.size == "none" ? Result<std::uint64_t>(0) : config::parse_size(given.size);
    if (!bytes) {
        return complain(given, {ExitCode::kUsage, "invalid_argument", bytes.error().message + ", or none"});
    }
    return change(given, "job.limit", {{"array", given.array}, {"bytes_per_second", *bytes}},
                  *bytes == 0
                      ? "jobs of array '" + given.array + "' have no limit"
                      : "jobs of array '" + given.array + "' do at most " + config::format_size(*bytes) + " a second");
}

}  // namespace gemel::cli
