// SPDX-License-Identifier: Apache-2.0
// What the verbs share: a call and its answer or error on the right stream, the progress line, waiting.
// Threads: one.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "tools/gemel/client.hpp"
#include "tools/gemel/commands.hpp"

namespace gemel::cli {

inline constexpr auto kPoll = std::chrono::milliseconds(250);

void pause_for(std::chrono::milliseconds time);
void print(const std::string& text);
/// The failure for people or as JSON; returns its exit code.
ExitCode complain(const Invocation& given, const Failure& failure);
Outcome<boost::json::value> call(const Invocation& given, std::string_view method, boost::json::object params);
ExitCode show(const Invocation& given, std::string_view method, std::string (*render)(const boost::json::value&),
              boost::json::object params = {});
/// `done`: the text for people after a change that succeeded.
ExitCode change(const Invocation& given, std::string_view method, boost::json::object params, const std::string& done);

/// How a verb waits for what it began. `list`: what a method answers, not empty where one thing was asked for.
struct Waiting {
    std::function<std::string(const boost::json::array& list)> progress;
    std::function<bool(const boost::json::array& list)> runs;
    std::function<ExitCode(const boost::json::array& list)> end;  ///< prints what became of it
    std::string_view where;                                       ///< what to do when the time is over
};
/// Asks again until `runs` says no, with a progress line, for at most the time of --timeout.
ExitCode wait_while(const Invocation& given, std::string_view method, const boost::json::object& params,
                    const Waiting& waiting);

/// One line that is drawn over itself on a terminal; elsewhere a line only when it has changed, at most one a second.
class ProgressLine {
  public:
    ProgressLine();
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    void draw(const std::string& line);
    void clear();

  private:
    const bool on_terminal_;
    bool drawn_ = false;
    std::string last_;
    std::chrono::steady_clock::time_point shown_{};
};

}  // namespace gemel::cli
