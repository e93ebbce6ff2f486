// SPDX-License-Identifier: Apache-2.0
// Events: what an operator must learn. Each says what happened, to what, why, and what to do about it.
#pragma once

#include <string>
#include <string_view>

namespace gemel {

enum class Severity : unsigned char { kInfo, kWarning, kError };

struct EventRecord {
    Severity severity = Severity::kInfo;
    std::string_view id;  ///< stable, kebab-case: "pair-severed", "member-failed"
    std::string subject;  ///< "volume vol1", "array r5 member 2"
    std::string cause;
    std::string action;  ///< what to do; empty when nothing
};

/// Threads: any. Never blocks.
class EventSink {
  public:
    virtual ~EventSink() = default;
    virtual void emit(EventRecord event) = 0;
};

}  // namespace gemel
