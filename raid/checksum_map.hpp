// SPDX-License-Identifier: Apache-2.0
// ChecksumMap: the pages of the checksum map that belong to one shard: a cache of them, loaded when they are needed,
// written back later.
//
// Invariants:
//   CM1 An entry changes before the block that it is about is written, and only while what says that this block may be
//       half written is durable: the journal lists it, its column is untrusted, or the superblock says unclean. So a
//       page may be written at any moment after that, and a crash at any moment finds each block either as its entry
//       says, or named.
//   CM2 What names a block goes only after its page is written to all copies, and flushed with the data: write_back(),
//       then the flush, then the checkpoint or the clean superblock.
//   CM3 A page is changed, and asked under a lock (CS4), only when all copies were compared for the newest one. For
//   other
//       reads one copy that is not on the member whose data is read is enough: a member that loses a write and the
//       entry for it is found out.
//   CM4 A page that is being written is copied first; a change meanwhile makes it dirty again. One write of a page at a
//       time, so that an older one never lands on a newer one.
//   CM5 Readers on other executors see a page only between two equal, non-zero tags; whoever finds it changed, or not
//       there, asks the shard.
//   CM6 One page of every set of ways at least is not dirty, so that what an array that turned read-only holds can be
//       compared: it can write no page to make room.
// Threads: peek() on any; everything else on the shard.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gemel/sync.hpp"
#include "raid/checksum_page.hpp"
#include "raid/superblock.hpp"

namespace gemel::raid::detail {

class ArrayBody;

class ChecksumMap {
  public:
    /// `area`: of the first pages, on every member. `most_pages`: in the cache. `start`: the superblock's epoch (CP4).
    /// Home.
    ChecksumMap(ArrayBody& array, const ChecksumLayout& layout, ChecksumOrigin origin, std::uint64_t start,
                const AreaRecord& area, std::size_t most_pages);

    static constexpr std::uint32_t kAllCopies = ~0U;  ///< instead of a member: what all copies say together

    /// The entries of blocks from `block` on, of one page, as far as `out` goes. False if the page is not there for
    /// reading what lies on `member`.
    bool peek(std::uint64_t block, std::uint32_t slot, std::uint32_t member, std::span<std::uint32_t> out) const;

    /// The page is there for reading what lies on `member` (CM3), until the caller waits for something.
    /// Errors: kResources, kIo: no copy can be read now.
    Task<Result<void>> load_for(std::uint64_t page, std::uint32_t member);
    /// The same, for changing it.
    Task<Result<void>> load(std::uint64_t page);
    [[nodiscard]] bool loaded(std::uint64_t page) const;
    /// REQUIRES: its page was loaded, and nothing was waited for since.
    [[nodiscard]] std::uint32_t get(std::uint64_t block, std::uint32_t slot) const;
    void set(std::uint64_t block, std::uint32_t slot, std::uint32_t entry);
    /// Loads the page; it is to be written again although nothing in it changes. Errors: as load().
    Task<Result<void>> renew(std::uint64_t page);

    /// What is changed now is on all copies, not flushed, when it returns. Errors: kResources, kReadOnly, kIo: no copy
    /// of a page could be written. In any case the caller fails those that take_missed() then gives.
    Task<Result<void>> write_back();
    /// The members that missed a page since the last call, as bits.
    std::uint32_t take_missed() { return std::exchange(missed_, 0); }

    [[nodiscard]] std::size_t cached() const { return cached_.load(std::memory_order_relaxed); }

  private:
    static constexpr std::size_t kWays = 4;
    struct Way {
        std::atomic<std::uint64_t> tag{0};      ///< version and page + 1 while readers may use it (CM5)
        std::atomic<std::uint32_t> sources{0};  ///< members whose copies were asked, or kAllCopies
        std::unique_ptr<std::array<std::atomic<std::uint32_t>, kChecksumEntries>> entries;
        // The shard's.
        std::uint64_t page = 0;
        bool taken = false;  ///< `page` is there, or is being loaded
        bool loading = false;
        bool dirty = false;
        bool queued = false;  ///< in `dirty_`
        bool writing = false;
        bool recent = false;
        std::uint64_t version = 0;  ///< of what readers may use
    };
    /// What copies of a page say together, sector by sector (CP4).
    struct Found {
        std::array<ChecksumStamp, kChecksumUnits> stamps{};
        std::array<std::uint32_t, kChecksumUnits> copies{};  ///< valid ones
        bool odd = false;                                    ///< copies differ, or are missing where others are there
        bool unread = false;                                 ///< some could not be read now
        bool damaged = false;
        ChecksumEntries entries{};

        [[nodiscard]] bool whole() const { return std::ranges::find(copies, 0U) == copies.end(); }
        [[nodiscard]] bool empty() const { return std::ranges::count(copies, 0U) == std::ssize(copies); }
    };

    [[nodiscard]] std::span<Way> set_of(std::uint64_t page) const;
    [[nodiscard]] Way* find(std::uint64_t page) const;
    [[nodiscard]] Way& at(std::uint64_t page) const;
    [[nodiscard]] static bool serves(const Way& way, std::uint32_t member);
    [[nodiscard]] bool crowded(const Way& way) const;
    Task<Result<void>> bring(std::uint64_t page, std::uint32_t member);
    Task<Result<Way*>> claim(std::uint64_t page);
    Task<Result<void>> save_for_room(Way& way);
    Task<Result<void>> fill(Way& way, std::uint32_t member);
    Task<Result<void>> ask(std::uint64_t page, std::uint32_t members, Found& found);
    void take(std::uint64_t page, std::span<const std::byte, kChecksumPageBytes> copy, Found& found) const;
    [[nodiscard]] std::uint32_t holders_in_sync(std::uint64_t page) const;
    void publish(Way& way, const ChecksumEntries& entries, std::uint32_t sources);
    void make_dirty(Way& way);
    Task<Result<void>> save(Way& way);
    Task<Result<void>> write_copies(const Way& way);
    [[nodiscard]] Lba lba_of(const ChecksumLayout::Place& place) const;
    void wake() {
        changed_.set();
        changed_.reset();
    }

    ArrayBody& array_;
    const ChecksumLayout& layout_;
    ChecksumOrigin origin_;
    std::array<Lba, kMaxMembers> areas_;  ///< on each member
    std::uint64_t area_pages_;
    std::size_t sets_;
    std::unique_ptr<Way[]> ways_;
    std::atomic<std::size_t> cached_{0};
    ChecksumStamp stamp_;          ///< the last one used
    std::vector<Way*> dirty_;      ///< each that became so; some are not any more
    std::vector<Way*> in_flight_;  ///< being written
    std::uint32_t missed_ = 0;
    Mutex write_backs_;  ///< one at a time: it takes the list
    Event changed_;      ///< set and reset at once: a load or a write has ended
};

}  // namespace gemel::raid::detail
