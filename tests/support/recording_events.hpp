// SPDX-License-Identifier: Apache-2.0
// RecordingEvents: keeps every event, so that tests can ask what an operator would have learnt.
// Threads: the simulator's one.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "gemel/event_sink.hpp"

namespace gemel::sim {

class RecordingEvents : public EventSink {
  public:
    struct Kept {
        Severity severity;
        std::string id;
        std::string subject;
        std::string cause;
        std::string action;
    };
    void emit(EventRecord event) override {
        if (listener) {
            listener(event);
        }
        kept_.push_back(Kept{event.severity, std::string(event.id), std::move(event.subject), std::move(event.cause),
                             std::move(event.action)});
    }
    [[nodiscard]] std::size_t count(std::string_view id) const {
        return static_cast<std::size_t>(std::ranges::count(kept_, id, &Kept::id));
    }
    [[nodiscard]] bool has(std::string_view id) const { return count(id) > 0; }
    [[nodiscard]] const std::vector<Kept>& all() const { return kept_; }
    void clear() { kept_.clear(); }

    std::function<void(const EventRecord&)> listener;  ///< told of each, if set

  private:
    std::vector<Kept> kept_;
};

}  // namespace gemel::sim
