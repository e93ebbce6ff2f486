// SPDX-License-Identifier: Apache-2.0
// The kinds of member devices: one row each. A new kind is a file and a row; the conformance suite of BlockDevice
// (tests/unit/backend) runs on every row.
// Threads: open_backend() and the devices on any processor; a device completes on the processor that called it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gemel/block_device.hpp"
#include "gemel/environment.hpp"

namespace gemel {

struct BackendSpec {
    std::string kind;  ///< a row's name
    std::string path;  ///< absolute; "file" and "block"
    std::uint64_t bytes =
        0;                ///< of "memory", and of a "file" to be created; otherwise 0, or the size expected at least
    bool create = false;  ///< a "file" that does not exist is made, with all its space allocated
    /// How long to wait for another holder of the device.
    Duration wait{std::chrono::seconds(10)};
    bool thin = false;  ///< discard() gives space back; a file that has any space gets no more at opening
};

using DeviceResult = Result<std::unique_ptr<BlockDevice>>;

struct BackendRow {
    std::string_view name;
    bool needs_path;
    bool needs_bytes;  ///< always, not only with create
    bool persistent;   ///< its data survives the daemon
    Task<DeviceResult> (*open)(Environment environment, BackendSpec spec);
    std::string_view meaning;
};

/// Opens the file exclusively (flock on the descriptor used for I/O). Errors: as open_backend.
Task<DeviceResult> open_file_backend(Environment environment, BackendSpec spec);
/// Opens the block device exclusively (O_EXCL).
Task<DeviceResult> open_block_backend(Environment environment, BackendSpec spec);
/// Memory of this process, zeros at first.
Task<DeviceResult> open_memory_backend(Environment environment, BackendSpec spec);

inline constexpr std::array kBackendTable{
    BackendRow{"file", true, false, true, &open_file_backend, "a regular file, O_DIRECT, its space allocated"},
    BackendRow{"block", true, false, true, &open_block_backend, "a block device, O_DIRECT, opened exclusively"},
    BackendRow{"memory", false, true, false, &open_memory_backend, "memory, made anew at each start"},
};

/// nullptr if there is no such kind.
constexpr const BackendRow* find_backend(std::string_view kind) {
    for (const BackendRow& row : kBackendTable) {
        if (row.name == kind) {
            return &row;
        }
    }
    return nullptr;
}

/// Opens a device for this process alone. The parts of `environment` outlive the device.
/// Errors: kUnsupported: no such kind; kInvalidArgument: path or size missing or wrong; kNotFound: no such file or
/// device; kBusy: held by somebody, who is named, for all of spec.wait; kNoSpace; kRefused: no permission;
/// kSizeMismatch: smaller than spec.bytes; kIo.
Task<DeviceResult> open_backend(Environment environment, BackendSpec spec);

/// Looks at the size of what is behind a device of this table; one that was extended has the new size from then on, a
/// file its space allocated. Blocks the thread for short. Errors: kSizeMismatch: it has become smaller; kNoSpace, kIo.
Result<void> measure_backend(BlockDevice& device);

/// What lies on the file or device: "ext4 file system", "GPT partition table"; nothing if it is blank, does not exist
/// or is memory. Blocks the thread for some disk reads. Errors: kIo, kRefused.
Result<std::optional<std::string>> find_content(const BackendSpec& spec);

}  // namespace gemel
