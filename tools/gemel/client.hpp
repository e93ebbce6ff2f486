// SPDX-License-Identifier: Apache-2.0
// AdminClient: the other end of the daemon's admin socket, for one blocking caller.
// Threads: one.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <expected>
#include <string>
#include <string_view>

#include "tools/gemel/exit_code.hpp"

namespace gemel::cli {

/// Why a call did not succeed; the message is for people.
struct Failure {
    ExitCode code = ExitCode::kInternal;
    std::string errc;  ///< stable name; "unreachable" when no daemon answers
    std::string message;
};
template <class T>
using Outcome = std::expected<T, Failure>;

class AdminClient {
  public:
    static Outcome<AdminClient> connect(const std::string& socket_path);
    AdminClient(AdminClient&& other) noexcept;
    AdminClient& operator=(AdminClient&& other) noexcept;
    ~AdminClient();

    /// Calls a method and waits for its answer. Notifications that arrive before it are kept for next_event().
    Outcome<boost::json::value> call(std::string_view method, boost::json::object params);
    /// Waits for the next event after `events` with follow.
    Outcome<boost::json::value> next_event();

  private:
    AdminClient(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
    Outcome<boost::json::object> read_message();
    [[nodiscard]] Failure lost(std::string_view why) const;

    int descriptor_;
    std::string path_;
    std::string input_;
    std::string kept_;  ///< notifications, one per line
    std::uint64_t next_id_ = 1;
};

}  // namespace gemel::cli
