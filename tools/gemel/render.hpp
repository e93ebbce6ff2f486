// SPDX-License-Identifier: Apache-2.0
// The daemon's answers for people: aligned tables and one-line progress. Fields that an older or newer daemon does not
// send are shown as '-'.
// Threads: pure functions.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gemel::cli {

/// Columns as wide as their widest cell. The first row is the heading.
std::string render_table(const std::vector<std::vector<std::string>>& rows);

std::string render_status(const boost::json::value& status);
std::string render_volumes(const boost::json::value& volumes);
std::string render_sessions(const boost::json::value& sessions);
/// Of LUNs since the daemon's start and of sessions; and of LUNs since an earlier answer, per second.
std::string render_statistics(const boost::json::value& statistics);
std::string render_statistics_since(const boost::json::value& statistics, const boost::json::value& earlier,
                                    double seconds);
/// One line per pair; with details what a single pair is about, line by line.
std::string render_pairs(const boost::json::value& pairs);
std::string render_pair_details(const boost::json::object& pair);
std::string render_arrays(const boost::json::value& arrays);
std::string render_array_details(const boost::json::value& arrays);
std::string render_jobs(const boost::json::value& jobs);
/// "r5: rebuild of member 1: 45 % of 512 MiB, 120 MiB/s, 0:03 left", or a replace; empty when none runs.
std::string render_rebuild(const boost::json::value& array);
/// The same of a scrub.
std::string render_scrub(const boost::json::value& array);
/// What the last scrub found, in one line; empty when there was none.
std::string render_last_scrub(const boost::json::value& array);
/// "vol1: verify: 45 % of 512 MiB, 120 MiB/s, 0:03 left"; empty when none is under way.
std::string render_verify(const boost::json::value& pair);
/// What the last one found, with the first addresses; empty when there was none.
std::string render_last_verify(const boost::json::value& pair);
std::string render_event(const boost::json::value& event);

/// "vol1: resync to beta: 45 % of 512 MiB, 120 MiB/s, 0:03 left"; empty when no resync runs.
std::string render_progress(const boost::json::object& pair);

// Fields by path ("sequence.local"); the fallback when they are missing or of another kind.
std::string text_of(const boost::json::value& from, std::string_view path, std::string_view fallback = "-");
std::uint64_t number_of(const boost::json::value& from, std::string_view path);
bool flag_of(const boost::json::value& from, std::string_view path);

}  // namespace gemel::cli
