// SPDX-License-Identifier: Apache-2.0
// The result of a run, as text for people or as one JSON object for scripts.
// Threads: one.
#pragma once

#include <string>

#include "tools/loadgen/options.hpp"
#include "tools/loadgen/runner.hpp"

namespace gemel::loadgen {

/// One line of JSON; every latency in microseconds, every time in seconds.
std::string as_json(const Options& options, const RunResult& result, const Ledger* ledger);
/// A few lines of text.
std::string as_text(const Options& options, const RunResult& result, const Ledger* ledger);

}  // namespace gemel::loadgen
