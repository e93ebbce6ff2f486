// SPDX-License-Identifier: Apache-2.0
#include "replication/pair_metadata.hpp"

#include <algorithm>

namespace gemel::replication {

namespace {

constexpr std::uint32_t kRecordMagic = 0x50524d47;  // "GMRP"
constexpr std::uint8_t kRecordVersion = 1;

struct RecordOnDisk {
    std::uint32_t magic;
    std::uint8_t version;
    std::uint8_t reserved;
    std::uint16_t changes;
    std::uint32_t length;
    std::uint32_t crc;  ///< of the fields above and of everything after
};
struct SuperblockOnDisk {
    std::uint8_t pair[16];
    std::uint8_t identity[16];
    std::uint8_t boot[16];
    std::uint64_t sectors, pending_sectors, generation, base, term_counter, term_nonce;
    std::uint8_t role, state, lost_power, choice;
    std::uint32_t reserved;
    char peer_node[kNodeNameBytes];
    char peer_volume[kVolumeNameBytes];
};
struct RunOnDisk {
    std::uint64_t first, count;
};
static_assert(sizeof(RecordOnDisk) == 16);
static_assert(sizeof(SuperblockOnDisk) == 296);
static_assert(sizeof(RunOnDisk) == 16);
constexpr std::size_t kCrcOffset = offsetof(RecordOnDisk, crc);
constexpr std::size_t kChangeHeader = 8;
constexpr std::uint64_t kMaxUnit = std::uint64_t{1} << 48U;

bool carries_runs(MetadataOp op) {
    return op >= MetadataOp::kSetRegions && op <= MetadataOp::kClearTracks;
}

std::size_t encoded_size(const MetadataChange& c) {
    return kChangeHeader + (c.op == MetadataOp::kSuperblock ? sizeof(SuperblockOnDisk) : 0) +
           (carries_runs(c.op) ? c.runs.size() * sizeof(RunOnDisk) : 0);
}

void put_superblock(LeWriter& w, const Superblock& s) {
    w.put(ConstBytes(s.pair.bytes));
    w.put(ConstBytes(s.identity.bytes));
    w.put(ConstBytes(s.boot.bytes));
    for (const std::uint64_t v : {s.sectors, s.pending_sectors, s.generation, s.base, s.term.counter, s.term.nonce}) {
        w.put(v);
    }
    w.put(static_cast<std::uint8_t>(s.role));
    w.put(static_cast<std::uint8_t>(s.state));
    w.put(static_cast<std::uint8_t>(s.lost_power ? 1 : 0));
    w.put(static_cast<std::uint8_t>(s.choice));
    w.put(std::uint32_t{0});
    w.text(s.peer_node, kNodeNameBytes);
    w.text(s.peer_volume, kVolumeNameBytes);
}

Uuid get_uuid(LeReader& r) {
    Uuid u;
    const ConstBytes b = r.take(16);
    std::ranges::copy(b, u.bytes.begin());
    return u;
}

Result<Superblock> get_superblock(LeReader& r) {
    Superblock s;
    s.pair = get_uuid(r);
    s.identity = get_uuid(r);
    s.boot = get_uuid(r);
    for (std::uint64_t* v : {&s.sectors, &s.pending_sectors, &s.generation, &s.base, &s.term.counter, &s.term.nonce}) {
        *v = r.get<std::uint64_t>();
    }
    const auto role = r.get<std::uint8_t>();
    const auto state = r.get<std::uint8_t>();
    const auto lost_power = r.get<std::uint8_t>();
    const auto choice = r.get<std::uint8_t>();
    r.take(4);
    s.peer_node = r.text(kNodeNameBytes);
    s.peer_volume = r.text(kVolumeNameBytes);
    if (!r.ok() || role > 1 || state > static_cast<std::uint8_t>(PairState::kNeedFull) || lost_power > 1 ||
        choice > static_cast<std::uint8_t>(Choice::kOtherSide)) {
        return fail(Errc::kCorrupt, "a pair superblock has a field outside its range");
    }
    s.role = static_cast<Role>(role);
    s.state = static_cast<PairState>(state);
    s.lost_power = lost_power == 1;
    s.choice = static_cast<Choice>(choice);
    return s;
}

Result<MetadataChange> get_change(LeReader& r) {
    MetadataChange c;
    const auto op = r.get<std::uint8_t>();
    r.take(3);
    const auto count = r.get<std::uint32_t>();
    if (!r.ok() || op < 1 || op > static_cast<std::uint8_t>(MetadataOp::kResetMaps)) {
        return fail(Errc::kCorrupt, "a pair record holds an unknown change");
    }
    c.op = static_cast<MetadataOp>(op);
    if (c.op == MetadataOp::kSuperblock) {
        TRY(c.superblock, get_superblock(r));
    }
    if (carries_runs(c.op)) {
        if (count > r.remaining() / sizeof(RunOnDisk)) {
            return fail(Errc::kCorrupt, "a pair record names more runs than it holds");
        }
        for (std::uint32_t i = 0; i < count; ++i) {
            Run run;
            run.first = r.get<std::uint64_t>();
            run.count = r.get<std::uint64_t>();
            if (run.first > kMaxUnit || run.count > kMaxUnit) {
                return fail(Errc::kCorrupt, "a pair record marks units beyond any volume");
            }
            c.runs.push_back(run);
        }
    }
    return c;
}

}  // namespace

std::vector<std::byte> encode_record(const std::vector<MetadataChange>& changes) {
    std::size_t size = sizeof(RecordOnDisk);
    for (const MetadataChange& c : changes) {
        size += encoded_size(c);
    }
    std::vector<std::byte> out(size);
    LeWriter w(out);
    w.put(kRecordMagic);
    w.put(kRecordVersion);
    w.put(std::uint8_t{0});
    w.put(static_cast<std::uint16_t>(changes.size()));
    w.put(static_cast<std::uint32_t>(size));
    w.put(std::uint32_t{0});
    for (const MetadataChange& c : changes) {
        w.put(static_cast<std::uint8_t>(c.op));
        w.put(std::uint8_t{0});
        w.put(std::uint16_t{0});
        w.put(static_cast<std::uint32_t>(c.runs.size()));
        if (c.op == MetadataOp::kSuperblock) {
            put_superblock(w, c.superblock);
        }
        if (carries_runs(c.op)) {
            for (const Run& run : c.runs) {
                w.put(run.first);
                w.put(run.count);
            }
        }
    }
    const ConstBytes all = out;
    store_le(out.data() + kCrcOffset, crc32c(all.subspan(sizeof(RecordOnDisk)), crc32c(all.first(kCrcOffset))));
    return out;
}

Result<std::vector<MetadataChange>> decode_record(ConstBytes record) {
    LeReader r(record);
    const auto magic = r.get<std::uint32_t>();
    const auto version = r.get<std::uint8_t>();
    r.take(1);
    const auto count = r.get<std::uint16_t>();
    const auto length = r.get<std::uint32_t>();
    const auto crc = r.get<std::uint32_t>();
    if (!r.ok() || magic != kRecordMagic) {
        return fail(Errc::kCorrupt, "not a pair record");
    }
    if (version != kRecordVersion) {
        return fail(Errc::kCorrupt, "pair record of version " + std::to_string(version));
    }
    if (length != record.size() ||
        crc != crc32c(record.subspan(sizeof(RecordOnDisk)), crc32c(record.first(kCrcOffset)))) {
        return fail(Errc::kCorrupt, "a pair record is cut short or its checksum does not match");
    }
    std::vector<MetadataChange> out;
    for (unsigned i = 0; i < count; ++i) {
        TRY(MetadataChange change, get_change(r));
        out.push_back(std::move(change));
    }
    if (r.remaining() != 0) {
        return fail(Errc::kCorrupt, "a pair record has bytes left over");
    }
    return out;
}

std::string why_record_invalid(ConstBytes record) {
    const auto decoded = decode_record(record);
    return decoded ? std::string() : decoded.error().message;
}

Result<void> PairMetadata::recover(SectorCount sectors) {
    resize(sectors);
    TRY(const std::vector<LogRecord> records, log_.recovered(client_));
    for (const LogRecord& record : records) {
        TRY(const std::vector<MetadataChange> changes, decode_record(record.bytes));
        apply(changes);
    }
    offer_checkpoints();
    return {};
}

void PairMetadata::mark_need_full() {
    superblock_ = Superblock{};
    superblock_.state = PairState::kNeedFull;
    superblock_.role = Role::kSecondary;
    tracks_.set({0, tracks_.size()});
    offer_checkpoints();
}

void PairMetadata::resize(SectorCount sectors) {
    regions_.resize((sectors.value + kRegionSectors - 1) / kRegionSectors);
    tracks_.resize((sectors.value + kTrackSectors - 1) / kTrackSectors);
}

/// The log may have taken the function out just before stop() took it away: it then finds nobody alive (PM5).
void PairMetadata::offer_checkpoints() {
    log_.set_checkpoint(client_, home_, [this, alive = std::weak_ptr<char>(alive_)]() -> Task<Result<void>> {
        const auto ended = []() -> Task<Result<void>> { co_return fail(Errc::kAborted, "the node is stopping"); };
        return alive.expired() ? ended() : checkpoint();
    });
}

Task<void> PairMetadata::stop() {
    log_.remove_client(client_);
    alive_.reset();
    co_await gate_.close();
}

void PairMetadata::apply(const std::vector<MetadataChange>& changes) {
    for (const MetadataChange& c : changes) {
        switch (c.op) {
            case MetadataOp::kSuperblock:
                superblock_ = c.superblock;
                break;
            case MetadataOp::kResetMaps:
                regions_.clear_all();
                tracks_.clear_all();
                break;
            case MetadataOp::kSetRegions:
            case MetadataOp::kClearRegions:
            case MetadataOp::kSetTracks:
            case MetadataOp::kClearTracks: {
                const bool region = c.op == MetadataOp::kSetRegions || c.op == MetadataOp::kClearRegions;
                const bool set = c.op == MetadataOp::kSetRegions || c.op == MetadataOp::kSetTracks;
                Bitmap& map = region ? regions_ : tracks_;
                for (const Run& run : c.runs) {
                    set ? map.set(run) : map.clear(run);
                }
                break;
            }
        }
    }
}

Task<Result<void>> PairMetadata::commit(std::vector<MetadataChange> changes) {
    if (gate_.closed()) {
        co_return fail(Errc::kAborted, "the node is stopping");
    }
    if (pending_ == nullptr) {
        pending_ = std::make_shared<Batch>();
    }
    const std::shared_ptr<Batch> batch = pending_;
    std::ranges::move(changes, std::back_inserter(batch->changes));
    if (writing_ == nullptr) {
        gate_.spawn(write_batches());
    }
    co_await batch->done.wait();
    co_return batch->result;
}

Task<void> PairMetadata::write_batches() {
    while (pending_ != nullptr) {
        writing_ = std::exchange(pending_, nullptr);
        writing_->result = co_await write(*writing_);
        if (writing_->result) {
            apply(writing_->changes);
        }
        writing_->done.set();
        writing_ = nullptr;
    }
}

Task<Result<void>> PairMetadata::write(const Batch& batch) {
    if (uncertain_) {  // PM6
        CO_TRY_VOID(co_await write_checkpoint(nullptr));
        uncertain_ = false;
    }
    Result<void> result = batch.changes.empty() ? Result<void>{} : co_await append(batch.changes);
    uncertain_ = !result;
    co_return result;
}

// A batch beyond the log's record size goes as several records in order. Marks come before the superblock that relies
// on them, so a crash between two of them leaves marks too many, never too few.
Task<Result<void>> PairMetadata::append(std::vector<MetadataChange> changes) {
    const std::size_t limit = log_.max_record_bytes();
    std::vector<MetadataChange> record;
    std::size_t size = sizeof(RecordOnDisk);
    for (MetadataChange& change : changes) {
        while (size + encoded_size(change) > limit) {
            MetadataChange head{change.op, change.superblock, {}};
            const std::size_t room =
                size + kChangeHeader < limit ? (limit - size - kChangeHeader) / sizeof(RunOnDisk) : 0;
            if (room > 0 && change.runs.size() > room) {
                const auto middle = change.runs.begin() + static_cast<std::ptrdiff_t>(room);
                head.runs.assign(change.runs.begin(), middle);
                change.runs.erase(change.runs.begin(), middle);
                record.push_back(std::move(head));
            }
            CHECK(!record.empty());
            ++records_;
            CO_TRY([[maybe_unused]] const std::uint64_t position, co_await log_.append(client_, encode_record(record)));
            record.clear();
            size = sizeof(RecordOnDisk);
        }
        size += encoded_size(change);
        record.push_back(std::move(change));
    }
    ++records_;
    CO_TRY([[maybe_unused]] const std::uint64_t position, co_await log_.append(client_, encode_record(record)));
    co_return Result<void>{};
}

Task<Result<void>> PairMetadata::checkpoint() {
    if (!gate_.enter()) {
        co_return fail(Errc::kAborted, "the node is stopping");
    }
    Result<void> result = co_await write_checkpoint(writing_);
    gate_.leave();
    co_return result;
}

Task<Result<void>> PairMetadata::write_checkpoint(std::shared_ptr<Batch> beside) {
    Superblock superblock = superblock_;
    Bitmap regions = regions_;
    Bitmap tracks = tracks_;
    if (beside != nullptr) {  // PM3
        for (const MetadataChange& c : beside->changes) {
            if (c.op == MetadataOp::kSuperblock) {
                superblock = c.superblock;
            }
            for (const Run& run : c.runs) {
                if (c.op == MetadataOp::kSetRegions) {
                    regions.set(run);
                } else if (c.op == MetadataOp::kSetTracks) {
                    tracks.set(run);
                }
            }
        }
    }
    const std::size_t fixed = sizeof(RecordOnDisk) + 4 * kChangeHeader + sizeof(SuperblockOnDisk);
    const std::size_t limit = std::max<std::size_t>(2, (log_.max_record_bytes() - fixed) / sizeof(RunOnDisk));
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kResetMaps, {}, {}});
    changes.push_back({MetadataOp::kSetRegions, {}, coarsened(regions.runs(), limit / 2)});
    changes.push_back({MetadataOp::kSetTracks, {}, coarsened(tracks.runs(), limit / 2)});
    changes.push_back({MetadataOp::kSuperblock, superblock, {}});
    ++records_;
    CO_TRY(const std::uint64_t position, co_await log_.append(client_, encode_record(changes)));
    log_.drop_before(client_, position);
    co_return Result<void>{};
}

Task<Result<void>> PairMetadata::commit_superblock(Superblock next) {
    std::vector<MetadataChange> changes;
    changes.push_back({MetadataOp::kSuperblock, std::move(next), {}});
    return commit(std::move(changes));
}

Task<Result<void>> PairMetadata::ensure_regions(Run run) {
    if (!uncertain_ && regions_.all(run)) {
        co_return Result<void>{};
    }
    co_return co_await commit({MetadataChange{MetadataOp::kSetRegions, {}, {run}}});
}

Task<Result<void>> PairMetadata::ensure_tracks(Run run) {
    if (!uncertain_ && tracks_.all(run)) {
        co_return Result<void>{};
    }
    co_return co_await commit({MetadataChange{MetadataOp::kSetTracks, {}, {run}}});
}

Task<Result<void>> PairMetadata::clear_regions(std::vector<Run> runs) {
    MetadataChange change{MetadataOp::kClearRegions, {}, std::move(runs)};
    for (const Run& run : change.runs) {
        regions_.clear(run);
    }
    return commit({std::move(change)});
}

Task<Result<void>> PairMetadata::clear_tracks(std::vector<Run> runs) {
    MetadataChange change{MetadataOp::kClearTracks, {}, std::move(runs)};
    for (const Run& run : change.runs) {
        tracks_.clear(run);
    }
    return commit({std::move(change)});
}

std::vector<Run> PairMetadata::regions_as_tracks() const {
    std::vector<Run> out;
    for (const Run& run : regions_.runs()) {
        out.push_back({run.first * kTracksPerRegion, run.count * kTracksPerRegion});
    }
    return out;
}

}  // namespace gemel::replication
