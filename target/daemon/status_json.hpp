// SPDX-License-Identifier: Apache-2.0
// What the rooms report, as JSON for the admin protocol. Fields are only added, never renamed.
// Threads: pure functions.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "raid/array.hpp"
#include "replication/replicator.hpp"
#include "target/config/config.hpp"
#include "target/iscsi/portal.hpp"

namespace gemel {

boost::json::object job_json(const raid::JobStatus& status);
boost::json::object array_json(const raid::ArrayStatus& status);
boost::json::object pair_json(const replication::PairStatus& status);
boost::json::object session_json(const iscsi::SessionStatus& status);
boost::json::object statistics_json(const iscsi::ServerStatistics& statistics);
boost::json::object iscsi_json(const iscsi::ServerStatus& status);
boost::json::object target_json(const config::Target& target);

}  // namespace gemel
