// SPDX-License-Identifier: Apache-2.0
// A history in a process of its own, so that a CHECK, a sanitizer report or an endless loop is a failed history and not
// the end of the run; and how such a process tells what came of it: in lines of text.
// Threads: the simulator's one.
#pragma once

#include <cstdio>

#include "tests/sim/history.hpp"

namespace gemel::sim {

void tell(std::FILE* to, const HistoryResult& r);
/// Takes in one line of tell(). True when it was the last one of its history.
bool take_line(HistoryResult& r, std::string_view line);
/// Why a process that ran a history gave no end; `status` as waitpid() gives it, `seconds` what it was allowed.
std::string why_died(int status, unsigned seconds);
/// Runs one history in a child. A child that dies is a violation.
HistoryResult run_apart(const Area& area, const HistoryOptions& options, unsigned seconds);

}  // namespace gemel::sim
