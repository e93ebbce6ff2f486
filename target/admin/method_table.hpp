// SPDX-License-Identifier: Apache-2.0
// The methods of the admin protocol: one row each, with its parameters. `methods` itself answers from this table.
// Threads: the admin server's executor.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "target/admin/management.hpp"

namespace gemel::admin {

enum class ParamKind : std::uint8_t { kText, kNumber, kFlag };
enum class Need : std::uint8_t { kOptional, kRequired };

struct ParamSpec {
    std::string_view name;
    ParamKind kind;
    Need need;
    std::string_view meaning;
};

/// Parameters that check_params() has accepted.
class Params {
  public:
    explicit Params(const boost::json::object& values) : values_(values) {}
    [[nodiscard]] std::string text(std::string_view name) const;      ///< empty when not given
    [[nodiscard]] std::uint64_t number(std::string_view name) const;  ///< 0 when not given
    [[nodiscard]] bool flag(std::string_view name) const;             ///< false when not given
    [[nodiscard]] bool has(std::string_view name) const { return values_.contains(name); }

  private:
    const boost::json::object& values_;
};

struct MethodRow {
    std::string_view name;
    std::span<const ParamSpec> params;
    /// nullptr: the server answers it itself, since it concerns the connection (`events`, `methods`).
    Task<Result<boost::json::value>> (*handler)(Management&, Params);
    std::string_view meaning;
};

std::span<const MethodRow> method_table();
/// nullptr if there is no such method.
const MethodRow* find_method(std::string_view name);
/// Errors: kInvalidArgument: a parameter is unknown, missing or of the wrong kind; the text names it.
Result<void> check_params(const MethodRow& row, const boost::json::object& params);
/// The table as JSON.
boost::json::value describe_methods();

}  // namespace gemel::admin
