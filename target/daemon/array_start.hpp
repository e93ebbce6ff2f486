// SPDX-License-Identifier: Apache-2.0
// Brings one array of the configuration up: opens its members, and assembles or formats it.
//
// Invariants:
//   AR1 An array is formatted only if the configuration says create = true, the state directory has no record of it,
//       and nothing lies on any member; memory members are blank at every start and have no record.
//   AR2 A refusal changes nothing: contents are looked at before a file is made, and the record kFormatting goes away
//       again when the array refuses.
// Threads: on the main processor.
#pragma once

#include <memory>
#include <vector>

#include "gemel/environment.hpp"
#include "raid/array.hpp"
#include "target/config/config.hpp"
#include "target/daemon/state_directory.hpp"

namespace gemel {

struct StartedArray {
    std::vector<std::unique_ptr<BlockDevice>> devices;  ///< outlive the array
    std::vector<raid::MemberSpec> named;                ///< those of the configuration that are there, spares last
    std::unique_ptr<raid::Array> array;
};

struct ArrayStart {
    Environment& environment;
    StateDirectory& state;
    const config::Array& array;
    std::vector<raid::VolumeSpec> volumes;
    std::vector<Executor*> shards;
    bool force = false;                   ///< the operator named it with --force
    std::uint64_t most_stripe_cache = 0;  ///< bytes: its share of the buffers
};

/// Errors: those of open_backend and of raid::Array::open, with the array named and what to do.
Task<Result<StartedArray>> start_array(ArrayStart start);

}  // namespace gemel
