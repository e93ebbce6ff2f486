// SPDX-License-Identifier: Apache-2.0
// What the target owes us: per sector the last acknowledged write, and the writes whose outcome nobody knows. Kept in a
// file between runs, so that a later run checks the same promises after a crash, on another node, or both.
//
// Invariants:
// L1  known(s) == 0: no write to s was ever acknowledged, so any content is right.
// L2  a write without a status stays possible until a later write to the sector is acknowledged or a read shows which
//     value the sector has; from then on that value alone is right.
//
// File (little-endian): 0 magic u64, 8 version u32, 12 CRC32C u32 of everything after byte 16, 16 volume tag u64,
// 24 sectors u64, 32 next sequence u64, 40 number of possible writes u64, 48 sectors x u64 acknowledged sequence,
// then {sector u64, sequence u64} per possible write.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gemel/bytes.hpp"
#include "gemel/result.hpp"

namespace gemel::loadgen {

class Ledger {
  public:
    Ledger() = default;
    /// A ledger that owes nothing yet. `volume_tag` tells this volume's sectors from all others.
    Ledger(std::uint64_t volume_tag, std::uint64_t sectors);

    [[nodiscard]] std::uint64_t volume_tag() const { return volume_tag_; }
    [[nodiscard]] std::uint64_t sectors() const { return acknowledged_.size(); }
    [[nodiscard]] std::uint64_t possible_writes() const { return possible_.size(); }
    std::uint64_t next_sequence() { return next_sequence_++; }
    /// The volume grew: new sectors owe nothing. A smaller size is ignored, so that lost sectors are reported.
    void grow(std::uint64_t sectors);

    void acknowledged(std::uint64_t lba, std::uint64_t sectors, std::uint64_t sequence);
    void possible(std::uint64_t lba, std::uint64_t sectors, std::uint64_t sequence);
    /// True if any sector of the range has content that can be checked.
    [[nodiscard]] bool owes(std::uint64_t lba, std::uint64_t sectors) const;
    /// Checks one sector that was read and settles what it proves. Empty when right, else what is wrong.
    std::string check(std::uint64_t lba, ConstBytes sector);

    [[nodiscard]] std::vector<std::byte> encode() const;
    /// Errors: kCorrupt with the reason.
    static Result<Ledger> decode(ConstBytes file);

  private:
    std::uint64_t volume_tag_ = 0;
    std::uint64_t next_sequence_ = 1;
    std::vector<std::uint64_t> acknowledged_;
    std::multimap<std::uint64_t, std::uint64_t> possible_;
};

/// Reads a ledger file. Errors: kNotFound when there is none, kIo, kCorrupt.
Result<Ledger> load_ledger(const std::string& path);
/// Replaces the file in one step (temporary file, fsync, rename).
Result<void> save_ledger(const std::string& path, const Ledger& ledger);

}  // namespace gemel::loadgen
