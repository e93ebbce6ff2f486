// SPDX-License-Identifier: Apache-2.0
// The daemon's Management of arrays and their jobs.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <vector>

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

Task<Result<void>> Daemon::array_scrub(std::string array, bool repair) {
    CO_TRY(StartedArray * started, check_array(array));
    Executor& home = Executor::current();
    co_await resume_on(runtime_.processors().io(0));
    Result<void> r = co_await started->array->scrub(repair ? raid::ScrubMode::kRepair : raid::ScrubMode::kCheck);
    co_await resume_on(home);
    co_return r;
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
