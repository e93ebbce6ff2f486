// SPDX-License-Identifier: Apache-2.0
// BlockDevice: the waist of Gemel. Backends, arrays, volumes, mirrors and the fault decorators of the tests all are
// one, stacked on one another; the front end sees only the topmost.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gemel/buffer.hpp"
#include "gemel/result.hpp"
#include "gemel/task.hpp"
#include "gemel/units.hpp"

namespace gemel {

struct DeviceLimits {
    SectorCount sectors;                  ///< present size; may grow (DeviceObserver::capacity_changed)
    std::uint32_t alignment_sectors = 1;  ///< every address and count is a multiple: 1, or 8 for 4Kn
    std::uint32_t physical_sectors = 1;   ///< below this a write may damage neighbours on power loss
    std::uint32_t max_transfer_bytes = 4U << 20U;
    std::uint32_t optimal_transfer_bytes = 0;  ///< a full stripe, or 0
    bool volatile_cache = true;                ///< an acknowledged write needs flush() to survive power loss
    bool gives_back = false;                   ///< discard() gives space back; it may turn out that it does not
    /// A discard gives back most where it begins and ends at `discard_first` + n * `discard_unit` sectors.
    std::uint32_t discard_unit = kSectorsPerBlock;
    std::uint32_t discard_first = 0;
};

struct WriteOptions {
    bool fua = false;         ///< durable before it returns
    bool background = false;  ///< rebuild, resync, scrub: yields to hosts
    bool give_back = false;  ///< zeros may be given back instead of stored, as by discard(); what is no zeros is stored
    friend bool operator==(const WriteOptions&, const WriteOptions&) = default;
};

struct ReadOptions {
    bool background = false;
};

/// A range of sectors.
struct Extent {
    Lba lba;
    SectorCount sectors;
    friend bool operator==(const Extent&, const Extent&) = default;
};

/// What a device tells the one above it, on any executor, without waiting.
class DeviceObserver {
  public:
    virtual ~DeviceObserver() = default;
    /// These blocks cannot be known here any more; whoever has another copy may repair_write() them.
    virtual void unreadable(Extent /*extent*/) {}
    virtual void capacity_changed(SectorCount /*now*/) {}
    /// The device is read-only or gone from now on.
    virtual void degraded(const std::string& /*why*/) {}
};

class BlockDevice {
  public:
    virtual ~BlockDevice() = default;

    /// Threads of all calls: any I/O processor's executor; the task ends on the executor that called it.
    [[nodiscard]] virtual DeviceLimits limits() const = 0;

    /// Fills `to` and sets the status of each of its blocks (B2); sets checksums only where one is kept with the data.
    /// REQUIRES:  the range is inside limits().sectors and aligned; to.size() <= max_transfer_bytes.
    /// Errors:    kMediumError: some blocks are unreadable, the others are good. kDeviceGone, kNotReady, kStandby, kIo.
    ///            kTimedOut: a device below did not answer and still holds the memory of `to` (B4), which means nothing
    ///            any more; a read into another buffer goes around that device.
    /// Ordering:  a read that overlaps a write in flight returns per sector the old or the new value.
    virtual Task<Result<void>> read(Lba lba, Slice to, ReadOptions options = {}) = 0;

    /// Writes `from`, whose blocks carry checksums (B1) if the front end or a peer made them.
    /// Ownership:  `from` is borrowed, unchanged, until the task ends.
    /// Durability: success means that the data is in the hands of every device that must hold it and survives the death
    ///             of this process; it survives power loss after a later successful flush(), or at once with fua.
    /// Ordering:   overlapping concurrent writes are serialised in some order, the same on every copy.
    /// Errors:     per sector old or new after an error. kReadOnly, kDeviceGone, kNoSpace, kStandby, kNotReady, kIo,
    ///             kChecksum: `from` no longer matches its checksums; nothing was written.
    virtual Task<Result<void>> write(Lba lba, Slice from, WriteOptions options = {}) = 0;

    /// All writes that had succeeded before this call are durable. A failed flush fails the leg below; never retried.
    virtual Task<Result<void>> flush() = 0;

    /// A write of zeros, which may give space back where reads of zeros are guaranteed: durability, order and errors
    /// are those of write(), and of a device that loses power in the middle each sector reads as before or as zeros.
    virtual Task<Result<void>> discard(Lba lba, SectorCount count) = 0;

    /// Rewrites blocks whose copy here was bad with data known to be right from another copy. Default: write().
    virtual Task<Result<void>> repair_write(Lba lba, Slice from) { return write(lba, from, {}); }

    /// At most one observer, set before I/O starts; nullptr takes it away.
    virtual void observe(DeviceObserver* /*observer*/) {}

    /// Names the data, not the place: the same on both nodes of a pair. Nil for a plain backend.
    [[nodiscard]] virtual Uuid identity() const { return {}; }

    /// For messages: "file:/path", "array r5 member 2".
    [[nodiscard]] virtual std::string name() const = 0;
};

}  // namespace gemel
