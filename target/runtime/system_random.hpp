// SPDX-License-Identifier: Apache-2.0
// SystemRandom: the kernel's CSPRNG by getrandom(2), fetched 512 bytes at a time per thread.
// Threads: any.
#pragma once

#include "gemel/random.hpp"

namespace gemel {

class SystemRandom final : public Random {
  public:
    std::uint64_t next() override;
};

}  // namespace gemel
