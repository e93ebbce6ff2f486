// SPDX-License-Identifier: Apache-2.0
#include "tools/gemel/verb_call.hpp"

#include <poll.h>
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <cstdio>

namespace gemel::cli {

namespace json = boost::json;

void pause_for(std::chrono::milliseconds time) {
    ::poll(nullptr, 0, static_cast<int>(time.count()));
}

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

ExitCode complain(const Invocation& given, const Failure& failure) {
    if (given.json) {
        print(json::serialize(json::object{{"error", json::object{{"errc", failure.errc},
                                                                  {"exit_code", static_cast<int>(failure.code)},
                                                                  {"message", failure.message}}}}) +
              "\n");
    } else {
        std::fprintf(stderr, "gemel: %s\n", failure.message.c_str());
    }
    return failure.code;
}

Outcome<json::value> call(const Invocation& given, std::string_view method, json::object params) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return std::unexpected(std::move(client).error());
    }
    return client->call(method, std::move(params));
}

ExitCode show(const Invocation& given, std::string_view method, std::string (*render)(const json::value&),
              json::object params) {
    const auto answer = call(given, method, std::move(params));
    if (!answer) {
        return complain(given, answer.error());
    }
    print(given.json ? json::serialize(*answer) + "\n" : render(*answer));
    return ExitCode::kOk;
}

ExitCode change(const Invocation& given, std::string_view method, json::object params, const std::string& done) {
    const auto answer = call(given, method, std::move(params));
    if (!answer) {
        return complain(given, answer.error());
    }
    print(given.json ? json::serialize(*answer) + "\n" : done + "\n");
    return ExitCode::kOk;
}

ExitCode wait_while(const Invocation& given, std::string_view method, const json::object& params,
                    const Waiting& waiting) {
    auto client = AdminClient::connect(given.socket);
    if (!client) {
        return complain(given, client.error());
    }
    ProgressLine line;
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
        const auto answer = client->call(method, params);
        if (!answer || !answer->is_array() || (answer->get_array().empty() && !params.empty())) {
            line.clear();
            return complain(given, answer ? Failure{ExitCode::kInternal, "internal", "the daemon's answer is no list"}
                                          : answer.error());
        }
        const json::array& list = answer->get_array();
        if (!waiting.runs(list)) {
            line.clear();
            return waiting.end(list);
        }
        line.draw(waiting.progress(list));
        if (given.timeout_seconds != 0 &&
            std::chrono::steady_clock::now() - start > std::chrono::seconds(given.timeout_seconds)) {
            line.clear();
            return complain(given, {ExitCode::kBusy, "timed_out",
                                    "not done within " + std::to_string(given.timeout_seconds) + " s; " +
                                        std::string(waiting.where)});
        }
        pause_for(kPoll);
    }
}

ProgressLine::ProgressLine() : on_terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
    clear();
}

void ProgressLine::draw(const std::string& line) {
    if (on_terminal_) {
        std::fprintf(stderr, "\r\033[K%s", line.c_str());
        std::fflush(stderr);
        drawn_ = !line.empty();
        return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (!line.empty() && line != last_ && now - shown_ >= std::chrono::seconds(1)) {
        std::fprintf(stderr, "%s\n", line.c_str());
        last_ = line;
        shown_ = now;
    }
}

void ProgressLine::clear() {
    if (drawn_) {
        draw("");
    }
}

}  // namespace gemel::cli
