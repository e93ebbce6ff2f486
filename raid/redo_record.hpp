// SPDX-License-Identifier: Apache-2.0
// Redo record: what the redo log appends to the durable log before members change: the bytes that parts of them will
// hold.
//
// Invariants:
//   RR1 A record is of one stripe, and what it holds makes the columns that it covers right whatever of them was
//       written: it can be done again any number of times.
//   RR2 A part is for one device, named by its tag, not for whatever has the place later.
//   RR3 A record that cannot be understood is an error for all of them.
//   RR4 The bytes of the parts are mixed with a sequence of pseudorandom numbers that each record has its own of:
//   hosts'
//       sectors often end with their own CRC32C, and a page of the log in which a crash left a sector of an older
//       record would else have the right one.
// Threads: any.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"
#include "raid/geometry.hpp"

namespace gemel::raid {

inline constexpr std::size_t kRedoHeaderBytes = 24;
inline constexpr std::size_t kRedoPartBytes = 24;
inline constexpr std::uint16_t kRedoVersion = 1;

/// Sectors of one member, as they are to be.
struct RedoPart {
    std::uint32_t member = 0;
    std::uint64_t tag = 0;  ///< of the device that had the place (superblock.hpp: device_tag())
    Lba lba;                ///< on the member
    ConstBytes bytes;       ///< borrowed
};

struct RedoRecord {
    StripeIndex stripe;
    std::vector<RedoPart> parts;
    std::uint32_t seed = 0;          ///< RR4
    std::vector<std::byte> content;  ///< what the parts of a decoded record borrow from
};

/// How many bytes of members fit into a record of `room` bytes that has so many parts.
constexpr std::size_t redo_bytes_in(std::size_t room, std::size_t parts) {
    const std::size_t heads = kRedoHeaderBytes + parts * kRedoPartBytes;
    return room < heads ? 0 : room - heads;
}

constexpr std::size_t redo_record_bytes(std::size_t parts, std::size_t bytes_of_each) {
    return kRedoHeaderBytes + parts * (kRedoPartBytes + bytes_of_each);
}

/// REQUIRES: why_invalid gives nothing.
std::vector<std::byte> encode(const RedoRecord& record);

/// Errors: kUnsupported: a newer version. kCorrupt.
Result<RedoRecord> decode_redo_record(ConstBytes bytes, const Geometry& geometry);

/// Why the record cannot be one of an array of this geometry; nothing when it can.
std::optional<std::string> why_invalid(const RedoRecord& record, const Geometry& geometry);

}  // namespace gemel::raid
