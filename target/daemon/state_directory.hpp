// SPDX-License-Identifier: Apache-2.0
// StateDirectory: what a daemon keeps beside its members: a lock, so that it is the only one, and a record of every
// array that it has formatted, so that it never formats one again, and finds one whose members were extended; also
// what operators have added to the configuration: arrays and spares.
//
// Invariants:
//   SD1 One process holds the directory from open() to its death.
//   SD2 A record is written to another name, synced, renamed, and the directory synced: after a crash it is the old one
//       or the new one.
//   SD3 The record kFormatting is durable before the first byte of a member changes; kFormatted follows when the array
//       is complete. An array without a record has never been touched from here.
// Threads: one; the calls block for short file operations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/clock.hpp"
#include "gemel/result.hpp"

namespace gemel {

struct ArrayRecord {
    enum class State : std::uint8_t { kFormatting, kFormatted };
    State state = State::kFormatting;
    Uuid uuid;                           ///< nil while kFormatting
    std::vector<std::uint64_t> bytes{};  ///< of its devices, when they were last looked at
    friend bool operator==(const ArrayRecord&, const ArrayRecord&) = default;
};

/// A device that `gemel array add` has given to an array as a spare; it may have got a place since.
struct AddedSpare {
    std::string kind;  ///< a row of the backend table
    std::string path;  ///< absolute, without a line break
    std::uint64_t bytes = 0;
    friend bool operator==(const AddedSpare&, const AddedSpare&) = default;
};

/// What `gemel array create` has added to the configuration: tables of the configuration file.
struct CreatedArray {
    std::string name;
    std::string definition;
};
/// All of them, by name. The directory need not be open. Errors: kIo, kRefused.
Result<std::vector<CreatedArray>> created_arrays(const std::string& state_directory);

/// The record as text, with its checksum; and back. Errors: kCorrupt says what is wrong.
std::string encode_record(const ArrayRecord& record);
Result<ArrayRecord> decode_record(std::string_view text);
std::string encode_spares(const std::vector<AddedSpare>& spares);
Result<std::vector<AddedSpare>> decode_spares(std::string_view text);

class StateDirectory {
  public:
    /// Makes the directory (mode 0700) if it is not there and takes its lock, waiting up to `wait` for another daemon.
    /// Errors: kBusy names the holder; kRefused, kIo.
    static Result<StateDirectory> open(std::string path, Duration wait);
    StateDirectory(StateDirectory&& other) noexcept;
    StateDirectory& operator=(StateDirectory&& other) noexcept;
    ~StateDirectory();

    /// Absolute.
    [[nodiscard]] const std::string& path() const { return path_; }
    /// `path` itself if it is absolute, else under the directory.
    [[nodiscard]] std::string resolve(std::string_view path) const;

    /// Nothing if the array was never formatted from here. Errors: kCorrupt, kIo.
    [[nodiscard]] Result<std::optional<ArrayRecord>> array_record(const std::string& array) const;
    /// Durable when it returns. Errors: kNoSpace, kIo.
    Result<void> write_array_record(const std::string& array, const ArrayRecord& record);
    /// Durable when it returns.
    Result<void> remove_array_record(const std::string& array);
    /// Durable when it returns (SD2). Errors: kNoSpace, kIo.
    Result<void> write_created(const CreatedArray& array);
    Result<void> remove_created(const std::string& array);
    /// Of the array. Errors: kCorrupt, kIo.
    [[nodiscard]] Result<std::vector<AddedSpare>> added_spares(const std::string& array) const;
    /// Durable when it returns (SD2). Errors: kNoSpace, kIo.
    Result<void> write_added_spares(const std::string& array, const std::vector<AddedSpare>& spares);

  private:
    StateDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
    [[nodiscard]] std::string record_path(const std::string& array) const;
    [[nodiscard]] std::string created_path(const std::string& array) const;
    [[nodiscard]] std::string spares_path(const std::string& array) const;

    std::string path_;
    int lock_;
};

}  // namespace gemel
