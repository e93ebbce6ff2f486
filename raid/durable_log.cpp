// SPDX-License-Identifier: Apache-2.0
#include "raid/durable_log.hpp"

#include <algorithm>
#include <bit>

#include "gemel/test_switch.hpp"
#include "raid/array_body.hpp"
#include "raid/stripe.hpp"

namespace gemel::raid {

namespace {

constexpr std::uint64_t kSparePages = 4;                       ///< RL3
constexpr std::uint64_t kChunkPages = 64;                      ///< pages in one buffer and one member I/O
constexpr Duration kFullWait = std::chrono::seconds(5);        ///< for checkpoints to make room
constexpr Duration kFullPoll = std::chrono::milliseconds(20);  ///< drop_before() may come from any thread

std::uint64_t pages_for(std::uint64_t bytes) {
    return std::max<std::uint64_t>(1, (bytes + kLogPayloadBytes - 1) / kLogPayloadBytes);
}

void put_record_header(std::byte* to, LogClientId client, std::size_t length, std::uint64_t position) {
    LeWriter w(MutableBytes(to, kLogRecordHeaderBytes));
    w.put(client);
    w.put(static_cast<std::uint32_t>(length));
    w.put(position);
}

MutableBytes page_of(const std::vector<Buffer>& chunks, std::uint64_t i) {
    return chunks[i / kChunkPages].memory().subspan(i % kChunkPages * kLogPageBytes, kLogPageBytes);
}

/// Copies bytes into the payloads of consecutive pages.
class PayloadWriter {
  public:
    explicit PayloadWriter(const std::vector<Buffer>& chunks) : chunks_(chunks) {}
    void put(ConstBytes from) {
        while (!from.empty()) {
            const std::uint64_t in_page = at_ % kLogPayloadBytes;
            const std::size_t part = std::min<std::size_t>(from.size(), kLogPayloadBytes - in_page);
            const MutableBytes page = page_of(chunks_, at_ / kLogPayloadBytes);
            std::ranges::copy(from.first(part), page.subspan(kLogHeaderBytes + in_page).begin());
            from = from.subspan(part);
            at_ += part;
        }
    }
    [[nodiscard]] std::uint64_t bytes() const { return at_; }

  private:
    const std::vector<Buffer>& chunks_;
    std::uint64_t at_ = 0;
};

}  // namespace

RingLog::RingLog(detail::ArrayBody& array, const AreaRecord& area)
    : array_(array), area_(area.lba), slots_(area.sectors.value / kSectorsPerBlock) {}

Lba RingLog::slot_lba(std::uint32_t member, std::uint64_t slot) const {
    return area_ + (array_.superblock().area_shift(member) + slot * kSectorsPerBlock);
}

bool RingLog::enough(std::uint32_t holders) const {
    return !array_.level.tolerates(holders, array_.geometry.members);
}

namespace {
/// What a checkpoint needs goes before all else. The redo log's may need the journal's first (PP6).
bool may_pass(std::optional<LogClientId> privileged, LogClientId client) {
    return privileged == client || (privileged == kLogClientRedo && client == kLogClientJournal);
}
}  // namespace

std::size_t RingLog::max_record_bytes() const {
    const std::uint64_t pages = std::min(slots_ / 4 - kSparePages / 2, kMaxBatchPages);
    return pages * kLogPayloadBytes - kLogRecordHeaderBytes;
}

std::uint64_t RingLog::bytes_for_records_of(std::size_t bytes) {
    return 4 * (pages_for(bytes + kLogRecordHeaderBytes) + kSparePages / 2) * kLogPageBytes;
}

std::uint64_t RingLog::batch_limit(bool privileged) const {
    return privileged ? slots_ - kSparePages : slots_ - slots_ / 4 - kSparePages / 2;
}

bool RingLog::fits(LogClientId client, std::uint64_t pages) const {
    const std::uint64_t limit = client == kLogClientRedo ? slots_ / 8 * 5 : batch_limit(may_pass(privileged_, client));
    return used_pages() + pages <= limit;
}

Task<Result<void>> RingLog::format(Environment& env, BlockDevice& device, Superblock superblock) {
    CO_TRY(const Buffer buffer, env.buffers.allocate(kLogPageBytes));
    const AreaRecord area = superblock.area(AreaKind::kLog);
    const Lba lba = area.lba + superblock.area_shift(superblock.member_index);
    const Slice slice = buffer.slice(kLogPageBytes, lba);
    LogPageHeader h;
    h.array_uuid = superblock.array_uuid;
    h.generation = superblock.log_generation;
    h.sequence = area.sectors.value / kSectorsPerBlock;  // slot 0
    h.head = h.sequence;
    h.batch_first = h.sequence;
    h.next_position = 1;
    h.epoch = superblock.epoch;
    h.flags = kLogLastOfBatch | kLogFirstOfGeneration;
    h.copies = static_cast<std::uint16_t>(superblock.members.size());
    encode(h, slice.data().first<kLogPageBytes>());
    slice.clear_infos();
    co_return co_await device.write(lba, slice, {.fua = true});
}

Task<Result<void>> RingLog::read_member(std::uint32_t member, Found& found) {
    CO_TRY(const Buffer buffer, co_await array_.allocate(kChunkPages * kLogPageBytes));
    for (std::uint64_t at = 0; at < slots_; at += kChunkPages) {
        const std::uint64_t count = std::min(kChunkPages, slots_ - at);
        const Lba lba = slot_lba(member, at);
        const Slice slice = buffer.slice(count * kLogPageBytes, lba);
        slice.clear_infos();
        const Result<void> r = co_await detail::read_twice(array_.members[member].device->areas(), lba, slice);
        if (!r && r.error().code != Errc::kMediumError) {
            co_return std::unexpected(r.error());
        }
        detail::settle_read(slice, r ? std::nullopt : std::optional(r.error().code));
        for (std::uint64_t i = 0; i < count; ++i) {
            const auto page = slice.data().subspan(i * kLogPageBytes).first<kLogPageBytes>();
            const auto header = decode_log_page(page);
            const bool known = slice.blocks()[i].status != BlockStatus::kUnreadable;
            found.unknown[at + i] |= known ? 0 : 1U << member;
            if (known && header && header->array_uuid == array_.superblock().array_uuid &&
                header->sequence % slots_ == at + i) {
                const auto payload = page.subspan(kLogHeaderBytes, header->payload_bytes);
                found.holders[{header->sequence, header->generation}] |= 1U << member;
                found.pages.add({*header, std::vector<std::byte>(payload.begin(), payload.end())});
            }
        }
    }
    co_return Result<void>{};
}

Task<Result<void>> RingLog::recover(std::uint64_t generation) {
    Found found;
    found.unknown.resize(slots_);
    std::uint32_t blind = array_.lost_set();
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (!array_.in_sync(m)) {
            continue;
        }
        const Result<void> r = co_await read_member(m, found);
        blind |= r ? 0 : 1U << m;
        if (!r && enough(blind)) {
            co_return fail(r.error().code, array_.member_subject(m) + ": its part of the durable log cannot be read (" +
                                               r.error().message + ") and no other member can stand in for it");
        }
    }
    LogState state = recover_log(found.pages, generation);
    if (!state.corrupt && std::ranges::any_of(found.unknown, [&](auto m) { return m != 0 && enough(m | blind); })) {
        state.corrupt = "pages of it are unreadable";
    }
    generation_ = state.generation;
    next_sequence_ = state.next_sequence;
    next_position_ = state.next_position;
    tail_ = state.tail;
    records_lost_ = state.records_lost;
    head_ = next_sequence_;
    if (!state.corrupt && !state.records.empty()) {
        head_ = state.records.front().batch_first;
        if (next_sequence_ - head_ + 1 >= slots_) {
            state.corrupt = "the ring is full of torn pages";
        }
    }
    if (state.corrupt) {
        array_.event(Severity::kError, "log-damaged", "array " + array_.name,
                     "the durable log cannot be read: " + *state.corrupt,
                     "mirrors compare everything; check the members");
        records_lost_ = true;
        head_ = next_sequence_;
        tail_ = next_sequence_ - 1;
        // What was given out is not known: start far above it.
        next_position_ = std::max(next_position_, (generation_ + 1) << 32U);
        state.records.clear();
    }
    for (RecoveredRecord& r : state.records) {
        live_.push_back({r.position, r.client, r.batch_first});
        const std::scoped_lock lock(clients_mutex_);
        recovered_[r.client].push_back({r.position, std::move(r.bytes)});
    }
    durable_head_ = head_;
    if (!state.corrupt) {
        keep_newest_batch(std::move(found));
    }
    co_return Result<void>{};
}

/// REQUIRES: recovery found a tail.
void RingLog::keep_newest_batch(Found found) {
    const std::uint64_t first = found.pages.by_sequence().at(tail_).header.batch_first;
    newest_batch_members_ = ~std::uint32_t{0};
    for (std::uint64_t s = first; s <= tail_; ++s) {
        const LogPage& page = found.pages.by_sequence().at(s);
        newest_batch_members_ &= found.holders.at({s, page.header.generation});
        newest_batch_.push_back(page);
    }
}

/// RL6.
Task<Result<void>> RingLog::complete_newest_batch() {
    const std::vector<LogPage> pages = std::move(newest_batch_);
    newest_batch_.clear();
    Batch batch;
    batch.pages = pages.size();
    batch.first = tail_ + 1 - pages.size();
    CO_TRY_VOID(co_await allocate_chunks(batch));
    for (std::uint64_t i = 0; i < pages.size(); ++i) {
        const auto page = page_of(batch.chunks, i).first<kLogPageBytes>();
        std::ranges::copy(pages[i].payload, page.subspan(kLogHeaderBytes).begin());
        encode(pages[i].header, page);
    }
    MemberFan fan;
    for (std::uint32_t m = 0; m < array_.geometry.members && !pages.empty(); ++m) {
        if (array_.in_sync(m) && (newest_batch_members_ >> m & 1U) == 0) {
            fan.start(m, write_to_member(m, batch));
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            CO_TRY_VOID(co_await array_.fail_member(m, Error(*code, "write of the durable log")));
        }
    }
    co_return Result<void>{};
}

Task<Result<std::uint64_t>> RingLog::begin_generation() {
    writing_ = true;  // RL1: a member that fails meanwhile calls for a record of what it misses
    const Result<void> r = co_await open_generation();
    writing_ = false;
    if (!r) {
        dead_ = dead_ ? dead_ : std::optional(r.error());
        drop_pending();
        co_return std::unexpected(r.error());
    }
    kick();
    co_return generation_;
}

Task<Result<void>> RingLog::open_generation() {
    // A page that recovery took may be in a member's cache only: its write was in flight when the process died. What is
    // appended behind it would make its loss in a power cut a hole.
    MemberFan fan;
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (array_.in_sync(m)) {
            fan.start(m, array_.members[m].device->flush());
        }
    }
    co_await fan.all();
    for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
        if (const auto code = fan.failure(m)) {
            CO_TRY_VOID(co_await array_.fail_member(m, Error(*code, "flush before the durable log goes on")));
        }
    }
    if (!active(TestSwitch::kNewestBatchFew)) {
        CO_TRY_VOID(co_await complete_newest_batch());
    }
    ++generation_;
    advance_head();
    co_return co_await write_head_page(kLogFirstOfGeneration, /*everywhere=*/true);
}

Result<std::vector<LogRecord>> RingLog::recovered(LogClientId client) {
    const std::scoped_lock lock(clients_mutex_);
    const auto at = recovered_.find(client);
    if (at != recovered_.end()) {
        return at->second;
    }
    if (records_lost_) {
        return fail(Errc::kCorrupt, "records of the array's durable log were lost; take everything as changed");
    }
    return std::vector<LogRecord>{};
}

std::vector<LogRecord> RingLog::take_recovered(LogClientId client) {
    const std::scoped_lock lock(clients_mutex_);
    const auto at = recovered_.find(client);
    return at == recovered_.end() ? std::vector<LogRecord>{} : std::exchange(at->second, {});
}

void RingLog::drop_before(LogClientId client, std::uint64_t position) {
    const std::scoped_lock lock(clients_mutex_);
    Client& c = clients_[client];
    c.dropped_below = std::max(c.dropped_below, position);
}

void RingLog::set_checkpoint(LogClientId client, Executor& executor, Checkpoint checkpoint) {
    const std::scoped_lock lock(clients_mutex_);
    Client& c = clients_[client];
    c.executor = &executor;
    c.checkpoint = std::move(checkpoint);
}

void RingLog::remove_client(LogClientId client) {
    const std::scoped_lock lock(clients_mutex_);
    Client& c = clients_[client];
    c.executor = nullptr;
    c.checkpoint = nullptr;
}

Task<Result<std::uint64_t>> RingLog::append(LogClientId client, std::vector<std::byte> record) {
    if (record.size() > max_record_bytes()) {
        co_return fail(Errc::kInvalidArgument, "a log record of " + std::to_string(record.size()) +
                                                   " bytes is larger than " + std::to_string(max_record_bytes()));
    }
    Executor& caller = Executor::current();
    co_await resume_on(array_.home);
    Pending pending{client, std::move(record), std::nullopt, false, {}};
    if (dead_) {
        pending.result.emplace(std::unexpected(*dead_));
    } else {
        pending_.push_back(&pending);
        kick();
        co_await wait_for(pending);
    }
    co_await resume_on(caller);
    co_return *std::move(pending.result);
}

Task<void> RingLog::wait_for(Pending& pending) {
    TimePoint deadline = array_.env.clock.now() + kFullWait;
    while (!pending.done.is_set()) {
        if (pending.taken) {
            co_await pending.done.wait();
            continue;
        }
        const TimePoint poll = array_.env.clock.now() + kFullPoll;
        if (co_await pending.done.wait_until(array_.env.clock, poll) || pending.taken) {
            continue;
        }
        if (copying_) {  // that takes its time, and says nothing of the room
            deadline = array_.env.clock.now() + kFullWait;
        }
        const std::uint64_t pages = pages_for(kLogRecordHeaderBytes + pending.record.size());
        const bool makes_room = !array_.read_only() || copying_ || writing_ || fits(pending.client, pages);
        if (!makes_room || array_.env.clock.now() >= deadline) {
            std::erase(pending_, &pending);
            pending.result = makes_room
                                 ? fail(Errc::kNoSpace, "the array's durable log is full and nothing could be dropped")
                                 : fail(Errc::kReadOnly, "array " + array_.name + " is read-only, and its log is full");
            co_return;
        }
        kick();
    }
}

void RingLog::kick() {
    if (!writing_ && !copying_ && !pending_.empty() && !dead_) {
        writing_ = true;
        if (!gate_.spawn(write_batches())) {
            writing_ = false;
        }
    }
}

Task<void> RingLog::write_batches() {
    if (!missing_recorded_) {
        const Result<void> recorded = co_await array_.record_missing();
        missing_recorded_ = recorded.has_value();
    }
    while (!dead_ && !copying_) {
        advance_head();
        Batch batch;
        if (!choose(batch)) {
            // Space that is free but not yet durably so: a page that says it.
            if (pending_.empty() || head_ == durable_head_ || !(co_await write_head_page(0, /*everywhere=*/false))) {
                break;
            }
            continue;
        }
        Result<void> outcome = co_await encode_batch(batch, 0);
        if (outcome) {
            outcome = co_await write_copies(batch, /*everywhere=*/false);
        }
        finish(batch, outcome);
    }
    writing_ = false;
    written_.set();
    written_.reset();
    drop_pending();
    advance_head();
    const bool wanted = next_sequence_ - head_ > slots_ / 2 || !pending_.empty();
    if (wanted && !array_.read_only() && !checkpointing_ && !copying_ && !dead_) {
        checkpointing_ = true;
        if (!gate_.spawn(run_checkpoints())) {
            checkpointing_ = false;
        }
    }
}

/// After the end of the log nothing waits any more.
void RingLog::drop_pending() {
    if (dead_) {
        for (Pending* p : std::exchange(pending_, {})) {
            p->result.emplace(std::unexpected(*dead_));
            p->done.set();
        }
    }
}

/// RL1. No batch begins until it is done, however many wait.
Task<Result<void>> RingLog::copy_to(std::uint32_t member) {
    copying_ = true;
    while (writing_) {
        co_await written_.wait();
    }
    copying_to_ = member;
    Result<void> r = co_await copy_pages(member);
    if (!r) {
        copying_to_.reset();
    }
    copying_ = false;
    drop_pending();
    kick();
    co_return r;
}

/// The whole ring: from each slot the newest page that any member in sync has, if it is of this log; else zeros.
Task<Result<void>> RingLog::copy_pages(std::uint32_t member) {
    CO_TRY(Buffer in, co_await array_.allocate(kChunkPages * kLogPageBytes));
    CO_TRY(const Buffer out, co_await array_.allocate(kChunkPages * kLogPageBytes));
    for (std::uint64_t at = 0; at < slots_; at += kChunkPages) {
        const std::uint64_t count = std::min(kChunkPages, slots_ - at);
        std::array<std::pair<std::uint64_t, std::uint64_t>, kChunkPages> newest{};  // sequence, generation
        const Slice to = out.slice(count * kLogPageBytes, slot_lba(member, at));
        std::ranges::fill(to.data(), std::byte{0});
        to.clear_infos();
        for (std::uint32_t m = 0; m < array_.geometry.members; ++m) {
            if (!array_.in_sync(m)) {
                continue;
            }
            const Slice from = in.slice(count * kLogPageBytes, slot_lba(m, at));
            from.clear_infos();
            const Result<void> r =
                co_await detail::read_twice(array_.members[m].device->areas(), slot_lba(m, at), from);
            if (!r && r.error().code == Errc::kTimedOut) {  // the device may still write to its memory
                CO_TRY(in, co_await array_.allocate(kChunkPages * kLogPageBytes));
                continue;
            }
            detail::settle_read(from, r ? std::nullopt : std::optional(r.error().code));
            for (std::uint64_t i = 0; i < count; ++i) {
                const auto page = from.data().subspan(i * kLogPageBytes).first<kLogPageBytes>();
                const auto header = decode_log_page(page);
                const bool mine = header && header->array_uuid == array_.superblock().array_uuid &&
                                  header->sequence % slots_ == at + i && header->sequence < next_sequence_;
                if (mine && std::pair(header->sequence, header->generation) > newest[i]) {
                    newest[i] = {header->sequence, header->generation};
                    std::ranges::copy(page, to.data().subspan(i * kLogPageBytes).begin());
                }
            }
        }
        CO_TRY_VOID(co_await array_.build_area(member, slot_lba(member, at), to, {.fua = true}));
    }
    co_return Result<void>{};
}

/// Takes from the front what fits; a checkpoint's records may pass those of others that wait for space.
bool RingLog::choose(Batch& batch) {
    std::uint64_t bytes = 0;
    bool blocked = false;
    for (auto at = pending_.begin(); at != pending_.end();) {
        Pending* p = *at;
        const std::uint64_t with = bytes + kLogRecordHeaderBytes + p->record.size();
        if (pages_for(with) > kMaxBatchPages) {
            break;
        }
        const bool privileged = may_pass(privileged_, p->client);
        if (!fits(p->client, pages_for(with))) {
            if (privileged) {
                break;  // its own later records must not pass it
            }
            blocked = true;
        }
        if (blocked && !privileged) {
            ++at;
            continue;
        }
        bytes = with;
        p->taken = true;
        batch.records.push_back(p);
        at = pending_.erase(at);
    }
    batch.pages = pages_for(bytes);
    return !batch.records.empty();
}

Task<Result<void>> RingLog::allocate_chunks(Batch& batch) {
    for (std::uint64_t page = 0; page < batch.pages; page += kChunkPages) {
        const std::uint64_t bytes = std::min(kChunkPages, batch.pages - page) * kLogPageBytes;
        CO_TRY(Buffer chunk, co_await array_.allocate(bytes));
        std::ranges::fill(chunk.infos(), BlockInfo{});
        batch.chunks.push_back(std::move(chunk));
    }
    co_return Result<void>{};
}

Task<Result<void>> RingLog::encode_batch(Batch& batch, std::uint16_t flags) {
    CO_TRY_VOID(co_await allocate_chunks(batch));
    batch.first = next_sequence_;
    batch.head = std::min(head_, batch.first);
    PayloadWriter payload(batch.chunks);
    for (Pending* p : batch.records) {
        std::array<std::byte, kLogRecordHeaderBytes> header{};
        const std::uint64_t position = next_position_++;
        put_record_header(header.data(), p->client, p->record.size(), position);
        payload.put(header);
        payload.put(p->record);
        p->result = position;
    }
    for (std::uint64_t i = 0; i < batch.pages; ++i) {
        LogPageHeader h;
        h.array_uuid = array_.superblock().array_uuid;
        h.generation = generation_;
        h.sequence = batch.first + i;
        h.previous = i == 0 ? tail_ : h.sequence - 1;
        h.head = batch.head;
        h.batch_first = batch.first;
        h.next_position = next_position_;
        h.epoch = array_.superblock().epoch;
        h.flags = static_cast<std::uint16_t>(flags | (i + 1 == batch.pages ? kLogLastOfBatch : 0) |
                                             (records_lost_ ? kLogRecordsLost : 0));
        const std::uint64_t from = std::min(payload.bytes(), i * kLogPayloadBytes);
        h.payload_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(payload.bytes() - from, kLogPayloadBytes));
        encode(h, page_of(batch.chunks, i).first<kLogPageBytes>());
    }
    next_sequence_ += batch.pages;
    co_return Result<void>{};
}

Task<Result<void>> RingLog::write_to_member(std::uint32_t member, Batch& batch) {
    std::uint64_t i = 0;
    while (i < batch.pages) {
        const std::uint64_t slot = (batch.first + i) % slots_;
        const std::uint64_t run = std::min({batch.pages - i, kChunkPages - i % kChunkPages, slots_ - slot});
        const Lba lba = slot_lba(member, slot);
        const Buffer& chunk = batch.chunks[i / kChunkPages];
        const std::size_t bytes = run * kLogPageBytes;
        const std::uint64_t in_chunk = i % kChunkPages;
        const Slice slice(chunk.memory().subspan(in_chunk * kLogPageBytes, bytes), chunk.infos().subspan(in_chunk, run),
                          0);
        CO_TRY_VOID(co_await array_.members[member].device->areas().write(lba, slice, {.fua = true}));
        i += run;
    }
    co_return Result<void>{};
}

/// RL2. `everywhere`: on all usable members.
Task<Result<void>> RingLog::write_copies(Batch& batch, bool everywhere) {
    const std::uint32_t members = array_.geometry.members;
    std::uint32_t tried = 0;
    std::uint32_t done = 0;
    const auto durable = [&](std::uint32_t holders) {
        return !everywhere && (enough(holders) || (active(TestSwitch::kJournalOneCopy) && holders != 0));
    };
    while (!durable(done)) {
        MemberFan fan;
        std::uint32_t started = 0;
        for (std::uint32_t i = 0; i < members && !durable(done | started); ++i) {
            const std::uint32_t m = (rotation_ + i) % members;
            if ((tried >> m & 1U) == 0 && array_.in_sync(m)) {
                started |= 1U << m;
                fan.start(m, write_to_member(m, batch));
            }
        }
        const std::uint32_t copied = copying_to_ ? 1U << *copying_to_ : 0;  // RL7
        if ((copied & ~(tried | started)) != 0 && array_.rebuilding(*copying_to_)) {
            started |= copied;
            fan.start(*copying_to_, write_to_member(*copying_to_, batch));
        }
        if (started == 0) {
            break;
        }
        tried |= started;
        co_await fan.all();
        for (std::uint32_t m = 0; m < members; ++m) {
            if ((started >> m & 1U) == 0) {
                continue;
            }
            if (const auto code = fan.failure(m)) {
                const Result<void> noted = co_await array_.fail_member(m, Error(*code, "write of the durable log"));
                static_cast<void>(noted);  // read-only or not, another member takes the copy
            } else {
                done |= array_.in_sync(m) ? 1U << m : 0;
            }
        }
    }
    // By twos where members are pairs, so that two copies are enough there.
    rotation_ = (rotation_ + array_.level.step) % members;
    if (done == 0) {
        co_return fail(Errc::kReadOnly, "array " + array_.name + ": no member takes the durable log any more");
    }
    co_return Result<void>{};
}

Task<Result<void>> RingLog::write_head_page(std::uint16_t flags, bool everywhere) {
    Batch batch;
    batch.pages = 1;
    Result<void> outcome = co_await encode_batch(batch, flags);
    if (outcome) {
        outcome = co_await write_copies(batch, everywhere);
    }
    finish(batch, outcome);
    co_return outcome;
}

void RingLog::finish(Batch& batch, const Result<void>& outcome) {
    if (outcome) {
        tail_ = batch.first + batch.pages - 1;
        durable_head_ = batch.head;
    } else if (!batch.chunks.empty() && batch.first != 0) {
        dead_.emplace(outcome.error());  // RL4: its pages may be there in part
    }
    for (Pending* p : batch.records) {
        if (outcome) {
            live_.push_back({**p->result, p->client, batch.first});
        } else {
            p->result.emplace(std::unexpected(outcome.error()));
        }
        p->done.set();
    }
}

void RingLog::advance_head() {
    const std::scoped_lock lock(clients_mutex_);
    while (!live_.empty()) {
        const auto at = clients_.find(live_.front().client);
        if (at == clients_.end() || live_.front().position >= at->second.dropped_below) {
            break;
        }
        live_.pop_front();
    }
    head_ = live_.empty() ? next_sequence_ : live_.front().batch_first;
}

Task<void> RingLog::run_checkpoints() {
    std::vector<LogClientId> asked;
    const std::uint64_t head_before = head_;
    while (!dead_) {
        advance_head();
        if (live_.empty() || next_sequence_ - head_ <= slots_ / 4) {
            break;
        }
        const LogClientId client = live_.front().client;
        Executor* executor = nullptr;
        Checkpoint checkpoint;
        {
            const std::scoped_lock lock(clients_mutex_);
            const Client& c = clients_[client];
            executor = c.executor;
            checkpoint = c.checkpoint;
        }
        if (executor == nullptr || std::ranges::count(asked, client) > 0) {
            break;
        }
        asked.push_back(client);
        privileged_ = client;
        co_await resume_on(*executor);
        const Result<void> r = co_await checkpoint();
        co_await resume_on(array_.home);
        privileged_.reset();
        if (!r) {
            array_.event(Severity::kWarning, "log-checkpoint-failed", "array " + array_.name, r.error().message);
        }
    }
    checkpointing_ = false;
    if (head_ != head_before) {
        kick();
    }
}

Task<void> RingLog::stop() {
    if (!dead_) {
        dead_.emplace(Errc::kClosed, "the array is stopping");
    }
    if (!writing_) {
        for (Pending* p : std::exchange(pending_, {})) {
            p->result.emplace(std::unexpected(*dead_));
            p->done.set();
        }
    }
    co_await gate_.close();
}

}  // namespace gemel::raid
