// SPDX-License-Identifier: Apache-2.0
// JSON-RPC 2.0 texts: one request or notification in, one answer out. No I/O.
// Threads: pure functions.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "gemel/error.hpp"

namespace gemel::admin {

/// Codes of the protocol itself; an operating error has the positive number of its Errc.
enum class RpcCode : int {
    kParseError = -32700,
    kInvalidRequest = -32600,
    kMethodNotFound = -32601,
    kInvalidParams = -32602,
};

struct Request {
    std::optional<boost::json::value> id;  ///< nothing: a notification, which gets no answer
    std::string method;
    boost::json::object params;
};

/// The request in `line`, or the error answer to send.
std::expected<Request, boost::json::object> parse_request(std::string_view line);

boost::json::object make_result(const boost::json::value& id, boost::json::value result);
boost::json::object make_error(const boost::json::value& id, RpcCode code, std::string_view message);
/// data.errc is the stable name of the error.
boost::json::object make_error(const boost::json::value& id, const Error& error);
boost::json::object make_notification(std::string_view method, boost::json::value params);

}  // namespace gemel::admin
