// SPDX-License-Identifier: Apache-2.0
#include "tests/support/oracle.hpp"

#include <cstring>

#include "gemel/crc32c.hpp"

namespace gemel::sim {

namespace {

constexpr std::array<std::byte, kSectorBytes> kZeroSector{};
constexpr std::uint64_t kMagic = 0x53494d4f5241434cULL;
constexpr std::size_t kMostViolations = 5;  ///< one damaged range is many sectors
constexpr std::size_t kTailAt = kSectorBytes - 12;
constexpr std::size_t kCrcAt = kSectorBytes - 4;

/// A written sector: magic u64, write u64, lba u64, volume u32, filler, write u64, crc32c u32.
struct Stamp {
    bool zeros = false;
    bool magic = false;
    bool crc = false;
    std::uint64_t write = 0;
    std::uint64_t lba = 0;
    std::uint32_t volume = 0;
    std::uint64_t tail = 0;
};

Stamp decode(ConstBytes sector) {
    Stamp s;
    s.zeros = std::memcmp(sector.data(), kZeroSector.data(), kSectorBytes) == 0;
    s.magic = load_le<std::uint64_t>(sector.data()) == kMagic;
    s.write = load_le<std::uint64_t>(sector.data() + 8);
    s.lba = load_le<std::uint64_t>(sector.data() + 16);
    s.volume = load_le<std::uint32_t>(sector.data() + 24);
    s.tail = load_le<std::uint64_t>(sector.data() + kTailAt);
    s.crc = load_le<std::uint32_t>(sector.data() + kCrcAt) == crc32c(sector.first(kCrcAt));
    return s;
}

}  // namespace

std::string_view verdict_name(Verdict v) {
    constexpr std::array<std::string_view, 8> names{"lost",      "stale",   "resurrected", "torn",
                                                    "misplaced", "foreign", "corrupt",     "never written"};
    return names[static_cast<std::size_t>(v)];
}

Oracle::Oracle(std::uint32_t volume, SectorCount sectors, LegMask legs)
    : volume_(volume), legs_(legs), served_from_(legs), sectors_(sectors.value, &memory_) {
    writes_.push_back(Write{Lba(0), sectors.value, 0, 0, State::kAcknowledged, true});   // kInitial
    writes_.push_back(Write{Lba(0), sectors.value, 0, 0, State::kAcknowledged, false});  // kAnything
}

Oracle::Candidates& Oracle::at(std::uint64_t sector) {
    Candidates& list = sectors_.at(sector);
    if (list.empty()) {
        list.push_back(Candidate{.write = kInitial, .on = legs_, .durable = legs_});
    }
    return list;
}

/// O1, by what reads from all of `legs` have shown.
bool Oracle::before(const Candidate& v, const Candidate& w, LegMask legs) const {
    std::uint64_t pinned = kNever;
    for (const LegMask leg : {kLegA, kLegB}) {
        if ((legs & leg) != 0) {
            pinned = std::min(pinned, w.pinned[leg]);
        }
    }
    return writes_[v.write].ended <= std::max(writes_[w.write].began, pinned);
}

std::uint64_t Oracle::oldest_read() const {
    std::uint64_t oldest = tick_;
    for (const auto& [id, read] : reads_) {
        oldest = std::min(oldest, read.began);
    }
    return oldest;
}

Oracle::Id Oracle::begin_write(Lba lba, SectorCount sectors, bool zeros) {
    const auto id = static_cast<std::uint32_t>(writes_.size());
    writes_.push_back(Write{lba, sectors.value, ++tick_, kNever, State::kOpen, zeros});
    open_.insert(id);
    for (std::uint64_t i = 0; i < sectors.value; ++i) {
        at(lba.value + i).push_back(Candidate{.write = id});
    }
    return id;
}

void Oracle::stamp(Id id, MutableBytes to) const {
    const Write& w = writes_.at(id);
    CHECK(to.size() == w.sectors * kSectorBytes);
    if (w.zeros) {
        std::ranges::fill(to, std::byte{0});
        return;
    }
    for (std::uint64_t i = 0; i < w.sectors; ++i) {
        const MutableBytes sector = to.subspan(i * kSectorBytes, kSectorBytes);
        store_le(sector.data(), kMagic);
        store_le(sector.data() + 8, std::uint64_t{id});
        store_le(sector.data() + 16, w.lba.value + i);
        store_le(sector.data() + 24, volume_);
        store_le(sector.data() + 28, std::uint32_t{0});
        std::uint64_t mix = (id << 32U) ^ (w.lba.value + i);
        for (std::size_t at = 32; at < kTailAt; at += 4) {
            mix = mix * 6364136223846793005ULL + 1442695040888963407ULL;
            store_le(sector.data() + at, static_cast<std::uint32_t>(mix >> 32U));
        }
        store_le(sector.data() + kTailAt, std::uint64_t{id});
        store_le(sector.data() + kCrcAt, crc32c(sector.first(kCrcAt)));
    }
}

void Oracle::acknowledge(Id id, bool fua, LegMask legs) {
    Write& w = writes_.at(id);
    CHECK(w.state == State::kOpen);
    w.state = State::kAcknowledged;
    w.ended = ++tick_;
    open_.erase(static_cast<std::uint32_t>(id));
    for (std::uint64_t i = 0; i < w.sectors; ++i) {
        Candidates& list = at(w.lba.value + i);
        const auto mine = std::ranges::find(list, static_cast<std::uint32_t>(id), &Candidate::write);
        CHECK(mine != list.end());
        mine->on |= legs;
        mine->durable |= fua ? legs : LegMask{0};
        for (Candidate& v : list) {
            if (v.write != id && v.died == kNever && before(v, *mine, legs_)) {
                v.died = tick_;  // O3
                v.died_by_read = false;
            }
        }
        tidy(list);
    }
}

void Oracle::fail_write(Id id) {
    Write& w = writes_.at(id);
    CHECK(w.state == State::kOpen);
    w.state = State::kFailed;
    w.ended = ++tick_;
    open_.erase(static_cast<std::uint32_t>(id));
}

Oracle::Id Oracle::begin_read(Lba lba, SectorCount sectors) {
    const Id id = ++tick_;
    reads_.emplace(id, Read{lba, sectors.value, id});
    return id;
}

std::vector<Lba> Oracle::end_read(Id id, Slice data, LegMask served_by) {
    const auto it = reads_.find(id);
    CHECK(it != reads_.end());
    const Read read = it->second;
    ++tick_;
    std::vector<Lba> unreadable;
    for (std::uint64_t i = 0; i < read.sectors; ++i) {
        const std::uint64_t sector = read.lba.value + i;
        const std::size_t block = (data.head() + i * kSectorBytes) / kBlockBytes;
        if (data.blocks()[block].status == BlockStatus::kUnreadable) {
            const Candidates& list = at(sector);
            const bool anything = std::ranges::any_of(
                list, [&](const Candidate& c) { return c.write == kAnything && c.died > read.began; });
            if (!anything) {
                unreadable.emplace_back(sector);
            }
            continue;
        }
        check_sector(read, sector, data.data().subspan(i * kSectorBytes, kSectorBytes), served_by);
    }
    reads_.erase(id);
    return unreadable;
}

/// O2.
Oracle::Candidate* Oracle::allowed(Candidates& list, const Read& read, std::uint32_t write) {
    for (Candidate& c : list) {
        if (c.write == write && c.died > read.began) {
            return &c;
        }
    }
    return nullptr;
}

/// The newest candidate of zeros, or one still open: they cannot be told apart, and an open one must not be pinned as
/// another.
Oracle::Candidate* Oracle::allowed_zeros(Candidates& list, const Read& read) {
    Candidate* best = nullptr;
    for (Candidate& c : list) {
        const bool open = best != nullptr && writes_[best->write].ended > read.began;
        if (writes_[c.write].zeros && c.died > read.began && !open) {
            best = &c;  // in order of beginning
        }
    }
    return best;
}

void Oracle::check_sector(const Read& read, std::uint64_t sector, ConstBytes data, LegMask served_by) {
    ++checked_;
    Candidates& list = at(sector);
    if (allowed(list, read, kAnything) != nullptr) {
        return;
    }
    const Stamp s = decode(data);
    if (s.zeros) {
        if (Candidate* c = allowed_zeros(list, read)) {
            // Zeros that a power loss may take must not be pinned as those that it cannot.
            const bool doubtful = std::ranges::any_of(list, [&](const Candidate& other) {
                return writes_[other.write].zeros && other.died > read.began && (c->durable & ~other.durable) != 0;
            });
            if (!doubtful) {
                pin(list, *c, read, served_by);
            }
        } else {
            judge_wrong(sector, read, kInitial);
        }
        return;
    }
    const bool known = s.write > kAnything && s.write < writes_.size();
    if (!s.magic || !s.crc) {
        const bool torn = s.magic && s.write != s.tail && known && s.tail < writes_.size();
        report(torn ? Verdict::kTorn : Verdict::kCorrupt, sector,
               torn ? "parts of writes " + std::to_string(s.write) + " and " + std::to_string(s.tail)
                    : "bytes that nobody wrote");
    } else if (s.volume != volume_) {
        report(Verdict::kForeign, sector, "a sector of volume " + std::to_string(s.volume));
    } else if (s.lba != sector) {
        report(Verdict::kMisplaced, sector, "the contents of sector " + std::to_string(s.lba));
    } else if (!known) {
        report(Verdict::kNeverWritten, sector, "write " + std::to_string(s.write));
    } else if (Candidate* c = allowed(list, read, static_cast<std::uint32_t>(s.write))) {
        pin(list, *c, read, served_by);
    } else {
        judge_wrong(sector, read, static_cast<std::uint32_t>(s.write));
    }
}

/// O3: what a read saw is so; whatever had ended before the read and was not seen is gone.
void Oracle::pin(Candidates& list, Candidate& seen, const Read& read, LegMask served_by) {
    const Write& w = writes_[seen.write];
    if (w.ended > read.began || w.state == State::kFailed) {
        return;  // still in flight: the next read may see the old value again
    }
    bool alone = true;
    for (Candidate& v : list) {
        const Write& other = writes_[v.write];
        if (&v == &seen || other.state == State::kFailed) {
            alone = alone && (&v == &seen || v.died != kNever);
            continue;
        }
        if (other.ended <= read.began && v.died == kNever) {
            v.died = tick_;
            v.died_by_read = true;
        }
    }
    if (!alone) {
        return;
    }
    seen.pinned[served_by] = std::max(seen.pinned[served_by], read.began);
    seen.seen = std::min(seen.seen, tick_);
    seen.on |= served_by;
    if (served_from_ == served_by && w.ended < last_power_loss_[served_by]) {
        seen.settled |= served_by;  // it came from the media
    }
    tidy(list);
}

/// Forgets dead candidates that no power loss can bring back and no open read may return.
void Oracle::tidy(Candidates& list) const {
    if (list.size() < 4) {
        return;
    }
    const std::uint64_t oldest = oldest_read();
    std::array<std::byte, 256> room;
    std::pmr::monotonic_buffer_resource memory(room.data(), room.size());
    std::pmr::vector<std::uint32_t> gone(&memory);
    for (const Candidate& v : list) {
        if (v.died < oldest &&
            std::ranges::any_of(
                list,
                [&](const Candidate& g) { return g.write != v.write && g.durable == legs_ && before(v, g, legs_); })) {
            gone.push_back(v.write);
        }
    }
    // The one that makes the others dead stays alive or is itself made dead by one that stays.
    if (gone.size() < list.size()) {
        std::erase_if(list, [&](const Candidate& v) { return std::ranges::find(gone, v.write) != gone.end(); });
    }
}

void Oracle::judge_wrong(std::uint64_t sector, const Read& read, std::uint32_t write) {
    const Candidates& list = at(sector);
    const auto mine = std::ranges::find(list, write, &Candidate::write);
    Verdict verdict = Verdict::kStale;
    if (mine != list.end() && mine->died_by_read) {
        verdict = Verdict::kResurrected;
    } else if (last_crash_ > writes_[write].ended) {
        verdict = Verdict::kLost;
    }
    report(verdict, sector,
           (write == kInitial ? std::string("zeros") : "write " + std::to_string(write)) + " in a read begun at " +
               std::to_string(read.began));
}

void Oracle::report(Verdict verdict, std::uint64_t sector, const std::string& what) {
    if (violations_.size() < kMostViolations) {
        violations_.push_back(Violation{verdict, "sector " + std::to_string(sector) + ": " +
                                                     std::string(verdict_name(verdict)) + ": returned " + what +
                                                     "; known: " + describe(sector)});
    }
}

void Oracle::end_flush(Id id, LegMask legs) {
    ++tick_;
    for (Candidates& list : sectors_) {
        for (Candidate& c : list) {
            const Write& w = writes_[c.write];
            const std::uint64_t ended = w.state == State::kAcknowledged ? std::min(w.ended, c.seen) : c.seen;
            if (ended <= id) {
                c.durable |= static_cast<LegMask>(c.on & legs);  // O5
            }
        }
    }
}

void Oracle::crash() {
    last_crash_ = ++tick_;
    for (const std::uint32_t id : open_) {
        writes_[id].state = State::kUnknown;
        writes_[id].ended = tick_;
    }
    open_.clear();
    reads_.clear();
}

/// What no leg holds any more orders nothing: the value that a read saw may be gone, and an older one back.
void Oracle::forget_unheld(Candidate& c) {
    if (c.on == 0) {
        c.pinned = {};
        c.seen = kNever;
    }
}

void Oracle::power_loss(LegMask legs, bool settled) {
    last_crash_ = ++tick_;
    for (const LegMask leg : {kLegA, kLegB}) {
        if ((legs & leg) != 0) {
            last_power_loss_[leg] = tick_;
        }
    }
    for (Candidates& list : sectors_) {
        for (Candidate& c : list) {
            c.settled = settled ? c.settled : LegMask{0};
            c.on = static_cast<LegMask>(c.on & (c.durable | c.settled | ~legs));
            forget_unheld(c);
        }
    }
}

/// O4.
void Oracle::serve_from(LegMask legs) {
    served_from_ = legs;
    ++tick_;
    for (Candidates& list : sectors_) {
        for (Candidate& v : list) {
            const bool dead = std::ranges::any_of(list, [&](const Candidate& g) {
                return g.write != v.write && (((g.on & legs & kLegA) != 0 && before(v, g, kLegA)) ||
                                              ((g.on & legs & kLegB) != 0 && before(v, g, kLegB)));
            });
            if (!dead) {
                v.died = kNever;
                v.died_by_read = false;
            } else if (v.died == kNever) {
                v.died = tick_;
            }
        }
    }
}

void Oracle::synced(LegMask from, LegMask to) {
    for (Candidates& list : sectors_) {
        for (Candidate& c : list) {
            c.on = static_cast<LegMask>((c.on & from) != 0 ? c.on | to : c.on & ~to);
            c.durable = static_cast<LegMask>((c.durable & from) != 0 ? c.durable | to : c.durable & ~to);
            c.pinned[to] = c.pinned[from];
            forget_unheld(c);
        }
    }
}

void Oracle::undefine(Lba lba, SectorCount sectors) {
    ++tick_;
    for (std::uint64_t s = lba.value; s < lba.value + sectors.value && s < sectors_.size(); ++s) {
        std::erase_if(sectors_[s], [&](const Candidate& c) { return writes_[c.write].state != State::kOpen; });
        sectors_[s].insert(sectors_[s].begin(), Candidate{.write = kAnything, .on = legs_});
    }
}

void Oracle::resize(SectorCount sectors) {
    const std::size_t before_size = sectors_.size();
    sectors_.resize(sectors.value);
    if (sectors.value > before_size) {
        undefine(Lba(before_size), SectorCount(sectors.value - before_size));
    }
}

std::vector<std::uint64_t> Oracle::unsettled(bool open_only) const {
    std::vector<std::uint64_t> out;
    for (std::uint64_t s = 0; s < sectors_.size(); ++s) {
        if (std::ranges::any_of(sectors_[s], [&](const Candidate& c) {
                const bool open = writes_[c.write].state == State::kOpen;
                return open || (!open_only && c.durable != legs_ && c.write != kInitial);
            })) {
            out.push_back(s);
        }
    }
    return out;
}

std::vector<Extent> Oracle::written_since(Id mark) const {
    std::vector<Extent> out;
    for (const Write& w : writes_) {
        if (w.began > mark) {
            out.push_back({w.lba, SectorCount(w.sectors)});
        }
    }
    return out;
}

bool Oracle::overlaps_open(Lba lba, SectorCount sectors) const {
    return std::ranges::any_of(open_, [&](std::uint32_t id) {
        const Write& w = writes_[id];
        return w.lba.value < lba.value + sectors.value && lba.value < w.lba.value + w.sectors;
    });
}

std::string Oracle::describe(std::uint64_t sector) const {
    std::string out;
    for (const Candidate& c : sectors_.at(sector)) {
        const Write& w = writes_[c.write];
        constexpr std::array<const char*, 4> states{"open", "acknowledged", "failed", "unknown"};
        out += "[" + std::to_string(c.write) + " " + states[static_cast<std::size_t>(w.state)] +
               (w.zeros ? " zeros " : " ") + std::to_string(w.began) + ".." +
               (w.ended == kNever ? "" : std::to_string(w.ended)) +
               (c.died == kNever ? " alive" : " died " + std::to_string(c.died) + (c.died_by_read ? " by read" : "")) +
               (c.pinned[kLegA] > 0 ? " pinned " + std::to_string(c.pinned[kLegA]) : "") +
               (c.pinned[kLegB] > 0 ? " pinned on B " + std::to_string(c.pinned[kLegB]) : "") + " on " +
               std::to_string(c.on) + " durable " + std::to_string(c.durable) + "]";
    }
    return out;
}

}  // namespace gemel::sim
