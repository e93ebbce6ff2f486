// SPDX-License-Identifier: Apache-2.0
// JSON-RPC texts and the method table.
#include "target/admin/json_rpc.hpp"

#include <gtest/gtest.h>

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>

#include "target/admin/method_table.hpp"

namespace gemel::admin {
namespace {

namespace json = boost::json;

TEST(JsonRpc, AGoodRequestGivesItsPartsAndAMissingIdMakesItANotification) {
    const auto request = parse_request(R"({"jsonrpc":"2.0","id":7,"method":"promote","params":{"volume":"v"}})");
    ASSERT_TRUE(request.has_value());
    EXPECT_EQ(request->id, json::value(7));
    EXPECT_EQ(request->method, "promote");
    EXPECT_EQ(request->params.at("volume").as_string(), "v");
    const auto notification = parse_request(R"({"jsonrpc":"2.0","method":"status"})");
    ASSERT_TRUE(notification.has_value());
    EXPECT_FALSE(notification->id.has_value());
    EXPECT_TRUE(parse_request(R"({"jsonrpc":"2.0","id":null,"method":"status"})")->id.has_value());
}

TEST(JsonRpc, EachBadRequestGetsTheCodeOfTheProtocol) {
    struct Case {
        std::string_view line;
        RpcCode code;
        std::string_view id;
    };
    for (const Case& c : std::array{
             Case{"not json", RpcCode::kParseError, "null"},
             Case{"{\"a\":", RpcCode::kParseError, "null"},
             Case{"[[[[[[[[[[[[1]]]]]]]]]]]]", RpcCode::kParseError, "null"},
             Case{"[]", RpcCode::kInvalidRequest, "null"},
             Case{"3", RpcCode::kInvalidRequest, "null"},
             Case{R"({"id":1,"method":"status"})", RpcCode::kInvalidRequest, "1"},
             Case{R"({"jsonrpc":"1.0","id":1,"method":"status"})", RpcCode::kInvalidRequest, "1"},
             Case{R"({"jsonrpc":"2.0","id":"x"})", RpcCode::kInvalidRequest, "\"x\""},
             Case{R"({"jsonrpc":"2.0","id":1,"method":4})", RpcCode::kInvalidRequest, "1"},
             Case{R"({"jsonrpc":"2.0","id":{},"method":"status"})", RpcCode::kInvalidRequest, "null"},
             Case{R"({"jsonrpc":"2.0","id":1,"method":"status","params":[1]})", RpcCode::kInvalidParams, "1"},
         }) {
        const auto request = parse_request(c.line);
        ASSERT_FALSE(request.has_value()) << c.line;
        const json::object& answer = request.error();
        EXPECT_EQ(answer.at("error").at("code").to_number<int>(), static_cast<int>(c.code)) << c.line;
        EXPECT_EQ(json::serialize(answer.at("id")), c.id) << c.line;
    }
}

TEST(JsonRpc, AnOperatingErrorHasItsNumberAndItsStableName) {
    const json::object answer = make_error(1, Error(Errc::kNeedsForce, "say --force"));
    EXPECT_EQ(answer.at("error").at("code").to_number<int>(), static_cast<int>(Errc::kNeedsForce));
    EXPECT_EQ(answer.at("error").at("message").as_string(), "say --force");
    EXPECT_EQ(answer.at("error").at("data").at("errc").as_string(), "needs_force");
}

TEST(MethodTable, NamesAreUniqueAndEveryRowSaysWhatItDoes) {
    std::set<std::string_view> names;
    for (const MethodRow& row : method_table()) {
        EXPECT_TRUE(names.insert(row.name).second) << row.name;
        EXPECT_FALSE(row.meaning.empty()) << row.name;
        EXPECT_EQ(find_method(row.name), &row);
        for (const ParamSpec& p : row.params) {
            EXPECT_FALSE(p.meaning.empty()) << row.name << " " << p.name;
        }
    }
    EXPECT_EQ(find_method("nonsense"), nullptr);
    EXPECT_EQ(describe_methods().as_array().size(), method_table().size());
}

TEST(MethodTable, ParametersAreCheckedAgainstTheRow) {
    struct Case {
        std::string_view method;
        std::string_view params;
        std::string_view says;  ///< empty: good
    };
    for (const Case& c : std::array{
             Case{"status", "{}", ""},
             Case{"status", R"({"x":1})", "has no parameter 'x'"},
             Case{"promote", R"({"volume":"v","force":true})", ""},
             Case{"promote", R"({"volume":3})", "'volume' of 'promote' is not a string"},
             Case{"promote", R"({"volume":"v","force":"yes"})", "'force' of 'promote' is not true or false"},
             Case{"promote", R"({"force":true})", "needs the parameter 'volume'"},
             Case{"mirror.resize", R"({"volume":"v","bytes":4096})", ""},
             Case{"mirror.resize", R"({"volume":"v","bytes":-1})", "not a whole number"},
             Case{"mirror.resize", R"({"volume":"v","bytes":1.5})", "not a whole number"},
             Case{"mirror.resize", R"({"volume":"v","bytes":18446744073709551615})", ""},
         }) {
        const json::value params = json::parse(c.params);
        const auto checked = check_params(*find_method(c.method), params.as_object());
        if (c.says.empty()) {
            EXPECT_TRUE(checked.has_value()) << c.params;
        } else {
            ASSERT_FALSE(checked.has_value()) << c.params;
            EXPECT_NE(checked.error().message.find(c.says), std::string::npos) << checked.error().message;
        }
    }
}

}  // namespace
}  // namespace gemel::admin
