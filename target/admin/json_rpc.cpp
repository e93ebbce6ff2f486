// SPDX-License-Identifier: Apache-2.0
#include "target/admin/json_rpc.hpp"

#include <boost/json/parse.hpp>
#include <boost/system/error_code.hpp>

namespace gemel::admin {

namespace json = boost::json;

namespace {

json::object error_answer(const json::value& id, std::int64_t code, std::string_view message) {
    return {{"jsonrpc", "2.0"}, {"id", id}, {"error", json::object{{"code", code}, {"message", message}}}};
}

bool is_id(const json::value& v) {
    return v.is_null() || v.is_string() || v.is_number();
}

}  // namespace

std::expected<Request, json::object> parse_request(std::string_view line) {
    boost::system::error_code bad;
    json::parse_options limits;
    limits.max_depth = 8;
    json::value document = json::parse(line, bad, {}, limits);
    if (bad) {
        return std::unexpected(make_error(nullptr, RpcCode::kParseError, "this line is not JSON: " + bad.message()));
    }
    json::object* object = document.if_object();
    if (object == nullptr) {
        return std::unexpected(
            make_error(nullptr, RpcCode::kInvalidRequest, "expected one JSON object per line; batches are not taken"));
    }
    const json::value* id = object->if_contains("id");
    const json::value answer_id = id != nullptr && is_id(*id) ? *id : json::value(nullptr);
    const json::value* version = object->if_contains("jsonrpc");
    const json::value* method = object->if_contains("method");
    if (version == nullptr || *version != "2.0" || method == nullptr || !method->is_string() ||
        (id != nullptr && !is_id(*id))) {
        return std::unexpected(make_error(
            answer_id, RpcCode::kInvalidRequest,
            "expected {\"jsonrpc\":\"2.0\",\"method\":\"...\",\"params\":{...},\"id\":number, string or null}"));
    }
    Request request;
    if (id != nullptr) {
        request.id = *id;
    }
    request.method = std::string(method->get_string());
    if (json::value* params = object->if_contains("params"); params != nullptr) {
        if (!params->is_object()) {
            return std::unexpected(
                make_error(answer_id, RpcCode::kInvalidParams, "expected params as an object of named parameters"));
        }
        request.params = std::move(params->get_object());
    }
    return request;
}

json::object make_result(const json::value& id, json::value result) {
    return {{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}};
}

json::object make_error(const json::value& id, RpcCode code, std::string_view message) {
    return error_answer(id, static_cast<std::int64_t>(code), message);
}

json::object make_error(const json::value& id, const Error& error) {
    json::object answer = error_answer(id, static_cast<std::int64_t>(error.code), error.message);
    answer["error"].get_object()["data"] = json::object{{"errc", errc_name(error.code)}};
    return answer;
}

json::object make_notification(std::string_view method, json::value params) {
    return {{"jsonrpc", "2.0"}, {"method", method}, {"params", std::move(params)}};
}

}  // namespace gemel::admin
