// SPDX-License-Identifier: Apache-2.0
// Result<T>: the value, or an operating error. TRY forms return the error to the caller.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "gemel/error.hpp"

namespace gemel {

template <class T = void>
using Result = std::expected<T, Error>;

/// Shorthand for a failed Result: `return fail(Errc::kNotFound, "no volume 'x'");`
inline std::unexpected<Error> fail(Errc code, std::string message) {
    return std::unexpected<Error>(Error(code, std::move(message)));
}
inline std::unexpected<Error> fail(Errc code) {
    return std::unexpected<Error>(Error(code));
}

}  // namespace gemel

#define GEMEL_CONCAT_(a, b) a##b
#define GEMEL_CONCAT(a, b) GEMEL_CONCAT_(a, b)

#define GEMEL_TRY_(tmp, ret, declaration, expression)                \
    auto tmp = (expression);                                         \
    if (!tmp) {                                                      \
        ret std::unexpected<::gemel::Error>(std::move(tmp).error()); \
    }                                                                \
    declaration = *std::move(tmp)
#define GEMEL_TRY_VOID_(tmp, ret, expression)                        \
    if (auto tmp = (expression); !tmp) {                             \
        ret std::unexpected<::gemel::Error>(std::move(tmp).error()); \
    }

/// TRY(auto x, f()); in a plain function: x = the value, or return the error.
#define TRY(declaration, expression) GEMEL_TRY_(GEMEL_CONCAT(try_result_, __LINE__), return, declaration, expression)
/// TRY_VOID(f()); the same for Result<void>.
#define TRY_VOID(expression) GEMEL_TRY_VOID_(GEMEL_CONCAT(try_result_, __LINE__), return, expression)
/// CO_TRY(auto x, co_await f()); in a coroutine.
#define CO_TRY(declaration, expression) \
    GEMEL_TRY_(GEMEL_CONCAT(try_result_, __LINE__), co_return, declaration, expression)
#define CO_TRY_VOID(expression) GEMEL_TRY_VOID_(GEMEL_CONCAT(try_result_, __LINE__), co_return, expression)
