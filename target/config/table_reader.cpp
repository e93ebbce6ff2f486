// SPDX-License-Identifier: Apache-2.0
#include "target/config/table_reader.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "target/config/value_syntax.hpp"

namespace gemel::config {

Place place_of(const toml::node& node) {
    const toml::source_position at = node.source().begin;
    return {at.line, at.column};
}

std::string_view kind_of(const toml::node& node) {
    switch (node.type()) {
        case toml::node_type::string:
            return "a string";
        case toml::node_type::integer:
            return "an integer";
        case toml::node_type::floating_point:
            return "a number with a fraction";
        case toml::node_type::boolean:
            return "true or false";
        case toml::node_type::array:
            return "an array";
        case toml::node_type::table:
            return "a table";
        default:
            return "a date or time";
    }
}

Place TableReader::place(std::string_view key) const {
    const toml::node* node = table_.get(key);
    return node != nullptr ? place_of(*node) : place_;
}

void TableReader::mistake(std::string_view key, std::string message) {
    mistakes_.push_back({place(key), std::move(message)});
}

const toml::node* TableReader::take(std::string_view key, Presence presence, std::string_view expected) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr && presence == Presence::kRequired) {
        mistakes_.push_back({place_, fmt::format("{} has no '{}'; expected {}", what_, key, expected)});
    }
    return node;
}

void TableReader::wrong_kind(const toml::node& node, std::string_view key, std::string_view expected) {
    mistakes_.push_back({place_of(node), fmt::format("'{}' is {}; expected {}", key, kind_of(node), expected)});
}

void TableReader::unknown_word(std::string_view key, std::string_view given, std::span<const std::string_view> known) {
    std::string all;
    for (const std::string_view w : known) {
        all += fmt::format("{}\"{}\"", all.empty() ? "" : " or ", w);
    }
    const auto near = did_you_mean(given, known);
    mistake(key, fmt::format("'{}' = \"{}\" is not known{}; expected {}", key, given,
                             near ? fmt::format(", did you mean \"{}\"?", *near) : "", all));
}

void TableReader::text(std::string_view key, std::string& to, Presence presence) {
    constexpr std::string_view kExpected = "a string";
    const toml::node* node = take(key, presence, kExpected);
    if (node == nullptr) {
        return;
    }
    const toml::value<std::string>* value = node->as_string();
    if (value == nullptr) {
        wrong_kind(*node, key, kExpected);
    } else if (value->get().empty()) {
        mistake(key, fmt::format("'{}' is empty; expected some text", key));
    } else if (value->get().find('\0') != std::string::npos) {
        mistake(key, fmt::format("'{}' has a NUL character in it", key));
    } else {
        to = value->get();
    }
}

void TableReader::flag(std::string_view key, bool& to) {
    std::optional<bool> value;
    flag(key, value);
    to = value.value_or(to);
}

void TableReader::flag(std::string_view key, std::optional<bool>& to) {
    const toml::node* node = take(key, Presence::kOptional, "true or false");
    if (node == nullptr) {
        return;
    }
    if (const toml::value<bool>* value = node->as_boolean()) {
        to = value->get();
    } else {
        wrong_kind(*node, key, "true or false");
    }
}

void TableReader::number(std::string_view key, std::uint64_t& to, std::uint64_t low, std::uint64_t high,
                         Presence presence) {
    const std::string expected = fmt::format("a whole number from {} to {}", low, high);
    const toml::node* node = take(key, presence, expected);
    if (node == nullptr) {
        return;
    }
    const toml::value<std::int64_t>* value = node->as_integer();
    if (value == nullptr) {
        wrong_kind(*node, key, expected);
    } else if (value->get() < 0 || static_cast<std::uint64_t>(value->get()) < low ||
               static_cast<std::uint64_t>(value->get()) > high) {
        mistake(key, fmt::format("'{}' is {}; expected {}", key, value->get(), expected));
    } else {
        to = static_cast<std::uint64_t>(value->get());
    }
}

void TableReader::number(std::string_view key, std::uint32_t& to, std::uint32_t low, std::uint32_t high) {
    std::uint64_t wide = to;
    number(key, wide, low, high, Presence::kOptional);
    to = static_cast<std::uint32_t>(wide);
}

void TableReader::size(std::string_view key, std::uint64_t& to, std::uint64_t low, std::uint64_t high,
                       Presence presence) {
    constexpr std::string_view kExpected = "a size such as \"512MiB\" or a number of bytes";
    const toml::node* node = take(key, presence, kExpected);
    if (node == nullptr) {
        return;
    }
    std::uint64_t bytes = 0;
    if (const toml::value<std::string>* value = node->as_string()) {
        const auto parsed = parse_size(value->get());
        if (!parsed) {
            mistake(key, fmt::format("'{}': {}", key, parsed.error().message));
            return;
        }
        bytes = *parsed;
    } else if (const toml::value<std::int64_t>* count = node->as_integer(); count != nullptr && count->get() >= 0) {
        bytes = static_cast<std::uint64_t>(count->get());
    } else {
        wrong_kind(*node, key, kExpected);
        return;
    }
    if (bytes < low || bytes > high) {
        mistake(key, fmt::format("'{}' is {}; expected {} to {}", key, format_size(bytes), format_size(low),
                                 format_size(high)));
        return;
    }
    to = bytes;
}

void TableReader::size(std::string_view key, std::uint32_t& to, std::uint32_t low, std::uint32_t high) {
    std::uint64_t wide = to;
    size(key, wide, low, high, Presence::kOptional);
    to = static_cast<std::uint32_t>(wide);
}

void TableReader::duration(std::string_view key, Duration& to, Duration low, Duration high) {
    constexpr std::string_view kExpected = "a time such as \"500ms\" or \"2s\"";
    const toml::node* node = take(key, Presence::kOptional, kExpected);
    if (node == nullptr) {
        return;
    }
    const toml::value<std::string>* value = node->as_string();
    if (value == nullptr) {
        wrong_kind(*node, key, kExpected);
        return;
    }
    const auto parsed = parse_duration(value->get());
    if (!parsed) {
        mistake(key, fmt::format("'{}': {}", key, parsed.error().message));
    } else if (*parsed < low || *parsed > high) {
        const auto ms = [](Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
        mistake(key, fmt::format("'{}' is {} ms; expected {} ms to {} ms", key, ms(*parsed), ms(low), ms(high)));
    } else {
        to = *parsed;
    }
}

void TableReader::texts(std::string_view key, std::vector<std::string>& to) {
    constexpr std::string_view kExpected = "an array of strings";
    const toml::node* node = take(key, Presence::kOptional, kExpected);
    if (node == nullptr) {
        return;
    }
    const toml::array* array = node->as_array();
    if (array == nullptr) {
        wrong_kind(*node, key, kExpected);
        return;
    }
    if (array->empty()) {
        mistake(key, fmt::format("'{0}' is an empty list; expected at least one string in it, or no '{0}'", key));
    }
    for (const toml::node& element : *array) {
        if (const toml::value<std::string>* value = element.as_string()) {
            to.push_back(value->get());
        } else {
            wrong_kind(element, key, "only strings in it");
        }
    }
}

void TableReader::initiator_patterns(std::string_view key, std::vector<std::string>& to) {
    texts(key, to);
    for (std::string& pattern : to) {
        std::ranges::transform(pattern, pattern.begin(),
                               [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
        if (const auto why = why_bad_initiator_pattern(pattern)) {
            mistake(key, *why);
        }
    }
}

void TableReader::word(std::string_view key, std::string& to, Presence presence) {
    const toml::node* node = table_.get(key);
    const toml::value<std::int64_t>* number = node != nullptr ? node->as_integer() : nullptr;
    if (number == nullptr) {
        text(key, to, presence);
        return;
    }
    known_.push_back(key);
    to = std::to_string(number->get());
}

void TableReader::table(std::string_view key, const Each& each) {
    const toml::node* node = take(key, Presence::kOptional, "a table");
    if (node == nullptr) {
        return;
    }
    const toml::table* table = node->as_table();
    if (table == nullptr) {
        wrong_kind(*node, key, fmt::format("one table, written [{}]", key));
        return;
    }
    TableReader reader(*table, fmt::format("[{}]", key), place_of(*node), mistakes_);
    each(reader);
    reader.finish();
}

void TableReader::tables(std::string_view key, Presence presence, const Each& each) {
    const std::string expected = fmt::format("tables, written [[{0}]] or {0} = [{{...}}, ...]", key);
    const toml::node* node = take(key, presence, expected);
    if (node == nullptr) {
        return;
    }
    const toml::array* array = node->as_array();
    if (array == nullptr) {
        wrong_kind(*node, key, expected);
        return;
    }
    for (const toml::node& element : *array) {
        const toml::table* table = element.as_table();
        if (table == nullptr) {
            wrong_kind(element, key, expected);
            continue;
        }
        TableReader reader(*table, fmt::format("[[{}]]", key), place_of(element), mistakes_);
        each(reader);
        reader.finish();
    }
}

void TableReader::finish() {
    for (const auto& [key, node] : table_) {
        const std::string_view name = key.str();
        if (std::ranges::find(known_, name) != known_.end()) {
            continue;
        }
        std::vector<std::string_view> sorted = known_;
        std::ranges::sort(sorted);
        std::string all;
        for (const std::string_view k : sorted) {
            all += fmt::format("{}{}", all.empty() ? "" : ", ", k);
        }
        const auto near = did_you_mean(name, known_);
        const toml::source_position at = key.source().begin;
        mistakes_.push_back({{at.line, at.column},
                             fmt::format("unknown key '{}' in {}{}; expected one of: {}", name, what_,
                                         near ? fmt::format(", did you mean '{}'?", *near) : "", all)});
    }
}

}  // namespace gemel::config
