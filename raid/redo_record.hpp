// SPDX-License-Identifier: Apache-2.0
// Redo record: what the redo log appends to the durable log before members change: the bytes that parts of them will
// hold. Partial record: the same of what members hold that does not change (partial_parity.hpp).
//
// Invariants:
//   RR1 A record is of one stripe, and what it holds makes the columns that it covers right whatever of them was
//       written: it can be done again any number of times.
//   RR2 A part is for one device, named by its tag, not for whatever has the place later.
//   RR3 A record that cannot be understood is an error for all of them.
//   RR4 The bytes of the parts are mixed with a sequence of pseudorandom numbers that each record has its own of:
//       hosts' sectors often end with their own CRC32C, and a page of the log in which a crash left a sector of an
//       older record would else have the right one.
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
inline constexpr std::size_t kPartialRunBytes = 8;
inline constexpr std::uint16_t kPartialVersion = 1;

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

/// Blocks of 4 KiB of one stripe's strips of which the same strips are written.
struct PartialRun {
    std::uint32_t first = 0;
    std::uint32_t blocks = 0;
    std::uint32_t written = 0;  ///< data strips, as bits; all of them: nothing is told of the others
    ConstBytes parity;          ///< exclusive or of the data strips that are not; borrowed; empty if all are
};

struct PartialRecord {
    StripeIndex stripe;
    std::vector<PartialRun> runs;
    std::uint32_t seed = 0;          ///< RR4
    std::vector<std::byte> content;  ///< what the runs of a decoded record borrow from
};

/// The data strips of a stripe, as bits.
constexpr std::uint32_t all_data_strips(const Geometry& geometry) {
    return (1U << geometry.data_members()) - 1;
}

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

/// REQUIRES: why_invalid gives nothing.
std::vector<std::byte> encode(const PartialRecord& record);

/// It is a partial record, if anything.
bool is_partial_record(ConstBytes bytes);
/// Errors: as decode_redo_record.
Result<PartialRecord> decode_partial_record(ConstBytes bytes, const Geometry& geometry);
std::optional<std::string> why_invalid(const PartialRecord& record, const Geometry& geometry);

/// Why the record cannot be one of an array of this geometry; nothing when it can.
std::optional<std::string> why_invalid(const RedoRecord& record, const Geometry& geometry);

}  // namespace gemel::raid
