// SPDX-License-Identifier: Apache-2.0
// The live commands of one session: found by initiator task tag, bounded by the command window, and put in the order of
// their CmdSN (RFC 7143 §4.2.2.1).
//
// Invariants:
//   T1  A tag is in the table from the command's arrival until its answer is handed to the sender or it is dropped.
//   T2  MaxCmdSN <= ExpCmdSN + window - 1 - commands that were ordered and are not answered; it never goes back.
//   T3  At most `window` commands wait for one that precedes them (holes are bounded).
// Threads: the session's processor.
#pragma once

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "target/iscsi/data_transfer.hpp"

namespace gemel::iscsi {

enum class CmdSnPosition : std::uint8_t {
    kNext,     ///< its turn
    kEarly,    ///< inside the window, but something before it is missing
    kOutside,  ///< before ExpCmdSN or after MaxCmdSN: silently ignored
};

class CommandWindow {
  public:
    /// REQUIRES: `first` of `size` commands, at least 1, may come before widen().
    CommandWindow(std::uint32_t first_cmd_sn, std::uint32_t first, std::uint32_t size)
        : exp_cmd_sn_(first_cmd_sn), max_cmd_sn_(first_cmd_sn + first - 1), size_(size) {
        CHECK(first >= 1 && first <= size);
    }
    [[nodiscard]] std::uint32_t exp_cmd_sn() const { return exp_cmd_sn_; }
    [[nodiscard]] std::uint32_t max_cmd_sn() const { return max_cmd_sn_; }
    [[nodiscard]] CmdSnPosition position(std::uint32_t cmd_sn) const;
    /// The command with ExpCmdSN has had its turn.
    void advance() { ++exp_cmd_sn_; }
    /// An ordered SCSI command takes a place until it is answered.
    void take() { ++unanswered_; }
    void give_back() {
        CHECK(unanswered_ > 0);
        --unanswered_;
    }
    /// Lets up to `most` further commands come, as far as the window has places; at least one when none is unanswered,
    /// since no answer would tell the initiator that it may go on.
    void widen(std::uint32_t most);
    [[nodiscard]] std::uint32_t unanswered() const { return unanswered_; }

  private:
    std::uint32_t exp_cmd_sn_;
    std::uint32_t max_cmd_sn_;
    std::uint32_t size_;
    std::uint32_t unanswered_ = 0;
};

/// A request other than a SCSI command, with its data, ready to be handled when its turn comes.
struct ControlRequest {
    BhsBytes bhs{};
    Buffer data;
    std::size_t data_bytes = 0;
    MemoryShare::Grant memory;  ///< for `data`, while the request waits
    [[nodiscard]] std::string_view text() const { return as_text(ConstBytes(data.memory()).first(data_bytes)); }
};

/// What waits for its CmdSN. monostate: nothing; Plugged: the number counts as received (an aborted command).
struct Plugged {};
using HeldRequest = std::variant<std::monostate, Plugged, ScsiTask*, std::unique_ptr<ControlRequest>>;

class TaskSet {
  public:
    static constexpr std::uint32_t kMostWindow = 256;
    static constexpr std::uint32_t kMostImmediate = 16;  ///< immediate SCSI commands at a time

    TaskSet() : table_(kTableSize, nullptr) {}

    /// A cleared task, not yet in the table.
    ScsiTask& allocate();
    /// REQUIRES: not in the table, or erase() was called.
    void release(ScsiTask& task);
    [[nodiscard]] ScsiTask* find(std::uint32_t initiator_task_tag) const;
    /// REQUIRES: the tag is not in the table.
    void insert(ScsiTask& task);
    void erase(ScsiTask& task);
    [[nodiscard]] std::uint32_t immediate_count() const { return immediate_; }

    /// Every task that is not free, in order of allocation.
    template <class Function>
    void for_each(Function&& f) {
        for (const auto& task : all_) {
            if (task->state != TaskState::kFree) {
                f(*task);
            }
        }
    }

    /// The place of a request that waits for `cmd_sn`.
    HeldRequest& held(std::uint32_t cmd_sn);
    /// Takes what waits for `cmd_sn`; monostate if nothing.
    HeldRequest take_held(std::uint32_t cmd_sn);

  private:
    static constexpr std::size_t kTableSize = 1024;  ///< at most a third full
    static std::size_t slot_of(std::uint32_t tag) { return (tag * 0x9e3779b1U) >> 22U; }

    std::vector<std::unique_ptr<ScsiTask>> all_;
    std::vector<ScsiTask*> free_;
    std::vector<ScsiTask*> table_;   ///< open addressing, linear probing
    std::vector<HeldRequest> held_;  ///< by cmd_sn modulo kMostWindow; empty until something is early
    std::uint32_t immediate_ = 0;
};

/// What the data takes of the pool that a command may bring without being asked for it.
std::size_t unasked_bytes(const SessionParameters& parameters);
/// How many commands may be let come while a share has `room`: half of it is for their unasked data. At most
/// TaskSet::kMostWindow.
std::uint32_t places_in(std::size_t room, const SessionParameters& parameters);

}  // namespace gemel::iscsi
