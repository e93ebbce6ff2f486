// SPDX-License-Identifier: Apache-2.0
// The daemon's Management of arrays and their jobs.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>

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

Task<Result<void>> Daemon::array_fail(std::string array, std::uint64_t member) {
    CO_TRY(StartedArray * started, check_array(array));
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await started->array->fail_member(
        static_cast<std::uint32_t>(std::min<std::uint64_t>(member, raid::kMostPlaces)));
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
                    fmt::format("array '{}' has no member or spare '{}'; add it to 'spares' in the configuration "
                                "and start the daemon again",
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

Task<Result<json::value>> Daemon::job_list() {
    json::array out;
    for (const StartedArray& started : arrays_) {
        const raid::ArrayStatus status = started.array->status();
        if (status.rebuild) {
            json::object job = job_json(*status.rebuild);
            job["array"] = status.name;
            out.push_back(std::move(job));
        }
    }
    co_return json::value(std::move(out));
}

Task<Result<void>> Daemon::job_order(std::string array, JobOrder order, std::uint64_t limit) {
    CO_TRY(StartedArray * started, check_array(array));
    raid::Job& job = *started->array->job(raid::JobKind::kRebuild);
    if (order == JobOrder::kLimit) {
        job.set_limit(limit);  // also for those to come
        co_return Result<void>{};
    }
    if (!job.running()) {
        co_return fail(Errc::kNotFound, fmt::format("array '{}' has no job", array));
    }
    if (order == JobOrder::kCancel) {
        job.cancel();
    } else {
        job.pause(order == JobOrder::kPause);
    }
    co_return Result<void>{};
}

}  // namespace gemel
