// SPDX-License-Identifier: Apache-2.0
// DiskImage: a simulated disk as tools/inspect reads it.
// Threads: the scheduler's.
#pragma once

#include <algorithm>

#include "tests/support/sim_disk.hpp"
#include "tests/support/sim_environment.hpp"
#include "tools/inspect/member_report.hpp"

namespace gemel::sim {

class DiskImage final : public inspect::MemberImage {
  public:
    DiskImage(SimScheduler& scheduler, SimExecutor& executor, SimEnvironment& environment, SimDisk& disk)
        : scheduler_(scheduler), executor_(executor), environment_(environment), disk_(disk) {}

    [[nodiscard]] std::uint64_t bytes() const override { return bytes_of(disk_.limits().sectors); }
    bool read(std::uint64_t offset, MutableBytes to) override {
        const Buffer buffer = *environment_.pool().allocate(to.size());
        const Lba lba(offset / kSectorBytes);
        const Slice slice = buffer.slice(to.size(), lba);
        slice.clear_infos();
        const bool good = scheduler_.run(executor_, disk_.read(lba, slice, {})).has_value();
        std::ranges::copy(slice.data(), to.begin());
        return good;
    }

  private:
    SimScheduler& scheduler_;
    SimExecutor& executor_;
    SimEnvironment& environment_;
    SimDisk& disk_;
};

}  // namespace gemel::sim
