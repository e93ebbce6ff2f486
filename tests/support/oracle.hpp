// SPDX-License-Identifier: Apache-2.0
// Oracle: knows, for every sector of one volume, which values a read may return, by the rules of "Durability, in one
// place". Every written sector carries {magic, write, lba, volume, writer, crc}, so that a value names its write and
// stale, torn, misplaced, foreign and corrupt ones are told apart.
//
// A volume has one leg (an array) or two (a pair). A sector has candidates: the writes whose value it may hold.
// Invariants:
//   O1  Write v is before write w if v had ended when w began, or when a read began that returned w. A write that ended
//       in an error or a crash may have happened or not; an open one may happen any time.
//   O2  A read may return a candidate that was alive at some time between its start and its end.
//   O3  An acknowledged write ends the lives of those before it; so does the first read that returns a value whose
//       write has ended (the value is pinned), unless an error, not a crash, left it open.
//   O4  A leg holds what was acknowledged with it. Power loss takes from a leg what was not durable there. Writes
//   before
//       one that a leg of those now served from surely holds stay dead; all others live again: lost only if every leg
//       that held it has lost power since.
//   O5  A flush, when acknowledged, makes durable on its legs what had ended before it began; FUA its own write.
// Threads: the simulator's one. Time is counted in calls, so that no two things happen at once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory_resource>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gemel/block_device.hpp"
#include "gemel/buffer.hpp"
#include "gemel/units.hpp"

namespace gemel::sim {

using LegMask = std::uint8_t;
inline constexpr LegMask kLegA = 1;
inline constexpr LegMask kLegB = 2;

enum class Verdict : std::uint8_t {
    kLost,          ///< an acknowledged write is gone after a crash
    kStale,         ///< an older value without a crash
    kResurrected,   ///< a value that a read had shown to be gone
    kTorn,          ///< parts of two writes in one sector
    kMisplaced,     ///< of another address
    kForeign,       ///< of another volume
    kCorrupt,       ///< of no write at all
    kNeverWritten,  ///< a well-formed sector that nobody has written yet
};
[[nodiscard]] std::string_view verdict_name(Verdict v);

struct Violation {
    Verdict verdict;
    std::string text;
};

class Oracle {
  public:
    using Id = std::uint64_t;

    Oracle(std::uint32_t volume, SectorCount sectors, LegMask legs);

    /// A write, or with `zeros` a discard, begins. Its sectors' contents are made by stamp().
    Id begin_write(Lba lba, SectorCount sectors, bool zeros);
    /// Fills `to` with what write `id` writes. REQUIRES: as many sectors as it began with.
    void stamp(Id id, MutableBytes to) const;
    void acknowledge(Id id, bool fua, LegMask legs);
    /// The write returned an error: per sector old or new from now on.
    void fail_write(Id id);

    Id begin_read(Lba lba, SectorCount sectors);
    /// Checks what the read returned, sector by sector. Blocks marked unreadable are passed over.
    /// Returns the sectors that were unreadable although their values are known here.
    std::vector<Lba> end_read(Id id, Slice data, LegMask served_by);
    void drop_read(Id id) { reads_.erase(id); }

    Id begin_flush() { return ++tick_; }
    void end_flush(Id id, LegMask legs);

    /// Whoever served the volume is gone: every open write has ended without an answer.
    void crash();
    /// Unflushed data of these legs is uncertain from now on (O4). Values that a read has pinned since the last power
    /// loss came from the media and stay, unless `settled` is false: another copy may decide, which the leg did not
    /// finish.
    void power_loss(LegMask legs, bool settled = true);
    /// The volume is served again, from a copy that these legs together determine.
    void serve_from(LegMask legs);
    /// Leg `to` is a copy of leg `from`, durable where that was.
    void synced(LegMask from, LegMask to);
    /// The contents may be anything, unreadable too, until written again.
    void undefine(Lba lba, SectorCount sectors);
    void resize(SectorCount sectors);

    /// A moment, for written_since().
    Id mark() { return ++tick_; }
    /// Where writes began after that moment, whatever became of them.
    [[nodiscard]] std::vector<Extent> written_since(Id mark) const;
    /// Sectors of writes that are open, or not durable on every leg.
    [[nodiscard]] std::vector<std::uint64_t> unsettled(bool open_only) const;
    [[nodiscard]] SectorCount sectors() const { return SectorCount(sectors_.size()); }
    [[nodiscard]] std::size_t open_writes() const { return open_.size(); }
    [[nodiscard]] bool overlaps_open(Lba lba, SectorCount sectors) const;
    [[nodiscard]] const std::vector<Violation>& violations() const { return violations_; }
    [[nodiscard]] std::uint64_t sectors_checked() const { return checked_; }
    /// Everything known about a sector, for a failure report.
    [[nodiscard]] std::string describe(std::uint64_t sector) const;

  private:
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};
    static constexpr std::uint32_t kInitial = 0;  ///< the zeros before any write
    static constexpr std::uint32_t kAnything = 1;

    enum class State : std::uint8_t { kOpen, kAcknowledged, kFailed, kUnknown };
    struct Write {
        Lba lba;
        std::uint64_t sectors;
        std::uint64_t began;
        std::uint64_t ended;
        State state;
        bool zeros;
    };
    struct Candidate {
        std::uint32_t write;
        std::array<std::uint64_t, 4> pinned{};  ///< by leg: start of the last read there that returned it
        std::uint64_t seen = kNever;            ///< end of the first such read
        std::uint64_t died = kNever;            ///< a read that began later may not return it
        bool died_by_read = false;
        LegMask on = 0;       ///< legs that surely hold it, or something newer
        LegMask durable = 0;  ///< legs where it survives power loss
        LegMask settled = 0;  ///< legs that returned it after a power loss before which it was written
    };
    struct Read {
        Lba lba;
        std::uint64_t sectors;
        std::uint64_t began;
    };
    using Candidates = std::pmr::vector<Candidate>;

    [[nodiscard]] Candidates& at(std::uint64_t sector);
    [[nodiscard]] bool before(const Candidate& v, const Candidate& w, LegMask legs) const;
    [[nodiscard]] Candidate* allowed(Candidates& list, const Read& read, std::uint32_t write);
    [[nodiscard]] Candidate* allowed_zeros(Candidates& list, const Read& read);
    void check_sector(const Read& read, std::uint64_t sector, ConstBytes data, LegMask served_by);
    void pin(Candidates& list, Candidate& seen, const Read& read, LegMask served_by);
    void tidy(Candidates& list) const;
    static void forget_unheld(Candidate& c);
    void judge_wrong(std::uint64_t sector, const Read& read, std::uint32_t write);
    void report(Verdict verdict, std::uint64_t sector, const std::string& what);
    [[nodiscard]] std::uint64_t oldest_read() const;

    std::uint32_t volume_;
    LegMask legs_;
    LegMask served_from_;
    std::uint64_t tick_ = 1;
    std::uint64_t last_crash_ = 0;
    std::array<std::uint64_t, 4> last_power_loss_{};  ///< by leg
    std::vector<Write> writes_;
    std::set<std::uint32_t> open_;
    std::pmr::unsynchronized_pool_resource memory_;  ///< of candidates
    std::pmr::vector<Candidates> sectors_;           ///< empty: only the initial zeros
    std::map<Id, Read> reads_;
    std::vector<Violation> violations_;
    std::uint64_t checked_ = 0;
};

}  // namespace gemel::sim
