// SPDX-License-Identifier: Apache-2.0
// TableReader: takes the values of one TOML table by key, noting a mistake where a value has the wrong form, and at the
// end one for every key that nobody asked for.
//
// Invariants:
//   TR1 The known keys of a table are exactly those that were asked for: there is no second list to keep equal.
//   TR2 A getter that notes a mistake leaves the value as it was, so that reading goes on and finds the next one.
// Threads: used by one thread.
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "target/config/config.hpp"

namespace gemel::config {

Place place_of(const toml::node& node);
/// "a string", "an integer" ...
std::string_view kind_of(const toml::node& node);

enum class Presence : std::uint8_t { kOptional, kRequired };

template <class T>
struct Choice {
    std::string_view word;
    T value;
};

class TableReader {
  public:
    /// `what` names the table in messages: "[[array]]".
    TableReader(const toml::table& table, std::string what, Place place, std::vector<Mistake>& mistakes)
        : table_(table), what_(std::move(what)), place_(place), mistakes_(mistakes) {}

    /// The place of a key's value, or of the table.
    [[nodiscard]] Place place(std::string_view key) const;
    [[nodiscard]] Place place() const { return place_; }

    void text(std::string_view key, std::string& to, Presence presence);
    void flag(std::string_view key, bool& to);
    /// Nothing where the key is not there.
    void flag(std::string_view key, std::optional<bool>& to);
    /// A whole number from `low` to `high`.
    void number(std::string_view key, std::uint64_t& to, std::uint64_t low, std::uint64_t high, Presence presence);
    void number(std::string_view key, std::uint32_t& to, std::uint32_t low, std::uint32_t high);
    /// "512MiB" or a number of bytes.
    void size(std::string_view key, std::uint64_t& to, std::uint64_t low, std::uint64_t high, Presence presence);
    void size(std::string_view key, std::uint32_t& to, std::uint32_t low, std::uint32_t high);
    void duration(std::string_view key, Duration& to, Duration low, Duration high);
    /// An empty list is a mistake: nobody could say whether it means everything or nothing.
    void texts(std::string_view key, std::vector<std::string>& to);
    /// Names of initiators, in any case, '*' for any text; kept in lower case.
    void initiator_patterns(std::string_view key, std::vector<std::string>& to);
    /// A word or a bare number, both as text: level = 5, level = "raid5".
    void word(std::string_view key, std::string& to, Presence presence);

    template <class T>
    void choice(std::string_view key, T& to, std::span<const Choice<T>> choices) {
        std::string given;
        text(key, given, Presence::kOptional);
        if (given.empty()) {
            return;
        }
        std::vector<std::string_view> words;
        for (const Choice<T>& c : choices) {
            if (c.word == given) {
                to = c.value;
                return;
            }
            words.push_back(c.word);
        }
        unknown_word(key, given, words);
    }

    using Each = std::function<void(TableReader&)>;
    /// [key]: one table.
    void table(std::string_view key, const Each& each);
    /// [[key]], or key = [{...}, {...}].
    void tables(std::string_view key, Presence presence, const Each& each);

    void mistake(std::string_view key, std::string message);
    /// Notes every key that was not asked for.
    void finish();

  private:
    const toml::node* take(std::string_view key, Presence presence, std::string_view expected);
    void wrong_kind(const toml::node& node, std::string_view key, std::string_view expected);
    void unknown_word(std::string_view key, std::string_view given, std::span<const std::string_view> known);

    const toml::table& table_;
    std::string what_;
    Place place_;
    std::vector<Mistake>& mistakes_;
    std::vector<std::string_view> known_;
};

}  // namespace gemel::config
