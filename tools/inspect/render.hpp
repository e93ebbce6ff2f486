// SPDX-License-Identifier: Apache-2.0
// A report as text for people, or as one JSON object.
// Threads: any.
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "tools/inspect/member_report.hpp"

namespace gemel::inspect {

std::string as_text(const Report& report);
boost::json::object as_json(const Report& report);

}  // namespace gemel::inspect
